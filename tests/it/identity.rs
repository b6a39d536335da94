//! Controllers' keys and controllers themselves come and go while the agent runs.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{Agent, PATIENCE, SECRET, payload, sign, sign_with, signal, until, write_private};

const OLD: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const NEW: &str = "11112d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const OTHER: &str = "22222d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// The configuration's lines, changed, and SIGHUP; waits until the agent has taken them over.
pub async fn reload(agent: &Agent, change: impl FnOnce(String) -> String) {
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    write_private(&file, &change(text));
    let reloads = "quickcmd_agent_config_reloads_total{outcome=\"ok\"}";
    let before = agent.metric(reloads).await;
    signal(agent.pid(), Signal::SIGHUP);
    until("the reload", PATIENCE, async || agent.metric(reloads).await > before).await;
}

fn rotating(command: &str) -> Value {
    payload(command, json!({"controller_id": "rotating"}))
}

/// Submits as that controller, with that key; job id and answer.
async fn submit(agent: &Agent, secret: &str, command: &str) -> (String, u16, Value) {
    let job = rotating(command);
    let (status, answer) = agent.post(sign_with(&job.to_string(), secret)).await;
    (job["job_id"].as_str().expect("an id").to_owned(), status, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_and_no_job_is_lost() {
    let entry = |keys: &str| format!("controllers: [{{ id: rotating, keys: [{keys}] }}]");
    let old = format!("{{ key_id: old, secret: {OLD} }}");
    let ended = format!("{{ key_id: old, secret: {OLD}, not_after: 2024-01-01T00:00:00Z }}");
    let new = format!("{{ key_id: new, secret: {NEW} }}");
    let agent = Agent::with(&format!("max_concurrent_jobs: 1\n{}\n", entry(&old))).await;
    let (first, status, answer) = submit(&agent, OLD, "sleep 2; echo first").await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(submit(&agent, NEW, "true").await.1, 401, "it is not there yet");

    reload(&agent, |text| text.replace(&entry(&old), &entry(&format!("{old}, {new}")))).await;
    let mut ids = vec![(first, "first".to_owned())];
    for (secret, word) in [(OLD, "by-old"), (NEW, "by-new"), (OLD, "by-old-again")] {
        let (id, status, answer) = submit(&agent, secret, &format!("echo {word}")).await;
        assert_eq!(status, 202, "{answer}");
        ids.push((id, word.to_owned()));
    }

    reload(&agent, |text| text.replace(&entry(&format!("{old}, {new}")), &entry(&format!("{ended}, {new}"))))
        .await;
    let (_, status, answer) = submit(&agent, OLD, "true").await;
    assert_eq!((status, &answer["code"]), (401, &json!("INVALID_SIGNATURE")), "its time is over");
    let (last, status, answer) = submit(&agent, NEW, "echo last").await;
    assert_eq!(status, 202, "{answer}");
    ids.push((last, "last".to_owned()));
    for (id, word) in ids {
        assert_eq!(agent.ended(&id).await["result"]["stdout"], format!("{word}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_removed_takes_its_waiting_jobs_along_and_no_others() {
    let old = format!("{{ key_id: old, secret: {OLD} }}");
    let new = format!("{{ key_id: new, secret: {NEW} }}");
    let config = format!("max_concurrent_jobs: 1\ncontrollers: [{{ id: rotating, keys: [{old}, {new}] }}]\n");
    let mut agent = Agent::with(&config).await;
    let holds = agent.submit("sleep 300").await;
    agent.until_status(&holds, "running").await;
    let (stolen, ..) = submit(&agent, OLD, "echo never").await;
    let (own, ..) = submit(&agent, NEW, "echo own").await;
    reload(&agent, |text| text.replace(&format!("{old}, {new}"), &new)).await;
    let end = agent.ended(&stolen).await;
    assert_eq!((&end["reason"], &end["result"]["sandbox_id"]), (&json!("cancelled"), &json!("")), "{end}");
    assert_eq!(end["result"]["error"], "the job was cancelled: the key that signed it was removed");
    let (_, status) = agent.get(&format!("/api/v1/jobs/{own}")).await;
    assert_eq!(status["status"], "pending", "{status}");
    // The shared secret has no name, and is known all the same: by another life of the agent, too.
    let waits = agent.submit("echo never").await;
    agent.kill();
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    write_private(&file, &text.replace(SECRET, OTHER));
    agent.launch();
    agent.until_ready().await;
    assert_eq!(agent.ended(&waits).await["reason"], "cancelled");
    let body = json!({"action": "cancel", "job_id": holds, "timestamp": crate::harness::now(),
                      "ttl": crate::harness::now() + 60, "controller_id": crate::harness::CONTROLLER});
    let (status, answer) =
        agent.post_to(&format!("/api/v1/jobs/{holds}/cancel"), sign_with(&body.to_string(), OTHER)).await;
    assert_eq!(status, 202, "what runs is left alone: {answer}");
    assert_eq!(agent.ended(&own).await["result"]["stdout"], "own\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_controller_is_a_stranger_and_its_jobs_are_cancelled() {
    let entry = format!("controllers: [{{ id: rotating, keys: [{{ secret: {OLD} }}] }}]");
    let config = format!("max_concurrent_jobs: 1\non_revoke: cancel-all\n{entry}\n");
    let agent = Agent::with(&config).await;
    let (runs, status, answer) = submit(&agent, OLD, "sleep 300").await;
    assert_eq!(status, 202, "{answer}");
    agent.until_status(&runs, "running").await;
    let (waits, _, _) = submit(&agent, OLD, "echo never").await;
    let other = agent.submit("echo mine").await;

    reload(&agent, |text| text.replace("id: rotating", "id: rotating, revoked: true")).await;
    for id in [&runs, &waits] {
        let end = agent.ended(id).await;
        assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("cancelled")), "{end}");
    }
    assert_eq!(agent.ended(&other).await["result"]["stdout"], "mine\n");
    let (_, status, answer) = submit(&agent, OLD, "true").await;
    assert_eq!((status, &answer["code"]), (401, &json!("INVALID_SIGNATURE")), "{answer}");
    let mine = payload("true", json!({}));
    assert_eq!(agent.post(sign(&mine.to_string())).await.0, 202, "nobody else is touched");
    agent.no_container_left().await;
}
