//! One test's own place: directory, state root, cgroup and ids that no other test shares, so that
//! whatever is found there afterwards was left behind by this test.

use super::command::Call;
use super::machine::{ANN, CGROUPS, machine};
use super::{Bundle, Container, Context, Outcome, Result, Value, ensure, kernel};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub struct Place {
    pub dir: PathBuf,
    /// `--root` of every call.
    pub root: PathBuf,
    /// Below it are the cgroups of the containers, and `runner` for the runtime's own processes.
    pub cgroup: String,
    /// Every container id of this place begins with it.
    token: String,
    counter: AtomicU32,
    /// Who calls from now on; 0 is root.
    user: AtomicU32,
}

static PLACES: AtomicU32 = AtomicU32::new(1);

impl Place {
    pub fn new() -> Result<Place> {
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let dir = machine().base.join(number.to_string());
        let root = dir.join("state");
        let cgroup = format!("{}/{number}", machine().cgroup);
        fs::create_dir(&dir)?;
        fs::create_dir_all(format!("{CGROUPS}{cgroup}/runner"))?;
        let token = format!("sct{}-{number}-", std::process::id());
        Ok(Place {
            dir,
            root,
            cgroup,
            token,
            counter: AtomicU32::new(1),
            user: AtomicU32::new(0),
        })
    }

    /// From here on all calls are those of an ordinary user, [`ANN`], who owns this place. With
    /// `delegated`, its cgroup too (cgroup-v2.rst, "Delegation"); the limits stay root's.
    pub fn be_ann(&self, delegated: bool) -> Result<()> {
        use std::os::unix::fs::chown;
        let own = |path: &Path| chown(path, Some(ANN), Some(ANN));
        own(&self.dir)?;
        if delegated {
            let cgroup = PathBuf::from(format!("{CGROUPS}{}", self.cgroup));
            own(&cgroup)?;
            for file in ["procs", "threads", "subtree_control"] {
                own(&cgroup.join(format!("cgroup.{file}")))?;
            }
        }
        // The built program may lie in a directory that only its builder may enter. By cp: a descriptor
        // of ours that can write would be in the children of other threads (ETXTBSY).
        let copied = std::process::Command::new("cp")
            .args([&machine().runtime, &self.dir.join("runtime")])
            .status()?;
        ensure!(copied.success(), "cp of the runtime: {copied}");
        self.user.store(ANN, Ordering::Relaxed);
        Ok(())
    }

    pub fn user(&self) -> u32 {
        self.user.load(Ordering::Relaxed)
    }

    pub fn next_number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    pub fn fresh_id(&self) -> String {
        format!("{}{}", self.token, self.next_number())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the limits and processes of a container with the default cgroupsPath are.
    pub fn cgroup_dir(&self, id: &str) -> PathBuf {
        PathBuf::from(format!("{CGROUPS}{}/{id}", self.cgroup))
    }

    pub fn bundle(&self) -> Bundle {
        Bundle::new(&self.dir.join(format!("bundle-{}", self.next_number()))).expect("a bundle")
    }

    /// `RUNTIME --root R ARGS...`, not yet run.
    pub fn runtime<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Call {
        match self.user() {
            0 => self.other_runtime(&machine().runtime, args),
            _ => self.other_runtime(&self.dir.join("runtime"), args),
        }
    }

    pub fn other_runtime<S: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Call {
        let mut all = vec![
            OsStr::new("--root").to_owned(),
            self.root.clone().into_os_string(),
        ];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        Call::new(self, program, all)
    }

    /// A command of the runtime, run to its end.
    pub fn call<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Outcome> {
        self.runtime(args).run()
    }

    /// A program of the host, in this place.
    pub fn host<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Outcome> {
        let path =
            super::machine::program(program).with_context(|| format!("no program {program}"))?;
        Call::new(self, &path, args).run()
    }

    /// `run` of the bundle under a fresh id.
    pub fn run(&self, bundle: &Bundle) -> Result<Outcome> {
        let id = self.fresh_id();
        bundle.write(self, &id)?;
        self.call([
            "run".as_ref(),
            "--bundle".as_ref(),
            bundle.dir.as_os_str(),
            id.as_ref(),
        ])
    }

    /// What the probe sees as the container's process.
    pub fn see(&self, bundle: Bundle) -> Result<Value> {
        let out = self.run(&bundle.args(&["/probe"]))?.text();
        serde_json::from_str(&out).with_context(|| out)
    }

    /// `create` that is expected to succeed.
    pub fn create(&self, bundle: &Bundle) -> Result<Container<'_>> {
        self.create_with(bundle, &[])
    }

    pub fn create_with(&self, bundle: &Bundle, flags: &[&str]) -> Result<Container<'_>> {
        let id = self.fresh_id();
        bundle.write(self, &id)?;
        let args = ["create", "--bundle"].map(String::from).into_iter();
        let args = args.chain([bundle.dir.display().to_string()]);
        let args = args
            .chain(flags.iter().map(|f| f.to_string()))
            .chain([id.clone()]);
        Container::from_call(self, id, self.runtime(args))
    }

    /// `create` that is expected to fail, and to leave nothing.
    #[track_caller]
    pub fn create_fails(&self, bundle: &Bundle, words: &[&str]) -> Outcome {
        let id = self.fresh_id();
        bundle.write(self, &id).expect("write config.json");
        let out = self
            .call(["create", "--bundle", &bundle.dir.display().to_string(), &id])
            .expect("run the runtime");
        let out = out.fails(words);
        self.nothing_is_left();
        out
    }

    /// A started container that runs until it is killed.
    pub fn sleeper(&self) -> Result<Container<'_>> {
        let container = self.create(&self.bundle().args(&["sleep", "1000"]))?;
        container.start()?;
        Ok(container)
    }

    #[track_caller]
    pub fn nothing_is_left(&self) {
        let left = self.left_soon();
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }

    pub fn left_soon(&self) -> Vec<String> {
        self.left_after(Duration::from_secs(if machine().in_guest { 40 } else { 5 }))
    }

    /// What is left, once it has had time to go: a killed process takes a moment.
    fn left_after(&self, limit: Duration) -> Vec<String> {
        let end = Instant::now() + limit;
        loop {
            let left = self.left_behind();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        for id in self.recorded() {
            left.push(format!("state {id}"));
        }
        let ours = PathBuf::from(format!("{CGROUPS}{}", self.cgroup));
        for cgroup in cgroups_below(&ours) {
            let runner = cgroup == ours.join("runner");
            for process in processes_of(&cgroup) {
                left.push(format!("process {process} in {}", cgroup.display()));
            }
            if !runner && cgroup != ours {
                // crun 1.8 leaves the empty cgroup of a create that failed: known, and not what is tested.
                if machine().is("crun") && fs::remove_dir(&cgroup).is_ok() {
                    continue;
                }
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
        // A runtime that was given no cgroupsPath chooses one by the id.
        for cgroup in cgroups_named(&self.token) {
            if !cgroup.starts_with(&ours) {
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
        left.extend(
            mounts_below(&self.dir)
                .iter()
                .map(|m| format!("mount {}", m.display())),
        );
        left
    }

    /// The ids that the state root knows.
    pub fn recorded(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        // A name that no container can have is the runtime's own affair (a lock, a cache).
        names.filter(|name| !name.starts_with('.')).collect()
    }

    /// Cleans up as a user would, with `delete --force`, and names what that left behind. Then removes
    /// that too.
    pub fn finish(self) -> Vec<String> {
        let mut left = Vec::new();
        for id in self.recorded() {
            // Where calls are taken from the runtime (SC_WITHOUT), what it can therefore not end is
            // ended by one that has them: no test waits for it, and nothing is left on the machine.
            let delete = self.runtime(["delete", "--force", &id]).without(&[]);
            match delete.run() {
                Ok(out) if out.status == 0 => {}
                Ok(out) => left.push(format!(
                    "delete --force {id}: {} {}",
                    out.status,
                    out.message()
                )),
                Err(e) => left.push(format!("{e:#}")),
            }
        }
        left.extend(self.left_soon());
        let ours = PathBuf::from(format!("{CGROUPS}{}", self.cgroup));
        remove_cgroups(&ours);
        for cgroup in cgroups_named(&self.token) {
            remove_cgroups(&cgroup);
        }
        for mount in mounts_below(&self.dir).iter().rev() {
            let _ = kernel::unmount(mount); // reported already; it ends with our namespace
        }
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            left.push(format!("{}: {e}", self.dir.display()));
        }
        left
    }
}

fn processes_of(cgroup: &Path) -> Vec<String> {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.lines()
        .map(|pid| format!("{pid} ({})", name(pid).trim()))
        .collect()
}

fn cgroups_below(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_path_buf()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(
            entries
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path()),
        );
        next += 1;
    }
    found
}

/// Top-level cgroups, and those one level down, whose name holds the token.
fn cgroups_named(token: &str) -> Vec<PathBuf> {
    let dirs = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.path())
            .collect()
    };
    let top = dirs(Path::new(CGROUPS));
    let below = ["crun", "sc-runtime", "system.slice"]
        .iter()
        .flat_map(|name| dirs(&Path::new(CGROUPS).join(name)));
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().contains(token))
    };
    top.iter().cloned().chain(below).filter(named).collect()
}

/// Kills what is in them, and removes them.
pub fn remove_cgroups(top: &Path) {
    let _ = fs::write(top.join("cgroup.kill"), "1"); // gone already, perhaps
    let end = Instant::now() + Duration::from_secs(10);
    let mut all = cgroups_below(top);
    while !all.is_empty() && Instant::now() < end {
        for dir in all.iter().rev() {
            let _ = fs::remove_dir(dir); // busy until the killed are gone: tried again
        }
        all.retain(|dir| dir.exists());
        if !all.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    targets.filter(|target| target.starts_with(dir)).collect()
}

/// Waits until `ready` is true, for things that announce themselves by no event.
#[track_caller]
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + machine().patience();
    while !ready() {
        assert!(
            Instant::now() < end,
            "waited {:?} for {what}",
            machine().patience()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// accept(2), but not for ever.
pub fn accept(listener: &UnixListener) -> Result<UnixStream> {
    ensure!(
        kernel::readable_within(listener.as_fd(), machine().patience())?,
        "nobody connected to the socket"
    );
    Ok(listener.accept()?.0)
}
