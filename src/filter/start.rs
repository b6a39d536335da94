//! What a start finds where Docker should be: an option that is wrong is said at once, and not by the first job.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::FileTypeExt,
    path::Path,
    time::Duration,
};

use hyper::Method;
use tokio::net::UnixStream;

use super::{Settings, upstream::Upstream};
use crate::base::users;

/// How long Docker may take for an answer at the start.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the filter does not start: one sentence with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// An option is wrong, and stays wrong.
    #[error("{0}")]
    Option(String),
    /// Docker's socket can't be had now. Once Docker was started, or the user is in the group, it can.
    #[error("{0}")]
    Docker(String),
}

impl Settings {
    /// Looks at the rules and at Docker's socket. A Docker that has a socket and does not answer yet is waited for, by the
    /// agent's jobs: then a sentence that says so.
    ///
    /// # Errors
    /// What makes a start useless.
    pub async fn look(&self) -> Result<Option<String>, Unfit> {
        self.rules.check().map_err(Unfit::Option)?;
        let Settings { listen, docker, .. } = self;
        let path = docker.display();
        let same = fs::canonicalize(docker)
            .is_ok_and(|docker| fs::canonicalize(listen).is_ok_and(|own| own == docker));
        if same || docker == listen {
            return Err(Unfit::Option(format!(
                "--docker and --listen are both {path}: --docker is Docker's own socket, --listen the one to make for the \
                 agent"
            )));
        }
        match fs::metadata(docker) {
            Err(error) => return Err(unreachable(docker, &error)),
            Ok(there) if !there.file_type().is_socket() => {
                return Err(Unfit::Option(format!(
                    "--docker {path} is no socket: name the one that Docker listens on, for example /var/run/docker.sock"
                )));
            }
            Ok(_) => {}
        }
        let meanwhile = "until it answers the agent's calls break off, and its jobs wait";
        let silent = match tokio::time::timeout(PATIENCE, UnixStream::connect(docker)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                Some(format!("nothing answers on --docker {path}: start Docker (systemctl start docker)"))
            }
            Ok(Err(error)) => return Err(unreachable(docker, &error)),
            Err(_) => Some(format!("--docker {path} takes no connections: restart Docker if it stays so")),
        };
        if let Some(silent) = silent {
            return Ok(Some(format!("{silent}; {meanwhile}")));
        }
        let mut upstream = Upstream::new();
        let ping = upstream.send(docker, Method::GET, "/_ping", None);
        Ok(match tokio::time::timeout(PATIENCE, ping).await {
            Ok(Ok(answer)) if answer.headers().contains_key("api-version") => None,
            Ok(Ok(_)) => Some(format!("what answers on --docker {path} is not Docker: name Docker's socket")),
            Ok(Err(broken)) => Some(format!(
                "--docker {path} takes connections and gives no answer ({broken}): see whether it is Docker's socket, and \
                 Docker's log; {meanwhile}"
            )),
            Err(_) => Some(format!(
                "--docker {path} takes connections and does not answer within {} s: restart Docker if it stays so; \
                 {meanwhile}",
                PATIENCE.as_secs()
            )),
        })
    }
}

/// A socket that can't be connected to by this user, or at all.
pub(super) fn unreachable(docker: &Path, error: &io::Error) -> Unfit {
    let path = docker.display();
    Unfit::Docker(match error.kind() {
        ErrorKind::NotFound => format!(
            "--docker {path} does not exist: start Docker (systemctl start docker), or name the socket that it listens on"
        ),
        ErrorKind::PermissionDenied => {
            let user = users::own_name();
            let group = users::group_of(docker).unwrap_or_else(|| "docker".to_owned());
            format!(
                "--docker {path} may not be used by the user {user}: add that user to the socket's group (usermod -aG \
                 {group} {user}), and start the filter again"
            )
        }
        _ => format!("--docker {path} can't be used: {error}"),
    })
}
