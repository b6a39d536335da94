//! What a token or a certificate may do beside reading: cancel jobs, drain the agent. Nothing of it is signed, so it
//! holds only on the connection that it came on.

use super::{AdmittedCancel, Gate, Holder, ReadRequest, Tokens, read};
use crate::{
    base::clock::Timestamp,
    wire::{
        Code, Problem,
        fields::{self, Fields},
        payload::rules,
        rights::Right,
    },
};

/// Members of the body of a cancellation that is not signed.
const ORDER: &[&str] = &["controller_id", "reason"];

/// Somebody who holds `operate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    holder: Holder,
}

impl Operator {
    /// Somebody who may do anything, for tests of who asks the gate.
    #[cfg(test)]
    pub fn for_tests(name: &str) -> Operator {
        let rights = crate::wire::rights::Rights(vec![Right::Admin]);
        Operator { holder: Holder { name: name.to_owned(), controller: None, rights } }
    }

    /// For the record.
    pub fn name(&self) -> &str {
        &self.holder.name
    }
}

impl Gate {
    /// Checks that the request's token or certificate gives the right to operate.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without one that is good, `FORBIDDEN` if it does not give that right.
    pub fn operator(
        &self,
        request: &ReadRequest,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<Operator, Problem> {
        let holder = self.holder(request, tokens, now)?.ok_or_else(|| {
            read::unauthenticated("send a token with the scope operate: `Authorization: Bearer qca_...`")
        })?;
        read::must_hold(&holder, Right::Operate)?;
        Ok(Operator { holder })
    }

    /// Checks a cancellation that is not signed. The body is empty, or an object with `reason` and `controller_id`.
    ///
    /// # Errors
    /// 400 for a body that is not that.
    pub fn cancel_by(
        &self,
        operator: &Operator,
        job_id: &str,
        body: &[u8],
    ) -> Result<AdmittedCancel, Problem> {
        let text = std::str::from_utf8(body).map_err(|_| Problem::new(Code::InvalidJson))?;
        let members = if text.trim().is_empty() { fields::object("{}") } else { fields::object(text) }?;
        let mut fields = Fields::new("", members, ORDER)?;
        let (owner, reason) = (fields.text("controller_id")?, fields.text("reason")?);
        if reason.as_ref().is_some_and(|reason| reason.len() > rules::MAX_REASON) {
            return Err(fields.invalid("reason", &format!("may have {} bytes at most", rules::MAX_REASON)));
        }
        Ok(AdmittedCancel::by_holder(&operator.holder, job_id, owner, reason))
    }

    /// Whether that operator may drain the agent, which is every controller's.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub fn may_drain(&self, operator: &Operator) -> Result<(), Problem> {
        match &operator.holder.controller {
            None => Ok(()),
            Some(controller) => Err(Problem::new(Code::Forbidden).details(format!(
                "{} is for jobs of controller {controller:?} only; a drain is every controller's matter",
                operator.holder.name
            ))),
        }
    }
}
