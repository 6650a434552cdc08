//! Makes the init process.

use crate::runtime::init::join::make_time_namespace;
use crate::runtime::plan::{ClonePlan, CloneRoute, ParentPlan, TimeOffset};
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Clones into the cgroup and the new namespaces of the plan. In the child, `Cloned::Child`.
///
/// What can only be entered by children (a pid namespace given by path, a time namespace with
/// offsets) is entered before the clone and left after it; this program has one thread and makes
/// no other child meanwhile.
pub fn spawn(plan: &ParentPlan, cgroup: Option<BorrowedFd>) -> Result<Cloned> {
    let mut new = match plan.clone.route {
        CloneRoute::Direct => plan.clone.new,
        // The joiner makes them.
        CloneRoute::Joiner => 0,
    };
    let pid_way_back = enter_pid_namespace(&plan.clone)?;
    let time_way_back = match plan.time_offsets.is_empty() {
        true => None,
        false => {
            new &= !(libc::CLONE_NEWTIME as u64);
            Some(enter_new_time_namespace(&plan.time_offsets)?)
        }
    };
    let cloned = sys::process::clone(new, cgroup, false)
        .map_err(|e| match (e.errno, cgroup) {
            (nix::errno::Errno::EBUSY, Some(_)) => anyhow::anyhow!(
                "{e}: the container's cgroup has controllers enabled for cgroups below it, so no \
                 process may be in it (cgroups(7), no internal processes)"
            ),
            (nix::errno::Errno::EOPNOTSUPP, Some(_)) => anyhow::anyhow!(
                "{e}: the container's cgroup is threaded, or lies below one that is (cgroup.type), and \
                 only single threads may be there (cgroups(7), thread mode): give another \
                 linux.cgroupsPath"
            ),
            (nix::errno::Errno::EACCES, Some(_)) => anyhow::anyhow!(
                "{e}: this user may not put a process into the container's cgroup: that takes the \
                 right to write to cgroup.procs of the cgroup which holds both that and its own \
                 (cgroups(7), delegation)"
            ),
            _ => e.into(),
        })
        .context("make the container's first process")?;
    if let Cloned::Parent { .. } = cloned {
        for (fd, kind) in [
            (pid_way_back, CloneFlags::CLONE_NEWPID),
            (
                time_way_back,
                CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
            ),
        ] {
            if let Some(fd) = fd {
                nix::sched::setns(fd, kind).call("setns", || "back".to_owned())?;
            }
        }
    }
    Ok(cloned)
}

fn open_namespace(path: &Path) -> sys::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .call("open", || format!("{path:?}"))
}

/// Gives the way back.
fn enter_pid_namespace(plan: &ClonePlan) -> Result<Option<OwnedFd>> {
    let Some(path) = &plan.pid_namespace else {
        return Ok(None);
    };
    let own = open_namespace(Path::new("/proc/self/ns/pid"))?;
    open_namespace(path)
        .and_then(|there| {
            nix::sched::setns(there, CloneFlags::CLONE_NEWPID)
                .call("setns", || format!("{path:?}, CLONE_NEWPID"))
        })
        .with_context(|| format!("linux.namespaces: join pid namespace {path:?}"))?;
    Ok(Some(own))
}

/// Gives the way back.
fn enter_new_time_namespace(offsets: &[TimeOffset]) -> Result<OwnedFd> {
    let own = open_namespace(Path::new("/proc/self/ns/time"))?;
    make_time_namespace(offsets)?;
    Ok(own)
}
