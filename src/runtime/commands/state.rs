//! `state`: what is this container now? As runc prints it.

use super::say;
use crate::runtime::cli::Global;
use crate::runtime::container::Container;
use crate::runtime::state::State;
use anyhow::Result;

pub fn state(global: &Global, id: &str) -> Result<()> {
    let container = Container::load(&global.root, id)?;
    say(&State::of(&container.record, container.status()?).pretty()?)
}
