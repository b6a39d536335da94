//! The channel between agent and supervisor: a Unix stream socket that the supervisor connects to.
//!
//! ```text
//! supervisor                                   agent
//!     |---- Hello ------------------------------>|   ready, waits for one job
//!     |<--- Job (+ the spool's descriptor) ------|   once
//!     |<--- Control (stop) ----------------------|   any number of times
//!     |---- Hello ------------------------------>|   a job with `again` has ended, nothing of it is left:
//!     |                                          |   ready for another
//! ```
//!
//! Every message is a 4-byte little-endian length and that many bytes of JSON. The job's message is
//! followed by `stdin_len` raw bytes of standard input and then the bytes of each of its files, and its
//! first byte carries the spool's descriptor (`SCM_RIGHTS`). All that the supervisor says about the job goes into the spool (see
//! [`crate::spool`]), never over the channel: so a job runs on, and its end is known, while the agent
//! is down. When the channel closes before a job came, the supervisor ends; after that it stays.

use std::{
    io::{self, Read},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Version of this protocol; the agent refuses a supervisor that says another.
pub const VERSION: u32 = 1;

/// How long a full disk may keep the supervisor's last records, the report among them, waiting.
pub const REPORT_PATIENCE: Duration = Duration::from_secs(60);

/// Largest JSON message either side takes, in bytes.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Bytes of an artifact's path at most; characters of one that was not kept.
pub const MAX_ARTIFACT_PATH: usize = 512;
/// Files that are kept of one job at most, whatever is configured: their list must fit into a report.
pub const MOST_ARTIFACTS: u64 = 512;
/// Refusals that are told one by one of what was found below folders.
pub const MOST_REFUSALS: usize = 64;
/// How long a job's artifacts may take to be copied, and where the job was ended before its own end.
pub const COLLECT_PATIENCE: Duration = Duration::from_secs(20);
/// See [`COLLECT_PATIENCE`].
pub const COLLECT_PATIENCE_STOPPED: Duration = Duration::from_secs(5);

/// The folder inside the container that holds the supervisor and its socket, mounted read-only.
pub const MOUNT: &str = "/.quickcmd";
/// The supervisor's file in [`MOUNT`].
pub const INIT_FILE: &str = "init";
/// The socket's file in [`MOUNT`]; the agent unlinks it when the supervisor has connected.
pub const SOCKET_FILE: &str = "socket";

/// The first message of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
}

/// One job, as the supervisor needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Program and arguments; the program is looked up in the environment's `PATH`.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Folder to start in.
    pub workdir: String,
    /// Bytes of standard input that follow the message.
    pub stdin_len: u64,
    /// Time from start to SIGTERM, in milliseconds.
    pub timeout_ms: u64,
    /// Time from SIGTERM to SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Bytes recorded of each stream; what comes after is counted and dropped.
    pub output_limit: u64,
    /// Whether the job is ended when a stream reaches its limit.
    pub end_at_output_limit: bool,
    /// Values that are masked wherever they appear in the output (at least 4 bytes each are masked).
    pub secrets: Vec<String>,
    /// Whether the built-in patterns (passwords, tokens, keys) are masked too.
    pub redact: bool,
    /// Number of the first frame that the supervisor writes.
    pub first_seq: u64,
    /// Largest file that the job may write, in bytes; `None`: as the container has it. Set in the job alone:
    /// the supervisor writes the spool, which may be larger.
    #[serde(default)]
    pub fsize: Option<u64>,
    /// Whether another job of the same controller may follow in this sandbox. The supervisor then removes all that
    /// this one has left and says [`Hello`] once more; or, where it can't be certain, it ends.
    #[serde(default)]
    pub again: bool,
    /// Files that are placed before the start; their bytes follow the standard input, one after the other.
    #[serde(default)]
    pub files: Vec<FileIn>,
    /// What is kept of the job's files after its end.
    #[serde(default)]
    pub artifacts: Option<Collect>,
}

/// A file that is placed before the job starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIn {
    /// Absolute, or from the folder that the job starts in.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub len: u64,
}

/// What is kept of a job's files after its end, and how much at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// Files, or folders with all that is below them; absolute, or from the folder that the job started in.
    pub paths: Vec<String>,
    pub max_files: u64,
    /// Bytes of one file, and of all together.
    pub max_file_size: u64,
    pub max_total_size: u64,
}

/// One file that was asked for, or that was found below a folder that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "artifact", rename_all = "snake_case")]
pub enum Artifact {
    /// Its bytes are in the spool.
    Kept {
        path: String,
        /// Bytes that were kept, and their SHA-256 in hex.
        size: u64,
        sha256: String,
        /// Permission bits.
        mode: u32,
        /// Whether secret values in it were masked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        masked: bool,
        /// Where in the spool the first of its records begins. They follow each other.
        at: u64,
    },
    Refused {
        path: String,
        why: Refusal,
        /// A sentence.
        error: String,
    },
}

/// Why a file was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is nothing of that name.
    Missing,
    /// It is, or leads over, a symbolic link.
    Symlink,
    /// A pipe, a socket, a device, or a file of the kernel's.
    NotAFile,
    /// It has a second name.
    HardLink,
    /// Its name can't be told: no UTF-8, control characters, too long, a secret, or too deep.
    BadName,
    /// It may not be read.
    Unreadable,
    /// It is larger than one file may be.
    TooLarge,
    /// All together would be larger than they may be.
    TotalTooLarge,
    /// There are more files than are kept.
    TooMany,
    /// It changed while it was copied.
    Changed,
    /// The disk that keeps it took no more.
    Storage,
    /// Copying took too long.
    OutOfTime,
}

impl Refusal {
    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Missing => "missing",
            Refusal::Symlink => "symlink",
            Refusal::NotAFile => "not_a_file",
            Refusal::HardLink => "hard_link",
            Refusal::BadName => "bad_name",
            Refusal::Unreadable => "unreadable",
            Refusal::TooLarge => "too_large",
            Refusal::TotalTooLarge => "total_too_large",
            Refusal::TooMany => "too_many",
            Refusal::Changed => "changed",
            Refusal::Storage => "storage",
            Refusal::OutOfTime => "out_of_time",
        }
    }
}

impl Artifact {
    fn is_plausible(&self) -> bool {
        match self {
            // A terabyte is more than any limit, and sums of such sizes are numbers.
            Artifact::Kept { path, size, sha256, at, .. } => {
                is_path(path)
                    && path.len() <= MAX_ARTIFACT_PATH
                    && *size <= 1 << 40
                    && is_number(*at)
                    && is_hash(sha256)
            }
            Artifact::Refused { path, .. } => is_path(path),
        }
    }

    /// As it was asked for, or found.
    pub fn path(&self) -> &str {
        match self {
            Artifact::Kept { path, .. } | Artifact::Refused { path, .. } => path,
        }
    }
}

/// What the agent may say after the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum Control {
    /// End the job: SIGTERM to all of its processes, SIGKILL after the grace.
    Stop { why: Stop },
}

/// Why a job was ended before its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    Timeout,
    Cancelled,
    OutputLimit,
}

/// Reads a whole message.
///
/// # Errors
/// The reader's, and [`io::ErrorKind::InvalidData`] for a message that is too long.
pub fn read_message(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = [0; 4];
    reader.read_exact(&mut header)?;
    read_body(reader, header)
}

/// The same, of a message whose header has been read.
///
/// # Errors
/// As [`read_message`].
pub fn read_body(reader: &mut impl Read, header: [u8; 4]) -> io::Result<Vec<u8>> {
    let mut body = vec![0; length(header)?];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn length(header: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_MESSAGE {
        return Err(bad(format!("a message of {length} bytes; at most {MAX_MESSAGE} are taken")));
    }
    Ok(length)
}

/// The job in a message's body.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is none.
pub fn job(body: &[u8]) -> io::Result<Job> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the first message is no job: {error}")))
}

fn bad(sentence: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, sentence)
}

/// What the agent says after the job, out of a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Controls {
    /// What is not a whole message yet.
    partial: Vec<u8>,
}

impl Controls {
    /// Takes the next piece of the stream.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if more has come than any message has: the stream is of no more use.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(piece);
        if self.partial.len() > MAX_MESSAGE {
            return Err(bad("a control message is too long".to_owned()));
        }
        Ok(())
    }

    /// Whether nothing has come that was not taken.
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// The next stop that has come whole.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if there is something else: the stream is of no more use.
    pub fn next_stop(&mut self) -> io::Result<Option<Stop>> {
        let Some(header) = self.partial.first_chunk::<4>() else { return Ok(None) };
        let end = 4 + length(*header)?;
        let Some(body) = self.partial.get(4..end) else { return Ok(None) };
        let Control::Stop { why } = serde_json::from_slice(body)?;
        self.partial.drain(..end);
        Ok(Some(why))
    }
}

/// How the job's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Ending {
    Exited {
        code: i32,
    },
    Signalled {
        signal: i32,
    },
    /// The program could not be started: exit code as a shell would give it (127 not found, 126 not
    /// executable), and the reason.
    NotStarted {
        code: i32,
        error: String,
        /// Whether the sandbox itself is the cause: the job could not have done better.
        #[serde(default)]
        sandbox: bool,
    },
}

/// Totals of one output stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTotals {
    /// Bytes in the spool, after redaction.
    pub bytes: u64,
    /// Bytes that came after the limit and were dropped.
    pub dropped: u64,
    /// SHA-256 of the bytes in the spool, in hex.
    pub sha256: String,
}

impl StreamTotals {
    fn is_plausible(&self) -> bool {
        is_number(self.bytes) && is_number(self.dropped) && is_hash(&self.sha256)
    }
}

/// Whether it is a SHA-256 in lower-case hex.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether it may stand for a file of a job: as one was asked for, or found below one that was. An archive is unpacked, and
/// a download saved, by that name.
fn is_path(path: &str) -> bool {
    let below = path.strip_prefix('/').unwrap_or(path);
    path.chars().count() <= MAX_ARTIFACT_PATH
        && !path.chars().any(char::is_control)
        && below.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a count can be kept: the record's numbers have a sign.
fn is_number(count: u64) -> bool {
    i64::try_from(count).is_ok()
}

/// The supervisor's last record: the job has ended and all of its output is in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub ending: Ending,
    /// Why the supervisor began to end the job; `None` if it ended by itself.
    pub stopped: Option<Stop>,
    pub stdout: StreamTotals,
    pub stderr: StreamTotals,
    /// Processor time of all that ran in the sandbox while the job did, in milliseconds: its processes, and the
    /// supervisor on their behalf. Where the cgroup can't be seen, of the processes that were waited for.
    pub cpu_ms: u64,
    /// Largest resident size of one process, in bytes.
    pub max_rss_bytes: u64,
    /// Processes of this container that the kernel killed for memory, if the container's cgroup tells.
    pub oom_kills: u64,
    /// Wall-clock start and end, nanoseconds since the epoch.
    pub start_ns: u64,
    pub end_ns: u64,
    /// Monotonic run time in milliseconds.
    pub run_ms: u64,
    /// What became of the files that were to be kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

impl Report {
    /// Reads a report. The supervisor is ours, and runs where a hostile job does: what no job can have come to is
    /// not believed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &[u8]) -> Result<Report, String> {
        let report: Report = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let ending = match &report.ending {
            Ending::Exited { code } => (0..=255).contains(code),
            // Linux has 64 of them.
            Ending::Signalled { signal } => (1..=64).contains(signal),
            Ending::NotStarted { code, .. } => (0..=255).contains(code),
        };
        let counts = [
            report.cpu_ms,
            report.max_rss_bytes,
            report.oom_kills,
            report.start_ns,
            report.end_ns,
            report.run_ms,
        ];
        match () {
            () if !ending => Err("no process ends like that".to_owned()),
            () if !counts.into_iter().all(is_number) => Err("a number is too large".to_owned()),
            () if !report.artifacts.iter().all(Artifact::is_plausible) => {
                Err("what it says of a file can't be".to_owned())
            }
            () if !(report.stdout.is_plausible() && report.stderr.is_plausible()) => {
                Err("the totals of a stream are none".to_owned())
            }
            () => Ok(report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let totals = StreamTotals { bytes: 1, dropped: 0, sha256: "0a".repeat(32) };
        Report {
            ending: Ending::Exited { code: 0 },
            stopped: None,
            stdout: totals.clone(),
            stderr: totals,
            cpu_ms: 1,
            max_rss_bytes: 1,
            oom_kills: 0,
            start_ns: 1,
            end_ns: 2,
            run_ms: 1,
            artifacts: Vec::new(),
        }
    }

    fn parse(change: impl FnOnce(&mut Report)) -> Result<Report, String> {
        let mut report = report();
        change(&mut report);
        Report::parse(&serde_json::to_vec(&report).unwrap())
    }

    #[test]
    fn reports_are_believed_within_bounds_only() {
        assert_eq!(parse(|_| {}), Ok(report()));
        assert!(parse(|report| report.run_ms = i64::MAX as u64).is_ok());
        assert!(parse(|report| report.run_ms = 1 << 63).is_err());
        assert!(parse(|report| report.max_rss_bytes = u64::MAX).is_err());
        assert!(parse(|report| report.stdout.dropped = u64::MAX).is_err());
        assert!(parse(|report| report.stderr.bytes = u64::MAX).is_err());
        assert!(parse(|report| report.stderr.sha256.push('0')).is_err());
        assert!(parse(|report| report.stdout.sha256 = "0A".repeat(32)).is_err());
        for (signal, good) in [(0, false), (1, true), (64, true), (65, false), (i32::MAX, false)] {
            assert_eq!(
                parse(|report| report.ending = Ending::Signalled { signal }).is_ok(),
                good,
                "{signal}"
            );
        }
        for (code, good) in [(-1, false), (0, true), (255, true), (256, false)] {
            assert_eq!(parse(|report| report.ending = Ending::Exited { code }).is_ok(), good, "{code}");
        }
    }

    #[test]
    fn a_report_names_files_that_a_job_can_have() {
        let kept = |path: &str| Artifact::Kept {
            path: path.to_owned(),
            size: 1,
            sha256: "0a".repeat(32),
            mode: 0o644,
            masked: false,
            at: 40,
        };
        let refused = |path: &str| Artifact::Refused {
            path: path.to_owned(),
            why: Refusal::BadName,
            error: String::new(),
        };
        let (longest, wide) = ("x".repeat(MAX_ARTIFACT_PATH), "\u{fffd}".repeat(MAX_ARTIFACT_PATH));
        for good in ["a", "out/a b", "/tmp/x", "...", "a/..b", ".hidden", &longest] {
            for artifact in [kept(good), refused(good)] {
                assert!(parse(|report| report.artifacts.push(artifact)).is_ok(), "{good}");
            }
        }
        assert!(parse(|report| report.artifacts.push(refused(&wide))).is_ok());
        assert!(parse(|report| report.artifacts.push(kept(&wide))).is_err());
        let too_long = format!("{longest}x");
        for bad in [
            "", "/", "..", "../x", "/../x", "a/../x", "a/..", ".", "a//b", "//a", "a/", "a\0", "a\nb",
            &too_long,
        ] {
            for artifact in [kept(bad), refused(bad)] {
                assert!(parse(|report| report.artifacts.push(artifact)).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn stops_come_whole_or_not_at_all() {
        let body = serde_json::to_vec(&Control::Stop { why: Stop::Timeout }).unwrap();
        let mut message = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        message.extend_from_slice(&body);
        let mut controls = Controls::default();
        for byte in &message[..message.len() - 1] {
            controls.push(&[*byte]).unwrap();
            assert_eq!(controls.next_stop().unwrap(), None);
        }
        controls.push(&message[message.len() - 1..]).unwrap();
        controls.push(&message).unwrap();
        assert_eq!(controls.next_stop().unwrap(), Some(Stop::Timeout));
        assert_eq!(controls.next_stop().unwrap(), Some(Stop::Timeout));
        assert_eq!(controls.next_stop().unwrap(), None);
        controls.push(&u32::MAX.to_le_bytes()).unwrap();
        assert!(controls.next_stop().is_err(), "nothing is so long");
    }
}
