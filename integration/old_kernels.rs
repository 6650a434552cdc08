//! Kernels that lack a system call which safety rests on: what is done instead is as safe, or the
//! runtime says which call it misses, and has made nothing.

use crate::harness::{Bundle, Need, Outcome, Place, Result, machine};
use std::fs;
use std::os::unix::fs::symlink;

tests! {
    without_openat2_nothing_is_made [OURS_R, OURS_C],
    without_clone3_nothing_is_made [OURS_R, OURS_C],
    without_mount_setattr_nothing_is_made [OURS_R, OURS_C],
    without_close_range_nothing_is_made [OURS_R, OURS_C],
    without_the_mount_api_nothing_is_made [OURS_R, OURS_C],
    without_pidfds_no_container_is_harmed [OURS_R, OURS_C],
    without_pidfd_open_an_agent_is_an_error [OURS_R, OURS_C],
    without_execveat_the_runtime_is_not_exposed [OURS_R, OURS_C],
}

/// They have fallbacks of their own, which are not ours to judge.
const OURS_R: Need = Need::Beyond("runc", "it does without, for kernels of its own choice");
const OURS_C: Need = Need::Beyond("crun", "it does without, for kernels of its own choice");

fn run_without(t: &Place, bundle: &Bundle, numbers: &[libc::c_long]) -> Result<Outcome> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    t.runtime(["run", "--bundle", &dir, &id])
        .without(numbers)
        .run()
}

/// Kinds of container that take different ways through the runtime. The image tries to lead a mount
/// out of it: whoever does without openat2(2) must not follow.
fn kinds(t: &Place) -> Result<Vec<Bundle>> {
    let outside = t.path("outside");
    fs::create_dir_all(&outside)?;
    let volume = t.path("volume");
    fs::create_dir_all(&volume)?;
    let evil = t.bundle().bind(&volume, "/way/out", &["bind", "ro"]);
    symlink(&outside, evil.inside("way"))?;
    let all = vec![
        t.bundle(),
        evil,
        t.bundle().user_namespace()?,
        t.bundle().set("/root/readonly", true),
        t.bundle().set("/linux/sysctl/net.ipv4.ip_forward", "1"),
    ];
    Ok(all.into_iter().map(|b| b.args(&["echo", "ran"])).collect())
}

/// Each kind of container either works, or is refused by a line that names the call; in no case is
/// anything left or made outside.
fn works_or_says_why(t: &Place, name: &str, numbers: &[libc::c_long]) -> Result<()> {
    for bundle in kinds(t)? {
        let out = run_without(t, &bundle, numbers)?;
        if out.status == 0 {
            assert_eq!(out.stdout, "ran\n");
        } else {
            out.fails(&[name, "unction not implemented"]);
        }
        t.nothing_is_left();
        assert_eq!(fs::read_dir(t.path("outside"))?.count(), 0, "{name}");
    }
    Ok(())
}

fn without_openat2_nothing_is_made(t: &Place) -> Result<()> {
    works_or_says_why(t, "openat2", &[libc::SYS_openat2])
}

fn without_clone3_nothing_is_made(t: &Place) -> Result<()> {
    works_or_says_why(t, "clone3", &[libc::SYS_clone3])
}

fn without_mount_setattr_nothing_is_made(t: &Place) -> Result<()> {
    works_or_says_why(t, "mount_setattr", &[libc::SYS_mount_setattr])
}

fn without_close_range_nothing_is_made(t: &Place) -> Result<()> {
    works_or_says_why(t, "close_range", &[libc::SYS_close_range])
}

fn without_the_mount_api_nothing_is_made(t: &Place) -> Result<()> {
    for (name, number) in [
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
    ] {
        works_or_says_why(t, name, &[number])?;
    }
    Ok(())
}

/// A number is never signalled: without pidfd_open(2) a container can be made, but not killed.
fn without_pidfds_no_container_is_harmed(t: &Place) -> Result<()> {
    let numbers = [libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal];
    works_or_says_why(t, "pidfd", &numbers)?;
    let c = t.sleeper()?;
    for verb in [
        &["kill", c.id.as_str(), "KILL"][..],
        &["delete", "--force", &c.id],
    ] {
        let out = t.runtime(verb).without(&numbers).run()?;
        out.fails(&["pidfd", "function not implemented"]);
        assert_eq!(c.status()?, "running");
    }
    c.end()
}

fn without_pidfd_open_an_agent_is_an_error(t: &Place) -> Result<()> {
    let profile = crate::harness::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
    });
    let bundle = t.bundle().set("/linux/seccomp", profile).args(&["true"]);
    let out = run_without(t, &bundle, &[libc::SYS_pidfd_open])?;
    out.fails(&["linux.seccomp", "pidfd_open", "function not implemented"]);
    t.nothing_is_left();
    Ok(())
}

/// The program that is executed again is a copy nobody can write, made one way or another.
fn without_execveat_the_runtime_is_not_exposed(t: &Place) -> Result<()> {
    let before = fs::read(&machine().runtime)?;
    for (name, number) in [
        ("execveat", libc::SYS_execveat),
        ("open_tree", libc::SYS_open_tree),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("memfd_create", libc::SYS_memfd_create),
    ] {
        let bundle = t.bundle().args(&["echo", "ran"]);
        let out = run_without(t, &bundle, &[number])?;
        if out.status != 0 {
            out.fails(&[name]);
        }
        t.nothing_is_left();
    }
    assert!(fs::read(&machine().runtime)? == before);
    Ok(())
}
