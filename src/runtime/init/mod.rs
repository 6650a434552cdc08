//! Inside: from clone to exec.
//!
//! Takes one plain [`Ask`] and never returns. Nothing here reads the environment, a clock, a path of
//! the host or config.json; what is needed was put into the plan, or is asked of the parent through
//! the [`handshake`](crate::runtime::handshake). The only execve(2) is in [`exec`].

mod console;
mod copy_up;
mod courier;
mod devices;
mod exec;
mod identity;
pub mod inside;
pub mod join;
mod labels;
mod mounts;
mod proc;
mod rootfs;
pub mod sources;

use crate::runtime::handshake::{FromInit, FromParent, InitEnd};
use crate::runtime::hooks;
use crate::runtime::plan::seccomp::SeccompPlan;
use crate::runtime::plan::{CloneRoute, InitPlan, Plan, ProcessPlan, Rlimit};
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result, bail};
use courier::Courier;
use mounts::OwnCgroup;
use nix::sys::stat::Mode;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What init is given.
pub struct Ask<'a> {
    pub plan: &'a Plan,
    pub end: InitEnd,
    pub start: Start,
    /// Signals that the caller ignores: the container shall not.
    pub ignored_signals: u64,
    /// Detached mounts that the parent made, one for each bind with
    /// [`source_of_parent`](crate::runtime::plan::MountKind::source_of_parent), in order.
    pub sources: Vec<OwnedFd>,
    /// The container's cgroup directory on the host, and where it is looked for when systemd makes
    /// it: the cgroup2 mount.
    pub cgroup: Option<&'a Path>,
    /// The container that this process joins (`exec`); `None`: it is the first of its own.
    pub running: Option<Running<'a>>,
    pub cgroup_mount: &'a Path,
    /// The container's state as JSON, with this pid and status: for hooks.
    pub state: &'a dyn Fn(i32, &str) -> Vec<u8>,
}

/// A container that is there already.
pub struct Running<'a> {
    /// A pidfd of its init.
    pub init: BorrowedFd<'a>,
    /// Its root directory, where its mount namespace does not lead there.
    pub root: Option<OwnedFd>,
    /// It could not be cloned into the container's cgroup: systemd is asked to put it there.
    pub wait_for_cgroup: bool,
}

/// How init learns that it is to start.
pub enum Start {
    /// `exec`: nothing to wait for.
    AtOnce,
    /// `run`: the parent says so.
    Handshake,
    /// `create`: somebody writes a byte into `go`. Both are fifos opened for reading and writing, so
    /// that they never report end of file here; a failure to start is written into `report`, which
    /// the starter reads until exec closes it.
    Fifo { go: OwnedFd, report: OwnedFd },
}

/// Makes this process, just cloned, the container's.
pub fn run(ask: Ask) -> ! {
    let status = match prepare(&ask) {
        Err(e) => {
            say_failed(&ask.end, &e);
            1
        }
        Ok(Prepared::Joined) => 0,
        Ok(Prepared::Init(program)) => {
            let Ask {
                plan,
                end,
                start,
                state,
                ..
            } = ask;
            start_up(&plan.init, &program, end, start, state);
            1
        }
    };
    sys::process::exit_now(status)
}

fn say_failed(end: &InitEnd, e: &anyhow::Error) {
    // A parent that is gone has nobody to tell.
    let _ = end.tell(&FromInit::Failed(format!("{e:#}")));
}

enum Prepared {
    /// This was the joiner: init is its sibling, and goes on alone.
    Joined,
    Init(exec::Program),
}

/// The story of a container, up to the moment where only its start is missing.
fn prepare(ask: &Ask) -> Result<Prepared> {
    let plan = &ask.plan.init;
    // A runtime that is killed takes a half-made container with it.
    sys::process::set_parent_death_signal(libc::SIGKILL)?;
    sys::process::default_signals(ask.ignored_signals)?;
    // A terminal's signals are for the container's own session.
    nix::unistd::setsid().call("setsid", String::new)?;
    if joins_user_namespace(plan) && plan.process.groups.is_some() {
        // The caller's groups: in there setgroups(2) may be denied, and they would stay. Where it is
        // denied here already, they are not silently kept: identity::assume sees to that.
        let _ = nix::unistd::setgroups(&[]);
    }
    let mut proc = None;
    match &ask.running {
        None => join::enter(&plan.join)?,
        Some(running) => proc = join_running(ask, running)?,
    }
    if ask.plan.parent.clone.route == CloneRoute::Joiner && !make_init(ask)? {
        return Ok(Prepared::Joined);
    }
    let entering = ask.running.as_ref();
    if plan.wait_for_cgroup || entering.is_some_and(|running| running.wait_for_cgroup) {
        // Still with the caller's uid: a user's systemd takes no other's process.
        ask.end.wait_for(FromParent::Placed)?;
    }
    if plan.wait_for_welcome {
        // Said by init before the parent has heard of it from the joiner, all would be the joiner's.
        ask.end.wait_for(FromParent::Welcome)?;
    }
    if plan.in_user_namespace {
        join::become_its_root(plan)?;
        // A change of user clears it (prctl(2)).
        sys::process::set_parent_death_signal(libc::SIGKILL)?;
    }
    if !plan.time_offsets.is_empty() {
        join::enter_new_time_namespace(&plan.time_offsets)?;
    }
    if plan.unshare != 0 {
        join::unshare(plan.unshare)?;
    }
    // Before anything of the container can look at this process (CVE-2016-9962).
    sys::process::set_dumpable(false)?;
    if proc.is_none() {
        proc = open_proc(plan)?;
    }
    if let Some(name) = &plan.keyring {
        labels::with_key_label(&plan.process, proc.as_ref(), || join_keyring(name))?;
    }
    if plan.loopback_up {
        sys::tty::loopback_up().context("bring lo up")?;
    }
    match ask.running {
        None => build_rootfs(ask, proc.as_ref())?,
        // All namespaces are entered: the root is this directory.
        Some(_) => give_stdio(ask, sys::mount::cwd(), false)?,
    }
    Ok(Prepared::Init(confine(ask, proc)?))
}

/// Only where something is to be written there.
fn open_proc(plan: &InitPlan) -> Result<Option<proc::Proc>> {
    let process = &plan.process;
    let labels = process.apparmor_profile.is_some() || process.selinux_label.is_some();
    if plan.sysctls.is_empty() && !labels {
        return Ok(None);
    }
    let proc = proc::Proc::open().context("a proc file system to write to")?;
    Ok(Some(proc))
}

/// What needs the host's powers and its /proc comes first; then into the container, at once.
fn join_running(ask: &Ask, running: &Running) -> Result<Option<proc::Proc>> {
    let Plan { parent, init, .. } = ask.plan;
    if let Some(score) = parent.oom_score_adj {
        let file = "/proc/self/oom_score_adj";
        std::fs::write(file, score.to_string())
            .with_context(|| format!("process.oomScoreAdj: write {score} to {file}"))?;
    }
    if init.in_user_namespace {
        // Root of a user namespace may not raise a hard limit (setrlimit(2)).
        raise_hard_limits(&parent.rlimits)?;
    }
    // Here it sees the container's pid namespace already and the host's /proc still. An ordinary user
    // may make one only inside.
    let proc = open_proc(init).ok().flatten();
    join::enter_running(running, init.enter)?;
    Ok(proc)
}

fn raise_hard_limits(limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let (soft, hard) = sys::process::rlimit(limit.resource)?;
        if limit.hard > hard {
            sys::process::set_rlimit(0, limit.resource, soft, limit.hard)
                .with_context(|| format!("process.rlimits ({})", limit.name))?;
        }
    }
    Ok(())
}

/// The joiner has entered what is joined; init is made in the new namespaces, as its sibling, so
/// that the runtime is its parent. Gives whether this is init.
fn make_init(ask: &Ask) -> Result<bool> {
    match sys::process::clone(ask.plan.parent.clone.new, None, true)? {
        Cloned::Child => {
            sys::process::set_parent_death_signal(libc::SIGKILL)?;
            nix::unistd::setsid().call("setsid", String::new)?;
            Ok(true)
        }
        Cloned::Parent { pidfd, .. } => {
            ask.end.tell(&FromInit::Child { pidfd })?;
            Ok(false)
        }
    }
}

fn joins_user_namespace(plan: &InitPlan) -> bool {
    plan.in_user_namespace && !plan.new_user_namespace
}

fn join_keyring(name: &str) -> Result<()> {
    match sys::process::join_session_keyring(&CString::new(name)?) {
        Ok(_) => Ok(()),
        // A kernel without keyrings has none that could leak.
        Err(e) if e.errno == nix::errno::Errno::ENOSYS => Ok(()),
        Err(e) => Err(e).context("new session keyring (try --no-new-keyring)"),
    }
}

/// File system, hooks that belong between its mounts and its pivot, terminal, and what is set on
/// the namespaces.
fn build_rootfs(ask: &Ask, proc: Option<&proc::Proc>) -> Result<()> {
    let plan = &ask.plan.init;
    let Some(tree) = &plan.rootfs else {
        return Ok(());
    };
    // Modes of the plan are meant as they are; hooks get the caller's umask back.
    let umask = nix::sys::stat::umask(Mode::empty());
    let sources = sources::Sources::new(tree, &ask.sources, &ask.end)?;
    let shows_cgroup = plan.unshare & libc::CLONE_NEWCGROUP as u64 != 0;
    let placed = match plan.wait_for_cgroup && !shows_cgroup {
        true => Some(join::own_cgroup(ask.cgroup_mount)?),
        false => None,
    };
    let cgroup = match placed.as_deref().or(ask.cgroup) {
        Some(dir) => OwnCgroup::At(dir),
        None if shows_cgroup => OwnCgroup::Namespace,
        None => OwnCgroup::None,
    };
    let root = rootfs::Root::build(tree, sources, cgroup, plan.in_user_namespace)?;
    nix::sys::stat::umask(umask);
    let parent = &ask.plan.parent;
    if !parent.prestart.is_empty() || !parent.create_runtime.is_empty() {
        ask.end.tell(&FromInit::Hooks)?;
        ask.end.wait_for(FromParent::Go)?;
    }
    if !plan.create_container.is_empty() {
        run_hooks(
            ask.state,
            &plan.create_container,
            "createContainer",
            "creating",
        )?;
    }
    root.enter()?;
    give_stdio(ask, root.fd(), true)?;
    if plan.process.cwd != Path::new("/") {
        // Before the root may become read-only.
        rootfs::make_directory(root.fd(), &plan.process.cwd).context("process.cwd")?;
    }
    root.finish()?;
    if let Some(name) = &plan.hostname {
        nix::unistd::sethostname(name)
            .call("sethostname", || format!("{name:?}"))
            .context("hostname")?;
    }
    if let Some(name) = &plan.domainname {
        sys::process::set_domain_name(name).context("domainname")?;
    }
    if let Some(proc) = proc {
        for (path, value) in &plan.sysctls {
            proc.set_sysctl(path, value)?;
        }
    }
    // After sysctl, which writes below a path that is usually read-only.
    root.protect_paths()?;
    root.mask_paths()
}

fn run_hooks(
    state: &dyn Fn(i32, &str) -> Vec<u8>,
    hooks: &[crate::runtime::plan::Hook],
    kind: &str,
    status: &str,
) -> Result<()> {
    // The pid as the container sees it (runtime-spec runtime.md#state).
    let pid = nix::unistd::getpid().as_raw();
    hooks::run(hooks, kind, &state(pid, status))
}

/// `console`: the terminal is also the container's /dev/console.
fn give_stdio(ask: &Ask, root: BorrowedFd, console: bool) -> Result<()> {
    let process = &ask.plan.init.process;
    if !process.terminal {
        return console::adopt_stdio(root, process.uid);
    }
    let pty = console::Pty::open(root)?;
    pty.set_up(process.console_size, process.uid)?;
    if console {
        pty.become_console(root)?;
    }
    pty.become_stdio()?;
    ask.end.tell(&FromInit::Console(pty.master))
}

/// Scheduling, powers, user; then the program is found, as that user.
fn confine(ask: &Ask, proc: Option<proc::Proc>) -> Result<exec::Program> {
    let process = &ask.plan.init.process;
    set_scheduling(process)?;
    if let Some(proc) = proc {
        // Before descriptors are closed and the profile refuses to write files. Dropped here: its number
        // is soon another descriptor's, the seccomp listener's perhaps.
        labels::set(process, &proc)?;
    }
    if process.no_new_privileges {
        sys::process::set_no_new_privileges().context("process.noNewPrivileges")?;
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(process.umask));
    close_what_is_not_the_containers(ask)?;
    let home = exec::home(process);
    let seccomp = &ask.plan.init.seccomp;
    let courier = match has_agent(&ask.plan.init) {
        true => Some(Courier::hire(&ask.end).context("linux.seccomp")?),
        false => None,
    };
    if !process.no_new_privileges {
        // Takes CAP_SYS_ADMIN, which ends with the change of user (seccomp(2)).
        load_seccomp(seccomp, courier.as_ref())?;
    }
    for limit in &ask.plan.parent.rlimits {
        sys::process::set_rlimit(0, limit.resource, limit.soft, limit.hard)
            .with_context(|| format!("process.rlimits ({})", limit.name))?;
    }
    identity::assume(process)?;
    let program = exec::Program::find(process, home)?;
    // From here on the container outlives the runtime.
    sys::process::set_parent_death_signal(0)?;
    if matches!(ask.start, Start::Fifo { .. }) && may_be_entered_by_its_user(&ask.plan.init) {
        sys::process::set_dumpable(true)?;
    }
    if process.no_new_privileges {
        // As late as can be: what init still needs is write, read, hooks and execve.
        load_seccomp(seccomp, courier.as_ref())?;
    }
    Ok(program)
}

/// Setns(2) into what is not dumpable takes CAP_SYS_PTRACE where the runtime was executed, which an
/// ordinary user never has. Her container has a user namespace of its own, so that none but what she
/// enters it with could look into init (ptrace(2), "Ptrace access mode checking"); and all that init
/// had of the host is closed by now.
fn may_be_entered_by_its_user(plan: &InitPlan) -> bool {
    plan.caller_is_no_root && plan.new_user_namespace
}

fn has_agent(plan: &InitPlan) -> bool {
    let seccomp = plan.seccomp.as_ref();
    seccomp.is_some_and(|seccomp| seccomp.notify.is_some())
}

/// From here on, only what the profile allows; and where it has an agent, only write(2) without it
/// until the agent has the listener.
fn load_seccomp(plan: &Option<SeccompPlan>, courier: Option<&Courier>) -> Result<()> {
    let Some(seccomp) = plan else {
        return Ok(());
    };
    let listener = sys::seccomp::load(&seccomp.program, seccomp.flags).context("linux.seccomp")?;
    match (listener, courier) {
        (Some(listener), Some(courier)) => courier.take(listener),
        _ => Ok(()),
    }
}

/// Closed, not only marked close-on-exec: execve(2) looks up `/proc/self/fd/N/../..` before it
/// closes anything, and among these are directories of the host, ours and what the caller leaked
/// (CVE-2024-21626). The parent's structures that own them are never dropped in this process.
fn close_what_is_not_the_containers(ask: &Ask) -> Result<()> {
    let first = 3 + ask.plan.init.process.preserve_fds;
    let mut keep = vec![ask.end.as_fd()];
    if let Start::Fifo { go, report } = &ask.start {
        keep.extend([go.as_fd(), report.as_fd()]);
    }
    sys::process::close_all_from(first, &mut keep)?;
    for fd in 3..first {
        sys::process::keep_on_exec(fd as i32).context("--preserve-fds")?;
    }
    Ok(())
}

fn set_scheduling(process: &ProcessPlan) -> Result<()> {
    match &process.processors {
        Some(mask) => {
            sys::process::use_processors(mask).context("process.execCPUAffinity.final")?;
        }
        // Whatever the caller was bound to (an engine on housekeeping processors, say) is not the
        // container's; its cpuset is. A kernel that refuses leaves it slower, not wrong.
        None => drop(sys::process::use_all_processors()),
    }
    if let Some(s) = &process.scheduler {
        let attr = sys::process::SchedAttr {
            policy: s.policy,
            flags: s.flags,
            nice: s.nice,
            priority: s.priority,
            runtime: s.runtime,
            deadline: s.deadline,
            period: s.period,
            ..Default::default()
        };
        sys::process::set_scheduler(attr).context("process.scheduler")?;
    }
    if let Some(value) = process.io_priority {
        sys::process::set_io_priority(value).context("process.ioPriority")?;
    }
    if let Some(persona) = process.personality {
        sys::process::set_personality(persona).context("linux.personality")?;
    }
    if let Some(policy) = &process.memory_policy {
        sys::process::set_memory_policy(policy.mode, &policy.nodes)
            .context("linux.memoryPolicy")?;
    }
    Ok(())
}

/// Reports ready, waits, becomes the program. Returns only after a failure, which it has told.
fn start_up(
    plan: &InitPlan,
    program: &exec::Program,
    end: InitEnd,
    start: Start,
    state: &dyn Fn(i32, &str) -> Vec<u8>,
) {
    let e = match wait_for_start(&end, &start) {
        Ok(()) => match run_hooks_at_start(plan, state) {
            Ok(()) => program.execute(),
            Err(e) => e,
        },
        Err(e) => e,
    };
    match start {
        Start::AtOnce | Start::Handshake => say_failed(&end, &e),
        Start::Fifo { report, .. } => {
            // A starter that is gone has nobody to tell; the exit status says the rest.
            let _ = File::from(report).write_all(format!("{e:#}").as_bytes());
        }
    }
}

fn run_hooks_at_start(plan: &InitPlan, state: &dyn Fn(i32, &str) -> Vec<u8>) -> Result<()> {
    if plan.start_container.is_empty() {
        return Ok(());
    }
    if has_agent(plan) {
        // A hook is waited for. (The courier has ended: the agent has what it brought.)
        sys::process::keep_zombies(true)?;
    }
    run_hooks(state, &plan.start_container, "startContainer", "created")
}

fn wait_for_start(end: &InitEnd, start: &Start) -> Result<()> {
    match start {
        Start::AtOnce => Ok(()),
        Start::Handshake => {
            end.tell(&FromInit::Ready)?;
            end.wait_for(FromParent::Start)
        }
        Start::Fifo { go, .. } => {
            end.tell(&FromInit::Ready)?;
            let mut byte = [0];
            let mut file = File::from(go.try_clone()?);
            match file.read(&mut byte).context("wait for start")? {
                0 => bail!("the start fifo was closed"),
                _ => Ok(()),
            }
        }
    }
}
