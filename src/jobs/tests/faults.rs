//! When image, engine, database or disk do not do what they should.

use super::*;

impl Life {
    /// Waits until every failure has come.
    async fn stuck(&self) {
        self.wait("stuck", || self.fake.failures_left() == 0).await;
    }

    /// Waits until as many jobs have their turn.
    async fn turn(&self, jobs: usize) {
        self.wait("where it should be", || self.service.counts().running == jobs).await;
    }

    async fn wait(&self, what: &str, holds: impl Fn() -> bool) {
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
        assert_eq!(life.cancel(id).await.unwrap(), Status::Running);
        assert_eq!(life.ended(id).await.reason, Reason::Cancelled);
        life.turn(0).await;
    }
    life.submit("next", "echo here").await.unwrap();
    assert_eq!(life.ended("next").await.stdout, "here\n");
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
