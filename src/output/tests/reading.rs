//! Readers: what they get, from where on, and when they end.

use super::*;

#[tokio::test]
async fn frames_arrive_live_and_whole() {
    let room = Room::new();
    let mut reader = room.outputs.reader(1, "job-1", 0, true);
    let mut spool = room.outputs.create(1).unwrap();
    spool.system("Starting", NOW).unwrap();
    let first = soon(reader.next()).await.unwrap().unwrap();
    let json = serde_json::to_value(&first).unwrap();
    let wanted = serde_json::json!({
        "job_id": "job-1", "timestamp": "2024-01-07T12:00:00.5Z", "stream": "system", "data": "Starting",
        "final": false, "seq": 1, "offset": 0,
    });
    assert_eq!(json, wanted);

    let mut writer = Writer::new(spool.writer_fd().unwrap(), spool.next_seq());
    writer.started();
    writer.frame(Kind::Stdout, "hé");
    let second = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!(
        (second.stream.as_str(), second.data.as_str(), second.seq, second.offset),
        ("stdout", "hé", 2, 0)
    );
    writer.frame(Kind::Stderr, b"\xff\x00");
    let third = soon(reader.next()).await.unwrap().unwrap();
    assert_eq!((third.data.as_str(), third.encoding.as_deref(), third.seq), ("/wA=", Some("base64"), 3));
    writer.frame(Kind::Stdout, "!");
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().offset, 3);
    // The supervisor counts its own words from 0; a reader is told the truth.
    writer.frame(Kind::System, "cut");
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().offset, 8);

    writer.report();
    room.outputs.finish(1);
    assert_eq!(soon(reader.next()).await.unwrap(), None);
    assert_eq!(reader.last_seq(), 5);
}

#[tokio::test]
async fn resume_filter_and_late_readers() {
    let room = Room::new();
    let mut spool = room.outputs.create(4).unwrap();
    spool.system("Starting", NOW).unwrap();
    let mut writer = Writer::new(spool.writer_fd().unwrap(), spool.next_seq());
    for n in 0..9 {
        writer.frame(Kind::Stdout, n.to_string());
    }
    let read = |from, system| {
        let reader = room.outputs.reader(4, "j", from, system);
        room.outputs.finish(4);
        reader
    };
    assert_eq!(seqs(&all(read(0, true)).await), (1..=10).collect::<Vec<_>>());
    assert_eq!(seqs(&all(read(1, false)).await), (2..=10).collect::<Vec<_>>());
    assert_eq!(seqs(&all_shared(read(1, false)).await), (2..=10).collect::<Vec<_>>());
    assert_eq!(seqs(&all(read(7, true)).await), [7, 8, 9, 10]);
    assert_eq!(seqs(&all_shared(read(7, true)).await), [7, 8, 9, 10]);
    let mut beyond = read(99, true);
    assert_eq!(soon(beyond.next()).await.unwrap(), None);
    assert_eq!(beyond.last_seq(), 10, "the number of the final frame follows from it");
}

#[tokio::test]
async fn a_row_without_a_spool_is_waited_for_and_ends_when_finished() {
    let room = Room::new();
    let mut early = room.outputs.reader(5, "j", 0, true);
    assert!(tokio::time::timeout(Duration::from_millis(20), early.next()).await.is_err(), "it waits");
    room.outputs.finish(5);
    assert_eq!(soon(early.next()).await.unwrap(), None);
    assert_eq!(early.last_seq(), 0);
}

#[tokio::test]
async fn long_words_of_the_agent_become_several_frames() {
    let room = Room::new();
    let text = "ä".repeat(60_000);
    let mut spool = room.outputs.create(6).unwrap();
    spool.system(&text, NOW).unwrap();
    spool.system("", NOW).unwrap();
    assert_eq!(spool.next_seq(), 4);
    let reader = room.outputs.reader(6, "j", 0, true);
    room.outputs.finish(6);
    let frames = all(reader).await;
    assert_eq!(frames.iter().map(|frame| frame.data.as_str()).collect::<String>(), text);
    assert_eq!(frames[2].offset, frames[0].data.len() as u64 + frames[1].data.len() as u64);
}

#[tokio::test]
async fn a_torn_record_is_waited_for_and_its_reader_can_be_dropped_while_it_waits() {
    let room = Room::new();
    let mut writer = room.writer(7);
    let record = writer.record(Kind::Stdout, "whole".as_bytes());
    let mut reader = room.outputs.reader(7, "j", 0, true);
    for byte in &record[..record.len() - 1] {
        writer.raw(&[*byte]);
        let wait = tokio::time::timeout(Duration::from_millis(1), reader.next()).await;
        assert!(wait.is_err(), "half a record is nothing yet");
    }
    writer.raw(&record[record.len() - 1..]);
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().data, "whole");
    let torn = writer.record(Kind::Stdout, "never whole".as_bytes());
    writer.raw(&torn[..torn.len() - 1]);
    room.outputs.finish(7);
    assert_eq!(soon(reader.next()).await.unwrap(), None, "a torn end is no frame");
}

#[tokio::test]
async fn a_change_without_an_event_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = Outputs::open(dir.path()).unwrap();
    // Its events go to a watch that looks elsewhere: only the slow look remains.
    let deaf = tempfile::tempdir().unwrap();
    let room = Room {
        outputs: Arc::new(Outputs {
            rows: Arc::clone(&outputs.rows),
            inotify: super::super::watch::watch(deaf.path()).unwrap(),
        }),
        dir,
        _stop: CancellationToken::new().drop_guard(),
    };
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&room.outputs).run(stop.clone()));
    let mut reader = room.outputs.reader(8, "j", 0, true);
    let mut writer = room.writer(8);
    for n in 0..2 {
        // One call that has looked and found nothing, and is then told by nobody.
        let mut waits = Box::pin(reader.next());
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut waits).await.is_err());
        writer.frame(Kind::Stdout, n.to_string());
        assert_eq!(soon(waits).await.unwrap().unwrap().data, n.to_string());
    }
    stop.cancel();
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_file_and_touches_no_other_job() {
    let room = Room::new();
    let bad: [(&str, Vec<u8>); 5] = [
        ("no record begins here", vec![b'x'; 100]),
        ("frame 9 follows frame 1", raw(Kind::Stdout, 9, 2, b"x")),
        ("frame 1 follows frame 1", raw(Kind::Stdout, 1, 2, b"x")),
        ("a frame at byte 5 of its stream follows 2 bytes", raw(Kind::Stdout, 2, 5, b"x")),
        ("a frame of 50000 bytes", raw(Kind::Stdout, 2, 2, &[b'x'; 50_000])),
    ];
    for (n, (what, bytes)) in bad.into_iter().enumerate() {
        let row = i64::try_from(n).unwrap();
        let mut writer = room.writer(row);
        writer.frame(Kind::Stdout, "ok");
        writer.raw(&bytes);
        let mut reader = room.outputs.reader(row, "j", 0, true);
        assert_eq!(soon(reader.next()).await.unwrap().unwrap().data, "ok");
        for _ in 0..2 {
            let error = soon(reader.next()).await.unwrap_err();
            let corrupt = crate::output::Corrupt::of(&error).expect("a typed error");
            assert_eq!((corrupt.what.as_str(), corrupt.at), (what, 42));
            assert!(corrupt.file.ends_with(format!("{row}.spool")), "{error}");
            assert!(soon(reader.next_json()).await.is_err());
        }
        let mut following = room.outputs.follow(row);
        assert!(crate::output::Corrupt::of(&soon(following.report()).await.unwrap_err()).is_some());
        assert!(room.outputs.bytes(row, Stream::Stdout).await.is_err());
    }
    let mut writer = room.writer(77);
    writer.frame(Kind::Stdout, "fine");
    let mut reader = room.outputs.reader(77, "j", 0, true);
    assert_eq!(soon(reader.next()).await.unwrap().unwrap().data, "fine");
}
