//! Known ways out of a container, one test each, named by the CVE where there is one. SECURITY.md has
//! the table of them; `every_test_that_security_md_names_exists` holds it to what is here.

use crate::harness::command::Call;
use crate::harness::kernel;
use crate::harness::place::{accept, until};
use crate::harness::{Bundle, Container, Need, Place, Result, json, machine};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

tests! {
    cve_2019_5736_the_runtime_cannot_be_written_through_proc_exe,
    cve_2019_5736_proc_self_exe_as_the_program_changes_nothing,
    cve_2019_5736_proc_self_exe_as_an_interpreter_changes_nothing,
    cve_2019_5736_proc_self_exe_during_exec_changes_nothing,
    cve_2024_21626_no_working_directory_through_a_descriptor,
    cve_2024_21626_no_working_directory_through_a_descriptor_of_exec,
    cve_2024_21626_no_working_directory_through_stdin [Need::Beyond("crun", "1.8 goes there")],
    cve_2026_30892_user_1_of_exec_is_not_root,
    an_exec_enters_no_container_that_still_sees_the_host [Need::Beyond("crun", "1.8 has no such state in run")],
    cve_2024_21626_no_directory_of_the_host_is_open_inside,
    cve_2019_16884_a_link_of_the_image_does_not_lead_a_volume_into_proc [Need::Beyond("crun", "1.8 follows it inside")],
    cve_2023_28642_a_symlinked_proc_is_refused [Need::Beyond("crun", "1.8 follows it inside")],
    cve_2023_28642_a_symlinked_sys_is_refused [Need::Beyond("crun", "1.8 follows it inside")],
    cve_2026_41579_a_symlinked_dev_makes_nothing_outside
        [Need::Beyond("runc", "1.1.5 follows it to the host"), Need::Beyond("crun", "1.8 follows it to the host")],
    cve_2025_31133_a_replaced_dev_null_masks_nothing_with_a_file
        [Need::Beyond("runc", "1.1.5 binds what /dev/null has become"), Need::Beyond("crun", "1.8 binds what /dev/null has become")],
    cve_2026_88264_a_symlinked_console_makes_nothing_outside [Need::Beyond("crun", "1.8 follows it")],
    cve_2024_45310_a_mount_point_over_a_file_symlink_stays_inside,
    cve_2022_29162_nothing_is_inheritable_unless_asked_for,
    cve_2016_9962_init_is_not_dumpable_before_it_is_the_program
        [Need::Beyond("runc", "1.1.5 relies on the binary's copy"), Need::Beyond("crun", "1.8 relies on the binary's copy")],
    a_directory_exchanged_for_a_link_leads_no_mount_outside [RACE_R, RACE_C],
    cve_2021_30465_a_mount_target_exchanged_for_a_link_stays_inside [RACE_R, RACE_C],
    cve_2019_19921_cve_2023_27561_a_proc_exchanged_for_a_link_is_never_a_fake [RACE_R, RACE_C],
    cve_2019_18837_what_is_made_through_a_link_is_made_inside [Need::Beyond("crun", "1.8 refuses some of it")],
    cve_2021_43784_an_overlong_value_is_no_other_value,
    cve_2022_24769_what_the_caller_may_inherit_is_not_inherited [Need::Program("setpriv")],
    cve_2023_25809_the_cgroup_tree_of_the_host_cannot_be_written_from_a_user_namespace,
    cve_2025_52565_a_console_is_a_pty_whatever_the_image_puts_there [RACE_R, RACE_C],
    cve_2025_52565_a_fake_devpts_gives_no_console [RACE_R, RACE_C],
    cve_2025_52881_a_fake_proc_swallows_no_sysctl,
    cve_2025_52881_a_proc_of_the_image_swallows_no_sysctl,
    cve_2026_61801_an_endless_passwd_is_not_read_for_ever,
    cve_2026_88265_a_replaced_dev_null_is_no_stdin [Need::Beyond("crun", "1.8 opens what is there")],
    every_test_that_security_md_names_exists,
    a_cgroup_path_with_dotdot_stays_in_the_cgroup_tree [Need::Beyond("crun", "1.8 makes the directory outside")],
    a_bundle_below_a_symlink_is_resolved_once,
    the_old_root_is_gone,
    the_containers_proc_shows_only_its_own_processes,
}

const RACE_R: Need = Need::Beyond("runc", "1.1.5 refuses some rounds in its own words");
const RACE_C: Need = Need::Beyond("crun", "1.8 was not made for it");

/// A runtime of the test's own: what is done to it harms nobody, and no other test executes it
/// (a file that is being executed cannot be written anyway).
fn private_runtime(t: &Place) -> Result<PathBuf> {
    let copy = t.path("runtime");
    // By another process: a descriptor of ours, open for writing, would be in the children that other
    // tests make meanwhile, and the copy could not be executed (ETXTBSY).
    let made = std::process::Command::new("cp")
        .arg(&machine().runtime)
        .arg(&copy)
        .status()?;
    assert!(made.success());
    Ok(copy)
}

fn create_with<'p>(
    t: &'p Place,
    runtime: &std::path::Path,
    bundle: &Bundle,
) -> Result<Container<'p>> {
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let call = t.other_runtime(
        runtime,
        ["create", "--bundle", &bundle.dir.display().to_string(), &id],
    );
    Container::from_call(t, id, call)
}

/// An O_PATH descriptor of the waiting init's program, opened again for writing once it is no longer executed.
fn cve_2019_5736_the_runtime_cannot_be_written_through_proc_exe(t: &Place) -> Result<()> {
    let runtime = private_runtime(t)?;
    let before = fs::read(&runtime)?;
    let c = create_with(t, &runtime, &t.bundle().args(&["sleep", "1000"]))?;
    let exe = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(format!("/proc/{}/exe", c.pid))?;
    t.other_runtime(&runtime, ["start", &c.id]).run()?.ok();
    until("its execve", || {
        fs::read_link(format!("/proc/{}/exe", c.pid)).is_ok_and(|p| p.ends_with("busybox"))
    });
    let link = format!("/proc/self/fd/{}", exe.as_raw_fd());
    if let Ok(file) = OpenOptions::new().write(true).open(&link) {
        // Opened: then it must be a sealed copy. (The byte is the one that is there.)
        assert!(
            file.write_at(&before[..1], 0).is_err(),
            "{:?} can be written",
            fs::read_link(&link)
        );
    }
    assert!(fs::read(&runtime)? == before);
    t.other_runtime(&runtime, ["delete", "--force", &c.id])
        .run()?
        .ok();
    Ok(())
}

fn unharmed(t: &Place, bundle: &Bundle) -> Result<()> {
    let runtime = private_runtime(t)?;
    let before = fs::read(&runtime)?;
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    t.other_runtime(
        &runtime,
        ["run", "--bundle", &bundle.dir.display().to_string(), &id],
    )
    .run()?;
    assert!(fs::read(&runtime)? == before);
    t.nothing_is_left();
    Ok(())
}

fn cve_2019_5736_proc_self_exe_as_the_program_changes_nothing(t: &Place) -> Result<()> {
    unharmed(t, &t.bundle().args(&["/proc/self/exe", "--version"]))
}

fn cve_2019_5736_proc_self_exe_as_an_interpreter_changes_nothing(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["/evil"]);
    fs::write(bundle.inside("evil"), "#!/proc/self/exe\n")?;
    fs::set_permissions(
        bundle.inside("evil"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )?;
    unharmed(t, &bundle)
}

fn cve_2019_5736_proc_self_exe_during_exec_changes_nothing(t: &Place) -> Result<()> {
    let runtime = private_runtime(t)?;
    let before = fs::read(&runtime)?;
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let evil = bundle.inside("evil");
    fs::write(&evil, "#!/proc/self/exe\n")?;
    fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let c = create_with(t, &runtime, &bundle)?;
    t.other_runtime(&runtime, ["start", &c.id]).run()?.ok();
    for program in ["/proc/self/exe", "/evil"] {
        // Whatever it becomes: the file it was executed from is opened for writing meanwhile.
        let running = t
            .other_runtime(&runtime, ["exec", &c.id, program])
            .spawn()?;
        let exe = format!("/proc/{}/exe", running.pid());
        for _ in 0..2000 {
            if let Ok(file) = OpenOptions::new().write(true).open(&exe) {
                assert!(
                    file.write_at(&before[..1], 0).is_err(),
                    "{exe} can be written"
                );
            }
        }
        running.wait()?;
        assert!(fs::read(&runtime)? == before);
    }
    c.end()
}

fn cve_2024_21626_no_working_directory_through_a_descriptor_of_exec(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for n in 3..14 {
        let cwd = format!("/proc/self/fd/{n}");
        let out = t.call([
            "exec",
            "--cwd",
            &cwd,
            &c.id,
            "sh",
            "-c",
            "pwd; cat etc/shadow",
        ])?;
        assert_ne!(out.status, 0, "{cwd}: {out:?}");
        assert_eq!(out.stdout, "", "{cwd}");
    }
    c.end()
}

/// No descriptor need leak where the caller's stdin is a directory: that one stays open.
fn cve_2024_21626_no_working_directory_through_stdin(t: &Place) -> Result<()> {
    let outside = t.path("outside");
    fs::create_dir(&outside)?;
    let refused = |call: Call| -> Result<()> {
        let out = call.stdin(File::open(&outside)?).spawn()?.wait()?;
        assert_ne!(out.status, 0, "{out:?}");
        assert_eq!(out.stdout, "");
        Ok(())
    };
    let cwd = "/proc/self/fd/0";
    let bundle = t.bundle().sh("pwd").set("/process/cwd", cwd);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    refused(t.runtime(["run", "--bundle", &dir, &id]))?;
    t.nothing_is_left();
    let c = t.sleeper()?;
    refused(t.runtime(["exec", "--cwd", cwd, &c.id, "sh", "-c", "pwd"]))?;
    c.end()
}

/// Until init has pivoted, its mount namespace begins at the host's root.
fn an_exec_enters_no_container_that_still_sees_the_host(t: &Place) -> Result<()> {
    let secret = t.path("of-the-host");
    fs::write(&secret, "")?;
    let script = format!("test -e {} || echo inside", secret.display());
    let bundle = t.bundle().args(&["sleep", "1000"]);
    for _ in 0..if machine().in_guest { 3 } else { 20 } {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        let running = t.runtime(["run", "--bundle", &dir, &id]).spawn()?;
        until("an exec", || {
            let out = t.call(["exec", &id, "sh", "-c", &script]).expect("exec");
            assert!(out.status != 0 || out.stdout == "inside\n", "{out:?}");
            out.status == 0
        });
        t.call(["delete", "--force", &id])?.ok();
        running.wait()?;
    }
    Ok(())
}

fn cve_2026_30892_user_1_of_exec_is_not_root(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (user, seen) in [("1", "1 0"), ("1:1", "1 1"), ("1000:7", "1000 7")] {
        let out = t.call([
            "exec",
            "--user",
            user,
            &c.id,
            "sh",
            "-c",
            "echo $(id -u) $(id -g)",
        ])?;
        assert_eq!(out.text(), seen, "{user}");
    }
    for wrong in ["1x", "-1", "0x0", "1:", "1:x", "4294967295"] {
        let out = t.call(["exec", "--user", wrong, &c.id, "id", "-u"])?;
        assert_eq!(out.stdout, "", "{wrong}");
        assert_ne!(out.status, 0, "{wrong}");
    }
    c.end()
}

fn cve_2024_21626_no_working_directory_through_a_descriptor(t: &Place) -> Result<()> {
    for n in 3..14 {
        for cwd in [
            format!("/proc/self/fd/{n}"),
            format!("/proc/self/fd/{n}/.."),
        ] {
            let out = t.run(
                &t.bundle()
                    .sh("pwd; cat etc/shadow")
                    .set("/process/cwd", cwd.clone()),
            )?;
            assert_ne!(out.status, 0, "{cwd}: {out:?}");
            assert_eq!(out.stdout, "", "{cwd}");
        }
    }
    t.nothing_is_left();
    Ok(())
}

/// While it waits for `start`, init holds nothing of the caller's, and its program nothing but its streams.
fn cve_2024_21626_no_directory_of_the_host_is_open_inside(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let call = t
        .runtime(["create", "--bundle", &bundle.dir.display().to_string(), &id])
        .fd(File::open("/etc")?, 9)?;
    let c = Container::from_call(t, id, call)?;
    let held = || -> Result<Vec<PathBuf>> {
        let fds = fs::read_dir(format!("/proc/{}/fd", c.pid))?;
        Ok(fds
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .collect())
    };
    let waiting = held()?;
    assert!(
        !waiting.iter().any(|path| path.ends_with("etc")),
        "{waiting:?}"
    );
    c.start()?;
    until("its execve", || {
        fs::read_link(format!("/proc/{}/exe", c.pid)).is_ok_and(|p| p.ends_with("busybox"))
    });
    let running = held()?;
    assert_eq!(running.len(), 3, "{running:?}");
    c.end()
}

fn symlinked(t: &Place, name: &str) -> Result<(Bundle, PathBuf)> {
    let outside = t.path("outside");
    fs::create_dir(&outside)?;
    let bundle = t.bundle().args(&["true"]);
    fs::remove_dir(bundle.inside(name))?;
    symlink(&outside, bundle.inside(name))?;
    fs::create_dir_all(bundle.inside(&outside.display().to_string()))?;
    Ok((bundle, outside))
}

fn cve_2023_28642_a_symlinked_proc_is_refused(t: &Place) -> Result<()> {
    let (bundle, outside) = symlinked(t, "proc")?;
    t.create_fails(
        &bundle,
        &["must be mounted on ordinary directory"]
            .map(|w| if machine().is("runc") { w } else { "/proc" }),
    );
    assert_eq!(fs::read_dir(outside)?.count(), 0);
    Ok(())
}

fn cve_2019_16884_a_link_of_the_image_does_not_lead_a_volume_into_proc(t: &Place) -> Result<()> {
    let volume = t.path("volume");
    fs::create_dir(&volume)?;
    for (link, destination) in [("/proc", "/data"), ("/proc/self", "/data/attr")] {
        let bundle = t
            .bundle()
            .args(&["true"])
            .bind(&volume, destination, &["bind"]);
        let _ = fs::remove_file(bundle.inside("/data"));
        symlink(link, bundle.inside("/data"))?;
        t.create_fails(&bundle, &["cannot be mounted because it is", "proc"]);
    }
    Ok(())
}

fn cve_2023_28642_a_symlinked_sys_is_refused(t: &Place) -> Result<()> {
    let (bundle, outside) = symlinked(t, "sys")?;
    t.create_fails(
        &bundle,
        &["must be mounted on ordinary directory"]
            .map(|w| if machine().is("runc") { w } else { "/sys" }),
    );
    assert_eq!(fs::read_dir(outside)?.count(), 0);
    Ok(())
}

/// With and without a tmpfs over it: device nodes, symlinks and mount points follow it inside, or are refused.
fn cve_2026_41579_a_symlinked_dev_makes_nothing_outside(t: &Place) -> Result<()> {
    let (bundle, outside) = symlinked(t, "dev")?;
    t.run(&bundle)?;
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    let bare = bundle.edit(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"))
    });
    t.run(&bare.set(
        "/linux/devices",
        json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3 }]),
    ))?;
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    t.nothing_is_left();
    Ok(())
}

fn without_dev(bundle: Bundle) -> Bundle {
    bundle.edit(|c| {
        c["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"))
    })
}

/// A masked file is what /dev/null is bound over: it must be the null device and no file of the rootfs's choice.
fn cve_2025_31133_a_replaced_dev_null_masks_nothing_with_a_file(t: &Place) -> Result<()> {
    for kind in ["file", "symlink", "other device"] {
        let bundle = without_dev(t.bundle())
            .sh("cat /proc/uptime")
            .set("/linux/maskedPaths", json!(["/proc/uptime"]));
        fs::write(bundle.inside("etc/chosen"), "chosen")?;
        match kind {
            "file" => fs::write(bundle.inside("dev/null"), "chosen")?,
            "symlink" => symlink("/etc/chosen", bundle.inside("dev/null"))?,
            _ => crate::harness::kernel::mknod_char(&bundle.inside("dev/null"), 1, 5)?,
        }
        let bundle = bundle.sh("head -c 6 /proc/uptime | tr '\\0' 'z'");
        let out = t.run(&bundle)?;
        assert_eq!(out.stdout, "", "{kind}: the mask is something else");
        // In a /dev that a volume brings nothing is made, or refused because of what is there.
        let dev = bundle.inside("dev");
        let out = t.run(&bundle.bind(&dev, "/dev", &["rbind"]))?;
        assert_eq!(
            (out.status, &*out.stdout),
            (0, ""),
            "{kind} of a volume: the mask is something else: {out:?}"
        );
        t.nothing_is_left();
    }
    Ok(())
}

fn cve_2026_88264_a_symlinked_console_makes_nothing_outside(t: &Place) -> Result<()> {
    let target = t.path("outside-console");
    let bundle = without_dev(t.bundle())
        .mount(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts" }));
    let bundle = bundle.args(&["true"]).set("/process/terminal", true);
    symlink(&target, bundle.inside("dev/console"))?;
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let socket = t.path("tty.sock");
    let listener = UnixListener::bind(&socket)?;
    let (socket, dir) = (
        socket.display().to_string(),
        bundle.dir.display().to_string(),
    );
    let out = t.call(["create", "--console-socket", &socket, "--bundle", &dir, &id])?;
    if out.status == 0 {
        crate::harness::kernel::receive_fd(accept(&listener)?.as_fd())?;
    }
    assert!(target.symlink_metadata().is_err(), "{out:?}");
    t.call(["delete", "--force", &id])?.ok();
    t.nothing_is_left();
    Ok(())
}

fn cve_2024_45310_a_mount_point_over_a_file_symlink_stays_inside(t: &Place) -> Result<()> {
    let (source, target) = (t.path("source"), t.path("made-outside"));
    fs::write(&source, "source")?;
    let bundle = t
        .bundle()
        .bind(&source, "/etc/resolv.conf", &["bind"])
        .args(&["cat", "/etc/resolv.conf"]);
    symlink(&target, bundle.inside("etc/resolv.conf"))?;
    assert_eq!(t.run(&bundle)?.text(), "source");
    assert!(!target.exists());
    Ok(())
}

fn cve_2022_29162_nothing_is_inheritable_unless_asked_for(t: &Place) -> Result<()> {
    let seen = t.see(t.bundle())?;
    assert_eq!(seen["caps"]["inheritable"], "0000000000000000");
    assert_eq!(seen["caps"]["ambient"], "0000000000000000");
    assert_eq!(seen["caps"]["bounding"], "0000000020000420");
    Ok(())
}

/// A process that shares the pid namespace must not attach to init while that still holds the host's files: what is
/// not dumpable is looked at by nobody of the same ids without CAP_SYS_PTRACE (ptrace(2)), and its files belong to
/// the host's root, whatever its user namespace.
fn cve_2016_9962_init_is_not_dumpable_before_it_is_the_program(t: &Place) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let c = t.create(&t.bundle().args(&["sleep", "1000"]))?;
    let is_seen = |pid: i32| {
        let root = format!("/proc/{pid}/root");
        std::process::Command::new("setpriv")
            .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
            .args(["readlink", &root])
            .output()
            .map(|output| output.status.success())
    };
    assert!(!is_seen(c.pid)?, "it may be traced by one of the same ids");
    c.start()?;
    until("its execve", || {
        fs::read_link(format!("/proc/{}/exe", c.pid)).is_ok_and(|p| p.ends_with("busybox"))
    });
    assert!(is_seen(c.pid)?, "the program is as every other");
    c.end()?;

    let c = t.create(&t.bundle().user_namespace()?.args(&["sleep", "1000"]))?;
    let owner = fs::metadata(format!("/proc/{}/environ", c.pid))?.uid();
    assert_eq!(
        owner, 0,
        "owned by the container's user: it may be traced from inside"
    );
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

/// Exchanges two names as fast as it can while `attempt` is made again and again.
fn while_exchanging(
    one: &Path,
    other: &Path,
    mut attempt: impl FnMut(usize) -> Result<()>,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                kernel::exchange(one, other).expect("exchange");
                rounds += 1;
            }
            rounds
        });
        let rounds = if machine().in_guest { 8 } else { 60 };
        let done = catch_unwind(AssertUnwindSafe(|| (0..rounds).try_for_each(&mut attempt)));
        stop.store(true, Ordering::Relaxed);
        let exchanges = attacker.join().expect("the attacker");
        assert!(exchanges > rounds, "the attacker was too slow: {exchanges}");
        done.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Where the mounts of a waiting container are, as it sees them.
fn mount_points(pid: i32) -> Result<Vec<String>> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(String::from).collect())
}

/// A mount on a path of which `way` is exchanged for a link that leads out of the root file system:
/// the volume must be in the container each time, or nothing is made. (What is mounted outside
/// is out of sight after pivot_root, and missing.)
fn volume_stays_inside(t: &Place, way: &str, below: &str) -> Result<()> {
    let (volume, outside) = (t.path("volume"), t.path("outside"));
    fs::create_dir_all(outside.join(below))?;
    fs::create_dir(&volume)?;
    let destination = Path::new("/").join(way).join(below);
    let bundle =
        t.bundle()
            .args(&["true"])
            .bind(&volume, &destination.display().to_string(), &["bind"]);
    fs::create_dir_all(bundle.inside(way).join(below))?;
    symlink(&outside, bundle.inside("link"))?;
    while_exchanging(&bundle.inside(way), &bundle.inside("link"), |_| {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        let out = t.call(["create", "--bundle", &dir, &id])?;
        if out.status != 0 {
            return Ok(());
        }
        let state: serde_json::Value = serde_json::from_str(&t.call(["state", &id])?.text())?;
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", state["pid"]))?;
        // The fourth field is what part of its file system a mount shows.
        let is_volume = |line: &str| {
            line.split(' ')
                .nth(3)
                .is_some_and(|r| r.ends_with("/volume"))
        };
        assert!(
            table.lines().any(is_volume),
            "the volume is nowhere in the container:\n{table}"
        );
        t.call(["delete", "--force", &id])?.ok();
        Ok(())
    })?;
    let made = fs::read_dir(&outside)?.count();
    assert_eq!(made, usize::from(!below.is_empty()));
    t.nothing_is_left();
    Ok(())
}

fn cve_2021_30465_a_mount_target_exchanged_for_a_link_stays_inside(t: &Place) -> Result<()> {
    volume_stays_inside(t, "target", "")
}

/// CVE-2021-30465 again, but for a component on the way and not the last one.
fn a_directory_exchanged_for_a_link_leads_no_mount_outside(t: &Place) -> Result<()> {
    volume_stays_inside(t, "way", "there")
}

/// The image's /proc is exchanged for a link to a directory that looks like one. A container that is
/// made has the true one, wherever that has got to, and in it the file that is to be masked is.
fn cve_2019_19921_cve_2023_27561_a_proc_exchanged_for_a_link_is_never_a_fake(
    t: &Place,
) -> Result<()> {
    let bundle = t
        .bundle()
        .set("/linux/maskedPaths", json!(["/proc/uptime"]))
        .set("/linux/readonlyPaths", json!(["/proc/sys"]))
        .args(&["true"]);
    fs::create_dir_all(bundle.inside("fake/sys"))?;
    fs::write(bundle.inside("fake/uptime"), "fake")?;
    symlink("/fake", bundle.inside("link"))?;
    while_exchanging(&bundle.inside("proc"), &bundle.inside("link"), |_| {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        if t.call(["create", "--bundle", &dir, &id])?.status != 0 {
            return Ok(());
        }
        let state: serde_json::Value = serde_json::from_str(&t.call(["state", &id])?.text())?;
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", state["pid"]))?;
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split(' ').collect()).collect();
        let proc = lines.iter().find(|l| l[3] == "/" && l.contains(&"proc"));
        let proc = proc.unwrap_or_else(|| panic!("no proc file system:\n{table}"));
        for (what, root) in [("mask", "/null"), ("read-only", "/sys")] {
            let on_it = lines.iter().any(|l| l[1] == proc[0] && l[3] == root);
            assert!(on_it, "{what} is not on the true proc:\n{table}");
        }
        t.call(["delete", "--force", &id])?.ok();
        Ok(())
    })?;
    t.nothing_is_left();
    Ok(())
}

/// Directories, devices, files for binds, working directory: all of their ways lead through a link
/// that names a directory of the host.
fn cve_2019_18837_what_is_made_through_a_link_is_made_inside(t: &Place) -> Result<()> {
    let (outside, file) = (t.path("outside"), t.path("file"));
    fs::create_dir(&outside)?;
    fs::write(&file, "file")?;
    let bundle = t
        .bundle()
        .args(&["true"])
        .set("/process/cwd", "/link/cwd")
        .bind(&outside, "/link/directory", &["bind"])
        .bind(&file, "/link/file", &["bind"])
        .mount(json!({ "destination": "/link/new", "type": "tmpfs", "source": "tmpfs" }))
        .mount(json!({ "destination": "/up/higher/new", "type": "tmpfs", "source": "tmpfs" }))
        .set(
            "/linux/devices",
            json!([{ "path": "/link/device", "type": "c", "major": 1, "minor": 3 }]),
        )
        .push("/linux/maskedPaths", "/link/masked")
        .push("/linux/readonlyPaths", "/link/protected");
    symlink(&outside, bundle.inside("link"))?;
    // Higher than the root of the container is.
    let up = format!("{}{}", "../".repeat(21), outside.display());
    symlink(up, bundle.inside("up"))?;
    let at = bundle.inside(&outside.display().to_string());
    fs::create_dir_all(&at)?;
    t.run(&bundle)?.ok();
    assert_eq!(fs::read_dir(&outside)?.count(), 0);
    let mut made: Vec<_> = fs::read_dir(&at)?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    made.sort();
    assert_eq!(
        made,
        ["cwd", "device", "directory", "file", "higher", "new"]
    );
    Ok(())
}

/// A length of more than 16 bits, cut, made one value into several: here a path that says at its
/// end that it is another namespace.
fn cve_2021_43784_an_overlong_value_is_no_other_value(t: &Place) -> Result<()> {
    let path = format!("/{},user:/proc/1/ns/user", "x".repeat(65_536));
    let bundle = t.bundle().join("network", Path::new(&path)).args(&["true"]);
    let out = t.create_fails(&bundle, &[]);
    assert!(out.stderr.len() < 200_000);
    let many = vec![json!({ "containerID": 0, "hostID": 100_000, "size": 1 }); 6000];
    let bundle = t
        .bundle()
        .user_namespace()?
        .args(&["true"])
        .set("/linux/uidMappings", json!(many));
    t.create_fails(&bundle, &[]);
    Ok(())
}

fn cve_2022_24769_what_the_caller_may_inherit_is_not_inherited(t: &Place) -> Result<()> {
    let caps = "+chown,+dac_override,+fowner,+kill,+setuid,+setgid,+mknod,+sys_chroot";
    let seen = |bundle: Bundle, options: &[&str]| -> Result<serde_json::Value> {
        let (id, bundle) = (t.fresh_id(), bundle.args(&["/probe"]));
        bundle.write(t, &id)?;
        let runtime = machine().runtime.display().to_string();
        let (root, dir) = (
            t.root.display().to_string(),
            bundle.dir.display().to_string(),
        );
        let run = [&runtime, "--root", &root, "run", "--bundle", &dir, &id];
        let out = t.host("setpriv", options.iter().copied().chain(run))?;
        Ok(serde_json::from_str::<serde_json::Value>(&out.text())?["caps"].take())
    };
    let of_caller = seen(t.bundle(), &["--inh-caps", caps])?;
    assert_eq!(of_caller["inheritable"], "0000000000000000");
    assert_eq!(of_caller["ambient"], "0000000000000000");
    // What is inheritable may stay ambient (capabilities(7)): that is asked for apart.
    let asked = ["bounding", "effective", "permitted", "inheritable"]
        .iter()
        .fold(t.bundle(), |bundle, set| {
            bundle.set(
                &format!("/process/capabilities/{set}"),
                json!(["CAP_CHOWN"]),
            )
        });
    let of_caller = seen(asked, &["--inh-caps", caps, "--ambient-caps", "+chown"])?;
    assert_eq!(of_caller["inheritable"], "0000000000000001");
    assert_eq!(of_caller["ambient"], "0000000000000000");
    Ok(())
}

/// Without a cgroup namespace, with the cgroup file system writable, and with the host's /sys bound:
/// what a container in a user namespace sees is not its to change.
fn cve_2023_25809_the_cgroup_tree_of_the_host_cannot_be_written_from_a_user_namespace(
    t: &Place,
) -> Result<()> {
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*/; do \
        mkdir $d/escaped 2>/dev/null && echo made $d; \
        (echo 0 > $d/cgroup.procs) 2>/dev/null && echo moved $d; done; echo tried";
    let writable = |config: &mut serde_json::Value| {
        for mount in config["mounts"].as_array_mut().expect("mounts") {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
            }
        }
    };
    let fresh = || t.bundle().user_namespace().map(|b| b.sh(script));
    let bound = json!({ "destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"] });
    for bundle in [
        fresh()?.without_namespace("cgroup"),
        fresh()?.without_namespace("cgroup").edit(writable),
        fresh()?.without_namespace("cgroup").edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| {
                !m["destination"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with("/sys")
            });
            mounts.push(bound.clone());
        }),
    ] {
        let out = t.run(&bundle)?;
        if out.status == 0 {
            assert_eq!(out.stdout, "tried\n");
        }
    }
    t.nothing_is_left();
    Ok(())
}

/// A bundle whose /dev is the image's own, with a terminal.
fn with_terminal(t: &Place) -> Result<(Bundle, UnixListener, String)> {
    let bundle = without_dev(t.bundle())
        .mount(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts" }))
        .args(&["sleep", "1000"])
        .set("/process/terminal", true);
    let socket = t.path("tty.sock");
    let listener = UnixListener::bind(&socket)?;
    Ok((bundle, listener, socket.display().to_string()))
}

/// A major number of 136 and up is a pty's.
fn is_pty(path: &str) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    fs::metadata(path).is_ok_and(|m| {
        m.file_type().is_char_device() && (136..144).contains(&libc::major(m.rdev()))
    })
}

fn cve_2025_52565_a_console_is_a_pty_whatever_the_image_puts_there(t: &Place) -> Result<()> {
    let (bundle, ..) = with_terminal(t)?;
    let victim = t.path("victim");
    fs::write(&victim, "untouched")?;
    let (console, link) = (bundle.inside("dev/console"), bundle.inside("dev/link"));
    fs::write(&console, "")?;
    symlink(&victim, &link)?;
    let inside = bundle.inside(&victim.display().to_string());
    fs::create_dir_all(inside.parent().expect("a parent"))?;
    fs::write(&inside, "untouched")?;
    while_exchanging(&console, &link, |_| {
        let id = t.fresh_id();
        // One a round: a create that fails has connected too.
        let socket = t.path(&id);
        let listener = UnixListener::bind(&socket)?;
        let socket = socket.display().to_string();
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        let out = t.call(["create", "--console-socket", &socket, "--bundle", &dir, &id])?;
        if out.status != 0 {
            return Ok(());
        }
        kernel::receive_fd(accept(&listener)?.as_fd())?;
        let state: serde_json::Value = serde_json::from_str(&t.call(["state", &id])?.text())?;
        let pid = state["pid"].as_i64().unwrap_or(0) as i32;
        for point in mount_points(pid)? {
            // The name may be the other one by now: what counts is that nothing else was covered.
            if is_pty(&format!("/proc/{pid}/root{point}")) {
                assert!(
                    ["/dev/console", "/dev/link"].contains(&point.as_str()),
                    "{point}"
                );
            }
        }
        t.call(["delete", "--force", &id])?.ok();
        Ok(())
    })?;
    assert_eq!(fs::read(&victim)?, b"untouched");
    t.nothing_is_left();
    Ok(())
}

/// /dev/pts is a directory of the image's, with a true multiplexer in it and links in place of the
/// slaves.
fn cve_2025_52565_a_fake_devpts_gives_no_console(t: &Place) -> Result<()> {
    let (bundle, listener, socket) = with_terminal(t)?;
    let bundle = bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|m| m["type"] != "devpts");
    });
    fs::create_dir_all(bundle.inside("dev/pts"))?;
    kernel::mknod_char(&bundle.inside("dev/pts/ptmx"), 5, 2)?;
    for n in 0..100 {
        symlink(
            "/proc/sysrq-trigger",
            bundle.inside(&format!("dev/pts/{n}")),
        )?;
    }
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let dir = bundle.dir.display().to_string();
    let out = t.call(["create", "--console-socket", &socket, "--bundle", &dir, &id])?;
    if out.status == 0 {
        kernel::receive_fd(accept(&listener)?.as_fd())?;
        let state: serde_json::Value = serde_json::from_str(&t.call(["state", &id])?.text())?;
        assert!(is_pty(&format!("/proc/{}/root/dev/console", state["pid"])));
        t.call(["delete", "--force", &id])?.ok();
    }
    t.nothing_is_left();
    // What is no multiplexer is asked for nothing: an ioctl means something else to each device.
    let ptmx = bundle.inside("dev/pts/ptmx");
    fs::remove_file(&ptmx)?;
    kernel::mknod_char(&ptmx, 1, 3)?;
    let out = t.call(["create", "--console-socket", &socket, "--bundle", &dir, &id])?;
    assert_ne!(out.status, 0, "{out:?}");
    if machine().is("sc-runtime") {
        assert!(out.stderr.contains("not a pty multiplexer"), "{out:?}");
    }
    t.nothing_is_left();
    Ok(())
}

/// A directory of the host's, or a tmpfs, in the place of /proc: the value would go there.
fn cve_2025_52881_a_fake_proc_swallows_no_sysctl(t: &Place) -> Result<()> {
    let fake = t.path("fake");
    fs::create_dir_all(fake.join("sys/net/ipv4"))?;
    fs::write(fake.join("sys/net/ipv4/ip_forward"), "fake")?;
    let source = fake.display().to_string();
    for mount in [
        json!({ "destination": "/proc", "type": "bind", "source": source, "options": ["bind"] }),
        json!({ "destination": "/proc", "type": "proc", "source": source, "options": ["bind"] }),
        json!({ "destination": "/proc", "type": "tmpfs", "source": "proc" }),
        json!({ "destination": "/proc/sys", "type": "bind", "source": fake.join("sys"), "options": ["bind"] }),
        json!({ "destination": "/data/../proc/sys/net", "type": "tmpfs", "source": "tmpfs" }),
    ] {
        let bundle = t
            .bundle()
            .args(&["true"])
            .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
            .mount(mount);
        t.create_fails(&bundle, &["cannot be mounted because it is"]);
    }
    assert_eq!(fs::read(fake.join("sys/net/ipv4/ip_forward"))?, b"fake");
    Ok(())
}

/// No /proc is mounted at all, and the image brings files of those names, or links.
fn cve_2025_52881_a_proc_of_the_image_swallows_no_sysctl(t: &Place) -> Result<()> {
    let bundle = t
        .bundle()
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|m| m["destination"] != "/proc");
        })
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .args(&["sleep", "1000"]);
    let victim = t.path("victim");
    fs::write(&victim, "untouched")?;
    fs::create_dir_all(bundle.inside("proc/sys/net/ipv4"))?;
    symlink(&victim, bundle.inside("proc/sys/net/ipv4/ip_forward"))?;
    let c = t.create(&bundle)?;
    assert_eq!(fs::read(&victim)?, b"untouched");
    // What the kernel says of that network namespace.
    let net = format!("--net=/proc/{}/ns/net", c.pid);
    if crate::harness::machine::program("nsenter").is_some() {
        let out = t.host("nsenter", [&net, "cat", "/proc/sys/net/ipv4/ip_forward"])?;
        assert_eq!(out.text(), "1");
    }
    t.call(["delete", "--force", &c.id])?.ok();
    Ok(())
}

/// A line without an end, a pipe, a device: none of them may hold the start up, or fill the memory.
fn cve_2026_61801_an_endless_passwd_is_not_read_for_ever(t: &Place) -> Result<()> {
    for kind in ["sparse", "pipe", "device"] {
        let bundle = t.bundle().sh("echo $HOME");
        let passwd = bundle.inside("etc/passwd");
        fs::remove_file(&passwd)?;
        match kind {
            "sparse" => File::create(&passwd)?.set_len(1 << 40)?,
            "pipe" => kernel::mkfifo(&passwd)?,
            _ => kernel::mknod_char(&passwd, 1, 5)?,
        }
        assert_eq!(t.run(&bundle)?.text(), "/", "{kind}");
    }
    Ok(())
}

/// stdin is the host's /dev/null: it becomes the container's only if that is the same device, and no
/// file is given to the container's user on the way.
fn cve_2026_88265_a_replaced_dev_null_is_no_stdin(t: &Place) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let victim = t.path("victim");
    fs::write(&victim, "untouched")?;
    let bundle = without_dev(t.bundle())
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .sh("stat -L -c %t:%T /proc/self/fd/0");
    symlink(&victim, bundle.inside("dev/null"))?;
    let inside = bundle.inside(&victim.display().to_string());
    fs::create_dir_all(inside.parent().expect("a parent"))?;
    fs::write(&inside, "chosen")?;
    let out = t.run(&bundle)?;
    if out.status == 0 {
        assert_eq!(out.stdout, "1:3\n");
    }
    // In a /dev that a volume brings nothing is refused because of what is there.
    fs::remove_file(bundle.inside("dev/null"))?;
    fs::write(bundle.inside("dev/null"), "chosen")?;
    let dev = bundle.inside("dev");
    let bundle = bundle.bind(&dev, "/dev", &["rbind"]);
    assert_eq!(t.run(&bundle)?.text(), "1:3");
    assert_eq!(
        (fs::metadata(&victim)?.uid(), fs::metadata(&inside)?.uid()),
        (0, 0)
    );
    assert_eq!(fs::read(&victim)?, b"untouched");
    Ok(())
}

/// SECURITY.md promises each of them by its name.
fn every_test_that_security_md_names_exists(_: &Place) -> Result<()> {
    let text = include_str!("../SECURITY.md");
    let promised = text.split('`').skip(1).step_by(2).filter(|name| {
        name.contains("::")
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    });
    let mut count = 0;
    for name in promised {
        assert!(
            crate::has_test(name),
            "SECURITY.md names {name}, which is no test"
        );
        count += 1;
    }
    assert!(count > 20, "only {count} tests are named");
    Ok(())
}

fn a_cgroup_path_with_dotdot_stays_in_the_cgroup_tree(t: &Place) -> Result<()> {
    let outside = t.path("outside");
    fs::create_dir(&outside)?;
    let id = t.fresh_id();
    let bundle = t.bundle().args(&["true"]).set(
        "/linux/cgroupsPath",
        format!(
            "{}/{id}/../../../../../../..{}/x",
            t.cgroup,
            outside.display()
        ),
    );
    bundle.write(t, &id)?;
    let out = t.call(["run", "--bundle", &bundle.dir.display().to_string(), &id])?;
    assert_eq!(fs::read_dir(&outside)?.count(), 0, "{out:?}");
    // A runtime that takes the words literally may have made the same path inside the tree.
    let top = format!("/sys/fs/cgroup/{}", outside.display());
    if std::path::Path::new(&top).exists() {
        let first = t
            .dir
            .components()
            .nth(1)
            .map(|c| c.as_os_str().to_owned())
            .unwrap_or_default();
        crate::harness::place::remove_cgroups(&std::path::Path::new("/sys/fs/cgroup").join(first));
    }
    Ok(())
}

fn a_bundle_below_a_symlink_is_resolved_once(t: &Place) -> Result<()> {
    let bundle = t.bundle().sh("test -x /probe && echo ok");
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    symlink(&bundle.dir, t.path("link"))?;
    assert_eq!(
        t.call([
            "run",
            "--bundle",
            &t.path("link").display().to_string(),
            &id
        ])?
        .text(),
        "ok"
    );
    Ok(())
}

fn the_old_root_is_gone(t: &Place) -> Result<()> {
    let bundle = t.bundle().caps(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
    let bundle = bundle.sh("umount /proc; umount -l /; cd ..; cd ../../..; ls -d etc/passwd; cat etc/shadow; umount / 2>/dev/null; ls / | tr '\\n' ' '");
    let out = t.run(&bundle)?;
    assert!(
        !out.stdout.contains("home") && !out.stdout.contains("boot"),
        "{out:?}"
    );
    Ok(())
}

fn the_containers_proc_shows_only_its_own_processes(t: &Place) -> Result<()> {
    assert_eq!(
        t.run(&t.bundle().sh("echo /proc/[0-9]*"))?.text(),
        "/proc/1"
    );
    Ok(())
}
