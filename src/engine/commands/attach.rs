//! `attach`: the user's terminal or streams to a running container, in the place of `run`'s.

use crate::engine::attach::{Wanted, connect};
use crate::engine::cli::Global;
use crate::engine::now::{self, Now};
use crate::engine::options;
use crate::engine::record::{Home, Record};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::io::IsTerminal;

/// Attach to a running container; its exit status, or 0 when detached
#[derive(Debug, Args)]
pub struct Attach {
    /// Only look
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    how: options::attach::Attachment,
    /// Name, id or beginning of the id
    container: String,
}

impl Attach {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let record = home.find(&self.container)?;
        let wanted = self.how.wanted(&record, !self.no_stdin)?;
        attach(&home, &record, &wanted)
    }
}

pub fn attach(home: &Home, record: &Record, wanted: &Wanted) -> Result<u8> {
    let name = &record.name;
    match now::now(home, record)? {
        Now::Running | Now::Restarting(_) => {}
        Now::Paused => bail!("container {name} is paused: `sc unpause {name}` first"),
        _ => bail!("container {name} is not running: `sc start -a {name}` starts it"),
    }
    ensure!(
        !(wanted.terminal && wanted.stdin) || std::io::stdin().is_terminal(),
        "stdin is not a terminal, and the container has one: --no-stdin only looks"
    );
    let client = connect(home, &record.id)?;
    let client = client.with_context(|| {
        format!("the monitor of container {name} was killed: nobody has its output")
    })?;
    client.prepare(wanted);
    client.attach(wanted)
}
