//! `sc` as an ordinary user: with subordinate ids, and with none.
//!
//! The user is nobody, because newuidmap(1) wants one with a name; /etc/subuid is a file of our own in a mount
//! namespace of each command.

use crate::place::{CannotRun, Place, sc_image, sc_runtime, text};
use crate::sc::program;
use crate::tests;
use anyhow::{Context, Result, bail, ensure};
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
    who_keeps_an_id_is_the_same_inside ["busybox", "setpriv", "newuidmap"],
    where_the_kernel_has_no_overlay_fuse_overlayfs_has_one ["busybox", "setpriv", "newuidmap", "fuse-overlayfs"],
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
    fs::create_dir_all(place.path("home"))?;
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
        &["--userns", "auto"],
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
    let keep = ["run", "--rm", "--userns", "keep-id", "busybox", "true"];
    let said = refused(place, STRANGER, &keep)?;
    ensure!(said.contains("needs subordinate ids"), "{said}");
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

fn who_keeps_an_id_is_the_same_inside(place: &Place) -> Result<()> {
    home(place, UID)?;
    fs::write(place.path("home/mine"), "mine\n")?;
    chown(place.path("home/mine"), Some(UID), Some(UID))?;
    let keep = |options: &[&str], args: &[&str]| {
        let all = [
            &["run", "--userns", "keep-id", "-v", ".:/host"],
            options,
            args,
        ]
        .concat();
        ok(place, UID, &all)
    };
    // Who runs it is who she is outside; the image's files have their owners.
    let look = "id -u; id -g; stat -c %u:%g / /bin /data/file /host/mine; cat /host/mine; touch /host/made; \
                touch /x 2>/dev/null || echo closed";
    let said = keep(&["--rm"], &["busybox", "sh", "-c", look])?;
    let expected = "65534\n65534\n0:0\n0:0\n7:8\n65534:65534\nmine\nclosed\n";
    ensure!(said == expected, "{said}");
    ensure!(place.path("home/made").metadata()?.uid() == UID);
    // Root of the container may what root may, and is nobody outside.
    let work = "touch /x /host/y 2>/dev/null; mkdir /d; touch /d/0 /d/65534 /d/9; chown 65534:65534 /d/65534; chown 9:9 /d/9; \
                chmod 700 /d; rm -r /data; stat -c %u:%g /d/*";
    let work = work.replace("chmod", "busybox chmod");
    let said = keep(
        &["--name", "box", "-u", "0"],
        &["busybox", "sh", "-c", &work],
    )?;
    ensure!(said == "0:0\n65534:65534\n9:9\n", "{said}");
    ensure!(place.path("home/y").metadata()?.uid() == 700_000);
    let said = ok(place, UID, &["diff", "box"])?;
    let changes = "D /data\nA /d/0\nA /d\nA /d/65534\nA /d/9\nA /x";
    ensure!(changes.lines().all(|line| said.contains(line)), "{said}");
    ok(place, UID, &["commit", "box", "made"])?;
    let look = "stat -c %u:%g /d/0 /d/65534 /d/9 /bin";
    let owners = "0:0\n65534:65534\n9:9\n0:0\n";
    for options in [
        &["run", "--rm"][..],
        &["run", "--rm", "-u", "0", "--userns", "keep-id"],
    ] {
        let said = ok(place, UID, &[options, &["made", "sh", "-c", look]].concat())?;
        ensure!(said == owners, "{options:?}: {said}");
    }
    ok(place, UID, &["export", "-o", "whole.tar", "box"])?;
    let listed = place.sh("tar --numeric-owner -tvf home/whole.tar | grep -cE '^d.* 0/0 .* d/$|0/0 .* d/0$|65534/65534 .* d/65534$|9/9 .* d/9$'")?;
    ensure!(listed == "4\n", "{listed}");
    // Stopped, then running.
    for state in ["stopped", "running"] {
        ok(place, UID, &["cp", "box:/d", state])?;
        ensure!(place.path(&format!("home/{state}/9")).metadata()?.uid() == UID);
        ok(place, UID, &["cp", "mine", &format!("box:/d/{state}")])?;
        if state == "stopped" {
            ok(place, UID, &["rm", "box"])?;
            let command = ["made", "sleep", "1000"];
            keep(&["-d", "--name", "box"], &command)?;
            ensure!(ok(place, UID, &["exec", "box", "id", "-u"])? == "65534\n");
            ensure!(ok(place, UID, &["exec", "-u", "0", "box", "id", "-u"])? == "0\n");
        }
    }
    ok(place, UID, &["rm", "-f", "box"])?;
    let other = [
        "run",
        "--rm",
        "--userns",
        "keep-id:uid=5,gid=6",
        "busybox",
        "sh",
        "-c",
        "id -u; id -g; stat -c %u:%g /",
    ];
    ensure!(ok(place, UID, &other)? == "5\n6\n0:0\n");
    ok(place, UID, &["rmi", "made"])?;
    assert_nothing(place, UID)
}

/// A store on an overlay: the kernel takes none as the upper layer of another.
fn where_the_kernel_has_no_overlay_fuse_overlayfs_has_one(place: &Place) -> Result<()> {
    if !std::path::Path::new("/dev/fuse").exists() {
        bail!(CannotRun("no /dev/fuse".to_owned()));
    }
    place.sh("mkdir lower upper work home
         mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay home")?;
    let done = fuse_overlayfs_has_one(place);
    place.sh("umount -l home")?;
    done
}

fn fuse_overlayfs_has_one(place: &Place) -> Result<()> {
    home(place, UID)?;
    let script = "grep -c ' / fuse' /proc/self/mounts; rm /etc/passwd; rm -r /data; mkdir /data; echo n >/data/n; \
                  touch /x; chown 33:34 /x; echo h >/etc/.hidden; ls -A /data /etc | cat";
    let listed = "/data:\nn\n\n/etc:\n.hidden\nhostname\nhosts\nresolv.conf\n";
    let run = ["run", "--name", "box", "busybox", "sh", "-c", script];
    ensure!(ok(place, UID, &run)? == format!("1\n{listed}"));
    let said = ok(place, UID, &["diff", "box"])?;
    let expected =
        "C /data\nD /data/file\nA /data/n\nC /etc\nA /etc/.hidden\nD /etc/passwd\nA /x\n";
    ensure!(said == expected, "{said}");
    ok(place, UID, &["commit", "box", "made"])?;
    // Flat: no file system below knows marks.
    ok(place, UID, &["image", "unpack", "--bundle", "made", "made"])?;
    let said = place.sh("cd home/made/rootfs; ls -A data etc; stat -c %u:%g x")?;
    let expected = "data:\nn\n\netc:\n.hidden\n700032:800033\n";
    ensure!(said == expected, "{said}");
    ok(place, UID, &["export", "-o", "whole.tar", "box"])?;
    let files =
        place.sh("tar -tf home/whole.tar | grep -E '^(data|etc)/.|wh' | sort | tr '\\n' ' '")?;
    let expected = "data/n etc/.hidden etc/hostname etc/hosts etc/resolv.conf ";
    ensure!(files == expected, "{files}");
    // Stopped and running: into it, and out.
    fs::write(place.path("home/in"), "in\n")?;
    ok(place, UID, &["cp", "in", "box:/data/stopped"])?;
    ok(
        place,
        UID,
        &["run", "-d", "--name", "web", "busybox", "sleep", "1000"],
    )?;
    ok(place, UID, &["cp", "in", "web:/data/running"])?;
    ensure!(ok(place, UID, &["exec", "web", "cat", "/data/running"])? == "in\n");
    ensure!(ok(place, UID, &["diff", "web"])?.contains("A /data/running\n"));
    ok(place, UID, &["cp", "box:/data/stopped", "out"])?;
    ok(place, UID, &["rm", "-f", "box", "web"])?;
    assert_nothing(place, UID)
}
