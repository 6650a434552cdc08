//! What do a PAX header and GNU's long names change in the entry after them? pax(1), star(5), and
//! GNU tar's manual, "Storing Sparse Files".

use super::{Entry, Time};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

/// The headers before an entry.
#[derive(Default)]
pub struct Extras {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

#[derive(Default)]
struct Pax {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `.numbytes` of format 0.0, which repeats keys.
    pairs: Vec<u64>,
}

/// A file with holes, by PAX.
pub struct Sparse {
    pub size: u64,
    /// `None`: at the beginning of the content (1.0).
    pub map: Option<Vec<(u64, u64)>>,
}

impl Extras {
    pub fn is_empty(&self) -> bool {
        self.pax.is_none() && self.name.is_none() && self.link.is_none()
    }

    pub fn add_name(&mut self, content: Vec<u8>) -> Result<()> {
        ensure!(self.name.is_none(), "two GNU long names for one entry");
        self.name = Some(until_nul(content));
        Ok(())
    }

    pub fn add_link(&mut self, content: Vec<u8>) -> Result<()> {
        ensure!(self.link.is_none(), "two GNU long link names for one entry");
        self.link = Some(until_nul(content));
        Ok(())
    }

    pub fn add_pax(&mut self, content: &[u8]) -> Result<()> {
        ensure!(self.pax.is_none(), "two PAX headers for one entry");
        self.pax = Some(Pax::parse(content)?);
        Ok(())
    }

    /// Puts what the headers say into the entry, and the size of its content into `stored`.
    pub fn apply(self, entry: &mut Entry, stored: &mut u64) -> Result<Option<Sparse>> {
        let mut pax = self.pax.unwrap_or_default();
        for (gnu, key, into) in [
            (self.name, &b"path"[..], &mut entry.path),
            (self.link, b"linkpath", &mut entry.link),
        ] {
            *into = match (gnu, pax.take(key)) {
                (Some(_), Some(_)) => bail!("a PAX name and a GNU long name for one entry"),
                (Some(name), None) | (None, Some(name)) => name,
                (None, None) => continue,
            };
        }
        let sparse = pax.sparse(entry)?;
        if let Some(size) = pax.number("size")? {
            *stored = size;
        }
        if let Some(uid) = pax.number("uid")? {
            entry.uid = uid;
        }
        if let Some(gid) = pax.number("gid")? {
            entry.gid = gid;
        }
        if let Some(mtime) = pax.time("mtime")? {
            entry.mtime = mtime;
        }
        entry.atime = pax.time("atime")?;
        for (key, value) in pax.records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.push((name.to_vec(), value));
            }
        }
        Ok(sparse)
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

impl Pax {
    /// Records `LENGTH KEY=VALUE\n`, where LENGTH counts all of it.
    fn parse(mut rest: &[u8]) -> Result<Pax> {
        let mut pax = Pax::default();
        while !rest.is_empty() {
            let (record, after) = record(rest).context("a malformed PAX header")?;
            rest = after;
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.context("a malformed PAX header")?);
            let value = &value[1..];
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                pax.pairs
                    .push(decimal(value).context("a malformed sparse map")?);
            } else if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
                // An empty value takes back what was said before.
                pax.records.remove(key);
            } else {
                pax.records.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.records.remove(key)
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.take(key.as_bytes()) else {
            return Ok(None);
        };
        let number = decimal(&value).filter(|number| *number < 1 << 63);
        Ok(Some(number.with_context(|| {
            format!("PAX {key} {:?}", String::from_utf8_lossy(&value))
        })?))
    }

    fn time(&mut self, key: &str) -> Result<Option<Time>> {
        let Some(value) = self.take(key.as_bytes()) else {
            return Ok(None);
        };
        let time = time(&value);
        Ok(Some(time.with_context(|| {
            format!("PAX {key} {:?}", String::from_utf8_lossy(&value))
        })?))
    }

    fn sparse(&mut self, entry: &mut Entry) -> Result<Option<Sparse>> {
        let name = self.take(b"GNU.sparse.name");
        let size = match self.number("GNU.sparse.realsize")? {
            Some(size) => Some(size),
            None => self.number("GNU.sparse.size")?,
        };
        let major = self.number("GNU.sparse.major")?;
        let minor = self.number("GNU.sparse.minor")?;
        let map = self.take(b"GNU.sparse.map");
        let old = map.is_some() || !self.pairs.is_empty();
        if !old && major.is_none() {
            return Ok(None);
        }
        if let Some(name) = name {
            entry.path = name;
        }
        let size = size.context("a sparse file without its size")?;
        if !old {
            ensure!(
                (major, minor.unwrap_or(0)) == (Some(1), 0),
                "a sparse file of an unknown PAX format"
            );
            return Ok(Some(Sparse { size, map: None }));
        }
        let numbers = match map {
            Some(map) => {
                let numbers = map.split(|byte| *byte == b',').map(decimal);
                numbers
                    .collect::<Option<Vec<u64>>>()
                    .context("a malformed sparse map")?
            }
            None => std::mem::take(&mut self.pairs),
        };
        ensure!(numbers.len().is_multiple_of(2), "a malformed sparse map");
        let map = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Some(Sparse {
            size,
            map: Some(map),
        }))
    }
}

/// The first record without its length and its newline, and what follows it.
fn record(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&text[..blank])?).ok()?;
    let record = text.get(blank + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &text[length..]))
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// `-1.5` is half a second before -1; digits beyond nanoseconds are dropped.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let point = text
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..point])?).ok()?;
    let fraction = text.get(point + 1..).unwrap_or_default();
    let mut nanos = 0;
    for at in 0..9 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        nanos = nanos * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}
