//! Is a database file whole, and does the record say what its own audit log says?

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{StoreError, open, schema};
use crate::audit::leaf_hash;

/// What [`verify`] found in a sound file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Version of the schema.
    pub schema: i64,
    pub jobs: u64,
    pub audit_entries: u64,
}

/// Checks a database file: its structure, its references, the schema's version, and the leaf hash and
/// order of every audit entry. Reads everything; the agent may be running. Blocks.
///
/// # Errors
/// `Corrupt` names what is wrong; `Missing`, `Foreign`, `NewerSchema`.
pub fn verify(path: &Path) -> Result<Verified, StoreError> {
    checked(path, whole)
}

/// [`verify`], and whether tables and triggers are as the agent made them, and the jobs as the audit log has them.
///
/// # Errors
/// Those of [`verify`]; `Contradiction` names the first thing that does not agree.
pub fn verify_all(path: &Path) -> Result<Verified, StoreError> {
    checked(path, |conn| {
        let verified = whole(conn)?;
        let found = match altered(conn)? {
            Some(found) => Some(found),
            None => contradiction(conn)?,
        };
        match found {
            Some(detail) => Err(StoreError::Contradiction { file: path.display().to_string(), detail }),
            None => Ok(verified),
        }
    })
}

fn checked(
    path: &Path,
    check: impl FnOnce(&Connection) -> Result<Verified, StoreError>,
) -> Result<Verified, StoreError> {
    let file = path.display().to_string();
    if !path.exists() {
        return Err(StoreError::Missing { file });
    }
    let check = || {
        let conn = open::read_only(path)?;
        schema::check(&conn, &file)?;
        // All of one moment: the agent may be writing.
        conn.execute_batch("BEGIN")?;
        check(&conn)
    };
    check().map_err(|error| error.at(path))
}

/// The file's name is filled in by [`StoreError::at`].
fn corrupt(detail: impl Into<String>) -> StoreError {
    StoreError::Corrupt { file: String::new(), detail: detail.into() }
}

/// SQLite's verdict in one line; its heading says nothing.
pub(super) fn in_one_line(verdict: &str) -> String {
    let lines: Vec<&str> =
        verdict.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("***")).collect();
    lines.join("; ")
}

fn whole(conn: &Connection) -> Result<Verified, StoreError> {
    let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(corrupt(in_one_line(&verdict)));
    }
    let there = objects(conn)?;
    for ((kind, name), _) in objects(&expected(1)?)? {
        if kind == "table" && !there.contains_key(&(kind, name.clone())) {
            return Err(corrupt(format!("the table {name} is missing")));
        }
    }
    if conn.prepare("PRAGMA foreign_key_check")?.exists([])? {
        return Err(corrupt("a row belongs to a job that is not there"));
    }
    let mut audit_entries = 0;
    let mut statement = conn.prepare("SELECT number, entry, leaf FROM audit ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        if number != super::int(audit_entries) {
            return Err(corrupt(format!("audit entry {audit_entries} is missing")));
        }
        if leaf_hash(row.get_ref(1)?.as_bytes().unwrap_or_default()) != row.get::<_, [u8; 32]>(2)? {
            return Err(corrupt(format!("audit entry {number} is not what was hashed")));
        }
        audit_entries += 1;
    }
    let jobs: i64 = conn.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))?;
    Ok(Verified { schema: schema::version(conn)?, jobs: u64::try_from(jobs).unwrap_or(0), audit_entries })
}

/// Kind and name of everything in a database, and the statement that made it.
type Objects = BTreeMap<(String, String), String>;

fn objects(conn: &Connection) -> Result<Objects, StoreError> {
    let mut statement = conn.prepare(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An empty database of that version of the schema.
fn expected(version: i64) -> Result<Connection, StoreError> {
    let conn = Connection::open_in_memory()?;
    for (_, sql) in schema::STEPS.iter().take(usize::try_from(version).unwrap_or(0)) {
        conn.execute_batch(sql)?;
    }
    Ok(conn)
}

/// What of tables, indexes, views and triggers is not as the agent made it. An index or a table of somebody's own does
/// no harm; a trigger may do anything.
fn altered(conn: &Connection) -> Result<Option<String>, StoreError> {
    let there = objects(conn)?;
    let made = objects(&expected(schema::version(conn)?)?)?;
    for (key, sql) in &made {
        let (kind, name) = key;
        match there.get(key) {
            None => return Ok(Some(format!("the {kind} {name} is missing"))),
            Some(other) if other != sql => {
                return Ok(Some(format!("the {kind} {name} is not as the agent made it")));
            }
            Some(_) => {}
        }
    }
    let stranger = there.keys().find(|key| key.0 == "trigger" && !made.contains_key(key));
    Ok(stranger.map(|(_, name)| format!("there is a trigger {name} that the agent did not make")))
}

/// The first thing that the jobs say otherwise than the audit log.
fn contradiction(conn: &Connection) -> Result<Option<String>, StoreError> {
    for look in [entries, ends, unended, unaccepted, vanished] {
        if let Some(found) = look(conn)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Entries whose columns are not what is in them.
fn entries(conn: &Connection) -> Result<Option<String>, StoreError> {
    let mut statement = conn.prepare("SELECT number, at, kind, job, entry FROM audit ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        let entry: Value =
            serde_json::from_slice(row.get_ref(4)?.as_bytes().unwrap_or_default()).unwrap_or_default();
        let agrees = entry["entry"].as_i64() == Some(number)
            && entry["at"].as_i64() == Some(row.get(1)?)
            && entry["kind"].as_str() == Some(&row.get::<_, String>(2)?)
            && entry["job"].as_i64() == row.get(3)?;
        if !agrees {
            return Ok(Some(format!("audit entry {number} is not what its row says")));
        }
    }
    Ok(None)
}

/// Ended jobs whose receipt, or whose entry in the log, is another's or says otherwise.
fn ends(conn: &Connection) -> Result<Option<String>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT jobs.*, a.kind AS a_kind, a.job AS a_job, a.entry AS a_entry, lower(hex(a.leaf)) AS a_leaf, \
         (SELECT max(number) FROM audit) AS last, artifacts.list AS a_list \
         FROM jobs LEFT JOIN audit AS a ON a.number = jobs.audit_entry \
         LEFT JOIN artifacts ON artifacts.row = jobs.row \
         WHERE jobs.state IN ('completed', 'failed') ORDER BY jobs.row",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(what) = end(row)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

/// What is wrong with the end of one job.
fn end(row: &Row<'_>) -> Result<Option<String>, StoreError> {
    let job = format!("job {} (row {})", row.get::<_, String>("job_id")?, row.get::<_, i64>("row")?);
    let Some(number) = row.get::<_, Option<i64>>("audit_entry")? else {
        return Ok(Some(format!("{job} has ended without a receipt")));
    };
    let Some(entry) = row.get::<_, Option<Vec<u8>>>("a_entry")? else {
        let last = row.get::<_, Option<i64>>("last")?.map_or("nowhere".to_owned(), |last| last.to_string());
        return Ok(Some(format!(
            "the receipt of {job} names audit entry {number}, and the log ends at {last}"
        )));
    };
    let same = |a: &str, b: &str| -> rusqlite::Result<bool> {
        Ok(row.get::<_, Option<String>>(a)? == row.get::<_, Option<String>>(b)?)
    };
    let its_own = row.get::<_, String>("a_kind")? == "job.ended"
        && row.get::<_, Option<i64>>("a_job")? == Some(row.get("row")?)
        && same("audit_sha256", "a_leaf")?;
    if !its_own {
        return Ok(Some(format!("the receipt of {job} is not that of audit entry {number}, its end")));
    }
    let entry: Value = serde_json::from_slice(&entry).unwrap_or_default();
    for (column, key) in [
        ("controller_id", "controller_id"),
        ("job_id", "job_id"),
        ("payload_sha256", "payload_sha256"),
        ("state", "status"),
        ("reason", "reason"),
        ("image", "image"),
        ("stdout_sha256", "stdout_sha256"),
        ("stderr_sha256", "stderr_sha256"),
    ] {
        if row.get::<_, Option<String>>(column)?.as_deref() != entry[key].as_str() {
            return Ok(Some(differs(&job, column, number)));
        }
    }
    for column in
        ["exit_code", "signal", "accepted_at", "started_at", "ended_at", "stdout_bytes", "stderr_bytes"]
    {
        if row.get::<_, Option<i64>>(column)? != entry[column].as_i64() {
            return Ok(Some(differs(&job, column, number)));
        }
    }
    // Retention removes the list, and leaves its hash in the log.
    let list = row.get::<_, Option<String>>("a_list")?.map(|list| hex::encode(Sha256::digest(list)));
    let purged = row.get::<_, Option<i64>>("purged_at")?.is_some();
    if list.as_deref() != entry["artifacts_sha256"].as_str() && (list.is_some() || !purged) {
        return Ok(Some(differs(&job, "list of artifacts", number)));
    }
    Ok(None)
}

fn differs(job: &str, column: &str, number: i64) -> String {
    format!("{job} has another {column} than audit entry {number}, its end")
}

/// Ends in the log of jobs that have not ended, or have ended otherwise.
fn unended(conn: &Connection) -> Result<Option<String>, StoreError> {
    first(
        conn,
        "SELECT 'audit entry ' || a.number || ' is the end of job ' || jobs.job_id || ' (row ' || jobs.row || \
         '), which has another or none: it is ' || jobs.state FROM audit AS a JOIN jobs ON jobs.row = a.job \
         WHERE a.kind = 'job.ended' \
         AND (jobs.audit_entry IS NOT a.number OR jobs.state NOT IN ('completed', 'failed')) \
         ORDER BY a.number LIMIT 1",
    )
}

/// Jobs that the log does not know.
fn unaccepted(conn: &Connection) -> Result<Option<String>, StoreError> {
    first(
        conn,
        "SELECT 'no audit entry says how job ' || job_id || ' (row ' || row || ') came' FROM jobs \
         WHERE NOT EXISTS (SELECT 1 FROM audit WHERE audit.job = jobs.row AND audit.kind = \
         CASE jobs.state WHEN 'rejected' THEN 'job.rejected' ELSE 'job.accepted' END) ORDER BY row LIMIT 1",
    )
}

/// Accepted jobs in the log that are neither there nor among those that retention deleted.
fn vanished(conn: &Connection) -> Result<Option<String>, StoreError> {
    first(
        conn,
        "SELECT 'audit entry ' || a.number || ' accepted a job (row ' || a.job || ') that is not there any more' \
         FROM audit AS a LEFT JOIN jobs ON jobs.row = a.job LEFT JOIN spent ON spent.job = a.job \
         WHERE a.kind = 'job.accepted' AND jobs.row IS NULL AND spent.job IS NULL ORDER BY a.number LIMIT 1",
    )
}

fn first(conn: &Connection, sql: &str) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row(sql, [], |row| row.get(0)).optional()?)
}
