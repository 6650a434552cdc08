//! Id-mapped mounts, and what a user namespace does to mounts: whose the files are, inside and on the
//! host, what the mapped root can reach, and what belongs to it.

use crate::harness::bundle::SYS_RESOURCE;
use crate::harness::command::Call;
use crate::harness::machine::program;
use crate::harness::place::until;
use crate::harness::{Bundle, Context, Need, Place, Result, Value, json, kernel};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

const RUNC: Need = Need::Beyond("runc", "1.1.5 has no id-mapped mounts");
const CRUN_OPTION: Need = Need::Beyond("crun", "1.8 knows mappings, not the options");
const WORDS: Need = Need::Beyond("crun", "its words are its own");

tests! {
    without_mappings_of_its_own_a_mount_shows_the_ids_of_the_container [RUNC, CRUN_OPTION],
    the_containers_own_mappings_are_as_good_as_none [RUNC],
    mappings_of_its_own_need_no_user_namespace [RUNC],
    mappings_of_its_own_may_differ_from_the_containers [RUNC],
    mappings_without_the_option_are_applied [RUNC],
    several_mounts_have_their_own_mappings [RUNC],
    a_descriptor_of_the_caller_can_be_id_mapped [RUNC, CRUN_OPTION],
    a_file_can_be_id_mapped [RUNC],
    idmap_leaves_what_is_mounted_below_as_it_is [RUNC, CRUN_OPTION],
    ridmap_maps_what_is_mounted_below [RUNC, CRUN_OPTION],
    an_id_mapped_mount_has_its_flags [RUNC, CRUN_OPTION],
    a_file_system_that_cannot_is_an_error_that_names_the_mount [RUNC, WORDS],
    a_file_system_below_that_cannot_is_an_error_of_ridmap_only [RUNC, CRUN_OPTION],
    what_makes_no_sense_is_refused [RUNC, WORDS],
    a_source_that_the_mapped_root_cannot_reach_is_bound [RUNC],
    a_source_that_it_cannot_reach_may_be_id_mapped [RUNC],
    a_missing_source_is_named_in_a_user_namespace_too [Need::Beyond("runc", "its words are its own"), WORDS],
    what_the_host_has_mounted_below_cannot_be_uncovered_in_a_user_namespace [RUNC, Need::Beyond("crun", "1.8 uncovers it")],
    a_readonly_mount_of_the_host_stays_readonly_for_the_root_of_a_user_namespace [RUNC, Need::Beyond("crun", "1.8 loses the locks")],
    message_queues_belong_to_the_root_of_the_user_namespace,
    a_joined_user_namespace_has_mounts_devices_and_cgroups [Need::Beyond("runc", "1.1.5 wants the maps again"), Need::Beyond("crun", "1.8 binds another device than was asked for")],
    a_joined_user_namespace_gives_its_ids_to_mounts [RUNC, CRUN_OPTION],
    a_joined_user_namespace_knows_its_init_from_its_first_word [RUNC, CRUN_OPTION],
    hard_limits_are_raised_in_a_joined_user_namespace_too [SYS_RESOURCE, Need::Beyond("runc", "1.1.5 wants the maps again")],
    a_user_namespace_that_denies_setgroups_is_joined [Need::Program("unshare"), Need::Beyond("runc", "1.1.5 wants the maps again"), Need::Beyond("crun", "1.8 calls setgroups all the same")],
    a_file_system_of_a_namespace_that_is_not_the_containers_says_which_it_needs [Need::Beyond("runc", "its words are its own"), Need::Beyond("crun", "1.8 binds the host's")],
}

/// A directory with a file of root's and one of 5:6, that all may write to.
fn owned(t: &Place, name: &str) -> Result<PathBuf> {
    let dir = t.path(name);
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o777))?;
    for (file, uid, gid) in [("root", 0, 0), ("other", 5, 6)] {
        fs::write(dir.join(file), file)?;
        chown(dir.join(file), Some(uid), Some(gid))?;
    }
    Ok(dir)
}

fn ids(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

fn mapped(
    source: &Path,
    destination: &str,
    options: &[&str],
    maps: Option<(Value, Value)>,
) -> Value {
    let mut mount =
        json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    if let Some((uids, gids)) = maps {
        mount["uidMappings"] = uids;
        mount["gidMappings"] = gids;
    }
    mount
}

fn owner(path: &Path) -> Result<(u32, u32)> {
    let meta = path.symlink_metadata()?;
    Ok((meta.uid(), meta.gid()))
}

const LOOK: &str = "cd /data; stat -c '%n %u:%g' other root; touch new && stat -c '%n %u:%g' new";

fn without_mappings_of_its_own_a_mount_shows_the_ids_of_the_container(t: &Place) -> Result<()> {
    for (name, options) in [("a", &["bind", "idmap"][..]), ("b", &["rbind", "ridmap"])] {
        let dir = owned(t, name)?;
        let bundle = t.bundle().user_namespace()?;
        let bundle = bundle.mount(mapped(&dir, "/data", options, None)).sh(LOOK);
        assert_eq!(t.run(&bundle)?.text(), "other 5:6\nroot 0:0\nnew 0:0");
        assert_eq!(owner(&dir.join("new"))?, (0, 0));
    }
    Ok(())
}

fn the_containers_own_mappings_are_as_good_as_none(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    let maps = (ids(0, 100_000, 65536), ids(0, 100_000, 65536));
    let mount = mapped(&dir, "/data", &["bind", "idmap"], Some(maps));
    let bundle = t.bundle().user_namespace()?.mount(mount).sh(LOOK);
    assert_eq!(t.run(&bundle)?.text(), "other 5:6\nroot 0:0\nnew 0:0");
    assert_eq!(owner(&dir.join("new"))?, (0, 0));
    Ok(())
}

/// On the disk 5:6, in the container root: what it makes is 5:6 on the disk.
fn mappings_of_its_own_need_no_user_namespace(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    chown(&dir, Some(5), Some(6))?;
    let maps = (ids(5, 0, 1), ids(6, 0, 1));
    let bundle = t
        .bundle()
        .mount(mapped(&dir, "/data", &["bind", "idmap"], Some(maps)));
    // What no mapping knows is nobody's.
    assert_eq!(
        t.run(&bundle.sh(LOOK))?.text(),
        "other 0:0\nroot 65534:65534\nnew 0:0"
    );
    assert_eq!(owner(&dir.join("new"))?, (5, 6));
    Ok(())
}

fn mappings_of_its_own_may_differ_from_the_containers(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    let two = json!([{ "containerID": 0, "hostID": 100010, "size": 1 }, { "containerID": 5, "hostID": 100000, "size": 2 }]);
    let mount = mapped(&dir, "/data", &["bind", "idmap"], Some((two.clone(), two)));
    let bundle = t.bundle().user_namespace()?.mount(mount).sh(LOOK);
    assert_eq!(t.run(&bundle)?.text(), "other 0:1\nroot 10:10\nnew 0:0");
    assert_eq!(owner(&dir.join("new"))?, (5, 5));
    Ok(())
}

fn mappings_without_the_option_are_applied(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    chown(&dir, Some(5), Some(6))?;
    let maps = (ids(5, 0, 1), ids(6, 0, 1));
    let bundle = t
        .bundle()
        .mount(mapped(&dir, "/data", &["bind"], Some(maps)));
    assert!(t.run(&bundle.sh(LOOK))?.text().starts_with("other 0:0\n"));
    Ok(())
}

fn several_mounts_have_their_own_mappings(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    let maps = |uid| Some((ids(5, uid, 1), ids(6, 7, 1)));
    let all = [
        ("/m/a", maps(1)),
        ("/m/b", maps(2)),
        ("/m/c", maps(1)),
        ("/m/d", None),
    ];
    let bundle = all.into_iter().fold(t.bundle(), |bundle, (to, maps)| {
        let options: &[&str] = if maps.is_some() {
            &["bind", "idmap"]
        } else {
            &["bind"]
        };
        bundle.mount(mapped(&dir, to, options, maps))
    });
    let out = t.run(&bundle.sh("stat -c %u:%g /m/*/other"))?.text();
    assert_eq!(out, "1:7\n2:7\n1:7\n5:6");
    Ok(())
}

/// Which is no path of the container's mount namespace.
fn a_descriptor_of_the_caller_can_be_id_mapped(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    for maps in [None, Some((ids(0, 100_000, 65536), ids(0, 100_000, 65536)))] {
        let mount = mapped(
            Path::new("/proc/self/fd/9"),
            "/data",
            &["bind", "idmap"],
            maps,
        );
        let bundle = t
            .bundle()
            .user_namespace()?
            .mount(mount)
            .sh("stat -c '%n %u:%g' /data/other");
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let call = t.runtime(["run", "--bundle", &bundle.dir.display().to_string(), &id]);
        let out = call.fd(std::fs::File::open(&dir)?, 9)?.run()?;
        assert_eq!(out.text(), "/data/other 5:6");
    }
    Ok(())
}

fn a_file_can_be_id_mapped(t: &Place) -> Result<()> {
    let file = owned(t, "data")?.join("other");
    let bundle = t.bundle().user_namespace()?;
    let bundle = bundle.mount(mapped(&file, "/etc/other", &["bind", "idmap"], None));
    assert_eq!(t.run(&bundle.sh("stat -c %u:%g /etc/other"))?.text(), "5:6");
    Ok(())
}

/// A tmpfs on the host's side, gone at the end of the test.
struct Below(PathBuf);

impl Below {
    fn new(path: PathBuf, fstype: &str) -> Result<Below> {
        fs::create_dir_all(&path)?;
        kernel::mount(fstype, &path, fstype, 0, "")?;
        Ok(Below(path))
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let _ = kernel::unmount(&self.0); // the place reports it if it stays
    }
}

fn with_a_mount_below(t: &Place, fstype: &str) -> Result<(PathBuf, Below)> {
    let dir = owned(t, "data")?;
    let below = Below::new(dir.join("sub"), fstype)?;
    Ok((dir, below))
}

fn idmap_leaves_what_is_mounted_below_as_it_is(t: &Place) -> Result<()> {
    let (dir, below) = with_a_mount_below(t, "tmpfs")?;
    fs::write(below.0.join("f"), "")?;
    let bundle = t.bundle().user_namespace()?;
    let bundle = bundle.mount(mapped(&dir, "/data", &["rbind", "idmap"], None));
    let bundle = bundle.sh("stat -c %u:%g /data/root /data/sub/f");
    assert_eq!(t.run(&bundle)?.text(), "0:0\n65534:65534");
    Ok(())
}

fn ridmap_maps_what_is_mounted_below(t: &Place) -> Result<()> {
    let (dir, below) = with_a_mount_below(t, "tmpfs")?;
    fs::write(below.0.join("f"), "")?;
    fs::set_permissions(&below.0, Permissions::from_mode(0o755))?;
    let bundle = t.bundle().user_namespace()?;
    let bundle = bundle.mount(mapped(&dir, "/data", &["rbind", "ridmap"], None));
    let bundle = bundle.sh("stat -c %u:%g /data/root /data/sub/f; touch /data/sub/new");
    assert_eq!(t.run(&bundle)?.text(), "0:0\n0:0");
    assert_eq!(owner(&below.0.join("new"))?, (0, 0));
    Ok(())
}

fn an_id_mapped_mount_has_its_flags(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    let options = ["rbind", "ridmap", "ro", "nosuid", "rnodev", "rslave"];
    let bundle = t.bundle().user_namespace()?;
    let seen = t.see(bundle.mount(mapped(&dir, "/data", &options, None)))?;
    let mount = crate::mounts::mount_at(&seen, "/data")?;
    let words = mount["options"].as_array().context("options")?;
    for word in ["ro", "nosuid", "nodev", "idmapped"] {
        assert!(words.contains(&json!(word)), "{word}: {mount}");
    }
    Ok(())
}

fn a_file_system_that_cannot_is_an_error_that_names_the_mount(t: &Place) -> Result<()> {
    let proc = Below::new(t.path("proc"), "proc")?;
    for bundle in [t.bundle(), t.bundle().user_namespace()?] {
        let maps = (ids(0, 5, 1), ids(0, 5, 1));
        let mount = mapped(&proc.0, "/data", &["bind", "idmap"], Some(maps));
        t.run(&bundle.args(&["true"]).mount(mount))?.fails(&[
            "mounts[7] (/data)",
            "proc\"",
            "does not support id-mapped mounts",
        ]);
    }
    Ok(())
}

fn a_file_system_below_that_cannot_is_an_error_of_ridmap_only(t: &Place) -> Result<()> {
    let (dir, _below) = with_a_mount_below(t, "proc")?;
    let bundle = t.bundle().user_namespace()?;
    let with = |options: &[&str]| {
        bundle
            .clone()
            .mount(mapped(&dir, "/data", options, None))
            .sh("echo ok")
    };
    t.run(&with(&["rbind", "ridmap"]))?
        .fails(&["mounts[7]", "mounted below"]);
    assert_eq!(t.run(&with(&["rbind", "idmap"]))?.text(), "ok");
    Ok(())
}

fn what_makes_no_sense_is_refused(t: &Place) -> Result<()> {
    let dir = owned(t, "data")?;
    let one = ids(0, 5, 1);
    let tmpfs = json!({ "destination": "/data", "type": "tmpfs", "options": ["idmap"], "uidMappings": one, "gidMappings": one });
    let mut half = mapped(&dir, "/data", &["bind", "idmap"], None);
    half["uidMappings"] = one.clone();
    for (mount, words) in [
        (
            mapped(&dir, "/data", &["bind", "idmap"], None),
            &["mounts[7].options[1]", "user namespace"][..],
        ),
        (half, &["mounts[7].gidMappings", "is missing"]),
        (tmpfs, &["mounts[7].options[0]", "only bind mounts"]),
        (
            mapped(&dir, "/data", &["bind"], Some((ids(0, 5, 0), one.clone()))),
            &["mounts[7].uidMappings[0].size"],
        ),
    ] {
        t.create_fails(&t.bundle().args(&["true"]).mount(mount), words);
    }
    Ok(())
}

/// `DIR/closed/data`, where only root may pass `closed`.
fn unreachable(t: &Place) -> Result<PathBuf> {
    let closed = t.path("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, Permissions::from_mode(0o700))?;
    let data = closed.join("data");
    fs::create_dir(&data)?;
    fs::set_permissions(&data, Permissions::from_mode(0o755))?;
    fs::write(data.join("f"), "seen")?;
    Ok(data)
}

fn a_source_that_the_mapped_root_cannot_reach_is_bound(t: &Place) -> Result<()> {
    let data = unreachable(t)?;
    let bundle = t.bundle().user_namespace()?;
    let bundle = bundle
        .bind(&data, "/a", &["rbind", "ro"])
        .bind(&t.path("state/../closed"), "/closed", &["bind"])
        .bind(&data.join("f"), "/etc/f", &["bind"]);
    let out =
        t.run(&bundle.sh("cat /a/f /etc/f; stat -c %u:%g /a/f; ls /closed 2>&1; touch /a/x 2>&1"))?;
    assert_eq!(out.status, 1);
    for words in [
        "seenseen65534:65534",
        "'/closed': Permission denied",
        "Read-only file system",
    ] {
        assert!(out.stdout.contains(words), "{words}: {}", out.stdout);
    }
    Ok(())
}

fn a_source_that_it_cannot_reach_may_be_id_mapped(t: &Place) -> Result<()> {
    let data = unreachable(t)?;
    let bundle = t.bundle().user_namespace()?;
    let bundle = bundle.mount(mapped(&data, "/data", &["bind", "idmap"], None));
    let out = t.run(&bundle.sh("cat /data/f; touch /data/new; stat -c %u:%g /data/new"))?;
    assert_eq!(out.text(), "seen0:0");
    assert_eq!(owner(&data.join("new"))?, (0, 0));
    Ok(())
}

fn a_missing_source_is_named_in_a_user_namespace_too(t: &Place) -> Result<()> {
    let closed = unreachable(t)?;
    let missing = closed.join("none");
    for option in ["rw", "idmap"] {
        let bundle = t.bundle().user_namespace()?.args(&["true"]);
        t.create_fails(
            &bundle.bind(&missing, "/data", &["bind", option]),
            &[
                "mounts[7] (/data)",
                "closed/data/none",
                "no such file or directory",
            ],
        );
    }
    Ok(())
}

fn what_the_host_has_mounted_below_cannot_be_uncovered_in_a_user_namespace(
    t: &Place,
) -> Result<()> {
    let (dir, _below) = with_a_mount_below(t, "tmpfs")?;
    for option in ["rw", "idmap"] {
        let bundle = t.bundle().user_namespace()?.args(&["true"]);
        let bundle = bundle.bind(&dir, "/data", &["bind", option]);
        t.run(&bundle)?.fails(&["mounts[7] (/data)", "use rbind"]);
    }
    Ok(())
}

/// What another owner of the mounts has set is locked (mount_namespaces(7)), however the bind was made.
fn a_readonly_mount_of_the_host_stays_readonly_for_the_root_of_a_user_namespace(
    t: &Place,
) -> Result<()> {
    let closed = t.path("closed");
    fs::create_dir(&closed)?;
    let host = Below::new(closed.join("data"), "tmpfs")?;
    fs::set_permissions(&host.0, Permissions::from_mode(0o777))?;
    kernel::mount(
        "",
        &host.0,
        "",
        libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY,
        "",
    )?;
    for (mode, option) in [
        (0o755, "rw"),
        (0o700, "rw"),
        (0o755, "idmap"),
        (0o700, "idmap"),
    ] {
        fs::set_permissions(&closed, Permissions::from_mode(mode))?;
        let bundle = t.bundle().user_namespace()?.caps(&["CAP_SYS_ADMIN"]);
        let options: &[&str] = if option == "idmap" {
            &["bind", "idmap"]
        } else {
            &["bind"]
        };
        let bundle = bundle.bind(&host.0, "/data", options);
        let bundle = bundle.sh("mount -o remount,bind,rw /data 2>&1; touch /data/x 2>&1");
        let out = t.run(&bundle)?;
        assert!(
            out.stdout.contains("Read-only file system"),
            "{mode:o} {option}: {}{}",
            out.stdout,
            out.stderr
        );
        assert!(!host.0.join("x").exists());
    }
    Ok(())
}

fn message_queues_belong_to_the_root_of_the_user_namespace(t: &Place) -> Result<()> {
    let bundle = t.bundle().user_namespace()?;
    let out =
        t.run(&bundle.sh("stat -c '%u:%g %a' /dev/mqueue; touch /dev/mqueue/q; ls /dev/mqueue"))?;
    assert_eq!(out.text(), "0:0 1777\nq");
    Ok(())
}

/// A container to join, and a bundle like it but for the maps.
fn joiner(t: &Place) -> Result<(crate::harness::Container<'_>, Bundle)> {
    let base = t.bundle().user_namespace()?;
    let other = t.create(&base.clone().args(&["sleep", "1000"]))?;
    other.start()?;
    let path = PathBuf::from(format!("/proc/{}/ns/user", other.pid));
    let bundle = t.bundle().user_namespace()?;
    let bundle = bundle
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .join("user", &path);
    Ok((other, bundle))
}

fn a_joined_user_namespace_has_mounts_devices_and_cgroups(t: &Place) -> Result<()> {
    let (other, bundle) = joiner(t)?;
    let fuse = json!([{ "path": "/dev/random2", "type": "c", "major": 1, "minor": 8 }]);
    let made = bundle.clone().set("/linux/devices", fuse);
    // Not the host's device of that path: it cannot be made, and there is none to bind.
    t.run(&made.args(&["true"]))?.fails(&["/dev/random2"]);
    let script = "tail -n 1 /proc/self/cgroup; stat -c '%n %u:%g' /proc /sys /dev /dev/mqueue /dev/pts /dev/shm; \
                  head -c 1 /dev/zero | wc -c; echo x > /dev/null; ls /sys/fs/cgroup | grep -c cgroup.procs; \
                  ls /sys/class/net";
    let out = t.run(&bundle.sh(script))?.text();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines,
        [
            "0::/",
            "/proc 65534:65534",
            "/sys 65534:65534",
            "/dev 0:0",
            "/dev/mqueue 0:0",
            "/dev/pts 0:0",
            "/dev/shm 0:0",
            "1",
            "1",
            "lo"
        ]
    );
    other.end()
}

fn a_joined_user_namespace_gives_its_ids_to_mounts(t: &Place) -> Result<()> {
    let (other, bundle) = joiner(t)?;
    let dir = owned(t, "data")?;
    let bundle = bundle
        .mount(mapped(&dir, "/data", &["bind", "idmap"], None))
        .sh(LOOK);
    assert_eq!(t.run(&bundle)?.text(), "other 5:6\nroot 0:0\nnew 0:0");
    assert_eq!(owner(&dir.join("new"))?, (0, 0));
    other.end()
}

/// A process that enters the namespaces makes init and goes: what init says at once, while the runtime has
/// yet to hear who it is, must not be taken for that one's.
fn a_joined_user_namespace_knows_its_init_from_its_first_word(t: &Place) -> Result<()> {
    let (other, bundle) = joiner(t)?;
    let dir = owned(t, "data")?;
    let bundle = bundle
        .mount(mapped(&dir, "/data", &["bind", "idmap"], None))
        .args(&["true"]);
    for _ in 0..30 {
        t.run(&bundle)?.ok();
    }
    other.end()
}

fn hard_limits_are_raised_in_a_joined_user_namespace_too(t: &Place) -> Result<()> {
    let (other, bundle) = joiner(t)?;
    let limits = fs::read_to_string("/proc/self/limits")?;
    let hard = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(|rest| rest.split_whitespace().nth(1))
        .context("limits")?;
    // Where there is none to raise, any number is as good.
    let above = hard.parse().unwrap_or(1_u64 << 40) + 1;
    let limit = json!([{ "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": above }]);
    let seen = t.see(bundle.set("/process/rlimits", limit))?;
    assert_eq!(seen["rlimits"]["RLIMIT_MEMLOCK"], json!([4096, above]));
    other.end()
}

/// As an ordinary user makes it: one id, and setgroups(2) given up for ever.
fn a_user_namespace_that_denies_setgroups_is_joined(t: &Place) -> Result<()> {
    let unshare = program("unshare").context("unshare")?;
    let holder = Call::new(t, &unshare, ["-U", "-r", "sleep", "1000"]).spawn()?;
    let proc = PathBuf::from(format!("/proc/{}", holder.pid()));
    until("the maps", || {
        fs::read_to_string(proc.join("comm"))
            .is_ok_and(|name| name == "sleep\n" || name == "busybox\n")
    });
    assert_eq!(fs::read_to_string(proc.join("setgroups"))?, "deny\n");
    let bundle = t.bundle().join("user", &proc.join("ns/user"));
    let bundle = bundle.set(
        "/mounts/2/options",
        json!(["newinstance", "ptmxmode=0666", "mode=0620"]),
    );
    let seen = t.see(bundle.clone());
    let refused = bundle
        .args(&["true"])
        .set("/process/user/additionalGids", json!([0]));
    let out = t.run(&refused)?;
    kernel::kill(holder.pid(), libc::SIGKILL)?;
    holder.wait()?;
    let seen = seen?;
    assert_eq!(seen["setgroups"], "deny");
    assert_eq!(seen["uid"], "0 0 0 0");
    assert_eq!(seen["groups"], "");
    out.fails(&["process.user.additionalGids"]);
    Ok(())
}

fn a_file_system_of_a_namespace_that_is_not_the_containers_says_which_it_needs(
    t: &Place,
) -> Result<()> {
    for (namespace, fstype) in [("network", "sysfs"), ("pid", "proc"), ("ipc", "mqueue")] {
        let bundle = t
            .bundle()
            .user_namespace()?
            .args(&["true"])
            .without_namespace(namespace);
        let words = [fstype, "user namespace", namespace];
        t.create_fails(&bundle, &words);
    }
    Ok(())
}
