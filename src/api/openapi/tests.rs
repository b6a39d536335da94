use std::collections::BTreeSet;

use super::*;

/// The document as it is kept: `QUICKCMD_WRITE_OPENAPI=1` writes it anew.
#[test]
fn the_page_is_the_document_of_this_code() {
    let text = format!("{:#}\n", document());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os("QUICKCMD_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == text,
        "docs/openapi.json is another document: write it anew with `QUICKCMD_WRITE_OPENAPI=1 cargo test --lib \
         api::openapi` and read the difference"
    );
}

/// Paths and methods of the router, as its source has them.
fn routed() -> BTreeSet<(String, String)> {
    let router = include_str!("../router.rs");
    let mut found = BTreeSet::new();
    for route in router.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        let handlers = route.split(".layer(").next().unwrap();
        for method in ["get", "post", "put", "patch", "delete"] {
            if handlers.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == method) {
                // The rest of a path is a parameter like others.
                found.insert((path.replace("{*", "{"), method.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let described = OPERATIONS.iter().map(|one| (one.path.to_owned(), one.method.to_owned()));
    assert_eq!(described.collect::<BTreeSet<_>>(), routed());
}

/// Collects every `$ref`.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.insert(target.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere_and_nothing_lies_about() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for target in &found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
    for kind in ["schemas", "parameters", "headers"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let target = format!("#/components/{kind}/{name}");
            // A frame is a message of the stream, which OpenAPI has no place for.
            assert!(found.contains(&target) || name == "Frame", "nobody refers to {target}");
        }
    }
}

/// Codes of other endpoints than these two are some operation's: else one could be answered unannounced.
#[test]
fn every_code_is_some_operations_answer() {
    let described: BTreeSet<&str> =
        OPERATIONS.iter().flat_map(|one| one.refusals.concat()).map(Code::as_str).collect();
    let missing: Vec<&str> =
        Code::ALL.iter().map(|code| code.as_str()).filter(|code| !described.contains(code)).collect();
    assert_eq!(missing, ["NOT_FOUND", "METHOD_NOT_ALLOWED"], "no route answers with these");
}
