//! Sandboxes that wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quickcmd::{
    config::PoolConfig,
    sandbox::{Engine, LABEL_POOL, Observer},
};
use quickcmd_init::proto::Ending;

use crate::bench::{Bench, config, docker, finish, until};

#[derive(Default)]
struct Depth(AtomicUsize);

impl Observer for Depth {
    fn pool_depth(&self, waiting: usize) {
        self.0.store(waiting, Ordering::Relaxed);
    }
}

/// An engine that keeps two waiting, and how many do.
async fn pooled() -> (Bench, Arc<Depth>) {
    let mut config = config();
    config.pool = PoolConfig { size: 2, max: 4, max_memory: 1 << 30, max_age: Duration::from_secs(600) };
    let depth = Arc::new(Depth::default());
    let bench = Bench::watched(config, depth.clone()).await;
    bench.engine.want_default(bench.shape.clone());
    until("two wait", async || depth.0.load(Ordering::Relaxed) == 2).await;
    (bench, depth)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gets_a_waiting_sandbox_that_is_used_once() {
    let (bench, depth) = pooled().await;
    let mut sandbox = bench.launch().await;
    assert!(sandbox.warm());
    let id = sandbox.id().to_owned();
    let (spool, read) = bench.spool();
    sandbox.hand_over(bench.job("echo $$; exit 3"), Vec::new(), spool).await.unwrap();
    let run = finish(&*sandbox, read).await;
    assert_eq!(*run.ending(), Ending::Exited { code: 3 });
    bench.gone(sandbox).await;

    until("two wait again", async || depth.0.load(Ordering::Relaxed) == 2).await;
    let waiting = bench.engine.list().await.unwrap();
    assert!(waiting.iter().all(|found| found.container_id != id), "it does not come back");
    for found in &waiting {
        assert_eq!(found.labels.get(LABEL_POOL).map(String::as_str), Some("1"));
        assert!(bench.engine.is_mine(&found.container_id), "a sweep must leave it");
    }
    // Closing throws away what waits, and looks that nothing is left.
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shape_never_gets_it_and_a_dead_one_is_not_given() {
    let (bench, depth) = pooled().await;
    let mut other = bench.shape.clone();
    other.class = "other".to_owned();
    let sandbox = bench.engine.launch(other, bench.label()).await.unwrap();
    assert!(!sandbox.warm());
    bench.gone(sandbox).await;

    for found in bench.engine.list().await.unwrap() {
        docker(&["kill", &found.container_id]);
    }
    let run = bench.run("echo fine").await;
    assert_eq!(run.stdout, "fine\n");
    until("two wait again", async || depth.0.load(Ordering::Relaxed) >= 2).await;
    bench.close().await;
}
