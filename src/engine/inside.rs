//! What is at a path of a container? Resolved by the kernel inside its root (openat2(2), RESOLVE_IN_ROOT), and a
//! descriptor from then on: no link of the container leads out of it, whoever changes it meanwhile.

use super::mounts::{Mount, Source};
use super::now;
use super::record::{Home, Record};
use super::rootfs::Rootfs;
use super::volumes;
use crate::idmap::Kept;
use crate::sys::{mount, pidfd};
use anyhow::{Context, Result, bail, ensure};
use caps::CapSet;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use serde_json::Value;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Opens `path` below `root`; links are followed as the container's processes would.
pub fn open(root: BorrowedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    // Else an absolute path would be one; and nothing at all is the root.
    let below = path.strip_prefix("/").unwrap_or(path);
    let below = match below.as_os_str().is_empty() {
        true => Path::new("."),
        false => below,
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root, below, how) {
            // A rename on the way: the kernel could not be sure, and asks to be asked again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// The root of a container, with all that is mounted in it.
pub struct Root {
    fd: OwnedFd,
    /// Of one that runs with ids of its own: who they are.
    users: Option<OwnedFd>,
    /// Of one that does not run: who keeps an id.
    kept: Option<Kept>,
    /// Of one that does not run: mounted by us, and no monitor can begin.
    _ours: Option<(File, Option<Rootfs>)>,
}

impl Root {
    /// What tar and untar must know, so that files have the owners that the container sees.
    pub fn options(&self) -> Vec<String> {
        let users = self.users.as_ref().map(|users| {
            let path = format!("/proc/{}/fd/{}", std::process::id(), users.as_raw_fd());
            ["--users".to_owned(), path]
        });
        let kept = self
            .kept
            .map(|kept| ["--kept".to_owned(), kept.to_string()]);
        users.into_iter().chain(kept).flatten().collect()
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The root that a container's processes see; where none runs, what they would see. Changes this process's
/// namespaces and working directory.
pub fn root(home: &Home, record: &Record) -> Result<Root> {
    if let Some(init) = now::alive(record)? {
        return of_running(init.as_fd(), record);
    }
    let Some(lock) = home.try_monitor(&record.id)? else {
        bail!("container {} is starting or ending: try again", record.name);
    };
    let dir = home.dir(&record.id);
    let rootfs = Rootfs::mount(&dir, record, None)?;
    let path = match &rootfs {
        Some(rootfs) => rootfs.path().to_owned(),
        None => root_of_bundle(&dir)?,
    };
    let fd: OwnedFd = File::open(&path)
        .with_context(|| path.display().to_string())?
        .into();
    if rootfs.is_some() {
        for wanted in &record.mounts {
            mount_at(home, fd.as_fd(), wanted).with_context(|| wanted.target.clone())?;
        }
    }
    Ok(Root {
        fd,
        users: None,
        kept: record.kept,
        _ours: Some((lock, rootfs)),
    })
}

fn of_running(init: BorrowedFd, record: &Record) -> Result<Root> {
    let number = pidfd::pid_of(init)?;
    if record.rootless && !geteuid().is_root() {
        // Files of the container belong to ids that only its user namespace knows.
        pidfd::enter(init, libc::CLONE_NEWUSER as u64)
            .context("enter the container's user namespace")?;
        if record.kept.is_some() {
            // Who is not root there would lose them with the next execve(2).
            let all = caps::read(None, CapSet::Permitted)?;
            caps::set(None, CapSet::Inheritable, &all)?;
            caps::set(None, CapSet::Ambient, &all)?;
        }
    }
    let open = |what: &str| -> Result<OwnedFd> {
        let path = format!("/proc/{number}/{what}");
        Ok(File::open(&path).with_context(|| path.clone())?.into())
    };
    let fd = open("root")?;
    let users = record.ids.map(|_| open("ns/user")).transpose()?;
    // The number was still that process's when they were opened.
    let ended = pidfd::wait(init, Duration::ZERO)?;
    ensure!(!ended, "container {} has ended: try again", record.name);
    Ok(Root {
        fd,
        users,
        kept: None,
        _ours: None,
    })
}

/// The root that a bundle brings.
pub fn root_of_bundle(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("bundle/config.json");
    let config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    let root = config["root"]["path"].as_str();
    Ok(root
        .with_context(|| format!("{}: root.path", path.display()))?
        .into())
}

fn mount_at(home: &Home, root: BorrowedFd, wanted: &Mount) -> Result<()> {
    let source = match &wanted.source {
        Source::Tmpfs => return Ok(()),
        Source::Host { path, .. } => PathBuf::from(path),
        Source::Volume { name, .. } => volumes::data(home, name),
    };
    let target = match open(root, Path::new(&wanted.target), OFlag::O_PATH) {
        // It has never run: the runtime would make it.
        Err(Errno::ENOENT) => return Ok(()),
        target => target?,
    };
    let tree = mount::clone_tree(&source, true)?;
    if wanted.read_only {
        mount::set_attr(tree.as_fd(), true, libc::MOUNT_ATTR_RDONLY, 0, 0)?;
    }
    Ok(mount::attach(tree.as_fd(), target.as_fd())?)
}

/// Mounts at `at`, in a mount namespace of this process's own, what the process `pid` has at `path`; gives `at`, if
/// anything is there.
pub fn borrow_mount(pid: i32, path: &Path, at: &Path) -> Result<Option<PathBuf>> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)?;
    let (own, root) = (File::open("/proc/self/ns/mnt")?, File::open("/")?);
    let others = format!("/proc/{pid}/ns/mnt");
    let others = File::open(&others).with_context(|| others.clone())?;
    // Only who is in a mount namespace may copy its mounts; to enter one is to be at its root.
    setns(&others, CloneFlags::CLONE_NEWNS).context("enter its mount namespace")?;
    let tree = mount::clone_tree(path, true);
    setns(&own, CloneFlags::CLONE_NEWNS).context("leave its mount namespace")?;
    nix::unistd::fchdir(&root)?;
    nix::unistd::chroot(".")?;
    let tree = match tree {
        Err(e) if e.errno == Errno::ENOENT => return Ok(None),
        tree => tree?,
    };
    fs::create_dir_all(at)?;
    mount::attach(tree.as_fd(), File::open(at)?.as_fd())?;
    Ok(Some(at.to_owned()))
}
