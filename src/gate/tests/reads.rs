use super::*;
use crate::{
    config::Authority,
    gate::{ReadRequest, Reader, Tokens},
    wire::{
        Code,
        httpsig::{self, Target},
    },
};

const PATH: &str = "/api/v1/jobs?limit=10";

fn request(key: &SigningKey, controller_id: &str, created: i64) -> ReadRequest {
    let target = Target { method: "GET", scheme: "https", authority: "agent:8443", path_and_query: PATH };
    let headers = httpsig::sign(&target, key, controller_id, created, "n0nce");
    ReadRequest {
        method: "GET".to_owned(),
        scheme: "https".to_owned(),
        authority: "agent:8443".to_owned(),
        path_and_query: PATH.to_owned(),
        headers: vec![
            ("host".to_owned(), "agent:8443".to_owned()),
            ("signature-input".to_owned(), headers.signature_input),
            ("signature".to_owned(), headers.signature),
        ],
        certificate: None,
    }
}

fn code(request: &ReadRequest) -> Code {
    gate().reader(request, &Tokens::default(), NOW).unwrap_err().code
}

#[test]
fn a_controller_reads_its_own_and_an_administrator_all() {
    let key = SigningKey::hmac(SECRET);
    let reader = gate().reader(&request(&key, "controller-1", SIGNED_AT), &Tokens::default(), NOW).unwrap();
    assert_eq!(reader, Reader::Controller { id: "controller-1".to_owned(), admin: false });
    assert!(reader.may_see("controller-1") && !reader.may_see("limited"));
    // Its name holds slashes, and so does its `keyid`.
    let admin = gate()
        .reader(&request(&key, "https://admin.example.com", SIGNED_AT), &Tokens::default(), NOW)
        .unwrap();
    assert!(admin.may_see("controller-1") && admin.may_see("anybody"));
    let named = SigningKey::hmac(OTHER_SECRET).named("2024");
    assert!(gate().reader(&request(&named, "limited", SIGNED_AT), &Tokens::default(), NOW).is_ok());
    let misnamed = SigningKey::hmac(OTHER_SECRET).named("2025");
    assert_eq!(code(&request(&misnamed, "limited", SIGNED_AT)), Code::Unauthenticated);
}

#[test]
fn who_proves_nothing_reads_nothing_unless_the_id_is_enough() {
    let bare = ReadRequest { headers: vec![], ..request(&SigningKey::hmac(SECRET), "controller-1", 0) };
    assert_eq!(code(&bare), Code::Unauthenticated);
    let open = Gate::new(&config(), ReadAccess::JobId).unwrap();
    assert_eq!(open.reader(&bare, &Tokens::default(), NOW), Ok(Reader::Anyone));
    // What is given is checked all the same.
    let forged = request(&SigningKey::hmac("x"), "controller-1", SIGNED_AT);
    assert_eq!(open.reader(&forged, &Tokens::default(), NOW).unwrap_err().code, Code::Unauthenticated);
    let mut half = request(&SigningKey::hmac(SECRET), "controller-1", SIGNED_AT);
    half.headers.retain(|(name, _)| name != "signature");
    assert_eq!(open.reader(&half, &Tokens::default(), NOW).unwrap_err().code, Code::Unauthenticated);
}

#[test]
fn unknown_and_wrong_are_one_answer_and_the_shared_secret_alone_gives_nothing() {
    let wrong = SigningKey::hmac("w");
    let answers = ["controller-1", "nobody", "limited/2024", "a/b"]
        .map(|id| gate().reader(&request(&wrong, id, SIGNED_AT), &Tokens::default(), NOW).unwrap_err());
    assert!(answers.iter().all(|answer| answer == &answers[0]));
    let stranger = request(&SigningKey::hmac(SECRET), "stranger", SIGNED_AT);
    assert_eq!(code(&stranger), Code::ControllerNotAllowed);
}

/// The same request of the same controller, signed for that authority and sent with that Host.
fn sent_for(authority: &str, names: &[&str]) -> Result<Reader, crate::wire::Problem> {
    let key = SigningKey::hmac(SECRET);
    let target = Target { method: "GET", scheme: "https", authority, path_and_query: PATH };
    let headers = httpsig::sign(&target, &key, "controller-1", SIGNED_AT, "n0nce");
    let mut request = request(&key, "controller-1", SIGNED_AT);
    request.authority = authority.to_owned();
    request.headers = vec![
        ("host".to_owned(), authority.to_owned()),
        ("signature-input".to_owned(), headers.signature_input),
        ("signature".to_owned(), headers.signature),
    ];
    let mut config = config();
    config.authorities = names.iter().map(|name| Authority::parse(name).unwrap()).collect();
    Gate::new(&config, ReadAccess::Signed).unwrap().reader(&request, &Tokens::default(), NOW)
}

#[test]
fn a_read_that_was_signed_for_another_agent_is_not_answered() {
    let names = ["agent-b.example:8443", "10.0.0.2"];
    for own in ["agent-b.example:8443", "AGENT-B.example:8443", "10.0.0.2", "10.0.0.2:8443", "10.0.0.2:443"] {
        assert!(sent_for(own, &names).is_ok(), "{own}");
    }
    let refused = sent_for("agent-a.example:8443", &names).unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    let details = refused.details.unwrap();
    assert!(details.contains("`agent-a.example:8443`"), "what was asked for: {details}");
    assert!(
        !details.contains("agent-b") && !details.contains("10.0.0.2"),
        "and nothing of its own: {details}"
    );
    assert!(sent_for("agent-b.example", &names).is_err(), "another port");
    assert!(sent_for("agent-a.example:8443", &[]).is_ok(), "any, where none is given");
}

#[test]
fn whose_signature_does_not_hold_is_told_nothing_of_names() {
    let mut config = config();
    config.authorities = vec![Authority::parse("agent-b").unwrap()];
    let gate = Gate::new(&config, ReadAccess::Signed).unwrap();
    let forged = request(&SigningKey::hmac("w"), "controller-1", SIGNED_AT);
    let refused = gate.reader(&forged, &Tokens::default(), NOW).unwrap_err();
    assert_eq!(refused.details.as_deref(), Some("the request's signature does not hold"));
}

proptest::proptest! {
    /// Hosts that are near to the listed ones, and such that are anything.
    #[test]
    fn no_authority_that_is_not_listed_is_ever_accepted(
        asked in "(agent|AGENT|agent-b|a|\\[::1\\]|[!-~]{0,12})(\\.|:|:8443|:443|:08443|:84430|@agent|:8443:8443)?",
    ) {
        let lower = asked.to_ascii_lowercase();
        let listed = ["agent:8443", "[::1]", "[::1]:443", "[::1]:8443"].contains(&lower.as_str());
        proptest::prop_assert_eq!(
            sent_for(&asked, &["agent:8443", "[::1]"]).is_ok(), listed, "{}", asked
        );
    }
}

#[test]
fn age_is_exact_at_its_bounds() {
    let key = SigningKey::hmac(SECRET);
    for good in [-300, 0, 30] {
        assert!(
            gate().reader(&request(&key, "controller-1", SIGNED_AT + good), &Tokens::default(), NOW).is_ok(),
            "{good}"
        );
    }
    for (bad, skew, allowed) in [(-301, 301, 300), (31, 31, 30)] {
        let problem = gate()
            .reader(&request(&key, "controller-1", SIGNED_AT + bad), &Tokens::default(), NOW)
            .unwrap_err();
        assert_eq!(problem.code, Code::Unauthenticated);
        assert_eq!(
            (&problem.more["skew_seconds"], &problem.more["allowed_seconds"]),
            (&json!(skew), &json!(allowed))
        );
    }
}

/// A signature of another program: its own label, components and parameters.
fn foreign(components: &str, params: &str) -> ReadRequest {
    let input = format!("({components}){params}");
    let mut request = request(&SigningKey::hmac(SECRET), "controller-1", SIGNED_AT);
    request.headers = vec![("x-note".to_owned(), " a ".to_owned()), ("x-note".to_owned(), "b".to_owned())];
    let mut base = String::new();
    for name in components.split_whitespace() {
        let value = match name.trim_matches('"') {
            "@method" => "GET",
            "@target-uri" => "https://agent:8443/api/v1/jobs?limit=10",
            "@authority" => "agent:8443",
            "@path" => "/api/v1/jobs",
            "@query" => "?limit=10",
            _ => "a, b",
        };
        base.push_str(&format!("{name}: {value}\n"));
    }
    base.push_str(&format!("\"@signature-params\": {input}"));
    let mac = hex::encode(SigningKey::hmac(SECRET).sign(base.as_bytes()));
    let mac = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hex::decode(mac).unwrap());
    request.headers.push(("signature-input".to_owned(), format!("sig1={input}")));
    request.headers.push(("signature".to_owned(), format!("sig1=:{mac}:")));
    request
}

#[test]
fn other_programs_sign_their_own_way_as_long_as_enough_is_covered() {
    let time = format!(";created={SIGNED_AT};keyid=\"controller-1\"");
    let all = r#""x-note" "@target-uri" "@method""#;
    assert!(gate().reader(&foreign(all, &time), &Tokens::default(), NOW).is_ok());
    assert!(
        gate()
            .reader(
                &foreign(all, &format!("{time};expires={SIGNED_AT};alg=\"hmac-sha256\"")),
                &Tokens::default(),
                NOW
            )
            .is_ok()
    );
    assert_eq!(code(&foreign(all, &format!("{time};expires={}", SIGNED_AT - 1))), Code::Unauthenticated);
    assert_eq!(code(&foreign(all, &format!("{time};alg=\"ed25519\""))), Code::Unauthenticated);
    assert_eq!(code(&foreign(all, ";keyid=\"controller-1\"")), Code::Unauthenticated);
    assert_eq!(code(&foreign(all, &format!(";created={SIGNED_AT}"))), Code::Unauthenticated);
    assert_eq!(code(&foreign(r#""@method" "@path" "@query""#, &time)), Code::Unauthenticated);
    assert_eq!(code(&foreign(r#""@method" "@authority" "@path""#, &time)), Code::Unauthenticated);
    let mut moved = foreign(all, &time);
    moved.path_and_query = "/api/v1/jobs?limit=11".to_owned();
    assert_eq!(code(&moved), Code::Unauthenticated);
}

#[test]
fn every_refusal_of_a_signature_by_status_and_body() {
    let key = SigningKey::hmac(SECRET);
    let good = || request(&key, "controller-1", SIGNED_AT);
    let without = |name: &str| {
        let mut request = good();
        request.headers.retain(|(known, _)| known != name);
        request
    };
    let with = |name: &str, value: &str| {
        let mut request = without(name);
        request.headers.push((name.to_owned(), value.to_owned()));
        request
    };
    let time = format!(";created={SIGNED_AT};keyid=\"controller-1\"");
    let all = r#""@target-uri" "@method""#;
    let requests = [
        ("no proof", ReadRequest { headers: vec![], ..good() }),
        ("no Signature", without("signature")),
        ("no Signature-Input", without("signature-input")),
        ("malformed", with("signature-input", "quickcmd=(\"@method\"")),
        ("two signatures", with("signature", "a=:AA==:, b=:AA==:")),
        ("another label", with("signature", "other=:AA==:")),
        ("no created", foreign(all, ";keyid=\"controller-1\"")),
        ("created no number", foreign(all, ";created=\"now\";keyid=\"controller-1\"")),
        ("no keyid", foreign(all, &format!(";created={SIGNED_AT}"))),
        ("keyid no string", foreign(all, &format!(";created={SIGNED_AT};keyid=1"))),
        ("expires no number", foreign(all, &format!("{time};expires=\"never\""))),
        ("alg no string", foreign(all, &format!("{time};alg=1"))),
        ("a component twice", foreign(r#""@target-uri" "@method" "@method""#, &time)),
        ("a component that nobody knows", foreign(r#""@target-uri" "@method" "@status""#, &time)),
        ("a field that is not there", foreign(r#""@target-uri" "@method" "x-absent""#, &time)),
        ("no method covered", foreign(r#""@target-uri""#, &time)),
        ("no authority covered", foreign(r#""@method" "@path" "@query""#, &time)),
        ("no query covered", foreign(r#""@method" "@authority" "@path""#, &time)),
        ("another algorithm", foreign(all, &format!("{time};alg=\"ed25519\""))),
        ("wrong", request(&SigningKey::hmac("w"), "controller-1", SIGNED_AT)),
        ("another target", ReadRequest { path_and_query: "/api/v1/jobs".to_owned(), ..good() }),
        ("too old", request(&key, "controller-1", SIGNED_AT - 301)),
        ("from the future", request(&key, "controller-1", SIGNED_AT + 31)),
        ("expired", foreign(all, &format!("{time};expires={}", SIGNED_AT - 1))),
        ("on no list", request(&key, "stranger", SIGNED_AT)),
        ("two proofs", with("authorization", "Bearer qca_0")),
    ];
    let mut shown = std::collections::BTreeMap::new();
    for (name, request) in requests {
        let problem = gate().reader(&request, &Tokens::default(), NOW).expect_err(name);
        assert_eq!(problem.retry_after, None, "{name}");
        let body = serde_json::to_value(&problem).unwrap();
        shown.insert(name, json!({"status": problem.code.status(), "body": body}));
    }
    assert!(gate().reader(&good(), &Tokens::default(), NOW).is_ok());
    insta::assert_json_snapshot!("signatures", shown);
}
