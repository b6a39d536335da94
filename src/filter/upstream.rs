//! The way to Docker: a request that was made here goes out, an answer comes back.

use std::{io, path::Path};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Most bytes of an answer that the filter reads whole: about one container, one image, or Docker itself.
const LARGEST_ANSWER: usize = 8 << 20;

/// Docker could not be asked. The agent is to see a connection that breaks, as without a filter: it then knows that the
/// engine does not answer, where an answer would say that it refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("Docker's socket can't be reached: {0}")]
    Connect(#[from] io::Error),
    #[error("the connection to Docker broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("Docker's answer can't be read: {0}")]
    Answer(String),
}

/// One connection to Docker, for one connection of the agent's; made when it is needed.
pub(super) struct Upstream {
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Upstream {
    pub(super) fn new() -> Upstream {
        Upstream { sender: None }
    }

    /// The connection of the request before, if Docker has not closed it.
    async fn kept(&mut self) -> Option<SendRequest<Full<Bytes>>> {
        let mut sender = self.sender.take()?;
        sender.ready().await.is_ok().then_some(sender)
    }

    /// Sends a request. What comes back has its head only.
    pub(super) async fn send(
        &mut self,
        socket: &Path,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, Broken> {
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, "docker");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|error| Broken::Answer(error.to_string()))?;
        let mut sender = match self.kept().await {
            Some(sender) => sender,
            None => connect(socket).await?,
        };
        let answer = sender.send_request(request).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Broken::Answer("it changes the protocol".to_owned()));
        }
        self.sender = Some(sender);
        Ok(answer)
    }
}

async fn connect(socket: &Path) -> Result<SendRequest<Full<Bytes>>, Broken> {
    let stream = UnixStream::connect(socket).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender and the last answer's body; what goes wrong is told to who waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// The whole body of an answer.
pub(super) async fn whole(answer: Incoming) -> Result<Bytes, Broken> {
    match Limited::new(answer, LARGEST_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Broken::Answer(format!("it has more than {LARGEST_ANSWER} bytes")))
        }
        Err(error) => Err(Broken::Answer(error.to_string())),
    }
}
