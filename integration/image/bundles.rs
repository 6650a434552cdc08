//! What an image says becomes a config.json that runtimes start.

use crate::layout::{Content, Layer, dir, file, plain, symlink, tar, with, write};
use crate::place::{Place, sc_runtime};
use crate::tests;
use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};

tests! {
    an_image_is_loaded_unpacked_and_run ["busybox", "umoci", "skopeo"],
    users_are_those_of_the_image,
    what_the_image_says_is_in_config_json,
    the_config_is_valid_for_runc ["runc"],
}

fn passwd() -> Vec<Content> {
    vec![
        dir("etc/"),
        file(
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n",
        ),
        file("etc/group", b"root:x:0:\nlog:x:5:web\n"),
    ]
}

fn config(t: &Place, name: &str, layers: &[Layer], execution: Value) -> Result<Value> {
    write(t, name, layers, execution)?;
    t.call(["load", "-q", "-i", &format!("{name}.layout")])?;
    t.call(["unpack", "-q", name, "--bundle", name])?;
    Ok(serde_json::from_slice(&fs::read(
        t.path(name).join("config.json"),
    )?)?)
}

fn an_image_is_loaded_unpacked_and_run(t: &Place) -> Result<()> {
    // Built and packed by others.
    t.sh("mkdir -p r/bin r/etc && cp $(command -v busybox) r/bin/busybox && ln -s busybox r/bin/sh && ln -s busybox r/bin/id
          echo 'web:x:33:34::/srv:/bin/sh' >r/etc/passwd; tar -C r -cf r.tar . && umoci init --layout l && umoci new --image l:latest
          umoci raw add-layer --image l:latest r.tar
          umoci config --image l:latest --config.user web --config.workingdir /srv/new --config.env FROM=image --config.cmd /bin/sh --config.cmd -c \
              --config.cmd 'id -u; pwd; echo $FROM $HOME; echo x >/tmp/x; grep Seccomp: /proc/self/status; cat /proc/1/comm'
          skopeo --insecure-policy copy -q oci:l:latest docker-archive:busybox.tar:busybox:latest")?;
    t.call(["load", "-i", "busybox.tar"])?;
    t.call(["unpack", "busybox", "--bundle", "bundle"])?;
    let out = run(t, "bundle")?;
    assert_eq!(
        out,
        "33\n/srv/new\nimage /srv\nSeccomp:\t2\ncat\n".to_owned(),
    );
    Ok(())
}

/// Runs a bundle with sc-runtime, in a mount namespace where cgroup v2 is in its usual place.
fn run(t: &Place, bundle: &str) -> Result<String> {
    let cgroups = t.path("cgroups");
    fs::create_dir_all(&cgroups)?;
    if mount(
        Some("cgroup2"),
        &cgroups,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )
    .is_err()
    {
        return Err(anyhow::anyhow!("no cgroup2 here"));
    }
    let output = Command::new(sc_runtime())
        .arg("--root")
        .arg(t.path("state"))
        .args(["run", "--bundle"])
        .arg(t.path(bundle))
        .arg(format!("sc-image-test-{}", std::process::id()))
        .stdin(Stdio::null())
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() || error.contains("can't create /tmp/x"),
        "{error}"
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn users_are_those_of_the_image(t: &Place) -> Result<()> {
    for (number, (user, expected)) in [
        (
            "",
            json!({ "uid": 0, "gid": 0, "umask": 18, "additionalGids": [0] }),
        ),
        (
            "web",
            json!({ "uid": 33, "gid": 34, "umask": 18, "additionalGids": [34, 5] }),
        ),
        (
            "web:log",
            json!({ "uid": 33, "gid": 5, "umask": 18, "additionalGids": [5] }),
        ),
        (
            "12:13",
            json!({ "uid": 12, "gid": 13, "umask": 18, "additionalGids": [13] }),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let execution = json!({ "Cmd": ["x"], "User": user });
        let config = config(
            t,
            &format!("user{number}"),
            &[plain(tar(&passwd()))],
            execution,
        )?;
        assert_eq!(config["process"]["user"], expected, "{user}");
    }
    // /etc/passwd is a link out of the image, a FIFO, too large: never the host's.
    for (number, (entry, why)) in [
        (
            symlink("etc/passwd", "/../../../../etc/passwd"),
            "no user \"root\" in the image's /etc/passwd",
        ),
        (
            with(file("etc/passwd", b""), |e| {
                e.kind = simplecontainer::image::tape::Kind::Fifo
            }),
            "etc/passwd: not a plain file",
        ),
        (
            file("etc/passwd", &[b'x'; (1 << 20) + 1]),
            "etc/passwd: 1048577 bytes (at most 1048576)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("odd{number}");
        write(
            t,
            &name,
            &[plain(tar(&[entry]))],
            json!({ "Cmd": ["x"], "User": "root" }),
        )?;
        t.call(["load", "-q", "-i", &format!("{name}.layout")])?;
        let said = t.refusal(["unpack", "-q", &name, "--bundle", "no"])?;
        // A link to itself resolves to nothing or to too many links: refused either way.
        ensure!(
            said.contains(why) || said.contains("too many symbolic links"),
            "{said}"
        );
    }
    Ok(())
}

fn what_the_image_says_is_in_config_json(t: &Place) -> Result<()> {
    let execution = json!({
        "Entrypoint": ["/entry"], "Cmd": ["arg"], "Env": ["A=1"], "WorkingDir": "/w/d", "StopSignal": "SIGQUIT",
        "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/data": {} }, "Labels": { "who": "me", "run.oci.x": "no" },
    });
    let config = config(t, "says", &[plain(tar(&passwd()))], execution)?;
    assert_eq!(config["process"]["args"], json!(["/entry", "arg"]));
    assert_eq!(config["process"]["cwd"], "/w/d");
    ensure!(t.path("says/rootfs/w/d").is_dir());
    assert_eq!(config["annotations"]["who"], "me");
    assert_eq!(
        config["annotations"]["org.opencontainers.image.stopSignal"],
        "SIGQUIT"
    );
    assert_eq!(config["annotations"].get("run.oci.x"), None);
    let mounts = config["mounts"].as_array().context("mounts")?;
    ensure!(mounts.iter().any(|mount| mount["destination"] == "/data"));
    assert_eq!(config["process"]["capabilities"].get("inheritable"), None);
    assert_eq!(config["process"]["noNewPrivileges"], false);
    Ok(())
}

fn the_config_is_valid_for_runc(t: &Place) -> Result<()> {
    config(
        t,
        "valid",
        &[plain(tar(&passwd()))],
        json!({ "Cmd": ["/nothing"] }),
    )?;
    // It gets as far as looking for the program, or for its cgroup: not as far as a word about config.json.
    let output = Command::new("runc")
        .args(["--root", "rs", "run", "--bundle", "valid", "sc-image-runc"])
        .current_dir(&t.dir)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in ["config.json", "json:", "unknown", "invalid"] {
        ensure!(!said.contains(word), "{said}");
    }
    Ok(())
}
