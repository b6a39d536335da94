use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;
use crate::wire::key::{Algorithm, VerifyingKey};

/// The request of RFC 9421, appendix B.2.
const RFC_TARGET: Target<'_> = Target {
    method: "POST",
    scheme: "https",
    authority: "example.com",
    path_and_query: "/foo?param=Value&Pet=dog",
};

fn rfc_field(name: &str) -> Option<String> {
    let value = match name {
        "date" => "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type" => "application/json",
        "content-length" => "18",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn rfc_9421_b_2_5_hmac_sha256() {
    let secret = STANDARD
        .decode("uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==")
        .unwrap();
    let key = VerifyingKey::new(Algorithm::HmacSha256, &secret).unwrap();
    let signed = Signed::parse(
        "sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\"",
        "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
    )
    .unwrap();
    assert_eq!(
        signed.base(&RFC_TARGET, rfc_field).unwrap(),
        "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
         \"@authority\": example.com\n\
         \"content-type\": application/json\n\
         \"@signature-params\": (\"date\" \"@authority\" \"content-type\");created=1618884473;keyid=\"test-shared-secret\""
    );
    assert_eq!(signed.verify(&RFC_TARGET, rfc_field, &key), Ok(true));
    assert_eq!(signed.created(), Ok(1_618_884_473));
    assert_eq!(signed.keyid(), Ok("test-shared-secret"));
    // It says nothing of method and path: good as an example, not for this contract.
    assert_eq!(signed.check_coverage(&RFC_TARGET), Err(SignatureError::Coverage));
}

#[test]
fn rfc_9421_b_2_6_ed25519() {
    let public = STANDARD.decode("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=").unwrap();
    let key = VerifyingKey::new(Algorithm::Ed25519, &public).unwrap();
    let signed = Signed::parse(
        "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
         ;created=1618884473;keyid=\"test-key-ed25519\"",
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
    )
    .unwrap();
    assert_eq!(signed.verify(&RFC_TARGET, rfc_field, &key), Ok(true));
    let other = Target { method: "GET", ..RFC_TARGET };
    assert_eq!(signed.verify(&other, rfc_field, &key), Ok(false));
}

#[test]
fn derived_components_are_normalised() {
    let target = Target {
        method: "GET",
        scheme: "HTTPS",
        authority: "Agent.Example.COM:443",
        path_and_query: "/api/v1/jobs",
    };
    let derive = |name| target.derive(name).unwrap();
    assert_eq!(derive("authority"), "agent.example.com");
    assert_eq!(derive("target-uri"), "https://agent.example.com/api/v1/jobs");
    assert_eq!(derive("path"), "/api/v1/jobs");
    assert_eq!(derive("query"), "?");
    assert_eq!(target.derive("status"), None);
    let plain = Target { scheme: "http", authority: "127.0.0.1:8443", path_and_query: "?a", ..target };
    assert_eq!(plain.derive("authority").unwrap(), "127.0.0.1:8443");
    assert_eq!(plain.derive("target-uri").unwrap(), "http://127.0.0.1:8443/?a");
    let v6 = Target { scheme: "http", authority: "[::1]:80", ..target };
    assert_eq!(v6.derive("authority").unwrap(), "[::1]");
}

#[test]
fn what_must_be_covered() {
    let covers = |components: &str, path_and_query: &str| {
        let signed = Signed::parse(&format!("s=({components});created=1;keyid=\"a\""), "s=:AA==:").unwrap();
        signed.check_coverage(&Target { path_and_query, ..RFC_TARGET }).is_ok()
    };
    assert!(covers(r#""@method" "@target-uri""#, "/a?b"));
    assert!(covers(r#""@method" "@authority" "@path" "@query""#, "/a?b"));
    assert!(covers(r#""@method" "@authority" "@request-target""#, "/a?b"));
    assert!(covers(r#""@method" "@authority" "@path""#, "/a"));
    assert!(!covers(r#""@method" "@authority" "@path""#, "/a?b"));
    assert!(!covers(r#""@method" "@path" "@query""#, "/a?b"));
    assert!(!covers(r#""@target-uri""#, "/a"));
    assert!(!covers("", "/a"));
}

#[test]
fn what_is_malformed_is_refused() {
    let good = "s=(\"@method\");created=1;keyid=\"a\"";
    assert!(Signed::parse(good, "s=:AA==:").is_ok());
    for (input, signature) in [
        ("", ""),
        (good, "t=:AA==:"),
        (good, "s=:AA==:, t=:AA==:"),
        (good, "s=AA=="),
        (good, "s=:A:"),
        ("s=(\"@method\");created=1, t=();created=1", "s=:AA==:"),
        ("s=(\"@method\"", "s=:AA==:"),
        ("s=(\"@method\"\"@path\")", "s=:AA==:"),
        ("s=(\"@query-param\";name=\"a\")", "s=:AA==:"),
        ("s=(\"@method\");created=1.5", "s=:AA==:"),
        ("s=(\"@method\");created=1;created=2", "s=:AA==:"),
        ("s=(\"@method\");created=1111111111111111", "s=:AA==:"),
        ("s=(\"a\\x\")", "s=:AA==:"),
        ("s=(\"\u{e9}\")", "s=:AA==:"),
        ("S=(\"@method\")", "S=:AA==:"),
    ] {
        assert_eq!(Signed::parse(input, signature), Err(SignatureError::Malformed), "{input} {signature}");
    }
    let twice = Signed::parse("s=(\"@method\" \"@method\");created=1", "s=:AA==:").unwrap();
    assert!(matches!(twice.base(&RFC_TARGET, rfc_field), Err(SignatureError::Component(_))));
    let missing = Signed::parse("s=(\"x-not-there\");created=1", "s=:AA==:").unwrap();
    assert!(matches!(missing.base(&RFC_TARGET, rfc_field), Err(SignatureError::Component(_))));
    let upper = Signed::parse("s=(\"Date\");created=1", "s=:AA==:").unwrap();
    assert!(matches!(upper.base(&RFC_TARGET, rfc_field), Err(SignatureError::Component(_))));
    let split = Signed::parse("s=(\"date\");created=1", "s=:AA==:").unwrap();
    assert!(split.base(&RFC_TARGET, |_| Some("a\n\"@method\": GET".to_owned())).is_err());
}

#[test]
fn as_many_components_and_bytes_as_may_be_and_one_more() {
    let of = |components: usize| {
        let names: Vec<String> = (0..components).map(|n| format!("\"x-{n}\"")).collect();
        Signed::parse(&format!("s=({});created=1", names.join(" ")), "s=:AA==:")
    };
    assert_eq!(of(32).unwrap().components.len(), 32);
    assert!(of(33) == Err(SignatureError::Malformed));
    let (start, end) = ("s=(\"@method\");created=1;nonce=\"", "\"");
    let long = |bytes: usize| format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()));
    assert!(Signed::parse(&long(8_192), "s=:AA==:").is_ok());
    assert!(Signed::parse(&long(8_193), "s=:AA==:") == Err(SignatureError::Malformed));
    // The label, `=:` and `:` around groups of four.
    let signed = |label: &str| {
        let signature = format!("{label}=:{}:", "AAAA".repeat(2_047));
        (signature.len(), Signed::parse(&format!("{label}=(\"@method\")"), &signature).is_ok())
    };
    assert_eq!(signed("s"), (8_192, true));
    assert_eq!(signed("ss"), (8_193, false));
}

proptest! {
    #[test]
    fn what_we_sign_verifies_and_nothing_else_does(
        path in "/[a-z0-9/._-]{0,40}", query in proptest::option::of("[a-z0-9=&%]{0,20}"),
        secret in proptest::collection::vec(any::<u8>(), 1..80), created in 0..4_000_000_000_i64,
        controller in "[ -~]{1,40}", name in proptest::option::of("[a-z0-9]{1,10}"),
    ) {
        let path_and_query = match &query { Some(query) => format!("{path}?{query}"), None => path.clone() };
        let target = Target {
            method: "GET", scheme: "https", authority: "agent:8443", path_and_query: &path_and_query,
        };
        let mut key = SigningKey::hmac(secret);
        if let Some(name) = &name { key = key.named(name.clone()); }
        let headers = sign(&target, &key, &controller, created, "0123456789abcdef");
        let signed = Signed::parse(&headers.signature_input, &headers.signature).unwrap();
        prop_assert_eq!(signed.created(), Ok(created));
        let expected = keyid(&controller, name.as_deref());
        prop_assert_eq!(signed.keyid(), Ok(expected.as_str()));
        prop_assert_eq!(signed.alg(), Ok(Some("hmac-sha256")));
        prop_assert_eq!(signed.check_coverage(&target), Ok(()));
        prop_assert_eq!(signed.verify(&target, |_| None, &key.verifying()), Ok(true));
        for other in [
            Target { method: "HEAD", ..target },
            Target { authority: "agent:8444", ..target },
            Target { path_and_query: &format!("{path_and_query}x"), ..target },
        ] {
            prop_assert_eq!(signed.verify(&other, |_| None, &key.verifying()), Ok(false));
        }
    }

    #[test]
    fn no_field_panics(input in "\\PC{0,200}", signature in "\\PC{0,200}") {
        if let Ok(signed) = Signed::parse(&input, &signature) {
            let _ = signed.base(&RFC_TARGET, rfc_field);
        }
    }

    #[test]
    fn no_nearly_right_field_panics(
        input in r#"s=\(("@method"|"date"|[ "@a-z;]){0,5}\)(;(created|keyid|nonce)=("[a-z\\"]{0,5}"|-?[0-9]{0,17}|:[A-Z=]{0,8}:|\?[01])){0,4}"#,
    ) {
        if let Ok(signed) = Signed::parse(&input, "s=:AA==:") {
            let _ = (signed.base(&RFC_TARGET, rfc_field), signed.created(), signed.keyid(), signed.alg());
        }
    }
}
