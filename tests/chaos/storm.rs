//! Controllers work while one fault after the other befalls the agent; then everything is held against the model.
//! `make chaos` runs it for as long as asked, `make test` for a short while.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clients::Caller,
    faults::Storm,
    harness::{Agent, Setup},
    model::{Event, History, Recorded, World, check},
    proxy::Proxy,
    rng::Rng,
    tally::Tally,
};

/// Seconds of the storm where `QUICKCMD_CHAOS_DURATION` says nothing.
const SHORT: u64 = 25;
/// Controllers.
const CONTROLLERS: usize = 3;
/// Every job has an end so long after the storm, on a busy machine.
const CALM: Duration = Duration::from_secs(120);
/// Descriptors that the agent may have open when nobody does anything.
const DESCRIPTORS: usize = 128;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    variable(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_breaks_no_promise() {
    // `make test` tries the same faults each time; scripts/chaos.sh gives another seed.
    let seed = number("QUICKCMD_CHAOS_SEED").unwrap_or(1);
    let duration = Duration::from_secs(number("QUICKCMD_CHAOS_DURATION").unwrap_or(SHORT));
    let planted = variable("QUICKCMD_CHAOS_PLANTED");
    println!(
        "chaos: SEED={seed} DURATION={} PLANTED={}",
        duration.as_secs(),
        planted.as_deref().unwrap_or_default()
    );
    let mut rng = Rng::new(seed);

    // Docker is reached through a socket that can go bad; its path must be known before the folder is.
    let docker = tempfile::Builder::new().prefix("quickcmd-chaos-").tempdir().expect("a folder");
    let socket = docker.path().join("docker.sock");
    let proxy = Proxy::start(&socket, rng.fork());
    let config = format!(
        "docker_host: \"unix://{}\"\nmax_concurrent_jobs: 8\nmax_queue_depth: 30\npool: {{size: 1, max: 2}}\n\
         drain_timeout: 2s\ngrace: 1s\nfreshness: {{max_age: 3600s}}\n",
        socket.display()
    );
    let agent = Agent::prepare(&Setup { config, signed_reads: false });
    let tally = Tally::start(&agent);
    let history = History::new();
    let caller = Caller::new(&agent, history.clone());
    let mut storm = Storm {
        agent,
        proxy,
        rng: rng.fork(),
        history: history.clone(),
        planted,
        // A short one has to be rough; a long one leaves time to jobs, too.
        between: if duration.as_secs() > 120 { (500, 4500) } else { (100, 1000) },
        counts: BTreeMap::new(),
    };

    let stop = CancellationToken::new();
    let jobs = TaskTracker::new();
    for name in 0..CONTROLLERS {
        jobs.spawn(caller.clone().submit_many(name, rng.fork(), stop.clone(), jobs.clone()));
    }
    storm.rage(Instant::now() + duration).await;
    stop.cancel();
    jobs.close();

    // Calm: whatever was accepted comes to its end.
    let end = Instant::now() + CALM;
    while tokio::time::timeout(Duration::from_millis(100), jobs.wait()).await.is_err() {
        storm.alive();
        if Instant::now() > end {
            caller.give_up.cancel();
            jobs.wait().await;
        }
    }
    let mut world = look(&mut storm, &caller).await;
    (world.runs, world.starts) = tokio::task::block_in_place(|| tally.end());
    let plans = caller.plans();
    let events: Vec<Event> = history.events().into_iter().map(|(_, event)| event).collect();
    let wrong = check(&plans, &events, &world);
    println!("chaos: {}", summary(&events, &world, &storm.counts));
    if wrong.is_empty() {
        return;
    }
    let kept = keep(seed, &history, &storm.agent);
    for line in wrong.iter().take(20) {
        println!("chaos: VIOLATION: {line}");
    }
    panic!(
        "{} violations; SEED={seed} repeats the faults; history and log are in {}",
        wrong.len(),
        kept.display()
    );
}

/// Stops the agent, looks at all that is there, and lets a last life of it, without a pool, clean up.
async fn look(storm: &mut Storm, caller: &Caller) -> World {
    let mut world = World::default();
    storm.agent.until_ready().await;
    let open = fs::read_dir(format!("/proc/{}/fd", storm.agent.pid())).expect("a process").count();
    if open > DESCRIPTORS {
        world.left.push(format!("the idle agent has {open} descriptors open"));
    }
    for plan in caller.plans() {
        let recorded = Recorded {
            stdout: caller.output(&plan.id, "stdout").await,
            stderr: caller.output(&plan.id, "stderr").await,
            state: String::new(),
            entries: Vec::new(),
        };
        world.jobs.insert(plan.id, recorded);
    }
    let code = tokio::task::block_in_place(|| storm.agent.terminate());
    if code != Some(0) {
        world.left.push(format!("the idle agent stopped with {code:?}"));
    }
    let file = storm.agent.dir.path().join("agent.yaml");
    let config = fs::read_to_string(&file).expect("a configuration");
    crate::harness::write_private(
        &file,
        &config.replace("pool: {size: 1, max: 2}", "pool: {size: 0, max: 0}"),
    );
    storm.agent.env.clear();
    storm.agent.launch();
    storm.agent.until_ready().await;
    storm.agent.no_container_left().await;
    world.left.extend(storm.agent.no_folder_left().await);
    read_record(&storm.agent, &mut world);
    let log = storm.agent.log();
    let told = log.lines().filter(|line| line.contains("panicked") || line.contains("is damaged"));
    world.left.extend(told.map(|line| format!("the agent's log: {line}")));
    world
}

/// Adds what the database has of each job; takes out those it does not have.
fn read_record(agent: &Agent, world: &mut World) {
    let db = agent.db();
    let mut query =
        db.prepare("SELECT row, job_id, state FROM jobs WHERE state <> 'rejected'").expect("a table");
    let rows: Vec<(i64, String, String)> = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .and_then(Iterator::collect)
        .expect("rows");
    let mut entries = db.prepare("SELECT kind FROM audit WHERE job = ? ORDER BY number").expect("a table");
    let mut known = BTreeMap::new();
    for (row, id, state) in rows {
        let Some(mut recorded) = world.jobs.remove(&id) else {
            world.left.push(format!("job {id} is in the record, and nobody submitted it"));
            continue;
        };
        recorded.state = state;
        recorded.entries =
            entries.query_map([row], |entry| entry.get(0)).and_then(Iterator::collect).expect("entries");
        if known.insert(id.clone(), recorded).is_some() {
            world.left.push(format!("job {id} is in the record twice"));
        }
    }
    world.jobs = known;
}

fn summary(events: &[Event], world: &World, faults: &BTreeMap<&'static str, u32>) -> String {
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut ends: BTreeMap<&str, String> = BTreeMap::new();
    let (mut unanswered, mut duplicates, mut followed) = (0, 0, 0);
    for event in events {
        match event {
            Event::Seen { id, result, .. } if result.is_object() => {
                let error = result["error"].as_str().unwrap_or_default();
                let reason = result["reason"].as_str().unwrap_or_default().to_owned();
                let shown = if reason == "sandbox_error" { format!("{reason} ({error})") } else { reason };
                ends.insert(id, shown);
            }
            Event::Unanswered { .. } => unanswered += 1,
            Event::Accepted { duplicate: true, .. } => duplicates += 1,
            Event::Followed { .. } => followed += 1,
            _ => {}
        }
    }
    for reason in ends.into_values() {
        *reasons.entry(reason).or_default() += 1;
    }
    format!(
        "{} jobs, {} of them ran, in containers that Docker started {} times, {} faults {faults:?}, ends {reasons:?}, {unanswered} answers lost, {duplicates} repeated \
         submissions known, {followed} streams followed",
        world.jobs.len(),
        world.runs.len(),
        world.starts.values().map(|(_, starts)| starts).sum::<usize>(),
        faults.values().sum::<u32>()
    )
}

/// Keeps what is needed to understand it.
fn keep(seed: u64, history: &History, agent: &Agent) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    fs::create_dir_all(&folder).expect("a folder");
    let lines: String = history
        .events()
        .iter()
        .map(|(at, event)| format!("{at:>8} {}\n", serde_json::to_string(event).expect("JSON")))
        .collect();
    fs::write(folder.join("history"), lines).expect("written");
    fs::write(folder.join("agent.log"), agent.log()).expect("written");
    folder
}
