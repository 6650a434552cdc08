//! `restart`: stopped, and started again by the same monitor, so that who is attached stays so.

use super::{start, stop};
use crate::engine::attach;
use crate::engine::cli::Global;
use crate::engine::control;
use crate::engine::events::{self, Event};
use crate::engine::record::{Home, Record};
use anyhow::Result;
use clap::Args;
use std::time::Duration;

/// Stop containers, and start them again
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    how: stop::How,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Restart {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let signal = self.how.signal()?;
        super::every(&self.containers, |name| {
            let record = home.find(name)?;
            let patience = control::patience(self.how.time, &record);
            restart(&home, &record, signal, patience)?;
            events::tell(&home, &Event::of(&record, "restart"));
            Ok(())
        })
    }
}

fn restart(
    home: &Home,
    record: &Record,
    signal: Option<i32>,
    patience: Option<Duration>,
) -> Result<()> {
    // Connected first: what it says from here on is about the life to come, or there is none.
    let Some(client) = attach::connect(home, &record.id)? else {
        control::stop(home, record, signal, patience)?;
        return start::start(home, record);
    };
    client.be_quiet();
    if !control::end_life(home, record, signal, patience)? {
        // Another command waits for its end: first that, then a new beginning.
        control::stop(home, record, signal, patience)?;
        return start::start(home, record);
    }
    match client.begun() {
        Ok(()) => Ok(()),
        // It was ending when we came.
        Err(_) if home.load(&record.id)?.is_some_and(|now| now.again) => start::start(home, record),
        Err(e) => Err(e),
    }
}
