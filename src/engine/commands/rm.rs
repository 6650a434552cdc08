//! `rm`: forget a container, and clear away what a killed sc left of it.

use crate::engine::cli::Global;
use crate::engine::control;
use crate::engine::volumes;
use anyhow::Result;
use clap::Args;

/// Remove containers
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill them first, if they run; those that are not there are no error
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
        let mut containers = self.containers.clone();
        if self.force {
            // As rm(1) of files, docker and podman: what is not there is what was wanted.
            containers.retain(|name| !matches!(home.seek(name), Ok(None)));
            if containers.is_empty() {
                return Ok(0);
            }
        }
        super::every(&containers, |name| {
            let found = match self.force {
                true => home.seek(name)?,
                false => Some(home.find(name)?),
            };
            let Some(record) = found else {
                return Ok(());
            };
            control::remove(&home, &record, self.force)?;
            match self.volumes {
                true => volumes::remove_anonymous(&home, &record),
                false => Ok(()),
            }
        })
    }
}
