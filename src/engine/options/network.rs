//! Options that say which network a container has.

use crate::engine::network::wanted::{Join, Mode, Wanted};
use crate::engine::network::{address, definition, ports, user};
use crate::engine::record::Home;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Args)]
pub struct Network {
    /// bridge, none (loopback only), host (no network of its own), a name of `sc network ls`, container:NAME, ns:PATH, or
    /// pasta; again for more than one [default: bridge; without root pasta]
    #[arg(long = "network", visible_alias = "net", value_name = "NETWORK")]
    networks: Vec<String>,
    /// Publish a port of the container: 8080:80, 127.0.0.1:53:53/udp, 8000-8010:80-90; 80 alone at any free port
    #[arg(short, long, value_name = "[IP:][HOST:]CONTAINER[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all ports that the image exposes, at any free ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A port that --publish-all publishes too
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// The container's IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The container's IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The address of its network device
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Another name for containers of its network to find it by
    #[arg(long, value_name = "NAME", visible_alias = "net-alias")]
    network_alias: Vec<String>,
    /// A name server, instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// A domain in which names are looked up too; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf(5)
    #[arg(long, value_name = "OPTION", visible_alias = "dns-opt")]
    dns_option: Vec<String>,
    /// A line of /etc/hosts; host-gateway is the host's address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
}

impl Network {
    /// `plain`: of a bundle, which is left as it is if nothing is asked for.
    pub fn wanted(&self, home: &Home, plain: bool) -> Result<Wanted> {
        let (mode, joins) = self.mode(home, plain)?;
        let mut wanted = Wanted {
            mode,
            joins,
            dns: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
            ..Wanted::default()
        };
        for text in &self.publish {
            wanted.ports.extend(ports::parse(text)?);
        }
        for text in &self.add_host {
            wanted.hosts.push(host(text)?);
        }
        self.refine(&mut wanted)?;
        self.check(&mut wanted)?;
        Ok(wanted)
    }

    /// Ports that the image says it listens on, with `-P`.
    pub fn publish_exposed(&self, wanted: &mut Wanted, exposed: &str) -> Result<()> {
        if !self.publish_all {
            return Ok(());
        }
        let image = exposed.split(',').map(str::trim);
        let image = image.filter(|text| !text.is_empty());
        for text in image.chain(self.expose.iter().map(String::as_str)) {
            for port in
                ports::parse_exposed(text).with_context(|| format!("--publish-all: {text:?}"))?
            {
                let same = |other: &ports::Port| {
                    (other.container, other.protocol) == (port.container, port.protocol)
                };
                if !wanted.ports.iter().any(same) {
                    wanted.ports.push(port);
                }
            }
        }
        Ok(())
    }

    fn mode(&self, home: &Home, plain: bool) -> Result<(Mode, Vec<Join>)> {
        let root = nix::unistd::geteuid().is_root();
        let mut joins = Vec::new();
        for typed in &self.networks {
            let alone = match typed.split_once(':').unwrap_or((typed, "")) {
                ("none", "") => Some(Mode::None),
                ("host", "") => Some(Mode::Host),
                ("pasta" | "slirp4netns" | "private", "") => Some(Mode::User),
                ("container", name) => Some(Mode::Container(home.find(name)?.id)),
                ("ns", path) => {
                    ensure!(
                        path.starts_with('/'),
                        "--network {typed}: the path is not absolute"
                    );
                    Some(Mode::Namespace(path.into()))
                }
                _ => None,
            };
            match alone {
                Some(mode) => {
                    ensure!(
                        root || !matches!(mode, Mode::Namespace(_)),
                        "--network {typed} needs root: a namespace of another user namespace cannot be entered"
                    );
                    let others = matches!(mode, Mode::User | Mode::Container(_));
                    ensure!(
                        !plain || mode != Mode::User && (root || !others),
                        "--network {typed}: a bundle has the network that its config.json says, or root's"
                    );
                    if let (Mode::Container(id), false) = (&mode, root) {
                        check_shared(home, typed, id)?;
                    }
                    ensure!(
                        self.networks.len() == 1,
                        "--network {typed}: it cannot be combined with others"
                    );
                    return Ok((mode, Vec::new()));
                }
                None => joins.push(join(home, typed)?),
            }
        }
        let typed = self.networks.first();
        match (typed, root) {
            (Some(typed), false) if plain => bail!(
                "--network {typed}: a bundle has the network that its config.json says, or root's"
            ),
            (None, _) if plain && self.publish.is_empty() => return Ok((Mode::Bundle, Vec::new())),
            (None, false) if user::program().is_none() => {
                // A container with too little network says so at once.
                eprintln!(
                    "sc: only loopback: without root a network needs pasta (Debian: passt) or slirp4netns"
                );
                return Ok((Mode::None, Vec::new()));
            }
            (None, false) => return Ok((Mode::User, Vec::new())),
            (None, true) => joins.push(Join::of(definition::DEFAULT)),
            (Some(_), _) => {}
        }
        Ok((Mode::Bridge, joins))
    }

    /// What is typed of addresses and names is meant for the first network.
    fn refine(&self, wanted: &mut Wanted) -> Result<()> {
        let Some(first) = wanted.joins.first_mut() else {
            let typed = [
                ("--ip", self.ip.is_some()),
                ("--ip6", self.ip6.is_some()),
                ("--mac-address", self.mac_address.is_some()),
                ("--network-alias", !self.network_alias.is_empty()),
            ];
            if let Some((option, _)) = typed.iter().find(|(_, typed)| *typed) {
                bail!("{option}: only with a network that has a bridge");
            }
            return Ok(());
        };
        first.address = self.ip.or(first.address);
        first.address6 = self.ip6.or(first.address6);
        if let Some(mac) = &self.mac_address {
            address::parse_mac(mac).context("--mac-address")?;
            first.mac = Some(mac.clone());
        }
        first.aliases.extend(self.network_alias.iter().cloned());
        Ok(())
    }

    fn check(&self, wanted: &mut Wanted) -> Result<()> {
        let mode = wanted.mode.name();
        match &wanted.mode {
            Mode::Bridge | Mode::User => {}
            _ if wanted.ports.is_empty() => {}
            // docker's way: who moves a command from one network to the other need not change it.
            Mode::Host => {
                eprintln!("sc: --publish is ignored: with --network host all ports are the host's");
                wanted.ports.clear();
            }
            Mode::Container(_) => bail!(
                "--publish: with --network {mode} the ports are the other container's: publish them there"
            ),
            _ => bail!("--publish: with --network {mode} there is nothing to publish"),
        }
        let root = nix::unistd::geteuid().is_root();
        for (at, port) in wanted.ports.iter().enumerate() {
            let led_by_kernel = root && !port.is_loopback6();
            ensure!(
                led_by_kernel || port.protocol != ports::Protocol::Sctp,
                "--publish {port}: without root, and at [::1], only tcp and udp"
            );
            let twice = |other: &ports::Port| port.host != 0 && port.collides(other);
            ensure!(
                !wanted.ports[..at].iter().any(twice),
                "--publish: port {}/{} of the host is typed twice",
                port.host,
                port.protocol.name()
            );
        }
        Ok(())
    }
}

/// `NETWORK`, or docker's `name=NETWORK,alias=A,ip=…`.
fn join(home: &Home, typed: &str) -> Result<Join> {
    let context = || format!("--network {typed}");
    if !typed.contains('=') {
        let found = match typed {
            definition::DEFAULT | "default" => definition::DEFAULT.to_owned(),
            name => definition::find(home, name).with_context(context)?.name,
        };
        return Ok(Join::of(&found));
    }
    let mut join = Join::of("");
    for part in typed.split(',') {
        match part.split_once('=').with_context(context)? {
            ("name", name) => join.network = self::join(home, name)?.network,
            ("alias", alias) => join.aliases.push(alias.to_owned()),
            ("ip", ip) => join.address = Some(ip.parse().with_context(context)?),
            ("ip6", ip) => join.address6 = Some(ip.parse().with_context(context)?),
            ("mac-address", mac) => {
                address::parse_mac(mac).with_context(context)?;
                join.mac = Some(mac.to_owned());
            }
            (key, _) => bail!(
                "{}: unknown {key:?}; known are name, alias, ip, ip6, mac-address",
                context()
            ),
        }
    }
    ensure!(
        !join.network.is_empty(),
        "{}: name=NETWORK is missing",
        context()
    );
    Ok(join)
}

/// Without root, a network is shared together with the user namespace that it belongs to.
fn check_shared(home: &Home, typed: &str, id: &str) -> Result<()> {
    let other = home.load(id)?.context("the container is gone")?;
    ensure!(
        other.networks.mode != Mode::Host,
        "--network {typed}: its network is the host's: --network host"
    );
    ensure!(
        other.rootless,
        "--network {typed}: without root, that of a bundle cannot be shared"
    );
    Ok(())
}

/// `NAME:ADDRESS`, `NAME=ADDRESS`; the address may be one of IPv6, in brackets or not, or `host-gateway`.
fn host(text: &str) -> Result<(String, String)> {
    let at = text.find(['=', ':']);
    let (name, address) = at
        .map(|at| (&text[..at], &text[at + 1..]))
        .with_context(|| format!("--add-host {text:?}: write NAME:ADDRESS"))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let good = address == "host-gateway" || address.parse::<IpAddr>().is_ok();
    ensure!(
        good && !name.is_empty() && !name.contains(char::is_whitespace),
        "--add-host {text:?}: {address:?} is no address"
    );
    Ok((name.to_owned(), address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_an_address() {
        for (text, expected) in [
            ("db:10.0.0.1", Some(("db", "10.0.0.1"))),
            ("db=fd00::1", Some(("db", "fd00::1"))),
            ("db:[fd00::1]", Some(("db", "fd00::1"))),
            ("up:host-gateway", Some(("up", "host-gateway"))),
            ("db", None),
            ("db:", None),
            (":1.2.3.4", None),
            ("a b:1.2.3.4", None),
        ] {
            let found = host(text).ok();
            let found = found
                .as_ref()
                .map(|(name, to)| (name.as_str(), to.as_str()));
            assert_eq!(found, expected, "{text}");
        }
    }
}
