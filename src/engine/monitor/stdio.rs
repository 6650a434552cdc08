//! The container's stdio and our ends of it: three pipes, or a terminal that the runtime makes.

use crate::engine::record::Record;
use crate::sys::socket;
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

/// Ours do not block.
#[derive(Default)]
pub struct Ours {
    /// stdout and stderr; a terminal is only stdout.
    pub outputs: [Option<OwnedFd>; 2],
    /// stdin; of a terminal, a copy.
    pub input: Option<OwnedFd>,
}

pub struct Pair {
    pub theirs: [Stdio; 3],
    pub ours: Ours,
    /// In the working directory, for the runtime to send the terminal to.
    pub console: Option<UnixListener>,
}

const CONSOLE: &str = "console";

pub fn open(record: &Record) -> Result<Pair> {
    let mut pair = Pair {
        theirs: [Stdio::null(), Stdio::null(), Stdio::null()],
        ours: Ours::default(),
        console: None,
    };
    if record.terminal {
        remove_console()?;
        let listener = UnixListener::bind(CONSOLE).context("the console socket")?;
        listener.set_nonblocking(true)?;
        pair.console = Some(listener);
        return Ok(pair);
    }
    for (at, ours) in pair.ours.outputs.iter_mut().enumerate() {
        let (reader, writer) = pipe()?;
        *ours = Some(unblocked(reader)?);
        pair.theirs[at + 1] = writer.into();
    }
    if record.interactive {
        let (reader, writer) = pipe()?;
        pair.theirs[0] = reader.into();
        pair.ours.input = Some(unblocked(writer)?);
    }
    Ok(pair)
}

impl Pair {
    /// The runtime is done: its terminal is there.
    pub fn finish(mut self) -> Result<Ours> {
        if let Some(listener) = &self.console {
            let terminal = receive(listener).context("the runtime sent no terminal")?;
            remove_console()?;
            self.ours.input = Some(terminal.try_clone()?);
            self.ours.outputs[0] = Some(terminal);
        }
        Ok(self.ours)
    }
}

/// It has connected, sent it and gone: nothing to wait for.
fn receive(listener: &UnixListener) -> Result<OwnedFd> {
    let (connection, _) = listener.accept()?;
    let (_, fd) = socket::receive(connection.as_fd(), &mut [0; 4096])?;
    unblocked(fd.context("a message without a descriptor")?)
}

fn remove_console() -> Result<()> {
    match fs::remove_file(CONSOLE) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).context("the console socket"),
        _ => Ok(()),
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).context("pipe2")
}

fn unblocked(fd: OwnedFd) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd)
}
