//! What the agent counts, for Prometheus: one registry, one typed handle a metric. Passed to every room
//! that counts. No label ever carries what a caller chose: label values are `&'static str` or enums.
//!
//! docs/metrics.md lists them all; a test holds it to the registry.

mod builder;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder,
};

use builder::Builder;
pub use builder::Entry;

use crate::wire::{Code, Reason};

/// Content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// How a call to something outside ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// It answered with an error.
    Error,
    /// It did not answer in time, or could not be reached.
    Timeout,
}

impl Outcome {
    /// As it stands in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
            Outcome::Timeout => "timeout",
        }
    }
}

/// Why a connection was closed before it could ask anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// The agent holds as many connections as it may.
    Total,
    /// The address does.
    Address,
    /// The TLS handshake failed or took too long.
    Handshake,
}

impl ConnectionRefusal {
    /// Every value.
    pub const ALL: &'static [ConnectionRefusal] =
        &[ConnectionRefusal::Total, ConnectionRefusal::Address, ConnectionRefusal::Handshake];

    /// As it stands in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            ConnectionRefusal::Total => "total",
            ConnectionRefusal::Address => "address",
            ConnectionRefusal::Handshake => "handshake",
        }
    }
}

/// A gauge that counts what is alive: one more while this value lives.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Held {
    /// Adds one until it is dropped.
    pub fn of(gauge: &IntGauge) -> Held {
        gauge.inc();
        Held(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Every metric of the agent. Those without labels are used directly; those with labels through methods.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    catalogue: Vec<Entry>,

    /// Accepted jobs, once each (not duplicates, not refusals).
    pub jobs_total: IntCounter,
    pub jobs_running: IntGauge,
    jobs_ended: IntCounterVec,
    pub queue_depth: IntGauge,
    /// Seconds from acceptance to the job's turn.
    pub queue_wait: Histogram,
    /// Seconds from the job's turn to the start of its command.
    pub start_latency: Histogram,
    /// Seconds from the start of the command to its end.
    pub job_duration: Histogram,
    refusals: IntCounterVec,

    /// Bytes recorded of each stream.
    pub output_stdout: IntCounter,
    pub output_stderr: IntCounter,
    /// Bytes dropped beyond the limit.
    pub output_dropped: IntCounter,
    pub stream_readers: IntGauge,
    pub spool_bytes: IntGauge,
    /// Free bytes of the file system with the data folder.
    pub storage_free: IntGauge,

    docker_calls: IntCounterVec,
    docker_call_seconds: HistogramVec,
    /// 1 while the engine answers.
    pub docker_up: IntGauge,
    pub pool_depth: IntGauge,
    pub pool_hits: IntCounter,
    pub pool_misses: IntCounter,
    /// Jobs of a controller with `reuse`.
    pub sandbox_reuses: IntCounter,
    /// Seconds that it took to make a waiting sandbox.
    pub pool_refill: Histogram,
    /// Containers that were found without a job and removed.
    pub reaped: IntCounter,
    /// Containers that could not be removed so far.
    pub quarantined: IntGauge,

    pub db_commit_seconds: Histogram,
    /// Writes in one commit.
    pub db_commit_batch: Histogram,
    pub db_errors: IntCounter,
    pub audit_entries: IntCounter,

    http_requests: IntCounterVec,
    http_request_seconds: HistogramVec,
    pub connections: IntGauge,
    connections_refused: IntCounterVec,
    /// Unix seconds; 0 without a certificate.
    pub tls_certificate_expiry: IntGauge,
    config_reloads: IntCounterVec,
}

/// From half a millisecond (a commit on a good disk) to a second.
const COMMIT: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
/// From a warm start to a pull.
const START: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// From an empty queue to an hour of waiting.
const WAIT: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
const RUN: &[f64] = &[0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];
const CALL: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

impl Metrics {
    /// A registry with every metric in it. Those of known labels stand at zero from the start, so that a
    /// first refusal is seen as an increase.
    pub fn new() -> Arc<Metrics> {
        let mut b = Builder::default();
        b.info(
            "build_info",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("commit", option_env!("QUICKCMD_COMMIT").unwrap_or("unknown")),
            ],
            "Always 1; which build this is",
        );
        let jobs_total = b.counter("jobs_total", "Total number of jobs");
        let jobs_running = b.gauge("jobs_running", "Currently running jobs");
        let jobs_ended =
            b.counters("jobs_ended_total", &["status", "reason"], "Ended jobs by how they ended");
        let queue_depth = b.gauge("queue_depth", "Accepted jobs that wait for their turn");
        let queue_wait = b.histogram("queue_wait_seconds", WAIT, "Time from a job's acceptance to its turn");
        let start_latency =
            b.histogram("start_latency_seconds", START, "Time from a job's turn to the start of its command");
        let job_duration = b.histogram("job_duration_seconds", RUN, "Run time of commands");
        let refusals = b.counters("refusals_total", &["code"], "Refused requests by the code of the answer");

        let output = b.counters("output_bytes_total", &["stream"], "Bytes of output that were recorded");
        let output_dropped =
            b.counter("output_dropped_bytes_total", "Bytes of output beyond the limit, counted and dropped");
        let stream_readers = b.gauge("stream_readers", "Open WebSocket streams");
        let spool_bytes = b.gauge("spool_bytes", "Disk space that kept output uses");
        let storage_free =
            b.gauge("storage_free_bytes", "Free space of the file system with the data folder");

        let docker_calls =
            b.counters("docker_calls_total", &["call", "outcome"], "Calls to the Docker engine");
        let docker_call_seconds =
            b.histograms("docker_call_seconds", &["call"], CALL, "Time that calls to the Docker engine took");
        let docker_up = b.gauge("docker_up", "1 while the Docker engine answers, else 0");
        let pool_depth = b.gauge("pool_depth", "Sandboxes that wait for a job");
        let pool_hits = b.counter("pool_hits_total", "Jobs that got a waiting sandbox");
        let pool_misses = b.counter("pool_misses_total", "Jobs that had to wait for a new sandbox");
        let sandbox_reuses = b.counter(
            "sandbox_reuses_total",
            "Jobs that got a sandbox in which others of their controller ran",
        );
        let pool_refill =
            b.histogram("pool_refill_seconds", START, "Time that it took to make a waiting sandbox");
        let reaped = b.counter("containers_reaped_total", "Containers without a job, found and removed");
        let quarantined =
            b.gauge("quarantined_containers", "Containers that Docker does not remove, still tried");

        let db_commit_seconds =
            b.histogram("db_commit_seconds", COMMIT, "Time that commits took, synced to disk");
        let db_commit_batch = b.histogram("db_commit_batch", BATCH, "Writes that shared one commit");
        let db_errors = b.counter("db_errors_total", "Writes that the database refused");
        let audit_entries = b.counter("audit_entries_total", "Entries added to the audit log");

        let http_requests =
            b.counters("http_requests_total", &["route", "class"], "Requests by route and class of status");
        let http_request_seconds = b.histograms(
            "http_request_seconds",
            &["route"],
            CALL,
            "Time from a request's headers to the headers of its answer",
        );
        let connections = b.gauge("connections", "Open connections");
        let connections_refused = b.counters(
            "connections_refused_total",
            &["reason"],
            "Connections that were closed before a request",
        );
        let tls_certificate_expiry = b.gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the server's certificate expires, in Unix time; 0 without a certificate",
        );
        let config_reloads = b.counters("config_reloads_total", &["outcome"], "Reloads of the configuration");
        b.process();

        let metrics = Metrics {
            jobs_total,
            jobs_running,
            jobs_ended,
            queue_depth,
            queue_wait,
            start_latency,
            job_duration,
            refusals,
            output_stdout: output.with_label_values(&["stdout"]),
            output_stderr: output.with_label_values(&["stderr"]),
            output_dropped,
            stream_readers,
            spool_bytes,
            storage_free,
            docker_calls,
            docker_call_seconds,
            docker_up,
            pool_depth,
            pool_hits,
            pool_misses,
            sandbox_reuses,
            pool_refill,
            reaped,
            quarantined,
            db_commit_seconds,
            db_commit_batch,
            db_errors,
            audit_entries,
            http_requests,
            http_request_seconds,
            connections,
            connections_refused,
            tls_certificate_expiry,
            config_reloads,
            registry: b.registry,
            catalogue: b.catalogue,
        };
        metrics.start_at_zero();
        Arc::new(metrics)
    }

    fn start_at_zero(&self) {
        for reason in Reason::ALL {
            self.jobs_ended.with_label_values(&[reason.status().as_str(), reason.as_str()]);
        }
        for code in Code::ALL {
            self.refusals.with_label_values(&[code.as_str()]);
        }
        for reason in ConnectionRefusal::ALL {
            self.connections_refused.with_label_values(&[reason.as_str()]);
        }
        for outcome in [Outcome::Ok, Outcome::Error] {
            self.config_reloads.with_label_values(&[outcome.as_str()]);
        }
    }

    /// A job has ended.
    pub fn job_ended(&self, reason: Reason) {
        self.jobs_ended.with_label_values(&[reason.status().as_str(), reason.as_str()]).inc();
    }

    /// How many jobs have ended so, since the agent started.
    pub fn jobs_ended(&self, reason: Reason) -> u64 {
        self.jobs_ended.with_label_values(&[reason.status().as_str(), reason.as_str()]).get()
    }

    /// A request was refused. The door counts each answer that carries a problem; others need not.
    pub fn refused(&self, code: Code) {
        self.refusals.with_label_values(&[code.as_str()]).inc();
    }

    /// How many refusals with that code, since the agent started.
    pub fn refusals(&self, code: Code) -> u64 {
        self.refusals.with_label_values(&[code.as_str()]).get()
    }

    /// A call to the Docker engine has ended; `call` names it, for example `create`.
    pub fn docker_call(&self, call: &'static str, outcome: Outcome, took: Duration) {
        self.docker_calls.with_label_values(&[call, outcome.as_str()]).inc();
        self.docker_call_seconds.with_label_values(&[call]).observe(took.as_secs_f64());
    }

    /// A request was answered; `route` is the router's template, never the path itself.
    pub fn http_request(&self, route: &str, status: u16, took: Duration) {
        let class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http_requests.with_label_values(&[route, class]).inc();
        self.http_request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// A connection was closed before it could ask anything.
    pub fn connection_refused(&self, reason: ConnectionRefusal) {
        self.connections_refused.with_label_values(&[reason.as_str()]).inc();
    }

    /// How many connections were closed for that reason, since the agent started.
    pub fn connections_refused(&self, reason: ConnectionRefusal) -> u64 {
        self.connections_refused.with_label_values(&[reason.as_str()]).get()
    }

    /// The configuration was read again; a broken one keeps the old settings.
    pub fn config_reload(&self, outcome: Outcome) {
        self.config_reloads.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Every metric that there is, by name.
    pub fn catalogue(&self) -> &[Entry] {
        &self.catalogue
    }

    /// The exposition text, version 0.0.4.
    ///
    /// # Errors
    /// If a family can't be written as text, which would be a defect.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
