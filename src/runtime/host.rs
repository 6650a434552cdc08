//! What must a plan know of this machine and of who calls? Facts, gathered once for `create`, `run`,
//! `exec` and `plan`; what follows from them is the plan's to decide.

use crate::runtime::cgroup;
use crate::runtime::cli::CreateArgs;
use crate::runtime::container::Record;
use crate::runtime::notify;
use crate::runtime::plan::unit::Manager;
use crate::runtime::plan::{Ask, Host};
use crate::runtime::systemd;
use crate::sys;
use anyhow::{Context, Result};
use nix::unistd::{Uid, getegid, geteuid};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl CreateArgs {
    /// What was typed, with the facts of this host. `bundle` and `root`, where the state is kept, are absolute.
    pub fn ask(&self, root: &Path, bundle: PathBuf) -> Result<Ask> {
        let env = |name: &str| std::env::var(name).ok();
        let listen_fds = listen_fds(env("LISTEN_PID"), env("LISTEN_FDS"), std::process::id());
        Ok(Ask {
            id: self.id.clone(),
            bundle,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds.saturating_add(listen_fds.unwrap_or(0)),
            systemd_cgroup: self.systemd_cgroup,
            listen_fds,
            notify: notify::asked().map(|_| root.join(&self.id).join(notify::DIRECTORY)),
            host: facts(self.rootless)?,
        })
    }
}

fn facts(rootless: Option<bool>) -> Result<Host> {
    let (euid, egid) = (geteuid(), getegid());
    let initial = in_initial_user_namespace()?;
    let rootless = rootless.unwrap_or(!euid.is_root() || !initial);
    Ok(Host {
        euid: euid.as_raw(),
        egid: egid.as_raw(),
        rootless,
        systemd: match rootless && !has_own_systemd(euid) {
            true => Manager::User,
            false => Manager::System,
        },
        // Once denied, also in every user namespace below (user_namespaces(7)).
        setgroups_denied: !initial && setgroups_denied("self")?,
        last_cap: last_cap()?,
        cgroup_mount: cgroup::find_mount()?,
        own_cgroup: cgroup::own()?,
    })
}

/// What is asked for once more of a container that is there: what a later command draws its plan from.
pub fn ask_for(record: &Record) -> Result<Ask> {
    Ok(Ask {
        id: record.id.clone(),
        bundle: record.bundle.clone(),
        no_pivot: record.no_pivot,
        no_new_keyring: record.no_new_keyring,
        // Whoever made the cgroup: it is there.
        systemd_cgroup: false,
        preserve_fds: 0,
        // The caller's activated sockets are for the container's first process.
        listen_fds: None,
        notify: None,
        host: facts_for(record)?,
    })
}

/// What `exec` must know for the container of `record`. Where the caller is itself in a cgroup does
/// not matter to it.
fn facts_for(record: &Record) -> Result<Host> {
    Ok(Host {
        euid: geteuid().as_raw(),
        egid: getegid().as_raw(),
        rootless: record.rootless,
        // Whoever made the cgroup: it is there.
        systemd: Manager::System,
        setgroups_denied: record.rootless && setgroups_denied(&record.pid.to_string())?,
        last_cap: last_cap()?,
        cgroup_mount: record.cgroup_mount.clone(),
        own_cgroup: PathBuf::from("/"),
    })
}

/// Root of a user namespace may be that of a machine within the machine (LXC), whose systemd obeys it:
/// its socket is then root's. That of the machine around it is nobody's in there.
fn has_own_systemd(euid: Uid) -> bool {
    let owner = || std::fs::metadata(systemd::PRIVATE_SOCKET).map(|socket| socket.uid());
    euid.is_root() && owner().is_ok_and(|uid| uid == 0)
}

fn setgroups_denied(process: &str) -> Result<bool> {
    Ok(read(&format!("/proc/{process}/setgroups"))?.trim() == "deny")
}

/// Is this process in the user namespace of process `pid`?
pub fn shares_user_namespace(pid: i32) -> Result<bool> {
    let of = |who: &str| {
        let path = format!("/proc/{who}/ns/user");
        let stat = std::fs::metadata(&path).with_context(|| path)?;
        Ok::<_, anyhow::Error>((stat.dev(), stat.ino()))
    };
    Ok(of("self")? == of(&pid.to_string())?)
}

/// The descriptors that socket activation passes to process `me` (sd_listen_fds(3)).
fn listen_fds(pid: Option<String>, fds: Option<String>, me: u32) -> Option<u32> {
    let for_me = pid?.parse() == Ok(me);
    fds?.parse().ok().filter(|n| for_me && *n > 0)
}

/// All ids map to themselves (user_namespaces(7)): root here is root of the machine.
pub fn in_initial_user_namespace() -> Result<bool> {
    let map = read("/proc/self/uid_map")?;
    Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// A small file of procfs, in the one read(2) that it takes.
fn read(path: &str) -> Result<String> {
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    let text = sys::file::read_rest(file.as_fd()).with_context(|| path.to_owned())?;
    String::from_utf8(text).with_context(|| path.to_owned())
}

fn last_cap() -> Result<u8> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let text = read(path)?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} is {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptors_meant_for_this_process_are_taken() {
        let own = |s: &str| Some(s.to_owned());
        for (pid, fds, expected) in [
            (own("7"), own("2"), Some(2)),
            (own("8"), own("2"), None),
            (None, own("2"), None),
            (own("7"), None, None),
            (own("7"), own("0"), None),
            (own("7"), own("-1"), None),
            (own("x"), own("2"), None),
        ] {
            assert_eq!(listen_fds(pid, fds, 7), expected);
        }
    }
}
