//! The operator's verbs, on a running agent and on a stopped one.

use std::{process::Command, time::Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Agent, CONTROLLER, PATIENCE, bytes_of, payload, sign};

/// Runs a verb of the agent's program: exit code, standard output, standard error.
pub fn verb(agent: &Agent, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
        .arg("--config")
        .arg(agent.dir.path().join("agent.yaml"))
        .args(arguments)
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// The same, where it must work.
pub fn done(agent: &Agent, arguments: &[&str]) -> String {
    let (code, out, err) = verb(agent, arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}\n{}", agent.log());
    out
}

/// The same, where it must not.
fn refused(agent: &Agent, arguments: &[&str]) -> String {
    let (code, out, err) = verb(agent, arguments);
    assert_ne!(code, 0, "{arguments:?}: {out}");
    assert_eq!(out, "", "{err}");
    err
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_running_agent_is_restored_and_nothing_runs_twice() {
    let mut agent = Agent::with("max_concurrent_jobs: 1\n").await;
    let ended = agent.submit("echo before").await;
    agent.ended(&ended).await;
    let running = agent.submit("echo ran; sleep 1").await;
    agent.until_status(&running, "running").await;
    let waiting = agent.submit("echo waited").await;

    let file = agent.dir.path().join("backup.db");
    let to = file.to_str().expect("text");
    let said = done(&agent, &["backup", "--to", to]);
    assert!(said.contains("3 jobs") && said.contains("checked from end to end"), "{said}");
    let said = refused(&agent, &["backup", "--to", to]);
    assert!(said.contains("exists already: give another name"), "a file is never overwritten: {said}");
    assert!(done(&agent, &["verify-db"]).contains("is whole"));
    let said = refused(&agent, &["restore", "--from", to]);
    assert!(said.contains("stop the agent first"), "{said}");
    let said = refused(&agent, &["restore", "--from", "/nonexistent/backup.db"]);
    assert!(said.contains("stop the agent first"), "{said}");

    // Both end after the backup was made; the restored record can't know.
    agent.ended(&running).await;
    agent.ended(&waiting).await;
    let later = agent.submit("echo later").await;
    agent.ended(&later).await;
    assert_eq!(agent.terminate(), Some(0));

    let said = refused(&agent, &["restore", "--from", "/nonexistent/backup.db"]);
    assert!(said.contains("can't be read") && !said.contains("free space"), "{said}");
    let said = done(&agent, &["restore", "--from", to]);
    assert!(said.contains("2 jobs had not ended"), "{said}");
    let kept = said.split("kept as ").nth(1).and_then(|rest| rest.lines().next()).expect("a name");
    assert!(std::path::Path::new(kept).exists(), "{said}");

    agent.launch();
    agent.until_ready().await;
    assert_eq!(agent.ended(&ended).await["result"]["stdout"], "before\n");
    for id in [&running, &waiting] {
        let end = agent.ended(id).await;
        assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("lost")), "{end}");
        // The record speaks of the output that there is.
        let frames = agent.stream(id, "").await.read_to_end().await;
        let printed = bytes_of(&frames, "stdout");
        let result = &end["result"];
        assert_eq!(result["stdout"], String::from_utf8_lossy(&printed).as_ref(), "{end}");
        assert_eq!(result["stdout_bytes"], json!(printed.len()), "{end}");
        assert_eq!(result["stdout_sha256"], hex::encode(Sha256::digest(&printed)), "{end}");
        assert!(!printed.is_empty());
    }
    assert_eq!(agent.get(&format!("/api/v1/jobs/{later}")).await.0, 404, "it came after the backup");
    // A new job's row is none that has output on the disk.
    assert_eq!(agent.run("echo fresh").await["stdout"], "fresh\n");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_named_at_start_and_a_damaged_backup_is_not_taken() {
    let mut agent = Agent::start().await;
    let id = agent.submit("echo kept").await;
    agent.ended(&id).await;
    let file = agent.dir.path().join("backup.db");
    let to = file.to_str().expect("text");
    done(&agent, &["backup", "--to", to]);
    assert_eq!(agent.terminate(), Some(0));

    let database = agent.dir.path().join("data/agent-audit.db");
    let mut bytes = std::fs::read(&database).expect("it is there");
    for byte in bytes.iter_mut().skip(4096).take(3 * 4096) {
        *byte ^= 0x5a;
    }
    std::fs::write(&database, &bytes).expect("damaged");
    let said = refused(&agent, &[]);
    assert!(said.contains("is damaged") && said.contains("quickcmd-agent restore --from"), "{said}");
    let said = refused(&agent, &["verify-db"]);
    assert!(said.contains("is damaged") && said.lines().count() == 1, "one sentence: {said}");

    let bad = agent.dir.path().join("bad.db");
    std::fs::write(&bad, &bytes).expect("written");
    let said = refused(&agent, &["restore", "--from", bad.to_str().expect("text")]);
    assert!(said.contains("bad.db can't be restored from: it is damaged"), "{said}");
    assert!(!said.contains("restore --from"), "that is what was tried: {said}");
    assert_eq!(std::fs::read(&database).expect("still there"), bytes, "a refused restore changes nothing");

    done(&agent, &["restore", "--from", to]);
    agent.launch();
    agent.until_ready().await;
    assert_eq!(agent.ended(&id).await["result"]["stdout"], "kept\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_new_jobs_lets_running_ones_end_and_can_be_taken_back() {
    let agent = Agent::with("max_concurrent_jobs: 1\n").await;
    let running = agent.submit("sleep 2; echo done").await;
    agent.until_status(&running, "running").await;
    let waiting = agent.submit("echo waited").await;

    let said = done(&agent, &["drain"]);
    assert_eq!(said, "draining: 1 job runs, 1 job waits\n");
    let (status, answer) = agent.post(sign(&payload("true", json!({})).to_string())).await;
    assert_eq!((status, &answer["code"]), (503, &json!("DRAINING")), "{answer}");
    let (status, ready) = agent.get("/ready").await;
    assert_eq!(status, 503);
    assert!(ready.to_string().contains("draining"), "{ready}");

    let wait = PATIENCE.as_secs().to_string();
    assert_eq!(done(&agent, &["drain", "--wait", &wait]), "draining: 0 jobs run, 1 job waits\n");
    assert_eq!(agent.ended(&running).await["result"]["stdout"], "done\n");
    let (_, still) = agent.get(&format!("/api/v1/jobs/{waiting}")).await;
    assert_eq!(still["status"], "pending", "a drain starts no job");

    assert!(done(&agent, &["undrain"]).starts_with("serving: "));
    assert_eq!(agent.ended(&waiting).await["result"]["stdout"], "waited\n");
    assert_eq!(agent.run("echo again").await["stdout"], "again\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_is_its_owners_and_refuses_what_is_no_request() {
    use std::{
        io::{BufRead, BufReader, Write},
        os::unix::{fs::PermissionsExt, net::UnixStream},
    };
    let mut agent = Agent::start().await;
    let socket = agent.dir.path().join("data/control");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let answers = tokio::task::spawn_blocking(move || {
        [r#"{"command":"status"}"#, r#"{"command":"stop"}"#, "", &"x".repeat(10_000)].map(|line| {
            let mut stream = UnixStream::connect(&socket).expect("it listens");
            // A line that is too long is answered before it was read to its end.
            let _ = writeln!(stream, "{line}");
            let mut answer = String::new();
            let _ = BufReader::new(stream).read_line(&mut answer);
            answer
        })
    });
    let answers = answers.await.expect("answers");
    let first: Value = serde_json::from_str(&answers[0]).expect("JSON");
    assert_eq!(
        (&first["standing"]["mode"], &first["standing"]["pid"]),
        (&json!("serving"), &json!(agent.pid()))
    );
    assert!(answers[1].contains("\"error\""), "{answers:?}");
    assert!(answers[2].contains("\"error\""), "{answers:?}");

    assert_eq!(agent.terminate(), Some(0));
    let said = refused(&agent, &["drain"]);
    assert!(said.contains("no agent runs on"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_are_listed_and_those_that_no_job_needs_removed() {
    let mut agent = Agent::start().await;
    let id = agent.submit("sleep 300").await;
    agent.until_status(&id, "running").await;
    let listed = |agent: &Agent| -> Value {
        serde_json::from_str(&done(agent, &["sandboxes", "--json"])).expect("JSON")
    };
    let of_job = |listed: &Value| {
        let all = listed["sandboxes"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["job_id"] == json!(id)).expect("the job's own")
    };
    // A job is told as running from its turn on; that it has begun is recorded a moment later.
    let end = Instant::now() + PATIENCE;
    let one = loop {
        let one = of_job(&listed(&agent));
        assert_eq!(one["verdict"], "needed", "{one}");
        if one["job_state"] == "running" {
            break one;
        }
        assert!(Instant::now() < end, "{one}");
    };
    assert!(done(&agent, &["sandboxes"]).contains(&format!("job {id} (running)")));
    assert!(refused(&agent, &["sandboxes", "--remove"]).contains("the agent runs"));
    agent.kill();

    // A stranger with this agent's labels: a copy of what an earlier life could have left.
    let home = std::process::Command::new("docker")
        .args(["inspect", "--format", "{{index .Config.Labels \"com.quickcmd.home\"}}"])
        .arg(one["container_id"].as_str().expect("an id"))
        .output()
        .expect("docker");
    let home = String::from_utf8(home.stdout).expect("text");
    let made = Command::new("docker")
        .args(["create", "--label", &format!("com.quickcmd.home={}", home.trim())])
        .args(["--label", &format!("com.quickcmd.agent={}", agent.id)])
        .args(["--label", "com.quickcmd.row=4711", "--label", "com.quickcmd.job=gone"])
        .args([&crate::harness::image(), "true"])
        .output()
        .expect("docker");
    assert!(made.status.success(), "{made:?}");

    let all = listed(&agent);
    let stranger = all["sandboxes"].as_array().expect("a list").iter().find(|one| one["job_id"] == "gone");
    assert_eq!(stranger.expect("it is listed")["verdict"], "stranger", "{all}");
    assert_eq!(agent.containers().len(), 2, "listing removes nothing");
    assert_eq!(done(&agent, &["sandboxes", "--remove"]), done_line(&all));
    assert_eq!(agent.containers(), [one["container_id"].as_str().expect("an id")], "the job's own stays");

    // And the job goes on as if nothing had been.
    agent.launch();
    agent.until_ready().await;
    let body = crate::harness::cancel(&id, CONTROLLER);
    let (status, answer) = agent.post_to(&format!("/api/v1/jobs/{id}/cancel"), body).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(agent.ended(&id).await["reason"], "cancelled");
    agent.no_container_left().await;
}

/// What `--remove` prints: the lines of the listing, then what was done.
fn done_line(all: &Value) -> String {
    let mut lines = String::new();
    for one in all["sandboxes"].as_array().expect("a list") {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        let (job, words) = match one["verdict"].as_str() {
            Some("needed") => (
                format!("job {} ({})", text("job_id"), text("job_state")),
                "needed: kept until its job has ended",
            ),
            _ => (format!("job {} (not in the record)", text("job_id")), "no job's: to be removed"),
        };
        let id = &text("container_id")[..12];
        lines.push_str(&format!(
            "{id}  {}  {}  {}  {job}  {words}\n",
            text("name"),
            text("state"),
            text("created")
        ));
    }
    lines + "1 sandbox removed\n"
}
