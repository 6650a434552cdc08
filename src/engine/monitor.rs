//! The process beside a running container: it mounts, makes, starts, carries output, and records the end.
//!
//! `sc run` in the foreground is it itself; `run -d` and `start` execute `sc monitor` and read from it how the
//! start went. Nobody needs it to live: killed, it leaves a container that runs on, without a log, and whose exit
//! status nobody will know.

use super::cli::{WithStatus, printable};
use super::log::Stream;
use super::network::live::Live;
use super::programs;
use super::record::{Home, Record};
use super::terminal::Raw;
use crate::clock;
use crate::sys::{mount, pidfd, process, socket, tty};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a detached monitor says once, on its stdout.
#[derive(Serialize, Deserialize)]
struct Said {
    status: u8,
    error: String,
}

/// Executes a monitor and waits until the container has started, or not.
pub fn detach(home: &Home, id: &str) -> Result<()> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(own);
    command
        .arg("--root")
        .arg(&home.root)
        .args(["monitor", id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Ctrl-C on the command's terminal is not for it.
        .process_group(0);
    let mut child = command.spawn().context("execute sc monitor")?;
    let mut said = String::new();
    child
        .stdout
        .take()
        .context("no pipe")?
        .read_to_string(&mut said)?;
    let said: Said =
        serde_json::from_str(&said).context("the monitor died before the container was started")?;
    match said.status {
        0 => Ok(()),
        status => Err(WithStatus {
            status,
            message: said.error,
        }
        .into()),
    }
}

/// `sc monitor ID`.
pub fn detached(home: &Home, id: &str) -> Result<u8> {
    // A session of its own: the death of the terminal that typed `run -d` is not its death.
    let _ = nix::unistd::setsid();
    let said = match Monitor::start(home, id, false) {
        Ok(monitor) => {
            tell_parent(0, String::new())?;
            return monitor.stay();
        }
        Err(e) => e,
    };
    let own = said.downcast_ref::<WithStatus>();
    tell_parent(own.map_or(125, |own| own.status), format!("{said:#}"))?;
    Ok(1)
}

fn tell_parent(status: u8, error: String) -> Result<()> {
    let [_, stdout, _] = process::stdio();
    let said = serde_json::to_vec(&Said { status, error })?;
    // Who asked may have been killed.
    let _ = write(stdout, &said);
    let null = File::options().write(true).open("/dev/null")?;
    process::duplicate_over(null.as_fd(), stdout)?;
    Ok(())
}

/// Runs the container as this process's own work; its exit status.
pub fn attached(home: &Home, id: &str) -> Result<u8> {
    Monitor::start(home, id, true)?.stay()
}

struct Monitor {
    home: Home,
    record: Record,
    /// Locked while this process lives.
    _lock: File,
    foreground: bool,
    init: i32,
    pidfd: OwnedFd,
    log: File,
    /// stdout and stderr, or the terminal.
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    /// What keeps the stdin of `-d -i` open.
    _stdin: Option<OwnedFd>,
    signals: SignalFd,
    raw: Option<Raw>,
    network: Option<Live>,
    mounted: Option<Overlay>,
}

/// The container's ends of its stdio, and ours.
struct Stdio3 {
    theirs: [Stdio; 3],
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
}

impl Monitor {
    fn start(home: &Home, id: &str, foreground: bool) -> Result<Monitor> {
        let dir = home.dir(id);
        let Some(lock) = home.try_monitor(id)? else {
            bail!("the container is running");
        };
        let record = home.load(id)?.context("the container is gone")?;
        process::set_child_subreaper()?;
        // From here on they are read, not died of; children begin with none blocked.
        let signals = listen(foreground)?;
        let mut network = Live::start(home, &record)?;
        for note in &network.notes {
            eprintln!("sc: {}", printable(note));
        }
        let mounted = Overlay::mount(&dir, &record)?;
        network.place(&record)?;
        let stdio = open_stdio(&record, foreground)?;
        let console = dir.join("console");
        let listener = match record.terminal {
            true => {
                let _ = fs::remove_file(&console);
                Some(UnixListener::bind(&console).context("the console socket")?)
            }
            false => None,
        };
        home.change(id, |record| {
            (record.started, record.finished, record.exit) = (None, None, None);
        })?;
        if let Err(e) = create(home, &record, &dir, stdio.theirs, listener.is_some()) {
            // As if it was never tried; the first error is the one to report.
            let _ = programs::call(home, &record, &["delete", "--force", id]);
            return Err(e);
        }
        let init = fs::read_to_string(dir.join("pid"))?
            .trim()
            .parse()
            .context("the pid file")?;
        let pidfd = pidfd::open(init)?;
        let (mut out, mut raw) = (stdio.out, None);
        if let Some(listener) = listener {
            out = Some(receive_terminal(&listener)?);
            let _ = fs::remove_file(&console);
        }
        home.change(id, |record| record.started = Some(clock::now_nanos()))?;
        if let Err(e) = programs::call(home, &record, &["start", id]) {
            let _ = programs::call(home, &record, &["delete", "--force", id]);
            let now = clock::now_nanos();
            home.change(id, |record| {
                (record.finished, record.exit) = (Some(now), Some(125));
            })?;
            return Err(programs::refusal(&format!("{e:#}")));
        }
        if record.terminal && foreground {
            raw = Some(Raw::enter()?);
        }
        let log = File::options().append(true).open(dir.join("log.json"))?;
        Ok(Monitor {
            home: home.clone(),
            record,
            _lock: lock,
            foreground,
            init,
            pidfd,
            log,
            out,
            err: stdio.err,
            _stdin: stdio.stdin,
            signals,
            raw,
            network: Some(network),
            mounted,
        })
    }

    /// Until the container's end, and the recording of it.
    fn stay(mut self) -> Result<u8> {
        self.resize();
        let carried = self.carry();
        let exit = match waitpid(Pid::from_raw(self.init), None) {
            Ok(WaitStatus::Exited(_, code)) => Some(code as u8),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as u8),
            // The runtime did not leave it to us.
            _ => None,
        };
        self.raw = None;
        let now = clock::now_nanos();
        self.home.change(&self.record.id, |record| {
            (record.finished, record.exit) = (Some(now), exit);
        })?;
        // `sc rm -f` may have been faster.
        let _ = programs::call(
            &self.home,
            &self.record,
            &["delete", "--force", &self.record.id],
        );
        self.network = None;
        self.mounted = None;
        if self.record.remove {
            self.home.remove(&self.record.id)?;
        }
        carried?;
        exit.context("the runtime kept the exit status of its container")
    }

    /// Output to the log, and to the user in the foreground; input and signals the other way.
    fn carry(&mut self) -> Result<()> {
        let (mut out, mut err) = (Stream::new("stdout"), Stream::new("stderr"));
        let [stdin, stdout, stderr] = process::stdio();
        let mut input = (self.foreground && self.record.terminal).then_some(stdin);
        let mut dead = false;
        while !dead {
            let mut polled = vec![
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let mut whose = vec!['p', 's'];
            for (fd, mark) in [
                (self.out.as_ref().map(|fd| fd.as_fd()), 'o'),
                (self.err.as_ref().map(|fd| fd.as_fd()), 'e'),
                (input, 'i'),
            ] {
                if let Some(fd) = fd {
                    polled.push(PollFd::new(fd, PollFlags::POLLIN));
                    whose.push(mark);
                }
            }
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.context("poll")?,
            };
            let ready: Vec<char> = polled
                .iter()
                .zip(&whose)
                .filter(|(fd, _)| fd.any() == Some(true))
                .map(|(_, mark)| *mark)
                .collect();
            drop(polled);
            dead = ready.contains(&'p');
            // What it wrote before its end is there already: all of it, then no more.
            if ready.contains(&'o') || dead {
                let user = self.foreground.then_some(stdout);
                move_output(&mut self.out, &mut out, &mut self.log, user, dead)?;
            }
            if ready.contains(&'e') || dead {
                let user = self.foreground.then_some(stderr);
                move_output(&mut self.err, &mut err, &mut self.log, user, dead)?;
            }
            if ready.contains(&'i') && !self.move_input(stdin) {
                input = None;
            }
            if ready.contains(&'s') {
                self.forward()?;
            }
        }
        out.end(&mut self.log)?;
        err.end(&mut self.log)
    }

    /// What was typed; false when there will be no more.
    fn move_input(&self, stdin: BorrowedFd) -> bool {
        let mut buffer = [0; 4096];
        match (read(stdin, &mut buffer), &self.out) {
            (Ok(n), Some(master)) if n > 0 => write_all(master.as_fd(), &buffer[..n]),
            _ => false,
        }
    }

    /// A signal to this process is one to the container; the size of a terminal is its terminal's.
    fn forward(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            match info.ssi_signo as i32 {
                libc::SIGWINCH => self.resize(),
                // It may have ended meanwhile.
                signal => drop(pidfd::send_signal(self.pidfd.as_fd(), signal)),
            }
        }
        Ok(())
    }

    fn resize(&self) {
        let [stdin, ..] = process::stdio();
        if let (true, true, Some(master)) = (self.foreground, self.record.terminal, &self.out)
            && let Ok((rows, columns)) = tty::size(stdin)
        {
            // A terminal that ends now needs no size.
            let _ = tty::set_size(master.as_fd(), rows, columns);
        }
    }
}

/// What there is, once, or all of it until nothing is left.
fn move_output(
    from: &mut Option<OwnedFd>,
    stream: &mut Stream,
    log: &mut File,
    user: Option<BorrowedFd>,
    all: bool,
) -> Result<()> {
    let mut buffer = [0; 8192];
    while let Some(fd) = from {
        match read(&*fd, &mut buffer) {
            Ok(0) => *from = None,
            Ok(n) => {
                if let Some(user) = user {
                    // Who listened may have gone (`| head`); the log goes on.
                    write_all(user, &buffer[..n]);
                }
                stream.take(&buffer[..n], log)?;
            }
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => break,
            // EIO: a terminal that nobody has open any more.
            Err(_) => *from = None,
        }
        if !all {
            break;
        }
    }
    Ok(())
}

fn write_all(to: BorrowedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let _ = poll(
                    &mut [PollFd::new(to, PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                );
            }
            Err(_) => return false,
        }
    }
    true
}

fn listen(foreground: bool) -> Result<SignalFd> {
    let mut set = SigSet::empty();
    let forwarded = [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ];
    forwarded
        .into_iter()
        .filter(|_| foreground)
        .for_each(|signal| set.add(signal));
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

fn open_stdio(record: &Record, foreground: bool) -> Result<Stdio3> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).context("pipe2");
    let mut stdio = Stdio3 {
        theirs: [Stdio::null(), Stdio::null(), Stdio::null()],
        out: None,
        err: None,
        stdin: None,
    };
    if record.terminal {
        return Ok(stdio);
    }
    for (at, ours) in [(1, &mut stdio.out), (2, &mut stdio.err)] {
        let (reader, writer) = pipe()?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        *ours = Some(reader);
        stdio.theirs[at] = writer.into();
    }
    if record.interactive && foreground {
        stdio.theirs[0] = Stdio::inherit();
    } else if record.interactive {
        let (reader, writer) = pipe()?;
        stdio.theirs[0] = reader.into();
        stdio.stdin = Some(writer);
    }
    Ok(stdio)
}

/// The container's root, mounted in a mount namespace of our own: whoever is killed, nothing is left to unmount.
struct Overlay {
    at: PathBuf,
}

impl Overlay {
    fn mount(dir: &Path, record: &Record) -> Result<Option<Overlay>> {
        if record.lower.is_empty() {
            return Ok(None);
        }
        unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace for the overlay")?;
        mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)?;
        std::env::set_current_dir(dir)?;
        // Options have one page: the layers are named by links.
        let lower: Vec<String> = (0..record.lower.len()).map(|n| format!("l/{n}")).collect();
        let options = format!("lowerdir={},upperdir=upper,workdir=work", lower.join(":"));
        let at = dir.join("bundle/rootfs");
        nix::mount::mount(
            Some("overlay"),
            &at,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .context("mount the container's overlay")?;
        Ok(Some(Overlay { at }))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Without it, the kernel does it at our end; with it, the directory can be removed before.
        let _ = nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn create(
    home: &Home,
    record: &Record,
    dir: &Path,
    stdio: [Stdio; 3],
    terminal: bool,
) -> Result<()> {
    let log = dir.join("runtime.log");
    let _ = fs::remove_file(&log);
    let mut command = Command::new(&record.runtime);
    command
        .arg("--root")
        .arg(&home.state)
        .args(["--log-format", "json", "--log"])
        .arg(&log)
        .arg("create")
        .arg("--bundle")
        .arg(dir.join("bundle"))
        .arg("--pid-file")
        .arg(dir.join("pid"));
    if terminal {
        command.arg("--console-socket").arg(dir.join("console"));
    }
    let [stdin, stdout, stderr] = stdio;
    command
        .arg(&record.id)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    let status = command
        .status()
        .with_context(|| format!("execute {}", record.runtime.display()))?;
    if status.success() {
        return Ok(());
    }
    let said = programs::error_in(&log);
    Err(programs::refusal(&said.unwrap_or_else(|| {
        format!("{} create: {status}", record.runtime.display())
    })))
}

/// The runtime has connected, sent it and gone: nothing to wait for.
fn receive_terminal(listener: &UnixListener) -> Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let (connection, _) = listener.accept().context("the runtime sent no terminal")?;
    let (_, fd) = socket::receive(connection.as_fd(), &mut [0; 4096])?;
    let master = fd.context("the runtime sent no terminal")?;
    fcntl(
        &master,
        FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK),
    )?;
    Ok(master)
}
