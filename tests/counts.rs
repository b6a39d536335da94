//! What does not depend on the machine and must not grow unnoticed: calls to Docker for a job, commits for many
//! submissions, copies of a frame. No time is looked at; docs/benchmark.md has those.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

#[path = "common/harness.rs"]
#[allow(dead_code, reason = "every test binary uses a part of it")]
mod harness;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    sync::{Arc, mpsc},
};

use harness::{Agent, CONTROLLER, PATIENCE, SECRET};
use quickcmd::{
    base::{budget::Purse, clock::Timestamp, tasks::Tasks},
    config::Config,
    gate::{Gate, Reader},
    jobs::{Service, Streamed},
    metrics::Metrics,
    output::Outputs,
    sandbox::{Engine, fake::Fake},
    store::Store,
    wire::{envelope, key::SigningKey},
};
use serde_json::json;
use tokio_util::{bytes::Bytes, sync::CancellationToken};

/// The job service on the engine without Docker.
struct Bare {
    service: Service,
    store: Store,
    stop: CancellationToken,
    tasks: Tasks,
    _dir: tempfile::TempDir,
}

impl Bare {
    async fn start() -> Bare {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.yaml");
        let text = format!(
            "listen: 127.0.0.1\nport: 0\nhmac_secret: {SECRET}\nallowed_controllers: [{CONTROLLER}]\n\
             default_image: i\nallowed_images: [i]\naudit_db_path: {}/db\npool: {{size: 0, max: 0}}\n\
             max_queue_depth: 10000\nmax_concurrent_jobs: 1\nrate_by_controller: {{per_second: 0, burst: 1}}\n",
            dir.path().display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = Config::load(&path, &|_| None).unwrap_or_else(|faults| panic!("{faults}"));
        let store = Store::open(&config.audit_db_path).unwrap();
        let outputs = Outputs::open(&dir.path().join("spool")).unwrap();
        let gate = Gate::new(&config.gate, config.server.read_access).unwrap();
        let engine = Arc::new(Fake::new()) as Arc<dyn Engine>;
        let service =
            Service::new(&config, gate, store.clone(), Arc::clone(&outputs), engine, Metrics::new());
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("output events", |stop| outputs.run(stop));
        service.start(&mut tasks).await.unwrap();
        Bare { service, store, stop, tasks, _dir: dir }
    }

    /// Submits what the fake engine understands as a script.
    fn submit(&self, id: &str, script: &str) -> tokio::task::JoinHandle<()> {
        let now = Timestamp::now();
        let payload = json!({
            "job_id": id, "prompt": "", "command": "", "argv": ["script", script], "candidate_metadata": null,
            "plugin_metadata": null, "required_scopes": null, "snapshot_metadata": "", "ttl": now.secs() + 600,
            "timestamp": now.secs(), "controller_id": CONTROLLER,
        });
        let body = envelope::sign(payload.to_string().as_bytes(), &SigningKey::hmac(SECRET));
        let service = self.service.clone();
        tokio::spawn(async move {
            service.submit(Bytes::from(body), IpAddr::V4(Ipv4Addr::LOCALHOST), now).await.unwrap();
        })
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.ended().await.is_some() {}
        self.store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_thousand_submissions_at_once_take_a_dozen_commits() {
    let bare = Bare::start().await;
    // The writer is held until all of them wait.
    let (go, gate) = mpsc::channel::<()>();
    let store = bare.store.clone();
    let first = tokio::spawn(async move {
        store
            .write(move |_| {
                let _ = gate.recv_timeout(PATIENCE);
                Ok(())
            })
            .await
    });
    tokio::task::yield_now().await;
    let before = bare.store.commits();
    let submitted: Vec<_> =
        (0..1000).map(|number| bare.submit(&format!("job-{number}"), "sleep 1000")).collect();
    // One thread runs all tasks: after a few rounds each has handed its job over.
    for _ in 0..5_000 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    for submitted in submitted {
        submitted.await.unwrap();
    }
    let commits = bare.store.commits() - before;
    // 1,000 in groups of 128, the one that held them, and those of the first jobs' starts.
    assert!(commits <= 20, "1,000 submissions took {commits} commits");
    bare.end().await;
}

#[tokio::test]
async fn a_frame_is_serialised_once_for_all_readers_at_the_end() {
    let bare = Bare::start().await;
    bare.submit("job", "sleep-ms 1000; echo one; sleep-ms 50; echo two; sleep-ms 50; echo three")
        .await
        .unwrap();
    let reader = Reader::Controller { id: CONTROLLER.to_owned(), admin: false };
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(bare.service.stream(&reader, "job", None, false, Purse::default()).await.unwrap());
    }
    let mut frames = 0;
    'frames: loop {
        let mut first = None;
        for stream in &mut streams {
            match tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap() {
                Streamed::Line(line) => {
                    let at = *first.get_or_insert(line.json.as_ptr());
                    assert_eq!(line.json.as_ptr(), at, "frame {} was serialised again", line.seq);
                }
                Streamed::Final(_) => break 'frames,
            }
        }
        frames += 1;
    }
    assert_eq!(frames, 3);
    bare.end().await;
}

/// Calls to Docker of that name that came to something, since the agent's start.
async fn calls(agent: &Agent, call: &str) -> f64 {
    agent.metric(&format!("quickcmd_agent_docker_calls_total{{call=\"{call}\",outcome=\"ok\"}}")).await
}

/// Waits until there were as many, and sees that there were no more: a container may be up, or gone, before Docker
/// has answered the call that did it.
async fn assert_calls(agent: &Agent, call: &str, wanted: f64) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while calls(agent, call).await < wanted && tokio::time::Instant::now() < end {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(calls(agent, call).await, wanted, "{call}");
}

#[tokio::test]
async fn a_cold_job_takes_three_calls_to_docker() {
    let mut agent = Agent::start().await;
    for _ in 0..3 {
        assert_eq!(agent.run("true").await["exit_code"], 0);
    }
    agent.no_container_left().await;
    for call in ["create", "start", "remove"] {
        assert_calls(&agent, call, 3.0).await;
    }
    // Its supervisor has said how it ended.
    assert_eq!(calls(&agent, "kill").await, 0.0);
    agent.terminate();
}

#[tokio::test]
async fn a_warm_job_takes_one_sandbox_of_the_pool_and_no_more() {
    let mut agent = Agent::with("pool: {size: 2, max: 2}").await;
    let full = async || {
        let end = tokio::time::Instant::now() + PATIENCE;
        while agent.metric("quickcmd_agent_pool_depth").await < 2.0 {
            assert!(tokio::time::Instant::now() < end, "the pool does not fill:\n{}", agent.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    for _ in 0..3 {
        full().await;
        assert_eq!(agent.run("true").await["exit_code"], 0);
    }
    full().await;
    assert_eq!(agent.metric("quickcmd_agent_pool_hits_total").await, 3.0);
    assert_eq!(agent.metric("quickcmd_agent_pool_misses_total").await, 0.0);
    // Two that wait and three that were used.
    for call in ["create", "start"] {
        assert_calls(&agent, call, 5.0).await;
    }
    assert_eq!(calls(&agent, "kill").await, 0.0);
    agent.terminate();
}
