//! What becomes of the jobs of a controller that is on the list no more: those that wait are cancelled, those that
//! run if the configuration says so. A job that has its turn and has not started looks for itself (`runner.rs`).

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
    sandbox::Stop,
    store::{
        StoreError,
        jobs::{self, Cancel, CancelWhy, Job},
    },
    wire::Reason,
};

/// Who asks for the end, in the record.
const AGENT: &str = "agent";
const WHY: &str = "its controller was revoked";
/// Jobs taken out of the queue at once.
const BATCH: usize = 100;

/// One pass: waiting jobs always, running ones after a reload or a start.
pub(super) async fn once(shared: &Arc<Shared>) {
    queued(shared).await;
    if shared.look_for_revoked.swap(false, Ordering::AcqRel) && !running(shared).await {
        shared.look_for_revoked.store(true, Ordering::Release);
    }
}

/// Whether that controller is on the list no more.
pub(super) fn is_revoked(shared: &Shared, controller: &str) -> bool {
    shared.gate.load().controller(controller).is_none()
}

async fn queued(shared: &Arc<Shared>) {
    loop {
        let gate = shared.gate.load_full();
        let taken = shared.queue().take_of(|controller| gate.controller(controller).is_none(), BATCH);
        if taken.is_empty() {
            return;
        }
        shared.show_depth();
        // At once: they share commits, and none waits for another's.
        let ends = taken.into_iter().map(|waiting| end(shared, waiting));
        if future::join_all(ends).await.contains(&false) {
            return;
        }
    }
}

/// Cancels one that waited; `false` if it could not be, and waits on.
async fn end(shared: &Arc<Shared>, waiting: Waiting) -> bool {
    let row = waiting.row;
    let ended = match shared.store.read(move |db| jobs::get(db, row)).await {
        Ok(Some(job)) => cancel(shared, &job).await,
        Ok(None) => {
            tracing::error!(row, "a queued job is not in the database any more");
            Ok(())
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &ended {
        tracing::error!(row, %error, "a revoked controller's job could not be cancelled; it is tried again");
        shared.queue().push(waiting);
    }
    ended.is_ok()
}

/// Cancels a job that has not been started.
///
/// # Errors
/// The record can't be written; nothing has changed.
pub(super) async fn cancel(shared: &Arc<Shared>, job: &Job) -> Result<(), StoreError> {
    request(shared, job.row).await?;
    tracing::info!(job_id = job.job_id, row = job.row, controller_id = job.controller_id, "cancelled: {WHY}");
    let verdict = Verdict::without_exit(Reason::Cancelled, format!("the job was cancelled: {WHY}"));
    conclude::write(shared, Ended::never_ran(job, verdict), None).await;
    Ok(())
}

/// Asks running jobs to end, where that is configured. `false`: not all could be asked.
async fn running(shared: &Arc<Shared>) -> bool {
    if shared.settings.load().jobs.on_revoke != OnRevoke::CancelAll {
        return true;
    }
    let mut all = true;
    for row in shared.live_of(|controller| is_revoked(shared, controller)) {
        match request(shared, row).await {
            // It ended meanwhile.
            Err(StoreError::Conflict { .. }) => continue,
            Err(error) => {
                tracing::error!(row, %error, "that a running job is to end could not be recorded; it is tried again");
                all = false;
            }
            Ok(()) => {
                tracing::info!(row, "a running job is asked to end: {WHY}");
            }
        }
        shared.ask_to_stop(row, Stop::Cancelled);
    }
    all
}

async fn request(shared: &Arc<Shared>, row: i64) -> Result<(), StoreError> {
    let cancel = Cancel {
        at: Timestamp::now(),
        why: CancelWhy::Cancel,
        by: AGENT.to_owned(),
        reason: Some(WHY.to_owned()),
        payload_sha256: None,
    };
    shared.store.write(move |tx| jobs::cancel_requested(tx, row, &cancel)).await.map(drop)
}
