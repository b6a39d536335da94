//! What the jobs of each controller have used on each day of UTC: added in the transaction of a job's end, so that
//! it is counted once.

use rusqlite::{Connection, params};

use crate::store::{StoreError, Tx, int};

/// One controller's day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Days since 1970-01-01.
    pub day: i64,
    pub controller_id: String,
    pub cpu_ms: u64,
    pub output_bytes: u64,
}

/// Adds to a controller's day.
///
/// # Errors
/// Those of the database, as for all functions here.
pub fn add(tx: &Tx<'_>, usage: &Usage) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO usage (day, controller_id, cpu_ms, output_bytes) VALUES (?, ?, ?, ?) \
         ON CONFLICT (day, controller_id) DO UPDATE SET cpu_ms = cpu_ms + excluded.cpu_ms, \
         output_bytes = output_bytes + excluded.output_bytes",
    )?
    .execute(params![usage.day, usage.controller_id, int(usage.cpu_ms), int(usage.output_bytes)])?;
    Ok(())
}

/// What was used from a day on.
///
/// # Errors
/// See [`add`].
pub fn since(conn: &Connection, day: i64) -> Result<Vec<Usage>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT day, controller_id, cpu_ms, output_bytes FROM usage WHERE day >= ? ORDER BY day, controller_id",
    )?;
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    let rows = statement.query_map([day], |row| {
        Ok(Usage {
            day: row.get(0)?,
            controller_id: row.get(1)?,
            cpu_ms: count(row.get(2)?),
            output_bytes: count(row.get(3)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes what was used before a day, and answers how many rows that were.
///
/// # Errors
/// See [`add`].
pub fn forget(tx: &Tx<'_>, before: i64) -> Result<usize, StoreError> {
    Ok(tx.prepare_cached("DELETE FROM usage WHERE day < ?")?.execute([before])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn usage(day: i64, controller_id: &str, cpu_ms: u64, output_bytes: u64) -> Usage {
        Usage { day, controller_id: controller_id.to_owned(), cpu_ms, output_bytes }
    }

    #[tokio::test]
    async fn what_is_used_adds_up_by_day_and_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.db");
        let store = Store::open(&path).unwrap();
        for one in [usage(5, "a", 10, 1), usage(6, "a", 5, 2), usage(6, "a", 5, 2), usage(6, "b", 1, 1)] {
            store.write(move |tx| add(tx, &one)).await.unwrap();
        }
        store.close().await.unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let read = store.read(|db| since(db, 6)).await.unwrap();
        assert_eq!(read, [usage(6, "a", 10, 4), usage(6, "b", 1, 1)]);
        assert_eq!(store.write(|tx| forget(tx, 6)).await.unwrap(), 1);
        assert_eq!(store.read(|db| since(db, 0)).await.unwrap().len(), 2);
    }
}
