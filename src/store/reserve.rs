//! Disk that is the record's alone. Whatever fills the rest, the ends of running jobs still find their place: SQLite
//! appends them to its log, and the log has blocks beyond its end, however long it is.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Bytes that are kept beyond the log's end. SQLite begins it anew once it has some 4 MiB; while the database itself can't
/// grow, or somebody reads in it for long, it goes on to the end of this: some hundreds of ends.
const LOG: u64 = 16 << 20;
/// Bytes that are claimed beyond that.
const MORE: u64 = 1 << 20;

/// Keeps the log's blocks.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    log: Option<File>,
    /// The file system can't do it.
    impossible: bool,
}

impl Reserve {
    /// For the database of that path.
    pub(super) fn new(database: &Path) -> Reserve {
        let mut path = OsString::from(database);
        path.push("-wal");
        Reserve { path: path.into(), log: None, impossible: false }
    }

    /// Claims what is missing. Called after every commit: where nothing is, it costs one look at the file. On a disk that
    /// is full already, there is nothing to claim, and the next call tries again.
    pub(super) fn keep(&mut self) {
        if self.impossible {
            return;
        }
        if self.log.is_none() {
            // SQLite makes it with the first change, and it stays while anybody has the database open.
            self.log = OpenOptions::new().write(true).open(&self.path).ok();
        }
        let Some(log) = &self.log else { return };
        let Ok(about) = log.metadata() else { return };
        let wanted = about.len() + LOG;
        if about.blocks() * 512 >= wanted {
            return;
        }
        // A little more, so that a log that grows does not ask with every commit.
        let claim = |bytes| fallocate(log, FallocateFlags::KEEP_SIZE, 0, bytes);
        match claim(wanted + MORE).or_else(|_| claim(wanted)) {
            Ok(()) | Err(Errno::NOSPC | Errno::DQUOT | Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(
                    file = %self.path.display(),
                    %error,
                    "no disk can be set aside for the record: on a full one the ends of jobs wait until there is space"
                );
                self.impossible = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// Waits until the log has the reserve; how long it is. It comes after the answer.
    async fn claimed(log: &Path) -> u64 {
        for _ in 0..1500 {
            let about = log.metadata().unwrap();
            if about.blocks() * 512 >= about.len() + LOG {
                return about.len();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("{:?}", log.metadata().unwrap());
    }

    async fn change(store: &Store) {
        store.write(|tx| Ok(tx.execute_batch("CREATE TABLE t (a); DROP TABLE t")?)).await.unwrap();
    }

    #[tokio::test]
    async fn the_log_has_more_disk_than_it_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("db")).unwrap();
        let log = folder.path().join("db-wal");
        change(&store).await;
        let long = claimed(&log).await;
        assert!(long < LOG / 2, "{long} bytes");
        // Another takes it away; the next commit claims it again.
        OpenOptions::new().write(true).open(&log).unwrap().set_len(long).unwrap();
        change(&store).await;
        claimed(&log).await;
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_log_that_has_grown_beyond_the_reserve_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("db")).unwrap();
        let log = folder.path().join("db-wal");
        change(&store).await;
        claimed(&log).await;
        store
            .write(|tx| {
                tx.execute_batch("CREATE TABLE large (a)")?;
                tx.execute("INSERT INTO large VALUES (zeroblob(?1))", [2 << 24])?;
                Ok(())
            })
            .await
            .unwrap();
        let long = claimed(&log).await;
        assert!(long > 2 * LOG, "{long} bytes");
        store.close().await.unwrap();
    }
}
