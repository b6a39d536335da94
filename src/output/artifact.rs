//! The bytes of a file that a job has left.

use std::{io, ops::Range};

use futures_util::stream;
use quickcmd_init::spool::Kind;
use tokio_util::bytes::Bytes as Chunk;

use super::cursor::{Cursor, Position};

/// One file. Holds a position, and no more than a chunk while it is read.
#[derive(Debug)]
pub struct Kept {
    cursor: Cursor,
    /// Bytes of it before the cursor.
    passed: u64,
    len: u64,
}

impl Kept {
    pub(super) fn open(mut cursor: Cursor, at: u64, len: u64) -> io::Result<Kept> {
        if cursor.row.file()?.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no spool {}", cursor.row.path.display()),
            ));
        }
        cursor.go(Position { at, ..Position::default() });
        Ok(Kept { cursor, passed: 0, len })
    }

    /// Bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A range of the bytes, in chunks that are read when they are asked for.
    pub fn chunks(self, range: Range<u64>) -> impl stream::Stream<Item = io::Result<Chunk>> + Send + 'static {
        let range = range.start..range.end.min(self.len);
        stream::try_unfold((self, range), |(mut kept, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let chunk = kept.next(&range).await?;
            let rest = range.start + chunk.len() as u64..range.end;
            Ok::<_, io::Error>(Some((Chunk::from(chunk), (kept, rest))))
        })
    }

    /// What one record holds of the range, which must not be empty and not begin before the cursor.
    async fn next(&mut self, range: &Range<u64>) -> io::Result<Vec<u8>> {
        loop {
            let Some(record) = self.cursor.record().await? else {
                return Err(self.cursor.corrupt("the file has become shorter").into());
            };
            if record.header.kind != Kind::Artifact
                || record.header.offset != self.passed
                || record.header.len == 0
            {
                return Err(self.cursor.corrupt("no piece of an artifact is here").into());
            }
            let end = self.passed + u64::from(record.header.len);
            if end <= range.start {
                self.passed = end;
                self.cursor.go(record.after);
                continue;
            }
            let from = range.start - self.passed;
            let len = usize::try_from(end.min(range.end) - range.start).expect("no more than one record");
            let part = self.cursor.part(from, len).await?;
            if end <= range.end {
                self.passed = end;
                self.cursor.go(record.after);
            }
            return Ok(part);
        }
    }
}
