//! What systemd is told (`Type=notify`); elsewhere these do nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::store::Store;

pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Tells systemd that the agent is alive, after the runtime has run a task and the database has answered: a
/// process that only exists does not count.
pub(super) struct Watchdog {
    every: Option<Duration>,
}

impl Watchdog {
    pub(super) fn new() -> Watchdog {
        Watchdog { every: sd_notify::watchdog_enabled().map(|timeout| timeout / 3) }
    }

    /// One turn of it; never resolves where no watchdog is asked for.
    pub(super) async fn tick(&mut self, store: &Store) {
        let Some(every) = self.every else { return std::future::pending().await };
        tokio::time::sleep(every).await;
        let alive = store
            .read(|db| db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)).map_err(Into::into))
            .await;
        match alive {
            Ok(_) => tell(&[NotifyState::Watchdog]),
            Err(error) => tracing::error!(%error, "the database does not answer: the watchdog is not told"),
        }
    }
}
