//! What the jobs of a storm have done, by nobody's word but their own and Docker's.
//!
//! The first thing that a job does is to append a line to its output: its id, a number that no second run of it would
//! have, and the container that it finds itself in. The tally reads the files that these lines go to while the storm
//! lasts, byte by byte and not through the agent: what it has once seen counts, whatever becomes of the file. Docker
//! writes down each start of a container. So neither knows what the agent's record says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{harness::Agent, model::Run};

/// A shell's words for the line; the rest of the command follows.
pub const MARK: &str = "read number < /proc/sys/kernel/random/uuid; \
    place=$(sed -n 's|.*/sandboxes/\\([^ ]*\\) /.quickcmd .*|\\1|p' /proc/self/mountinfo); \
    echo begin $id $number $place;";

/// Longest line of that kind.
const LINE: usize = 256;
/// How often the files are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// By job: each run of it that has said so.
pub type Runs = BTreeMap<String, BTreeSet<Run>>;

/// By a container's id: its name, and how often Docker has started it. A name is given again where the first that had it
/// surely never got its job.
pub type Starts = BTreeMap<String, (String, usize)>;

/// Reads along.
pub struct Tally {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Runs>>,
    docker: Child,
    starts: Arc<Mutex<Starts>>,
}

impl Tally {
    /// Begins, before the agent does.
    pub fn start(agent: &Agent) -> Tally {
        let folder = agent.dir.path().join("data/spool");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = std::thread::spawn(move || {
            let mut files = Files::default();
            while !stopped.load(Ordering::Relaxed) {
                files.read(&folder);
                std::thread::sleep(EVERY);
            }
            files.read(&folder);
            files.runs
        });
        let (docker, starts) = docker_starts(&agent.id);
        Tally { stop, reader: Some(reader), docker, starts }
    }

    /// All runs, and how often Docker has started each container. Waits until Docker has told of the containers that
    /// jobs were in, or for half a minute.
    pub fn end(mut self) -> (Runs, Starts) {
        self.stop.store(true, Ordering::Relaxed);
        let runs = self.reader.take().expect("ended once").join().expect("no panic");
        let starts = || self.starts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = |starts: &Starts| {
            let names: BTreeSet<&str> = starts.values().map(|(name, _)| &**name).collect();
            runs.values().flatten().all(|run| names.contains(&*run.container))
        };
        for _ in 0..300 {
            if all(&starts()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let starts = starts();
        (runs, starts)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.docker.kill();
        let _ = self.docker.wait();
    }
}

/// Docker's own news of this agent's containers.
fn docker_starts(agent_id: &str) -> (Child, Arc<Mutex<Starts>>) {
    let mut docker = Command::new("docker")
        .args(["events", "--filter", "type=container", "--filter", "event=start", "--filter"])
        .arg(format!("label=com.quickcmd.agent={agent_id}"))
        .args(["--format", "{{.Actor.ID}} {{.Actor.Attributes.name}}"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker is there");
    let lines = BufReader::new(docker.stdout.take().expect("piped")).lines();
    let starts: Arc<Mutex<Starts>> = Arc::default();
    let counts = Arc::clone(&starts);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let (id, name) = line.split_once(' ').expect("an id and a name");
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.entry(id.to_owned()).or_insert_with(|| (name.to_owned(), 0)).1 += 1;
        }
    });
    (docker, starts)
}

/// The files, and how far each was read.
#[derive(Default)]
pub struct Files {
    /// By path: the file's inode, and its bytes so far.
    read: BTreeMap<PathBuf, (u64, u64)>,
    pub runs: Runs,
}

impl Files {
    /// Reads what is new in them.
    pub fn read(&mut self, folder: &Path) {
        // Before the agent has made the folder there is none.
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            let (inode, length) = (meta.ino(), meta.len());
            let (known, mut from) = self.read.get(&path).copied().unwrap_or((inode, 0));
            if known != inode || length < from {
                // Another file, or a shorter one: what was in it stays in the tally.
                from = 0;
            }
            if length > from {
                from = self.read_on(&path, from).unwrap_or(from);
            }
            self.read.insert(path, (inode, from));
        }
    }

    /// Reads a file from there, and a bit before, where a line may have begun. How far it came.
    fn read_on(&mut self, path: &Path, from: u64) -> Option<u64> {
        let from = from.saturating_sub(LINE as u64);
        let mut file = File::open(path).ok()?;
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        for (id, run) in lines(&bytes) {
            self.runs.entry(id).or_default().insert(run);
        }
        Some(from + bytes.len() as u64)
    }
}

/// The lines of that kind in these bytes, between whatever else there is.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (String, Run)> {
    const BEGIN: &[u8] = b"begin ";
    let starts = bytes.windows(BEGIN.len()).enumerate().filter(|(_, window)| *window == BEGIN);
    starts.filter_map(|(at, _)| {
        let line = bytes[at..].iter().take(LINE).position(|byte| *byte == b'\n')?;
        let text = str::from_utf8(&bytes[at..at + line]).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        let [_, id, number, container] = words[..] else { return None };
        Some((id.to_owned(), Run { number: number.to_owned(), container: container.to_owned() }))
    })
}

#[test]
fn lines_are_found_between_other_bytes() {
    let found =
        |bytes: &[u8]| lines(bytes).map(|(id, run)| (id, run.number, run.container)).collect::<Vec<_>>();
    let run = |id: &str, number: &str| (id.to_owned(), number.to_owned(), "box".to_owned());
    let bytes = b"QCR1\0\xffbegin a-1 7 box\nbegin here\nmoreQCR1begin a-1 8 box\nbegin a-2 9 bo";
    assert_eq!(found(bytes), [run("a-1", "7"), run("a-1", "8")]);
    assert_eq!(found(b"begin"), []);
}

#[test]
fn what_was_seen_counts_whatever_becomes_of_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("1.spool");
    let mut files = Files::default();
    for (text, runs) in [
        ("begin a 1 b", 0),
        ("begin a 1 b\n", 1),
        // Begun anew, shorter.
        ("", 1),
        ("begin a 2 c\nmore", 2),
    ] {
        fs::write(&path, text).expect("written");
        files.read(folder.path());
        assert_eq!(files.runs.get("a").map_or(0, BTreeSet::len), runs, "{text:?}");
    }
    // Another file of the same name and length.
    fs::rename(&path, folder.path().join("old")).expect("moved");
    fs::write(&path, "begin a 3 c\nmore").expect("written");
    files.read(folder.path());
    assert_eq!(files.runs["a"].len(), 3);
}
