//! Which blobs does a pull count on that holds no lock of the store? Those of its pledge.
//!
//! A pull may take hours, and nobody should have to wait so long to collect garbage. So it writes down what it will
//! name in the end, `leases/PID-N.pledge`, locked for as long as it lives; what a live pledge names is not garbage.

use super::Store;
use super::lock::Lock;
use crate::image::digest::Digest;
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

const EXTENSION: &str = "pledge";

/// In force until it is dropped, or its process dies.
pub struct Pledge {
    path: PathBuf,
    _lock: Lock,
}

impl Store {
    /// Keeps these blobs, here already or not, from being collected. The store's lock must be held.
    pub fn pledge(&self, blobs: &[Digest]) -> Result<Pledge> {
        for number in 0_u32.. {
            let name = format!("{}-{number}.{EXTENSION}", std::process::id());
            let path = self.root().join("leases").join(name);
            // Another's, of the same number in another pid namespace; or a dead one's, which is ours now.
            let Some(lock) = Lock::try_new(&path)? else {
                continue;
            };
            let pledge = Pledge { path, _lock: lock };
            let text = serde_json::to_vec(blobs)?;
            fs::write(&pledge.path, text).with_context(|| pledge.path.display().to_string())?;
            return Ok(pledge);
        }
        unreachable!("as many pulls as there are numbers")
    }

    /// What live pledges name; those of the dead are removed. The store must be open alone.
    pub(super) fn pledged(&self) -> Result<HashSet<Digest>> {
        let mut pledged = HashSet::new();
        for entry in fs::read_dir(self.root().join("leases"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|found| found != EXTENSION) {
                continue;
            }
            if Lock::try_new(&path)?.is_some() {
                fs::remove_file(&path)?;
                continue;
            }
            let context = || path.display().to_string();
            let text = fs::read(&path).with_context(context)?;
            pledged.extend(serde_json::from_slice::<Vec<Digest>>(&text).with_context(context)?);
        }
        Ok(pledged)
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        // Removed with the garbage when it cannot be now.
        let _ = fs::remove_file(&self.path);
    }
}
