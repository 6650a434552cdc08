//! Which ports are published, as typed, as kept, as shown? Pure.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    fn parse(text: &str) -> Option<Protocol> {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        all.into_iter().find(|protocol| protocol.name() == text)
    }
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// `None`: all addresses of the host, of both families.
    pub address: Option<IpAddr>,
    /// 0: any that is free.
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
}

impl Port {
    /// What the host would have to listen on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let all: &[IpAddr] = &[[0; 4].into(), [0u16; 8].into()];
        let one = self.address.as_slice();
        let addresses = if one.is_empty() { all } else { one };
        let with_port = |ip: &IpAddr| SocketAddr::new(*ip, self.host);
        addresses.iter().map(with_port).collect()
    }

    /// From ::1 the kernel routes nothing out, and nothing back (6.18): it leads to no container.
    pub fn is_loopback6(&self) -> bool {
        self.address == Some(Ipv6Addr::LOCALHOST.into())
    }

    /// Could the two not both be published?
    pub fn collides(&self, other: &Port) -> bool {
        let meet = |a: IpAddr, b: IpAddr| {
            a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
        };
        let theirs = other.addresses();
        self.protocol == other.protocol
            && self.host == other.host
            && (self.addresses().iter()).any(|a| theirs.iter().any(|b| meet(a.ip(), b.ip())))
    }
}

/// `80/tcp`
impl fmt::Display for Port {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "{}/{}", self.container, self.protocol.name())
    }
}

/// docker's `[IP:][HOST:]CONTAINER[/PROTOCOL]`; a port may be a range.
pub fn parse(text: &str) -> Result<Vec<Port>> {
    let all = || -> Result<Vec<Port>> {
        let (places, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = Protocol::parse(protocol)
            .with_context(|| format!("{protocol:?} is not tcp, udp or sctp"))?;
        let (rest, container) = places.rsplit_once(':').unwrap_or(("", places));
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => (Some(parse_address(address)?), host),
            None => (None, rest),
        };
        let (first, last) = range(container)?;
        ensure!(first > 0, "the container's port is missing");
        let (host, host_last) = match host {
            "" => (0, 0),
            _ => range(host)?,
        };
        let same = host == 0 || host_last - host == last - first;
        // One port of the container on any one of several: docker's, and hardly typed.
        ensure!(same, "the two ranges are not of one length");
        let port = |number| Port {
            address,
            host: if host == 0 {
                0
            } else {
                host + (number - first)
            },
            container: number,
            protocol,
        };
        Ok((first..=last).map(port).collect())
    };
    all().with_context(|| format!("--publish {text:?}"))
}

fn parse_address(text: &str) -> Result<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    address.with_context(|| format!("{text:?} is no address of this host; IPv6 is typed [::1]"))
}

fn range(text: &str) -> Result<(u16, u16)> {
    let number = |text: &str| -> Result<u16> {
        text.parse().with_context(|| format!("{text:?} is no port"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    ensure!(first <= last, "{text:?} ends before it begins");
    Ok((first, last))
}

/// `--expose` and the image's `ExposedPorts`: `80`, `80/udp`, `8000-8010`.
pub fn parse_exposed(text: &str) -> Result<Vec<Port>> {
    match text.contains(':') {
        true => bail!("{text:?} is no port like 80/tcp"),
        false => parse(text),
    }
}

/// docker's PORTS column: `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp`.
pub fn show(ports: &[Port]) -> String {
    let shown = ports.iter().flat_map(|port| {
        let places = port.addresses().into_iter();
        places.map(move |place| format!("{place}->{port}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_typed_as_for_docker() {
        for (text, shown) in [
            ("8080:80", "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1:53->53/udp"),
            ("[fd00::1]:8080:80", "[fd00::1]:8080->80/tcp"),
            ("[::1]:8080:80", "[::1]:8080->80/tcp"),
            ("80", "0.0.0.0:0->80/tcp, [::]:0->80/tcp"),
            ("127.0.0.1::80/sctp", "127.0.0.1:0->80/sctp"),
            (
                "1.2.3.4:10-11:80-81",
                "1.2.3.4:10->80/tcp, 1.2.3.4:11->81/tcp",
            ),
        ] {
            assert_eq!(show(&parse(text).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in [
            "",
            ":",
            "x",
            "80:",
            "0",
            "65536",
            "80/icmp",
            "1-3:1-2",
            "3-1:3-1",
            "nohost:1:2",
            "-1:2",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            format!("{:#}", parse("8080:http").unwrap_err()),
            "--publish \"8080:http\": \"http\" is no port: invalid digit found in string"
        );
    }

    #[test]
    fn all_addresses_collide_with_each() {
        for (a, b, expected) in [
            ("80:1", "80:2", true),
            ("80:1", "81:1", false),
            ("80:1", "80:1/udp", false),
            ("127.0.0.1:80:1", "80:1", true),
            ("127.0.0.1:80:1", "127.0.0.2:80:1", false),
            ("[fd00::1]:80:1", "0.0.0.0:80:1", false),
        ] {
            let [a, b] = [a, b].map(|text| parse(text).unwrap()[0]);
            assert_eq!(a.collides(&b), expected, "{a:?} {b:?}");
        }
    }
}
