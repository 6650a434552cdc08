//! `start`: a container that ended, once more, with the files it left.

use crate::engine::cli::Global;
use crate::engine::network::live;
use crate::engine::programs;
use crate::engine::{monitor, record::Home};
use anyhow::{Result, bail, ensure};
use clap::Args;

/// Start containers that have stopped
#[derive(Debug, Args)]
pub struct Start {
    /// Show the output of one container, and give its exit status
    #[arg(short, long)]
    attach: bool,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Start {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        if self.attach {
            let [one] = self.containers.as_slice() else {
                bail!("--attach: only one container at a time");
            };
            return monitor::attached(&home, &ready(&home, one)?);
        }
        super::every(&self.containers, |name| {
            monitor::detach(&home, &ready(&home, name)?)
        })
    }
}

/// The id; what a killed monitor left of an earlier run is cleared away.
fn ready(home: &Home, name: &str) -> Result<String> {
    let record = home.find(name)?;
    ensure!(
        !programs::now(home, &record)?.is_alive(),
        "container {name} is running"
    );
    if home.try_monitor(&record.id)?.is_some() {
        programs::call(home, &record, &["delete", "--force", &record.id])?;
        live::clear(home, &home.dir(&record.id))?;
    }
    Ok(record.id)
}
