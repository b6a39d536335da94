//! The example and the documentation say what the code does.

use std::collections::BTreeSet;

use super::{Place, SECRET, SECRET_2};
use crate::config::{Config, EXAMPLE, load, policy::built_in, section::Notes};

const REFERENCE: &str = include_str!("../../../docs/configuration.md");
const POLICY: &str = include_str!("../../../examples/policy.yaml");

/// The example with real files, and with commented-out lines that begin with `marker` uncommented.
fn example(place: &Place, uncomment: impl Fn(&str) -> Option<&str>) -> String {
    place.pair("agent");
    let lines: Vec<&str> = EXAMPLE.lines().map(|line| uncomment(line).unwrap_or(line)).collect();
    let text = lines.join("\n").replace("CHANGE_ME", SECRET);
    text.replace("/etc/quickcmd", &place.dir().display().to_string())
}

/// `#key: value` and what is indented below it; `# words` is prose.
fn default_line(line: &str) -> Option<&str> {
    let rest = line.strip_prefix('#')?;
    (rest.starts_with("  ") || rest.starts_with(|c: char| c.is_ascii_lowercase())).then_some(rest)
}

fn everything(config: &Config) -> String {
    format!("{config:#?}")
}

#[test]
fn every_default_that_the_example_states_is_the_codes_own() {
    let place = Place::new();
    let plain = place.load(&example(&place, |_| None)).expect("the example loads");
    let stated = place.load(&example(&place, default_line)).expect("with its defaults uncommented, too");
    assert_eq!(everything(&plain), everything(&stated));
    // The keys that it sets have the values that they would have anyway.
    let fewest = format!(
        "tls_cert_file: agent-cert.pem\ntls_key_file: agent-key.pem\nhmac_secret: {SECRET}\n\
         allowed_controllers: [controller-1, \"https://quickcmd.example.com\"]"
    );
    assert_eq!(everything(&plain), everything(&place.load(&fewest).expect("loads")));
}

#[test]
fn the_examples_in_the_example_load() {
    let place = Place::new();
    place.pair("clients");
    std::fs::rename(place.path("clients-cert.pem"), place.path("clients-ca.pem")).expect("renamed");
    place.put("metrics-token", format!("token-{SECRET}"));
    place.put("deploy-2026-01.secret", SECRET_2);
    place.put("deploy-2026-03.secret", format!("new {SECRET_2}"));
    place.put("operator.pub", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n");
    // One source of the secret, and one of the policy, is enough.
    let text = example(&place, |line| {
        line.strip_prefix("## ")
            .filter(|line| !line.starts_with("hmac_secret_") && !line.starts_with("policy_file"))
    });
    let config = place.load(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.gate.controllers.len(), 4);
    assert_eq!(config.sandbox.runtimes.len(), 1);
    assert!(config.gate.policy.deny.iter().any(|rule| rule.name == "no-crypto-mining"));
}

#[test]
fn the_example_states_and_the_reference_explains_every_key() {
    let place = Place::new();
    let path = place.put(
        "agent.yaml",
        "controllers: [{ keys: [{}] }]\ntls: { clients: [{}] }\npolicy: { deny: [{}] }\nsandbox: { runtimes: {} }\n",
    );
    let notes = Notes::new(&path);
    load::read(&notes, &|_| None).expect("a tree");
    let asked: BTreeSet<String> = notes.asked.take();
    assert!(asked.len() > 80, "{asked:?}");
    for key in &asked {
        assert!(REFERENCE.contains(&format!("`{key}`")), "docs/configuration.md does not explain `{key}`");
        let last = key.rsplit('.').next().expect("a name");
        let optional = ["secret", "secret_env", "secret_credential", "public_key", "metrics_token"];
        assert!(
            EXAMPLE.contains(&format!("{last}:")) || optional.contains(&last),
            "the example does not mention {key}"
        );
    }
}

#[test]
fn the_example_policy_loads_and_adds_to_the_built_in_rules() {
    let place = Place::new();
    place.put("policy.yaml", POLICY);
    let config = place.load("policy_file: policy.yaml").unwrap_or_else(|faults| panic!("{faults}"));
    let built_in = place.load("").expect("loads").gate.policy.deny.len();
    assert!(config.gate.policy.deny.len() > built_in);
    assert!(config.gate.policy.allow.is_empty());
}

#[test]
fn the_reference_names_every_built_in_rule() {
    for rule in built_in() {
        assert!(REFERENCE.contains(&format!("`{}`", rule.name)), "{}", rule.name);
    }
}
