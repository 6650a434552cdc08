//! `--systemd-cgroup`: the container's cgroup is a scope of the machine's own systemd, which knows the
//! limits too, and forgets the scope when the container is deleted.
//!
//! The unit of a container without a cgroupsPath is `runc-ID.scope` in `system.slice`.

use crate::harness::machine::{CGROUPS, program};
use crate::harness::place::until;
use crate::harness::{Bundle, Container, Need, Outcome, Place, Result, Value, json, machine};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CRUN_SUB: Need = Need::Beyond("crun", "it has a cgroup `container` below the scope");
const MIB: u64 = 1 << 20;

tests! {
    a_container_has_a_scope_from_create_to_delete [Need::Systemd, CRUN_SUB],
    cgroups_path_is_slice_prefix_and_name [Need::Systemd],
    a_cgroups_path_of_another_form_is_an_error [Need::Systemd],
    run_leaves_no_unit [Need::Systemd],
    a_container_sees_its_scope_as_the_root [Need::Systemd],
    a_scope_that_the_container_may_write_is_given_to_its_root [Need::Systemd],
    limits_are_known_to_systemd_and_to_the_kernel
        [Need::Systemd, Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu"), CRUN_SUB],
    an_update_reaches_systemd_and_the_kernel
        [Need::Systemd, Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpu"), CRUN_SUB],
    an_update_that_is_refused_changes_neither [Need::Systemd, Need::Controller("pids"), Need::Controller("cpuset"), Need::Beyond("runc", "1.1 keeps the first half"), CRUN_SUB],
    annotations_become_properties [Need::Systemd],
    a_property_that_systemd_refuses_is_named [Need::Systemd, Need::Beyond("runc", "names the property alone")],
    devices_are_denied_in_a_scope_too [Need::Systemd, Need::Beyond("crun", "1.8 wants CAP_SYS_RESOURCE for its device rules")],
    a_create_that_fails_leaves_no_unit [Need::Systemd],
    a_unit_in_use_is_not_taken_over [Need::Systemd, Need::Beyond("crun", "wants a slice to be named")],
    what_a_killed_runtime_has_begun_is_deleted [Need::Systemd],
    a_paused_scope_is_resumed_and_deleted [Need::Systemd, CRUN_SUB],
    processes_that_outlive_init_end_with_the_scope [Need::Systemd],
    nested_cgroups_end_with_the_scope [Need::Systemd, CRUN_SUB],
    many_scopes_at_once_leave_nothing [Need::Systemd],
    without_systemd_the_option_is_an_error [Need::NoSystemd, Need::Beyond("runc", "its own words"), Need::Beyond("crun", "its own words")],
}

fn bundle(t: &Place) -> Bundle {
    t.bundle()
        .args(&["sleep", "1000"])
        .set("/linux/cgroupsPath", Value::Null)
}

fn create<'t>(t: &'t Place, bundle: &Bundle) -> Result<Container<'t>> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let call = t.runtime(["--systemd-cgroup", "create", "--bundle", &dir, &id]);
    Container::from_call(t, id, call)
}

fn started<'t>(t: &'t Place, bundle: &Bundle) -> Result<Container<'t>> {
    let container = create(t, bundle)?;
    container.start()?;
    Ok(container)
}

fn run(t: &Place, bundle: &Bundle) -> Result<(String, Outcome)> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let out = t.call(["--systemd-cgroup", "run", "--bundle", &dir, &id])?;
    Ok((unit_of(&id), out))
}

fn unit_of(id: &str) -> String {
    match machine().is("crun") {
        true => format!("crun-{id}.scope"),
        false => format!("runc-{id}.scope"),
    }
}

fn systemctl(words: &[&str]) -> String {
    let systemctl = program("systemctl").expect("systemctl");
    let out = Command::new(systemctl).args(words).output();
    String::from_utf8_lossy(&out.expect("systemctl runs").stdout)
        .trim()
        .to_owned()
}

fn shown(unit: &str, property: &str) -> String {
    systemctl(&["show", "--value", "-p", property, unit])
}

/// Nothing of the unit is known any more, not even that it failed.
#[track_caller]
fn is_forgotten(unit: &str) {
    assert_eq!(shown(unit, "LoadState"), "not-found", "{unit}");
    assert_eq!(shown(unit, "ActiveState"), "inactive", "{unit}");
}

/// Where systemd says the unit's cgroup is.
fn directory(unit: &str) -> PathBuf {
    PathBuf::from(format!("{CGROUPS}{}", shown(unit, "ControlGroup")))
}

fn file(unit: &str, name: &str) -> String {
    let path = directory(unit).join(name);
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => format!("{}: {error}", path.display()),
    }
}

fn a_container_has_a_scope_from_create_to_delete(t: &Place) -> Result<()> {
    let c = create(t, &bundle(t))?;
    let unit = unit_of(&c.id);
    for (property, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("Transient", "yes"),
        ("ControlGroup", &format!("/system.slice/{unit}")),
    ] {
        assert_eq!(shown(&unit, property), value, "{property}");
    }
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid))?;
    let path = format!("0::/system.slice/{unit}");
    assert!(own.lines().any(|line| line == path), "{own}");
    assert_eq!(c.status()?, "created");
    c.start()?;
    assert_eq!(c.status()?, "running");
    assert_eq!(file(&unit, "cgroup.procs"), c.pid.to_string());
    let dir = directory(&unit);
    c.end()?;
    is_forgotten(&unit);
    assert!(!dir.exists(), "{dir:?}");
    Ok(())
}

fn cgroups_path_is_slice_prefix_and_name(t: &Place) -> Result<()> {
    let name = t.fresh_id();
    let slice = format!("sct{}.slice", std::process::id());
    let path = format!("{slice}:pre:{name}");
    let c = create(t, &bundle(t).set("/linux/cgroupsPath", path))?;
    let unit = format!("pre-{name}.scope");
    assert_eq!(shown(&unit, "ControlGroup"), format!("/{slice}/{unit}"));
    c.start()?;
    c.end()?;
    is_forgotten(&unit);
    // The slice is whoever asked for it's to end: engines keep one for a pod.
    systemctl(&["stop", &slice]);
    Ok(())
}

fn a_cgroups_path_of_another_form_is_an_error(t: &Place) -> Result<()> {
    let bundle = bundle(t).set("/linux/cgroupsPath", "/a/b");
    let (unit, out) = run(t, &bundle)?;
    out.fails(&["slice:prefix:name"]);
    is_forgotten(&unit);
    t.nothing_is_left();
    Ok(())
}

fn run_leaves_no_unit(t: &Place) -> Result<()> {
    for status in [0, 7] {
        let (unit, out) = run(t, &bundle(t).sh(&format!("exit {status}")))?;
        assert_eq!(out.status, status, "{}", out.stderr);
        is_forgotten(&unit);
    }
    t.nothing_is_left();
    Ok(())
}

fn a_container_sees_its_scope_as_the_root(t: &Place) -> Result<()> {
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -1";
    let (_, out) = run(t, &bundle(t).sh(script))?;
    let text = out.text();
    assert!(text.lines().any(|line| line == "0::/"), "{text}");
    assert_eq!(text.lines().last(), Some("1"), "{text}");
    // Without a cgroup namespace it is at its place in the host's.
    let whole = bundle(t).without_namespace("cgroup");
    let (unit, out) = run(t, &whole.sh("cat /proc/self/cgroup"))?;
    let text = out.text();
    assert!(text.contains(&format!("/system.slice/{unit}")), "{text}");
    Ok(())
}

/// As systemd in a container wants it: the cgroup mount writable, a user namespace, and a cgroup below.
fn a_scope_that_the_container_may_write_is_given_to_its_root(t: &Place) -> Result<()> {
    let script = "mkdir /sys/fs/cgroup/init.scope && echo 0 > /sys/fs/cgroup/init.scope/cgroup.procs && \
                  cat /proc/self/cgroup; echo 1 > /sys/fs/cgroup/cgroup.max.depth || echo refused";
    let bundle = bundle(t)
        .user_namespace()?
        .set(
            "/mounts/6/options",
            json!(["nosuid", "noexec", "nodev", "rw"]),
        )
        .sh(script);
    let (unit, out) = run(t, &bundle)?;
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert!(lines.contains(&"0::/init.scope"), "{out:?}");
    assert_eq!(lines.last(), Some(&"refused"), "{out:?}");
    is_forgotten(&unit);
    Ok(())
}

fn limited(t: &Place) -> Bundle {
    bundle(t)
        .set(
            "/linux/resources/memory",
            json!({ "limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB }),
        )
        .set(
            "/linux/resources/cpu",
            json!({ "shares": 512, "quota": 12345, "period": 10000 }),
        )
        .set("/linux/resources/pids", json!({ "limit": 33 }))
}

fn limits_are_known_to_systemd_and_to_the_kernel(t: &Place) -> Result<()> {
    let c = started(t, &limited(t))?;
    let unit = unit_of(&c.id);
    for (property, value) in [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "33554432"),
        ("TasksMax", "33"),
        ("CPUQuotaPeriodUSec", "10ms"),
        ("CPUQuotaPerSecUSec", "1.240000s"),
    ] {
        let is = shown(&unit, property);
        assert!(
            is == value || is == value.replace("0000s", "s"),
            "{property}: {is}"
        );
    }
    for (name, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("pids.max", "33"),
        // systemd alone would round it to whole percents.
        (
            "cpu.max",
            if machine().is("sc-runtime") {
                "12345 10000"
            } else {
                "12400 10000"
            },
        ),
    ] {
        let is = file(&unit, name);
        assert!(
            is == value || name == "cpu.max" && !machine().is("sc-runtime"),
            "{name}: {is}"
        );
    }
    assert_ne!(file(&unit, "cpu.weight"), "100");
    assert_eq!(shown(&unit, "CPUWeight"), file(&unit, "cpu.weight"));
    c.end()?;
    is_forgotten(&unit);
    Ok(())
}

fn an_update_reaches_systemd_and_the_kernel(t: &Place) -> Result<()> {
    let c = started(t, &limited(t))?;
    let unit = unit_of(&c.id);
    for (quota, pids) in [(23456, 44), (34567, 55), (12345, 33)] {
        let (quota, pids) = (quota.to_string(), pids.to_string());
        t.call([
            "update",
            "--cpu-quota",
            &quota,
            "--pids-limit",
            &pids,
            "--memory",
            "128m",
            "--memory-swap",
            "128m",
            &c.id,
        ])?
        .ok();
        assert_eq!(
            (shown(&unit, "TasksMax"), file(&unit, "pids.max")),
            (pids.clone(), pids)
        );
        assert_eq!(shown(&unit, "MemoryMax"), "134217728");
        assert_eq!(file(&unit, "memory.max"), "134217728");
        if machine().is("sc-runtime") {
            assert_eq!(file(&unit, "cpu.max"), format!("{quota} 10000"));
        }
    }
    // What systemd writes when it has reason to write is what was asked for last.
    systemctl(&["daemon-reload"]);
    assert_eq!(file(&unit, "pids.max"), "33");
    assert_eq!(file(&unit, "memory.max"), "134217728");
    c.end()?;
    is_forgotten(&unit);
    Ok(())
}

fn an_update_that_is_refused_changes_neither(t: &Place) -> Result<()> {
    let c = started(t, &limited(t))?;
    let unit = unit_of(&c.id);
    t.call([
        "update",
        "--pids-limit",
        "44",
        "--cpuset-cpus",
        "4000",
        &c.id,
    ])?
    .fails(&["cpuset.cpus"]);
    assert_eq!(shown(&unit, "TasksMax"), "33");
    assert_eq!(file(&unit, "pids.max"), "33");
    assert_eq!(shown(&unit, "AllowedCPUs"), "");
    c.end()
}

fn annotations_become_properties(t: &Place) -> Result<()> {
    let bundle = bundle(t)
        .set(
            "/annotations/org.systemd.property.TimeoutStopUSec",
            "uint64 7000000",
        )
        .set(
            "/annotations/org.systemd.property.CollectMode",
            "'inactive-or-failed'",
        );
    let c = create(t, &bundle)?;
    let unit = unit_of(&c.id);
    assert_eq!(shown(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(shown(&unit, "CollectMode"), "inactive-or-failed");
    t.call(["delete", "--force", &c.id])?.ok();
    is_forgotten(&unit);
    Ok(())
}

fn a_property_that_systemd_refuses_is_named(t: &Place) -> Result<()> {
    let name = "/annotations/org.systemd.property.NoSuchProperty";
    let (unit, out) = run(t, &bundle(t).set(name, "true"))?;
    out.fails(&["NoSuchProperty", "annotations"]);
    is_forgotten(&unit);
    t.nothing_is_left();
    Ok(())
}

fn devices_are_denied_in_a_scope_too(t: &Place) -> Result<()> {
    let node = |path: &str, minor: u32| json!({ "path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 0o666 });
    let bundle = bundle(t)
        .caps(&["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYSLOG"])
        .set("/linux/devices", json!([node("/dev/mykmsg", 11), node("/dev/myzero", 5)]))
        .sh("/probe read /dev/mykmsg; /probe read /dev/myzero; /probe mknod /tmp/k 1 11; /probe read /tmp/k; rm /tmp/k");
    let (_, out) = run(t, &bundle)?;
    assert_eq!(
        out.text().lines().collect::<Vec<_>>(),
        ["EPERM", "ok", "ok", "EPERM"]
    );
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let (_, out) = run(t, &bundle.push("/linux/resources/devices", rule))?;
    assert_eq!(
        out.text().lines().collect::<Vec<_>>(),
        ["ok", "ok", "ok", "ok"]
    );
    Ok(())
}

fn a_create_that_fails_leaves_no_unit(t: &Place) -> Result<()> {
    let gone = json!({ "destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"] });
    for bundle in [bundle(t).args(&["/no/such/program"]), bundle(t).mount(gone)] {
        let (unit, out) = run(t, &bundle)?;
        out.fails(&["/no/such"]);
        is_forgotten(&unit);
        t.nothing_is_left();
    }
    Ok(())
}

fn a_unit_in_use_is_not_taken_over(t: &Place) -> Result<()> {
    let path = format!(":pre:{}", t.fresh_id());
    let first = started(t, &bundle(t).set("/linux/cgroupsPath", path.clone()))?;
    let (_, out) = run(t, &bundle(t).set("/linux/cgroupsPath", path))?;
    assert_ne!(out.status, 0);
    assert_eq!(first.status()?, "running");
    first.end()
}

fn what_a_killed_runtime_has_begun_is_deleted(t: &Place) -> Result<()> {
    let begun = t.path("begun");
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo > {}; sleep 1000", begun.display())] });
    let bundle = bundle(t).push("/hooks/createRuntime", hook);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let running = t
        .runtime(["--systemd-cgroup", "create", "--bundle", &dir, &id])
        .spawn()?;
    until("the hook", || begun.exists());
    let unit = unit_of(&id);
    assert_eq!(shown(&unit, "ActiveState"), "active");
    let pid = nix::unistd::Pid::from_raw(running.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    assert_eq!(running.wait()?.status, 137);
    t.call(["delete", "--force", &id])?.ok();
    is_forgotten(&unit);
    // The hook is nobody's: it lives where the runtime did.
    crate::harness::place::remove_cgroups(Path::new(&format!("{CGROUPS}{}/runner", t.cgroup)));
    fs::create_dir_all(format!("{CGROUPS}{}/runner", t.cgroup))?;
    Ok(())
}

fn a_paused_scope_is_resumed_and_deleted(t: &Place) -> Result<()> {
    let c = started(t, &bundle(t))?;
    let unit = unit_of(&c.id);
    c.call("pause")?.ok();
    assert_eq!(c.status()?, "paused");
    assert_eq!(file(&unit, "cgroup.freeze"), "1");
    c.call("resume")?.ok();
    assert_eq!(c.status()?, "running");
    c.call("pause")?.ok();
    t.call(["delete", "--force", &c.id])?.ok();
    is_forgotten(&unit);
    Ok(())
}

fn processes_that_outlive_init_end_with_the_scope(t: &Place) -> Result<()> {
    let bundle = bundle(t)
        .without_namespace("pid")
        .sh("sleep 1000 & trap '' TERM; sleep 1001 & echo started; wait");
    let c = started(t, &bundle)?;
    until("its shell", || c.output().contains("started"));
    let unit = unit_of(&c.id);
    t.call(["delete", "--force", &c.id])?.ok();
    is_forgotten(&unit);
    t.nothing_is_left();
    Ok(())
}

fn nested_cgroups_end_with_the_scope(t: &Place) -> Result<()> {
    let bundle = bundle(t)
        .set("/mounts/6/options", json!(["rw"]))
        .sh("mkdir -p /sys/fs/cgroup/a/b /sys/fs/cgroup/c && echo made && sleep 1000");
    let c = started(t, &bundle)?;
    until("the cgroups", || c.output().contains("made"));
    let unit = unit_of(&c.id);
    let dir = directory(&unit);
    assert!(dir.join("a/b").is_dir());
    c.end()?;
    is_forgotten(&unit);
    assert!(!dir.exists(), "{dir:?}");
    Ok(())
}

fn many_scopes_at_once_leave_nothing(t: &Place) -> Result<()> {
    let bundles: Vec<Bundle> = (0..8).map(|_| bundle(t)).collect();
    let units: Vec<String> = std::thread::scope(|threads| {
        let all: Vec<_> = bundles
            .iter()
            .map(|bundle| {
                threads.spawn(move || -> Result<String> {
                    let c = started(t, bundle)?;
                    c.call("pause")?.ok();
                    c.call("resume")?.ok();
                    c.end()?;
                    Ok(unit_of(&c.id))
                })
            })
            .collect();
        all.into_iter()
            .map(|one| one.join().expect("no panic"))
            .collect::<Result<_>>()
    })?;
    units.iter().for_each(|unit| is_forgotten(unit));
    t.nothing_is_left();
    Ok(())
}

fn without_systemd_the_option_is_an_error(t: &Place) -> Result<()> {
    let (_, out) = run(t, &bundle(t))?;
    out.fails(&[
        "--systemd-cgroup",
        "this host does not run systemd",
        "leave the option out",
    ]);
    t.nothing_is_left();
    Ok(())
}
