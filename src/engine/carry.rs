//! How does a program of a container write into a file of the host's without being given it?
//!
//! A runtime makes what its process has for stdio that process's user's, as otherwise it could not open
//! /dev/stdout: right for pipes, wrong for the file that `sc exec -u bob … >dump.sql` writes and for the terminal
//! it is typed at. So the runtime gets pipes, and what comes through them is carried on.

use super::attach::write_all;
use crate::sys::{pidfd, process};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Command, ExitStatus, Stdio};

/// Runs `command` to its end. Its stdin is this process's where `input` says so, else nothing.
///
/// # Errors
/// Also when it succeeded but what it wrote could not be written here (a full disk).
pub fn run(command: &mut Command, input: bool) -> Result<ExitStatus> {
    let [stdin, stdout, stderr] = process::stdio();
    match input {
        false => command.stdin(Stdio::null()),
        true if is_own(stdin) => command.stdin(Stdio::piped()),
        true => command,
    };
    if is_own(stdout) {
        command.stdout(Stdio::piped());
    }
    if is_own(stderr) {
        command.stderr(Stdio::piped());
    }
    let mut child = command.spawn()?;
    if let Some(mut to) = child.stdin.take() {
        // Ends with its source, with the program, or with this process.
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut to));
    }
    let mut flows = [
        Flow::new(child.stdout.take().map(OwnedFd::from), stdout)?,
        Flow::new(child.stderr.take().map(OwnedFd::from), stderr)?,
    ];
    let life = pidfd::open(child.id() as i32)?;
    while wait(life.as_fd(), &flows)? {
        for flow in &mut flows {
            flow.carry();
        }
    }
    // What it left in the background may have the pipes, and is not waited for.
    for flow in &mut flows {
        while flow.carry() {}
    }
    let status = child.wait()?;
    for refused in flows.iter().filter_map(|flow| flow.refused) {
        if refused != Errno::EPIPE && status.success() {
            bail!("write the program's output: {}", refused.desc());
        }
    }
    Ok(status)
}

/// A file or terminal: not a pipe, a socket or the null device, which nobody minds.
fn is_own(fd: BorrowedFd) -> bool {
    let shown = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let shown = shown.unwrap_or_default();
    let text = shown.to_string_lossy();
    !(text.starts_with("pipe:") || text.starts_with("socket:") || text == "/dev/null")
}

/// Until something can be carried; false when the program has ended.
fn wait(life: BorrowedFd, flows: &[Flow]) -> Result<bool> {
    let mut fds = vec![PollFd::new(life, PollFlags::POLLIN)];
    let open = flows.iter().filter_map(|flow| flow.from.as_ref());
    fds.extend(open.map(|from| PollFd::new(from.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, PollTimeout::NONE) {
        Err(Errno::EINTR) => Ok(true),
        other => {
            other.context("poll")?;
            Ok(fds[0].any() != Some(true))
        }
    }
}

/// One way that the program speaks on.
struct Flow<'a> {
    /// `None`: it speaks for itself, or has come to its end.
    from: Option<OwnedFd>,
    to: BorrowedFd<'a>,
    refused: Option<Errno>,
}

impl<'a> Flow<'a> {
    fn new(from: Option<OwnedFd>, to: BorrowedFd<'a>) -> Result<Flow<'a>> {
        if let Some(from) = &from {
            fcntl(from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("fcntl")?;
        }
        Ok(Flow {
            from,
            to,
            refused: None,
        })
    }

    /// One piece; false when there is none at the moment.
    fn carry(&mut self) -> bool {
        let Some(from) = &self.from else {
            return false;
        };
        let mut buffer = [0; 16 * 1024];
        match nix::unistd::read(from, &mut buffer) {
            Ok(n) if n > 0 => {
                // Who cannot write it here does not read on: the program hears of it, as it would itself.
                if let Err(e) = write_all(self.to, &buffer[..n]) {
                    self.refused = Some(e);
                    self.from = None;
                }
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            _ => {
                self.from = None;
                false
            }
        }
    }
}
