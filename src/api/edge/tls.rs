//! The server's certificate and what of TLS is spoken: 1.2 and 1.3, AEAD suites only (all that `ring`
//! offers), sessions resumed by tickets.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::expiry::not_after;
use crate::{base::clock::Timestamp, config::TlsFiles};

/// A certificate that ends sooner than this is worth a warning.
const SOON: i64 = 14 * 24 * 3600;

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
}

/// Reads and checks the files.
///
/// # Errors
/// See [`TlsError`].
pub fn load(files: &TlsFiles) -> Result<Loaded, TlsError> {
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
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(bad_pair)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(bad_pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = ring::Ticketer::new().map_err(bad_pair)?;

    match not_after {
        None => tracing::warn!(path = %cert.display(), "the certificate's last day could not be read"),
        Some(at) if at <= Timestamp::now().secs() => {
            tracing::warn!(path = %cert.display(), at = Timestamp::from_secs(at).rfc3339(), "the certificate has expired");
        }
        Some(at) if at - SOON <= Timestamp::now().secs() => {
            tracing::warn!(path = %cert.display(), at = Timestamp::from_secs(at).rfc3339(), "the certificate expires soon");
        }
        Some(_) => {}
    }
    Ok(Loaded { config: Arc::new(config), not_after: not_after.unwrap_or(0) })
}
