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
    assert_eq!((found.schema, found.jobs, found.audit_entries), (schema::latest(), 1, 1));
    let restored = Store::open(&copy).unwrap();
    assert_eq!(restored.read(|conn| jobs::queued(conn, 0, 9)).await.unwrap().len(), 1);
    assert!(
        matches!(store.backup(&copy).await, Err(StoreError::NotWritable { .. })),
        "nothing is overwritten"
    );
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
    let waiting = store.read(|conn| jobs::queued(conn, 0, 9)).await.unwrap();
    assert_eq!((waiting[0].controller_id.as_str(), waiting[0].ttl), ("alice", 2));
    assert!(store.read(|conn| jobs::find(conn, "alice", "old")).await.unwrap().is_some());
    assert_eq!(store.read(schema::version).await.unwrap(), schema::latest());
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
        ]
    );
}
