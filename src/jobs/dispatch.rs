//! Gives waiting jobs their turn: as many at once as the cap allows, while the engine answers.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{runner, shared::Shared};
use crate::base::clock::Timestamp;

/// How often the queue is looked at without a reason: an engine may have come back.
const LOOK: Duration = Duration::from_millis(500);

/// The dispatcher's loop; ends with the token. Runners go on in `runners`.
pub(super) async fn run(shared: Arc<Shared>, runners: TaskTracker, stop: CancellationToken) {
    let mut mode = shared.mode.subscribe();
    loop {
        dispatch_once(&shared, &runners);
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => {}
            _ = mode.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Starts a runner for each job whose turn has come.
pub(super) fn dispatch_once(shared: &Arc<Shared>, runners: &TaskTracker) {
    let cap = shared.settings.load().jobs.max_concurrent_jobs;
    let (gate, now) = (shared.gate.load_full(), Timestamp::now());
    let mut running = shared.running_by_controller();
    let has_space = || !shared.storage_full.load(Ordering::Relaxed);
    while shared.serving() && has_space() && shared.running() < cap && shared.engine.health().ready {
        let may_start = |id: &str| {
            // One that is on the list no more: its job has its turn to be cancelled.
            let Some(controller) = gate.controller(id) else { return true };
            let at_once = running.get(id).copied().unwrap_or(0);
            controller.max_running.is_none_or(|most| at_once < most)
                && shared.quotas.check(id, controller.daily, now).is_ok()
        };
        let popped = shared.queue().pop(may_start);
        let Some(waiting) = popped else { break };
        *running.entry(Arc::clone(&waiting.controller)).or_default() += 1;
        let (turn, asked) = shared.begin(waiting.row, Arc::clone(&waiting.controller), waiting.key.clone());
        runners.spawn(runner::run(Arc::clone(shared), waiting, turn, asked));
    }
    shared.show_depth();
}
