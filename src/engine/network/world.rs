//! Where are the bridges of an ordinary user? In the *world*: a user and a network namespace that the user's containers
//! on bridges have in common, and one pasta or slirp4netns that connects it with all that is outside.
//!
//! Nobody keeps it alone. Who is in it, monitors and resolvers, has an entry in `STATE/networks/.world`: a link named by
//! the process, to the network namespace as that process has it. Who comes first makes the world, who comes later
//! enters it by any entry whose process lives, and who goes last ends what connects it; all with the lock of the
//! claims. Killed all at once, nobody has left anything but that program: whoever comes next ends it.
//!
//! A monitor is in the user namespace only: it must be able to listen on the host. What it does to bridges it does in
//! a thread.

use super::claim::{self, Claims};
use super::link::{self, Namespace};
use super::user;
use crate::engine::record::{Home, Process};
use crate::idmap;
use crate::sys::namespace;
use crate::sys::netlink::Route;
use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use std::fs::{self, DirBuilder, File};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct World(Namespace);

fn dir(home: &Home) -> PathBuf {
    claim::state(home).join(".world")
}

/// The number of the program that connects it.
fn carrier(home: &Home) -> PathBuf {
    dir(home).join("carrier")
}

/// Has there been one? Root's containers have none.
pub fn is_known(home: &Home) -> bool {
    dir(home).exists()
}

/// Who answers questions for names there.
pub fn name_server(home: &Home) -> Option<IpAddr> {
    user::server(&carrier(home))
}

impl World {
    /// Enters it with this process, which has no threads yet, for as long as it lives; made if need be.
    pub fn enter(home: &Home, notes: &mut Vec<String>) -> Result<World> {
        let claims = Claims::lock(home)?;
        let made = DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(dir(home));
        made.context("the directory of networks")?;
        let world = match gate(home)? {
            Some((users, net)) => {
                setns(users.fd(), CloneFlags::CLONE_NEWUSER)
                    .context("the user namespace of the other containers")?;
                World(net)
            }
            None => {
                // Of one whose processes were all killed.
                user::end(&carrier(home));
                idmap::enter()?;
                World::make()?
            }
        };
        let own = std::process::id();
        enlist(
            &claims,
            own,
            &format!("/proc/{own}/fd/{}", world.0.fd().as_raw_fd()),
        )?;
        if user::server(&carrier(home)).is_none()
            && let Err(e) = user::carry(&world.0, &carrier(home))
        {
            notes.push(format!("containers reach only each other: {e:#}"));
        }
        Ok(world)
    }

    fn make() -> Result<World> {
        let net = Namespace::new().context("a network namespace")?;
        let world = World(net);
        world.within(|| {
            let route = Route::open()?;
            let lo = link::find(&route, "lo")?.context("no loopback")?;
            Ok(link::set_up(&route, lo.index)?)
        })?;
        Ok(world)
    }

    /// Does something where the bridges are.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.0.within(act)
    }
}

/// Enters it with all of this process, for a command's work on networks; false: there is none now.
pub fn visit(home: &Home) -> Result<bool> {
    if !is_known(home) {
        return Ok(false);
    }
    let gate = {
        let _claims = Claims::lock(home)?;
        gate(home)?
    };
    let Some((users, net)) = gate else {
        return Ok(false);
    };
    let context = "the namespaces of containers on bridges";
    setns(users.fd(), CloneFlags::CLONE_NEWUSER).context(context)?;
    setns(net.fd(), CloneFlags::CLONE_NEWNET).context(context)?;
    Ok(true)
}

/// Has a process of its own do something there ([`visit`]): the caller has more to do, here.
pub fn send(home: &Home, verb: &str, whose: &str) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("sc").arg("--root").arg(&home.root);
    let output = command.args([verb, whose]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("execute sc {verb}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "networks: {}",
        said.lines().last().unwrap_or("a process that failed")
    );
    Ok(())
}

/// Enters the user namespace that is around that of a process.
pub fn enter_around(pid: i32) -> Result<()> {
    setns(around(pid)?, CloneFlags::CLONE_NEWUSER)
        .context("enter the user namespace of the other container's monitor")
}

/// Is it the one that this process is in?
pub fn is_around(pid: i32) -> Result<bool> {
    let own = fs::metadata("/proc/self/ns/user")?.ino();
    // From within, what is around another cannot be had (EPERM).
    let around = around(pid).and_then(|around| Ok(File::from(around).metadata()?.ino()));
    Ok(around.is_ok_and(|around| around == own))
}

fn around(pid: i32) -> Result<OwnedFd> {
    let users = Namespace::open(&format!("/proc/{pid}/ns/user"))?;
    Ok(namespace::parent(users.fd())?)
}

/// Its two namespaces, of whoever is in it.
fn gate(home: &Home) -> Result<Option<(Namespace, Namespace)>> {
    for (process, path) in entries(home)? {
        // It may end at any time; then the numbers may be another's.
        if let Ok(users) = Namespace::open(&format!("/proc/{}/ns/user", process.pid))
            && let Ok(net) = Namespace::open(&path.to_string_lossy())
            && process.is_alive()?
        {
            return Ok(Some((users, net)));
        }
    }
    Ok(None)
}

fn entries(home: &Home) -> Result<Vec<(Process, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir(home))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        found.extend(parse(&name).map(|process| (process, path.clone())));
    }
    Ok(found)
}

/// `PID.START.BOOT`
fn parse(name: &str) -> Option<Process> {
    let mut words = name.splitn(3, '.');
    Some(Process {
        pid: words.next()?.parse().ok()?,
        start_time: words.next()?.parse().ok()?,
        boot: words.next()?.to_owned(),
        cgroup: None,
    })
}

fn name(process: &Process) -> String {
    format!("{}.{}.{}", process.pid, process.start_time, process.boot)
}

/// Gives a process an entry.
fn enlist(claims: &Claims, pid: u32, net: &str) -> Result<()> {
    let process = Process::of(pid as i32)?;
    symlink(net, dir(claims.home).join(name(&process))).context("an entry of the world")
}

/// The same for a process that was made in it.
pub fn enlist_child(claims: &Claims, pid: u32) -> Result<()> {
    match is_known(claims.home) {
        true => enlist(claims, pid, &format!("/proc/{pid}/ns/net")),
        false => Ok(()),
    }
}

/// Has this process an entry? Its maker may have been killed before it gave it one.
pub fn is_enlisted(home: &Home) -> Result<bool> {
    let own = Process::of(std::process::id() as i32)?;
    Ok(dir(home).join(name(&own)).is_symlink())
}

/// This process is about to end, or to do nothing more there. The last one ends what connects the world.
pub fn leave(claims: &Claims) -> Result<()> {
    if !is_known(claims.home) {
        return Ok(());
    }
    let own = std::process::id() as i32;
    let mut lives = false;
    for (process, path) in entries(claims.home)? {
        match process.pid != own && process.is_alive()? {
            true => lives = true,
            false => remove(&path),
        }
    }
    if !lives {
        user::end(&carrier(claims.home));
    }
    Ok(())
}

fn remove(entry: &Path) {
    // One that stays is of a process that does not live.
    let _ = fs::remove_file(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_by_its_process() {
        let process = parse("7.4711.a-b-c").unwrap();
        assert_eq!((process.pid, process.start_time), (7, 4711));
        assert_eq!(name(&process), "7.4711.a-b-c");
        for other in ["carrier", "7", "7.x.b", ""] {
            assert!(parse(other).is_none(), "{other}");
        }
    }
}
