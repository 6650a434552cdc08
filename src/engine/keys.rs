//! Which keys leave a container's terminal? docker's `ctrl-p,ctrl-q`.

use anyhow::{Result, bail};

pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// The bytes of the keys, and how many of them were typed last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    bytes: Vec<u8>,
    typed: usize,
}

impl Keys {
    /// Letters, or `ctrl-` and one of `a-z @ [ \ ] ^ _`, with commas between; empty for none.
    pub fn parse(text: &str) -> Result<Keys> {
        let mut bytes = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            bytes.push(match (key.strip_prefix("ctrl-"), key.as_bytes()) {
                (Some(of), _) => match of.as_bytes() {
                    [letter @ b'a'..=b'z'] => letter - b'a' + 1,
                    [sign @ (b'@' | b'['..=b'_')] => sign - b'@',
                    _ => bail!("--detach-keys {text:?}: no key is called {key:?}"),
                },
                (None, [letter]) => *letter,
                _ => bail!("--detach-keys {text:?}: {key:?} is neither a letter nor ctrl-LETTER"),
            });
        }
        Ok(Keys { bytes, typed: 0 })
    }

    /// What goes on to the container, and whether the last key of the sequence was typed. A beginning of it is
    /// kept back until it is known to be something else.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        if self.bytes.is_empty() {
            return (input.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if *byte != self.bytes[self.typed] {
                passed.extend_from_slice(&self.bytes[..self.typed]);
                self.typed = 0;
            }
            match *byte == self.bytes[self.typed] {
                true => self.typed += 1,
                false => passed.push(*byte),
            }
            if self.typed == self.bytes.len() {
                return (passed, true);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_dockers() {
        for (text, bytes) in [
            (DEFAULT, &[16, 17][..]),
            ("a", b"a"),
            ("ctrl-@,ctrl-_,z", &[0, 31, b'z']),
            ("", &[]),
        ] {
            assert_eq!(Keys::parse(text).unwrap().bytes, bytes, "{text}");
        }
        for bad in ["ctrl-", "ctrl-A", "ab", "a,,b"] {
            assert!(Keys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sequence_detaches_wherever_reads_end() {
        let mut keys = Keys::parse(DEFAULT).unwrap();
        assert_eq!(keys.filter(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(keys.filter(b"x\x10"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.filter(b"\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (Vec::new(), true));
        let mut none = Keys::parse("").unwrap();
        assert_eq!(none.filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
