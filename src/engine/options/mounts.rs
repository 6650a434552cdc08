//! Options that say which files a container has besides its image's.

use crate::engine::config::{Volume, Wishes};
use anyhow::{Result, ensure};
use clap::Args;
use std::path::Path;

#[derive(Debug, Args)]
pub struct Mounts {
    /// Show a file or directory of the host in the container
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// Nothing can be written but below /run, /tmp, /var/tmp and volumes
    #[arg(long)]
    read_only: bool,
}

impl Mounts {
    pub fn wish(&self, wishes: &mut Wishes) -> Result<()> {
        wishes.read_only = self.read_only;
        for text in &self.volume {
            let (volume, note) = Volume::parse(text)?;
            // A typing error must not become a directory of the host.
            ensure!(
                Path::new(&volume.source).exists(),
                "--volume {text:?}: {} does not exist: make it first",
                volume.source
            );
            if let Some(note) = note {
                eprintln!("sc: {note}");
            }
            wishes.volumes.push(volume);
        }
        Ok(())
    }
}
