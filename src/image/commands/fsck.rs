//! `fsck`: is everything in the store what it should be?

use crate::idmap;
use crate::image::cli::Global;
use crate::image::show;
use crate::image::store::Store;
use crate::image::unpack::{MAX_SIZE, Options};
use anyhow::{Result, bail};
use clap::Args;

/// Check every blob, image and unpacked layer
#[derive(Debug, Args)]
pub struct Fsck {
    /// Repair what can be: remove what is damaged, so that it is fetched or unpacked again
    #[arg(long)]
    repair: bool,
}

impl Fsck {
    pub fn run(&self, global: &Global) -> Result<()> {
        let root = global.root()?;
        let ids = idmap::enter()?;
        let store = match self.repair {
            true => Store::open_alone(&root)?,
            false => Store::open(&root)?,
        };
        let options = Options {
            max_size: MAX_SIZE,
            squash: ids.squash,
            privileged: ids.privileged,
            kept: None,
        };
        let found = store.check(self.repair, &options)?;
        for trouble in &found.trouble {
            let done = if trouble.done.is_empty() {
                String::new()
            } else {
                format!(" ({})", trouble.done)
            };
            show::print(&format!("{}{done}\n", show::printable(&trouble.what)))?;
        }
        let counts = format!(
            "{} blobs, {} images, {} unpacked layers",
            found.blobs, found.images, found.layers
        );
        let left = found
            .trouble
            .iter()
            .filter(|trouble| trouble.done.is_empty())
            .count();
        if left > 0 {
            bail!("fsck: {left} of {counts} are not as they should be: see --repair");
        }
        show::print(&format!("{counts}: whole\n"))
    }
}
