//! Refusals that an agent can't be brought to from outside in a moment, as whole answers of the real door.

use std::fmt::Write as _;

use axum::body::Body;
use futures_util::{StreamExt, stream};

use super::{
    requests::{Answer, door_with},
    *,
};
use crate::api::app::App;

fn door(change: impl FnOnce(&mut App)) -> super::requests::Asked {
    door_with(config(), change)
}

/// Status, the headers that go with a refusal, body.
fn shown(answer: &Answer) -> String {
    let mut text = answer.status.to_string();
    for name in ["retry-after", "connection"] {
        if let Some(value) = answer.headers.get(name) {
            write!(text, "\n{name}: {}", value.to_str().unwrap()).unwrap();
        }
    }
    format!("{text}\n{}", serde_json::to_string_pretty(&answer.json()).unwrap())
}

/// A budget of which nothing is left as long as the other is there.
async fn used_up() -> (Arc<Budget>, Option<crate::base::budget::Held>) {
    let budget = Budget::new(1 << 20);
    let held = budget.take(None, 1 << 20, PATIENCE).await;
    assert_eq!(budget.free(), 0);
    (budget, held)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive() {
    let starts = stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending());
    let answer = door(|_| {}).post(Body::from_stream(starts)).await;
    insta::assert_snapshot!("request_timeout", shown(&answer));
}

#[tokio::test(start_paused = true)]
async fn memory_that_others_have() {
    let (bodies, _held) = used_up().await;
    let config = ServerConfig { max_body_bytes: 1 << 20, ..config() };
    let answer = door_with(config, |app| app.bodies = bodies).post(vec![b'x'; 100 << 10]).await;
    insta::assert_snapshot!("busy_with_bodies", shown(&answer));
    let (results, _held) = used_up().await;
    let answer = door(|app| app.results = results).get("/api/v1/jobs").await;
    insta::assert_snapshot!("busy_with_lists", shown(&answer));
}

#[tokio::test]
async fn a_defect() {
    let answer = door(|_| {}).post("panic").await;
    assert_eq!(answer.headers["x-request-id"].len(), 16, "by which the log has it");
    insta::assert_snapshot!("internal", shown(&answer));
}
