//! `kill`: sends a signal to a container's init, or to every process of it.

use crate::runtime::cli::Global;
use crate::runtime::container::Container;
use crate::runtime::signal;
use crate::runtime::status::{Act, Answer, ask};
use anyhow::{Result, bail};

/// `signal` as typed. With `all`, whole cgroup, also after init has ended.
pub fn kill(global: &Global, id: &str, signal: &str, all: bool) -> Result<()> {
    let signal = signal::number(signal)?;
    let container = Container::load(&global.root, id)?;
    let act = if all { Act::KillAll } else { Act::Kill };
    if let Answer::No(why) = ask(act, container.status()?, id) {
        bail!(why);
    }
    // Without a pid namespace of its own, init's end is not the end of the others; runc kills
    // those too.
    if all || (signal == libc::SIGKILL && !container.record.pid_namespace) {
        return container.signal_all(signal);
    }
    match container.signal_init(signal)? {
        true => Ok(()),
        false => bail!("container not running"),
    }
}
