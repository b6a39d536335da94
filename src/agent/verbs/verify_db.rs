//! `verify-db`: is the record whole?

use std::path::Path;

use super::{AgentError, config};
use crate::store;

/// Checks structure, references, schema, every audit entry's hash, and the jobs against the audit log; also while the
/// agent runs.
///
/// # Errors
/// What is wrong with it, and the way back.
pub fn verify_db(path: &Path) -> Result<String, AgentError> {
    let database = config(path)?.audit_db_path;
    let found = store::verify_all(&database)?;
    Ok(format!(
        "{} is whole: {} jobs, {} audit entries, schema version {}",
        database.display(),
        found.jobs,
        found.audit_entries,
        found.schema
    ))
}
