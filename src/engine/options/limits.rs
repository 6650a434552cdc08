//! Options that say how much a container may use.

use crate::engine::config::bytes;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

#[derive(Debug, Default, Args)]
pub struct Limits {
    /// Memory, and as much swap, like 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory and swap together; -1 for no limit of swap [twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is left to it when memory is short
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// Processors, like 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Its part of busy processors, beside others' [1024]
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// Microseconds of a processor in each period
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    cpu_quota: Option<i64>,
    /// [100000]
    #[arg(long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    cpu_period: Option<u64>,
    /// The processors it may use, like 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// The memory nodes it may use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Processes and threads; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Its part of busy disks, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<u16>,
    /// Bytes a second from a disk, like /dev/sda:1mb
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// Bytes a second to a disk
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// Reads a second from a disk
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<String>,
    /// Writes a second to a disk
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<String>,
}

/// Where the limits are kept.
#[derive(Debug, Default, Args)]
pub struct Cgroup {
    /// The cgroup that its cgroup is made in
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Its cgroup is a scope of systemd's
    #[arg(long)]
    pub systemd_cgroup: bool,
}

impl Limits {
    /// Also of a container that is there.
    pub fn apply(&self, config: &mut Value) -> Result<()> {
        let resources = &mut config["linux"]["resources"];
        self.memory(resources)?;
        self.processors(resources)?;
        if let Some(limit) = self.pids_limit {
            // docker's: 0 too is none.
            resources["pids"] = json!({ "limit": if limit == 0 { -1 } else { limit } });
        }
        self.disks(resources)
    }

    fn disks(&self, resources: &mut Value) -> Result<()> {
        if let Some(weight) = self.blkio_weight {
            ensure!(
                weight == 0 || (10..=1000).contains(&weight),
                "range of blkio weight is from 10 to 1000"
            );
            if weight > 0 {
                resources["blockIO"]["weight"] = json!(weight);
            }
        }
        for (option, typed, key) in [
            (
                "--device-read-bps",
                &self.device_read_bps,
                "throttleReadBpsDevice",
            ),
            (
                "--device-write-bps",
                &self.device_write_bps,
                "throttleWriteBpsDevice",
            ),
            (
                "--device-read-iops",
                &self.device_read_iops,
                "throttleReadIOPSDevice",
            ),
            (
                "--device-write-iops",
                &self.device_write_iops,
                "throttleWriteIOPSDevice",
            ),
        ] {
            let limits = typed.iter().map(|typed| throttle(typed));
            let limits: Result<Vec<Value>> = limits.collect();
            let limits = limits.context(option)?;
            if !limits.is_empty() {
                resources["blockIO"][key] = json!(limits);
            }
        }
        Ok(())
    }

    fn memory(&self, resources: &mut Value) -> Result<()> {
        let size = |option: &str, typed: &Option<String>| {
            let size = typed.as_deref().map(bytes).transpose();
            size.with_context(|| option.to_owned())
        };
        let limit = size("--memory", &self.memory)?;
        let swap = match self.memory_swap.as_deref() {
            Some("-1") => Some(-1),
            Some("0") => None,
            Some(typed) => Some(bytes(typed).context("--memory-swap")?),
            None => None,
        };
        let reservation = size("--memory-reservation", &self.memory_reservation)?;
        ensure!(
            limit.is_none_or(|limit| limit >= 6 << 20),
            "Minimum memory limit allowed is 6MB"
        );
        match (limit, swap) {
            (None, Some(_)) => bail!(
                "You should always set the Memory limit when using Memoryswap limit, see usage"
            ),
            (Some(limit), Some(swap)) if swap != -1 && swap < limit => {
                bail!("Minimum memoryswap limit should be larger than memory limit, see usage")
            }
            _ => {}
        }
        if let Some(limit) = limit {
            // docker's: as much swap as memory.
            let swap = swap.unwrap_or(limit.saturating_mul(2));
            resources["memory"] = json!({ "limit": limit, "swap": swap });
        }
        if let Some(reservation) = reservation {
            ensure!(
                limit.is_none_or(|limit| reservation <= limit),
                "Minimum memory limit can not be less than memory reservation limit, see usage"
            );
            resources["memory"]["reservation"] = json!(reservation);
        }
        Ok(())
    }

    fn processors(&self, resources: &mut Value) -> Result<()> {
        if let Some(cpus) = self.cpus {
            ensure!((0.01..=100_000.0).contains(&cpus), "--cpus: from 0.01 on");
            resources["cpu"]["quota"] = json!((cpus * 100_000.0).round() as i64);
            resources["cpu"]["period"] = json!(100_000);
        }
        for (name, number) in [
            ("shares", self.cpu_shares.map(|number| json!(number))),
            ("quota", self.cpu_quota.map(|number| json!(number))),
            ("period", self.cpu_period.map(|number| json!(number))),
            ("cpus", self.cpuset_cpus.as_ref().map(|list| json!(list))),
            ("mems", self.cpuset_mems.as_ref().map(|list| json!(list))),
        ] {
            if let Some(value) = number {
                resources["cpu"][name] = value;
            }
        }
        Ok(())
    }
}

impl Cgroup {
    /// cgroup v2 path, or slice:prefix:name for systemd.
    pub fn apply(&self, config: &mut Value, id: &str) {
        let parent = self.cgroup_parent.as_deref();
        let path = match (self.systemd_cgroup, parent) {
            (true, parent) => format!("{}:sc:{id}", parent.unwrap_or_default()),
            (false, Some(parent)) => format!("{}/{id}", parent.trim_end_matches('/')),
            (false, None) => return,
        };
        config["linux"]["cgroupsPath"] = json!(path);
    }
}

/// `/dev/sda:1mb`: a disk, and its bytes or operations a second.
fn throttle(typed: &str) -> Result<Value> {
    let (path, rate) = typed
        .rsplit_once(':')
        .with_context(|| format!("{typed:?}: write DEVICE:RATE, like /dev/sda:1mb"))?;
    let rate = bytes(rate).with_context(|| format!("{typed:?}"))?;
    let file = std::fs::metadata(path).with_context(|| path.to_owned())?;
    ensure!(
        file.file_type().is_block_device(),
        "{path} is no block device"
    );
    let number = file.rdev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    Ok(json!({ "major": major, "minor": minor, "rate": rate }))
}

/// `c 1:3 rwm`, as the kernel's documentation of cgroup v1 writes it.
pub fn device_rule(typed: &str) -> Result<Value> {
    let words: Vec<&str> = typed.split_whitespace().collect();
    let [kind, numbers, access] = words.as_slice() else {
        bail!("write TYPE MAJOR:MINOR ACCESS, like \"c 1:3 rwm\"");
    };
    ensure!(
        ["a", "b", "c"].contains(kind),
        "type {kind:?} is none of a, b, c"
    );
    check_access(access)?;
    let (major, minor) = numbers
        .split_once(':')
        .context("MAJOR:MINOR, each a number or *")?;
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (key, text) in [("major", major), ("minor", minor)] {
        if text != "*" {
            let number = text
                .parse::<u32>()
                .with_context(|| format!("{text:?} is neither a number nor *"))?;
            rule[key] = json!(number);
        }
    }
    Ok(rule)
}

pub fn check_access(access: &str) -> Result<()> {
    let good = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
    ensure!(good, "access {access:?}: letters of rwm");
    Ok(())
}

/// Adds a rule to those of the device cgroup.
pub fn allow(config: &mut Value, rule: Value) {
    let devices = &mut config["linux"]["resources"]["devices"];
    let mut rules = devices.as_array().cloned().unwrap_or_default();
    rules.push(rule);
    *devices = json!(rules);
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        limits: Limits,
        #[command(flatten)]
        cgroup: Cgroup,
    }

    fn applied(args: &[&str]) -> Result<Value> {
        let mut config = json!({ "process": {}, "linux": { "resources": {} } });
        let typed = Typed::try_parse_from([&["x"], args].concat())?;
        typed.limits.apply(&mut config)?;
        typed.cgroup.apply(&mut config, "ID");
        Ok(config)
    }

    #[test]
    fn limits_are_dockers() {
        for (args, expected) in [
            (
                &["-m", "64m"][..],
                json!({ "memory": { "limit": 67108864, "swap": 134217728 } }),
            ),
            (
                &[
                    "-m",
                    "64m",
                    "--memory-swap",
                    "-1",
                    "--memory-reservation=32m",
                ],
                json!({ "memory": { "limit": 67108864, "swap": -1, "reservation": 33554432 } }),
            ),
            (
                &["--cpus", "1.5"],
                json!({ "cpu": { "quota": 150000, "period": 100000 } }),
            ),
            (
                &["--cpu-shares=512", "--cpuset-cpus=0-1", "--cpuset-mems=0"],
                json!({ "cpu": { "shares": 512, "cpus": "0-1", "mems": "0" } }),
            ),
            (&["--pids-limit", "-1"], json!({ "pids": { "limit": -1 } })),
            (
                &["--blkio-weight", "300"],
                json!({ "blockIO": { "weight": 300 } }),
            ),
        ] {
            assert_eq!(
                applied(args).unwrap()["linux"]["resources"],
                expected,
                "{args:?}"
            );
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        for (args, expected) in [
            (&["-m", "5m"][..], "Minimum memory limit allowed is 6MB"),
            (
                &["--memory-swap", "1g"],
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                &["-m", "1g", "--memory-swap", "1m"],
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                &["--blkio-weight", "5"],
                "range of blkio weight is from 10 to 1000",
            ),
        ] {
            assert_eq!(applied(args).unwrap_err().to_string(), expected, "{args:?}");
        }
    }

    #[test]
    fn only_a_disk_is_throttled() {
        for (typed, expected) in [
            (
                "/dev/null:1mb",
                "--device-read-bps: /dev/null is no block device",
            ),
            ("/nowhere:1mb", "--device-read-bps: /nowhere: No such file"),
            (
                "/dev/null",
                "--device-read-bps: \"/dev/null\": write DEVICE:RATE",
            ),
            ("/dev/null:x", "--device-read-bps: \"/dev/null:x\": "),
        ] {
            let e = applied(&["--device-read-bps", typed]).unwrap_err();
            let said = format!("{e:#}");
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn a_cgroup_is_a_path_or_a_scope() {
        for (args, expected) in [
            (&["--cgroup-parent", "/a/"][..], json!("/a/ID")),
            (&["--systemd-cgroup"], json!(":sc:ID")),
            (
                &["--systemd-cgroup", "--cgroup-parent", "a.slice"],
                json!("a.slice:sc:ID"),
            ),
            (&[], Value::Null),
        ] {
            assert_eq!(
                applied(args).unwrap()["linux"]["cgroupsPath"],
                expected,
                "{args:?}"
            );
        }
    }

    #[test]
    fn a_device_rule_is_three_words() {
        assert_eq!(
            device_rule("c 1:* rw").unwrap(),
            json!({ "allow": true, "type": "c", "major": 1, "access": "rw" })
        );
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:y r", "c 1:3 x"] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
    }
}
