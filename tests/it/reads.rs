//! Who may read: closed unless signed, or open by job id where so configured.

use serde_json::json;

use crate::harness::{Agent, CONTROLLER, SECRET, Setup};

/// A GET with an RFC 9421 signature made by hand.
async fn signed_get(agent: &Agent, path: &str, controller: &str, secret: &str) -> (u16, serde_json::Value) {
    use base64::Engine;
    let created = crate::harness::now();
    let url = agent.url(path);
    let parameters =
        format!("(\"@method\" \"@target-uri\");created={created};keyid=\"{controller}\";alg=\"hmac-sha256\"");
    let base = format!("\"@method\": GET\n\"@target-uri\": {url}\n\"@signature-params\": {parameters}");
    let mac = hex::decode(crate::harness::mac(secret, base.as_bytes())).expect("hex");
    let signature = base64::engine::general_purpose::STANDARD.encode(mac);
    let answer = agent
        .http
        .get(&url)
        .header("signature-input", format!("sig1={parameters}"))
        .header("signature", format!("sig1=:{signature}:"))
        .send()
        .await
        .expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_closed_without_a_signature() {
    let agent = Agent::setup(&Setup { signed_reads: true, ..Setup::default() }).await;
    let id = agent.submit("echo private").await;
    let path = format!("/api/v1/jobs/{id}");
    for path in [path.clone(), format!("{path}/output?stream=stdout"), "/api/v1/jobs".to_owned()] {
        let (status, answer) = agent.get(&path).await;
        assert_eq!((status, &answer["code"]), (401, &json!("UNAUTHENTICATED")), "{path}: {answer}");
    }
    match agent.try_stream(&id, "", &[]).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => assert_eq!(answer.status().as_u16(), 401),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the stream was opened"),
    }
    let (status, answer) = signed_get(&agent, &path, CONTROLLER, SECRET).await;
    assert_eq!((status, &answer["job_id"]), (200, &json!(id)), "{answer}");
    let (status, answer) =
        signed_get(&agent, &path, CONTROLLER, "another-secret-of-enough-length-here").await;
    assert_eq!(status, 401, "{answer}");
    let (status, answer) = signed_get(&agent, &path, "controller-2", SECRET).await;
    assert_eq!((status, &answer["code"]), (404, &json!("JOB_NOT_FOUND")), "somebody else's job: {answer}");
}

/// A read that went to another agent of the same controller, sent on to this one with the other's Host.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_for_another_agent_is_answered_only_where_no_names_are_given() {
    use base64::Engine;
    let agent = Agent::setup(&Setup { signed_reads: true, ..Setup::default() }).await;
    let replay = async |path: &str| {
        let parameters = format!(
            "(\"@method\" \"@authority\" \"@path\");created={};keyid=\"{CONTROLLER}\";alg=\"hmac-sha256\"",
            crate::harness::now()
        );
        let base = format!(
            "\"@method\": GET\n\"@authority\": agent-a.example:8443\n\"@path\": {path}\n\"@signature-params\": \
             {parameters}"
        );
        let mac = hex::decode(crate::harness::mac(SECRET, base.as_bytes())).expect("hex");
        let signature = base64::engine::general_purpose::STANDARD.encode(mac);
        let answer = agent
            .http
            .get(agent.url(path))
            .header("host", "agent-a.example:8443")
            .header("signature-input", format!("sig1={parameters}"))
            .header("signature", format!("sig1=:{signature}:"))
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.json::<serde_json::Value>().await.unwrap_or_default())
    };
    assert_eq!(replay("/api/v1/jobs").await.0, 200);
    crate::identity::reload(&agent, |text| text + "authorities: [localhost, \"127.0.0.1\"]\n").await;
    let (status, answer) = replay("/api/v1/jobs").await;
    assert_eq!((status, &answer["code"]), (401, &json!("UNAUTHENTICATED")), "{answer}");
    assert!(answer["details"].as_str().is_some_and(|text| text.contains("agent-a.example:8443")), "{answer}");
    assert_eq!(signed_get(&agent, "/api/v1/jobs", CONTROLLER, SECRET).await.0, 200, "its own name, any port");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_a_controllers_own_jobs_in_pages() {
    let agent = Agent::setup(&Setup { signed_reads: true, ..Setup::default() }).await;
    for n in 0..5 {
        agent.submit(&format!("echo {n}")).await;
    }
    agent.submit_with("echo theirs", json!({"controller_id": "controller-2"})).await;
    let (status, page) = signed_get(&agent, "/api/v1/jobs?limit=2", CONTROLLER, SECRET).await;
    assert_eq!(status, 200, "{page}");
    let mut commands: Vec<String> = Vec::new();
    let mut cursor = page["next_cursor"].clone();
    let take = |page: &serde_json::Value, commands: &mut Vec<String>| {
        for job in page["jobs"].as_array().expect("rows") {
            commands.push(job["command"].as_str().expect("text").to_owned());
        }
    };
    take(&page, &mut commands);
    while let Some(text) = cursor.as_str() {
        let path = format!("/api/v1/jobs?limit=2&cursor={text}");
        let (status, page) = signed_get(&agent, &path, CONTROLLER, SECRET).await;
        assert_eq!(status, 200, "{page}");
        take(&page, &mut commands);
        cursor = page["next_cursor"].clone();
    }
    assert_eq!(commands, ["echo 4", "echo 3", "echo 2", "echo 1", "echo 0"], "newest first, nobody else's");
    let (status, page) = signed_get(&agent, "/api/v1/jobs?limit=500", CONTROLLER, SECRET).await;
    assert_eq!((status, page["jobs"].as_array().map(Vec::len)), (200, Some(5)), "{page}");
    let (status, answer) = signed_get(&agent, "/api/v1/jobs?limit=501", CONTROLLER, SECRET).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_QUERY")), "{answer}");
    let (status, answer) = signed_get(&agent, "/api/v1/jobs?limit=0", CONTROLLER, SECRET).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_QUERY")), "{answer}");
    let (status, answer) = signed_get(&agent, "/api/v1/jobs?status=sleeping", CONTROLLER, SECRET).await;
    assert_eq!((status, &answer["code"]), (400, &json!("INVALID_QUERY")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_job_id_access_the_id_is_enough_but_a_list_is_not() {
    let agent = Agent::start().await;
    let id = agent.submit("echo known").await;
    assert_eq!(agent.ended(&id).await["result"]["stdout"], "known\n");
    let (status, answer) = agent.get("/api/v1/jobs").await;
    assert_eq!(
        (status, &answer["code"]),
        (401, &json!("UNAUTHENTICATED")),
        "ids must not be given out: {answer}"
    );
    let (status, answer) = agent.get("/api/v1/jobs/no-such-job").await;
    assert_eq!((status, &answer["code"]), (404, &json!("JOB_NOT_FOUND")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_metrics_may_be_closed() {
    let agent = Agent::with("metrics_token: \"a-token-for-the-scraper-of-32-bytes\"\n").await;
    let (status, answer) = agent.get("/health").await;
    assert_eq!((status, &answer["status"]), (200, &json!("healthy")), "{answer}");
    assert!(
        answer["timestamp"].as_i64().is_some_and(|at| (crate::harness::now() - at).abs() < 60),
        "{answer}"
    );
    let (status, _) = agent.get("/live").await;
    assert_eq!(status, 200);
    let answer = agent.http.get(agent.url("/metrics")).send().await.expect("an answer");
    assert_eq!(answer.status(), 401);
    let answer = agent
        .http
        .get(agent.url("/metrics"))
        .bearer_auth("a-token-for-the-scraper-of-32-bytes")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.expect("text").contains("quickcmd_agent_jobs_total 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_answered_in_the_same_form() {
    let agent = Agent::start().await;
    let (status, answer) = agent.get("/api/v2/jobs").await;
    assert_eq!((status, &answer["code"]), (404, &json!("NOT_FOUND")), "{answer}");
    let answer = agent.http.delete(agent.url("/api/v1/jobs")).send().await.expect("an answer");
    assert_eq!(answer.status(), 405);
    let body: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(body["code"], "METHOD_NOT_ALLOWED", "{body}");
}
