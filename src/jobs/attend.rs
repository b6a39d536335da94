//! Attends a job that its supervisor has: waits for its start and its end, passes on what is asked of it, and
//! sees that it does end. The same for a job just handed over and for one taken up after a restart.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use quickcmd_init::proto::{REPORT_PATIENCE, Report};
use tokio::sync::watch;

use super::{
    conclude::{self, Ended},
    ending,
    shared::Shared,
};
use crate::{
    base::{clock::Timestamp, failpoints::failpoint},
    output::{Following, Seen},
    sandbox::{Evidence, Sandbox, Stop},
    store::jobs,
    wire::Reason,
};

/// How much longer than timeout and grace a supervisor may take before its container is killed: longer than a full
/// disk may keep its report waiting, or the true end of a job would be thrown away with it.
const SLACK: Duration = REPORT_PATIENCE.saturating_add(Duration::from_secs(30));
/// The same where the job was asked to end, and that is what will be recorded: nobody waits that long then.
const ASKED_SLACK: Duration = Duration::from_secs(10);
/// How long after a container's end its last records may take to be seen.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a supervisor alone is listened to, which says itself how its job ended; then Docker is asked to tell of
/// the container's end, too. A job that is over sooner costs Docker no call.
const ALONE: Duration = Duration::from_millis(250);
/// How long after a start it is recorded by itself; a job that is over sooner has start and end recorded at once.
const START_ALONE: Duration = Duration::from_millis(50);
/// How long a container that was killed may go on before its job is given up.
const KILL_PATIENCE: Duration = Duration::from_secs(60);

/// A job that a supervisor has, or may have.
pub(super) struct Attended {
    pub job: jobs::Job,
    /// From the start, in seconds.
    pub timeout_seconds: u64,
    pub sandbox: Box<dyn Sandbox>,
    pub following: Following,
    /// When its turn came.
    pub turn_at: Timestamp,
    /// The backstop counts from here.
    pub handed_over: Instant,
    /// Whether the agent has no channel to it: the container's end is watched from the beginning.
    pub recovered: bool,
}

enum Event {
    Started(Timestamp),
    Reported(Box<Report>),
    Damaged(std::io::Error),
    Ended(Evidence),
    Asked(Stop),
    Overdue,
}

/// Attends to the end, records it, and hands the container to the reaper.
pub(super) async fn to_the_end(
    shared: &Arc<Shared>,
    mut attended: Attended,
    mut asked: watch::Receiver<Option<Stop>>,
) {
    let row = attended.job.row;
    let settings = shared.settings.load_full();
    let timeout = Duration::from_secs(attended.timeout_seconds);
    let grace = settings.jobs.grace;
    let mut overdue = attended.handed_over + timeout + grace + SLACK;
    let mut started: Option<Timestamp> = attended.job.started_at;
    let mut noting = None;
    let mut stopping: Option<Stop> = None;
    let mut killed: Option<Instant> = None;
    let mut damaged = false;
    let mut asked_open = true;

    let (report, evidence) = loop {
        // One wait, one event, handled below: each of these futures may be dropped and begun again.
        let event = {
            let Attended { sandbox, following, handed_over, recovered, .. } = &mut attended;
            let sandbox = &*sandbox;
            let spool = async {
                if damaged {
                    return std::future::pending().await;
                }
                if started.is_none() {
                    match following.started().await {
                        Ok(Some(at)) => return Event::Started(at),
                        Ok(None) => {}
                        Err(error) => return Event::Damaged(error),
                    }
                }
                match following.report().await {
                    Ok((report, _)) => Event::Reported(Box::new(report)),
                    Err(error) => Event::Damaged(error),
                }
            };
            let request = async {
                let wanted = asked.wait_for(|why| why.is_some() && *why != stopping).await.map(|why| *why);
                match wanted {
                    Ok(Some(why)) => Some(Event::Asked(why)),
                    _ => None,
                }
            };
            let listened = if *recovered { Duration::ZERO } else { ALONE };
            let ended = async {
                tokio::time::sleep_until((*handed_over + listened).into()).await;
                sandbox.ended().await
            };
            tokio::select! {
                biased;
                event = spool => event,
                event = request, if asked_open && stopping.is_none() => match event {
                    Some(event) => event,
                    None => { asked_open = false; continue }
                },
                evidence = ended => Event::Ended(evidence),
                () = tokio::time::sleep_until(overdue.into()) => Event::Overdue,
            }
        };
        match event {
            Event::Started(at) => {
                failpoint!("started");
                started = Some(at);
                noting = Some(note_start(shared, &attended, at));
            }
            Event::Reported(report) => {
                failpoint!("exit");
                break (Some(*report), None);
            }
            Event::Damaged(error) => {
                tracing::error!(row, %error, "the job's spool can't be followed: only its container's end counts now");
                damaged = true;
            }
            Event::Ended(evidence) => {
                failpoint!("inspect");
                break (last_words(&mut attended.following).await, Some(evidence));
            }
            Event::Asked(why) => {
                stopping = Some(why);
                overdue = overdue.min(Instant::now() + grace + ASKED_SLACK);
                if let Err(error) = attended.sandbox.stop(why).await {
                    tracing::warn!(row, %error, "the job could not be asked to end; its container is killed after the grace");
                }
            }
            Event::Overdue => {
                // Its supervisor has not ended it: nothing of the container is to be trusted any more.
                stopping = ending::overdue(stopping, started.is_some());
                let since = *killed.get_or_insert_with(Instant::now);
                if since.elapsed() > KILL_PATIENCE {
                    tracing::error!(
                        row,
                        container = attended.sandbox.id(),
                        "a container can't be killed: it is left to the reaper, look at the Docker engine"
                    );
                    stopping = None;
                    break (None, None);
                }
                if let Err(error) = attended.sandbox.kill().await {
                    tracing::error!(row, %error, "an overdue container could not be killed; trying again");
                }
                overdue = Instant::now() + Duration::from_secs(2);
            }
        }
    };

    if let Some(noting) = noting {
        // If it has not begun, the end says it all.
        noting.abort();
    }
    if evidence.is_some()
        && let Err(error) = shared.outputs.trim(row)
    {
        tracing::warn!(row, %error, "space beyond the spool's end could not be given back");
    }
    let unkillable = report.is_none() && evidence.is_none();
    let verdict = match &report {
        Some(report) => {
            let asked = asked.borrow().is_some() || attended.job.cancel_requested_at.is_some();
            ending::of_report(report, attended.timeout_seconds, asked)
        }
        None if unkillable => ending::Verdict::without_exit(
            Reason::Lost,
            "the job's container could not be killed; what became of it is not known",
        ),
        None => ending::without_report(evidence.as_ref(), stopping, started.is_some()),
    };
    // What was asked of it may come to the supervisor after its end, and would be heard by the next job. The supervisor
    // itself looks at the rest, too.
    let by_itself = matches!(verdict.reason, Reason::Exited | Reason::Signalled) && !verdict.oom_killed;
    let fit =
        by_itself && report.is_some() && evidence.is_none() && stopping.is_none() && !attended.recovered;
    let unknown = attended.recovered && report.is_none();
    let last_word = if unknown { shared.outputs.last_word(attended.job.row) } else { None };
    let ended = Ended::ran(&attended, verdict, report, started, last_word);
    let sandbox = conclude::write(shared, ended, Some(attended.sandbox)).await;
    match sandbox {
        Some(sandbox) if fit => sandbox.release(),
        Some(sandbox) => sandbox.discard(),
        None => {}
    }
}

/// The supervisor's records may be seen a moment after its container's end.
async fn last_words(following: &mut Following) -> Option<Report> {
    let report = async {
        loop {
            match following.look().await {
                Ok(Seen { report: Some(report), .. }) => return Some(report),
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(LAST_WORDS, report).await.ok().flatten()
}

/// Records the start, off the job's path: a short job's end may be recorded first, and then says it all.
fn note_start(shared: &Arc<Shared>, attended: &Attended, at: Timestamp) -> tokio::task::JoinHandle<()> {
    let row = attended.job.row;
    if !attended.recovered {
        shared.metrics.start_latency.observe(at.since(attended.turn_at).as_secs_f64());
    }
    let deadline = at.plus(Duration::from_secs(attended.timeout_seconds));
    let store = shared.store.clone();
    tokio::spawn(async move {
        tokio::time::sleep(START_ALONE).await;
        if let Err(error) = store.write(move |tx| jobs::running(tx, row, at, deadline)).await {
            tracing::debug!(row, %error, "a start was not recorded by itself");
        }
    })
}
