//! Extended attributes (xattr(7)), of what is open and of what may not be opened.
//!
//! No call sets one relative to a directory before setxattrat(2) (Linux 6.13), so a name in an open
//! directory is reached through /proc/self/fd, which resolves to that directory wherever it is now.

use super::error::{Error, Result, retry};
use nix::errno::Errno;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

/// fsetxattr(2)
pub fn set(fd: BorrowedFd, name: &[u8], value: &[u8]) -> Result<()> {
    let c_name = c("fsetxattr", name)?;
    let args = || format!("{}, {:?}", fd.as_raw_fd(), String::from_utf8_lossy(name));
    retry("fsetxattr", args, || {
        // SAFETY: the name is NUL-terminated, the value as long as is said; both outlive the call.
        unsafe {
            libc::fsetxattr(
                fd.as_raw_fd(),
                c_name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
            .into()
        }
    })
    .map(drop)
}

/// fremovexattr(2)
pub fn remove(fd: BorrowedFd, name: &[u8]) -> Result<()> {
    let c_name = c("fremovexattr", name)?;
    let args = || format!("{}, {:?}", fd.as_raw_fd(), String::from_utf8_lossy(name));
    retry("fremovexattr", args, || {
        // SAFETY: the name is NUL-terminated and outlives the call.
        unsafe { libc::fremovexattr(fd.as_raw_fd(), c_name.as_ptr()).into() }
    })
    .map(drop)
}

/// lsetxattr(2) of `entry` in an open directory: the link itself, not where it leads.
pub fn set_at(dir: BorrowedFd, entry: &[u8], name: &[u8], value: &[u8]) -> Result<()> {
    let (path, c_name) = (path(dir, entry)?, c("lsetxattr", name)?);
    let args = || format!("{path:?}, {:?}", String::from_utf8_lossy(name));
    retry("lsetxattr", args, || {
        // SAFETY: both names are NUL-terminated, the value as long as is said; all outlive the call.
        unsafe {
            libc::lsetxattr(
                path.as_ptr(),
                c_name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                0,
            )
            .into()
        }
    })
    .map(drop)
}

/// lgetxattr(2) of `entry` in an open directory; an empty `entry` is the directory itself. `None`: it has none.
pub fn get_at(dir: BorrowedFd, entry: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>> {
    let (path, c_name) = (path(dir, entry)?, c("lgetxattr", name)?);
    let args = || format!("{path:?}, {:?}", String::from_utf8_lossy(name));
    let read = |buffer: &mut [u8]| {
        retry("lgetxattr", args, || {
            // SAFETY: both names are NUL-terminated, the buffer as long as is said; all outlive the call.
            unsafe {
                let (at, size) = (buffer.as_mut_ptr().cast(), buffer.len());
                libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), at, size) as libc::c_long
            }
        })
    };
    match grown(read) {
        Err(e) if matches!(e.errno, Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        other => other.map(Some),
    }
}

/// llistxattr(2) of `entry` in an open directory; an empty `entry` is the directory itself. Where there
/// are none to be had, none.
pub fn list_at(dir: BorrowedFd, entry: &[u8]) -> Result<Vec<Vec<u8>>> {
    let path = path(dir, entry)?;
    let read = |buffer: &mut [u8]| {
        retry(
            "llistxattr",
            || format!("{path:?}"),
            || {
                // SAFETY: the path is NUL-terminated, the buffer as long as is said; both outlive the call.
                unsafe {
                    let (at, size) = (buffer.as_mut_ptr().cast(), buffer.len());
                    libc::llistxattr(path.as_ptr(), at, size) as libc::c_long
                }
            },
        )
    };
    let names = match grown(read) {
        Err(e) if e.errno == Errno::ENOTSUP => return Ok(Vec::new()),
        other => other?,
    };
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// Reads into a buffer that is made larger until it is enough.
fn grown(mut read: impl FnMut(&mut [u8]) -> Result<libc::c_long>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n as usize);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit (XATTR_SIZE_MAX, XATTR_LIST_MAX).
            Err(e) if e.errno == Errno::ERANGE && buffer.len() < 1 << 17 => {
                buffer.resize(buffer.len() * 8, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

fn path(dir: BorrowedFd, entry: &[u8]) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}", dir.as_raw_fd()).into_bytes();
    // With the slash the magic link is followed, also by calls that follow no link at the end.
    path.push(b'/');
    path.extend_from_slice(if entry.is_empty() { b"." } else { entry });
    c("open", &path)
}

fn c(call: &'static str, text: &[u8]) -> Result<CString> {
    let refused = |_| {
        Error::new(
            call,
            format!("{:?}", String::from_utf8_lossy(text)),
            Errno::EINVAL,
        )
    };
    CString::new(text).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn attributes_are_set_listed_read_and_removed() {
        let dir = std::env::temp_dir().join(format!("sc-xattr-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let open = std::fs::File::open(&dir).unwrap();
        let value = vec![b'v'; 3000];
        match set(open.as_fd(), b"user.sc", &value) {
            Err(e) if e.errno == Errno::ENOTSUP => eprintln!("no xattrs in {}", dir.display()),
            set => {
                set.unwrap();
                std::fs::write(dir.join("f"), "").unwrap();
                set_at(open.as_fd(), b"f", b"user.f", b"").unwrap();
                assert_eq!(get_at(open.as_fd(), b"", b"user.sc").unwrap(), Some(value));
                assert_eq!(get_at(open.as_fd(), b"f", b"user.f").unwrap(), Some(vec![]));
                assert_eq!(get_at(open.as_fd(), b"f", b"user.g").unwrap(), None);
                assert!(
                    list_at(open.as_fd(), b"f")
                        .unwrap()
                        .contains(&b"user.f".to_vec())
                );
                remove(open.as_fd(), b"user.sc").unwrap();
                assert_eq!(get_at(open.as_fd(), b"", b"user.sc").unwrap(), None);
            }
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
