//! Writes the id maps of a new user namespace (user_namespaces(7)).

use crate::runtime::plan::{IdMap, ParentPlan};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use std::process::{Command, Stdio};

/// Maps the ids of process `pid`: directly where the kernel lets us (root, or a single id of our
/// own), else by newuidmap(1) and newgidmap(1), which know /etc/subuid and /etc/subgid.
pub fn write(pid: i32, plan: &ParentPlan, setgroups_allowed: bool) -> Result<()> {
    if !setgroups_allowed {
        // Without this an ordinary user may not write a gid map (CVE-2014-8989).
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny")
            .with_context(|| format!("write /proc/{pid}/setgroups"))?;
    }
    write_one(pid, "uid", &plan.uid_map)?;
    write_one(pid, "gid", &plan.gid_map)
}

fn write_one(pid: i32, kind: &str, map: &[IdMap]) -> Result<()> {
    if map.is_empty() {
        return Ok(());
    }
    let file = format!("/proc/{pid}/{kind}_map");
    let lines = lines(map);
    match std::fs::write(&file, &lines) {
        Err(e) if e.raw_os_error() == Some(Errno::EPERM as i32) => by_helper(pid, kind, map),
        other => other.with_context(|| {
            format!(
                "linux.{kind}Mappings: write {:?} to {file}",
                lines.trim_end()
            )
        }),
    }
}

/// As uid_map and gid_map take them.
pub fn lines(map: &[IdMap]) -> String {
    map.iter()
        .map(|m| format!("{} {} {}\n", m.container, m.host, m.size))
        .collect()
}

fn by_helper(pid: i32, kind: &str, map: &[IdMap]) -> Result<()> {
    let program = format!("new{kind}map");
    let mut command = Command::new(&program);
    command.arg(pid.to_string()).stdin(Stdio::null());
    for m in map {
        command.args([m.container, m.host, m.size].map(|n| n.to_string()));
    }
    let output = command.output().with_context(|| {
        format!("linux.{kind}Mappings need {program}, which cannot be run (install uidmap)")
    })?;
    if !output.status.success() {
        bail!(
            "linux.{kind}Mappings: {program}: {} (see /etc/sub{kind})",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
