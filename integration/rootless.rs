//! Containers of an ordinary user: with her own id alone or with a range of /etc/subuid, with a
//! delegated cgroup or none; and of one who is root only of a user namespace.

use crate::differential::compare;
use crate::harness::machine::{ANN, RANGE};
use crate::harness::{Bundle, Context, Need, Place, Result, Value, json, machine};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const RUNC: Need = Need::Program("runc");
const NEWUIDMAP: Need = Need::Program("newuidmap");
const RANGES: Need = Need::Path("/etc/subuid");
const OURS: Need = Need::Beyond("crun", "it decides in its own way what to go without");

tests! {
    a_user_without_a_cgroup_takes_a_container_from_create_to_delete,
    run_gives_output_and_exit_status,
    the_spec_for_a_user_runs_as_it_is,
    the_spec_for_a_user_is_that_of_runc [RUNC],
    one_id_is_mapped_without_help,
    a_range_of_ids_is_mapped_by_newuidmap [NEWUIDMAP, RANGES],
    without_newuidmap_a_range_is_refused [OURS],
    ids_of_others_are_refused [NEWUIDMAP, RANGES],
    a_user_needs_a_user_namespace,
    an_unmapped_group_as_a_mount_option_is_refused [OURS],
    devices_are_the_hosts_and_mqueue_is_its_own,
    a_new_sysfs_needs_a_network_namespace [OURS],
    offsets_of_time_are_set,
    another_container_of_the_user_is_joined,
    a_joined_pid_namespace_is_entered,
    a_lower_oom_score_is_refused [OURS],
    without_a_cgroup_none_is_shown [OURS],
    cve_2023_25809_a_users_cgroups_cannot_be_written_from_her_container [OURS],
    without_a_cgroup_what_needs_one_says_so [OURS],
    without_delegation_a_limit_is_refused [OURS],
    a_delegated_cgroup_is_used,
    a_process_joins_a_users_container,
    a_users_container_is_entered_before_it_is_started,
    a_range_of_ids_is_entered_before_it_is_started [NEWUIDMAP, RANGES],
    a_delegated_cgroup_is_limited [Need::Controller("pids")],
    told_that_it_is_not_rootless_nothing_is_skipped [OURS],
    records_are_kept_in_the_runtime_directory [OURS],
    without_a_runtime_directory_a_root_is_asked_for [OURS],
    root_of_a_user_namespace_needs_no_other,
    root_of_a_user_namespace_makes_another,
    what_a_user_sees_is_that_of_runc [RUNC],
    what_a_user_with_a_range_sees_is_that_of_runc [RUNC, NEWUIDMAP, RANGES],
    what_a_user_with_a_cgroup_sees_is_that_of_runc [RUNC],
}

/// A bundle of the user's, who calls from here on.
fn anns(t: &Place, delegated: bool) -> Result<Bundle> {
    let bundle = t.bundle().rootless()?;
    t.be_ann(delegated)?;
    Ok(bundle)
}

fn a_user_without_a_cgroup_takes_a_container_from_create_to_delete(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?;
    let c = t.create(&bundle.args(&["sleep", "1000"]))?;
    assert_eq!(c.status()?, "created");
    c.start()?;
    assert_eq!(c.status()?, "running");
    if !machine().is("crun") {
        let listed: Value = serde_json::from_str(&t.call(["list", "--format", "json"])?.text())?;
        assert_eq!(listed[0]["owner"], "ann");
    }
    c.kill("TERM")?.ok();
    c.kill("KILL")?.ok();
    c.ended()?;
    assert_eq!(c.status()?, "stopped");
    c.delete()?;
    let c = t.create(&t.bundle().rootless()?.args(&["sleep", "1000"]))?;
    c.start()?;
    t.call(["delete", "--force", &c.id])?.ok();
    t.nothing_is_left();
    Ok(())
}

fn run_gives_output_and_exit_status(t: &Place) -> Result<()> {
    let out = t.run(&anns(t, false)?.sh("echo out; echo err >&2; exit 7"))?;
    assert_eq!(
        (out.status, &*out.stdout, &*out.stderr),
        (7, "out\n", "err\n")
    );
    t.nothing_is_left();
    Ok(())
}

fn the_spec_for_a_user_runs_as_it_is(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?;
    let dir = bundle.dir.display().to_string();
    t.call(["spec", "--rootless", "--bundle", &dir])?.ok();
    let file = bundle.dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map; exit 3"]);
    fs::write(&file, config.to_string())?;
    let out = t.call(["run", "--bundle", &dir, &t.fresh_id()])?;
    let words: Vec<&str> = out.stdout.split_whitespace().collect();
    assert_eq!(
        (out.status, words),
        (3, vec!["0", "0", &ANN.to_string(), "1"]),
        "{}",
        out.stderr
    );
    Ok(())
}

fn the_spec_for_a_user_is_that_of_runc(t: &Place) -> Result<()> {
    anns(t, false)?;
    let mut all = Vec::new();
    for (name, runtime) in [
        ("ours", t.path("runtime")),
        ("theirs", "/usr/sbin/runc".into()),
    ] {
        let dir = t.path(name);
        fs::create_dir(&dir)?;
        std::os::unix::fs::chown(&dir, Some(ANN), Some(ANN))?;
        let dir = dir.display().to_string();
        t.other_runtime(&runtime, ["spec", "--rootless", "--bundle", &dir])
            .run()?
            .ok();
        let mut config: Value =
            serde_json::from_slice(&fs::read(PathBuf::from(dir).join("config.json"))?)?;
        // Theirs changed with the years: newer ones have no ambient set, and more to mask.
        config["ociVersion"] = json!("");
        config["hostname"] = json!("");
        config["process"]["capabilities"]["ambient"] = Value::Null;
        config["linux"]["maskedPaths"] = Value::Null;
        config["linux"]["namespaces"]
            .as_array_mut()
            .context("namespaces")?
            .sort_by_key(|ns| ns["type"].to_string());
        all.push(config);
    }
    assert_eq!(all[0], all[1]);
    Ok(())
}

fn one_id_is_mapped_without_help(t: &Place) -> Result<()> {
    let out = t.run(
        &anns(t, false)?
            .sh("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups"),
    )?;
    let text = out.text();
    let words: Vec<&str> = text.split_whitespace().collect();
    let ann = ANN.to_string();
    assert_eq!(words, ["0", "0", "0", &ann, "1", "0", &ann, "1", "deny"]);
    Ok(())
}

fn a_range_of_ids_is_mapped_by_newuidmap(t: &Place) -> Result<()> {
    let bundle = t.bundle().with_range()?;
    t.be_ann(false)?;
    let user = json!({ "uid": 5, "gid": 6 });
    let bundle = bundle.set("/process/user", user);
    // runc leaves an ordinary user's groups alone in any case.
    let bundle = match machine().is("sc-runtime") {
        true => bundle.set("/process/user/additionalGids", json!([7])),
        false => bundle,
    };
    let seen = t.see(bundle)?;
    assert_eq!(
        (&seen["uid"], &seen["gid"]),
        (&json!("5 5 5 5"), &json!("6 6 6 6"))
    );
    if machine().is("sc-runtime") {
        assert_eq!(seen["groups"], "7");
    }
    let out = t.run(
        &t.bundle()
            .with_range()?
            .caps(&["CAP_CHOWN"])
            .sh("touch /tmp/own; chown 5:6 /tmp/own"),
    )?;
    out.ok();
    let made = fs::read_dir(&t.dir)?
        .flatten()
        .find_map(|e| e.path().join("rootfs/tmp/own").metadata().ok())
        .context("the file")?;
    assert_eq!((made.uid(), made.gid()), (RANGE + 4, RANGE + 5));
    Ok(())
}

fn without_newuidmap_a_range_is_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().with_range()?.args(&["true"]);
    t.be_ann(false)?;
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let call = t
        .runtime(["create", "--bundle", &dir, &id])
        .env("PATH", "/nowhere");
    let words: &[&str] = match machine().is("runc") {
        true => &["create failed"],
        false => &["linux.uidMappings", "newuidmap", "install uidmap"],
    };
    let out = call.run()?;
    if machine().is("sc-runtime") {
        out.fails(words);
    } else {
        assert_ne!(out.status, 0);
    }
    t.nothing_is_left();
    Ok(())
}

fn ids_of_others_are_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().with_range()?.args(&["true"]);
    t.be_ann(false)?;
    let bundle = bundle.set("/linux/uidMappings/1/hostID", RANGE + 100_000);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let out = t.call(["create", "--bundle", &bundle.dir.display().to_string(), &id])?;
    assert_ne!(out.status, 0);
    if machine().is("sc-runtime") {
        out.fails(&["linux.uidMappings", "not allowed", "/etc/subuid"]);
    }
    t.nothing_is_left();
    Ok(())
}

fn a_user_needs_a_user_namespace(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.args(&["true"]).without_namespace("user");
    let bundle = bundle
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    t.create_fails(&bundle, &["rootless container requires user namespaces"]);
    Ok(())
}

fn an_unmapped_group_as_a_mount_option_is_refused(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.args(&["true"]);
    let mount =
        json!({ "destination": "/m", "type": "tmpfs", "source": "t", "options": ["gid=5"] });
    t.create_fails(
        &bundle.mount(mount),
        &["cannot specify gid=", "rootless container"],
    );
    Ok(())
}

fn devices_are_the_hosts_and_mqueue_is_its_own(t: &Place) -> Result<()> {
    let script = "echo lost > /dev/null; head -c 2 /dev/zero | wc -c; \
        mknod /dev/own c 1 3 2>/dev/null || echo refused; : > /dev/mqueue/q; ls /dev/mqueue; \
        grep -c ' /dev/null ' /proc/self/mountinfo";
    assert_eq!(
        t.run(&anns(t, false)?.sh(script))?.text(),
        "2\nrefused\nq\n1"
    );
    Ok(())
}

fn a_new_sysfs_needs_a_network_namespace(t: &Place) -> Result<()> {
    let sys = json!({ "destination": "/s", "type": "sysfs", "source": "sysfs", "options": ["ro"] });
    let bundle = anns(t, false)?.args(&["ls", "/s/class/net"]).mount(sys);
    t.create_fails(&bundle, &["/s", "operation not permitted"]);
    assert_eq!(t.run(&bundle.namespace("network"))?.text(), "lo");
    Ok(())
}

fn offsets_of_time_are_set(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?
        .namespace("time")
        .set(
            "/linux/timeOffsets",
            json!({ "boottime": { "secs": 86400000 } }),
        )
        .args(&["cat", "/proc/uptime"]);
    if !machine().is("sc-runtime") {
        return Ok(()); // older ones know no time namespaces
    }
    let uptime = t.run(&bundle)?.text();
    let seconds: f64 = uptime.split(' ').next().context("uptime")?.parse()?;
    assert!(seconds > 86_400_000.0, "{uptime}");
    Ok(())
}

fn another_container_of_the_user_is_joined(t: &Place) -> Result<()> {
    let first = t.create(
        &anns(t, false)?
            .namespace("network")
            .args(&["sleep", "1000"]),
    )?;
    first.start()?;
    let of = |ns: &str| PathBuf::from(format!("/proc/{}/ns/{ns}", first.pid));
    let bundle = t.bundle().rootless()?;
    let bundle = bundle
        .join("user", &of("user"))
        .join("network", &of("net"))
        .join("ipc", &of("ipc"))
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let inside = t
        .run(&bundle.args(&["readlink", "/proc/self/ns/net"]))?
        .text();
    assert_eq!(inside, fs::read_link(of("net"))?.display().to_string());
    first.end()
}

fn a_joined_pid_namespace_is_entered(t: &Place) -> Result<()> {
    let first = t.create(&anns(t, false)?.args(&["sleep", "1000"]))?;
    first.start()?;
    let of = |ns: &str| PathBuf::from(format!("/proc/{}/ns/{ns}", first.pid));
    let bundle = t.bundle().rootless()?;
    let bundle = bundle
        .join("user", &of("user"))
        .join("pid", &of("pid"))
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let seen = t
        .run(&bundle.sh("readlink /proc/self/ns/pid; cat /proc/1/comm"))?
        .text();
    let pid = fs::read_link(of("pid"))?.display().to_string();
    assert_eq!(seen, format!("{pid}\nsleep"));
    first.end()
}

fn a_lower_oom_score_is_refused(t: &Place) -> Result<()> {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")?
        .trim()
        .parse()?;
    let show = anns(t, false)?.args(&["cat", "/proc/self/oom_score_adj"]);
    let higher = t
        .run(&show.clone().set("/process/oomScoreAdj", own + 1))?
        .text();
    assert_eq!(higher, (own + 1).to_string());
    let lower = show.set("/process/oomScoreAdj", own - 1);
    t.create_fails(&lower, &["oom_score_adj"]);
    Ok(())
}

/// The caller's cgroup would be seen else, whose files may be the user's to write (CVE-2023-25809).
fn without_a_cgroup_none_is_shown(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.sh("ls /sys/fs/cgroup; touch /sys/fs/cgroup/x");
    for bundle in [bundle.clone(), bundle.without_namespace("cgroup")] {
        let out = t.run(&bundle)?;
        if machine().is("sc-runtime") {
            assert_eq!(out.stdout, "");
        }
        assert!(
            out.stderr.contains("Read-only file system"),
            "{}",
            out.stderr
        );
    }
    Ok(())
}

/// The attack of CVE-2023-25809, by a real user who owns a part of the host's cgroup tree: her container
/// may write to no cgroup but its own, made by her (`spec --rootless`) or by root of her namespace
/// (rootless podman and docker), with a cgroup namespace or without one.
fn cve_2023_25809_a_users_cgroups_cannot_be_written_from_her_container(t: &Place) -> Result<()> {
    let script = "find /sys -name cgroup.procs 2>/dev/null | while read f; do d=${f%/*}; \
        mkdir $d/escaped 2>/dev/null && echo made in $d; \
        (echo 0 > $f) 2>/dev/null && echo moved to $d; \
        case $d in *victim) (echo 1 > $d/cgroup.freeze) 2>/dev/null && echo froze $d;; esac; \
        done; echo tried";
    let bundle = anns(t, true)?.sh(script);
    let victim = PathBuf::from(format!("/sys/fs/cgroup{}/victim", t.cgroup));
    fs::create_dir(&victim)?;
    for file in ["", "cgroup.procs", "cgroup.freeze"] {
        std::os::unix::fs::chown(victim.join(file), Some(ANN), Some(ANN))?;
    }
    let inside = |bundle: &Bundle| {
        let bundle = bundle.clone().without_namespace("user");
        let bundle = bundle
            .remove("/linux/uidMappings")
            .remove("/linux/gidMappings");
        in_anns_namespace(t, &bundle)
    };
    let without = bundle.clone().without_namespace("cgroup");
    let writable = without.clone().edit(|config| {
        for mount in config["mounts"].as_array_mut().expect("mounts") {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
            }
        }
    });
    let all = [
        ("hers", t.run(&bundle)?),
        ("hers, of the host", t.run(&without)?),
        ("hers, writable", t.run(&writable)?),
        ("her root's", inside(&bundle)?),
        ("her root's, of the host", inside(&without)?),
        ("her root's, writable", inside(&writable)?),
    ];
    for (whose, out) in all {
        if whose.ends_with("writable") {
            continue; // its own cgroup is its own: what counts is below
        }
        assert!(
            out.status != 0 || out.stdout == "tried\n",
            "{whose}: {out:?}"
        );
    }
    let escaped = format!("find /sys/fs/cgroup{} -name escaped", t.cgroup);
    assert_eq!(t.host("sh", ["-c", &escaped])?.text(), "");
    let state = fs::read_to_string(victim.join("cgroup.freeze"))?;
    assert_eq!(
        (
            state.trim(),
            fs::read_dir(&victim)?
                .filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir()))
                .count()
        ),
        ("0", 0)
    );
    fs::remove_dir(&victim)?;
    Ok(())
}

fn without_a_cgroup_what_needs_one_says_so(t: &Place) -> Result<()> {
    let c = t.create(&anns(t, false)?.args(&["sleep", "1000"]))?;
    c.start()?;
    if machine().is("sc-runtime") {
        c.call("ps")?
            .fails(&["unable to get all container pids", "no cgroup"]);
        c.call("pause")?
            .fails(&["cannot pause container", "no cgroup"]);
        t.call(["update", "--pids-limit", "9", &c.id])?
            .fails(&["no cgroup"]);
        t.call(["kill", "--all", &c.id, "TERM"])?.ok();
    } else {
        for verb in ["ps", "pause"] {
            assert_ne!(c.call(verb)?.status, 0);
        }
    }
    c.call("resume")?.fails(&["container not paused"]);
    c.end()
}

fn without_delegation_a_limit_is_refused(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.args(&["true"]);
    let limited = bundle.clone().set("/linux/resources/pids/limit", 9);
    if machine().is("sc-runtime") {
        let words = [
            "rootless needs no limits + no cgrouppath",
            "delegate a cgroup",
        ];
        t.create_fails(&limited, &words);
    } else {
        t.create_fails(&limited, &[]);
    }
    let placed = bundle.set("/linux/cgroupsPath", "/not-anns/box");
    t.create_fails(&placed, &["ermission denied"]);
    Ok(())
}

fn a_delegated_cgroup_is_used(t: &Place) -> Result<()> {
    let c = t.create(&anns(t, true)?.args(&["sleep", "1000"]))?;
    c.start()?;
    assert_eq!(c.cgroup_file("cgroup.procs")?, c.pid.to_string());
    let pids = t.call(["ps", "--format", "json", &c.id])?.text();
    assert_eq!(pids, format!("[{}]", c.pid));
    c.call("pause")?.ok();
    assert_eq!(c.status()?, "paused");
    c.call("resume")?.ok();
    t.call(["kill", "--all", &c.id, "KILL"])?.ok();
    c.ended()?;
    c.delete()?;
    t.nothing_is_left();
    // Without a pid namespace of its own, the cgroup is what tells who belongs to it.
    let bundle = t.bundle().rootless()?.without_namespace("pid");
    // No new procfs without one either.
    let bundle = bundle.edit(|config| {
        let bind = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
        config["mounts"][0] = bind;
        for list in ["maskedPaths", "readonlyPaths"] {
            config["linux"].as_object_mut().expect("an object").remove(list);
        }
    });
    let c = t.create(&bundle.sh("sleep 1000 & exec sleep 1000"))?;
    c.start()?;
    t.call(["delete", "--force", &c.id])?.ok();
    t.nothing_is_left();
    Ok(())
}

fn a_process_joins_a_users_container(t: &Place) -> Result<()> {
    let c = t.create(&anns(t, false)?.args(&["sleep", "1000"]))?;
    c.start()?;
    let script = "id -u; readlink /proc/self/ns/pid; exit 6";
    let out = t.call(["exec", &c.id, "sh", "-c", script])?;
    let pid = fs::read_link(format!("/proc/{}/ns/pid", c.pid))?
        .display()
        .to_string();
    assert_eq!(
        (out.status, out.stdout),
        (6, format!("0\n{pid}\n")),
        "{}",
        out.stderr
    );
    c.end()
}

fn a_users_container_is_entered_before_it_is_started(t: &Place) -> Result<()> {
    entered_before_and_after_start(t, &anns(t, false)?.args(&["sleep", "1000"]))
}

fn a_range_of_ids_is_entered_before_it_is_started(t: &Place) -> Result<()> {
    let bundle = t.bundle().with_range()?;
    t.be_ann(false)?;
    let user = json!({ "uid": 1000, "gid": 1001 });
    let bundle = bundle.args(&["sleep", "1000"]).set("/process/user", user);
    entered_before_and_after_start(t, &bundle)
}

fn entered_before_and_after_start(t: &Place, bundle: &Bundle) -> Result<()> {
    let c = t.create(bundle)?;
    t.call(["exec", &c.id, "true"])?.ok();
    assert_eq!(c.status()?, "created");
    c.start()?;
    t.call(["exec", &c.id, "true"])?.ok();
    c.end()
}

fn a_delegated_cgroup_is_limited(t: &Place) -> Result<()> {
    let cgroup = format!("/sys/fs/cgroup{}", t.cgroup);
    for dir in [
        "/sys/fs/cgroup".into(),
        format!("/sys/fs/cgroup/{}", machine().cgroup),
    ] {
        fs::write(format!("{dir}/cgroup.subtree_control"), "+pids")?;
    }
    let bundle = anns(t, true)?.set("/linux/resources/pids/limit", 7);
    let out = t.run(&bundle.args(&["/probe", "fork", "20"]))?.text();
    assert!(out.starts_with("6 "), "{out}");
    assert!(fs::read_to_string(format!("{cgroup}/cgroup.subtree_control"))?.contains("pids"));
    Ok(())
}

fn told_that_it_is_not_rootless_nothing_is_skipped(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let out = t.call(["--rootless=false", "create", "--bundle", &dir, &id])?;
    out.fails(&["ermission denied"]);
    t.nothing_is_left();
    t.call(["--rootless=true", "run", "--bundle", &dir, &id])?
        .ok();
    Ok(())
}

fn records_are_kept_in_the_runtime_directory(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let call = |args: &[&str]| {
        crate::harness::command::Call::new(t, &t.path("runtime"), args)
            .env("XDG_RUNTIME_DIR", &t.dir)
            .run()
    };
    call(&["create", "--bundle", &dir, &id])?.ok();
    let root = t.path(&machine().flavour);
    // The sticky bit, lest systemd-tmpfiles clears it.
    assert_eq!(root.metadata()?.mode() & 0o7777, 0o1700);
    assert!(root.join(&id).is_dir());
    call(&["delete", "--force", &id])?.ok();
    Ok(())
}

fn without_a_runtime_directory_a_root_is_asked_for(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.args(&["true"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let call = crate::harness::command::Call::new(
        t,
        &t.path("runtime"),
        ["create", "--bundle", &dir, &id],
    );
    let words: &[&str] = match machine().is("runc") {
        true => &["ermission denied"],
        false => &["/run/sc-runtime", "--root", "XDG_RUNTIME_DIR"],
    };
    call.run()?.fails(words);
    Ok(())
}

/// What podman does for an ordinary user: it calls the runtime as root of its own user namespace.
fn in_anns_namespace(t: &Place, bundle: &Bundle) -> Result<crate::harness::Outcome> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let (root, dir) = (
        t.root.display().to_string(),
        bundle.dir.display().to_string(),
    );
    let runtime = t.path("runtime").display().to_string();
    let words = [
        "--user",
        "--map-root-user",
        "--mount",
        &runtime,
        "--root",
        &root,
    ];
    let words = words.into_iter().chain(["run", "--bundle", &dir, &id]);
    t.host("unshare", words)
}

fn root_of_a_user_namespace_needs_no_other(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?.without_namespace("user");
    let bundle = bundle
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let out = in_anns_namespace(t, &bundle.sh("id -u; hostname; exit 4"))?;
    assert_eq!(
        (out.status, &*out.stdout),
        (4, "0\nbox\n"),
        "{}",
        out.stderr
    );
    t.nothing_is_left();
    Ok(())
}

fn root_of_a_user_namespace_makes_another(t: &Place) -> Result<()> {
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let bundle = anns(t, false)?
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let out = in_anns_namespace(t, &bundle.sh("id -u; hostname; exit 4"))?;
    assert_eq!(
        (out.status, &*out.stdout),
        (4, "0\nbox\n"),
        "{}",
        out.stderr
    );
    Ok(())
}

fn what_a_user_sees_is_that_of_runc(t: &Place) -> Result<()> {
    let bundle = anns(t, false)?;
    compare(t, "runc", bundle)
}

fn what_a_user_with_a_range_sees_is_that_of_runc(t: &Place) -> Result<()> {
    let bundle = t.bundle().with_range()?;
    t.be_ann(false)?;
    let user = json!({ "uid": 1000, "gid": 1001 });
    compare(
        t,
        "runc",
        bundle.namespace("network").set("/process/user", user),
    )
}

fn what_a_user_with_a_cgroup_sees_is_that_of_runc(t: &Place) -> Result<()> {
    let bundle = anns(t, true)?;
    compare(t, "runc", bundle)
}
