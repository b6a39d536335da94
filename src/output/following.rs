//! What the supervisor says of a job in its spool: started, report.

use std::io;

use quickcmd_init::{proto::Report, spool::Kind};
use tokio::sync::watch;

use super::{cursor::Cursor, row::News};
use crate::base::{clock::Timestamp, failpoints::failpoint};

/// Follows a row's spool for the runner. Its waits may be dropped and begun again.
#[derive(Debug)]
pub struct Following {
    cursor: Cursor,
    news: watch::Receiver<News>,
    started: Option<Timestamp>,
    report: Option<Report>,
}

/// What a spool holds so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub started: Option<Timestamp>,
    pub report: Option<Report>,
    /// Number of the last frame; 0 if there is none.
    pub last_seq: u64,
    /// Bytes of stdout and stderr together.
    pub bytes: u64,
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
}

impl Following {
    pub(super) fn new(cursor: Cursor) -> Following {
        let news = cursor.row.subscribe();
        Following { cursor, news, started: None, report: None }
    }

    /// Waits until the supervisor has the job and is about to start it, and says when that was; `None` if
    /// its report came without.
    ///
    /// # Errors
    /// The spool is damaged or unreadable; or the row was finished without a word of it.
    pub async fn started(&mut self) -> io::Result<Option<Timestamp>> {
        loop {
            let finished = self.news.borrow_and_update().finished;
            self.advance().await?;
            if self.started.is_some() || self.report.is_some() {
                return Ok(self.started);
            }
            self.wait(finished).await?;
        }
    }

    /// Waits for the supervisor's report; with it comes the number of the last frame (0: none).
    ///
    /// # Errors
    /// As [`Following::started`].
    pub async fn report(&mut self) -> io::Result<(Report, u64)> {
        loop {
            let finished = self.news.borrow_and_update().finished;
            self.advance().await?;
            if let Some(report) = &self.report {
                return Ok((report.clone(), self.cursor.position.seq));
            }
            self.wait(finished).await?;
        }
    }

    /// What is there now, without waiting for more. No spool is an empty one.
    ///
    /// # Errors
    /// The spool is damaged or unreadable.
    pub async fn look(&mut self) -> io::Result<Seen> {
        self.advance().await?;
        let [stdout_bytes, stderr_bytes, _] = self.cursor.position.sent;
        Ok(Seen {
            started: self.started,
            report: self.report.clone(),
            last_seq: self.cursor.position.seq,
            bytes: stdout_bytes + stderr_bytes,
            stdout_bytes,
            stderr_bytes,
        })
    }

    /// Number of the last frame seen so far.
    pub fn last_seq(&self) -> u64 {
        self.cursor.position.seq
    }

    async fn advance(&mut self) -> io::Result<()> {
        while let Some(record) = self.cursor.record().await? {
            match record.header.kind {
                Kind::Started => {
                    self.started = Some(Timestamp(i64::try_from(record.header.time_ns).unwrap_or(i64::MAX)));
                }
                Kind::Report => {
                    let body = self.cursor.body(&record).await?;
                    let report = Report::parse(&body)
                        .map_err(|what| self.cursor.corrupt(format!("no report: {what}")))?;
                    self.report = Some(report);
                }
                Kind::Stdout | Kind::Stderr => {
                    failpoint!("output");
                }
                Kind::System | Kind::Artifact => {}
            }
            self.cursor.pass(&record.after);
        }
        let [stdout, stderr, _] = self.cursor.position.sent;
        self.cursor.row.count(stdout + stderr);
        Ok(())
    }

    async fn wait(&mut self, finished: bool) -> io::Result<()> {
        if finished || self.news.changed().await.is_err() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the spool {} was finished without a report", self.cursor.row.path.display()),
            ));
        }
        Ok(())
    }
}
