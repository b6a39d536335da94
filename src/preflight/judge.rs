//! What is thought of a host. Pure: facts in, findings out.

use super::{
    Finding, Level,
    holes::{self, Version},
    host::{Disk, Engine, Entry, Host},
};

/// Below it something that sandboxes rely on is missing (a private cgroup namespace, an API of 1.41).
const OLDEST_DOCKER: [u32; 3] = [20, 10, 0];
/// Below it its makers mend nothing any more.
const KEPT_DOCKER: [u32; 3] = [25, 0, 0];
/// Below it the kernel gets no fixes from anybody.
const OLDEST_KERNEL: [u32; 3] = [5, 4, 0];
/// Has openat2 (5.6) and nosymfollow mounts (5.10).
const KEPT_KERNEL: [u32; 3] = [5, 10, 0];
/// So many times `storage.low_watermark` are comfortable.
const ROOMY: u64 = 4;
/// With fewer open files not even a handful of connections and jobs fits.
const FEW_FILES: u64 = 1024;
/// Holes of processors that let one process read the memory of others or of the kernel.
const READS_OTHERS: &[&str] = &["l1tf", "mds", "meltdown", "retbleed", "spectre_v2"];
/// File systems by their magic number (linux/magic.h): on the first ones SQLite's locks can't be relied on.
const REMOTE: &[(u64, &str)] =
    &[(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB2"), (0x6573_5546, "FUSE")];
const PASSING: &[(u64, &str)] = &[(0x0102_1994, "tmpfs"), (0x794c_7630, "overlayfs"), (0x8584_58f6, "ramfs")];

/// Everything, in a fixed order.
pub(super) fn judge(host: &Host) -> Vec<Finding> {
    let mut all = Vec::new();
    match &host.engine {
        Ok(engine) => engine_checks(engine, &mut all),
        Err(trouble) => all.push(danger("docker", trouble.what.clone(), trouble.change.clone())),
    }
    socket(host, &mut all);
    all.push(ports(&host.docker_ports));
    versioned("kernel", "kernel", &host.kernel, OLDEST_KERNEL, KEPT_KERNEL, &mut all);
    processors(host, &mut all);
    all.push(match host.swap {
        Some(0) => ok("swap", "none"),
        Some(bytes) => warning(
            "swap",
            format!("{} MiB: what jobs hold in memory may be written to disk", bytes >> 20),
            "swapoff -a and take it out of /etc/fstab, or encrypt it",
        ),
        None => unknown("swap", "/proc/swaps"),
    });
    all.push(core_pattern(host.core_pattern.as_deref()));
    for (check, value, least, why, change) in [
        (
            "ptrace",
            host.ptrace_scope,
            1,
            "processes of one user may trace each other",
            "sysctl -w kernel.yama.ptrace_scope=1",
        ),
        (
            "kptr",
            host.kptr_restrict,
            1,
            "the kernel's addresses can be read",
            "sysctl -w kernel.kptr_restrict=1",
        ),
        (
            "dmesg",
            host.dmesg_restrict,
            1,
            "everybody reads the kernel's log",
            "sysctl -w kernel.dmesg_restrict=1",
        ),
        (
            "bpf",
            host.unprivileged_bpf_disabled,
            1,
            "ordinary users may load BPF programs",
            "sysctl -w kernel.unprivileged_bpf_disabled=1",
        ),
    ] {
        all.push(match value {
            Some(value) if value >= least => ok(check, format!("restricted ({value})")),
            Some(value) => warning(check, format!("{value}: {why}"), change),
            None => unknown(check, change.trim_start_matches("sysctl -w ")),
        });
    }
    all.push(match host.clock_synchronised {
        Some(true) => ok("clock", "is synchronised"),
        Some(false) => warning(
            "clock",
            "is not synchronised: signed jobs are good for some minutes only",
            "systemctl enable --now systemd-timesyncd, or chrony",
        ),
        None => warning(
            "clock",
            "whether it is synchronised is not known",
            "look at timedatectl or chronyc tracking",
        ),
    });
    match &host.disk {
        Some(disk) => disk_checks(disk, &mut all),
        None => all.push(unknown("disk", "the data folder")),
    }
    all.push(files(host.nofile, host.nofile_needed));
    permissions(host, &mut all);
    all.push(user(&host.user));
    let name = &host.image.name;
    all.push(match (host.image.present, host.image.pulled) {
        (Some(true), _) => ok("image", format!("{name} is here")),
        (Some(false), false) => danger(
            "image",
            format!("{name} is not here, and pull_policy is never"),
            format!("docker pull {name}"),
        ),
        (Some(false), true) => warning(
            "image",
            format!("{name} is not here: the first job waits for it"),
            format!("docker pull {name}"),
        ),
        (None, _) => unknown("image", name),
    });
    all
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, found: found.into(), change: String::new() }
}

fn warning(check: &'static str, found: impl Into<String>, change: impl Into<String>) -> Finding {
    Finding { check, level: Level::Warning, found: found.into(), change: change.into() }
}

fn danger(check: &'static str, found: impl Into<String>, change: impl Into<String>) -> Finding {
    Finding { check, level: Level::Danger, found: found.into(), change: change.into() }
}

fn unknown(check: &'static str, what: &str) -> Finding {
    warning(check, "could not be found out", format!("look at {what} by hand"))
}

fn engine_checks(engine: &Engine, all: &mut Vec<Finding>) {
    versioned("docker", "Docker", &engine.version, OLDEST_DOCKER, KEPT_DOCKER, all);
    for (check, version) in [("containerd", &engine.containerd), ("runc", &engine.runc)] {
        match version {
            Some(version) => versioned(check, check, version, [0; 3], [0; 3], all),
            None => all.push(unknown(check, &format!("{check} --version"))),
        }
    }
    all.push(match engine.cgroup.as_deref() {
        Some("2") => ok("cgroup", "version 2"),
        Some(version) => warning(
            "cgroup",
            format!("version {version}: limits are counted less exactly, a release agent exists"),
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        None => unknown("cgroup", "docker info"),
    });
    all.push(match engine.unlimited.as_slice() {
        [] => ok("limits", "memory, swap, CPU and processes can be limited"),
        some => danger(
            "limits",
            format!("Docker can't limit {} here", some.join(", ")),
            "turn on these cgroup controllers (for memory and swap: boot with cgroup_enable=memory swapaccount=1)",
        ),
    });
    let has = |name: &str| engine.security.iter().any(|option| option.split(',').any(|part| part == name));
    all.push(if has("name=seccomp") {
        ok("seccomp", "is there")
    } else {
        danger("seccomp", "Docker can't filter system calls here", "use a kernel and a Docker with seccomp")
    });
    all.push(if has("name=userns") || has("name=rootless") {
        ok("userns", "root of a container is not the host's")
    } else {
        warning(
            "userns",
            "root of a container is root of the host",
            "set \"userns-remap\": \"default\" in /etc/docker/daemon.json",
        )
    });
    all.push(if has("name=apparmor") || has("name=selinux") {
        ok("lsm", "AppArmor or SELinux confines containers")
    } else {
        warning(
            "lsm",
            "neither AppArmor nor SELinux confines containers",
            "apt-get install apparmor, and boot with it",
        )
    });
}

/// A version against the oldest ones and the table of holes. What a distribution has built may have later fixes: then a
/// hole is a warning.
fn versioned(
    check: &'static str,
    product: &str,
    text: &str,
    oldest: [u32; 3],
    kept: [u32; 3],
    all: &mut Vec<Finding>,
) {
    let Some(version) = Version::parse(text) else {
        all.push(warning(check, format!("{text:?} is no version"), "look at it by hand"));
        return;
    };
    let mut well = true;
    let mut say = |finding| {
        well = false;
        all.push(finding);
    };
    let dotted = |version: [u32; 3]| format!("{}.{}", version[0], version[1]);
    if version.numbers < oldest {
        say(danger(check, format!("{text} is too old"), format!("take {} or later", dotted(kept))));
    } else if version.numbers < kept {
        say(warning(
            check,
            format!("{text}: its makers mend this version no more"),
            format!("take {} or later, or follow your distribution's security notices", dotted(kept)),
        ));
    }
    for hole in holes::known(product, version) {
        let fixes: Vec<String> = hole.fixed.iter().copied().map(holes::written).collect();
        let found = format!("{text}: {} ({}), {}", hole.id, hole.published, hole.what);
        let fixed = format!("fixed in {}: {}", fixes.join(", "), hole.source);
        say(if version.patched {
            warning(check, format!("{found}; unless its distribution has mended it"), fixed)
        } else {
            Finding { check, level: hole.level, found, change: fixed }
        });
    }
    if well {
        let more = if version.patched { "; its distribution's own notices say more" } else { "" };
        all.push(ok(check, format!("{text}, no hole known to the table of {}{more}", holes::AS_OF)));
    }
}

/// The socket of `docker_host`. Whether Docker or the filter has it is known from what answers on it: neither the path nor
/// the owner tells.
fn socket(host: &Host, all: &mut Vec<Finding>) {
    let Some(Entry { path, mode, uid }) = &host.socket else {
        all.push(unknown("socket", "docker_host"));
        return;
    };
    let (bits, open) = (mode & 0o777, mode & 0o006 != 0);
    let root = *uid == 0;
    let between = "put the Docker filter between: scripts/setup-agent.sh --with-filter (docs/hardening.md)";
    let own_user = "run it as a user of its own: scripts/setup-agent.sh --with-filter (docs/hardening.md)";
    let filter = host.engine.as_ref().map(|engine| engine.filter.as_deref());
    all.push(match filter {
        Err(_) if open => danger(
            "socket",
            format!("{path} has mode {bits:o}: every user of the host may use it, and nothing says whose it is"),
            format!("chmod 660 {path}"),
        ),
        Err(_) => warning(
            "socket",
            format!("{path}: whether Docker or the Docker filter is behind it is not known, for nothing answers"),
            "see to Docker first (above), then look again",
        ),
        Ok(None) if open => danger(
            "socket",
            format!("Docker itself answers on {path}, which has mode {bits:o}: every user of the host is {}", whom(root)),
            format!("chmod 660 {path}"),
        ),
        Ok(None) => warning(
            "socket",
            format!("Docker itself answers on {path}: who takes over the agent is {}", whom(root)),
            between,
        ),
        Ok(Some(filter)) if open => danger(
            "socket",
            format!(
                "the Docker filter {filter} answers on {path}, which has mode {bits:o}: every user of the host may do \
                 what the agent may"
            ),
            format!("chmod 660 {path}, and start the filter with --mode 660"),
        ),
        Ok(Some(filter)) if root => warning(
            "socket",
            format!("the Docker filter {filter} answers on {path}, and runs as root"),
            own_user,
        ),
        Ok(Some(filter)) if host.user.1 == Some(*uid) => warning(
            "socket",
            format!(
                "the Docker filter {filter} answers on {path}, and runs as the agent's own user, who then needs no filter \
                 to reach Docker"
            ),
            own_user,
        ),
        Ok(Some(filter)) => {
            ok("socket", format!("the Docker filter {filter} answers on {path}, which is closed to others"))
        }
    });
}

/// Who has Docker of that owner's has this.
fn whom(root: bool) -> &'static str {
    if root { "root" } else { "Docker's own user, whose containers and files are open" }
}

fn ports(open: &[u16]) -> Finding {
    if open.contains(&2375) {
        danger(
            "docker-tcp",
            "somebody listens on port 2375, Docker's without TLS: who reaches it is root",
            "take -H tcp:// from Docker's command line and \"hosts\" from /etc/docker/daemon.json",
        )
    } else if open.is_empty() {
        ok("docker-tcp", "nobody listens on Docker's ports")
    } else {
        warning(
            "docker-tcp",
            "somebody listens on port 2376, Docker's with TLS",
            "close it: the agent needs the socket only",
        )
    }
}

fn processors(host: &Host, all: &mut Vec<Finding>) {
    let before = all.len();
    for (name, said) in host.vulnerabilities.iter().filter(|(_, said)| said.starts_with("Vulnerable")) {
        let found = format!("{name}: {said}");
        let change = "update kernel and microcode, and boot without mitigations=off";
        let plain = !said.to_ascii_lowercase().contains("no microcode");
        all.push(if plain && READS_OTHERS.contains(&name.as_str()) {
            danger("cpu", found, change)
        } else {
            warning("cpu", found, change)
        });
    }
    if host.vulnerabilities.is_empty() {
        all.push(unknown("cpu", "/sys/devices/system/cpu/vulnerabilities"));
    } else if all.len() == before {
        all.push(ok("cpu", "each known hole is mitigated"));
    }
    all.push(match host.smt {
        Some(false) => ok("smt", "one thread a core"),
        Some(true) => {
            warning("smt", "two jobs may share a core and see each other's traces", "boot with nosmt")
        }
        None => unknown("smt", "/sys/devices/system/cpu/smt"),
    });
    all.push(match host.ksm {
        Some(true) => warning(
            "ksm",
            "equal pages of different processes are merged: their contents can be guessed by timing",
            "echo 2 > /sys/kernel/mm/ksm/run",
        ),
        _ => ok("ksm", "pages are not merged"),
    });
}

fn core_pattern(pattern: Option<&str>) -> Finding {
    match pattern {
        Some(pattern) if pattern.starts_with('|') => warning(
            "core",
            format!("{pattern:?}: a job that crashes starts this program, as root, on the host"),
            "sysctl -w kernel.core_pattern=core",
        ),
        Some(pattern) => ok("core", format!("{pattern:?}: no program is started")),
        None => unknown("core", "/proc/sys/kernel/core_pattern"),
    }
}

fn disk_checks(disk: &Disk, all: &mut Vec<Finding>) {
    let Disk { path, free, watermark, kind } = disk;
    let named =
        |list: &[(u64, &'static str)]| list.iter().find(|(magic, _)| magic == kind).map(|(_, name)| *name);
    all.push(match (named(REMOTE), named(PASSING)) {
        (Some(name), _) => danger(
            "data-fs",
            format!("{path} is on {name}, where the record's locks can't be relied on"),
            "put data_dir on a local file system",
        ),
        (_, Some(name)) => warning(
            "data-fs",
            format!("{path} is on {name}: the record may be gone after a restart of the host"),
            "put data_dir on a local file system",
        ),
        _ => ok("data-fs", format!("{path} is on a local file system")),
    });
    let found = format!("{} MiB are free for {path}", free >> 20);
    all.push(if free < watermark {
        danger("disk", format!("{found}, below storage.low_watermark: no job is taken"), "make room")
    } else if *free < watermark.saturating_mul(ROOMY) {
        warning("disk", format!("{found}, little more than storage.low_watermark"), "make room")
    } else {
        ok("disk", found)
    });
}

fn files(limit: u64, needed: u64) -> Finding {
    let found = format!("{limit} open files are possible, the configuration may need {needed}");
    if limit < FEW_FILES.min(needed) {
        danger("nofile", found, "raise LimitNOFILE= in the unit, or ulimit -n")
    } else if limit < needed {
        warning("nofile", found, "raise LimitNOFILE= in the unit, or ulimit -n; or lower connections.max")
    } else {
        ok("nofile", found)
    }
}

fn permissions(host: &Host, all: &mut Vec<Finding>) {
    let own = |uid: u32| uid == 0 || host.user.1 == Some(uid);
    all.push(match &host.config {
        None => unknown("config", "the configuration file"),
        Some(Entry { path, mode, uid }) if mode & 0o027 != 0 || !own(*uid) => danger(
            "config",
            format!("{path} has mode {:o} and owner {uid}: others can read or change it", mode & 0o777),
            format!("chown root {path}; chmod 640 {path}"),
        ),
        Some(Entry { path, mode, .. }) => ok("config", format!("{path} has mode {:o}", mode & 0o777)),
    });
    all.push(match &host.data {
        None => unknown("data", "the data folder"),
        Some(Entry { path, mode, uid }) if mode & 0o022 != 0 || !own(*uid) => danger(
            "data",
            format!("{path} has mode {:o} and owner {uid}: others can change what is in it", mode & 0o777),
            format!("chown {} {path}; chmod 750 {path}", host.user.0),
        ),
        Some(Entry { path, mode, .. }) if mode & 0o005 != 0 => warning(
            "data",
            format!("{path} has mode {:o}: others can see what is in it", mode & 0o777),
            format!("chmod 750 {path}"),
        ),
        Some(Entry { path, mode, .. }) => ok("data", format!("{path} has mode {:o}", mode & 0o777)),
    });
}

fn user((name, uid): &(String, Option<u32>)) -> Finding {
    match uid {
        Some(0) => danger("user", "run_as_user is root", "make an ordinary user: scripts/setup-agent.sh"),
        Some(_) => ok("user", format!("the agent runs as {name}")),
        None => danger(
            "user",
            format!("there is no user {name} (run_as_user): started as root, the agent goes on as root"),
            "make the user: scripts/setup-agent.sh",
        ),
    }
}
