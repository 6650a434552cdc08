//! A wire between client and registry that counts what passes, and breaks as it is told.

use anyhow::Result;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Wire {
    /// `127.0.0.1:PORT`
    pub address: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes from the registry, and to it.
    down: AtomicU64,
    up: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
pub struct Trouble {
    /// After so many bytes from the registry the connection ends, each once.
    pub cut_down: VecDeque<u64>,
    /// The same for bytes to the registry.
    pub cut_up: VecDeque<u64>,
    /// The byte from the registry that arrives changed, counted over all connections.
    pub corrupt: Option<u64>,
    /// Before each piece from the registry.
    pub delay: Duration,
    /// At most so many bytes in a piece from the registry, where not 0.
    pub piece: usize,
    /// After so many bytes from the registry nothing comes any more on that connection, which stays; once.
    pub stall: Option<u64>,
}

impl Wire {
    pub fn to(port: u16, trouble: Trouble) -> Result<Wire> {
        Wire::from("127.0.0.1:0", port, trouble)
    }

    /// Listens at another address.
    pub fn from(address: &str, port: u16, trouble: Trouble) -> Result<Wire> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(State {
            trouble: Mutex::new(trouble),
            ..State::default()
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                join(client, server, &shared);
            }
        });
        Ok(Wire { address, state })
    }

    /// Bytes that came from the registry since the last call.
    pub fn down(&self) -> u64 {
        self.state.down.swap(0, Ordering::SeqCst)
    }

    /// Bytes that went to the registry since the last call.
    pub fn up(&self) -> u64 {
        self.state.up.swap(0, Ordering::SeqCst)
    }
}

pub fn join(
    client: TcpStream,
    server: TcpStream,
    state: &Arc<impl Passing + Send + Sync + 'static>,
) {
    let pairs = [
        (client.try_clone(), server.try_clone(), false),
        (Ok(server), Ok(client), true),
    ];
    for (from, to, down) in pairs {
        let (Ok(from), Ok(to)) = (from, to) else {
            return;
        };
        let state = state.clone();
        std::thread::spawn(move || pump(from, to, down, &*state));
    }
}

/// What happens to bytes on their way.
pub trait Passing {
    /// May change them; how many of them arrive before the connection ends, if it does.
    fn pass(&self, bytes: &mut [u8], down: bool) -> Option<usize>;
    fn piece(&self, down: bool) -> usize;
}

/// Nothing happens.
pub struct Free;

impl Passing for Free {
    fn pass(&self, _: &mut [u8], _: bool) -> Option<usize> {
        None
    }
    fn piece(&self, _: bool) -> usize {
        64 << 10
    }
}

impl Passing for State {
    fn pass(&self, bytes: &mut [u8], down: bool) -> Option<usize> {
        let counter = if down { &self.down } else { &self.up };
        let before = counter.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let mut trouble = self.trouble.lock().unwrap();
        let delay = trouble.delay;
        if down
            && let Some(at) = trouble
                .corrupt
                .filter(|at| (before..before + bytes.len() as u64).contains(at))
        {
            bytes[(at - before) as usize] ^= 0x55;
            trouble.corrupt = None;
        }
        if down && trouble.stall.is_some_and(|at| before >= at) {
            trouble.stall = None;
            drop(trouble);
            loop {
                std::thread::park();
            }
        }
        let cuts = if down {
            &mut trouble.cut_down
        } else {
            &mut trouble.cut_up
        };
        let mut cut = None;
        if let Some(left) = cuts.front_mut() {
            if *left <= bytes.len() as u64 {
                cut = Some(*left as usize);
                cuts.pop_front();
            } else {
                *left -= bytes.len() as u64;
            }
        }
        drop(trouble);
        if down {
            std::thread::sleep(delay);
        }
        cut
    }

    fn piece(&self, down: bool) -> usize {
        match self.trouble.lock().unwrap().piece {
            piece if piece > 0 && down => piece,
            _ => 64 << 10,
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, down: bool, state: &impl Passing) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let piece = state.piece(down).min(buffer.len());
        let n = match from.read(&mut buffer[..piece]) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let cut = state.pass(&mut buffer[..n], down);
        if to.write_all(&buffer[..cut.unwrap_or(n)]).is_err() || cut.is_some() {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(if down {
        Shutdown::Both
    } else {
        Shutdown::Write
    });
}
