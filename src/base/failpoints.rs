//! Places in a job's life where a test kills or delays the agent, and defects that a test plants to see that it would
//! find them. Without the cargo feature `failpoints`, which no build for use has, `failpoint!` and
//! `planted!` compile to nothing.
//!
//! `QUICKCMD_FAILPOINTS` names what is to happen: `commit=kill`, `start=kill@3` (at the third passage),
//! `output=sleep:500` (milliseconds, at every passage), several with commas. `QUICKCMD_PLANTED` names one defect.

/// Every failpoint, in the order of a job's life.
pub const ALL: &[&str] = &[
    // The gate has admitted it, nothing is written.
    "accept",
    // It is on disk, and not yet answered.
    "commit",
    // Its container is about to be made, from the recorded name.
    "create",
    // Its container is there, and only Docker knows the id.
    "created",
    // Its container is about to be started.
    "start",
    // The supervisor has connected.
    "attach",
    // The container's id and the intent are on disk, the supervisor has no job.
    "id-recorded",
    // The job's message has left, the rest (standard input) may not have.
    "sent",
    // The supervisor has all of the job.
    "handed-over",
    // The supervisor has begun it; the record does not say so yet.
    "started",
    // Some of its output has been seen.
    "output",
    // The supervisor has reported its end.
    "exit",
    // Its container has ended without a report, and was looked at.
    "inspect",
    // The end is known and about to be recorded.
    "result",
    // The end is recorded, no reader knows, the container is there.
    "recorded",
    // The container is about to be removed.
    "remove",
    // The container is gone, its folder is not.
    "removed",
    // That nothing is left is recorded.
    "cleaned",
];

/// Every defect that can be planted.
pub const PLANTED: &[&str] = &[
    // A submission is answered before it is on disk.
    "ack-before-commit",
    // A job that may have been started runs again after a crash.
    "rerun-lost",
    // What is committed is left to the kernel, which writes it when it likes.
    "no-sync",
    // An end is recorded whose output is not on disk yet.
    "end-before-output",
];

/// Passes a failpoint: `failpoint!("commit")`.
#[cfg(not(feature = "failpoints"))]
macro_rules! failpoint {
    ($name:literal) => {};
}

/// Passes a failpoint: `failpoint!("commit")`.
#[cfg(feature = "failpoints")]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::base::failpoints::armed::pass($name)
    };
}

/// Whether that defect is planted; `false`, known to the compiler, without the feature.
#[cfg(not(feature = "failpoints"))]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}

/// Whether that defect is planted.
#[cfg(feature = "failpoints")]
macro_rules! planted {
    ($name:literal) => {
        $crate::base::failpoints::armed::planted($name)
    };
}

pub(crate) use {failpoint, planted};

#[cfg(feature = "failpoints")]
pub(crate) mod armed {
    use std::{
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use super::{ALL, PLANTED};

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        /// SIGKILL to this process, at the passage of that number.
        Kill {
            at: u64,
        },
        Sleep(Duration),
    }

    #[derive(Debug)]
    struct Point {
        name: String,
        action: Action,
        passed: AtomicU64,
    }

    fn parse(text: &str) -> Result<Vec<Point>, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
    }

    fn one(text: &str) -> Result<Point, String> {
        let (name, action) = text.split_once('=').ok_or_else(|| format!("{text:?} is no NAME=ACTION"))?;
        if !ALL.contains(&name) {
            return Err(format!("there is no failpoint {name:?}"));
        }
        let number = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is no number"));
        let action = match action.split_once(['@', ':']) {
            None if action == "kill" => Action::Kill { at: 1 },
            Some(("kill", at)) => Action::Kill { at: number(at)? },
            Some(("sleep", ms)) => Action::Sleep(Duration::from_millis(number(ms)?)),
            _ => return Err(format!("{action:?} is none of kill, kill@N, sleep:MS")),
        };
        Ok(Point { name: name.to_owned(), action, passed: AtomicU64::new(0) })
    }

    fn points() -> &'static [Point] {
        static POINTS: OnceLock<Vec<Point>> = OnceLock::new();
        POINTS.get_or_init(|| {
            let text = std::env::var("QUICKCMD_FAILPOINTS").unwrap_or_default();
            // A test that names a place which is not there must not pass.
            parse(&text).unwrap_or_else(|error| end(&format!("QUICKCMD_FAILPOINTS: {error}")))
        })
    }

    fn end(why: &str) -> ! {
        tracing::error!("{why}");
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort()
    }

    pub(crate) fn pass(name: &str) {
        for point in points().iter().filter(|point| point.name == name) {
            let passed = point.passed.fetch_add(1, Ordering::Relaxed) + 1;
            match point.action {
                Action::Kill { at } if at == passed => end(&format!("failpoint {name}: killed here")),
                Action::Kill { .. } => {}
                Action::Sleep(time) => std::thread::sleep(time),
            }
        }
    }

    pub(crate) fn planted(name: &str) -> bool {
        static NAME: OnceLock<Option<String>> = OnceLock::new();
        let planted = NAME.get_or_init(|| {
            let name = std::env::var("QUICKCMD_PLANTED").ok().filter(|name| !name.is_empty())?;
            if !PLANTED.contains(&name.as_str()) {
                end(&format!("QUICKCMD_PLANTED: there is no defect {name:?}"));
            }
            tracing::warn!(name, "a defect is planted");
            Some(name)
        });
        planted.as_deref() == Some(name)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_read_and_wrong_ones_named() {
            let actions = |text: &str| {
                parse(text).map(|points| {
                    points.into_iter().map(|point| (point.name, point.action)).collect::<Vec<_>>()
                })
            };
            assert_eq!(actions(""), Ok(vec![]));
            let all = actions("commit=kill, start=kill@3,output=sleep:20");
            let expected = vec![
                ("commit".to_owned(), Action::Kill { at: 1 }),
                ("start".to_owned(), Action::Kill { at: 3 }),
                ("output".to_owned(), Action::Sleep(Duration::from_millis(20))),
            ];
            assert_eq!(all, Ok(expected));
            for (text, named) in [("commit", "NAME=ACTION"), ("here=kill", "\"here\""), ("commit=x", "\"x\"")]
            {
                assert!(actions(text).is_err_and(|error| error.contains(named)), "{text}");
            }
        }
    }
}
