//! Named long-lived tasks in one set: an early end of any is fatal to the agent, and the signal to
//! stop is passed to each, never global.

use std::future::Future;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The agent's long-lived tasks.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty set whose tasks end when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Tasks {
        Tasks { set: JoinSet::new(), stop }
    }

    /// The signal that each task is to end.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task; it gets the signal and ends when that is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = task(self.stop.clone());
        self.set.spawn(async move {
            work.await;
            name
        });
    }

    /// Waits until some task has ended, and says which. After the signal every task is meant to end;
    /// before it, none. A task that panicked is named `"a task that panicked"`. `None`: none is left.
    pub async fn ended(&mut self) -> Option<&'static str> {
        match self.set.join_next().await? {
            Ok(name) => Some(name),
            Err(_) => Some("a task that panicked"),
        }
    }
}
