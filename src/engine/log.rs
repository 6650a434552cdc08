//! Where does output go? To disk in the lines of docker's json-file, `{"log":"…\n","stream":"stdout","time":"…"}`,
//! in files that rotate; to systemd's journal; or nowhere.

use super::record::{LogDriver, Record, short};
use crate::clock;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Longer lines are written in parts, as docker does.
const LONGEST: usize = 16 << 10;

const JOURNAL: &str = "/run/systemd/journal/socket";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Line<'a> {
    #[serde(borrow)]
    pub log: Cow<'a, str>,
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    #[serde(borrow)]
    pub time: Cow<'a, str>,
}

/// stdout and stderr on their way: what has no newline yet waits.
pub struct Log {
    sink: Sink,
    begun: [Vec<u8>; 2],
}

const NAMES: [&str; 2] = ["stdout", "stderr"];

enum Sink {
    Nowhere,
    Files(Files),
    Journal {
        socket: UnixDatagram,
        fields: String,
    },
}

impl Log {
    pub fn open(dir: &Path, record: &Record) -> Result<Log> {
        let sink = match record.log.driver {
            LogDriver::None => Sink::Nowhere,
            LogDriver::JsonFile => Sink::Files(Files::open(
                dir,
                record.log.max_size,
                record.log.max_file.max(1),
            )?),
            LogDriver::Journald => journal(record)?,
        };
        let begun = [Vec::new(), Vec::new()];
        Ok(Log { sink, begun })
    }

    /// Bytes of stdout (0) or stderr (1).
    pub fn take(&mut self, stream: usize, bytes: &[u8]) -> Result<()> {
        if matches!(self.sink, Sink::Nowhere) {
            return Ok(());
        }
        let mut text = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun[stream].extend_from_slice(part);
            if part.ends_with(b"\n") || self.begun[stream].len() >= LONGEST {
                self.line(stream, &mut text)?;
            }
        }
        self.write(&text)
    }

    /// Both streams have ended.
    pub fn end(&mut self) -> Result<()> {
        let mut text = Vec::new();
        for stream in 0..2 {
            if !self.begun[stream].is_empty() {
                self.line(stream, &mut text)?;
            }
        }
        self.write(&text)
    }

    fn line(&mut self, stream: usize, to: &mut Vec<u8>) -> Result<()> {
        let begun = std::mem::take(&mut self.begun[stream]);
        if let Sink::Journal { socket, fields } = &self.sink {
            let sent = socket.send(&entry(fields, stream, &begun));
            return sent.map(drop).context(JOURNAL);
        }
        let line = Line {
            log: String::from_utf8_lossy(&begun),
            stream: NAMES[stream].into(),
            time: clock::now_nanos().into(),
        };
        serde_json::to_writer(&mut *to, &line)?;
        to.push(b'\n');
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> Result<()> {
        match &mut self.sink {
            Sink::Files(files) if !text.is_empty() => files.write(text),
            _ => Ok(()),
        }
    }
}

/// `log.json`, and the older `log.json.1`, `log.json.2`.
struct Files {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
    max_file: u32,
}

/// The file that was rotated away so many times.
pub fn rotated(path: &Path, age: u32) -> PathBuf {
    match age {
        0 => path.to_owned(),
        _ => PathBuf::from(format!("{}.{age}", path.display())),
    }
}

impl Files {
    fn open(dir: &Path, max_size: u64, max_file: u32) -> Result<Files> {
        let path = dir.join("log.json");
        let file = File::options().append(true).create(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        Ok(Files {
            size: file.metadata()?.len(),
            path,
            file,
            max_size,
            max_file,
        })
    }

    fn write(&mut self, text: &[u8]) -> Result<()> {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            if self.max_size > 0 && self.size > 0 && self.size + line.len() as u64 > self.max_size {
                self.rotate()?;
            }
            self.size += line.len() as u64;
            if self.max_size > 0 {
                self.file.write_all(line)?;
            }
        }
        // Without a bound in one go.
        match self.max_size {
            0 => Ok(self.file.write_all(text)?),
            _ => Ok(()),
        }
    }

    fn rotate(&mut self) -> Result<()> {
        for age in (1..self.max_file).rev() {
            let (newer, older) = (rotated(&self.path, age - 1), rotated(&self.path, age));
            match fs::rename(&newer, &older) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).with_context(|| newer.display().to_string());
                }
                _ => {}
            }
        }
        // A reader has it open, and sees that the name is another's now.
        let new = self.path.with_extension("new");
        self.file = File::create(&new)?;
        fs::rename(&new, &self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn journal(record: &Record) -> Result<Sink> {
    let socket = UnixDatagram::unbound()?;
    let there = socket.connect(JOURNAL);
    there.with_context(|| format!("--log-driver journald: connect to {JOURNAL}"))?;
    let id = short(&record.id);
    let fields = format!(
        "SYSLOG_IDENTIFIER={id}\nCONTAINER_ID={id}\nCONTAINER_ID_FULL={}\nCONTAINER_NAME={}\nIMAGE_NAME={}\n",
        record.id,
        record.name,
        record.image.replace('\n', " ")
    );
    Ok(Sink::Journal { socket, fields })
}

/// systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a value with any bytes has its length before it.
fn entry(fields: &str, stream: usize, message: &[u8]) -> Vec<u8> {
    let whole = message.strip_suffix(b"\n");
    let text = whole.unwrap_or(message);
    // LOG_INFO, LOG_ERR
    let mut entry = format!("{fields}PRIORITY={}\n", [6, 3][stream]).into_bytes();
    if whole.is_none() {
        entry.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
    }
    entry.extend_from_slice(b"MESSAGE\n");
    entry.extend_from_slice(&(text.len() as u64).to_le_bytes());
    entry.extend_from_slice(text);
    entry.push(b'\n');
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_journal_has_its_length() {
        assert_eq!(
            entry("A=b\n", 1, b"no end"),
            b"A=b\nPRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n\x06\0\0\0\0\0\0\0no end\n"
        );
        assert_eq!(
            entry("", 0, b"x\n"),
            b"PRIORITY=6\nMESSAGE\n\x01\0\0\0\0\0\0\0x\n"
        );
    }

    #[test]
    fn files_rotate_and_the_oldest_goes() {
        let dir = std::env::temp_dir().join(format!("sc-log-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mut files = Files::open(&dir, 10, 2).unwrap();
        for text in ["first\n", "second\n", "third\n"] {
            files.write(text.as_bytes()).unwrap();
        }
        let read = |age| fs::read_to_string(rotated(&dir.join("log.json"), age)).ok();
        assert_eq!(read(0).as_deref(), Some("third\n"));
        assert_eq!(read(1).as_deref(), Some("second\n"));
        assert_eq!(read(2), None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
