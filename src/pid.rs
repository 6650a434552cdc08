//! Is the process with a recorded number still the one that was recorded? Numbers are reused, so
//! no process is signalled by number: a pidfd is opened first, and then the start time compared
//! (what has the number at that moment is what the pidfd means, or came later).

use crate::sys;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// What proc_pid_stat(5) says of a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 3: `Z` is a zombie, `X` is dead.
    pub state: u8,
    /// Field 22: clock ticks after boot.
    pub start_time: u64,
}

/// When process `pid` was started, in clock ticks after boot (field 22 of /proc/PID/stat).
pub fn start_time(pid: i32) -> Result<u64> {
    match stat(pid)? {
        Some(stat) => Ok(stat.start_time),
        None => bail!("process {pid} has ended"),
    }
}

/// Does the process that was started at `start_time` still run? A zombie does not.
pub fn is_alive(pid: i32, start_time: u64) -> Result<bool> {
    Ok(stat(pid)?
        .is_some_and(|now| now.start_time == start_time && !matches!(now.state, b'Z' | b'X')))
}

/// A pidfd of the process that was started at `start_time`; `None` when it has ended.
pub fn open(pid: i32, start_time: u64) -> Result<Option<OwnedFd>> {
    if pid <= 0 {
        return Ok(None);
    }
    let process = match sys::pidfd::open(pid) {
        Ok(process) => process,
        Err(e) if e.errno == Errno::ESRCH => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    Ok(is_alive(pid, start_time)?.then_some(process))
}

fn stat(pid: i32) -> Result<Option<Stat>> {
    if pid <= 0 {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/stat");
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("open {path}")),
    };
    let text = match sys::file::read_rest(file.as_fd()) {
        Ok(text) => text,
        // It was reaped between open and read.
        Err(e) if e.errno == Errno::ESRCH => return Ok(None),
        Err(e) => return Err(e).with_context(|| path),
    };
    match parse(&text) {
        Some(stat) => Ok(Some(stat)),
        None => bail!("{path}: not as proc_pid_stat(5) has it"),
    }
}

/// The text of a /proc/PID/stat; `None` where it is not as proc_pid_stat(5) has it.
pub fn parse(text: &[u8]) -> Option<Stat> {
    // The name, field 2, is the program's to choose: it may hold spaces and parentheses.
    let after_name = text.iter().rposition(|b| *b == b')')? + 1;
    let mut fields = text[after_name..].split(|b| *b == b' ').skip(1);
    let state = *fields.next()?.first()?;
    let start_time = std::str::from_utf8(fields.nth(18)?).ok()?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_cannot_forge_its_state() {
        let line = b"7 (evil) Z 1 (x) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3\n";
        assert_eq!(
            parse(line),
            Some(Stat {
                state: b'S',
                start_time: 987_654
            })
        );
    }

    #[test]
    fn a_short_line_is_no_stat() {
        for line in [&b""[..], b"7 (a", b"7 (a) S 1 2 3", b"7 (a)"] {
            assert_eq!(parse(line), None);
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let me = std::process::id() as i32;
        let started = start_time(me).unwrap();
        assert!(is_alive(me, started).unwrap());
        assert!(open(me, started).unwrap().is_some());
        assert!(!is_alive(me, started + 1).unwrap());
        assert!(open(me, started + 1).unwrap().is_none());
        assert!(open(0, 0).unwrap().is_none());
    }

    #[test]
    fn a_zombie_has_ended() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let started = start_time(pid).unwrap();
        let process = sys::pidfd::open(pid).unwrap();
        sys::pidfd::wait(process.as_fd(), std::time::Duration::from_secs(60)).unwrap();
        assert!(!is_alive(pid, started).unwrap());
        child.wait().unwrap();
        assert!(start_time(pid).is_err());
    }
}
