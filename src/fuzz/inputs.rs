//! Targets that read from memory.

use std::os::unix::fs::PermissionsExt;

use quickcmd_init::proto::{self, Controls};

use crate::{
    config::Config,
    sandbox,
    store::jobs::Cursor,
    wire::{
        Payload,
        envelope::{self, Envelope},
        fields,
        httpsig::{Signed, Target},
        key::{Algorithm, SigningKey},
        payload::Cancel,
    },
};

/// The body of a submission, from anybody. What is found in it is signed again: the same bytes must come out.
pub fn envelope(data: &[u8]) {
    let Ok(read) = Envelope::parse(data) else { return };
    let inside = data.windows(read.payload.len().max(1)).any(|window| window == read.payload.as_bytes());
    assert!(inside, "the payload is not what stands in the body");
    let _ = Algorithm::parse(&read.signature.algorithm);
    let Ok(controller_id) = read.controller_id() else { return };
    let key = SigningKey::hmac(*b"a secret of the fuzzer's own").named("k");
    let body = envelope::sign(read.payload.as_bytes(), &key);
    let again = Envelope::parse(&body).expect("what was read can be signed");
    assert_eq!(again.payload, read.payload);
    assert_eq!(again.controller_id().expect("it had one"), controller_id);
    let signature = hex::decode(again.signature.signature.as_bytes()).expect("our own");
    assert!(key.verifying().verify(again.payload.as_bytes(), &signature));
}

/// A payload whose signature holds: of a job and of a cancellation. What is taken is taken again, as the store does.
pub fn payload(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(payload) = Payload::parse(text) {
        let written = serde_json::to_string(&payload).expect("a payload can be written");
        assert_eq!(Payload::parse(&written).expect("what was taken is taken again"), payload);
        assert!(!payload.program().is_empty() && !payload.program()[0].is_empty());
        let _ = (payload.command_text(), payload.risk_level(), payload.secrets().count());
    }
    if let Ok(map) = fields::object(text) {
        let _ = Cancel::from_map(map);
    }
}

/// What a hostile supervisor says to the agent over the channel. What it writes into the spool is [`super::spool`]'s.
pub fn supervisor(data: &[u8]) {
    if sandbox::greeting_of(data) {
        assert!(data.len() >= 4 + br#"{"version":1}"#.len());
    }
}

/// What a hostile agent says to the supervisor: the job, then stops, cut into pieces of a length that the data gives.
pub fn orders(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let mut rest = data;
    let Ok(body) = proto::read_message(&mut rest) else { return };
    if let Ok(job) = proto::job(&body) {
        let written = serde_json::to_vec(&job).expect("a job can be written");
        assert_eq!(proto::job(&written).expect("what was taken is taken again"), job);
    }
    let whole = stops(&[rest]);
    let pieces: Vec<&[u8]> = rest.chunks(usize::from(*cut).max(1)).collect();
    assert_eq!(stops(&pieces), whole, "the pieces of a stream must not matter");
}

/// Why the job is to stop, as far as the stream says it before it ends or goes wrong.
fn stops(pieces: &[&[u8]]) -> Vec<proto::Stop> {
    let mut controls = Controls::default();
    let mut stops = Vec::new();
    for piece in pieces {
        if controls.push(piece).is_err() {
            break;
        }
        while let Ok(Some(stop)) = controls.next_stop() {
            stops.push(stop);
        }
    }
    stops
}

/// Where a list goes on: a query's text, from anybody who may read.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(cursor) = Cursor::parse(text) {
        assert_eq!(cursor.to_string(), text);
    }
}

/// The two header fields that sign a read, a line each, and as a third the path.
pub fn httpsig(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (input, signature, path) = (line(), line(), line());
    let Ok(signed) = Signed::parse(input, signature) else { return };
    let path = if path.is_empty() { "/api/v1/jobs?limit=1" } else { path };
    let target = Target { method: "GET", scheme: "https", authority: "Agent:443", path_and_query: path };
    let covered = signed.check_coverage(&target);
    let _ = (signed.created(), signed.expires(), signed.keyid(), signed.alg());
    let field = |name: &str| (name == "host").then(|| "agent".to_owned());
    if let Ok(base) = signed.base(&target, field) {
        let last = base.lines().last().expect("a line at least");
        assert!(last.starts_with("\"@signature-params\": ("), "{base}");
        // Of no request but this one: method and target are lines of it.
        if covered.is_ok() {
            assert!(base.contains("\"@method\": GET\n"), "{base}");
        }
        let key = SigningKey::hmac(*b"a secret of the fuzzer's own");
        let holds = signed.verify(&target, field, &key.verifying());
        assert!(!holds.is_ok_and(|holds| holds), "nobody can sign for it");
    }
}

/// A configuration file. Every fault is said; what has none is described, and its secrets are not in it.
pub fn config(data: &[u8]) {
    thread_local! {
        static FOLDER: tempfile::TempDir = tempfile::tempdir().expect("a folder");
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("agent.yaml");
        std::fs::write(&path, data).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        match Config::load(&path, &|_| None) {
            Ok(config) => assert!(!config.describe().is_empty()),
            Err(faults) => assert!(!faults.to_string().is_empty()),
        }
    });
}
