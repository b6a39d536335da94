//! The steps of a job's life. Each is one guarded statement and one audit entry: if the job is not in
//! the state that the step starts from, it answers `Conflict` and changes nothing.

use rusqlite::{OptionalExtension, params};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Cancel, End, State};
use crate::{
    audit::Event,
    base::clock::Timestamp,
    store::{StoreError, Tx, audit, int},
    wire::result::Receipt,
};

/// The intent to start, recorded before anything is asked of the sandbox.
#[derive(Debug, Clone)]
pub struct Starting {
    /// 1 at the first try.
    pub attempt: u32,
    pub container_name: String,
    /// The reference that is used.
    pub image: String,
    /// Where they are known already; see [`image`].
    pub image_id: Option<String>,
    pub digest: Option<String>,
    /// When its turn came: until then it waited, from then on it is being started.
    pub turn_at: Timestamp,
    /// When this is recorded.
    pub now: Timestamp,
}

/// queued -> starting.
///
/// # Errors
/// `Conflict` if it is not queued.
pub fn starting(tx: &Tx<'_>, row: i64, step: &Starting) -> Result<(), StoreError> {
    let name = guard(tx, row, &[State::Queued])?;
    let queued_ms = millis(step.turn_at, name.accepted_at);
    one(
        tx.prepare_cached(
            "UPDATE jobs SET state = 'starting', attempt = ?2, container_name = ?3, image = ?4, image_id = ?5, \
             image_digest = ?6, starting_at = ?7, queued_ms = ?8 WHERE row = ?1 AND state = 'queued'",
        )?
        .execute(params![
            row,
            step.attempt,
            step.container_name,
            step.image,
            step.image_id,
            step.digest,
            step.turn_at.0,
            int(queued_ms)
        ])?,
    )?;
    let event = Event::Starting {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        attempt: step.attempt,
        container_name: &step.container_name,
        image: &step.image,
        image_id: step.image_id.as_deref(),
        image_digest: step.digest.as_deref(),
        queued_ms,
    };
    audit::append(tx, step.now, &event)?;
    Ok(())
}

/// What the image's reference was resolved to, while the job is starting.
///
/// # Errors
/// `Conflict` if it is not starting.
pub fn image(
    tx: &Tx<'_>,
    row: i64,
    image_id: &str,
    digest: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let name = guard(tx, row, &[State::Starting])?;
    one(tx
        .prepare_cached(
            "UPDATE jobs SET image_id = ?2, image_digest = ?3 WHERE row = ?1 AND state = 'starting'",
        )?
        .execute(params![row, image_id, digest])?)?;
    let event = Event::Image {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        image_id,
        image_digest: digest,
    };
    audit::append(tx, now, &event)?;
    Ok(())
}

/// The container that it gets, while the job is starting; `use_of`: which of that container's jobs it is, where it may
/// run more than one.
///
/// # Errors
/// `Conflict` if it is not starting.
pub fn container(
    tx: &Tx<'_>,
    row: i64,
    container_id: &str,
    use_of: Option<u32>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let name = guard(tx, row, &[State::Starting])?;
    one(tx
        .prepare_cached("UPDATE jobs SET container_id = ?2 WHERE row = ?1 AND state = 'starting'")?
        .execute(params![row, container_id])?)?;
    let event = Event::Container {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        container_id,
        use_of,
    };
    audit::append(tx, now, &event)?;
    Ok(())
}

/// starting -> running: its command was handed over.
///
/// # Errors
/// `Conflict` if it is not starting.
pub fn running(
    tx: &Tx<'_>,
    row: i64,
    started_at: Timestamp,
    deadline_at: Timestamp,
) -> Result<(), StoreError> {
    let name = guard(tx, row, &[State::Starting])?;
    let started_ms = millis(started_at, name.starting_at.unwrap_or(started_at));
    one(tx
        .prepare_cached(
            "UPDATE jobs SET state = 'running', started_at = ?2, deadline_at = ?3, started_ms = ?4 \
             WHERE row = ?1 AND state = 'starting'",
        )?
        .execute(params![row, started_at.0, deadline_at.0, int(started_ms)])?)?;
    let event = Event::Running {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        started_at: started_at.0,
        deadline_at: deadline_at.0,
    };
    audit::append(tx, started_at, &event)?;
    Ok(())
}

/// starting -> queued: only where nothing was handed over for certain, and its container is gone. The
/// attempt's number stays, so that the next start can take the next one.
///
/// # Errors
/// `Conflict` if it is not starting.
pub fn requeue(tx: &Tx<'_>, row: i64, now: Timestamp) -> Result<(), StoreError> {
    let name = guard(tx, row, &[State::Starting])?;
    one(tx
        .prepare_cached(
            "UPDATE jobs SET state = 'queued', container_name = NULL, container_id = NULL, image_id = NULL, \
             image_digest = NULL, starting_at = NULL, queued_ms = NULL WHERE row = ?1 AND state = 'starting'",
        )?
        .execute([row])?)?;
    let event = Event::Requeued {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        attempt: name.attempt,
    };
    audit::append(tx, now, &event)?;
    Ok(())
}

/// The end, from one of `from`. The payload with its secrets is removed in the same transaction.
///
/// # Errors
/// `Conflict` if it is in none of `from`.
pub fn finish(tx: &Tx<'_>, row: i64, from: &[State], end: &End) -> Result<Receipt, StoreError> {
    // A final state in `from` is a defect of the caller; it must not turn one end into two.
    let from: Vec<State> = from.iter().copied().filter(|state| !state.is_final()).collect();
    let name = guard(tx, row, &from)?;
    let state = State::of_end(end.reason);
    let duration_ms = match (end.duration_ms, name.started_at) {
        (Some(measured), _) => measured,
        (None, Some(started)) => millis(end.at, started),
        (None, None) => 0,
    };
    // One that never had its turn has waited until its end.
    let queued_ms = name.queued_ms.unwrap_or_else(|| millis(end.at, name.accepted_at));
    let artifacts = match end.artifacts.is_empty() {
        true => None,
        false => Some(
            serde_json::to_string(&end.artifacts).map_err(|error| StoreError::Internal(error.to_string()))?,
        ),
    };
    let artifacts_sha256 = artifacts.as_ref().map(|list| hex::encode(Sha256::digest(list)));
    let event = Event::Ended {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        payload_sha256: &name.payload_sha256,
        status: state.as_str(),
        reason: end.reason.as_str(),
        error: end.error.as_deref().map(Event::cut),
        exit_code: end.exit_code,
        signal: end.signal,
        oom_killed: end.oom_killed,
        image: &name.image,
        image_digest: name.image_digest.as_deref(),
        limits: &name.limits,
        network: &name.network,
        sandbox_id: name.container_id.as_deref().unwrap_or_default(),
        attempt: name.attempt,
        accepted_at: name.accepted_at.0,
        started_at: name.started_at.map(|at| at.0),
        ended_at: end.at.0,
        duration_ms,
        stdout_bytes: end.stdout_bytes,
        stderr_bytes: end.stderr_bytes,
        stdout_sha256: &end.stdout_sha256,
        stderr_sha256: &end.stderr_sha256,
        stdout_dropped: end.stdout_dropped,
        stderr_dropped: end.stderr_dropped,
        cpu_ms: end.cpu_ms,
        max_rss_bytes: end.max_rss_bytes,
        artifacts_sha256: artifacts_sha256.as_deref(),
    };
    let receipt = audit::append(tx, end.at, &event)?;
    one(tx
        .prepare_cached(
            "UPDATE jobs SET state = ?3, reason = ?4, ended_at = ?5, queued_ms = ?6, duration_ms = ?7, \
             exit_code = ?8, signal = ?9, oom_killed = ?10, error = ?11, stdout_bytes = ?12, stderr_bytes = ?13, \
             stdout_sha256 = ?14, stderr_sha256 = ?15, stdout_dropped = ?16, stderr_dropped = ?17, \
             stdout_truncated = ?18, stderr_truncated = ?19, cpu_ms = ?20, max_rss_bytes = ?21, \
             audit_entry = ?22, audit_sha256 = ?23 WHERE row = ?1 AND state = ?2",
        )?
        .execute(params![
            row,
            name.state,
            state,
            end.reason.as_str(),
            end.at.0,
            int(queued_ms),
            int(duration_ms),
            end.exit_code,
            end.signal,
            end.oom_killed,
            end.error,
            int(end.stdout_bytes),
            int(end.stderr_bytes),
            end.stdout_sha256,
            end.stderr_sha256,
            int(end.stdout_dropped),
            int(end.stderr_dropped),
            end.stdout_truncated,
            end.stderr_truncated,
            end.cpu_ms.map(int),
            end.max_rss_bytes.map(int),
            int(receipt.entry),
            receipt.sha256,
        ])?)?;
    tx.prepare_cached("INSERT INTO outputs (row, stdout, stderr) VALUES (?, ?, ?)")?
        .execute(params![row, end.stdout, end.stderr])?;
    if let Some(list) = artifacts {
        tx.prepare_cached("INSERT INTO artifacts (row, list) VALUES (?, ?)")?.execute(params![row, list])?;
    }
    tx.prepare_cached("DELETE FROM payloads WHERE row = ?")?.execute([row])?;
    Ok(receipt)
}

/// Records that an unfinished job is to end. The first request counts; answers whether this was it.
///
/// # Errors
/// `Conflict` if the job has ended.
pub fn cancel_requested(tx: &Tx<'_>, row: i64, cancel: &Cancel) -> Result<bool, StoreError> {
    let name = guard(tx, row, State::UNFINISHED)?;
    let changed = tx
        .prepare_cached(
            "UPDATE jobs SET cancel_requested_at = ?3, cancel_why = ?4, cancel_by = ?5, cancel_reason = ?6 \
             WHERE row = ?1 AND state = ?2 AND cancel_requested_at IS NULL",
        )?
        .execute(params![row, name.state, cancel.at.0, cancel.why, cancel.by, cancel.reason])?;
    if changed == 0 {
        return Ok(false);
    }
    let event = Event::CancelRequested {
        job: row,
        controller_id: &name.controller_id,
        job_id: &name.job_id,
        why: cancel.why.as_str(),
        by: &cancel.by,
        reason: cancel.reason.as_deref().map(Event::cut),
        payload_sha256: cancel.payload_sha256.as_deref(),
    };
    audit::append(tx, cancel.at, &event)?;
    Ok(true)
}

/// Records that nothing of the ended job's container is left. Repeating it changes nothing.
///
/// # Errors
/// `Conflict` if the job has not ended.
pub fn cleaned(tx: &Tx<'_>, row: i64, now: Timestamp) -> Result<(), StoreError> {
    let name = guard(tx, row, &[State::Completed, State::Failed])?;
    let changed = tx
        .prepare_cached("UPDATE jobs SET cleaned_at = ?2 WHERE row = ?1 AND cleaned_at IS NULL")?
        .execute(params![row, now.0])?;
    if let (1, Some(container_name)) = (changed, name.container_name.as_deref()) {
        let event = Event::Cleaned {
            job: row,
            controller_id: &name.controller_id,
            job_id: &name.job_id,
            container_name,
        };
        audit::append(tx, now, &event)?;
    }
    Ok(())
}

/// What the steps need to know of the row as it stands.
struct Present {
    state: State,
    controller_id: String,
    job_id: String,
    payload_sha256: String,
    image: String,
    image_digest: Option<String>,
    limits: Value,
    network: String,
    attempt: u32,
    container_name: Option<String>,
    container_id: Option<String>,
    accepted_at: Timestamp,
    starting_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    queued_ms: Option<u64>,
}

/// Reads the row, and refuses a state that the step does not start from.
fn guard(tx: &Tx<'_>, row: i64, from: &[State]) -> Result<Present, StoreError> {
    let present = tx
        .prepare_cached(
            "SELECT state, controller_id, job_id, payload_sha256, image, image_digest, limits, network, attempt, \
             container_name, container_id, accepted_at, starting_at, started_at, queued_ms FROM jobs WHERE row = ?",
        )?
        .query_row([row], |row| {
            Ok(Present {
                state: row.get(0)?,
                controller_id: row.get(1)?,
                job_id: row.get(2)?,
                payload_sha256: row.get(3)?,
                image: row.get(4)?,
                image_digest: row.get(5)?,
                limits: serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or_default(),
                network: row.get(7)?,
                attempt: row.get(8)?,
                container_name: row.get(9)?,
                container_id: row.get(10)?,
                accepted_at: Timestamp(row.get(11)?),
                starting_at: row.get::<_, Option<i64>>(12)?.map(Timestamp),
                started_at: row.get::<_, Option<i64>>(13)?.map(Timestamp),
                queued_ms: row.get::<_, Option<i64>>(14)?.and_then(|ms| u64::try_from(ms).ok()),
            })
        })
        .optional()?;
    match present {
        Some(present) if from.contains(&present.state) => Ok(present),
        other => Err(StoreError::Conflict {
            row,
            expected: from.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(", "),
            found: other.map(|present| present.state),
        }),
    }
}

/// The guard in the statement repeats the one before it, in the same transaction: they can't disagree.
fn one(changed: usize) -> Result<(), StoreError> {
    match changed {
        1 => Ok(()),
        _ => Err(StoreError::Internal(format!("a guarded step changed {changed} rows"))),
    }
}

fn millis(later: Timestamp, earlier: Timestamp) -> u64 {
    u64::try_from(later.since(earlier).as_millis()).unwrap_or(u64::MAX)
}
