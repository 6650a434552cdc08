//! What a process inside a container sees. The test program is static, so it is also the program
//! that tests put into a root file system: `/probe` prints one JSON object about itself and its
//! surroundings, and a few verbs do what a shell cannot.

use super::kernel;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Never returns: the exit status is the answer of a verb.
pub fn main(args: &[String]) -> ! {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let status = match words.get(1..).unwrap_or_default() {
        [] | ["see", ..] => {
            println!("{}", see());
            0
        }
        // probe hook NAME FILE [EXIT_STATUS]: appends what a hook sees to FILE.
        ["hook", name, file, rest @ ..] => {
            record_hook(name, Path::new(file));
            rest.first()
                .map_or(0, |status| status.parse().expect("a number"))
        }
        // probe open PATH: open for reading and writing, and print the result.
        ["open", path] => report(
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map(drop),
        ),
        ["read", path] => report(fs::File::open(path).map(drop)),
        ["mknod", path, major, minor] => {
            let (major, minor) = (major.parse().unwrap(), minor.parse().unwrap());
            report(kernel::mknod_char(Path::new(path), major, minor))
        }
        // probe eat MEBIBYTES: touches that much memory.
        ["eat", mebibytes] => eat(mebibytes.parse().expect("a number")),
        // probe fork COUNT: how many children could be had at once.
        ["fork", count] => fork_many(count.parse().expect("a number")),
        // probe mkdir-and-handle DIR: mkdir(2) with a handler for SIGUSR1, and what became of both.
        ["mkdir-and-handle", dir] => {
            kernel::count_signals(libc::SIGUSR1);
            let made = std::fs::create_dir(dir);
            let errno = made.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
            println!("handled {}, errno {errno}", kernel::counted_signals());
            0
        }
        // probe connect SOCKET TEXT: says it to a Unix socket.
        ["connect", socket, text] => {
            use std::io::Write;
            report(
                UnixStream::connect(socket)
                    .and_then(|mut stream| stream.write_all(text.as_bytes())),
            )
        }
        // probe tell SOCKET TEXT: one datagram.
        ["tell", socket, text] => report(
            UnixDatagram::unbound()
                .and_then(|datagram| datagram.send_to(text.as_bytes(), socket))
                .map(drop),
        ),
        ["queue", key] => report(kernel::make_message_queue(key.parse().unwrap()).map(drop)),
        // probe key-label: the security label of the session keyring.
        ["key-label"] => {
            println!(
                "{}",
                kernel::keyring_label().unwrap_or_else(|e| e.to_string())
            );
            0
        }
        // probe say FILE SIGNAL...: appends the name of each signal that arrives; ends at TERM.
        ["say", file] => say_signals(Path::new(file)),
        // probe spin: uses the processor until killed, or for ten minutes.
        ["spin"] => spin(),
        // probe adopt COMMAND...: a parent of orphans that never reaps.
        ["adopt", command @ ..] => adopt(command),
        other => {
            eprintln!("probe: {other:?} is not a verb");
            64
        }
    };
    std::process::exit(status)
}

fn report(result: std::io::Result<()>) -> i32 {
    match result {
        Ok(()) => println!("ok"),
        Err(e) => println!("{}", e.raw_os_error().map_or(e.to_string(), errno_name)),
    }
    0
}

fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

fn eat(mebibytes: usize) -> i32 {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        let mut block = vec![0u8; 1 << 20];
        for page in block.chunks_mut(4096) {
            page[0] = 1;
        }
        held.push(block);
    }
    println!("ate {}", std::hint::black_box(&held).len());
    0
}

fn fork_many(count: usize) -> i32 {
    let mut children = Vec::new();
    let mut refused = None;
    for _ in 0..count {
        // SAFETY: the probe has one thread, and the child only waits.
        match unsafe { nix::unistd::fork() } {
            Ok(nix::unistd::ForkResult::Child) => loop {
                nix::unistd::pause();
            },
            Ok(nix::unistd::ForkResult::Parent { child }) => children.push(child),
            Err(e) => {
                refused = Some(e);
                break;
            }
        }
    }
    println!("{} {refused:?}", children.len());
    for child in children {
        let _ = kernel::kill(child.as_raw(), libc::SIGKILL); // its own child: it is there
    }
    0
}

fn say_signals(file: &Path) -> i32 {
    use nix::sys::signal::{SigSet, Signal};
    use std::io::Write;
    let mut wanted = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGHUP,
        Signal::SIGWINCH,
        Signal::SIGINT,
    ] {
        wanted.add(signal);
    }
    wanted.thread_block().expect("block");
    let mut out = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .expect("open");
    writeln!(out, "ready").expect("write");
    loop {
        let signal = wanted.wait().expect("sigwait");
        writeln!(out, "{signal:?}").expect("write");
        if signal == Signal::SIGTERM {
            return 3;
        }
    }
}

fn spin() -> i32 {
    let end = Instant::now() + Duration::from_secs(600);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    0
}

fn adopt(command: &[&str]) -> i32 {
    kernel::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).expect("subreaper");
    let status = std::process::Command::new(command[0])
        .args(&command[1..])
        .status()
        .expect("spawn");
    println!("{status}");
    // Until our standard input is closed: the test says when the zombies may go.
    let _ = std::io::stdin().read(&mut [0]);
    0
}

fn record_hook(name: &str, file: &Path) {
    let mut state = String::new();
    let _ = std::io::stdin().read_to_string(&mut state); // an empty state is what the test will see
    let record = json!({
        "hook": name,
        "state": serde_json::from_str::<Value>(&state).unwrap_or(Value::String(state)),
        "argv": std::env::args().collect::<Vec<_>>(),
        "env": environment(),
        "cwd": std::env::current_dir().unwrap_or_default(),
        "ns": namespaces(),
        "root": fs::metadata("/").map(|m| format!("{}:{}", m.dev(), m.ino())).unwrap_or_default(),
        "fds": descriptors(),
    });
    use std::io::Write;
    let mut out = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .expect("open the hook's file");
    out.write_all(format!("{record}\n").as_bytes())
        .expect("write the hook's file");
}

fn environment() -> Vec<String> {
    std::env::vars_os()
        .map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy()))
        .collect()
}

fn namespaces() -> Value {
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    names
        .iter()
        .map(|name| {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
            (name.to_string(), json!(link))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Number -> what it refers to. The descriptor that reads the listing is left out.
fn descriptors() -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
    {
        let number = entry.file_name().to_string_lossy().into_owned();
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        if !(target.starts_with("/proc/") && target.ends_with("/fd")) {
            found.insert(number, target.into());
        }
    }
    found.into()
}

fn text(path: &str) -> Value {
    fs::read_to_string(path).map_or(Value::Null, |s| s.trim().into())
}

/// Everything, in one object.
pub fn see() -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let status: Map<String, Value> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| {
            (
                key.to_string(),
                value
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
                    .into(),
            )
        })
        .collect();
    let of_status = |key: &str| status.get(key).cloned().unwrap_or(Value::Null);
    let uts = nix::sys::utsname::uname().expect("uname");
    let sched = kernel::sched_getattr().unwrap_or_default();
    let mut process = json!({
        "argv": std::env::args().collect::<Vec<_>>(),
        "env": environment(),
        "cwd": std::env::current_dir().map_or(Value::Null, |d| json!(d)),
        "exe": fs::read_link("/proc/self/exe").unwrap_or_default(),
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "sid": nix::unistd::getsid(None).map_or(-1, |p| p.as_raw()),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "uid": of_status("Uid"), "gid": of_status("Gid"), "groups": of_status("Groups"),
        "umask": of_status("Umask"),
        "caps": {
            "inheritable": of_status("CapInh"), "permitted": of_status("CapPrm"),
            "effective": of_status("CapEff"), "bounding": of_status("CapBnd"), "ambient": of_status("CapAmb"),
        },
        "no_new_privs": of_status("NoNewPrivs"),
        "seccomp": of_status("Seccomp"),
        "signals": { "blocked": of_status("SigBlk"), "ignored": of_status("SigIgn") },
        "cpus": of_status("Cpus_allowed_list"),
        "threads": of_status("Threads"),
        "rlimits": rlimits(),
        "oom_score_adj": text("/proc/self/oom_score_adj"),
        "scheduler": { "policy": sched.policy, "nice": sched.nice, "flags": sched.flags, "priority": sched.priority,
                       "runtime": sched.runtime, "deadline": sched.deadline, "period": sched.period },
        "io_priority": kernel::ioprio().map_or(Value::Null, |(class, level)| json!([class, level])),
        "personality": kernel::personality(),
        "mempolicy": kernel::mempolicy().map_or(Value::Null, |(mode, nodes)| json!([mode, nodes])),
        "dumpable": kernel::prctl(libc::PR_GET_DUMPABLE, 0).unwrap_or(-1),
    });
    let surroundings = json!({
        "hostname": uts.nodename().to_string_lossy(), "domainname": uts.domainname().to_string_lossy(),
        "ns": namespaces(),
        "uid_map": text("/proc/self/uid_map"), "gid_map": text("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"),
        "time_offsets": text("/proc/self/timens_offsets"),
        "boot_seconds": kernel::boot_seconds(),
        "cgroup": text("/proc/self/cgroup"),
        "mounts": mounts(),
        "dev": device_listing(Path::new("/dev")),
        "fds": descriptors(),
        "terminal": ([0, 1, 2].map(kernel::is_terminal)),
        "window": kernel::window_size(0).map_or(Value::Null, |(rows, columns)| json!([rows, columns])),
        "lo": kernel::interface_flags("lo").map_or(Value::Null, |f| json!({ "up": f & libc::IFF_UP != 0 })),
        "links": links(),
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut process, surroundings) {
        all.extend(more);
    }
    process
}

fn rlimits() -> Value {
    let names = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let (soft, hard) = kernel::rlimit(number as u32).expect("getrlimit");
            (format!("RLIMIT_{name}"), json!([soft, hard]))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// /proc/self/mountinfo, a list in its own order.
fn mounts() -> Value {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table
        .lines()
        .filter_map(mount_entry)
        .collect::<Vec<_>>()
        .into()
}

fn mount_entry(line: &str) -> Option<Value> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let sorted = |options: &str| {
        let mut options: Vec<String> = options.split(',').map(String::from).collect();
        options.sort();
        options
    };
    Some(json!({
        "root": left[3], "target": left[4], "options": sorted(left[5]),
        // Peer group numbers are the kernel's own counting.
        "propagation": left[6..].iter().map(|tag| tag.split(':').next()).collect::<Vec<_>>(),
        "type": right[0], "source": right[1], "super": sorted(right.get(2).unwrap_or(&"")),
    }))
}

fn device_listing(dir: &Path) -> Value {
    let mut found = Map::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else {
            continue;
        };
        let kind = meta.file_type();
        let described = if kind.is_symlink() {
            format!(
                "-> {}",
                fs::read_link(entry.path()).unwrap_or_default().display()
            )
        } else {
            let letter = match () {
                () if kind.is_char_device() => 'c',
                () if kind.is_block_device() => 'b',
                () if kind.is_dir() => 'd',
                () if kind.is_fifo() => 'p',
                () if kind.is_socket() => 's',
                () => 'f',
            };
            let device = meta.rdev();
            let numbers = match letter {
                'c' | 'b' => format!(" {}:{}", libc::major(device), libc::minor(device)),
                _ => String::new(),
            };
            format!(
                "{letter} {:04o} {}:{}{numbers}",
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid()
            )
        };
        found.insert(
            entry.file_name().to_string_lossy().into_owned(),
            described.into(),
        );
    }
    found.into()
}

/// Names of the network interfaces.
fn links() -> Value {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = table
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_string()));
    names.collect::<Vec<_>>().into()
}
