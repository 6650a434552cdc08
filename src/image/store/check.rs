//! Is the store whole? Every blob against its digest, every image against its blobs, every unpacked layer
//! against the blob it came from.
//!
//! What is wrong is said; repaired is what can be without inventing anything: a damaged blob is removed,
//! so that it is fetched again; an image that misses one loses its names; a layer is unpacked anew,
//! beside the damaged one while that is in use.

use super::layers::{Complete, open_dir, remove_tree};
use super::{Image, Store, replace};
use crate::image::config::chain_ids;
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{Descriptor, Document, Index, REF_NAME, media_type};
use crate::image::progress::Progress;
use crate::image::unpack::tree::{Kind, Stat, lstat, names, open_at, quoted, stat_of};
use crate::image::unpack::{Options, Unpacker};
use crate::sys::{Call, xattr};
use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, readlinkat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// What was found: a sentence each, and what was done about it.
#[derive(Debug, Default)]
pub struct Findings {
    pub blobs: u64,
    pub images: u64,
    pub layers: u64,
    pub trouble: Vec<Trouble>,
}

#[derive(Debug)]
pub struct Trouble {
    pub what: String,
    /// Empty: it was left as it is.
    pub done: &'static str,
}

impl Findings {
    fn add(&mut self, what: String, done: &'static str) {
        self.trouble.push(Trouble { what, done });
    }
}

impl Store {
    /// Checks all of the store. `repair` needs the store open alone.
    pub fn check(&self, repair: bool, options: &Options) -> Result<Findings> {
        let mut found = Findings::default();
        self.check_index(repair, &mut found)?;
        self.check_blobs(repair, &mut found)?;
        let images = self.check_images(repair, &mut found)?;
        let mut sources: BTreeMap<Digest, (&Image, usize)> = BTreeMap::new();
        for image in &images {
            let chain = chain_ids(&image.config.rootfs.diff_ids);
            sources.extend((0..).zip(chain).map(|(at, id)| (id, (image, at))));
        }
        self.check_layers(&sources, repair, options, &mut found)?;
        self.check_leases(&sources, repair, options, &mut found);
        Ok(found)
    }

    /// An index that cannot be read is made anew from the manifests that are there; names are lost.
    fn check_index(&self, repair: bool, found: &mut Findings) -> Result<()> {
        let Err(e) = self.index() else {
            return Ok(());
        };
        if !repair {
            found.add(format!("{e:#}"), "");
            bail!("{e:#}: sc-image fsck --repair makes it anew, without names");
        }
        let mut manifests = Vec::new();
        for entry in fs::read_dir(self.root.join("image/blobs/sha256"))? {
            let entry = entry?;
            let size = entry.metadata()?.len();
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|hex| Digest::from_hex(hex).ok());
            let Some(digest) = digest.filter(|_| size <= crate::image::manifest::DOCUMENT_LIMIT)
            else {
                continue;
            };
            let content = fs::read(entry.path())?;
            if let Ok(Document::Manifest(manifest)) = Document::parse(&content, None) {
                let kind = manifest
                    .media_type
                    .as_deref()
                    .unwrap_or(media_type::MANIFEST);
                manifests.push(Descriptor::new(kind, digest, size));
            }
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: None,
        };
        replace(
            &self.root.join("image/index.json"),
            &serde_json::to_vec(&index)?,
        )?;
        found.add(format!("{e:#}"), "made anew, without names");
        Ok(())
    }

    fn check_blobs(&self, repair: bool, found: &mut Findings) -> Result<()> {
        for entry in fs::read_dir(self.root.join("image/blobs/sha256"))? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            found.blobs += 1;
            let trouble = match Digest::from_hex(&name) {
                Err(_) => format!("blobs/sha256/{name}: is no blob"),
                Ok(digest) => match digest_of(&path) {
                    Ok(real) if real == digest => continue,
                    Ok(real) => format!("blob {digest}: the content has digest {real}"),
                    Err(e) => format!("blob {digest}: {e:#}"),
                },
            };
            let done = match repair {
                true => remove(&path).map(|()| "removed")?,
                false => "",
            };
            found.add(trouble, done);
        }
        Ok(())
    }

    /// Gives the images that are whole.
    fn check_images(&self, repair: bool, found: &mut Findings) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        let mut broken = BTreeSet::new();
        for descriptor in self.index()?.manifests {
            found.images += 1;
            let name = descriptor
                .annotation(REF_NAME)
                .unwrap_or("<none>")
                .to_owned();
            if let Err(e) = self.check_below(&descriptor, &mut images) {
                broken.insert(descriptor.digest);
                let done = if repair {
                    "removed from the index: pull or load it again"
                } else {
                    ""
                };
                found.add(format!("image {name} ({}): {e:#}", descriptor.digest), done);
            }
        }
        if repair && !broken.is_empty() {
            self.change_index(|index| {
                index
                    .manifests
                    .retain(|descriptor| !broken.contains(&descriptor.digest));
                Ok(())
            })?;
        }
        Ok(images)
    }

    fn check_below(&self, descriptor: &Descriptor, images: &mut Vec<Image>) -> Result<()> {
        let content = self.read_blob(descriptor)?;
        match Document::parse(&content, Some(&descriptor.media_type))? {
            Document::Index(index) => {
                let mut here = index
                    .manifests
                    .iter()
                    .filter(|part| self.has(&part.digest))
                    .peekable();
                ensure!(here.peek().is_some(), "no image of the index is here");
                here.try_for_each(|part| self.check_below(part, images))
            }
            Document::Manifest(manifest) => {
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    self.open_blob(part)?;
                }
                if media_type::is_config(&manifest.config.media_type) {
                    images.push(self.image(descriptor)?);
                }
                Ok(())
            }
        }
    }

    fn check_layers(
        &self,
        sources: &BTreeMap<Digest, (&Image, usize)>,
        repair: bool,
        options: &Options,
        found: &mut Findings,
    ) -> Result<()> {
        let leases = self.leases()?;
        let mut chain_ids: Vec<Digest> = Vec::new();
        for entry in fs::read_dir(self.root.join("layers"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // HEX.tmp is in the making, or what a killed one left: gc removes it.
            chain_ids.extend(Digest::from_hex(&name).ok());
        }
        // From below: what lies on a damaged layer is compared with what is made on the mended one.
        chain_ids.sort_by_key(|chain_id| sources.get(chain_id).map(|(_, at)| *at));
        for chain_id in chain_ids {
            found.layers += 1;
            let source = sources.get(&chain_id).copied();
            let Err(e) = self.check_layer(&chain_id, source, options) else {
                continue;
            };
            let used = leases.iter().any(|lease| lease.layers.contains(&chain_id));
            let (note, done) = match (repair, used, source) {
                (false, ..) => ("", ""),
                (true, false, _) => {
                    self.drop_layer(&chain_id)?;
                    ("", "removed: unpacked anew when needed")
                }
                (true, true, Some((image, at))) => {
                    self.replace_layer(image, at, options)
                        .with_context(|| format!("layer {chain_id}"))?;
                    let done = "unpacked anew: containers that run have the old one until they are started again";
                    ("", done)
                }
                (true, true, None) => (
                    " (in use by a bundle, and its image is not here: left as it is)",
                    "",
                ),
            };
            found.add(format!("layer {chain_id}: {e:#}{note}"), done);
        }
        Ok(())
    }

    /// Unpacks a layer's blob once more and compares. Without an image that has it, only its shape is checked.
    fn check_layer(
        &self,
        chain_id: &Digest,
        source: Option<(&Image, usize)>,
        options: &Options,
    ) -> Result<()> {
        let path = self.layer_path(chain_id);
        let content = fs::read(path.join("complete.json")).context("complete.json")?;
        let complete: Complete = serde_json::from_slice(&content).context("complete.json")?;
        let diff = open_dir(&path.join("diff"))?;
        let Some((image, at)) = source else {
            return Ok(());
        };
        let chain = chain_ids(&image.config.rootfs.diff_ids);
        let parent = at.checked_sub(1).map(|below| chain[below]);
        ensure!(
            complete.diff_id == image.config.rootfs.diff_ids[at] && complete.parent == parent,
            "complete.json is another layer's"
        );
        if !chain[..at]
            .iter()
            .all(|below| self.layer_path(below).exists())
        {
            // It is unpacked again when this one is needed; until then there is nothing to compare with.
            return Ok(());
        }
        let again = self
            .root
            .join("layers")
            .join(format!("check-{}.tmp", std::process::id()));
        remove_tree(&again)?;
        DirBuilder::new().mode(0o700).create(&again)?;
        let compared = (|| {
            let below = chain[..at]
                .iter()
                .rev()
                .map(|id| open_dir(&self.layer_path(id).join("diff")));
            let fresh = open_dir(&again)?;
            let mut unpacker =
                Unpacker::overlay(fresh.try_clone()?, below.collect::<Result<_>>()?, options)?;
            unpacker.apply(
                self.open_blob(&image.manifest.layers[at])?,
                &complete.diff_id,
            )?;
            unpacker.finish()?;
            compare(fresh.as_fd(), diff.as_fd(), b"")
        })();
        let removed = remove_tree(&again);
        compared.and(removed)
    }

    fn check_leases(
        &self,
        sources: &BTreeMap<Digest, (&Image, usize)>,
        repair: bool,
        options: &Options,
        found: &mut Findings,
    ) {
        let leases = match self.leases() {
            Ok(leases) => leases,
            Err(e) => {
                found.add(format!("{e:#}"), "");
                return;
            }
        };
        // Without a config.json it is in the making.
        for lease in leases
            .iter()
            .filter(|lease| lease.bundle.join("config.json").exists())
        {
            for chain_id in &lease.layers {
                if self.layer_path(chain_id).exists() {
                    continue;
                }
                let mut what = format!(
                    "bundle {}: its layer {chain_id} is not unpacked",
                    lease.bundle.display()
                );
                let mut done = "";
                if let Some((image, _)) = sources.get(chain_id).filter(|_| repair) {
                    match self.layers(image, options, &Progress::new(true)) {
                        Ok(_) => done = "unpacked anew",
                        Err(e) => what += &format!(": {e:#}"),
                    }
                }
                found.add(what, done);
            }
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match path.symlink_metadata()?.is_dir() {
        true => remove_tree(path),
        false => fs::remove_file(path).with_context(|| format!("remove {}", path.display())),
    }
}

fn digest_of(path: &Path) -> Result<Digest> {
    ensure!(path.symlink_metadata()?.is_file(), "is no file");
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// That two directories hold the same: names, content, owners, modes, times, attributes.
fn compare(wanted: BorrowedFd, found: BorrowedFd, path: &[u8]) -> Result<()> {
    let (a, b) = (stat_of(wanted)?, stat_of(found)?);
    compare_stat(&a, &b)
        .and_then(|()| compare_xattrs(wanted, found, b""))
        .with_context(|| quoted(path))?;
    let (mut a, mut b) = (names(wanted, b"")?, names(found, b"")?);
    a.sort();
    b.sort();
    for name in &b {
        ensure!(
            a.binary_search(name).is_ok(),
            "{}: is not of the layer",
            quoted(&crate::image::layer::join(path, name))
        );
    }
    for name in &a {
        let below = crate::image::layer::join(path, name);
        let context = || quoted(&below);
        let Some(there) = lstat(found, name)? else {
            bail!("{}: is missing", context());
        };
        let stat = lstat(wanted, name)?.with_context(context)?;
        ensure!(stat.kind == there.kind, "{}: is of another type", context());
        if stat.kind == Kind::Directory {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let (a, b) = (open_at(wanted, name, flags)?, open_at(found, name, flags)?);
            compare(a.as_fd(), b.as_fd(), &below)?;
            continue;
        }
        compare_stat(&stat, &there).with_context(context)?;
        compare_xattrs(wanted, found, name).with_context(context)?;
        compare_content(wanted, found, name, stat.kind).with_context(context)?;
    }
    Ok(())
}

fn compare_stat(wanted: &Stat, found: &Stat) -> Result<()> {
    ensure!(
        wanted.mode == found.mode,
        "has mode {:o} instead of {:o}",
        found.mode,
        wanted.mode
    );
    let (a, b) = ((wanted.uid, wanted.gid), (found.uid, found.gid));
    ensure!(
        a == b,
        "belongs to {}:{} instead of {}:{}",
        b.0,
        b.1,
        a.0,
        a.1
    );
    // A whiteout is dated when it is made: no entry of the layer says otherwise.
    let dated = wanted.is_whiteout() || wanted.times.mtime == found.times.mtime;
    ensure!(dated, "was changed");
    ensure!(
        wanted.kind == Kind::Directory || wanted.size == found.size,
        "has {} bytes instead of {}",
        found.size,
        wanted.size
    );
    ensure!(wanted.device == found.device, "is another device");
    Ok(())
}

fn compare_xattrs(wanted: BorrowedFd, found: BorrowedFd, name: &[u8]) -> Result<()> {
    let all = |dir: BorrowedFd| -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        let names = xattr::list_at(dir, name)?.into_iter();
        names
            .map(|attribute| Ok((attribute.clone(), xattr::get_at(dir, name, &attribute)?)))
            .collect()
    };
    ensure!(all(wanted)? == all(found)?, "has other attributes");
    Ok(())
}

fn compare_content(wanted: BorrowedFd, found: BorrowedFd, name: &[u8], kind: Kind) -> Result<()> {
    match kind {
        Kind::Symlink => {
            let read = |dir: BorrowedFd| readlinkat(dir, name).call("readlinkat", || quoted(name));
            ensure!(read(wanted)? == read(found)?, "leads elsewhere");
        }
        Kind::File => {
            let open = |dir: BorrowedFd| {
                open_at(dir, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW).map(File::from)
            };
            let (mut a, mut b) = (open(wanted)?, open(found)?);
            let (mut one, mut other) = (vec![0; 64 << 10], vec![0; 64 << 10]);
            loop {
                let n = a.read(&mut one)?;
                if n == 0 {
                    break;
                }
                b.read_exact(&mut other[..n])?;
                ensure!(one[..n] == other[..n], "has other content");
            }
        }
        _ => {}
    }
    Ok(())
}
