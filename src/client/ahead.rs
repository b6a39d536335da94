//! A connection made before it is needed: who submits a job and then follows it has TCP and TLS of the stream done while
//! the agent still writes the job to its disk.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use super::{Client, socket::Wire};

/// An agent lets nobody wait for long without a word: one that is not used by then is thrown away.
const FRESH: Duration = Duration::from_secs(3);

/// Where the submission has no connection yet, its own goes first: if the agent has room for one more only, it is that one
/// which counts.
const AFTER: Duration = Duration::from_millis(1);

/// At most one connection that waits for its use.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<Option<Made>>);

struct Made {
    /// Which one it is.
    since: Instant,
    /// `None` if none could be made: whoever needs one tries again, and hears why not.
    wire: JoinHandle<Option<Box<dyn Wire>>>,
}

impl std::fmt::Debug for Made {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Made").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.wire.abort();
    }
}

impl Ahead {
    fn made(&self) -> MutexGuard<'_, Option<Made>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if there is one.
    pub async fn take(&self) -> Option<Box<dyn Wire>> {
        let made = self.made().take();
        (&mut made?.wire).await.ok().flatten()
    }
}

impl Client {
    /// Begins to make the connection that the next [`Client::follow`] will need, in the background. For callers that
    /// submit a job and then follow it at once; one that is not used within three seconds is thrown away. Whatever goes
    /// wrong is told when the connection is needed. Does nothing outside of a tokio runtime.
    pub fn connect_ahead(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, url) = (self.clone(), self.inner.settings.url.clone());
        let limit = self.inner.settings.connect_timeout.min(FRESH);
        let since = Instant::now();
        let wire = runtime.spawn(async move {
            if !client.reached() {
                tokio::time::sleep(AFTER).await;
            }
            // It holds the client, which holds its handle: until the limit at the latest.
            tokio::time::timeout(limit, client.wire(&url)).await.ok()?.ok()
        });
        *self.inner.ahead.made() = Some(Made { since, wire });
        let inner = Arc::downgrade(&self.inner);
        runtime.spawn(async move {
            tokio::time::sleep(FRESH).await;
            if let Some(inner) = inner.upgrade() {
                inner.ahead.made().take_if(|made| made.since == since);
            }
        });
    }
}
