//! From a checked config.json to the plan: which part of it is drawn where.

use super::{
    Ask, CgroupPlan, IdMap, Mount, MountKind, ParentPlan, Plan, ProcessPlan, hooks, mounts,
    namespaces, notify, process, resources, rootfs, scheduling, seccomp, sysctl, unit,
};
use anyhow::{Context, Result};
use oci_spec::runtime::{Linux, Process, Spec};
use std::borrow::Cow;
use std::path::Path;

/// Everything that is to be done for the container `ask.id`.
///
/// Errors name the field of config.json that cannot be carried out.
pub fn draw(spec: &Spec, ask: &Ask) -> Result<Plan> {
    let process = spec.process().as_ref().context("process is missing")?;
    let root = spec.root().as_ref().context("root is missing")?;
    let linux = &linux_of(spec)?;
    let annotations = spec.annotations().iter().flatten();
    let mut plan = Plan {
        annotations: annotations.map(|(k, v)| (k.clone(), v.clone())).collect(),
        ..Plan::default()
    };
    let warnings = &mut plan.warnings;

    (plan.parent.cgroup, plan.parent.unit) = cgroup(spec, ask)?;
    plan.parent.rlimits = process::rlimits(process);
    plan.parent.oom_score_adj = process.oom_score_adj();
    namespaces::draw(linux, ask, &mut plan.parent, &mut plan.init);
    if plan.parent.unit.is_some() {
        let new = libc::CLONE_NEWCGROUP as u64;
        plan.init.wait_for_cgroup = true;
        plan.init.unshare |= plan.parent.clone.new & new;
        plan.parent.clone.new &= !new;
    }

    let init = &mut plan.init;
    init.keyring = (!ask.no_new_keyring).then(|| format!("_ses.{}", ask.id));
    init.hostname = spec.hostname().clone().filter(|name| !name.is_empty());
    init.domainname = spec.domainname().clone().filter(|name| !name.is_empty());
    init.sysctls = sysctl::draw(linux.sysctl());
    let mut asked = Cow::Borrowed(spec.mounts().as_deref().unwrap_or_default());
    if let Some(directory) = &ask.notify {
        asked.to_mut().push(notify::mount(directory));
    }
    let surroundings = mounts::Surroundings {
        cgroup_namespace: namespaces::has_cgroup_namespace(linux),
        uid_map: &plan.parent.uid_map,
        gid_map: &plan.parent.gid_map,
    };
    let mut mounts = mounts::draw(&asked, ask, &surroundings, warnings)?;
    if let Some(label) = linux.mount_label().as_deref().filter(|l| !l.is_empty()) {
        mounts::label(&mut mounts, label);
    }
    if namespaces::makes_cgroup_namespace(linux) && mounts.iter().any(is_writable_cgroup) {
        plan.parent.cgroup.owner = owner(process.user().uid(), &plan.parent, ask);
    }
    init.rootfs = Some(rootfs::draw(root, linux, mounts, ask)?);

    let (who, more) = process_in(linux, process, ask)?;
    warnings.extend(more);
    if let Some(hooks) = spec.hooks() {
        hooks::draw(hooks, &who.env, &mut plan.parent, init)?;
    }
    init.process = who;
    if let Some(profile) = seccomp::draw(spec)? {
        warnings.extend(profile.warnings.iter().cloned());
        init.seccomp = Some(profile);
    }
    Ok(plan)
}

/// Not Linux::default(), which is oci-spec's idea of a container.
pub(super) fn linux_of(spec: &Spec) -> Result<Cow<'_, Linux>> {
    Ok(match spec.linux() {
        Some(linux) => Cow::Borrowed(linux),
        None => Cow::Owned(serde_json::from_str("{}")?),
    })
}

/// A process of the container, the first or another: with what `linux` says of every one.
pub(super) fn process_in(
    linux: &Linux,
    process: &Process,
    ask: &Ask,
) -> Result<(ProcessPlan, Vec<String>)> {
    let (mut who, mut warnings) = process::draw(process, ask)?;
    if !namespaces::may_set_groups(linux, ask) {
        process::leave_groups(&mut who)?;
    }
    if let Some(asked) = linux.personality() {
        let (persona, warning) = scheduling::personality(asked);
        who.personality = Some(persona);
        warnings.extend(warning);
    }
    let policy = linux.memory_policy().as_ref();
    who.memory_policy = policy.map(scheduling::memory_policy).transpose()?;
    Ok((who, warnings))
}

/// The cgroup, and with the systemd manager the unit that it is ordered with.
fn cgroup(spec: &Spec, ask: &Ask) -> Result<(CgroupPlan, Option<unit::UnitPlan>)> {
    if !ask.systemd_cgroup {
        return Ok((resources::draw(spec, ask)?, None));
    }
    let unit = unit::draw(spec, ask)?;
    let cgroup = CgroupPlan {
        path: unit.cgroup.clone(),
        optional: false,
        ..resources::draw(spec, ask)?
    };
    Ok((cgroup, Some(unit)))
}

fn is_writable_cgroup(mount: &Mount) -> bool {
    matches!(mount.kind, MountKind::Cgroup { namespace: true })
        && mount.destination == Path::new("/sys/fs/cgroup")
        && mount.attr.set & libc::MOUNT_ATTR_RDONLY == 0
}

/// The host's uid of the process; `None` where that is the one who makes the cgroup, or unknown
/// (a joined user namespace).
fn owner(uid: u32, parent: &ParentPlan, ask: &Ask) -> Option<u32> {
    let on_host = |map: &IdMap| {
        let offset = uid.checked_sub(map.container)?;
        (offset < map.size).then(|| map.host.checked_add(offset))?
    };
    match parent.uid_map.is_empty() {
        true => (parent.clone.route == super::CloneRoute::Direct).then_some(uid),
        false => parent.uid_map.iter().find_map(on_host),
    }
    .filter(|uid| *uid != ask.host.euid)
}

#[cfg(test)]
pub mod tests {
    use super::super::Host;
    use super::super::unit::Manager;
    use super::*;
    use serde_json::{Value, json};

    /// Root of the machine, on a kernel that knows 41 capabilities.
    pub fn ask() -> Ask {
        Ask {
            id: "example".to_owned(),
            bundle: "/bundle".into(),
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            systemd_cgroup: false,
            listen_fds: None,
            notify: None,
            host: Host {
                euid: 0,
                egid: 0,
                rootless: false,
                systemd: Manager::System,
                setgroups_denied: false,
                last_cap: 40,
                cgroup_mount: "/sys/fs/cgroup".into(),
                own_cgroup: "/".into(),
            },
        }
    }

    /// User and group 1000.
    pub fn rootless() -> Ask {
        let mut ask = ask();
        ask.host.euid = 1000;
        ask.host.egid = 1000;
        ask.host.rootless = true;
        ask.host.systemd = Manager::User;
        ask.host.own_cgroup = "/user.slice/user-1000.slice/shell.scope".into();
        ask
    }

    fn spec(more: Value) -> Spec {
        let mut all = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
        });
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn what_config_json_leaves_out_is_not_made_up() {
        let plan = draw(&spec(json!({})), &ask()).unwrap();
        assert_eq!((plan.parent.clone.new, plan.init.hostname), (0, None));
        assert_eq!(plan.init.keyring.as_deref(), Some("_ses.example"));
        let tree = plan.init.rootfs.unwrap();
        assert!(tree.mounts.is_empty() && tree.masked_paths.is_empty());
        assert!(plan.annotations.is_empty() && plan.warnings.is_empty());
    }

    #[test]
    fn parts_that_must_be_there_are_named() {
        for part in ["process", "root"] {
            let mut asked = serde_json::to_value(spec(json!({}))).unwrap();
            asked.as_object_mut().unwrap().remove(part);
            let asked: Spec = serde_json::from_value(asked).unwrap();
            let error = draw(&asked, &ask()).unwrap_err().to_string();
            assert_eq!(error, format!("{part} is missing"));
        }
    }

    #[test]
    fn warnings_of_all_parts_are_kept() {
        let asked = spec(json!({
            "mounts": [{"destination": "m", "type": "tmpfs"}],
            "linux": {"personality": {"domain": "LINUX32", "flags": ["X"]}, "memoryPolicy": {"mode": "MPOL_LOCAL"}},
            "annotations": {"k": "v"},
        }));
        let plan = draw(&asked, &ask()).unwrap();
        assert_eq!(
            plan.warnings,
            [
                "mounts[0].destination: \"m\" is not absolute: taken from the container's root",
                "linux.personality.flags: [\"X\"] are not supported: ignored",
            ]
        );
        assert_eq!(plan.init.process.personality, Some(8));
        assert_eq!(plan.init.process.memory_policy.unwrap().mode, 4);
        assert_eq!(plan.annotations["k"], "v");
    }

    /// A user namespace with ids from 100000 and its own cgroup, and a process of uid 7 in it.
    fn own_cgroup(options: Value, namespaces: Value) -> Spec {
        spec(json!({
            "process": {"user": {"uid": 7, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": options}],
            "linux": {
                "namespaces": namespaces,
                "uidMappings": [{"hostID": 100_000, "size": 1000}],
                "gidMappings": [{"hostID": 100_000, "size": 1000}],
            },
        }))
    }

    #[test]
    fn a_cgroup_that_the_container_may_write_is_its_users() {
        let (cgroup, user) = (json!({"type": "cgroup"}), json!({"type": "user"}));
        for (options, namespaces, owner) in [
            (json!([]), json!([cgroup, user]), Some(100_007)),
            (json!([]), json!([cgroup]), Some(7)),
            (json!(["ro"]), json!([cgroup, user]), None),
            (json!([]), json!([user]), None),
            (
                json!([]),
                json!([user, {"type": "cgroup", "path": "/c"}]),
                None,
            ),
            (
                json!([]),
                json!([cgroup, {"type": "user", "path": "/u"}]),
                None,
            ),
        ] {
            let plan = draw(&own_cgroup(options.clone(), namespaces.clone()), &ask()).unwrap();
            assert_eq!(plan.parent.cgroup.owner, owner, "{options} {namespaces}");
        }
        let mut caller = ask();
        caller.host.euid = 7;
        let plan = draw(&own_cgroup(json!([]), json!([cgroup])), &caller).unwrap();
        assert_eq!(plan.parent.cgroup.owner, None, "the caller's already");
    }

    #[test]
    fn with_systemd_init_waits_for_its_cgroup_and_then_makes_the_namespace() {
        let new_cgroup = libc::CLONE_NEWCGROUP as u64;
        let asked = spec(json!({"linux": {
            "namespaces": [{"type": "cgroup"}, {"type": "uts"}],
            "cgroupsPath": "a-b.slice:x:y",
        }}));
        let plain = draw(&asked, &ask()).unwrap();
        assert_eq!(plain.parent.unit, None);
        assert!(plain.parent.clone.new & new_cgroup != 0);
        assert!(!plain.init.wait_for_cgroup && plain.init.unshare == 0);

        let mut systemd = ask();
        systemd.systemd_cgroup = true;
        let plan = draw(&asked, &systemd).unwrap();
        assert_eq!(plan.parent.unit.unwrap().name, "x-y.scope");
        let path = Path::new("/a.slice/a-b.slice/x-y.scope");
        assert_eq!(plan.parent.cgroup.path, path);
        assert_eq!(plan.parent.clone.new, libc::CLONE_NEWUTS as u64);
        assert!(plan.init.wait_for_cgroup);
        assert_eq!(plan.init.unshare, new_cgroup);
    }

    #[test]
    fn an_ordinary_user_keeps_its_groups() {
        let asked = spec(json!({"linux": {
            "namespaces": [{"type": "user"}],
            "gidMappings": [{"hostID": 1000, "size": 1}],
        }}));
        let groups = |ask| draw(&asked, &ask).unwrap().init.process.groups;
        assert_eq!(groups(rootless()), None);
        assert_eq!(groups(ask()), Some(vec![]));
    }

    #[test]
    fn a_keyring_is_made_unless_refused() {
        let mut ask = ask();
        ask.no_new_keyring = true;
        assert_eq!(draw(&spec(json!({})), &ask).unwrap().init.keyring, None);
    }
}
