//! What this machine has, and a private corner of it: a mount namespace with cgroup2 on
//! /sys/fs/cgroup and a tmpfs for everything the tests make, and a network namespace to make links
//! in, so that nothing outlives them.

use super::kernel;
use super::{Context, Result};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

pub const CGROUPS: &str = "/sys/fs/cgroup";

/// The ordinary user of the tests, uid and gid; and the ranges that are hers in /etc/subuid and
/// /etc/subgid.
pub const ANN: u32 = 42_424;
pub const RANGE: u32 = 300_000;

/// What a test cannot do without. Where it is missing the test is ignored, and says so.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A cgroup v2 controller that can be enabled below the root.
    Controller(&'static str),
    /// A machine on which this controller is missing (its limits must be refused).
    NoController(&'static str),
    /// A systemd that runs this machine, and its systemctl.
    Systemd,
    /// A machine without systemd.
    NoSystemd,
    /// A CRIU that works here, with this feature (`criu check --feature`; empty: none in particular).
    Criu(&'static str),
    /// A program of the host.
    Program(&'static str),
    /// A kernel feature that shows as a path.
    Path(&'static str),
    /// A kernel without such a feature.
    NoPath(&'static str),
    /// A capability of the test program itself, by number.
    Capability(u8, &'static str),
    /// Below this contract is the stand-in named: with it the test would fail for the reason given.
    Beyond(&'static str, &'static str),
}

pub struct Machine {
    pub runtime: PathBuf,
    /// First word of `--version`: sc-runtime, runc or crun.
    pub flavour: String,
    /// A tmpfs of our own.
    pub base: PathBuf,
    /// Path of our cgroup, as /proc/self/cgroup would show it.
    pub cgroup: String,
    pub controllers: Vec<String>,
    pub in_guest: bool,
    /// System calls that no call of the runtime has (`SC_WITHOUT=openat2,clone3`).
    pub without: Vec<libc::c_long>,
    /// What others are not to take for a dead one's.
    _held: [File; 2],
}

/// The calls that SC_WITHOUT can name.
const CALLS: [(&str, libc::c_long); 9] = [
    ("openat2", libc::SYS_openat2),
    ("clone3", libc::SYS_clone3),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("close_range", libc::SYS_close_range),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
];

fn without(names: &str) -> Result<Vec<libc::c_long>> {
    let names = names.split(',').filter(|name| !name.is_empty());
    let number = |name: &str| CALLS.iter().find(|(known, _)| *known == name);
    names
        .map(|name| {
            let (_, number) = number(name).with_context(|| format!("SC_WITHOUT: {name:?}"))?;
            Ok(*number)
        })
        .collect()
}

static MACHINE: OnceLock<Machine> = OnceLock::new();

pub fn machine() -> &'static Machine {
    MACHINE.get().expect("main has called enter")
}

/// Makes the corner. Called once, before there is a second thread: unshare(2) is per thread.
pub fn enter() -> Result<&'static Machine> {
    let runtime = std::env::var_os("SC_RUNTIME")
        .map_or(env!("CARGO_BIN_EXE_sc-runtime").into(), PathBuf::from);
    let runtime = runtime
        .canonicalize()
        .with_context(|| format!("the runtime {}", runtime.display()))?;
    let flavour = Command::new(&runtime)
        .arg("--version")
        .output()
        .context("--version")?;
    let flavour = String::from_utf8_lossy(&flavour.stdout)
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_string();

    kernel::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET).context("namespaces of our own")?;
    // As on every machine: CRIU looks what TCP can do there.
    kernel::add_interface_flags("lo", libc::IFF_UP)?;
    kernel::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    let cgroups = Path::new(CGROUPS);
    if statfs(cgroups)?.filesystem_type() != CGROUP2_SUPER_MAGIC {
        kernel::mount("cgroup2", cgroups, "cgroup2", 0, "")?;
    }

    let pid = std::process::id();
    let base = std::env::temp_dir().join(format!("sc-integration-{pid}"));
    fs::create_dir(&base)?;
    let dir_held = held(&base).context("a directory of our own")?;
    kernel::mount("sc-integration", &base, "tmpfs", 0, "mode=755")?;
    // Shared, as systemd makes a machine's mounts: what a runtime mounts carelessly shows here.
    kernel::mount("", &base, "", libc::MS_SHARED, "")?;
    make_image(&base)?;
    introduce_ann(&base)?;

    forget_the_dead(cgroups);
    let cgroup = format!("/sc-test-{pid}");
    let cgroup_dir = PathBuf::from(format!("{CGROUPS}{cgroup}"));
    fs::create_dir(&cgroup_dir)?;
    let cgroup_held = held(&cgroup_dir).context("a cgroup of our own")?;
    let controllers = fs::read_to_string(cgroups.join("cgroup.controllers"))?;
    let machine = Machine {
        runtime,
        flavour,
        base,
        cgroup,
        controllers: controllers.split_whitespace().map(String::from).collect(),
        in_guest: std::env::var_os("SC_IN_GUEST").is_some(),
        without: without(&std::env::var("SC_WITHOUT").unwrap_or_default())?,
        _held: [dir_held, cgroup_held],
    };
    Ok(MACHINE.get_or_init(|| machine))
}

/// newuidmap(1) asks these files; ours are seen by the tests alone.
fn introduce_ann(base: &Path) -> Result<()> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let range = format!("ann:{RANGE}:65536\n");
    for (name, text) in [
        ("passwd", format!("{passwd}ann:x:{ANN}:{ANN}::/:/bin/sh\n")),
        ("subuid", range.clone()),
        ("subgid", range),
    ] {
        let (file, target) = (base.join(name), Path::new("/etc").join(name));
        fs::write(&file, text)?;
        // Where the host has none there is nothing to mount on, and nobody to read it.
        if target.is_file() {
            kernel::mount(&file.display().to_string(), &target, "", libc::MS_BIND, "")?;
        }
    }
    Ok(())
}

/// Locked as long as this program lives; `None`: another one lives that has it.
fn held(dir: &Path) -> Option<File> {
    let dir = File::open(dir).ok()?;
    let taken = simplecontainer::sys::file::try_lock(dir.as_fd());
    taken.is_ok_and(|taken| taken).then_some(dir)
}

/// Directories and cgroups of a test program that was killed: what was in them is gone with it.
fn forget_the_dead(cgroups: &Path) {
    for path in of_the_dead(&std::env::temp_dir(), "sc-integration-") {
        let _ = fs::remove_dir(path); // never more than an empty mount point
    }
    for path in of_the_dead(cgroups, "sc-test-") {
        super::place::remove_cgroups(&path);
    }
}

/// Named after a process that is not there, nor in another pid namespace.
fn of_the_dead(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_dead = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pid = name.strip_prefix(prefix);
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) && held(path).is_some()
    };
    entries.map(|entry| entry.path()).filter(is_dead).collect()
}

/// The root file system that every test gets a copy of links of: busybox and the probe.
fn make_image(base: &Path) -> Result<()> {
    fs::copy("/proc/self/exe", base.join("probe")).context("a copy of the test program")?;
    fs::set_permissions(base.join("probe"), fs::Permissions::from_mode(0o755))?;
    let busybox = program("busybox")
        .context("busybox (Debian: busybox-static) is needed for the root file systems")?;
    fs::copy(&busybox, base.join("busybox"))?;
    fs::set_permissions(base.join("busybox"), fs::Permissions::from_mode(0o755))?;
    let bin = base.join("bin");
    fs::create_dir(&bin)?;
    let applets = Command::new(&busybox).arg("--list").output()?;
    for applet in String::from_utf8_lossy(&applets.stdout)
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", bin.join(applet))?;
    }
    Ok(())
}

/// Why CRIU cannot be used here; asked for once.
fn criu_lacks(feature: &str) -> Option<String> {
    static BASIC: OnceLock<Option<String>> = OnceLock::new();
    let check = |args: &[&str]| {
        let Some(criu) = program("criu") else {
            return Some("no program criu".to_owned());
        };
        let out = Command::new(criu).arg("check").args(args).output();
        match out {
            Ok(out) if out.status.success() => None,
            Ok(out) => {
                let said = String::from_utf8_lossy(&out.stderr).into_owned();
                let first = said
                    .lines()
                    .find(|line| line.contains("Error"))
                    .unwrap_or("");
                Some(format!(
                    "{}: {first}",
                    [&["criu check"], args].concat().join(" ")
                ))
            }
            Err(e) => Some(format!("criu: {e}")),
        }
    };
    let basic = BASIC.get_or_init(|| check(&[])).clone();
    match feature {
        "" => basic,
        _ => basic.or_else(|| check(&["--feature", feature])),
    }
}

pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

impl Machine {
    /// How long a thing that should happen at once may take here.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(if self.in_guest { 240 } else { 60 })
    }

    pub fn is(&self, flavour: &str) -> bool {
        self.flavour == flavour
    }

    /// Why a test with this need cannot run here; None where it can.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let has = |name: &str| self.controllers.iter().any(|c| c == name);
        // sd_booted(3)
        let booted = Path::new("/run/systemd/system").is_dir();
        match need {
            Need::Controller(name) => {
                (!has(name)).then(|| format!("no {name} controller in this cgroup2"))
            }
            Need::NoController(name) => {
                has(name).then(|| format!("the {name} controller is there"))
            }
            Need::Systemd => (!booted || program("systemctl").is_none())
                .then(|| "no systemd runs this machine".to_owned()),
            Need::NoSystemd => booted.then(|| "systemd runs this machine".to_owned()),
            Need::Criu(feature) => criu_lacks(feature),
            Need::Program(name) => program(name)
                .is_none()
                .then(|| format!("no program {name}")),
            Need::Path(path) => (!Path::new(path).exists()).then(|| format!("no {path}")),
            Need::NoPath(path) => Path::new(path).exists().then(|| format!("{path} is there")),
            Need::Capability(bit, name) => {
                (!holds(bit)).then(|| format!("the tests run without {name}"))
            }
            Need::Beyond(stand_in, reason) => (self.is(stand_in)
                && std::env::var_os("SC_BEYOND").is_none())
            .then(|| format!("{stand_in} here: {reason}")),
        }
    }

    /// The last act: the corner goes. What is still in it was reported by its test.
    pub fn leave(&self) {
        super::place::remove_cgroups(Path::new(&format!("{CGROUPS}{}", self.cgroup)));
        let _ = kernel::unmount(&self.base); // the mount namespace ends with us anyway
        let _ = fs::remove_dir(&self.base); // empty directory; nothing depends on it
    }
}

fn holds(bit: u8) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap_or(0) >> bit & 1 == 1
}
