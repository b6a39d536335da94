//! What becomes of the jobs of a controller that is on the list no more, and of those that were signed with a key which
//! their controller has no more: those that wait are cancelled, those that run if the configuration says so. A key that is
//! listed and not valid any more is none of those: a rotation loses no job. A job that has its turn and has not started looks for itself (`runner.rs`).

use std::sync::{Arc, atomic::Ordering};

use futures_util::future;

use super::{
    conclude::{self, Ended},
    ending::Verdict,
    queue::Waiting,
    shared::Shared,
};
use crate::{
    base::clock::Timestamp,
    config::OnRevoke,
    gate::{Gate, KeyUsed},
    sandbox::Stop,
    store::{
        StoreError,
        jobs::{self, Cancel, CancelWhy, Job},
    },
    wire::Reason,
};

/// Who asks for the end, in the record.
const AGENT: &str = "agent";
/// Jobs taken out of the queue at once.
const BATCH: usize = 100;

/// Why a job is not to run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Revoked {
    Controller,
    Key,
}

impl Revoked {
    /// As it stands in the record, and in the job's result.
    pub(super) fn why(self) -> &'static str {
        match self {
            Revoked::Controller => "its controller was revoked",
            Revoked::Key => "the key that signed it was removed",
        }
    }

    fn find(gate: &Gate, controller: &str, key: &KeyUsed) -> Option<Revoked> {
        if gate.controller(controller).is_none() {
            return Some(Revoked::Controller);
        }
        (!gate.lists_key(controller, key)).then_some(Revoked::Key)
    }
}

/// One pass: waiting jobs of revoked controllers always; after a reload or a start those of removed keys, and running
/// ones. (What is queued later by a removed key is found when it has its turn.)
pub(super) async fn once(shared: &Arc<Shared>) {
    queued(shared).await;
    if shared.look_for_revoked.swap(false, Ordering::AcqRel) {
        // Those that run first: ending what waits needs the record, and may wait for it.
        let running = running(shared).await;
        let waiting = queued_by_key(shared).await;
        if !(running && waiting) {
            shared.look_for_revoked.store(true, Ordering::Release);
        }
    }
}

/// The key that a job was signed with, as far as it is recorded.
pub(super) fn key_of(job: &Job) -> KeyUsed {
    KeyUsed { key_id: job.key_id.as_deref().map(Arc::from), print: job.key_print }
}

/// Whether that job is not to run any more, and why.
pub(super) fn of(shared: &Shared, job: &Job) -> Option<Revoked> {
    Revoked::find(&shared.gate.load(), &job.controller_id, &key_of(job))
}

async fn queued(shared: &Arc<Shared>) {
    loop {
        let gate = shared.gate.load_full();
        let taken = shared.queue().take_of(|controller| gate.controller(controller).is_none(), BATCH);
        if taken.is_empty() {
            return;
        }
        if !end_all(shared, taken, Revoked::Controller).await {
            return;
        }
    }
}

/// Those whose controller is still there. `false`: not all could be cancelled.
async fn queued_by_key(shared: &Arc<Shared>) -> bool {
    let gate = shared.gate.load_full();
    let removed = |job: &Waiting| Revoked::find(&gate, &job.controller, &job.key) == Some(Revoked::Key);
    let rows = shared.queue().rows_of(removed);
    for batch in rows.chunks(BATCH) {
        let taken: Vec<Waiting> = {
            let mut queue = shared.queue();
            batch.iter().filter_map(|row| queue.take(*row)).collect()
        };
        if !end_all(shared, taken, Revoked::Key).await {
            return false;
        }
    }
    true
}

/// Cancels some that waited; `false` if one could not be, and waits on.
async fn end_all(shared: &Arc<Shared>, taken: Vec<Waiting>, why: Revoked) -> bool {
    shared.show_depth();
    // At once: they share commits, and none waits for another's.
    let ends = taken.into_iter().map(|waiting| end(shared, waiting, why));
    !future::join_all(ends).await.contains(&false)
}

async fn end(shared: &Arc<Shared>, waiting: Waiting, why: Revoked) -> bool {
    let row = waiting.row;
    let ended = match shared.store.read(move |db| jobs::get(db, row)).await {
        Ok(Some(job)) => cancel(shared, &job, why).await,
        Ok(None) => {
            tracing::error!(row, "a queued job is not in the database any more");
            Ok(())
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &ended {
        tracing::error!(row, %error, "a revoked job could not be cancelled; it is tried again");
        shared.queue().push(waiting);
    }
    ended.is_ok()
}

/// Cancels a job that has not been started.
///
/// # Errors
/// The record can't be written; nothing has changed.
pub(super) async fn cancel(shared: &Arc<Shared>, job: &Job, why: Revoked) -> Result<(), StoreError> {
    let why = why.why();
    request(shared, job.row, why).await?;
    tracing::info!(job_id = job.job_id, row = job.row, controller_id = job.controller_id, "cancelled: {why}");
    let verdict = Verdict::without_exit(Reason::Cancelled, format!("the job was cancelled: {why}"));
    conclude::write(shared, Ended::never_ran(job, verdict), None).await;
    Ok(())
}

/// Asks running jobs to end, where that is configured. `false`: not all could be asked.
async fn running(shared: &Arc<Shared>) -> bool {
    if shared.settings.load().jobs.on_revoke != OnRevoke::CancelAll {
        return true;
    }
    let mut all = true;
    let gate = shared.gate.load_full();
    for (row, why) in shared.live_of(|controller, key| Revoked::find(&gate, controller, key)) {
        let why = why.why();
        match request(shared, row, why).await {
            // It ended meanwhile.
            Err(StoreError::Conflict { .. }) => continue,
            Err(error) => {
                tracing::error!(row, %error, "that a running job is to end could not be recorded; it is tried again");
                all = false;
            }
            Ok(()) => {
                tracing::info!(row, "a running job is asked to end: {why}");
            }
        }
        shared.ask_to_stop(row, Stop::Cancelled);
    }
    all
}

async fn request(shared: &Arc<Shared>, row: i64, why: &'static str) -> Result<(), StoreError> {
    let cancel = Cancel {
        at: Timestamp::now(),
        why: CancelWhy::Cancel,
        by: AGENT.to_owned(),
        reason: Some(why.to_owned()),
        payload_sha256: None,
    };
    shared.store.write(move |tx| jobs::cancel_requested(tx, row, &cancel)).await.map(drop)
}
