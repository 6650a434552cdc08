//! What is no longer needed? Everything that neither index.json nor a lease leads to, nor a pull has pledged.
//!
//! Only alone: what is fetched but not yet named looks like garbage. First all that is needed is marked,
//! and an image that cannot be read stops the sweep: better too much than too little.

use super::layers::{REPLACED, remove_tree};
use super::{Store, lock::Lock};
use crate::image::config::{ImageConfig, chain_ids};
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, Document, media_type};
use anyhow::{Context, Result};
use std::collections::HashSet;
use std::fs;
use std::time::{Duration, SystemTime};

/// What was removed.
#[derive(Debug, Default)]
pub struct Freed {
    pub blobs: u64,
    pub layers: u64,
    /// Of blobs.
    pub bytes: u64,
}

#[derive(Default)]
struct Needed {
    blobs: HashSet<Digest>,
    layers: HashSet<Digest>,
    /// Those that a bundle has.
    leased: HashSet<Digest>,
}

/// How long a broken-off download is kept.
const RESUME: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Removes what is not needed. The store must be open alone.
    pub fn collect_garbage(&self, partial_too: bool) -> Result<Freed> {
        let needed = self
            .needed()
            .context("nothing is removed: sc-image fsck --repair")?;
        let mut freed = Freed::default();
        for entry in fs::read_dir(self.root.join("image/blobs/sha256"))? {
            let entry = entry?;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|hex| Digest::from_hex(hex).ok());
            // What has another name is not ours: fsck tells of it.
            if digest.is_some_and(|digest| !needed.blobs.contains(&digest)) {
                freed.bytes += entry.metadata()?.len();
                fs::remove_file(entry.path())?;
                freed.blobs += 1;
            }
        }
        self.sweep_layers(&needed, &mut freed)?;
        for entry in fs::read_dir(self.root.join("image/ingest"))? {
            let entry = entry?;
            let resumable = entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "part");
            let age = SystemTime::now()
                .duration_since(entry.metadata()?.modified()?)
                .unwrap_or_default();
            // A writer that survives its store's lock would be one of a stopped process: its own lock counts.
            if (!resumable || partial_too || age > RESUME)
                && Lock::try_new(&entry.path())?.is_some()
            {
                fs::remove_file(entry.path())?;
            }
        }
        self.make_reserve();
        self.sweep_names("lock", |name| name.starts_with("layer-"))?;
        self.sweep_names("leases", |name| name.ends_with(".new"))?;
        Ok(freed)
    }

    fn sweep_layers(&self, needed: &Needed, freed: &mut Freed) -> Result<()> {
        for entry in fs::read_dir(self.root.join("layers"))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // HEX.0.replaced is mounted, perhaps, while a bundle has the layer: see fsck.
            let replaced = name.ends_with(REPLACED);
            let hex = name.split('.').next().filter(|_| replaced).unwrap_or(name);
            match Digest::from_hex(hex) {
                Ok(chain_id) if replaced && !needed.leased.contains(&chain_id) => {
                    remove_tree(&path)?
                }
                Ok(chain_id) if needed.layers.contains(&chain_id) => {}
                Ok(chain_id) => {
                    self.drop_layer(&chain_id)?;
                    freed.layers += 1;
                }
                Err(_) => remove_tree(&path)?,
            }
        }
        Ok(())
    }

    fn sweep_names(&self, dir: &str, is_garbage: impl Fn(&str) -> bool) -> Result<()> {
        for entry in fs::read_dir(self.root.join(dir))? {
            let path = entry?.path();
            if path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(&is_garbage)
            {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn needed(&self) -> Result<Needed> {
        let mut needed = Needed::default();
        for descriptor in self.index()?.manifests {
            self.mark(&descriptor, &mut needed)
                .with_context(|| descriptor.digest.to_string())?;
        }
        for lease in self.leases()? {
            needed.layers.extend(&lease.layers);
            needed.leased.extend(&lease.layers);
        }
        // Last: a blob that is marked is taken for one that was followed.
        needed.blobs.extend(self.pledged()?);
        Ok(needed)
    }

    /// A manifest or index and all below it; of an index, what is here.
    fn mark(&self, descriptor: &Descriptor, needed: &mut Needed) -> Result<()> {
        if !needed.blobs.insert(descriptor.digest) {
            return Ok(());
        }
        let content = self.read_blob(descriptor)?;
        match Document::parse(&content, Some(&descriptor.media_type))? {
            Document::Index(index) => {
                for part in index.manifests.iter().filter(|part| self.has(&part.digest)) {
                    self.mark(part, needed)?;
                }
            }
            Document::Manifest(manifest) => {
                needed.blobs.extend(
                    manifest
                        .layers
                        .iter()
                        .chain([&manifest.config])
                        .map(|part| part.digest),
                );
                if media_type::is_config(&manifest.config.media_type) {
                    let config = ImageConfig::parse(&self.read_blob(&manifest.config)?)?;
                    needed.layers.extend(chain_ids(&config.rootfs.diff_ids));
                }
            }
        }
        Ok(())
    }
}
