//! What becomes of the jobs of a controller that is on the list no more: those that wait are cancelled, those that
//! run if the configuration says so. A job that comes to its turn all the same is stopped there (`runner.rs`).

use std::sync::{Arc, atomic::Ordering};

use super::{
    conclude::{self, Ended},
    ending::Verdict,
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
        let mut taken = taken.into_iter();
        while let Some(waiting) = taken.next() {
            let row = waiting.row;
            let read = shared.store.read(move |db| jobs::get(db, row)).await;
            let ended = match read {
                Ok(Some(job)) => cancel(shared, &job).await,
                Ok(None) => {
                    tracing::error!(row, "a queued job is not in the database any more");
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::error!(row, %error, "a revoked controller's job could not be cancelled; it is tried again");
                let mut queue = shared.queue();
                queue.push(waiting);
                taken.for_each(|waiting| queue.push(waiting));
                return;
            }
        }
    }
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
