//! Create and update calls: the agent's own pass, and nothing that differs.

use serde_json::{Value, json};

use super::{NAME, create, limits, mould, name, rules, table};
use crate::{
    config::Limits,
    filter::{Rules, body},
    sandbox::{Mould, update_call},
    wire::payload::Network,
};

/// The body with one place changed; `null`: the place is removed.
fn changed(pointer: &str, value: Value) -> Value {
    let mut body = mould().create().unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let place = body.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}"));
    match (place, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(key)),
        (Value::Object(map), value) => drop(map.insert(key.to_owned(), value)),
        (Value::Array(list), value) if key == "-" => list.push(value),
        (Value::Array(list), Value::Null) => drop(list.remove(key.parse().unwrap())),
        (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value,
        (other, _) => panic!("{pointer}: {other}"),
    }
    body
}

#[test]
fn the_agents_own_body_passes() {
    let body = mould().create().unwrap();
    assert_eq!(create(&body), Ok(body));
    let other = Mould {
        runtime: Some("runsc".to_owned()),
        limits: Limits { cpu: 1.234_567_891, memory: 64 << 20, pids: 4, timeout_seconds: 1, tmpfs: 65_536 },
        workdir: "/a/b".to_owned(),
        volumes: Vec::new(),
        ..mould()
    };
    let body = other.create().unwrap();
    assert_eq!(create(&body), Ok(body));
    let open = Rules { bridge: true, ..rules() };
    let body = Mould { network: Network::Bridge, ..mould() }.create().unwrap();
    assert!(body::create(&open, &name(), body.to_string().as_bytes()).is_ok());
    for limits in [limits(), Limits { cpu: 0.01, memory: 16 << 20, pids: 4, ..limits() }] {
        let body = update_call(&limits).unwrap();
        assert_eq!(body::update(body.to_string().as_bytes()), Ok(body));
    }
}

#[test]
fn weaker_bodies_are_refused() {
    let bind = |source: &str| json!({"Type": "bind", "Source": source, "Target": "/mnt", "ReadOnly": true});
    let rows = [
        ("/HostConfig/Privileged", json!(true)),
        ("/HostConfig/privileged", json!(true)),
        ("/HostConfig/Privileged", Value::Null),
        ("/HostConfig/CapAdd/-", json!("SYS_ADMIN")),
        ("/HostConfig/CapDrop", json!([])),
        ("/HostConfig/CapDrop", Value::Null),
        ("/HostConfig/Capabilities", json!(["CAP_SYS_ADMIN"])),
        ("/HostConfig/SecurityOpt/1", json!("seccomp=unconfined")),
        ("/HostConfig/SecurityOpt/1", json!("seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}")),
        ("/HostConfig/SecurityOpt/0", Value::Null),
        ("/HostConfig/SecurityOpt/-", json!("apparmor=unconfined")),
        ("/HostConfig/SecurityOpt/-", json!("label=disable")),
        ("/HostConfig/SecurityOpt/-", json!("systempaths=unconfined")),
        ("/HostConfig/MaskedPaths", json!([])),
        ("/HostConfig/MaskedPaths/0", Value::Null),
        ("/HostConfig/ReadonlyPaths", Value::Null),
        ("/HostConfig/ReadonlyRootfs", json!(false)),
        ("/HostConfig/Binds/-", json!("/:/host")),
        ("/HostConfig/Binds/-", json!("/var/run/docker.sock:/docker.sock")),
        ("/HostConfig/Mounts/-", bind("/")),
        ("/HostConfig/Mounts/-", json!({"Type": "volume", "Source": "x", "Target": "/mnt"})),
        ("/HostConfig/Mounts/-", json!({"Type": "tmpfs", "Target": "/proc/sys"})),
        ("/HostConfig/Mounts/-", json!({"Type": "tmpfs", "Target": "/.quickcmd"})),
        ("/HostConfig/Mounts/0/Source", json!("/var/lib/quickcmd/sandboxes")),
        ("/HostConfig/Mounts/0/Source", json!("/var/lib/quickcmd/sandboxes/quickcmd-0123abcd-8-1-beef")),
        ("/HostConfig/Mounts/0/Source", json!(format!("/var/lib/quickcmd/sandboxes/{NAME}/../../.."))),
        ("/HostConfig/Mounts/0/Source", json!("/etc")),
        ("/HostConfig/Mounts/0/ReadOnly", json!(false)),
        ("/HostConfig/Mounts/0/ReadOnly", Value::Null),
        ("/HostConfig/Mounts/0/BindOptions/Propagation", json!("rshared")),
        ("/HostConfig/Mounts/0/BindOptions/NonRecursive", json!(false)),
        ("/HostConfig/Mounts/0/Type", json!("volume")),
        ("/HostConfig/Mounts/1/Type", json!("bind")),
        ("/HostConfig/Mounts/1/Source", json!("/")),
        ("/HostConfig/VolumesFrom", json!(["postgres"])),
        ("/HostConfig/VolumeDriver", json!("local")),
        ("/HostConfig/Devices/-", json!({"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"})),
        ("/HostConfig/DeviceRequests", json!([{"Driver": "nvidia", "Count": -1}])),
        ("/HostConfig/DeviceCgroupRules", json!(["a *:* rwm"])),
        ("/HostConfig/NetworkMode", json!("host")),
        ("/HostConfig/NetworkMode", json!("container:postgres")),
        ("/HostConfig/NetworkMode", json!("bridge")),
        ("/HostConfig/NetworkMode", Value::Null),
        ("/NetworkDisabled", json!(false)),
        ("/NetworkingConfig", json!({"EndpointsConfig": {"host": {}}})),
        ("/HostConfig/PortBindings", json!({"22/tcp": [{"HostPort": "22"}]})),
        ("/HostConfig/PublishAllPorts", json!(true)),
        ("/HostConfig/ExtraHosts", json!(["x:1.2.3.4"])),
        ("/HostConfig/PidMode", json!("host")),
        ("/HostConfig/IpcMode", json!("host")),
        ("/HostConfig/UTSMode", json!("host")),
        ("/HostConfig/UsernsMode", json!("host")),
        ("/HostConfig/CgroupnsMode", json!("host")),
        ("/HostConfig/CgroupParent", json!("/")),
        ("/HostConfig/Cgroup", json!("container:postgres")),
        ("/HostConfig/Runtime", json!("evil")),
        ("/HostConfig/Sysctls", json!({"kernel.core_pattern": "|/x"})),
        ("/HostConfig/GroupAdd", json!(["0"])),
        ("/HostConfig/OomScoreAdj", json!(-1000)),
        ("/HostConfig/OomKillDisable", json!(true)),
        ("/HostConfig/Init", json!(true)),
        ("/HostConfig/AutoRemove", json!(true)),
        ("/HostConfig/RestartPolicy/Name", json!("always")),
        ("/HostConfig/LogConfig", json!({"Type": "syslog", "Config": {"syslog-address": "tcp://x"}})),
        ("/HostConfig/Memory", json!(0)),
        ("/HostConfig/Memory", json!(-1)),
        ("/HostConfig/Memory", Value::Null),
        ("/HostConfig/MemorySwap", json!(-1)),
        ("/HostConfig/NanoCpus", json!(0)),
        ("/HostConfig/PidsLimit", json!(-1)),
        ("/HostConfig/PidsLimit", json!(64.5)),
        ("/HostConfig/ShmSize", json!(0)),
        ("/HostConfig/CpusetCpus", json!("0")),
        ("/HostConfig/Ulimits", json!([])),
        ("/HostConfig/Ulimits/0/Hard", json!(-1)),
        ("/HostConfig/Tmpfs", json!({})),
        ("/HostConfig/Tmpfs/x", json!("rw,size=1")),
        ("/HostConfig/Tmpfs/proc", json!("rw,size=1")),
        ("/HostConfig/StorageOpt", json!({"size": "1T"})),
        ("/HostConfig/ContainerIDFile", json!("/etc/x")),
        ("/HostConfig/Isolation", json!("process")),
        ("/User", json!("0:0")),
        ("/User", json!("65532:999")),
        ("/User", Value::Null),
        ("/Entrypoint", json!(["/bin/sh"])),
        ("/Cmd", json!(["x"])),
        ("/Env", json!(["LD_PRELOAD=/x"])),
        ("/Image", json!("alpine")),
        ("/Image", json!("sha256:12")),
        ("/Volumes", json!({"/x": {}})),
        ("/ExposedPorts", json!({"22/tcp": {}})),
        ("/Healthcheck/Test", json!(["CMD", "x"])),
        ("/StopSignal", json!("SIGUSR1")),
        ("/Tty", json!(true)),
        ("/OpenStdin", json!(true)),
        ("/WorkingDir", json!("/proc/self/fd/7")),
        ("/Shell", json!(["x"])),
        ("/OnBuild", json!(["x"])),
        ("/MacAddress", json!("x")),
        ("/Labels/com.docker.compose.project", json!("x")),
        ("/Labels/com.quickcmd.home", json!("ffffffff")),
        ("/Labels/com.quickcmd.home", Value::Null),
        ("/Labels/com.quickcmd.job", json!("x".repeat(257))),
        ("/Labels", Value::Null),
        ("/HostConfig", Value::Null),
    ];
    let rows = rows.map(|(place, value)| {
        let mut shown = value.to_string();
        shown.truncate(90);
        (format!("{place} = {shown}"), create(&changed(place, value)))
    });
    let text = table(rows);
    assert!(!text.contains("PASSES"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn bodies_that_two_would_read_differently_are_refused_or_made_plain() {
    let whole = mould().create().unwrap().to_string();
    let judge = |text: &str| body::create(&rules(), &name(), text.as_bytes()).map(|create| create.body);
    // Twice the same member: what is sent is what was looked at.
    let twice = whole.replacen("\"Privileged\":false", "\"Privileged\":true,\"Privileged\":false", 1);
    assert_ne!(twice, whole);
    assert_eq!(judge(&twice).unwrap().to_string(), whole);
    let rows = [
        (
            "the other of two counts",
            whole.replacen("\"Privileged\":false", "\"Privileged\":false,\"Privileged\":true", 1),
        ),
        ("something after the end", format!("{whole}{{\"HostConfig\":{{\"Privileged\":true}}}}")),
        ("no JSON", "{".to_owned()),
        ("nothing", String::new()),
        ("a list", format!("[{whole}]")),
        ("null", "null".to_owned()),
        ("deep", "[".repeat(10_000)),
    ];
    let text = table(rows.map(|(what, text)| (what.to_owned(), judge(&text))));
    assert!(!text.contains("PASSES"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn weaker_updates_are_refused() {
    let update = |body: Value| body::update(body.to_string().as_bytes());
    let with = |key: &str, value: Value| {
        let mut body = update_call(&limits()).unwrap();
        match value {
            Value::Null => drop(body.as_object_mut().unwrap().remove(key)),
            value => body[key] = value,
        }
        body
    };
    let rows = [
        ("RestartPolicy", json!({"Name": "always"})),
        ("Devices", json!([{"PathOnHost": "/dev/sda"}])),
        ("DeviceCgroupRules", json!(["a *:* rwm"])),
        ("CgroupParent", json!("/")),
        ("Memory", json!(0)),
        ("Memory", json!(-1)),
        ("MemorySwap", json!(-1)),
        ("PidsLimit", json!(0)),
        ("PidsLimit", Value::Null),
        ("NanoCpus", json!(-1)),
        ("OomKillDisable", json!(true)),
        ("BlkioWeight", json!(1000)),
        ("CpuQuota", json!(-1)),
    ];
    let rows = rows.map(|(key, value)| (format!("{key} = {value}"), update(with(key, value))));
    let text = table(rows);
    assert!(!text.contains("PASSES"), "{text}");
    insta::assert_snapshot!(text);
}
