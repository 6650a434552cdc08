//! Which networks are there? `ROOT/networks/NAME.json` each; `bridge`, the default, is made when it is first used.

use super::address::Subnet;
use super::link;
use crate::clock;
use crate::engine::record::{Home, random};
use crate::sys::netlink::Route;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// The network that a container has when none is typed.
pub const DEFAULT: &str = "bridge";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    pub name: String,
    pub id: String,
    pub created: String,
    /// The bridge, and the table of nftables.
    pub device: String,
    pub subnet: Subnet,
    pub gateway: IpAddr,
    pub subnet6: Option<Subnet>,
    pub gateway6: Option<IpAddr>,
    /// Nothing goes out, nothing comes in.
    pub internal: bool,
    pub labels: BTreeMap<String, String>,
}

/// What `network create` may be asked for.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    pub name: String,
    pub subnet: Option<Subnet>,
    pub gateway: Option<Ipv4Addr>,
    pub subnet6: Option<Subnet>,
    pub ipv6: bool,
    pub internal: bool,
    pub labels: BTreeMap<String, String>,
}

fn dir(home: &Home) -> PathBuf {
    home.root.join("networks")
}

fn path(home: &Home, name: &str) -> PathBuf {
    dir(home).join(format!("{name}.json"))
}

/// All of them, by name.
pub fn list(home: &Home) -> Result<Vec<Definition>> {
    let entries = match fs::read_dir(dir(home)) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| dir(home).display().to_string())?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
            all.extend(load(home, name)?);
        }
    }
    all.sort_by(|a: &Definition, b| a.name.cmp(&b.name));
    Ok(all)
}

pub fn load(home: &Home, name: &str) -> Result<Option<Definition>> {
    let path = path(home, name);
    match fs::read(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let parsed = serde_json::from_slice(&text.with_context(|| path.display().to_string())?);
            Ok(Some(parsed.with_context(|| path.display().to_string())?))
        }
    }
}

/// By name, id, or the beginning of an id that only one has.
pub fn find(home: &Home, wanted: &str) -> Result<Definition> {
    let found = seek(home, wanted)?;
    found.with_context(|| format!("no such network: {wanted}; `sc network ls` lists them"))
}

/// The same; `None`: there is no such network.
pub fn seek(home: &Home, wanted: &str) -> Result<Option<Definition>> {
    check_name(wanted)?;
    if let Some(network) = load(home, wanted)? {
        return Ok(Some(network));
    }
    let mut all = list(home)?;
    all.retain(|network| network.id.starts_with(wanted));
    match all.len() {
        0 | 1 => Ok(all.pop()),
        n => bail!("{wanted} is the beginning of {n} ids: type more of it"),
    }
}

/// Decides what a network is to be, and saves it; the caller holds the locks.
pub fn create(home: &Home, route: &Route, wish: Wish) -> Result<Definition> {
    check_name(&wish.name)?;
    ensure!(
        !["none", "host", "container", "ns", "default", "pasta"].contains(&wish.name.as_str()),
        "{:?} cannot be a network's name: it means something else",
        wish.name
    );
    let others = list(home)?;
    if others.iter().any(|other| other.name == wish.name) {
        bail!(
            "there is a network {:?} already: `sc network rm {0}` removes it",
            wish.name
        );
    }
    let network = plan(wish, &others, &link::routed(route)?, |name| {
        Ok(link::find(route, name)?.is_some())
    })?;
    save(home, &network)?;
    Ok(network)
}

/// A network whose bridge is not there comes up anew, and others may have taken its place meanwhile: the bridge gets
/// another name, and the default network, of which nobody chose the addresses, another subnet. What changed is told.
/// The caller holds the locks.
pub fn find_place(
    home: &Home,
    route: &Route,
    network: Definition,
) -> Result<(Definition, Option<String>)> {
    let mut others = list(home)?;
    others.retain(|other| other.name != network.name);
    let (found, note) = place(&network, &others, &link::routed(route)?, |name| {
        Ok(link::find(route, name)?.is_some())
    })?;
    if found != network {
        save(home, &found)?;
    }
    Ok((found, note))
}

fn place(
    network: &Definition,
    others: &[Definition],
    routed: &[Subnet],
    is_device: impl Fn(&str) -> Result<bool>,
) -> Result<(Definition, Option<String>)> {
    let mut found = network.clone();
    if is_device(&network.device)? {
        found.device = free_device(others, is_device)?;
    }
    let subnet = network.subnet;
    // A wider route than its own takes nothing from it.
    let elsewhere = routed
        .iter()
        .find(|other| other.overlaps(&subnet) && other.prefix() >= subnet.prefix());
    let Some(elsewhere) = elsewhere else {
        return Ok((found, None));
    };
    ensure!(
        network.name == DEFAULT,
        "network {}: this host reaches {elsewhere} elsewhere by now: `sc network rm {0}` and make it again with another --subnet",
        network.name
    );
    let own: Vec<Subnet> = others.iter().map(|other| other.subnet).collect();
    found.subnet = free_subnet(|wanted| {
        let mut taken = own.iter().chain(routed);
        !taken.any(|other| other.overlaps(wanted))
    })?;
    found.gateway = found.subnet.host(1);
    found.gateway6 = found.subnet6.map(|subnet6| subnet6.host(1));
    let note = format!(
        "network {}: this host reaches {elsewhere} elsewhere by now: it has {} from now on",
        network.name, found.subnet
    );
    Ok((found, Some(note)))
}

/// As many addresses as a bridge can have ports (BR_MAX_PORTS of linux/if_bridge.h: 1024).
fn free_subnet(is_free: impl Fn(&Subnet) -> bool) -> Result<Subnet> {
    (89..=95u8)
        .flat_map(|second| {
            (0..=255)
                .step_by(4)
                .map(move |third| [10, second, third, 0])
        })
        .filter_map(|address| Subnet::around(address.into(), 22).ok())
        .find(is_free)
        .context("no free subnet from 10.89.0.0 to 10.95.255.255: choose one with --subnet")
}

fn free_device(others: &[Definition], is_device: impl Fn(&str) -> Result<bool>) -> Result<String> {
    for number in 0..1000 {
        let name = format!("sc{number}");
        if !others.iter().any(|other| other.device == name) && !is_device(&name)? {
            return Ok(name);
        }
    }
    bail!("a thousand bridges are there: `sc network prune` removes what is unused")
}

/// The definition of a wish, among what there is.
fn plan(
    wish: Wish,
    others: &[Definition],
    routed: &[Subnet],
    is_device: impl Fn(&str) -> Result<bool>,
) -> Result<Definition> {
    let random = random()?;
    let own = others.iter();
    let own: Vec<(Subnet, &str)> = own
        .flat_map(|other| {
            let all = [Some(other.subnet), other.subnet6];
            all.into_iter()
                .flatten()
                .map(|subnet| (subnet, other.name.as_str()))
        })
        .collect();
    let check = |subnet: &Subnet| -> Result<()> {
        if let Some((_, name)) = own.iter().find(|(other, _)| other.overlaps(subnet)) {
            bail!("--subnet {subnet}: it overlaps that of the network {name}: choose another");
        }
        if let Some(other) = routed.iter().find(|other| other.overlaps(subnet)) {
            bail!("--subnet {subnet}: this host reaches {other} elsewhere: choose another");
        }
        Ok(())
    };
    let subnet = match wish.subnet {
        Some(subnet) => {
            ensure!(
                subnet.is_v4() && subnet.prefix() <= 30,
                "--subnet {subnet}: IPv4 and at most /30 is needed"
            );
            subnet
        }
        None => free_subnet(|subnet| check(subnet).is_ok())?,
    };
    check(&subnet)?;
    let gateway = wish.gateway.map_or(subnet.host(1), IpAddr::from);
    ensure!(
        subnet.contains(gateway) && (1..=subnet.last_host()).contains(&subnet.host_of(gateway)),
        "--gateway {gateway} is no address of a host in {subnet}"
    );
    // RFC 4193: a prefix that nobody else is likely to have.
    let ula = || {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&random[..6]);
        bytes[0] = 0xfd;
        Subnet::around(bytes.into(), 64)
    };
    let subnet6 = match (wish.subnet6, wish.ipv6) {
        (Some(subnet), _) => {
            ensure!(
                subnet.prefix() <= 96,
                "--subnet {subnet}: for IPv6 at most /96"
            );
            check(&subnet)?;
            Some(subnet)
        }
        (None, true) => Some(ula()?),
        (None, false) => None,
    };
    Ok(Definition {
        id: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        created: clock::now_nanos(),
        device: free_device(others, is_device)?,
        gateway,
        gateway6: subnet6.map(|subnet6| subnet6.host(subnet.host_of(gateway))),
        subnet,
        subnet6,
        name: wish.name,
        internal: wish.internal,
        labels: wish.labels,
    })
}

fn save(home: &Home, network: &Definition) -> Result<()> {
    let dir = dir(home);
    DirBuilder::new().mode(0o700).recursive(true).create(&dir)?;
    let new = dir.join(format!("{}.new", network.name));
    let path = path(home, &network.name);
    fs::write(&new, serde_json::to_vec_pretty(network)?)
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("write {}", path.display()))
}

pub fn forget(home: &Home, name: &str) -> Result<()> {
    match fs::remove_file(path(home, name)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("remove the network {name}")),
    }
}

fn check_name(name: &str) -> Result<()> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    let good = name.len() < 100 && name.bytes().all(fine);
    ensure!(
        good && name
            .bytes()
            .next()
            .is_some_and(|c| c.is_ascii_alphanumeric()),
        "{name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is a network's name"
    );
    Ok(())
}

#[cfg(test)]
impl Definition {
    pub fn of_tests() -> Definition {
        let wish = Wish {
            name: "test".to_owned(),
            ipv6: true,
            ..Wish::default()
        };
        plan(wish, &[], &[], |_| Ok(false)).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Wish {
        Wish {
            name: name.to_owned(),
            ..Wish::default()
        }
    }

    #[test]
    fn the_first_subnet_that_nobody_has_is_taken() {
        let first = Definition::of_tests();
        assert_eq!(first.subnet.to_string(), "10.89.0.0/22");
        assert_eq!(first.gateway.to_string(), "10.89.0.1");
        assert!(first.subnet6.unwrap().to_string().starts_with("fd"));
        let routed = ["10.89.5.0/24".parse().unwrap()];
        let second = plan(named("b"), &[first], &routed, |name| Ok(name == "sc1")).unwrap();
        assert_eq!(
            (second.subnet.to_string().as_str(), second.device.as_str()),
            ("10.89.8.0/22", "sc2")
        );
        assert_eq!(second.subnet6, None);
    }

    #[test]
    fn a_network_whose_place_was_taken_finds_another() {
        let default = Definition {
            name: DEFAULT.to_owned(),
            ..Definition::of_tests()
        };
        for (routed, devices, device, subnet) in [
            (&["10.0.0.0/8"][..], &[][..], "sc0", "10.89.0.0/22"),
            (&["10.89.4.0/22"], &["sc0", "sc1"], "sc2", "10.89.0.0/22"),
            (&["10.89.0.0/22"], &["sc0"], "sc1", "10.89.4.0/22"),
            (
                &["10.89.1.0/24", "10.89.4.0/22"],
                &[],
                "sc0",
                "10.89.8.0/22",
            ),
        ] {
            let routed: Vec<Subnet> = routed.iter().map(|text| text.parse().unwrap()).collect();
            let (found, note) =
                place(&default, &[], &routed, |name| Ok(devices.contains(&name))).unwrap();
            assert_eq!(
                (found.device.as_str(), found.subnet.to_string().as_str()),
                (device, subnet)
            );
            assert_eq!(note.is_some(), found.subnet != default.subnet);
            assert!(found.subnet.contains(found.gateway) && found.subnet6 == default.subnet6);
        }
        let routed = ["10.89.0.0/24".parse().unwrap()];
        let error = place(&Definition::of_tests(), &[], &routed, |_| Ok(false)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network test: this host reaches 10.89.0.0/24 elsewhere by now: `sc network rm test` and make it again with another --subnet"
        );
    }

    #[test]
    fn what_cannot_be_is_told() {
        let subnet = |text: &str| Wish {
            subnet: text.parse().ok(),
            ..named("b")
        };
        let gateway = Wish {
            gateway: Some([10, 1, 0, 255].into()),
            ..subnet("10.1.0.0/24")
        };
        for (wish, message) in [
            (
                subnet("10.89.0.0/16"),
                "--subnet 10.89.0.0/16: it overlaps that of the network test: choose another",
            ),
            (
                subnet("192.168.0.0/16"),
                "--subnet 192.168.0.0/16: this host reaches 192.168.7.0/24 elsewhere: choose another",
            ),
            (
                subnet("10.1.0.0/31"),
                "--subnet 10.1.0.0/31: IPv4 and at most /30 is needed",
            ),
            (
                gateway,
                "--gateway 10.1.0.255 is no address of a host in 10.1.0.0/24",
            ),
        ] {
            let routed = ["192.168.7.0/24".parse().unwrap()];
            let error = plan(wish, &[Definition::of_tests()], &routed, |_| Ok(false)).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }
}
