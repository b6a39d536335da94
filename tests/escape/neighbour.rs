//! A job of somebody who means no harm, beside every attempt of a row: it counts aloud until the test says that it is
//! enough. What it printed tells whether it was held up.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Agent, PATIENCE, Stream, text_of};

/// A line each tenth of a second, with the machine's time since it was started: no clock that anybody sets.
const COUNTS: &str = "n=0; while [ ! -e /tmp/enough ]; do read t x </proc/uptime; echo $n $t; n=$((n+1)); sleep 0.1; done; \
                      read t x </proc/uptime; echo enough $n $t";
/// The longest that may lie between two lines, which are a tenth of a second apart where nobody is in the way. Not less,
/// for the machine may be busy with more than these tests.
const PAUSE: Duration = Duration::from_secs(10);
/// The most that is granted above it, where the test itself stood still as long in the same time.
const GRANT: Duration = Duration::from_secs(20);

pub struct Neighbour {
    id: String,
    begun: Instant,
    reader: tokio::task::JoinHandle<Vec<Value>>,
    host: Pauses,
}

impl Neighbour {
    /// Begins; back when its first line has come.
    pub async fn new(agent: &Agent) -> Neighbour {
        let more = json!({"controller_id": "controller-2", "sandbox": {"timeout_seconds": 3600}});
        let id = agent.submit_with(COUNTS, more).await;
        let mut stream = agent.stream(&id, "").await;
        let mut frames = Vec::new();
        while !frames.last().is_some_and(|frame: &Value| frame["stream"] == "stdout") {
            frames.push(stream.next().await.unwrap_or_else(|| panic!("the neighbour ended: {frames:?}")));
        }
        let reader = tokio::spawn(read(stream, frames));
        Neighbour { id, begun: Instant::now(), reader, host: Pauses::new() }
    }

    /// Ends it, and sees whether all of it is there and came in its time.
    pub async fn ended(self, agent: &Agent) {
        let lasted = self.begun.elapsed();
        let allowed = PAUSE + self.host.longest().min(GRANT);
        self.enough(agent).await;
        let result = agent.ended(&self.id).await["result"].clone();
        assert_eq!((&result["reason"], &result["exit_code"]), (&json!("exited"), &json!(0)), "{result}");
        let frames = self.reader.await.expect("the neighbour's reader gets every frame");
        let text = text_of(&frames, "stdout");
        assert_eq!(
            result["stdout_sha256"],
            hex::encode(Sha256::digest(&text)),
            "read and recorded: {result}"
        );
        undisturbed(&text, lasted, allowed).unwrap_or_else(|what| panic!("the neighbour {what}:\n{text}"));
    }

    /// Says so inside its sandbox, as nobody but Docker can.
    async fn enough(&self, agent: &Agent) {
        let job = format!("label=com.quickcmd.job={}", self.id);
        let of = format!("label=com.quickcmd.agent={}", agent.id);
        let end = Instant::now() + PATIENCE;
        loop {
            // A job may run, and its first line have come, before Docker itself believes that its container does.
            let listed = docker(&["ps", "-q", "--no-trunc", "--filter", &job, "--filter", &of]);
            let said =
                listed.and_then(|container| docker(&["exec", container.trim(), "touch", "/tmp/enough"]));
            let Err(error) = said else { return };
            assert!(Instant::now() < end, "{error}\n{}", agent.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What a call of Docker prints, or what is wrong.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).output().expect("docker is there");
    if !output.status.success() {
        return Err(format!("{arguments:?}: {output:?}"));
    }
    Ok(String::from_utf8(output.stdout).expect("text"))
}

async fn read(mut stream: Stream, mut frames: Vec<Value>) -> Vec<Value> {
    frames.extend(stream.read_to_end().await);
    frames
}

/// Whether every line is there, none came later than `allowed` after the one before, and they span all that time.
fn undisturbed(text: &str, lasted: Duration, allowed: Duration) -> Result<(), String> {
    let mut times: Vec<Duration> = Vec::new();
    let mut last = false;
    for (number, line) in text.lines().enumerate() {
        let rest = line.strip_prefix("enough ").inspect(|_| last = true).unwrap_or(line);
        let time = rest.strip_prefix(&format!("{number} ")).ok_or_else(|| format!("lost line {number}"))?;
        let time = time.parse().map_err(|_| format!("garbled line {number}"))?;
        times.push(Duration::from_secs_f64(time));
    }
    if !last || !text.ends_with('\n') {
        return Err("lost its last line".to_owned());
    }
    let pauses = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
    let longest = pauses.max().unwrap_or_default();
    if longest > allowed {
        return Err(format!("was held up for {longest:?}, and {allowed:?} are allowed"));
    }
    let span = times.last().zip(times.first()).map(|(last, first)| last.saturating_sub(*first));
    // The file has hundredths of a second, and rounds them.
    if span.is_none_or(|span| span + Duration::from_millis(20) < lasted) {
        return Err(format!("went on for {span:?}, and the attempts for {lasted:?}"));
    }
    Ok(())
}

/// How long a thread of the test itself, which only sleeps, was held up: what the machine does to everybody.
struct Pauses {
    longest: Arc<AtomicU64>,
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pauses {
    fn new() -> Pauses {
        let (longest, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (most, stop) = (Arc::clone(&longest), Arc::clone(&enough));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(Duration::from_millis(100));
                let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                most.fetch_max(took, Ordering::Relaxed);
            }
        });
        Pauses { longest, enough, thread: Some(thread) }
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Ordering::Relaxed))
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The judge must be able to say no.
#[test]
fn a_neighbour_that_was_disturbed_is_found() {
    let (lasted, allowed) = (Duration::from_secs(2), PAUSE);
    let judged = |text: &str| undisturbed(text, lasted, allowed).err().unwrap_or_default();
    assert_eq!(judged("0 7.00\n1 8.10\n2 9.10\nenough 3 9.20\n"), "");
    assert_eq!(judged("0 7.00\n1 8.10\n3 9.10\nenough 4 9.20\n"), "lost line 2");
    assert_eq!(judged("0 7.00\n1 8.10\n2 9.10\n"), "lost its last line");
    assert_eq!(judged("0 7.00\n1 8.10\nenough 2 9."), "lost its last line");
    assert_eq!(judged("0 7.00\nsomething else\nenough 2 9.20\n"), "lost line 1");
    assert_eq!(judged(""), "lost its last line");
    assert!(judged("0 7.00\n1 17.50\nenough 2 17.60\n").contains("held up for 10.5s"));
    assert!(judged("0 7.00\nenough 1 8.00\n").contains("went on for Some(1s)"));
}
