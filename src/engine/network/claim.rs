//! Which address of a network has which container? A link in `STATE/networks/NETWORK`, named as the container's
//! device at the bridge, to the container's directory.
//!
//! The device's name has the address in it: `sc` 0a590002 `3f9a1`, the last digits at random, as the device of an
//! ended container stays for a moment. So the names alone say what is taken, and the devices of the bridge which of
//! it still is: the kernel removes a container's device with its namespace, whoever was killed, and a claim without
//! a device is nobody's.
//!
//! What a container was given is in `network.json` of its own directory.

use super::address::Subnet;
use super::definition::Definition;
use super::ports::Port;
use super::rules::Published;
use crate::engine::record::{Home, random};
use crate::sys::file;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// A container in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network: String,
    /// Its device at the bridge.
    pub device: String,
    /// Its device inside.
    pub inside: String,
    pub address: Ipv4Addr,
    pub address6: Option<Ipv6Addr>,
    pub mac: String,
    /// Other names that it has there.
    pub aliases: Vec<String>,
}

/// All that a container was given when it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Given {
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Port>,
    /// The host, seen from there.
    pub gateway: Option<IpAddr>,
    /// Whom its questions for names of others go to; none: to the host's.
    pub dns: Vec<IpAddr>,
}

impl Given {
    /// `None`: it has no network of ours.
    pub fn load(dir: &Path) -> Option<Given> {
        serde_json::from_slice(&fs::read(dir.join("network.json")).ok()?).ok()
    }

    pub fn save(&self, dir: &Path) -> Result<()> {
        let (new, path) = (dir.join("network.new"), dir.join("network.json"));
        fs::write(&new, serde_json::to_vec(self)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    pub fn forget(dir: &Path) {
        // A container that is removed has none any more.
        let _ = fs::remove_file(dir.join("network.json"));
    }

    /// What the rules of a network must know: ports lead to the first network.
    pub fn published(&self, network: &str) -> Vec<Published> {
        let first = self
            .endpoints
            .first()
            .filter(|first| first.network == network);
        let to = |endpoint: &Endpoint| {
            let (v4, v6) = (endpoint.address.into(), endpoint.address6.map(IpAddr::from));
            let ports = self.ports.iter();
            ports
                .map(move |port| Published {
                    port: *port,
                    v4,
                    v6,
                })
                .collect()
        };
        first.map(to).unwrap_or_default()
    }
}

/// A name in a network's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub device: String,
    pub address: Ipv4Addr,
}

impl Claim {
    fn parse(name: &str) -> Option<Claim> {
        let digits = name.strip_prefix("sc").filter(|rest| rest.len() == 13)?;
        let address = u32::from_str_radix(digits.get(..8)?, 16).ok()?;
        Some(Claim {
            device: name.to_owned(),
            address: address.into(),
        })
    }
}

/// The claims of all networks, locked: whoever changes one, or a bridge, holds this.
pub struct Claims<'a> {
    pub home: &'a Home,
    _lock: File,
}

pub fn state(home: &Home) -> PathBuf {
    home.state.join("networks")
}

/// The file that is locked while a network's resolver lives.
pub fn resolver(home: &Home, network: &str) -> PathBuf {
    state(home).join(format!("{network}.resolver"))
}

impl Claims<'_> {
    pub fn lock(home: &Home) -> Result<Claims<'_>> {
        let dir = state(home);
        DirBuilder::new().mode(0o700).recursive(true).create(&dir)?;
        let claims = Claims::lock_if_there(home)?;
        claims.with_context(|| format!("{} was removed", dir.display()))
    }

    /// `None`: there are none, nor a place for them.
    pub fn lock_if_there(home: &Home) -> Result<Option<Claims<'_>>> {
        let lock = match File::open(state(home)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        file::lock(lock.as_fd())?;
        Ok(Some(Claims { home, _lock: lock }))
    }

    fn dir(&self, network: &str) -> PathBuf {
        state(self.home).join(network)
    }

    pub fn of(&self, network: &str) -> Result<Vec<Claim>> {
        let entries = match fs::read_dir(self.dir(network)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| Claim::parse(&name)).collect())
    }

    /// What the container behind a claim was given; `None`: it is gone.
    pub fn given(&self, network: &str, claim: &Claim) -> Option<Given> {
        Given::load(&self.dir(network).join(&claim.device))
    }

    /// All that is published in a network.
    pub fn published(&self, network: &str) -> Result<Vec<Published>> {
        let claims = self.of(network)?;
        let given = claims.iter().filter_map(|claim| self.given(network, claim));
        Ok(given.flat_map(|given| given.published(network)).collect())
    }

    pub fn release(&self, network: &str, device: &str) -> Result<()> {
        let path = self.dir(network).join(device);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Claims an address for the container of `dir`: the one asked for, or the next after that given last. The last
    /// ones given away come last again: who remembers an address is not to find another behind it.
    pub fn make(
        &self,
        network: &Definition,
        dir: &Path,
        wanted: Option<Ipv4Addr>,
    ) -> Result<Claim> {
        let claims = self.of(&network.name)?;
        let taken: Vec<Ipv4Addr> = claims.iter().map(|claim| claim.address).collect();
        let own = self.dir(&network.name);
        let last_file = own.join("last");
        let last = fs::read_to_string(&last_file).ok();
        let last = last.and_then(|text| text.trim().parse::<Ipv4Addr>().ok());
        let address = choose(&network.subnet, network.gateway, &taken, wanted, last)
            .with_context(|| format!("network {}", network.name))?;
        DirBuilder::new().mode(0o700).recursive(true).create(&own)?;
        let random = random()?;
        let random = u32::from_le_bytes([random[0], random[1], random[2], 0]) >> 4;
        let claim = Claim {
            device: format!("sc{:08x}{random:05x}", u32::from(address)),
            address,
        };
        symlink(dir, own.join(&claim.device)).context("claim an address")?;
        if wanted.is_none() {
            fs::write(last_file, address.to_string())?;
        }
        Ok(claim)
    }

    /// The bridge is gone: so is all that was known of it.
    pub fn forget(&self, network: &str) {
        // What stays is in nobody's way.
        let _ = fs::remove_dir_all(self.dir(network));
        let _ = fs::remove_file(resolver(self.home, network));
    }
}

fn choose(
    subnet: &Subnet,
    gateway: IpAddr,
    taken: &[Ipv4Addr],
    wanted: Option<Ipv4Addr>,
    last: Option<Ipv4Addr>,
) -> Result<Ipv4Addr> {
    let is_free =
        |address: &Ipv4Addr| IpAddr::from(*address) != gateway && !taken.contains(address);
    if let Some(wanted) = wanted {
        let number = subnet.host_of(wanted.into());
        ensure!(
            subnet.contains(wanted.into()) && (1..=subnet.last_host()).contains(&number),
            "--ip {wanted} is no address of a host in {subnet}"
        );
        ensure!(is_free(&wanted), "--ip {wanted} is taken");
        return Ok(wanted);
    }
    let after = last.map_or(0, |last| subnet.host_of(last.into()));
    let count = subnet.last_host();
    let found = (0..count)
        .map(|step| (after + step) % count + 1)
        .filter_map(|number| match subnet.host(number) {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
        .find(is_free);
    match found {
        Some(address) => Ok(address),
        None => bail!(
            "all {count} addresses of {subnet} are taken: make a network with a wider --subnet"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_free_address_after_the_last_is_chosen() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let host = |number: u8| Ipv4Addr::from([10, 0, 0, number]);
        let chosen = |taken: &[u8], wanted: Option<u8>, last: Option<u8>| {
            let taken: Vec<_> = taken.iter().map(|n| host(*n)).collect();
            choose(
                &subnet,
                host(1).into(),
                &taken,
                wanted.map(host),
                last.map(host),
            )
        };
        for (taken, wanted, last, expected) in [
            (&[][..], None, None, Some(2)),
            (&[2], None, Some(2), Some(3)),
            (&[2, 4], None, Some(6), Some(3)),
            (&[2, 3, 4, 5, 6], None, Some(6), None),
            (&[], Some(5), Some(2), Some(5)),
            (&[5], Some(5), None, None),
            (&[], Some(1), None, None),
            (&[], Some(7), None, None),
            (&[], Some(0), None, None),
        ] {
            assert_eq!(
                chosen(taken, wanted, last).ok(),
                expected.map(host),
                "{taken:?} {wanted:?} {last:?}"
            );
        }
    }

    #[test]
    fn a_claim_is_named_by_its_address() {
        let claim = Claim::parse("sc0a590002abcde").unwrap();
        assert_eq!(claim.address, Ipv4Addr::from([10, 89, 0, 2]));
        for other in [
            "last",
            "sc0a590002",
            "sc0a59000gabcde",
            "",
            "scéééééééééééé",
        ] {
            assert_eq!(Claim::parse(other), None, "{other}");
        }
    }
}
