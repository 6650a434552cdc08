//! What is known of a container between two commands: the record on disk.
//!
//! ```text
//! ROOT/ID/             the directory is the claim on the name, and its lock (flock(2))
//!   state.json         the record, replaced by rename: readers see the old or the new one, whole
//!   config.json        the bundle's, as it was at create, with what `update` has changed since
//!   exec.fifo          while the container is created: one byte in it starts the program
//!   exec.err           while it starts: why exec failed; end of file means that it did not
//! ```
//!
//! `create` holds the lock until the container is made, `start` and `delete` while they work. It
//! ends with its holder, however that dies. Who waits for it looks afterwards whether the directory
//! is still there: removing it is the last act of `delete`, so a name is never removed twice.
//! A record comes before anything it describes is made, in phase `creating`; found in that phase
//! with nobody holding the lock, its maker has died and `delete` clears up after it.

use crate::runtime::cgroup::Cgroup;
use crate::runtime::clock;
use crate::runtime::log;
use crate::runtime::notify;
use crate::runtime::pid;
pub use crate::runtime::pid::start_time;
use crate::runtime::plan::unit::{UnitName, UnitPlan};
use crate::runtime::plan::{Ask, Hook, Plan};
use crate::runtime::state::{OCI_VERSION, State};
use crate::runtime::status::Status;
use crate::runtime::systemd::{self, Systemd};
use crate::sys::{self, Call, file};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstat, mkdirat};
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, mkfifoat, unlinkat};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const EXEC_FIFO: &str = "exec.fifo";
pub const EXEC_ERR: &str = "exec.err";
const STATE: &str = "state.json";
const STATE_NEW: &str = "state.json.new";
const CONFIG: &str = "config.json";
const CONFIG_NEW: &str = "config.json.new";

/// How long a command waits for another one that works on the same container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How far `create` has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Anything that the record names may or may not exist yet.
    Creating,
    /// All of it is made; init waits, runs, or has ended.
    Created,
}

/// Everything a later command needs, so that it depends neither on the bundle, which may be gone,
/// nor on global options, which engines do not repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of this file's form; see [`Record::SCHEMA`].
    pub schema: u32,
    pub oci_version: String,
    pub id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute path of the root file system on the host.
    pub rootfs: PathBuf,
    /// RFC 3339, with nanoseconds.
    pub created: String,
    /// Effective uid of whoever created it.
    pub owner: u32,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub phase: Phase,
    /// Init, in the runtime's pid namespace; 0 until it is made.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: with the pid it names a process for good.
    pub start_time: u64,
    /// Absolute path of its directory; absent where the container goes without a cgroup, and until
    /// systemd has made it.
    pub cgroup: Option<PathBuf>,
    /// Where the cgroup2 file system is mounted.
    pub cgroup_mount: PathBuf,
    /// `cgroupfs` or `systemd`.
    pub cgroup_manager: String,
    /// The unit that holds the cgroup, with the systemd manager.
    #[serde(default)]
    pub unit: Option<UnitName>,
    pub rootless: bool,
    pub no_pivot: bool,
    /// Its processes keep the session keyring of whoever made them.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// Init is the first process of a pid namespace of its own: its end is that of all others.
    pub pid_namespace: bool,
    #[serde(default)]
    pub poststart: Vec<Hook>,
    /// Whoever starts it waits until its program is ready ([`super::notify`]).
    #[serde(default)]
    pub notify: bool,
    #[serde(default)]
    pub poststop: Vec<Hook>,
}

impl Record {
    /// Raised when an older program would misread the file.
    pub const SCHEMA: u32 = 1;

    /// The first record of a container that is to be made: nothing of it is there yet.
    pub fn new(plan: &Plan, ask: &Ask) -> Record {
        let mount = &ask.host.cgroup_mount;
        let cgroup = &plan.parent.cgroup.path;
        let unit = plan.parent.unit.as_ref().map(UnitPlan::kept);
        Record {
            schema: Self::SCHEMA,
            oci_version: OCI_VERSION.to_owned(),
            id: ask.id.clone(),
            bundle: ask.bundle.clone(),
            rootfs: plan
                .init
                .rootfs
                .as_ref()
                .map(|rootfs| rootfs.path.clone())
                .unwrap_or_default(),
            created: clock::now_nanos(),
            owner: ask.host.euid,
            annotations: plan.annotations.clone(),
            phase: Phase::Creating,
            pid: 0,
            start_time: 0,
            cgroup: match &unit {
                None => Some(mount.join(cgroup.strip_prefix("/").unwrap_or(cgroup))),
                Some(_) => None,
            },
            cgroup_mount: mount.clone(),
            cgroup_manager: match &unit {
                None => "cgroupfs".to_owned(),
                Some(_) => "systemd".to_owned(),
            },
            unit,
            rootless: ask.host.rootless,
            no_pivot: ask.no_pivot,
            no_new_keyring: ask.no_new_keyring,
            pid_namespace: plan.parent.clone.new & libc::CLONE_NEWPID as u64 != 0,
            poststart: plan.parent.poststart.clone(),
            notify: ask.notify.is_some(),
            poststop: plan.parent.poststop.clone(),
        }
    }

    /// What a hook reads on stdin, before the container is such that its status can be found out.
    pub fn hook_state(&self, pid: i32, status: &str) -> Vec<u8> {
        State::new(self, pid, status).line()
    }

    pub fn parse(text: &[u8]) -> Result<Record> {
        let record: Record = serde_json::from_slice(text)?;
        if record.schema != Self::SCHEMA {
            bail!(
                "its form is {}, this program knows {}",
                record.schema,
                Self::SCHEMA
            );
        }
        Ok(record)
    }
}

/// Are these words a container's name? runc's rule: `[\w+.-]+`, and not `.` or `..`.
pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        bail!("container id cannot be empty");
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_+.-".contains(&b);
    if id == "." || id == ".." || !id.bytes().all(legal) {
        bail!("invalid container ID format");
    }
    Ok(())
}

/// The error of every verb for a name that nobody has; engines look for these words.
pub fn missing() -> anyhow::Error {
    anyhow!("container does not exist")
}

fn exists() -> anyhow::Error {
    anyhow!("container with given ID already exists")
}

// ---------------------------------------------------------------------------------------------

/// The directory of a container, open, whether a record is in it or not.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    dir: OwnedFd,
    locked: bool,
}

/// What asking for the lock gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Taken,
    /// Another command works on the container.
    Busy,
    /// It was removed.
    Gone,
}

impl Place {
    /// `None` when the name is free. A symbolic link of that name is an error: nothing of ours.
    pub fn open(root: &Path, id: &str) -> Result<Option<Place>> {
        check_id(id)?;
        let path = root.join(id);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match open(&path, flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Place {
                path,
                dir,
                locked: false,
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                bail!(
                    "{} is not a directory: no container of this runtime",
                    path.display()
                )
            }
            Err(errno) => {
                Err(sys::Error::new("open", format!("{path:?}, O_DIRECTORY"), errno).into())
            }
        }
    }

    /// The place with its lock; `None` when the name is free. While another command has the lock,
    /// `meanwhile` is called with the container as it is, if it has a record; its error ends the
    /// wait, as does [`PATIENCE`].
    pub fn take(
        root: &Path,
        id: &str,
        mut meanwhile: impl FnMut(&Container) -> Result<()>,
    ) -> Result<Option<Place>> {
        let Some(mut place) = Place::open(root, id)? else {
            return Ok(None);
        };
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            match place.try_lock()? {
                Hold::Taken => return Ok(Some(place)),
                Hold::Gone => return Ok(None),
                Hold::Busy => {}
            }
            if let Some(snapshot) = Place::open(root, id)?
                && let Some(container) = Container::read(snapshot)?
            {
                meanwhile(&container)?;
            }
            if Instant::now() > deadline {
                bail!("container {id} is busy: another command has worked on it for {PATIENCE:?}");
            }
            // flock(2) cannot wait with a limit, and what `meanwhile` does may have to be repeated.
            std::thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(20));
        }
    }

    fn try_lock(&mut self) -> Result<Hold> {
        if !file::try_lock(self.dir.as_fd())? {
            return Ok(Hold::Busy);
        }
        self.locked = true;
        self.still_there()
    }

    fn still_there(&self) -> Result<Hold> {
        let stat = fstat(&self.dir).call("fstat", || format!("{:?}", self.path))?;
        Ok(if stat.st_nlink > 0 {
            Hold::Taken
        } else {
            Hold::Gone
        })
    }

    fn unlock(&mut self) {
        if std::mem::take(&mut self.locked) {
            // Closing is not enough: a clone that lives on has the same lock. Refusal is impossible
            // for an open descriptor.
            let _ = file::unlock(self.dir.as_fd());
        }
    }

    /// The record; `None` when there is none (yet, or any more).
    pub fn record(&self) -> Result<Option<Record>> {
        let Some(text) = self.text(STATE)? else {
            return Ok(None);
        };
        Record::parse(&text)
            .map(Some)
            .with_context(|| format!("read {}", self.path.join(STATE).display()))
    }

    /// A file of the place, whole; `None` when there is none.
    fn text(&self, name: &'static str) -> Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file::read_rest(file.as_fd())?)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => {
                let path = format!("{:?}", self.path.join(name));
                Err(sys::Error::new("openat", path, errno).into())
            }
        }
    }

    /// Writes the record whole or not at all. The first one replaces nothing.
    fn write(&self, record: &Record, first: bool) -> Result<()> {
        self.write_new(STATE_NEW, &serde_json::to_vec(record)?)
            .and_then(|()| match first {
                true => file::rename_new(self.dir.as_fd(), c"state.json.new", c"state.json"),
                false => self.rename(STATE_NEW, STATE),
            })
            .map_err(|e| {
                let _ = self.unlink(STATE_NEW); // what failed is told; this only tidies up
                match e.errno {
                    Errno::EEXIST if first => exists(),
                    _ => anyhow!(e).context(format!("save {}", self.path.join(STATE).display())),
                }
            })
    }

    /// Replaces config.json, whole or not at all.
    fn replace_config(&self, text: &[u8]) -> Result<()> {
        self.write_new(CONFIG_NEW, text)
            .and_then(|()| self.rename(CONFIG_NEW, CONFIG))
            .map_err(|e| {
                let _ = self.unlink(CONFIG_NEW); // as above
                anyhow!(e).context(format!("save {}", self.path.join(CONFIG).display()))
            })
    }

    fn rename(&self, from: &'static str, to: &'static str) -> sys::Result<()> {
        nix::fcntl::renameat(&self.dir, from, &self.dir, to)
            .call("renameat", || format!("{from:?}, {to:?}"))
    }

    /// Makes a file that is not there yet.
    fn write_new(&self, name: &'static str, text: &[u8]) -> sys::Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(&self.dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let new = match create() {
            // Of a writer that was killed: the lock is ours now.
            Err(Errno::EEXIST) => {
                self.unlink(name)?;
                create()
            }
            other => other,
        };
        let new = new.call("openat", || format!("{name:?}, O_WRONLY|O_CREAT|O_EXCL"))?;
        std::fs::File::from(new).write_all(text).map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
            sys::Error::new("write", format!("{name:?}, {} bytes", text.len()), errno)
        })
    }

    /// Removes a file of the place; one that is not there is as good.
    pub fn unlink(&self, name: &str) -> sys::Result<()> {
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other.call("unlinkat", || format!("{:?}", self.path.join(name))),
        }
    }

    /// Removes what a `delete` that was killed after the record had not come to.
    fn empty(&self) -> Result<()> {
        let wanted = || format!("clear {}", self.path.display());
        for entry in std::fs::read_dir(&self.path).with_context(wanted)? {
            let entry = entry.with_context(wanted)?;
            match entry.file_type().with_context(wanted)?.is_dir() {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            }
            .with_context(wanted)?;
        }
        Ok(())
    }

    /// Gives the name back. The record goes last: whoever dies here leaves something to find.
    pub fn remove(mut self) -> Result<()> {
        for name in [EXEC_FIFO, EXEC_ERR, CONFIG, STATE] {
            self.unlink(name)?;
        }
        let removed = match std::fs::remove_dir(&self.path) {
            // Something that is not of today's layout. Links are removed, never followed.
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {
                std::fs::remove_dir_all(&self.path)
            }
            other => other,
        };
        // The lock went with the directory.
        self.locked = false;
        match removed {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unlock();
    }
}

// ---------------------------------------------------------------------------------------------

/// A name that is being made a container's, with its lock. Dropping it gives the lock back and
/// leaves the place as it is.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    saved: Cell<bool>,
}

impl Claim {
    /// Takes the name, making `root` where it is missing.
    pub fn new(root: &Path, id: &str) -> Result<Claim> {
        check_id(id)?;
        let path = root.join(id);
        let made = make_dir(&path).or_else(|e| match e.kind() {
            ErrorKind::NotFound => make_root(root).and_then(|()| make_dir(&path)),
            _ => Err(e),
        });
        match made {
            Ok(()) => Self::lock_new(root, id),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Self::adopt(root, id),
            Err(e) => Err(e).with_context(|| {
                format!(
                    "make {}: choose a writable directory with --root, or set XDG_RUNTIME_DIR",
                    path.display()
                )
            }),
        }
    }

    fn lock_new(root: &Path, id: &str) -> Result<Claim> {
        let gone = || anyhow!("container {id} was deleted while it was being created");
        let mut place = Place::open(root, id)?.ok_or_else(gone)?;
        file::lock(place.dir.as_fd())?;
        place.locked = true;
        match place.still_there()? {
            Hold::Gone => Err(gone()),
            _ => Ok(Self::of(place)),
        }
    }

    /// A directory without record and lock is what a `create` or `delete` left that was killed
    /// between two of its calls: nothing else belongs to it. Should its maker merely be slow, the
    /// first [`save`](Claim::save) of the two wins.
    fn adopt(root: &Path, id: &str) -> Result<Claim> {
        let mut place = Place::open(root, id)?.ok_or_else(exists)?;
        if place.try_lock()? != Hold::Taken || place.record()?.is_some() {
            return Err(exists());
        }
        place.empty()?;
        Ok(Self::of(place))
    }

    fn of(place: Place) -> Claim {
        Claim {
            place,
            saved: Cell::new(false),
        }
    }

    /// ROOT/ID, open.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.place.dir.as_fd()
    }

    /// An error when another `create` was faster with this name.
    pub fn refuse_taken(&self) -> Result<()> {
        match self.place.record()? {
            Some(_) => Err(exists()),
            None => Ok(()),
        }
    }

    /// Writes the record, atomically. The first time it must still be the only one.
    pub fn save(&self, record: &Record) -> Result<()> {
        self.place.write(record, !self.saved.get())?;
        self.saved.set(true);
        Ok(())
    }

    /// Keeps a copy of config.json, as it was read: later commands (`exec`, `update`) must not
    /// depend on the bundle. To be called after the first [`save`](Claim::save), at any time before
    /// the container counts as made: until then no other command looks for it.
    pub fn save_config(&self, text: &[u8]) -> Result<()> {
        self.place
            .write_new(CONFIG, text)
            .with_context(|| format!("save {}", self.place.path.join(CONFIG).display()))
    }

    /// Makes the two fifos and opens them for init (O_RDWR, so that neither open nor read waits
    /// for, or ends with, another process): it reads one byte of the first to be started, and
    /// writes into the second why exec failed.
    pub fn start_fifos(&self) -> Result<(OwnedFd, OwnedFd)> {
        let make = |name: &str| -> sys::Result<OwnedFd> {
            let shown = || format!("{:?}", self.place.path.join(name));
            mkfifoat(self.dir(), name, Mode::S_IRUSR | Mode::S_IWUSR).call("mkfifoat", shown)?;
            let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(self.dir(), name, flags, Mode::empty()).call("openat", shown)
        };
        // exec.fifo means `created`: it comes last.
        let err = make(EXEC_ERR)?;
        Ok((make(EXEC_FIFO)?, err))
    }

    /// The directory for its program's word that it is ready. The way to it is ours alone.
    pub fn make_notify_directory(&self) -> Result<()> {
        let name = notify::DIRECTORY;
        let shown = || format!("{:?}", self.place.path.join(name));
        let mode = Mode::from_bits_truncate(0o755);
        mkdirat(self.dir(), name, mode).call("mkdirat", shown)?;
        // Whatever the umask.
        Ok(
            fchmodat(self.dir(), name, mode, FchmodatFlags::FollowSymlink)
                .call("fchmodat", shown)?,
        )
    }

    /// Gives the name back, with all that was put there.
    pub fn abandon(self) -> Result<()> {
        // The first save found another's record: not ours to remove.
        if !self.saved.get() && self.place.record()?.is_some() {
            return Ok(());
        }
        self.place.remove()
    }

    /// Lets other commands work on the container: it is made. To be called (or the claim dropped)
    /// by whoever made it: init's copy of the descriptor would keep the lock otherwise.
    pub fn unlock(&mut self) -> Result<()> {
        self.place.unlock();
        Ok(())
    }

    /// Waits for the lock once more; false when another command has deleted the container since.
    pub fn lock_again(&mut self) -> Result<bool> {
        file::lock(self.dir())?;
        self.place.locked = true;
        Ok(self.place.still_there()? != Hold::Gone)
    }
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// The sticky bit keeps systemd-tmpfiles from clearing a root below $XDG_RUNTIME_DIR
/// (XDG base directory specification); elsewhere it changes nothing.
fn make_root(root: &Path) -> std::io::Result<()> {
    if let Some(parent) = root.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    match DirBuilder::new().mode(0o1700).create(root) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

// ---------------------------------------------------------------------------------------------

/// A container that has a record.
#[derive(Debug)]
pub struct Container {
    place: Place,
    pub record: Record,
    /// Found in phase `creating` with nobody at work on it: its maker was killed, and what the
    /// record names may or may not exist.
    orphan: bool,
    cgroup: OnceCell<Option<Cgroup>>,
}

/// False when the process has ended.
fn send(process: &OwnedFd, signal: i32) -> Result<bool> {
    match sys::pidfd::send_signal(process.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(e) if e.errno == Errno::ESRCH => Ok(false),
        Err(e) => Err(e.into()),
    }
}

impl Container {
    pub fn load(root: &Path, id: &str) -> Result<Container> {
        Container::find(root, id)?.ok_or_else(missing)
    }

    /// `None` when nobody has the name.
    pub fn find(root: &Path, id: &str) -> Result<Option<Container>> {
        match Place::open(root, id)? {
            Some(place) => Container::read(place),
            None => Ok(None),
        }
    }

    /// The container of a place, or `None` when it has no record. A lock that the place has, the
    /// container has.
    pub fn read(place: Place) -> Result<Option<Container>> {
        let Some(mut record) = place.record()? else {
            return Ok(None);
        };
        let mut orphan = false;
        if record.phase == Phase::Creating
            && (place.locked || file::try_lock_shared(place.dir.as_fd())?)
        {
            // Its maker may have finished between our read and our asking for the lock.
            let again = place.record();
            if !place.locked {
                // An open descriptor is not refused.
                let _ = file::unlock(place.dir.as_fd());
            }
            let Some(now) = again? else {
                return Ok(None);
            };
            orphan = now.phase == Phase::Creating;
            record = now;
        }
        Ok(Some(Container {
            place,
            record,
            orphan,
            cgroup: OnceCell::new(),
        }))
    }

    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// ROOT/ID, open.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.place.dir.as_fd()
    }

    /// Its config.json: the text at `create`, with what `update` has changed since.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.place.text(CONFIG)?.with_context(|| {
            format!(
                "{} is missing: the container was made without it, or it was removed",
                self.place.path.join(CONFIG).display()
            )
        })
    }

    /// Replaces it, atomically. The caller has the container's lock.
    pub fn save_config(&self, text: &[u8]) -> Result<()> {
        self.place.replace_config(text)
    }

    /// What it is now, from the record, the process, the cgroup and the fifo.
    pub fn status(&self) -> Result<Status> {
        let record = &self.record;
        match record.phase {
            Phase::Creating => self.status_of_making(),
            Phase::Created if !pid::is_alive(record.pid, record.start_time)? => Ok(Status::Stopped),
            Phase::Created => self.status_of_living(),
        }
    }

    /// Its status, and init where it is alive: one look at both.
    pub fn status_and_init(&self) -> Result<(Status, Option<OwnedFd>)> {
        if self.record.phase == Phase::Creating {
            return Ok((self.status_of_making()?, None));
        }
        let init = self.init()?;
        let status = match init {
            None => Status::Stopped,
            Some(_) => self.status_of_living()?,
        };
        Ok((status, init))
    }

    fn status_of_making(&self) -> Result<Status> {
        Ok(match self.orphan {
            true => Status::Stopped,
            false => Status::Creating,
        })
    }

    fn status_of_living(&self) -> Result<Status> {
        if let Some(cgroup) = self.cgroup()?
            && cgroup.is_frozen()?
        {
            return Ok(Status::Paused);
        }
        match faccessat(
            &self.place.dir,
            EXEC_FIFO,
            AccessFlags::F_OK,
            AtFlags::empty(),
        ) {
            Ok(()) => Ok(Status::Created),
            Err(Errno::ENOENT) => Ok(Status::Running),
            Err(errno) => Err(sys::Error::new("faccessat", EXEC_FIFO, errno).into()),
        }
    }

    /// An error when it was deleted since it was loaded. To be asked after its cgroup was opened, which
    /// is known by a path: that might be another one's by now.
    pub fn still_there(&self) -> Result<()> {
        match self.place.still_there()? {
            Hold::Gone => Err(missing()),
            _ => Ok(()),
        }
    }

    /// Init, safe to signal; `None` when it has ended or was never made.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        pid::open(self.record.pid, self.record.start_time)
    }

    /// Its cgroup, if it has one and that is there; opened once.
    pub fn cgroup(&self) -> Result<Option<&Cgroup>> {
        if let Some(opened) = self.cgroup.get() {
            return Ok(opened.as_ref());
        }
        let record = &self.record;
        let opened = match (&record.cgroup, &record.unit) {
            (Some(path), _) => Cgroup::open(path)?,
            // Its maker is at work, or was killed, between the order and the answer.
            (None, Some(unit)) => match Systemd::connect(unit.manager)?.cgroup_of(&unit.name)? {
                Some(inner) => Cgroup::open_below(&record.cgroup_mount, &inner)?,
                None => None,
            },
            (None, None) => None,
        };
        Ok(self.cgroup.get_or_init(|| opened).as_ref())
    }

    /// Sends a signal to every process in its cgroup.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(cgroup) = self.cgroup()? else {
            if !self.record.pid_namespace {
                log::warn(format!(
                    "container {} has no cgroup: of its processes only the first is signalled",
                    self.id()
                ));
            }
            return self.signal_init(signal).map(drop);
        };
        self.still_there()?;
        match signal {
            libc::SIGKILL => cgroup.kill(),
            _ => self.signal_each(cgroup, signal),
        }
    }

    /// The processes are frozen meanwhile only with the lock: what `pause` has frozen would else be
    /// thawed here.
    fn signal_each(&self, cgroup: &Cgroup, signal: i32) -> Result<()> {
        let mine = !self.place.locked && file::try_lock(self.dir())?;
        let done = cgroup.signal_all(signal, mine || self.place.locked);
        if mine {
            // An open descriptor is not refused.
            let _ = file::unlock(self.dir());
        }
        done
    }

    /// Sends a signal to init; false when it has ended.
    pub fn signal_init(&self, signal: i32) -> Result<bool> {
        match self.init()? {
            Some(init) => send(&init, signal),
            None => Ok(false),
        }
    }

    /// SIGKILL to all its processes; gives init, if it was alive, to be waited for.
    pub fn kill(&self) -> Result<Option<OwnedFd>> {
        let init = self.init()?;
        // The kernel ends a pid namespace with its init (pid_namespaces(7)). Without one of its
        // own, or without init, the cgroup tells who they are.
        match &init {
            Some(init) if self.record.pid_namespace && send(init, libc::SIGKILL)? => {}
            _ => self.signal_all(libc::SIGKILL)?,
        }
        Ok(init)
    }

    /// Kills all its processes and waits until init has ended.
    pub fn put_an_end(&self) -> Result<()> {
        match self.kill()? {
            Some(init) if !sys::pidfd::wait(init.as_fd(), PATIENCE)? => bail!(
                "process {} of container {} has not ended {PATIENCE:?} after SIGKILL",
                self.record.pid,
                self.id()
            ),
            _ => Ok(()),
        }
    }

    /// Gives its cgroup back, after the end of init, with all that is still in it.
    pub fn leave_cgroup(&self) -> Result<()> {
        let cgroup = self.cgroup()?;
        if let Some(cgroup) = cgroup
            && self.may_leave_processes()
        {
            cgroup.kill()?;
        }
        if let Some(unit) = &self.record.unit {
            systemd::end(unit)?;
        }
        cgroup.map_or(Ok(()), Cgroup::remove)
    }

    /// Was its maker killed while it made it?
    pub fn is_orphan(&self) -> bool {
        self.orphan
    }

    /// Can processes be left in its cgroup after init has ended?
    pub fn may_leave_processes(&self) -> bool {
        self.orphan || !self.record.pid_namespace
    }

    /// Removes a file of the record; one that is not there is as good.
    pub fn unlink(&self, name: &str) -> Result<()> {
        Ok(self.place.unlink(name)?)
    }

    /// Gives the name back.
    pub fn forget(self) -> Result<()> {
        self.place.remove()
    }
}

#[cfg(test)]
impl Record {
    pub fn example() -> Record {
        Record {
            schema: Record::SCHEMA,
            oci_version: "1.3.0".into(),
            id: "web".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-11-22T17:11:01.601975232Z".into(),
            owner: 0,
            annotations: [("a".into(), "b".into())].into(),
            phase: Phase::Created,
            pid: 42,
            start_time: 7,
            cgroup: Some("/sys/fs/cgroup/web".into()),
            cgroup_mount: "/sys/fs/cgroup".into(),
            cgroup_manager: "cgroupfs".into(),
            unit: None,
            rootless: false,
            no_pivot: false,
            no_new_keyring: false,
            pid_namespace: true,
            poststart: vec![],
            notify: false,
            poststop: vec![Hook {
                path: "/bin/true".into(),
                args: vec!["true".into()],
                env: vec!["A=b".into()],
                timeout: Some(5),
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A root of its own, removed at the end.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let path = std::env::temp_dir().join(format!("sc-root-{name}-{}", std::process::id()));
            Root(path)
        }
        fn names(&self) -> Vec<String> {
            let name = |e: std::io::Result<std::fs::DirEntry>| {
                e.unwrap().file_name().into_string().unwrap()
            };
            std::fs::read_dir(&self.0).unwrap().map(name).collect()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0); // the next run has another name
        }
    }

    fn creating() -> Record {
        Record {
            phase: Phase::Creating,
            pid: 0,
            start_time: 0,
            cgroup: None,
            ..Record::example()
        }
    }

    #[test]
    fn ids_are_judged_as_runc_does() {
        for id in ["a", "_", "+", "-x", "...", "A.b-c_d+e", "0"] {
            check_id(id).unwrap();
        }
        for id in [
            ".", "..", "a/b", "../up", "a b", "a\nb", "é", "a:b", "a*", "a\0",
        ] {
            assert_eq!(
                check_id(id).unwrap_err().to_string(),
                "invalid container ID format",
                "{id:?}"
            );
        }
        assert_eq!(
            check_id("").unwrap_err().to_string(),
            "container id cannot be empty"
        );
    }

    #[test]
    fn a_record_survives_the_disk() {
        let root = Root::new("record");
        let claim = Claim::new(&root.0, "web").unwrap();
        claim.save(&creating()).unwrap();
        claim.save(&Record::example()).unwrap();
        assert_eq!(
            Container::load(&root.0, "web").unwrap().record,
            Record::example()
        );
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&root.0), 0o1700);
        assert_eq!(mode(&root.0.join("web")), 0o700);
        assert_eq!(mode(&root.0.join("web/state.json")), 0o600);
    }

    #[test]
    fn a_config_is_kept_changed_and_removed_with_the_container() {
        let root = Root::new("config");
        let claim = Claim::new(&root.0, "web").unwrap();
        claim.save(&Record::example()).unwrap();
        let load = || Container::load(&root.0, "web").unwrap();
        let path = root.0.join("web/config.json");
        let missing = load().config().unwrap_err().to_string();
        assert_eq!(
            missing,
            format!(
                "{} is missing: the container was made without it, or it was removed",
                path.display()
            )
        );
        let text = br#"{ "ociVersion": "1.2.0", "mine": 1 }"#;
        claim.save_config(text).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), text);
        assert_eq!(load().config().unwrap(), text);
        let changed = br#"{"ociVersion":"1.2.0","mine":2}"#;
        load().save_config(changed).unwrap();
        assert_eq!(load().config().unwrap(), changed);
        load().forget().unwrap();
        assert_eq!(root.names(), [""; 0]);
    }

    #[test]
    fn a_record_of_another_form_is_refused() {
        let mut record = serde_json::to_value(Record::example()).unwrap();
        record["schema"] = 2.into();
        assert_eq!(
            Record::parse(record.to_string().as_bytes())
                .unwrap_err()
                .to_string(),
            "its form is 2, this program knows 1"
        );
    }

    #[test]
    fn a_name_is_claimed_once() {
        let root = Root::new("twice");
        let text = |r: Result<Claim>| r.unwrap_err().to_string();
        let first = Claim::new(&root.0, "web").unwrap();
        assert_eq!(
            text(Claim::new(&root.0, "web")),
            "container with given ID already exists"
        );
        first.save(&creating()).unwrap();
        drop(first);
        assert_eq!(
            text(Claim::new(&root.0, "web")),
            "container with given ID already exists"
        );
    }

    #[test]
    fn an_abandoned_claim_leaves_nothing() {
        let root = Root::new("abandon");
        let claim = Claim::new(&root.0, "web").unwrap();
        claim.save(&creating()).unwrap();
        claim.start_fifos().unwrap();
        claim.abandon().unwrap();
        assert_eq!(root.names(), [""; 0]);
    }

    #[test]
    fn a_directory_that_a_dead_maker_left_without_record_is_adopted() {
        let root = Root::new("adopt");
        std::fs::create_dir_all(root.0.join("web")).unwrap();
        let claim = Claim::new(&root.0, "web").unwrap();
        claim.save(&creating()).unwrap();
    }

    #[test]
    fn what_a_killed_delete_left_is_cleared_away() {
        let root = Root::new("leftover");
        std::fs::create_dir_all(root.0.join("web").join(notify::DIRECTORY)).unwrap();
        std::fs::write(root.0.join("web").join(notify::DIRECTORY).join("x"), "").unwrap();
        std::fs::write(root.0.join("web").join(STATE_NEW), "half").unwrap();
        let claim = Claim::new(&root.0, "web").unwrap();
        claim.save(&creating()).unwrap();
        claim.make_notify_directory().unwrap();
        let left = std::fs::read_dir(root.0.join("web").join(notify::DIRECTORY)).unwrap();
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn of_two_makers_the_first_to_save_wins_and_the_other_removes_nothing() {
        let root = Root::new("slow");
        let slow = Claim::of({
            std::fs::create_dir_all(root.0.join("web")).unwrap();
            Place::open(&root.0, "web").unwrap().unwrap()
        });
        let quick = Claim::new(&root.0, "web").unwrap();
        quick.save(&creating()).unwrap();
        let refused = slow.save(&Record::example()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "container with given ID already exists"
        );
        slow.abandon().unwrap();
        assert_eq!(Container::load(&root.0, "web").unwrap().record, creating());
    }

    #[test]
    fn who_holds_the_lock_tells_a_maker_at_work_from_a_dead_one() {
        let root = Root::new("orphan");
        let claim = Claim::new(&root.0, "web").unwrap();
        claim.save(&creating()).unwrap();
        let status = || Container::load(&root.0, "web").unwrap().status().unwrap();
        assert_eq!(status(), Status::Creating);
        drop(claim);
        assert_eq!(status(), Status::Stopped);
    }

    #[test]
    fn a_live_init_is_created_while_the_fifo_is_there() {
        let root = Root::new("fifo");
        let claim = Claim::new(&root.0, "web").unwrap();
        let me = std::process::id() as i32;
        let record = Record {
            pid: me,
            start_time: pid::start_time(me).unwrap(),
            cgroup: None,
            ..Record::example()
        };
        claim.save(&record).unwrap();
        let container = Container::load(&root.0, "web").unwrap();
        claim.start_fifos().unwrap();
        assert_eq!(container.status().unwrap(), Status::Created);
        container.unlink(EXEC_FIFO).unwrap();
        assert_eq!(container.status().unwrap(), Status::Running);
        let reused = Record {
            start_time: record.start_time + 1,
            ..record
        };
        claim.save(&reused).unwrap();
        assert_eq!(
            Container::load(&root.0, "web").unwrap().status().unwrap(),
            Status::Stopped
        );
    }

    #[test]
    fn a_planted_link_is_neither_followed_nor_removed() {
        let root = Root::new("link");
        std::fs::create_dir_all(root.0.join("real")).unwrap();
        std::os::unix::fs::symlink(root.0.join("real"), root.0.join("web")).unwrap();
        let path = root.0.join("web");
        let expected = format!(
            "{} is not a directory: no container of this runtime",
            path.display()
        );
        assert_eq!(
            Place::open(&root.0, "web").unwrap_err().to_string(),
            expected
        );
        assert_eq!(
            Claim::new(&root.0, "web").unwrap_err().to_string(),
            expected
        );
        assert!(path.is_symlink());
    }

    #[test]
    fn a_place_that_was_removed_while_waiting_is_gone() {
        let root = Root::new("gone");
        drop(Claim::new(&root.0, "web").unwrap());
        let mut late = Place::open(&root.0, "web").unwrap().unwrap();
        let first = Place::take(&root.0, "web", |_| Ok(())).unwrap().unwrap();
        assert_eq!(late.try_lock().unwrap(), Hold::Busy);
        first.remove().unwrap();
        assert_eq!(late.try_lock().unwrap(), Hold::Gone);
        assert!(Place::take(&root.0, "web", |_| Ok(())).unwrap().is_none());
    }
}
