//! Terminals: handed out through a console socket, or the runtime's own.

use crate::harness::place::{accept, until};
use crate::harness::{Bundle, Container, Context, Need, Place, Result, Value, json, kernel};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

tests! {
    the_console_socket_receives_the_master,
    the_console_has_the_size_asked_for,
    the_console_belongs_to_the_user_of_the_process,
    typing_into_the_master_reaches_the_process,
    run_with_a_terminal_uses_the_callers [Need::Beyond("crun", "1.8 does not hand on the size"), Need::Beyond("runc", "1.1.5 sets the size a moment after the process has begun")],
    what_a_stdout_that_never_waits_cannot_take_at_once_is_not_lost [Need::Beyond("crun", "1.8 loses it"), Need::Beyond("runc", "1.1.5 ends its copying at the first EAGAIN")],
    signals_pass_while_nobody_takes_its_output [Need::Beyond("crun", "1.8 waits for the reader"), Need::Beyond("runc", "1.1.5 stops writing before the pipe is full")],
    the_config_of_spec_runs_in_a_terminal_as_it_is [Need::Beyond("crun", "1.8 wants CAP_SYS_RESOURCE for its device rules")],
    a_terminal_without_a_console_socket_is_refused_when_detached,
    a_console_socket_without_a_terminal_is_refused [Need::Beyond("crun", "1.8 ignores it")],
    a_console_socket_in_the_foreground_is_refused [Need::Beyond("crun", "1.8 uses it")],
    a_console_socket_that_is_not_there_is_an_error,
    without_a_terminal_there_is_no_console_device,
}

fn with_terminal(bundle: Bundle) -> Bundle {
    bundle.set("/process/terminal", true)
}

/// A created container and the master of its terminal.
fn create_with_console<'p>(t: &'p Place, bundle: &Bundle) -> Result<(Container<'p>, OwnedFd)> {
    let socket = t.path(&format!("tty-{}.sock", t.next_number()));
    let listener = UnixListener::bind(&socket)?;
    let c = t.create_with(bundle, &["--console-socket", &socket.display().to_string()])?;
    let stream = accept(&listener)?;
    let (master, name) = kernel::receive_fd(stream.as_fd())?;
    assert!(!name.is_empty(), "a message needs a byte to ride on");
    Ok((c, master))
}

/// What the process prints to its terminal until it ends.
fn read_to_end(master: OwnedFd, c: &Container) -> Result<String> {
    c.ended()?;
    let mut text = Vec::new();
    // The end of a terminal is EIO: all other ends of it are closed.
    let _ = File::from(master).read_to_end(&mut text);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn see_through_console(t: &Place, bundle: Bundle) -> Result<Value> {
    // Too long for the line discipline's buffer, so to a file.
    let bundle = with_terminal(bundle).sh("/probe > /tmp/seen; tty; stat -c %F:%u /dev/console");
    let file = bundle.inside("tmp/seen");
    let (c, master) = create_with_console(t, &bundle)?;
    c.start()?;
    let text = read_to_end(master, &c)?;
    let mut seen: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    seen["printed"] = json!(text);
    Ok(seen)
}

fn the_console_socket_receives_the_master(t: &Place) -> Result<()> {
    let seen = see_through_console(t, t.bundle())?;
    assert_eq!(seen["terminal"], json!([true, false, true])); // stdout is the file
    let printed = seen["printed"].as_str().context("text")?;
    assert!(
        printed.starts_with("/dev/pts/0\r\n") || printed.starts_with("/dev/console\r\n"),
        "{printed:?}"
    );
    assert!(printed.contains("character special file:0"), "{printed:?}");
    assert_eq!(seen["sid"], seen["pgid"]);
    Ok(())
}

fn the_console_has_the_size_asked_for(t: &Place) -> Result<()> {
    let seen = see_through_console(
        t,
        t.bundle()
            .set("/process/consoleSize", json!({ "height": 33, "width": 99 })),
    )?;
    assert_eq!(seen["window"], json!([33, 99]));
    Ok(())
}

fn the_console_belongs_to_the_user_of_the_process(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let printed = see_through_console(t, bundle)?["printed"].to_string();
    assert!(printed.contains("character special file:1000"), "{printed}");
    Ok(())
}

fn typing_into_the_master_reaches_the_process(t: &Place) -> Result<()> {
    let bundle = with_terminal(t.bundle()).sh("read word; echo \"got $word\"; read forever");
    let (c, master) = create_with_console(t, &bundle)?;
    c.start()?;
    let mut master = File::from(master);
    master.write_all(b"hello\n")?;
    let mut text = String::new();
    while !text.contains("got hello") {
        let mut bytes = [0; 100];
        let n = master.read(&mut bytes)?;
        text += &String::from_utf8_lossy(&bytes[..n]);
    }
    master.write_all(&[3])?; // ^C: the terminal is the process's controlling one
    let _ = c.kill("KILL")?; // PID 1 may ignore the interrupt
    c.ended()?;
    c.delete()
}

/// A pager that waits for a key, or a terminal after ctrl-s.
fn signals_pass_while_nobody_takes_its_output(t: &Place) -> Result<()> {
    let script =
        "trap 'echo heard > /tmp/heard; exit 3' TERM; seq 100000 & while :; do sleep 0.1; done";
    let bundle = with_terminal(t.bundle()).sh(script);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let (ours, stdout) = nix::unistd::pipe()?;
    let writable = stdout.try_clone()?;
    let call = t.runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id]);
    let running = call.fd(stdout, 1)?.spawn()?;
    until("the pipe is full", || {
        let mut fds = [PollFd::new(writable.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    });
    drop(writable);
    kernel::kill(running.pid(), libc::SIGTERM)?;
    until("the signal is heard", || {
        bundle.inside("tmp/heard").exists()
    });
    let reader = std::thread::spawn(move || File::from(ours).read_to_end(&mut Vec::new()));
    assert_eq!(running.wait()?.status, 3);
    assert!(reader.join().expect("the reader")? > 0);
    Ok(())
}

/// Whoever shares our stdout may have set O_NONBLOCK, which belongs to what is open and not to who has it.
fn what_a_stdout_that_never_waits_cannot_take_at_once_is_not_lost(t: &Place) -> Result<()> {
    const LINES: usize = 40_000;
    let bundle = with_terminal(t.bundle()).sh(&format!("seq {LINES}"));
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let (ours, stdout) = nix::unistd::pipe()?;
    fcntl(
        &stdout,
        FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK),
    )?;
    let writable = stdout.try_clone()?;
    let call = t.runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id]);
    let running = call.fd(stdout, 1)?.spawn()?;
    let life = kernel::pidfd_open(running.pid())?;
    let mut ours = File::from(ours);
    let mut text = Vec::new();
    let mut ended = false;
    // Each page is taken out only when the pipe is full once more, or nobody fills it.
    while !ended {
        until("a full pipe, or the end", || {
            let mut fds = [PollFd::new(writable.as_fd(), PollFlags::POLLOUT)];
            ended = kernel::ended_within(life.as_fd(), std::time::Duration::ZERO).unwrap_or(true);
            ended || poll(&mut fds, PollTimeout::ZERO) == Ok(0)
        });
        if !ended {
            let mut page = [0; 4096];
            let length = ours.read(&mut page)?;
            text.extend(&page[..length]);
        }
    }
    drop(writable);
    ours.read_to_end(&mut text)?;
    running.wait()?.ok();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), LINES);
    Ok(())
}

/// A pseudo-terminal of the test's own: master and slave.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let pty = nix::pty::openpty(None, None)?;
    kernel::set_window_size(pty.master.as_raw_fd(), 21, 77)?;
    Ok((pty.master, pty.slave))
}

/// `run` on a terminal; what appears on it.
fn run_on_terminal(t: &Place, bundle: &Bundle, type_in: &str) -> Result<String> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let (master, slave) = pair()?;
    let call = t.runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id]);
    let call = call
        .fd(slave.try_clone()?, 1)?
        .fd(slave.try_clone()?, 2)?
        .stdin(slave);
    let running = call.spawn()?;
    let mut master = File::from(master);
    let mut text = String::new();
    let mut typed = false;
    loop {
        // Typed when the shell is there to read it: raw mode throws away what came before.
        if !typed && (type_in.is_empty() || text.contains('#')) {
            master.write_all(type_in.as_bytes())?;
            typed = true;
        }
        let mut bytes = [0; 4096];
        match master.read(&mut bytes) {
            Ok(n) if n > 0 => text += &String::from_utf8_lossy(&bytes[..n]),
            _ => break,
        }
    }
    let out = running.wait()?;
    assert_eq!(out.status, 5, "{text} {}", out.stderr);
    Ok(text)
}

fn run_with_a_terminal_uses_the_callers(t: &Place) -> Result<()> {
    let bundle = with_terminal(t.bundle()).sh("tty; stty size; exit 5");
    let text = run_on_terminal(t, &bundle, "")?;
    assert!(
        text.contains("/dev/pts/0") || text.contains("/dev/console"),
        "{text:?}"
    );
    assert!(text.contains("21 77"), "the caller's size: {text:?}");
    Ok(())
}

fn the_config_of_spec_runs_in_a_terminal_as_it_is(t: &Place) -> Result<()> {
    let bundle = t.bundle();
    t.call(["spec", "--bundle", &bundle.dir.display().to_string()])?
        .ok();
    let text = std::fs::read_to_string(bundle.dir.join("config.json"))?;
    let shown = run_on_terminal(t, &bundle.raw(&text), "echo $((6*7)); exit 5\n")?;
    assert!(shown.contains("42"), "{shown:?}");
    Ok(())
}

fn a_terminal_without_a_console_socket_is_refused_when_detached(t: &Place) -> Result<()> {
    let words = ["cannot allocate tty if runc will detach without setting console socket"];
    let bundle = with_terminal(t.bundle().args(&["true"]));
    t.create_fails(&bundle, &words);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    t.call([
        "run",
        "-d",
        "--bundle",
        &bundle.dir.display().to_string(),
        &id,
    ])?
    .fails(&words);
    t.nothing_is_left();
    Ok(())
}

const NOT_WANTED: &str = "cannot use console socket if runc will not detach or allocate tty";

fn a_console_socket_without_a_terminal_is_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let socket = t.path("tty.sock");
    let _listener = UnixListener::bind(&socket)?;
    let (socket, dir) = (
        socket.display().to_string(),
        bundle.dir.display().to_string(),
    );
    t.call(["create", "--console-socket", &socket, "--bundle", &dir, &id])?
        .fails(&[NOT_WANTED]);
    t.nothing_is_left();
    Ok(())
}

fn a_console_socket_in_the_foreground_is_refused(t: &Place) -> Result<()> {
    let bundle = with_terminal(t.bundle().args(&["true"]));
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let socket = t.path("tty.sock");
    let _listener = UnixListener::bind(&socket)?;
    let (socket, dir) = (
        socket.display().to_string(),
        bundle.dir.display().to_string(),
    );
    t.call(["run", "--console-socket", &socket, "--bundle", &dir, &id])?
        .fails(&[NOT_WANTED]);
    t.nothing_is_left();
    Ok(())
}

fn a_console_socket_that_is_not_there_is_an_error(t: &Place) -> Result<()> {
    let bundle = with_terminal(t.bundle().args(&["true"]));
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let (socket, dir) = (
        t.path("no.sock").display().to_string(),
        bundle.dir.display().to_string(),
    );
    t.call(["create", "--console-socket", &socket, "--bundle", &dir, &id])?
        .fails(&["no.sock"]);
    until("the end of it", || t.recorded().is_empty());
    if !crate::harness::machine().is("crun") {
        t.nothing_is_left();
    }
    Ok(())
}

fn without_a_terminal_there_is_no_console_device(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    assert_eq!(seen["terminal"], json!([false, false, false]));
    assert_eq!(seen["dev"]["console"], Value::Null);
    Ok(())
}
