//! The entry of an accepted job, made ready before it is known which number it gets: the writer, which everybody
//! waits for, only fills in two numbers and hashes.

use super::{
    Entry, Submitted,
    canonical::{string, write},
    leaf_hash,
};
use crate::base::clock::Timestamp;

use serde_json::Value;

const KIND: &str = "job.accepted";

/// An entry but for its number and the job's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    at: Timestamp,
    bytes: Vec<u8>,
    /// Where in the bytes the two numbers belong.
    number_at: usize,
    job_at: usize,
}

impl Draft {
    /// The entry of [`super::Event::Accepted`] with these members; `submitted.job` does not count.
    pub fn accepted(
        at: Timestamp,
        submitted: &Submitted<'_>,
        limits: &Value,
        network: &str,
        ttl: i64,
    ) -> Draft {
        // As `canonical` would write it: the keys in the order of their bytes.
        let mut out = Object::new();
        out.number("at", at.0);
        out.text("command", submitted.command);
        out.text("controller_id", submitted.controller_id);
        let number_at = out.gap("entry");
        out.text("image", submitted.image);
        let job_at = out.gap("job");
        out.text("job_id", submitted.job_id);
        if let Some(key_id) = submitted.key_id {
            out.text("key_id", key_id);
        }
        out.text("kind", KIND);
        out.key("limits");
        write(limits, &mut out.bytes);
        out.text("network", network);
        out.text("payload_sha256", submitted.payload_sha256);
        out.text("peer", submitted.peer);
        out.text("prompt", submitted.prompt);
        out.text("risk_level", submitted.risk_level);
        out.text("time", &at.rfc3339());
        out.number("ttl", ttl);
        out.bytes.push(b'}');
        Draft { at, bytes: out.bytes, number_at, job_at }
    }

    /// The whole entry.
    pub fn entry(&self, number: u64, job: i64) -> Entry {
        let (number_text, job_text) = (number.to_string(), job.to_string());
        let mut bytes = Vec::with_capacity(self.bytes.len() + number_text.len() + job_text.len());
        bytes.extend_from_slice(&self.bytes[..self.number_at]);
        bytes.extend_from_slice(number_text.as_bytes());
        bytes.extend_from_slice(&self.bytes[self.number_at..self.job_at]);
        bytes.extend_from_slice(job_text.as_bytes());
        bytes.extend_from_slice(&self.bytes[self.job_at..]);
        let leaf = leaf_hash(&bytes);
        Entry { number, at: self.at, kind: KIND.into(), bytes, leaf }
    }
}

/// A JSON object that is being written.
struct Object {
    bytes: Vec<u8>,
}

impl Object {
    fn new() -> Object {
        Object { bytes: Vec::with_capacity(1024) }
    }

    fn key(&mut self, key: &str) {
        self.bytes.push(if self.bytes.is_empty() { b'{' } else { b',' });
        string(key, &mut self.bytes);
        self.bytes.push(b':');
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        string(text, &mut self.bytes);
    }

    fn number(&mut self, key: &str, number: i64) {
        self.key(key);
        self.bytes.extend_from_slice(number.to_string().as_bytes());
    }

    /// A member whose value comes later; where it belongs.
    fn gap(&mut self, key: &str) -> usize {
        self.key(key);
        self.bytes.len()
    }
}
