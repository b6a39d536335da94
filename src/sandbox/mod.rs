//! Single-use sandboxes: a container that was started with the supervisor in it, takes one job over
//! its channel, and is thrown away; where a controller's configuration says so, it is emptied and takes that
//! controller's next job. Knows Docker and the channel; knows nothing of queue, database,
//! frames or clients.

mod calls;
mod channel;
#[cfg(any(test, feature = "fuzzing"))]
pub use channel::greeting_of;
mod container;
mod diagnosis;
mod docker;
#[doc(hidden)]
pub mod fake;
mod folder;
mod images;
mod mould;
mod outside;
mod pool;
mod probe;
mod ready;
mod reaper;
mod seccomp;
mod session;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use calls::{LOG_CAP, Observer, Uncounted};
pub use container::{
    LABEL_AGENT, LABEL_ATTEMPT, LABEL_HOME, LABEL_INSTANCE, LABEL_JOB, LABEL_PAYLOAD, LABEL_POOL, LABEL_ROW,
};
#[cfg(test)]
pub(crate) use container::{body as create_body, job_labels, update as update_body};
pub use diagnosis::Trouble;
pub use docker::{Docker, NAME_PREFIX};
pub use mould::{Mould, update_call};
pub use outside::{About, FILTER, Outside};
pub use quickcmd_init::proto::{Job, Stop};

use crate::{config::Limits, wire::payload::Network};

/// What distinguishes one kind of sandbox from another: a waiting one can serve a job of its shape only.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub image: Image,
    pub limits: Limits,
    pub network: Network,
    /// The controller, by its id and keys, where it may use a sandbox more than once: sandboxes are never shared between
    /// classes.
    pub class: String,
    /// Jobs that one sandbox may run one after the other; 1: each is used once. Not what distinguishes them: a waiting
    /// one that has run fewer serves.
    pub reuse: u32,
}

/// An image, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Image {
    /// As configured: `alpine:latest`.
    pub reference: String,
    /// What the container is made from: the image's id (`sha256:...`), which can't move.
    pub id: String,
    /// What is recorded: the repository digest if it has one, else the id.
    pub digest: String,
    /// The environment that the image sets (`Config.Env`); the job's own comes on top.
    pub env: Vec<(String, String)>,
}

/// Which job a container is for, for its name and its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The job's row in the database.
    pub row: i64,
    pub job_id: String,
    pub payload_sha256: String,
    pub attempt: u32,
}

/// What the daemon says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub running: bool,
    /// Docker's exit code of process 1, the supervisor; proves nothing of the job by itself.
    pub exit_code: Option<i64>,
    pub oom_killed: bool,
    pub error: Option<String>,
}

/// A container of ours, as found by its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub container_id: String,
    pub name: String,
    pub state: String,
    /// Unix seconds.
    pub created: i64,
    pub labels: BTreeMap<String, String>,
}

/// How readiness sees the engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    pub ready: bool,
    /// What is wrong and what to do, where it is not.
    pub problem: Option<String>,
    /// Name and version of the engine, when it has answered once.
    pub version: Option<String>,
}

/// Why a sandbox could not be had or used.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum SandboxError {
    /// The engine does not answer: the job may wait and be tried again, nothing was started.
    #[error("the Docker engine does not answer: {0}")]
    Unreachable(String),
    /// The image is not there and may not or could not be pulled.
    #[error("image {image} is not available: {why}")]
    ImageUnavailable {
        /// As the job asked for it.
        image: String,
        /// What to do.
        why: String,
    },
    /// The engine answered with an error, or the supervisor did not come up.
    #[error("{0}")]
    Failed(String),
    /// The job was sent, or may have been, and then the channel broke: it must not be run again.
    #[error("the job may have been started: {0}")]
    MayHaveStarted(String),
}

/// Makes sandboxes. One suite of tests runs on both: [`Docker`] and the fake.
pub trait Engine: Send + Sync + 'static {
    /// Resolves a reference by the pull policy; pulls if it must.
    fn resolve(&self, reference: &str) -> BoxFuture<'_, Result<Image, SandboxError>>;

    /// Gives a sandbox of that shape that waits for its job: from the pool, or started now. For a cold start
    /// the container's name is derived from the label; the caller has recorded that intent before.
    fn launch(&self, shape: Shape, label: Label) -> BoxFuture<'_, Result<Box<dyn Sandbox>, SandboxError>>;

    /// Throws away what waits to be used again by a class that is none any more (`known` says which are); what such a
    /// class's jobs have now waits for none of it either.
    fn retire(&self, known: &dyn Fn(&str) -> bool);

    /// Takes up a container of an earlier life of the agent: no channel, but it can be looked at,
    /// stopped and removed.
    fn adopt(&self, container_id: &str) -> Box<dyn Sandbox>;

    /// Every container of this agent, by label; those that wait in the pool too (see `is_mine`).
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, SandboxError>>;

    /// Whether this process made the container and still has it: it waits in the pool, is being started, or
    /// its removal is under way. Ask after `list`, which learns of those that are just being made.
    fn is_mine(&self, container_id: &str) -> bool;

    /// Removes a container by force, with its volumes; gone already is success.
    fn remove(&self, container_id: &str) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// The last known health; kept by a task of the engine.
    fn health(&self) -> Health;

    /// Runs the engine's own upkeep (health, pool, removals) until the token is cancelled, then throws
    /// away what waits.
    fn upkeep(self: Arc<Self>, stop: tokio_util::sync::CancellationToken) -> BoxFuture<'static, ()>;
}

/// One sandbox, for one job. Dropping it hands its container to the reaper.
pub trait Sandbox: Send + Sync {
    /// The container's id.
    fn id(&self) -> &str;

    /// Whether it had been waiting in the pool.
    fn warm(&self) -> bool;

    /// Which of its container's jobs this one is, from 1; `None` if it is used once only.
    fn use_of(&self) -> Option<u32>;

    /// Sends the job, its standard input with the bytes of its files behind, and the descriptor of its spool. After `Ok` the job is the supervisor's. A `PATH`
    /// is added where the environment has none. `Unreachable` and `Failed`: nothing was sent.
    fn hand_over(
        &mut self,
        job: Job,
        stdin: Vec<u8>,
        spool: OwnedFd,
    ) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Asks the supervisor to end the job (over the channel, or by SIGTERM to process 1 without one).
    fn stop(&self, why: Stop) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// SIGKILL to the container, where asking has not helped.
    fn kill(&self) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Resolves when the container no longer runs (or is gone). Never fails: an engine that does not answer
    /// is asked again until it does.
    fn ended(&self) -> BoxFuture<'_, Evidence>;

    /// What the daemon says now; `None` if the container is gone.
    fn inspect(&self) -> BoxFuture<'_, Result<Option<Evidence>, SandboxError>>;

    /// Removes the container in the background, with retries, until it is gone.
    fn discard(self: Box<Self>);

    /// Its job has ended by itself and reported so, nobody has asked it to stop, and its end is recorded: where its shape
    /// says that, it may serve the controller's next job once its supervisor says that nothing of this one is left. Else
    /// the same as `discard`.
    fn release(self: Box<Self>);
}

/// Deadlines of calls to Docker (design: create and start 30 s, inspect 5 s).
pub const CREATE_DEADLINE: Duration = Duration::from_secs(30);
/// See [`CREATE_DEADLINE`].
pub const INSPECT_DEADLINE: Duration = Duration::from_secs(5);
