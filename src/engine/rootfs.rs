//! Where is a container's root? An overlay of its own layer over the shared ones of its image.
//!
//! It is mounted in a mount namespace of ours: whoever is killed, nothing is left to unmount. Who is not root
//! makes a user namespace first: there overlayfs may be mounted since Linux 5.11, with its marks in `user.`
//! attributes. Where the kernel refuses, fuse-overlayfs does it.

use super::record::Record;
use crate::idmap;
use crate::sys::mount;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs::DirBuilder;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted root; it is unmounted when this is dropped, or when the process ends.
pub struct Rootfs {
    at: PathBuf,
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
    /// The root that the container writes to; none for a bundle, which brings its own. The container's directory is
    /// the working directory from here on.
    pub fn mount(dir: &Path, record: &Record) -> Result<Option<Rootfs>> {
        std::env::set_current_dir(dir).with_context(|| dir.display().to_string())?;
        if record.lower.is_empty() {
            return Ok(None);
        }
        enter(record)?;
        let lower = layers(record).join(":");
        overlay(
            dir,
            record,
            &format!("lowerdir={lower},upperdir=upper,workdir=work"),
        )
        .map(Some)
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
        overlay(dir, record, &format!("lowerdir={}", lower.join(":")))
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        // Without it, the kernel does it at our end; with it, the directory can be removed before.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
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

/// Options have one page: the layers are named by links.
fn layers(record: &Record) -> Vec<String> {
    (0..record.lower.len()).map(|n| format!("l/{n}")).collect()
}

fn overlay(dir: &Path, record: &Record, layers: &str) -> Result<Rootfs> {
    let at = dir.join("bundle/rootfs");
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
        Ok(()) => Ok(Rootfs { at }),
        Err(errno) if record.rootless => by_fuse(&at, layers, errno),
        Err(errno) => Err(errno).context("mount the container's overlay"),
    }
}

/// KERNEL(5.11): drop when overlayfs in a user namespace can be relied on. It works on in the background, and
/// ends when nobody has it mounted any more.
fn by_fuse(at: &Path, layers: &str, refused: Errno) -> Result<Rootfs> {
    let output = Command::new("fuse-overlayfs")
        .arg("-o")
        .arg(layers)
        .arg(at)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(Rootfs { at: at.to_owned() }),
        Ok(output) => bail!(
            "mount the container's overlay: the kernel says {refused}, fuse-overlayfs: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(e) => bail!(
            "mount the container's overlay: the kernel says {refused} (Linux 5.11 can do it without root, on a file system \
             with user. attributes), and fuse-overlayfs: {e}"
        ),
    }
}
