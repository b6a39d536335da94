//! What the program's own tests (tests/cli.rs) can't reach: short time limits.

use std::sync::atomic::AtomicUsize;

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, WebSocketUpgrade},
    },
    response::Response,
    routing::get,
};
use tokio::net::TcpListener;

use super::*;

const FRAME: &str =
    r#"{"job_id":"j","timestamp":"t","stream":"stdout","data":"x","final":false,"seq":1,"offset":0}"#;
const FINAL: &str = r#"{"job_id":"j","timestamp":"t","stream":"","data":"","final":true,"seq":2,"offset":0}"#;

/// The first connection brings one frame and falls silent; the second, if there is one, the end.
async fn agent_that_falls_silent(connections: Arc<AtomicUsize>, ends: bool) -> String {
    async fn stream(
        State((connections, ends)): State<(Arc<AtomicUsize>, bool)>,
        upgrade: WebSocketUpgrade,
    ) -> Response {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        upgrade.on_upgrade(move |mut socket| async move {
            if first {
                let _ = socket.send(Message::text(FRAME)).await;
            } else if ends {
                let _ = socket.send(Message::text(FRAME)).await;
                let _ = socket.send(Message::text(FINAL)).await;
                return;
            } else {
                return;
            }
            while let Some(Ok(_)) = socket.recv().await {}
        })
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().route("/api/v1/stream/j", get(stream)).with_state((connections, ends));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn client(url: &str) -> Client {
    patient(url, Duration::from_secs(30))
}

fn patient(url: &str, patience: Duration) -> Client {
    let mut settings = Settings::new(Url::parse(url).expect("a URL"), "controller-1");
    settings.idle_timeout = Duration::from_millis(100);
    settings.retry.first = Duration::from_millis(10);
    settings.retry.longest = Duration::from_millis(20);
    settings.retry.stream_patience = patience;
    Client::new(settings).expect("a client")
}

#[tokio::test]
async fn a_silent_stream_is_opened_anew() {
    let connections = Arc::new(AtomicUsize::new(0));
    let url = agent_that_falls_silent(connections.clone(), true).await;
    let mut follow = client(&url).follow("j", 1, true);
    let first = follow.next().await.expect("a frame").expect("no error");
    assert_eq!((first.seq, first.r#final), (1, false));
    let last = follow.next().await.expect("a frame").expect("no error");
    assert_eq!((last.seq, last.r#final), (2, true), "the first frame is not handed out twice");
    assert!(follow.next().await.is_none());
    assert!(connections.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn an_agent_that_takes_every_connection_and_closes_it_is_not_tried_for_ever() {
    async fn stream(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(async |socket| drop(socket))
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().route("/api/v1/stream/j", get(stream));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut follow = patient(&url, Duration::from_millis(300)).follow("j", 1, true);
    let error = follow.next().await.expect("an error").expect_err("no frame ever came");
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert!(follow.connections() > 1, "it was tried again for a while");
}

#[tokio::test]
async fn an_agent_that_never_answers_is_reported_at_once() {
    // Bound, so that nobody else gets the port, but not listening.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("an address"));
    let mut follow = client(&url).follow("j", 1, true);
    let error = follow.next().await.expect("an error").expect_err("nobody there");
    assert!(matches!(error, Error::Connect { fault: ConnectFault::Refused, .. }), "{error}");
    assert!(follow.next().await.is_none());
}

/// An agent that takes so many connections and closes them at once, and streams on those after; counts them all.
async fn agent_that_closes(first: usize) -> (String, Arc<AtomicUsize>) {
    async fn stream(upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(async |mut socket| {
            let _ = socket.send(Message::text(FRAME)).await;
            let _ = socket.send(Message::text(FINAL)).await;
        })
    }
    let inside = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let there = inside.local_addr().expect("an address");
    let router = Router::new().route("/api/v1/stream/j", get(stream));
    tokio::spawn(async move { axum::serve(inside, router).await });

    let outside = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", outside.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut here, _)) = outside.accept().await {
            if counted.fetch_add(1, Ordering::SeqCst) < first {
                continue;
            }
            tokio::spawn(async move {
                let mut on = tokio::net::TcpStream::connect(there).await?;
                tokio::io::copy_bidirectional(&mut here, &mut on).await
            });
        }
    });
    (url, count)
}

#[tokio::test]
async fn a_stream_takes_the_connection_that_was_made_ahead() {
    let (url, connections) = agent_that_closes(0).await;
    let client = client(&url);
    client.connect_ahead();
    let mut follow = client.follow("j", 1, true);
    while let Some(frame) = follow.next().await {
        frame.expect("no error");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1, "it made no other");
}

#[tokio::test]
async fn a_connection_made_ahead_that_was_cut_since_costs_nothing() {
    let (url, connections) = agent_that_closes(1).await;
    let client = client(&url);
    client.connect_ahead();
    let mut follow = client.follow("j", 1, true);
    let first = follow.next().await.expect("a frame").expect("no error");
    assert_eq!((first.seq, connections.load(Ordering::SeqCst)), (1, 2));
    assert_eq!(follow.connections(), 1, "it did not count as one, and nothing was waited for");
}

#[test]
fn an_address_keeps_its_prefix_and_its_port() {
    let made = |url: &str| {
        let client = client(url);
        let endpoint = client.endpoint(&["api", "v1", "jobs", "a/b"]).expect("an address");
        (endpoint.to_string(), send::authority(&endpoint))
    };
    assert_eq!(
        made("https://agent.example.com:8443"),
        ("https://agent.example.com:8443/api/v1/jobs/a%2Fb".into(), "agent.example.com:8443".into())
    );
    assert_eq!(
        made("https://[::1]:443/quick/"),
        ("https://[::1]/quick/api/v1/jobs/a%2Fb".into(), "[::1]".into())
    );
    assert!(Client::new(Settings::new(Url::parse("ftp://x").expect("a URL"), "c")).is_err());
}

#[test]
fn plain_http_is_for_loopback_only() {
    let made = |url: &str| Client::new(Settings::new(Url::parse(url).expect("a URL"), "c"));
    for url in ["http://127.9.9.9:1", "http://[::1]", "http://[::ffff:127.0.0.1]:1", "http://LocalHost:1"] {
        assert!(made(url).is_ok(), "{url}");
    }
    for url in
        ["http://10.0.0.1:8443", "http://0.0.0.0", "http://[fe80::1]", "http://agent", "http://x.localhost"]
    {
        assert!(matches!(made(url), Err(Error::Plain { .. })), "{url}");
    }
    assert!(made("https://10.0.0.1:8443").is_ok());
}
