//! The agent under attack, its neighbour job, and what must be as before.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    harness::{Agent, Setup, image, unique},
    neighbour::Neighbour,
    volumes::{Volumes, docker},
};

/// One attempt of a row.
pub struct Attempt {
    pub name: &'static str,
    /// Whether it takes more than two seconds on an idle machine.
    pub long: bool,
    pub run: Box<dyn Fn(Arc<Field>) -> BoxFuture<'static, ()> + Send + Sync>,
}

/// An attempt that is over soon.
pub fn quick<F>(name: &'static str, run: impl Fn(Arc<Field>) -> F + Send + Sync + 'static) -> Attempt
where
    F: Future<Output = ()> + Send + 'static,
{
    Attempt { name, long: false, run: Box::new(move |field| Box::pin(run(field))) }
}

/// One that is not.
pub fn long<F>(name: &'static str, run: impl Fn(Arc<Field>) -> F + Send + Sync + 'static) -> Attempt
where
    F: Future<Output = ()> + Send + 'static,
{
    Attempt { long: true, ..quick(name, run) }
}

/// Descriptors of the agent that may come and go: connections, the database's readers.
const SLACK: usize = 8;
/// Resident memory that the agent may ever have had, in KiB. A body of 4 MiB is the largest thing that it holds.
const SMALL: u64 = 96 * 1024;

/// An agent, and how it was before the first attempt.
pub struct Field {
    pub agent: Agent,
    /// An image that declares a volume at `/data`.
    pub with_volume: String,
    volumes: Volumes,
    descriptors: usize,
    pid: u32,
}

impl Field {
    pub async fn new() -> Field {
        let with_volume = image_with_volume();
        // One more at once than any attempt has: the neighbour is there all the time.
        let mut agent = Agent::prepare(&Setup {
            config: format!(
                "grace: 1s\nmax_concurrent_jobs: 5\nmax_body_bytes: 4 MiB\noutput: {{limit: 1 MiB}}\npolicy: {{deny: []}}\n\
                 default_timeout_seconds: 120\nartifacts: {{max_files: 20, max_file: 1 MiB, max_total: 4 MiB}}\n\
                 allowed_images: [\"{}\", \"{with_volume}\"]\n",
                image()
            ),
            signed_reads: false,
        });
        let volumes = Volumes::of(&agent.id);
        agent.launch();
        agent.until_ready().await;
        let warm = agent.run("echo warm").await;
        assert_eq!(warm["stdout"], "warm\n", "{warm}");
        agent.no_container_left().await;
        let (descriptors, pid) = (descriptors(agent.pid()), agent.pid());
        Field { agent, with_volume, volumes, descriptors, pid }
    }

    /// Runs a shell command; the result.
    pub async fn sh(&self, command: &str) -> Value {
        self.agent.run(command).await
    }

    /// The same with a member of `sandbox`.
    pub async fn sh_with(&self, command: &str, sandbox: Value) -> Value {
        self.agent.run_with(command, json!({ "sandbox": sandbox })).await
    }

    /// Runs a shell command that finds the hostile program at `/tmp/hostile`.
    pub async fn hostile(&self, command: &str, mut sandbox: Value) -> Value {
        sandbox["files"] = json!([
            {"path": "/tmp/hostile", "content": STANDARD.encode(program()), "encoding": "base64", "mode": "0755"}
        ]);
        self.sh_with(command, sandbox).await
    }

    /// The three checks after each row: the agent is well, the neighbour was not disturbed, nothing is left.
    pub async fn as_before(&self, neighbour: Neighbour) {
        neighbour.ended(&self.agent).await;

        let (status, health) = self.agent.get("/health").await;
        assert_eq!(
            (status, &health["status"], &health["ready"]),
            (200, &json!("healthy"), &json!(true)),
            "{health}"
        );
        assert_eq!(self.agent.pid(), self.pid);
        assert!(!self.agent.log().contains("panicked"), "{}", self.agent.log());
        let peak = peak(self.pid);
        assert!(peak < SMALL, "the agent's memory reached {peak} KiB");

        self.agent.no_container_left().await;
        let volumes = self.volumes.left().await;
        assert!(volumes.is_empty(), "volumes are left: {volumes:?}");
        assert_eq!(self.agent.no_folder_left().await, None);
        let end = Instant::now() + PATIENCE;
        loop {
            let (processes, open) = (self.processes(), descriptors(self.pid));
            if processes.is_empty() && open <= self.descriptors + SLACK {
                break;
            }
            assert!(
                Instant::now() < end,
                "left: processes {processes:?}, {open} descriptors of {}",
                self.descriptors
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let strange = self.strange_files();
        assert!(strange.is_empty(), "files that are not the agent's: {strange:?}");
    }

    /// Processes on this host with the environment of one of this agent's jobs.
    fn processes(&self) -> Vec<String> {
        let mine: BTreeSet<String> = self
            .agent
            .db()
            .prepare("SELECT job_id FROM jobs")
            .and_then(|mut jobs| jobs.query_map([], |row| row.get(0))?.collect())
            .expect("the record can be read");
        let entries = std::fs::read_dir("/proc").expect("/proc");
        let of_a_job = |path: &Path| {
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| {
                let id = variable.strip_prefix(b"QUICKCMD_JOB_ID=").unwrap_or_default();
                std::str::from_utf8(id).is_ok_and(|id| mine.contains(id))
            })
        };
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| of_a_job(path))
            .map(|p| p.display().to_string())
            .collect()
    }

    /// What lies in the agent's folder and is none of its own kinds.
    fn strange_files(&self) -> Vec<String> {
        let data = self.agent.dir.path().join("data");
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).expect("a folder of the agent's");
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mut strange: Vec<String> = names(&data);
        strange.retain(|name| {
            !name.starts_with("agent-audit.db") && !["spool", "sandboxes", "control"].contains(&&**name)
        });
        strange.extend(names(&data.join("spool")).into_iter().filter(|name| !name.ends_with(".spool")));
        strange.extend(names(&data.join("sandboxes")).into_iter().filter(|name| !name.starts_with(".init-")));
        strange
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["image", "rm", "--force", &self.with_volume]).output();
    }
}

/// The image of the tests, with a volume.
fn image_with_volume() -> String {
    let name = format!("quickcmd/test-volume:{}-{}", std::process::id(), unique());
    let container = docker(&["create", "--network", "none", &image(), "true"]);
    docker(&["commit", "--change=VOLUME /data", &container, &name]);
    docker(&["rm", &container]);
    name
}

const PATIENCE: Duration = Duration::from_secs(30);

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the agent runs").count()
}

/// The agent's resident memory at its highest, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// `hostile.c`, built once.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/hostile.c");
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("hostile");
        let built = Command::new("cc")
            .args(["-static", "-Os", "-s", "-pthread", "-o"])
            .arg(&program)
            .arg(&source)
            .output()
            .expect("a C compiler is there");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::read(program).expect("it was built")
    })
}

/// That a result is a plain end with exit code 0, and nothing that should not have worked.
pub fn denied(result: &Value) {
    let stdout = result["stdout"].as_str().unwrap_or_default();
    assert_eq!((&result["reason"], &result["exit_code"]), (&json!("exited"), &json!(0)), "{result}");
    assert!(!stdout.contains("DID") && !stdout.contains("REACHED"), "{stdout}");
    assert!(stdout.contains("tried"), "it was not tried: {result}");
}
