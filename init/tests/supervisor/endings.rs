//! How a job ends, and how it begins.

use std::os::unix::fs::PermissionsExt;

use quickcmd_init::proto::Ending;
use quickcmd_init::spool::Kind;

use crate::harness::{Sandbox, exited, install, job, run, run_with, sh};

#[test]
fn the_exit_code_comes_back() {
    for code in [0, 1, 42, 126, 127, 255] {
        let outcome = run(&sh(&format!("exit {code}")));
        assert_eq!(outcome.report.ending, exited(code));
        assert_eq!(outcome.report.stopped, None);
    }
}

#[test]
fn a_signal_is_told_from_an_exit_code() {
    assert_eq!(run(&sh("kill -SEGV $$")).report.ending, Ending::Signalled { signal: 11 });
    assert_eq!(run(&sh("kill -KILL $$")).report.ending, Ending::Signalled { signal: 9 });
    assert_eq!(run(&sh("exit 137")).report.ending, exited(137));
}

#[test]
fn what_can_not_be_started_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, text: &str, mode| {
        let source = folder.path().join(format!("{name}.source"));
        std::fs::write(&source, text).unwrap();
        let path = folder.path().join(name);
        install(source.to_str().unwrap(), mode, &path);
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let lost = file("lost", "#!/no/such/interpreter\n", 0o755);
    let text = file("text", "no program at all\n", 0o755);
    let here = folder.path().to_str().unwrap().to_owned();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["no-such-program"], 127, "no-such-program: not found in the image's PATH"),
        (&["/no/such/program"], 127, "/no/such/program: no such file in the image"),
        (&[""], 127, "names no program"),
        (&[&plain], 126, "Permission denied"),
        (&[&lost], 126, "interpreter"),
        (&[&text], 126, "Exec format error"),
        (&[&here], 126, "Permission denied"),
        (&["sh", "a\0b"], 126, "NUL"),
    ];
    for (argv, expected, sentence) in cases {
        let outcome = run(&job(argv));
        let Ending::NotStarted { code, error, sandbox: false } = &outcome.report.ending else {
            panic!("{argv:?}: {:?}", outcome.report.ending)
        };
        assert_eq!(*code, expected, "{argv:?}: {error}");
        assert!(error.contains(sentence), "{argv:?}: {error}");
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let mut job = sh("true");
    job.workdir = "/no/such/folder".into();
    let Ending::NotStarted { code: 126, error, sandbox: false } = run(&job).report.ending else { panic!() };
    assert!(error.contains("/no/such/folder"), "{error}");
}

#[test]
fn arguments_environment_and_folder_arrive_as_they_are() {
    let argv = [
        "perl",
        "-e",
        "print map { \"[$_]\" } @ARGV, $ENV{A}, scalar(keys %ENV)",
        "a b",
        "",
        "$HOME\n\"'",
        "--privileged",
    ];
    let mut job = job(&argv);
    job.env.push(("A".into(), "1=2 \u{20ac}".into()));
    job.workdir = "/tmp".into();
    let outcome = run(&job);
    assert_eq!(
        outcome.stdout(),
        "[a b][][$HOME\n\"'][--privileged][1=2 \u{20ac}][2]",
        "{}",
        outcome.stderr()
    );
    job.argv = vec!["pwd".into()];
    assert_eq!(run(&job).stdout(), "/tmp\n");
}

#[test]
fn the_program_is_looked_up_in_the_jobs_own_path() {
    let mut job = job(&["sh", "-c", "echo here"]);
    job.env = vec![("PATH".into(), "/no/such:/bin".into())];
    assert_eq!(run(&job).stdout(), "here\n");
    job.env = vec![("PATH".into(), "/no/such".into())];
    assert!(matches!(run(&job).report.ending, Ending::NotStarted { code: 127, .. }));
    job.env = Vec::new();
    assert_eq!(run(&job).stdout(), "here\n");
}

#[test]
fn standard_input_arrives_whole_and_ends() {
    let input: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let outcome = run_with(&job(&["cat"]), &input);
    assert!(outcome.bytes(Kind::Stdout) == input);
    // Who does not read it is not disturbed by it.
    assert_eq!(run_with(&sh("exit 3"), &input).report.ending, exited(3));
    // Without any there is nothing to wait for.
    let outcome = run(&sh("cat; readlink /proc/self/fd/0"));
    assert_eq!(outcome.stdout(), "/dev/null\n");
}

#[test]
fn the_job_has_its_own_session_default_signals_and_no_descriptors() {
    let outcome =
        run(&sh("ls /proc/self/fd; cut -d' ' -f6 /proc/$$/stat; echo $$; cat /proc/self/oom_score_adj"));
    let out = outcome.stdout();
    let lines: Vec<&str> = out.lines().collect();
    // 3 is the folder that `ls` reads.
    assert_eq!(lines[..4], ["0", "1", "2", "3"], "{out}");
    assert_eq!(lines[4], lines[5], "the session is its own: {out}");
    assert_eq!(lines[6], "1000");
    let status = run(&job(&["cat", "/proc/self/status"])).stdout();
    for field in ["SigBlk", "SigIgn"] {
        assert!(status.contains(&format!("\n{field}:\t0000000000000000\n")), "{status}");
    }
}

#[test]
fn usage_and_times_are_reported() {
    let outcome =
        run(&job(&["perl", "-e", "my $x = 'x' x 50_000_000; my $t = times; 1 while times - $t < 0.2"]));
    assert_eq!(outcome.report.ending, exited(0));
    assert!(outcome.report.cpu_ms >= 200, "{:?}", outcome.report);
    assert!(outcome.report.run_ms >= 200, "{:?}", outcome.report);
    assert!((50_000_000..1 << 30).contains(&outcome.report.max_rss_bytes), "{:?}", outcome.report);
    assert!(outcome.report.end_ns - outcome.report.start_ns >= 200_000_000);
}

#[test]
fn frames_are_numbered_from_the_given_number() {
    let mut job = sh("echo x");
    job.first_seq = 7;
    let outcome = run(&job);
    let seqs: Vec<u64> = outcome.records.iter().map(|r| r.0.seq).collect();
    assert_eq!(seqs, [0, 7, 8, 0]);
}

#[test]
fn without_a_job_it_ends_when_the_channel_closes() {
    let mut sandbox = Sandbox::start();
    assert!(!sandbox.has_ended());
    sandbox.channel = None;
    assert!(sandbox.wait_exit());
    assert!(std::fs::read(sandbox.spool_path()).unwrap().is_empty());
}

#[test]
fn without_a_job_it_ends_on_sigterm() {
    let mut sandbox = Sandbox::start();
    sandbox.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(sandbox.wait_exit());
}

#[test]
fn half_a_job_is_no_job() {
    use std::io::Write;
    let mut sandbox = Sandbox::start();
    sandbox.channel.as_mut().unwrap().write_all(&[200, 0, 0, 0, b'{']).unwrap();
    sandbox.channel = None;
    assert!(sandbox.wait_exit());
}

#[test]
fn what_is_no_job_is_refused() {
    use std::io::Write;
    for bytes in [&b"\x02\0\0\0{}"[..], b"\xff\xff\xff\xff", b"\x01\0\0\0x"] {
        let mut sandbox = Sandbox::start();
        sandbox.channel.as_mut().unwrap().write_all(bytes).unwrap();
        assert!(!sandbox.wait_exit(), "{bytes:?}");
    }
}

#[test]
fn a_running_job_does_not_need_the_channel() {
    let mut sandbox = Sandbox::start();
    sandbox.send(&sh("echo begun; sleep 0.3; echo done; exit 5"), &[]);
    sandbox.wait_for_output("begun");
    sandbox.channel = None;
    let outcome = sandbox.end();
    assert_eq!(outcome.stdout(), "begun\ndone\n");
    assert_eq!(outcome.report.ending, exited(5));
}

#[test]
fn the_size_of_files_is_the_jobs_limit_and_not_the_spools() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.path().join("file").display().to_string();
    // Three times as much on standard output; then a file of twice the size, before and after trying to raise it.
    let mut job = sh(&format!(
        "head -c 3145728 /dev/zero; trap '' XFSZ; head -c 2097152 /dev/zero >{file}; wc -c <{file} >&2
         ulimit -f unlimited 2>/dev/null && echo raised >&2; head -c 2097152 /dev/zero >{file}; wc -c <{file} >&2"
    ));
    job.fsize = Some(1 << 20);
    let outcome = run(&job);
    assert_eq!((outcome.report.ending.clone(), outcome.report.stdout.bytes), (exited(0), 3 << 20));
    let sizes: Vec<String> =
        outcome.stderr().lines().filter(|line| line.parse::<u64>().is_ok()).map(str::to_owned).collect();
    assert_eq!(sizes, ["1048576", "1048576"], "{}", outcome.stderr());
    assert!(!outcome.stderr().contains("raised"), "{}", outcome.stderr());
    // As a signal, to those who don't expect it.
    job.argv[2] = format!("exec head -c 2097152 /dev/zero >{file}");
    assert_eq!(run(&job).report.ending, Ending::Signalled { signal: 25 });
}

#[test]
fn trouble_of_the_sandbox_is_not_the_jobs() {
    // No more processes for this user: the supervisor can't fork.
    let mut sandbox = Sandbox::start_by(&["prlimit", "--nproc=0:0"]);
    sandbox.send(&sh("true"), &[]);
    let ending = sandbox.end().report.ending;
    let Ending::NotStarted { code: 126, error, sandbox: true } = ending else { panic!("{ending:?}") };
    assert!(error.contains("could not start a process"), "{error}");
}
