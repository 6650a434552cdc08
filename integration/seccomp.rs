//! config.json's `linux.seccomp`: what the kernel then allows and refuses.

use crate::harness::kernel::{self, Answer};
use crate::harness::place::{accept, until};
use crate::harness::{Bundle, Need, Place, Result, Value, json, machine};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

tests! {
    a_refused_call_fails_with_its_errno,
    a_profile_holds_without_no_new_privileges_too,
    an_argument_decides,
    a_call_newer_than_the_profile_does_not_exist,
    a_narrow_profile_is_enough_to_start,
    init_closes_nothing_once_its_profile_is_in_force [Need::Beyond("runc", "1.1.5 does"), Need::Beyond("crun", "1.8 does")],
    every_flag_is_taken,
    a_flag_that_nobody_knows_is_an_error,
    an_agent_answers_for_the_container [OLD_CRUN],
    an_agent_may_be_asked_about_all_that_init_does [OLD_CRUN],
    an_agent_decides_without_no_new_privileges_too [OLD_CRUN],
    an_agent_answers_for_one_more_process_too [OLD_CRUN],
    an_agent_answers_for_an_ordinary_user [OLD_CRUN, OLD_RUNC, Need::Program("newuidmap"), Need::Path("/etc/subuid")],
    an_agent_leaves_the_container_no_child [OLD_CRUN],
    an_agent_and_hooks_at_start_go_together [OLD_CRUN],
    an_agents_question_outlives_a_signal [OLD_CRUN, OLD_RUNC],
    an_agent_that_is_not_there_is_an_error,
    an_agent_cannot_decide_over_write [OLD_CRUN],
}

const OLD_CRUN: Need = Need::Beyond("crun", "1.8 has another order and other words");

const OLD_RUNC: Need = Need::Beyond("runc", "1.1.5 cannot");

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

/// What it has opened for itself (a procfs, for the sysctl) is closed by number before. A second close
/// would be that of another's descriptor: the seccomp listener's, if an agent has one.
fn init_closes_nothing_once_its_profile_is_in_force(t: &Place) -> Result<()> {
    let calls = json!([{ "names": ["close"], "action": "SCMP_ACT_KILL_PROCESS" }]);
    let bundle = profile(t, calls)
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .args(&["true"]);
    t.run(&bundle)?.ok();
    let c = t.create(&bundle)?;
    c.start()?;
    c.ended()?;
    c.delete()
}

fn every_flag_is_taken(t: &Place) -> Result<()> {
    let calls = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
    let mut flags = vec!["LOG", "SPEC_ALLOW"];
    if machine().is("sc-runtime") {
        flags.extend(["TSYNC", "WAIT_KILLABLE_RECV"]);
    }
    let flags: Vec<_> = flags
        .iter()
        .map(|f| format!("SECCOMP_FILTER_FLAG_{f}"))
        .collect();
    for some in [&flags[..0], &flags[..1], &flags[1..2], &flags[..]] {
        let bundle = profile(t, calls.clone())
            .set("/linux/seccomp/flags", json!(some))
            .sh("mkdir /tmp/x 2>&1; grep Speculation_Store_Bypass /proc/self/status");
        let out = t.run(&bundle)?.stdout;
        assert!(out.contains("Operation not permitted"), "{some:?}: {out}");
    }
    Ok(())
}

fn a_flag_that_nobody_knows_is_an_error(t: &Place) -> Result<()> {
    let bundle =
        profile(t, json!([])).set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NO"]));
    t.create_fails(&bundle, &["SECCOMP_FILTER_FLAG_NO"]);
    Ok(())
}

/// What an agent was told, and the numbers of the calls it was asked about.
struct Told {
    state: Value,
    asked: Vec<i32>,
}

type Agent = JoinHandle<Result<Told>>;

/// An agent as runtime-spec wants one: takes the listener, answers until nobody is left to ask. A
/// mkdir(2) fails with `errno`, anything else may go on.
fn agent(t: &Place, errno: i32) -> Result<(String, Agent)> {
    let path = t.path("agent.sock");
    let socket = UnixListener::bind(&path)?;
    std::os::unix::fs::chown(&path, Some(t.user()), None)?;
    let serve = move || serve(accept(&socket)?, errno);
    Ok((path.display().to_string(), thread::spawn(serve)))
}

fn serve(connection: UnixStream, errno: i32) -> Result<Told> {
    let (listener, words) = kernel::receive_fd(connection.as_fd())?;
    let mut told = Told {
        state: serde_json::from_slice(&words)?,
        asked: Vec::new(),
    };
    // Readable: a question. Without readers, hung up: RECV says ENOENT.
    while kernel::readable_within(listener.as_fd(), machine().patience())? {
        let question = match kernel::seccomp_receive(listener.as_fd()) {
            Ok(question) => question,
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
            Err(_) => break,
        };
        let number = libc::c_long::from(question.number);
        told.asked.push(question.number);
        let refuse = [libc::SYS_mkdir, libc::SYS_mkdirat].contains(&number);
        let answer = Answer {
            id: question.id,
            value: 0,
            error: if refuse { -errno } else { 0 },
            flags: u32::from(!refuse),
        };
        // The one that asked may be gone: the next question says so.
        let _ = kernel::seccomp_answer(listener.as_fd(), answer);
    }
    Ok(told)
}

fn asking(t: &Place, names: &[&str], agent: &str) -> Bundle {
    ask(profile(t, json!([])), names, agent)
}

fn ask(bundle: Bundle, names: &[&str], agent: &str) -> Bundle {
    let calls = json!([{ "names": names, "action": "SCMP_ACT_NOTIFY" }]);
    bundle
        .set("/linux/seccomp/syscalls", calls)
        .set("/linux/seccomp/listenerPath", agent)
        .set("/linux/seccomp/listenerMetadata", "for the agent")
}

fn an_agent_answers_for_the_container(t: &Place) -> Result<()> {
    let (path, agent) = agent(t, libc::ENOSPC)?;
    let bundle = asking(t, &["mkdir", "mkdirat"], &path)
        .set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_LOG"]))
        .set("/annotations", json!({ "who": "me" }))
        .sh("mkdir /tmp/x 2>&1; ls /proc/self/fd | wc -l");
    let c = t.create(&bundle)?;
    c.start()?;
    c.ended()?;
    let out = c.output();
    assert!(out.contains("No space left on device"), "{out}");
    // 0, 1, 2 and that of the directory: the listener is not the container's.
    assert!(out.trim_end().ends_with('4'), "{out}");
    let told = agent.join().expect("the agent")?;
    assert_eq!(told.state["fds"], json!(["seccompFd"]));
    assert_eq!(told.state["pid"], c.pid);
    assert_eq!(told.state["metadata"], "for the agent");
    let state = &told.state["state"];
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "creating");
    assert_eq!(state["pid"], c.pid);
    assert_eq!(state["bundle"], bundle.dir.display().to_string());
    assert_eq!(state["annotations"], json!({ "who": "me" }));
    assert_eq!(told.asked.len(), 1, "{:?}", told.asked);
    c.delete()
}

/// Whatever init still does is asked about, and goes on: only write(2) may not be.
fn an_agent_may_be_asked_about_all_that_init_does(t: &Place) -> Result<()> {
    let names = [
        "execve",
        "read",
        "close",
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
        "prctl",
        "chdir",
        "sendmsg",
        "openat",
        "newfstatat",
        "access",
        "faccessat",
        "faccessat2",
        "prlimit64",
        "close_range",
    ];
    for no_new_privileges in [true, false] {
        let (path, agent) = agent(t, libc::ENOSPC)?;
        let bundle = asking(t, &names, &path)
            .set("/process/noNewPrivileges", no_new_privileges)
            .args(&["true"]);
        t.run(&bundle)?.ok();
        let told = agent.join().expect("the agent")?;
        let execve = libc::SYS_execve as i32;
        assert!(told.asked.contains(&execve), "{:?}", told.asked);
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn an_agent_decides_without_no_new_privileges_too(t: &Place) -> Result<()> {
    let (path, agent) = agent(t, libc::EXDEV)?;
    let bundle = asking(t, &["mkdir", "mkdirat"], &path)
        .set("/process/noNewPrivileges", false)
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .sh("mkdir /tmp/x 2>&1");
    let out = t.run(&bundle)?.stdout;
    assert!(out.contains("Invalid cross-device link"), "{out}");
    agent.join().expect("the agent")?;
    Ok(())
}

/// Each process that loads the profile brings a listener of its own.
fn an_agent_answers_for_one_more_process_too(t: &Place) -> Result<()> {
    let path = t.path("agent.sock");
    let socket = UnixListener::bind(&path)?;
    let bundle = asking(t, &["mkdir", "mkdirat"], &path.display().to_string());
    let c = t.create(&bundle.args(&["sleep", "1000"]))?;
    // Before there is a second one who would take it.
    let connection = accept(&socket)?;
    let first: Agent = thread::spawn(move || serve(connection, libc::ENOSPC));
    c.start()?;
    let second: Agent = thread::spawn(move || serve(accept(&socket)?, libc::EXDEV));
    let out = t.call([
        "exec",
        &c.id,
        "sh",
        "-c",
        "mkdir /tmp/x; ls /proc/self/fd | wc -l",
    ])?;
    assert!(out.stderr.contains("Invalid cross-device link"), "{out:?}");
    assert_eq!((out.status, out.stdout.trim()), (0, "4"), "{out:?}");
    let told = second.join().expect("the agent")?;
    assert_eq!(told.asked.len(), 1, "{:?}", told.asked);
    // The process is the new one, the state the container's.
    assert_ne!(told.state["pid"], c.pid);
    assert_eq!(told.state["metadata"], "for the agent");
    let state = &told.state["state"];
    assert_eq!((&state["id"], &state["pid"]), (&json!(c.id), &json!(c.pid)));
    assert_eq!(state["status"], "running");
    std::fs::remove_file(&path)?;
    let out = t.call(["exec", &c.id, "true"])?;
    assert_eq!(out.status, 255, "{out:?}");
    assert!(out.stderr.contains("agent.sock"), "{out:?}");
    assert_eq!(c.status()?, "running");
    c.end()?;
    assert!(first.join().expect("the agent")?.asked.is_empty());
    Ok(())
}

/// Whose runtime has no power over a process that is not dumpable: the descriptor must be sent.
fn an_agent_answers_for_an_ordinary_user(t: &Place) -> Result<()> {
    let profiled = || profile(t, json!([]));
    let range = profiled()
        .with_range()?
        .set("/process/user", json!({ "uid": 5, "gid": 6 }));
    let all = [
        profiled().rootless()?,
        profiled().rootless()?,
        range.clone(),
        range,
    ];
    t.be_ann(false)?;
    for (i, bundle) in all.into_iter().enumerate() {
        let (path, first) = agent(t, libc::ENOSPC)?;
        let bundle = ask(bundle, &["mkdir", "mkdirat", "sendmsg", "setresuid"], &path)
            .set("/process/noNewPrivileges", i % 2 == 0)
            .sh("mkdir /tmp/x 2>&1; sleep 1000");
        let c = t.create(&bundle)?;
        c.start()?;
        until("the agent's answer", || {
            c.output().contains("No space left on device")
        });
        std::fs::remove_file(&path)?;
        let (path, second) = agent(t, libc::EXDEV)?;
        let out = t.call(["exec", &c.id, "mkdir", "/tmp/x"])?;
        assert!(out.stderr.contains("Invalid cross-device link"), "{out:?}");
        assert!(!second.join().expect("the agent")?.asked.is_empty());
        c.end()?;
        let told = first.join().expect("the agent")?;
        assert_eq!(told.state["pid"], c.pid);
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

/// What has brought the listener is gone without a trace when the program begins.
fn an_agent_leaves_the_container_no_child(t: &Place) -> Result<()> {
    let (path, agent) = agent(t, libc::ENOSPC)?;
    let names = ["mkdir", "wait4", "waitid"];
    // The shell knows before it makes a child.
    let bundle = asking(t, &names, &path).sh("echo /proc/[0-9]*");
    assert_eq!(t.run(&bundle)?.text(), "/proc/1");
    agent.join().expect("the agent")?;
    Ok(())
}

fn an_agent_and_hooks_at_start_go_together(t: &Place) -> Result<()> {
    let (path, agent) = agent(t, libc::ENOSPC)?;
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state; exit 0"] });
    let bundle = asking(t, &["mkdir"], &path)
        .set("/hooks", json!({ "startContainer": [hook] }))
        .args(&["cat", "/tmp/state"]);
    let out = t.run(&bundle)?.text();
    assert!(out.contains("\"status\""), "{out}");
    agent.join().expect("the agent")?;
    Ok(())
}

/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19): once the agent has read the question, a signal
/// with a handler does not take it back (seccomp_unotify(2)). Without it, the question is asked again.
fn an_agents_question_outlives_a_signal(t: &Place) -> Result<()> {
    for (flags, asked) in [
        (json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), 1),
        (json!([]), 2),
    ] {
        let path = t.path("agent.sock");
        let socket = UnixListener::bind(&path)?;
        let bundle = asking(t, &["mkdir", "mkdirat"], &path.display().to_string())
            .set("/linux/seccomp/flags", flags)
            .args(&["/probe", "mkdir-and-handle", "/tmp/x"]);
        let slow: Agent = thread::spawn(move || {
            let (listener, words) = kernel::receive_fd(accept(&socket)?.as_fd())?;
            let mut told = Told {
                state: serde_json::from_slice(&words)?,
                asked: Vec::new(),
            };
            while kernel::readable_within(listener.as_fd(), machine().patience())? {
                let question = match kernel::seccomp_receive(listener.as_fd()) {
                    Ok(question) => question,
                    Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
                    Err(_) => break,
                };
                told.asked.push(question.number);
                if told.asked.len() == 1 {
                    kernel::kill(question.pid as i32, libc::SIGUSR1)?;
                    // Given to a handler, it is pending no more.
                    let killable = machine().is("sc-runtime") && asked == 1;
                    until("the signal", || killable || !pending(question.pid));
                }
                let answer = Answer {
                    id: question.id,
                    value: 0,
                    error: -libc::ENOSPC,
                    flags: 0,
                };
                // Taken back: the next one is the same question again.
                let _ = kernel::seccomp_answer(listener.as_fd(), answer);
            }
            Ok(told)
        });
        // First, as nobody asks the agent of a container that was not made.
        assert_eq!(t.run(&bundle)?.text(), "handled 1, errno 28");
        let told = slow.join().expect("the agent")?;
        assert_eq!(told.asked.len(), asked);
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Whether SIGUSR1 waits for the process.
fn pending(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
    let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & 1 << (libc::SIGUSR1 - 1) != 0)
}

fn an_agent_that_is_not_there_is_an_error(t: &Place) -> Result<()> {
    let bundle = asking(t, &["mkdir"], &t.path("nobody.sock").display().to_string());
    t.create_fails(&bundle, &["nobody.sock"]);
    let without = bundle.remove("/linux/seccomp/listenerPath");
    t.create_fails(&without, &["istener"]);
    Ok(())
}

fn an_agent_cannot_decide_over_write(t: &Place) -> Result<()> {
    let bundle = asking(t, &["mkdir", "write"], "/nowhere");
    t.create_fails(&bundle, &["SCMP_ACT_NOTIFY cannot be used for", "write"]);
    Ok(())
}
