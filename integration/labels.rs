//! config.json's labels: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.
//!
//! Most of it needs a kernel with the module in force, and the policies in integration/labels/:
//! `scripts/test-lsm` boots one with each.

use crate::harness::{Need, Place, Result, json, machine};
use std::fs;
use std::os::unix::fs::symlink;

tests! {
    a_profile_without_apparmor_is_refused [NO_APPARMOR],
    a_label_without_selinux_is_refused [NO_SELINUX],
    apparmor_confines_the_program [APPARMOR],
    apparmor_confines_it_without_no_new_privileges_too [APPARMOR],
    apparmor_leaves_an_unconfined_container_alone [APPARMOR],
    apparmor_without_that_profile_is_an_error [APPARMOR],
    apparmor_profiles_of_a_confined_runtime_are_stacked [APPARMOR],
    apparmor_confines_one_more_process_too [APPARMOR],
    cve_2019_16884_a_proc_of_the_image_swallows_no_profile [APPARMOR],
    cve_2023_28642_masks_and_profile_hold_together [APPARMOR],
    selinux_labels_the_process [SELINUX],
    selinux_labels_one_more_process_too [SELINUX],
    selinux_labels_new_file_systems_and_decides_by_it [SELINUX],
    selinux_labels_the_keyring [SELINUX],
    selinux_refuses_a_label_that_the_policy_does_not_know [SELINUX],
    cve_2025_52881_a_proc_of_the_image_swallows_no_label [SELINUX],
}

const APPARMOR: Need = Need::Path("/sys/kernel/security/apparmor/policy/profiles");
const SELINUX: Need = Need::Path("/sys/fs/selinux/enforce");
const NO_APPARMOR: Need = Need::NoPath("/sys/kernel/security/apparmor");
const NO_SELINUX: Need = Need::NoPath("/sys/fs/selinux");

const BOX: &str = "u:r:box";
const CONTENT: &str = "u:object_r:content";

fn a_profile_without_apparmor_is_refused(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/process/apparmorProfile", "sc-test")
        .args(&["true"]);
    if machine().is("sc-runtime") {
        t.create_fails(
            &bundle,
            &["process.apparmorProfile: AppArmor is not enabled"],
        );
    } else {
        t.create_fails(&bundle, &["apparmor"]);
    }
    Ok(())
}

fn a_label_without_selinux_is_refused(t: &Place) -> Result<()> {
    for pointer in ["/process/selinuxLabel", "/linux/mountLabel"] {
        let bundle = t.bundle().set(pointer, BOX).args(&["true"]);
        let words = match (machine().is("sc-runtime"), pointer) {
            (true, _) => {
                "selinux label is specified in config, but selinux is disabled or not supported"
            }
            (false, "/process/selinuxLabel") => "selinux",
            (false, _) => "",
        };
        t.create_fails(&bundle, &[words]);
    }
    Ok(())
}

const CONFINED: &str =
    "cat /proc/self/attr/apparmor/current; echo x > /tmp/allowed; echo y > /tmp/forbidden";

fn apparmor_confines_the_program(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh(CONFINED)
        .set("/process/apparmorProfile", "sc-test");
    let out = t.run(&bundle)?;
    assert_eq!(out.stdout, "sc-test (enforce)\n");
    assert!(out.stderr.contains("ermission denied"), "{out:?}");
    assert!(bundle.inside("tmp/allowed").exists());
    assert!(!bundle.inside("tmp/forbidden").exists());
    Ok(())
}

fn apparmor_confines_it_without_no_new_privileges_too(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh(CONFINED)
        .set("/process/apparmorProfile", "sc-test");
    for bundle in [
        bundle.clone().set("/process/noNewPrivileges", false),
        bundle
            .clone()
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 })),
        bundle.set(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["openat2"], "action": "SCMP_ACT_KILL" }] }),
        ),
    ] {
        let out = t.run(&bundle)?;
        assert_eq!(out.stdout, "sc-test (enforce)\n");
        assert!(out.stderr.contains("ermission denied"), "{out:?}");
    }
    Ok(())
}

fn apparmor_leaves_an_unconfined_container_alone(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["cat", "/proc/self/attr/apparmor/current"]);
    assert_eq!(t.run(&bundle)?.text(), "unconfined");
    let said = bundle.set("/process/apparmorProfile", "unconfined");
    assert_eq!(t.run(&said)?.text(), "unconfined");
    Ok(())
}

fn apparmor_without_that_profile_is_an_error(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/process/apparmorProfile", "sc-no-such")
        .args(&["true"]);
    t.create_fails(&bundle, &["pparmor", "sc-no-such"]);
    Ok(())
}

/// The kernel lets a process that has a profile and no_new_privs only add to it.
fn apparmor_profiles_of_a_confined_runtime_are_stacked(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["cat", "/proc/self/attr/apparmor/current"])
        .set("/process/apparmorProfile", "sc-test");
    for (no_new_privileges, expected) in [
        (true, "sc-test//&sc-test-runtime (enforce)"),
        (false, "sc-test (enforce)"),
    ] {
        let bundle = bundle
            .clone()
            .set("/process/noNewPrivileges", no_new_privileges);
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let command = format!(
            "echo exec sc-test-runtime > /proc/self/attr/apparmor/exec && exec {} --root {} run --bundle {} {id}",
            machine().runtime.display(),
            t.root.display(),
            bundle.dir.display(),
        );
        let out = t.host("bash", ["-c", &command])?.text();
        let sorted = |label: &str| {
            let mut names: Vec<_> = label
                .trim_end_matches(" (enforce)")
                .split("//&")
                .map(String::from)
                .collect();
            names.sort();
            names
        };
        assert_eq!(sorted(&out), sorted(expected));
    }
    Ok(())
}

fn apparmor_confines_one_more_process_too(t: &Place) -> Result<()> {
    let read = ["cat", "/proc/self/attr/apparmor/current"];
    let exec = |id: &str, flags: &[&str]| {
        let words = ["exec"].iter().chain(flags).copied();
        t.call(words.chain([id]).chain(read))
    };
    let plain = t.sleeper()?;
    assert_eq!(exec(&plain.id, &[])?.text(), "unconfined");
    let typed = exec(&plain.id, &["--apparmor", "sc-test"])?;
    assert_eq!(typed.text(), "sc-test (enforce)");
    let unknown = exec(&plain.id, &["--apparmor", "sc-no-such"])?;
    assert_eq!(unknown.status, 255, "{unknown:?}");
    assert!(unknown.stderr.contains("sc-no-such"), "{unknown:?}");
    plain.end()?;
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let c = t.create(&bundle.set("/process/apparmorProfile", "sc-test"))?;
    c.start()?;
    assert_eq!(exec(&c.id, &[])?.text(), "sc-test (enforce)");
    c.end()
}

/// The image's /proc holds files that would take the label; nothing is mounted there.
fn cve_2019_16884_a_proc_of_the_image_swallows_no_profile(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| m["destination"] != "/proc");
        })
        .args(&["sleep", "1000"])
        .set("/process/apparmorProfile", "sc-test");
    for who in ["self", "thread-self"] {
        let attr = bundle.inside(&format!("proc/{who}/attr/apparmor"));
        fs::create_dir_all(&attr)?;
        fs::write(attr.join("exec"), "untouched")?;
        symlink(
            "apparmor/exec",
            bundle.inside(&format!("proc/{who}/attr/exec")),
        )?;
    }
    let c = t.create(&bundle)?;
    c.start()?;
    crate::harness::place::until("its execve", || {
        fs::read_link(format!("/proc/{}/exe", c.pid)).is_ok_and(|p| p.ends_with("busybox"))
    });
    let label = fs::read_to_string(format!("/proc/{}/attr/apparmor/current", c.pid))?;
    assert_eq!(label, "sc-test (enforce)\n");
    assert_eq!(
        fs::read(bundle.inside("proc/self/attr/apparmor/exec"))?,
        b"untouched"
    );
    c.end()
}

fn cve_2023_28642_masks_and_profile_hold_together(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh("cat /proc/self/attr/apparmor/current; wc -c < /proc/uptime; echo 1 > /proc/sys/kernel/panic")
        .set("/linux/maskedPaths", json!(["/proc/uptime"]))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .set("/process/apparmorProfile", "sc-test");
    let out = t.run(&bundle)?;
    assert_eq!(out.stdout, "sc-test (enforce)\n0\n");
    assert!(out.stderr.contains("Read-only file system"), "{out:?}");
    Ok(())
}

fn selinux_labels_the_process(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh("tr -d '\\0' < /proc/self/attr/current; echo; tr -d '\\0' < /proc/self/attr/exec")
        .set("/process/selinuxLabel", BOX);
    assert_eq!(t.run(&bundle)?.text(), BOX);
    Ok(())
}

fn selinux_labels_one_more_process_too(t: &Place) -> Result<()> {
    let script = "tr -d '\\0' < /proc/self/attr/current";
    let plain = t.sleeper()?;
    let typed = t.call([
        "exec",
        "--process-label",
        BOX,
        &plain.id,
        "sh",
        "-c",
        script,
    ])?;
    assert_eq!(typed.text(), BOX);
    let unknown = t.call(["exec", "--process-label", "u:r:nobody", &plain.id, "true"])?;
    assert_eq!(unknown.status, 255, "{unknown:?}");
    assert!(unknown.stderr.contains("u:r:nobody"), "{unknown:?}");
    plain.end()?;
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let c = t.create(&bundle.set("/process/selinuxLabel", BOX))?;
    c.start()?;
    assert_eq!(t.call(["exec", &c.id, "sh", "-c", script])?.text(), BOX);
    c.end()
}

fn selinux_labels_new_file_systems_and_decides_by_it(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh("echo 1 > /dev/shm/x && echo written; echo 2 > /etc/secret; grep -c context=u:object_r:content /proc/mounts")
        .set("/linux/maskedPaths", json!(["/sys/firmware"]))
        .set("/process/selinuxLabel", BOX)
        .set("/linux/mountLabel", CONTENT);
    let secret = bundle.inside("etc/secret");
    fs::write(&secret, "1")?;
    let path = secret.display().to_string();
    t.host("chcon", ["u:object_r:secret", &path])?.ok();
    let out = t.run(&bundle)?;
    // /dev, /dev/pts, /dev/shm, and the mask.
    assert_eq!(out.stdout, "written\n4\n", "{out:?}");
    assert!(out.stderr.contains("ermission denied"), "{out:?}");
    assert_eq!(fs::read(&secret)?, b"1");
    let c = t.create(&bundle.args(&["sleep", "1000"]))?;
    let queues = format!("/proc/{}/root/dev/mqueue", c.pid);
    let seen = t.host("ls", ["-Zd", &queues])?.text();
    assert!(seen.starts_with(CONTENT), "{seen}");
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

fn selinux_labels_the_keyring(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["/probe", "key-label"])
        .set("/process/selinuxLabel", BOX);
    assert_eq!(t.run(&bundle)?.text(), BOX);
    Ok(())
}

fn selinux_refuses_a_label_that_the_policy_does_not_know(t: &Place) -> Result<()> {
    for pointer in ["/process/selinuxLabel", "/linux/mountLabel"] {
        let bundle = t.bundle().set(pointer, "u:r:nobody").args(&["true"]);
        t.create_fails(&bundle, &["u:r:nobody"]);
    }
    Ok(())
}

fn cve_2025_52881_a_proc_of_the_image_swallows_no_label(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| m["destination"] != "/proc");
        })
        .args(&["sleep", "1000"])
        .set("/process/selinuxLabel", BOX);
    let victim = t.path("victim");
    fs::write(&victim, "untouched")?;
    for who in ["self", "thread-self"] {
        fs::create_dir_all(bundle.inside(&format!("proc/{who}/attr")))?;
        symlink(&victim, bundle.inside(&format!("proc/{who}/attr/exec")))?;
    }
    let c = t.create(&bundle)?;
    c.start()?;
    crate::harness::place::until("its execve", || {
        fs::read_link(format!("/proc/{}/exe", c.pid)).is_ok_and(|p| p.ends_with("busybox"))
    });
    let label = fs::read_to_string(format!("/proc/{}/attr/current", c.pid))?;
    assert_eq!(label.trim_end_matches(['\0', '\n']), BOX);
    assert_eq!(fs::read(&victim)?, b"untouched");
    c.end()
}
