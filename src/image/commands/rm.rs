//! `rm`: takes names from images, and removes what nothing names any more.

use super::gc;
use crate::idmap;
use crate::image::cli::Global;
use crate::image::show;
use crate::image::store::Store;
use anyhow::{Result, ensure};
use clap::Args;

/// Remove images: their names, then what no other image has
#[derive(Debug, Args)]
#[command(visible_alias = "rmi")]
pub struct Rm {
    /// Names or IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Also with several names, or in use by a bundle; what is in use stays until it is not
    #[arg(short, long)]
    force: bool,
}

impl Rm {
    pub fn run(&self, global: &Global) -> Result<()> {
        let root = global.root()?;
        idmap::enter()?;
        let store = Store::open(&root)?;
        let mut failed = 0;
        for image in &self.images {
            match self.untag(&store, image) {
                Ok(lines) => show::print(&lines)?,
                Err(e) => {
                    failed += 1;
                    eprintln!("sc-image: rm {}", show::printable(&format!("{e:#}")));
                }
            }
        }
        gc::collect_unless_busy(store)?;
        ensure!(
            failed == 0,
            "rm: {failed} of {} images are not removed",
            self.images.len()
        );
        Ok(())
    }

    fn untag(&self, store: &Store, image: &str) -> Result<String> {
        let (names, descriptor) = store.find_entry(image)?;
        let leases = store.leases()?;
        let user = leases
            .iter()
            .find(|lease| lease.manifest == descriptor.digest);
        if let Some(lease) = user.filter(|_| names.len() <= 1 && !self.force) {
            anyhow::bail!(
                "{image}: the bundle {} uses it: remove that first, or use --force",
                lease.bundle.display()
            );
        }
        let gone = store.untag(image, self.force)?;
        let mut lines: String = gone
            .iter()
            .map(|name| format!("Untagged: {name}\n"))
            .collect();
        if gone.len() == names.len() {
            lines += &format!("Deleted: {}\n", descriptor.digest);
        }
        Ok(lines)
    }
}
