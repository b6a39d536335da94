//! What a read or an insert costs does not depend on how long the history is: counted in steps of
//! SQLite's machine, not in time.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rusqlite::Connection;

use super::{tests::*, *};
use crate::store::{Store, StoreError};

/// Fills a store: one of a hundred jobs failed, one of a hundred is of `rare`, twenty wait.
async fn filled(rows: i64) -> (tempfile::TempDir, Store) {
    let (folder, store) = store();
    store
        .write(move |tx| {
            tx.execute(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                 INSERT INTO jobs (controller_id, job_id, peer, payload_sha256, accepted_at, ended_at, ttl, \
                   risk_level, image, limits, network, state, reason, container_name, cleaned_at) \
                 SELECT iif(i % 100 = 1, 'rare', 'common'), 'job-' || i, '', '', i * 1000, \
                   iif(i % (?1 / 20) = 2, NULL, i * 1000), 0, 'low', 'image', '{}', 'none', \
                   CASE WHEN i % (?1 / 20) = 2 THEN 'queued' WHEN i % 100 < 2 THEN 'failed' ELSE 'completed' END, \
                   CASE WHEN i % (?1 / 20) = 2 THEN NULL WHEN i % 100 < 2 THEN 'timeout' ELSE 'exited' END, \
                   'name', 1 FROM n",
                [rows],
            )?;
            Ok(())
        })
        .await
        .unwrap();
    (folder, store)
}

/// Steps of SQLite's machine for a submission, with a few to spare.
const STEPS_OF_A_SUBMISSION: u64 = 450;

/// Steps that SQLite's machine takes for a closure.
fn steps(conn: &Connection, closure: impl FnOnce(&Connection) -> Result<(), StoreError>) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let tick = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    conn.progress_handler(1, Some(tick)).unwrap();
    closure(conn).unwrap();
    conn.progress_handler(0, None::<fn() -> bool>).unwrap();
    count.load(Ordering::Relaxed)
}

fn filters() -> Vec<ListFilter> {
    let mut filters = Vec::new();
    for controller in [None, Some("rare".to_owned())] {
        for (status, reason) in [
            (None, None),
            (Some(Status::Failed), None),
            (Some(Status::Pending), None),
            (Some(Status::Rejected), None),
            (None, Some("timeout".to_owned())),
            (Some(Status::Failed), Some("timeout".to_owned())),
            (Some(Status::Completed), Some("timeout".to_owned())),
        ] {
            for bounded in [false, true] {
                filters.push(ListFilter {
                    controller: controller.clone(),
                    status,
                    reason: reason.clone(),
                    since: bounded.then_some(Timestamp(1)),
                    until: bounded.then_some(Timestamp(1_000_000)),
                    limit: 5,
                    cursor: bounded.then_some(Cursor::parse("900000.900").unwrap()),
                });
            }
        }
    }
    filters
}

#[tokio::test]
async fn reads_and_inserts_cost_the_same_with_fifty_times_the_history() {
    let mut costs = Vec::new();
    for rows in [2_000, 100_000] {
        let (_folder, store) = filled(rows).await;
        let mut cost = store
            .read(|conn| {
                let mut cost: Vec<(String, u64)> = filters()
                    .into_iter()
                    .map(|filter| (format!("{filter:?}"), steps(conn, |conn| list(conn, &filter).map(drop))))
                    .collect();
                cost.push(("queued".into(), steps(conn, |conn| queued(conn, Queued::START, 10).map(drop))));
                cost.push(("unfinished".into(), steps(conn, |conn| unfinished(conn).map(drop))));
                cost.push(("holders".into(), steps(conn, |conn| holders(conn).map(drop))));
                cost.push(("rows".into(), steps(conn, |conn| unfinished_rows(conn).map(drop))));
                cost.push(("uncleaned".into(), steps(conn, |conn| uncleaned(conn, 0, 10).map(drop))));
                cost.push(("find".into(), steps(conn, |conn| find(conn, "common", "job-50").map(drop))));
                cost.push(("no job".into(), steps(conn, |conn| find(conn, "common", "x").map(drop))));
                cost.push(("by id".into(), steps(conn, |conn| locate_any(conn, "job-50").map(drop))));
                Ok(cost)
            })
            .await
            .unwrap();
        let insert = store
            .write(|tx| {
                Ok(steps(tx, |_| {
                    let row = accept(tx, &new_job("alice", "new"))?;
                    starting(tx, row, &start(1))?;
                    running(tx, row, at(2), at(3))?;
                    finish(tx, row, &[State::Running], &end(Reason::Exited)).map(drop)
                }))
            })
            .await
            .unwrap();
        cost.push(("a job's life".into(), insert));
        costs.push(cost);
    }
    for ((name, small), (_, big)) in costs[0].iter().zip(&costs[1]) {
        assert!(*big <= small * 2 + 100, "{name}: {small} steps became {big}");
    }
}

/// Everybody waits for the writer: what a submission costs it does not depend on the machine, and must not grow.
#[tokio::test]
async fn a_submission_takes_the_writer_few_steps() {
    let (_folder, store) = filled(2_000).await;
    let (steps, changes, entries) = store
        .write(|tx| {
            put(tx, new_job("alice", "before"))?;
            let changes = tx.total_changes();
            let prepared = Prepared::new(new_job("alice", "new"));
            let steps = steps(tx, |_| insert(tx, &prepared).map(drop));
            // Each index that the row stands in is one entry more to write.
            let mut entries = 0;
            for (index, term) in [
                ("jobs_accepted", "state <> 'rejected'"),
                ("jobs_unfinished", "ended_at IS NULL"),
                ("jobs_by_time", "true"),
                ("jobs_by_controller", "true"),
                ("jobs_by_status", "ended_at IS NOT NULL"),
                ("jobs_by_controller_status", "ended_at IS NOT NULL"),
                ("jobs_by_reason", "reason IS NOT NULL"),
                ("jobs_by_controller_reason", "reason IS NOT NULL"),
                ("jobs_rejected", "state = 'rejected'"),
                ("jobs_uncleaned", "container_name IS NOT NULL AND cleaned_at IS NULL"),
                ("jobs_unpurged", "ended_at IS NOT NULL AND purged_at IS NULL"),
                ("jobs_ended", "ended_at IS NOT NULL"),
            ] {
                entries += tx.query_row(
                    &format!("SELECT count(*) FROM jobs INDEXED BY {index} WHERE job_id = 'new' AND {term}"),
                    [],
                    |row| row.get::<_, i64>(0),
                )?;
            }
            let indexes: i64 = tx.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'jobs'",
                [],
                |row| row.get(0),
            )?;
            assert_eq!(indexes, 12, "a new index of jobs is to be counted here");
            Ok((steps, tx.total_changes() - changes, entries))
        })
        .await
        .unwrap();
    // Job, texts, payload, submission and audit entry.
    assert_eq!((changes, entries), (5, 4));
    assert!(steps <= STEPS_OF_A_SUBMISSION, "{steps} steps");
}

/// A rule with a list of three or more makes SQLite build a table for every row that is written; three such rules cost
/// more than all the rest.
#[tokio::test]
async fn no_rule_of_the_tables_makes_a_table_for_every_row() {
    let (_folder, store) = store();
    store
        .write(|tx| {
            for table in ["jobs", "texts", "payloads", "submissions", "audit", "outputs"] {
                let mut program = tx.prepare(&format!("EXPLAIN INSERT INTO {table} DEFAULT VALUES"))?;
                let codes: Vec<String> =
                    program.query_map([], |row| row.get("opcode"))?.collect::<Result<_, _>>()?;
                assert!(codes.iter().any(|code| code == "Insert"), "{table}: {codes:?}");
                assert!(!codes.iter().any(|code| code == "OpenEphemeral"), "{table}: {codes:?}");
            }
            Ok(())
        })
        .await
        .unwrap();
}

/// What start-up and the sweeps hold of thousands of jobs must not have the jobs' texts in it, which may be a MiB each.
#[tokio::test]
async fn what_looks_at_many_jobs_reads_no_texts() {
    let (_folder, store) = filled(200).await;
    store
        .write(|tx| {
            tx.execute_batch("DROP VIEW runs; DROP TABLE texts; DROP TABLE outputs; DROP TABLE payloads")?;
            assert!(get(tx, 1).is_err(), "a whole job can't be read any more");
            assert_eq!(queued(tx, Queued::START, 100)?.len(), 20);
            assert_eq!(unfinished_rows(tx)?.len(), 20);
            assert_eq!((holders(tx)?.len(), uncleaned(tx, 0, 10)?.len()), (0, 0));
            assert!(holder(tx, 1)?.is_some());
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap_or_a_repeat() {
    let (_folder, store) = filled(2_000).await;
    let all = store
        .read(|conn| {
            let mut filter = ListFilter {
                status: Some(Status::Failed),
                limit: 7,
                since: Some(Timestamp(100_000)),
                ..ListFilter::default()
            };
            let mut all = Vec::new();
            loop {
                let (page, next) = list(conn, &filter)?;
                assert!(page.len() == 7 || next.is_none());
                all.extend(page.into_iter().map(|row| row.job_id));
                match next {
                    // Through its text, as a caller would.
                    Some(cursor) => filter.cursor = Cursor::parse(&cursor.to_string()),
                    None => return Ok(all),
                }
            }
        })
        .await
        .unwrap();
    let expected: Vec<String> =
        (100..=2_000).rev().filter(|i| i % 100 < 2).map(|i| format!("job-{i}")).collect();
    assert_eq!(all, expected);
}

#[test]
fn a_cursor_that_no_page_gave_is_refused() {
    for text in ["", "1", "1.", ".1", "1.2.3", "+1.2", "01.2", "a.b", "1.99999999999999999999"] {
        assert_eq!(Cursor::parse(text), None, "{text}");
    }
    assert_eq!(Cursor::parse("-5.2").map(|cursor| cursor.to_string()).as_deref(), Some("-5.2"));
}
