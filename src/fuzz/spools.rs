//! The file that a supervisor writes and the agent reads: frames, the announcement of the start, the report.

use std::{fs, sync::Arc};

use base64::Engine;
use tempfile::TempDir;

use crate::{
    output::{Outputs, Stream},
    wire::frame::Frame,
};

/// A folder of spools and something to wait with, made once for each thread.
struct Bench {
    folder: TempDir,
    outputs: Arc<Outputs>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let outputs = Outputs::open(folder.path()).expect("a folder to watch");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Bench { folder, outputs, runtime }
    }
}

/// Whatever stands in the file: frames come in their order, streams are the frames put together, a download is the
/// stream, and a torn end is cut off without a loss. The first byte says with which frame a reader begins.
pub fn spool(data: &[u8]) {
    thread_local! {
        static BENCH: Bench = Bench::new();
    }
    let Some((from, data)) = data.split_first() else { return };
    BENCH.with(|bench| {
        fs::write(bench.folder.path().join("1.spool"), data).expect("written");
        bench.runtime.block_on(read(&bench.outputs, u64::from(*from) % 8));
        bench.outputs.remove(1).expect("removed");
    });
}

async fn read(outputs: &Outputs, from: u64) {
    let seen = outputs.follow(1).look().await;
    let mut reader = outputs.reader(1, "job-1", 1, true);
    let mut late = outputs.reader(1, "job-1", from, false);
    outputs.finish(1);
    let mut streams = [Vec::new(), Vec::new()];
    let mut last = 0;
    let whole = loop {
        match reader.next_json().await {
            Ok(Some(line)) => {
                let frame: Frame = serde_json::from_slice(&line.json).expect("a frame is JSON");
                assert_eq!(frame.seq, last + 1, "frames have no gap");
                last = frame.seq;
                let data = match frame.encoding.as_deref() {
                    None => frame.data.into_bytes(),
                    Some(_) => {
                        base64::engine::general_purpose::STANDARD.decode(frame.data).expect("our base64")
                    }
                };
                let stream = match frame.stream.as_str() {
                    "stdout" => &mut streams[0],
                    "stderr" => &mut streams[1],
                    other => {
                        assert_eq!(other, "system");
                        continue;
                    }
                };
                assert_eq!(frame.offset, stream.len() as u64, "offsets are those of the bytes");
                stream.extend_from_slice(&data);
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    while let Ok(Some(frame)) = late.next().await {
        assert!(frame.seq >= from && frame.stream != "system");
    }
    // A bad report is a fault of it alone: who reads frames passes it.
    let Ok(seen) = seen else { return };
    assert!(whole, "what can be followed can be read");
    assert_eq!(
        (seen.last_seq, seen.stdout_bytes, seen.stderr_bytes),
        (last, streams[0].len() as u64, streams[1].len() as u64)
    );
    for (stream, bytes) in [(Stream::Stdout, &streams[0]), (Stream::Stderr, &streams[1])] {
        let mut file = outputs.bytes(1, stream).await.expect("it can be read");
        assert_eq!(&file.read(0, usize::MAX).await.expect("it can be read"), bytes);
        let text = outputs.text(1, stream, 64).await.expect("it can be read");
        assert!(text.len() <= 3 * 64, "what is no UTF-8 shows as three bytes for one");
    }
    let spool = outputs.reopen(1).await.expect("it can be gone on with");
    assert_eq!(spool.next_seq(), last + 1);
    drop(spool);
    assert_eq!(outputs.follow(1).look().await.expect("it can be followed"), seen, "a torn end held nothing");
}
