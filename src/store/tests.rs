mod files;

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use rusqlite::Connection;

use super::{
    jobs::{Inserted, State, tests::*},
    *,
};
use crate::{
    base::clock::Timestamp,
    wire::{Code, Reason, Status},
};

#[tokio::test]
async fn what_was_written_is_there_after_the_store_was_opened_again() {
    let (folder, store) = store();
    let path = folder.path().join("audit.db");
    let row = store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    drop(store);
    let store = Store::open(&path).unwrap();
    let job = store.read(move |conn| jobs::get(conn, row)).await.unwrap().unwrap();
    assert_eq!((job.job_id.as_str(), job.state), ("j", State::Queued));
    let payload = store.read(move |conn| jobs::payload(conn, row)).await.unwrap();
    assert_eq!(payload, Some(new_job("alice", "j").payload));
    store.close().await.unwrap();
    assert!(!folder.path().join("audit.db-wal").exists(), "a clean stop leaves no log");
    assert_eq!(store.write(|_| Ok(())).await, Err(StoreError::Closed));
    assert_eq!(store.read(|_| Ok(())).await, Err(StoreError::Closed));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn what_became_of_each_transaction_is_told() {
    let (_folder, store) = store();
    let told = Arc::<Mutex<Vec<Batch>>>::default();
    let list = told.clone();
    store.on_commit(Box::new(move |batch| list.lock().unwrap().push(batch)));
    let row = store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    let conflict = store.write(move |tx| jobs::cleaned(tx, row + 1, Timestamp(1))).await;
    let refused = store.write(|tx| Ok(tx.execute("INSERT INTO nowhere VALUES (1)", [])?)).await;
    assert!(refused.is_err());
    let told: Vec<_> = told
        .lock()
        .unwrap()
        .iter()
        .map(|batch| (batch.committed, batch.changes, batch.refused, batch.entries))
        .collect();
    assert_eq!(told, [(true, 1, 0, 1), (true, 1, 0, 0), (true, 1, 1, 0)], "{conflict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_copies_at_once_one_is_new() {
    let (_folder, store) = store();
    let copies = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.write(|tx| put(tx, new_job("alice", "same"))).await.unwrap() })
    });
    let outcomes = futures_util::future::join_all(copies).await;
    let new = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Inserted::New(_)))).count();
    let duplicates = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Inserted::Duplicate { row: 1, state: State::Queued, .. })))
        .count();
    assert_eq!((new, duplicates), (1, 99));
}

#[tokio::test]
async fn other_bytes_under_the_same_id_conflict_and_other_controllers_do_not() {
    let (_folder, store) = store();
    let outcomes = store
        .write(|tx| {
            let mut other = new_job("alice", "j");
            other.payload_sha256 = "different".to_owned();
            Ok((put(tx, new_job("alice", "j"))?, put(tx, other)?, put(tx, new_job("bob", "j"))?))
        })
        .await
        .unwrap();
    assert_eq!(outcomes, (Inserted::New(1), Inserted::Conflict, Inserted::New(2)));
    let located = store
        .read(|conn| {
            let located = jobs::locate_any(conn, "j")?;
            Ok((jobs::locate(conn, "alice", "j")?, jobs::locate(conn, "bob", "j")?, located))
        })
        .await
        .unwrap();
    assert_eq!(located, (Some(1), Some(2), jobs::Located::Ambiguous), "neither stands before the other");
}

#[tokio::test]
async fn a_rejected_job_takes_no_id_and_disturbs_no_accepted_one() {
    let (_folder, store) = store();
    let (before, accepted, after, other) = store
        .write(|tx| {
            jobs::reject(tx, &new_rejected("alice", "j"), Code::ImageNotAllowed, "no such image")?;
            jobs::reject(tx, &new_rejected("alice", "j"), Code::PolicyDenied, "rule x")?;
            let before = jobs::find(tx, "alice", "j")?.unwrap();
            let accepted = accept(tx, &new_job("alice", "j"))?;
            jobs::reject(tx, &new_rejected("alice", "j"), Code::JobIdConflict, "")?;
            let after = jobs::find(tx, "alice", "j")?.unwrap();
            assert_eq!(jobs::locate_any(tx, "j")?, jobs::Located::Row(after.row));
            jobs::reject(tx, &new_rejected("bob", "k"), Code::PolicyDenied, "")?;
            let last = jobs::reject(tx, &new_rejected("alice", "k"), Code::PolicyDenied, "")?;
            assert_eq!(jobs::locate_any(tx, "k")?, jobs::Located::Row(last));
            assert_eq!(jobs::locate_any(tx, "l")?, jobs::Located::Nowhere);
            Ok((before, accepted, after, jobs::find(tx, "bob", "j")?))
        })
        .await
        .unwrap();
    assert_eq!(before.status(), Status::Rejected);
    assert_eq!(before.reason.as_deref(), Some("POLICY_DENIED"));
    assert_eq!(before.error.as_deref(), Some("rule x"));
    assert_eq!(before.to_result(), None);
    assert_eq!((after.row, after.state), (accepted, State::Queued));
    assert_eq!(other, None);
}

#[tokio::test]
async fn writes_that_wait_share_commits() {
    let (_folder, store) = store();
    let largest = Arc::new(AtomicUsize::new(0));
    let seen = largest.clone();
    store.on_commit(Box::new(move |batch| {
        seen.fetch_max(batch.changes, Ordering::Relaxed);
    }));
    // The first closure holds the writer until all the others wait.
    let (go, gate) = mpsc::channel::<()>();
    let blocker = store.clone();
    let first = tokio::spawn(async move {
        blocker
            .write(move |_| {
                let _ = gate.recv();
                Ok(())
            })
            .await
    });
    tokio::task::yield_now().await;
    let before = store.commits();
    let writes: Vec<_> = (0..1000)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                store.write(move |tx| accept(tx, &new_job("alice", &format!("j{number}")))).await
            })
        })
        .collect();
    // One thread runs all tasks: after a few rounds each has handed its closure over.
    for _ in 0..5_000 {
        tokio::task::yield_now().await;
    }
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let commits = store.commits() - before;
    assert!(commits < 100, "1,000 writes took {commits} commits");
    assert!(largest.load(Ordering::Relaxed) > 50);
}

#[tokio::test]
async fn a_closure_that_fails_or_panics_hurts_nobody_else() {
    let (_folder, store) = store();
    let good = store.write(|tx| accept(tx, &new_job("alice", "1")));
    let bad = store.write(|tx| -> Result<(), StoreError> {
        accept(tx, &new_job("alice", "2"))?;
        Err(StoreError::Internal("mine".to_owned()))
    });
    let panics = store.write(|tx| -> Result<(), StoreError> {
        accept(tx, &new_job("alice", "3"))?;
        panic!("on purpose");
    });
    let last = store.write(|tx| accept(tx, &new_job("alice", "4")));
    let (good, bad, panics, last) = tokio::join!(good, bad, panics, last);
    assert!(good.is_ok() && last.is_ok());
    assert_eq!(bad, Err(StoreError::Internal("mine".to_owned())));
    assert!(matches!(panics, Err(StoreError::Internal(_))), "{panics:?}");
    let names: Vec<String> = store
        .read(|conn| {
            let rows = jobs::unfinished_rows(conn)?;
            rows.into_iter().map(|row| Ok(jobs::get(conn, row)?.unwrap().job_id)).collect()
        })
        .await
        .unwrap();
    assert_eq!(names, ["1", "4"]);
    let panics = store.read(|_| -> Result<(), StoreError> { panic!("on purpose") }).await;
    assert!(matches!(panics, Err(StoreError::Internal(_))));
    assert!(store.read(audit::size).await.is_ok());
}

/// What is run without a savepoint of its own is run again, with one, where another of its group fails.
#[tokio::test]
async fn of_what_may_be_run_again_only_what_fails_is_taken_back() {
    let (_folder, store) = store();
    // The first holds the writer until the others wait: they are one group.
    let (go, gate) = mpsc::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let holder = store.clone();
    let hold = move |_: &Tx<'_>| {
        let _ = begun.send(());
        Ok(gate.recv().is_ok())
    };
    let first = tokio::spawn(async move { holder.write(hold).await });
    has_begun.await.unwrap();
    let prepared = |name: &str| jobs::Prepared::new(new_job("alice", name));
    let runs = Arc::new(AtomicUsize::new(0));
    let (a, b, c, counted) = (prepared("1"), prepared("2"), prepared("3"), runs.clone());
    let good = store.write_again(move |tx| {
        counted.fetch_add(1, Ordering::Relaxed);
        jobs::insert(tx, &a)
    });
    let bad = store.write_again(move |tx| -> Result<(), StoreError> {
        jobs::insert(tx, &b)?;
        Err(StoreError::Internal("mine".to_owned()))
    });
    let panics = store.write_again(move |tx| -> Result<(), StoreError> {
        jobs::insert(tx, &c)?;
        panic!("on purpose");
    });
    let once = store.write(|tx| accept(tx, &new_job("alice", "4")));
    let last = store.write_again(|tx| put(tx, new_job("alice", "5")));
    let before = store.commits();
    let release = async {
        tokio::task::yield_now().await;
        go.send(()).unwrap();
    };
    let (good, bad, panics, once, last, ()) = tokio::join!(good, bad, panics, once, last, release);
    first.await.unwrap().unwrap();
    assert_eq!(store.commits() - before, 2, "the first, and one for all others");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert!(matches!((good, last, once), (Ok(Inserted::New(1)), Ok(Inserted::New(2)), Ok(3))));
    assert_eq!(bad, Err(StoreError::Internal("mine".to_owned())));
    assert!(matches!(panics, Err(StoreError::Internal(_))), "{panics:?}");
    // The log has no gap, and says what is there.
    let entries = store.read(|conn| audit::entries(conn, 0, 9)).await.unwrap();
    let said: Vec<serde_json::Value> =
        entries.iter().map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect();
    let names: Vec<_> =
        said.iter().map(|entry| (entry["entry"].as_i64(), entry["job_id"].as_str())).collect();
    assert_eq!(names, [(Some(0), Some("1")), (Some(1), Some("5")), (Some(2), Some("4"))]);
    assert_eq!(verify_all(store.path()).unwrap().jobs, 3);
}

/// What was answered as failed must not be there, whatever keeps it from being taken back.
#[tokio::test]
async fn where_a_change_can_not_be_taken_back_its_whole_group_is() {
    for fails in [true, false] {
        let (_folder, store) = store();
        let (go, gate) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let holder = store.clone();
        let hold = move |_: &Tx<'_>| {
            let _ = begun.send(());
            Ok(gate.recv().is_ok())
        };
        let first = tokio::spawn(async move { holder.write(hold).await });
        has_begun.await.unwrap();
        let again = store.write_again(|tx| put(tx, new_job("alice", "1")));
        let before = store.write(|tx| accept(tx, &new_job("alice", "2")));
        // The way back is gone, as after a fault of the disk: neither ROLLBACK TO nor RELEASE finds it.
        let breaks = store.write(move |tx| {
            accept(tx, &new_job("alice", "3"))?;
            tx.execute_batch("RELEASE work")?;
            if fails { Err(StoreError::Internal("mine".to_owned())) } else { Ok(()) }
        });
        let after = store.write(|tx| accept(tx, &new_job("alice", "4")));
        let release = async {
            tokio::task::yield_now().await;
            go.send(()).unwrap();
        };
        let (again, before, breaks, after, ()) = tokio::join!(again, before, breaks, after, release);
        first.await.unwrap().unwrap();
        assert!(again.is_err() && before.is_err() && after.is_err(), "{again:?}, {before:?}, {after:?}");
        assert!(breaks.is_err());
        // Nothing of it is there, and the store goes on.
        assert_eq!(store.read(jobs::unfinished_rows).await.unwrap(), [0_i64; 0]);
        assert_eq!(store.read(audit::size).await.unwrap(), 0);
        store.write(|tx| accept(tx, &new_job("alice", "5"))).await.unwrap();
        assert_eq!(verify_all(store.path()).unwrap().jobs, 1);
    }
}

#[tokio::test]
async fn a_full_disk_is_typed_and_the_store_lives_on() {
    let (_folder, store) = store();
    store
        .write(|tx| {
            // The nearest thing to a full disk without one: SQLite answers the same way.
            let pages: i64 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
            tx.pragma_update_and_check(None, "max_page_count", pages + 4, |_| Ok(()))?;
            Ok(())
        })
        .await
        .unwrap();
    let mut large = new_job("alice", "large");
    large.payload = vec![b'x'; 1 << 20];
    let outcome = store.write(move |tx| accept(tx, &large)).await;
    assert!(outcome.as_ref().is_err_and(StoreError::is_retryable), "{outcome:?}");
    store
        .write(|tx| Ok(tx.pragma_update_and_check(None, "max_page_count", 1 << 20, |_| Ok(()))?))
        .await
        .unwrap();
    assert!(store.write(|tx| accept(tx, &new_job("alice", "small"))).await.is_ok());
}

#[tokio::test]
async fn reads_can_not_write() {
    let (_folder, store) = store();
    let outcome = store.read(|conn| Ok(conn.execute("DELETE FROM jobs", [])?)).await;
    assert!(outcome.is_err());
}

#[tokio::test]
async fn the_log_can_not_be_changed() {
    let (_folder, store) = store();
    store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    for sql in ["UPDATE audit SET at = 0", "DELETE FROM audit"] {
        let outcome = store.write(move |tx| Ok(tx.execute(sql, [])?)).await;
        assert!(outcome.unwrap_err().to_string().contains("append-only"));
    }
}

#[tokio::test]
async fn the_secrets_of_a_job_are_gone_when_it_has_ended() {
    let (folder, store) = store();
    let row = store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    store.write(move |tx| jobs::finish(tx, row, &[State::Queued], &end(Reason::Cancelled))).await.unwrap();
    assert_eq!(store.read(move |conn| jobs::payload(conn, row)).await.unwrap(), None);
    store.close().await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    }
}

#[tokio::test]
async fn the_view_has_the_columns_of_the_audit_schema() {
    let (_folder, store) = store();
    let row = store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    store
        .write(move |tx| {
            jobs::starting(tx, row, &start(1))?;
            jobs::container(tx, row, "c0ffee", None, at(1))?;
            jobs::running(tx, row, at(2), at(9))?;
            jobs::finish(tx, row, &[State::Running], &end(Reason::Exited))?;
            jobs::reject(tx, &new_rejected("alice", "r"), Code::PolicyDenied, "")
        })
        .await
        .unwrap();
    let (columns, rows) = store
        .read(|conn| {
            let mut statement = conn.prepare("SELECT * FROM runs ORDER BY id")?;
            let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
            let count = columns.len();
            let rows = statement
                .query_map([], |row| {
                    (0..count)
                        .map(|index| row.get::<_, rusqlite::types::Value>(index))
                        .collect::<Result<Vec<_>, _>>()
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok((columns, rows))
        })
        .await
        .unwrap();
    assert_eq!(
        columns.join(" "),
        "id timestamp user prompt selected_command sandbox_id exit_code stdout stderr risk_level snapshot executed duration_ms"
    );
    use rusqlite::types::Value::{Integer, Null};
    let text = |text: &str| rusqlite::types::Value::Text(text.to_owned());
    assert_eq!(
        rows[0],
        [
            Integer(1),
            text("2024-01-07T12:00:00.000Z"),
            text("alice"),
            text("say hello"),
            text("echo hello"),
            text("c0ffee"),
            Integer(3),
            text("hello\n"),
            text(""),
            text("low"),
            text("snap"),
            Integer(1),
            Integer(3000)
        ]
    );
    assert_eq!((&rows[1][4], &rows[1][6], &rows[1][11]), (&text("rm -rf /"), &Null, &Integer(0)));
}

#[tokio::test]
async fn every_submission_is_recorded_and_a_long_claim_is_cut() {
    let (_folder, store) = store();
    store
        .write(|tx| {
            put(tx, new_job("alice", "j"))?;
            put(tx, new_job("alice", "j"))?;
            jobs::reject(tx, &new_rejected("alice", "r"), Code::PolicyDenied, "rule")?;
            let refusal = submissions::Refusal {
                peer: "192.0.2.9".to_owned(),
                controller_id: Some("é".repeat(100_000)),
                ..submissions::Refusal::default()
            };
            submissions::refused(tx, &refusal, Code::InvalidSignature)
        })
        .await
        .unwrap();
    let rows = store
        .read(|conn| {
            let mut statement = conn.prepare(
                "SELECT outcome || ' ' || verified || ' ' || coalesce(code, '') || ' ' || coalesce(job, '') || ' ' \
                 || length(controller_id) FROM submissions ORDER BY id",
            )?;
            let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            Ok(rows)
        })
        .await
        .unwrap();
    assert_eq!(
        rows,
        [
            "accepted 1  1 5",
            "duplicate 1  1 5",
            "refused 1 POLICY_DENIED 2 5",
            "refused 0 INVALID_SIGNATURE  128"
        ]
    );
}

#[tokio::test]
async fn the_first_request_to_cancel_counts() {
    let (_folder, store) = store();
    let cancel = |why, by: &str| jobs::Cancel {
        at: at(1),
        why,
        by: by.to_owned(),
        reason: Some("changed my mind".to_owned()),
        payload_sha256: None,
    };
    let (first, second) = (cancel(jobs::CancelWhy::Cancel, "alice"), cancel(jobs::CancelWhy::Drain, "agent"));
    let (outcomes, job) = store
        .write(move |tx| {
            let row = accept(tx, &new_job("alice", "j"))?;
            let outcomes =
                (jobs::cancel_requested(tx, row, &first)?, jobs::cancel_requested(tx, row, &second)?);
            Ok((outcomes, jobs::get(tx, row)?.unwrap()))
        })
        .await
        .unwrap();
    assert_eq!(outcomes, (true, false));
    assert_eq!((job.cancel_why, job.cancel_by.as_deref()), (Some(jobs::CancelWhy::Cancel), Some("alice")));
    assert!(job.to_status().cancel_requested);
}

#[tokio::test]
async fn retention_keeps_hashes_and_ids() {
    let (_folder, store) = store();
    let before = Timestamp(at(100).0);
    store
        .write(move |tx| {
            for name in ["a", "b", "c"] {
                let row = accept(tx, &new_job("alice", name))?;
                if name != "c" {
                    jobs::finish(tx, row, &[State::Queued], &end(Reason::Expired))?;
                }
            }
            jobs::reject(tx, &new_rejected("alice", "r"), Code::PolicyDenied, "")?;
            Ok(())
        })
        .await
        .unwrap();
    store
        .write(move |tx| {
            assert_eq!(retention::purge(tx, at(5), 10, at(200))?, [4], "only what ended before");
            assert_eq!(retention::purge(tx, before, 1, at(200))?.len(), 1);
            assert_eq!(retention::purge(tx, before, 10, at(200))?.len(), 1);
            assert!(retention::purge(tx, before, 10, at(200))?.is_empty());
            let job = jobs::find(tx, "alice", "a")?.unwrap();
            assert_eq!((job.command.as_str(), job.stdout.as_str(), job.stdout_bytes), ("", "", 6));
            assert_eq!(job.stdout_sha256.as_deref(), Some("5891"));

            assert_eq!(retention::delete(tx, before, 10, at(201))?.len(), 3);
            assert!(retention::delete(tx, before, 10, at(201))?.is_empty());
            assert_eq!(jobs::find(tx, "alice", "a")?, None);
            let again = put(tx, new_job("alice", "a"))?;
            let expected =
                Inserted::Duplicate { row: 1, state: State::Failed, reason: Some("expired".to_owned()) };
            assert_eq!(again, expected);
            assert_eq!(jobs::queued(tx, jobs::Queued::START, 10)?.len(), 1);

            assert_eq!(retention::delete_submissions(tx, before, 2, at(202))?, 2);
            assert_eq!(retention::delete_submissions(tx, before, 10, at(202))?, 3);
            assert_eq!(retention::delete_submissions(tx, before, 10, at(202))?, 0);
            Ok(())
        })
        .await
        .unwrap();
    let counts = store.read(jobs::counts).await.unwrap();
    assert_eq!(counts, [(State::Queued, 1)]);
}

#[tokio::test]
async fn the_oldest_unverified_refusals_go_and_are_counted() {
    let (_folder, store) = store();
    let refusal = |at: i64, verified: bool| submissions::Refusal {
        at: Timestamp(at),
        verified,
        ..submissions::Refusal::default()
    };
    store
        .write(move |tx| {
            (1..=5).try_for_each(|n| {
                submissions::refused(tx, &refusal(10 * n, false), Code::InvalidSignature)?;
                submissions::refused(tx, &refusal(10 * n + 1, true), Code::JobExpired)
            })
        })
        .await
        .unwrap();
    let deleted = store
        .write(|tx| {
            let mut deleted = Vec::new();
            for keep in [9, 5, 2, 2, 2] {
                deleted.push(retention::cap_unverified(tx, keep, 2, Timestamp(99))?);
            }
            Ok(deleted)
        })
        .await
        .unwrap();
    assert_eq!(deleted, [0, 0, 2, 1, 0]);
    let (left, entries) = store
        .read(|conn| {
            let column = |sql: &str| -> Result<Vec<String>, StoreError> {
                let mut statement = conn.prepare(sql)?;
                Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
            };
            Ok((
                column("SELECT CAST(at AS TEXT) FROM submissions ORDER BY id")?,
                column("SELECT CAST(entry AS TEXT) FROM audit ORDER BY number")?,
            ))
        })
        .await
        .unwrap();
    assert_eq!(left, ["11", "21", "31", "40", "41", "50", "51"]);
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert!(
        entries[0].contains(r#""before":21"#) && entries[0].contains(r#""submissions":2"#),
        "{entries:?}"
    );
    assert!(entries[1].contains(r#""kind":"retention.unverified""#), "{entries:?}");
}
