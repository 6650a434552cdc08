//! What the kernel tells of namespaces by descriptor (ioctl_ns(2)).

use super::error::{Result, retry};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `_IO(0xb7, 2)` of linux/nsfs.h
const NS_GET_PARENT: libc::c_ulong = 0xb702;

/// The user or pid namespace that one is in. EPERM: it is outside of the caller's own.
pub fn parent(namespace: BorrowedFd) -> Result<OwnedFd> {
    let fd = retry(
        "ioctl",
        || format!("{}, NS_GET_PARENT", namespace.as_raw_fd()),
        // SAFETY: it takes no argument; the descriptor that it gives is close-on-exec (open_related_ns, Linux 4.9).
        || unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT as _) as libc::c_long },
    )?;
    // SAFETY: the call gave a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
