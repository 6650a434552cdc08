//! Makes the init process.

use crate::runtime::init::join::make_time_namespace;
use crate::runtime::plan::{CloneRoute, ParentPlan};
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Clones into the cgroup and the new namespaces of the plan. In the child, `Cloned::Child`.
///
/// What can only be entered by children (a pid namespace given by path, a time namespace with
/// offsets) is entered before the clone and left after it, also after a refused one: poststop hooks
/// are still to be run, and not among the container's processes. This program has one thread and makes
/// no other child meanwhile.
pub fn spawn(plan: &ParentPlan, cgroup: Option<BorrowedFd>) -> Result<Cloned> {
    let ways_back = ways_back(plan)?;
    let cloned = enter(plan).and_then(|()| clone(plan, cgroup));
    if matches!(cloned, Ok(Cloned::Child)) {
        return cloned;
    }
    let back = ways_back.iter().try_for_each(|(fd, kind)| {
        nix::sched::setns(fd, *kind).call("setns", || "back".to_owned())
    });
    let cloned = cloned?;
    back?;
    Ok(cloned)
}

fn clone(plan: &ParentPlan, cgroup: Option<BorrowedFd>) -> Result<Cloned> {
    let mut new = match plan.clone.route {
        CloneRoute::Direct => plan.clone.new,
        // The joiner makes them.
        CloneRoute::Joiner => 0,
    };
    if !plan.time_offsets.is_empty() {
        new &= !(libc::CLONE_NEWTIME as u64);
    }
    sys::process::clone(new, cgroup, false)
        .map_err(|e| match (e.errno, cgroup) {
            (Errno::EBUSY, Some(_)) => anyhow!(
                "{e}: the container's cgroup has controllers enabled for cgroups below it, so no \
                 process may be in it (cgroups(7), no internal processes)"
            ),
            (Errno::EOPNOTSUPP, Some(_)) => anyhow!(
                "{e}: the container's cgroup is threaded, or lies below one that is (cgroup.type), and \
                 only single threads may be there (cgroups(7), thread mode): give another \
                 linux.cgroupsPath"
            ),
            (Errno::EACCES, Some(_)) => anyhow!(
                "{e}: this user may not put a process into the container's cgroup: that takes the \
                 right to write to cgroup.procs of the cgroup which holds both that and its own \
                 (cgroups(7), delegation)"
            ),
            _ => e.into(),
        })
        .context("make the container's first process")
}

const PID: CloneFlags = CloneFlags::CLONE_NEWPID;
const TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// This process's own namespaces, of those that [`enter`] will enter.
fn ways_back(plan: &ParentPlan) -> sys::Result<Vec<(OwnedFd, CloneFlags)>> {
    let mut ways = Vec::new();
    if plan.clone.pid_namespace.is_some() {
        ways.push((open_namespace(Path::new("/proc/self/ns/pid"))?, PID));
    }
    if !plan.time_offsets.is_empty() {
        ways.push((open_namespace(Path::new("/proc/self/ns/time"))?, TIME));
    }
    Ok(ways)
}

fn enter(plan: &ParentPlan) -> Result<()> {
    if let Some(path) = &plan.clone.pid_namespace {
        open_namespace(path)
            .and_then(|there| {
                nix::sched::setns(there, PID).call("setns", || format!("{path:?}, CLONE_NEWPID"))
            })
            .with_context(|| format!("linux.namespaces: join pid namespace {path:?}"))?;
    }
    match plan.time_offsets.is_empty() {
        true => Ok(()),
        false => make_time_namespace(&plan.time_offsets),
    }
}

fn open_namespace(path: &Path) -> sys::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .call("open", || format!("{path:?}"))
}
