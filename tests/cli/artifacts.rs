//! Artifacts into a folder that is not empty: nothing goes over or through a link, and what is in the way is named.

use std::{fs, os::unix::fs::symlink};

use axum::response::Response;
use quickcmd::wire::{Reason, result::Artifact};
use sha2::{Digest, Sha256};

use crate::fake::{self, Answer, Fake};

const BYTES: &[u8] = b"fresh\n";

/// An agent whose job has left those files, all with the same bytes.
async fn agent(paths: &'static [&'static str]) -> Fake {
    Fake::start(move |seen, _| {
        if seen.is("GET", "/api/v1/jobs/job-1") {
            let mut result = fake::result(b"", b"", 0, Reason::Exited);
            result.artifacts = paths.iter().map(|path| kept(path)).collect();
            return fake::json(200, &fake::status(Some(result)));
        }
        assert!(seen.path_and_query.starts_with("/api/v1/jobs/job-1/artifacts/"), "{seen:?}");
        Answer::Http(Response::new(BYTES.into()))
    })
    .await
}

fn kept(path: &str) -> Artifact {
    Artifact {
        path: path.to_owned(),
        size: Some(BYTES.len() as u64),
        sha256: Some(hex::encode(Sha256::digest(BYTES))),
        mode: None,
        masked: false,
        refused: None,
        error: None,
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_named_and_no_link_is_written_through() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("outside")).expect("a folder");
    fs::write(at("outside/victim"), "old").expect("a file");
    fs::create_dir_all(at("got/folder")).expect("a folder");
    symlink(at("outside"), at("got/way")).expect("a link");
    symlink(at("outside/victim"), at("got/link")).expect("a link");
    symlink(at("outside/new"), at("got/dangling")).expect("a link");
    fs::write(at("got/file"), "old").expect("a file");

    let agent = agent(&["way/victim", "link", "dangling", "folder", "file/below", "file", "deep/new"]).await;
    let got = at("got");
    let ran = agent.run(&["artifacts", "job-1", "--to", got.to_str().expect("UTF-8")]).await;
    assert_eq!(ran.code, Some(73), "{}", ran.report());
    let warning = |path: &str, place: &str, what: &str| {
        format!("warning: cannot write artifact {path}: {}/{place} is {what}\n", got.display())
    };
    let link = "a symbolic link, and nothing is written over or through one";
    let wanted = [
        warning("way/victim", "way", link),
        warning("link", "link", link),
        warning("dangling", "dangling", link),
        warning("folder", "folder", "a folder, and the artifact is a file"),
        warning("file/below", "file", "a file, and a folder is needed there"),
        "error: not all artifacts of job job-1 are here\n".to_owned(),
        "hint: move away what is in the way, or fetch them into another folder: quickcmd artifacts job-1 --to FOLDER\n"
            .to_owned(),
    ];
    assert_eq!(ran.err(), wanted.concat());

    assert_eq!(fs::read(at("outside/victim")).expect("the file"), b"old");
    assert_eq!(fs::read_dir(at("outside")).expect("the folder").count(), 1);
    assert_eq!(fs::read(at("got/file")).expect("the file"), BYTES, "a file is replaced");
    assert_eq!(fs::read(at("got/deep/new")).expect("the file"), BYTES);
    for link in ["way", "link", "dangling"] {
        assert!(at("got").join(link).is_symlink(), "{link} stays");
    }
    let fetched = agent.seen.lock().expect("no test thread panicked").len() - 1;
    assert_eq!(fetched, 2, "what can't land is not fetched");
}

#[tokio::test]
async fn a_folder_that_is_none_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let agent = agent(&["a"]).await;
    for to in [file.clone(), file.join("below")] {
        let ran = agent.run(&["artifacts", "job-1", "--to", to.to_str().expect("UTF-8")]).await;
        let said =
            format!("error: cannot write into {}: {} is no folder\nhint: ", to.display(), file.display());
        assert!(ran.code == Some(73) && ran.err().starts_with(&said), "{}", ran.report());
    }
}

#[tokio::test]
async fn a_folder_for_artifacts_without_any_is_refused() {
    let agent = agent(&[]).await;
    for verb in [&["run"][..], &["submit", "--wait"]] {
        let ran = agent.run(&[verb, &["--artifacts-to", "got", "--", "true"]].concat()).await;
        assert_eq!(
            ran.report(),
            "exit: 64\n--- stdout\n--- stderr\n\
             error: --artifacts-to has nothing to fetch: no --artifact says what the agent is to keep\n\
             hint: name a file or a folder of the job: --artifact PATH\n"
        );
    }
    assert!(agent.seen.lock().expect("no test thread panicked").is_empty(), "nothing is sent");
}
