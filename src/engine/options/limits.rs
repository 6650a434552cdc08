//! Options that say how much a container may use.

use crate::engine::config::{self, Wishes};
use anyhow::{Context, Result};
use clap::Args;

#[derive(Debug, Args)]
pub struct Limits {
    /// Memory, and as much swap, like 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Processors, like 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
}

impl Limits {
    pub fn wish(&self, wishes: &mut Wishes) -> Result<()> {
        let memory = self.memory.as_deref().map(config::bytes);
        wishes.memory = memory.transpose().context("--memory")?;
        wishes.cpus = self.cpus;
        wishes.pids_limit = self.pids_limit;
        Ok(())
    }
}
