//! Bearer tokens, made and revoked while the agent runs, and what they open.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    harness::{Agent, CONTROLLER, Setup, cancel},
    operate::verb,
};

/// Makes a token; its text.
fn token(agent: &Agent, more: &[&str]) -> String {
    let (code, out, err) = verb(agent, &[&["token", "create"], more].concat());
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.starts_with("token ") && err.contains("not shown again"), "{err}");
    let text = out.strip_suffix('\n').expect("a line").to_owned();
    assert!(!text.contains(char::is_whitespace), "the token alone, for $(...): {text:?}");
    text
}

fn listed(agent: &Agent) -> Vec<Value> {
    let (code, out, err) = verb(agent, &["token", "list", "--json"]);
    assert_eq!(code, 0, "{err}");
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    listed["tokens"].as_array().expect("a list").clone()
}

async fn send(request: reqwest::RequestBuilder, token: &str) -> (u16, Value) {
    let answer = request.bearer_auth(token).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn get(agent: &Agent, token: &str, path: &str) -> (u16, Value) {
    send(agent.http.get(agent.url(path)), token).await
}

async fn post(agent: &Agent, token: &str, path: &str, body: &str) -> (u16, Value) {
    let request = agent.http.post(agent.url(path)).header("content-type", "application/json");
    send(request.body(body.to_owned()), token).await
}

async fn stream_status(agent: &Agent, token: &str, id: &str) -> u16 {
    let header = [("authorization", format!("Bearer {token}"))];
    match agent.try_stream(id, "", &header).await {
        Ok(_) => 101,
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

async fn signed_only(config: &str) -> Agent {
    Agent::setup(&Setup { config: config.to_owned(), signed_reads: true }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reads_until_it_is_revoked_and_is_nowhere_in_clear() {
    let mut agent = signed_only("log: {level: \"trace\"}\n").await;
    let id = agent.submit("sleep 1; echo seen").await;
    let reader = token(&agent, &["--scope", "read", "--ttl", "1h", "--name", "dashboard"]);
    assert!(reader.starts_with("qca_") && reader.len() == 68, "{reader}");
    let path = format!("/api/v1/jobs/{id}");
    assert_eq!(stream_status(&agent, &reader, &id).await, 101);
    for path in
        [&path, "/api/v1/jobs", &format!("{path}/output"), &format!("{path}?controller_id={CONTROLLER}")]
    {
        assert_eq!(get(&agent, &reader, path).await.0, 200, "{path}");
    }
    assert_eq!(code(&post(&agent, &reader, &format!("{path}/cancel"), "").await), (403, "FORBIDDEN"));
    assert_eq!(code(&post(&agent, &reader, "/api/v1/drain", "").await), (403, "FORBIDDEN"));
    let another = format!("{}{}", &reader[..67], if reader.ends_with('0') { '1' } else { '0' });
    assert_eq!(code(&get(&agent, &another, &path).await), (401, "UNAUTHENTICATED"));

    let all = listed(&agent);
    assert_eq!((&all[0]["name"], &all[0]["state"]), (&json!("dashboard"), &json!("good")), "{all:?}");
    let name = all[0]["id"].as_str().expect("an id").to_owned();
    // It outlives a restart, and so does its last use.
    assert_eq!(agent.terminate(), Some(0));
    assert!(listed(&agent)[0]["last_used_at"].is_string());
    agent.launch();
    agent.until_ready().await;
    assert_eq!(get(&agent, &reader, &path).await.0, 200);
    let long = agent.submit("echo begins; sleep 300").await;
    let bearer = [("authorization", format!("Bearer {reader}"))];
    let mut open = agent.try_stream(&long, "", &bearer).await.unwrap_or_else(|error| panic!("{error}"));
    while open.next().await.expect("a frame")["data"] != "begins\n" {}
    let (exit, out, _) = verb(&agent, &["token", "revoke", &name]);
    assert_eq!((exit, out), (0, format!("token {name} is revoked\n")));
    assert_eq!(code(&get(&agent, &reader, &path).await), (401, "UNAUTHENTICATED"));
    assert_eq!(stream_status(&agent, &reader, &id).await, 401);
    assert_eq!(open.closed().await, 1008, "what was open is closed with the next ping");
    agent.post_to(&format!("/api/v1/jobs/{long}/cancel"), cancel(&long, CONTROLLER)).await;
    let (exit, _, err) = verb(&agent, &["token", "revoke", &name]);
    assert_eq!(exit, 69);
    assert!(err.contains("was revoked before"), "{err}");
    assert_eq!(listed(&agent)[0]["state"], "revoked");

    assert_eq!(agent.terminate(), Some(0));
    let data = agent.dir.path().join("data");
    let mut seen = agent.log().into_bytes();
    for file in ["agent-audit.db", "agent-audit.db-wal"] {
        seen.extend(std::fs::read(data.join(file)).unwrap_or_default());
    }
    assert!(!seen.windows(64).any(|part| part == &reader.as_bytes()[4..]), "the token is written somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_controller_finds_nothing_of_another() {
    let agent = signed_only("").await;
    let mine = agent.submit_with("sleep 300", json!({"controller_id": "controller-2"})).await;
    let theirs = agent.submit("sleep 300").await;
    let one = token(&agent, &["--scope", "read,operate", "--controller", "controller-2"]);
    for (id, there) in [(&mine, true), (&theirs, false)] {
        let path = format!("/api/v1/jobs/{id}");
        let read = get(&agent, &one, &path).await;
        let output = get(&agent, &one, &format!("{path}/output")).await;
        let stream = stream_status(&agent, &one, id).await;
        if there {
            assert_eq!((read.0, output.0, stream), (200, 200, 101));
        } else {
            assert_eq!(
                (code(&read), code(&output), stream),
                ((404, "JOB_NOT_FOUND"), (404, "JOB_NOT_FOUND"), 404)
            );
            let cancel = post(&agent, &one, &format!("{path}/cancel"), "").await;
            assert_eq!(code(&cancel), (404, "JOB_NOT_FOUND"));
            let named =
                post(&agent, &one, &format!("{path}/cancel"), r#"{"controller_id": "controller-1"}"#).await;
            assert_eq!(code(&named), (404, "JOB_NOT_FOUND"));
        }
    }
    let (_, page) = get(&agent, &one, "/api/v1/jobs").await;
    let ids: Vec<&str> =
        page["jobs"].as_array().expect("rows").iter().filter_map(|job| job["job_id"].as_str()).collect();
    assert_eq!(ids, [mine.as_str()]);
    assert_eq!(code(&post(&agent, &one, "/api/v1/drain", "").await), (403, "FORBIDDEN"));
    let cancelled =
        post(&agent, &one, &format!("/api/v1/jobs/{mine}/cancel"), r#"{"reason": "enough"}"#).await;
    assert!(matches!(cancelled.0, 200 | 202), "{cancelled:?}");

    let all = token(&agent, &["--scope", "operate,read"]);
    let cancelled = post(&agent, &all, &format!("/api/v1/jobs/{theirs}/cancel"), "").await;
    assert!(matches!(cancelled.0, 200 | 202), "{cancelled:?}");
    crate::harness::until("both have ended", crate::harness::PATIENCE, async || {
        let mut ended = 0;
        for id in [&mine, &theirs] {
            let (_, answer) = get(&agent, &all, &format!("/api/v1/jobs/{id}")).await;
            ended += usize::from(answer["reason"] == "cancelled");
        }
        ended == 2
    })
    .await;
    let by: String = agent
        .db()
        .query_row("SELECT cancel_by FROM jobs WHERE job_id = ?", [&mine], |row| row.get(0))
        .expect("a row");
    assert!(by.starts_with("token:"), "{by}");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_operate_drains_over_http_and_takes_it_back() {
    let agent = Agent::start().await;
    let operator = token(&agent, &["--scope", "operate"]);
    let (status, answer) = post(&agent, &operator, "/api/v1/drain", "").await;
    assert_eq!((status, &answer["mode"]), (200, &json!("draining")), "{answer}");
    assert_eq!(agent.get("/ready").await.0, 503);
    let (status, answer) = post(&agent, &operator, "/api/v1/undrain", "").await;
    assert_eq!((status, &answer["mode"]), (200, &json!("serving")), "{answer}");
    assert_eq!(agent.run("echo again").await["stdout"], "again\n");
    let none = agent.http.post(agent.url("/api/v1/drain")).send().await.expect("an answer");
    assert_eq!(none.status(), 401);
    assert_eq!(none.headers()["www-authenticate"], "Bearer");
    let kinds: Vec<String> = {
        let db = agent.db();
        let mut statement =
            db.prepare("SELECT kind FROM audit WHERE kind LIKE 'agent.%drained'").expect("SQL");
        statement.query_map([], |row| row.get(0)).expect("rows").map(|kind| kind.expect("text")).collect()
    };
    assert_eq!(kinds, ["agent.drained", "agent.undrained"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_token_can_be_is_said_when_it_is_made() {
    let mut agent = Agent::start().await;
    for (arguments, exit, said) in [
        (&["--scope", "submit"][..], 64, "submissions are signed"),
        (&["--scope", "write"], 64, "there are read, operate and admin"),
        (&["--scope", "read", "--ttl", "59s"], 64, "1m to 366d is possible"),
        (&["--scope", "read", "--ttl", "367d"], 64, "1m to 366d is possible"),
        (&["--ttl", "1d"], 64, "--scope"),
        (&["--scope", "admin", "--controller", CONTROLLER], 69, "admin is for all controllers"),
        (&["--scope", "read", "--controller", "nobody"], 69, "no controller \"nobody\""),
    ] {
        let (code, out, err) = verb(&agent, &[&["token", "create"], arguments].concat());
        assert_eq!((code, out.as_str()), (exit, ""), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    // The same without an agent: the record is changed directly.
    assert_eq!(agent.terminate(), Some(0));
    let file = agent.dir.path().join("token");
    let path = file.to_str().expect("text");
    let (code, out, err) = verb(&agent, &["token", "create", "--scope", "read", "--out", path]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("for read of all controllers until") && !out.contains("qca_"), "{out}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, _, err) = verb(&agent, &["token", "create", "--scope", "read", "--out", path]);
    assert_eq!(code, 71, "a file is never overwritten: {err}");
    assert_eq!(listed(&agent).len(), 1, "and then no token is made");
    let text = std::fs::read_to_string(&file).expect("text");
    agent.launch();
    agent.until_ready().await;
    assert_eq!(get(&agent, text.trim(), "/api/v1/jobs").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn quickcmd_reads_and_cancels_with_a_token_and_says_whose_job_it_means() {
    let agent = signed_only("").await;
    let file = agent.dir.path().join("desk.token");
    let path = file.to_str().expect("text");
    let (code, _, err) = verb(&agent, &["token", "create", "--scope", "read,operate", "--out", path]);
    assert_eq!(code, 0, "{err}");
    let quickcmd = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_quickcmd"))
            .args(["--url", &agent.url(""), "--ca"])
            .arg(agent.dir.path().join("cert.pem"))
            .args(arguments)
            .env_clear()
            .env("HOME", agent.dir.path())
            .env("QUICKCMD_TOKEN_FILE", path)
            .output()
            .expect("the program");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code().expect("a code"), text(output.stdout), text(output.stderr))
    };
    // The same id, of two controllers.
    let id = agent.submit("echo first").await;
    agent.submit_with("echo second; sleep 300", json!({"job_id": id, "controller_id": "controller-2"})).await;
    let (code, _, err) = quickcmd(&["status", &id]);
    assert_eq!(code, 77, "{err}");
    assert!(err.contains("--of"), "{err}");
    let (code, out, err) = quickcmd(&["logs", "-f", "--of", CONTROLLER, &id]);
    assert_eq!((code, out.as_str()), (0, "first\n"), "{err}");
    let (code, out, err) = quickcmd(&["output", "--of", CONTROLLER, &id]);
    assert_eq!((code, out.as_str()), (0, "first\n"), "{err}");
    let (code, out, err) = quickcmd(&["status", "--json", "--of", "controller-2", &id]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["controller_id"], "controller-2");
    let (code, _, err) = quickcmd(&["cancel", "--of", "controller-2", &id]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = quickcmd(&["list", "--json"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON")["jobs"].as_array().map(Vec::len), Some(2));
    // A token signs nothing.
    let (code, _, err) = quickcmd(&["run", "--", "true"]);
    assert_eq!(code, 78, "{err}");
    crate::harness::write_private(&file, "qca_no\n");
    let (code, _, err) = quickcmd(&["status", &id]);
    assert_eq!(code, 78, "{err}");
    assert!(err.contains("64 hex digits") && !err.contains("qca_no"), "{err}");
    agent.no_container_left().await;
}
