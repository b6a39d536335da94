//! `quickcmd submit`: hands a job over and, if asked, waits for its end without showing its output.

use std::path::PathBuf;

use clap::Args;

use super::{
    args::Global,
    fault::Fault,
    job::JobArgs,
    out,
    pump::Style,
    run,
    settings::{self, Need},
};
use crate::base::clock::Timestamp;

/// Options of `submit`.
#[derive(Debug, Args)]
#[command(after_help = "\
A single word is a shell command: quickcmd submit -- 'make && make test'
Several words run as they stand:  quickcmd submit -- ls -l /")]
pub struct SubmitArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Wait for its end and leave with its exit code; with --json, print its result
    #[arg(long)]
    pub wait: bool,
    /// Then fetch what --artifact keeps into this folder
    #[arg(long, value_name = "FOLDER", requires = "wait")]
    pub artifacts_to: Option<PathBuf>,
}

pub async fn run(global: &Global, args: SubmitArgs) -> Result<u8, Fault> {
    let folder = args.job.fetched_to(args.artifacts_to.as_deref())?;
    let connection = settings::connect(global, Need::Key)?;
    let client = connection.client;
    let payload =
        args.job.payload(&client.settings().controller_id, connection.agent_id, Timestamp::now())?;
    if args.wait {
        let announce = || if global.json { Ok(()) } else { out::print(&format!("{}\n", payload.job_id)) };
        let end = run::attend(&client, &payload, Style::Nothing, false, Some(&announce)).await?;
        if global.json {
            out::print_json(&end.result)?;
        }
        return end.fetched(&client, folder).await;
    }
    let accepted = client.submit(&payload).await.map_err(|error| Fault::of_submission(error, &payload))?;
    if global.json {
        out::print_json(&accepted)?;
    } else {
        out::print(&format!("{}\n", out::safe(&accepted.job_id)))?;
    }
    Ok(0)
}
