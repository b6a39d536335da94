//! The file itself: copies, damage, other programs' files, earlier versions.

use sha2::{Digest, Sha256};

use super::*;

#[tokio::test]
async fn a_backup_is_whole_and_opens_as_a_store() {
    let (folder, store) = store();
    store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    let copy = folder.path().join("copy.db");
    store.backup(&copy).await.unwrap();
    store.write(|tx| accept(tx, &new_job("alice", "later"))).await.unwrap();
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let found = verify(&copy).unwrap();
    assert_eq!(names(&folder).into_iter().filter(|name| name.starts_with("copy")).count(), 1, "one file");
    assert_eq!((found.schema, found.jobs, found.audit_entries), (schema::latest(), 1, 1));
    let restored = Store::open(&copy).unwrap();
    assert_eq!(restored.read(|conn| jobs::queued(conn, jobs::Queued::START, 9)).await.unwrap().len(), 1);
    assert!(matches!(store.backup(&copy).await, Err(StoreError::Exists { .. })), "nothing is overwritten");
    // The running one can be verified too.
    assert_eq!(verify(store.path()).unwrap().jobs, 2);
}

#[tokio::test]
async fn verify_names_the_entry_that_was_changed() {
    let (folder, store) = store();
    let path = folder.path().join("audit.db");
    for name in ["a", "b", "c"] {
        store.write(move |tx| accept(tx, &new_job("alice", name))).await.unwrap();
    }
    store.close().await.unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("DROP TRIGGER audit_not_changed; DROP TRIGGER audit_not_removed").unwrap();
    conn.execute("UPDATE audit SET entry = CAST('{}' AS BLOB) WHERE number = 1", []).unwrap();
    assert!(verify(&path).unwrap_err().to_string().contains("audit entry 1 is not what was hashed"));
    conn.execute("DELETE FROM audit WHERE number = 1", []).unwrap();
    assert!(verify(&path).unwrap_err().to_string().contains("audit entry 1 is missing"));
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_backup_that_fails_leaves_no_file() {
    let (folder, store) = store();
    store.write(|tx| accept(tx, &new_job("alice", "j"))).await.unwrap();
    let path = store.path().to_owned();
    store.close().await.unwrap();
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("DROP TRIGGER audit_not_changed; UPDATE audit SET leaf = zeroblob(32)").unwrap();
    drop(conn);
    let before = names(&folder);
    let error = backup::backup(&path, &folder.path().join("copy.db")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("audit.db is damaged (audit entry 0 is not what was hashed)"), "{text}");
    let left: Vec<String> = names(&folder).into_iter().filter(|name| name.contains("copy")).collect();
    assert_eq!(left, Vec::<String>::new(), "beside {before:?}");
    let error = backup::backup(&path, &folder.path().join("none/copy.db")).unwrap_err();
    assert!(matches!(error, StoreError::NoCopy { .. }), "{error}");
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    let said = |path: &Path| {
        let text = verify(path).unwrap_err().to_string();
        assert!(!text.contains('\n') && !text.contains("free space"), "{text}");
        text
    };
    assert!(said(&path).contains("there is no database"));
    std::fs::write(&path, "").unwrap();
    assert!(said(&path).contains("the table audit is missing"), "{}", said(&path));
    std::fs::remove_file(&path).unwrap();
    drop(Store::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("DROP TABLE spent").unwrap();
    assert!(said(&path).contains("the table spent is missing"), "{}", said(&path));
}

#[test]
fn a_verdict_of_sqlite_is_one_line() {
    let verdict = "*** in database main ***\nTree 5 page 5: btreeInitPage() returns error code 11\n";
    assert_eq!(super::verify::in_one_line(verdict), "Tree 5 page 5: btreeInitPage() returns error code 11");
}

/// A record with a job that ended, one that waits and one that was refused, closed.
async fn three_jobs() -> (tempfile::TempDir, std::path::PathBuf) {
    let (folder, store) = store();
    let path = store.path().to_owned();
    store
        .write(|tx| {
            let row = accept(tx, &new_job("alice", "ended"))?;
            jobs::finish(tx, row, State::UNFINISHED, &with_artifacts(end(Reason::Exited)))?;
            accept(tx, &new_job("alice", "waits"))?;
            jobs::reject(tx, &new_rejected("alice", "refused"), Code::PolicyDenied, "no")
        })
        .await
        .unwrap();
    store.close().await.unwrap();
    (folder, path)
}

#[tokio::test]
async fn what_was_changed_beside_the_audit_log_is_found() {
    let unlock = "DROP TRIGGER audit_not_changed; DROP TRIGGER audit_not_removed;";
    let lock: String =
        schema::STEPS[0].1.match_indices("CREATE TRIGGER").fold(String::new(), |sql, (at, _)| {
            let rest = &schema::STEPS[0].1[at..];
            sql + &rest[..rest.find("END;").unwrap() + 4]
        });
    for (change, said) in [
        (
            "UPDATE jobs SET exit_code = 0 WHERE row = 1",
            "job ended (row 1) has another exit_code than audit entry 1",
        ),
        (
            "UPDATE jobs SET state = 'failed' WHERE row = 1",
            "job ended (row 1) has another state than audit entry 1",
        ),
        ("UPDATE jobs SET stdout_sha256 = 'x' WHERE row = 1", "has another stdout_sha256"),
        ("UPDATE artifacts SET list = '[]'", "has another list of artifacts than audit entry 1"),
        ("DELETE FROM artifacts", "has another list of artifacts than audit entry 1"),
        ("UPDATE jobs SET audit_sha256 = 'x' WHERE row = 1", "is not that of audit entry 1"),
        ("UPDATE jobs SET audit_entry = 0 WHERE row = 1", "is not that of audit entry 0"),
        ("UPDATE jobs SET audit_entry = NULL WHERE row = 1", "has ended without a receipt"),
        (
            "UPDATE jobs SET state = 'queued', ended_at = NULL WHERE row = 1",
            "is the end of job ended (row 1), which has another or none: it is queued",
        ),
        ("DELETE FROM jobs WHERE row = 2", "audit entry 2 accepted a job (row 2) that is not there any more"),
        ("UPDATE jobs SET row = 9 WHERE row = 3", "how job refused (row 9) came"),
        ("DROP TRIGGER audit_not_removed", "the trigger audit_not_removed is missing"),
        (
            "DROP TRIGGER audit_not_removed; CREATE TRIGGER audit_not_removed BEFORE DELETE ON audit BEGIN SELECT 1; END",
            "the trigger audit_not_removed is not as the agent made it",
        ),
        ("CREATE TRIGGER mine AFTER INSERT ON audit BEGIN SELECT 1; END", "there is a trigger mine"),
        ("DROP INDEX jobs_accepted", "the index jobs_accepted is missing"),
        // The log's end cut off: the receipts tell, and who is not there any more.
        ("-- unlock\nDELETE FROM audit WHERE number >= 1", "names audit entry 1, and the log ends at 0"),
        ("-- unlock\nDELETE FROM audit WHERE number >= 2", "how job waits (row 2) came"),
        (
            "-- unlock\nUPDATE audit SET kind = 'job.cleaned' WHERE number = 2",
            "audit entry 2 is not what its row says",
        ),
    ] {
        let (_folder, path) = three_jobs().await;
        assert_eq!(verify_all(&path).unwrap().audit_entries, 4, "sound before");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        match change.strip_prefix("-- unlock\n") {
            Some(change) => conn.execute_batch(&format!("{unlock}{change};{lock}")).unwrap(),
            None => conn.execute_batch(change).unwrap(),
        }
        // Its texts would be rows of no job; that is found as damage before.
        conn.execute_batch(
            "DELETE FROM texts WHERE row NOT IN (SELECT row FROM jobs); \
             DELETE FROM payloads WHERE row NOT IN (SELECT row FROM jobs)",
        )
        .unwrap();
        drop(conn);
        verify(&path).unwrap();
        let error = verify_all(&path).expect_err(change);
        assert!(matches!(error, StoreError::Contradiction { .. }), "{change}: {error}");
        assert!(error.to_string().contains(said), "{change}: {error}");
    }
}

#[test]
fn a_damaged_file_is_named_with_the_way_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    drop(Store::open(&path).unwrap());
    let sound = std::fs::read(&path).unwrap();

    std::fs::write(
        &path,
        b"this is not a database, whatever its name says; it is a text of some length".repeat(40),
    )
    .unwrap();
    named(&path);
    // A page in the middle, as a bad disk would leave it.
    let mut damaged = sound.clone();
    let middle = damaged.len() / 2 / 4096 * 4096;
    damaged[middle..middle + 4096].fill(0xa5);
    std::fs::write(&path, damaged).unwrap();
    named(&path);
    std::fs::write(&path, &sound[..sound.len() - 4096]).unwrap();
    named(&path);
    std::fs::write(&path, sound).unwrap();
    assert!(Store::open(&path).is_ok());

    fn named(path: &Path) {
        let error = Store::open(path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("restore --from"), "{text}");
    }
}

#[test]
fn files_of_others_and_of_newer_versions_are_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    drop(Store::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 99, .. }), "{error:?}");

    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE jobs (x)").unwrap();
    assert!(matches!(Store::open(&other), Err(StoreError::Foreign { .. })));

    let error = Store::open(folder.path().join("missing/audit.db")).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error:?}");
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error:?}");
}

#[test]
fn two_agents_do_not_share_a_database() {
    let (folder, store) = store();
    let path = folder.path().join("audit.db");
    assert!(matches!(Store::open(&path), Err(StoreError::InUse { .. })));
    drop(store);
    assert!(Store::open(&path).is_ok());
}

#[tokio::test]
async fn a_database_of_version_1_opens_with_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(schema::STEPS[0].1).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    conn.execute_batch(
        "INSERT INTO jobs (controller_id, job_id, peer, payload_sha256, accepted_at, ttl, risk_level, image, \
         limits, network, state) VALUES ('alice', 'old', '', 'x', 1, 2, 'low', 'i', '{}', 'none', 'queued');
         INSERT INTO texts VALUES (1, 'p', 'c', '');
         INSERT INTO payloads VALUES (1, x'7b7d');",
    )
    .unwrap();
    drop(conn);
    let store = Store::open(&path).unwrap();
    let waiting = store.read(|conn| jobs::queued(conn, jobs::Queued::START, 9)).await.unwrap();
    assert_eq!((waiting[0].controller_id.as_str(), waiting[0].ttl), ("alice", 2));
    assert!(store.read(|conn| jobs::find(conn, "alice", "old")).await.unwrap().is_some());
    assert_eq!(store.read(schema::version).await.unwrap(), schema::latest());
    // The rules that a later version spells otherwise hold on, and the file is as the agent makes it.
    for change in ["state = 'bogus'", "state = 'failed'", "ended_at = 1"] {
        let outcome = store.write(move |tx| Ok(tx.execute(&format!("UPDATE jobs SET {change}"), [])?)).await;
        assert!(outcome.unwrap_err().to_string().contains("CHECK constraint failed"), "{change}");
    }
    let odd = "INSERT INTO submissions (at, peer, verified, outcome) VALUES (1, '', 0, 'bogus')";
    let outcome = store.write(move |tx| Ok(tx.execute(odd, [])?)).await;
    assert!(outcome.unwrap_err().to_string().contains("CHECK constraint failed"));
    let error = verify_all(&path).unwrap_err().to_string();
    assert!(error.contains("no audit entry says how job old"), "{error}");
}

#[test]
fn released_migrations_are_not_edited_and_none_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let names: Vec<&str> = schema::STEPS.iter().map(|(name, _)| *name).collect();
    assert_eq!(files, names);
    // A hash that differs means an edited migration: add a new file instead.
    let hashes: Vec<String> =
        schema::STEPS.iter().map(|(_, sql)| hex::encode(Sha256::digest(sql.as_bytes()))).collect();
    assert_eq!(
        hashes,
        [
            "7742558408507bce8b6e10c9db3b956547e118543bd60af5ae5405e97c78858d",
            "73f1f399493208cf91d00b0ccb6d37a7264ef209a514980c34ada6875961be1f",
            "d885cc971f9e8dfe4719e0e45aea81c00387c52b0c9c6f557fbe705956899646",
            "3e532ee504f583793a24571f5f793349424262c9eabeb2bcb8f1f75469a03b74",
            "b7617e79fccb4994df50082655b5c68d66e693dc8e3f8a4b75a90beffd4750fa",
            "fe6428ec5d8d2bf3e951ccffa58f97c3e756c1bdc26ab665708f812809e675f6",
            "56d487bf8f754a3b0dffd1203afbbf5ab2ba3eb517ed98cf6d7b2a64ed6394ff",
        ]
    );
}
