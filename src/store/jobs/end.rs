//! How a job ends, and who asked for it.

use quickcmd_init::proto::Artifact;
use rusqlite::{
    ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};

use crate::{base::clock::Timestamp, wire::Reason};

/// Who wants a job to end, and why.
#[derive(Debug, Clone)]
pub struct Cancel {
    pub at: Timestamp,
    pub why: CancelWhy,
    /// Controller id, or the agent's own name for it.
    pub by: String,
    /// What the caller gave as reason, redacted.
    pub reason: Option<String>,
    /// Of the signed request, where there was one.
    pub payload_sha256: Option<String>,
}

/// Why a job is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelWhy {
    /// Somebody asked.
    Cancel,
    /// The agent is about to stop.
    Drain,
}

impl CancelWhy {
    /// As it stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            CancelWhy::Cancel => "cancel",
            CancelWhy::Drain => "drain",
        }
    }
}

impl ToSql for CancelWhy {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for CancelWhy {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<CancelWhy> {
        match value.as_str()? {
            "cancel" => Ok(CancelWhy::Cancel),
            "drain" => Ok(CancelWhy::Drain),
            text => Err(FromSqlError::Other(format!("no reason to cancel {text:?}").into())),
        }
    }
}

/// How a job ended.
#[derive(Clone)]
pub struct End {
    /// Its status follows from it.
    pub reason: Reason,
    pub at: Timestamp,
    /// 128 + n if signal n ended it; 124 at a timeout; -1 if it never ran.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// One sentence, redacted.
    pub error: Option<String>,
    /// Run time by a clock that does not jump; `None`: the wall clock's difference.
    pub duration_ms: Option<u64>,
    /// Redacted text for the result, already cut to the configured length.
    pub stdout: String,
    pub stderr: String,
    /// Bytes recorded of the stream, and SHA-256 of those bytes in hex.
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    pub stdout_sha256: String,
    pub stderr_sha256: String,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    /// Bytes beyond the cap.
    pub stdout_dropped: u64,
    pub stderr_dropped: u64,
    pub cpu_ms: Option<u64>,
    pub max_rss_bytes: Option<u64>,
    /// What became of the files that were to be kept; empty where none were asked for.
    pub artifacts: Vec<Artifact>,
}

/// SHA-256 of nothing: the hash of a stream that no byte came from.
pub(in crate::store) const EMPTY_SHA256: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl End {
    /// The end of a job that wrote nothing: exit code -1, empty output.
    pub fn without_output(reason: Reason, at: Timestamp, error: Option<String>) -> End {
        End {
            reason,
            at,
            exit_code: -1,
            signal: None,
            oom_killed: false,
            error,
            duration_ms: None,
            stdout: String::new(),
            stderr: String::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            stdout_sha256: EMPTY_SHA256.to_owned(),
            stderr_sha256: EMPTY_SHA256.to_owned(),
            stdout_truncated: false,
            stderr_truncated: false,
            stdout_dropped: 0,
            stderr_dropped: 0,
            cpu_ms: None,
            max_rss_bytes: None,
            artifacts: Vec::new(),
        }
    }
}

impl std::fmt::Debug for End {
    /// Without the output.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End")
            .field("reason", &self.reason)
            .field("at", &self.at)
            .field("exit_code", &self.exit_code)
            .field("signal", &self.signal)
            .finish_non_exhaustive()
    }
}
