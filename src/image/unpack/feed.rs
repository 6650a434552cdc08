//! What is in a compressed layer? Decoded by a thread of its own, hashed where it is read as a stream.
//!
//! Two threads: to decode costs about as much as to hash and to write. A handful of buffers between them,
//! so that memory does not grow with the layer.

use crate::image::compression::decode;
use crate::image::digest::{Digest, Hasher};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

const BUFFER: usize = 512 << 10;
const BUFFERS: usize = 6;

/// The decoded layer, in the order it comes.
pub struct Feed {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hasher: Hasher,
}

/// The thread's part: decodes `blob` into the feed until it ends.
pub struct Pump {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

pub fn feed() -> (Pump, Feed) {
    let (full, to_read) = sync_channel(BUFFERS);
    let (empty, to_fill) = channel();
    for _ in 0..BUFFERS {
        // Nothing is allocated before it is used.
        let _ = empty.send(Vec::new());
    }
    let pump = Pump {
        full,
        empty: to_fill,
    };
    let feed = Feed {
        full: to_read,
        empty,
        current: Vec::new(),
        at: 0,
        hasher: Hasher::new(),
    };
    (pump, feed)
}

impl Pump {
    /// Gives how much was decoded. More than `limit` bytes are an error. When the reader has gone, it ends early.
    pub fn run(self, blob: File, limit: u64) -> Result<u64> {
        let mut source = decode(BufReader::with_capacity(256 << 10, blob))?;
        let mut total = 0;
        while let Ok(mut buffer) = self.empty.recv() {
            buffer.resize(BUFFER, 0);
            let n = fill(&mut source, &mut buffer).context("decompress")?;
            if n == 0 {
                break;
            }
            buffer.truncate(n);
            total += n as u64;
            ensure!(
                total <= limit,
                "more than {limit} bytes when unpacked: see --max-size"
            );
            if self.full.send(buffer).is_err() {
                break;
            }
        }
        Ok(total)
    }
}

/// As much as fits, unless the stream ends.
fn fill(source: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

impl Feed {
    /// Of all that came: at the end, the diff id.
    pub fn digest(self) -> Digest {
        self.hasher.finish()
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            // The pump may be at its end already.
            let _ = self.empty.send(std::mem::take(&mut self.current));
            self.current = self.full.recv().unwrap_or_default();
            self.hasher.update(&self.current);
            self.at = 0;
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        self.consume(n);
        Ok(n)
    }
}
