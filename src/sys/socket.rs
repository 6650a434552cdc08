//! Unix sockets that carry descriptors (unix(7), SCM_RIGHTS).

use super::error::{Call, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// A connected pair that keeps message boundaries and tells when the other end is gone.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd)> {
    nix::sys::socket::socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .call("socketpair", || "AF_UNIX, SOCK_SEQPACKET".to_owned())
}

/// A stream connection to the socket at `path`.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let socket = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .call("socket", || "AF_UNIX, SOCK_STREAM".to_owned())?;
    let address = UnixAddr::new(path).call("connect", || format!("{path:?}"))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)
        .call("connect", || format!("{path:?}"))?;
    Ok(socket)
}

/// Sends one message, with `fd` riding along. EPIPE, not SIGPIPE, when nobody is there.
pub fn send(socket: BorrowedFd, bytes: &[u8], fd: Option<BorrowedFd>) -> Result<()> {
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = raw.as_ref().map(|raw| ControlMessage::ScmRights(raw));
    loop {
        let sent = nix::sys::socket::sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            rights.as_slice(),
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        match sent {
            Err(nix::errno::Errno::EINTR) => {}
            other => {
                return other
                    .map(drop)
                    .call("sendmsg", || socket.as_raw_fd().to_string());
            }
        }
    }
}

/// Sends one message with plain write(2). SIGPIPE when nobody is there.
pub fn write(socket: BorrowedFd, bytes: &[u8]) -> Result<()> {
    loop {
        match nix::unistd::write(socket, bytes) {
            Err(nix::errno::Errno::EINTR) => {}
            other => {
                return other
                    .map(drop)
                    .call("write", || socket.as_raw_fd().to_string());
            }
        }
    }
}

/// Receives one message with plain read(2): its length, 0 when the other end is closed.
pub fn read(socket: BorrowedFd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(socket, buffer) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.call("read", || socket.as_raw_fd().to_string()),
        }
    }
}

/// Receives one message into `buffer`: its length (0: the other end is closed) and the descriptor
/// it brought.
pub fn receive(socket: BorrowedFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    loop {
        let mut space = nix::cmsg_space!([libc::c_int; 1]);
        let mut slices = [IoSliceMut::new(buffer)];
        let received = nix::sys::socket::recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match received {
            // ECONNRESET: the other end was closed with something of ours unread. It is said once, and
            // what the other end had said before is still there (unix(7)).
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => continue,
            other => other.call("recvmsg", || socket.as_raw_fd().to_string())?,
        };
        let mut fd = None;
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for raw in fds {
                    // SAFETY: the kernel has just made this descriptor for this process; it is owned once. Of
                    // several (one is expected) the last stays, the others are closed.
                    fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        return Ok((message.bytes, fd));
    }
}

/// Is there a message, or the end, so that [`receive`] would not wait?
pub fn is_readable(socket: BorrowedFd) -> Result<bool> {
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    let ready =
        poll(&mut fds, PollTimeout::ZERO).call("poll", || socket.as_raw_fd().to_string())?;
    Ok(ready > 0)
}

/// A socket at `path` that takes connections which keep message boundaries; asking it never blocks.
pub fn listen_for_packets(path: &Path) -> Result<OwnedFd> {
    use nix::sys::socket::{Backlog, bind, listen, socket};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .call("socket", || "AF_UNIX, SOCK_SEQPACKET".to_owned())?;
    let address = UnixAddr::new(path).call("bind", || format!("{path:?}"))?;
    bind(socket.as_raw_fd(), &address).call("bind", || format!("{path:?}"))?;
    listen(&socket, Backlog::MAXCONN).call("listen", || format!("{path:?}"))?;
    Ok(socket)
}

/// The next connection, which does not block; `None`: nobody waits.
pub fn accept(listener: BorrowedFd) -> Result<Option<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    match nix::sys::socket::accept4(listener.as_raw_fd(), flags) {
        // SAFETY: the kernel has just made this descriptor for this process.
        Ok(raw) => Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) })),
        Err(nix::errno::Errno::EAGAIN) => Ok(None),
        // It hung up before it was its turn, or a signal came: the next poll tells of the rest.
        Err(nix::errno::Errno::ECONNABORTED | nix::errno::Errno::EINTR) => Ok(None),
        Err(e) => Err(e).call("accept4", || listener.as_raw_fd().to_string()),
    }
}
