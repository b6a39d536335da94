//! A small agent that speaks the contract, answers as each test says, and remembers what it was asked.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{
        Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use futures_util::{future::BoxFuture, stream};
use quickcmd::wire::{
    Code, JobResult, Problem, Reason,
    envelope::Envelope,
    frame::Frame,
    httpsig::{self, Target},
    key::SigningKey,
    result::{Accepted, JobStatus},
};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, process::Command};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef-test";
/// Nothing in these tests takes so long.
pub const LIMIT: Duration = Duration::from_secs(60);

/// One request, as the agent saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path_and_query: String,
    pub body: Bytes,
}

impl Seen {
    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path_and_query.split('?').next() == Some(path)
    }

    /// The signed payload; fails the test unless the signature holds.
    pub fn payload(&self) -> serde_json::Value {
        let envelope = Envelope::parse(&self.body).expect("an envelope");
        let signature = hex::decode(&*envelope.signature.signature).expect("hex");
        assert!(key().verifying().verify(envelope.payload.as_bytes(), &signature), "the signature holds");
        serde_json::from_str(envelope.payload).expect("JSON")
    }
}

/// What to answer.
pub enum Answer {
    Http(Response),
    /// The head of a 202, and the connection is cut within its body.
    Cut,
    Socket(Box<dyn FnOnce(WebSocket) -> BoxFuture<'static, ()> + Send>),
}

pub fn json(status: u16, body: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(body).expect("JSON");
    Answer::Http(
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body.into())
            .expect("an answer"),
    )
}

pub fn problem(problem: Problem) -> Answer {
    let mut response = Response::builder().status(problem.code.status());
    if let Some(seconds) = problem.retry_after {
        response = response.header("retry-after", seconds);
    }
    Answer::Http(response.body(serde_json::to_vec(&problem).expect("JSON").into()).expect("an answer"))
}

pub fn accepted() -> Answer {
    json(202, &Accepted { job_id: "job-1".into(), status: quickcmd::wire::Status::Pending, duplicate: false })
}

/// Sends those frames, then goes away without a word if `cut`, else closes properly.
pub fn frames(frames: Vec<Frame>, cut: bool) -> Answer {
    Answer::Socket(Box::new(move |mut socket| {
        Box::pin(async move {
            for frame in frames {
                let text = serde_json::to_string(&frame).expect("JSON");
                if socket.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
            if !cut {
                let _ = socket.send(Message::Close(None)).await;
            }
        })
    }))
}

/// The frames of a whole job: pieces of (stream, bytes), then the end.
pub fn job(pieces: &[(&str, &[u8])], exit_code: i32, reason: Reason) -> Vec<Frame> {
    let mut all = Vec::new();
    let mut output = [Vec::new(), Vec::new(), Vec::new()];
    for (stream, bytes) in pieces {
        let so_far = &mut output
            [["stdout", "stderr", "system"].iter().position(|name| name == stream).expect("a stream")];
        let text = std::str::from_utf8(bytes);
        all.push(Frame {
            job_id: "job-1".into(),
            timestamp: "2025-01-07T10:00:01.5Z".into(),
            stream: (*stream).into(),
            data: text.map_or_else(|_| base64(bytes), str::to_owned),
            r#final: false,
            seq: all.len() as u64 + 1,
            offset: so_far.len() as u64,
            encoding: text.is_err().then(|| "base64".into()),
            result: None,
        });
        so_far.extend_from_slice(bytes);
    }
    all.push(Frame {
        job_id: "job-1".into(),
        timestamp: "2025-01-07T10:00:02Z".into(),
        stream: String::new(),
        data: String::new(),
        r#final: true,
        seq: all.len() as u64 + 1,
        offset: 0,
        encoding: None,
        result: Some(result(&output[0], &output[1], exit_code, reason)),
    });
    all
}

pub fn result(stdout: &[u8], stderr: &[u8], exit_code: i32, reason: Reason) -> JobResult {
    JobResult {
        job_id: "job-1".into(),
        status: reason.status(),
        sandbox_id: "abc123".into(),
        exit_code,
        stdout: String::from_utf8_lossy(stdout).into(),
        stderr: String::from_utf8_lossy(stderr).into(),
        start_time: "2025-01-07T10:00:00Z".into(),
        end_time: "2025-01-07T10:00:02Z".into(),
        duration_ms: 2000,
        error: None,
        snapshot: None,
        reason,
        signal: None,
        oom_killed: false,
        image: "alpine:latest".into(),
        image_digest: None,
        stdout_bytes: stdout.len() as u64,
        stderr_bytes: stderr.len() as u64,
        stdout_sha256: hex::encode(Sha256::digest(stdout)),
        stderr_sha256: hex::encode(Sha256::digest(stderr)),
        stdout_truncated: false,
        stderr_truncated: false,
        stdout_dropped: 0,
        stderr_dropped: 0,
        usage: None,
        artifacts: Vec::new(),
        queued_ms: 3,
        started_ms: 4,
        receipt: None,
    }
}

pub fn status(result: Option<JobResult>) -> JobStatus {
    use quickcmd::wire::Status;
    JobStatus {
        job_id: "job-1".into(),
        status: result.as_ref().map_or(Status::Running, |result| result.status),
        reason: result.as_ref().map(|result| result.reason.as_str().to_owned()),
        result,
        controller_id: "controller-1".into(),
        created_at: "2025-01-07T09:59:59Z".into(),
        started_at: Some("2025-01-07T10:00:00Z".into()),
        cancel_requested: false,
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn key() -> SigningKey {
    SigningKey::hmac(SECRET.as_bytes())
}

/// `(request, how many of that method and path came before)` to answer.
type Script = dyn Fn(&Seen, usize) -> Answer + Send + Sync;

/// The running agent; it ends with the test's runtime.
pub struct Fake {
    pub url: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone)]
struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
    scheme: &'static str,
}

impl Fake {
    pub async fn start(script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (router, seen) = router(Arc::new(script), "http");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Fake { url, seen }
    }

    /// The same over TLS.
    pub async fn start_tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static,
    ) -> Fake {
        let handle = axum_server::Handle::new();
        let (router, seen) = router(Arc::new(script), "https");
        let server = axum_server::bind_rustls(
            std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config)),
        )
        .handle(handle.clone());
        tokio::spawn(server.serve(router.into_make_service()));
        let address = handle.listening().await.expect("a port");
        Fake { url: format!("https://{address}"), seen }
    }

    /// What came to that endpoint.
    pub fn asked(&self, method: &str, path: &str) -> Vec<Seen> {
        let seen = self.seen.lock().expect("no test thread panicked");
        seen.iter().filter(|seen| seen.is(method, path)).cloned().collect()
    }

    /// `quickcmd` as this agent's controller, with nothing of our own environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = quickcmd(args);
        command.env("QUICKCMD_URL", &self.url);
        command.env("QUICKCMD_CONTROLLER_ID", "controller-1");
        command.env("QUICKCMD_SECRET", SECRET);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args)).await
    }
}

fn router(script: Arc<Script>, scheme: &'static str) -> (Router, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Shared { seen: seen.clone(), script, scheme };
    (Router::new().fallback(handle).with_state(shared), seen)
}

async fn handle(
    State(shared): State<Shared>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let path_and_query = parts.uri.path_and_query().expect("a path").as_str().to_owned();
    if parts.method == "GET"
        && parts.uri.path() != "/health"
        && !proven(&parts, &path_and_query, shared.scheme)
    {
        let Answer::Http(refused) = problem(Problem::new(Code::Unauthenticated)) else { unreachable!() };
        return refused;
    }
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a small body");
    let seen = Seen { method: parts.method.to_string(), path_and_query, body };
    let before = {
        let mut all = shared.seen.lock().expect("no test thread panicked");
        let before = all.iter().filter(|old| old.is(&seen.method, parts.uri.path())).count();
        all.push(seen.clone());
        before
    };
    match (shared.script)(&seen, before) {
        Answer::Http(response) => response,
        Answer::Cut => {
            let pieces = stream::iter([Ok(Bytes::from_static(b"{\"job")), Err(std::io::Error::other("cut"))]);
            Response::builder()
                .status(202)
                .header("content-length", 100)
                .body(Body::from_stream(pieces))
                .expect("an answer")
        }
        Answer::Socket(talk) => upgrade.expect("a WebSocket handshake").on_upgrade(talk),
    }
}

/// Whether the read is signed by our controller.
fn proven(parts: &axum::http::request::Parts, path_and_query: &str, scheme: &str) -> bool {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let authority = parts.uri.authority().map_or_else(|| text("host").to_owned(), ToString::to_string);
    let target = Target { method: parts.method.as_str(), scheme, authority: &authority, path_and_query };
    let Ok(signed) = httpsig::Signed::parse(text("signature-input"), text("signature")) else { return false };
    signed.keyid() == Ok("controller-1") && verifies(&signed, &target)
}

fn verifies(signed: &httpsig::Signed, target: &Target<'_>) -> bool {
    signed.verify(target, |_| None, &key().verifying()) == Ok(true)
}

/// How the program ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ran {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// For snapshots: exit code and both streams.
    pub fn report(&self) -> String {
        let code = self.code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
        format!("exit: {code}\n--- stdout\n{}--- stderr\n{}", self.out(), self.err())
    }
}

/// The program, alone in the world.
pub fn quickcmd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickcmd"));
    command.args(args).env_clear().env("COLUMNS", "100").env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub async fn run(mut command: Command) -> Ran {
    let done = tokio::time::timeout(LIMIT, command.output()).await.expect("it ends").expect("it starts");
    Ran { code: done.status.code(), stdout: done.stdout, stderr: done.stderr }
}
