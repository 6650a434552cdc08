//! Which systemd unit will hold the container, and what is systemd told about it?
//!
//! Pure. With `--systemd-cgroup` the cgroup is not made but ordered: a transient scope
//! (systemd.scope(5)), named by `linux.cgroupsPath` as `slice:prefix:name`, with the limits as
//! unit properties (org.freedesktop.systemd1(5)). The limits are those of [`super::resources`],
//! already in cgroup v2's terms: here each write to a file is told to systemd in its own words,
//! so that systemd writes the same when it has reason to write (a daemon-reload, a new sibling).
//! They are written to the files as well (`runtime::cgroup`): systemd knows only some of them,
//! and rounds.
//!
//! Names and properties are runc's (seen on the wire of 1.1.15), with these differences:
//!
//! | matter | runc | here |
//! |---|---|---|
//! | limits | SetUnitProperties after the scope has started | part of StartTransientUnit: one call |
//! | weights and limits of block devices, `unified` io.* | not told to systemd | told |
//! | a name that ends in `.slice` | refused by systemd, after the clone | refused here, and why |
//! | a name systemd will not take | refused by systemd, after the clone | refused here |
//! | device rules a list cannot express | dropped with a warning: systemd then denies | widened; the container's own program is exact |
//!
//! Left to others: talking to systemd (`runtime::systemd`).

use super::variant::{self, Value};
use super::{Ask, CgroupWrite, device_program, resources};
use anyhow::{Result, bail, ensure};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The unit of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitPlan {
    /// `runc-web.scope`
    pub name: String,
    /// `machine-web.slice`; `-.slice` is the root.
    pub slice: String,
    /// Where systemd will make its cgroup, below the manager's own: `/` for PID 1, the delegated
    /// one for a user's manager. Where it really is tells `Systemd::start`.
    pub cgroup: PathBuf,
    pub manager: Manager,
    /// In the order they are sent; of two with one name the later counts.
    pub properties: Vec<Property>,
}

/// What is kept of a unit, to find it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitName {
    /// `runc-web.scope`
    pub name: String,
    pub manager: Manager,
}

/// Who is asked for the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// PID 1.
    System,
    /// The caller's own `systemd --user`.
    User,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// `MemoryMax`
    pub name: String,
    pub value: Value,
    /// Where it comes from, for messages: `linux.resources.memory.limit`; empty for what every
    /// container's unit has.
    pub field: String,
    /// The first systemd that knows it; an older one is not told. `None`: known to 244 (2019),
    /// the first that serves cgroup v2 well.
    pub since: Option<u32>,
}

/// runc's, so that a tool that looks for `runc-ID.scope` finds it.
const DEFAULT_PREFIX: &str = "runc";

/// The unit for the container `ask.id` that `spec` describes.
pub fn draw(spec: &Spec, ask: &Ask) -> Result<UnitPlan> {
    let linux = spec.linux().as_ref();
    let manager = ask.host.systemd;
    let asked = linux
        .and_then(|l| l.cgroups_path().as_ref())
        .map(|p| p.to_string_lossy())
        .filter(|p| !p.is_empty());
    let (slice, name) = place(asked.as_deref(), &ask.id, manager)?;

    let mut properties = vec![
        Property::always("Description", format!("container {}", ask.id).as_str()),
        Property::always("Slice", slice.as_str()),
        // The container's cgroup is its own to divide; systemd leaves what is below alone.
        Property::always("Delegate", Value::Bool(true)),
        // Controllers are wanted for statistics, where no limit is, too.
        Property::always("MemoryAccounting", Value::Bool(true)),
        Property::always("CPUAccounting", Value::Bool(true)),
        Property::always("IOAccounting", Value::Bool(true)),
        Property::always("TasksAccounting", Value::Bool(true)),
        // No ordering against shutdown.target and the like: the engine decides when it ends.
        Property::always("DefaultDependencies", Value::Bool(false)),
    ];
    if !ask.host.rootless {
        // Only root of the machine may load the program that this takes.
        properties.extend(devices(spec)?);
    }
    if let Some(asked) = linux.and_then(|l| l.resources().as_ref()) {
        properties.extend(limits(&resources::writes(asked)?)?);
    }
    properties.extend(annotated(spec)?);
    Ok(UnitPlan {
        cgroup: expand(&slice)?.join(escape(&name)),
        name,
        slice,
        manager,
        properties,
    })
}

impl UnitPlan {
    pub fn kept(&self) -> UnitName {
        UnitName {
            name: self.name.clone(),
            manager: self.manager,
        }
    }
}

impl Property {
    fn always(name: &str, value: impl Into<Value>) -> Property {
        Property {
            name: name.into(),
            value: value.into(),
            field: String::new(),
            since: None,
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Names

/// Slice and unit for `slice:prefix:name`.
fn place(asked: Option<&str>, id: &str, manager: Manager) -> Result<(String, String)> {
    let (slice, prefix, name) = match asked {
        None => ("", DEFAULT_PREFIX, id),
        Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
            [slice, prefix, name] => (slice, prefix, name),
            _ => bail!(
                "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" \
                 for systemd cgroups, got {path:?} instead"
            ),
        },
    };
    let slice = match (slice, manager) {
        ("", Manager::System) => "system.slice",
        ("", Manager::User) => "user.slice",
        (slice, _) => slice,
    };
    ensure!(
        !name.ends_with(".slice"),
        "linux.cgroupsPath: {name:?} names a slice, and systemd puts no process into a slice, \
         only scopes: leave .slice out of the name"
    );
    let unit = format!("{prefix}-{name}.scope");
    // systemd would answer "Invalid unit name or type", with everything made already.
    ensure!(
        is_unit_name(&unit),
        "{}: {unit:?} is no name for a systemd unit: it may hold letters, digits and :-_.\\ and at \
         most 255 bytes{}",
        match asked {
            Some(_) => "linux.cgroupsPath",
            None => "container id",
        },
        match asked {
            Some(_) => "",
            None => ": give linux.cgroupsPath a slice:prefix:name",
        }
    );
    Ok((slice.to_owned(), unit))
}

/// systemd.unit(5), "Unit files". An `@` would make it an instance of a template.
fn is_unit_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\".contains(&b);
    name.len() <= 255 && name.bytes().all(known)
}

/// The cgroup of `slice` below the manager's own: each dash starts a slice inside the one before
/// (systemd.slice(5)), so `a-b.slice` is `/a.slice/a-b.slice`.
pub fn expand(slice: &str) -> Result<PathBuf> {
    let mut path = PathBuf::from("/");
    if slice == "-.slice" {
        return Ok(path);
    }
    let name = slice.strip_suffix(".slice").unwrap_or("");
    let bad = name.is_empty()
        || !is_unit_name(slice)
        || name.starts_with('-')
        || name.ends_with('-')
        || name.contains("--");
    ensure!(
        !bad,
        "linux.cgroupsPath: invalid slice name: {slice}: give one like system.slice or \
         system-web.slice, or -.slice for the root"
    );
    let dashes = name.match_indices('-').map(|(at, _)| at);
    for end in dashes.chain([name.len()]) {
        path.push(escape(&format!("{}.slice", &name[..end])));
    }
    Ok(path)
}

/// systemd keeps the kernel's files and its own escapes apart from units: such a directory gets
/// an underscore in front (CGROUP_DELEGATION, "two key design rules"; `cgroup.x`, `_x`, `.x`).
fn escape(name: &str) -> String {
    const CONTROLLERS: [&str; 12] = [
        "cgroup", "cpu", "cpuset", "cpuacct", "io", "blkio", "memory", "devices", "pids",
        "hugetlb", "rdma", "misc",
    ];
    let file = name
        .split_once('.')
        .is_some_and(|(before, _)| CONTROLLERS.contains(&before));
    match file || name.starts_with(['_', '.']) {
        true => format!("_{name}"),
        false => name.to_owned(),
    }
}

// ---------------------------------------------------------------------------------------------
// Limits

/// How a cgroup v2 file is told to systemd.
#[derive(Clone, Copy)]
enum Telling {
    /// A number of bytes, tasks, …, or `max`; less than the second is refused by systemd.
    Limit(&'static str, u64),
    /// `quota period`
    CpuMax,
    CpuIdle,
    /// `0-3,8` as a mask, bit by bit from the first byte on.
    Set(&'static str),
    /// `N`, `default N` or `MAJ:MIN N`
    IoWeight,
    /// `MAJ:MIN rbps=N …`
    IoMax,
}

/// What systemd has no word for (hugetlb, rdma, misc, cpu.max.burst, memory.oom.group, …) is only
/// in the files, which systemd then never writes.
const TELLINGS: [(&str, Telling, Option<u32>); 15] = [
    ("memory.max", Telling::Limit("MemoryMax", 1), None),
    ("memory.high", Telling::Limit("MemoryHigh", 1), None),
    ("memory.low", Telling::Limit("MemoryLow", 0), None),
    ("memory.min", Telling::Limit("MemoryMin", 0), None),
    ("memory.swap.max", Telling::Limit("MemorySwapMax", 0), None),
    (
        "memory.zswap.max",
        Telling::Limit("MemoryZSwapMax", 0),
        Some(253),
    ),
    ("pids.max", Telling::Limit("TasksMax", 1), None),
    ("cpu.weight", Telling::Limit("CPUWeight", 1), None),
    ("cpu.idle", Telling::CpuIdle, Some(252)),
    ("cpu.max", Telling::CpuMax, None),
    ("cpuset.cpus", Telling::Set("AllowedCPUs"), None),
    ("cpuset.mems", Telling::Set("AllowedMemoryNodes"), None),
    ("io.weight", Telling::IoWeight, None),
    ("io.bfq.weight", Telling::IoWeight, None),
    ("io.max", Telling::IoMax, None),
];

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;

/// The properties that say what `writes` say. One whose value systemd cannot be told is left
/// out, and the kernel judges it; only lists of CPUs and memory nodes must be right, as in runc.
pub fn limits(writes: &[CgroupWrite]) -> Result<Vec<Property>> {
    let mut out = vec![];
    for write in writes {
        let Some((_, telling, since)) = TELLINGS.iter().find(|t| t.0 == write.file) else {
            continue;
        };
        // systemd's weight is io.weight's, from which it makes BFQ's own.
        let value = match (telling, &write.instead) {
            (Telling::IoWeight, Some(instead)) => &instead.value,
            _ => &write.value,
        };
        for (name, value) in tell(*telling, value, &write.field)? {
            out.push(Property {
                name: name.into(),
                value,
                field: write.field.clone(),
                since: *since,
            });
        }
    }
    Ok(out)
}

fn tell(telling: Telling, value: &str, field: &str) -> Result<Vec<(&'static str, Value)>> {
    Ok(match telling {
        Telling::Limit(name, least) => limit(value)
            .filter(|&n| n >= least)
            .map(|n| (name, Value::U64(n)))
            .into_iter()
            .collect(),
        Telling::CpuIdle => match value {
            // 0 is systemd's "idle", infinity its "not set".
            "1" => vec![("CPUWeight", Value::U64(0))],
            "0" => vec![("CPUWeight", Value::U64(INFINITY))],
            _ => vec![],
        },
        Telling::CpuMax => cpu_max(value).unwrap_or_default(),
        Telling::Set(name) => vec![(name, mask(value, field)?)],
        Telling::IoWeight => io_weight(value).into_iter().collect(),
        Telling::IoMax => io_max(value).unwrap_or_default(),
    })
}

fn limit(value: &str) -> Option<u64> {
    match value.trim() {
        "max" => Some(INFINITY),
        number => number.parse().ok().filter(|&n| n != INFINITY),
    }
}

/// systemd wants the time a second: 12345 of 10000 µs are 1234500 µs, rounded up to a hundredth
/// of a second as in runc, because its own files hold whole percents and round down, and what is
/// below could then not have what it was promised.
fn cpu_max(value: &str) -> Option<Vec<(&'static str, Value)>> {
    let mut words = value.split_whitespace();
    let quota = limit(words.next()?)?;
    // 100 ms: the kernel's own default (cgroup-v2.rst, cpu.max).
    let period = words.next().map_or(Some(100_000), |p| p.parse().ok())?;
    let a_second = match quota {
        INFINITY => INFINITY,
        _ => {
            let exact = u128::from(quota) * 1_000_000;
            let hundredths = exact.div_ceil(u128::from(period).checked_mul(10_000)?.max(1));
            u64::try_from(hundredths * 10_000).ok()?
        }
    };
    (period > 0).then(|| {
        vec![
            ("CPUQuotaPeriodUSec", Value::U64(period)),
            ("CPUQuotaPerSecUSec", Value::U64(a_second)),
        ]
    })
}

/// More CPUs or nodes than any kernel has (CONFIG_NR_CPUS is at most 8192).
const MOST_BITS: usize = 1 << 16;

/// `0,2-3,9` as a mask. runc's words where it is none.
fn mask(list: &str, field: &str) -> Result<Value> {
    let mut bytes: Vec<u8> = vec![];
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| match word.trim().parse::<usize>() {
            Ok(n) if n < MOST_BITS => Ok(n),
            _ => bail!(
                "{field}: {list:?}: {word:?} is no number of a CPU or memory node: give a list \
                 like 0-3,8"
            ),
        };
        let (from, to) = (number(from)?, number(to)?);
        ensure!(from <= to, "{field}: {list:?}: invalid range: {part}");
        bytes.resize(bytes.len().max(to / 8 + 1), 0);
        for bit in from..=to {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    let bytes = bytes.into_iter().map(Value::Byte).collect();
    Ok(Value::Array("y".into(), bytes))
}

fn io_weight(value: &str) -> Option<(&'static str, Value)> {
    let in_range = |word: &str| word.parse().ok().filter(|n| (1..=10_000).contains(n));
    match value.split_whitespace().collect::<Vec<_>>()[..] {
        [weight] | ["default", weight] => Some(("IOWeight", Value::U64(in_range(weight)?))),
        [device, weight] => Some(("IODeviceWeight", of_device(device, in_range(weight)?)?)),
        _ => None,
    }
}

fn io_max(value: &str) -> Option<Vec<(&'static str, Value)>> {
    let mut words = value.split_whitespace();
    let device = words.next()?;
    words
        .map(|word| {
            let (key, rate) = word.split_once('=')?;
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                _ => return None,
            };
            Some((name, of_device(device, limit(rate)?)?))
        })
        .collect()
}

/// `a(st)` with one entry: systemd adds it to those it has. It finds the device by its path;
/// /dev/block/MAJ:MIN is one that every device has.
fn of_device(device: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    let path = format!("/dev/block/{major}:{minor}");
    let entry = Value::Struct(vec![Value::Text(path), Value::U64(value)]);
    Some(Value::Array("(st)".into(), vec![entry]))
}

/// The device rules for a unit that has others: a list is added to, unless it is emptied first.
pub fn other_devices(spec: &Spec) -> Result<Vec<Property>> {
    let nothing = Value::Array("(ss)".into(), vec![]);
    let empty = Property {
        field: "linux.resources.devices".into(),
        ..Property::always("DeviceAllow", nothing)
    };
    Ok([vec![empty], devices(spec)?].concat())
}

/// The device rules, for systemd's own program. The container's (`device_program`) is in force
/// beside it, and each must allow.
fn devices(spec: &Spec) -> Result<Vec<Property>> {
    let field = "linux.resources.devices";
    let property = |name: &str, value: Value| Property {
        field: field.into(),
        ..Property::always(name, value)
    };
    let Some(allowed) = device_program::allow_list(spec)? else {
        return Ok(vec![property("DevicePolicy", "auto".into())]);
    };
    let entries = allowed
        .into_iter()
        .map(|(device, access)| Value::Struct(vec![Value::Text(device), Value::Text(access)]))
        .collect();
    Ok(vec![
        // Not `closed`: that would add devices of systemd's choice.
        property("DevicePolicy", "strict".into()),
        property("DeviceAllow", Value::Array("(ss)".into(), entries)),
    ])
}

// ---------------------------------------------------------------------------------------------
// Annotations

/// What the names of annotations that set properties of the unit begin with.
pub const ANNOTATION: &str = "org.systemd.property.";

/// `org.systemd.property.NAME`, in the order of names, with runc's words for what is wrong.
fn annotated(spec: &Spec) -> Result<Vec<Property>> {
    let mut asked: Vec<(&str, &String, &String)> = spec
        .annotations()
        .iter()
        .flatten()
        .filter_map(|(key, text)| Some((key.strip_prefix(ANNOTATION)?, key, text)))
        .collect();
    asked.sort();
    let mut out = vec![];
    for (name, key, text) in asked {
        let field = format!("annotations[{key:?}]");
        ensure!(
            name.len() >= 3,
            "{field}: annotation {key} name incorrect: too short"
        );
        ensure!(
            name.bytes().all(|b| b.is_ascii_alphabetic()),
            "{field}: annotation {key} name incorrect: contains non-alphabetic character"
        );
        let value = variant::parse(text)
            .map_err(|e| anyhow::anyhow!("{field}: annotation {key}={text} value parse error: {e:#}: give it as GVariant text, like uint64 5, true, 'text' or ['a', 'b']"))?;
        let (name, value) = match seconds(name) {
            None => (name.to_owned(), value),
            Some(in_microseconds) => match microseconds(&value) {
                Some(n) => (in_microseconds, Value::U64(n)),
                None => bail!(
                    "{field}: annotation {key}={text} value parse error: not a number of seconds"
                ),
            },
        };
        out.push(Property {
            name,
            value,
            field,
            since: None,
        });
    }
    Ok(out)
}

/// `TimeoutStopUSec` for `TimeoutStopSec`: systemctl(1) and unit files speak of seconds, the bus
/// of microseconds.
fn seconds(name: &str) -> Option<String> {
    let stem = name
        .strip_suffix("Sec")
        .filter(|stem| !stem.ends_with('U'))?;
    Some(format!("{stem}USec"))
}

/// -1 is for ever.
fn microseconds(seconds: &Value) -> Option<u64> {
    let whole: i128 = match *seconds {
        Value::Byte(n) => n.into(),
        Value::I16(n) => n.into(),
        Value::U16(n) => n.into(),
        Value::I32(n) => n.into(),
        Value::U32(n) => n.into(),
        Value::I64(n) => n.into(),
        Value::U64(n) => n.into(),
        // `as` stops at the ends.
        Value::F64(n) if n >= 0.0 => return Some((n * 1e6).round() as u64),
        _ => return None,
    };
    match whole {
        -1 => Some(INFINITY),
        n => u64::try_from(n.checked_mul(1_000_000)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::plan::{CgroupFallback, example_ask};
    use serde_json::{Value as Json, json};
    use std::path::Path;

    fn ask(id: &str, rootless: bool) -> Ask {
        let mut ask = example_ask();
        ask.id = id.into();
        ask.host.rootless = rootless;
        ask.host.systemd = match rootless {
            true => Manager::User,
            false => Manager::System,
        };
        ask
    }

    fn spec(linux: Json, annotations: Json) -> Spec {
        let text = json!({"ociVersion": "1.2.0", "linux": linux, "annotations": annotations});
        serde_json::from_value(text).unwrap()
    }

    fn named(path: Option<&str>, id: &str, rootless: bool) -> Result<UnitPlan> {
        draw(
            &spec(json!({"cgroupsPath": path}), json!({})),
            &ask(id, rootless),
        )
    }

    /// `Name=value` of each property, values in short.
    fn lines(properties: &[Property]) -> Vec<String> {
        properties
            .iter()
            .map(|p| format!("{}={}", p.name, short(&p.value)))
            .collect()
    }

    fn short(value: &Value) -> String {
        match value {
            Value::U64(u64::MAX) => "infinity".into(),
            Value::U64(n) => n.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Text(text) => text.clone(),
            Value::Array(kind, items) if kind == "y" => items
                .iter()
                .map(|i| match i {
                    Value::Byte(b) => format!("{b:02x}"),
                    other => format!("{other:?}"),
                })
                .collect(),
            Value::Array(_, items) => {
                format!(
                    "[{}]",
                    items.iter().map(short).collect::<Vec<_>>().join(", ")
                )
            }
            Value::Struct(fields) => fields.iter().map(short).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_unit_is_named_and_placed_as_runc_does() {
        for (path, rootless, name, slice, cgroup) in [
            (
                None,
                false,
                "runc-web.scope",
                "system.slice",
                "/system.slice/runc-web.scope",
            ),
            (
                Some(""),
                false,
                "runc-web.scope",
                "system.slice",
                "/system.slice/runc-web.scope",
            ),
            (
                None,
                true,
                "runc-web.scope",
                "user.slice",
                "/user.slice/runc-web.scope",
            ),
            (
                Some(":b:c"),
                false,
                "b-c.scope",
                "system.slice",
                "/system.slice/b-c.scope",
            ),
            (
                Some("::"),
                false,
                "-.scope",
                "system.slice",
                "/system.slice/-.scope",
            ),
            (
                Some("::c"),
                false,
                "-c.scope",
                "system.slice",
                "/system.slice/-c.scope",
            ),
            (
                Some(":x:"),
                false,
                "x-.scope",
                "system.slice",
                "/system.slice/x-.scope",
            ),
            (
                Some("-.slice:x:c"),
                false,
                "x-c.scope",
                "-.slice",
                "/x-c.scope",
            ),
            (
                Some("foo-bar.slice:pre:nm"),
                false,
                "pre-nm.scope",
                "foo-bar.slice",
                "/foo.slice/foo-bar.slice/pre-nm.scope",
            ),
            (
                Some("a.b.slice:x:c"),
                false,
                "x-c.scope",
                "a.b.slice",
                "/a.b.slice/x-c.scope",
            ),
            (
                Some("..slice:x:c"),
                false,
                "x-c.scope",
                "..slice",
                "/_..slice/x-c.scope",
            ),
            (
                Some("system.slice:cri-containerd:9f2"),
                true,
                "cri-containerd-9f2.scope",
                "system.slice",
                "/system.slice/cri-containerd-9f2.scope",
            ),
        ] {
            let unit = named(path, "web", rootless).unwrap();
            assert_eq!(
                (unit.name.as_str(), unit.slice.as_str()),
                (name, slice),
                "{path:?}"
            );
            assert_eq!(unit.cgroup, Path::new(cgroup), "{path:?}");
            let manager = if rootless {
                Manager::User
            } else {
                Manager::System
            };
            assert_eq!(unit.manager, manager);
        }
    }

    #[test]
    fn a_name_that_systemd_will_not_take_is_refused() {
        let format = |got: &str| {
            format!(
                "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for \
                 systemd cgroups, got \"{got}\" instead"
            )
        };
        let slice = |got: &str| {
            format!(
                "linux.cgroupsPath: invalid slice name: {got}: give one like system.slice or \
                 system-web.slice, or -.slice for the root"
            )
        };
        let long = "x".repeat(250);
        for (path, id, message) in [
            (Some("foo"), "web", format("foo")),
            (Some("/foo"), "web", format("/foo")),
            (Some("a:b"), "web", format("a:b")),
            (Some("a:b:c:d"), "web", format("a:b:c:d")),
            (Some("foo:b:c"), "web", slice("foo")),
            (Some("a/b.slice:b:c"), "web", slice("a/b.slice")),
            (Some("a--b.slice:b:c"), "web", slice("a--b.slice")),
            (Some("-:b:c"), "web", slice("-")),
            (Some(".slice:b:c"), "web", slice(".slice")),
            (Some("-a.slice:b:c"), "web", slice("-a.slice")),
            (Some("a-.slice:b:c"), "web", slice("a-.slice")),
            (Some("x.scope:b:c"), "web", slice("x.scope")),
            (
                Some("a.slice:b:k.slice"),
                "web",
                "linux.cgroupsPath: \"k.slice\" names a slice, and systemd puts no process into a \
                 slice, only scopes: leave .slice out of the name"
                    .to_owned(),
            ),
            (
                Some(":x:c/d"),
                "web",
                "linux.cgroupsPath: \"x-c/d.scope\" is no name for a systemd unit: it may hold \
                 letters, digits and :-_.\\ and at most 255 bytes"
                    .to_owned(),
            ),
            (
                None,
                "a+b",
                "container id: \"runc-a+b.scope\" is no name for a systemd unit: it may hold \
                 letters, digits and :-_.\\ and at most 255 bytes: give linux.cgroupsPath a \
                 slice:prefix:name"
                    .to_owned(),
            ),
            (
                None,
                long.as_str(),
                format!(
                    "container id: \"runc-{long}.scope\" is no name for a systemd unit: it may hold \
                     letters, digits and :-_.\\ and at most 255 bytes: give linux.cgroupsPath a \
                     slice:prefix:name"
                ),
            ),
        ] {
            let error = named(path, id, false).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }

    #[test]
    fn a_slice_lies_in_the_slices_that_its_name_begins_with() {
        for (slice, path) in [
            ("-.slice", "/"),
            ("a.slice", "/a.slice"),
            ("a-b.slice", "/a.slice/a-b.slice"),
            ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
            ("memory.slice", "/_memory.slice"),
            ("_x.slice", "/__x.slice"),
        ] {
            assert_eq!(expand(slice).unwrap(), Path::new(path));
        }
    }

    #[test]
    fn systemd_is_told_what_it_is_told_by_runc() {
        let resources = json!({
            "devices": [{"allow": false, "access": "rwm"}],
            "memory": {"limit": 10_000_000, "swap": 20_000_000, "reservation": 5_000_000},
            "cpu": {"shares": 512, "quota": 12_345, "period": 10_000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 77}
        });
        let spec = spec(
            json!({"cgroupsPath": ":x:c", "resources": resources}),
            json!({"org.systemd.property.CollectMode": "'inactive-or-failed'", "other": "x"}),
        );
        assert_eq!(
            lines(&draw(&spec, &ask("web", false)).unwrap().properties),
            [
                "Description=container web",
                "Slice=system.slice",
                "Delegate=true",
                "MemoryAccounting=true",
                "CPUAccounting=true",
                "IOAccounting=true",
                "TasksAccounting=true",
                "DefaultDependencies=false",
                "DevicePolicy=strict",
                "DeviceAllow=[block-* m, char-* m, /dev/char/1:3 rwm, /dev/char/1:5 rwm, \
                 /dev/char/1:7 rwm, /dev/char/1:8 rwm, /dev/char/1:9 rwm, /dev/char/5:0 rwm, \
                 /dev/char/5:2 rwm, /dev/char/10:200 rwm, char-136 rwm]",
                "TasksMax=77",
                "MemorySwapMax=10000000",
                "MemoryMax=10000000",
                "MemoryLow=5000000",
                "CPUWeight=59",
                "CPUQuotaPeriodUSec=10000",
                "CPUQuotaPerSecUSec=1240000",
                "AllowedCPUs=03",
                "AllowedMemoryNodes=01",
                "CollectMode=inactive-or-failed",
            ]
        );
    }

    #[test]
    fn a_users_manager_is_not_told_of_devices() {
        let plan = named(None, "web", true).unwrap();
        assert!(!plan.properties.iter().any(|p| p.name.starts_with("Device")));
    }

    fn write(file: &str, value: &str) -> CgroupWrite {
        CgroupWrite {
            file: file.into(),
            value: value.into(),
            field: "f".into(),
            optional: false,
            instead: None,
        }
    }

    #[test]
    fn each_cgroup_file_is_told_in_systemds_words() {
        for (file, value, expected) in [
            ("memory.max", "max", vec!["MemoryMax=infinity"]),
            ("memory.max", "4096", vec!["MemoryMax=4096"]),
            // systemd refuses 0, the kernel does not.
            ("memory.max", "0", vec![]),
            // The kernel understands this, systemd's bus does not: only the file gets it.
            ("memory.max", "5M", vec![]),
            ("memory.high", "777", vec!["MemoryHigh=777"]),
            ("memory.low", "0", vec!["MemoryLow=0"]),
            ("memory.min", "1", vec!["MemoryMin=1"]),
            ("memory.swap.max", "0", vec!["MemorySwapMax=0"]),
            ("memory.zswap.max", "5", vec!["MemoryZSwapMax=5"]),
            ("memory.oom.group", "1", vec![]),
            ("pids.max", "max", vec!["TasksMax=infinity"]),
            ("pids.max", "1", vec!["TasksMax=1"]),
            ("cpu.weight", "100", vec!["CPUWeight=100"]),
            ("cpu.idle", "1", vec!["CPUWeight=0"]),
            ("cpu.idle", "0", vec!["CPUWeight=infinity"]),
            (
                "cpu.max",
                "max 100000",
                vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"],
            ),
            (
                "cpu.max",
                "50000 100000",
                vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000"],
            ),
            (
                "cpu.max",
                "1000",
                vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=10000"],
            ),
            (
                "cpu.max",
                "1001",
                vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=20000"],
            ),
            ("cpu.max", "5 0", vec![]),
            ("cpu.max", "", vec![]),
            ("cpu.max.burst", "5", vec![]),
            ("cpuset.cpus", "0,2-3,9,17", vec!["AllowedCPUs=0d0202"]),
            ("cpuset.cpus", "7-8", vec!["AllowedCPUs=8001"]),
            ("cpuset.mems", "0-1", vec!["AllowedMemoryNodes=03"]),
            ("io.weight", "300", vec!["IOWeight=300"]),
            ("io.weight", "default 300", vec!["IOWeight=300"]),
            ("io.weight", "0", vec![]),
            (
                "io.weight",
                "8:0 200",
                vec!["IODeviceWeight=[/dev/block/8:0 200]"],
            ),
            (
                "io.max",
                "8:16 rbps=1 wbps=max riops=2 wiops=3",
                vec![
                    "IOReadBandwidthMax=[/dev/block/8:16 1]",
                    "IOWriteBandwidthMax=[/dev/block/8:16 infinity]",
                    "IOReadIOPSMax=[/dev/block/8:16 2]",
                    "IOWriteIOPSMax=[/dev/block/8:16 3]",
                ],
            ),
            ("io.max", "8:16 bogus=1", vec![]),
            ("io.max", "../x rbps=1", vec![]),
            ("hugetlb.2MB.max", "5", vec![]),
        ] {
            let told = limits(&[write(file, value)]).unwrap();
            assert_eq!(lines(&told), expected, "{file} {value}");
        }
    }

    #[test]
    fn systemd_gets_the_weight_of_its_own_scale() {
        let bfq = CgroupWrite {
            instead: Some(CgroupFallback {
                file: "io.weight".into(),
                value: "4950".into(),
            }),
            ..write("io.bfq.weight", "500")
        };
        assert_eq!(lines(&limits(&[bfq]).unwrap()), ["IOWeight=4950"]);
    }

    #[test]
    fn a_list_that_is_none_is_refused_by_its_field() {
        for (list, message) in [
            (
                "x",
                "f: \"x\": \"x\" is no number of a CPU or memory node: give a list like 0-3,8",
            ),
            ("7-1", "f: \"7-1\": invalid range: 7-1"),
            (
                "0-99999999",
                "f: \"0-99999999\": \"99999999\" is no number of a CPU or memory node: give a list \
                 like 0-3,8",
            ),
        ] {
            let error = limits(&[write("cpuset.cpus", list)]).unwrap_err();
            assert_eq!(format!("{error:#}"), message);
        }
    }

    #[test]
    fn an_annotation_becomes_a_property_of_its_type() {
        let told = |name: &str, text: &str| {
            let key = format!("org.systemd.property.{name}");
            annotated(&spec(json!({}), json!({ key: text })))
                .map(|p| lines(&p).join(" "))
                .map_err(|e| format!("{e:#}"))
        };
        for (name, text, expected) in [
            ("TimeoutStopUSec", "uint64 123", "TimeoutStopUSec=123"),
            ("TimeoutStopSec", "uint64 123", "TimeoutStopUSec=123000000"),
            ("TimeoutStopSec", "123", "TimeoutStopUSec=123000000"),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec=1500000"),
            ("TimeoutStopSec", "-1", "TimeoutStopUSec=infinity"),
            ("CollectMode", "'inactive'", "CollectMode=inactive"),
            (
                "Wants",
                "['a.service', \"b.service\"]",
                "Wants=[a.service, b.service]",
            ),
            (
                "DeviceAllow",
                "[('/dev/null', 'r')]",
                "DeviceAllow=[/dev/null r]",
            ),
        ] {
            assert_eq!(told(name, text).unwrap(), expected);
        }
        for (name, text, message) in [
            (
                "",
                "1",
                "annotation org.systemd.property. name incorrect: too short",
            ),
            (
                "aB",
                "1",
                "annotation org.systemd.property.aB name incorrect: too short",
            ),
            (
                "B-o",
                "1",
                "annotation org.systemd.property.B-o name incorrect: contains non-alphabetic character",
            ),
            (
                "TimeoutStopSec",
                "true",
                "annotation org.systemd.property.TimeoutStopSec=true value parse error: not a \
                 number of seconds",
            ),
            (
                "TimeoutStopSec",
                "-2",
                "annotation org.systemd.property.TimeoutStopSec=-2 value parse error: not a number \
                 of seconds",
            ),
            (
                "Description",
                "hello",
                "annotation org.systemd.property.Description=hello value parse error: unrecognized \
                 type \"hello\": give it as GVariant text, like uint64 5, true, 'text' or ['a', 'b']",
            ),
        ] {
            let field = format!("annotations[\"org.systemd.property.{name}\"]: ");
            assert_eq!(told(name, text).unwrap_err(), field + message);
        }
    }

    #[test]
    fn no_list_of_devices_is_sent_where_everything_is_allowed() {
        let spec = spec(
            json!({"resources": {"devices": [{"allow": true, "access": "rwm"}]}}),
            json!({}),
        );
        assert_eq!(lines(&devices(&spec).unwrap()), ["DevicePolicy=auto"]);
    }
}
