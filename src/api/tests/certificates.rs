//! Client certificates over real TLS: who is let in, who is who, and what a reload changes.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    config::{ClientTls, TlsClient, TlsName},
    wire::rights::Rights,
};

/// An authority, and what it signs.
struct Authority {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().clone();
        Authority { der, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, dns: &[&str], uris: &[&str]) -> Identity {
        let names: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (cert, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn clients(&self, required: bool, clients: Vec<TlsClient>) -> ClientTls {
        let fingerprint = Sha256::digest(&self.der).into();
        ClientTls {
            ca: "clients.pem".into(),
            roots: vec![self.der.clone()],
            fingerprint,
            required,
            clients,
            revoked: Vec::new(),
        }
    }
}

fn known(name: &str, by: TlsName, controller: Option<&str>, rights: &str) -> TlsClient {
    TlsClient {
        name: name.to_owned(),
        by,
        controller: controller.map(str::to_owned),
        rights: Rights::parse(rights).unwrap(),
    }
}

/// One request on a connection of its own; the whole answer, or why there is none.
async fn ask(
    door: &Served,
    trusted: &CertificateDer<'static>,
    who: Option<&Identity>,
    request: &str,
) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let client = match who {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder.with_client_auth_cert(vec![cert.clone()], key.clone_key()).unwrap(),
    };
    let Ok(mut stream) = tls(door.at, Arc::new(client)).await else { return "no connection".to_owned() };
    said(&mut stream, &format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")).await
}

async fn said(stream: &mut TlsStream<TcpStream>, head: &str) -> String {
    // The other end may close before it has read everything: what it says of that counts.
    let _ = stream.write_all(format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it closes");
    match (read, answer.is_empty()) {
        (Err(_) | Ok(_), true) => "no answer".to_owned(),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

const STATUS: &str = "GET /api/v1/jobs/job-1";
const DRAIN: &str = "POST /api/v1/drain";
const CANCEL: &str = "POST /api/v1/jobs/job-1/cancel";
const SUBMIT: &str = "POST /api/v1/jobs";

/// Who the last read came from, as the gate gets to know it.
fn seen(door: &Served) -> Option<String> {
    door.fake.reads.lock().unwrap().last().and_then(|read| read.certificate.clone()).map(|holder| holder.name)
}

#[tokio::test]
async fn a_certificate_says_who_it_is_by_its_names_or_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let (files, server) = certificate(dir.path());
    let (ours, other) = (Authority::new(), Authority::new());
    let by_uri = ours.sign(&[], &["spiffe://example.org/board"]);
    let by_dns = ours.sign(&["Build.example.com"], &[]);
    let by_hash = ours.sign(&["build.example.com"], &[]);
    let nobody = ours.sign(&["elsewhere.example.com"], &[]);
    let hash = Sha256::digest(&by_hash.0).into();
    let clients = ours.clients(
        false,
        vec![
            known("board", TlsName::Uri("spiffe://example.org/board".to_owned()), None, "read"),
            known("build", TlsName::Dns("build.example.com".to_owned()), Some("one"), "submit read operate"),
            known("exact", TlsName::Fingerprint(hash), None, "operate"),
        ],
    );
    let door = open(ServerConfig { tls: Some(files), client_tls: Some(clients), ..config() }, CALM);
    for (who, name) in [
        (Some(&by_uri), Some("certificate:board")),
        (Some(&by_dns), Some("certificate:build")),
        (Some(&by_hash), Some("certificate:exact")),
        (Some(&nobody), None),
        (None, None),
    ] {
        let answer = ask(&door, &server, who, STATUS).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(seen(&door).as_deref(), name);
    }
    // One of another authority is not let in at all.
    let stranger = other.sign(&["build.example.com"], &[]);
    let answer = ask(&door, &server, Some(&stranger), STATUS).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Who holds operate needs no signature, and may bring one.
    assert!(ask(&door, &server, Some(&by_dns), DRAIN).await.starts_with("HTTP/1.1 200"));
    assert!(ask(&door, &server, Some(&by_dns), CANCEL).await.starts_with("HTTP/1.1 202"));
    assert_eq!(door.fake.operated.lock().unwrap().len(), 2);
    assert!(ask(&door, &server, Some(&by_uri), CANCEL).await.starts_with("HTTP/1.1 202"), "as signed");
    assert_eq!(door.fake.operated.lock().unwrap().len(), 2);
    assert!(ask(&door, &server, Some(&by_uri), SUBMIT).await.starts_with("HTTP/1.1 202"), "the gate judges");
    door.stopped().await;
}

#[tokio::test]
async fn where_one_is_required_nobody_comes_without_and_a_reload_counts_for_open_connections() {
    let dir = tempfile::tempdir().unwrap();
    let (files, server) = certificate(dir.path());
    let (ours, next) = (Authority::new(), Authority::new());
    let who = ours.sign(&["build.example.com"], &[]);
    let build = known("build", TlsName::Dns("build.example.com".to_owned()), Some("one"), "read");
    let free = ServerConfig { tls: Some(files), ..config() };
    let required = |authority: &Authority, clients| ServerConfig {
        client_tls: Some(authority.clients(true, clients)),
        ..free.clone()
    };
    let door = open(required(&ours, vec![build.clone()]), CALM);
    let without = ask(&door, &server, None, STATUS).await;
    assert!(!without.contains("200 OK"), "{without}");
    assert!(ask(&door, &server, Some(&who), STATUS).await.starts_with("HTTP/1.1 200"));
    // Signed by our authority, and still nobody that we know.
    let nobody = ours.sign(&["elsewhere.example.com"], &[]);
    let answer = ask(&door, &server, Some(&nobody), STATUS).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("none of those that the agent knows"),
        "{answer}"
    );
    let monitor = ask(&door, &server, Some(&nobody), "GET /live").await;
    assert!(monitor.starts_with("HTTP/1.1 200"), "{monitor}");

    // A connection that was made before the authorities changed.
    let roots = {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(server.clone()).unwrap();
        roots
    };
    let client =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![who.0.clone()], who.1.clone_key())
            .unwrap();
    let mut kept = tls(door.at, Arc::new(client)).await.unwrap();
    kept.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    kept.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    door.edge.reload(&required(&next, vec![build])).unwrap();
    let answer = said(&mut kept, &format!("{STATUS} HTTP/1.1\r\nHost: localhost\r\n")).await;
    assert!(answer.contains("HTTP/1.1 403") && answer.contains("connect anew"), "{answer}");
    assert!(!ask(&door, &server, Some(&who), STATUS).await.contains("200 OK"), "its authority is gone");
    let new = next.sign(&["build.example.com"], &[]);
    assert!(ask(&door, &server, Some(&new), STATUS).await.starts_with("HTTP/1.1 200"));
    door.edge.reload(&free).unwrap();
    assert!(
        ask(&door, &server, None, STATUS).await.starts_with("HTTP/1.1 200"),
        "none is asked for any more"
    );
    door.stopped().await;
}
