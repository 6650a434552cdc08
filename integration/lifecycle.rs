//! create, start, state, kill, delete, run, list: what each does and what each refuses.

use crate::harness::place::until;
use crate::harness::{
    Container, Context, Need, Place, Result, Value, bail, ensure, json, kernel, machine,
};
use std::fs;
use std::io::Write;
use std::process::Stdio;

const ZOMBIE: Need = Need::Beyond("crun", "1.8 calls a zombie running");

tests! {
    a_container_goes_through_its_whole_life,
    run_gives_the_exit_status_of_the_process,
    run_gives_128_and_the_signal,
    run_leaves_nothing_behind,
    run_passes_stdin_and_stdout,
    run_detached_returns_while_the_process_runs,
    run_keep_leaves_a_stopped_container [Need::Beyond("crun", "1.8 has no --keep")],
    run_forwards_signals_to_the_process,
    a_caller_that_ignores_the_end_of_children_is_served [Need::Beyond("crun", "1.8 cannot wait for its hooks then")],
    create_does_not_run_the_process,
    a_created_container_can_be_killed_without_start,
    bundle_defaults_to_the_current_directory,
    a_relative_bundle_is_recorded_absolute,
    state_has_the_keys_and_types_of_runc,
    state_shows_annotations,
    state_of_a_stopped_container_has_pid_zero,
    state_stays_readable_when_the_bundle_is_gone,
    list_shows_a_table [Need::Beyond("crun", "1.8 names the columns otherwise")],
    list_shows_json,
    list_quiet_shows_ids_only,
    a_container_whose_status_cannot_be_told_hides_no_other [Need::Beyond("runc", "its record is another"), Need::Beyond("crun", "its record is another")],
    list_of_nothing_is_null_in_json,
    the_pid_file_holds_digits_and_nothing_else,
    the_pid_file_of_run_is_that_of_the_process,
    a_pid_file_that_cannot_be_written_leaves_nothing_of_itself [Need::Beyond("runc", "1.1.5 leaves the half that it wrote"), Need::Beyond("crun", "1.8 writes it in place")],
    strange_but_legal_ids_work [Need::Beyond("crun", "1.8 runs an id that begins with a dot or a dash otherwise")],
    illegal_ids_are_refused [Need::Beyond("crun", "1.8 takes spaces and colons, and `delete --force ..` empties the directory above")],
    an_existing_id_is_refused_and_unharmed,
    an_unknown_id_is_an_error_of_every_verb,
    delete_force_of_a_missing_container_succeeds,
    start_twice_is_refused,
    start_of_a_stopped_container_is_refused,
    delete_of_a_running_container_is_refused,
    delete_of_a_created_container_removes_it [Need::Beyond("crun", "1.8 follows the spec and refuses")],
    delete_force_kills_a_running_container,
    kill_takes_names_with_and_without_sig_and_numbers,
    kill_defaults_to_term,
    kill_with_signal_zero_changes_nothing,
    kill_of_an_unknown_signal_is_refused [Need::Beyond("crun", "1.8 reads the digits at the front of any word")],
    kill_of_a_stopped_container_is_refused,
    kill_all_reaches_every_process,
    kill_all_of_a_stopped_container_succeeds [Need::Beyond("crun", "1.8 refuses")],
    a_zombie_counts_as_stopped [ZOMBIE],
    the_same_id_can_be_used_again,
    two_roots_do_not_see_each_other,
}

fn a_container_goes_through_its_whole_life(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().sh("echo hello"))?;
    assert_eq!(c.status()?, "created");
    assert_eq!(c.output(), "");
    c.start()?;
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    assert_eq!(c.output(), "hello\n");
    c.delete()?;
    t.nothing_is_left();
    c.call("state")?.fails(&["does not exist"]);
    Ok(())
}

fn run_gives_the_exit_status_of_the_process(t: &Place) -> Result<()> {
    for status in [0, 1, 7, 255] {
        let out = t.run(&t.bundle().sh(&format!("exit {status}")))?;
        assert_eq!((out.status, out.stderr.as_str()), (status, ""));
    }
    Ok(())
}

fn run_gives_128_and_the_signal(t: &Place) -> Result<()> {
    // PID 1 of a pid namespace is not killed by its own signals, so it shares the host's.
    for (signal, status) in [("KILL", 137), ("TERM", 143)] {
        let bundle = t
            .bundle()
            .sh(&format!("kill -{signal} $$"))
            .without_namespace("pid");
        assert_eq!(t.run(&bundle)?.status, status, "{signal}");
    }
    Ok(())
}

fn run_leaves_nothing_behind(t: &Place) -> Result<()> {
    t.run(&t.bundle().args(&["true"]))?.ok();
    t.nothing_is_left();
    t.run(&t.bundle().args(&["no-such-program"]))?
        .fails(&["no-such-program"]);
    t.nothing_is_left();
    Ok(())
}

fn run_passes_stdin_and_stdout(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("tr a-z A-Z; echo oops >&2");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let input = t.path("input");
    fs::write(&input, "shout\n")?;
    let call = t.runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id]);
    let out = call.stdin(fs::File::open(input)?).run()?.ok();
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("SHOUT\n", "oops\n")
    );
    Ok(())
}

/// `run --detach` of a bundle.
fn run_detached<'p>(t: &'p Place, script: &str, flag: &str) -> Result<Container<'p>> {
    let bundle = t.bundle().sh(script);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let call = t.runtime([
        "run",
        flag,
        "--bundle",
        &bundle.dir.display().to_string(),
        &id,
    ]);
    Container::from_call(t, id, call)
}

fn run_detached_returns_while_the_process_runs(t: &Place) -> Result<()> {
    for flag in ["--detach", "-d"] {
        let c = run_detached(t, "echo up; exec sleep 1000", flag)?;
        assert_eq!(c.status()?, "running");
        until("its output", || c.output() == "up\n");
        c.end()?;
    }
    Ok(())
}

fn run_keep_leaves_a_stopped_container(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("exit 3");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let out = t.call([
        "run",
        "--keep",
        "--bundle",
        &bundle.dir.display().to_string(),
        &id,
    ])?;
    assert_eq!(out.status, 3, "{}", out.stderr);
    let state: Value = serde_json::from_str(&t.call(["state", &id])?.text())?;
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("stopped"), &json!(0))
    );
    t.call(["delete", &id])?.ok();
    t.nothing_is_left();
    Ok(())
}

fn run_forwards_signals_to_the_process(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["/probe", "say", "/tmp/heard"]);
    let heard = bundle.inside("tmp/heard");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let run = t
        .runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id])
        .spawn()?;
    let said = |word: &str| {
        fs::read_to_string(&heard)
            .unwrap_or_default()
            .contains(word)
    };
    until("the process", || said("ready"));
    for (signal, name) in [
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
    ] {
        kernel::kill(run.pid(), signal)?;
        until(name, || said(name));
    }
    kernel::kill(run.pid(), libc::SIGTERM)?;
    assert_eq!(run.wait()?.status, 3);
    Ok(())
}

/// Some daemons ignore SIGCHLD, and what they execute inherits that (execve(2)): children that end are
/// gone at once then, and nobody is told.
fn a_caller_that_ignores_the_end_of_children_is_served(t: &Place) -> Result<()> {
    let file = t.path("hooks");
    let bundle = ["createRuntime", "poststop"]
        .iter()
        .fold(t.bundle(), |bundle, kind| bundle.hook(kind, kind, &file, 0))
        .sh("grep SigIgn /proc/self/status; exit 7");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let runtime = machine().runtime.display().to_string();
    let (root, dir) = (
        t.root.display().to_string(),
        bundle.dir.display().to_string(),
    );
    // Not `timeout` inside: it takes the signal back.
    let script = r#"trap '' CHLD; exec "$@""#;
    let words = [
        "60", "sh", "-c", script, "sh", &runtime, "--root", &root, "run", "--bundle", &dir, &id,
    ];
    let out = t.host("timeout", words)?;
    assert_eq!(out.status, 7, "{out:?}");
    assert_eq!(out.stdout.trim(), "SigIgn:\t0000000000000000");
    assert_eq!(fs::read_to_string(&file)?.lines().count(), 2);
    t.nothing_is_left();
    Ok(())
}

fn create_does_not_run_the_process(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("touch /tmp/ran");
    let ran = bundle.inside("tmp/ran");
    let c = t.create(&bundle)?;
    assert!(!ran.exists());
    assert!(c.cgroup().is_dir());
    c.start()?;
    c.ended()?;
    assert!(ran.exists());
    Ok(())
}

fn a_created_container_can_be_killed_without_start(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn bundle_defaults_to_the_current_directory(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("echo here");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let out = t.runtime(["run", &id]).current_dir(&bundle.dir).run()?;
    assert_eq!(out.text(), "here");
    t.runtime(["run", &id])
        .current_dir(&t.dir)
        .run()?
        .fails(&["config.json"]);
    Ok(())
}

fn a_relative_bundle_is_recorded_absolute(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let name = bundle.dir.file_name().context("a name")?;
    let c = Container::from_call(
        t,
        id.clone(),
        t.runtime(["create", "-b", &name.to_string_lossy(), &id]),
    )?;
    assert_eq!(c.state()?["bundle"], json!(bundle.dir));
    Ok(())
}

fn state_has_the_keys_and_types_of_runc(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    let text = t.call(["state", &c.id])?.ok();
    assert_eq!(text.stderr, "");
    let state: Value = serde_json::from_str(&text.stdout)?;
    let object = state.as_object().context("an object")?;
    if !machine().is("crun") {
        let keys: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "bundle",
                "created",
                "id",
                "ociVersion",
                "owner",
                "pid",
                "rootfs",
                "status"
            ]
        );
        // runc indents with two spaces, and orders by meaning.
        assert!(
            text.stdout.starts_with("{\n  \"ociVersion\": \""),
            "{}",
            text.stdout
        );
        assert_eq!(
            state["rootfs"],
            json!(c.place.path(&format!("{}/rootfs", bundle_name(&state))))
        );
        assert_eq!(state["owner"], "");
    }
    assert_eq!(state["id"], json!(c.id));
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], json!(c.pid));
    assert!(
        state["ociVersion"]
            .as_str()
            .context("a version")?
            .starts_with("1.")
    );
    let created = state["created"].as_str().context("a time")?;
    assert!(is_rfc3339(created), "{created}");
    Ok(())
}

fn bundle_name(state: &Value) -> String {
    state["bundle"]
        .as_str()
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_string()
}

/// 2026-11-22T16:56:00.123456789Z, or with an offset; the fraction may be missing.
pub fn is_rfc3339(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else {
        return false;
    };
    let zone = rest
        .strip_prefix('.')
        .map_or(rest, |rest| rest.trim_start_matches('0'));
    matches!(zone, "Z" | "+00:00" | "-00:00")
}

fn state_shows_annotations(t: &Place) -> Result<()> {
    let c = t.create(
        &t.bundle()
            .args(&["true"])
            .set("/annotations", json!({ "org.example.key": "a value" })),
    )?;
    assert_eq!(
        c.state()?["annotations"],
        json!({ "org.example.key": "a value" })
    );
    Ok(())
}

fn state_of_a_stopped_container_has_pid_zero(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    c.start()?;
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    assert_eq!(c.state()?["pid"], 0);
    Ok(())
}

/// Engines delete the bundle before, or instead of, asking for the state.
fn state_stays_readable_when_the_bundle_is_gone(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let bundle = c.state()?["bundle"]
        .as_str()
        .context("a bundle")?
        .to_string();
    fs::remove_file(format!("{bundle}/config.json"))?;
    assert_eq!(c.status()?, "running");
    c.end()
}

fn list_shows_a_table(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let text = t.call(["list"])?.text();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    assert_eq!(rows.len(), 2);
    let bundle = c.state()?["bundle"]
        .as_str()
        .context("a bundle")?
        .to_string();
    assert_eq!(
        rows[1][..4],
        [c.id.as_str(), &c.pid.to_string(), "running", &bundle]
    );
    assert!(is_rfc3339(rows[1][4]), "{}", rows[1][4]);
    assert_eq!(rows[1][5], "root");
    Ok(())
}

fn list_shows_json(t: &Place) -> Result<()> {
    let (a, b) = (t.sleeper()?, t.create(&t.bundle().args(&["true"]))?);
    for format in [
        &["--format", "json"][..],
        &["-f", "json"],
        &["--format=json"],
    ] {
        let args = [&["list"][..], format].concat();
        let listed: Value = serde_json::from_str(&t.call(args)?.text())?;
        let listed = listed.as_array().context("a list")?;
        assert_eq!(listed.len(), 2);
        for (container, status) in [(&a, "running"), (&b, "created")] {
            let entry = listed
                .iter()
                .find(|e| e["id"] == json!(container.id))
                .context("the container")?;
            assert_eq!(
                (&entry["pid"], &entry["status"]),
                (&json!(container.pid), &json!(status))
            );
            assert_eq!(entry["owner"], "root");
        }
    }
    t.call(["list", "--format", "xml"])?
        .fails(&["invalid format"]);
    Ok(())
}

fn list_quiet_shows_ids_only(t: &Place) -> Result<()> {
    let mut ids = [t.sleeper()?.id, t.sleeper()?.id];
    ids.sort();
    for flag in ["--quiet", "-q"] {
        assert_eq!(t.call(["list", flag])?.text(), ids.join("\n"));
    }
    Ok(())
}

fn a_container_whose_status_cannot_be_told_hides_no_other(t: &Place) -> Result<()> {
    let (good, bad) = (t.sleeper()?, t.sleeper()?);
    let file = t.root.join(&bad.id).join("state.json");
    let record = fs::read_to_string(&file)?;
    let mut broken: Value = serde_json::from_str(&record)?;
    broken["cgroup"] = json!("/proc");
    fs::write(&file, broken.to_string())?;
    let out = t.call(["list"])?.ok();
    assert!(out.stdout.contains(&good.id), "{out:?}");
    let warned = format!("status of container {}: /proc is no cgroup", bad.id);
    assert!(out.stderr.contains(&warned), "{out:?}");
    fs::write(&file, record)?;
    Ok(())
}

fn list_of_nothing_is_null_in_json(t: &Place) -> Result<()> {
    let empty = if machine().is("crun") {
        "[\n\n]"
    } else {
        "null"
    };
    assert_eq!(t.call(["list", "--format", "json"])?.text(), empty);
    assert_eq!(t.call(["list", "--quiet"])?.text(), "");
    Ok(())
}

fn a_pid_file_that_cannot_be_written_leaves_nothing_of_itself(t: &Place) -> Result<()> {
    let full = t.path("full");
    fs::create_dir(&full)?;
    let path = full.display().to_string();
    t.host("mount", ["-t", "tmpfs", "-o", "size=4k", "tmpfs", &path])?
        .ok();
    fs::write(full.join("filler"), [b'x'; 4096])?;
    let (id, bundle) = (t.fresh_id(), t.bundle().args(&["true"]));
    bundle.write(t, &id)?;
    let (dir, file) = (bundle.dir.display().to_string(), format!("{path}/pid"));
    let out = t.call(["create", "--bundle", &dir, "--pid-file", &file, &id])?;
    let left: Vec<_> = fs::read_dir(&full)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    t.host("umount", [&path])?.ok();
    out.fails(&["--pid-file", "No space left"]);
    assert_eq!(left, ["filler"]);
    t.nothing_is_left();
    Ok(())
}

fn the_pid_file_holds_digits_and_nothing_else(t: &Place) -> Result<()> {
    let file = t.path("init.pid");
    fs::write(&file, "this is replaced, not appended to")?;
    let before = fs::File::open(&file)?;
    let c = t.create_with(
        &t.bundle().args(&["true"]),
        &["--pid-file", &file.display().to_string()],
    )?;
    assert_eq!(fs::read_to_string(&file)?, c.pid.to_string());
    if !machine().is("crun") {
        // Atomic: by rename, so a reader that had the old file open still reads the old text whole.
        assert_eq!(
            std::io::read_to_string(before)?,
            "this is replaced, not appended to"
        );
    }
    Ok(())
}

fn the_pid_file_of_run_is_that_of_the_process(t: &Place) -> Result<()> {
    let file = t.path("run.pid");
    let bundle = t.bundle().sh("exec sleep 1000");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let c = Container::from_call(
        t,
        id.clone(),
        t.runtime([
            "run",
            "-d",
            "--pid-file",
            &file.display().to_string(),
            "--bundle",
            &dir,
            &id,
        ]),
    )?;
    assert_eq!(fs::read_to_string(&file)?, c.pid.to_string());
    c.end()
}

fn strange_but_legal_ids_work(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    for name in ["a", "_", "+", "A.b-c_d+e", "...", "-x", "0"] {
        // The cgroup's name has the token of this place, so that it is found if it stays.
        bundle.write(t, &t.fresh_id())?;
        let dir = bundle.dir.display().to_string();
        t.call(["create", "--bundle", &dir, "--", name])?.ok();
        assert_eq!(
            t.recorded().len(),
            usize::from(!name.starts_with('.')),
            "{name}"
        );
        t.call(["delete", "--force", "--", name])?.ok();
        t.nothing_is_left();
    }
    Ok(())
}

fn illegal_ids_are_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    bundle.write(t, &t.fresh_id())?;
    let dir = bundle.dir.display().to_string();
    for id in [
        "", ".", "..", "a/b", "../up", "a b", "a\nb", "é", "a:b", "a*",
    ] {
        for verb in ["create", "run"] {
            t.call([verb, "--bundle", &dir, id])?
                .fails(if id.is_empty() { &[] } else { &["invalid"] });
        }
        // With `..` a careless delete would empty the directory above the state root.
        let before = fs::read_dir(&t.dir)?.count();
        let out = t.call(["delete", "--force", id])?;
        ensure!(out.status == 0 || out.status == 1, "delete {id:?}: {out:?}");
        ensure!(
            fs::read_dir(&t.dir)?.count() >= before,
            "delete --force {id:?} removed something"
        );
    }
    assert!(bundle.dir.is_dir());
    t.nothing_is_left();
    Ok(())
}

fn an_existing_id_is_refused_and_unharmed(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let bundle = t.bundle().args(&["true"]);
    bundle.write(t, &c.id)?;
    let dir = bundle.dir.display().to_string();
    for verb in ["create", "run"] {
        t.call([verb, "--bundle", &dir, &c.id])?
            .fails(&["container with given ID already exists"]);
    }
    assert_eq!(c.status()?, "running");
    assert!(c.cgroup_file("cgroup.procs")?.contains(&c.pid.to_string()));
    c.end()
}

fn an_unknown_id_is_an_error_of_every_verb(t: &Place) -> Result<()> {
    t.sleeper()?; // so that the root exists
    for verb in ["state", "start", "kill", "delete"] {
        t.call([verb, "nobody"])?
            .fails(&["container does not exist"]);
    }
    t.call(["kill", "nobody", "KILL"])?
        .fails(&["container does not exist"]);
    Ok(())
}

fn delete_force_of_a_missing_container_succeeds(t: &Place) -> Result<()> {
    for flag in ["--force", "-f"] {
        let out = t.call(["delete", flag, "nobody"])?.ok();
        assert_eq!(out.stdout, "");
    }
    Ok(())
}

fn start_twice_is_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    c.call("start")?
        .fails(&["cannot start an already running container"]);
    assert_eq!(c.status()?, "running");
    c.end()
}

fn start_of_a_stopped_container_is_refused(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    c.kill("KILL")?.ok();
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    c.call("start")?
        .fails(&["cannot start a container that has stopped"]);
    Ok(())
}

fn delete_of_a_running_container_is_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    c.call("delete")?.fails(&[&format!(
        "cannot delete container {} that is not stopped: running",
        c.id
    )]);
    assert_eq!(c.status()?, "running");
    c.end()
}

/// The spec wants an error here; runc deletes, and engines rely on it to clean up after a failed start.
fn delete_of_a_created_container_removes_it(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    c.delete()?;
    c.ended()?;
    t.nothing_is_left();
    Ok(())
}

fn delete_force_kills_a_running_container(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    t.call(["delete", "--force", &c.id])?.ok();
    c.ended()?;
    t.nothing_is_left();
    Ok(())
}

fn kill_takes_names_with_and_without_sig_and_numbers(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["/probe", "say", "/tmp/heard"]);
    let heard = bundle.inside("tmp/heard");
    let c = t.create(&bundle)?;
    c.start()?;
    let count = |word: &str| {
        fs::read_to_string(&heard)
            .unwrap_or_default()
            .matches(word)
            .count()
    };
    until("the process", || count("ready") == 1);
    for (n, signal) in ["USR1", "SIGUSR1", "10"].iter().enumerate() {
        c.kill(signal)?.ok();
        until(signal, || count("SIGUSR1") == n + 1);
    }
    if !machine().is("crun") {
        c.kill("sigusr1")?.ok(); // runc upper-cases
        until("sigusr1", || count("SIGUSR1") == 4);
    }
    c.kill("HUP")?.ok();
    until("HUP", || count("SIGHUP") == 1);
    c.end()
}

fn kill_defaults_to_term(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["/probe", "say", "/tmp/heard"]);
    let heard = bundle.inside("tmp/heard");
    let c = t.create(&bundle)?;
    c.start()?;
    until("the process", || {
        fs::read_to_string(&heard)
            .unwrap_or_default()
            .contains("ready")
    });
    c.call("kill")?.ok();
    c.ended()?;
    assert_eq!(fs::read_to_string(&heard)?, "ready\nSIGTERM\n");
    c.delete()
}

fn kill_with_signal_zero_changes_nothing(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    c.kill("0")?.ok();
    assert_eq!(c.status()?, "running");
    c.end()
}

fn kill_of_an_unknown_signal_is_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for signal in ["NOSUCH", "SIG", "1x"] {
        c.kill(signal)?.fails(&["unknown signal"]);
    }
    assert_eq!(c.status()?, "running");
    c.end()
}

/// containerd looks for `container not running`, podman for a status that is not zero.
fn kill_of_a_stopped_container_is_refused(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    c.start()?;
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    c.kill("KILL")?.fails(&["container not running"]);
    c.delete()
}

fn kill_all_reaches_every_process(t: &Place) -> Result<()> {
    // Without a pid namespace of their own the children outlive their parent.
    let bundle = t
        .bundle()
        .sh("sleep 1000 & sleep 1000 & echo up; wait")
        .without_namespace("pid");
    let c = t.create(&bundle)?;
    c.start()?;
    until("its children", || c.output() == "up\n");
    t.call(["kill", "--all", &c.id, "KILL"])?.ok();
    c.ended()?;
    until("an empty cgroup", || {
        c.cgroup_file("cgroup.procs").unwrap_or_default().is_empty()
    });
    c.delete()
}

/// containerd: `kill --all ID 9` comes after init has ended, to reach what it left in the host's pid namespace.
fn kill_all_of_a_stopped_container_succeeds(t: &Place) -> Result<()> {
    let c = t.create(
        &t.bundle()
            .sh("sleep 1000 & exec true")
            .without_namespace("pid"),
    )?;
    c.start()?;
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    t.call(["kill", "--all", &c.id, "9"])?.ok();
    until("an empty cgroup", || {
        c.cgroup_file("cgroup.procs").unwrap_or_default().is_empty()
    });
    c.delete()
}

fn a_zombie_counts_as_stopped(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    // A parent that adopts the init process and does not reap it until its stdin closes.
    let (read, mut write) = std::io::pipe()?;
    let runtime = machine().runtime.display().to_string();
    let (root, dir) = (
        t.root.display().to_string(),
        bundle.dir.display().to_string(),
    );
    let words = [
        "adopt", &runtime, "--root", &root, "run", "--detach", "--bundle", &dir, &id,
    ];
    let probe = machine().base.join("probe");
    let parent = crate::harness::command::Call::new(t, &probe, words)
        .stdin(Stdio::from(read))
        .spawn()?;
    until("stopped", || {
        let out = t.call(["state", &id]).expect("state");
        out.status == 0 && out.stdout.contains("\"stopped\"")
    });
    t.call(["kill", &id, "0"])?
        .fails(&["container not running"]);
    t.call(["delete", &id])?.ok();
    assert_eq!(t.recorded(), [""; 0]);
    write.write_all(b"x")?;
    parent.wait()?.ok();
    t.nothing_is_left();
    Ok(())
}

fn the_same_id_can_be_used_again(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    for _ in 0..3 {
        t.call(["run", "--bundle", &bundle.dir.display().to_string(), &id])?
            .ok();
    }
    Ok(())
}

fn two_roots_do_not_see_each_other(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let other = t.path("other-root");
    let call = |args: &[&str]| {
        let args = [&["--root", other.to_str().unwrap()], args].concat();
        crate::harness::command::Call::new(t, &machine().runtime, args).run()
    };
    assert_eq!(call(&["list", "-q"])?.text(), "");
    call(&["state", &c.id])?.fails(&["does not exist"]);
    if c.status()? != "running" {
        bail!("the other root's state call ended it");
    }
    c.end()
}
