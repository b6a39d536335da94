//! The processes of the sandbox: collecting the dead, killing the living.

use std::collections::HashSet;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use quickcmd_init::proto::Ending;

/// Dead processes collected in one go. A flood of them must not keep the loop from its other work.
const AT_ONCE: usize = 1024;

/// What a look for dead processes found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Some live.
    Some,
    /// There may be more dead ones: look again soon.
    More,
    /// The supervisor has no children, and as orphans come to it, there is nobody.
    Nobody,
}

/// Collects the dead. The main process' ending is put into `ending`.
pub fn collect(main: Option<Pid>, ending: &mut Option<Ending>) -> Left {
    for _ in 0..AT_ONCE {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) if Some(pid) == main => {
                ending.get_or_insert(Ending::Exited { code });
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if Some(pid) == main => {
                ending.get_or_insert(Ending::Signalled { signal: signal as i32 });
            }
            Ok(WaitStatus::StillAlive) => return Left::Some,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Left::Nobody,
            Err(_) => return Left::Some,
        }
    }
    Left::More
}

/// Signals every process of the sandbox but this one.
pub fn signal_all(signal: Signal) {
    if getpid() == Pid::from_raw(1) {
        // Nobody there, or nobody that may be signalled: nothing to do about either.
        let _ = kill(Pid::from_raw(-1), signal);
        return;
    }
    for pid in descendants() {
        let _ = kill(pid, signal);
    }
}

/// All processes below this one, where it is not process 1.
fn descendants() -> Vec<Pid> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        // The name in parentheses may hold anything; after it come the state and the parent.
        let Some(end) = stat.iter().rposition(|&b| b == b')') else { continue };
        let rest = String::from_utf8_lossy(&stat[end + 1..]);
        if let Some(parent) = rest.split_whitespace().nth(1).and_then(|field| field.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut known = HashSet::from([getpid().as_raw()]);
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for &(pid, parent) in &parents {
            if known.contains(&parent) && known.insert(pid) {
                found.push(Pid::from_raw(pid));
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// What the collected processes have used.
pub struct Usage {
    pub cpu_ms: u64,
    pub max_rss_bytes: u64,
}

pub fn usage() -> Usage {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Usage { cpu_ms: 0, max_rss_bytes: 0 };
    };
    let time = usage.user_time() + usage.system_time();
    let cpu = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0));
    Usage {
        cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX),
        max_rss_bytes: u64::try_from(usage.max_rss()).unwrap_or(0).saturating_mul(1024),
    }
}

/// Processes that the kernel has killed for memory in this sandbox's cgroup, v2 or v1; 0 if it can't be
/// seen from here.
pub fn oom_kills() -> u64 {
    ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
        .iter()
        .find_map(|path| oom_kill_line(&std::fs::read_to_string(path).ok()?))
        .unwrap_or(0)
}

fn oom_kill_line(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::oom_kill_line;

    #[test]
    fn both_kinds_of_cgroup_are_read() {
        assert_eq!(oom_kill_line("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(oom_kill_line("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        // Kernels before 4.13 don't count.
        assert_eq!(oom_kill_line("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
