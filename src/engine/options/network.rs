//! Options that say which network a container has.

use crate::engine::config::Wishes;
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub struct Network {
    /// none: loopback only; host: no network of its own, all of the host's
    #[arg(long, value_enum, default_value_t)]
    pub network: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Kind {
    // Never weaker than what was asked for: a container that has too little network says so at once.
    #[default]
    None,
    Host,
}

impl Network {
    pub fn wish(&self, wishes: &mut Wishes) {
        wishes.host_network = self.network == Kind::Host;
    }

    /// As the record and `inspect` name it.
    pub fn name(&self) -> &'static str {
        match self.network {
            Kind::None => "none",
            Kind::Host => "host",
        }
    }
}
