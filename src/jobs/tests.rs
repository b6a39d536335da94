//! The service on a fake engine and a real database: what Docker can do to a job, at the moment a test wants it.

mod artifacts;
mod bounds;
mod controllers;
mod faults;
mod reuse;

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::{bytes::Bytes, sync::CancellationToken};

use super::{ListQuery, Service, Streamed};
use crate::{
    base::{
        budget::{Budget, Purse},
        clock::Timestamp,
        tasks::Tasks,
    },
    config::Config,
    gate::{Gate, Reader},
    metrics::Metrics,
    output::Outputs,
    sandbox::{
        Engine,
        fake::{Failure, Fake},
    },
    store::Store,
    wire::{
        Code, Problem, Reason, Status, envelope,
        key::SigningKey,
        result::{Accepted, JobStatus},
    },
};

const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";
const PATIENCE: Duration = Duration::from_secs(30);
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// One life of an agent, without its door.
struct Life {
    service: Service,
    store: Store,
    fake: Arc<Fake>,
    stop: CancellationToken,
    tasks: Tasks,
}

impl Life {
    async fn start(dir: &Path, fake: Fake, more: &str) -> Life {
        Life::start_with(dir, fake, more, |text| text).await
    }

    /// With the configuration's text changed.
    async fn start_with(dir: &Path, fake: Fake, more: &str, change: impl FnOnce(String) -> String) -> Life {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("agent.yaml");
        let text = format!(
            "listen: 127.0.0.1\nport: 0\nhmac_secret: {SECRET}\nallowed_controllers: [one, two]\ndefault_image: i\n\
             allowed_images: [i, k]\naudit_db_path: {}/db\npool: {{size: 0, max: 0}}\n{more}",
            dir.display()
        );
        std::fs::write(&path, change(text)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = config(dir);
        let store = Store::open(&config.audit_db_path).unwrap();
        let outputs = Outputs::open(&dir.join("spool")).unwrap();
        let gate = Gate::new(&config.gate, config.server.read_access).unwrap();
        let fake = Arc::new(fake);
        let engine = Arc::clone(&fake) as Arc<dyn Engine>;
        let service =
            Service::new(&config, gate, store.clone(), Arc::clone(&outputs), engine, Metrics::new());
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("output events", |stop| outputs.run(stop));
        service.start(&mut tasks).await.unwrap();
        Life { service, store, fake, stop, tasks }
    }

    /// As kill -9: nothing is told, nothing is waited for; what the daemon has goes on.
    async fn crash(mut self) -> Fake {
        self.fake.crash();
        let next = self.fake.next_life();
        self.stop.cancel();
        while self.tasks.ended().await.is_some() {}
        // Frees the database's lock, as the end of a process does.
        let _ = self.store.close().await;
        next
    }

    async fn submit(&self, id: &str, script: &str) -> Result<Accepted, Problem> {
        self.submit_as("one", id, script, json!({})).await
    }

    async fn submit_as(
        &self,
        controller: &str,
        id: &str,
        script: &str,
        more: Value,
    ) -> Result<Accepted, Problem> {
        self.submit_at(Timestamp::now(), controller, id, script, more).await
    }

    async fn submit_at(
        &self,
        now: Timestamp,
        controller: &str,
        id: &str,
        script: &str,
        more: Value,
    ) -> Result<Accepted, Problem> {
        let key = SigningKey::hmac(SECRET.as_bytes());
        self.submit_by(&key, now, controller, id, script, more).await
    }

    async fn submit_signed(
        &self,
        key: &SigningKey,
        controller: &str,
        id: &str,
        script: &str,
    ) -> Result<Accepted, Problem> {
        self.submit_by(key, Timestamp::now(), controller, id, script, json!({})).await
    }

    async fn submit_by(
        &self,
        key: &SigningKey,
        now: Timestamp,
        controller: &str,
        id: &str,
        script: &str,
        more: Value,
    ) -> Result<Accepted, Problem> {
        let mut payload = json!({
            "job_id": id, "prompt": "", "command": "", "argv": ["script", script], "candidate_metadata": null,
            "plugin_metadata": null, "required_scopes": null, "snapshot_metadata": "", "ttl": now.secs() + 60,
            "timestamp": now.secs(), "controller_id": controller,
        });
        for (key, value) in more.as_object().unwrap() {
            payload[key] = value.clone();
        }
        let body = envelope::sign(payload.to_string().as_bytes(), key);
        self.service.submit(Bytes::from(body), PEER, now).await
    }

    async fn cancel(&self, id: &str) -> Result<Status, Problem> {
        let now = Timestamp::now();
        let payload = json!({"action": "cancel", "job_id": id, "timestamp": now.secs(), "ttl": now.secs() + 60,
                             "controller_id": "one"});
        let body = envelope::sign(payload.to_string().as_bytes(), &SigningKey::hmac(SECRET.as_bytes()));
        self.service.cancel(id, Bytes::from(body), PEER, now).await.map(|answer| answer.status)
    }

    async fn until(&self, id: &str, what: &str, holds: impl Fn(&JobStatus) -> bool) -> JobStatus {
        let reader = Reader::Controller { id: "one".to_owned(), admin: true };
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.service.status(&reader, id, &Purse::default()).await.unwrap().0;
            if holds(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < end, "{id} is never {what}: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn ended(&self, id: &str) -> crate::wire::JobResult {
        self.until(id, "over", |status| status.status.is_final()).await.result.unwrap()
    }

    /// When it was started, as the record has it.
    async fn started(&self, id: &str) -> OffsetDateTime {
        let status = self.until(id, "started", |status| status.started_at.is_some()).await;
        moment(status.started_at.as_deref().unwrap())
    }

    async fn running(&self, id: &str) {
        self.until(id, "started", |status| status.started_at.is_some()).await;
    }
}

fn moment(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap()
}

/// The configuration in that folder.
fn config(dir: &Path) -> Config {
    Config::load(&dir.join("agent.yaml"), &|_| None).unwrap_or_else(|faults| panic!("{faults}"))
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_job_runs_and_is_told_to_a_reader() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    let accepted = life.submit("a", "echo hello; err oops; exit 3").await.unwrap();
    assert_eq!(accepted, Accepted { job_id: "a".to_owned(), status: Status::Pending, duplicate: false });
    let reader = Reader::Controller { id: "one".to_owned(), admin: false };
    let mut stream = life.service.stream(&reader, "a", None, true, Purse::default()).await.unwrap();
    let mut lines = 0;
    let last = loop {
        match stream.next().await.unwrap().unwrap() {
            Streamed::Line(_) => lines += 1,
            Streamed::Final(frame) => break frame,
        }
    };
    assert!(stream.next().await.unwrap().is_none());
    let result = last.result.unwrap();
    assert_eq!((result.reason, result.exit_code), (Reason::Exited, 3));
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("hello\n", "oops\n"));
    assert_eq!(last.seq, lines + 1);
}

#[tokio::test]
async fn an_engine_that_is_away_makes_jobs_wait() {
    let dir = dir();
    let fake = Fake::new();
    fake.set_problem(Some("no engine"));
    let life = Life::start(dir.path(), fake, "").await;
    assert_eq!(life.service.ready().problems, ["no engine"]);
    life.submit("a", "echo late").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(life.fake.counts().launches, 0);
    life.fake.set_problem(None);
    assert_eq!(life.ended("a").await.stdout, "late\n");
    assert!(life.service.ready().ready());
}

#[tokio::test]
async fn an_engine_that_fails_before_the_job_was_sent_costs_no_job() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    for failure in
        [Failure::Unreachable, Failure::Unreachable, Failure::SupervisorGone, Failure::SupervisorGone]
    {
        life.fake.fail(failure);
    }
    life.submit("a", "echo once").await.unwrap();
    let result = life.ended("a").await;
    assert_eq!((result.reason, result.stdout.as_str()), (Reason::Exited, "once\n"));
    assert_eq!(life.fake.counts().jobs, 1, "it was handed over once");
}

#[tokio::test]
async fn what_can_not_be_mended_ends_typed() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "engine_patience: 1s\n").await;
    life.fake.fail(Failure::ImageMissing);
    life.submit("image", "echo").await.unwrap();
    assert_eq!(life.ended("image").await.reason, Reason::ImageUnavailable);
    life.fake.fail(Failure::LaunchFails("no space for a container".to_owned()));
    life.submit("launch", "echo").await.unwrap();
    let result = life.ended("launch").await;
    assert_eq!(result.reason, Reason::SandboxError);
    assert!(result.error.unwrap().contains("no space for a container"));
    for _ in 0..1000 {
        life.fake.fail(Failure::Unreachable);
    }
    life.submit("away", "echo").await.unwrap();
    let result = life.ended("away").await;
    assert_eq!(result.reason, Reason::SandboxError);
    assert!(result.error.unwrap().contains("did not answer for 1 s"));
    assert_eq!(life.fake.counts().jobs, 0);
}

#[tokio::test]
async fn trouble_of_the_sandbox_is_no_exit_of_the_job() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    life.submit("j", "trouble it could not start a process").await.unwrap();
    let result = life.ended("j").await;
    assert_eq!((result.status, result.reason, result.exit_code), (Status::Failed, Reason::SandboxError, -1));
    assert_eq!(result.error.as_deref(), Some("it could not start a process"));
}

#[tokio::test]
async fn a_job_that_may_have_started_is_never_started_again() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    life.fake.fail(Failure::ChannelLost);
    life.submit("runs", "sleep-ms 50; echo ran; exit 4").await.unwrap();
    let result = life.ended("runs").await;
    assert_eq!((result.reason, result.exit_code), (Reason::Exited, 4), "it ran, and the spool tells");
    life.submit("vanishes", "echo begun; vanish").await.unwrap();
    let result = life.ended("vanishes").await;
    assert_eq!((result.reason, result.exit_code), (Reason::Lost, -1));
    assert_eq!((result.stdout.as_str(), result.stdout_bytes), ("begun\n", 6), "what it wrote is counted");
    assert_eq!(life.fake.counts().jobs, 2);
}

#[tokio::test]
async fn jobs_of_an_earlier_life_are_taken_up_or_closed_and_never_run_twice() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 3\n").await;
    life.submit("short", "echo a; sleep-ms 100; echo b; exit 5").await.unwrap();
    life.submit("long", "echo c; sleep 2; echo d").await.unwrap();
    life.submit("endless", "echo e; sleep 600").await.unwrap();
    for id in ["short", "long", "endless"] {
        life.running(id).await;
    }
    life.submit("waiting", "echo f").await.unwrap();
    let fake = life.crash().await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    let life = Life::start(dir.path(), fake, "max_concurrent_jobs: 3\n").await;
    let result = life.ended("short").await;
    assert_eq!((result.exit_code, result.stdout.as_str()), (5, "a\nb\n"), "it ended while nobody looked");
    assert_eq!(life.ended("long").await.stdout, "c\nd\n");
    assert_eq!(life.ended("waiting").await.stdout, "f\n");
    assert_eq!(life.cancel("endless").await.unwrap(), Status::Running);
    assert_eq!(life.ended("endless").await.reason, Reason::Cancelled);
    assert_eq!(life.fake.counts().jobs, 4);
    let again = life.submit("short", "echo a; sleep-ms 100; echo b; exit 5").await;
    assert_eq!(again.unwrap_err().code, Code::JobIdConflict, "signed a second later, these are other bytes");
}

#[tokio::test]
async fn a_cancelled_job_ends_once_wherever_it_is() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\ngrace: 1s\n").await;
    life.submit("first", "stubborn; sleep 600").await.unwrap();
    life.running("first").await;
    life.submit("second", "echo never").await.unwrap();
    assert_eq!(life.cancel("second").await.unwrap(), Status::Failed);
    let result = life.ended("second").await;
    assert_eq!((result.reason, result.sandbox_id.as_str()), (Reason::Cancelled, ""));
    assert_eq!(life.cancel("second").await.unwrap_err().code, Code::JobEnded);
    assert_eq!(life.cancel("nobodys").await.unwrap_err().code, Code::JobNotFound);
    assert_eq!(life.fake.counts().jobs, 1);
}

#[tokio::test]
async fn draining_takes_nothing_keeps_the_queue_and_ends_what_runs_too_long() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    life.submit("runs", "sleep 600").await.unwrap();
    life.running("runs").await;
    life.submit("waits", "echo later").await.unwrap();
    life.service.drain();
    assert_eq!(life.submit("new", "echo").await.unwrap_err().code, Code::Draining);
    life.service.finish(Duration::from_millis(50), CancellationToken::new()).await;
    let ended = life.ended("runs").await;
    assert_eq!(
        (ended.reason, ended.error.as_deref()),
        (Reason::Cancelled, Some("the agent stopped before the job's end"))
    );
    let fake = life.crash().await;
    let life = Life::start(dir.path(), fake, "").await;
    assert_eq!(life.ended("waits").await.stdout, "later\n");
}

#[tokio::test]
async fn the_cap_holds_and_controllers_take_turns() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 3\n").await;
    // They end when they are told to, so that the order does not depend on how fast the machine is.
    for n in 0..30 {
        life.submit(&format!("one-{n}"), "sleep 600").await.unwrap();
    }
    life.submit_as("two", "two", "echo", json!({})).await.unwrap();
    life.running("one-2").await;
    for (ends, next) in [("one-0", "one-3"), ("one-1", "two")] {
        life.running(ends).await;
        life.cancel(ends).await.unwrap();
        life.running(next).await;
    }
    life.ended("two").await;
    let reader = Reader::Controller { id: "one".to_owned(), admin: false };
    let pending = ListQuery { status: Some(Status::Pending), limit: Some(100), ..ListQuery::default() };
    let waiting = life.service.list(&reader, pending).await.unwrap().jobs.len();
    assert!(waiting >= 25, "{waiting} of the flood were still waiting when the other's job had ended");
    for n in 2..30 {
        let id = format!("one-{n}");
        life.running(&id).await;
        life.cancel(&id).await.unwrap();
        life.ended(&id).await;
    }
    assert_eq!(life.fake.counts().most_running, 3);
}

#[tokio::test]
async fn secrets_are_not_in_the_database() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    let more = json!({"sandbox": {"secret_env": {"KEY": "correct-horse"}}, "prompt": "use correct-horse",
                       "candidate_metadata": {"risk_level": "correct-horse"}});
    life.submit_as("one", "a", "echo correct-horse", more).await.unwrap();
    life.ended("a").await;
    let (prompt, command): (String, String) = life
        .store
        .read(|db| {
            Ok(db.query_row("SELECT prompt, selected_command FROM runs", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?)
        })
        .await
        .unwrap();
    assert_eq!((prompt.as_str(), command.as_str()), ("use [REDACTED]", "script echo [REDACTED]"));
    let risk_level = "SELECT risk_level FROM jobs";
    let risk_level: String =
        life.store.read(|db| Ok(db.query_row(risk_level, [], |row| row.get(0))?)).await.unwrap();
    assert_eq!(risk_level, "[REDACTED]");
    let entries = "SELECT count(*) FROM audit WHERE instr(entry, 'correct-horse') > 0";
    let told: i64 = life.store.read(|db| Ok(db.query_row(entries, [], |row| row.get(0))?)).await.unwrap();
    assert_eq!(told, 0, "nor has the audit log it");
    let stored: i64 = life
        .store
        .read(|db| Ok(db.query_row("SELECT count(*) FROM payloads", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(stored, 0, "the signed bytes, which hold the secret, go with the job's end");
}

#[tokio::test]
async fn a_reload_changes_caps_but_not_what_sandboxes_are_made_of() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "max_concurrent_jobs: 1\n").await;
    life.submit("a", "sleep 300").await.unwrap();
    life.running("a").await;
    let path = dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text =
        text.replace("max_concurrent_jobs: 1", "max_concurrent_jobs: 2\nsandbox: { workdir: /elsewhere }");
    std::fs::write(&path, text).unwrap();
    let config = config(dir.path());
    life.service.reload(&config, Gate::new(&config.gate, config.server.read_access).unwrap());
    life.submit("b", "env HOME").await.unwrap();
    assert_eq!(life.ended("b").await.stdout, "/work\n", "the folder that its sandbox has");
    life.cancel("a").await.unwrap();
    life.ended("a").await;
}

impl Life {
    async fn count(&self, of: &'static str) -> i64 {
        let sql = format!("SELECT count(*) FROM submissions WHERE {of}");
        self.store.read(move |db| Ok(db.query_row(&sql, [], |row| row.get(0))?)).await.unwrap()
    }
}

#[tokio::test]
async fn refusals_of_what_nobody_signed_are_written_together() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    let before = life.store.commits();
    for _ in 0..500 {
        let refused = life.service.submit(Bytes::from_static(b"{"), PEER, Timestamp::now()).await;
        assert_eq!(refused.unwrap_err().code, Code::InvalidJson);
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    while life.count("verified = 0 AND code = 'INVALID_JSON'").await < 500 {
        assert!(tokio::time::Instant::now() < end, "they are never written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let commits = life.store.commits() - before;
    assert!(commits < 100, "{commits} commits for 500 refusals");
    // What waits at the end is written, too.
    life.stop.cancel();
    life.service.submit(Bytes::from_static(b"{"), PEER, Timestamp::now()).await.unwrap_err();
    life.service.settle().await;
    assert_eq!(life.count("verified = 0").await, 501);
}

#[tokio::test]
async fn who_comes_again_is_known_and_recorded_also_where_nothing_is_taken() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    let now = Timestamp::now();
    let body = |id: &str, prompt: &str| {
        let payload = json!({
            "job_id": id, "prompt": prompt, "command": "", "argv": ["script", "echo"], "candidate_metadata": null,
            "plugin_metadata": null, "required_scopes": null, "snapshot_metadata": "", "ttl": now.secs() + 60,
            "timestamp": now.secs(), "controller_id": "one",
        });
        Bytes::from(envelope::sign(payload.to_string().as_bytes(), &SigningKey::hmac(SECRET.as_bytes())))
    };
    for id in ["kept", "deleted"] {
        life.service.submit(body(id, ""), PEER, now).await.unwrap();
        life.ended(id).await;
    }
    life.store
        .write(|tx| {
            tx.execute_batch(
                "INSERT INTO spent (controller_id, job_id, job, payload_sha256, state, reason) \
                   SELECT controller_id, job_id, row, payload_sha256, state, reason FROM jobs \
                   WHERE job_id = 'deleted'; \
                 DELETE FROM jobs WHERE job_id = 'deleted';",
            )?;
            Ok(())
        })
        .await
        .unwrap();
    life.service.drain();
    for id in ["kept", "deleted"] {
        let again = life.service.submit(body(id, ""), PEER, now).await.unwrap();
        assert_eq!((again.status, again.duplicate), (Status::Completed, true), "{id}");
        let other = life.service.submit(body(id, "other"), PEER, now).await.unwrap_err();
        assert_eq!(other.code, Code::JobIdConflict, "{id}");
    }
    assert_eq!(life.service.submit(body("new", ""), PEER, now).await.unwrap_err().code, Code::Draining);
    assert_eq!(life.count("outcome = 'duplicate'").await, 2);
    assert_eq!(life.count("outcome = 'refused' AND code = 'JOB_ID_CONFLICT'").await, 2);
    assert_eq!(life.count("outcome = 'refused' AND code = 'DRAINING'").await, 1);
}

#[tokio::test]
async fn no_controller_stands_before_anothers_job() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    let reader = |id: &str, admin| Reader::Controller { id: id.to_owned(), admin };
    let whose = async |reader: Reader| {
        life.service.status(&reader, "a", &Purse::default()).await.map(|(status, _)| status.controller_id)
    };
    life.submit("a", "echo one").await.unwrap();
    assert_eq!(whose(Reader::Anyone).await.unwrap(), "one");
    assert_eq!(whose(reader("three", true)).await.unwrap(), "one");
    assert_eq!(whose(reader("two", false)).await.unwrap_err().code, Code::JobNotFound);
    life.submit_as("two", "a", "echo two", json!({})).await.unwrap();
    assert_eq!(whose(reader("one", false)).await.unwrap(), "one");
    assert_eq!(whose(reader("two", true)).await.unwrap(), "two", "its own");
    for unnamed in [Reader::Anyone, reader("three", true)] {
        let refused = whose(unnamed.clone()).await.unwrap_err();
        assert_eq!(refused.code, Code::JobIdAmbiguous);
        assert!(refused.details.unwrap().contains("controller_id"));
        assert!(life.service.stream(&unnamed, "a", None, true, Purse::default()).await.is_err());
        for name in ["one", "two"] {
            let named = unnamed.clone().only(name.to_owned()).unwrap();
            assert_eq!(whose(named).await.unwrap(), name);
        }
    }
    let other = reader("one", false).only("two".to_owned());
    assert_eq!(other.unwrap_err().code, Code::JobNotFound, "not even whether there is one");
}

#[tokio::test]
async fn a_large_result_is_read_only_where_there_is_memory_for_it() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    life.submit("small", &format!("echo {}", "x".repeat(8000))).await.unwrap();
    life.submit("large", &format!("echo {}", "x".repeat(9000))).await.unwrap();
    life.ended("small").await;
    life.ended("large").await;
    let reader = Reader::Controller { id: "one".to_owned(), admin: false };
    let budget = Budget::new(64 << 10);
    let purse = Purse::new(Arc::clone(&budget), None, Duration::from_millis(10));
    let (status, held) = life.service.status(&reader, "large", &purse).await.unwrap();
    assert_eq!(status.result.unwrap().stdout.len(), 9001);
    assert!(held.is_some() && budget.free() <= 2 << 10, "each byte may be written as six");

    let busy = life.service.status(&reader, "large", &purse).await.unwrap_err();
    assert_eq!((busy.code, busy.retry_after), (Code::Busy, Some(5)));
    let (status, none) = life.service.status(&reader, "small", &purse).await.unwrap();
    assert!(status.result.unwrap().stdout.len() == 8001 && none.is_none(), "it needs none");
    let mut stream = life.service.stream(&reader, "large", None, false, purse.clone()).await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Some(Streamed::Line(_))));
    assert_eq!(stream.next().await.unwrap_err().code, Code::Busy);
    drop(held);
    assert!(matches!(stream.next().await.unwrap(), Some(Streamed::Final(_))), "asked again, it is there");
    assert!(budget.free() <= 2 << 10);
    drop(stream.take_held());
    assert_eq!(budget.free(), 64 << 10);
}
