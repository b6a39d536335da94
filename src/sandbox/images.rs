//! References become images: resolved by the pull policy, once for many jobs that ask at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bollard::models::ImageInspect;
use futures_util::StreamExt;

use super::{
    Image, SandboxError,
    calls::{Api, CallError},
};
use crate::config::PullPolicy;

/// How long an answer holds: short enough that a new tag is seen, long enough for a burst of jobs.
const FRESH: Duration = Duration::from_secs(2);
/// How often an answer that was asked for lately is made new beforehand, so that no job waits for it.
pub(super) const RENEW: Duration = Duration::from_secs(1);
/// How long after its last asking an answer is made new.
const LATELY: Duration = Duration::from_secs(600);
/// Images whose details are kept in memory.
const KEPT: usize = 64;

/// The last answer about one reference; its lock is held while the question is open.
type Slot = Arc<tokio::sync::Mutex<Option<Answer>>>;

#[derive(Clone)]
struct Answer {
    /// When it was given.
    at: Instant,
    /// When somebody last asked.
    asked: Instant,
    image: Result<Image, SandboxError>,
}

pub(super) struct Images {
    api: Arc<Api>,
    policy: PullPolicy,
    /// A pull ends when nothing has moved for this long.
    stall: Duration,
    slots: Mutex<HashMap<String, Slot>>,
    /// Volumes that images declare, by image id.
    volumes: Mutex<HashMap<String, Arc<Vec<String>>>>,
}

impl Images {
    pub(super) fn new(api: Arc<Api>, policy: PullPolicy, stall: Duration) -> Images {
        Images { api, policy, stall, slots: Mutex::default(), volumes: Mutex::default() }
    }

    /// Resolves a reference; whoever asks while somebody else does waits for that answer.
    pub(super) async fn resolve(self: &Arc<Self>, reference: &str) -> Result<Image, SandboxError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            // References come from the allowed list; a reload may bring others over the years.
            if slots.len() > 4 * KEPT {
                slots.clear();
            }
            slots.entry(reference.to_owned()).or_default().clone()
        };
        let mut last = slot.lock_owned().await;
        if let Some(answer) = &mut *last
            && answer.at.elapsed() < FRESH
        {
            answer.asked = Instant::now();
            return answer.image.clone();
        }
        // In a task of its own, one for each reference: a job that may wait no longer must not end the pull that others
        // wait for.
        let (images, reference) = (Arc::clone(self), reference.to_owned());
        let looked = tokio::spawn(async move {
            let image = images.look(&reference).await;
            let now = Instant::now();
            // An engine that does not answer is not an answer to keep.
            *last = match &image {
                Err(SandboxError::Unreachable(_)) => None,
                _ => Some(Answer { at: now, asked: now, image: image.clone() }),
            };
            image
        });
        looked.await.unwrap_or_else(|error| Err(SandboxError::Failed(error.to_string())))
    }

    /// One pass over the images that jobs have asked for lately: looks again, so that the next job finds an answer
    /// that is fresh. A policy that pulls would ask the registry: then the job itself asks.
    pub(super) async fn renew_once(&self) {
        if self.policy == PullPolicy::Always {
            return;
        }
        let slots: Vec<(String, Slot)> = {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.iter().map(|(reference, slot)| (reference.clone(), slot.clone())).collect()
        };
        for (reference, slot) in slots {
            let wanted = match &*slot.lock().await {
                Some(answer) => answer.image.is_ok() && answer.asked.elapsed() < LATELY,
                None => false,
            };
            if !wanted {
                continue;
            }
            // Not under the lock: a job that comes meanwhile takes the answer there is. What is not here any more
            // is for the next job to find out.
            let asked = Instant::now();
            let Ok(Some(found)) = self.api.inspect_image(&reference).await else { continue };
            let Ok(image) = self.image(&reference, found) else { continue };
            if let Some(answer) = &mut *slot.lock().await
                && answer.at < asked
            {
                answer.at = asked;
                answer.image = Ok(image);
            }
        }
    }

    /// Forgets the answer about a reference: a container could not be made from it.
    pub(super) fn forget(&self, reference: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(reference);
    }

    async fn look(&self, reference: &str) -> Result<Image, SandboxError> {
        let unavailable = |why: String| SandboxError::ImageUnavailable { image: reference.to_owned(), why };
        let here = match self.policy {
            PullPolicy::Always => None,
            PullPolicy::Never | PullPolicy::IfNotPresent => self.api.inspect_image(reference).await?,
        };
        let found = match (here, self.policy) {
            (Some(found), _) => found,
            (None, PullPolicy::Never) => {
                return Err(unavailable(format!(
                    "it is not on this host and pull_policy is never; run `docker pull {reference}` there"
                )));
            }
            (None, PullPolicy::IfNotPresent | PullPolicy::Always) => {
                self.pull(reference).await?;
                self.api.inspect_image(reference).await?.ok_or_else(|| {
                    unavailable("it was pulled and is not there; look at the host's disk".to_owned())
                })?
            }
        };
        self.image(reference, found)
    }

    /// What an inspection says of an image; its volumes are kept.
    fn image(&self, reference: &str, found: ImageInspect) -> Result<Image, SandboxError> {
        let Some(id) = found.id.clone() else {
            let why = "Docker names no id for it".to_owned();
            return Err(SandboxError::ImageUnavailable { image: reference.to_owned(), why });
        };
        self.keep(&id, &found);
        let digest = found
            .repo_digests
            .as_deref()
            .unwrap_or_default()
            .iter()
            .find(|digest| digest.split('@').next() == Some(split(reference).0))
            .cloned()
            .unwrap_or_else(|| id.clone());
        let env = found.config.and_then(|config| config.env).unwrap_or_default();
        let env = env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Image { reference: reference.to_owned(), id, digest, env })
    }

    async fn pull(&self, reference: &str) -> Result<(), SandboxError> {
        let started = Instant::now();
        let result = self.pull_steps(reference).await;
        let outcome =
            if result.is_ok() { crate::metrics::Outcome::Ok } else { crate::metrics::Outcome::Error };
        self.api.observer().call("pull", outcome, started.elapsed());
        result
    }

    async fn pull_steps(&self, reference: &str) -> Result<(), SandboxError> {
        let unavailable = |why: String| SandboxError::ImageUnavailable { image: reference.to_owned(), why };
        let (name, tag) = split(reference);
        let mut steps = std::pin::pin!(self.api.pull(name, tag).await?);
        loop {
            match tokio::time::timeout(self.stall, steps.next()).await {
                Err(_) => {
                    return Err(unavailable(format!(
                        "its pull made no progress for {} s; check the registry and the network",
                        self.stall.as_secs()
                    )));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Ok(step))) => {
                    if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                        return Err(unavailable(format!("its pull failed: {error}")));
                    }
                }
                Ok(Some(Err(CallError::Refused { message, .. }))) => {
                    return Err(unavailable(format!("its pull failed: {message}")));
                }
                Ok(Some(Err(error))) => return Err(error.into()),
            }
        }
    }

    /// The volumes that an image declares; asks only where that is not known.
    pub(super) async fn volumes(&self, image: &Image) -> Result<Arc<Vec<String>>, SandboxError> {
        let known = self.volumes.lock().unwrap_or_else(PoisonError::into_inner).get(&image.id).cloned();
        if let Some(volumes) = known {
            return Ok(volumes);
        }
        match self.api.inspect_image(&image.id).await? {
            Some(found) => Ok(self.keep(&image.id, &found)),
            None => Err(SandboxError::ImageUnavailable {
                image: image.reference.clone(),
                why: "it was removed from this host since it was resolved".to_owned(),
            }),
        }
    }

    fn keep(&self, id: &str, found: &ImageInspect) -> Arc<Vec<String>> {
        let volumes = found.config.as_ref().and_then(|config| config.volumes.clone());
        let volumes = Arc::new(volumes.unwrap_or_default());
        let mut all = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(id.to_owned(), volumes.clone());
        volumes
    }
}

/// Name and tag of a reference, as a pull wants them: a digest is part of the name's own request, and without
/// a tag Docker would pull every one there is.
fn split(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name, digest);
    }
    match reference.rsplit_once(':') {
        // A colon before a slash is the registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reference_is_split_as_docker_does() {
        for (reference, name, tag) in [
            ("alpine", "alpine", "latest"),
            ("alpine:3.20", "alpine", "3.20"),
            ("host:5000/a/b", "host:5000/a/b", "latest"),
            ("host:5000/a/b:1", "host:5000/a/b", "1"),
            ("a@sha256:00", "a", "sha256:00"),
        ] {
            assert_eq!(super::split(reference), (name, tag), "{reference}");
        }
    }
}
