//! Performs one mount of the plan: built detached, configured, attached by descriptor.

use super::copy_up;
use super::inside::{self, Missing};
use super::rootfs::empty_tmpfs;
use crate::runtime::plan::mounts::{has, joined};
use crate::runtime::plan::{Mount, MountKind, Parameter};
use crate::sys::{self, Call, mount::FsContext};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const READONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// The container's cgroup, as init knows of it.
#[derive(Debug, Clone, Copy)]
pub enum OwnCgroup<'p> {
    /// Its directory on the host.
    At(&'p Path),
    /// The root of init's cgroup namespace; its directory is not known here.
    Namespace,
    /// It goes without: init is in the caller's.
    None,
}

/// Mounts what `mount` says below `root`. `source` is what a bind binds, detached.
/// Gives back what must become read-only only once all of the tree is made, and what
/// [`is_system`].
pub fn perform(
    mount: &Mount,
    root: BorrowedFd,
    source: Option<OwnedFd>,
    cgroup: OwnCgroup,
) -> Result<Option<OwnedFd>> {
    let late = mount.attr.set & READONLY != 0 && is_filled_later(mount);
    let set = match late {
        true => mount.attr.set & !READONLY,
        false => mount.attr.set,
    };
    let (tree, target) = match &mount.kind {
        MountKind::Filesystem {
            fstype,
            source,
            options,
            copy_up,
        } => {
            let covered = covered_mode(mount, root, fstype, options);
            let options: Cow<[Parameter]> = match covered {
                Some(mode) => [&options[..], &[mode]].concat().into(),
                None => options.into(),
            };
            let target = open_target(mount, root, Missing::Directory)?;
            if options.iter().any(too_long) {
                // The path way: fsconfig(2) takes at most 255 bytes.
                mount_long(fstype, source, &options, set, target.as_fd())?;
                let tree = inside::open(root, &mount.destination, OFlag::O_PATH)?;
                return finish(mount, tree, late);
            }
            let tree = new_filesystem(fstype, source, &options, set, copy_up.then_some(&target))?;
            (tree, target)
        }
        MountKind::Bind { .. } => {
            let tree = source.context("its source was not opened")?;
            let kind = inside::kind_of(&inside::stat_fd(tree.as_fd())?);
            let missing = match kind == SFlag::S_IFDIR {
                true => Missing::Directory,
                false => Missing::File,
            };
            set_attr(&tree, set, mount.attr.clear)?;
            (tree, open_target(mount, root, missing)?)
        }
        MountKind::Cgroup { .. } => {
            let target = open_target(mount, root, Missing::Directory)?;
            (cgroup_tree(set, cgroup)?, target)
        }
        MountKind::Remount { options } => {
            return remount(mount, root, options).map(|()| None);
        }
    };
    sys::mount::attach(tree.as_fd(), target.as_fd())
        .map_err(|e| explain_attach(e, tree.as_fd(), target.as_fd()))?;
    finish(mount, tree, late)
}

/// A tmpfs that was not told its mode takes that of the directory it covers, as with runc; 1777
/// where there is none.
fn covered_mode(
    mount: &Mount,
    root: BorrowedFd,
    fstype: &str,
    options: &[Parameter],
) -> Option<Parameter> {
    if fstype != "tmpfs" || has(options, "mode") {
        return None;
    }
    let covered = inside::open(root, &mount.destination, OFlag::O_PATH).ok()?;
    let stat = inside::stat_fd(covered.as_fd()).ok()?;
    let mode = stat.st_mode & !SFlag::S_IFMT.bits();
    Some(("mode".to_owned(), Some(format!("{mode:o}"))))
}

/// move_mount(2) says of a file and a directory no more than EINVAL.
fn explain_attach(e: sys::Error, tree: BorrowedFd, target: BorrowedFd) -> anyhow::Error {
    let is_directory = |fd| {
        let stat = inside::stat_fd(fd).ok()?;
        Some(inside::kind_of(&stat) == SFlag::S_IFDIR)
    };
    match (e.errno, is_directory(tree), is_directory(target)) {
        (Errno::EINVAL, Some(true), Some(false)) => {
            anyhow!("a directory cannot be mounted on what is not a directory in the rootfs")
        }
        (Errno::EINVAL, Some(false), Some(true)) => {
            anyhow!("what is not a directory cannot be mounted on a directory of the rootfs")
        }
        _ => e.into(),
    }
}

/// linux.mountLabel on the root of an mqueue file system. It takes no `context=`, as there is one for
/// an IPC namespace, made with it.
pub fn label_queues(mount: &Mount, root: BorrowedFd, label: &str) -> Result<()> {
    match &mount.kind {
        MountKind::Filesystem { fstype, .. } if fstype == "mqueue" => {}
        _ => return Ok(()),
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let queues = inside::open(root, &mount.destination, flags)?;
    sys::file::set_attribute(queues.as_fd(), c"security.selinux", label.as_bytes())
        .context("linux.mountLabel")
}

/// Devices are still to be made in it, or the mount points of later mounts.
fn is_filled_later(mount: &Mount) -> bool {
    let is_tmpfs = matches!(&mount.kind, MountKind::Filesystem { fstype, .. } if fstype == "tmpfs");
    is_tmpfs || mount.destination == Path::new("/dev")
}

/// What is set on the attached mount: flags of the whole tree, propagation.
fn finish(mount: &Mount, tree: OwnedFd, late: bool) -> Result<Option<OwnedFd>> {
    let below = mount.recursive_attr;
    if below.set != 0 || below.clear != 0 {
        sys::mount::set_attr(tree.as_fd(), true, below.set, below.clear, 0)?;
    }
    for flags in &mount.propagation {
        let recursive = flags & libc::MS_REC != 0;
        sys::mount::set_attr(tree.as_fd(), recursive, 0, 0, flags & !libc::MS_REC)?;
    }
    Ok((late || is_system(mount)).then_some(tree))
}

/// What config.json puts on /proc and /sys, where paths are to be masked.
pub fn is_system(mount: &Mount) -> bool {
    ["/proc", "/sys"]
        .iter()
        .any(|dir| mount.destination == Path::new(dir))
}

fn set_attr(tree: &OwnedFd, set: u64, clear: u64) -> sys::Result<()> {
    match set != 0 || clear != 0 {
        true => sys::mount::set_attr(tree.as_fd(), false, set, clear, 0),
        false => Ok(()),
    }
}

/// Where `mount` goes, made if missing. Which places in /proc may be covered was decided by the
/// words of the destination; a link in the image must not lead to others (CVE-2019-16884). And a link
/// at /proc or /sys would put the real one elsewhere and leave a fake in its place (CVE-2019-19921,
/// CVE-2023-28642).
fn open_target(mount: &Mount, root: BorrowedFd, missing: Missing) -> Result<OwnedFd> {
    let path = &mount.destination;
    // The usual case: without a link on the way, the words are the place.
    if let Some(target) = inside::open_or_make_no_links(root, path, missing)? {
        return Ok(target);
    }
    let is_system = matches!(&mount.kind, MountKind::Filesystem { fstype, .. }
        if fstype == "proc" || fstype == "sysfs");
    if is_system
        && let Err(e) = inside::open_no_links(root, path, OFlag::O_PATH)
        && e.errno == Errno::ELOOP
    {
        bail!(
            "{path:?} must be mounted on an ordinary directory, and the rootfs has a symbolic link \
             there"
        );
    }
    let target = inside::open_or_make(root, path, missing)?;
    let fs = fstatfs(&target).call("fstatfs", || format!("{path:?}"))?;
    if fs.filesystem_type() == PROC_SUPER_MAGIC {
        bail!(
            "{path:?} cannot be mounted because it is inside /proc, where a symbolic link of the \
             rootfs leads"
        );
    }
    Ok(target)
}

fn new_filesystem(
    fstype: &str,
    source: &str,
    options: &[Parameter],
    attr: u64,
    copy_up: Option<&OwnedFd>,
) -> Result<OwnedFd> {
    let fs = FsContext::open(fstype).map_err(|e| explain(e, fstype))?;
    if !source.is_empty() {
        fs.set("source", Some(source))?;
    }
    for (key, value) in options {
        fs.set(key, value.as_deref())?;
    }
    fs.create().map_err(|e| explain(e, fstype))?;
    let Some(from) = copy_up else {
        return fs.mount(attr).map_err(|e| explain(e, fstype));
    };
    // Filled while still detached and writable: nobody sees it half done.
    let tree = fs.mount(attr & !READONLY)?;
    copy_up::copy(from.as_fd(), tree.as_fd()).context("tmpcopyup")?;
    if !has(options, "uid") && !has(options, "gid") {
        copy_up::copy_owner(from.as_fd(), tree.as_fd()).context("tmpcopyup")?;
    }
    set_attr(&tree, attr & READONLY, 0)?;
    Ok(tree)
}

fn explain(e: sys::Error, fstype: &str) -> anyhow::Error {
    // user_namespaces(7): it takes power over the namespace that is shown.
    let namespace = match fstype {
        "proc" => "pid",
        "sysfs" => "network",
        "mqueue" => "ipc",
        _ => "",
    };
    match e.errno {
        Errno::ENODEV => anyhow!("{e} (the kernel has no file system of type {fstype:?})"),
        Errno::EPERM if !namespace.is_empty() => anyhow!(
            "{e} (in a user namespace {fstype} can be mounted only for a {namespace} namespace made \
             in it, and where the host's {fstype} is not hidden in part: add one of type {namespace} \
             to linux.namespaces, or bind the host's)"
        ),
        _ => e.into(),
    }
}

fn too_long((_, value): &Parameter) -> bool {
    value.as_ref().is_some_and(|v| v.len() > 255)
}

fn mount_long(
    fstype: &str,
    source: &str,
    options: &[Parameter],
    attr: u64,
    target: BorrowedFd,
) -> Result<()> {
    // The low MOUNT_ATTR_* bits for ro, nosuid, nodev and noexec are MS_* bits too.
    let flags = attr & 0xf;
    Ok(sys::mount::mount_by_path(
        source,
        target,
        fstype,
        flags,
        &joined(options),
    )?)
}

/// cgroup2 as this process's cgroup namespace shows it; where the kernel does not allow a new
/// instance (a user namespace without a cgroup namespace of its own) the container's own cgroup. Where
/// it has none, an empty directory: the caller's is not for the container to see, and its files may
/// be the user's to write (CVE-2023-25809).
fn cgroup_tree(attr: u64, cgroup: OwnCgroup) -> Result<OwnedFd> {
    if let OwnCgroup::None = cgroup {
        return Ok(empty_tmpfs(None)?);
    }
    let fresh = FsContext::open("cgroup2").and_then(|fs| {
        fs.set("source", Some("cgroup"))?;
        fs.create()?;
        fs.mount(attr)
    });
    match (fresh, cgroup) {
        (Err(e), OwnCgroup::At(own)) if matches!(e.errno, Errno::EPERM | Errno::EBUSY) => {
            let tree = sys::mount::clone_tree(own, true)?;
            set_attr(&tree, attr, 0)?;
            Ok(tree)
        }
        (fresh, _) => Ok(fresh?),
    }
}

fn remount(mount: &Mount, root: BorrowedFd, options: &[Parameter]) -> Result<()> {
    let there = inside::open(root, &mount.destination, OFlag::O_PATH)?;
    if !options.is_empty() {
        let fs = FsContext::pick(there.as_fd())?;
        for (key, value) in options {
            fs.set(key, value.as_deref())?;
        }
        fs.reconfigure()?;
    }
    set_attr(&there, mount.attr.set, mount.attr.clear)?;
    finish(mount, there, false).map(drop)
}
