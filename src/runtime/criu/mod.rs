//! Who writes a running container to disk, and makes it run again: CRIU (criu.org), spoken to over a
//! socket as `criu swrk` (CRIU's rpc.proto).
//!
//! ```text
//!   sc-runtime                         criu swrk FD
//!   ───────────                        ────────────
//!   DUMP or RESTORE, with options ───▶
//!                                 ◀─── notification: something is about to happen, or has
//!        well, or not             ───▶
//!                                  …
//!                                 ◀─── success, or not
//! ```
//!
//! To restore, it runs in a mount namespace of its own: what it mounts on the way is gone with it, however
//! it ends.

pub mod external;
pub mod message;
pub mod stdio;

use crate::runtime::cli::CriuArgs;
use crate::runtime::plan::Plan;
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result, anyhow, bail};
use message::{
    Answer, CgroupMode, Kind, Message, NFTABLES, Notification, failure, field, notified, request,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::wait::waitpid;
use nix::unistd::{AccessFlags, Pid, faccessat, fchown};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest message of CRIU's that is read: an answer is a few numbers and a line.
const LONGEST: usize = 16 * 1024;

/// How long CRIU gets to end when it is done.
const PATIENCE: Duration = Duration::from_secs(10);

/// What CRIU is begun with.
pub struct Begin<'a> {
    pub folders: &'a Folders,
    /// Further descriptors it is spoken to of, by number.
    pub keep: &'a [BorrowedFd<'a>],
    /// Directory that must be a mount point for it: the root file system to restore to.
    pub root: Option<&'a Path>,
    /// Of the cgroup that it, and with it what it restores, begins in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What it restores is to have this process's terminal, which it takes from its own descriptors.
    pub own_terminal: bool,
}

/// A CRIU that waits for its order.
pub struct Criu {
    socket: OwnedFd,
    pid: Pid,
    pidfd: OwnedFd,
    log: PathBuf,
}

impl Criu {
    pub fn begin(begin: &Begin) -> Result<Criu> {
        let program = program("criu").context(
            "criu is not in $PATH: install it (Debian: the package criu; for Linux 6.x, CRIU 4 or later)",
        )?;
        let (ours, theirs) = sys::socket::packet_pair()?;
        let new = begin.root.map_or(0, |_| libc::CLONE_NEWNS as u64);
        match sys::process::clone(new, begin.cgroup, false).context("make a process for criu")? {
            Cloned::Child => {
                drop(ours);
                let why = become_it(begin, &program, theirs.as_fd());
                // Nobody who listens is left, if this fails.
                let text = format!("{why:#}");
                let _ = sys::socket::send(theirs.as_fd(), text.as_bytes(), None);
                sys::process::exit_now(1)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let pid = Pid::from_raw(pid);
                let mut why = vec![0; LONGEST];
                let (length, line) = sys::socket::receive(ours.as_fd(), &mut why)?;
                let Some(socket) = line else {
                    waitpid(pid, None).call("waitpid", || "criu".to_owned())?;
                    match length {
                        0 => bail!("criu was ended before it began"),
                        _ => bail!("{}", String::from_utf8_lossy(&why[..length])),
                    }
                };
                Ok(Criu {
                    socket,
                    pid,
                    pidfd,
                    log: begin.folders.log(),
                })
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Gives the order, and does what `notice` does at each notification, until CRIU is done. A failure
    /// of `notice` is CRIU's, and the error.
    pub fn perform(
        self,
        kind: Kind,
        options: &Message,
        notice: impl FnMut(&Notification, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        let done = self.converse(kind, options, notice);
        // Without anyone to speak to it ends, having let go of the processes that it held.
        drop(self.socket);
        if !sys::pidfd::wait(self.pidfd.as_fd(), PATIENCE)? {
            sys::pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL)?;
        }
        waitpid(self.pid, None).call("waitpid", || "criu".to_owned())?;
        done
    }

    fn converse(
        &self,
        kind: Kind,
        options: &Message,
        mut notice: impl FnMut(&Notification, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        self.say(&request(kind, options))?;
        let mut own_failure = None;
        loop {
            let (answer, fd) = match self.hear() {
                Ok(heard) => heard,
                Err(e) => {
                    return Err(own_failure.unwrap_or_else(|| with_log(&e.to_string(), &self.log)));
                }
            };
            if let Some(notification) = &answer.notification {
                let done = notice(notification, fd);
                self.say(&notified(done.is_ok()))?;
                own_failure = own_failure.or(done.err());
                continue;
            }
            if answer.success {
                return Ok(());
            }
            return Err(match own_failure {
                Some(e) => e,
                None if answer.kind == 0 => anyhow!("criu: {}", answer.why),
                None => {
                    // Its log says more than its answer.
                    let failed = format!("criu failed: type {} errno {}", name(kind), answer.errno);
                    with_log(&failed, &self.log)
                }
            });
        }
    }

    fn say(&self, message: &Message) -> Result<()> {
        sys::socket::send(self.socket.as_fd(), message.as_bytes(), None).context("speak to criu")
    }

    fn hear(&self) -> Result<(Answer, Option<OwnedFd>)> {
        let mut both = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            // What it restores may have its end of the socket, too.
            PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
        ];
        while let Err(errno) = poll(&mut both, PollTimeout::NONE) {
            if errno != Errno::EINTR {
                return Err(errno).context("poll");
            }
        }
        let mut buffer = vec![0; LONGEST];
        if both[0].any().unwrap_or(false) {
            let (length, fd) = sys::socket::receive(self.socket.as_fd(), &mut buffer)?;
            if length > 0 {
                return Ok((Answer::parse(&buffer[..length])?, fd));
            }
        }
        bail!("criu ended without an answer")
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Dump => "DUMP",
        Kind::Restore => "RESTORE",
        Kind::PreDump => "PRE_DUMP",
        Kind::Notify => "NOTIFY",
    }
}

/// A program in one of the directories of `$PATH`.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| faccessat(AT_FDCWD, file, AccessFlags::X_OK, AtFlags::empty()).is_ok())
}

/// From the clone to CRIU's first instruction. Returns why not; the parent gets its end of the line to CRIU
/// through `parent`.
fn become_it(begin: &Begin, program: &Path, parent: BorrowedFd) -> anyhow::Error {
    let prepare = || -> Result<(CString, OwnedFd)> {
        if let Some(root) = begin.root {
            // What is half restored is in the container's cgroup, to be found there. A dump goes on without
            // us: its processes must be let go of.
            sys::process::set_parent_death_signal(libc::SIGKILL)?;
            // What it mounts must not reach the host. Not private: a mount that was a slave of the host's,
            // CRIU makes one again from its source.
            sys::mount::set_propagation(Path::new("/"), libc::MS_SLAVE | libc::MS_REC)?;
            let tree = sys::mount::clone_tree(root, true)?;
            sys::mount::attach(tree.as_fd(), open(root)?.as_fd())?;
        }
        begin.folders.open_anew()?;
        // Made here: CRIU looks for the descriptors of the process that made its socket (SO_PEERCRED), and
        // ours would lead it into another mount namespace.
        let (line, theirs) = sys::socket::packet_pair()?;
        for fd in begin.keep.iter().chain([&line.as_fd()]) {
            sys::process::keep_on_exec(fd.as_raw_fd())?;
        }
        if !begin.own_terminal {
            // What its helpers say is not the container's to say.
            let nothing = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?;
            for fd in sys::process::stdio() {
                sys::process::duplicate_over(nothing.as_fd(), fd)?;
            }
        }
        sys::process::default_signals(sys::process::ignored_signals())?;
        sys::socket::send(parent, b"here", Some(theirs.as_fd()))?;
        Ok((CString::new(program.as_os_str().as_bytes())?, line))
    };
    let (program, line) = match prepare() {
        Ok(prepared) => prepared,
        Err(e) => return e.context("prepare criu"),
    };
    let text = |text: &[u8]| CString::new(text).unwrap_or_default();
    let args = [
        text(b"criu"),
        text(b"swrk"),
        text(line.as_raw_fd().to_string().as_bytes()),
    ];
    let env: Vec<_> = std::env::vars_os()
        .map(|(key, value)| text(&[key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    let refused = sys::process::exec(&program, &args, &env);
    let text = failure(&refused.to_string());
    // Nobody who listens is left, if this fails.
    let _ = sys::socket::send(line.as_fd(), text.as_bytes(), None);
    refused.into()
}

fn open(directory: &Path) -> sys::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(directory, flags, Mode::empty()).call("open", || format!("{directory:?}"))
}

/// Where CRIU reads and writes, open: it is told of descriptors.
pub struct Folders {
    pub images_path: PathBuf,
    pub images: OwnedFd,
    work_path: PathBuf,
    pub work: OwnedFd,
    log: &'static str,
}

impl Folders {
    /// For a checkpoint: made where they are missing. What is in them is a container's memory: its owner's
    /// alone.
    pub fn make(args: &CriuArgs, log: &'static str) -> Result<Folders> {
        let make = |option: &str, dir: &Path| {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("{option} {}", dir.display()))
        };
        let (images, work) = Self::paths(args)?;
        make("--image-path", &images)?;
        make("--work-path", &work)?;
        Self::open(images, work, log)
    }

    /// For a restore: the images must be there.
    pub fn find(args: &CriuArgs, log: &'static str) -> Result<Folders> {
        let (images, work) = Self::paths(args)?;
        if work != images {
            std::fs::create_dir_all(&work)
                .with_context(|| format!("--work-path {}", work.display()))?;
        }
        Self::open(images, work, log)
    }

    fn paths(args: &CriuArgs) -> Result<(PathBuf, PathBuf)> {
        let absolute =
            |path: &Path| std::path::absolute(path).with_context(|| format!("{}", path.display()));
        let images = absolute(
            args.image_path
                .as_deref()
                .unwrap_or(Path::new("checkpoint")),
        )?;
        let work = args.work_path.as_deref().map(absolute).transpose()?;
        let work = work.unwrap_or_else(|| images.clone());
        Ok((images, work))
    }

    fn open(images_path: PathBuf, work_path: PathBuf, log: &'static str) -> Result<Folders> {
        let folders = Folders {
            images: open(&images_path).context("--image-path")?,
            work: open(&work_path).context("--work-path")?,
            images_path,
            work_path,
            log,
        };
        // What it says must be of this time.
        let _ = std::fs::remove_file(folders.log());
        Ok(folders)
    }

    /// CRIU's log.
    pub fn log(&self) -> PathBuf {
        self.work_path.join(self.log)
    }

    /// Lets group `gid` of the host read the images: CRIU reads some of them when it is in the container's user
    /// namespace already, as its root, whom the owner's rights do not help there.
    pub fn share(&self, gid: u32) -> Result<()> {
        // Those of a pre-dump are in a directory of their own, which this is a link to.
        for dir in [self.images_path.clone(), self.images_path.join("parent")] {
            if dir.is_dir() {
                share(&dir, gid).with_context(|| {
                    format!(
                        "--image-path: let the container's root read {}",
                        dir.display()
                    )
                })?;
            }
        }
        Ok(())
    }

    /// For a program that is executed by this process, under the same numbers; where it works on mounts, in
    /// its own mount namespace.
    fn open_anew(&self) -> Result<()> {
        for (fd, path) in [
            (&self.images, &self.images_path),
            (&self.work, &self.work_path),
        ] {
            sys::process::duplicate_over(open(path)?.as_fd(), fd.as_fd())?;
        }
        Ok(())
    }
}

/// The owner and the rights of others stay; links in it are not followed.
fn share(dir: &Path, gid: u32) -> Result<()> {
    let give = |file: &OwnedFd, more: Mode| -> Result<()> {
        let mode = Mode::from_bits_truncate(fstat(file)?.st_mode);
        fchown(file, None, Some(gid.into()))?;
        Ok(fchmod(file, mode | more)?)
    };
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = nix::fcntl::open(&entry.path(), flags, Mode::empty())?;
            give(&file, Mode::S_IRGRP)?;
        }
    }
    give(&open(dir)?, Mode::S_IRGRP | Mode::S_IXGRP)
}

/// The file of CRIU's own options that runc has CRIU read, for what has no option here.
const CONFIG: &str = "/etc/criu/runc.conf";
/// Names another one.
const CONFIG_ANNOTATION: &str = "org.criu.config";

/// What a dump and a restore have in common.
pub fn options(args: &CriuArgs, folders: &Folders, plan: &Plan) -> Result<Message> {
    let mode = args.cgroup_mode.unwrap_or(CgroupMode::Soft);
    let mut options = Message::default();
    options
        .descriptor(field::IMAGES_DIR_FD, folders.images.as_fd())
        .descriptor(field::WORK_DIR_FD, folders.work.as_fd())
        .number(field::LOG_LEVEL, 4)
        .text(field::LOG_FILE, folders.log)
        .set(field::NOTIFY_SCRIPTS, true)
        .set(field::ORPHAN_PTS_MASTER, true)
        .set(field::MANAGE_CGROUPS, true)
        .number(field::MANAGE_CGROUPS_MODE, mode as u64)
        .set(field::TCP_ESTABLISHED, args.tcp_established)
        .set(field::EXT_UNIX_SK, args.ext_unix_sk)
        .set(field::SHELL_JOB, args.shell_job)
        .set(field::LAZY_PAGES, args.lazy_pages)
        .set(field::FILE_LOCKS, args.file_locks)
        .set(field::AUTO_DEDUP, args.auto_dedup);
    if args.empty_network {
        options.number(field::EMPTY_NS, libc::CLONE_NEWNET as u64);
    }
    // CRIU's own choice is iptables, where it is.
    if program("iptables-restore").is_none() {
        options.number(field::NETWORK_LOCK, NFTABLES);
    }
    let config = plan.annotations.get(CONFIG_ANNOTATION).map(String::as_str);
    if let Some(config) = config.or(Path::new(CONFIG).exists().then_some(CONFIG)) {
        options.text(field::CONFIG_FILE, config);
    }
    Ok(options)
}

/// A path as CRIU takes it.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{}: not UTF-8, which CRIU asks for", path.display()))
}

/// Adds to `failed` what CRIU's log has to say, and where it is.
fn with_log(failed: &str, log: &Path) -> anyhow::Error {
    let text = std::fs::read(log).unwrap_or_default();
    match reason(&String::from_utf8_lossy(&text)) {
        Some(why) => anyhow!("{failed}: {why}; log file: {}", log.display()),
        None => anyhow!("{failed}; log file: {}", log.display()),
    }
}

/// The first error in a log of CRIU's that is about a cause: those that follow it say what failed for it, and a
/// limit it cannot raise is none.
fn reason(log: &str) -> Option<String> {
    let errors = log
        .lines()
        .filter_map(|line| line.split_once("Error (")?.1.split_once("): "));
    let mut causes = errors.map(|(_, what)| what.trim()).filter(|what| {
        !["FAILED", "failed with", "RLIMIT_NOFILE for self"]
            .iter()
            .any(|w| what.contains(w))
    });
    causes.next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_in_the_log() {
        let log = "(00.03) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
                   (00.04) Warn  (criu/x.c:1): odd\n\
                   (00.17) Error (criu/files-reg.c:1790): Can't lookup mount=117 for fd=1 path=/out\n\
                   (00.18) Error (criu/cr-dump.c:1681): Dump files (pid: 23) failed with -1\n\
                   (00.24) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        assert_eq!(
            reason(log).as_deref(),
            Some("Can't lookup mount=117 for fd=1 path=/out")
        );
        assert_eq!(reason("(00.1) all is well\n"), None);
    }
}
