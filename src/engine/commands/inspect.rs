//! `inspect`: all that is known of containers, in docker's keys.

use crate::engine::cli::{Global, tell};
use crate::engine::network::claim::Given;
use crate::engine::programs::{self, Now};
use crate::engine::record::{Home, Record};
use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Print all that is known of containers, as JSON
#[derive(Debug, Args)]
pub struct Inspect {
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Inspect {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let (mut found, mut status) = (Vec::new(), 0);
        for name in &self.containers {
            match describe(&home, name) {
                Ok(value) => found.push(value),
                Err(e) => {
                    tell(&e);
                    status = 1;
                }
            }
        }
        println!("{}", serde_json::to_string_pretty(&found)?);
        Ok(status)
    }
}

/// docker's NetworkSettings: what it was given, while it runs.
fn network(dir: &Path, record: &Record, alive: bool) -> Value {
    let given = Given::load(dir).filter(|_| alive).unwrap_or_default();
    let (mut networks, mut ports) = (Map::new(), Map::new());
    for join in &record.networks.joins {
        let own = given
            .endpoints
            .iter()
            .find(|endpoint| endpoint.network == join.network);
        networks.insert(join.network.clone(), json!({
            "IPAddress": own.map(|own| own.address.to_string()).unwrap_or_default(),
            "GlobalIPv6Address": own.and_then(|own| own.address6).map(|v6| v6.to_string()).unwrap_or_default(),
            "MacAddress": own.map(|own| own.mac.as_str()).unwrap_or_default(),
            "Aliases": join.aliases,
        }));
    }
    for port in &given.ports {
        let bindings = ports.entry(port.to_string()).or_insert_with(|| json!([]));
        for place in port.addresses() {
            let binding = json!({ "HostIp": place.ip(), "HostPort": place.port().to_string() });
            bindings
                .as_array_mut()
                .into_iter()
                .for_each(|all| all.push(binding.clone()));
        }
    }
    let first = given.endpoints.first();
    json!({
        "IPAddress": first.map(|first| first.address.to_string()).unwrap_or_default(),
        "Gateway": given.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        "MacAddress": first.map(|first| first.mac.as_str()).unwrap_or_default(),
        "Ports": ports,
        "Networks": networks,
    })
}

fn describe(home: &Home, name: &str) -> Result<Value> {
    let record = home.find(name)?;
    let now = programs::now(home, &record)?;
    let pid = match now.is_alive() {
        true => programs::state(home, &record)?.and_then(|state| state.pid),
        false => None,
    };
    let exit = match now {
        Now::Exited(exit) => json!(exit),
        _ => json!(0),
    };
    let dir = home.dir(&record.id);
    let config: Value = serde_json::from_slice(&fs::read(dir.join("bundle/config.json"))?)?;
    Ok(json!({
        "Id": record.id,
        "Name": record.name,
        "Created": record.created,
        "Path": record.command.first(),
        "Args": record.command.iter().skip(1).collect::<Vec<_>>(),
        "Image": record.image,
        "State": {
            "Status": now.word(),
            "Running": now.is_alive(),
            "Paused": now == Now::Paused,
            "Pid": pid.unwrap_or(0),
            "ExitCode": exit,
            "StartedAt": record.started,
            "FinishedAt": record.finished,
        },
        "Config": {
            "Hostname": config["hostname"],
            "User": config["process"]["user"],
            "Env": config["process"]["env"],
            "Cmd": record.command,
            "WorkingDir": config["process"]["cwd"],
            "Labels": record.labels,
            "Tty": record.terminal,
            "OpenStdin": record.interactive,
        },
        "HostConfig": {
            "NetworkMode": record.networks.name(),
            "AutoRemove": record.remove,
            "Runtime": record.runtime,
            "ReadonlyRootfs": config["root"]["readonly"].as_bool().unwrap_or(false),
            "Resources": config["linux"]["resources"],
        },
        "NetworkSettings": network(&home.dir(&record.id), &record, now.is_alive()),
        "Mounts": config["mounts"],
        "LogPath": dir.join("log.json"),
        "Bundle": dir.join("bundle"),
    }))
}
