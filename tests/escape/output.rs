//! Output that is too much, or not what it seems.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    field::{Attempt, Field, long, quick},
    harness::text_of,
};

const CAP: u64 = 1 << 20;

/// Waits longer than for other jobs.
async fn flood(field: &Field, command: &str) -> Value {
    // Seconds: what ten gigabytes may take of a machine that has other work. The flood is to be cut, not to be timed out.
    let timeout = 1800;
    let id = field.agent.submit_with(command, json!({"sandbox": {"timeout_seconds": timeout}})).await;
    let end = std::time::Instant::now() + Duration::from_secs(timeout + 60);
    loop {
        let (_, answer) = field.agent.get(&format!("/api/v1/jobs/{id}")).await;
        if !answer["result"].is_null() {
            return answer["result"].clone();
        }
        assert!(std::time::Instant::now() < end, "the flood does not end: {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn cut(result: &Value, printed: u64) {
    assert_eq!(
        (&result["reason"], &result["exit_code"]),
        (&json!("exited"), &json!(0)),
        "{}",
        result["error"]
    );
    assert_eq!((&result["stdout_bytes"], &result["stdout_truncated"]), (&json!(CAP), &json!(true)));
    assert_eq!(result["stdout_dropped"], json!(printed - CAP));
}

pub fn floods() -> Vec<Attempt> {
    vec![
        quick("100 MB of lines", |field| async move {
            cut(&flood(&field, "yes 0123456789abcde | head -c 100000000").await, 100_000_000);
        }),
        long("10 GB of lines", |field| async move {
            cut(&flood(&field, "yes 0123456789abcde | head -c 10000000000").await, 10_000_000_000);
        }),
        long("one line of 1 GB", |field| async move {
            cut(&flood(&field, "head -c 1000000000 /dev/zero | tr '\\0' x").await, 1_000_000_000);
        }),
    ]
}

pub fn bytes() -> Vec<Attempt> {
    vec![quick("bytes of every kind", |field| async move {
        // A NUL, what is no UTF-8, a character in two writes, headers as Docker's streams and the agent's own spool have
        // them, and what makes a terminal do things.
        let command = r"printf 'a\0b\377\376'; printf '\303'; sleep 0.1; printf '\274'; printf '\1\0\0\0\0\0\0\5hello'; printf 'QCR1\5\0\0\0\5\0'; printf '\033]0;owned\007\033[2J\r\n'";
        let expected: &[u8] =
            b"a\0b\xff\xfe\xc3\xbc\x01\0\0\0\0\0\0\x05helloQCR1\x05\0\0\0\x05\0\x1b]0;owned\x07\x1b[2J\r\n";
        let id = field.agent.submit(command).await;
        let frames = field.agent.stream(&id, "").await.read_to_end().await;
        let result = &frames.last().unwrap()["result"];
        assert_eq!(result["stdout_sha256"], hex::encode(Sha256::digest(expected)), "{result}");
        let url = field.agent.url(&format!("/api/v1/jobs/{id}/output?stream=stdout"));
        let got = field.agent.http.get(url).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(&got[..], expected);
        assert_eq!(text_of(&frames, "system"), "Starting execution...", "no word of the agent's was forged");
        for frame in &frames {
            let text = frame.to_string();
            assert!(!text.bytes().any(|byte| byte < 0x20), "a control character stands in a frame: {text:?}");
        }
    })]
}

/// Jobs one after another, four at a time.
async fn jobs(field: &Field, count: u32) {
    for first in (0..count).step_by(4) {
        let numbers = first..count.min(first + 4);
        let mut ids = Vec::new();
        for number in numbers {
            ids.push((number, field.agent.submit(&format!("echo {number}; exit {}", number % 200)).await));
        }
        for (number, id) in ids {
            let result = field.agent.ended(&id).await["result"].clone();
            assert_eq!(result["stdout"], format!("{number}\n"), "{result}");
            assert_eq!(
                (&result["reason"], &result["exit_code"]),
                (&json!("exited"), &json!(number % 200)),
                "{result}"
            );
        }
    }
}

pub fn many() -> Vec<Attempt> {
    vec![
        quick("a few", |field| async move { jobs(&field, 8).await }),
        long("QUICKCMD_ESCAPE_JOBS of them (200)", |field| async move {
            let count = std::env::var("QUICKCMD_ESCAPE_JOBS").ok().and_then(|count| count.parse().ok());
            jobs(&field, count.unwrap_or(200)).await;
        }),
    ]
}
