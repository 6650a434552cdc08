//! `stop`: a signal, patience, and then the one that nobody ignores.

use crate::engine::cli::Global;
use crate::engine::programs::{self, state};
use crate::engine::record::{Home, Record};
use crate::sys::pidfd;
use anyhow::Result;
use clap::Args;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Stop running containers
#[derive(Debug, Args)]
pub struct Stop {
    /// Seconds before it is killed
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    time: u64,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Stop {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let patience = Duration::from_secs(self.time.min(u64::from(u32::MAX)));
        super::every(&self.containers, |name| {
            stop(&home, &home.find(name)?, patience)
        })
    }
}

fn stop(home: &Home, record: &Record, patience: Duration) -> Result<()> {
    let Some(init) = init(home, record)? else {
        return Ok(());
    };
    let signal = match record.stop_signal.as_str() {
        "" => "TERM",
        other => other,
    };
    // It may end by itself at any time: then there is nobody to signal.
    let _ = programs::call(home, record, &["kill", &record.id, signal]);
    if !pidfd::wait(init.as_fd(), patience)? {
        end(home, record)?;
    }
    home.await_monitor(&record.id)
}

/// A descriptor of a running container's process.
pub fn init(home: &Home, record: &Record) -> Result<Option<OwnedFd>> {
    let pid = |home, record| -> Result<Option<i32>> {
        let state = state(home, record)?;
        let alive = state.filter(|state| state.status != "stopped");
        Ok(alive.and_then(|state| state.pid).filter(|pid| *pid > 0))
    };
    let Some(number) = pid(home, record)? else {
        return Ok(None);
    };
    let Ok(process) = pidfd::open(number) else {
        return Ok(None);
    };
    // The number may have become another's before it was opened, but not since.
    Ok((pid(home, record)? == Some(number)).then_some(process))
}

/// Kills a container and waits for its death and, if a monitor lives, for its record.
pub fn end(home: &Home, record: &Record) -> Result<()> {
    if let Some(init) = init(home, record)? {
        let _ = programs::call(home, record, &["kill", &record.id, "KILL"]);
        pidfd::wait(init.as_fd(), Duration::from_secs(60))?;
    }
    home.await_monitor(&record.id)
}
