//! A job's output, live: one sequence of frames over as many connections as it takes.

use std::fmt;

use futures_util::StreamExt;
use reqwest::Url;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Client, Error,
    backoff::Backoff,
    socket::{NORMAL, Socket},
};
use crate::wire::frame::Frame;

/// The frames of one job. Never one twice; the last is the final one, whatever its number: who asks for
/// frames beyond it gets it all the same.
pub struct Follow {
    client: Client,
    job_id: String,
    /// The next frame to hand out.
    next_seq: u64,
    system: bool,
    socket: Option<Socket>,
    backoff: Backoff,
    /// Not to connect again before.
    not_before: Option<Instant>,
    /// When the agent last gave a sign of life.
    alive: Instant,
    connected: u32,
    ended: bool,
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("job_id", &self.job_id)
            .field("next_seq", &self.next_seq)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Follows a job from the frame with that number on (the first is 1). `system`: with the agent's own
    /// words. Connects when the first frame is asked for.
    pub fn follow(&self, job_id: &str, from_seq: u64, system: bool) -> Follow {
        Follow {
            client: self.clone(),
            job_id: job_id.to_owned(),
            next_seq: from_seq.max(1),
            system,
            socket: None,
            backoff: Backoff::new(&self.settings().retry),
            not_before: None,
            alive: Instant::now(),
            connected: 0,
            ended: false,
        }
    }
}

impl Follow {
    /// The next frame; `None` after the final one or after an error. Waits through restarts of the
    /// agent and cut connections. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Frame, Error>> {
        while !self.ended {
            match self.receive().await {
                Ok(None) => {}
                // A frame that we have had already: the agent began a little earlier than asked.
                Ok(Some(frame)) if frame.seq < self.next_seq && !frame.r#final => {}
                Ok(Some(frame)) => {
                    self.backoff.reset();
                    self.next_seq = self.next_seq.max(frame.seq.saturating_add(1));
                    if frame.r#final {
                        self.ended = true;
                        self.socket = None;
                    }
                    return Some(Ok(frame));
                }
                Err(error) => {
                    if let Err(error) = self.endure(error) {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    /// How many connections it has taken so far.
    pub fn connections(&self) -> u32 {
        self.connected
    }

    /// The number of the frame to come.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Connects if there is no connection; else takes one message.
    async fn receive(&mut self) -> Result<Option<Frame>, Error> {
        let Some(socket) = &mut self.socket else {
            if let Some(when) = self.not_before {
                sleep_until(when).await;
            }
            let url = self.url()?;
            let socket = match self.client.socket(&url).await {
                // A refused handshake may come without its body; an ordinary read tells why.
                Err(Error::Refused(refusal)) if refusal.code_text.is_empty() && !refusal.passing() => {
                    self.client.status(&self.job_id).await?;
                    return Err(Error::Refused(refusal));
                }
                other => other?,
            };
            self.socket = Some(socket);
            // No sign of life yet: an agent that takes every connection and closes it must not be tried for ever.
            self.connected += 1;
            return Ok(None);
        };
        let message = timeout(self.client.settings().idle_timeout, socket.next()).await;
        let lost = |cause: &str| Error::Lost { url: self.client.name(), cause: cause.to_owned() };
        let frame = match message {
            Err(_) => return Err(lost("the stream fell silent")),
            Ok(None) => return Err(lost("the stream was cut")),
            Ok(Some(Err(error))) => return Err(lost(&error.to_string())),
            Ok(Some(Ok(Message::Text(text)))) => Some(self.client.json(text.as_bytes())?),
            Ok(Some(Ok(Message::Close(close)))) => {
                // Normal or not, without the final frame there is more to come.
                let cause = match close {
                    Some(close) if close.code == NORMAL => "the stream was closed before its end".to_owned(),
                    Some(close) => format!("the stream was closed: {} {}", close.code, close.reason),
                    None => "the stream was closed".to_owned(),
                };
                return Err(lost(&cause));
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_)))) => {
                None
            }
        };
        self.alive = Instant::now();
        Ok(frame)
    }

    /// Plans the next connection, or gives the error back if there is no use in one.
    fn endure(&mut self, error: Error) -> Result<(), Error> {
        self.socket = None;
        let never = matches!(error, Error::Connect { .. }) && !self.client.reached();
        if !error.passing() || never {
            return Err(error);
        }
        let wait = error.retry_after().unwrap_or_else(|| self.backoff.next());
        let now = Instant::now();
        if now.duration_since(self.alive) + wait > self.client.settings().retry.stream_patience {
            return Err(error);
        }
        self.not_before = Some(now + wait);
        Ok(())
    }

    fn url(&self) -> Result<Url, Error> {
        let mut url = self.client.of_job(&["api", "v1", "stream", &self.job_id])?;
        if self.next_seq > 1 {
            url.query_pairs_mut().append_pair("from_seq", &self.next_seq.to_string());
        }
        if !self.system {
            url.query_pairs_mut().append_pair("system", "false");
        }
        Ok(url)
    }
}
