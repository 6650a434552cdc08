//! The plan: everything a container will be made of, as plain data.
//!
//! [`plan`](draw) turns a validated [`Spec`] into acts for two performers: the *parent*
//! ([`ParentPlan`], in the host's namespaces) and the *init* ([`InitPlan`], from clone to exec).
//! Nothing in this module makes a system call, opens a file, reads a clock or the environment,
//! so every decision can be tested without root and printed (the hidden `plan` verb).
//!
//! What is a list in runtime-spec is a list here, in the order it will be performed; a scalar is
//! a field. Numbers are already the kernel's (flags, signal and capability numbers).

/// All variants of an enum that config.json is read into, as a list. What is left out does not compile.
macro_rules! every {
    ($kind:ident: $($variant:ident)+) => {{
        const fn _is_listed(one: $kind) {
            match one {
                $($kind::$variant => (),)+
            }
        }
        &[$($kind::$variant),+]
    }};
}

pub mod default_spec;
pub mod device_program;
mod draw;
pub mod exec;
pub mod hooks;
pub mod mounts;
pub mod namespaces;
pub mod notify;
mod paths;
pub mod process;
pub mod resources;
mod rootfs;
pub mod scheduling;
pub mod seccomp;
mod show;
pub mod sysctl;
pub mod unit;
pub mod update;
pub mod variant;

pub use draw::draw;
#[cfg(test)]
pub use draw::tests::ask as example_ask;
pub use show::show;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use unit::Manager;

/// All that is to be done for one container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub parent: ParentPlan,
    pub init: InitPlan,
    /// Of config.json: kept in the record, shown by `state`.
    pub annotations: BTreeMap<String, String>,
    /// What the user should know but what stops nothing (an unknown capability, say).
    pub warnings: Vec<String>,
}

/// What the caller asks for beside config.json: options, and facts of the host that decide acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub id: String,
    /// Absolute path of the bundle directory.
    pub bundle: PathBuf,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// File descriptors 3..3+N stay open in the container (`--preserve-fds` plus LISTEN_FDS).
    pub preserve_fds: u32,
    /// systemd makes the cgroup (`--systemd-cgroup`).
    pub systemd_cgroup: bool,
    /// `$LISTEN_FDS` of the caller: handed on with `LISTEN_PID=1`.
    pub listen_fds: Option<u32>,
    /// Directory of the host for the socket through which the program tells the caller's
    /// `$NOTIFY_SOCKET` that it is ready.
    pub notify: Option<PathBuf>,
    pub host: Host,
}

/// Facts of the host that the plan depends on, gathered by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Effective uid and gid of the caller.
    pub euid: u32,
    pub egid: u32,
    /// Cgroups may be refused: the caller is not root of the initial user namespace, or has said so
    /// (`--rootless`). What else an ordinary user may not do goes by `euid`.
    pub rootless: bool,
    /// Which systemd would make the container's cgroup.
    pub systemd: Manager,
    /// setgroups(2) is denied to all in the caller's user namespace.
    pub setgroups_denied: bool,
    /// Highest capability number the kernel knows (/proc/sys/kernel/cap_last_cap), 40 on 6.x.
    pub last_cap: u8,
    /// The cgroup v2 mount (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host).
    pub cgroup_mount: PathBuf,
    /// The caller's own cgroup below that mount, from /proc/self/cgroup ("/" or "/user.slice/…").
    pub own_cgroup: PathBuf,
}

// ---------------------------------------------------------------------------------------------
// The parent's part

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentPlan {
    pub clone: ClonePlan,
    /// Written to /proc/PID/uid_map and gid_map; empty without a new user namespace.
    pub uid_map: Vec<IdMap>,
    pub gid_map: Vec<IdMap>,
    /// (clock, seconds, nanoseconds) lines for timens_offsets(5), clock `monotonic` or `boottime`.
    pub time_offsets: Vec<TimeOffset>,
    pub cgroup: CgroupPlan,
    /// With the systemd manager: the unit that the cgroup is ordered with.
    pub unit: Option<unit::UnitPlan>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    /// In the host's namespaces, after the container's were made, before pivot_root.
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
    pub net_devices: Vec<NetDevice>,
}

/// How the init process comes to be (clone3(2)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClonePlan {
    pub route: CloneRoute,
    /// CLONE_NEW* of the namespaces to make, in one call.
    /// Without a time namespace that has offsets: the parent makes that one before the clone.
    pub new: u64,
    /// Namespaces the *parent* enters around the clone and leaves again: only a pid namespace
    /// joined by path, which is entered by children alone (setns(2)).
    pub pid_namespace: Option<PathBuf>,
}

/// How many clones are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CloneRoute {
    /// parent → init, in all new namespaces at once; init joins the rest itself.
    #[default]
    Direct,
    /// parent → joiner → init (CLONE_PARENT): joined namespaces and a user namespace together;
    /// what is joined must be entered before the new ones are made, and the parent must not
    /// lose its own powers by entering a user namespace.
    Joiner,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOffset {
    pub clock: String,
    pub secs: i64,
    pub nanos: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    pub host_name: String,
    /// Name inside the container; the same when absent.
    pub new_name: Option<String>,
}

/// setrlimit(2): the number of the resource, RLIM_INFINITY as u64::MAX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`, for messages.
    pub name: String,
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// One hook of config.json (runtime-spec config.md#posix-platform-hooks). Kept in the record for
/// the hooks that run after `create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    /// argv; `[path]` when config.json gives none.
    pub args: Vec<String>,
    /// Empty: that of the runtime.
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// The container's cgroup and what is written into it (cgroup v2 only).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CgroupPlan {
    /// Absolute path below the cgroup2 mount, e.g. `/user.slice/web`; never contains `..`. Of a
    /// unit: where it is expected, and [`unit::UnitPlan::cgroup`] says how sure that is.
    pub path: PathBuf,
    /// Files in the order they are written. A file that is missing means its controller is
    /// absent: an error that names both.
    pub writes: Vec<CgroupWrite>,
    /// `checkBeforeUpdate`: refuse a memory limit below present use (matters to `update`).
    pub check_before_update: bool,
    /// Device rules as a cgroup-device program (bpf instructions as u64s); `None`: all allowed.
    pub device_program: Option<Vec<u64>>,
    /// The caller may be refused bpf(2) (rootless): then go without the program. A rootless
    /// container has no device nodes but the host's, opened with the caller's own rights.
    pub device_program_optional: bool,
    /// No resource at all was asked for: where cgroups cannot be made (rootless), go without.
    pub optional: bool,
    /// The container divides its cgroup itself: the host's uid that shall own it (runtime-spec
    /// config-linux.md, "Cgroup ownership"). `None`: it stays the runtime's.
    pub owner: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupWrite {
    /// `memory.max`
    pub file: String,
    pub value: String,
    /// Where it comes from, for messages: `linux.resources.memory.limit`.
    pub field: String,
    /// Go on when the file is absent (`memory.swap.max` = `0` on a kernel without swap).
    pub optional: bool,
    /// What is written where `file` is absent: `io.weight` for `io.bfq.weight`.
    pub instead: Option<CgroupFallback>,
}

/// Another file for the same wish (its scale may differ).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupFallback {
    pub file: String,
    pub value: String,
}

// ---------------------------------------------------------------------------------------------
// The init's part

/// From clone to exec. `Default` is an init that does nothing but exec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InitPlan {
    /// Namespaces entered by path, in this order (pid only for an ordinary user: see
    /// [`ClonePlan::pid_namespace`]).
    pub join: Vec<Join>,
    /// CLONE_NEW* of the running container that is entered by a pidfd of its init (`exec`).
    pub enter: u64,
    /// A new user namespace, whose id maps the parent writes: init becomes its root.
    pub new_user_namespace: bool,
    /// The parent has something to do first: write id maps, or hear from the joiner who init is.
    pub wait_for_welcome: bool,
    /// The caller has no CAP_SYS_PTRACE with which to enter (`exec`) what waits for `start`.
    pub caller_is_no_root: bool,
    /// Init lives in a user namespace, new or joined: devices are bound, not made.
    pub in_user_namespace: bool,
    /// Offsets of a time namespace that init makes itself: an ordinary user's parent may not.
    pub time_offsets: Vec<TimeOffset>,
    /// Someone else (systemd) puts init into its cgroup: wait for that.
    pub wait_for_cgroup: bool,
    /// CLONE_NEW* of what init makes itself, in its cgroup (the root of what a cgroup namespace shows)
    /// and as root of its user namespace.
    pub unshare: u64,
    /// Name of a new session keyring, `_ses.ID`; `None`: keep the caller's.
    pub keyring: Option<String>,
    /// Bring `lo` up (a new network namespace).
    pub loopback_up: bool,
    /// The file system to build; `None` for a second process in a running container (`exec`).
    pub rootfs: Option<RootfsPlan>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// (path below /proc/sys with slashes, value), sorted by key.
    pub sysctls: Vec<(String, String)>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    /// Loaded before the user is changed, or right before the wait for start where
    /// no_new_privileges allows it then.
    pub seccomp: Option<seccomp::SeccompPlan>,
    pub process: ProcessPlan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// CLONE_NEW* of its kind.
    pub kind: u64,
    /// `network`, for messages.
    pub name: String,
    pub path: PathBuf,
}

/// The tree the container will see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RootfsPlan {
    /// Absolute path on the host.
    pub path: PathBuf,
    pub readonly: bool,
    /// MS_* propagation for the host's tree in the new mount namespace before anything is
    /// mounted (MS_SLAVE|MS_REC unless linux.rootfsPropagation says otherwise).
    pub initial_propagation: u64,
    /// MS_* propagation of the container's `/` at the end; `None`: leave.
    pub final_propagation: Option<u64>,
    /// Mounts of config.json, in order.
    pub mounts: Vec<Mount>,
    /// config.json binds a directory of the host over /dev: nothing is made in it.
    pub skip_dev: bool,
    pub devices: Vec<Device>,
    /// (link, target): the default symlinks of /dev.
    pub symlinks: Vec<(PathBuf, PathBuf)>,
    pub readonly_paths: Vec<PathBuf>,
    pub masked_paths: Vec<PathBuf>,
    /// SELinux label of the file systems that masks and message queues are; other mounts have it
    /// among their options.
    pub mount_label: Option<String>,
    /// MS_MOVE and chroot instead of pivot_root (`--no-pivot`, rootfs on a ramdisk).
    pub no_pivot: bool,
    /// Join no mount namespace and make none: the tree is the host's; only chroot is possible.
    pub shares_mount_namespace: bool,
}

/// One entry of config.json `mounts`, or an implied one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it comes from, for messages: `mounts[3]`.
    pub field: String,
    /// Absolute, cleaned of `.` and `..`; resolved inside the rootfs, whatever links it holds.
    pub destination: PathBuf,
    pub kind: MountKind,
    /// MOUNT_ATTR_* to set and to clear on this mount.
    pub attr: Attr,
    /// MOUNT_ATTR_* to set and to clear on it and everything below (the `r…` options).
    pub recursive_attr: Attr,
    /// MS_PRIVATE, MS_REC|MS_SHARED, … each applied in turn.
    pub propagation: Vec<u64>,
}

/// mount_setattr(2) masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attr {
    pub set: u64,
    pub clear: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A new instance of a file system (fsopen(2)).
    Filesystem {
        fstype: String,
        source: String,
        /// fsconfig parameters in order: `("mode", Some("755"))`, `("ro", None)`.
        options: Vec<Parameter>,
        /// `tmpcopyup`: what is at the destination is copied into the new tmpfs.
        copy_up: bool,
    },
    /// A part of the host's tree (open_tree(2)).
    Bind {
        source: PathBuf,
        recursive: bool,
        id_map: Option<MountIdMap>,
    },
    /// The container's own cgroup. With a cgroup namespace a cgroup2 instance, without one a
    /// bind of that directory. Where cgroup2 cannot be mounted (EPERM) also the bind.
    Cgroup { namespace: bool },
    /// `remount`: change the flags of what is already mounted there.
    Remount { options: Vec<Parameter> },
}

/// What fsconfig(2) sets: a key, and its value if it takes one.
pub type Parameter = (String, Option<String>);

impl MountKind {
    /// The source of a bind that is a descriptor of the runtime's own, which means nothing in init's
    /// mount namespace, and whether it is recursive.
    pub fn own_descriptor(&self) -> Option<(&Path, bool)> {
        const OWN: [&str; 3] = ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"];
        match self {
            MountKind::Bind {
                source, recursive, ..
            } if OWN.iter().any(|d| source.starts_with(d)) => Some((source, *recursive)),
            _ => None,
        }
    }

    /// The same, where init inherits it: its ids are not mapped.
    pub fn source_of_parent(&self) -> Option<(&Path, bool)> {
        match self.id_mapped() {
            None => self.own_descriptor(),
            Some(_) => None,
        }
    }

    /// The source of a bind whose ids are mapped: not init's to make, as the power for it is that
    /// over the source's file system.
    pub fn id_mapped(&self) -> Option<&MountIdMap> {
        match self {
            MountKind::Bind { id_map, .. } => id_map.as_ref(),
            _ => None,
        }
    }
}

/// Which owners a bind shows (mount_setattr(2), MOUNT_ATTR_IDMAP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountIdMap {
    /// `ridmap`: of all that is mounted below, too.
    pub recursive: bool,
    pub ids: MountIds,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountIds {
    /// As the container's user namespace maps them.
    Container,
    Own {
        uids: Vec<IdMap>,
        gids: Vec<IdMap>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `linux.devices[0]`, or `default device`.
    pub field: String,
    pub path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Who the process is, and what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    /// `K=V`, the last of each key. HOME is added by init where it is missing or empty.
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    /// `None`: leave the groups alone (setgroups(2) not permitted in this user namespace).
    pub groups: Option<Vec<u32>>,
    pub umask: u32,
    pub caps: Option<Caps>,
    pub no_new_privileges: bool,
    /// AppArmor profile and SELinux label to change to at exec.
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    /// A terminal is wanted; its size, where given (rows, columns).
    pub terminal: bool,
    pub console_size: Option<(u16, u16)>,
    pub scheduler: Option<Scheduler>,
    /// ioprio_set(2) value: class << 13 | level.
    pub io_priority: Option<u16>,
    /// personality(2) value.
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    /// Processors to run on, one bit each; `None`: all that the cpuset allows.
    pub processors: Option<Vec<u64>>,
    /// Descriptors 3..3+N survive exec.
    pub preserve_fds: u32,
}

/// Capability sets as bit masks, already limited to what the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// sched_setattr(2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemoryPolicy {
    /// MPOL_* mode with MPOL_F_* flags.
    pub mode: i32,
    /// Node numbers, ascending.
    pub nodes: Vec<u32>,
}
