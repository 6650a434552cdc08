//! What is different for an ordinary user? Files of images and containers belong to ids of the user's range, and
//! what mounts them works in a user namespace.
//!
//! The monitor makes that namespace, of the user's own id as root and the subordinate ones (`idmap`), and mounts
//! the overlay in it. The container gets one more, inside, with the same ids: so every other command reaches the
//! container from outside, as the owner of the outer one, and the runtime enters what config.json names.

use crate::idmap::{self, Kept};
use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// sc-image maps ids of the host. The container's user namespace is made inside the monitor's, where each is what
/// it is in the container. Range by range: the kernel maps no range over two of the namespace around it.
/// Who keeps an id has the user's there, and the others are moved up.
pub fn nest(config: &mut Value, kept: Option<Kept>) {
    for (key, own) in [
        ("uidMappings", kept.map(|kept| kept.uid)),
        ("gidMappings", kept.map(|kept| kept.gid)),
    ] {
        let Some(maps) = config["linux"][key].as_array_mut() else {
            continue;
        };
        let number = |map: &Value, field: &str| map[field].as_u64().unwrap_or(0) as u32;
        let ranges = maps
            .iter()
            .map(|map| (number(map, "containerID"), number(map, "size")));
        let nested = match own {
            Some(own) => idmap::keep(own, &ranges.collect::<Vec<_>>()),
            None => ranges.map(|(first, size)| (first, first, size)).collect(),
        };
        *maps = nested
            .iter()
            .map(|(inside, here, size)| json!({ "containerID": inside, "hostID": here, "size": size }))
            .collect();
    }
}

/// In a user namespace sysfs and procfs can be mounted only with a network and a pid namespace of the container's own:
/// else the host's are shown. `shares_network`: that which it has is another's.
pub fn finish(config: &mut Value, shares_network: bool) {
    let namespaces = config["linux"]["namespaces"].as_array();
    let has = |kind: &str| {
        let mut kinds = namespaces.into_iter().flatten();
        kinds.any(|namespace| namespace["type"] == kind)
    };
    if !has("user") {
        return;
    }
    let shared = [
        (has("network") && !shares_network, "sysfs", "/sys", "ro"),
        (has("pid"), "proc", "/proc", "rw"),
    ];
    for (_, kind, source, access) in shared.iter().filter(|(own, ..)| !own) {
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            if mount["type"] == *kind {
                let options = ["rbind", "rslave", "nosuid", "noexec", "nodev", access];
                let at = mount["destination"].clone();
                *mount = json!({ "destination": at, "type": "bind", "source": source, "options": options });
            }
        }
    }
}

/// `sc unshare COMMAND`: where what belongs to subordinate ids can be looked at and changed.
pub fn unshare(args: &[OsString]) -> Result<u8> {
    let (program, args) = args
        .split_first()
        .context("unshare: which command? sc unshare COMMAND [ARG...]")?;
    idmap::enter()?;
    let e = Command::new(program).args(args).exec();
    Err(e).with_context(|| format!("execute {program:?}"))
}

/// Removes a directory with all below it, if it is there; what belongs to other ids of the user's, from where
/// they are known.
pub fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !geteuid().is_root() => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["unshare", "rm", "-rf", "--"]).arg(path);
            let output = command
                .stdin(Stdio::null())
                .output()
                .context("execute sc unshare")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "remove {}: {}",
                path.display(),
                said.trim()
            );
            Ok(())
        }
        other => other.with_context(|| format!("remove {}", path.display())),
    }
}

/// Removes a file, or a directory with all below it.
pub fn remove_any(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path)?.is_dir() {
        true => remove_tree(path),
        false => std::fs::remove_file(path).with_context(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_container_are_those_of_the_monitors_namespace() {
        let map = |first: u32, host: u32, size: u32| json!({ "containerID": first, "hostID": host, "size": size });
        let mut config =
            json!({ "linux": { "uidMappings": [map(0, 1000, 1), map(1, 100_000, 65_536)] } });
        nest(&mut config, None);
        let maps = json!([map(0, 0, 1), map(1, 1, 65_536)]);
        assert_eq!(config["linux"]["uidMappings"], maps);
    }
}
