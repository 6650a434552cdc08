//! One more process in a running container (`exec`): one clone, into the container's cgroup and pid
//! namespace, of a process that enters the rest itself.

use crate::runtime::cgroup::Cgroup;
use crate::runtime::container::Record;
use crate::runtime::handshake::{self, FromInit, FromParent, ParentEnd};
use crate::runtime::init;
use crate::runtime::log;
use crate::runtime::parent::listener::{self, Due};
use crate::runtime::plan::exec::ExecPlan;
use crate::runtime::plan::unit::UnitName;
use crate::runtime::state::State;
use crate::runtime::status::Status;
use crate::runtime::systemd::Systemd;
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What is entered.
pub struct Order<'a> {
    pub plan: &'a ExecPlan,
    /// The container's init, known to be itself: by this, and not by paths, all is entered.
    pub init: BorrowedFd<'a>,
    pub record: &'a Record,
    pub status: Status,
    pub cgroup: Option<Place<'a>>,
}

/// The cgroup of the new process.
pub enum Place<'a> {
    /// The container's, or where that may hold no processes, the one that init is in.
    Containers { cgroup: &'a Cgroup, mount: &'a Path },
    /// The one that was asked for.
    Chosen(OwnedFd),
}

/// A process that has executed its program.
pub struct Entered {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub master: Option<OwnedFd>,
}

impl Entered {
    /// Ends it: after a step that follows has failed.
    pub fn undo(self) {
        // Failures have no one to act on them: the error that led here is the one to report.
        let _ = sys::pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
    }
}

/// Makes the process and waits until it has executed its program, or leaves nothing behind.
pub fn enter(order: &Order) -> Result<Entered> {
    let (end, pid, pidfd, unit) = spawn(order)?;
    if let Some(unit) = unit {
        attach(unit, pid);
        // A process that is gone has said why; we hear it below.
        let _ = end.tell(FromParent::Placed);
    }
    let mut master = None;
    let mut due = Due::default();
    let failed = loop {
        match end.hear_beside(due.courier.as_ref()) {
            Ok(Some(FromInit::Console(fd))) => master = Some(fd),
            // Only with a seccomp agent: the listener is gone with exec.
            Ok(Some(FromInit::Courier(courier))) => due.courier = Some(courier),
            Ok(Some(FromInit::Listener(listener))) => {
                let done = hand_over(order, pid, listener).and_then(|()| due.courier_is_done());
                if let Err(e) = done.and_then(|()| start(&end, &due)) {
                    break e;
                }
            }
            Ok(Some(FromInit::Ready)) => {
                due.ready = true;
                if let Err(e) = start(&end, &due) {
                    break e;
                }
            }
            Ok(Some(FromInit::Failed(why))) => break anyhow!(why),
            Ok(Some(other)) => break anyhow!("the process said {other:?} instead of starting"),
            // Exec has closed its end. Death closes it too, and its status tells: it is not ours to
            // guess whether the program had begun.
            Ok(None) => return Ok(Entered { pid, pidfd, master }),
            Err(e) => break e,
        }
    };
    Entered { pid, pidfd, master }.undo();
    Err(failed)
}

/// Once nothing is due any more.
fn start(end: &ParentEnd, due: &Due) -> Result<()> {
    match due.is_over() {
        true => end.tell(FromParent::Start),
        false => Ok(()),
    }
}

/// As runc: an ordinary user's process goes without the container's limits where it must.
fn attach(unit: &UnitName, pid: Pid) {
    let attached = Systemd::connect(unit.manager).and_then(|mut s| s.attach(&unit.name, pid));
    if let Err(e) = attached {
        log::warn(format!(
            "exec: the process stays outside of the container's cgroup and its limits: {e:#}"
        ));
    }
}

fn hand_over(order: &Order, pid: Pid, listener: OwnedFd) -> Result<()> {
    let seccomp = order.plan.plan.init.seccomp.as_ref();
    let notify = seccomp.and_then(|seccomp| seccomp.notify.as_ref());
    let notify = notify.context("the process has a seccomp listener that nobody asked for")?;
    let state = State::of(order.record, order.status);
    listener::hand_over(notify, listener, pid.as_raw(), &state)
}

/// Clones; the child never returns from here. The unit is told when the process waits to be put into
/// its cgroup.
fn spawn<'a>(order: &Order<'a>) -> Result<(ParentEnd, Pid, OwnedFd, Option<&'a UnitName>)> {
    let ExecPlan {
        plan,
        parent_enters,
        initial_processors,
        chroot,
    } = order.plan;
    let root = match chroot {
        true => Some(root_of(order)?),
        false => None,
    };
    let ignored_signals = sys::process::ignored_signals();
    let (parent_end, init_end) = handshake::pair()?;
    if let Some(mask) = initial_processors {
        sys::process::use_processors(mask).context("process.execCPUAffinity.initial")?;
    }
    if geteuid().is_root() {
        // The child is seen by the container's processes from its first moment: they must not look
        // into it (CVE-2016-9962). An ordinary user's are in another user namespace, so they cannot;
        // and the child must be able to write to its own files in /proc.
        sys::process::set_dumpable(false)?;
    }
    if *parent_enters != 0 {
        // This program makes no other child, and what it does from here on needs no way back.
        sys::pidfd::enter(order.init, *parent_enters)
            .with_context(|| why_entering_fails(order.status))?;
    }
    let (cloned, unit) = clone_into_cgroup(order).context("make the process")?;
    match cloned {
        Cloned::Child => {
            drop(parent_end);
            init::run(init::Ask {
                plan,
                end: init_end,
                start: match plan
                    .init
                    .seccomp
                    .as_ref()
                    .is_some_and(|s| s.notify.is_some())
                {
                    true => init::Start::Handshake,
                    false => init::Start::AtOnce,
                },
                ignored_signals,
                sources: Vec::new(),
                cgroup: None,
                cgroup_mount: &order.record.cgroup_mount,
                running: Some(init::Running {
                    init: order.init,
                    root,
                    wait_for_cgroup: unit.is_some(),
                }),
                // `exec` has no hooks.
                state: &|_, _| Vec::new(),
            })
        }
        Cloned::Parent { pid, pidfd } => Ok((parent_end, Pid::from_raw(pid), pidfd, unit)),
    }
}

/// An init that waits for `start` is not dumpable (CVE-2016-9962): without CAP_SYS_PTRACE nobody may
/// look into it, so an ordinary user cannot join it either (setns(2), ptrace(2)).
fn why_entering_fails(status: Status) -> &'static str {
    match status {
        Status::Created => {
            "enter the container's namespaces (it has not been started: start it first, or have CAP_SYS_PTRACE)"
        }
        _ => "enter the container's namespaces",
    }
}

/// The root directory of the container, for one that shares the host's mounts.
fn root_of(order: &Order) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", order.record.pid);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(path.as_str(), flags, Mode::empty())
        .call("open", || format!("{path:?}"))
        .context("find the container's root")?;
    // It still lives, so the number was its own and not another's (pid reuse).
    sys::pidfd::send_signal(order.init, 0).context("find the container's root")?;
    Ok(root)
}

/// The unit is told when the process is to be put into its cgroup yet.
fn clone_into_cgroup<'a>(order: &Order<'a>) -> Result<(Cloned, Option<&'a UnitName>)> {
    let clone = |dir: Option<BorrowedFd>| sys::process::clone(0, dir, false);
    let refused = match &order.cgroup {
        None => return Ok((clone(None)?, None)),
        Some(Place::Chosen(dir)) => {
            return Ok((clone(Some(dir.as_fd())).context("--cgroup")?, None));
        }
        Some(Place::Containers { cgroup, mount }) => match clone(Some(cgroup.dir())) {
            // cgroups(7), no internal processes: a container that manages cgroups itself has moved
            // its init into one below.
            Err(e) if e.errno == Errno::EBUSY => {
                let dir = cgroup_of(order.record.pid, cgroup, mount)?;
                return Ok((clone(Some(dir.dir()))?, None));
            }
            Err(e) => e,
            cloned => return Ok((cloned?, None)),
        },
    };
    match refused.errno {
        // The way from our cgroup to the container's leads through one that is not the user's: a user's
        // systemd asks the machine's to move the process. Without systemd, as runc, it goes without
        // the container's limits.
        Errno::EACCES | Errno::EPERM if order.record.rootless => {
            Ok((clone(None)?, order.record.unit.as_ref()))
        }
        _ => Err(refused).context("the container's cgroup"),
    }
}

/// The cgroup that init is in, which must be the container's or one below: what the container itself
/// can choose.
fn cgroup_of(pid: i32, container: &Cgroup, mount: &Path) -> Result<Cgroup> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let inner = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = mount.join(inner.with_context(|| format!("{file} has no line 0::"))?);
    if !path.starts_with(container.path()) {
        bail!(
            "the container's cgroup has cgroups with controllers below it, and init was moved out of \
             it to {}: no place for one more process; choose one with --cgroup",
            path.display()
        );
    }
    Cgroup::open(&path)?.with_context(|| format!("cgroup {} is gone", path.display()))
}
