//! `backup --to FILE`: a copy of the record, of one moment, also while the agent runs.

use std::path::Path;

use super::{AgentError, config};
use crate::store;

/// Copies the database and checks the copy from end to end; what it says of it. A copy that is not whole does not stay.
///
/// # Errors
/// There is no database, the file exists already or can't be written, or the copy is damaged.
pub fn backup(path: &Path, to: &Path) -> Result<String, AgentError> {
    let database = config(path)?.audit_db_path;
    let found = store::backup::backup(&database, to)?;
    Ok(format!(
        "{} is a backup of {}: {} jobs, {} audit entries, schema version {}; checked from end to end",
        to.display(),
        database.display(),
        found.jobs,
        found.audit_entries,
        found.schema
    ))
}
