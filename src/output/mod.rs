//! Output: spools on disk, frames, fan-out to readers. The supervisor writes a job's spool (the
//! agent only the system words before it); this room follows the file and tells readers that there is
//! something new; each reader fetches what it lacks from the file, so a slow one holds up nobody.
//!
//! ```text
//! Outputs::open(dir: &Path) -> io::Result<Arc<Outputs>>        one inotify watch on the folder
//! Outputs::run(self: Arc<Self>, stop)                          the task that hands events on; must run
//! Outputs::create(&self, row: i64) -> io::Result<Spool>        a new, empty spool (0600)
//! Outputs::reopen(&self, row).await -> io::Result<Spool>       one of an earlier attempt, numbers go on
//! Spool::system(&mut self, text: &str, now) -> io::Result<()>  agent's own words, only before the hand-over
//! Spool::next_seq(&self) -> u64
//! Spool::writer_fd(&mut self) -> io::Result<OwnedFd>           write-only, O_APPEND, for the supervisor
//! Outputs::follow(&self, row: i64) -> Following                waits for Started / Report (runner and recovery)
//!     Following::started(&mut self).await -> io::Result<Option<Timestamp>>   None: report came without it
//!     Following::report(&mut self).await -> io::Result<(Report, last_seq)>
//!     Following::look(&mut self).await -> io::Result<Seen>     one pass, for recovery
//! Outputs::finish(&self, row)                                  no more frames will come: wakes readers
//! Outputs::reader(&self, row, job_id, from_seq: u64, system: bool) -> Reader
//!     Reader::next(&mut self).await -> io::Result<Option<Frame>>   None: finished and all read
//!     Reader::next_json(&mut self).await -> io::Result<Option<Line>>   the same, serialised and shared
//! Outputs::bytes(&self, row, stream).await -> io::Result<Bytes>    the exact stream, with ranges, for downloads
//! Outputs::text(&self, row, stream, max).await -> io::Result<String>   the start of a stream as text, lossy
//! Outputs::totals(&self, row, stream).await -> StreamTotals        bytes and hash of a stream, as it is there
//! Outputs::last_word(&self, row) -> Option<Timestamp>               when something was last written to it
//! Outputs::sync(&self, row).await -> io::Result<()>            the spool is on the disk
//! Outputs::artifact(&self, row, at, len) -> io::Result<Kept>       a file that the job has left, with ranges
//! Outputs::trim(&self, row), Outputs::remove(&self, row), Outputs::total_bytes().await, Outputs::rows().await
//! ```
//!
//! **A reader and the end.** [`Outputs::finish`] reaches the readers that exist, and is not remembered
//! for later ones: nothing grows with history. So: make the reader first, *then* look at the job's state,
//! and call `finish` if the job has ended (again is harmless). A reader of a job that has no spool yet
//! waits for it.
//!
//! **Reads and the runtime.** All reads are `pread`s of one record (48 KiB) or less. They are tried with
//! `RWF_NOWAIT` on the runtime's thread, which gives what is in the page cache (all that is live, some
//! microseconds) and never sleeps; what would need the disk goes to the blocking pool. So neither a hop
//! between threads for every frame nor a runtime thread that waits for a disk.
//!
//! **Memory.** A reader holds a position and at most a window of 4 KiB while it reads, nothing while it
//! waits; a row with several readers keeps the frames that were serialised last (1 MiB at most, little once
//! all rows keep 8 MiB), so that a thousand readers share one decoding. Readers of a row share one
//! descriptor.
//!
//! A damaged spool is an [`io::Error`] that holds a [`Corrupt`], and concerns its job alone.

mod artifact;
mod bytes;
mod cursor;
mod file;
mod following;
mod frame;
mod reader;
mod recent;
mod row;
mod spool;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

pub use artifact::Kept;
pub use bytes::{Bytes, nothing};
pub use file::Corrupt;
pub use following::{Following, Seen};
pub use frame::{Line, Stream};
pub use reader::Reader;
pub use spool::Spool;

use crate::base::{clock::Timestamp, disk};
use cursor::Cursor;
use quickcmd_init::proto::StreamTotals;
use row::Rows;

/// All spools of the agent: one folder, one watch.
#[derive(Debug)]
pub struct Outputs {
    rows: Arc<Rows>,
    inotify: OwnedFd,
}

/// A spool on disk, for retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The job's row in the database.
    pub row: i64,
    /// Size of the file.
    pub bytes: u64,
    /// When it was made; the time of its last change where the file system does not tell.
    pub created: Timestamp,
    pub modified: Timestamp,
}

impl Outputs {
    /// Opens the folder, makes it (0700) if it is missing, and begins to watch it. Spools of an earlier
    /// life of the agent are simply there.
    ///
    /// # Errors
    /// The folder cannot be made or watched (`fs.inotify.max_user_instances` used up).
    pub fn open(dir: &Path) -> io::Result<Arc<Outputs>> {
        disk::make_folder(dir).map_err(|e| named(&e, "make", dir))?;
        let inotify = watch::watch(dir).map_err(|e| named(&e, "watch", dir))?;
        Ok(Arc::new(Outputs { rows: Rows::new(dir.to_owned()), inotify }))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.rows.dir()
    }

    /// A new, empty spool (0600).
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the row has one (see [`Outputs::reopen`]), or the disk says no.
    pub fn create(&self, row: i64) -> io::Result<Spool> {
        Spool::create(self.rows.get(row))
    }

    /// The spool of a row whose earlier attempt came to nothing, or a new one: what it holds stays, and
    /// numbers go on, so that a reader that has seen the beginning misses nothing. A torn record at the end
    /// is cut off. Only for when no supervisor can be writing to it.
    ///
    /// # Errors
    /// The spool is damaged, or the disk says no.
    pub async fn reopen(&self, row: i64) -> io::Result<Spool> {
        Spool::reopen(self.rows.get(row)).await
    }

    /// Follows what the supervisor says in a row's spool, which need not be there yet.
    pub fn follow(&self, row: i64) -> Following {
        Following::new(Cursor::new(self.rows.get(row)))
    }

    /// No more frames will come in this row: its readers end when they have read what is there. Only
    /// readers that exist are told (see the room's head).
    pub fn finish(&self, row: i64) {
        if let Some(row) = self.rows.existing(row) {
            row.finish();
        }
    }

    /// A reader of a row's frames from number `from_seq` on (0 and 1: all), with or without the agent's own
    /// words. The job's id is put into each frame; it must be the same for all readers of a row.
    pub fn reader(&self, row: i64, job_id: &str, from_seq: u64, system: bool) -> Reader {
        Reader::new(self.rows.get(row), job_id, from_seq, system)
    }

    /// The exact bytes of a stream, as many as there are now.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no spool (not yet, or no more); damaged; unreadable.
    pub async fn bytes(&self, row: i64, stream: Stream) -> io::Result<Bytes> {
        Bytes::open(Cursor::new(self.rows.get(row)), stream).await
    }

    /// The first `max` bytes of a stream as text: what is no UTF-8 shows as U+FFFD, and a character that
    /// `max` would cut in two is left out.
    ///
    /// # Errors
    /// As [`Outputs::bytes`].
    pub async fn text(&self, row: i64, stream: Stream, max: usize) -> io::Result<String> {
        self.bytes(row, stream).await?.text(max).await
    }

    /// Bytes that a row's spool has of a stream, and their hash: for a job whose supervisor could not say it. Read in
    /// pieces, so that memory stays flat; up to where it can be read, and nothing if there is none.
    pub async fn totals(&self, row: i64, stream: Stream) -> StreamTotals {
        match self.bytes(row, stream).await {
            Ok(bytes) => bytes.totals().await,
            Err(_) => nothing(),
        }
    }

    /// When something was last written to a row's spool; `None` if there is none.
    pub fn last_word(&self, row: i64) -> Option<Timestamp> {
        let modified = fs::metadata(self.rows.path(row)).and_then(|meta| meta.modified());
        modified.ok().map(file::timestamp)
    }

    /// Brings a row's spool to the disk, and its name into the folder there: what a reader has seen stays, come a
    /// power cut. One that is not there is success.
    ///
    /// # Errors
    /// The disk says no.
    pub async fn sync(&self, row: i64) -> io::Result<()> {
        let path = self.rows.path(row);
        let sync = move || {
            let file = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                file => file.map_err(|e| named(&e, "open", &path))?,
            };
            file.sync_data()
                .and_then(|()| disk::sync_folder(disk::parent(&path)))
                .map_err(|e| named(&e, "sync", &path))
        };
        tokio::task::spawn_blocking(sync).await.map_err(io::Error::other)?
    }

    /// A file that a job has left: `len` bytes in the records from byte `at` of its spool on, as its report says.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is no spool any more.
    pub fn artifact(&self, row: i64, at: u64, len: u64) -> io::Result<Kept> {
        Kept::open(Cursor::new(self.rows.get(row)), at, len)
    }

    /// Removes a row's spool; gone already is success. Its readers go on with what they have open, and
    /// end.
    ///
    /// # Errors
    /// The disk says no.
    pub fn remove(&self, row: i64) -> io::Result<()> {
        let path = self.rows.path(row);
        // A reader that has not opened it yet does so now.
        let existing = self.rows.existing(row);
        if let Some(row) = &existing {
            row.file()?;
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(&e, "remove", &path)),
            _ => {}
        }
        if let Some(row) = existing {
            row.finish();
        }
        Ok(())
    }

    /// Gives back the space beyond a spool's end, which a supervisor that was killed had set aside. Only for when nobody
    /// can be writing to it; no spool is nothing to do.
    ///
    /// # Errors
    /// The disk says no.
    pub fn trim(&self, row: i64) -> io::Result<()> {
        let path = self.rows.path(row);
        let trimmed = match fs::OpenOptions::new().write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // To the length that it has: file systems give back what lies beyond.
            opened => opened.and_then(|file| file.set_len(file.metadata()?.len())),
        };
        trimmed.map_err(|e| named(&e, "trim", &path))
    }

    /// Every spool in the folder, in no order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn rows(&self) -> io::Result<Vec<Entry>> {
        let dir = self.rows.dir().to_owned();
        // As many system calls as there are files: not on the runtime's thread.
        tokio::task::spawn_blocking(move || entries(&dir)).await.map_err(io::Error::other)?
    }

    /// Bytes of all spools together.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.rows().await?.iter().map(|entry| entry.bytes).sum())
    }

    /// Readers that are open now, for a gauge.
    pub fn readers(&self) -> usize {
        self.rows.readers.load(Ordering::Relaxed)
    }

    /// Bytes of stdout and stderr that followed jobs have put into their spools since the agent started,
    /// for a counter.
    pub fn bytes_written(&self) -> u64 {
        self.rows.bytes.load(Ordering::Relaxed)
    }
}

/// The highest row number that has a spool in that folder; 0 if there is none, or no folder. Blocks.
///
/// # Errors
/// The folder cannot be read.
pub fn last_row(dir: &Path) -> io::Result<i64> {
    match entries(dir) {
        Ok(entries) => Ok(entries.iter().map(|entry| entry.row).max().unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn entries(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| named(&e, "list", dir))? {
        let entry = entry?;
        let Some(row) = row::number(entry.file_name().as_encoded_bytes()) else { continue };
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            // Removed since.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(named(&e, "look at", &entry.path())),
        };
        let modified = file::timestamp(meta.modified()?);
        let created = meta.created().map_or(modified, file::timestamp);
        found.push(Entry { row, bytes: meta.len(), created, modified });
    }
    Ok(found)
}

/// The same error, with the file it is about.
fn named(error: &io::Error, verb: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} {}: {error}", path.display()))
}
