//! What the parts of the job service share. Nothing in here waits while it holds a lock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Notify, watch};

use super::{queue::Queue, refusals::Refusals};
use crate::{
    config::{Config, JobsConfig, OutputConfig, SandboxConfig, StorageConfig},
    gate::{Gate, KeyUsed, Tokens, quotas::Quotas, rates::Rates},
    metrics::Metrics,
    output::Outputs,
    sandbox::{Engine, Stop},
    store::{Store, StoreError},
};

/// How often the log repeats that something can't be recorded.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Whether jobs are taken and started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Jobs are taken and started.
    Serving,
    /// No job is taken or started; running ones go on.
    Draining,
    /// The agent stops: as draining, and for good.
    Stopping,
}

impl Mode {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Serving => "serving",
            Mode::Draining => "draining",
            Mode::Stopping => "stopping",
        }
    }
}

/// What of the configuration the job service decides by; swapped whole by a reload.
#[derive(Debug)]
pub(super) struct Settings {
    pub jobs: JobsConfig,
    pub output: OutputConfig,
    pub sandbox: SandboxConfig,
    pub storage: StorageConfig,
}

impl Settings {
    pub(super) fn of(config: &Config) -> Settings {
        Settings {
            jobs: config.jobs.clone(),
            output: config.output.clone(),
            sandbox: config.sandbox.clone(),
            storage: config.storage.clone(),
        }
    }
}

pub(super) struct Shared {
    pub settings: ArcSwap<Settings>,
    pub gate: ArcSwap<Gate>,
    /// Submissions, by controller.
    pub rates: Rates,
    /// Reads and cancellations, by who asks.
    pub reads: Rates,
    pub quotas: Quotas,
    /// The bearer tokens that are not revoked; swapped whole by each change.
    pub tokens: ArcSwap<Tokens>,
    /// Held while they are read from the record and put in place.
    pub reading_tokens: tokio::sync::Mutex<()>,
    /// Whether jobs of controllers and keys that are on the list no more have to be looked for.
    pub look_for_revoked: AtomicBool,
    pub store: Store,
    pub outputs: Arc<Outputs>,
    pub engine: Arc<dyn Engine>,
    pub metrics: Arc<Metrics>,
    pub mode: watch::Sender<Mode>,
    /// Whether the data folder is below its low watermark.
    pub storage_low: AtomicBool,
    /// Whether so little of it is left that it is kept for the ends of running jobs.
    pub storage_full: AtomicBool,
    /// When the disk was last looked at.
    pub storage_looked: Mutex<Option<Instant>>,
    /// What is wrong with the database, since it last refused a write.
    pub record_problem: ArcSwapOption<String>,
    /// Writes that wait for a database that refuses them.
    unrecorded: AtomicUsize,
    /// Tells the dispatcher that a job was queued or a place became free.
    pub wake: Notify,
    pub refusals: Refusals,
    queue: Mutex<Queue>,
    live: Mutex<HashMap<i64, Live>>,
}

/// A job that has its turn: claimed, starting or running.
#[derive(Debug)]
struct Live {
    controller: Arc<str>,
    key: KeyUsed,
    /// What was asked of it; its runner looks.
    stop: watch::Sender<Option<Stop>>,
    /// Whether that was the agent, for its own stop, and nobody before it.
    for_stop: bool,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        gate: Gate,
        store: Store,
        outputs: Arc<Outputs>,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
    ) -> Shared {
        Shared {
            settings: ArcSwap::from_pointee(Settings::of(config)),
            gate: ArcSwap::from_pointee(gate),
            rates: Rates::new(65_536),
            reads: Rates::new(65_536),
            quotas: Quotas::default(),
            tokens: ArcSwap::default(),
            reading_tokens: tokio::sync::Mutex::default(),
            look_for_revoked: AtomicBool::new(true),
            store,
            outputs,
            engine,
            metrics,
            mode: watch::Sender::new(Mode::Serving),
            storage_low: AtomicBool::new(false),
            storage_full: AtomicBool::new(false),
            storage_looked: Mutex::new(None),
            record_problem: ArcSwapOption::empty(),
            unrecorded: AtomicUsize::new(0),
            wake: Notify::new(),
            refusals: Refusals::default(),
            queue: Mutex::default(),
            live: Mutex::default(),
        }
    }

    /// The queue. A panic of another holder leaves it whole: each of its steps is complete in itself.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<i64, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a job as having its turn; what is asked of it comes through the receiver. The guard ends
    /// the turn when it is dropped, whatever became of the runner.
    pub(super) fn begin(
        self: &Arc<Self>,
        row: i64,
        controller: Arc<str>,
        key: KeyUsed,
    ) -> (Turn, watch::Receiver<Option<Stop>>) {
        let (stop, asked) = watch::channel(None);
        let mut live = self.live();
        live.insert(row, Live { controller, key, stop, for_stop: false });
        self.metrics.jobs_running.set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        drop(live);
        (Turn { shared: Arc::clone(self), row }, asked)
    }

    /// Jobs that have their turn.
    pub(super) fn running(&self) -> usize {
        self.live().len()
    }

    /// How many jobs of each controller have their turn.
    pub(super) fn running_by_controller(&self) -> HashMap<Arc<str>, usize> {
        let mut running = HashMap::new();
        for job in self.live().values() {
            *running.entry(Arc::clone(&job.controller)).or_default() += 1;
        }
        running
    }

    /// The rows that have their turn of which something is to be said by their controller and key, and what.
    pub(super) fn live_of<T>(&self, say: impl Fn(&str, &KeyUsed) -> Option<T>) -> Vec<(i64, T)> {
        self.live().iter().filter_map(|(row, job)| Some((*row, say(&job.controller, &job.key)?))).collect()
    }

    /// Whether this job has its turn.
    pub(super) fn is_live(&self, row: i64) -> bool {
        self.live().contains_key(&row)
    }

    /// Asks a job that has its turn to end. `false`: it has none. The first reason stays.
    pub(super) fn ask_to_stop(&self, row: i64, why: Stop) -> bool {
        let live = self.live();
        let Some(job) = live.get(&row) else { return false };
        job.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(why);
            first
        });
        true
    }

    /// Asks every job that has its turn to end, because the agent stops.
    pub(super) fn ask_all_to_stop(&self, why: Stop) {
        for job in self.live().values_mut() {
            let first = job.stop.send_if_modified(|stop| {
                let first = stop.is_none();
                stop.get_or_insert(why);
                first
            });
            job.for_stop |= first;
        }
    }

    /// Whether a job was asked to end because the agent stops.
    pub(super) fn ends_for_stop(&self, row: i64) -> bool {
        self.live().get(&row).is_some_and(|job| job.for_stop)
    }

    /// Whether jobs are taken and started.
    pub(super) fn serving(&self) -> bool {
        *self.mode.borrow() == Mode::Serving
    }

    /// Shows the queue's length.
    pub(super) fn show_depth(&self) {
        let depth = self.queue().len();
        self.metrics.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Writes until it is written: what has happened to a job can't be given back. A refusal by the guard (the job is not in the
    /// state it was thought to be in) is an answer, all else is tried again every second.
    pub(super) async fn persist<T, F>(&self, what: &str, row: i64, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&crate::store::Tx<'_>) -> Result<T, StoreError> + Clone + Send + 'static,
    {
        let mut waits = None;
        let mut said: Option<Instant> = None;
        loop {
            match self.store.write(write.clone()).await {
                Err(error) if error.is_retryable() => {
                    self.record_problem.store(Some(Arc::new(error.to_string())));
                    waits.get_or_insert_with(|| self.unrecorded());
                    if said.is_none_or(|at| at.elapsed() >= SAID_AGAIN) {
                        said = Some(Instant::now());
                        tracing::error!(row, %error, "{what} could not be recorded; it is tried every second");
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                other => {
                    if waits.is_some() && other.is_ok() {
                        tracing::info!(row, "{what} was recorded at last");
                    }
                    return other;
                }
            }
        }
    }

    /// Counts a write that waits, as long as the guard lives.
    pub(super) fn unrecorded(&self) -> Unrecorded<'_> {
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
        Unrecorded(&self.unrecorded)
    }

    /// Whether a write waits for the database.
    pub(super) fn waits_for_record(&self) -> bool {
        self.unrecorded.load(Ordering::Relaxed) > 0
    }
}

/// A write that waits for the database.
#[derive(Debug)]
pub(super) struct Unrecorded<'a>(&'a AtomicUsize);

impl Drop for Unrecorded<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job's turn: while it lasts, the job counts as running.
pub(super) struct Turn {
    shared: Arc<Shared>,
    row: i64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut live = self.shared.live();
        live.remove(&self.row);
        self.shared.metrics.jobs_running.set(i64::try_from(live.len()).unwrap_or(i64::MAX));
        drop(live);
        self.shared.wake.notify_one();
    }
}
