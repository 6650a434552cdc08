//! How much does a container use? Read from its cgroup, and from its process's view of the network.

use super::record::Process;
use std::fs;
use std::time::Instant;

/// `None` where this machine's cgroup does not tell: a controller is not there.
#[derive(Debug, Clone)]
pub struct Usage {
    pub when: Instant,
    /// Microseconds of processor time.
    pub cpu: Option<u64>,
    /// Bytes, without the cache that goes when it must; and the limit, or the machine's memory.
    pub memory: Option<u64>,
    pub memory_limit: Option<u64>,
    pub pids: Option<u64>,
    /// Bytes read and written.
    pub block: Option<(u64, u64)>,
    /// Bytes received and sent.
    pub network: Option<(u64, u64)>,
}

impl Usage {
    pub fn of(process: &Process) -> Usage {
        let file = |name: &str| process.cgroup_file(name);
        let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
        let key = |name: &str, key: &str| keyed(&file(name)?, key);
        let current = number("memory.current");
        let inactive = key("memory.stat", "inactive_file").unwrap_or(0);
        Usage {
            when: Instant::now(),
            cpu: key("cpu.stat", "usage_usec"),
            memory: current.map(|current| current.saturating_sub(inactive)),
            memory_limit: current.and_then(|_| number("memory.max").or_else(machine_memory)),
            // The processes can be counted where the controller cannot be asked.
            pids: number("pids.current").or_else(|| {
                let text = file("cgroup.procs")?;
                Some(text.lines().count() as u64)
            }),
            block: file("io.stat").map(|text| (sum(&text, "rbytes="), sum(&text, "wbytes="))),
            network: fs::read_to_string(format!("/proc/{}/net/dev", process.pid))
                .ok()
                .map(|text| interfaces(&text)),
        }
    }

    /// Percent of one processor since `before`.
    pub fn cpu_percent(&self, before: &Usage) -> Option<f64> {
        let used = self.cpu?.saturating_sub(before.cpu?) as f64;
        let passed = self.when.duration_since(before.when).as_micros() as f64;
        Some(used / passed.max(1.0) * 100.0)
    }

    pub fn memory_percent(&self) -> Option<f64> {
        Some(self.memory? as f64 / self.memory_limit?.max(1) as f64 * 100.0)
    }
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

fn machine_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

/// Of all devices (cgroup-v2.rst, io.stat).
fn sum(text: &str, key: &str) -> u64 {
    let words = text.split_whitespace();
    let numbers = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    numbers.sum()
}

/// All but loopback (proc_pid_net(5), dev).
fn interfaces(text: &str) -> (u64, u64) {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let counts = lines
        .filter(|(name, _)| name.trim() != "lo")
        .map(|(_, rest)| {
            let mut numbers = rest
                .split_whitespace()
                .map(|word| word.parse().unwrap_or(0));
            (numbers.next().unwrap_or(0), numbers.nth(7).unwrap_or(0))
        });
    counts.fold((0, 0), |all: (u64, u64), one| {
        (all.0 + one.0, all.1 + one.1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(keyed("a 1\nusage_usec 25\n", "usage_usec"), Some(25));
        assert_eq!(keyed("usage_usec_x 25\n", "usage_usec"), None);
        assert_eq!(
            sum("8:0 rbytes=5 wbytes=1\n8:1 rbytes=7 wbytes=2", "rbytes="),
            12
        );
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1\n  eth0: 10 1 0 0 0 0 0 0 20 1 0\n";
        assert_eq!(interfaces(dev), (10, 20));
    }
}
