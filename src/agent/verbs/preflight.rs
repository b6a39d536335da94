//! `preflight [--json]`: what of this host is not well for an agent, and what to change.

use std::path::Path;

use super::{AgentError, config, wait_for};
use crate::preflight::{self, Level};

/// Looks at the host. The text, and whether anything is dangerous.
///
/// # Errors
/// The configuration has faults: without it there is nothing to look for.
pub fn preflight(path: &Path, json: bool) -> Result<(String, bool), AgentError> {
    let config = config(path)?;
    let report = wait_for(async { Ok(preflight::look(path, &config).await) })?;
    let text = if json { report.json() } else { report.text() };
    Ok((text, report.count(Level::Danger) > 0))
}
