//! What a bearer token or a client certificate gives the right to.

use serde::{Deserialize, Serialize};

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To bring signed submissions and cancellations over such a connection: for certificates.
    Submit,
    /// Status, output, stream, list.
    Read,
    /// To cancel jobs, and to drain the agent.
    Operate,
    /// All of these, and of every controller.
    Admin,
}

impl Right {
    pub const ALL: [Right; 4] = [Right::Submit, Right::Read, Right::Operate, Right::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Submit => "submit",
            Right::Read => "read",
            Right::Operate => "operate",
            Right::Admin => "admin",
        }
    }

    /// The right of that name.
    pub fn parse(text: &str) -> Option<Right> {
        Right::ALL.into_iter().find(|right| right.as_str() == text)
    }
}

/// Some rights.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rights(pub Vec<Right>);

impl Rights {
    /// Whether that right is among them, or `admin`, which is all.
    pub fn hold(&self, right: Right) -> bool {
        self.0.contains(&right) || self.0.contains(&Right::Admin)
    }

    /// From names between spaces or commas; `Err`: the first that is none.
    ///
    /// # Errors
    /// The word.
    pub fn parse(text: &str) -> Result<Rights, String> {
        let mut rights = Vec::new();
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            let right = Right::parse(word).ok_or_else(|| word.to_owned())?;
            if !rights.contains(&right) {
                rights.push(right);
            }
        }
        Ok(Rights(rights))
    }
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|right| right.as_str()).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_and_written() {
        let rights = Rights::parse("read, operate read").unwrap();
        assert_eq!(rights.to_string(), "read operate");
        assert!(rights.hold(Right::Read) && !rights.hold(Right::Submit) && !rights.hold(Right::Admin));
        assert!(Right::ALL.into_iter().all(|right| Rights::parse("admin").unwrap().hold(right)));
        assert_eq!(Rights::parse("read write"), Err("write".to_owned()));
    }
}
