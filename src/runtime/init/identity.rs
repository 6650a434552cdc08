//! Who the process is: limits of its powers, user, groups, capabilities, working directory.

use crate::runtime::plan::ProcessPlan;
use crate::sys::{self, Call};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use std::path::Path;

/// Everything up to the capabilities, in the order that the kernel's rules force.
pub fn assume(process: &ProcessPlan) -> Result<()> {
    let uid = Uid::from_raw(process.uid);
    let gid = Gid::from_raw(process.gid);
    // As root first: the directory may be one that only root may enter.
    let entered = enter_directory(&process.cwd);
    if let Some(caps) = &process.caps {
        // Before the uid: dropping needs CAP_SETPCAP.
        sys::process::limit_bounding_set(caps.bounding).context("process.capabilities.bounding")?;
        if process.uid != 0 {
            sys::process::keep_capabilities(true)?;
        }
    }
    // Groups before uid: after setresuid(2) we may no longer call setgroups(2).
    if let Some(groups) = &process.groups {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        match nix::unistd::setgroups(&groups) {
            // A user namespace that was joined may deny it; the caller's were given up before.
            Err(Errno::EPERM) if groups.is_empty() && has_no_groups() => {}
            other => other
                .call("setgroups", || format!("{groups:?}"))
                .context("process.user.additionalGids")?,
        }
    }
    nix::unistd::setresgid(gid, gid, gid)
        .call("setresgid", || gid.to_string())
        .context("process.user.gid")?;
    nix::unistd::setresuid(uid, uid, uid)
        .call("setresuid", || uid.to_string())
        .context("process.user.uid")?;
    if let Err(e) = entered {
        // Or one that only the user may enter (a home on NFS, say).
        match e.downcast_ref::<sys::Error>() {
            Some(refused) if refused.errno == Errno::EACCES => enter_directory(&process.cwd)?,
            _ => return Err(e),
        }
    }
    if let Some(caps) = &process.caps {
        if process.uid != 0 {
            sys::process::keep_capabilities(false)?;
        }
        sys::process::set_capabilities(caps.effective, caps.permitted, caps.inheritable)
            .context("process.capabilities")?;
        sys::process::set_ambient(caps.ambient).context("process.capabilities.ambient")?;
    }
    Ok(())
}

fn has_no_groups() -> bool {
    nix::unistd::getgroups().is_ok_and(|groups| groups.is_empty())
}

/// chdir(2) to process.cwd, verified to lie inside the container: a descriptor leaked from the
/// host must not be a way out (CVE-2024-21626).
fn enter_directory(cwd: &Path) -> Result<()> {
    nix::unistd::chdir(cwd)
        .call("chdir", || format!("{cwd:?}"))
        .context("process.cwd")?;
    if cwd == Path::new("/") {
        return Ok(());
    }
    // getcwd(2) says "(unreachable)…" of a directory outside the root; libc makes it ENOENT.
    match nix::unistd::getcwd() {
        Ok(path) if path.is_absolute() => Ok(()),
        _ => bail!("process.cwd: {cwd:?} leads outside of the container's root"),
    }
}
