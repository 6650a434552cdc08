//! What changes when `update` is given other resources?
//!
//! Pure: the recorded config.json and the resources given become the writes into the cgroup's
//! files ([`draw`]), the order in which a cgroup in use takes them ([`arrange`]), and what to
//! write to have the old values back ([`back`]). Only what is given changes. In `given`, `null`, an
//! empty string, and zero where config.json means "not set" by it are as good as absent: engines
//! send documents with all their fields.
//!
//! Device rules change as a whole, and only when they differ from the recorded ones: engines send
//! all they know with every update, and what a hook has allowed a container beside its rules (a
//! GPU) must not be lost by a change of its memory. runc never touches them.
//!
//! Two limits cannot be written alone, since config.json speaks the language of cgroup v1:
//! memory+swap is one number there, and quota and period are one file here. The other half comes
//! from the record, or from the kernel.

use super::{CgroupWrite, device_program, resources, unit};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Map, Value, json};

/// What is to be done, and what is to be remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    pub writes: Vec<CgroupWrite>,
    /// `checkBeforeUpdate`, as given or as recorded.
    pub check_before_update: bool,
    /// Other device rules than before.
    pub devices: Option<Devices>,
    /// The recorded config.json with `linux.resources` as they will be.
    pub config: Value,
}

/// New rules for devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices {
    /// `None`: all is allowed.
    pub program: Option<Vec<u64>>,
    /// The same for systemd.
    pub properties: Vec<unit::Property>,
}

/// `recorded` is a config.json, `given` the contents of a `linux.resources`; `cpu_max` is what that
/// file of the cgroup holds.
pub fn draw(mut recorded: Value, given: Value, cpu_max: Option<&str>) -> Result<Update> {
    let mut given = meant(given)?;
    let made = member(&mut recorded, "linux")["devices"].clone();
    let resources = member(member(&mut recorded, "linux"), "resources");
    let devices = match given.get("devices") {
        Some(rules) if *rules != resources["devices"] => {
            resources["devices"] = rules.clone();
            Some(devices(made, rules)?)
        }
        _ => None,
    };
    given.remove("devices");
    merge(resources, Value::Object(given.clone()));

    let whole = completed(&given, resources, cpu_max);
    let mut writes = resources::writes(&typed(whole)?)?;
    if given_value(&given, "memory", "limit").is_none() {
        // It was there to compute the swap from.
        writes.retain(|write| write.field != "linux.resources.memory.limit");
    }
    forget_overridden(resources, &given, &writes);
    let check_before_update = resources["memory"]["checkBeforeUpdate"] == true;
    Ok(Update {
        writes,
        check_before_update,
        devices,
        config: recorded,
    })
}

/// `made` are the recorded `linux.devices`, which decide on the defaults.
fn devices(made: Value, rules: &Value) -> Result<Devices> {
    let linux = json!({"devices": made, "resources": {"devices": rules}});
    let spec: Spec = serde_json::from_value(json!({"ociVersion": "1.0.0", "linux": linux}))
        .context("linux.resources.devices")?;
    Ok(Devices {
        program: device_program::draw(&spec)?,
        properties: unit::other_devices(&spec)?,
    })
}

// ---------------------------------------------------------------------------------------------
// Documents

/// `given` without what says nothing.
fn meant(mut given: Value) -> Result<Map<String, Value>> {
    if given.is_null() {
        given = Value::Object(Map::new());
    }
    prune(&mut given);
    let Value::Object(mut given) = given else {
        bail!("linux.resources: {given} is no object: give {{\"memory\": {{…}}, …}}");
    };
    // An empty list is what a document with all fields has.
    given.retain(|key, value| key != "devices" || *value != json!([]));
    for (section, field) in [
        ("cpu", "shares"),
        ("cpu", "quota"),
        ("cpu", "period"),
        ("cpu", "realtimeRuntime"),
        ("cpu", "realtimePeriod"),
        ("memory", "limit"),
        ("memory", "swap"),
        ("memory", "reservation"),
        ("blockIO", "weight"),
    ] {
        if given_value(&given, section, field).is_some_and(|v| *v == 0)
            && let Some(Value::Object(section)) = given.get_mut(section)
        {
            section.remove(field);
        }
    }
    // `pids: {}` would be read as a limit of zero.
    given.retain(|_, section| section.as_object().is_none_or(|fields| !fields.is_empty()));
    // Unlimited memory says in cgroup v1 that swap is unlimited, too; recorded as such, the next
    // update of swap alone is not computed from a limit that is gone.
    if let Some(Value::Object(memory)) = given.get_mut("memory")
        && memory.get("limit").is_some_and(|limit| *limit == -1)
    {
        memory.entry("swap").or_insert_with(|| (-1).into());
    }
    typed(given.clone())?;
    Ok(given)
}

/// Removes nulls and empty strings from objects, at any depth.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null() && *v != "");
            fields.values_mut().for_each(prune);
        }
        Value::Array(entries) => entries.iter_mut().for_each(prune),
        _ => {}
    }
}

/// As runtime-spec types it, one section at a time so that an error can name it.
fn typed(given: Map<String, Value>) -> Result<LinuxResources> {
    for (name, section) in &given {
        let mut alone = Map::new();
        alone.insert(name.clone(), section.clone());
        serde_json::from_value::<LinuxResources>(Value::Object(alone))
            .with_context(|| format!("linux.resources.{name}"))?;
    }
    serde_json::from_value(Value::Object(given)).context("linux.resources")
}

fn given_value<'a>(given: &'a Map<String, Value>, section: &str, field: &str) -> Option<&'a Value> {
    given.get(section)?.get(field)
}

/// The object under `key`, made where there is none.
fn member<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    let empty = || Value::Object(Map::new());
    if !parent.is_object() {
        *parent = empty();
    }
    let child = &mut parent[key];
    if !child.is_object() {
        *child = empty();
    }
    child
}

/// Puts `new` over `old`: objects field by field, lists of devices and page sizes entry by entry.
fn merge(old: &mut Value, new: Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                match old.get_mut(&key) {
                    Some(place) => merge(place, value),
                    None => drop(old.insert(key, value)),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if new.iter().all(|e| name_of(e).is_some()) => {
            for entry in new {
                match old.iter_mut().find(|e| name_of(e) == name_of(&entry)) {
                    Some(place) => *place = entry,
                    None => old.push(entry),
                }
            }
        }
        (old, new) => *old = new,
    }
}

/// What an entry of a list is about.
fn name_of(entry: &Value) -> Option<(&Value, &Value)> {
    match (entry.get("major"), entry.get("minor")) {
        (Some(major), Some(minor)) => Some((major, minor)),
        _ => entry.get("pageSize").map(|size| (size, &Value::Null)),
    }
}

/// `given`, with the other halves of what cannot be written alone.
fn completed(
    given: &Map<String, Value>,
    recorded: &Value,
    cpu_max: Option<&str>,
) -> Map<String, Value> {
    let mut whole = given.clone();
    if let Some(Value::Object(memory)) = whole.get_mut("memory")
        && (memory.contains_key("limit") || memory.contains_key("swap"))
    {
        for half in ["limit", "swap"] {
            if let Some(value) = recorded["memory"].get(half) {
                memory.insert(half.into(), value.clone());
            }
        }
    }
    if let Some(Value::Object(cpu)) = whole.get_mut("cpu")
        && cpu.contains_key("quota") != cpu.contains_key("period")
    {
        let (quota, period) = cpu_max.and_then(quota_and_period).unzip();
        for (half, present) in [("quota", quota), ("period", period)] {
            let value = present
                .map(Value::from)
                .or_else(|| recorded["cpu"].get(half).cloned());
            if let (None, Some(value)) = (cpu.get(half), value) {
                cpu.insert(half.into(), value);
            }
        }
    }
    whole
}

/// `max 100000` or `50000 100000` (cgroup-v2.rst, cpu.max).
fn quota_and_period(text: &str) -> Option<(i64, i64)> {
    let mut words = text.split_whitespace();
    let quota = match words.next()? {
        "max" => -1,
        quota => quota.parse().ok()?,
    };
    Some((quota, words.next()?.parse().ok()?))
}

/// A recorded `unified` entry would override, at the next start, what has just been given.
fn forget_overridden(recorded: &mut Value, given: &Map<String, Value>, writes: &[CgroupWrite]) {
    let Some(Value::Object(unified)) = recorded.get_mut("unified") else {
        return;
    };
    unified.retain(|file, _| {
        given_value(given, "unified", file).is_some() || writes.iter().all(|w| w.file != *file)
    });
}

// ---------------------------------------------------------------------------------------------
// Steps

/// One write into a file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// For messages: `linux.resources.memory.limit`.
    pub field: String,
    pub file: String,
    pub value: String,
    /// What the file held.
    pub before: String,
}

/// Puts steps into an order in which each is legal, and no moment is tighter than both the old and
/// the new limits: of memory and swap, what is raised goes first (a container whose memory shrinks
/// while its swap grows must be able to swap out). A burst is at most the quota, so that a smaller
/// one goes before the quota and a larger one after it.
pub fn arrange(steps: Vec<Step>) -> Vec<Step> {
    let overridden = |i: usize, step: &Step| {
        ordered(&step.file) && steps[i + 1..].iter().any(|later| later.file == step.file)
    };
    let mut kept: Vec<Step> = steps
        .iter()
        .enumerate()
        .filter(|(i, step)| !overridden(*i, step))
        .map(|(_, step)| step.clone())
        .collect();
    kept.sort_by_key(rank);
    kept
}

fn ordered(file: &str) -> bool {
    ["memory.max", "memory.swap.max", "cpu.max.burst"].contains(&file)
}

fn rank(step: &Step) -> u8 {
    let (Some(before), Some(after)) = (amount(&step.before), amount(&step.value)) else {
        return 1;
    };
    let raised = after > before;
    match step.file.as_str() {
        "memory.max" | "memory.swap.max" => 2 - 2 * u8::from(raised),
        "cpu.max.burst" => 2 * u8::from(raised),
        _ => 1,
    }
}

fn amount(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// What is to be written to undo `step`; `None` where the file's text does not tell.
pub fn back(step: &Step) -> Option<String> {
    let lines: Vec<&str> = step.before.lines().collect();
    let about = step.value.split_whitespace().next()?;
    let of_device = about.contains(':') && step.value.trim() != about;
    if of_device {
        let known = lines
            .iter()
            .find(|line| line.split_whitespace().next() == Some(about));
        return Some(match (known, step.file.as_str()) {
            (Some(line), _) => (*line).to_string(),
            (None, "io.max") => format!("{about} rbps=max wbps=max riops=max wiops=max"),
            (None, _) => format!("{about} default"),
        });
    }
    if let Some(line) = lines
        .iter()
        .find(|l| l.split_whitespace().next() == Some(about))
        && lines.len() > 1
    {
        return Some((*line).to_string());
    }
    match lines.as_slice() {
        // An empty list of cpus: a write of nothing at all would not reach the kernel.
        [""] => Some("\n".into()),
        [line] | [line, ..] if lines.len() == 1 || line.starts_with("default ") => {
            Some(line.strip_prefix("default ").unwrap_or(line).to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CPU_MAX: Option<&str> = Some("50000 200000\n");

    /// `file=value` of each write, and the resources as they will be recorded.
    fn drawn(recorded: Value, given: Value) -> (Vec<String>, Value) {
        let config = json!({"ociVersion": "1.2.0", "linux": {"resources": recorded, "x": 1}});
        let update = draw(config, given, CPU_MAX).unwrap();
        assert_eq!(update.config["ociVersion"], "1.2.0");
        assert_eq!(update.config["linux"]["x"], 1);
        let line = |w: &CgroupWrite| format!("{}={}", w.file, w.value);
        (
            update.writes.iter().map(line).collect(),
            update.config["linux"]["resources"].clone(),
        )
    }

    #[test]
    fn only_what_is_given_changes() {
        let recorded = || {
            json!({
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": 1000, "swap": 1500, "reservation": 10},
                "cpu": {"shares": 1024, "quota": 1, "period": 2000},
                "pids": {"limit": 5},
                "unknown": true
            })
        };
        for (given, writes, changed) in [
            (json!(null), vec![], json!({})),
            (json!({}), vec![], json!({})),
            (
                json!({"pids": {"limit": 7}}),
                vec!["pids.max=7"],
                json!({"pids": {"limit": 7}}),
            ),
            (
                json!({"memory": {"reservation": 20}}),
                vec!["memory.low=20"],
                json!({"memory": {"limit": 1000, "swap": 1500, "reservation": 20}}),
            ),
            (
                json!({"memory": {"limit": 1200}}),
                vec!["memory.swap.max=300", "memory.max=1200"],
                json!({"memory": {"limit": 1200, "swap": 1500, "reservation": 10}}),
            ),
            (
                json!({"memory": {"swap": 3000}}),
                vec!["memory.swap.max=2000"],
                json!({"memory": {"limit": 1000, "swap": 3000, "reservation": 10}}),
            ),
            (
                json!({"memory": {"swap": -1}}),
                vec!["memory.swap.max=max"],
                json!({"memory": {"limit": 1000, "swap": -1, "reservation": 10}}),
            ),
            (
                json!({"memory": {"limit": 300, "swap": 400}}),
                vec!["memory.swap.max=100", "memory.max=300"],
                json!({"memory": {"limit": 300, "swap": 400, "reservation": 10}}),
            ),
            (
                json!({"memory": {"limit": -1}}),
                vec!["memory.swap.max=max", "memory.max=max"],
                json!({"memory": {"limit": -1, "swap": -1, "reservation": 10}}),
            ),
            (
                json!({"cpu": {"shares": 2048}}),
                vec!["cpu.weight=174"],
                json!({"cpu": {"shares": 2048, "quota": 1, "period": 2000}}),
            ),
            (
                json!({"cpu": {"quota": 70000}}),
                vec!["cpu.max=70000 200000"],
                json!({"cpu": {"shares": 1024, "quota": 70000, "period": 2000}}),
            ),
            (
                json!({"cpu": {"period": 100_000}}),
                vec!["cpu.max=50000 100000"],
                json!({"cpu": {"shares": 1024, "quota": 1, "period": 100_000}}),
            ),
            (
                json!({"cpu": {"quota": -1}}),
                vec!["cpu.max=max 200000"],
                json!({"cpu": {"shares": 1024, "quota": -1, "period": 2000}}),
            ),
            (
                json!({"cpu": {"quota": 1, "period": 2, "burst": 1}}),
                vec!["cpu.max=1 2", "cpu.max.burst=1"],
                json!({"cpu": {"shares": 1024, "quota": 1, "period": 2, "burst": 1}}),
            ),
        ] {
            let mut expected = recorded();
            for (section, value) in changed.as_object().unwrap() {
                expected[section] = value.clone();
            }
            let writes: Vec<String> = writes.into_iter().map(str::to_owned).collect();
            assert_eq!(
                drawn(recorded(), given.clone()),
                (writes, expected),
                "{given}"
            );
        }
    }

    #[test]
    fn fields_that_say_nothing_are_as_good_as_absent() {
        let recorded = || json!({"memory": {"limit": 1000}, "pids": {"limit": 5}});
        for given in [
            json!({"memory": null, "cpu": {}, "pids": {}}),
            json!({"memory": {"limit": 0, "swap": 0, "reservation": 0}}),
            json!({"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}}),
            json!({"blockIO": {"weight": 0}, "pids": {"limit": null}}),
            json!({"devices": []}),
        ] {
            assert_eq!(
                drawn(recorded(), given.clone()),
                (vec![], recorded()),
                "{given}"
            );
        }
    }

    #[test]
    fn device_rules_change_as_a_whole_and_only_when_they_differ() {
        let deny = json!({"allow": false, "access": "rwm"});
        let fuse = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
        let recorded = |rules: &Value| json!({"ociVersion": "1.2.0", "linux": {"resources": {"devices": rules}}});
        let before = json!([deny, fuse]);
        let same = draw(recorded(&before), json!({"devices": before}), None).unwrap();
        assert_eq!((same.devices, same.config), (None, recorded(&before)));

        let after = json!([deny]);
        let other = draw(recorded(&before), json!({"devices": after}), None).unwrap();
        assert_eq!((&other.config, other.writes.len()), (&recorded(&after), 0));
        let spec: Spec = serde_json::from_value(recorded(&after)).unwrap();
        let devices = other.devices.unwrap();
        assert_eq!(devices.program, device_program::draw(&spec).unwrap());
        // systemd adds to its list, unless that is emptied first.
        let lists = devices
            .properties
            .iter()
            .filter(|p| p.name == "DeviceAllow");
        let is_empty = |p: &unit::Property| matches!(&p.value, super::super::variant::Value::Array(_, all) if all.is_empty());
        assert_eq!(lists.map(is_empty).collect::<Vec<_>>(), [true, false]);

        let error = draw(
            recorded(&before),
            json!({"devices": [{"allow": true, "access": "x"}]}),
            None,
        );
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.starts_with("linux.resources.devices"), "{error}");
    }

    #[test]
    fn lists_change_entry_by_entry() {
        let device = |minor, rate| json!({"major": 8, "minor": minor, "rate": rate});
        let recorded = json!({
            "blockIO": {"throttleReadBpsDevice": [device(0, 1), device(16, 2)]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]
        });
        let given = json!({
            "blockIO": {"throttleReadBpsDevice": [device(16, 9), device(32, 3)]},
            "hugepageLimits": [{"pageSize": "1GB", "limit": 4}]
        });
        let (writes, after) = drawn(recorded, given);
        assert_eq!(
            writes,
            [
                "io.max=8:16 rbps=9",
                "io.max=8:32 rbps=3",
                "hugetlb.1GB.max=4",
                "hugetlb.1GB.rsvd.max=4"
            ]
        );
        assert_eq!(
            after,
            json!({
                "blockIO": {"throttleReadBpsDevice": [device(0, 1), device(16, 9), device(32, 3)]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 4}]
            })
        );
    }

    #[test]
    fn a_recorded_file_does_not_override_what_was_given_since() {
        let recorded = json!({"unified": {"pids.max": "3", "memory.high": "1"}});
        let (writes, after) = drawn(recorded, json!({"pids": {"limit": 7}}));
        assert_eq!(writes, ["pids.max=7"]);
        assert_eq!(
            after,
            json!({"pids": {"limit": 7}, "unified": {"memory.high": "1"}})
        );
    }

    #[test]
    fn a_container_without_recorded_resources_gets_some() {
        let update = draw(json!({}), json!({"pids": {"limit": 7}}), None).unwrap();
        assert_eq!(
            update.config,
            json!({"linux": {"resources": {"pids": {"limit": 7}}}})
        );
        let update = draw(json!({}), json!({"cpu": {"quota": 7000}}), None).unwrap();
        assert_eq!(update.writes[0].value, "7000 100000");
    }

    #[test]
    fn a_recorded_check_before_update_holds_until_another_is_given() {
        for (recorded, given, expected) in [
            (json!({}), json!({"memory": {"limit": 1}}), false),
            (
                json!({"checkBeforeUpdate": true}),
                json!({"memory": {"limit": 1}}),
                true,
            ),
            (
                json!({"checkBeforeUpdate": true}),
                json!({"memory": {"limit": 1, "checkBeforeUpdate": false}}),
                false,
            ),
            (
                json!({}),
                json!({"memory": {"limit": 1, "checkBeforeUpdate": true}}),
                true,
            ),
        ] {
            let config = json!({"linux": {"resources": {"memory": recorded}}});
            let update = draw(config, given, None).unwrap();
            assert_eq!(update.check_before_update, expected);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let recorded = json!({"linux": {"resources": {"memory": {"limit": 1000, "swap": 1500}}}});
        for (given, why) in [
            (
                json!([1]),
                "linux.resources: [1] is no object: give {\"memory\": {…}, …}",
            ),
            (
                json!({"memory": {"limit": "x"}}),
                "linux.resources.memory: invalid type: string \"x\", expected i64",
            ),
            (
                json!({"memory": {"limit": 2000}}),
                "linux.resources.memory.swap: 1500 is memory and swap together, but less than \
                 linux.resources.memory.limit 2000: memory+swap limit should be >= memory limit",
            ),
            (
                json!({"blockIO": {"weight": 5}}),
                "linux.resources.blockIO.weight: 5 is no weight: give 10 to 1000",
            ),
            (
                json!({"cpu": {"realtimePeriod": 5}}),
                "linux.resources.cpu.realtimePeriod: cgroup v2 cannot limit real-time scheduling: remove it",
            ),
        ] {
            let error = draw(recorded.clone(), given, None).unwrap_err();
            assert_eq!(format!("{error:#}"), why);
        }
        let error = draw(json!({}), json!({"memory": {"swap": 5}}), None).unwrap_err();
        assert!(format!("{error:#}").ends_with("unable to set swap limit without memory limit"));
    }

    fn step(file: &str, before: &str, value: &str) -> Step {
        Step {
            field: String::new(),
            file: file.into(),
            value: value.into(),
            before: before.into(),
        }
    }

    #[test]
    fn what_is_raised_goes_before_what_is_lowered() {
        let memory = |before, after| step("memory.max", before, after);
        let swap = |before, after| step("memory.swap.max", before, after);
        let burst = |before, after| step("cpu.max.burst", before, after);
        let cpu = || step("cpu.max", "1 2", "3 4");
        let pids = || step("pids.max", "1", "2");
        for (steps, order) in [
            (
                vec![swap("5", "1"), memory("1", "5")],
                vec!["memory.max", "memory.swap.max"],
            ),
            (
                vec![swap("1", "5"), memory("5", "1")],
                vec!["memory.swap.max", "memory.max"],
            ),
            (
                vec![swap("1", "5"), memory("1", "5")],
                vec!["memory.swap.max", "memory.max"],
            ),
            (
                vec![swap("max\n", "1"), memory("1\n", "max")],
                vec!["memory.max", "memory.swap.max"],
            ),
            (
                vec![memory("5", "1"), pids(), swap("1", "5")],
                vec!["memory.swap.max", "pids.max", "memory.max"],
            ),
            (
                vec![cpu(), burst("0", "1")],
                vec!["cpu.max", "cpu.max.burst"],
            ),
            (
                vec![cpu(), burst("1", "0")],
                vec!["cpu.max.burst", "cpu.max"],
            ),
        ] {
            let arranged = arrange(steps);
            let files: Vec<&str> = arranged.iter().map(|s| s.file.as_str()).collect();
            assert_eq!(files, order);
        }
    }

    #[test]
    fn of_two_writes_that_would_change_places_the_last_is_kept() {
        let (first, last) = (step("memory.max", "5", "1"), step("memory.max", "5", "9"));
        assert_eq!(arrange(vec![first, last.clone()]), [last]);
    }

    #[test]
    fn every_write_can_be_taken_back() {
        for (file, before, value, expected) in [
            ("memory.max", "max\n", "5", Some("max")),
            (
                "cpu.max",
                "50000 100000\n",
                "max 100000",
                Some("50000 100000"),
            ),
            ("cpuset.cpus", "\n", "0", Some("\n")),
            ("memory.reclaim", "", "1M", None),
            ("io.weight", "default 100\n8:0 300\n", "200", Some("100")),
            ("io.bfq.weight", "default 100\n", "200", Some("100")),
            (
                "io.weight",
                "default 100\n8:0 300\n",
                "8:0 200",
                Some("8:0 300"),
            ),
            ("io.weight", "default 100\n", "8:0 200", Some("8:0 default")),
            (
                "io.max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                "8:0 rbps=2",
                Some("8:0 rbps=1 wbps=max riops=max wiops=max"),
            ),
            (
                "io.max",
                "",
                "8:0 rbps=2",
                Some("8:0 rbps=max wbps=max riops=max wiops=max"),
            ),
            (
                "rdma.max",
                "a hca_handle=max hca_object=max\nb hca_handle=1 hca_object=2\n",
                "b hca_handle=7",
                Some("b hca_handle=1 hca_object=2"),
            ),
            ("misc.max", "a 1\nb 2\n", "c 3", None),
        ] {
            let undo = back(&step(file, before, value));
            assert_eq!(undo.as_deref(), expected, "{file}: {value}");
        }
    }
}
