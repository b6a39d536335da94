//! A service that does as the job's id, or the body, says.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::body::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::{
    api::service::{Answer, FrameText, Frames, Jobs, ListQuery, Of, Output, Readiness},
    base::{
        budget::{Held, Purse},
        clock::Timestamp,
    },
    gate::{Holder, Operator, ReadRequest, Reader, Via},
    wire::{
        Code, Problem, Status,
        result::{Accepted, CancelAnswer, DrainAnswer, JobPage, JobStatus},
    },
};

#[derive(Default)]
pub struct Fake {
    /// Bodies in the order they came.
    pub bodies: Mutex<Vec<(IpAddr, Bytes)>>,
    pub reads: Mutex<Vec<ReadRequest>>,
    /// Who asked for a status.
    pub readers: Mutex<Vec<Reader>>,
    /// What was done without a signature.
    pub operated: Mutex<Vec<String>>,
    pub lists: Mutex<Vec<ListQuery>>,
    pub streams: Mutex<Vec<(Option<u64>, bool)>>,
    /// Lets the body `wait` go on.
    pub go_on: Notify,
    pub waiting: AtomicUsize,
    pub waited: AtomicUsize,
    /// Large answers that were made.
    pub larges: Arc<AtomicUsize>,
    pub not_ready: AtomicBool,
    pub panics: AtomicBool,
    /// Nobody may read on.
    pub revoked: AtomicBool,
}

/// What `/output` gives for `job-1`.
pub const BYTES: &[u8] = b"0123456789";

/// Bytes of the result of `large`: more than sockets take for a client that does not read.
pub const LARGE: usize = 16 << 20;

pub fn frame(seq: u64, last: bool) -> FrameText {
    FrameText { json: json!({"seq": seq, "final": last}).to_string().into(), last, held: None }
}

impl Jobs for Fake {
    fn may_go_on(&self, _: &Reader, _: Option<&Holder>, _: Timestamp) -> bool {
        !self.revoked.load(Ordering::SeqCst)
    }

    fn submit(&self, body: Bytes, via: Via, _: Timestamp) -> Answer<'_, Accepted> {
        async move {
            self.bodies.lock().unwrap().push((via.peer, body.clone()));
            match &body[..] {
                b"full" => return Err(Problem::new(Code::QueueFull).retry_after(7)),
                b"panic" => panic!("asked to"),
                b"wait" => {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                    self.go_on.notified().await;
                    self.waited.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            Ok(Accepted { job_id: "job-1".to_owned(), status: Status::Pending, duplicate: false })
        }
        .boxed()
    }

    fn cancel<'a>(
        &'a self,
        job_id: &'a str,
        body: Bytes,
        via: Via,
        _: Timestamp,
    ) -> Answer<'a, CancelAnswer> {
        self.bodies.lock().unwrap().push((via.peer, body));
        let status = if job_id == "job-1" { Status::Running } else { Status::Failed };
        async move { Ok(CancelAnswer { job_id: job_id.to_owned(), status, cancel_requested: true }) }.boxed()
    }

    fn reader(&self, request: &ReadRequest, _: Timestamp) -> Result<Reader, Problem> {
        self.reads.lock().unwrap().push(request.clone());
        if request.headers.iter().any(|(name, _)| name == "x-stranger") {
            return Err(Problem::new(Code::Unauthenticated));
        }
        Ok(Reader::Anyone)
    }

    fn operator(&self, request: &ReadRequest, _: Timestamp) -> Result<Operator, Problem> {
        self.reads.lock().unwrap().push(request.clone());
        let token = request.headers.iter().find(|(name, _)| name == "authorization");
        match token.is_some_and(|(_, value)| value == "Bearer good") || request.certificate.is_some() {
            true => Ok(Operator::for_tests("token:good")),
            false => Err(Problem::new(Code::Unauthenticated)),
        }
    }

    fn cancel_by<'a>(
        &'a self,
        operator: &'a Operator,
        job_id: &'a str,
        body: Bytes,
        _: Timestamp,
    ) -> Answer<'a, CancelAnswer> {
        self.operated.lock().unwrap().push(format!(
            "{} cancels {job_id}: {}",
            operator.name(),
            String::from_utf8_lossy(&body)
        ));
        let answer =
            CancelAnswer { job_id: job_id.to_owned(), status: Status::Running, cancel_requested: true };
        async move { Ok(answer) }.boxed()
    }

    fn drain<'a>(&'a self, operator: &'a Operator, drain: bool) -> Answer<'a, DrainAnswer> {
        self.operated.lock().unwrap().push(format!("{} drains: {drain}", operator.name()));
        async { Ok(DrainAnswer { mode: "draining".to_owned(), jobs_running: 1, jobs_queued: 2 }) }.boxed()
    }

    fn status<'a>(
        &'a self,
        reader: &'a Reader,
        job_id: &'a str,
        purse: &'a Purse,
    ) -> Answer<'a, (JobStatus, Option<Held>)> {
        self.readers.lock().unwrap().push(reader.clone());
        async move {
            let (error, held) = match job_id {
                "job-1" => (None, None),
                "large" => match purse.take(LARGE).await {
                    None => return Err(Problem::new(Code::Busy).retry_after(5)),
                    held => {
                        self.larges.fetch_add(1, Ordering::SeqCst);
                        (Some("x".repeat(LARGE)), held)
                    }
                },
                _ => return Err(Problem::new(Code::JobNotFound)),
            };
            let status = JobStatus {
                job_id: job_id.to_owned(),
                status: Status::Running,
                result: None,
                controller_id: "controller-1".to_owned(),
                created_at: "2026-01-01T00:00:00Z".to_owned(),
                started_at: None,
                reason: error,
                cancel_requested: false,
            };
            Ok((status, held))
        }
        .boxed()
    }

    fn list<'a>(&'a self, _: &'a Reader, query: ListQuery) -> Answer<'a, JobPage> {
        self.lists.lock().unwrap().push(query);
        async { Ok(JobPage { jobs: Vec::new(), next_cursor: None }) }.boxed()
    }

    fn stream<'a>(
        &'a self,
        _: &'a Reader,
        job_id: &'a str,
        from_seq: Option<u64>,
        system: bool,
        purse: Purse,
    ) -> Answer<'a, Frames> {
        self.streams.lock().unwrap().push((from_seq, system));
        let from = from_seq.unwrap_or(1);
        let frames: Frames = match job_id {
            "three" => stream::iter((from..=3).map(|seq| Ok(frame(seq, seq == 3)))).boxed(),
            "quiet" => stream::iter([Ok(frame(1, false))]).chain(stream::pending()).boxed(),
            // As "quiet", and says with what priority it is served.
            "priority" => stream::once(async {
                let json = json!({"seq": rustix::process::nice(0).unwrap(), "final": false}).to_string();
                Ok(FrameText { json: json.into(), last: false, held: None })
            })
            .chain(stream::pending())
            .boxed(),
            "broken" => stream::iter([Ok(frame(1, false)), Err(io::Error::other("bad disk"))]).boxed(),
            "cut" => stream::iter([Ok(frame(1, false))]).boxed(),
            "endless" => stream::unfold(from, |seq| async move {
                let json = json!({"seq": seq, "data": "x".repeat(60_000)}).to_string();
                Some((Ok(FrameText { json: json.into(), last: false, held: None }), seq + 1))
            })
            .boxed(),
            "large" => {
                let larges = Arc::clone(&self.larges);
                stream::once(async move {
                    let held = purse.take(LARGE).await.ok_or(io::ErrorKind::ResourceBusy)?;
                    larges.fetch_add(1, Ordering::SeqCst);
                    let json = json!({"seq": 1, "data": "x".repeat(LARGE)}).to_string();
                    Ok(FrameText { json: json.into(), last: true, held: Some(held) })
                })
                .boxed()
            }
            _ => return async { Err(Problem::new(Code::JobNotFound)) }.boxed(),
        };
        async { Ok(frames) }.boxed()
    }

    fn output<'a>(&'a self, _: &'a Reader, job_id: &'a str, of: Of) -> Answer<'a, Output> {
        async move {
            let bytes = match (job_id, of) {
                ("job-1" | "running", Of::Stdout) => BYTES,
                ("job-1", Of::Stderr) => b"",
                _ => return Err(Problem::new(Code::JobNotFound)),
            };
            Ok(Output {
                len: bytes.len() as u64,
                sha256: (job_id == "job-1").then(|| "abc".to_owned()),
                holds: false,
                chunks: Box::new(|range| {
                    let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                    let chunks: Vec<_> = bytes[range].chunks(3).map(|c| Ok(Bytes::from_static(c))).collect();
                    stream::iter(chunks).boxed()
                }),
            })
        }
        .boxed()
    }

    fn artifact<'a>(
        &'a self,
        _: &'a Reader,
        job_id: &'a str,
        path: &'a str,
        _: &'a Purse,
    ) -> Answer<'a, Output> {
        async move {
            if (job_id, path) != ("job-1", "out/a b") {
                return Err(Problem::new(Code::ArtifactNotFound));
            }
            Ok(Output {
                len: BYTES.len() as u64,
                sha256: Some("abc".to_owned()),
                holds: false,
                chunks: Box::new(|range| {
                    let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                    stream::iter([Ok(Bytes::from_static(&BYTES[range]))]).boxed()
                }),
            })
        }
        .boxed()
    }

    fn artifacts<'a>(&'a self, _: &'a Reader, job_id: &'a str, purse: &'a Purse) -> Answer<'a, Output> {
        async move {
            if job_id == "large" {
                let held = purse.take(LARGE).await.ok_or_else(|| Problem::new(Code::Busy))?;
                self.larges.fetch_add(1, Ordering::SeqCst);
                let part = Bytes::from(vec![b'x'; LARGE / 16]);
                let parts = stream::iter(vec![part; 16]).map(move |part| {
                    let _held = &held;
                    Ok(part)
                });
                return Ok(Output {
                    len: LARGE as u64,
                    sha256: None,
                    holds: true,
                    chunks: Box::new(|_| parts.boxed()),
                });
            }
            if job_id != "job-1" {
                return Err(Problem::new(Code::ArtifactNotFound));
            }
            Ok(Output {
                len: BYTES.len() as u64,
                sha256: None,
                holds: false,
                chunks: Box::new(|_| stream::iter([Ok(Bytes::from_static(BYTES))]).boxed()),
            })
        }
        .boxed()
    }

    fn readiness(&self) -> Readiness {
        assert!(!self.panics.load(Ordering::SeqCst), "asked to");
        match self.not_ready.load(Ordering::SeqCst) {
            true => Readiness { ready: false, problems: vec!["Docker does not answer".to_owned()] },
            false => Readiness { ready: true, problems: Vec::new() },
        }
    }

    fn details(&self) -> Map<String, Value> {
        Map::from_iter([("queue_depth".to_owned(), json!(3)), ("status".to_owned(), json!("must not win"))])
    }
}
