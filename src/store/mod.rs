//! The record: one SQLite database with every job, every submission and the audit log. One thread
//! writes, in groups; a few read-only connections read. What `write` has answered is on the disk.
//!
//! Functions that change something take a [`Tx`]; those that only read take a `&Connection`, which a
//! `Tx` is too. `docs/record.md` explains the tables.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

pub mod audit;
pub mod backup;
mod error;
pub mod jobs;
mod lock;
mod open;
mod reserve;
pub mod restore;
pub mod retention;
mod schema;
pub mod submissions;
pub mod tokens;
pub mod usage;
mod verify;
mod writer;

pub use backup::look;
pub use error::StoreError;
pub use jobs::State;
pub use lock::Lock;
pub use verify::{Verified, verify, verify_all};
pub use writer::{Batch, OnCommit, Tx};

use writer::{Message, Repeatable, Shared, Task, Work};

/// Connections that read, and so reads at once.
const READERS: u32 = 4;

/// The open record. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    queue: Mutex<Option<mpsc::Sender<Message>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    readers: Mutex<Vec<Connection>>,
    permits: Semaphore,
    closed: AtomicBool,
}

impl Store {
    /// Opens the database, or makes it: takes the lock, checks the file, brings the schema to the latest
    /// version. Blocks; after a stop that was not clean, or with a file below 64 MiB, it reads the whole
    /// file (3 s at most).
    ///
    /// # Errors
    /// `Corrupt`, `NewerSchema`, `Foreign`, `NotWritable`, `InUse`, each naming the file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Store, StoreError> {
        let path = path.into();
        let (conn, lock) = open::open(&path)?;
        let readers = (0..READERS)
            .map(|_| open::read_only(&path))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.at(&path))?;
        let (queue, receiver) = mpsc::channel(writer::WAITING);
        let shared = Arc::new(Shared::default());
        let thread = {
            let (path, shared) = (path.clone(), shared.clone());
            std::thread::Builder::new()
                .name("store".to_owned())
                .spawn(move || writer::serve(conn, path, receiver, shared, lock))
                .map_err(|error| StoreError::Unavailable { detail: format!("no thread: {error}") })?
        };
        Ok(Store {
            inner: Arc::new(Inner {
                path,
                queue: Mutex::new(Some(queue)),
                shared,
                thread: Mutex::new(Some(thread)),
                readers: Mutex::new(readers),
                permits: Semaphore::new(READERS as usize),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Runs a closure in the writer's next transaction and answers after the commit. An error or a panic
    /// takes back this closure's changes only. Once the closure has been handed over (the first await),
    /// it runs even if this future is dropped.
    ///
    /// The closure holds up everybody's writes: it must not wait, nor call the store.
    ///
    /// # Errors
    /// The closure's own; `Unavailable` if the commit failed and was taken back.
    pub async fn write<T, F>(&self, closure: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.hand_over(Box::new(Task { closure: Some(closure), value: None, answer })).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    /// [`Store::write`] for what comes often and hardly ever fails, and costs less: the closure may be run a
    /// second time, after all that the first did was taken back.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_again<T, F>(&self, closure: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        self.hand_over(Box::new(Repeatable { closure, value: None, answer })).await?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    async fn hand_over(&self, work: Box<dyn Work>) -> Result<(), StoreError> {
        let queue = locked(&self.inner.queue).clone().ok_or(StoreError::Closed)?;
        queue.send(Message::Work(work)).await.map_err(|_| StoreError::Closed)
    }

    /// Runs a closure on a read-only connection, in one read transaction: all it sees is of one moment,
    /// and everything that `write` had answered before is in it.
    ///
    /// # Errors
    /// The closure's own; `Closed` after [`Store::close`].
    pub async fn read<T, F>(&self, closure: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let store = self.clone();
        // The permit is taken before the thread is: waiting reads use no threads.
        let permit = self.inner.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let work = tokio::task::spawn_blocking(move || store.read_now(closure));
        let result = work.await.map_err(|error| StoreError::Internal(format!("a read did not end: {error}")));
        drop(permit);
        result?
    }

    fn read_now<T>(
        &self,
        closure: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let pooled = locked(&self.inner.readers).pop();
        // None is left only where a dropped future gave its permit back before its thread had ended.
        let conn = match pooled {
            Some(conn) => conn,
            None if self.inner.closed.load(Ordering::Acquire) => return Err(StoreError::Closed),
            None => open::read_only(&self.inner.path).map_err(|error| error.at(&self.inner.path))?,
        };
        let result = (|| {
            conn.execute_batch("BEGIN")?;
            // Nothing of the closure is looked at after a panic, and it can't have changed anything.
            catch_unwind(AssertUnwindSafe(|| closure(&conn)))
                .unwrap_or_else(|_| Err(StoreError::Internal("a closure panicked; see the log".to_owned())))
        })();
        if !conn.is_autocommit() {
            let _ = conn.execute_batch("ROLLBACK");
        }
        let mut pool = locked(&self.inner.readers);
        if pool.len() < READERS as usize && !self.inner.closed.load(Ordering::Acquire) {
            pool.push(conn);
        }
        result.map_err(|error| error.at(&self.inner.path))
    }

    /// Sets what is called after every transaction, committed or not. The first call of this function counts.
    pub fn on_commit(&self, callback: OnCommit) {
        let _ = self.inner.shared.on_commit.set(callback);
    }

    /// Commits since the store was opened.
    pub fn commits(&self) -> u64 {
        self.inner.shared.commits.load(Ordering::Relaxed)
    }

    /// Takes no more writes and reads, finishes those that wait, moves the log into the file and closes it.
    ///
    /// # Errors
    /// `Unavailable` if the last checkpoint did not end; nothing is lost, the next start does it.
    pub async fn close(&self) -> Result<(), StoreError> {
        let queue = locked(&self.inner.queue).take();
        let Some(queue) = queue else { return Ok(()) };
        if let Ok(permits) = self.inner.permits.acquire_many(READERS).await {
            permits.forget();
        }
        self.inner.permits.close();
        self.inner.closed.store(true, Ordering::Release);
        locked(&self.inner.readers).clear();
        let (answer, result) = oneshot::channel();
        queue.send(Message::Close(answer)).await.map_err(|_| StoreError::Closed)?;
        drop(queue);
        result.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Inner {
    /// Waits for the writer to finish what was handed over, so that the file is free afterwards.
    fn drop(&mut self) {
        drop(locked(&self.queue).take());
        locked(&self.readers).clear();
        let thread = locked(&self.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

/// A lock whose holder panicked is still good: no holder leaves its value half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count as SQLite keeps it: 63 bits.
fn int(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
