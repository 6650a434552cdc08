//! `ps`: which containers are there, and do they run? The kernel is asked, and no program.

use crate::clock;
use crate::engine::cli::{Global, tell};
use crate::engine::filter::Filters;
use crate::engine::mounts::Mount;
use crate::engine::network::claim::Given;
use crate::engine::network::ports;
use crate::engine::now::{self, Now};
use crate::engine::record::{Home, Record, short};
use crate::engine::table::{Column, Format};
use crate::show;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// List containers
#[derive(Debug, Args)]
#[command(visible_aliases = ["ls", "list"])]
pub struct Ps {
    /// Those too that do not run
    #[arg(short, long)]
    all: bool,
    /// Ids only
    #[arg(short, long)]
    quiet: bool,
    /// The newest, running or not
    #[arg(short, long)]
    latest: bool,
    /// So many of the newest, running or not
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<usize>,
    /// With the size of what they wrote
    #[arg(short, long)]
    size: bool,
    /// Ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// id, name, label, status, exited, ancestor, before, since, network, health, restart-policy, should-start-on-boot
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    format: Format,
}

const COLUMNS: [Column; 7] = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
];

const KEYS: [&str; 12] = [
    "id",
    "name",
    "label",
    "status",
    "exited",
    "ancestor",
    "before",
    "since",
    "network",
    "health",
    "restart-policy",
    "should-start-on-boot",
];

impl Ps {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let filters = Filters::parse(&self.filter, &KEYS)?;
        let (rows, status) = self.rows(&home, &filters)?;
        let columns: Vec<Column> = match self.size {
            true => COLUMNS.into_iter().chain([("SIZE", "Size")]).collect(),
            false => COLUMNS.to_vec(),
        };
        let text = match self.quiet {
            true => rows
                .iter()
                .filter_map(|row| Some(format!("{}\n", row["ID"].as_str()?)))
                .collect(),
            false => self.format.list(&columns, &rows)?,
        };
        show::print(&text)?;
        Ok(status)
    }

    fn rows(&self, home: &Home, filters: &Filters) -> Result<(Vec<Value>, u8)> {
        let last = match self.latest {
            true => Some(1),
            false => self.last,
        };
        let records = home.list()?;
        let created = |record: &Record| clock::parse_nanos(&record.created).unwrap_or(0);
        let of = |key: &str| match filters.first(key) {
            Some(name) => home.find(name).map(|other| Some(created(&other))),
            None => Ok(None),
        };
        let (before, since) = (of("before")?, of("since")?);
        // Who asks for a status means it.
        let all = self.all || last.is_some() || filters.has("status") || filters.has("exited");
        let (mut rows, mut status) = (Vec::new(), 0);
        for record in records {
            let own = created(&record);
            if before.is_some_and(|other| own >= other) || since.is_some_and(|other| own <= other) {
                continue;
            }
            match now::now(home, &record) {
                Ok(now) if !all && !now.is_alive() && !matches!(now, Now::Restarting(_)) => {}
                Ok(now) if !matches(filters, &record, &now)? => {}
                Ok(now) => {
                    let mut row = row(home, &record, &now, self.no_trunc);
                    if self.size {
                        let own = size(&home.dir(&record.id).join("upper"));
                        row["Size"] = json!(show::size(own));
                    }
                    rows.push(row);
                }
                Err(e) => {
                    tell(&e.context(record.name.clone()));
                    status = 1;
                }
            }
            if last == Some(rows.len()) {
                break;
            }
        }
        Ok((rows, status))
    }
}

/// `whole`: ids and commands in full.
pub fn row(home: &Home, record: &Record, now: &Now, whole: bool) -> Value {
    let command = record.command.join(" ");
    let command = match command.char_indices().nth(20) {
        Some(_) if !whole => command.chars().take(19).collect::<String>() + "…",
        _ => command,
    };
    let labels = record.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let volumes = record.mounts.iter().filter_map(Mount::volume).count();
    json!({
        "ID": if whole { &record.id } else { short(&record.id) },
        "Image": record.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": record.created,
        "RunningFor": format!("{} ago", since(&record.created)),
        "State": now.word(),
        "Status": words(record, now),
        "Ports": published(home, record, now),
        "Names": record.name,
        "Labels": labels.join(","),
        "Networks": record.networks.name(),
        "LocalVolumes": volumes.to_string(),
        "Mounts": "",
        "Size": "0B",
    })
}

/// Known only while it runs: a free port was chosen at its start.
fn published(home: &Home, record: &Record, now: &Now) -> String {
    match now.is_alive() && !record.networks.ports.is_empty() {
        true => ports::show(&Given::load(&home.dir(&record.id)).unwrap_or_default().ports),
        false => String::new(),
    }
}

/// All keys must be met, each by one of its values.
pub fn matches(filters: &Filters, record: &Record, now: &Now) -> Result<bool> {
    for (key, values) in filters.each() {
        let mut met = false;
        for value in values {
            met |= match key {
                "id" => record.id.starts_with(value.as_str()),
                "name" => record
                    .name
                    .contains(value.trim_start_matches(['^', '/']).trim_end_matches('$')),
                "label" => match value.split_once('=') {
                    Some((key, value)) => record.labels.get(key).is_some_and(|has| has == value),
                    None => record.labels.contains_key(value),
                },
                "status" => status_is(value, now)?,
                "exited" => {
                    let wanted: u8 = value
                        .parse()
                        .with_context(|| format!("--filter exited={value}"))?;
                    *now == Now::Exited(Some(wanted))
                }
                "ancestor" => is_of(&record.image, value),
                "network" => record.networks.name().split(',').any(|name| name == value),
                "health" => *value == health(record, now).unwrap_or("none"),
                "restart-policy" => value == record.restart.name(),
                "should-start-on-boot" => {
                    let wanted: bool = value.parse().with_context(|| {
                        format!("--filter should-start-on-boot={value}: true or false")
                    })?;
                    wanted == record.restart.wants_at_boot(record.stopped)
                }
                // Compared by time, elsewhere.
                _ => true,
            };
        }
        if !met {
            return Ok(false);
        }
    }
    Ok(true)
}

fn status_is(wanted: &str, now: &Now) -> Result<bool> {
    const WORDS: [&str; 5] = ["created", "running", "paused", "restarting", "exited"];
    match WORDS.contains(&wanted) {
        true => Ok(wanted == now.word()),
        false if ["removing", "dead"].contains(&wanted) => Ok(false),
        false => bail!("--filter status={wanted}: there are {}", WORDS.join(", ")),
    }
}

/// `busybox` is `busybox:latest` too.
fn is_of(image: &str, wanted: &str) -> bool {
    image == wanted
        || image
            .strip_prefix(wanted)
            .is_some_and(|rest| rest.starts_with([':', '@']))
}

fn health<'a>(record: &'a Record, now: &Now) -> Option<&'a str> {
    let health = record.healthy.as_ref().filter(|_| now.is_alive());
    health.map(|health| health.status.as_str())
}

/// docker's STATUS.
fn words(record: &Record, now: &Now) -> String {
    let since = |time: &Option<String>| since(time.as_deref().unwrap_or_default());
    let shown = |exit: &Option<u8>| exit.map_or("unknown".to_owned(), |exit| exit.to_string());
    match now {
        Now::Created => "Created".to_owned(),
        Now::Running | Now::Paused => {
            let more = match health(record, now) {
                _ if *now == Now::Paused => " (Paused)".to_owned(),
                Some("starting") => " (health: starting)".to_owned(),
                Some(health) => format!(" ({health})"),
                None => String::new(),
            };
            format!("Up {}{more}", since(&record.started))
        }
        Now::Restarting(exit) => {
            format!(
                "Restarting ({}) {} ago",
                shown(exit),
                since(&record.finished)
            )
        }
        Now::Exited(exit) if record.finished.is_some() => {
            format!("Exited ({}) {} ago", shown(exit), since(&record.finished))
        }
        Now::Exited(exit) => format!("Exited ({})", shown(exit)),
    }
}

/// docker's words for the time since then.
pub fn since(then: &str) -> String {
    let seconds = clock::parse(then).map_or(0, |then| (clock::seconds() - then).max(0));
    let words = show::span(seconds as u64);
    // A sentence begins with it.
    words[..1].to_uppercase() + &words[1..]
}

/// Bytes of the files below, as they are on disk; a file with several names counts once. What goes meanwhile counts no
/// more.
pub fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        // Each of its names has a part.
        Ok(meta) => meta.blocks() * 512 / meta.nlink().max(1),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::Health;

    #[test]
    fn the_status_is_in_dockers_words() {
        let now = Some(clock::now());
        let mut record = Record {
            started: now.clone(),
            finished: now,
            ..Record::default()
        };
        for (state, expected) in [
            (Now::Created, "Created"),
            (Now::Running, "Up Less than a second"),
            (Now::Paused, "Up Less than a second (Paused)"),
            (
                Now::Restarting(Some(1)),
                "Restarting (1) Less than a second ago",
            ),
            (Now::Exited(Some(0)), "Exited (0) Less than a second ago"),
            (Now::Exited(None), "Exited (unknown) Less than a second ago"),
        ] {
            assert_eq!(words(&record, &state), expected);
        }
        record.healthy = Some(Health::starting());
        assert_eq!(
            words(&record, &Now::Running),
            "Up Less than a second (health: starting)"
        );
    }

    #[test]
    fn an_ancestor_is_an_image_with_or_without_its_tag() {
        for (image, wanted, expected) in [
            ("busybox", "busybox", true),
            ("busybox:1", "busybox", true),
            ("busybox:1", "busybox:1", true),
            ("busyboxer", "busybox", false),
        ] {
            assert_eq!(is_of(image, wanted), expected, "{image} {wanted}");
        }
    }
}
