//! `inspect`: all that is known of containers, in docker's keys.

use crate::engine::cli::{Global, tell};
use crate::engine::programs::{self, Now};
use crate::engine::record::Home;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::fs;

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
        "Mounts": config["mounts"],
        "LogPath": dir.join("log.json"),
        "Bundle": dir.join("bundle"),
    }))
}
