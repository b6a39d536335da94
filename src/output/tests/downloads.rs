//! The exact bytes of a stream, and its text.

use futures_util::StreamExt;

use super::*;

#[tokio::test]
async fn every_range_is_exact_also_while_the_job_runs() {
    let room = Room::new();
    let mut writer = room.writer(1);
    let mut whole = Vec::new();
    for n in 0..20_u8 {
        let body: Vec<u8> = (0..n * 7 % 11).map(|at| n * 11 + at).collect();
        writer.frame(Kind::Stdout, &body);
        writer.frame(Kind::Stderr, vec![255; 3]);
        whole.extend(body);
    }
    let mut bytes = room.outputs.bytes(1, Stream::Stdout).await.unwrap();
    writer.frame(Kind::Stdout, "later");
    assert_eq!(bytes.len(), whole.len() as u64);
    for from in 0..=whole.len() {
        for max in [0, 1, 5, 30, usize::MAX] {
            let got = bytes.read(from as u64, max).await.unwrap();
            assert_eq!(got, whole[from..whole.len().min(from.saturating_add(max))], "{from} {max}");
        }
    }
    for from in (0..=whole.len()).rev() {
        assert_eq!(bytes.read(from as u64, 9).await.unwrap(), whole[from..whole.len().min(from + 9)]);
    }
    assert!(bytes.read(u64::MAX, 1).await.unwrap().is_empty());
    let chunks: Vec<_> = bytes.chunks(3..50).map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(chunks.concat(), whole[3..50]);
    let bytes = room.outputs.bytes(1, Stream::Stderr).await.unwrap();
    assert_eq!(
        bytes.chunks(0..u64::MAX).map(|chunk| chunk.unwrap().len()).fold(0, async |a, b| a + b).await,
        60
    );
    assert!(room.outputs.bytes(1, Stream::System).await.unwrap().is_empty());
}

#[tokio::test]
async fn text_never_cuts_a_character_and_shows_what_is_none() {
    let room = Room::new();
    let mut writer = room.writer(1);
    // A character lies across two records; at the end is one that is never completed.
    writer.frame(Kind::Stdout, b"a\xe2\x82");
    writer.frame(Kind::Stdout, b"\xac\xf0\x9f\x98\x80\xffz\xe2\x82");
    for (max, text) in [
        (0, ""),
        (1, "a"),
        (2, "a"),
        (3, "a"),
        (4, "a€"),
        (5, "a€"),
        (7, "a€"),
        (8, "a€😀"),
        (9, "a€😀\u{fffd}"),
        (10, "a€😀\u{fffd}z"),
        (100, "a€😀\u{fffd}z\u{fffd}"),
    ] {
        assert_eq!(room.outputs.text(1, Stream::Stdout, max).await.unwrap(), text, "{max}");
    }
}

/// 100 MB: what is held at once is a chunk, whatever the volume. In a process of its own, because the
/// tests beside this one need memory too.
#[test]
fn a_large_spool_is_read_with_flat_memory() {
    const ALONE: &str = "QUICKCMD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(read_a_large_spool());
    }
    let name =
        format!("{}::a_large_spool_is_read_with_flat_memory", module_path!().split_once("::").unwrap().1);
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(
        alone.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&alone.stderr)
    );
}

async fn read_a_large_spool() {
    const FRAMES: u64 = 2134;
    const BODY: usize = 48 << 10;
    let room = Room::new();
    let mut writer = room.writer(1);
    for n in 0..FRAMES {
        writer.frame(Kind::Stdout, vec![b'a' + u8::try_from(n % 26).unwrap(); BODY]);
    }
    let bytes = room.outputs.bytes(1, Stream::Stdout).await.unwrap();
    assert_eq!(bytes.len(), FRAMES * BODY as u64);
    let mut at = 0;
    let mut chunks = Box::pin(bytes.chunks(0..u64::MAX));
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        for byte in [0, chunk.len() - 1] {
            let frame = (at + byte as u64) / BODY as u64;
            assert_eq!(u64::from(chunk[byte] - b'a'), frame % 26);
        }
        at += chunk.len() as u64;
    }
    assert_eq!(at, FRAMES * BODY as u64);
    let mut reader = room.outputs.reader(1, "j", 0, true);
    let other = room.outputs.reader(1, "j", 0, true);
    let late = room.outputs.reader(1, "j", FRAMES - 1, true);
    room.outputs.finish(1);
    while soon(reader.next_json()).await.unwrap().is_some() {}
    assert_eq!(reader.last_seq(), FRAMES);
    assert_eq!(seqs(&all(late).await), [FRAMES - 1, FRAMES]);
    drop(other);
    let most = peak();
    assert!(most < 64 << 10, "{most} KiB at most");
}

/// The most this process ever had resident, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn every_range_of_an_artifact_is_exact_and_readers_pass_over_it() {
    let room = Room::new();
    let mut writer = room.writer(1);
    writer.frame(Kind::Stdout, "before");
    let mut at = raw(Kind::Stdout, 1, 0, b"before").len() as u64;
    let mut whole = Vec::new();
    let piece = |offset: &mut u64, body: &[u8]| {
        let record = raw(Kind::Artifact, 0, *offset, body);
        *offset += body.len() as u64;
        record
    };
    let mut written = 0;
    // What was given up, then a whole one, then the beginning of another.
    let given_up = piece(&mut written, b"given up");
    at += given_up.len() as u64;
    writer.raw(&given_up);
    let mut offset = 0;
    for n in 1..8_u8 {
        let body: Vec<u8> = (0..n * 3).map(|at| at + n).collect();
        writer.raw(&piece(&mut offset, &body));
        whole.extend(body);
    }
    writer.raw(&piece(&mut 0, b"another"));
    writer.report();
    let len = whole.len() as u64;
    for from in 0..=len {
        for to in from..=len {
            let kept = room.outputs.artifact(1, at, len).unwrap();
            let chunks: Vec<_> = kept.chunks(from..to).map(|chunk| chunk.unwrap()).collect().await;
            let range = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
            assert_eq!(chunks.concat(), whole[range], "{from} {to}");
        }
    }
    // A list that says more than there is, or another place, gives an error and nothing of others.
    for (at, len) in [(at, len + 1), (0, 6), (at + 1, 3)] {
        let kept = room.outputs.artifact(1, at, len).unwrap();
        let chunks: Vec<_> = kept.chunks(0..len).collect().await;
        assert!(chunks.last().unwrap().is_err(), "{at} {len}");
    }
    assert_eq!(room.outputs.bytes(1, Stream::Stdout).await.unwrap().len(), 6);
    assert!(room.outputs.follow(1).report().await.is_ok());
    assert_eq!(room.outputs.artifact(2, 0, 1).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}
