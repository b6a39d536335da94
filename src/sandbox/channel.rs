//! The agent's end of the channel to a supervisor (the messages are in `quickcmd_init::proto`).

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use quickcmd_init::proto::{self, Control, Hello, Job};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest},
    net::{UnixListener, UnixStream},
};

use super::SandboxError;
use crate::base::failpoints::failpoint;

/// How long a supervisor may take to read a job and its standard input.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// An open channel, its supervisor greeted.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Waits for the supervisor and its greeting. Who the peer is needs no look at its credentials, which user
    /// namespaces shift anyway: the socket lies below a folder of the agent's own (0700), and in the container there
    /// is no other process yet.
    pub(super) async fn accept(listener: &UnixListener) -> io::Result<Channel> {
        let (stream, _) = listener.accept().await?;
        let mut channel = Channel { stream };
        channel.hello().await?;
        Ok(channel)
    }

    /// Waits for the greeting: at the beginning, and after each job that another may follow.
    pub(super) async fn hello(&mut self) -> io::Result<()> {
        greeting(&mut self.stream).await
    }

    /// Whether the supervisor is still there. It says nothing after its greeting, so anything to read is
    /// the end.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends the job with its spool; `stdin` is followed by the bytes of its files. An error says whether a byte of it has left.
    pub(super) async fn send_job(
        &mut self,
        job: &Job,
        stdin: &[u8],
        spool: &OwnedFd,
    ) -> Result<(), SandboxError> {
        let message = encode(job).map_err(|error| SandboxError::Failed(error.to_string()))?;
        let lost =
            |error: io::Error| SandboxError::MayHaveStarted(format!("sending the job failed: {error}"));
        let sent = tokio::time::timeout(SEND_DEADLINE, self.send_first(&message, spool))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            // Not one byte has left: this sandbox is dead, another may be tried.
            .map_err(|error| {
                SandboxError::Unreachable(format!("the supervisor was gone before the job was sent: {error}"))
            })?;
        failpoint!("sent");
        let rest = async {
            self.stream.write_all(&message[sent..]).await?;
            self.stream.write_all(stdin).await
        };
        tokio::time::timeout(SEND_DEADLINE, rest)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(lost)
    }

    /// Sends as much as goes in one call, the descriptor with its first byte; how much that was.
    async fn send_first(&self, message: &[u8], spool: &OwnedFd) -> io::Result<usize> {
        self.stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = [spool.as_fd()];
                if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                    return Err(io::Error::other("no room for the spool's descriptor"));
                }
                let parts = [IoSlice::new(message)];
                Ok(rustix::net::sendmsg(&self.stream, &parts, &mut control, SendFlags::NOSIGNAL)?)
            })
            .await
    }

    /// Says something after the job.
    pub(super) async fn send_control(&mut self, control: Control) -> io::Result<()> {
        let message = encode(&control)?;
        tokio::time::timeout(SEND_DEADLINE, self.stream.write_all(&message))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn encode<T: serde::Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(value)?;
    if body.len() > proto::MAX_MESSAGE {
        return Err(io::Error::other(format!(
            "the job's message has {} bytes, {} are allowed",
            body.len(),
            proto::MAX_MESSAGE
        )));
    }
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut message = length.to_le_bytes().to_vec();
    message.extend_from_slice(&body);
    Ok(message)
}

/// Reads the supervisor's first message.
async fn greeting(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let body = read_message(stream).await?;
    // A list of the values would be taken for the structure, too.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(io::Error::other("the supervisor's first message is no JSON object"));
    }
    let hello: Hello = serde_json::from_slice(&body)?;
    if hello.version != proto::VERSION {
        return Err(io::Error::other(format!(
            "the supervisor speaks version {} of the protocol, this agent {}",
            hello.version,
            proto::VERSION
        )));
    }
    Ok(())
}

/// Whether these bytes are a supervisor's greeting, for the fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub fn greeting_of(mut bytes: &[u8]) -> bool {
    use futures_util::FutureExt;
    greeting(&mut bytes).now_or_never().expect("memory is always there to be read").is_ok()
}

async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32_le().await? as usize;
    if length > proto::MAX_MESSAGE {
        return Err(io::Error::other(format!("a message of {length} bytes from the supervisor")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
