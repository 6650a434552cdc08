//! Are the security modules in force whose labels a container asks for? A label that nobody
//! enforces would be a promise broken in silence.

use crate::runtime::plan::ProcessPlan;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;

/// Refuses a label whose module this kernel has not, or has switched off. `mount_label` is
/// linux.mountLabel.
pub fn require(process: &ProcessPlan, mount_label: Option<&str>) -> Result<()> {
    if process.apparmor_profile.is_some() && !apparmor() {
        bail!(
            "process.apparmorProfile: AppArmor is not enabled on this machine: remove the profile, \
             or boot with AppArmor among lsm= (see /sys/kernel/security/lsm)"
        );
    }
    let field = match (&process.selinux_label, mount_label) {
        (Some(_), _) => "process.selinuxLabel",
        (None, Some(_)) => "linux.mountLabel",
        (None, None) => return Ok(()),
    };
    if !selinux() {
        // The words are runc's.
        bail!(
            "{field}: selinux label is specified in config, but selinux is disabled or not supported"
        );
    }
    Ok(())
}

fn apparmor() -> bool {
    fs::read("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// The directory is there when the kernel runs SELinux (selinux(8)); without a policy every process
/// is `kernel`, and labels are taken and forgotten.
fn selinux() -> bool {
    let own = || fs::read_to_string("/proc/self/attr/current");
    Path::new("/sys/fs/selinux").exists()
        && own().is_ok_and(|label| label.trim_end_matches(['\0', '\n']) != "kernel")
}
