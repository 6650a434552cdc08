//! Makes a container from images of CRIU's instead of a program: the record, the cgroup with its limits and
//! the hooks are as at `create`, and the processes come from CRIU, as children of this one.

use super::{Effects, Made, Order, record_made};
use crate::runtime::criu::message::{Kind, Message, Notification, field};
use crate::runtime::criu::{self, Begin, Criu, Folders, external};
use crate::runtime::hooks;
use crate::runtime::init::inside::{self, Missing};
use crate::runtime::plan::{MountKind, Plan};
use crate::sys::{self, Call};
use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What to restore from.
pub struct Images<'a> {
    pub folders: &'a Folders,
    /// CRIU's, but for what is found out here.
    pub options: Message,
    /// Descriptors in the place of what is not in the images: CRIU's name for each.
    pub inherit: Vec<(String, OwnedFd)>,
    /// The container had the terminal of whoever ran it.
    pub own_terminal: bool,
}

/// Restores the container, or leaves nothing behind. It runs when this returns.
pub fn restore(order: Order, images: Images) -> Result<Made> {
    let plan = order.plan;
    let mut made = Effects::new(order.claim, order.record);
    match made.perform_restore(plan, order.config, order.cgroup_mount, images) {
        Ok(master) => made.finish(master, None, true),
        Err(e) => {
            made.undo(plan);
            Err(e)
        }
    }
}

impl Effects {
    fn perform_restore(
        &mut self,
        plan: &Plan,
        config: &[u8],
        cgroup_mount: &Path,
        images: Images,
    ) -> Result<Option<OwnedFd>> {
        self.begin(plan, cgroup_mount)?;
        self.claim.save_config(config)?;
        let root = plan.init.rootfs.as_ref().context("root is missing")?;
        make_mount_points(plan, &root.path)?;
        let keep: Vec<_> = images.inherit.iter().map(|(_, fd)| fd.as_fd()).collect();
        let criu = Criu::begin(&Begin {
            folders: images.folders,
            keep: &keep,
            root: Some(&root.path),
            own_terminal: images.own_terminal,
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.dir()),
        })?;
        self.place(plan, criu.pid())?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.apply(&plan.parent.cgroup)?;
        }
        let mut options = images.options;
        options
            .text(field::ROOT, criu::text(&root.path)?)
            .set(field::SIBLING, true);
        for given in external::to_give(plan, self.record.cgroup.as_deref())? {
            options.text(field::EXTERNAL, &given);
        }
        if let Some(path) = &self.record.cgroup {
            // It may have had another one.
            let mut moved = Message::default();
            let inner = path.strip_prefix(&self.record.cgroup_mount)?;
            moved
                .text(1, "")
                .text(2, criu::text(&Path::new("/").join(inner))?);
            options.message(field::CGROUP_ROOT, &moved);
        }
        for (name, fd) in &images.inherit {
            let mut given = Message::default();
            given.text(1, name).descriptor(2, fd.as_fd());
            options.message(field::INHERIT_FD, &given);
        }
        let mut master = None;
        criu.perform(Kind::Restore, &options, |notification, fd| {
            self.heed(plan, notification, fd, &mut master)
        })?;
        self.init()?;
        Ok(master)
    }

    fn heed(
        &mut self,
        plan: &Plan,
        notification: &Notification,
        fd: Option<OwnedFd>,
        master: &mut Option<OwnedFd>,
    ) -> Result<()> {
        let pid = notification.pid;
        match notification.script.as_str() {
            "setup-namespaces" => {
                let state = self.record.hook_state(pid, "creating");
                hooks::run(&plan.parent.prestart, "prestart", &state)?;
                hooks::run(&plan.parent.create_runtime, "createRuntime", &state)
            }
            // All of it is there, and stands still.
            "post-restore" => {
                let pid = Pid::from_raw(pid);
                self.init = Some((pid, sys::pidfd::open(pid.as_raw())?));
                record_made(&self.claim, &mut self.record, pid)
            }
            "orphan-pts-master" => {
                *master = fd;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Where the rootfs is a new one, what was made in it at `create` is not there yet. Mount points inside other
/// mounts come with those.
fn make_mount_points(plan: &Plan, rootfs: &Path) -> Result<()> {
    let Some(tree) = &plan.init.rootfs else {
        return Ok(());
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = open(rootfs, flags, Mode::empty())
        .call("open", || format!("{rootfs:?}"))
        .context("root.path")?;
    for mount in &tree.mounts {
        let is_below =
            |other: &Path| mount.destination != other && mount.destination.starts_with(other);
        if tree.mounts.iter().any(|other| is_below(&other.destination)) {
            continue;
        }
        let missing = match &mount.kind {
            MountKind::Bind { source, .. } if !source.is_dir() => Missing::File,
            _ => Missing::Directory,
        };
        inside::open_or_make(root.as_fd(), &mount.destination, missing)
            .with_context(|| format!("{} ({})", mount.field, mount.destination.display()))?;
    }
    Ok(())
}
