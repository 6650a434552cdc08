//! `start`: a container that was made or has ended, with the files it left.

use super::ps::matches;
use crate::engine::cli::Global;
use crate::engine::filter::Filters;
use crate::engine::now::{self, Now};
use crate::engine::record::{Home, Record};
use crate::engine::{attach, options};
use anyhow::{Result, bail, ensure};
use clap::Args;

/// Start containers that have stopped
#[derive(Debug, Args)]
pub struct Start {
    /// Show the output of one container, and give its exit status
    #[arg(short, long)]
    attach: bool,
    /// And give it stdin, if it was made with -i
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    how: options::attach::Attachment,
    /// All that do not run, instead of names
    #[arg(long, conflicts_with_all = ["attach", "interactive", "containers"])]
    all: bool,
    /// Of all: id, name, label, status, ancestor, network, restart-policy, should-start-on-boot
    #[arg(short, long, value_name = "KEY=VALUE", requires = "all")]
    filter: Vec<String>,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    containers: Vec<String>,
}

const KEYS: [&str; 8] = [
    "id",
    "name",
    "label",
    "status",
    "ancestor",
    "network",
    "restart-policy",
    "should-start-on-boot",
];

impl Start {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        if self.attach || self.interactive {
            let [one] = self.containers.as_slice() else {
                bail!("--attach: only one container at a time");
            };
            return self.attached(&home, home.find(one)?);
        }
        if self.all {
            return start_all(&home, &Filters::parse(&self.filter, &KEYS)?);
        }
        super::every(&self.containers, |name| {
            let record = home.find(name)?;
            match needs_start(&home, &record)? {
                true => start(&home, &record),
                false => Ok(()),
            }
        })
    }

    fn attached(&self, home: &Home, record: Record) -> Result<u8> {
        let wanted = self.how.wanted(&record, self.interactive)?;
        if !needs_start(home, &record)? {
            return super::attach::attach(home, &record, &wanted);
        }
        wish(home, &record)?;
        let client = attach::start(home, &record.id)?;
        client.prepare(&wanted);
        client.begun()?;
        client.attach(&wanted)
    }
}

/// What sc-restart.service does after a boot; one that cannot be started does not keep the others down. The oldest
/// first: later ones may need its network or volumes.
fn start_all(home: &Home, filters: &Filters) -> Result<u8> {
    let mut names = Vec::new();
    for record in home.list()?.into_iter().rev() {
        let now = now::now(home, &record)?;
        let rests = matches!(now, Now::Created | Now::Exited(_));
        if rests && matches(filters, &record, &now)? {
            names.push(record.name);
        }
    }
    match names.is_empty() {
        true => Ok(0),
        false => super::every(&names, |name| start(home, &home.find(name)?)),
    }
}

/// As docker: to start what runs is no error. What waits to be started again need not wait.
fn needs_start(home: &Home, record: &Record) -> Result<bool> {
    Ok(match now::now(home, record)? {
        Now::Running => false,
        Now::Paused => bail!("container {0} is paused: `sc unpause {0}`", record.name),
        Now::Restarting(_) => {
            let now = home.change(&record.id, |record| record.again = !record.stopped)?;
            attach::poke(home, &record.id);
            now.is_some_and(|record| record.stopped)
        }
        Now::Created | Now::Exited(_) => true,
    })
}

/// What was wanted of it before counts no more; but a stop that is under way is waited for, as its command waits.
fn wish(home: &Home, record: &Record) -> Result<()> {
    loop {
        let mut stopping = false;
        let monitor = home.end(&record.id);
        let wished = home.change(&record.id, |record| {
            stopping = record.stopped && home.is_monitored(&record.id);
            if !stopping {
                (record.stopped, record.again, record.restarts) = (false, false, 0);
            }
        })?;
        let there = wished.is_some_and(|record| !record.removing);
        ensure!(there, "container {} is being removed", record.name);
        if !stopping {
            return Ok(());
        }
        monitor.wait()?;
    }
}

/// Starts it in the background.
pub fn start(home: &Home, record: &Record) -> Result<()> {
    wish(home, record)?;
    attach::start(home, &record.id)?.begun()
}
