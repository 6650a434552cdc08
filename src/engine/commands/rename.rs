//! `rename`: another name for a container.

use crate::engine::cli::Global;
use anyhow::Result;
use clap::Args;

/// Give a container another name
#[derive(Debug, Args)]
pub struct Rename {
    /// Name, id or beginning of the id
    container: String,
    /// Not in use
    new_name: String,
}

impl Rename {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        home.rename(&home.find(&self.container)?.id, &self.new_name)?;
        Ok(0)
    }
}
