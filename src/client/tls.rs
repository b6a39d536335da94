//! Whom we take for the agent: certificate authorities, the agent's own certificate, or a fingerprint.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};

use super::Error;

/// Where Debian, Ubuntu, Alpine and Arch, and where Fedora and its kin keep the authorities.
const SYSTEM_ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Whose certificate is taken for the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// One that an authority of this machine signed, for the agent's name.
    System,
    /// One that an authority in this PEM file signed, for the agent's name; or exactly a certificate
    /// in this file, whatever its name: the agent's own, self-signed.
    File(PathBuf),
    /// The one with this SHA-256 of its DER form.
    Fingerprint([u8; 32]),
    /// Anybody's: whoever stands between can read and change everything but the jobs themselves.
    Anyone,
}

impl Trust {
    /// Reads a fingerprint: 64 hex digits, with or without colons and `sha256:` before.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is none.
    pub fn fingerprint(text: &str) -> Result<Trust, Error> {
        let digits = text.trim();
        let digits = digits.split_once([':', '=']).map_or(digits, |(name, rest)| {
            let name = name.to_ascii_lowercase();
            // `openssl x509 -fingerprint -sha256` writes "sha256 Fingerprint=AA:BB:...".
            if name.starts_with("sha256") || name.starts_with("sha-256") { rest } else { digits }
        });
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits.replace(':', ""), &mut bytes).map_err(|_| {
            Error::Setting(format!(
                "{text:?} is no fingerprint; it is the SHA-256 of the certificate, 64 hex digits"
            ))
        })?;
        Ok(Trust::Fingerprint(bytes))
    }
}

/// A certificate of our own, and its key: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The configuration of every TLS connection to the agent.
pub(super) fn config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| Error::Setting(error.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => {
            let roots = system_roots();
            // Without any authority everybody is unknown; an agent on plain HTTP works all the same.
            let inner = if roots.is_empty() { None } else { Some(by_roots(roots, &provider)?) };
            Arc::new(Exact { known: Vec::new(), inner, provider })
        }
        Trust::File(path) => {
            let known = read(path)?;
            let mut roots = RootCertStore::empty();
            // The agent's own certificate may be none that can be a root; then only `known` holds it.
            let (added, _) = roots.add_parsable_certificates(known.iter().cloned());
            let inner = if added == 0 { None } else { Some(by_roots(roots, &provider)?) };
            Arc::new(Exact { known, inner, provider })
        }
        Trust::Fingerprint(sha256) => Arc::new(Pinned { sha256: Some(*sha256), provider }),
        Trust::Anyone => Arc::new(Pinned { sha256: None, provider }),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some(Identity { cert, key }) = identity else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        Error::Setting(format!("cannot read a private key from {}: {error}", key.display()))
    })?;
    builder.with_client_auth_cert(read(cert)?, private).map_err(|error| {
        Error::Setting(format!("{} and {} are no pair: {error}", cert.display(), key.display()))
    })
}

fn by_roots(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| Error::Setting(format!("cannot use the certificate authorities: {error}")))
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for path in SYSTEM_ROOTS {
        if let Ok(found) = CertificateDer::pem_file_iter(path) {
            roots.add_parsable_certificates(found.flatten());
            break;
        }
    }
    roots
}

fn read(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fault =
        |why: String| Error::Setting(format!("cannot read certificates from {}: {why}", path.display()));
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?.collect();
    let found = found.map_err(|error| fault(error.to_string()))?;
    if found.is_empty() {
        return Err(fault("there is none in PEM form in it".to_owned()));
    }
    Ok(found)
}

/// By authority and name, or by being exactly a known certificate. The second is what makes a
/// self-signed certificate without a subject alternative name usable, as `openssl req -x509` makes it.
#[derive(Debug)]
struct Exact {
    known: Vec<CertificateDer<'static>>,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exact {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let judged = match &self.inner {
            Some(inner) => inner.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => Err(unknown),
        };
        let Err(fault) = judged else { return judged };
        // Its dates hold even for the agent's own certificate.
        let dated = matches!(
            fault,
            rustls::Error::InvalidCertificate(
                CertificateError::Expired
                    | CertificateError::ExpiredContext { .. }
                    | CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
            )
        );
        if !dated && self.known.iter().any(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(fault)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// By fingerprint alone; without one, anybody.
#[derive(Debug)]
struct Pinned {
    sha256: Option<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.sha256 {
            Some(pinned) if Sha256::digest(end_entity.as_ref())[..] != pinned => {
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_every_usual_form() {
        let plain = "ab".repeat(32);
        let want = Trust::Fingerprint([0xab; 32]);
        let colons = vec!["AB"; 32].join(":");
        for text in
            [plain.clone(), format!("sha256:{plain}"), colons.clone(), format!("sha256 Fingerprint={colons}")]
        {
            assert_eq!(Trust::fingerprint(&text).ok(), Some(want.clone()), "{text}");
        }
        assert!(Trust::fingerprint("abcd").is_err());
        assert!(Trust::fingerprint("").is_err());
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        let error = config(&Trust::File(path), None).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("PEM"), "{error}");
    }
}
