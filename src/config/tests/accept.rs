//! What loads, and what it means.

use std::time::Duration;

use secrecy::ExposeSecret;

use super::{Place, SECRET, SECRET_2, SEED, loaded};
use crate::{
    base::clock::Timestamp,
    config::{Config, Daily, Limits, PullPolicy, ReadAccess, TlsName},
    wire::key::Algorithm,
};

/// The seed's file with a real secret and files that exist.
fn seed(place: &Place) -> String {
    place.pair("agent");
    SEED.replace("CHANGE_ME", SECRET).replace("/etc/quickcmd", &place.dir().display().to_string())
}

#[test]
fn the_seed_as_written_lacks_only_a_secret_and_certificates() {
    let place = Place::new();
    let text = SEED.replace("/etc/quickcmd", &place.dir().display().to_string());
    insta::assert_snapshot!(place.faults(&text));
}

#[test]
fn the_seed_loads_with_its_own_values() {
    let place = Place::new();
    let config = place.load(&seed(&place)).expect("the seed's file loads");
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:8443");
    let tls = config.server.tls.expect("a certificate");
    assert_eq!((tls.cert, tls.key), (place.path("agent-cert.pem"), place.path("agent-key.pem")));
    let ids: Vec<_> = config.gate.controllers.iter().map(|controller| controller.id.as_str()).collect();
    assert_eq!(ids, ["controller-1", "https://quickcmd.example.com"]);
    for controller in &config.gate.controllers {
        assert_eq!(controller.scopes, ["*"]);
        assert!(!controller.admin && !controller.network);
        // The text as written, hex digits not decoded: what the first QuickCMD signs with.
        assert_eq!(controller.keys[0].material.expose_secret(), SECRET.as_bytes());
    }
    assert_eq!(config.gate.shared_keys.len(), 1);
    assert_eq!(config.jobs.max_concurrent_jobs, 5);
    assert_eq!(config.gate.allowed_images, ["alpine:latest", "ubuntu:latest"]);
    assert_eq!(config.gate.default_image, "alpine:latest");
    assert_eq!((config.run_as.user.as_str(), config.run_as.group.as_str()), ("quickcmd", "quickcmd"));
    assert_eq!(
        config.gate.defaults,
        Limits { cpu: 0.5, memory: 268_435_456, pids: 256, timeout_seconds: 300, tmpfs: 64 << 20 }
    );
    assert_eq!(config.audit_db_path.to_str(), Some("/var/lib/quickcmd/agent-audit.db"));
    assert_eq!(config.data_dir.to_str(), Some("/var/lib/quickcmd"));
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn an_empty_file_has_the_same_defaults_on_loopback_and_a_warning() {
    let config = loaded("");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8443");
    assert_eq!(config.server.read_access, ReadAccess::Signed);
    assert_eq!(config.sandbox.pull_policy, PullPolicy::IfNotPresent);
    assert_eq!((config.sandbox.uid, config.sandbox.gid), (65_532, 65_532));
    assert_eq!(config.gate.allowed_images, ["alpine:latest", "ubuntu:latest"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    assert_eq!(config.agent_id, host.trim());
    assert_eq!(config.gate.agent_id, config.agent_id);
    assert!(config.warnings.iter().any(|warning| warning.contains("nobody can submit")));
}

#[test]
fn data_dir_and_relative_paths() {
    let place = Place::new();
    let config = place.load("audit_db_path: state/a.db").expect("loads");
    assert_eq!(config.audit_db_path, place.path("state/a.db"));
    assert_eq!(config.data_dir, place.path("state"));
    let config = place.load("audit_db_path: /a/b.db\ndata_dir: /c").expect("loads");
    assert_eq!(config.data_dir.to_str(), Some("/c"));
}

#[test]
fn a_secret_of_digits_stays_the_text_it_is() {
    for text in [
        "0000000000000000000000000000000000000001",
        "12345678901234567890123456789012e5",
        "0x11223344556677889900aabbccddeeff",
    ] {
        let config = loaded(&format!("hmac_secret: {text}\nallowed_controllers: [1e3, no, 007]"));
        assert_eq!(config.gate.shared_keys[0].material.expose_secret(), text.as_bytes());
        let ids: Vec<_> = config.gate.controllers.iter().map(|controller| controller.id.as_str()).collect();
        assert_eq!(ids, ["1e3", "no", "007"]);
    }
}

#[test]
fn secrets_come_from_files_the_environment_and_systemd() {
    let place = Place::new();
    place.put("s", format!("{SECRET}\n"));
    let env = |name: &str| match name {
        "MY_SECRET" => Some(SECRET.to_owned()),
        "CREDENTIALS_DIRECTORY" => Some(place.dir().display().to_string()),
        _ => None,
    };
    for source in ["hmac_secret_file: s", "hmac_secret_env: MY_SECRET", "hmac_secret_credential: s"] {
        let config = place.load_with(&format!("{source}\nallowed_controllers: [c]"), &env).expect(source);
        assert_eq!(config.gate.shared_keys[0].material.expose_secret(), SECRET.as_bytes(), "{source}");
    }
}

#[test]
fn a_controller_with_everything() {
    let place = Place::new();
    place.put("s", SECRET);
    let config = place
        .load(&format!(
            r#"
controllers:
  - id: deploy
    keys:
      - {{ key_id: old, secret_file: s, not_after: "2026-04-01T00:00:00Z" }}
      - {{ key_id: new, secret: "{SECRET_2}", not_before: 2026-03-01T00:00:00+01:00 }}
      - public_key: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    scopes: ["deploy:*", read]
    images: ["debian:12"]
    max: {{ memory: 512 MiB, timeout_seconds: 10m }}
    network: bridge
    rate: {{ per_second: 0.5, burst: 3 }}
    max_queued: 7
    reuse: 50
    max_running: 2
    rate_of_reads: {{ per_second: 9, burst: 90 }}
    daily: {{ cpu_seconds: 1h, output: 5 MiB }}
  - id: gone
    revoked: true
    keys: [{{ secret: "gone {SECRET}" }}]
  - id: operator
    keys: [{{ secret: "another {SECRET}" }}]
    scopes: ["*", admin]
"#
        ))
        .expect("loads");
    assert_eq!(config.gate.revoked, ["gone"], "it is in no list");
    let [deploy, operator] = config.gate.controllers.as_slice() else { panic!("two controllers") };
    assert_eq!(deploy.keys.len(), 3);
    assert_eq!(deploy.keys[0].not_after, Some(Timestamp::from_secs(1_775_001_600)));
    assert_eq!(deploy.keys[1].not_before, Some(Timestamp::from_secs(1_772_319_600)));
    assert_eq!(deploy.keys[2].algorithm, Algorithm::Ed25519);
    assert_eq!(deploy.keys[2].material.expose_secret().len(), 32);
    assert_eq!(deploy.images.as_deref(), Some(&["debian:12".to_owned()][..]));
    // What is not written is `max_limits`.
    assert_eq!(
        deploy.max,
        Limits { cpu: 2.0, memory: 512 << 20, pids: 1024, timeout_seconds: 600, tmpfs: 512 << 20 }
    );
    assert!(deploy.network && !deploy.admin);
    assert_eq!((deploy.rate.per_second, deploy.rate.burst, deploy.max_queued), (0.5, 3, Some(7)));
    assert_eq!((deploy.max_running, deploy.rate_of_reads.burst), (Some(2), 90));
    let daily = Daily { cpu_seconds: Some(3600), output_bytes: Some(5 << 20) };
    assert_eq!((deploy.daily, operator.daily), (daily, Daily::default()));
    assert_eq!((deploy.reuse, operator.reuse), (50, 1), "off unless it is said");
    assert!(
        operator.admin && !operator.network && operator.images.is_none() && operator.max_queued.is_none()
    );
    assert!(config.gate.shared_keys.is_empty());
}

#[test]
fn public_keys_in_every_form_are_the_same_key() {
    let place = Place::new();
    place.put(
        "k.pem",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n",
    );
    for source in [
        "public_key: d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "public_key: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        "public_key_file: k.pem",
    ] {
        let config =
            place.load(&format!("controllers: [{{ id: a, keys: [{{ {source} }}] }}]")).expect(source);
        let key = &config.gate.controllers[0].keys[0];
        assert_eq!(key.algorithm, Algorithm::Ed25519);
        assert_eq!(
            hex::encode(key.material.expose_secret()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }
}

#[test]
fn a_default_above_the_usual_maximum_raises_that() {
    let config = loaded(&format!(
        "default_memory_limit: 4 GiB\ndefault_timeout_seconds: 2h\nhmac_secret: {SECRET}\nallowed_controllers: [c]"
    ));
    assert_eq!(config.gate.controllers[0].max.memory, 4 << 30);
    assert_eq!(config.gate.controllers[0].max.timeout_seconds, 7200);
}

#[test]
fn without_a_default_image_the_lists_first_is_taken() {
    assert_eq!(loaded("allowed_images: [debian:12, alpine:3]").gate.default_image, "debian:12");
    assert_eq!(loaded("allowed_images: [debian:12, alpine:latest]").gate.default_image, "alpine:latest");
}

#[test]
fn sections_are_read() {
    let config = loaded(
        "listen: ::1\nport: 0\nsandbox: { uid: 1000, workdir: /home/job, runtimes: { \"*\": runsc } }\n\
         grace: 500ms\nrate_exempt: [192.0.2.1, 10.0.0.0/8]\nread_access: job-id\naudience: required\n\
         storage: { record_retention: 0 }\nlog: { level: \"quickcmd=debug\", json: true }\npool: { max: 0 }",
    );
    assert_eq!(config.server.listen.to_string(), "[::1]:0");
    assert_eq!((config.sandbox.uid, config.sandbox.gid), (1000, 65_532));
    assert_eq!(config.sandbox.workdir, "/home/job");
    assert_eq!(config.sandbox.runtimes, [("*".to_owned(), "runsc".to_owned())]);
    assert_eq!(config.jobs.grace, Duration::from_millis(500));
    assert_eq!(config.server.rate_exempt.len(), 2);
    assert_eq!(config.server.read_access, ReadAccess::JobId);
    assert!(config.gate.audience_required && config.log.json);
    assert!(config.storage.record_retention.is_zero());
    assert_eq!((config.sandbox.pool.size, config.sandbox.pool.max), (0, 0));
}

#[test]
fn an_audience_without_names_is_warned_of_where_reads_are_signed() {
    let warned = |other: &str| loaded(other).warnings.iter().any(|warning| warning.contains("`authorities`"));
    assert!(warned("audience: required"));
    for enough in [
        "audience: optional",
        "audience: required\nread_access: job-id",
        "audience: required\nauthorities: [agent.example.com]",
    ] {
        assert!(!warned(enough), "{enough}");
    }
    let names = loaded("authorities: [Agent.example.com, \"10.0.0.2:8443\", \"[::1]\"]").gate.authorities;
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["agent.example.com", "10.0.0.2:8443", "[::1]"]);
    let place = Place::new();
    for wrong in
        ["authorities: []", "authorities: [\"https://agent\"]", "authorities: agent", "authorities: [\"*\"]"]
    {
        assert!(place.faults(wrong).contains("authorities"), "{wrong}: {}", place.faults(wrong));
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let place = Place::new();
    let config: Config = place
        .load(&format!(
            "hmac_secret: {SECRET}\nallowed_controllers: [a]\nmetrics_token: token-{SECRET}\n\
             controllers: [{{ id: b, keys: [{{ key_id: k, secret: {SECRET_2} }}] }}]"
        ))
        .expect("loads");
    let shown = format!("{config:?}\n{}", config.describe().join("\n"));
    for part in [&SECRET[..16], &SECRET_2[..16], &hex::encode(&SECRET[..8])] {
        assert!(!shown.contains(part));
    }
}

#[test]
fn what_a_controller_may_is_shown_where_it_is_not_what_all_may() {
    let lines = |more: &str| {
        let config =
            loaded(&format!("controllers: [{{ id: b, keys: [{{ key_id: k, secret: {SECRET_2} }}]{more} }}]"));
        let shown = config.describe();
        shown.into_iter().find(|line| line.starts_with("controller:     b ")).expect("it is listed")
    };
    let plain = lines("");
    assert!(plain.ends_with(" of tmpfs)"), "{plain}");
    let own = lines(
        ", images: [debian:12], network: bridge, max_queued: 9, max_running: 2, reuse: 50, \
         daily: { cpu_seconds: 1h, output: 1 GiB }",
    );
    let more = "; images debian:12; network bridge; 9 waiting; 2 at once; \
                3600 s of processor and 1 GiB of output a day; 50 jobs in one sandbox)";
    assert_eq!(own, format!("{}{more}", plain.trim_end_matches(')')));
    assert!(lines(", daily: { output: 5 MiB }").ends_with("; 5 MiB of output a day)"));
}

#[test]
fn what_only_a_restart_changes_is_named() {
    let place = Place::new();
    place.pair("agent");
    let with = |more: &str| {
        let text = format!(
            "tls_cert_file: agent-cert.pem\ntls_key_file: agent-key.pem\nhmac_secret: {SECRET}\n\
             allowed_controllers: [one]\nagent_id: here\n{more}"
        );
        place.load(&text).unwrap_or_else(|faults| panic!("{faults}"))
    };
    let old = with("");
    let soft = "max_concurrent_jobs: 7\ndrain_timeout: 3s\nread_access: job-id\npolicy: { built_in: false }\n\
                output: { limit: 1 KiB }\nstorage: { retention: 1h }\ndefault_cpu_limit: 1\nallowed_images: [a]\n\
                default_image: a\nmax_body_bytes: 8 KiB\nrate_by_address: { burst: 1 }\n";
    assert_eq!(old.needs_restart(&with(soft)), [""; 0]);
    let hard = "port: 1\nconnections: { idle_timeout: 5s }\ndocker_host: unix:///x\npull_policy: never\n\
                sandbox: { workdir: /elsewhere, nofile: 99 }\npool: { size: 0 }\nlog: { json: true }\ndata_dir: /x\n";
    assert_eq!(
        old.needs_restart(&with(hard)),
        [
            "port",
            "connections.idle_timeout",
            "docker_host",
            "pull_policy",
            "sandbox.workdir",
            "sandbox.nofile",
            "pool",
            "data_dir",
            "log"
        ]
    );
}

#[test]
fn a_controller_whose_keys_have_all_expired_is_warned_of() {
    let warnings = |other: &str| {
        let text = format!(
            "controllers:\n  - id: one\n    keys:\n      - {{ secret: {SECRET}, not_after: 2020-01-01T00:00:00Z }}\n{other}"
        );
        loaded(&text).warnings.join("\n")
    };
    assert!(warnings("").contains("every key of controller \"one\" has expired"), "{}", warnings(""));
    let valid = warnings(&format!("      - {{ secret: {SECRET_2} }}\n"));
    assert!(!valid.contains("expired"), "{valid}");
}

#[test]
fn client_certificates_are_known_by_one_name_each() {
    let place = Place::new();
    place.pair("agent");
    place.pair("ca");
    let config = place
        .load(
            "tls_cert_file: agent-cert.pem\ntls_key_file: agent-key.pem\ntls:\n  client_ca: ca-cert.pem\n  \
             client_auth: required\n  clients:\n    - { name: a, uri: \"spiffe://x/a\", scopes: [read] }\n    \
             - { name: b, dns: B.example.com, controller: gone }\n    \
             - { name: c, fingerprint: \"AB:CD00112233445566778899aabbccddeeff00112233445566778899aabbccdd\", scopes: [admin] }\n  \
             revoked: [\"00:CD00112233445566778899aabbccddeeff00112233445566778899aabbccdd\"]\n",
        )
        .unwrap_or_else(|faults| panic!("{faults}"));
    let tls = config.server.client_tls.expect("it is there");
    assert!(tls.required && tls.roots.len() == 1);
    let [a, b, c] = tls.clients.as_slice() else { panic!("three clients") };
    assert_eq!((&a.by, a.rights.to_string()), (&TlsName::Uri("spiffe://x/a".to_owned()), "read".to_owned()));
    assert_eq!(b.by, TlsName::Dns("b.example.com".to_owned()));
    assert_eq!(
        (b.controller.as_deref(), b.rights.to_string()),
        (Some("gone"), "submit read operate".to_owned())
    );
    assert!(matches!(c.by, TlsName::Fingerprint(hash) if hash[..2] == [0xab, 0xcd]));
    assert!(matches!(tls.revoked[..], [hash] if hash[..3] == [0, 0xcd, 0]));
    // Who revokes a controller must not be held up by what is left of it here.
    assert!(config.warnings.iter().any(|warning| warning.contains("\"gone\"")), "{:?}", config.warnings);
    assert!(loaded("").server.client_tls.is_none());
}
