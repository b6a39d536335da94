//! `quickcmd logs`: what a job has printed, and with `-f` what it goes on to print.

use clap::Args;

use super::{
    args::Global,
    cut,
    fault::Fault,
    pump::{Pump, Style},
    settings::{self, Need},
};

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job
    pub job_id: String,
    /// Whose job, where the id alone does not say it
    #[arg(long, value_name = "ID")]
    pub of: Option<String>,
    /// Go on until the job has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Begin at the frame with this number (the first is 1)
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub from_seq: u64,
    /// Leave the agent's own words out
    #[arg(long)]
    pub no_system: bool,
}

pub async fn run(global: &Global, args: &LogsArgs) -> Result<u8, Fault> {
    let client = settings::connect(global, Need::KeyOrToken)?.client.of(args.of.as_deref());
    let style = if global.json { Style::Json } else { Style::Bytes };
    // Without -f: up to what is recorded now, which the lengths of both streams tell.
    let mut goal = None;
    if !args.follow && client.status(&args.job_id).await?.result.is_none() {
        let stdout = client.output_len(&args.job_id, "stdout").await?;
        let stderr = client.output_len(&args.job_id, "stderr").await?;
        goal = Some([stdout, stderr]);
    }
    // The lengths count from the first byte: see every frame, show those asked for.
    let start = if goal.is_some() { 1 } else { args.from_seq };
    let mut frames = client.follow(&args.job_id, start, !args.no_system);
    let mut pump = Pump::new(style, start <= 1);
    let reached =
        |pump: &Pump| goal.is_some_and(|goal| pump.offsets().iter().zip(goal).all(|(at, end)| *at >= end));
    while !reached(&pump) {
        let Some(frame) = frames.next().await else { break };
        let frame = frame?;
        // The end is told even to who begins beyond it.
        if frame.seq >= args.from_seq || frame.r#final {
            pump.show(&frame).await?;
        } else {
            pump.pass(&frame)?;
        }
        if let Some(result) = &frame.result {
            cut::warn(&cut::streams(result));
            pump.verify(&client, result).await?;
        }
    }
    Ok(0)
}
