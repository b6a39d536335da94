//! A backup takes the place of the database, while no agent runs.
//!
//! What was not over when the backup was made may have run since: nobody can know, so it ends as `lost`
//! and is not run again. Row numbers go on behind those whose output is on the disk, or a new job would find the
//! output of another.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{
    Lock, Store, StoreError, Verified,
    jobs::{self, End, State},
    verify,
};
use crate::{base::clock::Timestamp, wire::Reason};

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What was found in the backup.
    pub verified: Verified,
    /// Where the database that was there is now; `None` if there was none.
    pub kept: Option<PathBuf>,
    /// Jobs that were not over in the backup, and now are, as lost.
    pub lost: usize,
}

/// What is on the disk of one stream of a job that was not over in the backup; by default nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The start of it, as the result shows it.
    pub text: String,
    pub bytes: u64,
    /// In hex.
    pub sha256: String,
}

impl Default for Left {
    fn default() -> Left {
        Left { text: String::new(), bytes: 0, sha256: jobs::EMPTY_SHA256.to_owned() }
    }
}

/// Puts a copy of `from` in the place of `database`, and keeps what was there under another name. A crash in the
/// middle leaves the one or the other whole. `last_row`: the highest row number that output on the disk has;
/// `left`: what is there of a row's stdout and stderr, which the record is then to speak of, too.
///
/// # Errors
/// `InUse` while an agent runs; `BadBackup` and `NewerSchema` of the backup, which then is not used;
/// `NoBackup` if it can't be read; `NotWritable` and `Unavailable` of the disk.
pub async fn restore(
    from: &Path,
    database: &Path,
    last_row: i64,
    now: Timestamp,
    left: impl AsyncFn(i64) -> [Left; 2],
) -> Result<Restored, StoreError> {
    let _lock = Lock::take(database)?;
    if fs::metadata(beside(from, "-wal")).is_ok_and(|log| log.len() > 0) {
        return Err(bad(from, "a log lies beside it: it is a database in use, not a backup"));
    }
    // Numbers go on behind those of what is replaced, too: a job of it that has no output yet may be looked for again, when
    // it is restored itself.
    let last_row = last_row.max(sequence(database));
    let fresh = beside(database, ".restoring");
    remove_all(&fresh).map_err(|error| failed(&fresh, &error))?;
    copy(from, &fresh)?;
    let prepared = async {
        let verified = verify(&fresh)?;
        let lost = prepare(&fresh, last_row, now, left).await?;
        Ok::<_, StoreError>((verified, lost))
    };
    let (verified, lost) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => {
            let _ = remove_all(&fresh);
            return Err(named(error, from));
        }
    };
    settle(database);
    let kept = exchange(&fresh, database, now).map_err(|error| failed(database, &error))?;
    remove_all(&fresh).map_err(|error| failed(&fresh, &error))?;
    Ok(Restored { verified, kept, lost })
}

/// Ends what was not over, and moves the row numbers on; the file is closed afterwards.
async fn prepare(
    fresh: &Path,
    last_row: i64,
    now: Timestamp,
    left: impl AsyncFn(i64) -> [Left; 2],
) -> Result<usize, StoreError> {
    let store = Store::open(fresh)?;
    let mut ends = Vec::new();
    for row in store.read(jobs::unfinished_rows).await? {
        let why = "the record was restored from a backup that was made before the job's end; what became of it is not \
                   known, and it is not run again";
        let [stdout, stderr] = left(row).await;
        let end = End {
            stdout: stdout.text,
            stderr: stderr.text,
            stdout_bytes: stdout.bytes,
            stderr_bytes: stderr.bytes,
            stdout_sha256: stdout.sha256,
            stderr_sha256: stderr.sha256,
            ..End::without_output(Reason::Lost, now, Some(why.to_owned()))
        };
        ends.push((row, end));
    }
    let lost = ends.len();
    store
        .write(move |tx| {
            for (row, end) in &ends {
                jobs::finish(tx, *row, State::UNFINISHED, end)?;
            }
            tx.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'jobs'", [last_row])?;
            tx.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'jobs', ? \
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'jobs')",
                [last_row],
            )?;
            Ok(())
        })
        .await?;
    store.close().await?;
    Ok(lost)
}

/// The last row number that a database has given to a job; 0 where that can't be read, or there is none.
fn sequence(database: &Path) -> i64 {
    // With its log, in which the last ones may be.
    Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|old| {
            old.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'", [], |row| row.get(0))
        })
        .unwrap_or(0)
}

/// The old file gets a second name, then the new one its first: there is a database at any moment. What may fail comes
/// before anything is moved.
fn exchange(fresh: &Path, database: &Path, now: Timestamp) -> io::Result<Option<PathBuf>> {
    let kept = beside(database, &format!(".before-restore-{}", now.secs()));
    let there = database.exists();
    if there {
        let owner = fs::metadata(database)?;
        std::os::unix::fs::chown(fresh, Some(owner.uid()), Some(owner.gid()))?;
        fs::hard_link(database, &kept)?;
    }
    // A log that could not be settled belongs to the old one: SQLite must not apply it to the new. It goes where the old
    // one has its second name already, so that both are whole there after a crash at this point.
    let moved = move_logs(database, &kept).and_then(|()| fs::rename(fresh, database));
    if let Err(error) = moved {
        if there {
            move_logs(&kept, database)?;
            fs::remove_file(&kept)?;
        }
        return Err(error);
    }
    File::open(folder(database))?.sync_all()?;
    Ok(there.then_some(kept))
}

/// Moves what a crash left in the old one's log into its file, so that the file alone has all of it. A damaged one
/// stays as it is: its log is kept beside it.
fn settle(database: &Path) {
    let log = beside(database, "-wal");
    if fs::metadata(&log).is_ok_and(|log| log.len() > 0)
        && let Err(error) = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .and_then(|old| old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    {
        tracing::warn!(file = %database.display(), %error, "the old database's log stays beside it");
    }
}

fn move_logs(from: &Path, to: &Path) -> io::Result<()> {
    for log in ["-wal", "-shm"] {
        match fs::rename(beside(from, log), beside(to, log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let unreadable = |error: io::Error| StoreError::NoBackup {
        file: from.display().to_string(),
        detail: error.to_string(),
    };
    let mut source = File::open(from).map_err(unreadable)?;
    if source.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let mut write = || {
        let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(&mut source, &mut target)?;
        target.sync_all()
    };
    write().map_err(|error| {
        let _ = remove_all(to);
        failed(to, &error)
    })
}

/// A database's file with its helpers.
fn remove_all(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        match fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::NotWritable { file: path.display().to_string(), detail: error.to_string() }
}

/// The copy's faults are the backup's. What to do about a database of the agent's own is no help here: to restore from
/// a backup is what is being tried.
fn named(error: StoreError, from: &Path) -> StoreError {
    match error {
        StoreError::Corrupt { detail, .. } => bad(from, &format!("it is damaged or no database ({detail})")),
        StoreError::Foreign { .. } => bad(from, "it is a database of another program"),
        StoreError::NewerSchema { found, known, .. } => {
            StoreError::NewerSchema { file: from.display().to_string(), found, known }
        }
        other => other,
    }
}

fn bad(from: &Path, detail: &str) -> StoreError {
    StoreError::BadBackup { file: from.display().to_string(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::jobs::tests::{accept, new_job, store};

    async fn nothing(_: i64) -> [Left; 2] {
        [Left::default(), Left::default()]
    }

    /// A folder with a backup of an empty database, and a database with one job, all of it in the log, as a crash
    /// leaves it.
    async fn crashed() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let (folder, running) = store();
        let backup = folder.path().join("backup.db");
        running.backup(&backup).await.unwrap();
        running.write(|tx| accept(tx, &new_job("alice", "last"))).await.unwrap();
        let database = folder.path().join("crashed.db");
        fs::copy(running.path(), &database).unwrap();
        fs::copy(beside(running.path(), "-wal"), beside(&database, "-wal")).unwrap();
        (folder, backup, database)
    }

    #[tokio::test]
    async fn what_is_only_in_the_old_log_is_kept_in_the_file() {
        let (_folder, backup, database) = crashed().await;
        let restored = restore(&backup, &database, 0, Timestamp::from_secs(1), nothing).await.unwrap();
        let kept = restored.kept.unwrap();
        let _ = fs::remove_file(beside(&kept, "-wal"));
        assert_eq!(verify(&kept).unwrap().jobs, 1);
        assert_eq!(verify(&database).unwrap().jobs, 0);
    }

    #[tokio::test]
    async fn a_restore_that_fails_leaves_the_old_one_as_it_was() {
        let (_folder, backup, database) = crashed().await;
        // The second name is taken.
        let taken = beside(&database, ".before-restore-1");
        fs::write(&taken, "").unwrap();
        restore(&backup, &database, 0, Timestamp::from_secs(1), nothing).await.unwrap_err();
        assert_eq!(verify(&database).unwrap().jobs, 1);
        assert_eq!(fs::read(&taken).unwrap(), b"");
    }

    #[tokio::test]
    async fn what_is_no_backup_is_named_with_a_way_on_and_changes_nothing() {
        let (folder, _, database) = crashed().await;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("text"), "a text that is no database ".repeat(400)).unwrap();
        fs::write(at("empty"), "").unwrap();
        Connection::open(at("other")).unwrap().execute_batch("CREATE TABLE x (y)").unwrap();
        fs::write(at("in-use"), "").unwrap();
        fs::write(at("in-use-wal"), "log").unwrap();
        for name in ["text", "empty", "other", "in-use"] {
            let error = restore(&at(name), &database, 0, Timestamp::from_secs(1), nothing).await.unwrap_err();
            assert!(matches!(error, StoreError::BadBackup { .. }), "{name}: {error:?}");
            let said = error.to_string();
            assert!(said.contains(&format!("{} can't be restored from", at(name).display())), "{said}");
            assert!(said.contains("quickcmd-agent backup") && !said.contains("restore --from"), "{said}");
        }
        for path in [at("none"), folder.path().to_owned()] {
            let error = restore(&path, &database, 0, Timestamp::from_secs(1), nothing).await.unwrap_err();
            assert!(matches!(&error, StoreError::NoBackup { .. }), "{error:?}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        assert_eq!(verify(&database).unwrap().jobs, 1);
        assert!(!beside(&database, ".restoring").exists());
    }

    #[tokio::test]
    async fn row_numbers_go_on_behind_what_is_replaced() {
        let (_folder, backup, database) = crashed().await;
        // Of the one job there is no output, and its row is in the log only.
        restore(&backup, &database, 0, Timestamp::from_secs(1), nothing).await.unwrap();
        assert_eq!(sequence(&database), 1);
        let restored = Store::open(&database).unwrap();
        let row = restored.write(|tx| accept(tx, &new_job("alice", "next"))).await.unwrap();
        assert_eq!(row, 2);
    }

    #[test]
    fn a_log_that_could_not_be_settled_comes_back_when_the_exchange_fails() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("audit.db");
        fs::write(&database, "old").unwrap();
        fs::write(beside(&database, "-wal"), "log").unwrap();
        // A folder can't take a file's name.
        let fresh = beside(&database, ".restoring");
        fs::create_dir(&fresh).unwrap();
        exchange(&fresh, &database, Timestamp::from_secs(1)).unwrap_err();
        assert_eq!(fs::read(&database).unwrap(), b"old");
        assert_eq!(fs::read(beside(&database, "-wal")).unwrap(), b"log");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "and nothing is left over");
    }
}
