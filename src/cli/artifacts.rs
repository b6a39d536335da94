//! `quickcmd artifacts`: the files that a job has left; and fetching them at the end of `run` and `submit --wait`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    args::Global,
    exits,
    fault::Fault,
    landing::Landing,
    out,
    settings::{self, Need},
};
use crate::{
    client::Client,
    wire::{JobResult, result::Artifact},
};

/// Options of `artifacts`.
#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    /// The job
    pub job_id: String,
    /// Whose job, where the id alone does not say it
    #[arg(long, value_name = "ID")]
    pub of: Option<String>,
    /// Fetch them into this folder; without it they are listed
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
}

pub async fn run(global: &Global, args: &ArtifactsArgs) -> Result<u8, Fault> {
    let client = settings::connect(global, Need::KeyOrToken)?.client.of(args.of.as_deref());
    let status = client.status(&args.job_id).await?;
    let Some(result) = status.result else {
        let cause =
            format!("job {} is {}: its files are kept at its end", args.job_id, status.status.as_str());
        return Err(Fault::new(exits::NOT_FOUND, cause).hint(format!("quickcmd logs -f {}", args.job_id)));
    };
    if global.json {
        out::print_json(&json!({ "job_id": args.job_id, "artifacts": result.artifacts }))?;
    } else if args.to.is_none() {
        let rows: Vec<Vec<String>> = result.artifacts.iter().map(row).collect();
        out::print(&out::table(&rows))?;
    }
    match &args.to {
        Some(folder) => fetch(&client, &result, folder).await.map(|()| 0),
        None => Ok(0),
    }
}

fn row(artifact: &Artifact) -> Vec<String> {
    match (&artifact.size, &artifact.sha256) {
        (Some(size), Some(sha256)) => vec![artifact.path.clone(), format!("{size} bytes"), sha256.clone()],
        _ => vec![artifact.path.clone(), "not kept".to_owned(), artifact.error.clone().unwrap_or_default()],
    }
}

/// Fetches every file that is kept, and checks it.
///
/// # Errors
/// One was not kept, or could not be fetched; the others have been.
pub async fn fetch(client: &Client, result: &JobResult, folder: &Path) -> Result<(), Fault> {
    let cannot = |error| {
        Fault::new(exits::CANT_CREATE, format!("cannot write into {}: {error}", folder.display()))
            .hint(format!("fetch them into another folder: quickcmd artifacts {} --to FOLDER", result.job_id))
    };
    let landing = Landing::open(folder).map_err(cannot)?;
    let mut worst: Option<Fault> = None;
    for artifact in &result.artifacts {
        if let Err(fault) = one(client, &result.job_id, artifact, &landing).await {
            out::note(&format!("warning: {}", fault.cause));
            worst.get_or_insert(fault);
        }
    }
    match worst {
        None => Ok(()),
        Some(first) => {
            let id = &result.job_id;
            let hint = match first.exit {
                exits::CANT_CREATE => format!(
                    "move away what is in the way, or fetch them into another folder: quickcmd artifacts {id} --to FOLDER"
                ),
                _ => format!("quickcmd artifacts {id}"),
            };
            Err(Fault::new(first.exit, format!("not all artifacts of job {id} are here")).hint(hint))
        }
    }
}

async fn one(client: &Client, job_id: &str, artifact: &Artifact, landing: &Landing) -> Result<(), Fault> {
    let path = &artifact.path;
    let (Some(size), Some(sha256)) = (artifact.size, &artifact.sha256) else {
        let why = artifact.error.as_deref().unwrap_or("the agent does not say why");
        return Err(Fault::new(exits::NOT_FOUND, format!("artifact {path} was not kept: {why}")));
    };
    let executable = artifact.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let cannot = |error: std::io::Error| {
        Fault::new(exits::CANT_CREATE, format!("cannot write artifact {path}: {error}"))
    };
    let landed = landing.land(path, executable.is_some_and(|mode| mode & 0o100 != 0)).map_err(cannot)?;
    let mut file = tokio::fs::File::from_std(landed.file.try_clone().map_err(cannot)?);
    let got = client.artifact(job_id, path, &mut file).await?;
    if got.bytes != size || !got.sha256.eq_ignore_ascii_case(sha256) {
        let cause =
            format!("artifact {path} is not what was recorded: {} bytes arrived of {size}", got.bytes);
        return Err(Fault::new(exits::DATA, cause));
    }
    landed.keep().map_err(cannot)
}
