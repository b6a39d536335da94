//! `/health`, `/live`, `/ready`: open, and never limited by address.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Map, Value, json};

use crate::{api::app::App, base::clock::Timestamp};

/// The seed's two fields first; `healthy` as long as the process serves. Whether it is of use is what
/// `/ready` says.
pub async fn health(State(app): State<Arc<App>>) -> Json<Map<String, Value>> {
    let mut answer = Map::new();
    answer.insert("status".to_owned(), json!("healthy"));
    answer.insert("timestamp".to_owned(), json!(Timestamp::now().secs()));
    answer.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
    answer.insert("uptime_seconds".to_owned(), json!(app.started.elapsed().as_secs()));
    let readiness = app.jobs.readiness();
    answer.insert("ready".to_owned(), json!(readiness.ready));
    answer.insert("problems".to_owned(), json!(readiness.problems));
    for (key, value) in app.jobs.details() {
        answer.entry(key).or_insert(value);
    }
    Json(answer)
}

/// Asks nobody anything.
pub async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// 503 with the reasons while new jobs would not be taken or could not run.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Value>) {
    let readiness = app.jobs.readiness();
    if readiness.ready {
        (StatusCode::OK, Json(json!({"status": "ready"})))
    } else {
        let answer = json!({"status": "not_ready", "problems": readiness.problems});
        (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
    }
}
