//! Protects this program's file from the containers it makes (CVE-2019-5736).
//!
//! Init is a clone of this process: until exec, its /proc/PID/exe is our program, and a container
//! can make itself run /proc/self/exe. So `create`, `run` and `exec` first execute themselves again
//! from a copy that nobody can write: a detached read-only mount of the file (no bytes are copied,
//! a few microseconds), or, where that is not allowed, a sealed memory file. Mostly it is done before
//! this code is reached: `sys/entry.rs`.

use crate::sys::{self, Call};
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, SealFlag};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statvfs::FsFlags;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

/// Returns when this program runs from a file that cannot be written; else executes it again.
///
/// # Errors
/// Only when there is no way to seal it: then no container may be made.
pub fn ensure() -> Result<()> {
    if sys::entry::is_read_only() {
        return Ok(());
    }
    let exe = nix::fcntl::open(
        "/proc/self/exe",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .call("open", || "\"/proc/self/exe\"".to_owned())
    .context("find this program's own file (is /proc mounted?)")?;
    // Before a mount is tried: who runs from sealed memory was refused one when it began.
    if is_read_only(&exe)? || is_sealed_memory() {
        return Ok(());
    }
    let args = c_strings(std::env::args_os());
    let env = c_strings(std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    }));
    if let Ok(copy) = read_only_mount(&exe) {
        // Refused (an old kernel, a policy): the other way remains.
        let _ = sys::process::exec_fd(copy.as_fd(), &args, &env);
    }
    let copy = sealed_copy().context("make a sealed copy of this program")?;
    Err(sys::process::exec_fd(copy.as_fd(), &args, &env).into())
}

/// The mount the program was executed through is read-only: our own, or the system's.
fn is_read_only(exe: &OwnedFd) -> Result<bool> {
    let stat =
        nix::sys::statfs::fstatfs(exe).call("fstatfs", || "\"/proc/self/exe\"".to_owned())?;
    Ok(stat.flags().contains(FsFlags::ST_RDONLY))
}

fn is_sealed_memory() -> bool {
    let Ok(exe) = File::open("/proc/self/exe") else {
        return false;
    };
    // EINVAL from a file that cannot be sealed.
    match nix::fcntl::fcntl(&exe, FcntlArg::F_GET_SEALS) {
        Ok(seals) => SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_WRITE),
        Err(_) => false,
    }
}

fn read_only_mount(exe: &OwnedFd) -> Result<OwnedFd> {
    let tree = sys::mount::clone_tree_at(exe.as_fd(), false)?;
    sys::mount::set_attr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, 0)?;
    Ok(tree)
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = memfd_create("sc-runtime", flags)
        .call("memfd_create", || "MFD_ALLOW_SEALING".to_owned())?;
    let mut copy = File::from(copy);
    std::io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    nix::fcntl::fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))
        .call("fcntl", || "F_ADD_SEALS".to_owned())?;
    Ok(copy.into())
}

/// Arguments and environment cannot hold NUL bytes: they came through execve(2).
fn c_strings(list: impl Iterator<Item = OsString>) -> Vec<CString> {
    list.filter_map(|s| CString::new(s.into_vec()).ok())
        .collect()
}
