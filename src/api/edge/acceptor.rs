//! From an accepted socket to a connection that may ask: caps, socket options, TLS, guard.

use std::{io, time::Duration};

use axum_server::{accept::Accept, tls_rustls::RustlsAcceptor};
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{caps::Caps, guarded::Guarded};
use crate::{config::ServerConfig, metrics::ConnectionRefusal};

/// Plain or over TLS: above this, nobody asks.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What axum-server runs for each accepted socket.
#[derive(Clone)]
pub struct Acceptor {
    caps: Caps,
    /// Without it: plain HTTP.
    tls: Option<RustlsAcceptor>,
    opening: Duration,
    idle: Duration,
}

impl Acceptor {
    pub fn new(caps: Caps, tls: Option<RustlsAcceptor>, config: &ServerConfig) -> Acceptor {
        Acceptor { caps, tls, opening: config.header_timeout, idle: config.idle_timeout }
    }

    async fn open(&self, socket: TcpStream) -> io::Result<Guarded<Box<dyn Io>>> {
        let permit = self.caps.take(socket.peer_addr()?.ip()).map_err(|why| {
            self.caps.metrics().connection_refused(why);
            // Closed at once: whoever opens too many gets no work out of us.
            io::Error::new(io::ErrorKind::ConnectionRefused, why.as_str())
        })?;
        // Frames are small and live; waiting for more to send would hold them back.
        socket.set_nodelay(true)?;
        // A host that has vanished acknowledges nothing; the kernel alone would wait a quarter of an hour.
        let unacknowledged = u32::try_from(self.idle.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&socket, unacknowledged) {
            tracing::debug!(%error, "the socket's user timeout could not be set");
        }
        let stream: Box<dyn Io> = match &self.tls {
            None => Box::new(socket),
            Some(tls) => {
                let (stream, ()) = tls.accept(socket, ()).await.inspect_err(|error| {
                    self.caps.metrics().connection_refused(ConnectionRefusal::Handshake);
                    tracing::debug!(%error, "handshake failed");
                })?;
                Box::new(stream)
            }
        };
        Ok(Guarded::new(stream, permit, self.opening, self.idle))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Guarded<Box<dyn Io>>;
    type Service = S;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, S)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok((this.open(socket).await?, service)) })
    }
}
