use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::wire::{Code, payload::Network};

#[derive(Deserialize)]
struct Vector {
    name: String,
    secret: String,
    body: String,
    signature: String,
    valid: bool,
}

#[test]
fn known_answers_of_v1_controllers() {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../tests/data/signing-v1.json")).unwrap();
    assert_eq!(vectors.len(), 12);
    for vector in vectors {
        let mut config = config();
        config.controllers = vec![controller("controller-1", vec![hmac_key(None, &vector.secret)])];
        let gate = Gate::new(&config, ReadAccess::Signed).unwrap();
        let answer = gate.submit(vector.body.as_bytes(), NOW);
        match answer {
            Ok(admitted) => {
                assert!(vector.valid, "{}", vector.name);
                let key = SigningKey::hmac(vector.secret.as_bytes());
                assert_eq!(hex::encode(key.sign(admitted.raw())), vector.signature, "{}", vector.name);
            }
            Err(refused) if vector.valid => {
                assert!(vector.name.contains("refused with 400"), "{}: {refused:?}", vector.name);
                assert_eq!(refused.problem.code.status(), 400);
                assert_eq!(refused.problem.more["field"], "command");
                assert!(refused.authenticated.is_some());
            }
            Err(refused) => {
                assert_eq!(refused.problem.code, Code::InvalidSignature, "{}", vector.name);
                assert_eq!(refused.authenticated, None);
            }
        }
    }
}

#[test]
fn what_is_admitted_is_what_was_signed() {
    let text = payload(&json!({"candidate_metadata": {"risk_level": "high"}}));
    let admitted = gate().submit(&envelope::sign(text.as_bytes(), &SigningKey::hmac(SECRET)), NOW).unwrap();
    assert_eq!(admitted.raw(), text.as_bytes());
    assert_eq!(admitted.payload_sha256().len(), 64);
    assert_eq!((admitted.controller_id(), admitted.key_id()), ("controller-1", None));
    assert_eq!((admitted.image(), admitted.network()), ("alpine:latest", Network::None));
    assert_eq!(admitted.limits(), config().defaults);
    assert_eq!(admitted.argv(), ["/bin/sh", "-c", "ls -la"]);
    assert_eq!(admitted.risk_level(), "high");
}

#[test]
fn wishes_within_the_maximum_are_granted_and_defaults_lowered_to_it() {
    let admitted = gate().submit(&limited(&json!({})), NOW).unwrap();
    assert_eq!(admitted.limits(), config().controllers[1].max);
    assert_eq!((admitted.key_id(), admitted.max_queued()), (Some("2024"), Some(3)));
    let asked = json!({
        "command": "", "argv": ["git", "status"], "required_scopes": ["git:read", "docker"], "agent_id": "agent-1",
        "sandbox": {"image": "busybox:1", "cpu_limit": 0.5, "memory_limit": 64 << 20, "pids_limit": 32,
                    "timeout_seconds": 60, "tmpfs_size": 1 << 20}
    });
    let admitted = gate().submit(&limited(&asked), NOW).unwrap();
    assert_eq!(admitted.image(), "busybox:1");
    assert_eq!(admitted.argv(), ["git", "status"]);
    let bridge = json!({"controller_id": "https://admin.example.com", "sandbox": {"network": "bridge"}});
    assert_eq!(gate().submit(&signed(&bridge), NOW).unwrap().network(), Network::Bridge);
}

#[test]
fn freshness_is_exact_at_its_bounds() {
    let at = |ttl: i64, timestamp: i64| {
        let changes = json!({"ttl": SIGNED_AT + ttl, "timestamp": SIGNED_AT + timestamp});
        gate().submit(&signed(&changes), NOW).map_err(|refused| {
            let number = |name: &str| refused.problem.more[name].as_i64().unwrap();
            assert_eq!(number("agent_time"), SIGNED_AT);
            assert_eq!(refused.problem.code.sentence(), "Job expired or too old");
            (refused.problem.code, number("skew_seconds"), number("allowed_seconds"))
        })
    };
    for (ttl, timestamp) in [(0, 0), (0, -300), (10, 30), (86_400, 0), (86_100, -300), (86_430, 30)] {
        assert!(at(ttl, timestamp).is_ok(), "{ttl} {timestamp}");
    }
    assert_eq!(at(-1, 0).unwrap_err(), (Code::JobExpired, 1, 0));
    assert_eq!(at(0, -301).unwrap_err(), (Code::JobTooOld, 301, 300));
    assert_eq!(at(-1, -301).unwrap_err(), (Code::JobExpired, 1, 0));
    assert_eq!(at(100, 31).unwrap_err(), (Code::JobFromFuture, 31, 30));
    assert_eq!(at(86_401, 0).unwrap_err(), (Code::JobFromFuture, 86_401, 86_400));
    // Fractions of the agent's second count for nobody.
    let last = Timestamp(NOW.0 + 999_999_999);
    assert!(gate().submit(&signed(&json!({"ttl": SIGNED_AT})), last).is_ok());
    for (ttl, timestamp) in
        [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MAX, i64::MAX), (i64::MAX, SIGNED_AT)]
    {
        let body = signed(&json!({"ttl": ttl, "timestamp": timestamp}));
        assert_eq!(refused(&body).problem.code.status(), 401);
    }
}

#[test]
fn the_first_check_that_fails_answers() {
    // Each body breaks one rule more than the one after it.
    let mut config = config();
    config.audience_required = true;
    let gate = Gate::new(&config, ReadAccess::Signed).unwrap();
    let code = |body: &[u8]| gate.submit(body, NOW).unwrap_err().problem.code;
    let all = json!({
        "ttl": 1, "controller_id": "stranger", "job_id": "no good", "agent_id": "agent-2",
        "required_scopes": ["admin"], "sandbox": {"image": "x", "pids_limit": 1000}, "command": "rm -rf /"
    });
    let mut body = all.clone();
    assert_eq!(code(&signed(&body)[..50]), Code::InvalidJson);
    assert_eq!(
        code(&envelope::sign(payload(&body).as_bytes(), &SigningKey::hmac("x"))),
        Code::InvalidSignature
    );
    assert_eq!(code(&signed(&body)), Code::JobExpired);
    body["ttl"] = json!(SIGNED_AT);
    assert_eq!(code(&signed(&body)), Code::ControllerNotAllowed);
    body["controller_id"] = json!("controller-1");
    assert_eq!(code(&signed(&body)), Code::InvalidField);
    body["job_id"] = json!("good");
    assert_eq!(code(&signed(&body)), Code::WrongAgent);
    body["agent_id"] = json!("agent-1");
    assert_eq!(code(&signed(&body)), Code::InsufficientScopes);
    body["required_scopes"] = json!(["anything"]);
    assert_eq!(code(&signed(&body)), Code::ImageNotAllowed);
    body["sandbox"]["image"] = json!("ubuntu:latest");
    assert_eq!(code(&signed(&body)), Code::LimitExceeded);
    body["sandbox"]["pids_limit"] = json!(512);
    assert_eq!(code(&signed(&body)), Code::PolicyDenied);
    body["command"] = json!("rm -rf /tmp/x");
    assert!(gate.submit(&signed(&body), NOW).is_ok());
}

#[test]
fn policy_sees_argv_joined_and_deny_beats_allow() {
    let mut config = config();
    config.policy.allow = vec![rule("listing", "^ls"), rule("removal", "^rm")];
    let gate = Gate::new(&config, ReadAccess::Signed).unwrap();
    let rule = |changes: &Value| match gate.submit(&signed(changes), NOW) {
        Ok(_) => "none".to_owned(),
        Err(refused) => refused.problem.more["rule"].as_str().unwrap().to_owned(),
    };
    assert_eq!(rule(&json!({})), "none");
    assert_eq!(rule(&json!({"command": "rm -rf /"})), "root-deletion");
    assert_eq!(rule(&json!({"command": "", "argv": ["rm", "-rf", "/"]})), "root-deletion");
    assert_eq!(rule(&json!({"command": "id"})), "allow");
    assert_eq!(rule(&json!({"command": "", "argv": ["ls", "/"]})), "none");
}

#[test]
fn refused_jobs_say_what_they_were_once_their_signature_holds() {
    let changes = json!({"command": "rm -rf /", "sandbox": {"secret_env": {"TOKEN": "hunter2"}}});
    let refusal = refused(&signed(&changes));
    assert!(!format!("{refusal:?}").contains("hunter2"));
    let claims = refusal.authenticated.unwrap();
    assert_eq!(claims.controller_id, "controller-1");
    assert_eq!(claims.job_id.as_deref(), Some("job-123"));
    assert_eq!((claims.prompt.as_str(), claims.command.as_str()), ("list files", "rm -rf /"));
    assert_eq!((claims.risk_level.as_str(), claims.secrets), ("medium", vec!["hunter2".to_owned()]));
    assert_eq!(claims.raw, payload(&changes).as_bytes());
    let unsafe_id = refused(&signed(&json!({"job_id": "../etc"}))).authenticated.unwrap();
    assert_eq!(unsafe_id.job_id, None);
    let argv = refused(&signed(&json!({"command": "", "argv": ["rm", "-rf", "/"]}))).authenticated.unwrap();
    assert_eq!(argv.command, "rm -rf /");
}

#[test]
fn cancellations() {
    let cancel = |changes: Value| {
        let mut fields = json!({
            "action": "cancel", "job_id": "job-123", "timestamp": SIGNED_AT, "ttl": SIGNED_AT + 60,
            "controller_id": "controller-1"
        });
        for (name, value) in changes.as_object().unwrap() {
            fields[name] = value.clone();
        }
        let body = envelope::sign(fields.to_string().as_bytes(), &SigningKey::hmac(SECRET));
        gate().cancel("job-123", &body, NOW)
    };
    let own = cancel(json!({"reason": "changed my mind"})).unwrap();
    assert_eq!((own.controller_id(), own.job_id(), own.admin()), ("controller-1", "job-123", false));
    assert_eq!((own.reason(), own.job_controller_id()), (Some("changed my mind"), None));
    let others = cancel(json!({"job_controller_id": "limited"})).unwrap();
    assert_eq!(others.job_controller_id(), Some("limited"));
    assert!(cancel(json!({"controller_id": "https://admin.example.com"})).unwrap().admin());
    let problem = |changes| cancel(changes).unwrap_err().problem;
    for (changes, field) in [
        (json!({"action": "submit"}), "action"),
        (json!({"job_id": "job-124"}), "job_id"),
        (json!({"reason": "x".repeat(2000)}), "reason"),
        (json!({"ttl": "soon"}), "ttl"),
    ] {
        let problem = problem(changes);
        assert_eq!((problem.code, &problem.more["field"]), (Code::InvalidField, &json!(field)));
    }
    assert_eq!(problem(json!({"command": "id"})).code, Code::UnknownField);
    assert_eq!(problem(json!({"ttl": SIGNED_AT - 1})).code, Code::JobExpired);
    assert_eq!(problem(json!({"agent_id": "agent-2"})).code, Code::WrongAgent);
    assert_eq!(problem(json!({"controller_id": "stranger"})).code, Code::ControllerNotAllowed);
    // Where an audience is required, a cancellation needs one as a job does: without it, it would hold at every agent.
    let mut config = config();
    config.audience_required = true;
    let strict = Gate::new(&config, ReadAccess::Signed).unwrap();
    let cancel = |agent_id: Value| {
        let fields = json!({
            "action": "cancel", "job_id": "job-123", "timestamp": SIGNED_AT, "ttl": SIGNED_AT + 60,
            "controller_id": "controller-1", "agent_id": agent_id
        });
        let body = envelope::sign(fields.to_string().as_bytes(), &SigningKey::hmac(SECRET));
        strict.cancel("job-123", &body, NOW).map_err(|refused| refused.problem)
    };
    assert!(cancel(json!("agent-1")).is_ok());
    assert_eq!(cancel(json!("agent-2")).unwrap_err().code, Code::WrongAgent);
    let missing = cancel(Value::Null).unwrap_err();
    assert_eq!((missing.code, &missing.more["field"]), (Code::InvalidField, &json!("agent_id")));
    // A signed job ends no job, and a signed cancellation starts none.
    assert_eq!(
        gate().cancel("job-123", &signed(&json!({})), NOW).unwrap_err().problem.code,
        Code::UnknownField
    );
}

proptest! {
    #[test]
    fn what_our_signer_signs_is_admitted_and_no_flipped_byte_is(
        prompt in "\\PC{0,40}", command in "[^\0]{1,40}", at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let text = payload(&json!({"prompt": prompt, "command": format!("true; {command}")}));
        let body = envelope::sign(text.as_bytes(), &SigningKey::hmac(SECRET));
        let gate = gate();
        // The deny list may strike by chance; that it was authentic is what counts.
        let holds = match gate.submit(&body, NOW) {
            Ok(admitted) => admitted.raw() == text.as_bytes(),
            Err(refused) => refused.authenticated.is_some(),
        };
        prop_assert!(holds);
        let mut flipped = text.into_bytes();
        let at = at.index(flipped.len());
        flipped[at] ^= 1 << bit;
        let mut forged = b"{\"payload\":".to_vec();
        forged.extend_from_slice(&flipped);
        forged.extend_from_slice(&body[11 + flipped.len()..]);
        let refused = gate.submit(&forged, NOW).unwrap_err();
        prop_assert_eq!(refused.authenticated, None);
    }

    #[test]
    fn arbitrary_bytes_are_refused_quietly(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let refused = gate().submit(&body, NOW).unwrap_err();
        prop_assert_eq!(refused.problem.code, Code::InvalidJson);
        prop_assert_eq!(refused.authenticated, None);
    }

    #[test]
    fn mutated_envelopes_never_panic_and_only_the_exact_payload_is_authentic(
        cut in any::<prop::sample::Index>(), drop in 0..20_usize, insert in "[\\PC\"\\\\{}:,]{0,12}",
    ) {
        let original = payload(&json!({}));
        let body = signed(&json!({}));
        let at = cut.index(body.len());
        let mut mutated = body[..at].to_vec();
        mutated.extend_from_slice(insert.as_bytes());
        mutated.extend_from_slice(&body[(at + drop).min(body.len())..]);
        match gate().submit(&mutated, NOW) {
            Ok(admitted) => prop_assert_eq!(admitted.raw(), original.as_bytes()),
            Err(refused) => prop_assert!(refused.problem.code.status() >= 400),
        }
        let _ = gate().cancel("job-123", &mutated, NOW);
    }
}
