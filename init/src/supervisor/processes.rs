//! The processes of the sandbox: collecting the dead, killing the living.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
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

/// Collects the dead. The main process' ending is put into `ending`, and what all have used into `usage`: the system's
/// own total of collected processes would count the jobs before this one.
pub fn collect(main: Option<Pid>, ending: &mut Option<Ending>, usage: &mut Usage) -> Left {
    for _ in 0..AT_ONCE {
        let mut status = 0;
        // SAFETY: numbers only, for which all zeros are fine.
        let mut used: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both places are valid for writes.
        let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG | libc::__WALL, &raw mut used) };
        match pid {
            0 => return Left::Some,
            1.. => usage.add(&used),
            _ => match Errno::last() {
                Errno::EINTR => continue,
                Errno::ECHILD => return Left::Nobody,
                _ => return Left::Some,
            },
        }
        if Some(Pid::from_raw(pid)) == main {
            if libc::WIFEXITED(status) {
                ending.get_or_insert(Ending::Exited { code: libc::WEXITSTATUS(status) });
            } else if libc::WIFSIGNALED(status) {
                ending.get_or_insert(Ending::Signalled { signal: libc::WTERMSIG(status) });
            }
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

/// What the collected processes of one job have used.
#[derive(Debug, Default, Clone, Copy)]
pub struct Usage {
    /// User and system time of those that were waited for.
    pub cpu: Duration,
    /// Of the largest one.
    pub max_rss_bytes: u64,
}

impl Usage {
    fn add(&mut self, used: &libc::rusage) {
        let time = |time: libc::timeval| {
            Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
                + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
        };
        self.cpu += time(used.ru_utime) + time(used.ru_stime);
        let kib = u64::try_from(used.ru_maxrss).unwrap_or(0);
        self.max_rss_bytes = self.max_rss_bytes.max(kib.saturating_mul(1024));
    }
}

/// Processor time of everything that has run in this sandbox's cgroup, v2 or v1; `None` if it can't be seen from here.
/// What the dead were worth to those who collected them is not the same: of a child that its parent ignores
/// (`SIGCHLD`) nobody hears, and a job could work unseen.
pub fn cpu_used() -> Option<Duration> {
    // Elsewhere the cgroup holds others, too.
    if getpid() != Pid::from_raw(1) {
        return None;
    }
    let read = |path: &str| std::fs::read_to_string(path).ok();
    read("/sys/fs/cgroup/cpu.stat").as_deref().and_then(usage_line).or_else(|| {
        read("/sys/fs/cgroup/cpuacct/cpuacct.usage")?.trim().parse().ok().map(Duration::from_nanos)
    })
}

fn usage_line(text: &str) -> Option<Duration> {
    let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    micros.trim().parse().ok().map(Duration::from_micros)
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
    use std::time::Duration;

    use super::{oom_kill_line, usage_line};

    #[test]
    fn processor_time_is_read_of_cgroup_2() {
        let text = "usage_usec 1500001\nuser_usec 1000000\nsystem_usec 500001\nnr_periods 0\n";
        assert_eq!(usage_line(text), Some(Duration::from_micros(1_500_001)));
        // What cgroup v1 has under that name.
        assert_eq!(usage_line("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"), None);
    }

    #[test]
    fn both_kinds_of_cgroup_are_read() {
        assert_eq!(oom_kill_line("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(oom_kill_line("low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        // Kernels before 4.13 don't count.
        assert_eq!(oom_kill_line("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
