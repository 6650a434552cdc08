//! Which containers are there? One directory each below `ROOT/containers`, named by the id.
//!
//! | in it | is |
//! |---|---|
//! | `record.json` | what was asked for and what came of it; replaced by rename, under the directory's flock |
//! | `monitor` | locked for as long as a monitor lives |
//! | `log.json` | output, in the lines of docker's json-file |
//! | `bundle/` | config.json and rootfs, where the monitor mounts |
//! | `upper/`, `work/`, `l/` | the container's own layer, overlayfs's workshop, links to the lower layers |
//!
//! All locks are flock(2), which death frees. Containers come and go under the lock of `ROOT/containers`, so a
//! directory without a record is one whose maker or remover was killed: the next to come removes it.

use super::network::wanted::Wanted;
use crate::clock;
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub name: String,
    /// As it was typed; empty with `--bundle`.
    pub image: String,
    pub command: Vec<String>,
    pub created: String,
    pub labels: BTreeMap<String, String>,
    pub terminal: bool,
    pub interactive: bool,
    pub remove: bool,
    pub networks: Wanted,
    pub runtime: PathBuf,
    pub stop_signal: String,
    /// Layers that are shared, uppermost first; none with `--bundle`.
    pub lower: Vec<PathBuf>,
    pub started: Option<String>,
    pub finished: Option<String>,
    pub exit: Option<u8>,
}

/// The root of everything.
#[derive(Debug, Clone)]
pub struct Home {
    pub root: PathBuf,
    /// `--root` of the runtime.
    pub state: PathBuf,
}

impl Home {
    pub fn open(root: Option<&Path>) -> Result<Home> {
        let root = match root {
            Some(root) => std::path::absolute(root)?,
            None if nix::unistd::geteuid().is_root() => "/var/lib/sc".into(),
            None => users(&[("XDG_DATA_HOME", ""), ("HOME", ".local/share")])?.join("sc"),
        };
        // What does not outlive a reboot, where it does not.
        let state = match root.to_str() {
            Some("/var/lib/sc") => "/run/sc".into(),
            _ => root.join("run"),
        };
        let home = Home { root, state };
        for dir in [home.containers(), home.state.clone()] {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&dir);
            made.with_context(|| format!("mkdir {}", dir.display()))?;
        }
        Ok(home)
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub fn dir(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Held while a container comes or goes.
    fn lock(&self) -> Result<File> {
        let dir = File::open(self.containers())?;
        file::lock(dir.as_fd())?;
        Ok(dir)
    }

    /// All containers, newest first.
    pub fn list(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(self.containers())? {
            let name = entry?.file_name();
            // Without a record: coming or going.
            records.extend(self.load(&name.to_string_lossy())?);
        }
        records.sort_by(|a: &Record, b| b.created.cmp(&a.created));
        Ok(records)
    }

    /// `None`: there is none, or not yet, or no more.
    pub fn load(&self, id: &str) -> Result<Option<Record>> {
        let path = self.dir(id).join("record.json");
        match fs::read(&path) {
            Ok(text) => {
                let record = serde_json::from_slice(&text);
                Ok(Some(record.with_context(|| path.display().to_string())?))
            }
            Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => {
                Ok(None)
            }
            Err(e) => Err(e).with_context(|| path.display().to_string()),
        }
    }

    /// The container of that name, id, or beginning of an id that only one has.
    pub fn find(&self, wanted: &str) -> Result<Record> {
        let mut records = self.list()?;
        let exact = |record: &Record| record.name == wanted || record.id == wanted;
        if let Some(at) = records.iter().position(exact) {
            return Ok(records.swap_remove(at));
        }
        records.retain(|record| !wanted.is_empty() && record.id.starts_with(wanted));
        match records.len() {
            0 => bail!("no such container: {wanted}; `sc ps -a` lists them"),
            1 => Ok(records.remove(0)),
            n => bail!("{wanted} is the beginning of {n} ids: type more of it"),
        }
    }

    /// Makes the container's directory, lets `fill` complete it, and gives it its record.
    pub fn create(
        &self,
        mut record: Record,
        fill: impl FnOnce(&Path, &mut Record) -> Result<()>,
    ) -> Result<Record> {
        check_name(&record.name)?;
        let _lock = self.lock()?;
        self.sweep()?;
        let there = self.list()?;
        let taken = |name: &str| there.iter().find(|other| other.name == name);
        if let Some(other) = taken(&record.name) {
            bail!(
                "the name {:?} is in use by container {}: `sc rm {0}` frees it",
                record.name,
                short(&other.id)
            );
        }
        record.id = random_id()?;
        while record.name.is_empty() || taken(&record.name).is_some() {
            record.name = random_name()?;
        }
        record.created = clock::now_nanos();
        let dir = self.dir(&record.id);
        DirBuilder::new().mode(0o700).create(&dir)?;
        let made = fill(&dir, &mut record).and_then(|()| {
            File::create(dir.join("monitor"))?;
            File::create(dir.join("log.json"))?;
            save(&dir, &record)
        });
        if made.is_err() {
            // The first error is the one to report; what stays, the next sweep removes.
            let _ = fs::remove_dir_all(&dir);
        }
        made.map(|()| record)
    }

    /// Directories whose maker or remover was killed.
    fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(self.containers())? {
            let path = entry?.path();
            if !path.join("record.json").exists() {
                fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Changes the record of a container that may have gone meanwhile.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Record)) -> Result<()> {
        let dir = self.dir(id);
        let Ok(lock) = File::open(&dir) else {
            return Ok(());
        };
        file::lock(lock.as_fd())?;
        let Some(mut record) = self.load(id)? else {
            return Ok(());
        };
        change(&mut record);
        save(&dir, &record)
    }

    /// Forgets a container that does not run.
    pub fn remove(&self, id: &str) -> Result<()> {
        let dir = self.dir(id);
        let _lock = self.lock()?;
        // First: without it, what is left is nobody's.
        match fs::remove_file(dir.join("record.json")) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| dir.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// The monitor's lock, if no monitor lives.
    pub fn try_monitor(&self, id: &str) -> Result<Option<File>> {
        let path = self.dir(id).join("monitor");
        let lock = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(file::try_lock(lock.as_fd())?.then_some(lock))
    }

    /// Waits until no monitor lives: then all that it had to record is recorded.
    pub fn await_monitor(&self, id: &str) -> Result<()> {
        match File::open(self.dir(id).join("monitor")) {
            Ok(lock) => Ok(file::lock_shared(lock.as_fd())?),
            Err(_) => Ok(()),
        }
    }
}

fn users(places: &[(&str, &str)]) -> Result<PathBuf> {
    let found = places.iter().find_map(|(name, below)| {
        let path = PathBuf::from(std::env::var_os(name)?).join(below);
        path.is_absolute().then_some(path)
    });
    found.with_context(|| format!("${} is not set: use --root DIR", places[0].0))
}

fn save(dir: &Path, record: &Record) -> Result<()> {
    let new = dir.join("record.new");
    fs::write(&new, serde_json::to_vec_pretty(record)?)
        .and_then(|()| fs::rename(&new, dir.join("record.json")))
        .with_context(|| format!("write {}", dir.join("record.json").display()))
}

/// docker's rule.
fn check_name(name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    let good = name.is_empty()
        || name.len() > 1 && name.bytes().all(fine) && name.as_bytes()[0].is_ascii_alphanumeric();
    ensure!(
        good,
        "--name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is a name"
    );
    Ok(())
}

/// As ids are shown.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn random_id() -> Result<String> {
    Ok(random()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_name() -> Result<String> {
    const HOW: [&str; 16] = [
        "brave", "bright", "calm", "clever", "deft", "eager", "fair", "gentle", "happy", "keen",
        "lively", "merry", "nimble", "quiet", "swift", "witty",
    ];
    const WHO: [&str; 16] = [
        "abel",
        "bose",
        "curie",
        "dirac",
        "euler",
        "fermi",
        "gauss",
        "hopper",
        "kepler",
        "lovelace",
        "maxwell",
        "noether",
        "pascal",
        "ramanujan",
        "turing",
        "volta",
    ];
    let bytes = random()?;
    let pick = |list: &[&'static str; 16], at: usize| list[usize::from(bytes[at]) % 16];
    let number = u16::from_le_bytes([bytes[2], bytes[3]]) % 1000;
    Ok(format!("{}_{}{number}", pick(&HOW, 0), pick(&WHO, 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_docker_takes() {
        for (name, good) in [
            ("", true),
            ("web", true),
            ("a.b-c_1", true),
            ("a", false),
            ("-a", false),
            ("a/b", false),
            ("..", false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
    }
}
