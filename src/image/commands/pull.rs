//! `pull`: an image from its registry into the store.

use crate::image::cli::Global;
use crate::image::platform::Platform;
use crate::image::progress::Progress;
use crate::image::reference::Reference;
use crate::image::registry::{Hosts, pull};
use crate::image::show;
use anyhow::Result;
use clap::Args;

/// Pull an image from a registry; its ID goes to stdout
#[derive(Debug, Args)]
pub struct Pull {
    /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "IMAGE")]
    reference: Reference,
    /// Of an image for several platforms, the one for this [this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Of an image for several platforms, all
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Layers fetched at once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = super::jobs)]
    jobs: usize,
    /// Print the ID only
    #[arg(short, long)]
    quiet: bool,
}

impl Pull {
    pub fn run(&self, global: &Global) -> Result<()> {
        let store = global.store()?;
        let hosts = Hosts::from_environment()?;
        let progress = Progress::new(self.quiet);
        let wish = pull::Wish {
            platform: self.platform.clone(),
            all_platforms: self.all_platforms,
            jobs: self.jobs,
        };
        let pulled = pull::pull(&hosts, &store, &self.reference, &wish, &progress)?;
        let status = if pulled.up_to_date {
            "Image is up to date"
        } else {
            "Downloaded newer image"
        };
        progress.say(&format!("Digest: {}", pulled.digest));
        progress.say(&format!(
            "Status: {status} for {}",
            self.reference.familiar()
        ));
        show::print(&format!("{}\n", pulled.id))
    }
}
