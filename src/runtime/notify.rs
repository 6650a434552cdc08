//! How does a container that is a service of systemd say that it is ready (sd_notify(3))?
//!
//! A caller with `$NOTIFY_SOCKET` gets what runc gives: the container sees a directory of its own at
//! /run/notify, and `$NOTIFY_SOCKET` in it. Whoever starts the container makes that socket, waits until
//! the program has said `READY=1` through it, and passes on that alone, with the container's first
//! process as `MAINPID`: what else a container says is no matter of the host's service manager.

use crate::runtime::log;
use crate::runtime::plan::notify::SOCKET;
use crate::sys::{self, Call};
use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// In the container's state directory.
pub const DIRECTORY: &str = "notify";

/// How long the service manager may take to hear who speaks (sd_notify_barrier(3): systemd-notify's).
const BARRIER: Duration = Duration::from_secs(5);

/// The longest message that is heard: there is no reason for a longer one.
const LONGEST: usize = 4096;

/// The caller's service manager listens there, if there is one.
pub fn asked() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
}

/// The socket of a container that is about to be started.
pub struct Proxy {
    inside: UnixDatagram,
    outside: OwnedFd,
}

impl Proxy {
    /// Makes it in the container's state directory `dir`, which has [`DIRECTORY`].
    pub fn new(dir: BorrowedFd, manager: &OsString) -> Result<Proxy> {
        // The way through the descriptor is short: an address has no room for a long one (unix(7)).
        let place = format!("/proc/self/fd/{}/{DIRECTORY}/{SOCKET}", dir.as_raw_fd());
        // Of a `start` that failed or was killed; the lock is ours.
        match std::fs::remove_file(&place) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).context(place),
            _ => {}
        }
        let inside = UnixDatagram::bind(&place).with_context(|| {
            format!("NOTIFY_SOCKET: make the container's socket {DIRECTORY}/{SOCKET}")
        })?;
        // Whoever the container's program is.
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777))?;
        let outside = UnixDatagram::unbound()?;
        let reached = address(manager).and_then(|address| outside.connect_addr(&address));
        reached.with_context(|| format!("NOTIFY_SOCKET={}", manager.display()))?;
        Ok(Proxy {
            inside,
            outside: outside.into(),
        })
    }

    /// Returns when the container's program has said that it is ready, or `init` has ended.
    pub fn serve(&self, pid: i32, init: BorrowedFd) -> Result<()> {
        let mut buffer = [0; LONGEST];
        loop {
            let mut fds = [
                PollFd::new(self.inside.as_fd(), PollFlags::POLLIN),
                PollFd::new(init, PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.call("poll", String::new)?,
            };
            let [heard, _ended] = fds.map(|fd| fd.any().unwrap_or(false));
            if !heard {
                return Ok(());
            }
            let length = self.inside.recv(&mut buffer)?;
            if is_ready(&buffer[..length]) {
                return self.tell(pid);
            }
        }
    }

    /// The service's main process first: from then on the manager listens to it.
    fn tell(&self, pid: i32) -> Result<()> {
        let outside = self.outside.as_fd();
        let said = format!("READY=1\nMAINPID={pid}\n");
        sys::socket::send(outside, said.as_bytes(), None).context("NOTIFY_SOCKET: READY=1")?;
        // We may end at once; what we said is only believed as long as it is known who we are.
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).call("pipe2", String::new)?;
        sys::socket::send(outside, b"BARRIER=1", Some(write.as_fd()))
            .context("NOTIFY_SOCKET: BARRIER=1")?;
        drop(write);
        let limit = PollTimeout::try_from(BARRIER).unwrap_or(PollTimeout::MAX);
        let gone = poll(&mut [PollFd::new(read.as_fd(), PollFlags::empty())], limit)
            .call("poll", String::new)?;
        ensure!(
            gone > 0,
            "NOTIFY_SOCKET: the service manager did not take our message within {BARRIER:?}"
        );
        Ok(())
    }

    /// As [`serve`](Self::serve), where nobody is left to act on a failure: it is logged.
    pub fn serve_or_warn(&self, pid: i32, init: BorrowedFd) {
        if let Err(e) = self.serve(pid, init) {
            log::warn(format!("{e:#}"));
        }
    }
}

/// A path, or with `@` before it a name of the abstract namespace (sd_notify(3)).
fn address(manager: &OsString) -> std::io::Result<SocketAddr> {
    match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(manager),
    }
}

fn is_ready(message: &[u8]) -> bool {
    message
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn ready_is_a_line_of_its_own() {
        for (message, ready) in [
            ("READY=1", true),
            ("STATUS=up\nREADY=1\n", true),
            ("READY=0", false),
            ("STATUS=READY=1", false),
            ("", false),
        ] {
            assert_eq!(is_ready(message.as_bytes()), ready, "{message:?}");
        }
    }

    #[test]
    fn a_managers_address_is_a_path_or_a_name() {
        let path = address(&"/run/systemd/notify".into()).unwrap();
        assert_eq!(
            path.as_pathname().unwrap(),
            Path::new("/run/systemd/notify")
        );
        let name = address(&"@here".into()).unwrap();
        assert_eq!(name.as_abstract_name().unwrap(), b"here");
        assert!(address(&format!("/{}", "x".repeat(200)).into()).is_err());
    }
}
