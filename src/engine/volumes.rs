//! Which volumes are there? One directory each below `ROOT/volumes`, named by the volume.
//!
//! | in it | is |
//! |---|---|
//! | `volume.json` | what was asked for; without it, the directory is one whose maker or remover was killed |
//! | `_data/` | what containers see |
//! | `filling` | there while `_data` gets what the image has: who finds it begins anew |
//!
//! Volumes come and go under the lock of `ROOT/volumes`, which a container that is being made holds until its
//! record names them: so none that is used is removed. Locks are flock(2), which death frees.

use super::inside;
use super::mounts::{Mount, Source, check_name};
use super::programs;
use super::record::{Home, Record, random_id, short};
use super::rootless;
use crate::clock;
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub created: String,
    pub labels: BTreeMap<String, String>,
    /// Nobody gave it its name.
    pub anonymous: bool,
}

/// The lock of all volumes. What was made under it goes again, unless it is kept.
pub struct Hold<'a> {
    home: &'a Home,
    _lock: File,
    made: Vec<String>,
}

/// Where a volume's files are.
pub fn data(home: &Home, name: &str) -> PathBuf {
    dir(home, name).join("_data")
}

fn all(home: &Home) -> PathBuf {
    home.root.join("volumes")
}

fn dir(home: &Home, name: &str) -> PathBuf {
    all(home).join(name)
}

/// By name.
pub fn list(home: &Home) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    let entries = match fs::read_dir(all(home)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(volumes),
        entries => entries.with_context(|| all(home).display().to_string())?,
    };
    for entry in entries {
        volumes.extend(load(home, &entry?.file_name().to_string_lossy())?);
    }
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(volumes)
}

pub fn load(home: &Home, name: &str) -> Result<Option<Volume>> {
    // What is no name could be a path.
    if check_name(name).is_err() {
        return Ok(None);
    }
    let path = dir(home, name).join("volume.json");
    match fs::read(&path) {
        Ok(text) => {
            let volume = serde_json::from_slice(&text);
            Ok(Some(volume.with_context(|| path.display().to_string())?))
        }
        Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

/// The ids, as they are shown, of the containers that have it.
pub fn users(name: &str, records: &[Record]) -> Vec<String> {
    let uses = |record: &&Record| {
        record
            .mounts
            .iter()
            .any(|mount| mount.volume() == Some(name))
    };
    let users = records.iter().filter(uses);
    users.map(|record| short(&record.id).to_owned()).collect()
}

impl<'a> Hold<'a> {
    pub fn take(home: &'a Home) -> Result<Hold<'a>> {
        let path = all(home);
        let made = DirBuilder::new().mode(0o700).recursive(true).create(&path);
        made.with_context(|| format!("mkdir {}", path.display()))?;
        let lock = File::open(&path)?;
        file::lock(lock.as_fd())?;
        for entry in fs::read_dir(&path)? {
            let path = entry?.path();
            if !path.join("volume.json").exists() {
                rootless::remove_tree(&path)?;
            }
        }
        Ok(Hold {
            home,
            _lock: lock,
            made: Vec::new(),
        })
    }

    /// The volume of that name, made if it is not there; without a name, a new one.
    pub fn make(&mut self, name: &str, labels: &BTreeMap<String, String>) -> Result<String> {
        let anonymous = name.is_empty();
        let name = match anonymous {
            true => random_id()?,
            false => name.to_owned(),
        };
        check_name(&name)?;
        if load(self.home, &name)?.is_some() {
            return Ok(name);
        }
        let volume = Volume {
            name: name.clone(),
            created: clock::now_nanos(),
            labels: labels.clone(),
            anonymous,
        };
        let dir = dir(self.home, &name);
        // To be passed by whoever the container's processes are; what is above is closed.
        DirBuilder::new().mode(0o755).create(&dir)?;
        self.made.push(name.clone());
        DirBuilder::new().mode(0o755).create(dir.join("_data"))?;
        let new = dir.join("volume.new");
        fs::write(&new, serde_json::to_vec_pretty(&volume)?)?;
        fs::rename(&new, dir.join("volume.json"))?;
        Ok(name)
    }

    /// A container's record names what was made.
    pub fn keep(mut self) {
        self.made.clear();
    }

    /// Removes a volume that no container has.
    pub fn remove(&self, name: &str) -> Result<()> {
        ensure!(
            load(self.home, name)?.is_some(),
            "get {name}: no such volume"
        );
        let users = users(name, &self.home.list()?);
        if !users.is_empty() {
            bail!("remove {name}: volume is in use - [{}]", users.join(", "));
        }
        self.forget(name)
    }

    fn forget(&self, name: &str) -> Result<()> {
        let dir = dir(self.home, name);
        // First: without it, what is left is nobody's.
        match fs::remove_file(dir.join("volume.json")) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e.into()),
            _ => rootless::remove_tree(&dir),
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.made) {
            // The first error is the one to report; what stays is not used by any container.
            let _ = self.forget(&name);
        }
    }
}

/// Removes the volumes that no container has: those that nobody named, or `all`.
pub fn prune(home: &Home, all: bool) -> Result<Vec<String>> {
    let hold = Hold::take(home)?;
    let records = home.list()?;
    let mut removed = Vec::new();
    for volume in list(home)? {
        if (all || volume.anonymous) && users(&volume.name, &records).is_empty() {
            hold.forget(&volume.name)?;
            removed.push(volume.name);
        }
    }
    Ok(removed)
}

/// After a container has gone: the volumes that were made for it alone.
pub fn remove_anonymous(home: &Home, record: &Record) -> Result<()> {
    if !record.mounts.iter().any(Mount::is_anonymous) {
        return Ok(());
    }
    let hold = Hold::take(home)?;
    let records = home.list()?;
    for mount in record.mounts.iter().filter(|mount| mount.is_anonymous()) {
        let name = mount.volume().unwrap_or_default();
        if load(home, name)?.is_some() && users(name, &records).is_empty() {
            hold.forget(name)?;
        }
    }
    Ok(())
}

/// Gives empty volumes what the image has at their place, before the container sees them; `root` is the
/// container's.
pub fn fill(home: &Home, record: &Record, root: &Path) -> Result<()> {
    for mount in &record.mounts {
        if let Source::Volume {
            name, copy: true, ..
        } = &mount.source
        {
            fill_one(home, name, root, &mount.target)
                .with_context(|| format!("volume {name} at {}", mount.target))?;
        }
    }
    Ok(())
}

fn fill_one(home: &Home, name: &str, root: &Path, target: &str) -> Result<()> {
    let dir = dir(home, name);
    let lock = File::open(&dir).with_context(|| dir.display().to_string())?;
    file::lock(lock.as_fd())?;
    let (data, filling) = (dir.join("_data"), dir.join("filling"));
    if filling.exists() {
        for entry in fs::read_dir(&data)? {
            rootless::remove_any(&entry?.path())?;
        }
    } else if fs::read_dir(&data)?.next().is_some() {
        return Ok(());
    }
    let root = File::open(root)?;
    let from = match inside::open(
        root.as_fd(),
        Path::new(target),
        OFlag::O_RDONLY | OFlag::O_DIRECTORY,
    ) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
        from => from?,
    };
    fs::write(&filling, "")?;
    let into = File::open(&data)?;
    programs::copy(from, &[], into.into(), &["--with-root"])?;
    Ok(fs::remove_file(&filling)?)
}
