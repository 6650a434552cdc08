//! Who uses which layers? A bundle whose rootfs is an overlay of layers of the store.
//!
//! A lease is a file that names the bundle and the chain of layers. It ends by itself: when the bundle
//! is gone, so is its lease. Nothing has to be told when a container is removed.

use super::{Image, Store, replace};
use crate::image::config::chain_ids;
use crate::image::digest::Digest;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize, Deserialize)]
pub struct Lease {
    pub bundle: PathBuf,
    pub manifest: Digest,
    /// Chain ids, lowest first.
    pub layers: Vec<Digest>,
}

impl Store {
    /// Keeps the layers of an image for as long as the directory `bundle` is there.
    pub fn lease(&self, bundle: &Path, image: &Image) -> Result<()> {
        let lease = Lease {
            bundle: bundle.to_owned(),
            manifest: image.descriptor.digest,
            layers: chain_ids(&image.config.rootfs.diff_ids),
        };
        let name = Digest::of(bundle.as_os_str().as_bytes()).hex();
        replace(
            &self.root.join("leases").join(name + ".json"),
            &serde_json::to_vec(&lease)?,
        )
    }

    /// The leases in force; those of bundles that are gone are removed.
    pub fn leases(&self) -> Result<Vec<Lease>> {
        let mut leases = Vec::new();
        for entry in fs::read_dir(self.root.join("leases"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let content = fs::read(&path).with_context(|| path.display().to_string())?;
            let lease: Lease =
                serde_json::from_slice(&content).with_context(|| path.display().to_string())?;
            match lease.bundle.exists() {
                true => leases.push(lease),
                false => fs::remove_file(&path)?,
            }
        }
        Ok(leases)
    }
}
