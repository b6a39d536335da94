//! SIGHUP: settings change without losing a job or a connection.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Agent, PATIENCE, payload, sign_with, signal, text_of, until, write_private};

const RELOADS: u32 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_under_load_lose_nothing() {
    let agent = Agent::with("max_concurrent_jobs: 3\n").await;
    let slow = agent.submit("for i in $(seq 1 30); do echo line $i; sleep 0.1; done").await;
    let mut stream = agent.stream(&slow, "").await;
    let reloads = async {
        for _ in 0..RELOADS {
            signal(agent.pid(), Signal::SIGHUP);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let jobs = async {
        let mut ids = Vec::new();
        for n in 0..12 {
            ids.push((n, agent.submit(&format!("echo {n}")).await));
        }
        for (n, id) in ids {
            assert_eq!(agent.ended(&id).await["result"]["stdout"], format!("{n}\n"));
        }
    };
    let (frames, (), ()) = tokio::join!(stream.read_to_end(), reloads, jobs);
    let expected: String = (1..=30).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text_of(&frames, "stdout"), expected, "on one connection");
    // Signals that come together are one; each that was heard went well.
    assert!(agent.metric("quickcmd_agent_config_reloads_total{outcome=\"ok\"}").await >= 1.0);
    assert!(!agent.log().contains("not reloaded"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_counts_at_once_and_a_bad_file_keeps_the_old() {
    const OTHER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let agent = Agent::start().await;
    let file = agent.dir.path().join("agent.yaml");
    let old = std::fs::read_to_string(&file).expect("a configuration");
    let answer = async |secret: &str| {
        let body = sign_with(&payload("true", json!({})).to_string(), secret);
        agent.post(body).await.0
    };
    assert_eq!((answer(crate::harness::SECRET).await, answer(OTHER).await), (202, 401));

    write_private(&file, &old.replace(crate::harness::SECRET, OTHER));
    signal(agent.pid(), Signal::SIGHUP);
    until("the new secret counts", PATIENCE, async || answer(OTHER).await == 202).await;
    assert_eq!(answer(crate::harness::SECRET).await, 401, "the old one does not");

    write_private(&file, "port: 70000\n");
    signal(agent.pid(), Signal::SIGHUP);
    until("it says so", PATIENCE, async || agent.log().contains("configuration not reloaded")).await;
    assert_eq!(answer(OTHER).await, 202, "what was there stays");
    assert!(agent.log().contains("70000"), "{}", agent.log());
}
