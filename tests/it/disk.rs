//! A disk that is nearly full, and a database that can't be written.

use serde_json::json;

use crate::{
    harness::{Agent, PATIENCE, payload, sign, signal, until},
    refusals::{post, shown},
};

/// Replaces a line of the configuration and has it read again.
fn reload(agent: &Agent, old: &str, new: &str) {
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    assert!(text.contains(old), "{text}");
    crate::harness::write_private(&file, &text.replace(old, new));
    signal(agent.pid(), nix::sys::signal::Signal::SIGHUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_low_watermark_jobs_are_refused_and_running_ones_end() {
    // The first holds on any disk, the second on none.
    let (plenty, too_little) = ("storage: {low_watermark: 1}", "storage: {low_watermark: 1024 TiB}");
    let agent = Agent::with(&format!("{plenty}\n")).await;
    let running = agent.submit("echo begin; sleep 3; echo end").await;
    agent.until_status(&running, "running").await;

    reload(&agent, plenty, too_little);
    until("/ready is red", PATIENCE, async || agent.get("/ready").await.0 == 503).await;
    let (_, ready) = agent.get("/ready").await;
    assert!(ready["problems"].to_string().contains("low watermark"), "{ready}");
    let body = sign(&payload("echo later", json!({})).to_string());
    insta::assert_snapshot!("storage_low", shown(post(&agent, "/api/v1/jobs", body.clone()).await).await);
    let end = agent.ended(&running).await;
    assert_eq!(end["result"]["stdout"], "begin\nend\n", "{end}");

    reload(&agent, too_little, plenty);
    until("/ready is green", PATIENCE, async || agent.get("/ready").await.0 == 200).await;
    let (status, answer) = agent.post(body).await;
    assert_eq!(status, 202, "the same bytes are taken when there is space: {answer}");
    agent.ended(answer["job_id"].as_str().expect("an id")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_refuses_and_forgets_nothing() {
    let agent = Agent::start().await;
    let running = agent.submit("echo begin; sleep 1; echo end").await;
    agent.until_status(&running, "running").await;

    // Somebody else writes, and does not come to an end.
    let stranger = rusqlite::Connection::open(agent.dir.path().join("data/agent-audit.db")).expect("a file");
    stranger.busy_timeout(PATIENCE).expect("a number");
    stranger.execute_batch("BEGIN IMMEDIATE").expect("the writer's lock");
    let refused = payload("echo never", json!({}));
    let answer = post(&agent, "/api/v1/jobs", sign(&refused.to_string())).await;
    insta::assert_snapshot!("storage_error", shown(answer).await);
    let (status, ready) = agent.get("/ready").await;
    assert_eq!(status, 503, "{ready}");
    assert!(ready["problems"].to_string().contains("locked"), "{ready}");
    // Nothing was accepted.
    let id = refused["job_id"].as_str().expect("an id");
    assert_eq!(agent.get(&format!("/api/v1/jobs/{id}")).await.0, 404);

    stranger.execute_batch("ROLLBACK").expect("the lock is given back");
    let end = agent.ended(&running).await;
    assert_eq!(end["result"]["stdout"], "begin\nend\n", "an end waits for the database: {end}");
    until("/ready is green", PATIENCE, async || agent.get("/ready").await.0 == 200).await;
    assert_eq!(agent.run("echo again").await["stdout"], "again\n");
}
