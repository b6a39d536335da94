//! What is kept of a row while somebody follows or reads it, and the map of those rows.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    cursor::Position,
    named,
    recent::{Kept, Recent},
};

/// A position is remembered for every so many bytes of file, so that a reader can start in the middle.
const INDEX_EVERY: u64 = 1 << 20;

/// The rows that somebody follows or reads, by number.
#[derive(Debug)]
pub(super) struct Rows {
    dir: PathBuf,
    map: Mutex<HashMap<i64, Weak<Row>>>,
    pub(super) readers: AtomicUsize,
    pub(super) bytes: AtomicU64,
    /// Bytes of serialised frames that all rows keep.
    kept: AtomicUsize,
}

/// What readers are told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// Changes with every wake.
    generation: u64,
    pub(super) finished: bool,
}

/// One followed row; lives as long as anybody holds it.
#[derive(Debug)]
pub(super) struct Row {
    id: i64,
    pub(super) path: PathBuf,
    pub(super) rows: Arc<Rows>,
    /// Opened once there is a file. All reads say where, so all readers share it.
    file: OnceLock<Arc<File>>,
    news: watch::Sender<News>,
    /// Length at the last safety look.
    looked: AtomicU64,
    index: Mutex<Vec<Position>>,
    /// From which byte on the next position is remembered.
    index_from: AtomicU64,
    recent: Mutex<Recent>,
    pub(super) readers: AtomicUsize,
    /// Bytes of output that were counted for the metric.
    counted: AtomicU64,
}

impl Rows {
    pub(super) fn new(dir: PathBuf) -> Arc<Rows> {
        Arc::new(Rows {
            dir,
            map: Mutex::default(),
            readers: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            kept: AtomicUsize::new(0),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, row: i64) -> PathBuf {
        self.dir.join(format!("{row}.spool"))
    }

    /// The row, kept from now on.
    pub(super) fn get(self: &Arc<Rows>, id: i64) -> Arc<Row> {
        let mut map = locked(&self.map);
        if let Some(row) = map.get(&id).and_then(Weak::upgrade) {
            return row;
        }
        let row = Arc::new(Row {
            id,
            path: self.path(id),
            rows: Arc::clone(self),
            file: OnceLock::new(),
            news: watch::Sender::new(News::default()),
            looked: AtomicU64::new(0),
            index: Mutex::default(),
            index_from: AtomicU64::new(INDEX_EVERY),
            recent: Mutex::default(),
            readers: AtomicUsize::new(0),
            counted: AtomicU64::new(0),
        });
        map.insert(id, Arc::downgrade(&row));
        row
    }

    /// The row, if anybody keeps it.
    pub(super) fn existing(&self, id: i64) -> Option<Arc<Row>> {
        locked(&self.map).get(&id).and_then(Weak::upgrade)
    }

    /// Every row that somebody keeps.
    pub(super) fn all(&self) -> Vec<Arc<Row>> {
        locked(&self.map).values().filter_map(Weak::upgrade).collect()
    }
}

impl Row {
    /// The open file, or `None` as long as there is none.
    pub(super) fn file(&self) -> io::Result<Option<&Arc<File>>> {
        if self.file.get().is_none() {
            match File::open(&self.path) {
                // Another may have been faster: then this one is closed again.
                Ok(file) => drop(self.file.set(Arc::new(file))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(named(&e, "open", &self.path)),
            }
        }
        Ok(self.file.get())
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Tells all who wait that there may be something new.
    pub(super) fn wake(&self) {
        self.news.send_modify(|news| news.generation = news.generation.wrapping_add(1));
    }

    /// Tells all who wait that nothing more will come.
    pub(super) fn finish(&self) {
        self.news.send_modify(|news| news.finished = true);
    }

    /// Wakes if the file is not as long as it was at the last look.
    pub(super) fn look(&self) {
        // What can't be opened or asked is found, and said, by those who read.
        let Ok(Some(file)) = self.file() else { return };
        let Ok(meta) = file.metadata() else { return };
        if self.looked.swap(meta.len(), Ordering::Relaxed) != meta.len() {
            self.wake();
        }
    }

    /// Remembers a position now and then. Whoever walks the file calls it at every record.
    pub(super) fn remember(&self, position: &Position) {
        if position.at < self.index_from.load(Ordering::Relaxed) {
            return;
        }
        let mut index = locked(&self.index);
        if index.last().is_none_or(|last| last.at + INDEX_EVERY <= position.at) {
            index.push(*position);
            self.index_from.store(position.at + INDEX_EVERY, Ordering::Relaxed);
        }
    }

    /// The last remembered position of which `before` holds (it must hold from the start up to some
    /// point); the beginning of the file if there is none.
    pub(super) fn position(&self, before: impl Fn(&Position) -> bool) -> Position {
        let index = locked(&self.index);
        let n = index.partition_point(before);
        n.checked_sub(1).map_or_else(Position::default, |last| index[last])
    }

    /// The frame whose record begins at this byte, if somebody has just serialised it.
    pub(super) fn recent(&self, at: u64) -> Option<Kept> {
        locked(&self.recent).get(at)
    }

    /// Keeps a serialised frame for the other readers.
    pub(super) fn keep(&self, kept: Kept) {
        let all = self.rows.kept.load(Ordering::Relaxed);
        self.change(|recent| recent.push(kept, all));
    }

    /// Lets the serialised frames go.
    pub(super) fn keep_nothing(&self) {
        self.change(Recent::clear);
    }

    fn change(&self, change: impl FnOnce(&mut Recent)) {
        let mut recent = locked(&self.recent);
        let before = recent.bytes();
        change(&mut recent);
        // First more, then less: the sum never falls below what is kept.
        self.rows.kept.fetch_add(recent.bytes(), Ordering::Relaxed);
        self.rows.kept.fetch_sub(before, Ordering::Relaxed);
    }

    /// Counts output for the metric, each byte once.
    pub(super) fn count(&self, bytes: u64) {
        let before = self.counted.fetch_max(bytes, Ordering::Relaxed);
        self.rows.bytes.fetch_add(bytes.saturating_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let mut map = locked(&self.rows.map);
        // Another may have taken its place since.
        if map.get(&self.id).is_some_and(|row| row.strong_count() == 0) {
            map.remove(&self.id);
        }
    }
}

/// The row of a spool's file name.
pub(super) fn number(name: &[u8]) -> Option<i64> {
    str::from_utf8(name).ok()?.strip_suffix(".spool")?.parse().ok()
}

/// What a lock holds is whole even where its holder panicked: no step under these locks can stop halfway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
