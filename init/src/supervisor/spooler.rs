//! Writing the spool (see [`quickcmd_init::spool`]).

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use quickcmd_init::spool::{Header, Kind};

/// Between two tries of a record that must be written.
const RETRY: Duration = Duration::from_millis(50);

/// The spool's writing end.
pub struct Spooler {
    file: File,
    /// Number of the next frame.
    seq: u64,
    /// Bytes of the agent's own words so far.
    system_bytes: u64,
    /// The rest of a record of which only the beginning would go in. It must be finished before the next
    /// one, or no reader would find its way.
    rest: Vec<u8>,
}

impl Spooler {
    pub fn new(spool: OwnedFd, first_seq: u64) -> io::Result<Spooler> {
        // The agent opens it so; a writer that does not append would overwrite what is there.
        let flags = OFlag::from_bits_retain(fcntl(&spool, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_APPEND) {
            fcntl(&spool, FcntlArg::F_SETFL(flags | OFlag::O_APPEND))?;
        }
        Ok(Spooler { file: spool.into(), seq: first_seq, system_bytes: 0, rest: Vec::new() })
    }

    /// Appends one record with one write.
    ///
    /// # Errors
    /// Nothing of it has been written, and no number has been used.
    pub fn append(&mut self, kind: Kind, binary: bool, offset: u64, body: &[u8]) -> io::Result<()> {
        self.finish_rest()?;
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let seq = if kind.is_frame() { self.seq } else { 0 };
        let header = Header { len, kind, binary, seq, time_ns: now_ns(), offset }.encode();
        let written = loop {
            match self.file.write_vectored(&[IoSlice::new(&header), IoSlice::new(body)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => break n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        if written < header.len() + body.len() {
            let header_rest = header.get(written..).unwrap_or_default();
            self.rest.extend_from_slice(header_rest);
            self.rest.extend_from_slice(&body[written.saturating_sub(header.len())..]);
            // It is in the file by its beginning: it will be finished, now or with the next record.
            let _ = self.finish_rest();
        }
        self.seq += u64::from(kind.is_frame());
        Ok(())
    }

    fn finish_rest(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.file.write(&self.rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.rest.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Appends a frame of the agent's own words, if that can be done before then.
    pub fn say(&mut self, sentence: &str, until: Instant) {
        if self.insist(Kind::System, self.system_bytes, sentence.as_bytes(), until).is_ok() {
            self.system_bytes += sentence.len() as u64;
        }
    }

    /// Appends a record without which the job's story is not told, and tries again while the disk is full
    /// or fails, until then.
    pub fn insist(&mut self, kind: Kind, offset: u64, body: &[u8], until: Instant) -> io::Result<()> {
        let mut appended = false;
        loop {
            let result = if appended { self.finish_rest() } else { self.append(kind, false, offset, body) };
            match result {
                Ok(()) if self.rest.is_empty() => return Ok(()),
                Ok(()) => appended = true,
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    /// Brings the file to the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Wall clock, nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
