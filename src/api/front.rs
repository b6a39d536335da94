//! Around every request: its id, its span in the log, the metrics, and the two headers that each answer
//! has. A handler that panics is answered with 500 like every other defect.

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tracing::Instrument;

use super::{app::App, error::Refusal};
use crate::{
    base::ids::random_hex,
    wire::{Code, Problem},
};

/// Names the request in the answer and in the log. Always ours: a caller's would end up in the log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Runs around every route and both fallbacks.
pub async fn front(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = random_hex(8);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
    let peer = peer.map(tracing::field::display);
    let span = tracing::info_span!("request", id, method = %request.method(), route, peer);

    let answer = async {
        let served = async {
            check_host(&request)?;
            Ok::<_, Problem>(next.run(request).await)
        };
        let mut response = match AssertUnwindSafe(served).catch_unwind().await {
            Ok(response) => response.into_response(),
            Err(_) => {
                tracing::error!("the handler panicked");
                Problem::new(Code::Internal).into_response()
            }
        };
        let status = response.status().as_u16();
        let refusal = response.extensions().get::<Refusal>().map(|refusal| refusal.0);
        if let Some(code) = refusal {
            app.metrics.refused(code);
        }
        app.metrics.http_request(&route, status, started.elapsed());
        let code = refusal.map(Code::as_str);
        // A monitor's question that is answered with "not ready" is no event, however often it comes.
        let fault = refusal.is_some_and(|code| code.status() >= 500 && code != Code::Draining);
        if fault || status == 500 {
            tracing::warn!(status, code, "answered");
        } else {
            tracing::debug!(status, code, "answered");
        }
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        response
    };
    answer.instrument(span).await
}

/// A request of HTTP/1.1 names its host once, an older one at most once (RFC 9112, 3.2): what stands in front of an agent, and what a signature
/// covers as `@authority`, must not see another one than the agent does.
fn check_host(request: &Request) -> Result<(), Problem> {
    let wrong = |what: &str| Err(Problem::new(Code::InvalidRequest).details(what.to_owned()));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => {
            wrong("a request of HTTP/1.1 has a Host header")
        }
        (None, _) => Ok(()),
        (Some(_), Some(_)) => wrong("a request has one Host header"),
        (Some(host), None) => match host.to_str().map(str::parse::<Authority>) {
            Ok(Ok(host)) if !host.as_str().contains('@') => Ok(()),
            _ => wrong("Host is a name or an address, and maybe a port"),
        },
    }
}
