//! Opening the agent's WebSocket: TCP, TLS, and a signed handshake.

use std::io;

use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError,
        http::Request,
        protocol::{WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    Client, ConnectFault, Error, Refusal,
    send::{authority, retry_after},
};

/// The last frame carries the whole result: both streams in text, escaped.
const MAX_MESSAGE: usize = 64 << 20;

/// Both plain and TLS connections, as one type.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

pub(super) type Socket = WebSocketStream<Box<dyn Wire>>;

/// The close code of a stream that told everything.
pub(super) const NORMAL: CloseCode = CloseCode::Normal;

impl Client {
    /// Opens the WebSocket at that address; one try.
    pub(super) async fn socket(&self, url: &Url) -> Result<Socket, Error> {
        let limit = self.inner.settings.connect_timeout;
        // One that was made ahead may have been cut since: then the next must be tried at once.
        if let Some(wire) = self.inner.ahead.take().await {
            match self.shake(url, wire).await {
                Err(Error::Lost { .. }) => {}
                other => return other,
            }
        }
        let wire = timeout(limit, self.wire(url)).await.map_err(|_| self.late())??;
        self.shake(url, wire).await
    }

    fn late(&self) -> Error {
        Error::Connect {
            url: self.name(),
            fault: ConnectFault::Timeout,
            cause: "no answer in time".to_owned(),
        }
    }

    /// The handshake of WebSocket over a connection.
    async fn shake(&self, url: &Url, wire: Box<dyn Wire>) -> Result<Socket, Error> {
        let name = self.name();
        let mut request = Request::builder()
            .uri(url.as_str().replacen("http", "ws", 1))
            .header("Host", authority(url))
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
            .body(())
            .map_err(|error| Error::Setting(error.to_string()))?;
        request.headers_mut().extend(self.proof("GET", url)?);
        let config = WebSocketConfig::default()
            .read_buffer_size(64 << 10)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let shaken = timeout(
            self.inner.settings.request_timeout,
            client_async_with_config(request, wire, Some(config)),
        );
        match shaken.await {
            Err(_) => Err(self.late()),
            Ok(Ok((socket, _))) => {
                self.mark_reached();
                Ok(socket)
            }
            Ok(Err(WsError::Http(answer))) => {
                self.mark_reached();
                let wait = retry_after(answer.headers());
                let body = answer.body().as_deref().unwrap_or_default();
                Err(Error::Refused(Box::new(Refusal::read(answer.status().as_u16(), wait, body))))
            }
            Ok(Err(WsError::Io(error))) => Err(Error::Lost { url: name, cause: error.to_string() }),
            Ok(Err(WsError::Protocol(error))) => {
                let cause = error.to_string();
                Err(Error::of_tls_port(&name, &cause).unwrap_or(Error::Lost { url: name, cause }))
            }
            Ok(Err(error)) => Err(Error::Answer { url: name, cause: error.to_string() }),
        }
    }

    /// TCP and TLS.
    pub(super) async fn wire(&self, url: &Url) -> Result<Box<dyn Wire>, Error> {
        let name = self.name();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let unknown = |_: io::Error| Error::Connect {
            url: self.name(),
            fault: ConnectFault::UnknownHost,
            cause: "the host's name is not known".to_owned(),
        };
        let addresses: Vec<_> =
            tokio::net::lookup_host((host.as_str(), port)).await.map_err(unknown)?.collect();
        let tcp = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|error| Error::of_connect(&name, &error))?;
        // Only small messages go out; none should wait for company.
        let _ = tcp.set_nodelay(true);
        if url.scheme() != "https" {
            return Ok(Box::new(tcp));
        }
        let server = ServerName::try_from(host)
            .map_err(|_| Error::Setting(format!("{name} has no valid host name")))?;
        let connector = TlsConnector::from(self.inner.tls.clone());
        let tls = connector.connect(server, tcp).await.map_err(|error| Error::of_connect(&name, &error))?;
        Ok(Box::new(tls))
    }
}
