//! Opening: the lock, the file and its mode, SQLite's settings, the check for damage, the migrations.

use std::{
    fs::{OpenOptions, Permissions, set_permissions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags};

use super::{
    StoreError,
    lock::{Lock, not_writable},
    schema,
    verify::in_one_line,
};
use crate::base::{disk, failpoints::planted};

/// Earlier versions can damage a database in WAL mode when a checkpoint meets a writer.
const NEEDED_SQLITE: (i32, &str) = (3_051_003, "3.51.3");
/// Files up to this size are checked at every start: it takes well under a second.
const ALWAYS_CHECKED: u64 = 64 << 20;
/// Longest time of the check at start; after it the agent goes on, and says so.
const CHECK_TIME: Duration = Duration::from_secs(3);
/// How long a statement waits for another program's lock.
const BUSY: Duration = Duration::from_secs(5);

/// The writing connection of a database that is sound and of the latest version, and the lock on it.
pub(super) fn open(path: &Path) -> Result<(Connection, Lock), StoreError> {
    if rusqlite::version_number() < NEEDED_SQLITE.0 {
        return Err(StoreError::OldSqlite { found: rusqlite::version(), needed: NEEDED_SQLITE.1 });
    }
    let file = path.display().to_string();
    if path.is_dir() {
        return Err(not_writable(path, &std::io::ErrorKind::IsADirectory.into()));
    }
    let lock = Lock::take(path)?;
    let new = !path.exists();
    // Created here, because SQLite would use the process's umask; its helper files take this file's mode.
    drop(
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| not_writable(path, &error))?,
    );
    set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| not_writable(path, &error))?;
    if new {
        // SQLite does so for the files that it makes.
        disk::sync_folder(disk::parent(path)).map_err(|error| not_writable(path, &error))?;
    }
    let size = size(path);
    // A clean stop removes the log: one that is left means that the last one was not clean.
    let unclean = size_of_log(path) > 0;

    let open = || -> Result<Connection, StoreError> {
        let mut conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(BUSY)?;
        schema::check(&conn, &file)?;
        let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::NotWritable {
                file: file.clone(),
                detail: format!("its file system does not carry a write-ahead log (mode {mode})"),
            });
        }
        settings(&conn)?;
        if size > 0 && (unclean || size <= ALWAYS_CHECKED) {
            quick_check(&conn, &file)?;
        }
        schema::migrate(&mut conn)?;
        Ok(conn)
    };
    let conn = open().map_err(|error| error.at(path))?;
    Ok((conn, lock))
}

/// Settings of the writing connection.
fn settings(conn: &Connection) -> Result<(), StoreError> {
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cell_size_check = ON;
         PRAGMA cache_size = -8192;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    if planted!("no-sync") {
        conn.execute_batch("PRAGMA synchronous = OFF;")?;
    }
    // What is deleted is overwritten with zeros: a finished job's secrets do not stay in free pages.
    conn.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// A connection that can't write.
pub(super) fn read_only(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(BUSY)?;
    conn.execute_batch(
        "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048;",
    )?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// SQLite's own check of the file's structure. It reads the whole file, so it stops after a while.
fn quick_check(conn: &Connection, file: &str) -> Result<(), StoreError> {
    let begun = Instant::now();
    conn.progress_handler(10_000, Some(move || begun.elapsed() > CHECK_TIME))?;
    let found = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    conn.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(StoreError::Corrupt { file: file.to_owned(), detail: in_one_line(&verdict) }),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            tracing::warn!(
                file,
                seconds = CHECK_TIME.as_secs(),
                "the check of the database took too long and was left; verify it while the agent is stopped"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

fn size_of_log(path: &Path) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    size(&PathBuf::from(name))
}
