//! `update`: changes the limits of a container, in its cgroup and in its recorded config.json.

use super::{cgroup_of, take};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::cli::{Global, UpdateArgs};
use crate::runtime::container::Container;
use crate::runtime::plan::unit::{self, Manager, UnitName};
use crate::runtime::plan::update::{Update, draw};
use crate::runtime::status::Act;
use crate::runtime::systemd::Systemd;
use crate::runtime::{log, size};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::io::Read;
use std::path::Path;

/// Longest document that is read.
const LONGEST: u64 = 1 << 20;

pub fn update(global: &Global, args: &UpdateArgs) -> Result<()> {
    // Before anything is read from stdin: a name that nobody has is the more telling error.
    Container::load(&global.root, &args.id)?;
    let given = match &args.resources {
        Some(path) => document(path).with_context(|| format!("--resources {}", path.display()))?,
        None => Value::Object(options(&args.options)?),
    };
    let container = take(global, &args.id, Act::Update)?;
    let cgroup = cgroup_of(&container, "update")?;
    let present = cgroup.text("cpu.max");
    let recorded = serde_json::from_slice(&container.config()?).context("recorded config.json")?;
    let update = draw(recorded, given, present.as_deref())?;
    let config = serde_json::to_vec(&update.config)?;
    let steps = cgroup.update(&update.writes, update.check_before_update)?;
    perform(&container, cgroup, &update)
        .and_then(|()| container.save_config(&config))
        .inspect_err(|_| cgroup.take_back(&steps))
}

/// What is left when the kernel has taken the new limits.
fn perform(container: &Container, cgroup: &Cgroup, update: &Update) -> Result<()> {
    if let Some(unit) = &container.record.unit {
        tell_systemd(unit, cgroup, update)?;
    }
    match &update.devices {
        Some(devices) => {
            cgroup.limit_devices(devices.program.as_deref(), container.record.rootless)
        }
        None => Ok(()),
    }
}

/// systemd hears of limits that the kernel has taken already, so that a refusal by either changes
/// nothing; it then writes what it knows of them in its own, rounded way, so that the files are
/// written once more.
fn tell_systemd(unit: &UnitName, cgroup: &Cgroup, update: &Update) -> Result<()> {
    let mut properties = unit::limits(&update.writes)?;
    if let (Some(devices), Manager::System) = (&update.devices, unit.manager) {
        properties.extend(devices.properties.iter().cloned());
    }
    if properties.is_empty() {
        return Ok(());
    }
    Systemd::connect(unit.manager)?.set_properties(&unit.name, &properties)?;
    cgroup.update(&update.writes, false).map(drop)
}

fn document(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(LONGEST).read_to_end(&mut text),
        false => std::fs::File::open(path)?
            .take(LONGEST)
            .read_to_end(&mut text),
    };
    read?;
    first_value(&text)
}

/// The first JSON value; what follows is ignored, as Go's decoder does.
fn first_value(text: &[u8]) -> Result<Value> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter();
    match values.next() {
        Some(first) => Ok(first?),
        None => bail!("it is empty: give linux.resources as JSON, {{}} to change nothing"),
    }
}

/// Options as the `linux.resources` they stand for.
fn options(options: &[(&'static str, String)]) -> Result<Map<String, Value>> {
    let mut given = Map::new();
    for (option, text) in options {
        let Some((section, field, unit)) = meaning(option)? else {
            // Limits of kernel memory are taken and ignored, as runc does: Linux 5.4 has ended them.
            size::bytes(text).with_context(|| format!("invalid value for {option}"))?;
            log::warn(format!(
                "--{option} is ignored: the kernel has no such limit"
            ));
            continue;
        };
        let value = unit
            .read(text)
            .with_context(|| format!("invalid value for {option}"))?;
        let section = given
            .entry(section)
            .or_insert_with(|| Value::Object(Map::new()));
        section[field] = value;
    }
    Ok(given)
}

#[derive(Clone, Copy)]
enum Unit {
    /// At least 0.
    Count,
    /// Also -1.
    Number,
    Bytes,
    Text,
}

impl Unit {
    fn read(self, text: &str) -> Result<Value> {
        Ok(match self {
            Unit::Count => text.parse::<u64>().with_context(|| wrong(text))?.into(),
            Unit::Number => text.parse::<i64>().with_context(|| wrong(text))?.into(),
            Unit::Bytes if text == "-1" => (-1).into(),
            Unit::Bytes => size::bytes(text)?.into(),
            Unit::Text => text.into(),
        })
    }
}

fn wrong(text: &str) -> String {
    format!("{text:?}")
}

/// Section, field and unit of an option; `None` for one that means nothing any more.
fn meaning(option: &str) -> Result<Option<(&'static str, &'static str, Unit)>> {
    use Unit::*;
    Ok(Some(match option {
        "blkio-weight" => ("blockIO", "weight", Count),
        "cpu-period" => ("cpu", "period", Count),
        "cpu-quota" => ("cpu", "quota", Number),
        "cpu-burst" => ("cpu", "burst", Count),
        "cpu-share" => ("cpu", "shares", Count),
        "cpu-rt-period" => ("cpu", "realtimePeriod", Count),
        "cpu-rt-runtime" => ("cpu", "realtimeRuntime", Number),
        "cpu-idle" => ("cpu", "idle", Number),
        "cpuset-cpus" => ("cpu", "cpus", Text),
        "cpuset-mems" => ("cpu", "mems", Text),
        "memory" => ("memory", "limit", Bytes),
        "memory-reservation" => ("memory", "reservation", Bytes),
        "memory-swap" => ("memory", "swap", Bytes),
        "pids-limit" => ("pids", "limit", Number),
        "kernel-memory" | "kernel-memory-tcp" => return Ok(None),
        "l3-cache-schema" => bail!("Intel RDT/CAT: l3 cache schema is not enabled"),
        "mem-bw-schema" => bail!("Intel RDT/MBA: memory bandwidth schema is not enabled"),
        other => bail!("--{other}: an option without meaning"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn given(typed: &[(&'static str, &str)]) -> Result<Value> {
        let typed: Vec<_> = typed.iter().map(|(o, v)| (*o, (*v).to_owned())).collect();
        options(&typed).map(Value::Object)
    }

    #[test]
    fn options_stand_for_resources() {
        let typed = [
            ("blkio-weight", "500"),
            ("cpu-period", "100000"),
            ("cpu-quota", "-1"),
            ("cpu-burst", "0"),
            ("cpu-share", "512"),
            ("cpuset-cpus", "0-1"),
            ("cpuset-mems", "0"),
            ("kernel-memory", "1m"),
            ("memory", "512m"),
            ("memory-reservation", "1g"),
            ("memory-swap", "-1"),
            ("cpu-idle", "1"),
            ("pids-limit", "-1"),
        ];
        assert_eq!(
            given(&typed).unwrap(),
            json!({
                "blockIO": {"weight": 500},
                "cpu": {
                    "period": 100_000, "quota": -1, "burst": 0, "shares": 512,
                    "cpus": "0-1", "mems": "0", "idle": 1
                },
                "memory": {"limit": 512 << 20, "reservation": 1 << 30, "swap": -1},
                "pids": {"limit": -1}
            })
        );
        assert_eq!(given(&[]).unwrap(), json!({}));
    }

    #[test]
    fn what_is_no_value_is_refused_by_option() {
        for (option, value, why) in [
            (
                "memory",
                "10q",
                "invalid value for memory: invalid suffix: 'q' (give b, k, m, g, t or p)",
            ),
            (
                "memory",
                "-2",
                "invalid value for memory: invalid size: '-2'",
            ),
            (
                "kernel-memory",
                "x",
                "invalid value for kernel-memory: invalid suffix: 'x' (give b, k, m, g, t or p)",
            ),
            (
                "cpu-period",
                "foo",
                "invalid value for cpu-period: \"foo\": invalid digit found in string",
            ),
            (
                "cpu-share",
                "-1",
                "invalid value for cpu-share: \"-1\": invalid digit found in string",
            ),
            (
                "cpu-quota",
                "1.5",
                "invalid value for cpu-quota: \"1.5\": invalid digit found in string",
            ),
            (
                "l3-cache-schema",
                "x",
                "Intel RDT/CAT: l3 cache schema is not enabled",
            ),
            (
                "mem-bw-schema",
                "x",
                "Intel RDT/MBA: memory bandwidth schema is not enabled",
            ),
        ] {
            assert_eq!(format!("{:#}", given(&[(option, value)]).unwrap_err()), why);
        }
    }

    #[test]
    fn the_first_of_several_documents_counts() {
        assert_eq!(first_value(b" {\"a\": 1}\n{").unwrap(), json!({"a": 1}));
        assert_eq!(
            first_value(b" \n").unwrap_err().to_string(),
            "it is empty: give linux.resources as JSON, {} to change nothing"
        );
        assert_eq!(
            first_value(b"{").unwrap_err().to_string(),
            "EOF while parsing an object at line 1 column 1"
        );
    }
}
