//! How many bytes is `512m`? The syntax of runc's options for sizes.

use anyhow::{Result, bail};

/// A number, perhaps with decimals, and a unit: none or `b`, or one of `k m g t p` (powers of
/// 1024, in either case), each also as `kb` and `kib`; a space may stand between the two.
/// What is left of a byte is cut off.
pub fn bytes(text: &str) -> Result<i64> {
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .map_or(0, |at| at + 1);
    let (number, unit) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let Some(factor) = factor(unit) else {
        bail!("invalid suffix: '{unit}' (give b, k, m, g, t or p)");
    };
    match times(number, factor) {
        Some(bytes) => Ok(bytes),
        None => bail!("invalid size: '{text}'"),
    }
}

/// What a unit multiplies with; `None` for what is none.
fn factor(unit: &str) -> Option<i64> {
    let unit = unit.to_ascii_lowercase();
    if unit == "b" {
        return Some(1);
    }
    let prefix = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    match (prefix, unit.as_str()) {
        ("", "") => Some(1),
        ("k", _) => Some(1 << 10),
        ("m", _) => Some(1 << 20),
        ("g", _) => Some(1 << 30),
        ("t", _) => Some(1 << 40),
        ("p", _) => Some(1 << 50),
        _ => None,
    }
}

fn times(number: &str, factor: i64) -> Option<i64> {
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if !plain(whole) || !plain(part) || (whole.is_empty() && part.is_empty()) {
        return None;
    }
    // Whole numbers stay exact; a fraction is as exact as a float.
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let part: f64 = format!("0.{part}0").parse().ok()?;
    let rest = (part * factor as f64) as i64;
    whole.checked_mul(factor)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_as_runc_takes_them() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("7b", 7),
            ("7B", 7),
            ("1k", 1024),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("512MiB", 512 << 20),
            ("2 g", 2 << 30),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            ("1.5k", 1536),
            (".5k", 512),
            ("1.", 1),
            ("0.1", 0),
            ("9223372036854775807", i64::MAX),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for (text, why) in [
            ("", "invalid size: ''"),
            (" ", "invalid size: ' '"),
            (".", "invalid size: '.'"),
            ("-5", "invalid size: '-5'"),
            ("1.2.3", "invalid size: '1.2.3'"),
            ("1 2", "invalid size: '1 2'"),
            ("1e3", "invalid size: '1e3'"),
            ("9223372036854775808", "invalid size: '9223372036854775808'"),
            ("9000p", "invalid size: '9000p'"),
            ("10q", "invalid suffix: 'q' (give b, k, m, g, t or p)"),
            ("10ib", "invalid suffix: 'ib' (give b, k, m, g, t or p)"),
            ("10kk", "invalid suffix: 'kk' (give b, k, m, g, t or p)"),
            ("10kibb", "invalid suffix: 'kibb' (give b, k, m, g, t or p)"),
            ("m", "invalid size: 'm'"),
            ("max", "invalid suffix: 'max' (give b, k, m, g, t or p)"),
        ] {
            assert_eq!(bytes(text).unwrap_err().to_string(), why, "{text}");
        }
    }
}
