//! The process beside a running container: it mounts, makes, starts, carries output, and records the end; it starts
//! it again where `--restart` says so, and asks after its health.
//!
//! `sc run` and `sc start` execute it (`sc monitor`), with a connection as its stdin; all else that a user sees comes
//! to clients ([`super::wire`]). Nobody needs it to live: killed, it leaves a container that runs on, without a log,
//! and whose exit status nobody will know.

mod clients;
mod health;
mod stdio;

use super::cli::WithStatus;
use super::events::{self, Event};
use super::inside;
use super::log::Log;
use super::mounts::Mount;
use super::network::live::Live;
use super::now;
use super::options::namespaces;
use super::programs;
use super::record::{Health, Home, Join, Process, Record, short};
use super::rootfs::{Rootfs, View};
use super::userns;
use super::volumes;
use super::wire::{LONGEST, ToClient, ToMonitor};
use crate::clock;
use crate::signal;
use crate::sys::{pidfd, process, tty};
use anyhow::{Context, Result, bail};
use clients::Clients;
use health::Checks;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use stdio::Ours;

/// docker's: the first wait before a restart; it doubles, up to a minute, until a run is long enough.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);

/// `sc monitor ID`: until the container has ended for good.
pub fn run(home: &Home, id: &str) -> Result<u8> {
    // A session of its own: the death of the terminal that typed `run` is not its death.
    nix::unistd::setsid().context("setsid")?;
    let starter = take_stdin()?;
    // What the caller had open is not ours to keep: a pipe whose end somebody waits for, a terminal.
    process::close_all_from(3, &mut [starter.as_fd()])?;
    match Monitor::new(home, id) {
        Ok(mut monitor) => {
            monitor.clients.add(starter);
            monitor.run();
            Ok(0)
        }
        Err(e) => {
            let failed = ToClient::Failed(status(&e), &format!("{e:#}")).packet();
            // Who asked may have been killed.
            let _ = write(&starter, &failed);
            Ok(1)
        }
    }
}

/// What outlives each life of the container: its network and its root.
fn furnish(home: &Home, record: &Record, dir: &Path) -> Result<(Live, Option<Rootfs>)> {
    let mut users = userns::make(record, record.networks.mode.is_own())?;
    let own = users.as_mut().and_then(|users| users.network.take());
    let mut network = Live::start(home, record, own)?;
    let Some(users) = users else {
        let mounted = Rootfs::mount(dir, record, None)?;
        network.place(record)?;
        if let Some(rootfs) = &mounted {
            volumes::fill(home, record, rootfs.path())?;
        }
        return Ok((network, mounted));
    };
    if record.mounts.iter().any(Mount::is_filled) {
        // With the ids of the disk, which volumes have too.
        let plain = Rootfs::look(dir, record, View::Container)?;
        volumes::fill(home, record, plain.path())?;
    }
    let mounted = Rootfs::mount(dir, record, Some(&users.user))?;
    network.place(record)?;
    Ok((network, mounted))
}

/// docker's status of an error.
fn status(e: &anyhow::Error) -> u8 {
    e.downcast_ref::<WithStatus>().map_or(125, |own| own.status)
}

/// The connection to whoever executed us; stdin is /dev/null from here on.
fn take_stdin() -> Result<OwnedFd> {
    let [stdin, ..] = process::stdio();
    let socket = stdin.try_clone_to_owned()?;
    process::duplicate_over(File::open("/dev/null")?.as_fd(), stdin)?;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(socket)
}

struct Monitor {
    home: Home,
    id: String,
    record: Record,
    /// The right to run the container.
    lock: File,
    /// What others wait for.
    ended: File,
    clients: Clients,
    signals: SignalFd,
    log: Log,
    network: Live,
    mounted: Option<Rootfs>,
    run: Option<Run>,
    /// Rows and columns of the terminal.
    size: Option<(u16, u16)>,
    /// Who had stdin has gone.
    input_is_gone: bool,
    /// Someone has changed the record.
    look: bool,
    /// There shall be no other life, though nobody has stopped the container.
    ending: bool,
}

/// One life of the container.
struct Run {
    pid: i32,
    pidfd: OwnedFd,
    ours: Ours,
    /// Input that the container has not taken, and whose it is.
    input: VecDeque<(u64, Vec<u8>)>,
    /// stdin is to end when that is taken.
    input_ends: bool,
    status: Option<WaitStatus>,
    checks: Option<Checks>,
    began: Instant,
}

impl Monitor {
    fn new(home: &Home, id: &str) -> Result<Monitor> {
        let Some(lock) = home.try_monitor(id)? else {
            bail!("the container is running, or about to be removed");
        };
        let ended = home.hold_end(id)?;
        let record = home.load(id)?.context("the container is gone")?;
        if record.removing {
            bail!("the container is about to be removed");
        }
        process::set_child_subreaper()?;
        let signals = listen()?;
        let dir = home.dir(id);
        let made = furnish(home, &record, &dir);
        if made.is_err() && record.remove {
            // As at the end; the first error is the one to report.
            let gone = home.remove(id);
            let _ = gone.and_then(|()| volumes::remove_anonymous(home, &record));
        }
        let (network, mounted) = made?;
        Ok(Monitor {
            home: home.clone(),
            id: id.to_owned(),
            clients: Clients::listen()?,
            log: Log::open(&dir, &record)?,
            record,
            lock,
            ended,
            signals,
            network,
            mounted,
            run: None,
            size: None,
            input_is_gone: false,
            look: false,
            ending: false,
        })
    }

    /// The whole story.
    fn run(mut self) {
        let end = self.lives();
        self.leave(end);
    }

    /// One life after another, until there shall be no other; the last one's exit status, or why there was none.
    fn lives(&mut self) -> Result<Option<u8>> {
        self.tell_notes();
        self.clear()?;
        let mut wait = FIRST_WAIT;
        let mut exit = None;
        for life in 0.. {
            let begun = Instant::now();
            match self.begin() {
                Ok(()) => exit = self.carry(),
                Err(e) if life == 0 => return Err(e),
                Err(e) => exit = self.fail(&e),
            }
            if !self.record.restarting {
                break;
            }
            if begun.elapsed() >= LONG_RUN {
                wait = FIRST_WAIT;
            }
            if !self.record.again {
                if !self.pause(wait) {
                    break;
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
        Ok(exit)
    }

    fn tell_notes(&mut self) {
        for note in std::mem::take(&mut self.network.notes) {
            let line = format!("sc: {}\n", crate::show::printable(&note));
            self.clients.tell(&ToClient::Err(line.as_bytes()));
        }
    }

    /// What a killed monitor left of an earlier life.
    fn clear(&self) -> Result<()> {
        if now::alive(&self.record)?.is_some() {
            bail!("the container is running");
        }
        if self.home.state.join(&self.id).exists() {
            self.delete();
        }
        Ok(())
    }

    /// Makes and starts the container.
    fn begin(&mut self) -> Result<()> {
        self.hear();
        self.join()?;
        self.network.follow()?;
        let mut pair = stdio::open(&self.record)?;
        let theirs = std::mem::replace(
            &mut pair.theirs,
            [Stdio::null(), Stdio::null(), Stdio::null()],
        );
        if let Err(e) = self.create(theirs, pair.console.is_some()) {
            self.delete();
            self.note_failure(&e);
            return Err(e);
        }
        let started = self.start(pair);
        if let Err(e) = &started {
            self.delete();
            self.run = None;
            self.note_failure(e);
        }
        started
    }

    fn start(&mut self, pair: stdio::Pair) -> Result<()> {
        let path = self.home.dir(&self.id).join("pid");
        let text = fs::read_to_string(&path).context("the pid file")?;
        let pid = text.trim().parse().context("the pid file")?;
        let pidfd = pidfd::open(pid)?;
        let process = Process::of(pid)?;
        let ours = pair.finish()?;
        self.network.connect_process(&self.record, pid)?;
        self.tell_notes();
        // From here on others find it, and what they wanted before is found by us.
        let process_now = Some(process);
        let record = self.change(|record| {
            record.process = process_now;
            (record.started, record.finished, record.exit) = (None, None, None);
            (record.restarting, record.again, record.oom_killed) = (false, false, false);
            record.healthy = record.health.as_ref().map(|_| Health::starting());
        })?;
        if record.stopped || record.removing || self.ending {
            bail!("the container was stopped before it was started");
        }
        let checks = record.health.clone().map(Checks::new);
        self.run = Some(Run {
            pid,
            pidfd,
            ours,
            input: VecDeque::new(),
            input_ends: self.input_is_gone,
            status: None,
            checks,
            began: Instant::now(),
        });
        self.resize();
        programs::call(&self.home, &self.record, &["start", &self.id])
            .map_err(|e| programs::refusal(&format!("{e:#}")))?;
        let record = self.change(|record| {
            record.started = Some(clock::now_nanos());
            record.error.clear();
        })?;
        // A signal to stop that came before its program ran may have been lost on it.
        if record.stopped || record.removing {
            self.signal(stop_signal(&record));
        }
        events::tell(&self.home, &Event::of(&self.record, "start"));
        self.clients.tell(&ToClient::Started);
        Ok(())
    }

    /// The record, changed for all and for us.
    fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<Record> {
        let record = self.home.change(&self.id, change)?;
        self.record = record.context("the container is gone")?;
        Ok(self.record.clone())
    }

    /// Namespaces of other containers, which may have others than at the last start.
    fn join(&self) -> Result<()> {
        if self.record.joins.is_empty() {
            return Ok(());
        }
        let dir = self.home.dir(&self.id);
        let path = dir.join("bundle/config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        for Join { kind, id } in &self.record.joins {
            let other = self.home.load(id)?;
            let process = match &other {
                Some(other) if now::alive(other)?.is_some() => other.process.as_ref(),
                _ => None,
            };
            let pid = process.map(|process| process.pid).with_context(|| {
                format!(
                    "cannot join the {kind} namespace of container {}: it does not run",
                    short(id)
                )
            })?;
            let shm = match kind.as_str() {
                "ipc" => inside::borrow_mount(pid, Path::new("/dev/shm"), &dir.join("shm"))?,
                _ => None,
            };
            namespaces::join(
                &mut config,
                kind,
                pid,
                shm.as_deref().and_then(Path::to_str),
            );
        }
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&config)?)?;
        Ok(fs::rename(&new, &path)?)
    }

    fn create(&self, stdio: [Stdio; 3], terminal: bool) -> Result<()> {
        let dir = self.home.dir(&self.id);
        let log = dir.join("runtime.log");
        // There may be none.
        let _ = fs::remove_file(&log);
        let mut command = programs::runtime(&self.home, &self.record);
        command
            .args(["--log-format", "json", "--log"])
            .arg(&log)
            .arg("create")
            .arg("--bundle")
            .arg(dir.join("bundle"))
            .arg("--pid-file")
            .arg(dir.join("pid"))
            .current_dir(dir.join("bundle"));
        if terminal {
            // Relative: an address has room for 107 bytes.
            command.args(["--console-socket", "../console"]);
        }
        let [stdin, stdout, stderr] = stdio;
        command.arg(&self.id);
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let status = command
            .status()
            .with_context(|| format!("execute {}", self.record.runtime.display()))?;
        // The pipes' other ends are the container's alone from here on.
        drop(command);
        if status.success() {
            return Ok(());
        }
        let said = programs::error_in(&log);
        Err(programs::refusal(&said.unwrap_or_else(|| {
            format!("{} create: {status}", self.record.runtime.display())
        })))
    }

    /// The runtime is to forget the container; nothing to forget is fine.
    fn delete(&self) {
        let _ = programs::call(&self.home, &self.record, &["delete", "--force", &self.id]);
    }

    fn note_failure(&mut self, e: &anyhow::Error) {
        let message = format!("{e:#}");
        // Of a container that is gone, nobody asks.
        let _ = self.change(|record| {
            (record.process, record.error) = (None, message);
        });
    }

    /// A restart that failed counts as a life that did; its exit status.
    fn fail(&mut self, e: &anyhow::Error) -> Option<u8> {
        let status = status(e);
        let message = format!("{e:#}");
        let ending = self.ending;
        let changed = self.change(|record| {
            record.finished = Some(clock::now_nanos());
            (record.exit, record.error) = (Some(status), message);
            // Whoever wanted it has been obeyed: else this would be done again and again, at once.
            record.again = false;
            decide(record, ending);
        });
        self.clients
            .tell(&ToClient::Failed(status, &format!("{e:#}")));
        self.record.restarting &= changed.is_ok();
        Some(status)
    }

    /// Output, input, signals, clients and health until the container's end, and the recording of it.
    fn carry(&mut self) -> Option<u8> {
        // Many of these processes wait at once, and for long.
        process::release_code();
        let mut dead = false;
        while !dead {
            let wait = self.run.as_ref().and_then(|run| run.checks.as_ref()?.due());
            let ready = self.poll(wait);
            dead = ready.dead;
            for stream in 0..2 {
                // What it wrote before its end is there already: all of it, then no more.
                if ready.outputs[stream] || dead {
                    self.move_output(stream, dead);
                }
            }
            self.move_input();
            if self.look {
                self.look = false;
                self.reload();
            }
            self.check();
        }
        self.finish()
    }

    /// Waits for whatever happens next, and sees to signals and clients.
    fn poll(&mut self, wait: Option<Duration>) -> Ready {
        let behind = self.clients.are_behind();
        let mut polled = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.clients.listener(), PollFlags::POLLIN),
        ];
        for client in &self.clients.all {
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, client.is_waited_for());
            polled.push(PollFd::new(client.fd(), wanted));
        }
        let clients = polled.len();
        let mut marks = Vec::new();
        if let Some(run) = &self.run {
            polled.push(PollFd::new(run.pidfd.as_fd(), PollFlags::POLLIN));
            marks.push(Mark::Dead);
            for (stream, fd) in run.ours.outputs.iter().enumerate() {
                if let Some(fd) = fd.as_ref().filter(|_| !behind) {
                    polled.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
                    marks.push(Mark::Output(stream));
                }
            }
            if let Some(fd) = run.ours.input.as_ref().filter(|_| !run.input.is_empty()) {
                polled.push(PollFd::new(fd.as_fd(), PollFlags::POLLOUT));
                marks.push(Mark::Input);
            }
            if let Some(fd) = run.checks.as_ref().and_then(Checks::fd) {
                polled.push(PollFd::new(fd, PollFlags::POLLIN));
                marks.push(Mark::Check);
            }
        }
        // Rounded up: who wakes a moment early would turn in circles.
        let timeout = wait.map_or(PollTimeout::NONE, |wait| {
            let millis = wait.as_millis().saturating_add(1);
            PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX))
                .unwrap_or(PollTimeout::NONE)
        });
        let _ = poll(&mut polled, timeout);
        let mut ready = Ready::default();
        for (mark, fd) in marks.iter().zip(&polled[clients..]) {
            let is = fd.any() == Some(true);
            match mark {
                Mark::Dead => ready.dead = is,
                Mark::Output(stream) => ready.outputs[*stream] = is,
                Mark::Input | Mark::Check => {}
            }
        }
        drop(polled);
        self.read_signals();
        self.hear();
        ready
    }

    /// A signal to this process is one to the container. One to end comes from a machine that is shut down: nobody has
    /// wished that the container stays stopped after the next boot.
    fn read_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match info.ssi_signo as i32 {
                libc::SIGCHLD => self.reap(),
                signal => {
                    self.ending |= [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].contains(&signal);
                    self.signal(signal);
                }
            }
        }
    }

    /// The container's init, probes, and what they leave: this process is the subreaper.
    fn reap(&mut self) {
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    if let (Some(run), Some(pid)) = (&mut self.run, status.pid()) {
                        run.reaped(pid.as_raw(), status);
                    }
                }
            }
        }
    }

    fn signal(&self, signal: i32) {
        if let Some(run) = &self.run {
            // It may have ended meanwhile.
            let _ = pidfd::send_signal(run.pidfd.as_fd(), signal);
        }
    }

    /// New clients, and what all of them say.
    fn hear(&mut self) {
        // Out of descriptors: those that are connected are still served.
        let _ = self.clients.accept();
        self.clients.flush();
        let mut at = 0;
        while at < self.clients.all.len() {
            let client = &self.clients.all[at];
            match client.hear() {
                None => at += 1,
                Some(packet) if packet.is_empty() => {
                    let gone = self.clients.all.swap_remove(at);
                    if gone.has_input {
                        self.end_input();
                    }
                }
                Some(packet) => self.obey(at, &packet),
            }
        }
    }

    fn obey(&mut self, at: usize, packet: &[u8]) {
        let client = &mut self.clients.all[at];
        match ToMonitor::parse(packet) {
            Some(ToMonitor::HasInput) => client.has_input = true,
            Some(ToMonitor::Quiet) => client.quiet = true,
            Some(ToMonitor::Input(bytes)) => {
                let number = client.number;
                match &mut self.run {
                    Some(run) if run.ours.input.is_some() => {
                        run.input.push_back((number, bytes.to_vec()));
                        self.move_input();
                    }
                    // Nobody reads it.
                    _ => self.clients.tell_one(number, &ToClient::Taken),
                }
            }
            Some(ToMonitor::InputEnd) => {
                client.has_input = false;
                self.end_input();
            }
            Some(ToMonitor::Size(rows, columns)) => {
                self.size = Some((rows, columns));
                self.resize();
            }
            Some(ToMonitor::Signal(signal)) => self.signal(signal),
            Some(ToMonitor::Look) | None => self.look = true,
        }
    }

    /// docker's StdinOnce: it ends with the first client that had it. A terminal has no such end.
    fn end_input(&mut self) {
        if !self.record.stdin_once || self.record.terminal {
            return;
        }
        self.input_is_gone = true;
        if let Some(run) = &mut self.run {
            run.input_ends = true;
            self.move_input();
        }
    }

    fn resize(&self) {
        if let (true, Some((rows, columns)), Some(run)) =
            (self.record.terminal, self.size, &self.run)
            && let Some(terminal) = &run.ours.outputs[0]
        {
            // A terminal that ends now needs no size.
            let _ = tty::set_size(terminal.as_fd(), rows, columns);
        }
    }

    /// What there is, once, or all of it until nothing is left.
    fn move_output(&mut self, stream: usize, all: bool) {
        let mut buffer = vec![0; LONGEST];
        loop {
            let Some(fd) = self
                .run
                .as_ref()
                .and_then(|run| run.ours.outputs[stream].as_ref())
            else {
                return;
            };
            match read(fd, &mut buffer) {
                Ok(n) if n > 0 => {
                    let bytes = &buffer[..n];
                    // A full disk costs lines of the log, not the container.
                    let _ = self.log.take(stream, bytes);
                    self.clients.tell(&match stream {
                        0 => ToClient::Out(bytes),
                        _ => ToClient::Err(bytes),
                    });
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return,
                // EIO: a terminal that nobody has open any more.
                Ok(_) | Err(_) => {
                    if let Some(run) = &mut self.run {
                        run.ours.outputs[stream] = None;
                    }
                    return;
                }
            }
            if !all {
                return;
            }
        }
    }

    /// As much as the container takes.
    fn move_input(&mut self) {
        let Some(run) = &mut self.run else { return };
        while let (Some(fd), Some((number, bytes))) = (&run.ours.input, run.input.front_mut()) {
            match write(fd, bytes) {
                Ok(n) if n < bytes.len() => drop(bytes.drain(..n)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // Taken, or nobody will take it any more.
                taken => {
                    let number = *number;
                    run.input.pop_front();
                    if taken.is_err() {
                        run.ours.input = None;
                    }
                    self.clients.tell_one(number, &ToClient::Taken);
                }
            }
        }
        if run.input.is_empty() && run.input_ends {
            run.ours.input = None;
        }
    }

    /// What other commands ask for.
    fn reload(&mut self) {
        if let Ok(Some(record)) = self.home.load(&self.id) {
            self.record = record;
        }
    }

    /// The container's health, when it is time to ask.
    fn check(&mut self) {
        let Some(checks) = self.run.as_mut().and_then(|run| run.checks.as_mut()) else {
            return;
        };
        if let Some(health) = checks.turn(&self.home, &self.record) {
            let before = self
                .record
                .healthy
                .as_ref()
                .map(|health| health.status.clone());
            let status = health.status.clone();
            let _ = self.change(|record| record.healthy = Some(health));
            if before.as_ref() != Some(&status) {
                let action = format!("health_status: {status}");
                events::tell(&self.home, &Event::of(&self.record, &action));
            }
        }
    }

    /// The end of a run: its status, recorded, and whether there will be another.
    fn finish(&mut self) -> Option<u8> {
        let run = self.run.take()?;
        // Its SIGCHLD may not have been read yet, or come from a runtime that kept it.
        let status = match run.status {
            Some(status) => Some(status),
            None => waitpid(Pid::from_raw(run.pid), None).ok(),
        };
        let exit = match status {
            Some(WaitStatus::Exited(_, code)) => Some(code as u8),
            Some(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as u8),
            // The runtime did not leave it to us.
            _ => None,
        };
        // As in `move_output`.
        let _ = self.log.end();
        let oom = self.record.process.as_ref().is_some_and(out_of_memory);
        let ending = self.ending;
        let changed = self.change(|record| {
            (record.process, record.finished) = (None, Some(clock::now_nanos()));
            (record.exit, record.oom_killed) = (exit, oom);
            decide(record, ending);
        });
        if oom {
            events::tell(&self.home, &Event::of(&self.record, "oom"));
        }
        let died = Event::of(&self.record, "die").with("exitCode", exit.map_or(255, i32::from));
        let seconds = run.began.elapsed().as_secs();
        events::tell(&self.home, &died.with("execDuration", seconds));
        self.delete();
        self.record.restarting &= changed.is_ok();
        exit
    }

    /// Before the next run; false when someone says that there shall be none.
    fn pause(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            self.reload();
            if self.record.stopped || self.record.removing || self.ending {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if self.record.again || left.is_zero() {
                return true;
            }
            self.poll(Some(left));
        }
    }

    /// The end for good: all that is ours goes, and then everybody is told.
    fn leave(mut self, end: Result<Option<u8>>) {
        if self.record.restarting {
            // Of a container that is gone, nobody asks.
            let _ = self.change(|record| record.restarting = false);
        }
        self.network.end();
        self.mounted = None;
        let _ = fs::remove_file("attach");
        if self.record.remove && !self.record.removing {
            // What cannot be removed stays to be looked at.
            let gone = self.home.remove(&self.id);
            let _ = gone.and_then(|()| volumes::remove_anonymous(&self.home, &self.record));
        }
        // Released before it is said: who hears it may start it again at once.
        drop(self.lock);
        drop(self.ended);
        match end {
            Ok(exit) => self.clients.dismiss(&ToClient::Ended(exit)),
            Err(e) => {
                let why = format!("{e:#}");
                self.clients.dismiss(&ToClient::Failed(status(&e), &why));
            }
        }
    }
}

impl Run {
    fn reaped(&mut self, pid: i32, status: WaitStatus) {
        match pid == self.pid {
            true => self.status = Some(status),
            false => {
                if let Some(checks) = &mut self.checks {
                    checks.reaped(pid, status);
                }
            }
        }
    }
}

enum Mark {
    Dead,
    Output(usize),
    Input,
    Check,
}

#[derive(Default)]
struct Ready {
    dead: bool,
    outputs: [bool; 2],
}

/// Under the record's lock: is it to be started again, now that it has ended?
fn decide(record: &mut Record, ending: bool) {
    let wanted = !record.stopped && record.restart.wants(record.exit, record.restarts);
    record.restarting = !record.removing && !ending && (record.again || wanted);
    if record.restarting && !record.again {
        record.restarts += 1;
    }
}

fn out_of_memory(process: &Process) -> bool {
    let events = process.cgroup_file("memory.events").unwrap_or_default();
    events
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "))
        .any(|count| count != "0")
}

/// The number of the signal that asks it to end.
pub fn stop_signal(record: &Record) -> i32 {
    signal::number(&record.stop_signal).unwrap_or(libc::SIGTERM)
}

/// From here on they are read, not died of.
fn listen() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&set, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::Restart;

    #[test]
    fn a_container_is_started_again_as_its_policy_says() {
        let on_failure = || Restart::OnFailure(2);
        for (policy, exit, restarts, stopped, again, expected) in [
            (Restart::No, 1, 0, false, false, false),
            (Restart::No, 0, 0, true, true, true),
            (on_failure(), 0, 0, false, false, false),
            (on_failure(), 1, 1, false, false, true),
            (on_failure(), 1, 2, false, false, false),
            (Restart::OnFailure(0), 1, 99, false, false, true),
            (Restart::Always, 0, 9, false, false, true),
            (Restart::Always, 0, 0, true, false, false),
            (Restart::UnlessStopped, 137, 0, false, false, true),
        ] {
            let mut record = Record {
                restart: policy.clone(),
                exit: Some(exit),
                restarts,
                stopped,
                again,
                ..Record::default()
            };
            decide(&mut record, true);
            assert!(!record.restarting, "this machine is being shut down");
            decide(&mut record, false);
            assert_eq!(record.restarting, expected, "{policy:?} {exit} {restarts}");
            record.removing = true;
            decide(&mut record, false);
            assert!(!record.restarting);
        }
    }
}
