//! What `--check` says of `docker_host`: who answers there, or why nobody does. A Docker that is down is no fault of the
//! configuration.

use std::{fs, os::unix::fs::FileTypeExt, path::Path, time::Duration};

use crate::{
    config::Config,
    sandbox::{Outside, Trouble},
};

/// How long Docker may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is there and can't be Docker's socket.
pub(super) fn fault(config: &Config) -> Option<String> {
    let socket = Path::new(config.sandbox.docker_host.strip_prefix("unix://")?);
    let there = fs::metadata(socket).ok()?;
    (!there.file_type().is_socket()).then(|| {
        format!(
            "{} is no socket: name the one that Docker listens on, for example unix:///var/run/docker.sock",
            socket.display()
        )
    })
}

/// Asks Docker. A line of what answers, or a warning.
pub(super) async fn ask(config: &Config) -> Result<String, String> {
    let outside = Outside::new(&config.sandbox, &config.data_dir);
    let asked = tokio::time::timeout(PATIENCE, outside.about()).await;
    let trouble = match asked {
        Ok(Ok(about)) => {
            let filter = about
                .filter
                .map_or_else(String::new, |version| format!(", behind the Docker filter {version}"));
            return Ok(format!("docker answers: version {}{filter}", about.version));
        }
        Ok(Err(trouble)) => trouble,
        Err(_) => Trouble::late(&config.sandbox.docker_host, PATIENCE.as_secs()),
    };
    Err(format!("{trouble}; until Docker answers the agent takes jobs, and they wait"))
}
