//! The client of a container: it has a monitor run it, or finds the one that does, and carries the user's input,
//! output, signals and window size. Killed, it leaves the container as it is.

use super::cli::WithStatus;
use super::keys::Keys;
use super::record::Home;
use super::terminal::Raw;
use super::wire::{LONGEST, ToClient, ToMonitor};
use crate::sys::{process, socket, tty};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use nix::unistd::read;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// What the user shares with the container.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub stdin: bool,
    /// The container has a terminal, and the user's is to be it.
    pub terminal: bool,
    /// Signals to this process are ones to the container.
    pub signals: bool,
    pub keys: Keys,
}

/// A connection to a monitor.
pub struct Client {
    socket: OwnedFd,
}

/// Executes a monitor that starts the container; [`Client::begun`] tells how that went.
pub fn start(home: &Home, id: &str) -> Result<Client> {
    let (ours, theirs) = socket::packet_pair()?;
    Command::new("/proc/self/exe")
        .arg0("sc")
        .arg("--root")
        .arg(&home.root)
        .args(["monitor", id])
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("execute sc monitor")?;
    Ok(Client { socket: ours })
}

/// `None`: no monitor listens.
pub fn connect(home: &Home, id: &str) -> Result<Option<Client>> {
    // By descriptor: an address has room for 107 bytes.
    let Ok(dir) = File::open(home.dir(id)) else {
        return Ok(None);
    };
    let address = UnixAddr::new(format!("/proc/self/fd/{}/attach", dir.as_raw_fd()).as_str())?;
    let kind = SockType::SeqPacket;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    match nix::sys::socket::connect(socket.as_raw_fd(), &address) {
        Ok(()) => Ok(Some(Client { socket })),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("connect to the monitor of container {id}")),
    }
}

/// The monitor, if there is one, is to look at the record.
pub fn poke(home: &Home, id: &str) {
    if let Ok(Some(client)) = connect(home, id) {
        // One that ends just now needs none.
        client.tell(&ToMonitor::Look);
    }
}

impl Client {
    /// Before it is started: what the container finds from its first moment on.
    pub fn prepare(&self, wanted: &Wanted) {
        if wanted.terminal {
            self.tell_size();
        }
        if wanted.stdin {
            self.tell(&ToMonitor::HasInput);
        }
    }

    /// Waits until the container has started, or not.
    pub fn begun(&self) -> Result<()> {
        let [_, _, stderr] = process::stdio();
        let mut buffer = vec![0; LONGEST + 2];
        loop {
            match self.hear(&mut buffer)? {
                Some(ToClient::Started) => return Ok(()),
                Some(ToClient::Failed(status, why)) => {
                    let message = why.to_owned();
                    return Err(WithStatus { status, message }.into());
                }
                Some(ToClient::Ended(_)) => bail!("the container was stopped meanwhile"),
                None => bail!("the monitor died before the container was started"),
                // The monitor's own words: the container has had no chance to say any.
                Some(ToClient::Err(bytes)) => drop(write_all(stderr, bytes)),
                Some(_) => {}
            }
        }
    }

    /// Waits for its end; `None`: nobody will know how it went.
    pub fn ended(&self) -> Result<Option<u8>> {
        self.be_quiet();
        let mut buffer = vec![0; LONGEST + 2];
        loop {
            match self.hear(&mut buffer)? {
                Some(ToClient::Ended(exit)) => return Ok(exit),
                None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    /// Output is not for this client.
    pub fn be_quiet(&self) {
        self.tell(&ToMonitor::Quiet);
    }

    /// `None`: the monitor is gone.
    fn hear<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<ToClient<'a>>> {
        let (length, _) = socket::receive(self.socket.as_fd(), buffer)?;
        if length == 0 {
            return Ok(None);
        }
        let message = ToClient::parse(&buffer[..length]);
        Ok(Some(message.context(
            "the monitor speaks another language: was sc updated?",
        )?))
    }

    /// Until the container ends, or the user detaches; the exit status, 0 for a detachment.
    pub fn attach(self, wanted: &Wanted) -> Result<u8> {
        let signals = listen(wanted)?;
        let raw = match wanted.terminal && wanted.stdin {
            true => Some(Raw::enter()?),
            false => None,
        };
        let end = self.carry(wanted, &signals);
        drop(raw);
        match end? {
            End::Status(Some(exit)) => Ok(exit),
            End::Status(None) => bail!("the runtime kept the exit status of its container"),
            End::Lost => bail!(
                "the container's monitor was killed: it runs on, and nobody will know how it ends"
            ),
            End::Detached => {
                crate::show::line("read escape sequence")?;
                Ok(0)
            }
            End::HungUp => Ok(129),
        }
    }

    fn carry(&self, wanted: &Wanted, signals: &SignalFd) -> Result<End> {
        let [stdin, stdout, stderr] = process::stdio();
        let mut keys = wanted.keys.clone();
        let mut buffer = vec![0; LONGEST + 2];
        // One message of input is under way at most.
        let (mut has_input, mut may_send) = (wanted.stdin, true);
        let mut unsaid = None;
        loop {
            if unsaid == Some(Errno::EPIPE) && has_input && may_send {
                // docker's client dies of SIGPIPE, and its container's input ends with it: `yes | … cat | head`.
                has_input = false;
                self.tell(&ToMonitor::InputEnd);
            }
            let input = (has_input && may_send).then_some(stdin);
            let [heard, signalled, typed] =
                readable([Some(self.socket.as_fd()), Some(signals.as_fd()), input])?;
            if heard {
                match self.hear(&mut buffer)? {
                    None => return Ok(End::Lost),
                    Some(ToClient::Ended(exit)) => return ended(exit, unsaid),
                    // Who listened may have gone (`| head`): the container goes on.
                    Some(ToClient::Out(bytes)) => {
                        unsaid = write_all(stdout, bytes).err().or(unsaid)
                    }
                    Some(ToClient::Err(bytes)) => drop(write_all(stderr, bytes)),
                    Some(ToClient::Taken) => may_send = true,
                    Some(ToClient::Started | ToClient::Failed(..)) => {}
                }
            }
            if signalled && self.forward(signals, wanted)? {
                return Ok(End::HungUp);
            }
            if typed {
                match read(stdin, &mut buffer[..LONGEST]) {
                    Err(Errno::EINTR | Errno::EAGAIN) => {}
                    Ok(0) | Err(_) => {
                        has_input = false;
                        self.tell(&ToMonitor::InputEnd);
                    }
                    Ok(n) => {
                        let (bytes, detached) = keys.filter(&buffer[..n]);
                        if !bytes.is_empty() {
                            self.tell(&ToMonitor::Input(&bytes));
                            may_send = false;
                        }
                        if detached {
                            return Ok(End::Detached);
                        }
                    }
                }
            }
        }
    }

    /// True: the user's terminal is gone, and so shall we be; the container's is not.
    fn forward(&self, signals: &SignalFd, wanted: &Wanted) -> Result<bool> {
        while let Some(info) = signals.read_signal()? {
            match info.ssi_signo as i32 {
                libc::SIGWINCH => self.tell_size(),
                libc::SIGHUP if wanted.terminal => return Ok(true),
                signal => self.tell(&ToMonitor::Signal(signal)),
            }
        }
        Ok(false)
    }

    fn tell_size(&self) {
        let [stdin, ..] = process::stdio();
        if let Ok((rows, columns)) = tty::size(stdin) {
            self.tell(&ToMonitor::Size(rows, columns));
        }
    }

    fn tell(&self, message: &ToMonitor) {
        // A monitor that is gone is noticed where it is listened to: its last word may still be there.
        let _ = message.send(self.socket.as_fd());
    }
}

/// What was to be kept in a file and is not there (a full disk) is no success.
fn ended(exit: Option<u8>, unsaid: Option<Errno>) -> Result<End> {
    match unsaid {
        Some(e) if e != Errno::EPIPE && exit == Some(0) => {
            bail!(
                "write to stdout: {}: output of the container is lost",
                e.desc()
            )
        }
        _ => Ok(End::Status(exit)),
    }
}

enum End {
    Status(Option<u8>),
    Detached,
    HungUp,
    Lost,
}

/// From here on they are read, not died of.
fn listen(wanted: &Wanted) -> Result<SignalFd> {
    let mut set = SigSet::empty();
    if wanted.signals {
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGQUIT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
    }
    if wanted.terminal {
        set.add(Signal::SIGWINCH);
        // The mode of the user's terminal is to be put back.
        set.add(Signal::SIGHUP);
    }
    set.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&set, flags)?)
}

/// Waits until one can be read, or has ended.
fn readable<const N: usize>(fds: [Option<BorrowedFd>; N]) -> Result<[bool; N]> {
    let [stdin, ..] = process::stdio();
    // What is absent is asked for nothing.
    let mut polled = fds.map(|fd| match fd {
        Some(fd) => PollFd::new(fd, PollFlags::POLLIN),
        None => PollFd::new(stdin, PollFlags::empty()),
    });
    match poll(&mut polled, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok([false; N]),
        other => other.context("poll")?,
    };
    let mut ready = [false; N];
    for ((ready, polled), fd) in ready.iter_mut().zip(&polled).zip(fds) {
        *ready = fd.is_some() && polled.any() == Some(true);
    }
    Ok(ready)
}

/// False: nobody reads it any more.
pub fn write_all(to: BorrowedFd, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // An error shows itself in the next write.
                let _ = poll(
                    &mut [PollFd::new(to, PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                );
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
