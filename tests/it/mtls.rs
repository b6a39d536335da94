//! Client certificates on a real agent: who reads by one, what may come over whose connection, and `quickcmd` with one.

use std::{path::Path, process::Command};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use crate::harness::{
    Agent, CONTROLLER, PATIENCE, Setup, cancel, payload, sign, signal, until, write_private,
};

/// Signs certificates for clients, and writes them to `NAME.pem` and `NAME.key` of a folder.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("an authority").pem();
        Authority(Issuer::new(params, key), pem)
    }

    /// Gives the certificate's SHA-256.
    fn sign(&self, folder: &Path, name: &str, san: SanType) -> String {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names.push(san);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        std::fs::write(folder.join(format!("{name}.pem")), cert.pem()).expect("written");
        write_private(&folder.join(format!("{name}.key")), &key.serialize_pem());
        hex::encode(Sha256::digest(cert.der()))
    }
}

/// An HTTP client with that certificate.
fn with(agent: &Agent, name: &str) -> reqwest::Client {
    let read = |file: String| std::fs::read(agent.dir.path().join(file)).expect("a file");
    let mut identity = read(format!("{name}.key"));
    identity.extend(read(format!("{name}.pem")));
    let server = reqwest::Certificate::from_pem(&read("cert.pem".to_owned())).expect("a certificate");
    reqwest::Client::builder()
        .tls_certs_only([server])
        .identity(reqwest::Identity::from_pem(&identity).expect("an identity"))
        .timeout(PATIENCE)
        .build()
        .expect("a client")
}

async fn told(request: reqwest::RequestBuilder) -> (u16, String) {
    let answer = request.header("content-type", "application/json").send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

fn quickcmd(agent: &Agent, name: &str, arguments: &[&str]) -> (i32, String) {
    let file = |name: &str| agent.dir.path().join(name);
    let output = Command::new(env!("CARGO_BIN_EXE_quickcmd"))
        .args(["--url", &agent.url(""), "--ca"])
        .arg(file("cert.pem"))
        .arg("--client-cert")
        .arg(file(&format!("{name}.pem")))
        .arg("--client-key")
        .arg(file(&format!("{name}.key")))
        .args(arguments)
        .env_remove("QUICKCMD_SECRET")
        .env("HOME", agent.dir.path())
        .output()
        .expect("the program");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_read_operate_and_narrow_what_may_be_submitted() {
    let config = "tls:\n  client_ca: clients.pem\n  clients:\n\
                  \x20   - { name: board, uri: \"spiffe://example.org/board\", scopes: [read] }\n\
                  \x20   - { name: second, dns: second.example.com, controller: controller-2 }\n\
                  \x20   - { name: desk, dns: desk.example.com, scopes: [read, operate] }\n";
    let mut agent = Agent::prepare(&Setup { config: config.to_owned(), signed_reads: true });
    let authority = Authority::new();
    let folder = agent.dir.path();
    std::fs::write(folder.join("clients.pem"), &authority.1).expect("written");
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    authority.sign(folder, "board", SanType::URI("spiffe://example.org/board".try_into().expect("a URI")));
    authority.sign(folder, "second", dns("second.example.com"));
    authority.sign(folder, "desk", dns("desk.example.com"));
    agent.launch();
    agent.until_ready().await;

    let theirs = agent.submit("sleep 300").await;
    let (board, second, desk) = (with(&agent, "board"), with(&agent, "second"), with(&agent, "desk"));
    let status = agent.url(&format!("/api/v1/jobs/{theirs}"));
    assert_eq!(told(board.get(&status)).await.0, 200);
    assert_eq!(told(second.get(&status)).await, (404, "JOB_NOT_FOUND".to_owned()));
    assert_eq!(told(agent.http.get(&status)).await, (401, "UNAUTHENTICATED".to_owned()));

    // What is signed comes over a connection that may carry it, or not at all.
    let jobs = agent.url("/api/v1/jobs");
    let of = |controller: &str| sign(&payload("true", json!({"controller_id": controller})).to_string());
    assert_eq!(told(board.post(&jobs).body(of(CONTROLLER))).await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(told(second.post(&jobs).body(of(CONTROLLER))).await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(told(second.post(&jobs).body(of("controller-2"))).await.0, 202);
    let end = format!("{status}/cancel");
    assert_eq!(
        told(second.post(&end).body(cancel(&theirs, CONTROLLER))).await,
        (403, "FORBIDDEN".to_owned())
    );
    assert_eq!(told(second.post(&end)).await, (404, "JOB_NOT_FOUND".to_owned()), "not its own");
    assert_eq!(told(second.post(agent.url("/api/v1/drain"))).await, (403, "FORBIDDEN".to_owned()));
    assert_eq!(told(board.post(&end)).await.0, 400, "it holds no right to operate: this is no envelope");

    let (code, said) = quickcmd(&agent, "board", &["status", &theirs]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&theirs), "{said}");
    let (code, said) = quickcmd(&agent, "desk", &["cancel", "--reason", "enough", &theirs]);
    assert_eq!(code, 0, "{said}");
    until("it has ended", PATIENCE, async || {
        let answer = desk.get(&status).send().await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")["reason"] == "cancelled"
    })
    .await;
    let by: String = agent
        .db()
        .query_row("SELECT cancel_by FROM jobs WHERE job_id = ?", [&theirs], |row| row.get(0))
        .expect("a row");
    assert_eq!(by, "certificate:desk");
    agent.no_container_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_certificate_is_revoked_and_the_next_of_that_name_is_not() {
    let config = "tls:\n  client_ca: clients.pem\n  client_auth: required\n  clients:\n\
                  \x20   - { name: board, dns: board.example.com, scopes: [read] }\n";
    let mut agent = Agent::prepare(&Setup { config: config.to_owned(), signed_reads: true });
    let authority = Authority::new();
    let folder = agent.dir.path().to_owned();
    std::fs::write(folder.join("clients.pem"), &authority.1).expect("written");
    let board = || SanType::DnsName("board.example.com".try_into().expect("a name"));
    let lost = authority.sign(&folder, "lost", board());
    let kept = authority.sign(&folder, "kept", board());
    assert_ne!(lost, kept);
    // Nobody is ready to be asked without a certificate.
    agent.http = with(&agent, "kept");
    agent.launch();
    agent.until_ready().await;

    // Both of its connections stay open.
    let (old, new) = (with(&agent, "lost"), with(&agent, "kept"));
    let list = agent.url("/api/v1/jobs");
    assert_eq!((told(old.get(&list)).await.0, told(new.get(&list)).await.0), (200, 200));

    let file = folder.join("agent.yaml");
    let before = std::fs::read_to_string(&file).expect("a configuration");
    write_private(&file, &format!("{before}  revoked: [\"{lost}\"]\n"));
    signal(agent.pid(), Signal::SIGHUP);
    until("it is revoked", PATIENCE, async || told(old.get(&list)).await.0 == 403).await;
    assert_eq!(told(with(&agent, "lost").get(&list)).await, (403, "FORBIDDEN".to_owned()), "nor anew");
    assert_eq!(told(new.get(&list)).await.0, 200, "the other of that name");

    // What is taken back counts again; a reload that fails leaves what there was.
    write_private(&file, &format!("{before}  revoked: [\"{}\"]\n", &lost[2..]));
    signal(agent.pid(), Signal::SIGHUP);
    until("it says so", PATIENCE, async || agent.log().contains("configuration not reloaded")).await;
    assert_eq!(told(with(&agent, "lost").get(&list)).await.0, 403);
    write_private(&file, &before);
    signal(agent.pid(), Signal::SIGHUP);
    until("it counts again", PATIENCE, async || told(with(&agent, "lost").get(&list)).await.0 == 200).await;
}
