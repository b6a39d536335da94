//! What the unit tests of this room share.

use std::time::Duration;

use super::{Image, Shape};
use crate::{
    config::{Limits, PoolConfig, PullPolicy, SandboxConfig},
    wire::payload::Network,
};

pub(super) fn config() -> SandboxConfig {
    SandboxConfig {
        agent_id: "test".to_owned(),
        docker_host: "unix:///var/run/docker.sock".to_owned(),
        pull_policy: PullPolicy::Never,
        pull_stall: Duration::from_secs(5),
        uid: 65_534,
        gid: 65_534,
        workdir: "/work".to_owned(),
        runtimes: Vec::new(),
        nofile: 1024,
        fsize: 1 << 30,
        shm: 16 << 20,
        pool: PoolConfig { size: 0, max: 0, max_memory: 0, max_age: Duration::from_secs(600) },
    }
}

pub(super) fn shape(id: &str) -> Shape {
    Shape {
        image: Image { reference: "i".to_owned(), id: id.to_owned(), digest: id.to_owned(), env: Vec::new() },
        limits: Limits { cpu: 0.5, memory: 256 << 20, pids: 64, timeout_seconds: 60, tmpfs: 64 << 20 },
        network: Network::None,
        class: "c".to_owned(),
    }
}
