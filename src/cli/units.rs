//! Sizes and times as people write them.

use std::time::Duration;

/// Bytes: `268435456`, `256m`, `1.5G`, `64KiB`; powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err("a size is a number with k, m or g, such as 256m".to_owned()),
    };
    scaled(number, 1u64 << shift).ok_or_else(|| "a size is a number with k, m or g, such as 256m".to_owned())
}

/// Whole seconds: `300`, `90s`, `5m`, `1.5h`, `1d`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a time is a number with s, m, h or d, such as 5m".to_owned();
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    scaled(number, factor).ok_or_else(wrong)
}

/// A number of processor cores: `2`, `0.5`. `inf` and `nan`, which Rust reads as numbers, are none.
pub fn cores(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(cores) if cores.is_finite() && cores > 0.0 => Ok(cores),
        _ => Err("cores are a number above 0, such as 0.5".to_owned()),
    }
}

/// As [`seconds`], as a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    seconds(text).map(Duration::from_secs)
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// `number * factor`, exact for whole numbers; a fraction must come out whole.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let tenths = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = fraction.parse::<u64>().ok()?.checked_mul(factor)?;
        if part % tenths != 0 {
            return None;
        }
        total = total.checked_add(part / tenths)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(size("268435456"), Ok(268_435_456));
        assert_eq!(size("256m"), Ok(256 << 20));
        assert_eq!(size("1.5G"), Ok(3 << 29));
        assert_eq!(size("64KiB"), Ok(64 << 10));
        assert_eq!(seconds("90"), Ok(90));
        assert_eq!(seconds("1.5h"), Ok(5400));
        assert_eq!(cores("0.5"), Ok(0.5));
        for wrong in ["", "inf", "-inf", "NaN", "infinity", "1e999", "0", "-1", "two"] {
            assert!(cores(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "m", "-1", "1x", "1.3k", "99999999999g", "1.2.3m", "0.0001s"] {
            assert!(size(wrong).is_err(), "{wrong}");
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
