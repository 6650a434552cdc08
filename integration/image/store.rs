//! The store stays whole: names and garbage, damage and repair, many at once, death at any moment, a full
//! disk.

use crate::layout::{dir, file, load, plain, tar, with, write};
use crate::place::{Place, assert_same, picture};
use crate::tests;
use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use simplecontainer::image::digest::Digest;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

tests! {
    names_are_given_taken_and_shown,
    what_nothing_names_is_removed_and_what_something_names_is_not,
    an_image_in_use_stays,
    damage_is_found_and_repaired,
    a_damaged_layer_in_use_is_unpacked_anew_beside_it,
    many_at_once_leave_a_whole_store,
    death_at_any_moment_leaves_a_whole_store,
    a_full_disk_leaves_a_whole_store,
    on_a_full_disk_images_can_be_removed,
    a_killed_save_leaves_nothing_for_ever,
    who_waits_says_for_whom,
    an_interrupted_unpack_is_taken_up_by_the_next,
}

fn blobs(t: &Place) -> Result<usize> {
    Ok(fs::read_dir(t.store.join("image/blobs/sha256"))?.count())
}

fn names_are_given_taken_and_shown(t: &Place) -> Result<()> {
    load(t, "a", &[&[file("f", b"a")]])?;
    load(t, "b", &[&[file("f", b"b")]])?;
    t.call(["tag", "a", "busybox"])?;
    t.call(["tag", "busybox", "quay.io/x/y:1"])?;
    let listed = t.call(["list", "--format", "json"])?;
    let mut names: Vec<String> = listed
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            format!(
                "{}:{}",
                line["Repository"].as_str().unwrap(),
                line["Tag"].as_str().unwrap()
            )
        })
        .collect();
    names.sort();
    assert_eq!(
        names.join(" "),
        "busybox:latest localhost/a:latest localhost/b:latest quay.io/x/y:1"
    );
    // A name that moves leaves the other without one.
    t.call(["tag", "b", "a"])?;
    t.call(["tag", "localhost/b", "localhost/a:latest"])?;
    let shown: Value = serde_json::from_str(&t.call(["inspect", "busybox"])?)?;
    assert_eq!(
        shown[0]["RepoTags"],
        json!(["docker.io/library/busybox:latest", "quay.io/x/y:1"])
    );
    let id = shown[0]["Id"].as_str().context("Id")?.to_owned();
    let said = t.refusal(["rm", &id])?;
    ensure!(
        said.starts_with("rm: 1 of 1 images are not removed"),
        "{said}"
    );
    assert_eq!(
        t.call(["rm", "busybox"])?,
        "Untagged: docker.io/library/busybox:latest\n"
    );
    let said = t.call(["rm", &id[..20]])?;
    ensure!(
        said.starts_with("Untagged: quay.io/x/y:1\nDeleted: sha256:"),
        "{said}"
    );
    let said = t.refusal(["inspect", "busybox"])?;
    assert_eq!(said, "busybox: no such image");
    assert_eq!(
        t.call(["list", "-f", "reference=localhost/*", "-q"])?
            .lines()
            .count(),
        1
    );
    t.assert_whole()
}

fn what_nothing_names_is_removed_and_what_something_names_is_not(t: &Place) -> Result<()> {
    load(t, "a", &[&[file("shared", b"1")], &[file("own", b"a")]])?;
    load(t, "b", &[&[file("shared", b"1")], &[file("own", b"b")]])?;
    assert_eq!(blobs(t)?, 7);
    t.call(["unpack", "-q", "--overlay", "a", "--bundle", "ao"])?;
    t.call(["unpack", "-q", "--overlay", "b", "--bundle", "bo"])?;
    assert_eq!(fs::read_dir(t.store.join("layers"))?.count(), 3);
    fs::remove_dir_all(t.path("ao"))?;
    t.call(["rm", "a"])?;
    assert_eq!(blobs(t)?, 4);
    assert_eq!(fs::read_dir(t.store.join("layers"))?.count(), 2);
    t.call(["tag", "b", "c"])?;
    load(t, "b", &[&[file("shared", b"2")]])?;
    assert_eq!(
        t.call(["prune"])?,
        "Removed 0 blobs and 0 layers, 0B freed\n"
    );
    fs::remove_dir_all(t.path("bo"))?;
    t.call(["rm", "c"])?;
    fs::write(t.store.join("image/ingest/1-1.spool"), "left by a dead one")?;
    t.call(["gc"])?;
    assert_eq!(fs::read_dir(t.store.join("image/ingest"))?.count(), 0);
    assert_eq!(blobs(t)?, 3);
    t.assert_whole()?;
    t.call(["prune", "-a"])?;
    assert_eq!(blobs(t)?, 0);
    t.assert_whole()
}

fn an_image_in_use_stays(t: &Place) -> Result<()> {
    load(t, "a", &[&[file("f", b"a")]])?;
    t.call(["unpack", "-q", "--overlay", "a", "--bundle", "used"])?;
    let output = t.command(["rm", "a"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("used uses it: remove that first, or use --force"),
        "{said}"
    );
    t.call(["prune", "-a"])?;
    t.call(["inspect", "a"])?;
    // By force the name goes, what is mounted stays.
    t.call(["rm", "-f", "a"])?;
    assert_eq!(fs::read_dir(t.store.join("layers"))?.count(), 1);
    fs::remove_dir_all(t.path("used"))?;
    t.call(["gc"])?;
    assert_eq!(fs::read_dir(t.store.join("layers"))?.count(), 0);
    Ok(())
}

fn damage_is_found_and_repaired(t: &Place) -> Result<()> {
    load(t, "a", &[&[file("f", b"content")]])?;
    load(t, "b", &[&[file("f", b"other")], &[dir("d/")]])?;
    for name in ["a", "b"] {
        let bundle = t.path(name);
        t.call([
            "unpack",
            "-q",
            "--overlay",
            name,
            "--bundle",
            &bundle.display().to_string(),
        ])?;
        fs::remove_dir_all(bundle)?;
    }
    t.assert_whole()?;
    // A file of an unpacked layer.
    let diff_id = Digest::of(&tar(&[file("f", b"other")]));
    let unpacked = t.store.join("layers").join(diff_id.hex()).join("diff/f");
    fs::write(&unpacked, "OTHER")?;
    let output = t.command(["fsck"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        said.contains(&format!("layer {diff_id}: \"f\": was changed")),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    t.call(["fsck", "--repair"])?;
    t.assert_whole()?;
    // A blob.
    let blob = t
        .store
        .join("image/blobs/sha256")
        .join(Digest::of(&tar(&[file("f", b"content")])).hex());
    let mut content = fs::read(&blob)?;
    content[600] ^= 1;
    fs::write(&blob, content)?;
    let said = t.call(["fsck", "--repair"])?;
    ensure!(
        said.contains("(removed)") && said.contains("image localhost/a:latest"),
        "{said}"
    );
    t.assert_whole()?;
    assert_eq!(t.refusal(["inspect", "a"])?, "a: no such image");
    load(t, "a", &[&[file("f", b"content")]])?;
    // The index.
    fs::write(t.store.join("image/index.json"), "{")?;
    t.refusal(["list"])?;
    t.call(["fsck", "--repair"])?;
    assert_eq!(t.call(["list"])?.matches("<none>").count(), 4);
    t.assert_whole()
}

/// What is mounted keeps its files until the bundle is gone.
fn a_damaged_layer_in_use_is_unpacked_anew_beside_it(t: &Place) -> Result<()> {
    load(
        t,
        "a",
        &[&[file("f", b"content"), dir("d/")], &[file("g", b"upper")]],
    )?;
    let said = t.call(["unpack", "-q", "--overlay", "a", "--bundle", "b"])?;
    let said: Value = serde_json::from_str(&said)?;
    let lower: Vec<&str> = said["lowerdirs"]
        .as_array()
        .context("lowerdirs")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    fs::create_dir(t.path("mounted"))?;
    let options = format!("lowerdir={}", lower.join(":"));
    mount(
        Some("overlay"),
        &t.path("mounted"),
        Some("overlay"),
        MsFlags::MS_RDONLY,
        Some(options.as_str()),
    )?;
    let base = Path::new(lower[1]);
    fs::write(base.join("f"), "DAMAGED")?;
    fs::write(base.join("d/more"), "x")?;
    let said = t.call(["fsck", "--repair"])?;
    ensure!(
        said.contains("(unpacked anew: containers that run have the old one"),
        "{said}"
    );
    ensure!(said.contains("2 unpacked layers: whole"), "{said}");
    assert_eq!(fs::read(base.join("f"))?, b"content");
    ensure!(!base.join("d/more").exists());
    t.call(["gc"])?;
    t.assert_whole()?;
    assert_eq!(fs::read(t.path("mounted/f"))?, b"DAMAGED");
    assert_eq!(fs::read_dir(t.store.join("layers"))?.count(), 3);
    // Lost, and in use.
    fs::remove_dir_all(base.parent().context("parent")?)?;
    t.refusal(["fsck"])?;
    let said = t.call(["fsck", "--repair"])?;
    ensure!(said.contains("is not unpacked (unpacked anew)"), "{said}");
    t.assert_whole()?;
    assert_eq!(fs::read(t.path("mounted/f"))?, b"DAMAGED");
    nix::mount::umount2(&t.path("mounted"), nix::mount::MntFlags::MNT_DETACH)?;
    fs::remove_dir_all(t.path("b"))?;
    t.call(["gc"])?;
    assert_eq!(fs::read_dir(t.store.join("layers"))?.count(), 2);
    t.assert_whole()
}

/// A layer large enough to be caught in the middle.
fn large(t: &Place, name: &str, seed: u8) -> Result<()> {
    let mut entries = vec![dir("d/")];
    for at in 0..400 {
        entries.push(with(file(&format!("d/{at}"), b""), |e| {
            e.mode = 0o600 + u32::from(seed)
        }));
    }
    let mut bytes = tar(&entries);
    let noise: Vec<u8> = (0..4_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
        .collect();
    let mut writer = simplecontainer::image::tape::Writer::new(Vec::new());
    writer.put(
        &simplecontainer::image::tape::Entry::file("noise", noise.len() as u64),
        noise.as_slice(),
    )?;
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(writer.finish()?);
    write(
        t,
        name,
        &[
            plain(bytes),
            plain(tar(&[file("top", b"x"), file(".wh.noise", b"")])),
        ],
        json!({ "Cmd": ["x"] }),
    )?;
    Ok(())
}

fn many_at_once_leave_a_whole_store(t: &Place) -> Result<()> {
    for (name, seed) in [("a", 1), ("b", 2)] {
        large(t, name, seed)?;
    }
    load(t, "keep", &[&[file("f", b"kept")]])?;
    let wanted = {
        t.call(["load", "-q", "-i", "a.layout"])?;
        t.call(["unpack", "-q", "a", "--bundle", "wanted"])?;
        picture(&t.path("wanted/rootfs"))?
    };
    let wanted = &wanted;
    thread::scope(|scope| -> Result<()> {
        let mut workers = Vec::new();
        for worker in 0..6 {
            workers.push(scope.spawn(move || -> Result<()> {
                for round in 0..6 {
                    let name = if worker % 2 == 0 { "a" } else { "b" };
                    let bundle = format!("{worker}-{round}");
                    match worker {
                        0 | 1 => drop(t.call(["load", "-q", "-i", &format!("{name}.layout")])?),
                        // The image may be gone, never half there.
                        2 | 3 => {
                            let output = t
                                .command(["unpack", "-q", name, "--bundle", &bundle])
                                .output()?;
                            let said = String::from_utf8_lossy(&output.stderr).into_owned();
                            let gone = said.contains("no such image")
                                || said.contains("is not in the store");
                            ensure!(output.status.success() || gone, "{said}");
                            if output.status.success() && name == "a" {
                                assert_same(
                                    "while others work",
                                    wanted,
                                    &picture(&t.path(&bundle).join("rootfs"))?,
                                )?;
                            }
                        }
                        4 => drop(t.command(["rm", "a", "b"]).output()?),
                        _ => drop(t.call(["gc"])?),
                    }
                }
                Ok(())
            }));
        }
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a panic"))?)
    })?;
    t.call(["inspect", "keep"])?;
    t.assert_whole()
}

fn death_at_any_moment_leaves_a_whole_store(t: &Place) -> Result<()> {
    large(t, "a", 1)?;
    load(t, "keep", &[&[file("f", b"kept")]])?;
    // How long each takes undisturbed, in steps that cover it.
    for (args, prepare) in [
        (&["load", "-q", "-i", "a.layout"][..], &["rm", "a"][..]),
        (
            &["unpack", "-q", "a", "--bundle", "b"],
            &["load", "-q", "-i", "a.layout"],
        ),
        (
            &["unpack", "-q", "--overlay", "a", "--bundle", "b"],
            &["load", "-q", "-i", "a.layout"],
        ),
        (&["rm", "-f", "a"], &["load", "-q", "-i", "a.layout"]),
        (
            &["save", "-q", "-o", "out.tar", "a"],
            &["load", "-q", "-i", "a.layout"],
        ),
    ] {
        for step in 0..12_u64 {
            drop(t.command(prepare).stderr(Stdio::null()).output()?);
            let mut child = t
                .command(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            thread::sleep(Duration::from_micros(step * step * 700));
            child.kill()?;
            child.wait()?;
            t.assert_whole()
                .with_context(|| format!("{args:?} killed at step {step}"))?;
            t.call(["inspect", "keep"])?;
            ensure!(
                t.path("b/config.json").exists() <= t.path("b/rootfs").exists(),
                "config.json without rootfs"
            );
            // What is left does not stand in the way of the next one.
            if args.contains(&"b") && !t.path("b/config.json").exists() {
                t.call(args.iter().copied())?;
            }
            let _ = fs::remove_dir_all(t.path("b"));
        }
        t.call(["gc"])?;
    }
    t.call(["prune", "-a"])?;
    assert_eq!(
        (blobs(t)?, fs::read_dir(t.store.join("layers"))?.count()),
        (0, 0)
    );
    Ok(())
}

fn a_full_disk_leaves_a_whole_store(t: &Place) -> Result<()> {
    large(t, "a", 1)?;
    for (size, what) in [("3m", "load"), ("6m", "unpack"), ("6m", "overlay")] {
        let small = t.path(&format!("small-{what}"));
        fs::create_dir(&small)?;
        let options = format!("mode=755,size={size}");
        mount(
            Some("small"),
            &small,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
        let full = Place {
            dir: t.dir.clone(),
            store: small.join("store"),
        };
        load(&full, "keep", &[&[file("f", b"kept")]])?;
        let bundle = small.join("b").display().to_string();
        let said = match what {
            "load" => full.refusal(["load", "-q", "-i", "a.layout"])?,
            _ => {
                full.call(["load", "-q", "-i", "a.layout"])?;
                let mut args = vec!["unpack", "-q", "a", "--bundle", &bundle];
                args.extend((what == "overlay").then_some("--overlay"));
                full.refusal(args)?
            }
        };
        ensure!(
            said.to_lowercase().contains("no space left on device"),
            "{said}"
        );
        ensure!(
            !Path::new(&bundle).exists(),
            "something is left of the bundle"
        );
        full.call(["inspect", "keep"])?;
        full.assert_whole()?;
        full.call(["rm", "keep"])?;
        full.assert_whole()?;
    }
    Ok(())
}

fn on_a_full_disk_images_can_be_removed(t: &Place) -> Result<()> {
    large(t, "a", 1)?;
    let small = t.path("small");
    fs::create_dir(&small)?;
    mount(
        Some("small"),
        &small,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755,size=6m"),
    )?;
    let full = Place {
        dir: t.dir.clone(),
        store: small.join("store"),
    };
    full.call(["load", "-q", "-i", "a.layout"])?;
    load(&full, "keep", &[&[file("f", b"kept")]])?;
    // Twice: what was kept for it is there again.
    for round in 0..2 {
        t.sh("dd if=/dev/zero of=small/fill bs=4096 2>/dev/null || true")?;
        let name = if round == 0 { "keep" } else { "a" };
        ensure!(full.call(["rm", name])?.contains("Deleted: "));
        full.assert_whole()?;
        ensure!(full.store.join("lock/reserve").exists() || round == 0);
    }
    assert_eq!(blobs(&full)?, 0);
    Ok(())
}

fn a_killed_save_leaves_nothing_for_ever(t: &Place) -> Result<()> {
    large(t, "a", 1)?;
    t.call(["load", "-q", "-i", "a.layout"])?;
    fs::create_dir(t.path("out"))?;
    fs::write(t.path("out/a.tar"), "old")?;
    let names = || -> Result<Vec<String>> {
        let names = fs::read_dir(t.path("out"))?;
        names
            .map(|name| Ok(name?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    for (format, to) in [("docker-archive", "out/a.tar"), ("oci-dir", "out/a")] {
        for step in 0..12_u64 {
            let mut child = t
                .command(["save", "-q", "--format", format, "-o", to, "a"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            thread::sleep(Duration::from_micros(step * step * 300));
            child.kill()?;
            child.wait()?;
            if format == "docker-archive" {
                // Between its two names, it has one that the next save takes over.
                let mut names = names()?;
                names.retain(|name| name != ".a.tar.sc-save");
                assert_eq!(names, ["a.tar"], "killed at step {step}");
                let size = fs::metadata(t.path(to))?.len();
                ensure!(size == 3 || size > 4_000_000, "half of it: {size}");
            } else {
                let _ = fs::remove_dir_all(t.path(to));
            }
        }
        t.call(["save", "-q", "--format", format, "-o", to, "a"])?;
        t.call(["load", "-q", "-i", to])?;
    }
    let mut left = names()?;
    left.sort();
    assert_eq!(left, ["a", "a.tar"]);
    Ok(())
}

fn who_waits_says_for_whom(t: &Place) -> Result<()> {
    load(t, "a", &[&[file("f", b"a")]])?;
    let lock = fs::File::open(t.store.join("lock/store"))?;
    simplecontainer::sys::file::lock(std::os::fd::AsFd::as_fd(&lock))?;
    let child = t
        .command(["list", "-q"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It has said so before it waits: then its stderr is not empty.
    let mut child = child;
    let mut said = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().context("stderr")?);
    std::io::BufRead::read_line(&mut stderr, &mut said)?;
    let pid = std::process::id();
    ensure!(
        said.starts_with("sc-image: waiting: the store is in use by ")
            && said.contains(&format!("(process {pid})")),
        "{said}"
    );
    drop(lock);
    ensure!(child.wait()?.success());
    Ok(())
}

fn an_interrupted_unpack_is_taken_up_by_the_next(t: &Place) -> Result<()> {
    load(t, "a", &[&[file("f", b"a")]])?;
    fs::create_dir_all(t.path("b/.unpack/rootfs/half"))?;
    fs::write(t.path("b/.unpack/config.json"), "{")?;
    t.call(["unpack", "-q", "a", "--bundle", "b"])?;
    ensure!(!t.path("b/.unpack").exists() && !t.path("b/rootfs/half").exists());
    let said = t.refusal(["unpack", "-q", "a", "--bundle", "b"])?;
    assert_eq!(
        said,
        "unpack a into b: there is a bundle already (config.json)"
    );
    // Between its two renames.
    fs::remove_file(t.path("b/config.json"))?;
    let said = t.refusal(["unpack", "-q", "a", "--bundle", "b"])?;
    assert_eq!(said, "unpack a into b: there is a rootfs already");
    fs::create_dir(t.path("b/.unpack"))?;
    fs::write(t.path("b/.unpack/config.json"), "{}")?;
    t.call(["unpack", "-q", "a", "--bundle", "b"])?;
    Ok(())
}
