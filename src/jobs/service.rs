//! Submitting and cancelling: what a door calls, after which the gate and the record have spoken.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use quickcmd_init::redact;
use tokio_util::bytes::Bytes;

use super::{
    conclude::{self, Ended},
    ending::Verdict,
    query,
    queue::{Full, Places, Waiting},
    reads,
    shared::Shared,
};
use crate::{
    audit::Event,
    base::{
        clock::Timestamp,
        failpoints::{failpoint, planted},
    },
    gate::{Admitted, AdmittedCancel, KeyUsed, Operator, Refused, Via},
    sandbox::Stop,
    store::{
        StoreError,
        jobs::{self, Cancel, CancelWhy, Inserted, Located, NewJob, NewRejected, Prepared},
        submissions::{self, Refusal},
    },
    wire::{
        Code, Problem, Reason, Status,
        result::{Accepted, CancelAnswer},
    },
};

/// Seconds after which a full queue, a drain or low storage may have passed.
const TRY_AGAIN: u32 = 5;

/// Takes a submission: gate, rates, queue, record; `Ok` means that the job is on disk, synced.
///
/// To be awaited to its end, whatever becomes of the client: dropped in the middle it would leave a job in the
/// database that is not in the queue. The door runs it in a task of its own.
///
/// # Errors
/// The refusal, which has been recorded.
pub(super) async fn submit(
    shared: &Arc<Shared>,
    body: Bytes,
    via: Via,
    now: Timestamp,
) -> Result<Accepted, Problem> {
    let peer = via.peer;
    let gate = shared.gate.load_full();
    let admitted = match gate.submit_via(&body, &via, now) {
        Ok(admitted) => admitted,
        Err(refused) => return Err(refuse(shared, refused, peer, now).await),
    };
    drop(body);
    // Of the keys that it was signed with: by its turn the id may be somebody else's.
    let class = gate.class(admitted.controller_id()).map(Arc::from);
    drop(gate);
    accept(shared, admitted, class, peer, now).await
}

async fn accept(
    shared: &Arc<Shared>,
    admitted: Admitted,
    class: Option<Arc<str>>,
    peer: IpAddr,
    now: Timestamp,
) -> Result<Accepted, Problem> {
    let controller: Arc<str> = admitted.controller_id().into();
    let job_id = admitted.payload().job_id.clone();
    if let Err(problem) = place(shared, &admitted, now) {
        return turn_away(shared, &admitted, problem, peer, now).await;
    }

    let job = new_job(&admitted, peer, now);
    let sha256 = job.payload_sha256.clone();
    let written = if planted!("ack-before-commit") {
        let (shared, controller) = (Arc::clone(shared), Arc::clone(&controller));
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let _ = record(&shared, &controller, class, job, now).await;
        });
        return Ok(Accepted { job_id, status: Status::Pending, duplicate: false });
    } else {
        record(shared, &controller, class, job, now).await
    };
    match written {
        Ok(Inserted::New(row)) => {
            shared.metrics.jobs_total.inc();
            shared.wake.notify_one();
            tracing::info!(
                job_id,
                controller_id = &*controller,
                row,
                payload_sha256 = sha256,
                "job accepted"
            );
            Ok(Accepted { job_id, status: Status::Pending, duplicate: false })
        }
        Ok(Inserted::Duplicate { state, .. }) => {
            Ok(Accepted { job_id, status: state.status(), duplicate: true })
        }
        Ok(Inserted::Conflict) => {
            let problem = conflict(&job_id);
            record_rejection(shared, &admitted, &problem, peer, now).await;
            Err(problem)
        }
        Err(error) => {
            shared.record_problem.store(Some(Arc::new(error.to_string())));
            tracing::error!(job_id, %error, "a job could not be recorded and was refused");
            Err(storage_error(&error))
        }
    }
}

/// Writes the job and puts it into the queue, in the place that it was promised.
async fn record(
    shared: &Shared,
    controller: &Arc<str>,
    class: Option<Arc<str>>,
    job: NewJob,
    now: Timestamp,
) -> Result<Inserted, StoreError> {
    let (ttl, image) = (job.ttl, job.image.as_str().into());
    let key = KeyUsed { key_id: job.key_id.as_deref().map(Arc::from), print: job.key_print };
    failpoint!("accept");
    let job = Prepared::new(job);
    let written = shared.store.write_again(move |tx| jobs::insert(tx, &job)).await;
    failpoint!("commit");
    // The promise and the job in one step: nobody else gets the place in between.
    let mut queue = shared.queue();
    queue.release(controller);
    if let Ok(Inserted::New(row)) = &written {
        queue.push(Waiting {
            row: *row,
            controller: Arc::clone(controller),
            ttl: Timestamp::from_secs(ttl),
            accepted: now,
            image,
            unreachable_since: None,
            stood_aside: false,
            class,
            key,
        });
        shared.metrics.queue_depth.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
    }
    written
}

/// Check 8: rate and quota of the controller, drain, storage, queue. `Ok`: a place in the queue is promised.
fn place(shared: &Shared, admitted: &Admitted, now: Timestamp) -> Result<(), Problem> {
    let controller = admitted.controller_id();
    if let Err(seconds) = shared.rates.take(controller, admitted.rate(), Instant::now()) {
        return Err(Problem::new(Code::RateLimited)
            .details(format!(
                "controller {controller:?} submits faster than it may; try again in {seconds} s"
            ))
            .with("limit", "rate")
            .retry_after(seconds));
    }
    shared.quotas.check(controller, admitted.daily(), now)?;
    if !shared.serving() {
        return Err(Problem::new(Code::Draining)
            .details("the agent is draining: it lets what it has come to an end and takes no new jobs; try again later or elsewhere")
            .retry_after(TRY_AGAIN));
    }
    if shared.storage_low.load(Ordering::Relaxed) {
        return Err(Problem::new(Code::StorageLow)
            .details(
                "the agent's data folder has less free space than its low watermark; free some and try again",
            )
            .retry_after(60));
    }
    let max = shared.settings.load().jobs.max_queue_depth;
    let places = Places { max, of_one: admitted.max_queued(), controllers: shared.gate.load().controllers() };
    shared.queue().reserve(controller, places).map_err(|full| {
        let (limit, details) = match full {
            Full::Queue { depth } => (
                "max_queue_depth",
                format!("the queue has {depth} waiting, and holds {max}; try again later"),
            ),
            Full::Controller { depth } => (
                "max_queued",
                format!("controller {controller:?} has {depth} waiting, which is its share; try again later"),
            ),
            Full::Share { depth } => (
                "max_queue_depth",
                format!(
                    "controller {controller:?} has {depth} waiting, and the places that are left are kept \
                     for other controllers; try again later"
                ),
            ),
        };
        Problem::new(Code::QueueFull).details(details).with("limit", limit).retry_after(TRY_AGAIN)
    })
}

/// Answers a submission for which there is no place, and records that. A retry of what was accepted is no new
/// job: it is answered whatever the load.
async fn turn_away(
    shared: &Arc<Shared>,
    admitted: &Admitted,
    problem: Problem,
    peer: IpAddr,
    now: Timestamp,
) -> Result<Accepted, Problem> {
    let job = new_job(admitted, peer, now);
    let rejected = new_rejected(shared, problem.code, new_job(admitted, peer, now));
    let job_id = job.job_id.clone();
    let (full, taken) = (problem.clone(), conflict(&job_id));
    if shared.storage_full.load(Ordering::Relaxed) && !is_accepted(shared, &job).await {
        // The last of the disk is for the ends of jobs, and anybody can be refused as often as he likes.
        tracing::info!(
            job_id,
            code = problem.code.as_str(),
            "submission refused, and not recorded: the disk is full"
        );
        return Err(problem);
    }
    let written = shared
        .store
        .write(move |tx| {
            let problem = match jobs::seen(tx, &job)? {
                Some(Inserted::Duplicate { state, .. }) => return Ok(Ok(state)),
                Some(Inserted::Conflict) => taken,
                Some(Inserted::New(_)) | None => full,
            };
            jobs::reject(tx, &rejected, problem.code, problem.details.as_deref().unwrap_or_default())?;
            Ok(Err(problem))
        })
        .await;
    match written {
        Ok(Ok(state)) => Ok(Accepted { job_id, status: state.status(), duplicate: true }),
        Ok(Err(problem)) => {
            tracing::info!(job_id, code = problem.code.as_str(), problem.details, "submission refused");
            Err(problem)
        }
        Err(error) => {
            tracing::error!(job_id, %error, "a refusal could not be recorded");
            Err(problem)
        }
    }
}

/// Whether the job was accepted before; `true`, too, where that can't be read.
async fn is_accepted(shared: &Shared, job: &NewJob) -> bool {
    let (controller, job_id) = (job.controller_id.clone(), job.job_id.clone());
    shared.store.read(move |db| jobs::is_accepted(db, &controller, &job_id)).await.unwrap_or(true)
}

fn conflict(job_id: &str) -> Problem {
    Problem::new(Code::JobIdConflict).details(format!(
        "job {job_id:?} was accepted before with other content; a new job needs a new job_id"
    ))
}

pub(super) fn storage_error(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable { .. } | StoreError::Closed => Problem::new(Code::StorageError)
            .details(
                "the agent's database can't be written or read now, nothing was accepted; try again later",
            )
            .retry_after(TRY_AGAIN),
        other => {
            tracing::error!(error = %other, "a defect of the record");
            Problem::new(Code::Internal)
        }
    }
}

fn new_job(admitted: &Admitted, peer: IpAddr, now: Timestamp) -> NewJob {
    let payload = admitted.payload();
    let secrets: Vec<&str> = payload.secrets().collect();
    let [prompt, command, snapshot, risk_level] = redact::redact_texts(
        &secrets,
        [&payload.prompt, &payload.command_text(), &payload.snapshot_metadata, admitted.risk_level()],
    );
    NewJob {
        controller_id: payload.controller_id.clone(),
        key_id: admitted.key_id().map(str::to_owned),
        key_print: admitted.key().print,
        job_id: payload.job_id.clone(),
        payload: admitted.raw().to_vec(),
        payload_sha256: admitted.payload_sha256().to_owned(),
        prompt,
        command,
        snapshot,
        risk_level,
        image: admitted.image().to_owned(),
        limits: serde_json::to_value(admitted.limits()).unwrap_or_default(),
        network: admitted.network(),
        ttl: payload.ttl,
        peer: peer.to_string(),
        accepted_at: now,
    }
}

fn new_rejected(shared: &Shared, code: Code, job: NewJob) -> NewRejected {
    NewRejected {
        controller_id: job.controller_id,
        key_id: job.key_id,
        job_id: job.job_id,
        payload_sha256: job.payload_sha256,
        prompt: kept(shared, code, job.prompt),
        command: kept(shared, code, job.command),
        snapshot: kept(shared, code, job.snapshot),
        risk_level: job.risk_level,
        image: job.image,
        ttl: job.ttl,
        peer: job.peer,
        at: job.accepted_at,
    }
}

/// Records what the gate refused; gives the answer. The door counts it.
async fn refuse(shared: &Arc<Shared>, refused: Refused, peer: IpAddr, now: Timestamp) -> Problem {
    let Refused { problem, authenticated } = refused;
    let secrets = authenticated.as_ref().map(|claims| claims.secrets.as_slice()).unwrap_or_default();
    // The caller is told its own words, a scope for example; log and record are not.
    let details = redact::redact_str(secrets, problem.details.as_deref().unwrap_or_default());
    let code = problem.code;
    tracing::info!(code = code.as_str(), details, peer = %peer, "submission refused");
    let written = match authenticated {
        Some(claims) if claims.job_id.is_some() => {
            let redacted = |text: &str| kept(shared, code, redact::redact_str(&claims.secrets, text));
            let rejected = NewRejected {
                job_id: claims.job_id.clone().unwrap_or_default(),
                prompt: redacted(&claims.prompt),
                command: redacted(&claims.command),
                snapshot: String::new(),
                controller_id: claims.controller_id,
                key_id: claims.key_id,
                payload_sha256: claims.payload_sha256,
                risk_level: redact::redact_str(&claims.secrets, &claims.risk_level),
                image: String::new(),
                ttl: 0,
                peer: peer.to_string(),
                at: now,
            };
            shared.store.write(move |tx| jobs::reject(tx, &rejected, code, &details).map(drop)).await
        }
        claims => {
            let verified = claims.is_some();
            let refusal = Refusal {
                at: now,
                peer: peer.to_string(),
                verified,
                controller_id: claims.as_ref().map(|claims| claims.controller_id.clone()),
                job_id: None,
                details: Some(submissions::cut(&details, verified)),
                payload_sha256: claims.map(|claims| claims.payload_sha256),
            };
            if !verified {
                // Anybody can send one: no commit of its own.
                shared.refusals.push(refusal, code);
                return problem;
            }
            shared.store.write(move |tx| submissions::refused(tx, &refusal, code)).await
        }
    };
    if let Err(error) = written {
        tracing::error!(%error, "a refusal could not be recorded");
    }
    problem
}

/// As much of a refused job's (redacted) text as is recorded: where many are refused because of the load, a short
/// beginning of each, and none while the disk is nearly full.
fn kept(shared: &Shared, code: Code, text: String) -> String {
    if code == Code::StorageLow || shared.storage_low.load(Ordering::Relaxed) {
        return String::new();
    }
    match code {
        Code::RateLimited | Code::QueueFull | Code::QuotaExceeded | Code::Draining => {
            Event::cut(&text).to_owned()
        }
        _ => text,
    }
}

/// Records a refusal of what the gate had admitted.
async fn record_rejection(
    shared: &Arc<Shared>,
    admitted: &Admitted,
    problem: &Problem,
    peer: IpAddr,
    now: Timestamp,
) {
    let (code, details) = (problem.code, problem.details.clone().unwrap_or_default());
    let rejected = new_rejected(shared, code, new_job(admitted, peer, now));
    tracing::info!(job_id = rejected.job_id, code = code.as_str(), details, "submission refused");
    let written = shared.store.write(move |tx| jobs::reject(tx, &rejected, code, &details).map(drop)).await;
    if let Err(error) = written {
        tracing::error!(%error, "a refusal could not be recorded");
    }
}

/// Cancels a job: one that waits ends at once, one that runs is asked to.
///
/// # Errors
/// The gate's refusal; `JOB_NOT_FOUND` also for somebody else's job; `JOB_ENDED`.
pub(super) async fn cancel(
    shared: &Arc<Shared>,
    job_id: &str,
    body: Bytes,
    via: Via,
    now: Timestamp,
) -> Result<CancelAnswer, Problem> {
    let peer = via.peer;
    let admitted = match shared.gate.load().cancel_via(job_id, &body, &via, now) {
        Ok(admitted) => admitted,
        Err(refused) => {
            // A refused cancel is no job: it is recorded as a submission, never as a rejected run.
            let authenticated =
                refused.authenticated.map(|claims| crate::gate::Claims { job_id: None, ..claims });
            return Err(refuse(shared, Refused { problem: refused.problem, authenticated }, peer, now).await);
        }
    };
    end(shared, job_id, admitted, now).await
}

/// Cancels a job for somebody who holds the right to operate.
///
/// # Errors
/// As [`cancel`].
pub(super) async fn cancel_by(
    shared: &Arc<Shared>,
    operator: &Operator,
    job_id: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<CancelAnswer, Problem> {
    let admitted = shared.gate.load().cancel_by(operator, job_id, body)?;
    end(shared, job_id, admitted, now).await
}

async fn end(
    shared: &Arc<Shared>,
    job_id: &str,
    admitted: AdmittedCancel,
    now: Timestamp,
) -> Result<CancelAnswer, Problem> {
    let (id, controller, admin) = (job_id.to_owned(), admitted.controller_id().to_owned(), admitted.admin());
    reads::take(shared, admitted.by())?;
    let owner = admitted.job_controller_id().map(str::to_owned);
    let (job, located) = shared
        .store
        .read(move |db| {
            let located = match &owner {
                Some(owner) if !admin && *owner != controller => Located::Nowhere,
                Some(owner) => jobs::locate(db, owner, &id)?.map_or(Located::Nowhere, Located::Row),
                None => match jobs::locate(db, &controller, &id)? {
                    Some(row) => Located::Row(row),
                    None if admin => jobs::locate_any(db, &id)?,
                    None => Located::Nowhere,
                },
            };
            let job = match located {
                Located::Row(row) => jobs::get(db, row)?,
                Located::Nowhere | Located::Ambiguous => None,
            };
            Ok((job, located))
        })
        .await
        .map_err(|error| storage_error(&error))?;
    query::located(located, job_id, "`job_controller_id`")?;
    let job = job.ok_or_else(|| Problem::new(Code::JobNotFound))?;
    let ended = |status: Status| {
        Problem::new(Code::JobEnded)
            .details(format!("job {job_id:?} is {} already: there is nothing to cancel", status.as_str()))
    };
    if job.state.is_final() {
        return Err(ended(job.status()));
    }

    let cancel = Cancel {
        at: now,
        why: CancelWhy::Cancel,
        by: admitted.by().to_owned(),
        reason: admitted.reason().map(|reason| redact::redact_str::<String>(&[], reason)),
        payload_sha256: admitted.payload_sha256().map(str::to_owned),
    };
    let row = job.row;
    // From here on in a task of its own, for the same reason as a submission's.
    let owned = Arc::clone(shared);
    let task = tokio::spawn(async move {
        owned.store.write(move |tx| jobs::cancel_requested(tx, row, &cancel)).await?;
        // Where it waits; else where it runs, whose runner looks; else where it has come back to from there meanwhile.
        let waiting = owned.queue().take(row).is_some()
            || (!owned.ask_to_stop(row, Stop::Cancelled) && owned.queue().take(row).is_some());
        if waiting {
            owned.show_depth();
            let verdict = Verdict::without_exit(Reason::Cancelled, "the job was cancelled before it started");
            conclude::write(&owned, Ended::never_ran(&job, verdict), None).await;
            return Ok::<Status, StoreError>(Status::Failed);
        }
        // Of a turn that has just come, the runner finds the request in the database.
        Ok(Status::Running)
    });
    match task.await {
        Ok(Ok(status)) => {
            tracing::info!(job_id, row, by = admitted.by(), "cancel requested");
            Ok(CancelAnswer { job_id: job_id.to_owned(), status, cancel_requested: true })
        }
        Ok(Err(StoreError::Conflict { found, .. })) => {
            Err(ended(found.map_or(Status::Failed, |state| state.status())))
        }
        Ok(Err(error)) => Err(storage_error(&error)),
        Err(_) => Err(Problem::new(Code::Internal)),
    }
}
