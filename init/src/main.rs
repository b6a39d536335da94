//! `quickcmd-init`: process 1 of a sandbox. It waits for one job, runs it, writes down what it did.
//!
//! # The order of events, and why it is this one
//!
//! 1. **Shut the doors.** Inherited descriptors are closed, signals are set, and the process is made
//!    undumpable. The job runs as the same user; an undumpable process can't be traced by it, and its
//!    `/proc/1/{fd,mem,environ,root}` belong to root. This comes first, so that there is no moment at
//!    which a descriptor is open and the door is too.
//! 2. **Get ready.** The patterns of the redaction are compiled before the job comes: this time is paid
//!    while the sandbox waits in the pool.
//! 3. **Connect, say hello, wait.** If the channel closes, or Docker says SIGTERM, before a job came,
//!    there is nothing to keep: exit 0.
//! 4. **`Started` is written before the fork.** Whoever finds the spool after a crash knows whether the
//!    job may have had an effect. If it can't be written, the job is not started.
//! 5. **Fork and exec**, in a session of its own, with nothing inherited but its three streams.
//! 6. **One loop, one thread**: the two pipes, the channel, the signals, the time. Nothing in it waits
//!    for anything but the disk. A reader, slow or gone, is not known here: the spool is a file.
//! 7. **A stop** (deadline, the agent's word, Docker's SIGTERM, an output limit) is SIGTERM to all, and
//!    after the grace SIGKILL to all until none is left. The first reason is the one that is reported.
//! 8. **The job's first process has ended**: its streams may be read to their end for 100 ms more; who
//!    holds them longer is a leftover and is killed. Then the pipes are read until they are empty.
//! 9. **Artifacts are copied** into the spool when no process of the job is left that could change them while
//!    they are: only regular files with one name, opened without a step over a link (`collect.rs`). Files that
//!    the job brought were placed in the same way when it came (`place.rs`), before there was such a process.
//! 10. **The report is the last record.** It follows the last byte of output and the last process, so that
//!     whoever sees it has seen everything. The file is synced after it: a slow disk must not delay the
//!     news.
//! 11. **Exit 0**; the kernel ends whatever a job may have left that could not be killed. Where the agent allowed for
//!     another job of the same controller (`Job::again`) and this one has ended by itself, all that it may have left is
//!     removed instead (`clean.rs`), and the wait begins anew. A sandbox that can't be cleaned for certain ends.
//!
//! The channel carries nothing that matters after the job has come: when it closes, the job runs on.
//!
//! As process 1 the supervisor signals with `kill(-1)`, which reaches every process of its PID namespace
//! but itself. Anywhere else that call would reach all of a user's processes, so there it is a
//! sub-reaper and looks up its descendants in `/proc` instead.
//!
//! The socket's folder is the first argument; [`quickcmd_init::proto::MOUNT`] without one.

mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;

use quickcmd_init::proto;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(proto::MOUNT), PathBuf::from);
    match supervisor::supervise(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            // Nobody may be listening; then there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "quickcmd-init: {error}");
            ExitCode::FAILURE
        }
    }
}
