//! A frame of the output stream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::JobResult;

/// One WebSocket message of `/api/v1/stream/{id}`: the seed's fields first, then ours.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Frame {
    pub job_id: String,
    /// RFC 3339 with fractions, UTC.
    pub timestamp: String,
    /// `stdout`, `stderr`, `system`, or empty in the last frame.
    pub stream: String,
    pub data: String,
    pub r#final: bool,
    /// 1, 2, 3, ... per job.
    pub seq: u64,
    /// Bytes of that stream before this frame.
    pub offset: u64,
    /// `base64` where the bytes are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub encoding: Option<String>,
    /// Only in the last frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<JobResult>,
}
