//! `port`: which ports of a container are published, and where.

use crate::engine::cli::Global;
use crate::engine::network::claim::Given;
use crate::engine::network::ports::{self, Port};
use crate::engine::now;
use anyhow::{Context, Result, ensure};
use clap::Args;

/// List the published ports of a container
#[derive(Debug, Args)]
pub struct PortVerb {
    /// Name, id or beginning of an id
    container: String,
    /// Only this one
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

impl PortVerb {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let record = home.find(&self.container)?;
        ensure!(
            now::now(&home, &record)?.is_alive(),
            "container {} does not run: `sc start {0}` starts it",
            record.name
        );
        let given = Given::load(&home.dir(&record.id)).unwrap_or_default();
        let Some(wanted) = &self.port else {
            let each = |port: &Port, place| format!("{port} -> {place}\n");
            crate::show::print(&lines(given.ports.iter(), each))?;
            return Ok(0);
        };
        let wanted = ports::parse_exposed(wanted)?;
        let wanted = wanted.first().context("which port?")?;
        let same =
            |port: &&Port| (port.container, port.protocol) == (wanted.container, wanted.protocol);
        let text = lines(given.ports.iter().filter(same), |_, place| {
            format!("{place}\n")
        });
        ensure!(
            !text.is_empty(),
            "container {} does not publish {wanted}; `sc port {0}` lists what it does",
            record.name
        );
        crate::show::print(&text)?;
        Ok(0)
    }
}

fn lines<'a>(
    ports: impl Iterator<Item = &'a Port>,
    line: impl Fn(&Port, std::net::SocketAddr) -> String,
) -> String {
    let each = |port: &'a Port| {
        let places = port.addresses().into_iter();
        places.map(|place| line(port, place)).collect::<String>()
    };
    ports.map(each).collect()
}
