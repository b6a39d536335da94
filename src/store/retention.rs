//! Retention: what is old goes, in bounded steps, and each step is an audit entry. Call each function
//! until it answers 0. Hashes stay, and the ids of accepted jobs stay taken.

use rusqlite::{Connection, params};

use crate::{
    audit::Event,
    base::clock::Timestamp,
    store::{StoreError, Tx, audit, int},
};

/// Removes prompt, command, snapshot, output text and the list of artifacts of up to `limit` jobs that ended before a moment,
/// and answers of which rows (for the files of their output). Their results keep counts and hashes.
///
/// # Errors
/// Those of the database, as for all functions here.
pub fn purge(tx: &Tx<'_>, before: Timestamp, limit: u32, now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let rows = select(
        tx,
        "SELECT row FROM jobs INDEXED BY jobs_unpurged WHERE ended_at < ? AND ended_at IS NOT NULL \
         AND purged_at IS NULL ORDER BY ended_at LIMIT ?",
        before,
        limit,
    )?;
    for row in &rows {
        tx.prepare_cached("DELETE FROM texts WHERE row = ?")?.execute([row])?;
        tx.prepare_cached("DELETE FROM outputs WHERE row = ?")?.execute([row])?;
        tx.prepare_cached("DELETE FROM artifacts WHERE row = ?")?.execute([row])?;
        tx.prepare_cached("UPDATE jobs SET purged_at = ? WHERE row = ?")?.execute(params![now.0, row])?;
    }
    if let (Some(first_job), Some(last_job)) = (rows.iter().min(), rows.iter().max()) {
        let event = Event::Purged {
            before: before.0,
            jobs: rows.len() as u64,
            first_job: *first_job,
            last_job: *last_job,
        };
        audit::append(tx, now, &event)?;
    }
    Ok(rows)
}

/// Deletes the rows of up to `limit` jobs that ended before a moment and left no container, and answers
/// which. Of an accepted one its name and payload hash stay, so that it can't run again.
///
/// # Errors
/// See [`purge`].
pub fn delete(tx: &Tx<'_>, before: Timestamp, limit: u32, now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let rows = select(
        tx,
        "SELECT row FROM jobs INDEXED BY jobs_ended WHERE ended_at < ? AND ended_at IS NOT NULL \
         AND (container_name IS NULL OR cleaned_at IS NOT NULL) ORDER BY ended_at LIMIT ?",
        before,
        limit,
    )?;
    for row in &rows {
        tx.prepare_cached(
            "INSERT INTO spent (controller_id, job_id, job, payload_sha256, state, reason) \
             SELECT controller_id, job_id, row, payload_sha256, state, reason FROM jobs \
             WHERE row = ? AND state <> 'rejected'",
        )?
        .execute([row])?;
        tx.prepare_cached("DELETE FROM jobs WHERE row = ?")?.execute([row])?;
    }
    if let (Some(first_job), Some(last_job)) = (rows.iter().min(), rows.iter().max()) {
        let event = Event::Deleted {
            before: before.0,
            jobs: rows.len() as u64,
            first_job: *first_job,
            last_job: *last_job,
        };
        audit::append(tx, now, &event)?;
    }
    Ok(rows)
}

/// Deletes up to `limit` rows of the table of submissions from before a moment, and answers how many.
///
/// # Errors
/// See [`purge`].
pub fn delete_submissions(
    tx: &Tx<'_>,
    before: Timestamp,
    limit: u32,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let deleted = tx
        .prepare_cached(
            "DELETE FROM submissions WHERE id IN (SELECT id FROM submissions WHERE at < ? ORDER BY at LIMIT ?)",
        )?
        .execute(params![before.0, limit])? as u64;
    if deleted > 0 {
        audit::append(tx, now, &Event::SubmissionsDeleted { before: before.0, submissions: deleted })?;
    }
    Ok(deleted)
}

/// Deletes up to `limit` of the oldest rows of the table of submissions whose MAC did not hold, beyond the newest
/// `keep`, and answers how many: anybody can send those.
///
/// # Errors
/// See [`purge`].
pub fn cap_unverified(tx: &Tx<'_>, keep: u64, limit: u32, now: Timestamp) -> Result<u64, StoreError> {
    let last: Option<i64> = tx
        .prepare_cached(
            "SELECT max(id) FROM (SELECT id FROM submissions WHERE verified = 0 AND id <= \
               (SELECT id FROM submissions WHERE verified = 0 ORDER BY id DESC LIMIT 1 OFFSET ?) \
             ORDER BY id LIMIT ?)",
        )?
        .query_row(params![int(keep), limit], |row| row.get(0))?;
    let Some(last) = last else { return Ok(0) };
    let at: i64 = tx
        .prepare_cached("SELECT max(at) FROM submissions WHERE verified = 0 AND id <= ?")?
        .query_row([last], |row| row.get(0))?;
    let deleted =
        tx.prepare_cached("DELETE FROM submissions WHERE verified = 0 AND id <= ?")?.execute([last])? as u64;
    audit::append(tx, now, &Event::UnverifiedDeleted { before: at.saturating_add(1), submissions: deleted })?;
    Ok(deleted)
}

/// Which of these jobs have no output any more: those that were purged or deleted.
///
/// # Errors
/// See [`purge`].
pub fn gone(conn: &Connection, rows: &[i64]) -> Result<Vec<i64>, StoreError> {
    let mut kept = conn.prepare_cached("SELECT 1 FROM jobs WHERE row = ? AND purged_at IS NULL")?;
    let mut gone = Vec::new();
    for row in rows {
        if !kept.exists([row])? {
            gone.push(*row);
        }
    }
    Ok(gone)
}

fn select(tx: &Tx<'_>, sql: &str, before: Timestamp, limit: u32) -> Result<Vec<i64>, StoreError> {
    let mut statement = tx.prepare_cached(sql)?;
    let rows = statement.query_map(params![before.0, limit], |row| row.get(0))?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}
