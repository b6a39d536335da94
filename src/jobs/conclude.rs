//! The end of a job, in one place: recorded once, counted once, told to every reader, its container thrown
//! away.

use std::{sync::Arc, time::Duration};

use quickcmd_init::proto::{Artifact, Report, StreamTotals};

use super::{attend::Attended, ending::Verdict, shared::Shared, spec, state};
use crate::{
    base::{
        clock::Timestamp,
        failpoints::{failpoint, planted},
    },
    gate::quotas::{self, Used},
    output::{self, Stream},
    sandbox::Sandbox,
    store::{
        StoreError,
        jobs::{self, End, Job, State},
        usage::{self, Usage},
    },
    wire::Reason,
};

/// Everything known of a job's end but the text of its output.
pub(super) struct Ended {
    row: i64,
    job_id: String,
    controller_id: String,
    /// Where its own machine has it; the database may be a step behind.
    state: state::State,
    verdict: Verdict,
    timeout: Duration,
    /// Processor time in milliseconds that it may have used at most, where no report says how much it was.
    cpu_at_most: u64,
    started_at: Option<Timestamp>,
    ended_at: Timestamp,
    report: Option<Report>,
}

impl Ended {
    /// A job that was never handed to a sandbox.
    pub(super) fn never_ran(job: &Job, verdict: Verdict) -> Ended {
        Ended {
            row: job.row,
            job_id: job.job_id.clone(),
            controller_id: job.controller_id.clone(),
            state: state::State::Queued,
            verdict,
            timeout: Duration::ZERO,
            cpu_at_most: 0,
            started_at: None,
            ended_at: Timestamp::now(),
            report: None,
        }
    }

    /// A job that a supervisor had, or may have had. `last_word`: when something was last written to its spool, where that
    /// is asked of one without a report.
    pub(super) fn ran(
        attended: &Attended,
        verdict: Verdict,
        report: Option<Report>,
        started_at: Option<Timestamp>,
        last_word: Option<Timestamp>,
    ) -> Ended {
        let nanos = |ns: u64| Timestamp(i64::try_from(ns).unwrap_or(i64::MAX));
        Ended {
            row: attended.job.row,
            job_id: attended.job.job_id.clone(),
            controller_id: attended.job.controller_id.clone(),
            state: if started_at.is_some() { state::State::Running } else { state::State::Starting },
            timeout: Duration::from_secs(attended.timeout_seconds),
            // A report says it; what it takes to guess is left to those few that have none.
            cpu_at_most: if report.is_some() { 0 } else { cpu_at_most(attended, started_at, last_word) },
            started_at: report
                .as_ref()
                // Of a sandbox's own trouble the command never ran, though its start may have been announced.
                .filter(|_| verdict.reason != Reason::SandboxError)
                .map(|report| nanos(report.start_ns))
                .or(started_at),
            ended_at: report.as_ref().map_or_else(Timestamp::now, |report| nanos(report.end_ns)),
            verdict,
            report,
        }
    }
}

/// All cores that it had, for as long as it is known to have run: who gets its own supervisor killed must not have worked
/// for nothing. After a time without an agent that is up to the last word in its spool, for nobody knows more.
fn cpu_at_most(attended: &Attended, started_at: Option<Timestamp>, last_word: Option<Timestamp>) -> u64 {
    let (Ok(limits), Some(started_at)) = (spec::limits(&attended.job), started_at) else { return 0 };
    let until = if attended.recovered { last_word.unwrap_or(started_at) } else { Timestamp::now() };
    // Not longer than that, whatever the clock did meanwhile.
    let ran = until.since(started_at).min(Duration::from_secs(attended.timeout_seconds));
    ran.mul_f64(limits.cpu.max(0.0)).as_millis().try_into().unwrap_or(u64::MAX)
}

/// Writes the end and wakes the readers. Gives back the sandbox, for the caller to throw away, unless the next start needs
/// what is left of it.
pub(super) async fn write(
    shared: &Arc<Shared>,
    mut ended: Ended,
    sandbox: Option<Box<dyn Sandbox>>,
) -> Option<Box<dyn Sandbox>> {
    let row = ended.row;
    if ended.verdict.reason == Reason::Cancelled && shared.ends_for_stop(row) {
        // Nobody cancelled it.
        ended.verdict.error = Some("the agent stopped before the job's end".to_owned());
    }
    if let Err(refused) = state::step(ended.state, state::Event::Ended(ended.verdict.reason)) {
        // A defect; the job ends all the same, for nobody must wait for ever.
        tracing::error!(row, %refused, "a job ends in a way that its state does not allow");
    }
    let limit = usize::try_from(shared.settings.load().output.result_bytes).unwrap_or(usize::MAX);
    let ran = sandbox.is_some();
    let (stdout, stdout_text) = stream(shared, &ended, Stream::Stdout, ran, limit).await;
    let (stderr, stderr_text) = stream(shared, &ended, Stream::Stderr, ran, limit).await;
    let duration_ms = match (&ended.report, ended.started_at) {
        (Some(report), _) => report.run_ms,
        (None, Some(at)) => u64::try_from(ended.ended_at.since(at).as_millis()).unwrap_or(u64::MAX),
        (None, None) => 0,
    };
    let verdict = &ended.verdict;
    let end = End {
        reason: verdict.reason,
        exit_code: verdict.exit_code,
        signal: verdict.signal,
        oom_killed: verdict.oom_killed,
        error: verdict.error.clone(),
        at: ended.ended_at,
        duration_ms: Some(duration_ms),
        stdout: stdout_text,
        stderr: stderr_text,
        stdout_bytes: stdout.bytes,
        stderr_bytes: stderr.bytes,
        stdout_sha256: stdout.sha256.clone(),
        stderr_sha256: stderr.sha256.clone(),
        stdout_truncated: stdout.dropped > 0,
        stderr_truncated: stderr.dropped > 0,
        stdout_dropped: stdout.dropped,
        stderr_dropped: stderr.dropped,
        cpu_ms: ended.report.as_ref().map(|report| report.cpu_ms),
        max_rss_bytes: ended.report.as_ref().map(|report| report.max_rss_bytes),
        artifacts: ended.report.as_ref().map(|report| report.artifacts.clone()).unwrap_or_default(),
    };
    let from: &[State] = match ended.state {
        state::State::Queued => &[State::Queued],
        state::State::Starting | state::State::Running | state::State::Ended(_) => {
            &[State::Starting, State::Running]
        }
    };
    let (started_at, timeout) = (ended.started_at, ended.timeout);
    let kept = end.artifacts.iter().map(|artifact| match artifact {
        Artifact::Kept { size, .. } => *size,
        Artifact::Refused { .. } => 0,
    });
    let recorded = kept.fold(end.stdout_bytes.saturating_add(end.stderr_bytes), u64::saturating_add);
    if ran && recorded > 0 && !planted!("end-before-output") {
        // The record must not tell of bytes that a power cut takes away. With an end recorded later, or never, the job
        // would be `lost`: so a disk that can't do it holds nothing up.
        if let Err(error) = shared.outputs.sync(row).await {
            tracing::error!(row, %error, "the output could not be brought to the disk: a power cut may take it away");
        }
    }
    let used = Used { cpu_ms: end.cpu_ms.unwrap_or(ended.cpu_at_most), output_bytes: recorded };
    let usage = (used != Used::default()).then(|| Usage {
        day: quotas::day(ended.ended_at),
        controller_id: ended.controller_id.clone(),
        cpu_ms: used.cpu_ms,
        output_bytes: used.output_bytes,
    });
    // Before anybody hears of the end: who then submits another job finds it counted.
    if let Some(usage) = &usage {
        shared.quotas.add(&usage.controller_id, used, usage.day);
    }
    failpoint!("result");
    let written = shared
        .persist("an end", row, move |tx| {
            // A short job's end may come before its start was recorded: then both at once.
            if let Some(at) = started_at
                && jobs::get(tx, row)?.is_some_and(|job| job.state == State::Starting)
            {
                jobs::running(tx, row, at, at.plus(timeout))?;
            }
            let receipt = jobs::finish(tx, row, from, &end)?;
            // With the end, which there is one of.
            if let Some(usage) = &usage {
                usage::add(tx, usage)?;
            }
            Ok(receipt)
        })
        .await;
    failpoint!("recorded");
    // Whatever the answer, the job is over: nobody must wait for it.
    match written {
        Ok(_) => {
            let metrics = &shared.metrics;
            metrics.job_ended(verdict.reason);
            if ended.started_at.is_some() {
                metrics.job_duration.observe(Duration::from_millis(duration_ms).as_secs_f64());
            }
            metrics.output_stdout.inc_by(stdout.bytes);
            metrics.output_stderr.inc_by(stderr.bytes);
            metrics.output_dropped.inc_by(stdout.dropped + stderr.dropped);
            tracing::info!(
                job_id = ended.job_id,
                row,
                reason = verdict.reason.as_str(),
                exit_code = verdict.exit_code,
                duration_ms,
                error = verdict.error.as_deref(),
                "job ended"
            );
        }
        Err(StoreError::Closed) => {
            // The agent stops, on a disk that takes no more. The next start needs what is left of the container.
            tracing::error!(row, "the end could not be recorded before the stop: the next start does it");
            std::mem::forget(sandbox);
            return None;
        }
        Err(error) => tracing::error!(row, %error, "the end was not recorded: the job had one already"),
    }
    shared.outputs.finish(row);
    sandbox
}

/// Totals and text of one stream. Without a report they are counted from the spool.
async fn stream(
    shared: &Arc<Shared>,
    ended: &Ended,
    stream: Stream,
    ran: bool,
    limit: usize,
) -> (StreamTotals, String) {
    let reported = ended.report.as_ref().map(|report| match stream {
        Stream::Stderr => report.stderr.clone(),
        _ => report.stdout.clone(),
    });
    if !ran || reported.as_ref().is_some_and(|totals| totals.bytes == 0) {
        return (reported.unwrap_or_else(output::nothing), String::new());
    }
    let row = ended.row;
    let totals = match reported {
        Some(totals) => totals,
        None => shared.outputs.totals(row, stream).await,
    };
    let text = match shared.outputs.text(row, stream, limit).await {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(row, %error, "the output's text could not be read for the result");
            String::new()
        }
    };
    (totals, text)
}
