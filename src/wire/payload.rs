//! The signed payload of a job, and of a cancellation: shape here, reading and rules beside it.

pub mod files;
mod parse;
pub mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use files::{Encoding, FileRequest};

/// A job as its controller signed it. Field order is the seed's, so that what we send looks like v1.
#[derive(Debug, Clone, PartialEq, JsonSchema, Serialize, Deserialize)]
#[schemars(deny_unknown_fields)]
pub struct Payload {
    /// 1 to 128 characters of `A-Za-z0-9._:-`; unique per controller, for ever.
    #[schemars(length(max = rules::MAX_JOB_ID), regex(pattern = JOB_ID))]
    pub job_id: String,
    /// What a person asked for, free text.
    #[schemars(with = "Option<String>", length(max = rules::MAX_TEXT))]
    #[serde(default)]
    pub prompt: String,
    /// Run through `/bin/sh -c`; 1 to 131,071 bytes without NUL. May be empty beside `argv`.
    #[schemars(with = "Option<String>", length(max = rules::MAX_COMMAND), regex(pattern = NO_NUL))]
    #[serde(default)]
    pub command: String,
    pub candidate_metadata: Option<Map<String, Value>>,
    pub plugin_metadata: Option<Map<String, Value>>,
    #[schemars(length(max = rules::MAX_SCOPES), inner(length(min = 1, max = rules::MAX_NAME)))]
    pub required_scopes: Option<Vec<String>>,
    #[schemars(with = "Option<String>", length(max = rules::MAX_TEXT))]
    #[serde(default)]
    pub snapshot_metadata: String,
    /// Unix seconds: the job must start by then.
    pub ttl: i64,
    /// Unix seconds: when it was signed.
    pub timestamp: i64,
    pub controller_id: String,

    /// Audience: the agent that this job is for.
    #[schemars(length(min = 1, max = rules::MAX_NAME))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_id: Option<String>,
    /// Run this directly, without a shell, instead of `command`.
    #[schemars(
        length(min = 1, max = rules::MAX_ARGV_ITEMS),
        inner(length(max = rules::MAX_ARGV_ITEM), regex(pattern = NO_NUL))
    )]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sandbox: Option<SandboxRequest>,
}

/// What the job asks of its sandbox; what is absent is the agent's default.
#[derive(Clone, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxRequest {
    #[schemars(length(max = rules::MAX_IMAGE), regex(pattern = "^[!-~]+$"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// Cores.
    #[schemars(range(min = rules::MIN_CPU))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_limit: Option<f64>,
    /// Bytes.
    #[schemars(range(min = rules::MIN_MEMORY))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_limit: Option<u64>,
    #[schemars(range(min = rules::MIN_PIDS))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pids_limit: Option<u64>,
    #[schemars(range(min = rules::MIN_TIMEOUT))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<u64>,
    /// Bytes, of `/tmp` and of the work folder each.
    #[schemars(range(min = rules::MIN_TMPFS))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tmpfs_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<Network>,
    #[schemars(extend("maxProperties" = rules::MAX_ENV_ENTRIES, "propertyNames" = variable_names()))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Environment whose values are masked in every output, log and record.
    #[schemars(extend("maxProperties" = rules::MAX_ENV_ENTRIES, "propertyNames" = variable_names()))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub secret_env: Option<BTreeMap<String, String>>,
    #[schemars(length(max = rules::MAX_WORKDIR), regex(pattern = "^/"))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stdin: Option<Stdin>,
    /// Files to place before the start.
    #[schemars(length(max = files::MAX_ITEMS))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub files: Option<Vec<FileRequest>>,
    /// Files, or folders with what is below them, to keep after the end.
    #[schemars(length(max = files::MAX_ITEMS), inner(length(min = 1, max = files::MAX_PATH)))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub artifacts: Option<Vec<String>>,
}

/// A wish to end a job, as its controller signed it.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// [`Cancel::ACTION`], so that nothing signed for another purpose can end a job.
    #[schemars(extend("const" = Cancel::ACTION))]
    pub action: String,
    #[schemars(length(max = rules::MAX_JOB_ID), regex(pattern = JOB_ID))]
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
    #[schemars(length(min = 1, max = rules::MAX_NAME))]
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_id: Option<String>,
    /// Why, for the record; 1,024 bytes at most.
    #[schemars(length(max = rules::MAX_REASON))]
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
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(untagged)]
#[schemars(deny_unknown_fields)]
pub enum Stdin {
    /// Taken as UTF-8.
    Text(String),
    /// Any bytes.
    Base64 {
        /// Standard alphabet with padding (RFC 4648, section 4).
        #[schemars(extend("contentEncoding" = "base64"))]
        base64: String,
    },
}

/// [`rules::is_job_id`] as a pattern, for the interface's document; its length is said beside it.
const JOB_ID: &str = "^[A-Za-z0-9._:-]+$";
/// Texts that become arguments of a program.
const NO_NUL: &str = r"^[^\u0000]*$";

/// The rule of the names of environment variables, for the interface's document.
fn variable_names() -> Value {
    json!({"maxLength": rules::MAX_ENV_NAME, "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"})
}

/// What of the network a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, JsonSchema, Serialize, Deserialize)]
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
