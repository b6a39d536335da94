//! The answers that tell of a job.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Reason, Status};

/// `result` of an ended job: the seed's fields first, then ours. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct JobResult {
    pub job_id: String,
    pub status: Status,
    /// The container's id; empty if none was made.
    pub sandbox_id: String,
    /// The command's exit code; 128 + n if signal n ended it; 124 at a timeout; -1 if it never ran.
    pub exit_code: i32,
    /// The first bytes of the stream as text (`output.result_bytes` at most); what is no UTF-8 shows
    /// as U+FFFD and is exact at the output endpoint.
    pub stdout: String,
    pub stderr: String,
    /// When it started; when it was accepted, if it never did.
    pub start_time: String,
    pub end_time: String,
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// The payload's `snapshot_metadata`, if it is not empty.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snapshot: Option<String>,

    pub reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_digest: Option<String>,
    /// Bytes recorded of the stream (after redaction, up to the cap).
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    /// SHA-256 of those bytes, in hex.
    pub stdout_sha256: String,
    pub stderr_sha256: String,
    /// Whether bytes beyond the cap were dropped.
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    /// Bytes dropped beyond the cap.
    pub stdout_dropped: u64,
    pub stderr_dropped: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// What became of the files that were to be kept; empty where none were asked for, and after retention.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub artifacts: Vec<Artifact>,
    /// Time from acceptance to its turn, in milliseconds.
    pub queued_ms: u64,
    /// Time from its turn to the start of the command, in milliseconds.
    pub started_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
}

/// What the job's processes used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_ms: u64,
    pub max_rss_bytes: u64,
}

/// A file that was to be kept: with size and hash if it is, else with the reason.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Artifact {
    /// As asked for; what was found in a folder begins with that folder's path.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Of the bytes that are kept, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// Permission bits in octal digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mode: Option<String>,
    /// Present and true where values of `secret_env` were masked in it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub masked: bool,
    /// Why it is not kept, in a word for programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Where in the agent's record this job's end stands.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Receipt {
    /// Number of the audit entry.
    pub entry: u64,
    /// SHA-256 of that entry's bytes, in hex: the leaf of the log.
    pub sha256: String,
}

/// Answer to `POST /api/v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Accepted {
    pub job_id: String,
    pub status: Status,
    /// Present and true where the same bytes had been accepted before.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub duplicate: bool,
}

/// Answer to `GET /api/v1/jobs/{id}`.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct JobStatus {
    pub job_id: String,
    pub status: Status,
    /// Null until the job has ended.
    pub result: Option<JobResult>,
    pub controller_id: String,
    /// When it was accepted, RFC 3339.
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub started_at: Option<String>,
    /// Why it ended, or the code of its refusal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Whether somebody has asked to cancel it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cancel_requested: bool,
}

/// One row of `GET /api/v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct JobRow {
    pub job_id: String,
    pub controller_id: String,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<i32>,
    pub command: String,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
}

/// Answer to `GET /api/v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct JobPage {
    pub jobs: Vec<JobRow>,
    /// Pass as `cursor` to get the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Answer to `POST /api/v1/jobs/{id}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct CancelAnswer {
    pub job_id: String,
    /// The status at the time of the answer: `failed` if it had not started, else `running`.
    pub status: Status,
    pub cancel_requested: bool,
}

/// The answer to a drain, and to its end.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct DrainAnswer {
    /// `serving` or `draining`.
    pub mode: String,
    pub jobs_running: usize,
    pub jobs_queued: usize,
}
