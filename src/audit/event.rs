//! Everything that the log can say.

use serde::Serialize;
use serde_json::Value;

/// Longest text of a caller that an entry repeats, in bytes; the record itself has the whole.
const LONGEST_TEXT: usize = 1024;

/// Who asked for a job, and for what.
#[derive(Debug, Clone, Serialize)]
pub struct Submitted<'a> {
    pub job: i64,
    pub controller_id: &'a str,
    pub job_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<&'a str>,
    pub peer: &'a str,
    pub payload_sha256: &'a str,
    /// Redacted, and cut after 1,024 bytes.
    pub prompt: &'a str,
    /// Redacted, and cut after 1,024 bytes.
    pub command: &'a str,
    pub risk_level: &'a str,
    pub image: &'a str,
}

/// Something that happened. Nothing in it may hold a secret: texts come redacted.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind")]
pub enum Event<'a> {
    #[serde(rename = "job.accepted")]
    Accepted {
        #[serde(flatten)]
        submitted: Submitted<'a>,
        limits: &'a Value,
        network: &'a str,
        ttl: i64,
    },
    #[serde(rename = "job.rejected")]
    Rejected {
        #[serde(flatten)]
        submitted: Submitted<'a>,
        code: &'a str,
        details: &'a str,
    },
    #[serde(rename = "job.starting")]
    Starting {
        job: i64,
        controller_id: &'a str,
        job_id: &'a str,
        attempt: u32,
        container_name: &'a str,
        image: &'a str,
        image_id: Option<&'a str>,
        image_digest: Option<&'a str>,
        queued_ms: u64,
    },
    #[serde(rename = "job.image")]
    Image {
        job: i64,
        controller_id: &'a str,
        job_id: &'a str,
        image_id: &'a str,
        image_digest: Option<&'a str>,
    },
    #[serde(rename = "job.container")]
    Container {
        job: i64,
        controller_id: &'a str,
        job_id: &'a str,
        container_id: &'a str,
        /// Which of the container's jobs this is, from 1, where it may run more than one.
        #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
        use_of: Option<u32>,
    },
    #[serde(rename = "job.running")]
    Running { job: i64, controller_id: &'a str, job_id: &'a str, started_at: i64, deadline_at: i64 },
    #[serde(rename = "job.requeued")]
    Requeued { job: i64, controller_id: &'a str, job_id: &'a str, attempt: u32 },
    #[serde(rename = "job.cancel_requested")]
    CancelRequested {
        job: i64,
        controller_id: &'a str,
        job_id: &'a str,
        why: &'a str,
        by: &'a str,
        reason: Option<&'a str>,
        payload_sha256: Option<&'a str>,
    },
    #[serde(rename = "job.ended")]
    Ended {
        job: i64,
        controller_id: &'a str,
        job_id: &'a str,
        payload_sha256: &'a str,
        status: &'a str,
        reason: &'a str,
        error: Option<&'a str>,
        exit_code: i32,
        signal: Option<i32>,
        oom_killed: bool,
        image: &'a str,
        image_digest: Option<&'a str>,
        limits: &'a Value,
        network: &'a str,
        sandbox_id: &'a str,
        attempt: u32,
        accepted_at: i64,
        started_at: Option<i64>,
        ended_at: i64,
        duration_ms: u64,
        stdout_bytes: u64,
        stderr_bytes: u64,
        stdout_sha256: &'a str,
        stderr_sha256: &'a str,
        stdout_dropped: u64,
        stderr_dropped: u64,
        cpu_ms: Option<u64>,
        max_rss_bytes: Option<u64>,
        /// Of the list of artifacts as it stands in the record, where there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        artifacts_sha256: Option<&'a str>,
    },
    #[serde(rename = "job.cleaned")]
    Cleaned { job: i64, controller_id: &'a str, job_id: &'a str, container_name: &'a str },
    /// Texts and output of ended jobs were removed; their hashes stay.
    #[serde(rename = "retention.purged")]
    Purged { before: i64, jobs: u64, first_job: i64, last_job: i64 },
    /// Rows of ended jobs were deleted; their ids stay taken.
    #[serde(rename = "retention.deleted")]
    Deleted { before: i64, jobs: u64, first_job: i64, last_job: i64 },
    /// Rows of the table of submissions were deleted.
    #[serde(rename = "retention.submissions")]
    SubmissionsDeleted { before: i64, submissions: u64 },
    /// Rows of the table of submissions whose MAC had not held: there were too many.
    #[serde(rename = "retention.unverified")]
    UnverifiedDeleted { before: i64, submissions: u64 },
    /// What the agent itself did: `agent.started`, `agent.stopped`, `agent.reloaded`, ...
    #[serde(untagged)]
    Agent { kind: &'a str, details: &'a Value },
}

impl Event<'_> {
    /// The row number of the job that it is about.
    pub fn job(&self) -> Option<i64> {
        match self {
            Event::Accepted { submitted, .. } | Event::Rejected { submitted, .. } => Some(submitted.job),
            Event::Starting { job, .. }
            | Event::Image { job, .. }
            | Event::Container { job, .. }
            | Event::Running { job, .. }
            | Event::Requeued { job, .. }
            | Event::CancelRequested { job, .. }
            | Event::Ended { job, .. }
            | Event::Cleaned { job, .. } => Some(*job),
            Event::Purged { .. }
            | Event::Deleted { .. }
            | Event::SubmissionsDeleted { .. }
            | Event::UnverifiedDeleted { .. }
            | Event::Agent { .. } => None,
        }
    }

    /// The part of a caller's text that an entry repeats: 1,024 bytes at most, never half a character.
    pub fn cut(text: &str) -> &str {
        let mut end = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        &text[..end]
    }
}
