//! Walking a spool, record by record, while it grows.

use std::{io, sync::Arc};

use quickcmd_init::spool::{HEADER, Header, Kind, MAX_BODY};

use super::{
    file::{Corrupt, read_at},
    row::Row,
};

/// Bytes read at once where headers are looked for: many small records, or the head of a large one.
const WINDOW: usize = 4096;

/// A place between two records, and what came before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Byte of the file.
    pub(super) at: u64,
    /// Number of the last frame before it.
    pub(super) seq: u64,
    /// Bytes of stdout, stderr and system before it.
    pub(super) sent: [u64; 3],
}

/// A whole record, its body not yet read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) header: Header,
    /// The place behind it.
    pub(super) after: Position,
}

/// A place in a row's spool that moves on.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) row: Arc<Row>,
    pub(super) position: Position,
    window: Vec<u8>,
    window_at: u64,
    /// The file has at least this length.
    length: u64,
}

/// Which of a position's counters a kind of frame belongs to.
pub(super) fn counter(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Stdout => Some(0),
        Kind::Stderr => Some(1),
        Kind::System => Some(2),
        Kind::Started | Kind::Report | Kind::Artifact => None,
    }
}

impl Position {
    /// The place behind a record that stands here, or what is wrong with that record.
    fn after(mut self, header: &Header) -> Result<Position, String> {
        if let Some(counter) = counter(header.kind) {
            if header.len as usize > MAX_BODY {
                return Err(format!("a frame of {} bytes", header.len));
            }
            if header.seq != self.seq + 1 {
                return Err(format!("frame {} follows frame {}", header.seq, self.seq));
            }
            // The supervisor does not know how much the agent has said before it.
            if header.kind != Kind::System && header.offset != self.sent[counter] {
                return Err(format!(
                    "a frame at byte {} of its stream follows {} bytes",
                    header.offset, self.sent[counter]
                ));
            }
            self.seq += 1;
            self.sent[counter] += u64::from(header.len);
        }
        self.at += HEADER as u64 + u64::from(header.len);
        Ok(self)
    }
}

impl Cursor {
    pub(super) fn new(row: Arc<Row>) -> Cursor {
        Cursor { row, position: Position::default(), window: Vec::new(), window_at: 0, length: 0 }
    }

    /// The record that stands here, if all of it is in the file. Does not move.
    pub(super) async fn record(&mut self) -> io::Result<Option<Record>> {
        tokio::task::coop::consume_budget().await;
        let Some(file) = self.row.file()? else { return Ok(None) };
        if self.buffered().len() < HEADER {
            self.window = read_at(file, self.position.at, WINDOW).await?;
            self.window_at = self.position.at;
        }
        let record = match self.buffered().first_chunk::<HEADER>() {
            Some(bytes) => {
                let header = Header::decode(bytes).ok_or_else(|| self.corrupt("no record begins here"))?;
                let after = self.position.after(&header).map_err(|what| self.corrupt(what))?;
                Some(Record { header, after })
            }
            None => None,
        };
        if let Some(record) = record {
            if record.after.at > self.length {
                self.length =
                    self.row.file()?.map_or(Ok(0), |file| file.metadata().map(|meta| meta.len()))?;
            }
            if record.after.at <= self.length {
                return Ok(Some(record));
            }
        }
        // Here it waits, maybe for long: hold nothing. (And a torn record may yet be cut off.)
        self.window = Vec::new();
        Ok(None)
    }

    /// The body of the record that stands here.
    pub(super) async fn body(&self, record: &Record) -> io::Result<Vec<u8>> {
        let len = record.header.len as usize;
        if let Some(body) = self.buffered().get(HEADER..HEADER + len) {
            return Ok(body.to_vec());
        }
        self.part(0, len).await
    }

    /// A part of the body of the record that stands here.
    pub(super) async fn part(&self, from: u64, len: usize) -> io::Result<Vec<u8>> {
        let Some(file) = self.row.file()? else { return Err(self.corrupt("the file is gone").into()) };
        let part = read_at(file, self.position.at + HEADER as u64 + from, len).await?;
        if part.len() < len {
            return Err(self.corrupt("the file has become shorter").into());
        }
        Ok(part)
    }

    /// Moves behind a record that stood here.
    pub(super) fn pass(&mut self, after: &Position) {
        self.position = *after;
        self.row.remember(after);
    }

    /// Moves to a place that is known to lie between two records.
    pub(super) fn go(&mut self, position: Position) {
        self.position = position;
    }

    /// Moves to the end of the whole records.
    pub(super) async fn walk(&mut self) -> io::Result<()> {
        while let Some(record) = self.record().await? {
            self.pass(&record.after);
        }
        Ok(())
    }

    pub(super) fn corrupt(&self, what: impl Into<String>) -> Corrupt {
        Corrupt { file: self.row.path.clone(), at: self.position.at, what: what.into() }
    }

    /// What the window holds from here on.
    fn buffered(&self) -> &[u8] {
        let skip = self.position.at.checked_sub(self.window_at).and_then(|skip| usize::try_from(skip).ok());
        skip.and_then(|skip| self.window.get(skip..)).unwrap_or_default()
    }
}
