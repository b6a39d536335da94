//! From start to removal, for every way that a job may end.

use quickcmd::sandbox::{Engine, Stop};
use quickcmd_init::proto::Ending;

use crate::bench::{Bench, finish, until_said};

#[tokio::test(flavor = "multi_thread")]
async fn output_and_exit_code_arrive_and_nothing_is_left() {
    let bench = Bench::new().await;
    let run = bench.run("echo out; echo err >&2; exit 7").await;
    assert_eq!(*run.ending(), Ending::Exited { code: 7 });
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    assert!(!run.evidence.running && !run.evidence.oom_killed, "{:?}", run.evidence);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_environment_reach_the_job() {
    let bench = Bench::new().await;
    let mut sandbox = bench.launch().await;
    assert!(!sandbox.warm());
    let mut job = bench.job("cat; echo \"$A\"; pwd");
    // Larger than a socket's buffer.
    let stdin = "0123456789abcde\n".repeat(40_000).into_bytes();
    job.stdin_len = stdin.len() as u64;
    job.env.push(("A".to_owned(), "b c".to_owned()));
    let (spool, read) = bench.spool();
    sandbox.hand_over(job.clone(), stdin.clone(), spool).await.unwrap();
    let (again, _) = bench.spool();
    assert!(sandbox.hand_over(job, Vec::new(), again).await.is_err(), "a sandbox takes one job");
    let run = finish(&*sandbox, read).await;
    assert_eq!(run.stdout.len(), stdin.len() + "b c\n/work\n".len());
    assert!(run.stdout.ends_with("b c\n/work\n"));
    bench.gone(sandbox).await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_a_timeout_and_a_missing_program_are_told_apart() {
    let bench = Bench::new().await;
    let run = bench.run("kill -9 $$").await;
    assert_eq!(*run.ending(), Ending::Signalled { signal: 9 });

    let mut job = bench.job("trap '' TERM; echo on; while :; do sleep 1; done");
    job.timeout_ms = 300;
    job.grace_ms = 200;
    let run = bench.run_job(job).await;
    assert_eq!(run.report.unwrap().stopped, Some(Stop::Timeout));

    let mut job = bench.job("");
    job.argv = vec!["/no/such/program".to_owned()];
    let run = bench.run_job(job).await;
    assert!(matches!(run.ending(), Ending::NotStarted { code: 127, .. }), "{run:?}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_can_be_stopped_with_and_without_a_channel_and_killed() {
    let bench = Bench::new().await;
    for adopted in [false, true] {
        let mut sandbox = bench.launch().await;
        let (spool, read) = bench.spool();
        sandbox.hand_over(bench.job("echo on; sleep 600"), Vec::new(), spool).await.unwrap();
        until_said(&read, "on").await;
        assert!(sandbox.inspect().await.unwrap().unwrap().running);
        if adopted {
            let other = bench.engine.adopt(sandbox.id());
            other.stop(Stop::Cancelled).await.unwrap();
            // It would remove the container when dropped, before its end is seen.
            std::mem::forget(other);
        } else {
            sandbox.stop(Stop::Cancelled).await.unwrap();
        }
        let run = finish(&*sandbox, read).await;
        assert_eq!(run.report.as_ref().unwrap().stopped, Some(Stop::Cancelled), "{run:?}");
        bench.gone(sandbox).await;
    }

    let mut sandbox = bench.launch().await;
    let (spool, read) = bench.spool();
    sandbox.hand_over(bench.job("echo on; sleep 600"), Vec::new(), spool).await.unwrap();
    until_said(&read, "on").await;
    sandbox.kill().await.unwrap();
    let run = finish(&*sandbox, read).await;
    assert_eq!(run.report, None, "a killed supervisor says nothing");
    assert_eq!(run.evidence.exit_code, Some(137));
    sandbox.kill().await.unwrap();
    bench.gone(sandbox).await;
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_a_limit_and_its_end_leaves_evidence() {
    let bench = Bench::new().await;
    // A shell variable that doubles: no tool but the shell is needed.
    let run = bench.run("x=0123456789abcdef; while :; do x=$x$x; done").await;
    let kills = run.report.as_ref().map_or(0, |report| report.oom_kills);
    assert!(kills > 0 || run.evidence.oom_killed, "{run:?}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sandbox_is_removed_with_or_without_its_job() {
    let bench = Bench::new().await;
    drop(bench.launch().await);
    let mut sandbox = bench.launch().await;
    let (spool, read) = bench.spool();
    sandbox.hand_over(bench.job("echo on; sleep 600"), Vec::new(), spool).await.unwrap();
    until_said(&read, "on").await;
    drop(sandbox);
    // Closing waits for the removals, and looks.
    bench.close().await;
}
