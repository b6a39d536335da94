//! An engine of its own for each test, and one job run on it.

use std::{
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use quickcmd::{
    config::{Limits, PoolConfig, PullPolicy, SandboxConfig},
    sandbox::{Docker, Engine, Evidence, Job, Label, Observer, Sandbox, Shape, Uncounted},
    wire::payload::Network,
};
use quickcmd_init::{
    proto::{Ending, Report},
    spool::{HEADER, Header, Kind},
};
use tokio_util::sync::CancellationToken;

/// How long anything may take that happens at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The image that jobs run in.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        if let Ok(image) = std::env::var("QUICKCMD_TEST_IMAGE") {
            return image;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/sandbox-image.sh");
        let said = Command::new(script).output().expect("scripts/sandbox-image.sh runs");
        assert!(
            said.status.success(),
            "these tests need Docker and an image: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    })
}

/// The docker client, for what the engine itself does not tell.
pub fn docker(arguments: &[&str]) -> String {
    let said = Command::new("docker").args(arguments).output().expect("the docker client is installed");
    assert!(said.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

pub struct Bench {
    pub engine: Arc<Docker>,
    pub shape: Shape,
    pub dir: tempfile::TempDir,
    stop: CancellationToken,
    upkeep: Option<tokio::task::JoinHandle<()>>,
}

/// How one job ended.
#[derive(Debug)]
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    /// `None`: the supervisor ended without one.
    pub report: Option<Report>,
    pub evidence: Evidence,
}

impl Run {
    pub fn ending(&self) -> &Ending {
        &self.report.as_ref().expect("the supervisor reported").ending
    }
}

pub fn config() -> SandboxConfig {
    SandboxConfig {
        agent_id: "test".to_owned(),
        docker_host: "unix:///var/run/docker.sock".to_owned(),
        pull_policy: PullPolicy::Never,
        pull_stall: Duration::from_secs(5),
        uid: 65_534,
        gid: 65_534,
        workdir: "/work".to_owned(),
        runtimes: Vec::new(),
        nofile: 1024,
        fsize: 32 << 20,
        shm: 8 << 20,
        pool: PoolConfig { size: 0, max: 0, max_memory: 0, max_age: Duration::from_secs(600) },
    }
}

impl Bench {
    pub async fn new() -> Bench {
        Bench::watched(config(), Arc::new(Uncounted)).await
    }

    pub async fn watched(config: SandboxConfig, observer: Arc<dyn Observer>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        // As the installed data folder is.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let engine = Docker::new(&config, dir.path(), observer).unwrap();
        let stop = CancellationToken::new();
        let upkeep = Some(tokio::spawn(engine.clone().upkeep(stop.clone())));
        let image = engine.resolve(image()).await.expect("the test image is there");
        let limits = Limits { cpu: 1.0, memory: 64 << 20, pids: 64, timeout_seconds: 60, tmpfs: 8 << 20 };
        let shape = Shape { image, limits, network: Network::None, class: "c".to_owned(), reuse: 1 };
        Bench { engine, shape, dir, stop, upkeep }
    }

    /// A label that no other test has.
    pub fn label(&self) -> Label {
        static ROW: AtomicI64 = AtomicI64::new(1);
        let row = ROW.fetch_add(1, Ordering::Relaxed);
        Label { row, job_id: format!("job-{row}"), payload_sha256: "00".repeat(32), attempt: 1 }
    }

    pub async fn launch(&self) -> Box<dyn Sandbox> {
        self.engine.launch(self.shape.clone(), self.label()).await.expect("a sandbox starts")
    }

    /// A job that runs this text in a shell.
    pub fn job(&self, command: &str) -> Job {
        Job {
            argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
            env: self.shape.image.env.clone(),
            workdir: "/work".to_owned(),
            stdin_len: 0,
            timeout_ms: 60_000,
            grace_ms: 1000,
            output_limit: 1 << 20,
            end_at_output_limit: false,
            secrets: Vec::new(),
            redact: false,
            first_seq: 1,
            fsize: None,
            files: Vec::new(),
            artifacts: None,
            again: false,
        }
    }

    /// A new spool: to hand over, and to read.
    pub fn spool(&self) -> (OwnedFd, File) {
        let path = self.dir.path().join(format!("spool-{}", quickcmd::base::ids::random_hex(8)));
        let spool = OpenOptions::new().create_new(true).append(true).read(true).open(&path).unwrap();
        (spool.into(), File::open(&path).unwrap())
    }

    /// Runs a text in a shell, to its end, in a sandbox of its own.
    pub async fn run(&self, command: &str) -> Run {
        self.run_job(self.job(command)).await
    }

    pub async fn run_job(&self, job: Job) -> Run {
        let mut sandbox = self.launch().await;
        let (spool, read) = self.spool();
        sandbox.hand_over(job, Vec::new(), spool).await.expect("the supervisor takes the job");
        let run = finish(&*sandbox, read).await;
        self.gone(sandbox).await;
        run
    }

    /// Discards a sandbox and waits until container and folder are gone.
    pub async fn gone(&self, sandbox: Box<dyn Sandbox>) {
        let id = sandbox.id().to_owned();
        sandbox.discard();
        until("the container is gone", async || {
            self.engine.list().await.unwrap().iter().all(|found| found.container_id != id)
                && !self.engine.is_mine(&id)
        })
        .await;
    }

    /// Folders of sandboxes that are left.
    pub fn folders(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path().join("sandboxes")).unwrap();
        entries.flatten().filter(|entry| entry.file_type().unwrap().is_dir()).count()
    }

    /// Ends the engine's tasks, and waits for its removals.
    pub async fn close(mut self) {
        self.stop.cancel();
        self.upkeep.take().unwrap().await.unwrap();
        // A slow daemon may not be through when the engine has waited as long as it does; the removals go on.
        until("no container and no folder is left", async || {
            self.engine.list().await.is_ok_and(|left| left.is_empty()) && self.folders() == 0
        })
        .await;
    }
}

/// Waits for a container's end and reads its spool.
pub async fn finish(sandbox: &dyn Sandbox, spool: File) -> Run {
    let evidence = tokio::time::timeout(2 * PATIENCE, sandbox.ended()).await.expect("the container ends");
    let (stdout, stderr, report) = read(spool);
    Run { stdout, stderr, report, evidence }
}

pub fn read(mut spool: File) -> (String, String, Option<Report>) {
    use std::io::Read;
    let mut bytes = Vec::new();
    spool.read_to_end(&mut bytes).unwrap();
    let (mut stdout, mut stderr, mut report) = (Vec::new(), Vec::new(), None);
    let mut rest = &bytes[..];
    while let Some((head, after)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::decode(head).expect("a record");
        let Some((body, after)) = after.split_at_checked(header.len as usize) else { break };
        match header.kind {
            Kind::Stdout => stdout.extend_from_slice(body),
            Kind::Stderr => stderr.extend_from_slice(body),
            Kind::Report => report = Some(serde_json::from_slice(body).unwrap()),
            Kind::System | Kind::Started | Kind::Artifact => {}
        }
        rest = after;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(stdout), text(stderr), report)
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the spool holds this text.
pub async fn until_said(spool: &File, text: &str) {
    use std::os::unix::fs::FileExt;
    until(text, async || {
        let mut bytes = vec![0; 1 << 16];
        let len = spool.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..len]).contains(text)
    })
    .await;
}
