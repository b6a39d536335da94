//! More than a job's share: processes, memory, disk, time.

use serde_json::{Value, json};

use crate::field::{Attempt, long, quick};

/// Ends by the deadline, or before if the bomb could not even go on.
fn ended_in_time(result: &Value) {
    let reason = result["reason"].as_str().unwrap_or_default();
    assert!(["timeout", "exited", "signalled", "oom"].contains(&reason), "{result}");
    if reason == "timeout" {
        assert_eq!(result["exit_code"], 124, "{result}");
    }
}

pub fn bombs() -> Vec<Attempt> {
    let small = || json!({"timeout_seconds": 2, "pids_limit": 32});
    vec![
        long("fork bomb", move |field| async move {
            let bomb = "b() { b | b & }; while :; do b 2>/dev/null; sleep 0.1; done";
            ended_in_time(&field.sh_with(bomb, small()).await);
        }),
        long("thread bomb", move |field| async move {
            let result = field.hostile("exec /tmp/hostile threads", small()).await;
            assert_eq!(result["reason"], "timeout", "{result}");
            let made: u32 = result["stdout"].as_str().unwrap()[8..].trim().parse().unwrap();
            assert!(made < 32, "{made} threads");
        }),
        long("zombie flood", move |field| async move {
            let result = field.hostile("exec /tmp/hostile zombies", small()).await;
            assert_eq!(result["reason"], "timeout", "{result}");
            let made: u32 = result["stdout"].as_str().unwrap()[8..].trim().parse().unwrap();
            assert!(made < 32, "{made} zombies");
        }),
    ]
}

pub fn work() -> Vec<Attempt> {
    vec![quick("a child that nobody waits for", |field| async move {
        let result = field.hostile("exec /tmp/hostile unseen", json!({})).await;
        assert_eq!((&result["reason"], &result["exit_code"]), (&json!("exited"), &json!(0)), "{result}");
        // It has worked for a second of processor time.
        assert!(result["usage"]["cpu_ms"].as_u64().unwrap() >= 950, "{result}");
    })]
}

pub fn memory() -> Vec<Attempt> {
    let small = || json!({"memory_limit": 33_554_432});
    vec![
        quick("heap bomb", move |field| async move {
            let result = field.hostile("exec /tmp/hostile heap", small()).await;
            assert_eq!((&result["status"], &result["reason"]), (&json!("failed"), &json!("oom")), "{result}");
            assert_eq!(result["oom_killed"], true);
        }),
        quick("a child of a parent that goes on", move |field| async move {
            let result = field.hostile("/tmp/hostile heap; echo survived", small()).await;
            assert_eq!(
                (&result["status"], &result["exit_code"]),
                (&json!("completed"), &json!(0)),
                "{result}"
            );
            assert_eq!(
                (&result["oom_killed"], &result["stdout"]),
                (&json!(true), &json!("survived\n")),
                "{result}"
            );
        }),
        quick("a tmpfs larger than the memory", move |field| async move {
            let command = "head -c 100000000 /dev/zero >/tmp/big; echo $?";
            let sandbox = json!({"memory_limit": 33_554_432, "tmpfs_size": 134_217_728});
            let result = field.sh_with(command, sandbox).await;
            assert_eq!(result["oom_killed"], true, "{result}");
        }),
    ]
}

pub fn disk() -> Vec<Attempt> {
    vec![
        quick("tmpfs and /dev/shm", |field| async move {
            let command = "for d in /tmp /work /dev/shm; do dd if=/dev/zero of=$d/big bs=1M count=500 2>&1; \
                           [ $(wc -c <$d/big) -gt 70000000 ] && echo DID; rm $d/big; done; echo tried";
            let result = field.sh_with(command, json!({"tmpfs_size": 8_388_608})).await;
            assert_eq!(result["stdout"].as_str().unwrap().matches("No space left").count(), 3, "{result}");
            assert!(!result["stdout"].as_str().unwrap().contains("DID"), "{result}");
        }),
        quick("inodes", |field| async move {
            let command = "mkdir /tmp/d; for n in $(seq 2000); do touch /tmp/d/$n || break; done 2>&1; ls /tmp/d | wc -l";
            let result = field.sh_with(command, json!({"tmpfs_size": 65_536})).await;
            let stdout = result["stdout"].as_str().unwrap();
            assert!(stdout.contains("No space left"), "{result}");
            let made: u32 = stdout.lines().last().unwrap().parse().unwrap();
            assert!(made < 1100, "{made} files");
        }),
        quick("a volume of the image's", |field| async move {
            let command = "dd if=/dev/zero of=/data/big bs=1M count=500 2>&1; \
                           [ $(wc -c </data/big) -gt 70000000 ] && echo DID; echo tried";
            let sandbox = json!({"tmpfs_size": 8_388_608, "image": field.with_volume});
            let result = field.sh_with(command, sandbox).await;
            crate::field::denied(&result);
            assert!(result["stdout"].as_str().unwrap().contains("No space left"), "{result}");
        }),
        quick("the root file system", |field| async move {
            let command = "for d in / /etc /bin /dev /proc /sys /.quickcmd /var /home /root; do \
                           (echo x >$d/x) 2>/dev/null && echo DID $d; done; (echo x >/bin/sh); echo tried";
            let result = field.sh(command).await;
            crate::field::denied(&result);
            assert!(result["stderr"].as_str().unwrap().contains("Read-only"), "{result}");
        }),
    ]
}

pub fn daemons() -> Vec<Attempt> {
    vec![
        quick("closed streams", |field| async move {
            let result = field.sh("echo a; exec >&- 2>&-; sleep 0.3; exit 9").await;
            assert_eq!((&result["reason"], &result["exit_code"]), (&json!("exited"), &json!(9)), "{result}");
        }),
        quick("daemons that hold the streams", |field| async move {
            let result = field
                .sh("sleep 300 & setsid sleep 300 & (setsid sh -c 'trap \"\" TERM HUP; sleep 300' &); echo done")
                .await;
            assert_eq!(
                (&result["reason"], &result["stdout"]),
                (&json!("exited"), &json!("done\n")),
                "{result}"
            );
        }),
        quick("a daemon that prints for ever", |field| async move {
            let result = field.sh("(setsid sh -c 'exec yes' &); sleep 0.2; exit 5").await;
            assert_eq!((&result["reason"], &result["exit_code"]), (&json!("exited"), &json!(5)), "{result}");
        }),
    ]
}

/// SIGKILL came when the grace was over. By the job's own times, which a reader who waits does not lengthen. Not within
/// the 2 s after the grace that an idle machine needs less than: on a busy one the supervisor waits its turn like all others.
fn killed_in_time(result: &Value, earliest: u64) {
    assert_eq!((&result["reason"], &result["exit_code"]), (&json!("timeout"), &json!(124)), "{result}");
    let took = result["duration_ms"].as_u64().unwrap();
    assert!((earliest..=TIMEOUT + GRACE + 10_000).contains(&took), "{took} ms: {result}");
}

/// What the stubborn ones are given, in milliseconds.
const TIMEOUT: u64 = 1000;
/// What the agent is configured to give them then.
const GRACE: u64 = 1000;

pub fn stubborn() -> Vec<Attempt> {
    let short = || json!({"timeout_seconds": TIMEOUT / 1000});
    vec![
        long("ignore SIGTERM", move |field| async move {
            let result = field.sh_with("trap '' TERM INT HUP; while :; do sleep 300; done", short()).await;
            killed_in_time(&result, TIMEOUT + GRACE);
        }),
        long("SIGSTOP itself", move |field| async move {
            let result = field.sh_with("kill -STOP $$; echo went on; sleep 300", short()).await;
            killed_in_time(&result, TIMEOUT);
        }),
        quick("signals to the supervisor", |field| async move {
            let command = "for s in TERM INT HUP QUIT KILL STOP SEGV ABRT USR1 CHLD; do kill -$s 1; done 2>/dev/null; \
                           echo alive; exit 7";
            let result = field.sh(command).await;
            // A wish to end counts from outside only: a job can't have itself recorded as cancelled by somebody.
            assert_eq!(
                (&result["reason"], &result["exit_code"], &result["stdout"]),
                (&json!("exited"), &json!(7), &json!("alive\n")),
                "{result}"
            );
        }),
    ]
}
