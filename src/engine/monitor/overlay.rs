//! The container's root, mounted in a mount namespace of our own: whoever is killed, nothing is left to unmount.

use crate::engine::record::Record;
use crate::sys::mount;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};

pub struct Overlay {
    at: PathBuf,
}

impl Overlay {
    /// In the container's directory, which is the working directory from here on.
    pub fn mount(dir: &Path, record: &Record) -> Result<Option<Overlay>> {
        std::env::set_current_dir(dir)?;
        if record.lower.is_empty() {
            return Ok(None);
        }
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for the overlay")?;
        mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)?;
        // Options have one page: the layers are named by links.
        let lower: Vec<String> = (0..record.lower.len()).map(|n| format!("l/{n}")).collect();
        let options = format!("lowerdir={},upperdir=upper,workdir=work", lower.join(":"));
        let at = dir.join("bundle/rootfs");
        nix::mount::mount(
            Some("overlay"),
            &at,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .context("mount the container's overlay")?;
        Ok(Some(Overlay { at }))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Without it, the kernel does it at our end; with it, the directory can be removed before.
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
    }
}
