//! Where is a container's root? An overlay of its own layer over the shared ones of its image.
//!
//! It is mounted in a mount namespace of ours: whoever is killed, nothing is left to unmount. Who is not root
//! makes a user namespace first: there overlayfs may be mounted since Linux 5.11, with its marks in `user.`
//! attributes. Where the kernel refuses, fuse-overlayfs does it.

use super::network::link::Namespace;
use super::record::Record;
use super::userns;
use crate::idmap::{self, Kept};
use crate::sys::mount;
use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the container's directory: the same once more, with the ids of its user namespace.
const MAPPED: &str = "mapped";

/// There, where fuse-overlayfs has written the container's own layer.
const FUSE: &str = "fuse";

/// A mounted root; it is unmounted when this is dropped, or when the process ends.
pub struct Rootfs {
    at: PathBuf,
    /// More that is mounted in the container's directory.
    besides: Vec<PathBuf>,
}

/// Which layers are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The image alone.
    Image,
    /// What the container made of it. Its own layer too is mounted as a lower one: so it can be looked at
    /// while the container runs.
    Container,
}

impl Rootfs {
    /// The root that the container writes to; none for a bundle, which brings its own. With the ids of the disk, or, for
    /// a container that has ids of its own, with those, as its namespace `user` has them. The container's directory is the working
    /// directory from here on.
    pub fn mount(dir: &Path, record: &Record, user: Option<&Namespace>) -> Result<Option<Rootfs>> {
        std::env::set_current_dir(dir).with_context(|| dir.display().to_string())?;
        if record.lower.is_empty() {
            return Ok(None);
        }
        enter(record)?;
        let lower = layers(record).join(":");
        match (user, &record.ids) {
            (Some(user), Some(ids)) => {
                map_layers(dir, record, user.fd()).context("--userns auto")?;
                let users = dir.join(userns::AT);
                user.mount(&users)?;
                let own = format!("upperdir={MAPPED}/upper,workdir={MAPPED}/work");
                let options = format!("lowerdir={lower},{own}");
                let mut rootfs = userns::as_root_of(ids, || overlay(dir, record, &options, None))?;
                rootfs.besides = vec![users, dir.join(MAPPED)];
                Ok(Some(rootfs))
            }
            _ => {
                if let Some(kept) = record.kept {
                    give_root(dir, kept)?;
                }
                let options = format!("lowerdir={lower},upperdir=upper,workdir=work");
                overlay(dir, record, &options, None).map(Some)
            }
        }
    }

    /// A root to look at, not to change.
    pub fn look(dir: &Path, record: &Record, view: View) -> Result<Rootfs> {
        ensure!(
            !record.lower.is_empty(),
            "it was made from a bundle, which has no layers"
        );
        std::env::set_current_dir(dir).with_context(|| dir.display().to_string())?;
        enter(record)?;
        let mut lower = layers(record);
        match view {
            View::Container => lower.insert(0, "upper".to_owned()),
            // overlayfs wants two: an empty one below changes nothing.
            View::Image => {
                DirBuilder::new().recursive(true).create(dir.join("none"))?;
                lower.push("none".to_owned());
            }
        }
        let layers = format!("lowerdir={}", lower.join(":"));
        overlay(dir, record, &layers, Some(view))
    }

    fn at(at: PathBuf) -> Rootfs {
        Rootfs {
            at,
            besides: Vec::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        // Without it, the kernel does it at our end; with it, the directory can be removed before.
        for path in [&self.at].into_iter().chain(&self.besides) {
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
    }
}

fn enter(record: &Record) -> Result<()> {
    if record.rootless {
        idmap::enter()?;
    }
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for the overlay")?;
    Ok(mount::set_propagation(
        Path::new("/"),
        libc::MS_REC | libc::MS_SLAVE,
    )?)
}

/// The container's `/` is not the user's, but its root's.
fn give_root(dir: &Path, kept: Kept) -> Result<()> {
    let upper = dir.join("upper");
    let (uid, gid) = kept.outward(0, 0);
    if upper.metadata()?.uid() != 0 {
        return Ok(());
    }
    chown(&upper, Some(uid as u32), Some(gid as u32)).with_context(|| upper.display().to_string())
}

/// Mounts the layers once more, each over itself, and the container's directory at `MAPPED`, as the user namespace maps
/// ids: overlayfs has them from there (Linux 5.19).
fn map_layers(dir: &Path, record: &Record, user: BorrowedFd) -> Result<()> {
    let mapped = dir.join(MAPPED);
    DirBuilder::new().recursive(true).create(&mapped)?;
    let lower = record.lower.iter().collect::<BTreeSet<_>>().into_iter();
    let layers = lower.map(|layer| (layer.as_path(), layer.as_path()));
    for (from, to) in layers.chain([(dir, mapped.as_path())]) {
        let tree = mount::clone_tree(from, false)?;
        mount::map_ids(tree.as_fd(), false, user).with_context(|| {
            format!(
                "{}: its file system cannot map ids (ext4, xfs, btrfs and tmpfs can)",
                from.display()
            )
        })?;
        let to = nix::fcntl::open(to, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        mount::attach(tree.as_fd(), to.as_fd())?;
    }
    Ok(())
}

/// Options have one page: the layers are named by links.
fn layers(record: &Record) -> Vec<String> {
    (0..record.lower.len()).map(|n| format!("l/{n}")).collect()
}

/// `view`: to look at; none to be written.
fn overlay(dir: &Path, record: &Record, layers: &str, view: Option<View>) -> Result<Rootfs> {
    let at = dir.join("bundle/rootfs");
    if view != Some(View::Image) && is_by_fuse(dir) {
        return by_fuse(&at, layers).context("mount the container's overlay, as before");
    }
    let options = match record.rootless {
        true => format!("{layers},userxattr"),
        false => layers.to_owned(),
    };
    let mounted = nix::mount::mount(
        Some("overlay"),
        &at,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    );
    match mounted {
        Ok(()) => Ok(Rootfs::at(at)),
        Err(errno) if record.rootless => {
            if view.is_none() {
                // First: what is written must not be taken for the kernel's.
                File::create(dir.join(FUSE))?;
            }
            by_fuse(&at, layers).with_context(|| {
                format!(
                    "mount the container's overlay: the kernel says {errno} (Linux 5.11 can do it without root, on a file \
                     system with user. attributes that is no overlay itself)"
                )
            })
        }
        Err(errno) => Err(errno).context("mount the container's overlay"),
    }
}

/// Was the container's own layer written by fuse-overlayfs? The kernel does not know its marks: it remains so.
pub fn is_by_fuse(dir: &Path) -> bool {
    dir.join(FUSE).exists()
}

/// KERNEL(5.11): drop when overlayfs in a user namespace can be relied on. It works on in the background, and
/// ends when nobody has it mounted any more.
fn by_fuse(at: &Path, layers: &str) -> Result<Rootfs> {
    let output = Command::new("fuse-overlayfs")
        .arg("-o")
        .arg(layers)
        .arg(at)
        .stdin(Stdio::null())
        .output();
    let output = output.context("execute fuse-overlayfs")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "fuse-overlayfs: {}",
        said.trim().lines().last().unwrap_or("it died")
    );
    Ok(Rootfs::at(at.to_owned()))
}
