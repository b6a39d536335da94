//! The composition root: configuration, record, engine, jobs, door, in this order; owns every task, and the
//! order in which they stop.
//!
//! ```text
//! start: configuration (all faults at once) -> data folder, record, spools -> engine -> jobs -> port, certificate
//!        -> ordinary user -> what an earlier life left -> tasks -> "ready" to systemd
//! stop:  SIGTERM -> no new jobs -> running ones end (drain_timeout) -> the rest is cancelled -> door closes
//!        -> engine throws away what waits -> record is closed
//! tasks: door, control socket, dispatcher, sweeps, output events, engine's upkeep, default sandboxes; an early end
//!        of one ends the agent
//! ```

mod control;
mod docker_host;
mod door;
pub mod exits;
mod folders;
mod handover;
mod log;
mod notify;
mod privileges;
mod signals;
mod undumpable;
pub mod verbs;
mod warm;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use privileges::PrivilegeError;

use crate::{
    api::{self, Door, Edge},
    audit::Event,
    base::{clock::Timestamp, disk, tasks::Tasks},
    config::{Config, Faults, PreflightMode},
    gate::Gate,
    jobs::Service,
    metrics::{Metrics, Outcome},
    output::Outputs,
    preflight::{self, Level},
    sandbox::{Docker, Engine, Observer},
    store::{self, Store, StoreError},
};
use handover::Belongings;
use privileges::Became;
use signals::{Signal, Signals};

/// Why the agent could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration has faults; none of them opened a port.
    #[error("{0}")]
    Config(#[from] Faults),
    /// The record can't be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The port or the certificate can't be used.
    #[error("{0}")]
    Bind(#[from] api::BindError),
    /// The agent could not become an ordinary user.
    #[error("{0}")]
    Privileges(#[from] PrivilegeError),
    /// The data folder, or one in it, can't be made or written.
    #[error("{what}: {error}; {remedy}", remedy = folders::remedy(error))]
    Folder {
        /// What was being done.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Something of the system.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A task ended that never should.
    #[error("{0} ended early: the agent stops, so that it is started anew")]
    TaskEnded(&'static str),
    /// An option of a verb can't be meant.
    #[error("{0}")]
    Usage(String),
    /// What an operator asked for can't be done now; the sentence says why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// A defect.
    #[error("{0}")]
    Internal(String),
}

impl AgentError {
    /// The exit code; see [`exits`].
    pub fn exit_code(&self) -> u8 {
        match self {
            AgentError::Config(_) | AgentError::Usage(_) => exits::CONFIG,
            AgentError::Refused(_) => exits::REFUSED,
            AgentError::TaskEnded(_) | AgentError::Internal(_) => exits::SOFTWARE,
            AgentError::Store(_)
            | AgentError::Bind(_)
            | AgentError::Privileges(_)
            | AgentError::Folder { .. }
            | AgentError::Io { .. } => exits::SYSTEM,
        }
    }

    fn folder(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> AgentError {
        let what = what.into();
        |error| AgentError::Folder { what, error }
    }

    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> AgentError {
        let what = what.into();
        |error| AgentError::Io { what, error }
    }
}

/// Reads the environment, for settings that name a variable.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Loads the configuration, looks whether its folders can be written and whether Docker answers, and says what it comes
/// to, without opening or making anything.
///
/// # Errors
/// Every fault at once.
pub fn check(path: &Path) -> Result<String, AgentError> {
    let mut config = Config::load(path, &environment)?;
    folders::check(path, &config)?;
    config.warnings.extend(privileges::missing_user(&config.run_as));
    let answers = verbs::wait_for(async { Ok(docker_host::ask(&config).await) })?;
    let answers = answers.map_err(|warning| config.warnings.push(warning)).ok();
    Ok(config.describe().into_iter().chain(answers).collect::<Vec<_>>().join("\n"))
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// What was wrong at the start, or which task ended.
pub fn run(path: &Path) -> Result<(), AgentError> {
    let config = Config::load(path, &environment)?;
    log::start(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("quickcmd")
        .build()
        .map_err(AgentError::io("could not start the runtime"))?;
    let result = runtime.block_on(serve(path.to_owned(), config));
    // Blocking reads that are still under way end with the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// The agent, built and not yet moving.
struct Agent {
    path: PathBuf,
    config: Config,
    store: Store,
    engine: Arc<Docker>,
    outputs: Arc<Outputs>,
    service: Service,
    api: api::Api,
    metrics: Arc<Metrics>,
}

async fn serve(path: PathBuf, config: Config) -> Result<(), AgentError> {
    let mut signals = Signals::listen().map_err(AgentError::io("could not listen to signals"))?;
    look_at_host(&path, &config).await?;
    let agent = build(path, config)?;
    become_ordinary(&agent.config)?;
    if let Err(error) = undumpable::become_undumpable() {
        tracing::warn!(%error, "the agent could be dumped to a core file, with its keys");
    }
    agent.main(&mut signals).await
}

/// The check of the host, as far as it is asked for.
async fn look_at_host(path: &Path, config: &Config) -> Result<(), AgentError> {
    if config.preflight == PreflightMode::Off {
        return Ok(());
    }
    let report = preflight::look(path, config).await;
    let mut dangers = Vec::new();
    for finding in report.findings.iter().filter(|finding| finding.level != Level::Ok) {
        let preflight::Finding { check, level, found, change } = finding;
        match level {
            Level::Danger => {
                tracing::error!(check, found, change, "preflight: danger");
                dangers.push(format!("preflight: {check}: {found} -> {change}"));
            }
            _ => tracing::warn!(check, found, change, "preflight: warning"),
        }
    }
    if config.preflight == PreflightMode::Strict && !dangers.is_empty() {
        dangers.push("preflight is strict: the agent does not start on this host".to_owned());
        return Err(AgentError::Refused(dangers.join("\n")));
    }
    Ok(())
}

fn build(path: PathBuf, config: Config) -> Result<Agent, AgentError> {
    let metrics = Metrics::new();
    let data = config.data_dir.clone();
    disk::make_folder(&data)
        .map_err(AgentError::folder(format!("could not make the data folder {}", data.display())))?;
    let store = Store::open(&config.audit_db_path)?;
    let counts = Arc::clone(&metrics);
    store.on_commit(Box::new(move |batch| {
        if batch.committed {
            counts.db_commit_seconds.observe(batch.took.as_secs_f64());
            counts.db_commit_batch.observe(f64::from(u32::try_from(batch.changes).unwrap_or(u32::MAX)));
        }
        counts.db_errors.inc_by(u64::try_from(batch.refused).unwrap_or(u64::MAX));
        counts.audit_entries.inc_by(batch.entries);
    }));
    let outputs = Outputs::open(&data.join("spool")).map_err(AgentError::folder(format!(
        "could not open the spools in the data folder {}",
        data.display()
    )))?;
    let engine = Docker::new(&config.sandbox, &data, Arc::clone(&metrics) as Arc<dyn Observer>)
        .map_err(|error| AgentError::Internal(error.to_string()))?;
    let service = Service::new(
        &config,
        gate(&config)?,
        store.clone(),
        Arc::clone(&outputs),
        Arc::clone(&engine) as Arc<dyn Engine>,
        Arc::clone(&metrics),
    );
    let doorway = door::Doorway {
        service: service.clone(),
        agent_id: config.agent_id.clone(),
        started: Timestamp::now(),
    };
    let api = api::bind(Door {
        jobs: Arc::new(doorway),
        config: config.server.clone(),
        metrics: Arc::clone(&metrics),
    })?;
    Ok(Agent { path, config, store, engine, outputs, service, api, metrics })
}

fn gate(config: &Config) -> Result<Gate, AgentError> {
    Gate::new(&config.gate, config.server.read_access)
        .map_err(|error| AgentError::Internal(error.to_string()))
}

fn become_ordinary(config: &Config) -> Result<(), AgentError> {
    let socket = config.sandbox.docker_host.strip_prefix("unix://").map(Path::new);
    let belongings = Belongings { data_dir: &config.data_dir, database: &config.audit_db_path };
    match privileges::become_ordinary(&config.run_as, belongings, socket)? {
        Became::AlreadyOrdinary => {}
        Became::User { name, groups, left } => {
            tracing::info!(user = name, ?groups, "no longer root");
            for folder in left {
                tracing::warn!(
                    folder = %folder.display(),
                    "the folder holds what is not the agent's, so it was not handed to {name}, who can't write there: \
                     set data_dir to a folder of the agent's own, else `drain` does not reach this agent"
                );
            }
        }
        Became::NoSuchUser { name } => tracing::warn!(
            "there is no user {name:?} (run_as_user): the agent goes on as root; scripts/setup-agent.sh makes the user"
        ),
    }
    Ok(())
}

impl Agent {
    async fn main(self, signals: &mut Signals) -> Result<(), AgentError> {
        let Agent { path, config, store, engine, outputs, service, api, metrics } = self;
        let address = api.local_addr().map_err(AgentError::io("could not read the port"))?;
        let edge = api.edge();

        // Two stops: the door and the jobs' tasks first, the engine and the output after the last job.
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let ground = CancellationToken::new();
        let mut below = Tasks::new(ground.clone());
        let events = Arc::clone(&outputs);
        below.spawn("output events", |stop| events.run(stop));
        let upkeep = Arc::clone(&engine);
        below.spawn("engine upkeep", |stop| upkeep.upkeep(stop));
        let (default, wanted) = watch::channel(warm::Standing::of(&config));
        below.spawn("default sandboxes", |stop| warm::run(Arc::clone(&engine), wanted, stop));

        service.start(&mut tasks).await?;
        tasks.spawn("door", |stop| async move {
            if let Err(error) = api.serve(stop).await {
                tracing::error!(%error, "the door failed");
            }
        });
        let socket = control::path(&config.data_dir);
        match control::listen(&socket) {
            Ok(listener) => {
                let service = service.clone();
                tasks.spawn("control socket", |stop| control::serve(listener, service, stop));
            }
            Err(error) => tracing::error!(
                socket = %socket.display(),
                %error,
                "the control socket can't be opened: `drain` and `undrain` will not reach this agent"
            ),
        }
        let watched = edge.clone();
        tasks.spawn("certificate watch", |stop| watched.watch(stop));
        tracing::info!(%address, agent_id = config.agent_id, data = %config.data_dir.display(), "the agent serves");
        let started = json!({"agent_id": config.agent_id, "version": env!("CARGO_PKG_VERSION"), "address": address.to_string()});
        note(&store, "agent.started", started).await;
        notify::ready();
        let mut watchdog = notify::Watchdog::new();

        let mut drain = config.jobs.drain_timeout;
        let failed = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => break None,
                    Signal::Reload => {
                        if let Some(new) = reload(&path, &config.agent_id, &service, &edge, &metrics) {
                            drain = new.jobs.drain_timeout;
                            note(&store, "agent.reloaded", json!({})).await;
                            default.send_replace(warm::Standing::of(&new));
                            let late = config.needs_restart(&new);
                            if !late.is_empty() {
                                tracing::warn!(keys = late.join("; "), "these keys change at the next start only");
                            }
                        }
                    }
                },
                name = tasks.ended() => break name,
                name = below.ended() => break name,
                () = watchdog.tick(&store) => {}
            }
        };

        // From here on in the order of the drawing.
        notify::stopping();
        match failed {
            Some(name) => tracing::error!(task = name, "a task ended early: the agent stops"),
            None => tracing::info!(patience_seconds = drain.as_secs(), "stopping: running jobs may end"),
        }
        let hurry = CancellationToken::new();
        let finish = service.finish(drain, hurry.clone());
        tokio::pin!(finish);
        loop {
            tokio::select! {
                () = &mut finish => break,
                signal = signals.next() => if signal == Signal::Stop {
                    tracing::warn!("told to stop again: no more patience");
                    hurry.cancel();
                },
                // A drain may take longer than systemd's patience with a silent process.
                () = watchdog.tick(&store) => {}
            }
        }
        let mut rest = Rest { signals, watchdog: &mut watchdog, store: &store };
        stop.cancel();
        rest.wait("door and sweeps", async { while tasks.ended().await.is_some() {} }).await;
        ground.cancel();
        rest.wait("engine and output", async { while below.ended().await.is_some() {} }).await;
        let stopped = json!({"early_end": failed, "running": service.counts().running});
        let close = async {
            service.settle().await;
            note(&store, "agent.stopped", stopped).await;
            if let Err(error) = store.close().await {
                tracing::warn!(%error, "the record was not closed cleanly; the next start does it");
            }
        };
        rest.wait("the record", close).await;
        tracing::info!("stopped");
        match failed {
            None => Ok(()),
            Some(name) => Err(AgentError::TaskEnded(name)),
        }
    }
}

/// How long each step of the stop after the drain may take. Each has limits of its own, which are shorter: this is
/// for a disk or an engine that hangs. What is left undone, the next start does.
const LAST_STEP: Duration = Duration::from_secs(30);

/// The stop after the drain: signals are read, and systemd is told, all the time.
struct Rest<'a> {
    signals: &'a mut Signals,
    watchdog: &'a mut notify::Watchdog,
    store: &'a Store,
}

impl Rest<'_> {
    /// Waits for a step, but for [`LAST_STEP`] at most, and no longer once the agent is told to stop again.
    async fn wait(&mut self, what: &str, step: impl Future<Output = ()>) {
        let step = tokio::time::timeout(LAST_STEP, step);
        tokio::pin!(step);
        loop {
            tokio::select! {
                ended = &mut step => {
                    if ended.is_err() {
                        tracing::error!(what, seconds = LAST_STEP.as_secs(), "it does not end: the agent stops without it");
                    }
                    return;
                }
                signal = self.signals.next() => if signal == Signal::Stop {
                    tracing::warn!(what, "told to stop again: it is not waited for");
                    return;
                },
                () = self.watchdog.tick(self.store) => {}
            }
        }
    }
}

/// Puts what the agent itself did into the record.
async fn note(store: &Store, kind: &'static str, details: Value) {
    let written = store
        .write(move |tx| {
            let event = Event::Agent { kind, details: &details };
            store::audit::append(tx, Timestamp::now(), &event).map(drop)
        })
        .await;
    if let Err(error) = written {
        tracing::error!(kind, %error, "the agent's own step could not be recorded");
    }
}

/// Loads the configuration again and goes on with it; a bad one keeps the old and says why. Gives the new
/// one.
fn reload(path: &Path, agent_id: &str, service: &Service, edge: &Edge, metrics: &Metrics) -> Option<Config> {
    notify::reloading();
    let result = (|| {
        let config = Config::load(path, &environment)?;
        // Containers carry the name, so it stays until the next start, and the gate must know the same one.
        let mut checks = config.clone();
        checks.gate.agent_id = agent_id.to_owned();
        let gate = gate(&checks)?;
        edge.reload(&config.server).map_err(|error| AgentError::Internal(error.to_string()))?;
        service.reload(&config, gate);
        Ok::<_, AgentError>(config)
    })();
    notify::ready();
    match result {
        Ok(config) => {
            metrics.config_reload(Outcome::Ok);
            tracing::info!("configuration reloaded");
            Some(config)
        }
        Err(error) => {
            metrics.config_reload(Outcome::Error);
            tracing::error!("configuration not reloaded, the old one stays: {error}");
            None
        }
    }
}
