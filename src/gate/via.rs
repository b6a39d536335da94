//! The connection that an envelope came on. Its client certificate, where there is one, gives no right to submit in the
//! place of a signature: it may only narrow what the signature gives.

use std::net::IpAddr;

use super::{Holder, authentic::Authentic, read};
use crate::wire::{Code, Problem, rights::Right};

/// Where an envelope comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The address at the other end.
    pub peer: IpAddr,
    /// Whose client certificate the connection has, if it is anybody's.
    pub certificate: Option<Holder>,
}

impl From<IpAddr> for Via {
    fn from(peer: IpAddr) -> Via {
        Via { peer, certificate: None }
    }
}

impl Via {
    /// Whether what that controller has signed may come this way.
    ///
    /// # Errors
    /// `FORBIDDEN`: the certificate does not hold `submit`, or is another controller's.
    pub(super) fn may_carry(&self, authentic: &Authentic<'_>) -> Result<(), Problem> {
        let Some(holder) = &self.certificate else { return Ok(()) };
        read::must_hold(holder, Right::Submit)?;
        match &holder.controller {
            Some(id) if *id != authentic.controller_id() => Err(Problem::new(Code::Forbidden)
                .details(format!("{} carries only what controller {id:?} has signed", holder.name))),
            _ => Ok(()),
        }
    }
}
