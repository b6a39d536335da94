//! Started and report, a second attempt, a restart, removal.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn started_and_report_are_told_as_they_come() {
    let room = Room::new();
    let mut following = room.outputs.follow(1);
    assert_eq!(following.look().await.unwrap(), crate::output::Seen::default(), "no spool is an empty one");
    let mut spool = room.outputs.create(1).unwrap();
    spool.system("Starting", NOW).unwrap();
    let mut writer = Writer::new(spool.writer_fd().unwrap(), spool.next_seq());
    assert!(tokio::time::timeout(Duration::from_millis(10), following.started()).await.is_err());
    writer.started();
    assert_eq!(soon(following.started()).await.unwrap(), Some(NOW));
    writer.frame(Kind::Stdout, "12345");
    writer.frame(Kind::Stderr, "678");
    let waits = tokio::spawn(async move {
        let report = following.report().await;
        (report, following)
    });
    let report = writer.report();
    let (seen, mut following) = soon(waits).await.unwrap();
    assert_eq!(seen.unwrap(), (report.clone(), 3));
    let seen = following.look().await.unwrap();
    assert_eq!((seen.started, seen.report, seen.last_seq), (Some(NOW), Some(report), 3));
    assert_eq!((seen.bytes, seen.stdout_bytes, seen.stderr_bytes), (8, 5, 3));
    let mut again = room.outputs.follow(1);
    again.look().await.unwrap();
    assert_eq!(room.outputs.bytes_written(), 8, "each byte is counted once");
}

#[tokio::test]
async fn a_report_without_start_and_an_end_without_report() {
    let room = Room::new();
    let mut following = room.outputs.follow(2);
    let mut writer = room.writer(2);
    writer.report();
    assert_eq!(soon(following.started()).await.unwrap(), None);

    let mut lost = room.outputs.follow(3);
    room.writer(3).started();
    room.outputs.finish(3);
    assert_eq!(soon(lost.started()).await.unwrap(), Some(NOW));
    let error = soon(lost.report()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);

    let mut garbled = room.outputs.follow(4);
    room.writer(4).frame(Kind::Report, "{}");
    let error = soon(garbled.report()).await.unwrap_err();
    assert!(crate::output::Corrupt::of(&error).unwrap().what.starts_with("no report"), "{error}");
}

#[tokio::test]
async fn after_a_restart_everything_is_there_and_goes_on() {
    let room = Room::new();
    let mut writer = room.writer(1);
    writer.started();
    writer.frame(Kind::Stdout, "before ");
    let room = room.reopened();
    // The supervisor has not noticed.
    writer.frame(Kind::Stdout, "after");
    let mut following = room.outputs.follow(1);
    let seen = following.look().await.unwrap();
    assert_eq!((seen.started, seen.report, seen.last_seq, seen.bytes), (Some(NOW), None, 2, 12));
    let reader = room.outputs.reader(1, "j", 2, true);
    let report = writer.report();
    assert_eq!(soon(following.report()).await.unwrap(), (report, 2));
    room.outputs.finish(1);
    assert_eq!(all(reader).await[0].data, "after");
    assert_eq!(room.outputs.text(1, Stream::Stdout, 100).await.unwrap(), "before after");
}

#[tokio::test]
async fn a_second_attempt_goes_on_where_the_first_one_ended() {
    let room = Room::new();
    let mut spool = room.outputs.create(1).unwrap();
    spool.system("Starting", NOW).unwrap();
    let mut reader = room.outputs.reader(1, "j", 0, true);
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().seq, 1);
    let mut writer = Writer::new(spool.writer_fd().unwrap(), 2);
    let torn = writer.record(Kind::Stdout, b"torn");
    writer.raw(&torn[..20]);
    assert!(spool.system("more", NOW).is_err(), "only before the hand-over");
    let exists = room.outputs.create(1).unwrap_err();
    assert_eq!(exists.kind(), std::io::ErrorKind::AlreadyExists);

    let mut spool = room.outputs.reopen(1).await.unwrap();
    assert_eq!(spool.next_seq(), 2);
    spool.system("Starting again", NOW).unwrap();
    let mut writer = Writer::new(spool.writer_fd().unwrap(), spool.next_seq());
    writer.frame(Kind::Stdout, "out");
    room.outputs.finish(1);
    let rest = all(reader).await;
    assert_eq!(rest.iter().map(|f| f.data.as_str()).collect::<Vec<_>>(), ["Starting again", "out"]);
    assert_eq!(rest[0].offset, 8);
    assert_eq!(room.outputs.reopen(9).await.unwrap().next_seq(), 1, "none is a new one");
}

#[tokio::test]
async fn files_are_private_and_listed_and_removed_without_hurting_their_readers() {
    let room = Room::new();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = room.dir.path().join("new");
    Outputs::open(&folder).unwrap();
    assert_eq!(mode(&folder), 0o700);
    std::fs::write(room.dir.path().join("other.txt"), "not a spool").unwrap();
    let mut writer = room.writer(1);
    room.writer(2).frame(Kind::Stdout, "12");
    assert_eq!(mode(&room.dir.path().join("1.spool")), 0o600);
    writer.frame(Kind::Stdout, "1");
    assert_eq!(room.outputs.total_bytes().await.unwrap(), 41 + 42);
    let mut entries = room.outputs.rows().await.unwrap();
    entries.sort_by_key(|entry| entry.row);
    assert_eq!(entries.iter().map(|e| (e.row, e.bytes)).collect::<Vec<_>>(), [(1, 41), (2, 42)]);
    let now = Timestamp::now();
    for entry in entries {
        assert!(now.since(entry.modified) < Duration::from_secs(600), "{entry:?}");
        assert!(now.since(entry.created) < Duration::from_secs(600), "{entry:?}");
    }

    let reader = room.outputs.reader(1, "j", 0, true);
    room.outputs.remove(1).unwrap();
    room.outputs.remove(1).unwrap();
    assert_eq!(all(reader).await.len(), 1);
    assert_eq!(room.outputs.rows().await.unwrap().len(), 1);
    let gone = room.outputs.bytes(1, Stream::Stdout).await.unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn space_beyond_the_end_of_a_spool_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let room = Room::new();
    room.outputs.trim(1).unwrap();
    let mut writer = room.writer(1);
    writer.frame(Kind::Stdout, "what was said");
    let path = room.outputs.dir().join("1.spool");
    let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let before = file.metadata().unwrap();
    // As a supervisor does for a job's end; some file systems can't, and then there is nothing to give back.
    let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, before.len(), 272 << 10);
    room.outputs.trim(1).unwrap();
    let after = file.metadata().unwrap();
    assert_eq!(after.len(), before.len());
    assert!(
        after.blocks() <= before.blocks().max(16),
        "{} blocks, {} before",
        after.blocks(),
        before.blocks()
    );
    assert_eq!(room.outputs.text(1, Stream::Stdout, 100).await.unwrap(), "what was said");
}
