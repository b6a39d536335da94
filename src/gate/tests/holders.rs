//! Tokens and certificates: what they give the right to, and what they do not.

use super::*;
use crate::{
    gate::{Holder, ReadRequest, Reader, Token, Tokens, Via},
    wire::{Problem, rights::Rights, token},
};

const TEXT: &str = "qca_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// One token, good until [`NOW`].
fn tokens(scopes: &str, controller: Option<&str>) -> Tokens {
    let digest = token::digest(TEXT).unwrap();
    let rights = Rights::parse(scopes).unwrap();
    let token = Token::new(token::id(&digest), controller.map(str::to_owned), rights, NOW);
    Tokens::new([(digest, token)])
}

fn request(authorization: Option<&str>) -> ReadRequest {
    let headers = authorization.map(|value| ("authorization".to_owned(), value.to_owned()));
    ReadRequest {
        method: "GET".to_owned(),
        path_and_query: "/api/v1/jobs".to_owned(),
        headers: headers.into_iter().collect(),
        ..ReadRequest::default()
    }
}

fn bearer() -> ReadRequest {
    request(Some(&format!("Bearer {TEXT}")))
}

fn with_certificate(scopes: &str, controller: Option<&str>) -> ReadRequest {
    let holder = Holder {
        name: "certificate:backup".to_owned(),
        controller: controller.map(str::to_owned),
        rights: Rights::parse(scopes).unwrap(),
    };
    ReadRequest { certificate: Some(holder), ..request(None) }
}

/// Status, code and details.
fn said(problem: &Problem) -> String {
    format!(
        "{} {}: {}",
        problem.code.status(),
        problem.code.as_str(),
        problem.details.as_deref().unwrap_or_default()
    )
}

#[test]
fn a_token_that_is_revoked_is_good_no_more_at_once() {
    let (digest, known) = (token::digest(TEXT).unwrap(), tokens("read", None));
    known.revoke("another");
    assert!(gate().reader(&bearer(), &known, NOW).is_ok());
    known.revoke(&token::id(&digest));
    assert!(gate().reader(&bearer(), &known, NOW).is_err());
}

#[test]
fn a_token_reads_all_controllers_jobs_or_those_of_its_own() {
    let reader = gate().reader(&bearer(), &tokens("read", None), NOW).unwrap();
    assert!(reader.sees_all() && reader.may_see("controller-1") && reader.own().is_none());
    let reader = gate().reader(&bearer(), &tokens("read", Some("limited")), NOW).unwrap();
    assert!(reader.may_see("limited") && !reader.may_see("controller-1") && reader.own() == Some("limited"));
    assert!(reader.clone().only("controller-1".to_owned()).is_err());
    let lower = request(Some(&format!("bearer  {TEXT}")));
    assert!(gate().reader(&lower, &tokens("admin", None), NOW).is_ok(), "the scheme's case does not matter");
}

#[test]
fn who_reads_on_must_still_be_who_it_was() {
    let gate = gate();
    let digest = token::digest(TEXT).unwrap();
    for of in [None, Some("limited")] {
        let known = tokens("read", of);
        let reader = gate.reader(&bearer(), &known, NOW).unwrap();
        assert!(gate.may_go_on(&reader, None, &known, NOW));
        assert!(!gate.may_go_on(&reader, None, &known, Timestamp::from_secs(NOW.secs() + 1)), "it expires");
        assert!(!gate.may_go_on(&reader, None, &tokens("operate", of), NOW), "it is another");
        known.revoke(&token::id(&digest));
        assert!(!gate.may_go_on(&reader, None, &known, NOW), "it is revoked");

        let asked = with_certificate("read", of);
        let (reader, none) = (gate.reader(&asked, &Tokens::default(), NOW).unwrap(), Tokens::default());
        assert!(gate.may_go_on(&reader, asked.certificate.as_ref(), &none, NOW));
        assert!(!gate.may_go_on(&reader, None, &none, NOW), "it is no good any more");
        let other = with_certificate("operate", of);
        assert!(!gate.may_go_on(&reader, other.certificate.as_ref(), &none, NOW), "it gives other rights");
    }
    // A controller that is none any more, its token, and one that is no administrator any more.
    let known = tokens("read", Some("gone"));
    let holder = known.iter().next().unwrap().holder.clone();
    assert!(!gate.may_go_on(&Reader::Holder(holder), None, &known, NOW));
    let signed = |id: &str, admin| Reader::Controller { id: id.to_owned(), admin };
    assert!(!gate.may_go_on(&signed("gone", false), None, &known, NOW));
    assert!(gate.may_go_on(&signed("limited", false), None, &known, NOW));
    assert!(!gate.may_go_on(&signed("limited", true), None, &known, NOW));
    // Where an id is enough no more.
    assert!(!gate.may_go_on(&Reader::Anyone, None, &known, NOW));
}

#[test]
fn each_refusal_of_a_token_or_certificate() {
    let gate = gate();
    let read = |request: &ReadRequest, tokens: &Tokens, now| {
        gate.reader(request, tokens, now).map(drop).map_err(|problem| said(&problem)).unwrap_err()
    };
    let operate = |request: &ReadRequest, tokens: &Tokens| {
        gate.operator(request, tokens, NOW).map(drop).map_err(|problem| said(&problem)).unwrap_err()
    };
    let late = Timestamp(NOW.0 + 1);
    let mut both = bearer();
    both.headers.push(("signature".to_owned(), "sig1=:eA==:".to_owned()));
    let report = [
        ("no proof", read(&request(None), &tokens("read", None), NOW)),
        ("unknown token", read(&bearer(), &Tokens::default(), NOW)),
        ("no token at all", read(&request(Some("Bearer x")), &tokens("read", None), NOW)),
        ("another scheme", read(&request(Some(&format!("Basic {TEXT}"))), &tokens("read", None), NOW)),
        ("expired", read(&bearer(), &tokens("read", None), late)),
        ("without the right to read", read(&bearer(), &tokens("operate", None), NOW)),
        ("of a controller that is gone", read(&bearer(), &tokens("read", Some("gone")), NOW)),
        ("beside a signature", read(&both, &tokens("read", None), NOW)),
        ("certificate without the right", read(&with_certificate("submit", None), &Tokens::default(), NOW)),
        (
            "certificate of one that is gone",
            read(&with_certificate("read", Some("gone")), &Tokens::default(), NOW),
        ),
        ("operating without proof", operate(&request(None), &Tokens::default())),
        ("operating with a token to read", operate(&bearer(), &tokens("read", None))),
        (
            "operating with a certificate to read",
            operate(&with_certificate("read", None), &Tokens::default()),
        ),
    ];
    let lines: Vec<String> = report.iter().map(|(what, said)| format!("{what}: {said}")).collect();
    insta::assert_snapshot!(lines.join("\n"));
    // At its last moment it is still good.
    assert!(gate.reader(&bearer(), &tokens("read", None), NOW).is_ok());
}

#[test]
fn a_certificate_is_a_proof_and_a_token_comes_before_it() {
    let read = |request: &ReadRequest, tokens: &Tokens| gate().reader(request, tokens, NOW);
    let reader = read(&with_certificate("read", Some("limited")), &Tokens::default()).unwrap();
    assert_eq!(reader.own(), Some("limited"));
    let mut with_both = with_certificate("read", None);
    with_both.headers = bearer().headers;
    assert_eq!(read(&with_both, &tokens("read", Some("limited"))).unwrap().own(), Some("limited"));
    assert_eq!(read(&with_both, &Tokens::default()).unwrap_err().code, crate::wire::Code::Unauthenticated);
}

#[test]
fn where_the_id_is_enough_a_token_is_judged_and_a_certificate_without_rights_is_not() {
    let open = Gate::new(&config(), ReadAccess::JobId).unwrap();
    let read = |request: &ReadRequest, tokens: &Tokens| open.reader(request, tokens, NOW);
    assert_eq!(read(&with_certificate("submit", None), &Tokens::default()), Ok(Reader::Anyone));
    assert!(matches!(read(&with_certificate("read", None), &Tokens::default()), Ok(Reader::Holder(_))));
    assert_eq!(read(&bearer(), &Tokens::default()).unwrap_err().code, crate::wire::Code::Unauthenticated);
    assert_eq!(read(&bearer(), &tokens("operate", None)).unwrap_err().code, crate::wire::Code::Forbidden);
}

#[test]
fn who_operates_cancels_and_only_who_is_for_all_drains() {
    let gate = gate();
    let all = gate.operator(&bearer(), &tokens("operate", None), NOW).unwrap();
    let cancel =
        gate.cancel_by(&all, "job-1", br#"{"reason": "too long", "controller_id": "limited"}"#).unwrap();
    assert_eq!((cancel.job_id(), cancel.admin(), cancel.reason()), ("job-1", true, Some("too long")));
    assert_eq!((cancel.job_controller_id(), cancel.payload_sha256()), (Some("limited"), None));
    assert!(cancel.by().starts_with("token:"), "{}", cancel.by());
    assert_eq!(gate.may_drain(&all), Ok(()));

    let one = gate.operator(&bearer(), &tokens("operate", Some("limited")), NOW).unwrap();
    let cancel = gate.cancel_by(&one, "job-1", b"").unwrap();
    assert_eq!((cancel.controller_id(), cancel.admin(), cancel.reason()), ("limited", false, None));
    let bodies: [&[u8]; 6] =
        [b"{", b"[]", b"\xff", br#"{"why": 1}"#, br#"{"reason": 1}"#, br#"{"reason": "a", "reason": "b"}"#];
    let refused: Vec<String> =
        bodies.iter().map(|body| said(&gate.cancel_by(&one, "job-1", body).unwrap_err())).collect();
    insta::assert_snapshot!(format!("{}\n{}", said(&gate.may_drain(&one).unwrap_err()), refused.join("\n")));
    let reason = |length| format!("{{\"reason\": \"{}\"}}", "x".repeat(length));
    assert!(gate.cancel_by(&one, "job-1", reason(1024).as_bytes()).is_ok());
    assert!(gate.cancel_by(&one, "job-1", reason(1025).as_bytes()).is_err());
}

#[test]
fn the_last_use_is_noted_once() {
    let tokens = tokens("read", None);
    let uses = |tokens: &Tokens| tokens.iter().filter_map(Token::take_use).collect::<Vec<_>>();
    assert!(uses(&tokens).is_empty());
    gate().reader(&bearer(), &tokens, NOW).unwrap();
    assert_eq!(uses(&tokens), [NOW]);
    assert!(uses(&tokens).is_empty());
}

#[test]
fn no_debug_output_shows_a_token() {
    let shown = format!("{:?}", tokens("read", None));
    assert!(!shown.contains(TEXT) && !shown.contains(&TEXT[4..]), "{shown}");
}

#[test]
fn a_certificate_narrows_what_may_be_submitted_and_widens_nothing() {
    let gate = gate();
    let via = |scopes: &str, controller: Option<&str>| Via {
        peer: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        certificate: with_certificate(scopes, controller).certificate,
    };
    let body = signed(&json!({}));
    for (scopes, controller, taken) in [
        ("submit", None, true),
        ("admin", None, true),
        ("submit", Some("controller-1"), true),
        ("submit", Some("limited"), false),
        ("read operate", None, false),
    ] {
        let answer = gate.submit_via(&body, &via(scopes, controller), NOW);
        assert_eq!(answer.is_ok(), taken, "{scopes} {controller:?}");
        if let Err(refused) = answer {
            assert_eq!(refused.problem.code, crate::wire::Code::Forbidden);
            assert!(refused.authenticated.is_some(), "its signature held, so it is known whose it was");
        }
    }
    // A bad signature stays one, whoever's connection it is.
    let forged = envelope::sign(payload(&json!({})).as_bytes(), &SigningKey::hmac("w".repeat(64)));
    let refused = gate.submit_via(&forged, &via("admin", None), NOW).unwrap_err();
    assert_eq!(refused.problem.code, crate::wire::Code::InvalidSignature);
    let cancel = json!({"action": "cancel", "job_id": "job-123", "timestamp": SIGNED_AT, "ttl": SIGNED_AT + 60,
                        "controller_id": "controller-1"});
    let body = envelope::sign(cancel.to_string().as_bytes(), &SigningKey::hmac(SECRET));
    assert!(gate.cancel_via("job-123", &body, &via("submit", Some("controller-1")), NOW).is_ok());
    let refused = gate.cancel_via("job-123", &body, &via("submit", Some("limited")), NOW).unwrap_err();
    insta::assert_snapshot!(said(&refused.problem));
    let refused = gate.cancel_via("job-123", &body, &via("read", None), NOW).unwrap_err();
    insta::assert_snapshot!(said(&refused.problem));
}
