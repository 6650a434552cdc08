//! Where do warnings and the final error go? To stderr, and to `--log FILE` for engines.
//!
//! Two readers decide how the JSON is written. podman parses the *whole* file as one object: a
//! second line before the error loses its message. containerd takes the last object with level
//! `error`. So a failure is exactly one object, written by one write(2); warnings and debug lines
//! that came before it ride inside, under `before`, which both readers skip. Without a failure
//! they are lines of their own. Text is for people: every line is written as it comes.
//!
//! With `--log`, nothing but the final error appears on stderr: engines read stdout and stderr
//! as one, and a warning would spoil the JSON of `state`.

use crate::runtime::clock;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::{Display, Write as _};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Where messages go, and what waits to be written.
#[derive(Debug)]
pub struct Log {
    file: Option<PathBuf>,
    format: Format,
    debug: bool,
    /// JSON waits for the end: only then is it known whether an error follows.
    before: Vec<Line>,
}

/// The one log of this program: what is worth a warning is found deep down, and passing a log
/// there through every signature would say nothing. Never used between clone and exec.
static LOG: Mutex<Log> = Mutex::new(Log::new(None, Format::Text, false));

/// Says where messages go. Before that: to stderr, as text.
pub fn set(log: Log) {
    with(|current| *current = log);
}

/// Makes sure that the log can be written; runc does too, and engines read it after a failure.
pub fn check() -> Result<()> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).check()
}

/// Something that the user should act on, but that stops nothing.
pub fn warn(message: impl Display) {
    with(|log| log.add("warning", message.to_string()));
}

pub fn warn_all(messages: &[String]) {
    messages.iter().for_each(warn);
}

/// One act with its arguments; nothing is formatted without `--debug`.
pub fn debug(message: impl FnOnce() -> String) {
    with(|log| {
        if log.debug {
            log.add("debug", message());
        }
    });
}

/// The end of a verb that worked.
pub fn close() {
    with(Log::close);
}

/// The end of one that did not: the only place that prints an error.
pub fn fail(error: &anyhow::Error) {
    with(|log| log.fail(error));
}

fn with(act: impl FnOnce(&mut Log)) {
    act(&mut LOG.lock().unwrap_or_else(PoisonError::into_inner));
}

/// runc's keys, in runc's order.
#[derive(Debug, Serialize)]
struct Line {
    level: &'static str,
    msg: String,
    time: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<Line>,
}

impl Log {
    /// The file is opened when there is something to write, not before.
    pub const fn new(file: Option<PathBuf>, format: Format, debug: bool) -> Self {
        Log {
            file,
            format,
            debug,
            before: Vec::new(),
        }
    }

    fn close(&mut self) {
        if !self.before.is_empty() {
            let lines = std::mem::take(&mut self.before);
            self.emit(&lines.iter().map(json).collect::<String>());
        }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        let line = Line {
            before: std::mem::take(&mut self.before),
            ..line("error", format!("{error:#}"))
        };
        if self.file.is_some() {
            say(&to_person(&line));
        }
        match self.format {
            Format::Json => self.emit(&json(&line)),
            Format::Text => self.emit_text(&line),
        }
    }

    fn add(&mut self, level: &'static str, message: String) {
        let line = line(level, message);
        match self.format {
            Format::Json => self.before.push(line),
            Format::Text => self.emit_text(&line),
        }
    }

    fn emit_text(&self, line: &Line) {
        match self.file {
            Some(_) => self.emit(&to_file(line)),
            None => say(&to_person(line)),
        }
    }

    /// An error where `--log` cannot be written: better before anything is made than after.
    fn check(&mut self) -> Result<()> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let why = match opened {
            Ok(_) => return Ok(()),
            Err(e) => Err(e).with_context(|| format!("--log {}", path.display())),
        };
        // The error itself goes to stderr alone.
        self.file = None;
        self.format = Format::Text;
        why
    }

    /// Appended with one write(2): verbs of one container share a file.
    fn emit(&self, text: &str) {
        let Some(path) = &self.file else {
            return say(text);
        };
        let file = OpenOptions::new().append(true).create(true).open(path);
        if let Err(e) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            say(&format!("sc-runtime: --log {}: {e}\n", path.display()));
        }
    }
}

/// To stderr; when that is closed, nobody is left to be told.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn line(level: &'static str, msg: String) -> Line {
    Line {
        level,
        msg,
        time: clock::now(),
        before: Vec::new(),
    }
}

fn json(line: &Line) -> String {
    // Strings and lists of them always have a JSON form.
    serde_json::to_string(line).unwrap_or_default() + "\n"
}

/// logfmt, as runc's text log: `time="…" level=error msg="…"`.
fn to_file(line: &Line) -> String {
    format!(
        "time={:?} level={} msg={:?}\n",
        line.time, line.level, line.msg
    )
}

/// `sc-runtime: …` on one line. What config.json or a hook put into the message must not steer
/// a terminal.
fn to_person(line: &Line) -> String {
    let mut text = String::from("sc-runtime: ");
    if line.level != "error" {
        text.push_str(line.level);
        text.push_str(": ");
    }
    for c in line.msg.chars() {
        if c.is_control() {
            // Into a String, which does not refuse.
            let _ = write!(text, "{}", c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    fn at(level: &'static str, msg: &str) -> Line {
        Line {
            level,
            msg: msg.to_owned(),
            time: "2026-11-22T17:10:32Z".to_owned(),
            before: Vec::new(),
        }
    }

    #[test]
    fn a_line_of_json_has_the_keys_of_runc_in_its_order() {
        assert_eq!(
            json(&at("error", "exec: \"x\": not found")),
            "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": not found\",\"time\":\"2026-11-22T17:10:32Z\"}\n"
        );
    }

    #[test]
    fn warnings_ride_inside_the_error() {
        let line = Line {
            before: vec![at("warning", "unknown capability")],
            ..at("error", "no")
        };
        assert_eq!(
            json(&line),
            "{\"level\":\"error\",\"msg\":\"no\",\"time\":\"2026-11-22T17:10:32Z\",\
             \"before\":[{\"level\":\"warning\",\"msg\":\"unknown capability\",\"time\":\"2026-11-22T17:10:32Z\"}]}\n"
        );
    }

    #[test]
    fn text_is_logfmt_in_a_file_and_one_plain_line_for_a_person() {
        let line = at("error", "exec: \"x\"\n\u{1b}[2J");
        assert_eq!(
            to_file(&line),
            "time=\"2026-11-22T17:10:32Z\" level=error msg=\"exec: \\\"x\\\"\\n\\u{1b}[2J\"\n"
        );
        assert_eq!(to_person(&line), "sc-runtime: exec: \"x\"\\n\\u{1b}[2J\n");
        assert_eq!(
            to_person(&at("warning", "careful")),
            "sc-runtime: warning: careful\n"
        );
    }

    #[test]
    fn a_failure_appends_exactly_one_object() {
        let path = std::env::temp_dir().join(format!("sc-log-{}", std::process::id()));
        let log = || Log::new(Some(path.clone()), Format::Json, false);
        log().close();
        assert!(!path.exists(), "nothing to say, nothing opened");
        for _ in 0..2 {
            let mut log = log();
            log.add("warning", "careful".to_owned());
            log.fail(&anyhow!("inner").context("outer"));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["msg"], "outer: inner");
        assert_eq!(lines[1]["level"], "error");
        assert_eq!(lines[1]["before"][0]["msg"], "careful");
    }
}
