//! config.json's `process`: what the process is when it begins.

use crate::harness::{Bundle, Context, Need, Place, Result, Value, json, machine};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const OLD_RUNC: Need = Need::Beyond("runc", "1.1.5 does not know this field");
const OLD_CRUN: Need = Need::Beyond("crun", "1.8 does not know this field");

tests! {
    the_process_is_pid_one_with_its_arguments_and_environment,
    arguments_may_hold_anything_but_nul [Need::Beyond("crun", "1.8 cuts at the NUL")],
    the_last_of_two_equal_variables_counts [Need::Beyond("runc", "1.1.5 keeps both"), Need::Beyond("crun", "1.8 keeps both")],
    an_environment_may_be_empty,
    home_comes_from_the_rootfs_unless_given [Need::Beyond("crun", "1.8 leaves it unset for an unknown uid")],
    the_program_is_looked_up_in_the_path_of_the_container,
    a_program_with_a_slash_is_not_looked_up,
    a_missing_program_is_an_error_of_create,
    a_missing_file_is_an_error_of_create,
    a_program_that_is_not_executable_is_an_error,
    a_directory_is_not_a_program,
    a_missing_interpreter_is_an_error [Need::Beyond("runc", "it notices only at start"), Need::Beyond("crun", "it notices only at start")],
    the_working_directory_is_made_when_missing,
    a_file_as_working_directory_is_an_error,
    a_relative_working_directory_is_an_error [Need::Beyond("crun", "1.8 takes it")],
    a_private_working_directory_is_entered,
    the_user_the_group_and_the_additional_groups_are_set,
    no_groups_of_the_caller_remain,
    the_umask_is_0022_unless_given,
    the_five_capability_sets_are_set [Need::Beyond("crun", "1.8 sets what it can and says nothing")],
    an_unprivileged_user_loses_its_capabilities_unless_ambient,
    without_capabilities_there_are_none,
    an_unknown_capability_warns_and_is_skipped,
    resource_limits_are_set,
    an_unknown_resource_limit_is_an_error,
    a_resource_limit_twice_is_an_error [Need::Beyond("crun", "1.8 takes the last")],
    a_soft_limit_above_the_hard_limit_is_an_error,
    no_new_privileges_is_as_asked,
    the_oom_score_is_adjusted,
    without_an_oom_score_the_callers_is_kept,
    the_scheduler_is_set [OLD_RUNC, OLD_CRUN],
    a_scheduler_without_a_policy_is_an_error [OLD_RUNC, OLD_CRUN],
    the_io_priority_is_set [OLD_RUNC, OLD_CRUN],
    the_personality_is_set [Need::Beyond("runc", "1.1.5 does not know personality")],
    the_processors_of_the_caller_are_reset [OLD_RUNC, OLD_CRUN],
    signals_are_at_their_defaults,
    the_process_leads_its_session,
    standard_streams_belong_to_the_user [Need::Beyond("crun", "1.8 leaves files as they are")],
}

fn the_process_is_pid_one_with_its_arguments_and_environment(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["/probe", "see", "a b", "", "ü", "$HOME"]);
    let bundle = bundle.set("/process/env", json!(["A=1", "EMPTY=", "B=x=y", "HOME=/h"]));
    let seen: Value = serde_json::from_str(&t.run(&bundle)?.text())?;
    assert_eq!(
        seen["argv"],
        json!(["/probe", "see", "a b", "", "ü", "$HOME"])
    );
    assert_eq!(seen["env"], json!(["A=1", "EMPTY=", "B=x=y", "HOME=/h"]));
    assert_eq!(
        (&seen["pid"], &seen["ppid"], &seen["cwd"]),
        (&json!(1), &json!(0), &json!("/"))
    );
    assert_eq!(seen["threads"], "1");
    Ok(())
}

fn arguments_may_hold_anything_but_nul(t: &Place) -> Result<()> {
    let long = "x".repeat(100_000);
    let out = t
        .run(&t.bundle().args(&["printf", "%s|%s", "\n\t\"'\\", &long]))?
        .ok();
    assert_eq!(out.stdout, format!("\n\t\"'\\|{long}"));
    for bundle in [
        t.bundle().args(&["true", "a\0b"]),
        t.bundle().args(&["true"]).env("A=b\0c"),
    ] {
        t.run(&bundle)?.fails(&[]);
        t.nothing_is_left();
    }
    Ok(())
}

fn the_last_of_two_equal_variables_counts(t: &Place) -> Result<()> {
    let seen = t.see(
        t.bundle()
            .set("/process/env", json!(["A=1", "HOME=/", "A=2"])),
    )?;
    assert_eq!(seen["env"], json!(["HOME=/", "A=2"]));
    Ok(())
}

fn an_environment_may_be_empty(t: &Place) -> Result<()> {
    for bundle in [
        t.bundle().remove("/process/env"),
        t.bundle().set("/process/env", json!([])),
    ] {
        assert_eq!(t.see(bundle)?["env"], json!(["HOME=/root"]));
    }
    Ok(())
}

fn home_comes_from_the_rootfs_unless_given(t: &Place) -> Result<()> {
    let user = |uid: u32| json!({ "uid": uid, "gid": 0 });
    let mut cases = vec![
        (0, None, "/root"),
        (1000, None, "/home/ann"),
        (77, None, "/"),
        (0, Some("HOME=/else"), "/else"),
    ];
    if !machine().is("runc") && !machine().is("crun") {
        cases.push((0, Some("HOME="), "/root")); // as runc 1.3: an empty one is none
    }
    for (uid, given, expected) in cases {
        let mut bundle = t
            .bundle()
            .set("/process/user", user(uid))
            .set("/process/env", json!([]));
        if let Some(given) = given {
            bundle = bundle.env(given);
        }
        assert_eq!(
            t.see(bundle)?["env"],
            json!([format!("HOME={expected}")]),
            "uid {uid}, {given:?}"
        );
    }
    Ok(())
}

fn the_program_is_looked_up_in_the_path_of_the_container(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["tool"])
        .set("/process/env", json!(["PATH=/nowhere:/opt/a:/opt/b"]));
    fs::create_dir_all(bundle.inside("opt/a"))?;
    fs::create_dir_all(bundle.inside("opt/b"))?;
    fs::write(bundle.inside("opt/a/tool"), "not executable: passed over")?;
    fs::write(bundle.inside("opt/b/tool"), "#!/bin/sh\necho found $0\n")?;
    fs::set_permissions(
        bundle.inside("opt/b/tool"),
        fs::Permissions::from_mode(0o755),
    )?;
    assert_eq!(t.run(&bundle)?.text(), "found /opt/b/tool");
    Ok(())
}

fn a_program_with_a_slash_is_not_looked_up(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["./echo", "ok"])
        .set("/process/cwd", "/bin");
    assert_eq!(t.run(&bundle)?.text(), "ok");
    let bundle = t.bundle().args(&["./echo", "ok"]);
    t.create_fails(&bundle, &["exec: \"./echo\"", "no such file or directory"]);
    Ok(())
}

fn a_missing_program_is_an_error_of_create(t: &Place) -> Result<()> {
    let words = ["exec: \"no-such\": executable file not found in $PATH"];
    t.create_fails(&t.bundle().args(&["no-such"]), &words);
    // Without a PATH there is nowhere to look.
    t.create_fails(
        &t.bundle().args(&["no-such"]).set("/process/env", json!([])),
        &words,
    );
    Ok(())
}

fn a_missing_file_is_an_error_of_create(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle().args(&["/no/such"]),
        &["exec: \"/no/such\": stat /no/such: no such file or directory"],
    );
    Ok(())
}

fn a_program_that_is_not_executable_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle().args(&["/etc/passwd"]),
        &["exec: \"/etc/passwd\": permission denied"],
    );
    Ok(())
}

fn a_directory_is_not_a_program(t: &Place) -> Result<()> {
    // 1.1.5: permission denied; later: is a directory.
    t.create_fails(&t.bundle().args(&["/etc"]), &["exec: \"/etc\": "]);
    Ok(())
}

fn a_missing_interpreter_is_an_error(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["/tool"]);
    fs::write(bundle.inside("tool"), "#!/no/such/interpreter\n")?;
    fs::set_permissions(bundle.inside("tool"), fs::Permissions::from_mode(0o755))?;
    t.run(&bundle)?
        .fails(&["/tool", "no such file or directory"]);
    t.nothing_is_left();
    Ok(())
}

fn the_working_directory_is_made_when_missing(t: &Place) -> Result<()> {
    let bundle = t.bundle().set("/process/cwd", "/made/for/it");
    assert_eq!(t.see(bundle.clone())?["cwd"], "/made/for/it");
    let made = bundle.inside("made/for/it").metadata()?;
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o755, 0));
    Ok(())
}

fn a_file_as_working_directory_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .set("/process/cwd", "/etc/passwd"),
        &["not a directory"],
    );
    Ok(())
}

fn a_relative_working_directory_is_an_error(t: &Place) -> Result<()> {
    // runc: `Cwd must be an absolute path`.
    let words = if machine().is("runc") {
        "Cwd must be an absolute path"
    } else {
        "process.cwd"
    };
    t.create_fails(
        &t.bundle().args(&["true"]).set("/process/cwd", "tmp"),
        &[words],
    );
    Ok(())
}

/// A directory that only the user may enter (EACCES as root without CAP_DAC_OVERRIDE), and one that only root may.
fn a_private_working_directory_is_entered(t: &Place) -> Result<()> {
    let user = json!({ "uid": 1000, "gid": 1000 });
    let bundle = t
        .bundle()
        .sh("pwd")
        .set("/process/cwd", "/private")
        .set("/process/user", user);
    fs::create_dir(bundle.inside("private"))?;
    fs::set_permissions(bundle.inside("private"), fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(bundle.inside("private"), Some(1000), Some(1000))?;
    assert_eq!(t.run(&bundle)?.text(), "/private");
    Ok(())
}

fn the_user_the_group_and_the_additional_groups_are_set(t: &Place) -> Result<()> {
    let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7, 70000] });
    let seen = t.see(t.bundle().set("/process/user", user))?;
    assert_eq!(seen["uid"], "1000 1000 1000 1000");
    assert_eq!(seen["gid"], "1001 1001 1001 1001");
    let mut groups: Vec<&str> = seen["groups"]
        .as_str()
        .context("groups")?
        .split(' ')
        .collect();
    groups.retain(|g| *g != "1001"); // whether the own group is among them is nobody's promise
    assert_eq!(groups, ["5", "7", "70000"]);
    Ok(())
}

fn no_groups_of_the_caller_remain(t: &Place) -> Result<()> {
    let seen = t.see(
        t.bundle()
            .set("/process/user", json!({ "uid": 1000, "gid": 1000 })),
    )?;
    let groups = seen["groups"].as_str().context("groups")?;
    assert!(groups.is_empty() || groups == "1000", "{groups}");
    Ok(())
}

fn the_umask_is_0022_unless_given(t: &Place) -> Result<()> {
    assert_eq!(t.see(t.bundle())?["umask"], "0022");
    for umask in [0, 0o27, 0o777] {
        let seen = t.see(t.bundle().set("/process/user/umask", umask))?;
        assert_eq!(seen["umask"], format!("{umask:04o}"));
    }
    Ok(())
}

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

fn caps_seen(t: &Place, bundle: Bundle) -> Result<[u64; 5]> {
    let seen = t.see(bundle)?;
    let set = |name: &str| u64::from_str_radix(seen["caps"][name].as_str().unwrap_or("x"), 16);
    Ok([
        set("bounding")?,
        set("effective")?,
        set("inheritable")?,
        set("permitted")?,
        set("ambient")?,
    ])
}

fn the_five_capability_sets_are_set(t: &Place) -> Result<()> {
    let caps = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    });
    // As another user, so that execve does not raise root's sets again.
    let bundle = t
        .bundle()
        .set("/process/capabilities", caps)
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let [bounding, effective, inheritable, permitted, ambient] = caps_seen(t, bundle)?;
    assert_eq!(bounding, CHOWN | KILL | NET_RAW);
    assert_eq!((inheritable, ambient), (KILL, KILL));
    // execve(2) of a plain file leaves what is ambient.
    assert_eq!((effective, permitted), (KILL, KILL));
    Ok(())
}

fn an_unprivileged_user_loses_its_capabilities_unless_ambient(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .caps(&["CAP_KILL"])
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(caps_seen(t, bundle)?, [KILL, 0, 0, 0, 0]);
    Ok(())
}

fn without_capabilities_there_are_none(t: &Place) -> Result<()> {
    let none = json!({ "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] });
    for bundle in [
        t.bundle().set("/process/capabilities", none),
        t.bundle().set("/process/capabilities", json!({})),
    ] {
        assert_eq!(caps_seen(t, bundle)?, [0; 5]);
    }
    Ok(())
}

fn an_unknown_capability_warns_and_is_skipped(t: &Place) -> Result<()> {
    let bundle = t.bundle().caps(&["CAP_KILL", "CAP_MADE_UP"]).args(&[
        "grep",
        "CapBnd",
        "/proc/self/status",
    ]);
    let out = t.run(&bundle)?.ok();
    assert_eq!(out.stdout, format!("CapBnd:\t{KILL:016x}\n"));
    if !machine().is("crun") {
        assert!(out.stderr.contains("CAP_MADE_UP"), "{}", out.stderr);
    }
    Ok(())
}

fn resource_limits_are_set(t: &Place) -> Result<()> {
    // Below what the tests themselves have: raising takes CAP_SYS_RESOURCE.
    let limits = [
        ("CPU", 500, 600),
        ("FSIZE", 1 << 20, 1 << 21),
        ("DATA", 1 << 30, 1 << 31),
        ("STACK", 1 << 20, 1 << 22),
        ("CORE", 0, 0),
        ("RSS", 1 << 25, 1 << 26),
        ("NPROC", 500, 501),
        ("NOFILE", 100, 200),
        ("MEMLOCK", 4096, 8192),
        ("AS", 1 << 31, 1 << 32),
        ("LOCKS", 10, 20),
        ("SIGPENDING", 30, 40),
        ("MSGQUEUE", 1000, 2000),
        ("NICE", 0, 0),
        ("RTPRIO", 0, 0),
        ("RTTIME", 1000, 2000),
    ];
    let entry = |(name, soft, hard): &(&str, u64, u64)| json!({ "type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard });
    let seen = t.see(t.bundle().set(
        "/process/rlimits",
        limits.iter().map(entry).collect::<Vec<_>>(),
    ))?;
    for (name, soft, hard) in limits {
        assert_eq!(
            seen["rlimits"][format!("RLIMIT_{name}")],
            json!([soft, hard]),
            "{name}"
        );
    }
    Ok(())
}

fn with_limit(t: &Place, name: &str, soft: u64, hard: u64) -> Bundle {
    t.bundle().args(&["true"]).push(
        "/process/rlimits",
        json!({ "type": name, "soft": soft, "hard": hard }),
    )
}

fn an_unknown_resource_limit_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(&with_limit(t, "RLIMIT_MADE_UP", 1, 1), &["RLIMIT_MADE_UP"]);
    Ok(())
}

fn a_resource_limit_twice_is_an_error(t: &Place) -> Result<()> {
    if machine().is("runc") {
        t.run(&with_limit(t, "RLIMIT_NOFILE", 50, 50))?.ok(); // 1.1.5 takes the last
        return Ok(());
    }
    t.create_fails(
        &with_limit(t, "RLIMIT_NOFILE", 50, 50),
        &["process.rlimits", "RLIMIT_NOFILE"],
    );
    Ok(())
}

fn a_soft_limit_above_the_hard_limit_is_an_error(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]);
    let bundle = bundle.set(
        "/process/rlimits",
        json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 50 }]),
    );
    t.create_fails(&bundle, &[]);
    Ok(())
}

fn no_new_privileges_is_as_asked(t: &Place) -> Result<()> {
    for asked in [true, false] {
        let seen = t.see(t.bundle().set("/process/noNewPrivileges", asked))?;
        assert_eq!(seen["no_new_privs"], if asked { "1" } else { "0" });
    }
    assert_eq!(
        t.see(t.bundle().remove("/process/noNewPrivileges"))?["no_new_privs"],
        "0"
    );
    Ok(())
}

fn the_oom_score_is_adjusted(t: &Place) -> Result<()> {
    for score in [1000, 500, 0] {
        assert_eq!(
            t.see(t.bundle().set("/process/oomScoreAdj", score))?["oom_score_adj"],
            score.to_string()
        );
    }
    t.create_fails(
        &t.bundle().args(&["true"]).set("/process/oomScoreAdj", 1001),
        &[],
    );
    Ok(())
}

/// Omitted is not zero.
fn without_an_oom_score_the_callers_is_kept(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["cat", "/proc/self/oom_score_adj"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let run = format!(
        "echo 321 > /proc/self/oom_score_adj; exec {} --root {} run --bundle {} {id}",
        machine().runtime.display(),
        t.root.display(),
        bundle.dir.display()
    );
    assert_eq!(t.host("sh", ["-c", &run])?.text(), "321");
    Ok(())
}

fn the_scheduler_is_set(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle().set(
        "/process/scheduler",
        json!({ "policy": "SCHED_BATCH", "nice": 7 }),
    ))?;
    assert_eq!(
        (&seen["scheduler"]["policy"], &seen["scheduler"]["nice"]),
        (&json!(3), &json!(7))
    );
    let idle = json!({ "policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    let seen = t.see(t.bundle().set("/process/scheduler", idle))?;
    assert_eq!(
        (&seen["scheduler"]["policy"], &seen["scheduler"]["flags"]),
        (&json!(5), &json!(1))
    );
    Ok(())
}

fn a_scheduler_without_a_policy_is_an_error(t: &Place) -> Result<()> {
    for scheduler in [
        json!({ "nice": 1 }),
        json!({ "policy": "SCHED_MADE_UP" }),
        json!({ "policy": "SCHED_OTHER", "priority": 5 }),
    ] {
        t.create_fails(
            &t.bundle()
                .args(&["true"])
                .set("/process/scheduler", scheduler),
            &["process.scheduler"],
        );
    }
    Ok(())
}

fn the_io_priority_is_set(t: &Place) -> Result<()> {
    for (class, number, level) in [("IOPRIO_CLASS_BE", 2, 6), ("IOPRIO_CLASS_IDLE", 3, 0)] {
        let seen = t.see(t.bundle().set(
            "/process/ioPriority",
            json!({ "class": class, "priority": level }),
        ))?;
        assert_eq!(seen["io_priority"], json!([number, level]));
    }
    let bad = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 });
    t.create_fails(
        &t.bundle().args(&["true"]).set("/process/ioPriority", bad),
        &["process.ioPriority"],
    );
    Ok(())
}

fn the_personality_is_set(t: &Place) -> Result<()> {
    assert_eq!(
        t.see(t.bundle().set("/linux/personality/domain", "LINUX32"))?["personality"],
        0x8
    );
    assert_eq!(
        t.see(t.bundle().set("/linux/personality/domain", "LINUX"))?["personality"],
        0
    );
    if !machine().is("crun") {
        t.create_fails(
            &t.bundle()
                .args(&["true"])
                .set("/linux/personality/domain", "MINIX"),
            &["linux.personality"],
        );
    }
    Ok(())
}

/// As runc 1.4: an engine bound to one processor does not bind its containers.
fn the_processors_of_the_caller_are_reset(t: &Place) -> Result<()> {
    let all = fs::read_to_string("/proc/self/status")?;
    let all = all
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("a list")?
        .trim();
    let bundle = t.bundle().args(&["/probe"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let run = format!(
        "{} --root {} run --bundle {} {id}",
        machine().runtime.display(),
        t.root.display(),
        bundle.dir.display()
    );
    let seen: Value = serde_json::from_str(
        &t.host("busybox", ["taskset", "1", "sh", "-c", &run])?
            .text(),
    )?;
    assert_eq!(seen["cpus"], all);
    Ok(())
}

fn signals_are_at_their_defaults(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["grep", "^Sig[BI]", "/proc/self/status"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    // A caller that ignores and blocks what it can must not pass that on... what it ignores, runc does.
    let out = t
        .call(["run", "--bundle", &bundle.dir.display().to_string(), &id])?
        .text();
    assert_eq!(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000");
    Ok(())
}

fn the_process_leads_its_session(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    assert_eq!((&seen["sid"], &seen["pgid"]), (&json!(1), &json!(1)));
    Ok(())
}

/// A log file or pipe of the engine's is the user's, so that /dev/stdout can be opened again.
fn standard_streams_belong_to_the_user(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .sh("echo again > /dev/stdout; echo ok >> /proc/self/fd/2");
    let out = t
        .run(&bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 })))?
        .ok();
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("again\n", "ok\n")
    );
    Ok(())
}
