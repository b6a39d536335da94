//! Keys: what signs and verifies envelopes and reads. The algorithm belongs to the key, never to a
//! request.

use serde::{Deserialize, Serialize};

/// A signature algorithm, by the name in `signature.algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256 (RFC 2104, FIPS 180-4).
    #[serde(rename = "HMAC-SHA256")]
    HmacSha256,
    /// Ed25519 (RFC 8032).
    Ed25519,
}
