//! Containers that are done with go away in the background, a few at a time, tried again until they are gone.
//! One that resists is quarantined: said loudly, counted, and still tried.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::task::TaskTracker;

use super::{
    calls::{Api, CallError},
    folder::Folders,
};
use crate::base::failpoints::failpoint;

/// Removals at a time: the daemon does them one after the other anyway.
const PARALLEL: usize = 4;
/// From here on a container that is still there is quarantined.
const QUARANTINE_AFTER: Duration = Duration::from_secs(60);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Reaper {
    shared: Arc<Shared>,
}

struct Shared {
    api: Arc<Api>,
    folders: Folders,
    runtime: Handle,
    permits: Semaphore,
    tasks: TaskTracker,
    /// Ids that are being removed: nobody else needs to.
    doomed: Mutex<HashSet<String>>,
    quarantined: Mutex<HashSet<String>>,
}

impl Reaper {
    /// Draws its tasks on the runtime that it is made on.
    pub(super) fn new(api: Arc<Api>, folders: Folders) -> Reaper {
        Reaper {
            shared: Arc::new(Shared {
                api,
                folders,
                runtime: Handle::current(),
                permits: Semaphore::new(PARALLEL),
                tasks: TaskTracker::new(),
                doomed: Mutex::default(),
                quarantined: Mutex::default(),
            }),
        }
    }

    /// Removes a container (by id) and its folder (by the container's name) in the background; `then` runs
    /// when both are gone.
    pub(super) fn take(&self, id: String, name: Option<String>, then: impl FnOnce() + Send + 'static) {
        let fresh = lock(&self.shared.doomed).insert(id.clone());
        if !fresh {
            return then();
        }
        let shared = self.shared.clone();
        self.shared.tasks.spawn_on(
            async move {
                shared.until_gone(&id, name).await;
                // In this order: who finds the container among those of this life finds it here, too.
                then();
                lock(&shared.doomed).remove(&id);
            },
            &self.shared.runtime,
        );
    }

    /// Runs something that `idle` waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn_on(work, &self.shared.runtime);
    }

    /// Whether that container is being removed.
    pub(super) fn has(&self, id: &str) -> bool {
        lock(&self.shared.doomed).contains(id)
    }

    /// One try at a container and its folder, now; gone already is success.
    pub(super) async fn remove_now(&self, id: &str, name: Option<&str>) -> Result<(), CallError> {
        self.shared.remove_once(id, name).await
    }

    /// Waits until nothing is being removed, or the limit is reached.
    pub(super) async fn idle(&self, limit: Duration) {
        self.shared.tasks.close();
        if tokio::time::timeout(limit, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.shared.tasks.len(), "containers could not be removed before the stop");
        }
        self.shared.tasks.reopen();
    }
}

impl Shared {
    async fn until_gone(&self, id: &str, name: Option<String>) {
        let started = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let tried = {
                let _permit = self.permits.acquire().await;
                self.remove_once(id, name.as_deref()).await
            };
            match tried {
                Ok(()) => {
                    if lock(&self.quarantined).remove(id) {
                        self.count();
                        tracing::info!(container = id, "a quarantined container is gone at last");
                    }
                    return;
                }
                // A daemon that does not answer says nothing about the container.
                Err(error @ CallError::Refused { .. }) if started.elapsed() > QUARANTINE_AFTER => {
                    if lock(&self.quarantined).insert(id.to_owned()) {
                        self.count();
                        tracing::error!(
                            container = id,
                            %error,
                            "a container can't be removed: it is quarantined; look at it with `docker inspect`"
                        );
                    }
                }
                Err(error) => tracing::debug!(container = id, %error, "removal is tried again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn count(&self) {
        self.api.observer().quarantined(lock(&self.quarantined).len());
    }

    async fn remove_once(&self, id: &str, name: Option<&str>) -> Result<(), CallError> {
        // Its folder has the container's name, which only the container knows of one that was adopted.
        let found;
        let name = match name {
            Some(name) => Some(name),
            None => {
                found = self.api.inspect(id).await?.and_then(|container| container.name);
                found.as_deref().map(|name| name.trim_start_matches('/'))
            }
        };
        failpoint!("remove");
        match self.api.remove(id).await {
            Ok(()) => {}
            Err(error) if error.status() == Some(404) => {}
            // "removal ... is already in progress": it counts when it is gone.
            Err(error) if error.status() == Some(409) && self.api.inspect(id).await?.is_none() => {
                tracing::trace!(%error, "somebody else removed it");
            }
            Err(error) => return Err(error),
        }
        failpoint!("removed");
        if let Some(name) = name
            && name.starts_with(super::docker::NAME_PREFIX)
            && let Err(error) = self.folders.clear(name)
        {
            // Not worth another try of the container: the sweep of folders comes by.
            tracing::warn!(name, %error, "a sandbox's folder could not be removed");
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
