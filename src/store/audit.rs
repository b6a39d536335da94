//! The table of the audit log: appended to in the transaction of what it records, never changed.

use rusqlite::{Connection, params};

use crate::{
    audit::{Draft, Entry, Event},
    base::clock::Timestamp,
    store::{StoreError, Tx, int},
    wire::result::Receipt,
};

/// Appends an entry and answers where it stands.
///
/// # Errors
/// Those of the database.
pub fn append(tx: &Tx<'_>, at: Timestamp, event: &Event<'_>) -> Result<Receipt, StoreError> {
    let entry = Entry::new(tx.next_entry()?, at, event);
    insert(tx, &entry, event.job())?;
    Ok(Receipt { entry: entry.number, sha256: hex::encode(entry.leaf) })
}

/// Appends the entry of a job that was just accepted.
///
/// # Errors
/// Those of the database.
pub(super) fn append_draft(tx: &Tx<'_>, draft: &Draft, job: i64) -> Result<(), StoreError> {
    insert(tx, &draft.entry(tx.next_entry()?, job), Some(job))
}

fn insert(tx: &Tx<'_>, entry: &Entry, job: Option<i64>) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO audit (number, at, kind, job, entry, leaf) VALUES (?, ?, ?, ?, ?, ?)")?
        .execute(params![int(entry.number), entry.at.0, entry.kind, job, entry.bytes, entry.leaf])?;
    tx.entry_added();
    Ok(())
}

/// Count of entries: the size of the tree, and the number of the next one.
///
/// # Errors
/// Those of the database.
pub fn size(conn: &Connection) -> Result<u64, StoreError> {
    let last: Option<i64> =
        conn.prepare_cached("SELECT max(number) FROM audit")?.query_row([], |row| row.get(0))?;
    Ok(last.map_or(0, |last| u64::try_from(last).unwrap_or(0) + 1))
}

/// The canonical bytes of entries from a number on, in order.
///
/// # Errors
/// Those of the database.
pub fn entries(conn: &Connection, from: u64, limit: u32) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT number, entry FROM audit WHERE number >= ? ORDER BY number LIMIT ?")?;
    let rows = statement.query_map(params![int(from), limit], |row| {
        Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0), row.get(1)?))
    })?;
    Ok(rows.collect::<Result<Vec<_>, _>>()?)
}
