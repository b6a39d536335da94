//! The HTTPS and WebSocket door: turns bytes into calls of the job service, and its answers into bytes.
//!
//! `edge` holds the connections (TLS, caps, time limits), `router` is the list of endpoints, `front` runs
//! around every request, `routes` has one file a path.
//!
//! Tasks: one a connection (axum-server's), one a stream, one for each submission and cancellation, so
//! that these end also when the client has gone.

mod app;
mod crowd;
pub mod edge;
mod error;
mod extract;
mod front;
mod large;
mod limit;
mod openapi;
mod router;
mod routes;
pub mod service;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

pub use app::Pace;
pub use edge::{BindError, Edge, tls::TlsError};
pub use front::REQUEST_ID;
pub use service::Jobs;

use crate::{config::ServerConfig, metrics::Metrics};

/// What the door needs.
pub struct Door {
    pub jobs: Arc<dyn Jobs>,
    pub config: ServerConfig,
    pub metrics: Arc<Metrics>,
}

/// An open door: the port is taken, nobody is served yet.
pub struct Api {
    app: Arc<app::App>,
    edge: Edge,
    listener: std::net::TcpListener,
}

/// Takes the port and reads the certificate, so that what can be wrong is wrong before the agent says that
/// it runs.
///
/// # Errors
/// The port can't be had, the certificate or its key can't be used, or there is none beyond loopback.
pub fn bind(door: Door) -> Result<Api, BindError> {
    let pace = Pace::of(&door.config);
    bind_with(door, pace)
}

fn bind_with(door: Door, pace: Pace) -> Result<Api, BindError> {
    let config = Arc::new(ArcSwap::from_pointee(door.config));
    let edge = Edge::new(config.clone(), door.metrics.clone())?;
    let listener = edge::listen(config.load().listen)?;
    Ok(Api { app: Arc::new(app::App::new(door.jobs, config, door.metrics, pace)), edge, listener })
}

impl Api {
    /// Where it listens; tells the port if the configuration asked for any (0).
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// To be kept for reloads.
    pub fn edge(&self) -> Edge {
        self.edge.clone()
    }

    /// Serves until the signal, then takes no new connection, lets requests end and streams send what they
    /// have, 5 seconds at most each.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(self, stop: CancellationToken) -> std::io::Result<()> {
        let router = router::router(self.app.clone());
        let streams = self.app.stop.clone();
        let signal = async {
            stop.cancelled().await;
            streams.cancel();
        };
        let (served, ()) = tokio::join!(self.edge.serve(self.listener, router, stop.clone()), signal);
        self.app.streams.close();
        let _ = tokio::time::timeout(edge::GRACE, self.app.streams.wait()).await;
        served
    }
}
