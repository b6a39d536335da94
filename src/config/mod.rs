//! The configuration: parsed once, every fault at once, each room gets its own section.
//!
//! The defaults stand where each key is read (`load.rs`, `limits.rs`, `controllers.rs`);
//! `examples/agent-config.yaml` states every one of them, and a test holds the two together.

mod authority;
mod clients;
mod controllers;
mod describe;
mod faults;
mod file;
mod limits;
mod load;
mod policy;
mod restart;
mod secret;
mod section;
mod size;
#[cfg(test)]
mod tests;
mod tls;
mod yaml;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use regex::Regex;
use secrecy::SecretSlice;

pub use self::authority::Authority;
use crate::{base::clock::Timestamp, wire::key::Algorithm};

pub use clients::{ClientTls, TlsClient, TlsName};
pub use faults::{Fault, Faults};
pub use secret::generate_secret;

/// The example configuration: every key with its default, and what it means.
pub const EXAMPLE: &str = include_str!("../../examples/agent-config.yaml");

/// A duration as the configuration writes it: `300`, `10s`, `30d`.
///
/// # Errors
/// What it should have been.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    size::duration(text)
}

/// `output.result_bytes` at most.
pub const LARGEST_RESULT: usize = 16 << 20;

/// Everything the agent was told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name jobs may be addressed to (`agent_id`); the host's name unless given.
    pub agent_id: String,
    /// Holds database, spools, sandboxes' folders; the folder of `audit_db_path` unless given.
    pub data_dir: PathBuf,
    /// The SQLite file.
    pub audit_db_path: PathBuf,
    pub run_as: RunAs,
    pub server: ServerConfig,
    pub gate: GateConfig,
    pub jobs: JobsConfig,
    pub sandbox: SandboxConfig,
    pub output: OutputConfig,
    pub storage: StorageConfig,
    pub log: LogConfig,
    pub preflight: PreflightMode,
    /// What is odd but no fault, for the log: one sentence each.
    pub warnings: Vec<String>,
}

/// Whether the host is looked at before the agent starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreflightMode {
    Off,
    /// What is not well goes to the log.
    Warn,
    /// What is dangerous keeps the agent from starting.
    Strict,
}

/// The ordinary user that the agent becomes when it is started as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    pub user: String,
    pub group: String,
}

/// The HTTPS door.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// `listen` (default `0.0.0.0` with a certificate, else `127.0.0.1`) and `port`.
    pub listen: SocketAddr,
    /// `None`: plain HTTP, only ever on loopback.
    pub tls: Option<TlsFiles>,
    /// Client certificates; `None`: none is asked for.
    pub client_tls: Option<ClientTls>,
    pub read_access: ReadAccess,
    /// Bearer token that `/metrics` asks for; open if `None`.
    pub metrics_token: Option<SecretSlice<u8>>,
    /// Pages that may open the stream (`Origin` header, exact).
    pub allowed_origins: Vec<String>,
    /// Bytes.
    pub max_body_bytes: usize,
    /// Connections in all, and of one address.
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub idle_timeout: Duration,
    /// Requests by address before any check, by networks that are not limited.
    pub rate_by_address: Rate,
    pub rate_exempt: Vec<IpNet>,
}

/// Certificate chain and key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAccess {
    /// A controller's signature (the default).
    Signed,
    /// The job's id is enough, as for v1 controllers.
    JobId,
}

/// A token bucket: `per_second` tokens flow in, `burst` fit. `per_second` 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    pub burst: u32,
}

/// What the gate decides by.
#[derive(Debug, Clone)]
pub struct GateConfig {
    pub agent_id: String,
    /// Whether `agent_id` in the payload is compulsory.
    pub audience_required: bool,
    /// The names by which it is addressed, one of which a signature over a request must have been made for; any, where
    /// there is none.
    pub authorities: Vec<Authority>,
    pub controllers: Vec<Controller>,
    /// Controllers that are written as `revoked`, for the operator to see: they are in no list, and have no key.
    pub revoked: Vec<String>,
    /// The shared `hmac_secret`, if there is one: who signs with it but is not on the list is told so (403),
    /// everybody else only that the signature does not hold.
    pub shared_keys: Vec<Key>,
    /// `now - timestamp` at most; default 300 s.
    pub max_age: Duration,
    /// `timestamp - now` at most; default 30 s.
    pub max_skew: Duration,
    /// `ttl - timestamp` at most; default 86,400 s.
    pub max_ttl: Duration,
    /// Images of every controller that names none of its own. Exact references, as written.
    pub allowed_images: Vec<String>,
    pub default_image: String,
    pub defaults: Limits,
    /// Reads and cancellations of who has no rate of its own for them.
    pub rate_of_reads: Rate,
    pub policy: Policy,
}

/// One controller.
#[derive(Debug, Clone)]
pub struct Controller {
    pub id: String,
    /// At least one; the shared `hmac_secret` for those of `allowed_controllers`.
    pub keys: Vec<Key>,
    /// Scopes it holds; `prefix:*` holds all that begin with `prefix:`; `*` all but `admin`.
    pub scopes: Vec<String>,
    /// Whether it may read and cancel the jobs of others: `admin` stands among its scopes. No
    /// pattern grants it, and the controllers of `allowed_controllers` never have it.
    pub admin: bool,
    /// Images it may use; `None`: the agent's list.
    pub images: Option<Vec<String>>,
    /// The most it may ask for.
    pub max: Limits,
    /// Whether it may ask for `network: bridge`.
    pub network: bool,
    /// Its submissions.
    pub rate: Rate,
    /// Its reads and cancellations.
    pub rate_of_reads: Rate,
    /// Jobs it may have waiting; `None`: only the queue's own depth counts.
    pub max_queued: Option<usize>,
    /// Jobs of it that one sandbox may run one after the other; 1: each has its own.
    pub reuse: u32,
    /// Jobs it may have running at once, the others wait; `None`: only `max_concurrent_jobs` counts.
    pub max_running: Option<usize>,
    pub daily: Daily,
}

/// What the jobs of one controller may use in a day (UTC). What is `None` has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Daily {
    /// Of all cores together.
    pub cpu_seconds: Option<u64>,
    /// Recorded bytes of both streams.
    pub output_bytes: Option<u64>,
}

/// What becomes of the jobs of a controller that is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRevoke {
    /// Those that wait are cancelled, those that run go on.
    CancelQueued,
    /// Both are cancelled.
    CancelAll,
}

/// One key of a controller.
#[derive(Clone)]
pub struct Key {
    pub key_id: Option<String>,
    pub algorithm: Algorithm,
    /// The secret's bytes (the text as written, as v1 controllers use it), or the 32 bytes of a public key.
    pub material: SecretSlice<u8>,
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
}

impl std::fmt::Debug for Key {
    /// Never shows the material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Limits of one job: the defaults, a controller's maximum, or what a job was given.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Cores.
    pub cpu: f64,
    /// Bytes, swap included.
    pub memory: u64,
    pub pids: u64,
    pub timeout_seconds: u64,
    /// Bytes, of `/tmp` and of the work folder each.
    pub tmpfs: u64,
}

/// Deny and allow lists of the command's text.
#[derive(Debug, Clone)]
pub struct Policy {
    /// If there are any, a command must match one.
    pub allow: Vec<Rule>,
    /// A command that matches one is denied, allowed or not.
    pub deny: Vec<Rule>,
}

/// One rule of the policy.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Named in the refusal.
    pub name: String,
    pub pattern: Regex,
}

/// Queue and life of jobs.
#[derive(Debug, Clone)]
pub struct JobsConfig {
    pub max_concurrent_jobs: usize,
    pub max_queue_depth: usize,
    /// How long running jobs may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// From SIGTERM to SIGKILL of a job's processes.
    pub grace: Duration,
    /// How long a job waits for a Docker that does not answer before it ends as `sandbox_error`.
    pub engine_patience: Duration,
    pub on_revoke: OnRevoke,
}

/// Docker and what a container gets.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    pub agent_id: String,
    /// `unix:///var/run/docker.sock` unless given; `DOCKER_HOST` is not looked at.
    pub docker_host: String,
    pub pull_policy: PullPolicy,
    /// A pull ends when nothing has moved for this long.
    pub pull_stall: Duration,
    /// `uid:gid` of the job's processes, numeric and not 0.
    pub uid: u32,
    pub gid: u32,
    /// Folder that the job starts in unless it says so: a tmpfs.
    pub workdir: String,
    /// OCI runtime by image reference (`*` for all); Docker's own default otherwise.
    pub runtimes: Vec<(String, String)>,
    pub nofile: u64,
    /// Bytes of the largest file a job may write (RLIMIT_FSIZE of the job's processes).
    pub fsize: u64,
    /// Bytes of `/dev/shm`.
    pub shm: u64,
    pub pool: PoolConfig,
}

/// Waiting sandboxes.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolConfig {
    /// Kept for the default shape always.
    pub size: usize,
    /// Of all shapes; 0 turns the pool off.
    pub max: usize,
    /// Memory that all waiting ones together may use, bytes; each is charged a fixed cost, not its job's limit.
    pub max_memory: u64,
    /// One that has waited this long is thrown away.
    pub max_age: Duration,
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    Never,
    IfNotPresent,
    Always,
}

/// What is kept of a job's output.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// Bytes of each stream that are kept; the rest is counted and dropped.
    pub limit: u64,
    /// Whether a job is ended (`output_limit`) when it reaches the limit.
    pub end_at_limit: bool,
    /// Bytes of each stream that stand in the result's text.
    pub result_bytes: u64,
    /// Whether the built-in patterns are masked (values of `secret_env` always are).
    pub redact: bool,
    pub artifacts: ArtifactsConfig,
}

/// How much of a job's files is kept after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactsConfig {
    pub max_files: u64,
    /// Bytes of one, and of all of a job.
    pub max_file_size: u64,
    pub max_total_size: u64,
}

/// Disk.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageConfig {
    /// Spools of ended jobs are removed after this time, and the oldest first above `max_spool_bytes`.
    pub retention: Duration,
    pub max_spool_bytes: u64,
    /// Below this many free bytes new jobs are refused (`STORAGE_LOW`).
    pub low_watermark: u64,
    /// Rows of ended jobs and of submissions older than this go; zero: never. The audit log is never shortened.
    pub record_retention: Duration,
}

/// The agent's log, on standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A `tracing` filter, for example `info` or `quickcmd=debug`.
    pub level: String,
    pub json: bool,
}
