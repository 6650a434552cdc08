//! Known ways out of a container, one test each, named by the CVE where there is one.

use crate::harness::place::accept;
use crate::harness::{Bundle, Container, Need, Place, Result, json, machine};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

tests! {
    cve_2019_5736_the_runtime_cannot_be_written_through_proc_exe,
    cve_2019_5736_proc_self_exe_as_the_program_changes_nothing,
    cve_2019_5736_proc_self_exe_as_an_interpreter_changes_nothing,
    cve_2024_21626_no_working_directory_through_a_descriptor,
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
    a_cgroup_path_with_dotdot_stays_in_the_cgroup_tree [Need::Beyond("crun", "1.8 makes the directory outside")],
    a_bundle_below_a_symlink_is_resolved_once,
    the_old_root_is_gone,
    the_containers_proc_shows_only_its_own_processes,
}

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
    crate::harness::place::until("its execve", || {
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

/// While it waits for `start`, init holds nothing but its own files and the fifo.
fn cve_2024_21626_no_directory_of_the_host_is_open_inside(t: &Place) -> Result<()> {
    let bundle = t.bundle().args(&["sleep", "1000"]);
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let call = t
        .runtime(["create", "--bundle", &bundle.dir.display().to_string(), &id])
        .fd(File::open("/etc")?, 9)?;
    let c = Container::from_call(t, id, call)?;
    c.start()?;
    crate::harness::place::until("its execve", || {
        fs::read_link(format!("/proc/{}/exe", c.pid)).is_ok_and(|p| p.ends_with("busybox"))
    });
    let fds: Vec<_> = fs::read_dir(format!("/proc/{}/fd", c.pid))?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(fds.len(), 3, "{fds:?}");
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
        let out = t.run(&bundle.sh("head -c 6 /proc/uptime | tr '\\0' 'z'"))?;
        assert_eq!(out.stdout, "", "{kind}: the mask is something else");
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

/// A process that shares the pid namespace must not attach to init while that still holds the host's files:
/// the files of a process that is not dumpable belong to the host's root, whatever its user namespace.
fn cve_2016_9962_init_is_not_dumpable_before_it_is_the_program(t: &Place) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let c = t.create(&t.bundle().user_namespace()?.args(&["sleep", "1000"]))?;
    let owner = fs::metadata(format!("/proc/{}/environ", c.pid))?.uid();
    assert_eq!(
        owner, 0,
        "owned by the container's user: it may be traced from inside"
    );
    t.call(["delete", "--force", &c.id])?.ok();
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
