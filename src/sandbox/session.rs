//! One container, for one job: a value that owns its channel and whose end is the container's removal.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use futures_util::future::{BoxFuture, FutureExt};
use quickcmd_init::proto::{Control, Job, Stop};
use tokio::sync::Mutex;

use super::{Evidence, Sandbox, SandboxError, channel::Channel, docker::Core, pool::Lent, ready::Ready};

/// What a job finds its programs by where neither it nor its image says.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// One wait for a container's end; then it is looked at again.
const WAIT: Duration = Duration::from_secs(60);
/// How long a supervisor may take to empty its sandbox for the next job.
const EMPTIED: Duration = Duration::from_secs(5);
/// Tries to kill a container before the caller hears of it.
const KILL_TRIES: u32 = 5;

pub(super) struct Session {
    core: Arc<Core>,
    id: String,
    /// Not known of one that was adopted.
    name: Option<String>,
    channel: Mutex<Option<Channel>>,
    warm: bool,
    handed: AtomicBool,
    /// `None`: used once only.
    reuse: Option<Reuse>,
}

/// Of a sandbox that may be used again.
struct Reuse {
    lent: Lent,
    /// Which of its jobs this one is, from 1.
    this: u32,
    born: Instant,
}

impl Session {
    pub(super) fn new(core: Arc<Core>, ready: Ready, warm: bool, lent: Option<Lent>) -> Option<Session> {
        let (uses, born) = ready.history();
        let reuse = lent.map(|lent| Reuse { lent, this: uses + 1, born });
        let (id, name, channel) = ready.into_parts()?;
        let channel = Mutex::new(Some(channel));
        Some(Session { core, id, name: Some(name), channel, warm, handed: AtomicBool::new(false), reuse })
    }

    pub(super) fn adopted(core: Arc<Core>, id: String) -> Session {
        Session {
            core,
            id,
            name: None,
            channel: Mutex::new(None),
            warm: false,
            handed: AtomicBool::new(true),
            reuse: None,
        }
    }

    async fn look(&self) -> Result<Option<Evidence>, SandboxError> {
        Ok(self.core.api.inspect(&self.id).await?.as_ref().map(evidence))
    }
}

/// What an inspection says of the container's end.
pub(super) fn evidence(found: &ContainerInspectResponse) -> Evidence {
    let state = found.state.clone().unwrap_or_default();
    // A paused container is not at its end, and one that was only created has not begun.
    let running = state.running.unwrap_or(false)
        || state.paused.unwrap_or(false)
        || state.status == Some(ContainerStateStatusEnum::CREATED);
    Evidence {
        running,
        exit_code: state.exit_code.filter(|_| !running),
        oom_killed: state.oom_killed.unwrap_or(false),
        error: state.error.filter(|error| !error.is_empty()),
    }
}

/// A `PATH` in any case: without one the supervisor would find no program.
fn complete(env: &mut Vec<(String, String)>) {
    if !env.iter().any(|(name, _)| name == "PATH") {
        env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    }
}

impl Sandbox for Session {
    fn id(&self) -> &str {
        &self.id
    }

    fn warm(&self) -> bool {
        self.warm
    }

    fn use_of(&self) -> Option<u32> {
        self.reuse.as_ref().map(|reuse| reuse.this)
    }

    fn hand_over(
        &mut self,
        mut job: Job,
        stdin: Vec<u8>,
        spool: OwnedFd,
    ) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            if self.handed.swap(true, Ordering::AcqRel) {
                return Err(SandboxError::Failed("a sandbox takes one job".to_owned()));
            }
            complete(&mut job.env);
            job.again = self.reuse.as_ref().is_some_and(|reuse| reuse.this < reuse.lent.shape().reuse);
            match self.channel.get_mut() {
                Some(channel) => channel.send_job(&job, &stdin, &spool).await,
                None => Err(SandboxError::Failed("this sandbox has no channel".to_owned())),
            }
        }
        .boxed()
    }

    fn stop(&self, why: Stop) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            if let Some(channel) = self.channel.lock().await.as_mut()
                && channel.send_control(Control::Stop { why }).await.is_ok()
            {
                return Ok(());
            }
            // Without a channel the supervisor takes SIGTERM as the same wish.
            match self.core.api.kill(&self.id, "SIGTERM").await {
                Err(error) if !matches!(error.status(), Some(404 | 409)) => Err(error.into()),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            let mut pause = Duration::from_millis(200);
            for attempt in 1.. {
                match self.core.api.kill(&self.id, "SIGKILL").await {
                    Ok(()) => return Ok(()),
                    // Gone, or not running any more.
                    Err(error) if matches!(error.status(), Some(404 | 409)) => return Ok(()),
                    Err(error) if attempt >= KILL_TRIES => {
                        tracing::error!(container = self.id, %error, "a container can't be killed");
                        return Err(error.into());
                    }
                    Err(error) => tracing::warn!(container = self.id, %error, "killing is tried again"),
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Ok(())
        }
        .boxed()
    }

    fn ended(&self) -> BoxFuture<'_, Evidence> {
        async move {
            let mut pause = Duration::from_millis(50);
            loop {
                // Whatever the wait says, the inspection decides.
                let waited = self.core.api.wait(&self.id, WAIT).await;
                match self.look().await {
                    Ok(Some(evidence)) if !evidence.running => return evidence,
                    Ok(None) => {
                        return Evidence {
                            running: false,
                            exit_code: None,
                            oom_killed: false,
                            error: Some("the container is gone".to_owned()),
                        };
                    }
                    Ok(Some(_)) if waited.is_ok() => pause = Duration::from_millis(50),
                    Ok(Some(_)) | Err(_) => pause = (pause * 2).min(Duration::from_secs(5)),
                }
                tokio::time::sleep(pause).await;
            }
        }
        .boxed()
    }

    fn inspect(&self) -> BoxFuture<'_, Result<Option<Evidence>, SandboxError>> {
        self.look().boxed()
    }

    fn discard(self: Box<Self>) {
        // Dropping does it.
    }

    fn release(mut self: Box<Self>) {
        let Some(Reuse { lent, this, born }) = self.reuse.take() else { return };
        if this >= lent.shape().reuse || !self.handed.load(Ordering::Acquire) {
            return;
        }
        let (Some(channel), Some(name)) = (self.channel.get_mut().take(), self.name.take()) else { return };
        let parts = (std::mem::take(&mut self.id), name, channel);
        let mut ready = Ready::used(self.core.clone(), parts, this, born);
        self.core.reaper.spawn(async move {
            // Unless it comes back it is dropped, and so buried.
            if let Ok(Ok(())) = tokio::time::timeout(EMPTIED, ready.again()).await {
                lent.give_back(ready);
            }
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        self.core.bury(std::mem::take(&mut self.id), self.name.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_always_has_a_path() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut env = vec![pair("A", "1")];
        complete(&mut env);
        assert_eq!(env, [pair("A", "1"), pair("PATH", DEFAULT_PATH)]);
        let mut env = vec![pair("PATH", "/x")];
        complete(&mut env);
        assert_eq!(env, [pair("PATH", "/x")]);
    }
}
