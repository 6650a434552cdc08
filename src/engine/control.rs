//! How does a command bring a container to its end, or out of the world, whoever else works on it?
//!
//! What is wanted is written into the record first, under its lock: a monitor looks there after it has made a process
//! and before it starts one, so either it sees the wish, or we see its process.

use super::network::live;
use super::now::{self, Now};
use super::record::{Home, Record};
use super::{attach, events, monitor, programs, volumes};
use crate::clock;
use crate::sys::pidfd;
use anyhow::{Result, bail, ensure};
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long a killed process gets to die.
const DEATH: Duration = Duration::from_secs(60);

/// Ends a container with its signal, then with SIGKILL after `patience`; `None` has no end of patience.
pub fn stop(
    home: &Home,
    record: &Record,
    signal: Option<i32>,
    patience: Option<Duration>,
) -> Result<()> {
    // Of the monitor that is there before we wish: later ones have heard other wishes.
    let monitor = home.end(&record.id);
    let wish = |record: &mut Record| (record.stopped, record.again) = (true, false);
    let Some(record) = home.change(&record.id, wish)? else {
        return Ok(());
    };
    end(home, &record, signal, patience)?;
    monitor.wait()?;
    if let Some(record) = home.load(&record.id)? {
        bury(home, &record)?;
    }
    events::tell(home, &events::Event::of(&record, "stop"));
    Ok(())
}

/// The same, and its monitor is to start it again; false where a stop is under way, which counts more.
pub fn end_life(
    home: &Home,
    record: &Record,
    signal: Option<i32>,
    patience: Option<Duration>,
) -> Result<bool> {
    let Some(record) = home.change(&record.id, |record| record.again = !record.stopped)? else {
        bail!("the container is gone");
    };
    if record.again {
        end(home, &record, signal, patience)?;
    }
    Ok(record.again)
}

fn end(
    home: &Home,
    record: &Record,
    signal: Option<i32>,
    patience: Option<Duration>,
) -> Result<()> {
    attach::poke(home, &record.id);
    if let Some(process) = now::alive(record)? {
        let signal = signal.unwrap_or_else(|| monitor::stop_signal(record));
        now::signal(&process, signal)?;
        thaw(home, record)?;
        let ended = match patience {
            Some(patience) => pidfd::wait(process.as_fd(), patience)?,
            None => {
                while !pidfd::wait(process.as_fd(), DEATH)? {}
                true
            }
        };
        if !ended {
            kill(record)?;
        }
    }
    Ok(())
}

/// `patience` as typed, or as the container has it; -1 is without end.
pub fn patience(typed: Option<i64>, record: &Record) -> Option<Duration> {
    let seconds = typed.unwrap_or_else(|| i64::from(record.stop_timeout.unwrap_or(10)));
    let seconds = u64::try_from(seconds).ok()?;
    Some(Duration::from_secs(seconds.min(u64::from(u32::MAX))))
}

/// A frozen process dies of nothing but SIGKILL.
fn thaw(home: &Home, record: &Record) -> Result<()> {
    if now::now(home, record)? == Now::Paused {
        programs::call(home, record, &["resume", &record.id])?;
    }
    Ok(())
}

/// Kills its process, if there is one, and waits for its death.
fn kill(record: &Record) -> Result<()> {
    let Some(process) = now::alive(record)? else {
        return Ok(());
    };
    now::signal(&process, libc::SIGKILL)?;
    ensure!(
        pidfd::wait(process.as_fd(), DEATH)?,
        "container {}: its process does not die, it waits in the kernel (state D)",
        record.name
    );
    Ok(())
}

/// Forgets a container, and clears away what a killed sc left of it.
pub fn remove(home: &Home, record: &Record, force: bool) -> Result<()> {
    let mut refused = None;
    let record = home.change(&record.id, |record| {
        let lives = now::now(home, record);
        let lives = lives.is_ok_and(|now| now.is_alive() || matches!(now, Now::Restarting(_)));
        match lives && !force {
            true => refused = Some(record.name.clone()),
            false => record.removing = true,
        }
    })?;
    if let Some(name) = refused {
        bail!("container {name} is running: `sc stop {name}` first, or `sc rm -f {name}`");
    }
    let Some(record) = record else {
        return Ok(());
    };
    attach::poke(home, &record.id);
    kill(&record)?;
    // No monitor lives now, and none can begin.
    let _lock = home.monitor(&record.id);
    // It may have been at work when we looked.
    if let Some(record) = home.load(&record.id)? {
        kill(&record)?;
        forget(home, &record)?;
    }
    home.remove(&record.id)
}

/// The runtime's part, where it knows of the container, and the network's.
fn forget(home: &Home, record: &Record) -> Result<()> {
    if home.state.join(&record.id).exists() {
        programs::call(home, record, &["delete", "--force", &record.id])?;
    }
    live::clear(home, &record.id)
}

/// The runtime's state of a container without a record, with the runtime that sc would have taken.
pub fn forget_stranger(home: &Home, id: &str) {
    let record = Record {
        id: id.to_owned(),
        runtime: programs::find("sc-runtime"),
        ..Record::default()
    };
    if programs::call(home, &record, &["delete", "--force", id]).is_err() {
        // Another runtime's: with the boot that it was of, its processes are gone too.
        let _ = fs::remove_dir_all(home.state.join(id));
    }
}

/// After a boot, or a killed monitor: nobody has recorded the end, and nobody cleared up what the runtime knows.
/// False where there is nothing of that kind.
pub fn bury(home: &Home, record: &Record) -> Result<bool> {
    let unrecorded = |record: &Record| record.process.is_some() && record.finished.is_none();
    if !unrecorded(record) || now::alive(record)?.is_some() {
        return Ok(false);
    }
    let Some(_lock) = home.try_monitor(&record.id)? else {
        return Ok(false);
    };
    let Some(record) = home.load(&record.id)?.filter(|record| unrecorded(record)) else {
        return Ok(false);
    };
    let exit = match now::now(home, &record)? {
        Now::Exited(exit) => exit,
        Now::Created => None,
        _ => return Ok(false),
    };
    forget(home, &record)?;
    home.change(&record.id, |record| {
        record.process = None;
        // One that was never started has not ended.
        if record.started.is_some() {
            (record.finished, record.exit) = (Some(clock::now_nanos()), exit);
        }
    })?;
    if record.remove {
        home.remove(&record.id)?;
        volumes::remove_anonymous(home, &record)?;
    }
    Ok(true)
}
