//! Namespaces: made, joined, mapped and furnished (host name, sysctl, time, network).

use crate::harness::place::until;
use crate::harness::{Bundle, Context, Need, Place, Result, Value, ensure, json, machine};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const OLD: [Need; 2] = [
    Need::Beyond("runc", "1.1.5 lacks it"),
    Need::Beyond("crun", "1.8 lacks it"),
];

tests! {
    every_namespace_asked_for_is_new_and_no_other,
    without_namespaces_but_mount_the_hosts_are_kept,
    a_namespace_is_joined_by_its_path,
    all_namespaces_of_another_container_are_joined,
    a_path_that_is_no_namespace_is_an_error,
    a_namespace_of_another_kind_is_an_error [OLD[1]],
    a_namespace_twice_is_an_error [OLD[1]],
    an_unknown_namespace_is_an_error,
    a_time_namespace_has_its_offsets [OLD[0], OLD[1]],
    a_new_time_namespace_may_have_no_offsets [OLD[0], OLD[1]],
    user_namespace_maps_are_set,
    the_root_of_a_user_namespace_may_do_what_its_capabilities_say,
    several_ranges_are_mapped,
    a_user_namespace_without_maps_is_an_error [OLD[1]],
    a_pid_namespace_that_has_ended_holds_no_hook [Need::Beyond("runc", "1.1.5 runs no hooks then"), Need::Beyond("crun", "1.8 runs no hooks then")],
    a_user_namespace_is_joined_by_its_path [Need::Beyond("runc", "1.1.5 wants the maps again")],
    host_name_and_domain_name_are_set [OLD[0]],
    a_host_name_without_a_uts_namespace_is_an_error [OLD[1]],
    sysctls_of_the_namespaces_are_set,
    a_sysctl_may_be_spelled_with_slashes [OLD[0]],
    a_sysctl_of_the_host_is_refused,
    a_network_sysctl_without_a_network_namespace_is_refused,
    loopback_is_up_in_a_new_network_namespace,
    a_joined_network_namespace_is_left_as_it_is [Need::Program("ip")],
    a_network_device_is_moved_in_and_renamed [Need::Program("ip"), OLD[0], OLD[1]],
    a_network_device_comes_back_from_a_container_that_fails [Need::Program("ip"), OLD[0], OLD[1]],
    a_missing_network_device_is_an_error [OLD[0], OLD[1]],
    the_memory_policy_is_set [OLD[0], OLD[1], Need::Path("/proc/self/numa_maps")],
    system_v_queues_are_separate,
    pid_one_reaps_and_its_end_ends_all,
}

fn host(ns: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{ns}"))
        .unwrap_or_default()
        .display()
        .to_string()
}

fn every_namespace_asked_for_is_new_and_no_other(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    for ns in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        assert_ne!(seen["ns"][ns], host(ns), "{ns}");
    }
    for ns in ["user", "time"] {
        assert_eq!(seen["ns"][ns], host(ns), "{ns}");
    }
    Ok(())
}

/// Only a mount namespace: /sys cannot be mounted anew without a network namespace's ownership, so it is bound.
fn without_namespaces_but_mount_the_hosts_are_kept(t: &Place) -> Result<()> {
    let bundle = ["cgroup", "ipc", "network", "pid", "uts"]
        .iter()
        .fold(t.bundle(), |b, ns| b.without_namespace(ns));
    let seen = t.see(bundle.remove("/hostname"))?;
    for ns in ["cgroup", "ipc", "net", "pid", "uts", "user", "time"] {
        assert_eq!(seen["ns"][ns], host(ns), "{ns}");
    }
    assert_ne!(seen["ns"]["mnt"], host("mnt"));
    Ok(())
}

fn a_namespace_is_joined_by_its_path(t: &Place) -> Result<()> {
    let other = t.sleeper()?;
    for (kind, ns) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("pid", "pid"),
        ("cgroup", "cgroup"),
    ] {
        let path = PathBuf::from(format!("/proc/{}/ns/{ns}", other.pid));
        let mut bundle = t.bundle().join(kind, &path);
        if kind == "uts" {
            bundle = bundle.remove("/hostname");
        }
        let seen = t.see(bundle)?;
        assert_eq!(
            seen["ns"][ns],
            fs::read_link(&path)?.display().to_string(),
            "{kind}"
        );
        if kind == "uts" {
            assert_eq!(seen["hostname"], "box");
        }
    }
    other.end()
}

/// As the containers of a pod.
fn all_namespaces_of_another_container_are_joined(t: &Place) -> Result<()> {
    let other = t.sleeper()?;
    let path = |ns: &str| PathBuf::from(format!("/proc/{}/ns/{ns}", other.pid));
    let bundle = [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("pid", "pid"),
    ];
    let bundle = bundle
        .iter()
        .fold(t.bundle(), |b, (kind, ns)| b.join(kind, &path(ns)));
    let seen = t.see(bundle.remove("/hostname"))?;
    for ns in ["net", "ipc", "uts", "pid"] {
        assert_eq!(
            seen["ns"][ns],
            fs::read_link(path(ns))?.display().to_string(),
            "{ns}"
        );
    }
    assert_ne!(
        seen["ns"]["mnt"],
        fs::read_link(path("mnt"))?.display().to_string()
    );
    assert_eq!(seen["ppid"], 0);
    assert_ne!(seen["pid"], 1);
    other.end()
}

fn a_path_that_is_no_namespace_is_an_error(t: &Place) -> Result<()> {
    for path in ["/etc/hostname", "/no/such/namespace"] {
        t.create_fails(
            &t.bundle()
                .args(&["true"])
                .join("network", &PathBuf::from(path)),
            &[],
        );
    }
    Ok(())
}

fn a_namespace_of_another_kind_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .join("network", &PathBuf::from("/proc/1/ns/ipc")),
        &[],
    );
    Ok(())
}

fn a_namespace_twice_is_an_error(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["true"])
        .push("/linux/namespaces", json!({ "type": "ipc" }));
    t.create_fails(&bundle, &["ipc"]);
    Ok(())
}

fn an_unknown_namespace_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .push("/linux/namespaces", json!({ "type": "astral" })),
        &["astral"],
    );
    Ok(())
}

fn a_time_namespace_has_its_offsets(t: &Place) -> Result<()> {
    let offsets =
        json!({ "boottime": { "secs": 100000, "nanosecs": 5 }, "monotonic": { "secs": 7 } });
    let seen = t.see(
        t.bundle()
            .namespace("time")
            .set("/linux/timeOffsets", offsets),
    )?;
    assert_ne!(seen["ns"]["time"], host("time"));
    let words: Vec<&str> = seen["time_offsets"]
        .as_str()
        .context("offsets")?
        .split_whitespace()
        .collect();
    assert_eq!(words, ["monotonic", "7", "0", "boottime", "100000", "5"]);
    let difference =
        seen["boot_seconds"].as_i64().context("seconds")? - crate::harness::kernel::boot_seconds();
    ensure!((99_000..=100_000).contains(&difference), "{difference}");
    Ok(())
}

fn a_new_time_namespace_may_have_no_offsets(t: &Place) -> Result<()> {
    assert_ne!(
        t.see(t.bundle().namespace("time"))?["ns"]["time"],
        host("time")
    );
    Ok(())
}

fn words(value: &Value) -> Vec<String> {
    value
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .map(String::from)
        .collect()
}

fn user_namespace_maps_are_set(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle().user_namespace()?)?;
    assert_ne!(seen["ns"]["user"], host("user"));
    assert_eq!(words(&seen["uid_map"]), ["0", "100000", "65536"]);
    assert_eq!(words(&seen["gid_map"]), ["0", "100000", "65536"]);
    assert_eq!(seen["uid"], "0 0 0 0");
    assert_eq!(seen["setgroups"], "allow");
    Ok(())
}

fn the_root_of_a_user_namespace_may_do_what_its_capabilities_say(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .user_namespace()?
        .caps(&["CAP_CHOWN", "CAP_SYS_ADMIN"]);
    let bundle = bundle.sh("touch /tmp/f && chown 5:6 /tmp/f && stat -c %u:%g /tmp/f; mount -t tmpfs x /tmp && echo mounted");
    let file = bundle.inside("tmp/f");
    assert_eq!(t.run(&bundle)?.text(), "5:6\nmounted");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        (file.metadata()?.uid(), file.metadata()?.gid()),
        (100_005, 100_006)
    );
    Ok(())
}

fn several_ranges_are_mapped(t: &Place) -> Result<()> {
    let map = json!([{ "containerID": 0, "hostID": 100000, "size": 1000 }, { "containerID": 1000, "hostID": 300000, "size": 5 }]);
    let bundle = t
        .bundle()
        .user_namespace()?
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    assert_eq!(
        words(&t.see(bundle)?["uid_map"]),
        ["0", "100000", "1000", "1000", "300000", "5"]
    );
    Ok(())
}

fn a_user_namespace_without_maps_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(&t.bundle().args(&["true"]).namespace("user"), &[]);
    Ok(())
}

fn a_user_namespace_is_joined_by_its_path(t: &Place) -> Result<()> {
    let base = t.bundle().user_namespace()?;
    let other = t.create(&base.clone().args(&["sleep", "1000"]))?;
    other.start()?;
    let path = PathBuf::from(format!("/proc/{}/ns/user", other.pid));
    let bundle = base
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .join("user", &path);
    let bundle = bundle.join(
        "network",
        &PathBuf::from(format!("/proc/{}/ns/net", other.pid)),
    );
    let seen = t.see(bundle)?;
    assert_eq!(
        seen["ns"]["user"],
        fs::read_link(&path)?.display().to_string()
    );
    assert_eq!(words(&seen["uid_map"]), ["0", "100000", "65536"]);
    other.end()
}

/// No process can be made in it (pid_namespaces(7)): poststop hooks are none of its processes.
fn a_pid_namespace_that_has_ended_holds_no_hook(t: &Place) -> Result<()> {
    let other = t.sleeper()?;
    let ended = fs::File::open(format!("/proc/{}/ns/pid", other.pid))?;
    other.end()?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), ended.as_raw_fd());
    let file = t.path("poststop");
    let bundle = t.bundle().args(&["true"]).join("pid", Path::new(&path));
    let bundle = bundle.hook("poststop", "poststop", &file, 0);
    t.create_fails(&bundle, &["make the container's first process", "clone3"]);
    let seen: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let own = fs::read_link("/proc/self/ns/pid")?.display().to_string();
    assert_eq!(seen["ns"]["pid"], own);
    Ok(())
}

fn host_name_and_domain_name_are_set(t: &Place) -> Result<()> {
    let seen = t.see(
        t.bundle()
            .set("/hostname", "h.example")
            .set("/domainname", "example.org"),
    )?;
    assert_eq!(
        (&seen["hostname"], &seen["domainname"]),
        (&json!("h.example"), &json!("example.org"))
    );
    Ok(())
}

fn a_host_name_without_a_uts_namespace_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle().args(&["true"]).without_namespace("uts"),
        &["hostname"],
    );
    Ok(())
}

fn sysctls_of_the_namespaces_are_set(t: &Place) -> Result<()> {
    let values = json!({ "kernel.msgmax": "12345", "net.ipv4.ip_forward": "1", "fs.mqueue.queues_max": "77" });
    let bundle = t.bundle().set("/linux/sysctl", values);
    let bundle =
        bundle.sh("cd /proc/sys; cat kernel/msgmax net/ipv4/ip_forward fs/mqueue/queues_max");
    assert_eq!(t.run(&bundle)?.text(), "12345\n1\n77");
    assert_ne!(
        fs::read_to_string("/proc/sys/fs/mqueue/queues_max")?.trim(),
        "77"
    );
    Ok(())
}

fn a_sysctl_may_be_spelled_with_slashes(t: &Place) -> Result<()> {
    let values = json!({ "net/ipv4/conf/lo/forwarding": "1", "kernel/shm_rmid_forced": "1" });
    let bundle = t
        .bundle()
        .set("/linux/sysctl", values)
        .sh("cd /proc/sys; cat net/ipv4/conf/lo/forwarding kernel/shm_rmid_forced");
    assert_eq!(t.run(&bundle)?.text(), "1\n1");
    Ok(())
}

fn a_sysctl_of_the_host_is_refused(t: &Place) -> Result<()> {
    for key in [
        "kernel.panic",
        "vm.swappiness",
        "kernel.core_pattern",
        "fs.file-max",
        "kernel.hostname",
        "made.up",
    ] {
        let before = fs::read_to_string("/proc/sys/kernel/panic")?;
        if key == "kernel.hostname" && machine().is("crun") {
            continue;
        }
        t.create_fails(
            &t.bundle()
                .args(&["true"])
                .set("/linux/sysctl", json!({ key: "1" })),
            &[key],
        );
        assert_eq!(fs::read_to_string("/proc/sys/kernel/panic")?, before);
    }
    Ok(())
}

fn a_network_sysctl_without_a_network_namespace_is_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]).without_namespace("network");
    t.create_fails(
        &bundle.set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "0" })),
        &["net.ipv4.ip_forward"],
    );
    Ok(())
}

fn loopback_is_up_in_a_new_network_namespace(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    assert!(
        seen["links"]
            .as_array()
            .context("links")?
            .contains(&json!("lo"))
    );
    assert_eq!(seen["lo"]["up"], true);
    Ok(())
}

/// A network namespace of the test's, by a process that holds it.
fn a_joined_network_namespace_is_left_as_it_is(t: &Place) -> Result<()> {
    let holder = t.create(
        &t.bundle()
            .caps(&["CAP_NET_ADMIN"])
            .sh("ip link set lo down; echo down; exec sleep 1000"),
    )?;
    holder.start()?;
    until("lo down", || holder.output() == "down\n");
    let seen = t.see(t.bundle().join(
        "network",
        &PathBuf::from(format!("/proc/{}/ns/net", holder.pid)),
    ))?;
    assert_eq!(seen["lo"]["up"], false);
    holder.end()
}

/// Nobody else's: other test programs may run beside this one. At most 15 bytes, with a peer's `p`.
fn device_name(t: &Place) -> String {
    t.fresh_id().replace("sct", "s")
}

/// A link in the host's namespace with a name of this test's own; deleted with the namespace it is moved to.
fn with_link(t: &Place, name: &str) -> Result<Bundle> {
    let made = t.host("ip", ["link", "add", name, "type", "dummy"])?;
    let made = if made.status == 0 {
        made
    } else {
        t.host(
            "ip",
            [
                "link",
                "add",
                name,
                "type",
                "veth",
                "peer",
                "name",
                &format!("{name}p"),
            ],
        )?
    };
    made.ok();
    t.host("ip", ["addr", "add", "10.99.7.1/24", "dev", name])?
        .ok();
    Ok(t.bundle()
        .set("/linux/netDevices", json!({ name: { "name": "eth7" } })))
}

/// Not destroyed with the namespace that it was moved to.
fn a_network_device_comes_back_from_a_container_that_fails(t: &Place) -> Result<()> {
    let name = device_name(t);
    let bundle = with_link(t, &name)?;
    t.create_fails(&bundle.clone().args(&["/no/such/program"]), &["/no/such"]);
    let (id, bundle) = (t.fresh_id(), bundle.args(&["true"]));
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let create = t.call([
        "create",
        "--bundle",
        &dir,
        "--pid-file",
        "/no/such/file",
        &id,
    ]);
    let shown = t.host("ip", ["-o", "addr", "show", "dev", &name]);
    let _ = t.host("ip", ["link", "del", &name]); // gone, if it was lost
    create?.fails(&["--pid-file"]);
    let shown = shown?.text();
    assert!(shown.contains("10.99.7.1/24"), "{shown}");
    t.nothing_is_left();
    Ok(())
}

fn a_network_device_is_moved_in_and_renamed(t: &Place) -> Result<()> {
    let name = device_name(t);
    let bundle = with_link(t, &name)?.sh("ip -o addr show dev eth7");
    let out = t.run(&bundle);
    let _ = t.host("ip", ["link", "del", &name]); // gone, if it was moved
    let shown = out?.text();
    assert!(
        shown.contains("10.99.7.1/24"),
        "its address is kept: {shown}"
    );
    Ok(())
}

fn a_missing_network_device_is_an_error(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["true"])
        .set("/linux/netDevices", json!({ "nosuchlink0": {} }));
    t.create_fails(&bundle, &["nosuchlink0"]);
    Ok(())
}

fn the_memory_policy_is_set(t: &Place) -> Result<()> {
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    let seen = t.see(t.bundle().set("/linux/memoryPolicy", policy))?;
    assert_eq!(seen["mempolicy"], json!([2 | 1 << 15, 1]));
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .set("/linux/memoryPolicy", json!({ "mode": "MPOL_MADE_UP" })),
        &["linux.memoryPolicy"],
    );
    Ok(())
}

fn system_v_queues_are_separate(t: &Place) -> Result<()> {
    assert_eq!(
        t.run(
            &t.bundle()
                .sh("/probe queue 4711; tail -n +2 /proc/sysvipc/msg | wc -l")
        )?
        .text(),
        "ok\n1"
    );
    assert_eq!(
        t.run(&t.bundle().sh("tail -n +2 /proc/sysvipc/msg | wc -l"))?
            .text(),
        "0"
    );
    Ok(())
}

fn pid_one_reaps_and_its_end_ends_all(t: &Place) -> Result<()> {
    let c = t.create(
        &t.bundle()
            .sh("sleep 1000 & sleep 1000 & echo up; read forever < /dev/zero & exec true"),
    )?;
    c.start()?;
    c.ended()?;
    until("an empty cgroup", || {
        c.cgroup_file("cgroup.procs").unwrap_or_default().is_empty()
    });
    c.delete()
}
