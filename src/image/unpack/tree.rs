//! How is a tree written so that nothing in it leads out of it? By descriptors: every directory is
//! opened below the root by the kernel (openat2(2), RESOLVE_IN_ROOT), every act is one name in an open
//! directory, and that name is never followed.
//!
//! Open directories are kept, a few dozen of them: entries come directory by directory, so most acts
//! cost no look-up at all. Owner, mode and times of directories are set at the very end: writing into
//! them changes times, and a set-group-id bit would be inherited.

use crate::sys::{Call, Error, xattr};
use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Directories kept open.
const OPEN_LIMIT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Char,
    Other,
}

#[derive(Debug, Clone, Copy)]
pub struct Stat {
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub ino: u64,
    pub device: u64,
    pub size: u64,
    /// Names that the file has.
    pub links: u64,
    /// The mode with the bits of the file's type.
    pub format: u32,
    pub times: Times,
}

impl Stat {
    /// overlayfs's mark of a name that is gone: a character device 0:0.
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::Char && self.device == 0
    }

    fn of(stat: &FileStat) -> Stat {
        Stat {
            kind: match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => Kind::File,
                libc::S_IFDIR => Kind::Directory,
                libc::S_IFLNK => Kind::Symlink,
                libc::S_IFCHR => Kind::Char,
                _ => Kind::Other,
            },
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            ino: stat.st_ino,
            device: stat.st_rdev,
            size: stat.st_size as u64,
            links: stat.st_nlink,
            format: stat.st_mode,
            times: Times {
                atime: TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
                mtime: TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
            },
        }
    }

    pub fn meta(&self) -> Meta {
        Meta {
            mode: self.mode,
            owner: Some((self.uid, self.gid)),
            times: self.times,
            xattrs: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub atime: TimeSpec,
    pub mtime: TimeSpec,
}

/// What is set of a file or directory beside its content.
#[derive(Debug, Clone)]
pub struct Meta {
    pub mode: u32,
    /// `None`: it stays with who makes it.
    pub owner: Option<(u32, u32)>,
    pub times: Times,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A directory whose attributes are set at the end.
struct Later {
    path: Box<[u8]>,
    ino: u64,
    what: What,
}

enum What {
    /// It was there and is only written into: its times stay.
    Times(Times),
    /// `merged`: it was there, so that it may have attributes that are now gone.
    All { meta: Box<Meta>, merged: bool },
}

/// How an attribute is set: by the caller, who knows which ones may fail.
pub type SetXattr<'a> = &'a mut dyn FnMut(BorrowedFd, &[u8], &[u8]) -> Result<()>;

/// A directory tree under construction.
pub struct Tree {
    root: Rc<OwnedFd>,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    order: VecDeque<Vec<u8>>,
    later: Vec<Later>,
    by_ino: HashMap<u64, usize>,
}

impl Tree {
    /// `root` is a directory nobody else writes into.
    pub fn new(root: OwnedFd) -> Tree {
        Tree {
            root: Rc::new(root),
            open: HashMap::new(),
            order: VecDeque::new(),
            later: Vec::new(),
            by_ino: HashMap::new(),
        }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path`, over links if need be; `None` when there is none.
    pub fn dir(&mut self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>> {
        if let Some(dir) = self.open.get(path) {
            return Ok(Some(dir.clone()));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let dir = match open_in_root(self.root.as_fd(), path, flags) {
            Ok(dir) => dir,
            Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
        let stat = stat_of(dir.as_fd())?;
        if !self.by_ino.contains_key(&stat.ino) {
            self.note(path, stat.ino, What::Times(stat.times));
        }
        Ok(Some(self.keep(path, dir)))
    }

    /// Makes a directory that is not there, or takes the attributes for one that is. False: the name
    /// belongs to something else.
    pub fn put_dir(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        meta: &Meta,
    ) -> Result<bool> {
        let early = if late_mode(meta.mode) {
            0o700
        } else {
            meta.mode
        };
        let made = match mkdirat(parent, name, Mode::from_bits_truncate(early)) {
            Err(Errno::EEXIST) => false,
            other => other.call("mkdirat", || quoted(path)).map(|()| true)?,
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let dir = match open_at(parent.as_fd(), name, flags) {
            Err(e) if !made && matches!(e.errno, Errno::ENOTDIR | Errno::ELOOP) => {
                return Ok(false);
            }
            other => other?,
        };
        let stat = stat_of(dir.as_fd())?;
        let meta = Box::new(meta.clone());
        self.note(
            path,
            stat.ino,
            What::All {
                meta,
                merged: !made,
            },
        );
        self.keep(path, dir);
        Ok(true)
    }

    /// The root's own attributes.
    pub fn put_root(&mut self, meta: Meta) -> Result<()> {
        let stat = stat_of(self.root.as_fd())?;
        let meta = Box::new(meta);
        // It was there before: whatever it has is replaced.
        self.note(b"", stat.ino, What::All { meta, merged: true });
        Ok(())
    }

    /// What leads to a directory has changed: descriptors are looked up anew.
    pub fn forget(&mut self) {
        self.open.clear();
        self.order.clear();
    }

    fn keep(&mut self, path: &[u8], dir: OwnedFd) -> Rc<OwnedFd> {
        if self.order.len() >= OPEN_LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        let dir = Rc::new(dir);
        if self.open.insert(path.to_vec(), dir.clone()).is_none() {
            self.order.push_back(path.to_vec());
        }
        dir
    }

    /// The last word on a directory counts.
    fn note(&mut self, path: &[u8], ino: u64, what: What) {
        let later = Later {
            path: path.into(),
            ino,
            what,
        };
        match self.by_ino.get(&ino) {
            Some(at) => self.later[*at] = later,
            None => {
                self.by_ino.insert(ino, self.later.len());
                self.later.push(later);
            }
        }
    }

    /// Sets the attributes of directories, and gives back the xattrs that could not be set.
    pub fn finish(&mut self, xattr: SetXattr) -> Result<()> {
        self.forget();
        self.by_ino.clear();
        // The deepest first: a mode may close a directory to an ordinary user.
        for later in self.later.drain(..).rev() {
            let context = || format!("directory {}", quoted(&later.path));
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            let dir = match open_in_root(self.root.as_fd(), &later.path, flags) {
                Ok(dir) => dir,
                // It has been replaced since.
                Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
                    continue;
                }
                Err(e) => return Err(e).with_context(context),
            };
            if stat_of(dir.as_fd())?.ino != later.ino {
                continue;
            }
            finish_dir(&dir, &later.what, xattr).with_context(context)?;
        }
        Ok(())
    }
}

/// Whether a directory gets its mode at the end: bits its content would inherit, or that close it to its maker, or
/// that the umask keeps back.
fn late_mode(mode: u32) -> bool {
    mode & 0o7022 != 0 || mode & 0o700 != 0o700
}

fn finish_dir(dir: &OwnedFd, what: &What, xattr: SetXattr) -> Result<()> {
    let times = match what {
        What::Times(times) => *times,
        What::All { meta, merged } => {
            if *merged {
                drop_xattrs(dir.as_fd())?;
            }
            if let Some(owner) = meta.owner {
                chown(dir.as_fd(), owner)?;
            }
            for (name, value) in &meta.xattrs {
                xattr(dir.as_fd(), name, value)?;
            }
            if *merged || late_mode(meta.mode) {
                chmod(dir.as_fd(), meta.mode)?;
            }
            meta.times
        }
    };
    set_times(dir.as_fd(), times)
}

/// Removes the attributes of what a lower layer had here, but for those that are not a layer's to set.
fn drop_xattrs(fd: BorrowedFd) -> Result<()> {
    for name in xattr::list_at(fd, b"")? {
        if crate::image::layer::takes_xattr(&name, true) {
            xattr::remove(fd, &name)?;
        }
    }
    Ok(())
}

/// Changing the owner takes set-user-id bits and capabilities away: it comes before both.
pub fn chown(fd: BorrowedFd, (uid, gid): (u32, u32)) -> Result<()> {
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(fchown(fd, owner.0, owner.1).call("fchown", || format!("{uid}, {gid}"))?)
}

pub fn chmod(fd: BorrowedFd, mode: u32) -> Result<()> {
    let bits = Mode::from_bits_truncate(mode);
    Ok(nix::sys::stat::fchmod(fd, bits).call("fchmod", || format!("{mode:o}"))?)
}

pub fn set_times(fd: BorrowedFd, times: Times) -> Result<()> {
    Ok(futimens(fd, &times.atime, &times.mtime).call("futimens", || format!("{times:?}"))?)
}

pub fn quoted(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(path))
}

/// A path below `root`, where links lead as if it were the root directory.
pub fn open_in_root(root: BorrowedFd, path: &[u8], flags: OFlag) -> Result<OwnedFd, Error> {
    let path = if path.is_empty() { b"." } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root, path, how) {
            // EAGAIN: something was renamed meanwhile, openat2(2).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other.call("openat2", || quoted(path)),
        }
    }
}

pub fn open_at(dir: BorrowedFd, name: &[u8], flags: OFlag) -> Result<OwnedFd, Error> {
    let opened = openat(dir, name, flags | OFlag::O_CLOEXEC, Mode::empty());
    opened.call("openat", || quoted(name))
}

pub fn stat_of(fd: BorrowedFd) -> Result<Stat> {
    Ok(Stat::of(&fstat(fd).call("fstat", String::new)?))
}

/// A name in a directory, links not followed; `None` when it is not there.
pub fn lstat(dir: BorrowedFd, name: &[u8]) -> Result<Option<Stat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Stat::of(&stat))),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Error::new("fstatat", quoted(name), errno).into()),
    }
}

/// The names in a directory.
pub fn names(dir: BorrowedFd, name: &[u8]) -> Result<Vec<Vec<u8>>> {
    let name = if name.is_empty() { b"." } else { name };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let dir = Dir::from_fd(open_at(dir, name, flags)?).call("fdopendir", || quoted(name))?;
    let mut names = Vec::new();
    for entry in dir {
        let entry = entry.call("readdir", || quoted(name))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Removes a name and all below it, except what `keep` says (by path below `path`). Tells whether it is gone.
pub fn remove(
    dir: BorrowedFd,
    name: &[u8],
    path: &[u8],
    keep: &dyn Fn(&[u8]) -> bool,
) -> Result<bool> {
    let Some(stat) = lstat(dir, name)? else {
        return Ok(true);
    };
    if stat.kind != Kind::Directory {
        if keep(path) {
            return Ok(false);
        }
        unlinkat(dir, name, UnlinkatFlags::NoRemoveDir).call("unlinkat", || quoted(path))?;
        return Ok(true);
    }
    let mut empty = !keep(path);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let inside = open_at(dir, name, flags)?;
    for child in names(inside.as_fd(), b"")? {
        let below = crate::image::layer::join(path, &child);
        empty &= remove(inside.as_fd(), &child, &below, keep)?;
    }
    if empty {
        unlinkat(dir, name, UnlinkatFlags::RemoveDir).call("unlinkat", || quoted(path))?;
    }
    Ok(empty)
}

/// Makes the directory at `path` below `root` unless there is one, over links if need be; the one above
/// it must be there.
pub fn make_dir(root: BorrowedFd, path: &[u8]) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    match open_in_root(root, path, flags) {
        Err(e) if e.errno == Errno::ENOENT => {}
        other => return Ok(other.map(drop)?),
    }
    let (above, name) = crate::image::layer::split(path);
    let above = open_in_root(root, above, flags)?;
    mkdirat(&above, name, Mode::from_bits_truncate(0o755)).call("mkdirat", || quoted(path))?;
    Ok(())
}
