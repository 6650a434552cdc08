//! The process beside a network: it tells its containers each other's names, and asks the host's name servers for all
//! others. The first container's monitor starts it; it ends when the last container's device is gone.
//!
//! The kernel tells it of every device that goes. So it is also who clears away, at once, what a container whose monitor
//! was killed leaves behind. Killed itself, the next container that starts has another started.
//!
//! It gets its sockets, and its lock, as stdin, stdout and stderr: they are there before it is, no question is lost,
//! and there is no moment in which two of them are.

use super::bridge;
use super::claim::{self, Claims, Given};
use super::definition::{self, Definition};
use super::dns::{self, Kind, Question};
use super::link;
use super::names;
use super::world;
use crate::engine::record::{Home, short};
use crate::sys::netlink::{self, Route};
use crate::sys::{file, process};
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const PORT: u16 = 53;
/// For how long one server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions under way, and connections.
const MOST: usize = 256;
const MOST_CONNECTIONS: usize = 16;
/// Names of containers change: `sc rename`.
const FRESH: Duration = Duration::from_secs(1);

/// Has it run, if it can; false: another name server has the port.
pub fn ensure(claims: &Claims, network: &Definition) -> Result<bool> {
    let path = claim::resolver(claims.home, &network.name);
    let lock = File::options().create(true).append(true).open(&path);
    let lock = lock.with_context(|| path.display().to_string())?;
    if !file::try_lock(lock.as_fd())? {
        return Ok(true);
    }
    let place = SocketAddr::new(network.gateway, PORT);
    let sockets = UdpSocket::bind(place).and_then(|udp| Ok((udp, TcpListener::bind(place)?)));
    let (udp, tcp) = match sockets {
        Err(e) if e.kind() == ErrorKind::AddrInUse => return Ok(false),
        other => other.with_context(|| format!("a name server at {place}"))?,
    };
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("sc")
        .arg("--root")
        .arg(&claims.home.root)
        .args(["resolver", &network.name])
        .current_dir("/")
        .stdin(OwnedFd::from(udp))
        .stdout(OwnedFd::from(tcp))
        .stderr(lock)
        .process_group(0);
    let child = command.spawn().context("execute sc resolver")?;
    world::enlist_child(claims, child.id())?;
    Ok(true)
}

/// `sc resolver NETWORK`.
pub fn serve(home: &Home, name: &str) -> Result<u8> {
    // The death of the terminal that started it is not its death.
    let _ = nix::unistd::setsid();
    let network = definition::load(home, name)?.context("the network is gone")?;
    let [stdin, stdout, _] = process::stdio();
    let udp = UdpSocket::from(stdin.try_clone_to_owned()?);
    let tcp = TcpListener::from(stdout.try_clone_to_owned()?);
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let links = netlink::watch_links()?;
    {
        let _claims = Claims::lock_if_there(home)?;
        if world::is_known(home) && !world::is_enlisted(home)? {
            bail!("its maker was killed: nobody knows where it is");
        }
    }
    let known = Known {
        names: Names::of(home, &network)?,
        home: home.clone(),
        network: network.clone(),
    };
    let mut server = Server {
        known: Arc::new(Mutex::new(known)),
        home: home.clone(),
        network,
        pending: Vec::new(),
        connections: Arc::new(AtomicUsize::new(0)),
    };
    // Before it watched, the last one may have gone.
    server.clear_away()?;
    loop {
        let ready = server.wait([links.as_fd(), udp.as_fd(), tcp.as_fd()])?;
        if ready[0] && is_one_gone(&links)? {
            server.clear_away()?;
        }
        server.carry_answers(&udp, &ready[3..]);
        if ready[1] {
            server.take_questions(&udp);
        }
        if ready[2] {
            server.accept(&tcp);
        }
    }
}

/// All that is told now, so that many at once are one.
fn is_one_gone(links: &OwnedFd) -> Result<bool> {
    let mut gone = false;
    loop {
        let kinds = netlink::told(links.as_fd())?;
        if kinds.is_empty() {
            return Ok(gone);
        }
        gone |= kinds
            .iter()
            .any(|kind| [0, libc::RTM_DELLINK].contains(kind));
    }
}

/// A question that another server was asked.
struct Pending {
    socket: UdpSocket,
    client: SocketAddr,
    message: Vec<u8>,
    question: Question,
    servers: Vec<IpAddr>,
    asked: usize,
    until: Instant,
}

struct Server {
    home: Home,
    network: Definition,
    known: Arc<Mutex<Known>>,
    pending: Vec<Pending>,
    connections: Arc<AtomicUsize>,
}

/// What answers are made of.
struct Known {
    home: Home,
    network: Definition,
    names: Names,
}

/// What becomes of a question.
enum Fate {
    Answered(Vec<u8>),
    Asked(Question, Vec<IpAddr>),
    Dropped,
}

impl Server {
    /// Which of these, and then of the pending ones, have something to read?
    fn wait(&self, fixed: [std::os::fd::BorrowedFd; 3]) -> Result<Vec<bool>> {
        let pending = self.pending.iter().map(|one| one.socket.as_fd());
        let mut polled: Vec<PollFd> = (fixed.into_iter().chain(pending))
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let until = self.pending.iter().map(|one| one.until).min();
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            PollTimeout::from((left + 1).min(10_000) as u16)
        });
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        Ok(polled.iter().map(|fd| fd.any() == Some(true)).collect())
    }

    /// Claims of containers that are gone, and their ports; with the last one this process ends.
    fn clear_away(&mut self) -> Result<()> {
        let name = &self.network.name;
        // Who removed all of it by hand does not want it back.
        let Some(claims) = Claims::lock_if_there(&self.home)? else {
            std::process::exit(0);
        };
        if definition::load(&self.home, name)?.as_ref() != Some(&self.network) {
            // It is gone, or another one by now, at another bridge: its claims are not ours to judge.
            world::leave(&claims)?;
            std::process::exit(0);
        }
        let route = Route::open()?;
        let devices = match link::find(&route, &self.network.device)? {
            Some(bridge) => link::ports(&route, bridge.index)?,
            None => Vec::new(),
        };
        bridge::sweep(&claims, &self.network, &devices)?;
        if claims.of(name)?.is_empty() {
            world::leave(&claims)?;
            // With the lock: whoever starts the next one finds the port free.
            std::process::exit(0);
        }
        Ok(())
    }

    fn take_questions(&mut self, udp: &UdpSocket) {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            let message = &buffer[..length];
            match decide(&self.known, message, client.ip()) {
                // A client that has gone needs no answer; here and below.
                Fate::Answered(answer) => drop(udp.send_to(&answer, client)),
                Fate::Asked(question, servers) => {
                    if self.pending.len() == MOST {
                        self.pending.remove(0);
                    }
                    let asked = ask(&servers, 0, message).map(|(socket, asked)| Pending {
                        socket,
                        client,
                        message: message.to_vec(),
                        question,
                        servers,
                        asked,
                        until: Instant::now() + PATIENCE,
                    });
                    self.pending.extend(asked);
                }
                Fate::Dropped => {}
            }
        }
    }

    /// What other servers answer; who does not is not asked again, but the next one.
    fn carry_answers(&mut self, udp: &UdpSocket, ready: &[bool]) {
        let now = Instant::now();
        let mut buffer = [0; 4096];
        let mut kept = Vec::new();
        let ready = ready.iter().copied().chain(std::iter::repeat(false));
        for (mut one, is_ready) in self.pending.drain(..).zip(ready) {
            if is_ready && let Ok(length) = one.socket.recv(&mut buffer) {
                if buffer[..length].starts_with(&one.message[..2]) {
                    let _ = udp.send_to(&buffer[..length], one.client);
                    continue;
                }
            } else if !is_ready && one.until > now {
                kept.push(one);
                continue;
            }
            match ask(&one.servers, one.asked + 1, &one.message) {
                Some((socket, asked)) => {
                    (one.socket, one.asked, one.until) = (socket, asked, now + PATIENCE);
                    kept.push(one);
                }
                None => {
                    let answer = dns::failure(&one.message, &one.question, dns::SERVER_FAILURE);
                    let _ = udp.send_to(&answer, one.client);
                }
            }
        }
        self.pending = kept;
    }

    /// In threads of their own: a client may be slow, or say nothing.
    fn accept(&mut self, tcp: &TcpListener) {
        while let Ok((mut stream, client)) = tcp.accept() {
            if self.connections.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
                continue;
            }
            let (known, count) = (self.known.clone(), self.connections.clone());
            count.fetch_add(1, Ordering::Relaxed);
            let serve = move || {
                // Without an answer the client's connection ends, and it knows.
                let _ = converse(&known, &mut stream, client.ip());
                count.fetch_sub(1, Ordering::Relaxed);
            };
            if thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(serve)
                .is_err()
            {
                self.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

fn converse(known: &Mutex<Known>, stream: &mut TcpStream, client: IpAddr) -> std::io::Result<()> {
    let message = receive(stream)?;
    match decide(known, &message, client) {
        Fate::Answered(answer) => send(stream, &answer),
        Fate::Asked(_, servers) => relay(stream, &message, &servers),
        Fate::Dropped => Ok(()),
    }
}

fn decide(known: &Mutex<Known>, message: &[u8], client: IpAddr) -> Fate {
    match known.lock() {
        Ok(mut known) => known.decide(message, client),
        // A thread that panicked while it held it: what is known may be half of it.
        Err(_) => Fate::Dropped,
    }
}

impl Known {
    fn decide(&mut self, message: &[u8], client: IpAddr) -> Fate {
        // Who is not of the network has no business here.
        if !self.network.subnet.contains(client) {
            return Fate::Dropped;
        }
        let Some(question) = dns::question(message) else {
            return Fate::Dropped;
        };
        if let Some(answer) = self.own(message, &question, client) {
            return Fate::Answered(answer);
        }
        let servers = self.names.servers(client);
        match servers.is_empty() || self.network.internal {
            true => Fate::Answered(dns::failure(message, &question, dns::NAME_ERROR)),
            false => Fate::Asked(question, servers),
        }
    }

    /// The answer to a question for one of the containers.
    fn own(&mut self, message: &[u8], question: &Question, client: IpAddr) -> Option<Vec<u8>> {
        let known = |names: &Names| match dns::pointed(&question.name) {
            Some(address) if question.kind == Kind::Pointer => {
                let name = names.by_address.get(&address)?;
                Some(dns::pointer(message, question, &name.name))
            }
            _ => {
                let found = names.find(&question.name, client)?;
                Some(dns::addresses(message, question, &found))
            }
        };
        // A container may have come since, and a name may be another's.
        if !self.names.is_fresh(&self.home)
            && let Ok(names) = Names::of(&self.home, &self.network)
        {
            self.names = names;
        }
        known(&self.names)
    }
}

/// Asks one of the servers from that number on, from a port of its own: only who was asked can answer.
fn ask(servers: &[IpAddr], from: usize, message: &[u8]) -> Option<(UdpSocket, usize)> {
    servers
        .iter()
        .enumerate()
        .skip(from)
        .find_map(|(at, server)| {
            let any: IpAddr = if server.is_ipv4() {
                [0; 4].into()
            } else {
                [0u16; 8].into()
            };
            let socket = UdpSocket::bind((any, 0)).ok()?;
            socket.connect((*server, PORT)).ok()?;
            socket.set_nonblocking(true).ok()?;
            socket.send(message).ok()?;
            Some((socket, at))
        })
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = (message.len() as u16).to_be_bytes();
    stream.write_all(&[&length, message].concat())
}

fn relay(client: &mut TcpStream, message: &[u8], servers: &[IpAddr]) -> std::io::Result<()> {
    let mut last = ErrorKind::NotFound.into();
    for server in servers {
        let place = SocketAddr::new(*server, PORT);
        let answer = TcpStream::connect_timeout(&place, PATIENCE).and_then(|mut server| {
            send(&mut server, message)?;
            receive(&mut server)
        });
        match answer {
            Ok(answer) => return send(client, &answer),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// The names of all containers in networks.
struct Names {
    /// By network and name, in lower case.
    by_name: HashMap<(String, String), Vec<IpAddr>>,
    by_address: HashMap<IpAddr, Member>,
    servers: Vec<IpAddr>,
    own: String,
    read: Instant,
    changed: Option<SystemTime>,
}

struct Member {
    name: String,
    networks: Vec<String>,
    dns: Vec<IpAddr>,
}

impl Names {
    /// With the lock: a claim is there before what it is for is told.
    fn of(home: &Home, network: &Definition) -> Result<Names> {
        let claims = Claims::lock_if_there(home)?.context("the networks are gone")?;
        let mut names = Names {
            by_name: HashMap::new(),
            by_address: HashMap::new(),
            servers: match world::name_server(home) {
                Some(server) => vec![server],
                None => names::Host::of_this().servers,
            },
            own: network.name.clone(),
            read: Instant::now(),
            changed: changed(home, &network.name),
        };
        for network in definition::list(home)? {
            for claim in claims.of(&network.name)? {
                let place = claim::state(home).join(&network.name).join(&claim.device);
                let id = fs::read_link(place).unwrap_or_default();
                let id = id.file_name().unwrap_or_default().to_string_lossy();
                if let (Some(given), Ok(Some(record))) =
                    (claims.given(&network.name, &claim), home.load(&id))
                {
                    names.add(&network.name, &claim.device, &given, &record.name, &id);
                }
            }
        }
        Ok(names)
    }

    fn add(&mut self, network: &str, device: &str, given: &Given, name: &str, id: &str) {
        let Some(endpoint) = given
            .endpoints
            .iter()
            .find(|endpoint| endpoint.device == device)
        else {
            return;
        };
        let v6 = endpoint.address6.map(IpAddr::from);
        let addresses: Vec<IpAddr> = [Some(endpoint.address.into()), v6]
            .into_iter()
            .flatten()
            .collect();
        let aliases = endpoint.aliases.iter().map(String::as_str);
        for known in aliases.chain([name, short(id)]) {
            let key = (network.to_owned(), known.to_ascii_lowercase());
            // An alias may be that of several: each is an answer.
            self.by_name.entry(key).or_default().extend(&addresses);
        }
        for address in addresses {
            let networks = given.endpoints.iter();
            let member = Member {
                name: name.to_owned(),
                networks: networks.map(|endpoint| endpoint.network.clone()).collect(),
                dns: given.dns.clone(),
            };
            self.by_address.insert(address, member);
        }
    }

    /// In the network of this server, and in all that the client is in.
    fn find(&self, name: &str, client: IpAddr) -> Option<Vec<IpAddr>> {
        let theirs = self.by_address.get(&client);
        let theirs = theirs
            .map(|member| member.networks.as_slice())
            .unwrap_or_default();
        let networks = [&self.own]
            .into_iter()
            .chain(theirs.iter().filter(|other| **other != self.own));
        let keys = networks.map(|network| (network.clone(), name.to_owned()));
        keys.filter_map(|key| self.by_name.get(&key))
            .next()
            .cloned()
    }

    fn servers(&self, client: IpAddr) -> Vec<IpAddr> {
        let member = self.by_address.get(&client);
        let own = member
            .map(|member| &member.dns)
            .filter(|dns| !dns.is_empty());
        own.unwrap_or(&self.servers).clone()
    }

    fn is_fresh(&self, home: &Home) -> bool {
        self.read.elapsed() < FRESH && self.changed == changed(home, &self.own)
    }
}

/// When a container came into a network, or left it.
fn changed(home: &Home, network: &str) -> Option<SystemTime> {
    let dir = claim::state(home).join(network);
    fs::metadata(dir).and_then(|dir| dir.modified()).ok()
}
