//! Secrets in a job's output.

use quickcmd_init::proto::{Ending, Stop};

use crate::harness::{Sandbox, job, run, sh};

#[test]
fn known_values_and_patterns_are_masked_in_both_streams() {
    let mut job = sh("echo \"a $KEY b\"; echo \"DB_PASSWORD=hunter2 $KEY\" >&2");
    job.env.push(("KEY".into(), "s3cr3t value".into()));
    job.secrets = vec!["s3cr3t value".into()];
    let outcome = run(&job);
    assert_eq!(outcome.stdout(), "a [REDACTED] b\n");
    // The patterns are asked for; known values are not to be asked for.
    assert_eq!(outcome.stderr(), "DB_PASSWORD=hunter2 [REDACTED]\n");
    job.redact = true;
    assert_eq!(run(&job).stderr(), "DB_PASSWORD=[REDACTED] [REDACTED]\n");
}

#[test]
fn a_secret_in_two_writes_is_masked() {
    let mut job = sh(
        "printf 'x s3cr'; sleep 0.1; printf '3t y passw'; sleep 0.1; printf 'ord=hun'; sleep 0.1; echo ter2",
    );
    job.secrets = vec!["s3cr3t".into()];
    job.redact = true;
    assert_eq!(run(&job).stdout(), "x [REDACTED] y password=[REDACTED]\n");
}

#[test]
fn what_is_held_back_comes_out_at_the_end() {
    let mut job = sh("printf 'x s3cr'; printf 'http://host:80' >&2");
    job.secrets = vec!["s3cr3t".into()];
    job.redact = true;
    let outcome = run(&job);
    assert_eq!((outcome.stdout(), outcome.stderr()), ("x s3cr".into(), "http://host:80".into()));
}

#[test]
fn a_question_is_not_held_back() {
    let mut sandbox = Sandbox::start();
    let mut job = sh("printf 'Password: '; sleep 1000");
    job.redact = true;
    job.secrets = vec!["s3cr3t".into()];
    sandbox.send(&job, &[]);
    sandbox.wait_for_output("Password: ");
    sandbox.stop(Stop::Cancelled);
    sandbox.end();
}

#[test]
fn the_limit_counts_what_is_recorded() {
    let mut job = sh("printf 's3cr3t-s3cr3t-s3cr3t'");
    job.secrets = vec!["s3cr3t".into()];
    job.output_limit = 15;
    let outcome = run(&job);
    assert_eq!(outcome.stdout(), "[REDACTED]-[RED");
    assert_eq!(outcome.report.stdout.dropped, 17);
}

#[test]
fn why_a_job_was_not_started_shows_no_secret() {
    let mut named = job(&["PGPASSWORD=hunter2"]);
    named.redact = true;
    let mut known = job(&["/opt/s3cr3t-value/run"]);
    known.secrets = vec!["s3cr3t-value".into()];
    let mut folder = sh("true");
    folder.workdir = "/srv/s3cr3t-value".into();
    folder.secrets = vec!["s3cr3t-value".into()];
    for (job, secret) in [(named, "hunter2"), (known, "s3cr3t-value"), (folder, "s3cr3t-value")] {
        let outcome = run(&job);
        let Ending::NotStarted { error, .. } = &outcome.report.ending else { panic!("{:?}", outcome.report) };
        assert!(error.contains("[REDACTED]"), "{error}");
        let spool = outcome.records.iter().flat_map(|record| record.1.clone()).collect::<Vec<_>>();
        assert!(!String::from_utf8_lossy(&spool).contains(secret), "{error}");
    }
}
