//! What is true of a container now? A record says what was; whether a process lives is asked of the kernel: its
//! number, its start time and this boot, and for a pause its cgroup. No program is run, no lock is waited for.

use super::record::{Home, Process, Record};
use crate::pid;
use crate::sys;
use anyhow::{Context, Result};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now {
    Created,
    Running,
    Paused,
    /// Ended with that status, and about to be started again.
    Restarting(Option<u8>),
    /// `None`: its monitor was killed, so nobody knows the status.
    Exited(Option<u8>),
}

impl Now {
    /// docker's word.
    pub fn word(&self) -> &'static str {
        match self {
            Now::Created => "created",
            Now::Running => "running",
            Now::Paused => "paused",
            Now::Restarting(_) => "restarting",
            Now::Exited(_) => "exited",
        }
    }

    pub fn is_alive(&self) -> bool {
        matches!(self, Now::Running | Now::Paused)
    }
}

pub fn now(home: &Home, record: &Record) -> Result<Now> {
    if record.finished.is_some() {
        let waits = record.restarting && home.is_monitored(&record.id);
        return Ok(match waits {
            true => Now::Restarting(record.exit),
            false => Now::Exited(record.exit),
        });
    }
    // Made by the runtime is not yet started.
    let Some(process) = record.process.as_ref().filter(|_| record.started.is_some()) else {
        return Ok(Now::Created);
    };
    if process.is_alive()? {
        return Ok(match process.is_frozen() {
            true => Now::Paused,
            false => Now::Running,
        });
    }
    // It may have been recorded between the two looks; else its corpse may tell.
    Ok(match home.load(&record.id)? {
        Some(later) if later.process.as_ref() != Some(process) && later.finished.is_none() => {
            Now::Running
        }
        Some(later) if later.finished.is_some() => Now::Exited(later.exit),
        _ => Now::Exited(process.corpse()),
    })
}

/// `None` where this container has no living process.
pub fn alive(record: &Record) -> Result<Option<OwnedFd>> {
    match &record.process {
        Some(process) => process.open(),
        None => Ok(None),
    }
}

impl Process {
    /// What a runtime has just made.
    pub fn of(pid: i32) -> Result<Process> {
        Ok(Process {
            pid,
            start_time: pid::start_time(pid)?,
            boot: boot()?,
            cgroup: cgroup(pid),
        })
    }

    pub fn is_alive(&self) -> Result<bool> {
        Ok(self.boot == boot()? && pid::is_alive(self.pid, self.start_time)?)
    }

    /// A descriptor of it; `None` when it has ended.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        match self.boot == boot()? {
            true => pid::open(self.pid, self.start_time),
            false => Ok(None),
        }
    }

    fn is_frozen(&self) -> bool {
        let events = self.cgroup_file("cgroup.events");
        events.is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
    }

    /// The text of a file of its cgroup.
    pub fn cgroup_file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.cgroup.as_ref()?.join(name)).ok()
    }

    /// The exit status of a zombie that nobody has waited for (proc_pid_stat(5), field 52).
    fn corpse(&self) -> Option<u8> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        if pid::parse(text.as_bytes())?.start_time != self.start_time {
            return None;
        }
        let status: i32 = text.trim().rsplit(' ').next()?.parse().ok()?;
        Some(match status & 0x7f {
            0 => (status >> 8) as u8,
            signal => 128 + signal as u8,
        })
    }
}

/// Another one after every boot: numbers of processes begin anew.
fn boot() -> Result<String> {
    use std::cell::OnceCell;
    thread_local!(static BOOT: OnceCell<String> = const { OnceCell::new() });
    BOOT.with(|known| {
        if let Some(boot) = known.get() {
            return Ok(boot.clone());
        }
        let path = "/proc/sys/kernel/random/boot_id";
        let boot = fs::read_to_string(path).context(path)?.trim().to_owned();
        Ok(known.get_or_init(|| boot).clone())
    })
}

/// The directory of the cgroup that a process is in, unless it is ours too.
fn cgroup(pid: i32) -> Option<PathBuf> {
    let line = |path: String| {
        let text = fs::read_to_string(path).ok()?;
        let inner = text.lines().find_map(|line| line.strip_prefix("0::/"));
        inner.map(str::to_owned)
    };
    let inner = line(format!("/proc/{pid}/cgroup"))?;
    if line("/proc/self/cgroup".to_owned()).as_ref() == Some(&inner) {
        return None;
    }
    Some(cgroup_mount()?.join(inner))
}

/// Where cgroup2 is mounted: in the usual places, else the first of mountinfo(5) that shows the whole hierarchy.
pub fn cgroup_mount() -> Option<PathBuf> {
    for usual in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        if statfs(usual).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC) {
            return Some(usual.into());
        }
    }
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = text.lines().filter(|line| line.contains(" - cgroup2 "));
    let mut whole = mounts.filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        (fields.next()? == "/").then(|| fields.next())?
    });
    whole.next().map(|path| Path::new(path).to_owned())
}

/// Sends a signal to a container's process; false when it has ended.
pub fn signal(process: &OwnedFd, signal: i32) -> Result<bool> {
    use std::os::fd::AsFd;
    match sys::pidfd::send_signal(process.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(e) if e.errno == nix::errno::Errno::ESRCH => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_in_this_boot_only() {
        let own = Process::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive().unwrap());
        let before = Process {
            boot: "earlier".into(),
            ..own.clone()
        };
        assert!(!before.is_alive().unwrap());
        assert!(before.open().unwrap().is_none());
    }

    #[test]
    fn the_status_of_a_corpse_is_read() {
        for (script, expected) in [("exit 7", 7), ("kill -9 $$", 137)] {
            let mut child = std::process::Command::new("sh")
                .args(["-c", script])
                .spawn()
                .unwrap();
            let process = Process::of(child.id() as i32).unwrap();
            let fd = sys::pidfd::open(process.pid).unwrap();
            use std::os::fd::AsFd;
            sys::pidfd::wait(fd.as_fd(), std::time::Duration::from_secs(60)).unwrap();
            assert_eq!(process.corpse(), Some(expected), "{script}");
            child.wait().unwrap();
        }
    }
}
