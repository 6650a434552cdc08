//! `run`: creates and starts a container; in the foreground also waits for it and deletes it.

use super::create;
use crate::runtime::cli::{Global, RunArgs};
use crate::runtime::parent::foreground::{self, Signals};
use crate::runtime::parent::{Begin, Made};
use crate::runtime::plan::Plan;
use crate::runtime::{hooks, notify};
use crate::sys;
use anyhow::Result;
use std::os::fd::AsFd;

/// Gives the container's exit status, or 0 with `--detach`.
pub fn run(global: &Global, args: &RunArgs) -> Result<i32> {
    let mut drawn = create::draw(global, &args.create)?;
    if !args.detach {
        foreground::take_callers_size(&mut drawn.plan.init.process);
    }
    let plan = &drawn.plan;
    let console = {
        let socket = args.create.console_socket.as_deref();
        create::console(socket, plan.init.process.terminal, args.detach)?
    };
    let signals = match args.detach {
        true => None,
        false => Some(Signals::hold()?),
    };
    if !args.detach && !args.no_subreaper {
        sys::process::set_child_subreaper()?;
    }
    let begin = match create::hands_out(&args.create) || notify::asked().is_some() {
        true => Begin::Told,
        false => Begin::AtOnce,
    };
    let mut made = create::make(global, &args.create, &drawn, console, begin)?;
    let proxy = match proxy(&made).and_then(|proxy| start(&mut made, plan).map(|()| proxy)) {
        Ok(proxy) => proxy,
        Err(e) => {
            made.undo(plan);
            return Err(e);
        }
    };
    made.claim.unlock()?;
    let serve = || {
        if let Some(proxy) = &proxy {
            proxy.serve_or_warn(made.pid.as_raw(), made.pidfd.as_fd());
        }
    };
    let Some(signals) = signals else {
        serve();
        return Ok(0);
    };
    let master = made.master.take();
    let wait = || signals.wait(made.pid, made.pidfd.as_fd(), master);
    let status = match proxy {
        None => wait(),
        // It ends at the latest when the container does.
        Some(_) => std::thread::scope(|scope| {
            scope.spawn(serve);
            wait()
        }),
    }?;
    if !args.keep && made.claim.lock_again()? {
        made.remove(plan)?;
    }
    Ok(status)
}

/// Before the container's program may speak.
fn proxy(made: &Made) -> Result<Option<notify::Proxy>> {
    match notify::asked() {
        Some(manager) => notify::Proxy::new(made.claim.dir(), &manager).map(Some),
        None => Ok(None),
    }
}

fn start(made: &mut Made, plan: &Plan) -> Result<()> {
    made.start()?;
    let state = made.record.hook_state(made.pid.as_raw(), "running");
    hooks::run(&plan.parent.poststart, "poststart", &state)
}
