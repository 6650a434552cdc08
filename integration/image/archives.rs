//! Images go in and out in every format, and others can read what we write, and we what they write.

use crate::layout::{dir, file, load, symlink};
use crate::place::{Place, assert_same, picture};
use crate::tests;
use anyhow::{Result, ensure};
use serde_json::Value;
use std::fs;
use std::process::Stdio;

tests! {
    what_is_saved_is_loaded_in_every_format,
    archives_of_skopeo_are_loaded_and_ours_by_skopeo ["skopeo"],
    archives_of_podman_are_loaded_and_ours_by_podman ["podman"],
    an_archive_may_come_compressed_and_through_a_pipe,
    an_archive_of_the_old_docker_with_links_between_layers_is_loaded,
    what_is_not_an_archive_is_refused_and_leaves_nothing,
    a_root_file_system_is_imported_with_changes,
    what_was_changed_above_an_image_is_committed ["setfattr"],
}

pub fn image(t: &Place) -> Result<()> {
    load(
        t,
        "one",
        &[
            &[
                dir("bin/"),
                file("bin/sh", b"#!"),
                symlink("lib", "usr/lib"),
                file("usr/lib/a", b"a"),
            ],
            &[file("etc/x", b"x"), file("usr/lib/.wh.a", b"")],
        ],
    )?;
    t.call(["tag", "localhost/one", "example.com/team/one:v1"])?;
    Ok(())
}

pub fn tree(t: &Place, name: &str, bundle: &str) -> Result<Vec<String>> {
    t.call(["unpack", "-q", name, "--bundle", bundle])?;
    picture(&t.path(bundle).join("rootfs"))
}

pub fn id(t: &Place, name: &str) -> Result<String> {
    let shown: Value = serde_json::from_str(&t.call(["inspect", name])?)?;
    Ok(shown[0]["Id"].as_str().unwrap_or_default().to_owned())
}

fn what_is_saved_is_loaded_in_every_format(t: &Place) -> Result<()> {
    image(t)?;
    let (wanted, before) = (tree(t, "example.com/team/one:v1", "before")?, id(t, "one")?);
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        t.call([
            "save",
            "-q",
            "--format",
            format,
            "-o",
            format,
            "example.com/team/one:v1",
            "one",
        ])?;
        let other = Place {
            dir: t.dir.clone(),
            store: t.path(&format!("{format}.store")),
        };
        let said = other.call(["load", "-i", format])?;
        assert_eq!(
            said,
            "Loaded image: example.com/team/one:v1\nLoaded image: localhost/one:latest\n"
                .to_owned(),
            "{format}"
        );
        assert_eq!(id(&other, "one")?, before);
        assert_same(
            format,
            &wanted,
            &tree(&other, "one", &format!("{format}.bundle"))?,
        )?;
        other.assert_whole()?;
    }
    let said = t.refusal(["save", "-q", "--format", "oci-dir", "-o", "oci-dir", "one"])?;
    ensure!(
        said.ends_with("it is there and not an empty directory"),
        "{said}"
    );
    Ok(())
}

fn archives_of_skopeo_are_loaded_and_ours_by_skopeo(t: &Place) -> Result<()> {
    image(t)?;
    let wanted = tree(t, "one", "before")?;
    t.call(["save", "-q", "-o", "ours.tar", "example.com/team/one:v1"])?;
    t.call([
        "save",
        "-q",
        "--format",
        "oci-archive",
        "-o",
        "ours.oci",
        "one",
    ])?;
    let copy = |from: &str, to: &str| {
        t.host("skopeo", ["--insecure-policy", "copy", "-q", from, to])
            .map(drop)
    };
    copy(
        "docker-archive:ours.tar:example.com/team/one:v1",
        "docker-archive:theirs.tar:example.com/team/two:v2",
    )?;
    copy(
        "oci-archive:ours.oci:localhost/one:latest",
        "oci:theirs.layout:latest",
    )?;
    copy(
        "docker-archive:ours.tar",
        "oci-archive:theirs.oci:three:latest",
    )?;
    // The store itself is a layout that others read.
    copy("oci:store/image:localhost/one:latest", "dir:theirs.dir")?;
    for (from, name) in [
        ("theirs.tar", "example.com/team/two:v2"),
        ("theirs.layout", "localhost/theirs"),
        ("theirs.oci", "three"),
    ] {
        t.call(["load", "-q", "-i", from])?;
        assert_same(from, &wanted, &tree(t, name, &format!("{from}.bundle"))?)?;
    }
    t.assert_whole()
}

fn archives_of_podman_are_loaded_and_ours_by_podman(t: &Place) -> Result<()> {
    image(t)?;
    let wanted = tree(t, "one", "before")?;
    t.call(["save", "-q", "-o", "ours.tar", "example.com/team/one:v1"])?;
    t.call([
        "save",
        "-q",
        "--format",
        "oci-archive",
        "-o",
        "ours.oci",
        "one",
    ])?;
    let podman = format!(
        "podman --root {0}/pr --runroot {0}/prr --storage-driver vfs",
        t.dir.display()
    );
    let script = format!(
        "{podman} load -q -i ours.tar; {podman} load -q -i ours.oci
         {podman} tag example.com/team/one:v1 example.com/team/back:v1
         {podman} save -q --format docker-archive -o theirs.tar example.com/team/back:v1
         {podman} save -q --format oci-archive -o theirs.oci example.com/team/back:v1"
    );
    let said = t.sh(&script)?;
    ensure!(said.contains("example.com/team/one:v1"), "{said}");
    for from in ["theirs.tar", "theirs.oci"] {
        t.call(["load", "-q", "-i", from])?;
        let name = "example.com/team/back:v1";
        assert_same(from, &wanted, &tree(t, name, &format!("{from}.bundle"))?)?;
        t.call(["rm", name])?;
    }
    t.assert_whole()
}

fn an_archive_may_come_compressed_and_through_a_pipe(t: &Place) -> Result<()> {
    image(t)?;
    t.call(["save", "-q", "-o", "a.tar", "one"])?;
    t.sh("gzip -k a.tar")?;
    for from in ["a.tar", "a.tar.gz"] {
        let other = Place {
            dir: t.dir.clone(),
            store: t.path(&format!("{from}.store")),
        };
        let mut command = other.command(["load", "-q"]);
        command.stdin(Stdio::from(fs::File::open(t.path(from))?));
        assert_eq!(
            crate::place::text(command.output()?)?,
            "localhost/one:latest\n"
        );
        other.assert_whole()?;
    }
    let piped = t
        .command(["save", "-q", "one"])
        .stdout(fs::File::create(t.path("piped.tar"))?)
        .status()?;
    ensure!(piped.success());
    assert_eq!(fs::read(t.path("piped.tar"))?, fs::read(t.path("a.tar"))?);
    Ok(())
}

/// `HEX/layer.tar`, `HEX.json`, and a layer that occurs twice as a link to the first.
fn an_archive_of_the_old_docker_with_links_between_layers_is_loaded(t: &Place) -> Result<()> {
    t.sh(r#"
        mkdir -p old/one old/two l && echo a >l/a && tar -C l -cf old/one/layer.tar . && ln -s ../one/layer.tar old/two/layer.tar
        d=sha256:$(sha256sum <old/one/layer.tar | cut -d' ' -f1)
        echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"x\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"$d\",\"$d\"]}}" >old/c.json
        echo '[{"Config":"c.json","RepoTags":["old:1"],"Layers":["one/layer.tar","two/layer.tar"]}]' >old/manifest.json
        echo '{}' >old/repositories; tar -C old -cf old.tar manifest.json repositories two one c.json"#)?;
    assert_eq!(
        t.call(["load", "-i", "old.tar"])?,
        "Loaded image: docker.io/library/old:1\n"
    );
    t.call(["unpack", "-q", "old:1", "--bundle", "b"])?;
    assert_eq!(fs::read(t.path("b/rootfs/a"))?, b"a\n");
    // A layer that is not what the config says.
    t.sh("echo b >l/a && tar -C l -cf old/one/layer.tar . && tar -C old -cf wrong.tar manifest.json two one c.json")?;
    let said = t.refusal(["load", "-q", "-i", "wrong.tar"])?;
    ensure!(
        said.contains("Layers[0] (one/layer.tar): the content has diff id"),
        "{said}"
    );
    Ok(())
}

fn what_is_not_an_archive_is_refused_and_leaves_nothing(t: &Place) -> Result<()> {
    fs::write(t.path("text"), "hello")?;
    fs::create_dir(t.path("dir"))?;
    t.sh("tar -cf other.tar text")?;
    for (from, why) in [
        ("text", "the stream ends in the middle of a header"),
        ("dir", "not an OCI layout"),
        (
            "other.tar",
            "neither an OCI archive (oci-layout, index.json) nor a docker archive (manifest.json)",
        ),
        ("missing", "No such file or directory"),
    ] {
        let said = t.refusal(["load", "-q", "-i", from])?;
        ensure!(
            said.starts_with(&format!("load {from}: ")) && said.contains(why),
            "{said}"
        );
    }
    assert_eq!(t.call(["list"])?.lines().count(), 1);
    t.assert_whole()
}

fn a_root_file_system_is_imported_with_changes(t: &Place) -> Result<()> {
    t.sh("mkdir -p r/bin && echo x >r/bin/sh && tar -C r -cf r.tar . && gzip -k r.tar")?;
    for file in ["r.tar", "r.tar.gz"] {
        let said = t.call([
            "import",
            file,
            "imported:1",
            "--change",
            r#"ENTRYPOINT ["/bin/sh"]"#,
            "-c",
            "ENV A=1",
            "-m",
            "by hand",
        ])?;
        ensure!(said.starts_with("sha256:"), "{said}");
        let shown: Value = serde_json::from_str(&t.call(["inspect", "imported:1"])?)?;
        assert_eq!(shown[0]["Config"]["Entrypoint"][0], "/bin/sh");
        assert_eq!(shown[0]["Config"]["Env"][0], "A=1");
        ensure!(t.call(["history", "imported:1"])?.contains("by hand"));
        let bundle = format!("{file}.b");
        t.call(["unpack", "-q", "imported:1", "--bundle", &bundle])?;
    }
    fs::write(t.path("bad.tar"), "hello")?;
    let said = t.refusal(["import", "bad.tar"])?;
    assert_eq!(
        said,
        "import bad.tar: the stream ends in the middle of a header"
    );
    let said = t.refusal(["import", "r.tar", "-c", "RUN x"])?;
    ensure!(
        said.starts_with("--change \"RUN x\": known are CMD"),
        "{said}"
    );
    t.assert_whole()
}

fn what_was_changed_above_an_image_is_committed(t: &Place) -> Result<()> {
    image(t)?;
    t.sh("mkdir -p upper/etc upper/usr upper/lib2 && echo new >upper/etc/new && chmod 4755 upper/etc/new && ln upper/etc/new upper/etc/same
          mknod upper/etc/x c 0 0 && mkdir upper/bin && setfattr -n trusted.overlay.opaque -v y upper/bin && ln -s a upper/usr/link
          mkfifo upper/fifo")?;
    for compression in ["gzip", "zstd", "none"] {
        let name = format!("committed:{compression}");
        t.call([
            "commit",
            "one",
            "upper",
            &name,
            "--compression",
            compression,
            "-c",
            "CMD y",
        ])?;
        let tree = tree(t, &name, &format!("{compression}.b"))?.join("\n");
        ensure!(
            !tree.contains("./etc/x ") && !tree.contains("./bin/sh "),
            "{tree}"
        );
        ensure!(
            tree.contains("./etc/same 104755 0:0") && tree.contains("same ./etc/new"),
            "{tree}"
        );
        ensure!(tree.contains("./fifo "), "{tree}");
    }
    t.assert_whole()
}
