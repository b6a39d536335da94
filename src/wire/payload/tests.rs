use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::wire::{Code, Problem};

fn base() -> Value {
    json!({
        "job_id": "job-1", "prompt": "", "command": "true", "candidate_metadata": null,
        "plugin_metadata": null, "required_scopes": null, "snapshot_metadata": "",
        "ttl": 1_704_628_800, "timestamp": 1_704_628_500, "controller_id": "c"
    })
}

/// The base with some members set (null for argv and such is as good as absent).
fn parse(changes: &Value) -> Result<Payload, Problem> {
    let mut payload = base();
    for (name, value) in changes.as_object().unwrap() {
        payload[name] = value.clone();
    }
    Payload::parse(&payload.to_string())
}

#[track_caller]
fn refused(changes: &Value, field: &str) {
    let problem = parse(changes).unwrap_err();
    assert_eq!(problem.code, Code::InvalidField, "{problem:?}");
    assert_eq!(problem.more["field"], field, "{problem:?}");
    assert!(problem.details.as_ref().unwrap().starts_with(&format!("`{field}`: ")), "{problem:?}");
}

#[track_caller]
fn taken(changes: &Value) -> Payload {
    parse(changes).unwrap()
}

#[test]
fn v1_payloads_are_taken() {
    let payload = taken(&json!({}));
    assert_eq!(payload.program(), ["/bin/sh", "-c", "true"]);
    assert_eq!(payload.risk_level(), "medium");
    let full = taken(&json!({
        "candidate_metadata": {"risk_level": "safe", "n": [1e21, null]},
        "plugin_metadata": {}, "required_scopes": ["git:read"]
    }));
    assert_eq!(full.risk_level(), "safe");
    // What has a natural empty value may be left out.
    let short = json!({"job_id": "a", "command": "id", "ttl": 2, "timestamp": 1, "controller_id": "c"});
    let short = Payload::parse(&short.to_string()).unwrap();
    assert_eq!((short.prompt.as_str(), &short.required_scopes), ("", &None));
}

#[test]
fn what_is_parsed_reads_back_from_what_it_serialises_to() {
    let payload = taken(&json!({"command": "", "argv": ["id", "-u"], "agent_id": "a1", "sandbox": {
        "image": "alpine:latest", "cpu_limit": 0.5, "memory_limit": 33_554_432, "pids_limit": 64,
        "timeout_seconds": 5, "tmpfs_size": 65_536, "network": "bridge", "env": {"A": "1"},
        "secret_env": {"_b2": ""}, "workdir": "/work/x", "stdin": {"base64": "AP8="},
        "files": [{"path": "a", "content": "", "encoding": "base64", "mode": "0700"}], "artifacts": ["/tmp/x"]
    }}));
    assert_eq!(payload.sandbox.as_ref().unwrap().stdin.as_ref().unwrap().bytes(), [0, 255]);
    assert_eq!(payload.command_text(), "id -u");
    assert_eq!(Payload::parse(&serde_json::to_string(&payload).unwrap()).unwrap(), payload);
}

#[test]
fn unknown_fields_are_named() {
    for (changes, field) in [
        (json!({"extra": 1}), "extra"),
        (json!({"sandbox": {"privileged": true}}), "sandbox.privileged"),
        (json!({"sandbox": {"stdin": {"hex": "00"}}}), "sandbox.stdin.hex"),
        (json!({"action": "cancel"}), "action"),
    ] {
        let problem = parse(&changes).unwrap_err();
        assert_eq!((problem.code, &problem.more["field"]), (Code::UnknownField, &json!(field)));
    }
}

#[test]
fn wrong_types_are_named() {
    for name in ["job_id", "prompt", "command", "snapshot_metadata", "controller_id", "agent_id"] {
        refused(&json!({name: 1}), name);
        refused(&json!({name: ["a"]}), name);
    }
    for name in ["ttl", "timestamp"] {
        for value in [json!("1"), json!(1.5), json!(1.0), json!(null), json!(1e300), json!(u64::MAX)] {
            refused(&json!({name: value}), name);
        }
    }
    for name in ["candidate_metadata", "plugin_metadata", "sandbox"] {
        refused(&json!({name: []}), name);
        refused(&json!({name: "x"}), name);
    }
    for name in ["required_scopes", "argv"] {
        refused(&json!({"command": if name == "argv" { "" } else { "true" }, name: "x"}), name);
    }
    refused(&json!({"required_scopes": ["a", null]}), "required_scopes.1");
    refused(&json!({"command": "", "argv": ["a", 1]}), "argv.1");
    for name in ["memory_limit", "pids_limit", "timeout_seconds", "tmpfs_size"] {
        for value in [json!("1"), json!(-1), json!(0), json!(1e9), json!(1.5), json!(1e30)] {
            refused(&json!({"sandbox": {name: value}}), &format!("sandbox.{name}"));
        }
    }
    for name in ["image", "network", "workdir", "stdin", "env", "secret_env", "cpu_limit"] {
        refused(&json!({"sandbox": {name: true}}), &format!("sandbox.{name}"));
    }
}

#[test]
fn job_ids() {
    let longest = "a".repeat(128);
    for good in ["a", "A-Z_0.9:x", longest.as_str()] {
        assert_eq!(taken(&json!({"job_id": good})).job_id, good);
    }
    let too_long = "a".repeat(129);
    for bad in ["", "a b", "a/b", "a\n", "ä", "a\0", too_long.as_str()] {
        refused(&json!({"job_id": bad}), "job_id");
    }
}

#[test]
fn texts_scopes_and_names_are_bounded() {
    for name in ["prompt", "snapshot_metadata"] {
        taken(&json!({name: "x".repeat(rules::MAX_TEXT)}));
        refused(&json!({name: "x".repeat(rules::MAX_TEXT + 1)}), name);
    }
    taken(&json!({"required_scopes": vec!["s"; rules::MAX_SCOPES]}));
    refused(&json!({"required_scopes": vec!["s"; rules::MAX_SCOPES + 1]}), "required_scopes");
    refused(&json!({"required_scopes": [""]}), "required_scopes.0");
    refused(&json!({"required_scopes": ["a\nb"]}), "required_scopes.0");
    refused(&json!({"agent_id": ""}), "agent_id");
}

#[test]
fn exactly_one_of_command_and_argv() {
    taken(&json!({"command": "x".repeat(rules::MAX_COMMAND)}));
    refused(&json!({"command": "x".repeat(rules::MAX_COMMAND + 1)}), "command");
    // What Linux takes as one argument, with its NUL.
    assert_eq!((rules::MAX_COMMAND, rules::MAX_ARGV_ITEM), (131_071, 131_071));
    refused(&json!({"command": ""}), "command");
    refused(&json!({"command": "a\0b"}), "command");
    refused(&json!({"command": "id", "argv": ["id"]}), "argv");
    refused(&json!({"command": "", "argv": []}), "argv");
    refused(&json!({"command": "", "argv": ["", "x"]}), "argv.0");
    refused(&json!({"command": "", "argv": ["a", "b\0"]}), "argv.1");
    let item = "x".repeat(rules::MAX_ARGV_ITEM);
    taken(&json!({"command": "", "argv": ["a", item]}));
    refused(&json!({"command": "", "argv": ["a", format!("{item}x")]}), "argv.1");
    refused(&json!({"command": "", "argv": vec![item; 5]}), "argv");
    taken(&json!({"command": "", "argv": vec!["x"; rules::MAX_ARGV_ITEMS]}));
    refused(&json!({"command": "", "argv": vec!["x"; rules::MAX_ARGV_ITEMS + 1]}), "argv");
    // An empty item is an argument like any other; so are newlines and flags.
    taken(&json!({"command": "", "argv": ["a", "", "--privileged", "x\ny"]}));
}

#[test]
fn environment() {
    taken(&json!({"sandbox": {"env": {"A": "", "_x9": "multi\nline"}, "secret_env": {"B": "s"}}}));
    for name in ["", "1A", "A-B", "A=B", "A B", "Ä", "A\0"] {
        refused(&json!({"sandbox": {"env": {name: "x"}}}), "sandbox.env");
    }
    refused(&json!({"sandbox": {"env": {"A": 1}}}), "sandbox.env.A");
    refused(&json!({"sandbox": {"env": {"A": null}}}), "sandbox.env.A");
    refused(&json!({"sandbox": {"secret_env": {"A": "x\0"}}}), "sandbox.secret_env.A");
    refused(&json!({"sandbox": {"env": {"A": "1"}, "secret_env": {"A": "1"}}}), "sandbox.secret_env.A");
    let long = "x".repeat(rules::MAX_ENV_VALUE + 1);
    refused(&json!({"sandbox": {"env": {"A": long}}}), "sandbox.env.A");
    let many: Map<String, Value> =
        (0..=rules::MAX_ENV_ENTRIES).map(|i| (format!("A{i}"), json!(""))).collect();
    refused(&json!({"sandbox": {"env": many}}), "sandbox.env");
    let half = "x".repeat(rules::MAX_SECRETS / 2);
    taken(&json!({"sandbox": {"env": {"A": half, "B": half, "C": "x"}}}));
    taken(&json!({"sandbox": {"secret_env": {"A": half, "B": half}}}));
    refused(&json!({"sandbox": {"secret_env": {"A": half, "B": half, "C": "x"}}}), "sandbox.secret_env");
}

#[test]
fn workdirs() {
    for good in ["/", "/work", "/work/a b", "/process", "/devices/x", "/a/...", "/.quickcmd2"] {
        taken(&json!({"sandbox": {"workdir": good}}));
    }
    for bad in [
        "",
        "work",
        "./work",
        "/work/",
        "//",
        "//work",
        "/a//b",
        "/a/./b",
        "/a/..",
        "/proc",
        "/proc/self/fd/7",
        "/sys/fs",
        "/dev",
        "/dev/shm",
        "/.quickcmd",
        "/.quickcmd/x",
        "/a\0b",
        "/a\nb",
        "/tmp/../proc/1",
    ] {
        refused(&json!({"sandbox": {"workdir": bad}}), "sandbox.workdir");
    }
}

#[test]
fn limits_have_a_least_value() {
    for (name, least) in [
        ("memory_limit", rules::MIN_MEMORY),
        ("pids_limit", rules::MIN_PIDS),
        ("timeout_seconds", rules::MIN_TIMEOUT),
        ("tmpfs_size", rules::MIN_TMPFS),
    ] {
        taken(&json!({"sandbox": {name: least}}));
        taken(&json!({"sandbox": {name: u64::MAX}}));
        refused(&json!({"sandbox": {name: least - 1}}), &format!("sandbox.{name}"));
    }
    for good in [json!(0.01), json!(1), json!(64.5)] {
        taken(&json!({"sandbox": {"cpu_limit": good}}));
    }
    for bad in [json!(0), json!(-1), json!(0.009), json!("1"), json!(1e-320)] {
        refused(&json!({"sandbox": {"cpu_limit": bad}}), "sandbox.cpu_limit");
    }
}

#[test]
fn stdin_image_network_and_what_is_not_built() {
    assert_eq!(
        taken(&json!({"sandbox": {"stdin": "h\u{e9}\0"}})).sandbox.unwrap().stdin.unwrap().bytes(),
        "h\u{e9}\0".as_bytes()
    );
    refused(&json!({"sandbox": {"stdin": {"base64": "AP8"}}}), "sandbox.stdin.base64");
    refused(&json!({"sandbox": {"stdin": {"base64": "_-8="}}}), "sandbox.stdin.base64");
    refused(&json!({"sandbox": {"stdin": {}}}), "sandbox.stdin.base64");
    refused(&json!({"sandbox": {"image": ""}}), "sandbox.image");
    refused(&json!({"sandbox": {"image": "a b"}}), "sandbox.image");
    refused(&json!({"sandbox": {"network": "host"}}), "sandbox.network");
}

#[test]
fn files_and_artifacts() {
    let files = |files: Value| json!({"sandbox": {"files": files}});
    let artifacts = |paths: Value| json!({"sandbox": {"artifacts": paths}});
    let file = |path: &str| json!({"path": path, "content": "x"});
    let sandbox = taken(&files(json!([
        {"path": "a", "content": "h\u{e9}"},
        {"path": "/tmp/b/c", "content": "AP8=", "encoding": "base64", "mode": "0755"},
        {"path": "...", "content": "", "encoding": "utf-8", "mode": "600"},
    ])));
    let list = sandbox.sandbox.unwrap().files.unwrap();
    assert_eq!((list[0].bytes(), list[0].mode_bits()), ("h\u{e9}".as_bytes().to_vec(), 0o644));
    assert_eq!((list[1].bytes(), list[1].mode_bits()), (vec![0, 255], 0o755));
    assert_eq!((list[2].bytes(), list[2].mode_bits()), (vec![], 0o600));
    assert!(!format!("{list:?}").contains("AP8"));

    let (long, longest) = ("x".repeat(513), "x".repeat(512));
    taken(&files(json!([file(&longest)])));
    taken(&artifacts(json!([longest])));
    for bad in [
        "",
        "/",
        "..",
        "../x",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "a\0",
        "a\nb",
        "/proc/self/mem",
        "/sys",
        "/dev/shm/x",
        "/.quickcmd/init",
        long.as_str(),
    ] {
        refused(&files(json!([file(bad)])), "sandbox.files.0.path");
        refused(&artifacts(json!(["ok", bad])), "sandbox.artifacts.1");
    }
    for mode in ["4755", "01777", "9", "778", "+75", "", "0x7"] {
        refused(&files(json!([{"path": "a", "content": "", "mode": mode}])), "sandbox.files.0.mode");
    }
    refused(&files(json!([{"path": "a", "content": "", "mode": 420}])), "sandbox.files.0.mode");
    refused(&files(json!([{"path": "a", "content": "", "encoding": "hex"}])), "sandbox.files.0.encoding");
    refused(
        &files(json!([{"path": "a", "content": "AP8", "encoding": "base64"}])),
        "sandbox.files.0.content",
    );
    refused(&files(json!([{"path": "a"}])), "sandbox.files.0.content");
    refused(&files(json!([file("a"), "b"])), "sandbox.files.1");
    refused(&files(json!([file("a"), file("a")])), "sandbox.files.1.path");
    refused(&files(json!({})), "sandbox.files");
    refused(&files(json!(vec![file("a"); 65])), "sandbox.files");
    let problem = parse(&files(json!([{"path": "a", "content": "", "owner": "root"}]))).unwrap_err();
    assert_eq!((problem.code, &problem.more["field"]), (Code::UnknownField, &json!("sandbox.files.0.owner")));

    taken(&artifacts(json!(["out", "output", "/tmp/out", "out.txt"])));
    for clash in [["a", "a"], ["a/b", "a"], ["a", "a/b/c"], ["/tmp/x", "tmp/x"], ["/tmp", "tmp/x"]] {
        refused(&artifacts(json!(clash)), "sandbox.artifacts.1");
    }
    let with = |secret: &str, path: &str| json!({"sandbox": {"secret_env": {"T": secret}, "artifacts": ["ok", path]}});
    refused(&with("hunter2", "hunter2"), "sandbox.artifacts.1");
    refused(&with("hunter2", "/tmp/the-hunter2.log"), "sandbox.artifacts.1");
    refused(&with("first-long-line\nsecond", "first-long-line"), "sandbox.artifacts.1");
    // What is too short to be masked anywhere.
    taken(&with("out", "out"));
    refused(&artifacts(json!([1])), "sandbox.artifacts.0");
    refused(&artifacts(json!("a")), "sandbox.artifacts");
    refused(&artifacts(json!((0..65).map(|n| n.to_string()).collect::<Vec<_>>())), "sandbox.artifacts");
}

/// The numbers of docs/protocol.md, as they stand there.
#[test]
fn both_sides_of_each_number_of_the_contract() {
    let x = |length: usize| "x".repeat(length);
    let env = |entries: usize| -> Map<String, Value> {
        (0..entries).map(|n| (format!("A{n}"), json!(""))).collect()
    };
    let files = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"path": n.to_string(), "content": ""})).collect()
    };
    let paths = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let argv = |items: Vec<String>| json!({"command": "", "argv": items});
    let in_sandbox = |name: &str, value: Value| json!({"sandbox": {name: value}});
    let (env_a, secrets) = (
        |length: usize| in_sandbox("env", json!({"A": x(length)})),
        |length: usize| in_sandbox("secret_env", json!({"A": x(65_535), "B": x(length - 65_535)})),
    );
    // Four items of which none is too long.
    let in_all =
        |length: usize| argv(vec![x(131_071), x(131_071), x(131_071), x(131_071), x(length - 524_284)]);
    for (inside, outside, field) in [
        (json!({"job_id": x(128)}), json!({"job_id": x(129)}), "job_id"),
        (json!({"prompt": x(65_536)}), json!({"prompt": x(65_537)}), "prompt"),
        (
            json!({"snapshot_metadata": x(65_536)}),
            json!({"snapshot_metadata": x(65_537)}),
            "snapshot_metadata",
        ),
        (json!({"command": x(131_071)}), json!({"command": x(131_072)}), "command"),
        (
            json!({"required_scopes": vec!["s"; 64]}),
            json!({"required_scopes": vec!["s"; 65]}),
            "required_scopes",
        ),
        (json!({"required_scopes": [x(256)]}), json!({"required_scopes": [x(257)]}), "required_scopes.0"),
        (json!({"agent_id": x(256)}), json!({"agent_id": x(257)}), "agent_id"),
        (argv(vec![x(1); 1_024]), argv(vec![x(1); 1_025]), "argv"),
        (argv(vec![x(131_071)]), argv(vec![x(131_072)]), "argv.0"),
        (in_all(524_288), in_all(524_289), "argv"),
        (in_sandbox("image", json!(x(512))), in_sandbox("image", json!(x(513))), "sandbox.image"),
        (in_sandbox("cpu_limit", json!(0.01)), in_sandbox("cpu_limit", json!(0.009)), "sandbox.cpu_limit"),
        (
            in_sandbox("memory_limit", json!(16_777_216)),
            in_sandbox("memory_limit", json!(16_777_215)),
            "sandbox.memory_limit",
        ),
        (in_sandbox("pids_limit", json!(2)), in_sandbox("pids_limit", json!(1)), "sandbox.pids_limit"),
        (
            in_sandbox("timeout_seconds", json!(1)),
            in_sandbox("timeout_seconds", json!(0)),
            "sandbox.timeout_seconds",
        ),
        (
            in_sandbox("tmpfs_size", json!(65_536)),
            in_sandbox("tmpfs_size", json!(65_535)),
            "sandbox.tmpfs_size",
        ),
        (in_sandbox("env", json!(env(256))), in_sandbox("env", json!(env(257))), "sandbox.env"),
        (in_sandbox("env", json!({x(128): ""})), in_sandbox("env", json!({x(129): ""})), "sandbox.env"),
        (env_a(65_536), env_a(65_537), "sandbox.env.A"),
        (
            in_sandbox("secret_env", json!(env(256))),
            in_sandbox("secret_env", json!(env(257))),
            "sandbox.secret_env",
        ),
        (secrets(65_536), secrets(65_537), "sandbox.secret_env"),
        (
            in_sandbox("workdir", json!(format!("/{}", x(1_023)))),
            in_sandbox("workdir", json!(format!("/{}", x(1_024)))),
            "sandbox.workdir",
        ),
        (in_sandbox("files", json!(files(64))), in_sandbox("files", json!(files(65))), "sandbox.files"),
        (
            in_sandbox("artifacts", json!(paths(64))),
            in_sandbox("artifacts", json!(paths(65))),
            "sandbox.artifacts",
        ),
        (
            in_sandbox("files", json!([{"path": x(512), "content": ""}])),
            in_sandbox("files", json!([{"path": x(513), "content": ""}])),
            "sandbox.files.0.path",
        ),
        (
            in_sandbox("artifacts", json!([x(512)])),
            in_sandbox("artifacts", json!([x(513)])),
            "sandbox.artifacts.0",
        ),
    ] {
        if let Err(problem) = parse(&inside) {
            panic!("{field} at its limit: {:?}", problem.details);
        }
        refused(&outside, field);
    }
    let risk = |length: usize| {
        taken(&json!({"candidate_metadata": {"risk_level": x(length)}})).risk_level().to_owned()
    };
    assert_eq!((risk(32), risk(33)), (x(32), "medium".to_owned()));
    let cancel = |reason: usize| {
        let text = json!({"action": "cancel", "job_id": "a", "timestamp": 1, "ttl": 2, "controller_id": "c",
                          "reason": x(reason)});
        Cancel::from_map(text.as_object().unwrap().clone()).map(drop).map_err(|problem| problem.code)
    };
    assert_eq!((cancel(1_024), cancel(1_025)), (Ok(()), Err(Code::InvalidField)));
}

#[test]
fn debug_shows_no_secret_values() {
    let payload = taken(&json!({"sandbox": {"secret_env": {"TOKEN": "hunter2"}, "stdin": "hunter2"}}));
    assert!(!format!("{payload:?}").contains("hunter2"));
    assert_eq!(payload.secrets().collect::<Vec<_>>(), ["hunter2"]);
}

/// Any JSON, not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        // Eighths are exact: the JSON reader may be off by the last bit of others, which is why nothing that
        // was signed is ever serialised again.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "\\PC{0,12}".prop_map(Value::from),
        "/?[a-z./]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z_]{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_taken_or_refused_by_name(
        field in proptest::sample::select(vec![
            "job_id", "prompt", "command", "candidate_metadata", "plugin_metadata", "required_scopes",
            "snapshot_metadata", "ttl", "timestamp", "controller_id", "agent_id", "argv", "sandbox", "other",
        ]),
        inner in proptest::option::of(proptest::sample::select(vec![
            "image", "cpu_limit", "memory_limit", "pids_limit", "timeout_seconds", "tmpfs_size", "network",
            "env", "secret_env", "workdir", "stdin", "files", "artifacts", "other",
        ])),
        value in any_json(),
    ) {
        let changes = match inner {
            Some(inner) => json!({"sandbox": {inner: value}}),
            None => json!({field: value}),
        };
        match parse(&changes) {
            Ok(payload) => {
                let again = Payload::parse(&serde_json::to_string(&payload).unwrap());
                prop_assert_eq!(again.unwrap(), payload);
            }
            Err(problem) => {
                prop_assert!(matches!(problem.code, Code::InvalidField | Code::UnknownField));
                prop_assert!(problem.more.contains_key("field"));
            }
        }
    }
}
