//! Every fault, by snapshot: one clear line that says where, what and what to do.

use super::{Place, SECRET, SECRET_2, loaded};

/// The faults of each text under its heading.
fn report(cases: &[&str]) -> String {
    let place = Place::new();
    place.pair("a");
    place.pair("b");
    place.put("short.secret", "short\n");
    place.put("binary.secret", [0xff; 40]);
    place.put("public.secret", SECRET);
    place.mode("public.secret", 0o644);
    place.put("no.pem", "hello");
    place.put("bad-policy.yaml", "deny:\n  - name: x\n    patern: y\n");
    place.put("list.yaml", "- a\n");
    let mut report = String::new();
    for case in cases {
        report += &format!("{case}\n{}\n\n", place.faults(case));
    }
    report
}

/// Whole controllers with the given group of keys.
fn controller(id: &str, keys: &str) -> String {
    format!("  - {{ id: {id}, keys: [{keys}] }}\n")
}

#[test]
fn faults_of_the_file() {
    insta::assert_snapshot!(report(&[
        "port: [8443",
        "just words",
        "- port: 8443",
        "port: 8443\n---\nport: 8443",
        "a: &x 1\nport: *x",
        "? [1]\n: 2",
        "prot: 8443",
        "Port: 8443",
        "hmac-secret: x",
        "colour: blue",
        "pool: { sise: 3 }",
        "pool: { colour: 3 }",
        "port: 1\nlisten: 127.0.0.1\nport: 2",
        "pool:\n  size: 1\n  size: 2",
    ]));
}

#[test]
fn faults_of_plain_values() {
    insta::assert_snapshot!(report(&[
        "port: 65536",
        "port: -1",
        "port: eighty",
        "port: [1, 2]",
        "port: { a: 1 }",
        "port: \"\"",
        "listen: localhost",
        "listen: 0.0.0.0",
        "agent_id: \"two words\"",
        "read_access: open",
        "audience: maybe",
        "allowed_origins: https://x.example.com",
        "allowed_origins: [\"https://x.example.com/\", \"*\"]",
        "max_body_bytes: 64M",
        "max_body_bytes: 1 KiB",
        "rate_exempt: [10.0.0.0/33, ten]",
        "rate_by_address: { per_second: -1, burst: 0 }",
        "connections: 12",
        "max_concurrent_jobs: 0",
        "max_concurrent_jobs: 1.5",
        "grace: 1 minute",
        "freshness: { max_age: 0 }",
        "log: { level: \"a=b=c\", json: yes }",
        "log: { level: loud }",
        "log: { level: \"info,quickcmd::jobs\" }",
        "log: { level: \"\" }",
        "audit_db_path: \"\"",
    ]));
}

#[test]
fn faults_of_the_sandbox() {
    insta::assert_snapshot!(report(&[
        "default_image: debian:latest",
        "allowed_images: []",
        "allowed_images: alpine:latest",
        "allowed_images: [\"two words\"]",
        "default_memory_limit: lots",
        "default_memory_limit: 5 MiB",
        "default_cpu_limit: 0",
        "default_timeout_seconds: 1500ms",
        "max_limits: { memory: 128 MiB, cpu: 0.25, pids: 100, timeout_seconds: 10, tmpfs: 1 MiB }",
        "docker_host: \"tcp://127.0.0.1:2375\"",
        "docker_host: /var/run/docker.sock",
        "docker_host: unix://docker.sock",
        "docker_host: unix:///var/run/",
        &format!("docker_host: unix:///{}", "a".repeat(107)),
        "pull_policy: sometimes",
        "sandbox: { uid: 0, gid: 0 }",
        "sandbox: { uid: 4294967295 }",
        "sandbox: { workdir: /proc/self }",
        "sandbox: { workdir: work }",
        "sandbox: { workdir: /tmp }",
        "sandbox: { workdir: / }",
        "sandbox: { workdir: /usr/bin }",
        "sandbox: { workdir: /a/../b }",
        "sandbox: { runtimes: { \"*\": \"a b\" } }",
        "pool: { size: 9, max: 8 }",
        "output: { limit: 1 }",
        "storage: { retention: 1s }",
    ]));
}

#[test]
fn faults_of_certificates() {
    insta::assert_snapshot!(report(&[
        "tls_cert_file: a-cert.pem",
        "tls_key_file: a-key.pem",
        "tls_cert_file: none.pem\ntls_key_file: none-key.pem",
        "tls_cert_file: a-cert.pem\ntls_key_file: b-key.pem",
        "tls_cert_file: no.pem\ntls_key_file: no.pem",
        "tls_cert_file: a-key.pem\ntls_key_file: a-cert.pem",
        "tls_cert_file: .\ntls_key_file: a-key.pem",
        "tls_cert_file: [a]\ntls_key_file: { b: c }",
    ]));
}

#[test]
fn faults_of_secrets() {
    let both = format!("hmac_secret: {SECRET}\nhmac_secret_file: short.secret\nallowed_controllers: [c]");
    let cases = [
        "allowed_controllers: [c]".to_owned(),
        "hmac_secret: CHANGE_ME\nallowed_controllers: [c]".to_owned(),
        "hmac_secret: CHANGE_ME_please_with_something_long_enough\nallowed_controllers: [c]".to_owned(),
        format!("hmac_secret: {}\nallowed_controllers: [c]", &SECRET[..31]),
        "hmac_secret: [a]\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_file: none.secret\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_file: short.secret\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_file: binary.secret\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_file: public.secret\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_env: NOT_SET\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_credential: hmac\nallowed_controllers: [c]".to_owned(),
        "hmac_secret_credential: ../hmac\nallowed_controllers: [c]".to_owned(),
        both,
        "metrics_token: short".to_owned(),
        format!("hmac_secret: ed25519:{SECRET}\nallowed_controllers: [c]"),
    ];
    let report = report(&cases.each_ref().map(String::as_str));
    let answers = report.lines().filter(|line| line.starts_with("[dir]"));
    assert!(answers.clone().all(|line| !line.contains(&SECRET[..8])), "a secret is shown");
    insta::assert_snapshot!(report.replace(SECRET, "<secret>").replace(&SECRET[..31], "<31 bytes>"));
}

#[test]
fn faults_of_controllers() {
    let (a, b) = (format!("{{ secret: {SECRET} }}"), format!("{{ secret: {SECRET_2} }}"));
    let cases = [
        format!("hmac_secret: {SECRET}\nallowed_controllers: [one, one, \"two words\", \"\"]"),
        format!("hmac_secret: {SECRET}\nallowed_controllers: [one]\ncontrollers:\n{}", controller("one", &b)),
        format!("controllers:\n{}{}", controller("one", &a), controller("one", &b)),
        format!("controllers:\n{}{}", controller("one", &a), controller("two", &a)),
        format!("hmac_secret: {SECRET}\nallowed_controllers: [one]\ncontrollers:\n{}", controller("two", &a)),
        format!("controllers:\n{}", controller("one", &format!("{a}, {a}"))),
        format!(
            "controllers:\n{}",
            controller(
                "one",
                &format!("{{ key_id: k, secret: {SECRET} }}, {{ key_id: k, secret: {SECRET_2} }}")
            )
        ),
        "controllers:\n  - scopes: []".to_owned(),
        "controllers: [one]".to_owned(),
        format!("controllers:\n{}", controller("one", "")),
        format!("controllers:\n{}", controller("one", "{ key_id: k }")),
        format!("controllers:\n{}", controller("one/1", &format!("{{ key_id: 2026/01, secret: {SECRET} }}"))),
        format!("controllers:\n{}", controller("one", "{ public_key: beef }")),
        format!("controllers:\n{}", controller("one", "{ public_key_file: no.pem }")),
        format!("controllers:\n{}", controller("one", &format!("{{ public_key: \"ed25519:{SECRET}\" }}"))),
        format!("controllers:\n{}", controller("one", &format!("{{ secret: \"ed25519:{SECRET}\" }}"))),
        format!("controllers:\n{}", controller("one", &format!("{{ secret: {SECRET}, public_key: beef }}"))),
        format!(
            "controllers:\n{}",
            controller(
                "one",
                &format!(
                    "{{ secret: {SECRET}, not_before: 2026-03-02T00:00:00Z, not_after: 2026-03-01T00:00:00Z }}"
                )
            )
        ),
        format!(
            "controllers:\n{}",
            controller("one", &format!("{{ secret: {SECRET}, not_after: 2026-03-01 }}"))
        ),
        format!(
            "controllers:\n  - id: one\n    keys: [{a}]\n    scopes: [\"a b\", \"x*\"]\n    images: []\n    \
             max: {{ memory: 1 MiB, cpu: 0.1 }}\n    network: host\n    rate: {{ burst: 0 }}\n    max_queued: 0\n    \
             colour: blue"
        ),
        format!(
            "controllers:\n  - id: one\n    keys: [{a}]\n    revoked: yes\n    max_running: 0\n    \
             rate_of_reads: {{ per_second: x }}\n    daily: {{ cpu_seconds: 0, output: many, bytes: 1 }}"
        ),
        // A revoked controller's key is still nobody else's.
        format!("controllers:\n  - {{ id: one, revoked: true, keys: [{a}] }}\n{}", controller("two", &a)),
    ];
    let report = report(&cases.each_ref().map(String::as_str));
    insta::assert_snapshot!(report.replace(SECRET, "<secret>").replace(SECRET_2, "<secret 2>"));
}

#[test]
fn faults_of_client_certificates() {
    let tls = "tls_cert_file: a-cert.pem\ntls_key_file: a-key.pem\n";
    let clients = |clients: &str| format!("{tls}tls: {{ client_ca: b-cert.pem, clients: [{clients}] }}");
    let cases = [
        "tls: { client_ca: b-cert.pem }".to_owned(),
        format!("{tls}tls: {{ client_auth: required }}"),
        format!("{tls}tls: {{ client_ca: none.pem }}"),
        format!("{tls}tls: {{ client_ca: no.pem, client_auth: maybe, colour: blue }}"),
        clients("{}"),
        clients("{ name: \"a b\", uri: x, scopes: [all] }"),
        clients("{ name: a, dns: \"*.example.com\", scopes: [read] }"),
        clients("{ name: a, fingerprint: abcd, controller: c }"),
        clients("{ name: a, dns: a.example.com, uri: \"a://b\", scopes: [read] }"),
        clients("{ name: a, dns: a.example.com }"),
        clients("{ name: a, dns: a.example.com, controller: c, scopes: [admin] }"),
        clients(
            "{ name: a, dns: a.example.com, scopes: [read] }, { name: a, dns: b.example.com, scopes: [read] }, \
             { name: c, dns: A.example.com, scopes: [read] }",
        ),
        format!("{tls}tls: {{ revoked: [] }}"),
        format!("{tls}tls: {{ client_ca: b-cert.pem, revoked: [abcd, 7] }}"),
    ];
    insta::assert_snapshot!(report(&cases.each_ref().map(String::as_str)));
}

#[test]
fn faults_of_the_policy() {
    insta::assert_snapshot!(report(&[
        "policy: { deny: [{ name: x, pattern: \"(\" }] }",
        "policy: { deny: [{ name: x, pattern: \"\" }] }",
        "policy: { deny: [{ name: x }, { pattern: y }] }",
        "policy: { deny: [{ name: x, pattern: y }, { name: x, pattern: z }] }",
        "policy: { deny: [rm] }",
        "policy: { deny: [{ name: x, pattern: \"a{1000}{1000}{1000}\" }] }",
        "policy: { built_in: true, deny: [{ name: mkfs, pattern: x }] }",
        "policy_file: none.yaml",
        "policy_file: bad-policy.yaml",
        "policy_file: list.yaml",
        "policy: { deny: [] }\npolicy_file: list.yaml",
    ]));
}

#[test]
fn all_faults_come_at_once_in_the_order_of_the_file() {
    insta::assert_snapshot!(report(&[
        "port: 70000\nhmac_secret: CHANGE_ME\nallowed_controllers: [a, a]\nmax_concurent_jobs: 5\n\
         allowed_images: []\nsandbox: { uid: 0 }\ndefault_memory_limit: many\ntls_cert_file: none.pem",
    ]));
}

/// What is no range of one key: those are in `limits`.
#[test]
fn both_sides_of_each_rule() {
    let place = Place::new();
    for (inside, outside) in [
        ("max_limits: { memory: 268435456 }", "max_limits: { memory: 268435455 }"),
        ("max_limits: { cpu: 0.5 }", "max_limits: { cpu: 0.49 }"),
        ("max_limits: { pids: 256 }", "max_limits: { pids: 255 }"),
        ("max_limits: { timeout_seconds: 300 }", "max_limits: { timeout_seconds: 299 }"),
        ("max_limits: { tmpfs: 64 MiB }", "max_limits: { tmpfs: 67108863 }"),
        ("pool: { size: 8 }", "pool: { size: 9 }"),
        ("on_revoke: cancel-all", "on_revoke: all"),
        ("agent_id: a", "agent_id: a/b"),
        ("sandbox: { workdir: /usr/src }", "sandbox: { workdir: /usr }"),
        ("sandbox: { workdir: /etc/job }", "sandbox: { workdir: /etc }"),
        ("sandbox: { workdir: /binary }", "sandbox: { workdir: /bin }"),
        ("log: { level: \"info,quickcmd::jobs=debug\" }", "log: { level: \"info,quickcmd::jobs\" }"),
        ("log: { level: WARN }", "log: { level: loud }"),
        ("rate_exempt: [10.0.0.0/32]", "rate_exempt: [10.0.0.0/33]"),
    ] {
        loaded(inside);
        assert_ne!(place.faults(outside), "(none)", "{outside}");
    }
}
