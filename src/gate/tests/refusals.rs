//! Every refusal that the gate can give, as status and body.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::wire::Code;

#[test]
fn every_refusal_by_status_and_body() {
    let text = payload(&json!({}));
    let good = String::from_utf8(signed(&json!({}))).unwrap();
    let twice = text.replacen("\"command\":", "\"command\":\"id\",\"command\":", 1);
    let key = SigningKey::hmac(SECRET);
    let sandbox = |request: Value| limited(&json!({"sandbox": request}));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("no body", Vec::new()),
        ("no JSON", b"hello".to_vec()),
        ("cut short", good.as_bytes()[..good.len() - 1].to_vec()),
        ("a list", format!("[{text},{{}}]").into_bytes()),
        ("something after it", format!("{good} x").into_bytes()),
        ("payload twice", good.replacen('{', "{\"payload\":{},", 1).into_bytes()),
        ("unknown beside the payload", good.replacen('{', "{\"v\":2,", 1).into_bytes()),
        ("no payload", good.replace("\"payload\":", "\"other\":").into_bytes()),
        ("payload no object", br#"{"payload":[],"signature":{}}"#.to_vec()),
        ("signature no object", br#"{"payload":{},"signature":["a","b"]}"#.to_vec()),
        ("no algorithm", br#"{"payload":{},"signature":{"signature":"00"}}"#.to_vec()),
        ("unknown in the signature", good.replace("\"algorithm\"", "\"x\":1,\"algorithm\"").into_bytes()),
        ("no controller", envelope::sign(b"{}", &key)),
        ("wrong signature", envelope::sign(text.as_bytes(), &SigningKey::hmac("x"))),
        ("another algorithm", good.replace("HMAC-SHA256", "none").into_bytes()),
        ("expired", signed(&json!({"ttl": SIGNED_AT - 5}))),
        ("too old", signed(&json!({"timestamp": SIGNED_AT - 301}))),
        ("from the future", signed(&json!({"timestamp": SIGNED_AT + 31}))),
        ("ttl too long", signed(&json!({"ttl": SIGNED_AT + 86_401}))),
        ("controller on no list", signed(&json!({"controller_id": "stranger"}))),
        ("member twice", envelope::sign(twice.as_bytes(), &key)),
        ("unknown field", signed(&json!({"tll": 5}))),
        ("unknown field of the sandbox", sandbox(json!({"privileged": true}))),
        ("field missing", signed(&json!({"job_id": null}))),
        ("field of a wrong type", signed(&json!({"ttl": "tomorrow"}))),
        ("job id", signed(&json!({"job_id": "a b"}))),
        ("command and argv", signed(&json!({"argv": ["id"]}))),
        ("workdir", sandbox(json!({"workdir": "/proc/self/fd/7"}))),
        ("least limit", sandbox(json!({"memory_limit": 1024}))),
        ("file that leads up", sandbox(json!({"files": [{"path": "../x", "content": ""}]}))),
        ("another agent", signed(&json!({"agent_id": "agent-2"}))),
        ("scopes", limited(&json!({"required_scopes": ["git:push", "admin", "dockerfile"]}))),
        ("image", sandbox(json!({"image": "ubuntu:latest"}))),
        ("cpu", sandbox(json!({"cpu_limit": 0.75}))),
        ("memory", sandbox(json!({"memory_limit": (64 << 20) + 1}))),
        ("pids", sandbox(json!({"pids_limit": 33}))),
        ("timeout", sandbox(json!({"timeout_seconds": 61}))),
        ("tmpfs", sandbox(json!({"tmpfs_size": (1 << 20) + 1}))),
        ("network", sandbox(json!({"network": "bridge"}))),
        ("policy", signed(&json!({"command": "sudo rm -rf / "}))),
    ];
    let mut shown = BTreeMap::new();
    for (name, body) in bodies {
        let refused = refused(&body);
        let status = refused.problem.code.status();
        // Recorded or not: exactly what is refused before or by the signature is not.
        let before = matches!(refused.problem.code, Code::InvalidJson | Code::InvalidSignature);
        assert_eq!(refused.authenticated.is_none(), before, "{name}");
        let body = serde_json::to_value(&refused.problem).unwrap();
        shown.insert(name, json!({"status": status, "body": body}));
    }
    insta::assert_json_snapshot!("refusals", shown);
}
