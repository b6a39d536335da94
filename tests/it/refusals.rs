//! Every refusal of a submission by snapshot of the whole answer, in the order of the checks. Those of other requests are
//! in `answers`, what an agent from outside can't be brought to is in `api::tests::refusals`, and `tests/house.rs` sees
//! to it that no code is left out.

use reqwest::Response;
use serde_json::{Value, json};

use crate::harness::{Agent, now, payload, sign, sign_with};

/// Headers that say something about a refusal.
const HEADERS: [&str; 6] =
    ["retry-after", "www-authenticate", "allow", "content-range", "upgrade", "connection"];

/// Status, headers and body of an answer, with what changes from run to run replaced.
pub async fn shown(answer: Response) -> String {
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let mut body: Value = answer.json().await.expect("a body of JSON");
    // How long a bucket takes to fill depends on how long the test took so far.
    let varies = ["RATE_LIMITED", "QUOTA_EXCEEDED"].iter().any(|code| body["code"] == *code);
    let mut lines = status.to_string();
    for name in HEADERS {
        let Some(value) = headers.get(name) else { continue };
        let value = match name {
            "retry-after" if varies => "<n>",
            _ => value.to_str().expect("a text"),
        };
        lines += &format!("\n{name}: {value}");
    }
    if let Some(map) = body.as_object_mut() {
        for (key, value) in map.iter_mut() {
            if matches!(key.as_str(), "agent_time" | "skew_seconds" | "retry_after_seconds")
                && value.is_number()
            {
                *value = json!(format!("<{key}>"));
            }
            if let Some(text) = value.as_str() {
                *value = json!(without_what_varies(text));
            }
        }
    }
    format!("{lines}\n{}", serde_json::to_string_pretty(&body).expect("JSON"))
}

/// POSTs to that path as it is.
pub async fn post(agent: &Agent, path: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = agent.http.post(agent.url(path)).header("content-type", "application/json");
    request.body(body).send().await.unwrap_or_else(|error| panic!("no answer: {error:?}\n{}", agent.log()))
}

/// Times, waits and ids of this run; image names differ from host to host.
fn without_what_varies(text: &str) -> String {
    let mut text = text.replace(&crate::harness::image(), "<image>");
    for (pattern, shown) in [
        (r"\b\d+ s( behind| ahead|$)", "<n> s$1"),
        (r"\b1[0-9]{9}\b", "<time>"),
        (r"\b(job|it)-\d+-\d+", "<id>"),
        (r"\btoken:[0-9a-f]{16}\b", "token:<id>"),
    ] {
        text = regex::Regex::new(pattern).expect("a pattern").replace_all(&text, shown).into_owned();
    }
    text
}

macro_rules! refusal {
    ($agent:expr, $name:literal, $body:expr) => {
        insta::assert_snapshot!($name, shown(post(&$agent, "/api/v1/jobs", $body).await).await)
    };
}

fn with(more: Value) -> String {
    sign(&payload("true", more).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn shape_and_signature() {
    let agent = Agent::with("max_body_bytes: 4096\n").await;
    refusal!(agent, "body_too_large", with(json!({"prompt": "x".repeat(5000)})));
    let answer = agent
        .http
        .post(agent.url("/api/v1/jobs"))
        .header("content-type", "text/plain")
        .body(with(json!({})))
        .send()
        .await
        .expect("an answer");
    insta::assert_snapshot!("unsupported_media_type", shown(answer).await);
    refusal!(agent, "not_json", "{not json");
    refusal!(agent, "no_signature", r#"{"payload":{}}"#);
    refusal!(agent, "wrong_secret", sign_with(&payload("true", json!({})).to_string(), "wrong"));
    refusal!(agent, "wrong_algorithm", with(json!({})).replace("HMAC-SHA256", "none"));
    let (status, answer) = agent.post(with(json!({})).replace("\"true\"", "\"false\"")).await;
    assert_eq!((status, &answer["code"]), (401, &json!("INVALID_SIGNATURE")), "one field changed: {answer}");
    // The address stands in the log as one writes it, in the request's own words, too.
    let log = agent.log();
    let line = log.lines().find(|line| line.contains("submission refused")).expect("a line");
    let request =
        line.split_once("request{").and_then(|(_, rest)| rest.split_once('}')).expect("its request").0;
    assert!(request.contains("peer=127.0.0.1"), "{line}");
    assert!(!log.contains("=Some(") && !log.contains("=None"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness() {
    let agent = Agent::start().await;
    refusal!(agent, "expired", with(json!({"timestamp": now() - 100, "ttl": now() - 10})));
    refusal!(agent, "too_old", with(json!({"timestamp": now() - 400, "ttl": now() + 100})));
    refusal!(agent, "from_future", with(json!({"timestamp": now() + 3600, "ttl": now() + 3700})));
    refusal!(agent, "ttl_too_long", with(json!({"ttl": now() + 90_000})));
}

#[tokio::test(flavor = "multi_thread")]
async fn controller_and_fields() {
    let agent = Agent::start().await;
    refusal!(agent, "controller_not_allowed", with(json!({"controller_id": "stranger"})));
    refusal!(agent, "bad_job_id", with(json!({"job_id": "a job"})));
    refusal!(agent, "no_command", with(json!({"command": ""})));
    refusal!(agent, "command_and_argv", with(json!({"argv": ["true"]})));
    refusal!(agent, "nul_in_command", with(json!({"command": "a\u{0}b"})));
    refusal!(agent, "unknown_field", with(json!({"sudo": true})));
    refusal!(agent, "unknown_sandbox_field", with(json!({"sandbox": {"privileged": true}})));
    refusal!(agent, "wrong_type", with(json!({"ttl": "soon"})));
    refusal!(agent, "bad_workdir", with(json!({"sandbox": {"workdir": "/proc/self/fd/7"}})));
    refusal!(agent, "bad_env_name", with(json!({"sandbox": {"env": {"A=B": "c"}}})));
    refusal!(
        agent,
        "file_that_leads_up",
        with(json!({"sandbox": {"files": [{"path": "../x", "content": ""}]}}))
    );
    refusal!(agent, "another_agents_job", with(json!({"agent_id": "another-agent"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_controller_may() {
    let secret = "a-controllers-own-secret-of-enough-bytes";
    let agent = Agent::with(&format!(
        "default_memory_limit: 33554432\ndefault_pids_limit: 16\ndefault_timeout_seconds: 10\n\
         default_tmpfs_size: 1048576\ncontrollers:\n  - id: narrow\n    keys: [{{secret: \"{secret}\"}}]\n    scopes: [\"git:*\"]\n    \
         max: {{cpu: 1, memory: 64 MiB, pids: 32, timeout_seconds: 60, tmpfs: 16 MiB}}\n"
    ))
    .await;
    let narrow = |more: Value| {
        let mut all = more;
        all["controller_id"] = json!("narrow");
        sign_with(&payload("true", all).to_string(), secret)
    };
    refusal!(agent, "insufficient_scopes", narrow(json!({"required_scopes": ["git:read", "deploy"]})));
    refusal!(agent, "image_not_allowed", narrow(json!({"sandbox": {"image": "evil:latest"}})));
    refusal!(agent, "too_much_memory", narrow(json!({"sandbox": {"memory_limit": 67_108_865}})));
    refusal!(agent, "too_much_time", narrow(json!({"sandbox": {"timeout_seconds": 61}})));
    refusal!(agent, "network_not_granted", narrow(json!({"sandbox": {"network": "bridge"}})));
    refusal!(agent, "denied_by_policy", narrow(json!({"command": "sudo rm -rf / --no-preserve-root"})));
    let (status, answer) = agent.post(narrow(json!({"sandbox": {"memory_limit": 67_108_864}}))).await;
    assert_eq!(status, 202, "at its maximum a controller may: {answer}");
    // Refused after the MAC held: recorded, and told to who asks by id.
    let text = payload("rm -rf /", json!({"job_id": "denied-1"})).to_string();
    assert_eq!(agent.post(sign(&text)).await.0, 403);
    let (status, answer) = agent.get("/api/v1/jobs/denied-1").await;
    assert_eq!(
        (status, &answer["status"], &answer["reason"]),
        (200, &json!("rejected"), &json!("POLICY_DENIED")),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_queue_and_drain() {
    let agent = Agent::with("max_concurrent_jobs: 1\nmax_queue_depth: 2\n").await;
    let first = agent.submit("sleep 300").await;
    agent.until_status(&first, "running").await;
    agent.submit("true").await;
    let second = payload("true", json!({})).to_string();
    assert_eq!(agent.post(sign(&second)).await.0, 202);
    refusal!(agent, "queue_full", with(json!({})));
    let (status, answer) = agent.post(sign(&second)).await;
    assert_eq!((status, &answer["duplicate"]), (202, &json!(true)), "a retry is not refused: {answer}");

    let secret = "a-controllers-own-secret-of-enough-bytes";
    let agent = Agent::with(&format!(
        "controllers:\n  - id: slow\n    keys: [{{secret: \"{secret}\"}}]\n    \
         rate: {{per_second: 0.001, burst: 1}}\n"
    ))
    .await;
    let slow = || sign_with(&payload("true", json!({"controller_id": "slow"})).to_string(), secret);
    assert_eq!(agent.post(slow()).await.0, 202);
    refusal!(agent, "rate_limited", slow());

    let agent = Agent::with("rate_by_address: {per_second: 0.001, burst: 50}\nrate_exempt: []\n").await;
    for _ in 0..60 {
        let answer = post(&agent, "/api/v1/jobs", "{}").await;
        if answer.status().as_u16() == 429 {
            insta::assert_snapshot!("rate_limited_by_address", shown(answer).await);
            return;
        }
    }
    panic!("no refusal within 60 requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_controller_may_use() {
    let secret = |id: &str| format!("a-secret-of-{id}-that-has-enough-bytes");
    let own = |id: &str, more: &str| {
        format!("  - {{id: {id}, keys: [{{secret: \"{}\"}}], scopes: [\"*\"], {more}}}\n", secret(id))
    };
    let agent = Agent::with(&format!(
        "max_concurrent_jobs: 1\nmax_queue_depth: 10\ncontrollers:\n{}{}{}",
        own("few", "max_queued: 1"),
        own("brief", "daily: {output: 4}"),
        own("shy", "rate_of_reads: {per_second: 0.001, burst: 1}"),
    ))
    .await;
    let of = |id: &str, command: &str| {
        sign_with(&payload(command, json!({"controller_id": id})).to_string(), &secret(id))
    };

    // Four bytes may be, and four bytes there were: what used them up was still taken.
    let (status, answer) = agent.post(of("brief", "printf 1234")).await;
    assert_eq!(status, 202, "{answer}");
    agent.ended(answer["job_id"].as_str().expect("an id")).await;
    let mut answer = post(&agent, "/api/v1/jobs", of("brief", "printf 1234")).await;
    if answer.status().as_u16() == 202 {
        // Midnight came between, and with it a new quota: now that is used up.
        let accepted: Value = answer.json().await.expect("JSON");
        agent.ended(accepted["job_id"].as_str().expect("an id")).await;
        answer = post(&agent, "/api/v1/jobs", of("brief", "true")).await;
    }
    insta::assert_snapshot!("daily_output_used_up", shown(answer).await);

    let path = "/api/v1/jobs/no-such-job/cancel";
    let cancel = || {
        let text = json!({"action": "cancel", "job_id": "no-such-job", "timestamp": now(), "ttl": now() + 60,
                          "controller_id": "shy"});
        post(&agent, path, sign_with(&text.to_string(), &secret("shy")))
    };
    insta::assert_snapshot!("cancel_of_no_job", shown(cancel().await).await);
    insta::assert_snapshot!("rate_of_reads", shown(cancel().await).await);

    let first = agent.submit("sleep 300").await;
    agent.until_status(&first, "running").await;
    assert_eq!(agent.post(of("few", "true")).await.0, 202);
    refusal!(agent, "max_queued", of("few", "true"));
    // Of ten places one is kept for those that have less than their even share.
    for _ in 0..8 {
        agent.submit("true").await;
    }
    refusal!(agent, "fair_share", with(json!({})));
}
