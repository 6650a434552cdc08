//! `logs`: what a container said, stdout and stderr kept apart.

use crate::clock;
use crate::engine::cli::Global;
use crate::engine::journal::{self, Journal, Query};
use crate::engine::log::{Line, rotated};
use crate::engine::record::{Home, LogDriver, Record};
use crate::engine::times;
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Print what a container said
#[derive(Debug, Args)]
pub struct Logs {
    /// And what it will say, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// From a time on, or since so long: 2026-01-31T12:00:00Z, 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to a time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Name, id or beginning of the id
    container: String,
}

/// What is wanted of the lines.
struct Wanted {
    tail: usize,
    since: Option<i64>,
    until: Option<i64>,
    timestamps: bool,
}

impl Logs {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let time = |option: &str, text: &Option<String>| {
            let nanos = text.as_deref().map(times::parse);
            nanos.transpose().with_context(|| option.to_owned())
        };
        let wanted = Wanted {
            tail: match self.tail.as_str() {
                "all" | "-1" => usize::MAX,
                number => number
                    .parse()
                    .with_context(|| format!("--tail {number}: not a number"))?,
            },
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
            timestamps: self.timestamps,
        };
        let home = global.home()?;
        let record = home.find(&self.container)?;
        match record.log.driver {
            LogDriver::JsonFile => wanted.files(&home, &record, self.follow),
            LogDriver::Journald => wanted.journal(&home, &record, self.follow),
            LogDriver::None => bail!(
                "container {} keeps no log: it was made with --log-driver none",
                record.name
            ),
        }
    }
}

impl Wanted {
    fn files(&self, home: &Home, record: &Record, follow: bool) -> Result<u8> {
        let path = home.dir(&record.id).join("log.json");
        // Watched before it is read: nothing falls between. The directory, as files rotate in it.
        let watch = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF;
        if follow {
            watch.add_watch(&home.dir(&record.id), flags)?;
        }
        let mut log = Reader::open(&path)?;
        let mut kept = VecDeque::new();
        while let Some(line) = log.next()? {
            if !self.is_in_time(&parse(&line)?) {
                continue;
            }
            kept.push_back(line);
            if kept.len() > self.tail {
                kept.pop_front();
            }
        }
        for line in kept {
            if !self.show(&parse(&line)?)? {
                return Ok(0);
            }
        }
        if !follow {
            return Ok(0);
        }
        loop {
            // Its end closes the log, which wakes us.
            let goes_on = home.is_monitored(&record.id);
            while let Some(line) = log.next()? {
                let line = parse(&line)?;
                if self.is_in_time(&line) && !self.show(&line)? {
                    return Ok(0);
                }
            }
            if !goes_on || self.until.is_some_and(|until| clock::nanos() > until) {
                return Ok(0);
            }
            watch.read_events()?;
        }
    }

    /// What there is; then what comes, until the monitor has ended; then what came in between.
    fn journal(&self, home: &Home, record: &Record, follow: bool) -> Result<u8> {
        // The end of the life that is looked at, not of a later one.
        let end = home.end(&record.id);
        let runs = home.is_monitored(&record.id);
        if !runs {
            journal::sync();
        }
        let mut query = Query {
            id: &record.id,
            since: self.since,
            ..Query::default()
        };
        let listened = self.end_of_journal(&mut query)?;
        if !listened || !follow || !runs {
            return Ok(0);
        }
        query.follow = true;
        let coming = Journal::ask(&query)?;
        let process = coming.process()?;
        std::thread::spawn(move || {
            // One that cannot be waited for is not followed.
            let _ = end.wait();
            journal::stop(&process);
        });
        if self.pass_on(coming, &mut query)? {
            journal::sync();
            query.follow = false;
            self.pass_on(Journal::ask(&query)?, &mut query)?;
        }
        Ok(0)
    }

    /// The last lines of those that there are. False: who listened has gone.
    fn end_of_journal(&self, query: &mut Query) -> Result<bool> {
        // One at least, to know where to go on.
        let bounded = self.since.is_none() && self.until.is_none() && self.tail < i32::MAX as usize;
        query.last = bounded.then_some(self.tail.max(1));
        let mut there = Journal::ask(query)?;
        let mut kept = VecDeque::new();
        while let Some(entry) = there.entry()? {
            query.after = Some(entry.cursor);
            if !self.is_in_time(&entry.line) {
                continue;
            }
            kept.push_back(entry.line);
            if kept.len() > self.tail {
                kept.pop_front();
            }
        }
        there.end()?;
        query.last = None;
        for line in kept {
            if !self.show(&line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Everything that it says, and where that ended. False: who listened has gone.
    fn pass_on(&self, mut journal: Journal, query: &mut Query) -> Result<bool> {
        while let Some(entry) = journal.entry()? {
            if self.is_in_time(&entry.line) && !self.show(&entry.line)? {
                journal::stop(&journal.process()?);
                return Ok(false);
            }
            query.after = Some(entry.cursor);
        }
        journal.end()?;
        Ok(true)
    }

    fn is_in_time(&self, line: &Line) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let time = clock::parse_nanos(&line.time).unwrap_or(0);
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    /// False: who listened has gone.
    fn show(&self, line: &Line) -> Result<bool> {
        let mut out: Box<dyn Write> = match &*line.stream {
            "stderr" => Box::new(std::io::stderr()),
            _ => Box::new(std::io::stdout()),
        };
        let written = match self.timestamps {
            true => write!(out, "{} {}", line.time, line.log),
            false => out.write_all(line.log.as_bytes()),
        };
        match written.and_then(|()| out.flush()) {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }
}

fn parse(text: &str) -> Result<Line<'_>> {
    serde_json::from_str(text).context("log.json")
}

/// Lines from the oldest file to the newest, across rotations.
struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    text: String,
}

impl Reader {
    fn open(path: &Path) -> Result<Reader> {
        let oldest = (1..).take_while(|age| rotated(path, *age).exists()).last();
        let first = rotated(path, oldest.unwrap_or(0));
        let file = File::open(&first).with_context(|| first.display().to_string())?;
        Ok(Reader {
            path: path.to_owned(),
            file: BufReader::new(file),
            text: String::new(),
        })
    }

    /// One whole line; what is being written waits.
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            self.file.read_line(&mut self.text)?;
            if self.text.ends_with('\n') {
                return Ok(Some(std::mem::take(&mut self.text)));
            }
            let Some(newer) = self.newer()? else {
                return Ok(None);
            };
            // It was rotated away after we came to its end: what was written meanwhile is still there.
            self.file.read_line(&mut self.text)?;
            if !self.text.ends_with('\n') {
                self.text.clear();
                self.file = newer;
            }
        }
    }

    /// The file after the one that is read.
    fn newer(&self) -> Result<Option<BufReader<File>>> {
        let own = self.file.get_ref().metadata()?.ino();
        let is_own =
            |age: u32| fs::metadata(rotated(&self.path, age)).map(|meta| meta.ino() == own);
        if is_own(0).unwrap_or(false) {
            return Ok(None);
        }
        let mut age = 1;
        while let Ok(false) = is_own(age) {
            age += 1;
        }
        // Rotated out of the world while it was read: on with the oldest.
        let next = rotated(&self.path, age - 1);
        match File::open(&next) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| next.display().to_string()),
        }
    }
}
