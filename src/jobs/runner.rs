//! Brings one job from its turn to its supervisor.
//!
//! ```text
//! claim -> resolve image -> sandbox that waits -> intent recorded -> hand over -> attend (attend.rs)
//! ```
//!
//! Until the hand-over begins nothing of the job has run: whatever goes wrong there may be tried again.
//! The intent, with the container's id, is on disk before the hand-over; from then on the job is never
//! started a second time.

use std::{
    future::{Future, pending},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use quickcmd_init::proto::Job as Spec;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    attend::{self, Attended},
    conclude::{self, Ended},
    ending::Verdict,
    queue::{Queue, Waiting},
    revoke::{self, Revoked},
    shared::{Shared, Turn},
    spec, sweeps,
};
use crate::{
    base::{clock::Timestamp, failpoints::failpoint},
    config::Limits,
    output::Spool,
    sandbox::{Image, Label, Sandbox, SandboxError, Shape, Stop},
    store::jobs,
    wire::{Payload, Reason},
};

/// How often a job is brought to a sandbox that then turns out to be dead before it took the job.
const ATTEMPTS: u32 = 3;

/// How long a job keeps its turn after engine or database did not answer, unless it is asked to end.
const AWAY: Duration = Duration::from_millis(250);

/// How long a job keeps its turn while its image is looked for: longer than a look takes, shorter than a pull.
const PULL_PATIENCE: Duration = Duration::from_secs(1);
/// The same for one that has stood aside already.
const NO_END: Duration = Duration::from_secs(86_400);

/// How often a job in the middle of a step before its start looks whether it may still start.
const LOOK: Duration = Duration::from_millis(250);

/// The class of every job's sandbox that is used once. It holds nothing of anybody while it waits, so that all
/// controllers may share what waits. One that is used again has its controller's
/// (`Gate::class`), which is never empty.
pub const CLASS: &str = "";

/// What became of a turn.
enum Outcome {
    /// The job is over, and recorded.
    Over,
    /// Nothing was started, and it may be tried again: back to the head of the queue.
    Back(Waiting),
    /// Its image is being pulled: it waits for that without a turn.
    Aside(Waiting, Resolving),
}

/// The question for an image, which may become a pull.
type Resolving = AbortOnDropHandle<Result<Image, SandboxError>>;

/// Runs one job whose turn it is; ends when the job is over, or back in the queue.
pub(super) async fn run(
    shared: Arc<Shared>,
    waiting: Waiting,
    turn: Turn,
    mut asked: watch::Receiver<Option<Stop>>,
) {
    let row = waiting.row;
    match attempt(&shared, waiting, asked.clone()).await {
        Outcome::Over => {}
        Outcome::Back(waiting) => {
            tracing::warn!(row, "the job was not started, and waits again");
            // Until health has turned red, its next turn would come at once.
            tokio::select! {
                () = told(&mut asked) => {}
                () = tokio::time::sleep(AWAY) => {}
            }
            back(&shared, row, turn, &asked, |queue| queue.push_front(waiting)).await;
        }
        Outcome::Aside(waiting, resolving) => {
            tracing::info!(row, image = &*waiting.image, "the job waits for its image without a turn");
            let image = Arc::clone(&waiting.image);
            let wanted = back(&shared, row, turn, &asked, |queue| queue.park(waiting)).await;
            if let Some(wanted) = wanted {
                tokio::spawn(unpark(shared, image, resolving, wanted));
            }
        }
    }
}

/// Lets those who wait for an image come to their turns when it is there, or surely is not. Then the first of them has
/// its answer, and the others ask once more.
async fn unpark(shared: Arc<Shared>, image: Arc<str>, resolving: Resolving, wanted: CancellationToken) {
    let resolved = tokio::select! {
        biased;
        () = wanted.cancelled() => return,
        resolved = resolving => resolved,
    };
    let error = match resolved {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error),
        Err(error) => Some(SandboxError::Failed(error.to_string())),
    };
    let first = {
        let mut queue = shared.queue();
        let first = queue.unpark(&image, error.is_none());
        first.filter(|_| error.is_some()).and_then(|row| queue.take(row))
    };
    shared.wake.notify_one();
    if let (Some(error), Some(waiting)) = (error, first) {
        without_image(&shared, waiting, error).await;
        shared.show_depth();
        shared.wake.notify_one();
    }
}

/// What a job comes to that stood aside for an image in vain, and has no turn.
async fn without_image(shared: &Arc<Shared>, waiting: Waiting, error: SandboxError) {
    let row = waiting.row;
    let outcome = match shared.store.read(move |db| jobs::get(db, row)).await {
        // Asked to end meanwhile, by somebody who did not find it in the queue.
        Ok(Some(job)) if job.cancel_requested_at.is_some() => asked_before_start(shared, waiting).await,
        Ok(Some(job)) => not_started(shared, waiting, &job, error).await,
        Ok(None) => {
            tracing::error!(row, "a queued job is not in the database any more");
            Outcome::Over
        }
        Err(error) => {
            tracing::error!(row, %error, "a queued job could not be read; it is tried again");
            Outcome::Back(waiting)
        }
    };
    let Outcome::Back(waiting) = outcome else { return };
    shared.queue().push_front(waiting);
    // Asked to end between the look and now, it was found nowhere; and its next turn may be far.
    let asked = shared.store.read(move |db| jobs::get(db, row)).await;
    if matches!(asked, Ok(Some(job)) if job.cancel_requested_at.is_some()) {
        asked_in_queue(shared, row).await;
    }
}

/// Ends a job that was asked to end while it was on its way back into the queue; nothing if its turn has come.
async fn asked_in_queue(shared: &Arc<Shared>, row: i64) {
    let taken = shared.queue().take(row);
    if let Some(waiting) = taken
        && let Outcome::Back(waiting) = asked_before_start(shared, waiting).await
    {
        shared.queue().push_front(waiting);
    }
}

/// Gives the turn back and puts the job into the queue, in one step: whoever asks it to end finds it here or there.
async fn back<T>(
    shared: &Arc<Shared>,
    row: i64,
    turn: Turn,
    asked: &watch::Receiver<Option<Stop>>,
    put: impl FnOnce(&mut Queue) -> T,
) -> T {
    let (told, put) = {
        let mut queue = shared.queue();
        // First out of the running, then into the queue: it must not be counted, or claimed, twice.
        drop(turn);
        let put = put(&mut queue);
        (asked.borrow().is_some(), put)
    };
    if told {
        // While nobody listened any more.
        asked_in_queue(shared, row).await;
    }
    shared.show_depth();
    put
}

/// Ends when the job is asked to end.
async fn told(asked: &mut watch::Receiver<Option<Stop>>) {
    if asked.wait_for(Option::is_some).await.is_err() {
        pending::<()>().await;
    }
}

/// Why a job goes no further towards its sandbox.
enum Cut {
    /// It was asked to end.
    Asked,
    /// Its ttl has passed.
    Late,
    /// Its controller, or the key that signed it, is on the list no more.
    Revoked(Revoked),
}

/// What keeps a job from starting now. Looked at before each step that can't be taken back: a pull, a start or the
/// record may have taken long.
fn hindrance(shared: &Shared, job: &jobs::Job, asked: &watch::Receiver<Option<Stop>>) -> Option<Cut> {
    if asked.borrow().is_some() {
        Some(Cut::Asked)
    } else if late(job.ttl) {
        Some(Cut::Late)
    } else {
        revoke::of(shared, job).map(Cut::Revoked)
    }
}

/// Does a step before the start, for as long as the job may still start: a pull may take an hour. What the
/// step had begun is thrown away by the engine.
async fn step<T>(
    work: impl Future<Output = T>,
    shared: &Shared,
    job: &jobs::Job,
    asked: &mut watch::Receiver<Option<Stop>>,
) -> Result<T, Cut> {
    let seen = asked.clone();
    let hindered = async {
        loop {
            if let Some(cut) = hindrance(shared, job, &seen) {
                return cut;
            }
            // In short steps, for the clock may be set meanwhile, and controllers be revoked.
            let left = Timestamp::from_secs(job.ttl.saturating_add(1)).since(Timestamp::now());
            tokio::time::sleep(left.clamp(Duration::from_millis(1), LOOK)).await;
        }
    };
    tokio::select! {
        biased;
        () = told(asked) => Err(Cut::Asked),
        done = work => Ok(done),
        cut = hindered => Err(cut),
    }
}

/// Whether the ttl has passed: it is a whole second, within which a job may still start, as the gate's check has it.
fn late(ttl: i64) -> bool {
    Timestamp::now().secs() > ttl
}

async fn attempt(
    shared: &Arc<Shared>,
    waiting: Waiting,
    mut asked: watch::Receiver<Option<Stop>>,
) -> Outcome {
    let turn_at = Timestamp::now();
    let row = waiting.row;
    shared.metrics.queue_wait.observe(turn_at.since(waiting.accepted).as_secs_f64());
    let read = shared.store.read(move |db| Ok((jobs::get(db, row)?, jobs::payload(db, row)?)));
    let (read, ()) = tokio::join!(read, sweeps::storage_lately(shared));
    let (job, raw) = match read {
        Ok((Some(job), raw)) => (job, raw),
        Ok((None, _)) => {
            tracing::error!(row, "a queued job is not in the database any more");
            return Outcome::Over;
        }
        Err(error) => {
            tracing::error!(row, %error, "a queued job could not be read; it is tried again");
            return Outcome::Back(waiting);
        }
    };
    if job.state != jobs::State::Queued {
        tracing::error!(
            row,
            state = job.state.as_str(),
            "a job in the queue is not queued: it is left alone"
        );
        return Outcome::Over;
    }
    if job.cancel_requested_at.is_some() {
        return asked_before_start(shared, waiting).await;
    }
    // It may have been accepted while its controller was being revoked, or before this start of the agent.
    if let Some(cut) = hindrance(shared, &job, &asked) {
        return cut_short(shared, waiting, &job, cut).await;
    }
    // What a sandbox needs of the disk is little, and not to be had now: the job waits. The sweep looks at it too seldom.
    if shared.storage_full.load(Ordering::Relaxed) {
        return Outcome::Back(waiting);
    }
    let (payload, limits, network) = match spec::read(&job, raw.as_deref()) {
        Ok(read) => read,
        Err(error) => {
            let verdict = Verdict::without_exit(Reason::SandboxError, error);
            conclude::write(shared, Ended::never_ran(&job, verdict), None).await;
            return Outcome::Over;
        }
    };

    let mut resolving = resolve(shared, &job.image);
    let patience = if waiting.stood_aside { NO_END } else { PULL_PATIENCE };
    let resolved = tokio::time::timeout(patience, &mut resolving);
    let image = match step(resolved, shared, &job, &mut asked).await {
        Ok(Ok(Ok(Ok(image)))) => image,
        Ok(Ok(Ok(Err(error)))) => return not_started(shared, waiting, &job, error).await,
        Ok(Ok(Err(error))) => {
            return not_started(shared, waiting, &job, SandboxError::Failed(error.to_string())).await;
        }
        Ok(Err(_)) => return Outcome::Aside(waiting, resolving),
        Err(cut) => return cut_short(shared, waiting, &job, cut).await,
    };
    // By the configuration as it is now, not as it was when the job came.
    let gate = shared.gate.load_full();
    let reuse = gate.controller(&job.controller_id).map_or(1, |controller| controller.reuse);
    // What was accepted with other keys may be somebody else's, and shares nothing with what comes now.
    let (class, reuse) = match (&waiting.class, gate.class(&job.controller_id)) {
        (Some(then), Some(now)) if **then == *now => (now.to_owned(), reuse),
        _ => (CLASS.to_owned(), 1),
    };
    let shape = Shape { image: image.clone(), limits, network, class, reuse };

    let mut attempt = job.attempt;
    let mut spool = match shared.outputs.reopen(row).await {
        Ok(spool) => spool,
        Err(error) => {
            let error = SandboxError::Failed(format!("the job's output could not be stored: {error}"));
            return not_started(shared, waiting, &job, error).await;
        }
    };
    loop {
        attempt += 1;
        let label =
            Label { row, job_id: job.job_id.clone(), payload_sha256: job.payload_sha256.clone(), attempt };
        let launch = shared.engine.launch(shape.clone(), label);
        let mut sandbox = match step(launch, shared, &job, &mut asked).await {
            Ok(Ok(sandbox)) => sandbox,
            Ok(Err(error)) => return not_started(shared, waiting, &job, error).await,
            Err(cut) => return cut_short(shared, waiting, &job, cut).await,
        };
        // For the last time: from here on it counts as started.
        if let Some(cut) = hindrance(shared, &job, &asked) {
            sandbox.discard();
            return cut_short(shared, waiting, &job, cut).await;
        }
        let now = Timestamp::now();
        let starting = jobs::Starting {
            attempt,
            container_name: sandbox.id().chars().take(12).collect(),
            image: job.image.clone(),
            image_id: Some(image.id.clone()),
            digest: Some(image.digest.clone()),
            turn_at,
            now,
        };
        let container = sandbox.id().to_owned();
        let use_of = sandbox.use_of();
        let recorded = shared
            .persist("a start", row, move |tx| {
                jobs::starting(tx, row, &starting)?;
                jobs::container(tx, row, &container, use_of, now)
            })
            .await;
        if let Err(error) = recorded {
            tracing::error!(row, %error, "the job is not in the state it was thought to be in: left alone");
            sandbox.discard();
            return Outcome::Over;
        }
        // The record may have kept it waiting for long. Nothing has been handed over: it can still go back, and the
        // container goes after that is recorded, since a start without its container would count as lost.
        if let Some(cut) = hindrance(shared, &job, &asked) {
            let queued = give_back(shared, row, now).await;
            sandbox.discard();
            if !queued {
                return Outcome::Over;
            }
            return cut_short(shared, waiting, &job, cut).await;
        }
        failpoint!("id-recorded");
        let handed = hand_over(shared, &job, &payload, limits, &image, &mut spool, &mut sandbox).await;
        let recovered = match handed {
            Ok(()) => {
                failpoint!("handed-over");
                false
            }
            Err(SandboxError::MayHaveStarted(why)) => {
                // The spool tells whether it was; attending finds out, and ends it as lost if it can't.
                tracing::warn!(row, why, "the job may have been started");
                true
            }
            Err(error) => {
                // The sandbox died before it took the job: surely not started.
                tracing::warn!(row, attempt, %error, "a sandbox could not take its job");
                sandbox.discard();
                if !give_back(shared, row, now).await {
                    return Outcome::Over;
                }
                if attempt >= job.attempt + ATTEMPTS {
                    return not_started(shared, waiting, &job, error).await;
                }
                continue;
            }
        };
        drop(spool);
        let attended = Attended {
            sandbox,
            following: shared.outputs.follow(row),
            turn_at,
            handed_over: Instant::now(),
            recovered,
            timeout_seconds: limits.timeout_seconds,
            job,
        };
        attend::to_the_end(shared, attended, asked).await;
        return Outcome::Over;
    }
}

/// Asks for an image, in a task of its own: who asked may be gone before the answer, and others may wait for it.
fn resolve(shared: &Arc<Shared>, image: &str) -> Resolving {
    let (engine, image) = (Arc::clone(&shared.engine), image.to_owned());
    AbortOnDropHandle::new(tokio::spawn(async move { engine.resolve(&image).await }))
}

/// Puts a job whose start was recorded, and which nobody got, back into the queue; `false` if its state is another.
async fn give_back(shared: &Arc<Shared>, row: i64, now: Timestamp) -> bool {
    let requeued = shared.persist("a return", row, move |tx| jobs::requeue(tx, row, now)).await;
    if let Err(error) = &requeued {
        tracing::error!(row, %error, "the job is not in the state it was thought to be in: left alone");
    }
    requeued.is_ok()
}

/// What a job comes to that may not go further.
async fn cut_short(shared: &Arc<Shared>, waiting: Waiting, job: &jobs::Job, cut: Cut) -> Outcome {
    match cut {
        Cut::Asked => asked_before_start(shared, waiting).await,
        Cut::Late => {
            conclude::write(shared, Ended::never_ran(job, expired()), None).await;
            Outcome::Over
        }
        Cut::Revoked(why) => match revoke::cancel(shared, job, why).await {
            Ok(()) => Outcome::Over,
            Err(error) => {
                let row = waiting.row;
                tracing::error!(row, %error, "a revoked job could not be cancelled; it is tried again");
                Outcome::Back(waiting)
            }
        },
    }
}

/// A job that was asked to end before it was handed over: cancelled if somebody asked for that; where the agent
/// itself is about to stop, it waits for the next start.
async fn asked_before_start(shared: &Arc<Shared>, waiting: Waiting) -> Outcome {
    let row = waiting.row;
    let job = match shared.store.read(move |db| jobs::get(db, row)).await {
        Ok(Some(job)) if job.cancel_requested_at.is_some() => job,
        Ok(Some(_)) => return Outcome::Back(waiting),
        Ok(None) => {
            tracing::error!(row, "a queued job is not in the database any more");
            return Outcome::Over;
        }
        Err(error) => {
            tracing::error!(row, %error, "it is not known who asked a job to end; it is looked at again");
            return Outcome::Back(waiting);
        }
    };
    let verdict = Verdict::without_exit(Reason::Cancelled, "the job was cancelled before it started");
    conclude::write(shared, Ended::never_ran(&job, verdict), None).await;
    Outcome::Over
}

async fn hand_over(
    shared: &Arc<Shared>,
    job: &jobs::Job,
    payload: &Payload,
    limits: Limits,
    image: &Image,
    spool: &mut Spool,
    sandbox: &mut Box<dyn Sandbox>,
) -> Result<(), SandboxError> {
    let settings = shared.settings.load();
    let (spec, stdin): (Spec, Vec<u8>) =
        spec::build(job, payload, limits, image, &settings, spool.next_seq());
    let fd = spool
        .writer_fd()
        .map_err(|error| SandboxError::Failed(format!("the job's output could not be stored: {error}")))?;
    drop(settings);
    sandbox.hand_over(spec, stdin, fd).await
}

/// What a job comes to that could not be brought to a sandbox.
async fn not_started(
    shared: &Arc<Shared>,
    mut waiting: Waiting,
    job: &jobs::Job,
    error: SandboxError,
) -> Outcome {
    let verdict = match error {
        SandboxError::Unreachable(why) => {
            let since = *waiting.unreachable_since.get_or_insert_with(Instant::now);
            let patience = shared.settings.load().jobs.engine_patience;
            if since.elapsed() < patience {
                return Outcome::Back(waiting);
            }
            Verdict::without_exit(
                Reason::SandboxError,
                format!("the Docker engine did not answer for {} s: {why}", patience.as_secs()),
            )
        }
        SandboxError::ImageUnavailable { .. } => {
            Verdict::without_exit(Reason::ImageUnavailable, error.to_string())
        }
        SandboxError::Failed(_) | SandboxError::MayHaveStarted(_) => {
            Verdict::without_exit(Reason::SandboxError, error.to_string())
        }
    };
    conclude::write(shared, Ended::never_ran(job, verdict), None).await;
    Outcome::Over
}

/// The verdict on a job whose ttl passed while it waited.
pub(super) fn expired() -> Verdict {
    Verdict::without_exit(Reason::Expired, "the job's ttl passed while it waited in the queue")
}
