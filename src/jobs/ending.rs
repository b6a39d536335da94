//! How a job ended, decided from evidence in this order: the recorded intent to end it (timeout,
//! cancel, output limit), then proof that memory ran out, then its exit status. An exit code of 137
//! alone proves nothing.

use quickcmd_init::proto::{Ending, Report, Stop};

use crate::{sandbox::Evidence, wire::Reason};

/// Exit code in the result of a job whose time ran out, as `timeout(1)` has it.
pub const TIMEOUT_EXIT_CODE: i32 = 124;
/// Exit code in the result of a job whose command never ran, or whose end is not known.
pub const NO_EXIT_CODE: i32 = -1;

/// What is said of a job that somebody cancelled.
const CANCELLED: &str = "the job was cancelled";
/// What is said of one that was ended in the same way, and not by the agent: its supervisor can't tell by whom.
const STOPPED: &str = "the job's sandbox was stopped from outside: its Docker engine was stopped or started anew (without \
                       live-restore that ends every container), or somebody on the host stopped the container";

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// As a shell would give it.
    pub exit_code: i32,
    /// The signal that ended the command, if one did.
    pub signal: Option<i32>,
    /// Whether the kernel killed one of its processes for memory.
    pub oom_killed: bool,
    /// A sentence, where the reason alone does not say it.
    pub error: Option<String>,
}

impl Verdict {
    /// An end without an exit: the command never ran, or nobody knows.
    pub fn without_exit(reason: Reason, error: impl Into<String>) -> Verdict {
        Verdict {
            reason,
            exit_code: NO_EXIT_CODE,
            signal: None,
            oom_killed: reason == Reason::Oom,
            error: Some(error.into()),
        }
    }
}

/// The verdict on a job whose supervisor has reported. `asked`: the agent had asked it to end.
pub fn of_report(report: &Report, timeout_seconds: u64, asked: bool) -> Verdict {
    if let Ending::NotStarted { sandbox: true, error, .. } = &report.ending {
        return Verdict::without_exit(Reason::SandboxError, error.clone());
    }
    let (exit_code, signal, error) = match &report.ending {
        Ending::Exited { code } => (*code, None, None),
        Ending::Signalled { signal } => (128 + signal, Some(*signal), None),
        Ending::NotStarted { code, error, .. } => (*code, None, Some(error.clone())),
    };
    let oom_killed = report.oom_kills > 0;
    let verdict = |reason, exit_code, error| Verdict { reason, exit_code, signal, oom_killed, error };
    match report.stopped {
        Some(Stop::Timeout) => verdict(
            Reason::Timeout,
            TIMEOUT_EXIT_CODE,
            Some(format!("the job ran longer than its timeout of {timeout_seconds} s and was ended")),
        ),
        Some(Stop::Cancelled) => {
            verdict(Reason::Cancelled, exit_code, Some(if asked { CANCELLED } else { STOPPED }.to_owned()))
        }
        Some(Stop::OutputLimit) => verdict(
            Reason::OutputLimit,
            exit_code,
            Some("the job wrote more than its output limit and was ended".to_owned()),
        ),
        // SIGKILL that nobody of us sent, while the kernel counted a kill for memory.
        None if oom_killed && signal == Some(9) => {
            verdict(Reason::Oom, exit_code, Some("the job ran out of memory and was killed".to_owned()))
        }
        None if signal.is_some() => verdict(Reason::Signalled, exit_code, error),
        None => verdict(Reason::Exited, exit_code, error),
    }
}

/// Why the agent kills a sandbox that should have ended by itself: what was asked of it before; else the job's time,
/// if it is known to have begun. Otherwise nobody knows what became of the job.
pub fn overdue(asked: Option<Stop>, started: bool) -> Option<Stop> {
    asked.or_else(|| started.then_some(Stop::Timeout))
}

/// The verdict on a started job whose container ended without a report: the supervisor itself was
/// killed. `stopping`: what the agent had asked for.
pub fn without_report(evidence: Option<&Evidence>, stopping: Option<Stop>, started: bool) -> Verdict {
    let oom = evidence.is_some_and(|evidence| evidence.oom_killed);
    match stopping {
        Some(Stop::Timeout) => Verdict {
            exit_code: TIMEOUT_EXIT_CODE,
            oom_killed: oom,
            ..Verdict::without_exit(
                Reason::Timeout,
                "the job ran longer than its timeout and its sandbox was killed",
            )
        },
        Some(Stop::Cancelled) => Verdict {
            exit_code: 137,
            signal: Some(9),
            oom_killed: oom,
            ..Verdict::without_exit(Reason::Cancelled, "the job was cancelled and its sandbox was killed")
        },
        Some(Stop::OutputLimit) => Verdict {
            oom_killed: oom,
            ..Verdict::without_exit(
                Reason::OutputLimit,
                "the job wrote more than its output limit and was killed",
            )
        },
        None if oom => Verdict {
            exit_code: 137,
            signal: Some(9),
            ..Verdict::without_exit(Reason::Oom, "the job's sandbox ran out of memory and was killed")
        },
        None => {
            let how = match evidence {
                None => "its container is gone".to_owned(),
                Some(Evidence { exit_code, error, .. }) => {
                    let code =
                        exit_code.map_or_else(|| "an unknown code".to_owned(), |code| format!("code {code}"));
                    let more = error.as_deref().filter(|error| !error.is_empty());
                    format!(
                        "its sandbox ended with {code}{}",
                        more.map_or(String::new(), |e| format!(" ({e})"))
                    )
                }
            };
            let what =
                if started { "the job was running, but" } else { "the job may have been started, but" };
            Verdict::without_exit(
                Reason::Lost,
                format!("{what} {how} before it reported an end; it is not run again"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcmd_init::proto::StreamTotals;

    use super::*;

    fn report(ending: Ending, stopped: Option<Stop>, oom_kills: u64) -> Report {
        Report {
            ending,
            stopped,
            stdout: StreamTotals::default(),
            stderr: StreamTotals::default(),
            cpu_ms: 0,
            max_rss_bytes: 0,
            oom_kills,
            start_ns: 0,
            end_ns: 0,
            run_ms: 0,
            artifacts: Vec::new(),
        }
    }

    #[test]
    fn intent_comes_before_memory_and_memory_before_the_exit() {
        let killed = Ending::Signalled { signal: 9 };
        let cases = [
            (killed.clone(), Some(Stop::Timeout), 1, Reason::Timeout, 124, true),
            (killed.clone(), Some(Stop::Cancelled), 1, Reason::Cancelled, 137, true),
            (killed.clone(), Some(Stop::OutputLimit), 0, Reason::OutputLimit, 137, false),
            (killed.clone(), None, 1, Reason::Oom, 137, true),
            (killed, None, 0, Reason::Signalled, 137, false),
            (Ending::Exited { code: 137 }, None, 0, Reason::Exited, 137, false),
            // A child was killed for memory, the parent went on and ended well.
            (Ending::Exited { code: 0 }, None, 3, Reason::Exited, 0, true),
            (Ending::Signalled { signal: 15 }, None, 1, Reason::Signalled, 143, true),
        ];
        for (ending, stopped, oom, reason, code, oom_killed) in cases {
            let verdict = of_report(&report(ending.clone(), stopped, oom), 5, true);
            assert_eq!(
                (verdict.reason, verdict.exit_code, verdict.oom_killed),
                (reason, code, oom_killed),
                "{ending:?} {stopped:?} {oom}"
            );
        }
    }

    #[test]
    fn who_stopped_a_job_is_said_as_far_as_it_is_known() {
        let stopped = |asked| {
            let ending = Ending::Signalled { signal: 15 };
            let verdict = of_report(&report(ending, Some(Stop::Cancelled), 0), 5, asked);
            assert_eq!(verdict.reason, Reason::Cancelled);
            verdict.error.unwrap()
        };
        assert_eq!(stopped(true), "the job was cancelled");
        assert!(stopped(false).contains("live-restore"));
    }

    #[test]
    fn a_command_that_can_not_be_started_says_why() {
        let error = "nosuch: not found".to_owned();
        let ending = Ending::NotStarted { code: 127, error, sandbox: false };
        let verdict = of_report(&report(ending, None, 0), 5, false);
        assert_eq!((verdict.reason, verdict.exit_code), (Reason::Exited, 127));
        assert_eq!(verdict.error.as_deref(), Some("nosuch: not found"));

        // A supervisor's trouble is no exit of the job, whatever code a shell would give.
        let error = "the sandbox could not start a process".to_owned();
        let ending = Ending::NotStarted { code: 126, error: error.clone(), sandbox: true };
        let verdict = of_report(&report(ending, None, 0), 5, false);
        assert_eq!((verdict.reason, verdict.exit_code), (Reason::SandboxError, NO_EXIT_CODE));
        assert_eq!(verdict.error, Some(error));
        // As an earlier version wrote it.
        let old: Ending =
            serde_json::from_str(r#"{"how": "not_started", "code": 127, "error": "e"}"#).unwrap();
        assert!(matches!(old, Ending::NotStarted { sandbox: false, .. }));
    }

    #[test]
    fn without_a_report_only_evidence_counts() {
        let evidence =
            |oom_killed| Evidence { running: false, exit_code: Some(137), oom_killed, error: None };
        assert_eq!(without_report(Some(&evidence(true)), None, true).reason, Reason::Oom);
        assert_eq!(without_report(Some(&evidence(true)), Some(Stop::Timeout), true).reason, Reason::Timeout);
        assert_eq!(
            without_report(Some(&evidence(false)), Some(Stop::Cancelled), true).reason,
            Reason::Cancelled
        );
        // Killed as overdue: out of time only if it ever began, and not if something else was asked before.
        let overdue =
            |asked, started| without_report(Some(&evidence(false)), overdue(asked, started), started);
        assert_eq!(overdue(None, true).reason, Reason::Timeout);
        assert_eq!(overdue(None, false).reason, Reason::Lost);
        assert_eq!(overdue(Some(Stop::Cancelled), true).reason, Reason::Cancelled);
        let lost = without_report(Some(&evidence(false)), None, true);
        assert_eq!((lost.reason, lost.exit_code), (Reason::Lost, -1));
        assert_eq!(without_report(None, None, false).reason, Reason::Lost);
    }
}
