//! The checker itself: it is silent about a world in order, and names each thing that must not be.

use serde_json::{Value, json};

use crate::model::{Event, Plan, Recorded, Run, World, check, sha256};

const ID: &str = "storm-0-0";

fn plan() -> Plan {
    Plan {
        id: ID.to_owned(),
        command: String::new(),
        stdout: "more\n".to_owned(),
        stderr: "word\n".to_owned(),
        exit_code: 3,
        timeout_seconds: 60,
        endless: false,
        cancel_after: None,
    }
}

fn run(number: &str) -> Run {
    Run { number: number.to_owned(), container: "box".to_owned() }
}

/// All of its output.
fn stdout() -> String {
    plan().stdout_of(&run("1"))
}

fn result(reason: &str, stdout: &str, stderr: &str) -> Value {
    json!({"reason": reason, "exit_code": 3, "stdout_sha256": sha256(stdout.as_bytes()),
           "stderr_sha256": sha256(stderr.as_bytes())})
}

fn accepted() -> Event {
    Event::Accepted { id: ID.to_owned(), duplicate: false }
}

fn seen(status: &str, result: &Value) -> Event {
    Event::Seen { id: ID.to_owned(), status: status.to_owned(), result: result.clone() }
}

fn followed(stdout: &str, stderr: &str) -> Event {
    Event::Followed {
        id: ID.to_owned(),
        stdout_sha256: sha256(stdout.as_bytes()),
        stderr_sha256: sha256(stderr.as_bytes()),
    }
}

fn world(state: &str, entries: &[&str], stdout: &str, stderr: &str) -> World {
    let recorded = Recorded {
        state: state.to_owned(),
        entries: entries.iter().map(|entry| format!("job.{entry}")).collect(),
        stdout: Ok(stdout.into()),
        stderr: Ok(stderr.into()),
    };
    World {
        jobs: [(ID.to_owned(), recorded)].into(),
        runs: [(ID.to_owned(), [run("1")].into())].into(),
        starts: [("4f1e".to_owned(), ("box".to_owned(), 1))].into(),
        left: Vec::new(),
    }
}

const LIFE: &[&str] = &["accepted", "starting", "container", "running", "ended", "cleaned"];

/// A job that went well, its events and its world.
fn good() -> (Vec<Event>, World) {
    let plan = plan();
    let end = result("exited", &stdout(), &plan.stderr);
    let events = vec![
        Event::Unanswered { id: ID.to_owned() },
        accepted(),
        seen("pending", &Value::Null),
        seen("running", &Value::Null),
        seen("completed", &end),
        seen("completed", &end),
        followed(&stdout(), &plan.stderr),
    ];
    (events, world("completed", LIFE, &stdout(), &plan.stderr))
}

/// What the checker says of one job.
fn said(events: &[Event], world: &World) -> String {
    check(&[plan()], events, world).join("\n")
}

#[test]
fn a_world_in_order_is_passed() {
    let (events, world) = good();
    assert_eq!(said(&events, &world), "");
    // One that was never accepted owes nothing.
    assert_eq!(said(&[Event::Unanswered { id: ID.to_owned() }], &World::default()), "");
}

#[test]
fn a_lost_job_is_named() {
    let (events, _) = good();
    assert!(said(&events, &World::default()).contains("accepted and is not in the record"));
    let (mut events, world) = good();
    events.push(Event::Unknown { id: ID.to_owned() });
    assert!(said(&events, &world).contains("not known any more"));
    let (events, world) = good();
    assert!(said(&events[..3], &world).contains("has no end, it is still pending"));
    assert!(said(&events[..2], &world).contains("never seen"));
}

#[test]
fn a_second_start_is_named() {
    let plan = plan();
    let (events, _) = good();
    let twice = [&LIFE[..2], &LIFE[1..]].concat();
    let world_of = |entries: &[&str], stdout: &str| world("completed", entries, stdout, &plan.stderr);
    assert!(said(&events, &world_of(&twice, &stdout())).contains("started twice, says the record"));
    let again = ["accepted", "starting", "requeued", "starting", "running", "ended"];
    assert_eq!(said(&events, &world_of(&again, &stdout())), "", "a start that surely was none");
    let output = stdout().repeat(2);
    assert!(said(&events, &world_of(LIFE, &output)).contains("ran 2 times, says its output"));
    let mut counted = world_of(LIFE, &stdout());
    counted.runs.entry(ID.to_owned()).or_default().insert(run("2"));
    assert!(said(&events, &counted).contains("ran 2 times, by its own counter"));
}

#[test]
fn a_second_end_and_a_step_back_are_named() {
    let plan = plan();
    let (mut events, world_of) = good();
    let ends = [LIFE, &["ended"]].concat();
    let two = world("completed", &ends, &stdout(), &plan.stderr);
    assert!(said(&events, &two).contains("not exactly one end"));
    events.push(seen("failed", &result("lost", "", "")));
    assert!(said(&events, &world_of).contains("had another end before"));
    let (mut events, world_of) = good();
    events.insert(5, seen("running", &Value::Null));
    assert!(said(&events, &world_of).contains("went back from completed to running"));
}

#[test]
fn output_that_is_not_whole_is_named() {
    let plan = plan();
    let (events, _) = good();
    let cut = world("completed", LIFE, &stdout()[..20], &plan.stderr);
    assert!(said(&events, &cut).contains("hashes are not those of what is kept"));
    let (mut events, world_of) = good();
    events.push(followed(&stdout(), ""));
    assert!(said(&events, &world_of).contains("a reader got other bytes"));
    let (mut events, world_of) = good();
    let short = result("exited", "begin", &plan.stderr);
    events[4] = seen("completed", &short);
    events[5] = events[4].clone();
    assert!(said(&events, &world_of).contains("not those of what it wrote"));
}

#[test]
fn ends_that_nothing_explains_refusals_and_what_is_left_are_named() {
    let plan = plan();
    let end = result("oom", &stdout(), &plan.stderr);
    let (_, world_of) = good();
    assert!(said(&[accepted(), seen("failed", &end)], &world_of).contains("ended as oom"));
    let refused = Event::Refused { id: ID.to_owned(), status: 400, code: "INVALID_FIELD".to_owned() };
    assert!(said(&[refused], &World::default()).contains("refused for no reason"));
    let (events, mut world_of) = good();
    world_of.left.push("containers are left".to_owned());
    assert_eq!(said(&events, &world_of), "containers are left");
}

#[test]
fn a_container_that_is_used_twice_is_named() {
    let (events, world) = good();
    let mut shared = world.clone();
    shared.runs.insert("storm-0-1".to_owned(), [run("2")].into());
    assert!(said(&events, &shared).contains("container box: more than one job ran in it"));
    let mut again = world.clone();
    again.starts.insert("4f1e".to_owned(), ("box".to_owned(), 2));
    assert!(said(&events, &again).contains("container box: Docker started it 2 times"));
    let mut secret = world.clone();
    secret.starts.clear();
    assert!(said(&events, &secret).contains("Docker knows of no start"));
    let mut silent = world;
    silent.runs.clear();
    assert!(said(&events, &silent).contains("exited, and never ran"));
}
