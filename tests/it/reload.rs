//! SIGHUP: settings change without losing a job or a connection.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Agent, PATIENCE, payload, sign_with, signal, text_of, until, write_private};

const RELOADS: f64 = 1000.0;
const DONE: &str = "quickcmd_agent_config_reloads_total{outcome=\"ok\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_reloads_under_load_lose_nothing() {
    let agent = Agent::with("max_concurrent_jobs: 3\n").await;
    let slow = agent.submit("for i in $(seq 1 60); do echo line $i; sleep 0.1; done").await;
    let mut stream = agent.stream(&slow, "").await;
    let over = AtomicBool::new(false);
    let reloads = async {
        let end = Instant::now() + 4 * PATIENCE;
        // Signals that come together are one, so it is the reloads that are counted.
        while agent.metric(DONE).await < RELOADS {
            assert!(Instant::now() < end, "{} reloads only", agent.metric(DONE).await);
            for _ in 0..50 {
                signal(agent.pid(), Signal::SIGHUP);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    let jobs = async {
        let mut number = 0;
        while number < 12 || !over.load(Ordering::Relaxed) {
            let mut ids = Vec::new();
            for n in number..number + 4 {
                ids.push((n, agent.submit(&format!("echo {n}")).await));
            }
            number += 4;
            for (n, id) in ids {
                assert_eq!(agent.ended(&id).await["result"]["stdout"], format!("{n}\n"));
            }
        }
    };
    let (frames, (), ()) = tokio::join!(stream.read_to_end(), reloads, jobs);
    let expected: String = (1..=60).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text_of(&frames, "stdout"), expected, "on one connection");
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
