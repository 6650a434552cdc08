//! Is a port of the host free, and if not, who has it?
//!
//! The monitor binds a socket to each published port and never listens: the kernel then keeps programs of the host
//! and other monitors away, and gives the port back whoever is killed. What arrives goes to the container before it
//! comes to any socket.

use super::claim::{Claims, Given};
use super::link;
use super::ports::{Port, Protocol};
use crate::engine::record::Home;
use crate::sys::netlink::Route;
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// What becomes of what arrives at a port?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The kernel leads it elsewhere before it comes to the socket.
    Kept,
    /// A program answers there, as it may have done before: connections that have ended keep a port for a minute from
    /// all but who says that they do not matter (SO_REUSEADDR, socket(7)).
    Answered,
}

/// A socket that has a port of the host.
#[derive(Debug)]
pub struct Reserved {
    pub socket: OwnedFd,
    pub to_be: Use,
}

/// All ports with sockets for them; 0 has become a number.
pub fn all(
    home: &Home,
    wanted: &[Port],
    to_be: impl Fn(&Port) -> Use,
) -> Result<(Vec<Port>, Vec<Reserved>)> {
    let (mut ports, mut sockets) = (Vec::new(), Vec::new());
    for port in wanted {
        let to_be = to_be(port);
        let (port, own) = one(home, *port, to_be)?;
        ports.push(port);
        sockets.extend(own.into_iter().map(|socket| Reserved { socket, to_be }));
    }
    Ok((ports, sockets))
}

fn one(home: &Home, wanted: Port, to_be: Use) -> Result<(Port, Vec<OwnedFd>)> {
    // A number that is free for IPv4 may be taken for IPv6.
    for _ in 0..64 {
        let mut port = wanted;
        let mut sockets = Vec::new();
        let mut taken = None;
        for at in 0..wanted.addresses().len() {
            let place = port.addresses()[at];
            match take(place, port.protocol, to_be) {
                Ok(Some((socket, number))) => {
                    port.host = number;
                    sockets.push(socket);
                }
                Ok(None) => {}
                Err(Errno::EADDRINUSE) => taken = Some(place),
                Err(errno) => bail!("--publish {place}: {}", why(place, errno)),
            }
        }
        if port.host == 0 {
            bail!(
                "--publish {port}: {} cannot be had at any free port here",
                port.protocol.name()
            );
        }
        match taken {
            None => return Ok((port, sockets)),
            Some(_) if wanted.host == 0 => {}
            Some(place) => bail!("{}", held(place, port.protocol, by_container(home, &port))),
        }
    }
    bail!("--publish {wanted}: no port of this host is free")
}

fn why(place: SocketAddr, errno: Errno) -> String {
    match errno {
        Errno::EADDRNOTAVAIL => format!("{} is no address of this host", place.ip()),
        Errno::EACCES => format!(
            "a port below 1024 needs root, or `sysctl net.ipv4.ip_unprivileged_port_start={}`",
            place.port()
        ),
        other => other.desc().to_lowercase(),
    }
}

/// Binds, and listens where it is answered; `None` where this kernel has no such protocol or family.
pub fn take(
    place: SocketAddr,
    protocol: Protocol,
    to_be: Use,
) -> nix::Result<Option<(OwnedFd, u16)>> {
    let family = match place.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, None),
        Protocol::Udp => (SockType::Datagram, None),
        Protocol::Sctp => (
            SockType::SeqPacket,
            Some(nix::sys::socket::SockProtocol::Sctp),
        ),
    };
    let made = socket(family, kind, SockFlag::SOCK_CLOEXEC, number);
    let socket = match made {
        Err(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::ESOCKTNOSUPPORT) => {
            return Ok(None);
        }
        other => other?,
    };
    if place.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    let answered = to_be == Use::Answered && kind == SockType::Stream;
    if answered {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    match bind(socket.as_raw_fd(), &SockaddrStorage::from(place)) {
        // No address of that family: there is nothing to keep anybody from.
        Err(Errno::EADDRNOTAVAIL) if place.ip().is_unspecified() => return Ok(None),
        other => other?,
    }
    if answered {
        // Of two that both say so, only one may listen.
        listen(&socket, Backlog::MAXCONN)?;
    }
    let own: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = own.as_sockaddr_in().map(|own| own.port());
    let port = v4.or_else(|| own.as_sockaddr_in6().map(|own| own.port()));
    Ok(Some((socket, port.unwrap_or(place.port()))))
}

/// No container that runs without its monitor has one of these ports.
pub fn check(claims: &Claims, route: &Route, ports: &[Port]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    for network in super::definition::list(claims.home)? {
        for claim in claims.of(&network.name)? {
            let given = claims.given(&network.name, &claim).unwrap_or_default();
            let taken = |port: &&Port| given.ports.iter().any(|other| other.collides(port));
            if let Some(port) = ports.iter().find(taken)
                && link::find(route, &claim.device)?.is_some()
            {
                let holder = by_container(claims.home, port);
                bail!("{}", held(port.addresses()[0], port.protocol, holder));
            }
        }
    }
    Ok(())
}

fn held(place: SocketAddr, protocol: Protocol, container: Option<String>) -> String {
    let holder = container
        .map(|name| format!("container {name}"))
        .or_else(|| by_process(place, protocol))
        .unwrap_or_else(|| "a process that cannot be seen from here".to_owned());
    format!(
        "--publish: port {}/{} is already in use by {holder}: choose another, or let any free one be chosen (-p CONTAINER_PORT)",
        place.port(),
        protocol.name()
    )
}

fn by_container(home: &Home, port: &Port) -> Option<String> {
    let records = home.list().ok()?;
    let has = |id: &str| {
        let given = Given::load(&home.dir(id)).unwrap_or_default();
        given.ports.iter().any(|other| other.collides(port))
    };
    let found = records.into_iter().find(|record| has(&record.id));
    found.map(|record| record.name)
}

/// The program that has a socket at the port: /proc/net says which socket, /proc/PID/fd whose.
fn by_process(place: SocketAddr, protocol: Protocol) -> Option<String> {
    let mut sockets = Vec::new();
    for table in [protocol.name().to_owned(), format!("{}6", protocol.name())] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        sockets.extend(at_port(&text, place.port()).map(|inode| format!("socket:[{inode}]")));
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        // Not `self`.
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let path = process.path();
        for fd in fs::read_dir(path.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            if sockets
                .iter()
                .any(|socket| target.as_os_str() == socket.as_str())
            {
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
                return Some(format!("{} (process {pid})", name.trim()));
            }
        }
    }
    None
}

/// The inodes of the sockets bound to a port, of a table as proc(5) describes it; of TCP those that listen.
fn at_port(table: &str, port: u16) -> impl Iterator<Item = &str> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, own) = fields.get(1)?.rsplit_once(':')?;
        // 0A: LISTEN; 07: of UDP, bound.
        let is_bound = ["0A", "07"].contains(fields.get(3)?);
        let found = is_bound && u16::from_str_radix(own, 16) == Ok(port);
        found.then_some(*fields.get(9)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_by_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
           0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
           1: 0100007F:1F90 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n";
        assert_eq!(at_port(table, 8080).collect::<Vec<_>>(), ["4711"]);
        assert_eq!(at_port(table, 8081).count(), 0);
    }

    #[test]
    fn a_taken_port_names_who_has_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        assert_eq!(
            take(place, Protocol::Tcp, Use::Kept).unwrap_err(),
            Errno::EADDRINUSE
        );
        let own = format!("(process {})", std::process::id());
        let holder = by_process(place, Protocol::Tcp).unwrap();
        assert!(holder.ends_with(&own), "{holder}");
    }
}
