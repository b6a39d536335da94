//! The gate: who may do what. Ordered checks over an envelope or a read, `now` as a parameter, no I/O.
//! It hands out the only key ([`Admitted`]) that the job service accepts.
//!
//! The order is the contract's (docs/protocol.md): shape, signature, freshness, controller, fields, then
//! scopes, image, limits and policy. What depends on state (replay, rates, queue) comes after the gate.

mod authentic;
mod cancel;
mod fresh;
mod grant;
mod holder;
mod keys;
mod operate;
pub mod quotas;
pub mod rates;
mod read;
mod submit;
#[cfg(test)]
mod tests;
mod via;

use std::collections::HashMap;

pub use cancel::AdmittedCancel;
pub use holder::{Holder, Token, Tokens};
pub use keys::KeyUsed;
pub use operate::Operator;
pub use read::{ReadRequest, Reader};
pub use submit::Admitted;
pub use via::Via;

use crate::{
    config::{Controller, GateConfig, Rate, ReadAccess},
    wire::{Problem, key::KeyError},
};

/// The scope that sees and cancels every controller's jobs.
pub const ADMIN: &str = "admin";

/// One configuration's gate. Immutable: a reload makes a new one, and whoever owns it swaps it whole.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    read_access: ReadAccess,
    /// Index into `config.controllers`.
    controllers: HashMap<String, usize>,
    keys: keys::Keyring,
    /// See [`Gate::class`].
    classes: HashMap<String, String>,
}

/// An envelope or a read that goes no further.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    pub problem: Problem,
    /// Who asked for what, if the signature held: such a refusal is recorded as `rejected`.
    pub authenticated: Option<Claims>,
}

/// What a refused job said of itself, under a signature that held; as far as it could be read.
#[derive(Clone, PartialEq)]
pub struct Claims {
    pub controller_id: String,
    /// The key's own name, or the one that the envelope gave.
    pub key_id: Option<String>,
    /// Only if it keeps the rule of job ids, so that it is safe in records and paths.
    pub job_id: Option<String>,
    /// Empty if it could not be read.
    pub prompt: String,
    /// Empty if it could not be read.
    pub command: String,
    /// `candidate_metadata.risk_level`, else `medium`.
    pub risk_level: String,
    /// Values of `secret_env`, for redaction of what is recorded of this refusal.
    pub secrets: Vec<String>,
    /// The payload's exact bytes; may hold the values of `secret_env`.
    pub raw: Vec<u8>,
    /// SHA-256 of those bytes, in hex.
    pub payload_sha256: String,
}

impl std::fmt::Debug for Claims {
    /// Leaves out what may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims")
            .field("controller_id", &self.controller_id)
            .field("key_id", &self.key_id)
            .field("job_id", &self.job_id)
            .field("payload_sha256", &self.payload_sha256)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// The gate of one configuration.
    ///
    /// # Errors
    /// A key of the configuration is none (its own checks say so first, and with its place).
    pub fn new(config: &GateConfig, read_access: ReadAccess) -> Result<Gate, KeyError> {
        Ok(Gate {
            keys: keys::Keyring::new(config)?,
            classes: config
                .controllers
                .iter()
                .filter(|controller| controller.reuse > 1)
                .map(|controller| {
                    (controller.id.clone(), format!("{} {}", controller.id, keys::mark(&controller.keys)))
                })
                .collect(),
            read_access,
            controllers: config
                .controllers
                .iter()
                .enumerate()
                .map(|(index, controller)| (controller.id.clone(), index))
                .collect(),
            config: config.clone(),
        })
    }

    /// Whether what that controller signed with that key is still its own: it is on the list, and so is the key, be it
    /// valid now or not.
    pub fn lists_key(&self, controller_id: &str, key: &KeyUsed) -> bool {
        self.keys.lists(controller_id, key)
    }

    /// How many controllers are on the allowed list.
    pub fn controllers(&self) -> usize {
        self.controllers.len()
    }

    /// How often who has no rate of its own for reads and cancellations may come.
    pub fn rate_of_reads(&self) -> Rate {
        self.config.rate_of_reads
    }

    /// What a controller's sandboxes that are used again are known by; `None` where each is used once. With other keys it
    /// is another: whoever has been given the id of somebody else is not to get that one's sandboxes.
    pub fn class(&self, id: &str) -> Option<&str> {
        self.classes.get(id).map(String::as_str)
    }

    /// Whether it is the class of some controller.
    pub fn has_class(&self, class: &str) -> bool {
        self.classes.values().any(|known| known == class)
    }

    /// The controller of that name, if it is on the allowed list.
    pub fn controller(&self, id: &str) -> Option<&Controller> {
        self.controllers.get(id).map(|&index| &self.config.controllers[index])
    }
}
