//! The gate as its callers see it. The clock stands in January 2024, as in the known answers.

mod holders;
mod keys;
mod reads;
mod refusals;
mod submissions;

use std::time::Duration;

use regex::Regex;
use secrecy::SecretSlice;
use serde_json::{Value, json};

use super::{Gate, Refused};
use crate::{
    base::clock::Timestamp,
    config::{Controller, Daily, GateConfig, Key, Limits, Policy, Rate, ReadAccess, Rule},
    wire::{
        envelope,
        key::{Algorithm, SigningKey},
    },
};

const SECRET: &str = "4f2d9c1b7a6e5038d1c2b3a4958677685f4e3d2c1b0a99887766554433221100";
const OTHER_SECRET: &str = "0011223344556677889900aabbccddeeff0011223344556677889900aabbccdd";
const SIGNED_AT: i64 = 1_704_628_500;
const NOW: Timestamp = Timestamp(SIGNED_AT * 1_000_000_000);

fn hmac_key(key_id: Option<&str>, secret: &str) -> Key {
    Key {
        key_id: key_id.map(str::to_owned),
        algorithm: Algorithm::HmacSha256,
        material: SecretSlice::from(secret.as_bytes().to_vec()),
        not_before: None,
        not_after: None,
    }
}

fn controller(id: &str, keys: Vec<Key>) -> Controller {
    Controller {
        id: id.to_owned(),
        keys,
        scopes: vec!["*".to_owned()],
        admin: false,
        images: None,
        max: Limits { cpu: 2.0, memory: 1 << 30, pids: 512, timeout_seconds: 3_600, tmpfs: 1 << 28 },
        network: false,
        rate: Rate { per_second: 0.0, burst: 0 },
        rate_of_reads: Rate { per_second: 0.0, burst: 0 },
        max_queued: None,
        max_running: None,
        daily: Daily::default(),
        reuse: 1,
    }
}

fn rule(name: &str, pattern: &str) -> Rule {
    Rule { name: name.to_owned(), pattern: Regex::new(pattern).unwrap() }
}

/// `controller-1` as in the seed, with the shared secret; `limited` with a key and rules of its own.
fn config() -> GateConfig {
    let shared = hmac_key(None, SECRET);
    let mut limited = controller("limited", vec![hmac_key(Some("2024"), OTHER_SECRET)]);
    limited.scopes = vec!["git:*".to_owned(), "docker".to_owned()];
    limited.images = Some(vec!["busybox:1".to_owned(), "alpine:latest".to_owned()]);
    limited.max = Limits { cpu: 0.5, memory: 64 << 20, pids: 32, timeout_seconds: 60, tmpfs: 1 << 20 };
    limited.max_queued = Some(3);
    let mut admin = controller("https://admin.example.com", vec![shared.clone()]);
    admin.admin = true;
    admin.network = true;
    GateConfig {
        agent_id: "agent-1".to_owned(),
        audience_required: false,
        authorities: vec![],
        controllers: vec![controller("controller-1", vec![shared.clone()]), limited, admin],
        revoked: Vec::new(),
        shared_keys: vec![shared],
        max_age: Duration::from_secs(300),
        max_skew: Duration::from_secs(30),
        max_ttl: Duration::from_secs(86_400),
        allowed_images: vec!["alpine:latest".to_owned(), "ubuntu:latest".to_owned()],
        default_image: "alpine:latest".to_owned(),
        defaults: Limits { cpu: 0.5, memory: 256 << 20, pids: 128, timeout_seconds: 300, tmpfs: 64 << 20 },
        rate_of_reads: Rate { per_second: 0.0, burst: 0 },
        policy: Policy { allow: vec![], deny: vec![rule("root-deletion", r"rm\s+-rf\s+/(\s|$)")] },
    }
}

fn gate() -> Gate {
    Gate::new(&config(), ReadAccess::Signed).unwrap()
}

/// The seed's payload with some members changed; a null removes the member.
fn payload(changes: &Value) -> String {
    let mut payload = json!({
        "job_id": "job-123", "prompt": "list files", "command": "ls -la", "candidate_metadata": {},
        "plugin_metadata": {}, "required_scopes": [], "snapshot_metadata": "",
        "ttl": SIGNED_AT + 300, "timestamp": SIGNED_AT, "controller_id": "controller-1"
    });
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            payload.as_object_mut().unwrap().remove(name);
        } else {
            payload[name] = value.clone();
        }
    }
    payload.to_string()
}

fn signed(changes: &Value) -> Vec<u8> {
    envelope::sign(payload(changes).as_bytes(), &SigningKey::hmac(SECRET))
}

fn limited(changes: &Value) -> Vec<u8> {
    let mut changes = changes.clone();
    changes["controller_id"] = json!("limited");
    envelope::sign(payload(&changes).as_bytes(), &SigningKey::hmac(OTHER_SECRET).named("2024"))
}

fn refused(body: &[u8]) -> Refused {
    gate().submit(body, NOW).unwrap_err()
}
