//! What do /etc/hosts, /etc/hostname and /etc/resolv.conf of a container say?
//!
//! They are files of the container's directory, mounted over its own; written in place, as a mount is of a file and
//! not of its name.

use super::claim::Given;
use super::wanted::{Mode, Wanted};
use anyhow::{Context, Result};
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// Who answers a container's questions for names?
#[derive(Debug, Clone, Copy)]
pub enum Servers<'a> {
    /// Those of this host, as they are.
    Hosts,
    /// Ours; none: those of this host that can be reached from another network namespace.
    Own(&'a [IpAddr]),
}

/// Writes all three; a container that has none of them (a bundle's) needs none.
pub fn write(dir: &Path, wanted: &Wanted, given: &Given, servers: Servers) -> Result<()> {
    if wanted.hostname.is_empty() {
        return Ok(());
    }
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let base = match wanted.mode {
        Mode::Host => host("/etc/hosts"),
        _ => String::new(),
    };
    let resolv = match wanted.mode {
        Mode::None => String::new(),
        _ => resolv_conf(wanted, servers, &Host::of_this()),
    };
    for (name, text) in [
        ("hosts", hosts(wanted, given, &base)),
        ("hostname", format!("{}\n", wanted.hostname)),
        ("resolv.conf", resolv),
    ] {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn hosts(wanted: &Wanted, given: &Given, host: &str) -> String {
    let name = &wanted.hostname;
    let mut text = match given.endpoints.is_empty() {
        true => format!("127.0.0.1\tlocalhost {name}\n"),
        false => "127.0.0.1\tlocalhost\n".to_owned(),
    };
    text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
    for endpoint in &given.endpoints {
        text.push_str(&format!("{}\t{name}\n", endpoint.address));
        let v6 = endpoint.address6.iter();
        text.extend(v6.map(|address| format!("{address}\t{name}\n")));
    }
    let gateway = given
        .gateway
        .map_or_else(|| "127.0.0.1".to_owned(), |gateway| gateway.to_string());
    for (name, address) in &wanted.hosts {
        let address = match address.as_str() {
            "host-gateway" => &gateway,
            other => other,
        };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text + host
}

/// What the host's resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Host {
    pub fn of_this() -> Host {
        Host::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Host {
        let mut host = Host::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // An address with a zone (fe80::1%eth0) is of an interface that a container has not.
                Some("nameserver") => host
                    .servers
                    .extend(words.next().and_then(|word| word.parse::<IpAddr>().ok())),
                Some("search" | "domain") => host.search = words.map(str::to_owned).collect(),
                Some("options") => host.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        host
    }

    /// Those that answer from another network namespace too. systemd-resolved keeps the real ones elsewhere.
    fn reachable(&self) -> Vec<IpAddr> {
        let beyond = |host: &Host| -> Vec<IpAddr> {
            let servers = host.servers.iter().copied();
            servers.filter(|server| !server.is_loopback()).collect()
        };
        let own = beyond(self);
        match own.is_empty() {
            true => {
                let text = fs::read_to_string("/run/systemd/resolve/resolv.conf");
                beyond(&Host::parse(&text.unwrap_or_default()))
            }
            false => own,
        }
    }
}

fn resolv_conf(wanted: &Wanted, servers: Servers, host: &Host) -> String {
    let own = match servers {
        Servers::Own(own) if !own.is_empty() => own.to_vec(),
        // Our server asks those that are typed; without it they are asked themselves.
        _ if !wanted.dns.is_empty() => wanted.dns.clone(),
        Servers::Hosts => host.servers.clone(),
        Servers::Own(_) => host.reachable(),
    };
    let mut text: String = own
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    let search = if wanted.search.is_empty() {
        &host.search
    } else {
        &wanted.search
    };
    let search: Vec<&str> = search
        .iter()
        .map(String::as_str)
        .filter(|domain| *domain != ".")
        .collect();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    let mut options = if wanted.options.is_empty() {
        host.options.clone()
    } else {
        wanted.options.clone()
    };
    let ours = matches!(servers, Servers::Own(own) if !own.is_empty());
    if ours && !options.iter().any(|option| option.starts_with("ndots:")) {
        // The name of a container is a whole name: it is asked for as it is first.
        options.push("ndots:0".to_owned());
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::network::claim::Endpoint;

    fn wanted() -> Wanted {
        Wanted {
            mode: Mode::Bridge,
            hostname: "h".to_owned(),
            hosts: vec![
                ("up".into(), "host-gateway".into()),
                ("db".into(), "fd00::9".into()),
            ],
            ..Wanted::default()
        }
    }

    #[test]
    fn hosts_has_the_container_and_what_was_typed() {
        let endpoint = Endpoint {
            network: "bridge".into(),
            device: "sc0a590002abcde".into(),
            inside: "eth0".into(),
            address: [10, 89, 0, 2].into(),
            address6: "fd00::2".parse().ok(),
            mac: String::new(),
            aliases: Vec::new(),
        };
        let given = Given {
            endpoints: vec![endpoint],
            gateway: Some([10, 89, 0, 1].into()),
            ..Given::default()
        };
        assert_eq!(
            hosts(&wanted(), &given, ""),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.89.0.2\th\nfd00::2\th\n10.89.0.1\tup\nfd00::9\tdb\n"
        );
    }

    #[test]
    fn a_server_of_the_hosts_loopback_is_not_one_of_the_containers() {
        let host = Host::parse(
            "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a.example\noptions edns0\n",
        );
        let own = [IpAddr::from([10, 89, 0, 1])];
        let dns = Wanted {
            dns: vec!["1.1.1.1".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["ndots:2".into()],
            ..wanted()
        };
        for (wanted, servers, expected) in [
            (
                &wanted(),
                Servers::Own(&own),
                "nameserver 10.89.0.1\nsearch a.example\noptions edns0 ndots:0\n",
            ),
            (
                &wanted(),
                Servers::Own(&[]),
                "nameserver 9.9.9.9\nsearch a.example\noptions edns0\n",
            ),
            (
                &wanted(),
                Servers::Hosts,
                "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a.example\noptions edns0\n",
            ),
            (
                &dns,
                Servers::Own(&own),
                "nameserver 10.89.0.1\noptions ndots:2\n",
            ),
            (
                &dns,
                Servers::Hosts,
                "nameserver 1.1.1.1\noptions ndots:2\n",
            ),
        ] {
            assert_eq!(resolv_conf(wanted, servers, &host), expected, "{servers:?}");
        }
    }
}
