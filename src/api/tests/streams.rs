//! WebSocket streams over real connections.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

use super::*;

type Socket = WebSocketStream<TcpStream>;

async fn try_stream(
    door: &Served,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, (u16, Value)> {
    let mut request = format!("ws://localhost/api/v1/stream/{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    match client_async(request, door.tcp().await).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), serde_json::from_slice(body).unwrap_or_default()))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn stream(door: &Served, path: &str) -> Socket {
    try_stream(door, path, &[]).await.unwrap()
}

/// Every frame's number, and the close code.
async fn to_end(mut socket: Socket) -> (Vec<u64>, Option<CloseCode>) {
    let mut seqs = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("something comes") {
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                seqs.push(frame["seq"].as_u64().unwrap());
            }
            Some(Ok(Message::Close(close))) => return (seqs, close.map(|close| close.code)),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return (seqs, None),
        }
    }
}

#[tokio::test]
async fn frames_come_in_order_and_then_the_close() {
    let door = open(config(), CALM);
    assert_eq!(to_end(stream(&door, "three").await).await, (vec![1, 2, 3], Some(CloseCode::Normal)));
    assert_eq!(to_end(stream(&door, "three?from_seq=3").await).await, (vec![3], Some(CloseCode::Normal)));
    stream(&door, "three?system=false&from_seq=2").await;
    assert_eq!(*door.fake.streams.lock().unwrap(), [(None, true), (Some(3), true), (Some(2), false)]);
    until("no reader is left", || door.metrics.stream_readers.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn readers_beyond_the_first_are_served_with_a_lower_priority() {
    let here = rustix::process::nice(0).unwrap();
    let door = open(config(), CALM);
    let priority = async |socket: &mut Socket| match tokio::time::timeout(PATIENCE, socket.next()).await {
        Ok(Some(Ok(Message::Text(text)))) => {
            i32::try_from(serde_json::from_str::<Value>(&text).unwrap()["seq"].as_i64().unwrap()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    let mut sockets = Vec::new();
    let aside = (here + crate::base::aside::NICE).min(19);
    for wanted in [here, aside, aside] {
        let mut socket = stream(&door, "priority").await;
        assert_eq!(priority(&mut socket).await, wanted);
        sockets.push(socket);
    }
    // Those aside end with the door like the others.
    door.stop.cancel();
    for socket in sockets {
        assert_eq!(to_end(socket).await.1, Some(CloseCode::Away));
    }
    door.stopped().await;
}

#[tokio::test]
async fn over_tls_it_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (files, cert) = certificate(dir.path());
    let door = open(ServerConfig { tls: Some(files), ..config() }, CALM);
    let connection = tls(door.at, Arc::new(client(&cert))).await.unwrap();
    let (mut socket, _) = client_async("wss://localhost/api/v1/stream/three", connection).await.unwrap();
    let mut frames = 0;
    let close = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(_) => frames += 1,
            Message::Close(close) => break close,
            _ => {}
        }
    };
    assert_eq!((frames, close.unwrap().code), (3, CloseCode::Normal));
    assert_eq!(door.fake.reads.lock().unwrap()[0].scheme, "https");
    door.stopped().await;
}

#[tokio::test]
async fn a_stream_that_ends_early_says_so() {
    let door = open(config(), CALM);
    for id in ["broken", "cut"] {
        assert_eq!(to_end(stream(&door, id).await).await, (vec![1], Some(CloseCode::Error)), "{id}");
    }
    door.stopped().await;
}

#[tokio::test]
async fn what_is_wrong_is_answered_before_the_upgrade() {
    let door = open(config(), CALM);
    for (path, headers, status, code) in [
        ("unknown", &[][..], 404, "JOB_NOT_FOUND"),
        ("three?from_seq=0", &[], 400, "INVALID_QUERY"),
        ("three?from_seq=x", &[], 400, "INVALID_QUERY"),
        ("three?system=maybe", &[], 400, "INVALID_QUERY"),
        ("three?since=1", &[], 400, "INVALID_QUERY"),
        ("three", &[("x-stranger", "1")], 401, "UNAUTHENTICATED"),
        ("three", &[("origin", "https://evil.example.com")], 403, "ORIGIN_NOT_ALLOWED"),
        ("three", &[("origin", "https://console.example.com.evil.example.com")], 403, "ORIGIN_NOT_ALLOWED"),
        ("three", &[("origin", "null")], 403, "ORIGIN_NOT_ALLOWED"),
        (
            "three",
            &[("origin", "https://console.example.com"), ("origin", "https://evil.example.com")],
            403,
            "ORIGIN_NOT_ALLOWED",
        ),
    ] {
        let (found, body) = try_stream(&door, path, headers).await.expect_err("it is refused");
        assert_eq!((found, body["code"].as_str()), (status, Some(code)), "{path} {headers:?}");
    }
    let allowed = try_stream(&door, "three", &[("origin", "https://console.example.com")]).await.unwrap();
    assert_eq!(to_end(allowed).await.1, Some(CloseCode::Normal));

    let plain = plain_get(&door, "/api/v1/stream/three").await;
    assert!(plain.starts_with("HTTP/1.1 426") && plain.contains("upgrade: websocket"), "{plain}");
    assert!(plain.contains("UPGRADE_REQUIRED"), "{plain}");
    // Of fifteen bytes, of seventeen, no base64, and of sixteen.
    let keys = [
        ("dGhlIHNhbXBsZSBub25j", false),
        ("dGhlIHNhbXBsZSBub25jZSE=", false),
        ("short", false),
        ("dGhlIHNhbXBsZSBub25jZQ==", true),
    ];
    for (key, good) in keys {
        let mut socket = door.tcp().await;
        let request = format!(
            "GET /api/v1/stream/three HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let whole = if good { "\r\n\r\n" } else { "}" };
        while !String::from_utf8_lossy(&answer).contains(whole) {
            assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "{key}: it ends");
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(if good { "HTTP/1.1 101" } else { "HTTP/1.1 426" }), "{key}: {answer}");
        assert!(good || answer.contains("`Sec-WebSocket-Key` header is not sixteen bytes"), "{answer}");
    }
    door.stopped().await;
}

async fn plain_get(door: &Served, path: &str) -> String {
    let mut socket = door.tcp().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

const LIVELY: Pace =
    Pace { ping: Duration::from_millis(50), silence: Duration::from_secs(5), large: PATIENCE };

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_goes() {
    let door = open(config(), LIVELY);
    let silent = stream(&door, "quiet").await;
    let mut lively = stream(&door, "quiet").await;
    until("both read", || door.metrics.stream_readers.get() == 2).await;
    let start = Instant::now();
    let mut pings = 0;
    while door.metrics.stream_readers.get() == 2 {
        let message = tokio::time::timeout(PATIENCE, lively.next()).await.expect("pings come");
        if let Message::Ping(_) = message.expect("it stays open").unwrap() {
            pings += 1;
        }
        assert!(start.elapsed() < PATIENCE, "the silent one is still there");
    }
    assert!(pings > 2, "{pings}");
    assert_eq!(door.metrics.stream_readers.get(), 1);
    drop(silent);
    lively.close(None).await.unwrap();
    until("no reader is left", || door.metrics.stream_readers.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn readers_that_never_read_hold_up_nobody_and_go() {
    let door = open(config(), LIVELY);
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(stream(&door, "endless").await);
    }
    let mut reader = stream(&door, "endless").await;
    for wanted in 1..=200 {
        let frame = loop {
            match tokio::time::timeout(PATIENCE, reader.next()).await.expect("it goes on").unwrap().unwrap() {
                Message::Text(text) => break serde_json::from_str::<Value>(&text).unwrap(),
                _ => continue,
            }
        };
        assert_eq!(frame["seq"], wanted);
    }
    drop(reader);
    until("those that do not read are let go", || door.metrics.stream_readers.get() == 0).await;
    drop(idle);
    door.stopped().await;
}

#[tokio::test]
async fn who_may_not_read_any_more_is_told_so_and_let_go() {
    let door = open(config(), LIVELY);
    let mut reader = stream(&door, "quiet").await;
    // It has been looked at, and may go on.
    while !matches!(reader.next().await.expect("a message").unwrap(), Message::Ping(_)) {}
    let busy = stream(&door, "endless").await;
    door.fake.revoked.store(true, std::sync::atomic::Ordering::SeqCst);
    for stream in [reader, busy] {
        assert_eq!(to_end(stream).await.1, Some(CloseCode::Policy));
    }
    until("no reader is left", || door.metrics.stream_readers.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn what_a_client_says_is_bounded() {
    let door = open(config(), CALM);
    let mut talks = stream(&door, "quiet").await;
    until("it reads", || door.metrics.stream_readers.get() == 1).await;
    talks.send(Message::text("hello")).await.unwrap();
    talks.send(Message::text("x".repeat(64 << 10))).await.unwrap();
    // It is there to answer, and what was sent before was taken before.
    talks.send(Message::Ping(Vec::new().into())).await.unwrap();
    loop {
        match tokio::time::timeout(PATIENCE, talks.next()).await.expect("an answer").unwrap().unwrap() {
            Message::Pong(_) => break,
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(door.metrics.stream_readers.get(), 1, "messages up to 64 KiB are ignored");
    let _ = talks.send(Message::text("x".repeat((64 << 10) + 1))).await;
    until("a large one ends it", || door.metrics.stream_readers.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn a_flood_of_pings_that_reads_nothing_ends_the_stream() {
    let door = open(config(), CALM);
    let mut socket = door.tcp().await;
    let request = "GET /api/v1/stream/quiet HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    until("it reads", || door.metrics.stream_readers.get() == 1).await;
    // An empty ping, masked with zeros.
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(1000);
    let flood = async { while socket.write_all(&pings).await.is_ok() {} };
    let ended = until("the flood ends it", || door.metrics.stream_readers.get() == 0);
    tokio::select! {
        () = flood => {}
        () = ended => {}
    }
    until("no reader is left", || door.metrics.stream_readers.get() == 0).await;

    // What is within measure is answered, what is not is told so.
    let mut talks = stream(&door, "quiet").await;
    for _ in 0..50 {
        talks.send(Message::Ping(Vec::new().into())).await.unwrap();
    }
    let mut pongs = 0;
    while pongs < 50 {
        match tokio::time::timeout(PATIENCE, talks.next()).await.expect("an answer").unwrap().unwrap() {
            Message::Pong(_) => pongs += 1,
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..1000 {
        // It may be over before the last one.
        let _ = talks.send(Message::Ping(Vec::new().into())).await;
    }
    assert_eq!(to_end(talks).await.1, Some(CloseCode::Policy));
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await.expect("it is closed");
    door.stopped().await;
}

#[tokio::test]
async fn a_close_is_answered() {
    let door = open(config(), CALM);
    let mut socket = stream(&door, "quiet").await;
    socket.close(None).await.unwrap();
    while let Some(message) = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an answer") {
        message.expect("the closing handshake, not a broken connection");
    }
    until("no reader is left", || door.metrics.stream_readers.get() == 0).await;
    door.stopped().await;
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_word() {
    let door = open(config(), CALM);
    let quiet = stream(&door, "quiet").await;
    until("it reads", || door.metrics.stream_readers.get() == 1).await;
    let ends = tokio::spawn(to_end(quiet));
    door.stopped().await;
    assert_eq!(ends.await.unwrap(), (vec![1], Some(CloseCode::Away)));
}
