//! What has a container said, by systemd's journal? journalctl(1) is asked, and its JSON lines
//! (systemd.io/JOURNAL_EXPORT_FORMATS) become the lines of a log.

use super::log::Line;
use crate::clock;
use crate::sys::pidfd;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What is asked for.
#[derive(Debug, Default, Clone)]
pub struct Query<'a> {
    /// The container's id in full.
    pub id: &'a str,
    /// Only so many of the last entries; not together with a time, which journalctl 252 (2022) counts from.
    pub last: Option<usize>,
    /// Nanoseconds since 1970; what came up to a second earlier may be among it.
    pub since: Option<i64>,
    /// Only what comes after this entry; then `since` counts no more.
    pub after: Option<String>,
    /// Do not end.
    pub follow: bool,
}

/// One line, and where in the journal it is.
#[derive(Debug, PartialEq)]
pub struct Entry {
    pub cursor: String,
    pub line: Line<'static>,
}

/// A journalctl at work.
pub struct Journal {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Journal {
    pub fn ask(query: &Query) -> Result<Journal> {
        let mut child = Command::new("journalctl")
            .args(words(query))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("execute journalctl, which reads what --log-driver journald wrote")?;
        let out = child.stdout.take().context("journalctl has no stdout")?;
        let out = BufReader::new(out);
        Ok(Journal { child, out })
    }

    /// What another thread needs to end it.
    pub fn process(&self) -> Result<OwnedFd> {
        Ok(pidfd::open(self.child.id() as i32)?)
    }

    /// `None`: there are no more. A line that was being written when it was killed is none.
    pub fn entry(&mut self) -> Result<Option<Entry>> {
        let mut text = String::new();
        self.out.read_line(&mut text).context("journalctl")?;
        match text.ends_with('\n') {
            true => Ok(Some(parse(&text)?)),
            false => Ok(None),
        }
    }

    /// After the last one. It has said on stderr why it failed; killed by us it has not.
    pub fn end(mut self) -> Result<()> {
        let status = self.child.wait().context("journalctl")?;
        let failed = status.code().is_some_and(|code| code != 0);
        ensure!(!failed, "journalctl: {status}");
        Ok(())
    }
}

/// Ends a journalctl that follows; it may have ended.
pub fn stop(process: &OwnedFd) {
    let _ = pidfd::send_signal(process.as_fd(), libc::SIGKILL);
}

/// Waits until the journal has taken in all that was sent to it: only root may ask for that, so for others the last
/// lines of a container that ended a moment ago may be missing.
pub fn sync() {
    let mut command = Command::new("journalctl");
    command.arg("--sync").stdin(Stdio::null());
    // Where this fails, reading will say why.
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn words(query: &Query) -> Vec<String> {
    let mut words = vec![
        "--quiet".to_owned(),
        // Long fields in full.
        "--all".to_owned(),
        "--output=json".to_owned(),
        match query.last {
            Some(last) => format!("--lines={last}"),
            None => "--lines=all".to_owned(),
        },
    ];
    words.extend(query.follow.then(|| "--follow".to_owned()));
    match (&query.after, query.since) {
        (Some(cursor), _) => words.push(format!("--after-cursor={cursor}")),
        (None, Some(since)) => words.push(format!("--since=@{}", since / 1_000_000_000)),
        (None, None) => {}
    }
    words.push(format!("CONTAINER_ID_FULL={}", query.id));
    words
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    /// Microseconds since 1970.
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: String,
    #[serde(rename = "PRIORITY", default)]
    priority: String,
    #[serde(rename = "MESSAGE")]
    message: Option<Message>,
    #[serde(rename = "CONTAINER_PARTIAL_MESSAGE")]
    partial: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    /// What is not text, or would steer a terminal.
    Bytes(Vec<u8>),
}

fn parse(text: &str) -> Result<Entry> {
    let raw: Raw = serde_json::from_str(text).context("what journalctl says")?;
    let mut log = match raw.message {
        Some(Message::Text(text)) => text,
        Some(Message::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        None => String::new(),
    };
    if raw.partial.is_none() {
        log.push('\n');
    }
    let micros: i64 = raw.time.parse().context("what journalctl says: time")?;
    let stream = match raw.priority.as_str() {
        "3" => "stderr",
        _ => "stdout",
    };
    let line = Line {
        log: log.into(),
        stream: stream.into(),
        time: clock::text(micros.saturating_mul(1000)).into(),
    };
    Ok(Entry {
        cursor: raw.cursor,
        line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journalctl_is_asked_for_one_container() {
        let all = Query {
            id: "abc",
            ..Query::default()
        };
        let some = Query {
            since: Some(1_500_900_001_000),
            follow: true,
            ..all.clone()
        };
        let after = Query {
            after: Some("s=1;i=2".to_owned()),
            last: Some(3),
            ..some.clone()
        };
        let common = "--quiet --all --output=json";
        for (query, expected) in [
            (all, "--lines=all CONTAINER_ID_FULL=abc"),
            (
                some,
                "--lines=all --follow --since=@1500 CONTAINER_ID_FULL=abc",
            ),
            (
                after,
                "--lines=3 --follow --after-cursor=s=1;i=2 CONTAINER_ID_FULL=abc",
            ),
        ] {
            assert_eq!(words(&query).join(" "), format!("{common} {expected}"));
        }
    }

    #[test]
    fn an_entry_becomes_a_line() {
        for (fields, log, stream) in [
            (r#""MESSAGE":"hello","PRIORITY":"6""#, "hello\n", "stdout"),
            (
                r#""MESSAGE":[27,91,109],"PRIORITY":"3""#,
                "\x1b[m\n",
                "stderr",
            ),
            (
                r#""MESSAGE":"half","PRIORITY":"6","CONTAINER_PARTIAL_MESSAGE":"true""#,
                "half",
                "stdout",
            ),
            (r#""PRIORITY":"6""#, "\n", "stdout"),
        ] {
            let text = format!(r#"{{"__CURSOR":"c","__REALTIME_TIMESTAMP":"1500000",{fields}}}"#);
            let line = Line {
                log: log.into(),
                stream: stream.into(),
                time: "1970-01-01T00:00:01.5Z".into(),
            };
            let cursor = "c".to_owned();
            assert_eq!(parse(&text).unwrap(), Entry { cursor, line });
        }
        assert!(parse("{}").is_err());
    }
}
