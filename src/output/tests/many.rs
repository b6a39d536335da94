//! Many readers, and every way to cut and to begin.

use proptest::prelude::*;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_read_hold_up_nobody() {
    let room = Room::new();
    let mut writer = room.writer(1);
    let idle: Vec<_> = (0..50).map(|_| room.outputs.reader(1, "j", 0, true)).collect();
    let busy: Vec<_> =
        (0..50).map(|_| tokio::spawn(all_shared(room.outputs.reader(1, "j", 0, true)))).collect();
    assert_eq!(room.outputs.readers(), 100);
    // A thread of its own, as the supervisor is a process of its own.
    std::thread::spawn(move || {
        for n in 0..500 {
            writer.frame(if n % 3 == 0 { Kind::Stderr } else { Kind::Stdout }, format!("{n}\n"));
        }
        writer.report();
    })
    .join()
    .unwrap();
    let (_, last) = soon(room.outputs.follow(1).report()).await.unwrap();
    assert_eq!(last, 500);
    room.outputs.finish(1);
    let mut first = None;
    for task in busy {
        let frames = soon(task).await.unwrap();
        assert_eq!(seqs(&frames), (1..=500).collect::<Vec<_>>());
        assert_eq!(&frames, first.get_or_insert_with(|| frames.clone()));
    }
    assert_eq!(Some(all(idle.into_iter().next().unwrap()).await), first);
    until(|| room.outputs.readers() == 0).await;
}

#[tokio::test]
async fn readers_at_the_end_share_one_serialisation() {
    let room = Room::new();
    let mut writer = room.writer(1);
    let mut readers: Vec<_> = (0..1000).map(|_| room.outputs.reader(1, "j", 0, true)).collect();
    for n in 0..20_usize {
        writer.frame(Kind::Stdout, vec![b'x'; 10_000]);
        let mut first = None;
        for reader in &mut readers {
            let line = soon(reader.next_json()).await.unwrap().unwrap();
            let at = *first.get_or_insert(line.json.as_ptr());
            assert_eq!(line.json.as_ptr(), at, "frame {n} was serialised again");
        }
    }
}

/// One piece of what a supervisor writes.
fn piece() -> impl Strategy<Value = (Kind, Vec<u8>)> {
    let kind = prop_oneof![Just(Kind::Stdout), Just(Kind::Stderr), Just(Kind::System), Just(Kind::Started)];
    let body = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        2 => "[a-zäß€\\n\"]{0,40}".prop_map(String::into_bytes),
        1 => (0..49_153_usize).prop_map(|len| vec![b'x'; len]),
    ];
    (kind, body).prop_map(|(kind, body)| (kind, if kind == Kind::Started { Vec::new() } else { body }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However the records are cut into writes, and wherever and whenever a reader begins: the same frames.
    #[test]
    fn any_cut_and_any_start_gives_the_same_frames(
        pieces in prop::collection::vec(piece(), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        froms in prop::collection::vec(0..45_u64, 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let room = Room::new();
            let mut writer = room.writer(1);
            let mut bytes = Vec::new();
            let mut sent: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
            for (kind, body) in &pieces {
                bytes.extend(writer.record(*kind, body));
                if let Some(sent) = sent.get_mut(*kind as usize - 1) {
                    sent.extend(body);
                }
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut tasks = Vec::new();
            for cut in cuts.windows(2) {
                for &from in &froms {
                    tasks.push((from, tokio::spawn(all(room.outputs.reader(1, "j", from, true)))));
                    tasks.push((from, tokio::spawn(all_shared(room.outputs.reader(1, "j", from, true)))));
                }
                writer.raw(&bytes[cut[0]..cut[1]]);
                tokio::task::yield_now().await;
            }
            room.outputs.finish(1);
            let whole = room.outputs.reader(1, "j", 0, true);
            room.outputs.finish(1);
            let whole = all(whole).await;
            assert_eq!(whole.len(), pieces.iter().filter(|(kind, _)| kind.is_frame()).count());
            for (from, task) in tasks {
                let wanted: Vec<_> = whole.iter().filter(|frame| frame.seq >= from).cloned().collect();
                assert_eq!(soon(task).await.unwrap(), wanted, "from {from}");
            }
            for (stream, sent) in [Stream::Stdout, Stream::Stderr].into_iter().zip(sent) {
                let mut bytes = room.outputs.bytes(1, stream).await.unwrap();
                assert_eq!(bytes.read(0, usize::MAX).await.unwrap(), sent);
                let data: Vec<u8> =
                    whole.iter().filter(|frame| frame.stream == stream.as_str()).flat_map(body).collect();
                assert_eq!(data, sent);
            }
        });
    }
}

/// What a frame carries.
fn body(frame: &Frame) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    match &frame.encoding {
        None => frame.data.clone().into_bytes(),
        Some(_) => STANDARD.decode(&frame.data).unwrap(),
    }
}
