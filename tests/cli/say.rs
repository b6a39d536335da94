//! What it says: help, refusals with their hints, tables, JSON.

use insta::assert_snapshot;
use quickcmd::wire::{
    Code, Problem, Reason, Status,
    result::{CancelAnswer, JobPage, JobRow},
};
use serde_json::json;

use crate::fake::{self, Fake, quickcmd};

#[tokio::test]
async fn help() {
    for verb in ["", "run", "submit", "logs", "status", "cancel", "list", "output", "health", "gen-key"] {
        let args: Vec<&str> = [verb, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let ran = fake::run(quickcmd(&args)).await;
        // What is global is shown once.
        let report = ran.report();
        let shown = match report.split_once("\nConnection:") {
            Some((own, _)) if !verb.is_empty() => format!("{own}\nConnection: ..."),
            _ => report.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"),
        };
        assert_snapshot!(format!("help_{}", if verb.is_empty() { "quickcmd" } else { verb }), shown);
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_exit_64() {
    for args in [
        &["walk"][..],
        &["run"],
        &["run", "--memory", "much", "--", "ls"],
        &["run", "--cpu", "inf", "--", "ls"],
        &["run", "--cpu", "nan", "--", "ls"],
        &["list", "--status", "odd"],
    ] {
        let ran = fake::run(quickcmd(args)).await;
        assert_eq!(ran.code, Some(64), "{args:?}: {}", ran.err());
        assert!(ran.stdout.is_empty() && ran.err().starts_with("error: "), "{}", ran.err());
    }
}

#[tokio::test]
async fn a_wrong_command_line_is_json_where_json_is_asked_for() {
    for (args, cause) in [
        (&["walk", "--json"][..], "unrecognized subcommand 'walk'"),
        (&["--json"], "'quickcmd' requires a subcommand"),
        (&["run", "--json"], "the following required arguments were not provided: <COMMAND>..."),
        (&["run", "--json", "--memory", "99999999999999999999", "--", "ls"], "out of range"),
        (&["--json", "run", "--timeout", "1.5", "--", "ls"], "whole seconds"),
    ] {
        let ran = fake::run(quickcmd(args)).await;
        let said: serde_json::Value = serde_json::from_str(&ran.err()).expect("one object");
        assert_eq!((ran.code, &said["exit_code"]), (Some(64), &json!(64)), "{args:?}");
        assert!(said["error"].as_str().expect("a sentence").contains(cause), "{args:?}: {said}");
        assert!(said["hint"].as_str().expect("a sentence").contains("--help"), "{args:?}: {said}");
        assert!(ran.stdout.is_empty());
    }
    // Behind the dashes it is the job's own.
    let ran = fake::run(quickcmd(&["run", "--memory", "much", "--", "ls", "--json"])).await;
    assert!(ran.err().starts_with("error: "), "{}", ran.err());
}

#[tokio::test]
async fn refusals_say_the_cause_and_what_to_do() {
    let cases = [
        Problem::new(Code::InvalidSignature).details("INVALID_SIGNATURE: Invalid job signature"),
        Problem::new(Code::ControllerNotAllowed),
        Problem::new(Code::PolicyDenied)
            .details("The rule \"root deletion\" denies the command")
            .with("rule", "root deletion"),
        Problem::new(Code::JobIdConflict),
        Problem::new(Code::QueueFull).retry_after(3600),
        Problem::new(Code::InvalidField).details("`sandbox.pids_limit` must be at least 1\u{1b}[31m"),
    ];
    for refusal in cases {
        let code = refusal.code;
        let agent = Fake::start(move |_, _| fake::problem(refusal.clone())).await;
        let ran = agent.run(&["submit", "--job-id", "job-1", "--", "ls"]).await;
        assert_snapshot!(format!("refused_{}", code.as_str().to_lowercase()), ran.report());
        assert_eq!(agent.asked("POST", "/api/v1/jobs").len(), 1, "{code:?} is not tried again");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_said_with_numbers() {
    let agent = Fake::start(|seen, _| {
        let signed = seen.payload()["timestamp"].as_i64().expect("a number");
        fake::problem(
            Problem::new(Code::JobTooOld).with("agent_time", signed + 100_000).with("skew_seconds", 100_000),
        )
    })
    .await;
    let ran = agent.run(&["submit", "--", "ls"]).await;
    assert_eq!(ran.code, Some(77));
    // A busy machine may take some seconds between signing and reading the answer.
    let said = ran.err();
    assert!(
        said.contains("hint: the clock here is 999") || said.contains("hint: the clock here is 100000 s"),
        "{said}"
    );
    assert!(said.contains(" s behind the agent's"), "{said}");
}

#[tokio::test]
async fn json_errors_are_one_object() {
    let agent = Fake::start(|_, _| fake::problem(Problem::new(Code::JobNotFound))).await;
    assert_snapshot!("error_as_json", agent.run(&["status", "job-1", "--json"]).await.report());
}

#[tokio::test]
async fn nobody_there() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let free = socket.local_addr().expect("an address");
    let mut command = quickcmd(&["health"]);
    command.env("QUICKCMD_URL", format!("http://{free}"));
    let report = fake::run(command).await.report().replace(&free.to_string(), "AGENT");
    assert_snapshot!("nobody_there", report);
}

#[tokio::test]
async fn status_for_people_and_programs() {
    let agent = Fake::start(|_, _| {
        fake::json(200, &fake::status(Some(fake::result(b"hi\n", b"", 3, Reason::Exited))))
    })
    .await;
    assert_snapshot!("status", agent.run(&["status", "job-1"]).await.report());
    assert_snapshot!("status_as_json", agent.run(&["status", "job-1", "--json"]).await.report());
}

#[tokio::test]
async fn a_list_is_safe_on_a_terminal_and_pages() {
    let row = |id: &str, command: &str| JobRow {
        job_id: id.into(),
        controller_id: "controller-1".into(),
        status: Status::Completed,
        reason: Some("exited".into()),
        exit_code: Some(0),
        command: command.into(),
        created_at: "2025-01-07T10:00:00Z".into(),
        ended_at: Some("2025-01-07T10:00:01Z".into()),
        duration_ms: Some(1234),
    };
    let first =
        JobPage { jobs: vec![row("job-2", "echo \x1b]0;owned\x07\nls")], next_cursor: Some("c1".into()) };
    let second = JobPage { jobs: vec![row("job-1", &"x".repeat(100))], next_cursor: None };
    let agent = Fake::start(move |seen, _| {
        fake::json(200, if seen.path_and_query.contains("cursor=c1") { &second } else { &first })
    })
    .await;
    assert_snapshot!("list", agent.run(&["list", "--status", "completed", "--limit", "1"]).await.report());
    assert_snapshot!("list_all", agent.run(&["list", "--all"]).await.report());
    assert_snapshot!("list_as_json", agent.run(&["list", "--json"]).await.report());
    let asked = agent.asked("GET", "/api/v1/jobs");
    assert_eq!(asked[0].path_and_query, "/api/v1/jobs?status=completed&limit=1");
    assert_eq!(asked[2].path_and_query, "/api/v1/jobs?limit=20&cursor=c1");
}

#[tokio::test]
async fn health_needs_no_key() {
    let agent =
        Fake::start(|_, _| fake::json(200, &json!({ "status": "healthy", "timestamp": 1_704_628_500 })))
            .await;
    let mut command = quickcmd(&["health"]);
    command.env("QUICKCMD_URL", &agent.url);
    assert_snapshot!("health", fake::run(command).await.report());
}

#[tokio::test]
async fn a_cancel_is_signed() {
    let answer = CancelAnswer { job_id: "job-1".into(), status: Status::Running, cancel_requested: true };
    let agent = Fake::start(move |_, _| fake::json(200, &answer)).await;
    let ran = agent.run(&["cancel", "job-1", "--reason", "enough"]).await;
    assert_snapshot!("cancel", ran.report());
    let request = agent.asked("POST", "/api/v1/jobs/job-1/cancel").remove(0).payload();
    assert_eq!(request["action"], "cancel");
    assert_eq!(request["reason"], "enough");
    assert_eq!(request["controller_id"], "controller-1");
    assert_eq!(
        request["ttl"].as_i64().expect("a number") - request["timestamp"].as_i64().expect("a number"),
        300
    );
}

/// For a person who has several agents: `--agent-id`, else the file's; none, if none is known.
#[tokio::test]
async fn a_cancel_is_for_the_agent_that_is_named() {
    let answer = CancelAnswer { job_id: "job-1".into(), status: Status::Running, cancel_requested: true };
    let agent = Fake::start(move |_, _| fake::json(200, &answer)).await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "agent_id: of-file\n").expect("written");
    for (args, config, expected) in [
        (&["cancel", "job-1"][..], None, serde_json::Value::Null),
        (&["cancel", "job-1"], Some(&file), json!("of-file")),
        (&["cancel", "job-1", "--agent-id", "of-flag"], Some(&file), json!("of-flag")),
    ] {
        let mut command = agent.command(args);
        command.envs(config.map(|path| ("QUICKCMD_CONFIG", path)));
        let ran = fake::run(command).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err());
        let request = agent.asked("POST", "/api/v1/jobs/job-1/cancel").pop().expect("a cancel").payload();
        assert_eq!(request["agent_id"], expected, "{args:?}");
    }
}

#[tokio::test]
async fn submit_prints_the_id_and_sends_what_was_asked_for() {
    let agent = Fake::start(|_, _| fake::accepted()).await;
    let mut command = agent.command(&[
        "submit",
        "--job-id",
        "job-1",
        "--image",
        "alpine:latest",
        "--cpu",
        "0.5",
        "--memory",
        "64m",
        "--pids",
        "9",
        "--timeout",
        "2m",
        "--tmpfs",
        "1m",
        "--network",
        "bridge",
        "--env",
        "A=b=c",
        "--secret-env",
        "TOKEN",
        "--workdir",
        "/srv",
        "--stdin",
        "-",
        "--scope",
        "git:read",
        "--prompt",
        "list files",
        "--agent-id",
        "agent-7",
        "--ttl",
        "60",
        "--key-id",
        "k1",
        "--",
        "ls",
        "-la",
    ]);
    command.env("TOKEN", "s3cret").stdin(std::process::Stdio::null());
    let ran = fake::run(command).await;
    assert_eq!(ran.report(), "exit: 0\n--- stdout\njob-1\n--- stderr\n");
    let seen = agent.asked("POST", "/api/v1/jobs").remove(0);
    let envelope = quickcmd::wire::envelope::Envelope::parse(&seen.body).expect("an envelope");
    assert_eq!(envelope.signature.key_id.as_deref(), Some("k1"));
    let mut payload = seen.payload();
    let signed_at = payload["timestamp"].as_i64().expect("a number");
    assert_eq!(payload["ttl"], json!(signed_at + 60));
    payload["timestamp"] = json!(0);
    payload["ttl"] = json!(60);
    insta::assert_json_snapshot!("payload", payload);
}
