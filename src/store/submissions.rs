//! The table of submissions: who sent what, and what was answered.

use rusqlite::params;

use crate::{
    base::clock::Timestamp,
    store::{StoreError, Tx},
    wire::Code,
};

/// Longest claimed name that is kept, in characters: whoever sent it may have proven nothing.
const LONGEST_NAME: usize = 128;
/// Longest sentence that is kept, in characters.
const LONGEST_DETAILS: usize = 1024;
/// The same where the MAC did not hold.
const LONGEST_UNVERIFIED: usize = 256;

/// A submission that was refused before its MAC held, or without being one. One whose MAC held is
/// recorded by [`super::jobs::reject`].
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    pub at: Timestamp,
    /// The address that it came from.
    pub peer: String,
    /// As claimed; nothing is known of its truth unless `verified`.
    pub controller_id: Option<String>,
    /// Whether the MAC held.
    pub verified: bool,
    /// As claimed.
    pub job_id: Option<String>,
    pub details: Option<String>,
    /// SHA-256 of the signed bytes in hex, where there were any.
    pub payload_sha256: Option<String>,
}

/// Records a refusal.
///
/// # Errors
/// Those of the database.
pub fn refused(tx: &Tx<'_>, refusal: &Refusal, code: Code) -> Result<(), StoreError> {
    record(
        tx,
        &Submission {
            at: refusal.at,
            peer: &refusal.peer,
            controller_id: refusal.controller_id.as_deref(),
            verified: refusal.verified,
            job_id: refusal.job_id.as_deref(),
            outcome: Outcome::Refused,
            code: Some(code),
            details: refusal.details.as_deref(),
            payload_sha256: refusal.payload_sha256.as_deref(),
            job: None,
        },
    )
}

/// As much of a sentence as is kept.
pub fn cut(details: &str, verified: bool) -> String {
    details.chars().take(if verified { LONGEST_DETAILS } else { LONGEST_UNVERIFIED }).collect()
}

/// As much of a name as is kept.
fn shortened(name: &str) -> &str {
    name.char_indices().nth(LONGEST_NAME).map_or(name, |(end, _)| &name[..end])
}

pub(super) enum Outcome {
    Accepted,
    Duplicate,
    Refused,
}

pub(super) struct Submission<'a> {
    pub(super) at: Timestamp,
    pub(super) peer: &'a str,
    pub(super) controller_id: Option<&'a str>,
    pub(super) verified: bool,
    pub(super) job_id: Option<&'a str>,
    pub(super) outcome: Outcome,
    pub(super) code: Option<Code>,
    pub(super) details: Option<&'a str>,
    pub(super) payload_sha256: Option<&'a str>,
    pub(super) job: Option<i64>,
}

pub(super) fn record(tx: &Tx<'_>, submission: &Submission<'_>) -> Result<(), StoreError> {
    let outcome = match submission.outcome {
        Outcome::Accepted => "accepted",
        Outcome::Duplicate => "duplicate",
        Outcome::Refused => "refused",
    };
    tx.prepare_cached(
        "INSERT INTO submissions (at, peer, controller_id, verified, job_id, outcome, code, details, \
         payload_sha256, job) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        submission.at.0,
        submission.peer,
        submission.controller_id.map(shortened),
        submission.verified,
        submission.job_id.map(shortened),
        outcome,
        submission.code.map(Code::as_str),
        submission.details.map(|details| cut(details, submission.verified)),
        submission.payload_sha256,
        submission.job,
    ])?;
    Ok(())
}
