//! Which system calls may a container make when nobody says otherwise?
//!
//! What Docker's documentation allows and blocks ("Seccomp security profiles for Docker"), written as
//! themes. A call that Docker blocks fails with EPERM; one that neither list knows, with ENOSYS, so that
//! a newer C library falls back to an older call instead of giving up. clone3 is among the latter: its
//! flags are in memory, where a filter cannot look for new namespaces.

use serde_json::{Value, json};

/// For every container.
const ALLOWED: &[&str] = &[
    // Files and directories
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
     fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync \
     flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 \
     ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at \
     newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink \
     readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx \
     symlink symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat \
     utimensat_time64 utimes vmsplice write writev cachestat statmount listmount",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr \
     removexattr setxattr getxattrat listxattrat removexattrat setxattrat",
    // Waiting for events
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy \
     io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll ppoll ppoll_time64 pselect6 \
     pselect6_time64 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
     timerfd_settime64",
    // Memory
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect \
     mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages",
    // Processes and threads
    "arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getpgid getpgrp \
     getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set kill landlock_add_rule \
     landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv \
     process_vm_writev ptrace restart_syscall rseq seccomp set_robust_list set_thread_area set_tid_address setpgid \
     setpriority setrlimit setsid tgkill tkill ugetrlimit vfork wait4 waitid waitpid",
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
     sched_setscheduler sched_yield",
    "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake",
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signal sigaction sigpending sigprocmask sigreturn sigsuspend",
    // Ids
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid \
     getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid \
     setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Time
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times",
    // Talking to others
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
     recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair",
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
     mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    // The machine
    "getrandom lsm_get_self_attr lsm_list_modules lsm_set_self_attr modify_ldt sysinfo uname uretprobe",
];

/// What Docker blocks unless a capability allows it; the last one is for who has any of them.
const BY_CAPABILITY: &[(&str, &str)] = &[
    (
        "CAP_SYS_ADMIN",
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree \
         perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    (
        "CAP_SYS_TIME",
        "clock_settime clock_settime64 settimeofday stime",
    ),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
    ("CAP_SYS_BOOT", "reboot"),
];

/// What Docker names as blocked whatever the capabilities.
const BLOCKED: &str = "_sysctl add_key create_module get_kernel_syms kexec_file_load kexec_load keyctl migrate_pages \
    move_pages nfsservctl pivot_root query_module request_key swapoff swapon sysfs uselib userfaultfd ustat vm86 \
    vm86old io_uring_enter io_uring_register io_uring_setup";

/// New namespaces of clone(2): all of CLONE_NEW* but CLONE_NEWTIME, which is not its to make.
const CLONE_NEW: u64 = 0x7e02_0000;
/// Execution domains that change nothing but the looks of uname(2) and the layout of addresses, and the question
/// which one it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// AF_VSOCK knows no network namespaces.
const AF_VSOCK: u64 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The capabilities that some calls are allowed for.
pub fn conditional() -> impl Iterator<Item = &'static str> {
    BY_CAPABILITY.iter().map(|(capability, _)| *capability)
}

/// `linux.seccomp` for a container with these capabilities.
pub fn profile(capabilities: &[&str]) -> Value {
    let has = |name: &str| capabilities.contains(&name);
    let mut allowed: Vec<&str> = ALLOWED
        .iter()
        .flat_map(|theme| theme.split_whitespace())
        .collect();
    let mut blocked: Vec<&str> = BLOCKED.split_whitespace().collect();
    for (capability, names) in BY_CAPABILITY {
        let names = names.split_whitespace();
        match has(capability) {
            true => allowed.extend(names),
            false => blocked.extend(names.filter(|name| *name != "clone3")),
        }
    }
    allowed.extend(has("CAP_SYS_ADMIN").then_some("clone"));
    blocked.retain(|name| !allowed.contains(name));
    for names in [&mut allowed, &mut blocked] {
        names.sort_unstable();
        names.dedup();
    }
    let mut rules = vec![
        json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": blocked, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM }),
        when(
            "socket",
            json!({ "index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE" }),
        ),
    ];
    if !has("CAP_SYS_ADMIN") {
        rules.push(when(
            "clone",
            json!({ "index": 0, "value": CLONE_NEW, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }),
        ));
    }
    rules.extend(PERSONALITIES.map(|domain| {
        when(
            "personality",
            json!({ "index": 0, "value": domain, "op": "SCMP_CMP_EQ" }),
        )
    }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

fn when(name: &str, argument: Value) -> Value {
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument] })
}

/// This machine's, and those whose programs it runs too.
fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule<'a>(profile: &'a Value, action: &str) -> Vec<&'a str> {
        let rules = profile["syscalls"].as_array().unwrap();
        let rules = rules
            .iter()
            .filter(|rule| rule["action"] == action && rule.get("args").is_none());
        rules
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    #[test]
    fn no_call_is_both_allowed_and_blocked() {
        for capabilities in [&[][..], &["CAP_SYS_ADMIN"], &["CAP_SYSLOG", "CAP_BPF"]] {
            let profile = profile(capabilities);
            let (allowed, blocked) = (
                rule(&profile, "SCMP_ACT_ALLOW"),
                rule(&profile, "SCMP_ACT_ERRNO"),
            );
            assert!(
                blocked.iter().all(|name| !allowed.contains(name)),
                "{capabilities:?}"
            );
        }
    }

    #[test]
    fn a_capability_allows_the_calls_that_need_it() {
        for (capabilities, call, allowed) in [
            (&[][..], "mount", false),
            (&["CAP_SYS_ADMIN"], "mount", true),
            (&[], "clone3", false),
            (&["CAP_SYS_ADMIN"], "clone3", true),
            (&[], "bpf", false),
            (&["CAP_BPF"], "bpf", true),
            (&["CAP_SYS_CHROOT"], "chroot", true),
            (&["CAP_SYS_ADMIN"], "keyctl", false),
            (&[], "read", true),
        ] {
            let profile = profile(capabilities);
            let found = rule(&profile, "SCMP_ACT_ALLOW").contains(&call);
            assert_eq!(found, allowed, "{call} with {capabilities:?}");
        }
    }

    #[test]
    fn a_call_that_nobody_knows_is_as_if_the_kernel_did_not_have_it() {
        let profile = profile(&[]);
        assert_eq!(profile["defaultErrnoRet"], 38);
        assert!(!rule(&profile, "SCMP_ACT_ERRNO").contains(&"clone3"));
    }
}
