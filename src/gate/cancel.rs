//! Cancellations: a signed envelope with `action`.

use std::net::{IpAddr, Ipv4Addr};

use super::{Gate, Holder, Refused, Via, authentic::Authentic, grant};
use crate::{
    base::clock::Timestamp,
    wire::{Problem, fields::invalid, payload::Cancel},
};

/// A cancellation whose signature, freshness and fields hold. Whether the job is this controller's is the
/// job service's to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmittedCancel {
    controller_id: String,
    /// Who asks, where that is no controller.
    holder: Option<String>,
    key_id: Option<String>,
    job_id: String,
    admin: bool,
    job_controller_id: Option<String>,
    reason: Option<String>,
    payload_sha256: Option<String>,
}

impl AdmittedCancel {
    /// A cancellation by who holds the right to operate; of that controller's jobs alone, or of all.
    pub(super) fn by_holder(
        holder: &Holder,
        job_id: &str,
        job_controller_id: Option<String>,
        reason: Option<String>,
    ) -> AdmittedCancel {
        AdmittedCancel {
            // No controller has an empty id: without one of its own, no job is its own.
            controller_id: holder.controller.clone().unwrap_or_default(),
            holder: Some(holder.name.clone()),
            key_id: None,
            job_id: job_id.to_owned(),
            admin: holder.controller.is_none(),
            job_controller_id,
            reason: reason.filter(|reason| !reason.is_empty()),
            payload_sha256: None,
        }
    }

    /// The controller that signed it, or whose jobs the operator's token is for.
    pub fn controller_id(&self) -> &str {
        &self.controller_id
    }

    /// Who asks, for the record: the controller, or the name of a token or certificate.
    pub fn by(&self) -> &str {
        self.holder.as_deref().unwrap_or(&self.controller_id)
    }

    /// The name of the key that verified it, if that key has one.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Which job: the same in the path and in what was signed.
    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// Whether it may cancel other controllers' jobs.
    pub fn admin(&self) -> bool {
        self.admin
    }

    /// Whose job, where that was said.
    pub fn job_controller_id(&self) -> Option<&str> {
        self.job_controller_id.as_deref()
    }

    /// Why, in the caller's words.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// SHA-256 of the bytes that were signed, in lower-case hex; `None` if nothing was signed.
    pub fn payload_sha256(&self) -> Option<&str> {
        self.payload_sha256.as_deref()
    }
}

impl Gate {
    /// Checks a cancellation of the job that the path names.
    ///
    /// # Errors
    /// The first check that fails, in the order of a submission's.
    pub fn cancel(&self, job_id: &str, body: &[u8], now: Timestamp) -> Result<AdmittedCancel, Refused> {
        self.cancel_via(job_id, body, &Via::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), now)
    }

    /// The same, of a cancellation that came on that connection.
    ///
    /// # Errors
    /// As [`Gate::cancel`]; `FORBIDDEN` right after the signature if it may not come that way.
    pub fn cancel_via(
        &self,
        job_id: &str,
        body: &[u8],
        via: &Via,
        now: Timestamp,
    ) -> Result<AdmittedCancel, Refused> {
        let authentic = self.authenticate(body, now)?;
        let admitted = via.may_carry(&authentic).and_then(|()| self.admit_cancel(job_id, &authentic, now));
        admitted.map_err(|problem| authentic.refuse(problem))
    }

    fn admit_cancel(
        &self,
        job_id: &str,
        authentic: &Authentic<'_>,
        now: Timestamp,
    ) -> Result<AdmittedCancel, Problem> {
        let (controller, fields) = self.fresh_and_allowed(authentic, now)?;
        let cancel = Cancel::from_map(fields)?;
        if cancel.job_id != job_id {
            return Err(invalid("job_id", "is another job than the path names"));
        }
        // A controller may have given another agent a job of the same id.
        grant::audience(&self.config, cancel.agent_id.as_deref())?;
        Ok(AdmittedCancel {
            admin: controller.admin,
            controller_id: cancel.controller_id,
            holder: None,
            key_id: authentic.proof.key.key_id.as_deref().map(str::to_owned),
            job_id: cancel.job_id,
            job_controller_id: cancel.job_controller_id,
            reason: cancel.reason.filter(|reason| !reason.is_empty()),
            payload_sha256: Some(authentic.sha256()),
        })
    }
}
