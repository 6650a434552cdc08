//! Enters namespaces: those given by path, those of a running container; becomes a user namespace's
//! root.

use super::Running;
use crate::runtime::cgroup;
use crate::runtime::plan::{InitPlan, Join, TimeOffset};
use crate::sys::{self, Call};
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Enters the namespaces of the plan, in its order. All are opened first: after the mount
/// namespace is entered, the paths mean something else.
pub fn enter(join: &[Join]) -> Result<()> {
    let opened: Vec<(&Join, OwnedFd)> = join
        .iter()
        .map(|j| {
            let fd = nix::fcntl::open(&j.path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                .call("open", || format!("{:?}", j.path))
                .with_context(|| in_words(j))?;
            Ok((j, fd))
        })
        .collect::<Result<_>>()?;
    for (j, fd) in &opened {
        // The kind is stated, so that a path to another kind of namespace is refused.
        let kind = CloneFlags::from_bits_retain(j.kind as i32);
        nix::sched::setns(fd.as_fd(), kind)
            .call("setns", || format!("{:?}, {}", j.path, j.name))
            .with_context(|| in_words(j))?;
    }
    Ok(())
}

/// Enters a running container: all its namespaces in one call, so that at no time this process is
/// half in one. `kinds` are CLONE_NEW*.
pub fn enter_running(running: &Running, kinds: u64) -> Result<()> {
    if kinds != 0 {
        sys::pidfd::enter(running.init, kinds).context("enter the container's namespaces")?;
    }
    if let Some(root) = &running.root {
        nix::unistd::fchdir(root).call("fchdir", || "the container's root".to_owned())?;
        nix::unistd::chroot(".").call("chroot", || "\".\"".to_owned())?;
    }
    Ok(())
}

fn in_words(join: &Join) -> String {
    format!(
        "linux.namespaces: join {} namespace {:?}",
        join.name, join.path
    )
}

/// A time namespace for the children of this process. Offsets can be written only while no process
/// is in it (time_namespaces(7)).
pub fn make_time_namespace(offsets: &[TimeOffset]) -> Result<()> {
    nix::sched::unshare(TIME)
        .call("unshare", || "CLONE_NEWTIME".to_owned())
        .context("linux.namespaces: new time namespace")?;
    let lines: String = offsets
        .iter()
        .map(|o| format!("{} {} {}\n", o.clock, o.secs, o.nanos))
        .collect();
    std::fs::write("/proc/self/timens_offsets", &lines)
        .with_context(|| format!("linux.timeOffsets: write {:?}", lines.trim_end()))
}

/// The same for this process itself.
pub fn enter_new_time_namespace(offsets: &[TimeOffset]) -> Result<()> {
    make_time_namespace(offsets)?;
    let path = "/proc/self/ns/time_for_children";
    let made = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .call("open", || format!("{path:?}"))?;
    nix::sched::setns(&made, TIME)
        .call("setns", || format!("{path:?}, CLONE_NEWTIME"))
        .context("linux.namespaces: enter the new time namespace")
}

const TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// New namespaces (`kinds`: CLONE_NEW*), of the present user namespace.
pub fn unshare(kinds: u64) -> Result<()> {
    nix::sched::unshare(CloneFlags::from_bits_retain(kinds as i32))
        .call("unshare", || format!("{kinds:#x}"))
        .context("linux.namespaces")
}

/// Where systemd has put this process, as a directory below the cgroup2 mount.
pub fn own_cgroup(mount: &Path) -> Result<PathBuf> {
    let inner = cgroup::own()?;
    Ok(mount.join(inner.strip_prefix("/").unwrap_or(&inner)))
}

/// Root of the user namespace, new (its maps are written) or joined.
pub fn become_its_root(plan: &InitPlan) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresuid(uid, uid, uid)
        .call("setresuid", || "0".to_owned())
        .context("become root of the user namespace (is container id 0 in linux.uidMappings?)")?;
    nix::unistd::setresgid(gid, gid, gid)
        .call("setresgid", || "0".to_owned())
        .context("become root of the user namespace (is container id 0 in linux.gidMappings?)")?;
    // Of a joined one the caller's groups were given up before.
    if plan.new_user_namespace && plan.process.groups.is_some() {
        nix::unistd::setgroups(&[]).call("setgroups", || "none".to_owned())?;
    }
    Ok(())
}
