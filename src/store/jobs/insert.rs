//! A job enters the record: accepted or rejected.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::State;
use crate::{
    audit::{Draft, Event, Submitted},
    base::clock::Timestamp,
    store::{
        StoreError, Tx, audit,
        submissions::{self, Outcome, Submission},
    },
    wire::{Code, payload::Network},
};

/// A job that the gate admitted.
#[derive(Clone)]
pub struct NewJob {
    pub controller_id: String,
    pub key_id: Option<String>,
    /// What tells the key that verified it from others, whatever they are called.
    pub key_print: Option<u16>,
    pub job_id: String,
    /// The exact signed bytes, with their secrets: kept until the job has ended.
    pub payload: Vec<u8>,
    /// SHA-256 of those bytes, in lower-case hex.
    pub payload_sha256: String,
    /// Redacted, as are the next two.
    pub prompt: String,
    pub command: String,
    pub snapshot: String,
    pub risk_level: String,
    pub image: String,
    /// The limits it runs under, as a JSON object.
    pub limits: Value,
    pub network: Network,
    /// Unix seconds: it must start by then.
    pub ttl: i64,
    /// The address that it came from.
    pub peer: String,
    pub accepted_at: Timestamp,
}

impl fmt::Debug for NewJob {
    /// Without the payload and the texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob")
            .field("controller_id", &self.controller_id)
            .field("job_id", &self.job_id)
            .field("payload_sha256", &self.payload_sha256)
            .field("accepted_at", &self.accepted_at)
            .finish_non_exhaustive()
    }
}

/// A job, and what of its rows can be made before the writer has its turn: everybody waits for that one.
#[derive(Debug)]
pub struct Prepared {
    job: NewJob,
    network: &'static str,
    /// As JSON.
    limits: String,
    entry: Draft,
}

impl Prepared {
    pub fn new(job: NewJob) -> Prepared {
        let network = match job.network {
            Network::None => "none",
            Network::Bridge => "bridge",
        };
        let submitted = Submitted {
            job: 0,
            controller_id: &job.controller_id,
            job_id: &job.job_id,
            key_id: job.key_id.as_deref(),
            peer: &job.peer,
            payload_sha256: &job.payload_sha256,
            prompt: Event::cut(&job.prompt),
            command: Event::cut(&job.command),
            risk_level: &job.risk_level,
            image: &job.image,
        };
        let entry = Draft::accepted(job.accepted_at, &submitted, &job.limits, network, job.ttl);
        Prepared { network, limits: job.limits.to_string(), entry, job }
    }
}

/// A job whose MAC held, and that was refused all the same.
#[derive(Debug, Clone)]
pub struct NewRejected {
    pub controller_id: String,
    pub key_id: Option<String>,
    pub job_id: String,
    /// SHA-256 of the signed bytes, in lower-case hex.
    pub payload_sha256: String,
    /// Redacted, as are the next two.
    pub prompt: String,
    pub command: String,
    pub snapshot: String,
    pub risk_level: String,
    /// The image it asked for; empty where that was not known yet.
    pub image: String,
    /// Unix seconds, as signed.
    pub ttl: i64,
    /// The address that it came from.
    pub peer: String,
    pub at: Timestamp,
}

/// What [`insert`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It is queued now, under this row number.
    New(i64),
    /// The same bytes had been accepted before; nothing runs.
    Duplicate {
        row: i64,
        state: State,
        /// Why that one ended, if it has.
        reason: Option<String>,
    },
    /// The job id had been accepted with other bytes. Nothing was written: see [`reject`].
    Conflict,
}

/// Queues a job, unless its (controller, job id) was accepted before, ever.
///
/// # Errors
/// Those of the database.
pub fn insert(tx: &Tx<'_>, prepared: &Prepared) -> Result<Inserted, StoreError> {
    let job = &prepared.job;
    if let Some(seen) = seen(tx, job)? {
        return Ok(seen);
    }
    tx.prepare_cached(
        "INSERT INTO jobs (controller_id, job_id, key_id, key_print, peer, payload_sha256, accepted_at, ttl, \
         risk_level, image, limits, network, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued')",
    )?
    .execute(params![
        job.controller_id,
        job.job_id,
        job.key_id,
        job.key_print,
        job.peer,
        job.payload_sha256,
        job.accepted_at.0,
        job.ttl,
        job.risk_level,
        job.image,
        prepared.limits,
        prepared.network,
    ])?;
    let row = tx.last_insert_rowid();
    texts(tx, row, &job.prompt, &job.command, &job.snapshot)?;
    tx.prepare_cached("INSERT INTO payloads (row, raw) VALUES (?, ?)")?.execute(params![row, job.payload])?;
    submissions::record(tx, &submission(job, Outcome::Accepted, row))?;
    audit::append_draft(tx, &prepared.entry, row)?;
    Ok(Inserted::New(row))
}

/// Whether the controller has a job of that id that was accepted.
///
/// # Errors
/// Those of the database.
pub fn is_accepted(db: &Connection, controller_id: &str, job_id: &str) -> Result<bool, StoreError> {
    Ok(accepted(db, controller_id, job_id)?.is_some())
}

/// What [`insert`] would find, without queueing a new job (`None`): for one that has no place. A duplicate is
/// recorded.
///
/// # Errors
/// Those of the database.
pub fn seen(tx: &Tx<'_>, job: &NewJob) -> Result<Option<Inserted>, StoreError> {
    let Some((row, sha256, state, reason)) = accepted(tx, &job.controller_id, &job.job_id)? else {
        return Ok(None);
    };
    if sha256 != job.payload_sha256 {
        return Ok(Some(Inserted::Conflict));
    }
    submissions::record(tx, &submission(job, Outcome::Duplicate, row))?;
    Ok(Some(Inserted::Duplicate { row, state, reason }))
}

fn submission(job: &NewJob, outcome: Outcome, row: i64) -> Submission<'_> {
    Submission {
        at: job.accepted_at,
        peer: &job.peer,
        controller_id: Some(&job.controller_id),
        verified: true,
        job_id: Some(&job.job_id),
        outcome,
        code: None,
        details: None,
        payload_sha256: Some(&job.payload_sha256),
        job: Some(row),
    }
}

/// Records a job that was refused, and answers its row number. It takes no job id: an accepted job of
/// the same name is not disturbed, and a later, corrected submission may still be accepted.
///
/// # Errors
/// Those of the database.
pub fn reject(tx: &Tx<'_>, job: &NewRejected, code: Code, details: &str) -> Result<i64, StoreError> {
    let details = Event::cut(details);
    tx.prepare_cached(
        "INSERT INTO jobs (controller_id, job_id, key_id, peer, payload_sha256, accepted_at, ended_at, ttl, \
         risk_level, image, limits, network, state, reason, error) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9, '{}', '', 'rejected', ?10, ?11)",
    )?
    .execute(params![
        job.controller_id,
        job.job_id,
        job.key_id,
        job.peer,
        job.payload_sha256,
        job.at.0,
        job.ttl,
        job.risk_level,
        job.image,
        code.as_str(),
        details,
    ])?;
    let row = tx.last_insert_rowid();
    texts(tx, row, &job.prompt, &job.command, &job.snapshot)?;
    submissions::record(
        tx,
        &Submission {
            at: job.at,
            peer: &job.peer,
            controller_id: Some(&job.controller_id),
            verified: true,
            job_id: Some(&job.job_id),
            outcome: Outcome::Refused,
            code: Some(code),
            details: Some(details),
            payload_sha256: Some(&job.payload_sha256),
            job: Some(row),
        },
    )?;
    let submitted = Submitted {
        job: row,
        controller_id: &job.controller_id,
        job_id: &job.job_id,
        key_id: job.key_id.as_deref(),
        peer: &job.peer,
        payload_sha256: &job.payload_sha256,
        prompt: Event::cut(&job.prompt),
        command: Event::cut(&job.command),
        risk_level: &job.risk_level,
        image: &job.image,
    };
    audit::append(tx, job.at, &Event::Rejected { submitted, code: code.as_str(), details })?;
    Ok(row)
}

fn texts(tx: &Tx<'_>, row: i64, prompt: &str, command: &str, snapshot: &str) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO texts (row, prompt, command, snapshot) VALUES (?, ?, ?, ?)")?
        .execute(params![row, prompt, command, snapshot])?;
    Ok(())
}

type Accepted = (i64, String, State, Option<String>);

/// The accepted job of that name: its row, payload hash, state and reason, whether retention deleted it or not.
fn accepted(db: &Connection, controller_id: &str, job_id: &str) -> Result<Option<Accepted>, StoreError> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let kept = db
        .prepare_cached(
            "SELECT row, payload_sha256, state, reason FROM jobs \
             WHERE job_id = ? AND controller_id = ? AND state <> 'rejected'",
        )?
        .query_row([job_id, controller_id], read)
        .optional()?;
    if kept.is_some() {
        return Ok(kept);
    }
    Ok(db
        .prepare_cached(
            "SELECT job, payload_sha256, state, reason FROM spent WHERE controller_id = ? AND job_id = ?",
        )?
        .query_row([controller_id, job_id], read)
        .optional()?)
}
