//! Output at size: caps, ranges, hashes, flat memory, and what must not be seen.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::{Agent, text_of, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_leaves_the_agent_small_and_every_byte_up_to_the_cap_in_place() {
    const CAP: usize = 1_000_000_000;
    let agent = Agent::with(&format!("output: {{limit: {CAP}}}\nstorage: {{max_spool: 4 GiB}}\n")).await;
    let id = agent.submit("yes 0123456789abcde | head -c 1100000000").await;
    let end = {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
        loop {
            let (_, answer) = agent.get(&format!("/api/v1/jobs/{id}")).await;
            if answer["status"] == "completed" {
                break answer;
            }
            assert!(std::time::Instant::now() < deadline, "{answer}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let result = &end["result"];
    assert_eq!(result["stdout_bytes"], json!(CAP));
    assert_eq!((&result["stdout_truncated"], &result["stdout_dropped"]), (&json!(true), &json!(100_000_000)));

    let mut hash = Sha256::new();
    let mut length = 0;
    let mut answer = agent
        .http
        .get(agent.url(&format!("/api/v1/jobs/{id}/output?stream=stdout")))
        .timeout(std::time::Duration::from_secs(240))
        .send()
        .await
        .expect("an answer");
    while let Some(chunk) = answer.chunk().await.expect("a chunk") {
        hash.update(&chunk);
        length += chunk.len();
    }
    assert_eq!(length, CAP);
    assert_eq!(json!(hex::encode(hash.finalize())), result["stdout_sha256"]);

    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok())
        .expect("a peak");
    assert!(peak < 64 * 1024, "the agent's resident memory reached {peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_there_is_a_marker_and_the_job_may_be_ended() {
    let agent = Agent::with("output: {limit: 1024}\n").await;
    let id = agent.submit("yes | head -c 5000; echo err >&2; exit 6").await;
    let frames = agent.stream(&id, "").await.read_to_end().await;
    assert_eq!(text_of(&frames, "stdout").len(), 1024);
    assert_eq!(text_of(&frames, "stderr"), "err\n");
    let result = &frames.last().expect("the final frame")["result"];
    assert_eq!((&result["exit_code"], &result["stdout_dropped"]), (&json!(6), &json!(3976)), "{result}");
    let marker = frames.iter().any(|frame| {
        frame["stream"] == "system" && frame["data"].as_str().is_some_and(|data| data.contains("3976"))
    });
    assert!(marker, "a system frame says how much was dropped: {frames:?}");

    let agent = Agent::with("output: {limit: 1024, end_at_limit: true}\ngrace: 1s\n").await;
    let result = agent.run("yes").await;
    assert_eq!(
        (&result["status"], &result["reason"]),
        (&json!("failed"), &json!("output_limit")),
        "{result}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_the_output() {
    let agent = Agent::start().await;
    let id = agent.submit("printf 0123456789; printf abc >&2").await;
    agent.ended(&id).await;
    let url = agent.url(&format!("/api/v1/jobs/{id}/output?stream=stdout"));
    let get = async |range: &str| {
        let answer = agent.http.get(&url).header("range", range).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let content_range = answer
            .headers()
            .get("content-range")
            .map(|value| value.to_str().expect("text").to_owned())
            .unwrap_or_default();
        (status, content_range, answer.text().await.expect("text"))
    };
    assert_eq!(get("bytes=2-4").await, (206, "bytes 2-4/10".to_owned(), "234".to_owned()));
    assert_eq!(get("bytes=7-").await, (206, "bytes 7-9/10".to_owned(), "789".to_owned()));
    assert_eq!(get("bytes=-2").await, (206, "bytes 8-9/10".to_owned(), "89".to_owned()));
    let (status, content_range, _) = get("bytes=10-").await;
    assert_eq!((status, content_range.as_str()), (416, "bytes */10"));
    let (status, answer) = agent.get(&format!("/api/v1/jobs/{id}/output?stream=both")).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_QUERY")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_masked_in_every_frame_and_result() {
    let agent = Agent::start().await;
    let secret = "s3cr3t-value-of-this-test";
    let command = "printf 'begin %s end\\n' \"$KEY\"; printf '%s' \"$KEY\" | cut -c1-10 | tr -d '\\n'; sleep 0.2; \
                   printf '%s\\n' \"$KEY\" | cut -c11-; echo password=opensesame; \
                   echo 'Authorization: Bearer abcdef0123456789'; echo postgres://bob:hunter22@db/x >&2";
    let id = agent.submit_with(command, json!({"sandbox": {"secret_env": {"KEY": secret}}})).await;
    let frames = agent.stream(&id, "").await.read_to_end().await;
    let (out, err) = (text_of(&frames, "stdout"), text_of(&frames, "stderr"));
    assert!(out.starts_with("begin [REDACTED] end\n"), "{out}");
    for hidden in [secret, "opensesame", "abcdef0123456789"] {
        assert!(!out.contains(hidden), "{out}");
    }
    assert_eq!(err, "postgres://bob:[REDACTED]@db/x\n");
    let result = &frames.last().expect("final")["result"];
    assert_eq!(result["stdout"], json!(out));
    agent.terminate_and_search(secret);
}

impl Agent {
    /// Stops the agent and looks for a text in every file of its folder.
    fn terminate_and_search(mut self, text: &str) {
        assert_eq!(self.terminate(), Some(0));
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    let bytes = std::fs::read(&path).expect("a file");
                    let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                    assert!(!found, "the secret is in {}", path.display());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_programs_name_is_told_to_nobody() {
    let agent = Agent::start().await;
    let result = agent.run_with("", json!({"argv": ["PGPASSWORD=hunter2", "psql"]})).await;
    assert_eq!((&result["reason"], &result["exit_code"]), (&json!("exited"), &json!(127)), "{result}");
    let error = result["error"].as_str().unwrap_or_default();
    assert!(error.contains("[REDACTED]") && !error.contains("hunter2"), "{error}");
    assert!(!agent.log().contains("hunter2"), "{}", agent.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_purged_output_the_end_is_still_streamed_and_the_bytes_are_gone() {
    let mut agent = Agent::start().await;
    let id = agent.submit("echo kept; echo err >&2").await;
    let before = agent.ended(&id).await;
    agent.kill();
    // As retention leaves it, a week later.
    let path = agent.db().path().expect("a file").to_owned();
    let db = rusqlite::Connection::open(path).expect("the record");
    db.execute_batch("UPDATE jobs SET purged_at = 1; DELETE FROM outputs;").expect("purged");
    drop(db);
    agent.launch();
    agent.until_ready().await;
    let url = agent.url(&format!("/api/v1/jobs/{id}/output?stream=stdout"));
    let gone = async || agent.http.get(&url).send().await.expect("an answer").status().as_u16() == 410;
    until("the spool is gone", std::time::Duration::from_secs(30), gone).await;
    let frames = agent.stream(&id, "").await.read_to_end().await;
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0]["final"], true);
    assert_eq!(frames[0]["result"]["stdout_sha256"], before["result"]["stdout_sha256"]);
    assert_eq!(agent.get(&format!("/api/v1/jobs/{id}/output?stream=stderr")).await.1["code"], "OUTPUT_GONE");
}
