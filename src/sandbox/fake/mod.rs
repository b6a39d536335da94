//! An engine without Docker, for tests of what stands above this room. It never runs a command: it plays a
//! small script (its steps stand in `script.rs`) and writes what the supervisor would write into the spool.

mod script;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Engine, Evidence, Found, Health, Image, Job, LABEL_ATTEMPT, LABEL_JOB, LABEL_PAYLOAD, LABEL_ROW, Label,
    Sandbox, SandboxError, Shape, Stop,
};
use crate::base::{clock::Timestamp, ids::random_hex};

/// What goes wrong, once, at the next call that it can happen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// `resolve` or `launch` finds no engine.
    Unreachable,
    /// `resolve` finds no image.
    ImageMissing,
    /// `resolve` never comes back: a pull without an end.
    ResolveHangs,
    /// `resolve` comes back when it is told to: a slow pull.
    ResolveSlow,
    /// The same, and then there is no image: a pull that breaks.
    ResolveBreaks,
    /// `launch` is refused, with this sentence.
    LaunchFails(String),
    /// `launch` never comes back.
    LaunchHangs,
    /// `hand_over` finds the supervisor gone before anything was sent.
    SupervisorGone,
    /// `hand_over` breaks in the middle; the job runs nevertheless.
    ChannelLost,
}

/// What is counted over all lives of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub launches: usize,
    /// Jobs that were handed over.
    pub jobs: usize,
    /// Jobs that run now, and the most that ever ran at once.
    pub running: usize,
    pub most_running: usize,
}

/// The daemon's side: outlives the agent.
#[derive(Default)]
struct World {
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    failures: Mutex<VecDeque<Failure>>,
    counts: Mutex<Counts>,
    /// Why the engine is not ready, if it is not.
    problem: Mutex<Option<String>>,
    /// Whether slow pulls come to their end.
    pulled: watch::Sender<bool>,
}

struct Container {
    found: Found,
    evidence: watch::Sender<Evidence>,
    stop: watch::Sender<Option<Stop>>,
    killed: CancellationToken,
}

/// The fake engine, as one life of the agent sees it.
pub struct Fake {
    world: Arc<World>,
    crashed: Arc<AtomicBool>,
    own: Arc<Mutex<HashMap<String, ()>>>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

/// One that waits for another job of the same controller, and how many it has run.
type Idle = (Shape, u32, Arc<Container>);

impl Default for Fake {
    fn default() -> Fake {
        Fake::new()
    }
}

impl Fake {
    /// An engine with nothing on it.
    pub fn new() -> Fake {
        Fake { world: Arc::default(), crashed: Arc::default(), own: Arc::default(), idle: Arc::default() }
    }

    /// The same daemon, as the agent's next life finds it.
    #[must_use]
    pub fn next_life(&self) -> Fake {
        Fake { world: self.world.clone(), ..Fake::new() }
    }

    /// From here on this life does nothing to the daemon, as if it had been killed.
    pub fn crash(&self) {
        self.crashed.store(true, Ordering::Release);
    }

    /// Lets the next call that it fits go wrong; several are used up in their order.
    pub fn fail(&self, failure: Failure) {
        lock(&self.world.failures).push_back(failure);
    }

    /// Failures that have not come yet.
    pub fn failures_left(&self) -> usize {
        lock(&self.world.failures).len()
    }

    /// Turns readiness red with this sentence, or green; while it is red nothing is reachable.
    pub fn set_problem(&self, problem: Option<&str>) {
        *lock(&self.world.problem) = problem.map(str::to_owned);
    }

    /// Lets the pulls that were slow come to their end.
    pub fn end_pulls(&self) {
        self.world.pulled.send_replace(true);
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        *lock(&self.world.counts)
    }

    /// Sandboxes that wait for another job of their controller.
    pub fn idle_ones(&self) -> usize {
        lock(&self.idle).len()
    }

    fn fails(&self, fits: impl Fn(&Failure) -> bool) -> Option<Failure> {
        self.world.fails(fits)
    }

    fn session(&self, container: Arc<Container>, reuse: Option<(Shape, u32)>) -> Box<dyn Sandbox> {
        Box::new(Session {
            world: self.world.clone(),
            crashed: self.crashed.clone(),
            own: self.own.clone(),
            container,
            reuse,
            idle: self.idle.clone(),
            fit: None,
            given_back: false,
        })
    }

    /// One that has run fewer jobs of this shape than it may.
    fn idle(&self, shape: &Shape) -> Option<Box<dyn Sandbox>> {
        let mut idle = lock(&self.idle);
        let fits = |(other, uses, _): &Idle| {
            let Shape { image, limits, network, class, reuse } = shape;
            *uses < *reuse
                && (image, limits, network, class)
                    == (&other.image, &other.limits, &other.network, &other.class)
        };
        let at = idle.iter().position(fits)?;
        let (_, uses, container) = idle.remove(at);
        Some(self.session(container, Some((shape.clone(), uses + 1))))
    }
}

impl World {
    fn fails(&self, fits: impl Fn(&Failure) -> bool) -> Option<Failure> {
        let mut failures = lock(&self.failures);
        if failures.front().is_some_and(fits) { failures.pop_front() } else { None }
    }

    fn reachable(&self) -> Result<(), SandboxError> {
        match &*lock(&self.problem) {
            Some(problem) => Err(SandboxError::Unreachable(problem.clone())),
            None => Ok(()),
        }
    }

    fn remove(&self, id: &str) {
        if let Some(container) = lock(&self.containers).remove(id) {
            container.killed.cancel();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreachable() -> SandboxError {
    SandboxError::Unreachable("the fake engine was told so".to_owned())
}

impl Engine for Fake {
    fn resolve(&self, reference: &str) -> BoxFuture<'_, Result<Image, SandboxError>> {
        let reference = reference.to_owned();
        async move {
            self.world.reachable()?;
            let fits = |failure: &Failure| {
                use Failure::{ImageMissing, ResolveBreaks, ResolveHangs, ResolveSlow, Unreachable};
                matches!(failure, Unreachable | ImageMissing | ResolveHangs | ResolveSlow | ResolveBreaks)
            };
            match self.fails(fits) {
                Some(Failure::Unreachable) => return Err(unreachable()),
                Some(Failure::ResolveHangs) => std::future::pending().await,
                Some(Failure::ResolveSlow) => {
                    let _ = self.world.pulled.subscribe().wait_for(|pulled| *pulled).await;
                }
                Some(failure) => {
                    if failure == Failure::ResolveBreaks {
                        let _ = self.world.pulled.subscribe().wait_for(|pulled| *pulled).await;
                    }
                    return Err(SandboxError::ImageUnavailable {
                        image: reference,
                        why: "the fake engine was told so".to_owned(),
                    });
                }
                None => {}
            }
            let id = format!("sha256:{}", hex::encode(reference.as_bytes()));
            let env = vec![("PATH".to_owned(), "/bin".to_owned())];
            Ok(Image { digest: format!("{reference}@{id}"), reference, id, env })
        }
        .boxed()
    }

    fn retire(&self, known: &dyn Fn(&str) -> bool) {
        lock(&self.idle).retain(|(shape, _, container)| {
            let kept = known(&shape.class);
            if !kept {
                self.world.remove(&container.found.container_id);
            }
            kept
        });
    }

    fn launch(&self, shape: Shape, label: Label) -> BoxFuture<'_, Result<Box<dyn Sandbox>, SandboxError>> {
        async move {
            self.world.reachable()?;
            let fits = |failure: &Failure| {
                matches!(failure, Failure::Unreachable | Failure::LaunchFails(_) | Failure::LaunchHangs)
            };
            match self.fails(fits) {
                Some(Failure::LaunchFails(why)) => return Err(SandboxError::Failed(why)),
                Some(Failure::LaunchHangs) => std::future::pending().await,
                Some(_) => return Err(unreachable()),
                None => {}
            }
            if let Some(sandbox) = self.idle(&shape) {
                return Ok(sandbox);
            }
            // Each life has names of its own.
            let life = Arc::as_ptr(&self.own).addr();
            let name = format!("quickcmd-fake-{}-{}-{life:x}", label.row, label.attempt);
            let id = random_hex(32);
            let labels = [
                (LABEL_ROW, label.row.to_string()),
                (LABEL_JOB, label.job_id),
                (LABEL_PAYLOAD, label.payload_sha256),
                (LABEL_ATTEMPT, label.attempt.to_string()),
            ];
            let container = Arc::new(Container {
                found: Found {
                    container_id: id.clone(),
                    name: name.clone(),
                    state: "running".to_owned(),
                    created: Timestamp::now().secs(),
                    labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
                },
                evidence: watch::Sender::new(Evidence {
                    running: true,
                    exit_code: None,
                    oom_killed: false,
                    error: None,
                }),
                stop: watch::Sender::new(None),
                killed: CancellationToken::new(),
            });
            {
                let mut containers = lock(&self.world.containers);
                if containers.values().any(|there| there.found.name == name) {
                    return Err(SandboxError::MayHaveStarted(format!("container {name} was there already")));
                }
                containers.insert(id.clone(), container.clone());
            }
            lock(&self.world.counts).launches += 1;
            lock(&self.own).insert(id, ());
            let reuse = (shape.reuse > 1).then_some((shape, 1));
            Ok(self.session(container, reuse))
        }
        .boxed()
    }

    fn adopt(&self, container_id: &str) -> Box<dyn Sandbox> {
        let known = lock(&self.world.containers).get(container_id).cloned();
        let container = known.unwrap_or_else(|| {
            Arc::new(Container {
                found: Found {
                    container_id: container_id.to_owned(),
                    name: String::new(),
                    state: String::new(),
                    created: 0,
                    labels: BTreeMap::new(),
                },
                evidence: watch::Sender::new(Evidence {
                    running: false,
                    exit_code: None,
                    oom_killed: false,
                    error: Some("the container is gone".to_owned()),
                }),
                stop: watch::Sender::new(None),
                killed: CancellationToken::new(),
            })
        });
        self.session(container, None)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, SandboxError>> {
        async move {
            self.world.reachable()?;
            let containers = lock(&self.world.containers);
            Ok(containers
                .values()
                .map(|container| {
                    let state = if container.evidence.borrow().running { "running" } else { "exited" };
                    Found { state: state.to_owned(), ..container.found.clone() }
                })
                .collect())
        }
        .boxed()
    }

    fn is_mine(&self, container_id: &str) -> bool {
        lock(&self.own).contains_key(container_id)
    }

    fn remove(&self, container_id: &str) -> BoxFuture<'_, Result<(), SandboxError>> {
        let id = container_id.to_owned();
        async move {
            self.world.reachable()?;
            self.world.remove(&id);
            Ok(())
        }
        .boxed()
    }

    fn health(&self) -> Health {
        let problem = lock(&self.world.problem).clone();
        Health { ready: problem.is_none(), problem, version: Some("fake 1".to_owned()) }
    }

    fn upkeep(self: Arc<Self>, stop: CancellationToken) -> BoxFuture<'static, ()> {
        async move { stop.cancelled().await }.boxed()
    }
}

struct Session {
    world: Arc<World>,
    crashed: Arc<AtomicBool>,
    own: Arc<Mutex<HashMap<String, ()>>>,
    container: Arc<Container>,
    /// Of which shape it is and which of its jobs this is, where it may be used again.
    reuse: Option<(Shape, u32)>,
    idle: Arc<Mutex<Vec<Idle>>>,
    /// Whether it may serve another job, once the last has been played.
    fit: Option<tokio::task::JoinHandle<bool>>,
    /// It waits for another job.
    given_back: bool,
}

impl Sandbox for Session {
    fn id(&self) -> &str {
        &self.container.found.container_id
    }

    fn warm(&self) -> bool {
        false
    }

    fn use_of(&self) -> Option<u32> {
        self.reuse.as_ref().map(|(_, this)| *this)
    }

    fn hand_over(
        &mut self,
        mut job: Job,
        stdin: Vec<u8>,
        spool: OwnedFd,
    ) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            let fits = |failure: &Failure| matches!(failure, Failure::SupervisorGone | Failure::ChannelLost);
            let failure = self.world.fails(fits);
            if failure == Some(Failure::SupervisorGone) {
                return Err(unreachable());
            }
            {
                let mut counts = lock(&self.world.counts);
                counts.jobs += 1;
                counts.running += 1;
                counts.most_running = counts.most_running.max(counts.running);
            }
            job.again = self.reuse.as_ref().is_some_and(|(shape, this)| *this < shape.reuse);
            let again = job.again;
            let (world, container) = (self.world.clone(), self.container.clone());
            self.fit = Some(tokio::spawn(async move {
                let played = script::Play::new(job, stdin, spool).run(container.stop.subscribe());
                let evidence = tokio::select! {
                    evidence = played => evidence,
                    () = container.killed.cancelled() => script::ended(137, false),
                };
                lock(&world.counts).running -= 1;
                let well = evidence == script::ended(0, false) && container.stop.borrow().is_none();
                if again && well {
                    return true;
                }
                container.evidence.send_replace(evidence);
                false
            }));
            match failure {
                Some(_) => Err(SandboxError::MayHaveStarted("the fake engine was told so".to_owned())),
                None => Ok(()),
            }
        }
        .boxed()
    }

    fn stop(&self, why: Stop) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            // The first reason is the one that is reported.
            self.container.stop.send_if_modified(|stop| stop.is_none() && stop.replace(why).is_none());
            Ok(())
        }
        .boxed()
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            self.world.reachable()?;
            self.container.killed.cancel();
            self.container.evidence.send_if_modified(|evidence| {
                let alive = evidence.running;
                *evidence = if alive { script::ended(137, false) } else { evidence.clone() };
                alive
            });
            Ok(())
        }
        .boxed()
    }

    fn ended(&self) -> BoxFuture<'_, Evidence> {
        async move {
            let mut evidence = self.container.evidence.subscribe();
            let last = evidence.wait_for(|evidence| !evidence.running).await;
            last.map_or_else(|_| script::ended(137, false), |evidence| evidence.clone())
        }
        .boxed()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Option<Evidence>, SandboxError>> {
        async move {
            self.world.reachable()?;
            let there = lock(&self.world.containers).contains_key(self.id());
            Ok(there.then(|| self.container.evidence.borrow().clone()))
        }
        .boxed()
    }

    fn discard(self: Box<Self>) {
        // Dropping does it.
    }

    fn release(mut self: Box<Self>) {
        let (Some((shape, this)), Some(fit)) = (self.reuse.take(), self.fit.take()) else { return };
        tokio::spawn(async move {
            // Unless it comes back it is dropped, and so removed.
            if fit.await.unwrap_or(false) {
                lock(&self.idle).push((shape, this, self.container.clone()));
                self.given_back = true;
            }
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.given_back {
            return;
        }
        if !self.crashed.load(Ordering::Acquire) {
            self.world.remove(self.id());
            lock(&self.own).remove(self.id());
        }
    }
}
