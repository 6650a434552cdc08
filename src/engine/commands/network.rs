//! `network`: networks made, listed, removed; containers put into them and taken out.

use crate::engine::cli::{Global, tell};
use crate::engine::network::address::Subnet;
use crate::engine::network::bridge;
use crate::engine::network::claim::{Claims, Given};
use crate::engine::network::definition::{self, DEFAULT, Definition, Wish};
use crate::engine::network::live;
use crate::engine::network::wanted::{Join, Mode};
use crate::engine::network::world;
use crate::engine::now;
use crate::engine::record::{Home, Record, short};
use crate::engine::table::{Column, Format};
use crate::show;
use crate::sys::netlink::Route;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Networks of containers
#[derive(Debug, Args)]
pub struct Network {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a network; print its id
    Create(Create),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove networks that no container uses
    #[command(visible_alias = "remove")]
    Rm {
        /// Those that are not there are no error
        #[arg(short, long)]
        force: bool,
        #[arg(value_name = "NETWORK", required = true)]
        names: Vec<String>,
    },
    /// Print all that is known of networks, as JSON
    Inspect {
        #[arg(value_name = "NETWORK", required = true)]
        names: Vec<String>,
    },
    /// Remove all networks that no container uses, and what killed commands left of others
    Prune {
        /// It never asks: for docker's sake
        #[arg(short, long)]
        force: bool,
    },
    /// Put a container into one more network, at once if it runs
    Connect(Connect),
    /// Take a container out of a network, at once if it runs
    Disconnect {
        #[arg(short, long, hide = true)]
        force: bool,
        network: String,
        container: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// 10.1.2.0/24; again for one of IPv6 [default: one that is free]
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<Subnet>,
    /// The host's address in it [default: the first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// IPv6 too
    #[arg(long)]
    ipv6: bool,
    /// Without a way out or in
    #[arg(long)]
    internal: bool,
    /// KEY or KEY=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// Only bridge
    #[arg(short, long, default_value = "bridge", value_name = "DRIVER")]
    driver: String,
    name: String,
}

#[derive(Debug, Args)]
struct Ls {
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: Format,
    /// Ids in full
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Debug, Args)]
struct Connect {
    /// The container's IPv4 address there
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The container's IPv6 address there
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Another name to be found by there
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    network: String,
    container: String,
}

impl Network {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let reads = matches!(
            self.verb,
            Verb::Create(_) | Verb::Ls(_) | Verb::Inspect { .. }
        );
        if !reads && !geteuid().is_root() {
            // Without a world there are no bridges, only definitions.
            world::visit(&home)?;
        }
        match &self.verb {
            Verb::Create(create) => create.run(&home),
            Verb::Ls(ls) => ls.run(&home),
            Verb::Rm { force, names } => super::every(names, |name| {
                match *force && definition::seek(&home, name)?.is_none() {
                    true => Ok(()),
                    false => remove(&home, name),
                }
            }),
            Verb::Inspect { names } => inspect(&home, names),
            Verb::Prune { force: _ } => {
                for name in prune(&home)? {
                    crate::show::line(&name)?;
                }
                Ok(0)
            }
            Verb::Connect(connect) => connect.run(&home),
            Verb::Disconnect {
                network, container, ..
            } => disconnect(&home, network, container),
        }
    }
}

impl Create {
    fn run(&self, home: &Home) -> Result<u8> {
        ensure!(
            self.driver == "bridge",
            "--driver {}: only bridge is offered",
            self.driver
        );
        let of = |v4: bool| {
            let mut all = self
                .subnet
                .iter()
                .filter(move |subnet| subnet.is_v4() == v4);
            let first = all.next().copied();
            ensure!(
                all.next().is_none(),
                "--subnet: one of IPv4 and one of IPv6 at most"
            );
            Ok(first)
        };
        let split = |label: &String| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            (key.to_owned(), value.to_owned())
        };
        let wish = Wish {
            name: self.name.clone(),
            subnet: of(true)?,
            gateway: self.gateway,
            subnet6: of(false)?,
            ipv6: self.ipv6,
            internal: self.internal,
            labels: self.label.iter().map(split).collect(),
        };
        let claims = Claims::lock(home)?;
        crate::show::line(bridge::create(&claims, wish)?.id)?;
        Ok(0)
    }
}

impl Ls {
    fn run(&self, home: &Home) -> Result<u8> {
        let all = definition::list(home)?;
        let id = |network: &Definition| match self.no_trunc {
            true => network.id.clone(),
            false => short(&network.id).to_owned(),
        };
        let row = |network: &Definition| {
            json!({
                "ID": id(network), "Name": network.name, "Driver": "bridge", "Scope": "local",
                "Internal": network.internal, "IPv6": network.subnet6.is_some(), "Labels": network.labels,
                "CreatedAt": network.created, "Subnet": network.subnet,
            })
        };
        let text = match self.quiet {
            true => (all.iter().map(|network| format!("{}\n", id(network)))).collect(),
            false => self
                .format
                .list(&COLUMNS, &all.iter().map(row).collect::<Vec<_>>())?,
        };
        show::print(&text)?;
        Ok(0)
    }
}

const COLUMNS: [Column; 4] = [
    ("NETWORK ID", "ID"),
    ("NAME", "Name"),
    ("DRIVER", "Driver"),
    ("SUBNET", "Subnet"),
];

/// Which containers want it, running or not?
fn users(home: &Home, network: &str) -> Result<Vec<Record>> {
    let mut records = home.list()?;
    let wants = |record: &Record| {
        record
            .networks
            .joins
            .iter()
            .any(|join| join.network == network)
    };
    records.retain(wants);
    Ok(records)
}

fn remove(home: &Home, name: &str) -> Result<()> {
    let network = definition::find(home, name)?;
    let claims = Claims::lock(home)?;
    if let Some(user) = users(home, &network.name)?.first() {
        bail!(
            "network {} is used by container {}: `sc network disconnect {0} {1}` or `sc rm -f {1}` first",
            network.name,
            user.name
        );
    }
    take_down(&claims, &network)?;
    definition::forget(home, &network.name)
}

fn take_down(claims: &Claims, network: &Definition) -> Result<()> {
    match geteuid().is_root() {
        true => bridge::take_down(claims, &Route::open()?, network),
        // Where an ordinary user still is one, there is no bridge.
        false => {
            claims.forget(&network.name);
            Ok(())
        }
    }
}

/// Removes all that no container uses: their names.
pub fn prune(home: &Home) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    for network in definition::list(home)? {
        if !users(home, &network.name)?.is_empty() {
            continue;
        }
        if network.name == DEFAULT {
            // The definition stays, and with it the addresses that people know; what is on the host is made again.
            let claims = Claims::lock(home)?;
            take_down(&claims, &network)?;
            continue;
        }
        remove(home, &network.name)?;
        gone.push(network.name);
    }
    Ok(gone)
}

fn inspect(home: &Home, names: &[String]) -> Result<u8> {
    let (mut found, mut status) = (Vec::new(), 0);
    for name in names {
        match describe(home, name) {
            Ok(value) => found.push(value),
            Err(e) => {
                tell(&e);
                status = 1;
            }
        }
    }
    crate::show::print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    Ok(status)
}

pub fn describe(home: &Home, name: &str) -> Result<Value> {
    let network = match name {
        DEFAULT => bridge::definition(&Claims::lock(home)?, DEFAULT)?,
        _ => definition::find(home, name)?,
    };
    let mut containers = serde_json::Map::new();
    for record in users(home, &network.name)? {
        let given = Given::load(&home.dir(&record.id)).unwrap_or_default();
        let own = |endpoint: &&_| is_in(endpoint, &network.name);
        if let Some(endpoint) = given.endpoints.iter().find(own) {
            let v6 = endpoint.address6.zip(network.subnet6);
            containers.insert(
                record.id.clone(),
                json!({
                    "Name": record.name,
                    "MacAddress": endpoint.mac,
                    "IPv4Address": format!("{}/{}", endpoint.address, network.subnet.prefix()),
                    "IPv6Address": v6.map(|(address, subnet)| format!("{address}/{}", subnet.prefix())).unwrap_or_default(),
                }),
            );
        }
    }
    let ipam = [
        Some((network.subnet, network.gateway)),
        network.subnet6.zip(network.gateway6),
    ];
    let ipam: Vec<Value> = ipam
        .into_iter()
        .flatten()
        .map(|(subnet, gateway)| json!({ "Subnet": subnet, "Gateway": gateway }))
        .collect();
    Ok(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": network.subnet6.is_some(),
        "IPAM": { "Driver": "default", "Config": ipam },
        "Internal": network.internal,
        "Containers": containers,
        "Options": { "com.docker.network.bridge.name": network.device },
        "Labels": network.labels,
    }))
}

fn is_in(endpoint: &crate::engine::network::claim::Endpoint, network: &str) -> bool {
    endpoint.network == network
}

impl Connect {
    fn run(&self, home: &Home) -> Result<u8> {
        let record = home.find(&self.container)?;
        let network = match self.network.as_str() {
            DEFAULT => DEFAULT.to_owned(),
            name => definition::find(home, name)?.name,
        };
        ensure!(
            matches!(record.networks.mode, Mode::Bridge),
            "container {} has --network {}, which goes with no other",
            record.name,
            record.networks.name()
        );
        let joins = &record.networks.joins;
        ensure!(
            joins.iter().all(|join| join.network != network),
            "container {} is in the network {network} already",
            record.name
        );
        let join = Join {
            address: self.ip,
            address6: self.ip6,
            aliases: self.alias.clone(),
            ..Join::of(&network)
        };
        if now::now(home, &record)?.is_alive() {
            for note in live::connect(home, &record, &join)? {
                eprintln!("sc: {}", show::printable(&note));
            }
        }
        home.change(&record.id, |record| record.networks.joins.push(join))?;
        Ok(0)
    }
}

fn disconnect(home: &Home, network: &str, container: &str) -> Result<u8> {
    let record = home.find(container)?;
    let joins = &record.networks.joins;
    let name = match joins.iter().find(|join| join.network == network) {
        Some(join) => join.network.clone(),
        None => definition::find(home, network)?.name,
    };
    joins
        .iter()
        .find(|join| join.network == name)
        .with_context(|| format!("container {} is not in the network {name}", record.name))?;
    live::disconnect(home, &record, &name)?;
    home.change(&record.id, |record| {
        record.networks.joins.retain(|join| join.network != name);
    })?;
    Ok(0)
}
