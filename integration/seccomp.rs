//! config.json's `linux.seccomp`: what the kernel then allows and refuses.

use crate::harness::{Bundle, Place, Result, json};

tests! {
    a_refused_call_fails_with_its_errno,
    a_profile_holds_without_no_new_privileges_too,
    an_argument_decides,
    a_call_newer_than_the_profile_does_not_exist,
    a_narrow_profile_is_enough_to_start,
}

fn profile(t: &Place, calls: serde_json::Value) -> Bundle {
    t.bundle().set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
            "syscalls": calls,
        }),
    )
}

fn a_refused_call_fails_with_its_errno(t: &Place) -> Result<()> {
    let calls =
        json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]);
    let bundle = profile(t, calls).sh("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status");
    let out = t.run(&bundle)?.stdout;
    assert!(out.contains("No space left on device"), "{out}");
    assert!(out.contains("Seccomp:\t2"), "{out}");
    Ok(())
}

fn a_profile_holds_without_no_new_privileges_too(t: &Place) -> Result<()> {
    let calls = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
    let bundle = profile(t, calls)
        .set("/process/noNewPrivileges", json!(false))
        .sh("mkdir /tmp/x 2>&1; grep NoNewPrivs: /proc/self/status");
    let out = t.run(&bundle)?.stdout;
    assert!(out.contains("Operation not permitted"), "{out}");
    assert!(out.contains("NoNewPrivs:\t0"), "{out}");
    Ok(())
}

fn an_argument_decides(t: &Place) -> Result<()> {
    // personality(2) of busybox setarch: 0x0008 is PER_LINUX32.
    let calls = json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
        "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }] }]);
    let bundle = profile(t, calls).sh("kill -USR1 1 2>&1; kill -0 1 && echo alive");
    let out = t.run(&bundle)?.stdout;
    assert!(
        out.contains("not permitted") && out.contains("alive"),
        "{out}"
    );
    Ok(())
}

fn a_call_newer_than_the_profile_does_not_exist(t: &Place) -> Result<()> {
    let bundle = profile(t, json!([])).set("/linux/seccomp/defaultAction", json!("SCMP_ACT_ERRNO"));
    let names = json!([{ "names": ["execve", "write", "read", "exit_group", "brk", "mmap", "arch_prctl", "prctl",
        "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink", "readlinkat", "getrandom", "mprotect",
        "getuid", "getpid", "getppid", "rt_sigaction", "uname", "getcwd", "stat", "newfstatat", "ioctl", "fcntl",
        "geteuid", "getegid", "getgid", "close", "open", "openat", "fstat", "dup2", "wait4", "fork", "clone", "vfork",
        "exit", "rt_sigprocmask", "rt_sigreturn", "setuid", "setgid", "poll", "lseek"], "action": "SCMP_ACT_ALLOW" }]);
    let bundle = bundle
        .set("/linux/seccomp/syscalls", names)
        .sh("echo works; mkdir /tmp/x 2>&1");
    let out = t.run(&bundle)?.stdout;
    assert!(
        out.contains("works") && out.contains("not permitted"),
        "{out}"
    );
    Ok(())
}

/// What init itself needs after the profile is in force is little (ours: write, read, execve).
fn a_narrow_profile_is_enough_to_start(t: &Place) -> Result<()> {
    let calls = json!([{ "names": ["sendmsg", "recvmsg", "openat", "prctl", "accept4", "futex", "close_range",
        "setresuid", "capset"], "action": "SCMP_ACT_ERRNO" }]);
    let bundle = profile(t, calls).args(&["true"]);
    t.run(&bundle)?;
    Ok(())
}
