//! Large answers, over real connections: the memory that they share, and clients that do not read.

use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use super::*;

/// All that large answers may hold, as [`crate::api::app`] has it, and an address's share of it: one large answer.
const SHARE: usize = fake::LARGE;
/// Seventeen times this for one of the large answers.
const HASTE: Pace = Pace { large: Duration::from_millis(100), ..CALM };

const STATUS: &str = "GET /api/v1/jobs/large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const ARCHIVE: &str =
    "GET /api/v1/jobs/large/artifacts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const STREAM: &str = "GET /api/v1/stream/large HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn asks(door: &Served, request: &str) -> TcpStream {
    let mut socket = door.tcp().await;
    socket.write_all(request.as_bytes()).await.unwrap();
    // That it has been taken up: the head of the answer.
    let mut head = [0; 64];
    tokio::time::timeout(PATIENCE, socket.read_exact(&mut head)).await.expect("an answer").unwrap();
    socket
}

async fn read(mut socket: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("it ends");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_large_answer_comes_whole_and_gives_its_memory_back() {
    let door = open(config(), CALM);
    let all = door.results.free();
    let mut socket = door.tcp().await;
    socket.write_all(STATUS.as_bytes()).await.unwrap();
    let answer = read(socket).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let status: Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["reason"].as_str().unwrap().len(), fake::LARGE);
    until("the memory is free", || door.results.free() == all).await;

    let config = tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(
        "ws://localhost/api/v1/stream/large",
        door.tcp().await,
        Some(config),
    )
    .await
    .unwrap();
    let mut length = 0;
    let close = loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("it goes on").unwrap().unwrap() {
            Message::Text(text) => length = text.len(),
            Message::Close(close) => break close.map(|close| close.code),
            _ => {}
        }
    };
    assert!(length > fake::LARGE);
    assert_eq!(close, Some(CloseCode::Normal));
    drop(socket);
    until("the memory is free", || door.results.free() == all).await;
    door.stopped().await;
}

#[tokio::test]
async fn who_does_not_read_a_large_answer_loses_it() {
    for request in [STATUS, STREAM, ARCHIVE] {
        let door = open(config(), HASTE);
        let all = door.results.free();
        let silent = asks(&door, request).await;
        until("it is made", || door.fake.larges.load(Ordering::SeqCst) == 1).await;
        until("the memory is free", || door.results.free() == all).await;
        let answer = read(silent).await;
        assert!(answer.len() < fake::LARGE, "cut: {}", answer.len());
        until("the connection is closed", || door.metrics.connections.get() == 0).await;
        door.stopped().await;
    }
}

#[tokio::test]
async fn who_finds_no_memory_is_told_to_come_again() {
    let door = open(config(), HASTE);
    // The share of the address is one large answer.
    let address = "127.0.0.1".parse().ok();
    let held = door.results.try_take(address, SHARE).unwrap();
    let mut socket = door.tcp().await;
    socket.write_all(STATUS.as_bytes()).await.unwrap();
    let answer = read(socket).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"BUSY\""), "{answer}");
    let mut list = door.tcp().await;
    list.write_all(STATUS.replace("/jobs/large", "/jobs").as_bytes()).await.unwrap();
    assert!(read(list).await.starts_with("HTTP/1.1 503"));
    let mut small = door.tcp().await;
    small.write_all(STATUS.replace("large", "job-1").as_bytes()).await.unwrap();
    assert!(read(small).await.starts_with("HTTP/1.1 200"), "a small one needs none");
    let (mut socket, _) = client_async("ws://localhost/api/v1/stream/large", door.tcp().await).await.unwrap();
    let close = loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("it ends").unwrap().unwrap() {
            Message::Close(close) => break close.map(|close| close.code),
            Message::Text(_) => panic!("a frame"),
            _ => {}
        }
    };
    assert_eq!(close, Some(CloseCode::Again));
    drop(held);
    assert!(asks(&door, STATUS).await.peer_addr().is_ok());
    door.stopped().await;
}
