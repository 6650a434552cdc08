//! `create`: makes a container that waits for `start`.

use crate::runtime::cli::{CreateArgs, Global};
use crate::runtime::container::{Claim, Record, check_id};
use crate::runtime::parent::{self, Begin, Made, Order, terminal};
use crate::runtime::plan::{Ask, Plan};
use crate::runtime::{config, log, lsm, plan, validate};
use crate::sys;
use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub fn create(global: &Global, args: &CreateArgs) -> Result<()> {
    let drawn = draw(global, args)?;
    let terminal = drawn.plan.init.process.terminal;
    let console = console(args.console_socket.as_deref(), terminal, true)?;
    let made = make(global, args, &drawn, console, Begin::ByFifo)?;
    // The container goes on without us: closing our ends must not end it.
    drop(made);
    Ok(())
}

/// What a container is made from.
pub struct Drawn {
    pub plan: Plan,
    pub ask: Ask,
    /// config.json as it was read.
    pub config: Vec<u8>,
}

/// config.json to plan, with the facts of this host.
pub fn draw(global: &Global, args: &CreateArgs) -> Result<Drawn> {
    check_id(&args.id)?;
    let bundle =
        std::path::absolute(&args.bundle).with_context(|| format!("--bundle {:?}", args.bundle))?;
    let loaded = config::load(&bundle)?;
    let ask = args.ask(&global.root, bundle)?;
    guard_descriptors(ask.preserve_fds)?;
    let odd = validate::check(&loaded.spec, &ask).context("config.json")?;
    let mut plan = plan::draw(&loaded.spec, &ask)?;
    let rootfs = plan.init.rootfs.as_ref();
    let mount_label = rootfs.and_then(|rootfs| rootfs.mount_label.as_deref());
    lsm::require(&plan.init.process, mount_label)?;
    plan.warnings.extend(loaded.warnings);
    plan.warnings.extend(odd);
    log::warn_all(&plan.warnings);
    Ok(Drawn {
        plan,
        ask,
        config: loaded.raw,
    })
}

/// What the caller left open is not for hooks or helpers; init lets the preserved ones through.
pub fn guard_descriptors(preserve: u32) -> Result<()> {
    for fd in 3..preserve.saturating_add(3) {
        if !sys::process::is_open(fd as i32) {
            bail!("--preserve-fds: preserved-fd {fd} (of {preserve}) is not open");
        }
    }
    Ok(sys::process::close_on_exec_from(3)?)
}

/// The engine's end of the terminal, connected before anything is made. runc's rules: a terminal
/// that nobody holds must be handed over, and only then. The words are runc's: tools know them.
pub fn console(socket: Option<&Path>, terminal: bool, detach: bool) -> Result<Option<OwnedFd>> {
    match socket {
        None if terminal && detach => {
            bail!("cannot allocate tty if runc will detach without setting console socket")
        }
        Some(_) if !(terminal && detach) => {
            bail!("cannot use console socket if runc will not detach or allocate tty")
        }
        None => Ok(None),
        Some(path) => Ok(Some(
            sys::socket::connect(path).context("--console-socket")?,
        )),
    }
}

/// Makes the container and hands out what the caller asked for: terminal, pidfd, pid file.
pub fn make(
    global: &Global,
    args: &CreateArgs,
    drawn: &Drawn,
    console: Option<OwnedFd>,
    begin: Begin,
) -> Result<Made> {
    let Drawn { plan, ask, config } = drawn;
    let order = Order {
        claim: Claim::new(&global.root, &args.id)?,
        record: Record::new(plan, ask),
        config,
        plan,
        cgroup_mount: &ask.host.cgroup_mount,
        begin,
    };
    let made = parent::make(order).context("unable to start container process")?;
    let out = HandOut {
        console,
        pidfd_socket: args.pidfd_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
    };
    match out.give(made.pid, made.pidfd.as_fd(), made.master.as_ref()) {
        Ok(()) => Ok(made),
        Err(e) => {
            made.undo(plan);
            Err(e)
        }
    }
}

/// The caller gets something of the container that it must have before the program starts.
pub fn hands_out(args: &CreateArgs) -> bool {
    args.console_socket.is_some() || args.pidfd_socket.is_some() || args.pid_file.is_some()
}

/// Where the caller wants what of a process that was made.
pub struct HandOut<'a> {
    /// For its terminal, connected.
    pub console: Option<OwnedFd>,
    pub pidfd_socket: Option<&'a Path>,
    pub pid_file: Option<&'a Path>,
}

impl HandOut<'_> {
    pub fn give(&self, pid: Pid, pidfd: BorrowedFd, master: Option<&OwnedFd>) -> Result<()> {
        if let (Some(socket), Some(master)) = (&self.console, master) {
            terminal::send_master(socket.as_fd(), master.as_fd())?;
        }
        if let Some(path) = self.pidfd_socket {
            terminal::send_pidfd(path, pidfd)?;
        }
        if let Some(path) = self.pid_file {
            write_pid_file(path, pid.as_raw())
                .with_context(|| format!("--pid-file {}", path.display()))?;
        }
        Ok(())
    }
}

/// Digits and nothing else (containerd parses the whole file), in one step: whoever waits for the
/// file never sees half of it.
fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().context("is not a file name")?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    File::create(&temporary)?
        .write_all(pid.to_string().as_bytes())
        .and_then(|()| std::fs::rename(&temporary, path))
        .inspect_err(|_| {
            // What failed is told; this only tidies up.
            let _ = std::fs::remove_file(&temporary);
        })?;
    Ok(())
}
