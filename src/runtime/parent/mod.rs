//! In front of the house: makes a container up to the point where only its start is missing, and
//! takes back everything when a step fails.
//!
//! The parent and init work at the same time: while init mounts, the parent writes limits and the
//! device program. They meet in the [`handshake`](super::handshake).

pub mod enter;
pub mod foreground;
pub mod ids;
pub mod listener;
pub mod netdev;
pub mod restore;
pub mod seal;
pub mod spawn;
pub mod terminal;
pub mod trees;

use crate::runtime::cgroup::Cgroup;
use crate::runtime::container::{Claim, Phase, Record, start_time};
use crate::runtime::handshake::{self, FromInit, FromParent, ParentEnd};
use crate::runtime::hooks;
use crate::runtime::init;
use crate::runtime::log;
use crate::runtime::parent::listener::Due;
use crate::runtime::parent::netdev::Moved;
use crate::runtime::plan::{CloneRoute, Plan, Rlimit};
use crate::runtime::state::State;
use crate::runtime::systemd::{self, Systemd};
use crate::sys::{self, Call, process::Cloned};
use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// What to make a container from.
pub struct Order<'a> {
    pub claim: Claim,
    /// As it is to be kept; `pid`, `start_time` and `phase` are filled in here.
    pub record: Record,
    /// config.json as it was read, for later commands.
    pub config: &'a [u8],
    pub plan: &'a Plan,
    pub cgroup_mount: &'a Path,
    pub begin: Begin,
}

/// When init executes the container's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// When `start` writes into the container's fifo.
    ByFifo,
    /// When [`Made::start`] says so: the caller has something to hand out before.
    Told,
    /// As soon as it is ready: it is told so while it mounts, and neither waits for the other.
    AtOnce,
}

/// A container that waits to be started.
pub struct Made {
    pub claim: Claim,
    pub record: Record,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub cgroup: Option<Cgroup>,
    /// The master of its terminal, if it has one.
    pub master: Option<OwnedFd>,
    /// `None`: it was restored, and runs.
    end: Option<ParentEnd>,
    told: bool,
    devices: Option<Moved>,
}

/// Makes the container, or leaves nothing behind.
pub fn make(order: Order) -> Result<Made> {
    let mut made = Effects::new(order.claim, order.record);
    let made_it = made.perform(order.plan, order.config, order.cgroup_mount, order.begin);
    match made_it {
        Ok((end, master, told)) => made.finish(master, Some(end), told),
        Err(e) => {
            made.undo(order.plan);
            Err(e)
        }
    }
}

impl Made {
    /// Takes the container back: after a step that follows its making has failed.
    pub fn undo(self, plan: &Plan) {
        Effects {
            claim: self.claim,
            record: self.record,
            init: Some((self.pid, self.pidfd)),
            cgroup: self.cgroup,
            systemd: None,
            devices: self.devices,
        }
        .undo(plan);
    }

    /// Deletes a container whose init has ended and was waited for.
    pub fn remove(self, plan: &Plan) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            if plan.parent.clone.new & libc::CLONE_NEWPID as u64 == 0 {
                // Without a pid namespace of its own, others may have outlived it.
                cgroup.kill()?;
            }
            if let Some(unit) = &self.record.unit {
                systemd::end(unit)?;
            }
            cgroup.remove()?;
        }
        let state = self.record.hook_state(0, "stopped");
        hooks::run_all(&plan.parent.poststop, "poststop", &state);
        self.claim.abandon()
    }

    /// Starts it, and waits until it has executed.
    pub fn start(&mut self) -> Result<()> {
        let end = self.end.as_ref().context("it runs already")?;
        if !self.told {
            end.tell(FromParent::Start)?;
        }
        match end.hear()? {
            None if self.told => record_made(&self.claim, &mut self.record, self.pid),
            None => Ok(()),
            Some(FromInit::Failed(why)) => Err(anyhow!(why)),
            Some(other) => bail!("init said {other:?} instead of starting"),
        }
    }
}

/// What has been done so far, so that it can be undone.
struct Effects {
    claim: Claim,
    record: Record,
    init: Option<(Pid, OwnedFd)>,
    /// With systemd: there is a unit as well.
    cgroup: Option<Cgroup>,
    /// The conversation in which the unit is made.
    systemd: Option<Systemd>,
    devices: Option<Moved>,
}

impl Effects {
    fn new(claim: Claim, record: Record) -> Self {
        Effects {
            claim,
            record,
            init: None,
            cgroup: None,
            systemd: None,
            devices: None,
        }
    }

    /// What has been made, once all of it is.
    fn finish(self, master: Option<OwnedFd>, end: Option<ParentEnd>, told: bool) -> Result<Made> {
        let (pid, pidfd) = self.init.context("init was not made")?;
        Ok(Made {
            claim: self.claim,
            record: self.record,
            pid,
            pidfd,
            cgroup: self.cgroup,
            master,
            end,
            told,
            devices: self.devices,
        })
    }

    /// The story, from the claimed name to an init that waits.
    fn perform(
        &mut self,
        plan: &Plan,
        config: &[u8],
        cgroup_mount: &Path,
        begin: Begin,
    ) -> Result<(ParentEnd, Option<OwnedFd>, bool)> {
        self.begin(plan, cgroup_mount)?;
        let end = self.spawn(plan, begin == Begin::ByFifo)?;
        match self.attend(plan, config, &end, begin) {
            Ok((master, told)) => Ok((end, master, told)),
            // Nothing can be done to an init that has ended: why it has is what there is to tell.
            Err(e) => Err(end.last_words().map_or(e, |why| anyhow!(why))),
        }
    }

    /// Until init is ready. Gives the master of its terminal, and whether it may start by itself.
    fn attend(
        &mut self,
        plan: &Plan,
        config: &[u8],
        end: &ParentEnd,
        begin: Begin,
    ) -> Result<(Option<OwnedFd>, bool)> {
        if plan.parent.clone.route == CloneRoute::Direct {
            self.welcome(plan, end)?;
        }
        // Here because init does not wait for it.
        self.claim.save_config(config)?;
        let told = begin == Begin::AtOnce
            && self.may_start_when_ready(plan)
            // An init that is gone has said why; we hear it below.
            && end.tell(FromParent::Start).is_ok();
        let master = self.serve(plan, end)?;
        if !told {
            let (pid, _) = self.init()?;
            record_made(&self.claim, &mut self.record, pid)?;
        }
        Ok((master, told))
    }

    /// What there is before the container's first process.
    fn begin(&mut self, plan: &Plan, cgroup_mount: &Path) -> Result<()> {
        self.refuse_used(plan, cgroup_mount)
            .or_else(|e| self.claim.refuse_taken().and(Err(e)))?;
        // Before anything is made, so that `delete --force` can clean up after a runtime that was
        // killed here; and only of a cgroup that is ours to kill.
        self.record.phase = Phase::Creating;
        self.claim.save(&self.record)?;
        if self.record.notify {
            self.claim.make_notify_directory()?;
        }
        match plan.parent.unit {
            None => self.make_cgroup(plan, cgroup_mount),
            Some(_) => Ok(()),
        }
    }

    /// Who was given no cgroups goes without where nothing is lost by it, as with runc.
    fn make_cgroup(&mut self, plan: &Plan, mount: &Path) -> Result<()> {
        let optional = plan.parent.cgroup.optional;
        match Cgroup::create(mount, &plan.parent.cgroup) {
            // What we may make but not enter is none either.
            Ok(made) if optional && !made.may_be_entered_from(mount) => {
                made.undo()?;
                self.go_without_cgroup();
            }
            Ok(made) => self.cgroup = Some(made),
            Err(_) if optional => self.go_without_cgroup(),
            Err(e) if self.record.rootless => {
                return Err(e.context(
                    "rootless needs no limits + no cgrouppath when no permission is granted for \
                     cgroups: delegate a cgroup to this user, or remove linux.resources and \
                     linux.cgroupsPath",
                ));
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn go_without_cgroup(&mut self) {
        self.record.cgroup = None;
        if !self.record.pid_namespace {
            log::warn(
                "a rootless container with neither a cgroup nor a pid namespace of its own: \
                 processes that outlive its first one cannot be found to be killed",
            );
        }
    }

    /// Nothing must come between init's readiness and its start: no hook's answer, and no record of
    /// the pid, without which a container that has no cgroup could not be ended if we died.
    fn may_start_when_ready(&self, plan: &Plan) -> bool {
        let parent = &plan.parent;
        let seccomp = plan.init.seccomp.as_ref();
        parent.clone.route == CloneRoute::Direct
            && parent.prestart.is_empty()
            && parent.create_runtime.is_empty()
            // Exec ends the listener: the agent has it before.
            && seccomp.is_none_or(|seccomp| seccomp.notify.is_none())
            && self.cgroup.is_some()
    }

    fn init(&self) -> Result<(Pid, &OwnedFd)> {
        let (pid, pidfd) = self.init.as_ref().context("init was not made")?;
        Ok((*pid, pidfd))
    }

    /// Clones; the child never returns from here.
    fn spawn(&mut self, plan: &Plan, by_fifo: bool) -> Result<ParentEnd> {
        let start = match by_fifo {
            true => {
                let (go, report) = self.claim.start_fifos()?;
                init::Start::Fifo { go, report }
            }
            false => init::Start::Handshake,
        };
        let sources = open_sources(plan)?;
        let ignored_signals = sys::process::ignored_signals();
        let (parent_end, init_end) = handshake::pair()?;
        let cgroup = self.cgroup.as_ref();
        match spawn::spawn(&plan.parent, cgroup.map(|c| c.dir()))? {
            Cloned::Child => {
                drop(parent_end);
                init::run(init::Ask {
                    plan,
                    end: init_end,
                    start,
                    ignored_signals,
                    sources,
                    cgroup: cgroup.map(|c| c.path()),
                    running: None,
                    cgroup_mount: &self.record.cgroup_mount,
                    state: &|pid, status| self.record.hook_state(pid, status),
                })
            }
            Cloned::Parent { pid, pidfd } => {
                self.init = Some((Pid::from_raw(pid), pidfd));
                Ok(parent_end)
            }
        }
    }

    /// Two containers must not share a cgroup.
    fn refuse_used(&mut self, plan: &Plan, cgroup_mount: &Path) -> Result<()> {
        let Some(unit) = &plan.parent.unit else {
            return Cgroup::refuse_used(cgroup_mount, &plan.parent.cgroup);
        };
        let mut systemd = Systemd::connect(unit.manager)?;
        systemd.refuse_used(unit)?;
        self.systemd = Some(systemd);
        Ok(())
    }

    /// What init must have from the parent, as soon as there is an init.
    fn welcome(&mut self, plan: &Plan, end: &ParentEnd) -> Result<()> {
        let (pid, _) = self.init()?;
        if self.place(plan, pid)? {
            end.tell(FromParent::Placed)?;
        }
        if self.cgroup.is_none() {
            // Else there were nothing to find it by, if we died when it needs us no more.
            let (pid, _) = self.init()?;
            self.record.pid = pid.as_raw();
            self.record.start_time = start_time(pid.as_raw())?;
            self.claim.save(&self.record)?;
        }
        // Before init hides from us, which an ordinary user could not write to then.
        if let Some(score) = plan.parent.oom_score_adj {
            let (pid, _) = self.init()?;
            set_oom_score_adj(pid, score)?;
        }
        self.give_ids(plan)?;
        if plan.init.wait_for_welcome {
            end.tell(FromParent::Welcome)?;
        }
        self.furnish(plan)
    }

    /// With systemd: a scope begins with a process, so that comes first and is moved. That waits
    /// for an RCU grace period, which is systemd's price. False without systemd.
    fn place(&mut self, plan: &Plan, pid: Pid) -> Result<bool> {
        let Some(unit) = &plan.parent.unit else {
            return Ok(false);
        };
        let systemd = self.systemd.as_mut().context("no systemd to ask")?;
        let inner = systemd.start(unit, pid)?;
        self.systemd = None;
        let cgroup = Cgroup::adopt(&self.record.cgroup_mount, &inner)
            .inspect_err(|_| drop(systemd::end(&unit.kept())))?;
        self.record.cgroup = Some(cgroup.path().to_owned());
        self.cgroup = Some(cgroup);
        // Other commands find the cgroup from here on.
        self.claim.save(&self.record)?;
        Ok(true)
    }

    /// What root of a user namespace cannot do for itself.
    fn give_ids(&self, plan: &Plan) -> Result<()> {
        if !plan.init.in_user_namespace {
            return Ok(());
        }
        let (pid, _) = self.init()?;
        raise_hard_limits(pid, &plan.parent.rlimits)?;
        match plan.init.new_user_namespace {
            true => ids::write(
                pid.as_raw(),
                &plan.parent,
                plan.init.process.groups.is_some(),
            ),
            false => Ok(()),
        }
    }

    /// What the parent does while init mounts.
    fn furnish(&mut self, plan: &Plan) -> Result<()> {
        let (pid, _) = self.init()?;
        if let Some(cgroup) = &self.cgroup {
            cgroup.apply(&plan.parent.cgroup)?;
        }
        if !plan.parent.net_devices.is_empty() {
            let path = format!("/proc/{pid}/ns/net");
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let namespace = nix::fcntl::open(path.as_str(), flags, Mode::empty())
                .call("open", || format!("{path:?}"))?;
            let moved = netdev::move_into(namespace, &plan.parent.net_devices);
            self.devices = Some(moved.context("linux.netDevices")?);
        }
        Ok(())
    }

    /// Answers init until it is ready. Gives the master of its terminal.
    fn serve(&mut self, plan: &Plan, end: &ParentEnd) -> Result<Option<OwnedFd>> {
        let mut master = None;
        let mut due = Due::default();
        // Until the joiner has told of init, who waits for us.
        let mut joiner = match plan.parent.clone.route {
            CloneRoute::Direct => None,
            CloneRoute::Joiner => Some(self.init()?.1.try_clone()?),
        };
        while !due.is_over() {
            match end.hear_beside(joiner.as_ref().or(due.courier.as_ref()))? {
                Some(FromInit::Child { pidfd }) => {
                    self.adopt(pidfd)?;
                    joiner = None;
                    self.welcome(plan, end)?;
                }
                Some(FromInit::Trees(which)) => {
                    let (pid, _) = self.init()?;
                    trees::give(pid, plan, &which, end)?;
                }
                Some(FromInit::Hooks) => {
                    let (pid, _) = self.init()?;
                    // Not `created` yet: what they see is a container being made.
                    let state = self.record.hook_state(pid.as_raw(), "creating");
                    hooks::run(&plan.parent.prestart, "prestart", &state)?;
                    hooks::run(&plan.parent.create_runtime, "createRuntime", &state)?;
                    end.tell(FromParent::Go)?;
                }
                Some(FromInit::Console(fd)) => master = Some(fd),
                Some(FromInit::Courier(pidfd)) => due.courier = Some(pidfd),
                Some(FromInit::Listener(fd)) => {
                    self.hand_over(plan, fd)?;
                    due.courier_is_done()?;
                }
                Some(FromInit::Ready) => due.ready = true,
                Some(FromInit::Failed(why)) => bail!(why),
                None => return Err(self.why_init_died(plan)),
            }
        }
        Ok(master)
    }

    /// The agent gets the seccomp listener of init.
    fn hand_over(&self, plan: &Plan, listener: OwnedFd) -> Result<()> {
        let seccomp = plan.init.seccomp.as_ref();
        let notify = seccomp.and_then(|seccomp| seccomp.notify.as_ref());
        let notify = notify.context("init has a seccomp listener that nobody asked for")?;
        let (pid, _) = self.init()?;
        let state = State::new(&self.record, pid.as_raw(), "creating");
        listener::hand_over(notify, listener, pid.as_raw(), &state)
    }

    /// The joiner's child takes its place; the joiner has nothing left to do but end.
    fn adopt(&mut self, pidfd: OwnedFd) -> Result<()> {
        let (joiner, _) = self.init()?;
        nix::sys::wait::waitpid(joiner, None).call("waitpid", || joiner.to_string())?;
        let pid = sys::pidfd::pid_of(pidfd.as_fd())?;
        self.init = Some((Pid::from_raw(pid), pidfd));
        Ok(())
    }

    fn why_init_died(&self, plan: &Plan) -> anyhow::Error {
        let how = match self
            .init()
            .map(|(pid, _)| nix::sys::wait::waitpid(pid, None))
        {
            Ok(Ok(WaitStatus::Signaled(_, signal, _))) => format!("was killed by {signal}"),
            Ok(Ok(WaitStatus::Exited(_, code))) => format!("exited with status {code}"),
            _ => "ended".to_owned(),
        };
        let writes = &plan.parent.cgroup.writes;
        let oom_kills = self.cgroup.as_ref().and_then(Cgroup::oom_kills);
        let killed_for_memory = match oom_kills {
            Some(kills) => kills > 0,
            // systemd removes an empty scope, and its counts with it.
            None => how.contains("SIGKILL") && writes.iter().any(|w| w.file == "memory.max"),
        };
        match killed_for_memory {
            true => anyhow!(
                "the container's first process was killed for want of memory before it was ready: \
                 linux.resources.memory.limit is too small to set the container up"
            ),
            false => anyhow!("the container's first process {how} before it was ready"),
        }
    }

    /// Takes back what was done, last first. Failures here have no one to act on them: the error
    /// that led here is the one to report.
    fn undo(mut self, plan: &Plan) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
        }
        if let Some((pid, pidfd)) = self.init.take() {
            let _ = sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, Some(WaitPidFlag::__WALL));
        }
        if let Some(Err(e)) = self.devices.take().map(Moved::undo) {
            log::warn(format!("linux.netDevices: take back: {e:#}"));
        }
        if let Some(cgroup) = self.cgroup.take() {
            if let Some(unit) = &self.record.unit {
                let _ = systemd::end(unit);
            }
            let _ = cgroup.undo();
        }
        // runtime-spec runtime.md#lifecycle: after a failed create, destroyed; then poststop.
        let state = self.record.hook_state(0, "stopped");
        hooks::run_all(&plan.parent.poststop, "poststop", &state);
        let _ = self.claim.abandon();
    }
}

/// From here on others may enter the container: not while init still has the host's files before it.
fn record_made(claim: &Claim, record: &mut Record, pid: Pid) -> Result<()> {
    record.pid = pid.as_raw();
    record.start_time = start_time(pid.as_raw())?;
    record.phase = Phase::Created;
    claim.save(record)
}

/// Init sets its limits itself, but root of a user namespace may not raise a hard one
/// (setrlimit(2)): that is done for it before it becomes that.
fn raise_hard_limits(pid: Pid, limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let (soft, hard) = sys::process::rlimit(limit.resource)?;
        if limit.hard > hard {
            sys::process::set_rlimit(pid.as_raw(), limit.resource, soft, limit.hard)
                .with_context(|| format!("process.rlimits ({})", limit.name))?;
        }
    }
    Ok(())
}

/// Copies of what init cannot reach by path: a descriptor of ours (`/proc/self/fd/N`) leads into our
/// mount namespace, of which init may copy nothing.
fn open_sources(plan: &Plan) -> Result<Vec<OwnedFd>> {
    let mounts = plan.init.rootfs.iter().flat_map(|rootfs| &rootfs.mounts);
    mounts
        .filter_map(|mount| {
            let (source, recursive) = mount.kind.source_of_parent()?;
            let tree = sys::mount::clone_tree(source, recursive)
                .with_context(|| format!("{} ({})", mount.field, mount.destination.display()));
            Some(tree)
        })
        .collect()
}

fn set_oom_score_adj(pid: Pid, score: i32) -> Result<()> {
    let file = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&file, score.to_string()).map_err(|e| {
        let hint = match e.kind() {
            ErrorKind::PermissionDenied => " (less than the caller's own takes CAP_SYS_RESOURCE)",
            _ => "",
        };
        anyhow!("process.oomScoreAdj: write {score} to {file}: {e}{hint}")
    })
}
