use quickcmd_init::proto::{Artifact, Refusal};
use serde_json::json;

use super::*;
use crate::{
    store::{Store, StoreError, Tx},
    wire::{Code, payload::Network},
};

/// A moment that tests count from.
pub(in crate::store) const T0: Timestamp = Timestamp(1_704_628_800_000_000_000);

/// Seconds after [`T0`].
pub(in crate::store) fn at(seconds: u64) -> Timestamp {
    T0.plus(std::time::Duration::from_secs(seconds))
}

pub(in crate::store) fn new_job(controller: &str, job: &str) -> NewJob {
    NewJob {
        controller_id: controller.to_owned(),
        key_id: Some("k1".to_owned()),
        key_print: Some(0xbeef),
        job_id: job.to_owned(),
        payload: format!("{{\"job_id\":\"{job}\",\"secret\":\"hunter2-very-secret\"}}").into_bytes(),
        payload_sha256: format!("sha-{controller}-{job}"),
        prompt: "say hello".to_owned(),
        command: "echo hello".to_owned(),
        snapshot: "snap".to_owned(),
        risk_level: "low".to_owned(),
        image: "debian:12".to_owned(),
        limits: json!({"cpu": 0.5, "memory": 1024}),
        network: Network::None,
        ttl: 1_704_628_900,
        peer: "192.0.2.1".to_owned(),
        accepted_at: T0,
    }
}

pub(in crate::store) fn new_rejected(controller: &str, job: &str) -> NewRejected {
    NewRejected {
        controller_id: controller.to_owned(),
        key_id: None,
        job_id: job.to_owned(),
        payload_sha256: "other".to_owned(),
        prompt: "p".to_owned(),
        command: "rm -rf /".to_owned(),
        snapshot: String::new(),
        risk_level: "high".to_owned(),
        image: String::new(),
        ttl: 0,
        peer: "192.0.2.1".to_owned(),
        at: T0,
    }
}

pub(in crate::store) fn start(attempt: u32) -> Starting {
    Starting {
        attempt,
        container_name: format!("quickcmd-{attempt}"),
        image: "debian:12".to_owned(),
        image_id: Some("sha256:1".to_owned()),
        digest: Some("debian@sha256:2".to_owned()),
        turn_at: at(1),
        // Its sandbox took half a second: that is not waiting.
        now: Timestamp(at(1).0 + 500_000_000),
    }
}

pub(in crate::store) fn end(reason: Reason) -> End {
    End {
        exit_code: 3,
        stdout: "hello\n".to_owned(),
        stdout_bytes: 6,
        stdout_sha256: "5891".to_owned(),
        cpu_ms: Some(12),
        max_rss_bytes: Some(4096),
        ..End::without_output(reason, at(5), None)
    }
}

/// The same end, of a job that has left a file.
pub(in crate::store) fn with_artifacts(end: End) -> End {
    let kept = Artifact::Kept {
        path: "out/a".to_owned(),
        size: 3,
        sha256: "ab".to_owned(),
        mode: 0o640,
        masked: false,
        at: 77,
    };
    let refused = Artifact::Refused {
        path: "link".to_owned(),
        why: Refusal::Symlink,
        error: "it is a link".to_owned(),
    };
    End { artifacts: vec![kept, refused], ..end }
}

/// [`insert`], prepared.
pub(in crate::store) fn put(tx: &Tx<'_>, job: NewJob) -> Result<Inserted, StoreError> {
    insert(tx, &Prepared::new(job))
}

/// Accepts a job and answers its row.
pub(in crate::store) fn accept(tx: &Tx<'_>, job: &NewJob) -> Result<i64, StoreError> {
    match put(tx, job.clone())? {
        Inserted::New(row) => Ok(row),
        other => Err(StoreError::Internal(format!("{other:?}"))),
    }
}

/// A store in a folder that lives as long as the test.
pub(in crate::store) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("audit.db")).unwrap();
    (folder, store)
}

#[tokio::test]
async fn a_job_goes_through_its_life_and_every_step_is_in_the_log() {
    let (_folder, store) = store();
    let row = store.write(|tx| accept(tx, &new_job("alice", "j1"))).await.unwrap();
    let waiting = store.read(|conn| queued(conn, Queued::START, 10)).await.unwrap();
    assert_eq!(waiting.iter().map(|job| job.row).collect::<Vec<_>>(), [row]);
    let job = store.read(move |conn| get(conn, row)).await.unwrap().unwrap();
    assert_eq!(job.limits, json!({"cpu": 0.5, "memory": 1024}));
    assert_eq!((waiting[0].ttl, waiting[0].accepted_at), (job.ttl, job.accepted_at));
    assert_eq!(job.status(), Status::Pending);
    assert_eq!(job.to_result(), None);

    store.write(move |tx| starting(tx, row, &start(1))).await.unwrap();
    store.write(move |tx| container(tx, row, "c0ffee", Some(2), at(1))).await.unwrap();
    store.write(move |tx| running(tx, row, at(2), at(60))).await.unwrap();
    let alive = store.read(unfinished).await.unwrap();
    assert_eq!(alive.len(), 1);
    assert_eq!(alive[0].state, State::Running);
    assert_eq!(alive[0].deadline_at, Some(at(60)));
    let held = store.read(holders).await.unwrap();
    assert_eq!((held[0].row, held[0].container_id.as_deref()), (row, Some("c0ffee")));
    assert_eq!(store.read(move |conn| holder(conn, row)).await.unwrap().as_ref(), held.first());

    let receipt =
        store.write(move |tx| finish(tx, row, &[State::Running], &end(Reason::Exited))).await.unwrap();
    let job = store.read(move |conn| get(conn, row)).await.unwrap().unwrap();
    assert_eq!(job.receipt.as_ref(), Some(&receipt));
    let result = job.to_result().unwrap();
    assert_eq!(result.status, Status::Completed);
    assert_eq!(result.exit_code, 3);
    assert_eq!((result.queued_ms, result.started_ms, result.duration_ms), (1000, 1000, 3000));
    assert_eq!(result.stdout, "hello\n");
    assert_eq!(result.sandbox_id, "c0ffee");
    assert_eq!(result.snapshot.as_deref(), Some("snap"));
    assert_eq!(result.image_digest.as_deref(), Some("debian@sha256:2"));
    assert_eq!(result.usage, Some(Usage { cpu_ms: 12, max_rss_bytes: 4096 }));

    assert_eq!(store.read(|conn| uncleaned(conn, 0, 10)).await.unwrap().len(), 1);
    store.write(move |tx| cleaned(tx, row, at(6))).await.unwrap();
    store.write(move |tx| cleaned(tx, row, at(7))).await.unwrap();
    assert!(store.read(|conn| uncleaned(conn, 0, 10)).await.unwrap().is_empty());

    let kinds = store
        .read(|conn| {
            let entries = crate::store::audit::entries(conn, 0, 100)?;
            Ok(entries
                .into_iter()
                .map(|(number, bytes)| {
                    let entry: Value = serde_json::from_slice(&bytes).unwrap();
                    assert_eq!(entry["entry"], number);
                    entry["kind"].as_str().unwrap().to_owned()
                })
                .collect::<Vec<_>>())
        })
        .await
        .unwrap();
    assert_eq!(
        kinds,
        ["job.accepted", "job.starting", "job.container", "job.running", "job.ended", "job.cleaned"]
    );
    assert_eq!(receipt.entry, 4);
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_step_refuses_every_state_that_it_does_not_start_from() {
    type Step = fn(&Tx<'_>, i64) -> Result<(), StoreError>;
    /// A step, the states it starts from, and the one it leads to.
    const STEPS: &[(Step, &[State], Option<State>)] = &[
        (|tx, row| starting(tx, row, &start(2)), &[State::Queued], Some(State::Starting)),
        (|tx, row| image(tx, row, "i", None, at(1)), &[State::Starting], None),
        (|tx, row| container(tx, row, "c", None, at(1)), &[State::Starting], None),
        (|tx, row| running(tx, row, at(2), at(3)), &[State::Starting], Some(State::Running)),
        (|tx, row| requeue(tx, row, at(2)), &[State::Starting], Some(State::Queued)),
        (
            |tx, row| finish(tx, row, State::ALL, &end(Reason::Timeout)).map(drop),
            State::UNFINISHED,
            Some(State::Failed),
        ),
        (
            |tx, row| finish(tx, row, &[State::Starting], &end(Reason::Exited)).map(drop),
            &[State::Starting],
            Some(State::Completed),
        ),
        (
            |tx, row| {
                let cancel = Cancel {
                    at: at(2),
                    why: CancelWhy::Cancel,
                    by: "alice".to_owned(),
                    reason: None,
                    payload_sha256: None,
                };
                cancel_requested(tx, row, &cancel).map(drop)
            },
            State::UNFINISHED,
            None,
        ),
        (|tx, row| cleaned(tx, row, at(9)), &[State::Completed, State::Failed], None),
    ];
    let (_folder, store) = store();
    for (number, (step, from, to)) in STEPS.iter().enumerate() {
        for state in State::ALL {
            let name = format!("{number}-{}", state.as_str());
            let (before, after, outcome, entries) = store
                .write(move |tx| {
                    let row = in_state(tx, &name, *state)?;
                    let before = get(tx, row)?.unwrap();
                    let size = crate::store::audit::size(tx)?;
                    let outcome = step(tx, row);
                    let after = get(tx, row)?.unwrap();
                    Ok((before, after, outcome, crate::store::audit::size(tx)? - size))
                })
                .await
                .unwrap();
            if from.contains(state) {
                assert_eq!(outcome, Ok(()), "step {number} from {state:?}");
                assert_eq!(after.state, to.unwrap_or(*state), "step {number} from {state:?}");
                assert_eq!(entries, 1, "step {number} from {state:?}");
            } else {
                let Err(StoreError::Conflict { row, found, .. }) = outcome else {
                    panic!("step {number} from {state:?}: {outcome:?}");
                };
                assert_eq!((row, found), (before.row, Some(*state)));
                assert!(before == after, "step {number} changed a job that is {state:?}");
                assert_eq!(entries, 0);
            }
        }
    }
    let missing = store.write(|tx| requeue(tx, 99_999, T0)).await;
    assert_eq!(missing.unwrap_err().to_string(), "job row 99999 is missing, not starting");
}

/// A new job that was brought into a state.
fn in_state(tx: &Tx<'_>, name: &str, state: State) -> Result<i64, StoreError> {
    if state == State::Rejected {
        return reject(tx, &new_rejected("alice", name), Code::PolicyDenied, "no");
    }
    let row = accept(tx, &new_job("alice", name))?;
    if state != State::Queued {
        starting(tx, row, &start(1))?;
    }
    if !matches!(state, State::Queued | State::Starting) {
        running(tx, row, at(2), at(60))?;
    }
    match state {
        State::Completed => drop(finish(tx, row, &[State::Running], &end(Reason::Exited))?),
        State::Failed => drop(finish(tx, row, &[State::Running], &end(Reason::Oom))?),
        State::Queued | State::Starting | State::Running | State::Rejected => {}
    }
    Ok(row)
}

#[tokio::test]
async fn artifacts_are_listed_until_retention_removes_them() {
    let (_folder, store) = store();
    let (row, listed) = store
        .write(|tx| {
            let row = accept(tx, &new_job("alice", "j"))?;
            finish(tx, row, State::UNFINISHED, &with_artifacts(end(Reason::Exited)))?;
            Ok((row, artifacts(tx, row)?))
        })
        .await
        .unwrap();
    assert_eq!(listed, with_artifacts(end(Reason::Exited)).artifacts);
    let job = store.read(move |conn| get(conn, row)).await.unwrap().unwrap();
    let shown = serde_json::to_value(job.to_result().unwrap().artifacts).unwrap();
    assert_eq!(
        shown,
        json!([
            {"path": "out/a", "size": 3, "sha256": "ab", "mode": "0640"},
            {"path": "link", "refused": "symlink", "error": "it is a link"}
        ])
    );
    assert!(store.read(move |conn| text_bytes(conn, row)).await.unwrap() > 150, "their list counts as text");
    store.write(|tx| crate::store::retention::purge(tx, at(9), 10, at(10))).await.unwrap();
    assert!(store.read(move |conn| artifacts(conn, row)).await.unwrap().is_empty());
    let job = store.read(move |conn| get(conn, row)).await.unwrap().unwrap();
    assert!(job.to_result().unwrap().artifacts.is_empty());
}
