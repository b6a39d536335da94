//! Checks 2 to 5: shape, signature, freshness, controller. What submissions and cancellations share.

use std::borrow::Cow;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    Claims, Gate, Refused, fresh,
    keys::{Claim, Proof},
};
use crate::{
    base::clock::Timestamp,
    config::Controller,
    wire::{
        Code, Problem,
        envelope::{Envelope, shorten},
        fields::{self, invalid},
        key::Algorithm,
        payload::{self, rules},
    },
};

/// Stands in the record for texts of a refused job whose secrets are more than could be masked.
const UNRECORDED: &str = "[not recorded: the values of secret_env are too long]";

/// An envelope whose signature holds. Nothing of its payload is checked yet.
#[derive(Debug)]
pub(super) struct Authentic<'a> {
    pub(super) raw: &'a str,
    pub(super) proof: Proof,
    controller_id: Cow<'a, str>,
    named_key: Option<String>,
}

impl Gate {
    /// Checks 2 and 3. Of the payload only `controller_id` is looked at.
    pub(super) fn authenticate<'a>(&self, body: &'a [u8], now: Timestamp) -> Result<Authentic<'a>, Refused> {
        let nobody = |problem| Refused { problem, authenticated: None };
        let envelope = Envelope::parse(body).map_err(nobody)?;
        let controller_id = envelope.controller_id().map_err(nobody)?;
        let claim = Claim {
            controller_id: &controller_id,
            key_id: envelope.signature.key_id.as_deref(),
            algorithm: Algorithm::parse(&envelope.signature.algorithm),
        };
        // What is no hexadecimal is no signature, and costs the same to find out.
        let signature = hex::decode(envelope.signature.signature.as_bytes()).unwrap_or_default();
        let proof = self
            .keys
            .verify(claim, envelope.payload.as_bytes(), &signature, now)
            .ok_or_else(|| nobody(invalid_signature()))?;
        Ok(Authentic {
            raw: envelope.payload,
            proof,
            named_key: envelope.signature.key_id.map(Cow::into_owned),
            controller_id,
        })
    }

    /// Checks 4 and 5, and the payload's members for check 6. A payload that can't be read without doubt (a
    /// member twice) is refused first: which of its times would count?
    pub(super) fn fresh_and_allowed(
        &self,
        authentic: &Authentic<'_>,
        now: Timestamp,
    ) -> Result<(&Controller, Map<String, Value>), Problem> {
        let members = fields::object(authentic.raw)?;
        let time = |name| {
            members
                .get(name)
                .and_then(Value::as_i64)
                .ok_or_else(|| invalid(name, "must be a whole number: Unix seconds"))
        };
        fresh::check(&self.config, time("ttl")?, time("timestamp")?, now)?;
        let controller =
            self.controller(&authentic.controller_id).ok_or_else(|| not_allowed(&authentic.controller_id))?;
        Ok((controller, members))
    }
}

/// The answer to every signature that does not hold, whatever the cause.
fn invalid_signature() -> Problem {
    Problem::new(Code::InvalidSignature).details("INVALID_SIGNATURE: Invalid job signature")
}

/// The answer to who signs with the shared secret and is on no list.
pub(super) fn not_allowed(controller_id: &str) -> Problem {
    Problem::new(Code::ControllerNotAllowed).details(format!(
        "`{}` is not on the agent's list: add it to `allowed_controllers` or `controllers`",
        shorten(controller_id, 128)
    ))
}

impl Authentic<'_> {
    /// Who signed.
    pub(super) fn controller_id(&self) -> &str {
        &self.controller_id
    }

    /// SHA-256 of the payload's bytes, in hex.
    pub(super) fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.raw.as_bytes()))
    }

    /// The refusal, with what the payload says of itself as far as it can be read.
    pub(super) fn refuse(&self, problem: Problem) -> Refused {
        let members = fields::object(self.raw).unwrap_or_default();
        let text = |name| members.get(name).and_then(Value::as_str);
        let object = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned();
        let command = match (text("command"), members.get("argv").and_then(Value::as_array)) {
            (None | Some(""), Some(argv)) => {
                argv.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            (command, _) => command.unwrap_or_default().to_owned(),
        };
        let secrets: Vec<String> = members
            .get("sandbox")
            .and_then(|sandbox| sandbox.get("secret_env"))
            .and_then(Value::as_object)
            .map(|env| env.values().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        // More than any job may have: nothing is searched for them, so nothing that may hold them is recorded.
        let too_many = secrets.iter().map(String::len).sum::<usize>() > rules::MAX_SECRETS;
        let kept = |text: String| if too_many { UNRECORDED.to_owned() } else { text };
        let claims = Claims {
            controller_id: shorten(&self.controller_id, rules::MAX_NAME),
            key_id: self.proof.key.key_id.as_deref().map(str::to_owned).or_else(|| self.named_key.clone()),
            job_id: text("job_id").filter(|job_id| rules::is_job_id(job_id)).map(str::to_owned),
            prompt: kept(text("prompt").unwrap_or_default().to_owned()),
            command: kept(command),
            risk_level: payload::risk_level(object(members.get("candidate_metadata")).as_ref()).to_owned(),
            secrets: if too_many { Vec::new() } else { secrets },
            raw: self.raw.as_bytes().to_vec(),
            payload_sha256: self.sha256(),
        };
        Refused { problem, authenticated: Some(claims) }
    }
}
