//! Files that a job brings, and files that it leaves.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};
use quickcmd_init::proto::{Artifact, Collect, Ending, FileIn, Job, Refusal, Stop};
use quickcmd_init::spool::{HEADER, Kind, MAX_BODY, MAX_RECORD};

use crate::harness::{Outcome, Sandbox, exited, sh};
use crate::hostile::open_folder;

fn file(path: impl AsRef<Path>, mode: u32, bytes: &[u8]) -> FileIn {
    FileIn { path: path.as_ref().to_str().unwrap().to_owned(), mode, len: bytes.len() as u64 }
}

fn run_fed(job: &Job, bytes: &[u8]) -> Outcome {
    let mut sandbox = Sandbox::start();
    sandbox.send(job, b"in");
    sandbox.feed(bytes);
    sandbox.end()
}

fn collecting(script: &str, folder: &Path, paths: &[&str]) -> Job {
    let mut job = sh(script);
    job.workdir = folder.to_str().unwrap().to_owned();
    job.artifacts = Some(Collect {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        max_files: 20,
        max_file_size: 1 << 20,
        max_total_size: 3 << 20,
    });
    job
}

fn kept(outcome: &Outcome) -> Vec<&str> {
    let paths = outcome.report.artifacts.iter().filter_map(|artifact| match artifact {
        Artifact::Kept { path, .. } => Some(path.as_str()),
        Artifact::Refused { .. } => None,
    });
    paths.collect()
}

#[test]
fn files_are_there_before_the_start_with_their_modes() {
    let folder = open_folder();
    let at = |name: &str| folder.path().join(name);
    let large = vec![7; 300_000];
    let mut job = sh("cat; ./run.sh; cat deep/er/large | wc -c; stat -c %a run.sh deep/er/large empty deep");
    job.workdir = folder.path().to_str().unwrap().to_owned();
    let script = b"#!/bin/sh\necho ran\n";
    job.files = vec![
        file("run.sh", 0o755, script),
        file(at("deep/er/large"), 0o400, &large),
        file("empty", 0o644, b""),
    ];
    let outcome = run_fed(&job, &[script, &large[..]].concat());
    assert_eq!(outcome.stdout(), "inran\n300000\n755\n400\n644\n755\n", "{}", outcome.stderr());
    assert_eq!(outcome.report.ending, exited(0));
}

#[test]
fn what_can_not_be_placed_keeps_the_job_from_starting() {
    let folder = open_folder();
    std::os::unix::fs::symlink("/tmp", folder.path().join("link")).unwrap();
    std::fs::write(folder.path().join("there"), "mine").unwrap();
    for (path, word) in [
        ("link/x", "symbolic link"),
        ("there", "exists"),
        ("there/x", "or a file"),
        ("/proc/sys/x", "can't place"),
        ("/etc/quickcmd-x", "can be written"),
    ] {
        let mut job = sh("echo ran");
        job.workdir = folder.path().to_str().unwrap().to_owned();
        job.files = vec![file(path, 0o644, b"abc"), file("second", 0o644, b"defg")];
        let outcome = run_fed(&job, b"abcdefg");
        let Ending::NotStarted { code: 126, error, sandbox: false } = &outcome.report.ending else {
            panic!("{path}: {:?}", outcome.report.ending);
        };
        assert!(error.contains(word) && error.contains(path), "{error}");
        assert_eq!(outcome.stdout(), "");
        assert!(!folder.path().join("second").exists(), "nothing after the first that failed");
    }
    assert_eq!(std::fs::read(folder.path().join("there")).unwrap(), b"mine");
}

#[test]
fn files_and_folders_are_kept_as_they_are() {
    let folder = open_folder();
    let absolute = folder.path().join("abs");
    let script = "echo hello >one; chmod 755 one; mkdir -p out/sub; printf '\\0\\377' >out/sub/raw; : >out/empty; \
                  head -c 1000000 /dev/urandom >out/big; echo a >abs; sha256sum out/big; exit 3";
    let job = collecting(script, folder.path(), &["one", "out", absolute.to_str().unwrap(), "none"]);
    let outcome = run_fed(&job, b"");
    assert_eq!(outcome.report.ending, exited(3));
    assert_eq!(outcome.kept("one").unwrap(), b"hello\n");
    assert_eq!(outcome.kept("out/sub/raw").unwrap(), b"\0\xff");
    assert_eq!(outcome.kept("out/empty").unwrap(), b"");
    assert_eq!(outcome.kept("out/big").unwrap().len(), 1_000_000);
    assert_eq!(outcome.kept(absolute.to_str().unwrap()).unwrap(), b"a\n");
    assert_eq!(outcome.refused("none"), Some(Refusal::Missing));
    assert_eq!(kept(&outcome), ["one", "out/big", "out/empty", "out/sub/raw", absolute.to_str().unwrap()]);
    let sum = outcome.report.artifacts.iter().find_map(|artifact| match artifact {
        Artifact::Kept { path, sha256, .. } if path == "out/big" => Some(sha256.clone()),
        _ => None,
    });
    assert!(outcome.stdout().starts_with(&sum.unwrap()));
    assert!(outcome.report.artifacts.iter().any(
        |artifact| matches!(artifact, Artifact::Kept { path, mode: 0o755, masked: false, .. } if path == "one")
    ));
}

#[test]
fn tricks_are_refused_one_by_one() {
    let folder = open_folder();
    std::fs::create_dir(folder.path().join("start")).unwrap();
    let script = "ln -s /etc/passwd link; mkdir out; ln -s / out/root; ln -s ../one out/rel; echo 1 >one; \
                  ln one hard; mkfifo out/pipe; truncate -s 100G sparse; head -c 1048577 /dev/zero >large; \
                  ln -s out via; echo x >secret; chmod 000 secret; mkdir out/locked; echo x >out/locked/x; \
                  chmod 000 out/locked; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local=>\"sock\",Listen=>1)'; \
                  printf x >\"out/new\nline\"; printf x >out/$(printf '\\377')";
    let paths = [
        "link",
        "out",
        "hard",
        "sparse",
        "large",
        "via/pipe",
        "secret",
        "sock",
        "/proc/1/environ",
        "/dev/null",
        "one/x",
        "/sys/kernel/uevent_seqnum",
        "/proc",
    ];
    let outcome = run_fed(&collecting(script, folder.path(), &paths), b"");
    assert_eq!(outcome.report.ending, exited(0), "{}", outcome.stderr());
    for (path, why) in [
        ("link", Refusal::Symlink),
        ("out/root", Refusal::Symlink),
        ("out/rel", Refusal::Symlink),
        ("out/pipe", Refusal::NotAFile),
        ("out/locked", Refusal::Unreadable),
        ("hard", Refusal::HardLink),
        ("sparse", Refusal::TooLarge),
        ("large", Refusal::TooLarge),
        ("via/pipe", Refusal::Symlink),
        ("secret", Refusal::Unreadable),
        ("sock", Refusal::NotAFile),
        ("/dev/null", Refusal::NotAFile),
        ("one/x", Refusal::Missing),
        ("/sys/kernel/uevent_seqnum", Refusal::NotAFile),
        ("/proc", Refusal::NotAFile),
        ("out/new\u{fffd}line", Refusal::BadName),
        ("out/\u{fffd}", Refusal::BadName),
    ] {
        assert_eq!(outcome.refused(path), Some(why), "{path}: {:?}", outcome.report.artifacts);
    }
    assert!(outcome.refused("/proc/1/environ").is_some());
    assert_eq!(kept(&outcome), [""; 0]);
    assert!(outcome.records.iter().all(|(header, _)| header.kind != Kind::Artifact), "no byte of them");
}

#[test]
fn a_start_folder_that_was_swapped_is_still_the_old_one() {
    let folder = open_folder();
    let start = folder.path().join("start");
    std::fs::create_dir(&start).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&start, mode).unwrap();
    let outcome = run_fed(
        &collecting(
            "echo mine >file; cd ..; mv start old && ln -s /etc start",
            &start,
            &["file", "hostname"],
        ),
        b"",
    );
    assert_eq!(outcome.kept("file").unwrap(), b"mine\n", "{:?} {}", outcome.report, outcome.stderr());
    assert_eq!(outcome.refused("hostname"), Some(Refusal::Missing));
}

#[test]
fn counts_and_sizes_are_capped() {
    let folder = open_folder();
    let script = "mkdir many; for i in $(seq 100 210); do echo $i >many/$i; done; \
                  for i in 1 2 3 4; do head -c 1000000 /dev/zero >big$i; done";
    let outcome = run_fed(&collecting(script, folder.path(), &["big1", "big2", "big3", "big4", "many"]), b"");
    assert_eq!(outcome.refused("big4"), Some(Refusal::TotalTooLarge));
    assert_eq!(kept(&outcome).len(), 20, "three large ones and seventeen small ones");
    assert_eq!(outcome.refused("many/150"), Some(Refusal::TooMany));
    // 111 files, of which 17 are kept and 64 named.
    let last = outcome.report.artifacts.last().unwrap();
    assert!(
        matches!(last, Artifact::Refused { path, why: Refusal::TooMany, error }
            if path == "many" && error.starts_with("30 more")),
        "{last:?}"
    );
}

#[test]
fn secret_values_are_masked_in_what_is_kept() {
    let folder = open_folder();
    let script = "printf 'a s3cr3t-value b' >out.txt; printf x >s3cr3t-value; echo plain >plain";
    let mut job = collecting(script, folder.path(), &["out.txt", "plain", "."]);
    job.secrets = vec!["s3cr3t-value".to_owned()];
    job.artifacts.as_mut().unwrap().paths =
        vec!["out.txt".to_owned(), "plain".to_owned(), folder.path().to_str().unwrap().to_owned()];
    let outcome = run_fed(&job, b"");
    assert_eq!(outcome.kept("out.txt").unwrap(), b"a [REDACTED] b");
    let masked: Vec<bool> = outcome
        .report
        .artifacts
        .iter()
        .filter_map(|artifact| match artifact {
            Artifact::Kept { masked, .. } => Some(*masked),
            Artifact::Refused { .. } => None,
        })
        .collect();
    assert_eq!(masked[..2], [true, false]);
    let report = serde_json::to_string(&outcome.report).unwrap();
    assert!(!report.contains("s3cr3t") && report.contains("/[REDACTED]"), "{report}");
}

#[test]
fn a_job_that_was_ended_leaves_its_files_too() {
    let folder = open_folder();
    let mut job = collecting("echo begun >log; sleep 1000", folder.path(), &["log"]);
    job.timeout_ms = 500;
    let outcome = run_fed(&job, b"");
    assert_eq!(outcome.kept("log").unwrap(), b"begun\n");
    let mut job = collecting("", folder.path(), &["log"]);
    job.argv = vec!["no-such-program".to_owned()];
    assert_eq!(run_fed(&job, b"").refused("log"), Some(Refusal::Missing));
}

#[test]
fn what_is_masked_counts_as_it_is_kept() {
    let folder = open_folder();
    // Five bytes become eleven: the large one is too large then. What was copied of it counts, and with three of the
    // others there is place for a fourth only as it was.
    let script = "for n in 1 2 3 4; do yes abcd. | head -n 90000 | tr -d '\\n' >$n; done; \
                  yes abcd. | head -n 100000 | tr -d '\\n' >large; echo plain >plain";
    let mut job = collecting(script, folder.path(), &["large", "1", "2", "3", "4", "plain"]);
    job.secrets = vec!["abcd".to_owned()];
    job.artifacts.as_mut().unwrap().max_total_size = 4_500_000;
    let outcome = run_fed(&job, b"");
    assert_eq!(outcome.report.ending, exited(0), "{}", outcome.stderr());
    assert_eq!(outcome.refused("large"), Some(Refusal::TooLarge), "{:?}", outcome.report.artifacts);
    assert_eq!(outcome.kept("1").unwrap(), "[REDACTED].".repeat(90_000).into_bytes());
    assert_eq!(outcome.refused("4"), Some(Refusal::TotalTooLarge));
    let kept = outcome.bytes(Kind::Artifact);
    assert!(kept.len() <= 4_500_000, "{} bytes in the spool", kept.len());
}

#[test]
fn a_job_whose_files_are_kept_has_place_for_the_longest_report() {
    let folder = open_folder();
    let sample = tempfile::tempfile().unwrap();
    if fallocate(&sample, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 4096).is_err() {
        println!("nothing can be claimed on this file system");
        return;
    }
    for lists in [true, false] {
        let mut job = collecting("echo up; while [ ! -e go ]; do sleep 0.05; done", folder.path(), &["none"]);
        if !lists {
            job.artifacts = None;
        }
        let mut sandbox = Sandbox::start();
        sandbox.send(&job, b"");
        sandbox.wait_for_output("up");
        let claimed = std::fs::metadata(sandbox.spool_path()).unwrap().blocks() * 512;
        assert_eq!(claimed > MAX_RECORD as u64, lists, "{claimed} bytes");
        std::fs::write(folder.path().join("go"), "").unwrap();
        assert_eq!(sandbox.end().report.ending, exited(0));
        std::fs::remove_file(folder.path().join("go")).unwrap();
    }
}

/// Whoever cancels waits for the report, and the agent gives up the sandbox if it does not come.
#[test]
fn a_stop_while_files_are_copied_is_heard() {
    const RECORDS: usize = 120;
    let folder = open_folder();
    let script = format!("head -c {} /dev/zero >large", RECORDS * MAX_BODY);
    let mut job = collecting(&script, folder.path(), &["large"]);
    let caps = job.artifacts.as_mut().unwrap();
    (caps.max_file_size, caps.max_total_size) = (1 << 30, 1 << 30);
    // A spool that takes ten records a second, so that the whole file would take twelve.
    let (spool, write) = nix::unistd::pipe().unwrap();
    let mut sandbox = Sandbox::start();
    sandbox.send_with(&job, b"", &File::from(write));
    let (mut spool, mut bytes) = (File::from(spool), Vec::new());
    let mut piece = vec![0; HEADER + MAX_BODY];
    loop {
        let n = spool.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        if bytes.len() <= MAX_BODY && bytes.len() + n > MAX_BODY {
            sandbox.stop(Stop::Cancelled);
        }
        bytes.extend_from_slice(&piece[..n]);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(sandbox.wait_exit());
    let outcome = Outcome::read(&bytes);
    assert_eq!(outcome.refused("large"), Some(Refusal::OutOfTime), "{:?}", outcome.report);
    assert_eq!((&outcome.report.ending, outcome.report.stopped), (&exited(0), None), "it had its own end");
}
