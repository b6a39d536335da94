//! What handlers take out of a request: signed bodies, job ids, readers, queries. Every refusal here is a
//! [`Problem`], never plain text.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use http_body_util::BodyExt;

use super::{app::App, edge::client_cert::ClientCertificate, limit::shareholder};
use crate::{
    base::{
        budget::{Budget, Held},
        clock::Timestamp,
    },
    gate::{Holder, Operator, ReadRequest, Reader, Via},
    wire::{Code, Problem, rights::Right},
};

/// Bytes of a body that need no part of the budget: what most submissions have.
const SMALL: usize = 16 << 10;
/// Seconds after which memory for a body may be free.
const TRY_AGAIN: u32 = 5;

/// The bytes of a JSON body exactly as they were sent: what is signed.
#[derive(Debug)]
pub struct SignedBody(pub Bytes);

impl FromRequest<Arc<App>> for SignedBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<SignedBody, Problem> {
        let config = app.config.load_full();
        let max = config.max_body_bytes;
        if !is_json(request.headers()) {
            lose(request, max).await;
            return Err(Problem::new(Code::UnsupportedMediaType)
                .details("Send the envelope with `Content-Type: application/json`"));
        }
        let announced = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > max as u64) {
            lose(request, max.saturating_mul(4)).await;
            return Err(too_large(max));
        }
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
        let room = Room { bodies: &app.bodies, address: peer.and_then(|ip| shareholder(&config, ip)) };
        match tokio::time::timeout(config.body_timeout, read(request, max, &room)).await {
            Ok(body) => body.map(SignedBody),
            Err(_) => Err(Problem::new(Code::RequestTimeout)
                .details(format!("The body did not arrive within {} s", config.body_timeout.as_secs_f64()))),
        }
    }
}

/// Parameters do not matter. Without the header the body may be what it is (RFC 9110, section 8.3): the
/// signature says whether it is.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = kind.to_str().ok().and_then(|kind| kind.split(';').next());
    essence.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::BodyTooLarge)
        .details(format!("The body may have {max} bytes at most"))
        .with("max", max)
}

/// Where a body's memory comes from.
struct Room<'a> {
    bodies: &'a Arc<Budget>,
    address: Option<IpAddr>,
}

/// A body, and its part of the budget for as long as anything of it is kept.
struct Kept {
    bytes: Vec<u8>,
    held: Option<Held>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Kept {
    /// Room for that many bytes, `max` at most; `false`: the budget has no more.
    fn make_room(&mut self, bytes: usize, max: usize, room: &Room<'_>) -> bool {
        if bytes <= self.bytes.capacity() {
            return true;
        }
        // Doubled, as a vector grows by itself, but with the budget's leave.
        let capacity = bytes.next_power_of_two().clamp(SMALL, max.max(SMALL)).max(bytes);
        let granted = match &mut self.held {
            _ if capacity <= SMALL => true,
            Some(held) => held.try_grow(capacity),
            none => {
                *none = room.bodies.try_take(room.address, capacity);
                none.is_some()
            }
        };
        if granted {
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        granted
    }
}

/// Collects a body as it comes: memory is taken for what is there, not for what was announced.
async fn read(request: Request, max: usize, room: &Room<'_>) -> Result<Bytes, Problem> {
    let mut body = request.into_body();
    let mut kept = Kept { bytes: Vec::new(), held: None };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(Code::InvalidJson).details(format!("The body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = kept.bytes.len() + data.len();
        if length > max {
            drop(kept);
            lose_body(body, max.saturating_mul(4)).await;
            return Err(too_large(max));
        }
        if !kept.make_room(length, max, room) {
            drop(kept);
            lose_body(body, max).await;
            return Err(Problem::new(Code::Busy)
                .details("Too many large requests at once; try again later")
                .retry_after(TRY_AGAIN));
        }
        kept.bytes.extend_from_slice(&data);
    }
    Ok(Bytes::from_owner(kept))
}

/// Reads what comes of a refused body and forgets it, within bounds. A connection that is closed with bytes
/// unread is reset, and then the client may never see why it was refused.
pub async fn lose(request: Request, max: usize) {
    // Who waits for a "100 Continue" has sent nothing, and will not.
    if !request.headers().contains_key(header::EXPECT) {
        lose_body(request.into_body(), max).await;
    }
}

async fn lose_body(mut body: axum::body::Body, max: usize) {
    let all = async {
        let mut lost = 0;
        while let Some(Ok(frame)) = body.frame().await {
            lost += frame.data_ref().map_or(0, Bytes::len);
            if lost > max {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), all).await;
}

/// The job that the path names.
#[derive(Debug)]
pub struct JobId(pub String);

impl FromRequestParts<Arc<App>> for JobId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<JobId, Problem> {
        // What can't be decoded is no job's id.
        let path = Path::<String>::from_request_parts(parts, app).await;
        path.map(|Path(id)| JobId(id)).map_err(|_| Problem::new(Code::JobNotFound))
    }
}

/// The address at the other end.
#[derive(Debug)]
pub struct Peer(pub IpAddr);

impl FromRequestParts<Arc<App>> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Peer, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        peer.map(|ConnectInfo(at)| Peer(at.ip().to_canonical())).ok_or_else(|| Problem::new(Code::Internal))
    }
}

/// A reader whose proof holds.
#[derive(Debug)]
pub struct ReadBy(pub Reader);

impl FromRequestParts<Arc<App>> for ReadBy {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<ReadBy, Problem> {
        app.jobs.reader(&read_request(parts, app), Timestamp::now()).map(ReadBy)
    }
}

/// What a reader has shown, for as long as a stream is open.
#[derive(Debug)]
pub struct Standing {
    reader: Reader,
    certificate: ClientCertificate,
}

impl FromRequestParts<Arc<App>> for Standing {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Standing, Problem> {
        let ReadBy(reader) = ReadBy::from_request_parts(parts, app).await?;
        let certificate = parts.extensions.get::<ClientCertificate>().cloned().unwrap_or_default();
        Ok(Standing { reader, certificate })
    }
}

impl Standing {
    /// Who reads.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whether it may go on, by configuration and tokens as they are now.
    pub fn stands(&self, app: &App) -> bool {
        let now = Timestamp::now();
        let config = app.config.load();
        let presented = self.certificate.0.as_deref().zip(config.client_tls.as_ref());
        let holder = presented.and_then(|(presented, tls)| presented.holder(tls, now));
        app.jobs.may_go_on(&self.reader, holder.as_ref(), now)
    }
}

/// Who holds the right to operate.
#[derive(Debug)]
pub struct OperatedBy(pub Operator);

impl FromRequestParts<Arc<App>> for OperatedBy {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<OperatedBy, Problem> {
        check_origin(&parts.headers, &app.config.load().allowed_origins)?;
        app.jobs.operator(&read_request(parts, app), Timestamp::now()).map(OperatedBy)
    }
}

/// Programs send no `Origin`; a page's must be one that is allowed, or any page that a person opens could
/// read, and with that person's certificate also act, through that person's browser.
pub fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Problem> {
    let refused = headers
        .get_all(header::ORIGIN)
        .iter()
        .any(|origin| !allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()));
    if refused {
        return Err(
            Problem::new(Code::OriginNotAllowed).details("Add the page's origin to `allowed_origins`")
        );
    }
    Ok(())
}

/// Whose client certificate the connection has.
fn holder(parts: &Parts, app: &App) -> Option<Holder> {
    let presented = parts.extensions.get::<ClientCertificate>()?.0.as_deref()?;
    presented.holder(app.config.load().client_tls.as_ref()?, Timestamp::now())
}

/// Where an envelope comes from, as far as the connection says it.
#[derive(Debug)]
pub struct CameBy(pub Via);

impl FromRequestParts<Arc<App>> for CameBy {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<CameBy, Problem> {
        let Peer(peer) = Peer::from_request_parts(parts, app).await?;
        Ok(CameBy(Via { peer, certificate: holder(parts, app) }))
    }
}

/// Who cancels, where something else stands in the place of a signature.
#[derive(Debug)]
pub enum MayBeOperatedBy {
    /// A token was sent: it is meant to.
    Token(Operator),
    /// The connection has a certificate that would do, if the body is not signed.
    Certificate(Operator),
    Nobody,
}

impl FromRequestParts<Arc<App>> for MayBeOperatedBy {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<MayBeOperatedBy, Problem> {
        let bearer = parts.headers.get(header::AUTHORIZATION).is_some_and(|value| {
            value.as_bytes().get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
        });
        if bearer {
            return OperatedBy::from_request_parts(parts, app).await.map(|by| MayBeOperatedBy::Token(by.0));
        }
        if holder(parts, app).is_none_or(|holder| !holder.rights.hold(Right::Operate)) {
            return Ok(MayBeOperatedBy::Nobody);
        }
        OperatedBy::from_request_parts(parts, app).await.map(|by| MayBeOperatedBy::Certificate(by.0))
    }
}

fn read_request(parts: &Parts, app: &App) -> ReadRequest {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = parts.headers.get(header::HOST).map(text);
    ReadRequest {
        method: parts.method.as_str().to_owned(),
        scheme: if app.secure { "https" } else { "http" }.to_owned(),
        authority: parts.uri.authority().map(ToString::to_string).or(host).unwrap_or_default(),
        path_and_query: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        certificate: holder(parts, app),
    }
}

/// The query, each parameter once. What is not taken out is refused by [`Parameters::end`].
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl FromRequestParts<Arc<App>> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Parameters, Problem> {
        /// More than any endpoint knows: few enough to be compared with each other.
        const MOST_PARAMETERS: usize = 16;
        let many = parts.uri.query().is_some_and(|query| query.split('&').count() > MOST_PARAMETERS);
        if many {
            return Err(Problem::new(Code::InvalidQuery)
                .details(format!("A query may have {MOST_PARAMETERS} parameters at most")));
        }
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, app).await;
        let Query(pairs) =
            query.map_err(|error| Problem::new(Code::InvalidQuery).details(error.body_text()))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(invalid(name, "is there twice"));
            }
        }
        Ok(Parameters(pairs))
    }
}

impl Parameters {
    /// Takes out one parameter and reads it; `rule` says what it should have been.
    ///
    /// # Errors
    /// `INVALID_QUERY` if it can't be read.
    pub fn take<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(at) = self.0.iter().position(|(found, _)| found == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        read(&value).map(Some).ok_or_else(|| invalid(name, rule))
    }

    /// Takes out `controller_id`, where the reader says whose job it means.
    ///
    /// # Errors
    /// `INVALID_QUERY` if it can't be read, `JOB_NOT_FOUND` if the reader may not see that controller's jobs.
    pub fn whose(&mut self, reader: Reader) -> Result<Reader, Problem> {
        match self.take("controller_id", "must have 1 to 512 bytes", short)? {
            Some(controller_id) => reader.only(controller_id),
            None => Ok(reader),
        }
    }

    /// # Errors
    /// `INVALID_QUERY` if there is a parameter that nobody took.
    pub fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(invalid(name, "is not known here")),
        }
    }
}

/// Bytes of a parameter that is a text.
pub const LONGEST_PARAMETER: usize = 512;

/// A text that is neither empty nor long.
pub fn short(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= LONGEST_PARAMETER).then(|| text.to_owned())
}

/// `INVALID_QUERY` that names the parameter.
fn invalid(name: &str, rule: &str) -> Problem {
    let shown: String = name.chars().take(64).collect();
    Problem::new(Code::InvalidQuery).details(format!("{shown}: {rule}")).with("parameter", shown)
}
