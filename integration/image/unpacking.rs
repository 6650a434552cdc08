//! What a layer's entries become: image-spec layer.md, entry by entry; the same as umoci makes, and the
//! same whether flat or as an overlay.

use crate::layout::{
    Content, GZIP, Layer, dir, file, link, load, node, plain, symlink, tar, with, write,
};
use crate::place::{Place, assert_same, picture};
use crate::tests;
use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use simplecontainer::image::tape::{Kind, Time};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

tests! {
    every_kind_of_entry_arrives_with_its_attributes,
    whiteouts_hide_what_is_below_and_nothing_else,
    a_layer_may_replace_anything_by_anything,
    a_directory_without_an_entry_stays_as_the_layer_below_has_it,
    a_later_entry_wins_and_links_lead_within_the_root,
    sparse_files_have_holes,
    an_overlay_of_the_layers_is_the_flat_tree,
    trees_are_those_of_umoci ["umoci"],
    an_image_of_buildah_is_unpacked_as_umoci_unpacks_it ["umoci", "buildah"],
    layers_of_gzip_members_and_zstd_frames_are_read ["zstd"],
    memory_does_not_grow_with_the_layer ["python3"],
}

fn unpack(t: &Place, name: &str) -> Result<PathBuf> {
    t.call(["unpack", "-q", name, "--bundle", &format!("{name}.bundle")])?;
    Ok(t.path(&format!("{name}.bundle/rootfs")))
}

/// The same image as an overlay, mounted; what it shows.
fn overlay_picture(t: &Place, name: &str) -> Result<Vec<String>> {
    let said = t.call([
        "unpack",
        "-q",
        "--overlay",
        name,
        "--bundle",
        &format!("{name}.overlay"),
    ])?;
    let said: Value = serde_json::from_str(&said)?;
    let lower = said["lowerdirs"].as_array().context("no lowerdirs")?;
    let mut lower: Vec<&str> = lower.iter().filter_map(Value::as_str).collect();
    let empty = t.path("empty");
    fs::create_dir_all(&empty)?;
    if lower.len() == 1 {
        // overlayfs wants two; an empty one lowest changes nothing.
        lower.push(empty.to_str().context("UTF-8")?);
    }
    let at = t.path(&format!("{name}.mounted"));
    fs::create_dir_all(&at)?;
    let options = format!("lowerdir={}", lower.join(":"));
    mount(
        Some("overlay"),
        &at,
        Some("overlay"),
        MsFlags::MS_RDONLY,
        Some(options.as_str()),
    )?;
    let seen = picture(&at);
    // Lazily: a program that another test starts holds our open directories until its exec.
    umount2(&at, MntFlags::MNT_DETACH)?;
    // overlayfs gives names of one file numbers of their own, and shows its own attributes.
    seen
}

fn without_sameness(lines: Vec<String>) -> Vec<String> {
    let cut = |line: String| match (line.find(" same "), line.find(" [")) {
        (Some(from), Some(to)) => format!("{}{}", &line[..from], &line[to..]),
        _ => line,
    };
    lines
        .into_iter()
        .map(cut)
        .map(|line| line.replace("./", ""))
        .collect()
}

fn names(root: &Path) -> Result<String> {
    let lines = picture(root)?;
    let names = lines.iter().skip(1).map(|line| {
        line.split(' ')
            .next()
            .unwrap_or_default()
            .trim_start_matches("./")
    });
    Ok(names.collect::<Vec<_>>().join(" "))
}

fn base() -> Vec<Content> {
    vec![
        dir("./"),
        dir("etc/"),
        file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
        file("etc/shadow", b"secret"),
        with(dir("tmp/"), |e| e.mode = 0o1777),
        dir("usr/"),
        dir("usr/bin/"),
        with(file("usr/bin/su", b"#!"), |e| e.mode = 0o4755),
        link("usr/bin/sudo", "usr/bin/su"),
        symlink("bin", "usr/bin"),
        with(dir("var/mail/"), |e| (e.mode, e.gid) = (0o2775, 8)),
        file("var/mail/root", b"mail"),
        dir("usr/share/"),
        file("usr/share/a", b"a"),
        file("usr/share/b", b"b"),
    ]
}

fn upper() -> Vec<Content> {
    vec![
        dir("etc/"),
        file("etc/.wh.shadow", b""),
        file("usr/share/.wh..wh..opq", b""),
        file("usr/share/c", b"c"),
        file("bin/new", b"through a link"),
        with(file("usr/bin/su", b"replaced"), |e| e.mode = 0o755),
        file("tmp/x", b"x"),
    ]
}

fn every_kind_of_entry_arrives_with_its_attributes(t: &Place) -> Result<()> {
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    load(
        t,
        "kinds",
        &[&[
            dir("./"),
            with(file("ping", b"ELF"), |e| {
                e.xattrs = vec![(b"security.capability".to_vec(), capability.clone())];
                (e.uid, e.gid, e.mode) = (1000, 1001, 0o755);
                e.mtime = Time {
                    seconds: -5,
                    nanos: 500_000_000,
                };
            }),
            with(node("console", Kind::Char, 5, 1), |e| e.mode = 0o622),
            node("disk", Kind::Block, 8, 0),
            with(node("fifo", Kind::Fifo, 0, 0), |e| e.mode = 0o666),
            with(symlink("dangling", "/nowhere/at/all"), |e| e.uid = 7),
            with(dir("closed/"), |e| (e.mode, e.mtime.seconds) = (0o500, 1)),
            file("closed/in", b"x"),
        ]],
    )?;
    let root = unpack(t, "kinds")?;
    let ping = root.join("ping").symlink_metadata()?;
    assert_eq!(
        (ping.uid(), ping.gid(), ping.mode() & 0o7777),
        (1000, 1001, 0o755)
    );
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (-5, 500_000_000));
    let lines = picture(&root)?.join("\n");
    assert!(
        lines.contains(&format!("security.capability={:?}", Some(capability))),
        "{lines}"
    );
    let console = root.join("console").symlink_metadata()?;
    assert!(console.file_type().is_char_device() && console.rdev() == libc_dev(5, 1));
    assert_eq!(console.mode() & 0o7777, 0o622);
    assert!(
        root.join("disk")
            .symlink_metadata()?
            .file_type()
            .is_block_device()
    );
    let fifo = root.join("fifo").symlink_metadata()?;
    assert!(fifo.file_type().is_fifo() && fifo.mode() & 0o7777 == 0o666);
    let link = root.join("dangling").symlink_metadata()?;
    assert_eq!((link.uid(), link.mtime()), (7, 1_700_000_000));
    let closed = root.join("closed").symlink_metadata()?;
    assert_eq!((closed.mode() & 0o7777, closed.mtime()), (0o500, 1));
    Ok(())
}

fn libc_dev(major: u64, minor: u64) -> u64 {
    nix::sys::stat::makedev(major, minor)
}

fn whiteouts_hide_what_is_below_and_nothing_else(t: &Place) -> Result<()> {
    load(
        t,
        "white",
        &[
            &[
                dir("a/"),
                file("a/low", b"1"),
                file("a/kept", b"1"),
                dir("b/"),
                file("b/low", b"1"),
                file("c", b"1"),
            ],
            &[
                // Both orders: what this layer adds stays.
                file("a/new", b"2"),
                file(".wh.a", b""),
                file("b/.wh..wh..opq", b""),
                file("b/new", b"2"),
                file("b/.wh.ghost", b""),
                file(".wh.never-there", b""),
                // As buildah writes them.
                with(file(".wh.c", b""), |e| {
                    (e.mode, e.link) = (0o755, b"c".to_vec())
                }),
                file(".wh..wh.plnk", b""),
            ],
        ],
    )?;
    let root = unpack(t, "white")?;
    assert_eq!(names(&root)?, "a a/new b b/new");
    let overlay = overlay_picture(t, "white")?;
    let seen: Vec<&str> = overlay
        .iter()
        .skip(1)
        .map(|l| l.split(' ').next().unwrap_or_default())
        .collect();
    assert_eq!(seen.join(" ").replace("./", ""), "a a/new b b/new");
    Ok(())
}

fn a_layer_may_replace_anything_by_anything(t: &Place) -> Result<()> {
    load(
        t,
        "replace",
        &[
            &[
                file("file-dir", b"1"),
                dir("dir-file/"),
                file("dir-file/in", b"1"),
                symlink("link-file", "file-dir"),
                symlink("link-dir", "dir-file"),
                file("file-link", b"1"),
                file("parent", b"not a directory"),
            ],
            &[
                dir("file-dir/"),
                file("file-dir/in", b"2"),
                file("dir-file", b"2"),
                file("link-file", b"2"),
                dir("link-dir/"),
                file("link-dir/in", b"2"),
                symlink("file-link", "nowhere"),
                file("parent/child", b"2"),
            ],
        ],
    )?;
    let root = unpack(t, "replace")?;
    assert_eq!(
        names(&root)?,
        "dir-file file-dir file-dir/in file-link link-dir link-dir/in link-file parent parent/child"
    );
    assert!(root.join("link-file").symlink_metadata()?.is_file());
    assert_eq!(fs::read(root.join("file-dir/in"))?, b"2");
    let flat = without_sameness(picture(&root)?);
    assert_same(
        "overlay",
        &flat,
        &without_sameness(overlay_picture(t, "replace")?),
    )
}

fn a_directory_without_an_entry_stays_as_the_layer_below_has_it(t: &Place) -> Result<()> {
    load(
        t,
        "implied",
        &[
            &base(),
            &[
                file("tmp/x", b"x"),
                file("var/mail/you", b"y"),
                file("bin/y", b"z"),
            ],
        ],
    )?;
    let root = unpack(t, "implied")?;
    let tmp = root.join("tmp").metadata()?;
    assert_eq!((tmp.mode() & 0o7777, tmp.mtime()), (0o1777, 1_700_000_000));
    let mail = root.join("var/mail").metadata()?;
    assert_eq!((mail.mode() & 0o7777, mail.gid()), (0o2775, 8));
    assert_eq!(
        root.join("var/mail/you").metadata()?.gid(),
        0,
        "what is in it does not inherit"
    );
    assert!(root.join("bin").symlink_metadata()?.is_symlink());
    assert_eq!(fs::read(root.join("usr/bin/y"))?, b"z");
    let flat = without_sameness(picture(&root)?);
    assert_same(
        "overlay",
        &flat,
        &without_sameness(overlay_picture(t, "implied")?),
    )
}

fn a_later_entry_wins_and_links_lead_within_the_root(t: &Place) -> Result<()> {
    load(
        t,
        "later",
        &[&[
            file("twice", b"first"),
            file("twice", b"second"),
            symlink("run", "/var/run"),
            file("run/pid", b"1"),
            symlink("up", "../../../../etc"),
            file("up/motd", b"inside"),
            file("/absolute", b"inside"),
            file("a/../b", b"inside"),
        ]],
    )?;
    let root = unpack(t, "later")?;
    assert_eq!(fs::read(root.join("twice"))?, b"second");
    assert_eq!(fs::read(root.join("var/run/pid"))?, b"1");
    assert_eq!(fs::read(root.join("etc/motd"))?, b"inside");
    assert_eq!(
        names(&root)?,
        "absolute b etc etc/motd run twice up var var/run var/run/pid"
    );
    Ok(())
}

fn sparse_files_have_holes(t: &Place) -> Result<()> {
    for format in ["gnu", "posix"] {
        let script = format!(
            "mkdir -p {format}.d && cd {format}.d && truncate -s 8M s && printf end | dd of=s bs=1 seek=7000000 conv=notrunc 2>/dev/null \
             && tar --sparse --format={format} -cf ../{format}.tar s"
        );
        t.sh(&script)?;
        let layers = [plain(fs::read(t.path(&format!("{format}.tar")))?)];
        let root = write(t, format, &layers, json!({ "Cmd": ["x"] }))?;
        t.call(["load", "-q", "-i", &root.display().to_string()])?;
        let root = unpack(t, format)?;
        let made = root.join("s");
        assert_eq!(
            fs::read(&made)?,
            fs::read(t.path(&format!("{format}.d/s")))?
        );
        assert!(
            made.metadata()?.blocks() * 512 < 1 << 20,
            "{format}: no hole"
        );
    }
    Ok(())
}

fn an_overlay_of_the_layers_is_the_flat_tree(t: &Place) -> Result<()> {
    load(
        t,
        "both",
        &[
            &base(),
            &upper(),
            &[link("usr/bin/third", "usr/bin/new"), file(".wh.tmp", b"")],
        ],
    )?;
    let flat = without_sameness(picture(&unpack(t, "both")?)?);
    assert_same(
        "overlay",
        &flat,
        &without_sameness(overlay_picture(t, "both")?),
    )?;
    t.assert_whole()
}

fn umoci_picture(t: &Place, name: &str) -> Result<Vec<String>> {
    let (image, into) = (format!("{name}.layout:latest"), format!("{name}.umoci"));
    t.host("umoci", ["raw", "unpack", "--image", &image, &into])?;
    picture(&t.path(&into))
}

fn trees_are_those_of_umoci(t: &Place) -> Result<()> {
    let top = [
        link("etc/passwd-", "etc/passwd"),
        file("etc/.wh.motd", b""),
        dir("usr/share/deep/er/"),
        with(node("dev/null", Kind::Char, 1, 3), |e| e.mode = 0o666),
        dir("dev/"),
    ];
    load(t, "same", &[&base(), &upper(), &top])?;
    let ours = picture(&unpack(t, "same")?)?;
    // Directories without an entry have no date in the image, or keep the one of the layer below: umoci gives
    // them the present one when it makes them or removes something from them.
    let undated = |lines: Vec<String>| {
        let undated = [". ", "./usr/share ", "./usr/share/deep ", "./var "];
        lines
            .into_iter()
            .filter(|line| !undated.iter().any(|name| line.starts_with(name)))
            .collect::<Vec<_>>()
    };
    assert_same("umoci", &undated(ours), &undated(umoci_picture(t, "same")?))
}

fn an_image_of_buildah_is_unpacked_as_umoci_unpacks_it(t: &Place) -> Result<()> {
    let script = "
        export STORAGE_DRIVER=vfs; B=\"buildah --root $PWD/bs --runroot $PWD/br\"
        mkdir pkg && cp -a /usr/share/doc/base-files pkg/doc && mkdir -p pkg/etc && cp -a /etc/debian_version pkg/etc/
        c=$($B from scratch) && $B add -q $c pkg /pkg && $B commit -q $c one >/dev/null
        m=$($B mount $c) && rm -r $m/pkg/doc && mkdir $m/pkg/doc && echo new >$m/pkg/doc/new && $B commit -q $c two >/dev/null
        rm $m/pkg/etc/debian_version && ln $m/pkg/doc/new $m/pkg/hard && $B commit -q $c oci:built.layout:latest >/dev/null
        $B umount $c >/dev/null; $B rm $c >/dev/null";
    t.sh(script)?;
    t.call(["load", "-q", "-i", "built.layout"])?;
    t.call(["tag", "localhost/built", "built"])?;
    t.sh("test -s built.layout/index.json")?;
    let config = t.refusal(["unpack", "-q", "built", "--bundle", "no"])?;
    assert_eq!(
        config.rsplit(": ").next(),
        Some("the image has neither Entrypoint nor Cmd"),
        "{config}"
    );
    ensure!(
        !t.path("no").exists(),
        "a bundle that failed is still there"
    );
    t.sh("umoci config --image built.layout:latest --config.cmd /bin/sh")?;
    t.call(["load", "-q", "-i", "built.layout"])?;
    t.call(["tag", "localhost/built", "built"])?;
    let ours = picture(&unpack(t, "built")?)?;
    assert_same("umoci", &ours, &umoci_picture(t, "built")?)
}

fn layers_of_gzip_members_and_zstd_frames_are_read(t: &Place) -> Result<()> {
    let bytes = tar(&[file("a", b"content"), file("b", &[7; 100_000])]);
    fs::write(t.path("layer.tar"), &bytes)?;
    t.sh("head -c 5000 layer.tar | gzip >m.gz; tail -c +5001 layer.tar | gzip >>m.gz; zstd -q layer.tar -o z.zst")?;
    for (name, compressed) in [("members", "m.gz"), ("frames", "z.zst")] {
        let layer = Layer {
            bytes: fs::read(t.path(compressed))?,
            // The media type lies: what counts is what is there.
            kind: GZIP,
            ..plain(bytes.clone())
        };
        let root = write(t, name, &[layer], json!({ "Cmd": ["x"] }))?;
        t.call(["load", "-q", "-i", &root.display().to_string()])?;
        assert_eq!(names(&unpack(t, name)?)?, "a b");
    }
    Ok(())
}

fn memory_does_not_grow_with_the_layer(t: &Place) -> Result<()> {
    t.sh("mkdir big.d && head -c 200000000 /dev/urandom >big.d/file && tar -C big.d -cf - . | gzip -1 >big.tar.gz && rm -r big.d")?;
    t.call(["import", "big.tar.gz", "big", "--change", "CMD x"])?;
    fs::File::create(t.path("measure.py"))?.write_all(
        b"import resource,subprocess,sys\nsubprocess.run(sys.argv[1:],check=True)\n\
          print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n",
    )?;
    let program = crate::place::sc_image().display().to_string();
    let store = t.store.display().to_string();
    let peak = t.host(
        "python3",
        [
            "measure.py",
            &program,
            "--root",
            &store,
            "unpack",
            "-q",
            "big",
            "--bundle",
            "b",
        ],
    )?;
    let kib: u64 = peak.trim().parse()?;
    ensure!(kib <= 25 << 10, "peak memory {kib} KiB");
    Ok(())
}
