//! Builds the tree the container will see, then makes it the root.
//!
//! Everything is attached by descriptor while the host's tree is still in sight; only after
//! [`Root::enter`] are paths hidden and made read-only, as runc orders it.

use super::devices;
use super::inside::{self, Missing};
use super::mounts::{self, OwnCgroup};
use super::sources::Sources;
use crate::runtime::plan::{MountKind, RootfsPlan};
use crate::sys::{self, Call};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The container's root mount while init works on it.
pub struct Root<'p> {
    plan: &'p RootfsPlan,
    /// Path handle on the root of the new tree.
    fd: OwnedFd,
    /// A verified /dev/null; there when paths are to be masked.
    null: Option<Cover>,
    /// /proc and /sys as they were mounted, the last one last.
    system: Vec<(&'p Path, OwnedFd)>,
    /// Mounts that become read-only only once all of the tree is made.
    late_readonly: Vec<OwnedFd>,
}

impl<'p> Root<'p> {
    /// Mounts and devices, in the order of the plan.
    pub fn build(
        plan: &'p RootfsPlan,
        mut sources: Sources,
        cgroup: OwnCgroup,
        in_user_namespace: bool,
    ) -> Result<Self> {
        let fd = attach_root(plan).with_context(|| format!("root.path {:?}", plan.path))?;
        let (mut late_readonly, mut system) = (Vec::new(), Vec::new());
        for (i, mount) in plan.mounts.iter().enumerate() {
            let describe = || format!("{} ({})", mount.field, mount.destination.display());
            let source = sources.of(i, mount).with_context(describe)?;
            let late = mounts::perform(mount, fd.as_fd(), source, cgroup).with_context(describe)?;
            match late {
                Some(tree) if mounts::is_system(mount) => system.push((&*mount.destination, tree)),
                late => late_readonly.extend(late),
            }
            if let Some(label) = &plan.mount_label {
                mounts::label_queues(mount, fd.as_fd(), label).with_context(describe)?;
            }
        }
        if !plan.skip_dev {
            devices::make(plan, fd.as_fd(), in_user_namespace)?;
        }
        let null = match plan.masked_paths.is_empty() {
            true => None,
            // Taken while the host's tree is ours: of an unmounted one no copy can be made.
            false => Some(Cover::new(sys::mount::clone_tree_at(
                devices::null(fd.as_fd())?.as_fd(),
                false,
            )?)),
        };
        Ok(Root {
            plan,
            fd,
            null,
            system,
            late_readonly,
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Makes the tree this process's root; the host's is gone after that.
    pub fn enter(&self) -> Result<()> {
        nix::unistd::fchdir(&self.fd).call("fchdir", || format!("{:?}", self.plan.path))?;
        if self.plan.shares_mount_namespace {
            nix::unistd::chroot(".").call("chroot", || format!("{:?}", self.plan.path))?;
            return Ok(nix::unistd::chdir("/").call("chdir", || "/".to_owned())?);
        }
        if self.plan.no_pivot {
            return Ok(sys::mount::move_cwd_to_root()?);
        }
        let may_propagate = self.plan.initial_propagation & libc::MS_SHARED != 0;
        sys::mount::pivot_into_cwd(may_propagate).map_err(|e| {
            let hint = match (e.call, e.errno) {
                ("pivot_root", Errno::EINVAL) => {
                    " (the rootfs may lie on an initramfs: try --no-pivot)"
                }
                _ => "",
            };
            anyhow::anyhow!("{e}{hint}")
        })
    }

    /// What must come last: what was still to be filled and `/` become read-only, propagation of `/`.
    pub fn finish(&self) -> Result<()> {
        for mount in &self.late_readonly {
            sys::mount::set_attr(mount.as_fd(), false, READONLY, 0, 0)
                .context("make a tmpfs or /dev read-only")?;
        }
        if let Some(flags) = self.plan.final_propagation {
            sys::mount::set_propagation(Path::new("/"), flags)
                .context("linux.rootfsPropagation")?;
        }
        if self.plan.readonly {
            sys::mount::set_attr(self.fd.as_fd(), false, READONLY, 0, 0)
                .context("root.readonly")?;
        }
        Ok(())
    }

    /// linux.readonlyPaths: each is bound over itself, read-only with all that is below.
    pub fn protect_paths(&self) -> Result<()> {
        for path in &self.plan.readonly_paths {
            let Some(target) = self.existing(path)? else {
                continue;
            };
            let describe = || format!("linux.readonlyPaths ({})", path.display());
            let tree = sys::mount::clone_tree_at(target.as_fd(), true).with_context(describe)?;
            sys::mount::set_attr(tree.as_fd(), true, READONLY, 0, 0).with_context(describe)?;
            sys::mount::attach(tree.as_fd(), target.as_fd()).with_context(describe)?;
        }
        Ok(())
    }

    /// linux.maskedPaths: a directory under one empty read-only tmpfs that all share, a file under
    /// the null device, by a descriptor that was verified (CVE-2025-31133).
    pub fn mask_paths(&self) -> Result<()> {
        let mut empty = None;
        for path in &self.plan.masked_paths {
            let Some(target) = self.existing(path)? else {
                continue;
            };
            let describe = || format!("linux.maskedPaths ({})", path.display());
            let stat = inside::stat_fd(target.as_fd())?;
            let cover = if inside::kind_of(&stat) != SFlag::S_IFDIR {
                self.null.as_ref().context("/dev/null was not opened")?
            } else {
                if empty.is_none() {
                    empty = Some(Cover::new(
                        empty_tmpfs(self.plan.mount_label.as_deref()).with_context(describe)?,
                    ));
                }
                empty.as_ref().context("no cover")?
            };
            cover.put_over(target.as_fd()).with_context(describe)?;
        }
        Ok(())
    }

    /// A handle on a path of the container, or nothing where there is none to protect.
    ///
    /// A path of /proc or /sys is looked up in what was mounted there, not by that name: the image's
    /// directory may have been exchanged for another since, with the mount on it, and then a
    /// fake would be masked and the true file not (CVE-2019-19921, CVE-2023-27561).
    fn existing(&self, path: &Path) -> Result<Option<OwnedFd>> {
        let mounted = self.system.iter().rev().find_map(|(dir, tree)| {
            let below = path.strip_prefix(dir).ok()?;
            (!below.as_os_str().is_empty()).then_some((tree.as_fd(), below))
        });
        let (root, path) = mounted.unwrap_or((self.fd.as_fd(), path));
        match inside::open(root, path, OFlag::O_PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open {}", path.display())),
        }
    }
}

/// A mount that hides what is below it, in several places.
struct Cover {
    tree: OwnedFd,
    /// In place somewhere. Only then can copies be made (a detached mount cannot be copied before
    /// Linux 6.15), and only until then can it be attached itself.
    attached: Cell<bool>,
}

impl Cover {
    fn new(tree: OwnedFd) -> Self {
        Cover {
            tree,
            attached: Cell::new(false),
        }
    }

    fn put_over(&self, target: BorrowedFd) -> sys::Result<()> {
        if self.attached.replace(true) {
            let copy = sys::mount::clone_tree_at(self.tree.as_fd(), false)?;
            return sys::mount::attach(copy.as_fd(), target);
        }
        sys::mount::attach(self.tree.as_fd(), target)
    }
}

const READONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// Read-only, so that it stays empty.
pub fn empty_tmpfs(label: Option<&str>) -> sys::Result<OwnedFd> {
    let tmpfs = sys::mount::FsContext::open("tmpfs")?;
    tmpfs.set("source", Some("tmpfs"))?;
    if label.is_some() {
        tmpfs.set("context", label)?;
    }
    tmpfs.create()?;
    tmpfs.mount(READONLY)
}

/// Root of a user namespace is nobody to a closed directory above the rootfs. Where the caller is in a directory above it,
/// as engines are in the bundle, the way begins there: the working directory was entered before.
fn open_root(path: &Path) -> sys::Result<OwnedFd> {
    let open = |path: &Path| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty())
            .call("open", || format!("{path:?}, O_PATH|O_DIRECTORY"))
    };
    match open(path) {
        Err(e) if e.errno == Errno::EACCES => {
            let below = nix::unistd::getcwd()
                .ok()
                .and_then(|cwd| path.strip_prefix(cwd).ok().map(Path::to_owned));
            below.and_then(|below| open(&below).ok()).ok_or(e)
        }
        other => other,
    }
}

/// Sets the host's tree apart and binds the rootfs over itself, so that it is a mount of its own.
fn attach_root(plan: &RootfsPlan) -> Result<OwnedFd> {
    let open = || open_root(&plan.path);
    if plan.shares_mount_namespace {
        // Mounts would be made in the host's tree and stay there.
        if plan
            .mounts
            .iter()
            .any(|m| !matches!(m.kind, MountKind::Remount { .. }))
        {
            bail!("mounts need a mount namespace: add one to linux.namespaces, or remove mounts");
        }
        return Ok(open()?);
    }
    sys::mount::set_propagation(Path::new("/"), plan.initial_propagation)?;
    if plan.initial_propagation & libc::MS_SHARED != 0 {
        make_parent_private(&plan.path)?;
    }
    let target = open()?;
    let tree = sys::mount::clone_tree_at(target.as_fd(), true)?;
    sys::mount::attach(tree.as_fd(), target.as_fd())?;
    Ok(tree)
}

/// The mount that holds the rootfs must not be shared: the bind would reach the host, and
/// pivot_root(2) refuses. Found by trying: mount(2) takes only mount points for a change of
/// propagation (EINVAL).
fn make_parent_private(rootfs: &Path) -> Result<()> {
    for dir in rootfs.ancestors() {
        match sys::mount::set_propagation(dir, libc::MS_PRIVATE) {
            Err(e) if e.errno == Errno::EINVAL => {}
            other => return Ok(other?),
        }
    }
    Ok(())
}

/// Makes `path` a directory in the container, for process.cwd (runc makes it 0755 too).
pub fn make_directory(root: BorrowedFd, path: &Path) -> sys::Result<()> {
    inside::open_or_make(root, path, Missing::Directory).map(drop)
}
