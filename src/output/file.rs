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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cached_or_waited_for_the_bytes_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let whole: Vec<u8> = (0..100).collect();
        std::fs::write(&path, &whole).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        assert_eq!(read_at(&file, 10, 20).await.unwrap(), whole[10..30]);
        assert_eq!(read_at(&file, 90, 20).await.unwrap(), whole[90..]);
        assert!(read_at(&file, 200, 20).await.unwrap().is_empty());
        // As it goes on after a part was cached.
        let mut bytes = whole[10..15].to_vec();
        bytes.resize(20, 0);
        assert_eq!(read_waiting(&file, &mut bytes, 5, 10).unwrap(), 20);
        assert_eq!(bytes, whole[10..30]);
        // A file system that does not say what it has cached.
        let file = Arc::new(File::open("/proc/version").unwrap());
        let version = std::fs::read("/proc/version").unwrap();
        assert_eq!(read_at(&file, 3, 4096).await.unwrap(), version[3..]);
    }
}
