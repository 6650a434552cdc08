//! `diff`: what did a container change of its image's files? Its own layer, compared with those below.

use crate::engine::cli::Global;
use crate::engine::inside;
use crate::engine::record::{Home, Record};
use crate::engine::rootfs::{Rootfs, View, is_by_fuse};
use crate::show::printable;
use crate::sys::xattr;
use anyhow::{Context, Result};
use clap::Args;
use nix::fcntl::OFlag;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// List the files that a container added (A), changed (C) and deleted (D)
#[derive(Debug, Args)]
pub struct Diff {
    /// Name, id or beginning of the id
    container: String,
}

impl Diff {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let record = home.find(&self.container)?;
        let mut changes = changes(&home, &record)?;
        changes.sort_by(|a, b| a.1.cmp(&b.1));
        let lines = changes
            .iter()
            .map(|(kind, path)| format!("{kind} {}\n", printable(&path.to_string_lossy())));
        crate::show::print(&lines.collect::<String>())?;
        Ok(0)
    }
}

struct Walk {
    upper: PathBuf,
    image: File,
    /// fuse-overlayfs was there: names that begin with .wh. are marks.
    by_fuse: bool,
    /// Where the runtime made places for mounts: not the container's doing.
    mounted: BTreeSet<PathBuf>,
    found: Vec<(char, PathBuf)>,
}

fn changes(home: &Home, record: &Record) -> Result<Vec<(char, PathBuf)>> {
    let dir = home.dir(&record.id);
    let image = Rootfs::look(&dir, record, View::Image).with_context(|| record.name.clone())?;
    let mut walk = Walk {
        upper: dir.join("upper"),
        image: File::open(image.path())?,
        by_fuse: is_by_fuse(&dir),
        mounted: mounted(&dir)?.into_iter().collect(),
        found: Vec::new(),
    };
    walk.directory(Path::new("/"))?;
    Ok(walk.found)
}

/// Where config.json has mounts.
pub fn mounted(dir: &Path) -> Result<Vec<PathBuf>> {
    let config: Value = serde_json::from_slice(&fs::read(dir.join("bundle/config.json"))?)?;
    let mounts = config["mounts"].as_array().into_iter().flatten();
    Ok(mounts
        .filter_map(|mount| Some(mount["destination"].as_str()?.into()))
        .collect())
}

impl Walk {
    fn directory(&mut self, at: &Path) -> Result<()> {
        let names = names(&self.here(at))?;
        for name in &names {
            let path = at.join(name);
            let meta = fs::symlink_metadata(self.here(&path))?;
            if let Some(gone) = name
                .as_bytes()
                .strip_prefix(b".wh.")
                .filter(|_| self.by_fuse)
            {
                let gone = at.join(OsStr::from_bytes(gone));
                if self.in_image(&gone) {
                    self.found.push(('D', gone));
                }
                continue;
            }
            let below = self.in_image(&path);
            if self.mounted.contains(&path)
                && meta.rdev() == 0
                && !meta.file_type().is_char_device()
            {
                continue;
            }
            let kind = match (meta.file_type().is_char_device() && meta.rdev() == 0, below) {
                (true, true) => 'D',
                (true, false) => continue,
                (false, true) => 'C',
                (false, false) => 'A',
            };
            self.found.push((kind, path.clone()));
            if !meta.is_dir() {
                continue;
            }
            if below && self.is_opaque(&path)? {
                self.hidden(&path)?;
            }
            self.directory(&path)?;
        }
        Ok(())
    }

    /// What a directory that replaced another no longer has.
    fn hidden(&mut self, at: &Path) -> Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let Ok(below) = inside::open(self.image.as_fd(), at, flags) else {
            return Ok(());
        };
        let mut below = nix::dir::Dir::from_fd(below)?;
        let kept = names(&self.here(at))?;
        for entry in below.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let mut mark = OsString::from(".wh.");
            mark.push(name);
            if name != "." && name != ".." && !kept.contains(name) && !kept.contains(&mark) {
                self.found.push(('D', at.join(name)));
            }
        }
        Ok(())
    }

    /// Does it hide what the image has there?
    fn is_opaque(&self, path: &Path) -> Result<bool> {
        let here = self.here(path);
        let dir = File::open(&here)?;
        let fuse = b"user.fuseoverlayfs.opaque".as_slice();
        let marks = [b"trusted.overlay.opaque".as_slice(), b"user.overlay.opaque"];
        for attribute in marks.into_iter().chain(self.by_fuse.then_some(fuse)) {
            if xattr::get_at(dir.as_fd(), b"", attribute)?.as_deref() == Some(b"y") {
                return Ok(true);
            }
        }
        Ok(self.by_fuse && here.join(".wh..wh..opq").exists())
    }

    fn here(&self, path: &Path) -> PathBuf {
        self.upper.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn in_image(&self, path: &Path) -> bool {
        inside::open(self.image.as_fd(), path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
    }
}

fn names(dir: &Path) -> Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}
