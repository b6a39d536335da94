//! Refusals of everything that is no submission, by snapshot of the whole answer.

use reqwest::{RequestBuilder, Response};
use serde_json::json;

use crate::{
    harness::{Agent, CONTROLLER, PATIENCE, Setup, cancel, payload, sign, until},
    operate::done,
    refusals::{post, shown},
};

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

macro_rules! answered {
    ($name:literal, $request:expr) => {
        insta::assert_snapshot!($name, shown(sent($request).await).await)
    };
}

/// A request for a stream as a client of WebSocket makes it.
fn stream(agent: &Agent, id: &str) -> RequestBuilder {
    let request = agent.http.get(agent.url(&format!("/api/v1/stream/{id}")));
    let request = request.header("connection", "upgrade").header("upgrade", "websocket");
    request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_jobs_and_what_they_left() {
    let agent = Agent::with("artifacts: {max_file: 4}\n").await;
    let get = |path: &str| agent.http.get(agent.url(path));
    answered!("list_without_proof", get("/api/v1/jobs"));
    answered!("no_such_job", get("/api/v1/jobs/no-such-job"));
    answered!("no_such_job_to_stream", stream(&agent, "no-such-job"));

    let first = payload(
        "echo 0123456789; printf 12345 >large; printf 1234 >small",
        json!({
            "sandbox": {"artifacts": ["small", "large"]}
        }),
    );
    let id = first["job_id"].as_str().expect("an id").to_owned();
    assert_eq!(agent.post(sign(&first.to_string())).await.0, 202);
    agent.ended(&id).await;
    let again = payload("echo something else", json!({"job_id": id}));
    insta::assert_snapshot!(
        "job_id_conflict",
        shown(post(&agent, "/api/v1/jobs", sign(&again.to_string())).await).await
    );
    let path = format!("/api/v1/jobs/{id}");
    insta::assert_snapshot!(
        "job_ended",
        shown(post(&agent, &format!("{path}/cancel"), cancel(&id, CONTROLLER)).await).await
    );
    answered!("artifact_unknown", get(&format!("{path}/artifacts/other")));
    answered!("artifact_too_large", get(&format!("{path}/artifacts/large")));
    assert_eq!(sent(get(&format!("{path}/artifacts/small"))).await.status(), 200, "at its limit it is kept");
    answered!("range_outside", get(&format!("{path}/output")).header("range", "bytes=11-"));
    assert_eq!(sent(get(&format!("{path}/output")).header("range", "bytes=10-")).await.status(), 206);

    // As retention takes them. Until the last answer is out of the agent's hands, it has the file open.
    for entry in std::fs::read_dir(agent.dir.path().join("data/spool")).expect("a folder") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("it was there");
    }
    for what in ["output", "artifacts"] {
        let gone = async || sent(get(&format!("{path}/{what}"))).await.status() == 410;
        until("what was removed is gone", PATIENCE, gone).await;
    }
    answered!("output_gone", get(&format!("{path}/output")));
    answered!("artifacts_gone", get(&format!("{path}/artifacts")));

    let running = agent.submit("sleep 300").await;
    answered!("artifacts_of_a_job_that_runs", get(&format!("/api/v1/jobs/{running}/artifacts")));

    // Whose job is meant?
    let theirs = payload("true", json!({"job_id": id, "controller_id": "controller-2"}));
    assert_eq!(agent.post(sign(&theirs.to_string())).await.0, 202);
    answered!("job_id_ambiguous", get(&path));
    assert_eq!(agent.get(&format!("{path}?controller_id={CONTROLLER}")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_requests_that_are_wrong_in_themselves() {
    let agent = Agent::start().await;
    let get = |path: &str| agent.http.get(agent.url(path));
    answered!("no_such_endpoint", get("/api/v2/jobs"));
    answered!("no_such_method", agent.http.delete(agent.url("/api/v1/jobs")));
    answered!("no_such_method_of_one_job", agent.http.put(agent.url("/api/v1/jobs/a")));
    answered!("two_hosts", get("/health").header("host", "one").header("host", "two"));
    answered!("query_out_of_range", get("/api/v1/jobs?limit=501"));
    answered!("query_unknown", get("/api/v1/jobs?colour=red"));
    answered!("query_twice", get("/api/v1/jobs?limit=1&limit=2"));
    answered!("query_of_a_stream", stream(&agent, "a?from_seq=0"));
    answered!("no_upgrade", get("/api/v1/stream/a"));
    answered!("origin_of_a_stream", stream(&agent, "a").header("origin", "https://evil.example.com"));
    let drain = agent.http.post(agent.url("/api/v1/drain"));
    answered!("origin_of_an_operator", drain.header("origin", "https://evil.example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_readers_without_proof() {
    let agent = Agent::setup(&Setup {
        config: "metrics_token: \"a-token-for-the-scraper-of-32-bytes\"\n".to_owned(),
        signed_reads: true,
    })
    .await;
    let get = |path: &str| agent.http.get(agent.url(path));
    answered!("read_without_proof", get("/api/v1/jobs/a"));
    answered!("stream_without_proof", stream(&agent, "a"));
    answered!("token_unknown", get("/api/v1/jobs/a").bearer_auth("qca_0"));
    answered!(
        "signature_malformed",
        get("/api/v1/jobs/a").header("signature-input", "x").header("signature", "y")
    );
    answered!("metrics_without_token", get("/metrics"));
    answered!("drain_without_proof", agent.http.post(agent.url("/api/v1/drain")));
    let token = done(&agent, &["token", "create", "--scope", "operate"]);
    answered!("read_without_the_right", get("/api/v1/jobs/a").bearer_auth(token.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_agent_that_drains() {
    let agent = Agent::start().await;
    done(&agent, &["drain"]);
    let body = sign(&payload("true", json!({})).to_string());
    insta::assert_snapshot!("draining", shown(post(&agent, "/api/v1/jobs", body).await).await);
}
