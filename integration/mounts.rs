//! config.json's `mounts` and what happens to the root file system: options, propagation, and
//! mount points that are made inside the rootfs and nowhere else.

use crate::harness::place::accept;
use crate::harness::{Bundle, Context, Need, Place, Result, Value, json, kernel, machine};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const OLD_RUNC: Need = Need::Beyond("runc", "1.1.5 lacks it");
const OLD_CRUN: Need = Need::Beyond("crun", "1.8 lacks it");

tests! {
    the_default_mounts_are_as_asked,
    mount_options_become_mount_flags [Need::Beyond("crun", "1.8 sets flags and clears none")],
    newer_mount_options_become_mount_flags [OLD_RUNC, OLD_CRUN],
    data_options_reach_the_file_system,
    one_option_may_hold_several_words,
    a_readonly_tmpfs_may_have_mounts_in_it,
    an_overlay_is_mounted_whose_paths_hold_commas,
    later_options_win_over_earlier_ones [Need::Beyond("crun", "1.8 sets flags and clears none")],
    a_bind_is_as_its_source_but_for_its_options,
    a_bind_keeps_restrictions_of_its_source [Need::Beyond("crun", "1.8 drops them")],
    a_readonly_bind_cannot_be_written,
    a_plain_bind_shows_no_mounts_below,
    recursive_options_reach_the_mounts_below [OLD_RUNC, Need::Beyond("crun", "1.8 fails at rnoatime")],
    a_bind_of_a_file_makes_a_file,
    a_bind_of_a_socket_connects,
    a_bind_of_an_inherited_descriptor_works [Need::Beyond("runc", "in 1.1.5 the number means another descriptor by then"), Need::Beyond("crun", "1.8 fails")],
    a_bind_with_options_of_a_file_system_is_refused [Need::Beyond("crun", "1.8 ignores them"), OLD_RUNC],
    a_missing_bind_source_is_an_error_that_names_it,
    a_file_over_a_directory_is_an_error_that_says_so,
    a_missing_mount_point_is_made [Need::Beyond("crun", "1.8 makes it 1755")],
    mounts_are_made_in_their_order,
    a_mount_point_below_an_absolute_symlink_stays_inside [Need::Beyond("crun", "1.8 completes no symlink")],
    a_mount_point_below_a_dotdot_symlink_stays_inside,
    a_dangling_symlink_is_completed_inside [Need::Beyond("crun", "1.8 completes no symlink")],
    a_symlink_loop_is_an_error,
    a_destination_with_dotdot_stays_inside,
    tmpcopyup_copies_what_was_there,
    tmpfs_keeps_the_mode_of_its_mount_point,
    a_mode_asked_for_wins_over_that_of_the_mount_point [Need::Beyond("runc", "1.1.5 takes that of the mount point")],
    mount_propagation_is_set [Need::Beyond("crun", "1.8 makes no tmpfs shared")],
    a_slave_mount_receives_from_the_host,
    a_private_mount_receives_nothing,
    a_shared_mount_reaches_the_host,
    the_root_is_private_by_default,
    rootfs_propagation_is_set [Need::Beyond("crun", "1.8 leaves the root private"), Need::Beyond("runc", "1.1.5 makes the mount private for pivot_root(2), and leaves it so")],
    an_unknown_rootfs_propagation_is_an_error [Need::Beyond("crun", "it ignores the word")],
    a_readonly_root_cannot_be_written,
    masked_paths_hide_files_and_directories,
    masked_and_readonly_paths_that_are_missing_are_skipped,
    readonly_paths_cannot_be_written,
    the_cgroup_mount_shows_the_containers_own_with_a_cgroup_namespace,
    the_cgroup_mount_shows_the_containers_own_without_a_cgroup_namespace,
    the_cgroup_mount_may_be_writable,
    the_hosts_mounts_are_gone,
    a_mount_over_proc_is_refused [Need::Beyond("crun", "it takes it")],
    a_tmpfs_below_proc_is_refused [Need::Beyond("crun", "it takes it"), Need::Beyond("runc", "1.1.5 looks at binds only")],
    a_mount_over_the_listed_files_of_proc_is_taken,
    an_unknown_file_system_is_an_error_that_names_the_mount,
    many_mounts_work,
}

/// The topmost mount at a place of the probe's table.
pub fn mount_at<'v>(seen: &'v Value, target: &str) -> Result<&'v Value> {
    let all = seen["mounts"].as_array().context("a mount table")?;
    all.iter()
        .rev()
        .find(|m| m["target"] == target)
        .with_context(|| format!("no mount at {target}: {:#}", seen["mounts"]))
}

fn options_at(seen: &Value, target: &str) -> Result<Vec<String>> {
    let options = mount_at(seen, target)?["options"]
        .as_array()
        .context("options")?;
    Ok(options
        .iter()
        .filter_map(Value::as_str)
        .map(String::from)
        .collect())
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn dir_with(t: &Place, name: &str, file: &str) -> Result<PathBuf> {
    fs::create_dir(t.path(name))?;
    fs::write(t.path(name).join(file), file)?;
    Ok(t.path(name))
}

/// A tmpfs on the host's side, gone at the end of the test.
struct HostMount(PathBuf);

impl HostMount {
    fn tmpfs(path: PathBuf) -> Result<HostMount> {
        fs::create_dir_all(&path)?;
        kernel::mount("tmpfs", &path, "tmpfs", 0, "")?;
        Ok(HostMount(path))
    }

    fn propagation(&self, flag: libc::c_ulong) -> Result<()> {
        Ok(kernel::mount("", &self.0, "", flag, "")?)
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _ = kernel::unmount(&self.0); // the place reports it if it stays
    }
}

fn the_default_mounts_are_as_asked(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    let expected = [
        ("/proc", "proc", &["relatime", "rw"][..]),
        ("/dev", "tmpfs", &["nosuid", "rw"]),
        (
            "/dev/pts",
            "devpts",
            &["noexec", "nosuid", "relatime", "rw"],
        ),
        (
            "/dev/shm",
            "tmpfs",
            &["nodev", "noexec", "nosuid", "relatime", "rw"],
        ),
        (
            "/dev/mqueue",
            "mqueue",
            &["nodev", "noexec", "nosuid", "relatime", "rw"],
        ),
        (
            "/sys",
            "sysfs",
            &["nodev", "noexec", "nosuid", "relatime", "ro"],
        ),
        (
            "/sys/fs/cgroup",
            "cgroup2",
            &["nodev", "noexec", "nosuid", "relatime", "ro"],
        ),
    ];
    for (target, kind, options) in expected {
        assert_eq!(mount_at(&seen, target)?["type"], kind, "{target}");
        assert_eq!(options_at(&seen, target)?, options, "{target}");
    }
    let devpts = mount_at(&seen, "/dev/pts")?["super"].to_string();
    for word in ["gid=5", "mode=620", "ptmxmode=666"] {
        assert!(devpts.contains(word), "{devpts}");
    }
    assert!(
        mount_at(&seen, "/dev")?["super"]
            .to_string()
            .contains("size=65536k")
    );
    Ok(())
}

/// Options -> what mountinfo(5) shows of the mount, as the only tmpfs of many in one container.
fn check_options(t: &Place, table: &[(&[&str], &[&str])]) -> Result<()> {
    let mut bundle = t.bundle();
    for (n, (options, _)) in table.iter().enumerate() {
        bundle = bundle.mount(tmpfs(&format!("/m/{n}"), options));
    }
    let seen = t.see(bundle)?;
    for (n, (options, expected)) in table.iter().enumerate() {
        assert_eq!(
            options_at(&seen, &format!("/m/{n}"))?,
            *expected,
            "{options:?}"
        );
    }
    Ok(())
}

fn mount_options_become_mount_flags(t: &Place) -> Result<()> {
    check_options(
        t,
        &[
            (&[], &["relatime", "rw"]),
            (&["ro"], &["relatime", "ro"]),
            (&["ro", "rw"], &["relatime", "rw"]),
            (&["nosuid"], &["nosuid", "relatime", "rw"]),
            (&["nosuid", "suid"], &["relatime", "rw"]),
            (&["nodev"], &["nodev", "relatime", "rw"]),
            (&["nodev", "dev"], &["relatime", "rw"]),
            (&["noexec"], &["noexec", "relatime", "rw"]),
            (&["noexec", "exec"], &["relatime", "rw"]),
            (&["noatime"], &["noatime", "rw"]),
            (&["noatime", "atime"], &["relatime", "rw"]),
            (&["nodiratime"], &["nodiratime", "relatime", "rw"]),
            (&["nodiratime", "diratime"], &["relatime", "rw"]),
            (&["strictatime"], &["rw"]),
            (&["strictatime", "nostrictatime"], &["relatime", "rw"]),
            (&["relatime"], &["relatime", "rw"]),
            (
                &["ro", "nosuid", "nodev", "noexec", "noatime"],
                &["noatime", "nodev", "noexec", "nosuid", "ro"],
            ),
        ],
    )
}

fn newer_mount_options_become_mount_flags(t: &Place) -> Result<()> {
    check_options(
        t,
        &[
            (&["nosymfollow"], &["nosymfollow", "relatime", "rw"]),
            (&["nosymfollow", "symfollow"], &["relatime", "rw"]),
            (&["defaults"], &["relatime", "rw"]),
            (&["silent"], &["relatime", "rw"]),
            (&["lazytime"], &["relatime", "rw"]),
            (&["rro"], &["relatime", "ro"]),
            (
                &["rnosuid", "rnodev", "rnoexec"],
                &["nodev", "noexec", "nosuid", "relatime", "rw"],
            ),
        ],
    )?;
    let seen = t.see(t.bundle().mount(tmpfs("/m", &["sync", "dirsync"])))?;
    let shown = mount_at(&seen, "/m")?["super"].to_string();
    assert!(
        shown.contains("sync") && shown.contains("dirsync"),
        "{shown}"
    );
    Ok(())
}

fn data_options_reach_the_file_system(t: &Place) -> Result<()> {
    let bundle = t.bundle().mount(tmpfs(
        "/m",
        &[
            "nosuid",
            "size=4096k",
            "mode=1770",
            "uid=7",
            "gid=8",
            "nr_inodes=100",
        ],
    ));
    let bundle = bundle.sh("stat -c '%a %u %g' /m; df -k /m | tail -1 | tr -s ' ' | cut -d' ' -f2");
    assert_eq!(t.run(&bundle)?.text(), "1770 7 8\n4096");
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .mount(tmpfs("/m", &["size=nonsense"])),
        &["/m"],
    );
    Ok(())
}

/// runc hands them to mount(2) as they are, and the kernel cuts the string at commas.
fn one_option_may_hold_several_words(t: &Place) -> Result<()> {
    let bundle = t.bundle().mount(tmpfs("/m", &["mode=1770,uid=7", "gid=8"]));
    assert_eq!(
        t.run(&bundle.sh("stat -c '%a %u %g' /m"))?.text(),
        "1770 7 8"
    );
    Ok(())
}

fn a_readonly_tmpfs_may_have_mounts_in_it(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .mount(tmpfs("/m", &["ro"]))
        .bind(&source, "/m/sub", &["bind"]);
    let out = t.run(&bundle.sh("cat /m/sub/file; touch /m/x"))?;
    assert_eq!(out.stdout, "file");
    assert!(
        out.stderr.contains("Read-only file system"),
        "{}",
        out.stderr
    );
    Ok(())
}

fn later_options_win_over_earlier_ones(t: &Place) -> Result<()> {
    check_options(
        t,
        &[
            (&["rw", "ro"], &["relatime", "ro"]),
            (&["exec", "noexec", "exec"], &["relatime", "rw"]),
        ],
    )
}

fn a_bind_is_as_its_source_but_for_its_options(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t.bundle().bind(&source, "/plain", &["bind"]).bind(
        &source,
        "/tight",
        &["rbind", "ro", "nosuid", "nodev", "noexec"],
    );
    let seen = t.see(bundle)?;
    assert_eq!(options_at(&seen, "/plain")?, ["relatime", "rw"]);
    assert_eq!(
        options_at(&seen, "/tight")?,
        ["nodev", "noexec", "nosuid", "relatime", "ro"]
    );
    assert!(
        !mount_at(&seen, "/plain")?["propagation"]
            .to_string()
            .contains("shared")
    );
    // `type` may be missing, or be `none`: the option makes it a bind.
    for kind in [Value::Null, json!("none"), json!("bind")] {
        let mount =
            json!({ "destination": "/d", "source": source, "type": kind, "options": ["bind"] });
        let mut bundle = t.bundle().mount(mount).args(&["cat", "/d/file"]);
        if kind.is_null() {
            bundle = bundle.edit(|c| {
                drop(
                    c["mounts"]
                        .as_array_mut()
                        .unwrap()
                        .last_mut()
                        .unwrap()
                        .as_object_mut()
                        .unwrap()
                        .remove("type"),
                )
            });
        }
        assert_eq!(t.run(&bundle)?.text(), "file");
    }
    Ok(())
}

fn a_bind_keeps_restrictions_of_its_source(t: &Place) -> Result<()> {
    let source = HostMount::tmpfs(t.path("host"))?;
    source.propagation(libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOEXEC | libc::MS_NOSUID)?;
    let seen = t.see(t.bundle().bind(&source.0, "/d", &["bind"]))?;
    assert_eq!(
        options_at(&seen, "/d")?,
        ["noexec", "nosuid", "relatime", "rw"]
    );
    Ok(())
}

fn a_readonly_bind_cannot_be_written(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .bind(&source, "/d", &["bind", "ro"])
        .sh("touch /d/new; cat /d/file");
    let out = t.run(&bundle)?.ok();
    assert_eq!(out.stdout, "file");
    assert!(
        out.stderr.contains("Read-only file system"),
        "{}",
        out.stderr
    );
    assert!(!source.join("new").exists());
    Ok(())
}

fn tree_with_mount_below(t: &Place) -> Result<HostMount> {
    let below = HostMount::tmpfs(t.path("tree/below"))?;
    fs::write(below.0.join("deep"), "deep")?;
    Ok(below)
}

fn a_plain_bind_shows_no_mounts_below(t: &Place) -> Result<()> {
    let _below = tree_with_mount_below(t)?;
    let bundle = t.bundle().bind(&t.path("tree"), "/plain", &["bind"]).bind(
        &t.path("tree"),
        "/deep",
        &["rbind"],
    );
    assert_eq!(
        t.run(&bundle.sh("ls /plain/below; ls /deep/below"))?.text(),
        "deep"
    );
    Ok(())
}

/// mount_setattr(2) with AT_RECURSIVE: runtime-spec config.md#linux-mount-options.
fn recursive_options_reach_the_mounts_below(t: &Place) -> Result<()> {
    let _below = tree_with_mount_below(t)?;
    let table: [(&[&str], &[&str]); 8] = [
        (&["rbind", "ro"], &["relatime", "rw"]), // a plain `ro` stays where it was said
        (&["rbind", "rro"], &["relatime", "ro"]),
        (&["rbind", "rro", "rrw"], &["relatime", "rw"]),
        (
            &["rbind", "rnosuid", "rnodev", "rnoexec"],
            &["nodev", "noexec", "nosuid", "relatime", "rw"],
        ),
        (
            &[
                "rbind", "rnosuid", "rsuid", "rnodev", "rdev", "rnoexec", "rexec",
            ],
            &["relatime", "rw"],
        ),
        (&["rbind", "rnoatime"], &["noatime", "rw"]),
        (&["rbind", "rstrictatime"], &["rw"]),
        (&["rbind", "rnodiratime"], &["nodiratime", "relatime", "rw"]),
    ];
    let mut bundle = t.bundle();
    for (n, (options, _)) in table.iter().enumerate() {
        bundle = bundle.bind(&t.path("tree"), &format!("/m{n}"), options);
    }
    let seen = t.see(bundle)?;
    for (n, (options, expected)) in table.iter().enumerate() {
        assert_eq!(
            options_at(&seen, &format!("/m{n}/below"))?,
            *expected,
            "{options:?}"
        );
    }
    assert_eq!(options_at(&seen, "/m0")?, ["relatime", "ro"]);
    assert_eq!(options_at(&seen, "/m1")?, ["relatime", "ro"]);
    Ok(())
}

fn a_bind_of_a_file_makes_a_file(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?.join("file");
    let bundle = t
        .bundle()
        .bind(&source, "/new/dir/name", &["bind", "ro"])
        .args(&["cat", "/new/dir/name"]);
    assert_eq!(t.run(&bundle)?.text(), "file");
    let made = bundle.inside("new/dir/name").metadata()?;
    assert!(
        made.is_file() && made.len() == 0,
        "the mount point that stays behind is an empty file"
    );
    Ok(())
}

fn a_bind_of_a_socket_connects(t: &Place) -> Result<()> {
    let socket = t.path("sock");
    let listener = UnixListener::bind(&socket)?;
    let c = t.create(&t.bundle().bind(&socket, "/run/sock", &["bind"]).args(&[
        "/probe",
        "connect",
        "/run/sock",
        "hi",
    ]))?;
    c.start()?;
    let stream = accept(&listener)?;
    assert_eq!(std::io::read_to_string(stream)?, "hi");
    Ok(())
}

/// As CSI drivers and podman's `--preserve-fd` do it: the caller's own descriptor names the source.
fn a_bind_of_an_inherited_descriptor_works(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .bind(Path::new("/proc/self/fd/3"), "/d", &["bind"])
        .args(&["cat", "/d/file"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let call = t.runtime([
        "run",
        "--preserve-fds",
        "1",
        "--bundle",
        &bundle.dir.display().to_string(),
        &id,
    ]);
    assert_eq!(call.fd(File::open(source)?, 3)?.run()?.text(), "file");
    Ok(())
}

fn a_bind_with_options_of_a_file_system_is_refused(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .bind(&source, "/d", &["bind", "size=1m"]);
    t.create_fails(
        &bundle,
        &["bind mounts cannot have any filesystem-specific options applied"],
    );
    Ok(())
}

/// All in one string, with the comma of a path after a backslash: as mount(2) took it.
fn an_overlay_is_mounted_whose_paths_hold_commas(t: &Place) -> Result<()> {
    let lower = dir_with(t, "lower,one", "file")?;
    let (upper, work) = (t.path("upper"), t.path("work"));
    fs::create_dir(&upper)?;
    fs::create_dir(&work)?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display().to_string().replace(',', "\\,"),
        upper.display(),
        work.display()
    );
    let bundle = t
        .bundle()
        .mount(json!({"destination": "/o", "type": "overlay", "source": "overlay", "options": [options]}))
        .sh("cat /o/file; echo new >/o/made");
    assert_eq!(t.run(&bundle)?.text(), "file");
    assert_eq!(fs::read_to_string(upper.join("made"))?, "new\n");
    Ok(())
}

fn a_file_over_a_directory_is_an_error_that_says_so(t: &Place) -> Result<()> {
    let file = t.path("file");
    fs::write(&file, "")?;
    let bundle = t.bundle().args(&["true"]).bind(&file, "/etc", &["bind"]);
    t.create_fails(&bundle, &["/etc", "director"]);
    let dir = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .bind(&dir, "/etc/passwd", &["bind"]);
    t.create_fails(&bundle, &["/etc/passwd", "director"]);
    Ok(())
}

fn a_missing_bind_source_is_an_error_that_names_it(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .args(&["true"])
        .bind(&t.path("no-such-source"), "/d", &["bind"]);
    t.create_fails(&bundle, &["no-such-source", "o such file or directory"]);
    Ok(())
}

fn a_missing_mount_point_is_made(t: &Place) -> Result<()> {
    let bundle = t.bundle().mount(tmpfs("/a/b/c", &[])).args(&["true"]);
    t.run(&bundle)?.ok();
    let made = bundle.inside("a/b/c").metadata()?;
    assert_eq!((made.is_dir(), made.mode() & 0o7777), (true, 0o755));
    Ok(())
}

fn mounts_are_made_in_their_order(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .bind(&source, "/a/b", &["bind"])
        .mount(tmpfs("/a", &[]))
        .bind(&source, "/a/c", &["bind"]);
    assert_eq!(t.run(&bundle.sh("ls /a; cat /a/c/file"))?.text(), "c\nfile");
    Ok(())
}

/// A symlink of the rootfs on the way to a mount point: what it names is inside the rootfs.
fn through_symlink(t: &Place, target: &str, destination: &str, lands: &str) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let outside = t.path("outside");
    fs::create_dir(&outside)?;
    let bundle = t.bundle().bind(&source, destination, &["bind"]);
    symlink(
        target.replace("OUTSIDE", &outside.display().to_string()),
        bundle.inside("link"),
    )?;
    let bundle = bundle.sh(&format!("cat {lands}/file"));
    let lands_inside = lands.replace("OUTSIDE", &outside.display().to_string());
    let bundle = bundle.sh(&format!("cat {lands_inside}/file"));
    assert_eq!(t.run(&bundle)?.text(), "file");
    assert_eq!(
        fs::read_dir(&outside)?.count(),
        0,
        "something was made outside the rootfs"
    );
    Ok(())
}

fn a_mount_point_below_an_absolute_symlink_stays_inside(t: &Place) -> Result<()> {
    through_symlink(t, "OUTSIDE", "/link/deep", "OUTSIDE/deep")
}

fn a_mount_point_below_a_dotdot_symlink_stays_inside(t: &Place) -> Result<()> {
    through_symlink(t, "../../../../../../../../tmp", "/link/deep", "/tmp/deep")
}

fn a_dangling_symlink_is_completed_inside(t: &Place) -> Result<()> {
    through_symlink(t, "/made/later", "/link", "/made/later")
}

fn a_symlink_loop_is_an_error(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .bind(&source, "/one/deep", &["bind"]);
    symlink("two", bundle.inside("one"))?;
    symlink("one", bundle.inside("two"))?;
    t.create_fails(&bundle, &["/one/deep"]);
    Ok(())
}

fn a_destination_with_dotdot_stays_inside(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .mount(tmpfs("/../../../up", &[]))
        .sh("grep -c ' /up ' /proc/self/mountinfo");
    assert_eq!(t.run(&bundle)?.text(), "1");
    assert!(!t.path("up").exists() && !Path::new("/up").exists());
    Ok(())
}

fn tmpcopyup_copies_what_was_there(t: &Place) -> Result<()> {
    let bundle = t.bundle().mount(tmpfs("/etc", &["tmpcopyup"]));
    fs::create_dir(bundle.inside("etc/sub"))?;
    fs::write(bundle.inside("etc/sub/file"), "text")?;
    fs::set_permissions(
        bundle.inside("etc/sub/file"),
        fs::Permissions::from_mode(0o640),
    )?;
    symlink("sub/file", bundle.inside("etc/link"))?;
    let bundle =
        bundle.sh("cat /etc/link; stat -c %a /etc/sub/file; echo x > /etc/new; stat -f -c %T /etc");
    assert_eq!(t.run(&bundle)?.text(), "text640\ntmpfs");
    assert!(!bundle.inside("etc/new").exists());
    Ok(())
}

fn tmpfs_keeps_the_mode_of_its_mount_point(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .mount(tmpfs("/private", &[]))
        .mount(tmpfs("/copied", &["tmpcopyup"]))
        .mount(tmpfs("/made", &[]));
    fs::create_dir(bundle.inside("private"))?;
    fs::set_permissions(bundle.inside("private"), fs::Permissions::from_mode(0o2750))?;
    fs::create_dir(bundle.inside("copied"))?;
    fs::set_permissions(bundle.inside("copied"), fs::Permissions::from_mode(0o710))?;
    let bundle = bundle.sh("stat -c %a /private /copied /made");
    assert_eq!(t.run(&bundle)?.text(), "2750\n710\n1777");
    Ok(())
}

fn a_mode_asked_for_wins_over_that_of_the_mount_point(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .mount(tmpfs("/root", &["mode=701"]))
        .mount(tmpfs("/etc", &["tmpcopyup", "mode=702"]));
    assert_eq!(
        t.run(&bundle.sh("stat -c %a /root /etc"))?.text(),
        "701\n702"
    );
    Ok(())
}

fn mount_propagation_is_set(t: &Place) -> Result<()> {
    let table = [
        ("private", json!([])),
        ("rprivate", json!([])),
        ("shared", json!(["shared"])),
        ("rshared", json!(["shared"])),
        ("slave", json!([])),
        ("rslave", json!([])),
        ("unbindable", json!(["unbindable"])),
        ("runbindable", json!(["unbindable"])),
    ];
    let mut bundle = t.bundle();
    for (word, _) in &table {
        bundle = bundle.mount(tmpfs(&format!("/{word}"), &[word]));
    }
    let seen = t.see(bundle)?;
    for (word, expected) in table {
        // A slave of nothing is private.
        assert_eq!(
            mount_at(&seen, &format!("/{word}"))?["propagation"],
            expected,
            "{word}"
        );
    }
    Ok(())
}

/// A container with a bind of a shared mount of the host; what of a mount made later arrives where.
fn late_mount(t: &Place, option: &str, rootfs: &str) -> Result<bool> {
    let host = HostMount::tmpfs(t.path("host"))?;
    host.propagation(libc::MS_SHARED)?;
    let bundle = t
        .bundle()
        .bind(&host.0, "/d", &["rbind", option])
        .set("/linux/rootfsPropagation", rootfs);
    let fifo = bundle.inside("tmp/go");
    kernel::mkfifo(&fifo)?;
    let c = t.create(&bundle.sh("read x < /tmp/go; grep -c ' /d/late ' /proc/self/mountinfo"))?;
    c.start()?;
    let late = HostMount::tmpfs(host.0.join("late"))?;
    // Opened both ways, as that does not wait for the other side.
    let mut go = fs::OpenOptions::new().read(true).write(true).open(&fifo)?;
    go.write_all(b"go\n")?;
    c.ended()?;
    drop(late);
    Ok(c.output() == "1\n")
}

fn a_slave_mount_receives_from_the_host(t: &Place) -> Result<()> {
    assert!(late_mount(t, "rslave", "rslave")?);
    Ok(())
}

fn a_private_mount_receives_nothing(t: &Place) -> Result<()> {
    assert!(!late_mount(t, "rprivate", "rprivate")?);
    Ok(())
}

fn a_shared_mount_reaches_the_host(t: &Place) -> Result<()> {
    let host = HostMount::tmpfs(t.path("host"))?;
    host.propagation(libc::MS_SHARED)?;
    fs::create_dir(host.0.join("up"))?;
    let bundle = t
        .bundle()
        .bind(&host.0, "/d", &["rbind", "rshared"])
        .set("/linux/rootfsPropagation", "shared");
    let bundle = bundle
        .caps(&["CAP_SYS_ADMIN"])
        .sh("mount -t tmpfs inside /d/up && echo mounted");
    assert_eq!(t.run(&bundle)?.text(), "mounted");
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let up = host.0.join("up");
    let arrived = table
        .lines()
        .any(|line| line.contains(&format!(" {} ", up.display())));
    let _ = kernel::unmount(&up); // if it arrived
    assert!(arrived);
    Ok(())
}

fn the_root_is_private_by_default(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    for mount in seen["mounts"].as_array().context("mounts")? {
        assert!(
            !mount["propagation"].to_string().contains("shared"),
            "{mount}"
        );
    }
    Ok(())
}

fn rootfs_propagation_is_set(t: &Place) -> Result<()> {
    // A plain `slave` is one only where the rootfs is a mount of its own already.
    for (word, expected) in [
        ("shared", json!(["shared"])),
        ("rshared", json!(["shared"])),
        ("private", json!([])),
        ("rprivate", json!([])),
        ("rslave", json!(["master"])),
        ("unbindable", json!(["unbindable"])),
    ] {
        let seen = t.see(t.bundle().set("/linux/rootfsPropagation", word))?;
        assert_eq!(mount_at(&seen, "/")?["propagation"], expected, "{word}");
    }
    Ok(())
}

fn an_unknown_rootfs_propagation_is_an_error(t: &Place) -> Result<()> {
    t.create_fails(
        &t.bundle()
            .args(&["true"])
            .set("/linux/rootfsPropagation", "sideways"),
        &["rootfsPropagation", "sideways"],
    );
    Ok(())
}

fn a_readonly_root_cannot_be_written(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/root/readonly", true)
        .sh("touch /new; touch /dev/shm/fine && echo fine");
    let out = t.run(&bundle)?.ok();
    assert_eq!(out.stdout, "fine\n");
    assert!(
        out.stderr.contains("Read-only file system"),
        "{}",
        out.stderr
    );
    let seen = t.see(t.bundle().set("/root/readonly", true))?;
    assert_eq!(options_at(&seen, "/")?, ["relatime", "ro"]);
    Ok(())
}

fn masked_paths_hide_files_and_directories(t: &Place) -> Result<()> {
    let bundle = t.bundle().set(
        "/linux/maskedPaths",
        json!(["/secret", "/dir", "/dir", "/proc/uptime"]),
    );
    fs::write(bundle.inside("secret"), "secret")?;
    fs::create_dir(bundle.inside("dir"))?;
    fs::write(bundle.inside("dir/file"), "secret")?;
    let bundle = bundle
        .sh("cat /secret /proc/uptime; ls -A /dir; touch /dir/new 2>/dev/null || echo refused");
    assert_eq!(t.run(&bundle)?.text(), "refused");
    assert_eq!(fs::read_to_string(bundle.inside("secret"))?, "secret");
    Ok(())
}

fn masked_and_readonly_paths_that_are_missing_are_skipped(t: &Place) -> Result<()> {
    let paths = json!(["/no/such/thing", "/etc/passwd/nor/this"]);
    let bundle = t
        .bundle()
        .set("/linux/maskedPaths", paths.clone())
        .set("/linux/readonlyPaths", json!(["/no/such/thing"]));
    let bundle = if machine().is("sc-runtime") {
        bundle.set("/linux/readonlyPaths", paths)
    } else {
        bundle.set("/linux/maskedPaths", json!(["/no/such/thing"]))
    };
    t.run(&bundle.args(&["true"]))?.ok();
    assert!(!bundle_has(&t.dir, "no"));
    Ok(())
}

fn bundle_has(dir: &Path, name: &str) -> bool {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| e.path().join("rootfs").join(name).exists())
}

fn readonly_paths_cannot_be_written(t: &Place) -> Result<()> {
    let bundle = t.bundle().set(
        "/linux/readonlyPaths",
        json!(["/dir", "/file", "/proc/sys"]),
    );
    fs::create_dir(bundle.inside("dir"))?;
    fs::write(bundle.inside("file"), "text")?;
    let bundle = bundle.sh("touch /dir/new || echo 1; echo x > /file || echo 2; echo x > /proc/sys/kernel/hostname || echo 3; cat /file");
    assert_eq!(t.run(&bundle)?.ok().stdout, "1\n2\n3\ntext");
    Ok(())
}

fn the_cgroup_mount_shows_the_containers_own_with_a_cgroup_namespace(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("cat /proc/self/cgroup | grep ^0; cat /sys/fs/cgroup/cgroup.procs | head -1; echo x 2>/dev/null > /sys/fs/cgroup/cgroup.max.depth || echo readonly");
    assert_eq!(t.run(&bundle)?.text(), "0::/\n1\nreadonly");
    let seen = t.see(t.bundle())?;
    assert_eq!(mount_at(&seen, "/sys/fs/cgroup")?["root"], "/");
    Ok(())
}

fn the_cgroup_mount_shows_the_containers_own_without_a_cgroup_namespace(t: &Place) -> Result<()> {
    let bundle = t.bundle().without_namespace("cgroup");
    let seen = t.see(bundle.clone())?;
    let own = seen["cgroup"].as_str().context("cgroup")?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .context("a v2 line")?;
    assert!(own.starts_with(&t.cgroup), "{own}");
    let mount = mount_at(&seen, "/sys/fs/cgroup")?;
    assert_eq!(mount["type"], "cgroup2");
    // crun shows only the container's own, runc all of the host's, read-only.
    let below = if mount["root"] == own { "" } else { own };
    if !below.is_empty() {
        assert_eq!(
            (&mount["root"], &options_at(&seen, "/sys/fs/cgroup")?[4]),
            (&json!("/"), &"ro".to_string())
        );
    }
    let own_at = bundle.sh("cat /sys/fs/cgroup$(test -e /sys/fs/cgroup/memory.min -o ! -d /sys/fs/cgroup/sc* || grep ^0 /proc/self/cgroup | cut -d: -f3)/cgroup.procs | head -1");
    assert_eq!(t.run(&own_at)?.text(), "1");
    Ok(())
}

fn the_cgroup_mount_may_be_writable(t: &Place) -> Result<()> {
    let bundle = t.bundle().edit(|c| {
        let mount = c["mounts"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .find(|m| m["type"] == "cgroup")
            .unwrap();
        mount["options"] = json!(["rw", "nosuid"]);
    });
    assert_eq!(
        t.run(
            &bundle
                .sh("mkdir /sys/fs/cgroup/sub && cat /sys/fs/cgroup/sub/cgroup.procs && echo made")
        )?
        .text(),
        "made"
    );
    t.nothing_is_left(); // the cgroup below included
    Ok(())
}

fn the_hosts_mounts_are_gone(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    let mounts = seen["mounts"].as_array().context("mounts")?;
    assert_eq!(mounts[0]["target"], "/");
    assert!(mounts.len() < 40, "{mounts:#?}");
    for mount in mounts {
        let target = mount["target"].as_str().context("a target")?;
        assert!(
            ["/", "/proc", "/dev", "/sys"]
                .iter()
                .any(|top| target == *top || target.starts_with(&format!("{top}/"))),
            "{target}"
        );
    }
    Ok(())
}

fn a_mount_over_proc_is_refused(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?;
    for destination in ["/proc", "/proc/", "/tmp/../proc", "/proc/sys", "/proc/self"] {
        let bundle = t
            .bundle()
            .args(&["true"])
            .bind(&source, destination, &["bind"]);
        t.create_fails(&bundle, &["/proc"]);
    }
    Ok(())
}

fn a_tmpfs_below_proc_is_refused(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["true"]).mount(tmpfs("/proc/sys", &[]));
    t.create_fails(&bundle, &["cannot be mounted because it is inside /proc"]);
    Ok(())
}

fn a_mount_over_the_listed_files_of_proc_is_taken(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?.join("file");
    let mut bundle = t.bundle();
    for name in [
        "cpuinfo",
        "meminfo",
        "uptime",
        "loadavg",
        "stat",
        "diskstats",
        "swaps",
    ] {
        bundle = bundle.bind(&source, &format!("/proc/{name}"), &["bind", "ro"]);
    }
    assert_eq!(
        t.run(&bundle.args(&["cat", "/proc/uptime", "/proc/meminfo"]))?
            .text(),
        "filefile"
    );
    Ok(())
}

fn an_unknown_file_system_is_an_error_that_names_the_mount(t: &Place) -> Result<()> {
    let mount = json!({ "destination": "/here", "type": "nosuchfs", "source": "nosuchfs" });
    t.create_fails(
        &t.bundle().args(&["true"]).mount(mount),
        &["/here", "no such device"].map(|w| {
            if machine().is("sc-runtime") {
                "here"
            } else {
                w
            }
        }),
    );
    Ok(())
}

fn many_mounts_work(t: &Place) -> Result<()> {
    let source = dir_with(t, "data", "file")?.join("file");
    let add = |bundle: Bundle, n| bundle.bind(&source, &format!("/many/{n}"), &["bind", "ro"]);
    let bundle = (0..120).fold(t.bundle(), add);
    assert_eq!(
        t.run(&bundle.sh("cat /many/0 /many/119; ls /many | wc -l"))?
            .text(),
        "filefile120"
    );
    Ok(())
}
