//! What keeps Docker from answering, and what to do: the socket itself tells more than the client's error.

use std::{io::ErrorKind, os::unix::fs::FileTypeExt, path::Path};

use tokio::net::UnixStream;

use super::calls::{Api, CallError, PING_DEADLINE};
use crate::base::users;

/// Where Docker has its socket if nobody says otherwise: what listens elsewhere may be the Docker filter.
const USUAL: &[&str] = &["/var/run/docker.sock", "/run/docker.sock"];

/// Why Docker can't be used, and what to do about it; both name `docker_host` where they can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {change}")]
pub struct Trouble {
    pub what: String,
    pub change: String,
}

impl Trouble {
    /// Of an engine that has not answered within a caller's own patience.
    pub fn late(docker_host: &str, seconds: u64) -> Trouble {
        Trouble {
            what: format!("the Docker engine at docker_host {docker_host} did not answer within {seconds} s"),
            change: "if it stays so, restart it (systemctl restart docker)".to_owned(),
        }
    }
}

/// What this error of a call comes from.
pub(super) async fn diagnose(api: &Api, error: &CallError) -> Trouble {
    let socket = api.socket();
    let host = format!("docker_host unix://{}", socket.display());
    let trouble = |what, change| Trouble { what, change };
    if let CallError::Refused { .. } = error {
        let what = format!("the Docker engine at {host} can't be used: {error}");
        return trouble(what, "its log says more (journalctl -u docker)".to_owned());
    }
    if std::fs::metadata(socket).is_ok_and(|there| !there.file_type().is_socket()) {
        return trouble(
            format!("{host} is no socket"),
            "set docker_host to Docker's, for example unix:///var/run/docker.sock".to_owned(),
        );
    }
    let connected = tokio::time::timeout(PING_DEADLINE, UnixStream::connect(socket)).await;
    match connected.map(|result| result.map(drop)) {
        Ok(Err(error)) => match error.kind() {
            ErrorKind::NotFound => trouble(format!("there is no Docker socket at {host}"), start(socket)),
            ErrorKind::ConnectionRefused => {
                trouble(format!("nothing answers on the Docker socket at {host}"), start(socket))
            }
            ErrorKind::PermissionDenied => {
                let user = users::own_name();
                let group = users::group_of(socket).unwrap_or_else(|| "docker".to_owned());
                trouble(
                    format!("the user {user} may not use the Docker socket at {host}"),
                    format!("add that user to its group (usermod -aG {group} {user}) and restart the agent"),
                )
            }
            _ => trouble(
                format!("the Docker socket at {host} can't be used: {error}"),
                "set docker_host to Docker's, for example unix:///var/run/docker.sock".to_owned(),
            ),
        },
        Err(_) => hangs(&host),
        Ok(Ok(())) if matches!(error, CallError::Deadline { .. }) => hangs(&host),
        Ok(Ok(())) => trouble(
            format!("the Docker engine at {host} can't be used: {error}"),
            match is_usual(socket) {
                true => "its log says more (journalctl -u docker)".to_owned(),
                false => "if the Docker filter listens there, start Docker behind it (systemctl start docker); its log, or \
                          Docker's, says more"
                    .to_owned(),
            },
        ),
    }
}

fn hangs(host: &str) -> Trouble {
    Trouble {
        what: format!("the Docker engine at {host} takes connections but does not answer"),
        change: "if it stays so, restart it (systemctl restart docker)".to_owned(),
    }
}

fn start(socket: &Path) -> String {
    match is_usual(socket) {
        true => "install Docker or start it (systemctl start docker)".to_owned(),
        false => "start what is to listen there, Docker (systemctl start docker) or the Docker filter (systemctl start \
                  quickcmd-docker-filter), or correct docker_host"
            .to_owned(),
    }
}

fn is_usual(socket: &Path) -> bool {
    USUAL.iter().any(|usual| socket == Path::new(usual))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, sync::Arc};

    use super::{super::Uncounted, *};

    /// What is said of a socket after a real ping of it.
    async fn said(socket: &Path) -> String {
        let api = Api::new(socket.to_owned(), Arc::new(Uncounted));
        let error = api.ping().await.unwrap_err();
        let said = diagnose(&api, &error).await.to_string();
        assert!(said.contains(&format!("docker_host unix://{}", socket.display())), "{said}");
        // Which library asked helps nobody.
        assert!(!said.contains("hyper") && !error.to_string().contains("hyper"), "{said}: {error}");
        said
    }

    #[tokio::test]
    async fn each_way_of_no_answer_has_its_sentence_and_names_the_docker_host() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let missing = said(&socket).await;
        assert!(missing.starts_with("there is no Docker socket at docker_host"), "{missing}");
        assert!(
            missing.contains("systemctl start docker") && missing.contains("quickcmd-docker-filter"),
            "{missing}"
        );

        let listener = UnixListener::bind(&socket).unwrap();
        let hangs = said(&socket).await;
        assert!(
            hangs.contains("takes connections but does not answer: if it stays so, restart it"),
            "{hangs}"
        );

        // It breaks each connection off, as the Docker filter does without Docker.
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        let breaks = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One by one: those of the tries above are gone.
                drop(stream.readable().await);
            }
        });
        let broken = said(&socket).await;
        assert!(
            broken.contains("can't be used: ") && broken.contains("if the Docker filter listens there"),
            "{broken}"
        );
        breaks.abort();
        assert!(breaks.await.is_err_and(|error| error.is_cancelled()));

        let silent = said(&socket).await;
        assert!(silent.starts_with("nothing answers on the Docker socket at docker_host"), "{silent}");
        std::fs::remove_file(&socket).unwrap();
        std::fs::write(&socket, "").unwrap();
        let file = said(&socket).await;
        assert!(file.contains("is no socket: set docker_host to Docker's"), "{file}");
    }

    #[tokio::test]
    async fn an_engine_that_refuses_and_one_in_the_usual_place_send_to_docker_alone() {
        let api = Api::new("/var/run/docker.sock".into(), Arc::new(Uncounted));
        let refused = CallError::Refused { call: "list", status: 500, message: "no".to_owned() };
        let said = diagnose(&api, &refused).await.to_string();
        assert_eq!(
            said,
            "the Docker engine at docker_host unix:///var/run/docker.sock can't be used: Docker refused list: no (status \
             500): its log says more (journalctl -u docker)"
        );
        assert_eq!(start(api.socket()), "install Docker or start it (systemctl start docker)");
    }
}
