//! Who a client certificate is, by the configuration of the moment. What the handshake has checked is that an
//! authority of ours signed it; here it is looked up whose it is.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{expiry, x509};
use crate::{
    base::clock::Timestamp,
    config::{ClientTls, TlsName},
    gate::Holder,
};

/// A certificate that came with a connection and was checked by the handshake.
#[derive(Debug, PartialEq, Eq)]
pub struct Presented {
    fingerprint: [u8; 32],
    dns: Vec<String>,
    uris: Vec<String>,
    /// Unix seconds.
    not_after: Option<i64>,
    /// The authorities that it was checked with: [`ClientTls::fingerprint`].
    checked_with: [u8; 32],
}

/// The certificate of the connection that a request came on, if it has one.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificate(pub Option<Arc<Presented>>);

impl Presented {
    pub fn of(der: &[u8], checked_with: [u8; 32]) -> Presented {
        let names = x509::names(der).unwrap_or_default();
        Presented {
            fingerprint: Sha256::digest(der).into(),
            dns: names.dns,
            uris: names.uris,
            not_after: expiry::not_after(der),
            checked_with,
        }
    }

    /// Whether it is still good: connections live long, and certificates end, are revoked, and authorities change meanwhile.
    pub fn holds(&self, config: &ClientTls, now: Timestamp) -> bool {
        self.checked_with == config.fingerprint
            && self.not_after.is_some_and(|end| now.secs() <= end)
            && !config.revoked.contains(&self.fingerprint)
    }

    /// Whose it is. `None`: nobody's, or it is not good any more.
    pub fn holder(&self, config: &ClientTls, now: Timestamp) -> Option<Holder> {
        if !self.holds(config, now) {
            return None;
        }
        let known = |by: &TlsName| match by {
            TlsName::Uri(uri) => self.uris.contains(uri),
            TlsName::Dns(name) => self.dns.contains(name),
            TlsName::Fingerprint(hash) => *hash == self.fingerprint,
        };
        // The most exact first: a certificate may carry several names.
        let exact = |by: &TlsName| matches!(by, TlsName::Fingerprint(_));
        let mut matching: Vec<_> = config.clients.iter().filter(|client| known(&client.by)).collect();
        matching.sort_by_key(|client| !exact(&client.by));
        let client = matching.first()?;
        Some(Holder {
            name: format!("certificate:{}", client.name),
            controller: client.controller.clone(),
            rights: client.rights.clone(),
        })
    }
}
