//! config.json's `hooks`: when each runs, where, with what on its stdin, and what its failure undoes.

use crate::harness::machine::machine;
use crate::harness::place::until;
use crate::harness::{Bundle, Context, Need, Place, Result, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

const EARLY: Need = Need::Beyond(
    "runc",
    "before 1.6 poststart may come before the process has begun",
);

tests! {
    all_six_kinds_run_in_their_order [EARLY, Need::Beyond("crun", "in 1.8 poststart may come before the process has begun")],
    hooks_of_a_kind_run_in_the_order_given,
    hooks_run_in_the_namespaces_the_spec_names,
    hooks_read_the_state_from_stdin [EARLY, Need::Beyond("crun", "1.8 says pid 0 to createContainer hooks")],
    a_hook_gets_the_arguments_and_environment_given,
    a_hook_without_an_environment_has_that_of_who_runs_it [Need::Beyond("crun", "1.8 gives it the runtime's")],
    hooks_inherit_no_descriptors [Need::Beyond("runc", "1.1.5 leaves some open"), Need::Beyond("crun", "1.8 leaves some open")],
    create_hooks_can_see_the_rootfs_mounts,
    create_container_hooks_cannot_reach_the_host_from_inside,
    a_failing_prestart_hook_undoes_the_create,
    a_failing_create_runtime_hook_undoes_the_create,
    a_failing_create_container_hook_undoes_the_create,
    a_failing_start_container_hook_ends_the_container,
    a_failing_poststart_hook_ends_the_container
        [Need::Beyond("crun", "1.8 only warns"), Need::Beyond("runc", "1.1.5 kills the process, but with other words")],
    a_failing_poststop_hook_does_not_stop_delete,
    later_hooks_do_not_run_after_a_failure,
    a_hook_that_runs_past_its_timeout_is_killed,
    a_hook_that_is_not_there_is_an_error,
    a_relative_hook_path_is_an_error [Need::Beyond("crun", "it is not checked"), Need::Beyond("runc", "1.1.5 does not check it")],
    poststop_runs_once_and_only_at_delete,
}

/// A file of the host for hooks to write into, bound into the container at the same path, so that
/// the hooks that run inside can write it too.
fn notebook(t: &Place) -> Result<PathBuf> {
    let file = t.path("notebook");
    fs::write(&file, "")?;
    Ok(file)
}

fn records(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
}

/// One hook of every kind.
fn with_all(t: &Place, file: &Path) -> Bundle {
    let bundle = t
        .bundle()
        .bind(file, &file.display().to_string(), &["bind"]);
    KINDS.iter().fold(bundle, |bundle, kind| {
        let bundle = bundle.hook(kind, kind, file, 0);
        // Its path is looked up inside.
        if *kind == "startContainer" {
            bundle.set("/hooks/startContainer/0/path", "/probe")
        } else {
            bundle
        }
    })
}

fn run_all(t: &Place) -> Result<(Vec<Value>, Value)> {
    let file = notebook(t)?;
    let seen = t.see(with_all(t, &file))?;
    Ok((records(&file), seen))
}

fn names(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|r| r["hook"].as_str()).collect()
}

fn all_six_kinds_run_in_their_order(t: &Place) -> Result<()> {
    let file = notebook(t)?;
    let bundle = with_all(t, &file).sh("read x");
    let (read, write) = std::io::pipe()?;
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    t.runtime(["create", "--bundle", &dir, &id])
        .stdin(std::process::Stdio::from(read))
        .run()?
        .ok();
    assert_eq!(
        names(&records(&file)),
        ["prestart", "createRuntime", "createContainer"]
    );
    t.call(["start", &id])?.ok();
    until("poststart", || records(&file).len() == 5);
    assert_eq!(names(&records(&file))[3..], ["startContainer", "poststart"]);
    drop(write);
    until("stopped", || {
        t.call(["state", &id]).unwrap().stdout.contains("stopped")
    });
    assert_eq!(records(&file).len(), 5);
    t.call(["delete", &id])?.ok();
    assert_eq!(names(&records(&file)), KINDS);
    Ok(())
}

fn hooks_of_a_kind_run_in_the_order_given(t: &Place) -> Result<()> {
    let file = notebook(t)?;
    let bundle = (0..4).fold(t.bundle(), |b, n| {
        b.hook("createRuntime", &n.to_string(), &file, 0)
    });
    t.run(&bundle.args(&["true"]))?.ok();
    assert_eq!(names(&records(&file)), ["0", "1", "2", "3"]);
    Ok(())
}

fn hooks_run_in_the_namespaces_the_spec_names(t: &Place) -> Result<()> {
    let (records, seen) = run_all(t)?;
    let host = fs::read_link("/proc/self/ns/mnt")?.display().to_string();
    let here = |kind: &str, ns: &str| {
        fs::read_link(format!("/proc/self/ns/{ns}"))
            .is_ok_and(|own| kind == own.display().to_string())
    };
    for record in &records {
        let (name, mnt) = (
            record["hook"].as_str().context("a name")?,
            record["ns"]["mnt"].as_str().context("mnt")?,
        );
        let inside = matches!(name, "createContainer" | "startContainer");
        assert_eq!(mnt == host, !inside, "{name}: {mnt}, the host's is {host}");
        assert_eq!(record["ns"]["mnt"] == seen["ns"]["mnt"], inside, "{name}");
        for ns in ["uts", "ipc", "net"] {
            assert_eq!(
                !here(record["ns"][ns].as_str().unwrap_or_default(), ns),
                inside,
                "{name}: {ns}"
            );
        }
    }
    Ok(())
}

fn hooks_read_the_state_from_stdin(t: &Place) -> Result<()> {
    let file = notebook(t)?;
    let bundle = with_all(t, &file)
        .args(&["true"])
        .set("/annotations", json!({ "a.b": "c" }));
    t.run(&bundle)?.ok();
    let records = records(&file);
    assert_eq!(names(&records), KINDS);
    for record in records {
        let (name, state) = (record["hook"].as_str().context("a name")?, &record["state"]);
        let status = match name {
            "prestart" | "createRuntime" | "createContainer" => ["creating", "created"],
            "startContainer" => ["created", "created"],
            "poststart" => ["running", "running"],
            _ => ["stopped", "stopped"],
        };
        let said = state["status"].as_str().context("a status")?;
        // A process this short may have ended before its poststart hooks.
        assert!(
            status.contains(&said) || (name == "poststart" && said == "stopped"),
            "{name}: {said}"
        );
        assert!(
            state["id"].as_str().is_some_and(|id| id.starts_with("sct")),
            "{state}"
        );
        assert_eq!(state["bundle"], json!(bundle.dir), "{name}");
        assert_eq!(state["annotations"], json!({ "a.b": "c" }), "{name}");
        assert!(
            state["ociVersion"]
                .as_str()
                .is_some_and(|v| v.starts_with("1.")),
            "{state}"
        );
        if name != "poststop" && said != "stopped" {
            assert!(
                state["pid"].as_i64().is_some_and(|pid| pid > 0),
                "{name}: {state}"
            );
        }
    }
    Ok(())
}

fn a_hook_gets_the_arguments_and_environment_given(t: &Place) -> Result<()> {
    let (records, _) = run_all(t)?;
    for record in records {
        let name = record["hook"].as_str().context("a name")?;
        let argv = record["argv"].as_array().context("argv")?;
        assert_eq!(argv[..3], [json!("probe"), json!("hook"), json!(name)]);
        assert_eq!(
            record["env"],
            json!([format!("HOOK={name}")]),
            "{name}: nothing of the caller's environment"
        );
    }
    Ok(())
}

/// runc's habit, which hooks that look for their tools in PATH rely on.
fn a_hook_without_an_environment_has_that_of_who_runs_it(t: &Place) -> Result<()> {
    let file = t.path("env");
    let bundle = t.bundle().args(&["true"]).env("OF=process");
    let script = format!("echo \"$OF $PATH\" >> {}", file.display());
    let bundle = ["createRuntime", "createContainer"]
        .iter()
        .fold(bundle, |b, kind| {
            let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
            b.push(&format!("/hooks/{kind}"), hook)
        });
    t.run(&bundle)?.ok();
    let seen = fs::read_to_string(file)?;
    let (runtime, process) = seen.trim_end().split_once('\n').context("two lines")?;
    assert!(runtime.starts_with(" /"), "{seen}");
    assert!(process.starts_with("process /"), "{seen}");
    Ok(())
}

fn hooks_inherit_no_descriptors(t: &Place) -> Result<()> {
    let (records, _) = run_all(t)?;
    for record in records {
        let fds: Vec<&String> = record["fds"].as_object().context("fds")?.keys().collect();
        assert_eq!(fds, ["0", "1", "2"], "{}", record["hook"]);
    }
    Ok(())
}

/// crun#2167: after the mounts, before pivot_root.
fn create_hooks_can_see_the_rootfs_mounts(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let (rootfs, out) = (
        bundle.rootfs().display().to_string(),
        t.path("seen").display().to_string(),
    );
    let script = format!("grep -c ' {rootfs}/proc ' /proc/self/mountinfo > {out}; pwd >> {out}");
    let sh = crate::harness::machine::program("sh").context("sh")?;
    let hook = json!({ "path": sh, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] });
    t.run(&bundle.push("/hooks/createContainer", hook))?.ok();
    let seen = fs::read_to_string(&out)?;
    assert_eq!(seen.lines().next(), Some("1"), "{seen}");
    Ok(())
}

fn create_container_hooks_cannot_reach_the_host_from_inside(t: &Place) -> Result<()> {
    let (records, _) = run_all(t)?;
    let root = |kind: &str| {
        records
            .iter()
            .find(|r| r["hook"] == kind)
            .map(|r| r["root"].clone())
    };
    assert_ne!(
        root("startContainer"),
        root("createRuntime"),
        "startContainer runs after pivot_root"
    );
    Ok(())
}

fn failing(t: &Place, kind: &str) -> Result<(Bundle, PathBuf)> {
    let file = notebook(t)?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .hook(kind, "first", &file, 0)
        .hook(kind, "bad", &file, 1)
        .hook(kind, "last", &file, 0);
    Ok((bundle, file))
}

/// runc's words; 1.1.5 did not name the kind yet.
fn failure_words(kind: &str) -> Vec<&'static str> {
    match kind {
        _ if machine().is("runc") => vec!["hook #1", "exit status 1"],
        "prestart" => vec!["error running prestart hook #1: exit status 1"],
        "createRuntime" => vec!["error running createRuntime hook #1: exit status 1"],
        _ => vec!["error running createContainer hook #1: exit status 1"],
    }
}

fn a_failing_prestart_hook_undoes_the_create(t: &Place) -> Result<()> {
    let (bundle, file) = failing(t, "prestart")?;
    t.create_fails(&bundle, &failure_words("prestart"));
    assert_eq!(names(&records(&file))[..2], ["first", "bad"]);
    Ok(())
}

fn a_failing_create_runtime_hook_undoes_the_create(t: &Place) -> Result<()> {
    let (bundle, _) = failing(t, "createRuntime")?;
    t.create_fails(&bundle, &failure_words("createRuntime"));
    Ok(())
}

fn a_failing_create_container_hook_undoes_the_create(t: &Place) -> Result<()> {
    let (bundle, _) = failing(t, "createContainer")?;
    t.create_fails(&bundle, &failure_words("createContainer"));
    Ok(())
}

fn a_failing_start_container_hook_ends_the_container(t: &Place) -> Result<()> {
    let file = notebook(t)?;
    let bundle = t
        .bundle()
        .sh("echo ran")
        .bind(&file, &file.display().to_string(), &["bind"]);
    let bundle = bundle
        .hook("startContainer", "bad", &file, 1)
        .set("/hooks/startContainer/0/path", "/probe");
    let c = t.create(&bundle)?;
    let _ = c.call("start")?; // runc has let go of the process by then, and does not hear of it
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    assert_eq!(c.output(), "");
    assert_eq!(names(&records(&file)), ["bad"]);
    c.delete()
}

fn a_failing_poststart_hook_ends_the_container(t: &Place) -> Result<()> {
    let file = notebook(t)?;
    let c = t.create(
        &t.bundle()
            .args(&["sleep", "1000"])
            .hook("poststart", "bad", &file, 1),
    )?;
    c.call("start")?
        .fails(&["error running poststart hook #0: exit status 1"]);
    c.ended()?;
    Ok(())
}

fn a_failing_poststop_hook_does_not_stop_delete(t: &Place) -> Result<()> {
    let (bundle, file) = failing(t, "poststop")?;
    let c = t.create(&bundle)?;
    t.call(["delete", "--force", &c.id])?.ok();
    assert_eq!(names(&records(&file))[..2], ["first", "bad"]);
    t.nothing_is_left();
    Ok(())
}

fn later_hooks_do_not_run_after_a_failure(t: &Place) -> Result<()> {
    let (bundle, file) = failing(t, "createRuntime")?;
    let bundle = bundle.hook("poststart", "poststart", &file, 0);
    t.create_fails(&bundle, &[]);
    let all = records(&file);
    let ran = names(&all);
    assert!(
        !ran.contains(&"last") && !ran.contains(&"poststart"),
        "{ran:?}"
    );
    Ok(())
}

fn a_hook_that_runs_past_its_timeout_is_killed(t: &Place) -> Result<()> {
    let sleep = crate::harness::machine::program("sleep").context("sleep")?;
    let hook = json!({ "path": sleep, "args": ["sleep", "1000"], "timeout": 1 });
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .push("/hooks/createRuntime", hook),
        &["hook ran past specified timeout of 1"],
    );
    Ok(())
}

fn a_hook_that_is_not_there_is_an_error(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["true"])
        .push("/hooks/createRuntime", json!({ "path": "/no/such/hook" }));
    t.create_fails(&bundle, &["hook #0", "/no/such/hook"]);
    Ok(())
}

fn a_relative_hook_path_is_an_error(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["true"])
        .push("/hooks/poststop", json!({ "path": "bin/true" }));
    t.create_fails(&bundle, &["hooks.poststop[0].path"]);
    Ok(())
}

fn poststop_runs_once_and_only_at_delete(t: &Place) -> Result<()> {
    let file = notebook(t)?;
    let c = t.create(
        &t.bundle()
            .args(&["sleep", "1000"])
            .hook("poststop", "poststop", &file, 0),
    )?;
    c.start()?;
    c.kill("KILL")?.ok();
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    assert_eq!(records(&file).len(), 0);
    c.delete()?;
    assert_eq!(records(&file).len(), 1);
    Ok(())
}
