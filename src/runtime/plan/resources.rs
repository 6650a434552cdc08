//! Which cgroup will hold the container, and what is written into its files?
//!
//! Pure: `linux.cgroupsPath` and `linux.resources` of config.json (runtime-spec config-linux.md,
//! "Control groups") become a path and a list of writes to cgroup v2 files, each with the field
//! it comes from. config.json speaks the language of cgroup v1; the conversions here are those
//! of runc (cgroupfs driver, cgroup v2), so that a limit means the same under both.
//!
//! Left to others: making the cgroup and writing (`runtime::cgroup`), the device rules
//! ([`super::device_program`]). Fields without a meaning on cgroup v2:
//!
//! | field | here | why |
//! |---|---|---|
//! | `memory.kernel`, `kernelTCP`, `swappiness`, `disableOOMKiller`, `useHierarchy`, `blockIO.leafWeight`, `weightDevice[].leafWeight` | ignored, as runc does | hints that engines still write; v2 has no such file |
//! | `cpu.realtimeRuntime`, `cpu.realtimePeriod`, `network.classID`, `network.priorities` | an error | a promise that cannot be kept |
//!
//! Zero means "not set" for `shares`, `quota`, `period`, `weight` and the memory fields, as in runc.

use super::paths::clean;
use super::{Ask, CgroupFallback, CgroupPlan, CgroupWrite, device_program};
use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxPids, LinuxRdma,
    LinuxResources, LinuxThrottleDevice, Spec,
};
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The cgroup of the container `ask.id` that `spec` describes.
///
/// Errors name the field that cannot be carried out on cgroup v2.
pub fn draw(spec: &Spec, ask: &Ask) -> Result<CgroupPlan> {
    let linux = spec.linux().as_ref();
    let asked_path = linux
        .and_then(|l| l.cgroups_path().as_deref())
        .filter(|p| !p.as_os_str().is_empty());
    let resources = linux.and_then(|l| l.resources().as_ref());

    let writes = resources.map(writes).transpose()?.unwrap_or_default();
    Ok(CgroupPlan {
        path: place(asked_path, &ask.id, &ask.host.own_cgroup)?,
        optional: ask.host.rootless && asked_path.is_none() && writes.is_empty(),
        writes,
        check_before_update: resources
            .and_then(|r| r.memory().as_ref()?.check_before_update())
            .unwrap_or(false),
        device_program: device_program::draw(spec)?,
        device_program_optional: ask.host.rootless,
        owner: None,
    })
}

/// Where below the cgroup2 mount the container goes.
///
/// An absolute `cgroupsPath` counts from the mount. A relative one, or the id where there is
/// none, counts from the *parent* of the caller's own cgroup: the caller's own holds processes,
/// and a cgroup with processes cannot hand controllers down (cgroups(7), "no internal processes").
/// `..` never climbs out of either. A systemd style `slice:prefix:name` is a name like any other
/// here; only the systemd manager reads it.
fn place(asked: Option<&Path>, id: &str, own: &Path) -> Result<PathBuf> {
    let wanted = asked.unwrap_or(Path::new(id));
    ensure!(
        !wanted.as_os_str().as_bytes().contains(&0),
        "linux.cgroupsPath: {wanted:?} holds a NUL byte, which no path can"
    );
    let inner = clean(wanted);
    ensure!(
        inner != Path::new("/"),
        "linux.cgroupsPath: {wanted:?} names no cgroup of the container's own: add a name to it"
    );
    if wanted.is_absolute() {
        return Ok(inner);
    }
    let mut path = clean(own);
    path.pop();
    path.extend(inner.components().skip(1));
    Ok(path)
}

/// The writes that carry out `linux.resources`, in an order a new cgroup accepts: `unified` last,
/// so that it overrides (config-linux.md, "Unified").
pub fn writes(resources: &LinuxResources) -> Result<Vec<CgroupWrite>> {
    let mut out = Writes::default();
    if let Some(pids) = resources.pids() {
        pids_limit(pids, &mut out)?;
    }
    if let Some(memory) = resources.memory() {
        memory_limits(memory, &mut out)?;
    }
    if let Some(block_io) = resources.block_io() {
        block_io_limits(block_io, &mut out)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(cpu, &mut out)?;
    }
    for (i, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        hugepage_limit(i, limit, &mut out)?;
    }
    if let Some(rdma) = resources.rdma() {
        rdma_limits(rdma, &mut out)?;
    }
    if let Some(network) = resources.network() {
        refuse_network(network)?;
    }
    if let Some(unified) = resources.unified() {
        unified_files(unified, &mut out)?;
    }
    Ok(out.0)
}

#[derive(Default)]
struct Writes(Vec<CgroupWrite>);

impl Writes {
    /// `field` is told below `linux.resources.`.
    fn push(&mut self, field: impl AsRef<str>, file: impl Into<String>, value: impl ToString) {
        self.0.push(CgroupWrite {
            file: file.into(),
            value: value.to_string(),
            field: format!("linux.resources.{}", field.as_ref()),
            optional: false,
            instead: None,
        });
    }

    /// The write just pushed may find its file absent.
    fn optional(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.optional = true;
        }
    }

    /// Where the file of the write just pushed is absent, this one is meant.
    fn or_instead(&mut self, file: &str, value: String) {
        if let Some(last) = self.0.last_mut() {
            last.instead = Some(CgroupFallback {
                file: file.into(),
                value,
            });
        }
    }
}

fn pids_limit(pids: &LinuxPids, out: &mut Writes) -> Result<()> {
    match pids.limit() {
        -1 => out.push("pids.limit", "pids.max", "max"),
        // Init is cloned straight into the cgroup, and pids.max=0 would refuse even that. Alone
        // in its cgroup with pids.max=1 it can start nothing either, which is what 0 asks for.
        0 => out.push("pids.limit", "pids.max", 1),
        n if n > 0 => out.push("pids.limit", "pids.max", n),
        n => bail!(
            "linux.resources.pids.limit: {n} is no number of tasks: give one, or -1 for no limit"
        ),
    }
    Ok(())
}

/// cgroup v1 limits memory, and memory and swap together; v2 limits memory, and swap.
fn memory_limits(memory: &LinuxMemory, out: &mut Writes) -> Result<()> {
    let limit = memory.limit().unwrap_or(0);
    let both = memory.swap().unwrap_or(0);
    let reservation = memory.reservation().unwrap_or(0);
    for (field, value) in [
        ("limit", limit),
        ("swap", both),
        ("reservation", reservation),
    ] {
        ensure!(
            value >= -1,
            "linux.resources.memory.{field}: {value} is no number of bytes: give one, or -1 for no limit"
        );
    }

    // Swap before memory: with memory.max alone in force, a moment's excess would go to swap.
    if let Some(value) = swap_max(limit, both)? {
        // Without swap in the kernel there is no file, and neither of these promises more.
        let moot = value == "max" || value == "0";
        let field = if both == 0 {
            "memory.limit"
        } else {
            "memory.swap"
        };
        out.push(field, "memory.swap.max", value);
        if moot {
            out.optional();
        }
    }
    if limit != 0 {
        out.push("memory.limit", "memory.max", bytes(limit));
    }
    if reservation != 0 {
        out.push("memory.reservation", "memory.low", bytes(reservation));
    }
    Ok(())
}

/// memory.swap.max for a `limit` of memory and a limit of memory and swap together
/// (0: not set, -1: none).
fn swap_max(limit: i64, both: i64) -> Result<Option<String>> {
    match (limit, both) {
        // No limit on memory says, in v1, that swap has none either.
        (-1, 0) | (_, -1) => Ok(Some("max".into())),
        (_, 0) => Ok(None),
        (0 | -1, _) => bail!(
            "linux.resources.memory.swap: {both} is memory and swap together, and \
             linux.resources.memory.limit is not set: unable to set swap limit without memory limit"
        ),
        _ if both < limit => bail!(
            "linux.resources.memory.swap: {both} is memory and swap together, but less than \
             linux.resources.memory.limit {limit}: memory+swap limit should be >= memory limit"
        ),
        _ => Ok(Some((both - limit).to_string())),
    }
}

fn bytes(n: i64) -> String {
    if n == -1 { "max".into() } else { n.to_string() }
}

fn cpu_limits(cpu: &LinuxCpu, out: &mut Writes) -> Result<()> {
    ensure!(
        cpu.realtime_runtime().unwrap_or(0) == 0 && cpu.realtime_period().unwrap_or(0) == 0,
        "linux.resources.cpu.realtime{}: cgroup v2 cannot limit real-time scheduling: remove it",
        if cpu.realtime_runtime().unwrap_or(0) != 0 {
            "Runtime"
        } else {
            "Period"
        }
    );
    let weight = cpu_weight(cpu.shares().unwrap_or(0));
    let idle = cpu.idle();
    // The kernel refuses a weight while the cgroup is idle: leave idleness first, enter it last.
    if let Some(idle) = idle.filter(|&i| i == 0) {
        out.push("cpu.idle", "cpu.idle", idle);
    }
    if let Some(weight) = weight {
        out.push("cpu.shares", "cpu.weight", weight);
    }
    if let Some(idle) = idle.filter(|&i| i != 0) {
        out.push("cpu.idle", "cpu.idle", idle);
    }

    let quota = cpu.quota().unwrap_or(0);
    let period = cpu.period().unwrap_or(0);
    if quota != 0 || period != 0 {
        let field = if quota != 0 {
            "cpu.quota"
        } else {
            "cpu.period"
        };
        let quota = if quota > 0 {
            quota.to_string()
        } else {
            "max".into()
        };
        // 100 ms: the kernel's own default (cgroup-v2.rst, cpu.max).
        let period = if period == 0 { 100_000 } else { period };
        out.push(field, "cpu.max", format!("{quota} {period}"));
    }
    // After the quota, which bounds it.
    if let Some(burst) = cpu.burst() {
        out.push("cpu.burst", "cpu.max.burst", burst);
    }
    for (field, file, list) in [
        ("cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("cpu.mems", "cpuset.mems", cpu.mems()),
    ] {
        if let Some(list) = list.as_ref().filter(|l| !l.is_empty()) {
            out.push(field, file, list);
        }
    }
    Ok(())
}

/// cpu.weight (1 to 10000, default 100) for v1 shares (2 to 262144, default 1024), the formula
/// that runc 1.3.2 and crun 1.23 agree on: a parabola in log2(shares) through the two ends and
/// the defaults (opencontainers/cgroups#20). Shares beyond the ends count as the ends; 0 is unset.
fn cpu_weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let l = (shares as f64).log2();
            // One fraction rather than (l²+125l)/612 - 7/34: exact at the defaults.
            let exponent = (l * l + 125.0 * l - 126.0) / 612.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

fn block_io_limits(block_io: &LinuxBlockIo, out: &mut Writes) -> Result<()> {
    // BFQ's file takes v1 weights as they are; io.weight (the iocost model) has its own scale.
    if let Some(weight) = io_weight("blockIO.weight", block_io.weight())? {
        out.push("blockIO.weight", "io.bfq.weight", weight);
        out.or_instead("io.weight", to_io_weight(weight).to_string());
    }
    for (i, device) in block_io.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO.weightDevice[{i}]");
        let number = device_number(&field, device.major(), device.minor())?;
        if let Some(weight) = io_weight(&format!("{field}.weight"), device.weight())? {
            out.push(&field, "io.bfq.weight", format!("{number} {weight}"));
            out.or_instead("io.weight", format!("{number} {}", to_io_weight(weight)));
        }
    }
    throttles(
        "throttleReadBpsDevice",
        block_io.throttle_read_bps_device(),
        "rbps",
        out,
    )?;
    throttles(
        "throttleWriteBpsDevice",
        block_io.throttle_write_bps_device(),
        "wbps",
        out,
    )?;
    throttles(
        "throttleReadIOPSDevice",
        block_io.throttle_read_iops_device(),
        "riops",
        out,
    )?;
    throttles(
        "throttleWriteIOPSDevice",
        block_io.throttle_write_iops_device(),
        "wiops",
        out,
    )
}

fn io_weight(field: &str, weight: Option<u16>) -> Result<Option<u16>> {
    let weight = weight.filter(|&w| w != 0);
    ensure!(
        weight.is_none_or(|w| (10..=1000).contains(&w)),
        "linux.resources.{field}: {} is no weight: give 10 to 1000",
        weight.unwrap_or(0)
    );
    Ok(weight)
}

/// 10..1000 onto io.weight's 1..10000, linearly, as runc does.
fn to_io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn throttles(
    field: &str,
    devices: &Option<Vec<LinuxThrottleDevice>>,
    key: &str,
    out: &mut Writes,
) -> Result<()> {
    for (i, device) in devices.iter().flatten().enumerate() {
        let field = format!("blockIO.{field}[{i}]");
        let number = device_number(&field, device.major(), device.minor())?;
        // v1 lifts a throttle with 0; io.max calls that `max` and refuses 0.
        let rate = match device.rate() {
            0 => "max".to_string(),
            rate => rate.to_string(),
        };
        out.push(&field, "io.max", format!("{number} {key}={rate}"));
    }
    Ok(())
}

fn device_number(field: &str, major: i64, minor: i64) -> Result<String> {
    for (part, value) in [("major", major), ("minor", minor)] {
        ensure!(
            u32::try_from(value).is_ok(),
            "linux.resources.{field}.{part}: {value} is no device number"
        );
    }
    Ok(format!("{major}:{minor}"))
}

fn hugepage_limit(i: usize, limit: &LinuxHugepageLimit, out: &mut Writes) -> Result<()> {
    let size = limit.page_size();
    ensure!(
        is_page_size(size),
        "linux.resources.hugepageLimits[{i}].pageSize: {size:?} is no page size: \
         give one as the kernel writes it, like 64KB, 2MB or 1GB"
    );
    let bytes = limit.limit();
    ensure!(
        bytes >= 0,
        "linux.resources.hugepageLimits[{i}].limit: {bytes} is no number of bytes"
    );
    let field = format!("hugepageLimits[{i}]");
    out.push(&field, format!("hugetlb.{size}.max"), bytes);
    // Reserved pages are counted apart since kernel 5.7.
    out.push(&field, format!("hugetlb.{size}.rsvd.max"), bytes);
    out.optional();
    Ok(())
}

/// `[1-9][0-9]*[KMG]B` (config-linux.md, "Huge page limits").
fn is_page_size(size: &str) -> bool {
    let digits = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| size.strip_suffix(unit))
        .unwrap_or("");
    !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

fn rdma_limits(rdma: &HashMap<String, LinuxRdma>, out: &mut Writes) -> Result<()> {
    let mut devices: Vec<_> = rdma.iter().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    for (name, limits) in devices {
        let field = format!("rdma[{name:?}]");
        ensure!(
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control()),
            "linux.resources.{field}: no name of an RDMA device"
        );
        let mut line = name.clone();
        for (key, value) in [
            ("hca_handle", limits.hca_handles()),
            ("hca_object", limits.hca_objects()),
        ] {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        ensure!(
            line.len() > name.len(),
            "linux.resources.{field}: limits nothing: give hcaHandles, hcaObjects or both"
        );
        out.push(field, "rdma.max", line);
    }
    Ok(())
}

fn refuse_network(network: &LinuxNetwork) -> Result<()> {
    if let Some(id) = network.class_id().filter(|&id| id != 0) {
        bail!(
            "linux.resources.network.classID: {id}: cgroup v2 has no net_cls controller: \
             remove it and match the cgroup itself (iptables -m cgroup --path, nft socket cgroupv2)"
        );
    }
    ensure!(
        network.priorities().iter().flatten().next().is_none(),
        "linux.resources.network.priorities: cgroup v2 has no net_prio controller: remove them"
    );
    Ok(())
}

fn unified_files(unified: &HashMap<String, String>, out: &mut Writes) -> Result<()> {
    let mut files: Vec<_> = unified.iter().collect();
    files.sort();
    for (file, value) in files {
        ensure!(
            !file.contains(['/', '\0']),
            "linux.resources.unified: unified resource {file:?} must be a file name (no slashes)"
        );
        let named = file
            .split_once('.')
            .is_some_and(|(controller, parameter)| !controller.is_empty() && !parameter.is_empty());
        ensure!(
            named,
            "linux.resources.unified: unified resource {file:?} must be in the form CONTROLLER.PARAMETER"
        );
        out.push(format!("unified[{file:?}]"), file, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::plan::example_ask;
    use serde_json::{Value, json};

    fn ask(own: &str, rootless: bool) -> Ask {
        let mut ask = example_ask();
        ask.id = "web".into();
        ask.host.rootless = rootless;
        ask.host.own_cgroup = own.into();
        ask
    }

    fn spec(linux: Value) -> Spec {
        serde_json::from_value(json!({"ociVersion": "1.2.0", "linux": linux})).unwrap()
    }

    /// `file=value` of each write, `?` where optional, `|file=value` for what is meant instead.
    fn lines(resources: Value) -> Result<Vec<String>> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        Ok(writes(&resources)?
            .iter()
            .map(|w| {
                let instead = w.instead.as_ref();
                format!(
                    "{}: {}={}{}{}",
                    w.field.strip_prefix("linux.resources.").unwrap(),
                    w.file,
                    w.value,
                    if w.optional { "?" } else { "" },
                    instead.map_or(String::new(), |i| format!("|{}={}", i.file, i.value))
                )
            })
            .collect())
    }

    #[test]
    fn a_container_is_placed_where_runc_places_it() {
        for (asked, own, path) in [
            (None, "/", "/web"),
            (None, "/user.slice/shell", "/user.slice/web"),
            (None, "/../../x", "/web"),
            (Some(""), "/a/b", "/a/web"),
            (Some("rel/x"), "/a/b/c", "/a/b/rel/x"),
            (Some("../../z"), "/a/b/c", "/a/b/z"),
            (Some("./z/."), "/a/b", "/a/z"),
            (Some("/abs/x"), "/a/b", "/abs/x"),
            (Some("/abs/../../y"), "/a/b", "/y"),
            (Some("//abs//x/"), "/a/b", "/abs/x"),
            (Some("system.slice:p:n"), "/a/b", "/a/system.slice:p:n"),
        ] {
            let spec = spec(json!({ "cgroupsPath": asked }));
            let plan = draw(&spec, &ask(own, false)).unwrap();
            assert_eq!(plan.path, Path::new(path), "{asked:?} from {own}");
        }
    }

    #[test]
    fn a_path_that_names_no_cgroup_is_refused() {
        for (asked, message) in [
            (
                "/",
                "linux.cgroupsPath: \"/\" names no cgroup of the container's own: add a name to it",
            ),
            (
                "..",
                "linux.cgroupsPath: \"..\" names no cgroup of the container's own: add a name to it",
            ),
            (
                "/a/..",
                "linux.cgroupsPath: \"/a/..\" names no cgroup of the container's own: add a name to it",
            ),
            (
                "/a\0b",
                "linux.cgroupsPath: \"/a\\0b\" holds a NUL byte, which no path can",
            ),
        ] {
            let spec = spec(json!({ "cgroupsPath": asked }));
            let error = draw(&spec, &ask("/", false)).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }

    #[test]
    fn only_a_rootless_container_without_wishes_may_go_without_a_cgroup() {
        for (rootless, linux, optional) in [
            (true, json!({}), true),
            (false, json!({}), false),
            (true, json!({"cgroupsPath": "/x"}), false),
            (true, json!({"resources": {"pids": {"limit": 5}}}), false),
        ] {
            let plan = draw(&spec(linux.clone()), &ask("/", rootless)).unwrap();
            assert_eq!(plan.optional, optional, "{rootless} {linux}");
            assert_eq!(plan.device_program_optional, rootless);
        }
    }

    #[test]
    fn each_limit_becomes_its_cgroup_v2_file() {
        for (resources, expected) in [
            (json!({}), vec![]),
            (
                json!({"pids": {"limit": 7}}),
                vec!["pids.limit: pids.max=7"],
            ),
            (
                json!({"pids": {"limit": 0}}),
                vec!["pids.limit: pids.max=1"],
            ),
            (
                json!({"pids": {"limit": -1}}),
                vec!["pids.limit: pids.max=max"],
            ),
            (
                json!({"memory": {"limit": 1000, "swap": 1500, "reservation": 500}}),
                vec![
                    "memory.swap: memory.swap.max=500",
                    "memory.limit: memory.max=1000",
                    "memory.reservation: memory.low=500",
                ],
            ),
            (
                json!({"memory": {"limit": 1000, "swap": 1000}}),
                vec![
                    "memory.swap: memory.swap.max=0?",
                    "memory.limit: memory.max=1000",
                ],
            ),
            (
                json!({"memory": {"limit": -1}}),
                vec![
                    "memory.limit: memory.swap.max=max?",
                    "memory.limit: memory.max=max",
                ],
            ),
            (
                json!({"memory": {"swap": -1}}),
                vec!["memory.swap: memory.swap.max=max?"],
            ),
            (
                json!({"memory": {"limit": 1000}}),
                vec!["memory.limit: memory.max=1000"],
            ),
            (
                json!({"memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 9, "kernelTCP": 9,
                    "swappiness": 60, "disableOOMKiller": true, "useHierarchy": true}}),
                vec![],
            ),
            (
                json!({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}),
                vec![],
            ),
            (
                json!({"cpu": {"shares": 1024}}),
                vec!["cpu.shares: cpu.weight=100"],
            ),
            (
                json!({"cpu": {"quota": 50000}}),
                vec!["cpu.quota: cpu.max=50000 100000"],
            ),
            (
                json!({"cpu": {"quota": -1}}),
                vec!["cpu.quota: cpu.max=max 100000"],
            ),
            (
                json!({"cpu": {"period": 20000}}),
                vec!["cpu.period: cpu.max=max 20000"],
            ),
            (
                json!({"cpu": {"quota": 10000, "period": 20000, "burst": 5000, "cpus": "0-1", "mems": "0"}}),
                vec![
                    "cpu.quota: cpu.max=10000 20000",
                    "cpu.burst: cpu.max.burst=5000",
                    "cpu.cpus: cpuset.cpus=0-1",
                    "cpu.mems: cpuset.mems=0",
                ],
            ),
            (
                json!({"cpu": {"shares": 2, "idle": 1}}),
                vec!["cpu.shares: cpu.weight=1", "cpu.idle: cpu.idle=1"],
            ),
            (
                json!({"cpu": {"shares": 2, "idle": 0}}),
                vec!["cpu.idle: cpu.idle=0", "cpu.shares: cpu.weight=1"],
            ),
            (
                json!({"blockIO": {"weight": 10, "leafWeight": 500,
                    "weightDevice": [{"major": 8, "minor": 16, "weight": 1000, "leafWeight": 3}]}}),
                vec![
                    "blockIO.weight: io.bfq.weight=10|io.weight=1",
                    "blockIO.weightDevice[0]: io.bfq.weight=8:16 1000|io.weight=8:16 10000",
                ],
            ),
            (
                json!({"blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}, {"major": 8, "minor": 1, "rate": 0}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 18446744073709551615u64}]}}),
                vec![
                    "blockIO.throttleReadBpsDevice[0]: io.max=8:0 rbps=1",
                    "blockIO.throttleReadBpsDevice[1]: io.max=8:1 rbps=max",
                    "blockIO.throttleWriteBpsDevice[0]: io.max=8:0 wbps=2",
                    "blockIO.throttleReadIOPSDevice[0]: io.max=8:0 riops=3",
                    "blockIO.throttleWriteIOPSDevice[0]: io.max=8:0 wiops=18446744073709551615",
                ],
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}),
                vec![
                    "hugepageLimits[0]: hugetlb.2MB.max=4194304",
                    "hugepageLimits[0]: hugetlb.2MB.rsvd.max=4194304?",
                ],
            ),
            (
                json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}, "mlx4_0": {"hcaObjects": 0}}}),
                vec![
                    "rdma[\"mlx4_0\"]: rdma.max=mlx4_0 hca_object=0",
                    "rdma[\"mlx5_1\"]: rdma.max=mlx5_1 hca_handle=3 hca_object=10",
                ],
            ),
            (json!({"network": {"classID": 0, "priorities": []}}), vec![]),
            (
                json!({"unified": {"pids.max": "9", "memory.high": "1"}, "pids": {"limit": 3}}),
                vec![
                    "pids.limit: pids.max=3",
                    "unified[\"memory.high\"]: memory.high=1",
                    "unified[\"pids.max\"]: pids.max=9",
                ],
            ),
        ] {
            assert_eq!(lines(resources.clone()).unwrap(), expected, "{resources}");
        }
    }

    #[test]
    fn a_limit_that_means_nothing_is_refused_by_its_field() {
        for (resources, message) in [
            (
                json!({"pids": {"limit": -7}}),
                "linux.resources.pids.limit: -7 is no number of tasks: give one, or -1 for no limit",
            ),
            (
                json!({"memory": {"reservation": -2}}),
                "linux.resources.memory.reservation: -2 is no number of bytes: give one, or -1 for no limit",
            ),
            (
                json!({"memory": {"swap": 1000}}),
                "linux.resources.memory.swap: 1000 is memory and swap together, and linux.resources.memory.limit \
                 is not set: unable to set swap limit without memory limit",
            ),
            (
                json!({"memory": {"limit": 1000, "swap": 100}}),
                "linux.resources.memory.swap: 100 is memory and swap together, but less than \
                 linux.resources.memory.limit 1000: memory+swap limit should be >= memory limit",
            ),
            (
                json!({"cpu": {"realtimeRuntime": 5}}),
                "linux.resources.cpu.realtimeRuntime: cgroup v2 cannot limit real-time scheduling: remove it",
            ),
            (
                json!({"cpu": {"realtimePeriod": 5}}),
                "linux.resources.cpu.realtimePeriod: cgroup v2 cannot limit real-time scheduling: remove it",
            ),
            (
                json!({"blockIO": {"weight": 5000}}),
                "linux.resources.blockIO.weight: 5000 is no weight: give 10 to 1000",
            ),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": -1, "weight": 100}]}}),
                "linux.resources.blockIO.weightDevice[0].minor: -1 is no device number",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}),
                "linux.resources.hugepageLimits[0].pageSize: \"../x\" is no page size: \
                 give one as the kernel writes it, like 64KB, 2MB or 1GB",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}),
                "linux.resources.hugepageLimits[0].limit: -1 is no number of bytes",
            ),
            (
                json!({"rdma": {"mlx": {}}}),
                "linux.resources.rdma[\"mlx\"]: limits nothing: give hcaHandles, hcaObjects or both",
            ),
            (
                json!({"network": {"classID": 10}}),
                "linux.resources.network.classID: 10: cgroup v2 has no net_cls controller: remove it and \
                 match the cgroup itself (iptables -m cgroup --path, nft socket cgroupv2)",
            ),
            (
                json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
                "linux.resources.network.priorities: cgroup v2 has no net_prio controller: remove them",
            ),
            (
                json!({"unified": {"a/b": "1"}}),
                "linux.resources.unified: unified resource \"a/b\" must be a file name (no slashes)",
            ),
            (
                json!({"unified": {"bogus": "1"}}),
                "linux.resources.unified: unified resource \"bogus\" must be in the form CONTROLLER.PARAMETER",
            ),
            (
                json!({"unified": {"": "1"}}),
                "linux.resources.unified: unified resource \"\" must be in the form CONTROLLER.PARAMETER",
            ),
            (
                json!({"unified": {"..": "1"}}),
                "linux.resources.unified: unified resource \"..\" must be in the form CONTROLLER.PARAMETER",
            ),
        ] {
            let error = lines(resources).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }

    #[test]
    fn shares_keep_their_ends_and_their_default() {
        for (shares, weight) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(2)),
            (512, Some(59)),
            (1024, Some(100)),
            (1025, Some(101)),
            (262_143, Some(10_000)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
        let weights: Vec<_> = (2..=262_144).map(cpu_weight).collect();
        assert!(weights.is_sorted(), "more shares never weigh less");
    }

    #[test]
    fn page_sizes_are_written_as_the_kernel_writes_them() {
        for good in ["64KB", "2MB", "1GB", "16384MB"] {
            assert!(is_page_size(good), "{good}");
        }
        for bad in [
            "", "MB", "02MB", "2mb", "2M", "2MiB", "2TB", "-2MB", "../2MB", "2 MB",
        ] {
            assert!(!is_page_size(bad), "{bad}");
        }
    }
}
