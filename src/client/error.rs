//! What can go wrong between controller and agent, told apart by what one does about it.

use std::{error::Error as StdError, fmt, io, time::Duration};

use serde_json::{Map, Value};

use crate::wire::Code;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent answered: no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No connection was made: the agent has seen nothing of the request.
    #[error("cannot connect to {url}: {cause}")]
    Connect { url: String, fault: ConnectFault, cause: String },
    /// The agent's certificate or the handshake is not in order.
    #[error("cannot trust {url}: {cause}")]
    Tls { url: String, fault: TlsFault, cause: String },
    /// Plain HTTP where there must be, or is, TLS.
    #[error("cannot use plain HTTP with {url}: {cause}")]
    Plain { url: String, cause: &'static str },
    /// The connection broke, or the time ran out, before the whole answer was there.
    #[error("the answer of {url} was lost: {cause}")]
    Lost { url: String, cause: String },
    /// A submission's answer was lost and no later try got one.
    #[error("it is not known whether the agent took job {job_id}: {source}")]
    Unsure {
        job_id: String,
        #[source]
        source: Box<Error>,
    },
    /// An answer that this version can't read; perhaps no agent at all.
    #[error("the answer of {url} is not one of a QuickCMD agent: {cause}")]
    Answer { url: String, cause: String },
    /// The caller's own settings.
    #[error("{0}")]
    Setting(String),
    /// The caller's own output.
    #[error("cannot write the output: {0}")]
    Write(#[source] io::Error),
}

/// Why no connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFault {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// The name has no address.
    UnknownHost,
    Other,
}

/// What of the TLS handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// No authority that we trust signed the certificate.
    UnknownIssuer,
    /// The certificate is for another name.
    WrongName,
    /// It has expired, or is not valid yet.
    Expired,
    /// It is not the pinned one.
    Fingerprint,
    Other,
}

/// The agent's no, kept as it was said: a newer agent may know codes that we don't.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: u16,
    /// `None` if this version doesn't know the code.
    pub code: Option<Code>,
    /// The code as the agent wrote it; empty if the answer had none (a proxy's, perhaps).
    pub code_text: String,
    pub error: String,
    pub details: Option<String>,
    /// The other fields: `agent_time`, `skew_seconds` and such.
    pub more: Map<String, Value>,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads a refusal out of an answer; whatever is not the contract's form still makes a sentence.
    pub(super) fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Refusal {
        let mut more: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        let mut take = |key| match more.remove(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let code_text = take("code").unwrap_or_default();
        let error = take("error").unwrap_or_else(|| format!("the agent answered with HTTP status {status}"));
        let details = take("details");
        Refusal { status, code: Code::parse(&code_text), code_text, error, details, more, retry_after }
    }

    /// Whether the same request may succeed a little later.
    pub fn passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 502 | 503 | 504)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.details {
            Some(details) if !self.code_text.is_empty() => {
                // The seed's form repeats the code in the details.
                let said = details.strip_prefix(self.code_text.as_str()).and_then(|d| d.strip_prefix(": "));
                write!(f, " ({}): {}", self.code_text, said.unwrap_or(details))
            }
            Some(details) => write!(f, ": {details}"),
            None if !self.code_text.is_empty() => write!(f, " ({})", self.code_text),
            None => Ok(()),
        }
    }
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub fn passing(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.passing(),
            Error::Connect { .. } | Error::Lost { .. } => true,
            Error::Unsure { .. }
            | Error::Tls { .. }
            | Error::Plain { .. }
            | Error::Answer { .. }
            | Error::Setting(_)
            | Error::Write(_) => false,
        }
    }

    /// The agent's code, if it was the agent who refused and we know the code.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused(refusal) => refusal.code,
            _ => None,
        }
    }

    /// How long the agent asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// Sorts a failure of an HTTP exchange.
    pub(super) fn of_http(url: &str, error: &reqwest::Error) -> Error {
        let url = url.to_owned();
        if let Some(tls) = find_tls(error) {
            return Error::Tls { url, fault: TlsFault::of(tls), cause: tls_sentence(tls) };
        }
        let cause = chain(error);
        if error.is_connect() {
            let fault = if error.is_timeout() {
                ConnectFault::Timeout
            } else if cause.contains("dns error") {
                ConnectFault::UnknownHost
            } else {
                find_io(error).map_or(ConnectFault::Other, ConnectFault::of)
            };
            return Error::Connect { url, cause: fault.sentence().map_or(cause, str::to_owned), fault };
        }
        if error.is_builder() {
            return Error::Setting(cause);
        }
        if let Some(plain) = Error::of_tls_port(&url, &cause) {
            return plain;
        }
        let cause = if error.is_timeout() { "no answer in time".to_owned() } else { cause };
        Error::Lost { url, cause }
    }

    /// Whether plain HTTP was answered with something that is no HTTP: a port for TLS answers so, with an alert,
    /// and will not answer otherwise the next time. The libraries' text is all that tells.
    pub(super) fn of_tls_port(url: &str, cause: &str) -> Option<Error> {
        let is = url.starts_with("http:") && cause.contains("invalid HTTP version");
        is.then(|| Error::Plain { url: url.to_owned(), cause: "that port speaks TLS" })
    }

    /// Sorts a failure of making a connection by hand.
    pub(super) fn of_connect(url: &str, error: &io::Error) -> Error {
        let url = url.to_owned();
        if let Some(tls) = find_tls(error) {
            return Error::Tls { url, fault: TlsFault::of(tls), cause: tls_sentence(tls) };
        }
        let fault = ConnectFault::of(error);
        Error::Connect {
            url,
            cause: fault.sentence().map_or_else(|| error.to_string(), str::to_owned),
            fault,
        }
    }
}

impl ConnectFault {
    fn of(error: &io::Error) -> ConnectFault {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectFault::Refused,
            io::ErrorKind::TimedOut => ConnectFault::Timeout,
            _ => ConnectFault::Other,
        }
    }

    fn sentence(self) -> Option<&'static str> {
        match self {
            ConnectFault::Refused => Some("connection refused"),
            ConnectFault::Timeout => Some("no answer in time"),
            ConnectFault::UnknownHost => Some("the host's name is not known"),
            ConnectFault::Other => None,
        }
    }
}

impl TlsFault {
    fn of(error: &rustls::Error) -> TlsFault {
        use rustls::CertificateError as Fault;
        match error {
            rustls::Error::InvalidCertificate(fault) => match fault {
                Fault::UnknownIssuer | Fault::BadSignature => TlsFault::UnknownIssuer,
                Fault::NotValidForName | Fault::NotValidForNameContext { .. } => TlsFault::WrongName,
                Fault::Expired
                | Fault::ExpiredContext { .. }
                | Fault::NotValidYet
                | Fault::NotValidYetContext { .. } => TlsFault::Expired,
                Fault::ApplicationVerificationFailure => TlsFault::Fingerprint,
                // A self-signed certificate that is marked as an authority, and not in our roots.
                Fault::Other(_) => TlsFault::UnknownIssuer,
                _ => TlsFault::Other,
            },
            _ => TlsFault::Other,
        }
    }
}

fn tls_sentence(error: &rustls::Error) -> String {
    match TlsFault::of(error) {
        TlsFault::UnknownIssuer => "its certificate is signed by nobody that this machine trusts".to_owned(),
        TlsFault::WrongName => "its certificate is for another name".to_owned(),
        TlsFault::Expired => "its certificate has expired or is not valid yet".to_owned(),
        TlsFault::Fingerprint => "its certificate is not the one with the given fingerprint".to_owned(),
        TlsFault::Other => error.to_string(),
    }
}

/// The whole story of an error, outermost first, each sentence once.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}

/// Looks through a chain of sources. `io::Error` hides the error it wraps from `source`, so look
/// inside it as well.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn find_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    find(error)
}

fn find_io<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    find(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_what_it_can() {
        let body = br#"{"error":"Job expired or too old","code":"JOB_EXPIRED","details":"JOB_EXPIRED: Job TTL has expired","skew_seconds":90}"#;
        let refusal = Refusal::read(401, None, body);
        assert_eq!(refusal.code, Some(Code::JobExpired));
        assert_eq!(refusal.to_string(), "Job expired or too old (JOB_EXPIRED): Job TTL has expired");
        assert_eq!(refusal.more["skew_seconds"], 90);

        let newer = Refusal::read(403, None, br#"{"error":"No","code":"NEWER_CODE"}"#);
        assert_eq!((newer.code, newer.to_string().as_str()), (None, "No (NEWER_CODE)"));

        let proxy = Refusal::read(502, None, b"<html>");
        assert!(proxy.passing());
        assert_eq!(proxy.to_string(), "the agent answered with HTTP status 502");
    }

    #[test]
    fn a_tls_fault_is_found_inside_an_io_error() {
        let fault = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, fault);
        let error = Error::of_connect("https://agent:8443/", &wrapped);
        assert!(matches!(error, Error::Tls { fault: TlsFault::UnknownIssuer, .. }), "{error:?}");
        assert!(!error.passing());
    }
}
