//! What a job prints, byte for byte.

use std::fs::OpenOptions;

use quickcmd_init::spool::{Kind, MAX_BODY};

use crate::harness::{Outcome, Sandbox, exited, job, run, run_with, sh, until};

#[test]
fn the_streams_are_told_apart_and_keep_their_order() {
    let outcome = run(&sh("for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"));
    let expect = |name: &str| (1..=9).map(|i| format!("{name} {i}\n")).collect::<String>();
    assert_eq!(outcome.stdout(), expect("out"));
    assert_eq!(outcome.stderr(), expect("err"));
}

#[test]
fn output_is_there_while_the_job_runs() {
    let mut sandbox = Sandbox::start();
    // No line end: what is only a part of a line comes at once as well.
    sandbox.send(&sh("printf 'Continue? '; sleep 1000"), &[]);
    sandbox.wait_for_output("Continue? ");
    sandbox.stop(quickcmd_init::proto::Stop::Cancelled);
    sandbox.end();
}

#[test]
fn any_bytes_arrive_exactly() {
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let outcome = run_with(&sh("cat; cat /dev/null >&2"), &all);
    assert!(outcome.bytes(Kind::Stdout) == all);
    let outcome = run(&sh(r"printf 'QCR1\000\377\033[2J\r\n'"));
    assert_eq!(outcome.bytes(Kind::Stdout), b"QCR1\0\xff\x1b[2J\r\n");
}

#[test]
fn a_character_is_in_one_frame_though_it_was_written_in_two() {
    let outcome = run(&sh(r"printf 'a\342'; sleep 0.1; printf '\202'; sleep 0.1; printf '\254b'"));
    assert_eq!(outcome.stdout(), "a\u{20ac}b");
    assert!(outcome.records.iter().all(|r| !r.0.binary));
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let text = "x\u{20ac}".repeat(200_000);
    let outcome = run_with(&job(&["cat"]), text.as_bytes());
    assert!(outcome.stdout() == text);
    assert!(outcome.records.iter().all(|r| !r.0.binary));
    assert!(outcome.records.len() < 800_000 / (MAX_BODY / 2), "{} records", outcome.records.len());
}

#[test]
fn half_a_character_at_the_end_is_not_lost() {
    let outcome = run(&sh(r"printf 'a\342\202'"));
    assert_eq!(outcome.bytes(Kind::Stdout), b"a\xe2\x82");
}

#[test]
fn a_limit_is_a_limit_and_the_rest_is_counted() {
    let mut job = sh("yes | head -c 500000; yes no | head -c 3000 >&2; echo $? >&2");
    job.output_limit = 100_001;
    let outcome = run(&job);
    assert_eq!(outcome.report.ending, exited(0));
    assert_eq!(outcome.report.stopped, None);
    assert_eq!((outcome.report.stdout.bytes, outcome.report.stdout.dropped), (100_001, 399_999));
    assert_eq!((outcome.report.stderr.bytes, outcome.report.stderr.dropped), (3002, 0));
    assert_eq!(outcome.words(), ["stdout: output limit of 100001 bytes reached, 399999 bytes dropped"]);
    let last = outcome.records.len();
    assert_eq!(outcome.records[last - 2].0.kind, Kind::System);
}

#[test]
fn exactly_the_limit_is_not_over_it() {
    let mut job = sh("printf 12345");
    job.output_limit = 5;
    let outcome = run(&job);
    assert_eq!(outcome.stdout(), "12345");
    assert_eq!(outcome.words(), [""; 0]);
    job.output_limit = 4;
    let outcome = run(&job);
    assert_eq!(outcome.stdout(), "1234");
    assert_eq!(outcome.words(), ["stdout: output limit of 4 bytes reached, 1 bytes dropped"]);
    job.output_limit = 0;
    assert_eq!(run(&job).report.stdout.dropped, 5);
}

#[test]
fn a_character_that_crosses_the_limit_is_dropped_whole() {
    let mut job = sh(r"printf 'ab\342\202\254c'");
    for (limit, kept) in [(2, 2), (3, 2), (4, 2), (5, 5)] {
        job.output_limit = limit;
        let outcome = run(&job);
        assert_eq!(
            (outcome.report.stdout.bytes, outcome.report.stdout.dropped),
            (kept, 6 - kept),
            "limit {limit}"
        );
        assert!(outcome.records.iter().all(|r| !r.0.binary));
    }
}

#[test]
fn byte_by_byte_makes_no_record_of_each() {
    let outcome = run(&job(&["perl", "-e", "$| = 1; print 'x' for 1..20000"]));
    assert_eq!(outcome.stdout().len(), 20_000);
    let records = outcome.records.len();
    assert!(records < 2_000, "{records} records");
}

#[test]
fn much_output_needs_no_memory() {
    let bytes: u64 = 200 << 20;
    let mut sandbox = Sandbox::start();
    sandbox.send(
        &sh(&format!("echo begun >&2; yes 0123456789abcde | head -c {bytes}; echo end >&2; sleep 1000")),
        &[],
    );
    sandbox.wait_for(Kind::Stderr, "end");
    let peak = sandbox.peak_memory().unwrap();
    sandbox.stop(quickcmd_init::proto::Stop::Cancelled);
    let outcome = sandbox.end();
    assert_eq!(outcome.report.stdout.bytes, bytes);
    assert_eq!(outcome.stderr(), "begun\nend\n");
    assert!(peak < 16 << 20, "{peak} bytes of memory");
    // Large output makes large records.
    assert!(outcome.records.len() < 40_000, "{} records", outcome.records.len());
}

#[test]
fn a_spool_that_takes_nothing_does_not_harm_the_job() {
    let mut sandbox = Sandbox::start();
    let folder = tempfile::tempdir().unwrap();
    let proof = folder.path().join("proof");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // Its first write fails, and all that follow: the job must not be started, for nobody would know.
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let mut job = sh(&format!("touch {}", proof.display()));
    job.timeout_ms = 1000;
    sandbox.send_with(&job, &[], &full);
    // The supervisor tries for a while; whoever is tired of it ends it.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!proof.exists());
}

#[test]
fn a_full_disk_drops_output_and_still_takes_the_report() {
    use std::io::Read;
    // A pipe that is full stands for the disk: it refuses, and takes again when it has been emptied.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(64 << 10)).unwrap();
    let mut sandbox = Sandbox::start();
    let writer = std::fs::File::from(writer);
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let done = folder.path().join("done");
    sandbox.send_with(&sh(&format!("yes | head -c 1000000; touch {}", done.display())), &[], &writer);
    drop(writer);
    until("the job's end", || done.exists().then_some(()));
    let mut bytes = Vec::new();
    std::fs::File::from(reader).read_to_end(&mut bytes).unwrap();
    assert!(sandbox.wait_exit());
    let outcome = Outcome::read(&bytes);
    assert_eq!(outcome.report.ending, exited(0));
    let totals = &outcome.report.stdout;
    assert_eq!(totals.bytes + totals.dropped, 1_000_000);
    assert!(totals.dropped > 0, "{totals:?}");
    assert!(outcome.words()[0].contains("could not be written"), "{:?}", outcome.words());
}

#[test]
fn a_disk_that_stays_full_has_room_for_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::of(folder.path(), "256k");
    // Who may not mount has no disk to fill.
    let Some(_disk) = disk else { return };
    let path = folder.path().join("spool");
    let spool = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let mut sandbox = Sandbox::start();
    sandbox.send_with(&sh("yes | head -c 1000000"), &[], &spool);
    assert!(sandbox.wait_exit());
    let outcome = Outcome::read(&std::fs::read(&path).unwrap());
    assert_eq!(outcome.report.ending, exited(0));
    let totals = &outcome.report.stdout;
    assert_eq!(totals.bytes + totals.dropped, 1_000_000);
    assert!(totals.bytes > 0 && totals.dropped > 0, "{totals:?}");
    assert!(outcome.words()[0].contains("could not be written"), "{:?}", outcome.words());
}

#[test]
fn what_was_claimed_of_the_disk_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let mut sandbox = Sandbox::start();
    sandbox.send(&sh("echo short"), &[]);
    assert!(sandbox.wait_exit());
    let meta = std::fs::metadata(sandbox.spool_path()).unwrap();
    assert!(meta.blocks() * 512 < 64 << 10, "{} bytes of disk for {}", meta.blocks() * 512, meta.len());
}

/// A small file system of its own.
struct Disk(std::path::PathBuf);

impl Disk {
    fn of(folder: &std::path::Path, size: &str) -> Option<Disk> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=777"), "tmpfs"])
            .arg(folder)
            .stderr(std::process::Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then(|| Disk(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
