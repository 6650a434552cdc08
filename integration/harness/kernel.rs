//! The bare system calls the tests need and nix does not give them. The only `unsafe` beside
//! `tracer.rs`; each function is the call and nothing more.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a fresh descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Waits until the process behind a pidfd has ended. False when the time ran out first.
pub fn ended_within(pidfd: BorrowedFd, limit: Duration) -> io::Result<bool> {
    readable_within(pidfd, limit)
}

pub fn readable_within(fd: BorrowedFd, limit: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    loop {
        // SAFETY: `poll` is one valid pollfd for the length of the call.
        let ready = unsafe { libc::poll(&mut poll, 1, limit.as_millis() as i32) };
        match check(ready.into()) {
            Ok(n) => return Ok(n > 0),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Leaves the caller (alone in its process, no threads yet) in a mount namespace of its own.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

pub fn mount(
    source: &str,
    target: &Path,
    fstype: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, fstype, data) = (
        CString::new(source)?,
        CString::new(fstype)?,
        CString::new(data)?,
    );
    let target = c_path(target)?;
    // SAFETY: four C strings that outlive the call.
    let rc = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fstype.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    check(rc.into())
        .map(drop)
        .map_err(|e| io::Error::new(e.kind(), format!("mount {target:?}: {e}")))
}

pub fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: a C string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }.into()).map(drop)
}

pub fn mkfifo(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a C string that outlives the call.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }.into()).map(drop)
}

pub fn mknod_char(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a C string that outlives the call.
    let rc = unsafe {
        libc::mknod(
            path.as_ptr(),
            libc::S_IFCHR | 0o666,
            libc::makedev(major, minor),
        )
    };
    check(rc.into()).map(drop)
}

/// The descriptor number a child shall see: for use after fork and before exec.
pub fn dup_to(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: no pointers. `to` is below every descriptor the test process holds for itself,
    // and this runs in the forked child only.
    unsafe {
        if from == to {
            return check(libc::fcntl(from, libc::F_SETFD, 0).into()).map(drop);
        }
        check(libc::dup2(from, to).into()).map(drop)
    }
}

/// A copy of a descriptor out of the way of the low numbers that tests hand to a runtime.
pub fn dup_above(fd: BorrowedFd, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a fresh descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// write(2), usable between fork and exec.
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: a valid slice.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as libc::c_long).map(drop)
}

pub fn prctl(option: i32, value: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: only options that take a number are used.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into()).map(|n| n as i32)
}

/// One descriptor and the bytes that came with it, from a SOCK_STREAM socket.
pub fn receive_fd(socket: BorrowedFd) -> io::Result<(OwnedFd, Vec<u8>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};
    let mut bytes = [0u8; 4096];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let (fds, len) = {
        let mut iov = [io::IoSliceMut::new(&mut bytes)];
        let got: RecvMsg<()> = recvmsg(
            socket.as_raw_fd(),
            &mut iov,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        let mut fds = Vec::new();
        for message in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(sent) = message {
                fds.extend(sent);
            }
        }
        (fds, got.bytes)
    };
    match fds[..] {
        // SAFETY: the kernel has just put this descriptor into our table for us.
        [fd] => Ok((unsafe { OwnedFd::from_raw_fd(fd) }, bytes[..len].to_vec())),
        _ => Err(io::Error::other(format!(
            "{} descriptors in the message, not one",
            fds.len()
        ))),
    }
}

pub fn window_size(fd: RawFd) -> Option<(u16, u16)> {
    // SAFETY: a winsize is plain numbers, and the ioctl writes exactly one.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) == 0).then_some((size.ws_row, size.ws_col))
    }
}

pub fn set_window_size(fd: RawFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl reads exactly one winsize.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &size) }.into()).map(drop)
}

pub fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: no pointers.
    unsafe { libc::isatty(fd) == 1 }
}

/// struct sched_attr of sched_setattr(2).
#[repr(C)]
#[derive(Default, Debug)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

pub fn sched_getattr() -> io::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into `attr`.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &mut attr, size, 0) })?;
    Ok(attr)
}

/// Class and level of ioprio_set(2).
pub fn ioprio() -> io::Result<(i64, i64)> {
    // SAFETY: no pointers. 1 is IOPRIO_WHO_PROCESS.
    let value = check(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) })?;
    Ok((value >> 13, value & 0x1fff))
}

pub fn personality() -> i32 {
    // SAFETY: no pointers; 0xffffffff only asks.
    unsafe { libc::personality(0xffff_ffff) }
}

/// Mode and the first word of the node mask of get_mempolicy(2).
pub fn mempolicy() -> io::Result<(i32, u64)> {
    let (mut mode, mut nodes) = (0i32, [0u64; 16]);
    // SAFETY: room for an int and for 1024 bits, as the call is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &mut mode,
            nodes.as_mut_ptr(),
            1024,
            0,
            0,
        )
    })?;
    Ok((mode, nodes[0]))
}

pub fn rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit. The type of `resource` differs between C libraries.
    check(unsafe { libc::getrlimit(resource as _, &mut limit) }.into())?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Seconds since boot as the calling process's time namespace counts them.
pub fn boot_seconds() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    time.tv_sec
}

/// The IFF_ flags of a network interface of the calling process's namespace.
pub fn interface_flags(name: &str) -> io::Result<i32> {
    interface(name, 0)
}

/// Sets IFF_ flags of it.
pub fn add_interface_flags(name: &str, flags: i32) -> io::Result<()> {
    interface(name, flags).map(drop)
}

/// Its flags, once `add` is among them.
fn interface(name: &str, add: i32) -> io::Result<i32> {
    // SAFETY: an ifreq is plain bytes, the name fits with its terminator; one ioctl fills it, the other reads it.
    unsafe {
        let socket =
            check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())?;
        let socket = OwnedFd::from_raw_fd(socket as RawFd);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().take(15).zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request).into())?;
        let before = request.ifr_ifru.ifru_flags;
        let after = before | add as libc::c_short;
        if after != before {
            request.ifr_ifru.ifru_flags = after;
            check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request).into())?;
        }
        Ok(after.into())
    }
}

/// Takes a message from the System V queue of the calling process's IPC namespace, or makes it.
pub fn make_message_queue(key: i32) -> io::Result<i32> {
    // SAFETY: no pointers.
    check(unsafe { libc::msgget(key, libc::IPC_CREAT | 0o600) }.into()).map(|id| id as i32)
}

/// struct seccomp_notif of seccomp_unotify(2): a system call that waits for an agent.
#[repr(C)]
#[derive(Default, Debug)]
pub struct Question {
    pub id: u64,
    pub pid: u32,
    pub flags: u32,
    pub number: i32,
    pub arch: u32,
    pub instruction: u64,
    pub args: [u64; 6],
}

/// struct seccomp_notif_resp.
#[repr(C)]
pub struct Answer {
    pub id: u64,
    pub value: i64,
    /// Negated, or 0.
    pub error: i32,
    /// 1: go on with the call as it is.
    pub flags: u32,
}

/// The next question of a seccomp listener; EINTR is the caller's.
pub fn seccomp_receive(listener: BorrowedFd) -> io::Result<Question> {
    const SECCOMP_IOCTL_NOTIF_RECV: u64 = 0xc050_2100;
    let mut question = Question::default();
    // SAFETY: the kernel writes one seccomp_notif, 80 bytes as the number of the ioctl says.
    check(
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                SECCOMP_IOCTL_NOTIF_RECV as _,
                &mut question,
            )
        }
        .into(),
    )?;
    Ok(question)
}

pub fn seccomp_answer(listener: BorrowedFd, mut answer: Answer) -> io::Result<()> {
    const SECCOMP_IOCTL_NOTIF_SEND: u64 = 0xc018_2101;
    // SAFETY: the kernel reads one seccomp_notif_resp, 24 bytes.
    check(
        unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                SECCOMP_IOCTL_NOTIF_SEND as _,
                &mut answer,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Gives up root and its groups, for ever; usable between fork and exec.
pub fn become_user(user: u32) -> io::Result<()> {
    // SAFETY: no groups are read; the others take numbers. The calls are the kernel's own, for this
    // thread alone: between fork and exec there is no other.
    unsafe {
        check(libc::syscall(
            libc::SYS_setgroups,
            0,
            std::ptr::null::<u32>(),
        ))?;
        check(libc::syscall(libc::SYS_setresgid, user, user, user))?;
        check(libc::syscall(libc::SYS_setresuid, user, user, user)).map(drop)
    }
}

static COUNTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

extern "C" fn count(_signal: libc::c_int) {
    COUNTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// Counts this signal from here on; calls that it interrupts go on (SA_RESTART).
pub fn count_signals(signal: i32) {
    // SAFETY: all zeroes is a sigaction; the handler does nothing but an atomic addition.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

pub fn counted_signals() -> u32 {
    COUNTED.load(std::sync::atomic::Ordering::Relaxed)
}

/// Exchanges two names in one step (renameat2(2), RENAME_EXCHANGE).
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let (one, other) = (c_path(one)?, c_path(other)?);
    // SAFETY: two C strings that outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    })
    .map(drop)
}

/// A filter that makes these system calls answer ENOSYS, as a kernel does that is older than they.
pub fn without_calls(numbers: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let mut program = vec![libc::sock_filter {
        code: 0x20, // load the number
        jt: 0,
        jf: 0,
        k: 0,
    }];
    for number in numbers {
        program.push(libc::sock_filter {
            code: 0x15, // equal: the next instruction, else the one after it
            jt: 0,
            jf: 1,
            k: *number as u32,
        });
        program.push(libc::sock_filter {
            code: 0x06,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        });
    }
    program.push(libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    });
    program
}

/// Puts such a filter on this process, for ever; usable between fork and exec.
pub fn filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions, which outlive the call.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) }.into())
        .map(drop)
}

/// The security label of the session keyring (keyctl(2), KEYCTL_GET_SECURITY).
pub fn keyring_label() -> io::Result<String> {
    const KEYCTL_GET_SECURITY: libc::c_int = 17;
    const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;
    let mut label = [0u8; 256];
    // SAFETY: the kernel writes at most as many bytes as it is told, with a NUL byte among them.
    let length = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_GET_SECURITY,
            KEY_SPEC_SESSION_KEYRING,
            label.as_mut_ptr(),
            label.len(),
        )
    })?;
    let label = &label[..(length as usize).min(label.len())];
    Ok(String::from_utf8_lossy(label)
        .trim_end_matches('\0')
        .to_owned())
}
