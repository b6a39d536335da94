//! The edge of the server: the listener, TLS, who may connect and for how long.
//!
//! HTTP/1.1 only: WebSocket needs it, and one request at a time is what makes the caps on connections caps
//! on requests.

mod acceptor;
mod caps;
pub mod client_cert;
mod expiry;
mod guarded;
pub mod tls;
mod x509;

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::Router;
use axum_server::Handle;
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;

use self::{
    acceptor::Acceptor,
    caps::Caps,
    tls::{Loaded, TlsError},
};
use crate::{config::ServerConfig, metrics::Metrics};

/// How long requests have to end after the signal to stop.
pub const GRACE: Duration = Duration::from_secs(5);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Bytes of a request's head; beyond, hyper answers 431.
const MAX_HEAD: usize = 64 << 10;

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has it.
    #[error(
        "port {port} on {ip} is in use: stop the program that listens there, or set another `port`",
        ip = .0.ip(), port = .0.port()
    )]
    InUse(SocketAddr),
    /// Below 1024, and no right to it.
    #[error(
        "port {port} on {ip} may not be taken by this user: set a `port` of 1024 or more, or give the agent \
         CAP_NET_BIND_SERVICE",
        ip = .0.ip(), port = .0.port()
    )]
    NotAllowed(SocketAddr),
    /// The host does not have that address.
    #[error("{ip} is no address of this host: set `listen` to one that it has, or to 0.0.0.0", ip = .0.ip())]
    NoSuchAddress(SocketAddr),
    /// Anything else.
    #[error("port {port} on {ip} can't be listened on: {1}", ip = .0.ip(), port = .0.port())]
    Other(SocketAddr, #[source] io::Error),
    /// Signed jobs are no secret, their output may be.
    #[error(
        "without a certificate the agent serves on loopback only, not on {0}: set `tls_cert_file` and \
         `tls_key_file`, or `listen: 127.0.0.1`"
    )]
    PlainBeyondLoopback(SocketAddr),
    /// See [`TlsError`].
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What of the edge can change while it serves.
#[derive(Clone)]
pub struct Edge {
    config: Arc<ArcSwap<ServerConfig>>,
    metrics: Arc<Metrics>,
    tls: Option<Arc<ArcSwap<Loaded>>>,
}

impl Edge {
    /// Reads the certificate, if there is one.
    ///
    /// # Errors
    /// It can't be used, or there is none and the address is not loopback.
    pub(super) fn new(config: Arc<ArcSwap<ServerConfig>>, metrics: Arc<Metrics>) -> Result<Edge, BindError> {
        let now = config.load();
        let tls = match &now.tls {
            Some(files) => {
                let loaded = tls::load(files, now.client_tls.as_ref())?;
                metrics.tls_certificate_expiry.set(loaded.not_after);
                Some(Arc::new(ArcSwap::from_pointee(loaded)))
            }
            None if now.listen.ip().to_canonical().is_loopback() => None,
            None => return Err(BindError::PlainBeyondLoopback(now.listen)),
        };
        Ok(Edge { config, metrics, tls })
    }

    /// Takes over settings and certificate without dropping a connection. The address, the time limits of
    /// handshake and header, and whether there is TLS at all stay as they were at the start.
    ///
    /// # Errors
    /// The new certificate or key can't be used: everything stays as it was.
    pub fn reload(&self, new: &ServerConfig) -> Result<(), TlsError> {
        if let (Some(serving), Some(files)) = (&self.tls, &new.tls) {
            let loaded = tls::load(files, new.client_tls.as_ref())?;
            self.metrics.tls_certificate_expiry.set(loaded.not_after);
            serving.store(Arc::new(loaded));
        }
        self.config.store(Arc::new(new.clone()));
        Ok(())
    }

    /// Says once a day in the log that the certificate expires soon, or has, until the signal.
    pub async fn watch(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DAY) => {}
            }
            if let Some(serving) = &self.tls {
                tls::warn(serving.load().not_after);
            }
        }
    }

    /// Serves until the signal and at most [`GRACE`] longer.
    pub(super) async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let config = self.config.load_full();
        let caps = Caps::new(self.config.clone(), self.metrics.clone());
        let acceptor = Acceptor::new(caps, self.tls.clone(), &config);
        let mut server = axum_server::from_tcp(listener)?.acceptor(acceptor);
        // Without a timer hyper keeps no limit on the header, and does not say so.
        let mut http = server.http_builder().http1();
        http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(MAX_HEAD);

        let handle = Handle::new();
        let serving =
            server.handle(handle.clone()).serve(router.into_make_service_with_connect_info::<SocketAddr>());
        let stopping = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(GRACE));
            std::future::pending().await
        };
        tokio::select! {
            served = serving => served,
            never = stopping => never,
        }
    }
}

/// Takes the port.
pub(super) fn listen(at: SocketAddr) -> Result<TcpListener, BindError> {
    let taken = TcpListener::bind(at).and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    taken.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => BindError::InUse(at),
        ErrorKind::PermissionDenied => BindError::NotAllowed(at),
        ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(at),
        _ => BindError::Other(at, error),
    })
}
