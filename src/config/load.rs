//! From the file to the checked `Config`: reads every key once, in the order of the documentation.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use quickcmd_init::proto::MOST_ARTIFACTS;
use secrecy::{ExposeSecret, SecretSlice};

use super::{
    ArtifactsConfig, Authority, Config, Daily, GateConfig, JobsConfig, LARGEST_RESULT, LogConfig, OnRevoke,
    OutputConfig, PoolConfig, PreflightMode, PullPolicy, Rate, ReadAccess, RunAs, SandboxConfig,
    ServerConfig, StorageConfig, clients,
    controllers::{self, Base},
    faults::Faults,
    file::{self, Contents},
    limits, policy,
    secret::{Names, Sources},
    section::{At, Notes, Section},
    tls, yaml,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;
const DAY: u64 = 86_400;
/// Most bytes of a Unix socket's path (`sockaddr_un`, without its closing zero).
const LONGEST_SOCKET: usize = 107;

impl Config {
    /// Reads and checks a configuration file. `env` looks up environment variables (for secrets).
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Faults> {
        let notes = Notes::new(path);
        let config = read(&notes, env);
        let faults = notes.faults.take();
        match (config, Faults::of(path, faults)) {
            (Some(mut config), None) => {
                config.warnings = notes.warnings.take();
                Ok(config)
            }
            (_, Some(faults)) => Err(faults),
            // A missing configuration has a fault; this arm keeps that from being a panic.
            (None, None) => Err(Faults::one(path, "can't be read")),
        }
    }
}

/// The tree of the configuration file.
fn open(notes: &Notes) -> Option<(Contents, yaml::Node)> {
    let wrong = |what: String| notes.fault(&notes.file, "", what);
    let contents = file::read(&notes.file).map_err(wrong).ok()?;
    if contents.world_writable() {
        wrong("may be changed by every user of this host: chmod o-w it".to_owned());
    }
    let Ok(text) = std::str::from_utf8(&contents.bytes) else {
        wrong("is not UTF-8 text".to_owned());
        return None;
    };
    match yaml::parse(text) {
        Ok(root) => Some((contents, root)),
        Err(fault) => {
            notes.fault_at(fault.line, fault.what);
            None
        }
    }
}

/// Reads everything, whatever faults are noted on the way. `None` only if there is no tree.
pub(super) fn read(notes: &Notes, env: &dyn Fn(&str) -> Option<String>) -> Option<Config> {
    let (contents, root) = open(notes)?;
    let mut top = Section::top(notes, &notes.file, root);

    let agent_id = agent_id(&mut top);
    let audit_db_path =
        path(&mut top, "audit_db_path").unwrap_or_else(|| "/var/lib/quickcmd/agent-audit.db".into());
    let beside = audit_db_path.parent().unwrap_or(Path::new("/")).to_owned();
    let data_dir = path(&mut top, "data_dir").unwrap_or(beside);
    let run_as = RunAs {
        user: top.text("run_as_user").unwrap_or_else(|| "quickcmd".to_owned()),
        group: top.text("run_as_group").unwrap_or_else(|| "quickcmd".to_owned()),
    };
    let sources = Sources { notes, env, contents: &contents, run_as: run_as.clone() };
    let server = server(&mut top, &sources);
    let gate = gate(&mut top, &sources, &agent_id);
    // No fault: who takes a controller out in a hurry must not be held up by what it leaves behind.
    for client in server.client_tls.iter().flat_map(|tls| &tls.clients) {
        if let Some(id) = &client.controller
            && !gate.controllers.iter().any(|controller| controller.id == *id)
        {
            notes.warn(format!(
                "tls.clients: {:?} is for controller {id:?}, which is not configured: it gives nothing",
                client.name
            ));
        }
    }
    if gate.audience_required && gate.authorities.is_empty() && server.read_access == ReadAccess::Signed {
        notes.warn(
            "audience is required, but no `authorities` are given: a signed read for another agent of the same \
             controller is answered here, too, if it is sent on with the other's Host; list the names by which this \
             agent is addressed",
        );
    }
    let jobs = JobsConfig {
        max_concurrent_jobs: top.count("max_concurrent_jobs", 5, 1..=10_000),
        max_queue_depth: top.count("max_queue_depth", 1000, 1..=1_000_000),
        drain_timeout: top.time("drain_timeout", 60, 0..=DAY),
        grace: top.time("grace", 5, 0..=600),
        engine_patience: top.time("engine_patience", 60, 1..=DAY),
        on_revoke: top.choice(
            "on_revoke",
            OnRevoke::CancelQueued,
            &[("cancel-queued", OnRevoke::CancelQueued), ("cancel-all", OnRevoke::CancelAll)],
        ),
    };
    let sandbox = sandbox(&mut top, &agent_id);
    let artifacts = artifacts(top.section("artifacts"));
    let output = output(top.section("output"), artifacts);
    let storage = storage(top.section("storage"));
    let log = log(top.section("log"));
    let preflight = top.choice(
        "preflight",
        PreflightMode::Off,
        &[("off", PreflightMode::Off), ("warn", PreflightMode::Warn), ("strict", PreflightMode::Strict)],
    );
    top.finish();
    Some(Config {
        agent_id,
        data_dir,
        audit_db_path,
        run_as,
        server,
        gate,
        jobs,
        sandbox,
        output,
        storage,
        log,
        preflight,
        warnings: Vec::new(),
    })
}

fn path(section: &mut Section<'_>, key: &'static str) -> Option<PathBuf> {
    section.text(key).map(|text| section.notes.path(&text))
}

fn agent_id(top: &mut Section<'_>) -> String {
    let valid = |text: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
        !text.is_empty() && text.len() <= 128 && text.chars().all(letters)
    };
    match top.get("agent_id") {
        Some(at) => {
            let read = |text: &str| match valid(text) {
                true => Ok(text.to_owned()),
                false => Err("is no agent id: 1 to 128 of A-Z a-z 0-9 . _ : - are possible".to_owned()),
            };
            at.read(read).unwrap_or_default()
        }
        None => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = name.trim().to_owned();
            if !valid(&name) {
                top.fault("agent_id", "is missing, and this host has no name to take instead: give one");
            }
            name
        }
    }
}

fn server(top: &mut Section<'_>, sources: &Sources<'_>) -> ServerConfig {
    let tls = tls::read(top, &sources.run_as);
    let client_tls = clients::read(top.section("tls"), tls.is_some());
    let port = top.whole("port", 8443, 0..=65_535);
    let default_ip = if tls.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    let ip = top.get("listen").and_then(|at| {
        at.read(|text| {
            text.parse::<IpAddr>().map_err(|_| "is no IP address: write it like 0.0.0.0 or ::1".to_owned())
        })
    });
    let ip = ip.unwrap_or(IpAddr::V4(default_ip));
    if tls.is_none() && !ip.is_loopback() {
        top.fault(
            "listen",
            "reaches beyond this host, and no certificate is configured: give `tls_cert_file` and `tls_key_file`, or \
             listen on 127.0.0.1",
        );
    }
    let read_access = top.choice(
        "read_access",
        ReadAccess::Signed,
        &[("signed", ReadAccess::Signed), ("job-id", ReadAccess::JobId)],
    );
    let token = Names { inline: "metrics_token", file: "metrics_token_file", env: None, credential: None };
    let metrics_token =
        sources.read(top, &token).map(|token| SecretSlice::from(token.expose_secret().as_bytes().to_vec()));
    let allowed_origins = top
        .get("allowed_origins")
        .and_then(At::list)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|at| at.read(origin))
        .collect();
    let max_body_bytes = top.bytes("max_body_bytes", MIB, 4 * KIB..=64 * MIB);
    let mut connections = top.section("connections");
    let max_connections = connections.count("max", 2048, 1..=1_000_000);
    let max_connections_per_address = connections.count("max_per_address", 512, 1..=1_000_000);
    let handshake_timeout = connections.time("handshake_timeout", 10, 1..=600);
    let header_timeout = connections.time("header_timeout", 10, 1..=600);
    let body_timeout = connections.time("body_timeout", 30, 1..=3600);
    let idle_timeout = connections.time("idle_timeout", 60, 1..=3600);
    connections.finish();
    let rate_by_address =
        controllers::rate(top.section("rate_by_address"), Rate { per_second: 100.0, burst: 1000 });
    let rate_exempt = match top.get("rate_exempt") {
        Some(at) => at.list().into_iter().flatten().filter_map(|at| at.read(network)).collect(),
        None => ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| text.parse().ok()).collect(),
    };
    ServerConfig {
        listen: SocketAddr::new(ip, u16::try_from(port).unwrap_or(0)),
        tls,
        client_tls,
        read_access,
        metrics_token,
        allowed_origins,
        max_body_bytes: usize::try_from(max_body_bytes).unwrap_or(usize::MAX),
        max_connections,
        max_connections_per_address,
        handshake_timeout,
        header_timeout,
        body_timeout,
        idle_timeout,
        rate_by_address,
        rate_exempt,
    }
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "is no network: write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1".to_owned())
}

/// An `Origin` header's value.
fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '*', ' ', '@']) => {
            Ok(text.to_owned())
        }
        _ => Err(
            "is no origin: write it as browsers send it, like https://console.example.com, without a path"
                .into(),
        ),
    }
}

fn gate(top: &mut Section<'_>, sources: &Sources<'_>, agent_id: &str) -> GateConfig {
    let audience_required = top.choice("audience", false, &[("optional", false), ("required", true)]);
    let authorities = authorities(top);
    let defaults = limits::defaults(top);
    let max = limits::maxima(top.section("max_limits"), &limits::most(&defaults), &defaults);
    let rate = controllers::rate(top.section("rate_by_controller"), Rate { per_second: 50.0, burst: 500 });
    let rate_of_reads =
        controllers::rate(top.section("rate_of_reads"), Rate { per_second: 200.0, burst: 2000 });
    let daily = controllers::daily(top.section("daily_by_controller"), Daily::default());
    let base = Base { defaults, max, rate, rate_of_reads, daily };
    let controllers = controllers::read(top, sources, &base);
    let mut freshness = top.section("freshness");
    let max_age = freshness.time("max_age", 300, 1..=DAY);
    let max_skew = freshness.time("max_skew", 30, 0..=DAY);
    let max_ttl = freshness.time("max_ttl", DAY, 1..=365 * DAY);
    freshness.finish();
    let (allowed_images, default_image) = images(top);
    GateConfig {
        agent_id: agent_id.to_owned(),
        audience_required,
        authorities,
        controllers: controllers.all,
        revoked: controllers.revoked,
        shared_keys: controllers.shared,
        max_age,
        max_skew,
        max_ttl,
        allowed_images,
        default_image,
        defaults,
        rate_of_reads,
        policy: policy::read(top),
    }
}

/// A list with nothing in it would say that no signature is for this agent, or that all are: it is refused.
fn authorities(top: &mut Section<'_>) -> Vec<Authority> {
    let Some(at) = top.get("authorities") else { return Vec::new() };
    let empty = at.clone();
    let items = at.list().unwrap_or_default();
    if items.is_empty() {
        empty.fault("lists no name: write those by which this agent is addressed, or leave it out");
    }
    items.into_iter().filter_map(|at| at.read(Authority::parse)).collect()
}

fn images(top: &mut Section<'_>) -> (Vec<String>, String) {
    let usual = || vec!["alpine:latest".to_owned(), "ubuntu:latest".to_owned()];
    let allowed = match top.get("allowed_images") {
        Some(at) => controllers::images(at).unwrap_or_default(),
        None => usual(),
    };
    let default = match top.get("default_image").map(|at| at.read(controllers::image)) {
        Some(Some(image)) => {
            if !allowed.is_empty() && !allowed.contains(&image) {
                top.fault(
                    "default_image",
                    format!("{image:?} is not on the list of `allowed_images`: add it there"),
                );
            }
            image
        }
        Some(None) => String::new(),
        None => allowed
            .iter()
            .find(|image| *image == "alpine:latest")
            .or(allowed.first())
            .cloned()
            .unwrap_or_default(),
    };
    (allowed, default)
}

fn sandbox(top: &mut Section<'_>, agent_id: &str) -> SandboxConfig {
    let docker_host = top
        .get("docker_host")
        .and_then(|at| {
            at.read(|text| match text.strip_prefix("unix://") {
                Some(socket) if socket.len() > LONGEST_SOCKET => {
                    Err(format!("is too long: a socket's path has {LONGEST_SOCKET} bytes at most"))
                }
                Some(socket) if socket.starts_with('/') && !socket.ends_with('/') => Ok(text.to_owned()),
                _ => Err("is no local socket: only unix:///path/to/docker.sock is possible".to_owned()),
            })
        })
        .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    let pull_policy = top.choice(
        "pull_policy",
        PullPolicy::IfNotPresent,
        &[
            ("never", PullPolicy::Never),
            ("if-not-present", PullPolicy::IfNotPresent),
            ("always", PullPolicy::Always),
        ],
    );
    let pull_stall = top.time("pull_stall", 60, 1..=3600);
    let pool = pool(top.section("pool"));
    let mut section = top.section("sandbox");
    let uid = id(&mut section, "uid");
    let gid = id(&mut section, "gid");
    let workdir =
        section.get("workdir").and_then(|at| at.read(workdir)).unwrap_or_else(|| "/work".to_owned());
    let runtimes = section
        .section("runtimes")
        .free()
        .into_iter()
        .filter_map(|(image, at)| {
            let name =
                |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c)) {
                    true if !text.is_empty() => Ok(text.to_owned()),
                    _ => Err("is no name of an OCI runtime: write it like runsc".to_owned()),
                };
            at.read(name).map(|runtime| (image, runtime))
        })
        .collect();
    let nofile = section.whole("nofile", 1024, 16..=1_048_576);
    let fsize = section.bytes("fsize", 1024 * MIB, MIB..=TIB);
    let shm = section.bytes("shm", 16 * MIB, 64 * KIB..=TIB);
    section.finish();
    SandboxConfig {
        agent_id: agent_id.to_owned(),
        docker_host,
        pull_policy,
        pull_stall,
        uid,
        gid,
        workdir,
        runtimes,
        nofile,
        fsize,
        shm,
        pool,
    }
}

/// A user or group of the job's processes; root is refused.
fn id(section: &mut Section<'_>, key: &'static str) -> u32 {
    let read = |text: &str| match super::size::whole(text)? {
        0 => Err("is root: jobs run as an ordinary user, for example 65532".to_owned()),
        id => u32::try_from(id)
            .ok()
            .filter(|id| *id < u32::MAX)
            .ok_or_else(|| "is out of range: 1 to 4294967294 is possible".to_owned()),
    };
    section.get(key).and_then(|at| at.read(read)).unwrap_or(65_532)
}

/// Folders of an image without which nothing starts, and the supervisor's own.
const OCCUPIED: &[&str] = &[
    "/.quickcmd",
    "/bin",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/sbin",
];

/// A folder for a tmpfs: absolute, plain, and none of the kernel's own.
fn workdir(text: &str) -> Result<String, String> {
    let mut parts = text.split('/');
    let plain = parts.next() == Some("") // absolute
        && parts.clone().all(|part| !matches!(part, "" | "." | ".."))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    match parts.next() {
        Some("proc" | "sys" | "dev") => {
            Err("lies under a folder of the kernel: choose another, like /work".to_owned())
        }
        _ if OCCUPIED.contains(&text) => Err(
            "holds what every image needs to run, which a tmpfs there would hide: choose another, like /work"
                .to_owned(),
        ),
        Some("tmp") if text == "/tmp" => {
            Err("is a tmpfs of its own already: choose another, like /work".to_owned())
        }
        Some(_) if plain && text.len() <= 255 => Ok(text.to_owned()),
        _ => Err("is no folder to work in: write an absolute path, like /work".to_owned()),
    }
}

fn pool(mut section: Section<'_>) -> PoolConfig {
    let given = section.given("size");
    let size = section.count("size", 2, 0..=1000);
    let max = section.count("max", 8, 0..=1000);
    if given && size > max && max > 0 {
        section.fault("size", format!("is above `max`, which is {max}: lower this one or raise that one"));
    }
    let pool = PoolConfig {
        size: size.min(max),
        max,
        max_memory: section.bytes("max_memory", 128 * MIB, 0..=TIB),
        max_age: section.time("max_age", 600, 1..=7 * DAY),
    };
    section.finish();
    pool
}

fn artifacts(mut section: Section<'_>) -> ArtifactsConfig {
    let artifacts = ArtifactsConfig {
        max_files: section.whole("max_files", 100, 1..=MOST_ARTIFACTS),
        max_file_size: section.bytes("max_file", 16 * MIB, 1..=TIB),
        max_total_size: section.bytes("max_total", 64 * MIB, 1..=TIB),
    };
    section.finish();
    artifacts
}

fn output(mut section: Section<'_>, artifacts: ArtifactsConfig) -> OutputConfig {
    let output = OutputConfig {
        limit: section.bytes("limit", 10 * MIB, KIB..=TIB),
        end_at_limit: section.flag("end_at_limit", false),
        result_bytes: section.bytes("result_bytes", MIB, 0..=LARGEST_RESULT as u64),
        redact: section.flag("redact", true),
        artifacts,
    };
    section.finish();
    output
}

fn storage(mut section: Section<'_>) -> StorageConfig {
    let storage = StorageConfig {
        retention: section.time("retention", 7 * DAY, 60..=3650 * DAY),
        max_spool_bytes: section.bytes("max_spool", 2048 * MIB, MIB..=1024 * TIB),
        low_watermark: section.bytes("low_watermark", 256 * MIB, 0..=1024 * TIB),
        record_retention: section.time("record_retention", 90 * DAY, 0..=36_500 * DAY),
    };
    section.finish();
    storage
}

fn log(mut section: Section<'_>) -> LogConfig {
    let level = section.get("level").and_then(|at| {
        at.read(|text| match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) if text.split(',').all(levelled) => Ok(text.to_owned()),
            _ => Err("is no filter: write error, warn, info, debug or trace, or target=level".to_owned()),
        })
    });
    let log =
        LogConfig { level: level.unwrap_or_else(|| "info".to_owned()), json: section.flag("json", false) };
    section.finish();
    log
}

/// Whether a part of a filter says how much is logged. A bare word that is no level would be taken for a target of
/// that name, and nothing else would be logged.
fn levelled(part: &str) -> bool {
    let part = part.trim();
    !part.is_empty()
        && (part.contains(['=', '[', '{', '}', ']'])
            || part.parse::<tracing_subscriber::filter::LevelFilter>().is_ok())
}
