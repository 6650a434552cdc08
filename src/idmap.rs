//! Without root, whose files are an image's? Ids of a user namespace that the user's own ids and the
//! subordinate ones of /etc/subuid and /etc/subgid are mapped into, by newuidmap(1).
//!
//! The program enters the namespace itself, before it has threads: inside it may give files to any id
//! that is mapped, and nothing else. Who has no subordinate ids unpacks everything as their own.

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

/// Ids of the container, of the host, and how many.
pub type Map = Vec<(u32, u32, u32)>;

#[derive(Debug, Default)]
pub struct Ids {
    /// Both empty: as root, nothing is mapped.
    pub uids: Map,
    pub gids: Map,
    /// Only the user's own ids exist.
    pub squash: bool,
    /// Root of the first user namespace.
    pub privileged: bool,
}

/// `--userns keep-id`: the user has these ids in the container, and not root's. In the namespace that is entered here the user
/// is root and the subordinate ids follow; the container's has the same ids in another order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub uid: u32,
    pub gid: u32,
}

impl Kept {
    /// From ids of the container to those here.
    pub fn outward(&self, uid: u64, gid: u64) -> (u64, u64) {
        let one = |id: u64, own: u32| match id.cmp(&own.into()) {
            Ordering::Less => id + 1,
            Ordering::Equal => 0,
            Ordering::Greater => id,
        };
        (one(uid, self.uid), one(gid, self.gid))
    }

    /// And back.
    pub fn inward(&self, uid: u64, gid: u64) -> (u64, u64) {
        let one = |id: u64, own: u32| match id {
            0 => own.into(),
            _ if id <= own.into() => id - 1,
            _ => id,
        };
        (one(uid, self.uid), one(gid, self.gid))
    }
}

/// Lines of a map of a namespace in this one, in which the user is `own`; `ranges` are those here, first and count, in
/// their order. The kernel maps no line over two of the ranges around it.
pub fn keep(own: u32, ranges: &[(u32, u32)]) -> Map {
    let mut map = vec![(own, 0, 1)];
    for (first, count) in ranges.iter().filter(|(first, _)| *first > 0) {
        let (first, end) = (*first, first + count);
        let middle = own.saturating_add(1).clamp(first, end);
        if middle > first {
            map.push((first - 1, first, middle - first));
        }
        if end > middle {
            map.push((middle, middle, end - middle));
        }
    }
    map
}

impl FromStr for Kept {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Kept> {
        let (uid, gid) = text.split_once(':').context("write UID:GID")?;
        Ok(Kept {
            uid: uid.parse().context("UID")?,
            gid: gid.parse().context("GID")?,
        })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "{}:{}", self.uid, self.gid)
    }
}

/// Enters a user namespace unless we are root. Must be called before any thread is started.
pub fn enter() -> Result<Ids> {
    if geteuid().is_root() {
        return here();
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let name = user_name(uid);
    let names = [name.unwrap_or_default(), uid.to_string()];
    let (uids, gids) = (
        subordinate("/etc/subuid", &names),
        subordinate("/etc/subgid", &names),
    );
    let (Some(more_uids), Some(more_gids)) = (uids, gids) else {
        enter_alone(uid, gid)?;
        return Ok(Ids {
            uids: vec![(0, uid, 1)],
            gids: vec![(0, gid, 1)],
            squash: true,
            privileged: false,
        });
    };
    let ids = Ids {
        uids: with_own(uid, &more_uids),
        gids: with_own(gid, &more_gids),
        squash: false,
        privileged: false,
    };
    let mapper = mapper(&ids)?;
    leave_host()?;
    finish(mapper)?;
    Ok(ids)
}

/// Becomes root of the user namespace at a path. Must be called before any thread is started.
pub fn join(path: &Path) -> Result<()> {
    let context = || format!("user namespace {}", path.display());
    let users = File::open(path).with_context(context)?;
    setns(users, CloneFlags::CLONE_NEWUSER).with_context(context)?;
    setgroups(&[]).context("setgroups")?;
    setresgid(0.into(), 0.into(), 0.into()).context("setresgid")?;
    setresuid(0.into(), 0.into(), 0.into()).context("setresuid")
}

/// Ids are what they are here: as root of this user namespace, or as the ordinary user that one is.
pub fn here() -> Result<Ids> {
    let map = fs::read_to_string("/proc/self/uid_map").context("/proc/self/uid_map")?;
    let privileged = geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"]);
    Ok(Ids {
        privileged,
        ..Ids::default()
    })
}

/// Root is the user; the others follow.
fn with_own(own: u32, more: &[(u32, u32)]) -> Map {
    let mut map = vec![(0, own, 1)];
    let mut next: u32 = 1;
    for (first, count) in more {
        let count = (*count).min(u32::MAX - 1 - next);
        map.push((next, *first, count));
        next += count;
    }
    map
}

fn leave_host() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context(
        "unshare(CLONE_NEWUSER): without root a user namespace is needed \
         (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)",
    )
}

/// One id each, which needs no one's help.
fn enter_alone(uid: u32, gid: u32) -> Result<()> {
    leave_host()?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        let path = format!("/proc/self/{file}");
        fs::write(&path, text).with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// A process outside the namespace that maps the ids when it is told to: newuidmap must be run by the
/// user on the host, and by then we are not there any more.
fn mapper(ids: &Ids) -> Result<Child> {
    let words = |program: &str, map: &Map| {
        let words = map
            .iter()
            .map(|(inside, outside, count)| format!(" {inside} {outside} {count}"));
        format!(
            "{program} {}{}",
            std::process::id(),
            words.collect::<String>()
        )
    };
    // Side by side: each is set-uid, and reads the files of users and groups.
    let script = format!(
        "read go && {{ {} & {} && wait $!; }}",
        words("newuidmap", &ids.uids),
        words("newgidmap", &ids.gids)
    );
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command.spawn().context("/bin/sh, to run newuidmap")
}

fn finish(mut mapper: Child) -> Result<()> {
    let told = mapper
        .stdin
        .take()
        .context("the mapper has no stdin")?
        .write_all(b"go\n");
    let output = mapper.wait_with_output().context("newuidmap")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "newuidmap failed ({}): is the package uidmap installed?",
        said.trim()
    );
    Ok(told?)
}

/// Ranges of a user, by name or number; none when there is no line for them.
pub fn subordinate(file: &str, names: &[String]) -> Option<Vec<(u32, u32)>> {
    let ranges = parse(&fs::read_to_string(file).ok()?, names);
    (!ranges.is_empty()).then_some(ranges)
}

fn parse(text: &str, names: &[String]) -> Vec<(u32, u32)> {
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let first = fields.next()?.trim().parse().ok()?;
        let count = fields.next()?.trim().parse().ok()?;
        (names
            .iter()
            .any(|wanted| wanted == name && !name.is_empty())
            && count > 0)
            .then_some((first, count))
    });
    ranges.collect()
}

fn user_name(uid: u32) -> Option<String> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.get(2)?.parse() == Ok(uid)).then(|| fields[0].to_owned())
    })
}

/// What is done as the user, without subordinate ids, and asked for as root.
pub fn refuse_as_root(rootless: bool) -> Result<()> {
    if rootless && geteuid().is_root() {
        bail!("--rootless: is for ordinary users; as root every id can be used");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "me:100000:65536\nyou:165536:65536\n1000:500000:10\n# me:1:1\nme:x:1\n:7:7\n";
        let names = ["me".to_owned(), "1000".to_owned()];
        assert_eq!(parse(text, &names), [(100_000, 65_536), (500_000, 10)]);
        assert_eq!(parse(text, &["".to_owned()]), []);
    }

    #[test]
    fn who_keeps_an_id_takes_the_place_of_another() {
        let kept = Kept { uid: 3, gid: 0 };
        for (inside, here) in [(0, 1), (2, 3), (3, 0), (4, 4), (70_000, 70_000)] {
            assert_eq!(kept.outward(inside, inside), (here, inside));
            assert_eq!(kept.inward(here, here), (inside, here));
        }
        for (own, ranges, expected) in [
            (
                3,
                &[(0, 1), (1, 9)][..],
                &[(3, 0, 1), (0, 1, 3), (4, 4, 6)][..],
            ),
            (0, &[(0, 1), (1, 9)], &[(0, 0, 1), (1, 1, 9)]),
            (20, &[(0, 1), (1, 9)], &[(20, 0, 1), (0, 1, 9)]),
            (9, &[(0, 1), (1, 9)], &[(9, 0, 1), (0, 1, 9)]),
            (
                5,
                &[(0, 1), (1, 2), (3, 6)],
                &[(5, 0, 1), (0, 1, 2), (2, 3, 3), (6, 6, 3)],
            ),
        ] {
            assert_eq!(keep(own, ranges), expected, "{own} {ranges:?}");
        }
    }

    #[test]
    fn root_is_the_user_and_the_others_follow() {
        assert_eq!(
            with_own(1000, &[(100_000, 65_536), (500_000, 10)]),
            [(0, 1000, 1), (1, 100_000, 65_536), (65_537, 500_000, 10)]
        );
    }
}
