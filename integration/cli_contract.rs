//! What engines rely on beyond the verbs: spelling of flags, log file, version, spec, descriptors.

use crate::harness::command::Call;
use crate::harness::place::accept;
use crate::harness::{Bundle, Context, Need, Place, Result, Value, json, kernel, machine};
use crate::lifecycle::is_rfc3339;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

const AFTER: Need = Need::Beyond("runc", "1.1.5 stops at the first positional; 1.5 does not");
const DASH: Need = Need::Beyond(
    "crun",
    "it has GNU flags; containerd's `-no-subreaper` fails with it",
);
const WARNS: Need = Need::Beyond("runc", "1.1.5 warns of a missing memory.events first");
const LOG: Need = Need::Beyond("crun", "1.8 writes its log in a form of its own");

tests! {
    single_dash_long_flags_are_accepted [DASH],
    flags_take_their_value_after_an_equals_sign,
    flags_may_follow_the_id [AFTER, Need::Beyond("crun", "1.8 stops at the first positional")],
    the_argv_of_containerd_is_understood [DASH, LOG],
    the_argv_of_conmon_is_understood [LOG],
    a_failure_is_one_json_object_in_the_log [LOG, WARNS],
    the_log_is_appended_to [LOG, WARNS],
    a_text_log_is_a_line_with_its_level [LOG],
    success_logs_no_error [LOG],
    debug_lines_are_json_too_and_the_error_comes_last [LOG],
    an_unwritable_log_is_an_error,
    version_names_the_program_the_commit_and_the_spec,
    help_describes_every_command,
    an_unknown_command_is_an_error,
    an_unknown_flag_is_an_error,
    a_missing_id_is_an_error,
    two_ids_are_an_error [Need::Beyond("crun", "1.8 ignores the second")],
    an_unknown_log_format_is_an_error [Need::Beyond("crun", "1.8 says so only when it logs")],
    features_are_those_of_the_spec [Need::Beyond("runc", "1.1.5 knows fewer"), Need::Beyond("crun", "1.8 has no features")],
    features_lack_nothing_that_runc_has [Need::Program("runc"), Need::Beyond("crun", "1.8 has no features")],
    spec_writes_a_config_that_runs,
    spec_does_not_overwrite,
    preserved_descriptors_reach_the_process,
    listen_fds_reach_the_process [Need::Beyond("crun", "1.8 hands on the descriptors only")],
    a_preserved_descriptor_that_is_not_open_is_an_error [
        Need::Beyond("runc", "in 1.1.5 that number is a descriptor of its own, and is handed on"), Need::Beyond("crun", "1.8 ignores it")],
    no_other_descriptor_reaches_the_process,
    the_pidfd_socket_receives_the_process
        [Need::Beyond("runc", "1.1.5 has no --pidfd-socket"), Need::Beyond("crun", "it has an annotation instead")],
    no_pivot_starts_a_container,
    the_keyring_is_new_unless_refused,
}

fn ready(t: &Place, bundle: &Bundle) -> Result<(String, String)> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    Ok((bundle.dir.display().to_string(), id))
}

fn single_dash_long_flags_are_accepted(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["true"]))?;
    let pid_file = t.path("pid").display().to_string();
    t.call(["create", "-bundle", &dir, "-pid-file", &pid_file, &id])?
        .ok();
    assert_eq!(t.call(["list", "-quiet"])?.text(), id);
    t.call(["delete", "-force", &id])?.ok();
    // containerd's go-runc spells exactly this one with one dash.
    t.call(["run", "-no-subreaper", "-bundle", &dir, &id])?.ok();
    Ok(())
}

fn flags_take_their_value_after_an_equals_sign(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["true"]))?;
    let pid_file = t.path("pid");
    t.call([
        "create",
        &format!("--bundle={dir}"),
        &format!("--pid-file={}", pid_file.display()),
        &id,
    ])?
    .ok();
    assert!(fs::read_to_string(pid_file)?.parse::<u32>().is_ok());
    if machine().is("crun") {
        return Ok(()); // its flags are GNU's
    }
    t.call(["delete", "--force=true", &id])?.ok();
    t.call(["create", &format!("-bundle={dir}"), &id])?.ok();
    Ok(())
}

fn flags_may_follow_the_id(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().sh("exec sleep 1000"))?;
    t.call(["create", &id, "--bundle", &dir])?.ok();
    t.call(["delete", &id, "--force"])?.ok();
    t.call(["run", &id, "-d", "-b", &dir])?.ok();
    t.call(["delete", &id, "-f"])?.ok();
    Ok(())
}

/// Survey 1.1: every word of it.
fn the_argv_of_containerd_is_understood(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().sh("exec sleep 1000"))?;
    let (log, pid) = (format!("{dir}/log.json"), format!("{dir}/init.pid"));
    let call = |args: &[&str]| t.call([&["--log", &log, "--log-format", "json"], args].concat());
    call(&[
        "create",
        "--bundle",
        &dir,
        "--pid-file",
        &pid,
        "--no-new-keyring",
        &id,
    ])?
    .ok();
    call(&["start", &id])?.ok();
    call(&["kill", &id, "9"])?.ok();
    let pid: i32 = fs::read_to_string(pid)?.parse()?;
    if let Ok(pidfd) = kernel::pidfd_open(pid) {
        kernel::ended_within(pidfd.as_fd(), machine().patience())?;
    }
    call(&["kill", "--all", &id, "9"])?.ok();
    call(&["delete", "--force", &id])?.ok();
    assert_eq!(fs::read_to_string(log).unwrap_or_default(), "");
    Ok(())
}

fn the_argv_of_conmon_is_understood(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().sh("exec sleep 1000"))?;
    let (log, pid) = (
        t.path("oci-log").display().to_string(),
        t.path("pidfile").display().to_string(),
    );
    t.call([
        "--log-format=json",
        "--log",
        &log,
        "create",
        "--bundle",
        &dir,
        "--pid-file",
        &pid,
        &id,
    ])?
    .ok();
    t.call(["start", &id])?.ok();
    t.call(["kill", &id, "9"])?.ok();
    t.call(["delete", "--force", &id])?.ok();
    Ok(())
}

/// A `create` that fails, with a JSON log; the log's lines.
fn failing_create(t: &Place, log: &Path, extra: &[&str]) -> Result<Vec<String>> {
    let (dir, id) = ready(t, &t.bundle().args(&["no-such-program"]))?;
    let log_name = log.display().to_string();
    let args = [
        extra,
        &[
            "--log",
            &log_name,
            "--log-format",
            "json",
            "create",
            "--bundle",
            &dir,
            &id,
        ],
    ]
    .concat();
    let out = t
        .call(args)?
        .fails(&["exec: \"no-such-program\": executable file not found in $PATH"]);
    // With --log there is nothing but the error itself on stderr: conmon hands it on as it is.
    assert_eq!(out.stderr.trim().lines().count(), 1, "{}", out.stderr);
    Ok(fs::read_to_string(log)?.lines().map(String::from).collect())
}

fn assert_is_error_record(line: &str) -> Result<()> {
    let record: Value = serde_json::from_str(line).with_context(|| line.to_string())?;
    let mut keys: Vec<&String> = record.as_object().context("an object")?.keys().collect();
    keys.sort();
    assert_eq!(keys, ["level", "msg", "time"]);
    assert_eq!(record["level"], "error");
    assert!(
        is_rfc3339(record["time"].as_str().context("a time")?),
        "{line}"
    );
    let message = record["msg"].as_str().context("a message")?;
    // podman makes exit status 127 of these words.
    assert!(
        message.contains("executable file not found in $PATH"),
        "{message}"
    );
    // runc's own prefix, which engines show: `runc create failed: ...`.
    assert!(
        message.contains("create failed: ") || machine().is("sc-runtime"),
        "{message}"
    );
    Ok(())
}

/// podman parses the whole file as one object.
fn a_failure_is_one_json_object_in_the_log(t: &Place) -> Result<()> {
    let lines = failing_create(t, &t.path("log"), &[])?;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_is_error_record(&lines[0])
}

fn the_log_is_appended_to(t: &Place) -> Result<()> {
    let log = t.path("log");
    fs::write(&log, "{\"before\":1}\n")?;
    failing_create(t, &log, &[])?;
    let lines = failing_create(t, &log, &[])?;
    assert_eq!((lines.len(), lines[0].as_str()), (3, "{\"before\":1}"));
    assert_is_error_record(&lines[1])?;
    assert_is_error_record(&lines[2])
}

fn a_text_log_is_a_line_with_its_level(t: &Place) -> Result<()> {
    let log = t.path("log");
    t.call(["--log", &log.display().to_string(), "state", "nobody"])?
        .fails(&["container does not exist"]);
    let text = fs::read_to_string(log)?;
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("level=error") && text.contains("container does not exist"),
        "{text}"
    );
    Ok(())
}

fn success_logs_no_error(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["true"]))?;
    let log = t.path("log").display().to_string();
    let out = t
        .call([
            "--log",
            &log,
            "--log-format",
            "json",
            "run",
            "--bundle",
            &dir,
            &id,
        ])?
        .ok();
    assert_eq!(out.stderr, "");
    assert_eq!(fs::read_to_string(log).unwrap_or_default(), "");
    Ok(())
}

fn debug_lines_are_json_too_and_the_error_comes_last(t: &Place) -> Result<()> {
    let lines = failing_create(t, &t.path("log"), &["--debug"])?;
    for line in &lines {
        let record: Value = serde_json::from_str(line).with_context(|| line.clone())?;
        assert!(
            is_rfc3339(record["time"].as_str().context("a time")?),
            "{line}"
        );
    }
    let last: Value = serde_json::from_str(lines.last().context("lines")?)?;
    assert_eq!(last["level"], "error");
    assert_eq!(
        lines
            .iter()
            .filter(|l| l.contains("\"level\":\"error\""))
            .count(),
        1,
        "{lines:#?}"
    );
    Ok(())
}

fn an_unwritable_log_is_an_error(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["true"]))?;
    let log = t.path("no/such/dir/log").display().to_string();
    t.call(["--log", &log, "create", "--bundle", &dir, &id])?
        .fails(&["no/such/dir/log"]);
    t.nothing_is_left();
    Ok(())
}

fn bare(t: &Place, args: &[&str]) -> Result<crate::harness::Outcome> {
    Call::new(t, &machine().runtime, args).run()
}

/// moby reads it by the line.
fn version_names_the_program_the_commit_and_the_spec(t: &Place) -> Result<()> {
    for flag in ["--version", "-v"] {
        let text = bare(t, &[flag])?.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with(&format!("{} version ", machine().flavour)),
            "{text}"
        );
        assert!(
            lines.iter().any(|l| l
                .strip_prefix("commit: ")
                .is_some_and(|c| !c.trim().is_empty())),
            "{text}"
        );
        assert!(
            lines.iter().any(|l| l.strip_prefix("spec: 1.").is_some()),
            "{text}"
        );
        if machine().is("crun") {
            break; // -v is --verbose's there
        }
    }
    Ok(())
}

fn help_describes_every_command(t: &Place) -> Result<()> {
    let text = bare(t, &["--help"])?.text();
    for command in [
        "create", "start", "run", "state", "list", "kill", "delete", "spec",
    ] {
        assert!(
            text.split_whitespace()
                .any(|word| word.trim_end_matches(',') == command),
            "{command}: {text}"
        );
        let help = bare(t, &[command, "--help"])?.text();
        assert!(help.contains(command), "{help}");
    }
    assert!(!text.to_lowercase().contains("not implemented"), "{text}");
    Ok(())
}

fn an_unknown_command_is_an_error(t: &Place) -> Result<()> {
    let out = bare(t, &["frobnicate"])?;
    assert_ne!(out.status, 0);
    assert!(out.stderr.contains("frobnicate"), "{out:?}");
    Ok(())
}

fn an_unknown_flag_is_an_error(t: &Place) -> Result<()> {
    for args in [
        &["--frobnicate", "list"][..],
        &["create", "--frobnicate", "x"],
        &["list", "-Z"],
    ] {
        let out = bare(t, args)?;
        assert_ne!(out.status, 0, "{args:?}");
        assert!(!out.stderr.is_empty(), "{args:?}");
    }
    t.nothing_is_left();
    Ok(())
}

fn a_missing_id_is_an_error(t: &Place) -> Result<()> {
    for verb in ["create", "run", "start", "state", "kill", "delete"] {
        let out = t.call([verb])?;
        assert_ne!(out.status, 0, "{verb}");
        assert!(
            !out.stderr.is_empty() || !out.stdout.is_empty(),
            "{verb} says nothing"
        );
    }
    Ok(())
}

fn two_ids_are_an_error(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["true"]))?;
    for verb in ["create", "run"] {
        assert_ne!(
            t.call([verb, "--bundle", &dir, &id, "another"])?.status,
            0,
            "{verb}"
        );
    }
    t.nothing_is_left();
    Ok(())
}

fn an_unknown_log_format_is_an_error(t: &Place) -> Result<()> {
    let out = t.call(["--log-format", "xml", "list"])?;
    assert_ne!(out.status, 0);
    assert!(out.message().contains("xml"), "{}", out.stderr);
    Ok(())
}

/// As containerd asks: without global options, and anything on stderr would spoil the JSON.
fn features_of(t: &Place, program: &Path) -> Result<Value> {
    let out = Call::new(t, program, ["features"]).run()?;
    assert_eq!((out.status, out.stderr.as_str()), (0, ""), "{out:?}");
    Ok(serde_json::from_str(&out.stdout)?)
}

fn features_are_those_of_the_spec(t: &Place) -> Result<()> {
    let all = features_of(t, &machine().runtime)?;
    assert_eq!(all["ociVersionMin"], "1.0.0");
    assert_eq!(all["ociVersionMax"], "1.3.0");
    let linux = &all["linux"];
    assert_eq!(
        linux["cgroup"],
        json!({ "v1": false, "v2": true, "systemd": true, "systemdUser": true, "rdma": true })
    );
    for (pointer, enabled) in [
        ("/seccomp/enabled", true),
        ("/apparmor/enabled", true),
        ("/selinux/enabled", true),
        ("/intelRdt/enabled", false),
        ("/mountExtensions/idmap/enabled", true),
        ("/netDevices/enabled", true),
    ] {
        assert_eq!(linux.pointer(pointer), Some(&json!(enabled)), "{pointer}");
    }
    let has = |list: &Value, name: &str| list.as_array().is_some_and(|l| l.contains(&json!(name)));
    assert!(has(&all["mountOptions"], "rro"), "{all}");
    assert!(has(&linux["namespaces"], "time"), "{all}");
    assert!(has(&linux["memoryPolicy"]["modes"], "MPOL_BIND"), "{all}");
    assert!(
        has(
            &linux["seccomp"]["supportedFlags"],
            "SECCOMP_FILTER_FLAG_LOG"
        ),
        "{all}"
    );
    assert!(
        has(
            &all["potentiallyUnsafeConfigAnnotations"],
            "org.systemd.property."
        ),
        "{all}"
    );
    t.call(["features", "more"])?.fails(&["more"]);
    Ok(())
}

/// Every name in a list of runc's is in ours, but for two flags of a file system that go to it as they are.
fn features_lack_nothing_that_runc_has(t: &Place) -> Result<()> {
    let runc = crate::harness::machine::program("runc").context("no runc")?;
    let (ours, theirs) = (features_of(t, &machine().runtime)?, features_of(t, &runc)?);
    for pointer in [
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/archs",
    ] {
        let names = |all: &Value| all.pointer(pointer).and_then(Value::as_array).cloned();
        let ours = names(&ours).context(pointer)?;
        let mut lacking = names(&theirs).context(pointer)?;
        lacking.retain(|name| !ours.contains(name) && name != "acl" && name != "noacl");
        assert!(lacking.is_empty(), "{pointer}: {lacking:?}");
    }
    Ok(())
}

fn spec_writes_a_config_that_runs(t: &Place) -> Result<()> {
    let bundle = t.bundle();
    let dir = bundle.dir.display().to_string();
    assert_eq!(t.call(["spec", "--bundle", &dir])?.ok().stdout, "");
    let file = bundle.dir.join("config.json");
    let config: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    assert_eq!(config["root"]["path"], "rootfs");
    assert_eq!(config["process"]["args"], json!(["sh"]));
    assert_eq!(config["process"]["terminal"], true); // terminal.rs runs it as it is
    assert!(
        config["linux"]["namespaces"]
            .as_array()
            .context("namespaces")?
            .len()
            >= 5
    );
    // Without a terminal nothing else has to change; the shell ends at the end of /dev/null.
    let bundle = Bundle { config, ..bundle }.set("/process/terminal", false);
    t.run(&bundle)?.ok();
    Ok(())
}

fn spec_does_not_overwrite(t: &Place) -> Result<()> {
    let dir = t.path("empty");
    fs::create_dir(&dir)?;
    t.runtime(["spec"]).current_dir(&dir).run()?.ok();
    let before = fs::read(dir.join("config.json"))?;
    t.runtime(["spec"])
        .current_dir(&dir)
        .run()?
        .fails(&["exists"]);
    assert_eq!(fs::read(dir.join("config.json"))?, before);
    Ok(())
}

/// Files whose names are their content, for handing their descriptors around.
fn named_file(t: &Place, name: &str) -> Result<File> {
    fs::write(t.path(name), name)?;
    Ok(File::open(t.path(name))?)
}

fn preserved_descriptors_reach_the_process(t: &Place) -> Result<()> {
    let (dir, id) = ready(
        t,
        &t.bundle()
            .sh("cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '"),
    )?;
    let call = t.runtime(["run", "--preserve-fds", "2", "--bundle", &dir, &id]);
    let out = call
        .fd(named_file(t, "three")?, 3)?
        .fd(named_file(t, "four")?, 4)?
        .fd(named_file(t, "five")?, 5)?;
    // 5 is where `ls` itself reads the directory: the container's own.
    assert_eq!(out.run()?.text(), "threefour0 1 2 3 4 5");
    Ok(())
}

/// sd_listen_fds(3): LISTEN_PID is the runtime's before, and the container's own after.
fn listen_fds_reach_the_process(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().sh("echo $LISTEN_FDS $LISTEN_PID; cat <&3"))?;
    let (runtime, root) = (machine().runtime.display(), t.root.display());
    let run =
        format!("LISTEN_PID=$$ LISTEN_FDS=1 exec {runtime} --root {root} run --bundle {dir} {id}");
    let sh = crate::harness::machine::program("sh").context("sh")?;
    let out = Call::new(t, &sh, ["-c", &run])
        .fd(named_file(t, "socket")?, 3)?
        .run()?;
    assert_eq!(out.text(), "1 1\nsocket");
    Ok(())
}

fn a_preserved_descriptor_that_is_not_open_is_an_error(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["true"]))?;
    t.call(["create", "--preserve-fds", "1", "--bundle", &dir, &id])?
        .fails(&["preserved-fd 3 (of 1)"]);
    t.nothing_is_left();
    Ok(())
}

fn no_other_descriptor_reaches_the_process(t: &Place) -> Result<()> {
    let (dir, id) = ready(t, &t.bundle().args(&["/probe"]))?;
    let call = t
        .runtime(["run", "--bundle", &dir, &id])
        .fd(named_file(t, "three")?, 3)?
        .fd(File::open("/")?, 17)?;
    let seen: Value = serde_json::from_str(&call.run()?.text())?;
    let numbers: Vec<&String> = seen["fds"].as_object().context("fds")?.keys().collect();
    assert_eq!(numbers, ["0", "1", "2"]);
    Ok(())
}

fn the_pidfd_socket_receives_the_process(t: &Place) -> Result<()> {
    let socket = t.path("pidfd.sock");
    let listener = UnixListener::bind(&socket)?;
    let c = t.create_with(
        &t.bundle().args(&["true"]),
        &["--pidfd-socket", &socket.display().to_string()],
    )?;
    let stream = accept(&listener)?;
    let (pidfd, _) = kernel::receive_fd(stream.as_fd())?;
    let mut info = String::new();
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?.read_to_string(&mut info)?;
    assert!(
        info.lines().any(|line| line == format!("Pid:\t{}", c.pid)),
        "{info}"
    );
    Ok(())
}

fn no_pivot_starts_a_container(t: &Place) -> Result<()> {
    let (dir, id) = ready(
        t,
        &t.bundle()
            .sh("test -x /probe && test ! -e /usr && echo inside"),
    )?;
    assert_eq!(
        t.call(["run", "--no-pivot", "--bundle", &dir, &id])?.text(),
        "inside"
    );
    Ok(())
}

/// /proc/keys shows the session keyring by its name.
fn the_keyring_is_new_unless_refused(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh("grep -c _ses.$0 /proc/keys")
        .edit(|c| c["linux"]["maskedPaths"] = json!([]));
    let run = |flags: &[&str]| -> Result<i32> {
        let id = t.fresh_id();
        let mut bundle = bundle.clone();
        bundle.config["process"]["args"]
            .as_array_mut()
            .context("args")?
            .push(json!(id));
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        Ok(
            t.call([&["run"], flags, &["--bundle", &dir, &id]].concat())?
                .status,
        )
    };
    assert_eq!(run(&["--no-new-keyring"])?, 1);
    if Path::new("/proc/keys").exists() && !machine().is("crun") {
        assert_eq!(run(&[])?, 0);
    }
    Ok(())
}
