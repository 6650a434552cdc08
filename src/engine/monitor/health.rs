//! Is the container well? A command of its own is run in it now and then, by its runtime's `exec`.

use crate::clock;
use crate::engine::programs;
use crate::engine::record::{Health, HealthCheck, Home, Probe, Record};
use crate::sys::pidfd;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::WaitStatus;
use nix::unistd::read;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// docker's: so much of a probe's output is kept, and so many probes.
const OUTPUT: usize = 4096;
const PROBES: usize = 5;

pub struct Checks {
    asked: HealthCheck,
    health: Health,
    began: Instant,
    next: Instant,
    probe: Option<Running>,
}

struct Running {
    pid: i32,
    pidfd: OwnedFd,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    start: String,
    deadline: Instant,
    status: Option<WaitStatus>,
    overdue: bool,
}

impl Checks {
    pub fn new(asked: HealthCheck) -> Checks {
        let now = Instant::now();
        Checks {
            next: now + Duration::from_nanos(asked.interval),
            asked,
            health: Health::starting(),
            began: now,
            probe: None,
        }
    }

    /// When there is something to do, if nothing happens before.
    pub fn due(&self) -> Option<Duration> {
        let at = match &self.probe {
            Some(probe) if probe.overdue => return None,
            Some(probe) => probe.deadline,
            None => self.next,
        };
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// What becomes readable when a probe says something; its end is a SIGCHLD.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.probe.as_ref()?.output.as_ref()?.as_fd())
    }

    pub fn reaped(&mut self, pid: i32, status: WaitStatus) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.pid == pid) {
            probe.status = Some(status);
        }
    }

    /// Begins, watches and ends probes; what is known when one has ended.
    pub fn turn(&mut self, home: &Home, record: &Record) -> Option<Health> {
        let now = Instant::now();
        let Some(probe) = &mut self.probe else {
            if now < self.next {
                return None;
            }
            return match Running::begin(home, record, &self.asked) {
                Ok(probe) => {
                    self.probe = Some(probe);
                    None
                }
                Err(e) => {
                    let start = clock::now_nanos();
                    self.judge(-1, format!("{e:#}"), start)
                }
            };
        };
        probe.read();
        if let Some(status) = probe.status {
            let probe = self.probe.take()?;
            let code = match status {
                _ if probe.overdue => -1,
                WaitStatus::Exited(_, code) => code,
                _ => 1,
            };
            let said = match probe.overdue {
                true => {
                    let limit = Duration::from_nanos(self.asked.timeout);
                    format!("Health check exceeded timeout ({limit:?})")
                }
                false => String::from_utf8_lossy(&probe.text).into_owned(),
            };
            return self.judge(code, said, probe.start);
        }
        if now >= probe.deadline && !probe.overdue {
            probe.overdue = true;
            probe.kill(home, record);
        }
        None
    }

    /// docker's rules: `retries` failures in a row are illness, but for those of the start period.
    fn judge(&mut self, code: i32, output: String, start: String) -> Option<Health> {
        self.next = Instant::now() + Duration::from_nanos(self.asked.interval);
        let health = &mut self.health;
        let beginning = health.status == "starting"
            && self.began.elapsed() < Duration::from_nanos(self.asked.start_period);
        match code {
            0 => (health.status, health.failing_streak) = ("healthy".to_owned(), 0),
            _ if beginning => {}
            _ => {
                health.failing_streak += 1;
                if health.failing_streak >= self.asked.retries {
                    health.status = "unhealthy".to_owned();
                }
            }
        }
        health.log.push(Probe {
            start,
            end: clock::now_nanos(),
            exit_code: code,
            output,
        });
        if health.log.len() > PROBES {
            health.log.remove(0);
        }
        Some(health.clone())
    }
}

impl Running {
    fn begin(home: &Home, record: &Record, asked: &HealthCheck) -> Result<Running> {
        let (output, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let pid_file = home.dir(&record.id).join("probe.pid");
        // Of an earlier probe.
        let _ = fs::remove_file(&pid_file);
        let child = programs::runtime(home, record)
            .args(["exec", "--pid-file"])
            .arg(&pid_file)
            .arg(&record.id)
            .args(&asked.command)
            .stdin(Stdio::null())
            .stdout(theirs.try_clone()?)
            .stderr(theirs)
            .spawn()
            .context("execute the runtime")?;
        let pid = child.id() as i32;
        Ok(Running {
            pid,
            pidfd: pidfd::open(pid)?,
            output: Some(output),
            text: Vec::new(),
            start: clock::now_nanos(),
            deadline: Instant::now() + Duration::from_nanos(asked.timeout),
            status: None,
            overdue: false,
        })
    }

    fn read(&mut self) {
        let mut buffer = [0; OUTPUT];
        while let Some(output) = &self.output {
            match read(output, &mut buffer) {
                Ok(n) if n > 0 => {
                    let room = OUTPUT - self.text.len().min(OUTPUT);
                    self.text.extend_from_slice(&buffer[..n.min(room)]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                _ => self.output = None,
            }
        }
    }

    /// Too late: the command in the container, and then the runtime that waits for it.
    fn kill(&self, home: &Home, record: &Record) {
        let text = fs::read_to_string(home.dir(&record.id).join("probe.pid"));
        let inner = text.ok().and_then(|text| text.trim().parse().ok());
        if let Some(process) = inner.and_then(|pid| pidfd::open(pid).ok()) {
            let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        } else {
            let _ = pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn illness_is_failures_in_a_row() {
        let mut checks = Checks::new(HealthCheck {
            command: Vec::new(),
            interval: 1,
            timeout: 1,
            start_period: 0,
            retries: 2,
        });
        let mut statuses = Vec::new();
        for code in [1, 0, 1, 1, 0] {
            let health = checks.judge(code, String::new(), String::new()).unwrap();
            statuses.push((health.status, health.failing_streak));
        }
        let expected = [
            ("starting", 1),
            ("healthy", 0),
            ("healthy", 1),
            ("unhealthy", 2),
            ("healthy", 0),
        ];
        assert_eq!(statuses, expected.map(|(s, n)| (s.to_owned(), n)));
        assert_eq!(checks.health.log.len(), PROBES);
    }

    #[test]
    fn failures_of_the_start_do_not_count() {
        let mut checks = Checks::new(HealthCheck {
            command: Vec::new(),
            interval: 1,
            timeout: 1,
            start_period: u64::MAX / 2,
            retries: 1,
        });
        let health = checks.judge(1, String::new(), String::new()).unwrap();
        assert_eq!(
            (health.status.as_str(), health.failing_streak),
            ("starting", 0)
        );
    }
}
