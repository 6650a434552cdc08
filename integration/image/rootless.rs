//! Without root: everything works as an ordinary user, with subordinate ids and without.

use crate::layout::{dir, file, node, plain, tar, with, write};
use crate::place::{Place, sc_image};
use crate::tests;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use simplecontainer::image::tape::Kind;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

tests! {
    an_ordinary_user_loads_unpacks_and_removes ["setpriv"],
    ids_of_the_image_are_those_of_the_users_range ["setpriv", "newuidmap"],
}

/// nobody: newuidmap wants a user that has a name.
const UID: u32 = 65_534;

/// A user's own directory, with a copy of the program, and an image.
fn home(t: &Place) -> Result<()> {
    fs::copy(sc_image(), t.path("sc-image"))?;
    let closed = with(dir("closed/"), |e| e.mode = 0);
    let entries = [
        dir("etc/"),
        with(file("etc/owned", b"x"), |e| (e.uid, e.gid) = (33, 34)),
        closed,
        file("closed/in", b"x"),
        node("null", Kind::Char, 1, 3),
        with(file("cap", b"x"), |e| {
            e.xattrs = vec![(b"trusted.x".to_vec(), b"y".to_vec())]
        }),
    ];
    let top = [
        file("etc/.wh.owned", b""),
        file("etc/new", b"n"),
        file("closed/more", b"m"),
    ];
    write(
        t,
        "image",
        &[plain(tar(&entries)), plain(tar(&top))],
        json!({ "Cmd": ["x"] }),
    )?;
    for path in [t.dir.clone(), t.path("sc-image")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        chown(&path, Some(UID), Some(UID))?;
    }
    Ok(())
}

fn as_user(t: &Place, args: &[&str]) -> Result<String> {
    let id = UID.to_string();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "--inh-caps=-all",
        "--",
    ]);
    command
        .arg(t.path("sc-image"))
        .arg("--root")
        .arg(t.path("user-store"))
        .args(args)
        .current_dir(&t.dir);
    crate::place::text(command.output()?)
}

fn an_ordinary_user_loads_unpacks_and_removes(t: &Place) -> Result<()> {
    home(t)?;
    if as_user(t, &["gc"]).is_err_and(|e| format!("{e:#}").contains("CLONE_NEWUSER")) {
        // Said, not passed over: the kernel does not let users make namespaces here.
        anyhow::bail!("no user namespaces for ordinary users here");
    }
    as_user(t, &["load", "-q", "-i", "image.layout"])?;
    as_user(t, &["unpack", "-q", "localhost/image", "--bundle", "b"])?;
    let root = t.path("b/rootfs");
    assert_eq!(root.join("etc/new").metadata()?.uid(), UID);
    ensure!(!root.join("etc/owned").exists() && !root.join("null").exists());
    assert_eq!(root.join("closed").metadata()?.mode() & 0o7777, 0);
    assert_eq!(fs::read(root.join("closed/more"))?, b"m");
    let config: Value = serde_json::from_slice(&fs::read(t.path("b/config.json"))?)?;
    assert_eq!(
        config["linux"]["uidMappings"][0],
        json!({ "containerID": 0, "hostID": UID, "size": 1 })
    );
    as_user(
        t,
        &[
            "unpack",
            "-q",
            "--overlay",
            "localhost/image",
            "--bundle",
            "o",
        ],
    )?;
    ensure!(as_user(t, &["fsck"])?.trim_end().ends_with("whole"));
    fs::remove_dir_all(t.path("o"))?;
    as_user(t, &["rm", "localhost/image"])?;
    assert_eq!(fs::read_dir(t.path("user-store/layers"))?.count(), 0);
    Ok(())
}

fn ids_of_the_image_are_those_of_the_users_range(t: &Place) -> Result<()> {
    home(t)?;
    // Files of our own in the place of /etc/subuid, in a mount namespace of our own.
    for (file, line) in [
        ("subuid", "nobody:700000:1000\n"),
        ("subgid", "65534:800000:1000\n"),
    ] {
        fs::write(t.path(file), line)?;
    }
    let script = format!(
        "mount --bind subuid /etc/subuid && mount --bind subgid /etc/subgid && exec setpriv --reuid {UID} --regid {UID} \
         --clear-groups ./sc-image --root user-store \"$@\""
    );
    let mapped = |args: &[&str]| -> Result<String> {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-ec", &script, "sh"])
            .args(args)
            .current_dir(&t.dir);
        crate::place::text(command.output()?)
    };
    mapped(&["load", "-q", "-i", "image.layout"])?;
    // Only the lower layer has the file of another user.
    write(
        t,
        "owned",
        &[plain(tar(&[with(file("owned", b"x"), |e| {
            (e.uid, e.gid) = (33, 34)
        })]))],
        json!({ "Cmd": ["x"] }),
    )?;
    mapped(&["load", "-q", "-i", "owned.layout"])?;
    mapped(&["unpack", "-q", "localhost/owned", "--bundle", "b"])?;
    let owned = t.path("b/rootfs/owned").metadata()?;
    assert_eq!((owned.uid(), owned.gid()), (700_032, 800_033));
    write(
        t,
        "far",
        &[plain(tar(&[with(file("far", b"x"), |e| e.uid = 5000)]))],
        json!({ "Cmd": ["x"] }),
    )?;
    mapped(&["load", "-q", "-i", "far.layout"])?;
    let said = format!(
        "{:#}",
        mapped(&["unpack", "-q", "localhost/far", "--bundle", "f"]).unwrap_err()
    );
    ensure!(
        said.contains("entry \"far\": uid 5000 is not mapped: give the user more ids in /etc/subuid, or use --ignore-chown-errors"),
        "{said}"
    );
    mapped(&[
        "unpack",
        "-q",
        "--ignore-chown-errors",
        "localhost/far",
        "--bundle",
        "f",
    ])?;
    assert_eq!(t.path("f/rootfs/far").metadata()?.uid(), UID);
    Ok(())
}
