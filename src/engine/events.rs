//! What has happened? One file below the root, a line of JSON for each change of state, in docker's form.
//!
//! Whoever makes a change appends its line in one write(2), so that lines of many processes stay whole. When it is
//! long, it becomes `events.old`, once, under its flock.

use super::record::{Home, Record};
use crate::clock;
use crate::sys::file;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Two of this size are kept.
const LONGEST: u64 = 4 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `network`, `volume`, `image`
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    pub fn new(kind: &str, action: &str, id: &str) -> Event {
        let time_nano = clock::nanos();
        Event {
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: Actor {
                id: id.to_owned(),
                attributes: BTreeMap::new(),
            },
            scope: "local".to_owned(),
            time: time_nano / 1_000_000_000,
            time_nano,
        }
    }

    /// Of a container, with its labels, image and name.
    pub fn of(record: &Record, action: &str) -> Event {
        let mut event = Event::new("container", action, &record.id);
        event.actor.attributes = record.labels.clone();
        event
            .with("image", &record.image)
            .with("name", &record.name)
    }

    pub fn with(mut self, key: &str, value: impl ToString) -> Event {
        let attributes = &mut self.actor.attributes;
        attributes.insert(key.to_owned(), value.to_string());
        self
    }
}

pub fn path(home: &Home) -> PathBuf {
    home.root.join("events")
}

pub fn old_path(home: &Home) -> PathBuf {
    home.root.join("events.old")
}

/// Writes it down. What happened has happened: that it cannot be told (a full disk) must not undo it.
pub fn tell(home: &Home, event: &Event) {
    let _ = append(home, event);
}

fn append(home: &Home, event: &Event) -> Result<()> {
    let path = path(home);
    let mut file = File::options().append(true).create(true).open(&path)?;
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    file.write_all(&line)?;
    if file.metadata()?.len() > LONGEST {
        file::lock(file.as_fd())?;
        // Another may have been faster: then this name is a new file's.
        if fs::metadata(&path)?.ino() == file.metadata()?.ino() {
            fs::rename(&path, old_path(home))?;
        }
    }
    Ok(())
}

/// All that is still known, oldest first. A line that is being written is left out.
pub fn past(home: &Home) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    for path in [old_path(home), path(home)] {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        events.extend(
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok()),
        );
    }
    Ok(events)
}
