//! The first check of all: how often one address may come.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{app::App, edge::client_cert::ClientCertificate, extract::lose};
use crate::{
    base::clock::Timestamp,
    config::ServerConfig,
    wire::{Code, Problem},
};

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits, of which one customer has
/// all addresses.
pub fn one_address(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Who has a share of its own of what all share: the address, or nobody where it is exempt from limits of
/// one address, for then it may stand for many.
pub fn shareholder(config: &ServerConfig, ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    let exempt = config.rate_exempt.iter().any(|network| network.contains(&ip));
    (!exempt).then(|| one_address(ip))
}

/// Refuses an address that comes too often, before anything of its request's body is looked at.
pub async fn by_address(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let config = app.config.load();
    let ip = peer.ip().to_canonical();
    // No rate, no bucket: nothing is to be looked up.
    let limited = config.rate_by_address.per_second > 0.0;
    let Some(address) = shareholder(&config, ip).filter(|_| limited) else { return next.run(request).await };
    match app.rates.take(&address.to_string(), config.rate_by_address, Instant::now()) {
        Ok(()) => next.run(request).await,
        Err(seconds) => {
            lose(request, config.max_body_bytes).await;
            Problem::new(Code::RateLimited)
                .details(format!("Too many requests from {ip}; try again in {seconds} s"))
                .with("limit", "rate_by_address")
                .retry_after(seconds)
                .into_response()
        }
    }
}

/// Refuses a connection without a client certificate that is good now, where one is required: it may have been made
/// before it was.
pub async fn by_certificate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let config = app.config.load();
    let Some(tls) = config.client_tls.as_ref().filter(|tls| tls.required) else {
        return next.run(request).await;
    };
    let now = Timestamp::now();
    let presented = request.extensions().get::<ClientCertificate>().and_then(|known| known.0.clone());
    let why = match &presented {
        Some(presented) if !presented.holds(tls, now) => {
            "the connection's client certificate is not good any more: connect anew"
        }
        None => "the agent asks for a client certificate by now: connect anew",
        Some(presented) if !tls.clients.is_empty() && presented.holder(tls, now).is_none() => {
            "the client certificate is none of those that the agent knows (`tls.clients`)"
        }
        Some(_) => return next.run(request).await,
    };
    lose(request, config.max_body_bytes).await;
    let mut response = Problem::new(Code::Forbidden).details(why).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
