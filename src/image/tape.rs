//! Which entries are in a tar stream? ustar, GNU and PAX, read with bounds and written.
//!
//! Where the formats contradict one another, we read what Go's archive/tar reads, because docker,
//! podman and containerd do: PAX before ustar, no content after links and directories, global PAX
//! headers without effect. What two readers would read differently (a PAX path and a GNU name for
//! one entry; one zero block in the middle) is an error, not a choice (CVE-2025-62518).

mod pax;
mod write;

pub use write::Writer;

use anyhow::{Context, Result, bail, ensure};
use std::io::BufRead;

/// Bytes of one PAX header or GNU long name: nothing honest comes near it.
const EXTENSION_LIMIT: u64 = 1 << 20;
/// Sparse segments of one file.
const SEGMENT_LIMIT: usize = 1 << 20;
const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    /// A hard link to the entry `link`.
    Link,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// Seconds and nanoseconds since 1970; the nanoseconds count forward also before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

/// One entry, all its headers taken together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub link: Vec<u8>,
    /// Permissions, and set-user-id, set-group-id and sticky: 12 bits.
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Of the file; of a sparse one with its holes.
    pub size: u64,
    pub mtime: Time,
    pub atime: Option<Time>,
    pub major: u64,
    pub minor: u64,
    /// Names without `SCHILY.xattr.`
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content goes in a sparse file: offset and length, ascending.
    pub segments: Option<Vec<(u64, u64)>>,
}

/// Reads a stream entry by entry.
pub struct Tape<R> {
    source: R,
    /// Content of the present entry that was not read, and the padding after it.
    left: u64,
    padding: u64,
}

impl<R: BufRead> Tape<R> {
    pub fn new(source: R) -> Tape<R> {
        Tape {
            source,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry; what was not read of the last one's content is skipped. `None`: the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.left.saturating_add(self.padding))?;
        (self.left, self.padding) = (0, 0);
        let mut extras = pax::Extras::default();
        loop {
            let Some(header) = self.header()? else {
                ensure!(
                    extras.is_empty(),
                    "the stream ends after an extension header"
                );
                return Ok(None);
            };
            let size = header.number(124..136, "size")?;
            match header.0[156] {
                b'x' => extras.add_pax(&self.extension(size)?)?,
                b'g' => drop(self.extension(size)?),
                b'L' => extras.add_name(self.extension(size)?)?,
                b'K' => extras.add_link(self.extension(size)?)?,
                // A volume's label: not a file.
                b'V' => self.skip(padded(size)?)?,
                _ => return self.entry(&header, extras).map(Some),
            }
        }
    }

    /// What is left of the present entry's content, at most as much as is buffered. Empty at its
    /// end. To be followed by [`Tape::consume`].
    pub fn content(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.source.fill_buf()?;
        ensure!(
            !buffer.is_empty(),
            "the stream ends in the middle of a file"
        );
        let n = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        Ok(&buffer[..n])
    }

    pub fn consume(&mut self, n: usize) {
        self.left -= n as u64;
        self.source.consume(n);
    }

    /// Reads to the end of the stream: a layer's digest is over what follows the last entry too.
    pub fn finish(mut self) -> Result<R> {
        loop {
            let n = self.source.fill_buf()?.len();
            if n == 0 {
                return Ok(self.source);
            }
            self.source.consume(n);
        }
    }

    fn entry(&mut self, header: &Header, extras: pax::Extras) -> Result<Entry> {
        let mut entry = header.entry()?;
        let mut stored = header.number(124..136, "size")?;
        let gnu_sparse = header.0[156] == b'S';
        let sparse = extras.apply(&mut entry, &mut stored)?;
        if entry.kind != Kind::File {
            entry.size = 0;
            return Ok(entry);
        }
        entry.size = stored;
        self.left = stored;
        self.padding = padded(stored)? - stored;
        if gnu_sparse {
            let segments = self.gnu_segments(header)?;
            entry.size = header.number(483..495, "size of a sparse file")?;
            entry.segments = Some(segments);
        } else if let Some(sparse) = sparse {
            entry.size = sparse.size;
            entry.segments = Some(match sparse.map {
                Some(map) => map,
                None => self.pax_segments()?,
            });
        }
        if let Some(segments) = &entry.segments {
            check_segments(segments, entry.size, self.left)?;
        }
        Ok(entry)
    }

    /// The next header; `None` at the end. Go reads one zero block and the end of the stream as the
    /// end too.
    fn header(&mut self) -> Result<Option<Header>> {
        let Some(header) = self.block()? else {
            return Ok(None);
        };
        if header.iter().any(|byte| *byte != 0) {
            let header = Header(header);
            header.verify()?;
            return Ok(Some(header));
        }
        match self.block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => {
                bail!("a single block of zeros in the middle of the stream")
            }
            _ => Ok(None),
        }
    }

    /// 512 bytes; `None` when the stream ends before the first of them.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => bail!("the stream ends in the middle of a header"),
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        ensure!(
            size <= EXTENSION_LIMIT,
            "an extension header of {size} bytes (at most {EXTENSION_LIMIT})"
        );
        let mut content = vec![0; size as usize];
        self.source
            .read_exact(&mut content)
            .context("an extension header")?;
        self.skip(padded(size)? - size)?;
        Ok(content)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let have = self.source.fill_buf()?.len();
            ensure!(have > 0, "the stream ends in the middle of a file");
            let n = usize::try_from(bytes).unwrap_or(usize::MAX).min(have);
            self.source.consume(n);
            bytes -= n as u64;
        }
        Ok(())
    }

    /// The old GNU format: four segments in the header, 21 in each block that follows it.
    fn gnu_segments(&mut self, header: &Header) -> Result<Vec<(u64, u64)>> {
        let mut segments = Vec::new();
        let mut more = take_segments(&header.0[386..482], header.0[482], &mut segments)?;
        while more {
            let block = self
                .block()?
                .context("the stream ends in a sparse file's map")?;
            more = take_segments(&block[..504], block[504], &mut segments)?;
            ensure!(
                segments.len() <= SEGMENT_LIMIT,
                "more than {SEGMENT_LIMIT} sparse segments"
            );
        }
        Ok(segments)
    }

    /// PAX 1.0: the map is at the beginning of the content, as lines of decimal numbers.
    fn pax_segments(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut used = 0;
        let count = self.line(&mut used)?;
        ensure!(
            count <= SEGMENT_LIMIT as u64,
            "more than {SEGMENT_LIMIT} sparse segments"
        );
        let mut segments = Vec::new();
        for _ in 0..count {
            segments.push((self.line(&mut used)?, self.line(&mut used)?));
        }
        let rest = (padded(used)? - used).min(self.left);
        self.skip(rest)?;
        self.left -= rest;
        Ok(segments)
    }

    fn line(&mut self, used: &mut u64) -> Result<u64> {
        let mut value: u64 = 0;
        loop {
            let byte = *self
                .content()?
                .first()
                .context("a sparse file's map is cut off")?;
            self.consume(1);
            *used += 1;
            match byte {
                b'\n' => return Ok(value),
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let more = value.checked_mul(10).and_then(|v| v.checked_add(digit));
                    value = more.context("a number too large in a sparse file's map")?;
                }
                _ => bail!("a sparse file's map is not made of numbers"),
            }
        }
    }
}

fn take_segments(fields: &[u8], more: u8, into: &mut Vec<(u64, u64)>) -> Result<bool> {
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            return Ok(false);
        }
        into.push((
            number(&pair[..12], "sparse offset")?,
            number(&pair[12..], "sparse length")?,
        ));
    }
    Ok(more != 0)
}

fn check_segments(segments: &[(u64, u64)], size: u64, stored: u64) -> Result<()> {
    let (mut end, mut sum) = (0, 0_u64);
    for (offset, length) in segments {
        let next = offset
            .checked_add(*length)
            .filter(|next| *next <= size && *offset >= end);
        end = next.context("a sparse file's segments overlap or lie beyond its end")?;
        sum += length;
    }
    ensure!(
        sum == stored,
        "a sparse file's map has {sum} bytes, its content {stored}"
    );
    Ok(())
}

/// With the padding to whole blocks.
fn padded(size: u64) -> Result<u64> {
    let padded = size.checked_next_multiple_of(BLOCK as u64);
    padded
        .filter(|size| *size < 1 << 63)
        .context("a size of 2^63 bytes or more")
}

struct Header([u8; BLOCK]);

impl Header {
    fn verify(&self) -> Result<()> {
        let said = octal(&self.0[148..156]).unwrap_or(u64::MAX);
        let sum = |of: &dyn Fn(u8) -> i64| -> i64 {
            let fields = self.0[..148].iter().chain(&self.0[156..]);
            fields.map(|byte| of(*byte)).sum::<i64>() + 8 * 32
        };
        // Some old writers took bytes for signed.
        let found = [
            sum(&|byte| i64::from(byte)),
            sum(&|byte| i64::from(byte as i8)),
        ];
        ensure!(
            found.iter().any(|sum| u64::try_from(*sum) == Ok(said)),
            "a header with a wrong checksum: not a tar stream, or damaged"
        );
        Ok(())
    }

    fn number(&self, at: std::ops::Range<usize>, what: &str) -> Result<u64> {
        number(&self.0[at], what)
    }

    fn text(&self, at: std::ops::Range<usize>) -> &[u8] {
        let field = &self.0[at];
        let end = field
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(field.len());
        &field[..end]
    }

    fn path(&self) -> Vec<u8> {
        let name = self.text(0..100);
        let posix = &self.0[257..263] == b"ustar\0";
        // star(1) keeps times at the end of the prefix.
        let star = &self.0[508..512] == b"tar\0";
        let prefix = self.text(if star { 345..476 } else { 345..500 });
        if !posix || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn entry(&self) -> Result<Entry> {
        let path = self.path();
        let kind = match self.0[156] {
            b'\0' | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'\0' | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => bail!(
                "entry {:?} is of an unknown type {:?}",
                String::from_utf8_lossy(&path),
                char::from(other)
            ),
        };
        let device = matches!(kind, Kind::Char | Kind::Block);
        let numbered = |at| {
            if device {
                self.number(at, "device")
            } else {
                Ok(0)
            }
        };
        Ok(Entry {
            path,
            kind,
            link: self.text(157..257).to_vec(),
            mode: (self.number(100..108, "mode")? & 0o7777) as u32,
            uid: self.number(108..116, "uid")?,
            gid: self.number(116..124, "gid")?,
            size: 0,
            mtime: Time {
                seconds: signed(&self.0[136..148], "mtime")?,
                nanos: 0,
            },
            atime: None,
            major: numbered(329..337)?,
            minor: numbered(337..345)?,
            xattrs: Vec::new(),
            segments: None,
        })
    }
}

fn number(field: &[u8], what: &str) -> Result<u64> {
    let value = signed(field, what)?;
    u64::try_from(value)
        .ok()
        .with_context(|| format!("{what} is negative"))
}

/// Octal digits, or, with the highest bit set, a big-endian number in two's complement (GNU).
fn signed(field: &[u8], what: &str) -> Result<i64> {
    if field[0] & 0x80 == 0 {
        let value = octal(field).with_context(|| format!("{what} is not an octal number"))?;
        return i64::try_from(value)
            .ok()
            .with_context(|| format!("{what} is 2^63 or more"));
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        // The highest bit is the mark; of a negative number it extends the sign, too.
        let mark = if at == 0 && !negative { 0x80 } else { 0 };
        value = value << 8 | i128::from(byte & !mark);
    }
    i64::try_from(value)
        .ok()
        .with_context(|| format!("{what} is 2^63 or more"))
}

/// Digits between blanks and NULs; none are zero.
fn octal(field: &[u8]) -> Option<u64> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\0');
    let start = field
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(field.len());
    let digits = &field[start..];
    // After the blank or NUL that ends it anything may follow; Go and GNU stop there too.
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end]
        .iter()
        .try_fold(0_u64, |value, digit| match digit {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
            _ => None,
        })
}

#[cfg(test)]
mod tests;
