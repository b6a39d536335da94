//! One agent a database: an advisory lock on a file beside it, which the kernel gives back when the
//! process ends, however it ends.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// The held lock: while it lives no agent can open the database.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says that another process has it.
    ///
    /// # Errors
    /// `InUse`; `NotWritable` if the lock's file can't be made.
    pub fn take(database: &Path) -> Result<Lock, StoreError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| not_writable(database, &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(StoreError::InUse { file: database.display().to_string() })
            }
            Err(error) => Err(not_writable(database, &error.into())),
        }
    }
}

pub(super) fn not_writable(database: &Path, error: &std::io::Error) -> StoreError {
    StoreError::NotWritable { file: database.display().to_string(), detail: error.to_string() }
}
