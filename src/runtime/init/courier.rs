//! How does the listener of a seccomp profile come from the process that is under the profile to the
//! runtime? By a courier: a child that shares its descriptors and not its filter.
//!
//! The process itself cannot send it, as sendmsg(2) may be what the profile forbids, or what the agent
//! is to be asked about that has no listener yet. Nor can the runtime always fetch it: pidfd_getfd(2)
//! takes CAP_SYS_PTRACE over a process that is not dumpable (CVE-2016-9962), which an ordinary user
//! has not. With a courier the process needs write(2) alone.

use crate::runtime::handshake::{FromInit, InitEnd};
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpid, getppid};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// A courier that waits to be told the listener's number.
pub struct Courier {
    /// A pipe: what it hears, and what it is told by. Open until exec: what is closed here is closed
    /// there too.
    ends: ManuallyDrop<(OwnedFd, OwnedFd)>,
}

impl Courier {
    /// To be called before limits, user and profile are in force: they may forbid one more process.
    pub fn hire(end: &InitEnd) -> Result<Self> {
        // Nobody can wait for it: wait4(2) may be forbidden by then. Exec undoes this (sigaction(2)).
        sys::process::keep_zombies(false)?;
        let master = getpid();
        let (hear, tell) = nix::unistd::pipe2(OFlag::O_CLOEXEC).call("pipe2", String::new)?;
        match sys::process::clone(libc::CLONE_FILES as u64, None, false)
            .context("make a process that hands over the seccomp listener")?
        {
            Cloned::Child => {
                let done = carry(master, hear.as_fd(), end);
                if let Err(e) = &done {
                    // A runtime that is gone has nobody to tell.
                    let _ = end.tell(&FromInit::Failed(format!("linux.seccomp: {e:#}")));
                }
                sys::process::exit_now(i32::from(done.is_err()))
            }
            Cloned::Parent { pidfd, .. } => {
                end.tell(&FromInit::Courier(pidfd))?;
                let ends = ManuallyDrop::new((hear, tell));
                Ok(Courier { ends })
            }
        }
    }

    /// The listener is on its way from here on; it stays open until exec.
    pub fn take(&self, listener: OwnedFd) -> Result<()> {
        let number = listener.into_raw_fd().to_ne_bytes();
        let (_, tell) = &*self.ends;
        sys::socket::write(tell.as_fd(), &number).context("hand over the listener")
    }
}

/// The courier's life. Ends with that of its master too.
fn carry(master: Pid, hear: BorrowedFd, end: &InitEnd) -> Result<()> {
    let life = sys::pidfd::open(master.as_raw())?;
    if getppid() != master {
        return Ok(()); // it ended before we looked, and the number may be another's
    }
    let mut both = [
        PollFd::new(hear, PollFlags::POLLIN),
        PollFd::new(life.as_fd(), PollFlags::POLLIN),
    ];
    while let Err(Errno::EINTR) = poll(&mut both, PollTimeout::NONE) {}
    let told = both[0].revents().is_some_and(|events| !events.is_empty());
    if !told {
        return Ok(());
    }
    let mut number = [0; size_of::<RawFd>()];
    sys::socket::read(hear, &mut number)?;
    let listener = sys::process::copy_descriptor(RawFd::from_ne_bytes(number))?;
    end.tell(&FromInit::Listener(listener))
}
