//! kill -9 of the agent, and its orderly stop.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Agent, PATIENCE, bytes_of, signal, text_of, until};

#[tokio::test(flavor = "multi_thread")]
async fn five_running_and_fifty_queued_each_have_exactly_one_end() {
    let mut agent = Agent::with("max_concurrent_jobs: 5\n").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(agent.submit(&format!("echo begin {n}; sleep 12; echo end {n}")).await);
    }
    for id in &ids {
        agent.until_status(id, "running").await;
    }
    for n in 5..55 {
        ids.push(agent.submit(&format!("echo begin {n}; echo end {n}")).await);
    }
    agent.kill();
    tokio::time::sleep(Duration::from_millis(500)).await;
    agent.launch();
    agent.until_ready().await;
    for (n, id) in ids.iter().enumerate() {
        let end = agent.ended(id).await;
        assert_eq!((&end["status"], &end["reason"]), (&json!("completed"), &json!("exited")), "{end}");
        assert_eq!(end["result"]["stdout"], format!("begin {n}\nend {n}\n"));
    }
    let db = agent.db();
    let ends: i64 = db
        .query_row("select count(*) from audit where kind = 'job.ended'", [], |row| row.get(0))
        .expect("entries");
    assert_eq!(ends, 55, "each has exactly one end in the record");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_on_while_the_agent_is_dead_and_readers_miss_nothing() {
    let mut agent = Agent::start().await;
    let id =
        agent.submit("i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 9").await;
    let mut stream = agent.stream(&id, "").await;
    let mut frames = Vec::new();
    for _ in 0..5 {
        frames.push(stream.next().await.expect("a frame"));
    }
    agent.kill();
    drop(stream);
    tokio::time::sleep(Duration::from_secs(1)).await;
    agent.launch();
    agent.until_ready().await;
    let from = frames.last().expect("five")["seq"].as_u64().expect("a number") + 1;
    frames.extend(agent.stream(&id, &format!("?from_seq={from}")).await.read_to_end().await);
    let expected: String = (0..40).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text_of(&frames, "stdout"), expected);
    let end = frames.last().expect("the final frame");
    assert_eq!(
        (&end["result"]["reason"], &end["result"]["exit_code"]),
        (&json!("exited"), &json!(9)),
        "{end}"
    );
    let whole = agent.stream(&id, "").await.read_to_end().await;
    assert_eq!(bytes_of(&whole, "stdout"), expected.as_bytes(), "from the start, after the end");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ended_while_the_agent_was_dead_has_its_true_exit_code() {
    let mut agent = Agent::start().await;
    let id = agent.submit("sleep 1; echo late; exit 5").await;
    agent.until_status(&id, "running").await;
    agent.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    agent.launch();
    agent.until_ready().await;
    let end = agent.ended(&id).await;
    assert_eq!(
        (&end["result"]["exit_code"], &end["result"]["stdout"]),
        (&json!(5), &json!("late\n")),
        "{end}"
    );
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_over_a_crash_and_a_cancel_reaches_a_job_that_was_taken_up() {
    let mut agent = Agent::with("grace: 1s\n").await;
    let deadline = agent.submit_with("sleep 300", json!({"sandbox": {"timeout_seconds": 4}})).await;
    let endless = agent.submit("sleep 300").await;
    agent.until_status(&deadline, "running").await;
    agent.until_status(&endless, "running").await;
    agent.kill_and_restart().await;
    let end = agent.ended(&deadline).await;
    assert_eq!((&end["reason"], &end["result"]["exit_code"]), (&json!("timeout"), &json!(124)), "{end}");
    let body = crate::harness::cancel(&endless, crate::harness::CONTROLLER);
    let (status, answer) = agent.post_to(&format!("/api/v1/jobs/{endless}/cancel"), body).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(agent.ended(&endless).await["reason"], "cancelled");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_container_ends_its_job_as_lost_never_again() {
    let agent = Agent::start().await;
    let id = agent.submit("sleep 300").await;
    agent.until_status(&id, "running").await;
    let container = agent.containers().pop().expect("its container");
    let killed = std::process::Command::new("docker").args(["kill", &container]).output().expect("docker");
    assert!(killed.status.success(), "{killed:?}");
    let end = agent.ended(&id).await;
    assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("lost")), "{end}");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_running_jobs_end_and_keeps_the_queue() {
    let mut agent = Agent::with("max_concurrent_jobs: 1\n").await;
    let running = agent.submit("sleep 2; echo done").await;
    agent.until_status(&running, "running").await;
    let waiting = agent.submit("echo later").await;
    assert_eq!(agent.terminate(), Some(0));
    agent.launch();
    agent.until_ready().await;
    let end = agent.ended(&running).await;
    assert_eq!((&end["reason"], &end["result"]["stdout"]), (&json!("exited"), &json!("done\n")), "{end}");
    assert_eq!(agent.ended(&waiting).await["result"]["stdout"], "later\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_the_drain_time_is_cancelled() {
    let mut agent = Agent::with("drain_timeout: 1s\ngrace: 1s\n").await;
    let id = agent.submit("sleep 300").await;
    agent.until_status(&id, "running").await;
    assert_eq!(agent.terminate(), Some(0));
    agent.launch();
    agent.until_ready().await;
    let end = agent.ended(&id).await;
    assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("cancelled")), "{end}");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_hurries_and_an_open_stream_gets_its_end() {
    let mut agent = Agent::with("drain_timeout: 600s\ngrace: 1s\n").await;
    let id = agent.submit("echo begin; sleep 300").await;
    let mut stream = agent.stream(&id, "").await;
    while stream.next().await.expect("a frame")["stream"] != "stdout" {}
    signal(agent.pid(), Signal::SIGTERM);
    until("it waits for the job", PATIENCE, async || agent.log().contains("running jobs may end")).await;
    assert_eq!(agent.terminate(), Some(0), "the second one");
    let frames = stream.read_to_end().await;
    let end = frames.last().expect("the final frame");
    assert_eq!(end["result"]["reason"], "cancelled", "{end}");
    agent.launch();
    agent.until_ready().await;
    assert_eq!(agent.ended(&id).await["reason"], "cancelled");
    agent.no_container_left().await;
}
