//! How is an entry written? As ustar, with a PAX header for what ustar cannot say: what every reader
//! reads, and the same bytes each time.

use super::{BLOCK, Entry, Kind};
use anyhow::{Result, ensure};
use std::io::{Read, Write};

/// Writes a stream entry by entry.
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Writer<W> {
        Writer { to }
    }

    /// Writes an entry, and `entry.size` bytes of `content` when it is a file.
    pub fn put(&mut self, entry: &Entry, mut content: impl Read) -> Result<()> {
        let records = extension(entry);
        if !records.is_empty() {
            let mut header = header(b"PaxHeaders/0", b'x', records.len() as u64);
            seal(&mut header);
            self.to.write_all(&header)?;
            self.to.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.to.write_all(&header_of(entry))?;
        if entry.kind == Kind::File {
            let copied = std::io::copy(&mut (&mut content).take(entry.size), &mut self.to)?;
            ensure!(
                copied == entry.size,
                "{copied} bytes instead of {}",
                entry.size
            );
            self.pad(entry.size)?;
        }
        Ok(())
    }

    /// A file with mode 0644 of root's, without a date: for documents of an archive.
    pub fn put_file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.put(&Entry::file(path, content.len() as u64), content)
    }

    /// Two blocks of zeros, and gives back where the stream went.
    pub fn finish(mut self) -> Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            self.to.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

impl Entry {
    /// A plain file of root's, 0644, dated 1970.
    pub fn file(path: &str, size: u64) -> Entry {
        Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File,
            link: Vec::new(),
            mode: 0o644,
            uid: 0,
            gid: 0,
            size,
            mtime: Default::default(),
            atime: None,
            major: 0,
            minor: 0,
            xattrs: Vec::new(),
            segments: None,
        }
    }
}

fn header(name: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    put_text(&mut header[..100], name);
    put_number(&mut header[100..108], 0o644);
    put_number(&mut header[108..116], 0);
    put_number(&mut header[116..124], 0);
    put_number(&mut header[124..136], size);
    put_number(&mut header[136..148], 0);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header
}

fn header_of(entry: &Entry) -> [u8; BLOCK] {
    let kind = match entry.kind {
        Kind::File => b'0',
        Kind::Link => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    let size = if entry.kind == Kind::File {
        entry.size
    } else {
        0
    };
    let mut header = header(&entry.path, kind, size);
    put_number(&mut header[100..108], u64::from(entry.mode));
    put_number(&mut header[108..116], entry.uid);
    put_number(&mut header[116..124], entry.gid);
    put_number(
        &mut header[136..148],
        u64::try_from(entry.mtime.seconds).unwrap_or(0),
    );
    put_text(&mut header[157..257], &entry.link);
    put_number(&mut header[329..337], entry.major);
    put_number(&mut header[337..345], entry.minor);
    seal(&mut header);
    header
}

/// As much as fits; the PAX header has it whole.
fn put_text(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
}

/// Octal digits to the field's end but one; what does not fit is in the PAX header.
fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = if fits(value, digits) { value } else { 0 };
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
}

fn fits(value: u64, digits: usize) -> bool {
    value < 1_u64 << (3 * digits)
}

fn seal(header: &mut [u8; BLOCK]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The PAX records that this entry needs.
fn extension(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut records, key, value);
    if entry.path.len() > 100 {
        add(b"path", &entry.path);
    }
    if entry.link.len() > 100 {
        add(b"linkpath", &entry.link);
    }
    for (key, value, digits) in [
        ("uid", entry.uid, 7),
        ("gid", entry.gid, 7),
        ("size", entry.size, 11),
    ] {
        if !fits(value, digits) {
            add(key.as_bytes(), value.to_string().as_bytes());
        }
    }
    let time = entry.mtime;
    if time.nanos != 0 || time.seconds < 0 || !fits(time.seconds as u64, 11) {
        add(b"mtime", decimal(time).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn decimal(time: super::Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => (
            "-",
            (time.seconds + 1).unsigned_abs(),
            1_000_000_000 - nanos,
        ),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    match nanos {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{nanos:09}"),
    }
}

/// `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(into: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(length.to_string().as_bytes());
    into.push(b' ');
    into.extend_from_slice(key);
    into.push(b'=');
    into.extend_from_slice(value);
    into.push(b'\n');
}
