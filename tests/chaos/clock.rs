//! The wall clock jumps by an hour, either way, of the agent alone: what runs goes by time that passes, what comes is refused
//! with the difference, and all is well when the clock is.

use std::{collections::BTreeSet, path::PathBuf};

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::{Agent, CONTROLLER, SECRET, Setup, mac, now, payload, sign};

const HOUR: i64 = 3600;

/// The agent's clock.
struct Clock(PathBuf);

impl Clock {
    /// Sets it by so many seconds before or after the host's.
    fn jump(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, seconds.to_string()).expect("written");
        std::fs::rename(&new, &self.0).expect("renamed");
    }
}

/// A refusal, and by how many seconds it says that the clocks differ.
async fn refused(agent: &Agent, more: Value, side: &str) -> String {
    let (status, answer) = agent.post(sign(&payload("echo never", more).to_string())).await;
    assert_eq!(status, 401, "{answer}");
    let details = answer["details"].as_str().expect("a sentence");
    let (_, rest) = details.split_once("by its timestamp it is ").expect("the difference");
    let (seconds, rest) = rest.split_once(" s ").expect("seconds");
    let seconds: i64 = seconds.parse().expect("a number");
    assert!((HOUR - 120..HOUR + 120).contains(&seconds), "{details}");
    assert_eq!(rest, format!("{side} the agent's clock"));
    answer["code"].as_str().expect("a code").to_owned()
}

/// A page of the controller's jobs, by an RFC 9421 signature.
async fn page(agent: &Agent, cursor: Option<&str>) -> Value {
    let url = match cursor {
        Some(cursor) => agent.url(&format!("/api/v1/jobs?limit=2&cursor={cursor}")),
        None => agent.url("/api/v1/jobs?limit=2"),
    };
    let parameters =
        format!("(\"@method\" \"@target-uri\");created={};keyid=\"{CONTROLLER}\";alg=\"hmac-sha256\"", now());
    let base = format!("\"@method\": GET\n\"@target-uri\": {url}\n\"@signature-params\": {parameters}");
    let signature = hex::decode(mac(SECRET, base.as_bytes())).expect("hex");
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    let request = agent.http.get(&url).header("signature-input", format!("sig1={parameters}"));
    let answer = request.header("signature", format!("sig1=:{signature}:")).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_either_way_moves_no_deadline_and_loses_nothing() {
    let config = "max_concurrent_jobs: 1\n".to_owned();
    let mut agent = Agent::prepare(&Setup { config, signed_reads: false });
    let clock = Clock(agent.dir.path().join("clock"));
    agent.env = vec![("QUICKCMD_CLOCK_JUMP", clock.0.display().to_string())];
    agent.launch();
    agent.until_ready().await;
    let mut all = BTreeSet::new();
    for jump in [HOUR, -HOUR] {
        // The end that a wall clock ahead would bring near, and one behind would put off.
        let limit = json!({"sandbox": {"timeout_seconds": 6}});
        let runs = agent.submit_with("echo begin; sleep 600", limit).await;
        agent.until_status(&runs, "running").await;
        // For five minutes, as payloads here are, and for more than the jump.
        let soon = agent.submit("echo soon").await;
        let later = agent.submit_with("echo later", json!({"ttl": now() + 3 * HOUR})).await;
        clock.jump(jump);
        if jump > 0 {
            assert_eq!(refused(&agent, json!({}), "behind").await, "JOB_EXPIRED");
            assert_eq!(refused(&agent, json!({"ttl": now() + 3 * HOUR}), "behind").await, "JOB_TOO_OLD");
            // Its ttl is a time of day, and has passed.
            assert_eq!(agent.ended(&soon).await["reason"], "expired");
        } else {
            assert_eq!(refused(&agent, json!({}), "ahead of").await, "JOB_FROM_FUTURE");
        }
        assert_eq!(agent.get("/ready").await.0, 200);
        // Also who takes the job up again counts no time that has not passed.
        agent.kill_and_restart().await;
        let end = agent.ended(&runs).await;
        assert_eq!((&end["reason"], &end["result"]["exit_code"]), (&json!("timeout"), &json!(124)), "{end}");
        let took = end["result"]["duration_ms"].as_i64().expect("a number");
        assert!((6_000..HOUR * 500).contains(&took), "by time that passes: {end}");
        assert_eq!(end["result"]["stdout"], "begin\n", "{end}");
        if jump < 0 {
            assert_eq!(agent.ended(&soon).await["result"]["stdout"], "soon\n");
        }
        assert_eq!(agent.ended(&later).await["result"]["stdout"], "later\n", "it waited, and ran");

        clock.jump(0);
        let after = agent.submit("echo after").await;
        assert_eq!(agent.ended(&after).await["result"]["stdout"], "after\n");
        all.extend([runs, soon, later, after]);
    }
    // Each is in the list once, by pages, and has the end that it had.
    let (mut listed, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = page(&agent, cursor.as_deref()).await;
        let jobs = page["jobs"].as_array().expect("jobs");
        listed.extend(jobs.iter().map(|job| job["job_id"].as_str().expect("an id").to_owned()));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    listed.retain(|id| all.contains(id));
    assert_eq!(listed.len(), all.len(), "{listed:?}");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
    agent.no_container_left().await;
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
