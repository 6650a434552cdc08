//! The outer end of a container's terminal: handed to an engine's console socket, or relayed to the
//! terminal that `run` was called from.

use crate::sys;
use anyhow::{Context, Result};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Sends the master to the console socket (runc's terminals document, "detached"): one message,
/// SCM_RIGHTS, with the path of the pty's multiplexer as its text.
pub fn send_master(socket: BorrowedFd, master: BorrowedFd) -> Result<()> {
    sys::socket::send(socket, b"/dev/ptmx", Some(master)).context("send the terminal")
}

/// Sends the pidfd of init (`--pidfd-socket`).
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd) -> Result<()> {
    let socket = sys::socket::connect(path).context("--pidfd-socket")?;
    sys::socket::send(socket.as_fd(), b"pidfd", Some(pidfd)).context("--pidfd-socket")
}

/// The caller's terminal while a container has it: raw, and as it was when dropped.
pub struct Raw {
    tty: OwnedFd,
    before: Termios,
}

impl Raw {
    /// `None` when `fd` is no terminal.
    pub fn enter(fd: BorrowedFd) -> Result<Option<Self>> {
        let Ok(before) = tcgetattr(fd) else {
            return Ok(None);
        };
        let tty = fd.try_clone_to_owned()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&tty, SetArg::TCSANOW, &raw).context("set the terminal raw")?;
        Ok(Some(Raw { tty, before }))
    }

    /// Gives the container's terminal the size of this one.
    pub fn copy_size_to(&self, master: BorrowedFd) {
        // A terminal that has no size (a serial line) leaves the other as it is.
        if let Ok((rows, columns)) = sys::tty::size(self.tty.as_fd()) {
            let _ = sys::tty::set_size(master, rows, columns);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that went away needs no restoring.
        let _ = tcsetattr(&self.tty, SetArg::TCSANOW, &self.before);
    }
}
