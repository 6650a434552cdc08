//! `run`: a container from an image or a bundle, made and started.

use crate::engine::cli::Global;
use crate::engine::make::Make;
use crate::engine::monitor;
use crate::engine::volumes;
use anyhow::{Result, ensure};
use clap::Args;
use std::io::IsTerminal;

/// Run a command in a new container
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// In the background; print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    make: Make,
}

impl Run {
    pub fn run(&self, global: &Global) -> Result<u8> {
        ensure!(
            !self.make.process.tty || self.detach || std::io::stdin().is_terminal(),
            "--tty: stdin is not a terminal; without -t, or with -d, none is needed"
        );
        let home = global.home()?;
        let record = self.make.make(&home)?;
        let started = match self.detach {
            true => monitor::detach(&home, &record.id).map(|()| {
                println!("{}", record.id);
                0
            }),
            false => monitor::attached(&home, &record.id),
        };
        // As docker: what never started stays to be looked at, but for --rm.
        if started.is_err() && record.remove {
            home.remove(&record.id)?;
            volumes::remove_anonymous(&home, &record)?;
        }
        started
    }
}
