//! `docker-filter`: the socket between the agent and Docker. Runs as a user of its own and reads no configuration, for
//! that holds secrets.

use nix::sys::stat::{Mode, umask};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        log, notify,
        signals::{Signal, Signals},
    },
    AgentError,
};
use crate::{
    config::LogConfig,
    filter::{Filter, Settings, Unfit},
};

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// An option that can't be meant, a Docker's socket that is not there, a socket that can't be opened, the runtime.
pub fn docker_filter(settings: Settings, level: &str) -> Result<String, AgentError> {
    log::start(&LogConfig { level: level.to_owned(), json: false });
    // Nobody may connect between the making of the socket and its mode.
    umask(Mode::from_bits_truncate(0o177));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("docker-filter")
        .build()
        .map_err(AgentError::io("could not start the runtime"))?;
    runtime.block_on(async {
        let mut signals = Signals::listen().map_err(AgentError::io("could not listen to signals"))?;
        let what = format!("could not listen on {}", settings.listen.display());
        let docker = settings.docker.clone();
        let silent = settings.look().await.map_err(|unfit| match unfit {
            Unfit::Option(why) => AgentError::Usage(why),
            Unfit::Docker(why) => AgentError::Refused(why),
        })?;
        let listening = Filter::listen(settings).await.map_err(AgentError::io(what))?;
        tracing::info!(socket = %listening.path().display(), docker = %docker.display(), "the filter serves");
        if let Some(silent) = silent {
            tracing::warn!("{silent}");
        }
        notify::ready();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(listening.serve(stop.clone()));
        // There is nothing to read again.
        while signals.next().await == Signal::Reload {}
        notify::stopping();
        stop.cancel();
        serving.await.map_err(|error| AgentError::Internal(error.to_string()))?;
        tracing::info!("the filter ends");
        Ok(String::new())
    })
}
