//! Whether the daemon answers: asked every few seconds by one task, read by everybody.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    Health, SandboxError,
    calls::{Api, CallError},
    diagnosis::diagnose,
};

/// Between two questions. A daemon that hangs is red after two of them, and one look at its socket: see the test.
const EVERY: Duration = Duration::from_secs(3);

pub(super) struct Probe {
    api: Arc<Api>,
    health: Mutex<Health>,
    /// Somebody saw that the daemon does not answer: ask now.
    hint: Notify,
}

impl Probe {
    pub(super) fn new(api: Arc<Api>) -> Probe {
        let problem = Some("the Docker engine has not been asked yet".to_owned());
        Probe {
            api,
            health: Mutex::new(Health { ready: false, problem, version: None }),
            hint: Notify::new(),
        }
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks at once if this error says that the daemon does not answer.
    pub(super) fn hint(&self, error: &SandboxError) {
        if matches!(error, SandboxError::Unreachable(_)) {
            self.hint.notify_one();
        }
    }

    /// Asks for ever.
    pub(super) async fn run(&self) {
        let mut failures = 0;
        loop {
            failures = self.once(failures).await;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.hint.notified() => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Asks once; the number of failures in a row.
    pub(super) async fn once(&self, failures: u32) -> u32 {
        let before = self.health();
        let answer = match self.api.ping().await {
            // Its version may be another after each time that it was away.
            Ok(()) if !before.ready || before.version.is_none() => {
                self.api.forget();
                self.api.version().await.map(Some)
            }
            Ok(()) => Ok(before.version.clone()),
            Err(error) => Err(error),
        };
        let (now, failures) = match answer {
            Ok(version) => (Health { ready: true, problem: None, version }, 0),
            // One late answer on a busy host is no reason to turn jobs away.
            Err(CallError::Deadline { .. }) if failures == 0 && before.ready => return 1,
            Err(error) => {
                let problem = Some(diagnose(&self.api, &error).await.to_string());
                (
                    Health { ready: false, problem, version: before.version.clone() },
                    failures.saturating_add(1),
                )
            }
        };
        match (&now.problem, before.ready) {
            (Some(problem), _) if before.problem.as_ref() != Some(problem) => {
                tracing::warn!(problem, "Docker is not ready");
            }
            (None, false) => tracing::info!(version = now.version, "Docker is ready"),
            _ => {}
        }
        self.api.observer().up(now.ready);
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = now;
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::{super::calls::PING_DEADLINE, *};

    /// The promise is 15 s: a daemon that froze just after it answered, asked twice in vain. Its socket still takes
    /// connections, or says at once that it does not.
    #[test]
    fn a_frozen_daemon_is_red_in_time() {
        assert!(2 * (EVERY + PING_DEADLINE) < Duration::from_secs(15));
    }
}
