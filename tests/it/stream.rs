//! The stream of frames over WebSocket.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Agent, PATIENCE, bytes_of, text_of};

#[tokio::test(flavor = "multi_thread")]
async fn lines_arrive_as_they_are_printed_with_both_streams_told_apart() {
    let agent = Agent::start().await;
    let command =
        "i=0; while [ $i -lt 6 ]; do echo out $i; echo err $i >&2; sleep 0.5; i=$((i+1)); done; exit 4";
    let id = agent.submit(command).await;
    let mut stream = agent.stream(&id, "").await;
    let mut arrived: Vec<(Instant, Value)> = Vec::new();
    while let Some(frame) = stream.next().await {
        arrived.push((Instant::now(), frame));
    }
    let frames: Vec<Value> = arrived.iter().map(|(_, frame)| frame.clone()).collect();
    assert_eq!(text_of(&frames, "stdout"), (0..6).map(|n| format!("out {n}\n")).collect::<String>());
    assert_eq!(text_of(&frames, "stderr"), (0..6).map(|n| format!("err {n}\n")).collect::<String>());
    assert_eq!(frames[0]["stream"], "system");
    assert_eq!(frames[0]["data"], "Starting execution...");
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(frame["seq"], json!(n + 1), "{frame}");
        assert_eq!(frame["job_id"], json!(id));
    }
    let last = frames.last().expect("the final frame");
    assert_eq!((&last["final"], &last["stream"], &last["data"]), (&json!(true), &json!(""), &json!("")));
    assert_eq!(last["result"]["exit_code"], 4);
    // Live: the lines came spread over the job's time, not all at its end.
    let lines: Vec<Instant> =
        arrived.iter().filter(|(_, frame)| frame["stream"] == "stdout").map(|(at, _)| *at).collect();
    let spread = lines[5].duration_since(lines[0]);
    assert!(spread > Duration::from_millis(1500), "the lines arrived within {spread:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_returning_readers_get_what_they_lack() {
    let agent = Agent::start().await;
    let id = agent.submit("for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done").await;
    agent.ended(&id).await;
    let all = agent.stream(&id, "").await.read_to_end().await;
    assert_eq!(text_of(&all, "stdout"), "line 1\nline 2\nline 3\nline 4\nline 5\n");
    for from in 1..=all.len() {
        let rest = agent.stream(&id, &format!("?from_seq={from}")).await.read_to_end().await;
        assert_eq!(rest, all[from - 1..], "from {from}");
    }
    let silent = agent.stream(&id, "?system=false").await.read_to_end().await;
    assert!(silent.iter().all(|frame| frame["stream"] != "system"));
    assert_eq!(text_of(&silent, "stdout"), text_of(&all, "stdout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_arrive_exactly() {
    let agent = Agent::start().await;
    // NUL, invalid UTF-8, a character cut by two writes, forged Docker stream headers, terminal escapes.
    let command = r"printf '\0\377\376ok\n'; printf '\303'; sleep 0.2; printf '\251\n'; printf '\002\0\0\0\0\0\0\005fake\n'; printf '\033[31mred\033[0m\n'";
    let id = agent.submit(command).await;
    let frames = agent.stream(&id, "").await.read_to_end().await;
    let expected = b"\0\xff\xfeok\n\xc3\xa9\n\x02\0\0\0\0\0\0\x05fake\n\x1b[31mred\x1b[0m\n";
    assert_eq!(bytes_of(&frames, "stdout"), expected);
    assert!(
        frames.iter().any(|frame| frame["encoding"].is_null()
            && frame["data"].as_str().is_some_and(|data| data.contains('\u{e9}'))),
        "the character that two writes made came whole, as text: {frames:?}"
    );
    let download = agent
        .http
        .get(agent.url(&format!("/api/v1/jobs/{id}/output?stream=stdout")))
        .send()
        .await
        .expect("an answer")
        .bytes()
        .await
        .expect("bytes");
    assert_eq!(&download[..], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_never_read_hold_up_nobody() {
    let agent = Agent::with("output: {limit: 40 MiB}\n").await;
    let command = "sleep 1; head -c 20000000 /dev/zero | tr '\\0' 'x'; echo; echo done";
    let id = agent.submit(command).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(agent.stream(&id, "").await);
    }
    let mut reader = agent.stream(&id, "").await;
    let frames =
        tokio::time::timeout(PATIENCE, reader.read_to_end()).await.expect("the reader that reads gets all");
    let bytes = bytes_of(&frames, "stdout");
    assert_eq!(bytes.len(), 20_000_000 + 1 + 5);
    assert!(bytes.ends_with(b"x\ndone\n"));
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_for_a_stream_are_answered_before_the_upgrade() {
    let agent = Agent::with("allowed_origins: [\"https://console.example.com\"]\n").await;
    let id = agent.submit("true").await;
    let refused = async |query: &str, id: &str, headers: &[(&'static str, String)]| match agent
        .try_stream(id, query, headers)
        .await
    {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => answer.status().as_u16(),
        Err(other) => panic!("{other}"),
        Ok(_) => 101,
    };
    assert_eq!(refused("", "no-such-job", &[]).await, 404);
    assert_eq!(refused("?from_seq=x", &id, &[]).await, 400);
    assert_eq!(refused("", &id, &[("origin", "https://evil.example.com".to_owned())]).await, 403);
    assert_eq!(refused("", &id, &[("origin", "https://console.example.com".to_owned())]).await, 101);
    let (status, answer) = agent.get(&format!("/api/v1/stream/{id}")).await;
    assert_eq!((status, &answer["code"]), (426, &json!("UPGRADE_REQUIRED")), "{answer}");
    agent.ended(&id).await;
}
