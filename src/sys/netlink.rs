//! Questions and orders for the kernel's network configuration (netlink(7), rtnetlink(7)).
//!
//! A socket belongs to the network namespace it was opened in, for good: what is asked of it later
//! is about that namespace, wherever the caller is by then.

use super::error::{Call, Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A NETLINK_ROUTE socket.
#[derive(Debug)]
pub struct Route(OwnedFd);

/// A message of an answer: its type (RTM_*) and what follows the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Route {
    /// A socket of the network namespace that the calling thread is in.
    pub fn open() -> Result<Self> {
        open(SockProtocol::NetlinkRoute)
            .map(Route)
            .call("socket", || "AF_NETLINK, NETLINK_ROUTE".to_owned())
    }

    /// Gives an order and waits until it is carried out. `name` and `args` are for the error.
    pub fn order(
        &self,
        name: &'static str,
        args: impl Fn() -> String,
        kind: u16,
        flags: i32,
        body: &[u8],
    ) -> Result<()> {
        self.exchange(kind, libc::NLM_F_ACK | flags, body)
            .map(drop)
            .call(name, args)
    }

    /// Asks for one thing; `None` when there is no such thing.
    pub fn ask(
        &self,
        name: &'static str,
        args: impl Fn() -> String,
        kind: u16,
        body: &[u8],
    ) -> Result<Option<Message>> {
        match self.exchange(kind, libc::NLM_F_ACK, body) {
            Ok(answer) => Ok(answer.into_iter().next()),
            Err(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(errno) => Err(Error::new(name, args(), errno)),
        }
    }

    /// Everything there is of a kind (NLM_F_DUMP): RTM_GETLINK, RTM_GETADDR.
    pub fn list(&self, name: &'static str, kind: u16, body: &[u8]) -> Result<Vec<Message>> {
        loop {
            match self.exchange(kind, libc::NLM_F_DUMP, body) {
                // The list changed while it was read, and may be inconsistent: NLM_F_DUMP_INTR.
                Err(Errno::EINTR) => {}
                other => return other.call(name, || "NLM_F_DUMP".to_owned()),
            }
        }
    }

    /// One request, and its answer up to the acknowledgement or the end of the list.
    fn exchange(&self, kind: u16, flags: i32, body: &[u8]) -> nix::Result<Vec<Message>> {
        let mut request = Vec::with_capacity(HEADER + body.len());
        request.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        request.extend([0; 8]); // sequence number, port: one request at a time, to the kernel
        request.extend(body);
        retry(|| nix::sys::socket::send(self.0.as_raw_fd(), &request, MsgFlags::empty()))?;

        let mut answer = Vec::new();
        let mut changed = false;
        // The kernel fills at most 32 KiB of it (netlink_recvmsg, 6.18).
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = retry(|| {
                nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())
            })?;
            let mut rest = &buffer[..length];
            while let Some((message, flags, after)) = first(rest) {
                rest = after;
                changed |= flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        // Both begin with a negative errno, or 0.
                        return match message.body.first_chunk().map(|b| i32::from_ne_bytes(*b)) {
                            Some(errno) if errno < 0 => Err(Errno::from_raw(-errno)),
                            _ if changed => Err(Errno::EINTR),
                            _ => Ok(answer),
                        };
                    }
                    libc::NLMSG_NOOP => {}
                    _ => answer.push(message),
                }
            }
        }
    }
}

fn open(protocol: SockProtocol) -> nix::Result<OwnedFd> {
    nix::sys::socket::socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )
}

/// A socket that is told of every network device that changes or goes (RTMGRP_LINK).
pub fn watch_links() -> Result<OwnedFd> {
    let args = || "AF_NETLINK, RTMGRP_LINK".to_owned();
    let socket = open(SockProtocol::NetlinkRoute).call("socket", args)?;
    let groups = NetlinkAddr::new(0, libc::RTMGRP_LINK as u32);
    nix::sys::socket::bind(socket.as_raw_fd(), &groups).call("bind", args)?;
    Ok(socket)
}

/// The kinds (RTM_*) of what such a socket has to tell now. What was lost for want of room (ENOBUFS) is as good
/// as told: 0.
pub fn told(socket: BorrowedFd) -> Result<Vec<u16>> {
    let mut buffer = vec![0; 64 * 1024];
    let flags = MsgFlags::MSG_DONTWAIT;
    match retry(|| nix::sys::socket::recv(socket.as_raw_fd(), &mut buffer, flags)) {
        Ok(length) => {
            let (mut kinds, mut rest) = (Vec::new(), &buffer[..length]);
            while let Some((message, _, after)) = first(rest) {
                kinds.push(message.kind);
                rest = after;
            }
            Ok(kinds)
        }
        Err(Errno::EAGAIN) => Ok(Vec::new()),
        Err(Errno::ENOBUFS) => Ok(vec![0]),
        Err(errno) => Err(Error::new("recv", "RTMGRP_LINK", errno)),
    }
}

/// Does nftables have a table of the family inet with this name? Of the calling thread's network namespace.
pub fn has_table(name: &str) -> Result<bool> {
    const GETTABLE: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | libc::NFT_MSG_GETTABLE as u16;
    let socket = open(SockProtocol::NetlinkNetFilter)
        .map(Route)
        .call("socket", || "AF_NETLINK, NETLINK_NETFILTER".to_owned())?;
    // struct nfgenmsg: family, version, resource.
    let mut body = vec![libc::NFPROTO_INET as u8, 0, 0, 0];
    put(
        &mut body,
        1, /* NFTA_TABLE_NAME */
        &[name.as_bytes(), b"\0"].concat(),
    );
    let args = || format!("NFT_MSG_GETTABLE, inet {name}");
    let found = socket.ask("send", args, GETTABLE, &body)?;
    Ok(found.is_some())
}

/// The first message of `bytes`, its flags, and what comes after it.
fn first(bytes: &[u8]) -> Option<(Message, u16, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let body = bytes.get(HEADER..length)?.to_vec();
    let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
    let flags = u16::from_ne_bytes([bytes[6], bytes[7]]);
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    Some((Message { kind, body }, flags, after))
}

/// Appends an attribute (`struct rtattr`) to a message body.
pub fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((4 + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// The attributes in what follows the fixed part of a message: (IFLA_* or IFA_*, value).
pub fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        // The two highest bits say what is in it (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        all.push((u16::from_ne_bytes([head[2], head[3]]) & 0x3fff, value));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    all
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// `Error` for an answer that makes no sense.
pub fn malformed(name: &'static str) -> Error {
    Error::new(name, "an answer too short", Errno::EBADMSG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_put() {
        let mut body = Vec::new();
        put(&mut body, 3, b"eth0\0");
        put(&mut body, 28, &7i32.to_ne_bytes());
        assert_eq!(body.len(), 12 + 8);
        assert_eq!(
            attributes(&body),
            [(3, &b"eth0\0"[..]), (28, &7i32.to_ne_bytes()[..])]
        );
    }

    #[test]
    fn a_cut_message_ends_the_list() {
        assert_eq!(attributes(&[9, 0, 3, 0, b'e']), []);
        assert!(attributes(&[0, 0, 3, 0]).is_empty());
        assert_eq!(first(&[20, 0, 0, 0, 2, 0, 0, 0]), None);
    }

    #[test]
    fn every_namespace_has_a_loopback_device() {
        let links = Route::open()
            .unwrap()
            .list("RTM_GETLINK", libc::RTM_GETLINK, &[0; 16])
            .unwrap();
        let names: Vec<_> = links
            .iter()
            .flat_map(|link| attributes(&link.body[16..]))
            .filter(|(kind, _)| *kind == libc::IFLA_IFNAME)
            .map(|(_, name)| name)
            .collect();
        assert!(names.contains(&&b"lo\0"[..]), "{names:?}");
    }
}
