//! Method, path and query of a request become one of the calls that the agent makes, or a refusal. Pure.

use hyper::{HeaderMap, Method, StatusCode, Uri, header};

use super::Refusal;
use crate::sandbox::NAME_PREFIX;

/// Most bytes of a path with its query.
const LONGEST: usize = 4096;
/// Most bytes of a request's body; the agent's have a tenth of it.
pub(super) const LARGEST_BODY: u64 = 256 << 10;
/// The lowest minor version of the API that a path may name, that of Docker 20.10. Under 1.39 and older Docker would drop
/// parts of a body that has been checked: binds become recursive there.
const OLDEST: u32 = 41;

/// A container's name, as the agent makes it: `quickcmd-<home>-...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn parse(text: &str) -> Option<Name> {
        let (home, rest) = text.strip_prefix(NAME_PREFIX)?.split_once('-')?;
        let rest_fits = (1..=100).contains(&rest.len())
            && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        (is_hex(home, 8) && rest_fits).then(|| Name(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Which installation's: 8 hex digits.
    pub(super) fn home(&self) -> &str {
        self.0.get(NAME_PREFIX.len()..NAME_PREFIX.len() + 8).unwrap_or_default()
    }
}

/// A container's whole id; short ones and names could mean another one tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Id(String);

impl Id {
    pub(super) fn parse(text: &str) -> Option<Id> {
        is_hex(text, 64).then(|| Id(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Everything that the agent asks of Docker (`sandbox/calls.rs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Ping,
    Version,
    Info,
    /// By the label of one installation.
    List {
        home: String,
    },
    Create {
        name: Name,
    },
    /// Its answer tells whose the container is.
    Inspect {
        container: String,
    },
    Start(Id),
    Update(Id),
    Kill {
        id: Id,
        signal: &'static str,
    },
    Wait(Id),
    Remove(Id),
    InspectImage {
        reference: String,
    },
    Pull {
        name: String,
        tag: String,
    },
}

/// A call, and the API's version that the path named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// `/v1.41`, or nothing.
    pub(super) version: String,
    pub(super) call: Call,
}

impl Asked {
    /// Reads a request's line.
    pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Asked, Refusal> {
        if uri.scheme().is_some() || uri.authority().is_some() || !uri.path().starts_with('/') {
            return Err(Refusal::bad("the request's target must be a path"));
        }
        if uri.path_and_query().is_none_or(|target| target.as_str().len() > LONGEST) {
            return Err(Refusal::bad(format!("the request's target has more than {LONGEST} bytes")));
        }
        let (version, path) = split_version(uri.path())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/@-".contains(c);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        if !path.chars().all(plain) || parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(Refusal::bad("the path has signs or parts that no path of the agent's has"));
        }
        let mut query = Query::parse(uri.query().unwrap_or_default())?;
        let call = read(method, &parts, &mut query)?;
        query.finish()?;
        Ok(Asked { version, call })
    }

    /// Path and query for Docker, made anew.
    pub(super) fn target(&self) -> String {
        let version = &self.version;
        match &self.call {
            Call::Ping => format!("{version}/_ping"),
            Call::Version => format!("{version}/version"),
            Call::Info => format!("{version}/info"),
            Call::List { home } => {
                let filters = format!(r#"{{"label":["com.quickcmd.home={home}"]}}"#);
                format!("{version}/containers/json?all=true&filters={}", encode(&filters))
            }
            Call::Create { name } => format!("{version}/containers/create?name={}", name.as_str()),
            Call::Inspect { container } => format!("{version}/containers/{container}/json"),
            Call::Start(id) => format!("{version}/containers/{}/start", id.as_str()),
            Call::Update(id) => format!("{version}/containers/{}/update", id.as_str()),
            Call::Kill { id, signal } => format!("{version}/containers/{}/kill?signal={signal}", id.as_str()),
            Call::Wait(id) => format!("{version}/containers/{}/wait?condition=not-running", id.as_str()),
            Call::Remove(id) => format!("{version}/containers/{}?v=true&force=true", id.as_str()),
            Call::InspectImage { reference } => format!("{version}/images/{reference}/json"),
            Call::Pull { name, tag } => {
                format!("{version}/images/create?fromImage={}&tag={}", encode(name), encode(tag))
            }
        }
    }

    pub(super) fn method(&self) -> Method {
        match self.call {
            Call::Ping | Call::Version | Call::Info | Call::List { .. } => Method::GET,
            Call::Inspect { .. } | Call::InspectImage { .. } => Method::GET,
            Call::Remove(_) => Method::DELETE,
            _ => Method::POST,
        }
    }

    /// Whether the call has a body; all others have none.
    pub(super) fn has_body(&self) -> bool {
        matches!(self.call, Call::Create { .. } | Call::Update(_))
    }
}

fn read(method: &Method, parts: &[&str], query: &mut Query) -> Result<Call, Refusal> {
    let unknown = || Refusal::forbidden(format!("{method} /{} is no call of the agent's", parts.join("/")));
    let id = |text: &str| {
        Id::parse(text).ok_or_else(|| Refusal::forbidden(format!("{text} is no whole id of a container")))
    };
    let call = match (method, parts) {
        (&Method::GET, ["_ping"]) => Call::Ping,
        (&Method::GET, ["version"]) => Call::Version,
        (&Method::GET, ["info"]) => Call::Info,
        (&Method::GET, ["containers", "json"]) => {
            query.must("all", "true")?;
            query.may("size", "false")?;
            Call::List { home: home_of(&query.take("filters")?)? }
        }
        (&Method::POST, ["containers", "create"]) => {
            query.may("platform", "")?;
            let name = query.take("name")?;
            Call::Create {
                name: Name::parse(&name).ok_or_else(|| {
                    Refusal::forbidden(format!("{name:?} is no name of a container of the agent's"))
                })?,
            }
        }
        (&Method::GET, ["containers", container, "json"]) => {
            query.may("size", "false")?;
            if Id::parse(container).is_none() && Name::parse(container).is_none() {
                return Err(Refusal::forbidden(format!(
                    "{container} is neither a whole id nor a name of a container of the agent's"
                )));
            }
            Call::Inspect { container: (*container).to_owned() }
        }
        (&Method::POST, ["containers", of, "start"]) => Call::Start(id(of)?),
        (&Method::POST, ["containers", of, "update"]) => Call::Update(id(of)?),
        (&Method::POST, ["containers", of, "wait"]) => {
            query.must("condition", "not-running")?;
            Call::Wait(id(of)?)
        }
        (&Method::POST, ["containers", of, "kill"]) => {
            let signal = query.take("signal")?;
            let signals = ["SIGTERM", "SIGKILL"];
            let signal = signals.into_iter().find(|known| *known == signal);
            let signal =
                signal.ok_or_else(|| Refusal::forbidden("the agent sends SIGTERM and SIGKILL only"))?;
            Call::Kill { id: id(of)?, signal }
        }
        (&Method::DELETE, ["containers", of]) => {
            query.must("force", "true")?;
            query.must("v", "true")?;
            query.may("link", "false")?;
            Call::Remove(id(of)?)
        }
        (&Method::POST, ["images", "create"]) => {
            query.may("platform", "")?;
            let (name, tag) = (query.take("fromImage")?, query.take("tag")?);
            if !is_reference(&name) || !is_tag(&tag) {
                return Err(Refusal::forbidden(format!("{name:?} and {tag:?} are no image's name and tag")));
            }
            Call::Pull { name, tag }
        }
        (&Method::GET, ["images", reference @ .., "json"]) if !reference.is_empty() => {
            let reference = reference.join("/");
            if !is_reference(&reference) {
                return Err(Refusal::forbidden(format!("{reference:?} is no image's name")));
            }
            Call::InspectImage { reference }
        }
        _ => return Err(unknown()),
    };
    Ok(call)
}

/// Refuses headers that the agent does not send: each is a way to mean something else than the line says.
pub(super) fn headers(headers: &HeaderMap) -> Result<(), Refusal> {
    for name in headers.keys() {
        let known = [
            header::HOST,
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::ACCEPT,
            header::USER_AGENT,
            header::CONNECTION,
        ];
        if !known.contains(name) {
            return Err(Refusal::bad(format!("the agent sends no header {name}")));
        }
        if headers.get_all(name).iter().count() > 1 {
            return Err(Refusal::bad(format!("the header {name} is there twice")));
        }
    }
    let is = |name, known: &[&str]| {
        headers.get(name).is_none_or(|value: &header::HeaderValue| {
            value.to_str().is_ok_and(|text| known.iter().any(|known| known.eq_ignore_ascii_case(text)))
        })
    };
    if !is(header::CONNECTION, &["close", "keep-alive"]) {
        return Err(Refusal::bad("the connection stays HTTP: no upgrade, no hijack"));
    }
    if !is(header::CONTENT_TYPE, &["application/json"]) {
        return Err(Refusal::bad("the agent sends JSON only"));
    }
    Ok(())
}

/// The length that the request says its body has.
pub(super) fn length(headers: &HeaderMap) -> Result<u64, Refusal> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(0) };
    let text = value.to_str().unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let length = text.parse().ok().filter(|_| digits);
    let length: u64 = length.ok_or_else(|| Refusal::bad("the body's length is no number"))?;
    if length > LARGEST_BODY {
        return Err(Refusal {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            why: format!("the body has more than {LARGEST_BODY} bytes"),
        });
    }
    Ok(length)
}

fn split_version(path: &str) -> Result<(String, &str), Refusal> {
    let Some(rest) = path.strip_prefix("/v1.") else { return Ok((String::new(), path)) };
    let (minor, _) = rest.split_once('/').ok_or_else(|| Refusal::bad("the path is a version alone"))?;
    let fits = (2..=3).contains(&minor.len())
        && !minor.starts_with('0')
        && minor.bytes().all(|c| c.is_ascii_digit());
    match minor.parse::<u32>() {
        Ok(number) if fits && number >= OLDEST => Ok((format!("/v1.{number}"), &rest[minor.len()..])),
        _ => Err(Refusal::bad(format!("the API's version must be 1.{OLDEST} or later"))),
    }
}

/// The filter of a list: one label, whose value is one installation.
fn home_of(filters: &str) -> Result<String, Refusal> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filters {
        label: Vec<String>,
    }
    let other = || Refusal::forbidden("containers may be listed by the label of one agent only");
    let filters: Filters = serde_json::from_str(filters).map_err(|_| other())?;
    let [label] = filters.label.as_slice() else { return Err(other()) };
    let home = label.strip_prefix("com.quickcmd.home=").filter(|home| is_hex(home, 8));
    home.map(str::to_owned).ok_or_else(other)
}

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

/// Name of an image, with or without tag or digest: nothing that could be another path.
fn is_reference(text: &str) -> bool {
    text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:/@-".contains(c))
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._:-".contains(c))
}

/// A reference with the tag that Docker adds to one without.
pub(super) fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or_default();
    match reference.contains('@') || last.contains(':') {
        true => reference.to_owned(),
        false => format!("{reference}:latest"),
    }
}

/// The reference that a pull of this name and tag brings.
pub(super) fn pulled(name: &str, tag: &str) -> String {
    if tag.contains(':') { format!("{name}@{tag}") } else { format!("{name}:{tag}") }
}

/// A query's pairs: each key once, nothing left over.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Query, Refusal> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(key).zip(decode(value));
            let (key, value) = decoded.ok_or_else(|| Refusal::bad("the query can't be read"))?;
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(Refusal::bad(format!("{key} stands twice in the query")));
            }
            pairs.push((key, value));
        }
        Ok(Query(pairs))
    }

    fn take(&mut self, key: &str) -> Result<String, Refusal> {
        let at = self.0.iter().position(|(known, _)| known == key);
        let at = at.ok_or_else(|| Refusal::forbidden(format!("the query lacks {key}")))?;
        Ok(self.0.remove(at).1)
    }

    fn must(&mut self, key: &str, wanted: &str) -> Result<(), Refusal> {
        let found = self.take(key)?;
        if found == wanted {
            return Ok(());
        }
        Err(Refusal::forbidden(format!("{key} is {found:?} in the query, the agent says {wanted:?}")))
    }

    fn may(&mut self, key: &str, wanted: &str) -> Result<(), Refusal> {
        if self.0.iter().any(|(known, _)| known == key) { self.must(key, wanted) } else { Ok(()) }
    }

    fn finish(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(Refusal::forbidden(format!("the agent does not ask for {key}"))),
        }
    }
}

/// `application/x-www-form-urlencoded`, strictly.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(rest.next())? * 16 + digit(rest.next())?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => out.push(char::from(byte)),
            // To a String this never fails.
            _ => write!(out, "%{byte:02X}").unwrap_or_default(),
        }
    }
    out
}
