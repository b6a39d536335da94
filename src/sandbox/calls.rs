//! Every call to the Docker API, each with its own deadline, counted, and with errors that say whether
//! the engine answered at all.
//!
//! bollard writes whole request bodies, environment included, to the log at `debug`: the agent's
//! subscriber must keep [`LOG_CAP`] in its filter whatever else is asked for.

use std::{
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, ContainerUpdateBody,
        CreateImageInfo, ImageInspect, SystemInfo, SystemVersion,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions,
        KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        StartContainerOptions, WaitContainerOptionsBuilder,
    },
};
use futures_util::{Stream, StreamExt};

use super::{CREATE_DEADLINE, INSPECT_DEADLINE, SandboxError};
use crate::metrics::{Metrics, Outcome};

/// What the log's filter must hold: below `warn` bollard prints the environment of jobs.
pub const LOG_CAP: &str = "bollard=warn";

/// Deadline of the calls that have no other.
pub(super) const OTHER_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of one ping.
pub(super) const PING_DEADLINE: Duration = Duration::from_secs(3);
/// bollard's own limit, for the head of an answer; ours are shorter, `wait` alone may take this long.
const BOLLARD_LIMIT: u64 = 300;

/// What the sandbox tells whoever counts. All methods do nothing unless overridden.
pub trait Observer: Send + Sync + 'static {
    /// A call to Docker ended: its name (`create`, `start`, ...), and how.
    fn call(&self, name: &'static str, outcome: Outcome, took: Duration) {
        let _ = (name, outcome, took);
    }
    /// Whether the engine answers, as of now.
    fn up(&self, up: bool) {
        let _ = up;
    }
    /// A launch was served from the pool (`true`) or started cold.
    fn launched(&self, warm: bool) {
        let _ = warm;
    }
    /// A job got a sandbox that earlier ones of its controller have used.
    fn reused(&self) {}
    /// Sandboxes that wait in the pool, now.
    fn pool_depth(&self, waiting: usize) {
        let _ = waiting;
    }
    /// A sandbox was started for the pool.
    fn pool_refilled(&self, took: Duration) {
        let _ = took;
    }
    /// Containers that could not be removed, now.
    fn quarantined(&self, containers: usize) {
        let _ = containers;
    }
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uncounted;

impl Observer for Uncounted {}

impl Observer for Metrics {
    fn call(&self, name: &'static str, outcome: Outcome, took: Duration) {
        self.docker_call(name, outcome, took);
    }
    fn up(&self, up: bool) {
        self.docker_up.set(up.into());
    }
    fn launched(&self, warm: bool) {
        if warm { self.pool_hits.inc() } else { self.pool_misses.inc() }
    }
    fn reused(&self) {
        self.sandbox_reuses.inc();
    }
    fn pool_depth(&self, waiting: usize) {
        self.pool_depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
    fn pool_refilled(&self, took: Duration) {
        self.pool_refill.observe(took.as_secs_f64());
    }
    fn quarantined(&self, containers: usize) {
        self.quarantined.set(i64::try_from(containers).unwrap_or(i64::MAX));
    }
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(super) enum CallError {
    /// No answer in time: whether it took effect is not known.
    #[error("{call} had no answer within {} s", .after.as_secs())]
    Deadline { call: &'static str, after: Duration },
    /// The engine said no.
    #[error("Docker refused {call}: {message} (status {status})")]
    Refused { call: &'static str, status: u16, message: String },
    /// The connection could not be made, or broke.
    #[error("{call} failed: {why}")]
    Unreachable { call: &'static str, why: String },
}

impl CallError {
    /// The HTTP status, where the engine answered with one.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            CallError::Refused { status, .. } => Some(*status),
            CallError::Deadline { .. } | CallError::Unreachable { .. } => None,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            CallError::Refused { .. } => Outcome::Error,
            CallError::Deadline { .. } | CallError::Unreachable { .. } => Outcome::Timeout,
        }
    }
}

impl From<CallError> for SandboxError {
    fn from(error: CallError) -> SandboxError {
        match error {
            CallError::Refused { .. } => SandboxError::Failed(error.to_string()),
            CallError::Deadline { .. } | CallError::Unreachable { .. } => {
                SandboxError::Unreachable(error.to_string())
            }
        }
    }
}

/// The Docker API as this room uses it.
pub(super) struct Api {
    socket: PathBuf,
    observer: Arc<dyn Observer>,
    /// Made when the engine first answers: the API's version is settled then.
    client: Mutex<Option<Docker>>,
}

impl Api {
    pub(super) fn new(socket: PathBuf, observer: Arc<dyn Observer>) -> Api {
        Api { socket, observer, client: Mutex::new(None) }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// Settles the API's version anew with the next call: the engine may come back as another version.
    pub(super) fn forget(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn client(&self) -> Result<Docker, CallError> {
        if let Some(client) = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(client);
        }
        let client = self
            .timed("version", INSPECT_DEADLINE, async {
                let socket = self.socket.to_string_lossy();
                let fresh = Docker::connect_with_unix(&socket, BOLLARD_LIMIT, API_DEFAULT_VERSION)?;
                fresh.negotiate_version().await
            })
            .await?;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    /// Runs one call under its deadline, and counts it.
    async fn timed<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CallError> {
        let started = Instant::now();
        let result = match tokio::time::timeout(deadline, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(sort(call, error)),
            Err(_) => Err(CallError::Deadline { call, after: deadline }),
        };
        let outcome = result.as_ref().err().map_or(Outcome::Ok, CallError::outcome);
        self.observer.call(call, outcome, started.elapsed());
        result
    }

    /// Creates a container; its id.
    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, CallError> {
        let client = self.client().await?;
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let call = client.create_container(Some(options), body);
        Ok(self.timed("create", CREATE_DEADLINE, call).await?.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), CallError> {
        let client = self.client().await?;
        self.timed("start", CREATE_DEADLINE, client.start_container(id, None::<StartContainerOptions>)).await
    }

    /// Changes limits of a running container.
    pub(super) async fn update(&self, id: &str, limits: ContainerUpdateBody) -> Result<(), CallError> {
        let client = self.client().await?;
        self.timed("update", OTHER_DEADLINE, client.update_container(id, limits)).await
    }

    /// Looks at a container by id or name; `None` if there is none.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, CallError> {
        let client = self.client().await?;
        let call = client.inspect_container(id, None::<InspectContainerOptions>);
        match self.timed("inspect", INSPECT_DEADLINE, call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn kill(&self, id: &str, signal: &str) -> Result<(), CallError> {
        let client = self.client().await?;
        let options = KillContainerOptionsBuilder::default().signal(signal).build();
        self.timed("kill", OTHER_DEADLINE, client.kill_container(id, Some(options))).await
    }

    /// Removes by force, with anonymous volumes.
    pub(super) async fn remove(&self, id: &str) -> Result<(), CallError> {
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        self.timed("remove", OTHER_DEADLINE, client.remove_container(id, Some(options))).await
    }

    /// Every container, running or not, that has this label.
    pub(super) async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, CallError> {
        let client = self.client().await?;
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.timed("list", OTHER_DEADLINE, client.list_containers(Some(options))).await
    }

    /// Resolves when the container does not run, or at the deadline. What it says is a hint: bollard turns a
    /// non-zero exit code into an error, and a stream may end empty, so the caller inspects in every case.
    pub(super) async fn wait(&self, id: &str, deadline: Duration) -> Result<(), CallError> {
        let client = self.client().await?;
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut answers = client.wait_container(id, Some(options));
        match tokio::time::timeout(deadline, answers.next()).await {
            Ok(Some(Err(Error::DockerContainerWaitError { .. })) | Some(Ok(_)) | None) | Err(_) => Ok(()),
            Ok(Some(Err(error))) => {
                let error = sort("wait", error);
                self.observer.call("wait", error.outcome(), Duration::ZERO);
                Err(error)
            }
        }
    }

    pub(super) async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInspect>, CallError> {
        let client = self.client().await?;
        match self.timed("inspect_image", INSPECT_DEADLINE, client.inspect_image(reference)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A pull's progress. The caller watches that it goes on.
    pub(super) async fn pull(
        &self,
        name: &str,
        tag: &str,
    ) -> Result<impl Stream<Item = Result<CreateImageInfo, CallError>> + use<>, CallError> {
        let client = self.client().await?;
        let options = CreateImageOptionsBuilder::default().from_image(name).tag(tag).build();
        let progress = client.create_image(Some(options), None, None);
        Ok(progress.map(|step| step.map_err(|error| sort("pull", error))))
    }

    pub(super) async fn ping(&self) -> Result<(), CallError> {
        let client = self.client().await?;
        self.timed("ping", PING_DEADLINE, client.ping()).await.map(|_| ())
    }

    /// All that the engine says of itself.
    pub(super) async fn about(&self) -> Result<(SystemVersion, SystemInfo), CallError> {
        let client = self.client().await?;
        let version = self.timed("version", INSPECT_DEADLINE, client.version()).await?;
        Ok((version, self.timed("info", INSPECT_DEADLINE, client.info()).await?))
    }

    /// The engine's version, in words.
    pub(super) async fn version(&self) -> Result<String, CallError> {
        let client = self.client().await?;
        let said = self.timed("version", INSPECT_DEADLINE, client.version()).await?;
        let name = said.platform.map_or_else(|| "Docker".to_owned(), |platform| platform.name);
        let name = if name.is_empty() { "Docker".to_owned() } else { name };
        Ok(format!("{name} {}", said.version.unwrap_or_default()).trim().to_owned())
    }
}

/// Tells an engine that said no from one that did not say anything.
fn sort(call: &'static str, error: Error) -> CallError {
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            CallError::Refused { call, status: status_code, message: message.trim().to_owned() }
        }
        Error::DockerStreamError { error } => CallError::Refused { call, status: 500, message: error },
        // Which client asked is nobody's business: what the system said of the connection is.
        Error::HyperLegacyError { err } => CallError::Unreachable { call, why: first_cause(&err) },
        Error::HyperResponseError { err } => CallError::Unreachable { call, why: first_cause(&err) },
        other => CallError::Unreachable { call, why: with_causes(&other) },
    }
}

/// What all of the others come from.
fn first_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An error with all that caused it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
