//! Sizes and times as people write them.

use std::time::Duration;

/// Why a number with a unit can't be taken.
enum Wrong {
    /// It is none.
    Form,
    /// More than 64 bits hold.
    Range,
    /// It does not come out whole.
    Fraction,
}

/// Bytes: `268435456`, `256m`, `1.5G`, `64KiB`; powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        _ => None,
    };
    scaled(number, shift.map(|shift| 1 << shift)).map_err(|wrong| match wrong {
        Wrong::Form => "a size is a number with k, m or g, such as 256m".to_owned(),
        Wrong::Range => format!("out of range: a size is at most {} bytes", u64::MAX),
        Wrong::Fraction => "a size must come out in whole bytes".to_owned(),
    })
}

/// Whole seconds: `300`, `90s`, `5m`, `1.5h`, `1d`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    scaled(number, factor).map_err(|wrong| match wrong {
        Wrong::Form => "a time is a number with s, m, h or d, such as 5m".to_owned(),
        Wrong::Range => format!("out of range: a time is at most {} seconds", u64::MAX),
        Wrong::Fraction => "a time must come out in whole seconds".to_owned(),
    })
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
fn scaled(number: &str, factor: Option<u64>) -> Result<u64, Wrong> {
    let factor = factor.ok_or(Wrong::Form)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut total = digits(whole)?.checked_mul(factor).ok_or(Wrong::Range)?;
    // A zero at its end changes nothing.
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        let part = u128::from(digits(fraction).map_err(|wrong| match wrong {
            // So many digits come out whole with none of our units.
            Wrong::Range => Wrong::Fraction,
            other => other,
        })?) * u128::from(factor);
        let tenths = u32::try_from(fraction.len()).ok().and_then(|digits| 10u128.checked_pow(digits));
        let tenths = tenths.ok_or(Wrong::Fraction)?;
        if part % tenths != 0 {
            return Err(Wrong::Fraction);
        }
        let part = u64::try_from(part / tenths).map_err(|_| Wrong::Range)?;
        total = total.checked_add(part).ok_or(Wrong::Range)?;
    }
    Ok(total)
}

fn digits(text: &str) -> Result<u64, Wrong> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Form);
    }
    text.parse().map_err(|_| Wrong::Range)
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
        let said = |wrong: Result<u64, String>| wrong.expect_err("it is refused");
        for (text, why) in [
            ("99999999999999999999", "out of range"),
            ("99999999999g", "out of range"),
            ("1.3k", "whole bytes"),
            ("0.00000000000000000000001k", "whole bytes"),
            ("256x", "such as 256m"),
        ] {
            assert!(said(size(text)).contains(why), "{text}");
        }
        for (text, why) in
            [("99999999999999999999", "out of range"), ("1.5", "whole seconds"), ("soon", "such as 5m")]
        {
            assert!(said(seconds(text)).contains(why), "{text}");
        }
        assert_eq!((seconds("1.50m"), seconds("2.0")), (Ok(90), Ok(2)));
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
