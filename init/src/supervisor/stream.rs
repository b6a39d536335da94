//! One output stream of the job: from its pipe, through the redaction, into the spool.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use quickcmd_init::proto::StreamTotals;
use quickcmd_init::redact::Redactor;
use quickcmd_init::spool::{Kind, MAX_BODY};
use sha2::{Digest, Sha256};

use super::spooler::Spooler;

/// A read below this many bytes is a small one.
const SMALL: usize = 4 << 10;
/// One below this is not a large one: programs write 4 KiB at a time, and a record of each would cost the supervisor,
/// the agent and the reader more than what is in it.
const LARGE: usize = MAX_BODY / 2;
/// Reads in a row, none of them large, that are taken at once: a line here and there never waits.
const SMALL_READS: u32 = 2;
/// After a small one of them, the least time to the next record, so that a program that writes byte by byte does not
/// make a record of each.
const PACE: Duration = Duration::from_millis(5);
/// After another: the time in which a fast program fills a record, and not its pipe.
const SHORT_PACE: Duration = Duration::from_micros(500);
/// Bytes that the kernel keeps between job and supervisor: fewer switches between the two.
const PIPE_BYTES: i32 = 256 << 10;

/// What a look into the pipe gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// There was something.
    Data,
    /// Nothing at present.
    Nothing,
    /// No more will come.
    End,
}

pub struct Stream {
    /// `None` after the end.
    pipe: Option<File>,
    kind: Kind,
    redactor: Redactor,
    /// Redacted bytes that are not in the spool yet: at most the beginning of a character between two reads.
    pending: Vec<u8>,
    limit: u64,
    /// The limit was passed; from there on bytes are only counted.
    full: bool,
    bytes: u64,
    dropped: u64,
    /// Of the dropped ones, those that the spool would not take, and why.
    lost: Option<(u64, io::Error)>,
    sha256: Sha256,
    small_reads: u32,
    not_before: Option<Instant>,
}

impl Stream {
    pub fn new(pipe: OwnedFd, kind: Kind, redactor: Redactor, limit: u64) -> io::Result<Stream> {
        let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
        fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // A user's share of pipe memory may be used up; the usual size does too.
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok(Stream {
            pipe: Some(pipe.into()),
            kind,
            redactor,
            pending: Vec::with_capacity(2 * MAX_BODY),
            limit,
            full: false,
            bytes: 0,
            dropped: 0,
            lost: None,
            sha256: Sha256::new(),
            small_reads: 0,
            not_before: None,
        })
    }

    /// The pipe, until its end.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Before this moment the stream is not to be read, while the job runs.
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Whether more has come than is recorded.
    pub fn over_limit(&self) -> bool {
        self.full
    }

    /// Reads once and writes down what came. `buffer` is scratch space of [`MAX_BODY`] bytes.
    pub fn look(&mut self, buffer: &mut [u8; MAX_BODY], spool: &mut Spooler) -> Looked {
        let Some(pipe) = &mut self.pipe else { return Looked::End };
        // What is held back comes out before what is read now, and all of it should be one record.
        let room = MAX_BODY.saturating_sub(self.pending.len() + self.redactor.held()).max(SMALL);
        match pipe.read(&mut buffer[..room]) {
            Ok(n) if n > 0 => {
                self.take(&buffer[..n], spool);
                self.small_reads = if n < LARGE { self.small_reads + 1 } else { 0 };
                let pace = if n < SMALL { PACE } else { SHORT_PACE };
                self.not_before = (self.small_reads >= SMALL_READS).then(|| Instant::now() + pace);
                Looked::Data
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.small_reads = 0;
                self.not_before = None;
                Looked::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Looked::Data,
            // The end; or an error, which a pipe has no other of.
            Ok(_) | Err(_) => {
                self.end(spool);
                Looked::End
            }
        }
    }

    /// Closes the pipe and writes what was held back. Once is enough, more does nothing.
    pub fn end(&mut self, spool: &mut Spooler) {
        if self.pipe.take().is_some() && !self.full {
            self.redactor.finish(&mut self.pending);
            self.write(spool, true);
        }
    }

    fn take(&mut self, input: &[u8], spool: &mut Spooler) {
        if self.full {
            self.dropped += input.len() as u64;
        } else {
            self.redactor.push(input, &mut self.pending);
            self.write(spool, false);
        }
    }

    /// Writes the pending bytes; unless it is the end, without the beginning of a character.
    fn write(&mut self, spool: &mut Spooler, end: bool) {
        let mut at = 0;
        while at < self.pending.len() {
            let left = &self.pending[at..];
            let room = usize::try_from(self.limit - self.bytes).unwrap_or(usize::MAX);
            let over = left.len() > room;
            let mut take = left.len().min(MAX_BODY).min(room);
            if take < left.len() || !end {
                take -= cut_character(&left[..take]);
            }
            if take == 0 {
                self.pending.drain(..at);
                if over {
                    self.fill();
                }
                return;
            }
            let body = &left[..take];
            match spool.append(self.kind, std::str::from_utf8(body).is_err(), self.bytes, body) {
                Ok(()) => {
                    self.sha256.update(body);
                    self.bytes += take as u64;
                }
                Err(error) => {
                    self.dropped += take as u64;
                    let before = self.lost.as_ref().map_or(0, |(n, _)| *n);
                    self.lost = Some((before + take as u64, error));
                }
            }
            at += take;
        }
        self.pending.clear();
    }

    /// The limit is passed: what is pending is dropped, and so is all that comes.
    fn fill(&mut self) {
        self.full = true;
        self.redactor.finish(&mut self.pending);
        self.dropped += self.pending.len() as u64;
        self.pending = Vec::new();
    }

    /// What the reader must be told at the end, if anything is missing.
    pub fn missing(&self) -> Vec<String> {
        let name = if self.kind == Kind::Stdout { "stdout" } else { "stderr" };
        let mut sentences = Vec::new();
        let lost = self.lost.as_ref().map_or(0, |(n, _)| *n);
        if self.full {
            let over = self.dropped - lost;
            sentences
                .push(format!("{name}: output limit of {} bytes reached, {over} bytes dropped", self.limit));
        }
        if let Some((bytes, error)) = &self.lost {
            sentences.push(format!("{name}: {bytes} bytes dropped, they could not be written: {error}"));
        }
        sentences
    }

    pub fn totals(&self) -> StreamTotals {
        StreamTotals { bytes: self.bytes, dropped: self.dropped, sha256: hex(&self.sha256) }
    }
}

/// The totals of a stream that never was.
pub fn no_totals() -> StreamTotals {
    StreamTotals { bytes: 0, dropped: 0, sha256: hex(&Sha256::new()) }
}

fn hex(sha256: &Sha256) -> String {
    use std::fmt::Write as _;
    sha256.clone().finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How many bytes at the end are the beginning of a character whose rest is missing: 0 to 3.
fn cut_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let tail = &bytes[bytes.len() - back..];
        if (0x80..0xC0).contains(&tail[0]) {
            continue;
        }
        let unfinished =
            matches!(std::str::from_utf8(tail), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none());
        return if unfinished { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A record costs all who touch it, whatever is in it: a program that writes without pause, a little at a time,
    /// must not make one of each write. No time is measured; it is only asked whether the stream waits.
    #[test]
    fn after_small_reads_in_a_row_output_gathers_and_after_a_large_one_it_does_not() {
        let file = tempfile::tempfile().unwrap();
        let mut spool = Spooler::new(file.into(), 1, false).unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut program = File::from(write);
        let redactor = Redactor::new::<&str>(&[], true);
        let mut stream = Stream::new(read, Kind::Stdout, redactor, u64::MAX).unwrap();
        let mut buffer = Box::new([0; MAX_BODY]);
        let mut waits = |bytes: usize| {
            program.write_all(&vec![b'x'; bytes]).unwrap();
            let before = Instant::now();
            assert_eq!(stream.look(&mut buffer, &mut spool), Looked::Data);
            let after = Instant::now();
            stream.not_before().map(|at| (at - after <= SHORT_PACE, at - before >= PACE))
        };
        // Two are taken at once; after another the stream waits, after a very small one longer.
        assert_eq!(waits(4096), None);
        assert!(waits(4096).is_some_and(|(short, _)| short));
        assert!(waits(16).is_some_and(|(_, long)| long));
        // Half a record is as good as a whole one.
        assert_eq!(waits(LARGE), None);
        assert_eq!(waits(16), None);
    }

    #[test]
    fn only_the_beginning_of_a_character_is_cut_off() {
        let cases: [(&[u8], usize); 12] = [
            (b"", 0),
            (b"abc", 0),
            ("é".as_bytes(), 0),
            (b"a\xC3", 1),
            (b"a\xE2\x82", 2),
            ("€".as_bytes(), 0),
            (b"\xF0\x9F\x98", 3),
            ("😀".as_bytes(), 0),
            (b"a\x80\x80", 0),
            (b"a\xFF", 0),
            // No character begins like this.
            (b"\xE0\x80", 0),
            (b"\xC0", 0),
        ];
        for (bytes, cut) in cases {
            assert_eq!(cut_character(bytes), cut, "{bytes:?}");
        }
    }
}
