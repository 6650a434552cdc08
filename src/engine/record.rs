//! Which containers are there? One directory each below `ROOT/containers`, named by the id.
//!
//! | in it | is |
//! |---|---|
//! | `record.json` | what was asked for and what came of it; replaced by rename, under the directory's flock |
//! | `monitor` | locked by the one process that runs the container, or removes it |
//! | `ended` | every monitor's own, locked as long as it lives: who waits for its end asks for a share |
//! | `attach` | the monitor's socket |
//! | `log.json` | output, in the lines of docker's json-file; `log.json.1` is older |
//! | `bundle/` | config.json and rootfs, where the monitor mounts |
//! | `upper/`, `work/`, `l/` | the container's own layer, overlayfs's workshop, links to the lower layers |
//!
//! `ROOT/names/NAME` is a link to the id: making it is claiming the name. All locks are flock(2), which death
//! frees. A directory is locked while it is filled or emptied; one without a record that nobody has locked is one
//! whose maker or remover was killed, and the next to come removes it.

use super::events::{self, Event};
use super::mounts::Mount;
use super::network::wanted::Wanted;
use super::rootless;
use super::userns::Ids;
use crate::clock;
use crate::idmap::Kept;
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
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
    /// stdin ends with the first client that has it.
    pub stdin_once: bool,
    pub remove: bool,
    pub networks: Wanted,
    pub runtime: PathBuf,
    pub stop_signal: String,
    /// Seconds; 10 where none was asked for.
    pub stop_timeout: Option<u32>,
    pub restart: Restart,
    pub log: LogChoice,
    pub health: Option<HealthCheck>,
    /// Layers that are shared, uppermost first; none with `--bundle`.
    pub lower: Vec<PathBuf>,
    /// The image by its id: the name may be another's by now.
    pub image_id: String,
    /// The layers were unpacked in a user namespace, and are mounted in one.
    pub rootless: bool,
    pub typed: Typed,
    /// Of `--userns auto`: claimed as long as this says so.
    pub ids: Option<Ids>,
    /// Of `--userns keep-id`.
    pub kept: Option<Kept>,
    /// Volumes, paths of the host and tmpfs, as they were asked for.
    pub mounts: Vec<Mount>,
    /// Namespaces of other containers that it has.
    pub joins: Vec<Join>,
    pub systemd_cgroup: bool,

    // What came of it:
    pub process: Option<Process>,
    pub started: Option<String>,
    pub finished: Option<String>,
    pub exit: Option<u8>,
    pub oom_killed: bool,
    /// Why the last start failed; empty where it did not.
    pub error: String,
    pub restarts: u32,
    /// The monitor waits before it starts it again.
    pub restarting: bool,
    pub healthy: Option<Health>,

    // What the monitor is to do, said by other commands:
    /// Do not start it again: someone has stopped it.
    pub stopped: bool,
    /// Start it again at once, whatever the policy is.
    pub again: bool,
    /// It is about to be removed: never start it.
    pub removing: bool,
}

/// What was typed instead of what the image says: an image made of the container says so too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Typed {
    /// Empty: the image's is not wanted.
    pub entrypoint: Option<String>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
}

/// A container's first process, for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    /// Absolute; none where it has none of its own.
    pub cgroup: Option<PathBuf>,
}

/// `--restart`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    No,
    /// When the status is not 0, at most so many times; 0 is without end.
    OnFailure(u32),
    Always,
    UnlessStopped,
}

impl Restart {
    /// After an end with that status, when it has been restarted so often?
    pub fn wants(&self, exit: Option<u8>, restarts: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure(most) => exit != Some(0) && (*most == 0 || restarts < *most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }

    /// After a boot, where somebody had stopped it or not?
    pub fn wants_at_boot(&self, stopped: bool) -> bool {
        match self {
            Restart::No | Restart::OnFailure(_) => false,
            Restart::Always => true,
            Restart::UnlessStopped => !stopped,
        }
    }

    /// docker's name of it.
    pub fn name(&self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure(_) => "on-failure",
            Restart::Always => "always",
            Restart::UnlessStopped => "unless-stopped",
        }
    }
}

/// `--log-driver`, `--log-opt`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogChoice {
    pub driver: LogDriver,
    /// Bytes of a file; 0: without bound.
    pub max_size: u64,
    /// Files with the newest.
    pub max_file: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    #[default]
    JsonFile,
    None,
    Journald,
}

impl LogDriver {
    pub fn name(self) -> &'static str {
        match self {
            LogDriver::JsonFile => "json-file",
            LogDriver::None => "none",
            LogDriver::Journald => "journald",
        }
    }
}

/// `--health-cmd` and its kin; times in nanoseconds, as docker has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub command: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    pub start_period: u64,
    pub retries: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy`, `unhealthy`
    pub status: String,
    pub failing_streak: u32,
    pub log: Vec<Probe>,
}

impl Health {
    pub fn starting() -> Health {
        Health {
            status: "starting".to_owned(),
            ..Health::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    pub start: String,
    pub end: String,
    pub exit_code: i32,
    pub output: String,
}

/// A namespace (`pid`, `ipc`) of the container `id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    pub kind: String,
    pub id: String,
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
        for dir in [home.containers(), home.names(), home.state.clone()] {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(&dir);
            made.with_context(|| format!("mkdir {}", dir.display()))?;
        }
        Ok(home)
    }

    fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub fn dir(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Held for moments: while a name is claimed or a directory comes.
    fn lock(&self) -> Result<File> {
        let dir = File::open(self.containers())?;
        file::lock(dir.as_fd())?;
        Ok(dir)
    }

    /// Held while a container that is being made has ids that no record names yet.
    pub fn lock_ids(&self) -> Result<File> {
        let dir = File::open(self.names())?;
        file::lock(dir.as_fd())?;
        Ok(dir)
    }

    /// All containers, newest first.
    pub fn list(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for id in self.ids()? {
            // Without a record: coming or going.
            records.extend(self.load(&id)?);
        }
        records.sort_by(|a: &Record, b| b.created.cmp(&a.created));
        Ok(records)
    }

    fn ids(&self) -> Result<Vec<String>> {
        let dir = self.containers();
        let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
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
        let found = self.seek(wanted)?;
        found.with_context(|| match self.nearest(wanted) {
            Some(name) => format!("no such container: {wanted}; did you mean {name}?"),
            None => format!("no such container: {wanted}; `sc ps -a` lists them"),
        })
    }

    /// The same; `None`: there is no such container.
    pub fn seek(&self, wanted: &str) -> Result<Option<Record>> {
        // What is no name cannot be a path either.
        if !(is_hex(wanted) || check_name(wanted).is_ok() && !wanted.is_empty()) {
            return Ok(None);
        }
        if let Some(record) = self.named(wanted)? {
            return Ok(Some(record));
        }
        let mut ids = self.ids()?;
        ids.retain(|id| id.starts_with(wanted));
        let mut found = Vec::new();
        for id in &ids {
            found.extend(self.load(id)?);
        }
        match found.len() {
            0 | 1 => Ok(found.pop()),
            n => bail!("{wanted} is the beginning of {n} ids: type more of it"),
        }
    }

    /// The name that was probably meant.
    fn nearest(&self, wanted: &str) -> Option<String> {
        let names = fs::read_dir(self.names()).ok()?.flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let near = names.map(|name| (distance(&name, wanted), name));
        let (distance, name) = near.min()?;
        (distance <= wanted.len() / 3).then_some(name)
    }

    /// Who has this name, by the link that claims it. A link may be left by a killed process.
    fn named(&self, name: &str) -> Result<Option<Record>> {
        let Ok(id) = fs::read_link(self.names().join(name)) else {
            return Ok(None);
        };
        let record = self.load(&id.to_string_lossy())?;
        Ok(record.filter(|record| record.name == name))
    }

    /// Makes the container's directory, lets `fill` complete it, and gives it its record. Only its own directory
    /// is locked meanwhile.
    pub fn create(
        &self,
        mut record: Record,
        fill: impl FnOnce(&Path, &mut Record) -> Result<()>,
    ) -> Result<Record> {
        check_name(&record.name)?;
        let lock = self.lock()?;
        self.sweep()?;
        record.id = random_id()?;
        record.created = clock::now_nanos();
        let dir = self.dir(&record.id);
        match record.name.is_empty() {
            false => self.claim(&record.name, &record.id)?,
            true => record.name = self.claim_any(&record.id)?,
        }
        DirBuilder::new().mode(0o700).create(&dir)?;
        let own = File::open(&dir)?;
        file::lock(own.as_fd())?;
        drop(lock);
        let made = fill(&dir, &mut record).and_then(|()| {
            for name in ["monitor", "ended", "log.json"] {
                File::create(dir.join(name))?;
            }
            save(&dir, &record)
        });
        if let Err(e) = made {
            // The first error is the one to report; what stays, the next sweep removes.
            let _ = rootless::remove_tree(&dir);
            self.release(&record.name, &record.id);
            return Err(e);
        }
        events::tell(self, &Event::of(&record, "create"));
        Ok(record)
    }

    /// Under the lock: the name is this id's from here on.
    fn claim(&self, name: &str, id: &str) -> Result<()> {
        let link = self.names().join(name);
        match symlink(id, &link) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            other => return other.with_context(|| link.display().to_string()),
        }
        let owner = fs::read_link(&link)?;
        let owner = owner.to_string_lossy();
        let taken = match self.load(&owner)? {
            Some(other) => other.name == name,
            // Coming, unless its maker was killed: then the sweep before us has removed it.
            None => self.dir(&owner).exists(),
        };
        ensure!(
            !taken,
            "the name {name:?} is in use by container {}: `sc rm {name}` frees it",
            short(&owner)
        );
        fs::remove_file(&link)?;
        Ok(symlink(id, &link)?)
    }

    fn claim_any(&self, id: &str) -> Result<String> {
        loop {
            let name = random_name()?;
            if !self.names().join(&name).is_symlink() {
                self.claim(&name, id)?;
                return Ok(name);
            }
        }
    }

    /// The name is free, if it is this container's.
    fn release(&self, name: &str, id: &str) {
        let link = self.names().join(name);
        if fs::read_link(&link).is_ok_and(|owner| owner == Path::new(id)) {
            // Whoever claims it next looks whether it has an owner.
            let _ = fs::remove_file(&link);
        }
    }

    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        ensure!(!name.is_empty(), "a new name is missing");
        check_name(name)?;
        let _lock = self.lock()?;
        self.sweep()?;
        self.claim(name, id)?;
        let mut before = String::new();
        let record = self.change(id, |record| {
            before = std::mem::replace(&mut record.name, name.to_owned());
        })?;
        let record = record.context("the container is gone")?;
        self.release(&before, id);
        events::tell(self, &Event::of(&record, "rename").with("oldName", before));
        Ok(())
    }

    /// Under the lock: removes directories whose maker or remover was killed.
    fn sweep(&self) -> Result<()> {
        for id in self.ids()? {
            let dir = self.dir(&id);
            if dir.join("record.json").exists() {
                continue;
            }
            // Gone meanwhile: not ours to remove.
            let Ok(own) = File::open(&dir) else { continue };
            // Its maker may have finished between the two looks.
            if file::try_lock(own.as_fd())? && !dir.join("record.json").exists() {
                rootless::remove_tree(&dir)?;
            }
        }
        Ok(())
    }

    /// What killed processes left: half a container, a name of nobody, the runtime's state of a container that is
    /// gone. Each is told to `remove_state`; how many there were.
    pub fn heal(&self, mut remove_state: impl FnMut(&str)) -> Result<usize> {
        let _lock = self.lock()?;
        let before = self.ids()?.len();
        self.sweep()?;
        let mut healed = before - self.ids()?.len();
        for entry in fs::read_dir(self.names())? {
            let entry = entry?;
            let owner = fs::read_link(entry.path()).unwrap_or_default();
            let owner = owner.to_string_lossy();
            let name = entry.file_name();
            let stale = match self.load(&owner)? {
                Some(record) => name != *record.name,
                None => !self.dir(&owner).exists(),
            };
            if stale {
                fs::remove_file(entry.path())?;
                healed += 1;
            }
        }
        for entry in fs::read_dir(&self.state)? {
            let name = entry?.file_name();
            let id = name.to_string_lossy();
            if is_hex(&id) && id.len() == 64 && !self.dir(&id).exists() {
                remove_state(&id);
                healed += 1;
            }
        }
        Ok(healed)
    }

    /// Changes the record of a container that may have gone meanwhile; as it is then.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Record)) -> Result<Option<Record>> {
        let dir = self.dir(id);
        let Ok(lock) = File::open(&dir) else {
            return Ok(None);
        };
        file::lock(lock.as_fd())?;
        let Some(mut record) = self.load(id)? else {
            return Ok(None);
        };
        change(&mut record);
        save(&dir, &record)?;
        Ok(Some(record))
    }

    /// Forgets a container that does not run; its `monitor` is locked by the caller.
    pub fn remove(&self, id: &str) -> Result<()> {
        let dir = self.dir(id);
        let Ok(own) = File::open(&dir) else {
            return Ok(());
        };
        file::lock(own.as_fd())?;
        let Some(record) = self.load(id)? else {
            return Ok(());
        };
        // First: without it, what is left is nobody's.
        fs::remove_file(dir.join("record.json"))?;
        self.release(&record.name, id);
        events::tell(self, &Event::of(&record, "destroy"));
        rootless::remove_tree(&dir)
    }

    /// The right to run the container, or to remove it; `None`: somebody has it.
    pub fn try_monitor(&self, id: &str) -> Result<Option<File>> {
        let lock = self.lock_file(id, "monitor")?;
        Ok(file::try_lock(lock.as_fd())?.then_some(lock))
    }

    /// The same, as soon as nobody has it.
    pub fn monitor(&self, id: &str) -> Result<File> {
        let lock = self.lock_file(id, "monitor")?;
        file::lock(lock.as_fd())?;
        Ok(lock)
    }

    fn lock_file(&self, id: &str, name: &str) -> Result<File> {
        let path = self.dir(id).join(name);
        match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => bail!("the container is gone"),
            other => other.with_context(|| path.display().to_string()),
        }
    }

    /// For a monitor, that its end can be waited for. A file of its own: who waits for the end of one monitor is
    /// not to wait for the next one's too.
    pub fn hold_end(&self, id: &str) -> Result<File> {
        let dir = self.dir(id);
        let new = dir.join("ended.new");
        let lock = File::create(&new).with_context(|| new.display().to_string())?;
        file::lock(lock.as_fd())?;
        fs::rename(&new, dir.join("ended"))?;
        Ok(lock)
    }

    /// Does a monitor live?
    pub fn is_monitored(&self, id: &str) -> bool {
        let lock = self.lock_file(id, "ended");
        lock.is_ok_and(|lock| matches!(file::try_lock_shared(lock.as_fd()), Ok(false)))
    }

    /// The end of the monitor that lives now, if one does.
    pub fn end(&self, id: &str) -> End {
        End(self.lock_file(id, "ended").ok())
    }
}

pub struct End(Option<File>);

impl End {
    /// Waits for it: then all that the monitor had to record is recorded.
    pub fn wait(&self) -> Result<()> {
        match &self.0 {
            Some(lock) => Ok(file::lock_shared(lock.as_fd())?),
            None => Ok(()),
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

/// How many letters are to be put in, left out or exchanged to make one of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub fn random_id() -> Result<String> {
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
    fn the_distance_of_words_is_counted_in_letters() {
        for (a, b, expected) in [
            ("web", "web", 0),
            ("wbe", "web", 2),
            ("", "ab", 2),
            ("webs", "web", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

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
