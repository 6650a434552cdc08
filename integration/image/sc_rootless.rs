//! `sc` as an ordinary user: with subordinate ids, and with none.
//!
//! The user is nobody, because newuidmap(1) wants one with a name; /etc/subuid is a file of our own in a mount
//! namespace of each command.

use crate::place::{Place, sc_image, sc_runtime, text};
use crate::sc::program;
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Output, Stdio};

tests! {
    an_image_is_run_and_forgotten ["busybox", "setpriv", "newuidmap"],
    a_detached_container_is_entered_stopped_and_removed ["busybox", "setpriv", "newuidmap"],
    files_of_other_ids_are_copied_committed_and_removed ["busybox", "setpriv", "newuidmap"],
    volumes_hold_files_of_other_ids ["busybox", "setpriv", "newuidmap"],
    the_hosts_network_and_processes_are_shown ["busybox", "setpriv", "newuidmap"],
    without_subordinate_ids_everything_is_the_users ["busybox", "setpriv"],
    a_killed_monitor_leaves_what_rm_clears ["busybox", "setpriv", "newuidmap"],
}

pub const UID: u32 = 65_534;
/// Nobody at all.
const STRANGER: u32 = 60_007;

/// The user's own directory, with copies of the programs and the image `busybox`.
pub fn home(place: &Place, uid: u32) -> Result<()> {
    for program in [program(), sc_image(), sc_runtime()] {
        let name = program.file_name().context("a program without a name")?;
        fs::copy(&program, place.dir.join(name))?;
    }
    for (file, line) in [
        ("subuid", "nobody:700000:65536\n"),
        ("subgid", "nobody:800000:65536\n"),
    ] {
        fs::write(place.path(file), line)?;
    }
    place.sh("mkdir -p r/bin r/etc r/data
         cp $(command -v busybox) r/bin/busybox
         for name in sh true echo cat id sleep ls touch chown rm stat mkdir grep; do ln -s busybox r/bin/$name; done
         echo joe:x:7:8::/:/bin/sh >r/etc/passwd
         echo joes >r/data/file; chown -R 7:8 r/data
         tar -C r -cf busybox.tar .")?;
    fs::create_dir(place.path("home"))?;
    chown(place.path("home"), Some(uid), Some(uid))?;
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o755))?;
    ok(place, uid, &["import", "../busybox.tar", "busybox"]).map(drop)
}

/// What makes a command one of that user's: the script for `unshare -m sh -ec`.
pub fn as_user(place: &Place, uid: u32) -> String {
    format!(
        "mount --bind subuid /etc/subuid; mount --bind subgid /etc/subgid; cd home
         exec setpriv --reuid {uid} --regid {uid} --clear-groups \
         env -u XDG_RUNTIME_DIR -u XDG_DATA_HOME HOME={home} PATH={bin}:$PATH {bin}/sc \"$@\"",
        home = place.path("home").display(),
        bin = place.dir.display(),
    )
}

fn sc(place: &Place, uid: u32, args: &[&str]) -> Result<Output> {
    let script = as_user(place, uid);
    let mut command = Command::new("unshare");
    let (verb, rest) = args.split_first().context("no verb")?;
    command.args(["-m", "sh", "-ec", &script, "sh", verb]);
    // Networks have tests of their own (rootless_network), and pasta wants a machine that has one.
    if ["run", "create"].contains(verb) && !args.contains(&"--network") {
        command.args(["--network", "none"]);
    }
    command.args(rest);
    Ok(command
        .current_dir(&place.dir)
        .stdin(Stdio::null())
        .output()?)
}

fn ok(place: &Place, uid: u32, args: &[&str]) -> Result<String> {
    text(sc(place, uid, args)?).with_context(|| args.join(" "))
}

fn refused(place: &Place, uid: u32, args: &[&str]) -> Result<String> {
    let output = sc(place, uid, args)?;
    ensure!(!output.status.success(), "{args:?}");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

fn assert_nothing(place: &Place, uid: u32) -> Result<()> {
    ensure!(
        ok(place, uid, &["ps", "-aq"])?.is_empty(),
        "containers are left"
    );
    for dir in ["containers", "run"] {
        let left = fs::read_dir(place.path("home/.local/share/sc").join(dir))?.count();
        ensure!(left == 0, "{left} left in {dir}");
    }
    Ok(())
}

fn an_image_is_run_and_forgotten(place: &Place) -> Result<()> {
    home(place, UID)?;
    let look = "id -u; stat -c %u:%g /data/file; touch /x; chown 33:34 /x; stat -c %u:%g /x; cat /proc/self/uid_map | grep -c .";
    let said = ok(place, UID, &["run", "--rm", "busybox", "sh", "-c", look])?;
    ensure!(said == "0\n7:8\n33:34\n2\n", "{said}");
    let said = ok(
        place,
        UID,
        &["run", "--rm", "-u", "joe", "busybox", "cat", "/data/file"],
    )?;
    ensure!(said == "joes\n", "{said}");
    ensure!(
        sc(
            place,
            UID,
            &["run", "--rm", "busybox", "sh", "-c", "exit 7"]
        )?
        .status
        .code()
            == Some(7)
    );
    ensure!(
        sc(place, UID, &["run", "--rm", "busybox", "nosuch"])?
            .status
            .code()
            == Some(127)
    );
    assert_nothing(place, UID)
}

fn a_detached_container_is_entered_stopped_and_removed(place: &Place) -> Result<()> {
    home(place, UID)?;
    ok(
        place,
        UID,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "-u",
            "joe",
            "busybox",
            "sh",
            "-c",
            "echo up; sleep 1000",
        ],
    )?;
    ensure!(ok(place, UID, &["ps"])?.contains(" Up "));
    ensure!(ok(place, UID, &["exec", "web", "id", "-u"])? == "7\n");
    ensure!(ok(place, UID, &["exec", "-u", "0", "web", "id", "-u"])? == "0\n");
    ensure!(ok(place, UID, &["logs", "web"])? == "up\n");
    ok(place, UID, &["stop", "-t", "0", "web"])?;
    ensure!(ok(place, UID, &["wait", "web"])? == "137\n");
    ok(place, UID, &["start", "web"])?;
    ok(place, UID, &["rm", "-f", "web"])?;
    assert_nothing(place, UID)
}

fn files_of_other_ids_are_copied_committed_and_removed(place: &Place) -> Result<()> {
    home(place, UID)?;
    let script = "mkdir /closed; echo in >/closed/in; chown -R 33:34 /closed; busybox chmod 700 /closed; touch /ready; sleep 1000";
    ok(
        place,
        UID,
        &["run", "-d", "--name", "box", "busybox", "sh", "-c", script],
    )?;
    ok(
        place,
        UID,
        &[
            "exec",
            "box",
            "sh",
            "-c",
            "until ls /ready; do sleep 0.05; done",
        ],
    )?;
    for state in ["running", "stopped"] {
        ok(place, UID, &["cp", "box:/closed", state])?;
        let out = place.path("home").join(state).join("in");
        ensure!(
            fs::read_to_string(&out)? == "in\n" && out.metadata()?.uid() == UID,
            "{state}"
        );
        ok(
            place,
            UID,
            &[
                "cp",
                &format!("{state}/in"),
                &format!("box:/closed/{state}"),
            ],
        )?;
        ensure!(ok(place, UID, &["diff", "box"])?.contains(&format!("A /closed/{state}\n")));
        if state == "running" {
            ok(place, UID, &["stop", "-t", "0", "box"])?;
        }
    }
    ok(place, UID, &["cp", "-a", "box:/closed", "owned"])?;
    let meta = place.path("home/owned/in").symlink_metadata()?;
    ensure!(
        (meta.uid(), meta.gid()) == (700_032, 800_033),
        "{} {}",
        meta.uid(),
        meta.gid()
    );
    ok(place, UID, &["commit", "box", "made"])?;
    let look = "stat -c %u:%g /closed/in; cat /closed/stopped";
    let said = ok(place, UID, &["run", "--rm", "made", "sh", "-c", look])?;
    ensure!(said == "33:34\nin\n", "{said}");
    ok(place, UID, &["export", "-o", "whole.tar", "box"])?;
    ensure!(
        place
            .sh("tar tf home/whole.tar ./closed/in || tar tf home/whole.tar closed/in")?
            .contains("closed/in")
    );
    ok(place, UID, &["rm", "box"])?;
    assert_nothing(place, UID)
}

fn volumes_hold_files_of_other_ids(place: &Place) -> Result<()> {
    home(place, UID)?;
    let make = "cat /data/file; mkdir /data/closed; touch /data/closed/x; chown -R 33 /data/closed; busybox chmod 700 /data/closed";
    ensure!(
        ok(
            place,
            UID,
            &[
                "run",
                "--rm",
                "-v",
                "data:/data",
                "busybox",
                "sh",
                "-c",
                make
            ]
        )? == "joes\n"
    );
    let said = ok(
        place,
        UID,
        &[
            "run",
            "--rm",
            "-v",
            "data:/d",
            "-v",
            "./made:/m",
            "busybox",
            "sh",
            "-c",
            "ls /d/closed; touch /m/mine",
        ],
    )?;
    ensure!(said == "x\n", "{said}");
    ensure!(place.path("home/made/mine").metadata()?.uid() == UID);
    let inside = "home/.local/share/sc/volumes/data/_data/closed";
    ensure!(place.path(inside).metadata()?.uid() == 700_032);
    ok(
        place,
        UID,
        &["unshare", "ls", &place.path(inside).display().to_string()],
    )?;
    ok(place, UID, &["volume", "rm", "data"])?;
    ensure!(fs::read_dir(place.path("home/.local/share/sc/volumes"))?.count() == 0);
    assert_nothing(place, UID)
}

fn the_hosts_network_and_processes_are_shown(place: &Place) -> Result<()> {
    home(place, UID)?;
    let own = fs::read_link("/proc/self/ns/net")?;
    let said = ok(
        place,
        UID,
        &[
            "run",
            "--rm",
            "--network",
            "host",
            "busybox",
            "sh",
            "-c",
            "ls -l /proc/self/ns/net; ls /sys/class",
        ],
    )?;
    ensure!(
        said.contains(&*own.to_string_lossy()) && said.contains("net\n"),
        "{said}"
    );
    let own = format!("/proc/{}/status", std::process::id());
    let see = ["run", "--rm", "--pid", "host", "busybox", "cat", &own];
    ensure!(ok(place, UID, &see)?.contains(&format!("Pid:\t{}\n", std::process::id())));
    // What an ordinary user cannot have is said, and nothing is left.
    for options in [
        &["--memory", "64m"][..],
        &["--userns", "host"],
        &["--device-cgroup-rule", "c 1:3 r"],
    ] {
        let said = refused(
            place,
            UID,
            &[&["run", "--rm"], options, &["busybox", "true"]].concat(),
        )?;
        ensure!(
            said.contains("cgroup") || said.contains("without root"),
            "{options:?}: {said}"
        );
    }
    assert_nothing(place, UID)
}

fn without_subordinate_ids_everything_is_the_users(place: &Place) -> Result<()> {
    home(place, STRANGER)?;
    let output = sc(
        place,
        STRANGER,
        &[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "id -u; stat -c %u:%g /data/file; touch /x; rm /data/file",
        ],
    )?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("no subordinate ids (/etc/subuid, /etc/subgid): everything belongs to you"),
        "{said}"
    );
    ensure!(text(output)? == "0\n0:0\n");
    let said = refused(
        place,
        STRANGER,
        &["run", "--rm", "-u", "joe", "busybox", "true"],
    )?;
    ensure!(said.contains("uid: 7 is not mapped"), "{said}");
    ok(
        place,
        STRANGER,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    ensure!(ok(place, STRANGER, &["exec", "web", "cat", "/data/file"])? == "joes\n");
    ok(place, STRANGER, &["cp", "web:/data/file", "out"])?;
    ok(place, STRANGER, &["rm", "-fv", "web"])?;
    ok(place, STRANGER, &["volume", "rm", "data"])?;
    assert_nothing(place, STRANGER)
}

fn a_killed_monitor_leaves_what_rm_clears(place: &Place) -> Result<()> {
    home(place, UID)?;
    let id = ok(
        place,
        UID,
        &[
            "run",
            "-d",
            "--name",
            "orphan",
            "busybox",
            "sh",
            "-c",
            "touch /x; chown 33 /x; sleep 1000",
        ],
    )?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    place.host("kill", ["-9", monitor.trim()])?;
    ensure!(ok(place, UID, &["ps"])?.contains(" Up "));
    ok(place, UID, &["exec", "orphan", "ls", "/x"])?;
    ok(place, UID, &["stop", "-t", "0", "orphan"])?;
    ok(place, UID, &["start", "orphan"])?;
    ok(place, UID, &["rm", "-f", "orphan"])?;
    assert_nothing(place, UID)
}
