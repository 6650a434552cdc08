//! `volume`: files that outlive containers, by name.

use crate::engine::cli::Global;
use crate::engine::record::Home;
use crate::engine::volumes::{self, Hold, Volume};
use crate::show::printable;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;

/// Manage volumes
#[derive(Debug, Args)]
pub struct Volumes {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a volume; print its name
    Create {
        /// KEY or KEY=VALUE
        #[arg(long)]
        label: Vec<String>,
        /// The only one is local
        #[arg(short, long, default_value = "local", hide = true)]
        driver: String,
        /// [default: one is made up]
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls {
        /// Names only
        #[arg(short, long)]
        quiet: bool,
        /// dangling=true|false, name=PART, label=KEY[=VALUE]
        #[arg(short, long)]
        filter: Vec<String>,
        /// table, or json: an object a line
        #[arg(long, default_value = "table", value_parser = ["table", "json"])]
        format: String,
    },
    /// Print all that is known of volumes, as JSON
    Inspect {
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove volumes that no container has, with all that is in them
    #[command(visible_alias = "remove")]
    Rm {
        /// What is not there is no error
        #[arg(short, long)]
        force: bool,
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
    },
    /// Remove all volumes that no container has and nobody named
    Prune {
        /// Those too that have a name
        #[arg(short, long)]
        all: bool,
        /// Without asking
        #[arg(short, long)]
        force: bool,
    },
}

impl Volumes {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        match &self.verb {
            Verb::Create {
                label,
                driver,
                name,
            } => create(&home, name, label, driver),
            Verb::Ls {
                quiet,
                filter,
                format,
            } => list(&home, *quiet, filter, format == "json"),
            Verb::Inspect { names } => inspect(&home, names),
            Verb::Rm { force, names } => super::every(names, |name| {
                match *force && volumes::load(&home, name)?.is_none() {
                    true => Ok(()),
                    false => Hold::take(&home)?.remove(name),
                }
            }),
            Verb::Prune { all, force } => prune(&home, *all, *force),
        }
    }
}

fn create(home: &Home, name: &str, label: &[String], driver: &str) -> Result<u8> {
    ensure!(
        driver == "local",
        "--driver {driver}: the only one is local"
    );
    let split = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    };
    let mut hold = Hold::take(home)?;
    let name = hold.make(name, &label.iter().map(split).collect())?;
    hold.keep();
    crate::show::line(&name)?;
    Ok(0)
}

/// What `--filter` lets through.
struct Filter<'a> {
    dangling: Option<bool>,
    names: Vec<&'a str>,
    labels: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Filter<'a> {
    fn parse(typed: &'a [String]) -> Result<Filter<'a>> {
        let mut filter = Filter {
            dangling: None,
            names: Vec::new(),
            labels: Vec::new(),
        };
        for text in typed {
            match text.split_once('=') {
                Some(("dangling", "true" | "1")) => filter.dangling = Some(true),
                Some(("dangling", "false" | "0")) => filter.dangling = Some(false),
                Some(("name", part)) => filter.names.push(part),
                Some(("label", label)) => {
                    let (key, value) = label
                        .split_once('=')
                        .map_or((label, None), |(key, value)| (key, Some(value)));
                    filter.labels.push((key, value));
                }
                _ => bail!(
                    "--filter {text:?}: known are dangling=true|false, name=PART, label=KEY[=VALUE]"
                ),
            }
        }
        Ok(filter)
    }

    fn passes(&self, volume: &Volume, used: bool) -> bool {
        self.dangling.is_none_or(|dangling| dangling != used)
            && (self.names.is_empty() || self.names.iter().any(|part| volume.name.contains(part)))
            && self.labels.iter().all(|(key, value)| {
                let there = volume.labels.get(*key);
                there.is_some_and(|there| value.is_none_or(|value| there == value))
            })
    }
}

fn list(home: &Home, quiet: bool, filter: &[String], as_json: bool) -> Result<u8> {
    let filter = Filter::parse(filter)?;
    let records = match filter.dangling {
        Some(_) => home.list()?,
        None => Vec::new(),
    };
    let mut text = String::new();
    if !quiet && !as_json {
        text.push_str("DRIVER    VOLUME NAME\n");
    }
    for volume in volumes::list(home)? {
        let used = !volumes::users(&volume.name, &records).is_empty();
        if !filter.passes(&volume, used) {
            continue;
        }
        let line = match (quiet, as_json) {
            (true, _) => volume.name,
            (_, true) => json!({
                "Name": volume.name,
                "Driver": "local",
                "Mountpoint": volumes::data(home, &volume.name),
                "Labels": labels(&volume.labels),
                "Scope": "local",
            })
            .to_string(),
            _ => format!("local     {}", printable(&volume.name)),
        };
        text.push_str(&(line + "\n"));
    }
    crate::show::print(&text)?;
    Ok(0)
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

fn inspect(home: &Home, names: &[String]) -> Result<u8> {
    let (mut found, mut status) = (Vec::<Value>::new(), 0);
    for name in names {
        match describe(home, name)? {
            Some(value) => found.push(value),
            None => {
                eprintln!("sc: get {}: no such volume", printable(name));
                status = 1;
            }
        }
    }
    crate::show::print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    Ok(status)
}

/// docker's keys; `None`: there is no such volume.
pub fn describe(home: &Home, name: &str) -> Result<Option<Value>> {
    let Some(volume) = volumes::load(home, name)? else {
        return Ok(None);
    };
    Ok(Some(json!({
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": volumes::data(home, &volume.name),
        "Name": volume.name,
        "Options": {},
        "Scope": "local",
        "Anonymous": volume.anonymous,
    })))
}

fn prune(home: &Home, all: bool, force: bool) -> Result<u8> {
    let which = if all { "all" } else { "anonymous" };
    if !force {
        crate::show::print(&format!(
            "WARNING! This will remove {which} volumes not used by at least one container.\nAre you sure you want to continue? \
             [y/N] "
        ))?;
        std::io::stdout().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("stdin")?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            return Ok(0);
        }
    }
    let removed = volumes::prune(home, all)?;
    if !removed.is_empty() {
        crate::show::line(format!("Deleted Volumes:\n{}\n", removed.join("\n")))?;
    }
    crate::show::line(format!("{} removed", removed.len()))?;
    Ok(0)
}
