//! What an engine does to a container that runs: ps, pause, resume, update, events.

use crate::harness::machine::program;
use crate::harness::place::until;
use crate::harness::{Container, Context, Need, Outcome, Place, Result, Value, json, machine};
use std::collections::BTreeSet;
use std::fs::{self, File};

const MIB: i64 = 1 << 20;
const HUGE: Need = Need::Path("/sys/kernel/mm/hugepages/hugepages-2048kB");
const NO_EVENTS: Need = Need::Beyond("crun", "has no such command");

tests! {
    ps_prints_every_pid_of_the_container,
    ps_as_a_table_is_that_of_ps [Need::Program("ps"), Need::Beyond("crun", "1.8 prints a table of its own")],
    ps_without_a_column_of_pids_is_an_error [Need::Program("ps"), Need::Beyond("crun", "1.8 prints a table of its own")],
    ps_of_a_stopped_container_is_empty [Need::Beyond("crun", "1.8 fails")],
    a_paused_container_stands_still_until_it_is_resumed,
    a_created_container_can_be_paused [Need::Beyond("crun", "1.8 refuses")],
    pause_and_resume_are_refused_where_they_mean_nothing [Need::Beyond("crun", "1.8 lets both be repeated")],
    a_paused_container_is_killed_and_deleted,
    update_reads_stdin_and_files [Need::Controller("hugetlb"), HUGE, Need::Beyond("runc", "1.1.5 updates no huge pages")],
    an_update_is_kept_in_the_record [Need::Controller("hugetlb"), HUGE, Need::Beyond("runc", "keeps a state of its own"), Need::Beyond("crun", "keeps none")],
    an_update_that_fails_halfway_changes_nothing [Need::Controller("hugetlb"), HUGE, Need::Beyond("runc", "1.1.5 updates no huge pages"), Need::Beyond("crun", "1.8 keeps the first half")],
    an_update_of_nothing_changes_nothing [Need::Beyond("crun", "1.8 wants every controller that is named")],
    an_update_is_refused_by_name [Need::Beyond("crun", "1.8 ignores what it cannot read")],
    a_limit_without_its_controller_is_not_updated [Need::NoController("memory")],
    only_what_is_given_changes [Need::Controller("memory"), Need::Controller("cpu"), Need::Controller("pids"), Need::Beyond("runc", "1.1 forgets a limit that an update gave"), Need::Beyond("crun", "keeps no record")],
    an_invalid_combination_changes_nothing [Need::Controller("memory"), Need::Controller("pids"), Need::Controller("cpuset"), Need::Beyond("runc", "1.1 keeps the first half"), Need::Beyond("crun", "keeps the first half")],
    a_limit_below_what_is_used_is_refused_if_wished [Need::Controller("memory"), Need::Beyond("runc", "1.1 looks for another key"), Need::Beyond("crun", "1.8 does not look")],
    a_fork_bomb_meets_its_updated_limit [Need::Controller("pids")],
    statistics_have_all_that_runc_prints [Need::Program("runc"), NO_EVENTS],
    statistics_come_at_intervals_until_the_container_ends [Need::Beyond("runc", "1.1.5 fails without memory.events"), NO_EVENTS],
    events_of_a_stopped_container_are_refused [NO_EVENTS],
    an_oom_is_told_at_once [Need::Controller("memory"), NO_EVENTS],
    many_controls_at_once_leave_nothing,
}

fn call(c: &Container, verb: &str, options: &[&str]) -> Result<Outcome> {
    let words = [verb].into_iter().chain(options.iter().copied());
    c.place.call(words.chain([c.id.as_str()]))
}

/// A container whose shell has started a second process.
fn two_processes(t: &Place) -> Result<Container<'_>> {
    let c = t.create(&t.bundle().sh("sleep 1000 & echo started; wait"))?;
    c.start()?;
    until("its shell", || c.output().contains("started"));
    Ok(c)
}

fn pids(c: &Container) -> Result<BTreeSet<i32>> {
    let out = call(c, "ps", &["--format", "json"])?.text();
    let pids: Option<Vec<i32>> = serde_json::from_str(&out).with_context(|| out.clone())?;
    Ok(pids.into_iter().flatten().collect())
}

fn ps_prints_every_pid_of_the_container(t: &Place) -> Result<()> {
    let c = two_processes(t)?;
    let expected: BTreeSet<i32> = c
        .cgroup_file("cgroup.procs")?
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(expected.len(), 2);
    assert!(expected.contains(&c.pid));
    assert_eq!(pids(&c)?, expected);
    c.end()
}

fn ps_as_a_table_is_that_of_ps(t: &Place) -> Result<()> {
    let c = two_processes(t)?;
    for (options, columns) in [
        (&[][..], "UID"),
        (&["-o", "pid,comm"], "PID"),
        (&["aux"], "USER"),
    ] {
        let words = ["ps", c.id.as_str()]
            .into_iter()
            .chain(options.iter().copied());
        let table = t.call(words)?.ok().stdout;
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].trim_start().starts_with(columns), "{table}");
        if !options.contains(&"-o") {
            assert_eq!(lines.len(), 3, "{table}");
            assert!(table.contains("sleep 1000"), "{table}");
        }
    }
    c.end()
}

fn ps_without_a_column_of_pids_is_an_error(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    t.call(["ps", &c.id, "-o", "comm"])?
        .fails(&["couldn't find PID field in ps output"]);
    t.call(["ps", &c.id, "--nonsense"])?.fails(&["exit status"]);
    call(&c, "ps", &["--format", "xml"])?.fails(&["invalid format option"]);
    t.call(["ps", "nobody"])?
        .fails(&["container does not exist"]);
    c.end()
}

fn ps_of_a_stopped_container_is_empty(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    c.kill("KILL")?.ok();
    c.ended()?;
    until("no process", || pids(&c).unwrap().is_empty());
    assert_eq!(call(&c, "ps", &["-f", "json"])?.text(), "null");
    c.delete()
}

fn a_paused_container_stands_still_until_it_is_resumed(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().sh("while :; do echo .; done"))?;
    c.start()?;
    until("a first line", || !c.output().is_empty());
    let used = || {
        c.cgroup_file("cpu.stat")
            .map(|text| text.lines().next().map(String::from))
    };
    call(&c, "pause", &[])?.ok();
    let then = used()?;
    assert!(c.cgroup_file("cgroup.events")?.contains("frozen 1"));
    assert_eq!(c.status()?, "paused");
    let list: Value = serde_json::from_str(&t.call(["list", "--format", "json"])?.text())?;
    assert_eq!(list[0]["status"], "paused");
    assert_eq!(pids(&c)?, [c.pid].into());
    assert_eq!(used()?, then, "it went on");
    call(&c, "resume", &[])?.ok();
    assert_eq!(c.status()?, "running");
    until("more of it", || used().unwrap() != then);
    c.end()
}

fn a_created_container_can_be_paused(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    call(&c, "pause", &[])?.ok();
    assert_eq!(c.status()?, "paused");
    c.call("start")?
        .fails(&["cannot start a container in the paused state"]);
    call(&c, "resume", &[])?.ok();
    assert_eq!(c.status()?, "created");
    c.start()?;
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    c.delete()
}

fn pause_and_resume_are_refused_where_they_mean_nothing(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    call(&c, "resume", &[])?.fails(&["container not paused"]);
    call(&c, "pause", &[])?.ok();
    call(&c, "pause", &[])?.fails(&["container not running"]);
    call(&c, "resume", &[])?.ok();
    c.kill("KILL")?.ok();
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    call(&c, "pause", &[])?.fails(&["container not running"]);
    call(&c, "resume", &[])?.fails(&["container not paused"]);
    for verb in ["pause", "resume", "update", "events"] {
        t.call([verb, "nobody"])?
            .fails(&["container does not exist"]);
    }
    c.delete()
}

fn a_paused_container_is_killed_and_deleted(t: &Place) -> Result<()> {
    let c = two_processes(t)?;
    call(&c, "pause", &[])?.ok();
    c.call("delete")?.fails(&["is not stopped: paused"]);
    t.call(["delete", "--force", &c.id])?.ok();
    t.nothing_is_left();
    let c = two_processes(t)?;
    call(&c, "pause", &[])?.ok();
    c.kill("KILL")?.ok();
    if !machine().is("sc-runtime") {
        call(&c, "resume", &[])?; // others leave it frozen until then, or not
    }
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    c.delete()
}

/// `update` with a document, on stdin or in a file.
fn update(c: &Container, resources: &Value, by_stdin: bool) -> Result<Outcome> {
    let file = c
        .place
        .path(&format!("resources-{}", c.place.next_number()));
    fs::write(&file, resources.to_string())?;
    if by_stdin {
        let call = c.place.runtime(["update", "--resources=-", &c.id]);
        return call.stdin(File::open(&file)?).run();
    }
    call(c, "update", &["--resources", &file.display().to_string()])
}

fn huge_pages(limit: i64) -> Value {
    json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": limit }] })
}

fn update_reads_stdin_and_files(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (by_stdin, mebibytes) in [(true, 4), (false, 8)] {
        update(&c, &huge_pages(mebibytes * MIB), by_stdin)?.ok();
        let now = c.cgroup_file("hugetlb.2MB.max")?;
        assert_eq!(now, (mebibytes * MIB).to_string());
    }
    c.end()
}

fn an_update_is_kept_in_the_record(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["sleep", "1000"]).set("/extra", "kept"))?;
    let recorded = || -> Result<Value> {
        let file = t.path("state").join(&c.id).join("config.json");
        Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
    };
    let before = recorded()?;
    assert_eq!(before["extra"], "kept");
    update(&c, &huge_pages(4 * MIB), true)?.ok();
    update(&c, &json!({ "unified": { "cgroup.max.depth": "3" } }), true)?.ok();
    let mut expected = before;
    expected["linux"]["resources"]["hugepageLimits"] = huge_pages(4 * MIB)["hugepageLimits"].take();
    expected["linux"]["resources"]["unified"] = json!({ "cgroup.max.depth": "3" });
    assert_eq!(recorded()?, expected);
    assert_eq!(c.cgroup_file("cgroup.max.depth")?, "3");
    c.start()?;
    c.end()
}

fn an_update_that_fails_halfway_changes_nothing(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    update(&c, &huge_pages(4 * MIB), true)?.ok();
    let mut bad = huge_pages(8 * MIB);
    bad["unified"] = json!({ "cgroup.max.descendants": "many" });
    update(&c, &bad, true)?.fails(&["cgroup.max.descendants"]);
    assert_eq!(c.cgroup_file("hugetlb.2MB.max")?, (4 * MIB).to_string());
    bad["unified"] = json!({ "cgroup.made_up": "1" });
    update(&c, &bad, true)?.fails(&["cgroup.made_up"]);
    assert_eq!(c.cgroup_file("hugetlb.2MB.max")?, (4 * MIB).to_string());
    c.end()
}

fn an_update_of_nothing_changes_nothing(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    call(&c, "update", &[])?.ok();
    update(&c, &json!({}), true)?.ok();
    let empty =
        json!({ "memory": {}, "cpu": { "cpus": "", "mems": "" }, "blockIO": {}, "devices": [] });
    update(&c, &empty, false)?.ok();
    c.end()
}

fn an_update_is_refused_by_name(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (option, value, words) in [
        ("--memory", "10q", "invalid value for memory"),
        ("--cpu-period", "foo", "invalid value for cpu-period"),
        ("--cpu-quota", "1.5", "invalid value for cpu-quota"),
        ("--resources", "/no/such/file", "no such file or directory"),
    ] {
        let out = call(&c, "update", &[option, value])?;
        assert_ne!(out.status, 0, "{out:?}");
        let said = out.message().to_lowercase();
        assert!(machine().is("crun") || said.contains(words), "{said}");
    }
    update(&c, &json!({ "memory": { "limit": "much" } }), true)?.fails(&["memory"]);
    c.kill("KILL")?.ok();
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    call(&c, "update", &["--cpu-share", "5"])?.fails(&["container not running"]);
    c.delete()
}

fn a_limit_without_its_controller_is_not_updated(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    call(&c, "update", &["--memory", "64m"])?.fails(&["memory.max"]);
    c.end()
}

#[track_caller]
fn holds(c: &Container, files: &[(&str, &str)]) {
    for (file, expected) in files {
        assert_eq!(c.cgroup_file(file).unwrap(), *expected, "{file}");
    }
}

fn only_what_is_given_changes(t: &Place) -> Result<()> {
    let c = t.create(
        &t.bundle()
            .args(&["sleep", "1000"])
            .set(
                "/linux/resources/memory",
                json!({ "limit": 64 * MIB, "swap": 96 * MIB }),
            )
            .set(
                "/linux/resources/cpu",
                json!({ "quota": 50000, "period": 200_000 }),
            )
            .set("/linux/resources/pids", json!({ "limit": 50 })),
    )?;
    /// Options, and what then is in which files.
    type Step<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let steps: &[Step] = &[
        (
            &["--pids-limit", "40"],
            &[("pids.max", "40"), ("cpu.max", "50000 200000")],
        ),
        (
            &["--cpu-quota", "70000"],
            &[("cpu.max", "70000 200000"), ("pids.max", "40")],
        ),
        (&["--cpu-period", "100000"], &[("cpu.max", "70000 100000")]),
        (&["--cpu-quota=-1"], &[("cpu.max", "max 100000")]),
        (&["--cpu-share", "512"], &[("cpu.weight", "59")]),
        (
            &["--memory", "80m"],
            &[("memory.max", "83886080"), ("memory.swap.max", "16777216")],
        ),
        (
            &["--memory-swap", "128m"],
            &[("memory.max", "83886080"), ("memory.swap.max", "50331648")],
        ),
        (
            &[
                "--memory",
                "32m",
                "--memory-swap",
                "32m",
                "--memory-reservation",
                "16m",
            ],
            &[
                ("memory.max", "33554432"),
                ("memory.swap.max", "0"),
                ("memory.low", "16777216"),
            ],
        ),
        (
            &["--memory=-1"],
            &[
                ("memory.max", "max"),
                ("memory.swap.max", "max"),
                ("pids.max", "40"),
            ],
        ),
    ];
    for (options, files) in steps {
        call(&c, "update", options)?.ok();
        holds(&c, files);
    }
    c.start()?;
    c.end()
}

fn an_invalid_combination_changes_nothing(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let set = [
        "--pids-limit",
        "30",
        "--memory",
        "64m",
        "--memory-swap",
        "96m",
        "--cpuset-cpus",
        "0",
    ];
    call(&c, "update", &set)?.ok();
    for (options, words) in [
        (
            &["--pids-limit", "7", "--memory", "128m"][..],
            "memory+swap limit should be >= memory limit",
        ),
        (
            &[
                "--pids-limit",
                "7",
                "--memory",
                "40m",
                "--memory-swap",
                "50m",
                "--cpuset-cpus",
                "999",
            ],
            "cpuset.cpus",
        ),
        (
            &["--pids-limit", "7", "--blkio-weight", "5"],
            "blockIO.weight",
        ),
        (&["--pids-limit", "7", "--cpu-rt-period", "5"], "realtime"),
    ] {
        call(&c, "update", options)?.fails(&[words]);
        let kept = [
            ("pids.max", "30"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("cpuset.cpus", "0"),
        ];
        holds(&c, &kept);
    }
    // Nor in the record: what was refused does not come back with the next update.
    call(&c, "update", &["--memory-swap", "100m"])?.ok();
    holds(
        &c,
        &[
            ("memory.max", "67108864"),
            ("memory.swap.max", "37748736"),
            ("pids.max", "30"),
        ],
    );
    c.end()
}

fn a_limit_below_what_is_used_is_refused_if_wished(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let little = json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } });
    update(&c, &little, true)?.fails(&["rejecting memory limit 4096"]);
    holds(&c, &[("memory.max", "max")]);
    c.end()
}

fn a_fork_bomb_meets_its_updated_limit(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["/probe", "fork", "100"]))?;
    call(&c, "update", &["--pids-limit", "12"])?.ok();
    c.start()?;
    until("the limit", || {
        c.cgroup_file("pids.events")
            .is_ok_and(|text| !text.ends_with("max 0"))
    });
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

/// Every key and its JSON type, as a path.
fn shape(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.insert(format!("{path}/"));
            for (key, value) in fields {
                shape(value, &format!("{path}/{key}"), found);
            }
        }
        Value::Number(_) => drop(found.insert(format!("{path} number"))),
        Value::String(_) => drop(found.insert(format!("{path} string"))),
        Value::Null => drop(found.insert(format!("{path} null"))),
        _ => drop(found.insert(path.to_owned())),
    }
}

fn stats(out: Outcome) -> Result<(Value, BTreeSet<String>)> {
    let text = out.ok().stdout;
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    let value: Value = serde_json::from_str(&text)?;
    let mut found = BTreeSet::new();
    shape(&value, "", &mut found);
    Ok((value, found))
}

fn statistics_have_all_that_runc_prints(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let runc = program("runc").context("runc")?;
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    t.other_runtime(&runc, ["run", "--detach", "--bundle", &dir, &id])
        .run()?
        .ok();
    let theirs = t.other_runtime(&runc, ["events", "--stats", &id]).run()?;
    t.other_runtime(&runc, ["delete", "--force", &id])
        .run()?
        .ok();
    let c = t.sleeper()?;
    let (value, ours) = stats(call(&c, "events", &["--stats"])?)?;
    let (_, theirs) = stats(theirs)?;
    // A counter that is zero is left out: whose are, is chance.
    let chance = [
        "/data/memory/raw/",
        "/data/cpu/usage/total",
        "/data/memory/cache",
        "/data/hugetlb/",
    ];
    let missing: Vec<&String> = theirs
        .difference(&ours)
        .filter(|key| !chance.iter().any(|start| key.starts_with(start)))
        .collect();
    assert!(missing.is_empty(), "{missing:?} of {value}");
    assert_eq!(value["type"], "stats");
    assert_eq!(value["id"], json!(c.id));
    assert_eq!(value["data"]["pids"]["current"], 1);
    c.end()
}

fn statistics_come_at_intervals_until_the_container_ends(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let running = t.runtime(["events", "--interval=50ms", &c.id]).spawn()?;
    let printed = || fs::read_to_string(&running.stdout).unwrap_or_default();
    until("three lines", || printed().lines().count() >= 3);
    c.kill("KILL")?.ok();
    let out = running.wait()?.ok();
    for line in out.stdout.lines() {
        let event: Value = serde_json::from_str(line)?;
        assert_eq!(event["type"], "stats");
        assert_eq!(event["id"], json!(c.id));
    }
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    c.delete()
}

fn events_of_a_stopped_container_are_refused(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let out = call(&c, "events", &["--interval", "0"])?;
    out.fails(&["duration interval must be greater than 0"]);
    c.kill("KILL")?.ok();
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    let words = format!("container with id {} is not running", c.id);
    call(&c, "events", &[])?.fails(&[&words]);
    call(&c, "events", &["--stats"])?.fails(&[&words]);
    c.delete()
}

fn an_oom_is_told_at_once(t: &Place) -> Result<()> {
    let limit = json!({ "limit": 32 * MIB, "swap": 32 * MIB });
    // The shell lives on when its child was killed, and so do the events.
    let bundle = t.bundle().set("/linux/resources/memory", limit);
    let c = t.create(&bundle.sh("/probe eat 200; echo survived; sleep 1000"))?;
    let running = t.runtime(["events", "--interval=1h", &c.id]).spawn()?;
    let printed = fs::read_to_string;
    // It watches from when it has opened memory.events.
    let watches = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", running.pid()))
            .into_iter()
            .flatten();
        let mut files = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        files.any(|file| {
            file.ends_with("memory.events") || file.to_string_lossy().contains("inotify")
        })
    };
    until("the watch", watches);
    c.start()?;
    let oom = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", c.id);
    until("the oom", || {
        printed(&running.stdout).is_ok_and(|text| text.starts_with(&oom))
    });
    until("the shell", || c.output().contains("survived"));
    assert_eq!(c.status()?, "running");
    c.kill("KILL")?.ok();
    let out = running.wait()?.ok();
    assert!(
        !machine().is("sc-runtime") || out.stdout == oom,
        "{}",
        out.stdout
    );
    c.ended()?;
    until("stopped", || c.status().unwrap() == "stopped");
    c.delete()
}

fn many_controls_at_once_leave_nothing(t: &Place) -> Result<()> {
    let rounds = if machine().in_guest { 2 } else { 8 };
    for _ in 0..rounds {
        let containers: Vec<Container> = (0..4).map(|_| t.sleeper()).collect::<Result<_>>()?;
        let verbs: &[&[&str]] = &[
            &["pause"],
            &["resume"],
            &["ps", "--format", "json"],
            &["update"],
            &["pause"],
            &["state"],
            &["resume"],
        ];
        let mut running = Vec::new();
        for c in &containers {
            for verb in verbs {
                running.push(
                    t.runtime(verb.iter().copied().chain([c.id.as_str()]))
                        .spawn()?,
                );
            }
        }
        for c in &containers {
            running.push(t.runtime(["delete", "--force", &c.id]).spawn()?);
        }
        for call in running {
            let out = call.wait()?;
            assert!(!out.stderr.contains("panicked"), "{out:?}");
        }
        for c in &containers {
            t.call(["delete", "--force", &c.id])?.ok();
        }
    }
    t.nothing_is_left();
    Ok(())
}
