//! A connection with two time limits that HTTP itself does not keep.
//!
//! - The first bytes must come within the header's time. Hyper's own limit begins only when it knows that
//!   it is HTTP/1, and to know that it waits for bytes without end.
//! - While something is waited for (a body, room to write, an answer to a ping), something must move.

use std::{
    future::Future,
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::caps::Permit;

/// The connection preface of HTTP/2 (RFC 9113, section 3.4) begins so, and no method of ours does.
const HTTP2: [u8; 4] = *b"PRI ";
/// Bytes that hyper looks at before it decides.
const PREFACE: usize = 24;

/// A connection that has its place, and loses it when it stands still.
pub struct Guarded<S> {
    stream: S,
    _permit: Permit,
    /// The first bytes, until there are enough or we have answered.
    opening: Option<Opening>,
    idle: Duration,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

struct Opening {
    until: Instant,
    head: Vec<u8>,
}

impl<S> Guarded<S> {
    pub fn new(stream: S, permit: Permit, opening: Duration, idle: Duration) -> Guarded<S> {
        let now = Instant::now();
        let until = now + opening;
        Guarded {
            stream,
            _permit: permit,
            opening: Some(Opening { until, head: Vec::new() }),
            idle,
            moved: now,
            timer: Box::pin(tokio::time::sleep_until(until)),
        }
    }

    /// What to say where the stream says "not yet": the same, or that it takes too long. The timer is set
    /// anew only when it fires, not with every byte.
    fn waited<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            let due = self.opening.as_ref().map_or(self.moved + self.idle, |opening| opening.until);
            if due <= Instant::now() {
                return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the connection stands still")));
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn took(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.moved = Instant::now();
        if let Some(opening) = &mut self.opening {
            opening.head.extend(&bytes[..bytes.len().min(PREFACE - opening.head.len())]);
            if opening.head.starts_with(&HTTP2) {
                return Err(io::Error::new(ErrorKind::InvalidData, "HTTP/2 is not spoken here"));
            }
            if opening.head.len() == PREFACE {
                self.opened();
            }
        }
        Ok(())
    }

    /// From now on it is being idle that counts, which may be over sooner than the timer says.
    fn opened(&mut self) {
        if self.opening.take().is_some() {
            self.timer.as_mut().reset(self.moved + self.idle);
        }
    }

    fn gave<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(done)) => {
                self.moved = Instant::now();
                self.opened();
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.waited(cx),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(this.took(&buffer.filled()[before..])),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.waited(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.gave(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.gave(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A flush without anything to flush is no movement.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Pending => this.waited(cx),
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_shutdown(cx) {
            Poll::Pending => this.waited(cx),
            done @ Poll::Ready(_) => done,
        }
    }
}
