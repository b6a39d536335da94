//! Local files: configuration, secrets, keys, downloads.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use axum::{body::Body, response::Response};
use insta::assert_snapshot;
use quickcmd::wire::Reason;
use serde_json::json;
use tempfile::TempDir;

use crate::fake::{self, Answer, Fake, SECRET, quickcmd};

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// Runs with that configuration file, and hides the folder's random name.
async fn with_config(dir: &TempDir, text: &str, mode: u32, args: &[&str]) -> String {
    let path = dir.path().join("config.yaml");
    write(&path, text, mode);
    let mut command = quickcmd(args);
    command.env("QUICKCMD_CONFIG", &path);
    fake::run(command).await.report().replace(dir.path().to_str().expect("UTF-8"), "DIR")
}

#[tokio::test]
async fn what_is_missing_or_wrong_in_the_configuration_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let status = ["status", "job-1"];
    assert_snapshot!("config_no_url", with_config(&dir, "", 0o600, &status).await);
    assert_snapshot!("config_no_controller", with_config(&dir, "url: https://a:1", 0o600, &status).await);
    let text = "url: https://a:1\ncontroller_id: c";
    assert_snapshot!("config_no_secret", with_config(&dir, text, 0o600, &status).await);
    let text = format!("url: https://a:1\ncontroller_id: c\nsecret: {SECRET}");
    assert_snapshot!("config_open_to_everybody", with_config(&dir, &text, 0o644, &status).await);
    let report = with_config(&dir, &format!("secret: {SECRET}\nurll: x"), 0o600, &status).await;
    assert!(
        report.starts_with("exit: 78\n") && report.contains("urll") && report.contains("hint: "),
        "{report}"
    );
    assert!(!report.contains(SECRET), "{report}");
    let secret = dir.path().join("secret");
    write(&secret, SECRET, 0o604);
    let text = "url: https://a:1\ncontroller_id: c";
    let args = ["status", "job-1", "--secret-file", secret.to_str().expect("UTF-8")];
    assert_snapshot!("secret_open_to_everybody", with_config(&dir, text, 0o644, &args).await);
}

#[tokio::test]
async fn nothing_is_sent_to_another_machine_without_tls() {
    let agent = Fake::start(|_, _| fake::accepted()).await;
    // It would arrive, but it is not an address of loopback.
    let url = agent.url.replace("127.0.0.1", "0.0.0.0");
    for args in [&["submit", "--url", &url, "--", "ls"][..], &["health", "--url", &url]] {
        let ran = agent.run(args).await;
        let said = format!(
            "exit: 78\n--- stdout\n--- stderr\nerror: cannot use plain HTTP with {url}: what is sent to another \
             machine must be encrypted\nhint: use {} (--url, QUICKCMD_URL)\n",
            url.replace("http", "https")
        );
        assert_eq!(ran.report(), said);
    }
    assert!(agent.seen.lock().expect("no test thread panicked").is_empty());
}

#[tokio::test]
async fn flags_win_over_the_environment_and_that_over_the_file() {
    let agent = Fake::start(|_, _| fake::accepted()).await;
    let dir = tempfile::tempdir().expect("a folder");
    let (config, secret) = (dir.path().join("config.yaml"), dir.path().join("secret"));
    write(&secret, &format!("{SECRET}\n"), 0o600);
    let text = format!(
        "url: {}\ncontroller_id: of-file\nsecret_file: {}\nagent_id: agent-of-file\n",
        agent.url,
        secret.display()
    );
    write(&config, &text, 0o644);
    for (args, env, expected) in [
        (&["submit", "--", "ls"][..], None, "of-file"),
        (&["submit", "--", "ls"], Some("of-env"), "of-env"),
        (&["submit", "--controller-id", "of-flag", "--", "ls"], Some("of-env"), "of-flag"),
    ] {
        let mut command = quickcmd(args);
        command.env("QUICKCMD_CONFIG", &config).envs(env.map(|id| ("QUICKCMD_CONTROLLER_ID", id)));
        let ran = fake::run(command).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err());
        let payload = agent.asked("POST", "/api/v1/jobs").pop().expect("a job").payload();
        assert_eq!(
            (&payload["controller_id"], &payload["agent_id"]),
            (&json!(expected), &json!("agent-of-file"))
        );
    }
}

#[tokio::test]
async fn the_users_own_file_is_found() {
    let agent = Fake::start(|_, _| fake::json(200, &json!({ "status": "healthy" }))).await;
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join(".config/quickcmd");
    fs::create_dir_all(&dir).expect("a folder");
    write(&dir.join("config.yaml"), &format!("url: {}", agent.url), 0o644);
    let mut command = quickcmd(&["health"]);
    command.env("HOME", home.path());
    assert_eq!(fake::run(command).await.report(), "exit: 0\n--- stdout\nstatus  healthy\n--- stderr\n");
}

#[tokio::test]
async fn keys_are_fresh_private_and_never_overwritten() {
    let [one, two] = [&["gen-key"][..], &["agent", "gen-key"]].map(quickcmd);
    let (one, two) = (fake::run(one).await.out(), fake::run(two).await.out());
    assert!(one.trim_end().len() == 64 && one.trim_end().bytes().all(|b| b.is_ascii_hexdigit()), "{one}");
    assert_eq!(two.len(), one.len());
    assert_ne!(one, two);

    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("key");
    let args = ["gen-key", "--ed25519", "--json", "--out", path.to_str().expect("UTF-8")];
    let ran = fake::run(quickcmd(&args)).await;
    let said: serde_json::Value = serde_json::from_str(&ran.out()).expect("one object");
    let written = fs::read_to_string(&path).expect("the key");
    assert_eq!(fs::metadata(&path).expect("the key").permissions().mode() & 0o777, 0o600);
    let seed = hex::decode(written.trim().strip_prefix("ed25519:").expect("its form")).expect("hex");
    let key = quickcmd::wire::key::SigningKey::ed25519(&seed.try_into().expect("32 bytes"));
    assert_eq!(said["public_key"], hex::encode(key.public().expect("a pair")));
    assert!(!ran.out().contains(written.trim()));

    let again = fake::run(quickcmd(&args)).await;
    assert_eq!(again.code, Some(73), "{}", again.err());
    assert!(again.err().contains("never overwritten"), "{}", again.err());
    let lost = dir.path().join("not/there/key");
    let ran = fake::run(quickcmd(&["gen-key", "--out", lost.to_str().expect("UTF-8")])).await;
    let hint = format!("\nhint: make its folder first: mkdir -p {}/not/there\n", dir.path().display());
    assert!(ran.code == Some(73) && ran.err().ends_with(&hint), "{}", ran.report());
    assert_eq!(fs::read_to_string(&path).expect("the key"), written);
    // And it signs.
    let agent = Fake::start(|_, _| fake::accepted()).await;
    let mut command = agent.command(&["submit", "--secret-file", path.to_str().expect("UTF-8"), "--", "ls"]);
    command.env_remove("QUICKCMD_SECRET");
    assert_eq!(fake::run(command).await.code, Some(0));
    let body = agent.asked("POST", "/api/v1/jobs").remove(0).body;
    let envelope = quickcmd::wire::envelope::Envelope::parse(&body).expect("an envelope");
    let signature = hex::decode(&*envelope.signature.signature).expect("hex");
    assert_eq!(envelope.signature.algorithm, "Ed25519");
    assert!(key.verifying().verify(envelope.payload.as_bytes(), &signature));
}

/// Answers `Range` from those bytes; the first answer is cut in its middle.
fn download(seen: &fake::Seen, before: usize) -> Answer {
    const BYTES: &[u8] = b"0123456789\xff\x00";
    if seen.is("GET", "/api/v1/jobs/job-1") {
        return fake::json(200, &fake::status(Some(fake::result(BYTES, b"", 0, Reason::Exited))));
    }
    if before == 0 {
        let pieces = futures_util::stream::unfold(0, |step| async move {
            match step {
                0 => Some((Ok(axum::body::Bytes::from_static(&BYTES[..5])), 1)),
                _ => {
                    // Lets the first bytes out before the cut.
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    Some((Err(std::io::Error::other("cut")), 2))
                }
            }
        });
        let response = Response::builder().header("content-length", BYTES.len());
        return Answer::Http(response.body(Body::from_stream(pieces)).expect("an answer"));
    }
    let response = Response::builder().status(206).header("content-range", "bytes 5-11/12");
    Answer::Http(response.body(BYTES[5..].into()).expect("an answer"))
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_broke() {
    let agent = Fake::start(download).await;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("out");
    let ran = agent.run(&["output", "job-1", "--json", "-o", path.to_str().expect("UTF-8")]).await;
    assert_eq!(fs::read(&path).expect("the file"), b"0123456789\xff\x00", "{}", ran.err());
    assert_snapshot!("output_as_json", ran.report());

    let agent = Fake::start(download).await;
    let mut command = agent.command(&["output", "-o", "-", "job-1"]);
    command.current_dir(dir.path());
    let ran = fake::run(command).await;
    assert_eq!((ran.code, ran.stdout.as_slice()), (Some(0), &b"0123456789\xff\x00"[..]), "{}", ran.err());
    assert!(!dir.path().join("-").exists());
    let ran = agent.run(&["output", "-o", "-", "--json", "job-1"]).await;
    assert_eq!(ran.code, Some(64), "bytes and an object can't go the same way: {}", ran.err());

    let agent = Fake::start(|seen, before| download(seen, before + 1)).await;
    let ran = agent.run(&["output", "job-1"]).await;
    assert_eq!(ran.code, Some(65), "only the second half: {}", ran.err());
}
