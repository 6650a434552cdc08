//! Terminals: ioctl_tty(2) on a devpts(5) pair, and the loopback interface's one ioctl.

use super::error::{Error, Result, retry};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn ioctl(name: &'static str, fd: BorrowedFd, request: libc::Ioctl, arg: usize) -> Result<i32> {
    retry(
        "ioctl",
        || format!("{}, {name}", fd.as_raw_fd()),
        // SAFETY: callers in this file pass a number, or a pointer to what `request` expects.
        || unsafe { libc::ioctl(fd.as_raw_fd(), request, arg) as libc::c_long },
    )
    .map(|r| r as i32)
}

/// Unlocks the slave of `master` and opens it through the master, by no path (TIOCGPTPEER:
/// CVE-2025-52565).
pub fn open_slave(master: BorrowedFd) -> Result<OwnedFd> {
    let unlock: libc::c_int = 0;
    ioctl(
        "TIOCSPTLCK",
        master,
        libc::TIOCSPTLCK,
        &raw const unlock as usize,
    )?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let fd = ioctl("TIOCGPTPEER", master, libc::TIOCGPTPEER, flags as usize)?;
    // SAFETY: the call gave a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Makes `slave` the controlling terminal of this session.
pub fn set_controlling(slave: BorrowedFd) -> Result<()> {
    ioctl("TIOCSCTTY", slave, libc::TIOCSCTTY, 0).map(drop)
}

pub fn set_size(tty: BorrowedFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    ioctl(
        "TIOCSWINSZ",
        tty,
        libc::TIOCSWINSZ,
        &raw const size as usize,
    )
    .map(drop)
}

/// (rows, columns)
pub fn size(tty: BorrowedFd) -> Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    ioctl("TIOCGWINSZ", tty, libc::TIOCGWINSZ, &raw mut size as usize)?;
    Ok((size.ws_row, size.ws_col))
}

/// Brings the loopback interface of this network namespace up (netdevice(7), SIOCSIFFLAGS).
pub fn loopback_up() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|e| Error::new("socket", "AF_INET, SOCK_DGRAM", e))?;
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    retry(
        "ioctl",
        || "lo, SIOCSIFFLAGS, IFF_UP".to_owned(),
        // SAFETY: `request` is a whole ifreq that outlives the call.
        || unsafe {
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) as libc::c_long
        },
    )
    .map(drop)
}
