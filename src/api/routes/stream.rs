//! WebSocket `/api/v1/stream/{id}`: one JSON text message a frame, then close code 1000.
//!
//! One frame is in flight at a time, so a client that never reads holds its own task and what the kernel
//! buffers for it, nothing else. Everything that can be wrong is answered before the upgrade.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{
        State,
        ws::{
            CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    api::{
        app::{App, Pace},
        extract::{JobId, Parameters, Peer, Standing, check_origin},
        large,
        service::{FrameText, Frames},
    },
    base::budget,
    config::LARGEST_RESULT,
    metrics::Held,
    wire::{Code, Problem},
};

/// Clients have nothing to say but pong and close.
const MAX_MESSAGE: usize = 64 << 10;
/// Messages of a client from one ping of ours to the next, one of which is its pong. Each ping of a client makes
/// a pong that waits for room, and a client that floods and does not read must not fill the memory with them.
const MESSAGES: u32 = 100;
/// Bytes that may wait to be written. One message is flushed before the next, so that it is as large as the
/// largest one can be: the final frame with both of the result's texts, each byte of which JSON writes as six at
/// most, and a mebibyte for all else, pongs included.
const WRITE_BUFFER: usize = 2 * 6 * LARGEST_RESULT + (1 << 20);
/// How long the other end has to answer our close.
const CLOSING: Duration = Duration::from_secs(5);
/// After the signal to stop: how long the next frame of a stream is waited for.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Checks the request and opens the stream.
pub async fn stream(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    headers: HeaderMap,
    Peer(peer): Peer,
    standing: Standing,
    JobId(id): JobId,
    mut given: Parameters,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|why| Problem::new(Code::UpgradeRequired).details(why.body_text()))?;
    check_key(&headers)?;
    check_origin(&headers, &app.config.load().allowed_origins)?;
    let from_seq = given.take("from_seq", "must be a frame's number, 1 or more", |text| {
        text.parse().ok().filter(|seq| *seq >= 1)
    })?;
    let system = given.take("system", "must be true or false", |text| text.parse().ok())?.unwrap_or(true);
    let reader = given.whose(standing.reader().clone())?;
    given.end()?;
    let frames = app.jobs.stream(&reader, &id, from_seq, system, large::purse(&app, peer)).await?;

    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    let upgrade = upgrade.write_buffer_size(0).max_write_buffer_size(WRITE_BUFFER);
    let tracked = app.streams.token();
    Ok(upgrade.on_upgrade(async move |socket| {
        let crowds = Arc::clone(&app.crowds);
        let reader = async move {
            let _tracked = tracked;
            let _held = Held::of(&app.metrics.stream_readers);
            follow(socket, frames, &standing, &app).await;
        };
        crowds.serve(id, reader).await;
    }))
}

/// RFC 6455, 4.2.1: sixteen bytes in base64. One that is none shows that who asks is no client of WebSocket.
fn check_key(headers: &HeaderMap) -> Result<(), Problem> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        return Ok(());
    }
    Err(Problem::new(Code::UpgradeRequired)
        .details("`Sec-WebSocket-Key` header is not sixteen bytes in base64".to_owned()))
}

/// How a stream came to its end.
enum End {
    /// Everything was sent; what the final frame holds of the memory that all have, until the buffers are gone.
    Complete { _held: Option<budget::Held> },
    /// There is no memory for the final frame now.
    Busy,
    /// The output could not be read on.
    Broken,
    /// The agent is about to stop.
    Stopping,
    /// The client said that it goes.
    Closed,
    /// The connection broke.
    Gone,
    /// Nothing has moved for too long.
    Silent,
    /// The client talks too much.
    Flood,
    /// The client may not read any more.
    Revoked,
}

async fn follow(socket: WebSocket, frames: Frames, standing: &Standing, app: &App) {
    let (mut sink, mut source) = socket.split();
    let alive = Alive::new();
    let end = tokio::select! {
        end = send(&mut sink, frames, standing, app, &alive) => end,
        end = receive(&mut source, app.pace, &alive) => end,
    };
    let (code, reason) = match &end {
        End::Complete { .. } => (close_code::NORMAL, ""),
        End::Busy => (close_code::AGAIN, "too many large results are being read; try again later"),
        End::Broken => (close_code::ERROR, "the output could not be read"),
        End::Stopping => (close_code::AWAY, "the agent is stopping"),
        End::Flood => (close_code::POLICY, "too many messages"),
        End::Revoked => (close_code::POLICY, "you may not read this any more"),
        // The answer to its close leaves while we read on.
        End::Closed => (close_code::NORMAL, ""),
        End::Gone | End::Silent => return,
    };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    // Closed without waiting, the connection could be reset before the last frames were read.
    let _ = tokio::time::timeout(CLOSING, async {
        if matches!(end, End::Closed) || sink.send(close).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    })
    .await;
}

/// Sends frames as they come, and pings while none does.
async fn send(
    sink: &mut SplitSink<WebSocket, Message>,
    mut frames: Frames,
    standing: &Standing,
    app: &App,
    alive: &Alive,
) -> End {
    enum Event {
        Frame(Option<io::Result<FrameText>>),
        Ping,
        Stop,
        Enough,
    }
    let mut pings = tokio::time::interval_at(Instant::now() + app.pace.ping, app.pace.ping);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        // Pings first: a job that prints without pause must not keep them back.
        let event = tokio::select! {
            biased;
            _ = pings.tick() => Event::Ping,
            frame = frames.next() => Event::Frame(frame),
            () = app.stop.cancelled(), if !stopping => Event::Stop,
            () = tokio::time::sleep(LAST_WORDS), if stopping => Event::Enough,
        };
        match event {
            Event::Ping => {
                if !standing.stands(app) {
                    return End::Revoked;
                }
                if sink.send(Message::Ping(Vec::new().into())).await.is_err() {
                    return End::Gone;
                }
            }
            Event::Frame(Some(Ok(frame))) => {
                let FrameText { json, last, held } = frame;
                // What takes memory that others wait for must be read in time; all else may take its time.
                let within = held.as_ref().map(|_| large::time_for(json.len() as u64, app.pace.large));
                let sent = sink.send(Message::Text(json));
                let sent = match within {
                    Some(within) => tokio::time::timeout(within, sent)
                        .await
                        .unwrap_or_else(|late| Err(axum::Error::new(late))),
                    None => sent.await,
                };
                if let Err(error) = sent {
                    tracing::debug!(%error, "a frame could not be sent");
                    return End::Gone;
                }
                // A slow reader answers a ping only when it has read what lies before it.
                alive.note();
                if last {
                    return End::Complete { _held: held };
                }
            }
            Event::Frame(Some(Err(error))) if error.kind() == io::ErrorKind::ResourceBusy => {
                return End::Busy;
            }
            Event::Frame(Some(Err(error))) => {
                tracing::error!(%error, "a stream of output could not be read");
                return End::Broken;
            }
            Event::Frame(None) => return End::Broken,
            Event::Stop => stopping = true,
            Event::Enough => return End::Stopping,
        }
    }
}

/// Takes what comes, for its own sake only, and watches for silence and for its contrary.
async fn receive(source: &mut SplitStream<WebSocket>, pace: Pace, alive: &Alive) -> End {
    let mut talk = Talk::new(pace.ping, Instant::now());
    loop {
        let until = alive.last() + pace.silence;
        tokio::select! {
            // What has come counts first: after a standstill of this machine both may be due.
            biased;
            message = source.next() => match message {
                None => return End::Gone,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a stream's connection broke");
                    return End::Gone;
                }
                Some(Ok(Message::Close(_))) => return End::Closed,
                Some(Ok(_)) if !talk.may(Instant::now()) => return End::Flood,
                Some(Ok(_)) => alive.note(),
            },
            () = tokio::time::sleep_until(until) => {
                if alive.last() + pace.silence <= Instant::now() {
                    return End::Silent;
                }
            }
        }
    }
}

/// A token bucket of [`MESSAGES`], full again after the time of a ping.
struct Talk {
    left: f64,
    per_second: f64,
    at: Instant,
}

impl Talk {
    fn new(ping: Duration, now: Instant) -> Talk {
        let most = f64::from(MESSAGES);
        Talk { left: most, per_second: most / ping.as_secs_f64(), at: now }
    }

    /// Whether one more message is in order.
    fn may(&mut self, now: Instant) -> bool {
        let flowed = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + flowed).min(f64::from(MESSAGES));
        self.at = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

/// When something last moved: a message came, or a frame was taken.
struct Alive {
    start: Instant,
    millis: AtomicU64,
}

impl Alive {
    fn new() -> Alive {
        Alive { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    fn note(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_talk_as_fast_as_the_bucket_fills() {
        let start = Instant::now();
        let mut talk = Talk::new(Duration::from_secs(20), start);
        for _ in 0..MESSAGES {
            assert!(talk.may(start));
        }
        assert!(!talk.may(start));
        // Five a second, for ever.
        for n in 1..1000 {
            assert!(talk.may(start + Duration::from_millis(201 * n)), "{n}");
        }
        let later = start + Duration::from_secs(3600);
        let taken = (0..1000).filter(|_| talk.may(later)).count();
        assert_eq!(taken, MESSAGES as usize, "no more than the bucket holds");
    }
}
