//! A container that waits for a job.

use std::{sync::Arc, time::Instant};

use super::{channel::Channel, docker::Core};

/// A container whose supervisor has said hello. Dropped, it is buried.
pub(super) struct Ready {
    core: Arc<Core>,
    /// Id, name and channel, until somebody takes them.
    parts: Option<(String, String, Channel)>,
    /// Jobs that it has run.
    uses: u32,
    born: Instant,
}

impl Ready {
    /// A new one.
    pub(super) fn new(core: Arc<Core>, parts: (String, String, Channel)) -> Ready {
        Ready::used(core, parts, 0, Instant::now())
    }

    /// One that has run so many jobs, and whose supervisor has still to say that nothing is left of them.
    pub(super) fn used(
        core: Arc<Core>,
        (id, name, channel): (String, String, Channel),
        uses: u32,
        born: Instant,
    ) -> Ready {
        Ready { core, parts: Some((id, name, channel)), uses, born }
    }

    /// Waits until the supervisor says that it is ready for another job.
    pub(super) async fn again(&mut self) -> std::io::Result<()> {
        match &mut self.parts {
            Some((_, _, channel)) => channel.hello().await,
            None => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    /// Jobs that it has run, and when it was started.
    pub(super) fn history(&self) -> (u32, Instant) {
        (self.uses, self.born)
    }

    /// The container's, until somebody has taken it.
    pub(super) fn id(&self) -> Option<&str> {
        self.parts.as_ref().map(|(id, _, _)| id.as_str())
    }

    /// Whether the supervisor is still there.
    pub(super) fn is_open(&self) -> bool {
        self.parts.as_ref().is_some_and(|(_, _, channel)| channel.is_open())
    }

    /// Gives the container to somebody who buries it.
    pub(super) fn into_parts(mut self) -> Option<(String, String, Channel)> {
        self.parts.take()
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some((id, name, _)) = self.parts.take() {
            self.core.bury(id, Some(name));
        }
    }
}
