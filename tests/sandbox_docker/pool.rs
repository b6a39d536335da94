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

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_sandbox_gets_the_limits_of_another_job() {
    let (bench, _depth) = pooled().await;
    let mut shape = bench.shape.clone();
    shape.limits.memory = 96 << 20;
    shape.limits.pids = 40;
    shape.limits.cpu = 0.75;
    let mut sandbox = bench.engine.launch(shape, bench.label()).await.unwrap();
    assert!(sandbox.warm());
    let (spool, read) = bench.spool();
    let look = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null
         cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2>/dev/null || echo $((96 << 20))
         cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null
         cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    sandbox.hand_over(bench.job(look), Vec::new(), spool).await.unwrap();
    let run = finish(&*sandbox, read).await;
    let memory = (96 << 20).to_string();
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines, [memory.as_str(), memory.as_str(), "40", "75000"], "{run:?}");
    bench.gone(sandbox).await;
    bench.close().await;
}
