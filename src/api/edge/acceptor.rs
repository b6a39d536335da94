//! From an accepted socket to a connection that may ask: caps, socket options, TLS, guard.

use std::{io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Extension, middleware::AddExtension};
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use tower::Layer;

use super::{
    caps::Caps,
    client_cert::{ClientCertificate, Presented},
    guarded::Guarded,
    tls::Loaded,
};
use crate::{config::ServerConfig, metrics::ConnectionRefusal};

/// Plain or over TLS: above this, nobody asks.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What axum-server runs for each accepted socket.
#[derive(Clone)]
pub struct Acceptor {
    caps: Caps,
    /// Without it: plain HTTP.
    tls: Option<Arc<ArcSwap<Loaded>>>,
    handshake: Duration,
    opening: Duration,
    idle: Duration,
}

impl Acceptor {
    pub fn new(caps: Caps, tls: Option<Arc<ArcSwap<Loaded>>>, config: &ServerConfig) -> Acceptor {
        let (handshake, opening) = (config.handshake_timeout, config.header_timeout);
        Acceptor { caps, tls, handshake, opening, idle: config.idle_timeout }
    }

    async fn open(&self, socket: TcpStream) -> io::Result<(Guarded<Box<dyn Io>>, ClientCertificate)> {
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
        let (stream, certificate): (Box<dyn Io>, _) = match &self.tls {
            None => (Box::new(socket), None),
            Some(serving) => {
                // Of one moment: what checks a certificate, and the name of that.
                let loaded = serving.load_full();
                let shaken = TlsAcceptor::from(Arc::clone(&loaded.config)).accept(socket);
                let stream = tokio::time::timeout(self.handshake, shaken)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .inspect_err(|error| {
                        self.caps.metrics().connection_refused(ConnectionRefusal::Handshake);
                        tracing::debug!(%error, "handshake failed");
                    })?;
                let chain = stream.get_ref().1.peer_certificates();
                let first = chain.and_then(|chain| chain.first());
                let certificate = first.zip(loaded.clients).map(|(der, with)| Presented::of(der, with));
                (Box::new(stream), certificate)
            }
        };
        let guarded = Guarded::new(stream, permit, self.opening, self.idle);
        Ok((guarded, ClientCertificate(certificate.map(Arc::new))))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Guarded<Box<dyn Io>>;
    type Service = AddExtension<S, ClientCertificate>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, socket: TcpStream, service: S) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (stream, certificate) = this.open(socket).await?;
            Ok((stream, Extension(certificate).layer(service)))
        })
    }
}
