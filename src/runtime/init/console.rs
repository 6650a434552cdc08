//! The container's terminal: a pty of its own devpts, /dev/console, and the process's stdio.

use super::devices;
use super::inside::{self, Missing};
use crate::sys::{self, Call};
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, major};
use nix::unistd::{Gid, Uid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A new pty: its master and its slave, of the devpts at /dev/pts of the container.
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Pty {
    /// Opened without following a link, and the device checked: the image may hold anything there.
    pub fn open(root: BorrowedFd) -> Result<Self> {
        let path = Path::new("/dev/pts/ptmx");
        let master = inside::open_no_links(root, path, OFlag::O_RDWR | OFlag::O_NOCTTY)
            .context("process.terminal needs a devpts file system mounted at /dev/pts")?;
        let stat = inside::stat_fd(master.as_fd())?;
        // 5:2 is /dev/ptmx, whoever made the node.
        let is_ptmx = inside::kind_of(&stat) == SFlag::S_IFCHR
            && stat.st_rdev == nix::sys::stat::makedev(5, 2);
        if !is_ptmx {
            bail!("/dev/pts/ptmx of the container is not a pty multiplexer (5:2)");
        }
        let slave = sys::tty::open_slave(master.as_fd())?;
        Ok(Pty { master, slave })
    }

    /// Size and owner.
    pub fn set_up(&self, size: Option<(u16, u16)>, uid: u32) -> Result<()> {
        if let Some((rows, columns)) = size {
            sys::tty::set_size(self.slave.as_fd(), rows, columns).context("process.consoleSize")?;
        }
        nix::unistd::fchown(&self.slave, Some(Uid::from_raw(uid)), None::<Gid>)
            .call("fchown", || format!("pty, {uid}"))?;
        Ok(())
    }

    /// /dev/console is this pty: bound by descriptor, over a file that is no link (CVE-2025-52565,
    /// CVE-2026-88264).
    pub fn become_console(&self, root: BorrowedFd) -> Result<()> {
        let dev =
            inside::open_no_links(root, Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY)
                .context("/dev/console")?;
        let target =
            match inside::open_no_links(dev.as_fd(), Path::new("console"), OFlag::O_PATH) {
                Err(e) if e.errno == nix::errno::Errno::ENOENT => {
                    inside::open_or_make(dev.as_fd(), Path::new("console"), Missing::File)
                }
                other => other,
            }
            .context("/dev/console")?;
        let tree = sys::mount::clone_tree_at(self.slave.as_fd(), false).context("/dev/console")?;
        sys::mount::attach(tree.as_fd(), target.as_fd()).context("/dev/console")
    }

    /// The slave becomes controlling terminal and stdio. The session must be new (setsid(2)).
    pub fn become_stdio(&self) -> Result<()> {
        sys::tty::set_controlling(self.slave.as_fd())?;
        let slave = self.slave.as_fd();
        nix::unistd::dup2_stdin(slave).call("dup2", || "0".to_owned())?;
        nix::unistd::dup2_stdout(slave).call("dup2", || "1".to_owned())?;
        Ok(nix::unistd::dup2_stderr(slave).call("dup2", || "2".to_owned())?)
    }
}

/// Without a terminal: stdio that is the host's /dev/null becomes the container's, and pipes are
/// given to the process's user, so that it may reopen /dev/stdout (as runc does).
pub fn adopt_stdio(root: BorrowedFd, uid: u32) -> Result<()> {
    let mut null = None;
    for fd in stdio() {
        let Ok(stat) = inside::stat_fd(fd) else {
            // A closed descriptor is the caller's affair.
            continue;
        };
        if devices::says_null(&stat) {
            replace_with_null(root, fd, &mut null)?;
        } else if stat.st_uid != uid && !is_memory_device(&stat) {
            // A file system that does not allow it (EPERM, EROFS, EINVAL) leaves it as it was.
            let _ = nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>);
        }
    }
    Ok(())
}

/// /dev/zero and its like: everybody's, and not to be given away.
fn is_memory_device(stat: &FileStat) -> bool {
    inside::kind_of(stat) == SFlag::S_IFCHR && major(stat.st_rdev) == 1
}

fn stdio() -> [BorrowedFd<'static>; 3] {
    sys::process::stdio()
}

fn replace_with_null(root: BorrowedFd, fd: BorrowedFd, null: &mut Option<OwnedFd>) -> Result<()> {
    if null.is_none() {
        let path = Path::new("/dev/null");
        match inside::open_no_links(root, path, OFlag::O_RDWR | OFlag::O_NOCTTY) {
            // Only the true device; else the host's harmless one stays (CVE-2026-88265).
            Ok(own) if devices::is_null(own.as_fd())? => *null = Some(own),
            _ => return Ok(()),
        }
    }
    if let Some(null) = null {
        sys::process::duplicate_over(null.as_fd(), fd)?;
    }
    Ok(())
}
