//! `update`: other limits, or another restart policy, for containers that are there.

use crate::engine::cli::Global;
use crate::engine::events::{self, Event};
use crate::engine::now;
use crate::engine::options::{lifecycle, limits::Limits};
use crate::engine::programs;
use crate::engine::record::{Home, Record, Restart};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;
use std::fs;

/// Change the limits or the restart policy of containers
#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    limits: Limits,
    /// When it is started again: no, on-failure[:TIMES], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Names, ids or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl Update {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let home = global.home()?;
        let restart = self.restart.as_deref().map(lifecycle::restart);
        let restart = restart.transpose()?;
        super::every(&self.containers, |name| {
            update(&home, &home.find(name)?, &self.limits, restart.as_ref())
        })
    }
}

fn update(home: &Home, record: &Record, limits: &Limits, restart: Option<&Restart>) -> Result<()> {
    ensure!(
        !record.remove || restart.is_none_or(|policy| *policy == Restart::No),
        "container {} was made with --rm: it cannot be removed and started again",
        record.name
    );
    let path = home.dir(&record.id).join("bundle/config.json");
    let context = || path.display().to_string();
    let text = fs::read(&path).with_context(context)?;
    let mut config: Value = serde_json::from_slice(&text).with_context(context)?;
    let before = config["linux"]["resources"].clone();
    limits.apply(&mut config)?;
    let resources = &config["linux"]["resources"];
    if before != *resources {
        // First what runs: what the kernel refuses is not to be written down.
        if now::now(home, record)?.is_alive() {
            let asked = home.dir(&record.id).join("resources.json");
            fs::write(&asked, serde_json::to_vec(&changed(&before, resources))?)?;
            let asked = asked.to_str().context("--root is not UTF-8")?;
            programs::call(home, record, &["update", "--resources", asked, &record.id])?;
        }
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&config)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(context)?;
    }
    if let Some(policy) = restart {
        home.change(&record.id, |record| record.restart = policy.clone())?;
        // A monitor that waits looks again.
        crate::engine::attach::poke(home, &record.id);
    }
    events::tell(home, &Event::of(record, "update"));
    Ok(())
}

/// The parts that differ, but never the devices: they are not limits.
fn changed(before: &Value, after: &Value) -> Value {
    let parts = after.as_object().into_iter().flatten();
    let differ = parts.filter(|(key, value)| before[key.as_str()] != **value);
    differ
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
