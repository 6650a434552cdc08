//! How does a layer become files? Entry by entry, into a tree that nothing can lead out of.
//!
//! Two ways. *Flat*: all layers into one directory, whiteouts obeyed at once: a bundle's rootfs.
//! *Overlay*: each layer into a directory of its own, whiteouts written as overlayfs reads them, so that
//! images share layers and containers share images.
//!
//! # Layout
//! - [`feed`]: the layer decoded by a thread of its own, and hashed.
//! - [`tree`]: open directories; attributes of directories, set at the end.
//! - [`below`]: what lower layers have, where that matters.
//!
//! Per file: open, write, futimens, close; chown, xattrs and chmod only where the value differs from what
//! open gave. umoci needs ten times as many calls.

pub mod below;
pub mod feed;
pub mod tree;

use super::digest::Digest;
use super::layer::{self, Act};
use super::show;
use super::tape::{Entry, Kind as EntryKind, Tape, Time};
use crate::idmap::Kept;
use crate::sys::{Call, Error, xattr};
use anyhow::{Context, Result, bail, ensure};
use below::{Below, Found, LINK_LIMIT, OPAQUE};
use feed::{Feed, feed};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat, write};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use tree::{Kind, Meta, Times, Tree, lstat, names, open_at, quoted};

/// How layers are unpacked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that one layer may have when it is unpacked.
    pub max_size: u64,
    /// Everything belongs to who unpacks: for a user without subordinate ids.
    pub squash: bool,
    /// Without privilege in the first user namespace: no device nodes, no `trusted.` attributes.
    pub privileged: bool,
    /// Ids of the container are these here.
    pub kept: Option<Kept>,
}

/// The default of [`Options::max_size`]: more than any honest layer, less than a disk.
pub const MAX_SIZE: u64 = 128 << 30;

/// What could not be done and is told once, at the end: what, how often, and an example.
#[derive(Default)]
pub struct Warnings(Vec<(&'static str, u64, String)>);

impl Warnings {
    fn add(&mut self, what: &'static str, example: String) {
        match self.0.iter_mut().find(|(known, ..)| *known == what) {
            Some((_, count, _)) => *count += 1,
            None => self.0.push((what, 1, example)),
        }
    }

    pub fn tell(self) {
        for (what, count, example) in self.0 {
            let more = match count {
                1 => String::new(),
                _ => format!(" and {} more", count - 1),
            };
            show::warn(format_args!("{what}: {example}{more}"));
        }
    }
}

/// A tree that layers are applied to, lowest first.
pub struct Unpacker<'a> {
    tree: Tree,
    how: How,
    options: &'a Options,
    ids: Ids,
    pub warnings: Warnings,
}

enum How {
    /// A tar stream as it is: no name means anything.
    Plain {
        /// `.` is told too.
        with_root: bool,
    },
    Flat {
        /// Whether there is a layer below the present one.
        above: bool,
        /// What the present layer has added, hashed: whiteouts are not for it. The key is secret, so a
        /// layer cannot choose names that collide.
        added: HashSet<u64>,
        key: RandomState,
    },
    Overlay {
        below: Below,
        /// Directories that hide what is below, by inode: links give one several paths.
        opaque: HashSet<u64>,
    },
}

/// The ids that may be given to files here, and who we are.
struct Ids {
    own: (u32, u32),
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

impl<'a> Unpacker<'a> {
    /// All layers into the empty directory `root`.
    pub fn flat(root: OwnedFd, options: &'a Options) -> Result<Unpacker<'a>> {
        let how = How::Flat {
            above: false,
            added: HashSet::new(),
            key: RandomState::new(),
        };
        Unpacker::new(root, how, options)
    }

    /// A plain tar stream into a directory that may have content: what is in the way of a file is replaced,
    /// directories are merged. Whether `.` of the stream says what `root` is like is the caller's to say.
    pub fn plain(root: OwnedFd, with_root: bool, options: &'a Options) -> Result<Unpacker<'a>> {
        Ok(Unpacker {
            tree: Tree::new(root),
            how: How::Plain { with_root },
            options,
            ids: Ids::here()?,
            warnings: Warnings::default(),
        })
    }

    /// One layer into the empty directory `root`; `below` are those it lies on, uppermost first.
    pub fn overlay(
        root: OwnedFd,
        below: Vec<OwnedFd>,
        options: &'a Options,
    ) -> Result<Unpacker<'a>> {
        let below = Below::new(below);
        let lower_root = match below.root() {
            Some(lower) => Some((tree::stat_of(lower.as_fd())?, lower.clone())),
            None => None,
        };
        let opaque = HashSet::new();
        let mut unpacker = Unpacker::new(root, How::Overlay { below, opaque }, options)?;
        // The uppermost layer's root is the one that is seen: without an entry it is as below.
        if let Some((stat, lower)) = lower_root {
            let meta = with_xattrs(stat.meta(), lower.as_fd(), b"")?;
            unpacker.tree.put_root(meta)?;
        }
        Ok(unpacker)
    }

    fn new(root: OwnedFd, how: How, options: &'a Options) -> Result<Unpacker<'a>> {
        let mut tree = Tree::new(root);
        tree.put_root(plain_dir(options))?;
        Ok(Unpacker {
            tree,
            how,
            options,
            ids: Ids::here()?,
            warnings: Warnings::default(),
        })
    }

    /// Applies a layer, and verifies that its content has the digest `diff_id`. Gives its size.
    pub fn apply(&mut self, blob: File, diff_id: &Digest) -> Result<u64> {
        let (digest, size) = self.take(blob)?;
        ensure!(
            digest == *diff_id,
            "the content has diff id {digest}, the image's config says {diff_id}"
        );
        if let How::Flat { above, added, .. } = &mut self.how {
            *above = true;
            added.clear();
        }
        Ok(size)
    }

    /// Takes a stream to its end, compressed or not; gives the digest of its content, and its size.
    pub fn take(&mut self, blob: File) -> Result<(Digest, u64)> {
        let (pump, feed) = feed();
        let limit = self.options.max_size;
        let (pumped, applied) = std::thread::scope(|scope| {
            let pump = scope.spawn(move || pump.run(blob, limit));
            let applied = self.entries(feed);
            (pump.join(), applied)
        });
        let pumped = pumped.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What could not be decoded looks to the reader as if it ended early.
        let size = pumped?;
        Ok((applied?, size))
    }

    /// Sets what can only be set at the end.
    pub fn finish(mut self) -> Result<Warnings> {
        let (warnings, options) = (&mut self.warnings, self.options);
        self.tree.finish(&mut |fd, name, value| {
            let set = xattr::set(fd, name, value);
            tolerate(set, options, warnings, name)
        })?;
        Ok(self.warnings)
    }

    /// Gives the digest of all that the feed held.
    fn entries(&mut self, feed: Feed) -> Result<Digest> {
        let mut tape = Tape::new(feed);
        let mut sum: u64 = 0;
        while let Some(entry) = tape.next_entry()? {
            // Holes count too: they are of the layer's making.
            sum = sum.saturating_add(entry.size);
            let limit = self.options.max_size;
            let context = || format!("entry {}", quoted(&entry.path));
            ensure!(
                sum <= limit,
                "{}: more than {limit} bytes of files: see --max-size",
                context()
            );
            self.entry(&entry, &mut tape).with_context(context)?;
        }
        Ok(tape.finish()?.digest())
    }

    fn entry(&mut self, entry: &Entry, tape: &mut Tape<Feed>) -> Result<()> {
        let act = match self.how {
            How::Plain { with_root } => match layer::inside(&entry.path)? {
                path if !path.is_empty() => Act::Put(path),
                _ if with_root => Act::Root,
                _ => Act::Skip,
            },
            _ => layer::act(&entry.path)?,
        };
        match act {
            Act::Skip => Ok(()),
            Act::Hide(path) => self.hide(&path),
            Act::HideAllIn(dir) => self.hide_all_in(&dir),
            Act::Root => {
                ensure!(
                    entry.kind == EntryKind::Directory,
                    "the root must be a directory"
                );
                let meta = self.meta(entry)?;
                self.tree.put_root(meta)
            }
            Act::Put(path) => {
                self.put(entry, &path, tape)?;
                if let How::Flat {
                    above: true,
                    added,
                    key,
                } = &mut self.how
                {
                    added.insert(key.hash_one(&path));
                }
                Ok(())
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Content

    fn put(&mut self, entry: &Entry, path: &[u8], tape: &mut Tape<Feed>) -> Result<()> {
        let (dir, name) = layer::split(path);
        let parent = self.parent(dir)?;
        let meta = self.meta(entry)?;
        match entry.kind {
            EntryKind::File => {
                let file = self.file(&parent, name, path, &meta)?;
                write_content(file.as_fd(), entry, tape)?;
                self.finish_file(file.as_fd(), &meta)
            }
            EntryKind::Directory => self.directory(&parent, name, path, meta),
            EntryKind::Link => self.link(entry, &parent, name, path),
            EntryKind::Symlink => {
                ensure!(!entry.link.is_empty(), "a symbolic link to nothing");
                self.fresh("symlinkat", &parent, name, path, |dir, name| {
                    symlinkat(entry.link.as_slice(), dir, name)
                })?;
                self.finish_node(&parent, name, &meta, false)
            }
            EntryKind::Char | EntryKind::Block | EntryKind::Fifo => {
                self.node(entry, &parent, name, path, &meta)
            }
        }
    }

    fn file(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], meta: &Meta) -> Result<OwnedFd> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(meta.mode & 0o777);
        self.fresh("openat", parent, name, path, |dir, name| {
            openat(dir, name, flags, mode)
        })
    }

    fn finish_file(&mut self, file: BorrowedFd, meta: &Meta) -> Result<()> {
        if let Some(owner) = meta.owner {
            tree::chown(file, owner)?;
        }
        for (name, value) in &meta.xattrs {
            let set = xattr::set(file, name, value);
            tolerate(set, self.options, &mut self.warnings, name)?;
        }
        // open(2) gave the rest, less the umask.
        if meta.mode & 0o7022 != 0 {
            tree::chmod(file, meta.mode)?;
        }
        tree::set_times(file, meta.times)
    }

    fn directory(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], meta: Meta) -> Result<()> {
        // Mostly it is new: only what is in the way costs a look.
        if self.tree.put_dir(parent, name, path, &meta)? {
            return Ok(());
        }
        let there = lstat(parent.as_fd(), name)?.context("it has gone")?;
        ensure!(
            !matches!(self.how, How::Plain { .. }),
            "cannot overwrite non-directory with directory"
        );
        self.clear(parent, name, path)?;
        ensure!(
            self.tree.put_dir(parent, name, path, &meta)?,
            "it is there again"
        );
        match there.is_whiteout() && self.is_overlay() {
            true => self.make_opaque_at(parent, name),
            false => Ok(()),
        }
    }

    fn link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let target = layer::inside(&entry.link)
            .with_context(|| format!("link to {}", quoted(&entry.link)))?;
        let (dir, target_name) = layer::split(&target);
        let missing = || format!("a hard link to {}, which is not there", quoted(&target));
        let mut source = self.tree.dir(dir)?;
        let mut there = match &source {
            Some(source) => lstat(source.as_fd(), target_name)?,
            None => None,
        };
        if there.is_none() && self.found_below(&target)?.is_some() {
            self.copy_up(&target).with_context(missing)?;
            source = self.tree.dir(dir)?;
            there = match &source {
                Some(source) => lstat(source.as_fd(), target_name)?,
                None => None,
            };
        }
        let (Some(source), Some(there)) = (source, there) else {
            bail!(missing());
        };
        ensure!(
            there.kind != Kind::Directory,
            "a hard link to {}, a directory",
            quoted(&target)
        );
        ensure!(!(self.is_overlay() && there.is_whiteout()), missing());
        if lstat(parent.as_fd(), name)?.is_some_and(|here| here.ino == there.ino) {
            return Ok(());
        }
        self.fresh("linkat", parent, name, path, |dir, name| {
            linkat(&*source, target_name, dir, name, AtFlags::empty())
        })
    }

    fn node(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        meta: &Meta,
    ) -> Result<()> {
        let kind = match entry.kind {
            EntryKind::Char => SFlag::S_IFCHR,
            EntryKind::Block => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        if entry.kind != EntryKind::Fifo && !self.options.privileged {
            self.warnings
                .add("device nodes need root and are left out", quoted(path));
            return Ok(());
        }
        let mode = Mode::from_bits_truncate(meta.mode & 0o777);
        let device = makedev(entry.major, entry.minor);
        let made = self.fresh("mknodat", parent, name, path, |dir, name| {
            mknodat(dir, name, kind, mode, device)
        });
        match made {
            Err(e) if refused(&e) == Some(Errno::EPERM) => {
                self.warnings.add(
                    "device nodes may not be made here and are left out",
                    quoted(path),
                );
                Ok(())
            }
            made => made.and_then(|()| self.finish_node(parent, name, meta, true)),
        }
    }

    /// What is not opened: links and devices.
    fn finish_node(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        meta: &Meta,
        has_mode: bool,
    ) -> Result<()> {
        if let Some((uid, gid)) = meta.owner {
            let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            fchownat(parent, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)
                .call("fchownat", || format!("{uid}, {gid}"))?;
        }
        for (attribute, value) in &meta.xattrs {
            let set = xattr::set_at(parent.as_fd(), name, attribute, value);
            tolerate(set, self.options, &mut self.warnings, attribute)?;
        }
        if has_mode && meta.mode & 0o7022 != 0 {
            // Not a link: it was made a moment ago, in a directory nobody else writes into.
            let bits = Mode::from_bits_truncate(meta.mode);
            let follow = nix::sys::stat::FchmodatFlags::FollowSymlink;
            nix::sys::stat::fchmodat(parent, name, bits, follow)
                .call("fchmodat", || quoted(name))?;
        }
        let Times { atime, mtime } = &meta.times;
        utimensat(parent, name, atime, mtime, UtimensatFlags::NoFollowSymlink)
            .call("utimensat", || quoted(name))?;
        Ok(())
    }

    /// Makes something new; what has the name goes first.
    fn fresh<T>(
        &mut self,
        call: &'static str,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        make: impl Fn(&OwnedFd, &[u8]) -> nix::Result<T>,
    ) -> Result<T> {
        let made = match make(parent, name) {
            Err(Errno::EEXIST) => {
                self.clear(parent, name, path)?;
                make(parent, name)
            }
            made => made,
        };
        Ok(made.call(call, || quoted(path))?)
    }

    /// Removes what has a name, a directory with all that is in it.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let Some(there) = lstat(parent.as_fd(), name)? else {
            return Ok(());
        };
        if matches!(self.how, How::Plain { .. }) {
            // docker's words.
            let directory = there.kind == Kind::Directory;
            ensure!(!directory, "cannot overwrite directory with non-directory");
        }
        if there.kind == Kind::Directory {
            tree::remove(parent.as_fd(), name, path, &|_| false)?;
        } else {
            unlinkat(parent, name, UnlinkatFlags::NoRemoveDir).call("unlinkat", || quoted(path))?;
        }
        if matches!(there.kind, Kind::Directory | Kind::Symlink) {
            self.tree.forget();
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------
    // Directories that have no entry of their own

    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        match self.tree.dir(path)? {
            Some(dir) => Ok(dir),
            None => self.make_parent(path),
        }
    }

    /// Makes a directory and those above it, where links lead and as the layers below have them.
    fn make_parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        let mut rest: VecDeque<Vec<u8>> = below::parts(path).collect();
        let (mut done, mut links) = (Vec::new(), 0);
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                done = below::up(&done);
                continue;
            }
            let here = layer::join(&done, &name);
            if self.tree.dir(&here)?.is_some() {
                done = here;
                continue;
            }
            let parent = self.tree.dir(&done)?.context("a directory has gone")?;
            match self.link_at(&parent, &name, &here)? {
                Some(target) => {
                    links += 1;
                    ensure!(links <= LINK_LIMIT, "too many symbolic links");
                    let (from_root, parts) = below::target_parts(&target);
                    if from_root {
                        done.clear();
                    }
                    parts
                        .into_iter()
                        .rev()
                        .for_each(|part| rest.push_front(part));
                }
                None => {
                    self.implied(&parent, &name, &here)?;
                    done = here;
                }
            }
        }
        self.tree.dir(&done)?.context("a directory has gone")
    }

    /// Where a symbolic link leads that is at this name, here or below.
    fn link_at(&self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Option<Vec<u8>>> {
        let read = |dir: BorrowedFd, name: &[u8]| {
            let target = readlinkat(dir, name).call("readlinkat", || quoted(name))?;
            Ok(Some(target.as_bytes().to_vec()))
        };
        match lstat(parent.as_fd(), name)? {
            Some(there) if there.kind == Kind::Symlink => read(parent.as_fd(), name),
            Some(_) => Ok(None),
            None => match self.found_below(path)? {
                Some(found) if found.stat.kind == Kind::Symlink => {
                    read(found.dir.as_fd(), &found.name)
                }
                _ => Ok(None),
            },
        }
    }

    fn implied(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let there = lstat(parent.as_fd(), name)?;
        if there.is_some() {
            self.clear(parent, name, path)?;
        }
        let hides = self.is_overlay() && there.is_some_and(|there| there.is_whiteout());
        let below = match hides {
            true => None,
            false => self.found_below(path)?,
        };
        let meta = match below.filter(|found| found.stat.kind == Kind::Directory) {
            Some(found) => with_xattrs(found.stat.meta(), found.dir.as_fd(), &found.name)?,
            None => plain_dir(self.options),
        };
        self.tree.put_dir(parent, name, path, &meta)?;
        if hides {
            self.make_opaque_at(parent, name)?;
        }
        Ok(())
    }

    // -----------------------------------------------------------------------------------------
    // Whiteouts

    fn hide(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = layer::split(path);
        match &self.how {
            How::Plain { .. } | How::Flat { above: false, .. } => Ok(()),
            How::Flat { added, key, .. } => {
                let Some(parent) = self.tree.dir(dir)? else {
                    return Ok(());
                };
                let added = |path: &[u8]| added.contains(&key.hash_one(path));
                tree::remove(parent.as_fd(), name, path, &added)?;
                self.tree.forget();
                Ok(())
            }
            How::Overlay { .. } => {
                if self.found_below(path)?.is_none() {
                    return Ok(());
                }
                let parent = self.parent(dir)?;
                let ino = tree::stat_of(parent.as_fd())?.ino;
                if matches!(&self.how, How::Overlay { opaque, .. } if opaque.contains(&ino)) {
                    return Ok(());
                }
                match lstat(parent.as_fd(), name)? {
                    None => {
                        let mode = Mode::from_bits_truncate(0o600);
                        mknodat(&*parent, name, SFlag::S_IFCHR, mode, 0)
                            .call("mknodat", || quoted(path))
                            .context("a whiteout cannot be made there, as on a file system that is an overlay itself")
                    }
                    // This layer's own: a directory of it hides what is below, anything else does anyway.
                    Some(there) if there.kind == Kind::Directory => {
                        self.make_opaque_at(&parent, name)
                    }
                    Some(_) => Ok(()),
                }
            }
        }
    }

    fn hide_all_in(&mut self, dir: &[u8]) -> Result<()> {
        match &self.how {
            How::Plain { .. } | How::Flat { above: false, .. } => Ok(()),
            How::Flat { added, key, .. } => {
                let Some(parent) = self.tree.dir(dir)? else {
                    return Ok(());
                };
                let added = |path: &[u8]| added.contains(&key.hash_one(path));
                for name in dir_names(&parent)? {
                    tree::remove(parent.as_fd(), &name, &layer::join(dir, &name), &added)?;
                }
                self.tree.forget();
                Ok(())
            }
            How::Overlay { below, .. } if below.is_empty() => Ok(()),
            How::Overlay { .. } => {
                let dir = self.parent(dir)?;
                self.make_opaque(dir.as_fd())
            }
        }
    }

    /// Marks a directory of this layer as hiding what is below; whiteouts in it are not needed, and
    /// would be listed.
    fn make_opaque(&mut self, dir: BorrowedFd) -> Result<()> {
        let attribute = OPAQUE[if self.options.privileged { 0 } else { 1 }];
        xattr::set_at(dir, b".", attribute, b"y")?;
        for name in names(dir, b"")? {
            if lstat(dir, &name)?.is_some_and(|there| there.is_whiteout()) {
                tree::remove(dir, &name, &name, &|_| false)?;
            }
        }
        if let How::Overlay { opaque, .. } = &mut self.how {
            opaque.insert(tree::stat_of(dir)?.ino);
        }
        Ok(())
    }

    fn make_opaque_at(&mut self, parent: &OwnedFd, name: &[u8]) -> Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let dir = open_at(parent.as_fd(), name, flags)?;
        self.make_opaque(dir.as_fd())
    }

    fn is_overlay(&self) -> bool {
        matches!(self.how, How::Overlay { .. })
    }

    fn found_below(&self, path: &[u8]) -> Result<Option<Found>> {
        match &self.how {
            How::Overlay { below, .. } => below.find(path),
            How::Plain { .. } | How::Flat { .. } => Ok(None),
        }
    }

    /// Copies a file of a lower layer into this one, at the same path.
    fn copy_up(&mut self, path: &[u8]) -> Result<()> {
        let found = self.found_below(path)?.context("no lower layer has it")?;
        let (dir, name) = layer::split(path);
        let parent = self.parent(dir)?;
        let meta = with_xattrs(found.stat.meta(), found.dir.as_fd(), &found.name)?;
        match found.stat.kind {
            Kind::File => {
                let from = open_at(
                    found.dir.as_fd(),
                    &found.name,
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW,
                )?;
                let to = File::from(self.file(&parent, name, path, &meta)?);
                std::io::copy(&mut File::from(from), &mut &to)?;
                self.finish_file(to.as_fd(), &meta)
            }
            Kind::Symlink => {
                let target = readlinkat(&*found.dir, found.name.as_slice())
                    .call("readlinkat", || quoted(path))?;
                self.fresh("symlinkat", &parent, name, path, |dir, name| {
                    symlinkat(target.as_os_str(), dir, name)
                })?;
                self.finish_node(&parent, name, &meta, false)
            }
            _ => bail!("not a file"),
        }
    }

    // -----------------------------------------------------------------------------------------
    // Attributes

    fn meta(&mut self, entry: &Entry) -> Result<Meta> {
        let owner = match self.options.squash {
            true => None,
            false => {
                let (uid, gid) = outward(self.options, entry.uid, entry.gid);
                self.ids.owner(uid, gid)?
            }
        };
        let mtime = timespec(entry.mtime);
        let privileged = self.options.privileged;
        let wanted = entry
            .xattrs
            .iter()
            .filter(|(name, _)| layer::takes_xattr(name, privileged));
        Ok(Meta {
            mode: entry.mode,
            owner,
            times: Times {
                atime: entry.atime.map_or(mtime, timespec),
                mtime,
            },
            xattrs: wanted.cloned().collect(),
        })
    }
}

fn dir_names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    names(dir.as_fd(), b"")
}

fn outward(options: &Options, uid: u64, gid: u64) -> (u64, u64) {
    let kept = options.kept;
    kept.map_or((uid, gid), |kept| kept.outward(uid, gid))
}

/// A directory that no layer describes: root's.
fn plain_dir(options: &Options) -> Meta {
    let root = outward(options, 0, 0);
    let epoch = TimeSpec::new(0, 0);
    Meta {
        mode: 0o755,
        owner: (root != (0, 0)).then_some((root.0 as u32, root.1 as u32)),
        times: Times {
            atime: epoch,
            mtime: epoch,
        },
        xattrs: Vec::new(),
    }
}

fn with_xattrs(mut meta: Meta, dir: BorrowedFd, name: &[u8]) -> Result<Meta> {
    for attribute in xattr::list_at(dir, name)? {
        if layer::takes_xattr(&attribute, true)
            && let Some(value) = xattr::get_at(dir, name, &attribute)?
        {
            meta.xattrs.push((attribute, value));
        }
    }
    Ok(meta)
}

fn timespec(time: Time) -> TimeSpec {
    // File systems clamp what they cannot keep; the nanoseconds are in range by construction.
    TimeSpec::new(time.seconds, i64::from(time.nanos))
}

/// An attribute that cannot be kept here is worth a warning, not the image.
fn tolerate(
    set: Result<(), Error>,
    options: &Options,
    warnings: &mut Warnings,
    name: &[u8],
) -> Result<()> {
    match set {
        Err(e) if e.errno == Errno::ENOTSUP => {
            warnings.add("extended attributes are not supported here", quoted(name));
            Ok(())
        }
        Err(e) if e.errno == Errno::EPERM && !options.privileged => {
            warnings.add(
                "extended attributes that need root are left out",
                quoted(name),
            );
            Ok(())
        }
        other => Ok(other?),
    }
}

fn refused(e: &anyhow::Error) -> Option<Errno> {
    e.downcast_ref::<Error>().map(|e| e.errno)
}

fn write_content(file: BorrowedFd, entry: &Entry, tape: &mut Tape<Feed>) -> Result<()> {
    let Some(segments) = &entry.segments else {
        loop {
            let content = tape.content()?;
            if content.is_empty() {
                return Ok(());
            }
            let n = write_some(file, content)?;
            tape.consume(n);
        }
    };
    for (offset, length) in segments {
        seek(file, *offset)?;
        let mut left = *length;
        while left > 0 {
            let content = tape.content()?;
            ensure!(
                !content.is_empty(),
                "the content of a sparse file is cut off"
            );
            let n = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(content.len());
            let n = write_some(file, &content[..n])?;
            tape.consume(n);
            left -= n as u64;
        }
    }
    let size = i64::try_from(entry.size).context("a size of 2^63 or more")?;
    nix::unistd::ftruncate(file, size).call("ftruncate", || size.to_string())?;
    Ok(())
}

fn write_some(file: BorrowedFd, content: &[u8]) -> Result<usize> {
    loop {
        match write(file, content) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.call("write", || format!("{} bytes", content.len()))?),
        }
    }
}

fn seek(file: BorrowedFd, offset: u64) -> Result<()> {
    let offset = i64::try_from(offset).context("an offset of 2^63 or more")?;
    nix::unistd::lseek(file, offset, nix::unistd::Whence::SeekSet)
        .call("lseek", || offset.to_string())?;
    Ok(())
}

impl Ids {
    fn here() -> Result<Ids> {
        let own = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        Ok(Ids {
            own,
            uids: mapped("/proc/self/uid_map")?,
            gids: mapped("/proc/self/gid_map")?,
        })
    }

    /// The owner to set; `None` when it is who makes the file anyway.
    fn owner(&self, uid: u64, gid: u64) -> Result<Option<(u32, u32)>> {
        let uid = allowed(uid, &self.uids, "uid")?;
        let gid = allowed(gid, &self.gids, "gid")?;
        Ok(((uid, gid) != self.own).then_some((uid, gid)))
    }
}

/// The ranges of ids that exist in this user namespace: first and count.
fn mapped(file: &str) -> Result<Vec<(u32, u32)>> {
    let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
    let ranges = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next()?.parse().ok()?;
        Some((first, words.nth(1)?.parse().ok()?))
    });
    Ok(ranges.collect())
}

fn allowed(id: u64, ranges: &[(u32, u32)], what: &str) -> Result<u32> {
    // The last one means "unchanged" to chown(2).
    let number = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let number = number.with_context(|| format!("{what} {id} is out of range"))?;
    let there = ranges
        .iter()
        .any(|(first, count)| number.checked_sub(*first).is_some_and(|over| over < *count));
    let file = if what == "uid" {
        "/etc/subuid"
    } else {
        "/etc/subgid"
    };
    ensure!(
        there,
        "{what} {number} is not mapped: give the user more ids in {file}, or use --ignore-chown-errors"
    );
    Ok(number)
}
