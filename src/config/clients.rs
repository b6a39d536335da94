//! `tls`: whose client certificates are taken, and what they give the right to.

use std::path::PathBuf;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use sha2::{Digest, Sha256};

use super::{
    file,
    section::{At, Section},
};
use crate::wire::rights::{Right, Rights};

/// Client certificates (mutual TLS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Where the authorities stand.
    pub ca: PathBuf,
    /// The authorities.
    pub roots: Vec<CertificateDer<'static>>,
    /// Of the authorities: a certificate counts as long as they are those that it was checked with.
    pub fingerprint: [u8; 32],
    /// Whether nobody connects without one.
    pub required: bool,
    pub clients: Vec<TlsClient>,
    /// SHA-256 of certificates that are not taken any more, whoever they are and whatever their dates say.
    pub revoked: Vec<[u8; 32]>,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClient {
    /// For the record.
    pub name: String,
    pub by: TlsName,
    /// The one controller whose jobs its rights are for, and for which it may carry submissions.
    pub controller: Option<String>,
    pub rights: Rights,
}

/// By what a client's certificate is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsName {
    /// A subject alternative name of the kind URI, exactly: `spiffe://example.org/dashboard`.
    Uri(String),
    /// One of the kind DNS, in lower case.
    Dns(String),
    /// SHA-256 of its DER form.
    Fingerprint([u8; 32]),
}

/// Reads `tls`. `served`: whether the agent has a certificate of its own.
pub(super) fn read(mut section: Section<'_>, served: bool) -> Option<ClientTls> {
    let ca = section.get("client_ca");
    let given = ["client_auth", "clients", "revoked"].into_iter().any(|key| section.given(key));
    let required = section.choice("client_auth", false, &[("optional", false), ("required", true)]);
    let mut clients: Vec<TlsClient> = Vec::new();
    for at in section.get("clients").and_then(At::list).unwrap_or_default() {
        let place = at.clone();
        let Some(client) = at.section().and_then(client) else { continue };
        if clients.iter().any(|other| other.name == client.name) {
            place.fault("has the `name` of another client: give each its own");
        } else if clients.iter().any(|other| other.by == client.by) {
            place.fault("is known by the same as another client: keep one of the two");
        } else {
            clients.push(client);
        }
    }
    let revoked = section.get("revoked").and_then(At::list).unwrap_or_default();
    let revoked = revoked.into_iter().filter_map(|at| at.read(fingerprint)).collect();
    if ca.is_none() && given {
        section
            .fault("client_ca", "is missing: give the authorities that sign the clients' certificates (PEM)");
    }
    let roots = ca.as_ref().map(|ca| (ca.text().map(|text| ca.notes.path(text)), roots(ca)));
    if let Some(ca) = &ca
        && !served
    {
        ca.fault("needs TLS: give `tls_cert_file` and `tls_key_file`, too");
    }
    section.finish();
    let (ca, roots) = roots?;
    let (ca, roots) = (ca?, roots?);
    let mut hash = Sha256::new();
    for root in &roots {
        hash.update((root.len() as u64).to_be_bytes());
        hash.update(root);
    }
    Some(ClientTls { ca, roots, fingerprint: hash.finalize().into(), required, clients, revoked })
}

fn roots(at: &At<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = at.notes.path(at.text()?);
    let contents = file::read(&path).map_err(|what| at.fault(format!("{} {what}", path.display()))).ok()?;
    if contents.world_writable() {
        at.fault("the file it names may be changed by every user of this host: chmod o-w it");
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents.bytes).collect();
    let found = found.unwrap_or_default();
    let mut store = RootCertStore::empty();
    if found.is_empty() || found.iter().any(|root| store.add(root.clone()).is_err()) {
        at.fault("the file it names must hold certificates of authorities in PEM (-----BEGIN CERTIFICATE-----) and nothing that is none");
        return None;
    }
    Some(found)
}

fn client(mut section: Section<'_>) -> Option<TlsClient> {
    let name = match section.get("name") {
        Some(at) => at.read(label),
        None => {
            section.fault("name", "is missing: it stands in the record for who came with this certificate");
            None
        }
    };
    let uri = section.get("uri").and_then(|at| at.read(uri)).map(TlsName::Uri);
    let dns = section.get("dns").and_then(|at| at.read(dns)).map(TlsName::Dns);
    let print = section.get("fingerprint").and_then(|at| at.read(fingerprint)).map(TlsName::Fingerprint);
    let given = ["uri", "dns", "fingerprint"].into_iter().filter(|key| section.given(key)).count();
    if given != 1 {
        section.fault(
            "uri",
            "must say by what the certificate is known: give exactly one of `uri`, `dns` and `fingerprint`",
        );
    }
    let controller = section.text("controller");
    let scopes_given = section.given("scopes");
    let scopes: Vec<Right> = section
        .get("scopes")
        .and_then(At::list)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|at| {
            at.read(|text| {
                Right::parse(text).ok_or_else(|| "is none of `submit`, `read`, `operate`, `admin`".to_owned())
            })
        })
        .collect();
    let rights = match (&controller, scopes_given) {
        (Some(_), false) => Rights(vec![Right::Submit, Right::Read, Right::Operate]),
        (None, false) => {
            section.fault(
                "scopes",
                "is missing: without a `controller`, say what this certificate gives the right to",
            );
            Rights::default()
        }
        _ => Rights(scopes),
    };
    if controller.is_some() && rights.0.contains(&Right::Admin) {
        section.fault("scopes", "holds `admin`, which is for all controllers: leave `controller` out");
    }
    section.finish();
    Some(TlsClient { name: name?, by: uri.or(dns).or(print)?, controller, rights })
}

fn label(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty: give it a name".to_owned()),
        _ if text.len() > 128 || text.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err("is no name: 128 bytes at most, without spaces and control characters".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn uri(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        Some((scheme, rest)) if !scheme.is_empty() && !rest.is_empty() && text.is_ascii() => {
            Ok(text.to_owned())
        }
        _ => Err("is no URI: write it as it stands in the certificate, like spiffe://example.org/dashboard"
            .to_owned()),
    }
}

fn dns(text: &str) -> Result<String, String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(letters) {
        return Err(
            "is no DNS name: write it as it stands in the certificate, like dashboard.example.com".to_owned()
        );
    }
    Ok(text.to_ascii_lowercase())
}

fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.replace(':', ""), &mut bytes)
        .map_err(|_| "is no fingerprint: it is the SHA-256 of the certificate, 64 hex digits".to_owned())?;
    Ok(bytes)
}
