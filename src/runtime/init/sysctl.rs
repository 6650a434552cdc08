//! Writes kernel parameters of the container's namespaces (linux.sysctl).

use crate::sys::{self, Call, mount::FsContext};
use anyhow::{Context, Result};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// A procfs of our own, attached nowhere: what the image mounts on /proc cannot stand in for it
/// (CVE-2025-52881).
pub struct Proc(OwnedFd);

impl Proc {
    /// Must be made while the host's /proc is still in sight: in a user namespace the kernel
    /// allows a new one only then.
    pub fn open() -> Result<Self> {
        let fs = FsContext::open("proc")?;
        fs.create()?;
        Ok(Proc(fs.mount(
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        )?))
    }

    /// `path` is below /proc/sys, with slashes.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let name = || format!("linux.sysctl[{:?}]", path.replace('/', "."));
        let below = format!("sys/{path}");
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_XDEV,
            );
        let file = nix::fcntl::openat2(self.0.as_fd(), below.as_str(), how)
            .call("openat2", || format!("\"/proc/{below}\""))
            .with_context(name)?;
        File::from(file)
            .write_all(value.as_bytes())
            .map_err(|e| {
                sys::Error::new("write", format!("\"/proc/{below}\", {value:?}"), errno(&e))
            })
            .with_context(name)
    }
}

fn errno(e: &std::io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}
