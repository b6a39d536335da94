//! This agent's containers, seen from outside of the agent: for the operator's `sandboxes`.

use std::{path::Path, sync::Arc};

use super::{
    Found, Trouble,
    calls::{Api, CallError, Uncounted},
    diagnosis::diagnose,
    docker,
};
use crate::config::SandboxConfig;

/// What the Docker filter calls itself among the parts of the version that it passes on.
pub const FILTER: &str = "quickcmd-docker-filter";

/// What the engine says of itself, for the check of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub version: String,
    /// Version of the Docker filter that stands before it, if one does.
    pub filter: Option<String>,
    pub containerd: Option<String>,
    pub runc: Option<String>,
    /// `1` or `2`.
    pub cgroup: Option<String>,
    /// `name=seccomp,profile=default`, `name=userns`, ...
    pub security: Vec<String>,
    /// What it says that it can't limit here.
    pub unlimited: Vec<&'static str>,
}

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

    /// What the engine says of itself.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn about(&self) -> Result<About, Trouble> {
        let (version, info) = self.sorted(self.api.about().await).await?;
        let components = version.components.unwrap_or_default();
        let of = |name: &str| {
            components
                .iter()
                .find(|component| component.name == name)
                .map(|component| component.version.clone())
        };
        let limits = [
            ("memory", info.memory_limit),
            ("swap", info.swap_limit),
            ("CPU", info.cpu_cfs_quota),
            ("processes", info.pids_limit),
        ];
        Ok(About {
            filter: of(FILTER),
            version: version.version.unwrap_or_default(),
            containerd: of("containerd"),
            runc: of("runc"),
            cgroup: info.cgroup_version.map(|version| version.to_string()),
            security: info.security_options.unwrap_or_default(),
            unlimited: limits.iter().filter(|(_, can)| *can == Some(false)).map(|(name, _)| *name).collect(),
        })
    }

    /// Whether an image is on this host.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn has_image(&self, reference: &str) -> Result<bool, Trouble> {
        Ok(self.sorted(self.api.inspect_image(reference).await).await?.is_some())
    }

    /// Every container of the agent, in any state.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn list(&self) -> Result<Vec<Found>, Trouble> {
        self.sorted(docker::found(&self.api, &self.home).await).await
    }

    /// Removes one by force, with its volumes; gone already is success.
    ///
    /// # Errors
    /// The engine does not answer, or can't remove it.
    pub async fn remove(&self, container_id: &str) -> Result<(), Trouble> {
        match self.api.remove(container_id).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            result => self.sorted(result).await,
        }
    }

    /// An error with what it comes from.
    async fn sorted<T>(&self, result: Result<T, CallError>) -> Result<T, Trouble> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(diagnose(&self.api, &error).await),
        }
    }
}
