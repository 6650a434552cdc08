//! What does an entry of a layer ask for? Pure: names in, acts out.
//!
//! image-spec layer.md. An entry's name says whether it is content, a whiteout (`.wh.NAME` hides what
//! lower layers have there) or makes its directory opaque. Its type does not: builders write whiteouts
//! as plain files, links, anything.

use anyhow::{Result, bail, ensure};

/// Of a name in a layer, as of any path the kernel takes (PATH_MAX, with its end).
const PATH_LIMIT: usize = 4095;
/// Directories one below the other: each is an open file when a tree is removed.
const DEPTH_LIMIT: usize = 256;

const WHITEOUT: &[u8] = b".wh.";
pub const OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The root directory itself.
    Root,
    /// Content at this path.
    Put(Vec<u8>),
    /// Hides what lower layers have at this path.
    Hide(Vec<u8>),
    /// Hides all that lower layers have in this directory.
    HideAllIn(Vec<u8>),
    /// Of no meaning outside aufs.
    Skip,
}

/// Judges an entry by its name.
pub fn act(name: &[u8]) -> Result<Act> {
    let path = inside(name)?;
    let (dir, last) = split(&path);
    if dir
        .split(|byte| *byte == b'/')
        .any(|part| part.starts_with(WHITEOUT))
    {
        bail!("a whiteout is no directory");
    }
    Ok(match last.strip_prefix(WHITEOUT) {
        _ if path.is_empty() => Act::Root,
        None => Act::Put(path),
        Some(_) if last == OPAQUE => Act::HideAllIn(dir.to_vec()),
        Some(hidden) if hidden.starts_with(WHITEOUT) => Act::Skip,
        Some(b"" | b"." | b"..") => bail!("a whiteout of no name"),
        Some(hidden) => Act::Hide(join(dir, hidden)),
    })
}

/// A name in a layer as a path below the root: `a/b`, empty for the root itself. Names that lead out of it are
/// refused; an absolute one begins at the root, as container engines read it.
pub fn inside(name: &[u8]) -> Result<Vec<u8>> {
    ensure!(!name.is_empty(), "an empty name");
    ensure!(!name.contains(&0), "a NUL in a name");
    ensure!(
        name.len() <= PATH_LIMIT,
        "a name of {} bytes (at most {PATH_LIMIT})",
        name.len()
    );
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => ensure!(parts.pop().is_some(), "the name leads out of the layer"),
            _ => parts.push(part),
        }
    }
    ensure!(
        parts.len() <= DEPTH_LIMIT,
        "{} directories deep (at most {DEPTH_LIMIT})",
        parts.len()
    );
    Ok(parts.join(&b'/'))
}

/// `a/b/c` into `a/b` and `c`.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    [dir, b"/", name].concat()
}

/// Whether a layer may set this attribute. What overlayfs, an LSM or IMA would act on is not the image's to say;
/// without privilege `trusted.` is not ours.
pub fn takes_xattr(name: &[u8], privileged: bool) -> bool {
    let refused: [&[u8]; 6] = [
        b"security.selinux",
        b"security.ima",
        b"security.evm",
        b"trusted.overlay.",
        b"user.overlay.",
        b"user.fuseoverlayfs.",
    ];
    !refused.iter().any(|prefix| name.starts_with(prefix))
        && (privileged || !name.starts_with(b"trusted."))
        && name.contains(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_to_be_done() {
        let put = |path: &str| Act::Put(path.into());
        for (name, expected) in [
            ("a/b", put("a/b")),
            ("./a//b/", put("a/b")),
            ("/etc/passwd", put("etc/passwd")),
            ("a/../b", put("b")),
            ("./", Act::Root),
            ("/", Act::Root),
            ("a/..", Act::Root),
            ("a/.wh.b", Act::Hide("a/b".into())),
            (".wh.b", Act::Hide("b".into())),
            ("a/.wh..b", Act::Hide("a/.b".into())),
            ("a/.wh..wh..opq", Act::HideAllIn("a".into())),
            (".wh..wh..opq", Act::HideAllIn("".into())),
            (".wh..wh.plnk", Act::Skip),
            (".wh..wh.aufs", Act::Skip),
            ("a.wh.b", put("a.wh.b")),
        ] {
            assert_eq!(act(name.as_bytes()).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn names_that_lead_out_or_nowhere_are_refused() {
        let deep = "d/".repeat(257);
        let long = "x/".repeat(2048);
        for (name, why) in [
            ("", "an empty name"),
            ("a\0b", "a NUL in a name"),
            ("..", "the name leads out of the layer"),
            ("a/../../b", "the name leads out of the layer"),
            ("/../etc", "the name leads out of the layer"),
            ("a/.wh.", "a whiteout of no name"),
            ("a/.wh..", "a whiteout of no name"),
            ("a/.wh...", "a whiteout of no name"),
            (".wh.a/b", "a whiteout is no directory"),
            (".wh.a/.wh.b", "a whiteout is no directory"),
            (&long, "a name of 4096 bytes (at most 4095)"),
            (&deep, "257 directories deep (at most 256)"),
        ] {
            assert_eq!(
                act(name.as_bytes()).unwrap_err().to_string(),
                why,
                "{name:?}"
            );
        }
    }

    #[test]
    fn attributes_that_steer_the_kernel_are_not_the_layers_to_set() {
        for (name, root, user) in [
            ("security.capability", true, true),
            ("user.x", true, true),
            ("system.posix_acl_access", true, true),
            ("trusted.x", true, false),
            ("trusted.overlay.redirect", false, false),
            ("user.overlay.opaque", false, false),
            ("user.fuseoverlayfs.opaque", false, false),
            ("security.selinux", false, false),
            ("x", false, false),
        ] {
            assert_eq!(takes_xattr(name.as_bytes(), true), root, "{name}");
            assert_eq!(takes_xattr(name.as_bytes(), false), user, "{name}");
        }
    }
}
