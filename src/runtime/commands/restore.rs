//! `restore`: makes a container run again from what `checkpoint` wrote; in the foreground also waits for it
//! and deletes it, as `run`.

use super::create::{self, HandOut};
use crate::runtime::cli::{Global, RestoreArgs};
use crate::runtime::container::{Claim, Record};
use crate::runtime::criu::message::field;
use crate::runtime::criu::{Folders, external, options, stdio};
use crate::runtime::parent::foreground::Signals;
use crate::runtime::parent::restore::{Images, restore as remake};
use crate::runtime::parent::{Begin, Order};
use crate::runtime::plan::Plan;
use crate::sys;
use anyhow::{Context, Result};
use std::os::fd::AsFd;

/// Gives the container's exit status, or 0 with `--detach`.
pub fn restore(global: &Global, args: &RestoreArgs) -> Result<i32> {
    let (run, create) = (&args.run, &args.run.create);
    let drawn = create::draw(global, create)?;
    let plan = &drawn.plan;
    let folders = Folders::find(&args.criu, "restore.log")?;
    if let Some(root) = root_of_new_user_namespace(plan) {
        folders.share(root)?;
    }
    let console = {
        let socket = create.console_socket.as_deref();
        create::console(socket, plan.init.process.terminal, run.detach)?
    };
    let signals = match run.detach {
        true => None,
        false => Some(Signals::hold()?),
    };
    if !run.detach && !run.no_subreaper {
        sys::process::set_child_subreaper()?;
    }

    let mut options = options(&args.criu, &folders, plan)?;
    if let Some(profile) = &args.lsm_profile {
        options.text(field::LSM_PROFILE, profile);
    }
    if let Some(context) = &args.lsm_mount_context {
        options.text(field::LSM_MOUNT_CONTEXT, context);
    }
    let mut inherit = stdio::to_give(&folders.images_path)?;
    inherit.extend(external::namespaces(plan)?);
    let order = Order {
        claim: Claim::new(&global.root, &create.id)?,
        record: Record::new(plan, &drawn.ask),
        config: &drawn.config,
        plan,
        cgroup_mount: &drawn.ask.host.cgroup_mount,
        begin: Begin::Told,
    };
    let images = Images {
        folders: &folders,
        options,
        inherit,
        own_terminal: args.criu.shell_job,
    };
    let mut made = remake(order, images).context("unable to restore the container")?;
    let out = HandOut {
        console,
        pidfd_socket: None,
        pid_file: create.pid_file.as_deref(),
    };
    if let Err(e) = out.give(made.pid, made.pidfd.as_fd(), made.master.as_ref()) {
        made.undo(plan);
        return Err(e);
    }
    made.claim.unlock()?;
    let Some(signals) = signals else {
        return Ok(0);
    };
    let master = made.master.take();
    let status = signals.wait(made.pid, made.pidfd.as_fd(), master)?;
    if made.claim.lock_again()? {
        made.remove(plan)?;
    }
    Ok(status)
}

/// The group of the host that the container's root has.
fn root_of_new_user_namespace(plan: &Plan) -> Option<u32> {
    let mut maps = plan.parent.gid_map.iter();
    maps.find(|map| map.container == 0).map(|map| map.host)
}
