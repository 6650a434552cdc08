//! `$NOTIFY_SOCKET`: a container that is a service of systemd says when it is ready, and whoever
//! starts it waits for that (sd_notify(3)).

use crate::harness::{Bundle, Context, Need, Place, Result};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

const CRUN: Need = Need::Beyond("crun", "1.8 makes the socket when it creates");
const RUNC: Need = Need::Beyond(
    "runc",
    "1.1.5 sends no barrier, and waits for some that have ended",
);

tests! {
    start_returns_when_the_program_is_ready [CRUN, RUNC],
    run_detached_returns_when_the_program_is_ready [CRUN, RUNC],
    run_passes_readiness_on_while_it_waits [CRUN, RUNC],
    a_program_that_ends_unready_is_not_waited_for [CRUN, RUNC],
    a_container_with_a_user_namespace_is_heard [CRUN, RUNC],
    a_user_without_powers_is_heard [CRUN, RUNC],
    a_manager_with_an_abstract_address_is_told [CRUN, RUNC],
    a_manager_that_is_not_there_is_named [CRUN, Need::Beyond("runc", "1.1.5 goes on without")],
    a_start_that_did_not_reach_the_manager_can_be_repeated [CRUN, Need::Beyond("runc", "1.1.5 goes on without")],
    without_a_manager_nothing_is_shown,
}

/// A service manager's socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(t: &Place) -> Result<Manager> {
        let socket = UnixDatagram::bind(t.path("manager"))?;
        Manager::of(socket)
    }

    fn of(socket: UnixDatagram) -> Result<Manager> {
        socket.set_read_timeout(Some(crate::harness::machine().patience()))?;
        Ok(Manager(socket))
    }

    /// All lines up to the barrier, whose descriptor is closed by being ignored.
    fn hears(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let length = self.0.recv(&mut buffer).context("the manager waits")?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains("BARRIER=1") {
                return Ok(all);
            }
            all.extend(text.lines().map(str::to_owned));
        }
    }

    fn hears_nothing(&self) -> Result<()> {
        self.0.set_read_timeout(Some(Duration::from_millis(1)))?;
        assert!(self.0.recv(&mut [0; 9]).is_err());
        Ok(())
    }
}

/// Says something else first, and shows when it said that it is ready.
fn service(t: &Place) -> Bundle {
    t.bundle()
        .sh(r#"/probe tell "$NOTIFY_SOCKET" STATUS=busy >/dev/null
           sleep 0.2; echo now
           /probe tell "$NOTIFY_SOCKET" "$(printf 'STATUS=up\nREADY=1')" >/dev/null
           sleep 1000"#)
}

fn words(pid: i32) -> Vec<String> {
    vec!["READY=1".to_owned(), format!("MAINPID={pid}")]
}

fn start_returns_when_the_program_is_ready(t: &Place) -> Result<()> {
    starts_when_ready(t, &service(t))
}

fn starts_when_ready(t: &Place, bundle: &Bundle) -> Result<()> {
    starts_when_ready_after(t, bundle, |_| Ok(()))
}

fn a_start_that_did_not_reach_the_manager_can_be_repeated(t: &Place) -> Result<()> {
    starts_when_ready_after(t, &service(t), |c| {
        let start = t.runtime(["start", &c.id]).env("NOTIFY_SOCKET", "/nowhere");
        start
            .run()?
            .fails(&["NOTIFY_SOCKET=/nowhere", "No such file"]);
        Ok(())
    })
}

fn starts_when_ready_after(
    t: &Place,
    bundle: &Bundle,
    before: impl FnOnce(&crate::harness::Container) -> Result<()>,
) -> Result<()> {
    let manager = Manager::new(t)?;
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let create = t.runtime(["create", "--bundle", &dir, &id]);
    let create = create.env("NOTIFY_SOCKET", t.path("manager"));
    let c = crate::harness::Container::from_call(t, id, create)?;
    before(&c)?;
    let started = std::thread::scope(|scope| {
        let heard = scope.spawn(|| manager.hears());
        let start = t.runtime(["start", &c.id]);
        let started = start.env("NOTIFY_SOCKET", t.path("manager")).run();
        assert_eq!(heard.join().expect("the manager")?, words(c.pid));
        started
    });
    started?.ok();
    assert_eq!(c.output(), "now\n");
    c.end()
}

fn run_detached_returns_when_the_program_is_ready(t: &Place) -> Result<()> {
    let manager = Manager::new(t)?;
    let (id, bundle) = (t.fresh_id(), service(t));
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    std::thread::scope(|scope| {
        let heard = scope.spawn(|| manager.hears());
        let run = t.runtime(["run", "--detach", "--bundle", &dir, &id]);
        let out = run.env("NOTIFY_SOCKET", t.path("manager")).run()?.ok();
        assert_eq!(out.stdout, "now\n");
        let pid = state_pid(t, &id)?;
        assert_eq!(heard.join().expect("the manager")?, words(pid));
        Ok::<_, anyhow::Error>(())
    })?;
    t.call(["delete", "--force", &id])?.ok();
    Ok(())
}

fn state_pid(t: &Place, id: &str) -> Result<i32> {
    let state: crate::harness::Value = serde_json::from_str(&t.call(["state", id])?.text())?;
    Ok(state["pid"].as_i64().context("a pid")? as i32)
}

fn run_passes_readiness_on_while_it_waits(t: &Place) -> Result<()> {
    let manager = Manager::new(t)?;
    let (id, bundle) = (t.fresh_id(), service(t));
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let run = t.runtime(["run", "--bundle", &dir, &id]);
    let running = run.env("NOTIFY_SOCKET", t.path("manager")).spawn()?;
    let heard = manager.hears()?;
    assert_eq!(heard, words(state_pid(t, &id)?));
    t.call(["kill", &id, "KILL"])?.ok();
    assert_eq!(running.wait()?.status, 137);
    t.nothing_is_left();
    Ok(())
}

fn a_program_that_ends_unready_is_not_waited_for(t: &Place) -> Result<()> {
    let manager = Manager::new(t)?;
    let (id, bundle) = (t.fresh_id(), t.bundle().sh("sleep 0.1; exit 3"));
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let run = |words: &[&str]| {
        let call = t.runtime(words.iter().copied().chain(["--bundle", &dir, &id]));
        call.env("NOTIFY_SOCKET", t.path("manager")).run()
    };
    assert_eq!(run(&["run"])?.status, 3);
    run(&["run", "--detach"])?.ok();
    t.call(["delete", "--force", &id])?.ok();
    manager.hears_nothing()
}

fn a_container_with_a_user_namespace_is_heard(t: &Place) -> Result<()> {
    starts_when_ready(t, &service(t).user_namespace()?)
}

fn a_user_without_powers_is_heard(t: &Place) -> Result<()> {
    let user = crate::harness::json!({ "uid": 1000, "gid": 1000 });
    starts_when_ready(t, &service(t).set("/process/user", user))
}

fn a_manager_with_an_abstract_address_is_told(t: &Place) -> Result<()> {
    let name = t.fresh_id();
    let manager = SocketAddr::from_abstract_name(&name)?;
    let manager = Manager::of(UnixDatagram::bind_addr(&manager)?)?;
    let (id, bundle) = (t.fresh_id(), service(t));
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let run = t.runtime(["run", "--bundle", &dir, &id]);
    let running = run.env("NOTIFY_SOCKET", format!("@{name}")).spawn()?;
    assert_eq!(manager.hears()?, words(state_pid(t, &id)?));
    t.call(["kill", &id, "KILL"])?.ok();
    running.wait()?;
    Ok(())
}

fn a_manager_that_is_not_there_is_named(t: &Place) -> Result<()> {
    let (id, bundle) = (t.fresh_id(), t.bundle().sh("true"));
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let run = t.runtime(["run", "--bundle", &dir, &id]);
    let run = run.env("NOTIFY_SOCKET", "/nowhere").run()?;
    run.fails(&["NOTIFY_SOCKET=/nowhere", "No such file"]);
    t.nothing_is_left();
    Ok(())
}

fn without_a_manager_nothing_is_shown(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh("echo \"[$NOTIFY_SOCKET]\"; test ! -e /run/notify");
    assert_eq!(t.run(&bundle)?.text(), "[]");
    Ok(())
}
