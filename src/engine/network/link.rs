//! How are bridges, veth pairs, addresses and routes made? By netlink (rtnetlink(7)), in few messages.

use super::address::Subnet;
use crate::sys::netlink::{Route, attributes, malformed, put};
use crate::sys::{Call, Result};
use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

/// Lengths of `struct ifinfomsg` and `struct rtmsg`.
const LINK: usize = 16;
const ROUTE: usize = 12;
/// linux/if_link.h
const IFLA_BRPORT_MODE: u16 = 4;
/// linux/veth.h
const VETH_INFO_PEER: u16 = 1;
const UP: u32 = libc::IFF_UP as u32;

/// Of a thread that does all that a container's start does to networks; what is not touched costs nothing.
const STACK: usize = 1 << 20;

/// A namespace, of the network mostly: it lives as long as someone is in it, has it open or mounted.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new one, with nothing in it.
    pub fn new() -> Result<Namespace> {
        // In a thread that ends at once: without root of the host, nobody could come back from it.
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).call("unshare", || "CLONE_NEWNET".to_owned())?;
            Namespace::open("/proc/thread-self/ns/net")
        };
        within_thread(make)
    }

    pub fn open(path: &str) -> Result<Namespace> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty());
        fd.map(Namespace).call("open", || format!("{path:?}"))
    }

    /// Mounts it at a new file.
    pub fn mount(&self, path: &Path) -> anyhow::Result<()> {
        File::create(path).with_context(|| path.display().to_string())?;
        let source = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        let none = None::<&str>;
        nix::mount::mount(Some(source.as_str()), path, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("mount a namespace at {}", path.display()))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.0.as_fd()
    }

    /// Does something in it: sockets that are opened there stay there.
    pub fn within<T: Send, E: From<crate::sys::Error> + Send>(
        &self,
        act: impl FnOnce() -> std::result::Result<T, E> + Send,
    ) -> std::result::Result<T, E> {
        within_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).call("setns", || "CLONE_NEWNET".to_owned())?;
            act()
        })
    }
}

fn within_thread<T: Send, E: From<crate::sys::Error> + Send>(
    act: impl FnOnce() -> std::result::Result<T, E> + Send,
) -> std::result::Result<T, E> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, act);
        let thread = thread.map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(libc::EAGAIN));
            crate::sys::Error::new("clone", "a thread", errno)
        })?;
        thread
            .join()
            .unwrap_or_else(|_| Err(malformed("a thread").into()))
    })
}

/// What RTM_GETLINK says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// Whose it is, in words (`ip link set alias`).
    pub alias: String,
}

/// The device of that name, if there is one.
pub fn find(route: &Route, name: &str) -> Result<Option<Link>> {
    let mut body = header(0, 0);
    put(&mut body, libc::IFLA_IFNAME, &zero_ended(name));
    let answer = route.ask("RTM_GETLINK", || name.to_owned(), libc::RTM_GETLINK, &body)?;
    let Some(answer) = answer else {
        return Ok(None);
    };
    let (fixed, rest) = answer
        .body
        .split_at_checked(LINK)
        .ok_or_else(|| malformed("RTM_GETLINK"))?;
    let alias = attributes(rest)
        .into_iter()
        .find(|(kind, _)| *kind == libc::IFLA_IFALIAS);
    Ok(Some(Link {
        index: u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        alias: alias.map_or_else(String::new, |(_, text)| words(text)),
    }))
}

/// Makes a bridge with an address of its own for good: else it is that of one of its devices, and changes with them.
pub fn make_bridge(route: &Route, name: &str, mac: [u8; 6]) -> Result<()> {
    let mut body = header(0, 0);
    put(&mut body, libc::IFLA_IFNAME, &zero_ended(name));
    put(&mut body, libc::IFLA_ADDRESS, &mac);
    let mut info = Vec::new();
    put(&mut info, libc::IFLA_INFO_KIND, b"bridge");
    put(&mut body, libc::IFLA_LINKINFO, &info);
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    order(
        route,
        "RTM_NEWLINK",
        &format!("{name}, bridge"),
        libc::RTM_NEWLINK,
        flags,
        &body,
    )
}

pub fn set_alias(route: &Route, index: u32, alias: &str) -> Result<()> {
    let mut body = header(index, 0);
    put(&mut body, libc::IFLA_IFALIAS, alias.as_bytes());
    order(route, "RTM_SETLINK", alias, libc::RTM_SETLINK, 0, &body)
}

/// A pair of devices: one at a bridge, up, the other in a namespace.
pub struct Pair<'a> {
    pub outside: &'a str,
    pub bridge: u32,
    pub namespace: BorrowedFd<'a>,
    pub inside: &'a str,
    pub mac: [u8; 6],
}

impl Pair<'_> {
    /// In one message: there is no moment in which one end lies about in the wrong place.
    pub fn make(&self, route: &Route) -> Result<()> {
        let mut body = header(0, UP);
        put(&mut body, libc::IFLA_IFNAME, &zero_ended(self.outside));
        put(&mut body, libc::IFLA_MASTER, &self.bridge.to_ne_bytes());
        // Up it can be only when the pair is one (veth_open, 6.18).
        let mut peer = header(0, 0);
        put(&mut peer, libc::IFLA_IFNAME, &zero_ended(self.inside));
        put(&mut peer, libc::IFLA_ADDRESS, &self.mac);
        let namespace = self.namespace.as_raw_fd().to_ne_bytes();
        put(&mut peer, libc::IFLA_NET_NS_FD, &namespace);
        let (mut data, mut info) = (Vec::new(), Vec::new());
        put(&mut data, VETH_INFO_PEER, &peer);
        put(&mut info, libc::IFLA_INFO_KIND, b"veth");
        put(&mut info, libc::IFLA_INFO_DATA, &data);
        put(&mut body, libc::IFLA_LINKINFO, &info);
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let what = format!("{}, veth, {} inside", self.outside, self.inside);
        order(route, "RTM_NEWLINK", &what, libc::RTM_NEWLINK, flags, &body)
    }
}

pub fn set_up(route: &Route, index: u32) -> Result<()> {
    order(
        route,
        "RTM_SETLINK",
        "IFF_UP",
        libc::RTM_SETLINK,
        0,
        &header(index, UP),
    )
}

/// Lets what came in at a port of a bridge go out there again.
pub fn set_hairpin(route: &Route, index: u32) -> Result<()> {
    let mut body = header(index, 0);
    body[0] = libc::AF_BRIDGE as u8;
    let mut port = Vec::new();
    put(&mut port, IFLA_BRPORT_MODE, &[1]);
    put(
        &mut body,
        libc::IFLA_PROTINFO | libc::NLA_F_NESTED as u16,
        &port,
    );
    order(
        route,
        "RTM_SETLINK",
        "IFLA_BRPORT_MODE",
        libc::RTM_SETLINK,
        0,
        &body,
    )
}

/// Removes a device; one that is not there is removed.
pub fn delete(route: &Route, name: &str) -> Result<()> {
    let mut body = header(0, 0);
    put(&mut body, libc::IFLA_IFNAME, &zero_ended(name));
    match order(route, "RTM_DELLINK", name, libc::RTM_DELLINK, 0, &body) {
        Err(e) if e.errno == Errno::ENODEV => Ok(()),
        other => other,
    }
}

/// Gives a device an address; it may have it already.
pub fn add_address(route: &Route, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let v4 = address.is_ipv4();
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    // We gave it to nobody else: without asking around for a second whether someone has it.
    let flags = if v4 { 0 } else { libc::IFA_F_NODAD };
    let mut body = vec![family as u8, prefix, flags as u8, libc::RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    let bytes = octets(address);
    put(&mut body, libc::IFA_LOCAL, &bytes);
    put(&mut body, libc::IFA_ADDRESS, &bytes);
    if let IpAddr::V4(v4) = address {
        let broadcast = u32::from(v4) | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        put(&mut body, libc::IFA_BROADCAST, &broadcast.to_be_bytes());
    }
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let what = format!("{address}/{prefix}");
    order(route, "RTM_NEWADDR", &what, libc::RTM_NEWADDR, flags, &body)
}

/// All that is elsewhere is reached through `gateway`. Of several, the one with the least metric counts.
pub fn add_default_route(route: &Route, index: u32, gateway: IpAddr, metric: u32) -> Result<()> {
    let family = if gateway.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut body = vec![0; ROUTE];
    body[0] = family as u8;
    body[4] = libc::RT_TABLE_MAIN;
    body[5] = libc::RTPROT_STATIC;
    body[6] = libc::RT_SCOPE_UNIVERSE;
    body[7] = libc::RTN_UNICAST;
    put(&mut body, libc::RTA_GATEWAY, &octets(gateway));
    put(&mut body, libc::RTA_OIF, &index.to_ne_bytes());
    if metric > 0 {
        put(&mut body, libc::RTA_PRIORITY, &metric.to_ne_bytes());
    }
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let what = format!("default via {gateway}");
    order(
        route,
        "RTM_NEWROUTE",
        &what,
        libc::RTM_NEWROUTE,
        flags,
        &body,
    )
}

/// The names of the devices at a bridge.
pub fn ports(route: &Route, bridge: u32) -> Result<Vec<String>> {
    let mut body = header(0, 0);
    put(&mut body, libc::IFLA_MASTER, &bridge.to_ne_bytes());
    // Without it, most of what comes are counters.
    put(
        &mut body,
        libc::IFLA_EXT_MASK,
        &(libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes(),
    );
    let all = route.list("RTM_GETLINK", libc::RTM_GETLINK, &body)?;
    let mut names = Vec::with_capacity(all.len());
    for message in &all {
        let rest = message.body.get(LINK..).unwrap_or_default();
        let (mut name, mut master) = (None, None);
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFLA_IFNAME => name = Some(words(value)),
                libc::IFLA_MASTER => master = value.first_chunk().map(|b| u32::from_ne_bytes(*b)),
                _ => {}
            }
        }
        names.extend(name.filter(|_| master == Some(bridge)));
    }
    Ok(names)
}

/// Which subnets are routed somewhere? The default route is none.
pub fn routed(route: &Route) -> Result<Vec<Subnet>> {
    let mut found = Vec::new();
    for message in route.list("RTM_GETROUTE", libc::RTM_GETROUTE, &[0; ROUTE])? {
        let (fixed, rest) = message
            .body
            .split_at_checked(ROUTE)
            .ok_or_else(|| malformed("RTM_GETROUTE"))?;
        if fixed[4] == libc::RT_TABLE_LOCAL || fixed[1] == 0 {
            continue;
        }
        let to = attributes(rest)
            .into_iter()
            .find(|(kind, _)| *kind == libc::RTA_DST);
        let address = to.and_then(|(_, bytes)| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            _ => None,
        });
        found.extend(address.and_then(|address| Subnet::around(address, fixed[1]).ok()));
    }
    Ok(found)
}

fn order(
    route: &Route,
    name: &'static str,
    what: &str,
    kind: u16,
    flags: i32,
    body: &[u8],
) -> Result<()> {
    route.order(name, || what.to_owned(), kind, flags, body)
}

/// `struct ifinfomsg`, changing only the flags given.
fn header(index: u32, flags: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn words(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
