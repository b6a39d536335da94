//! Finds out what a host is like. Changes nothing; what can't be read is left open.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::unistd::User;
use rustix::process::{Resource, getrlimit};

use super::host::{Disk, Engine, Entry, Host, Image};
use crate::{
    config::{Config, PullPolicy},
    sandbox::{Outside, Trouble},
};

/// How long Docker may take for each question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at everything.
pub(super) async fn gather(file: &Path, config: &Config) -> Host {
    let outside = Outside::new(&config.sandbox, &config.data_dir);
    let name = config.gate.default_image.clone();
    let present = tokio::time::timeout(PATIENCE, outside.has_image(&name)).await.ok().and_then(Result::ok);
    let socket = config.sandbox.docker_host.strip_prefix("unix://").unwrap_or(&config.sandbox.docker_host);
    let number = |path: &str| read(path).and_then(|text| text.parse().ok());
    Host {
        engine: engine(&outside, &config.sandbox.docker_host).await,
        socket: entry(Path::new(socket)),
        docker_ports: docker_ports(
            &["/proc/net/tcp", "/proc/net/tcp6"].map(|path| read(path).unwrap_or_default()),
        ),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        vulnerabilities: vulnerabilities(Path::new("/sys/devices/system/cpu/vulnerabilities")),
        smt: read("/sys/devices/system/cpu/smt/active").map(|text| text == "1"),
        ksm: read("/sys/kernel/mm/ksm/run").map(|text| text == "1"),
        swap: read("/proc/swaps").map(|text| swap(&text)),
        core_pattern: read("/proc/sys/kernel/core_pattern"),
        ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
        kptr_restrict: number("/proc/sys/kernel/kptr_restrict"),
        dmesg_restrict: number("/proc/sys/kernel/dmesg_restrict"),
        unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        clock_synchronised: clock(),
        disk: disk(&config.data_dir, config.storage.low_watermark),
        nofile: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        nofile_needed: needed(config),
        config: entry(file),
        data: entry(&config.data_dir),
        user: (config.run_as.user.clone(), user(&config.run_as.user)),
        image: Image { name, present, pulled: config.sandbox.pull_policy != PullPolicy::Never },
    }
}

async fn engine(outside: &Outside, docker_host: &str) -> Result<Engine, Trouble> {
    match tokio::time::timeout(PATIENCE, outside.about()).await {
        Ok(Ok(about)) => Ok(Engine {
            version: about.version,
            filter: about.filter,
            containerd: about.containerd,
            runc: about.runc,
            cgroup: about.cgroup,
            security: about.security,
            unlimited: about.unlimited,
        }),
        Ok(Err(trouble)) => Err(trouble),
        Err(_) => Err(Trouble::late(docker_host, PATIENCE.as_secs())),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn entry(path: &Path) -> Option<Entry> {
    let there = fs::metadata(path).ok()?;
    Some(Entry { path: path.display().to_string(), mode: there.mode() & 0o7777, uid: there.uid() })
}

fn vulnerabilities(folder: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<(String, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let said = fs::read_to_string(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), said.trim().to_owned()))
        })
        .collect();
    all.sort();
    all
}

/// Bytes of all swap that `/proc/swaps` lists, in KiB in the third column.
pub(super) fn swap(text: &str) -> u64 {
    let sizes = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    sizes.map(|kib| kib.saturating_mul(1024)).sum()
}

/// Docker's ports among those that `/proc/net/tcp` and `tcp6` show as listening (state `0A`).
pub(super) fn docker_ports(tables: &[String]) -> Vec<u16> {
    let listening = tables.iter().flat_map(|table| table.lines()).filter_map(|line| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (state == "0A" && [2375, 2376].contains(&port)).then_some(port)
    });
    let mut ports: Vec<u16> = listening.collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// What systemd knows of the clock. The call that would say it (adjtimex) has no safe form here.
fn clock() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    match String::from_utf8_lossy(&asked.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// The folder that holds the data, or the nearest one above that exists.
fn disk(data: &Path, watermark: u64) -> Option<Disk> {
    let there = data.ancestors().find(|path| path.exists())?;
    let space = rustix::fs::statvfs(there).ok()?;
    let kind = rustix::fs::statfs(there).ok()?.f_type;
    Some(Disk {
        path: data.display().to_string(),
        free: space.f_bavail.saturating_mul(space.f_frsize),
        watermark,
        kind: u64::try_from(kind & 0xffff_ffff).ok()?,
    })
}

/// Two for each job (spool, channel) and one for its wait, one for each connection, and what is open anyway.
fn needed(config: &Config) -> u64 {
    let jobs = u64::try_from(config.jobs.max_concurrent_jobs).unwrap_or(u64::MAX);
    let connections = u64::try_from(config.server.max_connections).unwrap_or(u64::MAX);
    jobs.saturating_mul(3).saturating_add(connections).saturating_add(256)
}

fn user(name: &str) -> Option<u32> {
    User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}
