//! How does a network come to be on this host, and a container into it?

use super::address;
use super::claim::{self, Claim, Claims, Endpoint};
use super::definition::{self, DEFAULT, Definition, Wish};
use super::link::{self, Namespace, Pair};
use super::rules;
use super::wanted::Join;
use super::world;
use crate::engine::record::Home;
use crate::sys::file;
use crate::sys::netlink::Route;
use anyhow::{Context, Result, bail, ensure};
use nix::unistd::geteuid;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// A bridge's own, as docker's.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Of whom a bridge is.
fn alias(home: &Home, network: &Definition) -> String {
    format!("sc {} {}", home.root.display(), &network.id[..12])
}

/// One that is not complete. Of one that has no alias nobody but the killed process that made it knows.
fn is_begun(link: &link::Link, alias: &str) -> bool {
    link.alias.is_empty() || link.alias.strip_suffix(BEGUN) == Some(alias)
}

const BEGUN: &str = " begun";

/// A network that is up: its bridge with its address, its rules.
pub struct Bridge {
    pub network: Definition,
    index: u32,
}

/// Other roots of containers choose a bridge and a subnet too: only one at a time, and the next sees the bridge.
fn lock_host() -> Result<Namespace> {
    let host = Namespace::open("/proc/thread-self/ns/net")?;
    file::lock(host.fd()).context("the lock of this network namespace")?;
    Ok(host)
}

/// Makes a network.
pub fn create(claims: &Claims, wish: Wish) -> Result<Definition> {
    let _host = lock_host()?;
    let route = Route::open()?;
    let network = definition::create(claims.home, &route, wish)?;
    // An ordinary user's is made where its first container comes to be.
    if geteuid().is_root() {
        make(claims.home, &route, &network)?;
    }
    Ok(network)
}

/// The bridge with its first address; its index.
fn make(home: &Home, route: &Route, network: &Definition) -> Result<u32> {
    let name = &network.device;
    link::make_bridge(route, name, address::parse_mac(&mac(network))?)?;
    let link = link::find(route, name)?.context("the bridge is gone")?;
    link::set_alias(route, link.index, &(alias(home, network) + BEGUN))?;
    link::add_address(route, link.index, network.gateway, network.subnet.prefix())?;
    link::set_up(route, link.index)?;
    Ok(link.index)
}

/// The definition; the default network's is made when it is first asked for.
pub fn definition(claims: &Claims, name: &str) -> Result<Definition> {
    match definition::load(claims.home, name)? {
        Some(network) => Ok(network),
        None if name == DEFAULT => create(
            claims,
            Wish {
                name: DEFAULT.to_owned(),
                ipv6: true,
                ..Wish::default()
            },
        ),
        None => bail!("no such network: {name}; `sc network ls` lists them"),
    }
}

/// Makes of the network what is missing of it on this host, and forgets what ended containers left. What is worth
/// knowing is added to `notes`.
pub fn bring_up(
    claims: &Claims,
    route: &Route,
    mut network: Definition,
    notes: &mut Vec<String>,
) -> Result<Bridge> {
    let alias = alias(claims.home, &network);
    // The alias comes last: a bridge that has it is complete.
    let complete = link::find(route, &network.device)?.filter(|link| link.alias == alias);
    let index = match complete {
        Some(link) => link.index,
        None => {
            let _host = lock_host()?;
            let there = link::find(route, &network.device)?;
            let begun = there.filter(|link| is_begun(link, &alias));
            if begun.is_none() {
                let note;
                (network, note) = definition::find_place(claims.home, route, network)?;
                notes.extend(note);
            }
            let finish = || -> Result<u32> {
                let index = match begun {
                    Some(link) => link.index,
                    None => make(claims.home, route, &network)?,
                };
                configure(&network, route, index)?;
                link::set_alias(route, index, &alias)?;
                Ok(index)
            };
            finish().with_context(|| {
                format!(
                    "the bridge {} of the network {}",
                    network.device, network.name
                )
            })?
        }
    };
    sweep(claims, &network, &link::ports(route, index)?)?;
    let loaded = rules::is_loaded(&network)?;
    if !loaded {
        rules::apply(&rules::table(&network, &claims.published(&network.name)?))?;
    }
    if !loaded {
        notes.extend(rules::warning(&network));
    }
    Ok(Bridge { network, index })
}

/// Removes the claims whose devices are not among those of the bridge, and before them what they published: killed
/// between the two, the next one finds them still.
pub fn sweep(claims: &Claims, network: &Definition, devices: &[String]) -> Result<()> {
    let name = &network.name;
    let (alive, stale): (Vec<Claim>, _) =
        (claims.of(name)?.into_iter()).partition(|claim| devices.contains(&claim.device));
    let had_ports = |claim: &Claim| {
        let given = claims.given(name, claim);
        given.is_none_or(|given| !given.ports.is_empty())
    };
    if stale.iter().any(had_ports) && rules::is_loaded(network)? {
        let given = alive.iter().filter_map(|claim| claims.given(name, claim));
        let published: Vec<_> = given.flat_map(|given| given.published(name)).collect();
        rules::apply(&rules::table(network, &published))?;
    }
    for claim in &stale {
        claims.release(name, &claim.device)?;
    }
    Ok(())
}

/// Forgets what ended containers left in all networks: how many claims.
pub fn heal(home: &Home) -> Result<usize> {
    if !claim::state(home).exists() {
        return Ok(0);
    }
    if geteuid().is_root() {
        return heal_here(home);
    }
    let count = || -> Result<usize> {
        let claims = Claims::lock(home)?;
        let all = definition::list(home)?;
        all.iter()
            .map(|network| Ok(claims.of(&network.name)?.len()))
            .sum()
    };
    let before = count()?;
    world::send(home, "heal", "all")?;
    Ok(before.saturating_sub(count()?))
}

/// `sc heal all`: where the bridges are. Nowhere: then all claims are of containers that have ended.
pub fn heal_there(home: &Home, _: &str) -> Result<u8> {
    if world::visit(home)? {
        heal_here(home)?;
        return Ok(0);
    }
    let claims = Claims::lock(home)?;
    for network in definition::list(home)? {
        for claim in claims.of(&network.name)? {
            claims.release(&network.name, &claim.device)?;
        }
    }
    world::leave(&claims)?;
    Ok(0)
}

fn heal_here(home: &Home) -> Result<usize> {
    let claims = Claims::lock(home)?;
    let route = Route::open()?;
    let mut healed = 0;
    for network in definition::list(home)? {
        let before = claims.of(&network.name)?.len();
        let devices = match link::find(&route, &network.device)? {
            Some(bridge) => link::ports(&route, bridge.index)?,
            None => Vec::new(),
        };
        sweep(&claims, &network, &devices)?;
        healed += before - claims.of(&network.name)?.len();
    }
    Ok(healed)
}

/// The bridge's own, from the network's id.
fn mac(network: &Definition) -> String {
    let digits: Vec<&str> = (0..5).map(|at| &network.id[2 * at..2 * at + 2]).collect();
    format!("02:{}", digits.join(":"))
}

fn configure(network: &Definition, route: &Route, index: u32) -> Result<()> {
    let name = &network.device;
    link::add_address(route, index, network.gateway, network.subnet.prefix())?;
    // Answers from a published port find back to 127.0.0.1; who else might use it is dropped by the rules.
    sysctl(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    if !network.internal {
        sysctl("ipv4/ip_forward", "1")?;
    }
    match (network.gateway6, network.subnet6) {
        (Some(gateway), Some(subnet)) if has_ipv6() => {
            // CVE-2020-10749, CVE-2024-32473: a container is no router of this host.
            sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
            link::add_address(route, index, gateway, subnet.prefix())?;
            // The kernel makes one when the first container has been there for seconds; without, it asks nobody for
            // the container's address on behalf of others.
            link::add_address(route, index, LINK_LOCAL.into(), 64)?;
            if !network.internal {
                forward_ipv6()?;
            }
        }
        // Without: CVE-2020-10749 once more.
        _ if has_ipv6() => sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?,
        _ => {}
    }
    Ok(link::set_up(route, index)?)
}

pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// A host that forwards IPv6 forgets the routers that it learned of, unless it is told to go on listening
/// (accept_ra=2, the kernel's ip-sysctl.rst).
fn forward_ipv6() -> Result<()> {
    const ALL: &str = "ipv6/conf/all/forwarding";
    if fs::read_to_string(Path::new("/proc/sys/net").join(ALL))?.trim() == "1" {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let path = entry?.path().join("accept_ra");
        // The device may have gone.
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            let _ = fs::write(&path, "2");
        }
    }
    sysctl(ALL, "1")
}

/// Below /proc/sys/net of the calling thread's network namespace.
fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    let is = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if is.trim() == value {
        return Ok(());
    }
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}

impl Bridge {
    /// Gives the container of `dir` a device at the bridge. Its claim is gone with the device, or by
    /// [`Claims::release`].
    pub fn join(
        &self,
        claims: &Claims,
        route: &Route,
        dir: &Path,
        namespace: &Namespace,
        join: &Join,
        number: usize,
    ) -> Result<Endpoint> {
        let network = &self.network;
        let claim = claims.make(network, dir, join.address)?;
        let made = (|| -> Result<Endpoint> {
            let host = network.subnet.host_of(claim.address.into());
            let address6 = self.address6(claims, join, host)?;
            let mac = match &join.mac {
                Some(mac) => address::parse_mac(mac)?,
                None => address::mac_of(claim.address),
            };
            let endpoint = Endpoint {
                network: network.name.clone(),
                device: claim.device.clone(),
                inside: format!("eth{number}"),
                address: claim.address,
                address6: address6.and_then(|address| match address {
                    IpAddr::V6(v6) => Some(v6),
                    IpAddr::V4(_) => None,
                }),
                mac: address::show_mac(mac),
                aliases: join.aliases.clone(),
            };
            let pair = Pair {
                outside: &endpoint.device,
                bridge: self.index,
                namespace: namespace.fd(),
                inside: &endpoint.inside,
                mac,
            };
            // Before the device is there: IPv6 begins with it.
            let with_ipv6 = endpoint.address6.is_some();
            let inner = namespace.within(|| {
                prepare(with_ipv6);
                Route::open()
            })?;
            pair.make(route)?;
            self.furnish(&inner, &endpoint, number)?;
            // Where bridged packets pass the rules of the host (br_netfilter), its own published port leads a container
            // back out where it came in.
            if let Some(port) = link::find(route, &endpoint.device)? {
                link::set_hairpin(route, port.index)?;
            }
            Ok(endpoint)
        })();
        if made.is_err() {
            // The first error is the one to report; what stays, the next sweep removes.
            let _ = link::delete(route, &claim.device);
            let _ = claims.release(&network.name, &claim.device);
        }
        made.with_context(|| format!("network {}", network.name))
    }

    /// The one asked for, or that with the number of the IPv4 address.
    fn address6(&self, claims: &Claims, join: &Join, host: u128) -> Result<Option<IpAddr>> {
        let subnet = self.network.subnet6.filter(|_| has_ipv6());
        let Some(wanted) = join.address6 else {
            return Ok(subnet.map(|subnet| subnet.host(host)));
        };
        let subnet = subnet.with_context(|| format!("--ip6 {wanted}: the network has no IPv6"))?;
        let name = &self.network.name;
        ensure!(
            subnet.contains(wanted.into()),
            "--ip6 {wanted} is not in {subnet}"
        );
        let number = subnet.host_of(wanted.into());
        ensure!(
            number == host || number > self.network.subnet.last_host() + 1,
            "--ip6 {wanted}: the numbers up to {:x} go with IPv4 addresses: choose one after them",
            self.network.subnet.last_host() + 1
        );
        for claim in claims.of(name)? {
            let given = claims.given(name, &claim).unwrap_or_default();
            let taken = |endpoint: &Endpoint| {
                endpoint.address6 == Some(wanted) && endpoint.network == *name
            };
            ensure!(
                !given.endpoints.iter().any(taken),
                "--ip6 {wanted} is taken"
            );
        }
        Ok(Some(wanted.into()))
    }

    /// Addresses and routes inside.
    fn furnish(&self, inner: &Route, endpoint: &Endpoint, number: usize) -> Result<()> {
        let network = &self.network;
        let device = link::find(inner, &endpoint.inside)?;
        let index = device.context("the container's device is gone")?.index;
        if number == 0
            && let Some(lo) = link::find(inner, "lo")?
        {
            link::set_up(inner, lo.index)?;
        }
        link::set_up(inner, index)?;
        link::add_address(
            inner,
            index,
            endpoint.address.into(),
            network.subnet.prefix(),
        )?;
        // Each further network is the way out only when those before it are gone.
        let metric = 100 * number as u32;
        if !network.internal {
            link::add_default_route(inner, index, network.gateway, metric)?;
        }
        if let (Some(address), Some(subnet), Some(gateway)) =
            (endpoint.address6, network.subnet6, network.gateway6)
        {
            link::add_address(inner, index, address.into(), subnet.prefix())?;
            if !network.internal {
                link::add_default_route(inner, index, gateway, metric)?;
            }
        }
        Ok(())
    }
}

/// Settings that devices are born with, in the calling thread's network namespace.
fn prepare(with_ipv6: bool) {
    let wanted: &[(&str, &str)] = match with_ipv6 {
        // No address but ours; and no second of silence until the kernel is sure that nobody has it.
        true => &[
            ("disable_ipv6", "0"),
            ("accept_ra", "0"),
            ("accept_dad", "0"),
        ],
        false => &[("disable_ipv6", "1")],
    };
    for (name, value) in wanted {
        // A kernel without IPv6 has none of them.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/default/{name}"), value);
    }
}

/// Removes all of a network from this host that its definition does not say.
pub fn take_down(claims: &Claims, route: &Route, network: &Definition) -> Result<()> {
    let link = link::find(route, &network.device)?;
    let alias = alias(claims.home, network);
    if link.is_some_and(|link| link.alias == alias || is_begun(&link, &alias)) {
        link::delete(route, &network.device)?;
        // As root in a place without nft there cannot have been rules.
        match rules::drop_table(network) {
            Err(e)
                if e.downcast_ref::<std::io::Error>()
                    .is_some_and(|e| e.kind() == ErrorKind::NotFound) => {}
            other => other?,
        }
    }
    claims.forget(&network.name);
    Ok(())
}
