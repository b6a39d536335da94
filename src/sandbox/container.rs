//! What a container is made of: the whole of the create call, every hardening in one place.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions,
    MountType, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use quickcmd_init::proto;

use super::{Label, SandboxError, Shape, seccomp};
use crate::{
    config::{Limits, SandboxConfig},
    wire::payload::Network,
};

/// The agent's id.
pub const LABEL_AGENT: &str = "com.quickcmd.agent";
/// Which installation: agent id and data folder, hashed. Two agents of one name don't touch each other's.
pub const LABEL_HOME: &str = "com.quickcmd.home";
/// The job's row in the database.
pub const LABEL_ROW: &str = "com.quickcmd.row";
/// The job's id.
pub const LABEL_JOB: &str = "com.quickcmd.job";
/// SHA-256 of the job's payload.
pub const LABEL_PAYLOAD: &str = "com.quickcmd.payload";
/// Which attempt at the job.
pub const LABEL_ATTEMPT: &str = "com.quickcmd.attempt";
/// Which life of the agent made it.
pub const LABEL_INSTANCE: &str = "com.quickcmd.instance";
/// `1`: made for the pool, before any job.
pub const LABEL_POOL: &str = "com.quickcmd.pool";

/// Parts of `/proc` and `/sys` that show as empty: Docker's list and what newer kernels have.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Parts of `/proc` that can't be written, whoever asks: Docker's list.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The labels of a container that is made for a job.
pub(crate) fn job_labels(label: &Label) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_ROW.to_owned(), label.row.to_string()),
        (LABEL_JOB.to_owned(), label.job_id.clone()),
        (LABEL_PAYLOAD.to_owned(), label.payload_sha256.clone()),
        (LABEL_ATTEMPT.to_owned(), label.attempt.to_string()),
    ])
}

/// The create call's body. `folder`: the sandbox's folder on the host; `volumes`: what the image declares.
pub(crate) fn body(
    config: &SandboxConfig,
    shape: &Shape,
    folder: &str,
    volumes: &[String],
    labels: HashMap<String, String>,
) -> Result<ContainerCreateBody, SandboxError> {
    let limits = &shape.limits;
    let user = format!("{}:{}", config.uid, config.gid);
    Ok(ContainerCreateBody {
        hostname: Some("sandbox".to_owned()),
        user: Some(user),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        open_stdin: Some(false),
        tty: Some(false),
        // With an entrypoint of ours Docker takes neither the image's entrypoint nor its command.
        entrypoint: Some(vec![format!("{}/{}", proto::MOUNT, proto::INIT_FILE)]),
        cmd: Some(Vec::new()),
        working_dir: Some("/".to_owned()),
        stop_signal: Some("SIGTERM".to_owned()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        // By its id, which can't move between the check and the start.
        image: Some(shape.image.id.clone()),
        network_disabled: Some(shape.network == Network::None),
        labels: Some(labels),
        host_config: Some(host_config(config, shape, limits, folder, volumes)?),
        ..ContainerCreateBody::default()
    })
}

/// The limits that can be changed while the container runs. The sizes of its tmpfs can't.
pub(crate) fn update(limits: &Limits) -> ContainerUpdateBody {
    let memory = Some(signed(limits.memory));
    ContainerUpdateBody {
        memory,
        memory_swap: memory,
        nano_cpus: Some(nano_cpus(limits.cpu)),
        pids_limit: Some(signed(limits.pids)),
        ..ContainerUpdateBody::default()
    }
}

fn host_config(
    config: &SandboxConfig,
    shape: &Shape,
    limits: &Limits,
    folder: &str,
    volumes: &[String],
) -> Result<HostConfig, SandboxError> {
    let tmpfs = format!(
        "rw,exec,nosuid,nodev,size={},nr_inodes={},mode=0700,uid={},gid={}",
        limits.tmpfs,
        // Inodes take memory of their own: one a kilobyte is plenty.
        (limits.tmpfs / 1024).max(1024),
        config.uid,
        config.gid
    );
    let shared = tmpfs.replace("mode=0700", "mode=1777");
    let memory = signed(limits.memory);
    let ulimit = |name: &str, value: u64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(signed(value)),
        hard: Some(signed(value)),
    };
    let strings = |list: &[&str]| Some(list.iter().map(|&item| item.to_owned()).collect());
    Ok(HostConfig {
        privileged: Some(false),
        cap_add: Some(Vec::new()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned(), format!("seccomp={}", seccomp::PROFILE)]),
        masked_paths: strings(MASKED),
        readonly_paths: strings(READ_ONLY),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), shared), (config.workdir.clone(), tmpfs)])),
        mounts: Some(mounts(config, limits, folder, volumes)?),
        binds: Some(Vec::new()),
        devices: Some(Vec::new()),
        memory: Some(memory),
        // Equal: no swap at all.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus(limits.cpu)),
        pids_limit: Some(signed(limits.pids)),
        ulimits: Some(vec![
            ulimit("core", 0),
            // The job's own is set by the supervisor in the job. Here it would bind the supervisor too, whose spool
            // may be larger; said all the same, for the daemon may have a default of its own.
            ResourcesUlimits { name: Some("fsize".to_owned()), soft: Some(-1), hard: Some(-1) },
            ulimit("memlock", 65_536),
            ulimit("nofile", config.nofile),
        ]),
        oom_kill_disable: Some(false),
        network_mode: Some(
            match shape.network {
                Network::None => "none",
                Network::Bridge => "bridge",
            }
            .to_owned(),
        ),
        publish_all_ports: Some(false),
        ipc_mode: Some("private".to_owned()),
        shm_size: Some(signed(config.shm)),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            ..RestartPolicy::default()
        }),
        auto_remove: Some(false),
        init: Some(false),
        runtime: runtime(config, &shape.image.reference),
        ..HostConfig::default()
    })
}

/// The one bind, and an empty tmpfs over each volume of the image: Docker merges the image's volumes into
/// every container, and what has a mount already gets no anonymous volume.
fn mounts(
    config: &SandboxConfig,
    limits: &Limits,
    folder: &str,
    volumes: &[String],
) -> Result<Vec<Mount>, SandboxError> {
    let mut mounts = vec![Mount {
        target: Some(proto::MOUNT.to_owned()),
        source: Some(folder.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            // Read-only holds for the mount itself: nothing that is mounted below comes along.
            non_recursive: Some(true),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }];
    for volume in volumes {
        let path = volume.trim_end_matches('/');
        if path.is_empty() || path == proto::MOUNT || path.starts_with(&format!("{}/", proto::MOUNT)) {
            return Err(SandboxError::Failed(format!(
                "the image declares a volume at {volume}, where the sandbox itself is"
            )));
        }
        if path == "/tmp" || path == config.workdir {
            continue;
        }
        mounts.push(Mount {
            target: Some(path.to_owned()),
            typ: Some(MountType::TMPFS),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: Some(signed(limits.tmpfs)),
                mode: Some(0o1777),
                ..MountTmpfsOptions::default()
            }),
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// The runtime for an image: its own, else the one for all, else Docker's default.
pub(super) fn runtime(config: &SandboxConfig, reference: &str) -> Option<String> {
    let of = |wanted: &str| config.runtimes.iter().find(|(image, _)| image == wanted);
    of(reference).or_else(|| of("*")).map(|(_, runtime)| runtime.clone())
}

/// Docker's numbers are signed; what is larger is as good as no limit.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Billionths of a core.
#[expect(clippy::cast_possible_truncation, reason = "a float cast saturates, and cores are few")]
fn nano_cpus(cores: f64) -> i64 {
    (cores * 1e9).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::{config, shape};

    #[test]
    fn a_container_is_locked_down() {
        let labels = job_labels(&Label {
            row: 7,
            job_id: "j".to_owned(),
            payload_sha256: "ab".to_owned(),
            attempt: 1,
        });
        let body = body(&config(), &shape("sha256:1"), "/d/sandboxes/x", &[], labels).unwrap();
        let json = serde_json::to_value(&body).unwrap();
        let host = &json["HostConfig"];
        assert_eq!(json["User"], "65534:65534");
        assert_eq!(json["Image"], "sha256:1");
        assert_eq!(json["Entrypoint"], serde_json::json!(["/.quickcmd/init"]));
        assert_eq!(json["Healthcheck"]["Test"], serde_json::json!(["NONE"]));
        assert_eq!(json["Labels"][LABEL_ROW], "7");
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
        assert_eq!(host["NetworkMode"], "none");
        assert_eq!(host["ReadonlyRootfs"], true);
        assert_eq!(host["Memory"], host["MemorySwap"]);
        assert_eq!(host["NanoCpus"], 500_000_000);
        assert_eq!(host["AutoRemove"], false);
        assert_eq!(host["LogConfig"]["Type"], "none");
        let fsize =
            host["Ulimits"].as_array().unwrap().iter().find(|limit| limit["Name"] == "fsize").unwrap();
        assert_eq!((&fsize["Soft"], &fsize["Hard"]), (&(-1).into(), &(-1).into()), "the spool may be larger");
        assert_eq!(host["Mounts"].as_array().unwrap().len(), 1, "one mount, the supervisor's");
        assert_eq!(host["Mounts"][0]["ReadOnly"], true);
        assert!(host["Tmpfs"]["/tmp"].as_str().unwrap().contains("nosuid,nodev,size="));
    }

    #[test]
    fn volumes_of_the_image_are_covered_and_runtimes_chosen() {
        let mut config = config();
        config.runtimes = vec![("*".to_owned(), "runsc".to_owned()), ("a".to_owned(), "runc".to_owned())];
        let volumes = ["/data/".to_owned(), "/tmp".to_owned()];
        let body = body(&config, &shape("sha256:1"), "/x", &volumes, HashMap::new()).unwrap();
        let host = body.host_config.unwrap();
        let targets: Vec<_> = host.mounts.unwrap().into_iter().map(|mount| mount.target.unwrap()).collect();
        assert_eq!(targets, ["/.quickcmd", "/data"]);
        assert_eq!(host.runtime.as_deref(), Some("runsc"));
        assert_eq!(runtime(&config, "a").as_deref(), Some("runc"));
        for bad in ["/", "/.quickcmd", "/.quickcmd/x"] {
            assert!(mounts(&config, &shape("x").limits, "/x", &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
