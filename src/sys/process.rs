//! Processes: clone3(2), prctl(2), capset(2), execveat(2) and what else is set between them.

use super::error::{Call, Error, Result, retry};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Who returns from [`clone`].
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Bit 33; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) without shared memory, like fork(2): in the namespaces `new` (CLONE_NEW*; or with
/// CLONE_FILES: one table of descriptors for both), and in the cgroup that `cgroup` is a directory of
/// (Linux 5.7), with a pidfd. `sibling` makes the child one of the caller's parent (CLONE_PARENT).
pub fn clone(new: u64, cgroup: Option<BorrowedFd>, sibling: bool) -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut flags = new | libc::CLONE_PIDFD as u64;
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if sibling {
        flags |= libc::CLONE_PARENT as u64;
    }
    // SAFETY: clone_args is plain data, for which all zeroes is a value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    // A sibling's exit signal is that of the caller: the kernel wants none named.
    args.exit_signal = if sibling { 0 } else { libc::SIGCHLD as u64 };
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    let pid = retry(
        "clone3",
        || format!("flags {flags:#x}"),
        || {
            // SAFETY: `args` and `pidfd` outlive the call; without CLONE_VM the child runs on its own
            // copy of this stack, and this program has a single thread, so no lock is left held.
            unsafe {
                libc::syscall(
                    libc::SYS_clone3,
                    &raw const args,
                    size_of::<libc::clone_args>(),
                )
            }
        },
    )?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    Ok(Cloned::Parent {
        pid: pid as i32,
        // SAFETY: CLONE_PIDFD has put a new descriptor there, which nobody else owns.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
    })
}

/// Makes a process in new namespaces (CLONE_NEW*), lets `act` open or fill them by its number, and ends it.
pub fn hold<T>(new: u64, act: impl FnOnce(i32) -> T) -> Result<T> {
    let (wait, hold) = nix::unistd::pipe2(OFlag::O_CLOEXEC).call("pipe2", String::new)?;
    match clone(new, None, false)? {
        Cloned::Child => {
            // Until the parent has closed its end, or died.
            drop(hold);
            let _ = nix::unistd::read(&wait, &mut [0]);
            exit_now(0)
        }
        Cloned::Parent { pid, .. } => {
            let done = act(pid);
            drop(hold);
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::wait::waitpid(pid, None).call("waitpid", || pid.to_string())?;
            Ok(done)
        }
    }
}

fn prctl(name: &'static str, option: i32, a: u64, b: u64) -> Result<i32> {
    retry(
        "prctl",
        || format!("{name}, {a}"),
        // SAFETY: the options used in this file take numbers, no pointers.
        || unsafe { libc::prctl(option, a, b, 0, 0) as libc::c_long },
    )
    .map(|r| r as i32)
}

/// The signal this process gets when its parent dies; 0 for none.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, signal as u64, 0).map(drop)
}

/// Opens or closes /proc/PID to other processes of the same user (CVE-2016-9962).
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, dumpable as u64, 0).map(drop)
}

pub fn set_no_new_privileges() -> Result<()> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Keeps the permitted capabilities when the uid changes from 0.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, keep as u64, 0).map(drop)
}

/// Makes this process the one that orphans below it are given to.
pub fn set_child_subreaper() -> Result<()> {
    prctl("PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, 1, 0).map(drop)
}

/// Drops every capability that is not in `keep` from the bounding set, up to the last one the
/// kernel knows.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for cap in 0..64u64 {
        if keep & (1 << cap) != 0 {
            continue;
        }
        match prctl("PR_CAPBSET_DROP", libc::PR_CAPBSET_DROP, cap, 0) {
            Ok(_) => {}
            // EINVAL: past the last capability of this kernel.
            Err(e) if e.errno == Errno::EINVAL => break,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capset(2) of this process.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let header = CapHeader {
        version: LINUX_CAPABILITY_VERSION_3,
        pid: 0,
    };
    let data = [half(0), half(32)];
    retry(
        "capset",
        || {
            format!(
                "effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}"
            )
        },
        // SAFETY: version 3 takes a header and two data structs, which outlive the call.
        || unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) },
    )
    .map(drop)
}

/// Raises each capability of `set` in the ambient set, which is empty to begin with: it was
/// cleared, and the caller's own must not reach the container (CVE-2022-29162).
pub fn set_ambient(set: u64) -> Result<()> {
    prctl(
        "PR_CAP_AMBIENT_CLEAR_ALL",
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as u64,
        0,
    )?;
    for cap in (0..64u64).filter(|cap| set & (1 << cap) != 0) {
        prctl(
            "PR_CAP_AMBIENT_RAISE",
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as u64,
            cap,
        )?;
    }
    Ok(())
}

/// Closes every descriptor from `first` on but those in `keep` (close_range(2), Linux 5.9).
/// For a clone that will never return into the code that owns them.
pub fn close_all_from(first: u32, keep: &mut [BorrowedFd]) -> Result<()> {
    keep.sort_by_key(|fd| fd.as_raw_fd());
    let mut from = first;
    for fd in keep {
        let fd = fd.as_raw_fd() as u32;
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX)
}

/// Marks every descriptor from `first` on close-on-exec (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;
    close_range_with(first, u32::MAX, CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    close_range_with(first, last, 0)
}

fn close_range_with(first: u32, last: u32, flags: u32) -> Result<()> {
    retry(
        "close_range",
        || format!("{first}, {last}, {flags}"),
        // SAFETY: numbers only. Where descriptors are closed, their owners in this process are never
        // used again: see `close_all_from`.
        || unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) },
    )
    .map(drop)
}

/// Is descriptor `fd` open?
pub fn is_open(fd: i32) -> bool {
    // SAFETY: F_GETFD takes and gives a number.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// A copy, close-on-exec, of descriptor `number`: one that another process has opened in the table it
/// shares with this one (CLONE_FILES), so that nobody here owns it.
pub fn copy_descriptor(number: RawFd) -> Result<OwnedFd> {
    let fd = retry(
        "fcntl",
        || format!("{number}, F_DUPFD_CLOEXEC, 3"),
        // SAFETY: F_DUPFD_CLOEXEC takes a number.
        || unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) as libc::c_long },
    )?;
    // SAFETY: the call gave a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether a child that has ended waits for wait4(2), as is usual, or is gone at once (sigaction(2),
/// SA_NOCLDWAIT). Exec makes it usual again, but not where SIGCHLD is ignored: every program of ours
/// begins with this, as its caller may do that.
pub fn keep_zombies(keep: bool) -> Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let flags = match keep {
        true => SaFlags::empty(),
        false => SaFlags::SA_NOCLDWAIT,
    };
    let action = SigAction::new(SigHandler::SigDfl, flags, SigSet::empty());
    // SAFETY: SIG_DFL is no handler of ours.
    unsafe { sigaction(Signal::SIGCHLD, &action) }
        .map(drop)
        .map_err(|e| Error::new("sigaction", format!("SIGCHLD, SIG_DFL, {flags:?}"), e))
}

/// Lets descriptor `fd`, which the caller of this program opened, survive exec.
pub fn keep_on_exec(fd: i32) -> Result<()> {
    retry(
        "fcntl",
        || format!("{fd}, F_SETFD, 0"),
        // SAFETY: F_SETFD takes a number.
        || unsafe { libc::fcntl(fd, libc::F_SETFD, 0) as libc::c_long },
    )
    .map(drop)
}

/// Lets this process run on every processor its cpuset allows.
pub fn use_all_processors() -> Result<()> {
    // More than any kernel has (CONFIG_NR_CPUS is at most 8192); it takes what exists of them.
    use_processors(&[u64::MAX; 8192 / 64])
}

/// sched_setaffinity(2) of this process, one bit for each processor.
pub fn use_processors(mask: &[u64]) -> Result<()> {
    retry(
        "sched_setaffinity",
        || format!("mask {:#x}…", mask.first().copied().unwrap_or(0)),
        // SAFETY: the mask has the size that is stated, and outlives the call.
        || unsafe {
            libc::syscall(
                libc::SYS_sched_setaffinity,
                0,
                size_of_val(mask),
                mask.as_ptr(),
            )
        },
    )
    .map(drop)
}

fn pointers(list: &[CString]) -> Vec<*const libc::c_char> {
    let mut all: Vec<_> = list.iter().map(|s| s.as_ptr()).collect();
    all.push(std::ptr::null());
    all
}

/// execve(2). Returns only when refused.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> Error {
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with a null pointer; they and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Error::last("execve", format!("{path:?}"))
}

/// Executes the file that `file` refers to (execveat(2) with AT_EMPTY_PATH), with this process's
/// environment. Returns only when refused.
pub fn exec_fd(file: BorrowedFd, args: &[CString], env: &[CString]) -> Error {
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: as in `exec`.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last("execveat", file.as_raw_fd().to_string())
}

/// prlimit(2): sets a limit of process `pid` (0: this one).
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    retry(
        "prlimit",
        || format!("{pid}, resource {resource}, soft {soft}, hard {hard}"),
        || {
            // SAFETY: `new` outlives the call; the old limit is not asked for.
            unsafe {
                libc::syscall(
                    libc::SYS_prlimit64,
                    pid,
                    resource,
                    &raw const new,
                    std::ptr::null::<libc::rlimit64>(),
                )
            }
        },
    )
    .map(drop)
}

/// The soft and the hard limit of this process (getrlimit(2)).
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    retry(
        "prlimit",
        || format!("0, resource {resource}"),
        || {
            // SAFETY: `old` outlives the call; no new limit is given.
            unsafe {
                libc::syscall(
                    libc::SYS_prlimit64,
                    0,
                    resource,
                    std::ptr::null::<libc::rlimit64>(),
                    &raw mut old,
                )
            }
        },
    )?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// The kernel's struct sched_attr (sched_setattr(2)), first version.
#[repr(C)]
#[derive(Default)]
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

/// sched_setattr(2) of this process.
pub fn set_scheduler(mut attr: SchedAttr) -> Result<()> {
    attr.size = size_of::<SchedAttr>() as u32;
    retry(
        "sched_setattr",
        || {
            format!(
                "policy {}, nice {}, priority {}",
                attr.policy, attr.nice, attr.priority
            )
        },
        // SAFETY: `attr` has the size it states, and outlives the call.
        || unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) },
    )
    .map(drop)
}

/// ioprio_set(2) of this process: class << 13 | level.
pub fn set_io_priority(value: u16) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    retry(
        "ioprio_set",
        || format!("IOPRIO_WHO_PROCESS, 0, {value:#x}"),
        // SAFETY: no pointers.
        || unsafe {
            libc::syscall(
                libc::SYS_ioprio_set,
                IOPRIO_WHO_PROCESS,
                0,
                libc::c_int::from(value),
            )
        },
    )
    .map(drop)
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    retry(
        "personality",
        || format!("{persona:#x}"),
        // SAFETY: no pointers.
        || unsafe { libc::syscall(libc::SYS_personality, persona) },
    )
    .map(drop)
}

/// set_mempolicy(2): the mode with its flags, and node numbers.
pub fn set_memory_policy(mode: i32, nodes: &[u32]) -> Result<()> {
    let words = nodes.iter().max().map_or(0, |max| *max as usize / 64 + 1);
    let mut mask = vec![0u64; words];
    for node in nodes {
        mask[*node as usize / 64] |= 1 << (node % 64);
    }
    // The kernel reads maxnode - 1 bits.
    let bits = if nodes.is_empty() { 0 } else { words * 64 + 1 };
    retry(
        "set_mempolicy",
        || format!("{mode:#x}, nodes {nodes:?}"),
        // SAFETY: `mask` holds at least the bits that are announced.
        || unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) },
    )
    .map(drop)
}

/// Joins a new session keyring called `name` (keyctl(2) KEYCTL_JOIN_SESSION_KEYRING); gives its id.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    retry(
        "keyctl",
        || format!("KEYCTL_JOIN_SESSION_KEYRING, {name:?}"),
        // SAFETY: `name` is NUL-terminated and outlives the call.
        || unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) },
    )
    .map(|id| id as i32)
}

/// The signals that this process ignores, bit 0 for signal 1 (proc_pid_status(5), SigIgn).
pub fn ignored_signals() -> u64 {
    let text = std::fs::File::open("/proc/self/status")
        .ok()
        .and_then(|file| super::file::read_rest(file.as_fd()).ok())
        .unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok())
        .unwrap_or(0)
}

/// No signal blocked, and none of `ignored` ignored: what is so at exec stays so, and callers ignore
/// what they like (Rust SIGPIPE, cargo signal 32).
pub fn default_signals(ignored: u64) -> Result<()> {
    nix::sys::signal::sigprocmask(
        nix::sys::signal::SigmaskHow::SIG_SETMASK,
        Some(&nix::sys::signal::SigSet::empty()),
        None,
    )
    .map_err(|e| Error::new("sigprocmask", "SIG_SETMASK, none", e))?;
    // The kernel's struct sigaction with SIG_DFL, no flags, no mask: the C library's own call
    // refuses signals 32 and 33, which it uses itself.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|signal| ignored & (1 << (signal - 1)) != 0) {
        retry(
            "rt_sigaction",
            || format!("{signal}, SIG_DFL"),
            // SAFETY: `default` is as large as the kernel's struct sigaction and outlives the call;
            // the old action is not asked for; 8 is the size of its signal set.
            || unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    default.as_ptr(),
                    std::ptr::null::<u64>(),
                    8,
                )
            },
        )?;
    }
    Ok(())
}

/// The program that `command` executes begins with no signal blocked: std hands on what this thread blocks.
pub fn unblock_signals_in(command: &mut std::process::Command) {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    use std::os::unix::process::CommandExt;
    let unblock = || {
        Ok(sigprocmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::empty()),
            None,
        )?)
    };
    // SAFETY: what runs between fork and exec is one sigprocmask(2), async-signal-safe, on the stack only.
    unsafe { command.pre_exec(unblock) };
}

/// The program that `command` executes is killed when this thread ends; what it leaves in the background is not.
pub fn end_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let ask = || set_parent_death_signal(libc::SIGKILL).map_err(|e| e.errno.into());
    // SAFETY: what runs between fork and exec is one prctl(2), async-signal-safe; an error of it, which numbers only
    // cannot cause, would allocate for its text.
    unsafe { command.pre_exec(ask) };
}

/// Gives the mapped pages of this program's code back (madvise(2), MADV_DONTNEED): what is run again is mapped
/// again from the page cache. For a process that waits for most of its life. Nothing is promised: where the map
/// cannot be read, all stays as it is.
pub fn release_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        // Code alone is never written to: other parts of the file have been relocated.
        let mut fields = line.split_whitespace();
        let (Some(range), Some("r-xp"), Some(path)) = (fields.next(), fields.next(), fields.nth(3))
        else {
            continue;
        };
        let number = |text| usize::from_str_radix(text, 16);
        let Some((Ok(start), Ok(end))) = range.split_once('-').map(|(a, b)| (number(a), number(b)))
        else {
            continue;
        };
        if path.starts_with('/') {
            // SAFETY: a private mapping of a file, executable and not writable, whose pages equal the file's
            // (no text relocations in position-independent code): the kernel brings them back unchanged.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// Ends this process at once, without destructors or exit handlers: a clone must not run those of
/// the program it was cloned from.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// What Rust's own start-up does and this program's leaves out: a write to a closed pipe is an error,
/// not a death; and descriptors 0 to 2 are open, so that no file of ours is taken for one of them.
pub fn prepare_stdio() {
    // SAFETY: SIG_IGN is no handler of ours; the path is NUL-terminated. A refusal changes nothing
    // that was promised: it cannot happen to these calls but by a policy of the caller's.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        for fd in 0..3 {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
}

/// Standard input, output and error.
pub fn stdio() -> [BorrowedFd<'static>; 3] {
    // SAFETY: 0, 1 and 2 are never owned, so never closed, by this program; if the caller left one
    // closed, calls on it fail with EBADF.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// dup3(2): makes descriptor `over` another of `fd`.
pub fn duplicate_over(fd: BorrowedFd, over: BorrowedFd) -> Result<()> {
    retry(
        "dup3",
        || format!("{}, {}", fd.as_raw_fd(), over.as_raw_fd()),
        // SAFETY: `over` stays its owner's, open, and is another file from here on.
        || unsafe { libc::dup3(fd.as_raw_fd(), over.as_raw_fd(), 0) as libc::c_long },
    )
    .map(drop)
}

/// setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<()> {
    retry(
        "setdomainname",
        || format!("{name:?}"),
        // SAFETY: pointer and length are of one string that outlives the call.
        || unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) as libc::c_long },
    )
    .map(drop)
}
