//! `kill`: a signal to a container's process.

use crate::engine::cli::Global;
use crate::engine::programs;
use anyhow::{Result, ensure};
use clap::Args;

/// Send a signal to running containers
#[derive(Debug, Args)]
pub struct Kill {
    /// A name or a number
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Kill {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        super::every(&self.containers, |name| {
            let record = home.find(name)?;
            ensure!(
                programs::now(&home, &record)?.is_alive(),
                "container {name} is not running"
            );
            programs::call(&home, &record, &["kill", &record.id, &self.signal])
        })
    }
}
