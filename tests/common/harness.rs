//! Starts agents and speaks to them the way a controller does. Signs with its own few lines, so that a mistake in the
//! project's signing can't hide here.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

mod stream;

pub use stream::*;

/// The shared secret of every agent here.
pub const SECRET: &str = "4f2d9c1b7a6e5038d1c2b3a4958677685f4e3d2c1b0a99887766554433221100";
/// The controller that jobs come from unless a test says otherwise.
pub const CONTROLLER: &str = "controller-1";
/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A number that no other test of this run has.
pub fn unique() -> u64 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// The image that jobs run in.
///
/// # Panics
/// If it is not set: tests asked for Docker without Docker fail.
pub fn image() -> String {
    std::env::var("QUICKCMD_TEST_IMAGE")
        .expect("QUICKCMD_TEST_IMAGE is not set: run the tests by scripts/test.sh, which prepares Docker and an image")
}

/// Unix seconds.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the year 292277026596")
}

/// An agent under test.
pub struct Agent {
    pub dir: tempfile::TempDir,
    pub id: String,
    pub port: u16,
    pub http: reqwest::Client,
    /// More environment for the process, as of its next launch.
    pub env: Vec<(&'static str, String)>,
    child: Option<Child>,
    /// Where in the log its present life begins.
    log_from: usize,
}

/// What a test wants of its agent: YAML lines after the harness's own.
#[derive(Default, Clone)]
pub struct Setup {
    pub config: String,
    /// `read_access: job-id` unless told otherwise: most tests are not about reads.
    pub signed_reads: bool,
}

impl Agent {
    /// An agent with the defaults of these tests.
    pub async fn start() -> Agent {
        Agent::with("").await
    }

    /// An agent with more lines of configuration.
    pub async fn with(config: &str) -> Agent {
        Agent::setup(&Setup { config: config.to_owned(), signed_reads: false }).await
    }

    /// An agent as described.
    pub async fn setup(setup: &Setup) -> Agent {
        let mut agent = Agent::prepare(setup);
        agent.launch();
        agent.until_ready().await;
        agent
    }

    /// Folder, certificate and configuration, not yet started.
    pub fn prepare(setup: &Setup) -> Agent {
        let dir = tempfile::Builder::new().prefix("quickcmd-it-").tempdir().expect("a folder");
        let id = format!("it-{}-{}", std::process::id(), unique());
        let port = free_port();
        let cert = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .expect("a self-signed certificate");
        std::fs::write(dir.path().join("cert.pem"), cert.cert.pem()).expect("written");
        write_private(&dir.path().join("key.pem"), &cert.signing_key.serialize_pem());
        let image = image();
        let mut lines = format!(
            "listen: \"127.0.0.1\"\nport: {port}\nagent_id: \"{id}\"\ntls_cert_file: \"{0}/cert.pem\"\n\
             tls_key_file: \"{0}/key.pem\"\naudit_db_path: \"{0}/data/agent-audit.db\"\nrun_as_user: \"root\"\n\
             run_as_group: \"root\"\ndefault_image: \"{image}\"\npull_policy: \"never\"\n",
            dir.path().display()
        );
        let mut default = |key: &str, text: &str| {
            if !setup.config.lines().any(|line| line.starts_with(key)) {
                lines.push_str(text);
                lines.push('\n');
            }
        };
        default("hmac_secret:", &format!("hmac_secret: \"{SECRET}\""));
        default(
            "allowed_controllers:",
            &format!("allowed_controllers: [\"{CONTROLLER}\", \"controller-2\"]"),
        );
        default("allowed_images:", &format!("allowed_images: [\"{image}\"]"));
        default("pool:", "pool: {size: 0, max: 0}");
        default(
            "read_access:",
            if setup.signed_reads { "read_access: signed" } else { "read_access: job-id" },
        );
        default("rate_by_address:", "rate_by_address: {per_second: 0, burst: 1}");
        lines.push_str(&setup.config);
        write_private(&dir.path().join("agent.yaml"), &lines);

        let pem = std::fs::read(dir.path().join("cert.pem")).expect("written above");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
            .timeout(PATIENCE)
            .build()
            .expect("a client");
        Agent { dir, id, port, http, env: Vec::new(), child: None, log_from: 0 }
    }

    /// Starts the process. Its log goes to `agent.log` in its folder, after what is there.
    pub fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// The same, with more variables in its environment.
    pub fn launch_with(&mut self, environment: &[(&str, &str)]) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("agent.log"))
            .expect("a log file");
        self.log_from = usize::try_from(log.metadata().expect("a file").len()).expect("a small log");
        let child = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
            .arg("--config")
            .arg(self.dir.path().join("agent.yaml"))
            .envs(self.env.iter().map(|(name, value)| (*name, value)))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the agent's program starts");
        self.child = Some(child);
    }

    /// Waits for `/ready`.
    pub async fn until_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(answer) = self.http.get(self.url("/ready")).send().await
                && answer.status().is_success()
            {
                return;
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("the agent ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < end, "the agent is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// How it ended, if it did so by itself since it was launched.
    pub fn exited(&mut self) -> Option<std::process::ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("a child of ours")?;
        self.child = None;
        Some(status)
    }

    /// Waits until it has ended by itself; the signal that ended it, if one did.
    pub async fn died(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return status.signal();
            }
            assert!(Instant::now() < end, "the agent does not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// SIGTERM; waits for its end and gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        signal(child.id(), nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                return status.code();
            }
            if Instant::now() > end {
                child.kill().expect("it runs");
                panic!("the agent does not stop:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Kills it and starts it again on the same folder.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.launch();
        self.until_ready().await;
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("agent.log")).unwrap_or_default()
    }

    /// What it has logged since it was last launched.
    pub fn log_of_this_life(&self) -> String {
        let all = self.log();
        all.get(self.log_from..).unwrap_or(&all).to_owned()
    }

    /// The database.
    pub fn db(&self) -> rusqlite::Connection {
        rusqlite::Connection::open_with_flags(
            self.dir.path().join("data/agent-audit.db"),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .expect("the database is there")
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// POSTs a body to the submit endpoint.
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> (u16, Value) {
        self.post_to("/api/v1/jobs", body).await
    }

    /// POSTs a JSON body.
    pub async fn post_to(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let answer = self
            .http
            .post(self.url(path))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}\n{}", self.log()));
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {status} {text}")))
    }

    /// GETs JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.http.get(self.url(path)).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {status} {text}")))
    }

    /// Submits a shell command and returns its job id.
    pub async fn submit(&self, command: &str) -> String {
        self.submit_with(command, json!({})).await
    }

    /// Submits a shell command with more payload fields.
    pub async fn submit_with(&self, command: &str, more: Value) -> String {
        let payload = payload(command, more);
        let id = payload["job_id"].as_str().expect("an id").to_owned();
        let (status, answer) = self.post(sign(&payload.to_string())).await;
        assert_eq!((status, &answer["status"]), (202, &json!("pending")), "{answer}\n{}", self.log());
        id
    }

    /// Waits for the end of a job; gives the whole status answer.
    pub async fn ended(&self, id: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.get(&format!("/api/v1/jobs/{id}")).await;
            assert_eq!(status, 200, "{answer}");
            if matches!(answer["status"].as_str(), Some("completed" | "failed" | "rejected")) {
                return answer;
            }
            assert!(Instant::now() < end, "job {id} does not end: {answer}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a job has that status.
    pub async fn until_status(&self, id: &str, wanted: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, answer) = self.get(&format!("/api/v1/jobs/{id}")).await;
            if answer["status"] == wanted {
                return answer;
            }
            assert!(Instant::now() < end, "job {id} is never {wanted}: {answer}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Submits, waits, and gives the result.
    pub async fn run(&self, command: &str) -> Value {
        self.run_with(command, json!({})).await
    }

    /// Submits with more payload fields, waits, and gives the result.
    pub async fn run_with(&self, command: &str, more: Value) -> Value {
        let id = self.submit_with(command, more).await;
        self.ended(&id).await["result"].clone()
    }

    /// Opens a stream; `query` with its `?`.
    pub async fn stream(&self, id: &str, query: &str) -> Stream {
        self.try_stream(id, query, &[])
            .await
            .unwrap_or_else(|error| panic!("no stream: {error}\n{}", self.log()))
    }

    /// Opens a stream with more headers.
    pub async fn try_stream(
        &self,
        id: &str,
        query: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Stream, tokio_tungstenite::tungstenite::Error> {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
        let pem = std::fs::read(self.dir.path().join("cert.pem")).expect("a certificate");
        let tls = tls(&pem, tcp).await;
        let mut request = format!("wss://127.0.0.1:{}/api/v1/stream/{id}{query}", self.port)
            .into_client_request()
            .expect("a URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let (socket, _) = tokio_tungstenite::client_async(request, tls).await?;
        Ok(Stream { socket })
    }

    /// Ids of this agent's containers, in any state.
    pub fn containers(&self) -> Vec<String> {
        let output = Command::new("docker")
            .args(["ps", "-aq", "--no-trunc", "--filter"])
            .arg(format!("label=com.quickcmd.agent={}", self.id))
            .output()
            .expect("docker is there");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Removes them; whether there were any.
    fn remove_containers(&self) -> bool {
        let containers = self.containers();
        for id in &containers {
            let _ = Command::new("docker").args(["rm", "-fv", id]).output();
        }
        !containers.is_empty()
    }

    /// Waits until no container of this agent is left.
    pub async fn no_container_left(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.containers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "containers are left: {left:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until no sandbox's folder is left; what is, if that takes too long.
    pub async fn no_folder_left(&self) -> Option<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let entries = std::fs::read_dir(self.dir.path().join("data/sandboxes")).expect("a folder");
            let folders: Vec<_> = entries
                .flatten()
                .filter(|entry| entry.path().is_dir())
                .map(|entry| entry.file_name())
                .collect();
            if folders.is_empty() {
                return None;
            }
            if Instant::now() > end {
                return Some(format!("folders are left: {folders:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// One sample of the metrics by its whole name with labels; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let text =
            self.http.get(self.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
        text.lines()
            .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')))
            .map_or(0.0, |value| value.parse().expect("a number"))
    }
}

impl Drop for Agent {
    /// Ends the process and whatever containers a failed test left.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            // Docker lists a container that was being created when its agent died a moment later, and one after the other:
            // so until two looks in a row have found none.
            let mut none = 0;
            for _ in 0..50 {
                none = if self.remove_containers() { 0 } else { none + 1 };
                if none == 2 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        self.remove_containers();
        if std::thread::panicking() {
            eprintln!("the agent's log:\n{}", self.log());
        }
    }
}

/// A payload in the seed's form, valid for five minutes, with a fresh job id.
pub fn payload(command: &str, more: Value) -> Value {
    let mut payload = json!({
        "job_id": format!("job-{}-{}", std::process::id(), unique()),
        "prompt": "a test",
        "command": command,
        "candidate_metadata": null,
        "plugin_metadata": null,
        "required_scopes": null,
        "snapshot_metadata": "",
        "ttl": now() + 300,
        "timestamp": now(),
        "controller_id": CONTROLLER,
    });
    for (key, value) in more.as_object().expect("an object") {
        payload[key] = value.clone();
    }
    payload
}

/// HMAC-SHA256 in hex.
pub fn mac(secret: &str, bytes: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(bytes);
    hex::encode(mac.finalize().into_bytes())
}

/// The body of a request: the payload's text as it is, signed with the shared secret.
pub fn sign(payload: &str) -> String {
    sign_with(payload, SECRET)
}

/// The same with another secret.
pub fn sign_with(payload: &str, secret: &str) -> String {
    format!(
        r#"{{"payload":{payload},"signature":{{"signature":"{}","algorithm":"HMAC-SHA256"}}}}"#,
        mac(secret, payload.as_bytes())
    )
}

/// A signed cancel.
pub fn cancel(job_id: &str, controller: &str) -> String {
    sign(
        &json!({"action": "cancel", "job_id": job_id, "timestamp": now(), "ttl": now() + 60,
                "controller_id": controller, "reason": "a test"})
        .to_string(),
    )
}

/// A port that is free now, below those that the kernel gives to connections: one that an agent has just left, to
/// be started again, is taken by nobody meanwhile.
pub fn free_port() -> u16 {
    loop {
        let mix = u64::from(std::process::id()).wrapping_mul(7919).wrapping_add(unique().wrapping_mul(31));
        let port = 10_000 + u16::try_from(mix % 20_000).expect("below 20,000");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// Waits until it holds.
pub async fn until(what: &str, patience: Duration, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends a signal to a process of this test.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("the process is there");
}

async fn tls(
    pem: &[u8],
    tcp: tokio::net::TcpStream,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem).expect("a certificate")).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config))
        .connect(ServerName::try_from("127.0.0.1").expect("an address"), tcp)
        .await
        .expect("a TLS connection")
}
