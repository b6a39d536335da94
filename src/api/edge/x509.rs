//! The little of X.509 (RFC 5280) that the agent reads itself: the subject alternative names of a certificate that the
//! TLS library has checked already.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const EXTENSIONS: u8 = 0xa3;
/// Unique ids of issuer and subject, which nobody uses.
const UNIQUE: [u8; 2] = [0x81, 0x82];
/// `dNSName` and `uniformResourceIdentifier` (RFC 5280, section 4.2.1.6).
const DNS: u8 = 0x82;
const URI: u8 = 0x86;
/// 2.5.29.17
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Names that a certificate is known by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// In lower case.
    pub dns: Vec<String>,
    pub uris: Vec<String>,
}

/// The names in a certificate; `None` if the bytes are none.
pub fn names(der: &[u8]) -> Option<Names> {
    let mut names = Names::default();
    let (certificate, _) = of(der, SEQUENCE)?;
    let (tbs, _) = of(certificate, SEQUENCE)?;
    let mut rest = validity_and_on(tbs)?;
    // Validity, subject, key.
    for _ in 0..3 {
        (_, rest) = of(rest, SEQUENCE)?;
    }
    while let Some((tag, _, after)) = element(rest)
        && UNIQUE.contains(&tag)
    {
        rest = after;
    }
    if rest.is_empty() {
        return Some(names);
    }
    let (extensions, _) = of(rest, EXTENSIONS)?;
    let (mut extensions, _) = of(extensions, SEQUENCE)?;
    while !extensions.is_empty() {
        let (extension, after) = of(extensions, SEQUENCE)?;
        extensions = after;
        let (oid, mut value) = of(extension, OID)?;
        if oid != SUBJECT_ALT_NAME {
            continue;
        }
        if let Some((_, after)) = of(value, BOOLEAN) {
            value = after;
        }
        let (value, _) = of(value, OCTETS)?;
        let (mut general, _) = of(value, SEQUENCE)?;
        while !general.is_empty() {
            let (tag, name, after) = element(general)?;
            general = after;
            // IA5String; one with anything else is no name of ours.
            let text = std::str::from_utf8(name).ok().filter(|text| text.is_ascii());
            match (tag, text) {
                (DNS, Some(text)) => names.dns.push(text.to_ascii_lowercase()),
                (URI, Some(text)) => names.uris.push(text.to_owned()),
                _ => {}
            }
        }
    }
    Some(names)
}

/// What follows the issuer in the signed part of a certificate.
pub(super) fn validity_and_on(mut tbs: &[u8]) -> Option<&[u8]> {
    if let Some((_, rest)) = of(tbs, VERSION) {
        tbs = rest;
    }
    let (_serial, rest) = of(tbs, INTEGER)?;
    let (_algorithm, rest) = of(rest, SEQUENCE)?;
    let (_issuer, rest) = of(rest, SEQUENCE)?;
    Some(rest)
}

/// The next element, which must have that tag: its content, and what follows it.
pub(super) fn of(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content, rest (X.690, section 8.1, with the lengths that DER allows).
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[&str], uris: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_read() {
        let read = names(&certificate(&["A.example.com", "192.0.2.1"], &["spiffe://x/y"])).unwrap();
        assert_eq!(
            (read.dns, read.uris),
            (vec!["a.example.com".to_owned()], vec!["spiffe://x/y".to_owned()])
        );
        assert_eq!(names(&certificate(&[], &[])), Some(Names::default()));
        assert_eq!(names(b"no certificate"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(cut in 0_usize..600, at in 0_usize..600, byte: u8) {
            let mut der = certificate(&["a.example.com"], &["spiffe://x/y"]);
            der.truncate(cut);
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            let _ = names(&der);
        }
    }
}
