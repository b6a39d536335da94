//! Names, labels, sweeps, and a daemon that is not there.

use std::{sync::Arc, time::Duration};

use quickcmd::sandbox::{Docker, Engine, LABEL_AGENT, LABEL_ATTEMPT, LABEL_ROW, SandboxError, Uncounted};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, config, docker, image, until};

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_found_by_label_and_only_by_their_own_agent() {
    let bench = Bench::new().await;
    let other = Bench::new().await;
    let label = bench.label();
    let sandbox = bench.engine.launch(bench.shape.clone(), label.clone()).await.unwrap();
    let found = bench.engine.list().await.unwrap();
    let [one] = &found[..] else { panic!("{found:?}") };
    assert_eq!(one.container_id, sandbox.id());
    assert_eq!(one.name, bench.engine.container_name(&label));
    // Docker says "created" for some time after the program runs.
    assert!(["created", "running"].contains(&one.state.as_str()), "{one:?}");
    assert_eq!(one.labels[LABEL_AGENT], "test");
    assert_eq!(one.labels[LABEL_ROW], label.row.to_string());
    assert_eq!(one.labels[LABEL_ATTEMPT], "1");
    assert!(bench.engine.is_mine(sandbox.id()) && !other.engine.is_mine(sandbox.id()));
    assert!(other.engine.list().await.unwrap().is_empty(), "another data folder, another agent");

    bench.engine.remove(sandbox.id()).await.unwrap();
    bench.engine.remove(sandbox.id()).await.unwrap();
    assert!(!sandbox.ended().await.running);
    assert_eq!(sandbox.inspect().await.unwrap(), None);
    sandbox.kill().await.unwrap();
    bench.gone(sandbox).await;
    bench.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_never_run_over() {
    let bench = Bench::new().await;
    let label = bench.label();
    let sandbox = bench.engine.launch(bench.shape.clone(), label.clone()).await.unwrap();
    let error = bench.engine.launch(bench.shape.clone(), label.clone()).await.err().unwrap();
    assert!(matches!(error, SandboxError::MayHaveStarted(_)), "{error}");

    // The agent's next life comes to the same attempt only where this one never got the job: neither is in the
    // other's way.
    let next = Docker::new(&config(), bench.dir.path(), Arc::new(Uncounted)).unwrap();
    assert_ne!(next.container_name(&label), bench.engine.container_name(&label));
    let again = next.launch(bench.shape.clone(), label.clone()).await.unwrap();
    assert!(sandbox.inspect().await.unwrap().unwrap().running, "and it runs on");
    bench.gone(again).await;
    bench.gone(sandbox).await;

    let strange = bench.label();
    let name = bench.engine.container_name(&strange);
    docker(&["create", "--name", &name, image(), "true"]);
    let error = bench.engine.launch(bench.shape.clone(), strange).await.err().unwrap();
    assert!(matches!(&error, SandboxError::Failed(why) if why.contains("not this job's")), "{error}");
    docker(&["rm", &name]);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_daemon_is_red_with_advice_and_hangs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let mut config = config();
    config.docker_host = format!("unix://{}", socket.display());
    let engine = Docker::new(&config, dir.path(), Arc::new(Uncounted)).unwrap();
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(engine.clone().upkeep(stop.clone()));
    let says = |what: &'static str| {
        let engine = engine.clone();
        async move {
            until(what, async || engine.health().problem.is_some_and(|problem| problem.contains(what))).await;
        }
    };
    says("there is no Docker socket").await;
    let error = engine.resolve(image()).await.unwrap_err();
    assert!(matches!(error, SandboxError::Unreachable(_)), "{error}");

    // It listens and never answers.
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    says("does not answer").await;
    drop(listener);
    says("nothing answers").await;

    // And it comes back.
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink("/var/run/docker.sock", &socket).unwrap();
    until("ready again", async || engine.health().ready).await;
    assert!(engine.health().version.is_some());
    engine.resolve(image()).await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(30), upkeep).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_host_that_is_no_socket_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    config.docker_host = "tcp://127.0.0.1:2375".to_owned();
    let error = Docker::new(&config, dir.path(), Arc::new(Uncounted)).err().unwrap();
    assert!(error.to_string().contains("Unix socket"), "{error}");
}
