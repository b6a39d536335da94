//! Copies of the running database, the check of a file, and the look at one from outside of the agent.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, backup::Backup, backup::StepResult};

use super::{Store, StoreError, open, schema};
use crate::audit::leaf_hash;

/// What [`verify`] found in a sound file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Version of the schema.
    pub schema: i64,
    pub jobs: u64,
    pub audit_entries: u64,
}

impl Store {
    /// Copies the database, as it is at one moment, to a new file of mode 0600. Writers are not held up.
    /// The file appears under its name only when it is whole.
    ///
    /// # Errors
    /// `NotWritable` if there is such a file already or it can't be written; those of the database.
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<(), StoreError> {
        let to = to.into();
        self.read(move |conn| copy(conn, &to)).await
    }
}

/// Copies a database from outside of the agent, which may be running: see [`Store::backup`]. Blocks.
///
/// # Errors
/// As [`Store::backup`]; `Foreign` and `NewerSchema` of the file that is to be copied.
pub fn backup(path: &Path, to: &Path) -> Result<(), StoreError> {
    look(path, |conn| copy(conn, to))
}

/// Runs a closure on a read-only connection of its own, in one read transaction; the agent may be running. Blocks.
///
/// # Errors
/// The closure's own; `Foreign`, `NewerSchema`; `Unavailable` if there is no such file.
pub fn look<T>(
    path: &Path,
    closure: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let read = || {
        if !path.exists() {
            return Err(StoreError::Unavailable { detail: format!("{} does not exist", path.display()) });
        }
        let conn = open::read_only(path)?;
        schema::check(&conn, &path.display().to_string())?;
        conn.execute_batch("BEGIN")?;
        closure(&conn)
    };
    read().map_err(|error| error.at(path))
}

fn copy(from: &Connection, to: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::NotWritable {
        file: to.display().to_string(),
        detail: error.to_string(),
    };
    if to.exists() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .map_err(failed)?;
    let copied = (|| -> Result<(), StoreError> {
        let mut target = Connection::open(&partial)?;
        // All pages in one step: the read transaction it takes keeps the copy of one moment.
        let step = Backup::new(from, &mut target)?.step(-1)?;
        if step != StepResult::Done {
            return Err(StoreError::Unavailable { detail: format!("the copy was held up: {step:?}") });
        }
        target.close().map_err(|(_, error)| error)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&partial, to).map_err(failed)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    })();
    if copied.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    copied
}

/// Checks a database file: its structure, its references, the schema's version, and the leaf hash and
/// order of every audit entry. Reads everything; the agent may be running. Blocks.
///
/// # Errors
/// `Corrupt` names what is wrong; `Foreign`, `NewerSchema`.
pub fn verify(path: &Path) -> Result<Verified, StoreError> {
    let file = path.display().to_string();
    let corrupt = |detail: String| StoreError::Corrupt { file: file.clone(), detail };
    let check = || -> Result<Verified, StoreError> {
        let conn = open::read_only(path)?;
        schema::check(&conn, &file)?;
        let verdict: String = conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(corrupt(verdict));
        }
        if conn.prepare("PRAGMA foreign_key_check")?.exists([])? {
            return Err(corrupt("a row belongs to a job that is not there".to_owned()));
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
        Ok(Verified {
            schema: schema::version(&conn)?,
            jobs: u64::try_from(jobs).unwrap_or(0),
            audit_entries,
        })
    };
    check().map_err(|error| error.at(path))
}
