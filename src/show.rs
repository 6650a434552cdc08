//! How is a result shown? Tables for people, JSON for programs; sizes and ages in words.

use crate::clock;
use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::Write;

/// What came from an image or a registry must not steer a terminal.
pub fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Decimal units and three digits, as docker shows sizes: `4.27MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text.as_str(),
    };
    format!("{text}{}", UNITS[unit])
}

/// `3 hours ago`, from an RFC 3339 time; the text itself where it is none.
pub fn age(created: Option<&str>) -> String {
    let Some(created) = created else {
        return "N/A".to_owned();
    };
    match clock::parse(created) {
        Some(then) => format!(
            "{} ago",
            span(u64::try_from(clock::seconds() - then).unwrap_or(0))
        ),
        None => printable(created),
    }
}

/// Docker's words for a time span of so many seconds.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0 => "less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "about a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..7200 => "about an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if days < 14 => format!("{days} days"),
        _ if days < 60 => format!("{} weeks", days / 7),
        _ if days < 730 => format!("{} months", days / 30),
        _ => format!("{} years", days / 365),
    }
}

/// Columns padded to their widest cell, three spaces between, no blanks at a line's end.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut whole = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            whole += &format!("{cell:<width$}   ");
        }
        text.push_str(whole.trim_end());
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// [`print`], with the end of the line.
pub fn line(text: impl Display) -> Result<()> {
    print(&format!("{text}\n"))
}

/// To stdout, which println! would panic about. A reader that has gone (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to stdout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_270_000, "4.27MB"),
            (168_600_000, "169MB"),
            (999_999_999, "1GB"),
            (u64::MAX, "18447PB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn spans_are_in_dockers_words() {
        for (seconds, expected) in [
            (0, "less than a second"),
            (59, "59 seconds"),
            (61, "about a minute"),
            (3599, "59 minutes"),
            (7199, "about an hour"),
            (86400, "24 hours"),
            (86400 * 3, "3 days"),
            (86400 * 30, "4 weeks"),
            (86400 * 90, "3 months"),
            (86400 * 800, "2 years"),
        ] {
            assert_eq!(span(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows = [
            vec!["busybox".into(), "x".into()],
            vec!["é".into(), "y".into()],
        ];
        assert_eq!(
            table(&["NAME", "ID"], &rows),
            "NAME      ID\nbusybox   x\né         y\n"
        );
    }

    #[test]
    fn an_escape_sequence_is_shown_not_obeyed() {
        assert_eq!(printable("a\x1b[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
