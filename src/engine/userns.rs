//! `--userns auto`: which ids has a container of root's that has a user namespace of its own?
//!
//! A range of those that /etc/subuid and /etc/subgid give to `containers`, and that no other container has: the records
//! are the claims, so a range is free again with its container, whoever was killed. On the disk its files have the ids
//! that they have inside; its layers and volumes are mounted with mapped ids (mount_setattr(2)).

use super::network::link::Namespace;
use super::record::{Home, Record};
use crate::idmap;
use crate::sys::process;
use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;

/// podman's name for who has the ids.
const OWNER: &str = "containers";
/// As many as images reckon with: `nobody` is 65534.
pub const SIZE: u32 = 65_536;
/// Where the monitor mounts the namespace, in the container's directory.
pub const AT: &str = "users";

/// Users and groups 0 to `size` of a container are `size` of the host from `uid` and `gid` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub size: u32,
}

/// Ids that no container has. They are the caller's while the lock is held, and then of who has them in a record.
pub fn claim(home: &Home, size: u32) -> Result<(Ids, File)> {
    let (uids, gids) = (owned("/etc/subuid")?, owned("/etc/subgid")?);
    let lock = home.lock_ids()?;
    let taken: Vec<Ids> = home.list()?.iter().filter_map(|other| other.ids).collect();
    let users = taken.iter().map(|ids| (ids.uid, ids.size)).collect();
    let groups = taken.iter().map(|ids| (ids.gid, ids.size)).collect();
    match (free(&uids, users, size), free(&gids, groups, size)) {
        (Some(uid), Some(gid)) => Ok((Ids { uid, gid, size }, lock)),
        _ => bail!(
            "--userns auto: {} containers have ids of {OWNER:?} in /etc/subuid and /etc/subgid, and no {size} in a row are left: \
             remove containers, or give it more",
            taken.len()
        ),
    }
}

fn owned(file: &str) -> Result<Vec<(u32, u32)>> {
    idmap::subordinate(file, &[OWNER.to_owned()]).with_context(|| {
        format!(
            "--userns auto: {file} has no line for {OWNER:?}, whose ids containers get: add one, such as \
             {OWNER}:2147483647:2147483648, to /etc/subuid and to /etc/subgid"
        )
    })
}

/// The first `size` ids in a row of the `ranges` that are not `taken`; ranges are a first id and how many.
fn free(ranges: &[(u32, u32)], mut taken: Vec<(u32, u32)>, size: u32) -> Option<u32> {
    taken.sort_unstable();
    let end = |(first, count): (u32, u32)| u64::from(first) + u64::from(count);
    ranges.iter().find_map(|range| {
        let mut at = u64::from(range.0);
        for other in &taken {
            if at + u64::from(size) > u64::from(other.0) {
                at = at.max(end(*other));
            }
        }
        // 4294967295 is no id.
        let last = end(*range).min(u64::from(u32::MAX));
        (at + u64::from(size) <= last).then_some(at as u32)
    })
}

/// A user namespace that the monitor will mount there.
pub fn join(config: &mut Value, dir: &Path) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({ "type": "user", "path": dir.join(AT) }));
    }
}

/// The files that sc mounts belong to the container's root, as podman has it.
pub fn give_files(dir: &Path, ids: &Ids) -> Result<()> {
    for name in ["hosts", "hostname", "resolv.conf"] {
        let path = dir.join(name);
        if path.exists() {
            std::os::unix::fs::chown(&path, Some(ids.uid), Some(ids.gid))
                .with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Of a container that is about to start.
pub struct Made {
    pub user: Namespace,
    /// Of that user namespace: so the container's root may set it up and mount sysfs for it.
    pub network: Option<Namespace>,
}

/// Makes the namespace that the record asks for, and with it one of the network.
pub fn make(record: &Record, network: bool) -> Result<Option<Made>> {
    let Some(ids) = &record.ids else {
        return Ok(None);
    };
    let mut kinds = libc::CLONE_NEWUSER;
    if network {
        kinds |= libc::CLONE_NEWNET;
    }
    let made = process::hold(kinds as u64, |pid| -> Result<Made> {
        for (kind, first) in [("uid", ids.uid), ("gid", ids.gid)] {
            let path = format!("/proc/{pid}/{kind}_map");
            fs::write(&path, format!("0 {first} {}", ids.size))
                .with_context(|| format!("write {path}"))?;
        }
        let open = |kind: &str| Namespace::open(&format!("/proc/{pid}/ns/{kind}"));
        Ok(Made {
            user: open("user")?,
            network: network.then(|| open("net")).transpose()?,
        })
    });
    made.context("a user namespace")?.map(Some)
}

/// Does something as the container's root on the disk, with the powers of the host's: overlayfs does what it does as who
/// has mounted it, and on a mount with mapped ids the host's root is nobody.
pub fn as_root_of<T>(ids: &Ids, act: impl FnOnce() -> Result<T>) -> Result<T> {
    setfsgid(Gid::from_raw(ids.gid));
    setfsuid(Uid::from_raw(ids.uid));
    // They went with the id, and come back with it (capabilities(7)).
    let all = caps::read(None, caps::CapSet::Permitted)?;
    let done = caps::set(None, caps::CapSet::Effective, &all)
        .context("capabilities")
        .and_then(|()| act());
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_wide_enough_is_free() {
        let all: &[(u32, u32)] = &[(100, 30)];
        for (ranges, taken, size, expected) in [
            (all, vec![], 10, Some(100)),
            (all, vec![(100, 10)], 10, Some(110)),
            (all, vec![(110, 10), (100, 10)], 10, Some(120)),
            (all, vec![(110, 10)], 10, Some(100)),
            (all, vec![(105, 10)], 10, Some(115)),
            (all, vec![(90, 15), (200, 10)], 10, Some(105)),
            (all, vec![(100, 25)], 10, None),
            (all, vec![], 31, None),
            (&[(5, 3), (100, 30)], vec![], 10, Some(100)),
            (&[(4_294_967_285, 1000)], vec![], 10, Some(4_294_967_285)),
            (&[(4_294_967_286, 1000)], vec![], 10, None),
            (&[], vec![], 1, None),
        ] {
            assert_eq!(
                free(ranges, taken.clone(), size),
                expected,
                "{ranges:?} {taken:?} {size}"
            );
        }
    }
}
