//! `logs`: what a container said, stdout and stderr kept apart.

use crate::clock;
use crate::engine::cli::Global;
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
            LogDriver::Journald => self.journal(&record),
            LogDriver::None => bail!(
                "container {} keeps no log: it was made with --log-driver none",
                record.name
            ),
        }
    }

    /// The journal has a reader of its own.
    fn journal(&self, record: &Record) -> Result<u8> {
        use std::os::unix::process::CommandExt;
        let mut reader = std::process::Command::new("journalctl");
        reader.args(["--quiet", "--no-pager", "--all"]);
        reader.arg(match self.timestamps {
            true => "--output=short-iso-precise",
            false => "--output=cat",
        });
        reader.args(self.follow.then_some("--follow"));
        reader.arg(format!("--lines={}", self.tail));
        for (option, typed) in [("--since", &self.since), ("--until", &self.until)] {
            if let Some(text) = typed {
                let seconds = times::parse(text)? / 1_000_000_000;
                reader.arg(format!("{option}=@{seconds}"));
            }
        }
        let e = reader
            .arg(format!("CONTAINER_ID_FULL={}", record.id))
            .exec();
        Err(e).context("execute journalctl, which reads what --log-driver journald wrote")
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
            if !self.is_in_time(&line)? {
                continue;
            }
            kept.push_back(line);
            if kept.len() > self.tail {
                kept.pop_front();
            }
        }
        for line in kept {
            if !self.show(&line)? {
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
                if self.is_in_time(&line)? && !self.show(&line)? {
                    return Ok(0);
                }
            }
            if !goes_on || self.until.is_some_and(|until| clock::nanos() > until) {
                return Ok(0);
            }
            watch.read_events()?;
        }
    }

    fn is_in_time(&self, text: &str) -> Result<bool> {
        if self.since.is_none() && self.until.is_none() {
            return Ok(true);
        }
        let line: Line = serde_json::from_str(text).context("log.json")?;
        let time = clock::parse_nanos(&line.time).unwrap_or(0);
        Ok(self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time <= until))
    }

    /// False: who listened has gone.
    fn show(&self, text: &str) -> Result<bool> {
        let line: Line = serde_json::from_str(text).context("log.json")?;
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
