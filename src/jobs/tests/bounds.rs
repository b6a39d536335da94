//! No payload makes a container weaker than the configuration: whatever is signed, what Docker is asked for is the
//! same but for the limits, which stay below the controller's, and a network that is granted.

use std::{cell::Cell, collections::HashMap};

use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};

use super::*;
use crate::{
    gate::Admitted,
    sandbox::{Image, Label, Shape, create_body, job_labels, update_body},
};

/// What a payload may ask for, in and out of reason.
fn wish() -> impl Strategy<Value = (String, Value)> {
    let words = prop_oneof![
        Just("--privileged".to_owned()),
        Just("host".to_owned()),
        Just("bridge".to_owned()),
        Just("none".to_owned()),
        Just("container:x".to_owned()),
        Just("i".to_owned()),
        Just("j".to_owned()),
        Just("/".to_owned()),
        Just("/work".to_owned()),
        Just("/var/run/docker.sock".to_owned()),
        "[ -~]{0,20}",
    ];
    let number = prop_oneof![
        any::<u64>().prop_map(Value::from),
        (0u64..1 << 32).prop_map(Value::from),
        (0u64..600).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u32..100).prop_map(|n| Value::from(f64::from(n) / 16.0)),
    ];
    let leaf =
        prop_oneof![number.clone(), words.clone().prop_map(Value::from), any::<bool>().prop_map(Value::from)];
    let list = prop::collection::vec(words.clone(), 0..4).prop_map(Value::from);
    let map = prop::collection::hash_map("[A-Z_a-z]{1,8}", words.clone(), 0..4)
        .prop_map(|map| map.into_iter().collect::<Value>());
    // Mostly what is known, with values of its type.
    let limits = prop::sample::select(vec![
        "cpu_limit",
        "memory_limit",
        "pids_limit",
        "timeout_seconds",
        "tmpfs_size",
    ]);
    let texts = prop::sample::select(vec!["image", "network", "workdir", "stdin"]);
    let maps = prop::sample::select(vec!["env", "secret_env"]);
    let strange = prop::sample::select(vec![
        "privileged",
        "Privileged",
        "HostConfig",
        "Binds",
        "CapAdd",
        "Devices",
        "user",
        "runtime",
        "security_opt",
        "labels",
        "image",
        "files",
        "artifacts",
    ]);
    prop_oneof![
        6 => (limits, number).prop_map(|(name, value)| (name.to_owned(), value)),
        4 => (texts, words.prop_map(Value::from)).prop_map(|(name, value)| (name.to_owned(), value)),
        2 => (maps, map.clone()).prop_map(|(name, value)| (name.to_owned(), value)),
        2 => (Just("artifacts".to_owned()), list.clone()),
        1 => (strange, prop_oneof![leaf, list, map]).prop_map(|(name, value)| (name.to_owned(), value)),
    ]
}

/// The create call for an admitted job.
fn asked_of_docker(config: &Config, admitted: &Admitted) -> (Value, Value) {
    let image = Image {
        reference: admitted.image().to_owned(),
        id: "sha256:1".to_owned(),
        digest: "i@sha256:1".to_owned(),
        env: Vec::new(),
    };
    let shape = Shape {
        image,
        limits: admitted.limits(),
        network: admitted.network(),
        class: super::super::CLASS.to_owned(),
        reuse: 1,
    };
    let label = Label {
        row: 1,
        job_id: admitted.payload().job_id.clone(),
        payload_sha256: admitted.payload_sha256().to_owned(),
        attempt: 1,
    };
    let labels: HashMap<String, String> = job_labels(&label);
    let body =
        create_body(&config.sandbox, &shape, "/data/sandboxes/x", &["/data".to_owned()], labels).unwrap();
    (serde_json::to_value(body).unwrap(), serde_json::to_value(update_body(&shape.limits)).unwrap())
}

/// Takes a number out, that is from 1 to so many, or the most that Docker's numbers hold.
fn within(value: &mut Value, most: u64) {
    let number = value.take();
    let found = number.as_u64();
    assert!(found.is_some_and(|found| found >= 1 && found <= most), "{number} is not from 1 to {most}");
}

/// Checks what may differ, and takes it out.
fn reduced(mut body: Value, admitted: &Admitted, max: &crate::config::Limits, network: bool) -> Value {
    let host = &mut body["HostConfig"];
    within(&mut host["MemorySwap"], max.memory);
    within(&mut host["Memory"], max.memory);
    within(&mut host["PidsLimit"], max.pids);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cores are few")]
    within(&mut host["NanoCpus"], (max.cpu * 1e9) as u64);
    for (_, options) in host["Tmpfs"].as_object_mut().unwrap() {
        let kept: Vec<&str> = options.as_str().unwrap().split(',').collect();
        let number = |name: &str| {
            let found: Vec<_> = kept.iter().filter_map(|option| option.strip_prefix(name)).collect();
            assert_eq!(found.len(), 1, "{kept:?}");
            found[0].parse::<u64>().unwrap()
        };
        assert!((1..=max.tmpfs).contains(&number("size=")), "{kept:?}");
        assert!((1..=max.tmpfs).contains(&number("nr_inodes=")), "{kept:?}");
        let rest =
            kept.iter().filter(|option| !option.starts_with("size=") && !option.starts_with("nr_inodes="));
        *options = rest.copied().collect::<Vec<_>>().join(",").into();
    }
    for mount in host["Mounts"].as_array_mut().unwrap() {
        if mount["Type"] == "tmpfs" {
            within(&mut mount["TmpfsOptions"]["SizeBytes"], max.tmpfs);
        }
    }
    let mode = host["NetworkMode"].take();
    assert!(mode == "none" || (network && mode == "bridge"), "network {mode}");
    assert_eq!(body["NetworkDisabled"].take(), mode == "none");
    let labels = body["Labels"].take();
    assert_eq!(labels[crate::sandbox::LABEL_JOB], admitted.payload().job_id);
    let names: Vec<&String> = labels.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 4, "{names:?}");
    body
}

#[test]
fn no_payload_makes_a_container_weaker_than_the_configuration() {
    let folder = dir();
    let path = folder.path().join("agent.yaml");
    let text = format!(
        "listen: 127.0.0.1\nport: 0\ndefault_image: i\nallowed_images: [i, j]\naudit_db_path: {}/db\n\
         controllers:\n  - {{id: one, keys: [{{secret: {SECRET}}}], max: {{cpu: 2, memory: 1 GiB, pids: 512, tmpfs: 128 MiB}}}}\n\
         \x20 - {{id: two, keys: [{{secret: {SECRET}-2}}], network: true, max: {{cpu: 1, memory: 512 MiB, pids: 300, tmpfs: 64 MiB}}}}\n",
        folder.path().display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let config = config(folder.path());
    let gate = Gate::new(&config.gate, config.server.read_access).unwrap();
    let now = Timestamp::from_secs(1_704_628_500);
    let submit = |controller: &str, sandbox: Value| {
        let payload = json!({
            "job_id": "a-job", "command": "true", "ttl": now.secs() + 60, "timestamp": now.secs(),
            "controller_id": controller, "sandbox": sandbox, "candidate_metadata": {"HostConfig": {"Privileged": true}},
        });
        let secret = if controller == "one" { SECRET.to_owned() } else { format!("{SECRET}-2") };
        let body = envelope::sign(payload.to_string().as_bytes(), &SigningKey::hmac(secret.as_bytes()));
        gate.submit(&body, now)
    };
    let controller = |id: &str| config.gate.controllers.iter().find(|one| one.id == id).unwrap();

    let plain = submit("one", json!({})).unwrap();
    let (body, _) = asked_of_docker(&config, &plain);
    for (name, value) in [
        ("Privileged", json!(false)),
        ("CapDrop", json!(["ALL"])),
        ("CapAdd", json!([])),
        ("ReadonlyRootfs", json!(true)),
        ("Binds", json!([])),
        ("Devices", json!([])),
        ("IpcMode", json!("private")),
        // The daemon's own user namespace is never left.
        ("UsernsMode", Value::Null),
        ("PidMode", Value::Null),
        ("UTSMode", Value::Null),
    ] {
        assert_eq!(body["HostConfig"][name], value, "{name}");
    }
    let expected = reduced(body, &plain, &controller("one").max, false);

    let admitted = Cell::new(0);
    let wishes = (any::<bool>(), prop::collection::vec(wish(), 0..4));
    let mut runner = TestRunner::new(Cases { cases: 1500, failure_persistence: None, ..Cases::default() });
    let held = runner.run(&wishes, |(first, wishes)| {
        let id = if first { "one" } else { "two" };
        let sandbox: serde_json::Map<String, Value> = wishes.into_iter().collect();
        // A refusal makes no container at all.
        let Ok(job) = submit(id, Value::Object(sandbox)) else { return Ok(()) };
        admitted.set(admitted.get() + 1);
        let controller = controller(id);
        let (body, update) = asked_of_docker(&config, &job);
        prop_assert_eq!(reduced(body, &job, &controller.max, controller.network), expected.clone());
        let Value::Object(mut update) = update else { panic!("an object") };
        for (name, most) in [
            ("Memory", controller.max.memory),
            ("MemorySwap", controller.max.memory),
            ("PidsLimit", controller.max.pids),
        ] {
            within(update.get_mut(name).unwrap(), most);
            update.remove(name);
        }
        update.remove("NanoCpus");
        prop_assert!(update.is_empty(), "a waiting sandbox is changed in {:?}", update);
        Ok(())
    });
    held.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(admitted.get() > 100, "only {} of these were admitted", admitted.get());
}
