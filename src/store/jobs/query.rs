//! Reads of single jobs, and the small sets that start-up and the sweeps look for.

use quickcmd_init::proto::Artifact;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{GLANCE, Job, SELECT, State};
use crate::{base::clock::Timestamp, store::StoreError};

/// One job.
///
/// # Errors
/// Those of the database, as for all functions here.
pub fn get(conn: &Connection, row: i64) -> Result<Option<Job>, StoreError> {
    first(conn, "WHERE jobs.row = ?", params![row])
}

/// One job without its texts, which may be large.
///
/// # Errors
/// See [`get`].
pub fn glance(conn: &Connection, row: i64) -> Result<Option<Job>, StoreError> {
    let sql = format!("{GLANCE}WHERE jobs.row = ?");
    Ok(conn.prepare_cached(&sql)?.query_row([row], Job::from_row).optional()?)
}

/// Bytes of the texts that a job's result holds, which are not read for it; 0 without such a job.
///
/// # Errors
/// See [`get`].
pub fn text_bytes(conn: &Connection, row: i64) -> Result<usize, StoreError> {
    let bytes: Option<i64> = conn
        .prepare_cached(
            "SELECT coalesce(octet_length(texts.snapshot), 0) + coalesce(octet_length(outputs.stdout), 0) \
               + coalesce(octet_length(outputs.stderr), 0) + coalesce(octet_length(artifacts.list), 0) \
             FROM jobs LEFT JOIN texts ON texts.row = jobs.row LEFT JOIN outputs ON outputs.row = jobs.row \
             LEFT JOIN artifacts ON artifacts.row = jobs.row \
             WHERE jobs.row = ?",
        )?
        .query_row([row], |row| row.get(0))
        .optional()?;
    Ok(usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX))
}

/// What became of the files that a job asked to be kept.
///
/// # Errors
/// See [`get`].
pub fn artifacts(conn: &Connection, row: i64) -> Result<Vec<Artifact>, StoreError> {
    let list: Option<String> = conn
        .prepare_cached("SELECT list FROM artifacts WHERE row = ?")?
        .query_row([row], |row| row.get(0))
        .optional()?;
    Ok(list.map(|list| serde_json::from_str(&list).unwrap_or_default()).unwrap_or_default())
}

/// A controller's job of that name: the accepted one, else the newest rejection.
///
/// # Errors
/// See [`get`].
pub fn find(conn: &Connection, controller_id: &str, job_id: &str) -> Result<Option<Job>, StoreError> {
    match locate(conn, controller_id, job_id)? {
        Some(row) => get(conn, row),
        None => Ok(None),
    }
}

/// The row of [`find`]'s job.
///
/// # Errors
/// See [`get`].
pub fn locate(conn: &Connection, controller_id: &str, job_id: &str) -> Result<Option<i64>, StoreError> {
    let accepted = row(
        conn,
        "SELECT row FROM jobs WHERE job_id = ? AND controller_id = ? AND state <> 'rejected'",
        &[&job_id, &controller_id],
    )?;
    if accepted.is_some() {
        return Ok(accepted);
    }
    row(
        conn,
        "SELECT row FROM jobs WHERE job_id = ? AND state = 'rejected' AND +controller_id = ? \
         ORDER BY row DESC LIMIT 1",
        &[&job_id, &controller_id],
    )
}

/// Whose job an id alone names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    /// This one: the accepted one, else the newest rejection.
    Row(i64),
    /// No controller has a job of that id.
    Nowhere,
    /// Several controllers have an accepted one: any of them could have taken the id to stand before another's.
    Ambiguous,
}

/// The row of the job of that name, whoever's it is.
///
/// # Errors
/// See [`get`].
pub fn locate_any(conn: &Connection, job_id: &str) -> Result<Located, StoreError> {
    // Of one controller there is one at most.
    let (first, last): (Option<i64>, Option<i64>) = conn
        .prepare_cached(
            "SELECT min(row), max(row) FROM \
             (SELECT row FROM jobs WHERE job_id = ? AND state <> 'rejected' LIMIT 2)",
        )?
        .query_row([job_id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if let (Some(first), Some(last)) = (first, last) {
        return Ok(if first == last { Located::Row(first) } else { Located::Ambiguous });
    }
    let rejected = row(
        conn,
        "SELECT row FROM jobs WHERE job_id = ? AND state = 'rejected' ORDER BY row DESC LIMIT 1",
        &[&job_id],
    )?;
    Ok(rejected.map_or(Located::Nowhere, Located::Row))
}

/// The exact signed bytes of a job that has not ended; `None` afterwards.
///
/// # Errors
/// See [`get`].
pub fn payload(conn: &Connection, row: i64) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(conn
        .prepare_cached("SELECT raw FROM payloads WHERE row = ?")?
        .query_row([row], |row| row.get(0))
        .optional()?)
}

/// What the queue needs to know of a job that waits; its texts stay on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub row: i64,
    pub controller_id: String,
    pub key_id: Option<String>,
    pub key_print: Option<u16>,
    /// Unix seconds: it must start by then.
    pub ttl: i64,
    pub accepted_at: Timestamp,
    /// As it was asked for.
    pub image: String,
}

impl Queued {
    /// Before the first.
    pub const START: (Timestamp, i64) = (Timestamp(i64::MIN), 0);

    /// Its place in the order in which jobs came.
    pub fn place(&self) -> (Timestamp, i64) {
        (self.accepted_at, self.row)
    }
}

/// Jobs that wait, in the order they came, after a place ([`Queued::START`] for the first page).
///
/// # Errors
/// See [`get`].
pub fn queued(conn: &Connection, after: (Timestamp, i64), limit: u32) -> Result<Vec<Queued>, StoreError> {
    // The first term names the partial index, the second the value in it.
    let mut statement = conn.prepare_cached(
        "SELECT row, controller_id, ttl, accepted_at, image, key_id, key_print FROM jobs INDEXED BY jobs_unfinished \
         WHERE ended_at IS NULL AND state = 'queued' \
         AND (accepted_at, row) > (?, ?) ORDER BY accepted_at, row LIMIT ?",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Queued {
            row: row.get(0)?,
            controller_id: row.get(1)?,
            ttl: row.get(2)?,
            accepted_at: Timestamp(row.get(3)?),
            image: row.get(4)?,
            key_id: row.get(5)?,
            key_print: row.get(6)?,
        })
    };
    Ok(statement.query_map(params![after.0.0, after.1, limit], read)?.collect::<Result<_, _>>()?)
}

/// The rows of all jobs that have not ended, in no order.
///
/// # Errors
/// See [`get`].
pub fn unfinished_rows(conn: &Connection) -> Result<Vec<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT row FROM jobs WHERE ended_at IS NULL")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// Whose each of these jobs is, and whether it has ended; `None` for one that there is no record of.
///
/// # Errors
/// See [`get`].
pub fn owners(conn: &Connection, rows: &[i64]) -> Result<Vec<Option<(String, bool)>>, StoreError> {
    let mut owner =
        conn.prepare_cached("SELECT controller_id, ended_at IS NOT NULL FROM jobs WHERE row = ?")?;
    let found = |row: &i64| {
        let read = owner.query_row([row], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(read.optional()?)
    };
    rows.iter().map(found).collect()
}

/// Jobs that a sandbox may know: starting or running, oldest first.
///
/// # Errors
/// See [`get`].
pub fn unfinished(conn: &Connection) -> Result<Vec<Job>, StoreError> {
    all(
        conn,
        "WHERE jobs.ended_at IS NULL AND jobs.state IN ('starting', 'running') \
         ORDER BY jobs.row",
        params![],
    )
}

/// A job as the keeper of a container; its texts stay on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub row: i64,
    pub job_id: String,
    pub state: State,
    pub container_id: Option<String>,
}

/// One job as the keeper of a container.
///
/// # Errors
/// See [`get`].
pub fn holder(conn: &Connection, row: i64) -> Result<Option<Holder>, StoreError> {
    Ok(keepers(conn, "WHERE row = ?", params![row])?.pop())
}

/// The jobs of [`unfinished`], as keepers of their containers.
///
/// # Errors
/// See [`get`].
pub fn holders(conn: &Connection) -> Result<Vec<Holder>, StoreError> {
    keepers(conn, "WHERE ended_at IS NULL AND state IN ('starting', 'running') ORDER BY row", params![])
}

/// Ended jobs whose container may be left, oldest first, after a row (0 for the first page): a sandbox that is used again
/// may have had thousands.
///
/// # Errors
/// See [`get`].
pub fn uncleaned(conn: &Connection, after: i64, limit: u32) -> Result<Vec<Holder>, StoreError> {
    keepers(
        conn,
        "WHERE container_name IS NOT NULL AND cleaned_at IS NULL AND +state IN ('completed', 'failed') \
         AND row > ? ORDER BY row LIMIT ?",
        params![after, limit],
    )
}

/// Which use of its container the job is, where that may run more than one, as the audit log has it.
///
/// # Errors
/// See [`get`].
pub fn use_of(conn: &Connection, row: i64) -> Result<Option<u32>, StoreError> {
    let uses: Option<Option<u32>> = conn
        .prepare_cached(
            "SELECT json_extract(CAST(entry AS TEXT), '$.use') FROM audit \
             WHERE job = ? AND kind = 'job.container' ORDER BY number DESC LIMIT 1",
        )?
        .query_row([row], |row| row.get(0))
        .optional()?;
    Ok(uses.flatten())
}

/// Bytes of a job's list of artifacts, which is not read for it; 0 without one.
///
/// # Errors
/// See [`get`].
pub fn artifacts_bytes(conn: &Connection, row: i64) -> Result<usize, StoreError> {
    let bytes: Option<i64> = conn
        .prepare_cached("SELECT octet_length(list) FROM artifacts WHERE row = ?")?
        .query_row([row], |row| row.get(0))
        .optional()?;
    Ok(usize::try_from(bytes.unwrap_or(0)).unwrap_or(usize::MAX))
}

/// Jobs by state; states without a job are left out. Reads an index of all jobs: for start-up.
///
/// # Errors
/// See [`get`].
pub fn counts(conn: &Connection) -> Result<Vec<(State, u64)>, StoreError> {
    let mut counts = Vec::new();
    for state in State::UNFINISHED {
        // Spelled out, because `starting` and `running` share a status.
        let count: i64 = conn
            .prepare_cached("SELECT count(*) FROM jobs WHERE ended_at IS NULL AND state = ?")?
            .query_row([state], |row| row.get(0))?;
        counts.push((*state, u64::try_from(count).unwrap_or(0)));
    }
    for state in [State::Completed, State::Failed, State::Rejected] {
        let count: i64 = conn
            .prepare_cached("SELECT count(*) FROM jobs WHERE ended_at IS NOT NULL AND status = ?")?
            .query_row([state], |row| row.get(0))?;
        counts.push((state, u64::try_from(count).unwrap_or(0)));
    }
    counts.retain(|(_, count)| *count > 0);
    Ok(counts)
}

fn row(conn: &Connection, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Option<i64>, StoreError> {
    Ok(conn.prepare_cached(sql)?.query_row(params, |row| row.get(0)).optional()?)
}

fn first(conn: &Connection, rest: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Option<Job>, StoreError> {
    Ok(conn.prepare_cached(&format!("{SELECT}{rest}"))?.query_row(params, Job::from_row).optional()?)
}

fn all(conn: &Connection, rest: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Vec<Job>, StoreError> {
    let mut statement = conn.prepare_cached(&format!("{SELECT}{rest}"))?;
    let jobs = statement.query_map(params, Job::from_row)?.collect::<Result<Vec<_>, _>>()?;
    Ok(jobs)
}

fn keepers(
    conn: &Connection,
    rest: &str,
    params: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Holder>, StoreError> {
    let mut statement =
        conn.prepare_cached(&format!("SELECT row, job_id, state, container_id FROM jobs {rest}"))?;
    let read = |row: &Row<'_>| {
        Ok(Holder { row: row.get(0)?, job_id: row.get(1)?, state: row.get(2)?, container_id: row.get(3)? })
    };
    Ok(statement.query_map(params, read)?.collect::<Result<_, _>>()?)
}
