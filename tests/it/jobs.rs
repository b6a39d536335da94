//! A job from its signature to its result.

use serde_json::{Value, json};

use crate::harness::{Agent, CONTROLLER, PATIENCE, mac, now, payload, sign, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_job_runs_and_its_result_has_the_seeds_fields() {
    let agent = Agent::start().await;
    let result = agent.run("echo hello; echo problem >&2; exit 3").await;
    assert_eq!(result["status"], "completed");
    assert_eq!(result["reason"], "exited");
    assert_eq!(result["exit_code"], 3);
    assert_eq!(result["stdout"], "hello\n");
    assert_eq!(result["stderr"], "problem\n");
    assert_eq!(result["stdout_bytes"], 6);
    assert_eq!(
        result["stdout_sha256"], "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "of hello and a newline"
    );
    for field in ["job_id", "sandbox_id", "start_time", "end_time", "image", "image_digest"] {
        assert!(result[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {result}");
    }
    assert!(result["duration_ms"].is_u64(), "{result}");
    assert!(result["receipt"]["sha256"].as_str().is_some_and(|hash| hash.len() == 64), "{result}");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn argv_runs_without_a_shell() {
    let agent = Agent::start().await;
    let result = agent.run_with("", json!({"argv": ["echo", "$HOME", "a  b", "*"]})).await;
    assert_eq!(result["stdout"], "$HOME a  b *\n");
    let result = agent.run_with("", json!({"argv": ["no-such-program"]})).await;
    assert_eq!((&result["status"], &result["exit_code"]), (&json!("completed"), &json!(127)));
    assert!(result["error"].as_str().is_some_and(|error| error.contains("no-such-program")), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn env_workdir_stdin_and_signals() {
    let agent = Agent::start().await;
    let sandbox =
        json!({"sandbox": {"env": {"GREETING": "good day"}, "workdir": "/tmp", "stdin": "one\ntwo\n"}});
    let result = agent.run_with("echo $GREETING; pwd; wc -l", sandbox).await;
    let text = result["stdout"].as_str().expect("text");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["good", "day", "/tmp", "2"], "{result}");
    let binary = json!({"sandbox": {"stdin": {"base64": "AP8K"}}});
    let result = agent.run_with("wc -c", binary).await;
    assert_eq!(result["stdout"].as_str().map(str::trim), Some("3"), "{result}");
    let result = agent.run("kill -USR1 $$").await;
    assert_eq!(
        (&result["status"], &result["reason"], &result["signal"], &result["exit_code"]),
        (&json!("completed"), &json!("signalled"), &json!(10), &json!(138))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_again_are_the_same_job_and_others_are_a_conflict() {
    let mut agent = Agent::start().await;
    let payload = payload("echo once", json!({}));
    let id = payload["job_id"].as_str().expect("an id");
    let body = sign(&payload.to_string());
    let (status, answer) = agent.post(body.clone()).await;
    assert_eq!((status, answer), (202, json!({"job_id": id, "status": "pending"})));
    agent.ended(id).await;

    let again = json!({"job_id": id, "status": "completed", "duplicate": true});
    assert_eq!(agent.post(body.clone()).await, (202, again.clone()));
    agent.kill_and_restart().await;
    assert_eq!(agent.post(body).await, (202, again), "also after a crash");

    let mut other = payload.clone();
    other["command"] = json!("echo twice");
    let (status, answer) = agent.post(sign(&other.to_string())).await;
    assert_eq!((status, &answer["code"]), (409, &json!("JOB_ID_CONFLICT")), "{answer}");
    // Another controller's job of that id is another job.
    let mut theirs = payload;
    theirs["controller_id"] = json!("controller-2");
    let (status, answer) = agent.post(sign(&theirs.to_string())).await;
    assert_eq!((status, &answer["duplicate"]), (202, &Value::Null), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_copies_at_once_one_runs() {
    let agent = Agent::start().await;
    let payload = payload("echo one", json!({}));
    let id = payload["job_id"].as_str().expect("an id").to_owned();
    let body = sign(&payload.to_string());
    let answers = futures_util::future::join_all((0..100).map(|_| agent.post(body.clone()))).await;
    let mut first = 0;
    for (status, answer) in answers {
        assert_eq!((status, &answer["job_id"]), (202, &json!(id)), "{answer}");
        first += usize::from(answer.get("duplicate").is_none());
    }
    assert_eq!(first, 1, "one of them was the first");
    agent.ended(&id).await;
    assert_eq!(agent.metric("quickcmd_agent_jobs_total").await, 1.0);
    let starts: i64 = agent
        .db()
        .query_row("select count(*) from jobs where job_id = ?", [&id], |row| row.get(0))
        .expect("a count");
    assert_eq!(starts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_never_run_more_than_five_at_once() {
    let agent = Agent::with("pool: {size: 5, max: 6}\nmax_concurrent_jobs: 5\n").await;
    let ids: Vec<String> =
        futures_util::future::join_all((0..200).map(|_| agent.submit("echo $$; exit 7"))).await;
    let mut most = 0.0_f64;
    for id in &ids {
        most = most.max(agent.metric("quickcmd_agent_jobs_running").await);
        let end = std::time::Instant::now() + 3 * PATIENCE;
        loop {
            let (_, answer) = agent.get(&format!("/api/v1/jobs/{id}")).await;
            if answer["status"] == "completed" {
                assert_eq!(answer["result"]["exit_code"], 7);
                break;
            }
            assert!(std::time::Instant::now() < end, "{answer}");
            most = most.max(agent.metric("quickcmd_agent_jobs_running").await);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    assert!((1.0..=5.0).contains(&most), "at most {most} ran at once");
    // The record's own times are the proof: no moment lies inside more than five runs.
    let db = agent.db();
    let mut statement = db.prepare("select starting_at, ended_at from jobs").expect("columns");
    let runs: Vec<(i64, i64)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("times");
    assert_eq!(runs.len(), 200);
    for (start, _) in &runs {
        let at_once = runs.iter().filter(|(from, to)| from <= start && start < to).count();
        assert!(at_once <= 5, "{at_once} at once");
    }
    assert_eq!(agent.metric("quickcmd_agent_jobs_total").await, 200.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_controller_does_not_starve_another() {
    let agent = Agent::with("max_concurrent_jobs: 1\n").await;
    let mut flood = Vec::new();
    for _ in 0..12 {
        flood.push(agent.submit("sleep 0.2").await);
    }
    let quiet = agent.submit_with("true", json!({"controller_id": "controller-2"})).await;
    agent.ended(&quiet).await;
    let mut waiting = 0;
    for id in &flood {
        let (_, answer) = agent.get(&format!("/api/v1/jobs/{id}")).await;
        waiting += usize::from(answer["status"] == "pending");
    }
    assert!(waiting >= 6, "its turn came while {waiting} of the flood were still waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_ttl_passes_in_the_queue_expires() {
    let agent = Agent::with("max_concurrent_jobs: 1\n").await;
    let long = agent.submit("sleep 4").await;
    agent.until_status(&long, "running").await;
    let late = agent.submit_with("touch /tmp/never", json!({"ttl": now() + 1})).await;
    let end = agent.ended(&late).await;
    assert_eq!((&end["status"], &end["reason"]), (&json!("failed"), &json!("expired")), "{end}");
    assert_eq!(end["result"]["exit_code"], -1);
    let (_, still) = agent.get(&format!("/api/v1/jobs/{long}")).await;
    assert_eq!(still["status"], "running", "it expired while it waited, not when its turn came");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_named() {
    let image = crate::harness::image();
    let agent = Agent::with(&format!("allowed_images: [\"{image}\", \"quickcmd/no-such:1\"]\n")).await;
    let result = agent.run_with("true", json!({"sandbox": {"image": "quickcmd/no-such:1"}})).await;
    assert_eq!((&result["status"], &result["reason"]), (&json!("failed"), &json!("image_unavailable")));
    assert!(result["error"].as_str().is_some_and(|error| error.contains("quickcmd/no-such:1")), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_in_the_record() {
    let agent = Agent::start().await;
    let metadata = json!({"candidate_metadata": {"risk_level": "safe"}, "snapshot_metadata": "snap-1"});
    let id = agent.submit_with("echo recorded; echo password=hunter2-and-more", metadata).await;
    agent.ended(&id).await;
    let (status, _) = agent.post(sign(&payload("rm -rf /", json!({})).to_string())).await;
    assert_eq!(status, 403);
    let (status, _) = agent.post("{}").await;
    assert_eq!(status, 400);

    let db = agent.db();
    let row = db
        .query_row(
            "select user, prompt, selected_command, sandbox_id, exit_code, stdout, stderr, risk_level, snapshot, \
             executed, duration_ms, timestamp from runs where selected_command like 'echo recorded%'",
            [],
            |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, i64>(4)?,
                    row.get::<_, String>(5)?,
                    row.get::<_, String>(7)?,
                    row.get::<_, String>(8)?,
                    row.get::<_, bool>(9)?,
                ))
            },
        )
        .expect("one run");
    assert_eq!(row.0, CONTROLLER);
    assert!(!row.1.contains("hunter2"), "the command in the record is redacted: {}", row.1);
    assert_eq!(row.2.len(), 64, "a container's id");
    assert_eq!((row.3, row.4.as_str()), (0, "recorded\npassword=[REDACTED]\n"));
    assert_eq!((row.5.as_str(), row.6.as_str(), row.7), ("safe", "snap-1", true));
    let refused: (String, bool) = db
        .query_row("select risk_level, executed from runs where selected_command = 'rm -rf /'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("the refusal is a run that was not executed");
    assert_eq!(refused, ("medium".to_owned(), false));
    let kinds: i64 = db.query_row("select count(*) from audit", [], |row| row.get(0)).expect("entries");
    assert!(kinds >= 6, "accepted, starting, running, ended, two refusals: {kinds}");
    let everything = std::fs::read(agent.dir.path().join("data/agent-audit.db")).expect("the file");
    assert!(!everything.windows(7).any(|window| window == b"hunter2"), "the secret is nowhere in the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vectors_of_other_signers_are_not_fresh_but_their_macs_hold() {
    let agent = Agent::start().await;
    let vectors = include_str!("../data/signing-v1.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).expect("vectors");
    for vector in vectors {
        let body = vector["body"].as_str().expect("a body").to_owned();
        let (status, answer) = agent.post(body).await;
        let name = &vector["name"];
        if name.as_str().is_some_and(|name| name.contains("a member twice")) {
            assert_eq!((status, &answer["code"]), (400, &json!("INVALID_FIELD")), "{name}: {answer}");
        } else if vector["valid"] == true {
            assert_eq!((status, &answer["code"]), (401, &json!("JOB_EXPIRED")), "{name}: {answer}");
        } else {
            assert_eq!((status, &answer["code"]), (401, &json!("INVALID_SIGNATURE")), "{name}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_spelling_was_signed_is_what_runs() {
    let agent = Agent::start().await;
    let id = format!("spelling-{}", unique());
    let text = format!(
        "{{ \"job_id\" : \"{id}\",\n\"prompt\":\"\\u003cp\\u003e\",\"command\":\"echo \\u003c\\u003e | cat\",\
         \"candidate_metadata\":{{\"x\":1e+21}},\"plugin_metadata\":null,\"required_scopes\":[],\
         \"snapshot_metadata\":\"\",\"ttl\":{},\"timestamp\":{},\"controller_id\":\"{CONTROLLER}\"}}",
        now() + 100,
        now()
    )
    .replace("echo \\u003c\\u003e", "echo '\\u003c\\u003e'");
    let body = format!(
        "{{\"signature\":{{\"algorithm\":\"HMAC-SHA256\",\"signature\":\"{}\"}}, \"payload\":  {text}}}",
        mac(crate::harness::SECRET, text.as_bytes())
    );
    let (status, answer) = agent.post(body).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(agent.ended(&id).await["result"]["stdout"], "<>\n");
}
