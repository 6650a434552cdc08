//! What may a monitor and a client of its container say to each other? One packet (SOCK_SEQPACKET) a message: a letter,
//! then its content.
//!
//! ```text
//!     client                                 monitor
//!       │  HasInput ─────────────────────────▶ │  with stdin
//!       │  Quiet ────────────────────────────▶ │  no output, please
//!       │  Size ─────────────────────────────▶ │  with a terminal: now, and when it changes
//!       │ ◀─────────────────── Started, Failed │  whenever the container was started, or could not be
//!       │ ◀─────────────────────────── Out Err │
//!       │  Input ────────────────────────────▶ │  one at a time:
//!       │ ◀───────────────────────────── Taken │  the container has it, the next one please
//!       │  InputEnd, Signal ─────────────────▶ │
//!       │  Look ─────────────────────────────▶ │  from other commands: the record has changed
//!       │ ◀───────────────────────────── Ended │  recorded, cleared away: the last word
//! ```
//!
//! The end of file is no message: of the client it is a detachment, of the monitor its death.

use crate::sys::socket;
use anyhow::Result;
use std::os::fd::BorrowedFd;

/// Bytes of output or input in a message.
pub const LONGEST: usize = 16 << 10;

#[derive(Debug, PartialEq, Eq)]
pub enum ToClient<'a> {
    Started,
    /// docker's status of the failure, and why.
    Failed(u8, &'a str),
    Out(&'a [u8]),
    Err(&'a [u8]),
    Taken,
    /// `None`: the runtime kept the status.
    Ended(Option<u8>),
}

#[derive(Debug, PartialEq, Eq)]
pub enum ToMonitor<'a> {
    HasInput,
    Quiet,
    Input(&'a [u8]),
    InputEnd,
    /// Rows and columns.
    Size(u16, u16),
    Signal(i32),
    Look,
}

fn packet(letter: u8, content: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(1 + content.len());
    packet.push(letter);
    packet.extend_from_slice(content);
    packet
}

impl<'a> ToClient<'a> {
    pub fn packet(&self) -> Vec<u8> {
        match self {
            ToClient::Started => packet(b'S', &[]),
            ToClient::Failed(status, why) => packet(b'F', &[&[*status], why.as_bytes()].concat()),
            ToClient::Out(bytes) => packet(b'o', bytes),
            ToClient::Err(bytes) => packet(b'e', bytes),
            ToClient::Taken => packet(b't', &[]),
            ToClient::Ended(None) => packet(b'x', &[]),
            ToClient::Ended(Some(exit)) => packet(b'x', &[*exit]),
        }
    }

    /// `None`: none of these.
    pub fn parse(packet: &'a [u8]) -> Option<ToClient<'a>> {
        let (letter, content) = packet.split_first()?;
        Some(match (letter, content) {
            (b'S', _) => ToClient::Started,
            (b'F', [status, why @ ..]) => ToClient::Failed(*status, std::str::from_utf8(why).ok()?),
            (b'o', bytes) => ToClient::Out(bytes),
            (b'e', bytes) => ToClient::Err(bytes),
            (b't', _) => ToClient::Taken,
            (b'x', []) => ToClient::Ended(None),
            (b'x', [exit, ..]) => ToClient::Ended(Some(*exit)),
            _ => return None,
        })
    }
}

impl<'a> ToMonitor<'a> {
    pub fn packet(&self) -> Vec<u8> {
        match self {
            ToMonitor::HasInput => packet(b'a', &[]),
            ToMonitor::Quiet => packet(b'q', &[]),
            ToMonitor::Input(bytes) => packet(b'i', bytes),
            ToMonitor::InputEnd => packet(b'c', &[]),
            ToMonitor::Size(rows, columns) => {
                packet(b'w', &[rows.to_le_bytes(), columns.to_le_bytes()].concat())
            }
            ToMonitor::Signal(signal) => packet(b'k', &[*signal as u8]),
            ToMonitor::Look => packet(b'n', &[]),
        }
    }

    pub fn parse(packet: &'a [u8]) -> Option<ToMonitor<'a>> {
        let (letter, content) = packet.split_first()?;
        Some(match (letter, content) {
            (b'a', _) => ToMonitor::HasInput,
            (b'q', _) => ToMonitor::Quiet,
            (b'i', bytes) => ToMonitor::Input(bytes),
            (b'c', _) => ToMonitor::InputEnd,
            (b'w', [a, b, c, d]) => {
                ToMonitor::Size(u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))
            }
            (b'k', [signal]) => ToMonitor::Signal(i32::from(*signal)),
            (b'n', _) => ToMonitor::Look,
            _ => return None,
        })
    }

    /// An error: no monitor listens any more.
    pub fn send(&self, to: BorrowedFd) -> Result<()> {
        Ok(socket::send(to, &self.packet(), None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        for message in [
            ToClient::Started,
            ToClient::Failed(127, "no such file"),
            ToClient::Out(b"x"),
            ToClient::Err(b""),
            ToClient::Taken,
            ToClient::Ended(None),
            ToClient::Ended(Some(7)),
        ] {
            assert_eq!(ToClient::parse(&message.packet()), Some(message));
        }
        for message in [
            ToMonitor::HasInput,
            ToMonitor::Quiet,
            ToMonitor::Input(b"x"),
            ToMonitor::InputEnd,
            ToMonitor::Size(24, 300),
            ToMonitor::Signal(64),
            ToMonitor::Look,
        ] {
            assert_eq!(ToMonitor::parse(&message.packet()), Some(message));
        }
    }

    #[test]
    fn other_packets_are_no_messages() {
        for packet in [&b""[..], b"?", b"F", b"w123", b"k"] {
            assert_eq!(ToClient::parse(packet), None);
            assert_eq!(ToMonitor::parse(packet), None);
        }
    }
}
