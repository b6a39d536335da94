//! The check of the host, on this one.

use std::process::{Command, Output};

use serde_json::Value;

use crate::{
    filter::Filter,
    harness::{Agent, Setup},
};

fn preflight(agent: &Agent, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
        .args(["preflight", "--config"])
        .arg(agent.dir.path().join("agent.yaml"))
        .args(more)
        .output()
        .expect("the agent's program starts")
}

#[test]
fn the_host_is_looked_at_as_text_and_as_json() {
    let agent = Agent::prepare(&Setup::default());
    let ran = preflight(&agent, &["--json"]);
    let said: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let findings = said["findings"].as_array().expect("a list");
    let mut checks: Vec<&str> = findings.iter().filter_map(|finding| finding["check"].as_str()).collect();
    checks.dedup();
    assert_eq!(
        checks,
        [
            "docker",
            "containerd",
            "runc",
            "cgroup",
            "limits",
            "seccomp",
            "userns",
            "lsm",
            "socket",
            "docker-tcp",
            "kernel",
            "cpu",
            "smt",
            "ksm",
            "swap",
            "core",
            "ptrace",
            "kptr",
            "dmesg",
            "bpf",
            "clock",
            "data-fs",
            "disk",
            "nofile",
            "config",
            "data",
            "user",
            "image",
        ]
    );
    let of = |check: &str| findings.iter().find(|finding| finding["check"] == check).expect("it is there");
    // These hold wherever these tests run.
    assert_eq!(of("user")["level"], "danger", "{said}");
    assert_eq!(of("config")["level"], "ok", "{said}");
    assert_eq!(of("image")["level"], "ok", "{said}");
    assert_eq!(of("seccomp")["level"], "ok", "{said}");
    for finding in findings {
        let empty = finding["change"].as_str().is_some_and(str::is_empty);
        assert_eq!(empty, finding["level"] == "ok", "{finding}");
    }
    assert!(said["dangers"].as_u64().is_some_and(|dangers| dangers > 0), "{said}");
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");

    let ran = preflight(&agent, &[]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(text.contains("danger   user         run_as_user is root\n"), "{text}");
    assert!(text.trim_end().ends_with(" well"), "{text}");
}

/// A filter that somebody started by hand, wherever its socket is, is not taken for Docker.
#[test]
fn it_says_whether_docker_or_the_filter_answers() {
    let agent = Agent::prepare(&Setup::default());
    let socket_of = |agent: &Agent| {
        let ran = preflight(agent, &["--json"]);
        let said: Value =
            serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let findings = said["findings"].as_array().cloned().unwrap_or_default();
        let found = findings.iter().find(|finding| finding["check"] == "socket");
        found.and_then(|finding| finding["found"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    assert!(
        socket_of(&agent).starts_with("Docker itself answers on /var/run/docker.sock"),
        "{}",
        socket_of(&agent)
    );

    let filter = Filter::start(&agent, &[]);
    let file = agent.dir.path().join("agent.yaml");
    let text = std::fs::read_to_string(&file).expect("written by the harness");
    std::fs::write(&file, format!("{text}docker_host: unix://{}\n", filter.socket.display()))
        .expect("written");
    let said = socket_of(&agent);
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        said.starts_with(&format!("the Docker filter {version} answers on {}", filter.socket.display())),
        "{said}"
    );
}

#[test]
fn without_a_docker_the_rest_is_looked_at() {
    let agent = Agent::prepare(&Setup {
        config: "docker_host: unix:///nowhere/docker.sock\n".to_owned(),
        signed_reads: false,
    });
    let ran = preflight(&agent, &[]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(
        text.contains(
            "danger   docker       there is no Docker socket at docker_host unix:///nowhere/docker.sock\n"
        ),
        "{text}"
    );
    assert!(text.contains("-> start what is to listen there"), "{text}");
    assert!(!text.contains("hyper"), "{text}");
    assert!(text.contains("kernel"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_refuses_to_start_and_warn_says_it() {
    let setup = |config: &str| Setup { config: config.to_owned(), signed_reads: false };
    let mut strict = Agent::prepare(&setup("preflight: strict\n"));
    let ran = Command::new(env!("CARGO_BIN_EXE_quickcmd-agent"))
        .arg("--config")
        .arg(strict.dir.path().join("agent.yaml"))
        .output()
        .expect("the agent's program starts");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(69), "{said}");
    assert!(said.contains("quickcmd-agent: preflight: user: run_as_user is root -> "), "{said}");
    assert!(said.contains("preflight is strict: the agent does not start on this host"), "{said}");
    assert!(!strict.dir.path().join("data").exists(), "it has not begun");
    assert_eq!(strict.terminate(), None);

    let warned = Agent::setup(&setup("preflight: warn\n")).await;
    assert!(warned.log().contains("preflight: danger"), "{}", warned.log());
    assert_eq!(warned.run("echo runs").await["stdout"], "runs\n");
}
