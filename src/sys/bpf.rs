//! How does a cgroup get its device program? bpf(2): load a program, attach it to a cgroup.
//!
//! KERNEL(6.17 to 7.1): BPF_PROG_QUERY wrote its answer behind a `bpf_attr` that was shorter than
//! the kernel's own (opencontainers/cgroups#69). So every call here hands over a full-size,
//! zeroed attribute.

use super::error::retry;
use super::{Error, Result};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `union bpf_attr`: 168 bytes in Linux 6.18, 144 in 5.15. A kernel with a smaller one accepts
/// the rest when it is zero.
type Attr = [u64; 21];

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// Of loading a program: more would be a storm of signals.
const MOST_TRIES: u32 = 100;

/// Programs of ancestors and of other owners stay in force beside this one, and each must allow.
pub const BPF_F_ALLOW_MULTI: u32 = 2;

/// Loads a cgroup-device program, given as `struct bpf_insn`s.
///
/// A refusal is tried again with the verifier's log, whose last words end the error's arguments.
pub fn load_device_program(code: &[u64]) -> Result<OwnedFd> {
    let refused = match load(code, &mut []) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    let mut log = vec![0; 64 * 1024];
    // EPERM, ENOMEM and the like come before the verifier: nothing is logged.
    if matches!(refused.errno, Errno::EINVAL | Errno::EACCES) && load(code, &mut log).is_err() {
        let text = String::from_utf8_lossy(&log);
        let mut words = text.trim_end_matches('\0').lines();
        if let Some(last) = words.rfind(|l| !l.starts_with("processed")) {
            let args = format!("{}, verifier: {last:?}", refused.args);
            return Err(Error::new(refused.call, args, refused.errno));
        }
    }
    Err(refused)
}

fn load(code: &[u64], log: &mut [u8]) -> Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr: Attr = [0; 21];
    attr[0] = pair(BPF_PROG_TYPE_CGROUP_DEVICE, code.len() as u32);
    attr[1] = code.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    if !log.is_empty() {
        attr[3] = pair(1, log.len() as u32);
        attr[4] = log.as_mut_ptr() as u64;
    }
    // prog_name, for bpftool(8): 16 bytes from offset 48.
    attr[6] = u64::from_ne_bytes(*b"sc_devic");
    attr[7] = u64::from_ne_bytes(*b"es\0\0\0\0\0\0");
    let args = || {
        format!(
            "BPF_PROG_LOAD, BPF_PROG_TYPE_CGROUP_DEVICE, {} insns",
            code.len()
        )
    };
    let mut tries = 0;
    let fd = loop {
        match bpf(BPF_PROG_LOAD, &mut attr, args) {
            // The verifier stops for a signal (bpf_check in kernel/bpf/verifier.c), also for one that only stops
            // and continues this process.
            Err(e) if e.errno == Errno::EAGAIN && tries < MOST_TRIES => tries += 1,
            loaded => break loaded?,
        }
    };
    // SAFETY: BPF_PROG_LOAD gives a new descriptor, close-on-exec, that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a device program in force in a cgroup, with `flags` of BPF_F_*. The cgroup keeps it: the
/// descriptor may be closed.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
) -> Result<()> {
    let mut attr: Attr = [0; 21];
    attr[0] = pair(cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attr[1] = pair(BPF_CGROUP_DEVICE, flags);
    let args = || {
        format!(
            "BPF_PROG_ATTACH, BPF_CGROUP_DEVICE, cgroup {}",
            cgroup.as_raw_fd()
        )
    };
    bpf(BPF_PROG_ATTACH, &mut attr, args).map(drop)
}

/// Ends the force of a program that is attached to the cgroup itself.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr: Attr = [0; 21];
    attr[0] = pair(cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    attr[1] = pair(BPF_CGROUP_DEVICE, 0);
    let args = || "BPF_PROG_DETACH, BPF_CGROUP_DEVICE".to_owned();
    bpf(BPF_PROG_DETACH, &mut attr, args).map(drop)
}

/// More than the kernel attaches to one cgroup (BPF_CGROUP_MAX_PROGS is 64).
const MOST_PROGRAMS: usize = 64;

/// A device program that is in force in a cgroup.
#[derive(Debug)]
pub struct Attached {
    pub program: OwnedFd,
    /// As its loader has called it; at most 15 bytes.
    pub name: String,
}

/// The device programs attached to the cgroup itself, not those of ancestors, and the BPF_F_*
/// they were attached with.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<(Vec<Attached>, u32)> {
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut attr: Attr = [0; 21];
    attr[0] = pair(cgroup.as_raw_fd() as u32, BPF_CGROUP_DEVICE);
    attr[2] = ids.as_mut_ptr() as u64;
    attr[3] = pair(MOST_PROGRAMS as u32, 0);
    bpf(BPF_PROG_QUERY, &mut attr, || {
        "BPF_PROG_QUERY, BPF_CGROUP_DEVICE".to_owned()
    })?;
    let (_, flags) = halves(attr[1]);
    let (count, _) = halves(attr[3]);
    let mut found = vec![];
    for id in ids.into_iter().take(count as usize) {
        match program_of(id) {
            Ok(program) => found.push(Attached {
                name: name_of(&program)?,
                program,
            }),
            // Detached and gone since.
            Err(error) if error.errno == Errno::ENOENT => {}
            Err(error) => return Err(error),
        }
    }
    Ok((found, flags))
}

fn program_of(id: u32) -> Result<OwnedFd> {
    let mut attr: Attr = [0; 21];
    attr[0] = pair(id, 0);
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr, || {
        format!("BPF_PROG_GET_FD_BY_ID, {id}")
    })?;
    // SAFETY: BPF_PROG_GET_FD_BY_ID gives a new descriptor, close-on-exec, that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct bpf_prog_info` up to its name: 16 bytes from offset 64.
type Info = [u64; 10];

fn name_of(program: &OwnedFd) -> Result<String> {
    let mut info: Info = [0; 10];
    let mut attr: Attr = [0; 21];
    attr[0] = pair(program.as_raw_fd() as u32, size_of::<Info>() as u32);
    attr[1] = info.as_mut_ptr() as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr, || {
        "BPF_OBJ_GET_INFO_BY_FD".to_owned()
    })?;
    let bytes = [info[8].to_ne_bytes(), info[9].to_ne_bytes()].concat();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// [`pair`]'s two.
fn halves(both: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = both.to_ne_bytes();
    let half = u32::from_ne_bytes;
    (half([a, b, c, d]), half([e, f, g, h]))
}

/// Two 32-bit fields of the attribute, as they lie in memory.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf(command: libc::c_int, attr: &mut Attr, args: impl Fn() -> String) -> Result<RawFd> {
    let done = retry("bpf", args, || {
        // SAFETY: `attr` is as long as said, ours to be written to, and outlives the call; the
        // pointers in it were made by the callers above from slices that outlive the call, with
        // those slices' lengths, and from mutable ones where the kernel writes.
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of::<Attr>()) }
    })?;
    Ok(done as RawFd)
}
