//! The room from outside: spools are written as the supervisor writes them, and read while they grow.

mod downloads;
mod end;
mod many;
mod reading;

use std::{
    fs::File,
    future::Future,
    io::Write,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use quickcmd_init::{
    proto::{Ending, Report, StreamTotals},
    spool::{Header, Kind},
};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Outputs, Reader, Stream};
use crate::{base::clock::Timestamp, wire::frame::Frame};

/// 2024-01-07T12:00:00.5Z.
const NOW: Timestamp = Timestamp(1_704_628_800_500_000_000);

/// The room with its task running.
struct Room {
    outputs: Arc<Outputs>,
    dir: TempDir,
    _stop: DropGuard,
}

impl Room {
    fn new() -> Room {
        let dir = tempfile::tempdir().unwrap();
        let (outputs, stop) = open(&dir);
        Room { outputs, dir, _stop: stop }
    }

    /// As after a restart of the agent: another `Outputs` on the same files.
    fn reopened(self) -> Room {
        let Room { outputs, dir, _stop } = self;
        drop((outputs, _stop));
        let (outputs, stop) = open(&dir);
        Room { outputs, dir, _stop: stop }
    }

    /// A new spool, in the supervisor's hands.
    fn writer(&self, row: i64) -> Writer {
        let mut spool = self.outputs.create(row).unwrap();
        Writer::new(spool.writer_fd().unwrap(), spool.next_seq())
    }
}

fn open(dir: &TempDir) -> (Arc<Outputs>, DropGuard) {
    let outputs = Outputs::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&outputs).run(stop.clone()));
    (outputs, stop.drop_guard())
}

/// Writes as the supervisor does.
struct Writer {
    file: File,
    seq: u64,
    sent: [u64; 2],
}

impl Writer {
    fn new(fd: OwnedFd, seq: u64) -> Writer {
        Writer { file: File::from(fd), seq, sent: [0; 2] }
    }

    /// The bytes of a frame's record, not yet written.
    fn record(&mut self, kind: Kind, body: &[u8]) -> Vec<u8> {
        let mut offset = 0;
        if let Some(sent) = self.sent.get_mut(kind as usize - 1) {
            offset = *sent;
            *sent += body.len() as u64;
        }
        let seq = if kind.is_frame() { self.seq } else { 0 };
        self.seq += u64::from(kind.is_frame());
        raw(kind, seq, offset, body)
    }

    fn frame(&mut self, kind: Kind, body: impl AsRef<[u8]>) {
        let record = self.record(kind, body.as_ref());
        self.raw(&record);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
    }

    fn started(&mut self) {
        self.frame(Kind::Started, "");
    }

    fn report(&mut self) -> Report {
        let report = report();
        self.frame(Kind::Report, serde_json::to_vec(&report).unwrap());
        report
    }
}

fn raw(kind: Kind, seq: u64, offset: u64, body: &[u8]) -> Vec<u8> {
    let header = Header {
        len: body.len().try_into().unwrap(),
        kind,
        binary: std::str::from_utf8(body).is_err(),
        seq,
        time_ns: NOW.0.try_into().unwrap(),
        offset,
    };
    [&header.encode()[..], body].concat()
}

fn report() -> Report {
    let totals = || StreamTotals { sha256: "00".repeat(32), ..StreamTotals::default() };
    Report {
        ending: Ending::Exited { code: 3 },
        stopped: None,
        stdout: totals(),
        stderr: totals(),
        cpu_ms: 1,
        max_rss_bytes: 2,
        oom_kills: 0,
        start_ns: 3,
        end_ns: 4,
        run_ms: 5,
        artifacts: Vec::new(),
    }
}

/// Waits at most 30 s.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("within 30 s")
}

/// Polls until it holds, at most 30 s.
async fn until(mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All frames to the end.
async fn all(mut reader: Reader) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = soon(reader.next()).await.unwrap() {
        frames.push(frame);
    }
    frames
}

/// All frames to the end, by way of the shared form.
async fn all_shared(mut reader: Reader) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(line) = soon(reader.next_json()).await.unwrap() {
        let frame: Frame = serde_json::from_slice(&line.json).unwrap();
        assert_eq!((line.seq, line.stream.as_str()), (frame.seq, frame.stream.as_str()));
        frames.push(frame);
    }
    frames
}

fn seqs(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.seq).collect()
}
