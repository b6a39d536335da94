//! `quickcmd status`: one job.

use clap::Args;

use super::{
    args::Global,
    fault::Fault,
    out,
    settings::{self, Need},
};
use crate::wire::result::JobStatus;

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The job
    pub job_id: String,
    /// Whose job, where the id alone does not say it
    #[arg(long, value_name = "ID")]
    pub of: Option<String>,
}

pub async fn run(global: &Global, args: &StatusArgs) -> Result<u8, Fault> {
    let client = settings::connect(global, Need::KeyOrToken)?.client.of(args.of.as_deref());
    let status = client.status(&args.job_id).await?;
    if global.json {
        out::print_json(&status)?;
    } else {
        out::print(&human(&status))?;
    }
    Ok(0)
}

fn human(status: &JobStatus) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("job", status.job_id.clone());
    row(
        "status",
        match &status.reason {
            Some(reason) => format!("{} ({reason})", status.status.as_str()),
            None if status.cancel_requested => format!("{} (about to be cancelled)", status.status.as_str()),
            None => status.status.as_str().to_owned(),
        },
    );
    row("controller", status.controller_id.clone());
    row("accepted", status.created_at.clone());
    if let Some(started) = &status.started_at {
        row("started", started.clone());
    }
    if let Some(result) = &status.result {
        row("ended", result.end_time.clone());
        row("duration", format!("{} ms (waited {} ms)", result.duration_ms, result.queued_ms));
        row("exit code", result.exit_code.to_string());
        if let Some(error) = &result.error {
            row("error", error.clone());
        }
        if !result.image.is_empty() {
            row("image", result.image.clone());
        }
        if let Some(digest) = &result.image_digest {
            row("digest", digest.clone());
        }
        row("stdout", stream(result.stdout_bytes, result.stdout_dropped, &result.stdout_sha256));
        row("stderr", stream(result.stderr_bytes, result.stderr_dropped, &result.stderr_sha256));
        for artifact in &result.artifacts {
            let said = match (&artifact.size, &artifact.sha256) {
                (Some(size), Some(sha256)) => format!("{}: {size} bytes, sha256 {sha256}", artifact.path),
                _ => {
                    format!("{}: not kept: {}", artifact.path, artifact.error.as_deref().unwrap_or_default())
                }
            };
            row("artifact", said);
        }
        if let Some(usage) = &result.usage {
            row("used", format!("{} ms of CPU, {} bytes of memory", usage.cpu_ms, usage.max_rss_bytes));
        }
        if let Some(receipt) = &result.receipt {
            row("receipt", format!("entry {}, sha256 {}", receipt.entry, receipt.sha256));
        }
    }
    out::table(&rows)
}

fn stream(bytes: u64, dropped: u64, sha256: &str) -> String {
    match dropped {
        0 => format!("{bytes} bytes, sha256 {sha256}"),
        _ => format!("{bytes} bytes ({dropped} more were dropped), sha256 {sha256}"),
    }
}
