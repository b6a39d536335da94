//! When a certificate expires: the one field of X.509 (RFC 5280, section 4.1) that the agent needs and
//! its TLS library does not give.

use time::{Date, Month, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Unix seconds of `notAfter`; `None` if the bytes are no certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = of(der, SEQUENCE)?;
    let (mut tbs, _) = of(certificate, SEQUENCE)?;
    if let Some((_, rest)) = of(tbs, VERSION) {
        tbs = rest;
    }
    let (_serial, rest) = of(tbs, INTEGER)?;
    let (_algorithm, rest) = of(rest, SEQUENCE)?;
    let (_issuer, rest) = of(rest, SEQUENCE)?;
    let (validity, _) = of(rest, SEQUENCE)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    moment(tag, std::str::from_utf8(text).ok()?)
}

/// The next element, which must have that tag: its content, and what follows it.
fn of(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content, rest (X.690, section 8.1, with the lengths that DER allows).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, der) = der.split_first()?;
    let (&first, mut der) = der.split_first()?;
    let len = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let (bytes, rest) = der.split_at_checked(usize::from(first & 0x7f))?;
            der = rest;
            bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, rest) = der.split_at_checked(len)?;
    Some((tag, content, rest))
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
