//! Keys: what signs and verifies envelopes and reads. The algorithm belongs to the key, never to a
//! request.

#[cfg(test)]
mod vectors;

use ed25519_dalek::Signer;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// A signature algorithm, by the name in `signature.algorithm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256 (RFC 2104, FIPS 180-4).
    #[serde(rename = "HMAC-SHA256")]
    HmacSha256,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl Algorithm {
    /// The name in an envelope's `signature.algorithm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::HmacSha256 => "HMAC-SHA256",
            Algorithm::Ed25519 => "Ed25519",
        }
    }

    /// The algorithm of that name in an envelope; exact, as v1 controllers write it.
    pub fn parse(name: &str) -> Option<Algorithm> {
        match name {
            "HMAC-SHA256" => Some(Algorithm::HmacSha256),
            "Ed25519" => Some(Algorithm::Ed25519),
            _ => None,
        }
    }

    /// The name in the HTTP Signature Algorithms registry (RFC 9421, section 6.2.2).
    pub fn http_name(self) -> &'static str {
        match self {
            Algorithm::HmacSha256 => "hmac-sha256",
            Algorithm::Ed25519 => "ed25519",
        }
    }
}

/// Why bytes are no key.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// An HMAC secret of no bytes would verify what anybody signs.
    #[error("the secret is empty: give one of at least 32 characters, for example from `quickcmd gen-key`")]
    Empty,
    /// The bytes are no Ed25519 public key, or one of small order that verifies forgeries.
    #[error("this is no Ed25519 public key: give the 32 bytes that `quickcmd gen-key --ed25519` shows")]
    NotEd25519,
}

/// What signs. Holds a secret: its `Debug` shows the algorithm and the key's name only.
#[derive(Clone)]
pub struct SigningKey {
    key_id: Option<String>,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Hmac(SecretSlice<u8>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

impl SigningKey {
    /// An HMAC-SHA256 key: the secret's bytes, which for v1 are those of the text as it is written in
    /// the configuration (hexadecimal digits are not decoded).
    pub fn hmac(secret: impl Into<Vec<u8>>) -> SigningKey {
        SigningKey { key_id: None, secret: Secret::Hmac(SecretSlice::from(secret.into())) }
    }

    /// An Ed25519 key from its 32 byte seed (RFC 8032, section 5.1.5).
    pub fn ed25519(seed: &[u8; 32]) -> SigningKey {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        SigningKey { key_id: None, secret: Secret::Ed25519(Box::new(key)) }
    }

    /// The same key with the name that goes out with each signature as `key_id`.
    #[must_use]
    pub fn named(mut self, key_id: impl Into<String>) -> SigningKey {
        self.key_id = Some(key_id.into());
        self
    }

    /// The name that goes out with each signature.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match &self.secret {
            Secret::Hmac(_) => Algorithm::HmacSha256,
            Secret::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// The signature over exactly these bytes: 32 bytes of HMAC-SHA256, 64 of Ed25519.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Hmac(secret) => {
                let mut mac = keyed(secret.expose_secret());
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    /// The public half of an Ed25519 key; `None` for HMAC, which has none.
    pub fn public(&self) -> Option<[u8; 32]> {
        match &self.secret {
            Secret::Hmac(_) => None,
            Secret::Ed25519(key) => Some(key.verifying_key().to_bytes()),
        }
    }

    /// What verifies this key's signatures.
    pub fn verifying(&self) -> VerifyingKey {
        VerifyingKey(match &self.secret {
            Secret::Hmac(secret) => Check::Hmac(Box::new(keyed(secret.expose_secret()))),
            Secret::Ed25519(key) => Check::Ed25519(Box::new(key.verifying_key())),
        })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm())
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// What verifies. For HMAC it is as secret as what signs, so `Debug` shows the algorithm only.
#[derive(Clone)]
pub struct VerifyingKey(Check);

#[derive(Clone)]
enum Check {
    /// Keyed once; each verification starts from a copy of this state.
    Hmac(Box<Hmac<Sha256>>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl VerifyingKey {
    /// A key from what the configuration holds: an HMAC secret's bytes, or the 32 bytes of a public key.
    ///
    /// # Errors
    /// The secret is empty, or the bytes are no usable public key.
    pub fn new(algorithm: Algorithm, material: &[u8]) -> Result<VerifyingKey, KeyError> {
        match algorithm {
            Algorithm::HmacSha256 if material.is_empty() => Err(KeyError::Empty),
            Algorithm::HmacSha256 => Ok(VerifyingKey(Check::Hmac(Box::new(keyed(material))))),
            Algorithm::Ed25519 => {
                let bytes = material.try_into().map_err(|_| KeyError::NotEd25519)?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotEd25519)?;
                if key.is_weak() {
                    return Err(KeyError::NotEd25519);
                }
                Ok(VerifyingKey(Check::Ed25519(Box::new(key))))
            }
        }
    }

    /// What it verifies.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Check::Hmac(_) => Algorithm::HmacSha256,
            Check::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// Whether the signature is this key's over exactly these bytes. HMAC is compared in constant time and
    /// only in its full length; Ed25519 strictly (no small-order points, no malleable signatures).
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.0 {
            Check::Hmac(keyed) => {
                let mut mac = Hmac::clone(keyed);
                mac.update(message);
                mac.verify_slice(signature).is_ok()
            }
            Check::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VerifyingKey").field(&self.algorithm()).finish()
    }
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length (RFC 2104, section 2)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231_case_2() {
        let key = SigningKey::hmac(*b"Jefe");
        let mac = key.sign(b"what do ya want for nothing?");
        assert_eq!(hex::encode(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert!(key.verifying().verify(b"what do ya want for nothing?", &mac));
        assert!(!key.verifying().verify(b"what do ya want for nothing!", &mac));
        assert!(!key.verifying().verify(b"what do ya want for nothing?", &mac[..16]));
        assert!(!key.verifying().verify(b"what do ya want for nothing?", &[]));
    }

    #[test]
    fn ed25519_agrees_with_rfc_8032_test_2() {
        let seed: [u8; 32] = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
            .unwrap()
            .try_into()
            .unwrap();
        let key = SigningKey::ed25519(&seed);
        let signature = key.sign(&[0x72]);
        assert_eq!(
            hex::encode(&signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        let public = key.public().unwrap();
        let verifying = VerifyingKey::new(Algorithm::Ed25519, &public).unwrap();
        assert!(verifying.verify(&[0x72], &signature));
        assert!(!verifying.verify(&[0x73], &signature));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(VerifyingKey::new(Algorithm::HmacSha256, b"").err(), Some(KeyError::Empty));
        assert_eq!(VerifyingKey::new(Algorithm::Ed25519, b"short").err(), Some(KeyError::NotEd25519));
        // The neutral point: every signature of a certain form would hold under it.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert_eq!(VerifyingKey::new(Algorithm::Ed25519, &weak).err(), Some(KeyError::NotEd25519));
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SigningKey::hmac(*b"correct horse battery staple").named("k1");
        let text = format!("{key:?} {:?}", key.verifying());
        assert_eq!(
            text,
            "SigningKey { algorithm: HmacSha256, key_id: Some(\"k1\"), .. } VerifyingKey(HmacSha256)"
        );
    }
}
