//! The peer of the submissions: the same server library with the same TLS, which reads the body and answers a
//! constant. A process of its own, as the agent is.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use axum_server::tls_rustls::RustlsConfig;
use tokio::process::{Child, Command};

use crate::{
    Result,
    agent::{Identity, free_port},
    wire::Conn,
};

/// The argument that makes this program that server.
pub const ARGUMENT: &str = "--serve-constant";

/// The server's process; killed when dropped.
pub struct Constant {
    pub port: u16,
    pub tls: Arc<rustls::ClientConfig>,
    _child: Child,
}

impl Constant {
    pub async fn start(root: &Path) -> Result<Constant> {
        let dir = root.join("constant");
        std::fs::create_dir_all(&dir)?;
        let identity = Identity::make(&dir)?;
        let port = free_port()?;
        let child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, &port.to_string()])
            .args([&identity.cert, &identity.key])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        for _ in 0..1000 {
            if Conn::open(port, &identity.tls).await.is_ok() {
                return Ok(Constant { port, tls: identity.tls, _child: child });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("the constant server does not come up".into())
    }
}

/// Serves for ever.
pub async fn serve(port: u16, cert: &Path, key: &Path) -> Result<()> {
    let answer = async |body: Bytes| {
        std::hint::black_box(body.len());
        (StatusCode::ACCEPTED, r#"{"job_id":"job-123456","status":"pending"}"#)
    };
    let router = Router::new().route("/api/v1/jobs", post(answer));
    let tls = RustlsConfig::from_pem_file(cert, key).await?;
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    axum_server::bind_rustls(at, tls).serve(router.into_make_service()).await?;
    Ok(())
}
