//! `inspect`: all that is known of a thing, in docker's keys. What is no container may be something else.

use crate::engine::cli::{Global, tell};
use crate::engine::log;
use crate::engine::network::claim::Given;
use crate::engine::now::{self, Now};
use crate::engine::options::mounts::described;
use crate::engine::programs;
use crate::engine::record::{Home, Record, Restart};
use crate::engine::template::Template;
use crate::show;
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Print all that is known of containers, images, networks or volumes, as JSON
#[derive(Debug, Args)]
pub struct Inspect {
    /// A template like '{{.State.Status}}', for each
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// With the sizes of what containers wrote
    #[arg(short, long)]
    size: bool,
    /// [default: the first that has the name, in this order]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<Kind>,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Inspect {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let (mut found, mut status) = (Vec::new(), 0);
        for name in &self.names {
            match self.one(&home, name) {
                Ok(value) => found.push(value),
                Err(e) => {
                    tell(&e);
                    status = 1;
                }
            }
        }
        match self.format.as_deref() {
            None | Some("json") => {
                show::print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
            }
            Some(text) => {
                let template = Template::parse(text)?;
                for value in &found {
                    show::print(&format!("{}\n", template.render(value)?))?;
                }
            }
        }
        Ok(status)
    }

    /// The first thing of that name, in docker's order.
    fn one(&self, home: &Home, name: &str) -> Result<Value> {
        let mut last = None;
        for kind in [Kind::Container, Kind::Image, Kind::Network, Kind::Volume] {
            if self.kind.is_some_and(|wanted| wanted != kind) {
                continue;
            }
            match self.describe(home, name, kind) {
                Ok(value) => return Ok(value),
                Err(e) => last = Some(e),
            }
        }
        match (self.kind, last) {
            (Some(_), Some(e)) => Err(e),
            _ => bail!(
                "no such container, image, network or volume: {name}; `sc ps -a` and `sc images` list them"
            ),
        }
    }

    fn describe(&self, home: &Home, name: &str, kind: Kind) -> Result<Value> {
        match kind {
            Kind::Container => {
                let record = home.find(name)?;
                let mut value = describe(home, &record)?;
                if self.size {
                    value["SizeRw"] = json!(super::ps::size(&home.dir(&record.id).join("upper")));
                }
                Ok(value)
            }
            Kind::Image => image(home, name),
            Kind::Network => super::network::describe(home, name),
            Kind::Volume => super::volume::describe(home, name)?
                .with_context(|| format!("get {name}: no such volume")),
        }
    }
}

fn image(home: &Home, name: &str) -> Result<Value> {
    let mut program = programs::image(&home.root);
    let output = program
        .args(["inspect", name])
        .stdin(Stdio::null())
        .output();
    let output = output.context("execute sc-image")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or("failed");
        bail!("{}", last.trim_start_matches("sc-image: "));
    }
    let mut all: Vec<Value> = serde_json::from_slice(&output.stdout).context("sc-image inspect")?;
    all.pop().context("sc-image inspect said nothing")
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

pub fn describe(home: &Home, record: &Record) -> Result<Value> {
    let now = now::now(home, record)?;
    let dir = home.dir(&record.id);
    let path = dir.join("bundle/config.json");
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    let config: Value =
        serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let restarts = match record.restart {
        Restart::OnFailure(most) => most,
        _ => 0,
    };
    let mut value = json!({
        "Id": record.id,
        "Name": record.name,
        "Created": record.created,
        "Path": record.command.first(),
        "Args": record.command.iter().skip(1).collect::<Vec<_>>(),
        "Image": record.image,
        "RestartCount": record.restarts,
        "State": state(record, &now),
        "Config": {
            "Hostname": config["hostname"],
            "User": config["process"]["user"],
            "Env": config["process"]["env"],
            "Cmd": record.command,
            "WorkingDir": config["process"]["cwd"],
            "Labels": record.labels,
            "Tty": record.terminal,
            "OpenStdin": record.interactive,
            "StdinOnce": record.stdin_once,
            "StopSignal": record.stop_signal,
            "StopTimeout": record.stop_timeout,
            "Healthcheck": record.health.as_ref().map(|health| json!({
                "Test": health.command,
                "Interval": health.interval,
                "Timeout": health.timeout,
                "StartPeriod": health.start_period,
                "Retries": health.retries,
            })),
        },
        "HostConfig": {
            "NetworkMode": record.networks.name(),
            "UsernsMode": match (record.ids, record.kept) {
                (Some(_), _) => "auto",
                (_, Some(_)) => "keep-id",
                _ => "",
            },
            "IDMappings": record.ids.map(|ids| json!({
                "UidMap": [format!("0:{}:{}", ids.uid, ids.size)],
                "GidMap": [format!("0:{}:{}", ids.gid, ids.size)],
            })),
            "AutoRemove": record.remove,
            "RestartPolicy": { "Name": record.restart.name(), "MaximumRetryCount": restarts },
            "LogConfig": {
                "Type": record.log.driver.name(),
                "Config": { "max-size": record.log.max_size.to_string(), "max-file": record.log.max_file.to_string() },
            },
            "Runtime": record.runtime,
            "ReadonlyRootfs": config["root"]["readonly"].as_bool().unwrap_or(false),
            "Resources": config["linux"]["resources"],
        },
        "NetworkSettings": network(&dir, record, now.is_alive()),
        "Mounts": described(home, &record.mounts),
        "LogPath": log::rotated(&dir.join("log.json"), 0),
        "Bundle": dir.join("bundle"),
    });
    if let Some(health) = &record.healthy {
        value["State"]["Health"] = json!(health);
    }
    Ok(value)
}

fn state(record: &Record, now: &Now) -> Value {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let exit = match now {
        Now::Exited(exit) | Now::Restarting(exit) => json!(exit),
        _ => json!(0),
    };
    let process = record.process.as_ref().filter(|_| now.is_alive());
    json!({
        "Status": now.word(),
        "Running": now.is_alive(),
        "Paused": *now == Now::Paused,
        "Restarting": matches!(now, Now::Restarting(_)),
        "OOMKilled": record.oom_killed,
        "Pid": process.map_or(0, |process| process.pid),
        "CgroupPath": process.and_then(|process| process.cgroup.as_ref()),
        "ExitCode": exit,
        "Error": record.error,
        "StartedAt": record.started.as_deref().unwrap_or(NEVER),
        "FinishedAt": record.finished.as_deref().unwrap_or(NEVER),
    })
}
