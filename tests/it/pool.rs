//! Sandboxes that wait before their job comes, through the whole agent.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Agent, PATIENCE};

const CONFIG: &str = "pool: {size: 2, max: 3}\n";

async fn until_waiting(agent: &Agent, wanted: f64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let depth = agent.metric("quickcmd_agent_pool_depth").await;
        if depth >= wanted {
            return;
        }
        assert!(Instant::now() < end, "{depth} of {wanted} sandboxes wait:\n{}", agent.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_job_finds_a_sandbox_that_waits() {
    let mut agent = Agent::with(CONFIG).await;
    until_waiting(&agent, 2.0).await;
    assert_eq!(agent.containers().len(), 2, "nobody has asked for more");
    let first = agent.run("touch /tmp/mine && ls /tmp").await;
    assert_eq!((&first["exit_code"], &first["stdout"]), (&json!(0), &json!("mine\n")), "{first}");
    assert_eq!(agent.metric("quickcmd_agent_pool_hits_total").await, 1.0);
    assert_eq!(agent.metric("quickcmd_agent_pool_misses_total").await, 0.0);

    // Each is used once: the next job is in another container, and sees nothing of the first.
    let second = agent.submit_with("ls /tmp", json!({"controller_id": "controller-2"})).await;
    let second = agent.ended(&second).await["result"].clone();
    assert_eq!((&second["exit_code"], &second["stdout"]), (&json!(0), &json!("")), "{second}");
    let used: i64 = agent
        .db()
        .query_row("select count(distinct sandbox_id) from runs", [], |row| row.get(0))
        .expect("a count");
    assert_eq!(used, 2, "two jobs, two containers");
    assert_eq!(agent.metric("quickcmd_agent_pool_hits_total").await, 2.0, "controllers share what waits");

    until_waiting(&agent, 2.0).await;
    assert_eq!(agent.terminate(), Some(0));
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_gone_after_a_crash() {
    let mut agent = Agent::with(CONFIG).await;
    until_waiting(&agent, 2.0).await;
    let before = agent.containers();
    agent.kill_and_restart().await;
    until_waiting(&agent, 2.0).await;
    let end = Instant::now() + PATIENCE;
    while agent.containers().iter().any(|container| before.contains(container)) {
        assert!(Instant::now() < end, "{before:?} are still there: {:?}", agent.containers());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let result = agent.run("echo again").await;
    assert_eq!(result["stdout"], "again\n", "{result}");
}
