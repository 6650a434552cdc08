//! `create`: a container from an image or a bundle, made and not started.

use crate::engine::cli::Global;
use crate::engine::make::Make;
use anyhow::Result;
use clap::Args;

/// Make a container without starting it; print its id
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Create {
    #[command(flatten)]
    make: Make,
}

impl Create {
    pub fn run(&self, global: &Global) -> Result<u8> {
        crate::show::line(self.make.make(&global.home()?, false)?.id)?;
        Ok(0)
    }
}
