//! The supervisor's end of the channel (see [`quickcmd_init::proto`]).

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use quickcmd_init::proto::{self, Controls, Hello, Job, Stop};

use super::{place, signals::Signals};

/// A job with its descriptors.
pub struct Order {
    pub job: Job,
    pub spool: OwnedFd,
    /// `None`: no standard input.
    pub stdin: Option<OwnedFd>,
    /// Whether its files are in their places, and if not, why.
    pub placed: Result<(), String>,
}

/// How a wait for a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// There is something to read, or the channel is closed.
    Something,
    /// Nothing for as long as was to be waited.
    Idle,
    /// Docker asks for the end.
    End,
}

pub struct Channel {
    socket: UnixStream,
    controls: Controls,
}

impl Channel {
    /// Connects and says hello.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let mut channel = Channel { socket: UnixStream::connect(path)?, controls: Controls::default() };
        channel.hello()?;
        Ok(channel)
    }

    fn hello(&mut self) -> io::Result<()> {
        let body = serde_json::to_vec(&Hello { version: proto::VERSION })?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut message = length.to_le_bytes().to_vec();
        message.extend_from_slice(&body);
        self.socket.write_all(&message)
    }

    /// Says that it is ready for another job, after one.
    ///
    /// # Errors
    /// Nobody is there any more, or something was said that belonged to the last job.
    pub fn hello_again(&mut self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&self.socket, FcntlArg::F_GETFL)?);
        if !self.controls.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a control message that nobody waits for",
            ));
        }
        fcntl(&self.socket, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
        self.hello()
    }

    /// Waits until the channel has something to say, or so long.
    pub fn wait(&self, signals: &mut Signals, idle: Option<Duration>) -> io::Result<Heard> {
        let timeout = idle.and_then(|idle| PollTimeout::try_from(idle).ok()).unwrap_or(PollTimeout::NONE);
        loop {
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(Heard::Idle),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let readable = fds[0].any().unwrap_or(false);
            if signals.take().terminate {
                return Ok(Heard::End);
            }
            if readable {
                return Ok(Heard::Something);
            }
        }
    }

    /// Takes the job. `None`: the channel closed before it was whole.
    ///
    /// # Errors
    /// What came is no job.
    pub fn receive(&mut self) -> io::Result<Option<Order>> {
        match self.receive_whole() {
            Err(error) if closed(&error) => Ok(None),
            other => other,
        }
    }

    fn receive_whole(&mut self) -> io::Result<Option<Order>> {
        let mut header = [0; 4];
        let (got, spool) = self.receive_first(&mut header)?;
        if got == 0 {
            return Ok(None);
        }
        self.socket.read_exact(&mut header[got..])?;
        let job = proto::job(&proto::read_body(&mut self.socket, header)?)?;
        let spool = spool.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the job came without the spool's descriptor")
        })?;
        let stdin = if job.stdin_len == 0 { None } else { Some(self.receive_stdin(job.stdin_len)?) };
        let placed = place::place(&mut self.socket, &job.files, &job.workdir)?;
        Ok(Some(Order { job, spool, stdin, placed }))
    }

    /// The first bytes, and the descriptor that rides on them.
    fn receive_first(&self, header: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut space = nix::cmsg_space!([RawFd; 4]);
        let mut parts = [IoSliceMut::new(header)];
        let message = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let mut spool = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                    #[allow(unsafe_code)]
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    // One is meant; more would be closed here.
                    spool.get_or_insert(fd);
                }
            }
        }
        Ok((message.bytes, spool))
    }

    /// Copies the standard input into memory of the sandbox: a sealed file without a name, at its start.
    fn receive_stdin(&mut self, length: u64) -> io::Result<OwnedFd> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"stdin", flags)?);
        let copied = io::copy(&mut (&mut self.socket).take(length), &mut file)?;
        if copied < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.rewind()?;
        let sealed =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(sealed))?;
        Ok(file.into())
    }

    /// From now on reads don't wait.
    pub fn no_waiting(&self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&self.socket, FcntlArg::F_GETFL)?);
        fcntl(&self.socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// The first stop that has come, if one has.
    ///
    /// # Errors
    /// The channel is closed, or says what is no control message: it is of no more use.
    pub fn poll_stop(&mut self) -> io::Result<Option<Stop>> {
        let mut bytes = [0; 4096];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => {
                    // What came before the end still counts.
                    return match self.parse_stop()? {
                        Some(stop) => Ok(Some(stop)),
                        None => Err(io::ErrorKind::UnexpectedEof.into()),
                    };
                }
                Ok(n) => self.controls.push(&bytes[..n])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.parse_stop(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn parse_stop(&mut self) -> io::Result<Option<Stop>> {
        let mut first = None;
        while let Some(why) = self.controls.next_stop()? {
            first.get_or_insert(why);
        }
        Ok(first)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether the other side has gone, or never was.
fn closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
