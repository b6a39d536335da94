use serde_json::json;

use super::*;

#[test]
fn one_spelling_whatever_the_order_and_the_numbers() {
    let value: Value = serde_json::from_str(
        r#"{"b": [1, 2.50, 1e2, -0.0], "a": {"z": null, "ä": "é\u0001\n\"\\/", "B": true}, "n": 18446744073709551615}"#,
    )
    .unwrap();
    assert_eq!(
        String::from_utf8(canonical(&value)).unwrap(),
        "{\"a\":{\"B\":true,\"z\":null,\"ä\":\"é\\u0001\\n\\\"\\\\/\"},\"b\":[1,\"2.5\",\"100.0\",\"-0.0\"],\"n\":18446744073709551615}"
    );
}

#[test]
fn the_canonical_bytes_are_their_own_canonical_form() {
    let value = json!({"x": [0.25, {"k": "\u{7f}\u{2028}"}], "a": -1});
    let once = canonical(&value);
    assert_eq!(canonical(&serde_json::from_slice(&once).unwrap()), once);
}

#[test]
fn a_leaf_is_the_one_of_rfc_6962() {
    // The known answer of the empty leaf: SHA-256 of one zero byte.
    assert_eq!(
        hex::encode(leaf_hash(b"")),
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
}

#[test]
fn an_entry_says_its_number_time_and_kind() {
    let event =
        Event::Container { job: 7, controller_id: "c", job_id: "j", container_id: "abc", use_of: None };
    let entry = Entry::new(3, Timestamp(1_704_628_800_500_000_000), &event);
    assert_eq!(entry.kind, "job.container");
    assert_eq!(
        String::from_utf8(entry.bytes.clone()).unwrap(),
        r#"{"at":1704628800500000000,"container_id":"abc","controller_id":"c","entry":3,"job":7,"job_id":"j","kind":"job.container","time":"2024-01-07T12:00:00.5Z"}"#
    );
    assert_eq!(entry.leaf, leaf_hash(&entry.bytes));
}

#[test]
fn the_agents_own_entries_carry_their_kind_and_details() {
    let details = json!({"version": "0.1.0"});
    let entry = Entry::new(0, Timestamp(0), &Event::Agent { kind: "agent.started", details: &details });
    assert_eq!(entry.kind, "agent.started");
    let value: Value = serde_json::from_slice(&entry.bytes).unwrap();
    assert_eq!(value["details"]["version"], "0.1.0");
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let text = format!("{}é", "a".repeat(1023));
    assert_eq!(Event::cut(&text).len(), 1023);
    assert_eq!(Event::cut("short"), "short");
}

/// The entry of an accepted job is written by hand, because everybody waits for it: as the others are.
#[test]
fn a_draft_becomes_what_the_event_would() {
    for key_id in [None, Some("key \"1\"")] {
        for text in ["", "echo \u{1}\u{8}\t\n\u{c}\r\"\\/ \u{7f}é\u{2028}🦀", "plain"] {
            let submitted = Submitted {
                job: 71,
                controller_id: text,
                job_id: "j-1",
                key_id,
                peer: "192.0.2.1",
                payload_sha256: "00ff",
                prompt: text,
                command: text,
                risk_level: "low",
                image: "image@sha256:1",
            };
            let limits = json!({"pids": 3, "cpu": 0.5, "memory": 1_u64 << 40});
            let at = Timestamp(1_704_628_800_500_000_000);
            let draft = Draft::accepted(at, &submitted, &limits, "none", -5);
            let event = Event::Accepted { submitted, limits: &limits, network: "none", ttl: -5 };
            assert_eq!(draft.entry(12_345, 71), Entry::new(12_345, at, &event));
        }
    }
}
