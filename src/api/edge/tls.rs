//! The server's certificate and what of TLS is spoken: 1.2 and 1.3, AEAD suites only (all that `ring`
//! offers), sessions resumed by tickets.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use super::expiry::{Left, left, not_after};
use crate::{
    base::clock::Timestamp,
    config::{ClientTls, TlsFiles},
};

/// Why a certificate can't be served with. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate in it, or no such file.
    #[error("tls_cert_file {path}: {why}: it must be a PEM file with the certificate, then its chain")]
    Cert {
        /// As configured.
        path: PathBuf,
        /// What the reader said.
        why: String,
    },
    /// No private key in it, or no such file.
    #[error("tls_key_file {path}: {why}: it must be a PEM file with an unencrypted private key")]
    Key {
        /// As configured.
        path: PathBuf,
        /// What the reader said.
        why: String,
    },
    /// The authorities of the clients' certificates can't be used.
    #[error("tls.client_ca {path}: {why}")]
    Clients {
        /// As configured.
        path: PathBuf,
        /// What the TLS library said.
        why: String,
    },
    /// They do not belong together, or the key's kind is not known.
    #[error("the key in {key} can't be used with the certificate in {cert}: {why}")]
    Pair {
        /// As configured.
        cert: PathBuf,
        /// As configured.
        key: PathBuf,
        /// What the TLS library said.
        why: rustls::Error,
    },
}

/// A certificate that can be served with.
#[derive(Debug)]
pub struct Loaded {
    pub config: Arc<ServerConfig>,
    /// Unix seconds; 0 if it could not be read.
    pub not_after: i64,
    /// The clients' authorities, if clients are asked for a certificate: [`ClientTls::fingerprint`].
    pub clients: Option<[u8; 32]>,
}

/// Reads and checks the files.
///
/// # Errors
/// See [`TlsError`].
pub fn load(files: &TlsFiles, clients: Option<&ClientTls>) -> Result<Loaded, TlsError> {
    let TlsFiles { cert, key } = files;
    let bad_cert = |why: String| TlsError::Cert { path: cert.clone(), why };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_cert(error.to_string()))?;
    let first = chain.first().ok_or_else(|| bad_cert("there is no certificate in it".to_owned()))?;
    let not_after = not_after(first);
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| TlsError::Key { path: key.clone(), why: error.to_string() })?;

    let bad_pair = |why| TlsError::Pair { cert: cert.clone(), key: key.clone(), why };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(bad_pair)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let bad = |why: String| TlsError::Clients { path: clients.ca.clone(), why };
            let mut roots = RootCertStore::empty();
            for root in &clients.roots {
                roots.add(root.clone()).map_err(|error| bad(error.to_string()))?;
            }
            let provider = Arc::new(ring::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| bad(error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(bad_pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // All suites are good; scanners, and some rules, want the server to choose among them.
    config.ignore_client_order = true;
    config.ticketer = ring::Ticketer::new().map_err(bad_pair)?;

    let not_after = not_after.unwrap_or(0);
    warn(not_after);
    Ok(Loaded { config: Arc::new(config), not_after, clients: clients.map(|clients| clients.fingerprint) })
}

/// Says in the log that the certificate needs care, if it does.
pub fn warn(not_after: i64) {
    let at = Timestamp::from_secs(not_after).rfc3339();
    match left(not_after, Timestamp::now().secs()) {
        Left::Unknown => tracing::warn!("the certificate's last day could not be read"),
        Left::Expired => tracing::warn!(at, "the certificate has expired"),
        Left::Little => tracing::warn!(at, "the certificate expires soon"),
        Left::Enough => {}
    }
}
