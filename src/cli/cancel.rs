//! `quickcmd cancel`: ends a job.

use clap::Args;

use super::{
    args::Global,
    fault::Fault,
    out,
    settings::{self, Need},
};

/// Options of `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job
    pub job_id: String,
    /// Whose job, where the id alone does not say it
    #[arg(long, value_name = "ID")]
    pub of: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub async fn run(global: &Global, args: &CancelArgs) -> Result<u8, Fault> {
    let client = settings::connect(global, Need::KeyOrToken)?.client.of(args.of.as_deref());
    let answer = client.cancel(&args.job_id, args.reason.as_deref()).await?;
    if global.json {
        out::print_json(&answer)?;
    } else if answer.status.is_final() {
        out::print(&format!("{} is cancelled\n", out::safe(&answer.job_id)))?;
    } else {
        out::print(&format!("{} is asked to end\n", out::safe(&answer.job_id)))?;
    }
    Ok(0)
}
