//! `GET /metrics`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    api::{app::App, error::internal},
    metrics::CONTENT_TYPE,
    wire::{Code, Problem},
};

/// Prometheus' text, for whoever has the token if there is one.
pub async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let config = app.config.load();
    if let Some(token) = &config.metrics_token
        && !holds(token, &headers)
    {
        return Problem::new(Code::Unauthenticated)
            .details("Send `Authorization: Bearer <metrics_token>`")
            .into_response();
    }
    match app.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => internal("the metrics could not be written", &error).into_response(),
    }
}

/// Compares hashes, so that the time tells neither content nor length.
fn holds(token: &SecretSlice<u8>, headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return false };
    let Some((scheme, given)) = given.split_at_checked(b"Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ")
        && bool::from(Sha256::digest(given).ct_eq(&Sha256::digest(token.expose_secret())))
}
