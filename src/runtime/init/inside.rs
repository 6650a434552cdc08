//! Paths inside the rootfs: opened, and made where they are missing, so that no link the image
//! holds, and no rename that happens meanwhile, leads outside of it.
//!
//! An existing path is one openat2(2) with RESOLVE_IN_ROOT. A missing one is walked component by
//! component on descriptors; links are read and followed here, `..` climbs our own stack of
//! descriptors, never the file system's (CVE-2019-18837, CVE-2021-30465, CVE-2024-45310).

use crate::sys::{self, Call};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// What to make of a missing last component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Directory,
    File,
}

/// Opens `path` below `root`, links resolved as if `root` were `/`.
pub fn open(root: BorrowedFd, path: &Path, flags: OFlag) -> sys::Result<OwnedFd> {
    open_resolving(root, path, flags, ResolveFlag::RESOLVE_IN_ROOT)
}

/// Like [`open`], and a link anywhere in `path` is ELOOP.
pub fn open_no_links(root: BorrowedFd, path: &Path, flags: OFlag) -> sys::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    open_resolving(root, path, flags, resolve)
}

fn open_resolving(
    root: BorrowedFd,
    path: &Path,
    flags: OFlag,
    resolve: ResolveFlag,
) -> sys::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // EAGAIN: something was renamed during the look-up, so the kernel cannot vouch for it.
    let mut tries = 128;
    loop {
        match nix::fcntl::openat2(root, path, how) {
            Err(Errno::EAGAIN) if tries > 0 => tries -= 1,
            Err(Errno::EINTR) => {}
            other => return other.call("openat2", || format!("{path:?}, RESOLVE_IN_ROOT")),
        }
    }
}

/// A path handle on `path` below `root`; what is missing of it is made (directories 0755).
pub fn open_or_make(root: BorrowedFd, path: &Path, missing: Missing) -> sys::Result<OwnedFd> {
    match open(root, path, OFlag::O_PATH) {
        Err(e) if e.errno == Errno::ENOENT => {}
        other => return other,
    }
    match make_last(root, path, missing, open)? {
        Some(made) => Ok(made),
        None => make(root, path, missing),
    }
}

/// Like [`open_or_make`], but `None` where a link is on the way, or more than the last component is
/// missing.
pub fn open_or_make_no_links(
    root: BorrowedFd,
    path: &Path,
    missing: Missing,
) -> sys::Result<Option<OwnedFd>> {
    match open_no_links(root, path, OFlag::O_PATH) {
        Err(e) if e.errno == Errno::ENOENT => make_last(root, path, missing, open_no_links),
        Err(e) if e.errno == Errno::ELOOP => Ok(None),
        other => other.map(Some),
    }
}

/// Most often only the last component is missing, below a directory that is there. `None`: not so.
fn make_last(
    root: BorrowedFd,
    path: &Path,
    missing: Missing,
    open: fn(BorrowedFd, &Path, OFlag) -> sys::Result<OwnedFd>,
) -> sys::Result<Option<OwnedFd>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let Ok(parent) = open(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY) else {
        return Ok(None);
    };
    if make_here(parent.as_fd(), name, missing).is_err() {
        return Ok(None);
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(&parent, name, flags, Mode::empty())
        .call("openat", || format!("{name:?}"))
        .map(Some)
}

/// Links followed before giving up, as the kernel does (path_resolution(7)).
const MOST_LINKS: usize = 40;

fn make(root: BorrowedFd, path: &Path, missing: Missing) -> sys::Result<OwnedFd> {
    let mut todo = components(path);
    let mut stack: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            stack.pop();
            continue;
        }
        let here = stack.last().map_or(root, |fd| fd.as_fd());
        let last_missing = if todo.is_empty() {
            missing
        } else {
            Missing::Directory
        };
        let next = open_or_make_here(here, &name, last_missing)?;
        let kind = kind_of(&stat_fd(next.as_fd())?);
        if kind == SFlag::S_IFLNK {
            links += 1;
            if links > MOST_LINKS {
                return Err(sys::Error::new("open", format!("{path:?}"), Errno::ELOOP));
            }
            let target = nix::fcntl::readlinkat(next.as_fd(), "")
                .call("readlinkat", || format!("{name:?}"))?;
            let target = Path::new(&target);
            if target.is_absolute() {
                stack.clear();
            }
            for part in components(target).into_iter().rev() {
                todo.push_front(part);
            }
            continue;
        }
        if kind != SFlag::S_IFDIR && !todo.is_empty() {
            return Err(sys::Error::new("open", format!("{path:?}"), Errno::ENOTDIR));
        }
        stack.push(next);
    }
    match stack.pop() {
        Some(fd) => Ok(fd),
        None => open(root, Path::new("/"), OFlag::O_PATH),
    }
}

/// `name` in `dir`, made when missing, without following a link.
fn open_or_make_here(dir: BorrowedFd, name: &OsStr, missing: Missing) -> sys::Result<OwnedFd> {
    let look = || {
        nix::fcntl::openat(
            dir,
            name,
            OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
    };
    match look() {
        Err(Errno::ENOENT) => {}
        other => return other.call("openat", || format!("{name:?}")),
    }
    match make_here(dir, name, missing) {
        // Another process was faster: whatever it made is looked at like all else.
        Ok(()) | Err(Errno::EEXIST) => look().call("openat", || format!("{name:?}")),
        Err(e) => Err(sys::Error::new(
            match missing {
                Missing::Directory => "mkdirat",
                Missing::File => "mknodat",
            },
            format!("{name:?}"),
            e,
        )),
    }
}

fn make_here(dir: BorrowedFd, name: &OsStr, missing: Missing) -> nix::Result<()> {
    let mode = Mode::from_bits_truncate;
    match missing {
        Missing::Directory => nix::sys::stat::mkdirat(dir, name, mode(0o755)),
        Missing::File => nix::sys::stat::mknodat(dir, name, SFlag::S_IFREG, mode(0o644), 0),
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

/// The directory that will hold `path`, made if missing, and the last name.
pub fn open_parent<'p>(root: BorrowedFd, path: &'p Path) -> sys::Result<(OwnedFd, &'p OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(sys::Error::new("open", format!("{path:?}"), Errno::EINVAL));
    };
    Ok((open_or_make(root, parent, Missing::Directory)?, name))
}

pub fn stat_fd(fd: BorrowedFd) -> sys::Result<FileStat> {
    nix::sys::stat::fstat(fd).call("fstat", String::new)
}

/// Stat of `name` in `dir`, without following a link.
pub fn stat_here(dir: BorrowedFd, name: &OsStr) -> sys::Result<FileStat> {
    nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .call("fstatat", || format!("{name:?}"))
}

/// The file type bits.
pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root(name: &str) -> (std::path::PathBuf, std::fs::File) {
        let dir = std::env::temp_dir().join(format!("sc-inside-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("root")).unwrap();
        let root = fs::File::open(dir.join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn missing_directories_are_made_inside_whatever_the_links_say() {
        let (dir, fd) = root("links");
        let inside = dir.join("root");
        symlink("/abs", inside.join("a")).unwrap();
        symlink("../../../../up", inside.join("b")).unwrap();
        symlink("c2/deep", inside.join("c")).unwrap();
        for (path, made) in [
            ("/a/x", "abs/x"),
            ("/b/y", "up/y"),
            ("/c/z", "c2/deep/z"),
            ("/../../d/../e", "e"),
        ] {
            open_or_make(fd.as_fd(), Path::new(path), Missing::Directory).unwrap();
            assert!(inside.join(made).is_dir(), "{path} makes {made}");
        }
        let mut outside: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        outside.sort();
        assert_eq!(outside, ["root"]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_missing_file_is_made_empty_and_a_link_loop_ends() {
        let (dir, fd) = root("file");
        let inside = dir.join("root");
        open_or_make(fd.as_fd(), Path::new("/etc/conf"), Missing::File).unwrap();
        assert_eq!(fs::read(inside.join("etc/conf")).unwrap(), b"");
        symlink("loop2/x", inside.join("loop1")).unwrap();
        symlink("loop1/x", inside.join("loop2")).unwrap();
        let e = open_or_make(fd.as_fd(), Path::new("/loop1"), Missing::Directory).unwrap_err();
        assert_eq!(e.errno, Errno::ELOOP);
        let e = open_or_make(fd.as_fd(), Path::new("/etc/conf/x"), Missing::Directory).unwrap_err();
        assert_eq!(e.errno, Errno::ENOTDIR);
        fs::remove_dir_all(dir).unwrap();
    }
}
