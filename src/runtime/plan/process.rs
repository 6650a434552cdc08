//! Who will the process be, and what does it run?
//!
//! From `process` of config.json (runtime-spec config.md#process) to numbers of the kernel; used
//! for a container's first process and for any other that joins it. What `linux` says about a
//! process (personality, memory policy) is [`super::scheduling`]'s.

use super::{Ask, Caps, ProcessPlan, Rlimit, notify, scheduling};
use anyhow::{Result, anyhow, bail};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, PosixRlimitType, Process};
use std::collections::BTreeSet;

/// The process, and warnings: what was asked for and cannot be had, but stops nothing.
///
/// Errors name the field that holds a value which no kernel takes.
pub fn draw(process: &Process, ask: &Ask) -> Result<(ProcessPlan, Vec<String>)> {
    let mut warnings = Vec::new();
    let user = process.user();
    let terminal = process.terminal().unwrap_or(false);
    let plan = ProcessPlan {
        args: process.args().clone().unwrap_or_default(),
        env: environment(
            process.env().as_deref().unwrap_or_default(),
            &announced(ask),
        ),
        cwd: process.cwd().clone(),
        uid: user.uid(),
        gid: user.gid(),
        groups: Some(user.additional_gids().clone().unwrap_or_default()),
        umask: user.umask().unwrap_or(0o022) & 0o777,
        caps: Some(match process.capabilities() {
            Some(caps) => capabilities(caps, ask.host.last_cap, &mut warnings),
            // As runc: a process that asks for nothing is given nothing.
            None => Caps::default(),
        }),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        apparmor_profile: given(process.apparmor_profile()),
        selinux_label: given(process.selinux_label()),
        terminal,
        console_size: match terminal {
            true => console_size(process)?,
            // config.md#process: to be ignored without a terminal.
            false => None,
        },
        scheduler: process
            .scheduler()
            .as_ref()
            .map(scheduling::scheduler)
            .transpose()?,
        io_priority: process
            .io_priority()
            .as_ref()
            .map(scheduling::io_priority)
            .transpose()?,
        personality: None,
        memory_policy: None,
        processors: None,
        preserve_fds: ask.preserve_fds,
    };
    Ok((plan, warnings))
}

/// Engines write "" for none.
fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// Limits of the process, set by the parent. The numbers are those of asm-generic/resource.h.
pub fn rlimits(process: &Process) -> Vec<Rlimit> {
    let limits = process.rlimits().iter().flatten();
    limits
        .map(|limit| Rlimit {
            name: limit.typ().to_string(),
            resource: resource(limit.typ()),
            soft: limit.soft(),
            hard: limit.hard(),
        })
        .collect()
}

fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// Descriptors passed on are announced as sd_listen_fds(3) wants it: the process is 1 in its own pid
/// namespace.
fn announced(ask: &Ask) -> Vec<String> {
    let descriptors = ask
        .listen_fds
        .map(|n| [format!("LISTEN_FDS={n}"), "LISTEN_PID=1".to_owned()]);
    let notify = ask.notify.as_ref().map(|_| notify::variable());
    descriptors.into_iter().flatten().chain(notify).collect()
}

/// The last of each key, where it stood (runc's rule).
fn environment(asked: &[String], announced: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut env: Vec<String> = asked
        .iter()
        .chain(announced)
        .rev()
        .filter(|entry| seen.insert(entry.split('=').next().unwrap_or_default()))
        .cloned()
        .collect();
    env.reverse();
    env
}

/// For where setgroups(2) is refused ([`super::namespaces::may_set_groups`]): the groups stay the
/// caller's.
///
/// An error where groups were asked for: a process without them is not what was asked for.
pub fn leave_groups(plan: &mut ProcessPlan) -> Result<()> {
    if let Some(groups) = plan.groups.take()
        && !groups.is_empty()
    {
        bail!(
            "process.user.additionalGids: {groups:?} cannot be set in a rootless container that maps \
             only its user's own group: remove them, or map a range of /etc/subgid in \
             linux.gidMappings"
        );
    }
    Ok(())
}

fn console_size(process: &Process) -> Result<Option<(u16, u16)>> {
    let Some(size) = process.console_size() else {
        return Ok(None);
    };
    let narrow = |name: &str, value: u64| {
        u16::try_from(value).map_err(|_| {
            anyhow!("process.consoleSize.{name}: {value} is more than a terminal can have (65535)")
        })
    };
    Ok(Some((
        narrow("height", size.height())?,
        narrow("width", size.width())?,
    )))
}

/// Number and name of a capability, `CAP_SYS_ADMIN` and 21.
fn number(cap: &Capability) -> Option<(u8, String)> {
    let name = format!("CAP_{cap}");
    let known = name.parse::<caps::Capability>().ok()?;
    Some((known.index(), name))
}

fn capabilities(asked: &LinuxCapabilities, last_cap: u8, warnings: &mut Vec<String>) -> Caps {
    let mut unknown = BTreeSet::new();
    let mut mask = |set: &Option<Capabilities>| -> u64 {
        let mut bits = 0;
        for cap in set.iter().flatten() {
            match number(cap) {
                Some((bit, _)) if bit <= last_cap => bits |= 1 << bit,
                Some(newer) => drop(unknown.insert(newer)),
                None => drop(unknown.insert((u8::MAX, format!("CAP_{cap}")))),
            }
        }
        bits
    };
    let mut caps = Caps {
        bounding: mask(asked.bounding()),
        effective: mask(asked.effective()),
        permitted: mask(asked.permitted()),
        inheritable: mask(asked.inheritable()),
        ambient: mask(asked.ambient()),
    };
    for (_, name) in unknown {
        warnings.push(format!(
            "process.capabilities: {name} is not known to this kernel: ignored"
        ));
    }
    // capabilities(7): ambient is what is both permitted and inheritable. Not worth a word: the
    // config.json that older `runc spec` writes asks for more, and runc says nothing either.
    caps.ambient &= caps.permitted & caps.inheritable;
    caps
}

/// Capabilities of a mask by name, lowest number first.
pub fn names(mask: u64) -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    let set = all.into_iter().filter(|c| mask & c.bitmask() != 0);
    set.map(|c| c.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::{ask, rootless};
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn process(more: Value) -> Process {
        let mut all = json!({"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"});
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn plan(more: Value) -> ProcessPlan {
        draw(&process(more), &ask()).unwrap().0
    }

    #[test]
    fn what_is_not_asked_for_has_its_default() {
        assert_eq!(
            draw(&process(json!({})), &ask()).unwrap(),
            (
                ProcessPlan {
                    args: vec!["sh".to_owned()],
                    cwd: "/".into(),
                    groups: Some(vec![]),
                    umask: 0o022,
                    caps: Some(Caps::default()),
                    ..ProcessPlan::default()
                },
                vec![]
            )
        );
    }

    #[test]
    fn user_directory_and_flags_are_as_asked() {
        let plan = plan(json!({
            "user": {"uid": 7, "gid": 8, "umask": 0o77, "additionalGids": [9, 5]},
            "cwd": "/srv", "noNewPrivileges": true,
        }));
        assert_eq!((plan.uid, plan.gid, plan.umask), (7, 8, 0o77));
        assert_eq!(plan.groups, Some(vec![9, 5]));
        assert_eq!(plan.cwd, Path::new("/srv"));
        assert!(plan.no_new_privileges);
    }

    #[test]
    fn the_last_of_equal_variables_stays_where_it_stood() {
        for (asked, more, env) in [
            (vec![], vec![], vec![]),
            (vec!["A=1", "B=2", "A=3"], vec![], vec!["B=2", "A=3"]),
            (vec!["A=1=2", "A="], vec![], vec!["A="]),
            (vec!["odd", "odd=1"], vec![], vec!["odd=1"]),
            (
                vec!["LISTEN_PID=9", "A=1"],
                vec!["LISTEN_FDS=2", "LISTEN_PID=1"],
                vec!["A=1", "LISTEN_FDS=2", "LISTEN_PID=1"],
            ),
        ] {
            let [asked, more] = [asked, more]
                .map(|all: Vec<&str>| all.into_iter().map(String::from).collect::<Vec<_>>());
            assert_eq!(environment(&asked, &more), env, "{asked:?}");
        }
    }

    #[test]
    fn the_size_of_a_console_counts_only_with_a_terminal() {
        let size = json!({"height": 24, "width": 80});
        for (terminal, expected) in [(true, Some((24, 80))), (false, None)] {
            let plan = plan(json!({"terminal": terminal, "consoleSize": size}));
            assert_eq!((plan.terminal, plan.console_size), (terminal, expected));
        }
        let wide = json!({"terminal": true, "consoleSize": {"height": 24, "width": 65536}});
        assert_eq!(
            draw(&process(wide), &ask()).unwrap_err().to_string(),
            "process.consoleSize.width: 65536 is more than a terminal can have (65535)"
        );
    }

    #[test]
    fn every_limit_has_the_number_of_the_kernel() {
        let names = [
            ("RLIMIT_CPU", libc::RLIMIT_CPU),
            ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
            ("RLIMIT_DATA", libc::RLIMIT_DATA),
            ("RLIMIT_STACK", libc::RLIMIT_STACK),
            ("RLIMIT_CORE", libc::RLIMIT_CORE),
            ("RLIMIT_RSS", libc::RLIMIT_RSS),
            ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
            ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
            ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
            ("RLIMIT_AS", libc::RLIMIT_AS),
            ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
            ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
            ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
            ("RLIMIT_NICE", libc::RLIMIT_NICE),
            ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
            ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        ];
        let asked = names.map(|(name, _)| json!({"type": name, "soft": 1, "hard": u64::MAX}));
        let expected = names.map(|(name, resource)| Rlimit {
            name: name.to_owned(),
            resource,
            soft: 1,
            hard: u64::MAX,
        });
        assert_eq!(rlimits(&process(json!({ "rlimits": asked }))), expected);
    }

    #[test]
    fn capabilities_become_masks_that_this_kernel_knows() {
        let kill = json!(["CAP_KILL"]);
        let newest = json!(["CAP_KILL", "CAP_CHECKPOINT_RESTORE"]);
        let (k, c) = (1 << 5, 1 << 40);
        for (asked, last_cap, caps, warnings) in [
            (json!({}), 40, Caps::default(), vec![]),
            (
                json!({"bounding": newest, "effective": kill, "permitted": kill}),
                40,
                Caps {
                    bounding: k | c,
                    effective: k,
                    permitted: k,
                    ..Caps::default()
                },
                vec![],
            ),
            (
                json!({"bounding": newest, "permitted": newest}),
                39,
                Caps {
                    bounding: k,
                    permitted: k,
                    ..Caps::default()
                },
                vec![
                    "process.capabilities: CAP_CHECKPOINT_RESTORE is not known to this kernel: \
                     ignored",
                ],
            ),
            (
                json!({"permitted": newest, "inheritable": kill, "ambient": newest}),
                40,
                Caps {
                    permitted: k | c,
                    inheritable: k,
                    ambient: k,
                    ..Caps::default()
                },
                vec![],
            ),
        ] {
            let mut ask = ask();
            ask.host.last_cap = last_cap;
            let (plan, said) = draw(&process(json!({ "capabilities": asked })), &ask).unwrap();
            assert_eq!(
                (plan.caps, said),
                (Some(caps), warnings.into_iter().map(String::from).collect()),
                "{asked}"
            );
        }
    }

    #[test]
    fn groups_that_cannot_be_set_are_an_error() {
        let mut plan = plan(json!({}));
        leave_groups(&mut plan).unwrap();
        assert_eq!(plan.groups, None);
        plan.groups = Some(vec![5]);
        assert_eq!(
            leave_groups(&mut plan).unwrap_err().to_string(),
            "process.user.additionalGids: [5] cannot be set in a rootless container that maps \
             only its user's own group: remove them, or map a range of /etc/subgid in \
             linux.gidMappings"
        );
    }

    #[test]
    fn descriptors_that_survive_are_counted_by_the_caller() {
        let ask = Ask {
            preserve_fds: 3,
            ..rootless()
        };
        assert_eq!(draw(&process(json!({})), &ask).unwrap().0.preserve_fds, 3);
    }
}
