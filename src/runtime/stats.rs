//! How much of what it may use does a container use? The statistics of `events`, from the files of
//! its cgroup (cgroup-v2.rst), in the shape that runc gives them (runc's types/events.go).
//!
//! The shape is that of cgroup v1, and so are some of its numbers, as in runc: times are in
//! nanoseconds, swap is memory and swap together, a limit that is none is the largest number. What
//! a missing controller would tell is zero or left out. Kernel memory, exclusive cpusets, RDT
//! and network counters have no source on cgroup v2: their keys stay, for readers that want them.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// One line of `events`.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    /// `stats` or `oom`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Stats>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlockIo,
    /// By page size: `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    pub intel_rdt: Nothing,
    pub network_interfaces: (),
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Nothing {}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Of cgroup v1, all of it.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpuset {
    pub cpu_exclusive: u64,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Of the page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The highest usage so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was run into.
    pub failcnt: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read` or `Write`.
    pub op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Bytes.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    pub failcnt: u64,
}

/// Pressure: how much time was lost to waiting (psi.rst).
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Psi {
    /// By some of the processes.
    pub some: Pressure,
    /// By all of them at once.
    pub full: Pressure,
}

/// Percent of the last 10, 60 and 300 seconds; microseconds in all.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    #[serde(serialize_with = "as_go_does")]
    pub avg10: f64,
    #[serde(serialize_with = "as_go_does")]
    pub avg60: f64,
    #[serde(serialize_with = "as_go_does")]
    pub avg300: f64,
    pub total: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// `0`, not `0.0`.
fn as_go_does<S: Serializer>(n: &f64, to: S) -> Result<S::Ok, S::Error> {
    match n.fract() == 0.0 && (0.0..1e9).contains(n) {
        true => to.serialize_u64(*n as u64),
        false => to.serialize_f64(*n),
    }
}

// ---------------------------------------------------------------------------------------------
// Reading

/// The statistics of a cgroup: `text` gives a file of it, `None` where there is none; `sizes` are
/// those of its huge pages (`2MB`); `processes` counts them where there is no pids controller.
pub fn of(
    text: impl Fn(&str) -> Option<String>,
    sizes: &[String],
    processes: impl Fn() -> usize,
) -> Stats {
    let file = |name: &str| text(name).unwrap_or_default();
    Stats {
        cpu: cpu(&file("cpu.stat"), psi(&file("cpu.pressure"))),
        cpuset: Cpuset::default(),
        memory: memory(&file),
        pids: Pids {
            current: text("pids.current").map_or_else(|| processes() as u64, |t| number(&t)),
            // No limit is no number here, unlike memory.
            limit: file("pids.max").trim().parse().unwrap_or(0),
        },
        blkio: block_io(&file("io.stat"), psi(&file("io.pressure"))),
        hugetlb: sizes
            .iter()
            .map(|size| (size.clone(), hugetlb(&file, size)))
            .collect(),
        intel_rdt: Nothing {},
        network_interfaces: (),
    }
}

/// The sizes of huge pages, from the names of a cgroup's files.
pub fn huge_page_sizes(names: impl Iterator<Item = String>) -> Vec<String> {
    let size = |name: &str| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<String> = names.filter_map(|name| size(&name)).collect();
    sizes.sort_unstable();
    sizes
}

fn cpu(stat: &str, psi: Option<Psi>) -> Cpu {
    let nanos = |key| value(stat, key).saturating_mul(1000);
    Cpu {
        usage: CpuUsage {
            total: nanos("usage_usec"),
            kernel: nanos("system_usec"),
            user: nanos("user_usec"),
        },
        throttling: Throttling {
            periods: value(stat, "nr_periods"),
            throttled_periods: value(stat, "nr_throttled"),
            throttled_time: nanos("throttled_usec"),
        },
        psi,
    }
}

fn memory(file: &impl Fn(&str) -> String) -> Memory {
    let raw = flat(&file("memory.stat"));
    let usage = MemoryEntry {
        limit: number(&file("memory.max")),
        usage: number(&file("memory.current")),
        max: number(&file("memory.peak")),
        failcnt: value(&file("memory.events"), "max"),
    };
    let swap = MemoryEntry {
        limit: number(&file("memory.swap.max")).saturating_add(usage.limit),
        usage: number(&file("memory.swap.current")).saturating_add(usage.usage),
        max: 0,
        failcnt: value(&file("memory.swap.events"), "max"),
    };
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        kernel: MemoryEntry::default(),
        kernel_tcp: MemoryEntry::default(),
        raw,
        psi: psi(&file("memory.pressure")),
    }
}

/// Lines of `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`. Discards have no name in v1.
fn block_io(stat: &str, psi: Option<Psi>) -> BlockIo {
    let mut io = BlockIo {
        psi,
        ..BlockIo::default()
    };
    for (major, minor, counters) in stat.lines().filter_map(device_line) {
        for (key, value) in counters.filter_map(|word| word.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                _ => continue,
            };
            table.push(BlockIoEntry {
                major,
                minor,
                op,
                value: number(value),
            });
        }
    }
    io
}

fn device_line(line: &str) -> Option<(u64, u64, impl Iterator<Item = &str>)> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, words))
}

fn hugetlb(file: &impl Fn(&str) -> String, size: &str) -> Hugetlb {
    Hugetlb {
        usage: number(&file(&format!("hugetlb.{size}.current"))),
        failcnt: value(&file(&format!("hugetlb.{size}.events")), "max"),
    }
}

/// Lines of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`; `None` without such a line. Before
/// Linux 5.13 there is no `full` for cpu.
fn psi(text: &str) -> Option<Psi> {
    let line = |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind));
    Some(Psi {
        some: pressure(line("some ")?),
        full: line("full ").map(pressure).unwrap_or_default(),
    })
}

fn pressure(line: &str) -> Pressure {
    let word = |key: &str| {
        let pairs = line.split_whitespace().filter_map(|w| w.split_once('='));
        pairs
            .filter(|(k, _)| *k == key)
            .map(|(_, v)| v)
            .next()
            .unwrap_or("")
    };
    let average = |key: &str| word(key).parse().unwrap_or(0.0);
    Pressure {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total: number(word("total")),
    }
}

/// The value of `key` in lines of `key value`; 0 where it is missing.
pub fn value(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(k, _)| *k == key).map_or(0, |(_, v)| number(v))
}

fn flat(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(key, value)| (key.to_owned(), number(value)))
        .collect()
}

/// `max` is the largest number, what is none is 0.
fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const FILES: &[(&str, &str)] = &[
        (
            "cpu.stat",
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnice_usec 0\nnr_periods 7\nnr_throttled 4\nthrottled_usec 9\n",
        ),
        (
            "cpu.pressure",
            "some avg10=1.50 avg60=0.25 avg300=2.00 total=11\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
        ("memory.current", "1000\n"),
        ("memory.max", "4000\n"),
        ("memory.peak", "3000\n"),
        ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n"),
        ("memory.swap.current", "50\n"),
        ("memory.swap.max", "100\n"),
        ("memory.swap.events", "high 0\nmax 2\nfail 0\n"),
        ("memory.stat", "anon 600\nfile 300\n"),
        (
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
        ),
        ("pids.current", "3\n"),
        ("pids.max", "10\n"),
        (
            "io.stat",
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:0 \n0:9 rbytes=7\nnonsense\n",
        ),
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.events", "max 5\n"),
    ];

    fn json_of(files: &[(&str, &str)], sizes: &[&str]) -> Value {
        let text = |name: &str| {
            let found = files.iter().find(|(file, _)| *file == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        let sizes: Vec<String> = sizes.iter().map(|s| (*s).to_owned()).collect();
        serde_json::to_value(of(text, &sizes, || 2)).unwrap()
    }

    #[test]
    fn every_file_has_its_place() {
        let calm = json!({"avg10": 0, "avg60": 0, "avg300": 0, "total": 0});
        let stats = json_of(FILES, &["1GB", "2MB"]);
        for (section, expected) in [
            (
                "cpu",
                json!({
                    "usage": {"total": 5000, "kernel": 2000, "user": 3000},
                    "throttling": {"periods": 7, "throttledPeriods": 4, "throttledTime": 9000},
                    "psi": {"some": {"avg10": 1.5, "avg60": 0.25, "avg300": 2, "total": 11}, "full": calm}
                }),
            ),
            (
                "memory",
                json!({
                    "cache": 300,
                    "usage": {"limit": 4000, "usage": 1000, "max": 3000, "failcnt": 6},
                    "swap": {"limit": 4100, "usage": 1050, "failcnt": 2},
                    "kernel": {"limit": 0, "failcnt": 0},
                    "kernelTCP": {"limit": 0, "failcnt": 0},
                    "raw": {"anon": 600, "file": 300},
                    "psi": {"some": {"avg10": 0, "avg60": 0, "avg300": 0, "total": 1}, "full": calm}
                }),
            ),
            ("pids", json!({"current": 3, "limit": 10})),
            (
                "blkio",
                json!({
                    "ioServiceBytesRecursive": [
                        {"major": 8, "op": "Read", "value": 1},
                        {"major": 8, "op": "Write", "value": 2},
                        {"minor": 9, "op": "Read", "value": 7}
                    ],
                    "ioServicedRecursive": [
                        {"major": 8, "op": "Read", "value": 3},
                        {"major": 8, "op": "Write", "value": 4}
                    ]
                }),
            ),
            (
                "hugetlb",
                json!({"1GB": {"failcnt": 0}, "2MB": {"usage": 2_097_152, "failcnt": 5}}),
            ),
        ] {
            assert_eq!(stats[section], expected, "{section}");
        }
    }

    #[test]
    fn without_controllers_a_line_is_as_runc_prints_it() {
        let data = of(|_| None, &["2MB".to_owned()], || 1);
        let event = Event {
            kind: "stats",
            id: "x",
            data: Some(data),
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            concat!(
                r#"{"type":"stats","id":"x","data":{"cpu":{"usage":{"kernel":0,"user":0},"#,
                r#""throttling":{}},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"#,
                r#""mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"#,
                r#""memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
                r#""sched_relax_domain_level":0},"memory":{"usage":{"limit":0,"failcnt":0},"#,
                r#""swap":{"limit":0,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"#,
                r#""kernelTCP":{"limit":0,"failcnt":0}},"pids":{"current":1},"blkio":{},"#,
                r#""hugetlb":{"2MB":{"failcnt":0}},"intel_rdt":{},"network_interfaces":null}}"#
            )
        );
    }

    #[test]
    fn no_limit_is_the_largest_number_but_for_pids() {
        let stats = json_of(
            &[
                ("memory.max", "max\n"),
                ("memory.swap.max", "max\n"),
                ("pids.max", "max\n"),
                ("pids.current", "1\n"),
            ],
            &[],
        );
        assert_eq!(stats["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(stats["memory"]["swap"]["limit"], u64::MAX);
        assert_eq!(stats["pids"], json!({"current": 1}));
        assert_eq!(stats["hugetlb"], json!({}));
    }

    #[test]
    fn an_oom_is_an_event_without_data() {
        let event = Event {
            kind: "oom",
            id: "x",
            data: None,
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"type":"oom","id":"x"}"#
        );
    }

    #[test]
    fn pressure_of_a_cpu_may_lack_its_second_line() {
        let text = "some avg10=0.00 avg60=0.10 avg300=12.34 total=18446744073709551615\n";
        let some = Pressure {
            avg10: 0.0,
            avg60: 0.1,
            avg300: 12.34,
            total: u64::MAX,
        };
        assert_eq!(
            psi(text),
            Some(Psi {
                some,
                full: Pressure::default()
            })
        );
        assert_eq!(psi(""), None);
    }

    #[test]
    fn sizes_of_huge_pages_are_in_the_names_of_files() {
        let names = [
            "hugetlb.2MB.current",
            "hugetlb.2MB.rsvd.current",
            "hugetlb.1GB.current",
            "hugetlb.1GB.max",
            "memory.current",
        ];
        let sizes = huge_page_sizes(names.into_iter().map(str::to_owned));
        assert_eq!(sizes, ["1GB", "2MB"]);
    }
}
