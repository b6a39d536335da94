//! The signed payload of a job, and of a cancellation: shape here, reading and rules beside it.

pub mod files;
mod parse;
pub mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use files::{Encoding, FileRequest};

/// A job as its controller signed it. Field order is the seed's, so that what we send looks like v1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// 1 to 128 characters of `A-Za-z0-9._:-`; unique per controller, for ever.
    pub job_id: String,
    /// What a person asked for, free text.
    #[serde(default)]
    pub prompt: String,
    /// Run through `/bin/sh -c`; 1 to 131,072 bytes without NUL. May be empty beside `argv`.
    #[serde(default)]
    pub command: String,
    pub candidate_metadata: Option<Map<String, Value>>,
    pub plugin_metadata: Option<Map<String, Value>>,
    pub required_scopes: Option<Vec<String>>,
    #[serde(default)]
    pub snapshot_metadata: String,
    /// Unix seconds: the job must start by then.
    pub ttl: i64,
    /// Unix seconds: when it was signed.
    pub timestamp: i64,
    pub controller_id: String,

    /// Audience: the agent that this job is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_id: Option<String>,
    /// Run this directly, without a shell, instead of `command`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sandbox: Option<SandboxRequest>,
}

/// What the job asks of its sandbox; what is absent is the agent's default.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxRequest {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// Cores.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_limit: Option<f64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pids_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<u64>,
    /// Bytes, of `/tmp` and of the work folder each.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tmpfs_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Environment whose values are masked in every output, log and record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret_env: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stdin: Option<Stdin>,
    /// Files to place before the start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub files: Option<Vec<FileRequest>>,
    /// Files, or folders with what is below them, to keep after the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifacts: Option<Vec<String>>,
}

/// A wish to end a job, as its controller signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// [`Cancel::ACTION`], so that nothing signed for another purpose can end a job.
    pub action: String,
    pub job_id: String,
    /// Unix seconds: when it was signed.
    pub timestamp: i64,
    /// Unix seconds: no use after that.
    pub ttl: i64,
    pub controller_id: String,
    /// Whose job, where several controllers may have one of that id: for administrators.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job_controller_id: Option<String>,
    /// Audience: the agent that this is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_id: Option<String>,
    /// Why, for the record; 1,024 bytes at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl Cancel {
    /// What `action` says.
    pub const ACTION: &str = "cancel";
}

impl Payload {
    /// What is to be run: `argv`, or `/bin/sh -c COMMAND`.
    pub fn program(&self) -> Vec<String> {
        match &self.argv {
            Some(argv) => argv.clone(),
            None => vec!["/bin/sh".to_owned(), "-c".to_owned(), self.command.clone()],
        }
    }

    /// The command as text, for policy and record: `command`, or `argv` joined with spaces.
    pub fn command_text(&self) -> String {
        match &self.argv {
            Some(argv) => argv.join(" "),
            None => self.command.clone(),
        }
    }

    /// `candidate_metadata.risk_level` if it is a text of 1 to 32 bytes, else `medium`.
    pub fn risk_level(&self) -> &str {
        risk_level(self.candidate_metadata.as_ref())
    }

    /// The values of `secret_env`, which no output, log or record may show.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let secrets = self.sandbox.as_ref().and_then(|sandbox| sandbox.secret_env.as_ref());
        secrets.into_iter().flat_map(|env| env.values().map(String::as_str))
    }
}

/// See [`Payload::risk_level`].
pub(crate) fn risk_level(candidate_metadata: Option<&Map<String, Value>>) -> &str {
    candidate_metadata
        .and_then(|metadata| metadata.get("risk_level"))
        .and_then(Value::as_str)
        .filter(|level| (1..=32).contains(&level.len()) && !level.chars().any(char::is_control))
        .unwrap_or("medium")
}

impl Stdin {
    /// The bytes; none if the base64 is invalid, which [`Payload::parse`] refuses.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Stdin::Text(text) => text.clone().into_bytes(),
            Stdin::Base64 { base64 } => STANDARD.decode(base64).unwrap_or_default(),
        }
    }
}

/// Standard input: text, or `{"base64": "..."}` for bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stdin {
    /// Taken as UTF-8.
    Text(String),
    /// Any bytes.
    Base64 {
        /// Standard alphabet with padding (RFC 4648, section 4).
        base64: String,
    },
}

/// What of the network a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing but its own loopback.
    #[default]
    None,
    /// Docker's default bridge.
    Bridge,
}

impl std::fmt::Debug for SandboxRequest {
    /// Names the secrets, never their values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxRequest")
            .field("image", &self.image)
            .field("cpu_limit", &self.cpu_limit)
            .field("memory_limit", &self.memory_limit)
            .field("pids_limit", &self.pids_limit)
            .field("timeout_seconds", &self.timeout_seconds)
            .field("tmpfs_size", &self.tmpfs_size)
            .field("network", &self.network)
            .field("env", &self.env.as_ref().map(|env| env.keys().collect::<Vec<_>>()))
            .field("secret_env", &self.secret_env.as_ref().map(|env| env.keys().collect::<Vec<_>>()))
            .field("workdir", &self.workdir)
            .field("stdin", &self.stdin.as_ref().map(|_| ".."))
            .field("files", &self.files)
            .field("artifacts", &self.artifacts)
            .finish()
    }
}
