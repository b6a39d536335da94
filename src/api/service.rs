//! What the door asks of the job service. The door is written against this trait, so that its own tests
//! bring a service that does as they say; `jobs::Service` is the one in the agent.

use std::{io, ops::Range};

use axum::{body::Bytes, extract::ws::Utf8Bytes};
use futures_util::{future::BoxFuture, stream::BoxStream};
use serde_json::{Map, Value};

use crate::{
    base::{
        budget::{Held, Purse},
        clock::Timestamp,
    },
    gate::{Holder, Operator, ReadRequest, Reader, Via},
    wire::{
        Problem, Status,
        result::{Accepted, CancelAnswer, DrainAnswer, JobPage, JobStatus},
    },
};

/// An answer of the service.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// Takes jobs, ends them, tells of them. A submission or cancellation runs to its end even if its client
/// has gone: the door sees to that.
pub trait Jobs: Send + Sync + 'static {
    /// A signed envelope with a job.
    fn submit(&self, body: Bytes, via: Via, now: Timestamp) -> Answer<'_, Accepted>;

    /// A signed envelope that cancels the job.
    fn cancel<'a>(
        &'a self,
        job_id: &'a str,
        body: Bytes,
        via: Via,
        now: Timestamp,
    ) -> Answer<'a, CancelAnswer>;

    /// Who reads.
    ///
    /// # Errors
    /// There is no proof where one is needed, or it does not hold.
    fn reader(&self, request: &ReadRequest, now: Timestamp) -> Result<Reader, Problem>;

    /// Whether who was let read may go on. `certificate`: whose the connection's is now.
    fn may_go_on(&self, reader: &Reader, certificate: Option<&Holder>, now: Timestamp) -> bool;

    /// Who operates: cancels without a signature, and drains.
    ///
    /// # Errors
    /// There is no token or certificate that gives the right.
    fn operator(&self, request: &ReadRequest, now: Timestamp) -> Result<Operator, Problem>;

    /// A cancellation by who operates.
    fn cancel_by<'a>(
        &'a self,
        operator: &'a Operator,
        job_id: &'a str,
        body: Bytes,
        now: Timestamp,
    ) -> Answer<'a, CancelAnswer>;

    /// Takes and starts no more jobs, or does again.
    fn drain<'a>(&'a self, operator: &'a Operator, drain: bool) -> Answer<'a, DrainAnswer>;

    /// One job, and the memory that its texts take, if they are large.
    fn status<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        purse: &'a Purse,
    ) -> Answer<'a, (JobStatus, Option<Held>)>;

    /// Many jobs, newest first.
    fn list<'a>(&'a self, reader: &'a Reader, query: ListQuery) -> Answer<'a, JobPage>;

    /// A job's frames, from `from_seq` (1 is the first) to the final one.
    fn stream<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        from_seq: Option<u64>,
        system: bool,
        purse: Purse,
    ) -> Answer<'a, Frames>;

    /// The exact bytes of one stream of a job.
    fn output<'a>(&'a self, reader: &'a Reader, job_id: &'a str, of: Of) -> Answer<'a, Output>;

    /// A file that a job has left, by its path.
    fn artifact<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        path: &'a str,
        purse: &'a Purse,
    ) -> Answer<'a, Output>;

    /// All files that a job has left, as an archive of `tar`; its `chunks` gives the whole, whatever the range.
    /// While these are there they hold the memory that the job's list takes.
    fn artifacts<'a>(&'a self, reader: &'a Reader, job_id: &'a str, purse: &'a Purse) -> Answer<'a, Output>;

    /// Whether new jobs would be taken and could run.
    fn readiness(&self) -> Readiness;

    /// More fields for `/health`.
    fn details(&self) -> Map<String, Value>;
}

/// What `GET /api/v1/jobs` asks for. Every filter narrows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    pub status: Option<Status>,
    /// A reason of ended jobs, or the code of rejected ones.
    pub reason: Option<String>,
    pub controller_id: Option<String>,
    /// Accepted at that moment or later.
    pub since: Option<Timestamp>,
    /// Accepted before that moment.
    pub until: Option<Timestamp>,
    /// Rows of one page, 1 to 500.
    pub limit: usize,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Frames as they come; the service has written them as JSON. [`io::ErrorKind::ResourceBusy`]: there is no memory
/// for the final one now.
pub type Frames = BoxStream<'static, io::Result<FrameText>>;

/// One frame.
#[derive(Debug)]
pub struct FrameText {
    /// Its JSON; the bytes are shared with the other readers of the job.
    pub json: Utf8Bytes,
    /// Whether it is the final one.
    pub last: bool,
    /// The memory that it takes, if it is large.
    pub held: Option<Held>,
}

/// A stream of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Stdout,
    Stderr,
}

/// The bytes of one stream, as many as there were when it was asked for.
pub struct Output {
    pub len: u64,
    /// SHA-256 of the whole stream in hex, once the job has ended and nothing will come any more.
    pub sha256: Option<String>,
    /// Whether reading it holds memory that others wait for: then it must be read in time.
    pub holds: bool,
    /// Reads a range, in chunks.
    pub chunks: Box<dyn FnOnce(Range<u64>) -> BoxStream<'static, io::Result<Bytes>> + Send>,
}

/// Whether the agent is of use now, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// One sentence each.
    pub problems: Vec<String>,
}
