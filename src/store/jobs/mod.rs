//! The table of jobs: one row a job, moved from state to state by guarded statements.
//!
//! ```text
//! insert -> queued -> starting -> running -> completed | failed      reject -> rejected
//!              ^---------'                    (finish works from any of the first three)
//! ```

mod end;
mod insert;
mod list;
mod query;
mod steps;

use std::fmt;

use quickcmd_init::proto::Artifact;
use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde_json::Value;

use crate::{
    base::clock::Timestamp,
    wire::{
        Reason, Status,
        result::{self, JobResult, JobRow, JobStatus, Receipt, Usage},
    },
};

pub(in crate::store) use end::EMPTY_SHA256;
pub use end::{Cancel, CancelWhy, End};
pub use insert::{Inserted, NewJob, NewRejected, Prepared, insert, is_accepted, reject, seen};
pub use list::{Cursor, ListFilter, list};
pub use query::{
    Holder, Located, Queued, artifacts, artifacts_bytes, counts, find, get, glance, holder, holders, locate,
    locate_any, owners, payload, queued, text_bytes, uncleaned, unfinished, unfinished_rows, use_of,
};
pub use steps::{Starting, cancel_requested, cleaned, container, finish, image, requeue, running, starting};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted, waiting.
    Queued,
    /// Its turn has come; nothing was handed over to a sandbox for certain.
    Starting,
    /// Its command was handed over.
    Running,
    Completed,
    Failed,
    /// Refused after its MAC held; never queued.
    Rejected,
}

impl State {
    pub const ALL: &'static [State] =
        &[State::Queued, State::Starting, State::Running, State::Completed, State::Failed, State::Rejected];
    /// The states that a job leaves again.
    pub const UNFINISHED: &'static [State] = &[State::Queued, State::Starting, State::Running];

    /// As it stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Starting => "starting",
            State::Running => "running",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Rejected => "rejected",
        }
    }

    /// The state with that text.
    pub fn parse(text: &str) -> Option<State> {
        State::ALL.iter().copied().find(|state| state.as_str() == text)
    }

    /// As it stands on the wire; a starting job shows as running.
    pub fn status(self) -> Status {
        match self {
            State::Queued => Status::Pending,
            State::Starting | State::Running => Status::Running,
            State::Completed => Status::Completed,
            State::Failed => Status::Failed,
            State::Rejected => Status::Rejected,
        }
    }

    /// Whether a job stays in it.
    pub fn is_final(self) -> bool {
        self.status().is_final()
    }

    /// The final state that a status means, for endings.
    fn of_end(reason: Reason) -> State {
        match reason.status() {
            Status::Completed => State::Completed,
            Status::Failed | Status::Pending | Status::Running | Status::Rejected => State::Failed,
        }
    }
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<State> {
        let text = value.as_str()?;
        State::parse(text).ok_or_else(|| FromSqlError::Other(format!("no state {text:?}").into()))
    }
}

/// Everything that the record knows of a job but its payload ([`payload`]).
#[derive(Clone, PartialEq)]
pub struct Job {
    pub row: i64,
    pub controller_id: String,
    pub job_id: String,
    pub key_id: Option<String>,
    /// Of the key that verified it; `None` in what an earlier version took, and in what was refused.
    pub key_print: Option<u16>,
    /// The address that it came from.
    pub peer: String,
    /// SHA-256 of the exact signed bytes, in hex.
    pub payload_sha256: String,
    pub accepted_at: Timestamp,
    /// Unix seconds: it must start by then.
    pub ttl: i64,
    pub risk_level: String,
    pub image: String,
    pub limits: Value,
    pub network: String,

    pub state: State,
    /// Why it ended, or the code of its refusal.
    pub reason: Option<String>,

    /// 1 at the first start; 0 before.
    pub attempt: u32,
    pub container_name: Option<String>,
    pub container_id: Option<String>,
    pub image_id: Option<String>,
    pub image_digest: Option<String>,

    pub starting_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub deadline_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub queued_ms: Option<u64>,
    pub started_ms: Option<u64>,
    pub duration_ms: Option<u64>,

    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub error: Option<String>,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    pub stdout_sha256: Option<String>,
    pub stderr_sha256: Option<String>,
    pub stdout_dropped: u64,
    pub stderr_dropped: u64,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    pub cpu_ms: Option<u64>,
    pub max_rss_bytes: Option<u64>,

    pub cancel_requested_at: Option<Timestamp>,
    pub cancel_why: Option<CancelWhy>,
    pub cancel_by: Option<String>,
    pub cancel_reason: Option<String>,

    pub cleaned_at: Option<Timestamp>,
    /// When retention removed its texts and output.
    pub purged_at: Option<Timestamp>,
    /// Where in the audit log its end stands.
    pub receipt: Option<Receipt>,

    /// Redacted; empty after retention removed it. So are the next two.
    pub prompt: String,
    pub command: String,
    pub snapshot: String,
    /// Redacted text for the result; empty until the job has ended, and after retention removed it.
    pub stdout: String,
    pub stderr: String,
    /// What became of the files that were to be kept; empty until it has ended, and after retention.
    pub artifacts: Vec<Artifact>,
}

/// All that [`Job::from_row`] needs; the rest of the statement is the caller's.
const SELECT: &str = "SELECT jobs.*, texts.prompt, texts.command, texts.snapshot, outputs.stdout, outputs.stderr, \
     artifacts.list AS artifacts FROM jobs LEFT JOIN texts ON texts.row = jobs.row \
     LEFT JOIN outputs ON outputs.row = jobs.row LEFT JOIN artifacts ON artifacts.row = jobs.row ";

/// The same without texts, which may be large.
const GLANCE: &str = "SELECT jobs.*, '' AS prompt, '' AS command, '' AS snapshot, '' AS stdout, '' AS stderr, \
     NULL AS artifacts FROM jobs ";

impl Job {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Job> {
        let time = |name: &str| -> rusqlite::Result<Option<Timestamp>> {
            Ok(row.get::<_, Option<i64>>(name)?.map(Timestamp))
        };
        let count = |name: &str| -> rusqlite::Result<Option<u64>> {
            Ok(row.get::<_, Option<i64>>(name)?.map(|value| u64::try_from(value).unwrap_or(0)))
        };
        let text = |name: &str| -> rusqlite::Result<String> {
            Ok(row.get::<_, Option<String>>(name)?.unwrap_or_default())
        };
        let limits: String = row.get("limits")?;
        let entry = count("audit_entry")?;
        Ok(Job {
            row: row.get("row")?,
            controller_id: row.get("controller_id")?,
            job_id: row.get("job_id")?,
            key_id: row.get("key_id")?,
            key_print: row.get("key_print")?,
            peer: row.get("peer")?,
            payload_sha256: row.get("payload_sha256")?,
            accepted_at: Timestamp(row.get("accepted_at")?),
            ttl: row.get("ttl")?,
            risk_level: row.get("risk_level")?,
            image: row.get("image")?,
            limits: serde_json::from_str(&limits).unwrap_or_default(),
            network: row.get("network")?,
            state: row.get("state")?,
            reason: row.get("reason")?,
            attempt: row.get("attempt")?,
            container_name: row.get("container_name")?,
            container_id: row.get("container_id")?,
            image_id: row.get("image_id")?,
            image_digest: row.get("image_digest")?,
            starting_at: time("starting_at")?,
            started_at: time("started_at")?,
            deadline_at: time("deadline_at")?,
            ended_at: time("ended_at")?,
            queued_ms: count("queued_ms")?,
            started_ms: count("started_ms")?,
            duration_ms: count("duration_ms")?,
            exit_code: row.get("exit_code")?,
            signal: row.get("signal")?,
            oom_killed: row.get("oom_killed")?,
            error: row.get("error")?,
            stdout_bytes: count("stdout_bytes")?.unwrap_or(0),
            stderr_bytes: count("stderr_bytes")?.unwrap_or(0),
            stdout_sha256: row.get("stdout_sha256")?,
            stderr_sha256: row.get("stderr_sha256")?,
            stdout_dropped: count("stdout_dropped")?.unwrap_or(0),
            stderr_dropped: count("stderr_dropped")?.unwrap_or(0),
            stdout_truncated: row.get("stdout_truncated")?,
            stderr_truncated: row.get("stderr_truncated")?,
            cpu_ms: count("cpu_ms")?,
            max_rss_bytes: count("max_rss_bytes")?,
            cancel_requested_at: time("cancel_requested_at")?,
            cancel_why: row.get("cancel_why")?,
            cancel_by: row.get("cancel_by")?,
            cancel_reason: row.get("cancel_reason")?,
            cleaned_at: time("cleaned_at")?,
            purged_at: time("purged_at")?,
            receipt: match (entry, row.get::<_, Option<String>>("audit_sha256")?) {
                (Some(entry), Some(sha256)) => Some(Receipt { entry, sha256 }),
                _ => None,
            },
            prompt: text("prompt")?,
            command: text("command")?,
            snapshot: text("snapshot")?,
            stdout: text("stdout")?,
            stderr: text("stderr")?,
            artifacts: serde_json::from_str(&text("artifacts")?).unwrap_or_default(),
        })
    }

    /// What the wire calls its status.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// The answer of the status endpoint.
    pub fn to_status(&self) -> JobStatus {
        JobStatus {
            job_id: self.job_id.clone(),
            status: self.status(),
            result: self.to_result(),
            controller_id: self.controller_id.clone(),
            created_at: self.accepted_at.rfc3339(),
            started_at: self.started_at.map(Timestamp::rfc3339),
            reason: self.reason.clone(),
            cancel_requested: self.cancel_requested_at.is_some(),
        }
    }

    /// [`Job::to_status`] with the texts themselves, not copies.
    pub fn into_status(mut self) -> JobStatus {
        let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
        let mut status = self.to_status();
        if let Some(result) = &mut status.result {
            (result.stdout, result.stderr) = (stdout, stderr);
        }
        status
    }

    /// The result of a job that ran or should have; `None` until it has ended, and for a rejected one.
    pub fn to_result(&self) -> Option<JobResult> {
        let (State::Completed | State::Failed) = self.state else { return None };
        let reason = Reason::parse(self.reason.as_deref()?)?;
        let ended = self.ended_at?;
        Some(JobResult {
            job_id: self.job_id.clone(),
            status: self.status(),
            sandbox_id: self.container_id.clone().unwrap_or_default(),
            exit_code: self.exit_code.unwrap_or(-1),
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            start_time: self.started_at.unwrap_or(self.accepted_at).rfc3339(),
            end_time: ended.rfc3339(),
            duration_ms: self.duration_ms.unwrap_or(0),
            error: self.error.clone(),
            snapshot: Some(self.snapshot.clone()).filter(|snapshot| !snapshot.is_empty()),
            reason,
            signal: self.signal,
            oom_killed: self.oom_killed,
            image: self.image.clone(),
            image_digest: self.image_digest.clone(),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            stdout_sha256: self.stdout_sha256.clone().unwrap_or_default(),
            stderr_sha256: self.stderr_sha256.clone().unwrap_or_default(),
            stdout_truncated: self.stdout_truncated,
            stderr_truncated: self.stderr_truncated,
            stdout_dropped: self.stdout_dropped,
            stderr_dropped: self.stderr_dropped,
            usage: match (self.cpu_ms, self.max_rss_bytes) {
                (None, None) => None,
                (cpu, rss) => Some(Usage { cpu_ms: cpu.unwrap_or(0), max_rss_bytes: rss.unwrap_or(0) }),
            },
            artifacts: self.artifacts.iter().map(shown).collect(),
            queued_ms: self.queued_ms.unwrap_or(0),
            started_ms: self.started_ms.unwrap_or(0),
            receipt: self.receipt.clone(),
        })
    }

    /// Its row in a list.
    pub fn to_row(&self) -> JobRow {
        JobRow {
            job_id: self.job_id.clone(),
            controller_id: self.controller_id.clone(),
            status: self.status(),
            reason: self.reason.clone(),
            exit_code: self.exit_code,
            command: self.command.clone(),
            created_at: self.accepted_at.rfc3339(),
            ended_at: self.ended_at.map(Timestamp::rfc3339),
            duration_ms: self.duration_ms,
        }
    }
}

/// An artifact as its controller sees it.
fn shown(artifact: &Artifact) -> result::Artifact {
    let (mut path, mut size, mut hash, mut bits, mut hidden) = (String::new(), None, None, None, false);
    let (mut refused, mut sentence) = (None, None);
    match artifact {
        Artifact::Kept { path: kept, size: bytes, sha256, mode, masked, .. } => {
            path.clone_from(kept);
            (size, hash, bits) = (Some(*bytes), Some(sha256.clone()), Some(format!("{mode:04o}")));
            hidden = *masked;
        }
        Artifact::Refused { path: asked, why, error } => {
            path.clone_from(asked);
            (refused, sentence) = (Some(why.as_str().to_owned()), Some(error.clone()));
        }
    }
    result::Artifact { path, size, sha256: hash, mode: bits, masked: hidden, refused, error: sentence }
}

impl fmt::Debug for Job {
    /// For logs: which job and where it stands, not what it said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("row", &self.row)
            .field("controller_id", &self.controller_id)
            .field("job_id", &self.job_id)
            .field("state", &self.state)
            .field("reason", &self.reason)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
pub(in crate::store) mod tests;
