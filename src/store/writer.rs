//! The one writer: a thread that owns the connection. It takes everything that waits, runs each closure
//! in its own savepoint, commits once, and answers after the commit.
//!
//! ```text
//! Store::write -> channel (1,024) -> thread: BEGIN IMMEDIATE, up to 128 savepoints, COMMIT -> answers
//! ```
//!
//! A savepoint makes SQLite copy each page that the closure changes. What may be run again
//! ([`super::Store::write_again`]) does without: if any of a group fails, all is rolled back, and they run once
//! more, each in a savepoint now, so that again only the one that fails is taken back.

use std::{
    cell::Cell,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, reserve::Reserve};

/// Closures that may wait before `write` itself waits.
pub(super) const WAITING: usize = 1024;
/// Closures in one transaction at most: it bounds the time to the first answer, and the log's growth.
const BATCH: usize = 128;

/// The open transaction, as a closure sees it. Functions that change something ask for this, so that
/// they can't run on a reading connection.
#[derive(Debug)]
pub struct Tx<'a> {
    conn: &'a Connection,
    /// Number of the next entry of the audit log, once it was asked for in this transaction.
    next: &'a Cell<Option<u64>>,
}

impl Tx<'_> {
    /// The number of the next entry of the audit log.
    pub(super) fn next_entry(&self) -> Result<u64, StoreError> {
        match self.next.get() {
            Some(next) => Ok(next),
            None => {
                let next = super::audit::size(self.conn)?;
                self.next.set(Some(next));
                Ok(next)
            }
        }
    }

    /// It was appended.
    pub(super) fn entry_added(&self) {
        self.next.set(self.next.get().map(|next| next + 1));
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn
    }
}

/// One closure with its answer, whatever its type.
pub(super) trait Work: Send {
    /// Whether it may be run a second time, after a rollback of the first.
    fn again(&self) -> bool;
    /// Runs it, and keeps the value.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), StoreError>;
    /// Answers, after the commit or the failure.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// A closure that is run once.
pub(super) struct Task<F, T> {
    pub(super) closure: Option<F>,
    pub(super) value: Option<T>,
    pub(super) answer: oneshot::Sender<Result<T, StoreError>>,
}

/// A closure that may be run again.
pub(super) struct Repeatable<F, T> {
    pub(super) closure: F,
    pub(super) value: Option<T>,
    pub(super) answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Work for Task<F, T>
where
    F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn again(&self) -> bool {
        false
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), StoreError> {
        let Some(closure) = self.closure.take() else {
            return Err(StoreError::Internal("a closure was run twice".to_owned()));
        };
        self.value = Some(closure(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Task { value, answer, .. } = *self;
        give(answer, value, outcome);
    }
}

impl<F, T> Work for Repeatable<F, T>
where
    F: Fn(&Tx<'_>) -> Result<T, StoreError> + Send,
    T: Send,
{
    fn again(&self) -> bool {
        true
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), StoreError> {
        self.value = Some((self.closure)(tx)?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Repeatable { value, answer, .. } = *self;
        give(answer, value, outcome);
    }
}

fn give<T>(
    answer: oneshot::Sender<Result<T, StoreError>>,
    value: Option<T>,
    outcome: Result<(), StoreError>,
) {
    let result = outcome
        .and_then(|()| value.ok_or_else(|| StoreError::Internal("a closure left no value".to_owned())));
    // Who asked may have gone away; what was written stays written.
    let _ = answer.send(result);
}

pub(super) enum Message {
    Work(Box<dyn Work>),
    /// Take nothing more, finish what waits, move the log into the file, answer and end.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// What became of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// From its begin to the end of its commit.
    pub took: Duration,
    /// Whether it was committed; else nothing of it was.
    pub committed: bool,
    /// Closures in it.
    pub changes: usize,
    /// Those of them that the database refused; a job in another state than was thought is no refusal.
    pub refused: usize,
    /// Entries that it added to the audit log.
    pub entries: u64,
}

/// Called after every transaction.
pub type OnCommit = Box<dyn Fn(Batch) + Send + Sync>;

/// What the thread shares with the store.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) commits: AtomicU64,
    pub(super) on_commit: OnceLock<OnCommit>,
}

/// The thread's body.
pub(super) fn serve(
    mut conn: Connection,
    path: PathBuf,
    mut queue: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    lock: super::lock::Lock,
) {
    let mut closing = None;
    let mut reserve = Reserve::new(&path);
    reserve.keep();
    let mut entries = super::audit::size(&conn).unwrap_or(0);
    while let Some(first) = queue.blocking_recv() {
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Work(work) => batch.push(work),
                Message::Close(answer) => {
                    queue.close();
                    closing = Some(answer);
                }
            }
            next = if batch.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            commit(&mut conn, batch, &path, &shared, &mut entries);
            reserve.keep();
        }
    }
    let checkpointed = conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .map_err(StoreError::from)
        .and_then(|busy| match busy {
            0 => Ok(()),
            _ => {
                Err(StoreError::Unavailable { detail: "a reader held the log at the last checkpoint".into() })
            }
        });
    let closed = conn.close().map_err(|(_, error)| StoreError::from(error));
    drop(lock);
    if let Some(answer) = closing {
        let _ = answer.send(checkpointed.and(closed).map_err(|error| error.at(&path)));
    }
}

/// One transaction for the whole batch. `entries`: how many the audit log has.
fn commit(
    conn: &mut Connection,
    batch: Vec<Box<dyn Work>>,
    path: &std::path::Path,
    shared: &Shared,
    entries: &mut u64,
) {
    let begun = Instant::now();
    let count = batch.len();
    let mut done = Vec::with_capacity(count);
    let next = Cell::new(None);
    // Nobody has an answer before the commit, so the order within a group is free.
    let (mut again, once): (Vec<_>, Vec<_>) = batch.into_iter().partition(|work| work.again());
    let begun_with = together(conn, &next, &mut again);
    if let Ok(true) = begun_with {
        done.extend(again.drain(..).map(|work| (work, Ok(()))));
    }
    again.extend(once);
    let mut left = again.into_iter();
    let committed = begun_with.and_then(|_| {
        for mut work in left.by_ref() {
            let (outcome, goes_on) = in_savepoint(conn, &next, &mut *work);
            let ended = conn.is_autocommit();
            done.push((work, outcome.clone()));
            goes_on?;
            if ended {
                // A full disk or an I/O error makes SQLite roll back everything at once.
                return Err(outcome.err().unwrap_or_else(|| {
                    StoreError::Internal("a closure ended the transaction that it ran in".to_owned())
                }));
            }
        }
        run(conn, "COMMIT")
    });
    if committed.is_err() && !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    if committed.is_ok() {
        shared.commits.fetch_add(1, Ordering::Relaxed);
    }
    if let Some(on_commit) = shared.on_commit.get() {
        let took = begun.elapsed();
        let now = next.get().filter(|_| committed.is_ok());
        let now = now.unwrap_or_else(|| super::audit::size(conn).unwrap_or(*entries));
        let refused = match &committed {
            Ok(()) => {
                done.iter().filter(|(_, outcome)| outcome.as_ref().is_err_and(StoreError::is_refusal)).count()
            }
            Err(_) => count,
        };
        on_commit(Batch {
            took,
            committed: committed.is_ok(),
            changes: count,
            refused,
            entries: now.saturating_sub(*entries),
        });
        *entries = now;
    }
    for (work, outcome) in done {
        let outcome = match (outcome, &committed) {
            (Err(own), _) => Err(own.at(path)),
            (Ok(()), committed) => committed.clone().map_err(|error| error.at(path)),
        };
        work.answer(outcome);
    }
    // Those that never ran: only after a failure, which is theirs too.
    for work in left {
        work.answer(committed.clone().map_err(|error| error.at(path)));
    }
}

/// Begins the transaction and runs in it what may be run again, without savepoints. `false`: one failed, and the
/// transaction has been begun anew with nothing in it.
fn together(
    conn: &Connection,
    next: &Cell<Option<u64>>,
    works: &mut [Box<dyn Work>],
) -> Result<bool, StoreError> {
    run(conn, "BEGIN IMMEDIATE")?;
    let failed =
        works.iter_mut().any(|work| caught(conn, next, &mut **work).is_err() || conn.is_autocommit());
    if failed {
        next.set(None);
        if !conn.is_autocommit() {
            run(conn, "ROLLBACK")?;
        }
        run(conn, "BEGIN IMMEDIATE")?;
    }
    Ok(!failed)
}

/// A closure that fails or panics takes back its own changes and nobody else's. Beside what became of it: an error where
/// that is not sure, and the transaction must not be committed.
fn in_savepoint(
    conn: &Connection,
    next: &Cell<Option<u64>>,
    work: &mut dyn Work,
) -> (Result<(), StoreError>, Result<(), StoreError>) {
    if let Err(error) = run(conn, "SAVEPOINT work") {
        return (Err(error), Ok(()));
    }
    let outcome = caught(conn, next, work);
    if conn.is_autocommit() {
        return (outcome, Ok(()));
    }
    let closed = match outcome {
        Ok(()) => run(conn, "RELEASE work"),
        Err(_) => {
            next.set(None);
            conn.execute_batch("ROLLBACK TO work; RELEASE work").map_err(StoreError::from)
        }
    };
    (outcome.and_then(|()| closed.clone()), closed)
}

/// Nothing of the closure is looked at after a panic, and its changes are undone.
fn caught(conn: &Connection, next: &Cell<Option<u64>>, work: &mut dyn Work) -> Result<(), StoreError> {
    catch_unwind(AssertUnwindSafe(|| work.run(&Tx { conn, next })))
        .unwrap_or_else(|_| Err(StoreError::Internal("a closure panicked; see the log".to_owned())))
}

/// A statement that comes again and again.
fn run(conn: &Connection, sql: &str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}
