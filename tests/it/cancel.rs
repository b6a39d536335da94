//! Cancelling: in the queue, while it runs, by others, and when it is over.

use serde_json::json;

use crate::harness::{Agent, CONTROLLER, cancel, now, payload, sign};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_ended() {
    let agent = Agent::start().await;
    let id = agent.submit("echo started; sleep 300").await;
    agent.until_status(&id, "running").await;
    let mut stream = agent.stream(&id, "?system=false").await;
    assert_eq!(stream.next().await.expect("a frame")["data"], "started\n");
    let path = format!("/api/v1/jobs/{id}/cancel");
    let (status, answer) = agent.post_to(&path, cancel(&id, CONTROLLER)).await;
    assert_eq!((status, &answer["cancel_requested"]), (202, &json!(true)), "{answer}");
    let end = agent.ended(&id).await;
    assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("cancelled")), "{end}");
    assert_eq!(end["result"]["stdout"], "started\n");
    let (status, answer) = agent.post_to(&path, cancel(&id, CONTROLLER)).await;
    assert_eq!((status, &answer["code"]), (409, &json!("JOB_ENDED")), "{answer}");
    agent.no_container_left().await;
}

/// A controller that gives two agents a job of the same id, and ends it at one of them: who has seen that go by can't
/// end the other with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_for_another_agent_ends_nothing_here() {
    let agent = Agent::with("audience: required\n").await;
    let here = agent.id.as_str();
    let job = payload("sleep 300", json!({"agent_id": here}));
    let (status, answer) = agent.post(sign(&job.to_string())).await;
    assert_eq!(status, 202, "{answer}");
    let id = job["job_id"].as_str().expect("an id");
    let path = format!("/api/v1/jobs/{id}/cancel");
    let of = |agent_id: Option<&str>| {
        let mut fields = json!({"action": "cancel", "job_id": id, "timestamp": now(), "ttl": now() + 60,
                                "controller_id": CONTROLLER});
        if let Some(agent_id) = agent_id {
            fields["agent_id"] = json!(agent_id);
        }
        sign(&fields.to_string())
    };
    let (status, answer) = agent.post_to(&path, of(Some("another-agent"))).await;
    assert_eq!((status, &answer["code"]), (403, &json!("WRONG_AGENT")), "{answer}");
    let (status, answer) = agent.post_to(&path, of(None)).await;
    assert_eq!((status, &answer["field"]), (400, &json!("agent_id")), "it might be for any: {answer}");
    agent.until_status(id, "running").await;
    assert!(matches!(agent.post_to(&path, of(Some(here))).await.0, 200 | 202));
    assert_eq!(agent.ended(id).await["reason"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ignores_sigterm_is_killed_after_the_grace() {
    let agent = Agent::with("grace: 1s\n").await;
    let id = agent.submit("trap '' TERM; echo deaf; while :; do sleep 1; done").await;
    let mut stream = agent.stream(&id, "?system=false").await;
    assert_eq!(stream.next().await.expect("a frame")["data"], "deaf\n");
    agent.post_to(&format!("/api/v1/jobs/{id}/cancel"), cancel(&id, CONTROLLER)).await;
    let end = agent.ended(&id).await;
    assert_eq!((&end["reason"], &end["result"]["signal"]), (&json!("cancelled"), &json!(9)), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_never_starts() {
    let agent = Agent::with("max_concurrent_jobs: 1\n").await;
    let first = agent.submit("sleep 300").await;
    agent.until_status(&first, "running").await;
    let second = agent.submit("echo never").await;
    let (status, answer) =
        agent.post_to(&format!("/api/v1/jobs/{second}/cancel"), cancel(&second, CONTROLLER)).await;
    assert_eq!((status, &answer["status"]), (200, &json!("failed")), "ended by it: {answer}");
    let end = agent.ended(&second).await;
    assert_eq!((&end["reason"], &end["result"]["sandbox_id"]), (&json!("cancelled"), &json!("")), "{end}");
    agent.post_to(&format!("/api/v1/jobs/{first}/cancel"), cancel(&first, CONTROLLER)).await;
    agent.ended(&first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_controllers_job_is_not_there_and_an_administrator_may() {
    let secret = "an-administrators-secret-of-enough-bytes";
    let agent = Agent::with(&format!(
        "controllers:\n  - id: boss\n    keys: [{{secret: \"{secret}\"}}]\n    scopes: [admin]\n"
    ))
    .await;
    let id = agent.submit("sleep 300").await;
    agent.until_status(&id, "running").await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    let (status, answer) = agent.post_to(&path, cancel(&id, "controller-2")).await;
    assert_eq!((status, &answer["code"]), (404, &json!("JOB_NOT_FOUND")), "{answer}");

    let (status, answer) = agent.post_to(&path, cancel("another-job", CONTROLLER)).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_FIELD")), "signed for another job: {answer}");
    let (status, answer) = agent.post_to(&path, cancel(&id, CONTROLLER).replace("a test", "a tesT")).await;
    assert_eq!(status, 401, "one letter changed: {answer}");

    let now = crate::harness::now();
    let text =
        json!({"action": "cancel", "job_id": id, "timestamp": now, "ttl": now + 60, "controller_id": "boss"});
    let (status, answer) = agent.post_to(&path, crate::harness::sign_with(&text.to_string(), secret)).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(agent.ended(&id).await["reason"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_controllers_have_the_id_it_is_said_whose_is_meant() {
    let secret = "an-administrators-secret-of-enough-bytes";
    let agent = Agent::with(&format!(
        "controllers:\n  - id: boss\n    keys: [{{secret: \"{secret}\"}}]\n    scopes: [admin]\n"
    ))
    .await;
    let id = agent.submit("sleep 300").await;
    agent.submit_with("sleep 300", json!({"controller_id": "controller-2", "job_id": id})).await;
    let path = format!("/api/v1/jobs/{id}");
    let (status, answer) = agent.get(&path).await;
    assert_eq!((status, &answer["code"]), (409, &json!("JOB_ID_AMBIGUOUS")), "{answer}");

    let now = crate::harness::now();
    let boss = async |more: serde_json::Value| {
        let mut text = json!({"action": "cancel", "job_id": id, "timestamp": now, "ttl": now + 60,
                              "controller_id": "boss"});
        text.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let body = crate::harness::sign_with(&text.to_string(), secret);
        agent.post_to(&format!("{path}/cancel"), body).await
    };
    let (status, answer) = boss(json!({})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("JOB_ID_AMBIGUOUS")), "{answer}");
    let (status, answer) = boss(json!({"job_controller_id": "nobody"})).await;
    assert_eq!((status, &answer["code"]), (404, &json!("JOB_NOT_FOUND")), "{answer}");
    let (status, answer) = boss(json!({"job_controller_id": "controller-2"})).await;
    assert!(matches!(status, 200 | 202), "{answer}");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let (status, theirs) = agent.get(&format!("{path}?controller_id=controller-2")).await;
        assert_eq!(status, 200, "{theirs}");
        if theirs["reason"] == "cancelled" {
            break;
        }
        assert!(std::time::Instant::now() < end, "it does not end: {theirs}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (status, other) = agent.get(&format!("{path}?controller_id={CONTROLLER}")).await;
    assert_eq!((status, &other["result"]), (200, &json!(null)), "the other one goes on: {other}");
    // Each controller means its own.
    let (status, answer) = agent.post_to(&format!("{path}/cancel"), cancel(&id, CONTROLLER)).await;
    assert!(matches!(status, 200 | 202), "{answer}");
}
