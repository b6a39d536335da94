//! A reader of a row's frames: told that there is something new, it fetches what it lacks.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::watch;
use tokio_util::bytes::Bytes as Shared;

use super::{
    cursor::{Cursor, Record, counter},
    frame::{Line, Stream, frame},
    recent::Kept,
    row::{News, Row},
};
use crate::wire::frame::Frame;

/// Reads a row's frames in order, from a number on. Any number of them; none holds up another. Its
/// waits may be dropped and begun again without losing a frame.
#[derive(Debug)]
pub struct Reader {
    cursor: Cursor,
    news: watch::Receiver<News>,
    job_id: String,
    from_seq: u64,
    system: bool,
    /// Byte of the file before which it has let the others go first.
    gave_way: u64,
}

impl Reader {
    pub(super) fn new(row: Arc<Row>, job_id: &str, from_seq: u64, system: bool) -> Reader {
        row.readers.fetch_add(1, Ordering::Relaxed);
        row.rows.readers.fetch_add(1, Ordering::Relaxed);
        let news = row.subscribe();
        let start = row.position(|position| position.seq < from_seq);
        let mut cursor = Cursor::new(row);
        cursor.go(start);
        Reader { cursor, news, job_id: job_id.to_owned(), from_seq, system, gave_way: u64::MAX }
    }

    /// The next frame; waits for it. `None`: the row is finished and everything was read. The last frame,
    /// with the result, is the caller's to make.
    ///
    /// # Errors
    /// The spool is damaged (from here on) or unreadable.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let finished = self.news.borrow_and_update().finished;
            if let Some((record, stream)) = self.wanted().await? {
                let frame = self.frame(&record, stream).await?;
                self.cursor.pass(&record.after);
                return Ok(Some(frame));
            }
            if finished || self.news.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// The next frame as it travels, shared with the other readers of this row where they read at its end.
    /// Otherwise as [`Reader::next`].
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn next_json(&mut self) -> io::Result<Option<Line>> {
        loop {
            let finished = self.news.borrow_and_update().finished;
            while let Some(line) = self.line().await? {
                if self.wants(line.seq, line.stream) {
                    return Ok(Some(line));
                }
            }
            if finished || self.news.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Number of the last frame passed, also of those left out; 0 if there was none.
    pub fn last_seq(&self) -> u64 {
        self.cursor.position.seq
    }

    fn wants(&self, seq: u64, stream: Stream) -> bool {
        seq >= self.from_seq && (self.system || stream != Stream::System)
    }

    /// The next wanted frame's record, if it is there; passes what is not wanted.
    async fn wanted(&mut self) -> io::Result<Option<(Record, Stream)>> {
        while let Some(record) = self.cursor.record().await? {
            match Stream::of(record.header.kind) {
                Some(stream) if self.wants(record.header.seq, stream) => return Ok(Some((record, stream))),
                _ => self.cursor.pass(&record.after),
            }
        }
        Ok(None)
    }

    /// The frame that stands here, if another reader has serialised it. Passes it.
    fn recent(&mut self) -> Option<Line> {
        let kept = self.cursor.row.recent(self.cursor.position.at)?;
        self.cursor.pass(&kept.after);
        Some(kept.line)
    }

    /// The next frame, serialised; maybe an unwanted one. Passes it.
    async fn line(&mut self) -> io::Result<Option<Line>> {
        let row = Arc::clone(&self.cursor.row);
        if let Some(line) = self.recent() {
            tokio::task::coop::consume_budget().await;
            return Ok(Some(line));
        }
        // A single reader has nobody to share with. Among several, the first lets those go first that are
        // still about to take the frame before this one, or it would run ahead of what is kept for them.
        let shared = row.readers.load(Ordering::Relaxed) > 1;
        if shared && self.gave_way != self.cursor.position.at {
            self.gave_way = self.cursor.position.at;
            tokio::task::yield_now().await;
            if let Some(line) = self.recent() {
                return Ok(Some(line));
            }
        }
        let before = self.cursor.position.at;
        let Some((record, stream)) = self.wanted().await? else { return Ok(None) };
        // Behind what is no frame, or not wanted, another may have been before.
        if shared
            && self.cursor.position.at != before
            && let Some(line) = self.recent()
        {
            return Ok(Some(line));
        }
        let frame = self.frame(&record, stream).await?;
        let json = Shared::from(serde_json::to_vec(&frame).map_err(io::Error::other)?);
        let line = Line { seq: frame.seq, stream, json };
        if shared {
            let kept = Kept { at: self.cursor.position.at, after: record.after, line: line.clone() };
            row.keep(kept);
        }
        self.cursor.pass(&record.after);
        Ok(Some(line))
    }

    async fn frame(&self, record: &Record, stream: Stream) -> io::Result<Frame> {
        let body = self.cursor.body(record).await?;
        let offset = counter(record.header.kind).map_or(0, |n| self.cursor.position.sent[n]);
        Ok(frame(&self.job_id, &record.header, stream, offset, body))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let row = &self.cursor.row;
        row.rows.readers.fetch_sub(1, Ordering::Relaxed);
        // Whoever is left has nobody to share with.
        if row.readers.fetch_sub(1, Ordering::Relaxed) <= 2 {
            row.keep_nothing();
        }
    }
}
