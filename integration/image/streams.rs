//! `sc`: what users type and read: terminals, attachment, pipes, signals, logs.

use crate::lives::await_log;
use crate::place::{Place, text};
use crate::sc::{assert_nothing, command, ok, program, refused, sc, with_image};
use crate::tests;
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

tests! {
    a_terminal_is_the_users ["busybox", "setsid"],
    keys_leave_a_terminal_and_attach_comes_back ["busybox", "setsid"],
    a_killed_client_leaves_the_container ["busybox", "setsid"],
    a_lost_terminal_leaves_the_container ["busybox", "setsid"],
    the_window_has_the_users_size ["busybox", "setsid"],
    a_detached_terminal_is_logged ["busybox"],
    what_is_piped_in_comes_out_whole ["busybox"],
    a_slow_reader_loses_nothing ["busybox"],
    a_reader_that_stops_does_not_hold_the_end_back ["busybox"],
    signals_reach_the_container_unless_told_otherwise ["busybox"],
    attach_shows_output_and_gives_the_status ["busybox"],
    exec_has_terminals_users_and_backgrounds ["busybox", "setsid"],
    logs_are_cut_by_time_and_number ["busybox"],
    logs_rotate_and_are_read_across ["busybox"],
    a_container_may_keep_no_log ["busybox"],
    the_journal_keeps_logs ["busybox", "journalctl"],
}

/// A user at a terminal of 24 by 80.
struct User {
    keyboard: File,
    child: Child,
    seen: String,
}

impl User {
    fn types(place: &Place, args: &[&str]) -> Result<User> {
        let pty = nix::pty::openpty(None, None)?;
        // A client that had them itself would never lose its terminal.
        for fd in [&pty.master, &pty.slave] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        simplecontainer::sys::tty::set_size(pty.master.as_fd(), 24, 80)?;
        let slave = || -> Result<OwnedFd> { Ok(pty.slave.try_clone()?) };
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program());
        command
            .arg("--root")
            .arg(&place.store)
            .args(args)
            .current_dir(&place.dir);
        let child = command
            .stdin(slave()?)
            .stdout(slave()?)
            .stderr(slave()?)
            .spawn()?;
        Ok(User {
            keyboard: File::from(pty.master),
            child,
            seen: String::new(),
        })
    }

    fn write(&mut self, text: &str) -> Result<()> {
        Ok(self.keyboard.write_all(text.as_bytes())?)
    }

    /// Reads until this was shown; what came before it is forgotten.
    fn sees(&mut self, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.seen.find(wanted) {
                self.seen.drain(..at + wanted.len());
                return Ok(());
            }
            let left = deadline
                .saturating_duration_since(Instant::now())
                .as_millis() as i32;
            let mut polled = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::try_from(left)?)? == 0 {
                bail!("{wanted:?} was not shown, but {:?}", self.seen);
            }
            let mut buffer = [0; 4096];
            match self.keyboard.read(&mut buffer) {
                Ok(n) if n > 0 => self.seen += &String::from_utf8_lossy(&buffer[..n]),
                _ => bail!(
                    "{wanted:?} was not shown until the end, but {:?}",
                    self.seen
                ),
            }
        }
    }

    fn ends(mut self) -> Result<ExitStatus> {
        // A terminal that nobody reads would hold back what is still to be shown.
        let reader = std::thread::spawn(move || {
            let _ = std::io::copy(&mut self.keyboard, &mut std::io::sink());
        });
        let status = self.child.wait()?;
        let _ = reader.join();
        Ok(status)
    }
}

fn a_terminal_is_the_users(place: &Place) -> Result<()> {
    with_image(place)?;
    let mut user = User::types(place, &["run", "-it", "--rm", "busybox", "sh"])?;
    user.write("test -t 0 && test -t 1 && echo a$((1+1))b; exit 3\r")?;
    user.sees("\na2b\r\n")?;
    ensure!(user.ends()?.code() == Some(3));
    refused(place, &["run", "-it", "--rm", "busybox", "sh"], 125)?;
    assert_nothing(place)
}

fn keys_leave_a_terminal_and_attach_comes_back(place: &Place) -> Result<()> {
    with_image(place)?;
    let mut user = User::types(place, &["run", "-it", "--name", "c_k", "busybox", "sh"])?;
    user.write("x=kept; echo be''fore\r")?;
    user.sees("before\r\n")?;
    user.write("\x10\x11")?;
    user.sees("read escape sequence")?;
    ensure!(user.ends()?.success());
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    let mut user = User::types(place, &["attach", "--detach-keys", "ctrl-x", "c_k"])?;
    user.write("echo is_$x\r")?;
    user.sees("is_kept\r\n")?;
    user.write("\x18")?;
    ensure!(user.ends()?.success());
    let mut user = User::types(place, &["attach", "c_k"])?;
    user.write("exit 4\r")?;
    ensure!(user.ends()?.code() == Some(4));
    ok(place, &["rm", "c_k"])?;
    assert_nothing(place)
}

fn a_killed_client_leaves_the_container(place: &Place) -> Result<()> {
    with_image(place)?;
    let mut user = User::types(
        place,
        &["run", "-it", "--rm", "--name", "c_k", "busybox", "sh"],
    )?;
    user.write("echo he''re\r")?;
    user.sees("here\r\n")?;
    place.host("kill", ["-9", &user.child.id().to_string()])?;
    user.ends()?;
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    let mut user = User::types(place, &["attach", "c_k"])?;
    user.write("echo st''ill; exit 5\r")?;
    user.sees("still\r\n")?;
    ensure!(user.ends()?.code() == Some(5));
    assert_nothing(place)
}

fn a_lost_terminal_leaves_the_container(place: &Place) -> Result<()> {
    with_image(place)?;
    let mut user = User::types(place, &["run", "-it", "--name", "c_k", "busybox", "sh"])?;
    user.write("echo he''re\r")?;
    user.sees("here\r\n")?;
    let User {
        keyboard,
        mut child,
        ..
    } = user;
    drop(keyboard);
    child.wait()?;
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    ok(place, &["rm", "-f", "c_k"])?;
    assert_nothing(place)
}

fn the_window_has_the_users_size(place: &Place) -> Result<()> {
    with_image(place)?;
    let mut user = User::types(
        place,
        &[
            "run",
            "-it",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "stty size; exec sh",
        ],
    )?;
    // From its first moment on.
    user.sees("24 80\r\n")?;
    simplecontainer::sys::tty::set_size(user.keyboard.as_fd(), 33, 101)?;
    user.write("until stty size | grep 33; do :; done; exit\r")?;
    user.sees("33 101\r\n")?;
    ensure!(user.ends()?.success());
    assert_nothing(place)
}

fn a_detached_terminal_is_logged(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "run",
            "-dt",
            "--name",
            "c_t",
            "busybox",
            "sh",
            "-c",
            "test -t 1 && echo yes",
        ],
    )?;
    ok(place, &["wait", "c_t"])?;
    ensure!(ok(place, &["logs", "c_t"])? == "yes\r\n");
    ok(place, &["rm", "c_t"])?;
    assert_nothing(place)
}

fn what_is_piped_in_comes_out_whole(place: &Place) -> Result<()> {
    with_image(place)?;
    let sent: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let mut cat = command(
        place,
        &[
            "run",
            "-i",
            "--rm",
            "--log-driver",
            "none",
            "busybox",
            "cat",
        ],
    );
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = cat.stdin.take().context("no pipe")?;
    let copy = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&copy));
    let output = cat.wait_with_output()?;
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(
        output.status.success() && output.stdout == sent,
        "{} bytes",
        output.stdout.len()
    );
    // Nothing is read where nothing is asked for.
    ensure!(ok(place, &["run", "--rm", "busybox", "cat"])?.is_empty());
    assert_nothing(place)
}

fn a_slow_reader_loses_nothing(place: &Place) -> Result<()> {
    with_image(place)?;
    let mut seq = command(place, &["run", "--rm", "busybox", "seq", "200000"]);
    let mut seq = seq.stdout(Stdio::piped()).spawn()?;
    let mut out = seq.stdout.take().context("no pipe")?;
    let mut all = Vec::new();
    let mut buffer = [0; 1000];
    while let n @ 1.. = out.read(&mut buffer)? {
        all.extend_from_slice(&buffer[..n]);
    }
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    ensure!(seq.wait()?.success() && all == expected.as_bytes());
    assert_nothing(place)
}

fn a_reader_that_stops_does_not_hold_the_end_back(place: &Place) -> Result<()> {
    with_image(place)?;
    // More than a pipe and a socket hold: it can only end when its reader is gone.
    let mut run = command(place, &["run", "--name", "c_s", "busybox", "seq", "300000"]);
    let mut run = run.stdout(Stdio::piped()).spawn()?;
    let mut first = [0; 2];
    let mut out = run.stdout.take().context("no pipe")?;
    out.read_exact(&mut first)?;
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    drop(out);
    ensure!(run.wait()?.success());
    ensure!(ok(place, &["logs", "--tail", "1", "c_s"])? == "300000\n");
    ok(place, &["rm", "c_s"])?;
    assert_nothing(place)
}

fn signals_reach_the_container_unless_told_otherwise(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut run = command(
        place,
        &[
            "run", "--rm", "--name", "c_s", "busybox", "sh", "-c", script,
        ],
    );
    let mut run = run.stdout(Stdio::null()).spawn()?;
    await_running(place, "c_s")?;
    await_log(place, "c_s", "ready", 1)?;
    place.host("kill", [run.id().to_string()])?;
    ensure!(run.wait()?.code() == Some(5));
    let mut run = command(
        place,
        &[
            "run",
            "--sig-proxy=false",
            "--name",
            "c_s",
            "busybox",
            "sh",
            "-c",
            script,
        ],
    );
    let mut run = run.stdout(Stdio::null()).spawn()?;
    await_running(place, "c_s")?;
    await_log(place, "c_s", "ready", 1)?;
    place.host("kill", [run.id().to_string()])?;
    ensure!(run.wait()?.code().is_none(), "it died of the signal");
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    ok(place, &["rm", "-f", "c_s"])?;
    assert_nothing(place)
}

/// Until the container that another command makes runs: before that it has no log to follow.
fn await_running(place: &Place, name: &str) -> Result<()> {
    let filter = format!("name={name}");
    while ok(place, &["ps", "-q", "--filter", &filter])?.is_empty() {}
    Ok(())
}

fn attach_shows_output_and_gives_the_status(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "read line; echo got $line; echo err >&2; exit 6";
    ok(
        place,
        &["run", "-di", "--name", "c_a", "busybox", "sh", "-c", script],
    )?;
    let mut attach = command(place, &["attach", "c_a"]);
    let mut attach = attach
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    attach
        .stdin
        .take()
        .context("no pipe")?
        .write_all(b"hello\n")?;
    let output = attach.wait_with_output()?;
    ensure!(output.status.code() == Some(6), "{output:?}");
    ensure!(
        output.stdout == b"got hello\n" && output.stderr == b"err\n",
        "{output:?}"
    );
    refused(place, &["attach", "c_a"], 1)?;
    ok(place, &["rm", "c_a"])?;
    assert_nothing(place)
}

fn exec_has_terminals_users_and_backgrounds(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &["run", "-d", "--name", "c_e", "busybox", "sleep", "1000"],
    )?;
    let mut user = User::types(place, &["exec", "-it", "c_e", "sh"])?;
    user.write("test -t 0 && echo tty$((3+4)); exit 2\r")?;
    user.sees("\ntty7\r\n")?;
    ensure!(user.ends()?.code() == Some(2));
    let said = ok(
        place,
        &[
            "exec",
            "-u",
            "joe",
            "c_e",
            "sh",
            "-c",
            "id -u; id -g; echo $HOME",
        ],
    )?;
    ensure!(said == "7\n8\n/\n", "{said:?}");
    ensure!(ok(place, &["exec", "-u", "9:joe", "c_e", "true"]).is_err());
    let said = refused(place, &["exec", "-u", "nobody", "c_e", "true"], 125)?;
    ensure!(said.contains("nobody"), "{said}");
    // A link of the container does not lead to the host's users.
    ok(
        place,
        &[
            "exec",
            "c_e",
            "sh",
            "-c",
            "mv /etc/passwd /p; echo sly:x:1:1:: >/etc/sly; ln -s ../../../etc/sly /etc/passwd",
        ],
    )?;
    ensure!(ok(place, &["exec", "-u", "sly", "c_e", "id", "-u"])? == "1\n");
    ensure!(
        ok(
            place,
            &[
                "exec",
                "-d",
                "c_e",
                "sh",
                "-c",
                "echo done >/done; exec sleep 1000"
            ]
        )?
        .is_empty()
    );
    while sc(place, &["exec", "c_e", "test", "-s", "/done"])?
        .status
        .code()
        != Some(0)
    {}
    let full = fs::read_to_string("/proc/self/status")?;
    let full = full
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .context("CapEff")?;
    let said = ok(
        place,
        &[
            "exec",
            "--privileged",
            "c_e",
            "grep",
            "CapEff",
            "/proc/self/status",
        ],
    )?;
    ensure!(said.contains(full.trim()), "{said} {full}");
    let mut cat = command(place, &["exec", "-i", "c_e", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    cat.stdin.take().context("no pipe")?.write_all(b"through")?;
    ensure!(text(cat.wait_with_output()?)? == "through");
    ok(place, &["rm", "-f", "c_e"])?;
    assert_nothing(place)
}

fn logs_are_cut_by_time_and_number(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "echo one; sleep 0.2; echo two; sleep 0.2; echo three";
    ok(
        place,
        &["run", "--name", "c_l", "busybox", "sh", "-c", script],
    )?;
    let all = ok(place, &["logs", "-t", "c_l"])?;
    let times: Vec<&str> = all
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for (options, expected) in [
        (&["--since", times[1]][..], "two\nthree\n"),
        (&["--until", times[1]], "one\ntwo\n"),
        (&["--since", "1h", "--tail", "1"], "three\n"),
        (&["--tail", "0"], ""),
        (&["--until", "1h"], ""),
    ] {
        let args = [&["logs"], options, &["c_l"]].concat();
        ensure!(ok(place, &args)? == expected, "{options:?}");
    }
    refused(place, &["logs", "--since", "yesterday", "c_l"], 1)?;
    ok(place, &["rm", "c_l"])?;
    assert_nothing(place)
}

fn logs_rotate_and_are_read_across(place: &Place) -> Result<()> {
    with_image(place)?;
    let size = ["--log-opt", "max-size=4k", "--log-opt", "max-file=3"];
    let run = |script: &'static str| {
        let args = [
            &["run", "-d", "--name", "c_r"],
            &size[..],
            &["busybox", "sh", "-c", script],
        ];
        ok(place, &args.concat())
    };
    // Slow enough for a reader to keep up with, and many more lines than files keep.
    let id = run("for n in $(seq 600); do echo $n; test $((n % 20)) != 0 || sleep 0.02; done")?;
    let followed = ok(place, &["logs", "-f", "c_r"])?;
    let numbers: Vec<u32> = followed.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers.last() == Some(&600), "{followed}");
    ensure!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "out of order"
    );
    let dir = place.store.join("containers").join(id.trim());
    for (name, there) in [
        ("log.json", true),
        ("log.json.2", true),
        ("log.json.3", false),
    ] {
        ensure!(dir.join(name).exists() == there, "{name}");
    }
    ensure!(fs::metadata(dir.join("log.json.1"))?.len() <= 4096);
    let kept = ok(place, &["logs", "c_r"])?;
    let kept: Vec<u32> = kept.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(kept.last() == Some(&600) && kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    ok(place, &["rm", "c_r"])?;
    for bad in ["max-size=x", "max-file=0", "max-file=2", "colour=red"] {
        refused(place, &["run", "--log-opt", bad, "busybox", "true"], 125)?;
    }
    assert_nothing(place)
}

fn a_container_may_keep_no_log(place: &Place) -> Result<()> {
    with_image(place)?;
    let said = ok(
        place,
        &[
            "run",
            "--log-driver",
            "none",
            "--name",
            "c_n",
            "busybox",
            "echo",
            "shown",
        ],
    )?;
    ensure!(said == "shown\n");
    let said = refused(place, &["logs", "c_n"], 1)?;
    ensure!(said.contains("--log-driver none"), "{said}");
    ok(place, &["rm", "c_n"])?;
    assert_nothing(place)
}

/// Only where a journal listens (scripts/test-systemd); elsewhere it is refused before anything runs.
fn the_journal_keeps_logs(place: &Place) -> Result<()> {
    with_image(place)?;
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let args = [
            "run",
            "--log-driver",
            "journald",
            "--name",
            "c_j",
            "busybox",
            "true",
        ];
        let said = refused(place, &args, 125)?;
        ensure!(said.contains("/run/systemd/journal/socket"), "{said}");
        ok(place, &["rm", "c_j"])?;
        return assert_nothing(place);
    }
    // Each at a time of its own, and none at the same as another: the journal's clock counts microseconds.
    let script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; printf 'no end'; head -c1 >/dev/null; echo; \
                  seq 1000; printf 'the \\033[1mend'";
    let options = ["--log-driver", "journald", "--name", "c_j", "busybox"];
    let args = [
        &["run", "-d", "-i", "--network", "none"][..],
        &options,
        &["sh", "-c", script],
    ]
    .concat();
    ok(place, &args)?;
    let mut follow = command(place, &["logs", "-f", "c_j"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Seen while it runs; only then may it go on.
    let mut out = follow.stdout.take().context("no pipe")?;
    let mut first = [0; 4];
    out.read_exact(&mut first)?;
    ensure!(first == *b"one\n", "{first:?}");
    let mut attach = command(place, &["attach", "c_j"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    attach.stdin.take().context("no pipe")?.write_all(b"x")?;
    ensure!(attach.wait()?.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest)?;
    let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let end = "the \x1b[1mend";
    ensure!(rest == format!("no end\n{numbers}{end}"), "{rest:?}");
    let followed = follow.wait_with_output()?;
    ensure!(
        followed.status.success() && followed.stderr == b"two\n",
        "{followed:?}"
    );

    let said = sc(place, &["logs", "-t", "c_j"])?;
    let timed = [said.stdout, b"\n".to_vec(), said.stderr].concat();
    let timed = String::from_utf8(timed)?;
    let time_of = |line: &str| {
        let found = timed
            .lines()
            .find(|text| text.ends_with(&format!(" {line}")));
        found
            .and_then(|text| text.split(' ').next())
            .context("not there")
    };
    let (one, two) = (time_of("one")?, time_of("two")?);
    for (options, out, err) in [
        (&["--tail", "2"][..], format!("1000\n{end}"), ""),
        (&["--tail", "0"], String::new(), ""),
        (&["--tail", "0", "-f"], String::new(), ""),
        (&["--until", two], "one\n".to_owned(), "two\n"),
        (&["--since", one, "--until", one], "one\n".to_owned(), ""),
        (&["--since", two, "--tail", "1", "-f"], end.to_owned(), ""),
        (&["--until", "1h"], String::new(), ""),
    ] {
        let said = sc(place, &[&["logs"], options, &["c_j"]].concat())?;
        let (stdout, stderr) = (
            String::from_utf8(said.stdout)?,
            String::from_utf8(said.stderr)?,
        );
        ensure!(
            stdout == out && stderr == err,
            "{options:?}: {stdout:?} {stderr:?}"
        );
    }
    ok(place, &["rm", "c_j"])?;
    assert_nothing(place)
}
