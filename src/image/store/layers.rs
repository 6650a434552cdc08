//! Which layers are unpacked? Each once, by chain id, for all images and containers that have it.
//!
//! `layers/HEX/diff` is overlayfs's lower directory. It is made as `layers/HEX.tmp`, under a lock of its
//! own, so that two who need it do the work once, and gets its name when it is whole and on disk. `diff-UID-GID` beside it is
//! the same for containers in which the user keeps these ids.

use super::lock::Lock;
use super::{Image, Store, sync_dir};
use crate::image::config::chain_ids;
use crate::image::digest::Digest;
use crate::image::progress::Progress;
use crate::image::unpack::{Options, Unpacker};
use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How the name ends of a layer's directory that was replaced while mounted, `HEX.0.replaced`. It stays for as long
/// as a bundle has the layer.
pub const REPLACED: &str = ".replaced";

/// `complete.json`: what a layer was made from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Complete {
    pub diff_id: Digest,
    /// The layer below; none for the lowest.
    pub parent: Option<Digest>,
    /// Bytes of the layer's tar.
    pub size: u64,
}

impl Store {
    pub fn layer_path(&self, chain_id: &Digest) -> PathBuf {
        self.root.join("layers").join(chain_id.hex())
    }

    /// Unpacks those layers of an image that are not yet; gives their directories, uppermost first, as
    /// overlayfs wants them.
    pub fn layers(
        &self,
        image: &Image,
        options: &Options,
        progress: &Progress,
    ) -> Result<Vec<PathBuf>> {
        let chain = chain_ids(&image.config.rootfs.diff_ids);
        for at in 0..chain.len() {
            let context = || format!("layer {}", image.manifest.layers[at].digest);
            self.layer(image, &chain, at, options, progress)
                .with_context(context)?;
            if options.kept.is_some() {
                self.variant(image, &chain, at, options)
                    .with_context(context)?;
            }
        }
        Ok(chain
            .iter()
            .rev()
            .map(|id| self.layer_path(id).join(diff_name(options)))
            .collect())
    }

    /// Removes an unpacked layer; half of it never has a layer's name. The store must be open alone.
    pub fn drop_layer(&self, chain_id: &Digest) -> Result<()> {
        let path = self.layer_path(chain_id);
        let temporary = path.with_extension("tmp");
        remove_tree(&temporary)?;
        fs::rename(&path, &temporary)?;
        remove_tree(&temporary)
    }

    /// Unpacks a layer that is there once more, in its place. What was there may be mounted, and keeps its files
    /// under another name. The store must be open alone.
    pub(super) fn replace_layer(&self, image: &Image, at: usize, options: &Options) -> Result<()> {
        let chain = chain_ids(&image.config.rootfs.diff_ids);
        let path = self.layer_path(&chain[at]);
        let temporary = path.with_extension("tmp");
        remove_tree(&temporary)?;
        let quiet = Progress::new(true);
        if let Err(e) = self.unpack_layer(image, &chain, at, options, &quiet, &temporary) {
            // The first error is the one to report.
            let _ = remove_tree(&temporary);
            return Err(e);
        }
        let replaced = (0_u32..)
            .map(|number| path.with_extension(format!("{number}{REPLACED}")))
            .find(|replaced| !replaced.exists())
            .context("no name is free")?;
        // Never without a layer, and never with the old one under a name that is swept.
        fs::rename(&temporary, &replaced)?;
        let swap = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
        nix::fcntl::renameat2(AT_FDCWD, &replaced, AT_FDCWD, &path, swap)
            .context("renameat2(RENAME_EXCHANGE)")?;
        sync_dir(&self.root.join("layers"))
    }

    fn layer(
        &self,
        image: &Image,
        chain: &[Digest],
        at: usize,
        options: &Options,
        progress: &Progress,
    ) -> Result<()> {
        let path = self.layer_path(&chain[at]);
        let plain = Options {
            kept: None,
            ..options.clone()
        };
        self.make_once(&path, &chain[at], |temporary| {
            self.unpack_layer(image, chain, at, &plain, progress, temporary)?;
            Ok(temporary.to_owned())
        })
    }

    /// The layer once more beside itself, with other owners: it goes when the layer does.
    fn variant(&self, image: &Image, chain: &[Digest], at: usize, options: &Options) -> Result<()> {
        let path = self.layer_path(&chain[at]).join(diff_name(options));
        let quiet = Progress::new(true);
        self.make_once(&path, &chain[at], |temporary| {
            self.unpack_layer(image, chain, at, options, &quiet, temporary)?;
            Ok(temporary.join(diff_name(options)))
        })
    }

    /// Gives `path` what `make` says is to have that name, below a temporary place beside it; nothing where another has.
    fn make_once(
        &self,
        path: &Path,
        layer: &Digest,
        make: impl FnOnce(&Path) -> Result<PathBuf>,
    ) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let lock_path = self.root.join(format!("lock/layer-{}", layer.hex()));
        let _lock = Lock::exclusive(&lock_path, "the layer")?;
        if path.exists() {
            return Ok(());
        }
        let temporary = path.with_extension("tmp");
        // Left by one who died.
        remove_tree(&temporary)?;
        let named = make(&temporary).and_then(|made| {
            fs::rename(made, path)?;
            sync_dir(path.parent().context("a name in a directory")?)
        });
        // Where there was an error, it is the one to report; what is left is removed by the next one.
        let removed = remove_tree(&temporary);
        named.and(removed)
    }

    fn unpack_layer(
        &self,
        image: &Image,
        chain: &[Digest],
        at: usize,
        options: &Options,
        progress: &Progress,
        into: &Path,
    ) -> Result<()> {
        let (blob, diff_id) = (
            &image.manifest.layers[at],
            &image.config.rootfs.diff_ids[at],
        );
        let diff = into.join(diff_name(options));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&diff)?;
        let below = chain[..at]
            .iter()
            .rev()
            .map(|id| open_dir(&self.layer_path(id).join(diff_name(options))));
        let bar = progress.bar(&format!("layer {}", blob.digest.short()), Some(blob.size));
        let mut unpacker =
            Unpacker::overlay(open_dir(&diff)?, below.collect::<Result<_>>()?, options)?;
        let size = unpacker.apply(self.open_blob(blob)?, diff_id)?;
        unpacker.finish()?.tell();
        let complete = Complete {
            diff_id: *diff_id,
            parent: at.checked_sub(1).map(|below| chain[below]),
            size,
        };
        fs::write(into.join("complete.json"), serde_json::to_vec(&complete)?)?;
        // One call for thousands of files.
        nix::unistd::syncfs(File::open(into)?.as_fd()).context("syncfs")?;
        bar.done("unpacked");
        Ok(())
    }
}

/// Of a layer's directory, with owners as they are here.
fn diff_name(options: &Options) -> String {
    match options.kept {
        None => "diff".to_owned(),
        Some(kept) => format!("diff-{}-{}", kept.uid, kept.gid),
    }
}

pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    Ok(File::open(path)
        .with_context(|| format!("open {}", path.display()))?
        .into())
}

/// Removes a directory and all below it, if it is there, also what closed itself to its owner.
pub fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            unlock(path)?;
            fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))
        }
        other => other.with_context(|| format!("remove {}", path.display())),
    }
}

/// Opens directories to their owner: without root, a mode of an image may have closed them.
fn unlock(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if fs::symlink_metadata(path)?.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)? {
            unlock(&entry?.path())?;
        }
    }
    Ok(())
}
