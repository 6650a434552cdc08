//! `pause`: stops all processes of a container where they are, and waits until they stand.

use super::{cgroup_of, take};
use crate::runtime::cli::Global;
use crate::runtime::status::Act;
use anyhow::Result;

/// With the lock: a container that is frozen while `start` waits for it would hold that up.
pub fn pause(global: &Global, id: &str) -> Result<()> {
    let container = take(global, id, Act::Pause)?;
    cgroup_of(&container, "pause")?.set_frozen(true)
}
