//! What is done for one more process of a running container (`exec`)?
//!
//! The container is there: its namespaces are entered and nothing is mounted. What the process does
//! not say of itself it takes over from the container's own process, as under runc: capabilities,
//! scheduling, labels, but not rlimits. Seccomp, personality and memory policy are the container's.

use super::draw::{linux_of, process_in};
use super::{Ask, Plan, namespaces, process, scheduling, seccomp};
pub use namespaces::joins_user_namespace;

use anyhow::{Context, Result};
use oci_spec::runtime::{Process, Spec};

/// [`Plan`] of the process, and what the parent does before the clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecPlan {
    pub plan: Plan,
    /// CLONE_NEW* that the parent enters: the pid namespace, into which only its children come;
    /// for an ordinary user first the user namespace, without which it may enter no other.
    pub parent_enters: u64,
    /// `execCPUAffinity.initial`: processors to run on before the container's cgroup is entered.
    pub initial_processors: Option<Vec<u64>>,
    /// The container has no mount namespace of its own: its root must be entered by chroot(2).
    pub chroot: bool,
}

/// What `process` leaves open, from the container's own process.
pub fn complete(process: &mut Process, spec: &Spec) {
    let Some(first) = spec.process() else {
        return;
    };
    if process.capabilities().is_none() {
        process.set_capabilities(first.capabilities().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(first.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*first.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(first.exec_cpu_affinity().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(first.oom_score_adj());
    }
    let none = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    if none(process.apparmor_profile()) {
        process.set_apparmor_profile(first.apparmor_profile().clone());
    }
    if none(process.selinux_label()) {
        process.set_selinux_label(first.selinux_label().clone());
    }
}

/// The plan for a [complete] process in the container of `spec`. `in_its_user_namespace`: the caller
/// is in the user namespace that the container joined, and cannot enter it again (setns(2), EINVAL).
///
/// Errors name the field that cannot be carried out.
pub fn draw(
    spec: &Spec,
    process: &Process,
    ask: &Ask,
    in_its_user_namespace: bool,
) -> Result<ExecPlan> {
    let linux = &linux_of(spec)?;
    let (user, pid) = (libc::CLONE_NEWUSER as u64, libc::CLONE_NEWPID as u64);
    let mut enter = namespaces::all(linux);
    if in_its_user_namespace {
        enter &= !user;
    }
    let by_parent = match ask.host.euid {
        0 => pid,
        _ => pid | user,
    };
    let mut drawn = ExecPlan {
        parent_enters: enter & by_parent,
        chroot: !namespaces::has_mount_namespace(linux),
        ..ExecPlan::default()
    };
    let Plan {
        parent,
        init,
        warnings,
        ..
    } = &mut drawn.plan;
    parent.rlimits = process::rlimits(process);
    parent.oom_score_adj = process.oom_score_adj();
    init.enter = enter & !by_parent;
    init.in_user_namespace = enter & user != 0;
    init.keyring = (!ask.no_new_keyring).then(|| format!("_ses.{}", ask.id));

    let (mut who, more) = process_in(linux, process, ask)?;
    warnings.extend(more);
    if let Some(affinity) = process.exec_cpu_affinity() {
        let mask = |list: &Option<String>, field: &str| {
            let list = list.as_deref().filter(|list| !list.trim().is_empty());
            let field = || format!("process.execCPUAffinity.{field}");
            list.map(|list| scheduling::processors(list).with_context(field))
                .transpose()
        };
        drawn.initial_processors = mask(affinity.initial(), "initial")?;
        who.processors = mask(affinity.cpu_affinity_final(), "final")?;
    }
    init.process = who;
    // Its warnings were said when the container was made.
    init.seccomp = seccomp::draw(spec)?;
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::{ask, rootless};
    use super::*;
    use serde_json::{Value, json};

    fn spec(linux: Value) -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": 5, "gid": 6, "umask": 0o77}, "args": ["sh"], "cwd": "/srv",
                "capabilities": {"bounding": ["CAP_KILL"]},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
                "oomScoreAdj": 7,
                "noNewPrivileges": true,
                "execCPUAffinity": {"initial": "1", "final": "0-1"},
            },
            "linux": linux,
        }))
        .unwrap()
    }

    fn process(more: Value) -> Process {
        let mut all = json!({"user": {"uid": 0, "gid": 0}, "args": ["id"], "cwd": "/"});
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn draw_completed(more: Value, linux: Value, ask: &Ask) -> ExecPlan {
        let (spec, mut process) = (spec(linux), process(more));
        complete(&mut process, &spec);
        draw(&spec, &process, ask, false).unwrap()
    }

    #[test]
    fn what_a_process_does_not_say_is_the_containers() {
        let drawn = draw_completed(json!({}), json!({}), &ask());
        let Plan { parent, init, .. } = drawn.plan;
        let caps = init.process.caps.unwrap();
        assert_eq!((caps.bounding, caps.permitted), (1 << 5, 0));
        assert_eq!(parent.rlimits, []);
        assert_eq!(parent.oom_score_adj, Some(7));
        assert_eq!(drawn.initial_processors, Some(vec![2]));
        assert_eq!(init.process.processors, Some(vec![3]));
        // What is always said: user, directory, no_new_privs.
        assert_eq!((init.process.uid, init.process.umask), (0, 0o022));
        assert!(!init.process.no_new_privileges);
        assert_eq!(init.keyring.as_deref(), Some("_ses.example"));
        assert_eq!(init.rootfs, None);
    }

    #[test]
    fn what_a_process_says_counts() {
        let said = json!({
            "capabilities": {}, "oomScoreAdj": 0, "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}],
            "execCPUAffinity": {"final": "1"},
            "apparmorProfile": "a", "selinuxLabel": "b",
        });
        let drawn = draw_completed(said, json!({}), &ask());
        let Plan { parent, init, .. } = drawn.plan;
        assert_eq!(init.process.caps, Some(Default::default()));
        assert_eq!(parent.oom_score_adj, Some(0));
        assert_eq!(parent.rlimits[0].name, "RLIMIT_CPU");
        assert!(init.process.no_new_privileges);
        assert_eq!(drawn.initial_processors, None);
        assert_eq!(init.process.processors, Some(vec![2]));
        assert_eq!(init.process.apparmor_profile.as_deref(), Some("a"));
        assert_eq!(init.process.selinux_label.as_deref(), Some("b"));
    }

    #[test]
    fn who_enters_what_depends_on_who_calls() {
        let (pid, user, net, mount) = (
            libc::CLONE_NEWPID as u64,
            libc::CLONE_NEWUSER as u64,
            libc::CLONE_NEWNET as u64,
            libc::CLONE_NEWNS as u64,
        );
        let linux = json!({
            "namespaces": [{"type": "pid"}, {"type": "user", "path": "/u"}, {"type": "network", "path": "/n"}, {"type": "mount"}],
        });
        for (ask, inside, parent, process) in [
            (ask(), false, pid, user | net | mount),
            (ask(), true, pid, net | mount),
            (rootless(), false, pid | user, net | mount),
            (rootless(), true, pid, net | mount),
        ] {
            let (spec, who) = (spec(linux.clone()), self::process(json!({})));
            let drawn = draw(&spec, &who, &ask, inside).unwrap();
            let init = &drawn.plan.init;
            assert_eq!((drawn.parent_enters, init.enter), (parent, process));
            assert_eq!(init.in_user_namespace, !inside);
            assert!(!drawn.chroot);
        }
        let bare = draw_completed(json!({}), json!({}), &ask());
        assert_eq!((bare.parent_enters, bare.plan.init.enter), (0, 0));
        assert!(bare.chroot);
    }

    #[test]
    fn a_list_of_processors_is_named_by_its_field() {
        let wrong = json!({"execCPUAffinity": {"initial": "9-3"}});
        let said = draw(&spec(json!({})), &process(wrong), &ask(), false).unwrap_err();
        assert_eq!(
            format!("{said:#}"),
            "process.execCPUAffinity.initial: \"9-3\" runs backwards"
        );
    }
}
