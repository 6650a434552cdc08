//! How does a system call filter come into force? seccomp(2): load a program, ask what the kernel
//! supports.

use super::error::retry;
use super::{Error, Result};
use nix::errno::Errno;
use std::os::fd::{FromRawFd, OwnedFd};

/// Puts a filter on the calling thread (with SECCOMP_FILTER_FLAG_TSYNC: on all its process), given
/// as `struct sock_filter`s. Gives the listener with SECCOMP_FILTER_FLAG_NEW_LISTENER.
///
/// Needs no_new_privs or CAP_SYS_ADMIN in the user namespace: EACCES. Where the kernel does not
/// know one of the flags, the error's arguments name it.
pub fn load(program: &[u64], flags: u64) -> Result<Option<OwnedFd>> {
    let args = || {
        format!(
            "SECCOMP_SET_MODE_FILTER, {flags:#x}, {} insns",
            program.len()
        )
    };
    // `len` is 16 bits wide: a program cut by accident must not come into force.
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(Error::new("seccomp", args(), Errno::EINVAL));
    };
    let filter = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let done = retry("seccomp", args, || {
        // SAFETY: `filter` points to `len` instructions of 8 bytes in `program`, which outlives the
        // call; the kernel copies them and does not write.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &filter,
            )
        }
    });
    let done = match done {
        Err(error) if error.errno == Errno::EINVAL => return Err(named(error, flags)),
        done => done?,
    };
    if flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER, seccomp(2) gives a new descriptor, close-on-exec, that nobody owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(done as i32) }))
}

/// Adds to a refusal which flag the kernel does not know, if that is why.
fn named(error: Error, flags: u64) -> Error {
    let lost = flags & !supported_flags();
    if lost == 0 {
        return error;
    }
    let args = format!("{}, flags {lost:#x} not known to this kernel", error.args);
    Error::new(error.call, args, error.errno)
}

/// The SECCOMP_FILTER_FLAG_* that this kernel knows; none without CONFIG_SECCOMP_FILTER.
pub fn supported_flags() -> u64 {
    const ALONE: [u64; 4] = [
        libc::SECCOMP_FILTER_FLAG_TSYNC,
        libc::SECCOMP_FILTER_FLAG_LOG,
        libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ];
    // These two are refused without the flag they qualify.
    const WITH: [(u64, u64); 2] = [
        (
            libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
        ),
        (
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        ),
    ];
    let alone = ALONE.into_iter().filter(|flag| knows_flags(*flag));
    let with = WITH
        .into_iter()
        .filter(|(flag, other)| knows_flags(flag | other));
    alone
        .chain(with.map(|(flag, _)| flag))
        .fold(0, |all, flag| all | flag)
}

/// Flags are checked before the program is read: a null program is EFAULT when they are good.
fn knows_flags(flags: u64) -> bool {
    // SAFETY: the kernel reads the null pointer through copy_from_user and fails with EFAULT.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    done < 0 && Errno::last() == Errno::EFAULT
}

/// Whether this kernel knows an action, SECCOMP_RET_* without data (Linux 4.14).
pub fn knows_action(action: u32) -> bool {
    // SAFETY: the kernel reads four bytes of `action`, which outlives the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &action as *const u32,
        )
    };
    done == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct sock_filter`.
    fn instruction(code: u16, if_true: u8, k: u32) -> u64 {
        let ([a, b], [e, f, g, h]) = (code.to_ne_bytes(), k.to_ne_bytes());
        u64::from_ne_bytes([a, b, if_true, 0, e, f, g, h])
    }

    /// ld nr; jeq CALL; ret ALLOW; ret VERDICT
    fn verdict_on(call: libc::c_long, verdict: u32) -> [u64; 4] {
        [
            instruction(0x20, 0, 0),
            instruction(0x15, 1, call as u32),
            instruction(0x06, 0, libc::SECCOMP_RET_ALLOW),
            instruction(0x06, 0, verdict),
        ]
    }

    /// On a thread of its own, as there is no way back.
    fn confined<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sys::prctl::set_no_new_privs().expect("no_new_privs");
                act()
            });
            thread.join().expect("a thread")
        })
    }

    #[test]
    fn a_loaded_program_decides_over_this_threads_calls() {
        let program = verdict_on(libc::SYS_getpgid, libc::SECCOMP_RET_ERRNO | 77);
        let (listener, refused) = confined(|| {
            let listener = load(&program, 0).expect("load");
            (listener.is_some(), nix::unistd::getpgid(None))
        });
        assert!(!listener);
        assert_eq!(refused, Err(Errno::from_raw(77)));
        assert!(nix::unistd::getpgid(None).is_ok());
    }

    #[test]
    fn a_listener_is_close_on_exec() {
        let program = verdict_on(libc::SYS_getpgid, libc::SECCOMP_RET_USER_NOTIF);
        let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let listener = confined(|| load(&program, flags)).expect("load");
        let listener = listener.expect("a listener");
        let flags = nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_GETFD).expect("F_GETFD");
        assert_eq!(flags, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_flag_the_kernel_does_not_know_is_named() {
        let program = verdict_on(libc::SYS_getpgid, libc::SECCOMP_RET_ALLOW);
        let error = confined(|| load(&program, 1 << 30 | 4)).expect_err("no such flag");
        assert_eq!(
            error.to_string(),
            "seccomp(SECCOMP_SET_MODE_FILTER, 0x40000004, 4 insns, flags 0x40000000 not known to this \
             kernel): invalid argument"
        );
    }

    #[test]
    fn a_program_of_more_than_16_bits_is_not_cut() {
        let program = vec![instruction(0x06, 0, libc::SECCOMP_RET_ALLOW); 65537];
        let error = confined(|| load(&program, 0)).expect_err("too long");
        assert_eq!(error.errno, Errno::EINVAL);
    }

    #[test]
    fn the_kernel_knows_what_every_supported_one_knows() {
        // All since Linux 5.0.
        let old = libc::SECCOMP_FILTER_FLAG_TSYNC
            | libc::SECCOMP_FILTER_FLAG_LOG
            | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        assert_eq!(supported_flags() & old, old);
        assert!(knows_action(libc::SECCOMP_RET_USER_NOTIF));
        assert!(!knows_action(0x1234_0000));
    }
}
