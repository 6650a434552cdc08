//! `container prune`, `system prune|info`: what may go, what there is.

use super::{df, network, ps};
use crate::engine::cli::Global;
use crate::engine::control;
use crate::engine::filter::Filters;
use crate::engine::network::bridge;
use crate::engine::now::{self, Now};
use crate::engine::programs;
use crate::engine::record::{Home, Record};
use crate::engine::table::Format;
use crate::engine::times;
use crate::engine::volumes;
use crate::{clock, show};
use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

/// Remove all containers that do not run
#[derive(Debug, Args)]
pub struct Prune {
    /// Without asking
    #[arg(short, long)]
    force: bool,
    /// until=TIME, label=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// The whole: what it takes, what may go, what there is
#[derive(Debug, Args)]
pub struct System {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Remove what nothing uses, and what killed processes or a reboot left
    Prune(All),
    /// Show what takes how much of the disk
    Df(df::Df),
    Info(Info),
}

#[derive(Debug, Args)]
struct All {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Without asking
    #[arg(short, long)]
    force: bool,
    /// And volumes that no container has and nobody named
    #[arg(long)]
    volumes: bool,
    /// until=TIME, label=KEY[=VALUE]; of containers
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Show what this machine and installation are
#[derive(Debug, Args)]
pub struct Info {
    #[command(flatten)]
    format: Format,
}

impl Prune {
    pub fn run(&self, global: &Global) -> Result<u8> {
        if !agreed(self.force, "all containers that do not run")? {
            return Ok(1);
        }
        prune_containers(&global.home()?, &self.filter)
    }
}

impl System {
    pub fn run(&self, global: &Global) -> Result<u8> {
        match &self.verb {
            Verb::Prune(verb) => verb.run(global),
            Verb::Df(verb) => verb.run(global),
            Verb::Info(verb) => verb.run(global),
        }
    }
}

/// On a terminal a person is asked; a script has to say --force.
fn agreed(force: bool, what: &str) -> Result<bool> {
    if force {
        return Ok(true);
    }
    ensure!(
        std::io::stdin().is_terminal(),
        "this removes {what}: type --force, as nobody can be asked"
    );
    crate::show::print(&format!("This removes {what}. Are you sure? [y/N] "))?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn prune_containers(home: &Home, filter: &[String]) -> Result<u8> {
    let filters = Filters::parse(filter, &["until", "label"])?;
    let until = filters
        .first("until")
        .map(times::parse)
        .transpose()
        .context("--filter until")?;
    let (mut gone, mut freed, mut status) = (Vec::new(), 0, 0);
    for record in home.list()? {
        let resting = matches!(now::now(home, &record), Ok(Now::Created | Now::Exited(_)));
        // One that is being started is nobody's rest.
        if !resting || home.is_monitored(&record.id) || !is_meant(&filters, until, &record) {
            continue;
        }
        let size = ps::size(&home.dir(&record.id));
        match control::remove(home, &record, false) {
            Ok(()) => {
                gone.push(record.id);
                freed += size;
            }
            Err(e) => {
                crate::engine::cli::tell(&e.context(record.name));
                status = 1;
            }
        }
    }
    if !gone.is_empty() {
        crate::show::line(format!("Deleted Containers:\n{}\n", gone.join("\n")))?;
    }
    crate::show::line(format!("Total reclaimed space: {}", show::size(freed)))?;
    Ok(status)
}

fn is_meant(filters: &Filters, until: Option<i64>, record: &Record) -> bool {
    let created = clock::parse_nanos(&record.created).unwrap_or(0);
    until.is_none_or(|until| created < until)
        && filters.allow("label", |wanted| match wanted.split_once('=') {
            Some((key, value)) => record.labels.get(key).is_some_and(|has| has == value),
            None => record.labels.contains_key(wanted),
        })
}

impl All {
    fn run(&self, global: &Global) -> Result<u8> {
        let images = match self.all {
            true => "that no container uses",
            false => "without a name",
        };
        let what = format!(
            "all containers that do not run, all networks that no container uses, \
             all images {images}, and what killed processes left"
        );
        if !agreed(self.force, &what)? {
            return Ok(1);
        }
        let home = global.home()?;
        let healed = heal(&home)?;
        if healed > 0 {
            crate::show::line(format!(
                "Cleared away after killed processes or a reboot: {healed}\n"
            ))?;
        }
        let status = prune_containers(&home, &self.filter)?;
        let gone = prune_networks(&home)?;
        if !gone.is_empty() {
            crate::show::line(format!("\nDeleted Networks:\n{}", gone.join("\n")))?;
        }
        if self.volumes {
            let gone = volumes::prune(&home, false)?;
            if !gone.is_empty() {
                crate::show::line(format!("\nDeleted Volumes:\n{}", gone.join("\n")))?;
            }
        }
        let mut images = programs::image(&home.root);
        images.arg("prune").args(self.all.then_some("--all"));
        let said = images
            .stdin(Stdio::null())
            .status()
            .context("execute sc-image")?;
        Ok(if said.success() { status } else { 1 })
    }
}

/// The names of networks that are gone. An ordinary user's are pruned where the bridges are, and who goes there does
/// not come back.
fn prune_networks(home: &Home) -> Result<Vec<String>> {
    if nix::unistd::geteuid().is_root() {
        return network::prune(home);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(&home.root);
    let output = command.args(["network", "prune"]).stderr(Stdio::inherit());
    let output = output.output().context("execute sc network prune")?;
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.lines().map(str::to_owned).collect())
}

/// What nobody will ever clear away: how many pieces.
fn heal(home: &Home) -> Result<usize> {
    let mut healed = home.heal(|id| control::forget_stranger(home, id))?;
    for record in home.list()? {
        healed += usize::from(control::bury(home, &record)?);
    }
    healed += bridge::heal(home)?;
    Ok(healed)
}

fn images(home: &Home) -> Result<usize> {
    let output = programs::image(&home.root)
        .args(["list", "--quiet"])
        .output();
    let output = output.context("execute sc-image")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut ids: Vec<&str> = text.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids.len())
}

impl Info {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let info = describe(&home)?;
        let text = match &self.format.format {
            Some(_) => self.format.list(&[], &[info])?,
            None => lines(&info, 0),
        };
        show::print(&text)?;
        Ok(0)
    }
}

fn describe(home: &Home) -> Result<Value> {
    let mut count = [0; 4];
    let records = home.list()?;
    for record in &records {
        let at = match now::now(home, record)? {
            Now::Running => 0,
            Now::Paused => 1,
            _ => 2,
        };
        count[at] += 1;
    }
    let system = nix::sys::utsname::uname()?;
    let controllers = now::cgroup_mount()
        .and_then(|mount| std::fs::read_to_string(mount.join("cgroup.controllers")).ok());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    Ok(json!({
        "Containers": records.len(),
        "ContainersRunning": count[0],
        "ContainersPaused": count[1],
        "ContainersStopped": count[2],
        "Images": images(home)?,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Root": home.root,
        "State": home.state,
        "Rootless": !nix::unistd::geteuid().is_root(),
        "Runtime": programs::find("sc-runtime"),
        "ImageTool": programs::find("sc-image"),
        "Init": programs::find("sc-init"),
        "StorageDriver": "overlay",
        "LoggingDrivers": ["json-file", "none", "journald"],
        "CgroupVersion": "2",
        "CgroupMount": now::cgroup_mount(),
        "CgroupControllers": controllers.unwrap_or_default().trim(),
        "KernelVersion": system.release().to_string_lossy(),
        "Architecture": system.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "Memory": memory.unwrap_or_default().trim(),
        "Name": system.nodename().to_string_lossy(),
    }))
}

fn lines(value: &Value, depth: usize) -> String {
    let fields = value.as_object().into_iter().flatten();
    let line = |(key, value): (&String, &Value)| {
        let shown = match value {
            Value::String(text) => show::printable(text),
            Value::Array(items) => {
                let items = items.iter().filter_map(Value::as_str);
                items.collect::<Vec<_>>().join(" ")
            }
            other => other.to_string(),
        };
        format!("{:depth$}{key}: {shown}\n", "")
    };
    fields.map(line).collect()
}
