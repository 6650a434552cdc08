//! All that parent and init say to each other between clone and exec.
//!
//! ```text
//!  parent                               init
//!    │  clone3 ───────────────────────▶ │
//!    │ ◀────────────── Child + pidfd ── │   only when a joiner made it (CloneRoute::Joiner)
//!    │  Mapped ───────────────────────▶ │   only with a new user namespace: id maps are written
//!    │                                  │   mounts, devices
//!    │ ◀─────────────────────── Hooks ─ │   only with prestart or createRuntime hooks
//!    │  Go ───────────────────────────▶ │   they are done
//!    │                                  │   pivot_root, identity, argv[0] found
//!    │ ◀──────────────── Console + fd ─ │   only with a terminal: the pty's master
//!    │ ◀─────────────────────── Ready ─ │   all but exec is done; limits and record are the parent's
//!    │  Go ───────────────────────────▶ │   `run`: start now; said long before Ready if the parent has
//!    │                                  │   no more to do. `create`: the fifo says so, later
//!    │ ◀──────────────── end of file ── │   exec has closed the socket
//! ```
//!
//! For `exec` there is only `Console`, then the end of file: nothing waits for the parent.
//!
//! At any time init may say `Failed { why }` and end. End of file before `Ready` means that it died.
//! The socket keeps message boundaries (SOCK_SEQPACKET); a message is one tag byte and its payload.

use crate::sys;
use anyhow::{Context, Result, bail};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest message: an error text is cut to fit.
const LONGEST: usize = 16 * 1024;

/// What init says.
#[derive(Debug)]
pub enum FromInit {
    /// A joiner has made init.
    Child { pidfd: OwnedFd },
    /// The mounts are there, the root is not yet pivoted: hooks, please.
    Hooks,
    /// The master of the container's terminal.
    Console(OwnedFd),
    /// Only the wait for start and exec are left.
    Ready,
    /// Init gives up; nothing more will follow.
    Failed(String),
}

/// What the parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromParent {
    Mapped,
    Go,
}

const CHILD: u8 = b'c';
const HOOKS: u8 = b'h';
const CONSOLE: u8 = b't';
const READY: u8 = b'r';
const FAILED: u8 = b'f';
const MAPPED: u8 = b'm';
const GO: u8 = b'g';

/// The parent's end.
#[derive(Debug)]
pub struct ParentEnd(OwnedFd);

/// The init's end.
#[derive(Debug)]
pub struct InitEnd(OwnedFd);

/// Both ends, close-on-exec.
pub fn pair() -> Result<(ParentEnd, InitEnd)> {
    let (parent, init) = sys::socket::packet_pair()?;
    Ok((ParentEnd(parent), InitEnd(init)))
}

impl ParentEnd {
    pub fn tell(&self, message: FromParent) -> Result<()> {
        let tag = match message {
            FromParent::Mapped => MAPPED,
            FromParent::Go => GO,
        };
        sys::socket::send(self.0.as_fd(), &[tag], None).context("tell init to go on")
    }

    /// The next message; `None` when init has closed its end: it executed, or died.
    pub fn hear(&self) -> Result<Option<FromInit>> {
        let mut buffer = [0; LONGEST];
        let (length, fd) = sys::socket::receive(self.0.as_fd(), &mut buffer)?;
        let message = match (buffer[..length].split_first(), fd) {
            (None, _) => return Ok(None),
            (Some((&CHILD, _)), Some(pidfd)) => FromInit::Child { pidfd },
            (Some((&HOOKS, _)), _) => FromInit::Hooks,
            (Some((&CONSOLE, _)), Some(master)) => FromInit::Console(master),
            (Some((&READY, _)), _) => FromInit::Ready,
            (Some((&FAILED, why)), _) => {
                FromInit::Failed(String::from_utf8_lossy(why).into_owned())
            }
            (Some((tag, _)), _) => bail!("init sent a message of unknown kind {tag:#x}"),
        };
        Ok(Some(message))
    }
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl InitEnd {
    pub fn tell(&self, message: &FromInit) -> Result<()> {
        let (bytes, fd) = match message {
            FromInit::Child { pidfd } => (vec![CHILD], Some(pidfd.as_fd())),
            FromInit::Hooks => (vec![HOOKS], None),
            FromInit::Console(master) => (vec![CONSOLE], Some(master.as_fd())),
            FromInit::Ready => (vec![READY], None),
            FromInit::Failed(why) => {
                let why = why.as_bytes();
                let mut bytes = vec![FAILED];
                bytes.extend(&why[..why.len().min(LONGEST - 1)]);
                (bytes, None)
            }
        };
        match fd {
            Some(_) => sys::socket::send(self.0.as_fd(), &bytes, fd),
            // With a seccomp profile in force: every program needs write(2), few need sendmsg(2).
            None => sys::socket::write(self.0.as_fd(), &bytes),
        }
        .context("tell the runtime")
    }

    /// Waits for `expected`; a closed socket means that the runtime is gone.
    pub fn wait_for(&self, expected: FromParent) -> Result<()> {
        let mut buffer = [0; 1];
        let length = sys::socket::read(self.0.as_fd(), &mut buffer)?;
        let said = match &buffer[..length] {
            [MAPPED] => FromParent::Mapped,
            [GO] => FromParent::Go,
            [] => bail!("the runtime ended before the container was made"),
            _ => bail!("the runtime sent a message of unknown kind"),
        };
        if said != expected {
            bail!("the runtime said {said:?} where {expected:?} was due");
        }
        Ok(())
    }
}

impl AsFd for InitEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_words_and_a_closed_end_is_none() {
        let (parent, init) = pair().unwrap();
        init.tell(&FromInit::Failed("mounts[3] (/data): no".into()))
            .unwrap();
        drop(init);
        match parent.hear().unwrap() {
            Some(FromInit::Failed(why)) => assert_eq!(why, "mounts[3] (/data): no"),
            other => panic!("{other:?}"),
        }
        assert!(parent.hear().unwrap().is_none());
    }

    #[test]
    fn a_console_brings_its_descriptor() {
        let (parent, init) = pair().unwrap();
        let (end, _other) = sys::socket::packet_pair().unwrap();
        init.tell(&FromInit::Console(end)).unwrap();
        assert!(matches!(parent.hear().unwrap(), Some(FromInit::Console(_))));
    }

    #[test]
    fn init_takes_only_what_is_due() {
        let (parent, init) = pair().unwrap();
        parent.tell(FromParent::Mapped).unwrap();
        init.wait_for(FromParent::Mapped).unwrap();
        parent.tell(FromParent::Mapped).unwrap();
        assert_eq!(
            init.wait_for(FromParent::Go).unwrap_err().to_string(),
            "the runtime said Mapped where Go was due"
        );
        drop(parent);
        assert_eq!(
            init.wait_for(FromParent::Go).unwrap_err().to_string(),
            "the runtime ended before the container was made"
        );
    }
}
