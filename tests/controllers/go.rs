//! An unmodified QuickCMD v1 controller in Go: submit, poll, stream, over a self-signed certificate, without credentials on
//! reads and without an `Origin`.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    harness::{Agent, SECRET, Setup},
    program::{Left, controller, path, run},
};

/// The program, built once with Go's own library and nothing from a network.
async fn built() -> &'static PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT
        .get_or_init(|| async {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
            let program = folder.join("v1-controller");
            let mut go = tokio::process::Command::new("go");
            go.current_dir(path("tests/controllers/go"))
                .args(["build", "-o"])
                .arg(&program)
                .arg(".")
                .env("CGO_ENABLED", "0")
                .env("GOPROXY", "off")
                .env("GOTOOLCHAIN", "local")
                .env("GOFLAGS", "-buildvcs=false")
                .env("GOCACHE", folder.join("go-cache"))
                .env("GOPATH", folder.join("go-path"));
            let left = run(&mut go).await;
            assert_eq!(left.code, Some(0), "{}", left.stderr);
            program
        })
        .await
}

async fn v1(agent: &Agent, secret: &str, command: &str) -> Left {
    let program = built().await.to_str().expect("a path of ours");
    run(controller(program, agent, secret).args(["-url", &agent.url(""), "-command", command])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v1_controller_submits_polls_and_streams() {
    let agent = Agent::start().await;
    let command = "echo 'a <b> & c'; echo word >&2; sleep 0.3; echo later; exit 5";
    let left = v1(&agent, SECRET, command).await;
    assert_eq!(left.code, Some(0), "{left:?}\n{}", agent.log());
    let seen: Value = serde_json::from_slice(&left.stdout).expect("JSON");
    assert_eq!(seen["submitted"], "pending");
    assert_eq!((&seen["status"], &seen["result"]["status"]), (&json!("completed"), &json!("completed")));
    assert_eq!(seen["result"]["exit_code"], 5);
    assert_eq!(seen["result"]["stdout"], "a <b> & c\nlater\n");
    assert_eq!(seen["result"]["stderr"], "word\n");
    assert_eq!(seen["result"]["sandbox_id"].as_str().map(str::len), Some(64));
    assert!(seen["result"]["duration_ms"].as_i64().is_some_and(|took| took >= 300), "{seen}");
    assert_eq!((&seen["streamed_stdout"], &seen["final"]), (&json!("a <b> & c\nlater\n"), &json!(true)));
    assert_eq!(seen["streamed_stderr"], "word\n");
    let risk: String =
        agent.db().query_row("select risk_level from runs", [], |row| row.get(0)).expect("a run");
    assert_eq!(risk, "safe");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v1_controller_sees_a_job_fail() {
    let agent = Agent::with("default_timeout_seconds: 1\n").await;
    let left = v1(&agent, SECRET, "sleep 60").await;
    let seen: Value = serde_json::from_slice(&left.stdout).unwrap_or_else(|_| panic!("{left:?}"));
    assert_eq!((&seen["status"], &seen["result"]["exit_code"]), (&json!("failed"), &json!(124)), "{seen}");
    assert!(seen["result"]["error"].as_str().is_some_and(|error| error.contains("timeout")), "{seen}");
    assert_eq!(seen["final"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_v1_controller_with_a_wrong_secret_is_refused_in_v1s_words() {
    let agent = Agent::start().await;
    let left = v1(&agent, "a-secret-that-this-agent-does-not-know-0123456789", "true").await;
    assert_eq!(left.code, Some(1), "{left:?}");
    let body = left.stderr.split_once(": 401 Unauthorized: ").unwrap_or_else(|| panic!("{left:?}")).1;
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["error"], "Invalid signature");
    assert_eq!(body["details"], "INVALID_SIGNATURE: Invalid job signature");
}

/// What keeps it out by default, so that the tests above show what `read_access: job-id` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_v1_controller_reads_nothing_where_reads_are_signed() {
    let agent = Agent::setup(&Setup { signed_reads: true, ..Setup::default() }).await;
    let left = v1(&agent, SECRET, "true").await;
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(left.stderr.contains("poll: 401 Unauthorized"), "{left:?}");
    assert!(left.stderr.contains("UNAUTHENTICATED"), "{left:?}");
}
