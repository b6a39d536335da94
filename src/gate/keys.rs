//! Which key verifies what. Whether a controller or a key exists shows neither in the answer nor in the
//! work: every verification does as many as the controller with the most keys needs, on decoys if need be.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use crate::{
    base::{clock::Timestamp, ids::random_hex},
    config::{GateConfig, Key},
    wire::key::{Algorithm, KeyError, SigningKey, VerifyingKey},
};

/// Every key, by who signs with it.
#[derive(Debug)]
pub(super) struct Keyring {
    controllers: HashMap<String, Vec<Entry>>,
    /// For who is on no list.
    shared: Vec<Entry>,
    decoys: [Entry; 2],
    /// The most keys of one algorithm that anybody has, HMAC and Ed25519.
    widths: [usize; 2],
}

#[derive(Debug)]
struct Entry {
    key_id: Option<Arc<str>>,
    print: u16,
    key: VerifyingKey,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
}

/// Who says to have signed, and with what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) controller_id: &'a str,
    /// All valid keys are tried where there is none.
    pub(super) key_id: Option<&'a str>,
    /// `None`: a name that is no algorithm of ours, which no key has.
    pub(super) algorithm: Option<Algorithm>,
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// The key that verified it.
    pub(super) key: KeyUsed,
}

/// By which key something was signed, as it can be recorded: nobody finds the key by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyUsed {
    /// Its name, if it has one.
    pub key_id: Option<Arc<str>>,
    /// What tells it from another, whatever they are called; `None` in what an earlier version recorded.
    pub print: Option<u16>,
}

impl Keyring {
    pub(super) fn new(config: &GateConfig) -> Result<Keyring, KeyError> {
        let mut controllers = HashMap::new();
        for controller in &config.controllers {
            controllers.insert(controller.id.clone(), entries(&controller.keys)?);
        }
        let shared = entries(&config.shared_keys)?;
        let width = |algorithm| {
            let count = |keys: &Vec<Entry>| keys.iter().filter(|entry| entry.has(algorithm)).count();
            controllers.values().chain([&shared]).map(count).max().unwrap_or(0).max(1)
        };
        let widths = [width(Algorithm::HmacSha256), width(Algorithm::Ed25519)];
        let decoy = |key: SigningKey| Entry {
            key_id: None,
            print: 0,
            key: key.verifying(),
            not_before: None,
            not_after: None,
        };
        let decoys = [
            decoy(SigningKey::hmac(random_hex(32))),
            decoy(SigningKey::ed25519(b"a decoy: never believed, only ti")),
        ];
        Ok(Keyring { controllers, shared, decoys, widths })
    }

    /// Whether the signature is the claimed controller's over exactly these bytes, under a key that is valid
    /// now. A controller on no list may hold the shared secret: that its signature holds gives it no right.
    pub(super) fn verify(
        &self,
        claim: Claim<'_>,
        message: &[u8],
        signature: &[u8],
        now: Timestamp,
    ) -> Option<Proof> {
        let keys = self.controllers.get(claim.controller_id).unwrap_or(&self.shared);
        let algorithm = claim.algorithm.unwrap_or(Algorithm::HmacSha256);
        let (decoy, width) = match algorithm {
            Algorithm::HmacSha256 => (&self.decoys[0], self.widths[0]),
            Algorithm::Ed25519 => (&self.decoys[1], self.widths[1]),
        };
        let mut own = keys.iter().filter(|entry| entry.has(algorithm));
        let mut proof = None;
        for _ in 0..width {
            let candidate = own.next();
            let holds = candidate.unwrap_or(decoy).key.verify(message, signature);
            if let Some(entry) = candidate
                && holds
                && claim.algorithm.is_some()
                && entry.answers(claim.key_id, now)
            {
                let (key_id, print) = (entry.key_id.clone(), Some(entry.print));
                proof = Some(Proof { key: KeyUsed { key_id, print } });
            }
        }
        proof
    }

    /// Whether that key is one of the controller's, be it valid now or not: the same key, whatever it is called. Of a
    /// job that has only its name, a key of that name; of one that does not even have that nothing is known.
    pub(super) fn lists(&self, controller_id: &str, key: &KeyUsed) -> bool {
        let is_it = |entry: &Entry| match (key.print, &key.key_id) {
            (Some(print), _) => entry.print == print,
            (None, Some(_)) => entry.key_id == key.key_id,
            (None, None) => true,
        };
        self.controllers.get(controller_id).is_some_and(|keys| keys.iter().any(is_it))
    }
}

impl Entry {
    fn has(&self, algorithm: Algorithm) -> bool {
        self.key.algorithm() == algorithm
    }

    /// Whether it is valid now (both ends included) and the one that was named, if one was.
    fn answers(&self, key_id: Option<&str>, now: Timestamp) -> bool {
        self.not_before.is_none_or(|first| first <= now)
            && self.not_after.is_none_or(|last| now <= last)
            && (key_id.is_none() || key_id == self.key_id.as_deref())
    }
}

/// 16 bits of a hash of a key: the same in every life of the agent, and too few to find a key by. Of 65,536 keys that
/// take another's place one is not told from it, and of as many wrong guesses of a key this refutes all but one: what a secret
/// is of 32 random bytes for.
fn print(key: &Key) -> u16 {
    let mut hash = Sha256::new();
    hash.update(b"quickcmd key print\0");
    hash.update(key.algorithm.as_str());
    hash.update([0]);
    hash.update(key.material.expose_secret());
    let hash = hash.finalize();
    u16::from_be_bytes([hash[0], hash[1]])
}

/// What tells one set of keys from another, in this process alone: with a secret of its own in it, it tells nobody
/// anything of them.
pub(super) fn mark(keys: &[Key]) -> String {
    static OWN: OnceLock<String> = OnceLock::new();
    let mut each: Vec<[u8; 32]> = keys
        .iter()
        .map(|key| {
            let mut hash = Sha256::new();
            hash.update(OWN.get_or_init(|| random_hex(32)));
            hash.update(key.algorithm.as_str());
            hash.update([0]);
            hash.update(key.material.expose_secret());
            hash.finalize().into()
        })
        .collect();
    // In whatever order they stand.
    each.sort_unstable();
    hex::encode(Sha256::digest(each.concat()))
}

fn entries(keys: &[Key]) -> Result<Vec<Entry>, KeyError> {
    keys.iter()
        .map(|key| {
            Ok(Entry {
                key_id: key.key_id.as_deref().map(Arc::from),
                print: print(key),
                key: VerifyingKey::new(key.algorithm, key.material.expose_secret())?,
                not_before: key.not_before,
                not_after: key.not_after,
            })
        })
        .collect()
}
