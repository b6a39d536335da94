//! Docker that does not answer: said by `/ready`, waited for, and over when it is over.

use std::fs;

use crate::{
    harness::{Agent, PATIENCE, Setup, until},
    proxy::{Mode, Proxy},
    rng::Rng,
};

/// Descriptors that may come and go.
const SLACK: usize = 16;

fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("a process").count()
}

/// What `/ready` says, as text.
async fn problems(agent: &Agent) -> String {
    agent.get("/ready").await.1["problems"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_that_hangs_refuses_or_breaks_off_is_waited_for() {
    let folder = tempfile::Builder::new().prefix("quickcmd-chaos-").tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let proxy = Proxy::start(&socket, Rng::new(1));
    let config = format!("docker_host: \"unix://{}\"\n", socket.display());
    let agent = Agent::setup(&Setup { config, signed_reads: false }).await;
    assert_eq!(agent.run("echo before").await["stdout"], "before\n");
    let before = descriptors(&agent);

    for (mode, said) in [
        (Mode::Hang, "takes connections but does not answer"),
        (Mode::Refuse, "can't be used"),
        // Each answer is cut off: what was asked for may have been done.
        (Mode::Cut(1), "can't be used"),
    ] {
        let over_it = agent.submit("echo begin; sleep 1; echo end").await;
        agent.until_status(&over_it, "running").await;
        proxy.set(mode);
        let waits = agent.submit("echo waited").await;
        until(&format!("{mode:?}: /ready names it"), PATIENCE, async || {
            problems(&agent).await.contains(said)
        })
        .await;
        // Its supervisor needs no Docker to tell of its end.
        let end = agent.ended(&over_it).await;
        assert_eq!(end["result"]["stdout"], "begin\nend\n", "{mode:?}: {end}");
        let (_, still) = agent.get(&format!("/api/v1/jobs/{waits}")).await;
        assert_ne!(still["status"], "failed", "{mode:?}: it waits: {still}");

        proxy.set(Mode::Pass);
        until(&format!("{mode:?}: /ready is green"), PATIENCE, async || agent.get("/ready").await.0 == 200)
            .await;
        let end = agent.ended(&waits).await;
        assert_eq!(end["result"]["stdout"], "waited\n", "{mode:?}: {end}");
    }
    agent.no_container_left().await;
    until("no descriptor is left", PATIENCE, async || descriptors(&agent) <= before + SLACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_start_was_not_answered_runs_when_docker_is_back() {
    let folder = tempfile::Builder::new().prefix("quickcmd-chaos-").tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let proxy = Proxy::start(&socket, Rng::new(1));
    let config = format!("docker_host: \"unix://{}\"\n", socket.display());
    let mut agent = Agent::prepare(&Setup { config, signed_reads: false });
    // Time to take Docker away between the making of the container and its start.
    agent.env = vec![("QUICKCMD_FAILPOINTS", "start=sleep:5000".to_owned())];
    agent.launch();
    agent.until_ready().await;
    let id = agent.submit("echo once").await;
    // Docker lists a container before it has answered for it.
    let made = "quickcmd_agent_docker_calls_total{call=\"create\",outcome=\"ok\"}";
    until("its container is made", PATIENCE, async || agent.metric(made).await >= 1.0).await;
    proxy.set(Mode::Refuse);
    let unanswered = "quickcmd_agent_docker_calls_total{call=\"start\",outcome=\"timeout\"}";
    until("the start has no answer", PATIENCE, async || agent.metric(unanswered).await >= 1.0).await;
    proxy.set(Mode::Pass);
    let end = agent.ended(&id).await;
    assert_eq!(end["result"]["stdout"], "once\n", "{end}\n{}", agent.log());
    agent.no_container_left().await;
}
