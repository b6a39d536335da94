//! `restore --from FILE`: a backup takes the place of the record, while no agent runs.

use std::path::Path;

use super::{AgentError, config, jobs, wait_for};
use crate::{
    base::clock::Timestamp,
    output::{self, Outputs, Stream},
    store::{self, StoreError, restore::Left},
};

/// Checks the backup, puts it in place, and keeps what was there; what it says of it.
///
/// # Errors
/// An agent runs; the backup is damaged or no record; the disk says no. Then nothing has changed.
pub fn restore(path: &Path, from: &Path) -> Result<String, AgentError> {
    let config = config(path)?;
    let database = config.audit_db_path;
    let spools = config.data_dir.join("spool");
    let last_row = output::last_row(&spools).map_err(AgentError::io("the spools could not be listed"))?;
    let outputs = match spools.exists() {
        true => Some(Outputs::open(&spools).map_err(AgentError::folder("the spools could not be opened"))?),
        false => None,
    };
    let limit = usize::try_from(config.output.result_bytes).unwrap_or(usize::MAX);
    let left = async |row| match &outputs {
        Some(outputs) => {
            [left(outputs, row, Stream::Stdout, limit).await, left(outputs, row, Stream::Stderr, limit).await]
        }
        None => [Left::default(), Left::default()],
    };
    let restored = wait_for(async {
        store::restore::restore(from, &database, last_row, Timestamp::now(), left).await.map_err(|error| {
            match error {
                StoreError::InUse { file } => AgentError::Refused(format!(
                    "the agent runs on {file}: stop the agent first, then restore"
                )),
                other => other.into(),
            }
        })
    })?;
    let mut lines = vec![format!(
        "{} is now {}: {} jobs, {} audit entries",
        database.display(),
        from.display(),
        restored.verified.jobs,
        restored.verified.audit_entries
    )];
    if let Some(kept) = restored.kept {
        lines.push(format!("what was there is kept as {}", kept.display()));
    }
    if restored.lost > 0 {
        lines.push(format!(
            "{} had not ended when the backup was made and may have run since: recorded as lost, not run again",
            jobs(restored.lost)
        ));
    }
    lines.push(
        "the ids of jobs accepted after the backup are not known any more; start the agent now".to_owned(),
    );
    Ok(lines.join("\n"))
}

/// What a job that the backup did not see the end of has written: the record speaks of what there is to read.
async fn left(outputs: &Outputs, row: i64, stream: Stream, limit: usize) -> Left {
    let totals = outputs.totals(row, stream).await;
    let text = outputs.text(row, stream, limit).await.unwrap_or_default();
    Left { text, bytes: totals.bytes, sha256: totals.sha256 }
}
