//! `logs`: what a container said, stdout and stderr kept apart.

use crate::engine::cli::Global;
use crate::engine::log::Line;
use crate::engine::record::Home;
use anyhow::{Context, Result};
use clap::Args;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};

/// Print what a container said
#[derive(Debug, Args)]
pub struct Logs {
    /// And what it will say, until it ends
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all")]
    tail: String,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Name, id or beginning of the id
    container: String,
}

impl Logs {
    pub fn run(&self, global: &Global) -> Result<u8> {
        let tail = match self.tail.as_str() {
            "all" => usize::MAX,
            number => number
                .parse()
                .with_context(|| format!("--tail {number}: not a number"))?,
        };
        let home = global.home()?;
        let record = home.find(&self.container)?;
        let path = home.dir(&record.id).join("log.json");
        let mut log =
            BufReader::new(File::open(&path).with_context(|| path.display().to_string())?);
        // Watched before it is read: nothing falls between.
        let watch = Inotify::init(InitFlags::IN_CLOEXEC)?;
        watch.add_watch(
            &path,
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE,
        )?;
        let mut kept = VecDeque::new();
        let mut text = String::new();
        while next(&mut log, &mut text)? {
            kept.push_back(std::mem::take(&mut text));
            if kept.len() > tail {
                kept.pop_front();
            }
        }
        for line in kept {
            if !self.show(&line)? {
                return Ok(0);
            }
        }
        if !self.follow {
            return Ok(0);
        }
        loop {
            let goes_on = is_written(&home, &record.id);
            while next(&mut log, &mut text)? {
                if !self.show(&std::mem::take(&mut text))? {
                    return Ok(0);
                }
            }
            if !goes_on {
                return Ok(0);
            }
            watch.read_events()?;
        }
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

/// One whole line; what is being written waits in `text`.
fn next(log: &mut BufReader<File>, text: &mut String) -> Result<bool> {
    log.read_line(text)?;
    Ok(text.ends_with('\n'))
}

/// Does a monitor live? Its end closes the log, which wakes the reader.
fn is_written(home: &Home, id: &str) -> bool {
    matches!(home.try_monitor(id), Ok(None))
}
