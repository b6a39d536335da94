//! The script that a fake job is: the last element of its `argv`, steps between `;` or new lines.
//!
//! | step | what |
//! |---|---|
//! | `echo TEXT`, `err TEXT` | a line on standard output, on standard error |
//! | `bytes N` | N bytes of `x` on standard output |
//! | `cat` | standard input on standard output |
//! | `env NAME` | a variable's value |
//! | `sleep-ms N`, `sleep S` | waits; a stop ends it |
//! | `stubborn` | from here on a stop is not heard: only a kill ends the job |
//! | `exit N`, `signal N` | the end |
//! | `oom` | killed for memory, with a report |
//! | `vanish` | the supervisor dies without a report |
//! | `trouble WORDS` | the sandbox itself could not start the command |
//!
//! Anything else is a program that is not there: `NotStarted`, exit code 127.

use std::{fs::File, io::Write, os::fd::OwnedFd, time::Duration};

use quickcmd_init::{
    proto::{Ending, Job, Report, Stop, StreamTotals},
    spool::{Header, Kind, MAX_BODY},
};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::Instant};

use super::super::Evidence;
use crate::base::clock::Timestamp;

/// What Docker would say of a container that has ended.
pub(super) fn ended(exit_code: i64, oom_killed: bool) -> Evidence {
    Evidence { running: false, exit_code: Some(exit_code), oom_killed, error: None }
}

#[derive(Default)]
struct Stream {
    bytes: u64,
    dropped: u64,
    hash: Sha256,
}

/// One job, played.
pub(super) struct Play {
    job: Job,
    stdin: Vec<u8>,
    spool: File,
    seq: u64,
    stdout: Stream,
    stderr: Stream,
    stubborn: bool,
}

/// How the script went on after a step.
enum Next {
    Step,
    End(Ending),
    Stopped(Stop),
    Oom,
    Vanished,
}

impl Play {
    pub(super) fn new(job: Job, mut stdin: Vec<u8>, spool: OwnedFd) -> Play {
        // What follows it are files, for which there is no place here.
        stdin.truncate(usize::try_from(job.stdin_len).unwrap_or(usize::MAX));
        let seq = job.first_seq;
        let (stdout, stderr) = (Stream::default(), Stream::default());
        Play { job, stdin, spool: spool.into(), seq, stdout, stderr, stubborn: false }
    }

    /// Plays the script to its end; what Docker says of the container afterwards.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<Option<Stop>>) -> Evidence {
        let (start, started) = (Timestamp::now(), Instant::now());
        self.record(Kind::Started, 0, 0, &[]);
        let script = self.job.argv.last().cloned().unwrap_or_default();
        let deadline = started + Duration::from_millis(self.job.timeout_ms);
        let mut last = Next::End(Ending::Exited { code: 0 });
        for step in script.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            match self.step(step, &mut stop, deadline).await {
                Next::Step => {}
                end => {
                    last = end;
                    break;
                }
            }
        }
        let (ending, stopped, oom) = match last {
            Next::Vanished => return ended(137, false),
            Next::Oom => (Ending::Signalled { signal: 9 }, None, true),
            Next::Stopped(why) => (Ending::Signalled { signal: 15 }, Some(why), false),
            Next::End(ending) => (ending, None, false),
            Next::Step => (Ending::Exited { code: 0 }, None, false),
        };
        let totals = |stream: Stream| StreamTotals {
            bytes: stream.bytes,
            dropped: stream.dropped,
            sha256: hex::encode(stream.hash.finalize()),
        };
        let report = Report {
            ending,
            stopped,
            stdout: totals(std::mem::take(&mut self.stdout)),
            stderr: totals(std::mem::take(&mut self.stderr)),
            cpu_ms: 1,
            max_rss_bytes: 1 << 20,
            oom_kills: oom.into(),
            start_ns: u64::try_from(start.0).unwrap_or(0),
            end_ns: u64::try_from(Timestamp::now().0).unwrap_or(0),
            run_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            artifacts: Vec::new(),
        };
        let body = serde_json::to_vec(&report).expect("a report is plain data");
        self.record(Kind::Report, 0, 0, &body);
        ended(0, oom)
    }

    async fn step(
        &mut self,
        step: &str,
        stop: &mut watch::Receiver<Option<Stop>>,
        deadline: Instant,
    ) -> Next {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let number = || rest.trim().parse::<u32>().unwrap_or(0);
        match verb {
            "echo" => self.write(Kind::Stdout, format!("{rest}\n").as_bytes()),
            "err" => self.write(Kind::Stderr, format!("{rest}\n").as_bytes()),
            "bytes" => self.write(Kind::Stdout, &vec![b'x'; number() as usize]),
            "cat" => {
                let stdin = std::mem::take(&mut self.stdin);
                self.write(Kind::Stdout, &stdin)
            }
            "env" => {
                let found = self.job.env.iter().find(|(name, _)| name == rest);
                let line = format!("{}\n", found.map_or("", |(_, value)| value));
                self.write(Kind::Stdout, line.as_bytes())
            }
            "sleep-ms" => self.sleep(Duration::from_millis(number().into()), stop, deadline).await,
            "sleep" => self.sleep(Duration::from_secs(number().into()), stop, deadline).await,
            "stubborn" => {
                self.stubborn = true;
                Next::Step
            }
            "exit" => Next::End(Ending::Exited { code: rest.trim().parse().unwrap_or(0) }),
            "signal" => Next::End(Ending::Signalled { signal: rest.trim().parse().unwrap_or(9) }),
            "oom" => Next::Oom,
            "vanish" => Next::Vanished,
            "trouble" => Next::End(Ending::NotStarted { code: 126, error: rest.to_owned(), sandbox: true }),
            other => Next::End(Ending::NotStarted {
                code: 127,
                error: format!("{other}: not found"),
                sandbox: false,
            }),
        }
    }

    async fn sleep(
        &self,
        time: Duration,
        stop: &mut watch::Receiver<Option<Stop>>,
        deadline: Instant,
    ) -> Next {
        if self.stubborn {
            tokio::time::sleep(time).await;
            return Next::Step;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => Next::Step,
            () = tokio::time::sleep_until(deadline) => Next::Stopped(Stop::Timeout),
            why = async { stop.wait_for(Option::is_some).await.ok().and_then(|why| *why) } => match why {
                Some(why) => Next::Stopped(why),
                // Nobody can stop it any more.
                None => Next::Vanished,
            },
        }
    }

    /// Writes frames, up to the limit.
    fn write(&mut self, kind: Kind, bytes: &[u8]) -> Next {
        let limit = self.job.output_limit;
        let stream = if kind == Kind::Stdout { &mut self.stdout } else { &mut self.stderr };
        let room = usize::try_from(limit - stream.bytes.min(limit)).unwrap_or(usize::MAX);
        let (kept, dropped) = bytes.split_at(bytes.len().min(room));
        let mut offset = stream.bytes;
        stream.bytes += kept.len() as u64;
        stream.dropped += dropped.len() as u64;
        stream.hash.update(kept);
        for body in kept.chunks(MAX_BODY) {
            let seq = self.seq;
            self.seq += 1;
            self.record(kind, seq, offset, body);
            offset += body.len() as u64;
        }
        let ends = self.job.end_at_output_limit && !dropped.is_empty();
        if ends { Next::Stopped(Stop::OutputLimit) } else { Next::Step }
    }

    fn record(&mut self, kind: Kind, seq: u64, offset: u64, body: &[u8]) {
        let header = Header {
            len: u32::try_from(body.len()).expect("bodies are far below 4 GiB"),
            kind,
            binary: kind.is_frame() && std::str::from_utf8(body).is_err(),
            seq,
            time_ns: u64::try_from(Timestamp::now().0).unwrap_or(0),
            offset,
        };
        let record = [&header.encode()[..], body].concat();
        // A test whose spool can't be written sees that in what it reads.
        let _ = self.spool.write_all(&record);
    }
}
