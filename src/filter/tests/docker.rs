//! A filter before a Docker that is none: what the agent gets of its answers.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{ID, NAME, rules};
use crate::filter::{Filter, Settings, upstream::Upstream};

/// What a Docker answers to a method with a target.
type Answers = Box<dyn Fn(&str) -> (u16, String) + Send + Sync>;

/// A Docker of answers, with a filter before it.
pub(super) struct Pair {
    dir: TempDir,
    /// What came through the filter.
    asked: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl Pair {
    pub(super) async fn new(answers: Answers) -> Pair {
        Pair::of(answers, false).await
    }

    /// One whose answers are empty, with the header that each of Docker's has.
    pub(super) async fn like_docker() -> Pair {
        Pair::of(Box::new(|_| (200, String::new())), true).await
    }

    async fn of(answers: Answers, header: bool) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let stop = CancellationToken::new();
        let (heard, answers) = (Arc::clone(&asked), Arc::new(answers));
        let over = stop.clone();
        tokio::spawn(over.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (heard, answers) = (Arc::clone(&heard), Arc::clone(&answers));
                let service = service_fn(move |request: Request<Incoming>| {
                    let line = format!("{} {}", request.method(), request.uri());
                    heard.lock().unwrap().push(line.clone());
                    let (status, text) = answers(&line);
                    let mut answer = Response::builder().status(status);
                    if header {
                        answer = answer.header("api-version", "1.41");
                    }
                    let answer = answer.body(Full::<Bytes>::from(text));
                    async move { answer }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        }));
        let settings = Settings {
            listen: dir.path().join("filter.sock"),
            mode: 0o600,
            docker: dir.path().join("docker.sock"),
            rules: rules(),
        };
        let listening = Filter::listen(settings).await.unwrap();
        tokio::spawn(listening.serve(stop.clone()));
        Pair { dir, asked, stop }
    }

    pub(super) fn docker(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn filter(&self) -> PathBuf {
        self.dir.path().join("filter.sock")
    }

    /// What the agent gets; `None`: the connection breaks.
    pub(super) async fn ask(&self, method: Method, target: &str) -> Option<(StatusCode, String)> {
        let answer = Upstream::new().send(&self.filter(), method, target, None).await.ok()?;
        let status = answer.status();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Docker's answer about a container that is not there, or no more.
const GONE: &str = "{\"message\":\"No such container: e3b0\"}\n";

#[tokio::test]
async fn what_docker_has_no_more_is_answered_by_docker_and_not_refused() {
    for (status, text) in [(404, GONE), (500, "{\"message\":\"broken\"}")] {
        let pair = Pair::new(Box::new(move |_| (status, text.to_owned()))).await;
        for (method, target) in [
            (Method::DELETE, format!("/containers/{ID}?v=true&force=true")),
            (Method::POST, format!("/containers/{ID}/start")),
            (Method::POST, format!("/containers/{ID}/kill?signal=SIGKILL")),
            (Method::POST, format!("/containers/{ID}/wait?condition=not-running")),
            (Method::GET, format!("/containers/{ID}/json")),
            (Method::GET, format!("/containers/{NAME}/json")),
        ] {
            let said = pair.ask(method.clone(), &target).await.unwrap();
            assert_eq!(said, (StatusCode::from_u16(status).unwrap(), text.to_owned()), "{method} {target}");
        }
        // Of a container that nobody has looked at nothing but the look was asked.
        assert!(pair.asked().iter().all(|line| line.starts_with("GET ")), "{:?}", pair.asked());
    }
}

#[tokio::test]
async fn a_container_that_goes_while_it_is_known_is_looked_at_again() {
    let pair = Pair::new(Box::new(|line| match line.starts_with("GET") {
        true => (200, inspected(ID).to_string()),
        false => (404, GONE.to_owned()),
    }))
    .await;
    let delete = format!("/containers/{ID}?v=true&force=true");
    for _ in 0..2 {
        assert_eq!(
            pair.ask(Method::DELETE, &delete).await.unwrap(),
            (StatusCode::NOT_FOUND, GONE.to_owned())
        );
    }
    let asked = [format!("GET /containers/{ID}/json"), format!("DELETE {delete}")];
    assert_eq!(pair.asked(), [&asked[..], &asked[..]].concat());
}

#[tokio::test]
async fn the_version_names_the_filter_beside_dockers_own_parts() {
    let own = json!({"Name": "quickcmd-docker-filter", "Version": env!("CARGO_PKG_VERSION")});
    for (docker, whole) in [
        (
            json!({"Version": "29.4.0", "Components": [{"Name": "runc"}]}).to_string(),
            json!([{"Name": "runc"}, own]),
        ),
        (json!({"Version": "29.4.0"}).to_string(), json!([own])),
        (json!({"Version": "29.4.0", "Components": null}).to_string(), json!([own])),
    ] {
        let pair = Pair::new(Box::new(move |_| (200, docker.clone()))).await;
        let (status, said) = pair.ask(Method::GET, "/v1.41/version").await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (status, &said["Version"], &said["Components"]),
            (StatusCode::OK, &json!("29.4.0"), &whole)
        );
    }
    // What is no version is passed on as it is.
    for (status, text) in [(200, "what?"), (200, "[]"), (503, "{}")] {
        let pair = Pair::new(Box::new(move |_| (status, text.to_owned()))).await;
        let said = pair.ask(Method::GET, "/version").await.unwrap();
        assert_eq!(said, (StatusCode::from_u16(status).unwrap(), text.to_owned()));
    }
}

#[tokio::test]
async fn the_socket_has_its_mode() {
    let pair = Pair::new(Box::new(|_| (200, String::new()))).await;
    let mode = std::fs::metadata(pair.filter()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What an inspection says of a container of the agent's.
fn inspected(id: &str) -> Value {
    json!({
        "Id": id,
        "Name": format!("/{NAME}"),
        "Config": {"Labels": {"com.quickcmd.home": "0123abcd"}},
        "Mounts": [{"Type": "bind", "Destination": "/.quickcmd",
                    "Source": format!("/var/lib/quickcmd/sandboxes/{NAME}")}],
    })
}
