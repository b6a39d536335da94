//! Every endpoint, by who calls it.

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};

use super::{
    app::App,
    front, limit,
    routes::{artifacts, cancel, drain, health, jobs, metrics, openapi, output, stream},
};
use crate::wire::{Code, Problem};

/// The whole door. Answers need `ConnectInfo<SocketAddr>` with each request.
pub fn router(app: Arc<App>) -> Router {
    // Controllers, and people with `quickcmd`.
    let api = Router::new()
        .route("/api/v1/jobs", post(jobs::submit).get(jobs::list))
        .route("/api/v1/jobs/{id}", get(jobs::status))
        .route("/api/v1/jobs/{id}/cancel", post(cancel::cancel))
        .route("/api/v1/jobs/{id}/output", get(output::output))
        .route("/api/v1/jobs/{id}/artifacts", get(artifacts::all))
        .route("/api/v1/jobs/{id}/artifacts/{*path}", get(artifacts::one))
        .route("/api/v1/stream/{id}", get(stream::stream))
        .route("/api/v1/drain", post(drain::drain))
        .route("/api/v1/undrain", post(drain::undrain))
        .route("/api/v1/openapi.json", get(openapi::openapi))
        .layer(middleware::from_fn_with_state(app.clone(), limit::by_certificate))
        .layer(middleware::from_fn_with_state(app.clone(), limit::by_address));

    // Monitors and supervisors; never refused for coming often.
    let monitors = Router::new()
        .route("/health", get(health::health))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics));

    api.merge(monitors)
        .fallback(async || Problem::new(Code::NotFound))
        .method_not_allowed_fallback(async || Problem::new(Code::MethodNotAllowed))
        .layer(middleware::from_fn_with_state(app.clone(), front::front))
        .with_state(app)
}
