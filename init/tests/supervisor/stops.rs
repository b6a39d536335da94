//! Ending a job before its own end.

use nix::sys::signal::Signal;
use quickcmd_init::proto::{Ending, Stop};

use crate::harness::{Sandbox, exited, run, sh};

const LONG: &str = "while :; do sleep 1; done";

#[test]
fn a_deadline_is_sigterm_first() {
    let mut job = sh("trap 'echo cleaned; exit 3' TERM; echo up; sleep 1000 & wait");
    job.timeout_ms = 2000;
    job.grace_ms = 60_000;
    let outcome = run(&job);
    assert_eq!(outcome.report.stopped, Some(Stop::Timeout));
    assert_eq!(outcome.report.ending, exited(3));
    assert_eq!(outcome.stdout(), "up\ncleaned\n");
    assert!(outcome.report.run_ms >= 2000);
}

#[test]
fn sigkill_follows_for_who_does_not_listen() {
    let mut job = sh(&format!("trap '' TERM; {LONG}"));
    job.timeout_ms = 2000;
    job.grace_ms = 200;
    let outcome = run(&job);
    assert_eq!(outcome.report.stopped, Some(Stop::Timeout));
    assert_eq!(outcome.report.ending, Ending::Signalled { signal: 9 });
    assert!(outcome.report.run_ms >= 2200, "{}", outcome.report.run_ms);
}

#[test]
fn without_a_grace_it_is_sigkill_at_once() {
    let mut job = sh(LONG);
    job.timeout_ms = 100;
    job.grace_ms = 0;
    assert_eq!(run(&job).report.ending, Ending::Signalled { signal: 9 });
}

#[test]
fn a_stopped_process_is_ended_too() {
    let mut job = sh("kill -STOP $$; echo went on");
    job.timeout_ms = 200;
    let outcome = run(&job);
    assert_eq!(outcome.report.stopped, Some(Stop::Timeout));
    assert_eq!(outcome.report.ending, Ending::Signalled { signal: 15 });
    let mut job = sh("trap '' TERM; while :; do kill -STOP $$; done");
    job.timeout_ms = 2000;
    job.grace_ms = 100;
    assert_eq!(run(&job).report.ending, Ending::Signalled { signal: 9 });
}

#[test]
fn the_agent_cancels() {
    let mut sandbox = Sandbox::start();
    sandbox.send(&sh(&format!("echo up; {LONG}")), &[]);
    sandbox.wait_for_output("up");
    // Only the first reason counts. Both arrive at once: after the first alone the supervisor may have gone.
    sandbox.stops(&[Stop::Cancelled, Stop::Timeout]);
    let outcome = sandbox.end();
    assert_eq!(outcome.report.stopped, Some(Stop::Cancelled));
    assert_eq!(outcome.report.ending, Ending::Signalled { signal: 15 });
}

#[test]
fn the_last_word_of_a_closed_channel_counts() {
    let mut sandbox = Sandbox::start();
    sandbox.send(&sh(LONG), &[]);
    sandbox.stop(Stop::Timeout);
    sandbox.channel = None;
    assert_eq!(sandbox.end().report.stopped, Some(Stop::Timeout));
}

#[test]
fn docker_s_sigterm_cancels() {
    let mut sandbox = Sandbox::start();
    sandbox.send(&sh(&format!("echo up; {LONG}")), &[]);
    sandbox.wait_for_output("up");
    sandbox.signal(Signal::SIGTERM);
    assert_eq!(sandbox.end().report.stopped, Some(Stop::Cancelled));
}

#[test]
fn too_much_output_ends_the_job_where_that_is_asked_for() {
    let mut job = sh("yes");
    job.output_limit = 1_000_000;
    job.end_at_output_limit = true;
    let outcome = run(&job);
    assert_eq!(outcome.report.stopped, Some(Stop::OutputLimit));
    assert_eq!(outcome.report.ending, Ending::Signalled { signal: 15 });
    assert_eq!(outcome.report.stdout.bytes, 1_000_000);
    assert!(outcome.words()[0].starts_with("stdout: output limit of 1000000 bytes reached, "));
}

#[test]
fn every_process_hears_of_it() {
    let mut sandbox = Sandbox::start();
    let process = format!("trap \"echo got it; exit\" TERM; echo up; {LONG}");
    // The first process stays as long as the others: its end is the end of all.
    let mut job = sh(&format!(
        "trap : TERM; for i in 1 2 3; do setsid sh -c '{process}' & done; wait; wait; wait; wait"
    ));
    job.grace_ms = 60_000;
    sandbox.send(&job, &[]);
    sandbox.wait_for_output("up\nup\nup\n");
    sandbox.stop(Stop::Cancelled);
    let outcome = sandbox.end();
    assert_eq!(outcome.stdout(), format!("{}{}", "up\n".repeat(3), "got it\n".repeat(3)));
}

#[test]
fn an_end_is_not_a_stop() {
    // A word that comes after the end changes nothing, and one that comes together with it may.
    let mut sandbox = Sandbox::start();
    sandbox.send(&sh("echo bye"), &[]);
    sandbox.wait_for_output("bye");
    let outcome = sandbox.end();
    assert_eq!((outcome.report.stopped, outcome.report.ending), (None, exited(0)));
}
