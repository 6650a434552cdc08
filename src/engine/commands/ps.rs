//! `ps`: which containers are there, and do they run? The kernel is asked, through the runtime.

use crate::clock;
use crate::engine::cli::{Global, printable, tell};
use crate::engine::network::{claim::Given, ports};
use crate::engine::programs::{self, Now};
use crate::engine::record::{Home, Record, short};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;

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
    /// json: an object a line
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Ids and commands in full
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

impl Ps {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let mut status = 0;
        let mut rows = Vec::new();
        for record in home.list()? {
            match programs::now(&home, &record) {
                Ok(now) if self.all || now.is_alive() => {
                    let ports = published(&home, &record, &now);
                    rows.push((record, now, ports));
                }
                Ok(_) => {}
                Err(e) => {
                    tell(&e.context(record.name.clone()));
                    status = 1;
                }
            }
        }
        let id = |record: &Record| match self.no_trunc {
            true => record.id.clone(),
            false => short(&record.id).to_owned(),
        };
        let text: String = match (self.quiet, self.format) {
            (true, _) => rows.iter().map(|(record, ..)| id(record) + "\n").collect(),
            (_, Format::Json) => rows
                .iter()
                .map(|(record, now, ports)| as_json(record, now, ports, &id(record)) + "\n")
                .collect(),
            (_, Format::Table) => self.table(&rows, id),
        };
        print!("{text}");
        Ok(status)
    }

    fn table(&self, rows: &[(Record, Now, String)], id: impl Fn(&Record) -> String) -> String {
        let head = [
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        for (record, now, ports) in rows {
            let command = printable(&record.command.join(" "));
            let command = match command.char_indices().nth(20) {
                Some(_) if !self.no_trunc => command.chars().take(19).collect::<String>() + "…",
                _ => command,
            };
            lines.push([
                id(record),
                printable(&record.image),
                format!("\"{command}\""),
                format!("{} ago", since(&record.created)),
                words(record, now),
                ports.clone(),
                record.name.clone(),
            ]);
        }
        columns(&lines)
    }
}

/// Known only while it runs: a free port was chosen at its start.
fn published(home: &Home, record: &Record, now: &Now) -> String {
    match now.is_alive() && !record.networks.ports.is_empty() {
        true => ports::show(&Given::load(&home.dir(&record.id)).unwrap_or_default().ports),
        false => String::new(),
    }
}

fn as_json(record: &Record, now: &Now, ports: &str, id: &str) -> String {
    json!({
        "ID": id,
        "Image": record.image,
        "Command": record.command.join(" "),
        "CreatedAt": record.created,
        "State": now.word(),
        "Status": words(record, now),
        "Ports": ports,
        "Names": record.name,
        "Labels": record.labels,
        "Networks": record.networks.name(),
    })
    .to_string()
}

/// docker's STATUS.
fn words(record: &Record, now: &Now) -> String {
    let started = || since(record.started.as_deref().unwrap_or_default());
    match now {
        Now::Created => "Created".to_owned(),
        Now::Running => format!("Up {}", started()),
        Now::Paused => format!("Up {} (Paused)", started()),
        Now::Exited(Some(exit)) => {
            let finished = since(record.finished.as_deref().unwrap_or_default());
            format!("Exited ({exit}) {finished} ago")
        }
        Now::Exited(None) => "Exited (unknown)".to_owned(),
    }
}

/// docker's words for the time since then.
fn since(then: &str) -> String {
    let seconds = clock::parse(then).map_or(0, |then| (clock::seconds() - then).max(0));
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        3600..7200 => "About an hour".to_owned(),
        7200..172_800 => format!("{} hours", seconds / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86400),
        _ => format!("{} weeks", seconds / 604_800),
    }
}

/// Padded to the widest cell, three spaces between.
pub fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |at: usize| {
        let cells = lines.iter().map(|line| line[at].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(&widths);
        let whole: String = padded
            .map(|(cell, width)| format!("{cell:<width$}   "))
            .collect();
        whole.trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let lines = [["A", "B"], ["…x", "y"]].map(|line| line.map(str::to_owned));
        assert_eq!(columns(&lines), "A    B\n…x   y\n");
    }
}
