//! Sandboxes that were started before their job: most of a job's latency, paid ahead. Each is used once; what
//! waits holds nothing of any job, and ends by itself if the agent does. Those of a controller with `reuse` come back,
//! emptied, for others of the same controller.

mod plan;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Notify;

use super::{SandboxError, Shape, docker::Core, probe::Probe, ready::Ready};
use plan::Plan;

/// How often what waits is looked at.
const TICK: Duration = Duration::from_secs(2);
/// How long after a job has taken one the next is started: making it takes both the daemon's time and the processor's,
/// and a short job is over by then. Others that come meanwhile don't put it off.
const GIVE_WAY: Duration = Duration::from_millis(25);
/// Sandboxes that are started at the same time at most. The daemon needs a core for each, and so the host's own number
/// is a bound, too: with fewer a pool that many jobs draw from is filled slower than Docker can.
const AT_ONCE: usize = 4;
/// Pause after a sandbox could not be started.
const BACK_OFF: Duration = Duration::from_secs(5);

pub(super) struct Pool {
    core: Arc<Core>,
    plan: Mutex<Plan<Ready>>,
    /// Something was taken, asked for, or has become possible.
    wake: Notify,
    /// Jobs that wait for a cold start now: the daemon is theirs.
    cold: AtomicUsize,
    /// How many are started at the same time.
    at_once: usize,
    /// Nothing is kept any more.
    closed: AtomicBool,
}

/// A sandbox that a job of this shape has and that may come back. While it lives the pool counts it as there.
pub(super) struct Lent {
    pool: Arc<Pool>,
    shape: Shape,
}

impl Lent {
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// It waits again, emptied, with the age that it has.
    pub(super) fn give_back(self, ready: Ready) {
        let (_, born) = ready.history();
        if !self.pool.closed.load(Ordering::Acquire) {
            let too_many = self.pool.plan().give_back(&self.shape, ready, born);
            // Dropping buries it, which takes a lock of its own.
            drop(too_many);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.plan().returned(&self.shape);
        self.pool.count();
        self.pool.wake.notify_one();
    }
}

/// While it lives nothing is started for the pool.
pub(super) struct ColdStart<'a>(&'a Pool);

impl Drop for ColdStart<'_> {
    fn drop(&mut self) {
        self.0.cold.fetch_sub(1, Ordering::AcqRel);
        self.0.wake.notify_one();
    }
}

impl Pool {
    pub(super) fn new(core: Arc<Core>) -> Pool {
        let plan = Mutex::new(Plan::new(core.config.pool.clone()));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Pool {
            core,
            plan,
            wake: Notify::new(),
            cold: AtomicUsize::new(0),
            at_once: cores.min(AT_ONCE),
            closed: AtomicBool::new(false),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan<Ready>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn want_default(&self, shape: &Shape) {
        self.plan().want_default(shape);
        self.wake.notify_one();
    }

    /// One that waits for a job of this shape and whose supervisor is still there.
    pub(super) fn take(&self, shape: &Shape) -> Option<Ready> {
        self.open(shape.reuse, |plan| plan.take(shape, Instant::now()))
    }

    /// One of other limits, changed to this shape's: that takes Docker a third of the time of a new container.
    /// One that can't be changed is thrown away, and the job gets a new one.
    pub(super) async fn take_changed(&self, shape: &Shape) -> Option<Ready> {
        if !self.core.can_change(shape) {
            return None;
        }
        let ready = self.open(shape.reuse, |plan| plan.take_alike(shape))?;
        match self.core.change(&ready, shape).await {
            Ok(()) => Some(ready),
            Err(error) => {
                tracing::warn!(%error, "the limits of a waiting sandbox could not be changed; a new one is made");
                None
            }
        }
    }

    /// Takes until one is open and may run one more job, or none is left.
    fn open(&self, reuse: u32, mut take: impl FnMut(&mut Plan<Ready>) -> Option<Ready>) -> Option<Ready> {
        loop {
            let taken = take(&mut self.plan());
            self.wake.notify_one();
            match taken {
                Some(ready) if ready.is_open() && ready.history().0 < reuse => {
                    self.count();
                    return Some(ready);
                }
                // Dropping buries it.
                Some(_dead) => {}
                None => return None,
            }
        }
    }

    /// Marks that a job has one that may come back.
    pub(super) fn lend(pool: &Arc<Pool>, shape: &Shape) -> Lent {
        pool.plan().lend(shape, Instant::now());
        Lent { pool: Arc::clone(pool), shape: shape.clone() }
    }

    /// Marks that a job waits for a cold start.
    pub(super) fn cold_start(&self) -> ColdStart<'_> {
        self.cold.fetch_add(1, Ordering::AcqRel);
        ColdStart(self)
    }

    /// Fills and clears, for ever.
    pub(super) async fn run(&self, probe: &Probe) {
        let mut starts = FuturesUnordered::new();
        let mut not_before = Instant::now();
        loop {
            self.clear_once();
            let busy = self.cold.load(Ordering::Acquire) > 0 || !probe.health().ready;
            while !busy && starts.len() < self.at_once && not_before <= Instant::now() {
                let Some(shape) = self.plan().begin(Instant::now()) else { break };
                starts.push(self.start_one(shape));
            }
            tokio::select! {
                Some(started) = starts.next() => if started.is_err() {
                    not_before = Instant::now() + BACK_OFF;
                },
                () = tokio::time::sleep(TICK) => {}
                () = self.wake.notified() => tokio::time::sleep(GIVE_WAY).await,
            }
        }
    }

    /// Throws away what is old, dead or too much.
    fn clear_once(&self) {
        let surplus = self.plan().surplus(Instant::now(), |ready| ready.is_open());
        if !surplus.is_empty() {
            drop(surplus);
            self.count();
        }
    }

    /// Starts one that counts as coming.
    async fn start_one(&self, shape: Shape) -> Result<(), SandboxError> {
        let started = Instant::now();
        match self.core.launch_waiting(&shape).await {
            Ok(ready) => {
                self.core.api.observer().pool_refilled(started.elapsed());
                self.plan().put(&shape, ready, Instant::now());
                self.count();
                Ok(())
            }
            Err(error) => {
                tracing::warn!(image = shape.image.reference, %error, "no sandbox could be started ahead");
                self.plan().forget(&shape);
                Err(error)
            }
        }
    }

    /// Throws away what waits for a class that is none any more.
    pub(super) fn retire(&self, known: &dyn Fn(&str) -> bool) {
        let retired = self.plan().retire(known);
        // Dropping buries them, which takes a lock of its own.
        drop(retired);
        self.count();
    }

    /// Throws everything away; nothing is kept from here on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let all = self.plan().empty();
        drop(all);
        self.count();
    }

    fn count(&self) {
        let depth = self.plan().depth();
        self.core.api.observer().pool_depth(depth);
    }
}
