//! The plan as text: one act a line, in the order of the performance.
//!
//! For eyes, and for the golden files of `bundles/examples`: a change of what is done for a
//! config.json shows as a change of lines.

use super::mounts::joined;
use super::unit::{Manager, Property, UnitPlan};
use super::{
    Attr, CgroupPlan, CloneRoute, Hook, IdMap, InitPlan, Mount, MountIdMap, MountIds, MountKind,
    Parameter, ParentPlan, Plan, ProcessPlan, RootfsPlan, TimeOffset, process,
};
use std::path::Path;

/// The whole plan, as lines; first the parent's part, then init's.
pub fn show(plan: &Plan) -> String {
    let mut out = Lines(String::new());
    for warning in &plan.warnings {
        out.push(format!("warning: {warning}"));
    }
    out.push("parent");
    parent(&plan.parent, &mut out);
    out.push("init");
    init(&plan.init, &mut out);
    for (key, value) in &plan.annotations {
        out.push(format!("annotation {key:?} = {value:?}"));
    }
    out.0
}

struct Lines(String);

impl Lines {
    fn push(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// Below the one who performs it.
    fn act(&mut self, line: impl AsRef<str>) {
        self.0.push_str("  ");
        self.push(line);
    }
}

fn time(offsets: &[TimeOffset], out: &mut Lines) {
    if !offsets.is_empty() {
        out.act("new time namespace");
    }
    for offset in offsets {
        let (clock, secs, nanos) = (&offset.clock, offset.secs, offset.nanos);
        out.act(format!("offset {clock} by {secs}s {nanos}ns"));
    }
}

fn parent(plan: &ParentPlan, out: &mut Lines) {
    if let Some(unit) = &plan.unit {
        self::unit(unit, out);
    }
    cgroup(&plan.cgroup, out);
    if let Some(path) = &plan.clone.pid_namespace {
        out.act(format!("enter pid namespace {path:?} for the clone"));
    }
    time(&plan.time_offsets, out);
    let route = match plan.clone.route {
        CloneRoute::Direct => "clone",
        CloneRoute::Joiner => "clone joiner, which clones",
    };
    out.act(format!(
        "{route}{}",
        words(" new", &new_namespaces(plan.clone.new))
    ));
    id_map("uid", &plan.uid_map, out);
    id_map("gid", &plan.gid_map, out);
    if let Some(score) = plan.oom_score_adj {
        out.act(format!("oom_score_adj {score}"));
    }
    for device in &plan.net_devices {
        let name = device.new_name.as_ref().unwrap_or(&device.host_name);
        out.act(format!(
            "move network device {:?} in as {name:?}",
            device.host_name
        ));
    }
    hooks("prestart", &plan.prestart, out);
    hooks("createRuntime", &plan.create_runtime, out);
    for limit in &plan.rlimits {
        let value = |n: u64| match n {
            u64::MAX => "unlimited".to_owned(),
            n => n.to_string(),
        };
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        out.act(format!(
            "limit {} ({}) {soft} {hard}",
            limit.name, limit.resource
        ));
    }
    hooks("poststart", &plan.poststart, out);
    hooks("poststop", &plan.poststop, out);
}

fn unit(plan: &UnitPlan, out: &mut Lines) {
    let manager = match plan.manager {
        Manager::System => "systemd",
        Manager::User => "systemd --user",
    };
    out.act(format!("unit {} of {manager}, with init", plan.name));
    for Property { name, value, .. } in &plan.properties {
        out.act(format!("property {name} = {value:?}"));
    }
}

fn cgroup(plan: &CgroupPlan, out: &mut Lines) {
    let optional = if plan.optional { ", or none" } else { "" };
    out.act(format!("cgroup {}{optional}", plan.path.display()));
    for write in &plan.writes {
        let optional = if write.optional { ", if there" } else { "" };
        let instead = match &write.instead {
            Some(other) => format!(", else {} = {:?}", other.file, other.value),
            None => String::new(),
        };
        let (file, value, field) = (&write.file, &write.value, &write.field);
        out.act(format!(
            "write {file} = {value:?}{optional}{instead} ({field})"
        ));
    }
    if let Some(uid) = plan.owner {
        out.act(format!("give the cgroup to uid {uid}"));
    }
    if plan.check_before_update {
        out.act("refuse a memory limit below what is in use");
    }
    if let Some(program) = &plan.device_program {
        let optional = match plan.device_program_optional {
            true => ", if allowed to",
            false => "",
        };
        out.act(format!(
            "load device program of {} instructions{optional}",
            program.len()
        ));
    }
}

fn id_map(kind: &str, map: &[IdMap], out: &mut Lines) {
    for line in map {
        let IdMap {
            container,
            host,
            size,
        } = line;
        out.act(format!("map {kind} {container} to {host}, {size} of them"));
    }
}

fn hooks(kind: &str, hooks: &[Hook], out: &mut Lines) {
    for hook in hooks {
        let timeout = hook
            .timeout
            .map_or(String::new(), |s| format!(", {s}s at most"));
        let (path, args, env) = (&hook.path, &hook.args, &hook.env);
        out.act(format!(
            "run {kind} hook {path:?} {args:?} env {env:?}{timeout}"
        ));
    }
}

fn init(plan: &InitPlan, out: &mut Lines) {
    for join in &plan.join {
        out.act(format!("join {} namespace {:?}", join.name, join.path));
    }
    if plan.wait_for_cgroup {
        out.act("wait for the cgroup");
    }
    if plan.wait_for_welcome {
        out.act("wait for the parent's welcome");
    }
    if plan.in_user_namespace {
        out.act("become root of the user namespace");
    }
    time(&plan.time_offsets, out);
    if plan.unshare != 0 {
        let new = new_namespaces(plan.unshare).join(" ");
        out.act(format!("unshare {new}"));
    }
    if let Some(name) = &plan.keyring {
        out.act(format!("new session keyring {name:?}"));
    }
    if plan.loopback_up {
        out.act("bring lo up");
    }
    if let Some(tree) = &plan.rootfs {
        build(tree, plan.in_user_namespace, out);
        hooks("createContainer", &plan.create_container, out);
        enter(tree, out);
    }
    for (what, name) in [
        ("hostname", &plan.hostname),
        ("domainname", &plan.domainname),
    ] {
        if let Some(name) = name {
            out.act(format!("{what} {name:?}"));
        }
    }
    for (path, value) in &plan.sysctls {
        out.act(format!("write /proc/sys/{path} = {value:?}"));
    }
    for path in plan.rootfs.iter().flat_map(|t| &t.readonly_paths) {
        out.act(format!("protect {}", path.display()));
    }
    for path in plan.rootfs.iter().flat_map(|t| &t.masked_paths) {
        out.act(format!("mask {}", path.display()));
    }
    if let Some(profile) = &plan.process.apparmor_profile {
        out.act(format!("AppArmor profile at exec: {profile}"));
    }
    if let Some(label) = &plan.process.selinux_label {
        out.act(format!("SELinux label at exec: {label}"));
    }
    identity(&plan.process, out);
    if let Some(seccomp) = &plan.seccomp {
        let (length, flags) = (seccomp.program.len(), seccomp.flags);
        out.act(format!("seccomp: {length} instructions, flags {flags:#x}"));
    }
    hooks("startContainer", &plan.start_container, out);
    out.act(format!("execute {:?}", plan.process.args));
}

fn build(tree: &RootfsPlan, bind: bool, out: &mut Lines) {
    if !tree.shares_mount_namespace {
        let flags = propagation(tree.initial_propagation);
        out.act(format!("make the host's tree {flags}"));
    }
    out.act(format!("rootfs {}", tree.path.display()));
    for one in &tree.mounts {
        mount(one, out);
    }
    for d in &tree.devices {
        let kind = match d.kind {
            libc::S_IFBLK => "block",
            libc::S_IFIFO => "fifo",
            _ => "char",
        };
        // A pipe can be made in any user namespace.
        let bound = bind && d.kind != libc::S_IFIFO;
        let verb = if bound { "bind the host's" } else { "make" };
        let (path, major, minor, mode) = (d.path.display(), d.major, d.minor, d.mode);
        let (uid, gid, field) = (d.uid, d.gid, &d.field);
        out.act(format!(
            "{verb} {kind} {path} {major}:{minor} mode {mode:04o} owner {uid}:{gid} ({field})"
        ));
    }
    for (link, target) in &tree.symlinks {
        out.act(format!("link {} -> {}", link.display(), target.display()));
    }
}

fn enter(tree: &RootfsPlan, out: &mut Lines) {
    out.act(match (tree.shares_mount_namespace, tree.no_pivot) {
        (true, _) => "chroot",
        (false, true) => "move to / and chroot",
        (false, false) => "pivot_root",
    });
    if let Some(flags) = tree.final_propagation {
        out.act(format!("make / {}", propagation(flags)));
    }
    if tree.readonly {
        out.act("make / read-only");
    }
}

fn mount(mount: &Mount, out: &mut Lines) {
    let to = mount.destination.display();
    let what = match &mount.kind {
        MountKind::Filesystem {
            fstype,
            source,
            options,
            copy_up,
        } => {
            let filled = if *copy_up { ", filled from below" } else { "" };
            format!(
                "mount {fstype} {source:?} on {to}{}{filled}",
                parameters(options)
            )
        }
        MountKind::Bind {
            source,
            recursive,
            id_map,
        } => {
            let verb = if *recursive { "rbind" } else { "bind" };
            let ids = id_map.as_ref().map(mapped).unwrap_or_default();
            format!("{verb} {source:?} on {to}{ids}")
        }
        MountKind::Cgroup { namespace: true } => format!("mount own cgroup on {to}"),
        MountKind::Cgroup { namespace: false } => format!("mount or bind own cgroup on {to}"),
        MountKind::Remount { options } => format!("remount {to}{}", parameters(options)),
    };
    let below = attributes(mount.recursive_attr).into_iter();
    let flags = attributes(mount.attr).into_iter();
    let propagation = mount.propagation.iter().map(|flags| propagation(*flags));
    let flags: Vec<String> = flags
        .map(str::to_owned)
        .chain(below.map(|word| format!("r{word}")))
        .chain(propagation)
        .collect();
    out.act(format!("{what}{} ({})", words(":", &flags), mount.field));
}

fn mapped(map: &MountIdMap) -> String {
    let verb = if map.recursive { "ridmap" } else { "idmap" };
    let lines = |ids: &[IdMap]| {
        let all = ids
            .iter()
            .map(|m| format!("{}+{} to {}", m.container, m.size, m.host));
        all.collect::<Vec<_>>().join(", ")
    };
    match &map.ids {
        MountIds::Container => format!(", {verb} as the container"),
        MountIds::Own { uids, gids } => {
            format!(", {verb} uid {}; gid {}", lines(uids), lines(gids))
        }
    }
}

fn parameters(options: &[Parameter]) -> String {
    match options.is_empty() {
        true => String::new(),
        false => format!(" with {:?}", joined(options)),
    }
}

/// In the words of config.json.
fn attributes(attr: Attr) -> Vec<&'static str> {
    let mut all = Vec::new();
    for (bit, set, clear) in [
        (libc::MOUNT_ATTR_RDONLY, "ro", "rw"),
        (libc::MOUNT_ATTR_NOSUID, "nosuid", "suid"),
        (libc::MOUNT_ATTR_NODEV, "nodev", "dev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec", "exec"),
        (libc::MOUNT_ATTR_NODIRATIME, "nodiratime", "diratime"),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow", "symfollow"),
    ] {
        if attr.set & bit != 0 {
            all.push(set);
        } else if attr.clear & bit != 0 {
            all.push(clear);
        }
    }
    if attr.clear & libc::MOUNT_ATTR__ATIME != 0 {
        all.push(match attr.set & libc::MOUNT_ATTR__ATIME {
            libc::MOUNT_ATTR_NOATIME => "noatime",
            libc::MOUNT_ATTR_STRICTATIME => "strictatime",
            _ => "relatime",
        });
    }
    all
}

fn propagation(flags: u64) -> String {
    let kind = match flags & !libc::MS_REC {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_PRIVATE => "private",
        libc::MS_UNBINDABLE => "unbindable",
        _ => "unchanged",
    };
    let all = if flags & libc::MS_REC != 0 { "r" } else { "" };
    format!("{all}{kind}")
}

fn new_namespaces(bits: u64) -> Vec<&'static str> {
    let all = [
        (libc::CLONE_NEWUSER, "user"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWNET, "network"),
        (libc::CLONE_NEWNS, "mount"),
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (libc::CLONE_NEWTIME, "time"),
    ];
    let set = all.into_iter().filter(|(bit, _)| bits & *bit as u64 != 0);
    set.map(|(_, name)| name).collect()
}

/// ` title a b`, or nothing.
fn words(title: &str, all: &[impl AsRef<str>]) -> String {
    all.iter()
        .enumerate()
        .fold(String::new(), |text, (i, word)| {
            let before = if i == 0 { title } else { "" };
            format!("{text}{before} {}", word.as_ref())
        })
}

fn identity(process: &ProcessPlan, out: &mut Lines) {
    if process.terminal {
        let size = process.console_size;
        let size = size.map_or(String::new(), |(h, w)| format!(", {h} rows, {w} columns"));
        out.act(format!("terminal{size}"));
    }
    scheduling(process, out);
    if process.no_new_privileges {
        out.act("no new privileges");
    }
    out.act(format!("umask {:04o}", process.umask));
    match process.preserve_fds {
        0 => out.act("close all but stdio"),
        n => out.act(format!("close all but stdio and {n} more")),
    }
    if process.cwd != Path::new("/") {
        out.act(format!("directory {:?}", process.cwd));
    }
    match &process.groups {
        Some(groups) => out.act(format!("groups {groups:?}")),
        None => out.act("groups of the caller"),
    }
    out.act(format!("user {}:{}", process.uid, process.gid));
    if let Some(caps) = &process.caps {
        for (set, mask) in [
            ("bounding", caps.bounding),
            ("effective", caps.effective),
            ("permitted", caps.permitted),
            ("inheritable", caps.inheritable),
            ("ambient", caps.ambient),
        ] {
            let names = process::names(mask);
            let names = if mask == 0 {
                "none".to_owned()
            } else {
                names.join(" ")
            };
            out.act(format!("{set} capabilities {names}"));
        }
    }
    for entry in &process.env {
        out.act(format!("environment {entry:?}"));
    }
}

fn scheduling(process: &ProcessPlan, out: &mut Lines) {
    if let Some(s) = &process.scheduler {
        let (policy, flags, nice, priority) = (s.policy, s.flags, s.nice, s.priority);
        let (runtime, deadline, period) = (s.runtime, s.deadline, s.period);
        out.act(format!(
            "scheduler {policy} flags {flags:#x} nice {nice} priority {priority} \
             runtime {runtime} deadline {deadline} period {period}"
        ));
    }
    if let Some(value) = process.io_priority {
        out.act(format!(
            "io priority class {} level {}",
            value >> 13,
            value & 0x1fff
        ));
    }
    if let Some(value) = process.personality {
        out.act(format!("personality {value:#x}"));
    }
    if let Some(policy) = &process.memory_policy {
        out.act(format!(
            "memory policy {:#x} nodes {:?}",
            policy.mode, policy.nodes
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::{ask, rootless};
    use super::super::{Ask, draw};
    use super::*;
    use std::fs;

    /// Renewed with `RENEW=1 cargo test --lib plan::show`; then read the difference.
    fn compare(name: &str, ask: &Ask) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("bundles/examples")
            .join(name);
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        let plan = draw(&serde_json::from_str(&text).unwrap(), ask).unwrap();
        let golden = dir.join("plan.txt");
        if std::env::var_os("RENEW").is_some() {
            fs::write(&golden, show(&plan)).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap();
        assert_eq!(
            show(&plan),
            expected,
            "{} differs: if that is meant, RENEW=1 cargo test --lib plan::show",
            golden.display()
        );
    }

    #[test]
    fn the_plan_of_the_default_container_is_as_recorded() {
        compare("default", &ask());
    }

    #[test]
    fn the_plan_of_an_ordinary_users_container_is_as_recorded() {
        compare("rootless", &rootless());
    }

    #[test]
    fn the_plan_of_many_mounts_is_as_recorded() {
        compare("mounts", &ask());
    }

    #[test]
    fn the_plan_of_id_mapped_mounts_is_as_recorded() {
        compare("idmap", &ask());
    }

    #[test]
    fn the_plan_of_limits_and_hooks_is_as_recorded() {
        compare("resources", &ask());
    }
}
