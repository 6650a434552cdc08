//! `checkpoint`: CRIU writes the container to disk. Then its processes are gone, and it is deleted, unless
//! it was to be left running.

use super::{delete, take};
use crate::runtime::cli::{CheckpointArgs, Global};
use crate::runtime::container::Container;
use crate::runtime::criu::message::{Kind, Message, field};
use crate::runtime::criu::{Begin, Criu, Folders, external, stdio};
use crate::runtime::plan::Ask;
use crate::runtime::status::Act;
use crate::runtime::{config, criu, host, notify, plan};
use crate::sys;
use anyhow::{Context, Result, ensure};
use std::os::fd::AsFd;
use std::path::Path;

pub fn checkpoint(global: &Global, args: &CheckpointArgs) -> Result<()> {
    let container = take(global, &args.id, Act::Checkpoint)?;
    let folders = Folders::make(&args.criu, "dump.log")?;
    let notify = container.record.notify.then(|| {
        let place = global.root.join(&args.id);
        place.join(notify::DIRECTORY)
    });
    let ask = Ask {
        notify,
        ..host::ask_for(&container.record)?
    };
    dump(&container, args, &ask, &folders)?;
    if args.leave_running || args.pre_dump {
        return Ok(());
    }
    // CRIU has killed its processes; how soon they are gone is the kernel's affair.
    container.put_an_end()?;
    delete::clear(container)
}

fn dump(container: &Container, args: &CheckpointArgs, ask: &Ask, folders: &Folders) -> Result<()> {
    let (spec, _) = config::parse(&container.config()?).context("config.json")?;
    let plan = plan::draw(&spec, ask)?;
    let pid = container.record.pid;
    let descriptors = stdio::of(pid);

    let mut options = criu::options(&args.criu, folders, &plan)?;
    options
        .number(field::PID, pid as u64)
        .set(field::LEAVE_RUNNING, args.leave_running)
        .set(field::TCP_SKIP_IN_FLIGHT, args.tcp_skip_in_flight)
        .set(field::LINK_REMAP, args.link_remap)
        .set(field::TRACK_MEM, args.pre_dump)
        .text(field::ROOT, criu::text(&container.record.rootfs)?);
    let cgroup = container.cgroup()?.map(|cgroup| cgroup.path());
    if let Some(cgroup) = cgroup {
        options.text(field::FREEZE_CGROUP, criu::text(cgroup)?);
    }
    if let Some(parent) = &args.parent_path {
        options.text(field::PARENT_IMG, check_parent(folders, parent)?);
    }
    if let Some((address, port)) = &args.page_server {
        let mut server = Message::default();
        server.text(1, address).number(2, (*port).into());
        options.message(field::PAGE_SERVER, &server);
    }
    for left_out in external::to_leave_out(&plan, cgroup, pid)? {
        options.text(field::EXTERNAL, &left_out);
    }
    let status = args
        .status_fd
        .map(sys::process::copy_descriptor)
        .transpose();
    let status = status.context("--status-fd")?;
    if let Some(status) = &status {
        options.descriptor(field::STATUS_FD, status.as_fd());
    }
    let keep: Vec<_> = status.iter().map(|status| status.as_fd()).collect();

    let criu = Criu::begin(&Begin {
        folders,
        keep: &keep,
        root: None,
        cgroup: None,
        own_terminal: false,
    })?;
    let kind = match args.pre_dump {
        true => Kind::PreDump,
        false => Kind::Dump,
    };
    criu.perform(kind, &options, |_, _| Ok(()))?;
    match args.pre_dump {
        true => Ok(()),
        false => stdio::save(&folders.images_path, &descriptors),
    }
}

/// CRIU takes it for a link that it makes beside its images.
fn check_parent<'p>(folders: &Folders, parent: &'p Path) -> Result<&'p str> {
    ensure!(
        parent.is_relative(),
        "--parent-path {}: must be relative to --image-path",
        parent.display()
    );
    let there = folders.images_path.join(parent);
    ensure!(
        there.is_dir(),
        "--parent-path: {} is not a directory",
        there.display()
    );
    criu::text(parent)
}
