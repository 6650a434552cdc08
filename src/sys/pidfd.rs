//! Processes by descriptor (pidfd_open(2), Linux 5.3): a number may be given to another process,
//! a pidfd never is.

use super::error::{Error, Result, retry};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A descriptor of process `pid`. ESRCH: there is none.
pub fn open(pid: i32) -> Result<OwnedFd> {
    let fd = retry(
        "pidfd_open",
        || pid.to_string(),
        // SAFETY: no pointers. The kernel sets close-on-exec itself.
        || unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) },
    )?;
    // SAFETY: the call gave a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The number of the process, as this process's /proc shows it (pidfd fdinfo, `Pid:`).
pub fn pid_of(pidfd: BorrowedFd) -> Result<i32> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let refused = |errno| super::Error::new("read", path.clone(), errno);
    let text = std::fs::read_to_string(&path).map_err(|_| refused(nix::errno::Errno::EIO))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .ok_or_else(|| refused(nix::errno::Errno::ESRCH))
}

/// setns(2) with a pidfd (Linux 5.8): enters those namespaces of the process that `kinds`
/// (CLONE_NEW*) names, all or none. A pid namespace is entered by the caller's next children.
pub fn enter(process: BorrowedFd, kinds: u64) -> Result<()> {
    retry(
        "setns",
        || format!("pidfd {}, {kinds:#x}", process.as_raw_fd()),
        // SAFETY: numbers only.
        || unsafe { libc::setns(process.as_raw_fd(), kinds as libc::c_int) as libc::c_long },
    )
    .map(drop)
}

/// pidfd_send_signal(2). ESRCH: the process has ended and was waited for.
pub fn send_signal(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    retry(
        "pidfd_send_signal",
        || format!("{}, signal {signal}", pidfd.as_raw_fd()),
        // SAFETY: a null siginfo makes the kernel fill it in as kill(2) does.
        || unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        },
    )
    .map(drop)
}

/// Waits until the process has ended (a zombie has), at most `limit`; false when it has not.
pub fn wait(process: BorrowedFd, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a remainder below a millisecond must not become a busy loop.
        let left = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(errno) => {
                let args = format!("[{}, POLLIN], {left}", process.as_raw_fd());
                return Err(Error::new("poll", args, errno));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn an_ended_child_is_seen_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = open(child.id() as i32).unwrap();
        assert!(!wait(process.as_fd(), Duration::ZERO).unwrap());
        send_signal(process.as_fd(), 0).unwrap();
        send_signal(process.as_fd(), libc::SIGKILL).unwrap();
        assert!(wait(process.as_fd(), Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        let refused = send_signal(process.as_fd(), 0).unwrap_err();
        assert_eq!(refused.errno, Errno::ESRCH);
    }
}
