//! The system calls of a job: `seccomp/profile.json`, in Docker's format, pinned here because the default of
//! Docker 20.10 still allows io_uring and each engine brings its own.
//!
//! A list of what is allowed; everything else is `EPERM`. Left out, though an unprivileged process may
//! ask for them elsewhere: io_uring, userfaultfd, perf_event_open, bpf, the kernel's keyrings, everything that
//! mounts, unshare and setns (and `clone` with a namespace's flag), ptrace and its kin, settime, and sockets other
//! than Unix, IP and the route kind of netlink. `clone3` answers `ENOSYS`, so that libraries fall back to
//! `clone`, whose flags a filter can read. 32-bit system calls end the caller. `docs/seccomp.md` has the whole difference
//! to Docker's profile.

/// The profile, as JSON.
pub(super) const PROFILE: &str = include_str!("seccomp/profile.json");

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn nothing_dangerous_is_allowed_without_a_condition() {
        let profile: Value = serde_json::from_str(super::PROFILE).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let free: Vec<&str> = profile["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none())
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        for name in [
            "add_key",
            "bpf",
            "clone",
            "clone3",
            "fsmount",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "kcmp",
            "kexec_load",
            "keyctl",
            "mount",
            "mount_setattr",
            "move_mount",
            "name_to_handle_at",
            "open_by_handle_at",
            "open_tree",
            "perf_event_open",
            "personality",
            "pidfd_getfd",
            "pivot_root",
            "process_vm_readv",
            "process_vm_writev",
            "ptrace",
            "reboot",
            "request_key",
            "setns",
            "settimeofday",
            "clock_settime",
            "sethostname",
            "socket",
            "swapon",
            "umount2",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!free.contains(&name), "{name}");
        }
        for name in ["read", "execve", "futex", "openat", "statx", "wait4", "prlimit64"] {
            assert!(free.contains(&name), "{name}");
        }
        // What the page says of the difference to Docker's profile.
        let page = include_str!("../../docs/seccomp.md");
        let between = |from: &str, to: &str| {
            let (_, rest) = page.split_once(from).unwrap();
            let part = rest.split_once(to).unwrap().0;
            part.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<String>>()
        };
        let gone = between("## Taken away", "## Narrowed");
        assert!(gone.len() > 10, "{gone:?}");
        for name in gone.into_iter().chain(between("Not allowed in either:", "## Added")) {
            assert!(!free.contains(&name.as_str()), "docs/seccomp.md says that {name} is not allowed");
        }
        for name in between("newer versions of Docker allow too:", "## On top") {
            assert!(free.contains(&name.as_str()), "docs/seccomp.md says that {name} is allowed");
        }
        let mut sorted = free.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), free.len(), "a name stands twice");
    }
}
