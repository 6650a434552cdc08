//! `exec`: one more process in a container that is there. Where it is, who it is, how it ends, and
//! what of the host it must not have.

use crate::harness::place::{accept, until};
use crate::harness::{
    Bundle, Container, Context, Need, Outcome, Place, Result, Value, json, kernel, machine,
};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;

const OLD: [Need; 2] = [
    Need::Beyond("runc", "1.1.5 lacks it"),
    Need::Beyond("crun", "1.8 lacks it"),
];

tests! {
    it_is_in_every_namespace_and_the_cgroup_of_the_container,
    its_end_is_the_answer,
    what_cannot_be_executed_is_255_in_runcs_words,
    wrong_options_are_refused_by_name [OLD[1]],
    a_paused_container_is_refused_unless_asked_for [Need::Beyond("crun", "1.8 does not look")],
    a_stopped_container_is_refused,
    a_created_container_can_be_entered,
    the_process_is_the_containers_own_but_for_what_is_typed,
    capabilities_are_added_but_never_inherited [OLD[1]],
    no_new_privileges_can_be_set_and_taken_back [OLD[1]],
    a_process_file_describes_all_of_it [OLD[0], OLD[1]],
    a_process_file_that_says_little_takes_over_from_the_container [OLD[1]],
    processors_are_set_before_and_after [OLD[0], OLD[1]],
    the_containers_seccomp_profile_holds,
    nothing_of_the_callers_leaks,
    preserved_descriptors_are_passed,
    a_preserved_descriptor_that_is_not_open_is_an_error [
        Need::Beyond("runc", "1.1.5 does not look"), Need::Beyond("crun", "1.8 ignores it")],
    a_working_directory_outside_the_root_is_refused,
    a_detached_process_has_a_pid_file_and_a_pidfd [OLD[0], OLD[1]],
    what_cannot_be_handed_out_ends_the_process,
    signals_are_forwarded,
    a_terminal_is_of_the_containers_devpts [Need::Beyond("runc", "1.1.5 sets the size a moment after the process has begun")],
    a_terminal_is_handed_to_the_console_socket,
    terminals_without_a_holder_are_refused [Need::Beyond("crun", "1.8 has other rules")],
    a_container_in_a_user_namespace_is_entered,
    a_user_namespace_that_was_joined_is_entered [Need::Beyond("runc", "1.1.5 wants the maps again")],
    a_joined_pid_namespace_is_entered,
    a_time_namespace_is_entered [OLD[0], OLD[1]],
    a_container_without_a_mount_namespace_is_entered [OLD[0], OLD[1]],
    a_cgroup_below_can_be_chosen [OLD[1]],
    a_container_that_has_divided_its_cgroup_is_entered [Need::Controller("pids"), OLD[1]],
    many_at_once_all_come_through,
    a_failure_leaves_the_container_as_it_was,
}

fn exec(c: &Container, flags: &[&str], command: &[&str]) -> Result<Outcome> {
    let words = ["exec"].iter().chain(flags).copied();
    c.place
        .call(words.chain([c.id.as_str()]).chain(command.iter().copied()))
}

/// What the probe sees as one more process.
fn see(c: &Container, flags: &[&str]) -> Result<Value> {
    let out = exec(c, flags, &["/probe"])?.text();
    serde_json::from_str(&out).with_context(|| out)
}

/// Writes a process.json that is the probe's, but for `more`.
fn process_file(t: &Place, more: Value) -> Result<String> {
    let mut all = json!({ "args": ["/probe"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"] });
    for (key, value) in more.as_object().context("an object")? {
        all[key] = value.clone();
    }
    let path = t.path(&format!("process-{}.json", t.next_number()));
    fs::write(&path, all.to_string())?;
    Ok(path.display().to_string())
}

fn see_process(c: &Container, more: Value) -> Result<Value> {
    let file = process_file(c.place, more)?;
    let out = exec(c, &["--process", &file], &[])?.text();
    serde_json::from_str(&out).with_context(|| out)
}

fn started<'p>(t: &'p Place, bundle: Bundle) -> Result<Container<'p>> {
    let c = t.create(&bundle.args(&["sleep", "1000"]))?;
    c.start()?;
    Ok(c)
}

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// Namespaces, root and cgroup of a process, as the host sees them.
fn whereabouts(pid: i32) -> Vec<String> {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let mut all: Vec<String> = KINDS
        .iter()
        .map(|kind| link(&format!("ns/{kind}")).display().to_string())
        .collect();
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    all.extend(
        cgroups
            .lines()
            .find(|l| l.starts_with("0::"))
            .map(String::from),
    );
    all.push(link("root").display().to_string());
    all
}

/// A process that sleeps in the container, by its pid on the host.
fn sleeping(c: &Container, flags: &[&str]) -> Result<i32> {
    let file = c.place.path(&format!("pid-{}", c.place.next_number()));
    let name = file.display().to_string();
    let mut all = vec!["--detach", "--pid-file", &name];
    all.extend(flags);
    exec(c, &all, &["sleep", "1000"])?.ok();
    let text = fs::read_to_string(&file)?;
    assert!(text.bytes().all(|b| b.is_ascii_digit()), "{text:?}");
    Ok(text.parse()?)
}

fn is_where_init_is(c: &Container) -> Result<()> {
    let pid = sleeping(c, &[])?;
    assert_eq!(whereabouts(pid), whereabouts(c.pid));
    Ok(())
}

fn it_is_in_every_namespace_and_the_cgroup_of_the_container(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    is_where_init_is(&c)?;
    let seen = see(&c, &[])?;
    assert_eq!(seen["hostname"], "box");
    assert_ne!(seen["pid"], json!(1));
    assert_eq!(seen["ppid"], json!(0));
    assert_eq!(seen["sid"], seen["pid"]);
    c.end()
}

fn its_end_is_the_answer(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let out = exec(&c, &[], &["sh", "-c", script])?;
        assert_eq!((out.status, out.stderr.as_str()), (status, ""), "{script}");
    }
    let out = exec(&c, &[], &["sh", "-c", "echo out; echo err >&2"])?;
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
    // What looks like an option belongs to the command.
    let out = exec(&c, &[], &["echo", "--detach", "-e", "--"])?.text();
    assert_eq!(out, "--detach -e --");
    c.end()
}

fn what_cannot_be_executed_is_255_in_runcs_words(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (command, words) in [
        (
            &["nosuch"][..],
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        (
            &["/nosuch"],
            "exec: \"/nosuch\": stat /nosuch: no such file or directory",
        ),
        (&["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
        (&["/etc"], "permission denied"),
    ] {
        let words = [&format!(
            "exec failed: unable to start container process: {words}"
        )];
        match command {
            ["/etc"] => exec(&c, &[], command)?.fails_with(255, &["exec failed: ", "denied"]),
            _ => exec(&c, &[], command)?.fails_with(255, &words.map(String::as_str)),
        };
    }
    exec(&c, &[], &[])?.fails_with(255, &["exec failed: process args cannot be empty"]);
    t.call(["exec", "nobody", "true"])?
        .fails_with(255, &["exec failed: container does not exist"]);
    c.end()
}

fn wrong_options_are_refused_by_name(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (flags, word) in [
        (&["--user", "ann"][..], "ann"),
        (&["--user", "1:staff"], "staff"),
        (&["--user", "-1"], "must be in range 0-2147483647"),
        (&["--user", "4294967295"], "must be in range 0-2147483647"),
        (
            &["--additional-gids", "-5"],
            "additional-gids must be a positive number -5",
        ),
        (&["--cwd", "tmp"], "Cwd must be an absolute path"),
        (&["--cwd", "/nosuch"], "no such file or directory"),
        (&["--env", "ODD"], "invalid environment variable: \"ODD\""),
        (&["--process", "/nosuch.json"], "no such file or directory"),
        (
            &["--process-label", "a"],
            "selinux is disabled or not supported",
        ),
        (&["--cgroup", "nosuch"], "no such file or directory"),
        (
            &["--cgroup", "../runner"],
            "../runner is not a sub cgroup path",
        ),
        (&["--cgroup", "cpu:a"], "unknown controller cpu"),
        (
            &["--cgroup", "a", "--cgroup", "b"],
            "invalid --cgroup argument: a (missing <controller>: prefix)",
        ),
        (&["--cgroup", "a:b:c"], "invalid --cgroup argument: a:b:c"),
    ] {
        if word.contains("selinux") && fs::exists("/sys/fs/selinux/enforce")? {
            continue;
        }
        exec(&c, flags, &["true"])?.fails_with(255, &["exec failed: ", word]);
    }
    for (text, word) in [
        ("{", "exec failed: "),
        (
            r#"{"args": ["true"], "cwd": ""}"#,
            "Cwd property must not be empty",
        ),
        (r#"{"args": [], "cwd": "/"}"#, "args"),
    ] {
        let file = t.path("wrong.json");
        fs::write(&file, text)?;
        exec(&c, &["-p", &file.display().to_string()], &[])?.fails_with(255, &[word]);
    }
    t.call(["exec"])?.fails(&[]);
    c.end()
}

fn a_paused_container_is_refused_unless_asked_for(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    c.call("pause")?.ok();
    exec(&c, &[], &["true"])?.fails_with(
        255,
        &["exec failed: cannot exec in a paused container (use --ignore-paused to override)"],
    );
    let file = t.path("went-on").display().to_string();
    let waiting = t
        .runtime([
            "exec",
            "--ignore-paused",
            "--pid-file",
            &file,
            &c.id,
            "sh",
            "-c",
            "exit 5",
        ])
        .spawn()?;
    until("it is in the frozen cgroup", || {
        c.cgroup_file("cgroup.procs")
            .is_ok_and(|text| text.lines().count() == 2)
    });
    assert!(!fs::exists(&file)?, "it cannot have begun");
    c.call("resume")?.ok();
    assert_eq!(waiting.wait()?.status, 5);
    c.end()
}

fn a_stopped_container_is_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    c.kill("KILL")?.ok();
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    exec(&c, &[], &["true"])?.fails_with(255, &["cannot exec in a stopped container"]);
    exec(&c, &["--ignore-paused"], &["true"])?
        .fails_with(255, &["cannot exec in a stopped container"]);
    c.delete()
}

fn a_created_container_can_be_entered(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["sleep", "1000"]))?;
    assert_eq!(see(&c, &[])?["hostname"], "box");
    assert_eq!(c.status()?, "created");
    c.start()?;
    c.end()
}

fn the_process_is_the_containers_own_but_for_what_is_typed(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set(
            "/process/user",
            json!({ "uid": 1000, "gid": 1001, "additionalGids": [7] }),
        )
        .set("/process/cwd", "/tmp")
        .set("/process/oomScoreAdj", 55)
        .env("OWN=1");
    let c = started(t, bundle)?;
    let seen = see(&c, &[])?;
    assert_eq!(seen["uid"], "1000 1000 1000 1000");
    assert_eq!(seen["gid"], "1001 1001 1001 1001");
    assert_eq!(seen["groups"], "7");
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["oom_score_adj"], "55");
    assert_eq!(seen["no_new_privs"], "1");
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([1024, 1024]));
    let has = |seen: &Value, entry: &str| seen["env"].as_array().unwrap().contains(&json!(entry));
    assert!(
        has(&seen, "OWN=1") && has(&seen, "HOME=/home/ann"),
        "{}",
        seen["env"]
    );

    let flags = [
        "--cwd",
        "/etc",
        "-e",
        "A=1",
        "--env",
        "OWN=2",
        "-e",
        "A=2",
        "--user",
        "0:5",
        "-g",
        "8",
        "--additional-gids",
        "9",
    ];
    let seen = see(&c, &flags)?;
    assert_eq!(seen["uid"], "0 0 0 0");
    assert_eq!(seen["gid"], "5 5 5 5");
    assert_eq!(seen["groups"], "7 8 9");
    assert_eq!(seen["cwd"], "/etc");
    assert!(has(&seen, "A=2") && has(&seen, "OWN=2") && has(&seen, "HOME=/root"));
    assert!(!has(&seen, "OWN=1"));
    let seen = see(&c, &["--user=7"])?;
    assert_eq!(
        (&seen["uid"], &seen["gid"]),
        (&json!("7 7 7 7"), &json!("1001 1001 1001 1001"))
    );
    c.end()
}

fn capabilities_are_added_but_never_inherited(t: &Place) -> Result<()> {
    let c = started(t, t.bundle().caps(&["CAP_KILL"]))?;
    let kill = "0000000000000020";
    let both = "0000000000080020";
    let caps = see(&c, &[])?["caps"].clone();
    assert_eq!(
        (&caps["bounding"], &caps["effective"]),
        (&json!(kill), &json!(kill))
    );
    let caps = see(&c, &["--cap", "CAP_SYS_PTRACE"])?["caps"].clone();
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(caps[set], both, "{set}");
    }
    for set in ["inheritable", "ambient"] {
        assert_eq!(caps[set], "0000000000000000", "{set}");
    }
    let out = exec(&c, &["-c", "CAP_NOSUCH"], &["true"])?.ok();
    assert!(out.stderr.contains("CAP_NOSUCH"), "{}", out.stderr);
    c.end()
}

fn no_new_privileges_can_be_set_and_taken_back(t: &Place) -> Result<()> {
    for own in [true, false] {
        let c = started(t, t.bundle().set("/process/noNewPrivileges", own))?;
        let number = |set: bool| if set { "1" } else { "0" };
        assert_eq!(see(&c, &[])?["no_new_privs"], number(own));
        assert_eq!(see(&c, &["--no-new-privs"])?["no_new_privs"], "1");
        assert_eq!(see(&c, &["--no-new-privs=false"])?["no_new_privs"], "0");
        c.end()?;
    }
    Ok(())
}

fn a_process_file_describes_all_of_it(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let seen = see_process(
        &c,
        json!({
            "args": ["/probe", "see", "more"],
            "cwd": "/tmp",
            "user": { "uid": 1000, "gid": 1001, "additionalGids": [3, 4], "umask": 0o27 },
            "env": ["PATH=/bin", "X=y"],
            "capabilities": { "bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                              "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 99,
            "scheduler": { "policy": "SCHED_BATCH", "nice": 3 },
            "ioPriority": { "class": "IOPRIO_CLASS_IDLE", "priority": 0 },
            "terminal": false,
        }),
    )?;
    assert_eq!(seen["argv"], json!(["/probe", "see", "more"]));
    assert_eq!(seen["uid"], "1000 1000 1000 1000");
    assert_eq!(seen["groups"], "3 4");
    assert_eq!(seen["umask"], "0027");
    assert_eq!(seen["cwd"], "/tmp");
    assert_eq!(seen["env"], json!(["PATH=/bin", "X=y", "HOME=/home/ann"]));
    for set in [
        "inheritable",
        "permitted",
        "effective",
        "bounding",
        "ambient",
    ] {
        assert_eq!(seen["caps"][set], "0000000000000020", "{set}");
    }
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([77, 88]));
    assert_eq!(seen["no_new_privs"], "1");
    assert_eq!(seen["oom_score_adj"], "99");
    assert_eq!(seen["scheduler"]["policy"], json!(libc::SCHED_BATCH));
    assert_eq!(seen["scheduler"]["nice"], 3);
    assert_eq!(seen["io_priority"], json!([3, 0]));
    // The command that is typed besides is not looked at.
    let file = process_file(t, json!({ "args": ["echo", "from the file"] }))?;
    assert_eq!(
        exec(&c, &["-p", &file], &["echo", "typed"])?.text(),
        "from the file"
    );
    c.end()
}

fn a_process_file_that_says_little_takes_over_from_the_container(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .caps(&["CAP_KILL"])
        .set("/process/oomScoreAdj", 66)
        .set("/process/user", json!({ "uid": 5, "gid": 6 }));
    let c = started(t, bundle)?;
    let seen = see_process(&c, json!({}))?;
    assert_eq!(seen["caps"]["permitted"], "0000000000000020");
    assert_eq!(seen["oom_score_adj"], "66");
    assert_eq!(seen["no_new_privs"], "0");
    assert_eq!(seen["uid"], "0 0 0 0");
    let none = see_process(&c, json!({ "capabilities": {} }))?;
    assert_eq!(none["caps"]["bounding"], "0000000000000000");
    c.end()
}

fn processors_are_set_before_and_after(t: &Place) -> Result<()> {
    let bundle = t.bundle().set(
        "/process/execCPUAffinity",
        json!({ "initial": "0", "final": "0" }),
    );
    let c = started(t, bundle)?;
    assert_eq!(see(&c, &[])?["cpus"], "0");
    let all = see_process(&c, json!({ "execCPUAffinity": { "initial": "0" } }))?["cpus"].clone();
    if std::thread::available_parallelism()?.get() > 1 {
        assert_ne!(all, "0", "afterwards all that the cpuset has");
        let seen = see_process(&c, json!({ "execCPUAffinity": { "final": "1" } }))?;
        assert_eq!(seen["cpus"], "1");
    }
    let file = process_file(t, json!({ "execCPUAffinity": { "final": "8000" } }))?;
    exec(&c, &["-p", &file], &[])?.fails_with(255, &["process.execCPUAffinity.final"]);
    c.end()
}

fn the_containers_seccomp_profile_holds(t: &Place) -> Result<()> {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    for nnp in [true, false] {
        let bundle = t.bundle().set("/linux/seccomp", profile.clone());
        let c = started(t, bundle.set("/process/noNewPrivileges", nnp))?;
        assert_eq!(see(&c, &[])?["seccomp"], "2");
        let out = exec(&c, &[], &["mkdir", "/tmp/x"])?;
        assert!(out.stderr.contains("not implemented"), "{}", out.stderr);
        assert_eq!(see_process(&c, json!({}))?["seccomp"], "2");
        c.end()?;
    }
    Ok(())
}

fn nothing_of_the_callers_leaks(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let secret = t.path("secret");
    fs::write(&secret, "host")?;
    let out = t
        .runtime(["exec", &c.id, "/probe"])
        .fd(File::open(&secret)?, 3)?
        .fd(File::open("/")?, 7)?
        .run()?
        .text();
    let seen: Value = serde_json::from_str(&out)?;
    let fds = seen["fds"].as_object().context("fds")?;
    assert_eq!(fds.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(fds["0"], "/dev/null");
    if machine().is("sc-runtime") {
        let masks = exec(
            &c,
            &[],
            &["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"],
        )?
        .text();
        let mut words = masks.split_whitespace().skip(1).step_by(2);
        assert!(words.all(|mask| mask == "0000000000000000"), "{masks}");
    }
    c.end()
}

fn preserved_descriptors_are_passed(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let file = t.path("passed");
    fs::write(&file, "through the gate")?;
    let out = t
        .runtime([
            "exec",
            "--preserve-fds",
            "1",
            &c.id,
            "sh",
            "-c",
            "cat <&3; ls /proc/self/fd | wc -l",
        ])
        .fd(File::open(&file)?, 3)?
        .fd(File::open("/")?, 4)?
        .run()?
        .text();
    // 0 to 3, and the listing's own.
    assert_eq!(out, "through the gate5");
    c.end()
}

/// CVE-2024-21626: the numbers that the caller left free are those of the runtime's own directories.
fn a_preserved_descriptor_that_is_not_open_is_an_error(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for count in 1..12 {
        let count = count.to_string();
        t.runtime(["exec", "--preserve-fds", &count, &c.id, "true"])
            .run()?
            .fails_with(255, &[&format!("preserved-fd 3 (of {count})")]);
    }
    c.end()
}

/// CVE-2024-21626.
fn a_working_directory_outside_the_root_is_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for fd in 3..12 {
        for cwd in [
            format!("/proc/self/fd/{fd}"),
            format!("/proc/self/fd/{fd}/../.."),
        ] {
            let out = t
                .runtime(["exec", "--cwd", &cwd, &c.id, "/bin/busybox", "pwd"])
                .fd(File::open("/")?, 7)?
                .run()?;
            out.fails_with(255, &["exec failed: "]);
        }
    }
    c.end()
}

fn a_detached_process_has_a_pid_file_and_a_pidfd(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let socket = t.path("pidfd.sock");
    let listener = UnixListener::bind(&socket)?;
    let pid = sleeping(&c, &["--pidfd-socket", &socket.display().to_string()])?;
    let stream = accept(&listener)?;
    let (pidfd, _) = kernel::receive_fd(stream.as_fd())?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    assert!(info.contains(&format!("Pid:\t{pid}\n")), "{info}");
    assert_eq!(
        fs::read_to_string(format!("/proc/{pid}/comm"))?.trim(),
        "sleep"
    );
    kernel::kill(pid, libc::SIGKILL)?;
    assert!(kernel::ended_within(pidfd.as_fd(), machine().patience())?);
    c.end()
}

fn processes(c: &Container) -> usize {
    c.cgroup_file("cgroup.procs")
        .unwrap_or_default()
        .lines()
        .count()
}

fn what_cannot_be_handed_out_ends_the_process(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    exec(
        &c,
        &["-d", "--pid-file", "/nosuch/dir/pid"],
        &["sleep", "1000"],
    )?
    .fails_with(255, &[]);
    until("its end", || processes(&c) == 1);
    c.end()
}

fn signals_are_forwarded(t: &Place) -> Result<()> {
    let bundle = t.bundle();
    let file = bundle.inside("tmp/said");
    let c = started(t, bundle)?;
    let running = t
        .runtime(["exec", &c.id, "/probe", "say", "/tmp/said"])
        .spawn()?;
    let said = || fs::read_to_string(&file).unwrap_or_default();
    until("it listens", || said().contains("ready"));
    for (signal, name) in [
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGTERM, "SIGTERM"),
    ] {
        kernel::kill(running.pid(), signal)?;
        until(name, || said().contains(name));
    }
    assert_eq!(running.wait()?.status, 3);
    c.end()
}

fn a_terminal_is_of_the_containers_devpts(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let pty = nix::pty::openpty(None, None)?;
    kernel::set_window_size(pty.master.as_raw_fd(), 21, 77)?;
    let script = "tty; stty size; ls /dev/console 2>&1; exit 5";
    let running = t
        .runtime(["exec", "-t", &c.id, "sh", "-c", script])
        .fd(pty.slave.try_clone()?, 1)?
        .fd(pty.slave.try_clone()?, 2)?
        .stdin(pty.slave)
        .spawn()?;
    let mut text = String::new();
    let mut master = File::from(pty.master);
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = master.read(&mut bytes) {
        text += &String::from_utf8_lossy(&bytes[..n]);
    }
    assert_eq!(running.wait()?.status, 5, "{text}");
    assert!(text.contains("/dev/pts/0"), "{text:?}");
    assert!(text.contains("21 77"), "{text:?}");
    assert!(
        text.contains("No such file"),
        "no /dev/console was made: {text:?}"
    );
    c.end()
}

fn a_terminal_is_handed_to_the_console_socket(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let socket = t.path("tty.sock");
    let listener = UnixListener::bind(&socket)?;
    let more = json!({
        "args": ["sh", "-c", "read word; stty size; stat -c %u /dev/pts/0; echo \"got $word\"; read forever"],
        "terminal": true, "consoleSize": { "height": 33, "width": 99 },
        "user": { "uid": 1000, "gid": 1000 },
    });
    let file = process_file(t, more)?;
    let socket = socket.display().to_string();
    exec(
        &c,
        &["--detach", "--process", &file, "--console-socket", &socket],
        &[],
    )?
    .ok();
    let (master, name) = kernel::receive_fd(accept(&listener)?.as_fd())?;
    assert!(!name.is_empty());
    let mut master = File::from(master);
    master.write_all(b"hello\n")?;
    let mut text = String::new();
    while !text.contains("got hello") {
        let mut bytes = [0; 100];
        let n = master.read(&mut bytes)?;
        text += &String::from_utf8_lossy(&bytes[..n]);
    }
    assert!(text.contains("33 99\r\n1000\r\n"), "{text:?}");
    master.write_all(&[3])?; // ^C: it is the controlling terminal
    until("its end", || processes(&c) == 1);
    c.end()
}

fn terminals_without_a_holder_are_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    exec(&c, &["-t", "-d"], &["true"])?.fails_with(
        255,
        &["cannot allocate tty if runc will detach without setting console socket"],
    );
    exec(&c, &["--console-socket", "/nosuch"], &["true"])?.fails_with(
        255,
        &["cannot use console socket if runc will not detach or allocate tty"],
    );
    c.end()
}

fn a_container_in_a_user_namespace_is_entered(t: &Place) -> Result<()> {
    let c = started(t, t.bundle().user_namespace()?)?;
    is_where_init_is(&c)?;
    let seen = see(&c, &["--user", "1000:1000", "-g", "7"])?;
    assert_eq!(seen["uid"], "1000 1000 1000 1000");
    assert_eq!(seen["groups"], "7");
    let map = seen["uid_map"].as_str().context("a map")?;
    assert!(map.split_whitespace().eq(["0", "100000", "65536"]), "{map}");
    let pid = sleeping(&c, &["--user", "3"])?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    assert!(
        status.contains("Uid:\t100003\t100003\t100003\t100003"),
        "{status}"
    );
    let seen = see_process(
        &c,
        json!({ "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }], "oomScoreAdj": 3 }),
    )?;
    assert_eq!(seen["rlimits"]["RLIMIT_NOFILE"], json!([77, 88]));
    assert_eq!(seen["oom_score_adj"], "3");
    exec(&c, &["--user", "70000"], &["true"])?.fails_with(255, &["70000"]);
    c.end()
}

fn a_user_namespace_that_was_joined_is_entered(t: &Place) -> Result<()> {
    let first = started(t, t.bundle().user_namespace()?)?;
    let path = format!("/proc/{}/ns/user", first.pid);
    let bundle = t
        .bundle()
        .user_namespace()?
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    let c = started(t, bundle.join("user", path.as_ref()))?;
    is_where_init_is(&c)?;
    assert_eq!(whereabouts(c.pid)[6], whereabouts(first.pid)[6]);
    c.end()?;
    first.end()
}

fn a_joined_pid_namespace_is_entered(t: &Place) -> Result<()> {
    let first = t.sleeper()?;
    let path = format!("/proc/{}/ns/pid", first.pid);
    let c = started(t, t.bundle().join("pid", path.as_ref()))?;
    is_where_init_is(&c)?;
    let host = started(t, t.bundle().without_namespace("pid"))?;
    is_where_init_is(&host)?;
    for c in [host, c, first] {
        t.call(["delete", "--force", &c.id])?.ok();
    }
    Ok(())
}

fn a_time_namespace_is_entered(t: &Place) -> Result<()> {
    let bundle = t.bundle().namespace("time").set(
        "/linux/timeOffsets",
        json!({ "boottime": { "secs": 100_000_000 } }),
    );
    let c = started(t, bundle)?;
    is_where_init_is(&c)?;
    let seen = see(&c, &[])?;
    assert!(seen["boot_seconds"].as_i64().context("a number")? > 100_000_000);
    c.end()
}

fn a_container_without_a_mount_namespace_is_entered(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .without_namespace("mount")
        .without_namespace("pid")
        .set("/mounts", json!([]))
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    fs::write(bundle.inside("here"), "")?;
    let c = started(t, bundle)?;
    let out = exec(&c, &[], &["sh", "-c", "ls -d /here; ls /.."])?.text();
    assert!(out.starts_with("/here"), "{out}");
    assert!(!out.contains("\nusr"), "the host's root: {out}");
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

fn a_cgroup_below_can_be_chosen(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let below = c.cgroup().join("a/b");
    fs::create_dir_all(&below)?;
    for (path, dir) in [("a/b", "/a/b"), ("/a", "/a"), ("/", "")] {
        let pid = sleeping(&c, &["--cgroup", path])?;
        let expected = format!("{}{dir}", c.cgroup().display()).replace("/sys/fs/cgroup", "0::");
        let found = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        assert!(
            found.lines().any(|l| l == expected),
            "{path}: {found}, not {expected}"
        );
    }
    exec(&c, &["--cgroup", "a/../.."], &["true"])?.fails_with(255, &["is not a sub cgroup path"]);
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

/// runc issue 2356: what Docker in Docker does.
fn a_container_that_has_divided_its_cgroup_is_entered(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let inner = c.cgroup().join("init");
    fs::create_dir(&inner)?;
    fs::write(inner.join("cgroup.procs"), c.pid.to_string())?;
    fs::write(c.cgroup().join("cgroup.subtree_control"), "+pids")?;
    let pid = sleeping(&c, &[])?;
    assert_eq!(whereabouts(pid), whereabouts(c.pid));
    exec(&c, &["--cgroup", "/"], &["true"])?.fails_with(255, &["exec failed: "]);
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

fn many_at_once_all_come_through(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let count = if machine().in_guest { 10 } else { 30 };
    let all: Vec<_> = (0..count)
        .map(|n| {
            let script = format!("echo {n}; exit {n}");
            t.runtime(["exec", &c.id, "sh", "-c", &script]).spawn()
        })
        .collect::<Result<_>>()?;
    for (n, running) in all.into_iter().enumerate() {
        let out = running.wait()?;
        assert_eq!(
            (out.status, out.stdout.trim()),
            (n as i32, n.to_string().as_str()),
            "{}",
            out.stderr
        );
    }
    until("all have ended", || processes(&c) == 1);
    c.end()
}

fn a_failure_leaves_the_container_as_it_was(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let files = |dir: &std::path::Path| -> Result<Vec<_>> {
        let mut all: Vec<_> = fs::read_dir(dir)?
            .map(|e| Ok(e?.file_name()))
            .collect::<Result<_>>()?;
        all.sort();
        Ok(all)
    };
    let record = t.root.join(&c.id);
    let before = files(&record)?;
    for flags in [&["--cwd", "/nosuch"][..], &["--cgroup", "nosuch"], &["-d"]] {
        exec(&c, flags, &["nosuch"])?.fails_with(255, &[]);
    }
    until("no process of theirs", || processes(&c) == 1);
    assert_eq!(files(&record)?, before);
    assert_eq!(c.status()?, "running");
    c.end()
}
