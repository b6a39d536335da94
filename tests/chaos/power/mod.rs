//! The power goes: what was never synced is gone, and no job that was accepted may be. An agent works with a recorder
//! loaded into it (`record.c`); then its data folder is made anew as a power cut would have left it, at hundreds of
//! moments and in several ways (`disk`), and looked at; and an agent is started on some of these.

mod disk;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use quickcmd::store::{Store, verify_all};
use quickcmd_init::spool::{HEADER, Header, Kind};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use crate::{
    harness::{Agent, PATIENCE, Setup, payload, sign, until, write_private},
    model::Plan,
    rng::Rng,
    tally::Files,
};
use disk::{Disk, Left, Line, What};

/// Jobs that are sent at a time.
const SENDERS: usize = 8;
/// Jobs of each sender.
const JOBS: usize = 12;
/// So many ends are seen before the cut.
const ENDS: usize = 16;
/// Some wait for their job, and are in nobody's record.
const POOL: &str = "pool: {size: 1, max: 4}";
/// Moments that are tried besides those at which a client has just been told something.
const MOMENTS: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seed() -> u64 {
    number("QUICKCMD_CHAOS_SEED").unwrap_or(1)
}

/// An agent whose changes are recorded, and who reads along.
struct Recorded {
    agent: Agent,
    record: PathBuf,
    /// All that the jobs have said, over all lives.
    files: Arc<Mutex<Files>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    ended: Arc<Mutex<BTreeSet<String>>>,
}

impl Recorded {
    fn prepare() -> Recorded {
        let config = format!("max_concurrent_jobs: 4\nmax_queue_depth: 500\n{POOL}\n");
        let mut agent = Agent::prepare(&Setup { config, signed_reads: false });
        let recorder = agent.dir.path().join("record.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/power/record.c");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
            .args([&recorder, &source])
            .args(["-ldl", "-lpthread"])
            .output()
            .expect("a C compiler, which the bundled SQLite needs, too");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let record = agent.dir.path().join("record");
        agent.env = vec![
            ("LD_PRELOAD", recorder.display().to_string()),
            ("QUICKCMD_RECORD", record.display().to_string()),
            ("QUICKCMD_RECORD_ROOT", agent.dir.path().display().to_string()),
        ];
        Recorded {
            agent,
            record,
            files: Arc::default(),
            stop: Arc::default(),
            reader: None,
            accepted: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Starts it, and notes in the record which jobs have been seen to run.
    async fn launch(&mut self) {
        let _ = fs::remove_file(&self.record);
        self.agent.launch();
        self.agent.until_ready().await;
        self.stop = Arc::default();
        let (files, stop, marks) = (Arc::clone(&self.files), Arc::clone(&self.stop), self.marks());
        let folder = self.agent.dir.path().join("data/spool");
        self.reader = Some(std::thread::spawn(move || {
            let mut noted: BTreeSet<String> = locked(&files).runs.keys().cloned().collect();
            while !stop.load(Ordering::Relaxed) {
                let mut files = locked(&files);
                files.read(&folder);
                for id in files.runs.keys() {
                    if noted.insert(id.clone()) {
                        marks.put(What::Begun, id);
                    }
                }
                drop(files);
                std::thread::sleep(Duration::from_millis(20));
            }
            locked(&files).read(&folder);
        }));
    }

    fn marks(&self) -> Marks {
        Marks { record: self.record.clone() }
    }

    /// The end of all processes at once: of the agent, and of what Docker runs for it.
    fn power_off(&mut self) {
        self.agent.kill();
        for container in self.agent.containers() {
            // One that was never started can't be killed.
            let _ = Command::new("docker").args(["kill", &container]).output().expect("docker is there");
        }
        self.stop.store(true, Ordering::Relaxed);
        self.reader.take().expect("it was launched").join().expect("no panic");
    }

    /// Many clients; each sends jobs one after the other, and asks for the ends of some.
    fn clients(&self, rng: &mut Rng, life: usize, senders: usize, jobs: usize) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for sender in 0..senders {
            let mut client = Client {
                http: self.agent.http.clone(),
                url: self.agent.url("/api/v1/jobs"),
                marks: self.marks(),
                accepted: Arc::clone(&self.accepted),
                ended: Arc::clone(&self.ended),
            };
            let mut rng = rng.fork();
            clients.spawn(async move {
                for job in 0..jobs {
                    let id = format!("power-{life}-{sender}-{job}");
                    let plan = Plan::some(id, &mut rng);
                    if client.submit(&plan).await.is_none() {
                        // The power is off.
                        return;
                    }
                    if job % 2 == 0 && client.follow(&plan.id).await.is_none() {
                        return;
                    }
                }
            });
        }
        clients
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Adds to the record what only a client knows.
#[derive(Clone)]
struct Marks {
    record: PathBuf,
}

impl Marks {
    fn put(&self, what: What, id: &str) {
        let mut record = File::options().append(true).open(&self.record).expect("the record");
        record.write_all(&Line::mark(what, id)).expect("written");
    }
}

struct Client {
    http: reqwest::Client,
    url: String,
    marks: Marks,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    ended: Arc<Mutex<BTreeSet<String>>>,
}

impl Client {
    /// `None`: there is no answer.
    async fn submit(&mut self, plan: &Plan) -> Option<()> {
        let more = json!({"job_id": plan.id, "prompt": "why ".repeat(500),
                          "sandbox": {"timeout_seconds": plan.timeout_seconds}});
        let body = sign(&payload(&plan.command, more).to_string());
        let request = self.http.post(&self.url).header("content-type", "application/json").body(body);
        let answer = request.send().await.ok()?;
        assert_eq!(answer.status().as_u16(), 202, "{}", answer.text().await.unwrap_or_default());
        self.marks.put(What::Accepted, &plan.id);
        locked(&self.accepted).insert(plan.id.clone());
        Some(())
    }

    async fn follow(&mut self, id: &str) -> Option<()> {
        loop {
            let answer = self.http.get(format!("{}/{id}", self.url)).send().await.ok()?;
            let answer: serde_json::Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
            if matches!(answer["status"].as_str(), Some("completed" | "failed")) {
                self.marks.put(What::Ended, id);
                locked(&self.ended).insert(id.to_owned());
                return Some(());
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was known outside at the moment of the cut.
#[derive(Default)]
struct Known {
    accepted: BTreeSet<String>,
    begun: BTreeSet<String>,
    ended: BTreeSet<String>,
}

impl Known {
    fn learn(&mut self, line: &Line) {
        let id = || line.path.display().to_string();
        match line.what {
            What::Accepted => self.accepted.insert(id()),
            What::Begun => self.begun.insert(id()),
            What::Ended => self.ended.insert(id()),
            _ => false,
        };
    }
}

/// Works, and is cut off: the record of it.
async fn one_life(seed: u64, planted: Option<String>, ends: usize) -> (Recorded, Vec<Line>) {
    let mut rng = Rng::new(seed);
    let mut recorded = Recorded::prepare();
    if let Some(defect) = planted {
        recorded.agent.env.push(("QUICKCMD_PLANTED", defect));
    }
    recorded.launch().await;
    let mut clients = recorded.clients(&mut rng, 0, SENDERS, JOBS);
    let ended = Arc::clone(&recorded.ended);
    until("jobs end", 5 * PATIENCE, async || locked(&ended).len() >= ends).await;
    tokio::task::block_in_place(|| recorded.power_off());
    while let Some(client) = clients.join_next().await {
        client.expect("a client without a complaint");
    }
    let bytes = fs::read(&recorded.record).expect("a record");
    (recorded, Line::all(&bytes))
}

/// Cuts at every moment at which a client had just been told something, and at `moments` others; what is wrong then.
async fn cut_everywhere(seed: u64, recorded: &Recorded, lines: &[Line], moments: u64) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let told = |line: &Line| matches!(line.what, What::Accepted | What::Begun | What::Ended);
    let mut cuts: Vec<(usize, Left)> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| told(line))
        .map(|(at, line)| (at, if line.what == What::Accepted { Left::Nothing } else { Left::Any }))
        .collect();
    for _ in 0..moments {
        let at = usize::try_from(rng.range(0, lines.len() as u64)).expect("an index");
        cuts.push((at, *rng.pick(&[Left::Nothing, Left::Everything, Left::First, Left::Any])));
    }
    cuts.sort_by_key(|(at, _)| *at);
    let count = |what| lines.iter().filter(|line| line.what == what).count();
    println!(
        "power: SEED={seed}, {} changes, {} syncs, {} jobs accepted, {} seen to run, {} ends told, {} cuts",
        lines.len(),
        count(What::SyncEnds),
        count(What::Accepted),
        count(What::Begun),
        count(What::Ended),
        cuts.len()
    );

    let mut disk = Disk::new(recorded.agent.dir.path(), "data-before");
    let mut known = Known::default();
    let mut wrong = Vec::new();
    let mut applied = 0;
    for (at, left) in cuts {
        for line in &lines[applied..=at] {
            disk.apply(line);
            known.learn(line);
        }
        applied = at + 1;
        let folder = memory();
        disk.cut(left, &mut rng, folder.path());
        for what in look(folder.path(), &known).await {
            wrong.push(format!("cut after change {at} of {}, {left:?} left: {what}", lines.len()));
        }
    }
    wrong
}

/// With everything left the folder is as it really is: no change went by the recorder.
fn nothing_missed(recorded: &Recorded, lines: &[Line]) {
    let root = recorded.agent.dir.path();
    let mut disk = Disk::new(root, "data-before");
    lines.iter().for_each(|line| disk.apply(line));
    let folder = memory();
    disk.cut(Left::Everything, &mut Rng::new(0), folder.path());
    for name in ["agent-audit.db", "agent-audit.db-wal"] {
        let file = Path::new("data").join(name);
        let read = |folder: &Path| fs::read(folder.join(&file)).expect("a file");
        assert!(
            read(folder.path()) == read(root),
            "{name} was changed in a way that the recorder does not see"
        );
    }
}

/// A folder that is quick to fill.
fn memory() -> tempfile::TempDir {
    let mut folder = tempfile::Builder::new();
    folder.prefix("quickcmd-power-");
    folder.tempdir_in("/dev/shm").or_else(|_| folder.tempdir()).expect("a folder")
}

/// What is wrong with the data folder after a cut.
async fn look(folder: &Path, known: &Known) -> Vec<String> {
    let database = folder.join("data/agent-audit.db");
    if !database.exists() {
        return known
            .accepted
            .iter()
            .map(|id| format!("job {id} was accepted, and there is no record"))
            .collect();
    }
    // As the agent does it at its start; then as `verify-db` does.
    match tokio::task::block_in_place(|| Store::open(&database)) {
        Ok(store) => store.close().await.expect("closed"),
        Err(error) => return vec![format!("the record can't be opened: {error}")],
    }
    let mut wrong = Vec::new();
    if let Err(error) = verify_all(&database) {
        wrong.push(format!("the record does not hold: {error}"));
    }
    let jobs = jobs(&database);
    let state = |id: &String| jobs.iter().find(|job| job.id == *id).map(|job| &*job.state);
    for id in &known.accepted {
        if state(id).is_none() {
            wrong.push(format!("job {id} was accepted and is not in the record"));
        }
    }
    for id in known.begun.iter().filter(|id| state(id) == Some("queued")) {
        wrong.push(format!("job {id} has run, and would be run again"));
    }
    for id in known.ended.iter().filter(|id| !matches!(state(id), Some("completed" | "failed"))) {
        wrong.push(format!("job {id} has been said to have ended, and is {:?}", state(id)));
    }
    for job in jobs.iter().filter(|job| job.bytes > 0) {
        let spool = folder.join(format!("data/spool/{}.spool", job.row));
        if hashes(&spool) != job.sha256 {
            wrong.push(format!(
                "job {} has ended, says the record, and its output is not on the disk",
                job.id
            ));
        }
    }
    wrong
}

struct Job {
    row: i64,
    id: String,
    state: String,
    /// Of both streams.
    bytes: i64,
    sha256: [Option<String>; 2],
}

fn jobs(database: &Path) -> Vec<Job> {
    let db = rusqlite::Connection::open(database).expect("a database");
    let mut query = db
        .prepare(
            "SELECT row, job_id, state, stdout_bytes + stderr_bytes, stdout_sha256, stderr_sha256 FROM jobs",
        )
        .expect("a table");
    let rows = query.query_map([], |row| {
        Ok(Job {
            row: row.get(0)?,
            id: row.get(1)?,
            state: row.get(2)?,
            bytes: row.get(3)?,
            sha256: [row.get(4)?, row.get(5)?],
        })
    });
    rows.and_then(Iterator::collect).expect("rows")
}

/// SHA-256 of both streams in a spool.
fn hashes(spool: &Path) -> [Option<String>; 2] {
    let bytes = fs::read(spool).unwrap_or_default();
    let mut rest = &bytes[..];
    let mut hashes = [Sha256::new(), Sha256::new()];
    while let Some((head, more)) = rest.split_first_chunk::<HEADER>()
        && let Some(header) = Header::decode(head)
        && let Some((body, more)) = more.split_at_checked(header.len as usize)
    {
        match header.kind {
            Kind::Stdout => hashes[0].update(body),
            Kind::Stderr => hashes[1].update(body),
            Kind::System | Kind::Started | Kind::Report | Kind::Artifact => {}
        }
        rest = more;
    }
    hashes.map(|hash| Some(hex::encode(hash.finalize())))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_vanishes() {
    let seed = seed();
    let planted = std::env::var("QUICKCMD_CHAOS_PLANTED").ok().filter(|defect| !defect.is_empty());
    let (recorded, lines) = one_life(seed, planted, ENDS).await;
    nothing_missed(&recorded, &lines);
    let moments = number("QUICKCMD_CHAOS_MOMENTS").unwrap_or(MOMENTS);
    let wrong = cut_everywhere(seed, &recorded, &lines, moments).await;
    assert!(
        wrong.is_empty(),
        "SEED={seed}: {} things are wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_synced_is_found() {
    let (recorded, lines) = one_life(1, Some("no-sync".to_owned()), 2).await;
    let wrong = cut_everywhere(1, &recorded, &lines, 0).await;
    assert!(wrong.iter().any(|what| what.contains("was accepted and")), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_is_not_synced_is_found() {
    let (recorded, lines) = one_life(1, Some("end-before-output".to_owned()), 2).await;
    let wrong = cut_everywhere(1, &recorded, &lines, 0).await;
    assert!(wrong.iter().all(|what| what.contains("its output is not on the disk")), "{wrong:?}");
    assert!(!wrong.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_where_the_power_went() {
    let seed = seed();
    let mut rng = Rng::new(seed);
    let mut recorded = Recorded::prepare();
    let folder = recorded.agent.dir.path().to_owned();
    for (life, left) in [Left::Nothing, Left::Any, Left::First].into_iter().enumerate() {
        let mut disk = Disk::new(&folder, "data");
        recorded.launch().await;
        let mut clients = recorded.clients(&mut rng, life, 4, 4);
        let begun = Arc::clone(&recorded.files);
        let prefix = format!("power-{life}-");
        until("a job runs", PATIENCE, async || locked(&begun).runs.keys().any(|id| id.starts_with(&prefix)))
            .await;
        tokio::time::sleep(rng.millis(0, 1500)).await;
        tokio::task::block_in_place(|| recorded.power_off());
        while let Some(client) = clients.join_next().await {
            client.expect("a client without a complaint");
        }
        let bytes = fs::read(&recorded.record).expect("a record");
        Line::all(&bytes).iter().for_each(|line| disk.apply(line));
        let cut = folder.join(format!("cut-{life}"));
        fs::create_dir(&cut).expect("a folder");
        disk.cut(left, &mut rng, &cut);
        fs::rename(folder.join("data"), folder.join(format!("data-{life}"))).expect("moved away");
        fs::rename(cut.join("data"), folder.join("data")).expect("moved there");
    }
    recorded.agent.env.clear();
    // In this last life no sandbox is to wait for a job.
    let file = folder.join("agent.yaml");
    let config = fs::read_to_string(&file).expect("a configuration");
    write_private(&file, &config.replace(POOL, "pool: {size: 0, max: 0}"));
    recorded.agent.launch();
    recorded.agent.until_ready().await;

    let accepted = locked(&recorded.accepted).clone();
    let agent = &recorded.agent;
    for id in &accepted {
        let end = agent.ended(id).await;
        assert_eq!(agent.get(&format!("/api/v1/jobs/{id}")).await.1, end, "an end does not change");
        for stream in ["stdout", "stderr"] {
            let url = agent.url(&format!("/api/v1/jobs/{id}/output?stream={stream}"));
            let bytes = agent.http.get(url).send().await.expect("an answer").bytes().await.expect("a body");
            let sha256 = &end["result"][format!("{stream}_sha256")];
            if end["reason"] == "exited" {
                assert_eq!(*sha256, hex::encode(Sha256::digest(&bytes)), "{stream} of {end}");
            }
        }
    }
    agent.no_container_left().await;
    assert_eq!(agent.no_folder_left().await, None);
    let database = folder.join("data/agent-audit.db");
    verify_all(&database).expect("the record holds");
    let mut files = locked(&recorded.files);
    files.read(&folder.join("data/spool"));
    for (id, runs) in &files.runs {
        assert_eq!(runs.len(), 1, "job {id} was run again");
    }
    println!("power: SEED={seed}, {} jobs over three power cuts, {} ran", accepted.len(), files.runs.len());
}
