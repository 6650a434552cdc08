//! `gc`: removes what nothing names: blobs, unpacked layers, broken-off downloads.

use crate::idmap;
use crate::image::cli::Global;
use crate::image::show;
use crate::image::store::Store;
use crate::image::store::garbage::Freed;
use anyhow::Result;
use clap::Args;

/// Remove blobs and layers that no image has
#[derive(Debug, Args)]
pub struct Gc {
    /// Broken-off downloads too, which are otherwise kept for a day
    #[arg(short, long)]
    all: bool,
}

impl Gc {
    pub fn run(&self, global: &Global) -> Result<()> {
        let root = global.root()?;
        idmap::enter()?;
        let freed = Store::open_alone(&root)?.collect_garbage(self.all)?;
        show::print(&told(&freed))
    }
}

pub fn told(freed: &Freed) -> String {
    format!(
        "Removed {} blobs and {} layers, {} freed\n",
        freed.blobs,
        freed.layers,
        show::size(freed.bytes)
    )
}

/// After names were taken away: at once when nobody else uses the store, later otherwise.
pub fn collect_unless_busy(mut store: Store) -> Result<Freed> {
    if store.try_alone()? {
        return store.collect_garbage(false);
    }
    show::warn(
        "the store is in use: what is no longer needed is removed by the next rm, prune or gc",
    );
    Ok(Freed::default())
}
