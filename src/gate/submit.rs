//! Submissions: from a body to [`Admitted`].

use std::net::{IpAddr, Ipv4Addr};

use super::{Gate, KeyUsed, Refused, Via, authentic::Authentic, grant};
use crate::{
    base::clock::Timestamp,
    config::{Daily, Limits, Rate},
    wire::{
        Payload, Problem,
        payload::{Network, SandboxRequest},
    },
};

/// A job that passed every check of the gate. Nothing else makes one.
#[derive(Clone, PartialEq)]
pub struct Admitted {
    key: KeyUsed,
    payload: Payload,
    raw: Vec<u8>,
    payload_sha256: String,
    image: String,
    limits: Limits,
    network: Network,
    argv: Vec<String>,
    risk_level: String,
    max_queued: Option<usize>,
    rate: Rate,
    daily: Daily,
}

impl Admitted {
    /// Who signed it.
    pub fn controller_id(&self) -> &str {
        &self.payload.controller_id
    }

    /// The name of the key that verified it, if that key has one.
    pub fn key_id(&self) -> Option<&str> {
        self.key.key_id.as_deref()
    }

    /// The key that verified it.
    pub fn key(&self) -> &KeyUsed {
        &self.key
    }

    /// What it says, every field's rule kept.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The exact bytes that were signed. They may hold the values of `secret_env`.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// SHA-256 of those bytes, in lower-case hex.
    pub fn payload_sha256(&self) -> &str {
        &self.payload_sha256
    }

    /// The image's reference: what the job asks for, else the agent's default; on the controller's list.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// What the job asks for, else the agent's default; nothing above the controller's maximum.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it sees of the network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// What is to be run: `argv`, or `/bin/sh -c COMMAND`.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// `candidate_metadata.risk_level` if that is a short text, else `medium`.
    pub fn risk_level(&self) -> &str {
        &self.risk_level
    }

    /// Jobs that its controller may have waiting.
    pub fn max_queued(&self) -> Option<usize> {
        self.max_queued
    }

    /// What its controller may use in a day.
    pub fn daily(&self) -> Daily {
        self.daily
    }

    /// How fast its controller may submit.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

impl std::fmt::Debug for Admitted {
    /// Leaves out what may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted")
            .field("controller_id", &self.payload.controller_id)
            .field("job_id", &self.payload.job_id)
            .field("payload_sha256", &self.payload_sha256)
            .field("image", &self.image)
            .field("limits", &self.limits)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// Checks a submission: 2 to 7 of the contract's table, in that order.
    ///
    /// # Errors
    /// The first check that fails, with what the job said of itself if its signature held.
    pub fn submit(&self, body: &[u8], now: Timestamp) -> Result<Admitted, Refused> {
        self.submit_via(body, &Via::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), now)
    }

    /// The same, of a submission that came on that connection.
    ///
    /// # Errors
    /// As [`Gate::submit`]; `FORBIDDEN` right after the signature if it may not come that way.
    pub fn submit_via(&self, body: &[u8], via: &Via, now: Timestamp) -> Result<Admitted, Refused> {
        let authentic = self.authenticate(body, now)?;
        let admitted = via.may_carry(&authentic).and_then(|()| self.admit(&authentic, now));
        admitted.map_err(|problem| authentic.refuse(problem))
    }

    fn admit(&self, authentic: &Authentic<'_>, now: Timestamp) -> Result<Admitted, Problem> {
        let config = &self.config;
        let (controller, fields) = self.fresh_and_allowed(authentic, now)?;
        let payload = Payload::from_map(fields)?;

        let none = SandboxRequest::default();
        let asked = payload.sandbox.as_ref().unwrap_or(&none);
        grant::audience(config, payload.agent_id.as_deref())?;
        grant::scopes(controller, payload.required_scopes.as_deref())?;
        let image = grant::image(config, controller, asked.image.as_deref())?;
        let limits = grant::limits(config, controller, asked)?;
        let network = grant::network(controller, asked.network)?;
        grant::policy(&config.policy, &payload)?;

        Ok(Admitted {
            key: authentic.proof.key.clone(),
            raw: authentic.raw.as_bytes().to_vec(),
            payload_sha256: authentic.sha256(),
            image,
            limits,
            network,
            argv: payload.program(),
            risk_level: payload.risk_level().to_owned(),
            max_queued: controller.max_queued,
            rate: controller.rate,
            daily: controller.daily,
            payload,
        })
    }
}
