//! What `--check` prints: the settings that matter, one a line, never a secret.

use super::{
    Config, Controller, Limits, PullPolicy, ReadAccess,
    size::{show_duration, show_size},
};

impl Config {
    /// The important settings, one line each, without secrets.
    pub fn describe(&self) -> Vec<String> {
        let (server, gate, jobs) = (&self.server, &self.gate, &self.jobs);
        let mut lines = vec![
            format!("agent id:       {}", self.agent_id),
            match &server.tls {
                Some(tls) => {
                    format!("listen:         https://{} (certificate {})", server.listen, tls.cert.display())
                }
                None => format!("listen:         http://{} (no certificate: this host only)", server.listen),
            },
            match &server.client_tls {
                None => "client certs:   not asked for".to_owned(),
                Some(tls) => format!(
                    "client certs:   {} (authorities {}; {} clients)",
                    if tls.required { "required" } else { "optional" },
                    tls.ca.display(),
                    tls.clients.len()
                ),
            },
            match server.read_access {
                ReadAccess::Signed => "read access:    signed".to_owned(),
                ReadAccess::JobId => "read access:    job-id (who knows a job's id may read it)".to_owned(),
            },
            format!(
                "metrics:        {}",
                if server.metrics_token.is_some() { "with a token" } else { "open" }
            ),
            format!("audience:       {}", if gate.audience_required { "required" } else { "optional" }),
            match gate.authorities.as_slice() {
                [] => "authorities:    any".to_owned(),
                names => format!(
                    "authorities:    {}",
                    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ),
            },
            format!("database:       {}", self.audit_db_path.display()),
            format!("data folder:    {}", self.data_dir.display()),
            format!("run as:         {}:{}", self.run_as.user, self.run_as.group),
            format!("docker:         {} (pull {})", self.sandbox.docker_host, pull(self.sandbox.pull_policy)),
            format!("images:         {} (default {})", gate.allowed_images.join(", "), gate.default_image),
            format!("defaults:       {}", limits(&gate.defaults)),
            format!(
                "jobs:           {} at once, {} waiting, grace {}, drain {}",
                jobs.max_concurrent_jobs,
                jobs.max_queue_depth,
                show_duration(jobs.grace),
                show_duration(jobs.drain_timeout)
            ),
            format!(
                "sandbox:        user {}:{} in {}",
                self.sandbox.uid, self.sandbox.gid, self.sandbox.workdir
            ),
            format!(
                "pool:           {} ready, {} at most, {} of memory",
                self.sandbox.pool.size,
                self.sandbox.pool.max,
                show_size(self.sandbox.pool.max_memory)
            ),
            format!(
                "output:         {} of each stream{}",
                show_size(self.output.limit),
                if self.output.redact { ", secrets masked" } else { ", NOT searched for secrets" }
            ),
            format!(
                "artifacts:      {} files of a job, {} each, {} together",
                self.output.artifacts.max_files,
                show_size(self.output.artifacts.max_file_size),
                show_size(self.output.artifacts.max_total_size)
            ),
            format!(
                "storage:        output {} and {} at most, records {}",
                show_duration(self.storage.retention),
                show_size(self.storage.max_spool_bytes),
                match self.storage.record_retention {
                    zero if zero.is_zero() => "for ever".to_owned(),
                    time => show_duration(time),
                }
            ),
            format!(
                "policy:         {} deny rules, {} allow rules",
                gate.policy.deny.len(),
                gate.policy.allow.len()
            ),
        ];
        lines.extend(gate.controllers.iter().map(controller));
        lines.extend(gate.revoked.iter().map(|id| format!("controller:     {id} (revoked)")));
        lines.extend(self.warnings.iter().map(|warning| format!("warning:        {warning}")));
        lines
    }
}

fn pull(policy: PullPolicy) -> &'static str {
    match policy {
        PullPolicy::Never => "never",
        PullPolicy::IfNotPresent => "if-not-present",
        PullPolicy::Always => "always",
    }
}

fn limits(limits: &Limits) -> String {
    format!(
        "{} cores, {}, {} processes, {} s, {} of tmpfs",
        limits.cpu,
        show_size(limits.memory),
        limits.pids,
        limits.timeout_seconds,
        show_size(limits.tmpfs)
    )
}

fn controller(controller: &Controller) -> String {
    let keys: Vec<String> = controller
        .keys
        .iter()
        .map(|key| match &key.key_id {
            Some(id) => format!("{} {id}", key.algorithm.as_str()),
            None => key.algorithm.as_str().to_owned(),
        })
        .collect();
    let own: String = own(controller).into_iter().map(|what| format!("; {what}")).collect();
    let scopes = if controller.scopes.is_empty() { "none".to_owned() } else { controller.scopes.join(", ") };
    format!(
        "controller:     {} (keys: {}; scopes: {scopes}; at most {}{own})",
        controller.id,
        keys.join(", "),
        limits(&controller.max),
    )
}

/// What a controller has that not every one has.
fn own(controller: &Controller) -> Vec<String> {
    let Controller { images, network, max_queued, max_running, daily, reuse, .. } = controller;
    let cpu = daily.cpu_seconds.map(|seconds| format!("{seconds} s of processor"));
    let output = daily.output_bytes.map(|bytes| format!("{} of output", show_size(bytes)));
    let a_day: Vec<String> = cpu.into_iter().chain(output).collect();
    [
        images.as_ref().map(|images| format!("images {}", images.join(", "))),
        network.then(|| "network bridge".to_owned()),
        max_queued.map(|most| format!("{most} waiting")),
        max_running.map(|most| format!("{most} at once")),
        (!a_day.is_empty()).then(|| format!("{} a day", a_day.join(" and "))),
        (*reuse > 1).then(|| format!("{reuse} jobs in one sandbox")),
    ]
    .into_iter()
    .flatten()
    .collect()
}
