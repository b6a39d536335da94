use serde_json::json;

use super::*;
use crate::{gate::KeyUsed, wire::Code};

fn at(secs: i64) -> Option<Timestamp> {
    Some(Timestamp::from_secs(secs))
}

/// A controller in the middle of a rotation, from an HMAC key to another and to Ed25519.
fn rotating() -> Gate {
    let old = Key { not_after: at(SIGNED_AT), ..hmac_key(Some("old"), SECRET) };
    let new = Key { not_before: at(SIGNED_AT), ..hmac_key(Some("new"), OTHER_SECRET) };
    let future = Key { not_before: at(SIGNED_AT + 10), ..hmac_key(Some("future"), "f".repeat(32).as_str()) };
    let public = SigningKey::ed25519(&[9; 32]).public().unwrap();
    let pair = Key {
        algorithm: Algorithm::Ed25519,
        material: SecretSlice::from(public.to_vec()),
        ..hmac_key(Some("pair"), "")
    };
    let mut config = config();
    config.controllers.push(controller("rotating", vec![old, new, future, pair]));
    Gate::new(&config, ReadAccess::Signed).unwrap()
}

fn body(key: &SigningKey) -> Vec<u8> {
    envelope::sign(payload(&json!({"controller_id": "rotating"})).as_bytes(), key)
}

#[test]
fn any_valid_key_signs_and_a_named_one_must_be_that() {
    let gate = rotating();
    let used = |key: &SigningKey, now| {
        gate.submit(&body(key), now).ok().map(|admitted| admitted.key_id().unwrap().to_owned())
    };
    let (old, new) = (SigningKey::hmac(SECRET), SigningKey::hmac(OTHER_SECRET));
    let (future, pair) = (SigningKey::hmac("f".repeat(32)), SigningKey::ed25519(&[9; 32]));
    assert_eq!(used(&old, NOW).as_deref(), Some("old"));
    assert_eq!(used(&new, NOW).as_deref(), Some("new"));
    assert_eq!(used(&pair, NOW).as_deref(), Some("pair"));
    assert_eq!(used(&new.clone().named("new"), NOW).as_deref(), Some("new"));
    assert_eq!(used(&new.clone().named("old"), NOW), None);
    assert_eq!(used(&new.named("none"), NOW), None);
    assert_eq!(used(&pair.named("pair"), NOW).as_deref(), Some("pair"));
    // Both ends of a key's time are its own.
    assert_eq!(used(&old, Timestamp(NOW.0 + 1)), None);
    assert_eq!(used(&future, Timestamp(NOW.0 + 9_999_999_999)), None);
    assert_eq!(used(&future, Timestamp(NOW.0 + 10_000_000_000)).as_deref(), Some("future"));
    assert_eq!(used(&SigningKey::hmac(OTHER_SECRET), Timestamp(NOW.0 - 1)), None);
}

/// A key is told by what it is: neither another name nor the end of its time makes it another, and its name on another
/// does not make that one it.
#[test]
fn a_key_is_listed_until_it_is_taken_off_whatever_it_is_called() {
    let used = |keys: Vec<Key>, key: &SigningKey| {
        let mut config = config();
        config.controllers.push(controller("rotating", keys));
        let gate = Gate::new(&config, ReadAccess::Signed).unwrap();
        gate.submit(&body(key), NOW).unwrap().key().clone()
    };
    let mine = used(vec![hmac_key(Some("a"), SECRET)], &SigningKey::hmac(SECRET));
    assert!(mine.key_id.as_deref() == Some("a") && mine.print.is_some());
    let nameless = used(vec![hmac_key(None, SECRET)], &SigningKey::hmac(SECRET));
    assert_eq!((nameless.key_id.as_deref(), nameless.print), (None, mine.print));
    let lists = |keys: Vec<Key>, key: &KeyUsed| {
        let mut config = config();
        config.controllers.push(controller("rotating", keys));
        Gate::new(&config, ReadAccess::Signed).unwrap().lists_key("rotating", key)
    };
    let over = || Key { not_after: at(1), ..hmac_key(Some("a"), SECRET) };
    let other = || hmac_key(Some("a"), OTHER_SECRET);
    for key in [&mine, &nameless] {
        assert!(lists(vec![over()], key) && lists(vec![other(), hmac_key(None, SECRET)], key), "{key:?}");
        assert!(!lists(vec![other()], key), "{key:?}");
    }
    // The same bytes are another key where the algorithm is another.
    let public = SigningKey::ed25519(&[9; 32]).public().unwrap();
    let pair = Key { algorithm: Algorithm::Ed25519, material: SecretSlice::from(public.to_vec()), ..other() };
    let signed = used(vec![pair.clone()], &SigningKey::ed25519(&[9; 32]));
    assert!(lists(vec![pair.clone()], &signed));
    assert!(!lists(vec![Key { algorithm: Algorithm::HmacSha256, ..pair }], &signed));
    // What an earlier version recorded: the name, if there was one.
    let (named, unknown) = (KeyUsed { print: None, ..mine }, KeyUsed::default());
    assert!(lists(vec![over()], &named) && lists(vec![other()], &named) && lists(vec![other()], &unknown));
    assert!(!lists(vec![hmac_key(Some("b"), SECRET)], &named));
    let gate = gate();
    assert!(!gate.lists_key("stranger", &unknown) && !gate.lists_key("stranger", &nameless));
}

#[test]
fn the_algorithm_is_the_keys() {
    let gate = rotating();
    let text = payload(&json!({"controller_id": "rotating"}));
    let mac = hex::encode(SigningKey::hmac(SECRET).sign(text.as_bytes()));
    let public = SigningKey::ed25519(&[9; 32]).public().unwrap();
    // The public key taken for an HMAC secret: the old trick.
    let trick = hex::encode(SigningKey::hmac(public).sign(text.as_bytes()));
    for (signature, algorithm) in [
        (&mac, "Ed25519"),
        (&mac, "none"),
        (&mac, "hmac-sha256"),
        (&mac, ""),
        (&trick, "HMAC-SHA256"),
        (&trick, "Ed25519"),
    ] {
        let signature = json!({"signature": signature, "algorithm": algorithm});
        let body = format!("{{\"payload\":{text},\"signature\":{signature}}}");
        let code = gate.submit(body.as_bytes(), NOW).unwrap_err().problem.code;
        assert_eq!(code, Code::InvalidSignature, "{algorithm}");
    }
    let upper = json!({"signature": mac.to_uppercase(), "algorithm": "HMAC-SHA256", "key_id": ""});
    let body = format!(" {{ \"signature\" : {upper} , \"payload\" : {text} }} ");
    assert!(gate.submit(body.as_bytes(), NOW).is_ok(), "any order, any white space outside, empty key id");
}

#[test]
fn who_does_not_exist_gets_the_answer_of_who_signs_wrongly() {
    let gate = rotating();
    let wrong = SigningKey::hmac("w".repeat(64));
    let answers: Vec<Refused> = ["controller-1", "limited", "rotating", "nobody", ""]
        .into_iter()
        .flat_map(|id| {
            let text = payload(&json!({"controller_id": id}));
            [wrong.clone(), wrong.clone().named("old"), SigningKey::ed25519(&[1; 32])]
                .map(|key| gate.submit(&envelope::sign(text.as_bytes(), &key), NOW).unwrap_err())
        })
        .collect();
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    assert_eq!(answers[0].problem.code, Code::InvalidSignature);
}

#[test]
fn decoys_are_never_believed_and_the_shared_secret_is_no_ones_own() {
    let gate = rotating();
    let decoy = SigningKey::ed25519(b"a decoy: never believed, only ti");
    for id in ["nobody", "rotating", "controller-1"] {
        let text = payload(&json!({"controller_id": id}));
        let refused = gate.submit(&envelope::sign(text.as_bytes(), &decoy), NOW).unwrap_err();
        assert_eq!(refused.problem.code, Code::InvalidSignature);
    }
    // A controller with keys of its own can't be spoken for with the shared secret.
    let refused = gate.submit(&signed(&json!({"controller_id": "limited"})), NOW).unwrap_err();
    assert_eq!(refused.problem.code, Code::InvalidSignature);
    // Without a shared secret strangers are not told apart from forgers.
    let mut config = config();
    config.shared_keys.clear();
    let gate = Gate::new(&config, ReadAccess::Signed).unwrap();
    let refused = gate.submit(&signed(&json!({"controller_id": "stranger"})), NOW).unwrap_err();
    assert_eq!(refused.problem.code, Code::InvalidSignature);
}

#[test]
fn a_key_that_is_none_makes_no_gate() {
    let mut config = config();
    config.controllers[0].keys = vec![hmac_key(None, "")];
    assert!(Gate::new(&config, ReadAccess::Signed).is_err());
}
