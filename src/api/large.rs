//! Answers that may be large: made within the budget that they share, and not kept for a client that does not read.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{app::App, error::internal, limit::shareholder};
use crate::{
    base::budget::{Held, Purse},
    wire::Problem,
};

/// Bytes that are handed to the connection at once.
const CHUNK: usize = 64 << 10;
/// Bytes that a client reads in [`super::Pace::large`] at least.
const READ: u64 = 1 << 20;

/// The caller's access to the memory that large answers share.
pub fn purse(app: &App, ip: std::net::IpAddr) -> Purse {
    Purse::new(Arc::clone(&app.results), shareholder(&app.config.load(), ip), app.pace.large)
}

/// How long a client may take to read so many bytes: long enough for a slow line, and not for ever, for others
/// wait for the memory.
pub fn time_for(bytes: u64, large: Duration) -> Duration {
    large.saturating_mul(u32::try_from(1 + bytes / READ).unwrap_or(u32::MAX))
}

/// A body of parts that a client must read in time: what the stream holds is given back at its end, or when the client has
/// taken too long; then the connection is closed.
pub fn timed(parts: impl Stream<Item = io::Result<Bytes>> + Send + 'static, within: Duration) -> Body {
    let (send, mut receive) = mpsc::channel(1);
    tokio::spawn(async move {
        let all = async {
            let mut parts = pin!(parts);
            while let Some(part) = parts.next().await {
                if send.send(part).await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(within, all).await.is_err() {
            // The body ends before its length, and with it the connection.
            tracing::debug!("a large answer was not read in time");
        }
    });
    Body::from_stream(stream::poll_fn(move |cx| receive.poll_recv(cx)))
}

/// A JSON answer. What it holds of the budget is given back when the connection has taken all but its end, or when
/// the client has taken too long: then the connection is closed.
pub fn json(value: impl Serialize, held: Option<Held>, large: Duration) -> Result<Response, Problem> {
    let mut text = serde_json::to_vec(&value)
        .map_err(|error| internal("an answer could not be written as JSON", &error))?;
    drop(value);
    let length = text.len();
    let body = match held {
        Some(mut held) if length > CHUNK => {
            text.shrink_to_fit();
            held.shrink(length);
            // In copies: a part would keep the whole.
            let parts = stream::unfold((text, held, 0), |(text, held, at)| async move {
                let part = text.get(at..)?.chunks(CHUNK).next().map(Bytes::copy_from_slice)?;
                Some((Ok(part), (text, held, at + CHUNK)))
            });
            timed(parts, time_for(length as u64, large))
        }
        _ => Body::from(text),
    };
    let headers =
        [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    Ok((headers, body).into_response())
}
