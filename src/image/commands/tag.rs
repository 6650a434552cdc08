//! `tag`: another name for an image.

use crate::image::cli::Global;
use crate::image::reference::Reference;
use anyhow::{Result, ensure};
use clap::Args;

/// Give an image another name
#[derive(Debug, Args)]
pub struct Tag {
    /// Name or ID of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Its other name; it is taken from what had it
    #[arg(value_name = "NAME")]
    name: Reference,
}

impl Tag {
    pub fn run(&self, global: &Global) -> Result<()> {
        ensure!(
            self.name.digest.is_none(),
            "{}: a digest cannot be given as a name",
            self.name
        );
        let store = global.store()?;
        let (_, descriptor) = store.find_entry(&self.image)?;
        store.tag(&self.name.to_string(), &descriptor)
    }
}
