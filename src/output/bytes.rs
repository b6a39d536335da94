//! The exact bytes of one stream, for downloads and for the result's text.

use std::{io, ops::Range};

use futures_util::stream;
use quickcmd_init::proto::StreamTotals;
use sha2::{Digest, Sha256};
use tokio_util::bytes::Bytes as Chunk;

use super::{
    cursor::{Cursor, counter},
    frame::Stream,
};

/// Bytes in one chunk of [`Bytes::chunks`].
const CHUNK: usize = 64 << 10;

/// The totals of a stream that no byte came from.
pub fn nothing() -> StreamTotals {
    StreamTotals { sha256: hex::encode(Sha256::digest([])), ..StreamTotals::default() }
}

/// The bytes of one stream as they were when this was opened, also while the job runs on. Holds no
/// more than what one read gives out.
#[derive(Debug)]
pub struct Bytes {
    cursor: Cursor,
    stream: Stream,
    len: u64,
}

impl Bytes {
    pub(super) async fn open(mut cursor: Cursor, stream: Stream) -> io::Result<Bytes> {
        if cursor.row.file()?.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no spool {}", cursor.row.path.display()),
            ));
        }
        // What somebody has walked already is not walked again.
        cursor.go(cursor.row.position(|_| true));
        cursor.walk().await?;
        let len = cursor.position.sent[slot(stream)];
        Ok(Bytes { cursor, stream, len })
    }

    /// Bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `offset` on, `max` of them; fewer only where they end. One read after the other costs
    /// no search.
    ///
    /// # Errors
    /// The spool is damaged or unreadable.
    pub async fn read(&mut self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        let slot = slot(self.stream);
        let end = self.len.min(offset.saturating_add(max as u64));
        let mut bytes = Vec::new();
        if offset >= end {
            return Ok(bytes);
        }
        let near = self.cursor.row.position(|position| position.sent[slot] <= offset);
        let here = self.cursor.position;
        if here.sent[slot] > offset || here.at < near.at {
            self.cursor.go(near);
        }
        let mut next = offset;
        while next < end {
            let Some(record) = self.cursor.record().await? else {
                return Err(self.cursor.corrupt("the file has become shorter").into());
            };
            let from = self.cursor.position.sent[slot];
            let to = record.after.sent[slot];
            if counter(record.header.kind) == Some(slot) && to > next {
                let len = usize::try_from(to.min(end) - next).expect("no more than one record");
                bytes.extend(self.cursor.part(next - from, len).await?);
                next += len as u64;
                if to > end {
                    // The next read begins in this record.
                    break;
                }
            }
            self.cursor.pass(&record.after);
        }
        Ok(bytes)
    }

    /// A range of the bytes, in chunks that are read when they are asked for.
    pub fn chunks(self, range: Range<u64>) -> impl stream::Stream<Item = io::Result<Chunk>> + Send + 'static {
        stream::try_unfold((self, range), |(mut bytes, range)| async move {
            let max = range.end.saturating_sub(range.start).min(CHUNK as u64);
            let chunk = bytes.read(range.start, usize::try_from(max).unwrap_or(CHUNK)).await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let rest = range.start + chunk.len() as u64..range.end;
            Ok(Some((Chunk::from(chunk), (bytes, rest))))
        })
    }

    /// How many can be read, and their hash.
    pub(super) async fn totals(mut self) -> StreamTotals {
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Ok(piece) = self.read(bytes, 4 * CHUNK).await {
            if piece.is_empty() {
                break;
            }
            bytes += piece.len() as u64;
            hash.update(&piece);
        }
        StreamTotals { bytes, dropped: 0, sha256: hex::encode(hash.finalize()) }
    }

    /// The first `max` bytes as text; see [`super::Outputs::text`].
    ///
    /// # Errors
    /// As [`Bytes::read`].
    pub async fn text(&mut self, max: usize) -> io::Result<String> {
        // A character has 4 bytes at most: so many show whether the cut goes through one.
        let mut bytes = self.read(0, max.saturating_add(3)).await?;
        if bytes.len() > max {
            bytes.truncate(cut(&bytes, max));
        }
        Ok(match String::from_utf8_lossy(&bytes) {
            std::borrow::Cow::Owned(text) => text,
            std::borrow::Cow::Borrowed(_) => String::from_utf8(bytes).unwrap_or_default(),
        })
    }
}

/// Where to cut at `max` or before it so that no character is cut in two.
fn cut(bytes: &[u8], max: usize) -> usize {
    for start in max.saturating_sub(3)..max {
        let len = match bytes[start] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => continue,
        };
        let whole = bytes.get(start..start + len);
        if start + len > max && whole.is_some_and(|whole| str::from_utf8(whole).is_ok()) {
            return start;
        }
    }
    max
}

fn slot(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::System => 2,
    }
}
