//! Secrets leave by no door: each way in gets a text of its own, and then all that the agent writes, answers and keeps
//! is searched for all of them.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::harness::{Agent, PATIENCE, Setup, cancel, payload, sign_with, signal, text_of, write_private};

/// A secret by where it goes in. Long enough for every rule, and like nothing else in the world.
fn canary(door: &str) -> String {
    format!("canary-{door}-7d1f6c02b9e84a55-{}", std::process::id())
}

/// Every canary, as it is and as it would look had somebody encoded it.
struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    fn new(doors: &[&str]) -> Canaries {
        let mut canaries = Canaries(Vec::new());
        for door in doors {
            canaries.add(door, canary(door).as_bytes());
        }
        canaries
    }

    fn add(&mut self, what: &str, bytes: &[u8]) {
        let base64 = STANDARD.encode(bytes);
        // Without its end, which depends on what would follow.
        self.0.push((format!("{what} as base64"), base64.as_bytes()[..base64.len() - 4].to_vec()));
        self.0.push((format!("{what} as hex"), hex::encode(bytes).into_bytes()));
        let numbers = format!("{bytes:?}");
        self.0.push((format!("{what} as numbers"), numbers.trim_matches(['[', ']']).as_bytes().to_vec()));
        self.0.push((what.to_owned(), bytes.to_vec()));
    }

    /// The private part of the key in a file: 32 bytes of PKCS #8's structure (RFC 5958) for P-256. In two parts, as the
    /// file's lines have it: neither is in the certificate, as the public half is, which everybody may see.
    fn add_key(&mut self, file: &Path) {
        let pem = std::fs::read_to_string(file).expect("a key");
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = STANDARD.decode(text).expect("base64");
        assert_eq!(bytes[31..36], [2, 1, 1, 4, 32], "version 1 of RFC 5915, and 32 bytes");
        self.add("the TLS key's first part", &bytes[36..48]);
        self.add("the TLS key's second part", &bytes[48..66]);
        assert_eq!(self.found(pem.as_bytes()).len(), 2, "it is found where it is");
    }

    /// Which of them these bytes hold.
    fn found(&self, bytes: &[u8]) -> Vec<&str> {
        let holds = |form: &[u8]| bytes.windows(form.len()).any(|window| window == form);
        self.0.iter().filter(|(_, form)| holds(form)).map(|(what, _)| what.as_str()).collect()
    }

    #[track_caller]
    fn absent(&self, place: &str, bytes: impl AsRef<[u8]>) {
        let found = self.found(bytes.as_ref());
        assert!(found.is_empty(), "{place} holds {found:?}");
    }

    /// Every file below a folder.
    fn absent_below(&self, folder: &Path) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files += self.absent_below(&path);
            } else if path.is_file() {
                self.absent(&path.display().to_string(), std::fs::read(&path).expect("a file"));
                files += 1;
            }
        }
        files
    }
}

fn docker(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("docker").args(arguments).output().expect("docker is there");
    [output.stdout, output.stderr].concat()
}

/// `quickcmd-agent --check` of what an agent is configured with.
fn check(agent: &Agent, environment: &[(&str, &str)]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
        .args(["--check", "--config"])
        .arg(agent.dir.path().join("agent.yaml"))
        .envs(environment.iter().copied())
        .output()
        .expect("it runs")
}

/// SIGHUP; the agent does not take what is there now, nor does `--check`, and this says so without a secret. What the
/// agent says is in its log, which is searched at the end.
async fn refused_reload(agent: &Agent, environment: &[(&str, &str)], canaries: &Canaries, what: &str) {
    let before = agent.log().matches("configuration not reloaded").count();
    signal(agent.pid(), nix::sys::signal::Signal::SIGHUP);
    let end = Instant::now() + PATIENCE;
    while agent.log().matches("configuration not reloaded").count() == before {
        assert!(Instant::now() < end, "no refused reload:\n{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let check = check(agent, environment);
    assert!(!check.status.success(), "{what}");
    canaries.absent("--check", [check.stdout, check.stderr].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_leave_by_no_door() {
    let doors = [
        "shared",
        "own",
        "key file",
        "credential",
        "metrics",
        "env",
        "secret",
        "stdin",
        "files",
        "files-base64",
        "bearer",
        "cookie",
        "header",
        "query",
    ];
    let mut canaries = Canaries::new(&doors);
    let own = canary("own");
    let mut agent = Agent::prepare(&Setup {
        config: format!(
            "hmac_secret: \"{}\"\nmetrics_token: \"{}\"\nlog: {{level: trace}}\nread_access: job-id\n\
             controllers:\n  - id: watched\n    keys: [{{secret_env: CANARY_OF_THE_TEST}}, {{secret_file: key.secret}}, \
             {{secret_credential: canary}}]\n",
            canary("shared"),
            canary("metrics"),
        ),
        signed_reads: false,
    });
    let (secret_file, key_file) = (agent.dir.path().join("key.secret"), agent.dir.path().join("key.pem"));
    canaries.add_key(&key_file);
    write_private(&secret_file, &canary("key file"));
    // As systemd leaves them.
    let credentials = agent.dir.path().join("credentials");
    std::fs::create_dir(&credentials).expect("a folder");
    write_private(&credentials.join("canary"), &canary("credential"));
    let credentials = credentials.to_str().expect("text").to_owned();
    let environment = [("CANARY_OF_THE_TEST", &*own), ("CREDENTIALS_DIRECTORY", &*credentials)];
    agent.launch_with(&environment);
    agent.until_ready().await;

    // Each of the controller's keys is one.
    for door in ["key file", "credential"] {
        let job = payload("echo fine", json!({"controller_id": "watched"}));
        let (status, answer) = agent.post(sign_with(&job.to_string(), &canary(door))).await;
        assert_eq!(status, 202, "{door}: {answer}\n{}", agent.log());
        canaries.absent("the answer to a submission", answer.to_string());
        canaries.absent("a result", agent.ended(job["job_id"].as_str().expect("an id")).await.to_string());
    }

    // A job that is given all of them, and prints those that are declared secret.
    let job = payload(
        "echo \"it is $TOKEN\"; echo \"no: $TOKEN\" >&2; wc -c; cat brought brought-too | wc -c; echo waits; sleep 300",
        json!({
            "controller_id": "watched",
            "sandbox": {
                "env": {"OPEN": canary("env")},
                "secret_env": {"TOKEN": canary("secret")},
                "stdin": canary("stdin"),
                "files": [
                    {"path": "brought", "content": canary("files")},
                    {"path": "brought-too", "content": STANDARD.encode(canary("files-base64")), "encoding": "base64"},
                ],
            },
        }),
    );
    let id = job["job_id"].as_str().expect("an id").to_owned();
    let (status, answer) = agent.post(sign_with(&job.to_string(), &own)).await;
    assert_eq!(status, 202, "{answer}\n{}", agent.log());
    canaries.absent("the answer to a submission", answer.to_string());
    let mut stream = agent.stream(&id, "").await;
    let mut seen = String::new();
    while !seen.contains("waits") {
        let frame = stream.next().await.expect("the job goes on");
        canaries.absent("a frame", frame.to_string());
        seen.push_str(frame["data"].as_str().expect("text"));
    }
    assert!(seen.contains("it is [REDACTED]") && seen.contains("no: [REDACTED]"), "{seen}");
    let brought = canary("files").len() + canary("files-base64").len();
    assert!(seen.contains(&format!("\n{brought}\n")), "the files are there: {seen}");

    // Docker knows the container, and not what the job is or says.
    let containers = agent.containers();
    assert_eq!(containers.len(), 1, "{containers:?}");
    let inspected = docker(&["inspect", &containers[0]]);
    assert!(inspected.len() > 1000, "{}", String::from_utf8_lossy(&inspected));
    canaries.absent("docker inspect", inspected);
    canaries.absent("docker logs", docker(&["logs", &containers[0]]));
    canaries.absent("docker top", docker(&["top", &containers[0], "-eo", "pid,args"]));

    // Refusals, by what each check sees.
    let mut refused = vec![
        ("a wrong signature", sign_with(&job.to_string(), "another secret that has enough characters")),
        ("no envelope", format!("{{\"payload\": \"{}\"", canary("secret"))),
    ];
    let secrets = json!({"secret_env": {"TOKEN": canary("secret")}, "env": {"OPEN": canary("env")}});
    for (what, command, more) in [
        ("an unknown field", "true", json!({"sandbox": secrets, "more": canary("env")})),
        ("a wrong type", "true", json!({"sandbox": {"secret_env": {"TOKEN": [canary("secret")]}}})),
        ("a wrong name", "true", json!({"sandbox": {"secret_env": {"A B": canary("secret")}}})),
        (
            "a name twice",
            "true",
            json!({"sandbox": {"env": {"TOKEN": canary("env")}, "secret_env": {"TOKEN": canary("secret")}}}),
        ),
        ("no base64", "true", json!({"sandbox": {"stdin": {"base64": canary("stdin")}}})),
        (
            "a file that is no base64",
            "true",
            json!({"sandbox": {"files": [{"path": "a", "content": canary("files"), "encoding": "base64"}]}}),
        ),
        (
            "a file's mode",
            "true",
            json!({"sandbox": {"files": [{"path": "a", "content": canary("files"), "mode": "4755"}]}}),
        ),
        (
            "a file twice",
            "true",
            json!({"sandbox": {"files": [{"path": "a", "content": canary("files")}, {"path": "a", "content": canary("files")}]}}),
        ),
        (
            "an image",
            "true",
            json!({"sandbox": {"image": "evil:latest", "secret_env": {"TOKEN": canary("secret")}}}),
        ),
        ("a policy", &format!("rm -rf / {}", canary("secret")), json!({"sandbox": secrets})),
        ("a scope", "true", json!({"sandbox": secrets, "required_scopes": [canary("secret")]})),
        ("an old one", "true", json!({"sandbox": secrets, "timestamp": 1000, "ttl": 2000})),
    ] {
        let mut more = more;
        more["controller_id"] = json!("watched");
        refused.push((what, sign_with(&payload(command, more).to_string(), &own)));
    }
    for (what, body) in refused {
        let (status, answer) = agent.post(body).await;
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
        // A member's name that nobody knows may be anything; what stands in it is not repeated. The missing scope's
        // name is the caller's own question.
        if what != "a scope" {
            canaries.absent(&format!("the refusal of {what}"), answer.to_string());
        }
    }

    // Headers and queries that have no business here, at every endpoint.
    for path in [
        "/api/v1/jobs",
        "/api/v1/jobs/nothing",
        &format!("/api/v1/jobs/{id}/output"),
        &format!("/api/v1/stream/{id}"),
        "/health",
        "/metrics",
        "/nowhere",
    ] {
        let answer = agent
            .http
            .get(agent.url(&format!("{path}?cursor={0}&token={0}", canary("query"))))
            .bearer_auth(canary("bearer"))
            .header("cookie", format!("session={}", canary("cookie")))
            .header("x-api-key", canary("header"))
            .header("signature", format!("sig=:{}:", canary("header")))
            .send()
            .await
            .expect("an answer");
        let shown = format!("{:?} {}", answer.headers().clone(), answer.text().await.expect("text"));
        canaries.absent(path, shown);
    }
    let metrics = agent.http.get(agent.url("/metrics")).bearer_auth(canary("metrics"));
    let metrics = metrics.send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("quickcmd_agent_jobs_running 1"), "{metrics}");
    canaries.absent("the metrics", metrics);

    // A configuration that is broken in the very line of a secret: the reload says so without it.
    let file = agent.dir.path().join("agent.yaml");
    let good = std::fs::read_to_string(&file).expect("the configuration");
    let shared = canary("shared");
    for broken in [
        good.replace(&format!("\"{shared}\""), &format!("\"{shared}")),
        good.replace(&format!("\"{shared}\""), &format!("[{shared}]")),
        good.replace(&format!("\"{shared}\""), &format!("{shared}: {shared}")),
        good.replace("read_access: job-id", &shared),
        good.replace("metrics_token:", "metrics_tokens:"),
    ] {
        write_private(&file, &broken);
        refused_reload(&agent, &environment, &canaries, &broken).await;
    }
    write_private(&file, &good);

    // Files of secrets that are no longer as they must be.
    let mut binary = canary("key file").into_bytes();
    binary.push(0xff);
    let key = std::fs::read(&key_file).expect("a key");
    let half = &key[..key.len() / 2];
    for (path, broken) in [(&secret_file, &*binary), (&key_file, half)] {
        let before = std::fs::read(path).expect("a file");
        std::fs::write(path, broken).expect("written");
        refused_reload(&agent, &environment, &canaries, &path.display().to_string()).await;
        std::fs::write(path, before).expect("written");
    }
    let check = check(&agent, &environment);
    assert!(check.status.success(), "{check:?}");
    canaries.absent("--check of what is right", [check.stdout, check.stderr].concat());

    // No core file, whatever ends it.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    // The end, as everybody sees it, and what is kept.
    let wish = cancel(&id, "watched");
    let wish: serde_json::Value = serde_json::from_str(&wish).expect("JSON");
    let path = format!("/api/v1/jobs/{id}/cancel");
    let (status, answer) = agent.post_to(&path, sign_with(&wish["payload"].to_string(), &own)).await;
    assert_eq!(status, 202, "{answer}");
    let frames = stream.read_to_end().await;
    assert_eq!(text_of(&frames[frames.len() - 1..], "stdout"), "");
    let ended = agent.ended(&id).await;
    assert_eq!(ended["reason"], "cancelled", "{ended}");
    assert!(ended["result"]["stdout"].as_str().expect("text").contains("it is [REDACTED]"), "{ended}");
    canaries.absent("the last frame", frames.last().expect("a frame").to_string());
    canaries.absent("the result", ended.to_string());
    assert_eq!(agent.terminate(), Some(0), "{}", agent.log());
    let log = agent.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "a log that says little proves little:\n{log}");
    canaries.absent("the log", log);
    let files = canaries.absent_below(&agent.dir.path().join("data"));
    assert!(files >= 2, "the record and a spool: {files} files");
}

/// The search must be able to find.
#[test]
fn a_canary_is_found_in_each_of_its_forms() {
    let canaries = Canaries::new(&["stdin"]);
    let text = canary("stdin");
    let base64 = STANDARD.encode(format!("{text} and more"));
    assert_eq!(canaries.found(format!("a {text} b").as_bytes()), ["stdin"]);
    assert_eq!(canaries.found(format!("a {base64} b").as_bytes()), ["stdin as base64"]);
    assert_eq!(canaries.found(hex::encode(&text).as_bytes()), ["stdin as hex"]);
    assert_eq!(
        canaries.found(format!("secret: {:?}", format!("a{text}b").as_bytes()).as_bytes()),
        ["stdin as numbers"]
    );
    assert_eq!(canaries.found(b"nothing"), Vec::<&str>::new());
}
