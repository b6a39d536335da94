//! The agent is killed at each failpoint and started again: the job has exactly one end, was started once at
//! most, its output is whole, and nothing is left.

use std::{fs, process::Command};

use quickcmd::base::failpoints::ALL;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Agent, Setup, payload, sign};

/// A job whose output tells whether it was run twice.
const COMMAND: &str = "echo begin; i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo end; echo word >&2; exit 7";

fn stdout() -> String {
    let lines: String = (0..200).map(|n| format!("line {n}\n")).collect();
    format!("begin\n{lines}end\n")
}

/// What may come of a job when the agent is killed there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// It runs after the restart, or goes on over it.
    Completed,
    /// Whether it was started is not known, or its end.
    Lost,
}

/// An agent that will be killed at that point, not started.
fn agent(point: &str) -> Agent {
    assert!(ALL.contains(&point), "{point}");
    let mut agent = Agent::prepare(&Setup::default());
    agent.env = vec![("QUICKCMD_FAILPOINTS", format!("{point}=kill"))];
    agent
}

async fn killed_at(agent: &mut Agent, point: &str) {
    assert_eq!(agent.died().await, Some(9), "{}", agent.log());
    let last = agent.log().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains(&format!("failpoint {point}: killed here")), "{last}");
}

async fn start_again(agent: &mut Agent) {
    agent.env.clear();
    agent.launch();
    agent.until_ready().await;
}

/// Submits; the answer may be lost with the agent.
async fn submit(agent: &Agent, body: &str) -> Option<u16> {
    let request = agent.http.post(agent.url("/api/v1/jobs")).header("content-type", "application/json");
    request.body(body.to_owned()).send().await.ok().map(|answer| answer.status().as_u16())
}

/// Kinds of the job's entries in the audit log, in order.
fn entries(agent: &Agent, id: &str) -> Vec<String> {
    let db = agent.db();
    let mut query = db
        .prepare(
            "SELECT kind FROM audit WHERE job = (SELECT row FROM jobs WHERE job_id = ? AND state <> 'rejected') \
             ORDER BY number",
        )
        .expect("a table");
    let rows = query.query_map([id], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("kinds")
}

fn count(entries: &[String], kind: &str) -> usize {
    entries.iter().filter(|entry| *entry == kind).count()
}

/// The one end, the output, the record, the host.
async fn check(agent: &Agent, id: &str, expected: Expected) {
    let end = agent.ended(id).await;
    let result = &end["result"];
    match expected {
        Expected::Completed => {
            assert_eq!((&end["reason"], &result["exit_code"]), (&json!("exited"), &json!(7)), "{end}");
            assert_eq!(result["stdout"], stdout(), "{}", agent.log());
            assert_eq!(result["stdout_sha256"], hex::encode(Sha256::digest(stdout())));
            assert_eq!(result["stderr_sha256"], hex::encode(Sha256::digest("word\n")));
            let url = agent.url(&format!("/api/v1/jobs/{id}/output"));
            let bytes = agent.http.get(url).send().await.expect("an answer").bytes().await.expect("a body");
            assert_eq!(bytes, stdout().as_bytes(), "from the spool, too");
        }
        Expected::Lost => {
            assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("lost")), "{end}");
            assert!(result["error"].as_str().is_some_and(|error| error.contains("not run again")), "{end}");
        }
    }
    let entries = entries(agent, id);
    assert_eq!(count(&entries, "job.accepted"), 1, "{entries:?}");
    assert_eq!(count(&entries, "job.ended"), 1, "{entries:?}");
    assert_eq!(count(&entries, "job.starting"), 1, "{entries:?}");
    assert_eq!(count(&entries, "job.requeued"), 0, "{entries:?}");
    assert!(count(&entries, "job.running") <= 1, "{entries:?}");
    nothing_left(agent).await;
    let again = agent.get(&format!("/api/v1/jobs/{id}")).await.1;
    assert_eq!(again, end, "an end does not change");
}

/// No container, no folder of one, and no spool but the job's.
async fn nothing_left(agent: &Agent) {
    agent.no_container_left().await;
    assert_eq!(agent.no_folder_left().await, None);
    let spools = fs::read_dir(agent.dir.path().join("data/spool")).expect("a folder").count();
    assert!(spools <= 1, "{spools} spools of one job");
}

/// Kills there, starts again, sends again what was not answered, checks.
async fn kill_at(point: &str, expected: Expected) {
    let mut agent = agent(point);
    agent.launch();
    agent.until_ready().await;
    let payload = payload(COMMAND, json!({}));
    let id = payload["job_id"].as_str().expect("an id").to_owned();
    let body = sign(&payload.to_string());
    let answer = submit(&agent, &body).await;
    killed_at(&mut agent, point).await;
    start_again(&mut agent).await;
    match point {
        "accept" | "commit" => {
            assert_eq!(answer, None, "it was killed before the answer");
            let known = agent.get(&format!("/api/v1/jobs/{id}")).await.0;
            assert_eq!(known, if point == "commit" { 200 } else { 404 });
            let (status, answer) = agent.post(body).await;
            assert_eq!(status, 202, "{answer}");
            let duplicate = answer.get("duplicate").and_then(Value::as_bool).unwrap_or_default();
            assert_eq!(duplicate, point == "commit", "{answer}");
        }
        _ => assert_eq!(answer, Some(202)),
    }
    check(&agent, &id, expected).await;
}

macro_rules! kill_at {
    ($($test:ident: $point:literal => $expected:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                kill_at($point, Expected::$expected).await;
            }
        )*

        /// Points that a simple job passes; `inspect` and `cleaned` have tests of their own.
        const SIMPLE: &[&str] = &[$($point),*];
    };
}

kill_at! {
    accept: "accept" => Completed,
    commit: "commit" => Completed,
    create: "create" => Completed,
    created: "created" => Completed,
    start: "start" => Completed,
    attach: "attach" => Completed,
    id_recorded: "id-recorded" => Lost,
    // Without standard input the message is all there is to send.
    sent: "sent" => Completed,
    handed_over: "handed-over" => Completed,
    started: "started" => Completed,
    output: "output" => Completed,
    exit: "exit" => Completed,
    result: "result" => Completed,
    recorded: "recorded" => Completed,
    remove: "remove" => Completed,
    removed: "removed" => Completed,
}

#[test]
fn every_failpoint_has_its_test() {
    let missing: Vec<_> = ALL
        .iter()
        .filter(|point| !SIMPLE.contains(point) && !["inspect", "cleaned"].contains(point))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect() {
    let mut agent = agent("inspect");
    agent.launch();
    agent.until_ready().await;
    let id = agent.submit("echo begin; sleep 300").await;
    agent.until_status(&id, "running").await;
    // Its supervisor dies with it, without a report.
    let container = agent.containers().pop().expect("its container");
    assert!(Command::new("docker").args(["kill", &container]).output().expect("docker").status.success());
    killed_at(&mut agent, "inspect").await;
    start_again(&mut agent).await;
    check(&agent, &id, Expected::Lost).await;
    assert_eq!(agent.ended(&id).await["result"]["stdout"], "begin\n", "what it said is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaned() {
    // The sweep that records it comes at once after a start: so two kills, the second in the sweep.
    let mut agent = agent("removed");
    agent.launch();
    agent.until_ready().await;
    let id = agent.submit(COMMAND).await;
    killed_at(&mut agent, "removed").await;
    agent.env = vec![("QUICKCMD_FAILPOINTS", "cleaned=kill".to_owned())];
    agent.launch();
    killed_at(&mut agent, "cleaned").await;
    start_again(&mut agent).await;
    check(&agent, &id, Expected::Completed).await;
    assert_eq!(count(&entries(&agent, &id), "job.cleaned"), 1);
}
