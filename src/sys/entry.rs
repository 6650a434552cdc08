//! Where the kernel enters the program, before the C library begins: the quick way to a sealed copy.
//!
//! A verb that makes containers runs from a read-only copy of the program (`parent/seal.rs` says why), so the
//! program starts twice. The first start needs five system calls and nothing else, while the C library's own beginning
//! is the dearest part of a start: it asks the processor for its features, and each cpuid(2) instruction traps in a
//! virtual machine (0.4 ms measured). So the linker is told to enter here (`build.rs`); this code seals and
//! executes, or goes on to the C library's `_start`, and then `parent/seal.rs` decides as if nothing had been
//! tried.
//!
//! Nothing is set up yet: no thread-local storage, no relocated memcpy(3), no stack guard. The code below is
//! arithmetic and system calls, by hand.

use std::sync::atomic::{AtomicBool, Ordering};

/// The verbs that clone a container's process from this one: they run only from a sealed copy.
pub const MAKERS: [&str; 3] = ["create", "run", "exec"];

static READ_ONLY: AtomicBool = AtomicBool::new(false);

/// This program was found, when it began, to run from a file on a read-only mount.
pub fn is_read_only() -> bool {
    READ_ONLY.load(Ordering::Relaxed)
}

/// Other processors go without: `parent/seal.rs` does it all.
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::{asm, naked_asm};
    use std::ffi::c_char;

    unsafe extern "C" {
        /// The C library's own entry.
        fn _start() -> !;
    }

    /// The program's first instruction: `seal` with the stack as the kernel made it, then `_start` with everything as it was.
    // SAFETY: rbx is kept by `seal` (System V ABI), rdx is the kernel's zero at entry, and `_start` reads no other
    // register but the stack pointer.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    pub extern "C" fn sc_start() -> ! {
        naked_asm!(
            "mov rbx, rsp",
            "mov rdi, rsp",
            "and rsp, -16",
            "call {seal}",
            "mov rsp, rbx",
            "xor edx, edx",
            "jmp {start}",
            seal = sym seal,
            start = sym _start,
        )
    }

    /// Executes this program again from a read-only mount of its file, if a maker's verb is among the
    /// arguments. Returns when that is not needed, or not possible.
    unsafe extern "C" fn seal(stack: *const usize) {
        // SAFETY: execve(2) leaves argc, argv, a null, the environment, a null at the stack pointer.
        let (argv, envp, makes) = unsafe {
            let argc = *stack;
            let argv = stack.add(1).cast::<*const c_char>();
            let makes = (1..argc).any(|at| is_maker(*argv.add(at)));
            (argv, argv.add(argc + 1), makes)
        };
        if !makes {
            return;
        }
        let own = c"/proc/self/exe".as_ptr() as usize;
        let mut stat = std::mem::MaybeUninit::<libc::statfs64>::uninit();
        if call(libc::SYS_statfs, [own, stat.as_mut_ptr() as usize, 0, 0, 0]) != 0 {
            return;
        }
        // SAFETY: the kernel has filled it.
        let flags = unsafe { (*stat.as_ptr()).f_flags };
        if flags as u64 & libc::ST_RDONLY != 0 {
            super::READ_ONLY.store(true, std::sync::atomic::Ordering::Relaxed);
            return;
        }
        // An ordinary user would be refused. The few who have CAP_SYS_ADMIN all the same only lose time.
        if call(libc::SYS_geteuid, [0; 5]) != 0 {
            return;
        }
        let how = libc::OPEN_TREE_CLONE as usize | libc::O_CLOEXEC as usize;
        let here = libc::AT_FDCWD as usize;
        let tree = call(libc::SYS_open_tree, [here, own, how, 0, 0]);
        if tree < 0 {
            return;
        }
        let (tree, empty, at) = (
            tree as usize,
            c"".as_ptr() as usize,
            libc::AT_EMPTY_PATH as usize,
        );
        let attr = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_RDONLY,
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        let read_only = [
            tree,
            empty,
            at,
            &raw const attr as usize,
            size_of_val(&attr),
        ];
        if call(libc::SYS_mount_setattr, read_only) == 0 {
            call(
                libc::SYS_execveat,
                [tree, empty, argv as usize, envp as usize, at],
            );
        }
        call(libc::SYS_close, [tree, 0, 0, 0, 0]);
    }

    /// # Safety
    /// `word` is a string of argv.
    unsafe fn is_maker(word: *const c_char) -> bool {
        super::MAKERS.iter().any(|verb| {
            let verb = verb.as_bytes();
            // SAFETY: a byte is read only if the one before it was not the string's NUL.
            (0..verb.len()).all(|at| unsafe { *word.add(at) } as u8 == verb[at])
                && unsafe { *word.add(verb.len()) } == 0
        })
    }

    /// A system call without the C library, whose `errno` is not there yet: a negative errno is the error.
    fn call(number: i64, [a, b, c, d, e]: [usize; 5]) -> isize {
        let result;
        // SAFETY: the callers pass numbers, strings and structs of the program itself or of its stack,
        // which outlive the call; the kernel clobbers rcx and r11 (syscall(2)).
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        result
    }
}
