//! `delete`: leaves nothing of a container: no process, no cgroup, no record.
//!
//! All of it under the lock. `--force` kills first; during a `create` it kills what is made so far,
//! which makes that `create` fail, clear up and give the lock back.

use crate::runtime::cli::Global;
use crate::runtime::container::{Container, Place, missing};
use crate::runtime::hooks;
use crate::runtime::log;
use crate::runtime::state::State;
use crate::runtime::status::{Act, Answer, Status, ask};
use anyhow::{Result, bail};

pub fn delete(global: &Global, id: &str, force: bool) -> Result<()> {
    let gone = || if force { Ok(()) } else { Err(missing()) };
    let act = if force { Act::DeleteForce } else { Act::Delete };
    let meanwhile = |container: &Container| match ask(act, container.status()?, id) {
        Answer::No(why) => bail!(why),
        Answer::KillFirst if force => container.kill().map(drop),
        _ => Ok(()),
    };
    let Some(place) = Place::take(&global.root, id, meanwhile)? else {
        return gone();
    };
    let container = match Container::read(place) {
        Ok(Some(container)) => container,
        Ok(None) => return remove_leftover(global, id, force),
        Err(unreadable) if force => {
            log::warn(format!(
                "{unreadable:#}: removed; what it named may be left"
            ));
            return remove_leftover(global, id, force);
        }
        Err(unreadable) => return Err(unreadable),
    };
    match ask(act, container.status()?, id) {
        Answer::No(why) => bail!(why),
        Answer::KillFirst => container.put_an_end()?,
        // Its maker may have been killed when init needed it no more.
        Answer::Go if container.is_orphan() => container.put_an_end()?,
        Answer::Go => {}
    }
    clear(container)
}

/// A directory without a record (nothing else was made, or all else is removed), or with one that
/// nobody can read.
fn remove_leftover(global: &Global, id: &str, force: bool) -> Result<()> {
    if !force {
        return Err(missing());
    }
    // Asked for once more, with the lock: reading it has used up the first place.
    match Place::take(&global.root, id, |_| Ok(()))? {
        Some(place) if !matches!(place.record(), Ok(Some(_))) => place.remove(),
        _ => Ok(()),
    }
}

/// Removes what is left of a container whose init has ended. The caller has its lock.
pub fn clear(container: Container) -> Result<()> {
    container.leave_cgroup()?;
    poststop(&container)?;
    container.forget()
}

/// Runs the poststop hooks. A failing one is told, and the others run (runtime-spec
/// runtime.md#lifecycle, step 13).
fn poststop(container: &Container) -> Result<()> {
    let hooks = &container.record.poststop;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = State::of(&container.record, Status::Stopped).line();
    hooks::run_all(hooks, "poststop", &state);
    Ok(())
}
