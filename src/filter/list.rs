//! Docker's list of containers, passed on while it comes: one entry at a time is held and looked at, and the agent gets
//! its own. So it may be of any length.

use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use serde_json::Value;

use super::{Rules, own, upstream::Broken};

/// Most bytes of one entry. One of the agent's has some kilobytes; labels that others give may have more.
const LARGEST_ENTRY: usize = 8 << 20;

/// The agent's entries of a list that still comes.
pub(super) type Own = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Broken>>>;

/// Leaves the agent's entries in a list. What is no list, or ends too early, breaks the connection to the agent off, so
/// that half a list is never taken for a whole one.
pub(super) fn own_ones(rules: Rules, answer: Incoming) -> Own {
    let coming = Coming { rules, answer, split: Splitter::default(), written: false, over: false };
    let frames = stream::try_unfold(coming, |mut coming| async move {
        Ok(coming.next().await?.map(|chunk| (Frame::data(Bytes::from(chunk)), coming)))
    });
    let frames = frames.inspect_err(|broken| tracing::warn!(%broken, "Docker's list can't be passed on"));
    StreamBody::new(frames.boxed())
}

struct Coming {
    rules: Rules,
    answer: Incoming,
    split: Splitter,
    /// Whether an entry has been passed on.
    written: bool,
    over: bool,
}

impl Coming {
    /// What is to be passed on next; `None` after the end.
    async fn next(&mut self) -> Result<Option<String>, Broken> {
        if self.over {
            return Ok(None);
        }
        let mut chunk = String::new();
        while chunk.is_empty() {
            let Some(frame) = self.answer.frame().await else {
                self.split.end()?;
                self.over = true;
                chunk.push_str(if self.written { "]" } else { "[]" });
                break;
            };
            let Ok(data) = frame?.into_data() else { continue };
            for entry in self.split.take(&data)? {
                let entry: Value = serde_json::from_slice(&entry).map_err(|error| {
                    Broken::Answer(format!("an entry of its list can't be read: {error}"))
                })?;
                if own::listed(&self.rules, &entry) {
                    chunk.push_str(if self.written { "," } else { "[" });
                    chunk.push_str(&entry.to_string());
                    self.written = true;
                }
            }
        }
        Ok(Some(chunk))
    }
}

/// Where in the list we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Before,
    Between,
    Entry,
    /// In a string of an entry.
    Text,
    /// The same, behind a backslash.
    Escape,
    After,
}

/// Cuts an array of objects, as it comes, into the objects' texts. It knows of JSON only what shows where an object
/// ends: each is read by a real parser afterwards.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    place: Place,
    /// Braces and brackets that are open in the entry.
    open: usize,
    entry: Vec<u8>,
}

impl Splitter {
    /// The entries that these bytes complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Broken> {
        let mut whole = Vec::new();
        for byte in bytes {
            let inside = matches!(self.place, Place::Entry | Place::Text | Place::Escape);
            if inside || *byte == b'{' {
                self.entry.push(*byte);
            }
            self.place = match (self.place, byte) {
                (Place::Before, b'[') => Place::Between,
                (Place::Between, b']') => Place::After,
                (Place::Between, b'{') => {
                    self.open = 1;
                    Place::Entry
                }
                (Place::Between, b',') => Place::Between,
                (place @ (Place::Before | Place::Between | Place::After), b' ' | b'\t' | b'\r' | b'\n') => {
                    place
                }
                (Place::Before | Place::Between | Place::After, _) => {
                    return Err(Broken::Answer("its list is no array of objects".to_owned()));
                }
                (Place::Entry, b'"') | (Place::Escape, _) => Place::Text,
                (Place::Text, b'\\') => Place::Escape,
                (Place::Text, b'"') => Place::Entry,
                (Place::Entry, b'{' | b'[') => {
                    self.open += 1;
                    Place::Entry
                }
                (Place::Entry, b'}' | b']') => {
                    self.open -= 1;
                    if self.open > 0 {
                        Place::Entry
                    } else {
                        whole.push(std::mem::take(&mut self.entry));
                        Place::Between
                    }
                }
                (place @ (Place::Entry | Place::Text), _) => place,
            };
            if self.entry.len() > LARGEST_ENTRY {
                return Err(Broken::Answer(format!(
                    "an entry of its list has more than {LARGEST_ENTRY} bytes"
                )));
            }
        }
        Ok(whole)
    }

    /// Nothing more comes.
    pub(super) fn end(&self) -> Result<(), Broken> {
        match self.place {
            Place::After => Ok(()),
            _ => Err(Broken::Answer("its list ends too early".to_owned())),
        }
    }
}
