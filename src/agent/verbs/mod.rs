//! What an operator does beside `run`, one file a verb. Each reads the configuration to find the agent's data,
//! prints to standard output, and needs the rights of the agent's user.

mod backup;
mod docker_filter;
mod drain;
mod preflight;
mod restore;
mod sandboxes;
pub mod token;
mod verify_db;

use std::{future::Future, path::Path};

pub use backup::backup;
pub use docker_filter::docker_filter;
pub use drain::{drain, undrain};
pub use preflight::preflight;
pub use restore::restore;
pub use sandboxes::sandboxes;
pub use verify_db::verify_db;

use super::{AgentError, environment};
use crate::config::Config;

fn config(path: &Path) -> Result<Config, AgentError> {
    Ok(Config::load(path, &environment)?)
}

/// Runs a verb that waits for something.
pub(super) fn wait_for<T>(work: impl Future<Output = Result<T, AgentError>>) -> Result<T, AgentError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::io("could not start the runtime"))?
        .block_on(work)
}

/// `1 job`, `2 jobs`.
fn jobs(number: usize) -> String {
    if number == 1 { "1 job".to_owned() } else { format!("{number} jobs") }
}
