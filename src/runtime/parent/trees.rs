//! Makes the detached mounts that init may not make itself: binds whose ids are mapped (the power for
//! that is the host's root's), and sources that the root of a user namespace cannot reach.
//!
//! A short-lived helper does it in init's mount namespace, not in ours: only copies of what is mounted
//! there keep the locks that a user namespace puts on the host's mounts (mount_namespaces(7)), so that
//! the container's root cannot make a read-only one of the host writable.

use crate::runtime::handshake::ParentEnd;
use crate::runtime::init::sources;
use crate::runtime::parent::ids;
use crate::runtime::plan::{IdMap, Mount, MountIds, MountKind, Plan};
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};

/// Gives `init` the trees of the mounts that it asked for, by number. Where one cannot be made init is
/// told why, and fails.
pub fn give(init: Pid, plan: &Plan, which: &[u32], end: &ParentEnd) -> Result<()> {
    let all = plan.init.rootfs.as_ref().map_or(&[][..], |r| &r.mounts);
    let mut wanted: Vec<(&Mount, Option<usize>)> = Vec::new();
    let mut users = UserNamespaces::default();
    for number in which {
        let mount = all
            .get(*number as usize)
            .context("init asked for no mount")?;
        let user =
            match mount.kind.id_mapped() {
                Some(map) => Some(users.find(&map.ids, init).with_context(|| {
                    format!("{} ({})", mount.field, mount.destination.display())
                })?),
                None => None,
            };
        wanted.push((mount, user));
    }
    match sys::process::clone(0, None, false)? {
        Cloned::Child => {
            let done = own_descriptors(&wanted).and_then(|own| {
                enter_mount_namespace(init)?;
                for ((mount, user), own) in wanted.iter().zip(own) {
                    let tree = make(mount, own, user.map(|u| &users.open[u].1))?;
                    end.give_tree(tree.as_fd())?;
                }
                Ok(())
            });
            let told = done.or_else(|e| end.refuse_tree(&format!("{e:#}")));
            sys::process::exit_now(i32::from(told.is_err()))
        }
        Cloned::Parent { pid, .. } => {
            let pid = Pid::from_raw(pid);
            match nix::sys::wait::waitpid(pid, None).call("waitpid", || pid.to_string())? {
                WaitStatus::Exited(_, 0) => Ok(()),
                // Init still waits: it is ended with all else that was made.
                ended => bail!("the helper that opens sources of mounts ended: {ended:?}"),
            }
        }
    }
}

/// What lies in our mount namespace and not in init's.
fn own_descriptors(wanted: &[(&Mount, Option<usize>)]) -> Result<Vec<Option<OwnedFd>>> {
    let clone = |mount: &Mount| match mount.kind.own_descriptor() {
        Some((source, recursive)) => Ok(Some(sys::mount::clone_tree(source, recursive)?)),
        None => Ok(None),
    };
    wanted.iter().map(|(mount, _)| clone(mount)).collect()
}

fn open(path: &str, flags: OFlag) -> Result<OwnedFd> {
    let opened = nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty());
    Ok(opened.call("open", || format!("{path:?}"))?)
}

/// Paths mean from here on what they mean to init.
fn enter_mount_namespace(init: Pid) -> Result<()> {
    sys::process::set_parent_death_signal(libc::SIGKILL)?;
    let root = open(&format!("/proc/{init}/root"), OFlag::O_PATH)?;
    let namespace = open(&format!("/proc/{init}/ns/mnt"), OFlag::O_RDONLY)?;
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)
        .call("setns", || "init's, CLONE_NEWNS".to_owned())?;
    nix::unistd::fchdir(&root).call("fchdir", || "init's root".to_owned())?;
    nix::unistd::chroot(".").call("chroot", || "init's root".to_owned())?;
    Ok(())
}

fn make(mount: &Mount, own: Option<OwnedFd>, user: Option<&OwnedFd>) -> Result<OwnedFd> {
    let MountKind::Bind {
        source, recursive, ..
    } = &mount.kind
    else {
        bail!("init asked for the source of what is no bind");
    };
    let tree = match own {
        Some(tree) => tree,
        None => sys::mount::clone_tree(source, *recursive)
            .map_err(|e| sources::explain(e, *recursive))?,
    };
    if let (Some(map), Some(user)) = (mount.kind.id_mapped(), user) {
        sys::mount::map_ids(tree.as_fd(), map.recursive, user.as_fd())
            .map_err(|e| explain(e, map.recursive))
            .with_context(|| format!("map the ids of {source:?}"))?;
    }
    Ok(tree)
}

fn explain(e: sys::Error, recursive: bool) -> anyhow::Error {
    let below = match recursive {
        true => ", or one that is mounted below it,",
        false => "",
    };
    match e.errno {
        Errno::EINVAL => anyhow!("{e} (its file system{below} does not support id-mapped mounts)"),
        Errno::EPERM => anyhow!(
            "{e} (its ids{below} are mapped already, or its file system was mounted in another \
             user namespace)"
        ),
        _ => e.into(),
    }
}

/// The user namespaces of the mappings asked for, each found once.
#[derive(Default)]
struct UserNamespaces<'p> {
    open: Vec<(&'p MountIds, OwnedFd)>,
}

impl<'p> UserNamespaces<'p> {
    /// Its place in `open`.
    fn find(&mut self, ids: &'p MountIds, init: Pid) -> Result<usize> {
        if let Some(at) = self.open.iter().position(|(there, _)| *there == ids) {
            return Ok(at);
        }
        let fd = match ids {
            // New or joined, init is in it.
            MountIds::Container => open(&format!("/proc/{init}/ns/user"), OFlag::O_RDONLY)?,
            MountIds::Own { uids, gids } => new_user_namespace(uids, gids)?,
        };
        self.open.push((ids, fd));
        Ok(self.open.len() - 1)
    }
}

/// A user namespace that nobody is in: the process it was made with is gone when this returns.
fn new_user_namespace(uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    sys::process::hold(libc::CLONE_NEWUSER as u64, |holder| {
        write_maps(holder, uids, gids)
    })
    .context("new user namespace for the mappings")?
}

fn write_maps(holder: i32, uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    for (kind, map) in [("uid", uids), ("gid", gids)] {
        let lines = ids::lines(map);
        std::fs::write(format!("/proc/{holder}/{kind}_map"), &lines)
            .with_context(|| format!("{kind}Mappings: write {:?}", lines.trim_end()))?;
    }
    open(&format!("/proc/{holder}/ns/user"), OFlag::O_RDONLY)
}
