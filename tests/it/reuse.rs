//! Sandboxes that run more than one job of a trusted controller, through the whole agent.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    harness::{Agent, PATIENCE, payload, sign_with, until},
    identity::reload,
    operate::done,
};

const KEY: &str = "7a6e50381b0a99887766554433221100d1c2b3a4958677685f4e3d2c4f2d9c1b";

/// No sandbox is kept for others; those of the trusted controller run up to 100 jobs.
fn config() -> String {
    format!(
        "pool: {{size: 0, max: 4}}\n\
         controllers: [{{id: trusted, scopes: ['*'], reuse: 100, keys: [{{secret: {KEY}}}]}}]\n"
    )
}

async fn submit(agent: &Agent, command: &str) -> String {
    submit_with(agent, command, &json!({})).await
}

async fn submit_with(agent: &Agent, command: &str, sandbox: &Value) -> String {
    let job = payload(command, json!({"controller_id": "trusted", "sandbox": sandbox}));
    let (status, answer) = agent.post(sign_with(&job.to_string(), KEY)).await;
    assert_eq!(status, 202, "{answer}");
    job["job_id"].as_str().expect("an id").to_owned()
}

/// Runs it, and waits until its sandbox waits for another.
async fn run(agent: &Agent, command: &str) -> Value {
    run_with(agent, command, &json!({})).await
}

async fn run_with(agent: &Agent, command: &str, sandbox: &Value) -> Value {
    let id = submit_with(agent, command, sandbox).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn of_a_controller_with_another_key_no_sandbox_lies_about() {
    let agent = Agent::with(&config()).await;
    let first = run(&agent, "echo residue > /tmp/left").await;
    assert_eq!(agent.containers().len(), 1);
    reload(&agent, |text| text.replace(KEY, &KEY.replace('7', "8"))).await;
    // Long before anything in the pool is forgotten by itself.
    until("its sandbox is gone", Duration::from_secs(30), async || agent.containers().is_empty()).await;
    assert_eq!(agent.metric("quickcmd_agent_pool_depth").await, 0.0);
    assert_ne!(agent.run("echo mine").await["sandbox_id"], first["sandbox_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_artifacts_are_each_jobs_own() {
    let mut agent = Agent::with(&config()).await;
    let look = "find /tmp /work -mindepth 1 | sort";
    let first = run_with(
        &agent,
        &format!(
            "{look}; cat in; mkdir out; echo one >out/a; echo one >out/b; echo one >/tmp/left; chmod 0 out/b"
        ),
        &json!({
            "files": [
                {"path": "in", "content": "of one\n"},
                {"path": "/tmp/deep/er/tool", "content": "#!/bin/sh\n", "mode": "0755"},
            ],
            "artifacts": ["out/a", "/tmp/left", "none"],
        }),
    )
    .await;
    let second = run_with(
        &agent,
        &format!("{look}; cat in; mkdir out; echo second >out/a; echo second >out/c"),
        // One of the same name, which could not be placed were the other's still there.
        &json!({"files": [{"path": "in", "content": "of two\n"}], "artifacts": ["out", "/tmp"]}),
    )
    .await;
    let third = run(&agent, look).await;
    let whole = "/tmp/deep\n/tmp/deep/er\n/tmp/deep/er/tool\n/work/in\nof one\n";
    assert_eq!(first["stdout"], whole, "{first}");
    assert_eq!(second["stdout"], "/work/in\nof two\n", "its own, and none of the first: {second}");
    assert_eq!(third["stdout"], "", "{third}");
    for result in [&first, &second, &third] {
        assert_eq!(result["exit_code"], 0, "{result}");
        assert_eq!(result["sandbox_id"], first["sandbox_id"], "in one sandbox: {result}");
    }
    let kept = |result: &Value| -> Vec<(String, Value)> {
        let list = result["artifacts"].as_array().cloned().unwrap_or_default();
        let one = |one: &Value| (one["path"].as_str().expect("a path").to_owned(), one["refused"].clone());
        list.iter().map(one).collect()
    };
    let name = |path: &str, refused: Value| (path.to_owned(), refused);
    let lists = [
        vec![name("out/a", Value::Null), name("/tmp/left", Value::Null), name("none", json!("missing"))],
        vec![name("out/a", Value::Null), name("out/c", Value::Null), name("/tmp", json!("missing"))],
        vec![],
    ];
    assert_eq!([kept(&first), kept(&second), kept(&third)], lists);
    for (result, path, bytes) in [
        (&first, "out/a", "one\n"),
        (&first, "tmp/left", "one\n"),
        (&second, "out/a", "second\n"),
        (&second, "out/c", "second\n"),
    ] {
        let id = result["job_id"].as_str().expect("an id");
        let url = agent.url(&format!("/api/v1/jobs/{id}/artifacts/{path}"));
        let answer = agent.http.get(url).send().await.expect("an answer");
        assert_eq!(answer.text().await.expect("text"), bytes, "{path} of {id}");
    }

    // Who looks is told that it waits for another, not that it was left over.
    let listed: Value = serde_json::from_str(&done(&agent, &["sandboxes", "--json"])).expect("JSON");
    let verdicts: Vec<_> =
        listed["sandboxes"].as_array().expect("a list").iter().map(|one| &one["verdict"]).collect();
    assert_eq!(verdicts, ["to_be_used_again"], "{listed}");
    let told = done(&agent, &["sandboxes"]);
    assert!(told.contains("waits to be used again") && told.contains("0 to be removed"), "{told}");
    agent.kill();
    let told = done(&agent, &["sandboxes"]);
    assert!(!told.contains("waits to be used again"), "nobody is there to use it: {told}");
    agent.launch();
    agent.until_ready().await;
    agent.no_container_left().await;
}
