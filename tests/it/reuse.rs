//! Sandboxes that run more than one job of a trusted controller, through the whole agent.

use serde_json::{Value, json};

use crate::harness::{Agent, PATIENCE, payload, sign_with, until};

const KEY: &str = "7a6e50381b0a99887766554433221100d1c2b3a4958677685f4e3d2c4f2d9c1b";

/// No sandbox is kept for others; those of the trusted controller run up to 100 jobs.
fn config() -> String {
    format!(
        "pool: {{size: 0, max: 4}}\n\
         controllers: [{{id: trusted, scopes: ['*'], reuse: 100, keys: [{{secret: {KEY}}}]}}]\n"
    )
}

async fn submit(agent: &Agent, command: &str) -> String {
    let job = payload(command, json!({"controller_id": "trusted"}));
    let (status, answer) = agent.post(sign_with(&job.to_string(), KEY)).await;
    assert_eq!(status, 202, "{answer}");
    job["job_id"].as_str().expect("an id").to_owned()
}

/// Runs it, and waits until its sandbox waits for another.
async fn run(agent: &Agent, command: &str) -> Value {
    let id = submit(agent, command).await;
    let result = agent.ended(&id).await["result"].clone();
    until("the sandbox waits again", PATIENCE, async || {
        agent.metric("quickcmd_agent_pool_depth").await == 1.0
    })
    .await;
    result
}

/// Calls to Docker of that name that came to something.
async fn calls(agent: &Agent, call: &str) -> f64 {
    agent.metric(&format!("quickcmd_agent_docker_calls_total{{call=\"{call}\",outcome=\"ok\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_a_used_sandbox_costs_docker_nothing() {
    let mut agent = Agent::with(&config()).await;
    let first = run(&agent, "echo left > /tmp/left; echo $HOME").await;
    for n in 0..5 {
        let next = run(&agent, &format!("ls /tmp; echo {n}")).await;
        assert_eq!((&next["exit_code"], &next["stdout"]), (&json!(0), &json!(format!("{n}\n"))), "{next}");
        assert_eq!(next["sandbox_id"], first["sandbox_id"]);
    }
    assert_eq!(agent.metric("quickcmd_agent_sandbox_reuses_total").await, 5.0);
    // The supervisor may have connected, and its jobs have run, before Docker has answered the start.
    until("Docker has answered", PATIENCE, async || calls(&agent, "start").await > 0.0).await;
    for call in ["create", "start"] {
        assert_eq!(calls(&agent, call).await, 1.0, "{call}");
    }
    for call in ["remove", "kill", "update"] {
        assert_eq!(calls(&agent, call).await, 0.0, "{call}");
    }
    let uses: String = agent
        .db()
        .query_row(
            "select group_concat(use, ' ') from (select json_extract(cast(entry as text), '$.use') as use \
             from audit where kind = 'job.container' order by number)",
            [],
            |row| row.get(0),
        )
        .expect("entries");
    assert_eq!(uses, "1 2 3 4 5 6");
    // Others go on as ever.
    let others = agent.run("echo mine").await;
    assert_ne!(others["sandbox_id"], first["sandbox_id"]);
    assert_eq!(agent.terminate(), Some(0));
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_a_used_sandbox_outlives_the_agent_and_is_its_last() {
    let mut agent = Agent::with(&config()).await;
    let first = run(&agent, "true").await;
    let id = submit(&agent, "echo begin; sleep 2; echo end").await;
    agent.until_status(&id, "running").await;
    agent.kill_and_restart().await;
    let second = agent.ended(&id).await["result"].clone();
    assert_eq!(
        (&second["reason"], &second["stdout"]),
        (&json!("exited"), &json!("begin\nend\n")),
        "{second}"
    );
    assert_eq!(second["sandbox_id"], first["sandbox_id"]);
    let third = run(&agent, "echo third").await;
    assert_eq!(third["stdout"], "third\n");
    assert_ne!(third["sandbox_id"], first["sandbox_id"]);
    assert_eq!(agent.terminate(), Some(0));
    agent.no_container_left().await;
}
