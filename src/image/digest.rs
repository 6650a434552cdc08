//! What is a digest, and is this content what its digest says?
//!
//! image-spec descriptor.md#digests. sha256 only: no registry gives out anything else, and one
//! algorithm leaves no room for a mix-up. A [`Digest`] is always well formed, so it may become a
//! file name (CVE-2024-3727 was a digest string used as a path).

use anyhow::{Result, bail};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(content: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(content);
        hasher.finish()
    }

    /// The 64 digits: the blob's name in `blobs/sha256/`.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(DIGITS[usize::from(byte >> 4)] as char);
            text.push(DIGITS[usize::from(byte & 15)] as char);
        }
        text
    }

    /// The first 12 digits, as lists show an ID.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    pub fn from_hex(hex: &str) -> Result<Digest> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            bail!("{hex:?} is not 64 hexadecimal digits");
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let value = |digit: u8| match digit {
                b'0'..=b'9' => Ok(digit - b'0'),
                b'a'..=b'f' => Ok(digit - b'a' + 10),
                _ => bail!("{hex:?} is not 64 lower-case hexadecimal digits"),
            };
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Digest(bytes))
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Digest> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Digest::from_hex(hex),
            Some((other, _)) => bail!("digest {text:?}: algorithm {other:?} is not known (sha256)"),
            None => bail!("{text:?} is not a digest (sha256:…)"),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    pub fn new() -> Hasher {
        Hasher::default()
    }

    pub fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_shown_as_it_is_parsed() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn only_well_formed_digests_are_taken() {
        for (text, why) in [
            ("", r#""" is not a digest (sha256:…)"#),
            ("sha256:aa", r#""aa" is not 64 hexadecimal digits"#),
            (
                "sha256:../../../../../../../../../../../../../../../../../etc/passwd/xx",
                r#""../../../../../../../../../../../../../../../../../etc/passwd/xx" is not 64 lower-case hexadecimal digits"#,
            ),
            (
                "md5:d41d8cd98f00b204e9800998ecf8427e",
                r#"digest "md5:d41d8cd98f00b204e9800998ecf8427e": algorithm "md5" is not known (sha256)"#,
            ),
        ] {
            assert_eq!(format!("{:#}", text.parse::<Digest>().unwrap_err()), why);
        }
        assert!(
            EMPTY
                .to_uppercase()
                .replace("SHA", "sha")
                .parse::<Digest>()
                .is_err()
        );
    }
}
