//! How does the container get its cgroup, and how is that cgroup used and left again?
//!
//! cgroup v2 only (cgroups(7), kernel cgroup-v2.rst). What is written comes from the plan
//! ([`CgroupPlan`]); here it is done: [`Cgroup::create`] makes the directories and hands the
//! controllers down, [`Cgroup::apply`] writes the limits and puts the device program in force.
//! The process is put there by the clone (CLONE_INTO_CGROUP with [`Cgroup::dir`]), never moved:
//! a write to cgroup.procs waits for an RCU grace period, some 10 ms on an idle machine.
//!
//! Everything below the mount is reached through directory descriptors, and no symbolic link or
//! other mount is followed on the way. Waiting is for events of the kernel (poll(2) on
//! cgroup.events), never for time to pass.

mod update;

use crate::runtime::plan::{CgroupPlan, CgroupWrite};
use crate::sys;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs, statfs};
use nix::sys::uio::pread;
use nix::unistd::{
    AccessFlags, Uid, UnlinkatFlags, faccessat, fchown, fchownat, read, unlinkat, write,
};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long processes get to die or to freeze. Only one in an uninterruptible sleep (state D)
/// takes longer than moments.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where cgroups live, who may do what is a matter of delegation (chown), not of modes.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);

// ---------------------------------------------------------------------------------------------
// Where cgroups are

/// The cgroup2 mount: `/sys/fs/cgroup`, on a hybrid host `/sys/fs/cgroup/unified`, else the first
/// in mountinfo(5) that shows the whole hierarchy, else the first.
pub fn find_mount() -> Result<PathBuf> {
    for usual in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        if statfs(usual).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            return Ok(usual.into());
        }
    }
    let mounts = procfs::process::Process::myself()
        .and_then(|p| p.mountinfo())
        .context("looking for a cgroup2 mount in /proc/self/mountinfo")?;
    let found: Vec<_> = mounts
        .into_iter()
        .filter(|m| m.fs_type == "cgroup2")
        .collect();
    let whole = found.iter().find(|m| m.root == "/");
    whole
        .or(found.first())
        .map(|m| m.mount_point.clone())
        .context(
            "no cgroup2 file system is mounted, and cgroup v1 alone is not supported: \
         mount one (mount -t cgroup2 cgroup2 /sys/fs/cgroup)",
        )
}

/// The caller's own cgroup below that mount: the `0::` line of /proc/self/cgroup (cgroups(7)).
pub fn own() -> Result<PathBuf> {
    let text = read_file(AT_FDCWD, "/proc/self/cgroup")
        .map_err(|e| anyhow!("reading /proc/self/cgroup: {}", e.desc()))?;
    let line = text.lines().find_map(|l| l.strip_prefix("0::"));
    line.map(PathBuf::from)
        .context("/proc/self/cgroup has no line \"0::\": this kernel has no cgroup v2")
}

// ---------------------------------------------------------------------------------------------
// Making one

/// A cgroup of the v2 hierarchy, held open.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
    /// Directories that [`Cgroup::create`] made, outermost first.
    made: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the cgroup of `plan` below `mount`, and hands every available controller down to it,
    /// as runc and crun do: statistics are wanted where no limit is.
    ///
    /// A controller that cannot be handed down is no error here, but in [`Cgroup::apply`] when a
    /// write needs it. An existing cgroup is taken over when it is empty and not frozen. After an
    /// error nothing is left behind.
    pub fn create(mount: &Path, plan: &CgroupPlan) -> Result<Cgroup> {
        let path = mount.join(plan.path.strip_prefix("/").unwrap_or(&plan.path));
        let mut made = vec![];
        Self::make(mount, plan, &path, &mut made)
            .inspect_err(|_| remove_made(&made))
            .with_context(|| format!("linux.cgroupsPath: make cgroup {}", path.display()))
            .map(|dir| Cgroup { path, dir, made })
    }

    /// An error when the cgroup of `plan` is there and somebody's: it holds processes, or is frozen.
    pub fn refuse_used(mount: &Path, plan: &CgroupPlan) -> Result<()> {
        let path = mount.join(plan.path.strip_prefix("/").unwrap_or(&plan.path));
        match Cgroup::open(&path)? {
            Some(there) => refuse_used(there.dir())
                .with_context(|| format!("linux.cgroupsPath: use cgroup {}", path.display())),
            None => Ok(()),
        }
    }

    fn make(
        mount: &Path,
        plan: &CgroupPlan,
        path: &Path,
        made: &mut Vec<PathBuf>,
    ) -> Result<OwnedFd> {
        let inner = plan.path.strip_prefix("/").unwrap_or(&plan.path);
        let name = inner.file_name().context("it has no name")?;
        let above = inner.parent().filter(|p| !p.as_os_str().is_empty());

        let top = openat(AT_FDCWD, mount, OFlag::O_PATH | DIRECTORY, Mode::empty())
            .map_err(|e| anyhow!("opening {}: {}", mount.display(), e.desc()))?;
        // Another container's end may take a directory above away between two of our steps.
        for _ in 0..8 {
            let found = above.map(|above| make_ancestors(&top, mount, above, made));
            let parent = match found.transpose() {
                Ok(parent) => parent,
                Err(gone) if gone.is::<Gone>() => continue,
                Err(error) => return Err(error),
            };
            let parent = parent.as_ref().unwrap_or(&top);
            let existed = match mkdirat(parent, name, DIRECTORY_MODE) {
                Ok(()) => false,
                Err(Errno::EEXIST) => true,
                Err(Errno::ENOENT) => continue,
                Err(errno) => bail!("mkdir: {}{}", errno.desc(), why_refused(errno)),
            };
            if !existed {
                made.push(path.into());
            }
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | DIRECTORY;
            let dir = match openat(parent, name, flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::ENOENT) => continue,
                Err(errno) => bail!("open: {}", errno.desc()),
            };
            if existed {
                refuse_used(dir.as_fd())?;
            }
            hand_down_controllers(&top, above, dir.as_fd());
            return Ok(dir);
        }
        bail!("someone removes the directories above as fast as they are made")
    }

    /// May the caller put a child into it? That takes the right to write to cgroup.procs of the
    /// nearest cgroup that holds both it and the caller's own (cgroup-v2.rst, "Delegation
    /// Containment").
    pub fn may_be_entered_from(&self, mount: &Path) -> bool {
        let Ok(own) = own() else {
            return false;
        };
        let own = mount.join(own.strip_prefix("/").unwrap_or(&own));
        let both = self.path.ancestors().find(|dir| own.starts_with(dir));
        both.is_some_and(|dir| {
            faccessat(
                AT_FDCWD,
                &dir.join("cgroup.procs"),
                AccessFlags::W_OK,
                AtFlags::AT_EACCESS,
            )
            .is_ok()
        })
    }

    /// How many processes in it the kernel has killed for want of memory (memory.events, oom_kill);
    /// `None` without the memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let text = read_file(self.dir(), "memory.events").ok()?;
        let count = text.lines().find_map(|l| l.strip_prefix("oom_kill "))?;
        count.trim().parse().ok()
    }

    /// The existing cgroup at `path` (absolute, mount included); `None` where there is none.
    pub fn open(path: &Path) -> Result<Option<Cgroup>> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | DIRECTORY)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        let dir = match openat2(AT_FDCWD, path, how) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(None),
            Err(errno) => {
                let refused = sys::Error::new("openat2", format!("{path:?}"), errno);
                bail!("opening cgroup {}: {refused}", path.display())
            }
        };
        ensure!(
            fstatfs(&dir).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC),
            "{} is no cgroup: no cgroup2 file system is mounted there",
            path.display()
        );
        Ok(Some(Cgroup {
            path: path.into(),
            dir,
            made: vec![],
        }))
    }

    /// The existing cgroup at `inner` below `mount`; `None` where there is none.
    pub fn open_below(mount: &Path, inner: &Path) -> Result<Option<Cgroup>> {
        Self::open(&mount.join(inner.strip_prefix("/").unwrap_or(inner)))
    }

    /// The existing cgroup at `inner` below `mount` that someone else made for the container
    /// (systemd, which enables only the controllers it knows and needs), with every available
    /// controller handed down to it as in [`Cgroup::create`].
    pub fn adopt(mount: &Path, inner: &Path) -> Result<Cgroup> {
        let inner = inner.strip_prefix("/").unwrap_or(inner);
        let path = mount.join(inner);
        let cgroup = Self::open(&path)?
            .with_context(|| format!("cgroup {} is gone already", path.display()))?;
        let top = openat(AT_FDCWD, mount, OFlag::O_PATH | DIRECTORY, Mode::empty())
            .map_err(|e| anyhow!("opening {}: {}", mount.display(), e.desc()))?;
        let above = inner.parent().filter(|p| !p.as_os_str().is_empty());
        hand_down_controllers(&top, above, cgroup.dir());
        Ok(cgroup)
    }

    /// An existing cgroup below this one, for CLONE_INTO_CGROUP: no link and no `..` leads out.
    /// "" and "/" are this one.
    pub fn below(&self, inner: &Path) -> nix::Result<OwnedFd> {
        let inner = inner.strip_prefix("/").unwrap_or(inner);
        match inner.as_os_str().is_empty() {
            true => open_below(self.dir(), Path::new(".")),
            false => open_below(self.dir(), inner),
        }
    }

    /// Absolute path, mount included.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For CLONE_INTO_CGROUP and the like.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The text of one of its files; `None` where there is none, or it has gone, or its controller
    /// does not answer: for statistics, where what is not known is left out.
    pub fn text(&self, file: &str) -> Option<String> {
        read_file(self.dir(), file).ok()
    }

    /// One of its event files (cgroup.events, memory.events), to be watched: after it was read,
    /// poll(2) reports a change as POLLPRI. `None` where there is none.
    pub fn watch(&self, file: &str) -> Option<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(self.dir(), file, flags, Mode::empty()).ok()
    }

    /// The directories that [`Cgroup::create`] made for this cgroup, outermost first: what
    /// [`remove_made`] takes away again.
    pub fn made(&self) -> &[PathBuf] {
        &self.made
    }

    /// Undoes [`Cgroup::create`]: removes what it made, and nothing else.
    pub fn undo(&self) -> Result<()> {
        if self.is_new() {
            self.remove()?;
        }
        remove_made(&self.made);
        Ok(())
    }
}

/// Removes those of `paths` (outermost first) that are empty, innermost first. One that is in use
/// by others stays, and so do those above it.
pub fn remove_made(paths: &[PathBuf]) {
    for path in paths.iter().rev() {
        // EBUSY: another container moved in meanwhile. ENOENT: someone else has removed it.
        let _ = unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir);
    }
}

/// The directory `above`, below the mount, made where it is missing.
fn make_ancestors(
    top: &OwnedFd,
    mount: &Path,
    above: &Path,
    made: &mut Vec<PathBuf>,
) -> Result<OwnedFd> {
    match open_below(top.as_fd(), above) {
        Ok(dir) => return Ok(dir),
        Err(Errno::ENOENT) => {}
        Err(errno) => bail!("opening {}: {}", mount.join(above).display(), errno.desc()),
    }
    let mut dir = open_below(top.as_fd(), Path::new("."))?;
    let mut path = mount.to_path_buf();
    for name in above {
        path.push(name);
        match mkdirat(&dir, name, DIRECTORY_MODE) {
            Ok(()) => made.push(path.clone()),
            Err(Errno::EEXIST) => {}
            Err(Errno::ENOENT) => return Err(Gone.into()),
            Err(errno) => bail!(
                "mkdir {}: {}{}",
                path.display(),
                errno.desc(),
                why_refused(errno)
            ),
        }
        dir = match open_below(dir.as_fd(), Path::new(name)) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Err(Gone.into()),
            Err(errno) => bail!("opening {}: {}", path.display(), errno.desc()),
        };
    }
    Ok(dir)
}

/// A directory went away between making and using it.
#[derive(Debug)]
struct Gone;

impl std::error::Error for Gone {}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a directory above was removed meanwhile")
    }
}

/// Opens a directory below `top`, through no link, no other mount and no `..` that leads out.
fn open_below(top: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | DIRECTORY)
        .resolve(resolve);
    loop {
        match openat2(top, path, how) {
            // Something was mounted or renamed meanwhile, anywhere: of a `..` the kernel cannot vouch
            // for where it leads (openat2(2)).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// What the errno of a refused mkdir(2) or rmdir(2) means.
fn why_refused(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => " (this user may not: no cgroup was delegated to it there)",
        Errno::EROFS => " (the cgroup2 mount is read-only)",
        Errno::EAGAIN => {
            " (cgroup.max.descendants or cgroup.max.depth of a cgroup above is reached)"
        }
        _ => "",
    }
}

/// Two containers must not share a cgroup: killing one would kill both. In a frozen one a new
/// process would hang before its first instruction.
fn refuse_used(dir: BorrowedFd<'_>) -> Result<()> {
    let processes = pids_below(dir)?.len();
    ensure!(
        processes == 0,
        "container's cgroup is not empty: {processes} process(es) found"
    );
    let events = read_file(dir, "cgroup.events").unwrap_or_default();
    ensure!(
        value_of(&events, "frozen") != Some("1"),
        "container's cgroup unexpectedly frozen"
    );
    Ok(())
}

/// Enables every controller of the root in all directories above the leaf, where it is missing.
///
/// What the leaf has tells what its parent hands down, so two files decide the usual case: nothing
/// to do. A real change takes a lock of the whole kernel.
fn hand_down_controllers(top: &OwnedFd, above: Option<&Path>, leaf: BorrowedFd<'_>) {
    // Not even readable: then a write that needs a controller will tell why (`why_absent`).
    let (Ok(all), Ok(have)) = (
        read_file(top.as_fd(), "cgroup.controllers"),
        read_file(leaf, "cgroup.controllers"),
    ) else {
        return;
    };
    if missing(&all, &have).is_empty() {
        return;
    }
    let Ok(mut dir) = open_below(top.as_fd(), Path::new(".")) else {
        return;
    };
    hand_down(dir.as_fd());
    for name in above.into_iter().flatten() {
        match open_below(dir.as_fd(), Path::new(name)) {
            Ok(next) => dir = next,
            Err(_) => return,
        }
        hand_down(dir.as_fd());
    }
}

fn hand_down(dir: BorrowedFd<'_>) {
    let file = "cgroup.subtree_control";
    let (Ok(available), Ok(enabled)) = (read_file(dir, "cgroup.controllers"), read_file(dir, file))
    else {
        return;
    };
    let wanted = missing(&available, &enabled);
    let all: Vec<String> = wanted.iter().map(|c| format!("+{c}")).collect();
    if all.is_empty() || holds_processes(dir) || write_file(dir, file, &all.join(" ")).is_ok() {
        return;
    }
    // All or nothing, says the kernel: one that cannot be enabled must not keep back the others.
    // Whether this one matters is known to whoever needs it.
    for one in all {
        let _ = write_file(dir, file, &one);
    }
}

/// One that is not the root, which alone may hold processes and hand down (cgroups(7), no internal
/// processes). The kernel makes an exception for cpu, cpuset, pids and perf_event: but with them
/// handed down, a cgroup with processes becomes the root of threaded ones, and no cgroup below it
/// can hold a container any more.
fn holds_processes(dir: BorrowedFd<'_>) -> bool {
    read_file(dir, "cgroup.type").is_ok()
        && read_file(dir, "cgroup.procs").is_ok_and(|procs| !procs.is_empty())
}

/// The words of `all` that `have` lacks.
fn missing<'a>(all: &'a str, have: &str) -> Vec<&'a str> {
    all.split_whitespace()
        .filter(|c| !has_word(have, c))
        .collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|w| w == word)
}

// ---------------------------------------------------------------------------------------------
// Limits and devices

impl Cgroup {
    /// Writes the limits of `plan`, in order, and puts its device program in force.
    ///
    /// An error names the field, the file, the value and the kernel's answer; for a file that is
    /// not there, its controller and why that is missing.
    pub fn apply(&self, plan: &CgroupPlan) -> Result<()> {
        if plan.check_before_update {
            self.check_memory(&plan.writes)?;
        }
        for write in &plan.writes {
            self.perform(write)?;
        }
        if plan.device_program.is_some() || !self.is_new() {
            self.limit_devices(plan.device_program.as_deref(), plan.device_program_optional)?;
        }
        if let Some(uid) = plan.owner {
            self.give_to(uid)?;
        }
        Ok(())
    }

    /// Lets `uid` divide the cgroup and move processes within it (runtime-spec config-linux.md,
    /// "Cgroup ownership"): never the limits, which stay the runtime's.
    fn give_to(&self, uid: u32) -> Result<()> {
        let uid = Some(Uid::from_raw(uid));
        // Without the file, the kernel's list of 2017.
        let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| {
            "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned()
        });
        fchown(self.dir(), uid, None)
            .and_then(|()| {
                for file in listed.lines().filter(|file| !file.contains('/')) {
                    match fchownat(self.dir(), file, uid, None, AtFlags::AT_SYMLINK_NOFOLLOW) {
                        // Not every listed file is in every cgroup.
                        Ok(()) | Err(Errno::ENOENT) => {}
                        Err(errno) => return Err(errno),
                    }
                }
                Ok(())
            })
            .or_else(|errno| match errno {
                // An ordinary user may not give anything away, and goes on as the owner.
                Errno::EPERM if !nix::unistd::geteuid().is_root() => Ok(()),
                errno => bail!(
                    "giving cgroup {} to its user: {}",
                    self.path.display(),
                    errno.desc()
                ),
            })
    }

    fn perform(&self, wish: &CgroupWrite) -> Result<()> {
        let (mut file, mut value) = (&wish.file, &wish.value);
        let mut done = write_file(self.dir(), file, value);
        if let (Err(Errno::ENOENT), Some(instead)) = (done, &wish.instead) {
            (file, value) = (&instead.file, &instead.value);
            done = write_file(self.dir(), file, value);
        }
        match done {
            Ok(()) => Ok(()),
            Err(Errno::ENOENT) if wish.optional => Ok(()),
            // No limit is asked for, and without the controller there is none.
            Err(Errno::ENOENT) if value == "max" => Ok(()),
            Err(Errno::ENOENT) => Err(self.absent(&wish.field, file)),
            Err(errno) => Err(self.refused(&wish.field, file, value, errno)),
        }
    }

    /// The error for a write that the kernel refused.
    fn refused(&self, field: &str, file: &str, value: &str, errno: Errno) -> anyhow::Error {
        anyhow!(
            "{field}: write(\"{}/{file}\", {value:?}): {}{}",
            self.path.display(),
            errno.desc(),
            refusal(file, errno)
        )
    }

    /// checkBeforeUpdate (config-linux.md, "Memory"): a limit below present use would kill.
    fn check_memory(&self, writes: &[CgroupWrite]) -> Result<()> {
        let limits = writes.iter().filter(|w| w.file == "memory.max");
        for (wish, limit) in limits.filter_map(|w| Some((w, w.value.parse::<u64>().ok()?))) {
            let used = match read_file(self.dir(), "memory.current") {
                Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
                Err(Errno::ENOENT) => return Err(self.absent(&wish.field, &wish.file)),
                Err(errno) => bail!("{}: reading memory.current: {}", wish.field, errno.desc()),
            };
            ensure!(
                used <= limit,
                "{}: rejecting memory limit {limit} < usage {used} (linux.resources.memory.checkBeforeUpdate)",
                wish.field
            );
        }
        Ok(())
    }

    /// Puts the program `code` in force (`None`: all is allowed) in the place of those that are in
    /// force in this very cgroup: an earlier one of ours, or of whoever had the cgroup before.
    ///
    /// systemd's stays, which knows only how to say less. The new one comes first, so that at no
    /// moment is more allowed than by the old or the new.
    pub fn limit_devices(&self, code: Option<&[u64]>, optional: bool) -> Result<()> {
        match self.replace_devices(code) {
            Err(error) if error.errno == Errno::EPERM && optional => Ok(()),
            done => done.map_err(|error| why_no_devices(&error)),
        }
    }

    fn replace_devices(&self, code: Option<&[u64]>) -> sys::Result<()> {
        let (old, flags) = match self.is_new() {
            true => (vec![], 0),
            false => sys::bpf::attached_device_programs(self.dir())?,
        };
        // Attached alone (no flag, or one that only lets those below override it), it is replaced
        // by what is attached in the same way; beside it the kernel allows nothing else.
        let alone = !old.is_empty() && flags & sys::bpf::BPF_F_ALLOW_MULTI == 0;
        let flags = if alone {
            flags
        } else {
            sys::bpf::BPF_F_ALLOW_MULTI
        };
        if let Some(code) = code {
            let program = sys::bpf::load_device_program(code)?;
            sys::bpf::attach_device_program(self.dir(), program.as_fd(), flags)?;
            if alone {
                return Ok(());
            }
        }
        for old in old.iter().filter(|old| old.name != SYSTEMDS_PROGRAM) {
            match sys::bpf::detach_device_program(self.dir(), old.program.as_fd()) {
                // Somebody else was faster.
                Err(error) if error.errno != Errno::ENOENT => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// [`Cgroup::create`] made it: nobody can have left anything in it.
    fn is_new(&self) -> bool {
        self.made.last().is_some_and(|made| *made == self.path)
    }

    /// The error for a file that is not there.
    fn absent(&self, field: &str, file: &str) -> anyhow::Error {
        let controller = file.split('.').next().unwrap_or(file);
        let Some(why) = self.why_absent(controller) else {
            let but = match controller {
                "cgroup" => String::new(),
                _ => format!("controller {controller:?} is enabled, but "),
            };
            let path = self.path.display();
            return anyhow!("{field}: {file} can't be set: {but}this kernel has no {path}/{file}");
        };
        // runc's words, which engines look for.
        let subject = if field.starts_with("linux.resources.unified") {
            format!("unified resource {file:?}")
        } else {
            file.to_string()
        };
        anyhow!("{field}: {subject} can't be set: controller {controller:?} not available: {why}")
    }

    /// Why this cgroup has not got `controller`; `None` when it has. For messages only, so by path.
    fn why_absent(&self, controller: &str) -> Option<String> {
        let has = |dir: &Path, file: &str| {
            fs::read_to_string(dir.join(file)).is_ok_and(|t| has_word(&t, controller))
        };
        if controller == "cgroup" || has(&self.path, "cgroup.controllers") {
            return None;
        }
        let is_cgroup = |dir: &&Path| dir.join("cgroup.controllers").exists();
        let mut line: Vec<&Path> = self.path.ancestors().take_while(is_cgroup).collect();
        line.reverse();
        let Some(top) = line.first().filter(|top| !has(top, "cgroup.controllers")) else {
            let stops = line
                .iter()
                .find(|dir| !has(dir, "cgroup.subtree_control"))?;
            return Some(why_not_enabled(stops, controller));
        };
        let v1 = if controller == "io" {
            "blkio"
        } else {
            controller
        };
        let cgroups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        Some(match hierarchy(&cgroups, v1) {
            Some(0) => format!(
                "{} does not offer it: nothing above hands it down to this mount",
                top.display()
            ),
            Some(_) => format!(
                "{controller} is bound to cgroup v1 on this host: boot it with cgroup_no_v1=all \
                 (or systemd.unified_cgroup_hierarchy=1)"
            ),
            None => "this kernel has no such controller (not built in, or off by cgroup_disable=)"
                .to_string(),
        })
    }
}

/// What systemd calls the program that carries out DevicePolicy and DeviceAllow.
const SYSTEMDS_PROGRAM: &str = "sd_devices";

fn why_no_devices(error: &sys::Error) -> anyhow::Error {
    let hint = match error.errno {
        // Before kernel 5.11 programs counted against RLIMIT_MEMLOCK.
        Errno::EPERM => {
            ": limiting devices takes CAP_BPF or CAP_SYS_ADMIN in the initial user namespace \
             (before Linux 5.11 also a higher `ulimit -l`)"
        }
        Errno::ENOMEM => ": no memory for the program, or `ulimit -l` too low before Linux 5.11",
        Errno::EINVAL | Errno::ENOSYS => {
            ": the kernel needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
        }
        _ => "",
    };
    anyhow!("linux.resources.devices: {error}{hint}")
}

/// Number of the hierarchy that holds `controller` (0: v2, or none), from the text of
/// /proc/cgroups (cgroups(7)); `None` where it is unknown or disabled.
fn hierarchy(cgroups: &str, controller: &str) -> Option<u32> {
    cgroups.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, number, _count, enabled) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        (name == controller && enabled == "1").then(|| number.parse().ok())?
    })
}

/// `dir` has `controller` and does not hand it down: the kernel is asked again, for its errno.
fn why_not_enabled(dir: &Path, controller: &str) -> String {
    let busy = || {
        format!(
            "{} holds processes itself, and then hands nothing down (cgroups(7), no internal \
             processes): give a linux.cgroupsPath elsewhere",
            dir.display()
        )
    };
    let opened = openat(AT_FDCWD, dir, OFlag::O_PATH | DIRECTORY, Mode::empty());
    if opened.is_ok_and(|dir| holds_processes(dir.as_fd())) {
        return busy();
    }
    let file = dir.join("cgroup.subtree_control");
    let open = fs::OpenOptions::new().write(true).open(&file);
    let tried = open
        .and_then(|mut f| std::io::Write::write_all(&mut f, format!("+{controller}").as_bytes()));
    let errno = match tried {
        Ok(()) => return format!("{} handed it down only now: try again", dir.display()),
        Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    };
    let file = file.display();
    match errno {
        Errno::EBUSY => busy(),
        Errno::EACCES | Errno::EPERM => {
            format!("this user may not enable it in {file}: it is not delegated")
        }
        errno => format!("write(\"{file}\", \"+{controller}\"): {}", errno.desc()),
    }
}

/// What the errno of a refused write means for `file`.
fn refusal(file: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::EINVAL | Errno::ERANGE if file.starts_with("cpuset.") => {
            ": no such cpus or memory nodes, or not a list like 0-3,6"
        }
        Errno::EINVAL if file == "cpu.max" => {
            ": quota and period are microseconds, the period 1000 to 1000000, the quota at least 1000 \
             and no less than cpu.max.burst"
        }
        Errno::EINVAL if file == "cpu.weight" => {
            ": a weight is 1 to 10000, and a cgroup with cpu.idle has none"
        }
        Errno::EINVAL if file == "cpu.max.burst" => ": a burst is at most the quota",
        Errno::EINVAL | Errno::ERANGE => ": the kernel takes no such value",
        Errno::EOPNOTSUPP => ": the device or its I/O scheduler cannot do that",
        Errno::EACCES | Errno::EPERM => ": this user may not, the file is not delegated",
        Errno::EROFS => ": the cgroup2 mount is read-only",
        _ => "",
    }
}

// ---------------------------------------------------------------------------------------------
// Processes

impl Cgroup {
    /// Kills every process in it and below, without waiting for their end.
    pub fn kill(&self) -> Result<()> {
        match write_file(self.dir(), "cgroup.kill", "1") {
            Ok(()) | Err(Errno::ENODEV) => Ok(()),
            // KERNEL(5.14): no cgroup.kill before. EOPNOTSUPP: a threaded cgroup.
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => self.signal_all(libc::SIGKILL, true),
            Err(errno) => bail!("killing cgroup {}: {}", self.path.display(), errno.desc()),
        }
    }

    /// Sends `signal` to every process in it and below. With `hold` they are frozen meanwhile, so that
    /// none forks a child that is missed.
    pub fn signal_all(&self, signal: i32, hold: bool) -> Result<()> {
        let frozen = read_file(self.dir(), "cgroup.freeze").is_ok_and(|t| t.trim() == "1");
        // A process that will not freeze is signalled as it is: better than not at all.
        let hold = hold && !frozen && self.set_frozen(true).is_ok();
        let done = self.signal_each(signal);
        if hold {
            match write_file(self.dir(), "cgroup.freeze", "0") {
                // Emptied, it may be gone by now: systemd removes what is empty.
                Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(errno) => bail!("thawing cgroup {}: {}", self.path.display(), errno.desc()),
            }
        }
        done
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        let mut processes = vec![];
        for pid in self.pids(true)? {
            match sys::pidfd::open(pid) {
                Ok(process) => processes.push((pid, process)),
                Err(e) if e.errno == Errno::ESRCH => {}
                Err(e) => return Err(e.into()),
            }
        }
        // Before it was opened, a number may have become another process's, which is not listed here.
        let listed = self.pids(true)?;
        let mut first_error = None;
        for (_, process) in processes.iter().filter(|(pid, _)| listed.contains(pid)) {
            match sys::pidfd::send_signal(process.as_fd(), signal) {
                Err(e) if e.errno != Errno::ESRCH => first_error = first_error.or(Some(e)),
                _ => {}
            }
        }
        match first_error {
            Some(error) => Err(error).with_context(|| format!("cgroup {}", self.path.display())),
            None => Ok(()),
        }
    }

    /// The processes in it, and with `recursive` in those below; none where it has gone.
    /// Those outside the caller's pid namespace have no pid here and are left out.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        if recursive {
            return pids_below(self.dir());
        }
        let mut pids = vec![];
        pids_in(self.dir(), &mut pids)?;
        Ok(pids)
    }

    /// Are all its processes stopped by the freezer? `false` where it has gone.
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(self.event("frozen")?.as_deref() == Some("1"))
    }

    /// Are there processes in it or below, zombies not counted? `false` where it has gone.
    pub fn populated(&self) -> Result<bool> {
        Ok(self.event("populated")?.as_deref() == Some("1"))
    }

    /// Freezes it and waits until every process stands still; or lets it go on.
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        let set = |value| write_file(self.dir(), "cgroup.freeze", value);
        let path = self.path.display();
        set(if frozen { "1" } else { "0" }).map_err(|errno| {
            anyhow!(
                "{} cgroup {path}: {}",
                if frozen { "freezing" } else { "thawing" },
                errno.desc()
            )
        })?;
        if frozen && !self.wait_for("frozen", "1", PATIENCE)? {
            // Half a pause is none.
            let _ = set("0");
            bail!(
                "freezing cgroup {path}: after {} s some process still does not stop (state D in ps?): thawed again",
                PATIENCE.as_secs()
            );
        }
        Ok(())
    }

    /// Waits until its processes go on after [`Cgroup::set_frozen`]`(false)`: `false` when they
    /// still stand, because a cgroup above is frozen.
    pub fn wait_until_thawed(&self) -> Result<bool> {
        self.wait_for("frozen", "0", PATIENCE)
    }

    /// Waits until no process is left in it or below: `false` when `limit` passes first.
    pub fn wait_until_empty(&self, limit: Duration) -> Result<bool> {
        self.wait_for("populated", "0", limit)
    }

    fn event(&self, key: &str) -> Result<Option<String>> {
        match read_file(self.dir(), "cgroup.events") {
            Ok(text) => Ok(value_of(&text, key).map(str::to_owned)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => bail!(
                "reading {}/cgroup.events: {}",
                self.path.display(),
                errno.desc()
            ),
        }
    }

    /// Waits until cgroup.events says `key value`: `false` when `limit` passes first. Where the
    /// cgroup goes meanwhile, there is nothing more to wait for: `true`.
    fn wait_for(&self, key: &str, value: &str, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let failed = |e: Errno| {
            anyhow!(
                "watching {}/cgroup.events: {}",
                self.path.display(),
                e.desc()
            )
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = match openat(self.dir(), "cgroup.events", flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(true),
            Err(errno) => return Err(failed(errno)),
        };
        loop {
            // Reading arms the next notification, so none between reading and polling is lost.
            let mut text = [0; 256];
            let length = match pread(&file, &mut text, 0) {
                Ok(length) => length,
                Err(Errno::ENODEV) => return Ok(true),
                Err(errno) => return Err(failed(errno)),
            };
            if value_of(&String::from_utf8_lossy(&text[..length]), key) == Some(value) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // A millisecond is the finest poll(2) knows: 0 would spin.
            let left = left.max(Duration::from_millis(1));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)],
                timeout,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

/// The value of `key` in lines of `key value`.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|l| l.split_once(' '));
    lines.find(|(k, _)| *k == key).map(|(_, value)| value)
}

fn pids_below(dir: BorrowedFd<'_>) -> Result<Vec<i32>> {
    let mut pids = vec![];
    pids_in(dir, &mut pids)?;
    for_each_child(dir, &mut |_, child| {
        pids.extend(pids_below(child)?);
        Ok(())
    })?;
    Ok(pids)
}

fn pids_in(dir: BorrowedFd<'_>, pids: &mut Vec<i32>) -> Result<()> {
    let text = match read_file(dir, "cgroup.procs") {
        Ok(text) => text,
        // Gone; or threaded, and its processes are listed by the cgroup that roots the threads.
        Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP) => return Ok(()),
        Err(errno) => bail!("reading cgroup.procs: {}", errno.desc()),
    };
    pids.extend(
        text.lines()
            .filter_map(|l| l.parse().ok())
            .filter(|&pid: &i32| pid > 0),
    );
    Ok(())
}

/// Calls `act` with name and descriptor of each cgroup directly below `dir`.
fn for_each_child(
    dir: BorrowedFd<'_>,
    act: &mut dyn FnMut(&std::ffi::CStr, BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | DIRECTORY;
    let failed = |e: Errno| anyhow!("listing a cgroup: {}", e.desc());
    let mut list = match Dir::openat(dir, ".", flags, Mode::empty()) {
        Ok(list) => list,
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    };
    for entry in list.iter() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let name = entry.file_name();
        if entry.file_type() != Some(Type::Directory) || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match openat(dir, name, flags, Mode::empty()) {
            Ok(child) => act(name, child.as_fd())?,
            Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------
// The end

impl Cgroup {
    /// Removes it with every cgroup made inside, waiting for processes that are dying. One that
    /// has gone already is fine; processes that stay are an error.
    pub fn remove(&self) -> Result<()> {
        let path = self.path.display();
        let deadline = Instant::now() + PATIENCE;
        // A container may make new cgroups as fast as old ones are removed, but only while it has
        // processes: after the first wait it has none.
        for _ in 0..8 {
            match unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
                Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
                Err(errno) => bail!(
                    "removing cgroup {path}: {}{}",
                    errno.desc(),
                    why_refused(errno)
                ),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.wait_until_empty(left)? {
                let pids = self.pids(true)?;
                bail!(
                    "removing cgroup {path}: processes {pids:?} are still in it: kill them first"
                );
            }
            remove_below(self.dir())?;
        }
        bail!(
            "removing cgroup {path}: still busy without a process in it: is something mounted on it?"
        )
    }
}

/// Removes the cgroups below `dir`, deepest first, as far as they let it.
fn remove_below(dir: BorrowedFd<'_>) -> Result<()> {
    for_each_child(dir, &mut |name, child| {
        remove_below(child)?;
        // Busy or gone: the removal of the whole finds out.
        let _ = unlinkat(dir, name, UnlinkatFlags::RemoveDir);
        Ok(())
    })
}

// ---------------------------------------------------------------------------------------------
// Files of a cgroup

/// The whole of a file of the cgroup `dir`.
fn read_file(dir: BorrowedFd<'_>, file: &str) -> nix::Result<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = openat(dir, file, flags, Mode::empty())?;
    let mut text = vec![];
    let mut part = [0; 4096];
    loop {
        let length = read(&file, &mut part)?;
        text.extend_from_slice(&part[..length]);
        // The kernel fills what it can: a short answer is the end, which saves a call.
        // cgroup.procs is cut at whole lines, so only an empty answer ends what was long.
        if length == 0 || (text.len() == length && length < 1024) {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

/// Writes `value` into a file of the cgroup `dir`, in one write(2): the kernel takes each as one
/// order.
fn write_file(dir: BorrowedFd<'_>, file: &str, value: &str) -> nix::Result<()> {
    // The plan has no such name; should a caller's have one, it must not lead out of the cgroup.
    if file.contains('/') {
        return Err(Errno::EINVAL);
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = openat(dir, file, flags, Mode::empty())?;
    match write(&file, value.as_bytes())? {
        n if n == value.len() => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_missing_only_as_a_whole_word() {
        for (all, have, expected) in [
            ("", "", vec![]),
            ("cpu io memory\n", "memory cpu io\n", vec![]),
            ("cpu cpuset\n", "cpuset\n", vec!["cpu"]),
            (
                "cpuset cpu io memory hugetlb pids rdma misc\n",
                "cpu memory pids\n",
                vec!["cpuset", "io", "hugetlb", "rdma", "misc"],
            ),
        ] {
            assert_eq!(missing(all, have), expected);
        }
    }

    #[test]
    fn a_way_over_dotdot_is_found_whatever_is_renamed_meanwhile() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let top = std::env::temp_dir().join(format!("sc-dotdot-{}", std::process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        let dir = fs::File::open(&top).unwrap();
        let done = AtomicBool::new(false);
        let opened = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(top.join("a/b"), top.join("a/c")).unwrap();
                    fs::rename(top.join("a/c"), top.join("a/b")).unwrap();
                }
            });
            let way = Path::new("a/../a/../a");
            let opened = (0..20_000).try_for_each(|_| open_below(dir.as_fd(), way).map(drop));
            let out = open_below(dir.as_fd(), Path::new("a/../..")).map(drop);
            done.store(true, Ordering::Relaxed);
            [opened, out]
        });
        fs::remove_dir_all(&top).unwrap();
        assert_eq!(opened, [Ok(()), Err(Errno::EXDEV)]);
    }

    #[test]
    fn events_are_read_by_their_key() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(value_of(text, "populated"), Some("1"));
        assert_eq!(value_of(text, "frozen"), Some("0"));
        assert_eq!(value_of(text, "pop"), None);
        assert_eq!(value_of("", "frozen"), None);
    }

    #[test]
    fn proc_cgroups_tells_who_holds_a_controller() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                    cpu\t1\t2\t1\nblkio\t7\t1\t1\nhugetlb\t0\t3\t1\nmemory\t0\t9\t0\n";
        assert_eq!(hierarchy(text, "cpu"), Some(1));
        assert_eq!(hierarchy(text, "blkio"), Some(7));
        assert_eq!(hierarchy(text, "hugetlb"), Some(0));
        assert_eq!(hierarchy(text, "memory"), None, "disabled");
        assert_eq!(hierarchy(text, "rdma"), None, "unknown");
    }

    #[test]
    fn a_path_that_is_no_cgroup_is_not_taken_for_one() {
        let error = Cgroup::open(Path::new("/proc/self")).unwrap_err();
        assert!(
            format!("{error:#}").starts_with("opening cgroup /proc/self: "),
            "{error:#}"
        );
        let error = Cgroup::open(Path::new("/")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "/ is no cgroup: no cgroup2 file system is mounted there"
        );
        assert!(
            Cgroup::open(Path::new("/no/such/cgroup"))
                .unwrap()
                .is_none()
        );
    }
}
