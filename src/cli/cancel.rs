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
    /// The only agent that may take it: needed where the agent wants an audience
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

pub async fn run(global: &Global, args: &CancelArgs) -> Result<u8, Fault> {
    let connection = settings::connect(global, Need::KeyOrToken)?;
    let at = args.agent_id.as_deref().or(connection.agent_id.as_deref());
    let client = connection.client.of(args.of.as_deref()).at(at);
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
