//! Output: spools on disk, frames, fan-out to readers. The supervisor writes a job's spool (the
//! agent only the system words before it); this room follows the file and tells readers the newest frame
//! number; each reader fetches what it lacks from the file, so a slow one holds up nobody.
//!
//! Contract (to be filled in):
//!
//! ```text
//! Outputs::open(dir: &Path) -> io::Result<Arc<Outputs>>        one inotify watch on the folder
//! Outputs::create(&self, row: i64) -> io::Result<Spool>        a new, empty spool (0600) and its O_APPEND descriptor
//! Spool::system(&mut self, text: &str, now) -> io::Result<()>  agent's own words, only before the hand-over
//! Spool::next_seq(&self) -> u64
//! Spool::writer_fd(&self) -> io::Result<OwnedFd>
//! Outputs::follow(&self, row: i64) -> Following                waits for Started / Report (runner and recovery)
//!     Following::started().await -> io::Result<Option<Timestamp>>      None: report came without it
//!     Following::report().await -> io::Result<(Report, last_seq)>
//!     Following::look() -> io::Result<Seen { started: Option<Timestamp>, report: Option<Report>, last_seq: u64, bytes }>   one pass, for recovery
//! Outputs::finish(&self, row)                                  no more frames will come: wakes readers
//! Outputs::reader(&self, row, job_id, from_seq: u64, system: bool) -> io::Result<Reader>
//!     Reader::next().await -> io::Result<Option<Frame>>        None: finished and all read
//! Outputs::bytes(&self, row, stream) -> io::Result<Bytes>      the exact stream, with ranges, for downloads
//! Outputs::text(&self, row, stream, max) -> io::Result<String> the start of a stream as text, lossy
//! Outputs::remove(&self, row), Outputs::total_bytes(), Outputs::rows()
//! ```
