//! When image, engine, database or disk do not do what they should.

use super::{
    super::{room, sweeps},
    *,
};
use crate::{base::clock::Steady, output::Stream};

impl Life {
    /// Waits until every failure has come.
    async fn stuck(&self) {
        self.wait("stuck", || self.fake.failures_left() == 0).await;
    }

    /// Waits until as many jobs have their turn.
    async fn turn(&self, jobs: usize) {
        self.wait("where it should be", || self.service.counts().running == jobs).await;
    }

    /// Waits until as many jobs are queued.
    async fn queued(&self, jobs: usize) {
        self.wait("in the queue, or out of it", || self.service.counts().queued == jobs).await;
    }

    pub(super) async fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(tokio::time::Instant::now() < end, "the job is never {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_job_whose_sandbox_does_not_come_can_be_cancelled_and_gives_its_turn_back() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    for (id, failure) in [("pull", Failure::ResolveHangs), ("launch", Failure::LaunchHangs)] {
        life.fake.fail(failure);
        life.submit(id, "echo never").await.unwrap();
        life.stuck().await;
        // `Failed`: it stood aside already.
        assert!(matches!(life.cancel(id).await.unwrap(), Status::Running | Status::Failed));
        assert_eq!(life.ended(id).await.reason, Reason::Cancelled);
        life.turn(0).await;
    }
    life.submit("next", "echo here").await.unwrap();
    assert_eq!(life.ended("next").await.stdout, "here\n");
    assert_eq!(life.fake.counts().jobs, 1);
}

#[tokio::test]
async fn a_job_on_its_way_back_to_the_queue_can_be_cancelled() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 10\n").await;
    const FAILURES: usize = 100_000;
    for _ in 0..FAILURES {
        life.fake.fail(Failure::Unreachable);
    }
    let ids: Vec<String> = (0..10).map(|n| format!("j{n}")).collect();
    for id in &ids {
        life.submit(id, "echo never").await.unwrap();
    }
    // They are between their turns and the queue, at any point of the way, and some of them stay there.
    life.wait("tried", || life.fake.failures_left() <= FAILURES - ids.len()).await;
    for (n, id) in ids.iter().enumerate() {
        life.cancel(id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(23)).await;
        if n == ids.len() / 2 {
            life.fake.set_problem(Some("no engine"));
        }
    }
    for id in &ids {
        assert_eq!(life.ended(id).await.reason, Reason::Cancelled);
    }
    life.turn(0).await;
    life.queued(0).await;
    assert_eq!(life.fake.counts().jobs, 0);
}

#[tokio::test]
async fn jobs_that_wait_for_a_slow_pull_keep_no_turn() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    life.fake.fail(Failure::ResolveSlow);
    life.submit("first", "echo first").await.unwrap();
    life.stuck().await;
    let now = Timestamp::now();
    for id in ["second", "third"] {
        life.submit(id, &format!("echo {id}")).await.unwrap();
    }
    life.submit_at(now, "one", "late", "echo never", json!({"ttl": now.secs() + 3})).await.unwrap();
    let here = json!({"sandbox": {"image": "k"}});
    life.submit_as("one", "here", "echo here", here.clone()).await.unwrap();
    assert_eq!(life.ended("here").await.stdout, "here\n", "it gets the turn that nobody keeps");
    assert_eq!(life.ended("late").await.reason, Reason::Expired, "the ttl counts");
    assert_eq!(life.cancel("second").await.unwrap(), Status::Failed);
    assert_eq!(life.ended("second").await.reason, Reason::Cancelled);
    life.queued(2).await;
    assert_eq!(life.service.counts().running, 0);

    life.fake.end_pulls();
    for id in ["first", "third"] {
        assert_eq!(life.ended(id).await.stdout, format!("{id}\n"));
    }
    // A pull without an end, and nobody who waits for it any more, is in nobody's way.
    life.fake.fail(Failure::ResolveHangs);
    life.submit("given-up", "echo never").await.unwrap();
    life.stuck().await;
    life.turn(0).await;
    life.queued(1).await;
    life.cancel("given-up").await.unwrap();
    life.submit("next", "echo next").await.unwrap();
    assert_eq!(life.ended("next").await.stdout, "next\n");
    assert_eq!(life.fake.counts().jobs, 4);
    life.queued(0).await;
}

#[tokio::test]
async fn a_slow_pull_that_breaks_ends_one_job_and_has_no_other_keep_a_turn() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    life.fake.fail(Failure::ResolveBreaks);
    for id in ["first", "second", "third"] {
        life.submit(id, "echo never").await.unwrap();
    }
    life.stuck().await;
    life.turn(0).await;
    life.queued(3).await;
    // The next one has no end.
    life.fake.fail(Failure::ResolveHangs);
    life.fake.end_pulls();
    assert_eq!(life.ended("first").await.reason, Reason::ImageUnavailable);
    life.stuck().await;
    life.submit_as("one", "here", "echo here", json!({"sandbox": {"image": "k"}})).await.unwrap();
    assert_eq!(life.ended("here").await.stdout, "here\n", "it gets the turn that nobody keeps");
    life.queued(2).await;
    for id in ["second", "third"] {
        assert_eq!(life.cancel(id).await.unwrap(), Status::Failed);
        assert_eq!(life.ended(id).await.reason, Reason::Cancelled);
    }
    assert_eq!(life.fake.counts().jobs, 1);
}

#[tokio::test]
async fn a_job_does_not_start_after_its_ttl_however_long_its_image_takes() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 2\n").await;
    for (id, failure) in [("pull", Failure::ResolveHangs), ("launch", Failure::LaunchHangs)] {
        life.fake.fail(failure);
        let now = Timestamp::now();
        life.submit_at(now, "one", id, "echo never", json!({"ttl": now.secs() + 1})).await.unwrap();
        assert_eq!(life.ended(id).await.reason, Reason::Expired);
    }
    assert_eq!(life.fake.counts().jobs, 0);
}

#[tokio::test]
async fn a_start_that_the_record_kept_waiting_beyond_the_ttl_is_none() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    life.fake.set_problem(Some("not yet"));
    let now = Timestamp::now();
    life.submit_at(now, "one", "late", "echo never", json!({"ttl": now.secs() + 2})).await.unwrap();
    // Another program's write lock: the job gets its sandbox, and its start can't be recorded.
    let other = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    life.fake.set_problem(None);
    life.turn(1).await;
    while Timestamp::now().secs() <= now.secs() + 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(life.ended("late").await.reason, Reason::Expired);
    assert_eq!(life.fake.counts().jobs, 0, "it never ran");
    life.turn(0).await;
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_pull_leaves_the_job_to_the_next_start() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    life.fake.fail(Failure::ResolveHangs);
    life.submit("a", "echo later").await.unwrap();
    life.stuck().await;
    life.service.finish(Duration::from_millis(50), CancellationToken::new()).await;
    assert_eq!(life.service.counts().running, 0);
    let life = Life::start(dir.path(), life.crash().await, "").await;
    assert_eq!(life.ended("a").await.stdout, "later\n");
}

#[tokio::test]
async fn a_database_that_does_not_answer_costs_no_waiting_job() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    life.fake.fail(Failure::LaunchHangs);
    for id in ["turn", "a", "b", "c"] {
        life.submit(id, "echo").await.unwrap();
    }
    life.stuck().await;
    life.store.close().await.unwrap();
    let shared = &life.service.shared;
    sweeps::expire_once(shared, Timestamp::now().plus(Duration::from_secs(100))).await;
    assert_eq!(life.service.counts().queued, 3, "they could not be looked at, and wait on");
    // Who asked it to end can't be known: it waits again, too.
    life.service.drain();
    shared.ask_all_to_stop(crate::sandbox::Stop::Cancelled);
    life.turn(0).await;
    life.queued(4).await;
}

#[tokio::test]
async fn the_record_is_not_well_while_something_waits_to_be_written() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    let shared = &life.service.shared;
    shared.record_problem.store(Some(std::sync::Arc::new("full".to_owned())));
    let waits = shared.unrecorded();
    sweeps::record_once(shared).await;
    assert!(shared.record_problem.load().is_some());
    drop(waits);
    sweeps::record_once(shared).await;
    assert!(shared.record_problem.load().is_none());
}

#[tokio::test]
async fn the_sweeps_end_with_their_token_though_the_database_takes_no_write() {
    let dir = dir();
    let fake = Fake::new();
    fake.set_problem(Some("no engine"));
    let mut life = Life::start(dir.path(), fake, "").await;
    let now = Timestamp::now();
    life.submit_at(now, "one", "a", "echo", json!({"ttl": now.secs() + 2})).await.unwrap();
    // As by another program: each write gives up after some seconds, and is tried again for ever.
    let other = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    life.queued(0).await;
    life.stop.cancel();
    let ended = async { while life.tasks.ended().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the sweeps end");
}

#[tokio::test]
async fn an_end_that_waits_for_the_record_keeps_no_other_sweep_waiting() {
    let dir = dir();
    let fake = Fake::new();
    fake.set_problem(Some("no engine"));
    let life = Life::start(dir.path(), fake, "").await;
    let now = Timestamp::now();
    for id in ["a", "b"] {
        life.submit_at(now, "one", id, "echo", json!({"ttl": now.secs() + 2})).await.unwrap();
    }
    let other = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    life.queued(0).await;
    let free = &life.service.shared.metrics.storage_free;
    free.set(-1);
    life.wait("looked at: the disk", || free.get() >= 0).await;
    other.execute_batch("ROLLBACK").unwrap();
    for id in ["a", "b"] {
        assert_eq!(life.ended(id).await.reason, Reason::Expired);
    }
}

#[tokio::test]
async fn a_clock_that_jumps_ahead_lets_retention_remove_nothing() {
    let dir = dir();
    let life =
        Life::start(dir.path(), Fake::new(), "storage: { retention: 30m, record_retention: 45m }\n").await;
    life.submit("a", "echo kept").await.unwrap();
    life.ended("a").await;
    let shared = &life.service.shared;
    let (now, at) = (Timestamp::now(), std::time::Instant::now());
    let mut steady = Steady::new(now, at);
    let jumped = now.plus(Duration::from_secs(3600));
    let believed = steady.now(jumped, at + Duration::from_secs(60));
    sweeps::retention_once(shared, believed, jumped).await;
    assert_eq!(life.ended("a").await.stdout, "kept\n");
    assert_eq!(shared.outputs.rows().await.unwrap().len(), 1);
    // An hour that has passed is another matter.
    let believed = steady.now(jumped, at + Duration::from_secs(3600));
    sweeps::retention_once(shared, believed, jumped).await;
    assert!(shared.outputs.rows().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_load_refuses_leaves_little_text_and_none_on_a_full_disk() {
    let dir = dir();
    let texts = |life: &Life, id: &'static str| {
        let store = life.store.clone();
        async move {
            let job = store.read(move |db| crate::store::jobs::find(db, "one", id)).await.unwrap().unwrap();
            (job.reason.unwrap(), job.prompt.len(), job.command.len(), job.snapshot.len())
        }
    };
    let long = "x".repeat(5000);
    let more = json!({"prompt": long, "snapshot_metadata": long});
    let script = format!("echo {long}");
    let whole = "script ".len() + script.len();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    life.service.drain();
    life.submit_as("one", "drain", &script, more.clone()).await.unwrap_err();
    assert_eq!(texts(&life, "drain").await, ("DRAINING".to_owned(), 1024, 1024, 1024));
    let mut other = more.clone();
    other["sandbox"] = json!({"image": "other"});
    life.submit_as("one", "image", &script, other.clone()).await.unwrap_err();
    assert_eq!(texts(&life, "image").await, ("IMAGE_NOT_ALLOWED".to_owned(), 5000, whole, 0));
    let fake = life.crash().await;

    let life = Life::start(dir.path(), fake, "storage: { low_watermark: 1024 TiB }\n").await;
    life.submit_as("one", "low", &script, more).await.unwrap_err();
    assert_eq!(texts(&life, "low").await, ("STORAGE_LOW".to_owned(), 0, 0, 0));
    life.submit_as("one", "low-image", &script, other).await.unwrap_err();
    assert_eq!(texts(&life, "low-image").await, ("IMAGE_NOT_ALLOWED".to_owned(), 0, 0, 0));
}

#[tokio::test]
async fn spools_that_retention_left_are_removed() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    for id in ["kept", "purged", "deleted"] {
        life.submit(id, "echo out").await.unwrap();
        life.ended(id).await;
    }
    life.submit("runs", "echo out; sleep 600").await.unwrap();
    life.running("runs").await;
    // As after a crash between the commit and the removal of the files.
    let sql =
        "UPDATE jobs SET purged_at = 1 WHERE job_id = 'purged'; DELETE FROM jobs WHERE job_id = 'deleted'";
    life.store.write(|tx| Ok(tx.execute_batch(sql)?)).await.unwrap();
    let shared = &life.service.shared;
    sweeps::orphans_once(shared).await;
    let mut left: Vec<i64> = shared.outputs.rows().await.unwrap().iter().map(|entry| entry.row).collect();
    left.sort_unstable();
    assert_eq!(left, [1, 4]);
}

#[tokio::test]
async fn who_writes_much_pushes_out_its_own_output_and_not_anothers() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    for (who, id) in [("one", "victim"), ("two", "first"), ("two", "second"), ("two", "third")] {
        life.submit_as(who, id, "echo out", json!({})).await.unwrap();
        life.ended(id).await;
    }
    life.turn(0).await;
    let shared = &life.service.shared;
    let rows = async || {
        let mut rows: Vec<i64> = shared.outputs.rows().await.unwrap().iter().map(|entry| entry.row).collect();
        rows.sort_unstable();
        rows
    };
    let total = shared.outputs.total_bytes().await.unwrap();
    room::make(shared, total).await;
    assert_eq!(rows().await, [1, 2, 3, 4], "they fit");
    room::make(shared, total - 1).await;
    assert_eq!(rows().await, [1, 3, 4], "the oldest of whose is most; the oldest of all stays");
    let reader = Reader::Controller { id: "two".to_owned(), admin: false };
    let gone = life.service.output(&reader, "first", Stream::Stdout).await;
    let problem = gone.err().unwrap();
    assert_eq!(problem.code, Code::OutputGone);
    assert!(problem.details.unwrap().contains("or its room was needed"));
    let left = i64::try_from(shared.outputs.total_bytes().await.unwrap()).unwrap();
    assert_eq!(shared.metrics.spool_bytes.get(), left);
}
