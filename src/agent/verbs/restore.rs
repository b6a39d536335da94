//! `restore --from FILE`: a backup takes the place of the record, while no agent runs.

use std::path::Path;

use super::{AgentError, config, jobs, wait_for};
use crate::{
    base::clock::Timestamp,
    output,
    store::{self, StoreError},
};

/// Checks the backup, puts it in place, and keeps what was there; what it says of it.
///
/// # Errors
/// An agent runs; the backup is damaged or no record; the disk says no. Then nothing has changed.
pub fn restore(path: &Path, from: &Path) -> Result<String, AgentError> {
    let config = config(path)?;
    let database = config.audit_db_path;
    let last_row = output::last_row(&config.data_dir.join("spool"))
        .map_err(AgentError::io("the spools could not be listed"))?;
    let restored = wait_for(async {
        store::restore::restore(from, &database, last_row, Timestamp::now()).await.map_err(
            |error| match error {
                StoreError::InUse { file } => AgentError::Refused(format!(
                    "the agent runs on {file}: stop the agent first, then restore"
                )),
                other => other.into(),
            },
        )
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
