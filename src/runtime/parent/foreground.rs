//! Waits for a container that `run` keeps in the foreground: signals go to its init, bytes between
//! the two terminals, and its exit status is the answer.

use super::terminal::Raw;
use crate::runtime::plan::ProcessPlan;
use crate::sys::{self, Call};
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Signals held back from the moment before the container is made, so that none is lost: they wait
/// until [`wait`](Signals::wait) takes them.
pub struct Signals(SignalFd);

impl Signals {
    /// All signals that can be blocked, but those that tell of a fault of this program itself.
    pub fn hold() -> Result<Self> {
        let mut set = SigSet::all();
        for fault in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGSYS,
            Signal::SIGTRAP,
        ] {
            set.remove(fault);
        }
        set.thread_block()
            .call("sigprocmask", || "SIG_BLOCK".to_owned())?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).call("signalfd", String::new)?;
        Ok(Signals(fd))
    }

    /// Waits until `init` has ended: its exit status, 128 + signal when one ended it.
    pub fn wait(&self, init: Pid, pidfd: BorrowedFd, master: Option<OwnedFd>) -> Result<i32> {
        let mut relay = master.map(Relay::new).transpose()?;
        // It may have ended before its signal was held.
        if let Some(status) = reap(init)? {
            return Ok(finish(relay, status));
        }
        loop {
            let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if let Some(relay) = &relay {
                relay.add_to(&mut fds);
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.call("poll", String::new)?,
            };
            drop(fds);
            while let Some(info) = self
                .0
                .read_signal()
                .call("read", || "signalfd".to_owned())?
            {
                match Signal::try_from(info.ssi_signo as i32) {
                    Ok(Signal::SIGCHLD) => {
                        if let Some(status) = reap(init)? {
                            return Ok(finish(relay, status));
                        }
                    }
                    Ok(Signal::SIGWINCH) if relay.is_some() => {
                        if let Some(relay) = &relay {
                            relay.copy_size();
                        }
                    }
                    // Ours alone: the kernel's note on a socket, a closed pipe.
                    Ok(Signal::SIGURG | Signal::SIGPIPE) => {}
                    // ESRCH: it has just ended, and SIGCHLD follows.
                    _ => drop(sys::pidfd::send_signal(pidfd, info.ssi_signo as i32)),
                }
            }
            if let Some(relay) = &mut relay {
                relay.move_bytes();
            }
        }
    }
}

/// Makes the process's terminal begin with the size of the caller's: what the relay says later could come
/// after the program has asked. Nothing changes where the caller has none.
pub fn take_callers_size(process: &mut ProcessPlan) {
    let [stdin, ..] = sys::process::stdio();
    if process.terminal
        && let Ok(size) = sys::tty::size(stdin)
    {
        process.console_size = Some(size);
    }
}

/// Waits for every child that has ended (as a subreaper, orphans of the container's too); the
/// status of `init` if it was among them.
fn reap(init: Pid) -> Result<Option<i32>> {
    let mut status = None;
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(status),
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(e) => return Err(sys::Error::new("waitpid", "-1", e).into()),
        };
        if pid == init {
            status = Some(code);
        }
    }
}

fn finish(relay: Option<Relay>, status: i32) -> i32 {
    if let Some(mut relay) = relay {
        relay.drain();
    }
    status
}

/// Bytes between the caller's terminal (or pipes) and the container's.
struct Relay {
    master: OwnedFd,
    raw: Option<Raw>,
    input: Vec<u8>,
    input_open: bool,
    /// What the container has said, until somebody takes it.
    output: Vec<u8>,
    output_open: bool,
}

impl Relay {
    fn new(master: OwnedFd) -> Result<Self> {
        // A container that does not read must not stop us from showing what it writes.
        nix::fcntl::fcntl(
            &master,
            FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK),
        )
        .call("fcntl", || "F_SETFL, O_NONBLOCK".to_owned())?;
        let [stdin, ..] = sys::process::stdio();
        let relay = Relay {
            raw: Raw::enter(stdin)?,
            master,
            input: Vec::new(),
            input_open: true,
            output: Vec::new(),
            output_open: true,
        };
        relay.copy_size();
        Ok(relay)
    }

    fn copy_size(&self) {
        if let Some(raw) = &self.raw {
            raw.copy_size_to(self.master.as_fd());
        }
    }

    fn add_to<'f>(&'f self, fds: &mut Vec<PollFd<'f>>) {
        let [stdin, ..] = sys::process::stdio();
        let mut wanted = PollFlags::empty();
        if !self.output.is_empty() {
            fds.push(PollFd::new(stdout(), PollFlags::POLLOUT));
        } else if self.output_open {
            wanted |= PollFlags::POLLIN;
        }
        if !self.input.is_empty() {
            wanted |= PollFlags::POLLOUT;
        } else if self.input_open {
            fds.push(PollFd::new(stdin, PollFlags::POLLIN));
        }
        if !wanted.is_empty() {
            fds.push(PollFd::new(self.master.as_fd(), wanted));
        }
    }

    /// Moves what can be moved without waiting.
    fn move_bytes(&mut self) {
        let [stdin, ..] = sys::process::stdio();
        if self.input.is_empty() && self.input_open && ready(stdin, PollFlags::POLLIN) {
            let mut buffer = [0; 4096];
            match nix::unistd::read(stdin, &mut buffer) {
                Ok(0) => self.input_open = false,
                Ok(n) => self.input.extend(&buffer[..n]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => self.input_open = false,
            }
        }
        if !self.input.is_empty() {
            match nix::unistd::write(&self.master, &self.input) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Nobody has the terminal open any more.
                Err(_) => self.input.clear(),
            }
        }
        self.show_output();
    }

    /// Moves a piece of output, if there is one and somebody takes it.
    fn show_output(&mut self) {
        if self.output.is_empty() {
            self.read_output();
        }
        if !self.output.is_empty() && ready(stdout(), PollFlags::POLLOUT) {
            self.write_output();
        }
    }

    /// Takes a piece of output; false when there is none at the moment.
    fn read_output(&mut self) -> bool {
        let mut buffer = [0; PIECE];
        match nix::unistd::read(&self.master, &mut buffer) {
            Ok(n) if n > 0 => {
                self.output.extend(&buffer[..n]);
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: every slave is closed.
            _ => {
                self.output_open = false;
                false
            }
        }
    }

    fn write_output(&mut self) {
        match nix::unistd::write(stdout(), &self.output) {
            Ok(n) => drop(self.output.drain(..n)),
            // Somebody else has made it so that it does not wait (fcntl(2): it is the terminal's, not ours).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody reads it: the container goes on without an audience.
            Err(_) => self.output.clear(),
        }
    }

    /// What the container wrote before it ended, however long it takes somebody to take it.
    fn drain(&mut self) {
        while !self.output.is_empty() || self.read_output() {
            let mut fds = [PollFd::new(stdout(), PollFlags::POLLOUT)];
            let _ = poll(&mut fds, PollTimeout::NONE); // interrupted: tried again
            self.write_output();
        }
    }
}

/// As much as a pipe of which poll(2) says that it can be written to takes without waiting (PIPE_BUF, pipe(7)): who
/// waited for a reader would hear no signal meanwhile, nor of the container's end.
const PIECE: usize = libc::PIPE_BUF;

fn stdout() -> BorrowedFd<'static> {
    let [_, stdout, _] = sys::process::stdio();
    stdout
}

fn ready(fd: BorrowedFd, wanted: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, wanted)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}
