//! Processes by descriptor (pidfd_open(2), Linux 5.3): a number may be given to another process,
//! a pidfd never is.

use super::error::{Result, retry};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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
