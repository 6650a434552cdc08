//! `rm`: forget a container, and clear away what a killed sc left of it.

use crate::engine::cli::Global;
use crate::engine::control;
use crate::engine::volumes;
use anyhow::Result;
use clap::Args;

/// Remove containers
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill them first, if they run
    #[arg(short, long)]
    force: bool,
    /// And the volumes that were made for them alone
    #[arg(short, long)]
    volumes: bool,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        super::every(&self.containers, |name| {
            let record = home.find(name)?;
            control::remove(&home, &record, self.force)?;
            match self.volumes {
                true => volumes::remove_anonymous(&home, &record),
                false => Ok(()),
            }
        })
    }
}
