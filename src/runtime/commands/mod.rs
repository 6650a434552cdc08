//! The verbs: one file each. A verb gets what was typed, as a value, and gives the exit status.

pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::runtime::cgroup::Cgroup;
use crate::runtime::cli::{Global, Verb};
use crate::runtime::container::{Container, Place, missing};
use crate::runtime::status::{Act, Answer, ask};
use anyhow::{Context, Result, bail};
use std::io::Write;

/// Does what was typed; gives the exit status, which only `run` and `exec` have one of their own for.
pub fn perform(global: &Global, verb: &Verb) -> Result<i32> {
    match verb {
        Verb::Create(args) => create::create(global, args)?,
        Verb::Run(args) => return run::run(global, args),
        Verb::Exec(args) => return exec::exec(global, args).context("exec failed"),
        Verb::Start { id } => start::start(global, id)?,
        Verb::State { id } => state::state(global, id)?,
        Verb::List { format, quiet } => list::list(global, *format, *quiet)?,
        Verb::Kill { id, signal, all } => kill::kill(global, id, signal, *all)?,
        Verb::Delete { id, force } => delete::delete(global, id, *force)?,
        Verb::Ps {
            id,
            format,
            options,
        } => ps::ps(global, id, *format, options)?,
        Verb::Pause { id } => pause::pause(global, id)?,
        Verb::Resume { id } => resume::resume(global, id)?,
        Verb::Update(args) => update::update(global, args)?,
        Verb::Checkpoint(args) => checkpoint::checkpoint(global, args)?,
        Verb::Restore(args) => return restore::restore(global, args),
        Verb::Events {
            id,
            interval,
            stats,
        } => events::events(global, id, *interval, *stats)?,
        Verb::Spec { bundle, rootless } => spec::spec(bundle, *rootless)?,
        Verb::Features => features::features()?,
        Verb::Plan {
            bundle,
            systemd_cgroup,
        } => plan::plan(global, bundle, *systemd_cgroup)?,
    }
    Ok(0)
}

/// What a verb has to say, on stdout.
fn say(text: &str) -> Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("write to stdout")
}

/// The container with its lock, when `act` may be done to it: asked while another command works on
/// it, so that what is not allowed anyway need not wait, and once more when that is over.
fn take(global: &Global, id: &str, act: Act) -> Result<Container> {
    let permitted = |container: &Container| match ask(act, container.status()?, id) {
        Answer::No(why) => bail!(why),
        _ => Ok(()),
    };
    let place = Place::take(&global.root, id, permitted)?.ok_or_else(missing)?;
    let container = Container::read(place)?.ok_or_else(missing)?;
    permitted(&container)?;
    Ok(container)
}

/// The cgroup that `verb` cannot do without.
fn cgroup_of<'a>(container: &'a Container, verb: &str) -> Result<&'a Cgroup> {
    container.cgroup()?.with_context(|| {
        format!(
            "cannot {verb} container {}: it has no cgroup (none was delegated to the user who created it)",
            container.id()
        )
    })
}
