//! HTTP over TLS with as little work as possible: what the client costs is taken from the same two cores.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::Result;

/// One kept-alive connection.
pub struct Conn {
    io: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Conn {
    pub async fn open(port: u16, tls: &Arc<rustls::ClientConfig>) -> Result<Conn> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let io = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
        Ok(Conn { io, buffer: Vec::with_capacity(8 << 10) })
    }

    /// GETs; status and body.
    pub async fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await
    }

    /// Sends a whole request and takes a whole answer, which must have a length.
    pub async fn send(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.io.write_all(request).await?;
        self.io.flush().await?;
        let head = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = text.get(9..12).ok_or("no status line")?.parse()?;
        let length: usize = text
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse())
            })
            .ok_or("an answer without a length")??;
        while self.buffer.len() < head + length {
            self.fill().await?;
        }
        let body = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Ok((status, body))
    }

    async fn fill(&mut self) -> Result<()> {
        if self.io.read_buf(&mut self.buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        Ok(())
    }

    /// The connection itself, for a WebSocket; nothing was read ahead.
    pub fn into_inner(self) -> TlsStream<TcpStream> {
        self.io
    }
}

/// A submission as it stands on the wire.
pub fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}
