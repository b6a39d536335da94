//! The schema's versions. Append-only: a released migration never changes.

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::StoreError;

/// `PRAGMA application_id` of our files: "QCMD".
pub(super) const APPLICATION_ID: i64 = 0x5143_4d44;

/// Name and statements of every version, in order.
pub(super) const STEPS: &[(&str, &str)] = &[
    ("0001_initial.sql", include_str!("../../migrations/0001_initial.sql")),
    ("0002_unverified.sql", include_str!("../../migrations/0002_unverified.sql")),
    ("0003_usage.sql", include_str!("../../migrations/0003_usage.sql")),
    ("0004_tokens.sql", include_str!("../../migrations/0004_tokens.sql")),
    ("0005_artifacts.sql", include_str!("../../migrations/0005_artifacts.sql")),
    ("0006_fewer_indexes.sql", include_str!("../../migrations/0006_fewer_indexes.sql")),
    ("0007_key_print.sql", include_str!("../../migrations/0007_key_print.sql")),
];

/// The version that this program writes.
pub(super) fn latest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// The version of a database; 0 if it has none of our tables yet.
pub(super) fn version(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Refuses a file of a newer agent or of another program.
pub(super) fn check(conn: &Connection, file: &str) -> Result<(), StoreError> {
    let found = version(conn)?;
    let id: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if objects > 0 && id != APPLICATION_ID {
        return Err(StoreError::Foreign { file: file.to_owned() });
    }
    if found > latest() {
        return Err(StoreError::NewerSchema { file: file.to_owned(), found, known: latest() });
    }
    Ok(())
}

/// Brings the database to the latest version; each step is one transaction.
pub(super) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    let steps = STEPS.iter().map(|(_, sql)| M::up(sql)).collect();
    Migrations::new(steps).to_latest(conn).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
        other => StoreError::Internal(format!("a migration failed: {other}")),
    })
}
