//! Joins the door and the job service: the one place that knows both.

use std::{io, ops::Range};

use axum::{body::Bytes, extract::ws::Utf8Bytes};
use futures_util::{StreamExt, stream, stream::BoxStream};
use serde_json::{Map, Value, json};

use crate::{
    api::service::{Answer, FrameText, Frames, Jobs, ListQuery, Of, Output, Readiness},
    base::{
        budget::{Held, Purse},
        clock::Timestamp,
    },
    gate::{Holder, Operator, ReadRequest, Reader, Via},
    jobs::{self, Service, Streamed},
    output::Stream,
    wire::{
        Code,
        result::{Accepted, CancelAnswer, DrainAnswer, JobPage, JobStatus},
    },
};

/// The job service as the door sees it.
pub(super) struct Doorway {
    pub service: Service,
    pub agent_id: String,
    pub started: Timestamp,
}

impl Jobs for Doorway {
    fn may_go_on(&self, reader: &Reader, certificate: Option<&Holder>, now: Timestamp) -> bool {
        self.service.may_go_on(reader, certificate, now)
    }

    fn submit(&self, body: Bytes, via: Via, now: Timestamp) -> Answer<'_, Accepted> {
        Box::pin(self.service.submit(body, via, now))
    }

    fn cancel<'a>(
        &'a self,
        job_id: &'a str,
        body: Bytes,
        via: Via,
        now: Timestamp,
    ) -> Answer<'a, CancelAnswer> {
        Box::pin(self.service.cancel(job_id, body, via, now))
    }

    fn reader(&self, request: &ReadRequest, now: Timestamp) -> Result<Reader, crate::wire::Problem> {
        self.service.reader(request, now)
    }

    fn operator(&self, request: &ReadRequest, now: Timestamp) -> Result<Operator, crate::wire::Problem> {
        self.service.operator(request, now)
    }

    fn cancel_by<'a>(
        &'a self,
        operator: &'a Operator,
        job_id: &'a str,
        body: Bytes,
        now: Timestamp,
    ) -> Answer<'a, CancelAnswer> {
        Box::pin(self.service.cancel_by(operator, job_id, body, now))
    }

    fn drain<'a>(&'a self, operator: &'a Operator, drain: bool) -> Answer<'a, DrainAnswer> {
        Box::pin(self.service.drain_by(operator, drain))
    }

    fn status<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        purse: &'a Purse,
    ) -> Answer<'a, (JobStatus, Option<Held>)> {
        Box::pin(self.service.status(reader, job_id, purse))
    }

    fn list<'a>(&'a self, reader: &'a Reader, query: ListQuery) -> Answer<'a, JobPage> {
        let query = jobs::ListQuery {
            status: query.status,
            reason: query.reason,
            controller_id: query.controller_id,
            since: query.since,
            until: query.until,
            limit: u32::try_from(query.limit).ok(),
            cursor: query.cursor,
        };
        Box::pin(self.service.list(reader, query))
    }

    fn stream<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        from_seq: Option<u64>,
        system: bool,
        purse: Purse,
    ) -> Answer<'a, Frames> {
        Box::pin(async move {
            let frames = self.service.stream(reader, job_id, from_seq, system, purse).await?;
            let frames = stream::unfold(Some(frames), |frames| async {
                let mut frames = frames?;
                match frames.next().await {
                    Ok(None) => None,
                    Ok(Some(frame)) => Some((text(frame, frames.take_held()), Some(frames))),
                    Err(problem) if problem.code == Code::Busy => {
                        Some((Err(io::Error::new(io::ErrorKind::ResourceBusy, problem.error)), None))
                    }
                    // The reader ends here; what it lacks it can ask for again.
                    Err(problem) => Some((Err(io::Error::other(problem.error)), None)),
                }
            });
            Ok(frames.boxed())
        })
    }

    fn output<'a>(&'a self, reader: &'a Reader, job_id: &'a str, of: Of) -> Answer<'a, Output> {
        let of = match of {
            Of::Stdout => Stream::Stdout,
            Of::Stderr => Stream::Stderr,
        };
        Box::pin(async move {
            let file = self.service.output(reader, job_id, of).await?;
            let len = file.bytes.as_ref().map_or(0, crate::output::Bytes::len);
            let bytes = file.bytes;
            Ok(Output {
                len,
                sha256: file.sha256,
                holds: false,
                chunks: Box::new(move |range: Range<u64>| -> BoxStream<'static, io::Result<Bytes>> {
                    match bytes {
                        Some(bytes) => bytes.chunks(range).boxed(),
                        None => stream::empty().boxed(),
                    }
                }),
            })
        })
    }

    fn artifact<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        path: &'a str,
        purse: &'a Purse,
    ) -> Answer<'a, Output> {
        Box::pin(async move {
            let file = self.service.artifact(reader, job_id, path, purse).await?;
            Ok(Output {
                len: file.bytes.len(),
                sha256: Some(file.sha256),
                holds: false,
                chunks: Box::new(move |range| file.bytes.chunks(range).boxed()),
            })
        })
    }

    fn artifacts<'a>(&'a self, reader: &'a Reader, job_id: &'a str, purse: &'a Purse) -> Answer<'a, Output> {
        Box::pin(async move {
            let archive = self.service.artifacts(reader, job_id, purse).await?;
            let (len, holds) = (archive.len(), archive.holds());
            Ok(Output { len, sha256: None, holds, chunks: Box::new(move |_| archive.chunks().boxed()) })
        })
    }

    fn readiness(&self) -> Readiness {
        let readiness = self.service.ready();
        Readiness { ready: readiness.ready(), problems: readiness.problems }
    }

    fn details(&self) -> Map<String, Value> {
        let counts = self.service.counts();
        let details = json!({
            "agent_id": self.agent_id,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": Timestamp::now().since(self.started).as_secs(),
            "jobs_running": counts.running,
            "jobs_queued": counts.queued,
            "engine": counts.engine,
        });
        match details {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn text(frame: Streamed, mut held: Option<Held>) -> io::Result<FrameText> {
    let (json, last) = match frame {
        Streamed::Line(line) => (Utf8Bytes::try_from(line.json).map_err(io::Error::other)?, false),
        Streamed::Final(frame) => {
            let mut json = serde_json::to_string(&frame).map_err(io::Error::other)?;
            drop(frame);
            json.shrink_to_fit();
            if let Some(held) = &mut held {
                held.shrink(json.len());
            }
            (json.into(), true)
        }
    };
    Ok(FrameText { json, last, held })
}
