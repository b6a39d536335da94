//! What the supervisor is told, from what was signed and what the agent is configured to.

use std::collections::BTreeMap;

use quickcmd_init::proto::{Collect, FileIn, Job as Spec};

use super::shared::Settings;
use crate::{
    config::Limits,
    sandbox::Image,
    store::jobs::Job,
    wire::{Payload, payload::Network},
};

/// The job's environment where neither image nor job says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The payload of a stored job. It was checked before it was stored, so that this fails only for a damaged row.
///
/// # Errors
/// A sentence that says so.
pub(super) fn read(job: &Job, raw: Option<&[u8]>) -> Result<(Payload, Limits, Network), String> {
    let Some(raw) = raw else {
        return Err("the job's payload is not stored any more; it can't be run".to_owned());
    };
    let text =
        std::str::from_utf8(raw).map_err(|error| format!("the job's stored payload is damaged: {error}"))?;
    let payload = Payload::parse(text).map_err(|problem| {
        format!(
            "the job's stored payload can't be read any more: {}",
            problem.details.unwrap_or(problem.error)
        )
    })?;
    let network = payload.sandbox.as_ref().and_then(|sandbox| sandbox.network).unwrap_or_default();
    Ok((payload, limits(job)?, network))
}

/// The limits that the job was admitted with.
///
/// # Errors
/// A sentence that says that the row is damaged.
pub(super) fn limits(job: &Job) -> Result<Limits, String> {
    serde_json::from_value(job.limits.clone())
        .map_err(|error| format!("the job's stored limits can't be read any more: {error}"))
}

/// The supervisor's job, and the bytes that follow it: standard input, then its files.
pub(super) fn build(
    job: &Job,
    payload: &Payload,
    limits: Limits,
    image: &Image,
    settings: &Settings,
    first_seq: u64,
) -> (Spec, Vec<u8>) {
    let request = payload.sandbox.clone().unwrap_or_default();
    let workdir = request.workdir.unwrap_or_else(|| settings.sandbox.workdir.clone());
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("PATH".to_owned(), PATH.to_owned());
    env.extend(image.env.iter().cloned());
    env.insert("HOME".to_owned(), settings.sandbox.workdir.clone());
    env.insert("QUICKCMD_JOB_ID".to_owned(), job.job_id.clone());
    env.extend(request.env.unwrap_or_default());
    let secret_env = request.secret_env.unwrap_or_default();
    let secrets = secret_env.values().cloned().collect();
    env.extend(secret_env);
    let mut follows = request.stdin.map(|stdin| stdin.bytes()).unwrap_or_default();
    let stdin_len = follows.len() as u64;
    let mut files = Vec::new();
    for file in request.files.unwrap_or_default() {
        let bytes = file.bytes();
        files.push(FileIn { mode: file.mode_bits(), len: bytes.len() as u64, path: file.path });
        follows.extend(bytes);
    }
    let caps = &settings.output.artifacts;
    let artifacts = request.artifacts.filter(|paths| !paths.is_empty()).map(|paths| Collect {
        paths,
        max_files: caps.max_files,
        max_file_size: caps.max_file_size,
        max_total_size: caps.max_total_size,
    });
    let spec = Spec {
        argv: payload.program(),
        env: env.into_iter().collect(),
        workdir,
        stdin_len,
        timeout_ms: limits.timeout_seconds.saturating_mul(1000),
        grace_ms: u64::try_from(settings.jobs.grace.as_millis()).unwrap_or(u64::MAX),
        output_limit: settings.output.limit,
        end_at_output_limit: settings.output.end_at_limit,
        secrets,
        redact: settings.output.redact,
        first_seq,
        fsize: Some(settings.sandbox.fsize),
        files,
        artifacts,
        // The sandbox knows.
        again: false,
    };
    (spec, follows)
}
