//! A supervisor in a PID namespace, and what it wrote.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt::PeerCredentials};
use nix::unistd::{Pid, geteuid};
use quickcmd_init::proto::{self, Artifact, Control, Ending, Hello, Job, Refusal, Report, Stop};
use quickcmd_init::spool::{HEADER, Header, Kind, MAX_BODY};
use sha2::{Digest, Sha256};

/// How long anything may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it holds.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Sandbox {
    folder: tempfile::TempDir,
    program: Child,
    /// `None`: closed.
    pub channel: Option<UnixStream>,
    /// The supervisor's number out here.
    pub pid: Pid,
}

impl Sandbox {
    /// Starts a supervisor and takes its hello.
    pub fn start() -> Sandbox {
        Sandbox::start_by(&[])
    }

    /// The same, by a program that becomes the supervisor.
    pub fn start_by(program: &[&str]) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let init = folder.path().join("init");
        install(env!("CARGO_BIN_EXE_quickcmd-init"), 0o755, &init);
        let socket = folder.path().join(proto::SOCKET_FILE);
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
        File::create(folder.path().join("spool")).unwrap();

        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-current-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        if geteuid().is_root() {
            command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
            command.args(["--inh-caps=-all", "--bounding-set=-all"]);
        }
        command.args(program);
        let program = command.arg(&init).arg(folder.path()).stdin(Stdio::null()).spawn().unwrap();
        let mut sandbox = Sandbox { folder, program, channel: None, pid: Pid::from_raw(0) };
        listener.set_nonblocking(true).unwrap();
        let (mut channel, _) = until("the supervisor's connection", || {
            assert!(
                sandbox.program.try_wait().unwrap().is_none(),
                "the supervisor ended before it connected"
            );
            listener.accept().ok()
        });
        channel.set_nonblocking(false).unwrap();
        sandbox.pid = Pid::from_raw(getsockopt(&channel, PeerCredentials).unwrap().pid());
        let mut length = [0; 4];
        channel.read_exact(&mut length).unwrap();
        let mut hello = vec![0; u32::from_le_bytes(length) as usize];
        channel.read_exact(&mut hello).unwrap();
        let hello: Hello = serde_json::from_slice(&hello).unwrap();
        assert_eq!(hello.version, proto::VERSION);
        sandbox.channel = Some(channel);
        sandbox
    }

    pub fn spool_path(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// Sends the job with its spool.
    pub fn send(&mut self, job: &Job, stdin: &[u8]) {
        let spool = OpenOptions::new().append(true).open(self.spool_path()).unwrap();
        self.send_with(job, stdin, &spool);
    }

    pub fn send_with(&mut self, job: &Job, stdin: &[u8], spool: &File) {
        let mut job = job.clone();
        job.stdin_len = stdin.len() as u64;
        let message = message(&serde_json::to_vec(&job).unwrap());
        let channel = self.channel.as_mut().unwrap();
        let fds = [spool.as_raw_fd()];
        let sent = sendmsg::<()>(
            channel.as_raw_fd(),
            &[IoSlice::new(&message)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        channel.write_all(&message[sent..]).unwrap();
        channel.write_all(stdin).unwrap();
    }

    /// Sends the bytes of the job's files, after the job.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.channel.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub fn stop(&mut self, why: Stop) {
        self.stops(&[why]);
    }

    /// Sends these in one write.
    pub fn stops(&mut self, why: &[Stop]) {
        let messages =
            why.iter().flat_map(|&why| message(&serde_json::to_vec(&Control::Stop { why }).unwrap()));
        self.channel.as_mut().unwrap().write_all(&messages.collect::<Vec<u8>>()).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    /// The supervisor's resident memory at its highest, in bytes.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    pub fn has_ended(&mut self) -> bool {
        self.program.try_wait().unwrap().is_some()
    }

    /// Waits until this can be read of the job's standard output.
    pub fn wait_for_output(&self, text: &str) {
        self.wait_for(Kind::Stdout, text);
    }

    /// Waits until this can be read of a stream.
    pub fn wait_for(&self, kind: Kind, text: &str) {
        let file = File::open(self.spool_path()).unwrap();
        let (mut at, mut seen) = (0, Vec::new());
        until(text, || {
            let length = file.metadata().unwrap().len();
            let mut bytes = [0; HEADER];
            while file.read_exact_at(&mut bytes, at).is_ok() {
                let header = Header::decode(&bytes).expect("a header");
                let end = at + HEADER as u64 + u64::from(header.len);
                if end > length {
                    break;
                }
                if header.kind == kind {
                    let mut body = vec![0; header.len as usize];
                    file.read_exact_at(&mut body, at + HEADER as u64).unwrap();
                    seen.extend(body);
                }
                at = end;
            }
            String::from_utf8_lossy(&seen).contains(text).then_some(())
        });
    }

    /// Waits for the end of the supervisor, and says whether it was a good one.
    pub fn wait_exit(&mut self) -> bool {
        let program = &mut self.program;
        until("the supervisor's end", || program.try_wait().unwrap()).success()
    }

    /// Waits for the end and checks what is true of every spool.
    pub fn end(mut self) -> Outcome {
        assert!(self.wait_exit(), "the supervisor failed");
        Outcome::read(&std::fs::read(self.spool_path()).unwrap())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The supervisor itself: `--kill-child` does not outlive the change of user.
        if !self.has_ended() && self.pid.as_raw() > 0 {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Puts a file there by another process. Were it written by this one, a program that another thread starts
/// at that moment would have it open for writing, and nobody could run it (ETXTBSY).
pub fn install(from: &str, mode: u32, to: &Path) {
    let done = Command::new("install").arg("-m").arg(format!("{mode:o}")).arg(from).arg(to).status();
    assert!(done.unwrap().success());
}

fn message(body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    message.extend_from_slice(body);
    message
}

/// A job with generous limits.
pub fn job<S: AsRef<str>>(argv: &[S]) -> Job {
    Job {
        argv: argv.iter().map(|arg| arg.as_ref().to_owned()).collect(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        workdir: "/".into(),
        stdin_len: 0,
        timeout_ms: 120_000,
        grace_ms: 2_000,
        output_limit: 1 << 40,
        end_at_output_limit: false,
        secrets: Vec::new(),
        redact: false,
        first_seq: 1,
        fsize: None,
        files: Vec::new(),
        artifacts: None,
        again: false,
    }
}

/// A job of the shell.
pub fn sh(script: &str) -> Job {
    job(&["/bin/sh", "-c", script])
}

/// Runs it to its end.
pub fn run(job: &Job) -> Outcome {
    run_with(job, &[])
}

pub fn run_with(job: &Job, stdin: &[u8]) -> Outcome {
    let mut sandbox = Sandbox::start();
    sandbox.send(job, stdin);
    sandbox.end()
}

pub fn exited(code: i32) -> Ending {
    Ending::Exited { code }
}

pub struct Outcome {
    pub records: Vec<(Header, Vec<u8>)>,
    pub report: Report,
}

fn records(mut bytes: &[u8]) -> (Vec<(Header, Vec<u8>)>, usize) {
    let mut records = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER>() {
        let header = Header::decode(header).expect("a header");
        let Some(body) = bytes.get(HEADER..HEADER + header.len as usize) else { break };
        records.push((header, body.to_vec()));
        bytes = &bytes[HEADER + body.len()..];
    }
    (records, bytes.len())
}

impl Outcome {
    pub fn read(bytes: &[u8]) -> Outcome {
        let (records, rest) = records(bytes);
        assert_eq!(rest, 0, "the spool ends with half a record");
        let (last, body) = records.last().expect("a record");
        assert_eq!(last.kind, Kind::Report, "the last record");
        let outcome = Outcome { report: serde_json::from_slice(body).unwrap(), records };
        outcome.check();
        outcome
    }

    fn check(&self) {
        assert_eq!(self.records[0].0.kind, Kind::Started);
        assert_eq!(self.records[1].1, b"Starting execution...");
        let count = |kind| self.records.iter().filter(|r| r.0.kind == kind).count();
        assert_eq!((count(Kind::Started), count(Kind::Report)), (1, 1));
        let frames: Vec<_> = self.records.iter().filter(|r| r.0.kind.is_frame()).collect();
        for (a, b) in frames.iter().zip(&frames[1..]) {
            assert_eq!(a.0.seq + 1, b.0.seq);
        }
        for (header, body) in &self.records {
            assert_eq!(header.binary, header.kind.is_frame() && std::str::from_utf8(body).is_err());
            assert!(body.len() <= MAX_BODY);
            assert!(header.kind.is_frame() || header.seq == 0);
        }
        for kind in [Kind::Stdout, Kind::Stderr, Kind::System] {
            let mut at = 0;
            for (header, body) in self.records.iter().filter(|r| r.0.kind == kind) {
                assert_eq!(header.offset, at);
                assert!(!body.is_empty());
                at += body.len() as u64;
            }
        }
        for (kind, totals) in [(Kind::Stdout, &self.report.stdout), (Kind::Stderr, &self.report.stderr)] {
            let bytes = self.bytes(kind);
            assert_eq!(totals.bytes, bytes.len() as u64);
            let sha: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(totals.sha256, sha);
        }
        assert!(self.report.end_ns >= self.report.start_ns);
    }

    pub fn bytes(&self, kind: Kind) -> Vec<u8> {
        self.records.iter().filter(|r| r.0.kind == kind).flat_map(|r| r.1.clone()).collect()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.bytes(Kind::Stdout)).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.bytes(Kind::Stderr)).into_owned()
    }

    /// The bytes of a kept file, by its records.
    pub fn kept(&self, path: &str) -> Option<Vec<u8>> {
        let (size, sha256, at) = self.report.artifacts.iter().find_map(|artifact| match artifact {
            Artifact::Kept { path: found, size, sha256, at, .. } if found == path => Some((size, sha256, at)),
            _ => None,
        })?;
        let (mut place, mut bytes) = (0, Vec::new());
        for (header, body) in &self.records {
            if place >= *at && header.kind == Kind::Artifact && (bytes.len() as u64) < *size {
                assert_eq!(header.offset, bytes.len() as u64);
                bytes.extend(body);
            }
            place += (HEADER + body.len()) as u64;
        }
        let sha: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((bytes.len() as u64, &sha), (*size, sha256), "{path}");
        Some(bytes)
    }

    /// Why a file was not kept.
    pub fn refused(&self, path: &str) -> Option<Refusal> {
        self.report.artifacts.iter().find_map(|artifact| match artifact {
            Artifact::Refused { path: found, why, .. } if found == path => Some(*why),
            _ => None,
        })
    }

    /// The agent's own words, but for the first.
    pub fn words(&self) -> Vec<String> {
        let words = self.records.iter().filter(|r| r.0.kind == Kind::System).skip(1);
        words.map(|r| String::from_utf8(r.1.clone()).unwrap()).collect()
    }
}
