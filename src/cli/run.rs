//! `quickcmd run`: a job as if it were a local command; and the attending that `submit --wait` shares.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    args::Global,
    artifacts, cut, exits,
    fault::Fault,
    job::JobArgs,
    out,
    pump::{Pump, Style},
    settings::{self, Need},
};
use crate::{
    base::clock::Timestamp,
    client::Client,
    wire::{Code, JobResult, Payload, Reason},
};

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
A single word is a shell command: quickcmd run -- 'echo hi | wc -c'
Several words run as they stand:  quickcmd run -- ls -l /
Ctrl-C cancels the job and waits for its end; a second one leaves at once.")]
pub struct RunArgs {
    #[command(flatten)]
    pub job: JobArgs,
    /// Show the agent's own words on standard error, too
    #[arg(long, short)]
    pub verbose: bool,
    /// Fetch what --artifact keeps into this folder
    #[arg(long, value_name = "FOLDER")]
    pub artifacts_to: Option<PathBuf>,
}

pub async fn run(global: &Global, args: RunArgs) -> Result<u8, Fault> {
    let folder = args.job.fetched_to(args.artifacts_to.as_deref())?;
    let connection = settings::connect(global, Need::Key)?;
    let client = connection.client;
    let payload =
        args.job.payload(&client.settings().controller_id, connection.agent_id, Timestamp::now())?;
    let style = if global.json { Style::Json } else { Style::Bytes };
    let end = attend(&client, &payload, style, args.verbose || global.json, None).await?;
    end.fetched(&client, folder).await
}

/// How a job ended that was attended.
pub struct End {
    pub result: JobResult,
    /// The exit code, or what there is to say as well.
    told: Result<u8, Fault>,
}

impl End {
    /// The exit code; where the job did not run to its own end, a fault that says so and has it.
    fn code(self) -> Result<u8, Fault> {
        self.told
    }

    /// The same, after the job's files have been fetched into a folder, if one is given. What is lacking there is a
    /// failure only where the job had none.
    pub async fn fetched(self, client: &Client, folder: Option<&Path>) -> Result<u8, Fault> {
        let Some(folder) = folder else { return self.code() };
        let fetched = artifacts::fetch(client, &self.result, folder).await;
        match (self.code(), fetched) {
            (Ok(0), Err(fault)) => Err(fault),
            (told, _) => told,
        }
    }
}

/// Submits a job and stays with it until it has ended. `accepted` hears of the
/// acceptance. The first SIGINT or SIGTERM cancels the job, the second leaves.
pub async fn attend(
    client: &Client,
    payload: &Payload,
    style: Style,
    system: bool,
    accepted: Option<&dyn Fn() -> Result<(), Fault>>,
) -> Result<End, Fault> {
    // Its end is asked for where it was sent to.
    let client = &client.clone().at(payload.agent_id.as_deref());
    let mut signals = Signals::new()?;
    // Once it may be on its way, only its answer says whether there is a job to cancel: wait for that.
    let mut caught = None;
    client.connect_ahead();
    let submitted = client.submit(payload);
    tokio::pin!(submitted);
    loop {
        tokio::select! {
            answer = &mut submitted => {
                answer.map_err(|error| Fault::of_submission(error, payload))?;
                break;
            }
            number = signals.next() => {
                if caught.replace(number).is_some() {
                    return Err(left(number, &payload.job_id));
                }
            }
        }
    }
    if let Some(accepted) = accepted {
        accepted()?;
    }
    let (worker, job_id) = (client.clone(), payload.job_id.clone());
    let mut watched = tokio::spawn(async move { watch(&worker, &job_id, style, system).await });
    if caught.is_some() {
        spawn_cancel(client, &payload.job_id, "interrupted");
    }
    let result = loop {
        tokio::select! {
            done = &mut watched => {
                break done.map_err(|error| Fault::new(exits::SOFTWARE, format!("the watch ended: {error}")))?;
            }
            number = signals.next() => {
                if caught.replace(number).is_some() {
                    return Err(left(number, &payload.job_id));
                }
                spawn_cancel(client, &payload.job_id, "interrupted");
            }
        }
    };
    match result {
        Ok(result) => {
            let code = code(&result, caught);
            let told = match complaint(&result, code) {
                // Whoever cancelled it here knows.
                Some(_) if result.reason == Reason::Cancelled && caught.is_some() => Ok(code),
                Some(fault) => Err(fault),
                None => Ok(code),
            };
            Ok(End { result, told })
        }
        Err(fault) => {
            // As a local command gets SIGPIPE: with nobody to read it, the job has no use.
            if fault.exit == exits::BROKEN_PIPE {
                let _ = client.cancel(&payload.job_id, Some("nobody reads its output")).await;
                return Err(fault);
            }
            // Then it has ended, and what could be said of its output is said.
            if matches!(fault.exit, exits::DATA | exits::NOT_FOUND) {
                return Err(fault);
            }
            Err(fault.hint(format!("the job may still be running: quickcmd status {}", payload.job_id)))
        }
    }
}

/// Shows a job's frames from the first to the last.
async fn watch(client: &Client, job_id: &str, style: Style, system: bool) -> Result<JobResult, Fault> {
    let mut frames = client.follow(job_id, 1, system);
    let mut pump = Pump::new(style, true);
    while let Some(frame) = frames.next().await {
        let frame = frame?;
        pump.show(&frame).await?;
        if frame.r#final {
            let result = match frame.result {
                Some(result) => result,
                None => ended(client, job_id).await?,
            };
            if style != Style::Nothing {
                cut::warn(&cut::streams(&result));
            }
            pump.verify(client, &result).await?;
            return Ok(result);
        }
    }
    ended(client, job_id).await
}

async fn ended(client: &Client, job_id: &str) -> Result<JobResult, Fault> {
    client.status(job_id).await?.result.ok_or_else(|| {
        Fault::new(exits::DATA, format!("the stream of job {job_id} has ended, but the job has not"))
            .hint(format!("quickcmd status {job_id}"))
    })
}

/// The exit code that a job's end means; `caught` is the signal by which we cancelled it.
pub fn code(result: &JobResult, caught: Option<i32>) -> u8 {
    let own = u8::try_from(result.exit_code).ok();
    match result.reason {
        Reason::Exited | Reason::Signalled => own.unwrap_or(exits::UNKNOWN),
        Reason::Timeout => exits::TIMEOUT,
        Reason::Cancelled => match caught {
            Some(number) => exits::signal(number),
            None => own.filter(|code| *code != 0).unwrap_or(exits::signal(15)),
        },
        Reason::Oom | Reason::OutputLimit => own.filter(|code| *code != 0).unwrap_or(exits::signal(9)),
        Reason::Expired => exits::TRY_LATER,
        Reason::ImageUnavailable | Reason::SandboxError => exits::NOT_RUN,
        Reason::Lost => exits::UNKNOWN,
    }
}

/// What to say of a job that did not run to its own end.
pub fn complaint(result: &JobResult, exit: u8) -> Option<Fault> {
    let hint = match result.reason {
        // What ended by itself has said why, unless its command could not even be started.
        Reason::Exited | Reason::Signalled if result.error.is_none() => return None,
        Reason::Exited | Reason::Signalled => match result.exit_code {
            127 => "is that program in the image? --image names another one".to_owned(),
            126 => "a program must be an executable file, and --workdir a folder of the image".to_owned(),
            _ => format!("quickcmd status {}", result.job_id),
        },
        Reason::Timeout => "--timeout gives it more".to_owned(),
        Reason::Cancelled => format!("quickcmd status {}", result.job_id),
        Reason::Oom => "--memory gives it more".to_owned(),
        Reason::OutputLimit => "write less, or have the agent's output limit raised".to_owned(),
        Reason::Expired => {
            "the agent could not start it in time (quickcmd health says what is in its way): submit it \
                            again under a new job id, with a longer --ttl if it has to wait"
                .to_owned()
        }
        Reason::ImageUnavailable => {
            "--image names another one; the agent's log says why it can't be had".to_owned()
        }
        Reason::SandboxError => {
            "quickcmd health, and the agent's log (journalctl -u quickcmd-agent)".to_owned()
        }
        Reason::Lost => "see what it has done before you run it again".to_owned(),
    };
    let mut fault = Fault::new(exit, ending(result)).hint(hint);
    fault.code = Some(result.reason.as_str().to_owned());
    Some(fault)
}

/// How a job ended, in one sentence. Where the agent's own is one about the job, it says it all.
fn ending(result: &JobResult) -> String {
    let id = &result.job_id;
    let (end, why) = match result.reason {
        Reason::Exited | Reason::Signalled if matches!(result.exit_code, 126 | 127) => {
            ("could not start its command", "could not start its command")
        }
        Reason::Exited | Reason::Signalled => ("ended", "ended"),
        Reason::Timeout => ("ran into its time limit", "ran into its time limit"),
        Reason::Cancelled => ("was cancelled", "was cancelled"),
        Reason::Oom => ("ran out of memory", "ran out of memory"),
        Reason::OutputLimit => ("printed more than it may", "printed more than it may"),
        Reason::Expired => ("had to wait longer than its ttl and was not run", "was not run"),
        Reason::ImageUnavailable => ("was not run: its image is not there", "was not run"),
        Reason::SandboxError => ("could not be run by the agent", "could not be run"),
        Reason::Lost => ("was lost: it is not known how it ended", "was lost"),
    };
    let Some(error) = &result.error else { return format!("job {id} {end}") };
    match error.strip_prefix("the job") {
        Some(did) if did.starts_with(' ') => format!("job {id}{did}"),
        // What was not run has no part in what happened to it.
        Some(of) if of.starts_with("'s ") && result.reason == Reason::Expired => {
            format!("job {id} {why}: its{}", &of[2..])
        }
        Some(of) if of.starts_with("'s ") => format!("job {id}{of}"),
        _ => format!("job {id} {why}: {error}"),
    }
}

fn spawn_cancel(client: &Client, job_id: &str, reason: &'static str) {
    let (client, job_id) = (client.clone(), job_id.to_owned());
    out::note(&format!("cancelling job {job_id} (again to leave it)"));
    tokio::spawn(async move {
        match client.cancel(&job_id, Some(reason)).await {
            Ok(_) => {}
            // It was faster.
            Err(error) if error.code() == Some(Code::JobEnded) => {}
            Err(error) => out::note(&format!("warning: cannot cancel job {job_id}: {error}")),
        }
    });
}

fn left(number: i32, job_id: &str) -> Fault {
    Fault::new(exits::signal(number), format!("left job {job_id} before its end"))
        .hint(format!("quickcmd status {job_id}; quickcmd cancel {job_id}"))
}

/// SIGINT and SIGTERM as numbers.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Fault> {
        let fault = |error| Fault::new(exits::SOFTWARE, format!("cannot catch signals: {error}"));
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(fault)?,
            terminate: signal(SignalKind::terminate()).map_err(fault)?,
        })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }
}
