//! Records as frames.

use base64::{Engine, engine::general_purpose::STANDARD};
use quickcmd_init::spool::{Header, Kind};
use tokio_util::bytes::Bytes as Shared;

use crate::{base::clock::Timestamp, wire::frame::Frame};

/// A stream of a job's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
    /// The agent's own words.
    System,
}

impl Stream {
    /// As it stands in frames and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::System => "system",
        }
    }

    /// The stream of that name.
    pub fn parse(name: &str) -> Option<Stream> {
        [Stream::Stdout, Stream::Stderr, Stream::System].into_iter().find(|stream| stream.as_str() == name)
    }

    /// The stream that a record belongs to, if it is a frame.
    pub(super) fn of(kind: Kind) -> Option<Stream> {
        match kind {
            Kind::Stdout => Some(Stream::Stdout),
            Kind::Stderr => Some(Stream::Stderr),
            Kind::System => Some(Stream::System),
            Kind::Started | Kind::Report | Kind::Artifact => None,
        }
    }
}

/// A frame as it travels: one JSON text, shared by all readers that send it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Line {
    pub seq: u64,
    pub stream: Stream,
    /// The [`Frame`] as JSON (so it is UTF-8).
    pub json: Shared,
}

/// The frame of a record.
pub(super) fn frame(job_id: &str, header: &Header, stream: Stream, offset: u64, body: Vec<u8>) -> Frame {
    let text = if header.binary { Err(body) } else { String::from_utf8(body).map_err(|e| e.into_bytes()) };
    let (data, encoding) = match text {
        Ok(text) => (text, None),
        Err(bytes) => (STANDARD.encode(bytes), Some("base64".to_owned())),
    };
    Frame {
        job_id: job_id.to_owned(),
        timestamp: Timestamp(i64::try_from(header.time_ns).unwrap_or(i64::MAX)).rfc3339(),
        stream: stream.as_str().to_owned(),
        data,
        r#final: false,
        seq: header.seq,
        offset,
        encoding,
        result: None,
    }
}
