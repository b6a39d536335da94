//! Limits of a running job, as it and the result see them.

use serde_json::json;

use crate::harness::Agent;

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_is_told_from_an_exit() {
    let agent = Agent::with("grace: 1s\n").await;
    let result = agent.run_with("echo before; sleep 300", json!({"sandbox": {"timeout_seconds": 1}})).await;
    assert_eq!((&result["status"], &result["reason"]), (&json!("failed"), &json!("timeout")), "{result}");
    assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(124), &json!("before\n")));
    let result = agent
        .run_with(
            "trap 'echo bye; exit 3' TERM; sleep 300 & wait",
            json!({"sandbox": {"timeout_seconds": 1}}),
        )
        .await;
    assert_eq!(
        (&result["reason"], &result["stdout"]),
        (&json!("timeout"), &json!("bye\n")),
        "it may clean up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_is_told_from_a_kill() {
    let agent = Agent::start().await;
    let small = json!({"sandbox": {"memory_limit": 33_554_432}});
    let result = agent.run_with("exec tail /dev/zero", small.clone()).await;
    assert_eq!((&result["status"], &result["reason"]), (&json!("failed"), &json!("oom")), "{result}");
    assert_eq!(result["oom_killed"], true);
    let result = agent.run_with("tail /dev/zero; echo survived", small).await;
    assert_eq!((&result["reason"], &result["oom_killed"]), (&json!("exited"), &json!(true)), "{result}");
    assert_eq!(result["stdout"], "survived\n");
    let result = agent.run("kill -9 $$").await;
    assert_eq!(
        (&result["reason"], &result["oom_killed"], &result["exit_code"]),
        (&json!("signalled"), &json!(false), &json!(137)),
        "{result}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_leaves_behind_ends_with_it() {
    let agent = Agent::start().await;
    // A daemon that keeps stdout open, and one in a session of its own.
    let result = agent.run("(sleep 300 &) ; setsid sleep 300 & echo parent is done").await;
    assert_eq!(
        (&result["reason"], &result["stdout"]),
        (&json!("exited"), &json!("parent is done\n")),
        "{result}"
    );
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_is_capped_and_a_neighbour_does_not_feel_it() {
    let agent = Agent::with("grace: 1s\npolicy: {deny: []}\n").await;
    let sandbox = json!({"sandbox": {"timeout_seconds": 3, "pids_limit": 32}});
    let bomb =
        agent.submit_with("b() { b | b & }; while :; do b 2>/dev/null; sleep 0.2; done", sandbox).await;
    agent.until_status(&bomb, "running").await;
    let neighbour = agent.run("echo fine").await;
    assert_eq!(neighbour["stdout"], "fine\n");
    let end = agent.ended(&bomb).await;
    assert!(matches!(end["reason"].as_str(), Some("timeout" | "exited" | "signalled")), "{end}");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_file_is_a_limit_of_files_and_not_of_the_output() {
    let agent = Agent::with("sandbox: {fsize: 1 MiB}\n").await;
    let result = agent
        .run("head -c 3145728 /dev/zero >&2; { head -c 2097152 /dev/zero >/tmp/f; echo $?; } 2>/dev/null; wc -c </tmp/f")
        .await;
    assert_eq!(
        (&result["reason"], &result["exit_code"]),
        (&json!("exited"), &json!(0)),
        "{}",
        result["error"]
    );
    assert_eq!((&result["stderr_bytes"], &result["stderr_truncated"]), (&json!(3_145_728), &json!(false)));
    // SIGXFSZ is 25.
    assert_eq!(result["stdout"], "153\n1048576\n");
}
