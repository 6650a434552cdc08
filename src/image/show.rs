//! How does sc-image show a result? As all programs here do, and with warnings of its own.

pub use crate::show::*;
use std::io::Write;

/// A line on stderr that the user should act on.
pub fn warn(message: impl std::fmt::Display) {
    let line = format!("sc-image: warning: {}\n", printable(&message.to_string()));
    // When stderr is closed, nobody is left to be told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
