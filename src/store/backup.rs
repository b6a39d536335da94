//! Copies of the running database, and the look at one from outside of the agent.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, backup::Backup, backup::StepResult};

use super::{Store, StoreError, Verified, open, schema, verify};

impl Store {
    /// Copies the database, as it is at one moment, to a new file of mode 0600. Writers are not held up.
    /// The file appears under its name only when it is whole, and was checked from end to end.
    ///
    /// # Errors
    /// `Exists` if there is such a file already, `NoCopy` if it can't be written; `Corrupt` if what was copied is
    /// damaged; those of the database.
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<Verified, StoreError> {
        let to = to.into();
        self.read(move |conn| copy(conn, &to)).await
    }
}

/// Copies a database from outside of the agent, which may be running: see [`Store::backup`]. Blocks.
///
/// # Errors
/// As [`Store::backup`]; `Foreign` and `NewerSchema` of the file that is to be copied.
pub fn backup(path: &Path, to: &Path) -> Result<Verified, StoreError> {
    look(path, |conn| copy(conn, to))
}

/// Runs a closure on a read-only connection of its own, in one read transaction; the agent may be running. Blocks.
///
/// # Errors
/// The closure's own; `Foreign`, `NewerSchema`; `Missing` if there is no such file.
pub fn look<T>(
    path: &Path,
    closure: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let read = || {
        if !path.exists() {
            return Err(StoreError::Missing { file: path.display().to_string() });
        }
        let conn = open::read_only(path)?;
        schema::check(&conn, &path.display().to_string())?;
        conn.execute_batch("BEGIN")?;
        closure(&conn)
    };
    read().map_err(|error| error.at(path))
}

fn copy(from: &Connection, to: &Path) -> Result<Verified, StoreError> {
    let file = to.display().to_string();
    if to.exists() {
        return Err(StoreError::Exists { file });
    }
    let failed = |error: std::io::Error| StoreError::NoCopy { file: file.clone(), detail: error.to_string() };
    let partial = beside(to, ".partial");
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    let copied = (|| -> Result<Verified, StoreError> {
        fill(from, &partial).map_err(|error| match error {
            StoreError::Unavailable { detail } => StoreError::NoCopy { file: file.clone(), detail },
            other => other,
        })?;
        made.sync_all().map_err(failed)?;
        // What is wrong with the copy is wrong with what was copied.
        let verified = verify::verify(&partial).map_err(|error| match error {
            StoreError::Corrupt { detail, .. } => StoreError::Corrupt { file: String::new(), detail },
            other => other,
        })?;
        std::fs::rename(&partial, to).map_err(failed)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| {
            let _ = std::fs::remove_file(to);
            failed(error)
        })?;
        Ok(verified)
    })();
    if copied.is_err() {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&partial, suffix));
        }
    }
    copied
}

fn fill(from: &Connection, partial: &Path) -> Result<(), StoreError> {
    let mut target = Connection::open(partial)?;
    // All pages in one step: the read transaction it takes keeps the copy of one moment.
    let step = Backup::new(from, &mut target)?.step(-1)?;
    if step != StepResult::Done {
        return Err(StoreError::Unavailable { detail: format!("the copy was held up: {step:?}") });
    }
    // The copy is one file: to read a database that says it has a log makes one, and leaves it there.
    target.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
