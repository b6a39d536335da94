//! What jobs have left, and the memory that the list of it takes.

use quickcmd_init::proto::Artifact;

use super::*;

#[tokio::test]
async fn a_long_list_is_read_only_where_there_is_memory_for_it() {
    let dir = dir();
    let life = Life::start(dir.path(), Fake::new(), "").await;
    for id in ["long", "short"] {
        life.submit(id, "echo x").await.unwrap();
        life.ended(id).await;
    }
    let list = |files: usize| {
        let kept = (0..files).map(|n| Artifact::Kept {
            path: format!("{n}-{}", "x".repeat(300)),
            size: 0,
            sha256: "0a".repeat(32),
            mode: 0o644,
            masked: false,
            at: 0,
        });
        serde_json::to_string(&kept.collect::<Vec<_>>()).unwrap()
    };
    for (id, list) in [("long", list(30)), ("short", list(10))] {
        let sql = "INSERT INTO artifacts (row, list) SELECT row, ?2 FROM jobs WHERE job_id = ?1";
        life.store.write(move |tx| Ok(tx.execute(sql, [id, &list])?)).await.unwrap();
    }
    let reader = Reader::Controller { id: "one".to_owned(), admin: false };
    let budget = Budget::new(64 << 10);
    let purse = Purse::new(Arc::clone(&budget), None, Duration::from_millis(10));
    let archive = life.service.artifacts(&reader, "long", &purse).await.unwrap();
    let held = (64 << 10) - budget.free();
    assert!((30 * 300..60 * 300).contains(&held), "{held} bytes, as long as it is read");
    let path = format!("1-{}", "x".repeat(300));
    let one = life.service.artifact(&reader, "long", &path, &purse).await.unwrap();
    assert_eq!((one.bytes.len(), (64 << 10) - budget.free()), (0, held), "one file needs no list");

    let others = budget.try_take(None, budget.free()).unwrap();
    let busy = life.service.artifacts(&reader, "long", &purse).await.unwrap_err();
    assert_eq!((busy.code, busy.retry_after), (Code::Busy, Some(5)));
    let busy = life.service.artifact(&reader, "long", &path, &purse).await.unwrap_err();
    assert_eq!(busy.code, Code::Busy);
    assert!(life.service.artifacts(&reader, "short", &purse).await.is_ok(), "it needs none");
    drop((others, archive));
    assert_eq!(budget.free(), 64 << 10);
    assert!(life.service.artifacts(&reader, "long", &purse).await.is_ok());
    life.crash().await;
}
