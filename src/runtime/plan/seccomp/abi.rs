//! What tells one system call ABI from another: its audit architecture, its numbers, the width of
//! its arguments, and the calls it hides behind one number.

use super::table::{self, ABSENT, TABLE};
use oci_spec::runtime::Arch;

/// x32 calls carry this bit, and otherwise the audit architecture of x86_64 (seccomp(2), Caveats).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One system call ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abi {
    pub arch: Arch,
    /// AUDIT_ARCH_* of <linux/audit.h>, as `struct seccomp_data` shows it.
    pub audit: u32,
    column: usize,
    /// Arguments are compared in all 64 bits. A 32-bit ABI, x32 among them, in the lower half:
    /// its callers cannot say more, and libseccomp compares no more.
    pub wide: bool,
    pub big_endian: bool,
    /// Has socketcall(2) and ipc(2), through which sockets and System V IPC can be reached too.
    gates: bool,
}

/// `__AUDIT_ARCH_LE`; all tokens of [`Arch`] but x32's are audit architectures.
const LITTLE_ENDIAN: u32 = 0x4000_0000;

/// The machine this program was built for.
pub(super) fn native() -> Option<Arch> {
    // `cfg!` keeps every branch compiled and checked on every machine.
    let little = cfg!(target_endian = "little");
    if cfg!(target_arch = "x86_64") {
        Some(Arch::ScmpArchX86_64)
    } else if cfg!(target_arch = "x86") {
        Some(Arch::ScmpArchX86)
    } else if cfg!(target_arch = "aarch64") {
        Some(Arch::ScmpArchAarch64)
    } else if cfg!(target_arch = "arm") {
        Some(Arch::ScmpArchArm)
    } else if cfg!(target_arch = "riscv64") {
        Some(Arch::ScmpArchRiscv64)
    } else if cfg!(target_arch = "loongarch64") {
        Some(Arch::ScmpArchLoongarch64)
    } else if cfg!(target_arch = "powerpc64") && little {
        Some(Arch::ScmpArchPpc64le)
    } else if cfg!(target_arch = "powerpc64") {
        Some(Arch::ScmpArchPpc64)
    } else if cfg!(target_arch = "s390x") {
        Some(Arch::ScmpArchS390x)
    } else if cfg!(target_arch = "mips64") && little {
        Some(Arch::ScmpArchMipsel64)
    } else if cfg!(target_arch = "mips64") {
        Some(Arch::ScmpArchMips64)
    } else {
        None
    }
}

impl Abi {
    /// The facts of an architecture; `SCMP_ARCH_NATIVE` stands for `native`.
    pub fn of(arch: Arch, native: Arch) -> Abi {
        use Arch::*;
        let arch = match arch {
            ScmpArchNative => native,
            named => named,
        };
        // (column, 64-bit arguments, socketcall and ipc)
        let (column, wide, gates) = match arch {
            ScmpArchX86_64 | ScmpArchNative => (table::X86_64, true, false),
            ScmpArchX86 => (table::X86, false, true),
            ScmpArchX32 => (table::X32, false, false),
            ScmpArchAarch64 => (table::AARCH64, true, false),
            ScmpArchArm => (table::ARM, false, false),
            ScmpArchRiscv64 => (table::RISCV64, true, false),
            ScmpArchLoongarch64 => (table::LOONGARCH64, true, false),
            ScmpArchPpc => (table::PPC, false, true),
            ScmpArchPpc64 | ScmpArchPpc64le => (table::PPC64, true, true),
            ScmpArchS390 => (table::S390, false, true),
            ScmpArchS390x => (table::S390X, true, true),
            ScmpArchMips | ScmpArchMipsel => (table::MIPS_O32, false, true),
            ScmpArchMips64 | ScmpArchMipsel64 => (table::MIPS_N64, true, false),
            ScmpArchMips64n32 | ScmpArchMipsel64n32 => (table::MIPS_N32, false, false),
            ScmpArchParisc => (table::PARISC, false, false),
            ScmpArchParisc64 => (table::PARISC64, true, false),
            ScmpArchM68k => (table::M68K, false, true),
            ScmpArchSh | ScmpArchSheb => (table::SH, false, true),
        };
        let audit = match arch {
            ScmpArchX32 => ScmpArchX86_64 as u32,
            other => other as u32,
        };
        Abi {
            arch,
            audit,
            column,
            wide,
            big_endian: audit & LITTLE_ENDIAN == 0,
            gates,
        }
    }

    pub fn is_x32(&self) -> bool {
        self.arch == Arch::ScmpArchX32
    }

    /// The number of a system call here.
    pub fn number(&self, call: &Call) -> Option<u32> {
        match u32::from(call.numbers[self.column]) {
            n if n == u32::from(ABSENT) => None,
            n if self.is_x32() => Some(n | X32_BIT),
            // ARM's private calls: the table folds 0x0f0000 into 0xf000.
            n if n >= 0xf000 => Some(n - 0xf000 + 0x000f_0000),
            n => Some(n),
        }
    }

    /// The number of the gate that leads to a system call too, and what its first argument says then.
    pub fn gate(&self, call: &Call) -> Option<(u32, u64)> {
        if !self.gates {
            return None;
        }
        let (gate, what) = gate(call.name)?;
        Some((self.number(&find(gate)?)?, what))
    }
}

/// A system call that has a number somewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    name: &'static str,
    numbers: &'static [u16],
}

/// The system call of that name on any architecture.
pub(super) fn find(name: &str) -> Option<Call> {
    let at = TABLE.binary_search_by_key(&name, |row| row.0).ok()?;
    let (name, numbers) = &TABLE[at];
    Some(Call { name, numbers })
}

/// SYS_* of <linux/net.h>, and the calls of <linux/ipc.h>.
fn gate(name: &str) -> Option<(&'static str, u64)> {
    let socketcall = |what| Some(("socketcall", what));
    let ipc = |what| Some(("ipc", what));
    match name {
        "socket" => socketcall(1),
        "bind" => socketcall(2),
        "connect" => socketcall(3),
        "listen" => socketcall(4),
        "accept" => socketcall(5),
        "getsockname" => socketcall(6),
        "getpeername" => socketcall(7),
        "socketpair" => socketcall(8),
        "send" => socketcall(9),
        "recv" => socketcall(10),
        "sendto" => socketcall(11),
        "recvfrom" => socketcall(12),
        "shutdown" => socketcall(13),
        "setsockopt" => socketcall(14),
        "getsockopt" => socketcall(15),
        "sendmsg" => socketcall(16),
        "recvmsg" => socketcall(17),
        "accept4" => socketcall(18),
        "recvmmsg" => socketcall(19),
        "sendmmsg" => socketcall(20),
        "semop" => ipc(1),
        "semget" => ipc(2),
        "semctl" => ipc(3),
        "semtimedop" => ipc(4),
        "msgsnd" => ipc(11),
        "msgrcv" => ipc(12),
        "msgget" => ipc(13),
        "msgctl" => ipc(14),
        "shmat" => ipc(21),
        "shmdt" => ipc(22),
        "shmget" => ipc(23),
        "shmctl" => ipc(24),
        _ => None,
    }
}
