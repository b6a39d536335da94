//! What the audit log holds: entries as canonical JSON, and the leaf hash of each. Pure: the store
//! writes them, in the transaction of what they record.

mod canonical;
mod draft;
mod event;

pub use canonical::canonical;
pub use draft::Draft;
pub use event::{Event, Submitted};

use std::borrow::Cow;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::base::clock::Timestamp;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// 0, 1, 2, ...: the leaf's index in the tree.
    pub number: u64,
    pub at: Timestamp,
    /// What happened, such as `job.accepted`.
    pub kind: Cow<'static, str>,
    /// The canonical JSON: what is hashed, and what a verifier reads.
    pub bytes: Vec<u8>,
    /// SHA-256(0x00 || bytes).
    pub leaf: [u8; 32],
}

impl Entry {
    /// The entry of an event: its fields, `entry`, `at` (nanoseconds) and `time` (the same for people).
    pub fn new(number: u64, at: Timestamp, event: &Event<'_>) -> Entry {
        // An event is made of strings, numbers and maps with string keys: nothing serde_json refuses.
        let mut fields = match serde_json::to_value(event) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) => serde_json::Map::new(),
        };
        fields.insert("entry".to_owned(), number.into());
        fields.insert("at".to_owned(), at.0.into());
        fields.insert("time".to_owned(), at.rfc3339().into());
        let kind = fields.get("kind").and_then(Value::as_str).unwrap_or("unknown").to_owned().into();
        let bytes = canonical(&Value::Object(fields));
        let leaf = leaf_hash(&bytes);
        Entry { number, at, kind, bytes, leaf }
    }
}

/// Hash of a leaf of the Merkle tree (RFC 6962, section 2.1): SHA-256(0x00 || bytes).
pub fn leaf_hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(bytes);
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
