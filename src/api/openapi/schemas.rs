//! Schemas of bodies: of the wire's types, by what these are read and written with.

use std::sync::LazyLock;

use schemars::{
    JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, transform::RecursiveTransform,
};
use serde_json::{Map, Value, json};

use super::reference;
use crate::wire::{
    Problem,
    envelope::Signature,
    frame::Frame,
    payload::{Cancel, Payload, rules},
    result::{Accepted, CancelAnswer, DrainAnswer, JobPage, JobStatus},
};

/// Every schema that the document refers to.
pub fn all() -> Map<String, Value> {
    static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
        let mut schemas = answers();
        for (name, schema) in requests() {
            let twice = schemas.insert(name.clone(), schema.clone());
            debug_assert!(twice.is_none_or(|other| other == schema), "two schemas are called {name}");
        }
        for (name, schema) in by_hand() {
            schemas.insert(name, schema);
        }
        schemas
    });
    SCHEMAS.clone()
}

/// What the agent writes: members that are always there are required.
fn answers() -> Map<String, Value> {
    let mut generator = settings().for_serialize().into_generator();
    add::<Accepted>(&mut generator);
    add::<JobStatus>(&mut generator);
    add::<JobPage>(&mut generator);
    add::<CancelAnswer>(&mut generator);
    add::<DrainAnswer>(&mut generator);
    add::<Frame>(&mut generator);
    add::<Problem>(&mut generator);
    generator.take_definitions(true)
}

/// What controllers write: members with a default may be absent.
fn requests() -> Map<String, Value> {
    let mut generator = settings().for_deserialize().into_generator();
    add::<Payload>(&mut generator);
    add::<Cancel>(&mut generator);
    add::<Signature<'static>>(&mut generator);
    generator.take_definitions(true)
}

/// JSON Schema as OpenAPI 3.1 has it, each type on a place of its own.
fn settings() -> SchemaSettings {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.with_transform(RecursiveTransform(plain))
}

/// Comments of the code are descriptions; a link of theirs leads nowhere here.
fn plain(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace("[`", "`").replace("`]", "`");
    }
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// What has no type of its own: the envelopes, whose payload is kept as bytes, and the monitors' answers.
fn by_hand() -> Map<String, Value> {
    let envelope = |payload: &str, what: &str| {
        json!({
            "type": "object",
            "description": what,
            "required": ["payload", "signature"],
            "additionalProperties": false,
            "properties": {
                "payload": reference("schemas", payload),
                "signature": reference("schemas", "Signature"),
            },
        })
    };
    let problems = json!({"type": "array", "items": {"type": "string"}, "description": "One sentence each."});
    let schemas = json!({
        "SignedJob": envelope("Payload", "A job. Signed are the exact bytes of `payload` as they stand here."),
        "SignedCancel": envelope("Cancel", "A wish to end a job. Signed are the exact bytes of `payload` as they stand here."),
        "TokenCancel": {
            "type": "object",
            "description": "A wish to end a job, beside a token.",
            "additionalProperties": false,
            "properties": {
                "reason": {"type": ["string", "null"], "maxLength": rules::MAX_REASON},
                "controller_id": {"type": ["string", "null"], "description": "Whose job, where the id alone does not say it."},
            },
        },
        "CancelRequest": {"anyOf": [reference("schemas", "SignedCancel"), reference("schemas", "TokenCancel")]},
        "Health": {
            "type": "object",
            "description": "The agent serves. Whether it takes jobs is what `ready` says; more members may come.",
            "required": ["status", "timestamp", "version", "uptime_seconds", "ready", "problems"],
            "properties": {
                "status": {"const": "healthy"},
                "timestamp": {"type": "integer", "description": "Unix seconds."},
                "version": {"type": "string"},
                "uptime_seconds": {"type": "integer", "minimum": 0},
                "ready": {"type": "boolean"},
                "problems": problems,
            },
        },
        "Live": {
            "type": "object",
            "required": ["status"],
            "properties": {"status": {"const": "live"}},
        },
        "Ready": {
            "type": "object",
            "required": ["status"],
            "properties": {"status": {"const": "ready"}},
        },
        "NotReady": {
            "type": "object",
            "required": ["status", "problems"],
            "properties": {"status": {"const": "not_ready"}, "problems": problems},
        },
        "Document": {
            "type": "object",
            "required": ["openapi", "info", "paths"],
            "properties": {"openapi": {"type": "string"}},
        },
    });
    match schemas {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
