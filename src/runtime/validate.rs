//! Do the values of config.json make sense together, on this kernel, in this version?
//!
//! A list of small checks ([`CHECKS`]), each of a part of the document, before anything is made.
//! All that is wrong is said at once, each with its JSON path. As strict as runc, and stricter where
//! runtime-spec says MUST and runc shrugs, or fails late without a name.
//!
//! Left to others: types and names of values ([`super::config`]), `linux.resources`
//! ([`super::plan::resources`]), mount options ([`super::plan`]), and whatever only the kernel knows.

use crate::runtime::plan::{Ask, sysctl};
use anyhow::{Result, bail};
use oci_spec::runtime::{
    Hook, Linux, LinuxDeviceType, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Kind,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Mount, Process, Spec,
};
use std::collections::HashSet;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// What is wrong with `spec`, in one error that names every field; else what is only odd.
pub fn check(spec: &Spec, ask: &Ask) -> Result<Vec<String>> {
    let document = Document {
        spec,
        process: spec.process().as_ref(),
        linux: spec.linux().as_ref(),
        ask,
    };
    let mut found = Findings::default();
    for check in CHECKS {
        check(&document, &mut found);
    }
    found.result()
}

/// The same for a process that joins the running container of `spec` (`exec`).
pub fn check_process(process: &Process, spec: &Spec, ask: &Ask) -> Result<Vec<String>> {
    let document = Document {
        spec,
        process: Some(process),
        linux: spec.linux().as_ref(),
        ask,
    };
    let mut found = Findings::default();
    for check in [
        self::process,
        process_ids,
        capabilities,
        scheduler,
        io_priority,
        console,
    ] {
        check(&document, &mut found);
    }
    found.result()
}

type Check = fn(&Document, &mut Findings);

const CHECKS: [Check; 27] = [
    not_built_yet,    // issue 2, section 3: never silently ignored
    root,             // config.md#root
    process,          // config.md#process
    process_ids,      // config.md#user, user_namespaces(7)
    names,            // config.md#hostname, config.md#domainname
    mounts,           // config.md#mounts
    mounts_over_proc, // CVE-2019-16884
    mounts_id_maps,   // config.md#mounts
    hooks,            // config.md#posix-platform-hooks
    capabilities,     // capset(2)
    host_mounts,      // config-linux.md#namespaces
    namespaces,       // config-linux.md#namespaces
    rootless,         // user_namespaces(7)
    id_mappings,      // config-linux.md#user-namespace-mappings
    time_offsets,     // config-linux.md#offset-for-time-namespace
    devices,          // config-linux.md#devices
    net_devices,      // config-linux.md#network-devices
    cgroups_path,     // config-linux.md#cgroups-path
    sysctls,          // config-linux.md#sysctl
    propagation,      // config-linux.md#rootfs-mount-propagation
    hidden_paths,     // config-linux.md#masked-paths, #readonly-paths
    personality,      // config-linux.md#personality
    memory_policy,    // config-linux.md#memory-policy
    scheduler,        // config.md#linux-process
    io_priority,      // config.md#linux-process
    console,          // config.md#process
    annotations,      // config.md#annotations
];

/// The document with its parts at hand.
struct Document<'a> {
    spec: &'a Spec,
    process: Option<&'a Process>,
    linux: Option<&'a Linux>,
    ask: &'a Ask,
}

impl Document<'_> {
    fn namespaces(&self) -> &[LinuxNamespace] {
        list(self.linux.and_then(|l| l.namespaces().as_ref()))
    }

    fn mounts(&self) -> &[Mount] {
        list(self.spec.mounts().as_ref())
    }

    fn namespace(&self, kind: Kind) -> Option<&LinuxNamespace> {
        self.namespaces().iter().find(|n| n.typ() == kind)
    }
}

/// Absent and empty are the same.
fn list<T>(values: Option<&Vec<T>>) -> &[T] {
    values.map_or(&[], Vec::as_slice)
}

/// The file of a namespace to join. "" counts as absent, as everywhere in Go.
fn joined(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace
        .path()
        .as_deref()
        .filter(|p| !p.as_os_str().is_empty())
}

#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    /// Errors beyond [`MOST`], counted but not kept.
    more: usize,
    warnings: Vec<String>,
}

/// Nobody reads more, and a hostile document could hold millions.
const MOST: usize = 20;

impl Findings {
    fn refuse(&mut self, field: impl Display, why: impl Display) {
        match self.errors.len() < MOST {
            true => self.errors.push(format!("{field}: {why}")),
            false => self.more += 1,
        }
    }

    fn warn(&mut self, field: impl Display, why: impl Display) {
        if self.warnings.len() < MOST {
            self.warnings.push(format!("{field}: {why}"));
        }
    }

    fn result(mut self) -> Result<Vec<String>> {
        if self.more > 0 {
            self.errors.push(format!("and {} more", self.more));
        }
        if !self.errors.is_empty() {
            bail!("{}", self.errors.join("; "));
        }
        Ok(self.warnings)
    }

    /// What goes to the kernel as a C string cannot hold a NUL byte: it would end there.
    fn no_nul(&mut self, field: impl Display, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        if value.contains(&0) {
            let value = String::from_utf8_lossy(value);
            self.refuse(field, format_args!("{value:?} holds a NUL byte"));
        }
    }

    /// An absolute path of the container or the host.
    fn absolute(&mut self, field: impl Display, path: &Path) {
        if path.as_os_str().is_empty() {
            self.refuse(field, "is empty");
        } else if !path.is_absolute() {
            self.refuse(field, format_args!("{path:?} must be an absolute path"));
        } else {
            self.no_nul(field, path.as_os_str().as_bytes());
        }
    }
}

// ---------------------------------------------------------------------------------------------
// What this version cannot do

fn not_built_yet(d: &Document, found: &mut Findings) {
    if d.linux.is_some_and(|l| l.intel_rdt().is_some()) {
        found.refuse("linux.intelRdt", "not supported by this version");
    }
}

// ---------------------------------------------------------------------------------------------
// The process

fn root(d: &Document, found: &mut Findings) {
    match d.spec.root() {
        None => found.refuse("root", "is missing"),
        Some(root) if root.path().as_os_str().is_empty() => found.refuse(
            "root.path",
            "is empty; name the directory of the root file system",
        ),
        Some(root) => found.no_nul("root.path", root.path().as_os_str().as_bytes()),
    }
}

fn process(d: &Document, found: &mut Findings) {
    match d.process {
        None => found.refuse("process", "is missing"),
        Some(process) => process_alone(process, found),
    }
}

/// What needs no more than the process itself.
fn process_alone(process: &Process, found: &mut Findings) {
    let args = list(process.args().as_ref());
    if args.is_empty() {
        found.refuse("process.args", "must not be empty");
    }
    for (i, arg) in args.iter().enumerate() {
        found.no_nul(format_args!("process.args[{i}]"), arg);
    }
    // runc's words for both.
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        found.refuse("process.cwd", "Cwd property must not be empty");
    } else if !cwd.is_absolute() {
        found.refuse(
            "process.cwd",
            format_args!("{cwd:?}: Cwd must be an absolute path"),
        );
    }
    found.no_nul("process.cwd", cwd.as_os_str().as_bytes());
    for (field, label) in [
        ("process.apparmorProfile", process.apparmor_profile()),
        ("process.selinuxLabel", process.selinux_label()),
    ] {
        found.no_nul(field, label.as_deref().unwrap_or_default());
    }
    for (i, variable) in list(process.env().as_ref()).iter().enumerate() {
        let field = format_args!("process.env[{i}]");
        match variable.find('=') {
            None => found.refuse(
                field,
                format_args!("invalid environment variable: {variable:?}, it has no ="),
            ),
            Some(0) => found.refuse(
                field,
                format_args!("environment variable name can't be empty: {variable:?}"),
            ),
            Some(_) => found.no_nul(field, variable),
        }
    }
    rlimits(process, found);
    if let Some(score) = process.oom_score_adj()
        && !(-1000..=1000).contains(&score)
    {
        found.refuse(
            "process.oomScoreAdj",
            format_args!("{score} is not between -1000 and 1000"),
        );
    }
    // setresuid(2) and setresgid(2) read -1 as "leave it": the process would stay root.
    let user = process.user();
    let ids = [("uid", user.uid()), ("gid", user.gid())].into_iter();
    for (name, _) in ids.filter(|(_, id)| *id == u32::MAX) {
        found.refuse(
            format_args!("process.user.{name}"),
            "4294967295 means no id at all",
        );
    }
}

fn rlimits(process: &Process, found: &mut Findings) {
    let mut seen = HashSet::new();
    for (i, limit) in list(process.rlimits().as_ref()).iter().enumerate() {
        let field = format_args!("process.rlimits[{i}]");
        if limit.soft() > limit.hard() {
            let (name, soft, hard) = (limit.typ(), limit.soft(), limit.hard());
            found.refuse(
                field,
                format_args!("{name}: soft limit {soft} is above hard limit {hard}"),
            );
        }
        if !seen.insert(limit.typ().to_string()) {
            found.refuse(field, format_args!("{} is there twice", limit.typ()));
        }
    }
}

/// Empty maps are another check's business.
fn is_mapped(id: u32, maps: &[LinuxIdMapping]) -> bool {
    let holds = |m: &LinuxIdMapping| {
        id.checked_sub(m.container_id())
            .is_some_and(|n| n < m.size())
    };
    maps.is_empty() || maps.iter().any(holds)
}

/// In a new user namespace only mapped ids exist.
fn process_ids(d: &Document, found: &mut Findings) {
    let (Some(process), Some(linux)) = (d.process, d.linux) else {
        return;
    };
    if d.namespace(Kind::User).is_none_or(|n| joined(n).is_some()) {
        return;
    }
    let user = process.user();
    let mut mapped = |field: String, id: u32, name: &str, maps: &[LinuxIdMapping]| {
        if !is_mapped(id, maps) {
            found.refuse(field, format_args!("{id} is not mapped by linux.{name}"));
        }
    };
    let gids = list(linux.gid_mappings().as_ref());
    mapped(
        "process.user.uid".into(),
        user.uid(),
        "uidMappings",
        list(linux.uid_mappings().as_ref()),
    );
    mapped("process.user.gid".into(), user.gid(), "gidMappings", gids);
    for (i, gid) in list(user.additional_gids().as_ref()).iter().enumerate() {
        mapped(
            format!("process.user.additionalGids[{i}]"),
            *gid,
            "gidMappings",
            gids,
        );
    }
}

fn scheduler(d: &Document, found: &mut Findings) {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedIso, SchedRr};
    let Some(scheduler) = d.process.and_then(|p| p.scheduler().as_ref()) else {
        return;
    };
    let policy = *scheduler.policy();
    if let Some(nice) = scheduler.nice()
        && !(-20..=19).contains(nice)
    {
        found.refuse(
            "process.scheduler.nice",
            format_args!("{nice} is not between -20 and 19"),
        );
    }
    let realtime = matches!(policy, SchedFifo | SchedRr);
    let priority = scheduler.priority().unwrap_or(0);
    if realtime && !(1..=99).contains(&priority) {
        found.refuse(
            "process.scheduler.priority",
            format_args!("{priority} is not between 1 and 99, which {policy} needs"),
        );
    } else if !realtime && priority != 0 {
        found.refuse(
            "process.scheduler.priority",
            "can only be specified for SCHED_FIFO or SCHED_RR policy",
        );
    }
    let deadline = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    for (name, value) in deadline {
        if policy != SchedDeadline && value.is_some_and(|v| v != 0) {
            found.refuse(
                format_args!("process.scheduler.{name}"),
                "can only be specified for SCHED_DEADLINE policy",
            );
        }
    }
    if policy == SchedIso {
        found.refuse(
            "process.scheduler.policy",
            "SCHED_ISO is reserved, Linux does not implement it (sched(7))",
        );
    }
}

fn io_priority(d: &Document, found: &mut Findings) {
    if let Some(io) = d.process.and_then(|p| p.io_priority().as_ref())
        && !(0..=7).contains(&io.priority())
    {
        found.refuse(
            "process.ioPriority.priority",
            format_args!("{} is not between 0 and 7", io.priority()),
        );
    }
}

fn console(d: &Document, found: &mut Findings) {
    let Some(size) = d.process.and_then(|p| p.console_size()) else {
        return;
    };
    for (name, value) in [("height", size.height()), ("width", size.width())] {
        if value > u64::from(u16::MAX) {
            found.refuse(
                format_args!("process.consoleSize.{name}"),
                format_args!("{value} is more than a terminal can have, 65535"),
            );
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Its surroundings

fn names(d: &Document, found: &mut Findings) {
    for (field, name) in [
        ("hostname", d.spec.hostname()),
        ("domainname", d.spec.domainname()),
    ] {
        let Some(name) = name.as_deref().filter(|n| !n.is_empty()) else {
            continue;
        };
        if d.namespace(Kind::Uts).is_none() {
            found.refuse(
                field,
                format_args!("unable to set {field} without a private UTS namespace"),
            );
        }
        // sethostname(2), __NEW_UTS_LEN
        if name.len() > 64 {
            found.refuse(
                field,
                format_args!("has {} bytes; the kernel takes 64", name.len()),
            );
        }
        found.no_nul(field, name);
    }
}

fn annotations(d: &Document, found: &mut Findings) {
    if d.spec
        .annotations()
        .iter()
        .flatten()
        .any(|(key, _)| key.is_empty())
    {
        found.refuse("annotations", "a key is empty");
    }
}

fn mounts(d: &Document, found: &mut Findings) {
    for (i, mount) in d.mounts().iter().enumerate() {
        let destination = mount.destination();
        let options = list(mount.options().as_ref());
        let has = |name: &str| options.iter().any(|o| o == name);
        let field = format_args!("mounts[{i}].destination");
        if destination.as_os_str().is_empty() {
            found.refuse(field, "is empty");
        } else if !destination.is_absolute() {
            // As runc: the specification forbids it, old engines do it.
            found.warn(
                field,
                format_args!("{destination:?}: mount destination not absolute; it is taken from /"),
            );
        }
        if clean(destination) == Path::new("/")
            && !destination.as_os_str().is_empty()
            && !has("remount")
        {
            found.refuse(
                field,
                format_args!(
                    "{destination:?} is the root file system itself, which root.path names"
                ),
            );
        }
        let bind = is_bind(mount);
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        if bind && !has("remount") && source.as_os_str().is_empty() {
            found.refuse(
                format_args!("mounts[{i}].source"),
                "is missing; a bind mount needs one",
            );
        }
        found.no_nul(field, destination.as_os_str().as_bytes());
        found.no_nul(
            format_args!("mounts[{i}].source"),
            source.as_os_str().as_bytes(),
        );
        found.no_nul(
            format_args!("mounts[{i}].type"),
            mount.typ().as_deref().unwrap_or(""),
        );
        for (j, option) in options.iter().enumerate() {
            found.no_nul(format_args!("mounts[{i}].options[{j}]"), option);
        }
    }
}

/// By its options, whatever type it names (runtime-spec config.md#linux-mounts), or by its type.
fn is_bind(mount: &Mount) -> bool {
    let options = list(mount.options().as_ref());
    options.iter().any(|o| o == "bind" || o == "rbind") || mount.typ().as_deref() == Some("bind")
}

/// Files of /proc that a mount may hide: what tools like lxcfs replace, and nothing that anybody
/// trusts. Everything else there decides what the kernel does (CVE-2019-16884: a volume on /proc
/// swallows the write of a security label).
const REPLACEABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

fn mounts_over_proc(d: &Document, found: &mut Findings) {
    for (i, mount) in d.mounts().iter().enumerate() {
        let destination = clean(mount.destination());
        if !destination.starts_with("/proc") {
            continue;
        }
        let field = format_args!("mounts[{i}].destination");
        if destination == Path::new("/proc") {
            // What it says of itself does not count: a bind may call itself `proc`, and any file
            // system may have the source `/proc`.
            let is_proc = match is_bind(mount) {
                // The host's own, for a container that shares its processes.
                true => mount
                    .source()
                    .as_deref()
                    .is_some_and(|s| s.is_absolute() && clean(s) == Path::new("/proc")),
                false => mount.typ().as_deref() == Some("proc"),
            };
            if !is_proc {
                found.refuse(
                    field,
                    format_args!(
                        "{destination:?} cannot be mounted because it is not of type proc"
                    ),
                );
            }
        } else if !REPLACEABLE
            .iter()
            .any(|file| destination == Path::new(file))
        {
            found.refuse(
                field,
                format_args!("{destination:?} cannot be mounted because it is inside /proc"),
            );
        }
    }
}

/// `path` seen from `/`, without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn climbs(path: &Path) -> bool {
    path.components().any(|c| c == Component::ParentDir)
}

fn hooks(d: &Document, found: &mut Findings) {
    let Some(hooks) = d.spec.hooks() else {
        return;
    };
    // Deprecated by the specification, and still what engines use.
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    for (kind, hooks) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (i, hook) in list(hooks.as_ref()).iter().enumerate() {
            one_hook(&format!("hooks.{kind}[{i}]"), hook, found);
        }
    }
}

/// Without a mount namespace, all that is done to mounts is done to the host's, and stays.
fn host_mounts(d: &Document, found: &mut Findings) {
    if d.namespace(Kind::Mount).is_some() {
        return;
    }
    let wishes = [
        ("mounts", !d.mounts().is_empty()),
        (
            "root.readonly",
            d.spec.root().as_ref().and_then(|r| r.readonly()) == Some(true),
        ),
        (
            "linux.rootfsPropagation",
            d.linux.is_some_and(|l| {
                l.rootfs_propagation()
                    .as_deref()
                    .is_some_and(|w| !w.is_empty())
            }),
        ),
    ];
    for (field, _) in wishes.iter().filter(|(_, asked)| *asked) {
        found.refuse(
            field,
            "would change the host's mounts: add a namespace of type mount to linux.namespaces",
        );
    }
}

/// What capset(2) refuses without saying which.
fn capabilities(d: &Document, found: &mut Findings) {
    let Some(sets) = d.process.and_then(|p| p.capabilities().as_ref()) else {
        return;
    };
    for (name, set, limit, within) in [
        ("effective", sets.effective(), "permitted", sets.permitted()),
        (
            "inheritable",
            sets.inheritable(),
            "bounding",
            sets.bounding(),
        ),
    ] {
        let allowed = |cap| within.as_ref().is_some_and(|within| within.contains(cap));
        let beyond = set.iter().flatten().filter(|cap| !allowed(cap));
        let mut beyond: Vec<String> = beyond.map(|cap| format!("CAP_{cap}")).collect();
        beyond.sort();
        if !beyond.is_empty() {
            found.refuse(
                format_args!("process.capabilities.{name}"),
                format_args!("{} not in {limit} too", beyond.join(", ")),
            );
        }
    }
}

fn one_hook(field: &str, hook: &Hook, found: &mut Findings) {
    found.absolute(format_args!("{field}.path"), hook.path());
    for (name, texts) in [("args", hook.args()), ("env", hook.env())] {
        for (i, text) in list(texts.as_ref()).iter().enumerate() {
            found.no_nul(format_args!("{field}.{name}[{i}]"), text);
        }
    }
    // Under runc such a hook runs out of time at once.
    if let Some(timeout) = hook.timeout()
        && timeout <= 0
    {
        found.refuse(
            format_args!("{field}.timeout"),
            format_args!("{timeout} must be greater than zero"),
        );
    }
}

/// With mappings of their own id-mapped mounts need no user namespace of the container's.
fn mounts_id_maps(d: &Document, found: &mut Findings) {
    for (i, mount) in d.mounts().iter().enumerate() {
        let (uids, gids) = (
            list(mount.uid_mappings().as_ref()),
            list(mount.gid_mappings().as_ref()),
        );
        let options = list(mount.options().as_ref());
        let option = options.iter().position(|o| o == "idmap" || o == "ridmap");
        let field = match option {
            Some(j) => format!("mounts[{i}].options[{j}] {:?}", options[j]),
            None if !uids.is_empty() => format!("mounts[{i}].uidMappings"),
            None if !gids.is_empty() => format!("mounts[{i}].gidMappings"),
            None => continue,
        };
        if d.ask.host.rootless {
            // mount_setattr(2): it takes the power over the file system.
            found.refuse(
                &field,
                "id-mapped mounts are not possible for rootless containers",
            );
        }
        if uids.is_empty() && gids.is_empty() && d.namespace(Kind::User).is_none() {
            found.refuse(
                &field,
                format_args!(
                    "without uidMappings and gidMappings of its own the mount takes those of the \
                     container's user namespace, and it has none"
                ),
            );
        }
        for (name, own, other) in [("uid", uids, gids), ("gid", gids, uids)] {
            let field = format!("mounts[{i}].{name}Mappings");
            if own.is_empty() && !other.is_empty() {
                found.refuse(&field, "is missing: both or none of the mappings");
            }
            all_maps(&field, own, found);
        }
        if option.is_none() && mount.typ().as_deref() != Some("bind") {
            let bind = |o: &String| matches!(o.as_str(), "bind" | "rbind");
            if !options.iter().any(bind) {
                found.refuse(&field, "only bind mounts can be id-mapped");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Namespaces

/// A namespace's name in config.json.
fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Mount => "mount",
        Kind::Cgroup => "cgroup",
        Kind::Uts => "uts",
        Kind::Ipc => "ipc",
        Kind::User => "user",
        Kind::Pid => "pid",
        Kind::Network => "network",
        Kind::Time => "time",
    }
}

fn namespaces(d: &Document, found: &mut Findings) {
    let mut seen = HashSet::new();
    for (i, namespace) in d.namespaces().iter().enumerate() {
        let kind = namespace.typ();
        if !seen.insert(kind) {
            found.refuse(
                format_args!("linux.namespaces[{i}]"),
                format_args!("{} is there twice", name_of(kind)),
            );
        }
        if let Some(path) = joined(namespace) {
            found.absolute(format_args!("linux.namespaces[{i}].path"), path);
        }
    }
}

fn rootless(d: &Document, found: &mut Findings) {
    if d.ask.host.euid != 0 && d.namespace(Kind::User).is_none() {
        found.refuse(
            "linux.namespaces",
            "rootless container requires user namespaces; add one of type user",
        );
    }
    let Some(linux) = d.linux.filter(|_| d.ask.host.euid != 0) else {
        return;
    };
    // Of a joined one nothing is known.
    if d.namespace(Kind::User)
        .is_none_or(|user| joined(user).is_some())
    {
        return;
    }
    for (i, mount) in d.mounts().iter().enumerate() {
        for (j, option) in list(mount.options().as_ref()).iter().enumerate() {
            let field = format_args!("mounts[{i}].options[{j}]");
            for (key, name, maps) in [
                ("uid=", "uid", linux.uid_mappings()),
                ("gid=", "gid", linux.gid_mappings()),
            ] {
                let id = option.strip_prefix(key).and_then(|id| id.parse().ok());
                if id.is_some_and(|id| !is_mapped(id, list(maps.as_ref()))) {
                    found.refuse(
                        field,
                        format_args!(
                            "cannot specify {option} mount option for rootless container: \
                             {id} is not mapped by linux.{name}Mappings; remove it, or map a range",
                            id = &option[4..]
                        ),
                    );
                }
            }
        }
    }
}

fn id_mappings(d: &Document, found: &mut Findings) {
    let Some(linux) = d.linux else {
        return;
    };
    let user = d.namespace(Kind::User);
    for (name, maps) in [("uid", linux.uid_mappings()), ("gid", linux.gid_mappings())] {
        let maps = list(maps.as_ref());
        let field = format_args!("linux.{name}Mappings");
        match user {
            None if !maps.is_empty() => found.refuse(
                field,
                "given, but linux.namespaces has no namespace of type user",
            ),
            Some(user) if maps.is_empty() && joined(user).is_none() => found.refuse(
                field,
                format_args!("user namespaces enabled, but no {name} mappings found"),
            ),
            // containerd and CRI-O write both.
            Some(user) if !maps.is_empty() && joined(user).is_some() => found.warn(
                field,
                "ignored: the user namespace that is joined has its own",
            ),
            _ => {}
        }
        all_maps(&field.to_string(), maps, found);
    }
}

fn all_maps(field: &str, maps: &[LinuxIdMapping], found: &mut Findings) {
    // user_namespaces(7): the kernel's limit since 4.15.
    if maps.len() > 340 {
        return found.refuse(
            field,
            format_args!("has {} entries; the kernel takes 340", maps.len()),
        );
    }
    for (i, map) in maps.iter().enumerate() {
        one_map(&format!("{field}[{i}]"), map, &maps[..i], found);
    }
}

fn one_map(field: &str, map: &LinuxIdMapping, before: &[LinuxIdMapping], found: &mut Findings) {
    if map.size() == 0 {
        return found.refuse(format_args!("{field}.size"), "must not be 0");
    }
    for (name, start) in [
        ("containerID", map.container_id()),
        ("hostID", map.host_id()),
    ] {
        // 2^32 - 1 is no id (user_namespaces(7)).
        if u64::from(start) + u64::from(map.size()) > u64::from(u32::MAX) {
            found.refuse(
                format_args!("{field}.{name}"),
                format_args!(
                    "{start} and {} ids from it: there are no ids beyond 4294967294",
                    map.size()
                ),
            );
        }
    }
    let overlap = |a: u32, m: u32, b: u32, n: u32| {
        u64::from(a) < u64::from(b) + u64::from(n) && u64::from(b) < u64::from(a) + u64::from(m)
    };
    let twice = before.iter().any(|b| {
        overlap(b.container_id(), b.size(), map.container_id(), map.size())
            || overlap(b.host_id(), b.size(), map.host_id(), map.size())
    });
    if twice {
        found.refuse(field, "overlaps with a mapping before it");
    }
}

fn time_offsets(d: &Document, found: &mut Findings) {
    let offsets = d.linux.and_then(|l| l.time_offsets().as_ref());
    let Some(offsets) = offsets.filter(|o| !o.is_empty()) else {
        return;
    };
    let field = "linux.timeOffsets";
    match d.namespace(Kind::Time) {
        None => found.refuse(
            field,
            "unable to set time offsets without a private time namespace",
        ),
        Some(time) if joined(time).is_some() => found.refuse(
            field,
            "time offsets cannot be set in a time namespace that is joined by path",
        ),
        Some(_) => {}
    }
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            found.refuse(
                field,
                format_args!("unknown clock {clock:?}; there are monotonic and boottime"),
            );
        } else if offset.nanosecs().is_some_and(|n| n >= 1_000_000_000) {
            found.refuse(
                format_args!("{field}.{clock}.nanosecs"),
                "must be below 1000000000",
            );
        }
    }
}

fn devices(d: &Document, found: &mut Findings) {
    let devices = d.linux.and_then(|l| l.devices().as_ref());
    for (i, device) in list(devices).iter().enumerate() {
        let field = format_args!("linux.devices[{i}].path");
        found.absolute(field, device.path());
        if climbs(device.path()) {
            found.refuse(field, format_args!("{:?} must not hold ..", device.path()));
        } else if device.path().is_absolute() && clean(device.path()) == Path::new("/") {
            found.refuse(field, "/ cannot be a device");
        }
        match device.typ() {
            LinuxDeviceType::A => found.refuse(
                format_args!("linux.devices[{i}].type"),
                "a is no device that can be made; there are b, c, u and p",
            ),
            LinuxDeviceType::P => {}
            LinuxDeviceType::B | LinuxDeviceType::C | LinuxDeviceType::U => {
                // mknod(2) takes 12 and 20 bits, and cuts off what is beyond: another device.
                for (name, number, most) in [
                    ("major", device.major(), 0xfff),
                    ("minor", device.minor(), 0xf_ffff),
                ] {
                    if !(0..=most).contains(&number) {
                        found.refuse(
                            format_args!("linux.devices[{i}].{name}"),
                            format_args!("{number} is not between 0 and {most}"),
                        );
                    }
                }
            }
        }
    }
}

fn net_devices(d: &Document, found: &mut Findings) {
    let devices = d.linux.and_then(|l| l.net_devices().as_ref());
    let Some(devices) = devices.filter(|n| !n.is_empty()) else {
        return;
    };
    let field = "linux.netDevices";
    if d.namespace(Kind::Network).is_none() {
        found.refuse(
            field,
            "unable to move network devices without a private NET namespace",
        );
    }
    if d.ask.host.euid != 0 {
        found.refuse(
            field,
            "unable to move network devices in a rootless container",
        );
    }
    let mut taken = HashSet::new();
    for (name, device) in devices {
        let new = device.name().as_deref().filter(|n| !n.is_empty());
        for name in [Some(name.as_str()), new].into_iter().flatten() {
            if !is_interface_name(name) {
                found.refuse(field, format_args!("{name:?} is no name for a network device: 1 to 15 bytes without space, / and :"));
            }
        }
        let inside = new.unwrap_or(name);
        // A template (`eth%d`) gives each its own.
        if !inside.contains('%') && !taken.insert(inside) {
            found.refuse(field, format_args!("{inside:?} is the name of two devices"));
        }
    }
}

/// As the kernel's dev_valid_name().
fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| {
            matches!(c, '/' | ':' | '\0') || c.is_ascii_whitespace() || c == '\x0b'
        })
}

fn cgroups_path(d: &Document, found: &mut Findings) {
    let path = d.linux.and_then(|l| l.cgroups_path().as_deref());
    if let Some(path) = path {
        if climbs(path) {
            found.refuse(
                "linux.cgroupsPath",
                format_args!("{path:?} must not hold .."),
            );
        }
        found.no_nul("linux.cgroupsPath", path.as_os_str().as_bytes());
    }
    let label = d.linux.and_then(|l| l.mount_label().as_deref());
    found.no_nul("linux.mountLabel", label.unwrap_or_default());
}

/// Kernel parameters that belong to the ipc namespace (ipc_namespaces(7)), beside `fs/mqueue/`.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

fn sysctls(d: &Document, found: &mut Findings) {
    let sysctls = d.linux.and_then(|l| l.sysctl().as_ref());
    for (key, value) in sysctls.into_iter().flatten() {
        let field = format!("linux.sysctl[{key:?}]");
        found.no_nul(&field, key);
        found.no_nul(&field, value);
        let path = sysctl::path(key);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            found.refuse(
                &field,
                "is no kernel parameter: a part of the name is empty, . or ..",
            );
            continue;
        }
        let kind = match path.as_str() {
            "kernel/hostname" => {
                found.refuse(
                    &field,
                    "is not allowed as it conflicts with the OCI \"hostname\" field",
                );
                continue;
            }
            "kernel/domainname" => Kind::Uts,
            path if IPC_SYSCTLS.contains(&path) || path.starts_with("fs/mqueue/") => Kind::Ipc,
            path if path.starts_with("net/") => Kind::Network,
            path if path.starts_with("user/") => Kind::User,
            _ => {
                found.refuse(
                    &field,
                    "is not in a separate kernel namespace: it would change the host",
                );
                continue;
            }
        };
        let name = name_of(kind);
        match d.namespace(kind) {
            None => found.refuse(
                &field,
                format_args!(
                    "is not allowed in the hosts {name} namespace; add one to linux.namespaces"
                ),
            ),
            Some(ns) if joined(ns).is_some_and(|path| is_own(path, kind)) => found.refuse(
                &field,
                format_args!("is not allowed: the {name} namespace that is joined is the host's"),
            ),
            Some(_) => {}
        }
    }
}

/// Whether `path` is the very namespace we are in. One that cannot be looked at is refused when it
/// is joined.
fn is_own(path: &Path, kind: Kind) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = match kind {
        Kind::Network => "net",
        Kind::Mount => "mnt",
        other => name_of(other),
    };
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    match (
        identity(path),
        identity(&Path::new("/proc/self/ns").join(own)),
    ) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => false,
    }
}

const PROPAGATIONS: [&str; 8] = [
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

fn propagation(d: &Document, found: &mut Findings) {
    let value = d.linux.and_then(|l| l.rootfs_propagation().as_deref());
    if let Some(value) = value.filter(|v| !v.is_empty())
        && !PROPAGATIONS.contains(&value)
    {
        let known = PROPAGATIONS.join(", ");
        found.refuse(
            "linux.rootfsPropagation",
            format_args!("{value:?} is not one of {known}"),
        );
    }
}

fn hidden_paths(d: &Document, found: &mut Findings) {
    let Some(linux) = d.linux else {
        return;
    };
    let mut any = false;
    for (name, paths) in [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ] {
        for (i, path) in list(paths.as_ref()).iter().enumerate() {
            found.absolute(format_args!("linux.{name}[{i}]"), Path::new(path));
            any = true;
        }
    }
    if any && d.namespace(Kind::Mount).is_none() {
        found.refuse("linux.namespaces", "unable to restrict sys entries without a private MNT namespace (linux.maskedPaths, linux.readonlyPaths)");
    }
}

fn personality(d: &Document, found: &mut Findings) {
    let personality = d.linux.and_then(|l| l.personality().as_ref());
    if personality.is_some_and(|p| !list(p.flags().as_ref()).is_empty()) {
        found.warn(
            "linux.personality.flags",
            "ignored: the specification defines none yet",
        );
    }
}

fn memory_policy(d: &Document, found: &mut Findings) {
    use MemoryPolicyFlagType::{MpolFNumaBalancing, MpolFRelativeNodes, MpolFStaticNodes};
    use MemoryPolicyModeType::{
        MpolBind, MpolDefault, MpolLocal, MpolPreferred, MpolPreferredMany,
    };
    let Some(policy) = d.linux.and_then(|l| l.memory_policy().as_ref()) else {
        return;
    };
    let (mode, nodes) = (policy.mode(), policy.nodes().as_deref().unwrap_or(""));
    if let Err(why) = nodes_of(nodes) {
        found.refuse("linux.memoryPolicy.nodes", why);
    }
    // set_mempolicy(2): EINVAL, without saying which.
    let empty = nodes.trim().is_empty();
    match mode {
        MpolDefault | MpolLocal if !empty => found.refuse(
            "linux.memoryPolicy.nodes",
            format_args!("must be empty with {mode}"),
        ),
        MpolDefault | MpolLocal | MpolPreferred => {}
        _ if empty => found.refuse(
            "linux.memoryPolicy.nodes",
            format_args!("is missing, which {mode} needs"),
        ),
        _ => {}
    }
    let flags = list(policy.flags().as_ref());
    let field = "linux.memoryPolicy.flags";
    if flags.contains(&MpolFStaticNodes) && flags.contains(&MpolFRelativeNodes) {
        found.refuse(
            field,
            "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude one another",
        );
    }
    if flags.contains(&MpolFNumaBalancing) && !matches!(mode, MpolBind | MpolPreferredMany) {
        found.refuse(
            field,
            format_args!("MPOL_F_NUMA_BALANCING does not go with {mode}"),
        );
    }
}

/// Whether `text` is a list of node numbers (`0-3,7`); the kernel has 1024 at most.
fn nodes_of(text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |n: &str| n.trim().parse::<u16>().ok().filter(|n| *n < 1024);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {}
            _ => {
                return Err(format!(
                    "{part:?} is neither a node number below 1024 nor a range of them"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::config;
    use crate::runtime::plan::{default_spec, example_ask as ask};
    use serde_json::{Value, json};

    fn default() -> Value {
        serde_json::from_str(&default_spec::text()).unwrap()
    }

    /// Puts `value` at `pointer`; a last part `+` appends, `null` removes.
    fn put(tree: &mut Value, pointer: &str, value: Value) {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match (tree.pointer_mut(parent).unwrap(), name) {
            (Value::Array(list), "+") => list.push(value),
            (Value::Array(list), n) => list[n.parse::<usize>().unwrap()] = value,
            (Value::Object(object), name) if value.is_null() => drop(object.remove(name)),
            (Value::Object(object), name) => drop(object.insert(name.into(), value)),
            (other, _) => panic!("{pointer}: {other}"),
        }
    }

    fn checked(tree: &Value, ask: &Ask) -> Result<Vec<String>, String> {
        let (spec, _) = config::parse(tree.to_string().as_bytes()).unwrap();
        check(&spec, ask).map_err(|e| format!("{e:#}"))
    }

    type Change = (&'static str, Value);

    fn with(changes: &[Change]) -> Result<Vec<String>, String> {
        let mut tree = default();
        for (pointer, value) in changes {
            put(&mut tree, pointer, value.clone());
        }
        checked(&tree, &ask())
    }

    fn mount(destination: &str, kind: &str, source: &str) -> Value {
        json!({ "destination": destination, "type": kind, "source": source })
    }

    #[test]
    fn each_violation_is_named() {
        let no_uts = json!([{ "type": "mount" }]);
        let time = json!({ "type": "time" });
        let user = json!({ "type": "user" });
        let map = |container: u32, host: u32, size: u32| json!({ "containerID": container, "hostID": host, "size": size });
        let table: Vec<(Vec<Change>, &str)> = vec![
            (vec![("/root", Value::Null)], "root: is missing"),
            (
                vec![("/root/path", json!(""))],
                "root.path: is empty; name the directory of the root file system",
            ),
            (
                vec![("/root/path", json!("a\0b"))],
                r#"root.path: "a\0b" holds a NUL byte"#,
            ),
            (vec![("/process", Value::Null)], "process: is missing"),
            (
                vec![("/process/args", Value::Null)],
                "process.args: must not be empty",
            ),
            (
                vec![("/process/args", json!([]))],
                "process.args: must not be empty",
            ),
            (
                vec![("/process/args", json!(["a", "b\0"]))],
                r#"process.args[1]: "b\0" holds a NUL byte"#,
            ),
            (
                vec![("/process/cwd", json!(""))],
                "process.cwd: Cwd property must not be empty",
            ),
            (
                vec![("/process/cwd", json!("a"))],
                r#"process.cwd: "a": Cwd must be an absolute path"#,
            ),
            (
                vec![("/process/env", json!(["A"]))],
                r#"process.env[0]: invalid environment variable: "A", it has no ="#,
            ),
            (
                vec![("/process/env", json!(["=A"]))],
                r#"process.env[0]: environment variable name can't be empty: "=A""#,
            ),
            (
                vec![("/process/env", json!(["A=\0"]))],
                r#"process.env[0]: "A=\0" holds a NUL byte"#,
            ),
            (
                vec![(
                    "/process/rlimits/+",
                    json!({ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }),
                )],
                "process.rlimits[1]: RLIMIT_NOFILE: soft limit 2 is above hard limit 1; process.rlimits[1]: RLIMIT_NOFILE is there twice",
            ),
            (
                vec![("/process/capabilities/permitted", json!(["CAP_KILL"]))],
                "process.capabilities.effective: CAP_AUDIT_WRITE, CAP_NET_BIND_SERVICE not in permitted too",
            ),
            (
                vec![("/process/capabilities/inheritable", json!(["CAP_CHOWN"]))],
                "process.capabilities.inheritable: CAP_CHOWN not in bounding too",
            ),
            (
                vec![("/process/oomScoreAdj", json!(1001))],
                "process.oomScoreAdj: 1001 is not between -1000 and 1000",
            ),
            (
                vec![("/process/user/uid", json!(u32::MAX))],
                "process.user.uid: 4294967295 means no id at all",
            ),
            (
                vec![(
                    "/process/scheduler",
                    json!({ "policy": "SCHED_OTHER", "priority": 5 }),
                )],
                "process.scheduler.priority: can only be specified for SCHED_FIFO or SCHED_RR policy",
            ),
            (
                vec![("/process/scheduler", json!({ "policy": "SCHED_FIFO" }))],
                "process.scheduler.priority: 0 is not between 1 and 99, which SCHED_FIFO needs",
            ),
            (
                vec![(
                    "/process/scheduler",
                    json!({ "policy": "SCHED_BATCH", "nice": 20, "period": 1 }),
                )],
                "process.scheduler.nice: 20 is not between -20 and 19; process.scheduler.period: can only be specified for SCHED_DEADLINE policy",
            ),
            (
                vec![(
                    "/process/ioPriority",
                    json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
                )],
                "process.ioPriority.priority: 8 is not between 0 and 7",
            ),
            (
                vec![(
                    "/process/consoleSize",
                    json!({ "height": 65536, "width": 1 }),
                )],
                "process.consoleSize.height: 65536 is more than a terminal can have, 65535",
            ),
            (
                vec![
                    ("/linux/namespaces", no_uts.clone()),
                    ("/domainname", json!("d")),
                ],
                "hostname: unable to set hostname without a private UTS namespace; domainname: unable to set domainname without a private UTS namespace",
            ),
            (
                vec![("/hostname", json!("x".repeat(65)))],
                "hostname: has 65 bytes; the kernel takes 64",
            ),
            (
                vec![("/mounts/+", mount("", "tmpfs", "x"))],
                "mounts[7].destination: is empty",
            ),
            (
                vec![("/mounts/+", mount("/a/../.", "tmpfs", "x"))],
                r#"mounts[7].destination: "/a/../." is the root file system itself, which root.path names"#,
            ),
            (
                vec![("/mounts/+", mount("/a", "bind", ""))],
                "mounts[7].source: is missing; a bind mount needs one",
            ),
            (
                vec![("/mounts/+", mount("/tmp/../proc/", "tmpfs", "x"))],
                r#"mounts[7].destination: "/proc" cannot be mounted because it is not of type proc"#,
            ),
            (
                vec![("/mounts/+", mount("/proc", "bind", "/srv/proc"))],
                r#"mounts[7].destination: "/proc" cannot be mounted because it is not of type proc"#,
            ),
            (
                vec![("/mounts/+", mount("/proc", "tmpfs", "/proc"))],
                r#"mounts[7].destination: "/proc" cannot be mounted because it is not of type proc"#,
            ),
            (
                vec![(
                    "/mounts/+",
                    json!({ "destination": "/proc", "type": "proc", "source": "/srv/proc", "options": ["rbind"] }),
                )],
                r#"mounts[7].destination: "/proc" cannot be mounted because it is not of type proc"#,
            ),
            (
                vec![("/mounts/+", mount("/proc/sys", "proc", "proc"))],
                r#"mounts[7].destination: "/proc/sys" cannot be mounted because it is inside /proc"#,
            ),
            (
                vec![("/mounts/+", mount("proc/self/attr", "bind", "/x"))],
                r#"mounts[7].destination: "/proc/self/attr" cannot be mounted because it is inside /proc"#,
            ),
            (
                vec![(
                    "/hooks",
                    json!({ "prestart": [{ "path": "/a" }, { "path": "a", "timeout": 0 }] }),
                )],
                r#"hooks.prestart[1].path: "a" must be an absolute path; hooks.prestart[1].timeout: 0 must be greater than zero"#,
            ),
            (
                vec![(
                    "/hooks",
                    json!({ "poststop": [{ "path": "/a", "args": ["\0"] }] }),
                )],
                r#"hooks.poststop[0].args[0]: "\0" holds a NUL byte"#,
            ),
            (
                vec![("/linux/namespaces/+", json!({ "type": "pid", "path": "x" }))],
                r#"linux.namespaces[6]: pid is there twice; linux.namespaces[6].path: "x" must be an absolute path"#,
            ),
            (
                vec![("/linux/namespaces/+", user.clone())],
                "linux.uidMappings: user namespaces enabled, but no uid mappings found; linux.gidMappings: user namespaces enabled, but no gid mappings found",
            ),
            (
                vec![("/linux/uidMappings", json!([map(0, 0, 1)]))],
                "linux.uidMappings: given, but linux.namespaces has no namespace of type user",
            ),
            (
                vec![
                    ("/linux/namespaces/+", user.clone()),
                    ("/linux/uidMappings", json!([map(0, 0, 0)])),
                    (
                        "/linux/gidMappings",
                        json!([map(0, 5, 10), map(9, 50, 1), map(10, u32::MAX, 1)]),
                    ),
                ],
                "process.user.uid: 0 is not mapped by linux.uidMappings; linux.uidMappings[0].size: must not be 0; linux.gidMappings[1]: overlaps with a mapping before it; linux.gidMappings[2].hostID: 4294967295 and 1 ids from it: there are no ids beyond 4294967294",
            ),
            (
                vec![
                    ("/linux/namespaces/+", user),
                    ("/linux/uidMappings", json!([map(0, 5, 1)])),
                    ("/linux/gidMappings", json!([map(0, 5, 10)])),
                    (
                        "/process/user",
                        json!({ "uid": 1, "additionalGids": [9, 10] }),
                    ),
                ],
                "process.user.uid: 1 is not mapped by linux.uidMappings; process.user.additionalGids[1]: 10 is not mapped by linux.gidMappings",
            ),
            (
                vec![("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }))],
                "linux.timeOffsets: unable to set time offsets without a private time namespace",
            ),
            (
                vec![
                    (
                        "/linux/namespaces/+",
                        json!({ "type": "time", "path": "/x" }),
                    ),
                    ("/linux/timeOffsets", json!({ "boottime": {} })),
                ],
                "linux.timeOffsets: time offsets cannot be set in a time namespace that is joined by path",
            ),
            (
                vec![
                    ("/linux/namespaces/+", time),
                    (
                        "/linux/timeOffsets",
                        json!({ "monotonic": { "nanosecs": 1000000000 } }),
                    ),
                ],
                r#"linux.timeOffsets.monotonic.nanosecs: must be below 1000000000"#,
            ),
            (
                vec![
                    ("/linux/namespaces/+", json!({ "type": "time" })),
                    ("/linux/timeOffsets", json!({ "tai": {} })),
                ],
                r#"linux.timeOffsets: unknown clock "tai"; there are monotonic and boottime"#,
            ),
            (
                vec![(
                    "/linux/devices",
                    json!([{ "path": "dev/x", "type": "c", "major": -1, "minor": 1048576 }]),
                )],
                r#"linux.devices[0].path: "dev/x" must be an absolute path; linux.devices[0].major: -1 is not between 0 and 4095; linux.devices[0].minor: 1048576 is not between 0 and 1048575"#,
            ),
            (
                vec![(
                    "/linux/devices",
                    json!([{ "path": "/dev/../x", "type": "a" }]),
                )],
                r#"linux.devices[0].path: "/dev/../x" must not hold ..; linux.devices[0].type: a is no device that can be made; there are b, c, u and p"#,
            ),
            (
                vec![("/linux/netDevices", json!({ "a/b": {} }))],
                r#"linux.netDevices: "a/b" is no name for a network device: 1 to 15 bytes without space, / and :"#,
            ),
            (
                vec![(
                    "/linux/netDevices",
                    json!({ "eth0": { "name": "x" }, "x": {} }),
                )],
                r#"linux.netDevices: "x" is the name of two devices"#,
            ),
            (
                vec![("/linux/cgroupsPath", json!("../up"))],
                r#"linux.cgroupsPath: "../up" must not hold .."#,
            ),
            (
                vec![("/linux/sysctl", json!({ "kernel.panic": "1" }))],
                r#"linux.sysctl["kernel.panic"]: is not in a separate kernel namespace: it would change the host"#,
            ),
            (
                vec![("/linux/sysctl", json!({ "kernel/hostname": "1" }))],
                r#"linux.sysctl["kernel/hostname"]: is not allowed as it conflicts with the OCI "hostname" field"#,
            ),
            (
                vec![("/linux/sysctl", json!({ "net.//.kernel.panic": "1" }))],
                r#"linux.sysctl["net.//.kernel.panic"]: is no kernel parameter: a part of the name is empty, . or .."#,
            ),
            (
                vec![("/linux/sysctl", json!({ "net/../kernel/panic": "1" }))],
                r#"linux.sysctl["net/../kernel/panic"]: is no kernel parameter: a part of the name is empty, . or .."#,
            ),
            (
                vec![("/linux/sysctl", json!({ "user.max_pid_namespaces": "1" }))],
                r#"linux.sysctl["user.max_pid_namespaces"]: is not allowed in the hosts user namespace; add one to linux.namespaces"#,
            ),
            (
                vec![
                    (
                        "/linux/namespaces/1",
                        json!({ "type": "network", "path": "/proc/self/ns/net" }),
                    ),
                    ("/linux/sysctl", json!({ "net.x": "1" })),
                ],
                r#"linux.sysctl["net.x"]: is not allowed: the network namespace that is joined is the host's"#,
            ),
            (
                vec![("/linux/rootfsPropagation", json!("r"))],
                r#"linux.rootfsPropagation: "r" is not one of private, rprivate, slave, rslave, shared, rshared, unbindable, runbindable"#,
            ),
            (
                vec![("/linux/maskedPaths", json!(["", "a"]))],
                r#"linux.maskedPaths[0]: is empty; linux.maskedPaths[1]: "a" must be an absolute path"#,
            ),
            (
                vec![
                    ("/linux/namespaces/4", json!({ "type": "time" })),
                    ("/mounts", json!([])),
                    ("/root/readonly", json!(false)),
                ],
                "linux.namespaces: unable to restrict sys entries without a private MNT namespace (linux.maskedPaths, linux.readonlyPaths)",
            ),
            (
                vec![(
                    "/linux/memoryPolicy",
                    json!({ "mode": "MPOL_BIND", "nodes": "1-0" }),
                )],
                r#"linux.memoryPolicy.nodes: "1-0" is neither a node number below 1024 nor a range of them"#,
            ),
            (
                vec![("/linux/memoryPolicy", json!({ "mode": "MPOL_INTERLEAVE" }))],
                "linux.memoryPolicy.nodes: is missing, which MPOL_INTERLEAVE needs",
            ),
            (
                vec![(
                    "/linux/memoryPolicy",
                    json!({ "mode": "MPOL_LOCAL", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }),
                )],
                "linux.memoryPolicy.nodes: must be empty with MPOL_LOCAL; linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING does not go with MPOL_LOCAL",
            ),
            (
                vec![("/annotations", json!({ "": "x" }))],
                "annotations: a key is empty",
            ),
        ];
        for (changes, said) in table {
            assert_eq!(with(&changes), Err(said.to_owned()), "{changes:?}");
        }
    }

    #[test]
    fn what_this_version_lacks_is_refused_by_name() {
        let all = with(&[("/linux/intelRdt", json!({}))]);
        let said = "linux.intelRdt: not supported by this version";
        assert_eq!(all, Err(said.to_owned()));
    }

    #[test]
    fn what_is_right_or_only_odd_passes() {
        let none: [&str; 0] = [];
        let time = json!({ "type": "time" });
        let user = json!({ "type": "user", "path": "/proc/1/ns/user" });
        let table: Vec<(Vec<Change>, &[&str])> = vec![
            (vec![("/mounts/+", mount("/proc", "bind", "/proc"))], &none),
            (
                vec![("/mounts/+", mount("/proc/uptime", "bind", "/x"))],
                &none,
            ),
            (vec![("/mounts/+", mount("/process", "tmpfs", "x"))], &none),
            (
                vec![(
                    "/mounts/+",
                    json!({ "destination": "/", "options": ["remount", "ro"] }),
                )],
                &none,
            ),
            (
                vec![("/mounts/+", mount("tmp", "tmpfs", "x"))],
                &[
                    r#"mounts[7].destination: "tmp": mount destination not absolute; it is taken from /"#,
                ],
            ),
            (
                vec![(
                    "/linux/personality",
                    json!({ "domain": "LINUX32", "flags": ["X"] }),
                )],
                &["linux.personality.flags: ignored: the specification defines none yet"],
            ),
            (
                vec![
                    ("/linux/namespaces/+", time),
                    (
                        "/linux/timeOffsets",
                        json!({ "boottime": { "secs": -1, "nanosecs": 1 } }),
                    ),
                ],
                &none,
            ),
            (
                vec![
                    ("/linux/namespaces/+", user),
                    ("/process/user/uid", json!(7)),
                ],
                &none,
            ),
            (
                vec![(
                    "/linux/sysctl",
                    json!({ "net.ipv4.conf.eth0/1.forwarding": "1", "kernel/shmmax": "1", "fs.mqueue.msg_max": "1", "kernel.domainname": "d" }),
                )],
                &none,
            ),
            (
                vec![(
                    "/linux/netDevices",
                    json!({ "a": { "name": "eth%d" }, "b": { "name": "eth%d" }, "c": {} }),
                )],
                &none,
            ),
            (vec![("/linux/rootfsPropagation", json!("rslave"))], &none),
            (vec![("/linux/rootfsPropagation", json!(""))], &none),
            (
                vec![(
                    "/linux/memoryPolicy",
                    json!({ "mode": "MPOL_BIND", "nodes": "0, 2-3", "flags": ["MPOL_F_STATIC_NODES"] }),
                )],
                &none,
            ),
            (
                vec![(
                    "/process/scheduler",
                    json!({ "policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3 }),
                )],
                &none,
            ),
            (
                vec![(
                    "/linux/devices",
                    json!([{ "path": "/run/pipe", "type": "p", "major": -1 }]),
                )],
                &none,
            ),
        ];
        for (changes, warnings) in table {
            assert_eq!(
                with(&changes).as_deref(),
                Ok(warnings
                    .iter()
                    .map(|w| w.to_string())
                    .collect::<Vec<_>>()
                    .as_slice()),
                "{changes:?}"
            );
        }
    }

    #[test]
    fn without_a_mount_namespace_the_hosts_mounts_stay_as_they_are() {
        let said = with(&[
            ("/linux/namespaces", json!([{ "type": "uts" }])),
            ("/linux/rootfsPropagation", json!("shared")),
            ("/linux/maskedPaths", json!([])),
            ("/linux/readonlyPaths", json!([])),
        ]);
        let why =
            "would change the host's mounts: add a namespace of type mount to linux.namespaces";
        assert_eq!(
            said,
            Err(format!(
                "mounts: {why}; root.readonly: {why}; linux.rootfsPropagation: {why}"
            ))
        );
    }

    #[test]
    fn of_very_many_violations_the_first_are_said_and_the_rest_counted() {
        let said = with(&[("/process/env", json!(vec!["x"; 1000]))]).unwrap_err();
        assert!(said.ends_with("; and 980 more"), "{said}");
        assert_eq!(said.matches("; ").count(), 20);
        let many: Vec<_> = (0..200_000)
            .map(|i| json!({ "type": if i < 100_000 { "pid" } else { "ipc" } }))
            .collect();
        assert!(with(&[("/linux/namespaces", json!(many))]).is_err());
        let map: Vec<_> = (0..100_000)
            .map(|i| json!({ "containerID": i, "hostID": i, "size": 1 }))
            .collect();
        let user = json!({ "type": "user" });
        let one = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        assert_eq!(
            with(&[
                ("/linux/namespaces/+", user),
                ("/linux/uidMappings", json!(map)),
                ("/linux/gidMappings", one),
            ]),
            Err("linux.uidMappings: has 100000 entries; the kernel takes 340".to_owned())
        );
    }

    #[test]
    fn mounts_are_id_mapped_by_both_maps_or_the_containers() {
        let bind = |more: Value| {
            let mut mount = json!({ "destination": "/x", "type": "bind", "source": "/y" });
            mount
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            ("/mounts/+", mount)
        };
        let line = |size: u32| json!([{ "containerID": 0, "hostID": 0, "size": size }]);
        let maps = line(9);
        let both = json!({ "uidMappings": maps, "gidMappings": maps });
        assert_eq!(with(&[bind(both.clone())]), Ok(vec![]));
        let mut ridmap = both.clone();
        ridmap["options"] = json!(["rbind", "ridmap"]);
        assert_eq!(with(&[bind(ridmap)]), Ok(vec![]));
        let idmap = bind(json!({ "options": ["idmap"] }));
        let user = (
            "/linux/namespaces/+",
            json!({ "type": "user", "path": "/u" }),
        );
        assert_eq!(with(&[idmap.clone(), user]), Ok(vec![]));
        for (mount, said) in [
            (
                idmap,
                r#"mounts[7].options[0] "idmap": without uidMappings and gidMappings of its own the mount takes those of the container's user namespace, and it has none"#,
            ),
            (
                bind(json!({ "uidMappings": maps })),
                "mounts[7].gidMappings: is missing: both or none of the mappings",
            ),
            (
                bind(json!({ "uidMappings": maps, "gidMappings": line(0) })),
                "mounts[7].gidMappings[0].size: must not be 0",
            ),
            (
                bind(json!({ "type": "tmpfs", "uidMappings": maps, "gidMappings": maps })),
                "mounts[7].uidMappings: only bind mounts can be id-mapped",
            ),
        ] {
            assert_eq!(with(&[mount]), Err(said.to_owned()));
        }
    }

    #[test]
    fn without_root_a_user_namespace_is_needed() {
        let mut ask = ask();
        ask.host.euid = 1000;
        let said =
            "linux.namespaces: rootless container requires user namespaces; add one of type user";
        assert_eq!(checked(&default(), &ask), Err(said.to_owned()));
    }

    #[test]
    fn a_process_can_be_checked_alone() {
        let (process, _) = config::parse_process(br#"{"args": [], "cwd": ""}"#).unwrap();
        assert_eq!(
            check_process(
                &process,
                &serde_json::from_value(default()).unwrap(),
                &ask()
            )
            .unwrap_err()
            .to_string(),
            "process.args: must not be empty; process.cwd: Cwd property must not be empty"
        );
    }

    /// xorshift64: the same series each time.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % sides.max(1) as u64) as usize
        }
    }

    /// Everything at once, so that each check sees something.
    fn everything() -> Value {
        let mut tree = default();
        for (pointer, value) in [
            (
                "/process/scheduler",
                json!({ "policy": "SCHED_FIFO", "priority": 5, "flags": ["SCHED_FLAG_RECLAIM"], "nice": 1 }),
            ),
            (
                "/process/ioPriority",
                json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 }),
            ),
            ("/process/consoleSize", json!({ "height": 4, "width": 5 })),
            ("/process/user/additionalGids", json!([1, 2])),
            (
                "/hooks",
                json!({ "prestart": [{ "path": "/a", "timeout": 4 }], "poststop": [{ "path": "/a", "env": ["A=B"] }] }),
            ),
            ("/linux/namespaces/+", json!({ "type": "user" })),
            ("/linux/namespaces/+", json!({ "type": "time" })),
            (
                "/linux/uidMappings",
                json!([{ "containerID": 0, "hostID": 1, "size": 9 }]),
            ),
            (
                "/linux/gidMappings",
                json!([{ "containerID": 0, "hostID": 1, "size": 9 }]),
            ),
            (
                "/linux/timeOffsets",
                json!({ "monotonic": { "secs": 1, "nanosecs": 2 } }),
            ),
            (
                "/linux/devices",
                json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 438 }]),
            ),
            ("/linux/netDevices", json!({ "eth0": { "name": "e" } })),
            (
                "/linux/sysctl",
                json!({ "net.ipv4.ip_forward": "1", "kernel/sem": "1" }),
            ),
            (
                "/linux/memoryPolicy",
                json!({ "mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"] }),
            ),
            ("/linux/personality", json!({ "domain": "LINUX" })),
            ("/linux/rootfsPropagation", json!("rslave")),
            ("/linux/cgroupsPath", json!("/a/b")),
            ("/annotations", json!({ "a": "b" })),
        ] {
            put(&mut tree, pointer, value);
        }
        tree
    }

    fn strange(dice: &mut Dice) -> Value {
        let values = [
            Value::Null,
            json!(""),
            json!("\0"),
            json!(".."),
            json!("../../x"),
            json!("/"),
            json!("//proc/../proc/self"),
            json!(0),
            json!(-1),
            json!(u32::MAX),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(1e300),
            json!(true),
            json!([]),
            json!({}),
            json!([[]]),
            json!([""]),
            json!({ "": "" }),
            json!("é\u{1f4a9}\n"),
            json!("x".repeat(5000)),
            json!("remount"),
            json!("user"),
            json!("p"),
            json!("-"),
            json!("0-"),
            json!(","),
            json!("rr"),
            json!("%d"),
            json!("="),
        ];
        values[dice.roll(values.len())].clone()
    }

    /// Changes one value somewhere in `tree`.
    fn mutate(tree: &mut Value, dice: &mut Dice) {
        let deeper = dice.roll(8) != 0;
        match tree {
            Value::Object(entries) if deeper && !entries.is_empty() => {
                let nth = dice.roll(entries.len());
                if let Some(value) = entries.values_mut().nth(nth) {
                    return mutate(value, dice);
                }
            }
            Value::Array(list) if deeper && !list.is_empty() => {
                let nth = dice.roll(list.len());
                if dice.roll(4) == 0 {
                    let copy = list[nth].clone();
                    list.push(copy);
                    return;
                }
                return mutate(&mut list[nth], dice);
            }
            _ => {}
        }
        *tree = strange(dice);
    }

    #[test]
    fn no_document_makes_it_panic_and_every_refusal_is_one_line() {
        assert_eq!(checked(&everything(), &ask()), Ok(vec![]));
        let mut dice = Dice(0x5eed_0001);
        let (mut refused, mut passed) = (0, 0);
        for _ in 0..1500 {
            let mut tree = everything();
            for _ in 0..=dice.roll(4) {
                mutate(&mut tree, &mut dice);
            }
            let mut text = tree.to_string().into_bytes();
            if dice.roll(10) == 0 {
                text.truncate(dice.roll(text.len()));
            }
            let said = match config::parse(&text) {
                Err(e) => format!("{e:#}"),
                Ok((spec, _)) => match check(&spec, &ask()) {
                    Ok(_) => {
                        passed += 1;
                        continue;
                    }
                    Err(e) => format!("{e:#}"),
                },
            };
            refused += 1;
            assert!(
                !said.is_empty() && !said.chars().any(char::is_control),
                "{said:?}"
            );
        }
        assert!(
            refused > 400 && passed > 80,
            "{refused} refused, {passed} passed"
        );
    }
}
