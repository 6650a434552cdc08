//! Which namespaces are made, which are joined, and in which order?
//!
//! runtime-spec config-linux.md#namespaces. How many clones that takes is [`CloneRoute`].

use super::{Ask, CloneRoute, IdMap, InitPlan, Join, NetDevice, ParentPlan, TimeOffset};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};
use std::path::Path;

/// Joined in this order; user is special. The mount namespace after all others: what it shows may
/// be foreign. A pid namespace is root's parent's to enter.
const ORDER: [LinuxNamespaceType; 6] = [
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Mount,
];

/// Fills what both performers must know of namespaces.
pub fn draw(linux: &Linux, ask: &Ask, parent: &mut ParentPlan, init: &mut InitPlan) {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    let new = |kind| wanted(all, kind) == Some(None);
    let joined = |kind| wanted(all, kind).flatten();
    let user = LinuxNamespaceType::User;

    parent.clone.new = all
        .iter()
        .filter(|ns| path_of(ns).is_none())
        .fold(0, |bits, ns| bits | ns.typ() as u64);
    let root = ask.host.euid == 0;
    if root {
        parent.clone.pid_namespace = joined(LinuxNamespaceType::Pid).map(Path::to_owned);
    }
    init.join = joins(all, root);
    init.new_user_namespace = new(user);
    init.caller_is_no_root = ask.host.euid != 0;
    init.in_user_namespace = wanted(all, user).is_some();
    parent.clone.route =
        // A pid namespace is for the children of who enters it.
        match joined(user).is_some()
            || init.new_user_namespace && !init.join.is_empty()
            || init.join.iter().any(|j| j.kind == LinuxNamespaceType::Pid as u64)
        {
            true => CloneRoute::Joiner,
            false => CloneRoute::Direct,
        };
    init.wait_for_welcome = init.new_user_namespace || parent.clone.route == CloneRoute::Joiner;
    if init.new_user_namespace {
        parent.uid_map = id_map(linux.uid_mappings());
        parent.gid_map = id_map(linux.gid_mappings());
    }
    if init.in_user_namespace {
        // The root of its mqueue file system belongs to whoever makes it (ipc/mqueue.c): made by
        // clone3(2), that would be the caller's user, who is nobody in there.
        init.unshare = parent.clone.new & LinuxNamespaceType::Ipc as u64;
        parent.clone.new &= !init.unshare;
    }
    if new(LinuxNamespaceType::Time) {
        let offsets = time_offsets(linux);
        if !offsets.is_empty() {
            // Whoever makes it must write the offsets before anyone is in it; a second one would be
            // without. That is the parent, or init where only init has the power.
            parent.clone.new &= !(LinuxNamespaceType::Time as u64);
        }
        match root {
            true => parent.time_offsets = offsets,
            false => init.time_offsets = offsets,
        }
    }
    init.loopback_up = new(LinuxNamespaceType::Network);
    parent.net_devices = net_devices(linux);
}

/// CLONE_NEW* of all namespaces that are not those of whoever created the container.
pub fn all(linux: &Linux) -> u64 {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    all.iter().fold(0, |bits, ns| bits | ns.typ() as u64)
}

/// The user namespace was there before the container: it may be that of the caller too.
pub fn joins_user_namespace(linux: &Linux) -> bool {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    wanted(all, LinuxNamespaceType::User).flatten().is_some()
}

/// A cgroup namespace of its own, new or joined.
pub fn has_cgroup_namespace(linux: &Linux) -> bool {
    has(linux, LinuxNamespaceType::Cgroup)
}

/// A new cgroup namespace.
pub fn makes_cgroup_namespace(linux: &Linux) -> bool {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    wanted(all, LinuxNamespaceType::Cgroup) == Some(None)
}

pub fn has_mount_namespace(linux: &Linux) -> bool {
    has(linux, LinuxNamespaceType::Mount)
}

fn has(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    wanted(all, kind).is_some()
}

/// Whether init may call setgroups(2). Root may. An ordinary user may write only one line that maps
/// its own group, and only after it has given up setgroups (CVE-2014-8989); for more, newgidmap(1)
/// writes the map, and setgroups stays. Of a joined user namespace is known what the maps say, where they are given
/// beside its path, as containerd, CRI-O and sc do.
pub fn may_set_groups(linux: &Linux, ask: &Ask) -> bool {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    let own_only = |map: &[LinuxIdMapping]| match map {
        [] => true,
        [one] => one.host_id() == ask.host.egid && one.size() == 1,
        _ => false,
    };
    if ask.host.setgroups_denied {
        return false;
    }
    ask.host.euid == 0
        || wanted(all, LinuxNamespaceType::User).is_some()
            && !own_only(linux.gid_mappings().as_deref().unwrap_or_default())
}

/// `None`: keep the caller's; `Some(None)`: a new one; else one to join.
fn wanted(all: &[LinuxNamespace], kind: LinuxNamespaceType) -> Option<Option<&Path>> {
    all.iter().find(|ns| ns.typ() == kind).map(path_of)
}

/// Engines written in Go write an empty path where they mean none.
fn path_of(ns: &LinuxNamespace) -> Option<&Path> {
    ns.path().as_deref().filter(|p| !p.as_os_str().is_empty())
}

/// Root joins the user namespace last: before, it may enter namespaces of any owner. An ordinary
/// user joins it first: only inside has it any power, also that over the pid namespace.
fn joins(all: &[LinuxNamespace], root: bool) -> Vec<Join> {
    use LinuxNamespaceType::{Pid, User};
    let (first, last) = match root {
        true => (&[][..], &[User][..]),
        false => (&[User, Pid][..], &[][..]),
    };
    let order = first.iter().chain(&ORDER).chain(last);
    order
        .filter_map(|kind| {
            Some(Join {
                kind: *kind as u64,
                name: name(*kind).to_owned(),
                path: wanted(all, *kind)??.to_owned(),
            })
        })
        .collect()
}

/// The kinds there are, sorted by name.
pub const KINDS: &[LinuxNamespaceType] =
    every!(LinuxNamespaceType: Cgroup Ipc Mount Network Pid Time User Uts);

/// As config.json spells it.
pub fn name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

pub fn id_map(asked: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    let lines = asked.iter().flatten();
    lines
        .map(|line| IdMap {
            container: line.container_id(),
            host: line.host_id(),
            size: line.size(),
        })
        .collect()
}

fn time_offsets(linux: &Linux) -> Vec<TimeOffset> {
    let mut all: Vec<TimeOffset> = linux
        .time_offsets()
        .iter()
        .flatten()
        .map(|(clock, offset)| TimeOffset {
            clock: clock.clone(),
            secs: offset.secs().unwrap_or(0),
            nanos: offset.nanosecs().unwrap_or(0),
        })
        .collect();
    all.sort_by(|a, b| a.clock.cmp(&b.clock));
    all
}

fn net_devices(linux: &Linux) -> Vec<NetDevice> {
    let mut all: Vec<NetDevice> = linux
        .net_devices()
        .iter()
        .flatten()
        .map(|(host_name, device)| NetDevice {
            host_name: host_name.clone(),
            new_name: device.name().clone().filter(|name| !name.is_empty()),
        })
        .collect();
    all.sort_by(|a, b| a.host_name.cmp(&b.host_name));
    all
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::{ask, rootless};
    use super::*;
    use serde_json::{Value, json};

    fn linux(value: Value) -> Linux {
        serde_json::from_value(value).unwrap()
    }

    fn plan(value: Value, ask: &Ask) -> (ParentPlan, InitPlan) {
        let (mut parent, mut init) = (ParentPlan::default(), InitPlan::default());
        draw(&linux(value), ask, &mut parent, &mut init);
        (parent, init)
    }

    /// `ipc` is new, `ipc=/p` is joined.
    fn namespaces(list: &str) -> Value {
        let one = |word: &str| match word.split_once('=') {
            Some((kind, path)) => json!({"type": kind, "path": path}),
            None => json!({ "type": word }),
        };
        json!({ "namespaces": list.split_whitespace().map(one).collect::<Vec<_>>() })
    }

    #[test]
    fn new_namespaces_are_bits_of_one_clone() {
        let all = "pid network ipc uts mount cgroup time user";
        let (parent, init) = plan(namespaces(all), &ask());
        let expected = libc::CLONE_NEWPID
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWTIME
            | libc::CLONE_NEWUSER;
        assert_eq!(parent.clone.new, expected as u64);
        assert_eq!(init.unshare, libc::CLONE_NEWIPC as u64);
        assert_eq!(parent.clone.route, CloneRoute::Direct);
        assert!(init.loopback_up && init.new_user_namespace && init.in_user_namespace);
        assert_eq!(init.join, []);
        assert_eq!(
            plan(json!({}), &ask()),
            (ParentPlan::default(), InitPlan::default())
        );
        assert_eq!(
            plan(namespaces("ipc="), &ask()).0.clone.new,
            libc::CLONE_NEWIPC as u64
        );
    }

    #[test]
    fn the_user_namespace_is_joined_last_by_root_and_first_by_others() {
        let order = |ask: &Ask| {
            let asked = "user=/u mount=/m pid=/p cgroup=/c network=/n time=/t uts=/h ipc=/i";
            let (parent, init) = plan(namespaces(asked), ask);
            let by_parent = (ask.host.euid == 0).then_some(Path::new("/p"));
            assert_eq!(parent.clone.pid_namespace.as_deref(), by_parent);
            assert_eq!((parent.clone.new, init.loopback_up), (0, false));
            let words = init.join.iter();
            let words = words.map(|j| format!("{}={}", j.name, j.path.display()));
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            order(&ask()),
            "ipc=/i uts=/h network=/n time=/t cgroup=/c mount=/m user=/u"
        );
        assert_eq!(
            order(&rootless()),
            "user=/u pid=/p ipc=/i uts=/h network=/n time=/t cgroup=/c mount=/m"
        );
    }

    #[test]
    fn a_joiner_goes_ahead_where_user_namespaces_and_joining_meet() {
        for (asked, route) in [
            ("pid mount", CloneRoute::Direct),
            ("user mount", CloneRoute::Direct),
            ("pid=/p network=/n", CloneRoute::Direct),
            ("user=/u", CloneRoute::Joiner),
            ("user network=/n", CloneRoute::Joiner),
            // The parent enters it around the clone.
            ("user pid=/p", CloneRoute::Direct),
        ] {
            let (parent, init) = plan(namespaces(asked), &ask());
            assert_eq!(parent.clone.route, route, "{asked}");
            // What it makes says nothing before the parent knows it.
            assert!(
                route == CloneRoute::Direct || init.wait_for_welcome,
                "{asked}"
            );
        }
    }

    #[test]
    fn ids_are_mapped_only_in_a_new_user_namespace() {
        let ids = json!([{"containerID": 0, "hostID": 1000, "size": 5}]);
        for (asked, lines) in [("user", 1), ("user=/u", 0), ("pid", 0)] {
            let mut value = namespaces(asked);
            value["uidMappings"] = ids.clone();
            value["gidMappings"] = ids.clone();
            let (parent, _) = plan(value, &ask());
            let line = IdMap {
                container: 0,
                host: 1000,
                size: 5,
            };
            assert_eq!(parent.uid_map, vec![line; lines], "{asked}");
            assert_eq!(parent.gid_map, parent.uid_map, "{asked}");
        }
    }

    fn denied(mut ask: Ask) -> Ask {
        ask.host.setgroups_denied = true;
        ask
    }

    #[test]
    fn an_ordinary_user_may_set_groups_only_with_a_map_by_newgidmap() {
        for (asked, gids, caller, allowed) in [
            ("user", vec![(1000, 1)], rootless(), false),
            ("user", vec![], rootless(), false),
            ("user", vec![(1000, 1), (100000, 65536)], rootless(), true),
            ("user", vec![(100000, 1)], rootless(), true),
            ("user=/u", vec![(100000, 9)], rootless(), true),
            ("user=/u", vec![], rootless(), false),
            ("pid", vec![], rootless(), false),
            ("user", vec![(1000, 1)], ask(), true),
            ("pid", vec![], ask(), true),
            ("user", vec![(100000, 65536)], denied(rootless()), false),
            ("pid", vec![], denied(ask()), false),
        ] {
            let mut value = namespaces(asked);
            let line = |(host, size): &(u32, u32)| json!({"hostID": host, "size": size});
            value["gidMappings"] = gids.iter().map(line).collect();
            assert_eq!(
                may_set_groups(&linux(value), &caller),
                allowed,
                "{asked} {gids:?}"
            );
        }
    }

    #[test]
    fn offsets_of_time_are_the_parents_to_write() {
        let mut value = namespaces("time pid");
        value["timeOffsets"] =
            json!({"monotonic": {"secs": -7}, "boottime": {"secs": 1, "nanosecs": 5}});
        let (parent, _) = plan(value.clone(), &ask());
        let time = parent.time_offsets.clone();
        let all = time.iter();
        let lines: Vec<_> = all.map(|o| (o.clock.as_str(), o.secs, o.nanos)).collect();
        assert_eq!(lines, [("boottime", 1, 5), ("monotonic", -7, 0)]);
        assert_eq!(parent.clone.new, libc::CLONE_NEWPID as u64);
        let (parent, init) = plan(value.clone(), &rootless());
        assert_eq!((parent.time_offsets.len(), init.time_offsets), (0, time));
        assert_eq!(parent.clone.new, libc::CLONE_NEWPID as u64);
        value["namespaces"] = namespaces("time=/t")["namespaces"].take();
        assert_eq!(plan(value, &ask()).0.time_offsets, []);
    }

    #[test]
    fn network_devices_are_moved_in_the_order_of_their_names() {
        let asked =
            json!({"netDevices": {"eth1": {"name": "a"}, "eth0": {}, "eth2": {"name": ""}}});
        let devices = plan(asked, &ask()).0.net_devices;
        let names = devices
            .iter()
            .map(|d| (d.host_name.as_str(), d.new_name.as_deref()));
        let expected = [("eth0", None), ("eth1", Some("a")), ("eth2", None)];
        assert_eq!(names.collect::<Vec<_>>(), expected);
    }
}
