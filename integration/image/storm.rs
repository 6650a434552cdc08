//! `sc`: hundreds of commands at once, and random ones of their processes killed.

use crate::place::Place;
use crate::sc::{assert_nothing, command, ok, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use simplecontainer::sys::pidfd;
use std::fs;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

tests! {
    whoever_is_killed_nothing_is_left ["busybox"],
    parallel_commands_on_one_container_agree ["busybox"],
}

/// A sequence of numbers that looks like chance; the first is told, so that it can be had again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

fn seed() -> Result<u64> {
    let given = std::env::var("STORM").ok();
    let seed = match given {
        Some(text) => text.parse()?,
        None => u64::from(std::process::id()) * 2_654_435_761 + 1,
    };
    eprintln!("storm: STORM={seed}");
    Ok(seed)
}

/// A random command of users, on few names, so that they meet.
fn act(place: &Place, chance: &mut Chance) -> Result<()> {
    let name = format!("n{}", chance.below(6));
    let other = format!("n{}", chance.below(6));
    let args: &[&str] = match chance.below(14) {
        0..=2 => &["run", "--rm", "busybox", "true"],
        3..=5 => &["run", "-d", "--name", &name, "busybox", "sleep", "1000"],
        6 => &[
            "run",
            "-d",
            "--rm",
            "--restart",
            "no",
            "--name",
            &name,
            "busybox",
            "sleep",
            "0.05",
        ],
        7 => &[
            "run",
            "-d",
            "--restart",
            "always",
            "--name",
            &name,
            "busybox",
            "true",
        ],
        8 => &["stop", "-t", "0", &name],
        9 => &["rm", "-f", &name],
        10 => &["restart", "-t", "0", &name],
        11 => &["rename", &name, &other],
        12 => &["start", &name],
        _ => &["ps", "-a"],
    };
    // Most are refused, and rightly; they may be killed.
    command(place, args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(())
}

/// The processes of sc, sc-image and sc-runtime that work on this place, monitors with them.
fn ours(place: &Place) -> Vec<i32> {
    let store = place.store.display().to_string();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&store)
        })
        .collect()
}

fn whoever_is_killed_nothing_is_left(place: &Place) -> Result<()> {
    const WORKERS: u64 = 8;
    const ACTS: u64 = 320;
    with_image(place)?;
    let seed = seed()?;
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let killed = AtomicU64::new(0);
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let done = &done;
                scope.spawn(move || -> Result<()> {
                    let mut chance = Chance(seed.wrapping_add(number * 7919));
                    while done.fetch_add(1, Ordering::Relaxed) < ACTS {
                        act(place, &mut chance)?;
                    }
                    Ok(())
                })
            })
            .collect();
        scope.spawn(|| {
            let mut chance = Chance(seed ^ 0x5555);
            while !over.load(Ordering::Relaxed) {
                let victims = ours(place);
                if !victims.is_empty() && chance.below(6) == 0 {
                    let victim = victims[chance.below(victims.len())];
                    let pid = nix::unistd::Pid::from_raw(victim);
                    let hit = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                    killed.fetch_add(u64::from(hit.is_ok()), Ordering::Relaxed);
                }
            }
        });
        let ended: Vec<Result<()>> = workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .map_err(|_| anyhow::anyhow!("a worker panicked"))?
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        ended.into_iter().collect()
    })?;
    eprintln!("storm: {} killed", killed.load(Ordering::Relaxed));
    let left = ok(place, &["ps", "-aq"])?;
    let mut remove = vec!["rm", "-f"];
    remove.extend(left.lines());
    if remove.len() > 2 {
        ok(place, &remove)?;
    }
    ok(place, &["system", "prune", "-f"])?;
    assert_nothing(place)?;
    // A monitor has released all before it tells its clients and ends.
    for pid in ours(place) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let gone = match pidfd::open(pid) {
            Ok(process) => pidfd::wait(process.as_fd(), Duration::from_secs(20))?,
            Err(_) => true,
        };
        ensure!(
            gone,
            "a process is left: {}",
            String::from_utf8_lossy(&line)
        );
    }
    // And all goes on.
    ensure!(ok(place, &["run", "--rm", "busybox", "echo", "whole"])? == "whole\n");
    place.assert_whole().context("the store")
}

fn parallel_commands_on_one_container_agree(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &["run", "-d", "--name", "one", "busybox", "sleep", "1000"],
    )?;
    thread::scope(|scope| {
        for number in 0..24 {
            scope.spawn(move || {
                let args: &[&str] = match number % 4 {
                    0 => &["restart", "-t", "0", "one"],
                    1 => &["stop", "-t", "0", "one"],
                    2 => &["start", "one"],
                    _ => &["ps", "-a"],
                };
                command(place, args)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
            });
        }
    });
    ok(place, &["start", "one"])?;
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    ok(place, &["rm", "-f", "one"])?;
    assert_nothing(place)
}
