//! Jobs that mean harm, or don't care.

use std::time::{Duration, Instant};

use quickcmd_init::proto::{Ending, Stop};

use crate::harness::{Sandbox, exited, job, run, sh};

#[test]
fn a_daemon_that_holds_the_streams_does_not_hold_the_job() {
    let outcome = run(&sh("sleep 1000 & echo parent done; exit 4"));
    assert_eq!(outcome.report.ending, exited(4));
    assert_eq!(outcome.report.stopped, None);
    assert_eq!(outcome.stdout(), "parent done\n");
}

#[test]
fn a_daemon_with_a_double_fork_is_ended_too() {
    let folder = open_folder();
    let flag = folder.path().join("flag");
    let daemon =
        format!("trap \"\" TERM HUP; echo tick; touch {}; while :; do echo tick; done", flag.display());
    let outcome =
        run(&sh(&format!("(setsid sh -c '{daemon}' &) ; until [ -e {} ]; do :; done", flag.display())));
    assert_eq!(outcome.report.ending, exited(0));
    assert!(outcome.stdout().starts_with("tick\n"));
}

#[test]
fn a_daemon_that_never_stops_printing_is_ended() {
    let folder = open_folder();
    let flag = folder.path().join("flag");
    let daemon = format!("echo first; touch {}; exec yes", flag.display());
    let outcome =
        run(&sh(&format!("setsid sh -c '{daemon}' & until [ -e {} ]; do :; done; exit 6", flag.display())));
    assert_eq!(outcome.report.ending, exited(6));
    assert!(outcome.stdout().starts_with("first\n"));
}

#[test]
fn a_job_that_closes_its_streams_goes_on() {
    let outcome = run(&sh("echo a; exec >&- 2>&-; sleep 0.3; exit 9"));
    assert_eq!(outcome.report.ending, exited(9));
    assert!(outcome.report.run_ms >= 300);
    let mut job = sh("exec >&- 2>&-; sleep 1000");
    job.timeout_ms = 200;
    assert_eq!(run(&job).report.stopped, Some(Stop::Timeout));
}

#[test]
fn a_flood_of_zombies_is_collected() {
    // Each child leaves an orphan; orphans that nobody collected would still be there. How long all of it takes is the
    // machine's business: it has failed when, for a minute, none more has gone.
    let script = "for (1..1000) { if (!fork) { fork or exit; exit } wait } $least = 1e9; \
                  while ($idle++ < 3000) { $n = 0; opendir D, '/proc'; while ($_ = readdir D) { $n++ if /^\\d+$/ } \
                  last if $n < 3; if ($n < $least) { $least = $n; $idle = 0 } select undef, undef, undef, 0.02 } print $n";
    let mut job = job(&["perl", "-e", script]);
    job.timeout_ms = 300_000;
    let mut sandbox = Sandbox::start();
    sandbox.send(&job, &[]);
    let begin = Instant::now();
    while !sandbox.has_ended() {
        assert!(begin.elapsed() < Duration::from_secs(360), "the supervisor does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(sandbox.end().stdout(), "2");
}

#[test]
fn a_fork_bomb_ends_at_the_deadline() {
    // Bounded, so that the machine survives a supervisor that does not.
    let script =
        "$SIG{TERM} = 'IGNORE'; for (1..9) { fork } while (1) { fork or exit if rand() < 0.1; sleep 1 }";
    let mut job = job(&["perl", "-e", script]);
    job.timeout_ms = 2000;
    job.grace_ms = 200;
    let outcome = run(&job);
    assert_eq!(outcome.report.stopped, Some(Stop::Timeout));
    assert_eq!(outcome.report.ending, Ending::Signalled { signal: 9 });
}

#[test]
fn signals_to_the_supervisor_do_nothing() {
    let outcome = run(&job(&[
        "perl",
        "-e",
        "kill $_, 1 for 1..64; select undef, undef, undef, 0.2; kill $_, 1 for 1..64; print 'alive'; exit 8",
    ]));
    assert_eq!(outcome.report.ending, exited(8));
    assert_eq!(outcome.report.stopped, None, "a SIGTERM from inside is no order");
    assert_eq!(outcome.stdout(), "alive");
}

#[test]
fn a_flood_of_signals_keeps_nothing_waiting() {
    // Faster than they can be read, by several at once, who also take no hint.
    let script = "$SIG{TERM} = 'IGNORE'; $| = 1; print \"x\\n\"; for (1..2) { fork } while (1) { kill 15, 1 for 1..1000 }";
    let mut job = job(&["perl", "-e", script]);
    job.timeout_ms = 1000;
    job.grace_ms = 200;
    let outcome = run(&job);
    assert_eq!(outcome.report.stopped, Some(Stop::Timeout));
    assert_eq!(outcome.stdout(), "x\n");
}

#[test]
fn the_supervisor_can_not_be_looked_into() {
    let script = "for f in mem environ maps fd/0 fd root cwd exe auxv stack; do \
                  if cat /proc/1/$f >/dev/null 2>&1 || ls /proc/1/$f/ >/dev/null 2>&1; then echo open $f; fi; done; \
                  ls -d /proc/1/mem";
    let outcome = run(&sh(script));
    assert_eq!(outcome.stdout(), "/proc/1/mem\n");
    // ptrace(PTRACE_SEIZE), process_vm_readv, pidfd_getfd: each must be refused.
    let script = "my $p = pack 'x64'; my $iov = pack 'QQ', unpack('Q', pack 'p', $p), 8; \
                  print syscall(101, 0x4206, 1, 0, 0), ' ', syscall(310, 1, $iov, 1, $iov, 1, 0), ' '; \
                  my $fd = syscall(434, 1, 0); print syscall(438, $fd, 3, 0);";
    assert_eq!(run(&job(&["perl", "-e", script])).stdout(), "-1 -1 -1");
}

#[test]
fn the_supervisors_limits_are_its_own() {
    // prlimit64 of the CPU time (0), the files' size (1) and the memory (9), then sched_setscheduler to idle:
    // of process 1 refused, of oneself granted.
    let script = "my $none = pack 'QQ', 0, 0; my $idle = pack 'L', 0; my $old = pack 'x16'; \
                  print syscall(302, 1, $_, $none, 0), ' ' for 0, 1, 9; print syscall(144, 1, 5, $idle), ' '; \
                  print syscall(302, $$ + 0, 1, 0, $old), ' ', syscall(302, 0, 1, 0, $old), ' ', syscall(144, $$ + 0, 5, $idle); exit 3";
    let outcome = run(&job(&["perl", "-e", script]));
    assert_eq!(outcome.stdout(), "-1 -1 -1 -1 0 0 0");
    assert_eq!(outcome.report.ending, exited(3));
}

#[test]
fn the_supervisors_priorities_are_its_own() {
    // setpriority and ioprio_set (to idle): of process 1, of a group, of the whole user refused; of oneself granted.
    let script = "my $before = getpriority(0, 1); print syscall(141, $_->[0], $_->[1], 19), ' ' for [0, 1], [1, 0], [1, 1], [2, 0], [2, $< + 0]; \
                  print syscall(251, $_->[0], $_->[1], 3 << 13), ' ' for [1, 1], [2, 0], [3, $< + 0]; \
                  print syscall(141, 0, 0, 19), ' ', syscall(141, 0, $$ + 0, 19), ' ', getpriority(0, 0), ' '; \
                  print syscall(251, 1, 0, 3 << 13), ' ', getpriority(0, 1) - $before";
    let outcome = run(&job(&["perl", "-e", script]));
    assert_eq!(outcome.stdout(), "-1 -1 -1 -1 -1 -1 -1 -1 0 0 19 0 0");
}

#[test]
fn the_report_can_not_be_forged() {
    let outcome =
        run(&sh("printf 'QCR1\\002\\000\\000\\000\\005\\000\\000\\000\\000\\000\\000\\000{}'; exit 2"));
    assert_eq!(outcome.report.ending, exited(2));
}

/// A folder that the job can write to.
pub fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    folder
}
