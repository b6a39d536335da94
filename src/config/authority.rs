//! The names by which this agent is addressed: what a signature may say in `@authority` (RFC 9421, section 2.2.3).

use std::{fmt, net::Ipv6Addr};

/// A host, in lower case, with every port or with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// `host`, `host:port`, or with an address of IPv6 in brackets.
    ///
    /// # Errors
    /// What is wrong, for who wrote it.
    pub fn parse(text: &str) -> Result<Authority, String> {
        let wrong = || {
            "is no name that an agent is addressed by: write it like agent.example.com, agent.example.com:8443 or \
             [2001:db8::1]:8443, without https:// and path"
                .to_owned()
        };
        let text = text.to_ascii_lowercase();
        let (host, port) = split(&text).ok_or_else(wrong)?;
        let letters = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let address = host.strip_prefix('[').and_then(|inside| inside.strip_suffix(']'));
        let host = match address {
            // As clients write it, however it is written here (RFC 5952).
            Some(inside) => format!("[{}]", inside.parse::<Ipv6Addr>().map_err(|_| wrong())?),
            None if host.chars().all(letters) => host.to_owned(),
            None => return Err(wrong()),
        };
        Ok(Authority { host, port })
    }

    /// Whether that is what was asked for: `asked` as a signature has it, in lower case and without the scheme's own
    /// port, which is `own_port`.
    pub fn fits(&self, asked: &str, own_port: u16) -> bool {
        split(asked).is_some_and(|(host, port)| {
            host == self.host && self.port.is_none_or(|only| only == port.unwrap_or(own_port))
        })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// Host and port, if it is nothing else. A port is written one way only.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let end = match text.strip_prefix('[') {
        Some(_) => text.find(']')? + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    let port = match rest.strip_prefix(':') {
        Some(digits) => {
            Some(digits.parse::<u16>().ok().filter(|port| port.to_string() == digits && *port > 0)?)
        }
        None if rest.is_empty() => None,
        None => return None,
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_a_port() {
        for (entry, asked, fits) in [
            ("agent.example.com", "agent.example.com", true),
            ("Agent.Example.com", "agent.example.com:8443", true),
            ("agent:8443", "agent:8443", true),
            ("agent:8443", "agent:8444", false),
            ("agent:8443", "agent", false),
            ("agent:443", "agent", true),
            ("[2001:0DB8:0::1]", "[2001:db8::1]:8443", true),
            ("agent", "agent.", false),
            ("agent", "an-agent", false),
            ("agent", "agent:", false),
            ("agent", "agent:08443", false),
            ("agent", "agent:0", false),
            ("agent", "agent:65536", false),
            ("agent", "me@agent", false),
            ("agent", "agent:1:2", false),
            ("agent", "", false),
            ("192.0.2.1:8443", "192.0.2.1:8443", true),
            ("[2001:DB8::1]", "[2001:db8::1]:8443", true),
            ("[2001:db8::1]:8443", "[2001:db8::1]", false),
            ("[2001:db8::1]", "[2001:db8::1]8443", false),
        ] {
            let read = Authority::parse(entry).unwrap_or_else(|why| panic!("{entry}: {why}"));
            assert_eq!(read.fits(asked, 443), fits, "{entry} and {asked}");
        }
        for wrong in [
            "",
            ":8443",
            "https://agent",
            "agent/",
            "*.example.com",
            "agent:port",
            "a b",
            "::1",
            "[::1",
            "[x]",
        ] {
            assert!(Authority::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Authority::parse("A:1").map(|read| read.to_string()), Ok("a:1".to_owned()));
    }
}
