//! From a payload's JSON to its type, every field's own rule kept.

use quickcmd_init::redact::Redactor;
use serde_json::{Map, Value};

use super::{Cancel, Network, Payload, SandboxRequest, files, rules};
use crate::wire::{
    Problem,
    fields::{self, Fields, invalid},
};

const PAYLOAD: &[&str] = &[
    "job_id",
    "prompt",
    "command",
    "candidate_metadata",
    "plugin_metadata",
    "required_scopes",
    "snapshot_metadata",
    "ttl",
    "timestamp",
    "controller_id",
    "agent_id",
    "argv",
    "sandbox",
];

const SANDBOX: &[&str] = &[
    "image",
    "cpu_limit",
    "memory_limit",
    "pids_limit",
    "timeout_seconds",
    "tmpfs_size",
    "network",
    "env",
    "secret_env",
    "workdir",
    "stdin",
    "files",
    "artifacts",
];

const CANCEL: &[&str] =
    &["action", "job_id", "timestamp", "ttl", "controller_id", "job_controller_id", "agent_id", "reason"];

impl Payload {
    /// Reads a job's payload strictly: what a controller signed, or what the store kept of it.
    ///
    /// # Errors
    /// `INVALID_FIELD` or `UNKNOWN_FIELD` with the first field that breaks its rule, `INVALID_JSON` if it
    /// is no object.
    pub fn parse(json: &str) -> Result<Payload, Problem> {
        Payload::from_map(fields::object(json)?)
    }

    /// The same, of an object that [`fields::object`] has read.
    ///
    /// # Errors
    /// As [`Payload::parse`].
    pub fn from_map(map: Map<String, Value>) -> Result<Payload, Problem> {
        let mut fields = Fields::new("", map, PAYLOAD)?;
        let job_id = rules::job_id(&mut fields)?;
        let prompt = rules::text(&mut fields, "prompt")?;
        let (command, argv) = rules::command(&mut fields)?;
        Ok(Payload {
            job_id,
            prompt,
            command,
            candidate_metadata: fields.map("candidate_metadata")?,
            plugin_metadata: fields.map("plugin_metadata")?,
            required_scopes: rules::scopes(&mut fields)?,
            snapshot_metadata: rules::text(&mut fields, "snapshot_metadata")?,
            ttl: fields.seconds("ttl")?,
            timestamp: fields.seconds("timestamp")?,
            controller_id: fields.required_text("controller_id")?,
            agent_id: rules::name(&mut fields, "agent_id")?,
            argv,
            sandbox: fields.map("sandbox")?.map(sandbox).transpose()?,
        })
    }
}

fn sandbox(map: Map<String, Value>) -> Result<SandboxRequest, Problem> {
    let mut fields = Fields::new("sandbox.", map, SANDBOX)?;
    let request = SandboxRequest {
        image: rules::image(&mut fields)?,
        cpu_limit: rules::cpu(&mut fields)?,
        memory_limit: fields.whole("memory_limit", rules::MIN_MEMORY, "bytes")?,
        pids_limit: fields.whole("pids_limit", rules::MIN_PIDS, "processes")?,
        timeout_seconds: fields.whole("timeout_seconds", rules::MIN_TIMEOUT, "seconds")?,
        tmpfs_size: fields.whole("tmpfs_size", rules::MIN_TMPFS, "bytes")?,
        network: network(&mut fields)?,
        env: rules::env(&mut fields, "env")?,
        secret_env: rules::env(&mut fields, "secret_env")?,
        workdir: rules::workdir(&mut fields)?,
        stdin: rules::stdin(&mut fields)?,
        files: files::files(&mut fields)?,
        artifacts: files::artifacts(&mut fields)?,
    };
    if let (Some(open), Some(secret)) = (&request.env, &request.secret_env)
        && let Some(name) = secret.keys().find(|name| open.contains_key(*name))
    {
        return Err(invalid(&format!("sandbox.secret_env.{name}"), "stands in `sandbox.env` as well"));
    }
    let secrets: usize = request.secret_env.iter().flat_map(|env| env.values()).map(String::len).sum();
    if secrets > rules::MAX_SECRETS {
        let why = format!("may have values of {} bytes together", rules::MAX_SECRETS);
        return Err(invalid("sandbox.secret_env", &why));
    }
    if let Some(index) = told(&request) {
        let field = format!("sandbox.artifacts.{index}");
        return Err(invalid(&field, "holds a value of `sandbox.secret_env`, and would stand in the result"));
    }
    Ok(request)
}

/// The first path among the artifacts that would tell a declared secret.
fn told(request: &SandboxRequest) -> Option<usize> {
    let secrets: Vec<&str> =
        request.secret_env.iter().flat_map(|env| env.values()).map(String::as_str).collect();
    // Most jobs have the one or the other, and what searches for values is not made for nothing.
    if secrets.is_empty() || request.artifacts.is_none() {
        return None;
    }
    let mut redactor = Redactor::new(&secrets, false);
    request.artifacts.iter().flatten().position(|path| {
        let mut masked = Vec::with_capacity(path.len());
        redactor.push(path.as_bytes(), &mut masked);
        redactor.finish(&mut masked);
        masked != path.as_bytes()
    })
}

fn network(fields: &mut Fields<'_>) -> Result<Option<Network>, Problem> {
    match fields.text("network")?.as_deref() {
        None => Ok(None),
        Some("none") => Ok(Some(Network::None)),
        Some("bridge") => Ok(Some(Network::Bridge)),
        Some(_) => Err(fields.invalid("network", "must be `none` or `bridge`")),
    }
}

impl Cancel {
    /// Reads a cancellation's payload strictly, of an object that [`fields::object`] has read.
    ///
    /// # Errors
    /// As [`Payload::parse`].
    pub fn from_map(map: Map<String, Value>) -> Result<Cancel, Problem> {
        let mut fields = Fields::new("", map, CANCEL)?;
        let action = fields.required_text("action")?;
        if action != Cancel::ACTION {
            return Err(fields.invalid("action", "must be `cancel`"));
        }
        let cancel = Cancel {
            action,
            job_id: rules::job_id(&mut fields)?,
            timestamp: fields.seconds("timestamp")?,
            ttl: fields.seconds("ttl")?,
            controller_id: fields.required_text("controller_id")?,
            job_controller_id: fields.text("job_controller_id")?,
            agent_id: rules::name(&mut fields, "agent_id")?,
            reason: fields.text("reason")?,
        };
        if cancel.reason.as_ref().is_some_and(|reason| reason.len() > rules::MAX_REASON) {
            return Err(fields.invalid("reason", &format!("may have {} bytes at most", rules::MAX_REASON)));
        }
        Ok(cancel)
    }
}
