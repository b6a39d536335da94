//! The interface as an OpenAPI 3.1 document, made of the types that are read and written, of the codes and of
//! the limits: `docs/openapi.json` and `GET /api/v1/openapi.json` are what [`document`] gives.

mod operations;
mod schemas;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::wire::Code;
use operations::{Answer, Body, OPERATIONS, Operation, Who};

/// Refusals that a later try may not meet: they come with `Retry-After`.
const LATER: &[Code] = &[
    Code::RateLimited,
    Code::QueueFull,
    Code::QuotaExceeded,
    Code::Draining,
    Code::Busy,
    Code::StorageLow,
    Code::StorageError,
];

/// The whole document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "QuickCMD agent",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Takes signed, time-bound jobs, runs each in a single-use sandbox and keeps a record. \
                docs/protocol.md says what is signed and how, and in which order a submission is checked.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "parameters": operations::parameters(),
            "headers": headers(),
            "securitySchemes": {
                "signatureInput": {
                    "type": "apiKey", "in": "header", "name": "Signature-Input",
                    "description": "Which parts of the request are signed, when and by whom (RFC 9421).",
                },
                "signature": {
                    "type": "apiKey", "in": "header", "name": "Signature",
                    "description": "A controller's signature over these parts (RFC 9421).",
                },
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "A token that `quickcmd-agent token create` made, with the scope that is needed.",
                },
                "metricsToken": {
                    "type": "http", "scheme": "bearer",
                    "description": "The configured `metrics_token`.",
                },
            },
        },
    })
}

/// Headers of answers.
fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "Names the request in the agent's log.",
            "required": true,
            "schema": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        },
        "RetryAfter": {
            "description": "Seconds after which a later try may succeed.",
            "required": true,
            "schema": {"type": "integer", "minimum": 0},
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "description": operation.description,
        "parameters": operation.parameters.iter().map(|name| reference("parameters", name)).collect::<Vec<_>>(),
        "responses": responses(operation),
        "security": match operation.who {
            Who::Anybody => json!([]),
            Who::Reader => json!([{"signatureInput": [], "signature": []}, {"token": []}, {}]),
            Who::Lister => json!([{"signatureInput": [], "signature": []}, {"token": []}]),
            Who::Canceller => json!([{}, {"token": []}]),
            Who::Operator => json!([{"token": []}]),
            Who::Scraper => json!([{"metricsToken": []}, {}]),
        },
    });
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({
            // With a token nothing needs to be said.
            "required": !matches!(operation.who, Who::Canceller),
            "content": {"application/json": {"schema": reference("schemas", schema)}},
        });
    }
    described
}

fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    for Answer { status, what, body, links } in operation.answers {
        let mut answer =
            json!({"description": what, "headers": {"X-Request-Id": reference("headers", "RequestId")}});
        match body {
            Body::None => {}
            Body::Json(schema) => {
                answer["content"] = json!({"application/json": {"schema": reference("schemas", schema)}});
            }
            Body::Raw(kind) => answer["content"] = json!({*kind: {}}),
        }
        for link in *links {
            answer["links"][link] =
                json!({"operationId": link, "parameters": {"id": "$response.body#/job_id"}});
        }
        responses.insert(status.to_string(), answer);
    }
    let codes: Vec<Code> = operation.refusals.concat();
    for status in codes.iter().map(|code| code.status()) {
        let of_status: Vec<Code> = codes.iter().copied().filter(|code| code.status() == status).collect();
        let refused = refused(&of_status);
        // Where an answer shares its status with refusals (`/ready`), its own description stands.
        responses.entry(status.to_string()).or_insert(refused);
    }
    Value::Object(responses)
}

/// The refusals of one status.
fn refused(codes: &[Code]) -> Value {
    let mut codes = codes.to_vec();
    codes.sort_by_key(|code| code.as_str());
    codes.dedup();
    let what: Vec<String> =
        codes.iter().map(|code| format!("{}: `{}`", code.sentence(), code.as_str())).collect();
    let sentences: BTreeSet<&str> = codes.iter().map(|code| code.sentence()).collect();
    let mut headers = json!({"X-Request-Id": reference("headers", "RequestId")});
    if codes.iter().all(|code| LATER.contains(code)) {
        headers["Retry-After"] = reference("headers", "RetryAfter");
    }
    json!({
        "description": what.join("; "),
        "headers": headers,
        "content": {"application/json": {"schema": {"allOf": [
            reference("schemas", "Problem"),
            {"properties": {"code": {"enum": codes}, "error": {"enum": sentences}}},
        ]}}},
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}
