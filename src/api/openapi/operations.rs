//! What can be asked, and every answer there is: one entry for each route of `router.rs`.

use serde_json::{Value, json};

use crate::{
    api::{
        extract::LONGEST_PARAMETER,
        routes::jobs::{MAX_PAGE, PAGE},
    },
    wire::{
        Code::{self, *},
        Reason, Status,
        payload::rules::MAX_JOB_ID,
    },
};

/// One method of one path.
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    /// Its name for programs that are made of the document.
    pub id: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub who: Who,
    /// Keys of [`parameters`].
    pub parameters: &'static [&'static str],
    /// The schema of what is sent with it.
    pub body: Option<&'static str>,
    pub answers: &'static [Answer],
    pub refusals: &'static [&'static [Code]],
}

/// What proves that one may ask.
pub enum Who {
    /// Nothing, or the signature in the body.
    Anybody,
    /// A controller's signature or a token; nothing where `read_access` is `job-id`.
    Reader,
    /// A controller's signature or a token.
    Lister,
    /// The signature in the body, or a token.
    Canceller,
    /// A token.
    Operator,
    /// The token for the metrics, if there is one.
    Scraper,
}

/// An answer that is no refusal.
pub struct Answer {
    pub status: u16,
    pub what: &'static str,
    pub body: Body,
    /// Operations that take the answer's `job_id`.
    pub links: &'static [&'static str],
}

pub enum Body {
    None,
    /// By the name of its schema.
    Json(&'static str),
    /// Something else, by its media type.
    Raw(&'static str),
}

const fn answer(status: u16, what: &'static str, body: Body) -> Answer {
    Answer { status, what, body, links: &[] }
}

/// Any request; those to `/api/`; those with a body; signed ones; reads of one job.
const ANY: &[Code] = &[InvalidRequest, Internal];
const API: &[Code] = &[InvalidRequest, RateLimited, Forbidden, Internal];
const WITH_BODY: &[Code] = &[UnsupportedMediaType, BodyTooLarge, RequestTimeout, Busy, InvalidJson];
const SIGNED: &[Code] = &[
    InvalidSignature,
    JobExpired,
    JobTooOld,
    JobFromFuture,
    ControllerNotAllowed,
    InvalidField,
    UnknownField,
    WrongAgent,
    StorageError,
];
const READ: &[Code] = &[Unauthenticated, Forbidden, ControllerNotAllowed, InvalidQuery, StorageError];
const OPERATE: &[Code] = &[Unauthenticated, Forbidden];
const ONE_JOB: &[Code] = &[JobNotFound, JobIdAmbiguous];

/// Where a job's id leads.
const OF_A_JOB: &[&str] = &["getJob", "getOutput", "cancelJob"];

pub const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/api/v1/jobs",
        id: "submitJob",
        summary: "Submit a job",
        description: "202 once the job is on disk. The same signed bytes again are answered with the job's present \
            status and `duplicate`, and nothing runs.",
        who: Who::Anybody,
        parameters: &[],
        body: Some("SignedJob"),
        answers: &[Answer { status: 202, what: "Accepted", body: Body::Json("Accepted"), links: OF_A_JOB }],
        refusals: &[
            API,
            WITH_BODY,
            SIGNED,
            &[InsufficientScopes, ImageNotAllowed, LimitExceeded, PolicyDenied],
            &[JobIdConflict, QueueFull, QuotaExceeded, Draining, StorageLow],
        ],
    },
    Operation {
        method: "get",
        path: "/api/v1/jobs",
        id: "listJobs",
        summary: "List jobs",
        description: "Newest first, in pages. Needs proof whatever `read_access` says: ids are not given out.",
        who: Who::Lister,
        parameters: &["status", "reason", "controller_id", "since", "until", "limit", "cursor"],
        body: None,
        answers: &[answer(200, "A page", Body::Json("JobPage"))],
        refusals: &[API, READ, &[Busy]],
    },
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}",
        id: "getJob",
        summary: "One job's status and result",
        description: "`result` is null until the job has ended.",
        who: Who::Reader,
        parameters: &["id", "controller_id"],
        body: None,
        answers: &[answer(200, "The job", Body::Json("JobStatus"))],
        refusals: &[API, READ, ONE_JOB, &[Busy]],
    },
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}/output",
        id: "getOutput",
        summary: "The exact bytes of one stream",
        description: "As many as there are now, while the job runs; whole or one range of them (RFC 9110, section 14).",
        who: Who::Reader,
        parameters: &["id", "stream", "controller_id", "Range", "If-Range", "If-None-Match"],
        body: None,
        answers: &[
            answer(200, "All bytes", Body::Raw("application/octet-stream")),
            answer(206, "The range", Body::Raw("application/octet-stream")),
            answer(304, "The caller has these bytes already", Body::None),
        ],
        refusals: &[API, READ, ONE_JOB, &[OutputGone, RangeNotSatisfiable]],
    },
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}/artifacts",
        id: "getArtifacts",
        summary: "All files that a job has left",
        description: "One archive (POSIX.1-2001, pax).",
        who: Who::Reader,
        parameters: &["id", "controller_id"],
        body: None,
        answers: &[answer(200, "The archive", Body::Raw("application/x-tar"))],
        refusals: &[API, READ, ONE_JOB, &[ArtifactNotFound, OutputGone, Busy]],
    },
    Operation {
        method: "get",
        path: "/api/v1/jobs/{id}/artifacts/{path}",
        id: "getArtifact",
        summary: "One file that a job has left",
        description: "Whole or one range of it. The path's own slashes may stand as they are.",
        who: Who::Reader,
        parameters: &["id", "path", "controller_id", "Range", "If-Range", "If-None-Match"],
        body: None,
        answers: &[
            answer(200, "All bytes", Body::Raw("application/octet-stream")),
            answer(206, "The range", Body::Raw("application/octet-stream")),
            answer(304, "The caller has these bytes already", Body::None),
        ],
        refusals: &[API, READ, ONE_JOB, &[ArtifactNotFound, OutputGone, RangeNotSatisfiable, Busy]],
    },
    Operation {
        method: "get",
        path: "/api/v1/stream/{id}",
        id: "streamOutput",
        summary: "The output, live",
        description: "A WebSocket: one `Frame` as a JSON text message each, the last one with `final` and the result, \
            then close code 1000.",
        who: Who::Reader,
        parameters: &["id", "from_seq", "system", "controller_id"],
        body: None,
        answers: &[answer(101, "The stream begins", Body::None)],
        refusals: &[API, READ, ONE_JOB, &[UpgradeRequired, OriginNotAllowed]],
    },
    Operation {
        method: "post",
        path: "/api/v1/jobs/{id}/cancel",
        id: "cancelJob",
        summary: "End a job",
        description: "Only the job's own controller may, or one with the scope `admin`; or who has a token with `operate`.",
        who: Who::Canceller,
        parameters: &["id"],
        body: Some("CancelRequest"),
        answers: &[
            answer(200, "It had not started and never will", Body::Json("CancelAnswer")),
            answer(202, "It has been asked to end", Body::Json("CancelAnswer")),
        ],
        refusals: &[API, WITH_BODY, SIGNED, OPERATE, ONE_JOB, &[JobEnded]],
    },
    Operation {
        method: "post",
        path: "/api/v1/drain",
        id: "drain",
        summary: "Take and start no more jobs",
        description: "Until `undrain` or a restart. For a token with `operate` of all controllers.",
        who: Who::Operator,
        parameters: &[],
        body: None,
        answers: &[answer(200, "As it is now", Body::Json("DrainAnswer"))],
        refusals: &[API, OPERATE, &[Draining, StorageError]],
    },
    Operation {
        method: "post",
        path: "/api/v1/undrain",
        id: "undrain",
        summary: "Take jobs again",
        description: "For a token with `operate` of all controllers.",
        who: Who::Operator,
        parameters: &[],
        body: None,
        answers: &[answer(200, "As it is now", Body::Json("DrainAnswer"))],
        refusals: &[API, OPERATE, &[Draining, StorageError]],
    },
    Operation {
        method: "get",
        path: "/api/v1/openapi.json",
        id: "getDocument",
        summary: "This document",
        description: "The same bytes until the agent is upgraded.",
        who: Who::Anybody,
        parameters: &[],
        body: None,
        answers: &[answer(200, "This document", Body::Json("Document"))],
        refusals: &[API],
    },
    Operation {
        method: "get",
        path: "/health",
        id: "health",
        summary: "How it is",
        description: "200 as long as the agent serves.",
        who: Who::Anybody,
        parameters: &[],
        body: None,
        answers: &[answer(200, "It serves", Body::Json("Health"))],
        refusals: &[ANY],
    },
    Operation {
        method: "get",
        path: "/live",
        id: "live",
        summary: "Whether the process serves",
        description: "Asks nobody anything.",
        who: Who::Anybody,
        parameters: &[],
        body: None,
        answers: &[answer(200, "It does", Body::Json("Live"))],
        refusals: &[ANY],
    },
    Operation {
        method: "get",
        path: "/ready",
        id: "ready",
        summary: "Whether new jobs would be taken and could run",
        description: "",
        who: Who::Anybody,
        parameters: &[],
        body: None,
        answers: &[
            answer(200, "They would", Body::Json("Ready")),
            answer(503, "They would not, and why", Body::Json("NotReady")),
        ],
        refusals: &[ANY],
    },
    Operation {
        method: "get",
        path: "/metrics",
        id: "metrics",
        summary: "Prometheus' text",
        description: "docs/metrics.md lists them.",
        who: Who::Scraper,
        parameters: &[],
        body: None,
        answers: &[answer(200, "The metrics", Body::Raw("text/plain"))],
        refusals: &[ANY, &[Unauthenticated]],
    },
];

/// Every parameter that an operation names.
pub fn parameters() -> Value {
    let query = |name: &str, what: &str, schema: Value| json!({"name": name, "in": "query", "description": what, "schema": schema});
    let header = |name: &str, what: &str| json!({"name": name, "in": "header", "description": what, "schema": {"type": "string"}});
    let short = json!({"type": "string", "minLength": 1, "maxLength": LONGEST_PARAMETER});
    let moment =
        json!({"anyOf": [{"type": "integer", "format": "int64"}, {"type": "string", "format": "date-time"}]});
    let reasons: Vec<&str> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .chain(Code::ALL.iter().map(|code| code.as_str()))
        .collect();
    json!({
        "id": {
            "name": "id", "in": "path", "required": true, "description": "The job's id.",
            "schema": {"type": "string", "minLength": 1, "maxLength": MAX_JOB_ID, "pattern": "^[A-Za-z0-9._:-]+$"},
        },
        "path": {
            "name": "path", "in": "path", "required": true, "description": "Of the file, as the result says it.",
            "schema": {"type": "string", "minLength": 1},
        },
        "controller_id": query("controller_id", "Whose job or jobs are meant, for who may see several controllers'.", short.clone()),
        "status": query("status", "Only jobs of that status.", json!({"enum": Status::ALL})),
        "reason": query("reason", "Only jobs that ended so, or were refused with that code.", json!({"enum": reasons})),
        "since": query("since", "Accepted at that moment or later: RFC 3339 or Unix seconds.", moment.clone()),
        "until": query("until", "Accepted before that moment.", moment),
        "limit": query("limit", "Rows of a page.",
            json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE})),
        "cursor": query("cursor", "`next_cursor` of the page before.", short),
        "stream": query("stream", "Which stream.", json!({"enum": ["stdout", "stderr"], "default": "stdout"})),
        "from_seq": query("from_seq", "The first frame that is wanted.",
            json!({"type": "integer", "format": "uint64", "minimum": 1})),
        "system": query("system", "Whether the agent's own words are wanted.",
            json!({"type": "boolean", "default": true})),
        "Range": header("Range", "One range of bytes."),
        "If-Range": header("If-Range", "The range counts only if the stream still has this tag."),
        "If-None-Match": header("If-None-Match", "Tags of what the caller has."),
    })
}
