//! What is at a path of a container? Resolved by the kernel inside its root (openat2(2), RESOLVE_IN_ROOT), and a
//! descriptor from then on: no link of the container leads out of it, whoever changes it meanwhile.

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// Opens `path` below `root`; links are followed as the container's processes would.
pub fn open(root: BorrowedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    // Else an absolute path would be one; and nothing at all is the root.
    let below = path.strip_prefix("/").unwrap_or(path);
    let below = match below.as_os_str().is_empty() {
        true => Path::new("."),
        false => below,
    };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(root, below, how) {
            // A rename on the way: the kernel could not be sure, and asks to be asked again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
}
