//! Connections: who may open one, how long it may stand still, and TLS.

use std::{net::TcpListener, sync::atomic::Ordering};

use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::metrics::ConnectionRefusal;

const SHORT: Duration = Duration::from_millis(300);

/// Sends these bytes and reads until the other end closes.
async fn told(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = end.expect("the other end closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request whose answer ends the connection.
const LIVE: &[u8] = b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn what_does_not_come_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (files, cert) = certificate(dir.path());
    let patient = open(ServerConfig { tls: Some(files.clone()), ..config() }, CALM);
    let limits = ServerConfig { header_timeout: SHORT, tls: Some(files), ..config() };
    let door = open(limits, CALM);
    let client = Arc::new(client(&cert));
    for start in [&b""[..], b"G", b"PRI", b"GET /live HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1"] {
        let stream = tls(door.at, client.clone()).await.unwrap();
        let answer = told(stream, start).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    until("every place is given back", || door.metrics.connections.get() == 0).await;
    door.stopped().await;
    assert!(told(tls(patient.at, client).await.unwrap(), LIVE).await.starts_with("HTTP/1.1 200"));
    patient.stopped().await;
}

/// The other side of the tests around this one: what is slower than their limits is served where there is time.
#[tokio::test]
async fn what_is_slow_but_within_its_time_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (files, cert) = certificate(dir.path());
    let secure = open(ServerConfig { tls: Some(files), ..config() }, CALM);
    let plain = open(config(), CALM);
    let slower = || tokio::time::sleep(SHORT * 2);
    let handshake = async {
        let socket = secure.tcp().await;
        slower().await;
        let connector = TlsConnector::from(Arc::new(client(&cert)));
        let stream = connector.connect("localhost".try_into().unwrap(), socket).await.unwrap();
        told(stream, LIVE).await
    };
    // The whole request in two pieces.
    let halves = async |request: &str, at: usize| {
        let mut socket = plain.tcp().await;
        socket.write_all(&request.as_bytes()[..at]).await.unwrap();
        slower().await;
        told(socket, &request.as_bytes()[at..]).await
    };
    let post =
        "POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let between = async {
        let mut socket = plain.tcp().await;
        socket.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        slower().await;
        let rest = told(socket, LIVE).await;
        rest[rest.find("HTTP/1.1").expect("a second answer")..].to_owned()
    };
    let (handshake, head, body, between) =
        tokio::join!(handshake, halves(post, 20), halves(post, post.len() - 1), between);
    for (answer, status) in [(handshake, 200), (head, 202), (body, 202), (between, 200)] {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    secure.stopped().await;
    plain.stopped().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = certificate(dir.path());
    let door = open(ServerConfig { handshake_timeout: SHORT, tls: Some(files), ..config() }, CALM);
    assert_eq!(told(door.tcp().await, b"\x16\x03\x01").await, "");
    told(door.tcp().await, b"GET / HTTP/1.1\r\n\r\n").await;
    until("both are counted", || door.metrics.connections_refused(ConnectionRefusal::Handshake) == 2).await;
    until("every place is given back", || door.metrics.connections.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed() {
    let door = open(ServerConfig { idle_timeout: SHORT, ..config() }, CALM);
    let start = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{";
    told(door.tcp().await, start).await;
    assert_eq!(door.fake.bodies.lock().unwrap().len(), 0);
    until("its place is given back", || door.metrics.connections.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn a_body_too_slow_or_too_large_gets_its_answer_over_the_wire() {
    let door = open(ServerConfig { body_timeout: SHORT, ..config() }, CALM);
    let slow = b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{";
    let answer = told(door.tcp().await, slow).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("REQUEST_TIMEOUT"), "{answer}");
    door.stopped().await;

    let door = open(config(), CALM);

    let head = |length: usize, more: &str| {
        format!(
            "POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
        )
    };
    let large = [head(3000, "").into_bytes(), vec![b'x'; 3000]].concat();
    let answer = told(door.tcp().await, &large).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("BODY_TOO_LARGE"), "{answer}");
    // Who asks first whether to send is told before it has sent anything.
    let answer = told(door.tcp().await, head(3000, "Expect: 100-continue\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let mut asks = door.tcp().await;
    asks.write_all(head(2, "Expect: 100-continue\r\n").as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    asks.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(told(asks, b"{}").await.starts_with("HTTP/1.1 202"));
    door.stopped().await;
}

#[tokio::test]
async fn connections_are_capped_by_address_and_in_all() {
    let door = open(ServerConfig { max_connections_per_address: 2, ..config() }, CALM);
    let (first, second) = (door.tcp().await, door.tcp().await);
    until("both are open", || door.metrics.connections.get() == 2).await;
    assert_eq!(told(door.tcp().await, b"").await, "");
    assert_eq!(door.metrics.connections_refused(ConnectionRefusal::Address), 1);
    drop(first);
    until("its place is given back", || door.metrics.connections.get() == 1).await;
    assert!(told(door.tcp().await, LIVE).await.starts_with("HTTP/1.1 200"));

    // The caps are the configuration's of the moment.
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let new = ServerConfig {
        max_connections_per_address: 1,
        max_connections: 2,
        rate_exempt: networks,
        ..config()
    };
    door.edge.reload(&new).unwrap();
    until("only one is left", || door.metrics.connections.get() == 1).await;
    let third = door.tcp().await;
    until("an exempt network has no cap of its own", || door.metrics.connections.get() == 2).await;
    told(door.tcp().await, b"").await;
    assert_eq!(door.metrics.connections_refused(ConnectionRefusal::Total), 1);
    drop((second, third));
    door.stopped().await;
}

#[tokio::test]
async fn http_2_is_not_spoken_unasked() {
    let door = open(config(), CALM);
    assert_eq!(told(door.tcp().await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await, "");
    door.stopped().await;
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let door = open(config(), CALM);
    let asked = async |version: &str, hosts: &str| {
        let request = format!("GET /live HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
        told(door.tcp().await, request.as_bytes()).await
    };
    for (version, hosts, wrong) in [
        ("1.1", "Host: agent.example.com:8443\r\n", ""),
        ("1.1", "host: [::1]:8443\r\n", ""),
        ("1.0", "", ""),
        ("1.1", "", "a request of HTTP/1.1 has a Host header"),
        ("1.1", "Host: one\r\nHost: two\r\n", "a request has one Host header"),
        ("1.0", "Host: one\r\nHost: two\r\n", "a request has one Host header"),
        ("1.1", "Host: one\r\nHost: one\r\n", "a request has one Host header"),
        ("1.1", "Host: who@one\r\n", "Host is a name or an address, and maybe a port"),
        ("1.1", "Host: a/b\r\n", "Host is a name or an address, and maybe a port"),
        ("1.1", "Host: \r\n", "Host is a name or an address, and maybe a port"),
    ] {
        let answer = asked(version, hosts).await;
        if wrong.is_empty() {
            assert!(answer.starts_with(&format!("HTTP/{version} 200")), "{hosts}: {answer}");
        } else {
            assert!(
                answer.starts_with(&format!("HTTP/{version} 400")) && answer.contains("INVALID_REQUEST"),
                "{hosts}: {answer}"
            );
            assert!(answer.contains(wrong), "{hosts}: {answer}");
        }
    }
    door.stopped().await;
}

#[tokio::test]
async fn a_head_may_have_64_kib_and_is_not_read_further() {
    let door = open(config(), CALM);
    let head = |bytes: usize| {
        let (start, end) =
            ("GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Much: ", "\r\n\r\n");
        format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
    };
    let answer = told(door.tcp().await, head(64 << 10).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // It goes on with the next byte, which nobody waits for.
    let answer = told(door.tcp().await, &head((64 << 10) + 1).as_bytes()[..64 << 10]).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = told(door.tcp().await, head(200_000).as_bytes()).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    door.stopped().await;
}

#[tokio::test]
async fn tls_is_1_2_or_1_3_with_http_1_1_and_sessions_are_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (files, cert) = certificate(dir.path());
    let door = open(ServerConfig { tls: Some(files), ..config() }, CALM);
    assert!(door.metrics.tls_certificate_expiry.get() > crate::base::clock::Timestamp::now().secs());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Arc::new(client);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = tls(door.at, client.clone()).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
            let suite = format!("{:?}", session.negotiated_cipher_suite().unwrap().suite());
            assert!(suite.contains("GCM") || suite.contains("POLY1305"), "{suite}");
            stream.write_all(LIVE).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{:?}", version.version);
        }
    }
    assert_eq!(rustls::version::TLS12.version, ProtocolVersion::TLSv1_2);
    door.stopped().await;
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (files, old) = certificate(dir.path());
    let config = ServerConfig { tls: Some(files.clone()), ..config() };
    let door = open(config.clone(), CALM);
    let trusts = async |cert: &rustls::pki_types::CertificateDer<'static>| {
        tls(door.at, Arc::new(client(cert))).await.is_ok()
    };
    let kept = tls(door.at, Arc::new(client(&old))).await.unwrap();
    let (_, new) = certificate(dir.path());
    assert!(trusts(&old).await, "files alone change nothing");
    door.edge.reload(&config).unwrap();
    assert!(trusts(&new).await && !trusts(&old).await);

    let good = std::fs::read(&files.key).unwrap();
    std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = door.edge.reload(&config).unwrap_err().to_string();
    assert!(error.contains("key.pem") && error.contains("cert.pem"), "{error}");
    std::fs::write(&files.key, "nothing").unwrap();
    let error = door.edge.reload(&config).unwrap_err().to_string();
    assert!(error.starts_with("tls_key_file ") && error.contains("key.pem"), "{error}");
    std::fs::write(&files.key, good).unwrap();
    std::fs::write(&files.cert, "").unwrap();
    let error = door.edge.reload(&config).unwrap_err().to_string();
    assert!(error.starts_with("tls_cert_file "), "{error}");
    assert!(trusts(&new).await, "the last good one stays");
    assert!(told(kept, LIVE).await.starts_with("HTTP/1.1 200"), "no connection was dropped");
    door.stopped().await;
}

#[tokio::test]
async fn what_can_be_wrong_is_said_before_anybody_is_served() {
    let error = |config| {
        let door = Door { jobs: Arc::new(Fake::default()), config, metrics: Metrics::new() };
        super::super::bind(door).err().expect("it can't be opened").to_string()
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let said = error(ServerConfig { listen, ..config() });
    assert!(said.starts_with(&format!("port {} on 127.0.0.1 is in use: ", listen.port())), "{said}");
    let said = error(ServerConfig { listen: "0.0.0.0:0".parse().unwrap(), ..config() });
    assert!(said.contains("on loopback only") && said.contains("tls_cert_file"), "{said}");
    let files = TlsFiles { cert: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
    let said = error(ServerConfig { tls: Some(files), ..config() });
    assert!(said.starts_with("tls_cert_file /nowhere/cert.pem: "), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = certificate(dir.path());
    // An address that no host has (RFC 5737).
    let listen = "192.0.2.77:0".parse().unwrap();
    let said = error(ServerConfig { listen, tls: Some(files), ..config() });
    assert!(said.starts_with("192.0.2.77 is no address of this host"), "{said}");
}

#[tokio::test]
async fn a_submission_ends_though_its_client_has_gone() {
    let door = open(config(), CALM);
    let mut client = door.tcp().await;
    client
        .write_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nwait")
        .await
        .unwrap();
    until("the service has it", || door.fake.waiting.load(Ordering::SeqCst) == 1).await;
    drop(client);
    until("the connection is gone", || door.metrics.connections.get() == 0).await;
    door.fake.go_on.notify_one();
    until("it ran to its end", || door.fake.waited.load(Ordering::SeqCst) == 1).await;
    door.stopped().await;
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_takes_no_new_ones() {
    let door = open(config(), CALM);
    let mut busy = door.tcp().await;
    busy.write_all(b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nwait")
        .await
        .unwrap();
    until("the service has it", || door.fake.waiting.load(Ordering::SeqCst) == 1).await;
    door.stop.cancel();
    let at = door.at;
    let start = Instant::now();
    while TcpStream::connect(at).await.is_ok() {
        assert!(start.elapsed() < PATIENCE, "the listener is still open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    door.fake.go_on.notify_one();
    let answer = told(busy, b"").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    door.stopped().await;
}
