//! Under which rules of the security modules will the program run? Tells the kernel, before exec,
//! what it becomes by exec: an AppArmor profile, a SELinux label.

use super::proc::Proc;
use crate::runtime::plan::ProcessPlan;
use anyhow::{Context, Result};
use nix::errno::Errno;

/// Sets what the next execve(2) changes to. Hooks that run after this inherit it, as in runc.
pub fn set(process: &ProcessPlan, proc: &Proc) -> Result<()> {
    if let Some(profile) = &process.apparmor_profile {
        let verb = verb(process, proc).context("process.apparmorProfile")?;
        proc.set_attribute("apparmor/exec", &format!("{verb} {profile}"))
            .map_err(|e| match e.errno {
                Errno::ENOENT => {
                    anyhow::anyhow!("{e} (no such profile is loaded: apparmor_parser(8) loads one)")
                }
                _ => e.into(),
            })
            .context("process.apparmorProfile")?;
    }
    if let Some(label) = &process.selinux_label {
        proc.set_attribute("exec", label)
            .context("process.selinuxLabel")?;
    }
    Ok(())
}

/// `exec` leaves this process's profile for the other. Where it has one itself and no_new_privs is
/// to be set, the kernel refuses that at exec (EPERM), unless the new profile only adds to it:
/// `stack`.
fn verb(process: &ProcessPlan, proc: &Proc) -> Result<&'static str> {
    if !process.no_new_privileges {
        return Ok("exec");
    }
    let own = proc.attribute("apparmor/current")?;
    Ok(match own.as_str() {
        "unconfined" => "exec",
        // A profile that forbids nothing.
        name if name.ends_with(" (unconfined)") => "exec",
        _ => "stack",
    })
}

/// Makes `act`, which makes a key or keyring, make it with the process's label.
pub fn with_key_label<T>(
    process: &ProcessPlan,
    proc: Option<&Proc>,
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (Some(label), Some(proc)) = (&process.selinux_label, proc) else {
        return act();
    };
    let why = "process.selinuxLabel: label the session keyring (try --no-new-keyring)";
    proc.set_attribute("keycreate", label).context(why)?;
    let done = act()?;
    // Nothing else that init makes is meant.
    proc.set_attribute("keycreate", "").context(why)?;
    Ok(done)
}
