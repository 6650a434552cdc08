//! How is a signal sent? kill(2) with any signal number (nix knows no real-time signals).

use super::error::retry;
use super::{Error, Result};
use nix::errno::Errno;

/// Sends `signal` to the process `pid`. A `pid` that is not positive means a whole group to
/// kill(2), and is refused here as no process (ESRCH).
pub fn send(pid: libc::pid_t, signal: libc::c_int) -> Result<()> {
    let args = || format!("{pid}, {signal}");
    if pid <= 0 {
        return Err(Error::new("kill", args(), Errno::ESRCH));
    }
    retry("kill", args, || {
        // SAFETY: kill(2) takes no pointers.
        libc::c_long::from(unsafe { libc::kill(pid, signal) })
    })
    .map(drop)
}
