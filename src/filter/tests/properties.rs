//! Changes that nobody thought of.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{ID, NAME, create, line, mould};
use crate::{
    config::Limits,
    filter::body,
    sandbox::{Mould, update_call},
};

/// What every container must have, whatever the agent's own code says: written down here a second time, by hand.
fn is_strong(body: &Value) -> Result<(), TestCaseError> {
    let host = body["HostConfig"].as_object().unwrap();
    prop_assert_eq!(&body["User"], "65532:65532");
    prop_assert_eq!(&host["Privileged"], false);
    prop_assert_eq!(&host["CapAdd"], &json!([]));
    prop_assert_eq!(&host["CapDrop"], &json!(["ALL"]));
    let options = host["SecurityOpt"].as_array().unwrap();
    prop_assert_eq!(options.len(), 2);
    prop_assert_eq!(&options[0], "no-new-privileges");
    let profile = options[1].as_str().unwrap().strip_prefix("seccomp=").unwrap();
    prop_assert_eq!(&serde_json::from_str::<Value>(profile).unwrap()["defaultAction"], "SCMP_ACT_ERRNO");
    prop_assert_eq!(&host["ReadonlyRootfs"], true);
    prop_assert!(host["MaskedPaths"].as_array().unwrap().len() >= 10);
    prop_assert!(host["ReadonlyPaths"].as_array().unwrap().len() >= 5);
    prop_assert_eq!(&host["Binds"], &json!([]));
    prop_assert_eq!(&host["Devices"], &json!([]));
    prop_assert_eq!(&host["NetworkMode"], "none");
    prop_assert_eq!(&host["IpcMode"], "private");
    prop_assert_eq!(&host["CgroupnsMode"], "private");
    for (n, mount) in host["Mounts"].as_array().unwrap().iter().enumerate() {
        if n == 0 {
            prop_assert_eq!(mount["Source"].as_str(), Some(&*format!("/var/lib/quickcmd/sandboxes/{NAME}")));
            prop_assert_eq!(&mount["ReadOnly"], true);
            prop_assert_eq!(&mount["BindOptions"]["NonRecursive"], true);
        } else {
            prop_assert_eq!(&mount["Type"], "tmpfs");
            prop_assert_eq!(mount.get("Source"), None);
        }
    }
    for name in ["Memory", "NanoCpus", "PidsLimit", "ShmSize"] {
        prop_assert!(host[name].as_i64().unwrap() > 0, "{}", name);
    }
    prop_assert_eq!(&host["Memory"], &host["MemorySwap"]);
    for name in [
        "PidMode",
        "UTSMode",
        "UsernsMode",
        "GroupAdd",
        "VolumesFrom",
        "DeviceRequests",
        "DeviceCgroupRules",
        "Sysctls",
        "CgroupParent",
        "Cgroup",
        "PortBindings",
        "Links",
        "ExtraHosts",
        "OomScoreAdj",
        "StorageOpt",
    ] {
        prop_assert!(!host.contains_key(name), "{}", name);
    }
    Ok(())
}

/// Every place of a body, as JSON pointers.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| {
            all.push(format!("{at}/{}", escaped(key)));
            places(inner, &format!("{at}/{}", escaped(key)), all);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, inner)| {
            all.push(format!("{at}/{n}"));
            places(inner, &format!("{at}/{n}"), all);
        }),
        _ => {}
    }
}

fn interesting() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(false),
            json!(0),
            json!(-1),
            json!(1),
            json!(i64::MAX),
            json!(1e9),
            json!(""),
            json!("/"),
            json!("host"),
            json!("ALL"),
            json!("unconfined"),
            json!("0:0"),
            json!("always"),
            json!([]),
            json!({}),
            json!(["ALL"]),
            json!(["host"]),
            json!({"Privileged": true}),
            json!("/etc"),
            json!("rw,exec,size=1"),
            json!("container:x"),
            json!("bridge"),
            json!("/proc"),
            json!("/../x"),
        ]),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
    ]
}

proptest! {
    /// Whatever is changed in a body, in one place or in several: it is refused, or is still strong.
    #[test]
    fn no_change_of_a_body_makes_a_weaker_sandbox(
        changes in prop::collection::vec((any::<prop::sample::Index>(), interesting(), 0..3u8), 1..4),
        key in prop::sample::select(vec![
            "Privileged", "privileged", "PidMode", "UsernsMode", "GroupAdd", "VolumesFrom", "DeviceRequests", "Sysctls",
            "CgroupParent", "PortBindings", "Target", "Source", "Type", "Runtime", "\u{212a}ernelMemory", "",
        ]),
    ) {
        let mut body = mould().create().unwrap();
        for (index, value, how) in changes {
            let mut all = vec![String::new()];
            places(&body, "", &mut all);
            let place = body.pointer_mut(all[index.index(all.len())].as_str()).unwrap();
            match (how, place) {
                (0, Value::Object(map)) => drop(map.insert(key.to_owned(), value)),
                (0, Value::Array(list)) => list.push(value),
                (1, Value::Array(list)) => drop(list.pop()),
                (_, place) => *place = value,
            }
        }
        if let Ok(sent) = create(&body) {
            prop_assert_eq!(&sent, &body);
            is_strong(&sent)?;
        }
    }

    /// Numbers and folders that the agent may choose pass, whatever they are.
    #[test]
    fn what_the_agent_may_choose_passes(
        cpu in 0.01..64.0f64,
        memory in 1u64..1 << 40,
        pids in 1u64..1 << 22,
        tmpfs in 1u64..1 << 40,
        workdir in "(/[a-z][a-z0-9._-]{0,8}){1,3}",
    ) {
        prop_assume!(!["/proc", "/sys", "/dev", "/tmp"].iter().any(|kernel| workdir.starts_with(kernel)));
        let limits = Limits { cpu, memory, pids, timeout_seconds: 1, tmpfs };
        let body = Mould { limits, workdir, volumes: Vec::new(), ..mould() }.create().unwrap();
        prop_assert_eq!(create(&body), Ok(body.clone()));
        is_strong(&body)?;
        let body = update_call(&limits).unwrap();
        prop_assert_eq!(body::update(body.to_string().as_bytes()), Ok(body.clone()));
    }

    /// A line that passes is written anew as one that passes and means the same.
    #[test]
    fn a_line_that_passes_means_one_thing(
        method in prop::sample::select(vec!["GET", "POST", "DELETE", "PUT"]),
        parts in prop::collection::vec(prop::sample::select(vec![
            "containers", "images", "json", "create", "start", "kill", "..", "", "v1.41", "_ping", ID, NAME, "alpine", "%2e",
        ]), 1..5),
        query in prop::sample::select(vec![
            "", "all=true", "signal=SIGKILL", "name=quickcmd-0123abcd-1", "v=true&force=true", "fromImage=a&tag=b",
        ]),
    ) {
        let target = format!("/{}?{query}", parts.join("/"));
        if let Ok(asked) = line(method, &target) {
            let again = line(asked.method().as_str(), &asked.target()).unwrap();
            prop_assert_eq!(&again, &asked);
            prop_assert!(!asked.target().contains(".."));
        }
    }
}
