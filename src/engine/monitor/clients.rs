//! Who is connected to the monitor, and what has not reached them yet. A client that reads slowly holds the
//! container's output back, as a pipe would; one that has gone holds nothing.

use crate::engine::wire::{LONGEST, ToClient};
use crate::sys::socket;
use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::VecDeque;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The socket in the working directory.
const ATTACH: &str = "attach";

pub struct Client {
    /// Never two clients' same.
    pub number: u64,
    socket: OwnedFd,
    waiting: VecDeque<Vec<u8>>,
    pub has_input: bool,
    /// Output is not for it.
    pub quiet: bool,
}

pub struct Clients {
    listener: OwnedFd,
    pub all: Vec<Client>,
    count: u64,
}

impl Client {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What it says: `None` for nothing now; an empty packet when it has gone.
    pub fn hear(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LONGEST + 1];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(_) => return Some(Vec::new()),
                Ok(length) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
            }
        }
    }

    /// False: it has gone.
    fn flush(&mut self) -> bool {
        while let Some(packet) = self.waiting.front() {
            match send(self.socket.as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => drop(self.waiting.pop_front()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

impl Clients {
    /// Listens, in the working directory; the lock of the container is held.
    pub fn listen() -> Result<Clients> {
        match fs::remove_file(ATTACH) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        Ok(Clients {
            listener: socket::listen_for_packets(Path::new(ATTACH))?,
            all: Vec::new(),
            count: 0,
        })
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn add(&mut self, socket: OwnedFd) {
        self.count += 1;
        self.all.push(Client {
            number: self.count,
            socket,
            waiting: VecDeque::new(),
            has_input: false,
            quiet: false,
        });
    }

    pub fn accept(&mut self) -> Result<()> {
        while let Some(socket) = socket::accept(self.listener.as_fd())? {
            self.add(socket);
        }
        Ok(())
    }

    /// To all, as soon as they take it.
    pub fn tell(&mut self, message: &ToClient) {
        let packet = message.packet();
        let output = matches!(message, ToClient::Out(_) | ToClient::Err(_));
        if !output {
            // Who has come a moment ago may wait for this very word. (Out of descriptors: as in `hear`.)
            let _ = self.accept();
        }
        for client in self.all.iter_mut().filter(|one| !(one.quiet && output)) {
            client.waiting.push_back(packet.clone());
        }
        self.flush();
    }

    pub fn tell_one(&mut self, number: u64, message: &ToClient) {
        for client in self.all.iter_mut().filter(|one| one.number == number) {
            client.waiting.push_back(message.packet());
        }
        self.flush();
    }

    pub fn flush(&mut self) {
        self.all.retain_mut(Client::flush);
    }

    /// Somebody has not taken all that was said.
    pub fn are_behind(&self) -> bool {
        self.all.iter().any(Client::is_waited_for)
    }

    /// The last word, to everybody who still listens: nobody else is kept waiting for them.
    pub fn dismiss(mut self, message: &ToClient) {
        self.tell(message);
        while self.are_behind() {
            let behind = self.all.iter().filter(|client| client.is_waited_for());
            let mut polled: Vec<PollFd> = behind
                .map(|client| PollFd::new(client.fd(), PollFlags::POLLOUT))
                .collect();
            // An error shows itself in the next send.
            let _ = poll(&mut polled, PollTimeout::NONE);
            drop(polled);
            self.flush();
        }
    }
}
