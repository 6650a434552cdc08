//! linux.resources and linux.cgroupsPath on cgroup v2: each limit is read back from the kernel.

use crate::harness::machine::CGROUPS;
use crate::harness::place::until;
use crate::harness::{Bundle, Need, Place, Result, Value, json, machine};
use std::fs;
use std::path::Path;

tests! {
    the_process_is_in_its_cgroup,
    a_missing_path_is_chosen_by_the_runtime,
    a_deep_path_is_made_and_removed,
    what_is_above_the_container_stays,
    a_cgroup_in_use_is_not_taken_over,
    a_frozen_cgroup_is_not_taken_over [Need::Beyond("runc", "its own words"), Need::Beyond("crun", "1.8 waits for ever")],
    a_threaded_parent_is_refused_with_the_reason [Need::Beyond("runc", "its own words"), Need::Beyond("crun", "its own words")],
    a_parent_with_processes_is_refused_with_the_reason [Need::Controller("hugetlb"), Need::Path("/sys/kernel/mm/hugepages/hugepages-2048kB"), Need::Beyond("runc", "its own words"), Need::Beyond("crun", "its own words")],
    a_writable_cgroup_is_its_users [Need::Beyond("runc", "only with systemd"), Need::Beyond("crun", "only on wish")],
    a_readonly_or_shared_cgroup_stays_the_runtimes,
    nested_cgroups_are_removed,
    a_limit_too_small_for_the_setup_is_named [Need::Controller("memory"), Need::Beyond("runc", "its own words"), Need::Beyond("crun", "its own words")],
    memory_limits_are_set [Need::Controller("memory")],
    memory_swap_is_what_exceeds_the_limit [Need::Controller("memory")],
    minus_one_is_no_limit [Need::Controller("memory")],
    processor_limits_are_set [Need::Controller("cpu")],
    shares_become_weight [Need::Controller("cpu")],
    cpu_idle_is_set [Need::Controller("cpu"), Need::Beyond("runc", "1.1.5 lacks it"), Need::Beyond("crun", "1.8 lacks it")],
    cpusets_are_set [Need::Controller("cpuset")],
    the_number_of_processes_is_limited [Need::Controller("pids")],
    block_device_throttles_are_set [Need::Controller("io")],
    block_weight_is_set [Need::Controller("io")],
    huge_page_limits_are_set [Need::Controller("hugetlb"), Need::Path("/sys/kernel/mm/hugepages/hugepages-2048kB")],
    unified_values_are_set [Need::Controller("hugetlb"), Need::Path("/sys/kernel/mm/hugepages/hugepages-2048kB")],
    unified_values_of_memory_are_set [Need::Controller("memory")],
    controllers_are_enabled_down_the_tree [Need::Controller("hugetlb"), Need::Path("/sys/kernel/mm/hugepages/hugepages-2048kB")],
    a_memory_limit_without_the_controller_is_an_error [Need::NoController("memory")],
    a_pids_limit_without_the_controller_is_an_error [Need::NoController("pids")],
    a_cpu_limit_without_the_controller_is_an_error [Need::NoController("cpu")],
    a_cpuset_without_the_controller_is_an_error [Need::NoController("cpuset")],
    no_limit_needs_no_controller [Need::Beyond("runc", "1.1.5 wants it"), Need::Beyond("crun", "1.8 wants it")],
    an_unknown_unified_controller_is_an_error,
    an_unknown_unified_file_is_an_error,
    too_much_memory_kills_the_process [Need::Controller("memory")],
    an_oom_kill_is_seen_in_the_status [Need::Controller("memory")],
    a_limit_below_what_is_used_is_refused_when_asked_to_check
        [Need::Controller("memory"), Need::Beyond("runc", "1.1.5 lacks it"), Need::Beyond("crun", "1.8 lacks it")],
}

fn limited(t: &Place, resource: &str, value: Value) -> Bundle {
    t.bundle()
        .args(&["sleep", "1000"])
        .set(&format!("/linux/resources/{resource}"), value)
}

/// Creates a container and compares files of its cgroup.
fn check(t: &Place, bundle: &Bundle, files: &[(&str, &str)]) -> Result<()> {
    let c = t.create(bundle)?;
    for (file, expected) in files {
        assert_eq!(c.cgroup_file(file)?, *expected, "{file}");
    }
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

fn the_process_is_in_its_cgroup(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["sleep", "1000"]))?;
    let own = format!("0::{}/{}", t.cgroup, c.id);
    let cgroup_of = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    assert!(
        cgroup_of(c.pid)?.lines().any(|line| line == own),
        "{}",
        cgroup_of(c.pid)?
    );
    c.start()?;
    assert_eq!(c.cgroup_file("cgroup.procs")?, c.pid.to_string());
    c.end()
}

fn a_missing_path_is_chosen_by_the_runtime(t: &Place) -> Result<()> {
    let c = t.create(
        &t.bundle()
            .args(&["sleep", "1000"])
            .set("/linux/cgroupsPath", Value::Null),
    )?;
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid))?;
    assert!(
        own.lines()
            .any(|line| line.starts_with("0::/") && line.contains(&c.id)),
        "{own}"
    );
    t.call(["delete", "--force", &c.id])?.ok();
    t.nothing_is_left();
    Ok(())
}

fn a_deep_path_is_made_and_removed(t: &Place) -> Result<()> {
    let path = format!("{}/a/b/c", t.cgroup);
    let c = t.create(
        &t.bundle()
            .args(&["sleep", "1000"])
            .set("/linux/cgroupsPath", path.clone()),
    )?;
    let procs = fs::read_to_string(format!("{CGROUPS}{path}/cgroup.procs"))?;
    assert_eq!(procs.trim(), c.pid.to_string());
    t.call(["delete", "--force", &c.id])?.ok();
    assert!(!Path::new(&format!("{CGROUPS}{path}")).exists());
    // What is above may be others' too: runc and crun leave it, and so may we.
    crate::harness::place::remove_cgroups(Path::new(&format!("{CGROUPS}{}/a", t.cgroup)));
    Ok(())
}

fn what_is_above_the_container_stays(t: &Place) -> Result<()> {
    let above = format!("{CGROUPS}{}/above", t.cgroup);
    fs::create_dir(&above)?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .set("/linux/cgroupsPath", format!("{}/above/own", t.cgroup));
    t.run(&bundle)?.ok();
    assert!(Path::new(&above).is_dir() && !Path::new(&above).join("own").exists());
    fs::remove_dir(&above)?;
    Ok(())
}

/// The cgroup of a running container: two would share limits, and `kill --all` would reach both.
fn a_cgroup_in_use_is_not_taken_over(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .set("/linux/cgroupsPath", format!("{}/{}", t.cgroup, c.id));
    if machine().is("sc-runtime") {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        t.call(["create", "--bundle", &bundle.dir.display().to_string(), &id])?
            .fails(&["linux.cgroupsPath"]);
    }
    assert_eq!(c.status()?, "running");
    c.end()
}

/// In a frozen cgroup a new process would hang before its first instruction.
fn a_frozen_cgroup_is_not_taken_over(t: &Place) -> Result<()> {
    let path = format!("{}/frozen", t.cgroup);
    let dir = format!("{CGROUPS}{path}");
    fs::create_dir(&dir)?;
    fs::write(format!("{dir}/cgroup.freeze"), "1")?;
    let bundle = t.bundle().set("/linux/cgroupsPath", path);
    let out = t.run(&bundle.args(&["true"]))?;
    out.fails(&["linux.cgroupsPath", "frozen"]);
    assert_eq!(fs::read_to_string(format!("{dir}/cgroup.freeze"))?, "1\n");
    fs::remove_dir(dir)?;
    t.nothing_is_left();
    Ok(())
}

fn a_threaded_parent_is_refused_with_the_reason(t: &Place) -> Result<()> {
    let above = format!("{CGROUPS}{}/above", t.cgroup);
    fs::create_dir_all(format!("{above}/threads"))?;
    fs::write(format!("{above}/threads/cgroup.type"), "threaded")?;
    for parent in ["above", "above/threads"] {
        let path = format!("{}/{parent}/own", t.cgroup);
        let out = t.run(&t.bundle().args(&["true"]).set("/linux/cgroupsPath", path))?;
        out.fails(&["linux.cgroupsPath", "threaded"]);
        assert!(!Path::new(&format!("{CGROUPS}{}/{parent}/own", t.cgroup)).exists());
    }
    fs::remove_dir(format!("{above}/threads"))?;
    fs::remove_dir(above)?;
    t.nothing_is_left();
    Ok(())
}

fn a_parent_with_processes_is_refused_with_the_reason(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let bundle = limited(
        t,
        "hugepageLimits",
        json!([{ "pageSize": "2MB", "limit": 2 * MIB }]),
    )
    .set("/linux/cgroupsPath", format!("{}/{}/own", t.cgroup, c.id));
    t.run(&bundle)?.fails(&[
        "linux.resources.hugepageLimits",
        "holds processes itself",
        "linux.cgroupsPath",
    ]);
    assert!(!c.cgroup().join("own").exists());
    c.end()
}

/// The mode of a file is the kernel's; its owner decides.
fn owners(c: &crate::harness::Container) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let files = [
        ".",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
        "cgroup.freeze",
        "cgroup.max.depth",
    ];
    let owner = |file: &&str| {
        c.cgroup()
            .join(file)
            .metadata()
            .map_or(u32::MAX, |m| m.uid())
    };
    files.iter().map(owner).collect()
}

const WRITABLE: [&str; 4] = ["nosuid", "noexec", "nodev", "rw"];

fn a_writable_cgroup_is_its_users(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .user_namespace()?
        .set("/mounts/6/options", json!(WRITABLE))
        .sh("mkdir /sys/fs/cgroup/below && echo made; echo 1 > /sys/fs/cgroup/cgroup.max.depth || echo refused; sleep 1000");
    let c = t.create(&bundle)?;
    let (own, not) = (100_000, 0);
    assert_eq!(owners(&c), [own, own, own, own, not, not]);
    c.start()?;
    until("its shell", || c.output().contains("refused"));
    assert!(c.output().contains("made"), "{}", c.output());
    c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn a_readonly_or_shared_cgroup_stays_the_runtimes(t: &Place) -> Result<()> {
    let sleeper = || t.bundle().args(&["sleep", "1000"]).user_namespace();
    let shared = sleeper()?
        .set("/mounts/6/options", json!(WRITABLE))
        .without_namespace("cgroup");
    for bundle in [sleeper()?, shared] {
        let c = t.create(&bundle)?;
        assert_eq!(owners(&c), [0; 6]);
        t.call(["delete", "--force", &c.id])?.ok();
    }
    Ok(())
}

fn nested_cgroups_are_removed(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/mounts/6/options", json!(WRITABLE))
        .sh("mkdir -p /sys/fs/cgroup/a/b /sys/fs/cgroup/c && echo $$ > /sys/fs/cgroup/a/b/cgroup.procs && echo made; sleep 1000");
    let c = t.create(&bundle)?;
    c.start()?;
    until("the cgroups", || c.output().contains("made"));
    assert!(c.cgroup().join("a/b").is_dir());
    c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn a_limit_too_small_for_the_setup_is_named(t: &Place) -> Result<()> {
    for limit in [1, 4096, 65536] {
        let bundle = limited(t, "memory", json!({ "limit": limit, "swap": limit }));
        t.create_fails(&bundle, &["linux.resources.memory.limit", "too small"]);
    }
    Ok(())
}

const MIB: u64 = 1 << 20;

fn memory_limits_are_set(t: &Place) -> Result<()> {
    let bundle = limited(
        t,
        "memory",
        json!({ "limit": 64 * MIB, "reservation": 32 * MIB }),
    );
    check(
        t,
        &bundle,
        &[("memory.max", "67108864"), ("memory.low", "33554432")],
    )
}

fn memory_swap_is_what_exceeds_the_limit(t: &Place) -> Result<()> {
    if !Path::new(&format!("{CGROUPS}{}/runner/memory.swap.max", t.cgroup)).exists()
        && !machine().in_guest
    {
        return Ok(()); // a kernel without swap accounting has no such file; the guest has it
    }
    let bundle = limited(t, "memory", json!({ "limit": 64 * MIB, "swap": 96 * MIB }));
    check(
        t,
        &bundle,
        &[("memory.max", "67108864"), ("memory.swap.max", "33554432")],
    )?;
    t.create_fails(
        &limited(t, "memory", json!({ "limit": 64 * MIB, "swap": 32 * MIB })),
        &[],
    );
    Ok(())
}

fn minus_one_is_no_limit(t: &Place) -> Result<()> {
    check(
        t,
        &limited(t, "memory", json!({ "limit": -1 })),
        &[("memory.max", "max")],
    )
}

/// `podman run --pids-limit=-1` asks for this on a machine that cannot count processes.
fn no_limit_needs_no_controller(t: &Place) -> Result<()> {
    let bundle = limited(t, "pids", json!({ "limit": -1 })).sh("true");
    assert_eq!(t.run(&bundle)?.status, 0);
    Ok(())
}

fn processor_limits_are_set(t: &Place) -> Result<()> {
    check(
        t,
        &limited(t, "cpu", json!({ "quota": 50000, "period": 100000 })),
        &[("cpu.max", "50000 100000")],
    )?;
    check(
        t,
        &limited(t, "cpu", json!({ "quota": -1, "period": 50000 })),
        &[("cpu.max", "max 50000")],
    )?;
    check(
        t,
        &limited(t, "cpu", json!({ "quota": 20000 })),
        &[("cpu.max", "20000 100000")],
    )?;
    if machine().is("sc-runtime") {
        check(
            t,
            &limited(t, "cpu", json!({ "quota": 50000, "burst": 10000 })),
            &[("cpu.max.burst", "10000")],
        )?;
    }
    Ok(())
}

/// The formula of runc 1.3.2 and crun 1.23: 2 -> 1, 1024 -> 100, 262144 -> 10000. The old one gave 39 for 1024.
fn shares_become_weight(t: &Place) -> Result<()> {
    let table = [
        (2, "1", "1"),
        (1024, "100", "39"),
        (262_144, "10000", "10000"),
    ];
    for (shares, new, old) in table {
        let c = t.create(&limited(t, "cpu", json!({ "shares": shares })))?;
        let weight = c.cgroup_file("cpu.weight")?;
        let is_old_formula = !machine().is("sc-runtime") && weight == old;
        assert!(weight == new || is_old_formula, "{shares} shares: {weight}");
        t.call(["delete", "--force", &c.id])?.ok();
    }
    Ok(())
}

fn cpu_idle_is_set(t: &Place) -> Result<()> {
    check(
        t,
        &limited(t, "cpu", json!({ "idle": 1 })),
        &[("cpu.idle", "1")],
    )
}

fn cpusets_are_set(t: &Place) -> Result<()> {
    check(
        t,
        &limited(t, "cpu", json!({ "cpus": "0", "mems": "0" })),
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
    )?;
    t.create_fails(&limited(t, "cpu", json!({ "cpus": "4000" })), &[]);
    Ok(())
}

fn the_number_of_processes_is_limited(t: &Place) -> Result<()> {
    let bundle = limited(t, "pids", json!({ "limit": 10 }));
    check(t, &bundle, &[("pids.max", "10")])?;
    assert_eq!(
        t.run(&bundle.args(&["/probe", "fork", "50"]))?.text(),
        "9 Some(EAGAIN)"
    );
    check(
        t,
        &limited(t, "pids", json!({ "limit": -1 })),
        &[("pids.max", "max")],
    )
}

/// The first block device of the machine.
fn block_device() -> Option<(u64, u64)> {
    let entry = fs::read_dir("/sys/block").ok()?.flatten().next()?;
    let text = fs::read_to_string(entry.path().join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn block_device_throttles_are_set(t: &Place) -> Result<()> {
    let Some((major, minor)) = block_device() else {
        return Ok(());
    };
    let entry = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let bundle = limited(
        t,
        "blockIO",
        json!({
            "throttleReadBpsDevice": entry(MIB), "throttleWriteBpsDevice": entry(2 * MIB),
            "throttleReadIOPSDevice": entry(100), "throttleWriteIOPSDevice": entry(200),
        }),
    );
    check(
        t,
        &bundle,
        &[(
            "io.max",
            &format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=100 wiops=200"),
        )],
    )
}

fn block_weight_is_set(t: &Place) -> Result<()> {
    let c = t.create(&limited(t, "blockIO", json!({ "weight": 500 })))?;
    // bfq's file takes the number as it is; io.weight's scale is 1 to 10000.
    let shown = c
        .cgroup_file("io.bfq.weight")
        .or_else(|_| c.cgroup_file("io.weight"))?;
    assert!(
        ["default 500", "500", "default 4950"].contains(&shown.lines().next().unwrap_or_default()),
        "{shown}"
    );
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

fn huge_page_limits_are_set(t: &Place) -> Result<()> {
    let bundle = limited(
        t,
        "hugepageLimits",
        json!([{ "pageSize": "2MB", "limit": 4 * MIB }]),
    );
    check(t, &bundle, &[("hugetlb.2MB.max", "4194304")])
}

fn unified_values_are_set(t: &Place) -> Result<()> {
    let bundle = limited(
        t,
        "unified",
        json!({ "hugetlb.2MB.max": "2097152", "cgroup.max.depth": "3" }),
    );
    check(
        t,
        &bundle,
        &[("hugetlb.2MB.max", "2097152"), ("cgroup.max.depth", "3")],
    )
}

fn unified_values_of_memory_are_set(t: &Place) -> Result<()> {
    let bundle = limited(
        t,
        "unified",
        json!({ "memory.high": "50331648", "memory.oom.group": "1" }),
    );
    check(
        t,
        &bundle,
        &[("memory.high", "50331648"), ("memory.oom.group", "1")],
    )
}

fn controllers_are_enabled_down_the_tree(t: &Place) -> Result<()> {
    let path = format!("{}/x/y/z", t.cgroup);
    let bundle = limited(
        t,
        "hugepageLimits",
        json!([{ "pageSize": "2MB", "limit": 2 * MIB }]),
    )
    .set("/linux/cgroupsPath", path.clone());
    let c = t.create(&bundle)?;
    for above in ["", "/x", "/x/y"] {
        let enabled = fs::read_to_string(format!(
            "{CGROUPS}{}{above}/cgroup.subtree_control",
            t.cgroup
        ))?;
        assert!(enabled.contains("hugetlb"), "{above}: {enabled}");
    }
    assert_eq!(
        fs::read_to_string(format!("{CGROUPS}{path}/hugetlb.2MB.max"))?.trim(),
        "2097152"
    );
    t.call(["delete", "--force", &c.id])?.ok();
    crate::harness::place::remove_cgroups(Path::new(&format!("{CGROUPS}{}/x", t.cgroup)));
    Ok(())
}

/// The error names the file, and (which runc and crun leave to the reader) the controller.
fn refused(t: &Place, resource: &str, value: Value, controller: &str, file: &str) -> Result<()> {
    let words = if machine().is("sc-runtime") {
        vec![controller, file]
    } else {
        vec![file]
    };
    t.create_fails(&limited(t, resource, value), &words);
    Ok(())
}

fn a_memory_limit_without_the_controller_is_an_error(t: &Place) -> Result<()> {
    refused(
        t,
        "memory",
        json!({ "limit": 64 * MIB }),
        "memory",
        "memory.max",
    )
}

fn a_pids_limit_without_the_controller_is_an_error(t: &Place) -> Result<()> {
    refused(t, "pids", json!({ "limit": 10 }), "pids", "pids.max")
}

fn a_cpu_limit_without_the_controller_is_an_error(t: &Place) -> Result<()> {
    refused(t, "cpu", json!({ "quota": 50000 }), "cpu", "cpu.max")
}

fn a_cpuset_without_the_controller_is_an_error(t: &Place) -> Result<()> {
    refused(t, "cpu", json!({ "cpus": "0" }), "cpuset", "cpuset.cpus")
}

fn an_unknown_unified_controller_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &limited(t, "unified", json!({ "madeup.max": "1" })),
        &["madeup"],
    );
    Ok(())
}

fn an_unknown_unified_file_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &limited(t, "unified", json!({ "cgroup.made_up": "1" })),
        &["cgroup.made_up"],
    );
    Ok(())
}

fn too_much_memory_kills_the_process(t: &Place) -> Result<()> {
    let bundle = limited(t, "memory", json!({ "limit": 32 * MIB, "swap": 32 * MIB }))
        .args(&["/probe", "eat", "200"]);
    assert_eq!(t.run(&bundle)?.status, 137);
    Ok(())
}

fn an_oom_kill_is_seen_in_the_status(t: &Place) -> Result<()> {
    let bundle = limited(t, "memory", json!({ "limit": 32 * MIB, "swap": 32 * MIB }))
        .args(&["/probe", "eat", "200"]);
    let c = t.create(&bundle)?;
    c.start()?;
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    let events = c.cgroup_file("memory.events")?;
    assert!(events.lines().any(|line| line == "oom_kill 1"), "{events}");
    c.delete()
}

fn a_limit_below_what_is_used_is_refused_when_asked_to_check(t: &Place) -> Result<()> {
    // Nothing is used yet at create, so it is accepted; a limit of nothing is not.
    check(
        t,
        &limited(
            t,
            "memory",
            json!({ "limit": 64 * MIB, "checkBeforeUpdate": true }),
        ),
        &[("memory.max", "67108864")],
    )
}
