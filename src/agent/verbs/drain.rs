//! `drain` and `undrain`: no new jobs for a while, without a stop.

use std::{path::Path, time::Duration};

use super::{
    super::control::{self, Command, Standing},
    AgentError, config, jobs, wait_for,
};

/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(200);

/// Tells the running agent to take and start no more jobs. `wait`: how long to wait for those that run.
///
/// # Errors
/// No agent runs, it may not be asked, or jobs still run after the wait.
pub fn drain(path: &Path, wait: Option<Duration>) -> Result<String, AgentError> {
    let data_dir = config(path)?.data_dir;
    wait_for(async {
        let mut standing = control::ask(&data_dir, Command::Drain).await?;
        let Some(wait) = wait else {
            return Ok(said(&standing));
        };
        let end = tokio::time::Instant::now() + wait;
        while standing.running > 0 {
            if tokio::time::Instant::now() >= end {
                return Err(AgentError::Refused(format!(
                    "{} still after {} s; the agent goes on draining, `undrain` takes it back",
                    said(&standing),
                    wait.as_secs()
                )));
            }
            tokio::time::sleep(LOOK).await;
            standing = control::ask(&data_dir, Command::Status).await?;
        }
        Ok(said(&standing))
    })
}

/// Tells the running agent to take and start jobs again.
///
/// # Errors
/// No agent runs, it may not be asked, or it is stopping.
pub fn undrain(path: &Path) -> Result<String, AgentError> {
    let data_dir = config(path)?.data_dir;
    wait_for(async { Ok(said(&control::ask(&data_dir, Command::Undrain).await?)) })
}

fn said(standing: &Standing) -> String {
    let Standing { mode, running, queued, .. } = standing;
    let run = if *running == 1 { "runs" } else { "run" };
    let wait = if *queued == 1 { "waits" } else { "wait" };
    format!("{mode}: {} {run}, {} {wait}", jobs(*running), jobs(*queued))
}
