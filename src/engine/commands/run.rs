//! `run`: a container from an image or a bundle, made and started.

use crate::engine::attach;
use crate::engine::cli::Global;
use crate::engine::make::Make;
use crate::engine::options;
use crate::engine::record::{Home, Record};
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
    attach: options::attach::Attachment,
    #[command(flatten)]
    make: Make,
}

impl Run {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let terminal = self.make.process.tty && self.make.process.interactive;
        ensure!(
            !terminal || self.detach || std::io::stdin().is_terminal(),
            "--tty: stdin is not a terminal; without -t, or with -d, none is needed"
        );
        let home = global.home()?;
        let record = self.make.make(&home, self.detach)?;
        match self.detach {
            true => {
                attach::start(&home, &record.id)?.begun()?;
                crate::show::line(record.id)?;
                Ok(0)
            }
            false => self.attached(&home, &record),
        }
    }

    fn attached(&self, home: &Home, record: &Record) -> Result<u8> {
        let wanted = self.attach.wanted(record, record.interactive)?;
        let client = attach::start(home, &record.id)?;
        client.prepare(&wanted);
        client.begun()?;
        client.attach(&wanted)
    }
}
