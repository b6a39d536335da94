//! The filter's own end: connections, and each request's way through the checks. One task a connection.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Mutex, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::{
    Refusal, Settings, body,
    call::{self, Asked, Call, Id},
    list::{self, Own},
    own::{self, Known},
    upstream::{Broken, Upstream, whole},
};
use crate::sandbox::FILTER as COMPONENT;

/// Connections at a time. The agent has one for each call, and one that waits for each job.
const CONNECTIONS: usize = 8192;
/// How long a request's head, or the pause before it, may take.
const HEAD: Duration = Duration::from_secs(60);
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(10);

type Answer = Response<Either<Full<Bytes>, Either<Incoming, Own>>>;

/// Why a call does not come to its own answer.
enum Failed {
    Refused(Refusal),
    Broken(Broken),
    /// Docker has said no to a look that the call needs: that is the answer.
    Said(Box<Answer>),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Failed {
        Failed::Refused(refusal)
    }
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Failed {
        Failed::Broken(broken)
    }
}

/// The filter, with what it has learnt.
pub struct Filter {
    settings: Settings,
    known: Known,
}

/// A filter that has its socket.
pub struct Listening {
    filter: Arc<Filter>,
    listener: UnixListener,
}

impl Filter {
    /// Opens the socket, in the place of one that nobody listens on any more.
    ///
    /// # Errors
    /// A rule that would let everything pass, another filter on that socket, or what the system said.
    pub async fn listen(settings: Settings) -> io::Result<Listening> {
        settings.rules.check().map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let path = &settings.listen;
        if fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
            if UnixStream::connect(path).await.is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(settings.mode))?;
        let filter = Arc::new(Filter { settings, known: Known::default() });
        Ok(Listening { filter, listener })
    }

    /// One request on its way. An error breaks the connection.
    async fn answer(&self, upstream: &Mutex<Upstream>, request: Request<Incoming>) -> Result<Answer, Broken> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match self.pass(upstream, request).await {
            Ok(answer) => Ok(answer),
            Err(Failed::Refused(refusal)) => {
                tracing::warn!(%method, path, why = refusal.why, "refused");
                Ok(refused(&refusal))
            }
            Err(Failed::Said(answer)) => {
                tracing::debug!(%method, path, status = answer.status().as_u16(), "answered by Docker");
                Ok(*answer)
            }
            Err(Failed::Broken(broken)) => {
                tracing::warn!(%method, path, %broken, "no answer of Docker's");
                Err(broken)
            }
        }
    }

    async fn pass(&self, upstream: &Mutex<Upstream>, request: Request<Incoming>) -> Result<Answer, Failed> {
        if request.version() != Version::HTTP_11 {
            return Err(Refusal::bad("the agent speaks another version of HTTP").into());
        }
        call::headers(request.headers())?;
        let asked = Asked::parse(request.method(), request.uri())?;
        let length = call::length(request.headers())?;
        let said = body_of(request, length, asked.has_body()).await?;
        // A connection has one request at a time, so nobody ever waits here.
        let mut upstream = upstream.lock().await;
        let mut way = Way { filter: self, upstream: &mut upstream };
        way.go(&asked, &said).await
    }
}

/// The checks that need Docker, and the call.
struct Way<'a> {
    filter: &'a Filter,
    upstream: &'a mut Upstream,
}

impl Way<'_> {
    async fn go(&mut self, asked: &Asked, said: &[u8]) -> Result<Answer, Failed> {
        let (rules, known) = (&self.filter.settings.rules, &self.filter.known);
        match &asked.call {
            Call::Ping | Call::Info => self.ask(asked, None).await,
            Call::Version => {
                let answer = self.send(asked, None).await?;
                let (head, text) = self.read(answer).await?;
                let text = if head.0 == StatusCode::OK { with_the_filter(text) } else { text };
                Ok(again(head, text))
            }
            Call::List { .. } => {
                let answer = self.send(asked, None).await?;
                if answer.status() != StatusCode::OK {
                    let (head, text) = self.read(answer).await?;
                    return Ok(again(head, text));
                }
                let (head, body) = answer.into_parts();
                let own = list::own_ones(rules.clone(), body);
                Ok(respond(head.status, &head.headers, Either::Right(Either::Right(own))))
            }
            Call::Create { name } => {
                let create = body::create(rules, name, said)?;
                self.image(asked, &create.image).await?;
                let answer = self.send(asked, Some(create.body.to_string())).await?;
                let (head, text) = self.read(answer).await?;
                let made = serde_json::from_slice::<Value>(&text).unwrap_or_default();
                if let Some(id) = made["Id"].as_str().and_then(Id::parse) {
                    known.add(id);
                }
                Ok(again(head, text))
            }
            Call::Inspect { .. } => {
                let answer = self.send(asked, None).await?;
                let (head, text) = self.read(answer).await?;
                if head.0 == StatusCode::OK {
                    let found = serde_json::from_slice::<Value>(&text).unwrap_or_default();
                    known.add(own::agents(rules, &found).ok_or_else(not_the_agents)?);
                }
                Ok(again(head, text))
            }
            Call::Update(id) => {
                let body = body::update(said)?;
                self.own(asked, id).await?;
                self.ask(asked, Some(body.to_string())).await
            }
            Call::Start(id) | Call::Wait(id) | Call::Kill { id, .. } => {
                self.own(asked, id).await?;
                self.ask(asked, None).await
            }
            Call::Remove(id) => {
                self.own(asked, id).await?;
                let answer = self.ask(asked, None).await?;
                if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND {
                    known.forget(id);
                }
                Ok(answer)
            }
            Call::InspectImage { reference } => {
                let by_id = reference.starts_with("sha256:");
                if by_id {
                    self.image(asked, reference).await?;
                } else if !rules.allows_image(reference) {
                    return Err(other_image(reference).into());
                }
                let answer = self.send(asked, None).await?;
                let (head, text) = self.read(answer).await?;
                if head.0 == StatusCode::OK && !by_id {
                    let found = serde_json::from_slice::<Value>(&text).unwrap_or_default();
                    if let Some(id) = found["Id"].as_str() {
                        known.add_image(id, reference);
                    }
                }
                Ok(again(head, text))
            }
            Call::Pull { name, tag } => {
                let reference = call::pulled(name, tag);
                if !rules.allows_image(&reference) {
                    return Err(other_image(&reference).into());
                }
                self.ask(asked, None).await
            }
        }
    }

    /// Refuses a container that is not the agent's.
    async fn own(&mut self, asked: &Asked, id: &Id) -> Result<(), Failed> {
        let Filter { settings, known } = self.filter;
        if known.has(id) {
            return Ok(());
        }
        let call = Call::Inspect { container: id.as_str().to_owned() };
        let look = Asked { version: asked.version.clone(), call };
        let answer = self.send(&look, None).await?;
        let (head, text) = self.read(answer).await?;
        if head.0 != StatusCode::OK {
            // What is not there, or can't be looked at now, is said as Docker says it: nothing is refused here.
            return Err(Failed::Said(Box::new(again(head, text))));
        }
        let found = serde_json::from_slice::<Value>(&text).unwrap_or_default();
        match own::agents(&settings.rules, &found) {
            Some(found) if found == *id => known.add(found),
            _ => return Err(not_the_agents().into()),
        }
        Ok(())
    }

    /// Refuses an image, by its id, that none of the allowed references means.
    async fn image(&mut self, asked: &Asked, id: &str) -> Result<(), Failed> {
        let Filter { settings, known } = self.filter;
        if settings.rules.images.is_empty() || known.has_image(id) {
            return Ok(());
        }
        // After a start of the filter, when the agent has no need to ask by name again.
        for reference in &settings.rules.images {
            let call = Call::InspectImage { reference: reference.clone() };
            let look = Asked { version: asked.version.clone(), call };
            let answer = self.send(&look, None).await?;
            let (head, text) = self.read(answer).await?;
            let found = serde_json::from_slice::<Value>(&text).unwrap_or_default();
            if head.0 == StatusCode::OK && found["Id"] == id {
                known.add_image(id, reference);
                return Ok(());
            }
        }
        Err(other_image(id).into())
    }

    /// The call as it is, its answer streamed.
    async fn ask(&mut self, asked: &Asked, body: Option<String>) -> Result<Answer, Failed> {
        let answer = self.send(asked, body).await?;
        let (head, body) = answer.into_parts();
        Ok(respond(head.status, &head.headers, Either::Right(Either::Left(body))))
    }

    async fn send(&mut self, asked: &Asked, body: Option<String>) -> Result<Response<Incoming>, Broken> {
        let socket = &self.filter.settings.docker;
        self.upstream.send(socket, asked.method(), &asked.target(), body.map(String::into_bytes)).await
    }

    async fn read(&mut self, answer: Response<Incoming>) -> Result<((StatusCode, HeaderMap), Bytes), Broken> {
        let (head, body) = answer.into_parts();
        Ok(((head.status, head.headers), whole(body).await?))
    }
}

/// Names the filter among the parts that Docker's version has, so that who asks does not take one for the other.
fn with_the_filter(text: Bytes) -> Bytes {
    let Ok(Value::Object(mut version)) = serde_json::from_slice(&text) else { return text };
    let parts = version.entry("Components").or_insert(Value::Null);
    let own = json!({"Name": COMPONENT, "Version": env!("CARGO_PKG_VERSION")});
    match parts {
        Value::Array(parts) => parts.push(own),
        other => *other = json!([own]),
    }
    Value::Object(version).to_string().into()
}

fn not_the_agents() -> Refusal {
    Refusal::forbidden("the container is not the agent's")
}

fn other_image(reference: &str) -> Refusal {
    Refusal::forbidden(format!(
        "{reference} is none of the images that the filter was started with (--image)"
    ))
}

/// The request's body: as long as it said, or nothing where the call has none.
async fn body_of(request: Request<Incoming>, length: u64, wanted: bool) -> Result<Bytes, Refusal> {
    if !wanted {
        return if length == 0 { Ok(Bytes::new()) } else { Err(Refusal::bad("this call has no body")) };
    }
    let limit = usize::try_from(length).unwrap_or(0);
    let read = tokio::time::timeout(BODY, Limited::new(request.into_body(), limit).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Refusal::bad(format!("the body can't be read: {error}"))),
        Err(_) => Err(Refusal::bad(format!("the body did not come within {} s", BODY.as_secs()))),
    }
}

/// An answer that was read here, as it came.
fn again((status, headers): (StatusCode, HeaderMap), text: Bytes) -> Answer {
    respond(status, &headers, Either::Left(Full::new(text)))
}

/// An answer with the headers that mean something to the agent; lengths and hops are between us and each side.
fn respond(
    status: StatusCode,
    headers: &HeaderMap,
    body: Either<Full<Bytes>, Either<Incoming, Own>>,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    for name in [header::CONTENT_TYPE, header::HeaderName::from_static("api-version"), header::SERVER] {
        if let Some(value) = headers.get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

/// In Docker's form, so that the agent's log has the sentence.
fn refused(refusal: &Refusal) -> Answer {
    let text = json!({ "message": refusal.to_string() }).to_string();
    let mut answer = Response::new(Either::Left(Full::from(text)));
    *answer.status_mut() = refusal.status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    // What else came on this connection is not looked at.
    answer.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    answer
}

impl Listening {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.filter.settings.listen
    }

    /// Serves until it is stopped, then removes its socket.
    pub async fn serve(self, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
                    let filter = Arc::clone(&self.filter);
                    tokio::spawn(async move {
                        filter.connection(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors: there will be some again.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let _gone_already = fs::remove_file(&self.filter.settings.listen);
    }
}

impl Filter {
    async fn connection(&self, stream: UnixStream) {
        let upstream = Mutex::new(Upstream::new());
        let service = service_fn(|request| self.answer(&upstream, request));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(32)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        }
    }
}
