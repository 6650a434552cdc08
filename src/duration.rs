//! How long is `1h2m3.5s`? The syntax of Go's durations (package time, ParseDuration), in which
//! engines type `--interval`.

use anyhow::{Context, Result};
use std::time::Duration;

/// One or more numbers, perhaps with decimals, each with a unit: `ns us µs ms s m h`. `0` needs none.
/// A negative one is legal there, and nobody here has a use for it: it is an error.
pub fn parse(text: &str) -> Result<Duration> {
    let wrong =
        || format!("invalid duration {text:?}: give a number with a unit, like 500ms, 5s or 1m30s");
    let nanos = nanos(text.strip_prefix('+').unwrap_or(text)).with_context(wrong)?;
    Ok(Duration::from_nanos(nanos))
}

fn nanos(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut sum = 0u64;
    while !rest.is_empty() {
        let number;
        (number, rest) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let unit;
        (unit, rest) = split(rest, |c| !c.is_ascii_digit() && c != '.');
        sum = sum.checked_add(times(number, unit_nanos(unit)?)?)?;
    }
    // Go counts in an i64.
    (!text.is_empty() && i64::try_from(sum).is_ok()).then_some(sum)
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // Both the micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let plain = part.bytes().all(|b| b.is_ascii_digit());
    if !plain || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let part: f64 = format!("0.{part}0").parse().ok()?;
    whole
        .checked_mul(unit)?
        .checked_add((part * unit as f64).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("500ms", 500_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h2m3s", 3_723_000_000_000),
            ("1m0.25s", 60_250_000_000),
            ("7ns", 7),
            ("3us", 3_000),
            ("3µs", 3_000),
            ("3μs", 3_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_nanos(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "10",
            "foo",
            "s",
            ".s",
            "5 s",
            "5x",
            "-5s",
            "1s2",
            "1..2s",
            "5S",
            "3000000h",
            "99999999999999999999s",
        ] {
            assert_eq!(
                parse(text).unwrap_err().to_string(),
                format!(
                    "invalid duration {text:?}: give a number with a unit, like 500ms, 5s or 1m30s"
                )
            );
        }
    }
}
