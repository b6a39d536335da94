//! Agents under measurement: the real program, a folder, a certificate and a configuration each.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quickcmd::{
    base::clock::Timestamp,
    client::{Client, Settings, Trust},
    wire::{Payload, envelope, key::SigningKey, payload::SandboxRequest},
};

use crate::{
    Result,
    docker::{LABEL_AGENT, Peers},
    wire::Conn,
};

/// Who signs.
const CONTROLLER: &str = "bench";
/// How long anything may take before the benchmark gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A number that nothing else of this run has.
pub fn unique() -> u64 {
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// One agent's folder, and its process while it runs.
pub struct Agent {
    pub dir: PathBuf,
    pub id: String,
    pub port: u16,
    pub tls: Arc<rustls::ClientConfig>,
    program: PathBuf,
    key: SigningKey,
    child: Option<Child>,
}

/// A certificate and its key, in files.
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Identity {
    /// Makes a self-signed one in that folder, and what trusts it.
    pub fn make(dir: &Path) -> Result<Identity> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        fs::write(&cert, made.cert.pem())?;
        private(&key, &made.signing_key.serialize_pem())?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Ok(Identity { cert, key, tls: Arc::new(tls) })
    }
}

impl Agent {
    /// Folder and configuration, not yet started. `more`: YAML lines beside the fixed ones.
    pub fn prepare(root: &Path, program: &Path, image: &str, more: &str) -> Result<Agent> {
        let who =
            |secret: &str| format!("hmac_secret: \"{secret}\"\nallowed_controllers: [\"{CONTROLLER}\"]");
        Agent::prepare_for(root, program, image, &who, more)
    }

    /// The same for a controller that is trusted to use a sandbox so many times.
    pub fn prepare_trusted(
        root: &Path,
        program: &Path,
        image: &str,
        reuse: u32,
        more: &str,
    ) -> Result<Agent> {
        let who = |secret: &str| {
            let keys = format!("keys: [{{ secret: \"{secret}\" }}]");
            format!("controllers: [{{ id: \"{CONTROLLER}\", scopes: [\"*\"], reuse: {reuse}, {keys} }}]")
        };
        Agent::prepare_for(root, program, image, &who, more)
    }

    fn prepare_for(
        root: &Path,
        program: &Path,
        image: &str,
        who: &dyn Fn(&str) -> String,
        more: &str,
    ) -> Result<Agent> {
        let id = format!("bench-{}-{}", std::process::id(), unique());
        let dir = root.join(&id);
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        let identity = Identity::make(&dir)?;
        let secret = "6d2f4b8190ace357".repeat(4);
        let port = free_port()?;
        let place = dir.display();
        private(
            &dir.join("agent.yaml"),
            &format!(
                "listen: \"127.0.0.1\"\nport: {port}\nagent_id: \"{id}\"\n\
                 tls_cert_file: \"{place}/cert.pem\"\ntls_key_file: \"{place}/key.pem\"\n\
                 {}\n\
                 allowed_images: [\"{image}\"]\ndefault_image: \"{image}\"\npull_policy: \"never\"\n\
                 audit_db_path: \"{place}/data/agent-audit.db\"\nrun_as_user: \"root\"\nrun_as_group: \"root\"\n\
                 rate_by_controller: {{ per_second: 0, burst: 1 }}\nrate_by_address: {{ per_second: 0, burst: 1 }}\n\
                 log: {{ level: \"warn\" }}\n{more}\n",
                who(&secret)
            ),
        )?;
        let (tls, key) = (identity.tls, SigningKey::hmac(secret));
        Ok(Agent { dir, id, port, tls, program: program.to_owned(), key, child: None })
    }

    /// Prepared, started and ready.
    pub async fn start(root: &Path, program: &Path, image: &str, more: &str) -> Result<Agent> {
        let mut agent = Agent::prepare(root, program, image, more)?;
        agent.launch()?;
        agent.until_ready().await?;
        Ok(agent)
    }

    /// Starts the process.
    pub fn launch(&mut self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("agent.log"))?;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.dir.join("agent.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Asks `/ready` every millisecond until it says yes.
    pub async fn until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut conn: Option<Conn> = None;
        loop {
            if conn.is_none() {
                conn = Conn::open(self.port, &self.tls).await.ok();
            }
            if let Some(open) = &mut conn {
                match open.get("/ready").await {
                    Ok((200, _)) => return Ok(()),
                    Ok(_) => {}
                    Err(_) => conn = None,
                }
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(format!("the agent ended with {status}:\n{}", self.log()).into());
            }
            if Instant::now() > end {
                return Err(format!("the agent is not ready:\n{}", self.log()).into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// SIGTERM, and waits for the end: a clean stop, as systemd's.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = Command::new("kill").arg(child.id().to_string()).status()?;
        let end = Instant::now() + PATIENCE;
        while killed.success() && Instant::now() < end {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Resident memory in MiB.
    pub fn resident(&self) -> Result<f64> {
        let pid = self.child.as_ref().ok_or("the agent does not run")?.id();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// What it has logged: warnings and errors only.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    pub fn database(&self) -> PathBuf {
        self.dir.join("data/agent-audit.db")
    }

    /// The controller's library, as a program would use it.
    pub fn client(&self) -> Result<Client> {
        let url = format!("https://127.0.0.1:{}", self.port).parse()?;
        let mut settings = Settings::new(url, CONTROLLER);
        settings.key = Some(self.key.clone());
        settings.trust = Trust::File(self.dir.join("cert.pem"));
        settings.request_timeout = PATIENCE;
        Ok(Client::new(settings)?)
    }

    /// A job of that shell command; its id is new.
    pub fn job(&self, command: &str) -> Payload {
        let now = Timestamp::now().secs();
        Payload {
            job_id: format!("{}-{}", self.id, unique()),
            prompt: "measure".to_owned(),
            command: command.to_owned(),
            candidate_metadata: None,
            plugin_metadata: None,
            required_scopes: None,
            snapshot_metadata: String::new(),
            ttl: now + 3600,
            timestamp: now,
            controller_id: CONTROLLER.to_owned(),
            agent_id: None,
            argv: None,
            sandbox: None,
        }
    }

    /// The same with cores of its own.
    pub fn job_with_cores(&self, command: &str, cores: f64) -> Payload {
        let sandbox = Some(SandboxRequest { cpu_limit: Some(cores), ..SandboxRequest::default() });
        Payload { sandbox, ..self.job(command) }
    }

    /// The whole signed body of a submission.
    pub fn signed(&self, job: &Payload) -> Result<Vec<u8>> {
        Ok(envelope::sign(&serde_json::to_vec(job)?, &self.key))
    }

    /// One number of `/metrics`, by its whole name.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = Conn::open(self.port, &self.tls).await?.get("/metrics").await?;
        let text = String::from_utf8(body)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or_else(|| format!("no metric {name}"))?.parse()?)
    }

    /// Waits until at least so many sandboxes wait; an error if that does not come.
    pub async fn until_pool(&self, depth: f64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while self.metric("quickcmd_agent_pool_depth").await? < depth {
            if Instant::now() > end {
                return Err(format!("the pool does not fill to {depth}:\n{}", self.log()).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Kills it, for a stop would wait for the jobs that run, and removes its containers and its folder.
    pub async fn finish(mut self, peers: &Peers) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        peers.remove_all(LABEL_AGENT, &self.id).await?;
        fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(())
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
