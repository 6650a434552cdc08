//! `sc`: volumes, paths of the host and tmpfs, and what becomes of them when containers and their makers die.

use crate::place::{Place, text};
use crate::sc::{assert_nothing, command, ok, refused, sc, with_image};
use crate::tests;
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

tests! {
    a_volume_begins_with_what_the_image_has_and_outlives_containers ["busybox"],
    a_volume_of_its_own_goes_with_the_container ["busybox"],
    a_volume_that_is_used_stays ["busybox"],
    a_path_of_the_host_is_shown_by_dockers_rules ["busybox"],
    mounts_are_in_order_and_once_at_a_place ["busybox"],
    the_volumes_of_another_container_are_shared ["busybox"],
    a_copy_that_was_cut_off_is_begun_anew ["busybox"],
    many_makers_and_removers_leave_whole_volumes ["busybox"],
    whoever_is_killed_leaves_whole_volumes_or_none ["busybox"],
    volumes_are_listed_filtered_and_pruned ["busybox"],
}

/// An image with files where it wants a volume: `/data` of joe's, 0750, with a file, a link and a hard link.
fn with_volume(place: &Place) -> Result<()> {
    with_image(place)?;
    place.sh("mkdir -p r/data/sub; echo one >r/data/file; ln r/data/file r/data/hard; ln -s /etc/passwd r/data/link
         chown -R 7:8 r/data; chmod 750 r/data
         tar -C r -cf volume.tar .")?;
    ok(
        place,
        &["import", "-c", "VOLUME /data", "volume.tar", "volume"],
    )
    .map(drop)
}

fn names(place: &Place) -> Result<Vec<String>> {
    let said = ok(place, &["volume", "ls", "-q"])?;
    Ok(said.lines().map(str::to_owned).collect())
}

fn assert_no_volumes(place: &Place) -> Result<()> {
    assert_nothing(place)?;
    let left = fs::read_dir(place.store.join("volumes"))?.count();
    ensure!(left == 0, "{left} left in volumes");
    Ok(())
}

fn a_volume_begins_with_what_the_image_has_and_outlives_containers(place: &Place) -> Result<()> {
    with_volume(place)?;
    let look = "stat -c '%u %a' /data; stat -c '%h' /data/file; ls /data; cat /data/link; touch /data/more";
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "kept:/data",
            "volume",
            "sh",
            "-c",
            look,
        ],
    )?;
    ensure!(
        said == "7 750\n2\nfile\nhard\nlink\nsub\njoe:x:7:8::/:/bin/sh\n",
        "{said}"
    );
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "kept:/x:ro",
            "busybox",
            "sh",
            "-c",
            "ls /x; touch /x/no || echo no",
        ],
    )?;
    ensure!(said == "file\nhard\nlink\nmore\nsub\nno\n", "{said}");
    // What is there is not copied over.
    ok(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "kept:/data",
            "volume",
            "rm",
            "/data/file",
        ],
    )?;
    let said = ok(
        place,
        &["run", "--rm", "-v", "kept:/data", "volume", "ls", "/data"],
    )?;
    ensure!(said == "hard\nlink\nmore\nsub\n", "{said}");
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "bare:/data:nocopy",
            "volume",
            "ls",
            "/data",
        ],
    )?;
    ensure!(said.is_empty(), "{said}");
    ok(place, &["volume", "rm", "kept", "bare"])?;
    assert_no_volumes(place)
}

fn a_volume_of_its_own_goes_with_the_container(place: &Place) -> Result<()> {
    with_volume(place)?;
    ok(
        place,
        &[
            "run", "--rm", "-v", "/more", "volume", "touch", "/more/x", "/data/x",
        ],
    )?;
    ensure!(names(place)?.is_empty());
    ok(
        place,
        &["run", "--name", "keeps", "volume", "touch", "/data/x"],
    )?;
    let said = ok(place, &["start", "-a", "keeps"])?;
    ensure!(said.is_empty() && names(place)?.len() == 1);
    // Without -v it stays, as with docker.
    ok(place, &["rm", "keeps"])?;
    ensure!(names(place)?.len() == 1);
    ok(place, &["volume", "prune", "-f"])?;
    ok(place, &["run", "--name", "gives", "volume", "true"])?;
    ok(place, &["rm", "-v", "gives"])?;
    ok(place, &["volume", "create", "named"])?;
    ok(
        place,
        &["run", "--rm", "-v", "named:/data", "volume", "true"],
    )?;
    ensure!(names(place)? == ["named"]);
    // What cannot start leaves none behind either.
    refused(place, &["run", "--rm", "volume", "nosuch"], 127)?;
    refused(
        place,
        &["run", "--rm", "--memory", "1m", "volume", "true"],
        125,
    )?;
    refused(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "new:/n",
            "--mount",
            "type=bind,src=/nosuch,dst=/x",
            "volume",
        ],
        125,
    )?;
    ensure!(names(place)? == ["named"], "{:?}", names(place)?);
    ok(place, &["volume", "rm", "named"])?;
    assert_no_volumes(place)
}

fn a_volume_that_is_used_stays(place: &Place) -> Result<()> {
    with_image(place)?;
    let id = ok(
        place,
        &[
            "create", "--name", "user", "-v", "used:/x", "busybox", "true",
        ],
    )?;
    let said = refused(place, &["volume", "rm", "used"], 1)?;
    ensure!(
        said == format!("sc: remove used: volume is in use - [{}]", &id[..12]),
        "{said}"
    );
    let said = refused(place, &["volume", "rm", "nosuch"], 1)?;
    ensure!(said == "sc: get nosuch: no such volume", "{said}");
    ok(place, &["volume", "rm", "-f", "nosuch"])?;
    ok(place, &["volume", "prune", "-af"])?;
    ensure!(names(place)? == ["used"]);
    ok(place, &["rm", "user"])?;
    ok(place, &["volume", "rm", "used"])?;
    assert_no_volumes(place)
}

fn a_path_of_the_host_is_shown_by_dockers_rules(place: &Place) -> Result<()> {
    with_image(place)?;
    let made = place.path("made/deep");
    let volume = format!("{}:/x", made.display());
    ok(
        place,
        &["run", "--rm", "-v", &volume, "busybox", "touch", "/x/file"],
    )?;
    ensure!(made.join("file").metadata()?.uid() == 0);
    ok(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "./made:/x:z",
            "busybox",
            "ls",
            "/x/deep/file",
        ],
    )?;
    let said = refused(
        place,
        &[
            "run",
            "--rm",
            "--mount",
            "type=bind,src=/nosuch/at/all,dst=/x",
            "busybox",
            "true",
        ],
        125,
    )?;
    ensure!(
        said == "sc: invalid mount config for type \"bind\": bind source path does not exist: /nosuch/at/all",
        "{said}"
    );
    // Read-only reaches what is mounted below.
    place.sh("mount -t tmpfs below made/deep")?;
    let both = ["ro", "ro,bind"].map(|options| {
        let mount = format!("{}:/x:{options}", place.path("made").display());
        ok(
            place,
            &[
                "run",
                "--rm",
                "-v",
                &mount,
                "busybox",
                "sh",
                "-c",
                "touch /x/deep/no 2>/dev/null || echo no",
            ],
        )
    });
    place.sh("umount --lazy made/deep")?;
    let [whole, alone] = both;
    ensure!(whole? == "no\n" && alone? == "no\n");
    let file = format!("{}/made/deep/file:/etc/hosts", place.dir.display());
    ensure!(
        ok(
            place,
            &["run", "--rm", "-v", &file, "busybox", "cat", "/etc/hosts"]
        )?
        .is_empty()
    );
    assert_nothing(place)
}

fn mounts_are_in_order_and_once_at_a_place(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "grep -E ' /a(/b)? ' /proc/mounts | while read what at kind rest; do echo $at $kind; done; touch /x || echo no; touch /tmp/y /a/b/y";
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "--read-only",
            "--tmpfs",
            "/a/b:size=1m",
            "--tmpfs",
            "/a",
            "busybox",
            "sh",
            "-c",
            script,
        ],
    )?;
    ensure!(said == "/a tmpfs\n/a/b tmpfs\nno\n", "{said}");
    let said = refused(
        place,
        &[
            "run", "--rm", "-v", "va:/x", "--tmpfs", "/x/", "busybox", "true",
        ],
        125,
    )?;
    ensure!(said == "sc: Duplicate mount point: /x", "{said}");
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "--shm-size",
            "3m",
            "--tmpfs",
            "/t:size=2m",
            "busybox",
            "df",
        ],
    )?;
    let sizes: Vec<&str> = said
        .lines()
        .filter(|line| line.ends_with("/dev/shm") || line.ends_with("/t"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    ensure!(
        sizes == ["2048", "3072"] || sizes == ["3072", "2048"],
        "{said}"
    );
    assert_nothing(place)
}

fn the_volumes_of_another_container_are_shared(place: &Place) -> Result<()> {
    with_volume(place)?;
    ok(
        place,
        &[
            "run",
            "--name",
            "first",
            "-v",
            "shared:/s",
            "volume",
            "sh",
            "-c",
            "echo x >/s/x; echo y >/data/y",
        ],
    )?;
    let look = "cat /s/x /data/y; touch /s/no || echo no";
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "--volumes-from",
            "first:ro",
            "busybox",
            "sh",
            "-c",
            look,
        ],
    )?;
    ensure!(said == "x\ny\nno\n", "{said}");
    // Another's is not removed with --rm.
    ok(place, &["start", "-a", "first"])?;
    ok(place, &["rm", "-v", "first"])?;
    ok(place, &["volume", "rm", "shared"])?;
    assert_no_volumes(place)
}

fn a_copy_that_was_cut_off_is_begun_anew(place: &Place) -> Result<()> {
    with_volume(place)?;
    ok(place, &["volume", "create", "half"])?;
    // What a monitor leaves that was killed in the middle.
    let volume = place.store.join("volumes/half");
    fs::write(volume.join("filling"), "")?;
    fs::write(volume.join("_data/file"), "o")?;
    let said = ok(
        place,
        &[
            "run",
            "--rm",
            "-v",
            "half:/data",
            "volume",
            "cat",
            "/data/file",
            "/data/hard",
        ],
    )?;
    ensure!(said == "one\none\n", "{said}");
    ensure!(!volume.join("filling").exists());
    // What a maker leaves that was killed before the volume was one.
    fs::create_dir_all(place.store.join("volumes/unborn/_data"))?;
    ensure!(names(place)? == ["half"]);
    ok(place, &["volume", "rm", "half"])?;
    assert_no_volumes(place)
}

fn many_makers_and_removers_leave_whole_volumes(place: &Place) -> Result<()> {
    with_volume(place)?;
    let run = |n: usize| {
        let volume = format!("{}:/data", ["one", "two"][n % 2]);
        let mut one = command(
            place,
            &["run", "--rm", "-v", &volume, "volume", "cat", "/data/file"],
        );
        one.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let remove = || {
        command(place, &["volume", "rm", "one", "two"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    };
    let (mut runs, mut removals) = (Vec::new(), Vec::new());
    for n in 0..12 {
        runs.push(run(n)?);
        removals.push(remove()?);
    }
    for one in runs {
        let said = text(one.wait_with_output()?)?;
        ensure!(said == "one\n", "{said:?}");
    }
    for mut one in removals {
        one.wait()?;
    }
    ok(place, &["volume", "prune", "-af"])?;
    assert_no_volumes(place)
}

fn volumes_are_listed_filtered_and_pruned(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(place, &["volume", "create", "--label", "a=b", "labelled"])?;
    let made = ok(place, &["volume", "create"])?;
    ensure!(made.trim().len() == 64, "{made}");
    ok(
        place,
        &[
            "create", "--name", "user", "-v", "used:/x", "busybox", "true",
        ],
    )?;
    ensure!(ok(place, &["volume", "ls"])?.starts_with("DRIVER    VOLUME NAME\nlocal     "));
    for (filter, expected) in [
        ("label=a=b", "labelled\n"),
        ("label=b", ""),
        ("name=lab", "labelled\n"),
        ("dangling=false", "used\n"),
    ] {
        let said = ok(place, &["volume", "ls", "-q", "--filter", filter])?;
        ensure!(said == expected, "{filter}: {said}");
    }
    let found: serde_json::Value =
        serde_json::from_str(&ok(place, &["volume", "inspect", "used"])?)?;
    ensure!(
        found[0]["Name"] == "used"
            && found[0]["Mountpoint"]
                .as_str()
                .is_some_and(|at| at.ends_with("/used/_data"))
    );
    let row: serde_json::Value = serde_json::from_str(&ok(
        place,
        &["volume", "ls", "--format", "json", "-f", "name=lab"],
    )?)?;
    ensure!(row["Labels"] == "a=b", "{row}");
    // Asked, and not answered.
    ok(place, &["volume", "prune"])?;
    ensure!(names(place)?.len() == 3);
    ok(place, &["volume", "prune", "-f"])?;
    ensure!(names(place)? == ["labelled", "used"]);
    let said = refused(place, &["volume", "create", "../x"], 1)?;
    ensure!(said.contains("includes invalid characters"), "{said}");
    ok(place, &["rm", "-v", "user"])?;
    // It has a name: -v removes only what nobody named.
    ensure!(names(place)? == ["labelled", "used"]);
    ensure!(
        sc(place, &["volume", "rm", "labelled", "used", "nosuch"])?
            .status
            .code()
            == Some(1)
    );
    assert_no_volumes(place)
}

fn whoever_is_killed_leaves_whole_volumes_or_none(place: &Place) -> Result<()> {
    with_volume(place)?;
    for n in 0..30 {
        let (name, volume) = (format!("c{n}"), format!("v{n}:/data"));
        let args = [
            "run", "-d", "--name", &name, "-v", &volume, "-v", "/own", "volume", "sleep", "1000",
        ];
        let mut one = command(place, &args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Everywhere between its first act and its last.
        std::thread::sleep(Duration::from_millis(n));
        one.kill()?;
        one.wait()?;
        // Its monitor too, if there is one.
        let monitors = format!(
            "pkill -9 -f -- '--root {} [m]onitor' || true",
            place.store.display()
        );
        if n % 3 == 0 {
            place.sh(&monitors)?;
        }
    }
    for name in names(place)?.iter().filter(|name| name.starts_with('v')) {
        let volume = format!("{name}:/data");
        let said = ok(
            place,
            &[
                "run",
                "--rm",
                "-v",
                &volume,
                "volume",
                "cat",
                "/data/file",
                "/data/hard",
            ],
        )?;
        ensure!(said == "one\none\n", "{name}: {said}");
    }
    let ids = ok(place, &["ps", "-aq"])?;
    for id in ids.lines() {
        ok(place, &["rm", "-fv", id])?;
    }
    ok(place, &["system", "prune", "-f", "--volumes"])?;
    ok(place, &["volume", "prune", "-af"])?;
    assert_no_volumes(place)
}
