//! What is known of a host: facts, without judgement. What could not be found out is `None`.

use crate::sandbox::Trouble;

/// One host, and the agent's place on it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Host {
    /// Docker's own word, or why there is none.
    pub engine: Result<Engine, Trouble>,
    pub socket: Option<Entry>,
    /// TCP ports of Docker's (2375, 2376) that somebody listens on.
    pub docker_ports: Vec<u16>,
    /// `uname -r`.
    pub kernel: String,
    /// Files of `/sys/devices/system/cpu/vulnerabilities` and what they say.
    pub vulnerabilities: Vec<(String, String)>,
    /// Whether two threads share a core.
    pub smt: Option<bool>,
    /// Whether the kernel merges equal pages of different processes.
    pub ksm: Option<bool>,
    /// Bytes of swap.
    pub swap: Option<u64>,
    pub core_pattern: Option<String>,
    pub ptrace_scope: Option<i64>,
    pub kptr_restrict: Option<i64>,
    pub dmesg_restrict: Option<i64>,
    pub unprivileged_bpf_disabled: Option<i64>,
    /// Whether the clock follows another one.
    pub clock_synchronised: Option<bool>,
    pub disk: Option<Disk>,
    /// Open files that this process may have.
    pub nofile: u64,
    /// Open files that the configuration may come to.
    pub nofile_needed: u64,
    pub config: Option<Entry>,
    pub data: Option<Entry>,
    /// The agent's user, and its id where there is one.
    pub user: (String, Option<u32>),
    pub image: Image,
}

/// What Docker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Engine {
    pub version: String,
    /// Version of the Docker filter that answers in its place, if one does.
    pub filter: Option<String>,
    pub containerd: Option<String>,
    pub runc: Option<String>,
    /// `1` or `2`.
    pub cgroup: Option<String>,
    /// `name=seccomp,profile=default`, `name=apparmor`, `name=userns`, ...
    pub security: Vec<String>,
    /// Limits that it can't enforce here.
    pub unlimited: Vec<&'static str>,
}

/// A file, a folder or a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: String,
    pub mode: u32,
    pub uid: u32,
}

/// Where the agent's data lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub path: String,
    pub free: u64,
    /// `storage.low_watermark`.
    pub watermark: u64,
    /// The file system's magic number (`statfs(2)`).
    pub kind: u64,
}

/// The default image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub name: String,
    pub present: Option<bool>,
    /// Whether a missing one is pulled.
    pub pulled: bool,
}
