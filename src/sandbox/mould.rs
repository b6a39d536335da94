//! The agent's own create and update calls, made again from their variable parts: what the Docker filter holds a
//! request against. Made by the same code as the calls themselves, so the two can't drift apart.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;

use super::{Image, SandboxError, Shape, container};
use crate::{
    config::{Limits, PoolConfig, PullPolicy, SandboxConfig},
    wire::payload::Network,
};

/// All that differs between one create call of the agent's and another.
#[derive(Debug, Clone)]
pub struct Mould {
    /// The user and group of the sandbox's processes.
    pub user: (u32, u32),
    pub workdir: String,
    pub nofile: u64,
    /// Bytes of `/dev/shm`.
    pub shm: u64,
    pub runtime: Option<String>,
    /// `sha256:...`
    pub image: String,
    pub network: Network,
    /// The timeout is not Docker's matter and not looked at.
    pub limits: Limits,
    /// The sandbox's folder on the host.
    pub folder: String,
    /// What the image declares as volumes.
    pub volumes: Vec<String>,
    pub labels: HashMap<String, String>,
}

impl Mould {
    /// The create call's body.
    ///
    /// # Errors
    /// A volume that the agent would refuse.
    pub fn create(&self) -> Result<Value, SandboxError> {
        let config = SandboxConfig {
            agent_id: String::new(),
            docker_host: String::new(),
            pull_policy: PullPolicy::Never,
            pull_stall: Duration::ZERO,
            uid: self.user.0,
            gid: self.user.1,
            workdir: self.workdir.clone(),
            runtimes: self.runtime.iter().map(|name| ("*".to_owned(), name.clone())).collect(),
            nofile: self.nofile,
            fsize: 0,
            shm: self.shm,
            pool: PoolConfig { size: 0, max: 0, max_memory: 0, max_age: Duration::ZERO },
        };
        let image = Image {
            reference: String::new(),
            id: self.image.clone(),
            digest: String::new(),
            env: Vec::new(),
        };
        let shape =
            Shape { image, limits: self.limits, network: self.network, class: String::new(), reuse: 1 };
        let body = container::body(&config, &shape, &self.folder, &self.volumes, self.labels.clone())?;
        serde_json::to_value(body).map_err(|error| SandboxError::Failed(error.to_string()))
    }
}

/// The update call's body for these limits.
///
/// # Errors
/// None in practice: numbers are always JSON.
pub fn update_call(limits: &Limits) -> Result<Value, SandboxError> {
    serde_json::to_value(container::update(limits)).map_err(|error| SandboxError::Failed(error.to_string()))
}
