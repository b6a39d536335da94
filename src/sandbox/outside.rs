//! This agent's containers, seen from outside of the agent: for the operator's `sandboxes`.

use std::{path::Path, sync::Arc};

use super::{
    Found, SandboxError,
    calls::{Api, Uncounted},
    docker,
};
use crate::config::SandboxConfig;

/// A look at the engine that makes nothing and keeps nothing.
pub struct Outside {
    api: Api,
    home: String,
}

impl Outside {
    /// Of the agent with that configuration and data folder.
    pub fn new(config: &SandboxConfig, data_dir: &Path) -> Outside {
        let host = &config.docker_host;
        let socket = host.strip_prefix("unix://").unwrap_or(host);
        Outside {
            api: Api::new(socket.into(), Arc::new(Uncounted)),
            home: docker::home(&config.agent_id, data_dir),
        }
    }

    /// Every container of the agent, in any state.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn list(&self) -> Result<Vec<Found>, SandboxError> {
        Ok(docker::found(&self.api, &self.home).await?)
    }

    /// Removes one by force, with its volumes; gone already is success.
    ///
    /// # Errors
    /// The engine does not answer, or can't remove it.
    pub async fn remove(&self, container_id: &str) -> Result<(), SandboxError> {
        match self.api.remove(container_id).await {
            Err(error) if error.status() != Some(404) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
