//! `top`: the processes of a container, as the host's ps(1) shows them.

use crate::engine::cli::Global;
use crate::engine::now;
use crate::engine::programs;
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::os::unix::process::CommandExt;

/// Show the processes of a container
#[derive(Debug, Args)]
pub struct Top {
    /// Name, id or beginning of the id
    container: String,
    /// Options of ps(1) [default: -ef]
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    options: Vec<String>,
}

impl Top {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let record = home.find(&self.container)?;
        ensure!(
            now::now(&home, &record)?.is_alive(),
            "container {} is not running",
            self.container
        );
        // The runtime knows the container's processes, and has the same verb.
        let mut runtime = programs::runtime(&home, &record);
        let e = runtime.arg("ps").arg(&record.id).args(&self.options).exec();
        Err(e).with_context(|| format!("execute {}", record.runtime.display()))
    }
}
