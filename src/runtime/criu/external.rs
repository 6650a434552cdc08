//! What of a container is not CRIU's to write down, but the host's to give again: binds of the host's
//! files, and namespaces that were joined by path.
//!
//! CRIU knows such a mount by its mount point and a name; here the name is the destination in config.json,
//! so that a restored container may have other sources. Which mount that is, is found by descriptor, and
//! believed only if it shows the very file of the host that config.json names: a destination may have
//! become a link, or another mount, since the container was made (CVE-2026-115520, CVE-2026-119101).

use crate::runtime::init::inside;
use crate::runtime::plan::{MountKind, Plan};
use crate::sys::{self, Call};
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, stat};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A file or directory of the host that the container has at `destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    destination: PathBuf,
    source: PathBuf,
}

/// All that the container may have of the host's files. Some of it may be its own: a file that is masked
/// is covered by its own /dev/null, where it has one. `cgroup` is the directory of its cgroup.
///
/// # Errors
/// A mount that would come back as something else.
fn bound(plan: &Plan, cgroup: Option<&Path>) -> Result<Vec<Bound>> {
    let Some(rootfs) = &plan.init.rootfs else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for mount in &rootfs.mounts {
        let source = match &mount.kind {
            MountKind::Bind { .. } if mount.kind.id_mapped().is_some() => {
                bail!("{}: criu does not restore id-mapped mounts", mount.field)
            }
            MountKind::Bind { .. } if mount.kind.own_descriptor().is_some() => bail!(
                "{}.source: a descriptor is not there any more at a restore",
                mount.field
            ),
            MountKind::Bind { source, .. } => source.as_path(),
            MountKind::Cgroup { .. } if cgroup.is_some() => cgroup.unwrap_or(Path::new("/")),
            _ => continue,
        };
        all.push(Bound {
            destination: mount.destination.clone(),
            source: source.to_owned(),
        });
    }
    let nothing = rootfs
        .masked_paths
        .iter()
        .map(|path| (path, Path::new("/dev/null")));
    let devices = rootfs
        .devices
        .iter()
        .filter(|_| plan.init.in_user_namespace);
    let devices = devices.map(|device| (&device.path, device.path.as_path()));
    all.extend(nothing.chain(devices).map(|(destination, source)| Bound {
        destination: destination.clone(),
        source: source.to_owned(),
    }));
    Ok(all)
}

/// Namespaces whose making and keeping is others': what kind (CLONE_NEW*), CRIU's word for it, the name.
const NAMESPACES: [(i32, &str, &str); 2] = [
    (libc::CLONE_NEWNET, "net", "extRootNetNS"),
    (libc::CLONE_NEWPID, "pid", "extRootPidNS"),
];

/// CRIU's names of the namespaces that the plan joins by path, and the paths.
fn joined(plan: &Plan) -> Vec<(&'static str, &'static str, &Path)> {
    let by_init = plan
        .init
        .join
        .iter()
        .map(|join| (join.kind, join.path.as_path()));
    let by_parent = plan.parent.clone.pid_namespace.iter();
    let by_parent = by_parent.map(|path| (libc::CLONE_NEWPID as u64, path.as_path()));
    by_init
        .chain(by_parent)
        .filter_map(|(kind, path)| {
            let (_, word, name) = NAMESPACES.iter().find(|(k, ..)| *k as u64 == kind)?;
            Some((*word, *name, path))
        })
        .collect()
}

/// For a dump: `mnt[/data]:/data`, `net[4026532281]:extRootNetNS`. `pid` is the container's init.
pub fn to_leave_out(plan: &Plan, cgroup: Option<&Path>, pid: i32) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (word, name, _) in joined(plan) {
        let path = format!("/proc/{pid}/ns/{word}");
        let inode = stat(path.as_str())
            .call("stat", || format!("{path:?}"))?
            .st_ino;
        all.push(format!("{word}[{inode}]:{name}"));
    }
    let root = format!("/proc/{pid}/root");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(root.as_str(), flags, Mode::empty()).call("open", || format!("{root:?}"))?;
    let places = places(pid)?;
    for bound in bound(plan, cgroup)? {
        if let Some(id) = mount_of(&root, &bound)
            && let Some(place) = places.get(&id)
        {
            let (at, name) = (place.display(), bound.destination.display());
            all.push(format!("mnt[{at}]:{name}"));
        }
    }
    Ok(all)
}

/// The mount at the destination, if it shows the source.
fn mount_of(root: &OwnedFd, bound: &Bound) -> Option<u64> {
    let there = inside::open(root.as_fd(), &bound.destination, OFlag::O_PATH).ok()?;
    let seen = inside::stat_fd(there.as_fd()).ok()?;
    let asked = stat(&bound.source).ok()?;
    if (seen.st_dev, seen.st_ino) != (asked.st_dev, asked.st_ino) {
        return None;
    }
    sys::file::mount_root(there.as_fd()).ok()?
}

/// Where the container's mounts are, by their ids.
fn places(pid: i32) -> Result<HashMap<u64, PathBuf>> {
    let mounts = procfs::process::Process::new(pid)
        .and_then(|process| process.mountinfo())
        .with_context(|| format!("read /proc/{pid}/mountinfo"))?;
    Ok(mounts
        .into_iter()
        .map(|mount| (mount.mnt_id as u64, mount.mount_point))
        .collect())
}

/// For a restore: `mnt[/data]:/srv/data`.
pub fn to_give(plan: &Plan, cgroup: Option<&Path>) -> Result<Vec<String>> {
    let given = |bound: &Bound| {
        let (name, source) = (bound.destination.display(), bound.source.display());
        format!("mnt[{name}]:{source}")
    };
    Ok(bound(plan, cgroup)?.iter().map(given).collect())
}

/// For a restore: the namespaces to be joined, open, with CRIU's name for each.
pub fn namespaces(plan: &Plan) -> Result<Vec<(String, OwnedFd)>> {
    let open_one = |path: &Path| {
        open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .call("open", || format!("{path:?}"))
            .context("linux.namespaces")
    };
    let all = joined(plan).into_iter();
    all.map(|(_, name, path)| Ok((name.to_owned(), open_one(path)?)))
        .collect()
}
