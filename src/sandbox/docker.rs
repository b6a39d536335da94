//! The Docker engine: launches, finds and removes containers. Its tasks: the probe of the daemon's health,
//! the pool's refill, the sweep of left folders (all in [`Engine::upkeep`]), and the reaper's removals.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{
    CREATE_DEADLINE, Engine, Found, Health, Image, Label, Sandbox, SandboxError, Shape,
    calls::{Api, CallError, Observer},
    channel::Channel,
    container::{self, LABEL_AGENT, LABEL_ATTEMPT, LABEL_HOME, LABEL_INSTANCE, LABEL_POOL, LABEL_ROW},
    folder::Folders,
    images::{self, Images},
    pool::Pool,
    probe::Probe,
    ready::Ready,
    reaper::Reaper,
    session::Session,
};
use crate::{
    base::{failpoints::failpoint, ids::random_hex},
    config::SandboxConfig,
};

/// Every container's name begins with it.
pub const NAME_PREFIX: &str = "quickcmd-";
/// How often folders without a container are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// The same, while Docker does not answer.
const SWEEP_AGAIN: Duration = Duration::from_secs(5);
/// How long a supervisor may take to say hello: longer than a start that has no answer, which says more (a job whose
/// engine does not answer waits, one whose supervisor does not come up has failed).
const START_PATIENCE: Duration = CREATE_DEADLINE.saturating_add(Duration::from_secs(5));
/// How often a container that has not connected yet is looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// How long removals may take when the agent stops; the next start's sweep does the rest.
const LAST_REMOVALS: Duration = Duration::from_secs(15);

/// Sandboxes made of Docker containers.
pub struct Docker {
    pub(super) core: Arc<Core>,
    pub(super) pool: Arc<Pool>,
    probe: Probe,
}

/// What a launch needs; shared with the pool and with each sandbox.
pub(super) struct Core {
    pub(super) api: Arc<Api>,
    pub(super) config: SandboxConfig,
    folders: Folders,
    pub(super) images: Arc<Images>,
    pub(super) reaper: Reaper,
    /// First 8 hex digits of SHA-256 over agent id and data folder.
    home: String,
    /// This life of the agent.
    instance: String,
    /// Containers that this life has made or is making and that are not gone yet: id by name.
    live: Arc<Mutex<HashMap<String, Option<String>>>>,
}

impl Docker {
    /// Prepares the engine; asks the daemon nothing yet, so a missing one delays no start. Must be called
    /// on the runtime that its tasks are to run on.
    ///
    /// # Errors
    /// One sentence if `docker_host` is no Unix socket or the folder can't be written.
    pub fn new(
        config: &SandboxConfig,
        data_dir: &Path,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Docker>, SandboxError> {
        let host = &config.docker_host;
        let socket = host.strip_prefix("unix://").unwrap_or(host);
        if !socket.starts_with('/') {
            return Err(SandboxError::Failed(format!(
                "docker_host is {host}: give a Unix socket, for example unix:///var/run/docker.sock"
            )));
        }
        let folders = Folders::open(data_dir).map_err(|error| {
            SandboxError::Failed(format!(
                "the sandboxes' folder in {} can't be prepared: {error}",
                data_dir.display()
            ))
        })?;
        let api = Arc::new(Api::new(socket.into(), observer));
        let core = Core {
            images: Arc::new(Images::new(api.clone(), config.pull_policy, config.pull_stall)),
            reaper: Reaper::new(api.clone(), folders.clone()),
            api: api.clone(),
            config: config.clone(),
            folders,
            home: home(&config.agent_id, data_dir),
            instance: random_hex(8),
            live: Arc::default(),
        };
        let core = Arc::new(core);
        Ok(Arc::new(Docker { pool: Arc::new(Pool::new(core.clone())), core, probe: Probe::new(api) }))
    }

    /// The name of the container that a cold start for this job makes. Another life of the agent makes another
    /// name: what an earlier one left of the same attempt never got the job (the record has the intent before the
    /// hand-over), and its removal must touch nothing of ours.
    pub fn container_name(&self, label: &Label) -> String {
        let Core { home, instance, .. } = &*self.core;
        format!("{NAME_PREFIX}{home}-{}-{}-{}", label.row, label.attempt, &instance[..4])
    }

    /// Keeps the pool's standing number of sandboxes of this shape waiting, in place of an earlier one.
    /// Without a default shape the pool holds only what jobs have asked for lately.
    pub fn want_default(&self, shape: Shape) {
        self.pool.want_default(&shape);
    }
}

/// Tells one agent's containers from another's, also where both have the same name.
pub(super) fn home(agent_id: &str, data_dir: &Path) -> String {
    let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut hash = Sha256::new();
    hash.update(agent_id.as_bytes());
    hash.update([0]);
    hash.update(data_dir.as_os_str().as_encoded_bytes());
    hex::encode(hash.finalize())[..8].to_owned()
}

fn no_folder(error: &std::io::Error) -> SandboxError {
    SandboxError::Failed(format!("the sandbox's folder can't be made: {error}; look at the agent's disk"))
}

impl Core {
    /// Makes a container for a job, by its derived name.
    async fn launch_for(
        self: &Arc<Self>,
        shape: &Shape,
        label: &Label,
        name: &str,
    ) -> Result<Ready, SandboxError> {
        let mut labels = container::job_labels(label);
        self.add_labels(&mut labels);
        self.launch_detached(shape, name.to_owned(), labels, Some(label)).await
    }

    /// Launches in a task of its own: who waits for it may be gone before the daemon has answered, and
    /// the container is buried nevertheless.
    async fn launch_detached(
        self: &Arc<Self>,
        shape: &Shape,
        name: String,
        labels: HashMap<String, String>,
        label: Option<&Label>,
    ) -> Result<Ready, SandboxError> {
        let (core, shape, label) = (self.clone(), shape.clone(), label.cloned());
        let (give, take) = tokio::sync::oneshot::channel();
        self.reaper.spawn(async move {
            let launched = core.launch(&shape, &name, labels, label.as_ref()).await;
            let ready = launched.map(|(id, channel)| Ready::new(core, (id, name, channel)));
            // Nobody waits any more: what was made is buried in here, where the reaper still sees the task.
            drop(give.send(ready));
        });
        take.await.unwrap_or_else(|_| Err(SandboxError::Failed("the launch ended early".to_owned())))
    }

    /// Makes a container for the pool.
    pub(super) async fn launch_waiting(self: &Arc<Self>, shape: &Shape) -> Result<Ready, SandboxError> {
        let mut labels = HashMap::from([(LABEL_POOL.to_owned(), "1".to_owned())]);
        self.add_labels(&mut labels);
        let name = format!("{NAME_PREFIX}{}-pool-{}", self.home, random_hex(8));
        self.launch_detached(shape, name, labels, None).await
    }

    fn add_labels(&self, labels: &mut HashMap<String, String>) {
        labels.insert(LABEL_AGENT.to_owned(), self.config.agent_id.clone());
        labels.insert(LABEL_HOME.to_owned(), self.home.clone());
        labels.insert(LABEL_INSTANCE.to_owned(), self.instance.clone());
    }

    async fn launch(
        &self,
        shape: &Shape,
        name: &str,
        labels: HashMap<String, String>,
        label: Option<&Label>,
    ) -> Result<(String, Channel), SandboxError> {
        let volumes = self.images.volumes(&shape.image).await?;
        let path = self.folders.path(name);
        let Some(folder) = path.to_str() else {
            return Err(SandboxError::Failed(format!("{} is no UTF-8", path.display())));
        };
        let body = container::body(&self.config, shape, folder, &volumes, labels)?;
        let there = self.live().get(name).cloned();
        match there {
            None => {}
            // A launch that Docker did not answer to the end: it gave the container to nobody.
            Some(Some(id)) if self.reaper.has(&id) => {
                return Err(SandboxError::Unreachable(format!(
                    "container {name} of an earlier try is still being removed"
                )));
            }
            Some(_) => {
                return Err(SandboxError::MayHaveStarted(format!(
                    "container {name} of this attempt is there already"
                )));
            }
        }
        // From here on the container is somebody's to remove, also when this future is dropped.
        let mut guard = Guard { core: self, id: None, name: name.to_owned(), armed: true };
        self.live().insert(name.to_owned(), None);
        self.folders.reserve(name).map_err(|error| no_folder(&error))?;
        // A name that somebody else uses is found out before its folder is touched.
        failpoint!("create");
        let id = self.create(name, body, shape, label).await?;
        failpoint!("created");
        guard.id = Some(id.clone());
        self.live().insert(name.to_owned(), Some(id.clone()));
        let channel = self.start(&id, name).await?;
        guard.armed = false;
        Ok((id, channel))
    }

    /// Starts the container and waits for its supervisor, whichever comes first: Docker answers a start
    /// some time after the program runs.
    async fn start(&self, id: &str, name: &str) -> Result<Channel, SandboxError> {
        let listener = self.folders.stage(name).map_err(|error| no_folder(&error))?;
        failpoint!("start");
        let (api, started) = (self.api.clone(), id.to_owned());
        // In a task of its own: the call goes on to its end if the supervisor is the faster one.
        let start = tokio::spawn(async move { api.start(&started).await });
        let accepted = async {
            let mut start = Some(start);
            let mut accept = std::pin::pin!(Channel::accept(&listener));
            loop {
                tokio::select! {
                    channel = &mut accept => return channel.map_err(|error| {
                        SandboxError::Failed(format!("the sandbox's supervisor can't be used: {error}"))
                    }),
                    answer = async { start.as_mut().expect("polled only while it is there").await }, if start.is_some() => {
                        start = None;
                        answer.map_err(|error| SandboxError::Failed(error.to_string()))??;
                    }
                    () = tokio::time::sleep(GLANCE) => self.still_coming(id).await?,
                }
            }
        };
        let channel = tokio::time::timeout(START_PATIENCE, accepted).await.unwrap_or_else(|_| {
            Err(SandboxError::Failed(format!(
                "the sandbox's supervisor did not come up within {} s",
                START_PATIENCE.as_secs()
            )))
        })?;
        failpoint!("attach");
        self.folders.close_socket(name);
        Ok(channel)
    }

    /// Fails if a container that should be coming up has ended.
    async fn still_coming(&self, id: &str) -> Result<(), SandboxError> {
        let Ok(found) = self.api.inspect(id).await else { return Ok(()) };
        let evidence = found.as_ref().map(super::session::evidence);
        match evidence {
            Some(evidence) if evidence.running || evidence.exit_code.is_none() => Ok(()),
            Some(evidence) => Err(SandboxError::Failed(format!(
                "the sandbox's supervisor ended at once with exit code {}{}{}",
                evidence.exit_code.unwrap_or_default(),
                if evidence.oom_killed { ", out of memory: its memory limit is too small" } else { "" },
                evidence.error.map(|error| format!(": {error}")).unwrap_or_default(),
            ))),
            None => Err(SandboxError::Failed("the sandbox's container was removed as it started".to_owned())),
        }
    }

    /// Creates the container. A name that is taken by an earlier try of the same attempt which can't have got
    /// a job yet is made free.
    async fn create(
        &self,
        name: &str,
        body: bollard::models::ContainerCreateBody,
        shape: &Shape,
        label: Option<&Label>,
    ) -> Result<String, SandboxError> {
        for _ in 0..3 {
            let error = match self.api.create(name, body.clone()).await {
                Ok(id) => return Ok(id),
                Err(error) => error,
            };
            match error.status() {
                Some(404) => {
                    self.images.forget(&shape.image.reference);
                    return Err(SandboxError::ImageUnavailable {
                        image: shape.image.reference.clone(),
                        why: format!("it was removed from this host since it was resolved ({error})"),
                    });
                }
                Some(409) => {
                    self.make_free(name, label, &error).await?;
                    // What had the name is gone, with the folder.
                    self.folders.reserve(name).map_err(|error| no_folder(&error))?;
                }
                _ => return Err(error.into()),
            }
        }
        Err(SandboxError::Unreachable(format!("the container's name {name} does not become free")))
    }

    /// Removes what has the name, if it is an earlier try of the same attempt that never got its job.
    async fn make_free(
        &self,
        name: &str,
        label: Option<&Label>,
        error: &CallError,
    ) -> Result<(), SandboxError> {
        let Some(there) = self.api.inspect(name).await? else { return Ok(()) };
        let labels = there.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
        let same = is(LABEL_HOME, &self.home)
            && label.is_some_and(|label| {
                is(LABEL_ROW, &label.row.to_string()) && is(LABEL_ATTEMPT, &label.attempt.to_string())
            });
        if !same {
            return Err(SandboxError::Failed(format!("{error}, and that container is not this job's")));
        }
        let never_started = there.state.as_ref().and_then(|state| state.status)
            == Some(bollard::models::ContainerStateStatusEnum::CREATED)
            && !self.folders.was_connected(name);
        // A launch of this life that failed gave its container to nobody; one that succeeded would be in `live`.
        // Docker calls a container created for some time after its program runs.
        let never_given = is(LABEL_INSTANCE, &self.instance);
        if !never_started && !never_given {
            return Err(SandboxError::MayHaveStarted(format!(
                "container {name} of this attempt was there already"
            )));
        }
        self.reaper.remove_now(&there.id.unwrap_or_else(|| name.to_owned()), Some(name)).await?;
        Ok(())
    }

    /// Whether the limits of a running container of this shape can be changed. Docker's own runtime can, and so can
    /// crun; of others that is not known.
    pub(super) fn can_change(&self, shape: &Shape) -> bool {
        matches!(
            container::runtime(&self.config, &shape.image.reference).as_deref(),
            None | Some("runc" | "crun")
        )
    }

    /// Gives a waiting container the limits of this shape.
    pub(super) async fn change(&self, ready: &Ready, shape: &Shape) -> Result<(), CallError> {
        match ready.id() {
            Some(id) => self.api.update(id, container::update(&shape.limits)).await,
            None => Ok(()),
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<String, Option<String>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the container of this name is with the reaper.
    fn is_dying(&self, name: &str) -> bool {
        let there = self.live().get(name).cloned().flatten();
        there.is_some_and(|id| self.reaper.has(&id))
    }

    /// Hands a container of this life to the reaper.
    pub(super) fn bury(&self, id: String, name: Option<String>) {
        let live = self.live.clone();
        let remembered = name.clone();
        self.reaper.take(id, name, move || {
            if let Some(name) = remembered {
                live.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            }
        });
    }

    /// One pass over the folders: one whose container is gone goes too.
    pub(super) async fn sweep_folders_once(&self) -> Result<(), CallError> {
        // Before the list: a container that is made meanwhile is not in it, nor its folder in here.
        let names = self.folders.names();
        if names.is_empty() {
            return Ok(());
        }
        let there: HashSet<String> = self.found().await?.into_iter().map(|found| found.name).collect();
        for name in names.into_iter().filter(|name| !there.contains(name) && !self.live().contains_key(name))
        {
            if let Err(error) = self.folders.clear(&name) {
                tracing::warn!(name, %error, "a left sandbox's folder could not be removed");
            }
        }
        Ok(())
    }

    async fn found(&self) -> Result<Vec<Found>, CallError> {
        found(&self.api, &self.home).await
    }
}

/// Every container of that installation, by label.
pub(super) async fn found(api: &Api, home: &str) -> Result<Vec<Found>, CallError> {
    let listed = api.list(&format!("{LABEL_HOME}={home}")).await?;
    Ok(listed
        .into_iter()
        .filter_map(|container| {
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            Some(Found {
                container_id: container.id?,
                name: name.trim_start_matches('/').to_owned(),
                state: container.state.map(|state| state.to_string()).unwrap_or_default(),
                created: container.created.unwrap_or_default(),
                labels: container.labels.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
            })
        })
        .collect())
}

/// A container on its way: buried unless its launch succeeds.
struct Guard<'a> {
    core: &'a Core,
    /// Not known while it is being created.
    id: Option<String>,
    name: String,
    armed: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        match self.id.take() {
            _ if !self.armed => {}
            Some(id) => self.core.bury(id, Some(std::mem::take(&mut self.name))),
            // Nothing was made, or the daemon did not say so: then the next try of this attempt, or the
            // sweep, finds it.
            None => {
                self.core.folders.release(&self.name);
                self.core.live().remove(&self.name);
            }
        }
    }
}

impl Engine for Docker {
    fn resolve(&self, reference: &str) -> BoxFuture<'_, Result<Image, SandboxError>> {
        let reference = reference.to_owned();
        async move { self.core.images.resolve(&reference).await.inspect_err(|error| self.probe.hint(error)) }
            .boxed()
    }

    fn launch(&self, shape: Shape, label: Label) -> BoxFuture<'_, Result<Box<dyn Sandbox>, SandboxError>> {
        async move {
            // From the beginning: what is about to come back need not be made anew.
            let lent =
                (shape.reuse > 1 && self.core.config.pool.max > 0).then(|| Pool::lend(&self.pool, &shape));
            let (waiting, changed) = match self.pool.take(&shape) {
                None => (self.pool.take_changed(&shape).await, true),
                some => (some, false),
            };
            let changed = changed && waiting.is_some();
            let (ready, warm) = match waiting {
                Some(ready) => (ready, true),
                None => {
                    let _no_refill_meanwhile = self.pool.cold_start();
                    let mut name = self.container_name(&label);
                    // What an earlier try left, which nobody got, is still being removed, under its own name and folder.
                    if self.core.is_dying(&name) {
                        name = format!("{name}-{}", random_hex(4));
                    }
                    let ready = self.core.launch_for(&shape, &label, &name).await;
                    (ready.inspect_err(|error| self.probe.hint(error))?, false)
                }
            };
            self.core.api.observer().launched(warm);
            if ready.history().0 > 0 {
                self.core.api.observer().reused();
            }
            // One whose limits were changed is another's shape.
            let lent = lent.filter(|_| !changed);
            let session = Session::new(self.core.clone(), ready, warm, lent);
            let session = session.ok_or_else(|| SandboxError::Failed("the sandbox is taken".to_owned()))?;
            Ok(Box::new(session) as Box<dyn Sandbox>)
        }
        .boxed()
    }

    fn retire(&self, known: &dyn Fn(&str) -> bool) {
        self.pool.retire(known);
    }

    fn adopt(&self, container_id: &str) -> Box<dyn Sandbox> {
        Box::new(Session::adopted(self.core.clone(), container_id.to_owned()))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, SandboxError>> {
        async move {
            let found = self.core.found().await?;
            // One that is being created has no id yet as far as its launch knows.
            let mut live = self.core.live();
            for container in &found {
                if let Some(id @ None) = live.get_mut(&container.name) {
                    *id = Some(container.container_id.clone());
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn is_mine(&self, container_id: &str) -> bool {
        self.core.live().values().flatten().any(|id| id == container_id) || self.core.reaper.has(container_id)
    }

    fn remove(&self, container_id: &str) -> BoxFuture<'_, Result<(), SandboxError>> {
        let id = container_id.to_owned();
        async move { Ok(self.core.reaper.remove_now(&id, None).await?) }.boxed()
    }

    fn health(&self) -> Health {
        self.probe.health()
    }

    fn upkeep(self: Arc<Self>, stop: CancellationToken) -> BoxFuture<'static, ()> {
        async move {
            let sweep = async {
                // At once: an earlier life may have left some.
                loop {
                    let pause = match self.core.sweep_folders_once().await {
                        Ok(()) => SWEEP,
                        Err(error) => {
                            tracing::debug!(%error, "folders are swept later");
                            SWEEP_AGAIN
                        }
                    };
                    tokio::time::sleep(pause).await;
                }
            };
            let renew = async {
                loop {
                    tokio::time::sleep(images::RENEW).await;
                    if self.probe.health().ready {
                        self.core.images.renew_once().await;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = renew => {}
                () = self.probe.run() => {}
                () = self.pool.run(&self.probe) => {}
                () = sweep => {}
            }
            self.pool.close();
            self.core.reaper.idle(LAST_REMOVALS).await;
        }
        .boxed()
    }
}
