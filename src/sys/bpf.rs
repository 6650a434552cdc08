//! How does a cgroup get its device program? bpf(2): load a program, attach it to a cgroup.
//!
//! KERNEL(6.17 to 7.1): BPF_PROG_QUERY wrote its answer behind a `bpf_attr` that was shorter than
//! the kernel's own (opencontainers/cgroups#69). So every call here hands over a full-size,
//! zeroed attribute, and nothing is queried.

use super::error::retry;
use super::{Error, Result};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `union bpf_attr`: 168 bytes in Linux 6.18, 144 in 5.15. A kernel with a smaller one accepts
/// the rest when it is zero.
type Attr = [u64; 21];

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

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
    let fd = bpf(BPF_PROG_LOAD, &attr, args)?;
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
    bpf(BPF_PROG_ATTACH, &attr, args).map(drop)
}

/// Two 32-bit fields of the attribute, as they lie in memory.
fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn bpf(command: libc::c_int, attr: &Attr, args: impl Fn() -> String) -> Result<RawFd> {
    let done = retry("bpf", args, || {
        // SAFETY: `attr` is as long as said and outlives the call; the pointers in it were made
        // by the callers above from slices that outlive the call, with those slices' lengths.
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of::<Attr>()) }
    })?;
    Ok(done as RawFd)
}
