//! What was asked for, as the record keeps it.

use super::ports::Port;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    pub mode: Mode,
    /// The networks of `Mode::Bridge`; ports are published in the first.
    pub joins: Vec<Join>,
    pub ports: Vec<Port>,
    pub dns: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// Name and address, or `host-gateway`.
    pub hosts: Vec<(String, String)>,
    pub hostname: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Loopback.
    #[default]
    None,
    Host,
    /// As config.json says.
    Bundle,
    Bridge,
    /// pasta or slirp4netns: sockets of a user's program.
    User,
    /// That of the container with this id.
    Container(String),
    /// The namespace at this path.
    Namespace(PathBuf),
}

impl Mode {
    /// docker's words.
    pub fn name(&self) -> String {
        match self {
            Mode::None | Mode::Bundle => "none".to_owned(),
            Mode::Host => "host".to_owned(),
            Mode::Bridge => "bridge".to_owned(),
            Mode::User => "pasta".to_owned(),
            Mode::Container(id) => format!("container:{id}"),
            Mode::Namespace(path) => format!("ns:{}", path.display()),
        }
    }

    /// Is its namespace there before the container is, at `netns` in the container's directory?
    pub fn is_prepared(&self) -> bool {
        !matches!(self, Mode::None | Mode::Host | Mode::Bundle | Mode::User)
    }

    /// Is that namespace made for this container?
    pub fn is_own(&self) -> bool {
        *self == Mode::Bridge
    }
}

impl Wanted {
    /// As `ps` and `inspect` name it.
    pub fn name(&self) -> String {
        match self.joins.is_empty() {
            true => self.mode.name(),
            false => {
                let names = self.joins.iter().map(|join| join.network.as_str());
                names.collect::<Vec<_>>().join(",")
            }
        }
    }
}

/// A network to be in, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Join {
    pub network: String,
    pub address: Option<Ipv4Addr>,
    pub address6: Option<Ipv6Addr>,
    pub mac: Option<String>,
    pub aliases: Vec<String>,
}

impl Join {
    pub fn of(network: &str) -> Join {
        Join {
            network: network.to_owned(),
            ..Join::default()
        }
    }
}
