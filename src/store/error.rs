//! What can go wrong with the record, and what to do about it.

use std::path::Path;

use rusqlite::ErrorCode;

use super::State;

/// An error of the store. It holds no data of a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, can't be written or read, or another program holds the database: a later try may succeed.
    #[error("the database can't be used now: {detail}; free space or repair the disk, then try again")]
    Unavailable { detail: String },
    /// The file's content is damaged.
    #[error(
        "the database {file} is damaged ({detail}); with the agent stopped, put the latest backup in its place: quickcmd-agent restore --from FILE (it keeps the damaged file under another name)"
    )]
    Corrupt { file: String, detail: String },
    /// The file was written by a newer version of the agent.
    #[error(
        "the database {file} has schema version {found}, and this program knows none after {known}; install the version of the agent that wrote it, or a newer one"
    )]
    NewerSchema { file: String, found: i64, known: i64 },
    /// The file is a database of some other program.
    #[error("{file} is a database of another program; set `audit_db_path` to a file of its own")]
    Foreign { file: String },
    /// The file or its folder can't be created or written.
    #[error(
        "the database {file} can't be opened for writing: {detail}; {remedy}",
        remedy = for_folder(detail)
    )]
    NotWritable { file: String, detail: String },
    /// Another agent has the file open.
    #[error(
        "the database {file} is in use by another agent; stop that one, or give this one its own `audit_db_path`"
    )]
    InUse { file: String },
    /// There is no such database.
    #[error(
        "there is no database {file}: set `audit_db_path` to the agent's, or start the agent, which makes it"
    )]
    Missing { file: String },
    /// What the database says of jobs is not what its audit log says, or its schema was changed.
    #[error(
        "the database {file} was changed by something else than the agent: {detail}; compare it with a backup before you rely on it"
    )]
    Contradiction { file: String, detail: String },
    /// There is a file in the place of the new one.
    #[error("{file} exists already: give another name")]
    Exists { file: String },
    /// The copy could not be written.
    #[error("the copy {file} can't be written: {detail}")]
    NoCopy { file: String, detail: String },
    /// The backup can't be read.
    #[error("the backup {file} can't be read: {detail}; nothing was changed")]
    NoBackup { file: String, detail: String },
    /// The file that was to be restored from is no sound record.
    #[error(
        "{file} can't be restored from: {detail}; nothing was changed: give a file that quickcmd-agent backup has made, an older one if this is the latest"
    )]
    BadBackup { file: String, detail: String },
    /// The SQLite that was linked has known defects.
    #[error("SQLite {found} was linked, and {needed} or later is needed; build with the bundled one")]
    OldSqlite { found: &'static str, needed: &'static str },
    /// The job was not in the state that the step starts from; nothing was changed.
    #[error("job row {row} is {found}, not {expected}", found = found.map_or("missing", State::as_str))]
    Conflict {
        row: i64,
        /// The states that the step starts from, separated by commas.
        expected: String,
        /// `None`: there is no such row.
        found: Option<State>,
    },
    /// The store was closed.
    #[error("the database is closed")]
    Closed,
    /// A defect of this program: a statement or a closure failed for a reason of its own.
    #[error("internal error of the record: {0}")]
    Internal(String),
}

/// What to do about a folder that can't be written, by what the system said: its sentences are all that is left here.
fn for_folder(detail: &str) -> &'static str {
    if detail.contains("Read-only file system") {
        "mount its file system for writing, or set `audit_db_path` to a folder on another one"
    } else if detail.contains("Permission denied") {
        "give it and its folder to the user that runs the agent (chown)"
    } else if detail.contains("Not a directory") || detail.contains("Is a directory") {
        "set `audit_db_path` to a file in a folder"
    } else {
        "create its folder and give it to the user that runs the agent"
    }
}

impl StoreError {
    /// Whether the database, or the disk below it, would not do what it was told; a conflict is an answer.
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, StoreError::Conflict { .. })
    }

    /// Whether a later try of the same may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }

    /// Fills in the file's name, which the error of a statement does not know.
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            StoreError::Corrupt { file, detail } if file.is_empty() => {
                StoreError::Corrupt { file: path.display().to_string(), detail }
            }
            other => other,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        let detail = error.to_string();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory,
            ) => StoreError::Unavailable { detail },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Corrupt { file: String::new(), detail }
            }
            _ => StoreError::Internal(detail),
        }
    }
}
