//! What one controller may take, what is left to the others, and what becomes of the jobs of one that is revoked.

use std::sync::atomic::Ordering;

use super::*;

const ONE_ALONE: &str = "max_concurrent_jobs: 1\n";

impl Life {
    /// As SIGHUP does, with the configuration's lines changed.
    fn reload(&self, dir: &Path, change: impl FnOnce(String) -> String) {
        let path = dir.join("agent.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, change(text)).unwrap();
        let config = config(dir);
        let gate = Gate::new(&config.gate, config.server.read_access).unwrap();
        self.service.reload(&config, gate);
    }

    fn revoke_two(&self, dir: &Path) {
        self.reload(dir, |text| text.replace("[one, two]", "[one]"));
    }

    async fn as_two(&self, id: &str, script: &str) -> Result<Accepted, Problem> {
        self.submit_as("two", id, script, json!({})).await
    }
}

/// Who asked for a job's end, and why, as the record has it.
async fn cancelled_by(life: &Life, id: &'static str) -> (Option<String>, Option<String>) {
    let job = life.store.read(move |db| crate::store::jobs::find(db, "two", id)).await.unwrap().unwrap();
    (job.cancel_by, job.cancel_reason)
}

#[tokio::test]
async fn a_revoked_controllers_waiting_jobs_are_cancelled_and_its_running_ones_go_on() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), ONE_ALONE).await;
    life.as_two("runs", "sleep 600").await.unwrap();
    life.running("runs").await;
    for id in ["waits", "waits-too"] {
        life.as_two(id, "echo never").await.unwrap();
    }
    life.submit("another.s", "echo mine").await.unwrap();
    life.revoke_two(dir.path());
    for id in ["waits", "waits-too"] {
        let result = life.ended(id).await;
        assert_eq!(
            (result.reason, result.error.as_deref(), result.stdout.as_str()),
            (Reason::Cancelled, Some("the job was cancelled: its controller was revoked"), "")
        );
    }
    let agent = (Some("agent".to_owned()), Some("its controller was revoked".to_owned()));
    assert_eq!(cancelled_by(&life, "waits").await, agent);
    let refused = life.as_two("late", "echo").await.unwrap_err();
    assert_eq!(refused.code, Code::ControllerNotAllowed);
    life.wait("looked for", || !life.service.shared.look_for_revoked.load(Ordering::SeqCst)).await;
    let runs = life.until("runs", "running", |status| status.status == Status::Running).await;
    assert!(!runs.cancel_requested, "it goes on");
    life.until("another.s", "left alone", |status| status.status == Status::Pending).await;
}

#[tokio::test]
async fn a_revoked_controllers_running_jobs_are_cancelled_where_that_is_configured() {
    let dir = dir();
    let more = "max_concurrent_jobs: 2\non_revoke: cancel-all\n";
    let life = Life::start(dir.path(), Fake::new(), more).await;
    life.as_two("runs", "sleep 600").await.unwrap();
    life.submit("stays", "sleep 600").await.unwrap();
    for id in ["runs", "stays"] {
        life.running(id).await;
    }
    life.as_two("waits", "echo never").await.unwrap();
    life.revoke_two(dir.path());
    for id in ["runs", "waits"] {
        assert_eq!(life.ended(id).await.reason, Reason::Cancelled, "{id}");
    }
    let agent = (Some("agent".to_owned()), Some("its controller was revoked".to_owned()));
    assert_eq!(cancelled_by(&life, "runs").await, agent);
    let stays = life.until("stays", "running", |status| status.status == Status::Running).await;
    assert!(!stays.cancel_requested, "it is another controller's");
}

#[tokio::test]
async fn a_revoked_controllers_job_that_has_its_turn_already_is_not_started() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), ONE_ALONE).await;
    life.fake.fail(Failure::ResolveSlow);
    life.as_two("turns", "echo never").await.unwrap();
    life.wait("it looks for its image", || life.fake.failures_left() == 0).await;
    life.revoke_two(dir.path());
    life.fake.end_pulls();
    let result = life.ended("turns").await;
    assert_eq!((result.reason, result.stdout.as_str()), (Reason::Cancelled, ""));
    assert_eq!(life.fake.counts().jobs, 0);
    let agent = (Some("agent".to_owned()), Some("its controller was revoked".to_owned()));
    assert_eq!(cancelled_by(&life, "turns").await, agent);
}

#[tokio::test]
async fn a_revoked_controllers_job_that_waits_for_its_sandbox_is_cancelled_there() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), ONE_ALONE).await;
    life.fake.fail(Failure::LaunchHangs);
    life.as_two("launches", "echo never").await.unwrap();
    life.wait("it asks for its sandbox", || life.fake.failures_left() == 0).await;
    life.revoke_two(dir.path());
    assert_eq!(life.ended("launches").await.reason, Reason::Cancelled);
    let agent = (Some("agent".to_owned()), Some("its controller was revoked".to_owned()));
    assert_eq!(cancelled_by(&life, "launches").await, agent);
    life.submit("next", "echo here").await.unwrap();
    assert_eq!(life.ended("next").await.stdout, "here\n", "its turn is free");
}

#[tokio::test]
async fn a_controller_that_was_revoked_while_the_agent_was_down_runs_nothing_more() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\non_revoke: cancel-all\n").await;
    life.as_two("runs", "sleep 600").await.unwrap();
    life.running("runs").await;
    life.as_two("waits", "echo never").await.unwrap();
    let fake = life.crash().await;
    let more = "max_concurrent_jobs: 1\non_revoke: cancel-all\n";
    let life = Life::start_with(dir.path(), fake, more, |text| text.replace("[one, two]", "[one]")).await;
    for id in ["runs", "waits"] {
        let result = life.ended(id).await;
        assert_eq!((result.reason, result.stdout.as_str()), (Reason::Cancelled, ""), "{id}");
    }
    assert_eq!(life.fake.counts().jobs, 1, "what waited was never started");
}

const OLD: &str = "an-old-secret-of-the-tests-that-is-long-enough";
const NEW: &str = "a-new-secret-of-the-tests-that-is-long-enough";

/// A controller of several keys, which the lines may be changed from.
fn several() -> String {
    format!("controllers: [{{ id: several, keys: [{{ key_id: old, secret: {OLD} }}] }}]\n")
}

impl Life {
    /// A turn for what waits behind a job that does not end.
    fn give_way(&self, dir: &Path) {
        self.reload(dir, |text| text.replace(ONE_ALONE, "max_concurrent_jobs: 9\n"));
    }

    async fn as_several(&self, secret: &str, id: &str, script: &str) {
        self.submit_signed(&SigningKey::hmac(secret.as_bytes()), "several", id, script).await.unwrap();
    }

    /// Cancelled by the agent for its key's sake, and never run.
    async fn ended_for_its_key(&self, id: &str) {
        let result = self.ended(id).await;
        let error = Some("the job was cancelled: the key that signed it was removed");
        assert_eq!(
            (result.reason, result.error.as_deref(), result.stdout.as_str()),
            (Reason::Cancelled, error, ""),
            "{id}"
        );
    }
}

/// Whoever has stolen a key has stolen a place in the queue with it.
#[tokio::test]
async fn what_waits_and_was_signed_with_a_removed_key_is_cancelled() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), &format!("{ONE_ALONE}{}", several())).await;
    life.as_several(OLD, "runs", "sleep 600").await;
    life.running("runs").await;
    life.as_several(OLD, "stolen", "echo never").await;
    life.submit("another.s", "echo mine").await.unwrap();
    let both = format!("{{ key_id: old, secret: {OLD} }}, {{ key_id: new, secret: {NEW} }}");
    life.reload(dir.path(), |text| text.replace(&format!("{{ key_id: old, secret: {OLD} }}"), &both));
    life.as_several(NEW, "own", "echo own").await;
    // Its name is there still, the key is not.
    life.reload(dir.path(), |text| text.replace(&both, &format!("{{ key_id: old, secret: {NEW} }}")));
    life.ended_for_its_key("stolen").await;
    let job = life.store.read(|db| crate::store::jobs::find(db, "several", "stolen")).await.unwrap().unwrap();
    assert_eq!(job.cancel_by.as_deref(), Some("agent"));
    assert_eq!(job.cancel_reason.as_deref(), Some("the key that signed it was removed"));
    let runs = life.until("runs", "running", |status| status.status == Status::Running).await;
    assert!(!runs.cancel_requested, "it goes on");
    life.give_way(dir.path());
    for (id, stdout) in [("own", "own\n"), ("another.s", "mine\n")] {
        assert_eq!(life.ended(id).await.stdout, stdout, "{id}: a key may get another name");
    }
}

#[tokio::test]
async fn what_runs_and_was_signed_with_a_removed_key_is_cancelled_where_that_is_configured() {
    let dir = dir();
    let more = format!("max_concurrent_jobs: 3\non_revoke: cancel-all\n{}", several());
    let life = Life::start(dir.path(), Fake::new(), &more).await;
    life.as_several(OLD, "stolen", "sleep 600").await;
    life.submit("stays", "sleep 600").await.unwrap();
    for id in ["stolen", "stays"] {
        life.running(id).await;
    }
    life.reload(dir.path(), |text| text.replace(OLD, NEW));
    assert_eq!(life.ended("stolen").await.reason, Reason::Cancelled);
    let stays = life.until("stays", "running", |status| status.status == Status::Running).await;
    assert!(!stays.cancel_requested, "it is another controller's");
}

/// A key whose time is over, and one whose time has not come, are on the list.
#[tokio::test]
async fn a_key_that_is_only_out_of_its_time_takes_no_job_along() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), &format!("{ONE_ALONE}{}", several())).await;
    life.submit("holds", "sleep 600").await.unwrap();
    life.running("holds").await;
    life.as_several(OLD, "waits", "echo waited").await;
    life.reload(dir.path(), |text| {
        text.replace(
            &format!("secret: {OLD}"),
            &format!("secret: {OLD}, not_after: 2024-01-01T00:00:00Z }}, {{ key_id: new, secret: {NEW}"),
        )
    });
    life.wait("looked for", || !life.service.shared.look_for_revoked.load(Ordering::SeqCst)).await;
    life.give_way(dir.path());
    assert_eq!(life.ended("waits").await.stdout, "waited\n");
}

/// The secret that all of `allowed_controllers` share is replaced: what was signed with it is nobody's.
#[tokio::test]
async fn a_shared_secret_that_is_replaced_takes_along_what_waits() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), ONE_ALONE).await;
    life.submit("holds", "sleep 600").await.unwrap();
    life.running("holds").await;
    life.submit("stolen", "echo never").await.unwrap();
    life.as_two("moved", "echo moved").await.unwrap();
    // One of the two keeps it, as a key of its own and with a name.
    let own = format!("controllers: [{{ id: two, keys: [{{ key_id: first, secret: {SECRET} }}] }}]\n");
    life.reload(dir.path(), |text| text.replace("[one, two]", "[one]").replace(SECRET, NEW) + &own);
    life.ended_for_its_key("stolen").await;
    life.give_way(dir.path());
    assert_eq!(life.ended("moved").await.stdout, "moved\n", "the same key");
}

#[tokio::test]
async fn a_key_that_was_removed_while_the_agent_was_down_runs_nothing_more() {
    let dir = dir();
    let more = format!("max_concurrent_jobs: 1\non_revoke: cancel-all\n{}", several());
    let life = Life::start(dir.path(), Fake::new(), &more).await;
    life.as_several(OLD, "runs", "sleep 600").await;
    life.running("runs").await;
    life.as_several(OLD, "waits", "echo never").await;
    life.submit("another.s", "echo mine").await.unwrap();
    let fake = life.crash().await;
    let life = Life::start_with(dir.path(), fake, &more, |text| text.replace(OLD, NEW)).await;
    assert_eq!(life.ended("runs").await.reason, Reason::Cancelled);
    life.ended_for_its_key("waits").await;
    assert_eq!(life.ended("another.s").await.stdout, "mine\n");
}

/// What an earlier version took has no trace of its key but the name, if it had one.
#[tokio::test]
async fn of_jobs_of_an_earlier_version_the_name_of_the_key_counts() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), &format!("{ONE_ALONE}{}", several())).await;
    life.submit("holds", "sleep 600").await.unwrap();
    life.running("holds").await;
    life.as_several(OLD, "named", "echo never").await;
    life.as_two("nameless", "echo nameless").await.unwrap();
    let forget = |tx: &crate::store::Tx<'_>| Ok(tx.execute("UPDATE jobs SET key_print = NULL", [])?);
    life.store.write(forget).await.unwrap();
    let fake = life.crash().await;
    let change = |text: String| {
        text.replace(&format!("key_id: old, secret: {OLD}"), &format!("key_id: new, secret: {OLD}"))
    };
    let life = Life::start_with(dir.path(), fake, &format!("{ONE_ALONE}{}", several()), change).await;
    life.ended_for_its_key("named").await;
    life.until("nameless", "left alone", |status| status.status == Status::Pending).await;
    // And its turn comes.
    life.cancel("holds").await.unwrap();
    assert_eq!(life.ended("nameless").await.stdout, "nameless\n");
}

#[tokio::test]
async fn a_flood_of_one_controller_keeps_another_waiting_for_one_job_at_most() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\nmax_queue_depth: 50\n").await;
    life.submit("first", "sleep 600").await.unwrap();
    life.running("first").await;
    let mut refused = None;
    let mut taken = Vec::new();
    for n in 0..60 {
        let id = format!("flood-{n}");
        match life.submit(&id, "echo").await {
            Ok(_) => taken.push(id),
            Err(problem) => refused = refused.or(Some(problem)),
        }
    }
    let refused = refused.expect("the flood does not get all places");
    assert_eq!((refused.code, &refused.more["limit"]), (Code::QueueFull, &json!("max_queue_depth")));
    assert_eq!(taken.len(), 45, "the last tenth is left to others");
    life.as_two("quiet", "echo").await.expect("there is a place");
    life.cancel("first").await.unwrap();
    let mut order = vec![(life.started("quiet").await, "quiet".to_owned())];
    for id in taken {
        order.push((life.started(&id).await, id));
    }
    order.sort();
    let place = order.iter().position(|(_, id)| id == "quiet").unwrap();
    assert!(place <= 1, "{place} jobs of the flood were started before it");
}

#[tokio::test]
async fn a_controllers_jobs_run_as_many_at_once_as_it_may_and_others_are_not_held_up() {
    let dir = dir();
    let controllers = format!(
        "max_concurrent_jobs: 4\ncontrollers:\n  - {{ id: narrow, keys: [{{ secret: {SECRET}-narrow }}], max_running: 2, \
         scopes: [\"*\"] }}\n"
    );
    let life = Life::start(dir.path(), Fake::new(), &controllers).await;
    let narrow = SigningKey::hmac(format!("{SECRET}-narrow").as_bytes());
    for n in 0..6 {
        life.submit_signed(&narrow, "narrow", &format!("n-{n}"), "sleep-ms 200; echo").await.unwrap();
    }
    life.submit("other", "echo").await.unwrap();
    life.ended("other").await;
    let mut spans = Vec::new();
    for n in 0..6 {
        let id = format!("n-{n}");
        let result = life.ended(&id).await;
        assert_eq!(result.reason, Reason::Exited);
        spans.push((moment(&result.start_time), moment(&result.end_time)));
    }
    // How many of the others run when one starts.
    let most = spans
        .iter()
        .map(|(start, _)| spans.iter().filter(|(from, to)| from <= start && start < to).count())
        .max();
    assert!(most <= Some(2), "{most:?} ran at once: {spans:?}");
}

#[tokio::test]
async fn a_daily_quota_of_output_refuses_and_outlives_the_agent() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "daily_by_controller: { output: 1 KiB }\n").await;
    life.submit("a", "bytes 1023").await.unwrap();
    life.ended("a").await;
    life.submit("b", "bytes 1").await.expect("a byte is left");
    life.ended("b").await;
    let refused = life.submit("c", "echo").await.unwrap_err();
    assert_eq!((refused.code, &refused.more["limit"]), (Code::QuotaExceeded, &json!("daily.output")));
    assert!(refused.retry_after.is_some_and(|seconds| (1..=86_400).contains(&seconds)));
    life.as_two("d", "echo").await.expect("another controller has its own");
    let fake = life.crash().await;
    let life = Life::start(dir.path(), fake, "daily_by_controller: { output: 1 KiB }\n").await;
    assert_eq!(life.submit("e", "echo").await.unwrap_err().code, Code::QuotaExceeded);
}

#[tokio::test]
async fn what_waits_when_the_quota_is_used_up_waits_for_the_next_day() {
    let dir = dir();
    let more = "max_concurrent_jobs: 1\ndaily_by_controller: { output: 1 KiB }\n";
    let life = Life::start(dir.path(), Fake::new(), more).await;
    life.submit("holds", "sleep 600").await.unwrap();
    life.running("holds").await;
    life.submit("uses", "bytes 1024").await.unwrap();
    life.submit("waits", "echo at last").await.unwrap();
    life.cancel("holds").await.unwrap();
    life.ended("uses").await;
    life.as_two("other", "echo").await.unwrap();
    life.ended("other").await;
    assert_eq!(life.service.counts().queued, 1);
    life.reload(dir.path(), |text| text.replace("1 KiB", "1 MiB"));
    assert_eq!(life.ended("waits").await.stdout, "at last\n", "a larger quota lets it start");
}

#[tokio::test]
async fn reads_and_cancels_of_a_controller_have_a_rate_of_their_own() {
    let dir = dir();
    let more = "rate_of_reads: { per_second: 0.001, burst: 3 }\n";
    let life = Life::start(dir.path(), Fake::new(), more).await;
    let mut refused = 0;
    for n in 0..5 {
        let Err(problem) = life.cancel("none").await else { panic!("there is no such job") };
        match problem.code {
            Code::JobNotFound => assert!(n < 3, "{n}"),
            Code::RateLimited => {
                assert_eq!(problem.more["limit"], "rate_of_reads");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused, 2);
    life.submit("a", "echo").await.expect("submissions are counted by themselves");
}
