//! Signals as readable events.
//!
//! Only SIGCHLD and SIGTERM are taken, blocked and read from a descriptor. Every other signal is ignored:
//! a blocked one would be queued, and a job could fill the queue. The job may send this process whatever
//! it likes; a SIGTERM counts only if it came from outside of the sandbox.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals taken in one go. A job may signal this process as fast as it can be read: that must not keep the
/// loop from deadline, channel and streams.
const AT_ONCE: usize = 64;

/// What has been signalled since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// A child may have ended.
    pub child: bool,
    /// Docker, or whoever is outside, asks for the end.
    pub terminate: bool,
}

pub struct Signals {
    fd: SignalFd,
    is_init: bool,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        let mut taken = SigSet::empty();
        taken.add(Signal::SIGCHLD);
        taken.add(Signal::SIGTERM);
        for number in 1..=64 {
            let keep_default = [
                libc::SIGCHLD,
                libc::SIGTERM,
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGILL,
                libc::SIGFPE,
                libc::SIGABRT,
            ];
            let action = if keep_default.contains(&number) { libc::SIG_DFL } else { libc::SIG_IGN };
            // SAFETY: no handler is installed, only the two built-in dispositions. The numbers that can't
            // be set (SIGKILL, SIGSTOP, the C library's own) return an error, which is fine.
            unsafe { libc::signal(number, action) };
        }
        taken.thread_set_mask()?;
        let fd = SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { fd, is_init: std::process::id() == 1 })
    }

    /// Takes what is there, without waiting; of a flood only a part, the rest keeps the descriptor readable.
    pub fn take(&mut self) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..AT_ONCE {
            let Ok(Some(info)) = self.fd.read_signal() else { break };
            if info.ssi_signo == Signal::SIGCHLD as u32 {
                seen.child = true;
            } else if info.ssi_signo == Signal::SIGTERM as u32 {
                // A sender outside of this PID namespace has no number in it. `sigqueue` could forge the
                // number, but not together with the code of `kill`.
                let from_outside = info.ssi_code == libc::SI_USER && info.ssi_pid == 0;
                seen.terminate |= from_outside || !self.is_init;
            }
        }
        seen
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
