//! `sc`: how a container is made, started, stopped, started again, asked after its health, and removed.

use crate::place::{Place, text};
use crate::sc::{assert_nothing, command, ok, refused, sc, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::process::Stdio;

tests! {
    what_is_created_waits_for_its_start ["busybox"],
    a_failure_is_retried_as_often_as_was_said ["busybox"],
    a_container_that_waits_for_its_restart_can_be_stopped ["busybox"],
    what_was_stopped_stays_so_whatever_its_policy ["busybox"],
    restart_keeps_files_and_whoever_is_attached ["busybox"],
    a_paused_container_stands_still ["busybox"],
    stop_sends_the_signal_that_was_asked_for ["busybox"],
    kill_sends_any_signal ["busybox"],
    a_name_can_be_given_away ["busybox"],
    wait_knows_the_status_of_what_is_gone ["busybox"],
    health_is_asked_after ["busybox"],
    a_check_that_takes_too_long_is_a_failure ["busybox"],
    an_init_waits_for_orphans_and_hands_signals_on ["busybox"],
    capabilities_and_labels_are_what_was_typed ["busybox"],
    limits_hold ["busybox", "+pids", "+cpu"],
    limits_are_changed_while_it_runs ["busybox", "+pids", "+memory"],
    a_policy_is_changed_while_it_runs ["busybox"],
    a_runtime_that_is_killed_leaves_nothing ["busybox"],
    a_stop_while_it_starts_is_not_lost ["busybox"],
    orphans_of_a_killed_monitor_are_pruned ["busybox"],
    after_a_boot_runs_again_what_its_policy_says ["busybox", "pgrep"],
    a_machine_that_goes_down_stops_nothing_for_good ["busybox", "pgrep"],
}

fn inspect(place: &Place, name: &str) -> Result<Value> {
    let mut all: Vec<Value> = serde_json::from_str(&ok(place, &["inspect", name])?)?;
    all.pop().context("nothing")
}

/// Waits for an event of the container, which may have been already.
fn await_event(place: &Place, name: &str, event: &str) -> Result<()> {
    let filters = [format!("container={name}"), format!("event={event}")];
    let args = [
        "events",
        "--since",
        "1h",
        "--filter",
        &filters[0],
        "--filter",
        &filters[1],
    ];
    let mut events = command(place, &args).stdout(Stdio::piped()).spawn()?;
    let read = events.stdout.take().context("no pipe")?.read(&mut [0]);
    events.kill()?;
    events.wait()?;
    ensure!(read? == 1, "no event {event}");
    Ok(())
}

fn what_is_created_waits_for_its_start(place: &Place) -> Result<()> {
    with_image(place)?;
    let args = [
        "create",
        "--name",
        "c_c",
        "--cidfile",
        "id",
        "busybox",
        "echo",
        "hello",
    ];
    let id = ok(place, &args)?;
    ensure!(fs::read_to_string(place.path("id"))? == id.trim());
    refused(place, &args, 125)?;
    ensure!(ok(place, &["ps", "-a"])?.contains("   Created   "));
    ensure!(ok(place, &["wait", "c_c"])? == "0\n");
    ensure!(ok(place, &["start", "-a", "c_c"])? == "hello\n");
    ensure!(ok(place, &["start", "c_c"])? == "c_c\n");
    ensure!(ok(place, &["wait", "c_c"])? == "0\n");
    ok(place, &["rm", "c_c"])?;
    assert_nothing(place)
}

fn a_failure_is_retried_as_often_as_was_said(place: &Place) -> Result<()> {
    with_image(place)?;
    let args = [
        "run",
        "-d",
        "--name",
        "c_f",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "echo x; exit 3",
    ];
    ok(place, &args)?;
    ensure!(ok(place, &["wait", "c_f"])? == "3\n");
    ensure!(ok(place, &["logs", "c_f"])? == "x\nx\nx\n");
    let f = inspect(place, "c_f")?;
    ensure!(
        f["RestartCount"] == 2 && f["State"]["Status"] == "exited",
        "{f}"
    );
    refused(
        place,
        &["run", "--rm", "--restart", "always", "busybox", "true"],
        125,
    )?;
    ok(place, &["rm", "c_f"])?;
    assert_nothing(place)
}

fn a_container_that_waits_for_its_restart_can_be_stopped(place: &Place) -> Result<()> {
    with_image(place)?;
    // The waits double: soon one is long enough to be seen.
    ok(
        place,
        &[
            "run",
            "-d",
            "--name",
            "c_w",
            "--restart",
            "always",
            "busybox",
            "sh",
            "-c",
            "exit 1",
        ],
    )?;
    loop {
        let now = inspect(place, "c_w")?;
        if now["RestartCount"].as_u64() >= Some(5) && now["State"]["Restarting"] == true {
            break;
        }
    }
    ensure!(
        ok(place, &["ps"])?.contains("   Restarting (1) "),
        "{}",
        ok(place, &["ps", "-a"])?
    );
    refused(place, &["rm", "c_w"], 1)?;
    ok(place, &["stop", "c_w"])?;
    ensure!(ok(place, &["ps", "-a"])?.contains("   Exited (1) "));
    ok(place, &["rm", "c_w"])?;
    assert_nothing(place)
}

fn what_was_stopped_stays_so_whatever_its_policy(place: &Place) -> Result<()> {
    with_image(place)?;
    for (policy, verb) in [
        ("always", &["stop", "-t", "0", "c_a"][..]),
        ("unless-stopped", &["kill", "c_a"]),
        ("on-failure", &["stop", "-t", "0", "c_a"]),
    ] {
        ok(
            place,
            &[
                "run",
                "-d",
                "--name",
                "c_a",
                "--restart",
                policy,
                "busybox",
                "sleep",
                "1000",
            ],
        )?;
        ok(place, verb)?;
        ensure!(ok(place, &["wait", "c_a"])? == "137\n");
        ensure!(ok(place, &["ps", "-q"])?.is_empty(), "{policy}");
        ok(place, &["rm", "c_a"])?;
    }
    assert_nothing(place)
}

fn restart_keeps_files_and_whoever_is_attached(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "echo life >>/lives; cat /lives; trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    ok(
        place,
        &["run", "-d", "--name", "c_r", "busybox", "sh", "-c", script],
    )?;
    let attached = command(place, &["attach", "--no-stdin", "c_r"])
        .stdout(Stdio::piped())
        .spawn()?;
    await_log(place, "c_r", "ready", 1)?;
    ensure!(ok(place, &["restart", "c_r"])? == "c_r\n");
    await_log(place, "c_r", "ready", 2)?;
    let before = inspect(place, "c_r")?;
    ensure!(
        before["State"]["Running"] == true && before["RestartCount"] == 0,
        "{before}"
    );
    ok(place, &["stop", "c_r"])?;
    let seen = text(attached.wait_with_output()?)?;
    ensure!(seen.ends_with("life\nlife\nready\n"), "{seen:?}");
    ok(place, &["restart", "c_r"])?;
    await_log(place, "c_r", "ready", 3)?;
    ok(place, &["rm", "-f", "c_r"])?;
    assert_nothing(place)
}

/// Follows the log until a line has come so many times.
pub fn await_log(place: &Place, name: &str, line: &str, times: usize) -> Result<()> {
    let mut logs = command(place, &["logs", "-f", name])
        .stdout(Stdio::piped())
        .spawn()?;
    let out = std::io::BufReader::new(logs.stdout.take().context("no pipe")?);
    let mut seen = 0;
    for said in std::io::BufRead::lines(out) {
        seen += usize::from(said?.trim() == line);
        if seen == times {
            break;
        }
    }
    logs.kill()?;
    logs.wait()?;
    ensure!(seen == times, "{line:?} came {seen} times");
    Ok(())
}

fn a_paused_container_stands_still(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &["run", "-d", "--name", "c_p", "busybox", "sleep", "1000"],
    )?;
    ensure!(ok(place, &["pause", "c_p"])? == "c_p\n");
    ensure!(ok(place, &["ps"])?.contains("(Paused)"));
    ensure!(inspect(place, "c_p")?["State"]["Status"] == "paused");
    refused(place, &["exec", "c_p", "true"], 125)?;
    refused(place, &["pause", "c_p"], 1)?;
    ok(place, &["unpause", "c_p"])?;
    ok(place, &["exec", "c_p", "true"])?;
    ok(place, &["pause", "c_p"])?;
    // Frozen, it would not hear the signal.
    ok(place, &["stop", "-t", "1", "c_p"])?;
    ok(place, &["rm", "c_p"])?;
    ok(
        place,
        &["run", "-d", "--name", "c_p", "busybox", "sleep", "1000"],
    )?;
    ok(place, &["pause", "c_p"])?;
    ok(place, &["rm", "-f", "c_p"])?;
    assert_nothing(place)
}

fn stop_sends_the_signal_that_was_asked_for(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "trap 'exit 9' USR1; trap 'exit 8' INT; echo ready; while :; do sleep 0.05; done";
    let run = [
        "run",
        "-d",
        "--name",
        "c_s",
        "--stop-signal",
        "USR1",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    for (stop, status) in [
        (&["stop", "c_s"][..], "9\n"),
        (&["stop", "-s", "SIGINT", "c_s"], "8\n"),
        (&["stop", "-s", "WINCH", "-t", "0", "c_s"], "137\n"),
    ] {
        ok(place, &run)?;
        await_log(place, "c_s", "ready", 1)?;
        ok(place, stop)?;
        ensure!(ok(place, &["wait", "c_s"])? == status, "{stop:?}");
        ok(place, &["rm", "c_s"])?;
    }
    refused(
        place,
        &["run", "--stop-signal", "NOSUCH", "busybox", "true"],
        125,
    )?;
    // Process 1 ignores what it does not handle: only the time of the container ends it.
    ok(
        place,
        &[
            "run",
            "-d",
            "--name",
            "c_t",
            "--stop-timeout",
            "0",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    ok(place, &["stop", "c_t"])?;
    ok(place, &["rm", "c_t"])?;
    assert_nothing(place)
}

fn kill_sends_any_signal(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";
    ok(
        place,
        &[
            "run",
            "-d",
            "--name",
            "c_k",
            "--restart",
            "always",
            "busybox",
            "sh",
            "-c",
            script,
        ],
    )?;
    await_log(place, "c_k", "ready", 1)?;
    ok(place, &["kill", "-s", "HUP", "c_k"])?;
    await_log(place, "c_k", "hup", 1)?;
    refused(place, &["kill", "-s", "NOSUCH", "c_k"], 1)?;
    ok(place, &["kill", "c_k"])?;
    ensure!(ok(place, &["wait", "c_k"])? == "137\n");
    let said = refused(place, &["kill", "c_k"], 1)?;
    ensure!(said == "sc: container c_k is not running", "{said}");
    ok(place, &["rm", "c_k"])?;
    assert_nothing(place)
}

fn a_name_can_be_given_away(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(place, &["create", "--name", "old", "busybox", "true"])?;
    ok(place, &["create", "--name", "other", "busybox", "true"])?;
    refused(place, &["rename", "old", "other"], 1)?;
    refused(place, &["rename", "old", "a/b"], 1)?;
    ok(place, &["rename", "old", "new"])?;
    refused(place, &["inspect", "--type", "container", "old"], 1)?;
    ensure!(inspect(place, "new")?["Name"] == "new");
    ok(place, &["create", "--name", "old", "busybox", "true"])?;
    ok(place, &["rm", "old", "new", "other"])?;
    assert_nothing(place)
}

fn wait_knows_the_status_of_what_is_gone(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done";
    ok(
        place,
        &[
            "run", "-d", "--rm", "--name", "c_g", "busybox", "sh", "-c", script,
        ],
    )?;
    await_log(place, "c_g", "ready", 1)?;
    let waiting = command(place, &["wait", "c_g"])
        .stdout(Stdio::piped())
        .spawn()?;
    // It is connected when its monitor has a client: a second look shows nothing else to wait for.
    while !has_client(place, waiting.id())? {}
    ok(place, &["stop", "c_g"])?;
    ensure!(text(waiting.wait_with_output()?)? == "6\n");
    assert_nothing(place)
}

fn has_client(place: &Place, pid: u32) -> Result<bool> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let _ = place;
    Ok(fds.flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|path| path.display().to_string().starts_with("socket:"))
    }))
}

fn health_is_asked_after(place: &Place) -> Result<()> {
    with_image(place)?;
    let run = [
        "run",
        "-d",
        "--name",
        "c_h",
        "--health-cmd",
        "echo asked; test -e /ok",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "1000",
    ];
    ok(place, &run)?;
    ensure!(ok(place, &["ps"])?.contains("(health: starting)"));
    await_event(place, "c_h", "health_status: unhealthy")?;
    ensure!(ok(place, &["ps"])?.contains("(unhealthy)"));
    let health = inspect(place, "c_h")?["State"]["Health"].clone();
    let probe = &health["Log"][0];
    ensure!(
        probe["Output"] == "asked\n" && probe["ExitCode"] == 1,
        "{health}"
    );
    ok(place, &["exec", "c_h", "touch", "/ok"])?;
    await_event(place, "c_h", "health_status: healthy")?;
    ensure!(ok(place, &["ps", "--filter", "health=healthy"])?.contains("(healthy)"));
    ok(place, &["rm", "-f", "c_h"])?;
    assert_nothing(place)
}

fn a_check_that_takes_too_long_is_a_failure(place: &Place) -> Result<()> {
    with_image(place)?;
    let run = [
        "run",
        "-d",
        "--name",
        "c_h",
        "--health-cmd",
        "sleep 1000",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "100ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1001",
    ];
    ok(place, &run)?;
    await_event(place, "c_h", "health_status: unhealthy")?;
    let health = inspect(place, "c_h")?["State"]["Health"].clone();
    ensure!(
        health["Log"][0]["Output"]
            .as_str()
            .is_some_and(|said| said.contains("timeout")),
        "{health}"
    );
    ok(place, &["rm", "-f", "c_h"])?;
    assert_nothing(place)
}

fn an_init_waits_for_orphans_and_hands_signals_on(place: &Place) -> Result<()> {
    with_image(place)?;
    // Without an init, sleep as process 1 ignores TERM.
    ok(
        place,
        &[
            "run", "-d", "--init", "--name", "c_i", "busybox", "sleep", "1000",
        ],
    )?;
    let command = ok(place, &["exec", "c_i", "cat", "/proc/1/cmdline"])?;
    ensure!(
        command.starts_with("/dev/sc-init\0--\0sleep"),
        "{command:?}"
    );
    ok(place, &["exec", "c_i", "sh", "-c", "(sleep 0.1 &) & exit"])?;
    ok(place, &["stop", "-t", "1000", "c_i"])?;
    ensure!(ok(place, &["wait", "c_i"])? == "143\n");
    ok(place, &["rm", "c_i"])?;
    let script = "(sh -c 'sleep 0.01; exit' &); sleep 0.3; ps -o stat= | grep -c Z; exit 4";
    let output = sc(
        place,
        &["run", "--rm", "--init", "busybox", "sh", "-c", script],
    )?;
    ensure!(
        output.status.code() == Some(4) && output.stdout == b"0\n",
        "{output:?}"
    );
    ensure!(
        sc(place, &["run", "--rm", "--init", "busybox", "nosuch"])?
            .status
            .code()
            == Some(127)
    );
    assert_nothing(place)
}

fn capabilities_and_labels_are_what_was_typed(place: &Place) -> Result<()> {
    with_image(place)?;
    let effective = |options: &[&str]| -> Result<u64> {
        let args = [
            &["run", "--rm"],
            options,
            &["busybox", "grep", "CapEff", "/proc/self/status"],
        ];
        let said = ok(place, &args.concat())?;
        let number = said.split_whitespace().nth(1).context("no number")?;
        Ok(u64::from_str_radix(number, 16)?)
    };
    let usual = effective(&[])?;
    let (chown, net_raw) = (1 << 0, 1 << 13);
    ensure!(usual & chown != 0 && usual & net_raw == 0, "{usual:x}");
    ensure!(effective(&["--cap-drop", "chown"])? == usual & !chown);
    ensure!(effective(&["--cap-add", "NET_RAW"])? == usual | net_raw);
    ensure!(effective(&["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"])? == chown);
    refused(
        place,
        &["run", "--cap-add", "NOSUCH", "busybox", "true"],
        125,
    )?;
    fs::write(place.path("labels"), "# no\nfrom=file\n")?;
    ok(
        place,
        &[
            "create",
            "--name",
            "c_l",
            "-l",
            "a=b",
            "--label",
            "c",
            "--label-file",
            "labels",
            "busybox",
            "true",
        ],
    )?;
    let labels = inspect(place, "c_l")?["Config"]["Labels"].clone();
    ensure!(
        labels == serde_json::json!({ "a": "b", "c": "", "from": "file" }),
        "{labels}"
    );
    ok(place, &["rm", "c_l"])?;
    assert_nothing(place)
}

fn limits_hold(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "run",
            "-d",
            "--name",
            "c_l",
            "--pids-limit",
            "7",
            "--cpus",
            "0.5",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    let state = inspect(place, "c_l")?;
    let cgroup = state["State"]["CgroupPath"].as_str().context("no cgroup")?;
    let read = |name: &str| fs::read_to_string(format!("{cgroup}/{name}"));
    ensure!(read("pids.max")? == "7\n" && read("cpu.max")? == "50000 100000\n");
    ok(place, &["rm", "-f", "c_l"])?;
    assert_nothing(place)
}

fn limits_are_changed_while_it_runs(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "run",
            "-d",
            "--name",
            "c_u",
            "--pids-limit",
            "7",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    ok(
        place,
        &["update", "--pids-limit", "9", "--memory", "64m", "c_u"],
    )?;
    let state = inspect(place, "c_u")?;
    let cgroup = state["State"]["CgroupPath"].as_str().context("no cgroup")?;
    let read = |name: &str| fs::read_to_string(format!("{cgroup}/{name}"));
    ensure!(read("pids.max")? == "9\n" && read("memory.max")? == "67108864\n");
    // And in its next life.
    ok(place, &["restart", "-t", "0", "c_u"])?;
    ensure!(read("pids.max")? == "9\n");
    ok(place, &["rm", "-f", "c_u"])?;
    assert_nothing(place)
}

fn a_policy_is_changed_while_it_runs(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "trap 'exit 1' HUP; echo ready; while :; do sleep 0.05; done";
    ok(
        place,
        &["run", "-d", "--name", "c_u", "busybox", "sh", "-c", script],
    )?;
    await_log(place, "c_u", "ready", 1)?;
    refused(place, &["update", "--restart", "sometimes", "c_u"], 1)?;
    ok(place, &["update", "--restart", "on-failure:1", "c_u"])?;
    ok(place, &["kill", "-s", "HUP", "c_u"])?;
    await_log(place, "c_u", "ready", 2)?;
    ok(place, &["rm", "-f", "c_u"])?;
    assert_nothing(place)
}

/// A runtime that makes the container and is gone before it can say so.
fn a_runtime_that_is_killed_leaves_nothing(place: &Place) -> Result<()> {
    with_image(place)?;
    let real = crate::place::sc_runtime();
    let script = format!(
        "#!/bin/sh\n{} \"$@\"\ncode=$?\ncase \"$*\" in *' create '*) kill -9 $$;; esac\nexit $code\n",
        real.display()
    );
    fs::write(place.path("dying"), script)?;
    place.sh("chmod 755 dying")?;
    refused(
        place,
        &[
            "run",
            "--name",
            "c_d",
            "--runtime",
            "./dying",
            "busybox",
            "true",
        ],
        125,
    )?;
    ensure!(ok(place, &["ps", "-a"])?.contains("   Created   "));
    ok(place, &["rm", "c_d"])?;
    refused(
        place,
        &["run", "--rm", "--runtime", "./dying", "busybox", "true"],
        125,
    )?;
    assert_nothing(place)
}

/// A runtime that takes its time shows whether a stop between create and start is heard.
fn a_stop_while_it_starts_is_not_lost(place: &Place) -> Result<()> {
    with_image(place)?;
    let real = crate::place::sc_runtime();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *' start '*) echo >{dir}/started; cat {dir}/go;; esac\nexec {} \"$@\"\n",
        real.display(),
        dir = place.dir.display()
    );
    fs::write(place.path("slow"), script)?;
    place.sh("chmod 755 slow; mkfifo started go")?;
    ok(
        place,
        &[
            "create",
            "--name",
            "c_s",
            "--restart",
            "always",
            "--runtime",
            "./slow",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    let starting = command(place, &["start", "c_s"])
        .stdout(Stdio::null())
        .spawn()?;
    fs::read(place.path("started"))?;
    let stopping = command(place, &["rm", "-f", "c_s"])
        .stdout(Stdio::null())
        .spawn()?;
    // Its wish is written down, or it has killed what was made.
    while !fs::read_to_string(record_of(place)?)?.contains("\"removing\": true") {}
    fs::write(place.path("go"), "")?;
    drop(starting.wait_with_output()?);
    ensure!(stopping.wait_with_output()?.status.success());
    assert_nothing(place)
}

fn record_of(place: &Place) -> Result<std::path::PathBuf> {
    let mut dirs = fs::read_dir(place.store.join("containers"))?;
    Ok(dirs
        .next()
        .context("no container")??
        .path()
        .join("record.json"))
}

fn orphans_of_a_killed_monitor_are_pruned(place: &Place) -> Result<()> {
    with_image(place)?;
    let id = ok(
        place,
        &[
            "run", "-d", "--rm", "--name", "c_o", "busybox", "sleep", "1000",
        ],
    )?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    place.host("kill", ["-9", monitor.trim()])?;
    // It runs: nothing of it may go.
    ok(place, &["system", "prune", "-f"])?;
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    ok(place, &["exec", "c_o", "true"])?;
    ok(place, &["kill", "c_o"])?;
    while ok(place, &["ps"])?.contains(" Up ") {}
    // What a killed create, rm and rename leave.
    fs::create_dir(place.store.join("containers/half"))?;
    std::os::unix::fs::symlink("gone", place.store.join("names/nobody"))?;
    let said = ok(place, &["system", "prune", "-f"])?;
    ensure!(
        said.contains("Cleared away after killed processes or a reboot: 3"),
        "{said}"
    );
    assert_nothing(place)
}

/// A container that sleeps: the process beside it, and its own.
fn sleeper(place: &Place, name: &str, policy: &str) -> Result<[String; 2]> {
    let options = ["--name", name, "--restart", policy, "--network", "none"];
    let args = [&["run", "-d"], &options[..], &["busybox", "sleep", "1000"]].concat();
    let id = ok(place, &args)?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    let own = inspect(place, name)?["State"]["Pid"].to_string();
    Ok([monitor.trim().to_owned(), own])
}

const AT_BOOT: [&str; 4] = ["start", "--all", "--filter", "should-start-on-boot=true"];

fn after_a_boot_runs_again_what_its_policy_says(place: &Place) -> Result<()> {
    with_image(place)?;
    let containers = [
        ("always", "always", false),
        ("always-stopped", "always", true),
        ("unless", "unless-stopped", false),
        ("unless-stopped", "unless-stopped", true),
        ("never", "no", false),
        ("failure", "on-failure", false),
    ];
    for (name, policy, is_stopped) in containers {
        let [monitor, own] = sleeper(place, name, policy)?;
        match is_stopped {
            true => ok(place, &["stop", "-t", "0", name])?,
            // What a power cut does.
            false => place.host("kill", ["-9", &monitor, &own])?,
        };
    }
    // And another boot: a process that a record names is none of it.
    for entry in fs::read_dir(place.store.join("containers"))? {
        let path = entry?.path().join("record.json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
        if record["process"].is_object() {
            record["process"]["boot"] = "an earlier one".into();
        }
        fs::write(&path, serde_json::to_vec(&record)?)?;
    }
    ensure!(ok(place, &["ps", "-q"])?.is_empty());
    let said = ok(place, &AT_BOOT)?;
    ensure!(said == "always\nalways-stopped\nunless\n", "{said}");
    let names = ok(place, &["ps", "--format", "{{.Names}}"])?;
    ensure!(names == "unless\nalways-stopped\nalways\n", "{names}");
    ensure!(ok(place, &AT_BOOT)?.is_empty(), "what runs is let alone");
    let said = ok(place, &["start", "--all", "-f", "restart-policy=no"])?;
    ensure!(said == "never\n", "{said}");
    refused(place, &["start", "--all", "always"], 1)?;
    refused(
        place,
        &["start", "--all", "-f", "should-start-on-boot=x"],
        1,
    )?;
    for (name, ..) in containers {
        ok(place, &["rm", "-f", name])?;
    }
    assert_nothing(place)
}

/// systemd ends the session or unit that the monitor is in.
fn a_machine_that_goes_down_stops_nothing_for_good(place: &Place) -> Result<()> {
    with_image(place)?;
    for policy in ["always", "unless-stopped"] {
        let [monitor, own] = sleeper(place, "c_d", policy)?;
        place.host("kill", ["-TERM", &monitor])?;
        // sleep as process 1 ignores that, as many do: the end of a shutdown.
        place.host("kill", ["-9", &own])?;
        ensure!(ok(place, &["wait", "c_d"])? == "137\n");
        ensure!(ok(place, &["ps", "-q"])?.is_empty(), "{policy}");
        ensure!(ok(place, &AT_BOOT)? == "c_d\n", "{policy}");
        ok(place, &["rm", "-f", "c_d"])?;
    }
    assert_nothing(place)
}
