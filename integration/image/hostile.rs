//! Layers made to harm: nothing is written outside the root, nothing is left of the bundle, and the error
//! names the layer and the entry.

use crate::layout::{
    Content, Layer, TAR, dir, file, link, load, node, plain, symlink, tar, with, write,
};
use crate::place::Place;
use crate::tests;
use anyhow::{Result, ensure};
use serde_json::json;
use simplecontainer::image::digest::Digest;
use simplecontainer::image::tape::Kind;
use std::fs;
use std::io::Write;

tests! {
    names_that_lead_out_are_refused,
    links_are_followed_inside_the_root_only,
    hard_links_do_not_reach_outside,
    the_root_cannot_be_replaced,
    whiteouts_of_whiteouts_and_of_nothing_are_refused,
    two_headed_streams_are_refused,
    sizes_of_2_63_and_names_of_4096_bytes_are_refused,
    bombs_end_at_the_limit,
    content_that_is_not_what_the_config_says_is_refused,
    device_nodes_and_attributes_that_steer_overlayfs_are_not_the_layers_to_make,
    a_stream_that_is_cut_off_is_refused,
    ids_out_of_range_are_refused,
    config_paths_and_users_do_not_lead_out,
}

/// Unpacks, both ways, what must be refused; gives the words after the layer's name.
fn refusal(t: &Place, name: &str, layers: &[Layer]) -> Result<String> {
    let root = write(t, name, layers, json!({ "Cmd": ["x"] }))?;
    t.call(["load", "-q", "-i", &root.display().to_string()])?;
    fs::write(t.path("outside"), "untouched")?;
    let last = layers
        .last()
        .map(|layer| Digest::of(&layer.bytes).to_string())
        .unwrap_or_default();
    let mut words = Vec::new();
    for overlay in [false, true] {
        let mut args = vec!["unpack", "-q", name, "--bundle", "bundle"];
        args.extend(overlay.then_some("--overlay"));
        let said = t.refusal(args)?;
        let prefix = format!("unpack {name} into bundle: layer {last}: ");
        words.push(
            said.strip_prefix(&prefix)
                .map_or(said.clone(), str::to_owned),
        );
        ensure!(
            !t.path("bundle").exists(),
            "something is left of the bundle"
        );
        assert_eq!(fs::read(t.path("outside"))?, b"untouched");
    }
    assert_eq!(words[0], words[1]);
    t.call(["rm", "-f", name])?;
    let layers = fs::read_dir(t.store.join("layers"))?.count();
    assert_eq!(layers, 0, "a layer is left");
    Ok(words.remove(0))
}

fn refused(t: &Place, contents: &[Content], expected: &str) -> Result<()> {
    assert_eq!(refusal(t, "hostile", &[plain(tar(contents))])?, expected);
    Ok(())
}

fn names_that_lead_out_are_refused(t: &Place) -> Result<()> {
    for name in [
        "../outside",
        "a/../../outside",
        "/../outside",
        "..",
        "a/../..",
    ] {
        let expected = format!("entry {name:?}: the name leads out of the layer");
        refused(t, &[file("a/b", b""), file(name, b"hostile")], &expected)?;
    }
    Ok(())
}

fn links_are_followed_inside_the_root_only(t: &Place) -> Result<()> {
    let outside = t.path("target");
    fs::create_dir(&outside)?;
    let absolute = outside.display().to_string();
    load(
        t,
        "links",
        &[
            &[
                symlink("abs", &absolute),
                file("abs/file", b"inside"),
                symlink("rel", "../../../target"),
                file("rel/file", b"inside"),
                symlink("p", "/proc/self/root"),
                file("p/outside", b"inside"),
                // chmod, chown and times through a link (CVE-2021-32760).
                symlink("meta", &absolute),
                with(dir("meta/"), |e| e.mode = 0o777),
            ],
            // The link is of a lower layer.
            &[
                file("abs/later", b"inside"),
                file("rel/.wh.file", b""),
                file("abs/.wh..wh..opq", b""),
            ],
        ],
    )?;
    t.call(["unpack", "-q", "links", "--bundle", "b"])?;
    t.call(["unpack", "-q", "--overlay", "links", "--bundle", "o"])?;
    assert_eq!(fs::read_dir(&outside)?.count(), 0, "written through a link");
    let inside = t.path("b/rootfs").join(absolute.trim_start_matches('/'));
    assert_eq!(fs::read(inside.join("later"))?, b"inside");
    t.assert_whole()
}

fn hard_links_do_not_reach_outside(t: &Place) -> Result<()> {
    fs::write(t.path("outside"), "untouched")?;
    let absolute = t.path("outside").display().to_string();
    let missing = absolute.trim_start_matches('/').to_owned();
    for (target, expected) in [
        (
            "../outside",
            "entry \"l\": link to \"../outside\": the name leads out of the layer".to_owned(),
        ),
        (
            absolute.as_str(),
            format!("entry \"l\": a hard link to {missing:?}, which is not there"),
        ),
        (
            "s/outside",
            "entry \"l\": a hard link to \"s/outside\", which is not there".to_owned(),
        ),
        (
            "d",
            "entry \"l\": a hard link to \"d\", a directory".to_owned(),
        ),
    ] {
        let dir_of = t.dir.display().to_string();
        let said = refusal(
            t,
            "hard",
            &[plain(tar(&[
                dir("d"),
                symlink("s", &dir_of),
                link("l", target),
            ]))],
        )?;
        // In an overlay a missing target is looked for below first.
        let said = said.replace(": no lower layer has it", "");
        assert_eq!(said, expected);
    }
    // A link to a link is the link's own; writing to it replaces it.
    load(
        t,
        "chain",
        &[&[
            symlink("s", &absolute),
            link("l", "s"),
            file("l", b"inside"),
        ]],
    )?;
    t.call(["unpack", "-q", "chain", "--bundle", "b"])?;
    assert_eq!(fs::read(t.path("outside"))?, b"untouched");
    assert_eq!(fs::read(t.path("b/rootfs/l"))?, b"inside");
    Ok(())
}

fn the_root_cannot_be_replaced(t: &Place) -> Result<()> {
    for name in [".", "/", "./", "a/.."] {
        for entry in [
            symlink(name, "/"),
            link(name, "a"),
            node(name, Kind::Fifo, 0, 0),
        ] {
            refused(
                t,
                &[file("a/f", b""), entry],
                &format!("entry {name:?}: the root must be a directory"),
            )?;
        }
    }
    Ok(())
}

fn whiteouts_of_whiteouts_and_of_nothing_are_refused(t: &Place) -> Result<()> {
    for (name, why) in [
        ("a/.wh.", "a whiteout of no name"),
        ("a/.wh..", "a whiteout of no name"),
        (".wh...", "a whiteout of no name"),
        (".wh.a/b", "a whiteout is no directory"),
        (".wh.a/.wh.b", "a whiteout is no directory"),
        (".wh.a/.wh..wh..opq", "a whiteout is no directory"),
    ] {
        refused(
            t,
            &[file("a/b", b""), file(name, b"")],
            &format!("entry {name:?}: {why}"),
        )?;
    }
    Ok(())
}

/// Headers whose parts contradict one another.
fn two_headed_streams_are_refused(t: &Place) -> Result<()> {
    let long = "n".repeat(150);
    let pax = tar(&[file(&long, b"")]);
    let gnu = |name: &str| {
        let mut block = tar(&[file("././@LongLink", b"")])[..512].to_vec();
        block[124..135].copy_from_slice(format!("{:011o}", name.len() + 1).as_bytes());
        block[156] = b'L';
        seal(&mut block);
        let mut content = name.as_bytes().to_vec();
        content.resize(512, 0);
        [block, content].concat()
    };
    // A GNU name, then a PAX header with another one, then the file.
    let both = [gnu("other"), pax.clone()].concat();
    let zero = [tar(&[])[..512].to_vec(), tar(&[file("after", b"")])].concat();
    for (bytes, why) in [
        (both, "a PAX name and a GNU long name for one entry"),
        (zero, "a single block of zeros in the middle of the stream"),
        (
            [pax[..1024].to_vec(), pax].concat(),
            "two PAX headers for one entry",
        ),
    ] {
        assert_eq!(refusal(t, "heads", &[plain(bytes)])?, why);
    }
    Ok(())
}

fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn sizes_of_2_63_and_names_of_4096_bytes_are_refused(t: &Place) -> Result<()> {
    let sized = |field: [u8; 12]| {
        let mut block = tar(&[file("f", b"")])[..512].to_vec();
        block[124..136].copy_from_slice(&field);
        seal(&mut block);
        plain(block)
    };
    for (field, why) in [
        (
            [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0],
            "size is 2^63 or more",
        ),
        ([0xff; 12], "size is negative"),
        (
            [
                0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            ],
            "a size of 2^63 bytes or more",
        ),
        (
            [0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0],
            "entry \"f\": more than 137438953472 bytes of files: see --max-size",
        ),
    ] {
        assert_eq!(refusal(t, "size", &[sized(field)])?, why);
    }
    let long = "x/".repeat(2048);
    let said = refusal(t, "long", &[plain(tar(&[file(&long, b"")]))])?;
    assert_eq!(
        said,
        format!("entry {long:?}: a name of 4096 bytes (at most 4095)")
    );
    let wide = "x".repeat(300);
    let said = refusal(t, "wide", &[plain(tar(&[file(&wide, b"")]))])?;
    ensure!(said.ends_with("file name too long"), "{said}");
    Ok(())
}

fn bombs_end_at_the_limit(t: &Place) -> Result<()> {
    // 1 GiB of zeros in a megabyte; a sparse file of 2^50 bytes in a kilobyte.
    t.sh("mkdir z && truncate -s 1G z/zeros && tar -C z -cf - . | gzip >zeros.gz; rm -r z
          mkdir s && truncate -s 1P s/sparse 2>/dev/null || truncate -s 1T s/sparse; tar --sparse -C s -cf sparse.tar .; rm -r s")?;
    for (blob, why) in [
        (
            "zeros.gz",
            "more than 1000000 bytes when unpacked: see --max-size",
        ),
        (
            "sparse.tar",
            "entry \"./sparse\": more than 1000000 bytes of files: see --max-size",
        ),
    ] {
        let id = t.call(["import", blob, "bomb", "--change", "CMD x"])?;
        ensure!(id.starts_with("sha256:"), "{id}");
        let said = t.refusal([
            "unpack",
            "-q",
            "bomb",
            "--max-size",
            "1000000",
            "--bundle",
            "b",
        ])?;
        let said = said.split(": ").skip(2).collect::<Vec<_>>().join(": ");
        ensure!(
            said == why || said.starts_with("entry \"./zeros\": more than 1000000"),
            "{said}"
        );
        ensure!(!t.path("b").exists(), "something is left");
    }
    Ok(())
}

fn content_that_is_not_what_the_config_says_is_refused(t: &Place) -> Result<()> {
    let bytes = tar(&[file("a", b"a")]);
    let real = Digest::of(&bytes);
    let other = Digest::of(b"other");
    let layer = Layer {
        bytes,
        kind: TAR,
        diff_id: other.to_string(),
    };
    let said = refusal(t, "diff", &[layer])?;
    assert_eq!(
        said,
        format!("the content has diff id {real}, the image's config says {other}")
    );
    // What follows the end of the archive counts too.
    let mut padded = tar(&[file("a", b"a")]);
    let first = Digest::of(&padded);
    padded.extend_from_slice(b"smuggled");
    let said = refusal(
        t,
        "tail",
        &[Layer {
            diff_id: first.to_string(),
            ..plain(padded.clone())
        }],
    )?;
    assert_eq!(
        said,
        format!(
            "the content has diff id {}, the image's config says {first}",
            Digest::of(&padded)
        )
    );
    // A blob that is not what its descriptor says does not get in.
    let root = write(
        t,
        "blob",
        &[plain(tar(&[file("a", b"a")]))],
        json!({ "Cmd": ["x"] }),
    )?;
    let blob = root
        .join("blobs/sha256")
        .join(Digest::of(&tar(&[file("a", b"a")])).hex());
    let mut content = fs::read(&blob)?;
    content[700] ^= 1;
    fs::write(&blob, &content)?;
    let said = t.refusal(["load", "-q", "-i", "blob.layout"])?;
    ensure!(
        said.contains(&format!("the content has digest {}", Digest::of(&content))),
        "{said}"
    );
    assert_eq!(t.call(["list", "-q"])?, "");
    Ok(())
}

fn device_nodes_and_attributes_that_steer_overlayfs_are_not_the_layers_to_make(
    t: &Place,
) -> Result<()> {
    load(
        t,
        "steer",
        &[&[with(dir("d/"), |e| {
            e.xattrs = vec![
                (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
                (b"user.overlay.redirect".to_vec(), b"/etc".to_vec()),
                (b"trusted.mine".to_vec(), b"kept".to_vec()),
            ];
        })]],
    )?;
    t.call(["unpack", "-q", "steer", "--bundle", "b"])?;
    let lines = crate::place::picture(&t.path("b/rootfs"))?.join("\n");
    ensure!(
        !lines.contains("overlay") && lines.contains("trusted.mine"),
        "{lines}"
    );
    Ok(())
}

fn a_stream_that_is_cut_off_is_refused(t: &Place) -> Result<()> {
    let whole = tar(&[file("f", &[7; 10_000])]);
    for (cut, why) in [
        (300, "the stream ends in the middle of a header"),
        (5000, "entry \"f\": the stream ends in the middle of a file"),
    ] {
        assert_eq!(refusal(t, "cut", &[plain(whole[..cut].to_vec())])?, why);
    }
    fs::File::create(t.path("layer.tar"))?.write_all(&whole)?;
    t.sh("gzip -k layer.tar; head -c 60 layer.tar.gz >half.gz; (cat layer.tar.gz; echo garbage) >tail.gz")?;
    for name in ["half.gz", "tail.gz"] {
        let layer = Layer {
            bytes: fs::read(t.path(name))?,
            ..plain(whole.clone())
        };
        let said = refusal(t, "gz", &[layer])?;
        ensure!(said.starts_with("decompress: "), "{name}: {said}");
    }
    Ok(())
}

fn ids_out_of_range_are_refused(t: &Place) -> Result<()> {
    for id in [u64::from(u32::MAX), 1 << 32, 1 << 40] {
        let expected = format!("entry \"f\": uid {id} is out of range");
        refused(t, &[with(file("f", b""), |e| e.uid = id)], &expected)?;
    }
    Ok(())
}

fn config_paths_and_users_do_not_lead_out(t: &Place) -> Result<()> {
    let outside = t.path("outside-dir");
    fs::create_dir(&outside)?;
    let absolute = outside.display().to_string();
    let layer = || {
        plain(tar(&[
            symlink("work", &absolute),
            symlink("etc", "/proc/self/fd"),
        ]))
    };
    for (name, execution, expected) in [
        (
            "cwd",
            json!({ "Cmd": ["x"], "WorkingDir": "/../x" }),
            "WorkingDir: \"/../x\": the name leads out of the layer",
        ),
        (
            "volume",
            json!({ "Cmd": ["x"], "Volumes": { "/a/../../b": {} } }),
            "the name leads out of the layer",
        ),
        (
            "user",
            json!({ "Cmd": ["x"], "User": "4294967296" }),
            "id 4294967296 is out of range (at most 2147483647)",
        ),
    ] {
        write(t, name, &[layer()], execution)?;
        t.call(["load", "-q", "-i", &format!("{name}.layout")])?;
        let said = t.refusal(["unpack", "-q", name, "--bundle", "b"])?;
        ensure!(said.ends_with(expected), "{said}");
        ensure!(!t.path("b").exists(), "something is left");
    }
    // WorkingDir over a link of the image (CVE-2026-55686): made inside.
    write(
        t,
        "linked",
        &[layer()],
        json!({ "Cmd": ["x"], "WorkingDir": "/new/dir" }),
    )?;
    t.call(["load", "-q", "-i", "linked.layout"])?;
    t.call(["unpack", "-q", "linked", "--bundle", "b"])?;
    ensure!(t.path("b/rootfs/new/dir").is_dir());
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    Ok(())
}
