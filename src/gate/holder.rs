//! Who has a bearer token or a client certificate: not a controller, but somebody to whom the operator gave rights.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
};

use crate::{
    base::clock::Timestamp,
    wire::{rights::Rights, token},
};

/// Somebody with rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// For the record and the log, never a secret: `token:4f2d9c1b7a6e5038`.
    pub name: String,
    /// The one controller whose jobs they are for; `None`: all controllers'.
    pub controller: Option<String>,
    pub rights: Rights,
}

/// A token as it is checked. The token itself is known to its bearer alone.
#[derive(Debug)]
pub struct Token {
    pub id: String,
    pub holder: Holder,
    pub expires_at: Timestamp,
    /// Unix nanoseconds of the last use since [`Token::take_use`]; 0: none.
    used_at: AtomicI64,
    /// Since this table was read.
    revoked: AtomicBool,
}

impl Token {
    pub fn new(id: String, controller: Option<String>, rights: Rights, expires_at: Timestamp) -> Token {
        let holder = Holder { name: format!("token:{id}"), controller, rights };
        Token { id, holder, expires_at, used_at: AtomicI64::new(0), revoked: AtomicBool::new(false) }
    }

    /// When it was last used since the last call of this function, if it was.
    pub fn take_use(&self) -> Option<Timestamp> {
        Some(Timestamp(self.used_at.swap(0, Ordering::Relaxed))).filter(|at| at.0 != 0)
    }
}

/// The tokens that are not revoked, by SHA-256. Looking one up takes a time that depends on the hash of what was sent,
/// of which nobody can choose so much as a byte: it tells nothing of the tokens that there are.
#[derive(Debug, Default)]
pub struct Tokens(HashMap<[u8; 32], Token>);

impl Tokens {
    pub fn new(tokens: impl IntoIterator<Item = ([u8; 32], Token)>) -> Tokens {
        Tokens(tokens.into_iter().collect())
    }

    /// The token with that text, if it is good now (its last moment included).
    pub fn find(&self, text: &str, now: Timestamp) -> Option<&Token> {
        let good = |token: &&Token| now <= token.expires_at && !token.revoked.load(Ordering::Acquire);
        let found = self.0.get(&token::digest(text)?).filter(good)?;
        found.used_at.store(now.0, Ordering::Relaxed);
        Some(found)
    }

    /// Whether somebody has a token that is good now and gives just these rights.
    pub fn hold(&self, holder: &Holder, now: Timestamp) -> bool {
        let good = |token: &Token| now <= token.expires_at && !token.revoked.load(Ordering::Acquire);
        self.iter().any(|token| token.holder == *holder && good(token))
    }

    /// Is good no more from now on. Needs nothing that can fail, whatever becomes of reading the table anew.
    pub fn revoke(&self, id: &str) {
        self.iter()
            .filter(|token| token.id == id)
            .for_each(|token| token.revoked.store(true, Ordering::Release));
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.values()
    }
}
