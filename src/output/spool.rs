//! Writing the beginning of a spool: the agent's own words before the supervisor has it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    sync::Arc,
};

use quickcmd_init::spool::{Header, Kind, MAX_BODY};

use super::{cursor::Cursor, named, row::Row};
use crate::base::clock::Timestamp;

/// A spool that is the agent's to write, until it hands its descriptor over.
#[derive(Debug)]
pub struct Spool {
    row: Arc<Row>,
    file: File,
    length: u64,
    next_seq: u64,
    /// Bytes of system words so far.
    said: u64,
    handed_over: bool,
}

impl Spool {
    pub(super) fn create(row: Arc<Row>) -> io::Result<Spool> {
        let file = options().create_new(true).open(&row.path).map_err(|e| named(&e, "make", &row.path))?;
        row.wake();
        Ok(Spool { row, file, length: 0, next_seq: 1, said: 0, handed_over: false })
    }

    pub(super) async fn reopen(row: Arc<Row>) -> io::Result<Spool> {
        let file = options().create(true).open(&row.path).map_err(|e| named(&e, "open", &row.path))?;
        let mut cursor = Cursor::new(row);
        cursor.walk().await?;
        let end = cursor.position;
        file.set_len(end.at)?;
        let [_, _, said] = end.sent;
        Ok(Spool { row: cursor.row, file, length: end.at, next_seq: end.seq + 1, said, handed_over: false })
    }

    /// Says something to the readers, as frames of the stream `system`.
    ///
    /// # Errors
    /// The descriptor has been handed over: from then on only the supervisor writes. The disk says no:
    /// then the spool is as it was before.
    pub fn system(&mut self, text: &str, now: Timestamp) -> io::Result<()> {
        if self.handed_over {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the spool {} is the supervisor's already", self.row.path.display()),
            ));
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (body, more) = rest.split_at(boundary(rest));
            rest = more;
            self.append(body, now)?;
        }
        self.row.wake();
        Ok(())
    }

    fn append(&mut self, body: &str, now: Timestamp) -> io::Result<()> {
        let header = Header {
            len: u32::try_from(body.len()).expect("a body is at most MAX_BODY long"),
            kind: Kind::System,
            binary: false,
            seq: self.next_seq,
            time_ns: u64::try_from(now.0).unwrap_or(0),
            offset: self.said,
        };
        let mut record = header.encode().to_vec();
        record.extend_from_slice(body.as_bytes());
        // One write, so that no reader sees a half but at the end of the file; a half that the disk had
        // room for is taken back, or what the supervisor appends would be unreadable.
        let written = self.file.write(&record);
        if written.as_ref().ok() != Some(&record.len()) {
            self.file.set_len(self.length)?;
            return Err(match written {
                Err(e) => named(&e, "write to", &self.row.path),
                Ok(_) => named(&io::ErrorKind::StorageFull.into(), "write to", &self.row.path),
            });
        }
        self.length += record.len() as u64;
        self.said += body.len() as u64;
        self.next_seq += 1;
        Ok(())
    }

    /// Number of the next frame: the first one of the supervisor.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The descriptor for the supervisor: write-only, every write goes to the end. After this the agent
    /// writes no more.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn writer_fd(&mut self) -> io::Result<OwnedFd> {
        let fd = self.file.try_clone()?;
        self.handed_over = true;
        Ok(fd.into())
    }
}

/// The length of the first frame of a text: at most [`MAX_BODY`], and no character is cut in two.
fn boundary(text: &str) -> usize {
    (0..=text.len().min(MAX_BODY)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Append-only, readable by the agent alone.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o600);
    options
}
