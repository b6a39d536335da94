//! An engine with `userns-remap`: what is user 65532 in a sandbox is another on the host, and root there is nobody here.

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::{Value, json};

use crate::{
    engine::Dockerd,
    harness::{Agent, PATIENCE, Setup, until},
};

/// How many ids a sandbox has.
const COUNT: u32 = 65_536;
/// `sandbox.uid` and `sandbox.gid`, as they are by default.
const USER: u32 = 65_532;

/// The first id of a sandbox, on the host: another one for each run of these tests, and nobody else's.
fn first() -> u32 {
    1_000_000 + std::process::id() % 10_000 * COUNT
}

/// Processes of the host by what they were started with, and the ids (real, effective, saved, file system) of each.
fn ids_of(command: &str) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("a folder").flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if !read("cmdline").contains(command) {
            continue;
        }
        let status = read("status");
        let ids = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(|id| id.parse().expect("a number")).collect()
        };
        found.push((ids("Uid:"), ids("Gid:")));
    }
    found
}

/// Processes of the host that have an id of a sandbox.
fn remapped_processes() -> BTreeSet<String> {
    let first = first();
    let entries = fs::read_dir("/proc").expect("a folder").flatten();
    let ours = entries.filter(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
        uid.and_then(|uid| uid.parse().ok()).is_some_and(|uid: u32| (first..first + COUNT).contains(&uid))
    });
    ours.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_ids_of_its_own_and_works_as_any_other() {
    let docker = Dockerd::start_remapped(first()).await;
    let config = format!("docker_host: \"{}\"\ngrace: 1s\npool: {{size: 1, max: 1}}\n", docker.host());
    let agent = Agent::setup(&Setup { config, signed_reads: false }).await;

    // The host's check sees it.
    let said = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
        .args(["preflight", "--json", "--config"])
        .arg(agent.dir.path().join("agent.yaml"))
        .output()
        .expect("the agent's program starts");
    let said: Value =
        serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let findings = said["findings"].as_array().expect("a list");
    let userns = findings.iter().find(|finding| finding["check"] == "userns").expect("it is looked at");
    assert_eq!(userns["level"], "ok", "{userns}");

    // Files in, standard input, artifacts out, and a look at it from the host. The number is in its command alone.
    let mark = format!("7{:09}", std::process::id());
    let command = format!(
        "./tool; id -u; id -g; cat /proc/self/uid_map; cat >out/in; touch out/mine; stat -c '%u %g' tool out/mine; \
         until [ -e /tmp/{mark} ]; do sleep 0.1; done; exit 3"
    );
    let more = json!({"sandbox": {
        "stdin": "by the way",
        "files": [
            {"path": "tool", "content": "#!/bin/sh\necho from a file >out/made\n", "mode": "0755"},
            {"path": "out/.keep", "content": ""},
        ],
        "artifacts": ["out"],
    }});
    let id = agent.submit_with(&command, more).await;
    agent.until_status(&id, "running").await;
    until("the host sees the job's process", PATIENCE, async || !ids_of(&mark).is_empty()).await;
    for (uids, gids) in ids_of(&mark) {
        // One that has gone meanwhile has none.
        assert!(uids.iter().chain(&gids).all(|id| *id == first() + USER), "{uids:?} {gids:?}");
    }
    let container: String = agent
        .db()
        .query_row("SELECT container_id FROM jobs WHERE job_id = ?", [&id], |row| row.get(0))
        .expect("its container");
    let said = docker.docker(&["exec", &container, "/bin/sh", "-c", &format!("touch /tmp/{mark}")]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let end = agent.ended(&id).await;
    let result = &end["result"];
    assert_eq!((&end["reason"], &result["exit_code"]), (&json!("exited"), &json!(3)), "{end}");
    assert_eq!(result["stderr"], "", "{end}");
    let words: Vec<&str> = result["stdout"].as_str().expect("text").split_whitespace().collect();
    let (first, count) = (first().to_string(), COUNT.to_string());
    assert_eq!(words, ["65532", "65532", "0", &first, &count, "65532", "65532", "65532", "65532"], "{end}");
    for (path, bytes) in [("made", "from a file\n"), ("in", "by the way"), ("mine", "")] {
        let url = agent.url(&format!("/api/v1/jobs/{id}/artifacts/out/{path}"));
        let answer = agent.http.get(url).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{path}: {result}");
        assert_eq!(answer.text().await.expect("text"), bytes, "{path}");
    }

    // Ends by force are told as elsewhere.
    let result = agent
        .run_with("trap '' TERM; while :; do sleep 1; done", json!({"sandbox": {"timeout_seconds": 1}}))
        .await;
    assert_eq!(result["reason"], "timeout", "{result}");
    let small = json!({"sandbox": {"memory_limit": 33_554_432}});
    let result = agent.run_with("exec tail /dev/zero", small).await;
    assert_eq!((&result["reason"], &result["oom_killed"]), (&json!("oom"), &json!(true)), "{result}");
    assert_eq!(agent.run("echo again").await["stdout"], "again\n");

    let mut agent = agent;
    let code = tokio::task::block_in_place(|| agent.terminate());
    assert_eq!(code, Some(0), "{}", agent.log());
    docker.no_container_left(&agent).await;
    assert_eq!(agent.no_folder_left().await, None);
    until("no process of a sandbox is left", PATIENCE, async || remapped_processes().is_empty()).await;
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
