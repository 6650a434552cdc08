//! Malformed and hostile input: exit status 1, one line that names the place in config.json, and
//! nothing left behind.

use crate::harness::command::Call;
use crate::harness::{Bundle, Need, Place, Result, Value, json, kernel, machine};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

const STAND_INS: [Need; 2] = [
    Need::Beyond("runc", "the place in config.json is not named"),
    Need::Beyond("crun", "the place in config.json is not named"),
];

tests! {
    text_that_is_not_json_is_refused,
    wrong_types_are_refused_by_json_path [STAND_INS[0], STAND_INS[1]],
    wrong_types_are_refused [Need::Beyond("crun", "1.8 crashes at, or takes, some of them")],
    impossible_values_are_refused_by_json_path [STAND_INS[0], STAND_INS[1]],
    what_is_not_done_yet_is_refused_by_name [STAND_INS[0], STAND_INS[1]],
    a_missing_config_is_refused,
    a_missing_bundle_is_refused,
    a_config_that_is_a_directory_is_refused,
    an_endless_config_is_refused [STAND_INS[0], STAND_INS[1]],
    very_large_and_very_deep_documents_are_refused_in_little_time_and_memory [STAND_INS[0], STAND_INS[1]],
    a_missing_rootfs_is_refused,
    a_rootfs_that_is_a_file_is_refused,
    the_hosts_root_as_rootfs_is_refused_or_harmless [Need::Beyond("runc", "1.1.5 takes it"), Need::Beyond("crun", "1.8 takes it")],
    a_root_that_cannot_be_made_is_an_error,
    a_readonly_root_directory_is_an_error,
    a_full_disk_is_an_error_that_leaves_nothing [Need::Beyond("crun", "1.8 leaves its process")],
    a_corrupt_state_file_can_be_deleted_by_force [Need::Beyond("runc", "1.1.5 needs the file"), Need::Beyond("crun", "1.8 needs the file")],
    an_empty_state_directory_is_no_container [Need::Beyond("crun", "1.8 has other words")],
}

/// `create` of a text; the error, after all was checked that is common to all.
fn refused(t: &Place, bundle: &Bundle, words: &[&str]) {
    t.create_fails(bundle, words);
}

fn text_that_is_not_json_is_refused(t: &Place) -> Result<()> {
    for text in [
        "",
        "{",
        "null",
        "[]",
        "42",
        "{}{",
        "{\"process\":",
        "\u{0}",
        "{\"process\": {}}",
        "\u{feff}nonsense",
    ] {
        if text == "null" && machine().is("runc") {
            continue; // 1.1.5 panics
        }
        refused(t, &t.bundle().raw(text), &[]);
    }
    // A thousand deep: a recursive parser must not run out of stack.
    refused(t, &t.bundle().raw(&"[".repeat(100_000)), &[]);
    Ok(())
}

/// Pointer, value, and how the error must call the place.
fn wrong_types() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/process/args", json!("sh"), "process.args"),
        ("/process/args", json!([1]), "process.args"),
        ("/process/env", json!({}), "process.env"),
        ("/process/user/uid", json!("root"), "process.user.uid"),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        (
            "/process/user/uid",
            json!(4294967296u64),
            "process.user.uid",
        ),
        (
            "/process/user/additionalGids",
            json!([-5]),
            "process.user.additionalGids",
        ),
        ("/process/terminal", json!("yes"), "process.terminal"),
        ("/process/rlimits", json!({}), "process.rlimits"),
        ("/process/oomScoreAdj", json!("high"), "process.oomScoreAdj"),
        ("/process/capabilities", json!([]), "process.capabilities"),
        ("/root", json!("rootfs"), "root"),
        ("/root/path", json!(7), "root.path"),
        ("/hostname", json!(["a"]), "hostname"),
        ("/mounts", json!({}), "mounts"),
        ("/mounts/0/destination", json!(1), "mounts[0].destination"),
        ("/mounts/1/options", json!("ro"), "mounts[1].options"),
        ("/linux/namespaces", json!({}), "linux.namespaces"),
        (
            "/linux/namespaces/0/type",
            json!(3),
            "linux.namespaces[0].type",
        ),
        (
            "/linux/resources/memory",
            json!({ "limit": "lots" }),
            "linux.resources.memory.limit",
        ),
        (
            "/linux/resources/pids",
            json!({ "limit": 1.5 }),
            "linux.resources.pids.limit",
        ),
        ("/linux/maskedPaths", json!("/proc"), "linux.maskedPaths"),
        (
            "/linux/sysctl",
            json!({ "kernel.msgmax": 5 }),
            "linux.sysctl",
        ),
        (
            "/linux/uidMappings",
            json!([{ "containerID": -1, "hostID": 0, "size": 1 }]),
            "linux.uidMappings[0].containerID",
        ),
        ("/hooks", json!([]), "hooks"),
        ("/annotations", json!({ "a": 1 }), "annotations"),
    ]
}

fn wrong_types_are_refused_by_json_path(t: &Place) -> Result<()> {
    for (pointer, value, place) in wrong_types() {
        refused(t, &t.bundle().args(&["true"]).set(pointer, value), &[place]);
    }
    Ok(())
}

fn wrong_types_are_refused(t: &Place) -> Result<()> {
    for (pointer, value, _) in wrong_types() {
        refused(t, &t.bundle().args(&["true"]).set(pointer, value), &[]);
    }
    Ok(())
}

fn impossible_values_are_refused_by_json_path(t: &Place) -> Result<()> {
    let base = || t.bundle().args(&["true"]);
    let table: Vec<(Bundle, &str)> = vec![
        (base().remove("/process"), "process"),
        (base().remove("/root"), "root"),
        (base().set("/process/args", json!([])), "process.args"),
        (base().set("/process/args", json!([""])), ""),
        (base().remove("/process/args"), "process.args"),
        (base().set("/process/cwd", ""), "process.cwd"),
        (base().set("/process/cwd", "relative"), "process.cwd"),
        (base().set("/process/cwd", "/a\0b"), "process.cwd"),
        (base().set("/process/args", json!(["a\0b"])), "process.args"),
        (base().set("/process/env", json!(["A=\0"])), "process.env"),
        (
            base().set(
                "/process/rlimits",
                json!([{ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }]),
            ),
            "process.rlimits[0]",
        ),
        (base().set("/root/path", ""), "root.path"),
        (base().set("/root/path", "a\0b"), "root.path"),
        (base().set("/hostname", "a\0b"), "hostname"),
        (base().set("/hostname", "x".repeat(65)), "hostname"),
        (base().without_namespace("uts"), "hostname"),
        (base().without_namespace("mount"), "linux.namespaces"),
        (
            base().push("/linux/namespaces", json!({ "type": "pid" })),
            "linux.namespaces",
        ),
        (
            base().push("/linux/namespaces", json!({ "type": "made-up" })),
            "linux.namespaces[6]",
        ),
        (
            base().join("network", std::path::Path::new("/no/such/namespace")),
            "/no/such/namespace",
        ),
        (
            base().join("network", std::path::Path::new("/etc/passwd")),
            "/etc/passwd",
        ),
        (
            base().join("network", std::path::Path::new("/proc/self/ns/uts")),
            "/proc/self/ns/uts",
        ),
        (base().namespace("user"), "linux.uidMappings"),
        (
            base().set(
                "/linux/uidMappings",
                json!([{ "containerID": 0, "hostID": 0, "size": 1 }]),
            ),
            "linux.uidMappings",
        ),
        (
            base().mount(json!({ "destination": "" , "type": "tmpfs" })),
            "mounts[7].destination",
        ),
        (
            base().mount(json!({ "destination": "/a\0b", "type": "tmpfs" })),
            "mounts[7].destination",
        ),
        (
            base().mount(json!({ "destination": "/x", "type": "bind", "options": ["bind"] })),
            "mounts[7]",
        ),
        (
            base().set("/linux/cgroupsPath", "../../up"),
            "linux.cgroupsPath",
        ),
        (
            base().set("/linux/cgroupsPath", "/a\0b"),
            "linux.cgroupsPath",
        ),
        (
            base().set("/linux/resources/memory", json!({ "limit": -2 })),
            "linux.resources.memory.limit",
        ),
        (
            base().set("/linux/resources/memory", json!({ "swap": 1048576 })),
            "linux.resources.memory.swap",
        ),
        (
            base().set("/linux/resources/unified", json!({ "a/b": "1" })),
            "linux.resources.unified",
        ),
        (
            base().set("/linux/resources/unified", json!({ "../x": "1" })),
            "linux.resources.unified",
        ),
        (
            base().set("/linux/sysctl", json!({ "kernel.panic": "1" })),
            "kernel.panic",
        ),
        (
            base().set("/linux/sysctl", json!({ "kernel/../../../x": "1" })),
            "linux.sysctl",
        ),
        (
            base().set("/linux/rootfsPropagation", "up"),
            "linux.rootfsPropagation",
        ),
        (
            base().set("/linux/maskedPaths", json!(["relative"])),
            "linux.maskedPaths[0]",
        ),
        (
            base().set("/linux/readonlyPaths", json!(["relative"])),
            "linux.readonlyPaths[0]",
        ),
        (
            base().set("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } })),
            "linux.timeOffsets",
        ),
        (
            base().set("/linux/devices", json!([{ "path": "/dev/x", "type": "z" }])),
            "linux.devices[0].type",
        ),
    ];
    let mut wrong = Vec::new();
    for (bundle, place) in table {
        // All of them in one go: a list of what is wrong is worth more than the first.
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let out = t.call(["create", "--bundle", &bundle.dir.display().to_string(), &id])?;
        let lines = out.stderr.trim_end().lines().count();
        if out.status != 1
            || lines != 1
            || !out.stderr.contains(place)
            || out.stderr.contains("panicked")
        {
            wrong.push(format!(
                "{place}: status {}, {lines} lines: {}",
                out.status,
                out.stderr.trim()
            ));
        }
        if !t.recorded().is_empty() {
            t.call(["delete", "--force", &id])?.ok();
            wrong.push(format!("{place}: a record was left"));
        }
    }
    t.nothing_is_left();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Issue 2, section 3: never silently ignored. The security issue takes these lines away.
fn what_is_not_done_yet_is_refused_by_name(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]).set("/linux/intelRdt", json!({}));
    refused(t, &bundle, &["linux.intelRdt"]);
    Ok(())
}

fn create(t: &Place, bundle: &std::path::Path) -> Result<crate::harness::Outcome> {
    t.call([
        "create",
        "--bundle",
        &bundle.display().to_string(),
        &t.fresh_id(),
    ])
}

fn a_missing_config_is_refused(t: &Place) -> Result<()> {
    fs::create_dir(t.path("empty"))?;
    create(t, &t.path("empty"))?.fails(&["JSON specification file config.json not found"]);
    t.nothing_is_left();
    Ok(())
}

fn a_missing_bundle_is_refused(t: &Place) -> Result<()> {
    create(t, &t.path("nowhere"))?.fails(&["nowhere"]);
    t.nothing_is_left();
    Ok(())
}

fn a_config_that_is_a_directory_is_refused(t: &Place) -> Result<()> {
    fs::create_dir_all(t.path("b/config.json"))?;
    create(t, &t.path("b"))?.fails(&[]);
    t.nothing_is_left();
    Ok(())
}

fn an_endless_config_is_refused(t: &Place) -> Result<()> {
    fs::create_dir(t.path("b"))?;
    symlink("/dev/zero", t.path("b/config.json"))?;
    create(t, &t.path("b"))?.fails(&["config.json"]);
    t.nothing_is_left();
    Ok(())
}

/// With 192 MiB of address space for the runtime: what does not fit ends it without a clear error.
fn very_large_and_very_deep_documents_are_refused_in_little_time_and_memory(
    t: &Place,
) -> Result<()> {
    const MIB: usize = 1 << 20;
    let many = |text: &str, unit: &str| text.replace("...", &unit.repeat(15 * MIB / unit.len()));
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(7 * MIB), "]".repeat(7 * MIB));
    let least =
        r#""root":{"path":"r"},"process":{"user":{"uid":0,"gid":0},"args":["a"],"cwd":"/"}"#;
    for (text, words) in [
        (
            " ".repeat(100 * MIB),
            "has 104857600 bytes; more than 16777216 are refused",
        ),
        (
            format!("{{{least},\"hostname\":\"{}\"}}", "h".repeat(100 * MIB)),
            "are refused",
        ),
        ("[".repeat(8 * MIB), "is not JSON"),
        (r#"{"a":"#.repeat(3 * MIB), "is not JSON"),
        (deep, "root: is missing; process: is missing"),
        // What would be a hundred times as large in memory.
        (
            many(r#"{"x":[...7],"linux":7}"#, r#"{"":[]},"#),
            "linux: invalid type",
        ),
        (
            many(
                &format!(r#"{{{least},"linux":{{"namespaces":[...{{}}]}}}}"#),
                "{},",
            ),
            "linux.namespaces[0].type: is missing",
        ),
        (
            many(
                &format!(r#"{{{least},"mounts":[...7]}}"#),
                r#"{"destination":"/"},"#,
            ),
            "mounts[",
        ),
        (
            many(
                &format!(r#"{{{least},"linux":{{"resources":{{"devices":[...7]}}}}}}"#),
                r#"{"allow":true},"#,
            ),
            "devices[",
        ),
    ] {
        let bundle = t.bundle();
        fs::write(bundle.dir.join("config.json"), &text)?;
        let begun = Instant::now();
        let script = r#"ulimit -v 196608; exec "$0" --root "$1" create --bundle "$2" x"#;
        let runtime = machine().runtime.as_os_str();
        let args = [
            OsStr::new("-c"),
            script.as_ref(),
            runtime,
            t.root.as_os_str(),
            bundle.dir.as_os_str(),
        ];
        let out = t.host("sh", args)?;
        let (took, start) = (begun.elapsed(), &text[..text.len().min(60)]);
        assert!(
            out.stderr.contains(words),
            "{start}…: {} {}",
            out.status,
            out.stderr
        );
        assert_eq!(out.status, 1, "{start}…: {}", out.stderr);
        assert!(
            out.stderr.len() < 4096 && took < machine().patience() / 6,
            "{start}…: {took:?}"
        );
        fs::remove_file(bundle.dir.join("config.json"))?;
    }
    t.nothing_is_left();
    Ok(())
}

fn a_missing_rootfs_is_refused(t: &Place) -> Result<()> {
    refused(
        t,
        &t.bundle()
            .args(&["true"])
            .set("/root/path", "no-such-rootfs"),
        &["no-such-rootfs"],
    );
    Ok(())
}

fn a_rootfs_that_is_a_file_is_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]).set("/root/path", "a-file");
    fs::write(bundle.dir.join("a-file"), "")?;
    refused(t, &bundle, &[]);
    Ok(())
}

fn the_hosts_root_as_rootfs_is_refused_or_harmless(t: &Place) -> Result<()> {
    let before = fs::read_to_string("/proc/self/mountinfo")?.lines().count();
    let out = t.run(&t.bundle().args(&["true"]).set("/root/path", "/"))?;
    assert!(
        out.status == 0 || out.stderr.contains("root.path"),
        "{out:?}"
    );
    assert!(fs::read_to_string("/proc/self/mountinfo")?.lines().count() <= before + 4);
    Ok(())
}

fn with_root(
    t: &Place,
    root: &std::path::Path,
    bundle: &Bundle,
) -> Result<crate::harness::Outcome> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let (root, dir) = (root.display().to_string(), bundle.dir.display().to_string());
    Call::new(
        t,
        &machine().runtime,
        ["--root", &root, "create", "--bundle", &dir, &id],
    )
    .run()
}

fn a_root_that_cannot_be_made_is_an_error(t: &Place) -> Result<()> {
    fs::write(t.path("file"), "")?;
    with_root(t, &t.path("file/root"), &t.bundle().args(&["true"]))?.fails(&["ot a directory"]);
    t.nothing_is_left();
    Ok(())
}

fn a_readonly_root_directory_is_an_error(t: &Place) -> Result<()> {
    let root = t.path("readonly");
    fs::create_dir(&root)?;
    kernel::mount("tmpfs", &root, "tmpfs", libc::MS_RDONLY, "")?;
    let out = with_root(t, &root, &t.bundle().args(&["true"]));
    kernel::unmount(&root)?;
    out?.fails(&["ead-only file system"]);
    t.nothing_is_left();
    Ok(())
}

/// Every size from nothing on, until a create succeeds.
fn a_full_disk_is_an_error_that_leaves_nothing(t: &Place) -> Result<()> {
    let root = t.path("small");
    fs::create_dir(&root)?;
    let mut failures = 0;
    for inodes in 1..12 {
        kernel::mount(
            "tmpfs",
            &root,
            "tmpfs",
            0,
            &format!("size=4k,nr_inodes={inodes}"),
        )?;
        let out = with_root(t, &root, &t.bundle().args(&["true"]))?;
        if out.status != 0 {
            failures += 1;
            let left: Vec<_> = fs::read_dir(&root)?
                .flatten()
                .map(|e| e.file_name())
                .filter(|n| !n.to_string_lossy().starts_with('.'))
                .collect();
            assert!(
                machine().is("runc") || left.is_empty(),
                "{inodes} inodes: {left:?}"
            );
            kernel::unmount(&root)?;
            out.fails(&[]);
            t.nothing_is_left();
            continue;
        }
        let id = out.words.rsplit(' ').next().unwrap_or_default().to_string();
        let delete = Call::new(
            t,
            &machine().runtime,
            [
                "--root",
                &root.display().to_string(),
                "delete",
                "--force",
                &id,
            ],
        )
        .run();
        kernel::unmount(&root)?;
        delete?.ok();
        break;
    }
    assert!(failures > 0, "a create with no room for anything succeeded");
    Ok(())
}

fn a_corrupt_state_file_can_be_deleted_by_force(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for entry in fs::read_dir(t.root.join(&c.id))?.flatten() {
        if entry.file_type()?.is_file() && entry.path().extension().is_some_and(|e| e == "json") {
            fs::write(entry.path(), "{\"half")?;
        }
    }
    c.call("state")?.fails(&[&c.id]);
    t.call(["delete", "--force", &c.id])?;
    // Nobody knows its cgroup any more: end it here, and see that the name is free.
    let _ = fs::write(c.cgroup().join("cgroup.kill"), "1");
    c.ended()?;
    assert_eq!(t.recorded(), [""; 0]);
    let _ = fs::remove_dir(c.cgroup()); // perhaps the runtime did
    Ok(())
}

fn an_empty_state_directory_is_no_container(t: &Place) -> Result<()> {
    fs::create_dir_all(t.root.join("hollow"))?;
    assert_ne!(t.call(["state", "hollow"])?.status, 0);
    t.call(["delete", "--force", "hollow"])?.ok();
    let _ = fs::remove_dir(t.root.join("hollow")); // runc leaves what it did not make
    Ok(())
}
