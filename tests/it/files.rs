//! Files that a job brings, and files that it leaves: from the request to the download.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Agent, CONTROLLER, PATIENCE, SECRET, payload, sign, until, write_private};

impl Agent {
    /// Fetches some bytes; the status and them.
    async fn bytes(&self, path: &str) -> (u16, Vec<u8>) {
        let answer = self.http.get(self.url(path)).send().await.expect("an answer");
        (answer.status().as_u16(), answer.bytes().await.expect("a body").to_vec())
    }
}

/// What the result says of a path.
fn listed<'a>(result: &'a Value, path: &str) -> &'a Value {
    let list = result["artifacts"].as_array().unwrap_or_else(|| panic!("no list in {result}"));
    list.iter().find(|one| one["path"] == path).unwrap_or_else(|| panic!("{path} is not in {list:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_come_out() {
    let agent = Agent::start().await;
    let command =
        "cat /tmp/in/data | rev >out/reversed; ./tool; id -u; stat -c '%a %u' tool; echo late >>/work/log";
    let sandbox = json!({"sandbox": {
        "files": [
            {"path": "tool", "content": "#!/bin/sh\nprintf '\\377\\0' >out/raw\n", "mode": "0755"},
            {"path": "/tmp/in/data", "content": "YWJjCg==", "encoding": "base64"},
            {"path": "out/.keep", "content": ""},
        ],
        "artifacts": ["out", "/work/log", "nothing"],
    }});
    let id = agent.submit_with(command, sandbox).await;
    let (status, early) = agent.get(&format!("/api/v1/jobs/{id}/artifacts/out/raw")).await;
    assert!(status == 200 || early["code"] == "ARTIFACT_NOT_FOUND", "{early}");
    let result = agent.ended(&id).await["result"].clone();
    assert_eq!((&result["exit_code"], &result["stderr"]), (&json!(0), &json!("")), "{result}");
    assert_eq!(result["stdout"], "65532\n755 65532\n");
    let base = format!("/api/v1/jobs/{id}/artifacts");
    for (path, bytes) in [
        ("out/reversed", &b"cba\n"[..]),
        ("out/raw", b"\xff\0"),
        ("out/.keep", b""),
        ("/work/log", b"late\n"),
    ] {
        let one = listed(&result, path);
        assert_eq!(one["size"], bytes.len(), "{one}");
        assert_eq!(one["sha256"], hex::encode(Sha256::digest(bytes)), "{one}");
        let got = agent.bytes(&format!("{base}/{}", path.trim_start_matches('/'))).await;
        assert_eq!(got, (200, bytes.to_vec()), "{path}");
    }
    assert_eq!(listed(&result, "nothing")["refused"], "missing");
    let (status, refused) = agent.get(&format!("{base}/nothing")).await;
    assert_eq!(
        (status, &refused["code"], &refused["refused"]),
        (404, &json!("ARTIFACT_NOT_FOUND"), &json!("missing"))
    );
    for path in ["out", "out/none", "../../../etc/passwd", "%2e%2e/x", "%ff"] {
        let (status, refused) = agent.get(&format!("{base}/{path}")).await;
        assert_eq!(status, 404, "{path}: {refused}");
    }
    // The slash before an absolute path may stand there or not; ranges and tags are those of output.
    assert_eq!(agent.bytes(&format!("{base}//work/log")).await, (200, b"late\n".to_vec()));
    let part = agent.http.get(agent.url(&format!("{base}/work/log"))).header("range", "bytes=1-2");
    let part = part.send().await.expect("an answer");
    assert_eq!(part.status().as_u16(), 206);
    assert_eq!(part.headers()["content-disposition"], "attachment");
    assert_eq!(part.text().await.expect("text"), "at");

    let (status, archive) = agent.bytes(&base).await;
    assert_eq!(status, 200);
    let file = agent.dir.path().join("archive.tar");
    std::fs::write(&file, archive).expect("written");
    let tar = Command::new("tar").arg("-tf").arg(&file).output().expect("tar is there");
    assert_eq!(String::from_utf8_lossy(&tar.stdout), "out/.keep\nout/raw\nout/reversed\nwork/log\n");

    // The record has them, and agrees with its own log; and nothing of them is left outside of the spool.
    let (list, entry): (String, String) = agent
        .db()
        .query_row(
            "SELECT list, CAST(entry AS TEXT) FROM artifacts JOIN audit ON audit.job = artifacts.row \
             WHERE kind = 'job.ended'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("a row");
    assert!(entry.contains(&hex::encode(Sha256::digest(list))), "{entry}");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_placed_or_kept_is_said() {
    let agent =
        Agent::with("artifacts: {max_files: 2, max_file: 1000, max_total: 1500}\nsandbox: {fsize: 1 GiB}\n")
            .await;
    let file =
        |path: &str, content: &str| json!({"sandbox": {"files": [{"path": path, "content": content}]}});
    for (path, why) in [("/etc/x", "Read-only file system"), ("/bin/sh/x", "or a file")] {
        let result = agent.run_with("echo ran", file(path, "x")).await;
        assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(126), &json!("")), "{result}");
        assert!(result["error"].as_str().is_some_and(|error| error.contains(why)), "{result}");
    }
    let mut full = file("big", &"x".repeat(200_000));
    full["sandbox"]["tmpfs_size"] = json!(65_536);
    let result = agent.run_with("echo ran", full).await;
    assert!(result["error"].as_str().is_some_and(|error| error.contains("tmpfs_size")), "{result}");

    let script = "for n in 1 2 3; do head -c 600 /dev/zero >$n; done; head -c 1001 /dev/zero >large; \
                  truncate -s 500M sparse; ln -s 1 link; ln 1 hard; mkfifo pipe";
    let paths = json!(["large", "sparse", "link", "pipe", "hard", "2", "3", "1"]);
    let result = agent.run_with(script, json!({"sandbox": {"artifacts": paths}})).await;
    assert_eq!(result["exit_code"], 0, "{result}");
    for (path, refused) in [
        ("large", "too_large"),
        ("sparse", "too_large"),
        ("link", "symlink"),
        ("pipe", "not_a_file"),
        ("hard", "hard_link"),
        ("1", "hard_link"),
    ] {
        let one = listed(&result, path);
        assert_eq!(one["refused"], refused, "{one}");
        assert!(one["error"].as_str().is_some_and(|error| !error.is_empty()), "{one}");
    }
    assert_eq!((&listed(&result, "2")["size"], &listed(&result, "3")["size"]), (&json!(600), &json!(600)));
    let result = agent
        .run_with(
            "for n in 1 2 3; do head -c 900 /dev/zero >$n; done",
            json!({"sandbox": {"artifacts": ["1", "2", "3"]}}),
        )
        .await;
    assert_eq!(listed(&result, "2")["refused"], "total_too_large");
    // Each limit to its last byte, and one more.
    for (second, kept) in [(500, true), (501, false)] {
        let script = format!("head -c 1000 /dev/zero >1; head -c {second} /dev/zero >2");
        let result = agent.run_with(&script, json!({"sandbox": {"artifacts": ["1", "2"]}})).await;
        assert_eq!(listed(&result, "1")["size"], 1000, "{result}");
        let two = listed(&result, "2");
        match kept {
            true => assert_eq!(two["size"], second, "{two}"),
            false => assert_eq!(two["refused"], "total_too_large", "{two}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_their_controllers_alone_survive_a_crash_and_go_with_the_output() {
    let secret = "s3cr3t-of-an-artifact";
    let mut agent = Agent::setup(&crate::harness::Setup {
        config: "output: {redact: false}\n".to_owned(),
        ..crate::harness::Setup::default()
    })
    .await;
    let sandbox = json!({"sandbox": {"artifacts": ["f"], "secret_env": {"KEY": secret}}});
    let id = agent.submit_with("echo \"a $KEY b\" >f; touch ready; sleep 3", sandbox).await;
    agent.until_status(&id, "running").await;
    agent.kill_and_restart().await;
    let result = agent.ended(&id).await["result"].clone();
    assert_eq!(
        (&result["exit_code"], &listed(&result, "f")["masked"]),
        (&json!(0), &json!(true)),
        "{result}"
    );
    let path = format!("/api/v1/jobs/{id}/artifacts");
    assert_eq!(agent.bytes(&format!("{path}/f")).await, (200, b"a [REDACTED] b\n".to_vec()));
    for path in [path.clone(), format!("{path}/f")] {
        assert_eq!(agent.bytes(&format!("{path}?controller_id={CONTROLLER}")).await.0, 200);
        let (status, other) = agent.get(&format!("{path}?controller_id=controller-2")).await;
        assert_eq!((status, &other["code"]), (404, &json!("JOB_NOT_FOUND")), "{other}");
    }
    let (status, none) = agent.get("/api/v1/jobs/no-such-job/artifacts/f").await;
    assert_eq!((status, &none["code"]), (404, &json!("JOB_NOT_FOUND")));

    let spools = agent.dir.path().join("data/spool");
    for spool in std::fs::read_dir(&spools).expect("a folder") {
        let path = spool.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a spool");
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", path.display());
        std::fs::remove_file(path).expect("removed");
    }
    for path in [path.clone(), format!("{path}/f")] {
        until("the artifacts are gone", PATIENCE, async || agent.get(&path).await.1["code"] == "OUTPUT_GONE")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quickcmd_sends_files_and_fetches_artifacts() {
    let agent = Agent::start().await;
    let here = tempfile::tempdir().expect("a folder");
    let at = |name: &str| here.path().join(name);
    std::fs::write(at("script.sh"), "#!/bin/sh\ntr a-z A-Z <data/in.txt >out/result.txt\n").expect("written");
    std::fs::set_permissions(at("script.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a mode");
    std::fs::write(at("raw"), b"abc\xff").expect("written");
    write_private(&at("secret"), SECRET);
    let quickcmd = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_quickcmd"));
        command.env_clear().current_dir(here.path());
        command.args([
            "--url",
            &agent.url(""),
            "--controller-id",
            CONTROLLER,
            "--secret-file",
            "secret",
            "--ca",
        ]);
        command.arg(agent.dir.path().join("cert.pem")).args(args);
        let output = command.output().await.expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let run = [
        "run",
        "--job-id",
        "files-1",
        "--file",
        "script.sh",
        "--file",
        "raw:data/in.txt",
        "--file",
        "raw:out/copy",
        "--artifact",
        "out",
        "--artifacts-to",
        "got/here",
        "--",
        "./script.sh && chmod 755 out/result.txt",
    ];
    let ran = quickcmd(&run).await;
    assert_eq!(ran, (Some(0), String::new(), String::new()));
    assert_eq!(std::fs::read(at("got/here/out/result.txt")).expect("it is there"), b"ABC\xff");
    assert_eq!(std::fs::read(at("got/here/out/copy")).expect("it is there"), b"abc\xff");
    let mode = |path: &Path| std::os::unix::fs::MetadataExt::mode(&path.metadata().expect("it is there"));
    assert_eq!(mode(&at("got/here/out/result.txt")) & 0o100, 0o100);
    assert_eq!(mode(&at("got/here/out/copy")) & 0o100, 0);

    let list = quickcmd(&["artifacts", "files-1"]).await;
    assert_eq!(list.0, Some(0));
    assert!(list.1.contains("out/result.txt  4 bytes  ") && list.1.lines().count() == 2, "{list:?}");
    // A job's own code passes; a file that is lacking counts only where there is none.
    let ran = quickcmd(&["run", "--artifact", "none", "--artifacts-to", "got", "--", "exit 3"]).await;
    assert_eq!(ran.0, Some(3));
    assert!(ran.2.contains("artifact none was not kept: there is no such file"), "{ran:?}");
    let ran =
        quickcmd(&["submit", "--wait", "--artifact", "none", "--artifacts-to", "got", "--", "true"]).await;
    assert_eq!(ran.0, Some(67), "{ran:?}");
    // One that no request has room for.
    std::fs::write(at("large"), "x".repeat(1_500_000)).expect("written");
    let ran = quickcmd(&["run", "--file", "large", "--", "wc -c large"]).await;
    assert_eq!(ran.0, Some(64), "{ran:?}");
    assert!(ran.2.contains("the files of --file are 15") && ran.2.contains("takes 1048576 in"), "{ran:?}");
    // And an option in the words of the command line.
    let ran = quickcmd(&["run", "--memory", "1m", "--", "true"]).await;
    assert!(ran.0 == Some(64) && ran.2.contains("that is what --memory says"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_part_of_what_is_signed() {
    let agent = Agent::start().await;
    let first = payload("cat f", json!({"sandbox": {"files": [{"path": "f", "content": "a"}]}}));
    assert_eq!(agent.post(sign(&first.to_string())).await.0, 202);
    let mut other = first.clone();
    other["sandbox"]["files"][0]["content"] = json!("b");
    let (status, answer) = agent.post(sign(&other.to_string())).await;
    assert_eq!((status, &answer["code"]), (409, &json!("JOB_ID_CONFLICT")), "{answer}");
    let body = sign(&first.to_string()).replace(r#""content":"a""#, r#""content":"b""#);
    assert_eq!(agent.post(body).await.0, 401);
    agent.ended(first["job_id"].as_str().expect("an id")).await;
}
