//! The door with a service that does as the job's id says: in process for what is asked and answered
//! (`requests`), over TCP and TLS for connections (`connections`) and streams (`streams`).

mod certificates;
mod connections;
mod fake;
mod large;
mod refusals;
mod requests;
mod streams;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{Api, Door, Edge, Pace, bind_with};
use crate::{
    base::budget::Budget,
    config::{Rate, ReadAccess, ServerConfig, TlsFiles},
    metrics::Metrics,
};
use fake::Fake;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn config() -> ServerConfig {
    ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        client_tls: None,
        read_access: ReadAccess::JobId,
        metrics_token: None,
        allowed_origins: vec!["https://console.example.com".to_owned()],
        max_body_bytes: 1000,
        max_connections: 100,
        max_connections_per_address: 100,
        handshake_timeout: PATIENCE,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        idle_timeout: PATIENCE * 2,
        rate_by_address: Rate { per_second: 0.0, burst: 0 },
        rate_exempt: Vec::new(),
    }
}

/// Writes a new certificate for `localhost` and its key.
fn certificate(dir: &Path) -> (TlsFiles, rustls::pki_types::CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    (files, cert.der().clone())
}

/// A door that serves.
struct Served {
    at: SocketAddr,
    edge: Edge,
    fake: Arc<Fake>,
    metrics: Arc<Metrics>,
    results: Arc<Budget>,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

const CALM: Pace = Pace { ping: PATIENCE, silence: Duration::from_secs(60), large: PATIENCE };

fn open(config: ServerConfig, pace: Pace) -> Served {
    static LOG: Once = Once::new();
    LOG.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    });
    let fake = Arc::new(Fake::default());
    let metrics = Metrics::new();
    let api: Api = bind_with(Door { jobs: fake.clone(), config, metrics: metrics.clone() }, pace).unwrap();
    let (at, edge, stop) = (api.local_addr().unwrap(), api.edge(), CancellationToken::new());
    let results = api.app.results.clone();
    let task = tokio::spawn(api.serve(stop.clone()));
    Served { at, edge, fake, metrics, results, stop, task }
}

impl Served {
    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    async fn stopped(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
    }
}

/// A client's side of TLS that trusts that certificate.
fn client(trusted: &rustls::pki_types::CertificateDer<'static>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn tls(at: SocketAddr, client: Arc<rustls::ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(at).await?;
    TlsConnector::from(client).connect("localhost".try_into().unwrap(), socket).await
}

/// Waits until it holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
