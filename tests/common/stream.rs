//! What an agent's stream says, checked while it is read.

use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::PATIENCE;

/// A reader of frames.
pub struct Stream {
    pub(super) socket:
        tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>,
}

impl Stream {
    /// The next frame; `None` after the close.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame in time")?;
            match message.expect("a whole message") {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
                Message::Close(frame) => {
                    assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1000));
                    return None;
                }
                _ => {}
            }
        }
    }

    /// The code that the agent closes with.
    pub async fn closed(&mut self) -> u16 {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a close in time");
            if let Message::Close(frame) = message.expect("a close").expect("a whole message") {
                return frame.expect("a code").code.into();
            }
        }
    }

    /// All frames up to and with the final one; checks that the numbers have no gap.
    pub async fn read_to_end(&mut self) -> Vec<Value> {
        let mut frames: Vec<Value> = Vec::new();
        while let Some(frame) = self.next().await {
            if let Some(last) = frames.last() {
                assert!(frame["seq"].as_u64() > last["seq"].as_u64(), "{last} then {frame}");
            }
            frames.push(frame);
        }
        let last = frames.last().expect("at least the final frame");
        assert_eq!(last["final"], true, "{last}");
        frames
    }
}

/// The text of one stream in those frames.
pub fn text_of(frames: &[Value], stream: &str) -> String {
    String::from_utf8(bytes_of(frames, stream)).expect("text")
}

/// The bytes of one stream in those frames; checks that offsets have no gap.
pub fn bytes_of(frames: &[Value], stream: &str) -> Vec<u8> {
    use base64::Engine;
    let mut bytes = Vec::new();
    for frame in frames.iter().filter(|frame| frame["stream"] == stream) {
        assert_eq!(frame["offset"].as_u64(), Some(bytes.len() as u64), "{frame}");
        let data = frame["data"].as_str().expect("text");
        match frame["encoding"].as_str() {
            Some("base64") => {
                bytes.extend(base64::engine::general_purpose::STANDARD.decode(data).expect("base64"));
            }
            _ => bytes.extend(data.as_bytes()),
        }
    }
    bytes
}
