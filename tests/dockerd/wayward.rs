//! What an engine may do that a real one can't be made to do at the right moment.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quickcmd::{
    config::{Limits, PoolConfig, PullPolicy, SandboxConfig},
    sandbox::{Docker, Engine, Image, Label, SandboxError, Shape, Uncounted},
    wire::payload::Network,
};

use crate::{
    daemon::{Daemon, Serving, lock},
    harness::{PATIENCE, until},
};

struct Bench {
    engine: Arc<Docker>,
    daemon: Arc<Daemon>,
    dir: tempfile::TempDir,
    _serving: Serving,
}

fn bench(pull_policy: PullPolicy, pull_stall: Duration) -> Bench {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    let socket = dir.path().join("docker.sock");
    let (daemon, serving) = Daemon::listen(&socket);
    let config = SandboxConfig {
        agent_id: "test".to_owned(),
        docker_host: format!("unix://{}", socket.display()),
        pull_policy,
        pull_stall,
        uid: 65_534,
        gid: 65_534,
        workdir: "/work".to_owned(),
        runtimes: Vec::new(),
        nofile: 1024,
        fsize: 32 << 20,
        shm: 8 << 20,
        pool: PoolConfig { size: 0, max: 0, max_memory: 0, max_age: Duration::from_secs(600) },
    };
    let engine = Docker::new(&config, dir.path(), Arc::new(Uncounted)).expect("an engine");
    Bench { engine, daemon, dir, _serving: serving }
}

impl Bench {
    async fn shape(&self) -> Shape {
        let image: Image = self.engine.resolve("image").await.expect("it has the image");
        let limits = Limits { cpu: 1.0, memory: 64 << 20, pids: 64, timeout_seconds: 60, tmpfs: 8 << 20 };
        Shape { image, limits, network: Network::None, class: String::new(), reuse: 1 }
    }

    async fn launch(&self, label: &Label) -> SandboxError {
        self.engine.launch(self.shape().await, label.clone()).await.err().expect("nothing starts on it")
    }

    fn folders(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path().join("sandboxes")).expect("a folder").flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    }

    async fn nothing_left(&self, ids: &[&str]) {
        until("nothing is left", PATIENCE, async || {
            self.folders() == 0 && ids.iter().all(|id| !self.engine.is_mine(id))
        })
        .await;
    }
}

fn label() -> Label {
    Label { row: 1, job_id: "job".to_owned(), payload_sha256: "00".repeat(32), attempt: 1 }
}

#[tokio::test]
async fn a_job_that_waits_no_longer_ends_no_pull_that_others_wait_for() {
    let bench = bench(PullPolicy::IfNotPresent, PATIENCE);
    *lock(&bench.daemon.image) = false;
    let (engine, daemon) = (&bench.engine, &bench.daemon);
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.resolve("image").await }
    });
    until("it is pulled", PATIENCE, async || daemon.pulls.load(Ordering::Relaxed) == 1).await;
    // Cancelled, or its ttl has passed.
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    let mut second = engine.resolve("image");
    // It waits for the pull that there is.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut second).await.is_err());
    daemon.pulled.send_replace(true);
    let image = tokio::time::timeout(PATIENCE, second).await.expect("an answer").expect("an image");
    assert_eq!(image.id, "sha256:00");
    assert_eq!(daemon.pulls.load(Ordering::Relaxed), 1, "one pull");
}

#[tokio::test]
async fn a_pull_that_makes_no_progress_ends_and_the_next_job_asks_again() {
    let bench = bench(PullPolicy::IfNotPresent, Duration::from_secs(1));
    *lock(&bench.daemon.image) = false;
    let error = bench.engine.resolve("image").await.expect_err("it stands still");
    let SandboxError::ImageUnavailable { why, .. } = &error else { panic!("{error}") };
    assert!(why.contains("no progress for 1 s"), "{why}");
    bench.daemon.pulled.send_replace(true);
    until("it is asked for again", PATIENCE, async || bench.engine.resolve("image").await.is_ok()).await;
}

#[tokio::test]
async fn an_image_that_went_after_it_was_resolved_is_said_and_looked_for_anew() {
    let bench = bench(PullPolicy::Never, PATIENCE);
    let shape = bench.shape().await;
    lock(&bench.daemon.creates).push_back(404);
    *lock(&bench.daemon.image) = false;
    let error = bench.engine.launch(shape, label()).await.err().expect("there is no image");
    let SandboxError::ImageUnavailable { why, .. } = &error else { panic!("{error}") };
    assert!(why.contains("removed from this host since it was resolved"), "{why}");
    // However fresh the last answer is.
    let error = bench.engine.resolve("image").await.expect_err("it is gone");
    assert!(error.to_string().contains("pull_policy is never"), "{error}");
    bench.nothing_left(&[]).await;
}

#[tokio::test]
async fn a_container_that_is_still_being_removed_is_in_no_ones_way() {
    let bench = bench(PullPolicy::Never, PATIENCE);
    let daemon = &bench.daemon;
    *lock(&daemon.unremovable) = Some(500);
    let label = label();
    let error = bench.launch(&label).await;
    assert!(matches!(&error, SandboxError::Failed(why) if why.contains("can't be started")), "{error}");
    assert!(bench.engine.is_mine("id-1"), "no sweep needs to care for it");
    // The same attempt again, while its first container is there and dying.
    let error = bench.launch(&label).await;
    assert!(matches!(&error, SandboxError::Failed(why) if why.contains("can't be started")), "{error}");
    let names = daemon.names();
    let [first, second] = &names[..] else { panic!("{names:?}") };
    assert_eq!(*first, bench.engine.container_name(&label));
    assert!(second.starts_with(&format!("{first}-")), "a name of its own: {names:?}");
    assert_eq!(bench.folders(), 2, "and a folder");

    *lock(&daemon.unremovable) = None;
    bench.nothing_left(&["id-1", "id-2"]).await;
    bench.launch(&label).await;
    assert_eq!(daemon.names()[2], *first, "the name is free");
    bench.nothing_left(&["id-3"]).await;
}

#[tokio::test]
async fn a_container_that_can_not_be_removed_at_first_is_removed_at_last() {
    let bench = bench(PullPolicy::Never, PATIENCE);
    // "removal is already in progress", and the container is still there.
    lock(&bench.daemon.removes).extend([500, 409, 500]);
    bench.launch(&label()).await;
    bench.nothing_left(&["id-1"]).await;
    assert_eq!(bench.daemon.asked("DELETE /containers/id-1"), 4);
}
