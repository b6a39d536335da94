//! How a job ended, in one sentence and what to do; and refusals that are said in the words of the command line.

use std::fs;

use quickcmd::wire::{Code, Problem, Reason};

use crate::fake::{self, Fake};

/// What `run` says on standard error of a job that ended so.
async fn said(reason: Reason, exit: i32, error: Option<&'static str>) -> String {
    let agent = Fake::start(move |seen, _| {
        if seen.method == "POST" {
            return fake::accepted();
        }
        let mut frames = fake::job(&[], exit, reason);
        frames[0].result.as_mut().expect("a result").error = error.map(str::to_owned);
        fake::frames(frames, false)
    })
    .await;
    agent.run(&["run", "--job-id", "job-1", "--", "true"]).await.err()
}

#[tokio::test]
async fn an_ending_is_said_once() {
    for (reason, exit, error, sentence) in [
        (Reason::Cancelled, 143, Some("the job was cancelled"), "was cancelled"),
        (
            Reason::Cancelled,
            -1,
            Some("the job was cancelled before it started"),
            "was cancelled before it started",
        ),
        (
            Reason::Cancelled,
            -1,
            Some("the job was cancelled: its controller was revoked"),
            "was cancelled: its controller was revoked",
        ),
        (
            Reason::Cancelled,
            143,
            Some("the agent stopped before the job's end"),
            "was cancelled: the agent stopped before the job's end",
        ),
        (Reason::Cancelled, 143, None, "was cancelled"),
        (
            Reason::Timeout,
            124,
            Some("the job ran longer than its timeout of 1 s and was ended"),
            "ran longer than its timeout of 1 s and was ended",
        ),
        (
            Reason::Oom,
            137,
            Some("the job ran out of memory and was killed"),
            "ran out of memory and was killed",
        ),
        (
            Reason::OutputLimit,
            137,
            Some("the job wrote more than its output limit and was ended"),
            "wrote more than its output limit and was ended",
        ),
        (
            Reason::Expired,
            -1,
            Some("the job's ttl passed while it waited in the queue"),
            "was not run: its ttl passed while it waited in the queue",
        ),
        (
            Reason::ImageUnavailable,
            -1,
            Some("image none:1 is not available: it is not here"),
            "was not run: image none:1 is not available: it is not here",
        ),
        (
            Reason::SandboxError,
            -1,
            Some("the Docker engine did not answer for 60 s: no socket"),
            "could not be run: the Docker engine did not answer for 60 s: no socket",
        ),
        (
            Reason::SandboxError,
            -1,
            Some("the job may have been started: the channel broke"),
            "may have been started: the channel broke",
        ),
        (
            Reason::Lost,
            -1,
            Some(
                "the job was running, but its container is gone before it reported an end; it is not run again",
            ),
            "was running, but its container is gone before it reported an end; it is not run again",
        ),
        (
            Reason::Lost,
            -1,
            Some("the record was restored from a backup; what became of it is not known"),
            "was lost: the record was restored from a backup; what became of it is not known",
        ),
        (Reason::Lost, -1, None, "was lost: it is not known how it ended"),
    ] {
        let said = said(reason, exit, error).await;
        assert_eq!(said.lines().next(), Some(&*format!("error: job job-1 {sentence}")), "{reason:?}");
        assert!(said.lines().nth(1).is_some_and(|line| line.starts_with("hint: ")), "{said}");
    }
    let said = said(Reason::Lost, -1, Some("the job's container could not be killed")).await;
    assert!(said.starts_with("error: job job-1's container could not be killed\n"), "{said}");
}

#[tokio::test]
async fn of_a_job_that_expired_it_is_said_what_to_do() {
    let said = said(Reason::Expired, -1, Some("the job's ttl passed while it waited in the queue")).await;
    for word in ["could not start it in time", "quickcmd health", "under a new job id", "--ttl"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[tokio::test]
async fn what_the_agent_calls_a_field_is_said_as_an_option() {
    for (problem, exit, hint) in [
        (
            Problem::new(Code::InvalidField)
                .details("`sandbox.memory_limit`: must be a whole number of bytes, at least 16777216")
                .with("field", "sandbox.memory_limit"),
            64,
            "hint: that is what --memory says\n",
        ),
        (
            Problem::new(Code::InvalidField).with("field", "sandbox.files.0.path"),
            64,
            "hint: that is what --file says\n",
        ),
        (
            Problem::new(Code::LimitExceeded).with("field", "sandbox.cpu_limit"),
            77,
            "hint: ask for less with --cpu, or",
        ),
        (
            Problem::new(Code::LimitExceeded).with("field", "sandbox.network"),
            77,
            "hint: leave --network out, or",
        ),
        (
            Problem::new(Code::ImageNotAllowed).with("field", "sandbox.image"),
            77,
            "hint: --image names another one;",
        ),
        (
            Problem::new(Code::UnknownField).with("field", "sandbox.artifacts"),
            65,
            ": leave --artifact out or",
        ),
        (Problem::new(Code::InsufficientScopes), 77, "--scope"),
    ] {
        let code = problem.code;
        let agent = Fake::start(move |_, _| fake::problem(problem.clone())).await;
        let ran = agent.run(&["submit", "--", "ls"]).await;
        assert_eq!(ran.code, Some(exit), "{}", ran.err());
        assert!(ran.err().contains(hint), "{code:?}: {}", ran.err());
    }
}

#[tokio::test]
async fn a_job_that_is_too_large_is_told_which_part_of_it() {
    let agent = Fake::start(|_, _| fake::problem(Problem::new(Code::BodyTooLarge).with("max", 4096))).await;
    let dir = tempfile::tempdir().expect("a folder");
    let (large, small) = (dir.path().join("large"), dir.path().join("small"));
    fs::write(&large, "x".repeat(9000)).expect("a file");
    fs::write(&small, "x").expect("a file");
    let (large, small) = (large.to_str().expect("UTF-8"), small.to_str().expect("UTF-8"));
    let text = "x".repeat(9000);
    for (args, wanted, not) in [
        (
            &["--file", large, "--", "ls"][..],
            &["the files of --file are 90", "4096 in a request"][..],
            "standard input",
        ),
        (
            &["--file", small, "--stdin", large, "--", "ls"],
            &["the standard input is 900", "give less of it"],
            "--file",
        ),
        (&["--", &text], &["the job has 9", "make it shorter"], "--file"),
    ] {
        let ran = agent.run(&[&["submit"][..], args].concat()).await;
        assert_eq!(ran.code, Some(64), "{}", ran.err());
        assert!(!ran.err().contains(not), "{}", ran.err());
        for word in wanted.iter().chain(&["max_body_bytes"]) {
            assert!(ran.err().contains(word), "{word}: {}", ran.err());
        }
    }
    // Nothing is cut off in silence.
    fs::File::create(dir.path().join("huge"))
        .and_then(|file| file.set_len((64 << 20) + 1))
        .expect("a sparse file");
    let huge = dir.path().join("huge");
    for option in ["--file", "--stdin"] {
        let before = agent.asked("POST", "/api/v1/jobs").len();
        let ran = agent.run(&["submit", option, huge.to_str().expect("UTF-8"), "--", "ls"]).await;
        assert_eq!(ran.code, Some(64), "{}", ran.err());
        assert!(ran.err().contains("more than 64 MiB"), "{}", ran.err());
        assert_eq!(agent.asked("POST", "/api/v1/jobs").len(), before, "it is not sent");
    }
}
