//! Which moment is `--since 10m`, `--until 2026-01-31T12:00:00Z`, `1700000000.5`?

use crate::{clock, duration};
use anyhow::{Context, Result};

/// Nanoseconds since 1970. A span is one before now.
pub fn parse(text: &str) -> Result<i64> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    };
    if let Some(nanos) = clock::parse_nanos(&full) {
        return Ok(nanos);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !seconds.is_empty() && digits(seconds) && digits(fraction) && fraction.len() <= 9 {
        let seconds: i64 = seconds.parse()?;
        let nanos: i64 = format!("{fraction:0<9}").parse()?;
        return seconds
            .checked_mul(1_000_000_000)
            .with_context(|| format!("{text} is out of range"))?
            .checked_add(nanos)
            .with_context(|| format!("{text} is out of range"));
    }
    let span = duration::parse(text)
        .ok()
        .and_then(|span| i64::try_from(span.as_nanos()).ok());
    let span = span.with_context(|| {
        format!("{text:?} is no time: write 10m, 2026-01-31T12:00:00Z or seconds since 1970")
    })?;
    Ok(clock::nanos().saturating_sub(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        for (text, expected) in [
            ("1970-01-02", 86_400_000_000_000),
            ("1970-01-01T00:00:01", 1_000_000_000),
            ("1970-01-01T00:00:01.5Z", 1_500_000_000),
            ("1970-01-01T01:00:00+01:00", 0),
            ("7", 7_000_000_000),
            ("7.25", 7_250_000_000),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        let ago = clock::nanos() - parse("10m").unwrap();
        assert!((599_000_000_000..601_000_000_000).contains(&ago));
        for bad in ["", "yesterday", "1.2.3", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
