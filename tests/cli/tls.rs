//! Whom it trusts.

use std::sync::Arc;

use quickcmd::wire::Status;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::fake::{self, Fake};

/// A certificate as the seed's openssl command makes it: self-signed, an authority, no alternative names.
fn self_signed() -> (rcgen::Certificate, rustls::ServerConfig) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, "quickcmd-agent");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(cert.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a pair");
    (cert, config)
}

async fn agent(config: rustls::ServerConfig) -> Fake {
    Fake::start_tls(config, |seen, _| match seen.method.as_str() {
        "POST" => fake::accepted(),
        _ if seen.is("GET", "/health") => fake::json(200, &json!({ "status": "healthy" })),
        _ => fake::frames(fake::job(&[("stdout", b"hi\n")], 0, quickcmd::wire::Reason::Exited), false),
    })
    .await
}

#[tokio::test]
async fn a_self_signed_agent_is_refused_with_the_way_out() {
    let (_, config) = self_signed();
    let agent = agent(config).await;
    let ran = agent.run(&["health"]).await;
    insta::assert_snapshot!("tls_unknown_issuer", ran.report().replace(&agent.url, "AGENT"));
    // Another agent's certificate does not help.
    let dir = tempfile::tempdir().expect("a folder");
    let other = dir.path().join("other.pem");
    std::fs::write(&other, self_signed().0.pem()).expect("a file");
    let ran = agent.run(&["health", "--ca", other.to_str().expect("UTF-8")]).await;
    assert_eq!(ran.code, Some(76), "{}", ran.report());
    assert!(ran.err().contains("hint: "), "{}", ran.err());
}

#[tokio::test]
async fn its_certificate_or_its_fingerprint_is_enough() {
    let (cert, config) = self_signed();
    let agent = agent(config).await;
    let dir = tempfile::tempdir().expect("a folder");
    let ca = dir.path().join("agent-cert.pem");
    std::fs::write(&ca, cert.pem()).expect("a file");
    let ca = ca.to_str().expect("UTF-8");
    // Submission over HTTP/2, then the stream over a WebSocket of its own: both trust it.
    let ran = agent.run(&["run", "--ca", ca, "--job-id", "job-1", "--", "echo hi"]).await;
    assert_eq!(ran.report(), "exit: 0\n--- stdout\nhi\n--- stderr\n");

    let fingerprint = hex::encode(Sha256::digest(cert.der()));
    let ran = agent.run(&["submit", "--fingerprint", &fingerprint, "--json", "--", "ls"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err());
    assert!(ran.out().contains(Status::Pending.as_str()));

    let ran = agent.run(&["health", "--fingerprint", &"00".repeat(32)]).await;
    assert_eq!(ran.code, Some(76));
    assert!(ran.err().contains("-fingerprint -sha256"), "{}", ran.err());

    let ran = agent.run(&["health", "--insecure"]).await;
    assert_eq!(ran.code, Some(0));
    assert!(ran.err().starts_with("warning: --insecure"), "{}", ran.err());
}

#[tokio::test]
async fn plain_http_to_a_port_for_tls_is_said_at_once() {
    let agent = agent(self_signed().1).await;
    let url = agent.url.replace("https", "http");
    let said = format!(
        "exit: 78\n--- stdout\n--- stderr\nerror: cannot use plain HTTP with {url}: that port speaks TLS\nhint: use {} \
         (--url, QUICKCMD_URL)\n",
        agent.url
    );
    // By HTTP, and by a WebSocket's handshake.
    for args in [&["health", "--url", &url][..], &["logs", "-f", "job-1", "--url", &url]] {
        assert_eq!(agent.run(args).await.report(), said, "{args:?}");
    }
}
