//! `pause`, `unpause`: all processes of containers stand still, and go on.

use crate::engine::cli::Global;
use crate::engine::events::{self, Event};
use crate::engine::now::{self, Now};
use crate::engine::programs;
use anyhow::{Result, ensure};
use clap::Args;

/// Freeze all processes of containers
#[derive(Debug, Args)]
pub struct Pause {
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Let frozen containers go on
#[derive(Debug, Args)]
pub struct Unpause {
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Pause {
    pub fn run(&self, global: &Global) -> Result<u8> {
        turn(global, &self.containers, Now::Running, "pause", "pause")
    }
}

impl Unpause {
    pub fn run(&self, global: &Global) -> Result<u8> {
        turn(global, &self.containers, Now::Paused, "resume", "unpause")
    }
}

fn turn(global: &Global, names: &[String], from: Now, verb: &str, action: &str) -> Result<u8> {
    let home = global.home()?;
    super::every(names, |name| {
        let record = home.find(name)?;
        let now = now::now(&home, &record)?;
        ensure!(
            now == from,
            "container {name} is {}, not {}",
            now.word(),
            from.word()
        );
        programs::call(&home, &record, &[verb, &record.id])?;
        events::tell(&home, &Event::of(&record, action));
        Ok(())
    })
}
