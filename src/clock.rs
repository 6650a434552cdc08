//! What time is it, in RFC 3339? UTC from the system's clock; no time zone, no locale.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, to the second: `2026-11-22T17:10:32Z`.
pub fn now() -> String {
    rfc3339(since_epoch().0, 0)
}

/// Now, to the nanosecond, trailing zeros left out as Go does: `2026-11-22T17:11:01.601975232Z`.
pub fn now_nanos() -> String {
    let (seconds, nanos) = since_epoch();
    rfc3339(seconds, nanos)
}

/// Now, in seconds since 1970.
pub fn seconds() -> i64 {
    i64::try_from(since_epoch().0).unwrap_or(i64::MAX)
}

/// Now, in nanoseconds since 1970.
pub fn nanos() -> i64 {
    let (seconds, nanos) = since_epoch();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 1_000_000_000);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(nanos))
}

/// The time of that many nanoseconds since 1970, as [`now_nanos`] writes it.
pub fn text(nanos: i64) -> String {
    let nanos = nanos.max(0) as u64;
    rfc3339(nanos / 1_000_000_000, (nanos % 1_000_000_000) as u32)
}

/// The nanoseconds since 1970 of an RFC 3339 time.
pub fn parse_nanos(text: &str) -> Option<i64> {
    let seconds = parse(text)?;
    let fraction = text.get(19..)?.strip_prefix('.').unwrap_or_default();
    let digits: String = fraction
        .chars()
        .take_while(char::is_ascii_digit)
        .take(9)
        .collect();
    let nanos: i64 = format!("{digits:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// The seconds since 1970 of an RFC 3339 time, fractions dropped; `None` when it is not one.
pub fn parse(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let marks = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    let placed = marks
        .iter()
        .all(|(at, mark)| text.get(*at..=*at) == Some(mark));
    if !placed || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone = text
        .get(19..)?
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone {
        "Z" | "z" => 0,
        _ if zone.len() == 6 => {
            let east = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = (zone.get(1..3)?, zone.get(4..6)?);
            east * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
        }
        _ => return None,
    };
    Some(days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset)
}

/// Days from 1970-01-01 to a Gregorian date: [`date`] the other way.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn since_epoch() -> (u64, u32) {
    // A clock before 1970 is shown as 1970: nobody's container depends on it.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_secs(), now.subsec_nanos())
}

fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (year, month, day) = date(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos > 0 {
        let fraction = format!(".{nanos:09}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// The Gregorian date of a day after 1970-01-01. Years are counted from March, so that the leap
/// day is the last of its year and months repeat as 153 days in five.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097); // 400 years
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (400 * era + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "2000-02-28T23:59:59Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 0, "2000-03-01T00:00:00Z"),
            (1_709_164_800, 0, "2024-02-29T00:00:00Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59Z"),
            (1_735_689_600, 0, "2025-01-01T00:00:00Z"),
            (1_795_367_461, 601_975_232, "2026-11-22T17:11:01.601975232Z"),
            (1_795_367_461, 600_000_000, "2026-11-22T17:11:01.6Z"),
            (1_795_367_461, 7, "2026-11-22T17:11:01.000000007Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds, nanos), text);
            assert_eq!(parse(text), Some(seconds as i64), "{text}");
            let all = seconds as i64 * 1_000_000_000 + i64::from(nanos);
            assert_eq!(parse_nanos(text), Some(all), "{text}");
            assert_eq!(super::text(all), text);
        }
    }

    #[test]
    fn times_of_other_zones_are_read() {
        for (text, seconds) in [
            ("1970-01-01T01:30:00+01:30", Some(0)),
            ("1969-12-31T19:00:00.25-05:00", Some(0)),
            ("0001-01-01T00:00:00Z", Some(-62_135_596_800)),
            ("2026-11-22", None),
            ("2026-13-22T00:00:00Z", None),
            ("2026-11-22T00:00:00", None),
            ("yesterday", None),
            ("2026é11-22T00:00:00Z", None),
        ] {
            assert_eq!(parse(text), seconds, "{text}");
        }
    }
}
