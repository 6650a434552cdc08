//! `events`: prints a container's statistics every so often, and when it ran out of memory, until
//! it ends. One JSON object a line, as runc prints them.
//!
//! Nothing here waits for time to pass but for the statistics: the end of init (its pidfd), of the
//! last process (cgroup.events), of the reader (stdout), and an OOM (memory.events) are events of
//! the kernel, all in one poll(2).

use super::say;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::cli::Global;
use crate::runtime::container::Container;
use crate::runtime::stats::{self, Event, Stats};
use crate::runtime::status::{Act, Answer, ask};
use crate::sys::Call;
use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::pread;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A line every `interval`, the first after that time; with `once` one line at once.
pub fn events(global: &Global, id: &str, interval: Duration, once: bool) -> Result<()> {
    let container = Container::load(&global.root, id)?;
    if let Answer::No(why) = ask(Act::Events, container.status()?, id) {
        bail!(why);
    }
    let cgroup = container.cgroup()?;
    if once {
        return tell(id, "stats", Some(read(cgroup)));
    }
    let Some(init) = container.init()? else {
        return Ok(());
    };
    let mut watch = Watch::new(init, cgroup);
    let mut next = Instant::now() + interval;
    loop {
        let turn = watch.until(next)?;
        for _ in 0..turn.ooms {
            tell(id, "oom", None)?;
        }
        if turn.ended {
            return Ok(());
        }
        if Instant::now() >= next {
            tell(id, "stats", Some(read(cgroup)))?;
            // Not a line for each interval that the machine slept.
            next = (next + interval).max(Instant::now());
        }
    }
}

fn tell(id: &str, kind: &str, data: Option<Stats>) -> Result<()> {
    let event = Event { kind, id, data };
    say(&(serde_json::to_string(&event)? + "\n"))
}

fn read(cgroup: Option<&Cgroup>) -> Stats {
    let Some(cgroup) = cgroup else {
        return Stats::default();
    };
    let names = std::fs::read_dir(cgroup.path()).into_iter().flatten();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    stats::of(
        |file| cgroup.text(file),
        &stats::huge_page_sizes(names),
        || cgroup.pids(true).map_or(0, |pids| pids.len()),
    )
}

/// What is waited for.
struct Watch {
    init: OwnedFd,
    stdout: std::io::Stdout,
    /// cgroup.events.
    life: Option<OwnedFd>,
    /// memory.events.
    memory: Option<OwnedFd>,
    /// Kills by the OOM killer so far.
    kills: u64,
}

/// What happened.
struct Turn {
    ooms: u64,
    ended: bool,
}

impl Watch {
    fn new(init: OwnedFd, cgroup: Option<&Cgroup>) -> Watch {
        let file = |name: &str| cgroup.and_then(|cgroup| cgroup.watch(name));
        let mut watch = Watch {
            init,
            stdout: std::io::stdout(),
            life: file("cgroup.events"),
            memory: file("memory.events"),
            kills: 0,
        };
        watch.new_kills();
        watch
    }

    /// Waits until `deadline` passes, or something happens.
    fn until(&mut self, deadline: Instant) -> Result<Turn> {
        // Reading arms the next notification: before poll, so that nothing between is lost.
        let mut turn = Turn {
            ooms: self.new_kills(),
            ended: self.is_empty(),
        };
        if turn.ooms == 0 && !turn.ended {
            turn.ended = self.wait(deadline)?;
            // Also at the end: what killed init is told before.
            turn.ooms = self.new_kills();
        }
        Ok(turn)
    }

    /// True when init has ended or nobody reads what is printed.
    fn wait(&self, deadline: Instant) -> Result<bool> {
        let mut watched = vec![
            PollFd::new(self.init.as_fd(), PollFlags::POLLIN),
            // Errors only: a pipe without a reader.
            PollFd::new(self.stdout.as_fd(), PollFlags::empty()),
        ];
        for file in [&self.life, &self.memory].into_iter().flatten() {
            watched.push(PollFd::new(file.as_fd(), PollFlags::POLLPRI));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a remainder below a millisecond must not become a busy loop.
        let left = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Err(Errno::EINTR) => return Ok(false),
            other => other.call("poll", || format!("…, {left}"))?,
        };
        Ok(watched[..2]
            .iter()
            .any(|fd| fd.revents().is_some_and(|got| !got.is_empty())))
    }

    fn is_empty(&self) -> bool {
        let Some(life) = &self.life else {
            return false;
        };
        // No text: the cgroup has gone.
        text(life.as_fd()).is_none_or(|text| stats::value(&text, "populated") == 0)
    }

    fn new_kills(&mut self) -> u64 {
        let Some(text) = self.memory.as_ref().and_then(|file| text(file.as_fd())) else {
            return 0;
        };
        let before = self.kills;
        self.kills = stats::value(&text, "oom_kill").max(before);
        self.kills - before
    }
}

/// A short file of a cgroup, from its beginning.
fn text(file: BorrowedFd) -> Option<String> {
    let mut text = [0; 1024];
    let length = pread(file, &mut text, 0).ok()?;
    Some(String::from_utf8_lossy(&text[..length]).into_owned())
}
