//! When and where does the process run: scheduler, I/O priority, memory policy, personality.
//!
//! Names of config.json to numbers of the kernel. `process` of config.json holds the first two,
//! `linux` the last; all end in the plan of the process.

use super::{MemoryPolicy, Scheduler};
use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
    Scheduler as Asked,
};
use std::collections::BTreeSet;

/// sched_setattr(2).
pub fn scheduler(asked: &Asked) -> Result<Scheduler> {
    let policy = match asked.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        // Reserved in the kernel's header, and refused by it.
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let flags = asked.flags().iter().flatten().map(flag);
    let priority = asked.priority().unwrap_or(0);
    Ok(Scheduler {
        policy,
        flags: flags.fold(0, |all, bit| all | bit),
        nice: asked.nice().unwrap_or(0),
        priority: u32::try_from(priority)
            .map_err(|_| anyhow!("process.scheduler.priority: {priority} is below 0"))?,
        runtime: asked.runtime().unwrap_or(0),
        deadline: asked.deadline().unwrap_or(0),
        period: asked.period().unwrap_or(0),
    })
}

/// ioprio_set(2): class << 13 | level.
pub fn io_priority(asked: &LinuxIOPriority) -> Result<u16> {
    let class: u16 = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = asked.priority();
    match u16::try_from(level) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => bail!("process.ioPriority.priority: {level} is not between 0 and 7"),
    }
}

/// personality(2), and a warning: config-linux.md#personality knows no flags yet.
pub fn personality(asked: &LinuxPersonality) -> (u64, Option<String>) {
    let domain = match asked.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    };
    let flags = asked.flags().as_deref().unwrap_or_default();
    let warning = (!flags.is_empty())
        .then(|| format!("linux.personality.flags: {flags:?} are not supported: ignored"));
    (domain, warning)
}

/// The kernel has at most so many memory nodes (MAX_NUMNODES).
const NODES: u32 = 1024;

/// And so many processors (CONFIG_NR_CPUS).
const PROCESSORS: u32 = 8192;

/// What linux.memoryPolicy.mode can be.
pub const MEMORY_MODES: &[MemoryPolicyModeType] = every!(MemoryPolicyModeType:
    MpolDefault MpolPreferred MpolBind MpolInterleave MpolLocal MpolPreferredMany
    MpolWeightedInterleave);

/// And its flags.
pub const MEMORY_FLAGS: &[MemoryPolicyFlagType] = every!(MemoryPolicyFlagType:
    MpolFNumaBalancing MpolFRelativeNodes MpolFStaticNodes);

/// set_mempolicy(2).
pub fn memory_policy(asked: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let mode = match asked.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    };
    let flags = asked.flags().iter().flatten().map(flag);
    let list = asked.nodes().as_deref().unwrap_or_default();
    Ok(MemoryPolicy {
        mode: flags.fold(mode, |all, bit| all | bit),
        nodes: nodes(list).with_context(|| format!("linux.memoryPolicy.nodes {list:?}"))?,
    })
}

/// A list of processors like `0-3,7` as the mask of sched_setaffinity(2).
pub fn processors(list: &str) -> Result<Vec<u64>> {
    let all = numbers(list, "processor", PROCESSORS)?;
    ensure!(!all.is_empty(), "it names no processor");
    let last = all.iter().copied().max().unwrap_or(0) as usize;
    let mut mask = vec![0; last / 64 + 1];
    for n in all {
        mask[n as usize / 64] |= 1 << (n % 64);
    }
    Ok(mask)
}

fn nodes(list: &str) -> Result<Vec<u32>> {
    numbers(list, "node", NODES)
}

/// `0-2,5` as numbers, ascending.
fn numbers(list: &str, what: &str, limit: u32) -> Result<Vec<u32>> {
    let mut all = BTreeSet::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim()
                .parse::<u32>()
                .ok()
                .filter(|n| *n < limit)
                .with_context(|| format!("{text:?} is not a {what} number below {limit}"))
        };
        let (first, last) = (number(first)?, number(last)?);
        ensure!(first <= last, "{part:?} runs backwards");
        all.extend(first..=last);
    }
    Ok(all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn from<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_list_of_processors_is_a_mask() {
        for (list, mask) in [
            ("0", vec![1]),
            ("0-2,5", vec![0b10_0111]),
            ("64", vec![0, 1]),
            ("1, 63-65", vec![1 << 63 | 2, 3]),
        ] {
            assert_eq!(processors(list).unwrap(), mask, "{list}");
        }
        for (list, why) in [
            ("", "it names no processor"),
            ("8192", "\"8192\" is not a processor number below 8192"),
            ("3-1", "\"3-1\" runs backwards"),
        ] {
            assert_eq!(processors(list).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn schedulers_have_the_numbers_of_the_kernel() {
        for (name, policy) in [
            ("SCHED_OTHER", libc::SCHED_OTHER),
            ("SCHED_FIFO", libc::SCHED_FIFO),
            ("SCHED_RR", libc::SCHED_RR),
            ("SCHED_BATCH", libc::SCHED_BATCH),
            ("SCHED_ISO", 4),
            ("SCHED_IDLE", libc::SCHED_IDLE),
            ("SCHED_DEADLINE", libc::SCHED_DEADLINE),
        ] {
            let plan = scheduler(&from(json!({ "policy": name }))).unwrap();
            assert_eq!(plan.policy, policy as u32, "{name}");
        }
        let mut asked = Asked::default();
        asked.set_flags(Some(vec![
            LinuxSchedulerFlag::SchedResetOnFork,
            LinuxSchedulerFlag::SchedFlagReclaim,
            LinuxSchedulerFlag::SchedFlagDLOverrun,
            LinuxSchedulerFlag::SchedFlagKeepPolicy,
            LinuxSchedulerFlag::SchedFlagKeepParams,
            LinuxSchedulerFlag::SchedFlagUtilClampMin,
            LinuxSchedulerFlag::SchedFlagUtilClampMax,
            LinuxSchedulerFlag::SchedFlagUtilClampMax,
        ]));
        assert_eq!(scheduler(&asked).unwrap().flags, 0x7f);
    }

    #[test]
    fn what_a_scheduler_is_given_reaches_it() {
        let asked = json!({"policy": "SCHED_DEADLINE", "nice": -3, "priority": 7, "runtime": 1, "deadline": 2, "period": 3});
        let expected = Scheduler {
            policy: 6,
            flags: 0,
            nice: -3,
            priority: 7,
            runtime: 1,
            deadline: 2,
            period: 3,
        };
        assert_eq!(scheduler(&from(asked)).unwrap(), expected);
        let below = from(json!({"policy": "SCHED_FIFO", "priority": -1}));
        assert_eq!(
            scheduler(&below).unwrap_err().to_string(),
            "process.scheduler.priority: -1 is below 0"
        );
    }

    #[test]
    fn an_io_priority_is_class_and_level() {
        for (class, level, expected) in [
            ("IOPRIO_CLASS_RT", 0, Ok(0x2000)),
            ("IOPRIO_CLASS_BE", 7, Ok(0x4007)),
            ("IOPRIO_CLASS_IDLE", 0, Ok(0x6000)),
            ("IOPRIO_CLASS_BE", 8, Err(8)),
            ("IOPRIO_CLASS_BE", -1, Err(-1)),
        ] {
            let asked = from(json!({"class": class, "priority": level}));
            let expected = expected
                .map_err(|n| format!("process.ioPriority.priority: {n} is not between 0 and 7"));
            let got = io_priority(&asked).map_err(|e| e.to_string());
            assert_eq!(got, expected, "{class} {level}");
        }
    }

    #[test]
    fn a_personality_has_its_number_and_no_flags() {
        assert_eq!(personality(&from(json!({"domain": "LINUX"}))), (0, None));
        assert_eq!(
            personality(&from(json!({"domain": "LINUX32", "flags": ["X"]}))),
            (
                8,
                Some("linux.personality.flags: [\"X\"] are not supported: ignored".to_owned())
            )
        );
    }

    #[test]
    fn a_memory_policy_has_mode_flags_and_nodes() {
        for (name, mode) in [
            ("MPOL_DEFAULT", libc::MPOL_DEFAULT),
            ("MPOL_PREFERRED", libc::MPOL_PREFERRED),
            ("MPOL_BIND", libc::MPOL_BIND),
            ("MPOL_INTERLEAVE", libc::MPOL_INTERLEAVE),
            ("MPOL_LOCAL", libc::MPOL_LOCAL),
            ("MPOL_PREFERRED_MANY", 5),
            ("MPOL_WEIGHTED_INTERLEAVE", 6),
        ] {
            let plan = memory_policy(&from(json!({ "mode": name }))).unwrap();
            assert_eq!((plan.mode, plan.nodes), (mode, vec![]), "{name}");
        }
        let asked = json!({"mode": "MPOL_BIND", "nodes": "5,0-2, 1", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]});
        let expected = MemoryPolicy {
            mode: 2 | 1 << 15 | 1 << 13,
            nodes: vec![0, 1, 2, 5],
        };
        assert_eq!(memory_policy(&from(asked)).unwrap(), expected);
    }

    #[test]
    fn nodes_that_are_none_are_refused() {
        for (nodes, why) in [
            ("x", "\"x\" is not a node number below 1024"),
            ("0-1024", "\"1024\" is not a node number below 1024"),
            ("3-1", "\"3-1\" runs backwards"),
            ("-1", "\"\" is not a node number below 1024"),
        ] {
            let asked = from(json!({"mode": "MPOL_BIND", "nodes": nodes}));
            let said = format!("{:#}", memory_policy(&asked).unwrap_err());
            assert_eq!(said, format!("linux.memoryPolicy.nodes {nodes:?}: {why}"));
        }
    }
}
