//! A job's frames onto our own streams, byte for byte, and a check that nothing is missing.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, Stderr, Stdout};

use super::{exits, fault::Fault, out};
use crate::{
    client::Client,
    wire::{JobResult, frame::Frame},
};

/// How frames are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// stdout to stdout, stderr to stderr, the agent's own words to stderr.
    Bytes,
    /// Each frame as a line of JSON on stdout.
    Json,
    /// Not at all.
    Nothing,
}

/// Where the frames go.
pub struct Pump {
    style: Style,
    stdout: Stdout,
    stderr: Stderr,
    seen: [Seen; 2],
}

/// What has passed of one stream.
struct Seen {
    name: &'static str,
    /// Where the next frame must begin; unknown before the first if we start in the middle.
    next: Option<u64>,
    /// While everything since the first byte has passed.
    hash: Option<Sha256>,
}

impl Pump {
    /// `whole`: it starts at the first frame.
    pub fn new(style: Style, whole: bool) -> Pump {
        let seen = |name| Seen {
            name,
            next: whole.then_some(0),
            hash: (whole && style != Style::Nothing).then(Sha256::new),
        };
        let seen = [seen("stdout"), seen("stderr")];
        Pump { style, stdout: tokio::io::stdout(), stderr: tokio::io::stderr(), seen }
    }

    /// How many bytes of stdout and stderr have passed, those before our start included.
    pub fn offsets(&self) -> [u64; 2] {
        [0, 1].map(|at: usize| self.seen[at].next.unwrap_or(0))
    }

    /// Shows one frame and waits until it is written.
    pub async fn show(&mut self, frame: &Frame) -> Result<(), Fault> {
        let data = &*self.pass(frame)?;
        let written = match (self.style, frame.stream.as_str()) {
            (Style::Nothing, _) => Ok(()),
            (Style::Json, _) => {
                let line = serde_json::to_string(frame)
                    .map_err(|error| Fault::new(exits::SOFTWARE, error.to_string()))?;
                write(&mut self.stdout, (line + "\n").as_bytes()).await
            }
            (Style::Bytes, "stdout") => write(&mut self.stdout, data).await,
            (Style::Bytes, "stderr") => write(&mut self.stderr, data).await,
            (Style::Bytes, "system") => {
                let line = format!("[agent] {}\n", out::safe(frame.data.trim_end()));
                write(&mut self.stderr, line.as_bytes()).await
            }
            (Style::Bytes, _) => Ok(()),
        };
        written.map_err(|error| Fault::of_write(&error))
    }

    /// Counts one frame, without showing it, and gives its bytes.
    pub fn pass<'a>(&mut self, frame: &'a Frame) -> Result<Cow<'a, [u8]>, Fault> {
        let data = match frame.encoding.as_deref() {
            None => Cow::Borrowed(frame.data.as_bytes()),
            Some("base64") => Cow::Owned(STANDARD.decode(&frame.data).map_err(|error| {
                Fault::new(exits::DATA, format!("frame {} is no base64: {error}", frame.seq))
            })?),
            Some(other) => {
                return Err(Fault::new(exits::DATA, format!("frame {} has encoding {other}", frame.seq))
                    .hint("the agent is newer than this program: upgrade it"));
            }
        };
        self.follow(frame, &data);
        Ok(data)
    }

    fn follow(&mut self, frame: &Frame, data: &[u8]) {
        let Some(seen) = self.seen.iter_mut().find(|seen| seen.name == frame.stream) else { return };
        if let Some(next) = seen.next
            && frame.offset != next
        {
            if frame.offset > next {
                out::note(&format!(
                    "warning: {} bytes of {} are missing here",
                    frame.offset - next,
                    seen.name
                ));
            }
            seen.hash = None;
        }
        seen.next = Some(frame.offset.saturating_add(data.len() as u64));
        if let Some(hash) = &mut seen.hash {
            hash.update(data);
        }
    }

    /// Compares what passed with what the agent recorded. Of a stream that left nothing but its record, the agent is
    /// asked first: that its output is no longer kept is another matter than bytes that are missing.
    pub async fn verify(&mut self, client: &Client, result: &JobResult) -> Result<(), Fault> {
        for (seen, bytes) in self.seen.iter().zip([result.stdout_bytes, result.stderr_bytes]) {
            if seen.hash.is_some() && seen.next == Some(0) && bytes > 0 {
                client.output_len(&result.job_id, seen.name).await?;
            }
        }
        self.check(result)
    }

    fn check(&mut self, result: &JobResult) -> Result<(), Fault> {
        let recorded =
            [(result.stdout_bytes, &result.stdout_sha256), (result.stderr_bytes, &result.stderr_sha256)];
        for (seen, (bytes, sha256)) in self.seen.iter_mut().zip(recorded) {
            let Some(hash) = seen.hash.take() else { continue };
            if sha256.is_empty() {
                continue;
            }
            let passed = seen.next.unwrap_or(0);
            if passed != bytes || !hex::encode(hash.finalize()).eq_ignore_ascii_case(sha256) {
                return Err(Fault::new(
                    exits::DATA,
                    format!(
                        "{} is not what the agent recorded: {passed} bytes arrived of {bytes}",
                        seen.name
                    ),
                )
                .hint(format!(
                    "fetch the exact bytes: quickcmd output {} --stream {}",
                    result.job_id, seen.name
                )));
            }
        }
        Ok(())
    }
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
