//! config.json's `devices` and the rules of `resources.devices`.

use crate::harness::kernel::mknod_char;
use crate::harness::place::until;
use crate::harness::{Bundle, Need, Place, Result, json};
use std::fs;
use std::os::unix::fs::symlink;

const CRUN_RULES: Need = Need::Beyond("crun", "1.8 wants CAP_SYS_RESOURCE for its device rules");

tests! {
    the_default_devices_are_there,
    the_default_symlinks_are_there,
    asked_for_devices_are_made,
    a_device_replaces_a_default_one [Need::Beyond("crun", "1.8 keeps the default"), Need::Beyond("runc", "1.1.5 keeps the default")],
    a_device_deep_in_a_directory_is_made,
    a_fifo_is_a_device_too,
    a_device_outside_dev_is_made_in_the_rootfs,
    a_device_of_an_unknown_type_is_an_error [Need::Beyond("crun", "1.8 takes it")],
    a_relative_device_path_is_an_error [Need::Beyond("crun", "it takes it")],
    the_default_devices_work,
    an_unlisted_device_is_denied [CRUN_RULES],
    a_listed_device_is_allowed [CRUN_RULES],
    a_rule_allows_only_its_access [CRUN_RULES],
    a_wildcard_rule_covers_every_minor [CRUN_RULES],
    the_last_rule_wins [CRUN_RULES],
    nodes_may_be_made_but_not_opened [CRUN_RULES],
    without_rules_the_defaults_still_hold [CRUN_RULES],
    an_update_replaces_the_rules [Need::Beyond("runc", "it never updates them"), CRUN_RULES],
    an_update_with_the_same_rules_leaves_them_alone [CRUN_RULES],
    rules_that_a_cgroup_had_before_do_not_hold [Need::Beyond("runc", "1.1.5 keeps them"), CRUN_RULES],
    devices_are_bound_in_a_user_namespace,
    a_device_of_the_host_is_bound_only_where_it_is_the_one_meant
        [Need::Beyond("runc", "1.1.5 binds what has the name"), Need::Beyond("crun", "1.8 binds what has the name")],
    what_the_image_has_in_a_devices_place_must_be_that_device
        [Need::Beyond("runc", "1.1.5 takes what is there"), Need::Beyond("crun", "1.8 takes what is there")],
    dev_may_be_a_directory_of_the_rootfs,
}

fn device(path: &str, kind: &str, major: i64, minor: i64) -> serde_json::Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o640, "uid": 1000, "gid": 5 })
}

fn the_default_devices_are_there(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    for (name, numbers) in [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ] {
        assert_eq!(seen["dev"][name], format!("c 0666 0:0 {numbers}"), "{name}");
    }
    Ok(())
}

fn the_default_symlinks_are_there(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        assert_eq!(seen["dev"][name], format!("-> {target}"), "{name}");
    }
    Ok(())
}

fn asked_for_devices_are_made(t: &Place) -> Result<()> {
    let bundle = t.bundle().set("/linux/devices", json!([
        device("/dev/fuse", "c", 10, 229), device("/dev/block", "b", 7, 0), device("/dev/unbuffered", "u", 1, 3),
        { "path": "/dev/plain", "type": "c", "major": 1, "minor": 3 },
    ]));
    let seen = t.see(bundle)?;
    assert_eq!(seen["dev"]["fuse"], "c 0640 1000:5 10:229");
    assert_eq!(seen["dev"]["block"], "b 0640 1000:5 7:0");
    assert_eq!(seen["dev"]["unbuffered"], "c 0640 1000:5 1:3");
    assert!(
        seen["dev"]["plain"]
            .as_str()
            .is_some_and(|d| d.ends_with("0:0 1:3")),
        "{}",
        seen["dev"]["plain"]
    );
    Ok(())
}

fn a_device_replaces_a_default_one(t: &Place) -> Result<()> {
    let seen = t.see(
        t.bundle()
            .set("/linux/devices", json!([device("/dev/tty", "c", 5, 0)])),
    )?;
    assert_eq!(seen["dev"]["tty"], "c 0640 1000:5 5:0");
    Ok(())
}

fn a_device_deep_in_a_directory_is_made(t: &Place) -> Result<()> {
    let bundle = t.bundle().set(
        "/linux/devices",
        json!([device("/dev/net/deep/tun", "c", 10, 200)]),
    );
    assert_eq!(
        t.run(&bundle.args(&["stat", "-c", "%F %t:%T", "/dev/net/deep/tun"]))?
            .text(),
        "character special file a:c8"
    );
    Ok(())
}

fn a_fifo_is_a_device_too(t: &Place) -> Result<()> {
    let bundle = t.bundle().set(
        "/linux/devices",
        json!([{ "path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1, "gid": 2 }]),
    );
    assert_eq!(t.see(bundle)?["dev"]["pipe"], "p 0600 1:2");
    Ok(())
}

fn a_device_outside_dev_is_made_in_the_rootfs(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/linux/devices", json!([device("/opt/null", "c", 1, 3)]));
    assert_eq!(
        t.run(&bundle.args(&["stat", "-c", "%F", "/opt/null"]))?
            .text(),
        "character special file"
    );
    assert!(!std::path::Path::new("/opt/null").exists());
    Ok(())
}

fn a_device_of_an_unknown_type_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .set("/linux/devices", json!([device("/dev/x", "q", 1, 3)])),
        &["q"],
    );
    Ok(())
}

fn a_relative_device_path_is_an_error(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["true"])
        .set("/linux/devices", json!([device("dev/relative", "c", 1, 3)]));
    if crate::harness::machine().is("runc") {
        t.run(&bundle)?; // 1.1.5 joins it to the rootfs
        return Ok(());
    }
    t.create_fails(&bundle, &["linux.devices[0]"]);
    Ok(())
}

fn the_default_devices_work(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("for d in null zero full random urandom; do /probe open /dev/$d; done; cat /dev/null; head -c 3 /dev/zero | wc -c; echo x > /dev/full");
    let out = t.run(&bundle)?;
    assert_eq!(out.stdout, "ok\nok\nok\nok\nok\n3\n");
    assert!(out.stderr.contains("No space left"), "{}", out.stderr);
    Ok(())
}

/// Rules after the default `deny all`; /dev/kmsg (1:11) and /dev/mem (1:1) as the devices that nobody allows by default.
fn with_rules(t: &Place, rules: serde_json::Value) -> Bundle {
    let nodes = json!([
        device("/dev/mykmsg", "c", 1, 11),
        device("/dev/mymem", "c", 1, 1),
        device("/dev/myzero", "c", 1, 5)
    ]);
    let mut bundle = t
        .bundle()
        .caps(&[
            "CAP_MKNOD",
            "CAP_DAC_OVERRIDE",
            "CAP_SYSLOG",
            "CAP_SYS_RAWIO",
        ])
        .set("/linux/devices", nodes);
    for rule in rules.as_array().into_iter().flatten() {
        bundle = bundle.push("/linux/resources/devices", rule.clone());
    }
    bundle
}

fn answers(t: &Place, bundle: Bundle, script: &str) -> Result<Vec<String>> {
    Ok(t.run(&bundle.sh(script))?
        .text()
        .lines()
        .map(String::from)
        .collect())
}

fn an_unlisted_device_is_denied(t: &Place) -> Result<()> {
    let found = answers(
        t,
        with_rules(t, json!([])),
        "/probe read /dev/mykmsg; /probe read /dev/mymem; /probe read /dev/myzero",
    )?;
    assert_eq!(found, ["EPERM", "EPERM", "ok"]);
    Ok(())
}

fn a_listed_device_is_allowed(t: &Place) -> Result<()> {
    let rules = json!([{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm" }]);
    assert_eq!(
        answers(
            t,
            with_rules(t, rules),
            "/probe read /dev/mykmsg; /probe read /dev/mymem"
        )?,
        ["ok", "EPERM"]
    );
    Ok(())
}

fn a_rule_allows_only_its_access(t: &Place) -> Result<()> {
    let rules = json!([{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]);
    assert_eq!(
        answers(
            t,
            with_rules(t, rules),
            "/probe read /dev/mykmsg; /probe open /dev/mykmsg"
        )?,
        ["ok", "EPERM"]
    );
    Ok(())
}

fn a_wildcard_rule_covers_every_minor(t: &Place) -> Result<()> {
    let rules = json!([{ "allow": true, "type": "c", "major": 1, "access": "r" }]);
    let found = answers(
        t,
        with_rules(t, rules),
        "/probe read /dev/mykmsg; /probe open /dev/mykmsg",
    )?;
    assert_eq!(found, ["ok", "EPERM"]);
    Ok(())
}

fn the_last_rule_wins(t: &Place) -> Result<()> {
    let rules = json!([
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" },
        { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" },
    ]);
    assert_eq!(
        answers(
            t,
            with_rules(t, rules),
            "/probe read /dev/mykmsg; /probe open /dev/mykmsg"
        )?,
        ["ok", "EPERM"]
    );
    Ok(())
}

fn nodes_may_be_made_but_not_opened(t: &Place) -> Result<()> {
    let found = answers(
        t,
        with_rules(t, json!([])),
        "/probe mknod /tmp/k 1 11; /probe read /tmp/k; /probe mknod /tmp/z 1 5; /probe open /tmp/z",
    )?;
    assert_eq!(found, ["ok", "EPERM", "ok", "ok"]);
    Ok(())
}

fn without_rules_the_defaults_still_hold(t: &Place) -> Result<()> {
    let bundle = t.bundle().remove("/linux/resources/devices");
    t.run(&bundle.sh("/probe open /dev/null && head -c1 /dev/zero"))?
        .ok();
    Ok(())
}

const KMSG: &str = r#"{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }"#;
const NOTHING: &str = r#"{ "allow": false, "access": "rwm" }"#;

/// Tries both devices whenever its fifo is written to.
fn trying(t: &Place) -> Result<crate::harness::Container<'_>> {
    let script = "mkfifo /tmp/f; exec 3<>/tmp/f; echo ready; while read x <&3; do \
                  echo $x $(/probe read /dev/mykmsg) $(/probe read /dev/myzero) $(rm -f /tmp/k; /probe mknod /tmp/k 1 11); done";
    let c = t.create(&with_rules(t, json!([])).sh(script))?;
    c.start()?;
    until("its fifo", || c.output().contains("ready"));
    Ok(c)
}

fn update(c: &crate::harness::Container, devices: &[&str]) -> Result<()> {
    let file = c.place.path("resources.json");
    fs::write(
        &file,
        format!(r#"{{ "devices": [{}] }}"#, devices.join(", ")),
    )?;
    let file = file.display().to_string();
    c.place.call(["update", "--resources", &file, &c.id])?.ok();
    Ok(())
}

/// What the container finds, asked for under a name of its own.
fn tried(c: &crate::harness::Container, name: &str) -> Result<String> {
    let fifo = format!("/proc/{}/root/tmp/f", c.pid);
    fs::write(fifo, format!("{name}\n"))?;
    let line = || {
        c.output()
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{name} ")).map(String::from))
    };
    until("its answer", || line().is_some());
    Ok(line().unwrap_or_default())
}

fn an_update_replaces_the_rules(t: &Place) -> Result<()> {
    let c = trying(t)?;
    assert_eq!(tried(&c, "first")?, "EPERM ok ok");
    update(&c, &[NOTHING, KMSG])?;
    assert_eq!(tried(&c, "second")?, "ok ok ok");
    update(&c, &[NOTHING])?;
    assert_eq!(tried(&c, "third")?, "EPERM ok ok");
    // Everything, and back.
    update(&c, &[r#"{ "allow": true, "access": "rwm" }"#])?;
    assert_eq!(tried(&c, "fourth")?, "ok ok ok");
    update(&c, &[NOTHING])?;
    assert_eq!(tried(&c, "fifth")?, "EPERM ok ok");
    c.end()
}

fn an_update_with_the_same_rules_leaves_them_alone(t: &Place) -> Result<()> {
    let c = trying(t)?;
    update(&c, &[NOTHING])?;
    assert_eq!(tried(&c, "first")?, "EPERM ok ok");
    update(&c, &[])?;
    assert_eq!(tried(&c, "second")?, "EPERM ok ok");
    c.end()
}

/// A cgroup made before and used by two containers, one after the other: programs add up in the kernel.
fn rules_that_a_cgroup_had_before_do_not_hold(t: &Place) -> Result<()> {
    let path = format!("{}/again", t.cgroup);
    let dir = format!("{}{path}", crate::harness::machine::CGROUPS);
    fs::create_dir(&dir)?;
    let keep = |bundle: Bundle| -> Result<String> {
        let bundle = bundle.set("/linux/cgroupsPath", path.clone());
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        // `run --keep` leaves the cgroup for the next.
        let dir = bundle.dir.display().to_string();
        let out = t.call(["run", "--keep", "--bundle", &dir, &id])?.text();
        let record = t.root.join(&id);
        fs::remove_dir_all(record)?;
        Ok(out)
    };
    let script = "/probe read /dev/mykmsg";
    assert_eq!(keep(with_rules(t, json!([])).sh(script))?, "EPERM");
    let allowed = json!([serde_json::from_str::<serde_json::Value>(KMSG)?]);
    assert_eq!(keep(with_rules(t, allowed).sh(script))?, "ok");
    assert_eq!(keep(with_rules(t, json!([])).sh(script))?, "EPERM");
    fs::remove_dir(dir)?;
    Ok(())
}

fn devices_are_bound_in_a_user_namespace(t: &Place) -> Result<()> {
    let bundle = t.bundle().user_namespace()?;
    let seen = t.see(bundle.clone())?;
    for (name, numbers) in [("null", "1:3"), ("zero", "1:5"), ("tty", "5:0")] {
        let found = seen["dev"][name].as_str().unwrap_or_default();
        assert!(
            found.starts_with("c 0666 ") && found.ends_with(numbers),
            "{name}: {found}"
        );
    }
    let nulls = seen["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|m| m["target"] == "/dev/null")
        .count();
    assert_eq!(
        nulls, 1,
        "mknod(2) of a device is never allowed in a user namespace"
    );
    t.run(&bundle.sh("echo x > /dev/null && head -c1 /dev/zero"))?
        .ok();
    Ok(())
}

fn a_device_of_the_host_is_bound_only_where_it_is_the_one_meant(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .user_namespace()?
        .args(&["true"])
        .set("/linux/devices", json!([device("/dev/full", "c", 1, 5)]));
    t.create_fails(&bundle, &["/dev/full"]);
    Ok(())
}

fn what_the_image_has_in_a_devices_place_must_be_that_device(t: &Place) -> Result<()> {
    for other in ["file", "other device", "that device"] {
        let bundle = with_dev_of_the_rootfs(t);
        let null = bundle.inside("dev/null");
        match other {
            "file" => fs::write(&null, "")?,
            "other device" => mknod_char(&null, 1, 5)?,
            _ => mknod_char(&null, 1, 3)?,
        }
        match other {
            "that device" => drop(t.run(&bundle.args(&["true"]))?.ok()),
            _ => drop(t.create_fails(&bundle.args(&["true"]), &["/dev/null"])),
        }
        fs::remove_file(&null)?;
    }
    Ok(())
}

fn with_dev_of_the_rootfs(t: &Place) -> Bundle {
    t.bundle().edit(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"))
    })
}

fn dev_may_be_a_directory_of_the_rootfs(t: &Place) -> Result<()> {
    let bundle = with_dev_of_the_rootfs(t);
    symlink("/stays", bundle.inside("dev/mine"))?;
    let bundle = bundle.sh("test -c /dev/null && test -L /dev/fd && readlink /dev/mine");
    assert_eq!(t.run(&bundle)?.text(), "/stays");
    let _ = fs::remove_dir_all(bundle.inside("dev")); // the nodes are the rootfs's now; the place removes the rest
    Ok(())
}
