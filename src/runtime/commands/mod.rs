//! The verbs: one file each. A verb gets what was typed, as a value, and gives the exit status.

pub mod delete;
pub mod kill;
pub mod list;
pub mod spec;
pub mod start;
pub mod state;

use crate::runtime::cli::{Global, Verb};
use anyhow::{Context, Result};
use std::io::Write;

/// Does what was typed; gives the exit status, which only `run` has one of its own for.
pub fn perform(global: &Global, verb: &Verb) -> Result<i32> {
    match verb {
        // MERGE: create::create(global, args)?, and `return run::run(global, args)`.
        Verb::Create(_) | Verb::Run(_) => anyhow::bail!("not in this branch"),
        Verb::Start { id } => start::start(global, id)?,
        Verb::State { id } => state::state(global, id)?,
        Verb::List { format, quiet } => list::list(global, *format, *quiet)?,
        Verb::Kill { id, signal, all } => kill::kill(global, id, signal, *all)?,
        Verb::Delete { id, force } => delete::delete(global, id, *force)?,
        Verb::Spec { bundle } => spec::spec(bundle)?,
        // MERGE: plan::plan(bundle)?, with `pub mod plan` above; it uses create::draw.
        Verb::Plan { .. } => anyhow::bail!("not in this branch"),
    }
    Ok(0)
}

/// What a verb has to say, on stdout.
fn say(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to stdout")
}
