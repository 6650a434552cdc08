//! `stop`: a signal, patience, and then the one that nobody ignores.

use crate::engine::cli::Global;
use crate::engine::control;
use crate::signal;
use anyhow::{Context, Result};
use clap::Args;

/// Stop running containers
#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    how: How,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub struct How {
    /// Seconds before it is killed; -1 never [default: 10, or --stop-timeout]
    #[arg(
        short,
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub time: Option<i64>,
    /// Instead of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
}

impl How {
    pub fn signal(&self) -> Result<Option<i32>> {
        let number = self.signal.as_deref().map(signal::number);
        number.transpose().context("--signal")
    }
}

impl Stop {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let signal = self.how.signal()?;
        super::every(&self.containers, |name| {
            let record = home.find(name)?;
            let patience = control::patience(self.how.time, &record);
            control::stop(&home, &record, signal, patience)
        })
    }
}
