//! What is asked and what is answered, without a connection.

use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::{HeaderValue, Request, Response, header},
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use ipnet::IpNet;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{
    api::{app::App, router::router},
    base::{budget::Budget, clock::Timestamp},
    gate::Reader,
    wire::{Code, Status},
};

pub(super) struct Asked {
    router: Router,
    fake: Arc<Fake>,
    metrics: Arc<Metrics>,
}

fn door(config: ServerConfig) -> Asked {
    door_with(config, |_| {})
}

pub(super) fn door_with(config: ServerConfig, change: impl FnOnce(&mut App)) -> Asked {
    let (fake, metrics) = (Arc::new(Fake::default()), Metrics::new());
    let config = Arc::new(ArcSwap::from_pointee(config));
    let mut app = App::new(fake.clone(), config, metrics.clone(), CALM);
    change(&mut app);
    Asked { router: router(Arc::new(app)), fake, metrics }
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: axum::http::HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code.
    fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

impl Asked {
    async fn ask_from(&self, peer: &str, mut request: Request<Body>) -> Answer {
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Answer {
        self.ask_from("192.0.2.1:5000", request).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request =
            headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        self.ask(request.body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, body: impl Into<Body>) -> Answer {
        self.ask(submission(body)).await
    }
}

pub(super) fn submission(body: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/api/v1/jobs").header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_submission_reaches_the_service_byte_for_byte() {
    let door = door(config());
    let answer = door.post("{ \"payload\" : 1e+21}\n").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json(), json!({"job_id": "job-1", "status": "pending"}));
    let (peer, body) = door.fake.bodies.lock().unwrap()[0].clone();
    assert_eq!((peer.to_string().as_str(), &body[..]), ("192.0.2.1", &b"{ \"payload\" : 1e+21}\n"[..]));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-request-id").len(), 16);
    assert_ne!(answer.header("x-request-id"), door.get("/live").await.header("x-request-id"));
}

#[tokio::test]
async fn content_types_other_than_json_are_refused() {
    let door = door(config());
    for (kind, status) in [
        (Some("application/json"), 202),
        (Some("Application/JSON; charset=utf-8"), 202),
        (None, 202),
        (Some("text/plain"), 415),
        (Some("application/jsonp"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some(""), 415),
    ] {
        let mut request = submission("{}");
        request.headers_mut().remove(header::CONTENT_TYPE);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        let answer = door.ask(request).await;
        assert_eq!(answer.status, status, "{kind:?}");
        assert!(status == 202 || answer.refusal().1 == "UNSUPPORTED_MEDIA_TYPE");
    }
}

#[tokio::test]
async fn a_body_may_be_as_large_as_configured_and_no_byte_larger() {
    let door = door(config());
    assert_eq!(door.post(vec![b'x'; 1000]).await.status, 202);
    let announced = door.post(vec![b'x'; 1001]).await;
    assert_eq!(announced.refusal(), (413, "BODY_TOO_LARGE".to_owned()));
    assert_eq!(announced.json()["error"], "Request body too large");
    let chunks = stream::iter((0..1001).map(|_| Ok::<_, std::io::Error>("x")));
    let chunked = door.post(Body::from_stream(chunks)).await;
    assert_eq!(chunked.refusal(), (413, "BODY_TOO_LARGE".to_owned()));
    let mut lies = submission(vec![b'x'; 10]);
    lies.headers_mut().insert(header::CONTENT_LENGTH, "1001".parse().unwrap());
    assert_eq!(door.ask(lies).await.status, 413);
    assert_eq!(door.metrics.refusals(Code::BodyTooLarge), 3);
    assert_eq!(door.fake.bodies.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn bodies_that_do_not_end_leave_memory_for_others() {
    let bodies = Budget::new(4 << 20);
    let config = ServerConfig { max_body_bytes: 1 << 20, ..config() };
    let door = Arc::new(door_with(config, |app| app.bodies = bodies.clone()));
    let unfinished = |peer: &'static str| {
        let door = door.clone();
        let chunks = stream::iter((0..600).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1 << 10])));
        let body = Body::from_stream(chunks.chain(stream::pending()));
        tokio::spawn(async move { door.ask_from(peer, submission(body)).await.status })
    };
    let peers = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1"];
    let first = unfinished(peers[0]);
    until("the first one's bytes are there", || bodies.free() == 3 << 20).await;

    let large = || vec![b'x'; 100 << 10];
    let more = door.ask_from("192.0.2.1:2", submission(large())).await;
    assert_eq!(more.refusal(), (503, "BUSY".to_owned()), "its address has its share already");
    assert_eq!(more.header("retry-after"), "5");
    assert_eq!(door.ask_from("192.0.2.2:2", submission(large())).await.status, 202);
    door.fake.bodies.lock().unwrap().clear();
    let rest: Vec<_> = peers[1..].iter().map(|peer| unfinished(peer)).collect();
    until("nothing is left", || bodies.free() == 0).await;
    assert_eq!(door.ask_from("192.0.2.9:1", submission(large())).await.status, 503);
    let small = door.ask_from("192.0.2.1:3", submission(vec![b'x'; 16 << 10])).await;
    assert_eq!(small.status, 202, "a small one needs none of it");

    first.abort();
    for task in rest {
        task.abort();
    }
    door.fake.bodies.lock().unwrap().clear();
    until("all is given back", || bodies.free() == 4 << 20).await;
    assert_eq!(door.ask_from("192.0.2.9:1", submission(large())).await.status, 202);
    assert_eq!(bodies.free(), (4 << 20) - (128 << 10), "as long as the service keeps the bytes");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let door = door(config());
    let starts = stream::iter([Ok::<_, std::io::Error>("{")]).chain(stream::pending());
    let answer = door.post(Body::from_stream(starts)).await;
    assert_eq!(answer.refusal(), (408, "REQUEST_TIMEOUT".to_owned()));
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn an_address_that_comes_too_often_waits_before_its_body_counts() {
    let exempt: IpNet = "198.51.100.0/24".parse().unwrap();
    let rate_by_address = Rate { per_second: 0.01, burst: 2 };
    let door = door(ServerConfig { rate_by_address, rate_exempt: vec![exempt], ..config() });
    for _ in 0..2 {
        assert_eq!(door.get("/api/v1/jobs/job-1").await.status, 200);
    }
    let refused = door.post(vec![b'x'; 2000]).await;
    assert_eq!(refused.refusal(), (429, "RATE_LIMITED".to_owned()), "the rate comes before the size");
    let wait: u32 = refused.header("retry-after").parse().unwrap();
    assert!((90..=100).contains(&wait), "{wait}");
    assert_eq!(door.get("/health").await.status, 200, "monitors are not limited");
    assert_eq!(door.ask_from("192.0.2.2:1", submission("{}")).await.status, 202);
    for _ in 0..4 {
        assert_eq!(door.ask_from("198.51.100.9:1", submission("{}")).await.status, 202);
        assert_eq!(door.ask_from("[::ffff:198.51.100.9]:1", submission("{}")).await.status, 202);
    }
    // One customer has a whole IPv6 network.
    let peers = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "[2001:db8:0:1::1]:1"];
    let mut statuses = Vec::new();
    for peer in peers {
        statuses.push(door.ask_from(peer, submission("{}")).await.status);
    }
    assert_eq!(statuses, [202, 202, 429, 202]);
}

#[tokio::test]
async fn refusals_have_one_form() {
    let door = door(config());
    let full = door.post("full").await;
    assert_eq!(full.refusal(), (429, "QUEUE_FULL".to_owned()));
    assert_eq!(full.header("retry-after"), "7");
    assert_eq!(full.json(), json!({"error": "Queue is full", "code": "QUEUE_FULL"}));
    assert_eq!(door.get("/api/v1/jobs/other").await.refusal(), (404, "JOB_NOT_FOUND".to_owned()));
    assert_eq!(door.get("/api/v1/jobs/%ff").await.refusal(), (404, "JOB_NOT_FOUND".to_owned()));
    for path in ["/", "/api/v2/jobs", "/api/v1/jobs/", "/api/v1/jobs/a/b/c"] {
        let answer = door.get(path).await;
        assert_eq!(answer.refusal(), (404, "NOT_FOUND".to_owned()), "{path}");
        assert_eq!(answer.header("x-request-id").len(), 16);
    }
    let delete = door.ask(Request::delete("/api/v1/jobs").body(Body::empty()).unwrap()).await;
    assert_eq!(delete.refusal(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(delete.header("allow"), "POST,GET,HEAD");
    assert_eq!(door.metrics.refusals(Code::NotFound), 4);
}

#[tokio::test]
async fn a_defect_is_answered_and_the_door_goes_on() {
    let door = door(config());
    assert_eq!(door.post("panic").await.refusal(), (500, "INTERNAL".to_owned()));
    door.fake.panics.store(true, Ordering::SeqCst);
    assert_eq!(door.get("/ready").await.refusal(), (500, "INTERNAL".to_owned()));
    door.fake.panics.store(false, Ordering::SeqCst);
    assert_eq!(door.get("/ready").await.status, 200);
}

#[tokio::test]
async fn a_cancellation_says_whether_the_job_has_ended_by_it() {
    let door = door(config());
    let post = |id: &str| Request::post(format!("/api/v1/jobs/{id}/cancel")).body(Body::from("{}")).unwrap();
    let running = door.ask(post("job-1")).await;
    assert_eq!((running.status, &running.json()["status"]), (202, &json!("running")));
    let waiting = door.ask(post("job-2")).await;
    assert_eq!((waiting.status, &waiting.json()["job_id"]), (200, &json!("job-2")));
}

#[tokio::test]
async fn a_token_operates_and_is_never_taken_for_a_signature() {
    let door = door(config());
    let post = |path: &str, token: Option<&str>, body: &'static str| {
        let request = Request::post(path);
        let request = token.iter().fold(request, |request, token| request.header("authorization", *token));
        request.body(Body::from(body)).unwrap()
    };
    let cancel = "/api/v1/jobs/job-1/cancel";
    let answer = door.ask(post(cancel, Some("Bearer good"), "{}")).await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("running")));
    let answer = door.ask(post("/api/v1/drain", Some("Bearer good"), "")).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({"mode": "draining", "jobs_running": 1, "jobs_queued": 2}))
    );
    door.ask(post("/api/v1/undrain", Some("Bearer good"), "")).await;
    assert_eq!(
        *door.fake.operated.lock().unwrap(),
        ["token:good cancels job-1: {}", "token:good drains: true", "token:good drains: false"]
    );
    assert!(door.fake.bodies.lock().unwrap().is_empty(), "nothing went on as signed");
    for (path, token) in [
        (cancel, Some("bearer bad")),
        ("/api/v1/drain", Some("Bearer bad")),
        ("/api/v1/drain", None),
        ("/api/v1/undrain", Some("Basic good")),
    ] {
        let answer = door.ask(post(path, token, "{}")).await;
        assert_eq!(answer.refusal(), (401, "UNAUTHENTICATED".to_owned()), "{path} {token:?}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    // What a page in somebody's browser asks for must be asked for by a page that is allowed.
    for (origin, status) in [("https://evil.example.com", 403), ("https://console.example.com", 200)] {
        let request = Request::post("/api/v1/drain").header("authorization", "Bearer good");
        let answer = door.ask(request.header("origin", origin).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    door.fake.operated.lock().unwrap().truncate(3);
    // A submission is signed, whatever else it brings.
    let mut submission = submission("{}");
    submission.headers_mut().insert("authorization", "Bearer good".parse().unwrap());
    assert_eq!(door.ask(submission).await.status, 202);
    assert_eq!(door.fake.bodies.lock().unwrap().len(), 1);
    assert_eq!(door.fake.operated.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_read_brings_the_gate_what_was_signed() {
    let door = door(config());
    let headers = [("host", "agent.example.com:8443"), ("signature", "a"), ("signature", "b")];
    door.get_with("/api/v1/jobs?limit=2&cursor=a%2Fb", &headers).await;
    let read = door.fake.reads.lock().unwrap()[0].clone();
    assert_eq!(read.method, "GET");
    assert_eq!(read.scheme, "http");
    assert_eq!(read.authority, "agent.example.com:8443");
    assert_eq!(read.path_and_query, "/api/v1/jobs?limit=2&cursor=a%2Fb", "never decoded");
    let pairs = |text: &[(&str, &str)]| {
        text.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(read.headers, pairs(&headers));
    for path in ["/api/v1/jobs", "/api/v1/jobs/job-1", "/api/v1/jobs/job-1/output"] {
        let answer = door.get_with(path, &[("x-stranger", "1")]).await;
        assert_eq!(answer.refusal(), (401, "UNAUTHENTICATED".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn lists_are_asked_for_exactly_or_not_at_all() {
    let door = door(config());
    let answer = door
        .get("/api/v1/jobs?status=failed&reason=timeout&controller_id=c%201&since=100&until=2026-01-01T00:00:00%2B01:00&limit=7&cursor=x")
        .await;
    assert_eq!(answer.json(), json!({"jobs": [], "next_cursor": null}));
    assert_eq!(door.get("/api/v1/jobs").await.status, 200);
    for limit in [1, 500] {
        assert_eq!(door.get(&format!("/api/v1/jobs?limit={limit}")).await.status, 200, "{limit}");
    }
    let lists = door.fake.lists.lock().unwrap().clone();
    assert_eq!(lists[0].status, Some(Status::Failed));
    assert_eq!(lists[0].reason.as_deref(), Some("timeout"));
    assert_eq!(lists[0].controller_id.as_deref(), Some("c 1"));
    assert_eq!(lists[0].since, Some(Timestamp::from_secs(100)));
    assert_eq!(lists[0].until, Some(Timestamp::from_secs(1_767_222_000)));
    assert_eq!((lists[0].limit, lists[0].cursor.as_deref()), (7, Some("x")));
    assert_eq!((lists[1].limit, &lists[1].status, &lists[1].cursor), (50, &None, &None));
    assert_eq!((lists[2].limit, lists[3].limit), (1, 500));
    for (query, parameter) in [
        ("status=sleeping", "status"),
        ("reason=boredom", "reason"),
        ("since=yesterday", "since"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=2&limit=3", "limit"),
        ("colour=red", "colour"),
        ("cursor=", "cursor"),
    ] {
        let answer = door.get(&format!("/api/v1/jobs?{query}")).await;
        assert_eq!(answer.refusal(), (400, "INVALID_QUERY".to_owned()), "{query}");
        assert_eq!(answer.json()["parameter"], parameter, "{query}");
    }
}

#[tokio::test]
async fn whose_job_is_meant_can_be_said() {
    let door = door(config());
    for path in ["/api/v1/jobs/job-1", "/api/v1/jobs/job-1/output"] {
        assert_eq!(door.get(&format!("{path}?controller_id=c%201")).await.status, 200, "{path}");
        for (query, parameter) in [("controller_id=", "controller_id"), ("colour=red", "colour")] {
            let answer = door.get(&format!("{path}?{query}")).await;
            assert_eq!(answer.refusal(), (400, "INVALID_QUERY".to_owned()), "{path}?{query}");
            assert_eq!(answer.json()["parameter"], parameter);
        }
    }
    assert_eq!(
        door.fake.readers.lock().unwrap()[0],
        Reader::Controller { id: "c 1".to_owned(), admin: false }
    );
}

#[tokio::test]
async fn a_parameter_that_is_a_text_may_have_512_bytes() {
    let door = door(config());
    let x = |length: usize| "x".repeat(length);
    for path in ["/api/v1/jobs?cursor=", "/api/v1/jobs?controller_id=", "/api/v1/jobs/job-1?controller_id="] {
        assert_eq!(door.get(&format!("{path}{}", x(512))).await.status, 200, "{path}");
        for wrong in [x(513), String::new()] {
            let answer = door.get(&format!("{path}{wrong}")).await;
            assert_eq!(answer.refusal(), (400, "INVALID_QUERY".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn a_query_of_many_parameters_is_not_compared() {
    let door = door(config());
    let query: Vec<String> = (0..16).map(|n| format!("p{n}=1")).collect();
    let answer = door.get(&format!("/api/v1/jobs?{}", query.join("&"))).await;
    assert_eq!(answer.json()["parameter"], "p0", "as many are looked at");
    let answer = door.get(&format!("/api/v1/jobs?{}&p0=1", query.join("&"))).await;
    assert_eq!(answer.refusal(), (400, "INVALID_QUERY".to_owned()));
    assert!(answer.json()["details"].as_str().unwrap().contains("16 parameters at most"));
}

#[tokio::test]
async fn output_comes_whole_or_in_ranges() {
    let door = door(config());
    let path = "/api/v1/jobs/job-1/output?stream=stdout";
    let whole = door.get(path).await;
    assert_eq!((whole.status, &whole.body[..]), (200, fake::BYTES));
    assert_eq!(whole.header("content-length"), "10");
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("etag"), "\"abc\"");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let part = door.get_with(path, &[("range", "bytes=2-7")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"234567"[..]));
    assert_eq!((part.header("content-range"), part.header("content-length")), ("bytes 2-7/10", "6"));
    let outside = door.get_with(path, &[("range", "bytes=10-")]).await;
    assert_eq!(outside.refusal(), (416, "RANGE_NOT_SATISFIABLE".to_owned()));
    assert_eq!(outside.header("content-range"), "bytes */10");
    assert_eq!(outside.header("content-type"), "application/json");
    let held = door.get_with(path, &[("if-none-match", "\"abc\"")]).await;
    assert_eq!((held.status, held.body.len(), held.header("etag")), (304, 0, "\"abc\""));
    let running = door.get("/api/v1/jobs/running/output").await;
    assert_eq!((running.status, &running.body[..], running.header("etag")), (200, fake::BYTES, ""));
    let empty = door.get("/api/v1/jobs/job-1/output?stream=stderr").await;
    assert_eq!((empty.status, empty.header("content-length")), (200, "0"));
    let bad = door.get("/api/v1/jobs/job-1/output?stream=stdin").await;
    assert_eq!(bad.refusal(), (400, "INVALID_QUERY".to_owned()));
    let head = door.ask(Request::head(path).body(Body::empty()).unwrap()).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "10"));
}

#[tokio::test]
async fn artifacts_come_one_by_one_or_all_at_once() {
    let door = door(config());
    let path = "/api/v1/jobs/job-1/artifacts/out/a%20b";
    let whole = door.get(path).await;
    assert_eq!((whole.status, &whole.body[..], whole.header("etag")), (200, fake::BYTES, "\"abc\""));
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!(whole.header("content-disposition"), "attachment");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    let part = door.get_with(path, &[("range", "bytes=-3")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"789"[..]));
    let all = door.get("/api/v1/jobs/job-1/artifacts").await;
    assert_eq!(
        (all.status, all.header("content-type"), all.header("content-length")),
        (200, "application/x-tar", "10")
    );
    assert_eq!(all.header("content-disposition"), "attachment");
    for path in [
        "/api/v1/jobs/job-1/artifacts/out/%ff",
        "/api/v1/jobs/job-2/artifacts",
        "/api/v1/jobs/job-1/artifacts/x",
    ] {
        assert_eq!(door.get(path).await.refusal(), (404, "ARTIFACT_NOT_FOUND".to_owned()), "{path}");
    }
    for path in [path, "/api/v1/jobs/job-1/artifacts"] {
        let answer = door.get_with(path, &[("x-stranger", "1")]).await;
        assert_eq!(answer.refusal(), (401, "UNAUTHENTICATED".to_owned()), "{path}");
        assert_eq!(
            door.get(&format!("{path}?colour=red")).await.refusal(),
            (400, "INVALID_QUERY".to_owned())
        );
        assert_eq!(door.get(&format!("{path}?controller_id=c%201")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn monitors_are_told_what_they_ask() {
    let door = door(config());
    let health = door.get("/health").await.json();
    assert_eq!(health["status"], "healthy");
    assert!((health["timestamp"].as_i64().unwrap() - Timestamp::now().secs()).abs() < 60);
    assert_eq!((&health["queue_depth"], &health["ready"]), (&json!(3), &json!(true)));
    assert_eq!(door.get("/ready").await.status, 200);
    door.fake.not_ready.store(true, Ordering::SeqCst);
    let ready = door.get("/ready").await;
    assert_eq!((ready.status, &ready.json()["problems"][0]), (503, &json!("Docker does not answer")));
    let health = door.get("/health").await;
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("healthy")), "it still serves");
    assert_eq!(door.get("/live").await.status, 200);
}

#[tokio::test]
async fn metrics_are_open_unless_a_token_is_set() {
    let open = door(config());
    open.post("full").await;
    open.get("/nowhere-at-all").await;
    let answer = open.get("/metrics").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [
        "quickcmd_agent_jobs_total 0",
        "quickcmd_agent_refusals_total{code=\"QUEUE_FULL\"} 1",
        "quickcmd_agent_http_requests_total{class=\"4xx\",route=\"/api/v1/jobs\"} 1",
        "quickcmd_agent_http_requests_total{class=\"4xx\",route=\"unmatched\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("nowhere"), "a path became a label");

    let token = "a-token-of-the-scraper".to_owned().into_bytes();
    let closed = door(ServerConfig { metrics_token: Some(token.into()), ..config() });
    for (headers, status) in [
        (&[][..], 401),
        (&[("authorization", "Bearer a-token-of-the-scrapes")], 401),
        (&[("authorization", "Bearer ")], 401),
        (&[("authorization", "Basic a-token-of-the-scraper")], 401),
        (&[("authorization", "bearer a-token-of-the-scraper")], 200),
    ] {
        let answer = closed.get_with("/metrics", headers).await;
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), if status == 401 { "Bearer" } else { "" });
    }
}
