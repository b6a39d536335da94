//! Writing the spool (see [`quickcmd_init::spool`]).

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use quickcmd_init::spool::{HEADER, Header, Kind, MAX_RECORD};

/// Between two tries of a record that must be written.
const RETRY: Duration = Duration::from_millis(50);

/// Bytes of the disk that output leaves to the last records: what is missing, and a report without a list of files.
const RESERVE: u64 = 16 << 10;
/// Bytes that are claimed at once, so that not every record costs a call.
const CLAIM: u64 = 256 << 10;

/// The spool's writing end.
///
/// It claims disk ahead of what it writes, beyond the end of the file, and neither output nor artifacts use the last bytes
/// of that ([`RESERVE`], and more where there may be more to say): so however full the disk becomes, the report of a job
/// that was started has its place.
pub struct Spooler {
    file: File,
    /// Length of the file.
    end: u64,
    /// Up to where the disk is ours; `None` on a file system that can't do that.
    claimed: Option<u64>,
    /// Bytes that are left to the last records.
    reserve: u64,
    /// Number of the next frame.
    seq: u64,
    /// Bytes of the agent's own words so far.
    system_bytes: u64,
    /// The rest of a record of which only the beginning would go in. It must be finished before the next
    /// one, or no reader would find its way.
    rest: Vec<u8>,
}

impl Spooler {
    /// `lists`: the report will list files, and may be as large as any.
    ///
    /// # Errors
    /// The descriptor is not a file's.
    pub fn new(spool: OwnedFd, first_seq: u64, lists: bool) -> io::Result<Spooler> {
        // The agent opens it so; a writer that does not append would overwrite what is there.
        let flags = OFlag::from_bits_retain(fcntl(&spool, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_APPEND) {
            fcntl(&spool, FcntlArg::F_SETFL(flags | OFlag::O_APPEND))?;
        }
        let file = File::from(spool);
        let end = file.metadata()?.len();
        let reserve = RESERVE + if lists { (HEADER + MAX_RECORD) as u64 } else { 0 };
        let claimed = Some(end);
        Ok(Spooler { file, end, claimed, reserve, seq: first_seq, system_bytes: 0, rest: Vec::new() })
    }

    /// Makes sure that there is disk for so many bytes and the reserve.
    ///
    /// # Errors
    /// There is none.
    fn claim(&mut self, bytes: usize) -> io::Result<()> {
        let needed = self.end + bytes as u64 + self.reserve;
        let Some(claimed) = self.claimed.filter(|claimed| *claimed < needed) else { return Ok(()) };
        let file = &self.file;
        let extend = |to: u64| {
            let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(file, keep, signed(claimed), signed(to - claimed)).map(|()| to)
        };
        // Where there is no more for all the others, there may be for this one.
        match extend(needed + CLAIM).or_else(|_| extend(needed)) {
            Ok(to) => self.claimed = Some(to),
            Err(Errno::EINTR) => {}
            Err(error @ (Errno::ENOSPC | Errno::EDQUOT)) => return Err(error.into()),
            Err(_) => self.claimed = None,
        }
        Ok(())
    }

    /// Where the next record will begin.
    pub fn position(&self) -> u64 {
        self.end + self.rest.len() as u64
    }

    /// Gives back what was claimed and not used, after the last record: nobody else writes to the file.
    pub fn release(&mut self) {
        if self.claimed.take().is_some_and(|claimed| claimed > self.end) {
            let _ = self.file.set_len(self.end);
        }
    }

    /// Appends one record with one write.
    ///
    /// # Errors
    /// Nothing of it has been written, and no number has been used.
    pub fn append(&mut self, kind: Kind, binary: bool, offset: u64, body: &[u8]) -> io::Result<()> {
        self.finish_rest()?;
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        // A job is started only if its end can be told; the last words need no more than the reserve.
        if matches!(kind, Kind::Started | Kind::Stdout | Kind::Stderr | Kind::Artifact) {
            self.claim(HEADER + body.len())?;
        }
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
        self.end += written as u64;
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
                Ok(n) => {
                    self.end += n as u64;
                    drop(self.rest.drain(..n));
                }
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
