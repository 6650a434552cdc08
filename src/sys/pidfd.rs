//! Processes by descriptor (pidfd_open(2), Linux 5.3): a number may be given to another process,
//! a pidfd never is.

use super::error::{Result, retry};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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
