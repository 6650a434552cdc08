//! `stats`: what containers use, again every second on a terminal.

use super::ps;
use crate::engine::cli::Global;
use crate::engine::now;
use crate::engine::record::{Home, Record, short};
use crate::engine::table::{Column, Format};
use crate::engine::usage::Usage;
use crate::show;
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

/// Show what containers use
#[derive(Debug, Args)]
pub struct Stats {
    /// Those too that do not run
    #[arg(short, long)]
    all: bool,
    /// Once, and end
    #[arg(long)]
    no_stream: bool,
    /// Ids in full
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    format: Format,
    /// Names, ids or beginnings of ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const COLUMNS: [Column; 8] = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
];

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

impl Stats {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let live =
            !self.no_stream && self.format.format.is_none() && std::io::stdout().is_terminal();
        let mut before = look(&self.records(&home)?);
        loop {
            // A share of a processor is one of a time.
            std::thread::sleep(INTERVAL);
            let records = self.records(&home)?;
            let now = look(&records);
            let rows: Vec<Value> = records
                .iter()
                .map(|record| self.row(record, now.get(&record.id), before.get(&record.id)))
                .collect();
            let text = self.format.list(&COLUMNS, &rows)?;
            match live {
                // Home, each line cleared to its end, and all below.
                true => show::print(&format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")))?,
                false => show::print(&text)?,
            }
            if self.no_stream || nobody_reads() {
                return Ok(0);
            }
            before = now;
        }
    }

    fn records(&self, home: &Home) -> Result<Vec<Record>> {
        if !self.containers.is_empty() {
            return self.containers.iter().map(|name| home.find(name)).collect();
        }
        let mut records = home.list()?;
        if !self.all {
            records.retain(|record| now::now(home, record).is_ok_and(|now| now.is_alive()));
        }
        Ok(records)
    }

    fn row(&self, record: &Record, now: Option<&Usage>, before: Option<&Usage>) -> Value {
        const UNKNOWN: &str = "--";
        let percent = |value: Option<f64>| value.map_or(UNKNOWN.to_owned(), |v| format!("{v:.2}%"));
        let pair = |values: Option<(u64, u64)>| match values {
            Some((a, b)) => format!("{} / {}", show::size(a), show::size(b)),
            None => UNKNOWN.to_owned(),
        };
        let memory = now.and_then(|now| Some((now.memory?, now.memory_limit?)));
        json!({
            "ID": if self.no_trunc { &record.id } else { short(&record.id) },
            "Container": record.id,
            "Name": record.name,
            "CPUPerc": percent(now.and_then(|now| now.cpu_percent(before?))),
            "MemUsage": memory.map_or(UNKNOWN.to_owned(), |(used, limit)| {
                format!("{} / {}", binary(used), binary(limit))
            }),
            "MemPerc": percent(now.and_then(Usage::memory_percent)),
            "NetIO": pair(now.and_then(|now| now.network)),
            "BlockIO": pair(now.and_then(|now| now.block)),
            "PIDs": now.and_then(|now| now.pids).map_or(UNKNOWN.to_owned(), |n| n.to_string()),
            "Since": ps::since(record.started.as_deref().unwrap_or_default()),
        })
    }
}

/// Those that live.
fn look(records: &[Record]) -> HashMap<String, Usage> {
    let alive = records.iter().filter_map(|record| {
        let process = record.process.as_ref()?;
        let lives = process.is_alive().unwrap_or(false);
        lives.then(|| (record.id.clone(), Usage::of(process)))
    });
    alive.collect()
}

/// docker shows memory in binary units.
fn binary(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        _ => 1,
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

/// A pipe whose reader has gone tells so without being written to.
fn nobody_reads() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let [_, stdout, _] = crate::sys::process::stdio();
    let mut polled = [PollFd::new(stdout, PollFlags::empty())];
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0]
            .revents()
            .is_some_and(|events| events.intersects(gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_binary_units() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (2 << 20, "2.000MiB"),
            (64 << 20, "64.00MiB"),
            (24 << 30, "24.00GiB"),
            (500 << 20, "500.0MiB"),
        ] {
            assert_eq!(binary(bytes), expected);
        }
    }
}
