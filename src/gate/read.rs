//! Reads: whose jobs may the caller see.

use std::time::Duration;

use super::{Gate, Holder, Tokens, authentic::not_allowed, keys::Claim};
use crate::{
    base::clock::Timestamp,
    config::ReadAccess,
    wire::{
        Code, Problem,
        envelope::shorten,
        httpsig::{SignatureError, Signed, Target},
        key::Algorithm,
        rights::Right,
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
    /// Whose client certificate the connection has, if it is anybody's.
    pub certificate: Option<Holder>,
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
    /// Somebody with a token or a certificate that gives the right to read.
    Holder(Holder),
    /// Nobody in particular, where knowing a job's id is enough (`read_access: job-id`).
    Anyone,
}

impl Reader {
    /// Whether jobs of that controller are shown to it.
    pub fn may_see(&self, controller_id: &str) -> bool {
        self.sees_all() || self.own() == Some(controller_id)
    }

    /// The controller whose jobs it means by an id alone.
    pub fn own(&self) -> Option<&str> {
        match self {
            Reader::Controller { id, .. } => Some(id),
            Reader::Holder(holder) => holder.controller.as_deref(),
            Reader::Anyone => None,
        }
    }

    /// Whether every controller's jobs are shown to it.
    pub fn sees_all(&self) -> bool {
        match self {
            Reader::Controller { admin, .. } => *admin,
            Reader::Holder(holder) => holder.controller.is_none(),
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
    /// Checks a read's proof: an HTTP Message Signature (RFC 9421) of a controller, a bearer token (RFC 6750), or the
    /// connection's certificate, in this order. Where `read_access` is `job-id`, a read without any is
    /// [`Reader::Anyone`]; a signature or token that is there is checked.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without proof or with one that does not hold, `CONTROLLER_NOT_ALLOWED` if it holds
    /// under the shared secret only, `FORBIDDEN` if it does not give the right to read.
    pub fn reader(&self, request: &ReadRequest, tokens: &Tokens, now: Timestamp) -> Result<Reader, Problem> {
        let (input, signature) = match (request.field("signature-input"), request.field("signature")) {
            (None, None) => return self.unsigned_reader(request, tokens, now),
            _ if request.bearer().is_some() => {
                return Err(unauthenticated("give one proof, a token or a signature, not both"));
            }
            (Some(input), Some(signature)) => (input, signature),
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
        self.check_authority(&target)?;
        let controller = self.controller(controller_id).ok_or_else(|| not_allowed(controller_id))?;
        Ok(Reader::Controller { id: controller.id.clone(), admin: controller.admin })
    }

    /// Whether who was let read may go on: a stream is open for as long as its job runs, and keys, tokens, certificates
    /// and the list of controllers change meanwhile. `certificate`: whose the connection's is now. Of a signature it is
    /// looked at whether the controller is still on the list, with the rights that it had; it has been used once.
    pub fn may_go_on(
        &self,
        reader: &Reader,
        certificate: Option<&Holder>,
        tokens: &Tokens,
        now: Timestamp,
    ) -> bool {
        match reader {
            Reader::Anyone => self.read_access == ReadAccess::JobId,
            Reader::Controller { id, admin } => {
                self.controller(id).is_some_and(|controller| controller.admin || !admin)
            }
            Reader::Holder(holder) => {
                let listed = holder.controller.as_ref().is_none_or(|id| self.controller(id).is_some());
                listed && (certificate == Some(holder) || tokens.hold(holder, now))
            }
        }
    }

    fn unsigned_reader(
        &self,
        request: &ReadRequest,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<Reader, Problem> {
        let open = self.read_access == ReadAccess::JobId;
        match self.holder(request, tokens, now)? {
            // A token is what the caller wants to be judged by; a certificate may be there for another reason.
            Some(holder) if !open || request.bearer().is_some() || holder.rights.hold(Right::Read) => {
                must_hold(&holder, Right::Read)?;
                Ok(Reader::Holder(holder))
            }
            _ if open => Ok(Reader::Anyone),
            _ => Err(unauthenticated(
                "sign the request as a controller (headers `Signature-Input` and `Signature`, RFC 9421), or send a \
                 token (`Authorization: Bearer qca_...`)",
            )),
        }
    }

    /// Whose token the request has, else whose certificate its connection has.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: there is a token that is not good, or it is for a controller that is on the list no more.
    pub(super) fn holder(
        &self,
        request: &ReadRequest,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<Option<Holder>, Problem> {
        let holder = match request.bearer() {
            // Unknown, revoked and expired are one answer.
            Some(text) => tokens.find(&text, now).map(|token| token.holder.clone()).ok_or_else(|| {
                unauthenticated("the token is none of this agent's, is revoked or has expired")
            })?,
            None => match &request.certificate {
                Some(holder) => holder.clone(),
                None => return Ok(None),
            },
        };
        match &holder.controller {
            Some(id) if self.controller(id).is_none() => Err(unauthenticated(&format!(
                "{} is for a controller that is not on the agent's list",
                holder.name
            ))),
            _ => Ok(Some(holder)),
        }
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

    /// Whoever has seen a request go to another agent of the same controller may send it on to this one, Host included:
    /// the signature holds, for `@authority` is what the Host says.
    fn check_authority(&self, target: &Target<'_>) -> Result<(), Problem> {
        let (names, asked) = (&self.config.authorities, target.normal_authority());
        if names.is_empty() || names.iter().any(|name| name.fits(&asked, target.own_port())) {
            return Ok(());
        }
        Err(unauthenticated(&format!(
            "the request is signed for `{}`, which is none of the names by which this agent is addressed (`authorities` \
             of its configuration)",
            shorten(&asked, 128)
        )))
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

    /// The token of `Authorization: Bearer`. Other schemes are not for us.
    fn bearer(&self) -> Option<String> {
        let value = self.field("authorization")?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
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

/// That these rights hold that one.
pub(super) fn must_hold(holder: &Holder, right: Right) -> Result<(), Problem> {
    if holder.rights.hold(right) {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden)
        .details(format!("{} does not hold the scope {}", holder.name, right.as_str()))
        .with("missing_scopes", vec![right.as_str()]))
}

pub(super) fn unauthenticated(details: &str) -> Problem {
    Problem::new(Code::Unauthenticated).details(details)
}

fn unusable(error: SignatureError) -> Problem {
    unauthenticated(&error.to_string())
}
