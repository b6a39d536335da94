//! After a start: what an earlier life of the agent left is taken up again. Queued jobs go back into the queue;
//! jobs that a supervisor has, or may have, are attended to their end.

use std::{sync::Arc, time::Instant};

use tokio_util::task::TaskTracker;

use super::{
    attend::{self, Attended},
    queue::Waiting,
    revoke,
    shared::Shared,
    spec,
};
use crate::{
    base::{clock::Timestamp, failpoints::planted},
    gate::{
        KeyUsed,
        quotas::{self, Used},
    },
    store::{StoreError, jobs, usage},
};

/// Rows read from the database at once.
const PAGE: u32 = 1000;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Jobs that wait again.
    pub queued: usize,
    /// Jobs that a sandbox had.
    pub running: usize,
}

/// Takes up everything that has not ended. Called once, before the dispatcher starts.
///
/// # Errors
/// The database can't be read.
pub(super) async fn all(shared: &Arc<Shared>, runners: &TaskTracker) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    // A job of yesterday may end, and count for yesterday, only now.
    let yesterday = quotas::day(Timestamp::now()) - 1;
    for usage in shared.store.read(move |db| usage::since(db, yesterday)).await? {
        let used = Used { cpu_ms: usage.cpu_ms, output_bytes: usage.output_bytes };
        shared.quotas.add(&usage.controller_id, used, usage.day);
    }
    for job in shared.store.read(jobs::unfinished).await? {
        if planted!("rerun-lost") && job.state == jobs::State::Starting {
            shared.store.write(move |tx| jobs::requeue(tx, job.row, Timestamp::now())).await?;
            continue;
        }
        recovered.running += 1;
        attend_again(shared, runners, job);
    }
    let mut after = jobs::Queued::START;
    loop {
        let page = shared.store.read(move |db| jobs::queued(db, after, PAGE)).await?;
        let Some(last) = page.last() else { break };
        after = last.place();
        recovered.queued += page.len();
        let mut queue = shared.queue();
        for job in page {
            queue.push(Waiting {
                row: job.row,
                controller: job.controller_id.into(),
                ttl: Timestamp::from_secs(job.ttl),
                accepted: job.accepted_at,
                image: job.image.into(),
                unreachable_since: None,
                stood_aside: false,
                class: None,
                key: KeyUsed { key_id: job.key_id.map(Into::into), print: job.key_print },
            });
        }
    }
    shared.show_depth();
    if recovered != Recovered::default() {
        tracing::info!(
            queued = recovered.queued,
            running = recovered.running,
            "jobs of an earlier start taken up"
        );
    }
    Ok(recovered)
}

fn attend_again(shared: &Arc<Shared>, runners: &TaskTracker, job: jobs::Job) {
    let (turn, asked) = shared.begin(job.row, job.controller_id.as_str().into(), revoke::key_of(&job));
    if job.cancel_requested_at.is_some() {
        shared.ask_to_stop(job.row, crate::sandbox::Stop::Cancelled);
    }
    let now = Timestamp::now();
    let sandbox = shared.engine.adopt(job.container_id.as_deref().unwrap_or_default());
    let attended = Attended {
        sandbox,
        following: shared.outputs.follow(job.row),
        turn_at: job.starting_at.unwrap_or(now),
        // The supervisor keeps the original deadline by its own clock. This is only the backstop; counted from the
        // wall clock, a jump of that would kill the job.
        handed_over: Instant::now(),
        recovered: true,
        timeout_seconds: spec::limits(&job).map_or(0, |limits| limits.timeout_seconds),
        job,
    };
    let shared = Arc::clone(shared);
    runners.spawn(async move {
        attend::to_the_end(&shared, attended, asked).await;
        drop(turn);
    });
}
