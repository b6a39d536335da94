//! The stable codes of refusals and errors, each with its HTTP status and its sentence.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $sentence:literal;)*) => {
        /// A stable code: what programs act on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl Code {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code as it stands on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status,)* }
            }

            /// The sentence in `error`.
            pub fn sentence(self) -> &'static str {
                match self { $(Code::$name => $sentence,)* }
            }

            /// The code with that text, if there is one.
            pub fn parse(text: &str) -> Option<Code> {
                match text { $($code => Some(Code::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// The body is larger than `max_body_bytes`.
    BodyTooLarge = "BODY_TOO_LARGE", 413, "Request body too large";
    /// The body's content type is not JSON.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE", 415, "Content type must be application/json";
    /// Too many requests of one address or one controller.
    RateLimited = "RATE_LIMITED", 429, "Too many requests";
    /// The body is not the JSON of an envelope.
    InvalidJson = "INVALID_JSON", 400, "Invalid JSON payload";
    /// The signature does not hold.
    InvalidSignature = "INVALID_SIGNATURE", 401, "Invalid signature";
    /// `ttl` has passed.
    JobExpired = "JOB_EXPIRED", 401, "Job expired or too old";
    /// `timestamp` is too long ago.
    JobTooOld = "JOB_TOO_OLD", 401, "Job expired or too old";
    /// `timestamp` is in the future.
    JobFromFuture = "JOB_FROM_FUTURE", 401, "Job expired or too old";
    /// The controller is not on the allowed list.
    ControllerNotAllowed = "CONTROLLER_NOT_ALLOWED", 403, "Controller not allowed";
    /// A field breaks its own rule.
    InvalidField = "INVALID_FIELD", 400, "Invalid field";
    /// A field that the contract does not know.
    UnknownField = "UNKNOWN_FIELD", 400, "Unknown field";
    /// The job is addressed to another agent.
    WrongAgent = "WRONG_AGENT", 403, "Job is for another agent";
    /// The controller does not hold a scope that the job requires.
    InsufficientScopes = "INSUFFICIENT_SCOPES", 403, "Insufficient scopes";
    /// The image is not on the allowed list.
    ImageNotAllowed = "IMAGE_NOT_ALLOWED", 403, "Image not allowed";
    /// A limit is above the controller's maximum.
    LimitExceeded = "LIMIT_EXCEEDED", 403, "Limit exceeded";
    /// A rule of the policy denies the command.
    PolicyDenied = "POLICY_DENIED", 403, "Command denied by policy";
    /// The same job id was accepted with other bytes.
    JobIdConflict = "JOB_ID_CONFLICT", 409, "Job id already used";
    /// The queue holds as many jobs as it may.
    QueueFull = "QUEUE_FULL", 429, "Queue is full";
    /// The controller's jobs have used what they may in a day.
    QuotaExceeded = "QUOTA_EXCEEDED", 429, "Daily quota used up";
    /// The agent takes no new jobs: an operator drains it, or it is about to stop.
    Draining = "DRAINING", 503, "Agent is draining";
    /// Large requests and answers use up the memory that they may have together.
    Busy = "BUSY", 503, "Agent is busy";
    /// The data folder is nearly full.
    StorageLow = "STORAGE_LOW", 503, "Storage is low";
    /// The database can't be written.
    StorageError = "STORAGE_ERROR", 503, "Storage is not available";
    /// No proof of identity, or one that does not hold, where one is needed.
    Unauthenticated = "UNAUTHENTICATED", 401, "Authentication required";
    /// The proof holds, but does not give the right.
    Forbidden = "FORBIDDEN", 403, "Not allowed";
    /// No such job, or none that the caller may see.
    JobNotFound = "JOB_NOT_FOUND", 404, "Job not found";
    /// Several controllers have a job of that id, and the request does not say whose is meant.
    JobIdAmbiguous = "JOB_ID_AMBIGUOUS", 409, "Job id is not unique";
    /// The job has already ended: there is nothing to cancel.
    JobEnded = "JOB_ENDED", 409, "Job has already ended";
    /// The job's output is no longer kept.
    OutputGone = "OUTPUT_GONE", 410, "Output is no longer kept";
    /// The job has kept no such file.
    ArtifactNotFound = "ARTIFACT_NOT_FOUND", 404, "Artifact not found";
    /// A query parameter breaks its rule.
    InvalidQuery = "INVALID_QUERY", 400, "Invalid query parameter";
    /// The range lies outside the output.
    RangeNotSatisfiable = "RANGE_NOT_SATISFIABLE", 416, "Range not satisfiable";
    /// The page of origin is not on the allowed list.
    OriginNotAllowed = "ORIGIN_NOT_ALLOWED", 403, "Origin not allowed";
    /// The endpoint speaks WebSocket only.
    UpgradeRequired = "UPGRADE_REQUIRED", 426, "WebSocket upgrade required";
    /// The request breaks a rule of HTTP itself.
    InvalidRequest = "INVALID_REQUEST", 400, "Invalid request";
    /// No such endpoint.
    NotFound = "NOT_FOUND", 404, "No such endpoint";
    /// The endpoint has no such method.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, "Method not allowed";
    /// The request took too long to arrive.
    RequestTimeout = "REQUEST_TIMEOUT", 408, "Request took too long";
    /// A defect of the agent; its log has the request's id.
    Internal = "INTERNAL", 500, "Internal error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_with_its_status_and_sentence() {
        let page = include_str!("../../docs/protocol.md");
        for code in Code::ALL {
            let row = format!("| `{}` | {} | {} |", code.as_str(), code.status(), code.sentence());
            assert!(page.contains(&row), "docs/protocol.md lacks the row {row}");
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }
}
