//! Sandboxes that run more than one job of a controller.

use super::*;
use crate::jobs::sweeps;

/// Two controllers that may use a sandbox three times.
const CONTROLLERS: &str = "\
controllers:
  - {id: trusted, scopes: ['*'], reuse: 3, keys: [{secret: trusted-secret-of-the-tests-that-is-long}]}
  - {id: friend, scopes: ['*'], reuse: 3, keys: [{secret: friends-secret-of-the-tests-that-is-long}]}
";

impl Life {
    /// Submits under the controller's own key.
    async fn submit_own(&self, controller: &str, id: &str, script: &str) {
        let key = match controller {
            "trusted" => "trusted-secret-of-the-tests-that-is-long",
            "friend" => "friends-secret-of-the-tests-that-is-long",
            _ => SECRET,
        };
        let now = Timestamp::now();
        let payload = json!({
            "job_id": id, "prompt": "", "command": "", "argv": ["script", script], "candidate_metadata": null,
            "plugin_metadata": null, "required_scopes": null, "snapshot_metadata": "", "ttl": now.secs() + 60,
            "timestamp": now.secs(), "controller_id": controller,
        });
        let body = envelope::sign(payload.to_string().as_bytes(), &SigningKey::hmac(key.as_bytes()));
        self.service.submit(Bytes::from(body), PEER, now).await.unwrap();
    }

    async fn cancel_own(&self, id: &str) {
        let now = Timestamp::now();
        let payload = json!({"action": "cancel", "job_id": id, "timestamp": now.secs(), "ttl": now.secs() + 60,
                             "controller_id": "trusted"});
        let key = SigningKey::hmac("trusted-secret-of-the-tests-that-is-long".as_bytes());
        let body = envelope::sign(payload.to_string().as_bytes(), &key);
        self.service.cancel(id, Bytes::from(body), PEER, now).await.unwrap();
    }

    /// Runs it to its end; in which sandbox that was. `idle`: sandboxes that wait for another job then.
    async fn sandbox_of(&self, controller: &str, id: &str, script: &str, idle: usize) -> String {
        self.submit_own(controller, id, script).await;
        let result = self.ended(id).await;
        self.until_idle(idle).await;
        result.sandbox_id
    }

    async fn until_idle(&self, idle: usize) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.fake.idle_ones() != idle {
            assert!(tokio::time::Instant::now() < end, "{} of {idle} wait", self.fake.idle_ones());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the audit log says of a job's container: which use of it.
    async fn use_of(&self, id: &str) -> Option<i64> {
        let id = id.to_owned();
        let read = self.store.read(move |db| {
            Ok(db.query_row(
                "SELECT json_extract(CAST(entry AS TEXT), '$.use') FROM audit \
                 WHERE kind = 'job.container' AND json_extract(CAST(entry AS TEXT), '$.job_id') = ?1",
                [id],
                |row| row.get(0),
            )?)
        });
        read.await.unwrap()
    }
}

#[tokio::test]
async fn a_sandbox_runs_three_jobs_of_its_controller_and_none_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path(), Fake::new(), CONTROLLERS).await;
    let first = life.sandbox_of("trusted", "t1", "echo 1", 1).await;
    let friends = life.sandbox_of("friend", "f1", "echo 1", 2).await;
    let ones = life.sandbox_of("one", "o1", "echo 1", 2).await;
    assert!(first != friends && first != ones && friends != ones);
    assert_eq!(life.sandbox_of("trusted", "t2", "exit 3", 2).await, first);
    assert_eq!(life.sandbox_of("trusted", "t3", "echo 3", 1).await, first);
    assert_ne!(life.sandbox_of("trusted", "t4", "echo 4", 2).await, first, "three is all");
    assert_ne!(life.sandbox_of("one", "o2", "echo 2", 2).await, ones, "off unless it is said");
    for (id, use_of) in [("t1", Some(1)), ("t2", Some(2)), ("t3", Some(3)), ("t4", Some(1)), ("o1", None)] {
        assert_eq!(life.use_of(id).await, use_of, "{id}");
    }
    assert_eq!(life.fake.counts().launches, 5);
    life.crash().await;
}

#[tokio::test]
async fn what_did_not_end_by_itself_gives_no_sandbox_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path(), Fake::new(), CONTROLLERS).await;
    let mut seen = vec![life.sandbox_of("trusted", "a", "oom", 0).await];
    for (id, script) in [("b", "vanish"), ("c", "trouble no shell")] {
        seen.push(life.sandbox_of("trusted", id, script, 0).await);
    }
    life.submit_own("trusted", "d", "sleep 1000").await;
    life.until("d", "running", |status| status.status == Status::Running).await;
    life.cancel_own("d").await;
    seen.push(life.ended("d").await.sandbox_id);
    seen.push(life.sandbox_of("trusted", "e", "echo fine", 1).await);
    let different: std::collections::HashSet<_> = seen.iter().collect();
    assert_eq!(different.len(), seen.len(), "{seen:?}");
    life.crash().await;
}

#[tokio::test]
async fn after_a_crash_the_job_is_taken_up_and_its_sandbox_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path(), Fake::new(), CONTROLLERS).await;
    let used = life.sandbox_of("trusted", "a", "echo a", 1).await;
    life.submit_own("trusted", "b", "sleep-ms 300; echo b").await;
    life.until("b", "running", |status| status.status == Status::Running).await;
    let fake = life.crash().await;
    let life = Life::start(dir.path(), fake, CONTROLLERS).await;
    let result = life.ended("b").await;
    assert_eq!((result.stdout.as_str(), result.sandbox_id.as_str()), ("b\n", used.as_str()));
    assert_ne!(life.sandbox_of("trusted", "c", "echo c", 1).await, used);
    let end = tokio::time::Instant::now() + PATIENCE;
    while life.fake.list().await.unwrap().iter().any(|found| found.container_id == used) {
        assert!(tokio::time::Instant::now() < end, "it is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    life.crash().await;
}

#[tokio::test]
async fn who_is_given_the_id_of_another_gets_none_of_that_ones_sandboxes() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path(), Fake::new(), CONTROLLERS).await;
    let reload = || {
        let config = config(dir.path());
        life.service.reload(&config, Gate::new(&config.gate, config.server.read_access).unwrap());
    };
    let first = life.sandbox_of("trusted", "a", "echo a", 1).await;
    reload();
    assert_eq!(life.sandbox_of("trusted", "b", "echo b", 1).await, first, "nothing has changed");

    let other = "other-secret-of-the-tests-that-is-long-too";
    let path = dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("trusted-secret-of-the-tests-that-is-long", other)).unwrap();
    reload();
    assert_eq!(life.fake.idle_ones(), 0, "what waited is thrown away at once");
    life.submit_signed(&SigningKey::hmac(other.as_bytes()), "trusted", "c", "echo c").await.unwrap();
    assert_ne!(life.ended("c").await.sandbox_id, first);
    life.crash().await;
}

#[tokio::test]
async fn what_another_left_in_the_queue_shares_no_sandbox_with_who_has_the_id_now() {
    let dir = tempfile::tempdir().unwrap();
    let more = format!("max_concurrent_jobs: 1\n{CONTROLLERS}");
    let life = Life::start(dir.path(), Fake::new(), &more).await;
    life.submit_own("trusted", "a", "sleep-ms 500; echo a").await;
    life.submit_own("trusted", "b", "echo b").await;
    let other = "other-secret-of-the-tests-that-is-long-too";
    let path = dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    // The old key stays listed: one that is taken off would take along what waits.
    let old = "trusted-secret-of-the-tests-that-is-long, not_after: 2024-01-01T00:00:00Z";
    let both = format!("{other}}}, {{secret: {old}");
    std::fs::write(&path, text.replace("trusted-secret-of-the-tests-that-is-long", &both)).unwrap();
    let config = config(dir.path());
    life.service.reload(&config, Gate::new(&config.gate, config.server.read_access).unwrap());
    life.submit_signed(&SigningKey::hmac(other.as_bytes()), "trusted", "c", "echo c").await.unwrap();
    let [a, b, c] = [life.ended("a").await, life.ended("b").await, life.ended("c").await];
    assert_eq!((b.stdout.as_str(), c.stdout.as_str()), ("b\n", "c\n"));
    assert!(a.sandbox_id != b.sandbox_id && b.sandbox_id != c.sandbox_id && a.sandbox_id != c.sandbox_id);
    life.crash().await;
}

#[tokio::test]
async fn a_sandbox_with_a_long_history_keeps_no_other_job_from_being_cleaned() {
    let dir = tempfile::tempdir().unwrap();
    let life = Life::start(dir.path(), Fake::new(), CONTROLLERS).await;
    life.sandbox_of("trusted", "a", "echo a", 1).await;
    // More of the kind than are looked at in one read; their sandbox stays.
    let copies = life.store.write(|tx| {
        let columns: String = tx.query_row(
            "SELECT group_concat(name) FROM pragma_table_info('jobs') WHERE name NOT IN ('row', 'job_id')",
            [],
            |row| row.get(0),
        )?;
        let numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)";
        let sql = format!(
            "{numbers} INSERT INTO jobs (job_id, {columns}) SELECT 'copy-' || i, {columns} FROM n, jobs \
             WHERE jobs.job_id = 'a'"
        );
        Ok(tx.execute(&sql, [])?)
    });
    assert_eq!(copies.await.unwrap(), 1100);
    let gone = life.sandbox_of("one", "b", "echo b", 1).await;
    let end = tokio::time::Instant::now() + PATIENCE;
    while life.fake.list().await.unwrap().iter().any(|found| found.container_id == gone) {
        assert!(tokio::time::Instant::now() < end, "it is still there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sweeps::reconcile_once(&life.service.shared).await;
    let cleaned = life.store.read(|db| {
        let mut statement = db.prepare("SELECT job_id FROM jobs WHERE cleaned_at IS NOT NULL")?;
        Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?)
    });
    assert_eq!(cleaned.await.unwrap(), ["b"]);
    life.crash().await;
}
