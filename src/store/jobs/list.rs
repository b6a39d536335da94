//! Pages of jobs, newest first. Every combination of filters has an index that yields its rows in
//! order, so a page costs the same whatever the history. What has not ended is found by its state: a page of one
//! controller's waiting jobs looks at those of others, too, of which there are no more than the queue holds.

use std::fmt;

use rusqlite::{Connection, ToSql};

use super::{Job, State};
use crate::{
    base::clock::Timestamp,
    store::StoreError,
    wire::{Code, Reason, Status, result::JobRow},
};

/// Rows of a page at most.
const LONGEST_PAGE: u32 = 1000;

/// Which jobs to list; what is absent does not filter.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    pub controller: Option<String>,
    pub status: Option<Status>,
    /// Why it ended, or the code of its refusal.
    pub reason: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// Rows of the page; 1 to 1,000, and cut to that.
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// The place of a row in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at: i64,
    row: i64,
}

impl Cursor {
    /// From the text that a page gave; `None` if no page gives such a text.
    pub fn parse(text: &str) -> Option<Cursor> {
        let (at, row) = text.split_once('.')?;
        let cursor = Cursor { at: at.parse().ok()?, row: row.parse().ok()? };
        (cursor.to_string() == text).then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at, self.row)
    }
}

/// One page, and the cursor of the next one; `None` on the last.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &Connection, filter: &ListFilter) -> Result<(Vec<JobRow>, Option<Cursor>), StoreError> {
    let mut status = filter.status;
    if let (Some(wanted), Some(reason)) = (status, filter.reason.as_deref()) {
        // A reason belongs to one status: asking for both is the one, or nothing.
        if status_of(reason) != Some(wanted) {
            return Ok((Vec::new(), None));
        }
        status = None;
    }
    let limit = filter.limit.clamp(1, LONGEST_PAGE);
    let (sql, values) = statement(filter, status, limit);
    let params: Vec<&dyn ToSql> = values.iter().map(|value| &**value).collect();
    let mut statement = conn.prepare_cached(&sql)?;
    let mut jobs = statement
        .query_map(&params[..], |row| {
            let state: State = row.get("state")?;
            let cursor = Cursor { at: row.get("accepted_at")?, row: row.get("row")? };
            let job = JobRow {
                job_id: row.get("job_id")?,
                controller_id: row.get("controller_id")?,
                status: state.status(),
                reason: row.get("reason")?,
                exit_code: row.get("exit_code")?,
                command: row.get::<_, Option<String>>("command")?.unwrap_or_default(),
                created_at: Timestamp(cursor.at).rfc3339(),
                ended_at: row.get::<_, Option<i64>>("ended_at")?.map(|at| Timestamp(at).rfc3339()),
                duration_ms: row
                    .get::<_, Option<i64>>("duration_ms")?
                    .and_then(|milliseconds| u64::try_from(milliseconds).ok()),
            };
            Ok((job, cursor))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let next = if more { jobs.last().map(|(_, cursor)| *cursor) } else { None };
    Ok((jobs.into_iter().map(|(job, _)| job).collect(), next))
}

/// The statement for a filter. One more row than the page tells whether there is a next one.
pub(super) fn statement(
    filter: &ListFilter,
    status: Option<Status>,
    limit: u32,
) -> (String, Vec<Box<dyn ToSql>>) {
    let index = match (&filter.controller, status, &filter.reason) {
        (None, None, None) => "jobs_by_time",
        (_, Some(Status::Pending | Status::Running), _) => "jobs_unfinished",
        (None, Some(_), _) => "jobs_by_status",
        (None, None, Some(_)) => "jobs_by_reason",
        (Some(_), None, None) => "jobs_by_controller",
        (Some(_), Some(_), _) => "jobs_by_controller_status",
        (Some(_), None, Some(_)) => "jobs_by_controller_reason",
    };
    let mut sql = format!(
        "SELECT jobs.*, substr(texts.command, 1, 4096) AS command FROM jobs INDEXED BY {index} \
         LEFT JOIN texts ON texts.row = jobs.row WHERE true"
    );
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut term = |text: &str, value: Box<dyn ToSql>| {
        sql.push_str(text);
        values.push(value);
    };
    if let Some(controller) = &filter.controller {
        term(" AND jobs.controller_id = ?", Box::new(controller.clone()));
    }
    // Each names its partial index by the terms of that one.
    if let Some(Status::Pending) = status {
        term(" AND jobs.ended_at IS NULL AND jobs.state = ?", Box::new(State::Queued));
    } else if let Some(Status::Running) = status {
        term(" AND jobs.ended_at IS NULL AND jobs.state IN (?", Box::new(State::Starting));
        term(", ?)", Box::new(State::Running));
    } else if let Some(status) = status {
        term(" AND jobs.ended_at IS NOT NULL AND jobs.status = ?", Box::new(status.as_str()));
    } else if let Some(reason) = &filter.reason {
        term(" AND jobs.reason = ?", Box::new(reason.clone()));
    }
    if let Some(since) = filter.since {
        term(" AND jobs.accepted_at >= ?", Box::new(since.0));
    }
    if let Some(until) = filter.until {
        term(" AND jobs.accepted_at < ?", Box::new(until.0));
    }
    if let Some(cursor) = filter.cursor {
        term(" AND (jobs.accepted_at, jobs.row) < (?", Box::new(cursor.at));
        term(", ?)", Box::new(cursor.row));
    }
    term(" ORDER BY jobs.accepted_at DESC, jobs.row DESC LIMIT ?", Box::new(i64::from(limit) + 1));
    (sql, values)
}

/// The status of the jobs that have that reason or code.
fn status_of(reason: &str) -> Option<Status> {
    match Reason::parse(reason) {
        Some(reason) => Some(reason.status()),
        None => Code::parse(reason).map(|_| Status::Rejected),
    }
}

impl From<&Job> for Cursor {
    fn from(job: &Job) -> Cursor {
        Cursor { at: job.accepted_at.0, row: job.row }
    }
}
