//! A container's network while it runs: made before the container, ended with it.

use super::bridge;
use super::claim::{Claims, Given};
use super::forward;
use super::link::{self, Namespace};
use super::names;
use super::ports::Port;
use super::reserve::{self, Reserved, Use};
use super::resolver;
use super::rules;
use super::user;
use super::wanted::{Join, Mode, Wanted};
use super::world::{self, World};
use crate::engine::now;
use crate::engine::record::{Home, Record, short};
use crate::sys::mount;
use crate::sys::netlink::Route;
use crate::sys::pidfd;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What the monitor holds. When it is dropped, all is gone; when the monitor is killed, the kernel removes the
/// device with the container, and who comes next the rest.
pub struct Live {
    home: Home,
    dir: PathBuf,
    mode: Mode,
    rootless: bool,
    /// Until it is mounted.
    namespace: Option<Namespace>,
    is_mounted: bool,
    /// Without root, where the bridges are.
    world: Option<World>,
    ports: Vec<Port>,
    /// Sockets that keep the host's programs from published ports, and each other's monitors; or that are answered.
    reserved: Vec<Reserved>,
    user: Option<user::Program>,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Live {
    /// Makes the network of a container that is about to start, while this process still sees the host's mounts: the
    /// resolver that it may start must not hold the container's. `own`: a namespace that is there already.
    pub fn start(home: &Home, record: &Record, own: Option<Namespace>) -> Result<Live> {
        let wanted = &record.networks;
        let mut live = Live {
            home: home.clone(),
            dir: home.dir(&record.id),
            mode: wanted.mode.clone(),
            rootless: record.rootless,
            namespace: None,
            is_mounted: false,
            world: None,
            ports: Vec::new(),
            reserved: Vec::new(),
            user: None,
            notes: Vec::new(),
        };
        if record.rootless {
            // Instead of a user namespace of its own.
            match &wanted.mode {
                Mode::Bridge => live.world = Some(World::enter(home, &mut live.notes)?),
                Mode::Container(id) => world::enter_around(process_of(home, id)?)?,
                _ => {}
            }
        }
        // What a killed monitor left of an earlier life.
        match &live.world {
            Some(world) => world.within(|| clear_here(home, &live.dir))?,
            None => clear(home, &record.id)?,
        }
        match &wanted.mode {
            Mode::Bridge => {
                let use_of = |port: &Port| match record.rootless || port.is_loopback6() {
                    true => Use::Answered,
                    false => Use::Kept,
                };
                (live.ports, live.reserved) = reserve::all(home, &wanted.ports, use_of)?;
                if live.world.is_none() {
                    let namespace = match own {
                        Some(namespace) => namespace,
                        None => Namespace::new().context("a network namespace")?,
                    };
                    live.bridge(wanted, &namespace)?;
                    live.namespace = Some(namespace);
                }
            }
            Mode::Namespace(path) => {
                let path = path.to_str().context("--network ns:PATH")?;
                live.namespace = Some(Namespace::open(path).context("--network ns:PATH")?);
            }
            Mode::None | Mode::Host | Mode::Bundle | Mode::User | Mode::Container(_) => {}
        }
        if matches!(wanted.mode, Mode::None | Mode::Host | Mode::Namespace(_)) {
            names::write(&live.dir, wanted, &Given::default(), names::Servers::Hosts)?;
        }
        Ok(live)
    }

    /// Puts its namespace where config.json says: at `netns` in the container's directory, in the mount namespace that
    /// this process has by now, so that only it and its children see it.
    pub fn place(&mut self, record: &Record) -> Result<()> {
        // With layers, there is a mount namespace already.
        if self.mode.is_prepared() && record.lower.is_empty() {
            unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
            mount::set_propagation(Path::new("/"), libc::MS_REC | libc::MS_SLAVE)?;
        }
        match self.namespace.take() {
            Some(namespace) => self.mount(&namespace),
            None => Ok(()),
        }
    }

    /// Before each life: another container may have another namespace than at the last one.
    pub fn follow(&mut self) -> Result<()> {
        let Mode::Container(id) = &self.mode else {
            return Ok(());
        };
        let pid = process_of(&self.home, id)?;
        if self.rootless && !world::is_around(pid)? {
            bail!(
                "--network container:{}: it has been started anew, where this container's monitor cannot go: start this one anew too",
                short(id)
            );
        }
        let namespace = Namespace::open(&format!("/proc/{pid}/ns/net"))?;
        let users = Namespace::open(&format!("/proc/{pid}/ns/user"))?;
        self.unmount();
        self.mount(&namespace)?;
        match self.rootless {
            true => users.mount(&self.dir.join("userns")),
            false => Ok(()),
        }
    }

    /// Connects the namespace that the runtime made, before anything runs in it: without root, it is of the
    /// container's own user namespace.
    pub fn connect_process(&mut self, record: &Record, pid: i32) -> Result<()> {
        match self.mode {
            Mode::Bridge => self.connect_bridge(record, pid),
            Mode::User => self.connect_user(record, pid),
            _ => Ok(()),
        }
    }

    fn connect_bridge(&mut self, record: &Record, pid: i32) -> Result<()> {
        let init = pidfd::open(pid)?;
        let Some(world) = self.world.take() else {
            return self.answer(record, init);
        };
        let namespace = Namespace::open(&format!("/proc/{pid}/ns/net"))?;
        let connected = world.within(|| {
            // That of an earlier life, whose namespace has gone.
            clear_here(&self.home, &self.dir)?;
            self.bridge(&record.networks, &namespace)?;
            self.answer(record, init)
        });
        self.world = Some(world);
        connected
    }

    /// Has a process answer at ports that no rule leads into the container.
    fn answer(&self, record: &Record, init: OwnedFd) -> Result<()> {
        let all = self.reserved.iter();
        let answered = all.filter(|one| one.to_be == Use::Answered);
        let sockets: Vec<&OwnedFd> = answered.map(|one| &one.socket).collect();
        forward::start(&self.home, &record.id, init, &sockets)
    }

    fn connect_user(&mut self, record: &Record, pid: i32) -> Result<()> {
        self.user = None;
        self.unmount();
        // By mounts of ours: pasta may not look at a process that is not its own, and has given up what would let it.
        self.mount(&Namespace::open(&format!("/proc/{pid}/ns/net"))?)?;
        let users = Namespace::open(&format!("/proc/{pid}/ns/user"))?;
        users.mount(&self.dir.join("userns"))?;
        let wanted = &record.networks;
        let started = user::start(&self.home, wanted, pid, &self.dir);
        let (program, given) = match started {
            // A host without a network has none to share; what was not asked for is not missed.
            Err(e) if wanted.ports.is_empty() => {
                self.notes.push(format!("only loopback: {e:#}"));
                return names::write(
                    &self.dir,
                    wanted,
                    &Given::default(),
                    names::Servers::Own(&[]),
                );
            }
            other => other?,
        };
        let server = program.server();
        self.user = Some(program);
        given.save(&self.dir)?;
        names::write(&self.dir, wanted, &given, names::Servers::Own(&[server]))
    }

    /// All is given back. What cannot be removed here, the next sc that needs it removes.
    pub fn end(&mut self) {
        if self.mode == Mode::Bridge {
            let give_back = || {
                let claims = Claims::lock(&self.home)?;
                release(&claims, &self.dir)?;
                world::leave(&claims)
            };
            let _ = match &self.world {
                Some(world) => world.within(give_back),
                None => give_back(),
            };
        }
        self.user = None;
        self.namespace = None;
        self.reserved.clear();
        // The ports are free when it has gone.
        let _ = forward::wait(&self.dir);
        Given::forget(&self.dir);
        self.unmount();
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            for name in ["netns", "userns"] {
                let path = self.dir.join(name);
                // The mount namespace is ours: the end of it is that of the mount.
                let _ = umount2(&path, MntFlags::MNT_DETACH);
                let _ = fs::remove_file(path);
            }
        }
    }

    fn mount(&mut self, namespace: &Namespace) -> Result<()> {
        self.is_mounted = true;
        namespace.mount(&self.dir.join("netns"))
    }

    fn bridge(&mut self, wanted: &Wanted, namespace: &Namespace) -> Result<()> {
        let mut given = Given {
            ports: self.ports.clone(),
            dns: wanted.dns.clone(),
            ..Given::default()
        };
        let claims = Claims::lock(&self.home)?;
        // A killed monitor's container has its ports still, and no socket.
        let route = Route::open()?;
        reserve::check(&claims, &route, &given.ports)?;
        let mut servers = Vec::new();
        for (number, join) in wanted.joins.iter().enumerate() {
            let network = bridge::definition(&claims, &join.network)?;
            let bridge = bridge::bring_up(&claims, &route, network, &mut self.notes)?;
            let endpoint = bridge.join(&claims, &route, &self.dir, namespace, join, number)?;
            given.endpoints.push(endpoint);
            given.gateway.get_or_insert(bridge.network.gateway);
            // Each in turn: who cleans up finds it.
            given.save(&self.dir)?;
            if number == 0 {
                let published = given.published(&join.network);
                rules::apply(&rules::add(&bridge.network, &published))?;
            }
            match resolver::ensure(&claims, &bridge.network)? {
                true => servers.push(bridge.network.gateway),
                false => self.notes.push(format!(
                    "port 53 of {} is taken by a name server of this host: containers of the network {} do not find each other by name",
                    bridge.network.gateway, join.network
                )),
            }
        }
        drop(claims);
        names::write(&self.dir, wanted, &given, names::Servers::Own(&servers))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// Gives back what a container of that directory was given. The devices go with its namespace: to remove them here
/// would be to wait for the kernel.
pub fn release(claims: &Claims, dir: &Path) -> Result<()> {
    let Some(given) = Given::load(dir) else {
        return Ok(());
    };
    if let Some(first) = given.endpoints.first() {
        // First what is published: killed between the two, the claim shows that there is something to remove.
        unpublish(claims, dir, &given, &first.network)?;
    }
    for endpoint in &given.endpoints {
        claims.release(&endpoint.network, &endpoint.device)?;
    }
    Ok(())
}

fn unpublish(claims: &Claims, dir: &Path, given: &Given, network: &str) -> Result<()> {
    let published = given.published(network);
    let network = bridge::definition(claims, network)?;
    if published.is_empty() || !rules::is_loaded(&network)? {
        return Ok(());
    }
    let removed = rules::apply(&rules::remove(&network, &published));
    if removed.is_err() {
        // One that is not there spoils the transaction: all anew, then, without this container.
        Given::forget(dir);
        rules::apply(&rules::table(&network, &claims.published(&network.name)?))?;
    }
    Ok(())
}

/// What a killed monitor left of a container that does not run any more.
pub fn clear(home: &Home, id: &str) -> Result<()> {
    let dir = home.dir(id);
    let given = Given::load(&dir).unwrap_or_default();
    match given.endpoints.is_empty() || geteuid().is_root() {
        true => clear_here(home, &dir),
        false => world::send(home, "clear", id),
    }
}

/// `sc clear ID`: where the bridges are, if they are.
pub fn clear_there(home: &Home, id: &str) -> Result<u8> {
    match world::visit(home)? {
        true => clear_here(home, &home.dir(id))?,
        false => {
            forward::wait(&home.dir(id))?;
            let claims = Claims::lock(home)?;
            let given = Given::load(&home.dir(id)).unwrap_or_default();
            for endpoint in given.endpoints {
                claims.release(&endpoint.network, &endpoint.device)?;
            }
            Given::forget(&home.dir(id));
        }
    }
    Ok(0)
}

fn clear_here(home: &Home, dir: &Path) -> Result<()> {
    user::end(&dir.join("pasta.pid"));
    forward::wait(dir)?;
    let given = Given::load(dir).unwrap_or_default();
    if given.endpoints.is_empty() {
        return Ok(());
    }
    let claims = Claims::lock(home)?;
    release(&claims, dir)?;
    let route = Route::open()?;
    for endpoint in &given.endpoints {
        // Whoever has the namespace open still: the device is not to stay.
        link::delete(&route, &endpoint.device)?;
    }
    Given::forget(dir);
    Ok(())
}

/// Puts a running container into one more network; what is worth knowing.
pub fn connect(home: &Home, record: &Record, join: &Join) -> Result<Vec<String>> {
    let dir = home.dir(&record.id);
    let namespace = of_container(home, &record.id)?;
    let claims = Claims::lock(home)?;
    let route = Route::open()?;
    let mut given = Given::load(&dir).unwrap_or_default();
    let mut notes = Vec::new();
    let network = bridge::definition(&claims, &join.network)?;
    let bridge = bridge::bring_up(&claims, &route, network, &mut notes)?;
    let taken = |number: &usize| {
        let name = format!("eth{number}");
        given
            .endpoints
            .iter()
            .any(|endpoint| endpoint.inside == name)
    };
    let number = (0..).find(|number| !taken(number)).unwrap_or_default();
    let endpoint = bridge.join(&claims, &route, &dir, &namespace, join, number)?;
    given.endpoints.push(endpoint);
    given.gateway.get_or_insert(bridge.network.gateway);
    given.save(&dir)?;
    if given.endpoints.len() == 1 {
        rules::apply(&rules::add(
            &bridge.network,
            &given.published(&join.network),
        ))?;
    }
    resolver::ensure(&claims, &bridge.network)?;
    rename(&claims, record, &given)?;
    Ok(notes)
}

/// Takes a container out of a network, at once if it runs. Ports that were published there lead to the next.
pub fn disconnect(home: &Home, record: &Record, network: &str) -> Result<()> {
    let dir = home.dir(&record.id);
    let claims = Claims::lock(home)?;
    let route = Route::open()?;
    let mut given = Given::load(&dir).unwrap_or_default();
    let Some(at) = given
        .endpoints
        .iter()
        .position(|endpoint| endpoint.network == network)
    else {
        return Ok(());
    };
    let gone = given.endpoints.remove(at);
    given.save(&dir)?;
    claims.release(network, &gone.device)?;
    link::delete(&route, &gone.device)?;
    if !given.ports.is_empty() && at == 0 {
        let after = given
            .endpoints
            .first()
            .map(|endpoint| endpoint.network.as_str());
        for name in [Some(network), after].into_iter().flatten() {
            let network = bridge::definition(&claims, name)?;
            rules::apply(&rules::table(&network, &claims.published(name)?))?;
        }
    }
    rename(&claims, record, &given)
}

/// The container's files of names, for the networks that it has now.
fn rename(claims: &Claims, record: &Record, given: &Given) -> Result<()> {
    let mut servers = Vec::new();
    for endpoint in &given.endpoints {
        servers.push(bridge::definition(claims, &endpoint.network)?.gateway);
    }
    let dir = claims.home.dir(&record.id);
    names::write(&dir, &record.networks, given, names::Servers::Own(&servers))
}

/// The network namespace of a running container.
fn of_container(home: &Home, id: &str) -> Result<Namespace> {
    let pid = process_of(home, id)?;
    Ok(Namespace::open(&format!("/proc/{pid}/ns/net"))?)
}

fn process_of(home: &Home, id: &str) -> Result<i32> {
    let record = home.load(id)?;
    let record = record.with_context(|| format!("--network container:{id}: it is gone"))?;
    let alive = now::alive(&record)?.is_some();
    let process = record.process.as_ref().filter(|_| alive);
    process.map(|process| process.pid).with_context(|| {
        format!(
            "container {} does not run: `sc start {0}` starts it",
            record.name
        )
    })
}
