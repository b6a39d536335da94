//! `run` and its kin: bytes, exit codes, retries, cuts, signals.

use std::{process::Stdio, sync::Arc};

use axum::extract::ws::Message;
use quickcmd::wire::{Code, Problem, Reason, Status, result::CancelAnswer};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::Notify,
    time::timeout,
};

use crate::fake::{self, Answer, Fake, LIMIT};

const STREAM: &str = "/api/v1/stream/job-1";

/// Accepts anything, and streams that job.
fn whole(
    pieces: &'static [(&'static str, &'static [u8])],
    exit: i32,
    reason: Reason,
) -> impl Fn(&fake::Seen, usize) -> Answer {
    move |seen, _| {
        if seen.method == "POST" {
            fake::accepted()
        } else {
            fake::frames(fake::job(pieces, exit, reason), false)
        }
    }
}

#[tokio::test]
async fn bytes_and_exit_code_pass_through() {
    let agent = Fake::start(whole(
        &[("stdout", b"a\xff\x00b\n"), ("stderr", b"\x1b[1moh\r\n"), ("stdout", b"\xc3\xbc")],
        7,
        Reason::Exited,
    ))
    .await;
    let ran = agent.run(&["run", "--job-id", "job-1", "--", "echo hi | wc"]).await;
    assert_eq!(ran.code, Some(7));
    assert_eq!(ran.stdout, b"a\xff\x00b\n\xc3\xbc");
    assert_eq!(ran.stderr, b"\x1b[1moh\r\n");
    let payload = agent.asked("POST", "/api/v1/jobs").remove(0).payload();
    assert_eq!(payload["command"], "echo hi | wc");
    assert!(payload.get("argv").is_none());
    assert_eq!(agent.asked("GET", STREAM)[0].path_and_query, format!("{STREAM}?system=false"));
}

#[tokio::test]
async fn ends_that_are_not_the_commands_own_are_said() {
    for (exit, reason, code) in [
        (124, Reason::Timeout, 124),
        (137, Reason::Oom, 137),
        (-1, Reason::Expired, 75),
        (-1, Reason::ImageUnavailable, 71),
        (-1, Reason::SandboxError, 71),
        (-1, Reason::Lost, 72),
        (-1, Reason::Cancelled, 143),
    ] {
        let agent = Fake::start(whole(&[("stdout", b"x\n")], exit, reason)).await;
        let ran = agent.run(&["run", "--job-id", "job-1", "--", "true"]).await;
        assert_eq!(ran.code, Some(code), "{reason:?}");
        assert!(
            ran.err().starts_with("error: job job-1 ") && ran.err().contains("\nhint: "),
            "{}",
            ran.err()
        );
        assert_eq!(ran.out(), "x\n");
    }
    let agent = Fake::start(whole(&[], 137, Reason::Signalled)).await;
    let ran = agent.run(&["run", "--job-id", "job-1", "--", "kill -9 $$"]).await;
    assert_eq!(ran.report(), "exit: 137\n--- stdout\n--- stderr\n");
}

#[tokio::test]
async fn a_command_that_could_not_be_started_says_why() {
    for (exit, why) in [(127, "nosuch: not found"), (126, "/etc/hosts: Permission denied\x1b[2J")] {
        let agent = Fake::start(move |seen, _| {
            if seen.method == "POST" {
                return fake::accepted();
            }
            let mut frames = fake::job(&[], exit, Reason::Exited);
            frames[0].result.as_mut().expect("a result").error = Some(why.into());
            fake::frames(frames, false)
        })
        .await;
        let ran = agent.run(&["run", "--job-id", "job-1", "--", "nosuch", "-x"]).await;
        let said =
            format!("error: job job-1 could not start its command: {}\n", why.replace('\x1b', "\\u{1b}"));
        assert_eq!(ran.code, Some(exit));
        assert!(ran.err().starts_with(&said) && ran.err().contains("\nhint: "), "{}", ran.err());
        let ran = agent.run(&["submit", "--wait", "--json", "--job-id", "job-1", "--", "nosuch", "-x"]).await;
        let result: serde_json::Value = serde_json::from_str(&ran.out()).expect("the result");
        let error: serde_json::Value = serde_json::from_str(&ran.err()).expect("one object");
        assert_eq!(
            (ran.code, &result["error"], &error["exit_code"]),
            (Some(exit), &why.into(), &exit.into())
        );
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_with_the_same_bytes() {
    let agent = Fake::start(|seen, before| match (seen.method.as_str(), before) {
        ("POST", 0 | 1) => Answer::Cut,
        ("POST", _) => {
            fake::json(202, &serde_json::json!({ "job_id": "job-1", "status": "running", "duplicate": true }))
        }
        _ => fake::frames(fake::job(&[("stdout", b"once\n")], 0, Reason::Exited), false),
    })
    .await;
    let ran = agent.run(&["run", "--job-id", "job-1", "--", "echo", "once"]).await;
    assert_eq!(ran.report(), "exit: 0\n--- stdout\nonce\n--- stderr\n");
    let sent = agent.asked("POST", "/api/v1/jobs");
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|seen| seen.body == sent[0].body), "the same signed bytes");
    assert_eq!(sent[0].payload()["argv"], serde_json::json!(["echo", "once"]));
}

#[tokio::test]
async fn an_answer_that_never_comes_leaves_no_false_certainty() {
    let agent = Fake::start(|_, _| Answer::Cut).await;
    let ran = agent.run(&["submit", "--job-id", "job-1", "--patience", "1s", "--", "ls"]).await;
    assert_eq!(ran.code, Some(72), "{}", ran.err());
    assert!(
        ran.err().starts_with("error: it is not known whether the agent took job job-1"),
        "{}",
        ran.err()
    );
    assert!(ran.err().contains("quickcmd status job-1"), "{}", ran.err());
}

#[tokio::test]
async fn a_busy_agent_is_waited_for_as_long_as_it_says() {
    let agent = Fake::start(|_, before| match before {
        0 => fake::problem(Problem::new(Code::RateLimited).retry_after(1)),
        1 => fake::problem(Problem::new(Code::Draining).retry_after(1)),
        _ => fake::accepted(),
    })
    .await;
    let ran = agent.run(&["submit", "--job-id", "job-1", "--", "ls"]).await;
    assert_eq!(ran.report(), "exit: 0\n--- stdout\njob-1\n--- stderr\n");
    assert_eq!(agent.asked("POST", "/api/v1/jobs").len(), 3);
}

#[tokio::test]
async fn a_cut_stream_is_taken_up_and_nothing_is_shown_twice() {
    const PIECES: &[(&str, &[u8])] =
        &[("stdout", b"1\n"), ("stdout", b"2\n"), ("stderr", b"e\n"), ("stdout", b"3\n"), ("stdout", b"4\n")];
    let agent = Fake::start(|seen, before| {
        if seen.method == "POST" {
            return fake::accepted();
        }
        let all = fake::job(PIECES, 0, Reason::Exited);
        match before {
            0 => fake::frames(all[..3].to_vec(), true),
            // A restarting agent.
            1 => fake::problem(Problem::new(Code::Draining)),
            // It begins one frame too early, and closes properly but too soon.
            2 => fake::frames(all[2..4].to_vec(), false),
            _ => fake::frames(all[4..].to_vec(), false),
        }
    })
    .await;
    let ran = agent.run(&["run", "--job-id", "job-1", "--", "seq 4"]).await;
    assert_eq!(ran.report(), "exit: 0\n--- stdout\n1\n2\n3\n4\n--- stderr\ne\n");
    let asked: Vec<String> = agent.asked("GET", STREAM).into_iter().map(|seen| seen.path_and_query).collect();
    assert_eq!(
        asked,
        ["?system=false", "?from_seq=4&system=false", "?from_seq=4&system=false", "?from_seq=5&system=false"]
            .map(|query| format!("{STREAM}{query}"))
    );
}

#[tokio::test]
async fn output_that_is_not_what_was_recorded_is_told() {
    let agent = Fake::start(|seen, _| {
        if seen.method == "POST" {
            return fake::accepted();
        }
        let mut frames =
            fake::job(&[("stdout", b"1\n"), ("stdout", b"2\n"), ("stdout", b"3\n")], 0, Reason::Exited);
        frames[0].data = "!\n".into();
        fake::frames(frames, false)
    })
    .await;
    let ran = agent.run(&["run", "--job-id", "job-1", "--", "seq 3"]).await;
    assert_eq!(ran.code, Some(65));
    assert!(ran.err().contains("stdout is not what the agent recorded"), "{}", ran.err());
}

#[tokio::test]
async fn output_that_is_no_longer_kept_is_not_called_wrong() {
    let agent = Fake::start(|seen, _| {
        let all = fake::job(&[("stdout", b"1\n"), ("stderr", b"e\n")], 0, Reason::Exited);
        match (seen.method.as_str(), seen.path_and_query.contains("/output?")) {
            ("POST", _) => fake::accepted(),
            ("GET", true) => fake::problem(Problem::new(Code::OutputGone)),
            ("GET", false) if seen.path_and_query.starts_with(STREAM) => {
                fake::frames(all[2..].to_vec(), false)
            }
            _ => fake::json(200, &fake::status(all[2].result.clone())),
        }
    })
    .await;
    for args in [&["run", "--job-id", "job-1", "--", "seq 1"][..], &["logs", "job-1"]] {
        let ran = agent.run(args).await;
        assert_eq!(ran.code, Some(67), "{}", ran.err());
        assert!(ran.err().contains("Output is no longer kept"), "{}", ran.err());
        assert!(!ran.err().contains("may still be running"), "{}", ran.err());
    }
}

/// Ends a job's frames with a result that says bytes were dropped.
fn cut_job() -> Vec<quickcmd::wire::frame::Frame> {
    let mut frames = fake::job(&[("stdout", b"1\n"), ("stderr", b"err\n")], 0, Reason::Exited);
    let result = frames.last_mut().and_then(|frame| frame.result.as_mut()).expect("a result");
    (result.stdout_truncated, result.stdout_dropped) = (true, 98);
    frames
}

#[tokio::test]
async fn output_that_the_agent_cut_is_never_taken_for_the_whole() {
    let agent = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => fake::accepted(),
        _ if seen.is("GET", "/api/v1/jobs/job-1") => {
            fake::json(200, &fake::status(cut_job().pop().and_then(|frame| frame.result)))
        }
        _ if seen.is("GET", "/api/v1/jobs/job-1/output") => {
            let bytes = if seen.path_and_query.ends_with("stdout") { "1\n" } else { "err\n" };
            Answer::Http(axum::response::Response::new(bytes.into()))
        }
        _ => fake::frames(cut_job(), false),
    })
    .await;
    let warning = "warning: the output was cut by the agent: the first 2 bytes of stdout were kept and 98 \
                   dropped (output.limit in the agent's configuration says how much it keeps)\n";
    for args in [&["run", "--job-id", "job-1", "--", "seq 50"][..], &["logs", "job-1"]] {
        let ran = agent.run(args).await;
        assert_eq!(ran.report(), format!("exit: 0\n--- stdout\n1\n--- stderr\nerr\n{warning}"), "{args:?}");
    }
    let ran = agent.run(&["run", "--json", "--job-id", "job-1", "--", "seq 50"]).await;
    assert_eq!((ran.code, ran.err().as_str()), (Some(0), warning));
    let ran = agent.run(&["output", "job-1"]).await;
    assert_eq!(ran.report(), format!("exit: 0\n--- stdout\n1\n--- stderr\n{warning}"));
    // The other stream is whole.
    let ran = agent.run(&["output", "job-1", "--stream", "stderr"]).await;
    assert_eq!(ran.report(), "exit: 0\n--- stdout\nerr\n--- stderr\n");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("out");
    let ran = agent.run(&["output", "job-1", "--json", "-o", path.to_str().expect("UTF-8")]).await;
    let said: serde_json::Value = serde_json::from_str(&ran.out()).expect("one object");
    assert_eq!(
        (&said["verified"], &said["truncated"], &said["dropped"]),
        (&true.into(), &true.into(), &98.into())
    );
}

#[tokio::test]
async fn logs_show_the_agents_words_unless_told_otherwise() {
    const PIECES: &[(&str, &[u8])] = &[("system", b"Starting execution...\x1b[2J"), ("stdout", b"hi\n")];
    let agent = Fake::start(|_, _| fake::frames(fake::job(PIECES, 5, Reason::Exited), false)).await;
    let ran = agent.run(&["logs", "-f", "job-1"]).await;
    assert_eq!(
        ran.report(),
        "exit: 0\n--- stdout\nhi\n--- stderr\n[agent] Starting execution...\\u{1b}[2J\n"
    );
    agent.run(&["logs", "-f", "job-1", "--no-system", "--from-seq", "2"]).await;
    assert_eq!(agent.asked("GET", STREAM)[1].path_and_query, format!("{STREAM}?from_seq=2&system=false"));
    let ran = agent.run(&["logs", "-f", "job-1", "--json"]).await;
    let lines: Vec<serde_json::Value> =
        ran.out().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1]["data"], "hi\n");
    assert_eq!(lines[2]["result"]["exit_code"], 5);
}

#[tokio::test]
async fn logs_without_f_end_where_the_record_ends() {
    let agent = Fake::start(|seen, _| {
        if seen.is("GET", "/api/v1/jobs/job-1") {
            return fake::json(200, &fake::status(None));
        }
        if seen.is("GET", "/api/v1/jobs/job-1/output") {
            let bytes = if seen.path_and_query.ends_with("stdout") { "12" } else { "" };
            return Answer::Http(axum::response::Response::new(bytes.into()));
        }
        let mut frames = fake::job(&[("stdout", b"1"), ("stdout", b"2")], 0, Reason::Exited);
        frames.pop();
        Answer::Socket(Box::new(move |mut socket| {
            Box::pin(async move {
                for frame in frames {
                    let _ = socket.send(Message::text(serde_json::to_string(&frame).expect("JSON"))).await;
                }
                // The job goes on; nobody ends this stream but its reader.
                while let Some(Ok(_)) = socket.recv().await {}
            })
        }))
    })
    .await;
    assert_eq!(agent.run(&["logs", "job-1"]).await.report(), "exit: 0\n--- stdout\n12--- stderr\n");
    // Neither does it hang where nothing is left to show.
    for (from, shown) in [("2", "2"), ("9", "")] {
        assert_eq!(agent.run(&["logs", "job-1", "--from-seq", from]).await.out(), shown);
    }
}

#[tokio::test]
async fn logs_from_beyond_the_end_still_end() {
    // As the agent answers: the last frame, whatever was asked for, and a proper close.
    let agent = Fake::start(|seen, _| {
        if seen.is("GET", "/api/v1/jobs/job-1") {
            let ended = fake::result(b"1", b"", 0, Reason::Exited);
            return fake::json(200, &fake::status(Some(ended)));
        }
        let last = fake::job(&[("stdout", b"1")], 0, Reason::Exited).pop();
        fake::frames(last.into_iter().collect(), false)
    })
    .await;
    for args in [&["logs", "job-1"][..], &["logs", "-f", "job-1"]] {
        let ran = agent.run(&[args, &["--from-seq", "99"]].concat()).await;
        assert_eq!(ran.report(), "exit: 0\n--- stdout\n--- stderr\n", "{args:?}");
    }
    let ran = agent.run(&["logs", "-f", "job-1", "--from-seq", "99", "--json"]).await;
    let last: serde_json::Value = serde_json::from_str(&ran.out()).expect("one frame");
    assert_eq!((&last["seq"], &last["result"]["exit_code"]), (&2.into(), &0.into()));
    assert_eq!(agent.asked("GET", STREAM).len(), 3, "one connection each");
}

#[tokio::test]
async fn logs_of_a_job_that_is_not_there() {
    let agent = Fake::start(|_, _| fake::problem(Problem::new(Code::JobNotFound))).await;
    let ran = agent.run(&["logs", "-f", "job-1"]).await;
    insta::assert_snapshot!("logs_of_no_job", ran.report());
}

/// Streams one line, then waits for a cancel, then ends as cancelled.
async fn until_cancelled() -> (Fake, Arc<Notify>) {
    let cancelled = Arc::new(Notify::new());
    let (hear, tell) = (cancelled.clone(), cancelled.clone());
    let agent = Fake::start(move |seen, _| {
        if seen.is("POST", "/api/v1/jobs/job-1/cancel") {
            tell.notify_one();
            return fake::json(
                200,
                &CancelAnswer { job_id: "job-1".into(), status: Status::Running, cancel_requested: true },
            );
        }
        if seen.method == "POST" {
            return fake::accepted();
        }
        let hear = hear.clone();
        Answer::Socket(Box::new(move |mut socket| {
            Box::pin(async move {
                let mut frames = fake::job(&[("stdout", b"begun\n")], 143, Reason::Cancelled).into_iter();
                let first = frames.next().expect("a frame");
                let _ = socket.send(Message::text(serde_json::to_string(&first).expect("JSON"))).await;
                hear.notified().await;
                for frame in frames {
                    let _ = socket.send(Message::text(serde_json::to_string(&frame).expect("JSON"))).await;
                }
            })
        }))
    })
    .await;
    (agent, cancelled)
}

fn kill(child: &tokio::process::Child, signal: nix::sys::signal::Signal) {
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it runs");
}

#[tokio::test]
async fn ctrl_c_cancels_and_waits_for_the_end() {
    for (signal, code) in [(nix::sys::signal::Signal::SIGINT, 130), (nix::sys::signal::Signal::SIGTERM, 143)]
    {
        let (agent, _) = until_cancelled().await;
        let mut child = agent
            .command(&["run", "--job-id", "job-1", "--agent-id", "agent-7", "--", "sleep 1000"])
            .spawn()
            .expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        timeout(LIMIT, out.read_line(&mut line)).await.expect("in time").expect("a line");
        assert_eq!(line, "begun\n");
        kill(&child, signal);
        let done = timeout(LIMIT, child.wait_with_output()).await.expect("in time").expect("an end");
        assert_eq!(done.status.code(), Some(code));
        assert_eq!(String::from_utf8_lossy(&done.stderr), "cancelling job job-1 (again to leave it)\n");
        let request = agent.asked("POST", "/api/v1/jobs/job-1/cancel").remove(0).payload();
        assert_eq!((&request["action"], &request["job_id"]), (&"cancel".into(), &"job-1".into()));
        assert_eq!(request["agent_id"], "agent-7", "the agent that the job was for");
    }
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_at_once() {
    let agent = Fake::start(|seen, _| {
        if seen.is("POST", "/api/v1/jobs") {
            return fake::accepted();
        }
        if seen.method == "POST" {
            return fake::problem(Problem::new(Code::Draining).retry_after(30));
        }
        Answer::Socket(Box::new(|mut socket| {
            Box::pin(async move {
                let frame = &fake::job(&[("stdout", b"begun\n")], 0, Reason::Exited)[0];
                let _ = socket.send(Message::text(serde_json::to_string(frame).expect("JSON"))).await;
                while let Some(Ok(_)) = socket.recv().await {}
            })
        }))
    })
    .await;
    let mut child =
        agent.command(&["run", "--job-id", "job-1", "--", "sleep 1000"]).spawn().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    timeout(LIMIT, out.read_line(&mut line)).await.expect("in time").expect("a line");
    kill(&child, nix::sys::signal::Signal::SIGINT);
    line.clear();
    timeout(LIMIT, err.read_line(&mut line)).await.expect("in time").expect("a line");
    assert_eq!(line, "cancelling job job-1 (again to leave it)\n");
    kill(&child, nix::sys::signal::Signal::SIGINT);
    let status = timeout(LIMIT, child.wait()).await.expect("in time").expect("an end");
    assert_eq!(status.code(), Some(130));
    let mut rest = String::new();
    err.read_to_string(&mut rest).await.expect("text");
    assert!(rest.starts_with("error: left job job-1 before its end\n"), "{rest}");
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_job_quietly() {
    let agent = Fake::start(|seen, _| {
        if seen.is("POST", "/api/v1/jobs") {
            return fake::accepted();
        }
        if seen.method == "POST" {
            return fake::json(
                200,
                &CancelAnswer { job_id: "job-1".into(), status: Status::Running, cancel_requested: true },
            );
        }
        Answer::Socket(Box::new(|mut socket| {
            Box::pin(async move {
                let template = fake::job(&[("stdout", b"y\n")], 0, Reason::Exited).remove(0);
                for seq in 1.. {
                    let mut frame = template.clone();
                    (frame.seq, frame.offset) = (seq, (seq - 1) * 2);
                    let text = Message::text(serde_json::to_string(&frame).expect("JSON"));
                    if socket.send(text).await.is_err() {
                        return;
                    }
                }
            })
        }))
    })
    .await;
    let mut command = agent.command(&["run", "--job-id", "job-1", "--", "yes"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    timeout(LIMIT, out.read_line(&mut line)).await.expect("in time").expect("a line");
    drop(out);
    let done = timeout(LIMIT, child.wait_with_output()).await.expect("in time").expect("an end");
    assert_eq!(done.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(agent.asked("POST", "/api/v1/jobs/job-1/cancel").len(), 1);
}

#[tokio::test]
async fn submit_wait_leaves_with_the_jobs_code() {
    let agent = Fake::start(whole(&[("stdout", b"unseen\n")], 9, Reason::Exited)).await;
    let ran = agent.run(&["submit", "--wait", "--job-id", "job-1", "--", "exit 9"]).await;
    assert_eq!(ran.report(), "exit: 9\n--- stdout\njob-1\n--- stderr\n");
    let ran = agent.run(&["submit", "--wait", "--json", "--job-id", "job-1", "--", "exit 9"]).await;
    let result: serde_json::Value = serde_json::from_str(&ran.out()).expect("one object");
    assert_eq!((ran.code, &result["exit_code"]), (Some(9), &9.into()));
}
