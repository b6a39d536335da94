//! Secrets: where they come from, and what is refused.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{
    RunAs,
    file::{self, Contents},
    section::{At, Notes, Section},
};
use crate::base::ids::random_hex;

/// Bytes of text that a secret has at least.
pub(super) const SHORTEST: usize = 32;

/// A new secret: 32 random bytes from the operating system, in hex.
pub fn generate_secret() -> SecretString {
    SecretString::from(random_hex(32))
}

/// What reading secrets needs to know.
pub(super) struct Sources<'n> {
    pub notes: &'n Notes,
    pub env: &'n dyn Fn(&str) -> Option<String>,
    /// Permissions of the configuration file.
    pub contents: &'n Contents,
    pub run_as: RunAs,
}

/// Keys under which a secret may be given; at most one of them.
pub(super) struct Names {
    pub inline: &'static str,
    pub file: &'static str,
    pub env: Option<&'static str>,
    pub credential: Option<&'static str>,
}

impl Sources<'_> {
    /// The secret of this group, checked; `None` if there is none, or a fault was noted.
    pub fn read(&self, section: &mut Section<'_>, names: &Names) -> Option<SecretString> {
        let given: Vec<(usize, At<'_>)> = [Some(names.inline), Some(names.file), names.env, names.credential]
            .into_iter()
            .enumerate()
            .filter_map(|(i, name)| Some((i, section.get(name?)?)))
            .collect();
        if let [first, others @ ..] = given.as_slice() {
            for (_, other) in others {
                other.fault(format!("is a second source of the secret beside `{}`: keep one", first.1.key));
            }
        }
        let (source, at) = given.into_iter().next()?;
        let text = match source {
            0 => self.inline(&at)?,
            1 => self.file(&at)?,
            2 => self.env(&at)?,
            _ => self.credential(&at)?,
        };
        self.check(&at, text)
    }

    fn check(&self, at: &At<'_>, text: String) -> Option<SecretString> {
        if let Some(what) = weakness(&text) {
            at.fault(what);
            return None;
        }
        Some(SecretString::from(text))
    }

    fn inline(&self, at: &At<'_>) -> Option<String> {
        let text = at.text()?.to_owned();
        if self.contents.world_readable() {
            at.fault(
                "is a secret, and every user of this host may read this file: chmod 600 it, or put the secret \
                 into a file of its own",
            );
        } else if let Some(group) = self.contents.foreign_group(&self.run_as) {
            at.fault(format!(
                "is a secret, and the group {group} may read this file: chmod 600 it, or put the secret into a file of \
                 its own"
            ));
        }
        Some(text)
    }

    fn file(&self, at: &At<'_>) -> Option<String> {
        let path = self.notes.path(at.text()?);
        self.contents_of(at, &path)
    }

    // Neither names nor paths are shown: somebody may have pasted the secret itself there.
    fn env(&self, at: &At<'_>) -> Option<String> {
        let value = (self.env)(at.text()?);
        if value.is_none() {
            at.fault("names an environment variable that is not set: set it, or correct the name");
        }
        value.map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn credential(&self, at: &At<'_>) -> Option<String> {
        let name = at.text()?;
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            at.fault("is no name of a systemd credential: write the id that LoadCredential= gives it");
            return None;
        }
        let Some(folder) = (self.env)("CREDENTIALS_DIRECTORY") else {
            at.fault(
                "needs systemd, but $CREDENTIALS_DIRECTORY is not set: add LoadCredential= to the unit, or use a file",
            );
            return None;
        };
        self.contents_of(at, &Path::new(&folder).join(name))
    }

    fn contents_of(&self, at: &At<'_>, path: &Path) -> Option<String> {
        let contents = match file::read(path) {
            Ok(contents) => contents,
            Err(what) => {
                at.fault(format!("the file it names {what}"));
                return None;
            }
        };
        if contents.world_readable() {
            at.fault(
                "the file it names holds a secret, and every user of this host may read it: chmod 600 it",
            );
        } else if let Some(group) = contents.foreign_group(&self.run_as) {
            at.fault(format!(
                "the file it names holds a secret, and the group {group} may read it: chmod 600 it"
            ));
        }
        match String::from_utf8(contents.bytes) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(_) => {
                at.fault("the file it names is no text: write the secret as text, for example with `quickcmd gen-key`");
                None
            }
        }
    }
}

/// How the text of an Ed25519 key begins, as `quickcmd gen-key --ed25519` writes it.
pub(super) const ED25519: &str = "ed25519:";

/// Why a secret is none.
fn weakness(text: &str) -> Option<String> {
    if text.to_ascii_lowercase().contains(ED25519) || text.contains("-----BEGIN ") {
        return Some(
            "is the text of a key pair, not a shared secret: give the public half as a controller's `public_key` \
             and leave the private one with the controller, or generate a shared secret with `quickcmd gen-key`"
                .to_owned(),
        );
    }
    if text.to_ascii_uppercase().replace('-', "_").starts_with("CHANGE_ME") {
        return Some("is the example's placeholder: generate a secret with `quickcmd gen-key`".to_owned());
    }
    if text.len() < SHORTEST {
        return Some(format!(
            "is too short a secret ({} bytes, at least {SHORTEST} are needed): generate one with `quickcmd gen-key`",
            text.len()
        ));
    }
    if text.chars().all(|c| text.starts_with(c)) {
        return Some("is one character over and over: generate a secret with `quickcmd gen-key`".to_owned());
    }
    None
}

/// Compares two secrets; the time does not matter here, nobody outside can ask.
pub(super) fn same(a: &[u8], b: &secrecy::SecretSlice<u8>) -> bool {
    a == b.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_at_least_32_bytes_and_are_no_placeholder() {
        assert!(weakness(&random_hex(15)).is_some());
        assert!(weakness("0123456789abcdef0123456789abcde").is_some());
        assert!(weakness("0123456789abcdef0123456789abcdef").is_none());
        assert!(weakness("CHANGE_ME_to_something_longer_than_thirty_two_bytes").is_some());
        assert!(weakness("change-me-to-something-longer-than-thirty-two-bytes").is_some());
        assert!(weakness(&"x".repeat(64)).is_some());
        let seed = random_hex(32);
        assert!(weakness(&format!("ed25519:{seed}")).is_some());
        assert!(weakness(&format!("secret: ed25519:{seed}\npublic: {seed}")).is_some());
        assert!(weakness("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n").is_some());
    }

    #[test]
    fn a_generated_secret_is_accepted_and_never_the_same() {
        let (a, b) = (generate_secret(), generate_secret());
        assert!(weakness(a.expose_secret()).is_none());
        assert_eq!(a.expose_secret().len(), 64);
        assert_ne!(a.expose_secret(), b.expose_secret());
    }
}
