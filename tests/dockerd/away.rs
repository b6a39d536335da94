//! dockerd is stopped, killed and frozen while jobs run and wait. Whatever it does: `/ready` names it and turns green by
//! itself, who waits runs when it is back, each job has exactly one end, and nothing is left.

use std::fs;

use serde_json::{Value, json};

use crate::{
    engine::Dockerd,
    harness::{Agent, PATIENCE, Setup, until, write_private},
};

/// A pool in the configuration.
const POOL: &str = "pool: {size: 1, max: 1}";
/// Descriptors that may come and go.
const SLACK: usize = 16;

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("a process").count()
}

/// An agent of that engine.
async fn agent(docker: &Dockerd, more: &str, failpoints: &str) -> Agent {
    let config = format!("docker_host: \"{}\"\ngrace: 1s\n{more}", docker.host());
    let mut agent = Agent::prepare(&Setup { config, signed_reads: false });
    agent.env = vec![("QUICKCMD_FAILPOINTS", failpoints.to_owned())];
    agent.launch();
    agent.until_ready().await;
    agent
}

/// Waits until `/ready` is red for one of these reasons.
async fn red(agent: &Agent, reasons: &[&str]) {
    until(&format!("/ready says one of {reasons:?}"), PATIENCE, async || {
        let (status, answer) = agent.get("/ready").await;
        let problems = answer["problems"].to_string();
        status == 503 && reasons.iter().any(|reason| problems.contains(reason))
    })
    .await;
}

async fn green(agent: &Agent) {
    until("/ready is green", PATIENCE, async || agent.get("/ready").await.0 == 200).await;
}

/// Where a job stands.
async fn status(agent: &Agent, id: &str) -> Value {
    agent.get(&format!("/api/v1/jobs/{id}")).await.1["status"].clone()
}

/// The container of a job, by the record.
fn container(agent: &Agent, id: &str) -> String {
    let query = "SELECT container_id FROM jobs WHERE job_id = ?";
    agent.db().query_row(query, [id], |row| row.get(0)).expect("its container")
}

/// Waits until these jobs have said `begin`, and Docker knows that their containers run: it answers a start, and writes
/// it down, some time after the job has begun, and one that it forgets by being killed before that is nobody's to stop.
async fn under_way(docker: &Dockerd, agent: &Agent, ids: &[&str]) {
    for id in ids {
        agent.until_status(id, "running").await;
        until(&format!("{id} has begun"), PATIENCE, async || {
            let url = agent.url(&format!("/api/v1/jobs/{id}/output?stream=stdout"));
            let answer = agent.http.get(url).send().await.expect("an answer");
            answer.text().await.is_ok_and(|text| text == "begin\n")
        })
        .await;
        let container = container(agent, id);
        until(&format!("Docker knows that {id} runs"), PATIENCE, async || {
            let said = docker.docker(&["inspect", "--format", "{{.State.Running}}", &container]);
            said.stdout == b"true\n"
        })
        .await;
    }
}

/// Has something done in a job's sandbox, in the background.
fn exec(docker: &Dockerd, agent: &Agent, id: &str, command: &str) {
    let said = docker.docker(&["exec", "--detach", &container(agent, id), "/bin/sh", "-c", command]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Each of these jobs was accepted once, was begun once, and has one end.
fn one_end(agent: &Agent, ids: &[&str]) {
    let db = agent.db();
    for id in ids {
        let count = |kind: &str| -> i64 {
            db.query_row(
                "SELECT count(*) FROM audit WHERE kind = ? AND job = (SELECT row FROM jobs WHERE job_id = ?)",
                [kind, id],
                |row| row.get(0),
            )
            .expect("a count")
        };
        let kinds = ["job.accepted", "job.starting", "job.ended"].map(count);
        assert_eq!(kinds, [1, 1, 1], "{id}: accepted, begun, ended\n{}", agent.log());
    }
}

async fn nothing_left(docker: &Dockerd, agent: &Agent, descriptors_before: usize) {
    docker.no_container_left(agent).await;
    assert_eq!(agent.no_folder_left().await, None);
    until("no descriptor is left", PATIENCE, async || descriptors(agent) <= descriptors_before + SLACK).await;
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_live_restore_jobs_go_on_while_dockerd_is_stopped_or_killed() {
    let mut docker = Dockerd::start(true).await;
    let agent = agent(&docker, "max_concurrent_jobs: 2\n", "").await;
    assert_eq!(agent.run("echo before").await["stdout"], "before\n");
    let before = descriptors(&agent);
    for stopped in [true, false] {
        let until_told = "echo begin; until [ -e /tmp/go ]; do sleep 0.1; done; echo end; exit";
        let short = agent.submit(&format!("{until_told} 3")).await;
        let long = agent.submit(&format!("{until_told} 4")).await;
        under_way(&docker, &agent, &[&short, &long]).await;
        exec(&docker, &agent, &short, "sleep 2; touch /tmp/go");
        if stopped {
            docker.stop().await;
        } else {
            docker.kill();
        }
        let waits = agent.submit("echo waited").await;
        red(&agent, &["there is no Docker socket", "nothing answers"]).await;
        // Its supervisor needs no Docker to tell of its end.
        let end = agent.ended(&short).await;
        assert_eq!((&end["reason"], &end["result"]["exit_code"]), (&json!("exited"), &json!(3)), "{end}");
        assert_eq!(end["result"]["stdout"], "begin\nend\n");
        assert_eq!(
            (status(&agent, &waits).await, status(&agent, &long).await),
            (json!("pending"), json!("running"))
        );

        docker.up().await;
        green(&agent).await;
        let end = agent.ended(&waits).await;
        assert_eq!(end["result"]["stdout"], "waited\n", "{end}");
        // Docker has its container again, and the agent its end.
        exec(&docker, &agent, &long, "touch /tmp/go");
        let end = agent.ended(&long).await;
        assert_eq!((&end["reason"], &end["result"]["exit_code"]), (&json!("exited"), &json!(4)), "{end}");
        assert_eq!(end["result"]["stdout"], "begin\nend\n");
        one_end(&agent, &[&short, &long, &waits]);
    }
    nothing_left(&docker, &agent, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_live_restore_running_jobs_end_typed_and_waiting_ones_run() {
    let mut docker = Dockerd::start(false).await;
    let mut agent = agent(&docker, &format!("max_concurrent_jobs: 2\n{POOL}\n"), "").await;
    assert_eq!(agent.run("echo before").await["stdout"], "before\n");
    for stopped in [true, false] {
        let plain = agent.submit("echo begin; sleep 600").await;
        let stubborn = agent.submit("trap '' TERM; echo begin; while :; do sleep 1; done").await;
        under_way(&docker, &agent, &[&plain, &stubborn]).await;
        if stopped {
            docker.stop().await;
        } else {
            docker.kill();
        }
        let waits = agent.submit("echo waited").await;
        red(&agent, &["there is no Docker socket", "nothing answers"]).await;
        assert_eq!(status(&agent, &waits).await, "pending");
        if !stopped {
            // Nobody has told them yet.
            assert_eq!(status(&agent, &plain).await, "running");
        }
        docker.up().await;
        green(&agent).await;
        for id in [&plain, &stubborn] {
            let end = agent.ended(id).await;
            assert_eq!(
                (&end["status"], &end["result"]["stdout"]),
                (&json!("failed"), &json!("begin\n")),
                "{end}"
            );
            let said = match end["reason"].as_str() {
                // Its supervisor was asked to end by dockerd, and did so in time.
                Some("cancelled") => "stopped from outside",
                Some("lost") => "not run again",
                _ => panic!("{end}"),
            };
            assert!(end["result"]["error"].as_str().is_some_and(|error| error.contains(said)), "{end}");
        }
        let end = agent.ended(&waits).await;
        assert_eq!(end["result"]["stdout"], "waited\n", "{end}");
        one_end(&agent, &[&plain, &stubborn, &waits]);
    }
    // What waits in the pool goes with the agent. What dockerd was making when it was killed nobody knows of before a
    // sweep, the first of which a start does.
    let code = tokio::task::block_in_place(|| agent.terminate());
    assert_eq!(code, Some(0), "{}", agent.log());
    let file = agent.dir.path().join("agent.yaml");
    let config = fs::read_to_string(&file).expect("a configuration");
    write_private(&file, &config.replace(POOL, "pool: {size: 0, max: 0}"));
    agent.launch();
    agent.until_ready().await;
    docker.no_container_left(&agent).await;
    assert_eq!(agent.no_folder_left().await, None);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_dockerd_is_named_and_waited_for() {
    let docker = Dockerd::start(false).await;
    // Time to freeze it between the making of a container and its start.
    let agent = agent(&docker, "max_concurrent_jobs: 2\n", "start=sleep:3000").await;
    assert_eq!(agent.run("echo before").await["stdout"], "before\n");
    let before = descriptors(&agent);
    let short = agent.submit("echo begin; sleep 5; echo end").await;
    agent.until_status(&short, "running").await;
    let made = "quickcmd_agent_docker_calls_total{call=\"create\",outcome=\"ok\"}";
    let so_far = agent.metric(made).await;
    let in_the_middle = agent.submit("echo once").await;
    until("its container is made", PATIENCE, async || agent.metric(made).await > so_far).await;

    let frozen = docker.freeze();
    let waits = agent.submit("echo waited").await;
    red(&agent, &["takes connections but does not answer"]).await;
    let end = agent.ended(&short).await;
    assert_eq!(
        (&end["reason"], &end["result"]["stdout"]),
        (&json!("exited"), &json!("begin\nend\n")),
        "{end}"
    );
    // Also a start has its deadline; what Docker makes of it later is not the job's.
    let unanswered = "quickcmd_agent_docker_calls_total{call=\"start\",outcome=\"timeout\"}";
    until("the start has no answer", PATIENCE, async || agent.metric(unanswered).await >= 1.0).await;
    for id in [&in_the_middle, &waits] {
        assert_eq!(status(&agent, id).await, "pending", "{}", agent.log());
    }
    drop(frozen);

    green(&agent).await;
    for (id, said) in [(&in_the_middle, "once\n"), (&waits, "waited\n")] {
        let end = agent.ended(id).await;
        assert_eq!((&end["reason"], &end["result"]["stdout"]), (&json!("exited"), &json!(said)), "{end}");
    }
    one_end(&agent, &[&short, &in_the_middle, &waits]);
    nothing_left(&docker, &agent, before).await;
}
