//! What do the layers below have at a path? The view overlayfs would give of them, without mounting it.
//!
//! Asked only where a layer does not tell the whole: a file in a directory it has no entry for, a hard
//! link to a file of another layer, a whiteout of what may never have been there.

use super::tree::{Kind, Stat, lstat, open_at};
use crate::image::layer;
use crate::sys::{Call, xattr};
use anyhow::{Result, bail, ensure};
use nix::fcntl::{OFlag, readlinkat};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

/// Symbolic links that a path may lead over, as in the kernel.
pub const LINK_LIMIT: usize = 40;

/// The attributes by which overlayfs marks a directory that hides what is below, with and without privilege.
pub const OPAQUE: [&[u8]; 2] = [b"trusted.overlay.opaque", b"user.overlay.opaque"];

/// Layers, uppermost first.
pub struct Below(Vec<Rc<OwnedFd>>);

/// What is at a path: a name in a directory of the uppermost layer that has it.
pub struct Found {
    pub dir: Rc<OwnedFd>,
    pub name: Vec<u8>,
    pub stat: Stat,
}

/// A directory as all layers have it together.
type Merged = Vec<Rc<OwnedFd>>;

enum Step {
    Nothing,
    Directory(Merged, Found),
    Other(Found),
}

impl Below {
    pub fn new(layers: Vec<OwnedFd>) -> Below {
        Below(layers.into_iter().map(Rc::new).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The root of the uppermost layer: its attributes are the root's.
    pub fn root(&self) -> Option<&Rc<OwnedFd>> {
        self.0.first()
    }

    /// What is at `path`; links are followed on the way, not at its end.
    pub fn find(&self, path: &[u8]) -> Result<Option<Found>> {
        self.resolve(path, false)
    }

    /// The content of a small text file, over links; empty where there is none.
    pub fn text(&self, path: &[u8], limit: u64) -> Result<String> {
        let Some(found) = self.resolve(path, true)? else {
            return Ok(String::new());
        };
        ensure!(found.stat.kind == Kind::File, "not a plain file");
        ensure!(
            found.stat.size <= limit,
            "{} bytes (at most {limit})",
            found.stat.size
        );
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut content = Vec::new();
        let file = File::from(open_at(found.dir.as_fd(), &found.name, flags)?);
        file.take(limit).read_to_end(&mut content)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    fn resolve(&self, path: &[u8], over_last: bool) -> Result<Option<Found>> {
        let mut rest: VecDeque<Vec<u8>> = parts(path).collect();
        let mut way: Vec<Merged> = vec![self.0.clone()];
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let Some(here) = way.last() else {
                return Ok(None);
            };
            match step(here, &name)? {
                Step::Nothing => return Ok(None),
                Step::Directory(_, found) if rest.is_empty() => return Ok(Some(found)),
                Step::Other(found)
                    if rest.is_empty() && !(over_last && found.stat.kind == Kind::Symlink) =>
                {
                    return Ok(Some(found));
                }
                Step::Directory(merged, _) => way.push(merged),
                Step::Other(found) if found.stat.kind == Kind::Symlink => {
                    links += 1;
                    if links > LINK_LIMIT {
                        bail!(
                            "too many symbolic links at {:?}",
                            String::from_utf8_lossy(path)
                        );
                    }
                    let target = readlinkat(&*found.dir, name.as_slice())
                        .call("readlinkat", || {
                            format!("{:?}", String::from_utf8_lossy(&name))
                        })?;
                    if target.as_bytes().starts_with(b"/") {
                        way.truncate(1);
                    }
                    for part in parts(target.as_bytes())
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                    {
                        rest.push_front(part);
                    }
                }
                Step::Other(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The names of a path, without those that mean nothing.
pub fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .map(<[u8]>::to_vec)
}

fn step(here: &Merged, name: &[u8]) -> Result<Step> {
    let mut merged: Merged = Vec::new();
    let mut first = None;
    for dir in here {
        let Some(stat) = lstat(dir.as_fd(), name)? else {
            continue;
        };
        if stat.is_whiteout() {
            break;
        }
        let kind = stat.kind;
        let found = Found {
            dir: dir.clone(),
            name: name.to_vec(),
            stat,
        };
        if kind != Kind::Directory {
            if first.is_none() {
                return Ok(Step::Other(found));
            }
            break;
        }
        first.get_or_insert(found);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        merged.push(Rc::new(open_at(dir.as_fd(), name, flags)?));
        if is_opaque(dir, name)? {
            break;
        }
    }
    Ok(match first {
        Some(found) => Step::Directory(merged, found),
        None => Step::Nothing,
    })
}

fn is_opaque(dir: &OwnedFd, name: &[u8]) -> Result<bool> {
    for attribute in OPAQUE {
        if xattr::get_at(dir.as_fd(), name, attribute)?.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A symbolic link's target as names, and whether they begin at the root.
pub fn target_parts(target: &[u8]) -> (bool, Vec<Vec<u8>>) {
    (target.starts_with(b"/"), parts(target).collect())
}

/// One up, by name; the root is its own parent.
pub fn up(path: &[u8]) -> Vec<u8> {
    layer::split(path).0.to_vec()
}
