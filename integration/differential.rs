//! The same bundle under Debian's runc and crun and under the runtime in question: what the process
//! inside sees, how it ends, and what `state` prints. Every difference is an error, but for those in
//! the table, each with its reason.

use crate::harness::command::Call;
use crate::harness::machine::program;
use crate::harness::{Bundle, Context, Need, Place, Result, Value, json, machine};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What differs between runc and crun is known too, whichever of them stands in for sc-runtime.
/// (reference, beginning of the place or, after a `*`, its end, why the difference is accepted)
const ACCEPTED: &[(&str, &str, &str)] = &[
    (
        "runc",
        "/mounts//sys/fs/cgroup/root",
        "without a cgroup namespace runc shows all of the host's tree; crun, and we may, only the container's own",
    ),
    (
        "runc",
        "/mounts//sys/fs/cgroup/propagation",
        "follows the one above",
    ),
    (
        "runc",
        "/cpus",
        "since 1.4 runc resets the processors of init; 1.1.5 did not",
    ),
    (
        "runc",
        "/mounts//proc/scsi/",
        "1.1.5 mounts a tmpfs of its own for each masked directory, 1.5 shares one",
    ),
    ("runc", "/mounts//sys/firmware/", "as /proc/scsi"),
    ("runc", "/mounts//proc/acpi/", "as /proc/scsi"),
    (
        "crun",
        "/exit/stderr",
        "crun words its errors in its own way",
    ),
    (
        "crun",
        "/mounts//sys/firmware/",
        "crun hides a directory below an empty one of its own",
    ),
    (
        "crun",
        "/env/",
        "1.8 sets no HOME for a uid that /etc/passwd does not list",
    ),
    (
        "crun",
        "/groups",
        "crun lists the own gid among the groups, or not",
    ),
    ("crun", "/mounts//sys/fs/cgroup/root", "see runc"),
    (
        "crun",
        "*/propagation",
        "1.8 makes private what runc makes a slave of the host's",
    ),
    (
        "crun",
        "/dev/core",
        "crun makes the link even where the kernel has no /proc/kcore",
    ),
    (
        "crun",
        "/dev/null",
        "1.8 gives what it was handed as stdin to the user, the null device too",
    ),
    (
        "runc",
        "/dev/mqueue",
        "in a user namespace 1.1.15 leaves its group nobody's",
    ),
    (
        "crun",
        "/dev/mqueue",
        "1.8 has another group there in a user namespace",
    ),
    (
        "crun",
        "/mounts//dev/",
        "in a user namespace 1.8 keeps the options of the host's /dev on a bound device",
    ),
    (
        "crun",
        "/mounts//proc/",
        "crun masks files with the host's null device, runc with the container's",
    ),
    ("crun", "/mounts//etc/passwd/", "as below /proc"),
    ("crun", "/state/systemd-scope", "crun's own key"),
    (
        "crun",
        "/cpus",
        "since 1.4 runc resets the processors of init; crun does not",
    ),
    ("crun", "/state/rootfs", "crun may print it relative"),
    (
        "crun",
        "/state/owner",
        "crun prints the name, runc's `state` an empty one",
    ),
    (
        "crun",
        "/state/ociVersion",
        "the version of the runtime's own specification",
    ),
    (
        "runc",
        "/signals/ignored",
        "both hand on what their caller ignores (under cargo signal 32); ours does not",
    ),
    ("crun", "/signals/ignored", "as runc"),
    (
        "runc",
        "/dev/core",
        "a link to a file that is masked: knowing whether the kernel has it would cost every create a call",
    ),
    (
        "runc",
        "*/propagation",
        "ours are slaves of the host's; runc makes the mount that holds the rootfs private, and so its binds",
    ),
    (
        "runc",
        "/state/ociVersion",
        "the version of the runtime's own specification",
    ),
];

const RUNC: Need = Need::Program("runc");
const CRUN: Need = Need::Program("crun");

tests! {
    the_default_container_is_that_of_runc [RUNC],
    the_default_container_is_that_of_crun [CRUN],
    an_unprivileged_process_is_that_of_runc [RUNC],
    an_unprivileged_process_is_that_of_crun [CRUN],
    a_container_in_a_user_namespace_is_that_of_runc [RUNC],
    a_container_in_a_user_namespace_is_that_of_crun [CRUN],
    a_container_with_few_namespaces_is_that_of_runc [RUNC],
    a_container_with_many_mounts_is_that_of_runc [RUNC],
    a_container_with_many_mounts_is_that_of_crun [CRUN],
    an_exec_is_that_of_runc [RUNC, Need::Beyond("crun", "1.8 differs in what it takes over")],
    an_exec_of_a_process_file_is_that_of_runc [RUNC, Need::Beyond("crun", "1.8 differs in what it takes over")],
    an_exec_in_a_user_namespace_is_that_of_runc [RUNC, Need::Beyond("crun", "1.8 differs in what it takes over")],
    ends_are_those_of_runc [RUNC],
    the_state_is_that_of_runc [RUNC],
    the_state_is_that_of_crun [CRUN],
    errors_are_those_of_runc [RUNC, Need::Beyond("crun", "its words are its own: there is nothing to compare")],
}

/// Place -> value, comparable between runs.
type Leaves = BTreeMap<String, Value>;

fn leaves(at: &str, value: &Value, into: &mut Leaves) {
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| leaves(&format!("{at}/{key}"), value, into)),
        other => drop(into.insert(at.to_string(), other.clone())),
    }
}

/// What is another thing in every run is taken out, or made comparable.
fn comparable(mut seen: Value, id: &str) -> Result<Leaves> {
    let own = |ns: &str| {
        fs::read_link(format!("/proc/self/ns/{ns}"))
            .unwrap_or_default()
            .display()
            .to_string()
    };
    for (ns, link) in seen["ns"].as_object_mut().context("ns")? {
        *link = json!(if *link == own(ns) {
            "the host's"
        } else {
            "new"
        });
    }
    let mut table = serde_json::Map::new();
    for mount in seen["mounts"].as_array().context("mounts")? {
        // The topmost at a place counts. A tmpfs's root and source are its maker's choice.
        let target = mount["target"].as_str().context("a target")?;
        let mut kept = json!({ "type": mount["type"], "options": mount["options"], "propagation": mount["propagation"] });
        if mount["type"] == "cgroup2" {
            kept["root"] = mount["root"].clone();
        }
        table.insert(target.to_string(), kept);
    }
    seen["mounts"] = table.into();
    let environment = seen["env"].as_array().context("env")?.clone();
    let environment = environment
        .iter()
        .filter_map(|e| e.as_str()?.split_once('='))
        .map(|(k, v)| (k.to_string(), json!(v)));
    seen["env"] = environment.collect::<serde_json::Map<_, _>>().into();
    let numbers: Vec<String> = seen["fds"]
        .as_object()
        .context("fds")?
        .keys()
        .cloned()
        .collect();
    seen["fds"] = json!(numbers);
    seen.as_object_mut()
        .context("an object")?
        .remove("boot_seconds");
    // Without a pid namespace of its own the process has whatever number is next.
    if seen["ns"]["pid"] == "the host's" {
        for key in ["pid", "ppid", "sid", "pgid"] {
            seen.as_object_mut().context("an object")?.remove(key);
        }
    }
    let mut found = Leaves::new();
    leaves(
        "",
        &serde_json::from_str(&seen.to_string().replace(id, "ID"))?,
        &mut found,
    );
    Ok(found)
}

/// A run of the bundle by a runtime, in a state root of its own.
fn run_by(t: &Place, runtime: &Path, bundle: &Bundle) -> Result<(crate::harness::Outcome, String)> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let root = t.path(&format!(
        "root-{}",
        runtime.file_name().unwrap_or_default().to_string_lossy()
    ));
    let (root, dir) = (root.display().to_string(), bundle.dir.display().to_string());
    let mut call = Call::new(t, runtime, ["--root", &root, "run", "--bundle", &dir, &id]);
    if runtime.ends_with("crun") {
        // 1.8 gives its stdin to the container's user: not the machine's /dev/null, please.
        let empty = t.path("empty");
        std::fs::write(&empty, "")?;
        call = call.stdin(std::fs::File::open(empty)?);
    }
    Ok((call.run()?, id))
}

/// crun 1.8 can load no device rules here; then nobody gets any, so that the rest can be compared.
fn fair(bundle: Bundle, reference: &str) -> Bundle {
    let crun_cannot = machine()
        .lacks(crate::harness::bundle::SYS_RESOURCE)
        .is_some();
    if reference == "crun" && crun_cannot {
        bundle.remove("/linux/resources/devices")
    } else {
        bundle
    }
}

fn reference(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| format!("no {name}"))
}

fn differences(reference: &str, theirs: &Leaves, ours: &Leaves) -> Vec<String> {
    let places: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let accepted = |place: &str| {
        ACCEPTED.iter().any(|(name, pattern, _)| {
            let here = pattern
                .strip_prefix('*')
                .map_or(place.starts_with(pattern), |end| place.ends_with(end));
            (*name == reference || machine().is(name)) && here
        })
    };
    let missing = json!("(nothing)");
    places
        .into_iter()
        .filter(|place| theirs.get(*place) != ours.get(*place) && !accepted(place))
        .map(|place| {
            format!(
                "{place}: {reference} {}, ours {}",
                theirs.get(place).unwrap_or(&missing),
                ours.get(place).unwrap_or(&missing)
            )
        })
        .collect()
}

pub fn compare(t: &Place, name: &str, bundle: Bundle) -> Result<()> {
    let bundle = fair(bundle.args(&["/probe"]), name);
    let mut all = Vec::new();
    let ours = match t.user() {
        0 => machine().runtime.clone(),
        _ => t.path("runtime"),
    };
    for runtime in [&reference(name)?, &ours] {
        let (out, id) = run_by(t, runtime, &bundle)?;
        all.push(comparable(serde_json::from_str(&out.text())?, &id)?);
    }
    let found = differences(name, &all[0], &all[1]);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

fn the_default_container_is_that_of_runc(t: &Place) -> Result<()> {
    compare(t, "runc", t.bundle())
}

fn the_default_container_is_that_of_crun(t: &Place) -> Result<()> {
    compare(t, "crun", t.bundle())
}

/// What one more process sees in a container of each runtime.
fn compare_exec(t: &Place, bundle: Bundle, words: &[&str]) -> Result<()> {
    let bundle = bundle.args(&["sleep", "1000"]);
    let mut all = Vec::new();
    for runtime in [&reference("runc")?, &machine().runtime] {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let root = t.path(&format!("exec-root-{id}")).display().to_string();
        let dir = bundle.dir.display().to_string();
        let call = |words: &[&str]| {
            let own = ["--root", root.as_str()];
            Call::new(t, runtime, own.iter().chain(words)).run()
        };
        call(&["run", "--detach", "--bundle", &dir, &id])?.ok();
        // The container's name comes after the options, before the command.
        let exec = [&["exec"], words, &[&id, "/probe"]].concat();
        let seen = call(&exec)?.text();
        call(&["delete", "--force", &id])?.ok();
        let mut seen = comparable(serde_json::from_str(&seen)?, &id)?;
        // runc makes more processes in the container than the one that is wanted.
        for number in ["/pid", "/sid", "/pgid"] {
            assert!(seen.remove(number).is_some_and(|n| n != 1));
        }
        all.push(seen);
    }
    let found = differences("runc", &all[0], &all[1]);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

fn an_exec_is_that_of_runc(t: &Place) -> Result<()> {
    compare_exec(t, t.bundle(), &[])?;
    // Of the first process's umask runc 1.1.5 knows nothing here.
    let bundle = unprivileged(t).set("/process/user/umask", 0o22);
    let flags = [
        "--user",
        "5:6",
        "-g",
        "9",
        "-e",
        "A=2",
        "--cap",
        "CAP_CHOWN",
        "--cwd",
        "/etc",
    ];
    compare_exec(t, bundle.clone(), &[])?;
    compare_exec(t, bundle, &flags)
}

fn an_exec_of_a_process_file_is_that_of_runc(t: &Place) -> Result<()> {
    let file = t.path("process.json");
    for process in [
        json!({ "args": ["/probe"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"] }),
        json!({ "args": ["/probe"], "cwd": "/tmp", "user": { "uid": 1000, "gid": 7, "additionalGids": [8] },
                "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 50 }], "noNewPrivileges": true }),
    ] {
        fs::write(&file, process.to_string())?;
        compare_exec(
            t,
            unprivileged(t),
            &["--process", &file.display().to_string()],
        )?;
    }
    Ok(())
}

fn an_exec_in_a_user_namespace_is_that_of_runc(t: &Place) -> Result<()> {
    compare_exec(t, t.bundle().user_namespace()?, &["--user", "7:8"])
}

fn unprivileged(t: &Place) -> Bundle {
    let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 1002], "umask": 0o27 });
    let bundle = t
        .bundle()
        .set("/process/user", user)
        .set("/process/cwd", "/tmp")
        .set("/root/readonly", true);
    let bundle = bundle
        .push(
            "/process/rlimits",
            json!({ "type": "RLIMIT_CORE", "soft": 1, "hard": 2 }),
        )
        .env("A=b=c");
    bundle
        .set("/process/oomScoreAdj", 77)
        .set("/process/noNewPrivileges", false)
}

fn an_unprivileged_process_is_that_of_runc(t: &Place) -> Result<()> {
    compare(t, "runc", unprivileged(t))
}

fn an_unprivileged_process_is_that_of_crun(t: &Place) -> Result<()> {
    compare(t, "crun", unprivileged(t))
}

fn a_container_in_a_user_namespace_is_that_of_runc(t: &Place) -> Result<()> {
    compare(t, "runc", t.bundle().user_namespace()?)
}

fn a_container_in_a_user_namespace_is_that_of_crun(t: &Place) -> Result<()> {
    compare(t, "crun", t.bundle().user_namespace()?)
}

fn a_container_with_few_namespaces_is_that_of_runc(t: &Place) -> Result<()> {
    let few = ["cgroup", "ipc", "network", "pid"]
        .iter()
        .fold(t.bundle(), |b, ns| b.without_namespace(ns));
    compare(t, "runc", few)
}

fn many_mounts(t: &Place) -> Result<Bundle> {
    let source = t.path("source");
    fs::create_dir(&source)?;
    let tmpfs = |at: &str, options: &[&str]| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": options });
    Ok(t.bundle()
        .bind(&source, "/bound", &["bind", "ro", "nosuid"])
        .bind(&source, "/rbound", &["rbind", "rprivate", "nodev"])
        .bind(&source, "/shared", &["rbind", "rslave"])
        .mount(tmpfs("/scratch", &["noexec", "nosuid", "mode=1777"]))
        .mount(tmpfs("/quiet", &["noatime", "nodiratime"]))
        .set("/linux/devices", json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660, "uid": 1, "gid": 2 }]))
        .push("/linux/maskedPaths", "/etc/passwd")
        .push("/linux/readonlyPaths", "/root"))
}

fn a_container_with_many_mounts_is_that_of_runc(t: &Place) -> Result<()> {
    compare(t, "runc", many_mounts(t)?)
}

fn a_container_with_many_mounts_is_that_of_crun(t: &Place) -> Result<()> {
    compare(t, "crun", many_mounts(t)?)
}

/// Exit statuses, and what was written where.
fn ends_are_those_of_runc(t: &Place) -> Result<()> {
    for script in [
        "exit 0",
        "exit 42",
        "kill -9 $$",
        "kill -USR1 $$",
        "echo out; echo err >&2",
        "exec /no/such",
        "ulimit -v 1; ls",
    ] {
        let bundle = t.bundle().sh(script).without_namespace("pid");
        let (theirs, _) = run_by(t, &reference("runc")?, &bundle)?;
        let (ours, _) = run_by(t, &machine().runtime, &bundle)?;
        assert_eq!(
            (ours.status, &ours.stdout, &ours.stderr),
            (theirs.status, &theirs.stdout, &theirs.stderr),
            "{script}"
        );
    }
    Ok(())
}

fn state_by(t: &Place, runtime: &Path, bundle: &Bundle) -> Result<Leaves> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let mut found = Leaves::new();
    let call = |args: &[&str]| t.other_runtime(runtime, args).run();
    call(&["create", "--bundle", &dir, &id])?.ok();
    let look = |when: &str, found: &mut Leaves| -> Result<()> {
        let mut state: Value =
            serde_json::from_str(&call(&["state", &id])?.text().replace(&id, "ID"))?;
        state["pid"] = json!(if state["pid"] == 0 { "none" } else { "some" });
        state["created"] = json!(state["created"].is_string());
        leaves(&format!("/state/{when}"), &state, found);
        Ok(())
    };
    look("created", &mut found)?;
    call(&["start", &id])?.ok();
    look("running", &mut found)?;
    call(&["kill", &id, "KILL"])?.ok();
    crate::harness::place::until("stopped", || {
        call(&["state", &id]).unwrap().stdout.contains("stopped")
    });
    look("stopped", &mut found)?;
    call(&["delete", &id])?.ok();
    // The moment before the key, so that the table can name a key of all moments.
    Ok(found
        .into_iter()
        .map(|(place, value)| (regrouped(&place), value))
        .collect())
}

fn regrouped(place: &str) -> String {
    let parts: Vec<&str> = place.splitn(4, '/').collect();
    format!("/state/{} when {}", parts[3], parts[2])
}

fn compare_state(t: &Place, name: &str) -> Result<()> {
    let bundle = fair(
        t.bundle()
            .args(&["sleep", "1000"])
            .set("/annotations", json!({ "k": "v" })),
        name,
    );
    let theirs = state_by(t, &reference(name)?, &bundle)?;
    let found = differences(name, &theirs, &state_by(t, &machine().runtime, &bundle)?);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

fn the_state_is_that_of_runc(t: &Place) -> Result<()> {
    compare_state(t, "runc")
}

fn the_state_is_that_of_crun(t: &Place) -> Result<()> {
    compare_state(t, "crun")
}

/// Not word for word (1.1.5 is old, and says more than one thing at a time), but the part that engines look for.
fn errors_are_those_of_runc(t: &Place) -> Result<()> {
    let marks = [
        "executable file not found in $PATH",
        "no such file or directory",
        "permission denied",
        "does not exist",
        "already exists",
        "invalid container ID format",
        "is not a directory",
        "not a directory",
    ];
    let runc = reference("runc")?;
    let bundles = [
        t.bundle().args(&["nothing"]),
        t.bundle().args(&["/no/thing"]),
        t.bundle().args(&["/etc/passwd"]),
    ];
    let runs = |runtime: &Path| -> Result<Vec<crate::harness::Outcome>> {
        let mut all: Vec<_> = bundles
            .iter()
            .map(|bundle| Ok(run_by(t, runtime, bundle)?.0))
            .collect::<Result<_>>()?;
        for args in [
            &["state", "nobody"][..],
            &["delete", "nobody"],
            &["start", "a/b"],
        ] {
            all.push(t.other_runtime(runtime, args).run()?);
        }
        Ok(all)
    };
    for (theirs, ours) in runs(&runc)?.iter().zip(runs(&machine().runtime)?) {
        assert_eq!(
            theirs.status, ours.status,
            "{}: {}",
            ours.words, ours.stderr
        );
        for mark in marks
            .iter()
            // The last line is the error: warnings before it speak of this machine.
            .filter(|mark| {
                theirs
                    .message()
                    .lines()
                    .last()
                    .unwrap_or("")
                    .contains(**mark)
            })
        {
            assert!(
                ours.message().contains(mark),
                "runc: {}\nours: {}",
                theirs.message(),
                ours.message()
            );
        }
    }
    Ok(())
}
