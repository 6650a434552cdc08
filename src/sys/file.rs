//! Files and directories by descriptor: locks (flock(2)), a rename that replaces nothing
//! (renameat2(2)), and a read that asks no more than needed.

use super::error::{Error, Result, retry};
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

fn flock(fd: BorrowedFd, operation: i32, name: &'static str) -> Result<()> {
    retry(
        "flock",
        || format!("{}, {name}", fd.as_raw_fd()),
        // SAFETY: numbers only.
        || unsafe { libc::flock(fd.as_raw_fd(), operation) as libc::c_long },
    )
    .map(drop)
}

/// Takes the exclusive lock of an open file if nobody has it; false when somebody has.
pub fn try_lock(fd: BorrowedFd) -> Result<bool> {
    attempt(flock(fd, libc::LOCK_EX | libc::LOCK_NB, "LOCK_EX|LOCK_NB"))
}

/// Takes a shared lock if nobody has the exclusive one; false when somebody has.
pub fn try_lock_shared(fd: BorrowedFd) -> Result<bool> {
    attempt(flock(fd, libc::LOCK_SH | libc::LOCK_NB, "LOCK_SH|LOCK_NB"))
}

fn attempt(taken: Result<()>) -> Result<bool> {
    match taken {
        Ok(()) => Ok(true),
        Err(e) if e.errno == Errno::EWOULDBLOCK => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits for the exclusive lock.
pub fn lock(fd: BorrowedFd) -> Result<()> {
    flock(fd, libc::LOCK_EX, "LOCK_EX")
}

/// Waits for a shared lock.
pub fn lock_shared(fd: BorrowedFd) -> Result<()> {
    flock(fd, libc::LOCK_SH, "LOCK_SH")
}

/// Gives the lock back, for every copy of the descriptor: a clone(2) shares the lock, and closing
/// one copy leaves it with the others.
pub fn unlock(fd: BorrowedFd) -> Result<()> {
    flock(fd, libc::LOCK_UN, "LOCK_UN")
}

/// renameat2(2) with RENAME_NOREPLACE inside one directory: EEXIST when `to` is there already.
pub fn rename_new(dir: BorrowedFd, from: &CStr, to: &CStr) -> Result<()> {
    retry(
        "renameat2",
        || format!("{from:?}, {to:?}, RENAME_NOREPLACE"),
        // SAFETY: both names are NUL-terminated and outlive the call.
        || unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                dir.as_raw_fd(),
                from.as_ptr(),
                dir.as_raw_fd(),
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        },
    )
    .map(drop)
}

/// fsetxattr(2): gives the file behind `fd` an extended attribute.
pub fn set_attribute(fd: BorrowedFd, name: &CStr, value: &[u8]) -> Result<()> {
    retry(
        "fsetxattr",
        || format!("{name:?}, {:?}", String::from_utf8_lossy(value)),
        // SAFETY: `name` is NUL-terminated, `value` is as long as said, and both outlive the call.
        || unsafe {
            libc::fsetxattr(
                fd.as_raw_fd(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            ) as libc::c_long
        },
    )
    .map(drop)
}

/// All that is left to read of a regular file, or of a file of procfs or cgroupfs below 8 KiB.
/// A read that does not fill the buffer was the last one: std's `read_to_end` asks for the size,
/// the position, and once more for the end.
pub fn read_rest(fd: BorrowedFd) -> Result<Vec<u8>> {
    let mut content = vec![0; 8192];
    let mut filled = 0;
    loop {
        match nix::unistd::read(fd, &mut content[filled..]) {
            Ok(n) => {
                filled += n;
                if filled < content.len() {
                    content.truncate(filled);
                    return Ok(content);
                }
                content.resize(2 * filled, 0);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::new("read", fd.as_raw_fd().to_string(), errno)),
        }
    }
}

/// The id of the mount whose root `fd` refers to (statx(2), STATX_MNT_ID, Linux 5.8); `None` where it refers to
/// something inside a mount.
pub fn mount_root(fd: BorrowedFd) -> Result<Option<u64>> {
    // SAFETY: statx is plain data, for which all zeroes is a value.
    let mut seen: libc::statx = unsafe { std::mem::zeroed() };
    retry(
        "statx",
        || fd.as_raw_fd().to_string(),
        // SAFETY: the path is NUL-terminated and empty, the result as large as the kernel writes.
        || unsafe {
            libc::statx(
                fd.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                libc::STATX_MNT_ID,
                &raw mut seen,
            ) as libc::c_long
        },
    )?;
    let is_root = seen.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0;
    Ok(is_root.then_some(seen.stx_mnt_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_of_any_size_is_read_whole() {
        for size in [0, 1, 8191, 8192, 8193, 100_000] {
            let file = tempfile(size);
            assert_eq!(read_rest(file.as_fd()).unwrap().len(), size, "{size}");
        }
    }

    fn tempfile(size: usize) -> std::fs::File {
        use std::io::{Seek, Write};
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let mut file = std::fs::File::from(nix::sys::memfd::memfd_create("t", flags).unwrap());
        file.write_all(&vec![b'x'; size]).unwrap();
        file.rewind().unwrap();
        file
    }
}
