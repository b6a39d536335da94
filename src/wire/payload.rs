//! The signed payload of a job: shape, and every field's own rule.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A job as its controller signed it. Field order is the seed's, so that what we send looks like v1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// 1 to 128 characters of `A-Za-z0-9._:-`; unique per controller, for ever.
    pub job_id: String,
    /// What a person asked for, free text.
    pub prompt: String,
    /// Run through `/bin/sh -c`; 1 to 131,072 bytes without NUL. May be empty beside `argv`.
    pub command: String,
    pub candidate_metadata: Option<Map<String, Value>>,
    pub plugin_metadata: Option<Map<String, Value>>,
    pub required_scopes: Option<Vec<String>>,
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
            .finish()
    }
}
