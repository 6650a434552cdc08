//! Commands that meet on one container: one wins, each loser is told so, and nothing is left.

use crate::harness::{Container, Need, Outcome, Place, Result, kernel, machine};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

tests! {
    of_two_starts_one_wins [Need::Beyond("runc", "in 1.1.5 the loser may wait at the fifo for ever")],
    of_two_creates_of_an_id_one_wins [Need::Beyond("runc", "1.1.5 lets the loser remove the winner's directory"), Need::Beyond("crun", "1.8 has other words")],
    delete_force_during_create_leaves_nothing
        [Need::Beyond("runc", "1.1.5 has no lock, and leaves the cgroup"), Need::Beyond("crun", "1.8 has no lock, and leaves the cgroup")],
    delete_force_during_start_leaves_nothing [Need::Beyond("crun", "1.8 leaves the cgroup")],
    of_two_deletes_one_wins_or_both_agree,
    kill_during_delete_is_told_or_in_time,
    a_pause_outlives_a_kill_of_all [Need::Beyond("runc", "1.1.5 has no lock"), Need::Beyond("crun", "1.8 has no lock")],
    state_and_list_during_create_and_delete_never_show_half_a_container
        [Need::Beyond("runc", "1.1.5 reads what is half there"), Need::Beyond("crun", "1.8 reads what is half there")],
    being_stopped_and_continued_changes_nothing,
    twenty_containers_at_once,
    fifty_containers_are_controlled_at_once [Need::Beyond("crun", "1.8 gives exec into a paused container another status")],
}

/// How often the dice are thrown.
fn rounds() -> usize {
    if machine().in_guest { 3 } else { 12 }
}

/// Runs command lines at the same moment.
fn at_once(t: &Place, calls: &[&[&str]]) -> Result<Vec<Outcome>> {
    let running: Result<Vec<_>> = calls.iter().map(|args| t.runtime(*args).spawn()).collect();
    running?.into_iter().map(|call| call.wait()).collect()
}

/// A clear error: status 1, something said, and no panic.
#[track_caller]
fn is_told(out: &Outcome) {
    assert_eq!(out.status, 1, "{out:?}");
    assert!(
        !out.stderr.trim().is_empty() && !out.stderr.contains("panic"),
        "{out:?}"
    );
}

fn of_two_starts_one_wins(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for _ in 0..rounds() {
        let c = t.create(&bundle)?;
        let outs = at_once(t, &[&["start", &c.id], &["start", &c.id]])?;
        let winners = outs.iter().filter(|out| out.status == 0).count();
        // crun 1.8 may let both believe they did it.
        assert!(
            winners == 1 || (winners == 2 && machine().is("crun")),
            "{outs:?}"
        );
        outs.iter().filter(|out| out.status != 0).for_each(is_told);
        assert_eq!(c.status()?, "running");
        t.call(["delete", "--force", &c.id])?.ok();
    }
    t.nothing_is_left();
    Ok(())
}

fn of_two_creates_of_an_id_one_wins(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = bundle.dir.display().to_string();
    for _ in 0..rounds() {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let create: &[&str] = &["create", "--bundle", &dir, &id];
        let outs = at_once(t, &[create, create, create])?;
        assert_eq!(
            outs.iter().filter(|out| out.status == 0).count(),
            1,
            "{outs:?}"
        );
        for loser in outs.iter().filter(|out| out.status != 0) {
            assert!(
                loser
                    .stderr
                    .contains("container with given ID already exists"),
                "{loser:?}"
            );
        }
        t.call(["start", &id])?.ok();
        t.call(["delete", "--force", &id])?.ok();
        t.nothing_is_left();
    }
    Ok(())
}

fn delete_force_during_create_leaves_nothing(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let dir = bundle.dir.display().to_string();
    for _ in 0..rounds() {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let outs = at_once(
            t,
            &[
                &["create", "--bundle", &dir, &id],
                &["delete", "--force", &id],
            ],
        )?;
        if outs[0].status != 0 {
            is_told(&outs[0]);
        }
        if outs[1].status != 0 {
            is_told(&outs[1]);
        }
        if outs[0].status == 0 && t.recorded().contains(&id) {
            t.call(["delete", "--force", &id])?.ok(); // it came before the create, or was told to wait
        }
        t.nothing_is_left();
    }
    Ok(())
}

fn delete_force_during_start_leaves_nothing(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for _ in 0..rounds() {
        let c = t.create(&bundle)?;
        let outs = at_once(t, &[&["start", &c.id], &["delete", "--force", &c.id]])?;
        if outs[0].status != 0 {
            is_told(&outs[0]);
        }
        t.call(["delete", "--force", &c.id])?.ok();
        c.ended()?;
        t.nothing_is_left();
    }
    Ok(())
}

fn of_two_deletes_one_wins_or_both_agree(t: &Place) -> Result<()> {
    for _ in 0..rounds() {
        let c = t.sleeper()?;
        let delete: &[&str] = &["delete", "--force", &c.id];
        let outs = at_once(t, &[delete, delete, delete])?;
        assert!(outs.iter().any(|out| out.status == 0), "{outs:?}");
        outs.iter().filter(|out| out.status != 0).for_each(is_told);
        t.nothing_is_left();
    }
    Ok(())
}

fn kill_during_delete_is_told_or_in_time(t: &Place) -> Result<()> {
    for _ in 0..rounds() {
        let c = t.sleeper()?;
        let outs = at_once(
            t,
            &[
                &["delete", "--force", &c.id],
                &["kill", &c.id, "KILL"],
                &["kill", &c.id, "TERM"],
            ],
        )?;
        assert!(
            outs[0].status == 0 || !machine().is("sc-runtime"),
            "{outs:?}"
        );
        outs[1..]
            .iter()
            .filter(|out| out.status != 0)
            .for_each(is_told);
        t.call(["delete", "--force", &c.id])?.ok();
        t.nothing_is_left();
    }
    Ok(())
}

/// Which freezes all that it signals for a moment, and thaws them.
fn a_pause_outlives_a_kill_of_all(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let kill: &[&str] = &["kill", "--all", &c.id, "CONT"];
    for _ in 0..rounds() {
        let outs = at_once(t, &[kill, &["pause", &c.id], kill, kill])?;
        // The others may be told that it is paused, or not running: never what is not so.
        if outs[1].status == 0 {
            assert_eq!(c.status()?, "paused", "{outs:?}");
            c.call("resume")?.ok();
        }
        assert_eq!(c.status()?, "running", "{outs:?}");
    }
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

fn state_and_list_during_create_and_delete_never_show_half_a_container(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let dir = bundle.dir.display().to_string();
    for _ in 0..rounds() {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let outs = at_once(
            t,
            &[
                &["run", "--bundle", &dir, &id],
                &["list", "--format", "json"],
                &["state", &id],
                &["list", "-q"],
                &["state", &id],
                &["list"],
            ],
        )?;
        for (n, out) in outs.iter().enumerate() {
            match (n, out.status) {
                (2 | 4, 1) => assert!(out.stderr.contains("does not exist"), "{out:?}"),
                (2 | 4, 0) => {
                    let state: serde_json::Value = serde_json::from_str(&out.stdout)?;
                    let status = state["status"].as_str().unwrap_or_default();
                    assert!(
                        ["creating", "created", "running", "stopped"].contains(&status),
                        "{state}"
                    );
                }
                _ => assert_eq!((out.status, out.stderr.as_str()), (0, ""), "{out:?}"),
            }
        }
    }
    t.nothing_is_left();
    Ok(())
}

/// Ten lives at a time, five one after another; fewer in the guest, which is much slower.
fn fifty_containers_are_controlled_at_once(t: &Place) -> Result<()> {
    let (workers, lives) = if machine().in_guest { (5, 2) } else { (10, 5) };
    thread::scope(|scope| {
        let all: Vec<_> = (0..workers)
            .map(|_| scope.spawn(|| (0..lives).try_for_each(|_| life(t))))
            .collect();
        all.into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|why| resume_unwind(why)))
    })?;
    t.nothing_is_left();
    Ok(())
}

/// Everything that can be done to a container, while others do it to theirs; its end comes with a
/// process of `exec` still there.
fn life(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let exec = |command: &[&str]| t.call(["exec", &c.id].iter().chain(command));
    let out = exec(&["sh", "-c", "hostname; exit 3"])?;
    assert_eq!((out.status, out.stdout.trim()), (3, "box"), "{out:?}");
    t.call(["exec", "--detach", &c.id, "sleep", "1000"])?.ok();
    c.call("pause")?.ok();
    assert_eq!(c.status()?, "paused");
    update(&c)?;
    let out = exec(&["true"])?;
    assert_eq!(out.status, 255, "{out:?}");
    assert!(out.stderr.contains("paused"), "{out:?}");
    c.call("resume")?.ok();
    let listed: Vec<i32> =
        serde_json::from_str(&t.call(["ps", "--format", "json", &c.id])?.text())?;
    assert!(listed.len() == 2 && listed.contains(&c.pid), "{listed:?}");
    t.call(["delete", "--force", &c.id])?.ok();
    c.ended()
}

/// A limit that this machine can set, read back from the kernel.
fn update(c: &Container) -> Result<()> {
    if !c.cgroup().join("pids.max").exists() {
        // Without controllers there is nothing to limit: the command still runs against the others.
        c.place.call(["update", &c.id])?.ok();
        return Ok(());
    }
    c.place.call(["update", "--pids-limit", "33", &c.id])?.ok();
    assert_eq!(c.cgroup_file("pids.max")?, "33");
    Ok(())
}

/// Ctrl-Z and fg, a debugger, a frozen cgroup: the kernel interrupts calls for it, some of which then fail.
fn being_stopped_and_continued_changes_nothing(t: &Place) -> Result<()> {
    for _ in 0..rounds() {
        let id = t.fresh_id();
        let bundle = t.bundle().args(&["true"]);
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        let create = t.runtime(["create", "--bundle", &dir, &id]).spawn()?;
        let pid = create.pid();
        let pidfd = kernel::pidfd_open(pid)?;
        while !kernel::ended_within(pidfd.as_fd(), Duration::ZERO)? {
            kernel::kill(pid, libc::SIGSTOP)?;
            thread::sleep(Duration::from_micros(50));
            kernel::kill(pid, libc::SIGCONT)?;
            thread::sleep(Duration::from_micros(150));
        }
        create.wait()?.ok();
        t.call(["delete", "--force", &id])?.ok();
    }
    Ok(())
}

fn twenty_containers_at_once(t: &Place) -> Result<()> {
    let count = if machine().in_guest { 6 } else { 20 };
    let bundles: Vec<_> = (0..count)
        .map(|n| t.bundle().sh(&format!("echo {n}; exit {n}")))
        .collect();
    thread::scope(|scope| {
        let handles: Vec<_> = bundles
            .iter()
            .map(|bundle| scope.spawn(|| t.run(bundle)))
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            let out = handle.join().expect("a thread")?;
            assert_eq!(
                (out.status, out.stdout.trim()),
                (n as i32, n.to_string().as_str()),
                "{}",
                out.stderr
            );
        }
        Ok(())
    })
}
