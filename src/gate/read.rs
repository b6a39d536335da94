//! Reads: whose jobs may the caller see.

use std::time::Duration;

use super::{Gate, authentic::not_allowed, keys::Claim};
use crate::{
    base::clock::Timestamp,
    config::ReadAccess,
    wire::{
        Code, Problem,
        httpsig::{SignatureError, Signed, Target},
        key::Algorithm,
    },
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

    /// The same reader, with eyes for that controller's jobs only: ids are unique among those.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND` if it may not see them: whether there are any is not told either.
    pub fn only(self, controller_id: String) -> Result<Reader, Problem> {
        if !self.may_see(&controller_id) {
            return Err(Problem::new(Code::JobNotFound).details("only an administrator sees others' jobs"));
        }
        Ok(Reader::Controller { id: controller_id, admin: false })
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
        let (input, signature) = match (request.field("signature-input"), request.field("signature")) {
            (Some(input), Some(signature)) => (input, signature),
            (None, None) if self.read_access == ReadAccess::JobId => return Ok(Reader::Anyone),
            (None, None) => {
                return Err(unauthenticated(
                    "sign the request as a controller: headers `Signature-Input` and `Signature` (RFC 9421)",
                ));
            }
            _ => return Err(unauthenticated(&SignatureError::Malformed.to_string())),
        };
        let signed = Signed::parse(&input, &signature).map_err(unusable)?;
        let target = request.target();
        signed.check_coverage(&target).map_err(unusable)?;
        let (created, expires) = (signed.created().map_err(unusable)?, signed.expires().map_err(unusable)?);
        let (controller_id, key_id) = self.split_keyid(signed.keyid().map_err(unusable)?);
        let base = signed.base(&target, |name| request.field(name)).map_err(unusable)?;

        // Without `alg` each of the controller's keys counts, by its own algorithm.
        let algorithms = match signed.alg().map_err(unusable)? {
            None => [Algorithm::HmacSha256, Algorithm::Ed25519].map(Some).to_vec(),
            Some(name) => {
                let known = [Algorithm::HmacSha256, Algorithm::Ed25519];
                vec![known.into_iter().find(|algorithm| algorithm.http_name() == name)]
            }
        };
        let mut holds = false;
        for algorithm in algorithms {
            let claim = Claim { controller_id, key_id, algorithm };
            holds |= self.keys.verify(claim, base.as_bytes(), signed.signature(), now).is_some();
        }
        if !holds {
            return Err(unauthenticated("the request's signature does not hold"));
        }
        self.check_times(created, expires, now)?;
        let controller = self.controller(controller_id).ok_or_else(|| not_allowed(controller_id))?;
        Ok(Reader::Controller { id: controller.id.clone(), admin: controller.admin })
    }

    /// `controller_id`, or `controller_id/key_id`. Controllers' ids may hold slashes, names of keys can't: the
    /// whole is a controller's id if there is one of that name, else the last slash divides.
    fn split_keyid<'k>(&self, keyid: &'k str) -> (&'k str, Option<&'k str>) {
        match keyid.rsplit_once('/') {
            Some((controller_id, key_id)) if self.controller(keyid).is_none() => {
                (controller_id, Some(key_id))
            }
            _ => (keyid, None),
        }
    }

    fn check_times(&self, created: i64, expires: Option<i64>, now: Timestamp) -> Result<(), Problem> {
        let agent = now.secs();
        let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        // Fifteen digits at most: no difference overflows.
        let bounds = [
            (agent - created, whole(self.config.max_age), "the signature is too old"),
            (created - agent, whole(self.config.max_skew), "the signature is from the future"),
            (agent - expires.unwrap_or(agent), 0, "the signature has expired"),
        ];
        for (skew, allowed, why) in bounds {
            if skew > allowed {
                return Err(unauthenticated(why)
                    .with("agent_time", agent)
                    .with("skew_seconds", skew)
                    .with("allowed_seconds", allowed));
            }
        }
        Ok(())
    }
}

impl ReadRequest {
    /// A header field's value: its lines trimmed and joined (RFC 9421, section 2.1).
    fn field(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }

    fn target(&self) -> Target<'_> {
        Target {
            method: &self.method,
            scheme: &self.scheme,
            authority: &self.authority,
            path_and_query: &self.path_and_query,
        }
    }
}

fn unauthenticated(details: &str) -> Problem {
    Problem::new(Code::Unauthenticated).details(details)
}

fn unusable(error: SignatureError) -> Problem {
    unauthenticated(&error.to_string())
}
