//! The certificate and its key: there, readable, and made for each other. Checked here so that a bad
//! pair is a line of the fault list and not a failed start.

use std::path::PathBuf;

use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{
    RunAs, TlsFiles,
    file::{self, Contents},
    section::{At, Section},
};

/// `tls_cert_file` and `tls_key_file`; `None` if neither is given. `Some` even if they are faulty.
pub(super) fn read(top: &mut Section<'_>, run_as: &RunAs) -> Option<TlsFiles> {
    let (cert, key) = (top.get("tls_cert_file"), top.get("tls_key_file"));
    let (cert, key) = match (cert, key) {
        (None, None) => return None,
        (Some(cert), Some(key)) => (cert, key),
        (cert, _) => {
            let (given, missing) = if cert.is_some() {
                ("tls_cert_file", "tls_key_file")
            } else {
                ("tls_key_file", "tls_cert_file")
            };
            top.fault(
                given,
                format!("is given without `{missing}`: give both, or neither for loopback only"),
            );
            return Some(TlsFiles { cert: PathBuf::new(), key: PathBuf::new() });
        }
    };
    let chain = contents(&cert).and_then(|contents| {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.bytes).collect();
        match chain {
            Ok(chain) if !chain.is_empty() => Some(chain),
            _ => {
                cert.fault("the file it names holds no certificate in PEM (-----BEGIN CERTIFICATE-----)");
                None
            }
        }
    });
    let private = contents(&key).and_then(|contents| {
        if contents.world_readable() {
            key.fault("the file it names holds a private key, and every user of this host may read it: chmod 600 it");
        } else if let Some(group) = contents.foreign_group(run_as) {
            key.notes.warn(format!(
                "{}: the group {group} may read the private key of {}: chmod 600 it",
                key.file.display(),
                key.key
            ));
        }
        let private = PrivateKeyDer::from_pem_slice(&contents.bytes).ok();
        if private.is_none() {
            key.fault("the file it names holds no private key in PEM (-----BEGIN PRIVATE KEY-----)");
        }
        private
    });
    if let (Some(chain), Some(private)) = (chain, private) {
        match CertifiedKey::from_der(chain, private, &ring::default_provider()) {
            Ok(_) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                key.fault("is not the key of the certificate in `tls_cert_file`: give the pair that belongs together");
            }
            Err(error) => {
                key.fault(format!("can't be used with the certificate in `tls_cert_file`: {error}"))
            }
        }
    }
    let path = |at: &At<'_>| at.text().map(|text| at.notes.path(text)).unwrap_or_default();
    Some(TlsFiles { cert: path(&cert), key: path(&key) })
}

fn contents(at: &At<'_>) -> Option<Contents> {
    let text = match &at.node.value {
        super::yaml::Value::Scalar(text) => text,
        // `text` notes the fault when the path is taken.
        _ => return None,
    };
    let path = at.notes.path(text);
    file::read(&path).map_err(|what| at.fault(format!("{} {what}", path.display()))).ok()
}
