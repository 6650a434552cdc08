//! How does a directory become a layer? An overlay's upper directory, or a whole tree, as a tar stream.
//!
//! overlayfs's marks become image-spec's: a character device 0:0 a whiteout, an opaque directory
//! `.wh..wh..opq`. fuse-overlayfs may have made these itself. The same tree gives the same bytes: names are sorted, times are those of the files.
//! A *plain* stream is of a tree as it is seen, where no name and no mark means anything.

use super::layer::{OPAQUE as OPAQUE_NAME, join, takes_xattr};
use super::tape::{Entry, Kind as EntryKind, Time, Writer};
use super::unpack::below::OPAQUE;
use super::unpack::tree::{Kind, Stat, lstat, names, open_at, quoted, stat_of};
use crate::idmap::Kept;
use crate::sys::{Call, xattr};
use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{major, minor};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write, empty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The directory hides what is below, as fuse-overlayfs(1) says it.
const FUSE_OPAQUE: &[u8] = b"user.fuseoverlayfs.opaque";

/// How a directory is read.
#[derive(Debug, Default)]
pub struct How {
    /// Paths that are left out.
    pub left_out: Vec<Vec<u8>>,
    /// fuse-overlayfs was there, which has image-spec's own marks beside the kernel's.
    pub marked_by_name: bool,
    /// Owners are those of a container that has these.
    pub kept: Option<Kept>,
}

/// Writes what is in the directory `root` as a layer.
pub fn write(root: OwnedFd, how: How, to: impl Write) -> Result<()> {
    Layer::new(to, false, how).root(root)
}

/// Writes what is in the directory `root` as it is.
pub fn write_plain(root: OwnedFd, how: How, to: impl Write) -> Result<()> {
    Layer::new(to, true, how).root(root)
}

/// Writes one name of a directory, and what is below it, under another name.
pub fn write_one(dir: OwnedFd, name: &[u8], under: &[u8], how: How, to: impl Write) -> Result<()> {
    let mut layer = Layer::new(to, true, how);
    layer.name(dir.as_fd(), name, under)?;
    layer.finish()
}

struct Layer<W: Write> {
    writer: Writer<W>,
    plain: bool,
    how: How,
    /// Where a file with several names was written first.
    links: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Layer<W> {
    fn new(to: W, plain: bool, how: How) -> Layer<W> {
        Layer {
            writer: Writer::new(to),
            plain,
            how,
            links: HashMap::new(),
        }
    }

    fn root(mut self, root: OwnedFd) -> Result<()> {
        let stat = stat_of(root.as_fd())?;
        self.put(entry(&stat, b"./", EntryKind::Directory), root.as_fd(), b"")?;
        self.directory(root.as_fd(), b"")?;
        self.finish()
    }

    fn finish(self) -> Result<()> {
        Ok(self.writer.finish()?.flush()?)
    }

    /// With the owner that the container sees.
    fn emit(&mut self, one: &Entry, content: impl Read) -> Result<()> {
        let Some(kept) = self.how.kept else {
            return self.writer.put(one, content);
        };
        let mut one = one.clone();
        (one.uid, one.gid) = kept.inward(one.uid, one.gid);
        self.writer.put(&one, content)
    }

    fn directory(&mut self, dir: BorrowedFd, path: &[u8]) -> Result<()> {
        let mut names = names(dir, b"")?;
        names.sort();
        for name in names {
            let below = join(path, &name);
            if self.how.left_out.contains(&below) {
                continue;
            }
            if self.how.marked_by_name && name.starts_with(b".wh.") {
                self.mark(dir, &name, &below)?;
                continue;
            }
            self.name(dir, &name, &below)
                .with_context(|| quoted(&below))?;
        }
        Ok(())
    }

    /// A whiteout is as it is to be; a directory that hides was marked already.
    fn mark(&mut self, dir: BorrowedFd, name: &[u8], path: &[u8]) -> Result<()> {
        if name == OPAQUE_NAME {
            return Ok(());
        }
        let stat = lstat(dir, name)?.context("it has gone")?;
        let hidden = entry(&stat, path, EntryKind::File);
        self.emit(&hidden, empty())
    }

    fn name(&mut self, dir: BorrowedFd, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = lstat(dir, name)?.context("it has gone")?;
        ensure!(
            self.plain || !name.starts_with(b".wh."),
            "a name that would be read as a whiteout"
        );
        if stat.is_whiteout() && !self.plain {
            let hidden = [b".wh.", name].concat();
            let at = join(super::layer::split(path).0, &hidden);
            return self.emit(&entry(&stat, &at, EntryKind::File), empty());
        }
        let kind = match stat.kind {
            Kind::Directory => return self.below(dir, name, path, &stat),
            Kind::File => EntryKind::File,
            Kind::Symlink => EntryKind::Symlink,
            Kind::Char => EntryKind::Char,
            Kind::Other => match stat.format & libc::S_IFMT {
                libc::S_IFBLK => EntryKind::Block,
                libc::S_IFIFO => EntryKind::Fifo,
                // A socket is nothing without who made it.
                _ => return Ok(()),
            },
        };
        if stat.links > 1 {
            if let Some(first) = self.links.get(&stat.ino) {
                let mut link = entry(&stat, path, EntryKind::Link);
                link.link = first.clone();
                return self.emit(&link, empty());
            }
            self.links.insert(stat.ino, path.to_vec());
        }
        let mut one = entry(&stat, path, kind);
        if kind == EntryKind::Symlink {
            let target = readlinkat(dir, name).call("readlinkat", || quoted(name))?;
            one.link = target.as_bytes().to_vec();
        }
        self.put(one, dir, name)
    }

    fn below(&mut self, dir: BorrowedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<()> {
        let with_slash = [path, b"/"].concat();
        self.put(entry(stat, &with_slash, EntryKind::Directory), dir, name)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let inside = open_at(dir, name, flags)?;
        if !self.plain && self.hides(inside.as_fd())? {
            let at = join(path, OPAQUE_NAME);
            self.emit(&entry(stat, &at, EntryKind::File), empty())?;
        }
        self.directory(inside.as_fd(), path)
    }

    /// Does a directory hide what is below?
    fn hides(&self, dir: BorrowedFd) -> Result<bool> {
        let fuse = self.how.marked_by_name.then_some(FUSE_OPAQUE);
        for attribute in OPAQUE.into_iter().chain(fuse) {
            if xattr::get_at(dir, b"", attribute)?.as_deref() == Some(b"y") {
                return Ok(true);
            }
        }
        Ok(self.how.marked_by_name && lstat(dir, OPAQUE_NAME)?.is_some())
    }

    fn put(&mut self, mut one: Entry, dir: BorrowedFd, name: &[u8]) -> Result<()> {
        for attribute in xattr::list_at(dir, name)? {
            if takes_xattr(&attribute, true)
                && let Some(value) = xattr::get_at(dir, name, &attribute)?
            {
                one.xattrs.push((attribute, value));
            }
        }
        one.xattrs.sort();
        if one.kind != EntryKind::File {
            return self.emit(&one, empty());
        }
        let file = open_at(
            dir,
            name,
            OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK,
        )?;
        one.size = stat_of(file.as_fd())?.size;
        self.emit(&one, File::from(file))
    }
}

/// Without content, target and attributes.
fn entry(stat: &Stat, path: &[u8], kind: EntryKind) -> Entry {
    let device = matches!(kind, EntryKind::Char | EntryKind::Block);
    let time = stat.times.mtime;
    Entry {
        path: path.to_vec(),
        kind,
        mode: stat.mode,
        uid: stat.uid.into(),
        gid: stat.gid.into(),
        mtime: Time {
            seconds: time.tv_sec(),
            nanos: time.tv_nsec() as u32,
        },
        major: if device { major(stat.device) } else { 0 },
        minor: if device { minor(stat.device) } else { 0 },
        ..Entry::file("", 0)
    }
}
