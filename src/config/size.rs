//! Values as people write them: `64 MiB`, `10m`, `0.5`, `2026-03-01T00:00:00Z`. Each function gives
//! the value, or what is wrong with the text and what to write instead.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::base::clock::Timestamp;

/// Units of sizes. Plain `K`, `M`, `G` mean two things in the world and are refused.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Units of durations, in milliseconds.
const DURATIONS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// Bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES, 1)
        .ok_or_else(|| "is no size: write bytes (268435456) or a unit (256 MiB)".to_owned())
}

/// Seconds, or a number with a unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATIONS, 1_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "is no duration: write seconds (300) or a unit (500ms, 10s, 5m, 2h, 7d)".to_owned())
}

/// A number and a unit, in whole base units; `bare` is what a number without a unit counts.
fn scaled(text: &str, units: &[(&str, u64)], bare: u64) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim();
    let scale = if unit.is_empty() { bare } else { units.iter().find(|(name, _)| *name == unit)?.1 };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale)
        / 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

/// A whole number of at least 0.
pub(super) fn whole(text: &str) -> Result<u64, String> {
    match text.trim() {
        digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| "is too large a number".to_owned())
        }
        _ => Err("is no whole number of at least 0".to_owned()),
    }
}

/// A finite number of at least 0.
pub(super) fn number(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match text.parse::<f64>() {
        Ok(number) if plain && number.is_finite() => Ok(number),
        _ => Err("is no number of at least 0".to_owned()),
    }
}

/// `true` or `false`; YAML 1.1's `yes` and `on` are refused, not guessed at.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// A moment with its offset from UTC.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong = || "is no RFC 3339 time: write it like 2026-03-01T00:00:00Z".to_owned();
    let at = OffsetDateTime::parse(text.trim(), &Rfc3339).map_err(|_| wrong())?;
    let nanos = i64::try_from(at.unix_timestamp_nanos()).map_err(|_| wrong())?;
    Ok(Timestamp(nanos))
}

/// Bytes for people, exact: the largest unit that divides them.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{} {unit}", bytes / scale),
        None => format!("{bytes} B"),
    }
}

/// A duration for people, exact: the largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let unit = DURATIONS[..5]
        .iter()
        .rev()
        .find(|(_, scale)| millis != 0 && millis.is_multiple_of(u128::from(*scale)));
    match unit {
        Some((unit, scale)) => format!("{}{unit}", millis / u128::from(*scale)),
        None => "0s".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_carry_an_unmistakable_unit() {
        for (text, bytes) in [
            ("268435456", 268_435_456),
            ("64 MiB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5 GiB", 3 << 29),
            ("2 kB", 2_000),
            ("0", 0),
            ("7 B", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "64M",
            "64 mib",
            "-1",
            "",
            "MiB",
            "1e9",
            "1.",
            ".5",
            "1..5",
            "18446744073709551616",
            "99999999 TiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_seconds_or_carry_a_unit() {
        for (text, millis) in [
            ("300", 300_000),
            ("0.5", 500),
            ("500ms", 500),
            ("10s", 10_000),
            ("5 m", 300_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["10 sec", "-5s", "1m30s", "", "s", "forever"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1023, 1024, 268_435_456, 10 << 30, (10 << 30) + 1] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
        for secs in [0, 1, 59, 60, 90, 3600, 86_400, 7_776_000] {
            assert_eq!(duration(&show_duration(Duration::from_secs(secs))), Ok(Duration::from_secs(secs)));
        }
    }

    #[test]
    fn numbers_booleans_and_moments_are_strict() {
        assert_eq!(whole("8443"), Ok(8443));
        assert!(
            ["8_443", "0x10", "-1", "1.0", "", "99999999999999999999"]
                .iter()
                .all(|text| whole(text).is_err())
        );
        assert_eq!(number("0.5"), Ok(0.5));
        assert!(["nan", "inf", "-1", "1e3", "", "."].iter().all(|text| number(text).is_err()));
        assert_eq!(boolean("true"), Ok(true));
        assert!(["yes", "on", "1", ""].iter().all(|text| boolean(text).is_err()));
        assert_eq!(moment("2026-03-01T01:00:00+01:00"), Ok(Timestamp::from_secs(1_772_323_200)));
        assert!(
            ["2026-03-01", "2026-03-01T00:00:00", "9999-01-01T00:00:00Z"].iter().all(|t| moment(t).is_err())
        );
    }
}
