//! Fills the container's /dev: device nodes, their links, and /dev/console.
//!
//! All through one descriptor of /dev, opened inside the root: a link in the image in its place, or
//! in place of a node, leads nowhere else (CVE-2026-41579, CVE-2026-88264).

use super::inside::{self, Missing};
use crate::runtime::plan::{Device, RootfsPlan};
use crate::sys::{self, Call};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, makedev};
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Device nodes and links of the plan. Where nodes cannot be made (a user namespace) the host's
/// are bound.
pub fn make(plan: &RootfsPlan, root: BorrowedFd, bind: bool) -> Result<()> {
    if plan.devices.is_empty() && plan.symlinks.is_empty() {
        return Ok(());
    }
    let dev = inside::open_or_make(root, Path::new("/dev"), Missing::Directory).context("/dev")?;
    for device in &plan.devices {
        let describe = || format!("{} ({})", device.field, device.path.display());
        let (parent, name) = place(root, &device.path).with_context(describe)?;
        let parent = parent.as_ref().unwrap_or(&dev).as_fd();
        make_one(device, parent, name, bind).with_context(describe)?;
    }
    for (link, target) in &plan.symlinks {
        let describe = || format!("default link {}", link.display());
        let (parent, name) = place(root, link).with_context(describe)?;
        let parent = parent.as_ref().unwrap_or(&dev).as_fd();
        make_link(target, parent, name).with_context(describe)?;
    }
    Ok(())
}

/// The directory of a path (`None`: /dev itself) and the name in it.
fn place<'p>(root: BorrowedFd, path: &'p Path) -> sys::Result<(Option<OwnedFd>, &'p OsStr)> {
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && parent == Path::new("/dev")
    {
        return Ok((None, name));
    }
    inside::open_parent(root, path).map(|(dir, name)| (Some(dir), name))
}

fn make_one(device: &Device, dir: BorrowedFd, name: &OsStr, bind: bool) -> Result<()> {
    if bind && device.kind != SFlag::S_IFIFO.bits() {
        return bind_host(device, dir, name);
    }
    let kind = SFlag::from_bits_truncate(device.kind);
    let number = makedev(device.major.into(), device.minor.into());
    let mode = Mode::from_bits_truncate(device.mode);
    match nix::sys::stat::mknodat(dir, name, kind, mode, number) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return accept_existing(device, dir, name),
        Err(Errno::EPERM) if kind != SFlag::S_IFIFO => return bind_host(device, dir, name),
        Err(e) => Err(e).call("mknodat", || format!("{name:?}"))?,
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(dir, name, Some(uid), Some(gid), flags)
            .call("fchownat", || format!("{name:?}, {uid}, {gid}"))?;
    }
    Ok(())
}

/// The image brings a node of that name: right only if it is that very device.
fn accept_existing(device: &Device, dir: BorrowedFd, name: &OsStr) -> Result<()> {
    let stat = inside::stat_here(dir, name)?;
    let number = makedev(device.major.into(), device.minor.into());
    let same_kind = inside::kind_of(&stat).bits() == device.kind;
    let is_fifo = device.kind == SFlag::S_IFIFO.bits();
    if same_kind && (is_fifo || stat.st_rdev == number) {
        return Ok(());
    }
    bail!("the rootfs holds something else of that name; mount a tmpfs on /dev, or remove it")
}

/// Binds the host's node of the same path over an empty file: for user namespaces, where mknod(2)
/// is refused. The host's must be that device.
fn bind_host(device: &Device, dir: BorrowedFd, name: &OsStr) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let host = nix::fcntl::open(&device.path, flags, Mode::empty())
        .call("open", || format!("{:?} of the host", device.path))?;
    let stat = inside::stat_fd(host.as_fd())?;
    let number = makedev(device.major.into(), device.minor.into());
    if inside::kind_of(&stat).bits() != device.kind || stat.st_rdev != number {
        bail!(
            "it cannot be made here, and the host's {} is not device {}:{}",
            device.path.display(),
            device.major,
            device.minor
        );
    }
    let target = inside::open_or_make(dir, Path::new(name), Missing::File)?;
    let tree = sys::mount::clone_tree_at(host.as_fd(), false)?;
    Ok(sys::mount::attach(tree.as_fd(), target.as_fd())?)
}

fn make_link(target: &Path, dir: BorrowedFd, name: &OsStr) -> Result<()> {
    let link = || nix::unistd::symlinkat(target, dir, name);
    match link() {
        // The image's own link or file: runc replaces ptmx, which must be this devpts's.
        Err(Errno::EEXIST) if name == "ptmx" => {
            nix::unistd::unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)
                .call("unlinkat", || format!("{name:?}"))?;
            Ok(link().call("symlinkat", || format!("{name:?}"))?)
        }
        Err(Errno::EEXIST) => Ok(()),
        other => Ok(other.call("symlinkat", || format!("{name:?}"))?),
    }
}

/// The null device to mask files with: the container's where that is the true one, else the host's.
/// By descriptor, verified: a path could lead to anything (CVE-2025-31133).
pub fn null(root: BorrowedFd) -> Result<OwnedFd> {
    if let Ok(own) = inside::open_no_links(root, Path::new("/dev/null"), OFlag::O_PATH)
        && is_null(own.as_fd())?
    {
        return Ok(own);
    }
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let null = nix::fcntl::open("/dev/null", flags, Mode::empty())
        .call("open", || "\"/dev/null\" of the host".to_owned())?;
    if !is_null(null.as_fd())? {
        bail!("/dev/null of the host is not the null device (1:3): refusing to mask files with it");
    }
    Ok(null)
}

/// Whether `fd` is the null device, character device 1:3.
pub fn is_null(fd: BorrowedFd) -> sys::Result<bool> {
    Ok(says_null(&inside::stat_fd(fd)?))
}

/// Whether `stat` is that of the null device.
pub fn says_null(stat: &FileStat) -> bool {
    inside::kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}
