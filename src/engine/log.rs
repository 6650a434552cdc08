//! Output on disk, in the lines of docker's json-file: `{"log":"…\n","stream":"stdout","time":"…"}`.

use crate::clock;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;

/// Longer lines are written in parts, as docker does.
const LONGEST: usize = 16 << 10;

#[derive(Debug, Serialize, Deserialize)]
pub struct Line<'a> {
    #[serde(borrow)]
    pub log: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub time: std::borrow::Cow<'a, str>,
}

/// One stream on its way into the file: what has no newline yet waits.
pub struct Stream {
    name: &'static str,
    begun: Vec<u8>,
}

impl Stream {
    pub fn new(name: &'static str) -> Stream {
        let begun = Vec::new();
        Stream { name, begun }
    }

    pub fn take(&mut self, bytes: &[u8], file: &mut File) -> Result<()> {
        let mut text = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") || self.begun.len() >= LONGEST {
                self.line(&mut text)?;
            }
        }
        Ok(file.write_all(&text)?)
    }

    /// The stream has ended.
    pub fn end(&mut self, file: &mut File) -> Result<()> {
        let mut text = Vec::new();
        if !self.begun.is_empty() {
            self.line(&mut text)?;
        }
        Ok(file.write_all(&text)?)
    }

    fn line(&mut self, to: &mut Vec<u8>) -> Result<()> {
        let line = Line {
            log: String::from_utf8_lossy(&self.begun),
            stream: self.name.into(),
            time: clock::now_nanos().into(),
        };
        serde_json::to_writer(&mut *to, &line)?;
        to.push(b'\n');
        self.begun.clear();
        Ok(())
    }
}
