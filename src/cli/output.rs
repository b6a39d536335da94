//! `quickcmd output`: the exact bytes of a stream.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::fs::File;

use super::{
    args::Global,
    cut, exits,
    fault::Fault,
    out,
    settings::{self, Need},
};

/// Options of `output`.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// The job
    pub job_id: String,
    /// Whose job, where the id alone does not say it
    #[arg(long, value_name = "ID")]
    pub of: Option<String>,
    /// Which of its streams
    #[arg(long, default_value = "stdout")]
    pub stream: StreamArg,
    /// Write to this file instead of standard output (-)
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `--stream`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StreamArg {
    Stdout,
    Stderr,
}

pub async fn run(global: &Global, args: &OutputArgs) -> Result<u8, Fault> {
    // As elsewhere; a file of that name is ./-
    let file = args.output.as_ref().filter(|path| path.as_os_str() != "-");
    if global.json && file.is_none() {
        return Err(Fault::new(exits::USAGE, "--json needs a file for the bytes").hint("-o FILE"));
    }
    let client = settings::connect(global, Need::KeyOrToken)?.client.of(args.of.as_deref());
    let name = match args.stream {
        StreamArg::Stdout => "stdout",
        StreamArg::Stderr => "stderr",
    };
    // Asked before: what is downloaded of a job that has ended by now is all of it.
    let status = client.status(&args.job_id).await?;
    let got = match file {
        None => client.download(&args.job_id, name, &mut tokio::io::stdout()).await?,
        Some(path) => {
            let mut file = File::create(path).await.map_err(|error| {
                Fault::new(exits::CANT_CREATE, format!("cannot write {}: {error}", path.display()))
            })?;
            client.download(&args.job_id, name, &mut file).await?
        }
    };
    let recorded = status.result.as_ref().map(|result| match args.stream {
        StreamArg::Stdout => &result.stdout_sha256,
        StreamArg::Stderr => &result.stderr_sha256,
    });
    let recorded = recorded.filter(|sha256| !sha256.is_empty());
    if let Some(sha256) = recorded
        && !sha256.eq_ignore_ascii_case(&got.sha256)
    {
        return Err(Fault::new(
            exits::DATA,
            format!(
                "{name} of {} is not what was recorded: its sha256 is {}, not {sha256}",
                args.job_id, got.sha256
            ),
        ));
    }
    let kept = status.result.as_ref().map(|result| match (args.stream, cut::streams(result)) {
        (StreamArg::Stdout, [stdout, _]) => stdout,
        (StreamArg::Stderr, [_, stderr]) => stderr,
    });
    cut::warn(kept.as_slice());
    if global.json {
        out::print_json(&json!({
            "job_id": args.job_id,
            "stream": name,
            "bytes": got.bytes,
            "sha256": got.sha256,
            "verified": recorded.is_some(),
            "truncated": kept.map(|stream| stream.truncated),
            "dropped": kept.map(|stream| stream.dropped),
        }))?;
    } else if recorded.is_none() {
        out::note("the job has not ended: these are its bytes so far");
    }
    Ok(0)
}
