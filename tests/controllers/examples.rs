//! `examples/controller.py` and `examples/controller.sh`, against an agent whose reads are closed.

use serde_json::json;

use crate::{
    harness::{Agent, PATIENCE, SECRET, Setup, cancel, until},
    program::{Left, controller, path, run},
};

const WRONG: &str = "a-secret-that-this-agent-does-not-know-0123456789";
/// Both streams, a byte that is no UTF-8, characters that JSON escapes, an exit code.
const COMMAND: &str = r#"echo "a <b> & 'c' \"d\" ä"; printf '\377\000end\n'; echo word >&2; exit 7"#;
const STDOUT: &[u8] = b"a <b> & 'c' \"d\" \xc3\xa4\n\xff\x00end\n";

async fn closed() -> Agent {
    Agent::setup(&Setup { signed_reads: true, ..Setup::default() }).await
}

fn assert_ran(left: &Left, agent: &Agent) {
    assert_eq!(left.code, Some(7), "{left:?}\n{}", agent.log());
    assert_eq!(left.stdout, STDOUT, "{}", String::from_utf8_lossy(&left.stdout));
    assert_eq!(left.stderr, "word\n");
}

/// Refused, said so, and nothing ran.
async fn assert_refused(left: &Left, agent: &Agent) {
    assert_eq!(left.code, Some(77), "{left:?}");
    assert!(left.stdout.is_empty(), "{left:?}");
    assert!(left.stderr.contains("INVALID_SIGNATURE"), "{left:?}");
    assert!(!left.stderr.contains(WRONG), "{left:?}");
    assert!(agent.metric("quickcmd_agent_jobs_total").await == 0.0, "nothing was accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_streams_what_a_job_prints() {
    let agent = closed().await;
    let left = run(controller(&path("examples/controller.py"), &agent, SECRET).arg(COMMAND)).await;
    assert_ran(&left, &agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_polls_and_asks_for_limits() {
    let agent = closed().await;
    let arguments = ["--poll", "--memory", "33554432", "--timeout", "20", "echo polled; exit 3"];
    let left = run(controller(&path("examples/controller.py"), &agent, SECRET).args(arguments)).await;
    assert_eq!((left.code, left.stdout.as_slice()), (Some(3), b"polled\n".as_slice()), "{left:?}");
    let limits: String =
        agent.db().query_row("select limits from jobs", [], |row| row.get(0)).expect("a job");
    let limits: serde_json::Value = serde_json::from_str(&limits).expect("JSON");
    assert_eq!((&limits["memory"], &limits["timeout_seconds"]), (&json!(33_554_432), &json!(20)), "{limits}");

    // A job that does not come to its own end is told from one that does.
    let left = run(controller(&path("examples/controller.py"), &agent, SECRET).args([
        "--poll",
        "--timeout",
        "1",
        "sleep 60",
    ]))
    .await;
    assert_eq!(left.code, Some(124), "{left:?}");
    assert!(left.stderr.contains("timeout"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_no_success_whatever_it_left_with() {
    let agent = closed().await;
    for example in ["examples/controller.py", "examples/controller.sh"] {
        let mut command = controller(&path(example), &agent, SECRET);
        let ran = run(command.arg("trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"));
        let cancelled = async {
            let running = || {
                let sql = "select job_id from jobs where state = 'running'";
                agent.db().query_row(sql, [], |row| row.get::<_, String>(0)).ok()
            };
            until("it runs", PATIENCE, async || running().is_some()).await;
            // For its trap. Before that it would end by the signal, which makes the same code.
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let id = running().expect("it runs until it is cancelled");
            let body = cancel(&id, "controller-1");
            assert_eq!(agent.post_to(&format!("/api/v1/jobs/{id}/cancel"), body).await.0, 202);
        };
        let (left, ()) = tokio::join!(ran, cancelled);
        assert_eq!(left.code, Some(143), "{example}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_says_that_an_output_is_not_whole() {
    let agent = closed().await;
    let arguments = ["--poll", "head -c 2000000 /dev/zero | tr '\\0' a"];
    let left = run(controller(&path("examples/controller.py"), &agent, SECRET).args(arguments)).await;
    assert_eq!(left.code, Some(0), "{}", left.stderr);
    assert!(left.stdout.len() < 2_000_000 && left.stderr.contains("stdout is not whole"), "{}", left.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_name_the_agent_that_wants_an_audience() {
    let config = "audience: required\n".to_owned();
    let agent = Agent::setup(&Setup { config, signed_reads: true }).await;
    for example in ["examples/controller.py", "examples/controller.sh"] {
        let program = path(example);
        let left = run(controller(&program, &agent, SECRET).arg(COMMAND)).await;
        assert_eq!(left.code, Some(77), "{left:?}");
        assert!(left.stderr.contains("agent_id"), "{left:?}");
        let left =
            run(controller(&program, &agent, SECRET).env("QUICKCMD_AGENT_ID", &agent.id).arg(COMMAND)).await;
        assert_ran(&left, &agent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_cancels_a_job_that_nobody_reads_any_more() {
    let config = "audience: required\n".to_owned();
    let agent = Agent::setup(&Setup { config, signed_reads: true }).await;
    let program = path("examples/controller.py");
    let pipe = format!("'{program}' 'while :; do echo y; sleep 0.05; done' | head -n 1");
    let mut shell = controller("bash", &agent, SECRET);
    shell.env("QUICKCMD_AGENT_ID", &agent.id);
    let left = run(shell.args(["-c", &format!("set -o pipefail; {pipe}")])).await;
    assert_eq!((left.code, left.stdout.as_slice()), (Some(141), b"y\n".as_slice()), "{}", left.stderr);
    let id: String = agent.db().query_row("select job_id from jobs", [], |row| row.get(0)).expect("a job");
    let end = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let reason: Option<String> =
            agent.db().query_row("select reason from jobs", [], |row| row.get(0)).expect("a job");
        if let Some(reason) = reason {
            assert_eq!(reason, "cancelled", "{id}");
            return;
        }
        assert!(std::time::Instant::now() < end, "{id} runs on");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_is_refused_with_a_wrong_secret() {
    let agent = closed().await;
    let left = run(controller(&path("examples/controller.py"), &agent, WRONG).arg("touch /tmp/x")).await;
    assert_refused(&left, &agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_trusts_only_the_certificate_it_was_told() {
    let agent = closed().await;
    let program = path("examples/controller.py");
    let left = run(controller(&program, &agent, SECRET).env_remove("QUICKCMD_CA").arg("true")).await;
    assert_eq!(left.code, Some(69), "{left:?}");
    assert!(left.stderr.contains("certificate"), "{left:?}");

    let mut openssl = tokio::process::Command::new("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(agent.dir.path().join("cert.pem"));
    let shown = String::from_utf8(run(&mut openssl).await.stdout).expect("text");
    let fingerprint = shown.trim().split('=').nth(1).expect("name=AB:CD:...").to_owned();
    let pinned = |fingerprint: &str| {
        let mut command = controller(&program, &agent, SECRET);
        command.env_remove("QUICKCMD_CA").args(["--fingerprint", fingerprint, "echo pinned"]);
        command
    };
    let left = run(&mut pinned(&fingerprint)).await;
    assert_eq!((left.code, left.stdout.as_slice()), (Some(0), b"pinned\n".as_slice()), "{left:?}");
    let left = run(&mut pinned(&fingerprint.replace(':', "").replace(['0', '1'], "2"))).await;
    assert_eq!(left.code, Some(69), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_runs_a_job() {
    let agent = closed().await;
    let left = run(controller(&path("examples/controller.sh"), &agent, SECRET).arg(COMMAND)).await;
    assert_ran(&left, &agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn shell_is_refused_with_a_wrong_secret() {
    let agent = closed().await;
    let left = run(controller(&path("examples/controller.sh"), &agent, WRONG).arg("touch /tmp/x")).await;
    assert_refused(&left, &agent).await;
}

/// Its HMAC is made by hand: a key that is longer than a block of SHA-256 is hashed first (RFC 2104).
#[tokio::test(flavor = "multi_thread")]
async fn shell_signs_with_a_secret_of_any_length_from_a_file() {
    for secret in ["exactly-thirty-two-bytes-of-text", &"äöü-".repeat(20)] {
        let config = format!("hmac_secret: \"{secret}\"\n");
        let agent = Agent::setup(&Setup { signed_reads: true, config }).await;
        let file = agent.dir.path().join("secret");
        std::fs::write(&file, format!("{secret}\n")).expect("written");
        let mut command = controller(&path("examples/controller.sh"), &agent, WRONG);
        let left = run(command.env("QUICKCMD_SECRET_FILE", &file).arg("echo by file")).await;
        assert_eq!((left.code, left.stdout.as_slice()), (Some(0), b"by file\n".as_slice()), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_say_what_is_missing() {
    let agent = closed().await;
    for program in ["examples/controller.py", "examples/controller.sh"] {
        let program = path(program);
        let left = run(&mut controller(&program, &agent, SECRET)).await;
        assert_eq!(left.code, Some(64), "no command: {left:?}");
        assert!(left.stderr.contains("usage:"), "{left:?}");
        let left = run(controller(&program, &agent, SECRET).env_remove("QUICKCMD_SECRET").arg("true")).await;
        assert_eq!(left.code, Some(78), "no secret: {left:?}");
        assert!(left.stderr.contains("QUICKCMD_SECRET_FILE"), "{left:?}");
        let left = run(controller(&program, &agent, SECRET).arg("--help")).await;
        assert_eq!(left.code, Some(0), "{left:?}");
    }
}
