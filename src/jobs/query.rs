//! Reading: status, list, output, stream. Somebody else's job is not there.

use std::sync::Arc;

use rusqlite::Connection;

use super::{service::storage_error, shared::Shared};
use crate::{
    base::{
        budget::{Held, Purse},
        clock::Timestamp,
    },
    gate::Reader,
    output::{self, Line, Stream},
    store::{
        StoreError,
        jobs::{self, Job, ListFilter, Located},
    },
    wire::{
        Code, Problem, Status,
        frame::Frame,
        result::{JobPage, JobStatus},
    },
};

/// Rows of a page where the query does not say.
pub const DEFAULT_PAGE: u32 = 50;
/// Rows of a page at most.
pub const LARGEST_PAGE: u32 = 500;

/// Bytes of a result's texts that are read without asking for memory: what most jobs have.
pub(super) const SMALL: usize = 8 << 10;
/// Bytes of memory for each byte of text: itself, and JSON, which writes a control character as six.
const MEMORY: usize = 7;
/// Seconds after which memory for a large result may be free.
pub(super) const TRY_AGAIN: u32 = 5;

/// What to list; the fields as they stand in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only jobs of this status.
    pub status: Option<Status>,
    /// Only jobs that ended so.
    pub reason: Option<String>,
    /// Only this controller's jobs: for administrators.
    pub controller_id: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// 1 to [`LARGEST_PAGE`].
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A stream of a job's output, for download.
#[derive(Debug)]
pub struct OutputFile {
    /// The bytes there are now; `None`: the job has written nothing.
    pub bytes: Option<output::Bytes>,
    /// Whether there will be no more.
    pub complete: bool,
    /// SHA-256 of the whole, in hex, when it is complete.
    pub sha256: Option<String>,
}

/// Frames of one job, from a number on, and at last the final one.
pub struct JobStream {
    shared: Arc<Shared>,
    row: i64,
    job_id: String,
    reader: Option<output::Reader>,
    purse: Purse,
    held: Option<Held>,
}

/// What a stream gives.
#[derive(Debug, Clone)]
pub enum Streamed {
    /// A frame as JSON text.
    Line(Line),
    /// The last frame.
    Final(Box<Frame>),
}

/// The row of the job that the reader means by that id and may see. Another controller's job is not looked
/// for where it may not be seen: not even the time it takes tells of it.
fn locate(db: &Connection, reader: &Reader, job_id: &str) -> Result<Located, StoreError> {
    let own = match reader.own() {
        Some(id) => jobs::locate(db, id, job_id)?,
        None => None,
    };
    match own {
        Some(row) => Ok(Located::Row(row)),
        None if reader.sees_all() => jobs::locate_any(db, job_id),
        None => Ok(Located::Nowhere),
    }
}

/// The row, or why there is none.
pub(super) fn located(located: Located, job_id: &str, how: &str) -> Result<i64, Problem> {
    match located {
        Located::Row(row) => Ok(row),
        Located::Nowhere => {
            Err(Problem::new(Code::JobNotFound).details(format!("there is no job {job_id:?} of yours")))
        }
        Located::Ambiguous => Err(Problem::new(Code::JobIdAmbiguous)
            .details(format!("several controllers have a job {job_id:?}: say whose you mean with {how}"))),
    }
}

/// What a look for a job found.
enum Found {
    Job(Box<Job>),
    /// It has texts of so many bytes: more than may be read yet.
    Large(usize),
    None(Located),
}

/// Reads a job with its texts, and answers what these hold of the memory that all have, if they are large.
///
/// # Errors
/// `BUSY` if there was none in time. The inner one: there is no job.
async fn whole(
    shared: &Arc<Shared>,
    purse: &Purse,
    locate: impl Fn(&Connection) -> Result<Located, StoreError> + Clone + Send + 'static,
) -> Result<(Result<Job, Located>, Option<Held>), Problem> {
    let (mut held, mut may) = (None, SMALL);
    // A second time for a large one, and a third for one that ended in between.
    loop {
        let locate = locate.clone();
        let found = shared
            .store
            .read(move |db| {
                let located = locate(db)?;
                let Located::Row(row) = located else { return Ok(Found::None(located)) };
                let bytes = jobs::text_bytes(db, row)?;
                if bytes > may {
                    return Ok(Found::Large(bytes));
                }
                let job = jobs::get(db, row)?;
                Ok(job.map_or(Found::None(Located::Nowhere), |job| Found::Job(Box::new(job))))
            })
            .await
            .map_err(|error| storage_error(&error))?;
        match found {
            Found::Job(job) => return Ok((Ok(*job), held)),
            Found::None(why) => return Ok((Err(why), None)),
            Found::Large(bytes) => {
                // Who waits holds nothing.
                drop(held.take());
                held = purse.take(bytes.saturating_mul(MEMORY)).await;
                if held.is_none() {
                    return Err(Problem::new(Code::Busy)
                        .details("too many large results are being read; try again later")
                        .retry_after(TRY_AGAIN));
                }
                may = bytes;
            }
        }
    }
}

/// Why the reader gets no job.
fn no_job(why: Located, job_id: &str) -> Problem {
    match located(why, job_id, "?controller_id=") {
        Err(problem) => problem,
        // It was there, and is not any more.
        Ok(_) => Problem::new(Code::JobNotFound),
    }
}

/// Finds the job that the reader means by that id and may see, without its texts.
pub(super) async fn find(shared: &Arc<Shared>, reader: &Reader, job_id: &str) -> Result<Job, Problem> {
    let (owned, id) = (reader.clone(), job_id.to_owned());
    let found = shared
        .store
        .read(move |db| {
            let located = locate(db, &owned, &id)?;
            let job = match located {
                Located::Row(row) => jobs::glance(db, row)?,
                Located::Nowhere | Located::Ambiguous => None,
            };
            Ok(job.ok_or(located))
        })
        .await
        .map_err(|error| storage_error(&error))?;
    found.map_err(|why| no_job(why, job_id))
}

pub(super) async fn list(
    shared: &Arc<Shared>,
    reader: &Reader,
    query: ListQuery,
) -> Result<JobPage, Problem> {
    let invalid = |parameter: &str, details: String| {
        Problem::new(Code::InvalidQuery).details(details).with("parameter", parameter)
    };
    let controller = match (reader, reader.own()) {
        // Knowing an id is enough to read that job; ids themselves are not given out.
        (Reader::Anyone, _) => {
            return Err(Problem::new(Code::Unauthenticated).details(
                "a list needs a controller's signature (RFC 9421) or a token, whatever read_access says",
            ));
        }
        (_, Some(id)) if !reader.sees_all() => {
            if query.controller_id.as_ref().is_some_and(|wanted| wanted != id) {
                return Ok(JobPage { jobs: Vec::new(), next_cursor: None });
            }
            Some(id.to_owned())
        }
        _ => query.controller_id,
    };
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(invalid("limit", format!("limit is {limit}, and may be 1 to {LARGEST_PAGE}")));
    }
    let cursor = match query.cursor.as_deref() {
        None => None,
        Some(text) => Some(jobs::Cursor::parse(text).ok_or_else(|| {
            invalid("cursor", "cursor is none that a page gave; leave it out for the first page".to_owned())
        })?),
    };
    let filter = ListFilter {
        controller,
        status: query.status,
        reason: query.reason,
        since: query.since,
        until: query.until,
        limit,
        cursor,
    };
    let (jobs, next) =
        shared.store.read(move |db| jobs::list(db, &filter)).await.map_err(|error| storage_error(&error))?;
    Ok(JobPage { jobs, next_cursor: next.map(|cursor| cursor.to_string()) })
}

pub(super) async fn status(
    shared: &Arc<Shared>,
    reader: &Reader,
    job_id: &str,
    purse: &Purse,
) -> Result<(JobStatus, Option<Held>), Problem> {
    let (owned, id) = (reader.clone(), job_id.to_owned());
    let (job, held) = whole(shared, purse, move |db| locate(db, &owned, &id)).await?;
    Ok((job.map_err(|why| no_job(why, job_id))?.into_status(), held))
}

pub(super) async fn output(
    shared: &Arc<Shared>,
    reader: &Reader,
    job_id: &str,
    stream: Stream,
) -> Result<OutputFile, Problem> {
    let job = find(shared, reader, job_id).await?;
    let complete = job.state.is_final();
    let (sha256, bytes) = match stream {
        Stream::Stderr => (job.stderr_sha256.clone(), job.stderr_bytes),
        Stream::Stdout | Stream::System => (job.stdout_sha256.clone(), job.stdout_bytes),
    };
    match shared.outputs.bytes(job.row, stream).await {
        Ok(found) => Ok(OutputFile { bytes: Some(found), complete, sha256: sha256.filter(|_| complete) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && complete && bytes > 0 => {
            Err(Problem::new(Code::OutputGone).details(
                "the output is no longer kept, for its time of retention is over or its room was needed; its length and \
                 hash are in the status",
            ))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(OutputFile { bytes: None, complete, sha256: sha256.filter(|_| complete) })
        }
        Err(error) => {
            tracing::error!(job_id, %error, "output could not be read");
            Err(Problem::new(Code::Internal))
        }
    }
}

pub(super) async fn stream(
    shared: &Arc<Shared>,
    reader: &Reader,
    job_id: &str,
    from_seq: Option<u64>,
    system: bool,
    purse: Purse,
) -> Result<JobStream, Problem> {
    let job = find(shared, reader, job_id).await?;
    // First the reader, then the look at the state: an end in between is not missed.
    let frames = shared.outputs.reader(job.row, &job.job_id, from_seq.unwrap_or(1), system);
    let row = job.row;
    let now =
        shared.store.read(move |db| jobs::glance(db, row)).await.map_err(|error| storage_error(&error))?;
    if now.is_none_or(|job| job.state.is_final()) {
        shared.outputs.finish(row);
    }
    Ok(JobStream {
        row,
        job_id: job.job_id,
        reader: Some(frames),
        shared: Arc::clone(shared),
        purse,
        held: None,
    })
}

impl JobStream {
    /// The next frame; `None` after the final one. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// The output can't be read, or the record can't; `BUSY` where there is no memory for the final frame now.
    pub async fn next(&mut self) -> Result<Option<Streamed>, Problem> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        match reader.next_json().await {
            Ok(Some(line)) => return Ok(Some(Streamed::Line(line))),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(job_id = self.job_id, %error, "a stream could not be read");
                return Err(Problem::new(Code::Internal));
            }
        }
        let seq = reader.last_seq() + 1;
        let row = self.row;
        let (job, held) = whole(&self.shared, &self.purse, move |_| Ok(Located::Row(row))).await?;
        let job = job.map_err(|why| no_job(why, &self.job_id))?;
        self.held = held;
        self.reader = None;
        Ok(Some(Streamed::Final(Box::new(final_frame(job, seq)))))
    }

    /// The memory that the final frame takes, if it is large: to be kept as long as the frame is.
    pub fn take_held(&mut self) -> Option<Held> {
        self.held.take()
    }
}

/// The last frame of a job.
fn final_frame(job: Job, seq: u64) -> Frame {
    let (job_id, timestamp) = (job.job_id.clone(), job.ended_at.unwrap_or(job.accepted_at).rfc3339());
    Frame {
        job_id,
        timestamp,
        stream: String::new(),
        data: String::new(),
        r#final: true,
        seq,
        offset: 0,
        encoding: None,
        result: job.into_status().result,
    }
}
