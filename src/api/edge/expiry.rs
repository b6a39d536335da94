//! When a certificate expires: the one field of X.509 (RFC 5280, section 4.1) that the agent needs and
//! its TLS library does not give.

use time::{Date, Month, PrimitiveDateTime, Time};

use super::x509::{element, of, validity_and_on};

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Unix seconds of `notAfter`; `None` if the bytes are no certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = of(der, SEQUENCE)?;
    let (tbs, _) = of(certificate, SEQUENCE)?;
    let rest = validity_and_on(tbs)?;
    let (validity, _) = of(rest, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    moment(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn moment(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let year: i32 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

/// A certificate that ends sooner than this is worth a warning, in seconds.
const SOON: i64 = 14 * 24 * 3600;

/// How long a certificate is good yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It can't be read.
    Unknown,
    /// It is over (the last second is still good).
    Expired,
    /// Two weeks or less.
    Little,
    Enough,
}

/// How long one with that end (Unix seconds; 0 is unknown) is good at that moment.
pub fn left(not_after: i64, now: i64) -> Left {
    match not_after {
        0 => Left::Unknown,
        end if end < now => Left::Expired,
        end if end - SOON <= now => Left::Little,
        _ => Left::Enough,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["agent".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 9);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_ways_to_write_a_year_are_read() {
        assert_eq!(not_after(&certificate(2031)), Some(1_930_780_800));
        assert_eq!(not_after(&certificate(2077)), Some(3_382_473_600));
        assert_eq!(moment(UTC_TIME, "991231235959Z"), Some(946_684_799));
    }

    #[test]
    fn what_is_left_changes_at_its_bounds() {
        let end = 10_000_000;
        for (now, wanted) in [
            (end - SOON - 1, Left::Enough),
            (end - SOON, Left::Little),
            (end, Left::Little),
            (end + 1, Left::Expired),
        ] {
            assert_eq!(left(end, now), wanted, "{now}");
        }
        assert_eq!(left(0, 5), Left::Unknown);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(cut in 0_usize..400, at in 0_usize..400, byte: u8) {
            let mut der = certificate(2031);
            der.truncate(cut);
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            let _ = not_after(&der);
        }
    }
}
