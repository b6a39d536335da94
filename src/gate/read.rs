//! Reads: whose jobs may the caller see.

use super::Gate;
use crate::{
    base::clock::Timestamp,
    wire::{Code, Problem},
};

/// What the door knows of a read. For a WebSocket the scheme is that of its HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// As sent, for example `GET`.
    pub method: String,
    /// `https`, or `http` on a door without TLS.
    pub scheme: String,
    /// The `Host` header, or HTTP/2's `:authority`.
    pub authority: String,
    /// As sent, for example `/api/v1/jobs?limit=10`; never decoded.
    pub path_and_query: String,
    /// Names in lower case; a header that comes several times is here several times, in its order.
    pub headers: Vec<(String, String)>,
}

/// Who reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reader {
    /// A controller that has proved itself.
    Controller {
        id: String,
        /// Sees every controller's jobs.
        admin: bool,
    },
    /// Nobody in particular, where knowing a job's id is enough (`read_access: job-id`).
    Anyone,
}

impl Reader {
    /// Whether jobs of that controller are shown to it.
    pub fn may_see(&self, controller_id: &str) -> bool {
        match self {
            Reader::Controller { id, admin } => *admin || id == controller_id,
            Reader::Anyone => true,
        }
    }
}

impl Gate {
    /// Checks a read's proof: an HTTP Message Signature (RFC 9421) of a controller. Where `read_access` is
    /// `job-id`, a read without a signature is [`Reader::Anyone`]; one with a signature is checked.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without proof or with one that does not hold, `CONTROLLER_NOT_ALLOWED` if it holds
    /// under the shared secret only.
    pub fn reader(&self, request: &ReadRequest, now: Timestamp) -> Result<Reader, Problem> {
        let _ = (request, now, self.read_access, &self.keys);
        Err(Problem::new(Code::Unauthenticated))
    }
}
