//! `sc`: a container's life from the image to the removal, and what a killed sc leaves.

use crate::place::{Place, text};
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

tests! {
    a_container_is_run_and_forgotten ["busybox"],
    the_exit_status_is_dockers ["busybox"],
    what_is_typed_goes_before_what_the_image_says ["busybox"],
    a_detached_container_lives_until_it_is_stopped ["busybox"],
    what_it_wrote_is_there_when_it_is_started_again ["busybox"],
    logs_are_kept_apart_and_followed_to_the_end ["busybox"],
    names_and_beginnings_of_ids_find_a_container ["busybox"],
    a_killed_monitor_leaves_nothing_that_rm_cannot_clear ["busybox"],
    a_bundle_is_run_as_it_is ["busybox"],
    a_mistake_is_told_with_what_to_type ["busybox"],
    a_user_of_exec_has_its_own_groups_only ["busybox"],
    files_of_the_host_stay_their_owners_when_exec_uses_them ["busybox"],
    output_that_nobody_takes_is_neither_a_hang_nor_a_success ["busybox", "sh"],
    many_at_once_leave_nothing ["busybox"],
}

pub fn program() -> PathBuf {
    let given = std::env::var_os("SC").map(PathBuf::from);
    given.unwrap_or_else(|| env!("CARGO_BIN_EXE_sc").into())
}

pub fn command(place: &Place, args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("--root").arg(&place.store).args(args);
    command.current_dir(&place.dir).stdin(Stdio::null());
    command
}

pub fn sc(place: &Place, args: &[&str]) -> Result<Output> {
    Ok(command(place, args).output()?)
}

/// Expected to succeed; its stdout.
pub fn ok(place: &Place, args: &[&str]) -> Result<String> {
    text(sc(place, args)?).with_context(|| args.join(" "))
}

/// Expected to fail with `status`; its last line.
pub fn refused(place: &Place, args: &[&str], status: i32) -> Result<String> {
    let output = sc(place, args)?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(
        output.status.code() == Some(status),
        "{args:?}: {}: {said}",
        output.status
    );
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

/// The image `busybox`, by way of a tar.
pub fn with_image(place: &Place) -> Result<()> {
    place.sh("mkdir -p r/bin r/etc r/tmp
         cp $(command -v busybox) r/bin/busybox
         for name in sh true echo cat id sleep pwd ls touch stty seq head grep test kill ps rm mkdir chown mount df stat; do ln -s busybox r/bin/$name; done
         echo joe:x:7:8::/:/bin/sh >r/etc/passwd
         tar -C r -cf busybox.tar .")?;
    ok(place, &["import", "busybox.tar", "busybox"]).map(drop)
}

/// Neither container nor mount nor process is left.
pub fn assert_nothing(place: &Place) -> Result<()> {
    ensure!(ok(place, &["ps", "-aq"])?.is_empty(), "containers are left");
    for dir in ["containers", "names", "run", "run/networks/bridge"] {
        let entries = fs::read_dir(place.store.join(dir)).into_iter().flatten();
        let names = entries.map(|entry| Ok(entry?.file_name()));
        let mut left = names.collect::<std::io::Result<Vec<_>>>()?;
        // The network stays, and which address comes next.
        left.retain(|name| name != "networks" && name != "last");
        ensure!(left.is_empty(), "{left:?} left in {dir}");
    }
    assert_no_cgroup(place)?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let below = place.store.display().to_string();
    ensure!(!mounts.contains(&below), "a mount is left");
    Ok(())
}

/// Of no container that ever was here.
fn assert_no_cgroup(place: &Place) -> Result<()> {
    let Some(mount) = simplecontainer::engine::now::cgroup_mount() else {
        return Ok(());
    };
    let events = fs::read_to_string(place.store.join("events")).unwrap_or_default();
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let id = event["Actor"]["ID"].as_str().unwrap_or_default();
        if event["Type"] == "container" {
            ensure!(!mount.join(id).exists(), "the cgroup of {id} is left");
        }
    }
    Ok(())
}

fn a_container_is_run_and_forgotten(place: &Place) -> Result<()> {
    with_image(place)?;
    let said = ok(place, &["run", "--rm", "busybox", "echo", "hello"])?;
    ensure!(said == "hello\n", "{said:?}");
    assert_nothing(place)
}

fn the_exit_status_is_dockers(place: &Place) -> Result<()> {
    with_image(place)?;
    for (args, status) in [
        (&["busybox", "sh", "-c", "exit 7"][..], 7),
        (&["busybox", "nosuch"], 127),
        (&["busybox", "/nosuch"], 127),
        (&["busybox", "/etc/passwd"], 126),
        (&["busybox", "/etc"], 126),
        (&["--nosuch", "busybox"], 125),
        (&["--pull", "never", "nosuch"], 125),
    ] {
        let output = sc(place, &[&["run", "--rm"], args].concat())?;
        let code = output.status.code();
        ensure!(code == Some(status), "{args:?}: {code:?}");
    }
    assert_nothing(place)
}

fn what_is_typed_goes_before_what_the_image_says(place: &Place) -> Result<()> {
    with_image(place)?;
    fs::write(place.path("env"), "A=file\nB=file\n# no\n")?;
    fs::write(place.path("shown"), "from the host\n")?;
    let volume = format!("{}:/mnt/shown:ro", place.path("shown").display());
    let script =
        "id -u; id -g; pwd; echo $A $B; cat /etc/hostname /mnt/shown; touch /x || touch /tmp/x";
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "-u",
            "joe",
            "-w",
            "/tmp",
            "--env-file",
            "env",
            "-e",
            "A=typed",
            "--hostname",
            "h",
            "-v",
            &volume,
            "--read-only",
            "--entrypoint",
            "sh",
            "busybox",
            "-c",
            script,
        ],
    )?;
    ensure!(
        said == "7\n8\n/tmp\ntyped file\nh\nfrom the host\n",
        "{said}"
    );
    assert_nothing(place)
}

fn a_detached_container_lives_until_it_is_stopped(place: &Place) -> Result<()> {
    with_image(place)?;
    let id = ok(
        place,
        &["run", "-d", "--name", "web", "busybox", "sleep", "1000"],
    )?;
    ensure!(id.trim().len() == 64, "{id}");
    let table = ok(place, &["ps"])?;
    let row = table.lines().nth(1).context("no row")?;
    ensure!(
        row.starts_with(&id[..12]) && row.contains(" Up ") && row.ends_with("web"),
        "{row}"
    );
    let said = ok(
        place,
        &[
            "exec",
            "-e",
            "A=1",
            "-w",
            "/tmp",
            "web",
            "sh",
            "-c",
            "pwd; echo $A",
        ],
    )?;
    ensure!(said == "/tmp\n1\n", "{said}");
    ensure!(
        sc(place, &["exec", "web", "sh", "-c", "exit 3"])?
            .status
            .code()
            == Some(3)
    );
    refused(place, &["exec", "web", "nosuch"], 127)?;
    refused(place, &["exec", "web", "/etc/passwd"], 126)?;
    refused(place, &["rm", "web"], 1)?;
    ensure!(ok(place, &["stop", "-t", "0", "web"])? == "web\n");
    ensure!(ok(place, &["wait", "web"])? == "137\n");
    ensure!(ok(place, &["ps", "-q"])?.is_empty());
    ensure!(ok(place, &["ps", "-a"])?.contains("Exited (137)"));
    refused(place, &["exec", "web", "true"], 125)?;
    ok(place, &["rm", "web"])?;
    assert_nothing(place)
}

fn what_it_wrote_is_there_when_it_is_started_again(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "echo x >>/kept; cat /kept";
    ok(
        place,
        &["run", "--name", "twice", "busybox", "sh", "-c", script],
    )?;
    let said = ok(place, &["start", "-a", "twice"])?;
    ensure!(said == "x\nx\n", "{said}");
    ok(place, &["container", "rm", "twice"])?;
    assert_nothing(place)
}

fn logs_are_kept_apart_and_followed_to_the_end(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "echo one; echo two >&2; sleep 1; echo three";
    ok(
        place,
        &["run", "-d", "--name", "talk", "busybox", "sh", "-c", script],
    )?;
    let output = sc(place, &["logs", "-f", "talk"])?;
    ensure!(
        output.stdout == b"one\nthree\n" && output.stderr == b"two\n",
        "{output:?}"
    );
    ensure!(ok(place, &["logs", "--tail", "1", "talk"])? == "three\n");
    ok(place, &["rm", "-f", "talk"])?;
    assert_nothing(place)
}

fn names_and_beginnings_of_ids_find_a_container(place: &Place) -> Result<()> {
    with_image(place)?;
    let id = ok(
        place,
        &["run", "-d", "--name", "one", "busybox", "sleep", "1000"],
    )?;
    refused(place, &["run", "--name", "one", "busybox"], 125)?;
    let found = ok(place, &["inspect", &id[..5]])?;
    let found: serde_json::Value = serde_json::from_str(&found)?;
    ensure!(
        found[0]["Name"] == "one" && found[0]["State"]["Running"] == true,
        "{found}"
    );
    let row: serde_json::Value = serde_json::from_str(&ok(place, &["ps", "--format", "json"])?)?;
    ensure!(row["Names"] == "one" && row["State"] == "running", "{row}");
    ok(place, &["kill", &id[..8]])?;
    ok(place, &["wait", "one"])?;
    ok(place, &["rm", id.trim()])?;
    assert_nothing(place)
}

fn a_killed_monitor_leaves_nothing_that_rm_cannot_clear(place: &Place) -> Result<()> {
    with_image(place)?;
    let id = ok(
        place,
        &["run", "-d", "--name", "orphan", "busybox", "sleep", "1000"],
    )?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    place.host("kill", ["-9", monitor.trim()])?;
    let status = ok(place, &["ps"])?;
    ensure!(status.contains(" Up "), "it runs on: {status}");
    ok(place, &["stop", "-t", "0", "orphan"])?;
    // Its corpse may have told, where nobody took it away.
    ensure!(ok(place, &["ps", "-a"])?.contains("Exited ("));
    ok(place, &["start", "orphan"])?;
    ensure!(ok(place, &["ps"])?.contains(" Up "));
    ok(place, &["rm", "-f", "orphan"])?;
    assert_nothing(place)
}

fn a_bundle_is_run_as_it_is(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "image", "unpack", "--bundle", "b", "busybox", "echo", "first",
        ],
    )?;
    ensure!(ok(place, &["run", "--rm", "--bundle", "b"])? == "first\n");
    ensure!(ok(place, &["run", "--rm", "--bundle", "b", "echo", "second"])? == "second\n");
    assert_nothing(place)
}

fn a_mistake_is_told_with_what_to_type(place: &Place) -> Result<()> {
    with_image(place)?;
    let said = refused(place, &["run", "--pull", "never", "nosuch"], 125)?;
    ensure!(said.contains("sc pull nosuch"), "{said}");
    let said = refused(place, &["run", "UPPER"], 125)?;
    ensure!(
        said.ends_with("repository name (UPPER) must be lowercase"),
        "{said}"
    );
    let said = refused(place, &["stop", "nosuch"], 1)?;
    ensure!(
        said == "sc: no such container: nosuch; `sc ps -a` lists them",
        "{said}"
    );
    // What is not there is what was wanted.
    ok(
        place,
        &["run", "-d", "--name", "there", "busybox", "sleep", "1000"],
    )?;
    ensure!(ok(place, &["rm", "-f", "nosuch", "there"])? == "there\n");
    ok(place, &["rm", "-f", "nosuch"])?;
    ok(place, &["network", "rm", "-f", "nosuch"])?;
    let said = refused(place, &["rm", "nosuch"], 1)?;
    ensure!(said.contains("no such container: nosuch"), "{said}");
    let output = sc(place, &["inspekt"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("'inspect'"), "{said}");
    assert_nothing(place)
}

fn many_at_once_leave_nothing(place: &Place) -> Result<()> {
    with_image(place)?;
    let run = |n: usize| {
        let mut one = command(place, &["run", "--rm", "busybox", "echo", &n.to_string()]);
        one.stdout(Stdio::piped()).spawn()
    };
    let all = (0..20).map(run).collect::<std::io::Result<Vec<_>>>()?;
    for (n, one) in all.into_iter().enumerate() {
        let said = text(one.wait_with_output()?)?;
        ensure!(said == format!("{n}\n"), "{said}");
    }
    assert_nothing(place)
}

/// A runtime makes stdio its process's user's.
fn files_of_the_host_stay_their_owners_when_exec_uses_them(place: &Place) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    with_image(place)?;
    ok(
        place,
        &["run", "-d", "--name", "web", "busybox", "sleep", "1000"],
    )?;
    let files = ["in", "out", "err"].map(|name| place.dir.join(name));
    let long = "line\n".repeat(100_000);
    fs::write(&files[0], &long)?;
    let exec = |script: &str| -> Result<std::process::ExitStatus> {
        let args = ["exec", "-i", "-u", "joe", "web", "sh", "-c", script];
        let mut command = command(place, &args);
        command.stdin(fs::File::open(&files[0])?);
        command.stdout(fs::File::create(&files[1])?);
        Ok(command.stderr(fs::File::create(&files[2])?).status()?)
    };
    let status = exec("cat; echo no >&2; exit 7")?;
    ensure!(status.code() == Some(7), "{status}");
    ensure!(fs::read_to_string(&files[1])? == long);
    ensure!(fs::read_to_string(&files[2])? == "no\n");
    // What is left in the background holds nobody up, and stdin need not be read.
    let status = exec("sleep 1000 & echo done")?;
    ensure!(status.success(), "{status}");
    ensure!(fs::read_to_string(&files[1])? == "done\n");
    for file in &files {
        let seen = fs::metadata(file)?;
        ensure!(seen.uid() == 0 && seen.gid() == 0, "{}", file.display());
    }
    let mut full = command(place, &["exec", "web", "echo", "lost"]);
    full.stdout(fs::File::options().write(true).open("/dev/full")?);
    let full = full.output()?;
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    ensure!(full.status.code() == Some(125), "{} {said}", full.status);
    ensure!(said.contains("No space left"), "{said}");
    ok(place, &["rm", "-f", "web"])?;
    assert_nothing(place)
}

fn a_user_of_exec_has_its_own_groups_only(place: &Place) -> Result<()> {
    with_image(place)?;
    let run = [
        "run",
        "-d",
        "--name",
        "web",
        "--group-add",
        "99",
        "busybox",
        "sleep",
        "1000",
    ];
    ok(place, &run)?;
    let joe = ["exec", "-u", "joe", "-e", "A=1", "-w", "/tmp", "web"];
    let said = ok(
        place,
        &[
            &joe[..],
            &["sh", "-c", "id -u; id -g; id -G; pwd; echo $A$HOME"],
        ]
        .concat(),
    )?;
    ensure!(said == "7\n8\n8 99\n/tmp\n1/\n", "{said}");
    // Detached, and refused: the words and the status of an exec without a user.
    ok(
        place,
        &["exec", "-d", "-u", "7", "web", "touch", "/tmp/there"],
    )?;
    let said = refused(place, &["exec", "-u", "joe", "web", "nosuch"], 127)?;
    ensure!(
        said.contains("\"nosuch\": executable file not found"),
        "{said}"
    );
    let dir = place.store.join("containers");
    let inside = fs::read_dir(fs::read_dir(dir)?.next().context("none")??.path())?;
    let left = inside.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let left = left.collect::<std::io::Result<Vec<_>>>()?;
    ensure!(
        !left.iter().any(|name| name.starts_with("exec.")),
        "{left:?}"
    );
    ok(place, &["rm", "-f", "web"])?;
    assert_nothing(place)
}

fn output_that_nobody_takes_is_neither_a_hang_nor_a_success(place: &Place) -> Result<()> {
    with_image(place)?;
    let piped = |script: &str| -> Result<Output> {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", script])
            .env("SC", program())
            .env("STORE", &place.store);
        Ok(shell.stdin(Stdio::null()).output()?)
    };
    // `yes` never ends by itself: this returns when the container's input has ended with its reader.
    let output = piped(r#"yes | "$SC" --root "$STORE" run --rm -i busybox cat | head -c 100000"#)?;
    ensure!(output.stdout.len() == 100_000, "{output:?}");
    let full = |args: &str| piped(&format!(r#""$SC" --root "$STORE" {args} >/dev/full"#));
    for (args, status) in [
        ("run --rm busybox echo lost", 125),
        ("inspect busybox", 1),
        ("version", 1),
        ("volume prune -f", 1),
    ] {
        let output = full(args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(status)
                && said.starts_with("sc: write to stdout: No space left on device"),
            "{args}: {output:?}"
        );
    }
    assert_nothing(place)
}
