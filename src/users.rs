//! Who is `USER` in this image? `/etc/passwd` and `/etc/group` of the rootfs, read with care.
//!
//! They are the image's: a link to a file of the host, a FIFO, a gigabyte without a newline
//! (CVE-2024-9676, CVE-2026-47262). The caller opens them below the root; here they are only text.
//! A number that does not fit is an error, never a name and never root (CVE-2024-40635).

use anyhow::{Context, Result, bail};

/// Files longer than this are refused.
pub const FILE_LIMIT: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// With the primary one (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
    /// From passwd, where the user is there.
    pub home: Option<String>,
}

/// Resolves `user[:group]`, each a name or a number; empty is root. `passwd` and `group` are empty
/// where the image has none.
pub fn resolve(spec: &str, passwd: &str, group: &str) -> Result<User> {
    let (user, group_part) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let number = match user {
        "" => Some(0),
        user => id(user)?,
    };
    let line = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| match number {
            Some(uid) => line.get(2).is_some_and(|field| field.parse() == Ok(uid)),
            None => line.first() == Some(&user),
        });
    let field = |at: usize| line.as_ref().and_then(|line| line.get(at).copied());
    let uid = match (number, field(2)) {
        (Some(uid), _) => uid,
        (None, Some(uid)) => {
            id(uid)?.with_context(|| format!("/etc/passwd: user {user:?} has uid {uid:?}"))?
        }
        (None, None) => bail!("no user {user:?} in the image's /etc/passwd"),
    };
    let gid = match group_part {
        Some("") => bail!("a group is missing after the colon"),
        Some(name) => match id(name)? {
            Some(gid) => gid,
            None => gid_of(name, group)?,
        },
        None => match field(3) {
            Some(gid) => {
                id(gid)?.with_context(|| format!("/etc/passwd: user {user:?} has gid {gid:?}"))?
            }
            None => 0,
        },
    };
    let mut additional_gids = vec![gid];
    if group_part.is_none()
        && let Some(name) = field(0)
    {
        additional_gids.extend(groups_of(name, group).filter(|other| *other != gid));
    }
    Ok(User {
        uid,
        gid,
        additional_gids,
        home: field(5)
            .filter(|home| home.starts_with('/'))
            .map(str::to_owned),
    })
}

/// A number, or `None` for what is a name. Out of range is neither.
fn id(text: &str) -> Result<Option<u32>> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text
        .parse::<i32>()
        .ok()
        .and_then(|id| u32::try_from(id).ok());
    number
        .map(Some)
        .with_context(|| format!("id {text} is out of range (at most {})", i32::MAX))
}

/// A group by name or number.
pub fn gid(text: &str, group: &str) -> Result<u32> {
    match id(text)? {
        Some(gid) => Ok(gid),
        None => gid_of(text, group),
    }
}

fn gid_of(name: &str, group: &str) -> Result<u32> {
    let lines = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = lines.filter(|line| line.first() == Some(&name));
    let line = found
        .next()
        .with_context(|| format!("no group {name:?} in the image's /etc/group"))?;
    let gid = line.get(2).copied().unwrap_or_default();
    id(gid)?.with_context(|| format!("/etc/group: group {name:?} has gid {gid:?}"))
}

fn groups_of<'a>(user: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let member = fields.get(3)?.split(',').any(|name| name == user);
        member.then(|| id(fields[2]).ok().flatten())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/x\nhuge:x:4294967296:0::/:/x\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nadm:x:4:web,root\nlog:x:5:web\n";

    #[test]
    fn names_and_numbers_are_resolved_in_the_image() {
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, &[0, 4][..], Some("/root")),
            ("root", 0, 0, &[0, 4], Some("/root")),
            ("web", 33, 33, &[33, 4, 5], Some("/var/www")),
            ("33", 33, 33, &[33, 4, 5], Some("/var/www")),
            ("web:adm", 33, 4, &[4], Some("/var/www")),
            ("web:7", 33, 7, &[7], Some("/var/www")),
            ("1000", 1000, 0, &[0], None),
            ("1000:1001", 1000, 1001, &[1001], None),
        ] {
            let expected = User {
                uid,
                gid,
                additional_gids: groups.to_vec(),
                home: home.map(str::to_owned),
            };
            assert_eq!(resolve(spec, PASSWD, GROUP).unwrap(), expected, "{spec}");
        }
    }

    #[test]
    fn what_is_not_there_or_out_of_range_is_an_error() {
        for (spec, why) in [
            ("nobody", "no user \"nobody\" in the image's /etc/passwd"),
            ("web:staff", "no group \"staff\" in the image's /etc/group"),
            ("web:", "a group is missing after the colon"),
            (
                "4294967296",
                "id 4294967296 is out of range (at most 2147483647)",
            ),
            (
                "0:2147483648",
                "id 2147483648 is out of range (at most 2147483647)",
            ),
            ("huge", "id 4294967296 is out of range (at most 2147483647)"),
            ("broken", "no user \"broken\" in the image's /etc/passwd"),
        ] {
            assert_eq!(
                resolve(spec, PASSWD, GROUP).unwrap_err().to_string(),
                why,
                "{spec}"
            );
        }
    }
}
