//! One exchange with the agent, and the same again where that is safe and may help.

use std::time::Duration;

use reqwest::{
    Method, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER},
};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use super::{Client, Error, Refusal, backoff::Backoff, error::chain};
use crate::{
    base::{clock::Timestamp, ids::random_hex},
    wire::httpsig::{self, Target},
};

/// The largest answer that is held in memory: a result with both streams in full, escaped.
const MAX_ANSWER: usize = 64 << 20;

/// What is asked, so that it can be asked again.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// A read, signed anew at each try.
    Get { url: Url, range_from: Option<u64> },
    /// A read that the agent answers to anybody.
    Open { url: Url },
    /// An envelope: the same bytes at each try.
    Post { url: Url, body: Bytes },
    /// What only the token proves.
    Told { url: Url, body: Bytes },
}

impl Ask {
    fn url(&self) -> &Url {
        match self {
            Ask::Get { url, .. } | Ask::Open { url } | Ask::Post { url, .. } | Ask::Told { url, .. } => url,
        }
    }
}

/// How a call ended that was tried until it succeeded or there was no use in it.
pub(super) struct Failed {
    pub error: Error,
    /// Whether some try may have reached the agent without our hearing of it.
    pub unsure: bool,
}

/// The tries of one call: how long until the next, and whether there is one.
struct Tries<'a> {
    client: &'a Client,
    end: Instant,
    backoff: Backoff,
    unsure: bool,
}

impl Tries<'_> {
    fn new(client: &Client) -> Tries<'_> {
        let retry = &client.inner.settings.retry;
        Tries { client, end: Instant::now() + retry.patience, backoff: Backoff::new(retry), unsure: false }
    }

    /// The wait before the next try, or the failure if none is of use.
    fn wait_after(&mut self, error: Error) -> Result<Duration, Failed> {
        self.unsure |= matches!(error, Error::Lost { .. });
        let absent = matches!(error, Error::Connect { .. }) && !self.unsure && !self.client.reached();
        let wait = error.retry_after().unwrap_or_else(|| self.backoff.next());
        if !error.passing() || absent || Instant::now() + wait > self.end {
            return Err(Failed { error, unsure: self.unsure });
        }
        Ok(wait)
    }
}

impl Client {
    /// The address of an endpoint below the configured one.
    pub(super) fn endpoint(&self, path: &[&str]) -> Result<Url, Error> {
        let mut url = self.inner.settings.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(path);
            }
            Err(()) => return Err(Error::Setting(format!("{} is no address of an agent", self.name()))),
        }
        Ok(url)
    }

    /// The agent as messages call it.
    pub(super) fn name(&self) -> String {
        let url = &self.inner.settings.url;
        url.as_str().trim_end_matches('/').to_owned()
    }

    /// Sends until there is an answer, a refusal that will not change, or patience ends.
    pub(super) async fn call(&self, ask: &Ask) -> Result<Bytes, Failed> {
        let mut tries = Tries::new(self);
        loop {
            let error = match self.once(ask).await {
                Ok(response) => match self.body(response).await {
                    Ok(body) => return Ok(body),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            tokio::time::sleep(tries.wait_after(error)?).await;
        }
    }

    /// As [`Client::call`], but hands out the answer as soon as its head is there.
    pub(super) async fn open(&self, ask: &Ask) -> Result<Response, Failed> {
        let mut tries = Tries::new(self);
        loop {
            match self.once(ask).await {
                Ok(response) => return Ok(response),
                Err(error) => tokio::time::sleep(tries.wait_after(error)?).await,
            }
        }
    }

    /// One request; an answer that is no success is an error.
    async fn once(&self, ask: &Ask) -> Result<Response, Error> {
        let name = self.name();
        let request = match ask {
            Ask::Open { url } => {
                self.inner.http.get(url.clone()).timeout(self.inner.settings.request_timeout)
            }
            Ask::Get { url, range_from } => {
                let mut headers = self.proof("GET", url)?;
                if let Some(from) = range_from {
                    headers.insert(RANGE, header(&format!("bytes={from}-"))?);
                }
                self.inner.http.get(url.clone()).headers(headers)
            }
            Ask::Post { url, body } | Ask::Told { url, body } => {
                let headers = match ask {
                    Ask::Told { .. } => self.bearer()?,
                    _ => HeaderMap::new(),
                };
                self.inner
                    .http
                    .request(Method::POST, url.clone())
                    .timeout(self.inner.settings.request_timeout)
                    .headers(headers)
                    .header(CONTENT_TYPE, "application/json")
                    .body(body.clone())
            }
        };
        let response = request.send().await.map_err(|error| Error::of_http(&name, &error))?;
        let status = response.status();
        if status.is_success() {
            self.mark_reached();
            return Ok(response);
        }
        if status.is_redirection() {
            let to =
                response.headers().get("location").and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            return Err(Error::Answer {
                url: name,
                cause: format!("it redirects from {} to {to}", ask.url()),
            });
        }
        let retry_after = retry_after(response.headers());
        let body = self.body(response).await?;
        self.mark_reached();
        Err(Error::Refused(Box::new(Refusal::read(status.as_u16(), retry_after, &body))))
    }

    /// The whole body of an answer.
    async fn body(&self, mut response: Response) -> Result<Bytes, Error> {
        let mut body = Vec::new();
        while let Some(piece) =
            response.chunk().await.map_err(|error| Error::of_http(&self.name(), &error))?
        {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Error::Answer { url: self.name(), cause: "it is larger than 64 MiB".to_owned() });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.into())
    }

    /// The address of an endpoint of one job, with whose it is if that was said.
    pub(super) fn of_job(&self, path: &[&str]) -> Result<Url, Error> {
        let mut url = self.endpoint(path)?;
        if let Some(controller_id) = &self.of {
            url.query_pairs_mut().append_pair("controller_id", controller_id);
        }
        Ok(url)
    }

    /// The token as a header field; none without one.
    fn bearer(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.inner.settings.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| {
                    Error::Setting("the token has characters that can't stand in a header field".to_owned())
                })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }

    /// The header fields that prove who reads: the token, else a signature (RFC 9421); none without either.
    pub(super) fn proof(&self, method: &str, url: &Url) -> Result<HeaderMap, Error> {
        let settings = &self.inner.settings;
        if settings.token.is_some() {
            return self.bearer();
        }
        let mut headers = HeaderMap::new();
        let Some(key) = &settings.key else { return Ok(headers) };
        let path_and_query = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let authority = authority(url);
        let target =
            Target { method, scheme: url.scheme(), authority: &authority, path_and_query: &path_and_query };
        let signed =
            httpsig::sign(&target, key, &settings.controller_id, Timestamp::now().secs(), &random_hex(16));
        headers.insert("signature-input", header(&signed.signature_input)?);
        headers.insert("signature", header(&signed.signature)?);
        Ok(headers)
    }

    /// Reads a JSON answer.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| Error::Answer { url: self.name(), cause: chain(&error) })
    }
}

/// Host and port as they stand in the `Host` field: the scheme's own port is left out.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// `Retry-After` in seconds; the form with a date is not what the agent sends.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn header(value: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(value).map_err(|_| {
        Error::Setting(
            "the controller's id or key id has characters that can't stand in a header field".to_owned(),
        )
    })
}
