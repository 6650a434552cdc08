//! Who answers at a published port that the kernel cannot lead into the container? A process beside the container, that
//! passes on what comes to the host's socket: all ports of an ordinary user's container on a bridge, and of root's those
//! at [::1].
//!
//! It gets the sockets from the monitor, bound and listening, and the container's first process as stdin: with that it
//! ends, whoever else was killed. It runs where the bridges are. Its lock (stderr) says when it has gone.

use super::claim::Given;
use super::ports::{Port, Protocol};
use crate::engine::record::Home;
use crate::sys::{file, process};
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockType, SockaddrStorage, getsockname, getsockopt, sockopt};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Connections, and partners of UDP, at a time.
const MOST: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(10);
/// UDP says no goodbye: for how long a partner is remembered (nf_conntrack_udp_timeout_stream has two minutes).
const SILENCE: Duration = Duration::from_secs(120);
const STACK: usize = 128 << 10;

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("forward")
}

/// Starts it in the network namespace of the calling thread.
pub fn start(home: &Home, id: &str, init: OwnedFd, sockets: &[&OwnedFd]) -> Result<()> {
    if sockets.is_empty() {
        return Ok(());
    }
    let path = lock_file(&home.dir(id));
    let lock = File::create(&path).with_context(|| path.display().to_string())?;
    file::lock(lock.as_fd())?;
    // Copies for it alone: ours must not come to other programs.
    let mut copies = Vec::new();
    for socket in sockets {
        let copy = process::copy_descriptor(socket.as_raw_fd())?;
        process::keep_on_exec(copy.as_raw_fd())?;
        copies.push(copy);
    }
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("sc")
        .arg("--root")
        .arg(&home.root)
        .args(["forward", id])
        .current_dir("/")
        .stdin(init)
        .stdout(Stdio::null())
        .stderr(lock)
        .process_group(0);
    process::unblock_signals_in(&mut command);
    command.spawn().context("execute sc forward")?;
    Ok(())
}

/// Waits for the end of that of a container that has ended.
pub fn wait(dir: &Path) -> Result<()> {
    let path = lock_file(dir);
    match File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        lock => file::lock(lock?.as_fd())?,
    }
    // The directory may have gone.
    let _ = fs::remove_file(path);
    Ok(())
}

/// `sc forward ID`.
pub fn serve(home: &Home, id: &str) -> Result<u8> {
    // Two descriptors a connection.
    if let Ok((_, most)) = process::rlimit(libc::RLIMIT_NOFILE) {
        let _ = process::set_rlimit(0, libc::RLIMIT_NOFILE, most, most);
    }
    let dir = home.dir(id);
    let ports = Given::load(&dir).unwrap_or_default().ports;
    for number in open_descriptors()? {
        let socket = process::copy_descriptor(number)?;
        if let Some(port) = published(&socket, &ports) {
            let to = To {
                dir: dir.clone(),
                port: port.container,
            };
            spawn(move || match port.protocol {
                Protocol::Udp => pass_datagrams(UdpSocket::from(socket), &to),
                _ => accept(&TcpListener::from(socket), &to),
            })?;
        }
    }
    process::release_code();
    let [init, ..] = process::stdio();
    let mut polled = [PollFd::new(init, PollFlags::POLLIN)];
    while let Ok(0) | Err(nix::errno::Errno::EINTR) = poll(&mut polled, PollTimeout::NONE) {}
    // All threads end with it.
    std::process::exit(0)
}

fn open_descriptors() -> Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        numbers.extend(name.to_string_lossy().parse::<i32>().ok());
    }
    // The directory itself is closed by now.
    numbers.retain(|number| *number > 2 && process::is_open(*number));
    Ok(numbers)
}

/// Which port is it that a socket listens at?
fn published(socket: &OwnedFd, ports: &[Port]) -> Option<Port> {
    let own: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    let v4 = own
        .as_sockaddr_in()
        .map(|own| SocketAddr::from(std::net::SocketAddrV4::from(*own)));
    let v6 = own
        .as_sockaddr_in6()
        .map(|own| SocketAddr::from(std::net::SocketAddrV6::from(*own)));
    let place = v4.or(v6)?;
    let protocol = match getsockopt(socket, sockopt::SockType).ok()? {
        SockType::Datagram => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let same = |port: &&Port| port.protocol == protocol && port.addresses().contains(&place);
    ports.iter().find(same).copied()
}

/// Where a port leads.
#[derive(Clone)]
struct To {
    dir: PathBuf,
    port: u16,
}

impl To {
    /// A running container changes networks.
    fn address(&self) -> Option<SocketAddr> {
        let given = Given::load(&self.dir)?;
        let address = IpAddr::from(given.endpoints.first()?.address);
        Some(SocketAddr::new(address, self.port))
    }
}

fn spawn(act: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(act)
        .map(drop)
}

fn accept(listener: &TcpListener, to: &To) {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            // Too many open files, or a client that has gone.
            Err(_) => {
                thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        if count.load(Ordering::Relaxed) >= MOST {
            continue;
        }
        let (own, to) = (count.clone(), to.clone());
        count.fetch_add(1, Ordering::Relaxed);
        let carry = move || {
            // The end of its connection tells the client.
            let _ = carry(&client, &to);
            own.fetch_sub(1, Ordering::Relaxed);
        };
        if spawn(carry).is_err() {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn carry(client: &TcpStream, to: &To) -> std::io::Result<()> {
    let address = to.address().ok_or(ErrorKind::NotFound)?;
    let server = &TcpStream::connect_timeout(&address, PATIENCE)?;
    for stream in [client, server] {
        stream.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK);
        back.spawn_scoped(scope, move || pour(server, client))?;
        pour(client, server);
        Ok(())
    })
}

/// All that comes, until its end, which is passed on too.
fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    let ended = loop {
        match from.read(&mut buffer) {
            Ok(0) => break true,
            Ok(n) if to.write_all(&buffer[..n]).is_ok() => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break false,
        }
    };
    // Who has gone already needs no word.
    if ended {
        let _ = to.shutdown(Shutdown::Write);
    } else {
        for stream in [from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Partners, each with a socket of its own: by that the answers find back.
type Partners = Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>>;

fn pass_datagrams(socket: UdpSocket, to: &To) {
    let socket = Arc::new(socket);
    let partners = Partners::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let known = partners
            .lock()
            .ok()
            .and_then(|all| all.get(&client).cloned());
        let inner = match known {
            Some(inner) => inner,
            None => match meet(&socket, client, to, &partners) {
                Ok(inner) => inner,
                // As any datagram, it may be lost.
                Err(_) => continue,
            },
        };
        let _ = inner.send(&buffer[..length]);
    }
}

fn meet(
    socket: &Arc<UdpSocket>,
    client: SocketAddr,
    to: &To,
    partners: &Partners,
) -> std::io::Result<Arc<UdpSocket>> {
    let inner = Arc::new(UdpSocket::bind((IpAddr::from([0; 4]), 0))?);
    inner.connect(to.address().ok_or(ErrorKind::NotFound)?)?;
    inner.set_read_timeout(Some(SILENCE))?;
    {
        let mut all = partners.lock().map_err(|_| ErrorKind::Other)?;
        if all.len() >= MOST {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        all.insert(client, inner.clone());
    }
    let (from, outer, partners) = (inner.clone(), socket.clone(), partners.clone());
    spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = from.recv(&mut buffer) {
            let _ = outer.send_to(&buffer[..length], client);
        }
        // Silent for long, or nobody listens there: the next datagram begins anew.
        if let Ok(mut all) = partners.lock() {
            all.remove(&client);
        }
    })?;
    Ok(inner)
}
