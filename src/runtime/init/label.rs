//! What the security module of the kernel shall take the process for, from execve on: AppArmor's
//! profile, SELinux's label (apparmor(7), proc_pid_attr(5)).
//!
//! Written while this process still sees the /proc of the host: one in the container may be a fake
//! (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881). It stays in force through all that follows.

use crate::runtime::plan::ProcessPlan;
use crate::sys::Call;
use anyhow::{Context, Result, bail};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// Takes effect at the next execve(2) of this process.
pub fn at_exec(process: &ProcessPlan) -> Result<()> {
    if let Some(profile) = &process.apparmor {
        let order = format!("exec {profile}");
        // KERNEL(5.8): before, AppArmor had no directory of its own.
        let path = "/proc/thread-self/attr/apparmor/exec";
        let path = match std::fs::exists(path) {
            Ok(true) => path,
            _ => "/proc/thread-self/attr/exec",
        };
        write(path, &order)
            .context("apparmor failed to apply profile (process.apparmorProfile)")?;
    }
    if let Some(label) = &process.selinux {
        for file in ["exec", "keycreate"] {
            write(&format!("/proc/thread-self/attr/{file}"), label)
                .context("process.selinuxLabel")?;
        }
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty()).call("open", || format!("{path:?}"))?;
    let stat = fstatfs(&file).call("fstatfs", || format!("{path:?}"))?;
    if stat.filesystem_type() != PROC_SUPER_MAGIC {
        bail!("{path} is not of the kernel: something is mounted over /proc");
    }
    nix::unistd::write(&file, text.as_bytes()).call("write", || format!("{path:?}, {text:?}"))?;
    Ok(())
}
