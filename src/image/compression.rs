//! How is a layer compressed? Told by its first bytes, not by its media type: builders lie.
//!
//! gzip (also of several members), zstd (also of several frames; zstd:chunked is zstd with frames to
//! skip) and plain tar. bzip2 and xz are refused: image-spec has never had them.

use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, BufRead, Read, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A zstd stream may ask for a window of up to 128 MiB (`zstd --long`), no more.
const ZSTD_WINDOW_LOG: u32 = 27;

impl Compression {
    /// By the first bytes; an empty stream is plain.
    pub fn of(first: &[u8]) -> Result<Compression> {
        Ok(match first {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A frame to skip: of zstd, when a frame of content follows.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', ..] => {
                bail!("compressed with bzip2 (gzip, zstd and none are known)")
            }
            [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                bail!("compressed with xz (gzip, zstd and none are known)")
            }
            _ => Compression::None,
        })
    }
}

/// What is in a compressed stream.
pub fn decode<'a>(mut source: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match Compression::of(source.fill_buf()?)? {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(MultiGzDecoder::new(source)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(source).context("zstd")?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).context("zstd")?;
            Box::new(decoder)
        }
    })
}

/// A stream that compresses what is written into `to`.
pub enum Encoder<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub fn new(how: Compression, to: W) -> Result<Encoder<W>> {
        Ok(match how {
            Compression::None => Encoder::None(to),
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(to, flate2::Compression::default())),
            Compression::Zstd => Encoder::Zstd(zstd::Encoder::new(to, 3).context("zstd")?),
        })
    }

    /// Writes the end of the stream, and gives back where it went.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::None(to) => Ok(to),
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(to) => to.write(content),
            Encoder::Gzip(encoder) => encoder.write(content),
            Encoder::Zstd(encoder) => encoder.write(content),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::None(to) => to.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(how: Compression, content: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new(how, Vec::new()).unwrap();
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(content: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decode(content)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for how in [Compression::None, Compression::Gzip, Compression::Zstd] {
            for content in [&b""[..], b"a", &vec![7; 1 << 20]] {
                assert_eq!(decoded(&encoded(how, content)).unwrap(), content, "{how:?}");
            }
        }
    }

    #[test]
    fn members_and_frames_may_follow_one_another() {
        for how in [Compression::Gzip, Compression::Zstd] {
            let twice = [encoded(how, b"one "), encoded(how, b"two")].concat();
            assert_eq!(decoded(&twice).unwrap(), b"one two", "{how:?}");
        }
        // zstd:chunked ends in a frame to skip.
        let skip = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0][..], b"xy"].concat();
        let chunked = [encoded(Compression::Zstd, b"one"), skip].concat();
        assert_eq!(decoded(&chunked).unwrap(), b"one");
    }

    #[test]
    fn what_is_cut_off_or_followed_by_garbage_is_an_error() {
        for how in [Compression::Gzip, Compression::Zstd] {
            let whole = encoded(how, &[7; 1000]);
            for cut in [3, 5, 12, whole.len() - 1] {
                assert!(decoded(&whole[..cut]).is_err() || cut < 4, "{how:?} {cut}");
            }
            assert!(
                decoded(&[whole, b"garbage".to_vec()].concat()).is_err(),
                "{how:?}"
            );
        }
        assert!(decoded(b"BZh91AY").is_err());
        assert!(decoded(b"\xfd7zXZ\0").is_err());
    }
}
