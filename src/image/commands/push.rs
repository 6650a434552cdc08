//! `push`: an image from the store to its registry.

use crate::image::cli::Global;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::{Hosts, push};
use crate::image::show;
use anyhow::Result;
use clap::Args;

/// Push an image to the registry its name begins with; its digest goes to stdout
#[derive(Debug, Args)]
pub struct Push {
    /// [REGISTRY/]REPOSITORY[:TAG]
    #[arg(value_name = "IMAGE")]
    reference: Reference,
    /// Layers sent at once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = super::jobs)]
    jobs: usize,
    /// Print the digest only
    #[arg(short, long)]
    quiet: bool,
}

impl Push {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let hosts = Hosts::from_environment()?;
        let progress = Progress::new(self.quiet);
        let pushed = push::push(&hosts, &store, &self.reference, self.jobs, &progress)?;
        show::print(&format!("{}\n", pushed.digest))
    }
}
