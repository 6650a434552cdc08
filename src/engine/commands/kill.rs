//! `kill`: a signal to a container's process.

use crate::engine::cli::Global;
use crate::engine::events::{self, Event};
use crate::engine::monitor::stop_signal;
use crate::engine::record::{Home, Record};
use crate::engine::{attach, now};
use crate::signal;
use anyhow::{Context, Result, bail};
use clap::Args;

/// Send a signal to running containers
#[derive(Debug, Args)]
pub struct Kill {
    /// A name or a number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let signal = signal::number(&self.signal).context("--signal")?;
        super::every(&self.containers, |name| {
            kill(&home, &home.find(name)?, signal)
        })
    }
}

fn kill(home: &Home, record: &Record, signal: i32) -> Result<()> {
    let not_running = || format!("container {} is not running", record.name);
    let process = match record.started {
        Some(_) => now::alive(record)?.with_context(not_running)?,
        None => bail!(not_running()),
    };
    // Whoever ends it means it: no policy starts it again.
    if signal == libc::SIGKILL || signal == stop_signal(record) {
        home.change(&record.id, |record| record.stopped = true)?;
        attach::poke(home, &record.id);
    }
    if !now::signal(&process, signal)? {
        bail!(not_running());
    }
    events::tell(home, &Event::of(record, "kill").with("signal", signal));
    Ok(())
}
