//! `checkpoint` and `restore`, with the real CRIU. The containers print into pipes, as those of engines do: a
//! file of the host is none that CRIU could open again.

use crate::harness::machine::CGROUPS;
use crate::harness::place::{accept, until};
use crate::harness::{Bundle, Container, Context, Need, Outcome, Place, Result, json, kernel};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const CRIU: Need = Need::Criu("");
const RUNC: Need = Need::Beyond("runc", "its own words");
/// crun 1.8 in Debian is built without it.
const CRUN: Need = Need::Beyond("crun", "is built without CRIU");

tests! {
    a_container_goes_on_where_it_was [CRIU, CRUN],
    what_is_in_its_tmpfs_comes_back [CRIU, CRUN],
    binds_are_the_hosts_of_that_moment [CRIU, CRUN],
    one_that_is_left_running_runs_on [CRIU, CRUN],
    it_may_have_another_name_and_cgroup [CRIU, CRUN, Need::Beyond("runc", "1.1.5 leaves it in the old one")],
    one_with_a_user_namespace_comes_back [CRIU, CRUN],
    its_cgroup_is_the_root_of_what_it_sees_again [CRIU, CRUN],
    limits_are_in_force_again [CRIU, CRUN, Need::Controller("memory"), Need::Controller("pids")],
    a_scope_of_systemd_is_made_again [CRIU, CRUN, Need::Systemd],
    one_that_was_paused_can_be_written_down [CRIU, CRUN],
    hooks_are_run [CRIU, CRUN],
    in_the_foreground_its_status_is_the_answer [CRIU, CRUN],
    a_terminal_is_handed_out_again [CRIU, CRUN],
    a_network_that_was_joined_is_joined_again [CRIU, CRUN],
    mount_points_are_made_in_a_new_rootfs [CRIU, CRUN],
    memory_may_be_written_before [Need::Criu("mem_dirty_track"), CRUN],
    a_dump_that_fails_leaves_it_running [CRIU, RUNC, CRUN],
    a_restore_that_fails_leaves_nothing [CRIU, CRUN, Need::Beyond("runc", "1.1.5 leaves the cgroup")],
    a_name_that_is_taken_is_refused [CRIU, CRUN],
    a_killed_restore_is_deleted [CRIU, CRUN, Need::Beyond("runc", "1.1.5 leaves the cgroup and a mount on the host")],
    cve_2026_115520_a_destination_that_has_become_a_link_names_no_other_mount [CRIU, RUNC, CRUN],
    what_does_not_run_is_refused [CRUN],
    without_criu_it_is_said_what_to_install [RUNC, CRUN],
    what_is_typed_wrong_is_said [RUNC, CRUN],
}

/// Counts in its memory, aloud.
fn counter(t: &Place) -> Bundle {
    t.bundle()
        .sh("i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
}

fn last_number(text: &str) -> u32 {
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole
        .lines()
        .last()
        .and_then(|line| line.parse().ok())
        .unwrap_or(0)
}

fn first_number(text: &str) -> u32 {
    text.lines()
        .next()
        .and_then(|line| line.parse().ok())
        .unwrap_or(0)
}

/// A bundle of which a container was made, what that says, and the images that it goes to.
struct Story<'t> {
    t: &'t Place,
    bundle: Bundle,
    images: PathBuf,
    c: Container<'t>,
    said: PathBuf,
}

impl<'t> Story<'t> {
    fn of(t: &'t Place, bundle: Bundle, options: &[&str]) -> Result<Story<'t>> {
        let id = t.fresh_id();
        bundle.write(t, &id)?;
        let dir = bundle.dir.display().to_string();
        let args = ["run", "--detach", "--bundle", &dir, &id];
        let (mut ours, theirs) = nix::unistd::pipe().map(|(r, w)| (File::from(r), w))?;
        let call = t.runtime(options.iter().chain(&args));
        let call = call.fd(theirs.try_clone()?, 1)?.fd(theirs, 2)?;
        let said = t.path(&format!("said-{}", t.next_number()));
        let mut file = File::create(&said)?;
        // Until the container has ended.
        std::thread::spawn(move || std::io::copy(&mut ours, &mut file));
        Ok(Story {
            t,
            bundle,
            images: t.path(&format!("images-{}", t.next_number())),
            c: Container::from_call(t, id, call)?,
            said,
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Once it has said something.
    fn counting(t: &'t Place, bundle: Bundle) -> Result<Story<'t>> {
        let story = Story::of(t, bundle, &[])?;
        story.speaks();
        Ok(story)
    }

    fn speaks(&self) {
        until("the container speaks", || last_number(&self.said()) > 1);
    }

    fn checkpoint(&self, options: &[&str]) -> Result<Outcome> {
        let images = self.images.display().to_string();
        let args = ["checkpoint", "--image-path", &images];
        self.t
            .call(args.iter().chain(options).chain([&self.c.id.as_str()]))
    }

    /// The words of a restore of `id`.
    fn words(&self, options: &[&str], id: &str) -> Vec<String> {
        let dir = self.bundle.dir.display().to_string();
        let images = self.images.display().to_string();
        let args = ["restore", "--image-path", &images, "--bundle", &dir];
        let all = args.iter().chain(options).chain([&id]);
        all.map(|word| word.to_string()).collect()
    }

    fn restore(&self) -> Result<Container<'t>> {
        self.restore_as(&self.c.id)
    }

    fn restore_as(&self, id: &str) -> Result<Container<'t>> {
        let call = self.t.runtime(self.words(&["--detach"], id));
        Container::from_call(self.t, id.to_owned(), call)
    }
}

fn a_container_goes_on_where_it_was(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    story.checkpoint(&[])?.ok();
    story.c.ended()?;
    story.c.call("state")?.fails(&["container does not exist"]);
    t.nothing_is_left();
    let before = last_number(&story.said());

    let pid_file = t.path("pid");
    let file = pid_file.display().to_string();
    let words = story.words(&["--detach", "--pid-file", &file], &story.c.id);
    let c = Container::from_call(t, story.c.id.clone(), t.runtime(words))?;
    assert_eq!(fs::read_to_string(pid_file)?, c.pid.to_string());
    until("it goes on", || last_number(&c.output()) > before + 2);
    assert_eq!(first_number(&c.output()), before + 1);
    assert_eq!(c.status()?, "running");
    let exec = t.call(["exec", &c.id, "hostname"])?.text();
    assert_eq!(
        exec,
        t.call(["exec", &c.id, "cat", "/proc/sys/kernel/hostname"])?
            .text()
    );
    c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn what_is_in_its_tmpfs_comes_back(t: &Place) -> Result<()> {
    let tmpfs = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" });
    let bundle = counter(t).mount(tmpfs);
    let story = Story::counting(t, bundle)?;
    t.call([
        "exec",
        &story.c.id,
        "sh",
        "-c",
        "umask 077; echo kept > /tmp/a; ln -s a /tmp/b",
    ])?
    .ok();
    story.checkpoint(&[])?.ok();
    assert!(!story.bundle.inside("tmp/a").exists());
    let c = story.restore()?;
    let seen = t.call(["exec", &c.id, "sh", "-c", "cat /tmp/b; stat -c %a /tmp/a"])?;
    assert_eq!(seen.text(), "kept\n600");
    c.end()
}

fn binds_are_the_hosts_of_that_moment(t: &Place) -> Result<()> {
    let (data, file) = (t.path("data"), t.path("file"));
    fs::create_dir(&data)?;
    fs::write(data.join("a"), "before\n")?;
    fs::write(&file, "a file\n")?;
    let bundle = counter(t)
        .bind(&data, "/data", &["rbind", "ro"])
        .bind(&data, "/open", &["bind"])
        .bind(&file, "/etc/file", &["bind"]);
    let mut story = Story::counting(t, bundle)?;
    story.checkpoint(&[])?.ok();
    fs::write(data.join("a"), "after\n")?;
    // Another file of the host, by the same name inside.
    let other = t.path("other");
    fs::write(&other, "another file\n")?;
    let mounts = story.bundle.config["mounts"]
        .as_array_mut()
        .context("a list")?;
    mounts.last_mut().context("a mount")?["source"] = json!(other);
    story.bundle.write(t, &story.c.id)?;
    let c = story.restore()?;
    let script = "cat /data/a /open/a /etc/file; echo new > /open/b; echo no > /data/c; echo $?";
    let seen = t.call(["exec", &c.id, "sh", "-c", script])?;
    assert_eq!(seen.text(), "after\nafter\nanother file\n1");
    assert_eq!(fs::read_to_string(data.join("b"))?, "new\n");
    c.end()
}

fn one_that_is_left_running_runs_on(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    story.checkpoint(&["--leave-running"])?.ok();
    let before = last_number(&story.said());
    assert_eq!(story.c.status()?, "running");
    until("it runs on", || last_number(&story.said()) > before);
    story.c.end()?;
    // And is there as it was.
    let c = story.restore()?;
    until("it goes on", || last_number(&c.output()) > 0);
    assert!(first_number(&c.output()) <= before + 1, "{}", c.output());
    c.end()
}

fn it_may_have_another_name_and_cgroup(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    story.checkpoint(&["--leave-running"])?.ok();
    let twin = t.fresh_id();
    story.bundle.write(t, &twin)?;
    let c = story.restore_as(&twin)?;
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid))?;
    assert!(cgroup.contains(&format!("/{twin}\n")), "{cgroup}");
    c.end()?;
    assert_eq!(story.c.status()?, "running");
    story.c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn one_with_a_user_namespace_comes_back(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t).user_namespace()?)?;
    let script = "cat /proc/self/uid_map; stat -c '%t:%T %u' /dev/null /dev/zero; echo x > /dev/null; head -c 1 /proc/keys | wc -c; head -n 1 /sys/fs/cgroup/cgroup.procs";
    let seen = |c: &Container| {
        t.call(["exec", &c.id, "sh", "-c", script])
            .map(Outcome::text)
    };
    let before = seen(&story.c)?;
    story.checkpoint(&[])?.ok();
    let c = story.restore()?;
    assert_eq!(seen(&c)?, before);
    c.end()
}

/// Else it would see, and be told of, the host's.
fn its_cgroup_is_the_root_of_what_it_sees_again(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    let script = "sed -n s/^0:://p /proc/1/cgroup; head -n 1 /sys/fs/cgroup/cgroup.procs";
    let seen = |c: &Container| {
        t.call(["exec", &c.id, "sh", "-c", script])
            .map(Outcome::text)
    };
    assert_eq!(seen(&story.c)?, "/\n1");
    story.checkpoint(&[])?.ok();
    let c = story.restore()?;
    assert_eq!(seen(&c)?, "/\n1");
    c.end()
}

fn limits_are_in_force_again(t: &Place) -> Result<()> {
    let bundle = counter(t)
        .set("/linux/resources/memory", json!({ "limit": 64 << 20 }))
        .set("/linux/resources/pids", json!({ "limit": 77 }));
    let story = Story::counting(t, bundle)?;
    story.checkpoint(&[])?.ok();
    let c = story.restore()?;
    assert_eq!(c.cgroup_file("memory.max")?, (64 << 20).to_string());
    assert_eq!(c.cgroup_file("pids.max")?, "77");
    let procs = c.cgroup_file("cgroup.procs")?;
    assert!(procs.lines().any(|pid| pid == c.pid.to_string()), "{procs}");
    c.end()
}

fn a_scope_of_systemd_is_made_again(t: &Place) -> Result<()> {
    let bundle = counter(t).set("/linux/cgroupsPath", json!(null));
    let story = Story::of(t, bundle, &["--systemd-cgroup"])?;
    story.speaks();
    story.checkpoint(&[])?.ok();
    let id = &story.c.id;
    let words = ["--systemd-cgroup".to_owned()].into_iter();
    let call = t.runtime(words.chain(story.words(&["--detach"], id)));
    let c = Container::from_call(t, id.clone(), call)?;
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", c.pid))?;
    assert!(cgroup.contains(&format!("-{id}.scope")), "{cgroup}");
    let unit = cgroup.trim_end().rsplit('/').next().context("a unit")?;
    let shown = t.host("systemctl", ["is-active", unit])?;
    assert_eq!(shown.stdout.trim(), "active");
    c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn one_that_was_paused_can_be_written_down(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    story.c.call("pause")?.ok();
    let before = last_number(&story.said());
    story.checkpoint(&[])?.ok();
    let c = story.restore()?;
    // It is the processes that were written down, not that someone held them.
    until("it goes on", || last_number(&c.output()) > before);
    c.end()
}

fn hooks_are_run(t: &Place) -> Result<()> {
    let file = t.path("hooks");
    let mut bundle = counter(t);
    for kind in ["prestart", "createRuntime", "poststop"] {
        bundle = bundle.hook(kind, kind, &file, 0);
    }
    let names = || -> Vec<String> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let words = ["prestart", "createRuntime", "poststop"];
        let first = |line: &str| {
            words
                .iter()
                .find(|w| line.contains(**w))
                .map(|w| w.to_string())
        };
        text.lines().filter_map(first).collect()
    };
    let story = Story::counting(t, bundle)?;
    assert_eq!(names(), ["prestart", "createRuntime"]);
    fs::write(&file, "")?;
    story.checkpoint(&[])?.ok();
    assert_eq!(names(), ["poststop"]);
    fs::write(&file, "")?;
    let c = story.restore()?;
    assert_eq!(names(), ["prestart", "createRuntime"]);
    c.end()
}

fn in_the_foreground_its_status_is_the_answer(t: &Place) -> Result<()> {
    let script = "trap 'exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";
    let story = Story::counting(t, t.bundle().sh(script))?;
    story.checkpoint(&[])?.ok();
    let before = last_number(&story.said());
    let running = t.runtime(story.words(&[], &story.c.id)).spawn()?;
    let stdout = running.stdout.clone();
    let output = || fs::read_to_string(&stdout).unwrap_or_default();
    until("it goes on", || last_number(&output()) > before);
    kernel::kill(running.pid(), libc::SIGTERM)?;
    assert_eq!(running.wait()?.status, 7);
    t.nothing_is_left();
    Ok(())
}

fn a_terminal_is_handed_out_again(t: &Place) -> Result<()> {
    let bundle = t.bundle().set("/process/terminal", true);
    let bundle = bundle.sh("n=0; while read word; do n=$((n+1)); echo \"got $word $n\"; done");
    let hear = |master: &mut File, words: &str| -> Result<()> {
        let mut text = String::new();
        while !text.contains(words) {
            let mut bytes = [0; 100];
            let n = master.read(&mut bytes)?;
            text += &String::from_utf8_lossy(&bytes[..n]);
        }
        Ok(())
    };
    let id = t.fresh_id();
    bundle.write(t, &id)?;
    let socket = t.path("tty.sock");
    let listener = UnixListener::bind(&socket)?;
    let (dir, socket) = (
        bundle.dir.display().to_string(),
        socket.display().to_string(),
    );
    let images = t.path("images").display().to_string();
    let words = [
        "run",
        "--detach",
        "--console-socket",
        &socket,
        "--bundle",
        &dir,
        &id,
    ];
    let c = Container::from_call(t, id.clone(), t.runtime(words))?;
    let mut master = File::from(kernel::receive_fd(accept(&listener)?.as_fd())?.0);
    master.write_all(b"one\n")?;
    hear(&mut master, "got one 1")?;
    t.call(["checkpoint", "--image-path", &images, &c.id])?.ok();
    drop(master);
    let words = [
        "restore",
        "--detach",
        "--console-socket",
        &socket,
        "--image-path",
        &images,
        "--bundle",
        &dir,
        &id,
    ];
    let c = Container::from_call(t, id.clone(), t.runtime(words))?;
    let mut master = File::from(kernel::receive_fd(accept(&listener)?.as_fd())?.0);
    master.write_all(b"two\n")?;
    hear(&mut master, "got two 2")?;
    c.end()?;
    t.nothing_is_left();
    Ok(())
}

fn a_network_that_was_joined_is_joined_again(t: &Place) -> Result<()> {
    let owner = t.sleeper()?;
    let network = PathBuf::from(format!("/proc/{}/ns/net", owner.pid));
    let bundle = counter(t).join("network", &network);
    let story = Story::counting(t, bundle)?;
    story.checkpoint(&[])?.ok();
    let c = story.restore()?;
    let of = |pid: i32| fs::metadata(format!("/proc/{pid}/ns/net")).map(|ns| ns.ino());
    assert_eq!(of(c.pid)?, of(owner.pid)?);
    c.end()?;
    owner.end()
}

/// As podman's is, after a restore on another machine.
fn mount_points_are_made_in_a_new_rootfs(t: &Place) -> Result<()> {
    let data = t.path("data");
    fs::create_dir(&data)?;
    fs::write(data.join("a"), "here\n")?;
    let bundle = counter(t).bind(&data, "/some/where/deep", &["bind"]);
    let story = Story::counting(t, bundle)?;
    story.checkpoint(&[])?.ok();
    fs::remove_dir_all(story.bundle.inside("some"))?;
    fs::remove_dir(story.bundle.inside("proc"))?;
    let c = story.restore()?;
    let seen = t.call(["exec", &c.id, "cat", "/some/where/deep/a"])?;
    assert_eq!(seen.text(), "here");
    c.end()
}

fn memory_may_be_written_before(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    let early = t.path("early").display().to_string();
    t.call([
        "checkpoint",
        "--pre-dump",
        "--image-path",
        &early,
        &story.c.id,
    ])?
    .ok();
    assert_eq!(story.c.status()?, "running");
    story.checkpoint(&["--parent-path", "../early"])?.ok();
    assert!(story.images.join("parent").exists());
    let before = last_number(&story.said());
    let c = story.restore()?;
    until("it goes on", || last_number(&c.output()) > before);
    c.end()
}

fn a_dump_that_fails_leaves_it_running(t: &Place) -> Result<()> {
    // What it prints goes to a file of the host's, which CRIU finds nowhere in the container.
    let c = t.create(&counter(t))?;
    c.start()?;
    until("it speaks", || last_number(&c.output()) > 1);
    let images = t.path("images");
    let out = t.call([
        "checkpoint",
        "--image-path",
        &images.display().to_string(),
        &c.id,
    ])?;
    let log = images.join("dump.log").display().to_string();
    let out = out.fails(&[
        "criu failed: type DUMP",
        "Can't lookup mount",
        "log file: ",
        &log,
    ]);
    assert_eq!(out.stderr.trim_end().lines().count(), 1, "{}", out.stderr);
    assert_eq!(c.status()?, "running");
    let before = last_number(&c.output());
    until("it runs on", || last_number(&c.output()) > before);
    // Nor where there is no room for images.
    let out = t.call(["checkpoint", "--image-path", "/proc/images", &c.id])?;
    out.fails(&["--image-path /proc/images"]);
    let out = t.call(["checkpoint", "--parent-path", "none", &c.id])?;
    out.fails(&["--parent-path", "/checkpoint/none is not a directory"]);
    assert_eq!(c.status()?, "running");
    c.end()
}

fn a_restore_that_fails_leaves_nothing(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    story.checkpoint(&[])?.ok();
    let fails = |words: &[&str]| -> Result<()> {
        let out = t
            .call(story.words(&["--detach"], &story.c.id))?
            .fails(words);
        assert_eq!(out.stderr.trim_end().lines().count(), 1, "{}", out.stderr);
        t.nothing_is_left();
        Ok(())
    };
    let away = |name: &str, words: &[&str]| -> Result<()> {
        let (here, there) = (story.images.join(name), t.path("away"));
        fs::rename(&here, &there)?;
        fails(words)?;
        Ok(fs::rename(&there, &here)?)
    };
    away("descriptors.json", &["descriptors.json"])?;
    away(
        "inventory.img",
        &["criu failed: type RESTORE", "restore.log"],
    )?;
    let core = fs::read_dir(&story.images)?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let core = core
        .filter_map(|name| name.into_string().ok())
        .find(|name| name.starts_with("pages-"));
    away(&core.context("pages")?, &["criu failed: type RESTORE"])?;
    fs::rename(&story.images, t.path("gone"))?;
    fails(&["--image-path"])?;
    fs::rename(t.path("gone"), &story.images)?;
    // All is back in its place.
    story.restore()?.end()
}

fn a_name_that_is_taken_is_refused(t: &Place) -> Result<()> {
    let story = Story::counting(t, counter(t))?;
    story.checkpoint(&["--leave-running"])?.ok();
    let out = t.call(story.words(&["--detach"], &story.c.id))?;
    out.fails(&["container with given ID already exists"]);
    assert_eq!(story.c.status()?, "running");
    story.c.end()
}

fn a_killed_restore_is_deleted(t: &Place) -> Result<()> {
    let mut story = Story::counting(t, counter(t))?;
    story.checkpoint(&[])?.ok();
    let (reached, hold) = (t.path("reached"), t.path("hold"));
    kernel::mkfifo(&hold)?;
    let script = format!(
        "echo x > {}; read x < {}",
        reached.display(),
        hold.display()
    );
    story.bundle = story.bundle.push(
        "/hooks/prestart",
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }),
    );
    story.bundle.write(t, &story.c.id)?;
    let restore = t.runtime(story.words(&["--detach"], &story.c.id)).spawn()?;
    until("the hook is reached", || reached.exists());
    kernel::kill(restore.pid(), libc::SIGKILL)?;
    restore.wait()?;
    fs::write(&hold, "go\n")?;
    t.call(["delete", "--force", &story.c.id])?.ok();
    t.nothing_is_left();
    Ok(())
}

/// The container's root moves a link that a destination goes through to where another mount is. Known by the
/// destination alone, that mount would come back as what config.json binds there, with the other's rights.
fn cve_2026_115520_a_destination_that_has_become_a_link_names_no_other_mount(
    t: &Place,
) -> Result<()> {
    let (secret, open) = (t.path("secret"), t.path("open"));
    for dir in [&secret, &open] {
        fs::create_dir(dir)?;
    }
    fs::write(secret.join("a"), "secret\n")?;
    let bundle = counter(t);
    fs::create_dir(bundle.inside("real"))?;
    symlink("/real", bundle.inside("data"))?;
    let bundle = bundle
        .bind(&secret, "/data", &["bind", "ro"])
        .bind(&open, "/open", &["bind"]);
    let story = Story::counting(t, bundle)?;
    let moved = "rm /data && ln -s /open /data";
    t.call(["exec", &story.c.id, "sh", "-c", moved])?.ok();
    story
        .checkpoint(&[])?
        .fails(&["criu failed: type DUMP", "real"]);
    assert_eq!(story.c.status()?, "running");
    // A link that leads to its own mount is what images are full of.
    let back = "rm /data && ln -s real /data";
    t.call(["exec", &story.c.id, "sh", "-c", back])?.ok();
    story.checkpoint(&[])?.ok();
    let c = story.restore()?;
    let script = "cat /real/a; echo no > /real/b; echo $?; ls /open";
    let seen = t.call(["exec", &c.id, "sh", "-c", script])?;
    assert_eq!(seen.text(), "secret\n1");
    c.end()
}

fn what_does_not_run_is_refused(t: &Place) -> Result<()> {
    let c = t.create(&t.bundle().args(&["true"]))?;
    let images = t.path("images").display().to_string();
    let checkpoint = || t.call(["checkpoint", "--image-path", &images, &c.id]);
    checkpoint()?.fails(&["cannot be checkpointed in created state"]);
    c.start()?;
    c.ended()?;
    checkpoint()?.fails(&["cannot be checkpointed in stopped state"]);
    assert!(!Path::new(&images).exists());
    c.delete()?;
    checkpoint()?.fails(&["container does not exist"]);
    Ok(())
}

fn without_criu_it_is_said_what_to_install(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    let images = t.path("images");
    let call = |args: &[&str]| t.runtime(args.iter()).env("PATH", "/nowhere").run();
    let folder = images.display().to_string();
    call(&["checkpoint", "--image-path", &folder, &c.id])?
        .fails(&["criu is not in $PATH: install it"]);
    assert_eq!(c.status()?, "running");
    c.end()?;
    let (bundle, id) = (counter(t), t.fresh_id());
    bundle.write(t, &id)?;
    fs::write(images.join("descriptors.json"), "[]")?;
    let dir = bundle.dir.display().to_string();
    let args = [
        "restore",
        "--detach",
        "--image-path",
        &folder,
        "--bundle",
        &dir,
        &id,
    ];
    call(&args)?.fails(&["unable to restore", "criu is not in $PATH"]);
    t.nothing_is_left();
    assert!(!Path::new(CGROUPS).join(&id).exists());
    Ok(())
}

fn what_is_typed_wrong_is_said(t: &Place) -> Result<()> {
    let c = t.sleeper()?;
    for (args, words) in [
        (
            ["--manage-cgroups-mode", "odd"],
            "use soft, full, strict or ignore",
        ),
        (["--empty-ns", "mount"], "only the network namespace"),
        (["--status-fd", "x"], "not the number of a descriptor"),
        (["--page-server", "here"], "use ADDRESS:PORT"),
        (["--parent-path", "/absolute"], "must be relative"),
    ] {
        let all = ["checkpoint"]
            .into_iter()
            .chain(args)
            .chain([c.id.as_str()]);
        t.call(all)?.fails(&[args[0], words]);
    }
    assert_eq!(c.status()?, "running");
    c.end()
}
