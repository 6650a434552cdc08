//! The verbs: one file each. A verb gets what was typed, as a value, and gives the exit status.

pub mod create;
pub mod delete;
pub mod kill;
pub mod list;
pub mod plan;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;

use crate::runtime::cli::{Global, Verb};
use anyhow::{Context, Result};
use std::io::Write;

/// Does what was typed; gives the exit status, which only `run` has one of its own for.
pub fn perform(global: &Global, verb: &Verb) -> Result<i32> {
    match verb {
        Verb::Create(args) => create::create(global, args)?,
        Verb::Run(args) => return run::run(global, args),
        Verb::Start { id } => start::start(global, id)?,
        Verb::State { id } => state::state(global, id)?,
        Verb::List { format, quiet } => list::list(global, *format, *quiet)?,
        Verb::Kill { id, signal, all } => kill::kill(global, id, signal, *all)?,
        Verb::Delete { id, force } => delete::delete(global, id, *force)?,
        Verb::Spec { bundle } => spec::spec(bundle)?,
        Verb::Plan { bundle } => plan::plan(bundle)?,
    }
    Ok(0)
}

/// What a verb has to say, on stdout.
fn say(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to stdout")
}
