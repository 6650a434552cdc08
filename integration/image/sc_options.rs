//! `sc run`: options that change what a container is given, seen from inside it. What this machine cannot enforce
//! has to be an error that names it.

use crate::place::Place;
use crate::sc::{assert_nothing, ok, refused, sc, with_image};
use crate::tests;
use anyhow::{Result, ensure};
use std::fs;

tests! {
    a_process_is_what_was_asked_for ["busybox"],
    capabilities_and_calls_go_together ["busybox"],
    a_privileged_container_is_not_confined ["busybox"],
    a_device_is_there_and_allowed_as_typed ["busybox"],
    a_seccomp_profile_of_dockers_is_understood ["busybox"],
    what_is_shared_with_the_host_is_the_hosts ["busybox"],
    what_is_shared_with_a_container_is_its_own ["busybox"],
    a_limit_is_kept_or_its_controller_is_named ["busybox"],
    a_mistake_in_an_option_is_told_by_its_name ["busybox"],
}

fn run(place: &Place, options: &[&str], command: &[&str]) -> Result<String> {
    ok(
        place,
        &[&["run", "--rm"], options, &["busybox"], command].concat(),
    )
}

fn shell(place: &Place, options: &[&str], script: &str) -> Result<String> {
    run(place, options, &["sh", "-c", script])
}

fn a_process_is_what_was_asked_for(place: &Place) -> Result<()> {
    with_image(place)?;
    fs::write(place.path("env"), "A=1\nB=2\n")?;
    for (options, script, expected) in [
        (
            &["-h", "me", "--domainname", "there"][..],
            "cat /etc/hostname /proc/sys/kernel/domainname",
            "me\nthere\n",
        ),
        (
            &["--group-add", "5", "--group-add", "9"],
            "id -G",
            "0 5 9\n",
        ),
        (
            &["--ulimit", "nofile=77:88", "--ulimit", "core=0"],
            "ulimit -n; ulimit -Hn; ulimit -c",
            "77\n88\n0\n",
        ),
        (
            &["--oom-score-adj", "500"],
            "cat /proc/self/oom_score_adj",
            "500\n",
        ),
        (
            &["--sysctl", "kernel.shmmax=12345"],
            "cat /proc/sys/kernel/shmmax",
            "12345\n",
        ),
        (&["--env-file", "env", "-e", "B=3"], "echo $A $B", "1 3\n"),
        (
            &["--security-opt", "no-new-privileges=false"],
            "grep NoNewPrivs /proc/self/status",
            "NoNewPrivs:\t0\n",
        ),
        (
            &["--security-opt", "systempaths=unconfined"],
            "mount | grep -c ' /proc/'",
            "0\n",
        ),
        (
            &["--annotation", "a=b", "--security-opt", "label=disable"],
            "echo x",
            "x\n",
        ),
    ] {
        let said = shell(place, options, &format!("{script} || true"))?;
        ensure!(said == expected, "{options:?}: {said:?}");
    }
    assert_nothing(place)
}

fn capabilities_and_calls_go_together(place: &Place) -> Result<()> {
    with_image(place)?;
    let bounding = "grep CapBnd /proc/self/status";
    let none = shell(place, &["--cap-drop", "ALL"], bounding)?;
    ensure!(none == "CapBnd:\t0000000000000000\n", "{none}");
    let one = shell(
        place,
        &["--cap-drop", "all", "--cap-add", "chown"],
        bounding,
    )?;
    ensure!(one == "CapBnd:\t0000000000000001\n", "{one}");
    // The capability alone would not do: the profile's call goes with it.
    let mount = "mount -t tmpfs t /tmp && echo mounted || echo refused";
    ensure!(shell(place, &[], mount)? == "refused\n");
    ensure!(shell(place, &["--cap-add", "SYS_ADMIN"], mount)? == "mounted\n");
    let as_joe = shell(
        place,
        &["-u", "joe", "--cap-add", "CHOWN"],
        "touch /tmp/x || true; grep CapEff /proc/self/status",
    )?;
    ensure!(as_joe == "CapEff:\t0000000000000001\n", "{as_joe}");
    assert_nothing(place)
}

fn a_privileged_container_is_not_confined(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; mount -t tmpfs t /tmp && echo mounted; mount | grep -c ' /proc/'; true";
    let said = shell(place, &["--privileged"], script)?;
    ensure!(
        said == "NoNewPrivs:\t0\nSeccomp:\t0\nmounted\n0\n",
        "{said}"
    );
    assert_nothing(place)
}

fn a_device_is_there_and_allowed_as_typed(place: &Place) -> Result<()> {
    with_image(place)?;
    // The kernel's log: no device that every container has.
    let open =
        "head -c0 /dev/log0 && echo read; echo x 2>/dev/null >/dev/log0 && echo written; true";
    ensure!(shell(place, &["--device", "/dev/kmsg:/dev/log0:w"], open)? == "written\n");
    let own = "ls /dev/kmsg";
    ensure!(
        sc(place, &["run", "--rm", "busybox", "sh", "-c", own])?
            .status
            .code()
            == Some(1)
    );
    let said = refused(
        place,
        &["run", "--rm", "--device", "/dev/nosuch", "busybox", "true"],
        125,
    )?;
    ensure!(said.starts_with("sc: --device \"/dev/nosuch\": "), "{said}");
    let said = refused(
        place,
        &[
            "run",
            "--rm",
            "--device-cgroup-rule",
            "c 1",
            "busybox",
            "true",
        ],
        125,
    )?;
    ensure!(
        said.starts_with("sc: --device-cgroup-rule \"c 1\": write TYPE"),
        "{said}"
    );
    shell(place, &["--device-cgroup-rule", "c 10:* rwm"], "true")?;
    assert_nothing(place)
}

fn a_seccomp_profile_of_dockers_is_understood(place: &Place) -> Result<()> {
    with_image(place)?;
    let profile = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "archMap": [], "syscalls": [
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": { "caps": ["CAP_SYS_ADMIN"] } }
    ] }"#;
    fs::write(place.path("profile.json"), profile)?;
    let file = format!("seccomp={}", place.path("profile.json").display());
    let script = "mkdir /tmp/x 2>/dev/null && echo made || echo refused";
    ensure!(shell(place, &["--security-opt", &file], script)? == "refused\n");
    ensure!(
        shell(
            place,
            &["--security-opt", &file, "--cap-add", "SYS_ADMIN"],
            script
        )? == "made\n"
    );
    ensure!(
        shell(
            place,
            &["--security-opt", "seccomp=unconfined"],
            "grep Seccomp: /proc/self/status"
        )? == "Seccomp:\t0\n"
    );
    fs::write(place.path("profile.json"), "{}")?;
    let said = refused(
        place,
        &["run", "--rm", "--security-opt", &file, "busybox", "true"],
        125,
    )?;
    ensure!(said.contains("defaultAction is missing"), "{said}");
    assert_nothing(place)
}

fn what_is_shared_with_the_host_is_the_hosts(place: &Place) -> Result<()> {
    with_image(place)?;
    for (option, kind) in [
        ("--pid", "pid"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--cgroupns", "cgroup"),
    ] {
        let path = format!("/proc/self/ns/{kind}");
        let own = fs::read_link(&path)?;
        let said = shell(place, &[option, "host"], &format!("ls -l {path}"))?;
        ensure!(said.contains(&*own.to_string_lossy()), "{option}: {said}");
        let said = shell(place, &[], &format!("ls -l {path}"))?;
        ensure!(!said.contains(&*own.to_string_lossy()), "{option}: {said}");
    }
    ensure!(
        shell(
            place,
            &["--ipc", "none"],
            "grep -c /dev/shm /proc/mounts; true"
        )? == "0\n"
    );
    ensure!(shell(place, &["--userns", "host"], "id -u")? == "0\n");
    assert_nothing(place)
}

fn what_is_shared_with_a_container_is_its_own(place: &Place) -> Result<()> {
    with_image(place)?;
    let wait = "echo mine >/dev/shm/x; sleep 1000";
    ok(
        place,
        &["run", "-d", "--name", "first", "busybox", "sh", "-c", wait],
    )?;
    ok(
        place,
        &[
            "create",
            "--name",
            "second",
            "--pid",
            "container:first",
            "--ipc",
            "container:first",
            "busybox",
            "sh",
            "-c",
            "cat /dev/shm/x; cat /proc/1/cmdline",
        ],
    )?;
    ok(
        place,
        &[
            "exec",
            "first",
            "sh",
            "-c",
            "until cat /dev/shm/x; do sleep 0.05; done",
        ],
    )?;
    let said = ok(place, &["start", "-a", "second"])?;
    ensure!(
        said.starts_with("mine\n") && said.ends_with("1000\0"),
        "{said:?}"
    );
    // Where the other is now, not where it was.
    ok(place, &["kill", "first"])?;
    ok(place, &["wait", "first"])?;
    let said = refused(place, &["start", "-a", "second"], 125)?;
    ensure!(
        said.contains("cannot join the pid namespace of container"),
        "{said}"
    );
    ok(place, &["start", "first"])?;
    ok(
        place,
        &[
            "exec",
            "first",
            "sh",
            "-c",
            "until cat /dev/shm/x; do sleep 0.05; done",
        ],
    )?;
    let said = ok(place, &["start", "-a", "second"])?;
    ensure!(said.starts_with("mine\n"), "{said:?}");
    ok(place, &["rm", "-f", "first", "second"])?;
    assert_nothing(place)
}

/// In a machine with cgroup v2 for all, each has its file; with v1, the controller is named.
fn a_limit_is_kept_or_its_controller_is_named(place: &Place) -> Result<()> {
    with_image(place)?;
    for (options, controller, file, expected) in [
        (
            &["--memory", "64m"][..],
            "memory",
            "memory.max",
            "67108864\n",
        ),
        (
            &["--memory", "64m", "--memory-reservation", "32m"],
            "memory",
            "memory.low",
            "33554432\n",
        ),
        (&["--pids-limit", "9"], "pids", "pids.max", "9\n"),
        (&["--cpus", "0.5"], "cpu", "cpu.max", "50000 100000\n"),
        (&["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "0\n"),
    ] {
        let path = format!("/sys/fs/cgroup/{file}");
        let output = sc(
            place,
            &[&["run", "--rm"], options, &["busybox", "cat", &path]].concat(),
        )?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let kept = output.status.success() && said == expected;
        let named = output.status.code() == Some(125)
            && error.contains(&format!("controller {controller:?} not available"));
        ensure!(kept || named, "{options:?}: {said:?} {error}");
    }
    assert_nothing(place)
}

fn a_mistake_in_an_option_is_told_by_its_name(place: &Place) -> Result<()> {
    with_image(place)?;
    for (options, expected) in [
        (
            &["--sysctl", "vm.swappiness=1"][..],
            "sc: config.json: linux.sysctl[\"vm.swappiness\"]: is not in a separate kernel",
        ),
        (&["--sysctl", "x"], "sc: --sysctl \"x\": write NAME=VALUE"),
        (
            &["--cap-add", "nosuch"],
            "sc: --cap-add nosuch: no capability",
        ),
        (
            &["--security-opt", "x=y"],
            "sc: --security-opt \"x=y\": known are",
        ),
        (
            &["--ulimit", "nofile"],
            "sc: --ulimit \"nofile\": write NAME=SOFT[:HARD]",
        ),
        (
            &["--userns", "keep-id"],
            "sc: --userns keep-id: is for ordinary users",
        ),
        (
            &["--pid", "x"],
            "sc: --pid \"x\": neither host nor container:CONTAINER",
        ),
        (
            &["--pid", "container:nosuch"],
            "sc: --pid: no such container: nosuch",
        ),
        (
            &["--memory", "5m"],
            "sc: Minimum memory limit allowed is 6MB",
        ),
        (&["--group-add", "nosuch"], "sc: unpack busybox into "),
        (
            &["--platform", "linux/s390x"],
            "sc: image with reference busybox was found but its platform (linux/",
        ),
    ] {
        let said = refused(
            place,
            &[&["run", "--rm"], options, &["busybox", "true"]].concat(),
            125,
        )?;
        ensure!(said.starts_with(expected), "{options:?}: {said}");
    }
    assert_nothing(place)
}
