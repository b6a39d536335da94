//! Reading a spool without ever holding up the runtime, and what is wrong with a damaged one.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::{Errno, ReadWriteFlags};

use crate::base::clock::Timestamp;

/// A spool holds what no supervisor writes. Travels inside an [`io::Error`] of kind
/// [`io::ErrorKind::InvalidData`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the spool {} is damaged at byte {at}: {what}; output from there on is lost", file.display())]
pub struct Corrupt {
    pub file: PathBuf,
    /// Where in the file.
    pub at: u64,
    /// What is wrong there.
    pub what: String,
}

impl Corrupt {
    /// The damage that this error is about, if it is about damage.
    pub fn of(error: &io::Error) -> Option<&Corrupt> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Corrupt> for io::Error {
    fn from(corrupt: Corrupt) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, corrupt)
    }
}

/// Up to `len` bytes from `at`; fewer only where the file ends. From the page cache on this thread, from
/// the disk on a thread that may wait.
pub(super) async fn read_at(file: &Arc<File>, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let rest = &mut [IoSliceMut::new(&mut bytes[filled..])];
        match rustix::io::preadv2(file, rest, at + filled as u64, ReadWriteFlags::NOWAIT) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(Errno::INTR) => {}
            // Not cached; or a file system that can't tell (then it may be slow, so the same).
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let file = Arc::clone(file);
                return tokio::task::spawn_blocking(move || {
                    let filled = read_waiting(&file, &mut bytes, filled, at)?;
                    bytes.truncate(filled);
                    Ok(bytes)
                })
                .await
                .map_err(io::Error::other)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Fills the rest of `bytes`, waiting for the disk; how much is filled then.
fn read_waiting(file: &File, bytes: &mut [u8], mut filled: usize, at: u64) -> io::Result<usize> {
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// A file's time as ours; the epoch for times before it.
pub(super) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_nanos().try_into().unwrap_or(i64::MAX))
}
