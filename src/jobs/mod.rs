//! The job service: takes what the gate admitted, keeps it in order, brings it to a sandbox, and sees
//! it to its one end. Doors call [`Service`]; everything else in here is its own business.
//!
//! ```text
//! submit --> queue --> dispatch --> runner --> attend --> conclude
//!              ^                      |           ^
//!              +---- engine away -----+           +-- recover (after a restart)
//! sweeps: what has expired, which containers are nobody's, what retention removes, how full the disk is
//! ```
//!
//! Tasks: one dispatcher, one for what ends in the queue, one for the other sweeps, one runner for each job that has its turn.

mod artifacts;
mod attend;
mod conclude;
mod dispatch;
pub mod ending;
mod parked;
mod query;
pub mod queue;
mod reads;
mod recover;
mod refusals;
mod revoke;
mod room;
mod runner;
mod service;
mod shared;
mod spec;
pub mod state;
mod sweeps;
mod tar;
#[cfg(test)]
mod tests;
mod tokens;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::{bytes::Bytes, sync::CancellationToken, task::TaskTracker};

pub use artifacts::{Archive, ArtifactFile};
pub use query::{DEFAULT_PAGE, JobStream, LARGEST_PAGE, ListQuery, OutputFile, Streamed};
pub use recover::Recovered;
pub use runner::CLASS;
pub use shared::Mode;

use crate::{
    audit::Event,
    base::{
        budget::{Held, Purse},
        clock::Timestamp,
        tasks::Tasks,
    },
    config::Config,
    gate::{Gate, Holder, Operator, ReadRequest, Reader, Via},
    metrics::Metrics,
    output::{Outputs, Stream},
    sandbox::{Engine, Stop},
    store::{self, Store, StoreError, tokens::TokenRow},
    wire::{
        Code, Problem,
        result::{Accepted, CancelAnswer, DrainAnswer, JobPage, JobStatus},
    },
};
use shared::{Settings, Shared};

/// The job service. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    runners: TaskTracker,
}

/// Whether the agent can run jobs now, and what is in its way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// One sentence each, with what to do; empty: ready.
    pub problems: Vec<String>,
}

/// Numbers for `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that have their turn.
    pub running: usize,
    /// Name and version of the engine, once it has answered.
    pub engine: Option<String>,
}

impl Service {
    /// Puts the service together. Nothing moves until [`Service::start`].
    pub fn new(
        config: &Config,
        gate: Gate,
        store: Store,
        outputs: Arc<Outputs>,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
    ) -> Service {
        let shared = Shared::new(config, gate, store, outputs, engine, metrics);
        Service { shared: Arc::new(shared), runners: TaskTracker::new() }
    }

    /// Takes up what an earlier life of the agent left, then starts the dispatcher and the sweeps as named tasks.
    ///
    /// # Errors
    /// The database can't be read.
    pub async fn start(&self, tasks: &mut Tasks) -> Result<Recovered, StoreError> {
        tokens::load(&self.shared).await?;
        let recovered = recover::all(&self.shared, &self.runners).await?;
        sweeps::storage_once(&self.shared).await;
        let (shared, runners) = (Arc::clone(&self.shared), self.runners.clone());
        tasks.spawn("dispatcher", |stop| dispatch::run(shared, runners, stop));
        let shared = Arc::clone(&self.shared);
        tasks.spawn("sweeps", |stop| sweeps::run(shared, stop));
        let shared = Arc::clone(&self.shared);
        tasks.spawn("expiry", |stop| sweeps::expiry(shared, stop));
        Ok(recovered)
    }

    /// Takes a submission; `Ok` means that the job is on disk, synced. To be awaited to its end: see `service.rs`.
    ///
    /// # Errors
    /// Each refusal of the contract's table, recorded.
    pub async fn submit(
        &self,
        body: Bytes,
        via: impl Into<Via>,
        now: Timestamp,
    ) -> Result<Accepted, Problem> {
        service::submit(&self.shared, body, via.into(), now).await
    }

    /// Takes a signed request to end a job.
    ///
    /// # Errors
    /// The gate's refusal; `JOB_NOT_FOUND`, also for somebody else's job; `JOB_ENDED`.
    pub async fn cancel(
        &self,
        job_id: &str,
        body: Bytes,
        via: impl Into<Via>,
        now: Timestamp,
    ) -> Result<CancelAnswer, Problem> {
        service::cancel(&self.shared, job_id, body, via.into(), now).await
    }

    /// Who reads.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` and such: see [`Gate::reader`]; `RATE_LIMITED`.
    pub fn reader(&self, request: &ReadRequest, now: Timestamp) -> Result<Reader, Problem> {
        let reader = self.shared.gate.load().reader(request, &self.shared.tokens.load(), now)?;
        reads::read(&self.shared, &reader)?;
        Ok(reader)
    }

    /// Whether who was let read may go on: see [`Gate::may_go_on`].
    pub fn may_go_on(&self, reader: &Reader, certificate: Option<&Holder>, now: Timestamp) -> bool {
        self.shared.gate.load().may_go_on(reader, certificate, &self.shared.tokens.load(), now)
    }

    /// Who operates.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` and such: see [`Gate::operator`].
    pub fn operator(&self, request: &ReadRequest, now: Timestamp) -> Result<Operator, Problem> {
        self.shared.gate.load().operator(request, &self.shared.tokens.load(), now)
    }

    /// Ends a job for who operates.
    ///
    /// # Errors
    /// As [`Service::cancel`].
    pub async fn cancel_by(
        &self,
        operator: &Operator,
        job_id: &str,
        body: Bytes,
        now: Timestamp,
    ) -> Result<CancelAnswer, Problem> {
        service::cancel_by(&self.shared, operator, job_id, &body, now).await
    }

    /// Drains the agent, or takes that back, for who operates; recorded.
    ///
    /// # Errors
    /// `FORBIDDEN` if the right is for one controller's jobs; `DRAINING` if the agent stops.
    pub async fn drain_by(&self, operator: &Operator, drain: bool) -> Result<DrainAnswer, Problem> {
        self.shared.gate.load().may_drain(operator)?;
        if !(if drain { self.drain() } else { self.undrain() }) {
            return Err(Problem::new(Code::Draining)
                .details("the agent is stopping: that can't be taken back")
                .retry_after(5));
        }
        let kind = if drain { "agent.drained" } else { "agent.undrained" };
        tracing::info!(by = operator.name(), kind, "told so by a request");
        let details = serde_json::json!({"by": operator.name()});
        let written = self
            .shared
            .store
            .write(move |tx| {
                let event = Event::Agent { kind, details: &details };
                store::audit::append(tx, Timestamp::now(), &event).map(drop)
            })
            .await;
        if let Err(error) = written {
            tracing::error!(kind, %error, "the agent's own step could not be recorded");
        }
        let counts = self.counts();
        Ok(DrainAnswer {
            mode: self.mode().as_str().to_owned(),
            jobs_running: counts.running,
            jobs_queued: counts.queued,
        })
    }

    /// Whether there is such a controller on the list.
    pub fn knows(&self, controller: &str) -> bool {
        self.shared.gate.load().controller(controller).is_some()
    }

    /// Adds a bearer token, good at once. `false`: there are as many as may be.
    ///
    /// # Errors
    /// The record can't be written.
    pub async fn create_token(&self, token: TokenRow) -> Result<bool, StoreError> {
        tokens::create(&self.shared, token).await
    }

    /// Revokes a bearer token, good no more. `None`: there is none of that id; `Some(false)`: it was revoked before.
    ///
    /// # Errors
    /// The record can't be written.
    pub async fn revoke_token(&self, id: &str) -> Result<Option<bool>, StoreError> {
        tokens::revoke(&self.shared, id.to_owned()).await
    }

    /// Writes what waits to be written with the next sweep: for the end, when the door is closed.
    pub async fn settle(&self) {
        refusals::write(&self.shared).await;
        tokens::uses(&self.shared).await;
    }

    /// How a job stands; what its texts hold of the purse is to be kept as long as they are.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, also for somebody else's job; `BUSY` where there is no memory for a large result.
    pub async fn status(
        &self,
        reader: &Reader,
        job_id: &str,
        purse: &Purse,
    ) -> Result<(JobStatus, Option<Held>), Problem> {
        query::status(&self.shared, reader, job_id, purse).await
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// `INVALID_QUERY`; `UNAUTHENTICATED` for a reader who is nobody in particular.
    pub async fn list(&self, reader: &Reader, query: ListQuery) -> Result<JobPage, Problem> {
        query::list(&self.shared, reader, query).await
    }

    /// The exact bytes of one stream, as many as there are.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`; `OUTPUT_GONE` after retention.
    pub async fn output(&self, reader: &Reader, job_id: &str, stream: Stream) -> Result<OutputFile, Problem> {
        query::output(&self.shared, reader, job_id, stream).await
    }

    /// A file that the job has left, by its path.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`; `ARTIFACT_NOT_FOUND` while it runs, and for what was not kept; `OUTPUT_GONE` after retention; `BUSY`
    /// where there is no memory in the purse for the job's list.
    pub async fn artifact(
        &self,
        reader: &Reader,
        job_id: &str,
        path: &str,
        purse: &Purse,
    ) -> Result<ArtifactFile, Problem> {
        artifacts::one(&self.shared, reader, job_id, path, purse).await
    }

    /// All files that the job has left, as an archive, which holds what its list takes of the purse.
    ///
    /// # Errors
    /// As [`Service::artifact`].
    pub async fn artifacts(&self, reader: &Reader, job_id: &str, purse: &Purse) -> Result<Archive, Problem> {
        artifacts::all(&self.shared, reader, job_id, purse).await
    }

    /// A job's frames from a number on (1: all), live, and at last the final one, for which the purse is asked.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`.
    pub async fn stream(
        &self,
        reader: &Reader,
        job_id: &str,
        from_seq: Option<u64>,
        system: bool,
        purse: Purse,
    ) -> Result<JobStream, Problem> {
        query::stream(&self.shared, reader, job_id, from_seq, system, purse).await
    }

    /// Whether jobs can run now.
    pub fn ready(&self) -> Readiness {
        let mut problems = Vec::new();
        let health = self.shared.engine.health();
        if !health.ready {
            problems
                .push(health.problem.unwrap_or_else(|| "the Docker engine has not answered yet".to_owned()));
        }
        if !self.shared.serving() {
            problems.push("the agent is draining: it takes no new jobs".to_owned());
        }
        if self.shared.storage_low.load(Ordering::Relaxed) {
            problems.push("the data folder has less free space than its low watermark: free some".to_owned());
        }
        if let Some(problem) = &*self.shared.record_problem.load() {
            problems.push(problem.to_string());
        }
        Readiness { problems }
    }

    /// Numbers for `/health`.
    pub fn counts(&self) -> Counts {
        Counts {
            queued: self.shared.queue().len(),
            running: self.shared.running(),
            engine: self.shared.engine.health().version,
        }
    }

    /// What the service counts with.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Goes on with another configuration: gate, limits, policy, caps. Jobs keep what they were admitted with, and
    /// sandboxes are made as before. Jobs of controllers that are on the list no more are cancelled soon after.
    pub fn reload(&self, config: &Config, gate: Gate) {
        let gate = Arc::new(gate);
        self.shared.gate.store(Arc::clone(&gate));
        // Another's residue does not lie about, though nobody would get it.
        self.shared.engine.retire(&|class| gate.has_class(class));
        // What sandboxes are made of stays: the engine was made with it.
        let sandbox = self.shared.settings.load().sandbox.clone();
        self.shared.settings.store(Arc::new(Settings { sandbox, ..Settings::of(config) }));
        self.shared.look_for_revoked.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }

    /// From now on no job is taken or started; running ones go on, queued ones wait for the next start or for
    /// [`Service::undrain`]. `false`: the agent stops, which is more.
    pub fn drain(&self) -> bool {
        self.change(Mode::Draining)
    }

    /// Takes and starts jobs again. `false`: the agent stops, which nothing takes back.
    pub fn undrain(&self) -> bool {
        self.change(Mode::Serving)
    }

    /// Whether jobs are taken and started.
    pub fn mode(&self) -> Mode {
        *self.shared.mode.borrow()
    }

    fn change(&self, wanted: Mode) -> bool {
        self.shared.mode.send_if_modified(|mode| {
            let changes = *mode != Mode::Stopping && *mode != wanted;
            if changes {
                *mode = wanted;
            }
            changes
        });
        self.mode() == wanted
    }

    /// Waits until no job runs, at most `patience`; then ends those that do as cancelled, and waits for
    /// that, within the grace and some seconds. `hurry` cuts the patience short.
    pub async fn finish(&self, patience: Duration, hurry: CancellationToken) {
        self.shared.mode.send_replace(Mode::Stopping);
        self.runners.close();
        tokio::select! {
            () = self.runners.wait() => return,
            () = tokio::time::sleep(patience) => {}
            () = hurry.cancelled() => {}
        }
        let left = self.shared.running();
        if left > 0 {
            tracing::warn!(left, "the drain time is over: running jobs are ended as cancelled");
        }
        self.shared.ask_all_to_stop(Stop::Cancelled);
        let grace = self.shared.settings.load().jobs.grace;
        if tokio::time::timeout(grace + Duration::from_secs(10), self.runners.wait()).await.is_err() {
            tracing::error!(
                left = self.shared.running(),
                "jobs could not be ended in time: their sandboxes are taken up at the next start"
            );
        }
    }
}

impl Readiness {
    /// Whether nothing is in the way.
    pub fn ready(&self) -> bool {
        self.problems.is_empty()
    }
}
