//! Bearer tokens as text (RFC 6750): `qca_` and 64 hex digits of 256 random bits. The prefix is what scanners for
//! leaked secrets, and our own redaction, know one by. Since all of it is random, its SHA-256 is kept in its place.

use sha2::{Digest, Sha256};

use crate::base::ids::random_hex;

/// How a token begins.
pub const PREFIX: &str = "qca_";
/// Hex digits that follow.
const DIGITS: usize = 64;
/// Hex digits of the hash that name a token.
const ID: usize = 16;

/// A new token.
pub fn generate() -> String {
    format!("{PREFIX}{}", random_hex(DIGITS / 2))
}

/// SHA-256 of the token; `None` if the text is none.
pub fn digest(token: &str) -> Option<[u8; 32]> {
    let digits = token.strip_prefix(PREFIX)?;
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == DIGITS && digits.bytes().all(lower_hex)).then(|| Sha256::digest(token).into())
}

/// What a token is called where it is listed, revoked and recorded: the first digits of its hash.
pub fn id(digest: &[u8; 32]) -> String {
    let mut text = hex::encode(digest);
    text.truncate(ID);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_form_alone() {
        let token = generate();
        assert_eq!(token.len(), 68);
        let hash = digest(&token).unwrap();
        assert_eq!(hash[..], Sha256::digest(token.as_bytes())[..]);
        assert_eq!(id(&hash).len(), 16);
        assert_ne!(generate(), token);
        for wrong in
            ["", "qca_", &token[1..], &token[..67], &token.to_uppercase(), &format!("{token}0"), "qca_é"]
        {
            assert_eq!(digest(wrong), None, "{wrong}");
        }
    }
}
