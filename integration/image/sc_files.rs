//! `sc`: files into containers and out of them (cp, export), and what they changed (diff, commit).

use crate::place::{Place, text};
use crate::sc::{assert_nothing, command, ok, refused, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Stdio;

tests! {
    files_are_copied_where_docker_copies_them ["busybox"],
    owners_are_the_callers_unless_they_are_asked_for ["busybox"],
    no_link_of_a_container_leads_out_of_it ["busybox"],
    a_container_that_does_not_run_is_copied_to_and_from ["busybox"],
    a_tar_comes_out_and_goes_in ["busybox"],
    what_changed_is_listed ["busybox"],
    changes_become_an_image ["busybox"],
    what_was_typed_becomes_part_of_an_image ["busybox"],
    all_files_are_exported_without_what_is_mounted ["busybox"],
}

/// A container that waits, with files in /d.
fn with_container(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "mkdir -p /d/sub; echo f >/d/f; echo g >/d/sub/g; ln -s f /d/link; chown 7:8 /d/f; sleep 1000";
    ok(
        place,
        &["run", "-d", "--name", "box", "busybox", "sh", "-c", script],
    )?;
    // Until it has done so.
    let ready = "until ls -d /d/link && stat -c %u /d/f | grep 7; do sleep 0.05; done";
    ok(place, &["exec", "box", "sh", "-c", ready]).map(drop)
}

fn tree(place: &Place, dir: &str) -> Result<String> {
    place.sh(&format!("cd {dir} && find . | sort | tr '\\n' ' '"))
}

fn files_are_copied_where_docker_copies_them(place: &Place) -> Result<()> {
    with_container(place)?;
    fs::create_dir(place.path("there"))?;
    for (source, to, expected) in [
        // A name that is not there is the copy's.
        ("box:/d", "new", ". ./f ./link ./sub ./sub/g "),
        ("box:/d/.", "contents", ". ./f ./link ./sub ./sub/g "),
        // A directory that is there takes it in.
        ("box:/d/sub", "there", ". ./sub ./sub/g "),
        ("box:d/sub/.", "there", ". ./g ./sub ./sub/g "),
        ("box:/d/f", "there", ". ./f ./g ./sub ./sub/g "),
        (
            "box:/d/f",
            "there/named",
            ". ./f ./g ./named ./sub ./sub/g ",
        ),
    ] {
        ok(place, &["cp", source, to])?;
        let dir = to.split('/').next().unwrap_or(to);
        let said = tree(place, dir)?;
        ensure!(said == expected, "{source} {to}: {said}");
    }
    ok(place, &["cp", "box:/d/link", "link"])?;
    ensure!(fs::read_link(place.path("link"))?.as_os_str() == "f");
    ok(place, &["cp", "-L", "box:/d/link", "followed"])?;
    ensure!(fs::read_to_string(place.path("followed"))? == "f\n");
    for (args, expected) in [
        (
            ["box:/nosuch", "x"],
            "sc: Could not find the file /nosuch in container box",
        ),
        (
            ["there", "box:/d/f"],
            "sc: cannot copy directory: /d/f is no directory",
        ),
        (
            ["followed", "box:/nosuch/"],
            "sc: no such directory: /nosuch/",
        ),
        (
            ["followed", "there"],
            "sc: must specify at least one container source: CONTAINER:PATH",
        ),
        (
            ["box:/a", "box:/b"],
            "sc: copying between containers is not supported",
        ),
    ] {
        let said = refused(place, &["cp", args[0], args[1]], 1)?;
        ensure!(said == expected, "{args:?}: {said}");
    }
    ok(place, &["cp", "there", "box:/tmp"])?;
    ok(place, &["cp", "followed", "box:/tmp/over"])?;
    fs::write(place.path("followed"), "changed\n")?;
    ok(place, &["cp", "followed", "box:/tmp/over"])?;
    let said = ok(
        place,
        &["exec", "box", "cat", "/tmp/there/sub/g", "/tmp/over"],
    )?;
    ensure!(said == "g\nchanged\n", "{said}");
    // A directory is no file, and the other way round: neither is replaced.
    place.sh("mkdir -p clash/f; mkdir clash2; echo x >clash2/sub")?;
    for dir in ["clash", "clash2"] {
        let said = refused(place, &["cp", &format!("{dir}/."), "box:/d"], 1)?;
        ensure!(said.contains("cannot overwrite"), "{said}");
    }
    ok(place, &["rm", "-f", "box"])?;
    assert_nothing(place)
}

fn owners_are_the_callers_unless_they_are_asked_for(place: &Place) -> Result<()> {
    with_container(place)?;
    ok(place, &["cp", "box:/d/f", "mine"])?;
    ok(place, &["cp", "-a", "box:/d/f", "theirs"])?;
    let owner = |name: &str| -> Result<(u32, u32)> {
        let meta = place.path(name).metadata()?;
        Ok((meta.uid(), meta.gid()))
    };
    ensure!(owner("mine")? == (0, 0) && owner("theirs")? == (7, 8));
    ok(place, &["cp", "theirs", "box:/d/roots"])?;
    ok(place, &["cp", "-a", "theirs", "box:/d/kept"])?;
    let said = ok(
        place,
        &["exec", "box", "stat", "-c", "%u:%g", "/d/roots", "/d/kept"],
    )?;
    ensure!(said == "0:0\n7:8\n", "{said}");
    ok(place, &["rm", "-f", "box"])?;
    assert_nothing(place)
}

fn no_link_of_a_container_leads_out_of_it(place: &Place) -> Result<()> {
    with_container(place)?;
    fs::write(place.path("secret"), "of the host\n")?;
    let host = place.path("secret");
    let up = format!("/../../../../../../../../../../..{}", host.display());
    let links = format!(
        "mkdir -p /l{dir}; ln -s {up} /l/file; ln -s /proc/1/root /l/magic; ln -s {dir} /l/dir; ln -s . /l/self; mkdir -p {dir}",
        dir = place.dir.display()
    );
    ok(place, &["exec", "box", "sh", "-c", &links])?;
    // In the container there is no such file.
    for path in ["/l/file", "/l/dir/secret"] {
        let said = refused(place, &["cp", "-L", &format!("box:{path}"), "out"], 1)?;
        ensure!(said.contains("Could not find"), "{path}: {said}");
    }
    let said = refused(place, &["cp", "box:/l/magic/etc/passwd", "out"], 1)?;
    ensure!(!place.path("out").exists(), "{said}");
    // What is written through the link is in the container.
    fs::write(place.path("word"), "word\n")?;
    ok(place, &["cp", "word", "box:/l/dir/secret"])?;
    ensure!(fs::read_to_string(&host)? == "of the host\n");
    let inside = ok(place, &["exec", "box", "cat", &host.display().to_string()])?;
    ensure!(inside == "word\n", "{inside}");
    // A link of the host's directory, met on the way out, is not followed.
    fs::create_dir(place.path("victim"))?;
    fs::create_dir(place.path("into"))?;
    symlink(place.path("victim"), place.path("into/sub"))?;
    let said = refused(place, &["cp", "box:/d/.", "into"], 1)?;
    ensure!(said.contains("cannot overwrite non-directory"), "{said}");
    ensure!(fs::read_dir(place.path("victim"))?.count() == 0);
    ok(place, &["rm", "-f", "box"])?;
    assert_nothing(place)
}

fn a_container_that_does_not_run_is_copied_to_and_from(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "create",
            "--name",
            "still",
            "-v",
            "data:/etc",
            "-v",
            "own:/v",
            "busybox",
            "cat",
            "/tmp/in",
            "/etc/in",
        ],
    )?;
    fs::write(place.path("in"), "in\n")?;
    ok(place, &["cp", "in", "still:/tmp/in"])?;
    ok(place, &["cp", "in", "still:/etc/in"])?;
    ensure!(fs::read_to_string(place.store.join("volumes/data/_data/in"))? == "in\n");
    let said = ok(place, &["start", "-a", "still"])?;
    ensure!(said == "in\nin\n", "{said}");
    ok(place, &["cp", "still:/tmp/in", "out"])?;
    ensure!(fs::read_to_string(place.path("out"))? == "in\n");
    ok(
        place,
        &[
            "create",
            "--name",
            "closed",
            "--read-only",
            "busybox",
            "true",
        ],
    )?;
    let said = refused(place, &["cp", "in", "closed:/tmp/in"], 1)?;
    ensure!(said == "sc: container rootfs is marked read-only", "{said}");
    ok(
        place,
        &["image", "unpack", "--bundle", "b", "busybox", "true"],
    )?;
    ok(place, &["create", "--name", "plain", "--bundle", "b"])?;
    ok(place, &["cp", "in", "plain:/tmp/in"])?;
    ensure!(fs::read_to_string(place.path("b/rootfs/tmp/in"))? == "in\n");
    ok(place, &["rm", "-v", "still", "closed", "plain"])?;
    assert_nothing(place)
}

fn a_tar_comes_out_and_goes_in(place: &Place) -> Result<()> {
    with_container(place)?;
    let output = command(place, &["cp", "box:/d", "-"]).output()?;
    ensure!(output.status.success());
    fs::write(place.path("out.tar"), &output.stdout)?;
    let listed = place.sh("tar tf out.tar | sort | tr '\\n' ' '")?;
    ensure!(listed == "d/ d/f d/link d/sub/ d/sub/g ", "{listed}");
    let into = |to: &str, tar: &[u8]| -> Result<std::process::Output> {
        let mut child = command(place, &["cp", "-", to])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // It may have refused already.
        let _ = child.stdin.take().context("no stdin")?.write_all(tar);
        Ok(child.wait_with_output()?)
    };
    text(into("box:/tmp", &output.stdout)?)?;
    let said = ok(place, &["exec", "box", "stat", "-c", "%u:%g", "/tmp/d/f"])?;
    ensure!(said == "7:8\n", "{said}");
    let refusal = into("box:/d/f", &output.stdout)?;
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    ensure!(
        said.contains("destination \"/d/f\" must be a directory"),
        "{said}"
    );
    // Names that lead out.
    let evil = place.sh("mkdir -p e/x; echo evil >e/x/evil; tar -C e/x -cf evil.tar --transform 's,^,../../../,' evil; ls evil.tar")?;
    ensure!(evil == "evil.tar\n");
    let refusal = into("box:/tmp", &fs::read(place.path("evil.tar"))?)?;
    let said = String::from_utf8_lossy(&refusal.stderr).into_owned();
    ensure!(
        !refusal.status.success() && said.contains("leads out"),
        "{said}"
    );
    ok(place, &["rm", "-f", "box"])?;
    assert_nothing(place)
}

fn what_changed_is_listed(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "echo x >/etc/new; rm /etc/passwd; rm -rf /bin/sh /tmp; mkdir /tmp; touch /tmp/a";
    ok(
        place,
        &[
            "run", "--name", "changed", "-v", "vol:/vol", "busybox", "sh", "-c", script,
        ],
    )?;
    let said = ok(place, &["diff", "changed"])?;
    ensure!(
        said == "C /bin\nD /bin/sh\nC /etc\nA /etc/new\nD /etc/passwd\nC /tmp\nA /tmp/a\n",
        "{said}"
    );
    ok(place, &["rm", "changed"])?;
    ok(place, &["volume", "rm", "vol"])?;
    assert_nothing(place)
}

fn changes_become_an_image(place: &Place) -> Result<()> {
    with_container(place)?;
    ok(place, &["exec", "box", "rm", "/etc/passwd"])?;
    let id = ok(
        place,
        &[
            "commit",
            "-m",
            "why",
            "-a",
            "me",
            "-c",
            "CMD [\"cat\", \"/d/f\"]",
            "box",
            "made",
        ],
    )?;
    ensure!(id.starts_with("sha256:"), "{id}");
    ensure!(
        ok(place, &["ps"])?.contains(" Up "),
        "it was paused only meanwhile"
    );
    ensure!(ok(place, &["run", "--rm", "made"])? == "f\n");
    let look = "stat -c %u:%g /d/f; ls /etc";
    let said = ok(place, &["run", "--rm", "made", "sh", "-c", look])?;
    ensure!(said == "7:8\nhostname\nhosts\nresolv.conf\n", "{said}");
    // Its own name may be another's by now.
    ok(place, &["import", "busybox.tar", "busybox"])?;
    ok(place, &["commit", "--pause=false", "box", "made2"])?;
    ensure!(ok(place, &["run", "--rm", "made2", "cat", "/d/f"])? == "f\n");
    ok(place, &["rm", "-f", "box"])?;
    ok(
        place,
        &["image", "unpack", "--bundle", "b", "busybox", "true"],
    )?;
    ok(place, &["create", "--name", "plain", "--bundle", "b"])?;
    let said = refused(place, &["commit", "plain", "x"], 1)?;
    ensure!(
        said == "sc: plain: it was made from a bundle, which has no layers",
        "{said}"
    );
    ok(place, &["rm", "plain"])?;
    assert_nothing(place)
}

/// docker's: an image runs as the container that it was made of.
fn what_was_typed_becomes_part_of_an_image(place: &Place) -> Result<()> {
    with_image(place)?;
    let options = "--name box -u joe -w /tmp -e A=1 -e B=x\u{a0}\\\"y -l k=v --entrypoint echo busybox one two";
    let words: Vec<&str> = options.split(' ').collect();
    let said = ok(place, &[&["run"], &words[..]].concat())?;
    ensure!(said == "one two\n", "{said}");
    ok(place, &["commit", "box", "made"])?;
    ensure!(ok(place, &["run", "--rm", "made"])? == "one two\n");
    let look = "id -u; pwd; echo $A $B $HOSTNAME";
    let instead = ["--entrypoint", "sh", "-h", "own", "made", "-c", look];
    let said = ok(place, &[&["run", "--rm"], &instead[..]].concat())?;
    ensure!(said == "7\n/tmp\n1 x\u{a0}\\\"y own\n", "{said}");
    let label = ["inspect", "--format", "{{.Config.Labels.k}}", "made"];
    ensure!(ok(place, &label)? == "v\n");
    // What is asked of commit goes before it; and what was not typed is the image's.
    ok(
        place,
        &[
            "commit",
            "-c",
            "USER 0",
            "-c",
            "CMD [\"three\"]",
            "box",
            "made",
        ],
    )?;
    ok(place, &["rm", "box"])?;
    ensure!(ok(place, &["run", "--name", "plain", "made"])? == "three\n");
    ok(place, &["commit", "plain", "again"])?;
    ensure!(ok(place, &["run", "--rm", "again"])? == "three\n");
    let said = ok(place, &["run", "--rm", "--entrypoint", "id", "again", "-u"])?;
    ensure!(said == "0\n", "{said}");
    ok(place, &["rm", "plain"])?;
    assert_nothing(place)
}

fn all_files_are_exported_without_what_is_mounted(place: &Place) -> Result<()> {
    with_container(place)?;
    ok(place, &["export", "-o", "whole.tar", "box"])?;
    let output = command(place, &["export", "box"]).output()?;
    ensure!(
        output.stdout == fs::read(place.path("whole.tar"))?,
        "two exports differ"
    );
    let listed = place.sh("tar tf whole.tar | grep -v '^bin/' | sort | tr '\\n' ' '")?;
    ensure!(
        listed
            == "./ d/ d/f d/link d/sub/ d/sub/g dev/ etc/ etc/hostname etc/hosts etc/passwd etc/resolv.conf proc/ sys/ tmp/ ",
        "{listed}"
    );
    ok(place, &["import", "whole.tar", "again"])?;
    ensure!(ok(place, &["run", "--rm", "again", "cat", "/d/sub/g"])? == "g\n");
    ok(place, &["rm", "-f", "box"])?;
    assert_nothing(place)
}
