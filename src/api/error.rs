//! Problems as answers: status, headers, JSON body.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::wire::{Code, Problem};

/// Left in an answer's extensions, so that the front counts the refusal.
#[derive(Debug, Clone, Copy)]
pub struct Refusal(pub Code);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (code, retry_after) = (self.code, self.retry_after);
        let mut response = (status, Json(self)).into_response();
        response.extensions_mut().insert(Refusal(code));
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match code {
            // RFC 9110, section 15.5.2: 401 names a scheme.
            Code::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Code::UpgradeRequired => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            // What was not read of the body would be taken for the next request.
            Code::RequestTimeout => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// A defect of the agent: the cause goes to the log, the caller gets the request's id with the answer.
pub fn internal(what: &str, cause: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%cause, "{what}");
    Problem::new(Code::Internal)
}
