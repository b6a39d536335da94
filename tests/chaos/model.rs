//! What may be true after a storm, and what may not: every accepted job has exactly one end, none was started twice,
//! states only move forward, output is whole by hash, nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    rng::Rng,
    tally::{MARK, Starts},
};

/// A job and all that is known of it beforehand.
#[derive(Debug, Clone)]
pub struct Plan {
    pub id: String,
    pub command: String,
    /// What it writes after the line that says that it runs, if it runs once and to its end.
    pub stdout: String,
    pub stderr: String,
    pub exit_code: i64,
    pub timeout_seconds: u64,
    /// It does not end by itself; somebody cancels it after so many milliseconds, or its time runs out.
    pub endless: bool,
    pub cancel_after: Option<u64>,
}

impl Plan {
    /// Some job. Its first line tells a second run from a first.
    pub fn some(id: String, rng: &mut Rng) -> Plan {
        let exit_code = i64::try_from(rng.range(0, 30)).expect("small");
        let begin = format!("id={id}; {MARK}");
        let mut plan = Plan {
            command: format!("{begin} echo word >&2; exit {exit_code}"),
            stdout: String::new(),
            stderr: "word\n".to_owned(),
            exit_code,
            timeout_seconds: 60,
            endless: false,
            cancel_after: None,
            id,
        };
        match rng.range(0, 12) {
            0..=5 => {}
            6..=7 => {
                let last = rng.range(100, 20_000);
                plan.command = format!("{begin} seq 1 {last}; seq 1 {last} >&2; exit {exit_code}");
                let numbers: String = (1..=last).map(|n| format!("{n}\n")).collect();
                plan.stdout.push_str(&numbers);
                plan.stderr = numbers;
            }
            8..=9 => {
                let lines = rng.range(3, 15);
                plan.command = format!(
                    "{begin} for i in $(seq 1 {lines}); do echo line $i; sleep 0.1; done; echo word >&2; exit {exit_code}"
                );
                plan.stdout.extend((1..=lines).map(|n| format!("line {n}\n")));
            }
            kind => {
                plan.command = format!("{begin} echo word >&2; exec sleep 600");
                plan.endless = true;
                plan.timeout_seconds = if kind == 10 { 2 } else { 6 };
                plan.cancel_after = (kind == 11).then(|| rng.range(0, 3000));
            }
        }
        plan
    }

    /// All that this run of it writes to its standard output.
    pub fn stdout_of(&self, run: &Run) -> String {
        format!("begin {} {} {}\n{}", self.id, run.number, run.container, self.stdout)
    }
}

/// One run of a job, as the job itself says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The kernel's, another one each time.
    pub number: String,
    /// Name of the container that it found itself in.
    pub container: String,
}

/// One thing that happened, as the client saw it.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Event {
    Accepted {
        id: String,
        duplicate: bool,
    },
    Refused {
        id: String,
        status: u16,
        code: String,
    },
    /// The answer to a submission was lost.
    Unanswered {
        id: String,
    },
    Seen {
        id: String,
        status: String,
        result: Value,
    },
    /// The agent says that it does not know the job.
    Unknown {
        id: String,
    },
    /// A stream's bytes to its final frame.
    Followed {
        id: String,
        stdout_sha256: String,
        stderr_sha256: String,
    },
    FollowFailed {
        id: String,
        error: String,
    },
    Fault {
        name: String,
    },
    /// Something that must not be, seen at once.
    Wrong {
        why: String,
    },
}

/// All that happened, in order.
#[derive(Debug, Clone)]
pub struct History {
    began: Instant,
    events: Arc<Mutex<Vec<(u64, Event)>>>,
}

impl History {
    pub fn new() -> History {
        History { began: Instant::now(), events: Arc::default() }
    }

    pub fn add(&self, event: Event) {
        let at = u64::try_from(self.began.elapsed().as_millis()).expect("a short test");
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push((at, event));
    }

    pub fn events(&self) -> Vec<(u64, Event)> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the agent's record has of a job at the end.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub state: String,
    /// Kinds of its audit entries, in order.
    pub entries: Vec<String>,
    /// Downloaded at the end, or why not.
    pub stdout: Result<Vec<u8>, String>,
    pub stderr: Result<Vec<u8>, String>,
}

/// The world after the storm.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub jobs: BTreeMap<String, Recorded>,
    /// By job: its runs, by its own counting.
    pub runs: BTreeMap<String, BTreeSet<Run>>,
    /// By Docker's.
    pub starts: Starts,
    /// Containers, folders, spools, descriptors: one sentence each.
    pub left: Vec<String>,
}

/// All that is wrong; empty if every promise was kept.
pub fn check(plans: &[Plan], events: &[Event], world: &World) -> Vec<String> {
    let mut wrong: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Wrong { why } => Some(why.clone()),
            _ => None,
        })
        .collect();
    let mut of_job: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let id = match event {
            Event::Accepted { id, .. }
            | Event::Refused { id, .. }
            | Event::Unanswered { id }
            | Event::Seen { id, .. }
            | Event::Unknown { id }
            | Event::Followed { id, .. }
            | Event::FollowFailed { id, .. } => id,
            Event::Fault { .. } | Event::Wrong { .. } => continue,
        };
        of_job.entry(id).or_default().push(event);
    }
    for plan in plans {
        let events = of_job.remove(plan.id.as_str()).unwrap_or_default();
        let recorded = world.jobs.get(&plan.id);
        let runs: Vec<&Run> = world.runs.get(&plan.id).into_iter().flatten().collect();
        let mut say = |why: String| wrong.push(format!("job {}: {why}", plan.id));
        if events.iter().any(|event| matches!(event, Event::Accepted { .. })) {
            match recorded {
                None => say("was accepted and is not in the record".to_owned()),
                Some(recorded) => one_end(plan, recorded, &runs, &mut say),
            }
        }
        if runs.len() > 1 {
            say(format!("ran {} times, by its own counter: {runs:?}", runs.len()));
        }
        moves_forward(&events, recorded, &mut say);
        ends_as_planned(plan, &events, recorded, &runs, &mut say);
    }
    containers(world, &mut wrong);
    wrong.extend(world.left.iter().cloned());
    wrong
}

/// Each container that a job was in was started, none twice, and nobody else was in it.
fn containers(world: &World, wrong: &mut Vec<String>) {
    let mut jobs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (id, runs) in &world.runs {
        for run in runs {
            jobs.entry(&run.container).or_default().push(id);
        }
    }
    let started: BTreeSet<&str> = world.starts.values().map(|(name, _)| &**name).collect();
    for (container, jobs) in jobs {
        if jobs.len() > 1 {
            wrong.push(format!("container {container}: more than one job ran in it: {jobs:?}"));
        }
        if !started.contains(container) {
            wrong.push(format!("container {container}: Docker knows of no start, and {jobs:?} ran in it"));
        }
    }
    for (name, starts) in world.starts.values().filter(|(_, starts)| *starts > 1) {
        wrong.push(format!("container {name}: Docker started it {starts} times"));
    }
}

fn one_end(plan: &Plan, recorded: &Recorded, runs: &[&Run], say: &mut impl FnMut(String)) {
    let count = |kind: &str| recorded.entries.iter().filter(|entry| *entry == kind).count();
    if count("job.accepted") != 1 || count("job.ended") != 1 {
        say(format!("has not exactly one end in the record: {:?}", recorded.entries));
    }
    if count("job.starting") > count("job.requeued") + 1 || count("job.running") > 1 {
        say(format!("was started twice, says the record: {:?}", recorded.entries));
    }
    if !["completed", "failed"].contains(&recorded.state.as_str()) {
        say(format!("is {} in the record after everything", recorded.state));
    }
    let stdout = match &recorded.stdout {
        Ok(stdout) => stdout,
        Err(why) => return say(format!("its output can't be read: {why}")),
    };
    let whole = runs.first().map_or_else(String::new, |run| plan.stdout_of(run));
    let begun = String::from_utf8_lossy(stdout).matches(&format!("begin {} ", plan.id)).count();
    if begun > 1 {
        say(format!("ran {begun} times, says its output"));
    } else if !whole.as_bytes().starts_with(stdout) {
        say("its output is not what it wrote".to_owned());
    }
}

fn moves_forward(events: &[&Event], recorded: Option<&Recorded>, say: &mut impl FnMut(String)) {
    let rank = |status: &str| match status {
        "pending" => 0,
        "running" => 1,
        _ => 2,
    };
    // A start that surely was none goes back into the queue, and says so in the record.
    let requeued =
        recorded.is_some_and(|recorded| recorded.entries.iter().any(|entry| entry == "job.requeued"));
    let (mut accepted, mut last): (bool, Option<(&str, &Value)>) = (false, None);
    for event in events {
        match event {
            Event::Accepted { .. } => accepted = true,
            Event::Unknown { .. } if accepted => say("was accepted and is not known any more".to_owned()),
            Event::Seen { status, result, .. } => {
                if let Some((before, earlier)) = last {
                    if rank(status) < rank(before) && !(requeued && before == "running") {
                        say(format!("went back from {before} to {status}"));
                    }
                    if rank(before) == 2 && earlier != result {
                        say(format!("had another end before: {earlier} and {result}"));
                    }
                }
                last = Some((status, result));
            }
            _ => {}
        }
    }
    match last {
        Some((status, _)) if accepted && rank(status) < 2 => say(format!("has no end, it is still {status}")),
        None if accepted => say("has no end, it was never seen".to_owned()),
        _ => {}
    }
}

fn ends_as_planned(
    plan: &Plan,
    events: &[&Event],
    recorded: Option<&Recorded>,
    runs: &[&Run],
    say: &mut impl FnMut(String),
) {
    let end = events.iter().rev().find_map(|event| match event {
        Event::Seen { result, .. } if result.is_object() => Some(result),
        _ => None,
    });
    for event in events {
        match event {
            Event::Refused { status, code, .. } => say(format!("was refused for no reason: {status} {code}")),
            Event::FollowFailed { error, .. } => say(format!("could not be followed: {error}")),
            _ => {}
        }
    }
    let Some(end) = end else { return };
    let reported =
        [&end["stdout_sha256"], &end["stderr_sha256"]].map(|hash| hash.as_str().unwrap_or_default());
    let reason = end["reason"].as_str().unwrap_or_default();
    match reason {
        "exited" => {
            if plan.endless || end["exit_code"] != plan.exit_code {
                say(format!("exited with {}, not {}", end["exit_code"], plan.exit_code));
            }
            match runs.first() {
                None => say("exited, and never ran, by its own counter".to_owned()),
                Some(run) => {
                    if reported != [sha256(plan.stdout_of(run).as_bytes()), sha256(plan.stderr.as_bytes())] {
                        say("its output's hashes are not those of what it wrote".to_owned());
                    }
                }
            }
        }
        // An agent that stops, or somebody, or a crash at the wrong moment, or a Docker that does not answer.
        "cancelled" | "lost" | "sandbox_error" => {}
        "timeout" if plan.endless => {}
        other => say(format!("ended as {other}, which nothing in the storm explains: {end}")),
    }
    if let Some(Recorded { stdout: Ok(stdout), stderr: Ok(stderr), .. }) = recorded
        && reported != [sha256(stdout), sha256(stderr)]
    {
        say(format!("its output's hashes are not those of what is kept ({reason})"));
    }
    for event in events {
        if let Event::Followed { stdout_sha256, stderr_sha256, .. } = event
            && reported != [stdout_sha256.as_str(), stderr_sha256]
        {
            say(format!("a reader got other bytes than the result says ({reason})"));
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
