//! An engine that is none: it speaks as much of Docker's API as a launch needs, and answers what a test wants.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};

/// What it does.
pub struct Daemon {
    /// Whether it has the image.
    pub image: Mutex<bool>,
    /// Pulls that were asked for.
    pub pulls: AtomicUsize,
    /// Whether a pull comes to its end; until then it says that it goes on.
    pub pulled: watch::Sender<bool>,
    /// Status of the next creations; then 201.
    pub creates: Mutex<VecDeque<u16>>,
    /// Status of the next removals; then 204.
    pub removes: Mutex<VecDeque<u16>>,
    /// Status of every removal while it is set.
    pub unremovable: Mutex<Option<u16>>,
    /// All that was asked, but for what is asked again and again: method and path.
    calls: Mutex<Vec<String>>,
    /// Names of the containers that were asked for, in order: the nth has the id `id-n`.
    names: Mutex<Vec<String>>,
    /// Ids that are gone.
    gone: Mutex<Vec<String>>,
}

/// Ends it.
pub struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Listens at that path; has the image, and does what it is asked but for starts, which always fail.
    pub fn listen(socket: &Path) -> (Arc<Daemon>, Serving) {
        let daemon = Arc::new(Daemon {
            image: Mutex::new(true),
            pulls: AtomicUsize::new(0),
            pulled: watch::Sender::new(false),
            creates: Mutex::default(),
            removes: Mutex::default(),
            unremovable: Mutex::default(),
            calls: Mutex::default(),
            names: Mutex::default(),
            gone: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(daemon.clone());
        let listener = UnixListener::bind(socket).expect("a socket");
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        (daemon, Serving(serving))
    }

    /// How often something was asked that begins so.
    pub fn asked(&self, begin: &str) -> usize {
        lock(&self.calls).iter().filter(|call| call.starts_with(begin)).count()
    }

    pub fn names(&self) -> Vec<String> {
        lock(&self.names).clone()
    }

    fn create(&self, query: &str) -> (u16, Value) {
        let name =
            query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or_default().to_owned();
        let mut names = lock(&self.names);
        names.push(name);
        let id = format!("id-{}", names.len());
        match lock(&self.creates).pop_front() {
            None => (201, json!({"Id": id, "Warnings": []})),
            Some(status) => (status, json!({"message": "as the test has it"})),
        }
    }

    fn remove(&self, id: &str) -> (u16, Value) {
        let status = lock(&self.unremovable).or_else(|| lock(&self.removes).pop_front()).unwrap_or(204);
        if status == 204 {
            lock(&self.gone).push(id.to_owned());
        }
        (status, json!({"message": "as the test has it"}))
    }

    fn inspect(&self, id: &str) -> (u16, Value) {
        let number: Option<usize> = id.strip_prefix("id-").and_then(|number| number.parse().ok());
        let name = number.and_then(|number| self.names().get(number - 1).cloned());
        match name.filter(|_| !lock(&self.gone).iter().any(|gone| gone == id)) {
            Some(name) => {
                (200, json!({"Id": id, "Name": format!("/{name}"), "State": {"Status": "created"}}))
            }
            None => (404, json!({"message": "no such container"})),
        }
    }

    fn image(&self) -> (u16, Value) {
        if *lock(&self.image) {
            (200, json!({"Id": "sha256:00", "RepoDigests": [], "Config": {"Env": []}}))
        } else {
            (404, json!({"message": "no such image"}))
        }
    }
}

async fn answer(State(daemon): State<Arc<Daemon>>, request: Request) -> Response {
    let path = request.uri().path();
    // `/v1.41/containers/...`
    let path = match path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/')) {
        Some((_, rest)) => format!("/{rest}"),
        None => path.to_owned(),
    };
    let call = format!("{} {path}", request.method());
    lock(&daemon.calls).push(call.clone());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (status, body) = match (request.method().as_str(), parts.as_slice()) {
        ("GET", ["version"]) => (200, json!({"Version": "1", "ApiVersion": "1.41", "MinAPIVersion": "1.12"})),
        ("GET" | "HEAD", ["_ping"]) => return "OK".into_response(),
        ("GET", ["images", .., "json"]) => daemon.image(),
        ("POST", ["images", "create"]) => return pull(daemon),
        ("POST", ["containers", "create"]) => daemon.create(request.uri().query().unwrap_or_default()),
        ("POST", ["containers", _, "start"]) => (500, json!({"message": "it can't be started"})),
        ("GET", ["containers", "json"]) => (200, json!([])),
        ("GET", ["containers", id, "json"]) => daemon.inspect(id),
        ("DELETE", ["containers", id]) => daemon.remove(id),
        _ => (501, json!({"message": format!("the tests' engine does not know {call}")})),
    };
    let status = StatusCode::from_u16(status).expect("a status");
    if status == StatusCode::NO_CONTENT {
        return status.into_response();
    }
    (status, axum::Json(body)).into_response()
}

/// Says that it goes on, once, and comes to its end when it may.
fn pull(daemon: Arc<Daemon>) -> Response {
    daemon.pulls.fetch_add(1, Ordering::Relaxed);
    let steps = futures_util::stream::unfold(0, move |step| {
        let daemon = daemon.clone();
        async move {
            match step {
                0 => Some((Ok::<_, std::io::Error>("{\"status\":\"Pulling\"}\r\n"), 1)),
                _ => {
                    let mut pulled = daemon.pulled.subscribe();
                    let _ = pulled.wait_for(|pulled| *pulled).await;
                    *lock(&daemon.image) = true;
                    None
                }
            }
        }
    });
    Response::new(Body::from_stream(steps))
}
