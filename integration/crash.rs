//! The runtime killed, its init killed, or a system call refused, at every point of `create`.
//! `delete --force` must then clear everything away, and a failure must undo itself.

use crate::harness::machine::machine;
use crate::harness::tracer::{Deed, Victim, at_call};
use crate::harness::{Bundle, Need, Place, Result, Value, json, kernel};
use std::fs;
use std::path::Path;
use std::time::Instant;

const GO: Need = Need::Beyond(
    "runc",
    "threads make its system calls uncountable, and it keeps no record before the first process",
);
const CRUN: Need = Need::Beyond("crun", "1.8 leaves its cgroup, or its process, behind");

tests! {
    the_runtime_killed_at_any_call_of_create_leaves_what_delete_force_removes [GO, CRUN],
    the_runtime_killed_at_any_call_of_start_leaves_what_delete_force_removes [GO, CRUN],
    the_runtime_killed_at_any_call_of_delete_leaves_what_delete_force_removes [GO, CRUN],
    init_killed_at_any_of_its_calls_makes_create_fail_cleanly [GO, CRUN],
    a_call_refused_to_init_makes_create_fail_cleanly_or_succeed [GO, CRUN],
    a_call_refused_to_the_runtime_makes_create_fail_cleanly_or_succeed [GO, CRUN],
    all_of_it_holds_with_id_mapped_mounts [GO, CRUN],
    a_user_without_a_cgroup_has_nothing_left_of_a_killed_create [GO, CRUN],
    a_helper_killed_while_namespaces_are_joined_makes_create_fail_cleanly [GO, CRUN],
    all_of_it_holds_in_a_scope_of_systemd [Need::Systemd, GO, CRUN],
    an_init_killed_between_create_and_start_is_stopped,
    a_killed_run_leaves_a_container_that_delete_force_removes,
}

/// How many calls to go on by: all of them when asked for and on a fast machine, else a sample that
/// begins at another place each time, so that many runs cover them all.
fn steps() -> (usize, usize) {
    let stride = match (
        std::env::var_os("SC_THOROUGH").is_some(),
        machine().in_guest,
    ) {
        (true, _) => 1,
        (false, false) => 3,
        (false, true) => 29,
    };
    (1 + std::process::id() as usize % stride, stride)
}

struct Attempt {
    status: i32,
    stderr: String,
    /// "nth call (number 257)"
    place: String,
    happened: bool,
    id: String,
}

fn attempt(
    t: &Place,
    victim: Victim,
    nth: usize,
    deed: Deed,
    counts: fn(i64) -> bool,
) -> Result<Attempt> {
    // One root file system for all attempts of a test.
    let dir = t.path("bundle-of-all");
    let bundle = if dir.exists() {
        Bundle::with_rootfs_made(&dir)
    } else {
        Bundle::new(&dir)?
    }
    .args(&["true"]);
    let mapped = t.path("mapped");
    let bundle = match mapped.exists() {
        true => bundle.mount(id_mapped(&mapped)),
        false => bundle,
    };
    let joined = t.path("joined");
    let bundle = match joined.exists() {
        true => bundle.join("user", &fs::read_link(&joined)?),
        false => bundle,
    };
    let bundle = match t.path("cgroupless").exists() {
        true => bundle.rootless()?,
        false => bundle,
    };
    let (options, bundle) = match t.path("scoped").exists() {
        true => (
            &["--systemd-cgroup"][..],
            bundle.set("/linux/cgroupsPath", Value::Null),
        ),
        false => (&[][..], bundle),
    };
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = dir.display().to_string();
    let call = t.runtime([options, &["create", "--bundle", &dir, &id]].concat());
    let traced = at_call(call, victim, nth, deed, counts)?;
    let place = format!(
        "{deed:?} at call {nth} of {victim:?} (system call {:?})",
        traced.at
    );
    Ok(Attempt {
        status: traced.outcome.status,
        stderr: traced.outcome.stderr,
        place,
        happened: traced.at.is_some(),
        id,
    })
}

/// A mount for which the runtime makes two processes more. A test that makes the directory has it in
/// all its attempts.
fn id_mapped(source: &Path) -> Value {
    let ids = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    json!({ "destination": "/data", "type": "bind", "source": source, "options": ["bind", "idmap"],
            "uidMappings": ids, "gidMappings": ids })
}

fn delete_force_clears(t: &Place, a: &Attempt) -> Result<()> {
    let out = t.call(["delete", "--force", &a.id])?;
    assert_eq!(out.status, 0, "{}: delete --force: {}", a.place, out.stderr);
    nothing_left(t, &a.place);
    Ok(())
}

#[track_caller]
fn nothing_left(t: &Place, place: &str) {
    let left = t.left_soon();
    assert!(
        left.is_empty(),
        "{place}: left behind:\n  {}",
        left.join("\n  ")
    );
}

fn any(_: i64) -> bool {
    true
}

fn the_runtime_killed_at_any_call_of_create_leaves_what_delete_force_removes(
    t: &Place,
) -> Result<()> {
    let (first, stride) = steps();
    let begun = Instant::now();
    for nth in (first..).step_by(stride) {
        let a = attempt(t, Victim::Parent, nth, Deed::Kill, any)?;
        delete_force_clears(t, &a)?;
        if !a.happened {
            eprintln!(
                "create: killed at calls {first}, {}.. of {}, in {:?}",
                first + stride,
                nth - stride,
                begun.elapsed()
            );
            assert_eq!(a.status, 0, "{}", a.stderr);
            return Ok(());
        }
        assert_eq!(a.status, 137, "{}", a.place);
    }
    Ok(())
}

fn all_of_it_holds_with_id_mapped_mounts(t: &Place) -> Result<()> {
    fs::create_dir(t.path("mapped"))?;
    the_runtime_killed_at_any_call_of_create_leaves_what_delete_force_removes(t)?;
    init_killed_at_any_of_its_calls_makes_create_fail_cleanly(t)?;
    a_call_refused_to_init_makes_create_fail_cleanly_or_succeed(t)?;
    a_call_refused_to_the_runtime_makes_create_fail_cleanly_or_succeed(t)
}

/// No cgroup tells which processes are the container's: its record must.
fn a_user_without_a_cgroup_has_nothing_left_of_a_killed_create(t: &Place) -> Result<()> {
    fs::create_dir(t.path("cgroupless"))?;
    t.be_ann(false)?;
    the_runtime_killed_at_any_call_of_create_leaves_what_delete_force_removes(t)
}

/// A process that joins makes init, and can die between that and its word about it: init waits then.
fn a_helper_killed_while_namespaces_are_joined_makes_create_fail_cleanly(t: &Place) -> Result<()> {
    let other = t.create(&t.bundle().user_namespace()?.args(&["sleep", "1000"]))?;
    std::os::unix::fs::symlink(format!("/proc/{}/ns/user", other.pid), t.path("joined"))?;
    // All that the joiner does, and not only a sample of it: its calls are few and come first.
    for nth in 1..60 {
        let a = attempt(t, Victim::Children, nth, Deed::Kill, any)?;
        assert!(a.happened, "{}", a.place);
        match a.status {
            // It had said its word, and was about to end.
            0 => drop(t.call(["delete", "--force", &a.id])?.ok()),
            1 => assert!(!a.stderr.contains("panicked"), "{}: {}", a.place, a.stderr),
            status => panic!("{}: status {status}: {}", a.place, a.stderr),
        }
        assert_eq!(t.recorded(), [other.id.as_str()], "{}", a.place);
    }
    other.end()?;
    t.nothing_is_left();
    Ok(())
}

fn all_of_it_holds_in_a_scope_of_systemd(t: &Place) -> Result<()> {
    fs::write(t.path("scoped"), "")?;
    the_runtime_killed_at_any_call_of_create_leaves_what_delete_force_removes(t)?;
    init_killed_at_any_of_its_calls_makes_create_fail_cleanly(t)?;
    a_call_refused_to_init_makes_create_fail_cleanly_or_succeed(t)?;
    a_call_refused_to_the_runtime_makes_create_fail_cleanly_or_succeed(t)?;
    let units = t.host(
        "systemctl",
        [
            "list-units",
            "--all",
            "--no-legend",
            "--plain",
            "runc-*.scope",
        ],
    )?;
    let ours = units
        .stdout
        .lines()
        .filter(|unit| unit.contains(&t.fresh_id()[..6]));
    assert_eq!(ours.collect::<Vec<_>>(), [""; 0]);
    Ok(())
}

/// `start` of a container made before: either it runs or it does not, and both can be deleted.
fn the_runtime_killed_at_any_call_of_start_leaves_what_delete_force_removes(
    t: &Place,
) -> Result<()> {
    killed_in(t, &["start"], 2)
}

fn the_runtime_killed_at_any_call_of_delete_leaves_what_delete_force_removes(
    t: &Place,
) -> Result<()> {
    killed_in(t, &["delete", "--force"], 2)
}

fn killed_in(t: &Place, words: &[&str], thinner: usize) -> Result<()> {
    let (first, stride) = steps();
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for nth in (first..).step_by(stride * thinner) {
        let c = t.create(&bundle)?;
        let call = t.runtime([words, &[&c.id]].concat());
        let traced = at_call(call, Victim::Parent, nth, Deed::Kill, any)?;
        let place = format!(
            "killed at call {nth} of {words:?} (system call {:?})",
            traced.at
        );
        if t.recorded().contains(&c.id) {
            let state = t.call(["state", &c.id])?;
            let known = ["created", "running", "stopped"]
                .iter()
                .any(|status| state.stdout.contains(status));
            // A delete that had gone far enough has made it unknown, though something of it is left.
            let gone = state.status == 1 && state.stderr.contains("does not exist");
            assert!(state.status == 0 && known || gone, "{place}: {state:?}");
        }
        let out = t.call(["delete", "--force", &c.id])?;
        assert_eq!(out.status, 0, "{place}: delete --force: {}", out.stderr);
        nothing_left(t, &place);
        if traced.at.is_none() {
            traced.outcome.ok();
            return Ok(());
        }
    }
    Ok(())
}

/// Status 1, one line without the marks of a panic, and nothing left, without `delete`.
fn failed_cleanly(t: &Place, a: &Attempt) {
    assert_eq!(a.status, 1, "{}: {}", a.place, a.stderr);
    assert_eq!(
        a.stderr.trim_end().lines().count(),
        1,
        "{}: {}",
        a.place,
        a.stderr
    );
    assert!(!a.stderr.contains("panicked"), "{}: {}", a.place, a.stderr);
    nothing_left(t, &a.place);
}

fn init_killed_at_any_of_its_calls_makes_create_fail_cleanly(t: &Place) -> Result<()> {
    let (first, stride) = steps();
    for nth in (first..).step_by(stride) {
        let a = attempt(t, Victim::Children, nth, Deed::Kill, any)?;
        if !a.happened {
            assert_eq!(a.status, 0, "{}: {}", a.place, a.stderr);
            return delete_force_clears(t, &a);
        }
        if a.status == 0 {
            // The last calls of init's are those it waits with: by then create has succeeded.
            delete_force_clears(t, &a)?;
        } else {
            failed_cleanly(t, &a);
        }
    }
    Ok(())
}

/// Calls whose failure is no failure of a step: memory, waiting, and the end itself.
fn can_be_refused(number: i64) -> bool {
    let not = [
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_brk,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigreturn,
        libc::SYS_futex,
        libc::SYS_execve,
        libc::SYS_close,
        libc::SYS_sched_yield,
        libc::SYS_arch_prctl,
        libc::SYS_set_tid_address,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_wait4,
        libc::SYS_waitid,
        // Cannot fail (umask(2)); nix panics if it does.
        libc::SYS_umask,
        // Refused only by a policy; Rust panics without a seed for its maps.
        libc::SYS_getrandom,
    ];
    !not.contains(&number)
}

fn refuse_each(t: &Place, victim: Victim) -> Result<()> {
    let (first, stride) = steps();
    let errnos = [
        libc::EIO,
        libc::ENOMEM,
        libc::EPERM,
        libc::EINVAL,
        libc::ENOSPC,
    ];
    for (round, nth) in (first..).step_by(stride).enumerate() {
        let a = attempt(
            t,
            victim,
            nth,
            Deed::Refuse(errnos[round % errnos.len()]),
            can_be_refused,
        )?;
        match a.status {
            0 => delete_force_clears(t, &a)?,
            _ => failed_cleanly(t, &a),
        }
        if !a.happened {
            return Ok(());
        }
    }
    Ok(())
}

fn a_call_refused_to_init_makes_create_fail_cleanly_or_succeed(t: &Place) -> Result<()> {
    refuse_each(t, Victim::Children)
}

/// Cleaning up makes calls too, and a refused rmdir may leave its directory: what is asked is that the
/// failure is told, and that `delete --force` can finish the work.
fn a_call_refused_to_the_runtime_makes_create_fail_cleanly_or_succeed(t: &Place) -> Result<()> {
    let (first, stride) = steps();
    for nth in (first..).step_by(stride) {
        let a = attempt(
            t,
            Victim::Parent,
            nth,
            Deed::Refuse(libc::EIO),
            can_be_refused,
        )?;
        assert!(!a.stderr.contains("panicked"), "{}: {}", a.place, a.stderr);
        assert!(
            a.status == 0 || a.status == 1,
            "{}: status {}: {}",
            a.place,
            a.status,
            a.stderr
        );
        delete_force_clears(t, &a)?;
        if !a.happened {
            return Ok(());
        }
    }
    Ok(())
}

fn an_init_killed_between_create_and_start_is_stopped(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    kernel::kill(c.pid, libc::SIGKILL)?;
    c.ended()?;
    crate::harness::place::until("stopped", || c.status().unwrap() == "stopped");
    c.call("start")?
        .fails(&["cannot start a container that has stopped"]);
    c.delete()?;
    t.nothing_is_left();
    Ok(())
}

fn a_killed_run_leaves_a_container_that_delete_force_removes(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("echo up; exec sleep 1000");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let run = t
        .runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id])
        .spawn()?;
    let out = run.stdout.clone();
    crate::harness::place::until("the process", || {
        fs::read_to_string(&out).unwrap_or_default() == "up\n"
    });
    // The record follows the start.
    crate::harness::place::until("its record", || {
        let state = t.call(["state", &id]);
        state.is_ok_and(|out| out.stdout.contains("\"running\""))
    });
    kernel::kill(run.pid(), libc::SIGKILL)?;
    assert_eq!(run.wait()?.status, 137);
    assert!(t.call(["state", &id])?.text().contains("\"running\""));
    t.call(["delete", "--force", &id])?.ok();
    t.nothing_is_left();
    Ok(())
}
