//! A real dockerd loads what we save, and we load what it saves.

use crate::archives::{id, image, tree};
use crate::layout::{GZIP, Layer, file, tar, write};
use crate::place::{CannotRun, Place, assert_same, text};
use crate::tests;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use simplecontainer::image::digest::Digest;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

tests! {
    archives_of_docker_are_loaded_and_ours_by_docker ["dockerd", "docker", "containerd", "unshare"],
    what_docker_made_itself_is_loaded_as_it_is_there ["dockerd", "docker", "containerd", "unshare"],
}

/// dockerd with nothing of the machine's: no network, no containerd but its own, directories below the test's.
struct Daemon<'a> {
    place: &'a Place,
    child: Child,
}

impl<'a> Daemon<'a> {
    fn start(place: &'a Place) -> Result<Daemon<'a>> {
        // The pid namespace ends with unshare, and with it the containerd that dockerd starts. An empty /run hides the
        // machine's containerd.
        let script = format!(
            "mount -t tmpfs run /run && exec dockerd --data-root {0}/data --exec-root {0}/exec -H unix://{0}/socket \
             --pidfile {0}/pid --iptables=false --ip6tables=false --ip-forward=false --bridge=none --storage-driver=vfs",
            place.path("docker").display()
        );
        fs::create_dir_all(place.path("docker/config"))?;
        let mut child = Command::new("unshare")
            .args(["--mount", "--mount-proc", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let daemon = Daemon { place, child };
        let mut last = String::new();
        while !last.contains("API listen on") {
            match lines.next() {
                Some(line) => last = line?,
                None => return Err(CannotRun(format!("dockerd does not start: {last}")).into()),
            }
        }
        // It must not stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(daemon)
    }

    /// `docker ARGS...`, expected to succeed; its stdout.
    fn docker(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("docker")
            .args(args)
            .current_dir(&self.place.dir)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.place.path("docker/socket").display()),
            )
            .env("DOCKER_CONFIG", self.place.path("docker/config"))
            .stdin(Stdio::null())
            .output()?;
        text(output).with_context(|| format!("docker {}", args.join(" ")))
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn archives_of_docker_are_loaded_and_ours_by_docker(t: &Place) -> Result<()> {
    let daemon = Daemon::start(t)?;
    image(t)?;
    let name = "example.com/team/one:v1";
    let (wanted, ours) = (tree(t, name, "before")?, id(t, name)?);
    t.call(["save", "-q", "-o", "ours.tar", name, "one"])?;
    let said = daemon.docker(&["load", "-i", "ours.tar"])?;
    ensure!(
        said.contains(&format!("Loaded image: {name}\n"))
            && said.contains("Loaded image: localhost/one:latest\n"),
        "{said}"
    );
    let theirs = daemon.docker(&["inspect", "--format", "{{.Id}} {{json .Config.Cmd}}", name])?;
    assert_eq!(theirs, format!("{ours} [\"/bin/sh\"]\n"));
    daemon.docker(&["tag", name, "example.com/team/back:v1"])?;
    daemon.docker(&["save", "-o", "theirs.tar", "example.com/team/back:v1"])?;
    t.call(["rm", name, "one"])?;
    let said = t.call(["load", "-i", "theirs.tar"])?;
    assert_eq!(said, "Loaded image: example.com/team/back:v1\n");
    let back = "example.com/team/back:v1";
    assert_eq!(id(t, back)?, ours);
    assert_same("docker save", &wanted, &tree(t, back, "after")?)?;
    // Layers stay compressed when we save.
    t.sh("echo hello >f && tar --owner=0 --group=0 -cf layer.tar f && gzip -9 layer.tar")?;
    let layer = Layer {
        diff_id: Digest::of(t.sh("gunzip -c layer.tar.gz")?.as_bytes()).to_string(),
        bytes: fs::read(t.path("layer.tar.gz"))?,
        kind: GZIP,
    };
    let top = tar(&[file("g", b"g")]);
    let layout = write(
        t,
        "packed",
        &[layer, crate::layout::plain(top)],
        json!({ "Env": ["A=1"] }),
    )?;
    t.call(["load", "-q", "-i", &layout.display().to_string()])?;
    t.call(["save", "-q", "-o", "packed.tar", "packed"])?;
    daemon.docker(&["load", "-i", "packed.tar"])?;
    let said = daemon.docker(&["inspect", "--format", "{{.Id}}", "localhost/packed"])?;
    assert_eq!(said.trim_end(), id(t, "packed")?);
    t.assert_whole()
}

/// Layers as docker's own drivers write them, whiteouts among them.
fn what_docker_made_itself_is_loaded_as_it_is_there(t: &Place) -> Result<()> {
    let daemon = Daemon::start(t)?;
    t.sh("mkdir -p r/bin r/etc && echo x >r/bin/sh && echo old >r/etc/old && ln r/etc/old r/etc/same && chmod 4711 r/bin/sh
          chown 12:34 r/etc && tar -C r -cf r.tar . && echo new >new")?;
    let change = r#"CMD ["/bin/sh"]"#;
    daemon.docker(&["import", "-c", change, "r.tar", "made:1"])?;
    let container = daemon.docker(&["create", "made:1"])?;
    let container = container.trim_end();
    daemon.docker(&["cp", "new", &format!("{container}:/etc/new")])?;
    daemon.docker(&["commit", "-c", "USER 12:34", container, "made:2"])?;
    daemon.docker(&["save", "-o", "made.tar", "made:1", "made:2"])?;
    let said = t.call(["load", "-q", "-i", "made.tar"])?;
    let mut names: Vec<&str> = said.lines().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "docker.io/library/made:1".to_owned(),
            "docker.io/library/made:2".to_owned()
        ]
    );
    let theirs = daemon.docker(&["inspect", "--format", "{{.Id}}", "made:2"])?;
    assert_eq!(id(t, "made:2")?, theirs.trim_end());
    let tree = tree(t, "made:2", "bundle")?.join("\n");
    for expected in [
        "./bin/sh 104711 0:0",
        "./etc 40755 12:34",
        "./etc/new 100644 0:0",
        "same ./etc/old",
    ] {
        ensure!(tree.contains(expected), "{expected}: {tree}");
    }
    let config: Value = serde_json::from_slice(&fs::read(t.path("bundle/config.json"))?)?;
    assert_eq!(config["process"]["args"], json!(["/bin/sh"]));
    assert_eq!(config["process"]["user"]["uid"], 12);
    t.assert_whole()
}
