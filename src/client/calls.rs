//! The agent's endpoints, one method each.

use reqwest::{StatusCode, Url, header::CONTENT_RANGE};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::{
    Client, Error,
    backoff::Backoff,
    send::{Ask, Failed},
};
use crate::{
    base::clock::Timestamp,
    wire::{
        Code, Payload, Status, envelope,
        result::{Accepted, CancelAnswer, JobPage, JobStatus},
    },
};

/// How long a request to cancel stays good, in seconds.
const CANCEL_TTL: i64 = 300;

/// Which jobs a list shows; what is `None` filters nothing.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ListFilter {
    pub status: Option<Status>,
    /// A reason, or a rejected job's code.
    pub reason: Option<String>,
    pub controller_id: Option<String>,
    /// RFC 3339: accepted then or later.
    pub since: Option<String>,
    /// RFC 3339: accepted before.
    pub until: Option<String>,
    /// Rows a page.
    pub limit: Option<u32>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

/// What a download brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
}

#[derive(Serialize)]
struct Cancel<'a> {
    action: &'static str,
    job_id: &'a str,
    timestamp: i64,
    ttl: i64,
    controller_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_controller_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Client {
    /// Signs a job and hands it to the agent. A lost answer is asked for again with the same bytes, so
    /// the job runs once; a repetition that the agent knows already counts as success.
    ///
    /// # Errors
    /// What the agent refused; [`Error::Unsure`] if the answer was lost for good.
    pub async fn submit(&self, payload: &Payload) -> Result<Accepted, Error> {
        let raw = serde_json::to_vec(payload).map_err(|error| Error::Setting(error.to_string()))?;
        let ask = Ask::Post { url: self.endpoint(&["api", "v1", "jobs"])?, body: self.signed(&raw)? };
        let answer = self.call(&ask).await.map_err(|Failed { error, unsure }| {
            // That a repeated submission came too late, or was not heard, says nothing of the first one.
            let late = matches!(error.code(), Some(Code::JobExpired | Code::JobTooOld));
            if unsure && (late || error.passing()) {
                Error::Unsure { job_id: payload.job_id.clone(), source: Box::new(error) }
            } else {
                error
            }
        })?;
        self.json(&answer)
    }

    /// Asks the agent to end a job.
    ///
    /// # Errors
    /// What the agent refused, `JOB_ENDED` among it.
    pub async fn cancel(&self, job_id: &str, reason: Option<&str>) -> Result<CancelAnswer, Error> {
        let url = self.endpoint(&["api", "v1", "jobs", job_id, "cancel"])?;
        if self.inner.settings.key.is_none()
            && (self.inner.settings.token.is_some() || self.inner.settings.identity.is_some())
        {
            let body = serde_json::json!({"controller_id": self.of.as_deref(), "reason": reason}).to_string();
            let answer =
                self.call(&Ask::Told { url, body: body.into() }).await.map_err(|failed| failed.error)?;
            return self.json(&answer);
        }
        let now = Timestamp::now().secs();
        let request = Cancel {
            action: "cancel",
            job_id,
            timestamp: now,
            ttl: now + CANCEL_TTL,
            controller_id: &self.inner.settings.controller_id,
            agent_id: self.at.as_deref(),
            job_controller_id: self.of.as_deref(),
            reason,
        };
        let raw = serde_json::to_vec(&request).map_err(|error| Error::Setting(error.to_string()))?;
        let answer =
            self.call(&Ask::Post { url, body: self.signed(&raw)? }).await.map_err(|failed| failed.error)?;
        self.json(&answer)
    }

    /// What the agent knows of a job.
    ///
    /// # Errors
    /// What the agent refused, `JOB_NOT_FOUND` among it.
    pub async fn status(&self, job_id: &str) -> Result<JobStatus, Error> {
        self.get(self.of_job(&["api", "v1", "jobs", job_id])?).await
    }

    /// One page of jobs, newest first.
    ///
    /// # Errors
    /// What the agent refused.
    pub async fn list(&self, filter: &ListFilter) -> Result<JobPage, Error> {
        let mut url = self.endpoint(&["api", "v1", "jobs"])?;
        let limit = filter.limit.map(|limit| limit.to_string());
        let pairs = [
            ("status", filter.status.map(Status::as_str)),
            ("reason", filter.reason.as_deref()),
            ("controller_id", filter.controller_id.as_deref()),
            ("since", filter.since.as_deref()),
            ("until", filter.until.as_deref()),
            ("limit", limit.as_deref()),
            ("cursor", filter.cursor.as_deref()),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        self.get(url).await
    }

    /// What the agent says of itself, as it says it.
    ///
    /// # Errors
    /// No agent answered.
    pub async fn health(&self) -> Result<Value, Error> {
        let answer = self.call(&Ask::Open { url: self.endpoint(&["health"])? }).await;
        self.json(&answer.map_err(|failed| failed.error)?)
    }

    /// How many bytes of a stream (`stdout`, `stderr`) are recorded by now.
    ///
    /// # Errors
    /// What the agent refused.
    pub async fn output_len(&self, job_id: &str, stream: &str) -> Result<u64, Error> {
        let url = self.output_url(job_id, stream)?;
        let response = self.open(&Ask::Get { url, range_from: None }).await.map_err(|failed| failed.error)?;
        // The rest of the answer is not read.
        Ok(response.content_length().unwrap_or(0))
    }

    /// Writes the exact bytes of a stream (`stdout`, `stderr`), as many as there are by now. A cut
    /// connection is taken up where it broke.
    ///
    /// # Errors
    /// What the agent refused; [`Error::Write`] if `into` fails.
    pub async fn download(
        &self,
        job_id: &str,
        stream: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Downloaded, Error> {
        self.fetch(self.output_url(job_id, stream)?, into).await
    }

    /// Writes a file that a job has left, by its path in the result.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn artifact(
        &self,
        job_id: &str,
        path: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Downloaded, Error> {
        let mut parts = vec!["api", "v1", "jobs", job_id, "artifacts"];
        parts.extend(path.trim_start_matches('/').split('/'));
        self.fetch(self.of_job(&parts)?, into).await
    }

    async fn fetch(&self, url: Url, into: &mut (impl AsyncWrite + Unpin)) -> Result<Downloaded, Error> {
        let retry = &self.inner.settings.retry;
        let mut backoff = Backoff::new(retry);
        let mut progress = Instant::now();
        let (mut done, mut hash) = (0u64, Sha256::new());
        loop {
            let ask = Ask::Get { url: url.clone(), range_from: (done > 0).then_some(done) };
            let mut response = match self.open(&ask).await.map_err(|failed| failed.error) {
                Ok(response) => response,
                // Nothing was left beyond what we have.
                Err(Error::Refused(refusal)) if refusal.status == 416 && done > 0 => break,
                Err(error) => return Err(error),
            };
            // Who ignores the range sends everything again.
            let mut skip =
                if done > 0 && response.status() != StatusCode::PARTIAL_CONTENT { done } else { 0 };
            if let (0, Some(start)) = (skip, range_start(&response))
                && start != done
            {
                let cause = format!("it sent bytes from {start} on, not from {done} on as asked");
                return Err(Error::Answer { url: self.name(), cause });
            }
            let cut = loop {
                match response.chunk().await {
                    Ok(None) => break None,
                    Err(error) => break Some(Error::of_http(&self.name(), &error)),
                    Ok(Some(piece)) => {
                        let old = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                        skip -= old as u64;
                        let new = &piece[old..];
                        into.write_all(new).await.map_err(Error::Write)?;
                        hash.update(new);
                        done += new.len() as u64;
                        if !new.is_empty() {
                            progress = Instant::now();
                            backoff.reset();
                        }
                    }
                }
            };
            let Some(error) = cut else { break };
            if progress.elapsed() > retry.patience {
                return Err(error);
            }
            tokio::time::sleep(backoff.next()).await;
        }
        into.flush().await.map_err(Error::Write)?;
        Ok(Downloaded { bytes: done, sha256: hex::encode(hash.finalize()) })
    }

    fn output_url(&self, job_id: &str, stream: &str) -> Result<Url, Error> {
        let mut url = self.of_job(&["api", "v1", "jobs", job_id, "output"])?;
        url.query_pairs_mut().append_pair("stream", stream);
        Ok(url)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<T, Error> {
        let answer = self.call(&Ask::Get { url, range_from: None }).await.map_err(|failed| failed.error)?;
        self.json(&answer)
    }

    fn signed(&self, payload: &[u8]) -> Result<tokio_util::bytes::Bytes, Error> {
        match &self.inner.settings.key {
            Some(key) => Ok(envelope::sign(payload, key).into()),
            None => Err(Error::Setting("there is no key to sign with".to_owned())),
        }
    }
}

/// The first byte's number out of `Content-Range: bytes 5-9/10`.
fn range_start(response: &reqwest::Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
