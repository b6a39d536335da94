//! Every range that the documentation states, at its ends and just beyond them; and that it states every range there is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, SECRET, SECRET_2};
use crate::config::{load, section::Notes, size};

const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// Kinds of numbers, as the column "type" calls them. A range without such a word is one of whole numbers.
const KINDS: [&str; 5] = ["size", "duration", "count", "number", "cores"];

/// Rows of the reference: key and type.
fn rows() -> Vec<(&'static str, &'static str)> {
    let row = |line: &'static str| {
        let (key, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((key, rest.split(" |").next()?))
    };
    REFERENCE.lines().filter_map(row).collect()
}

/// What a row says of a number: its kind and its two ends, as written.
fn range(of: &'static str) -> Option<(&'static str, &'static str, &'static str)> {
    let (kind, ends) = match of.split_once(", ") {
        Some((kind, ends)) if KINDS.contains(&kind) => (kind, ends),
        Some(_) => return None,
        None => ("count", of),
    };
    let (low, high) = ends.split_once(" to ")?;
    high.bytes().all(|b| b.is_ascii_alphanumeric() || b". ".contains(&b)).then_some((kind, low, high))
}

/// The same value in its smallest unit, one step below and one above; `None`: there is nothing below.
fn steps(kind: &str, end: &str) -> (Option<String>, String) {
    let whole = |number: u64, unit: &str| {
        (number.checked_sub(1).map(|below| format!("{below}{unit}")), format!("{}{unit}", number + 1))
    };
    match kind {
        "size" => whole(size::size(end).unwrap(), ""),
        "duration" => whole(size::duration(end).unwrap().as_secs(), "s"),
        "count" => whole(end.parse().unwrap(), ""),
        "number" | "cores" => {
            let number: f64 = end.parse().unwrap();
            ((number >= 0.001).then(|| format!("{:.3}", number - 0.001)), format!("{:.3}", number + 0.001))
        }
        other => panic!("{other}"),
    }
}

/// A file in which that key has that value, and the others do not stand in its way.
fn file(key: &str, value: &str) -> String {
    let mut parts = key.rsplit('.');
    // No more are kept ready than the pool holds.
    let beside = if key == "pool.size" { ", max: 1000" } else { "" };
    let mut text = format!("{}: {value}{beside}", parts.next().unwrap_or_default());
    for part in parts {
        text = match part.strip_suffix("[]") {
            Some(list) => format!("{list}: [{{ id: a, keys: [{{ secret: {SECRET} }}], {text} }}]"),
            None => format!("{part}: {{ {text} }}"),
        };
    }
    // A maximum may not lie below its default.
    if key.contains("max.") || key.starts_with("max_limits.") {
        text += "\ndefault_cpu_limit: 0.01\ndefault_memory_limit: 16 MiB\ndefault_pids_limit: 4\n\
                 default_timeout_seconds: 1\ndefault_tmpfs_size: 64 KiB\n";
    }
    text
}

#[test]
fn both_ends_of_each_documented_range() {
    let place = Place::new();
    let mut tested = 0;
    for (key, of) in rows() {
        let Some((kind, low, high)) = range(of) else { continue };
        let named = format!(": {}: ", key.replace("[]", "[0]"));
        for inside in [low, high] {
            let faults = place.faults(&file(key, inside));
            assert_eq!(faults, "(none)", "{key}: {inside} is in the documented range");
        }
        // Below 0 there is no number at all.
        let below = steps(kind, low).0.unwrap_or_else(|| "-1".to_owned());
        for outside in [below, steps(kind, high).1] {
            let faults = place.faults(&file(key, &outside));
            assert_eq!(faults.lines().count(), 1, "{key}: {outside}: {faults}");
            assert!(faults.contains(&named), "{key}: {outside} is outside of the documented range: {faults}");
        }
        tested += 1;
    }
    assert!(tested > 60, "{tested}");
}

#[test]
fn the_reference_states_the_range_of_every_number() {
    let rows: BTreeMap<&str, &str> = rows().into_iter().collect();
    let stated: BTreeSet<&str> =
        rows.iter().filter(|(_, of)| range(of).is_some()).map(|(key, _)| *key).collect();
    // In the documentation: no number without a range.
    for (key, of) in &rows {
        let word = of.split(',').next().unwrap_or_default();
        assert!(!KINDS.contains(&word) || stated.contains(key), "`{key}` is a {word} without a range");
    }
    // In the code: no range that is not in the documentation.
    let place = Place::new();
    let path = place.put(
        "agent.yaml",
        "controllers: [{ keys: [{}], max_queued: 1, max_running: 1, daily: { cpu_seconds: 1, output: 1 } }]\n\
         daily_by_controller: { cpu_seconds: 1, output: 1 }\n",
    );
    let notes = Notes::new(&path);
    load::read(&notes, &|_| None).expect("a tree");
    let ranged = notes.ranged.take();
    assert!(ranged.len() > 60, "{ranged:?}");
    for key in &ranged {
        assert!(stated.contains(key.as_str()), "docs/configuration.md does not state the range of `{key}`");
    }
    for key in stated {
        let own = ["sandbox.uid", "sandbox.gid"].contains(&key);
        assert!(own || ranged.contains(key), "the code knows of no range of `{key}`");
    }
}

#[test]
fn texts_at_their_longest_and_one_longer() {
    let place = Place::new();
    let controller = |id: &str, key: &str, more: &str| {
        format!("controllers: [{{ id: {id}, keys: [{{ key_id: {key}, secret: {SECRET_2} }}], {more} }}]")
    };
    let x = |length: usize| "x".repeat(length);
    for (inside, outside) in [
        (format!("agent_id: {}", x(128)), format!("agent_id: {}", x(129))),
        (controller(&x(256), "k", ""), controller(&x(257), "k", "")),
        (controller("c", &x(256), ""), controller("c", &x(257), "")),
        (
            controller("c", "k", &format!("scopes: [{}]", x(128))),
            controller("c", "k", &format!("scopes: [{}]", x(129))),
        ),
        (format!("allowed_images: [{}]", x(512)), format!("allowed_images: [{}]", x(513))),
        (format!("sandbox: {{ workdir: /{} }}", x(254)), format!("sandbox: {{ workdir: /{} }}", x(255))),
        (format!("metrics_token: {}", &SECRET[..32]), format!("metrics_token: {}", &SECRET[..31])),
    ] {
        assert_eq!(place.faults(&inside), "(none)", "{inside}");
        assert_eq!(place.faults(&outside).lines().count(), 1, "{outside}");
    }
}
