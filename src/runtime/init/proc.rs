//! Writes into procfs that somebody's security rests on: kernel parameters (linux.sysctl) and
//! labels (process.apparmorProfile, process.selinuxLabel).

use crate::sys::{self, Call, mount::FsContext};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use std::os::fd::{AsFd, OwnedFd};

/// The root directory of a procfs that nobody can have put anything over: what an image, a volume
/// or another container mounts on /proc cannot stand in for it (CVE-2019-16884, CVE-2019-19921,
/// CVE-2023-28642, CVE-2025-52881).
pub struct Proc(OwnedFd);

impl Proc {
    /// An instance of our own, attached nowhere. Must be made while the host's /proc is still in
    /// sight: in a user namespace the kernel allows a new one only then, and otherwise the one that
    /// is there has to do.
    pub fn open() -> Result<Self> {
        let fs = FsContext::open("proc")?;
        match fs.create() {
            Ok(()) => {}
            Err(e) if e.errno == Errno::EPERM => return Self::of_namespace(),
            Err(e) => return Err(e.into()),
        }
        Ok(Proc(fs.mount(
            libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        )?))
    }

    /// /proc as it is mounted, if that is a procfs from its root on. What is mounted below it is
    /// refused when a file is opened.
    fn of_namespace() -> Result<Self> {
        /// Of every procfs (PROC_ROOT_INO of the kernel): a directory of it bound over /proc has
        /// another.
        const ROOT_INODE: u64 = 1;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let proc = nix::fcntl::open("/proc", flags, Mode::empty())
            .call("open", || "\"/proc\"".to_owned())?;
        let kind = fstatfs(&proc).call("fstatfs", || "\"/proc\"".to_owned())?;
        let stat = nix::sys::stat::fstat(&proc).call("fstat", || "\"/proc\"".to_owned())?;
        if kind.filesystem_type() != PROC_SUPER_MAGIC || stat.st_ino != ROOT_INODE {
            bail!("/proc is not a proc file system: refusing to write kernel parameters or labels");
        }
        Ok(Proc(proc))
    }

    /// `path` is below /proc/sys, with slashes.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let below = format!("sys/{path}");
        self.write(&below, value, ResolveFlag::RESOLVE_NO_SYMLINKS)
            .with_context(|| format!("linux.sysctl[{:?}]", path.replace('/', ".")))
    }

    /// `name` is below /proc/thread-self/attr; the kernel lets a thread write only its own.
    pub fn set_attribute(&self, name: &str, value: &str) -> sys::Result<()> {
        // thread-self is a link, made by the kernel for whoever asks.
        let below = format!("thread-self/attr/{name}");
        self.write(&below, value, ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    /// What [`set_attribute`](Self::set_attribute) sets, or stands beside it.
    pub fn attribute(&self, name: &str) -> sys::Result<String> {
        let below = format!("thread-self/attr/{name}");
        let file = self.open_file(&below, OFlag::O_RDONLY, ResolveFlag::RESOLVE_NO_MAGICLINKS)?;
        let text = sys::file::read_rest(file.as_fd())?;
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }

    fn write(&self, below: &str, value: &str, links: ResolveFlag) -> sys::Result<()> {
        let file = self.open_file(below, OFlag::O_WRONLY, links)?;
        nix::unistd::write(&file, value.as_bytes())
            .call("write", || format!("\"/proc/{below}\", {value:?}"))
            .map(drop)
    }

    fn open_file(&self, below: &str, flags: OFlag, links: ResolveFlag) -> sys::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | links);
        nix::fcntl::openat2(self.0.as_fd(), below, how)
            .call("openat2", || format!("\"/proc/{below}\""))
    }
}
