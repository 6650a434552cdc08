//! `rm`: forget a container, and clear away what a killed sc left of it.

use super::stop;
use crate::engine::cli::Global;
use crate::engine::network::live;
use crate::engine::programs;
use crate::engine::record::{Home, Record};
use anyhow::{Result, ensure};
use clap::Args;

/// Remove containers
#[derive(Debug, Args)]
pub struct Rm {
    /// Kill them first, if they run
    #[arg(short, long)]
    force: bool,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Rm {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        super::every(&self.containers, |name| {
            remove(&home, &home.find(name)?, self.force)
        })
    }
}

fn remove(home: &Home, record: &Record, force: bool) -> Result<()> {
    ensure!(
        force || !programs::now(home, record)?.is_alive(),
        "container {} is running: `sc stop {0}` first, or `sc rm -f {0}`",
        record.name
    );
    stop::end(home, record)?;
    // With a monitor, it is done already, and with --rm there is nothing left at all.
    programs::call(home, record, &["delete", "--force", &record.id])?;
    live::clear(home, &home.dir(&record.id))?;
    home.remove(&record.id)
}
