//! Networks of an ordinary user's containers: pasta, slirp4netns where there is no pasta, the host's and none; on a host
//! in a network namespace of the test's.

use crate::network::{Namespace, neighbours, until};
use crate::place::{Place, program, text};
use crate::sc_rootless::{UID, as_user, home};
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::{Child, Command, Output, Stdio};

tests! {
    pasta_carries_what_goes_out_and_publishes ["busybox", "setpriv", "newuidmap", "ip", "curl", "pasta", "/dev/net/tun"],
    slirp4netns_does_it_where_there_is_no_pasta ["busybox", "setpriv", "newuidmap", "ip", "curl", "slirp4netns", "/dev/net/tun"],
    without_both_there_is_loopback ["busybox", "setpriv", "newuidmap", "ip"],
    the_hosts_network_is_shared_and_none_is_none ["busybox", "setpriv", "newuidmap", "ip"],
}

/// What sc executes as an ordinary user, but for what carries networks.
const TOOLS: [&str; 9] = [
    "sh",
    "rm",
    "env",
    "newuidmap",
    "newgidmap",
    "fuse-overlayfs",
    "nft",
    "busybox",
    "mount",
];

/// An ordinary user on a host with a neighbour, 192.0.2.2, that has a web server.
struct User<'a> {
    place: &'a Place,
    host: Namespace,
    outside: Namespace,
    web: Option<Child>,
}

impl User<'_> {
    /// With only these of the programs that carry networks.
    fn new<'a>(place: &'a Place, carriers: &[&str]) -> Result<User<'a>> {
        home(place, UID)?;
        let (host, outside) = neighbours()?;
        fs::create_dir(place.path("tools"))?;
        for name in TOOLS.iter().chain(carriers) {
            if let Some(path) = program(name) {
                std::os::unix::fs::symlink(path, place.path("tools").join(name))?;
            }
        }
        place.sh("mkdir www; echo outside >www/index.html")?;
        let mut user = User {
            place,
            host,
            outside,
            web: None,
        };
        let mut web = user.outside.command("busybox");
        web.args(["httpd", "-f", "-p", "192.0.2.2:80", "-h"]);
        user.web = Some(web.arg(place.path("www")).spawn()?);
        Ok(user)
    }

    fn command(&self, args: &[&str]) -> Command {
        let script = format!(
            "PATH={}; {}",
            self.place.path("tools").display(),
            as_user(self.place, UID).replace("setpriv", &found("setpriv"))
        );
        let mut command = self.host.command("unshare");
        command.args(["-m", "sh", "-ec", &script, "sh"]).args(args);
        command.current_dir(&self.place.dir).stdin(Stdio::null());
        command
    }

    fn sc(&self, args: &[&str]) -> Result<Output> {
        Ok(self.command(args).output()?)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        text(self.sc(args)?).with_context(|| args.join(" "))
    }

    /// What a container says that runs a script.
    fn run(&self, args: &[&str], script: &str) -> Result<String> {
        let all = [&["run", "--rm"], args, &["busybox", "sh", "-c", script]];
        self.ok(&all.concat())
    }

    /// A web server, in the background; it listens when this returns.
    fn serve(&self, name: &str, args: &[&str]) -> Result<()> {
        let script = format!("mkdir /www; echo {name} >/www/index.html; busybox httpd -f -h /www");
        let all = [
            &["run", "-d", "--name", name],
            args,
            &["busybox", "sh", "-c", &script],
        ];
        self.ok(&all.concat())?;
        let ask = ["exec", name, "busybox", "wget", "-qO-", "http://127.0.0.1/"];
        until(|| Ok(()), |_| self.ok(&ask).is_ok())
    }

    /// It may be another process that listens, which is there when it is.
    fn fetched(&self, url: &str, expected: &str) -> Result<()> {
        let fetch = format!("curl -gsS --max-time 60 {url} 2>&1 || true");
        until(|| self.host.sh(&fetch), |said| said.trim() == expected).context(url.to_owned())
    }

    /// Which processes of the user's containers are there?
    fn processes(&self) -> Result<String> {
        let dir = self.place.dir.display();
        self.place.sh(&format!("pgrep -af '{dir}/[h]ome/' || true"))
    }

    fn assert_nothing(&self) -> Result<()> {
        ensure!(self.ok(&["ps", "-aq"])?.is_empty(), "containers are left");
        until(|| self.processes(), |left| left.is_empty())
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        // What a failed test leaves, too.
        let ids = self.ok(&["ps", "-aq"]).unwrap_or_default();
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            let _ = self.sc(&[&["rm", "-f"][..], &ids].concat());
        }
        if let Some(web) = &mut self.web {
            let _ = web.kill();
            let _ = web.wait();
        }
    }
}

fn found(name: &str) -> String {
    program(name).map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

fn pasta_carries_what_goes_out_and_publishes(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta", "slirp4netns"])?;
    carries_and_publishes(&user)?;
    // Killed with its monitor, it leaves a pasta, which goes with the container.
    user.serve("web", &["-p", "8080:80"])?;
    let id = user.ok(&["inspect", "--format", "{{.Id}}", "web"])?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    place.host("kill", ["-9", monitor.trim()])?;
    user.fetched("http://127.0.0.1:8080/", "web")?;
    user.ok(&["rm", "-f", "web"])?;
    user.assert_nothing()
}

fn slirp4netns_does_it_where_there_is_no_pasta(place: &Place) -> Result<()> {
    carries_and_publishes(&User::new(place, &["slirp4netns"])?)
}

fn carries_and_publishes(user: &User) -> Result<()> {
    let out = "busybox wget -qO- http://192.0.2.2/; grep nameserver /etc/resolv.conf";
    let said = user.run(&[], out)?;
    ensure!(said.starts_with("outside\nnameserver "), "{said}");
    user.serve("web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"])?;
    for place in ["127.0.0.1:8080", "192.0.2.1:8080", "127.0.0.1:8081"] {
        user.fetched(&format!("http://{place}/"), "web")?;
    }
    let beyond =
        "curl -sS --max-time 60 http://192.0.2.1:8080/; ! curl -sS http://192.0.2.1:8081/ 2>&1";
    let said = user.outside.sh(beyond)?;
    ensure!(
        said.starts_with("web\n") && said.lines().count() == 2,
        "{said}"
    );
    let twice = user.sc(&["run", "--rm", "-p", "8080:80", "busybox", "true"])?;
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    ensure!(
        twice.status.code() == Some(125)
            && said.contains("8080/tcp is already in use by container web"),
        "{said}"
    );
    user.ok(&["rm", "-f", "web"])?;
    user.assert_nothing()
}

fn without_both_there_is_loopback(place: &Place) -> Result<()> {
    let user = User::new(place, &[])?;
    let output = user.sc(&["run", "--rm", "busybox", "busybox", "ip", "-o", "link"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("only loopback: without root a network needs pasta"),
        "{said}"
    );
    ensure!(text(output)?.lines().count() == 1);
    let refused = user.sc(&["run", "--rm", "-p", "80", "busybox", "true"])?;
    ensure!(refused.status.code() == Some(125));
    user.assert_nothing()
}

fn the_hosts_network_is_shared_and_none_is_none(place: &Place) -> Result<()> {
    let user = User::new(place, &["pasta", "slirp4netns"])?;
    let look =
        "busybox ip -o link | busybox wc -l; busybox wget -qO- http://192.0.2.2/ 2>&1 || true";
    let said = user.run(&["--network", "host"], look)?;
    ensure!(said == "2\noutside\n", "{said}");
    let said = user.run(&["--network", "none"], look)?;
    ensure!(
        said.starts_with("1\n") && !said.contains("outside"),
        "{said}"
    );
    user.assert_nothing()
}
